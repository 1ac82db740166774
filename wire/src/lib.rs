//! Evenkeel's words and bytes: floor 0 of the house.
//!
//! Everything above speaks in the types of this crate: ids and limits, items and keys, expressions, frames
//! and messages, and [`turn`], the contract between logic and doors. There is no I/O, no clock and no entropy
//! here, and `unsafe` only in [`aligned`], the pool of buffers that direct I/O needs.
#![deny(unsafe_code)]

pub mod aligned;
pub mod checksum;
pub mod entry;
pub mod error;
pub mod expression;
pub mod frame;
pub mod handshake;
pub mod ids;
pub mod item;
pub mod key;
pub mod limits;
pub mod membership;
pub mod message;
pub mod prng;
pub mod table;
pub mod timeline;
pub mod turn;
