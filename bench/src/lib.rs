//! The load generator: what it sends, how it sends it, and what it saw.
//!
//! * [`workload`]: operations and keys. [`load`]: one thread that keeps many connections busy, in a closed
//!   loop (so many requests under way) or an open one (so many begun each second, whatever becomes of them).
//!   [`preload`]: every key once, before that.
//! * [`report`]: latencies as percentiles, with the counts behind them. [`phases`]: which of them met a
//!   checkpoint. [`watch`]: when checkpoints run.
#![forbid(unsafe_code)]

pub mod load;
pub mod phases;
pub mod preload;
pub mod report;
pub mod watch;
pub mod workload;
mod writer;
