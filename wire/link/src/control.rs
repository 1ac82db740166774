//! What an executor's thread and its handle share: commands one way, endings the other.

use crate::signal::Signal;
use evenkeel_wire::turn::Halt;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What the operator wants. A later one never takes back an earlier.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Command {
    Run,
    Drain,
    Stop,
}

/// How a machine ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was told to drain, and had nothing left to do.
    Drained,
    /// It was told to stop.
    Stopped,
    /// It could no longer keep its promises, or had a bug.
    Halted(Halt),
}

/// A machine that has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// Its name.
    pub name: String,
    /// How.
    pub outcome: Outcome,
}

/// Shared between a handle and its executor.
#[derive(Debug)]
pub(crate) struct Control {
    pub(crate) signal: Arc<Signal>,
    command: AtomicU8,
    ended: Mutex<Vec<Ended>>,
}

impl Control {
    pub(crate) fn new(signal: Signal) -> Self {
        Self { signal: Arc::new(signal), command: AtomicU8::new(Command::Run as u8), ended: Mutex::default() }
    }

    /// Tells the executor, and wakes it.
    pub(crate) fn tell(&self, command: Command) {
        self.command.fetch_max(command as u8, Ordering::Release);
        self.signal.raise();
    }

    /// What the executor was told.
    pub(crate) fn command(&self) -> Command {
        match self.command.load(Ordering::Acquire) {
            0 => Command::Run,
            1 => Command::Drain,
            _ => Command::Stop,
        }
    }

    /// Notes that a machine has ended.
    pub(crate) fn note(&self, ended: Ended) {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).push(ended);
    }

    /// The machines that have ended so far, in that order.
    pub(crate) fn ended(&self) -> Vec<Ended> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stop_is_not_taken_back_by_a_drain() {
        let control = Control::new(Signal::new().unwrap());
        control.tell(Command::Stop);
        control.tell(Command::Drain);
        assert_eq!(control.command(), Command::Stop);
    }
}
