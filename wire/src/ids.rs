//! Ids and counters, each a type of its own so that none can be passed for another.
//!
//! All are plain integers on the wire and on disk. Zero means "none yet" for the counters ([`Slot`],
//! [`Epoch`], [`Lsn`], [`Ballot`]); the first real value is one.

use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $int:ty, $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash,
            Archive, Serialize, Deserialize,
        )]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl From<rkyv::Archived<$name>> for $name {
            fn from(archived: rkyv::Archived<$name>) -> Self {
                Self(archived.0.into())
            }
        }

        impl From<&rkyv::Archived<$name>> for $name {
            fn from(archived: &rkyv::Archived<$name>) -> Self {
                Self(archived.0.into())
            }
        }
    };
}

id!(
    /// A table, for its whole life: a name that is dropped and created again gets a new id.
    TableId, u64, "t"
);
id!(
    /// A partition of a table: one contiguous range of storage keys and one replication group.
    PartitionId, u64, "p"
);
id!(
    /// A storage node: one data folder and the process that serves it.
    NodeId, u32, "n"
);
id!(
    /// A core of a node, counted from zero.
    CoreId, u16, "c"
);
id!(
    /// A place in a group's log. Slots are contiguous and start at one.
    Slot, u64, "s"
);
id!(
    /// A group's membership epoch. Only committed epochs fence.
    Epoch, u32, "e"
);
id!(
    /// A write of a core's log ("log sequence number"), counted per core.
    Lsn, u64, "l"
);
id!(
    /// One request on one connection, chosen by the side that asks.
    RequestId, u64, "r"
);

impl TableId {
    /// The table of tables, which exists from the first start.
    pub const SYSTEM: Self = Self(0);
}

impl PartitionId {
    /// "Not routed yet", in a frame's header.
    pub const NONE: Self = Self(0);
    /// The one partition of the table of tables.
    pub const SYSTEM: Self = Self(1);
}

impl Slot {
    /// Before the first entry.
    pub const ZERO: Self = Self(0);

    /// The slot after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }

    /// The slot before this one; the zero slot has none and stays.
    #[must_use]
    pub fn previous(self) -> Self {
        Self(self.0.saturating_sub(1))
    }
}

impl Lsn {
    /// Before the first write.
    pub const ZERO: Self = Self(0);

    /// The write after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// A ballot of Multi-Paxos: ordered by round, then by the node that proposed it, so no two nodes share one.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize,
)]
pub struct Ballot {
    /// Grows with every election.
    pub round: u64,
    /// Who stood in it.
    pub node: NodeId,
}

impl Ballot {
    /// Lower than any ballot that a node proposes.
    pub const ZERO: Self = Self { round: 0, node: NodeId(0) };

    /// The lowest ballot of `node` that is above this one.
    #[must_use]
    pub fn successor(self, node: NodeId) -> Self {
        Self { round: self.round + 1, node }
    }
}

impl From<&ArchivedBallot> for Ballot {
    fn from(archived: &ArchivedBallot) -> Self {
        Self { round: archived.round.into(), node: (&archived.node).into() }
    }
}

impl fmt::Display for Ballot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "b{}.{}", self.round, self.node.0)
    }
}

/// The identity of a data folder. A folder that was emptied and formatted again is another member.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Archive, Serialize, Deserialize)]
pub struct Incarnation(pub [u8; 16]);

impl Incarnation {
    /// Parses the usual text form of a UUID.
    ///
    /// # Errors
    /// When the text is not a UUID.
    pub fn parse(text: &str) -> Result<Self, uuid::Error> {
        uuid::Uuid::parse_str(text).map(|id| Self(*id.as_bytes()))
    }
}

impl From<&ArchivedIncarnation> for Incarnation {
    fn from(archived: &ArchivedIncarnation) -> Self {
        Self(archived.0)
    }
}

impl fmt::Display for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        uuid::Uuid::from_bytes(self.0).hyphenated().fmt(f)
    }
}

impl fmt::Debug for Incarnation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}
