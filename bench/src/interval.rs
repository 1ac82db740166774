//! What was answered in each second of the measured time.

use crate::report::Latencies;
use std::collections::BTreeMap;
use std::time::Duration;

/// How long an interval is.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Answers that arrived in one interval to requests that were due in the measured time.
#[derive(Clone, Debug, Default)]
pub struct Interval {
    /// Which, from 0 when measuring begins.
    pub index: u64,
    /// Latencies of those that succeeded.
    pub latencies: Latencies,
    /// How many failed.
    pub errors: u64,
}

impl Interval {
    fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.errors += other.errors;
    }
}

/// Puts the intervals of several threads together.
#[derive(Debug)]
pub struct Gathering {
    threads: usize,
    /// With how many threads have told theirs.
    open: BTreeMap<u64, (usize, Interval)>,
}

impl Gathering {
    /// Of so many threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        Self { threads, open: BTreeMap::new() }
    }

    /// A thread tells an interval. Returns it when every thread has.
    pub fn add(&mut self, interval: &Interval) -> Option<Interval> {
        let empty = || (0, Interval { index: interval.index, ..Interval::default() });
        let (told, sum) = self.open.entry(interval.index).or_insert_with(empty);
        sum.add(interval);
        *told += 1;
        let all = *told == self.threads;
        if all { self.open.remove(&interval.index).map(|(_, sum)| sum) } else { None }
    }

    /// Those that not every thread has told: the last ones.
    pub fn rest(&mut self) -> Vec<Interval> {
        std::mem::take(&mut self.open).into_values().map(|(_, sum)| sum).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_is_whole_when_every_thread_has_told_it() {
        let one = |index, micros| {
            let mut interval = Interval { index, errors: 1, ..Interval::default() };
            interval.latencies.record(Duration::from_micros(micros));
            interval
        };
        let mut gathering = Gathering::new(2);
        assert!(gathering.add(&one(0, 10)).is_none() && gathering.add(&one(1, 20)).is_none());
        let whole = gathering.add(&one(0, 30)).unwrap();
        assert_eq!((whole.index, whole.errors, whole.latencies.count()), (0, 2, 2));
        assert_eq!(whole.latencies.max(), 30);
        let rest = gathering.rest();
        assert_eq!((rest.len(), rest[0].index, rest[0].latencies.count()), (1, 1, 1));
    }
}
