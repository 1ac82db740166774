//! Evenkeel's native client: tables, items and expressions, blocking or async.
//!
//! # A first program
//!
//! ```no_run
//! use evenkeel_client::{Client, Item, KeyType};
//!
//! let client = Client::builder().endpoint("127.0.0.1:7400").connect()?;
//! client
//!     .create_table("orders")
//!     .partition_key("user", KeyType::S)
//!     .sort_key("number", KeyType::N)
//!     .wait_until_active()
//!     .send()?;
//!
//! let order = Item::new().with("user", "ada").with("number", 1).with("total", 250);
//! client.put("orders", order).condition("attribute_not_exists(number)").send()?;
//!
//! let key = Item::new().with("user", "ada").with("number", 1);
//! let paid = client.update("orders", key).expression("SET paid = :yes").value(":yes", true);
//! println!("{:?}", paid.return_new().send()?.item);
//!
//! let orders = client.query("orders").key_condition("user = :user").value(":user", "ada");
//! for order in orders.backward().items() {
//!     println!("{:?}", order?);
//! }
//! # Ok::<(), evenkeel_client::Error>(())
//! ```
//!
//! Every request is a [builder](request) that ends with `send`. The [`Client`] blocks the thread that calls
//! it; the [`AsyncClient`] has the same requests as futures, under any executor. [`Client::pipeline`] sends
//! many requests on one connection without waiting for each answer. A program that takes its endpoint from
//! the environment begins with [`ClientBuilder::from_env`].
//!
//! # What a call promises
//!
//! * *A write is executed once, however often it is sent.* It carries a token, under which its partition
//!   remembers what it led to; a repetition carries the same token and is answered with the first outcome.
//! * *A call is repeated until it is answered or its deadline has passed.* Leaders change, routers are
//!   restarted, connections break: none of that is an error before the deadline, which outlasts a fail-over
//!   (15 seconds, [`ClientBuilder::deadline`]; for one call, `deadline` on its builder).
//! * *An error says whether the write may have taken effect.* [`Error::Timeout`] means that it did not;
//!   [`Error::OutcomeUnknown`] means that nobody could say in time. See [`Error::may_have_executed`].
//! * *An item comes back as it was written, or not at all.* Its checksum is computed here when it is put and
//!   checked here whenever it returns, after every hop, log and disk in between.
//! * *Mistakes are found before anything is sent:* expressions that do not parse (shown with the place),
//!   placeholders that are not bound or not used, items over a limit, keys that do not fit the table.
//!
//! # Errors
//!
//! ```no_run
//! use evenkeel_client::{Client, Error, ErrorCode, Item};
//!
//! # let client = Client::builder().connect()?;
//! let put = client.put("users", Item::new().with("pk", "user#1")).condition("attribute_not_exists(pk)");
//! match put.send() {
//!     Ok(output) => println!("written at {:?}", output.position),
//!     Err(error) if error.is_condition_failed() => println!("there is such a user"),
//!     Err(error) if error.code() == Some(ErrorCode::TableNotFound) => println!("create the table first"),
//!     Err(Error::Invalid(mistake)) => println!("this cannot be sent: {mistake}"),
//!     Err(error) if error.may_have_executed() => println!("read it before writing again: {error}"),
//!     Err(error) => println!("nothing was written: {error}"),
//! }
//! # Ok::<(), evenkeel_client::Error>(())
//! ```
//!
//! # Reads
//!
//! Reads are strong: they see every write that was answered before. `eventual` takes what any replica has,
//! which can be a little old. A query or scan gives pages; `items` and `pages` read on until the end, and a
//! page's token ([`PageToken`]) lets another process do so.
//!
//! # Inside
//!
//! [`protocol`] is the client without sockets and clocks, for simulators; with the sockets of
//! [`nonblocking`], for load generators. [`json`] reads and writes items as DynamoDB JSON.
#![deny(unsafe_code)]

pub mod asynchronous;
pub mod blocking;
pub mod config;
pub mod error;
mod host;
pub mod json;
pub mod nonblocking;
pub mod protocol;
pub mod request;
pub mod sockets;

pub use asynchronous::{AsyncClient, AsyncItems, AsyncPages, Pending};
pub use blocking::{Client, Items, Pages, Pipeline, Submitted};
pub use config::{ClientBuilder, DEFAULT_ENDPOINT, ENDPOINT_VARIABLE};
pub use error::{Error, Invalid, ProtocolError};
pub use protocol::operation::{
    BatchGetOutput, BatchWriteOutput, GetOutput, PageOutput, PageToken, WriteOutput,
};

pub use evenkeel_wire::error::{ErrorCode, Problem};
pub use evenkeel_wire::expression::Bindings;
pub use evenkeel_wire::item::{Attribute, Item, Number, Value};
pub use evenkeel_wire::key::{KeySchema, KeyType};
pub use evenkeel_wire::message::request::Position;
pub use evenkeel_wire::message::status::{StatusAnswer, TopologyAnswer};
pub use evenkeel_wire::table::{Billing, TableDescriptor, TableStatus};
