//! Where the time of requests went, as a router has noted it (decision 0018).

use super::Body;
use crate::frame::Kind;
use crate::ids::{CoreId, NodeId, PartitionId, TableId};
use crate::timeline::{Causes, STAGES, Stage, Timeline};
use rkyv::{Archive, Deserialize, Serialize};

/// Asks a router for one interval of what it has noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Tail {
    /// The first interval that is still there from this one on. Intervals are counted, from one.
    pub from: u64,
}

impl Body for Tail {
    const KIND: Kind = Kind::Tail;
}

/// An interval: its slowest requests, and some of the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct TailAnswer {
    /// Which; zero: there is none from the one on that was asked for.
    pub interval: u64,
    /// Whether there are later ones.
    pub more: bool,
    /// Requests that ended in it.
    pub requests: u64,
    /// The slowest of them, in no order.
    pub slowest: Vec<Trace>,
    /// Some of the others, each with the same chance.
    pub sample: Vec<Trace>,
}

impl Body for TailAnswer {
    const KIND: Kind = Kind::TailAnswer;
}

/// A request that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize, Deserialize)]
pub struct Trace {
    /// When, in milliseconds since 1970.
    pub wall_ms: u64,
    /// What was asked: the number of a [`Kind`].
    pub kind: u16,
    /// See [`Causes`].
    pub causes: u16,
    /// How often it was sent to a storage core.
    pub attempts: u8,
    /// The stage, counted from one, that most of the core's run queue was taken out of; zero: none.
    pub run_queue_in: u8,
    /// Its table, if that is known.
    pub table: TableId,
    /// The partition that it was sent to last.
    pub partition: PartitionId,
    /// The node that it was sent to last…
    pub node: NodeId,
    /// …and the core.
    pub core: CoreId,
    /// The node that completed the quorum; zero: nobody was waited for.
    pub awaited: NodeId,
    /// Nanoseconds from when it arrived until it was answered, as the router saw it.
    pub total_ns: u64,
    /// Nanoseconds in each stage, by its number.
    pub stages: [u64; STAGES],
}

impl Trace {
    /// Where the time went.
    #[must_use]
    pub fn timeline(&self) -> Timeline {
        let run_queue_in = usize::from(self.run_queue_in).checked_sub(1);
        Timeline {
            ns: self.stages,
            causes: Causes(self.causes),
            run_queue_in: run_queue_in.and_then(|place| Stage::ALL.get(place)).copied(),
            awaited: self.awaited,
        }
    }

    /// Whether it met this.
    #[must_use]
    pub fn has(&self, cause: Causes) -> bool {
        Causes(self.causes).has(cause)
    }
}
