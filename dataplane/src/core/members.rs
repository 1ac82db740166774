//! Groups that lost a member get another one (docs/decisions/0016-membership.md).
//!
//! The leader of a group sees which members are silent. It needs nobody's word for what it does about that:
//! it *courts* a node, which takes the log without a vote; when that one is close, it is added, and then the
//! silent member is removed, each by an entry of the log. The new one holds the log only, which takes
//! milliseconds whatever the partition's size. The partition's items are copied to it in the background, and
//! then it is a storage replica. If the one that was removed comes back before that, it is taken back.
//!
//! The catalogue is told of memberships afterwards, with its next order.

use super::serving::Serving;
use crate::config::NodeInfo;
use crate::group::Group;
use crate::limits::{
    CHANGES_REPORTED_MAX, COPY_ITEMS_AFTER, COURT_FORMER_EVERY, COURT_PATIENCE, HEAL_TICK, LOG_REPLICAS_PART,
    REPLACE_AFTER, STRAY_AFTER,
};
use crate::partition::state::State;
use crate::paxos::learner::Health;
use crate::paxos::{REPLICAS, Replica, Seed};
use crate::planted::{self, Planted};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{CoreId, Epoch, NodeId, PartitionId};
use evenkeel_wire::membership::Membership;
use evenkeel_wire::message::catalog::{KnownEpoch, Stray};
use evenkeel_wire::message::peer::Invite;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::{Boot, Effects, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// What the leaders of this core do about members.
#[derive(Debug, Default)]
pub(super) struct Members {
    next_at: Boot,
    by_group: BTreeMap<PartitionId, Healing>,
    /// Cores to which the link broke and that were not heard since, and when it did.
    unlinked: BTreeMap<(NodeId, CoreId), Boot>,
    /// Groups whose members the catalogue may not know.
    unreported: BTreeSet<PartitionId>,
    /// See [`keeps_too_much`](Self::keeps_too_much).
    keeps_too_much: bool,
}

/// A group that is not whole.
#[derive(Debug)]
struct Healing {
    /// Since when it is led here and its members are these.
    epoch: Epoch,
    since: Boot,
    /// Who was courted in vain.
    tried: Vec<NodeId>,
    /// When the former member may be courted again.
    former_at: Boot,
}

/// What a group needs next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// A node that takes the log.
    Learner,
    /// To know whether the former member is back.
    Former,
    /// The learner is not needed, or does not come closer.
    NoLearner,
    /// The learner as a member.
    Member,
    /// To do without this member.
    Without(NodeId),
    /// This log replica has the items.
    Completed(NodeId),
    /// This log replica needs the items.
    Items(NodeId),
}

/// What is done about it.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Court(Member),
    Dismiss(NodeId),
    /// Forget who was courted in vain.
    Forget,
    /// Who was courted in vain has promised a later ballot: lead under one that is later still.
    Outbid,
    Become(Membership),
    Copy(NodeId),
}

/// What is known of a group, to decide about its members.
struct Situation<'a> {
    members: &'a Membership,
    /// How the other members do.
    others: &'a [Health],
    prospect: Option<Health>,
    /// How long the membership has been what it is.
    unchanged_for: Duration,
    former_is_due: bool,
}

impl Members {
    /// Of `groups`, which were here at the start, the catalogue may not know the members.
    pub(super) fn new<'a>(groups: impl Iterator<Item = &'a Group>) -> Self {
        let changed =
            groups.map(|group| group.replica.config()).filter(|config| config.epoch != config.birth);
        Self { unreported: changed.map(|config| config.partition).collect(), ..Self::default() }
    }

    /// Whether the log replicas of this core must keep more than its log has room for.
    pub(super) fn keeps_too_much(&self) -> bool {
        self.keeps_too_much
    }

    /// The link to a core broke.
    pub(super) fn link_lost(&mut self, now: Boot, peer: Peer) {
        self.unlinked.entry((peer.node, peer.core)).or_insert(now);
    }

    /// A core was heard.
    pub(super) fn heard(&mut self, peer: Peer) {
        if !self.unlinked.is_empty() {
            self.unlinked.remove(&(peer.node, peer.core));
        }
    }
}

impl Situation<'_> {
    fn is_lost(health: &&Health) -> bool {
        health.silent_for >= REPLACE_AFTER
    }

    /// Whether two members would have the items, and be close to the log's end, without this one: nobody but
    /// they can lead, and what is damaged on one is repaired from the other. The leader is one of them.
    fn can_do_without(&self, health: &Health) -> bool {
        let mut others = self.others.iter().filter(|other| other.member != health.member);
        others.any(|other| {
            let stores = other.stores && !self.members.log_replicas.contains(&other.member.node);
            stores && other.is_close && !Self::is_lost(&other)
        })
    }

    /// Whether those who stay when this one goes are known to keep up. A leader that is new, or leads what a
    /// split has just made, waits for that: who is here may be all there is.
    fn stay_close(&self, goes: &Health) -> bool {
        let mut stay = self.others.iter().filter(|other| other.member != goes.member);
        self.unchanged_for >= REPLACE_AFTER || stay.all(|health| health.is_close)
    }

    fn next_step(&self) -> Need {
        let mut lost = self.others.iter().filter(Self::is_lost);
        let lost = lost.find(|health| self.can_do_without(health));
        let log_replica = || {
            let mut others = self.others.iter().filter(|health| !Self::is_lost(health));
            others.find(|health| self.members.log_replicas.contains(&health.member.node))
        };
        if self.members.members.len() > REPLICAS {
            let goes = lost.or_else(log_replica).or(self.others.last());
            return match goes {
                Some(goes) if lost.is_some() || self.stay_close(goes) => Need::Without(goes.member.node),
                Some(_) | None => Need::Nothing,
            };
        }
        let lacks = self.members.members.len() < REPLICAS || lost.is_some();
        if let Some(prospect) = &self.prospect {
            let stands_in = log_replica().is_some_and(|log_replica| !log_replica.stores);
            let is_needed = lacks || stands_in && prospect.stores;
            let is_patient = prospect.silent_for < COURT_PATIENCE;
            return match prospect.is_close {
                true if is_needed => Need::Member,
                false if is_patient && !(lacks && prospect.needs_snapshot) => Need::Nothing,
                true | false => Need::NoLearner,
            };
        }
        if lacks {
            return Need::Learner;
        }
        match log_replica() {
            Some(log_replica) if log_replica.stores => Need::Completed(log_replica.member.node),
            Some(log_replica) if self.unchanged_for >= COPY_ITEMS_AFTER => {
                Need::Items(log_replica.member.node)
            }
            Some(_) if self.former_is_due => Need::Former,
            Some(_) | None => Need::Nothing,
        }
    }
}

/// Who could take the log, the best first: in zones where no member is that is heard. The former member needs
/// least; else who it is differs from partition to partition.
fn candidates(
    nodes: &BTreeMap<NodeId, NodeInfo>,
    members: &Membership,
    others: &[Health],
    own: NodeId,
    partition: PartitionId,
) -> Vec<Member> {
    let heard = others.iter().filter(|health| !Situation::is_lost(health)).map(|health| health.member.node);
    let zones: BTreeSet<&str> =
        heard.chain([own]).filter_map(|node| nodes.get(&node)).map(|info| info.zone.as_str()).collect();
    let free = nodes.iter().filter(|(node, info)| {
        !info.cores.is_empty() && members.member(**node).is_none() && !zones.contains(info.zone.as_str())
    });
    let former = former_of(nodes, members);
    let member = |(node, info): (&NodeId, &NodeInfo)| {
        let core = CoreId((partition.0 % info.cores.len() as u64) as u16);
        let fresh = Member { node: *node, core, incarnation: info.incarnation };
        former.filter(|former| former.node == *node).unwrap_or(fresh)
    };
    let mut candidates: Vec<Member> = free.map(member).collect();
    candidates.sort_by_key(|member| {
        let spread = (partition.0 ^ u64::from(member.node.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        (Some(*member) != former, spread)
    });
    candidates
}

/// The former member, if its node is still the same.
fn former_of(nodes: &BTreeMap<NodeId, NodeInfo>, members: &Membership) -> Option<Member> {
    let is_same =
        |former: &Member| nodes.get(&former.node).is_some_and(|info| info.incarnation == former.incarnation);
    members.former.filter(is_same)
}

impl Serving {
    /// A group's log names other members, or takes them back.
    pub(super) fn members_changed(&mut self, partition: PartitionId) {
        self.heartbeats.leave_rolls(partition);
        self.members.unreported.insert(partition);
    }

    /// A leader wants this core to take part in a group. One that holds it already is told by the message.
    pub(super) fn accept_invitation(&mut self, now: Now, peer: Peer, invite: &Invite) {
        let partition = invite.config.partition;
        let leads = invite.ballot.node == peer.node && invite.config.stores(peer.node);
        let welcome = self.is_storage(peer) && leads;
        // A member's log is not begun here: what it had accepted and promised would be forgotten.
        let learns = !invite.config.members.contains(&invite.member);
        let may = learns && invite.member == self.config.member() && self.may_hold_more();
        if !welcome || !may || self.groups.contains_key(&partition) {
            return;
        }
        let state = State::of_log(partition, invite.at, invite.at_ballot, invite.timestamp);
        tracing::warn!(
            node = %self.config.node, core = %self.config.core,
            "{} wants a log of {partition} here, from {} on", peer.node, invite.at.slot
        );
        self.take_in(Seed::invited(invite), state, now.boot);
    }

    /// Whether this core has room for another group, and is there to stay.
    fn may_hold_more(&self) -> bool {
        self.lost_memory.is_none()
            && self.draining_since.is_none()
            && !self.log.is_nearly_full()
            && !self.checkpointer.is_full()
            && !self.members.keeps_too_much
    }

    /// Takes the next step for every group that is led here and not whole, and looks after log replicas.
    pub(super) fn heal(&mut self, now: Now, out: &mut Effects) {
        if now.boot < self.members.next_at || self.config.nodes.len() == 1 {
            return;
        }
        self.members.next_at = now.boot.after(HEAL_TICK);
        let awake: Vec<PartitionId> = self.heartbeats.awake().collect();
        self.weigh_log_replicas(&awake);
        let groups = &self.groups;
        let leads =
            |partition: &PartitionId| groups.get(partition).is_some_and(|group| group.replica.is_leader());
        self.members.by_group.retain(|partition, _| leads(partition));
        for partition in awake {
            if let Some(step) = self.next_step(partition, now.boot) {
                self.take_step(partition, step, now, out);
            }
        }
    }

    /// Sees how much log replicas keep, and that none keeps what it needs no more.
    fn weigh_log_replicas(&mut self, awake: &[PartitionId]) {
        let kept = awake.iter().filter_map(|partition| self.groups.get(partition)).map(Group::kept_bytes);
        let too_much = kept.sum::<usize>() as u64 > self.log.capacity() / LOG_REPLICAS_PART;
        self.members.keeps_too_much = too_much;
        for partition in awake {
            let is_coming = !too_much && self.is_receiving(*partition);
            if let Some(group) = self.groups.get_mut(partition).filter(|group| group.expects_items())
                && !is_coming
                && (too_much || group.staged.is_none())
            {
                group.expect(None);
            }
        }
    }

    /// What to do next about the members of a group, if it is led here and something is to be done.
    fn next_step(&mut self, partition: PartitionId, now: Boot) -> Option<Step> {
        let group = self.groups.get(&partition)?;
        let replica = &group.replica;
        if !replica.may_change_members(now) || self.draining_since.is_some() {
            return None;
        }
        let members = replica.memberships().latest();
        let health = replica.health(now, |node| self.heartbeats.renewed_at(group, node));
        let is_prospect = |health: &Health| members.member(health.member.node).is_none();
        let (prospects, mut others): (Vec<Health>, Vec<Health>) = health.into_iter().partition(is_prospect);
        for Health { member, silent_for, .. } in &mut others {
            // Who was lost before this core led is not waited for once more.
            let unlinked = self.members.unlinked.get(&(member.node, member.core));
            *silent_for = (*silent_for).max(unlinked.map_or(Duration::ZERO, |at| now.since(*at)));
        }
        let is_whole = replica.config().is_whole() && members.members.len() == REPLICAS;
        if is_whole && prospects.is_empty() && !others.iter().any(|health| Situation::is_lost(&health)) {
            self.members.by_group.remove(&partition);
            return None;
        }
        let fresh = || Healing { epoch: members.epoch, since: now, tried: Vec::new(), former_at: now };
        let healing = self.members.by_group.entry(partition).or_insert_with(fresh);
        if healing.epoch != members.epoch {
            (healing.epoch, healing.since) = (members.epoch, now);
        }
        let situation = Situation {
            members,
            others: &others,
            prospect: prospects.first().copied(),
            unchanged_for: now.since(healing.since),
            former_is_due: members.former.is_some() && now >= healing.former_at,
        };
        let nodes = &self.config.nodes;
        Some(match situation.next_step() {
            Need::Nothing => return None,
            Need::Learner => {
                let all = candidates(nodes, members, &others, self.config.node, partition);
                let outbid_by = replica.outbid_by();
                let in_vain = |node| healing.tried.contains(&node) || outbid_by == Some(node);
                let untried = all.into_iter().find(|member| !in_vain(member.node));
                let outbid = outbid_by.is_some() && !planted::active(Planted::NeverOutbid);
                // All over again, if nobody is left.
                untried.map_or(if outbid { Step::Outbid } else { Step::Forget }, Step::Court)
            }
            Need::Former => {
                healing.former_at = now.after(COURT_FORMER_EVERY);
                Step::Court(former_of(nodes, members)?)
            }
            Need::NoLearner => Step::Dismiss(situation.prospect?.member.node),
            Need::Member => {
                let Health { member, stores, .. } = situation.prospect?;
                Step::Become(members.with(member, !stores))
            }
            Need::Without(node) => Step::Become(members.without(node)),
            Need::Completed(node) => Step::Become(members.completed(node)),
            Need::Items(node) => Step::Copy(node),
        })
    }

    fn take_step(&mut self, partition: PartitionId, step: Step, now: Now, out: &mut Effects) {
        match step {
            Step::Court(member) => {
                self.with_replica(partition, |replica| replica.court(now.boot, member));
                self.touched.insert(partition);
            }
            Step::Dismiss(node) => {
                self.with_replica(partition, Replica::dismiss);
                self.members.by_group.entry(partition).and_modify(|healing| healing.tried.push(node));
            }
            Step::Forget => {
                self.members.by_group.entry(partition).and_modify(|healing| healing.tried.clear());
            }
            Step::Outbid => {
                let mut outputs = std::mem::take(&mut self.outputs);
                self.with_replica(partition, |replica| replica.outbid(now.boot, &mut outputs));
                self.outputs = outputs;
                self.perform(partition, now, out);
            }
            Step::Copy(node) if self.snapshots.is_sending(partition, node) => {}
            Step::Copy(node) => self.begin_snapshot(partition, node, now.boot),
            Step::Become(members) => {
                let Membership { epoch, members: all, log_replicas, .. } = &members;
                let all: Vec<NodeId> = all.iter().map(|member| member.node).collect();
                tracing::warn!(
                    node = %self.config.node, core = %self.config.core,
                    "members of {partition} from epoch {epoch} on: {all:?}, of them with the log only: \
                     {log_replicas:?}"
                );
                self.propose_members(partition, &members, now, out);
            }
        }
    }

    fn propose_members(&mut self, partition: PartitionId, next: &Membership, now: Now, out: &mut Effects) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.with_replica(partition, |replica| {
            let timestamp = replica.next_timestamp(now.wall_ms);
            replica.propose_members(now.boot, next, timestamp, &mut outputs);
        });
        self.outputs = outputs;
        self.perform(partition, now, out);
    }

    /// Somebody holds a stray replica that knows an epoch: the same members go on in the next one, if this
    /// core leads the group and the present one is no later.
    pub(crate) fn begin_next_epoch(&mut self, now: Now, fence: KnownEpoch, out: &mut Effects) {
        let KnownEpoch { partition, epoch } = fence;
        self.wake(partition);
        let Some(group) = self.groups.get(&partition) else {
            return;
        };
        let members = group.replica.memberships().latest();
        if members.epoch <= epoch && group.replica.prospect().is_none() {
            let next = members.renewed();
            self.propose_members(partition, &next, now, out);
        }
    }

    fn with_replica(&mut self, partition: PartitionId, change: impl FnOnce(&mut Replica)) {
        if let Some(group) = self.groups.get_mut(&partition) {
            change(&mut group.replica);
        }
    }

    /// Replicas of which the catalogue should be asked whether anybody needs them.
    pub(super) fn strays(&self, now: Boot) -> Vec<Stray> {
        let strays = self.heartbeats.awake().filter_map(|partition| self.groups.get(&partition));
        let strays = strays.filter(|group| group.replica.is_stray(now, STRAY_AFTER));
        let stray = |group: &Group| {
            let config = group.replica.config();
            Stray { partition: config.partition, table: config.table, epoch: config.epoch }
        };
        strays.take(CHANGES_REPORTED_MAX).map(stray).collect()
    }

    /// What the catalogue is to be told of groups' members, when it has written down what is `known`.
    pub(super) fn changed_members(&mut self, known: &[KnownEpoch]) -> Vec<GroupConfig> {
        for KnownEpoch { partition, epoch } in known {
            let group = self.groups.get(partition);
            if group.is_none_or(|group| group.replica.epoch() <= *epoch) {
                self.members.unreported.remove(partition);
            }
        }
        let groups = &self.groups;
        self.members.unreported.retain(|partition| groups.contains_key(partition));
        let led = self.members.unreported.iter().filter_map(|partition| groups.get(partition));
        let led = led.filter(|group| {
            let replica = &group.replica;
            replica.is_leader() && replica.memberships().is_committed(replica.commit())
        });
        led.take(CHANGES_REPORTED_MAX).map(|group| group.replica.config().clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::Incarnation;

    /// A group of nodes 1 to 3, led by node 1, in the middle of something.
    struct Group {
        members: Membership,
        others: Vec<Health>,
        prospect: Option<Health>,
        unchanged_for: Duration,
        former_is_due: bool,
    }

    fn member(node: u32) -> Member {
        Member { node: NodeId(node), core: CoreId(0), incarnation: Incarnation([node as u8; 16]) }
    }

    fn well(node: u32) -> Health {
        let (silent_for, needs_snapshot) = (Duration::ZERO, false);
        Health { member: member(node), silent_for, is_close: true, stores: true, needs_snapshot }
    }

    fn silent(node: u32) -> Health {
        Health { silent_for: REPLACE_AFTER, is_close: false, ..well(node) }
    }

    fn log_only(node: u32) -> Health {
        Health { stores: false, ..well(node) }
    }

    impl Group {
        fn of(others: [Health; 2]) -> Self {
            let members = (1..=3).map(member).collect();
            Self {
                members: Membership { epoch: Epoch(1), members, ..Membership::default() },
                others: others.to_vec(),
                prospect: None,
                unchanged_for: Duration::ZERO,
                former_is_due: false,
            }
        }

        /// Node 4 stands in for node 3, with the log only.
        fn with_log_replica(fourth: Health) -> Self {
            let mut group = Self::of([well(2), fourth]);
            group.members = group.members.with(member(4), true).without(NodeId(3));
            group
        }

        fn need(&self) -> Need {
            let Self { members, others, prospect, unchanged_for, former_is_due } = self;
            let (prospect, unchanged_for, former_is_due) = (*prospect, *unchanged_for, *former_is_due);
            Situation { members, others, prospect, unchanged_for, former_is_due }.next_step()
        }
    }

    #[test]
    fn a_silent_member_is_replaced_by_whoever_takes_the_log() {
        assert_eq!(Group::of([well(2), well(3)]).need(), Need::Nothing);
        let mut group = Group::of([well(2), silent(3)]);
        assert_eq!(group.need(), Need::Learner);
        group.prospect = Some(Health { is_close: false, ..log_only(4) });
        assert_eq!(group.need(), Need::Nothing, "it is on its way");
        group.prospect = Some(Health { silent_for: COURT_PATIENCE, is_close: false, ..log_only(4) });
        assert_eq!(group.need(), Need::NoLearner);
        group.prospect = Some(Health { is_close: false, needs_snapshot: true, ..well(4) });
        assert_eq!(group.need(), Need::NoLearner, "another one is faster");
        group.prospect = Some(log_only(4));
        assert_eq!(group.need(), Need::Member);
        group.others[1] = well(3);
        assert_eq!(group.need(), Need::NoLearner, "the silent one is back");
    }

    #[test]
    fn of_four_members_the_silent_one_goes_and_else_who_has_the_log_only() {
        let mut group = Group::of([well(2), silent(3)]);
        group.members = group.members.with(member(4), true);
        group.others.push(log_only(4));
        assert_eq!(group.need(), Need::Without(NodeId(3)));
        group.others[1] = well(3);
        assert_eq!(group.need(), Need::Without(NodeId(4)), "it came back in time");
        group.others[1] = Health { silent_for: Duration::ZERO, ..silent(3) };
        assert_eq!(group.need(), Need::Nothing, "the leader is new and has not heard it");
        group.unchanged_for = REPLACE_AFTER;
        assert_eq!(group.need(), Need::Without(NodeId(4)), "it was heard, and is slow");
    }

    #[test]
    fn nobody_is_done_without_while_the_leader_alone_is_close_with_the_items() {
        let behind = Health { is_close: false, ..well(2) };
        assert_eq!(Group::of([behind, silent(3)]).need(), Need::Nothing);
        let mut group = Group::with_log_replica(log_only(4));
        group.others[0] = silent(2);
        assert_eq!(group.need(), Need::Nothing, "a log replica cannot lead");
    }

    #[test]
    fn a_log_replica_gets_the_items_unless_the_former_member_is_back_before() {
        let mut group = Group::with_log_replica(log_only(4));
        assert_eq!(group.need(), Need::Nothing);
        group.former_is_due = true;
        assert_eq!(group.need(), Need::Former);
        group.prospect = Some(well(3));
        assert_eq!(group.need(), Need::Member, "it has the items");
        group.prospect = Some(log_only(3));
        assert_eq!(group.need(), Need::NoLearner, "its items are gone");
        group.prospect = None;
        group.unchanged_for = COPY_ITEMS_AFTER;
        assert_eq!(group.need(), Need::Items(NodeId(4)));
        group.others[1] = well(4);
        assert_eq!(group.need(), Need::Completed(NodeId(4)));
    }

    #[test]
    fn who_is_courted_stands_in_a_zone_of_its_own_and_the_former_member_comes_first() {
        let node = |(number, zone): (u32, &str)| {
            let cores = vec![std::net::SocketAddr::from(([127, 0, 0, 1], 7000 + number as u16)); 2];
            (
                NodeId(number),
                NodeInfo { zone: zone.to_owned(), incarnation: member(number).incarnation, cores },
            )
        };
        let zones = [(1, "a"), (2, "b"), (3, "c"), (4, "c"), (5, "c"), (6, "a")];
        let nodes: BTreeMap<NodeId, NodeInfo> = zones.into_iter().map(node).collect();
        let chosen = |group: &Group| {
            let all = candidates(&nodes, &group.members, &group.others, NodeId(1), PartitionId(7));
            all.into_iter().map(|member| member.node.0).collect::<Vec<u32>>()
        };
        let mut nodes_of_c = chosen(&Group::of([well(2), silent(3)]));
        nodes_of_c.sort_unstable();
        assert_eq!(nodes_of_c, [4, 5]);
        let mut group = Group::with_log_replica(silent(4));
        assert_eq!(chosen(&group), [3, 5], "the former member, on the core that it was on");
        group.members.former = Some(Member { incarnation: Incarnation([9; 16]), ..member(3) });
        assert_eq!(chosen(&group).len(), 2, "an emptied folder is another member");
    }
}
