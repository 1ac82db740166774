//! What a router remembers of where the time of its requests went (decision 0018): for each interval of a
//! second the slowest requests, and a uniform sample of the others.
//!
//! All memory is had from the beginning; noting a request allocates nothing. Of the slowest none is ever
//! missed, so percentiles near the end are exact, and the sample stands for the rest.

use crate::limits::{INTERVAL, INTERVALS, SAMPLED_PER_INTERVAL, SLOWEST_PER_INTERVAL};
use evenkeel_wire::message::tail::{TailAnswer, Trace};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::Boot;

/// A router's memory of its requests.
#[derive(Debug)]
pub struct Recorder {
    /// Interval n has the place n modulo its length.
    intervals: Vec<Interval>,
    /// The newest, from one; zero: nothing was noted yet.
    newest: u64,
    newest_began: Boot,
    prng: Prng,
}

#[derive(Debug)]
struct Interval {
    number: u64,
    requests: u64,
    slowest: Vec<Trace>,
    /// Where the fastest of the slowest stands, once they are as many as there may be.
    fastest: usize,
    sample: Vec<Trace>,
    /// Requests from which the sample was taken.
    others: u64,
}

impl Recorder {
    /// A recorder that has noted nothing; its samples are drawn by the generator of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let interval = |_| Interval {
            number: 0,
            requests: 0,
            slowest: Vec::with_capacity(SLOWEST_PER_INTERVAL),
            fastest: 0,
            sample: Vec::with_capacity(SAMPLED_PER_INTERVAL),
            others: 0,
        };
        let intervals = (0..INTERVALS).map(interval).collect();
        Self { intervals, newest: 0, newest_began: Boot(0), prng: Prng::new(seed) }
    }

    /// Notes a request that has ended now. Most are counted and no more: only of one that is remembered the
    /// trace is asked for.
    pub fn note(&mut self, now: Boot, total_ns: u64, trace: impl FnOnce() -> Trace) {
        if self.newest == 0 || now.since(self.newest_began) >= INTERVAL {
            self.newest += 1;
            self.newest_began = now;
            let place = self.place(self.newest);
            self.intervals[place].begin(self.newest);
        }
        let place = self.place(self.newest);
        self.intervals[place].note(total_ns, trace, &mut self.prng);
    }

    fn place(&self, number: u64) -> usize {
        (number % self.intervals.len() as u64) as usize
    }

    /// The first interval that is still here from `from` on.
    #[must_use]
    pub fn answer(&self, from: u64) -> TailAnswer {
        let oldest = self.newest.saturating_sub(self.intervals.len() as u64 - 1).max(1);
        let number = from.max(oldest);
        if number > self.newest {
            return TailAnswer::default();
        }
        let interval = &self.intervals[self.place(number)];
        assert_eq!(interval.number, number, "each interval has its place");
        TailAnswer {
            interval: number,
            more: number < self.newest,
            requests: interval.requests,
            slowest: interval.slowest.clone(),
            sample: interval.sample.clone(),
        }
    }
}

impl Interval {
    fn begin(&mut self, number: u64) {
        (self.number, self.requests, self.others) = (number, 0, 0);
        self.slowest.clear();
        self.sample.clear();
    }

    fn note(&mut self, total_ns: u64, trace: impl FnOnce() -> Trace, prng: &mut Prng) {
        self.requests += 1;
        if self.slowest.len() < SLOWEST_PER_INTERVAL {
            self.slowest.push(trace());
            if self.slowest.len() == SLOWEST_PER_INTERVAL {
                self.find_fastest();
            }
            return;
        }
        if total_ns <= self.slowest[self.fastest].total_ns {
            return self.draw(trace, prng);
        }
        let other = std::mem::replace(&mut self.slowest[self.fastest], trace());
        self.find_fastest();
        self.draw(|| other, prng);
    }

    fn find_fastest(&mut self) {
        let places = 0..self.slowest.len();
        self.fastest = places.min_by_key(|place| self.slowest[*place].total_ns).unwrap_or(0);
    }

    /// Algorithm R: each of the others is in the sample with the same chance.
    fn draw(&mut self, trace: impl FnOnce() -> Trace, prng: &mut Prng) {
        self.others += 1;
        if self.sample.len() < SAMPLED_PER_INTERVAL {
            return self.sample.push(trace());
        }
        let place = prng.below(self.others) as usize;
        if let Some(kept) = self.sample.get_mut(place) {
            *kept = trace();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::{CoreId, NodeId, PartitionId, TableId};
    use evenkeel_wire::timeline::STAGES;
    use std::time::Duration;

    fn trace(total_ns: u64) -> Trace {
        Trace {
            wall_ms: 0,
            kind: 16,
            causes: 0,
            attempts: 1,
            run_queue_in: 0,
            table: TableId(1),
            partition: PartitionId(1),
            node: NodeId(1),
            core: CoreId(0),
            awaited: NodeId(0),
            total_ns,
            stages: [0; STAGES],
        }
    }

    fn note(recorder: &mut Recorder, now: Boot, total_ns: u64) {
        recorder.note(now, total_ns, || trace(total_ns));
    }

    fn totals(traces: &[Trace]) -> Vec<u64> {
        let mut totals: Vec<u64> = traces.iter().map(|trace| trace.total_ns).collect();
        totals.sort_unstable();
        totals
    }

    #[test]
    fn the_slowest_are_all_there_in_whatever_order_they_came() {
        for seed in 0..20 {
            let mut prng = Prng::new(seed);
            let mut recorder = Recorder::new(seed);
            let mut all: Vec<u64> = (0..5_000).map(|_| prng.below(1 << 40)).collect();
            all.iter().for_each(|total| note(&mut recorder, Boot(5), *total));
            all.sort_unstable();
            let answer = recorder.answer(0);
            assert_eq!(totals(&answer.slowest), all[all.len() - SLOWEST_PER_INTERVAL..]);
            assert_eq!((answer.requests, answer.sample.len()), (5_000, SAMPLED_PER_INTERVAL));
            let fastest_of_slowest = totals(&answer.slowest)[0];
            assert!(answer.sample.iter().all(|sampled| sampled.total_ns <= fastest_of_slowest));
        }
    }

    #[test]
    fn the_sample_favours_nobody() {
        let (rounds, requests) = (200, 2_000);
        let mut early = 0;
        for seed in 0..rounds {
            let mut recorder = Recorder::new(seed);
            // Falling totals: the slowest are the first, and none is pushed out of them.
            (0..requests).for_each(|number| note(&mut recorder, Boot(5), requests - number));
            let half = (requests - SLOWEST_PER_INTERVAL as u64) / 2;
            early += recorder.answer(0).sample.iter().filter(|sampled| sampled.total_ns > half).count();
        }
        let all = rounds as usize * SAMPLED_PER_INTERVAL;
        assert!(early.abs_diff(all / 2) < all / 50, "{early} of {all} are from the first half");
    }

    #[test]
    fn old_intervals_make_room_for_new_ones_and_memory_does_not_grow() {
        let mut recorder = Recorder::new(1);
        let capacities = |recorder: &Recorder| -> Vec<usize> {
            recorder.intervals.iter().map(|it| it.slowest.capacity() + it.sample.capacity()).collect()
        };
        let before = capacities(&recorder);
        assert_eq!(recorder.answer(0), TailAnswer::default());
        for second in 0..2 * INTERVALS as u64 {
            let now = Boot(0).after(INTERVAL * second as u32);
            (0..1_000).for_each(|ns| note(&mut recorder, now.after(Duration::from_nanos(ns)), second));
        }
        assert_eq!(capacities(&recorder), before);
        let mut from = 0;
        let mut numbers = Vec::new();
        loop {
            let answer = recorder.answer(from);
            if answer.interval == 0 {
                break;
            }
            assert_eq!(answer.requests, 1_000);
            assert!(answer.slowest.iter().all(|slow| slow.total_ns == answer.interval - 1));
            assert_eq!(answer.more, answer.interval < 2 * INTERVALS as u64);
            numbers.push(answer.interval);
            from = answer.interval + 1;
        }
        let newest = 2 * INTERVALS as u64;
        assert!(numbers.into_iter().eq(newest + 1 - INTERVALS as u64..=newest));
    }
}
