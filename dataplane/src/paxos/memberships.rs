//! Who is in the group, as the log says: a membership is in effect from the moment its entry is in a log,
//! and is taken back if the entry is superseded (docs/decisions/0016-membership.md).

use super::log::GroupLog;
use evenkeel_wire::entry::{Entry, EntryKind};
use evenkeel_wire::ids::Slot;
use evenkeel_wire::membership::Membership;

/// The memberships that a log names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Memberships {
    /// The one in effect where the applied log ends.
    applied: Membership,
    /// Its entry's slot, or a later one.
    applied_at: Slot,
    /// Those of later entries, with their slots.
    later: Vec<(Slot, Membership)>,
}

impl Memberships {
    /// What `log` names, if `applied` is in effect where it begins or somewhere behind that.
    #[must_use]
    pub fn of(applied: Membership, log: &GroupLog) -> Self {
        let mut memberships = Self { applied, applied_at: log.base().slot, later: Vec::new() };
        for entry in log.after(log.base().slot) {
            memberships.append(entry);
        }
        memberships
    }

    /// The one in effect.
    #[must_use]
    pub fn latest(&self) -> &Membership {
        self.later.last().map_or(&self.applied, |(_, membership)| membership)
    }

    /// Whoever has the log up to here knows it.
    #[must_use]
    pub fn latest_at(&self) -> Slot {
        self.later.last().map_or(self.applied_at, |(slot, _)| *slot)
    }

    /// The one that is in effect behind `slot`, which is not below the applied log's end.
    #[must_use]
    pub fn at(&self, slot: Slot) -> &Membership {
        let upto = self.later.iter().rev().find(|(at, _)| *at <= slot);
        upto.map_or(&self.applied, |(_, membership)| membership)
    }

    /// Whether the latest one's entry is at or below `commit`.
    #[must_use]
    pub fn is_committed(&self, commit: Slot) -> bool {
        self.later.last().is_none_or(|(at, _)| *at <= commit)
    }

    /// Takes the next entry of the log. Returns whether it is a membership.
    pub(super) fn append(&mut self, entry: &Entry) -> bool {
        if entry.header.kind != EntryKind::Membership {
            return false;
        }
        let membership =
            Membership::decode(entry.payload()).expect("an accepted entry was checked when it came");
        // One that is behind `applied` already is told of again by a log that begins before that.
        let is_new = membership.epoch > self.latest().epoch;
        if is_new {
            self.later.push((entry.header.slot, membership));
        }
        is_new
    }

    /// The log ends before `slot`. Returns whether a membership was taken back.
    pub(super) fn truncate_from(&mut self, slot: Slot) -> bool {
        let before = self.later.len();
        self.later.retain(|(at, _)| *at < slot);
        self.later.len() < before
    }

    /// The log is applied up to `slot`.
    pub(super) fn apply(&mut self, slot: Slot) {
        let count = self.later.iter().take_while(|(at, _)| *at <= slot).count();
        if let Some((slot, membership)) = self.later.drain(..count).next_back() {
            (self.applied, self.applied_at) = (membership, slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::entry::EntryHeader;
    use evenkeel_wire::ids::{Ballot, CoreId, Epoch, Incarnation, NodeId, PartitionId};
    use evenkeel_wire::message::peer::LogPoint;
    use evenkeel_wire::table::Member;

    fn member(node: u32) -> Member {
        Member { node: NodeId(node), core: CoreId(0), incarnation: Incarnation([0; 16]) }
    }

    fn append(log: &mut GroupLog, membership: Option<&Membership>) -> Slot {
        let header = EntryHeader {
            partition: PartitionId(1),
            slot: log.last().slot.next(),
            ballot: Ballot { round: 1, node: NodeId(1) },
            previous: log.last().hash,
            timestamp: 0,
            kind: if membership.is_some() { EntryKind::Membership } else { EntryKind::Noop },
            payload_bytes: 0,
        };
        let bytes = membership.map_or(0, Membership::encoded_bytes);
        let encode = |out: &mut Vec<u8>| membership.into_iter().for_each(|membership| membership.encode(out));
        log.append(Entry::build(header, bytes, encode));
        header.slot
    }

    #[test]
    fn a_membership_counts_from_its_entry_on_and_goes_with_it() {
        let first = Membership {
            epoch: Epoch(1),
            members: vec![member(1), member(2), member(3)],
            ..Default::default()
        };
        let (second, third) = (first.without(NodeId(3)), first.without(NodeId(3)).with(member(4), true));
        let mut log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        append(&mut log, None);
        let removed_at = append(&mut log, Some(&second));
        append(&mut log, None);
        let added_at = append(&mut log, Some(&third));
        let mut memberships = Memberships::of(first.clone(), &log);
        assert_eq!(memberships.latest(), &third);
        assert_eq!(memberships.at(removed_at), &second);
        assert_eq!(memberships.at(removed_at.previous()), &first);
        assert!(!memberships.is_committed(removed_at) && memberships.is_committed(added_at));
        memberships.apply(removed_at);
        assert!(memberships.truncate_from(added_at) && !memberships.truncate_from(added_at));
        assert_eq!((memberships.latest(), memberships.latest_at()), (&second, removed_at));
        assert_eq!(
            Memberships::of(second.clone(), &log).at(Slot(1)),
            &second,
            "a state may be newer than a log"
        );
    }
}
