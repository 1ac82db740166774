//! Requests as a program writes them: builders that end with `send`.
//!
//! The builders are the same for both clients. A [`Shell`] is what carries an operation out: for the blocking
//! [`Client`](crate::Client) `send` returns a `Result`, for the [`AsyncClient`](crate::AsyncClient) a future
//! of one. What is wrong with a request's texts, names and values is found by `send` before anything goes
//! out.
//!
//! # Expressions
//!
//! Conditions, filters, updates and key conditions are texts in DynamoDB's grammar. Values in them are always
//! placeholders, `:value`, and names may be, `#name`: they are given with `value` and `name`. One set of
//! placeholders serves all texts of a request, and one that no text uses is an error.

mod batch;
mod range;
mod single;
mod status;
mod table;

pub use batch::{BatchGet, BatchWrite};
pub(crate) use range::Cursor;
pub use range::{Query, Scan};
pub use single::{Delete, Get, Put, Update};
pub use status::{Scrub, Status, Tail, Topology};
pub use table::{CreateTable, DeleteTable, DescribeTable, ListTables, SplitTable};

use crate::error::Invalid;
use crate::protocol::operation::Operation;
use evenkeel_wire::expression::{Bindings, Condition, ParseError};
use evenkeel_wire::item::Value;
use std::time::Duration;

/// What carries operations out. Implemented by the two clients.
pub trait Shell: Clone {
    /// What carrying out an operation gives: a result, or a future of one.
    type Answer<O: Operation>;

    /// Carries an operation out.
    fn execute<O: Operation>(&self, prepared: Prepared<O>) -> Self::Answer<O>;
}

/// A request that is complete: its operation, if its texts and values are right.
#[derive(Debug)]
pub struct Prepared<O> {
    /// The operation.
    pub operation: Result<O, Invalid>,
    /// The call's deadline, if not the client's.
    pub deadline: Option<Duration>,
}

impl<O: Operation> From<O> for Prepared<O> {
    fn from(operation: O) -> Self {
        Self { operation: Ok(operation), deadline: None }
    }
}

/// A builder that can be sent, or submitted to a [`Pipeline`](crate::Pipeline).
pub trait Request {
    /// What it becomes.
    type Operation: Operation;

    /// Reads its texts and encodes its items.
    fn prepare(self) -> Prepared<Self::Operation>;
}

/// Placeholders of a request's texts.
#[derive(Clone, Debug, Default)]
struct Placeholders(Bindings);

impl Placeholders {
    fn bind_name(&mut self, placeholder: String, name: String) {
        self.0 = std::mem::take(&mut self.0).with_name(placeholder, name);
    }

    fn bind_value(&mut self, placeholder: String, value: Value) {
        self.0 = std::mem::take(&mut self.0).with_value(placeholder, value);
    }

    /// Reads one of the request's texts, if it was given.
    fn read<T>(
        &mut self,
        what: &'static str,
        text: Option<&str>,
        parse: impl FnOnce(&str, &mut Bindings) -> Result<T, ParseError>,
    ) -> Result<Option<T>, Invalid> {
        let read = text.map(|text| parse(text, &mut self.0)).transpose();
        read.map_err(|error| Invalid::Text { what, error: Box::new(error) })
    }

    fn read_condition(
        &mut self,
        what: &'static str,
        text: Option<&str>,
    ) -> Result<Option<Condition>, Invalid> {
        self.read(what, text, Condition::parse)
    }
}

/// The methods that all builders with expressions have.
macro_rules! placeholder_methods {
    () => {
        /// What a `#name` in this request's texts stands for.
        pub fn name(mut self, placeholder: impl Into<String>, name: impl Into<String>) -> Self {
            self.placeholders.bind_name(placeholder.into(), name.into());
            self
        }

        /// What a `:value` in this request's texts stands for.
        pub fn value(
            mut self,
            placeholder: impl Into<String>,
            value: impl Into<evenkeel_wire::item::Value>,
        ) -> Self {
            self.placeholders.bind_value(placeholder.into(), value.into());
            self
        }

        /// All placeholders at once, in place of those that were given before.
        pub fn bindings(mut self, bindings: evenkeel_wire::expression::Bindings) -> Self {
            self.placeholders = Placeholders(bindings);
            self
        }
    };
}

/// The methods that all builders have.
macro_rules! sending_methods {
    () => {
        /// How long this call may take with all its repetitions, in place of the client's deadline.
        pub fn deadline(mut self, deadline: std::time::Duration) -> Self {
            self.deadline = Some(deadline);
            self
        }

        /// Sends the request, and repeats it until it is answered or its deadline has passed.
        pub fn send(self) -> S::Answer<<Self as Request>::Operation> {
            let shell = self.shell.clone();
            shell.execute(self.prepare())
        }
    };
}

use {placeholder_methods, sending_methods};

/// Gives a client the functions that begin requests.
macro_rules! begin_requests {
    ($client:ident) => {
        impl $client {
            /// Writes an item, in place of any that has its key.
            pub fn put(
                &self,
                table: impl Into<String>,
                item: evenkeel_wire::item::Item,
            ) -> crate::request::Put<Self> {
                crate::request::Put::new(self, table.into(), item)
            }

            /// Reads the item of a key: an item with exactly the key attributes.
            pub fn get(
                &self,
                table: impl Into<String>,
                key: evenkeel_wire::item::Item,
            ) -> crate::request::Get<Self> {
                crate::request::Get::new(self, table.into(), key)
            }

            /// Changes the item of a key, or creates it.
            pub fn update(
                &self,
                table: impl Into<String>,
                key: evenkeel_wire::item::Item,
            ) -> crate::request::Update<Self> {
                crate::request::Update::new(self, table.into(), key)
            }

            /// Removes the item of a key.
            pub fn delete(
                &self,
                table: impl Into<String>,
                key: evenkeel_wire::item::Item,
            ) -> crate::request::Delete<Self> {
                crate::request::Delete::new(self, table.into(), key)
            }

            /// Reads the items of one partition key, in the order of the sort key.
            pub fn query(&self, table: impl Into<String>) -> crate::request::Query<Self> {
                crate::request::Query::new(self, table.into())
            }

            /// Reads a whole table, in the order in which it is stored.
            pub fn scan(&self, table: impl Into<String>) -> crate::request::Scan<Self> {
                crate::request::Scan::new(self, table.into())
            }

            /// Reads up to 100 items of any tables.
            pub fn batch_get(&self) -> crate::request::BatchGet<Self> {
                crate::request::BatchGet::new(self)
            }

            /// Writes and removes up to 25 items of any tables, each on its own.
            pub fn batch_write(&self) -> crate::request::BatchWrite<Self> {
                crate::request::BatchWrite::new(self)
            }

            /// Creates a table.
            pub fn create_table(&self, name: impl Into<String>) -> crate::request::CreateTable<Self> {
                crate::request::CreateTable::new(self, name.into())
            }

            /// Describes a table.
            pub fn describe_table(&self, name: impl Into<String>) -> crate::request::DescribeTable<Self> {
                crate::request::DescribeTable::new(self, name.into())
            }

            /// Deletes a table and everything in it.
            pub fn delete_table(&self, name: impl Into<String>) -> crate::request::DeleteTable<Self> {
                crate::request::DeleteTable::new(self, name.into())
            }

            /// Divides the range of a table's partition.
            pub fn split_table(&self, name: impl Into<String>) -> crate::request::SplitTable<Self> {
                crate::request::SplitTable::new(self, name.into())
            }

            /// Lists the names of all tables.
            pub fn list_tables(&self) -> crate::request::ListTables<Self> {
                crate::request::ListTables::new(self)
            }

            /// Asks where the processes of the cluster are.
            pub fn topology(&self) -> crate::request::Topology<Self> {
                crate::request::Topology::new(self)
            }

            /// Asks the process that listens at `endpoint`, of any role, what it knows of itself.
            pub fn status_of(&self, endpoint: impl Into<String>) -> crate::request::Status<Self> {
                crate::request::Status::new(self, endpoint.into())
            }

            /// Asks the storage core that listens at `endpoint` to check all its trees now.
            pub fn scrub(&self, endpoint: impl Into<String>) -> crate::request::Scrub<Self> {
                crate::request::Scrub::new(self, endpoint.into())
            }

            /// Asks the router that listens at `endpoint` where the time of requests went, for the first
            /// interval that it still has from `from` on.
            pub fn tail_of(&self, endpoint: impl Into<String>, from: u64) -> crate::request::Tail<Self> {
                crate::request::Tail::new(self, endpoint.into(), from)
            }
        }
    };
}

pub(crate) use begin_requests;
