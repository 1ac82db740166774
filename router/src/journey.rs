//! Where a request spends its time while a router has it (decision 0018).
//!
//! A router knows when a request came and when its answer did; the storage core says in the answer's header
//! what it did in between. What a machine waits for before a turn it knows only as a bound: it looked, and
//! had nothing. Such bounds are cut to what the whole wait leaves room for.

use crate::limits::TURNS_REMEMBERED;
use evenkeel_wire::ids::{CoreId, NodeId, PartitionId, TableId};
use evenkeel_wire::message::tail::Trace;
use evenkeel_wire::table::RouteMember;
use evenkeel_wire::timeline::{Causes, Packed, Stage, Timeline};
use evenkeel_wire::turn::{Boot, Now};
use std::collections::VecDeque;

/// The time before a turn in which what it executes may have come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// All of it, nanoseconds.
    pub total_ns: u64,
    /// What of it the thread was runnable and did not run.
    pub run_queue_ns: u64,
}

/// The turns of a router, as far as its requests' times need them.
#[derive(Clone, Debug)]
pub struct Turns {
    now: Now,
    gap: Gap,
    /// The turns before this one, as many as are remembered.
    past: VecDeque<Past>,
}

/// A turn that is over.
#[derive(Clone, Copy, Debug)]
struct Past {
    at: Boot,
    /// How long it took until what it sent was handed to the kernel, nanoseconds, and how much of that the
    /// thread was runnable and did not run.
    out_ns: u64,
    kept_ns: u64,
}

impl Default for Turns {
    fn default() -> Self {
        let past = VecDeque::with_capacity(TURNS_REMEMBERED);
        Self { now: Now::new(Boot(0), 0), gap: Gap::default(), past }
    }
}

impl Turns {
    /// A turn begins, or goes on.
    pub fn at(&mut self, now: Now) {
        if now.boot == self.now.boot {
            return;
        }
        if self.past.len() == TURNS_REMEMBERED {
            self.past.pop_front();
        }
        let before = self.now;
        let out_ns = now.delays.performed.since(before.boot).as_nanos() as u64;
        let kept_ns = now.delays.run_queue_ns.saturating_sub(before.delays.run_queue_ns).min(out_ns);
        self.past.push_back(Past { at: before.boot, out_ns, kept_ns });
        let total_ns = now.boot.since(now.delays.looked).as_nanos() as u64;
        self.gap = Gap { total_ns, run_queue_ns: now.delays.kept_ns.min(total_ns) };
        self.now = now;
    }

    /// The time of this turn.
    #[must_use]
    pub fn now(&self) -> Now {
        self.now
    }

    /// The turn that began at `at`, if it is over and remembered.
    fn past(&self, at: Boot) -> Option<Past> {
        let place = self.past.partition_point(|past| past.at < at);
        self.past.get(place).filter(|past| past.at == at).copied()
    }

    /// What lies before it.
    #[must_use]
    pub fn gap(&self) -> Gap {
        self.gap
    }
}

/// A request's way so far.
#[derive(Clone, Copy, Debug)]
pub struct Journey {
    /// Up to when it is told.
    since: Boot,
    timeline: Timeline,
    sent_to: Option<(PartitionId, TableId, RouteMember)>,
    attempts: u8,
}

impl Journey {
    /// The request came between two turns. It counts as having come in the middle of the time in between; if
    /// the thread was woken for it, and had to wait for a CPU, at its beginning.
    #[must_use]
    pub fn begin(turns: &Turns) -> Self {
        let Gap { total_ns, run_queue_ns } = turns.gap();
        let mut timeline = Timeline::default();
        let share = if run_queue_ns == total_ns { 1 } else { 2 };
        timeline.add(Stage::RouterRunQueue, run_queue_ns / share);
        timeline.add(Stage::RouterQueue, (total_ns - run_queue_ns) / share);
        Self { since: turns.now().boot, timeline, sent_to: None, attempts: 0 }
    }

    /// Everything since the last call was spent in `stage`.
    pub fn spent(&mut self, turns: &Turns, stage: Stage) {
        let mut left = self.close(turns);
        self.wait_for_turn(turns.gap(), &mut left);
        self.timeline.add(stage, left);
    }

    /// It is sent to a core.
    pub fn sent(&mut self, turns: &Turns, partition: PartitionId, table: TableId, to: RouteMember) {
        self.spent(turns, Stage::Lookup);
        self.sent_to = Some((partition, table, to));
        self.attempts = self.attempts.saturating_add(1);
    }

    /// It met this.
    pub fn met(&mut self, cause: Causes) {
        self.timeline.causes = self.timeline.causes.with(cause, true);
    }

    /// The core has answered, and said where the time went since it was sent there.
    pub fn answered(&mut self, turns: &Turns, core: Packed) {
        let sent = turns.past(self.since);
        let mut wait = self.close(turns);
        if let Some(Past { out_ns, kept_ns, .. }) = sent {
            let out_ns = out_ns.min(wait);
            wait -= out_ns;
            self.timeline.add(Stage::RouterRunQueue, kept_ns.min(out_ns));
            self.timeline.add(Stage::RouterQueue, out_ns - kept_ns.min(out_ns));
        }
        let mut core = core.unpack();
        let total = core.total();
        let mut over = total.saturating_sub(wait);
        let mut left = wait.saturating_sub(total);
        if over > 0 {
            // What is only known as a bound goes first.
            for stage in [Stage::CoreQueue, Stage::RunQueue].iter().chain(Stage::CORE) {
                let place = &mut core.ns[*stage as usize];
                let cut = over.min(*place);
                *place -= cut;
                over -= cut;
            }
        }
        self.wait_for_turn(turns.gap(), &mut left);
        for stage in Stage::CORE {
            self.timeline.add(*stage, core.get(*stage));
        }
        self.timeline.add(Stage::Hop, left);
        self.timeline.causes.0 |= core.causes.0;
        self.timeline.run_queue_in = core.run_queue_in;
        self.timeline.awaited = core.awaited;
    }

    fn close(&mut self, turns: &Turns) -> u64 {
        let now = turns.now().boot;
        let since = std::mem::replace(&mut self.since, now);
        now.since(since).as_nanos() as u64
    }

    /// Takes the wait for this turn out of `left`.
    fn wait_for_turn(&mut self, gap: Gap, left: &mut u64) {
        let run_queue = gap.run_queue_ns.min(*left);
        *left -= run_queue;
        let queue = (gap.total_ns - gap.run_queue_ns).min(*left);
        *left -= queue;
        self.timeline.add(Stage::RouterRunQueue, run_queue);
        self.timeline.add(Stage::RouterQueue, queue);
    }

    /// What a client is told: the core's stages, and everything outside of them as a queue before it.
    #[must_use]
    pub fn for_client(&self) -> Packed {
        let mut timeline = self.timeline;
        let outside: u64 = timeline.ns[Stage::CORE.len()..].iter().sum();
        timeline.add(Stage::CoreQueue, outside);
        timeline.pack()
    }

    /// Nanoseconds so far.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.timeline.total()
    }

    /// The request has ended.
    #[must_use]
    pub fn trace(&self, kind: u16, wall_ms: u64, failed: bool) -> Trace {
        let causes = self.timeline.causes.with(Causes::REDIRECTED, self.attempts > 1);
        let causes = causes.with(Causes::FAILED, failed);
        let (partition, table, member) = match self.sent_to {
            Some((partition, table, member)) => (partition, table, Some(member)),
            None => (PartitionId::NONE, TableId(0), None),
        };
        Trace {
            wall_ms,
            kind,
            causes: causes.0,
            attempts: self.attempts,
            run_queue_in: self.timeline.run_queue_in.map_or(0, |stage| stage as u8 + 1),
            table,
            partition,
            node: member.map_or(NodeId(0), |member| member.node),
            core: member.map_or(CoreId(0), |member| member.core),
            awaited: self.timeline.awaited,
            total_ns: self.timeline.total(),
            stages: self.timeline.ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::turn::Delays;

    fn now(boot: u64, looked: u64, kept_ns: u64) -> Now {
        let none = Now::new(Boot(boot), 0).delays;
        let delays = Delays { looked: Boot(looked), kept_ns, ..none };
        Now { delays, ..Now::new(Boot(boot), 0) }
    }

    fn core(stages: &[(Stage, u64)]) -> Packed {
        let mut timeline = Timeline::default();
        stages.iter().for_each(|(stage, ns)| timeline.add(*stage, *ns));
        timeline.pack()
    }

    fn stages(journey: &Journey) -> Vec<(Stage, u64)> {
        let all = Stage::ALL.iter().map(|stage| (*stage, journey.timeline.get(*stage)));
        all.filter(|(_, ns)| *ns > 0).collect()
    }

    #[test]
    fn what_the_core_does_not_account_for_is_the_hop() {
        let mut turns = Turns::default();
        turns.at(now(1_000, 960, 0));
        let mut journey = Journey::begin(&turns);
        turns.at(now(2_000, 1_990, 0));
        journey.answered(&turns, core(&[(Stage::CoreQueue, 100), (Stage::LogWrite, 600)]));
        let expected = [
            (Stage::CoreQueue, 100),
            (Stage::LogWrite, 600),
            // Half of 40 before it was taken, and 10 before its answer was.
            (Stage::RouterQueue, 30),
            (Stage::Hop, 290),
        ];
        assert_eq!(stages(&journey), expected);
        assert_eq!(journey.trace(16, 0, false).total_ns, 1_020);
        assert_eq!(journey.for_client().unpack().total(), 1_020);
    }

    #[test]
    fn the_turn_that_sent_a_request_is_the_routers() {
        let mut turns = Turns::default();
        turns.at(now(1_000, 1_000, 0));
        let mut journey = Journey::begin(&turns);
        let next = now(1_400, 1_400, 0);
        let delays = Delays { performed: Boot(1_300), run_queue_ns: 200, ..next.delays };
        turns.at(Now { delays, ..next });
        turns.at(now(2_000, 2_000, 0));
        journey.answered(&turns, core(&[(Stage::Execute, 500)]));
        let expected = [
            (Stage::Execute, 500),
            (Stage::RouterQueue, 100),
            (Stage::RouterRunQueue, 200),
            (Stage::Hop, 200),
        ];
        assert_eq!(stages(&journey), expected);
    }

    #[test]
    fn a_queue_that_is_only_a_bound_is_cut_to_what_the_wait_leaves_room_for() {
        let mut turns = Turns::default();
        turns.at(now(1_000, 1_000, 0));
        let mut journey = Journey::begin(&turns);
        turns.at(now(1_200, 1_200, 0));
        journey.answered(&turns, core(&[(Stage::CoreQueue, 250), (Stage::Execute, 120)]));
        assert_eq!(stages(&journey), [(Stage::CoreQueue, 80), (Stage::Execute, 120)]);
    }

    #[test]
    fn time_that_the_routers_thread_was_kept_from_running_is_told_apart() {
        let mut turns = Turns::default();
        turns.at(now(1_000, 1_000, 0));
        let mut journey = Journey::begin(&turns);
        turns.at(now(9_000, 1_100, 7_000));
        journey.answered(&turns, core(&[(Stage::Execute, 200)]));
        let expected = [(Stage::Execute, 200), (Stage::RouterQueue, 800), (Stage::RouterRunQueue, 7_000)];
        let sum: u64 = expected.iter().map(|(_, ns)| ns).sum();
        assert_eq!((stages(&journey), sum), (expected.to_vec(), 8_000));
    }

    #[test]
    fn look_ups_and_attempts_that_came_to_nothing_are_stages_of_their_own() {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let member = RouteMember { node: NodeId(7), core: CoreId(1), address: address.into() };
        let mut turns = Turns::default();
        turns.at(now(1_000, 1_000, 0));
        let mut journey = Journey::begin(&turns);
        turns.at(now(1_100, 1_100, 0));
        journey.sent(&turns, PartitionId(3), TableId(4), member);
        turns.at(now(1_150, 1_150, 0));
        journey.spent(&turns, Stage::Attempts);
        turns.at(now(1_160, 1_160, 0));
        journey.sent(&turns, PartitionId(3), TableId(4), member);
        turns.at(now(1_200, 1_200, 0));
        journey.answered(&turns, Packed::NONE);
        let expected = [(Stage::Lookup, 110), (Stage::Attempts, 50), (Stage::Hop, 40)];
        assert_eq!(stages(&journey), expected);
        let trace = journey.trace(16, 5, true);
        assert!(trace.has(Causes::REDIRECTED) && trace.has(Causes::FAILED));
        assert_eq!((trace.attempts, trace.node, trace.table), (2, NodeId(7), TableId(4)));
    }
}
