//! Time in the model: true time goes in steps, and members' clocks drift from it as far as they may.
//!
//! A step is a part of a lease term, so that a slow clock shows so many of them as exactly the time for which
//! a leader uses its lease, and a fast one as exactly the time that a new leader waits: with the worst
//! clocks, the one ends in the very instant in which the other begins. With two steps to a term, every
//! shorter time of the protocol (a question's repetition, a candidate's patience) is over at the next step,
//! and silence becomes suspicious after two; with four, a group stays at rest over one step without a word,
//! and is woken after two. How late after its instant a member notices is up to the explorer.

use super::member::PLACES;
use evenkeel_dataplane::limits::{LEASE_DRIFT, LEASE_TERM, PEER_SILENT_AFTER, SUSPECT_AFTER};
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// What clocks show at the beginning.
const BEGINNING: Boot = Boot(100_000_000_000);

const _: () = assert!(slow(2).as_nanos() * 2 == LEASE_TERM.as_nanos() - LEASE_DRIFT.as_nanos());
const _: () = assert!(fast(2).as_nanos() * 2 == LEASE_TERM.as_nanos() + LEASE_DRIFT.as_nanos());
const _: () = assert!(fast(2).as_nanos() < SUSPECT_AFTER.as_nanos());
const _: () = assert!(slow(4).as_nanos() * 4 == LEASE_TERM.as_nanos() - LEASE_DRIFT.as_nanos());
const _: () = assert!(fast(4).as_nanos() * 4 == LEASE_TERM.as_nanos() + LEASE_DRIFT.as_nanos());
const _: () = assert!(fast(4).as_nanos() < PEER_SILENT_AFTER.as_nanos());

/// The clocks of the nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Clocks {
    /// By which part of the drift bound each of them is too fast: −1, 0 or 1.
    pub(crate) drift: [i8; PLACES],
    /// Steps in a lease term.
    pub(crate) pace: u8,
}

impl Clocks {
    /// What a member's clock shows after so many steps.
    pub(crate) fn shown(&self, place: usize, steps: u8) -> Boot {
        let step = match self.drift[place] {
            ..0 => slow(self.pace),
            0 => LEASE_TERM / u32::from(self.pace),
            1.. => fast(self.pace),
        };
        BEGINNING.after(step * u32::from(steps))
    }
}

/// What a slow clock shows of a step: the drift bound holds for each clock against true time.
const fn slow(pace: u8) -> Duration {
    Duration::from_nanos((LEASE_TERM.as_nanos() as u64 - LEASE_DRIFT.as_nanos() as u64) / pace as u64)
}

/// What a fast clock shows of a step.
const fn fast(pace: u8) -> Duration {
    Duration::from_nanos((LEASE_TERM.as_nanos() as u64 + LEASE_DRIFT.as_nanos() as u64) / pace as u64)
}
