//! Who is in a replication group: the payload of a *membership* entry.
//!
//! ```text
//!       0      4  epoch            one more than that of the membership before
//!       4      2  members
//!       6      2  log replicas     among them
//!       8      2  former members   0 or 1
//!      10      2  reserved, zero
//!      12      …  members, then the former one, 24 bytes each: node 4, core 2, reserved 2, incarnation 16;
//!                 then the nodes of the log replicas, 4 bytes each
//! ```

use crate::entry::EntryError;
use crate::ids::{CoreId, Epoch, Incarnation, NodeId};
use crate::table::Member;
use bytes::{Buf, BufMut, Bytes};

/// Length of the fixed part, bytes.
const HEADER_BYTES: usize = 12;
const MEMBER_BYTES: usize = 24;
const NODE_BYTES: usize = 4;

/// Storage replicas of a group, in a cluster of several nodes.
pub const REPLICAS: usize = 3;

/// Most members of a group: three, and room for a change.
pub const MEMBERS_MAX: usize = 5;

/// Who is in a replication group from one place of its log on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Membership {
    /// Counts the memberships of the group.
    pub epoch: Epoch,
    /// The members; all of them vote. The first stands for leadership first.
    pub members: Vec<Member>,
    /// Members that hold the log only, by their nodes: acceptors without a tree, which cannot lead (section 5
    /// of the ATC 2022 paper).
    pub log_replicas: Vec<NodeId>,
    /// The storage replica that was removed last and is not replaced by another one yet. It has most of what
    /// a replica needs: if it comes back, it is taken back.
    pub former: Option<Member>,
}

impl Membership {
    /// How many members make a quorum.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.members.len() / 2 + 1
    }

    /// The member on a node.
    #[must_use]
    pub fn member(&self, node: NodeId) -> Option<&Member> {
        self.members.iter().find(|member| member.node == node)
    }

    /// Whether a node's replica holds the partition's items and may lead.
    #[must_use]
    pub fn stores(&self, node: NodeId) -> bool {
        self.member(node).is_some() && !self.log_replicas.contains(&node)
    }

    /// Without a member. A storage replica is remembered.
    #[must_use]
    pub fn without(&self, node: NodeId) -> Self {
        let removed = self.member(node).filter(|_| self.stores(node)).copied();
        let mut next = self.next();
        next.members.retain(|member| member.node != node);
        next.log_replicas.retain(|other| *other != node);
        next.former = removed.or(self.former);
        next.forget_if_whole()
    }

    /// With a member more.
    #[must_use]
    pub fn with(&self, member: Member, log_only: bool) -> Self {
        let mut next = self.next();
        next.members.push(member);
        next.log_replicas.extend(log_only.then_some(member.node));
        next.former = self.former.filter(|former| log_only || former.node != member.node);
        next.forget_if_whole()
    }

    /// The same members. Whoever does not know of it is no member, and cannot become one before it does.
    #[must_use]
    pub fn renewed(&self) -> Self {
        self.next()
    }

    /// With a log replica that has become a storage replica.
    #[must_use]
    pub fn completed(&self, node: NodeId) -> Self {
        let mut next = self.next();
        next.log_replicas.retain(|other| *other != node);
        next.forget_if_whole()
    }

    /// Nobody needs to be taken back where all have the items.
    fn forget_if_whole(mut self) -> Self {
        if self.log_replicas.is_empty() && self.members.len() >= REPLICAS {
            self.former = None;
        }
        self
    }

    fn next(&self) -> Self {
        Self { epoch: Epoch(self.epoch.0 + 1), ..self.clone() }
    }

    /// Whether `next` may follow: it is the next epoch, and at most one node is a member in one of the two
    /// only, so that any two quorums have a member in common.
    #[must_use]
    pub fn may_become(&self, next: &Self) -> bool {
        let only_in = |these: &Self, those: &Self| {
            these.members.iter().filter(|member| !those.members.contains(member)).count()
        };
        next.epoch.0 == self.epoch.0 + 1 && only_in(self, next) + only_in(next, self) <= 1
    }

    /// Length of the payload, bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let members = self.members.len() + usize::from(self.former.is_some());
        HEADER_BYTES + members * MEMBER_BYTES + self.log_replicas.len() * NODE_BYTES
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u32_le(self.epoch.0);
        out.put_u16_le(self.members.len() as u16);
        out.put_u16_le(self.log_replicas.len() as u16);
        out.put_u16_le(u16::from(self.former.is_some()));
        out.put_u16_le(0);
        for Member { node, core, incarnation } in self.members.iter().chain(&self.former) {
            out.put_u32_le(node.0);
            out.put_u16_le(core.0);
            out.put_u16_le(0);
            out.put_slice(&incarnation.0);
        }
        self.log_replicas.iter().for_each(|node| out.put_u32_le(node.0));
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When the bytes are not a membership: somebody is in it, nobody twice, and log replicas are members.
    pub fn decode(mut bytes: Bytes) -> Result<Self, EntryError> {
        if bytes.len() < HEADER_BYTES {
            return Err(EntryError::Truncated { expected: HEADER_BYTES, got: bytes.len() });
        }
        let epoch = Epoch(bytes.get_u32_le());
        let [members, log_replicas, former, reserved] = std::array::from_fn(|_| bytes.get_u16_le());
        let unknown = |field, got: u16| Err(EntryError::Unknown { field, got: got.into() });
        if members == 0 || usize::from(members) > MEMBERS_MAX {
            return unknown("number of members", members);
        }
        if former > 1 {
            return unknown("number of former members", former);
        }
        if reserved != 0 {
            return unknown("membership flags", reserved);
        }
        let expected = usize::from(members + former) * MEMBER_BYTES + usize::from(log_replicas) * NODE_BYTES;
        if bytes.len() != expected {
            return Err(EntryError::Truncated { expected, got: bytes.len() });
        }
        let mut membership = Self { epoch, ..Self::default() };
        for _ in 0..members {
            let member = take_member(&mut bytes)?;
            if membership.member(member.node).is_some() {
                return Err(EntryError::Unknown { field: "member", got: member.node.0.into() });
            }
            membership.members.push(member);
        }
        membership.former = (former == 1).then(|| take_member(&mut bytes)).transpose()?;
        for _ in 0..log_replicas {
            let node = NodeId(bytes.get_u32_le());
            if !membership.stores(node) {
                return Err(EntryError::Unknown { field: "log replica", got: node.0.into() });
            }
            membership.log_replicas.push(node);
        }
        Ok(membership)
    }
}

fn take_member(bytes: &mut Bytes) -> Result<Member, EntryError> {
    let (node, core, reserved) = (NodeId(bytes.get_u32_le()), CoreId(bytes.get_u16_le()), bytes.get_u16_le());
    if reserved != 0 {
        return Err(EntryError::Unknown { field: "member flags", got: reserved.into() });
    }
    let mut incarnation = Incarnation([0; 16]);
    bytes.copy_to_slice(&mut incarnation.0);
    Ok(Member { node, core, incarnation })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(node: u32) -> Member {
        Member { node: NodeId(node), core: CoreId(1), incarnation: Incarnation([node as u8; 16]) }
    }

    fn three() -> Membership {
        Membership { epoch: Epoch(4), members: (1..=3).map(member).collect(), ..Membership::default() }
    }

    fn bytes_of(membership: &Membership) -> Bytes {
        let mut bytes = Vec::new();
        membership.encode(&mut bytes);
        assert_eq!(bytes.len(), membership.encoded_bytes());
        Bytes::from(bytes)
    }

    #[test]
    fn a_replacement_is_remove_then_add_then_complete() {
        let two = three().without(NodeId(3));
        assert_eq!((two.epoch, two.quorum(), two.former), (Epoch(5), 2, Some(member(3))));
        let with_log = two.with(member(4), true);
        assert!(!with_log.stores(NodeId(4)) && with_log.member(NodeId(4)).is_some());
        assert_eq!(with_log.former, Some(member(3)), "it may still come back");
        let four = three().with(member(4), false);
        assert_eq!(four.without(NodeId(3)).former, None, "nobody is missing");
        let whole = with_log.completed(NodeId(4));
        assert!(whole.stores(NodeId(4)) && whole.former.is_none());
        let again = with_log.without(NodeId(4)).with(member(3), false);
        assert_eq!((again.members.len(), again.former), (3, None));
        let steps = [three(), two, with_log, whole];
        assert!(steps.windows(2).all(|pair| pair[0].may_become(&pair[1])));
        assert!(!steps[0].may_become(&steps[2]), "two at once");
        assert!(!steps[1].may_become(&steps[1]), "not the next epoch");
    }

    #[test]
    fn memberships_come_back_and_others_are_errors() {
        for whole in [three(), three().without(NodeId(2)), three().without(NodeId(2)).with(member(9), true)] {
            let bytes = bytes_of(&whole);
            for end in 0..bytes.len() {
                assert!(Membership::decode(bytes.slice(..end)).is_err(), "prefix of {end} bytes");
            }
            assert_eq!(Membership::decode(bytes), Ok(whole));
        }
        let mut twice = three();
        twice.members.push(member(1));
        let stranger = Membership { log_replicas: vec![NodeId(7)], ..three() };
        let nobody = Membership { members: Vec::new(), ..three() };
        for wrong in [twice, stranger, nobody] {
            assert!(Membership::decode(bytes_of(&wrong)).is_err(), "{wrong:?}");
        }
    }
}
