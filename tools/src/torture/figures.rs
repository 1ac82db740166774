//! Figures from what clients noted: latencies, and for how long a partition took no write.

use super::load::{Done, Outcome};

/// A time in which a partition took no write, nanoseconds since the load began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// The last write before it, or when the load began.
    pub from: u64,
    /// The first write after it, or when the load ended.
    pub to: u64,
}

impl Window {
    /// How long it is, nanoseconds.
    #[must_use]
    pub fn length(self) -> u64 {
        self.to - self.from
    }
}

fn is_taken(done: &Done) -> bool {
    done.is_write && done.outcome == Outcome::Answered
}

/// The windows of a partition that touch a time, longest first.
#[must_use]
pub fn windows(done: &[Done], partition: usize, from: u64, to: u64) -> Vec<Window> {
    let of_it = done.iter().filter(|done| done.partition == partition && is_taken(done));
    let mut ends: Vec<u64> = of_it.map(|done| done.ended).collect();
    ends.sort_unstable();
    let last_before = ends.iter().rfind(|end| **end < from).copied().unwrap_or(from);
    let first_after = ends.iter().find(|end| **end > to).copied().unwrap_or(to);
    let within = ends.iter().filter(|end| (from..=to).contains(*end)).copied();
    let marks: Vec<u64> = [last_before].into_iter().chain(within).chain([first_after]).collect();
    let mut windows: Vec<Window> =
        marks.windows(2).map(|pair| Window { from: pair[0], to: pair[1] }).collect();
    windows.sort_by_key(|window| std::cmp::Reverse(window.length()));
    windows
}

/// Latencies of what was answered and ended within a time, nanoseconds, in order.
#[must_use]
pub fn latencies(done: &[Done], writes_only: bool, from: u64, to: u64) -> Vec<u64> {
    let chosen = done.iter().filter(|done| {
        (from..to).contains(&done.ended)
            && done.outcome == Outcome::Answered
            && (done.is_write || !writes_only)
    });
    let mut times: Vec<u64> = chosen.map(|done| done.ended - done.called).collect();
    times.sort_unstable();
    times
}

/// The value below which so many hundredths of sorted values are.
#[must_use]
pub fn percentile(sorted: &[u64], hundredths: usize) -> u64 {
    let place = (sorted.len() * hundredths).div_ceil(100).max(1) - 1;
    sorted.get(place).copied().unwrap_or_default()
}

/// Nanoseconds as milliseconds with two digits.
#[must_use]
pub fn millis(nanos: u64) -> f64 {
    (nanos as f64 / 1e4).round() / 1e2
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(partition: usize, called: u64, ended: u64) -> Done {
        Done { partition, called, ended, is_write: true, outcome: Outcome::Answered }
    }

    #[test]
    fn a_window_is_the_time_between_two_writes_that_were_taken() {
        let mut done = vec![write(0, 5, 10), write(0, 11, 12), write(1, 0, 20), write(0, 30, 52)];
        done.push(Done { outcome: Outcome::Refused(String::new()), ..write(0, 20, 30) });
        done.push(Done { is_write: false, ..write(0, 20, 40) });
        let lengths =
            |from, to| -> Vec<u64> { windows(&done, 0, from, to).into_iter().map(Window::length).collect() };
        assert_eq!(windows(&done, 0, 11, 60)[0], Window { from: 12, to: 52 });
        assert_eq!(lengths(11, 60), [40, 8, 2]);
        // A window that begins before the time or ends after it counts as a whole; one without end, to it.
        assert_eq!(lengths(20, 30), [40]);
        assert_eq!(lengths(53, 90), [38]);
    }

    #[test]
    fn percentiles_are_of_what_was_answered() {
        let mut done: Vec<Done> = (1..=100).map(|n| write(0, 0, n)).collect();
        done.push(Done { outcome: Outcome::Unknown(String::new()), ..write(0, 0, 50) });
        done.push(Done { is_write: false, ..write(0, 0, 90) });
        let sorted = latencies(&done, true, 0, 101);
        assert_eq!((sorted.len(), percentile(&sorted, 50), percentile(&sorted, 99)), (100, 50, 99));
        assert_eq!(latencies(&done, false, 0, 101).len(), 101);
        assert_eq!(percentile(&[], 99), 0);
        assert_eq!(millis(1_234_567), 1.23);
    }
}
