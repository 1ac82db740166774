//! What routers have noted, as a weighted sample of all requests: each of the slowest stands for itself, each
//! of the others for as many as it was drawn from.

use evenkeel_wire::message::tail::{TailAnswer, Trace};
use evenkeel_wire::timeline::{STAGES, Stage};

/// What is shown of a request: the stages that were noted, and one for what nobody accounts for.
pub const PARTS: usize = STAGES + 1;
/// The place of what nobody accounts for.
pub const UNEXPLAINED: usize = STAGES;

/// A way to the core and back may take this often what it usually takes, and still be called so.
const HOP_FACTOR: u64 = 4;
/// …and at least this, nanoseconds.
const HOP_NS_MIN: u64 = 200_000;

/// A request, and how many it stands for.
#[derive(Clone, Copy, Debug)]
pub struct Weighted {
    /// It.
    pub trace: Trace,
    /// How many.
    pub weight: f64,
    /// Nanoseconds in each part.
    pub parts: [u64; PARTS],
}

/// Requests, the fastest first.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// They.
    pub requests: Vec<Weighted>,
    /// How many they stand for.
    pub weight: f64,
}

impl Sample {
    /// The sample of these intervals, without requests that `wanted` does not want.
    #[must_use]
    pub fn of(intervals: &[TailAnswer], wanted: impl Fn(&Trace) -> bool) -> Self {
        let mut requests = Vec::new();
        for interval in intervals {
            let others = interval.requests.saturating_sub(interval.slowest.len() as u64);
            let weight = others as f64 / interval.sample.len().max(1) as f64;
            let slowest = interval.slowest.iter().map(|trace| (trace, 1.0));
            for (trace, weight) in slowest.chain(interval.sample.iter().map(|trace| (trace, weight))) {
                if wanted(trace) {
                    requests.push(Weighted { trace: *trace, weight, parts: [0; PARTS] });
                }
            }
        }
        requests.sort_by_key(|request| request.trace.total_ns);
        let weight = requests.iter().map(|request| request.weight).sum();
        let mut sample = Self { requests, weight };
        sample.explain();
        sample
    }

    /// Divides each request's time. The way to the core is a remainder: what is more of it than usual nobody
    /// has accounted for.
    fn explain(&mut self) {
        let hop = |request: &Weighted| request.trace.stages[Stage::Hop as usize];
        let mut hops: Vec<(u64, f64)> = self.requests.iter().map(|it| (hop(it), it.weight)).collect();
        hops.sort_by_key(|(ns, _)| *ns);
        let mut below = 0.0;
        let median = hops.iter().find(|(_, weight)| {
            below += weight;
            below >= self.weight / 2.0
        });
        let plausible = (HOP_FACTOR * median.map_or(0, |(ns, _)| *ns)).max(HOP_NS_MIN);
        for request in &mut self.requests {
            let stages = request.trace.stages;
            request.parts[..STAGES].copy_from_slice(&stages);
            let hop = &mut request.parts[Stage::Hop as usize];
            *hop = (*hop).min(plausible);
            let named: u64 = request.parts[..STAGES].iter().sum();
            request.parts[UNEXPLAINED] = request.trace.total_ns.saturating_sub(named);
        }
    }

    /// The time that `percentile` of the requests do not exceed, nanoseconds.
    #[must_use]
    pub fn percentile(&self, percentile: f64) -> u64 {
        let first = self.between(percentile, 100.0).next();
        first.or(self.requests.last()).map_or(0, |request| request.trace.total_ns)
    }

    /// Requests between two percentiles: those of which the middle lies there, or the one nearest to it.
    pub fn between(&self, from: f64, to: f64) -> impl DoubleEndedIterator<Item = &Weighted> {
        let (from, to) = (from / 100.0 * self.weight, to / 100.0 * self.weight);
        let mut below = 0.0;
        let mut places = (usize::MAX, 0);
        for (place, request) in self.requests.iter().enumerate() {
            below += request.weight;
            if below > from {
                places = (places.0.min(place), place + 1);
            }
            if below >= to {
                break;
            }
        }
        self.requests[places.0.min(places.1)..places.1].iter()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use evenkeel_wire::ids::{CoreId, NodeId, PartitionId, TableId};
    use evenkeel_wire::timeline::Causes;

    /// A request with these stages.
    pub(crate) fn trace(stages: &[(Stage, u64)], causes: Causes) -> Trace {
        let mut ns = [0; STAGES];
        stages.iter().for_each(|(stage, us)| ns[*stage as usize] = us * 1000);
        Trace {
            wall_ms: 1_700_000_000_000,
            kind: 16,
            causes: causes.0,
            attempts: 1,
            run_queue_in: 1,
            table: TableId(9),
            partition: PartitionId(3),
            node: NodeId(1),
            core: CoreId(0),
            awaited: NodeId(2),
            total_ns: ns.iter().sum(),
            stages: ns,
        }
    }

    /// An interval of which everything was kept, or a sample.
    pub(crate) fn interval(slowest: Vec<Trace>, sample: Vec<Trace>, requests: u64) -> TailAnswer {
        TailAnswer { interval: 1, more: false, requests, slowest, sample }
    }

    #[test]
    fn the_slowest_stand_for_themselves_and_the_others_for_those_they_were_drawn_from() {
        let of = |us: u64| trace(&[(Stage::LogWrite, us)], Causes::NONE);
        let slowest: Vec<Trace> = (0..10).map(|place| of(1000 + place)).collect();
        let sample: Vec<Trace> = (0..20).map(of).collect();
        let sample = Sample::of(&[interval(slowest, sample, 1010)], |_| true);
        assert!((sample.weight - 1010.0).abs() < 1e-6);
        assert_eq!(sample.percentile(50.0), 10_000, "fifty of a thousand for each of twenty");
        assert_eq!(sample.percentile(99.9), 1_008_000, "exact where the tail is");
        assert_eq!(sample.percentile(100.0), 1_009_000);
        assert_eq!(sample.between(99.9, 100.0).count(), 2);
        assert_eq!(Sample::default().percentile(99.0), 0);
    }

    #[test]
    fn a_way_that_takes_much_longer_than_usual_is_not_explained() {
        let of = |hop: u64| trace(&[(Stage::Execute, 10), (Stage::Hop, hop)], Causes::NONE);
        let traces: Vec<Trace> = (0..99).map(|_| of(100)).chain([of(5_000)]).collect();
        let sample = Sample::of(&[interval(traces, Vec::new(), 100)], |_| true);
        assert_eq!(sample.requests[50].parts[UNEXPLAINED], 0);
        let slow = sample.requests[99].parts;
        assert_eq!((slow[Stage::Hop as usize], slow[UNEXPLAINED]), (400_000, 4_600_000));
        assert_eq!(slow.iter().sum::<u64>(), sample.requests[99].trace.total_ns);
    }

    #[test]
    fn only_wanted_requests_are_in_it() {
        let slow = trace(&[(Stage::Hop, 7)], Causes::NONE);
        let other = Trace { partition: PartitionId(4), ..slow };
        let sample = Sample::of(&[interval(vec![slow, other], Vec::new(), 2)], |it| it.partition.0 == 4);
        assert_eq!((sample.requests.len(), sample.requests[0].trace.partition.0), (1, 4));
    }
}
