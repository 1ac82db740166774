//! Multi-Paxos for one replication group: a pure state machine, one [`Replica`] per member.
//!
//! The log is contiguous: acceptors accept in slot order under one ballot, and an entry is never re-stamped,
//! so a later leader repeats an earlier one's bytes. What follows from that, rule by rule:
//!
//! * **Persist before promise.** A promise or an acceptance leaves only after [`Replica::persisted`] has
//!   named the record that holds it. ([`acceptor`])
//! * **Adopt, then lead.** A candidate takes over the log with the greatest (ballot, slot) among its promise
//!   quorum, and counts nothing as committed until a no-op of its own ballot is on a quorum. ([`candidate`])
//! * **Supersede durably.** A conflicting suffix is ended by a record before other entries take its slots. A
//!   conflict at or below the commit position is a bug and panics. ([`acceptor`])
//! * **Leases.** A grant belongs to a ballot and counts from before the leader asked for it. A new leader
//!   waits out the term of any lease that an older one may hold, unless that one gave it up. ([`leader`])
//! * **Ask before electing.** A follower that misses its leader asks its peers; one "healthy" cancels.
//!   ([`follower`])
//! * **No vote with a damaged memory.** A replica whose log lost acknowledged data acknowledges nothing until
//!   it was refilled past an entry that was committed without it. ([`refill`])
//!
//! * **The log before the state.** Who is sent a snapshot asks the others for the log. ([`seek`])
//! * **One change of members at a time.** A membership counts from its entry on, committed or not; the next
//!   one is proposed when it is committed, and quorums are of the latest one in the log. ([`memberships`],
//!   [`learner`])
//!
//! Time is passed in; messages and records are returned. Members are taken in the order of the configuration.

pub mod acceptor;
pub mod candidate;
pub mod digest;
pub mod follower;
pub mod leader;
pub mod learner;
pub mod log;
pub mod memberships;
pub mod refill;
pub mod seek;

use crate::limits::{FORGETFUL_STANDS_AFTER, LEASE_DRIFT, LEASE_TERM};
use crate::partition::state::State;
use crate::planted::{self, Planted};
use crate::wal::record::{GroupState, Record, RecordBody};
use arrayvec::ArrayVec;
use bytes::Bytes;
use candidate::Candidate;
use evenkeel_wire::entry::{Entry, Split};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, NodeId, PartitionId, Slot};
use evenkeel_wire::message::peer::{
    Accepted, Fetch, HandOver, Invite, LogPoint, Prepare, Promise, Refuse, Rejected, Rejoin, RejoinAnswer,
    Suspect, SuspectAnswer,
};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::Boot;
use follower::Follower;
use leader::Leader;
use log::GroupLog;
use memberships::Memberships;
use refill::Refill;
use seek::Seek;
use std::collections::VecDeque;

/// Most that a leader sends the log to: members, and one that is to become a member.
pub const MEMBERS_MAX: usize = evenkeel_wire::membership::MEMBERS_MAX;

pub use evenkeel_wire::membership::REPLICAS;

/// What members say to each other.
#[derive(Clone, Debug, PartialEq)]
pub enum Message {
    /// See [`Prepare`].
    Prepare(Prepare),
    /// See [`Promise`].
    Promise(Promise),
    /// See [`Refuse`].
    Refuse(Refuse),
    /// See [`Fetch`].
    Fetch(Fetch),
    /// See [`evenkeel_wire::message::peer::Fetched`].
    Fetched {
        /// The candidate's ballot.
        ballot: Ballot,
        /// The entry before the first.
        previous: LogPoint,
        /// Entries' bytes.
        entries: Vec<Bytes>,
    },
    /// See [`evenkeel_wire::message::peer::Accept`].
    Accept {
        /// The leader's ballot.
        ballot: Ballot,
        /// The entry before the first.
        previous: LogPoint,
        /// The leader's commit position.
        commit: Slot,
        /// See [`evenkeel_wire::message::peer::Accept::settled`].
        settled: Slot,
        /// Entries' bytes.
        entries: Vec<Bytes>,
    },
    /// See [`Accepted`].
    Accepted(Accepted),
    /// See [`Rejected`].
    Rejected(Rejected),
    /// See [`Suspect`].
    Suspect(Suspect),
    /// See [`SuspectAnswer`].
    SuspectAnswer(SuspectAnswer),
    /// See [`HandOver`].
    HandOver(HandOver),
    /// See [`Invite`].
    Invite(Box<Invite>),
    /// See [`Rejoin`].
    Rejoin(Rejoin),
    /// See [`RejoinAnswer`].
    RejoinAnswer(RejoinAnswer),
}

/// What a replica wants done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Append this to the core's log, and call [`Replica::persisted`] once for each when it is durable.
    Persist(Record),
    /// Send this to a member.
    Send {
        /// Its node.
        to: NodeId,
        /// What to say.
        message: Message,
    },
    /// A follower needs entries that are no longer at hand: send it the partition's state.
    NeedsSnapshot {
        /// Its node.
        to: NodeId,
    },
    /// Other members are in the group from now on.
    MembersChanged,
    /// This replica no longer leads: whoever waits for its proposals must be told that the outcome is
    /// unknown.
    LostLeadership,
}

/// What becomes durable with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Mark {
    Promise(Ballot),
    Entries { through: Slot },
    Other,
}

#[derive(Clone, Debug)]
enum Role {
    Follower(Follower),
    Candidate(Candidate),
    Leader(Leader),
}

/// One member of a replication group.
#[derive(Clone, Debug)]
pub struct Replica {
    /// With the latest membership in the log.
    config: GroupConfig,
    memberships: Memberships,
    /// Up to where every storage replica has the log durably, as far as the leader has said.
    settled: Slot,
    /// Whether this replica has the partition's items.
    stores: bool,
    /// Its core, if that was said: a node that was a member before may become one on another core.
    core: Option<CoreId>,
    /// When a leader was last heard, or this replica was one, or was made.
    heard_at: Boot,
    /// Who spoke last that this replica does not know to be a member: a later entry may have made it one.
    stranger: Option<Member>,
    node: NodeId,
    promised: Ballot,
    promised_durable: Ballot,
    /// What was promised before the promised ballot; after a restart that ballot itself, which only makes a
    /// new leader wait longer.
    previous: Ballot,
    /// The highest ballot that anybody was heard to have promised: the next candidacy goes above it.
    highest_seen: Ballot,
    log: GroupLog,
    /// Up to where this replica's own log is durable.
    durable: Slot,
    commit: Slot,
    /// Timestamp of the last entry, which the next one exceeds.
    timestamp: u64,
    marks: VecDeque<Mark>,
    role: Role,
    /// Under the promised ballot, the log is known to equal its leader's up to here.
    matched: Slot,
    owed: Owed,
    refill: Option<Refill>,
    seek: Option<Seek>,
    /// Not before this does it serve: a leader of the group that was split may hold a lease until then.
    not_before: Boot,
    prng: Prng,
}

/// Answers that wait for durability.
#[derive(Clone, Copy, Debug, Default, Hash)]
struct Owed {
    /// To whom a promise is owed, and in which of its lives.
    promise: Option<(NodeId, u64)>,
    /// Whether the leader is owed a word on how far the log is.
    accepted: bool,
}

/// What a replica starts from: what its core's recovery found, or a new group.
#[derive(Clone, Debug)]
pub struct Seed {
    /// Who and what the group is, with the members that it has where the log begins, or somewhere behind that
    /// but not behind what is committed.
    pub config: GroupConfig,
    /// The durable promise.
    pub promised: Ballot,
    /// The durable log.
    pub log: GroupLog,
    /// Up to where it is known to be committed.
    pub commit: Slot,
    /// The last entry's timestamp.
    pub timestamp: u64,
    /// The log was damaged: do not vote.
    pub refilling: bool,
    /// This replica has the partition's items; otherwise it is a log replica, or becomes one.
    pub stores: bool,
}

impl Replica {
    /// The replica on `node`. If that is no member, it is a learner.
    #[must_use]
    pub fn new(seed: Seed, node: NodeId, now: Boot, mut prng: Prng) -> Self {
        let memberships = Memberships::of(seed.config.membership(), &seed.log);
        let config = seed.config.with_membership(memberships.latest().clone());
        let rank = rank_in(&config, node);
        let fresh = seed.promised == Ballot::ZERO && !seed.refilling;
        let follower = Follower::new(now, rank, fresh && rank == 0, &mut prng);
        let never_led = config.origin.is_some() && seed.promised == Ballot::ZERO;
        let not_before = if never_led { now.after(LEASE_TERM + LEASE_DRIFT) } else { Boot(0) };
        let refill = seed.refilling.then(|| Refill::new(&mut prng));
        let durable = seed.log.last().slot;
        Self {
            config,
            memberships,
            settled: Slot::ZERO,
            stores: seed.stores,
            core: None,
            heard_at: now,
            stranger: None,
            node,
            promised: seed.promised,
            promised_durable: seed.promised,
            previous: seed.promised,
            highest_seen: seed.promised,
            log: seed.log,
            durable,
            commit: seed.commit,
            timestamp: seed.timestamp,
            marks: VecDeque::new(),
            role: Role::Follower(follower),
            matched: Slot::ZERO,
            owed: Owed::default(),
            refill,
            seek: None,
            not_before,
            prng,
        }
    }

    /// This replica was just made by a split. `serves_from`: since or from when the replica of the parent
    /// here serves as its leader; then it stands at once, and has no more to wait. Whoever else applied the
    /// split does not know whether an earlier leader of the parent still holds a lease, and waits a term.
    pub fn succeed(&mut self, now: Boot, serves_from: Option<Boot>) {
        if let Some(from) = serves_from {
            self.not_before = from;
        }
        let stands = serves_from.is_some() && self.may_lead(now);
        self.role = Role::Follower(Follower::new(now, self.rank(), stands, &mut self.prng));
    }

    /// Gives away what a split gives to the child, and returns that.
    pub fn divide(&mut self, split: &Split, at: LogPoint) -> GroupConfig {
        let child = self.config.child(split, at);
        self.config.divide(split, at);
        child
    }

    /// The group.
    #[must_use]
    pub fn config(&self) -> &GroupConfig {
        &self.config
    }

    /// The group's partition.
    #[must_use]
    pub fn partition(&self) -> PartitionId {
        self.config.partition
    }

    /// The membership epoch.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.config.epoch
    }

    /// The log.
    #[must_use]
    pub fn log(&self) -> &GroupLog {
        &self.log
    }

    /// The promised ballot.
    #[must_use]
    pub fn promised(&self) -> Ballot {
        self.promised
    }

    /// Up to where the log is known to be committed.
    #[must_use]
    pub fn commit(&self) -> Slot {
        self.commit
    }

    /// Up to where this replica's own log is durable.
    #[must_use]
    pub fn durable(&self) -> Slot {
        self.durable
    }

    /// Whether the replica was damaged and may not vote.
    #[must_use]
    pub fn is_refilling(&self) -> bool {
        self.refill.is_some()
    }

    /// The other members, in the order of the configuration.
    pub fn others(&self) -> impl Iterator<Item = &Member> {
        self.config.members.iter().filter(|member| member.node != self.node)
    }

    /// The group, with the members that it has where it is applied up to `slot`.
    #[must_use]
    pub fn config_at(&self, slot: Slot) -> GroupConfig {
        self.config.clone().with_membership(self.memberships.at(slot).clone())
    }

    /// Whether what `peer` says under `epoch` is listened to: it is a member by what is committed or by the
    /// latest entry, or knows of a later membership. Only what is committed shuts anybody out: an entry that
    /// is not may be superseded by one whom it would shut out.
    #[must_use]
    pub fn admits(&self, peer: Member, epoch: Epoch) -> bool {
        let committed = self.committed_members();
        epoch > committed.epoch || committed.members.contains(&peer) || self.config.members.contains(&peer)
    }

    /// Whose replica this is.
    #[must_use]
    pub fn node(&self) -> NodeId {
        self.node
    }

    /// How many members make a quorum.
    #[must_use]
    pub fn quorum(&self) -> usize {
        self.config.members.len() / 2 + 1
    }

    /// The replica is on this core.
    #[must_use]
    pub fn on_core(mut self, core: CoreId) -> Self {
        self.core = Some(core);
        self
    }

    /// Whether a member is this replica.
    fn is_here(&self, member: &Member) -> bool {
        member.node == self.node && self.core.is_none_or(|core| member.core == core)
    }

    /// Whether this replica is a member, by the latest membership in its log.
    #[must_use]
    pub fn takes_part(&self) -> bool {
        self.config.members.iter().any(|member| self.is_here(member))
    }

    fn rank(&self) -> usize {
        rank_in(&self.config, self.node)
    }

    fn is_member(&self, node: NodeId) -> bool {
        self.config.members.iter().any(|member| member.node == node)
    }

    /// Whether this replica is a member with the partition's items. One of what a split has made that was
    /// created without its state has none yet: nothing is not what the group began with.
    fn has_what_leaders_need(&self) -> bool {
        let is_born = self.config.origin.is_none_or(|origin| self.log.last().slot >= origin.slot);
        self.takes_part() && self.config.stores(self.node) && self.stores && is_born
    }

    /// Whether this replica may stand for election: it has what leaders need, and is whole. If it is not, it
    /// stands only when nobody has led for long, and if the others are just a quorum ([`refill`]).
    fn may_lead(&self, now: Boot) -> bool {
        let nobody_else = now.since(self.heard_at) >= FORGETFUL_STANDS_AFTER;
        let may_stand = !self.is_refilling() || nobody_else && self.others().count() == self.quorum();
        may_stand && self.has_what_leaders_need()
    }

    /// Whether what this replica promises and accepts counts.
    fn votes(&self) -> bool {
        !self.is_refilling() || planted::active(Planted::CountRefilling)
    }

    /// The log is applied up to `slot`.
    pub fn applied(&mut self, slot: Slot) {
        self.memberships.apply(slot);
    }

    /// Forgets applied entries that are not worth their memory. While a follower is being sent a snapshot,
    /// eight times as much is kept: it will need what came after.
    pub fn trim(&mut self, applied: Slot, bytes_kept: usize) {
        let sending = self.others().any(|member| self.awaits_snapshot(member.node));
        self.log.trim(applied, if sending { 8 * bytes_kept } else { bytes_kept });
    }

    /// A snapshot turned out not to be needed. Where the log has its point, the log equals the leader's up to
    /// there, and all of that is committed. The leader is told how far this replica is.
    pub fn confirm(&mut self, at: LogPoint) {
        if self.log.point(at.slot) == Some(at) {
            self.matched = self.matched.max(at.slot);
            self.commit = self.commit.max(at.slot);
        }
        self.owed.accepted = true;
    }

    /// Replaces the log by a snapshot's point: the tree now holds everything up to it, durably.
    ///
    /// # Panics
    /// When the log already reaches it: what was accepted is never given up.
    pub fn install(&mut self, config: GroupConfig, at: LogPoint, ballot: Ballot, timestamp: u64) {
        assert!(at.slot > self.commit, "a snapshot is installed only where it is ahead");
        self.log = GroupLog::new(at, ballot);
        self.memberships = Memberships::of(config.membership(), &self.log);
        self.config = config;
        self.stores = true;
        for mark in &mut self.marks {
            if let Mark::Entries { .. } = mark {
                *mark = Mark::Other;
            }
        }
        self.durable = at.slot;
        self.commit = at.slot;
        self.matched = at.slot;
        self.timestamp = timestamp;
        self.owed.accepted = true;
    }

    /// The group as its core's log must remember it at the beginning of a checkpoint.
    #[must_use]
    pub fn state_record(&self, config: GroupConfig, state: &State) -> Record {
        let State { applied, applied_ballot, timestamp, log_only, .. } = state;
        let state = GroupState {
            config,
            base: *applied,
            base_ballot: *applied_ballot,
            base_timestamp: *timestamp,
            refilling: self.is_refilling(),
            stores: !log_only,
        };
        self.record(RecordBody::State(Box::new(state)))
    }

    /// A record of this group, as it stands.
    #[must_use]
    pub fn record(&self, body: RecordBody) -> Record {
        Record { partition: self.config.partition, promised: self.promised, commit: self.commit, body }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Boot, out: &mut Vec<Output>) {
        match &self.role {
            Role::Follower(_) => self.tick_follower(now, out),
            Role::Candidate(_) => self.tick_candidate(now, out),
            Role::Leader(_) => self.tick_leader(now, out),
        }
        self.tick_refill(now, out);
        self.tick_seek(now, out);
    }

    /// Whether time changes nothing here, as long as leases are renewed under the promised ballot: everything
    /// is committed, durable and known to be by all members, and nobody is owed anything.
    #[must_use]
    pub fn is_at_rest(&self, now: Boot) -> bool {
        let last = self.log.last().slot;
        let even = self.commit == last && self.durable == last && self.promised_durable == self.promised;
        let owes = self.owed.accepted || self.owed.promise.is_some();
        let quiet = even && !owes && self.marks.is_empty() && self.refill.is_none() && self.seek.is_none();
        quiet
            && match &self.role {
                Role::Leader(leader) => {
                    let mut followers = leader.followers.iter();
                    self.is_ready(now)
                        && followers.all(|follower| leader::is_even(follower, &self.config, last))
                        && leader.prospect.is_none()
                        && self.config.is_whole()
                }
                Role::Follower(follower) => follower.is_at_rest(self.promised.node, self.matched),
                Role::Candidate(_) => false,
            }
    }

    /// A member said something. The core has checked the epoch and that the sender is this member.
    pub fn receive(&mut self, now: Boot, from: NodeId, message: Message, out: &mut Vec<Output>) {
        match message {
            Message::Prepare(prepare) => self.on_prepare(now, from, &prepare, out),
            Message::Promise(promise) => self.on_promise(now, from, promise, out),
            Message::Refuse(refuse) => self.on_refuse(now, refuse.promised, out),
            Message::Fetch(fetch) => self.on_fetch(from, &fetch, out),
            Message::Fetched { ballot, previous, entries } if self.is_candidate() => {
                self.on_fetched(now, from, ballot, previous, entries, out);
            }
            Message::Fetched { ballot, previous, entries } => {
                self.on_sought(now, from, ballot, previous, &entries, out);
            }
            Message::Accept { ballot, previous, commit, settled, entries } => {
                let accept = acceptor::Proposal { ballot, previous, commit, settled, entries };
                self.on_accept(now, from, accept, out);
            }
            Message::Accepted(accepted) => self.on_accepted(now, from, &accepted),
            Message::Rejected(rejected) => self.on_rejected(now, from, &rejected, out),
            Message::Suspect(_) => self.on_suspect(now, from, out),
            Message::SuspectAnswer(answer) => self.on_suspect_answer(now, answer.healthy, out),
            Message::HandOver(hand_over) => self.on_hand_over(now, from, hand_over.relinquished, out),
            Message::Invite(invite) => self.on_invite(now, from, &invite, out),
            Message::Rejoin(rejoin) => self.on_rejoin(now, from, &rejoin, out),
            Message::RejoinAnswer(answer) => self.on_rejoin_answer(&answer),
        }
    }

    /// The oldest record that is not yet durable has become so.
    ///
    /// # Panics
    /// When none was outstanding.
    pub fn persisted(&mut self, now: Boot, out: &mut Vec<Output>) {
        match self.marks.pop_front().expect("the core reports each record once") {
            Mark::Promise(ballot) => self.promised_durable = self.promised_durable.max(ballot),
            Mark::Entries { through } => self.durable = self.durable.max(through),
            Mark::Other => {}
        }
        self.pay_promise(out);
        match &self.role {
            Role::Follower(_) => {}
            Role::Candidate(_) => self.advance_candidate(now, out),
            Role::Leader(_) => self.advance_commit(now),
        }
    }

    /// Ends a turn: a follower tells its leader how far it is, a leader sends what its followers lack.
    pub fn end_turn(&mut self, now: Boot, out: &mut Vec<Output>) {
        match &self.role {
            Role::Leader(_) => self.replicate(now, out),
            Role::Follower(_) | Role::Candidate(_) => self.pay_accepted(out),
        }
        self.finish_refill(now, out);
    }

    fn persist(&mut self, mark: Mark, body: RecordBody, out: &mut Vec<Output>) {
        self.marks.push_back(mark);
        out.push(Output::Persist(self.record(body)));
    }

    fn persist_entry(&mut self, entry: Entry, out: &mut Vec<Output>) {
        self.timestamp = self.timestamp.max(entry.header.timestamp);
        self.log.append(entry.clone());
        if self.memberships.append(&entry) {
            self.take_membership(out);
        }
        let through = entry.header.slot;
        self.persist(Mark::Entries { through }, RecordBody::Entry(entry), out);
    }

    /// Ends the log before `slot`, durably.
    fn supersede(&mut self, slot: Slot, out: &mut Vec<Output>) {
        assert!(slot > self.commit, "slot {slot} is committed up to {} and conflicts", self.commit);
        self.log.truncate_from(slot);
        if self.memberships.truncate_from(slot) {
            self.take_membership(out);
        }
        let last = slot.previous();
        self.durable = self.durable.min(last);
        self.matched = self.matched.min(last);
        for mark in &mut self.marks {
            if let Mark::Entries { through } = mark {
                *through = (*through).min(last);
            }
        }
        self.persist(Mark::Other, RecordBody::Supersede(slot), out);
    }

    fn send(&self, to: NodeId, message: Message, out: &mut Vec<Output>) {
        out.push(Output::Send { to, message });
    }

    fn send_others(&self, message: &Message, out: &mut Vec<Output>) {
        let others: ArrayVec<NodeId, MEMBERS_MAX> = self.others().map(|member| member.node).collect();
        for to in others {
            self.send(to, message.clone(), out);
        }
    }

    /// Follows `leader`, or nobody known.
    fn become_follower(&mut self, now: Boot, leader: Option<NodeId>, out: &mut Vec<Output>) {
        if matches!(self.role, Role::Leader(_)) {
            self.heard_at = now;
            out.push(Output::LostLeadership);
        }
        let rank = self.rank();
        let mut follower = Follower::new(now, rank, false, &mut self.prng);
        follower.leader = leader;
        follower.told = self.matched;
        self.role = Role::Follower(follower);
    }
}

/// The place of a node among the members, behind them if it is none.
fn rank_in(config: &GroupConfig, node: NodeId) -> usize {
    let place = config.members.iter().position(|member| member.node == node);
    place.unwrap_or(config.members.len())
}
