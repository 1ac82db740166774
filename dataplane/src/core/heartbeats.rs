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
use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, NodeId, PartitionId, RequestId};
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer, HeartbeatGroup};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};

/// The groups of a core.
type Groups = BTreeMap<PartitionId, Group>;

/// The rolls that this core keeps, and the groups that are not at rest.
#[derive(Clone, Debug)]
pub struct Heartbeats {
    next_at: Boot,
    sent_at: Boot,
    id: u64,
    rolls: BTreeMap<(NodeId, CoreId), Roll>,
    copies: BTreeMap<(NodeId, CoreId), Copied>,
    awake: BTreeSet<PartitionId>,
}

impl Heartbeats {
    /// `id` tells this process's rolls from those of an earlier one. All of `groups` are awake.
    #[must_use]
    pub fn new(now: Boot, id: u64, groups: impl Iterator<Item = PartitionId>) -> Self {
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
    pub fn awake(&self) -> impl Iterator<Item = PartitionId> + '_ {
        self.awake.iter().copied()
    }

    /// Whoever uses a group wakes it first: its replica is told what the rolls have known for it.
    pub fn wake(&mut self, group: &mut Group) {
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

    /// Whether a group, at rest or not, may serve writes and strong reads now.
    #[must_use]
    pub fn may_serve(&self, group: &Group, now: Boot) -> bool {
        group.is_ready_with(now, |node| self.renewed_at(group, node))
    }

    /// From when the grant of a member counts that its answers have renewed without the group's replica.
    pub(super) fn renewed_at(&self, group: &Group, node: NodeId) -> Option<Boot> {
        let member = group.replica.others().find(|member| member.node == node)?;
        self.granted_at((node, member.core), group)
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

    /// Lays a group to rest for which there is nothing to do.
    pub fn lay_to_rest(&mut self, group: &mut Group, now: Boot) {
        if group.is_at_rest(now) && self.covers(group, now) {
            self.rest(group, now);
        }
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

    /// Wakes groups that a silent peer no longer covers.
    pub fn wake_unheard(&mut self, now: Boot, groups: &mut Groups) {
        for partition in self.unheard(now) {
            self.wake_one(partition, groups);
        }
    }

    fn wake_one(&mut self, partition: PartitionId, groups: &mut Groups) {
        if let Some(group) = groups.get_mut(&partition) {
            self.wake(group);
        }
    }

    /// What there is to say to the peers: heartbeats to those for whom there is a roll. It must be due.
    pub fn next(&mut self, now: Boot, groups: &mut Groups) -> Vec<((NodeId, CoreId), Heartbeat)> {
        // Of a group at rest the roll says that it holds its lease: it does while its peers are heard.
        self.wake_unheard(now, groups);
        (self.sent_at, self.next_at) = (now, now.after(HEARTBEAT_INTERVAL));
        let awake: Vec<PartitionId> = self.awake().collect();
        for partition in awake {
            let Some(group) = groups.get(&partition) else {
                continue;
            };
            let Some(said) = group.replica.heartbeat(now) else {
                self.leave_rolls(partition);
                continue;
            };
            for member in group.replica.others() {
                let roll = self.rolls.entry((member.node, member.core));
                roll.or_insert_with(|| Roll::new(self.id)).say(said);
            }
        }
        let told = self.rolls.iter_mut().filter(|(_, roll)| !roll.is_empty());
        told.map(|(place, roll)| (*place, roll.heartbeat(now))).collect()
    }

    /// Whether the next heartbeats are due.
    #[must_use]
    pub fn is_due(&self, now: Boot) -> bool {
        now >= self.next_at
    }

    /// Takes a peer's heartbeat. Returns what it says of groups that must hear of it, awake by then, or none
    /// if the peer must begin anew. What each of them says to it, [`settle`](Self::settle) is told.
    pub fn take(
        &mut self,
        now: Boot,
        place: (NodeId, CoreId),
        incarnation: Incarnation,
        heartbeat: &Heartbeat,
        groups: &mut Groups,
    ) -> Option<Vec<HeartbeatGroup>> {
        let copy = self.copies.entry(place).or_insert_with(|| Copied::new(incarnation));
        if !copy.fits(incarnation, heartbeat) {
            return None;
        }
        let news: BTreeSet<PartitionId> = copy.news(heartbeat).collect();
        for partition in &news {
            self.wake_one(*partition, groups);
        }
        let copy = self.copies.get_mut(&place).expect("it was just found");
        copy.take(now, incarnation, heartbeat);
        Some(self.awake.union(&news).filter_map(|partition| copy.line(*partition).copied()).collect())
    }

    /// Whether a lease is granted to a group of a peer's roll, or what is promised instead.
    pub fn settle(&mut self, place: (NodeId, CoreId), partition: PartitionId, granted: Result<(), Ballot>) {
        let copy = self.copies.get_mut(&place).expect("its heartbeat was taken");
        copy.settle(partition, granted);
    }

    /// The answer to a peer's heartbeat: that of its copy, or that nothing is held.
    #[must_use]
    pub fn answer(&self, place: (NodeId, CoreId), heartbeat: &Heartbeat, taken: bool) -> HeartbeatAnswer {
        if taken {
            return self.copies[&place].answer(heartbeat);
        }
        HeartbeatAnswer { sent_at: heartbeat.sent_at, version: 0, exceptions: Vec::new() }
    }

    /// Takes a peer's answer. Returns the groups that were awake and are led here, if it grants anything:
    /// those are told what [`granted_at`](Self::granted_at) says, and the exceptions are woken and told.
    pub fn answered(
        &mut self,
        now: Boot,
        place: (NodeId, CoreId),
        answer: &HeartbeatAnswer,
        groups: &mut Groups,
    ) -> Option<Vec<PartitionId>> {
        let roll = self.rolls.get_mut(&place)?;
        match roll.answered(now, answer) {
            Answered::Unknown => None,
            Answered::Behind => {
                let counting: Vec<PartitionId> = roll.partitions().collect();
                for partition in counting {
                    self.wake_one(partition, groups);
                }
                if let Some(roll) = self.rolls.get_mut(&place) {
                    roll.forget_grant();
                }
                self.hurry();
                None
            }
            Answered::Granted => {
                let leads = |partition: &PartitionId| {
                    groups.get(partition).is_some_and(|group| group.replica.is_leader())
                };
                Some(self.awake.iter().copied().filter(leads).collect())
            }
        }
    }

    /// From when the grant counts that the last answer of a peer gave to a group, if it did.
    #[must_use]
    pub fn granted_at(&self, place: (NodeId, CoreId), group: &Group) -> Option<Boot> {
        let replica = &group.replica;
        Some(self.rolls.get(&place)?.grant_of(replica.partition(), replica.promised())?.sent_at)
    }

    /// Feeds `hasher` with what decides what the rolls do from now on. No answer comes any more to what was
    /// sent before `answered_since`.
    pub fn digest(&self, now: Boot, answered_since: Boot, hasher: &mut impl Hasher) {
        let Self { next_at, sent_at, id, rolls, copies, awake } = self;
        let hurries_in = sent_at.after(HURRY_AFTER).since(now);
        (next_at.since(now), hurries_in, id, awake).hash(hasher);
        for (place, roll) in rolls {
            place.hash(hasher);
            roll.digest(now, answered_since, hasher);
        }
        for (place, copy) in copies {
            place.hash(hasher);
            copy.digest(now, hasher);
        }
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
        self.heartbeats.wake_unheard(now, &mut self.groups);
    }

    /// Whether a group, at rest or not, may serve writes and strong reads now.
    #[must_use]
    pub fn may_serve(&self, group: &Group, now: Boot) -> bool {
        self.heartbeats.may_serve(group, now)
    }

    /// Lays groups to rest for which there is nothing to do.
    pub(super) fn lay_to_rest(&mut self, now: Boot) {
        let awake: Vec<PartitionId> = self.heartbeats.awake().collect();
        for partition in awake {
            let Some(group) = self.groups.get_mut(&partition) else {
                self.heartbeats.forget(partition);
                continue;
            };
            if !group.replica.is_leader() || self.publisher.knows(group) {
                self.heartbeats.lay_to_rest(group, now);
            }
        }
    }

    pub(super) fn heartbeat(&mut self, now: Boot, out: &mut Effects) {
        if !self.heartbeats.is_due(now) {
            return;
        }
        for ((node, core), heartbeat) in self.heartbeats.next(now, &mut self.groups) {
            if let Some(address) = self.config.address(node, core) {
                out.ask(Endpoint::Outgoing(address), RequestId(0), &heartbeat);
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
        if self.config.address(peer.node, peer.core).is_none() {
            return;
        }
        let taken = self.heartbeats.take(now.boot, place, peer.incarnation, heartbeat, &mut self.groups);
        let is_taken = taken.is_some();
        for said in taken.into_iter().flatten() {
            let partition = said.partition;
            let granted = if self.speaks_for(peer, header.to_partition(partition, said.epoch)) {
                let group = self.groups.get_mut(&partition).expect("it speaks for a group we hold");
                let granted = group.replica.on_heartbeat(now.boot, peer.node, &said, &mut self.outputs);
                self.perform(partition, now, out);
                granted
            } else {
                Err(Ballot::ZERO)
            };
            self.heartbeats.settle(place, partition, granted);
        }
        let answer = self.heartbeats.answer(place, heartbeat, is_taken);
        out.send(from, Header::new(Kind::HeartbeatAnswer, header.request), &answer);
    }

    pub(super) fn on_heartbeat_answer(
        &mut self,
        now: Now,
        peer: Peer,
        answer: &HeartbeatAnswer,
        out: &mut Effects,
    ) {
        let place = (peer.node, peer.core);
        let Some(awake) = self.heartbeats.answered(now.boot, place, answer, &mut self.groups) else {
            return;
        };
        for partition in awake {
            let group = self.groups.get_mut(&partition).expect("it is led here");
            if let Some(sent_at) = self.heartbeats.granted_at(place, group) {
                group.replica.on_grant(now.boot, peer.node, group.replica.promised(), sent_at);
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
    use evenkeel_wire::ids::{Epoch, Slot, TableId};
    use evenkeel_wire::message::peer::{LogPoint, Suspect, SuspectAnswer};
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
