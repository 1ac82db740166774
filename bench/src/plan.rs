//! What one load thread is to ask, and when.

use crate::keys::Share;
use crate::schedule::{Arrivals, Schedule};
use crate::trace::{Recorded, Trace};
use crate::workload::{Draw, Kind, Operation, Workload};
use std::sync::Arc;
use std::time::Duration;

/// How requests are begun.
#[derive(Clone, Debug)]
pub enum Pace {
    /// A closed loop: so many are under way at any time, over all threads.
    Closed(usize),
    /// An open loop: so many are due each second, over all threads.
    Open(f64, Arrivals),
    /// An open loop: they are due when a trace says, which goes so many times faster than it was recorded.
    Trace(Arc<Trace>, f64),
}

impl Pace {
    /// Whether requests are due whatever becomes of those before them.
    #[must_use]
    pub fn is_open(&self) -> bool {
        match self {
            Self::Closed(_) => false,
            Self::Open(..) | Self::Trace(..) => true,
        }
    }
}

/// The plan of one thread.
#[derive(Debug)]
pub(crate) enum Plan {
    /// Whenever there is room: so many under way on this thread.
    Closed(Draw, usize),
    Open(Draw, Schedule),
    /// What is left of a trace, and how many times faster than recorded it goes.
    Trace(std::vec::IntoIter<Recorded>, f64),
}

impl Plan {
    pub(crate) fn new(pace: &Pace, workload: &Workload, keys: u64, share: Share, seed: u64) -> Self {
        // Threads draw from sequences of their own.
        let seed = seed.wrapping_add(share.thread as u64 * 0x9e37_79b9);
        let draw = || Draw::new(workload, keys, share, seed);
        match pace {
            Pace::Closed(under_way) => {
                let mine = under_way / share.threads + usize::from(share.thread < under_way % share.threads);
                Self::Closed(draw(), mine)
            }
            Pace::Open(rate, arrivals) => Self::Open(draw(), Schedule::new(*arrivals, *rate, share, seed)),
            Pace::Trace(trace, speed) => Self::Trace(trace.share(share).into_iter(), *speed),
        }
    }

    /// When the next request is due, from the start. In a closed loop, and at the end of a trace, never.
    pub(crate) fn due(&self) -> Option<Duration> {
        match self {
            Self::Closed(..) => None,
            Self::Open(_, schedule) => Some(schedule.peek()),
            Self::Trace(requests, speed) => Some(requests.as_slice().first()?.at.div_f64(*speed)),
        }
    }

    /// Takes the next request, which is due `at`. At the end of a trace there is none.
    pub(crate) fn take(&mut self, at: Duration) -> Option<Operation> {
        match self {
            Self::Closed(draw, _) => Some(draw.operation(at)),
            Self::Open(draw, schedule) => {
                schedule.advance();
                Some(draw.operation(at))
            }
            Self::Trace(requests, ..) => requests.next().map(|recorded| recorded.operation),
        }
    }

    /// Leaves the next request out.
    pub(crate) fn skip(&mut self) {
        match self {
            Self::Closed(..) => {}
            Self::Open(_, schedule) => schedule.advance(),
            Self::Trace(requests, ..) => drop(requests.next()),
        }
    }

    /// A write of the key of that number. Traces write none but their own.
    pub(crate) fn put(&mut self, key: u64) -> Option<Operation> {
        match self {
            Self::Closed(draw, _) | Self::Open(draw, _) => Some(draw.put(key)),
            Self::Trace(..) => None,
        }
    }

    /// A request has succeeded.
    pub(crate) fn settle(&mut self, kind: Kind, key: u64) {
        match self {
            Self::Closed(draw, _) | Self::Open(draw, _) => draw.settle(kind, key),
            Self::Trace(..) => {}
        }
    }

    /// The connection, of so many, that a key must use so that its requests stay in order; none: any.
    pub(crate) fn line_of(&self, key: u64, lines: usize) -> Option<usize> {
        match self {
            Self::Closed(..) | Self::Open(..) => None,
            Self::Trace(..) => Some((evenkeel_wire::prng::Prng::new(key).below(lines as u64)) as usize),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_what_is_under_way() {
        let workload = Workload::named("put").expect("it has that name");
        let under_way =
            |thread| match Plan::new(&Pace::Closed(8), &workload, 10, Share { thread, threads: 3 }, 1) {
                Plan::Closed(_, under_way) => under_way,
                Plan::Open(..) | Plan::Trace(..) => 0,
            };
        assert_eq!([0, 1, 2].map(under_way), [3, 3, 2]);
    }

    #[test]
    fn a_trace_keeps_a_key_on_its_connection_and_goes_as_fast_as_it_is_told() {
        let text = "{\"at_us\": 10, \"op\": \"get\", \"key\": \"a\"}\n\
                    {\"at_us\": 90, \"op\": \"get\", \"key\": \"b\"}\n";
        let trace = Arc::new(Trace::read(text.as_bytes()).expect("it is one"));
        let workload = trace.workload("trace");
        assert_eq!(workload.mix, [(Kind::Get, 100)]);
        let alone = Share { thread: 0, threads: 1 };
        let mut plan = Plan::new(&Pace::Trace(trace, 2.0), &workload, 1, alone, 1);
        assert_eq!(plan.due(), Some(Duration::from_micros(5)));
        assert!((0..50).all(|key| plan.line_of(key, 7) == plan.line_of(key, 7)));
        let places: Vec<Option<usize>> = (0..50).map(|key| plan.line_of(key, 7)).collect();
        assert!((0..7).all(|place| places.contains(&Some(place))), "{places:?}");
        plan.skip();
        assert_eq!(plan.due(), Some(Duration::from_micros(45)));
        assert_eq!(plan.take(Duration::ZERO).map(|operation| operation.key), Some(1));
        assert_eq!((plan.due(), plan.take(Duration::ZERO)), (None, None));
    }
}
