//! The clocks. Only doors read them; a machine is given the time.
#![allow(unsafe_code)]

use evenkeel_wire::turn::{Boot, Now};

/// CLOCK_BOOTTIME: monotonic, and running while the host sleeps.
#[must_use]
pub fn boot() -> Boot {
    Boot(nanoseconds(libc::CLOCK_BOOTTIME))
}

/// Milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> u64 {
    nanoseconds(libc::CLOCK_REALTIME) / 1_000_000
}

/// Both, for one turn.
#[must_use]
pub fn now() -> Now {
    Now::new(boot(), wall_ms())
}

fn nanoseconds(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a `timespec` of ours that lives through the call.
    let result = unsafe { libc::clock_gettime(clock, &raw mut time) };
    assert_eq!(result, 0, "every kernel that runs this program has this clock");
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_time_never_goes_back_and_wall_time_is_in_this_century() {
        let first = boot();
        assert!(boot() >= first);
        assert!(wall_ms() > 1_700_000_000_000);
    }
}
