//! Names of disk operations: who on this core asked for one is in its id.

use evenkeel_wire::ids::Lsn;
use evenkeel_wire::turn::OperationId;

const ARRIVAL: u64 = 1 << 58;
const REPAIR: u64 = 1 << 59;
const PAGE: u64 = 1 << 60;
const TREE: u64 = 1 << 61;
const CHECKPOINT: u64 = 1 << 62;
const RECOVERY: u64 = 1 << 63;

/// Who asked for a disk operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The log: the write with this lsn.
    Log(Lsn),
    /// The checkpoint writer: its counter.
    Checkpoint(u64),
    /// A write of the tree's pages: its counter.
    Tree(u64),
    /// A write of pages that stand in for damaged ones: its counter.
    Repair(u64),
    /// A write of pages of a snapshot that is being received: its counter.
    Arrival(u64),
    /// A read of a page: its counter.
    Page(u64),
    /// Recovery, which has one operation at a time.
    Recovery,
}

impl Owner {
    /// The id of this owner's operation.
    #[must_use]
    pub fn id(self) -> OperationId {
        match self {
            Self::Log(lsn) => OperationId(lsn.0),
            Self::Checkpoint(count) => OperationId(CHECKPOINT | count),
            Self::Tree(count) => OperationId(TREE | count),
            Self::Repair(count) => OperationId(REPAIR | count),
            Self::Arrival(count) => OperationId(ARRIVAL | count),
            Self::Page(count) => OperationId(PAGE | count),
            Self::Recovery => OperationId(RECOVERY),
        }
    }

    /// Whose operation has this id.
    #[must_use]
    pub fn of(id: OperationId) -> Self {
        if id.0 & RECOVERY != 0 {
            Self::Recovery
        } else if id.0 & CHECKPOINT != 0 {
            Self::Checkpoint(id.0 & !CHECKPOINT)
        } else if id.0 & TREE != 0 {
            Self::Tree(id.0 & !TREE)
        } else if id.0 & REPAIR != 0 {
            Self::Repair(id.0 & !REPAIR)
        } else if id.0 & ARRIVAL != 0 {
            Self::Arrival(id.0 & !ARRIVAL)
        } else if id.0 & PAGE != 0 {
            Self::Page(id.0 & !PAGE)
        } else {
            Self::Log(Lsn(id.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_name_their_owner() {
        for owner in [
            Owner::Log(Lsn(7)),
            Owner::Checkpoint(7),
            Owner::Tree(7),
            Owner::Page(7),
            Owner::Repair(7),
            Owner::Arrival(7),
            Owner::Recovery,
        ] {
            assert_eq!(Owner::of(owner.id()), owner);
        }
    }
}
