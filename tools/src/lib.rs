//! Evenkeel as a program: the command, the processes it makes, a cluster in this process, and the simulator.
//!
//! * [`local`]: a whole cluster in this process, for tests and examples.
//! * [`config`], [`folder`], [`process`]: what a process is told, where it keeps its data, what it runs.
//! * [`check`]: whether a data folder is whole. [`live`]: what in its files matters. [`files`]: reading them.
//! * [`cluster`]: the same as separate processes on this host. [`health`]: how a cluster is.
//! * [`cli`]: the command's verbs.
//! * [`sim`]: the cluster in simulation; [`linearizability`]: the check of its clients' histories.
//! * [`tail`]: why slow requests were slow.
//! * [`torture`]: the same check for real processes under faults.
#![forbid(unsafe_code)]

pub mod check;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod files;
pub mod folder;
pub mod health;
pub mod linearizability;
pub mod live;
pub mod local;
pub mod process;
pub mod sim;
pub mod tail;
pub mod torture;
