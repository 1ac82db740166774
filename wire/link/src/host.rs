//! What this host lets a process have.

use crate::clock;
use rustix::process::{Resource, getrlimit};

/// Bytes of memory that a process may lock; `None` when there is no limit.
#[must_use]
pub fn memlock_bytes() -> Option<u64> {
    getrlimit(Resource::Memlock).current
}

/// Files and sockets that a process may have open; `None` when there is no limit.
#[must_use]
pub fn open_files_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// What one look at the clock costs, in nanoseconds: the least of several rounds.
#[must_use]
pub fn clock_read_ns() -> u64 {
    const READS: u64 = 1000;
    let round = || {
        let start = clock::boot();
        (1..READS).for_each(|_| _ = std::hint::black_box(clock::boot()));
        clock::boot().since(start).as_nanos() as u64 / READS
    };
    (0..10).map(|_| round()).min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_and_costs_are_those_of_a_real_host() {
        assert!(open_files_max().is_none_or(|files| files > 3));
        assert!(memlock_bytes() != Some(0));
        assert!(clock_read_ns() > 0);
    }
}
