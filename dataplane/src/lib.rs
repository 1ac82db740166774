//! A storage core: one synchronous state machine that owns partitions, their replicas and one log.
//!
//! * [`wal`]: the core's write-ahead log.
//! * [`paxos`]: one replication group.
//! * [`btree`]: the tree on disk.
//! * [`tree`] and [`partition`]: items, tokens, and the requests on them.
//! * [`checkpoint`]: committed state in a file, and recovery from it.
//! * [`evaluate`]: conditions and updates.
//! * [`group`]: a replica joined with its partition. [`catalog`]: the table of tables.
//! * [`core`]: the machine that joins all of these.
#![forbid(unsafe_code)]

pub mod btree;
pub mod catalog;
pub mod checkpoint;
pub mod config;
pub mod core;
pub mod evaluate;
pub mod group;
pub mod limits;
pub mod operations;
pub mod partition;
pub mod paxos;
pub mod planted;
pub mod tree;
pub mod wal;
