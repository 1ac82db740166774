//! The door to the machine: the only crate that names glommio and io-uring.
//!
//! It hosts [`Machine`](evenkeel_wire::turn::Machine)s: [`start`] makes an executor, which takes its machines
//! through their turns, carries their frames over sockets, their blocks to files, and wakes them in time. All
//! logic stands above this floor; here is nothing that decides what a request means.
//!
//! * `executor`: threads that run machines. `control`: what is said to them and what they say.
//! * `driver`: a machine's turns. `turn`: one of them. `network`, `links`, `sending`, `socket`: its
//!   connections. `disk`: its files' operations.
//! * `ring`: the raw io_uring under all of it. `signal`, `watchdog`, `polling`: waiting and waking. `near`:
//!   where. `reserve`: a thread's memory.
//! * [`files`]: a storage core's folder. [`preflight`], [`probe`]: trying the host out. [`clock`], [`cpus`],
//!   [`host`]: facts.
//! * [`streams`]: connections of a thread that hosts no machine, such as a load generator's.
//!
//! `unsafe` stands where the kernel is spoken to and nowhere else, behind functions that are safe to call.
#![deny(unsafe_code)]

pub mod clock;
mod control;
pub mod cpus;
mod delays;
mod disk;
mod driver;
mod executor;
pub mod files;
pub mod host;
mod limits;
mod links;
mod near;
mod network;
mod polling;
mod preflight;
pub mod probe;
mod reserve;
mod ring;
mod sending;
mod signal;
pub mod slice;
mod slots;
mod socket;
pub mod streams;
mod turn;
mod watchdog;

pub use control::{Ended, Outcome};
pub use delays::RunQueue;
pub use executor::{Build, Executor, Hosting, LogBuffers, OnEnd, Placement, StartError, start};
pub use files::{CoreFiles, FilesError, create_core};
pub use polling::Polling;
pub use preflight::{Preflight, PreflightError, preflight};
