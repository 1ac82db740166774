//! The load generator: what it sends, how it sends it, and what it saw.
//!
//! * What to ask: [`workload`], with its [`keys`] and [`sizes`], or a [`trace`]. When: [`plan`], in a closed
//!   loop (so many requests under way) or an open one (so many begun each second, whatever becomes of them)
//!   by a [`schedule`].
//! * [`load`]: one thread that keeps many connections busy over a `transport`. [`threads`]: several of them,
//!   and every key once before that (`preload`).
//! * [`report`]: latencies as percentiles, with the counts behind them; [`interval`]: the same of each
//!   second. [`phases`]: which of them met a checkpoint; [`watch`]: when checkpoints run.
//! * What a report holds besides: the [`host`], its [`noise`] before and its [`stops`] meanwhile, an
//!   [`interval_log`], a [`percentile_table`], [`pictures`] (drawn by [`chart`]).
//! * Several runs: [`sweep`] looks for the knee, [`compare`] for differences.
#![forbid(unsafe_code)]

pub mod chart;
mod clock;
pub mod compare;
pub mod host;
pub mod interval;
pub mod interval_log;
pub mod keys;
pub mod load;
pub mod noise;
pub mod percentile_table;
pub mod phases;
pub mod pictures;
pub mod plan;
pub mod preload;
pub mod report;
pub mod schedule;
pub mod sizes;
pub mod stops;
pub mod sweep;
pub mod threads;
pub mod trace;
mod transport;
mod under_way;
pub mod watch;
pub mod workload;
mod writer;
