//! Leases between cores, and groups at rest.
//!
//! One heartbeat to each peer core renews the leases of every group that this core leads and the peer is a
//! member of; [`roll`](super::roll) tells what it says. A group is *awake* while anything may happen to it:
//! then each tick looks at it, and each heartbeat and answer of a peer reaches its replica at once. When only
//! the renewal of its leases is left ([`Replica::is_at_rest`](crate::paxos::Replica::is_at_rest)), and the
//! peers know all that there is to say of it, it is laid to *rest*: then nothing is done for it, and what it
//! would have been told is known from the rolls. Whoever needs it wakes it, which tells its replica so. It is
//! woken, too, when a peer says something new of it, and when a peer that it counts on has fallen silent.

use super::roll::{Answered, Copied, Roll};
use super::serving::Serving;
use crate::group::Group;
use crate::limits::{HEARTBEAT_INTERVAL, HURRY_AFTER};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{Ballot, CoreId, NodeId, PartitionId, RequestId};
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Now};
use std::collections::{BTreeMap, BTreeSet};

/// The rolls that this core keeps, and the groups that are not at rest.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    next_at: Boot,
    sent_at: Boot,
    id: u64,
    rolls: BTreeMap<(NodeId, CoreId), Roll>,
    copies: BTreeMap<(NodeId, CoreId), Copied>,
    awake: BTreeSet<PartitionId>,
}

impl Heartbeats {
    /// `id` tells this process's rolls from those of an earlier one. All of `groups` are awake.
    pub(super) fn new(now: Boot, id: u64, groups: impl Iterator<Item = PartitionId>) -> Self {
        let (rolls, copies) = (BTreeMap::new(), BTreeMap::new());
        Self { next_at: now, sent_at: Boot(0), id, rolls, copies, awake: groups.collect() }
    }

    /// Sends the next heartbeats in this turn, unless the last were just sent: a new leader wants its lease.
    pub(super) fn hurry(&mut self) {
        self.next_at = self.next_at.min(self.sent_at.after(HURRY_AFTER));
    }

    /// When heartbeats go out earlier than they usually do.
    pub(super) fn hurries_at(&self) -> Boot {
        let hurries = self.next_at < self.sent_at.after(HEARTBEAT_INTERVAL);
        if hurries { self.next_at } else { Boot::NEVER }
    }

    /// Groups that are not at rest, and some that are no longer here.
    pub(super) fn awake(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.awake.iter().copied()
    }

    /// Whoever uses a group wakes it first: its replica is told what the rolls have known for it.
    pub(crate) fn wake(&mut self, group: &mut Group) {
        let Some(since) = group.resting_since.take() else {
            return;
        };
        let partition = group.replica.partition();
        self.awake.insert(partition);
        let (ballot, leader) = (group.replica.promised(), group.replica.leader());
        let leads = group.replica.is_leader();
        let mut news = Vec::new();
        let others: Vec<_> = group.replica.others().map(|member| (member.node, member.core)).collect();
        for peer in others {
            if leads {
                let grant = self.rolls.get(&peer).and_then(|roll| roll.grant_of(partition, ballot));
                if let Some(grant) = grant {
                    group.replica.on_grant(grant.answered_at, peer.0, ballot, grant.sent_at);
                }
            } else if leader == Some(peer.0)
                && let Some(copy) = self.copies.get(&peer)
                && let Some((heard_at, said)) = copy.granted(partition, ballot)
                && heard_at > since
            {
                let granted = group.replica.on_heartbeat(heard_at, peer.0, said, &mut news);
                assert!(granted.is_ok() && news.is_empty(), "what is said of a group at rest is no news");
            }
        }
    }

    /// From when the grant of a member counts that its answers have renewed without the group's replica.
    pub(super) fn renewed_at(&self, group: &Group, node: NodeId) -> Option<Boot> {
        let replica = &group.replica;
        let member = replica.others().find(|member| member.node == node)?;
        let roll = self.rolls.get(&(node, member.core))?;
        Some(roll.grant_of(replica.partition(), replica.promised())?.sent_at)
    }

    /// Whether the peers know all that there is to say of a group, and it of them, so that it can rest.
    fn covers(&self, group: &Group, now: Boot) -> bool {
        let replica = &group.replica;
        let mut others = replica.others();
        if let Some(said) = replica.heartbeat(now) {
            return others.all(|member| {
                let roll = self.rolls.get(&(member.node, member.core));
                roll.is_some_and(|roll| roll.is_settled(now, &said))
            });
        }
        let leader = others.find(|member| replica.leader() == Some(member.node));
        let copy = leader.and_then(|member| self.copies.get(&(member.node, member.core)));
        copy.is_some_and(|copy| {
            let said = copy.granted(replica.partition(), replica.promised());
            !copy.is_silent(now)
                && said.is_some_and(|(_, said)| said.holds_lease && said.commit <= replica.commit())
        })
    }

    /// Lays a group to rest. Until it is woken, heartbeats of its leader alone are granted to it.
    fn rest(&mut self, group: &mut Group, now: Boot) {
        let replica = &group.replica;
        let (partition, promised) = (replica.partition(), replica.promised());
        for ((node, _), copy) in &mut self.copies {
            if replica.is_leader() || replica.leader() != Some(*node) {
                copy.settle(partition, Err(promised));
            }
        }
        if !replica.is_leader() {
            self.leave_rolls(partition);
        }
        group.resting_since = Some(now);
        self.awake.remove(&partition);
    }

    /// This core does not hold the group any more.
    pub(super) fn forget(&mut self, partition: PartitionId) {
        self.leave_rolls(partition);
        for copy in self.copies.values_mut() {
            copy.settle(partition, Err(Ballot::ZERO));
        }
        self.awake.remove(&partition);
    }

    /// A group is new here.
    pub(super) fn add(&mut self, partition: PartitionId) {
        self.awake.insert(partition);
    }

    pub(super) fn leave_rolls(&mut self, partition: PartitionId) {
        self.rolls.values_mut().for_each(|roll| roll.leave(partition));
    }

    /// Groups that count on peers that have just fallen silent.
    fn unheard(&mut self, now: Boot) -> Vec<PartitionId> {
        let mut unheard = Vec::new();
        for roll in self.rolls.values_mut().filter_map(|roll| roll.falls_silent(now).then_some(roll)) {
            unheard.extend(roll.partitions());
        }
        for copy in self.copies.values_mut().filter_map(|copy| copy.falls_silent(now).then_some(copy)) {
            unheard.extend(copy.partitions());
        }
        unheard
    }
}

impl Serving {
    /// Wakes a group, if this core holds it.
    pub(super) fn wake(&mut self, partition: PartitionId) {
        if let Some(group) = self.groups.get_mut(&partition) {
            self.heartbeats.wake(group);
        }
    }

    /// Wakes every group.
    pub(super) fn wake_all(&mut self) {
        for group in self.groups.values_mut() {
            self.heartbeats.wake(group);
        }
    }

    /// Wakes groups that a silent peer no longer covers.
    pub(super) fn wake_unheard(&mut self, now: Boot) {
        for partition in self.heartbeats.unheard(now) {
            self.wake(partition);
        }
    }

    /// Whether a group, at rest or not, may serve writes and strong reads now.
    #[must_use]
    pub fn may_serve(&self, group: &Group, now: Boot) -> bool {
        group.is_ready_with(now, |node| self.heartbeats.renewed_at(group, node))
    }

    /// Lays groups to rest for which there is nothing to do.
    pub(super) fn lay_to_rest(&mut self, now: Boot) {
        let awake: Vec<PartitionId> = self.heartbeats.awake().collect();
        for partition in awake {
            let Some(group) = self.groups.get_mut(&partition) else {
                self.heartbeats.forget(partition);
                continue;
            };
            let published = !group.replica.is_leader() || self.publisher.knows(group);
            if published && group.is_at_rest(now) && self.heartbeats.covers(group, now) {
                self.heartbeats.rest(group, now);
            }
        }
    }

    pub(super) fn heartbeat(&mut self, now: Boot, out: &mut Effects) {
        if now < self.heartbeats.next_at {
            return;
        }
        // Of a group at rest the roll says that it holds its lease: it does while its peers are heard.
        self.wake_unheard(now);
        let Self { heartbeats, groups, config, .. } = self;
        (heartbeats.sent_at, heartbeats.next_at) = (now, now.after(HEARTBEAT_INTERVAL));
        let awake: Vec<PartitionId> = heartbeats.awake().collect();
        for partition in awake {
            let Some(group) = groups.get(&partition) else {
                continue;
            };
            let Some(said) = group.replica.heartbeat(now) else {
                heartbeats.leave_rolls(partition);
                continue;
            };
            for member in group.replica.others() {
                let roll = heartbeats.rolls.entry((member.node, member.core));
                roll.or_insert_with(|| Roll::new(heartbeats.id)).say(said);
            }
        }
        for ((node, core), roll) in &mut heartbeats.rolls {
            if !roll.is_empty()
                && let Some(address) = config.address(*node, *core)
            {
                out.ask(Endpoint::Outgoing(address), RequestId(0), &roll.heartbeat(now));
            }
        }
    }

    pub(super) fn on_heartbeat(
        &mut self,
        now: Now,
        from: Endpoint,
        peer: Peer,
        header: Header,
        heartbeat: &Heartbeat,
        out: &mut Effects,
    ) {
        let place = (peer.node, peer.core);
        let answer_header = Header::new(Kind::HeartbeatAnswer, header.request);
        if self.config.address(peer.node, peer.core).is_none() {
            return;
        }
        let copy = self.heartbeats.copies.entry(place).or_insert_with(|| Copied::new(peer.incarnation));
        if !copy.fits(peer.incarnation, heartbeat) {
            let lacking = HeartbeatAnswer { sent_at: heartbeat.sent_at, version: 0, exceptions: Vec::new() };
            return out.send(from, answer_header, &lacking);
        }
        let news: BTreeSet<PartitionId> = copy.news(heartbeat).collect();
        for partition in &news {
            self.wake(*partition);
        }
        let copy = self.heartbeats.copies.get_mut(&place).expect("it was just found");
        copy.take(now.boot, peer.incarnation, heartbeat);
        let concerned: Vec<PartitionId> = self.heartbeats.awake.union(&news).copied().collect();
        for partition in concerned {
            let Some(said) = self.heartbeats.copies[&place].line(partition).copied() else {
                continue;
            };
            let of_group = header.to_partition(partition, said.epoch);
            let granted = if self.speaks_for(peer, of_group) {
                let group = self.groups.get_mut(&partition).expect("it speaks for a group we hold");
                let granted = group.replica.on_heartbeat(now.boot, peer.node, &said, &mut self.outputs);
                self.perform(partition, now, out);
                granted
            } else {
                Err(Ballot::ZERO)
            };
            let copy = self.heartbeats.copies.get_mut(&place).expect("it was just found");
            copy.settle(partition, granted);
        }
        out.send(from, answer_header, &self.heartbeats.copies[&place].answer(heartbeat));
    }

    pub(super) fn on_heartbeat_answer(
        &mut self,
        now: Now,
        peer: Peer,
        answer: &HeartbeatAnswer,
        out: &mut Effects,
    ) {
        let place = (peer.node, peer.core);
        let Some(roll) = self.heartbeats.rolls.get_mut(&place) else {
            return;
        };
        match roll.answered(now.boot, answer) {
            Answered::Unknown => {}
            Answered::Behind => {
                let counting: Vec<PartitionId> = roll.partitions().collect();
                for partition in counting {
                    self.wake(partition);
                }
                if let Some(roll) = self.heartbeats.rolls.get_mut(&place) {
                    roll.forget_grant();
                }
                self.heartbeats.hurry();
            }
            Answered::Granted => self.take_grants(now, peer, answer, out),
        }
    }

    fn take_grants(&mut self, now: Now, peer: Peer, answer: &HeartbeatAnswer, out: &mut Effects) {
        let place = (peer.node, peer.core);
        let awake: Vec<PartitionId> = self.heartbeats.awake().collect();
        for partition in awake {
            let Some(group) = self.groups.get_mut(&partition).filter(|group| group.replica.is_leader())
            else {
                continue;
            };
            let ballot = group.replica.promised();
            if let Some(grant) = self.heartbeats.rolls[&place].grant_of(partition, ballot) {
                group.replica.on_grant(now.boot, peer.node, ballot, grant.sent_at);
                self.perform(partition, now, out);
            }
        }
        for exception in &answer.exceptions {
            self.wake(exception.partition);
            if let Some(group) = self.groups.get_mut(&exception.partition) {
                let promised = exception.promised;
                group.replica.on_lease_refused(now.boot, peer.node, promised, &mut self.outputs);
                self.perform(exception.partition, now, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::version::Version;
    use crate::limits::{LEASE_TERM, PEER_SILENT_AFTER};
    use crate::partition::state::State;
    use crate::paxos::log::GroupLog;
    use crate::paxos::{Message, Output, Seed};
    use evenkeel_wire::ids::{Epoch, Incarnation, Slot, TableId};
    use evenkeel_wire::message::peer::{HeartbeatGroup, LogPoint, Suspect, SuspectAnswer};
    use evenkeel_wire::prng::Prng;
    use evenkeel_wire::table::{GroupConfig, Member};

    const PARTITION: PartitionId = PartitionId(1);
    const OLD: Ballot = Ballot { round: 1, node: NodeId(1) };
    const NEW: Ballot = Ballot { round: 2, node: NodeId(2) };
    const FOLDER: Incarnation = Incarnation([0; 16]);

    /// A member that follows the leader of `NEW`, and the rolls of both leaders as its core has them.
    struct Follower {
        now: Boot,
        group: Group,
        heartbeats: Heartbeats,
        version: u64,
    }

    impl Follower {
        fn new() -> Self {
            let member = |number| Member { node: NodeId(number), core: CoreId(0), incarnation: FOLDER };
            let config = GroupConfig::whole(PARTITION, TableId(1), (1..=3).map(member).collect());
            let log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
            let (promised, commit) = (Ballot::ZERO, Slot::ZERO);
            let seed = Seed { config, promised, log, commit, timestamp: 0, refilling: false, stores: true };
            let now = Boot(1_000_000_000);
            let state = State::of(PARTITION, Version::default());
            let mut group = Group::new(seed, state, NodeId(3), now, Prng::new(1));
            let mut out = Vec::new();
            assert!(group.replica.accept_leader(now, NodeId(1), OLD, &mut out));
            assert!(group.replica.accept_leader(now, NodeId(2), NEW, &mut out));
            group.replica.persisted(now, &mut out);
            group.replica.persisted(now, &mut out);
            let heartbeats = Heartbeats::new(now, 1, [PARTITION].into_iter());
            let mut follower = Self { now, group, heartbeats, version: 0 };
            follower.hear(OLD, true);
            follower.hear(NEW, true);
            follower
        }

        /// The leader of `ballot` is heard, with news of the group or without.
        fn hear(&mut self, ballot: Ballot, news: bool) -> HeartbeatAnswer {
            let said = HeartbeatGroup {
                partition: PARTITION,
                epoch: Epoch(1),
                ballot,
                commit: Slot::ZERO,
                holds_lease: true,
            };
            let (since, changes) = if news { (0, vec![said]) } else { (self.version, vec![]) };
            self.version = 1;
            let heartbeat = Heartbeat { sent_at: self.now.0, roll: 1, since, version: 1, changes };
            let copies = &mut self.heartbeats.copies;
            let copy = copies.entry((ballot.node, CoreId(0))).or_insert_with(|| Copied::new(FOLDER));
            assert!(copy.fits(FOLDER, &heartbeat));
            copy.take(self.now, FOLDER, &heartbeat);
            if self.group.resting_since.is_none() {
                let granted = self.group.replica.on_heartbeat(self.now, ballot.node, &said, &mut Vec::new());
                copy.settle(PARTITION, granted);
            }
            copy.answer(&heartbeat)
        }

        fn rests(&mut self) -> bool {
            let may = self.group.is_at_rest(self.now) && self.heartbeats.covers(&self.group, self.now);
            if may {
                self.heartbeats.rest(&mut self.group, self.now);
            }
            may
        }

        fn calls_its_leader_healthy(&mut self) -> bool {
            self.heartbeats.wake(&mut self.group);
            let (mut out, suspect) = (Vec::new(), Message::Suspect(Suspect { promised: NEW }));
            self.group.replica.receive(self.now, NodeId(1), suspect, &mut out);
            let healthy = Message::SuspectAnswer(SuspectAnswer { healthy: true });
            out == [Output::Send { to: NodeId(1), message: healthy }]
        }
    }

    #[test]
    fn a_group_at_rest_grants_to_its_leader_and_not_to_an_older_one() {
        let mut follower = Follower::new();
        // As if the older leader had not been heard since the promise.
        let old = follower.heartbeats.copies.get_mut(&(NodeId(1), CoreId(0))).unwrap();
        old.settle(PARTITION, Ok(()));
        assert!(follower.rests());
        assert_eq!(follower.heartbeats.awake().count(), 0);
        assert_eq!(follower.hear(OLD, false).exceptions[0].promised, NEW);
        assert_eq!(follower.hear(NEW, false).exceptions, []);
    }

    #[test]
    fn a_group_that_is_woken_knows_when_its_leader_was_last_heard() {
        let mut follower = Follower::new();
        assert!(follower.rests());
        follower.now = follower.now.after(LEASE_TERM * 3);
        follower.hear(NEW, false);
        follower.now = follower.now.after(LEASE_TERM / 2);
        assert!(follower.calls_its_leader_healthy());
        assert_eq!(follower.heartbeats.awake().count(), 1);
        follower.now = follower.now.after(LEASE_TERM / 2);
        assert!(!follower.calls_its_leader_healthy(), "one term after its last word");
    }

    #[test]
    fn nobody_rests_on_a_leader_that_is_silent() {
        let mut follower = Follower::new();
        assert!(follower.rests());
        follower.now = follower.now.after(PEER_SILENT_AFTER);
        let unheard = follower.heartbeats.unheard(follower.now);
        assert!(unheard.contains(&PARTITION));
        follower.heartbeats.wake(&mut follower.group);
        assert!(!follower.rests());
        follower.hear(NEW, false);
        assert!(follower.rests());
    }

    #[test]
    fn a_group_that_is_removed_grants_nothing() {
        let mut follower = Follower::new();
        assert!(follower.rests());
        follower.heartbeats.forget(PARTITION);
        assert_eq!(follower.hear(NEW, false).exceptions[0].promised, Ballot::ZERO);
    }
}
