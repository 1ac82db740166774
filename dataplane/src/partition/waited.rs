//! Where a request's time went on this core (decision 0018). Nothing is decided by it.
//!
//! Times are those of turns. A write follows its critical path: until its own log write is durable here the
//! time is this core's; then it is the follower's that completed the quorum, and the way's there and back. If
//! the quorum was there before that, this core's log was not waited for.

use crate::limits::MILESTONES_MAX;
use evenkeel_wire::ids::{NodeId, Slot};
use evenkeel_wire::timeline::{Causes, Stage, Timeline};
use evenkeel_wire::turn::{Boot, Now};
use std::collections::VecDeque;

/// How long a request has waited so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// The turn in which it was last taken up, and what the thread had been kept from running by then.
    since: Moment,
    stolen_ns: u64,
    queue_ns: u64,
    held_ns: u64,
    page_ns: u64,
    kept_ns: u64,
    causes: Causes,
}

/// A turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    at: Boot,
    run_queue_ns: u64,
}

impl Moment {
    /// The turn that begins now.
    #[must_use]
    pub fn of(now: &Now) -> Self {
        Self { at: now.boot, run_queue_ns: now.delays.run_queue_ns }
    }

    /// Nanoseconds since `earlier`, and how many of them the thread was kept from running.
    fn since(&self, earlier: &Self) -> (u64, u64) {
        let elapsed = self.at.since(earlier.at).as_nanos() as u64;
        (elapsed, self.run_queue_ns.saturating_sub(earlier.run_queue_ns).min(elapsed))
    }
}

impl Waited {
    /// A request is taken up for the first time. It came after the door had last looked.
    #[must_use]
    pub fn arrived(now: &Now, causes: Causes) -> Self {
        let gap = now.boot.since(now.delays.looked).as_nanos() as u64;
        let kept_ns = now.delays.kept_ns.min(gap);
        let (since, stolen_ns) = (Moment::of(now), now.delays.stolen_ns);
        Self { since, stolen_ns, queue_ns: gap - kept_ns, kept_ns, causes, ..Self::default() }
    }

    /// It is taken up again, after it was held.
    pub fn held(&mut self, now: &Now, causes: Causes) {
        self.held_ns += self.resume(now, causes);
    }

    /// It is taken up again, after it waited for pages.
    pub fn missed_pages(&mut self, now: &Now, causes: Causes) {
        self.page_ns += self.resume(now, causes.with(Causes::PAGE_MISS, true));
    }

    fn resume(&mut self, now: &Now, causes: Causes) -> u64 {
        let moment = Moment::of(now);
        let (elapsed, kept) = moment.since(&self.since);
        self.since = moment;
        self.kept_ns += kept;
        self.met(causes);
        elapsed - kept
    }

    /// It met this.
    pub fn met(&mut self, causes: Causes) {
        self.causes.0 |= causes.0;
    }

    /// Its time up to the turn in which it was last taken up.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let mut timeline = Timeline { causes: self.causes, ..Timeline::default() };
        let parts =
            [(Stage::CoreQueue, self.queue_ns), (Stage::Held, self.held_ns), (Stage::PageWait, self.page_ns)];
        parts.into_iter().for_each(|(stage, ns)| timeline.add(stage, ns));
        timeline.add(Stage::RunQueue, self.kept_ns);
        let longest = parts.into_iter().rev().max_by_key(|(_, ns)| *ns).map(|(stage, _)| stage);
        timeline.run_queue_in = longest.filter(|_| self.kept_ns > 0);
        timeline
    }

    /// The time of a write that is applied now.
    #[must_use]
    pub fn written(&self, durable: Option<&Durable>, agreed: Option<&Agreed>, now: &Now) -> Timeline {
        let mut timeline = self.timeline();
        let applied = Moment::of(now);
        let (waits_from, path_from) = match durable {
            Some(durable) => {
                durable.add_to(&mut timeline, self.since);
                (durable.at, durable.submitted.max(self.since.at))
            }
            None => (self.since, self.since.at),
        };
        let (wait, kept) = applied.since(&waits_from);
        let path = now.boot.since(path_from).as_nanos() as u64;
        let log = agreed.map_or(0, |agreed| agreed.log_ns.min(path));
        let of_follower = if path == 0 { 0 } else { u128::from(wait) * u128::from(log) / u128::from(path) };
        timeline.add(Stage::FollowerLog, of_follower as u64);
        timeline.add(Stage::Quorum, wait - of_follower as u64);
        let kept = timeline.run_queue_within(Stage::Quorum, kept);
        timeline.run_queue_within(Stage::FollowerLog, kept);
        if let Some(agreed) = agreed {
            timeline.awaited = agreed.node;
            let kept = agreed.was_kept && of_follower > 0;
            timeline.causes = timeline.causes.with(Causes::FOLLOWER_RUN_QUEUE, kept);
        }
        timeline.causes = timeline.causes.with(Causes::STOLEN, now.delays.stolen_ns > self.stolen_ns);
        timeline
    }

    /// The time of a repeated write, which waited for the first one.
    #[must_use]
    pub fn repeated(&self, now: &Now) -> Timeline {
        let timeline = self.written(None, None, now);
        Timeline { causes: timeline.causes.with(Causes::REPEATED, true), ..timeline }
    }
}

/// Entries have become durable in this core's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Durable {
    /// Up to this one.
    pub through: Slot,
    /// The turn that learned of it.
    pub at: Moment,
    /// The turn whose log write it was, and when that had been handed to the device.
    pub issued_in: Boot,
    /// See above.
    pub submitted: Boot,
}

impl Durable {
    /// Adds what an entry's log write took that was appended in the turn `since`.
    pub fn add_to(&self, timeline: &mut Timeline, since: Moment) {
        let (elapsed, kept) = self.at.since(&since);
        let submitted = self.submitted.clamp(since.at, self.at.at.max(since.at));
        let before = submitted.since(since.at).as_nanos() as u64;
        let queue = if self.issued_in == since.at { Stage::Execute } else { Stage::LogQueue };
        timeline.add(queue, before);
        timeline.add(Stage::LogWrite, elapsed - before.min(elapsed));
        let kept = timeline.run_queue_within(Stage::LogWrite, kept);
        timeline.run_queue_within(queue, kept);
    }
}

/// Entries have been committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// Up to this one.
    pub through: Slot,
    /// Whose log completed the quorum.
    pub node: NodeId,
    /// How long that took to make them durable, by its own account.
    pub log_ns: u64,
    /// Whether it was kept from running for most of that.
    pub was_kept: bool,
}

/// When a leader's open writes came how far.
#[derive(Clone, Debug, Default)]
pub struct Milestones {
    durable: VecDeque<Durable>,
    agreed: VecDeque<Agreed>,
}

impl Milestones {
    /// Entries have become durable here.
    pub fn durable(&mut self, durable: Durable) {
        match self.durable.back_mut() {
            Some(last) if (last.at, last.submitted) == (durable.at, durable.submitted) => *last = durable,
            _ => push(&mut self.durable, durable),
        }
    }

    /// Entries have been committed.
    pub fn agreed(&mut self, agreed: Agreed) {
        push(&mut self.agreed, agreed);
    }

    /// How the entry in `slot`, which is applied now, came this far. Slots are asked for in order.
    pub fn of(&mut self, slot: Slot) -> (Option<&Durable>, Option<&Agreed>) {
        while self.durable.front().is_some_and(|durable| durable.through < slot) {
            self.durable.pop_front();
        }
        while self.agreed.front().is_some_and(|agreed| agreed.through < slot) {
            self.agreed.pop_front();
        }
        (self.durable.front(), self.agreed.front())
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.durable.clear();
        self.agreed.clear();
    }
}

/// The oldest makes room: what comes behind it stands in for it.
fn push<T>(queue: &mut VecDeque<T>, milestone: T) {
    if queue.len() == MILESTONES_MAX {
        queue.pop_front();
    }
    queue.push_back(milestone);
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::turn::Delays;

    fn now(boot: u64, run_queue_ns: u64) -> Now {
        let now = Now::new(Boot(boot), 0);
        Now { delays: Delays { run_queue_ns, ..now.delays }, ..now }
    }

    fn stages(timeline: &Timeline) -> Vec<(Stage, u64)> {
        let all = Stage::ALL.iter().map(|stage| (*stage, timeline.get(*stage)));
        all.filter(|(_, ns)| *ns > 0).collect()
    }

    fn durable(at: &Now, issued_in: u64, submitted: u64) -> Durable {
        let (issued_in, submitted) = (Boot(issued_in), Boot(submitted));
        Durable { through: Slot(1), at: Moment::of(at), issued_in, submitted }
    }

    fn agreed(log_ns: u64) -> Agreed {
        Agreed { through: Slot(1), node: NodeId(2), log_ns, was_kept: false }
    }

    #[test]
    fn the_wait_for_the_quorum_begins_where_the_own_log_write_ends() {
        let waited = Waited::arrived(&now(1_000, 0), Causes::NONE);
        let durable = durable(&now(1_500, 0), 1_000, 1_100);
        // The follower answered 1000 after the write was submitted, and had it on its way to its disk for
        // 800.
        let timeline = waited.written(Some(&durable), Some(&agreed(800)), &now(2_100, 0));
        let expected =
            [(Stage::Execute, 100), (Stage::LogWrite, 400), (Stage::Quorum, 120), (Stage::FollowerLog, 480)];
        assert_eq!((stages(&timeline), timeline.awaited), (expected.to_vec(), NodeId(2)));
    }

    #[test]
    fn a_log_that_the_quorum_did_not_need_was_not_waited_for() {
        let waited = Waited::arrived(&now(1_000, 0), Causes::NONE);
        let timeline = waited.written(None, Some(&agreed(700)), &now(2_000, 0));
        assert_eq!(stages(&timeline), [(Stage::Quorum, 300), (Stage::FollowerLog, 700)]);
    }

    #[test]
    fn a_slow_log_of_the_leader_is_no_wait_for_the_quorum() {
        let waited = Waited::arrived(&now(1_000, 0), Causes::NONE);
        let late = now(21_000, 0);
        let timeline = waited.written(Some(&durable(&late, 1_300, 1_400)), Some(&agreed(500)), &late);
        assert_eq!(stages(&timeline), [(Stage::LogQueue, 400), (Stage::LogWrite, 19_600)]);
    }

    #[test]
    fn time_in_which_the_thread_was_kept_from_running_is_taken_out_of_where_it_fell() {
        let waited = Waited::arrived(&now(1_000, 10), Causes::NONE);
        let durable = durable(&now(9_000, 5_010), 1_000, 1_000);
        let timeline = waited.written(Some(&durable), Some(&agreed(0)), &now(10_000, 5_410));
        let expected = [(Stage::LogWrite, 3_000), (Stage::Quorum, 600), (Stage::RunQueue, 5_400)];
        assert_eq!(stages(&timeline), expected);
        assert_eq!((timeline.total(), timeline.run_queue_in), (9_000, Some(Stage::LogWrite)));
    }

    #[test]
    fn what_came_before_a_turn_waited_at_most_since_the_door_looked() {
        let delays = Delays { looked: Boot(1_000), kept_ns: 700, ..now(0, 0).delays };
        let mut waited = Waited::arrived(&Now { delays, ..now(2_000, 0) }, Causes::CHECKPOINT);
        waited.missed_pages(&now(2_600, 0), Causes::NONE);
        waited.held(&now(2_650, 0), Causes::HELD_BY_HAND_OVER);
        let timeline = waited.timeline();
        let expected =
            [(Stage::CoreQueue, 300), (Stage::Held, 50), (Stage::PageWait, 600), (Stage::RunQueue, 700)];
        assert_eq!(stages(&timeline), expected);
        for cause in [Causes::CHECKPOINT, Causes::PAGE_MISS, Causes::HELD_BY_HAND_OVER] {
            assert!(timeline.causes.has(cause));
        }
    }

    #[test]
    fn milestones_are_found_by_slot_and_bounded() {
        let mut milestones = Milestones::default();
        for slot in 1..=3 * MILESTONES_MAX as u64 {
            let at = Moment { at: Boot(slot), run_queue_ns: 0 };
            let through = Slot(slot * 10);
            milestones.durable(Durable { through, at, issued_in: Boot(0), submitted: Boot(0) });
            milestones.agreed(Agreed { through, ..agreed(0) });
        }
        assert_eq!(milestones.durable.len(), MILESTONES_MAX);
        let first = milestones.of(Slot(1)).0.expect("the oldest that is left");
        assert_eq!(first.through, Slot(10 * (2 * MILESTONES_MAX as u64 + 1)));
        let last = Slot(30 * MILESTONES_MAX as u64);
        let (durable, agreed) = milestones.of(last);
        assert_eq!((durable.unwrap().through, agreed.unwrap().through), (last, last));
        assert_eq!(milestones.of(last.next()), (None, None));
    }
}
