//! Changing members: learners, log replicas, and the leader's side of both.
//!
//! A learner takes the log and does not vote. It becomes a member by an entry of the log, when it has caught
//! up. A node that held the group before goes on with what it has. A new one begins as a *log replica*: its
//! log begins at a committed place, and it has nothing of what was written before. It keeps whatever some
//! storage replica may still lack (*settled* says up to where none does), so the log of the group is on a
//! quorum of disks whoever is lost; but it cannot lead. The leader copies the partition's state to it in the
//! background, and then it is a storage replica like any other.

use super::leader::{Mode, Progress};
use super::log::GroupLog;
use super::memberships::Memberships;
use super::{Mark, Message, Output, Replica, Role, Seed};
use crate::limits::{LEARNER_LAG_MAX, RESEND_AFTER};
use crate::planted::{self, Planted};
use crate::wal::record::{GroupState, RecordBody};
use evenkeel_wire::entry::EntryKind;
use evenkeel_wire::ids::{Ballot, NodeId, Slot};
use evenkeel_wire::membership::Membership;
use evenkeel_wire::message::peer::{Invite, LogPoint, Rejection, Relinquished};
use evenkeel_wire::table::Member;
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// How a member or learner does, as its leader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Who.
    pub member: Member,
    /// For how long it has granted no lease, or nothing was heard of its log.
    pub silent_for: Duration,
    /// Its log is close to the leader's end, and what it lacks is in the leader's log: also in that of a log
    /// replica that begins where the leader's does.
    pub is_close: bool,
    /// It has the partition's items.
    pub stores: bool,
    /// The leader's log does not reach back as far as it would need.
    pub needs_snapshot: bool,
}

impl Seed {
    /// What a log replica starts from that does not exist yet.
    ///
    /// It has promised nothing: that it follows who invites it, it says as everything else, when its group
    /// and its promise are durable.
    #[must_use]
    pub fn invited(invite: &Invite) -> Self {
        let Invite { ballot, config, at, at_ballot, timestamp, .. } = invite;
        let early = planted::active(Planted::LearnerSpeaksEarly);
        Self {
            config: config.clone(),
            promised: if early { *ballot } else { Ballot::ZERO },
            log: GroupLog::new(*at, *at_ballot),
            commit: at.slot,
            timestamp: *timestamp,
            refilling: false,
            stores: false,
        }
    }
}

impl Replica {
    /// Whether this replica has the partition's items.
    #[must_use]
    pub fn stores(&self) -> bool {
        self.stores
    }

    /// Up to where a log replica need not keep its log: it is committed, and every storage replica has it.
    #[must_use]
    pub fn settled(&self) -> Slot {
        self.settled.min(self.commit)
    }

    /// The members that the log names.
    #[must_use]
    pub fn memberships(&self) -> &Memberships {
        &self.memberships
    }

    /// The membership that is in effect for sure: what others are told.
    #[must_use]
    pub fn committed_members(&self) -> &Membership {
        self.memberships.at(self.commit)
    }

    /// A membership was appended, or taken back.
    pub(super) fn take_membership(&mut self, out: &mut Vec<Output>) {
        let latest = self.memberships.latest().clone();
        self.config = self.config.clone().with_membership(latest);
        let Self { role, config, .. } = self;
        match role {
            Role::Follower(_) => {}
            Role::Candidate(candidate) => {
                // The quorum is another one now.
                candidate.quorum_at = None;
                candidate.asked_at = None;
            }
            Role::Leader(leader) => {
                leader.prospect = leader.prospect.filter(|prospect| !config.members.contains(prospect));
                let prospect = leader.prospect.map(|prospect| prospect.node);
                leader.followers.retain(|follower| follower.is_in(config) || Some(follower.node) == prospect);
            }
        }
        out.push(Output::MembersChanged);
    }

    /// Up to where every storage replica of the latest membership has the log durably, for the leader.
    pub(super) fn settled_here(&self) -> Slot {
        let Role::Leader(leader) = &self.role else {
            return self.settled;
        };
        let storing = leader.followers.iter().filter(|follower| self.config.stores(follower.node));
        storing.map(|follower| follower.matched).fold(self.durable, Slot::min)
    }

    /// The learner that this leader has invited.
    #[must_use]
    pub fn prospect(&self) -> Option<&Member> {
        match &self.role {
            Role::Leader(leader) => leader.prospect.as_ref(),
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    /// Whether `peer` is the learner: of what it says, only how far its log is counts.
    #[must_use]
    pub fn is_prospect(&self, peer: Member) -> bool {
        self.prospect() == Some(&peer)
    }

    /// `member` is about to say something. If this replica does not know of it, its answer must find it.
    pub fn meet(&mut self, member: Member) {
        if !self.config.members.contains(&member) {
            self.stranger = Some(member);
        }
    }

    /// A member other than this one, the learner, or who spoke last without being known.
    #[must_use]
    pub fn other(&self, node: NodeId) -> Option<&Member> {
        let mut known = self.others().chain(self.prospect()).chain(&self.stranger);
        known.find(|member| member.node == node)
    }

    /// Makes `member` a learner, in the place of the one that was. Nothing happens unless this replica leads
    /// and that one is none of the members.
    pub fn court(&mut self, now: Boot, member: Member) {
        self.dismiss();
        let next = self.log.last().slot.next();
        if self.is_member(member.node) {
            return;
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.prospect = Some(member);
            leader.followers.push(Progress::new(member.node, next, Mode::Invite(None), false, now));
        }
    }

    /// Who could not be the learner of this leader, because it has promised a later ballot.
    #[must_use]
    pub fn outbid_by(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(leader) => leader.outbid_by,
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    /// Stands once more, above every ballot that it has heard of: nobody is left who could be a learner of
    /// the present one. It serves nothing from here on until it is elected, so it has no lease of its own to
    /// wait for.
    pub fn outbid(&mut self, now: Boot, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let wait_us = leader.serve_after.since(now).as_micros() as u64;
        let relinquished = Relinquished { ballot: self.promised, wait_us };
        self.become_follower(now, None, out);
        self.stand(now, Some(relinquished), out);
    }

    /// Gives the learner up.
    pub fn dismiss(&mut self) {
        if let Role::Leader(leader) = &mut self.role
            && let Some(prospect) = leader.prospect.take()
        {
            leader.followers.retain(|follower| follower.node != prospect.node);
        }
    }

    /// Whether the members may be changed now: this replica serves, and the last change is committed.
    #[must_use]
    pub fn may_change_members(&self, now: Boot) -> bool {
        self.is_ready(now) && self.memberships.is_committed(self.commit)
    }

    /// Proposes that these are the members from now on. Nothing happens when that may not be now.
    pub fn propose_members(&mut self, now: Boot, next: &Membership, timestamp: u64, out: &mut Vec<Output>) {
        let follows = self.memberships.latest().may_become(next) && next.stores(self.node);
        if self.may_change_members(now) && follows {
            let encode = |out: &mut Vec<u8>| next.encode(out);
            self.propose(EntryKind::Membership, timestamp, next.encoded_bytes(), encode, out);
        }
    }

    /// Whether nobody may need this replica: it is no member, or has not heard of a leader for `long`.
    #[must_use]
    pub fn is_stray(&self, now: Boot, long: Duration) -> bool {
        !self.is_leader() && (!self.takes_part() || now.since(self.heard_at) >= long)
    }

    /// How the other members do, and the learner. `renewed_at`: grants that this replica was not told of.
    #[must_use]
    pub fn health(&self, now: Boot, renewed_at: impl Fn(NodeId) -> Option<Boot>) -> Vec<Health> {
        let Role::Leader(leader) = &self.role else {
            return Vec::new();
        };
        let (last, known_from) = (self.log.last().slot, self.memberships.latest_at());
        let health = |follower: &Progress| {
            let heard = follower.granted_at.max(renewed_at(follower.node)).max(Some(follower.progress_at));
            let close = Slot(follower.matched.0 + LEARNER_LAG_MAX) >= last
                && follower.matched >= self.log.base().slot;
            Some(Health {
                member: *self.other(follower.node)?,
                silent_for: now.since(heard.unwrap_or(leader.since).max(leader.since)),
                // Who does not know that it was removed could be told to go, and vote nevertheless. Who does
                // not vote would make the quorum larger, and help nobody to reach it.
                is_close: follower.mode == Mode::Stream
                    && close
                    && follower.matched >= known_from
                    && (follower.votes || planted::active(Planted::CourtTheForgetful)),
                stores: follower.stores,
                needs_snapshot: follower.mode == Mode::Snapshot,
            })
        };
        leader.followers.iter().filter_map(health).collect()
    }

    /// Invites whom it has not invited for a while.
    pub(super) fn invite(&mut self, now: Boot, out: &mut Vec<Output>) {
        let (at, at_ballot, timestamp) = self.beginning();
        let ballot = self.promised;
        // Of memberships that are behind the log's beginning but committed, a learner must know: by an older
        // one it would be a member.
        let config = self.config_at(self.commit);
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let mut due = Vec::new();
        for follower in &mut leader.followers {
            if let Mode::Invite(sent_at) = follower.mode
                && sent_at.is_none_or(|at| now.since(at) >= RESEND_AFTER)
            {
                follower.mode = Mode::Invite(Some(now));
                due.push(follower.node);
            }
        }
        for node in due {
            if let Some(member) = self.other(node).copied() {
                let invite = Invite { ballot, member, config: config.clone(), at, at_ballot, timestamp };
                self.send(node, Message::Invite(Box::new(invite)), out);
            }
        }
    }

    /// Where a log replica's log can begin: a committed place that is at hand, behind which is all that some
    /// storage replica lacks, if that is at hand.
    fn beginning(&self) -> (LogPoint, Ballot, u64) {
        let slot = self.settled_here().min(self.commit).max(self.log.base().slot);
        let at = self.log.point(slot).expect("it is the base, or behind it and committed");
        let entry = self.log.get(slot);
        let ballot = entry.map_or(self.log.base_ballot(), |entry| entry.header.ballot);
        (at, ballot, entry.map_or(0, |entry| entry.header.timestamp))
    }

    /// A leader invites this replica, which exists: it says how far it is, or that it has promised a later
    /// ballot. A log replica that is too far behind for the leader's log begins anew.
    pub(super) fn on_invite(&mut self, now: Boot, from: NodeId, invite: &Invite, out: &mut Vec<Output>) {
        if !self.accept_leader(now, from, invite.ballot, out) {
            return self.reject(from, invite.ballot, Rejection::Ballot, out);
        }
        let known = self.log.point(invite.at.slot) == Some(invite.at) || invite.at.slot <= self.commit;
        if known {
            self.confirm(invite.at);
        } else if !self.stores {
            self.begin_anew(invite, out);
        }
        self.owed.accepted = true;
    }

    /// Everything up to the invitation's place is committed, and others have it.
    fn begin_anew(&mut self, invite: &Invite, out: &mut Vec<Output>) {
        let Invite { config, at, at_ballot, timestamp, .. } = invite;
        self.log = GroupLog::new(*at, *at_ballot);
        self.memberships = Memberships::of(config.membership(), &self.log);
        self.config = config.clone();
        self.timestamp = self.timestamp.max(*timestamp);
        for mark in &mut self.marks {
            if let Mark::Entries { .. } = mark {
                *mark = Mark::Other;
            }
        }
        (self.commit, self.matched, self.settled) = (at.slot, at.slot, at.slot);
        // What this log held is given up only when the new beginning is durable; it is not acknowledged
        // before.
        self.durable = Slot::ZERO;
        let state = GroupState {
            config: config.clone(),
            base: *at,
            base_ballot: *at_ballot,
            base_timestamp: *timestamp,
            refilling: self.is_refilling(),
            stores: false,
        };
        self.persist(Mark::Entries { through: at.slot }, RecordBody::State(Box::new(state)), out);
        out.push(Output::MembersChanged);
    }

    /// The partition's items have come: this replica is a storage replica, as far as it is concerned.
    pub fn has_items(&mut self) {
        self.stores = true;
        self.owed.accepted = true;
    }
}
