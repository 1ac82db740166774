//! Time in the model: true time goes in steps, and members' clocks drift from it as far as they may.
//!
//! A step is half a lease term, so that a slow clock shows two steps as exactly the time for which a leader
//! uses its lease, and a fast one as exactly the time that a new leader waits: with the worst clocks, the one
//! ends in the very instant in which the other begins. Every shorter time of the protocol (a question's
//! repetition, a candidate's patience) is over at the next step; silence becomes suspicious after two. How
//! late after its instant a member notices is up to the explorer.

use evenkeel_dataplane::limits::{LEASE_DRIFT, LEASE_TERM, SUSPECT_AFTER};
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// True time between two steps.
const STEP: Duration = Duration::from_nanos(LEASE_TERM.as_nanos() as u64 / 2);
/// By how much a clock may be wrong in one step: the drift bound holds for each clock against true time.
const WRONG: Duration = Duration::from_nanos(LEASE_DRIFT.as_nanos() as u64 / 2);
/// What clocks show at the beginning.
const BEGINNING: Boot = Boot(100_000_000_000);

const _: () =
    assert!(2 * (STEP.as_nanos() - WRONG.as_nanos()) == LEASE_TERM.as_nanos() - LEASE_DRIFT.as_nanos());
const _: () =
    assert!(2 * (STEP.as_nanos() + WRONG.as_nanos()) == LEASE_TERM.as_nanos() + LEASE_DRIFT.as_nanos());
const _: () = assert!(STEP.as_nanos() + WRONG.as_nanos() < SUSPECT_AFTER.as_nanos());

/// What a clock shows after so many steps, if it is too fast by `drift` (−1, 0 or 1) times what is allowed.
pub(crate) fn shown(steps: u8, drift: i8) -> Boot {
    let step = match drift {
        ..0 => STEP - WRONG,
        0 => STEP,
        1.. => STEP + WRONG,
    };
    BEGINNING.after(step * u32::from(steps))
}
