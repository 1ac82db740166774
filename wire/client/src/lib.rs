//! Evenkeel's native client.
#![deny(unsafe_code)]

pub mod asynchronous;
pub mod blocking;
pub mod config;
pub mod error;
mod host;
pub mod json;
mod nonblocking;
pub mod protocol;
pub mod request;

pub use asynchronous::{AsyncClient, AsyncItems, AsyncPages, Pending};
pub use blocking::{Client, Items, Pages, Pipeline, Submitted};
pub use config::{ClientBuilder, DEFAULT_ENDPOINT, ENDPOINT_VARIABLE};
pub use error::{Error, Invalid, ProtocolError};
pub use evenkeel_wire::item::{Attribute, Item, Number, Value};
pub use evenkeel_wire::key::KeyType;
