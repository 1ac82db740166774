//! Evenkeel as a program: the simulator and the checks it relies on.
#![forbid(unsafe_code)]

pub mod linearizability;
pub mod sim;
