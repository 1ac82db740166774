//! From a sample to an explanation: what part each stage has around a percentile, what dominates, and the
//! slowest requests.
//!
//! Two questions are told apart: what slow requests spent most of their time with, and with what they spent
//! what others do not spend. What a request met (a checkpoint, say) is behind that if the slow ones met it
//! much more often than the others.

use super::cause::Cause;
use super::sample::{PARTS, Sample, Weighted};
use evenkeel_wire::ids::NodeId;
use evenkeel_wire::message::tail::Trace;
use evenkeel_wire::timeline::{Causes, Stage};
use std::collections::BTreeMap;

/// Where "slow" begins: from this percentile on, a band is everything above it.
const SLOW_FROM: f64 = 90.0;
/// A band below that reaches so far to both sides.
const BAND_HALF: f64 = 5.0;
/// A cause is met by at least this part of the slow requests' time…
const MET_MIN: f64 = 0.6;
/// …and this many times as often as around the median.
const MET_LIFT: f64 = 1.5;

/// Requests around a percentile.
#[derive(Clone, Debug)]
pub struct Band {
    /// The percentile.
    pub percentile: f64,
    /// What that many of a hundred requests do not exceed, nanoseconds.
    pub at_ns: u64,
    /// How many requests the band stands for.
    pub requests: f64,
    /// Their mean time, nanoseconds.
    pub mean_ns: f64,
    /// In each part.
    pub parts: [f64; PARTS],
    /// What most of the time was spent with.
    pub dominant: Dominant,
    /// What most of that was spent with that requests around the median do not spend; of slow requests only.
    pub beyond: Option<Dominant>,
    /// What part of the band's time was spent by requests that met each of [`MET`].
    pub met: [f64; MET.len()],
}

/// What dominates a band.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dominant {
    /// The cause.
    pub cause: Cause,
    /// The part of the time that speaks of it; none: unexplained.
    pub part: Option<Stage>,
    /// Mean nanoseconds of that part and those that speak of the same…
    pub ns: f64,
    /// …and what they take around the median.
    pub usual_ns: f64,
    /// The node that it mostly was; zero: none in particular.
    pub node: NodeId,
    /// What part of the band's time that node had.
    pub node_share: f64,
    /// Where most of the run queue was taken out of, if it is that.
    pub run_queue_in: Option<Stage>,
}

/// What requests may meet, and its name.
pub const MET: [(Causes, &str); 11] = [
    (Causes::CHECKPOINT, "checkpoint"),
    (Causes::HELD_BY_CHECKPOINT, "held by checkpoint"),
    (Causes::HELD_BY_HAND_OVER, "held by hand-over"),
    (Causes::SPLIT, "split"),
    (Causes::PAGE_MISS, "page miss"),
    (Causes::STOLEN, "stolen"),
    (Causes::FOLLOWER_RUN_QUEUE, "follower kept from running"),
    (Causes::REPEATED, "repeated"),
    (Causes::ROUTE_MISS, "route not cached"),
    (Causes::REDIRECTED, "sent twice"),
    (Causes::FAILED, "failed"),
];

/// An explanation.
#[derive(Clone, Debug)]
pub struct Report {
    /// Requests that it speaks of.
    pub requests: f64,
    /// The percentiles that were asked for, in their order.
    pub bands: Vec<Band>,
    /// The slowest requests, the slowest first.
    pub slowest: Vec<Weighted>,
    /// What part of the slowest 1 % of all time has a name.
    pub explained: f64,
}

/// The stage of a part; none: unexplained.
#[must_use]
pub fn stage_of(part: usize) -> Option<Stage> {
    Stage::ALL.get(part).copied()
}

impl Report {
    /// Explains `sample`; none if it is empty. Of the slowest, `slowest_max` are listed.
    #[must_use]
    pub fn of(sample: &Sample, percentiles: &[f64], slowest_max: usize) -> Option<Self> {
        sample.requests.last()?;
        let usual = Means::of(sample.between(50.0 - BAND_HALF, 50.0 + BAND_HALF));
        let band = |percentile: f64| Band::of(sample, percentile, &usual);
        let slow = Means::of(sample.between(99.0, 100.0));
        Some(Self {
            requests: sample.weight,
            bands: percentiles.iter().copied().map(band).collect(),
            slowest: sample.requests.iter().rev().take(slowest_max).copied().collect(),
            explained: 1.0 - slow.parts[PARTS - 1] / slow.total.max(1.0),
        })
    }
}

/// Means over some requests.
struct Means {
    weight: f64,
    total: f64,
    parts: [f64; PARTS],
    met: [f64; MET.len()],
}

impl Means {
    fn of<'a>(requests: impl Iterator<Item = &'a Weighted>) -> Self {
        let mut means = Self { weight: 0.0, total: 0.0, parts: [0.0; PARTS], met: [0.0; MET.len()] };
        for Weighted { trace, weight, parts } in requests {
            let total = trace.total_ns as f64 * weight;
            means.weight += weight;
            means.total += total;
            means.parts.iter_mut().zip(parts).for_each(|(sum, ns)| *sum += *ns as f64 * weight);
            for (sum, (cause, _)) in means.met.iter_mut().zip(MET) {
                *sum += if trace.has(cause) { total } else { 0.0 };
            }
        }
        let (weight, total) = (means.weight.max(f64::MIN_POSITIVE), means.total.max(f64::MIN_POSITIVE));
        means.met.iter_mut().for_each(|met| *met /= total);
        means.parts.iter_mut().for_each(|sum| *sum /= weight);
        means.total /= weight;
        means
    }

    fn met(&self, cause: Causes) -> f64 {
        MET.iter().zip(self.met).find(|((other, _), _)| *other == cause).map_or(0.0, |(_, met)| met)
    }
}

impl Band {
    fn of(sample: &Sample, percentile: f64, usual: &Means) -> Self {
        let slow = percentile >= SLOW_FROM;
        let (from, to) = match slow {
            true => (percentile, 100.0),
            false => ((percentile - BAND_HALF).max(0.0), (percentile + BAND_HALF).min(100.0)),
        };
        let requests: Vec<Weighted> = sample.between(from, to).copied().collect();
        let means = Means::of(requests.iter());
        Self {
            percentile,
            at_ns: sample.percentile(percentile),
            requests: means.weight,
            mean_ns: means.total,
            parts: means.parts,
            dominant: dominant(&requests, &means, usual, slow, false),
            beyond: slow.then(|| dominant(&requests, &means, usual, slow, true)),
            met: means.met,
        }
    }
}

/// What most of the time comes of: parts that have the same thing behind them count together.
fn dominant(requests: &[Weighted], means: &Means, usual: &Means, slow: bool, beyond: bool) -> Dominant {
    let causes: [Cause; PARTS] =
        std::array::from_fn(|part| behind(Cause::of(stage_of(part)), means, usual, slow));
    let of = |means: &Means, cause: Cause| -> f64 {
        means.parts.iter().zip(causes).filter(|(_, of)| *of == cause).map(|(ns, _)| ns).sum()
    };
    let counts = |cause: Cause| of(means, cause) - if beyond { of(usual, cause) } else { 0.0 };
    let cause = causes.into_iter().max_by(|a, b| counts(*a).total_cmp(&counts(*b)));
    let cause = cause.unwrap_or(Cause::Unexplained);
    let is_of_it = |part: usize| causes[part] == cause;
    let longest = (0..PARTS).filter(|part| is_of_it(*part));
    let longest = longest.max_by(|a, b| means.parts[*a].total_cmp(&means.parts[*b])).and_then(stage_of);
    let (node, node_share) = node_of(requests, is_of_it);
    Dominant {
        cause,
        part: longest,
        ns: of(means, cause),
        usual_ns: of(usual, cause),
        node,
        node_share,
        run_queue_in: run_queue_in(requests).filter(|_| longest == Some(Stage::RunQueue)),
    }
}

/// What is behind a part: something that the slow requests met and the others did not.
fn behind(spoken: Cause, means: &Means, usual: &Means, slow: bool) -> Cause {
    let met = |cause: Causes| means.met(cause) >= MET_MIN;
    let met_more = |cause: Causes| met(cause) && means.met(cause) >= MET_LIFT * usual.met(cause) && slow;
    match spoken {
        Cause::HandOver if met(Causes::HELD_BY_CHECKPOINT) => Cause::Checkpoint,
        Cause::HandOver if met(Causes::SPLIT) && !met(Causes::HELD_BY_HAND_OVER) => Cause::Split,
        Cause::Flush if met(Causes::FOLLOWER_RUN_QUEUE) => Cause::RunQueue,
        Cause::CoreBusy | Cause::LogQueue | Cause::Flush | Cause::PageMiss | Cause::Quorum
            if met_more(Causes::CHECKPOINT) =>
        {
            Cause::Checkpoint
        }
        Cause::CoreBusy | Cause::RouterBusy | Cause::Unexplained if met_more(Causes::STOLEN) => Cause::Steal,
        Cause::CoreBusy if met_more(Causes::SPLIT) => Cause::Split,
        spoken => spoken,
    }
}

/// Who had most of the time of some parts, and what share of it.
fn node_of(requests: &[Weighted], counts: impl Fn(usize) -> bool) -> (NodeId, f64) {
    let mut nodes: BTreeMap<NodeId, f64> = BTreeMap::new();
    let mut all = 0.0;
    for Weighted { trace, weight, parts } in requests {
        for (part, ns) in parts.iter().enumerate().filter(|(part, _)| counts(*part)) {
            let ns = *ns as f64 * weight;
            all += ns;
            if let Some(node) = node_in(trace, stage_of(part)) {
                *nodes.entry(node).or_default() += ns;
            }
        }
    }
    let most = nodes.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b));
    most.filter(|(_, ns)| *ns > 0.0).map_or((NodeId(0), 0.0), |(node, ns)| (node, ns / all))
}

/// On which storage node a part of a request's time was spent.
#[must_use]
pub fn node_in(trace: &Trace, part: Option<Stage>) -> Option<NodeId> {
    let node = match part? {
        Stage::Quorum | Stage::FollowerLog => trace.awaited,
        Stage::CoreQueue
        | Stage::Held
        | Stage::PageWait
        | Stage::Execute
        | Stage::LogQueue
        | Stage::LogWrite
        | Stage::RunQueue
        | Stage::Attempts
        | Stage::Hop => trace.node,
        Stage::RouterQueue | Stage::Lookup | Stage::RouterRunQueue => return None,
    };
    (node != NodeId(0)).then_some(node)
}

fn run_queue_in(requests: &[Weighted]) -> Option<Stage> {
    let mut stages: BTreeMap<Stage, f64> = BTreeMap::new();
    for Weighted { trace, weight, .. } in requests {
        let timeline = trace.timeline();
        if let Some(stage) = timeline.run_queue_in {
            *stages.entry(stage).or_default() += timeline.get(Stage::RunQueue) as f64 * weight;
        }
    }
    stages.into_iter().max_by(|(_, a), (_, b)| a.total_cmp(b)).map(|(stage, _)| stage)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tail::sample::tests::{interval, trace};

    /// 980 usual requests, and twenty with these stages.
    fn report(slow: &[(Stage, u64)], usual_causes: Causes, slow_causes: Causes) -> Report {
        let usual = [(Stage::LogWrite, 300), (Stage::CoreQueue, 20), (Stage::Hop, 60)];
        let traces: Vec<Trace> = (0..980)
            .map(|_| trace(&usual, usual_causes))
            .chain((0..20).map(|_| trace(slow, slow_causes)))
            .collect();
        let sample = Sample::of(&[interval(traces, Vec::new(), 1000)], |_| true);
        Report::of(&sample, &[50.0, 99.0], 5).expect("there are requests")
    }

    fn check(slow: &[(Stage, u64)], causes: Causes, expected: Cause) {
        let report = report(slow, Causes::NONE, causes);
        assert_eq!(report.bands[1].dominant.cause, expected, "{slow:?}");
        assert_eq!(report.bands[0].dominant.cause, Cause::Flush, "around the median");
        assert!(report.explained > 0.99 || expected == Cause::Unexplained);
    }

    #[test]
    fn a_planted_cause_is_the_one_that_is_named() {
        check(&[(Stage::LogWrite, 20_000), (Stage::Hop, 60)], Causes::NONE, Cause::Flush);
        check(&[(Stage::LogWrite, 300), (Stage::FollowerLog, 20_000)], Causes::NONE, Cause::Flush);
        check(&[(Stage::LogWrite, 300), (Stage::RunQueue, 900)], Causes::NONE, Cause::RunQueue);
        check(&[(Stage::LogWrite, 300), (Stage::CoreQueue, 900)], Causes::NONE, Cause::CoreBusy);
        check(&[(Stage::LogWrite, 300), (Stage::CoreQueue, 900)], Causes::CHECKPOINT, Cause::Checkpoint);
        check(&[(Stage::LogWrite, 3000)], Causes::CHECKPOINT, Cause::Checkpoint);
        check(&[(Stage::Held, 900)], Causes::HELD_BY_CHECKPOINT, Cause::Checkpoint);
        check(&[(Stage::Held, 900)], Causes::HELD_BY_HAND_OVER, Cause::HandOver);
        check(&[(Stage::Held, 900)], Causes::SPLIT, Cause::Split);
        check(&[(Stage::PageWait, 900)], Causes::PAGE_MISS, Cause::PageMiss);
        check(&[(Stage::FollowerLog, 900)], Causes::FOLLOWER_RUN_QUEUE, Cause::RunQueue);
        check(&[(Stage::Hop, 9000)], Causes::NONE, Cause::Unexplained);
        check(&[(Stage::RouterRunQueue, 900)], Causes::NONE, Cause::RouterRunQueue);
    }

    #[test]
    fn what_a_checkpoint_does_to_several_stages_counts_together() {
        let slow = [(Stage::CoreQueue, 3000), (Stage::LogWrite, 3000), (Stage::RunQueue, 4000)];
        let report = report(&slow, Causes::NONE, Causes::CHECKPOINT);
        let dominant = report.bands[1].dominant;
        assert_eq!((dominant.cause, dominant.ns), (Cause::Checkpoint, 6_000_000.0));
    }

    #[test]
    fn what_everybody_meets_explains_nothing() {
        let slow = [(Stage::LogWrite, 20_000)];
        let report = report(&slow, Causes::CHECKPOINT, Causes::CHECKPOINT);
        assert_eq!(report.bands[1].dominant.cause, Cause::Flush);
    }

    #[test]
    fn a_long_part_that_is_always_long_is_not_what_makes_slow() {
        let slow = [(Stage::LogWrite, 310), (Stage::CoreQueue, 200), (Stage::Hop, 60)];
        let report = report(&slow, Causes::NONE, Causes::NONE);
        assert_eq!(report.bands[1].dominant.cause, Cause::Flush, "most of the time");
        let beyond = report.bands[1].beyond.expect("the band is slow");
        assert_eq!((beyond.cause, beyond.part), (Cause::CoreBusy, Some(Stage::CoreQueue)));
        assert_eq!((beyond.ns, beyond.usual_ns), (200_000.0, 20_000.0));
        assert!(report.bands[0].beyond.is_none());
    }

    #[test]
    fn the_node_that_was_waited_for_is_named() {
        let of_leader = report(&[(Stage::LogWrite, 9_000)], Causes::NONE, Causes::NONE);
        assert_eq!(of_leader.bands[1].dominant.node, NodeId(1));
        let of_follower = report(&[(Stage::FollowerLog, 9_000)], Causes::NONE, Causes::NONE);
        let dominant = of_follower.bands[1].dominant;
        assert_eq!((dominant.node, dominant.node_share), (NodeId(2), 1.0));
    }

    #[test]
    fn what_has_no_name_is_counted() {
        let report = report(&[(Stage::Hop, 10_000)], Causes::NONE, Causes::NONE);
        assert!((report.explained - 0.024).abs() < 0.001, "{}", report.explained);
        assert_eq!(report.slowest.len(), 5);
        assert!(Report::of(&Sample::default(), &[50.0], 5).is_none());
    }
}
