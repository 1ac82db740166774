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
    CHANGES_REPORTED_MAX, COPY_ITEMS_AFTER, COURT_FORMER_EVERY, COURT_PATIENCE, HEAL_TICK, REPLACE_AFTER,
    STRAY_AFTER,
};
use crate::partition::state::State;
use crate::paxos::learner::Health;
use crate::paxos::log::GroupLog;
use crate::paxos::{REPLICAS, Replica, Seed};
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, NodeId, PartitionId};
use evenkeel_wire::membership::Membership;
use evenkeel_wire::message::catalog::{KnownEpoch, Stray};
use evenkeel_wire::message::peer::Invite;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::{Boot, Effects, Now};
use std::collections::{BTreeMap, BTreeSet};

/// What the leaders of this core do about members.
#[derive(Debug, Default)]
pub(super) struct Members {
    next_at: Boot,
    by_group: BTreeMap<PartitionId, Healing>,
    /// Cores to which the link broke and that were not heard since, and when it did.
    unlinked: BTreeMap<(NodeId, CoreId), Boot>,
    /// Groups whose members the catalogue may not know.
    unreported: BTreeSet<PartitionId>,
}

/// A group that is not whole.
#[derive(Debug)]
struct Healing {
    /// Since when it is led here and its members are these.
    epoch: Epoch,
    since: Boot,
    /// Whom it courts, and since when.
    courting_since: Boot,
    /// Who was courted in vain.
    tried: Vec<NodeId>,
    /// When the former member may be courted again.
    former_at: Boot,
}

/// What to do next for a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Wait,
    /// Find a node that takes the log.
    Court,
    /// Ask whether the former member is back.
    CourtFormer,
    /// The learner is not needed, or does not come closer.
    Dismiss,
    Add {
        log_only: bool,
    },
    Remove(NodeId),
    /// A log replica has the items.
    Complete(NodeId),
    /// Copy the items to a log replica.
    Copy(NodeId),
}

/// What is known of a group, to decide about its members.
struct Situation<'a> {
    members: &'a Membership,
    /// How the other members do.
    others: &'a [Health],
    prospect: Option<Health>,
    /// How long the learner has been courted, and the membership has been what it is.
    courted_for: std::time::Duration,
    unchanged_for: std::time::Duration,
    former_is_due: bool,
}

impl Members {
    /// Of `groups`, which were here at the start, the catalogue may not know the members.
    pub(super) fn new<'a>(groups: impl Iterator<Item = &'a Group>) -> Self {
        let changed =
            groups.map(|group| group.replica.config()).filter(|config| config.epoch != config.birth);
        Self { unreported: changed.map(|config| config.partition).collect(), ..Self::default() }
    }
}

impl Members {
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

    fn next_step(&self) -> Step {
        let mut lost = self.others.iter().filter(Self::is_lost);
        let lost = lost.find(|health| self.can_do_without(health));
        let log_replica = || {
            let mut others = self.others.iter().filter(|health| !Self::is_lost(health));
            others.find(|health| self.members.log_replicas.contains(&health.member.node))
        };
        if self.members.members.len() > REPLICAS {
            let last = self.others.last();
            return match lost.or_else(log_replica).or(last) {
                Some(member) => Step::Remove(member.member.node),
                None => Step::Wait,
            };
        }
        let lacks = self.members.members.len() < REPLICAS || lost.is_some();
        if let Some(prospect) = &self.prospect {
            let stands_in = log_replica().is_some_and(|log_replica| !log_replica.stores);
            let is_needed = lacks || stands_in && prospect.stores;
            let is_patient = prospect.silent_for.min(self.courted_for) < COURT_PATIENCE;
            return match prospect.is_close {
                true if is_needed => Step::Add { log_only: !prospect.stores },
                false if is_patient && !(lacks && prospect.needs_snapshot) => Step::Wait,
                true | false => Step::Dismiss,
            };
        }
        if lacks {
            return Step::Court;
        }
        match log_replica() {
            Some(log_replica) if log_replica.stores => Step::Complete(log_replica.member.node),
            Some(log_replica) if self.unchanged_for >= COPY_ITEMS_AFTER => {
                Step::Copy(log_replica.member.node)
            }
            Some(_) if self.former_is_due => Step::CourtFormer,
            Some(_) | None => Step::Wait,
        }
    }
}

/// Nodes that could take the log, the best first: in zones where no member is that is heard. The former
/// member needs least; else who it is differs from partition to partition.
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
    let turn = |node: NodeId| {
        let former = members.former.is_some_and(|former| former.node == node);
        (!former, (partition.0 ^ u64::from(node.0)).wrapping_mul(0x9E37_79B9_7F4A_7C15))
    };
    let mut candidates: Vec<Member> = free
        .map(|(node, info)| {
            let core = CoreId((partition.0 % info.cores.len() as u64) as u16);
            let member = Member { node: *node, core, incarnation: info.incarnation };
            members
                .former
                .filter(|former| former.node == *node && former.incarnation == info.incarnation)
                .unwrap_or(member)
        })
        .collect();
    candidates.sort_by_key(|member| turn(member.node));
    candidates
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
        let is_ours =
            self.config.nodes.get(&peer.node).is_some_and(|info| info.incarnation == peer.incarnation);
        let leads = invite.ballot.node == peer.node && invite.config.stores(peer.node);
        let welcome = peer.role == PeerRole::Storage && is_ours && leads;
        let may = invite.member == self.config.member() && self.may_hold_more();
        if !welcome || !may || self.groups.contains_key(&partition) {
            return;
        }
        let state = State::of_log(partition, invite.at, invite.at_ballot, invite.timestamp);
        let seed = Seed {
            config: invite.config.clone(),
            promised: Ballot::ZERO,
            log: GroupLog::new(invite.at, invite.at_ballot),
            commit: invite.at.slot,
            timestamp: invite.timestamp,
            refilling: false,
            stores: false,
        };
        tracing::warn!(
            node = %self.config.node, core = %self.config.core,
            "{} wants a log of {partition} here, from {} on", peer.node, invite.at.slot
        );
        self.take_in(seed, state, now.boot);
    }

    /// Whether this core has room for another group, and is there to stay.
    fn may_hold_more(&self) -> bool {
        self.lost_memory.is_none()
            && self.draining_since.is_none()
            && !self.log.is_nearly_full()
            && !self.checkpointer.is_full()
    }

    /// Takes the next step for every group that is led here and not whole.
    pub(super) fn heal(&mut self, now: Now, out: &mut Effects) {
        if now.boot < self.members.next_at || self.config.nodes.len() == 1 {
            return;
        }
        self.members.next_at = now.boot.after(HEAL_TICK);
        let awake: Vec<PartitionId> = self.heartbeats.awake().collect();
        let groups = &self.groups;
        self.members
            .by_group
            .retain(|partition, _| groups.get(partition).is_some_and(|group| group.replica.is_leader()));
        for partition in awake {
            self.heal_group(partition, now, out);
        }
    }

    fn heal_group(&mut self, partition: PartitionId, now: Now, out: &mut Effects) {
        let Some(group) = self.groups.get(&partition) else {
            return;
        };
        let replica = &group.replica;
        if !replica.may_change_members(now.boot) || self.draining_since.is_some() {
            return;
        }
        let members = replica.memberships().latest();
        let mut health = replica.health(now.boot, |node| self.heartbeats.renewed_at(group, node));
        for health in &mut health {
            // Who was lost before this core led is not waited for once more.
            let Member { node, core, .. } = health.member;
            let unlinked = self.members.unlinked.get(&(node, core)).map(|at| now.boot.since(*at));
            health.silent_for = health.silent_for.max(unlinked.unwrap_or_default());
        }
        let is_prospect = |health: &Health| members.member(health.member.node).is_none();
        let whole = members.members.len() == REPLICAS
            && members.log_replicas.is_empty()
            && !health.iter().any(|health| Situation::is_lost(&health) || is_prospect(health));
        if whole {
            self.members.by_group.remove(&partition);
            return;
        }
        let fresh = Healing {
            epoch: members.epoch,
            since: now.boot,
            courting_since: now.boot,
            tried: Vec::new(),
            former_at: now.boot,
        };
        let healing = self.members.by_group.entry(partition).or_insert(fresh);
        if healing.epoch != members.epoch {
            (healing.epoch, healing.since) = (members.epoch, now.boot);
        }
        let (prospects, others): (Vec<Health>, Vec<Health>) = health.into_iter().partition(is_prospect);
        let situation = Situation {
            members,
            others: &others,
            prospect: prospects.first().copied(),
            courted_for: now.boot.since(healing.courting_since),
            unchanged_for: now.boot.since(healing.since),
            former_is_due: members.former.is_some() && now.boot >= healing.former_at,
        };
        let step = situation.next_step();
        let own = self.config.node;
        let next = match step {
            Step::Wait => return,
            Step::Court | Step::CourtFormer => {
                let all = candidates(&self.config.nodes, members, &others, own, partition);
                let former =
                    |member: &&Member| members.former.is_some_and(|former| former.node == member.node);
                let mut untried = all.iter().filter(|member| !healing.tried.contains(&member.node));
                let chosen = match step {
                    Step::CourtFormer => {
                        healing.former_at = now.boot.after(COURT_FORMER_EVERY);
                        self.former_in(members)
                    }
                    _ => untried.next().copied(),
                };
                let Some(healing) = self.members.by_group.get_mut(&partition) else { return };
                match chosen {
                    Some(member) => {
                        healing.courting_since = now.boot;
                        if former(&&member) {
                            healing.former_at = now.boot.after(COURT_FORMER_EVERY);
                        }
                        self.with_replica(partition, |replica| replica.court(now.boot, member));
                    }
                    // All over again.
                    None => healing.tried.clear(),
                }
                self.touched.insert(partition);
                return;
            }
            Step::Dismiss => {
                healing.tried.extend(prospects.first().map(|health| health.member.node));
                self.with_replica(partition, Replica::dismiss);
                return;
            }
            Step::Add { log_only } => {
                healing.tried.clear();
                prospects.first().map(|prospect| members.with(prospect.member, log_only))
            }
            Step::Remove(node) => Some(members.without(node)),
            Step::Complete(node) => Some(members.completed(node)),
            Step::Copy(node) => {
                if !self.snapshots.is_sending(partition, node) {
                    self.begin_snapshot(partition, node, now.boot);
                }
                return;
            }
        };
        if let Some(next) = next {
            let (core, epoch) = (self.config.core, next.epoch);
            tracing::warn!(node = %own, %core, "{partition}: {step:?}, epoch {epoch}");
            self.propose_members(partition, &next, now, out);
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

    /// The former member, if its node is still the same.
    fn former_in(&self, members: &Membership) -> Option<Member> {
        let former = members.former?;
        let info = self.config.nodes.get(&former.node)?;
        (info.incarnation == former.incarnation).then_some(former)
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
