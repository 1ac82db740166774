//! Requests about tables.

use super::{Prepared, Request, Shell, sending_methods};
use crate::error::Invalid;
use crate::protocol::operation::table;
use evenkeel_wire::ids::PartitionId;
use evenkeel_wire::key::{KeyAttribute, KeySchema, KeyType};
use evenkeel_wire::message::catalog;
use evenkeel_wire::table::{Billing, Throughput};
use std::time::Duration;

/// Creates a table: on demand, unless its capacity is provisioned.
///
/// ```no_run
/// use evenkeel_client::{Client, KeyType};
///
/// # let client = Client::builder().connect()?;
/// let table = client
///     .create_table("orders")
///     .partition_key("pk", KeyType::S)
///     .sort_key("sk", KeyType::N)
///     .wait_until_active()
///     .send()?;
/// println!("{} has {} partitions", table.name, table.partitions);
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct CreateTable<S> {
    shell: S,
    name: String,
    partition: Option<KeyAttribute>,
    sort: Option<KeyAttribute>,
    billing: Billing,
    partitions: u32,
    wait: bool,
    deadline: Option<Duration>,
}

/// Describes a table.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct DescribeTable<S> {
    shell: S,
    name: String,
    deadline: Option<Duration>,
}

/// Deletes a table and everything in it.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct DeleteTable<S> {
    shell: S,
    name: String,
    wait: bool,
    deadline: Option<Duration>,
}

/// Divides the range of a table's partition, and waits until that is done.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct SplitTable<S> {
    shell: S,
    name: String,
    partition: PartitionId,
    border: Vec<u8>,
    deadline: Option<Duration>,
}

/// Lists the names of all tables, in order.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct ListTables<S> {
    shell: S,
    deadline: Option<Duration>,
}

impl<S: Shell> CreateTable<S> {
    pub(crate) fn new(shell: &S, name: String) -> Self {
        Self {
            shell: shell.clone(),
            name,
            partition: None,
            sort: None,
            billing: Billing::OnDemand,
            partitions: 0,
            wait: false,
            deadline: None,
        }
    }

    /// The attribute that places an item. Every table has one.
    pub fn partition_key(mut self, name: impl Into<String>, key_type: KeyType) -> Self {
        self.partition = Some(KeyAttribute { name: name.into(), key_type });
        self
    }

    /// The attribute that orders the items of one partition key.
    pub fn sort_key(mut self, name: impl Into<String>, key_type: KeyType) -> Self {
        self.sort = Some(KeyAttribute { name: name.into(), key_type });
        self
    }

    /// Whatever capacity the traffic needs.
    pub fn on_demand(mut self) -> Self {
        self.billing = Billing::OnDemand;
        self
    }

    /// A fixed capacity: strong reads of 4 KB and writes of 1 KB, each a second.
    pub fn provisioned(mut self, read_units: u64, write_units: u64) -> Self {
        self.billing = Billing::Provisioned(Throughput { read_units, write_units });
        self
    }

    /// How many partitions to begin with, in place of what the capacity asks for.
    pub fn partitions(mut self, partitions: u32) -> Self {
        self.partitions = partitions;
        self
    }

    /// Waits until the table can be used.
    pub fn wait_until_active(mut self) -> Self {
        self.wait = true;
        self
    }

    sending_methods!();

    fn operation(self) -> Result<table::CreateTable, Invalid> {
        let partition = self.partition.ok_or(Invalid::Missing { what: "a partition key" })?;
        let schema = KeySchema { partition, sort: self.sort };
        schema.check()?;
        let Self { name, billing, partitions, .. } = self;
        Ok(table::CreateTable::new(catalog::CreateTable { name, schema, billing, partitions }, self.wait))
    }
}

impl<S: Shell> DescribeTable<S> {
    pub(crate) fn new(shell: &S, name: String) -> Self {
        Self { shell: shell.clone(), name, deadline: None }
    }

    sending_methods!();
}

impl<S: Shell> DeleteTable<S> {
    pub(crate) fn new(shell: &S, name: String) -> Self {
        Self { shell: shell.clone(), name, wait: false, deadline: None }
    }

    /// Waits until the table is gone, so that its name is free.
    pub fn wait_until_gone(mut self) -> Self {
        self.wait = true;
        self
    }

    sending_methods!();
}

impl<S: Shell> SplitTable<S> {
    pub(crate) fn new(shell: &S, name: String) -> Self {
        let (partition, border) = (PartitionId::NONE, Vec::new());
        Self { shell: shell.clone(), name, partition, border, deadline: None }
    }

    /// The partition, if the table has several.
    pub fn partition(mut self, partition: PartitionId) -> Self {
        self.partition = partition;
        self
    }

    /// The first storage key of the new partition, in place of one in the middle.
    pub fn at(mut self, border: Vec<u8>) -> Self {
        self.border = border;
        self
    }

    sending_methods!();
}

impl<S: Shell> ListTables<S> {
    pub(crate) fn new(shell: &S) -> Self {
        Self { shell: shell.clone(), deadline: None }
    }

    sending_methods!();
}

impl<S: Shell> Request for CreateTable<S> {
    type Operation = table::CreateTable;

    fn prepare(self) -> Prepared<table::CreateTable> {
        Prepared { deadline: self.deadline, operation: self.operation() }
    }
}

impl<S: Shell> Request for DescribeTable<S> {
    type Operation = table::DescribeTable;

    fn prepare(self) -> Prepared<table::DescribeTable> {
        let operation = Ok(table::DescribeTable::new(self.name));
        Prepared { operation, deadline: self.deadline }
    }
}

impl<S: Shell> Request for DeleteTable<S> {
    type Operation = table::DeleteTable;

    fn prepare(self) -> Prepared<table::DeleteTable> {
        let operation = Ok(table::DeleteTable::new(self.name, self.wait));
        Prepared { operation, deadline: self.deadline }
    }
}

impl<S: Shell> Request for SplitTable<S> {
    type Operation = table::SplitTable;

    fn prepare(self) -> Prepared<table::SplitTable> {
        let operation = Ok(table::SplitTable::new(self.name, self.partition, self.border));
        Prepared { operation, deadline: self.deadline }
    }
}

impl<S: Shell> Request for ListTables<S> {
    type Operation = table::ListTables;

    fn prepare(self) -> Prepared<table::ListTables> {
        Prepared { operation: Ok(table::ListTables::default()), deadline: self.deadline }
    }
}
