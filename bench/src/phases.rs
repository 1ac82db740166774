//! What requests met: a checkpoint, or none.
//!
//! Somebody looks at the servers again and again. Between two looks a checkpoint counts as running if either
//! saw one, or if one more was complete at the second: a look that had to wait for the checkpoint itself must
//! not hide it. A request waits here until a look that was asked for after its answer has said what it met,
//! and it met a checkpoint if one ran at any time between its due time and its answer.

use crate::report::Latencies;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Requests that wait for the next look. If looks fail to come, the oldest are given up.
const WAITING_MAX: usize = 1 << 20;

/// What a look at all storage cores found.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// When it was asked for.
    pub asked: Instant,
    /// When the last core had answered.
    pub answered: Instant,
    /// Whether some core was writing a checkpoint.
    pub running: bool,
    /// Checkpoints that all cores have completed.
    pub completed: u64,
}

/// Requests of one kind of time.
#[derive(Clone, Debug, Default)]
pub struct Phase {
    /// Their latencies.
    pub latencies: Latencies,
    /// How long that time was.
    pub lasted: Duration,
}

impl Phase {
    /// Requests a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.lasted.as_secs_f64().max(1e-9)
    }
}

/// Requests, by what they met.
#[derive(Clone, Debug, Default)]
pub struct Phases {
    /// While a checkpoint ran.
    pub during: Phase,
    /// While none did.
    pub outside: Phase,
    /// Checkpoints that were completed between the first look and the last.
    pub completed: u64,
    last: Option<Look>,
    /// When the last span of checkpoints ended.
    busy_until: Option<Instant>,
    /// Due time and arrival, in the order of arrival.
    waiting: VecDeque<(Instant, Instant)>,
    /// When the first request was answered: time before that is not measured.
    since: Option<Instant>,
}

impl Phases {
    /// A request was answered.
    pub fn answered(&mut self, due: Instant, arrived: Instant) {
        self.since = self.since.or(Some(arrived));
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back((due, arrived));
    }

    /// Somebody has looked.
    pub fn look(&mut self, look: Look) {
        let Some(last) = self.last.replace(look) else {
            return;
        };
        let busy = last.running || look.running || look.completed != last.completed;
        if let Some(since) = self.since {
            self.completed += look.completed.saturating_sub(last.completed);
            let phase = if busy { &mut self.during } else { &mut self.outside };
            phase.lasted += look.asked.saturating_duration_since(last.asked.max(since));
        }
        if busy {
            self.busy_until = Some(look.answered);
        }
        while let Some((due, arrived)) = self.waiting.front().copied().filter(|(_, at)| *at < look.asked) {
            self.waiting.pop_front();
            let met = busy || self.busy_until.is_some_and(|until| due < until);
            let phase = if met { &mut self.during } else { &mut self.outside };
            phase.latencies.record(arrived - due);
        }
    }

    /// Takes in those of another thread, which had the same looks.
    pub fn add(&mut self, other: &Self) {
        for (ours, theirs) in [(&mut self.during, &other.during), (&mut self.outside, &other.outside)] {
            ours.latencies.add(&theirs.latencies);
            ours.lasted = ours.lasted.max(theirs.lasted);
        }
        self.completed = self.completed.max(other.completed);
    }

    /// Whether it is known of every request what it met.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.waiting.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Plays looks (asked, answered, running, completed) and requests (due, arrived), in milliseconds, and
    /// returns how many requests met a checkpoint and how many did not.
    fn split(looks: &[(u64, u64, bool, u64)], requests: &[(u64, u64)]) -> (u64, u64) {
        let start = crate::clock::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut phases = Phases::default();
        requests.iter().for_each(|(due, arrived)| phases.answered(at(*due), at(*arrived)));
        for (asked, answered, running, completed) in looks {
            let (asked, answered) = (at(*asked), at(*answered));
            phases.look(Look { asked, answered, running: *running, completed: *completed });
        }
        assert!(phases.is_settled());
        (phases.during.latencies.count(), phases.outside.latencies.count())
    }

    #[test]
    fn a_request_that_reaches_into_a_checkpoint_met_it() {
        let looks =
            [(0, 1, false, 0), (20, 21, true, 0), (40, 41, false, 1), (60, 61, false, 1), (80, 81, false, 1)];
        // Before the look that saw it; over its end; due while the look was answered; clear of it.
        assert_eq!(split(&looks, &[(5, 15), (30, 50), (40, 55), (45, 70)]), (3, 1));
    }

    #[test]
    fn a_checkpoint_between_two_looks_is_seen_by_its_number() {
        assert_eq!(split(&[(0, 1, false, 3), (20, 21, false, 4)], &[(5, 15)]), (1, 0));
        assert_eq!(split(&[(0, 1, false, 3), (20, 21, false, 3)], &[(5, 15)]), (0, 1));
    }
    #[test]
    fn threads_share_the_time_and_add_up_their_requests() {
        let phase = |millis, seconds| {
            let mut phase = Phase { lasted: Duration::from_secs(seconds), ..Phase::default() };
            phase.latencies.record(Duration::from_millis(millis));
            phase
        };
        let mut ours =
            Phases { during: phase(5, 2), outside: phase(1, 8), completed: 3, ..Phases::default() };
        ours.add(&Phases { during: phase(7, 2), outside: phase(1, 7), completed: 3, ..Phases::default() });
        assert_eq!(
            (ours.during.latencies.count(), ours.during.lasted, ours.completed),
            (2, Duration::from_secs(2), 3)
        );
        assert_eq!((ours.outside.rate(), ours.during.latencies.max() / 10), (0.25, 700));
    }
}
