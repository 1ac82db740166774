//! The leader's side: proposing, replicating, committing, and the lease under which it serves.

use super::{MEMBERS_MAX, Message, Output, Replica, Role};
use crate::limits::{
    ACCEPT_BYTES_MAX, COMMIT_NOTICE_AFTER, FOLLOWER_WINDOW_BYTES, FOLLOWER_WINDOW_ENTRIES, LEASE_DRIFT,
    LEASE_TERM, RESEND_AFTER, SPARE_EVERY,
};
use crate::planted::{self, Planted};
use arrayvec::ArrayVec;
use evenkeel_wire::entry::{Entry, EntryHeader, EntryKind};
use evenkeel_wire::ids::{Ballot, NodeId, Slot};
use evenkeel_wire::message::peer::{
    Accepted, HandOver, HeartbeatGroup, Promise, Rejected, Rejection, Relinquished,
};
use evenkeel_wire::message::status::FollowerStatus;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::Boot;
use std::collections::VecDeque;
use std::time::Duration;

/// A leadership.
#[derive(Clone, Debug)]
pub(super) struct Leader {
    pub(super) since: Boot,
    /// No lease of an older ballot can be alive from here on.
    pub(super) serve_after: Boot,
    /// Slot of the no-op: nothing counts as committed before it does.
    pub(super) first: Slot,
    pub(super) followers: ArrayVec<Progress, MEMBERS_MAX>,
    /// Who was the last to say that it has what no other follower is known to have.
    pub(super) ahead: Option<NodeId>,
    /// When the commit position last rose.
    pub(super) commit_rose_at: Boot,
    /// A learner, which is to become a member.
    pub(super) prospect: Option<Member>,
    /// Who could not be a learner, because it has promised a later ballot.
    pub(super) outbid_by: Option<NodeId>,
    /// The last damaged follower that asked to be refilled, its nonce, and the slot that it was told.
    pub(super) rejoin: Option<(NodeId, u64, Slot)>,
}

/// How a follower is sent entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// One Accept at a time, until it is known where the logs match; when the last was sent.
    Probe(Option<Boot>),
    /// As fast as the window allows.
    Stream,
    /// It is being sent a snapshot.
    Snapshot,
    /// It is to take part, or to begin its log anew, and has not answered; when it was last told so.
    Invite(Option<Boot>),
}

/// What the leader knows of a follower.
#[derive(Clone, Debug)]
pub(super) struct Progress {
    pub(super) node: NodeId,
    /// The next slot to send.
    pub(super) next: Slot,
    /// Up to where its log is known to match and be durable.
    pub(super) matched: Slot,
    /// Whether that counts: not while it is being refilled.
    pub(super) votes: bool,
    pub(super) mode: Mode,
    /// What was sent and not acknowledged: last slot and bytes of each Accept.
    pub(super) in_flight: VecDeque<(Slot, usize)>,
    pub(super) in_flight_bytes: usize,
    /// When it last made progress, or was sent something after a silence.
    pub(super) progress_at: Boot,
    /// When it was last sent entries.
    pub(super) sent_at: Boot,
    pub(super) told_commit: Slot,
    pub(super) told_settled: Slot,
    /// Whether it has the partition's items.
    pub(super) stores: bool,
    /// The lease that it granted counts from here.
    pub(super) granted_at: Option<Boot>,
}

impl Leader {
    pub(super) fn new(
        replica: &Replica,
        now: Boot,
        serve_after: Boot,
        promises: &[(NodeId, Promise)],
    ) -> Self {
        let last = replica.log.last().slot;
        let next_for = |node: NodeId| {
            let promise = promises.iter().find(|(from, _)| *from == node).map(|(_, promise)| promise);
            match promise {
                Some(promise) if replica.log.hash(promise.last.slot) == Some(promise.last_hash) => {
                    promise.last.slot.next()
                }
                Some(promise) => promise.commit.next(),
                None => last.next(),
            }
        };
        let progress = |member: &Member| {
            let stores = replica.config.stores(member.node);
            Progress::new(member.node, next_for(member.node), Mode::Probe(None), stores, now)
        };
        let followers = replica.others().map(progress).collect();
        let (prospect, outbid_by, rejoin) = (None, None, None);
        let first = last.next();
        let (since, ahead, commit_rose_at) = (now, None, now);
        Self { since, serve_after, first, followers, ahead, commit_rose_at, prospect, outbid_by, rejoin }
    }

    /// When the lease runs out: the quorum's grants, each counted from before it was asked for.
    fn lease_until(&self, config: &GroupConfig, renewed_at: impl Fn(NodeId) -> Option<Boot>) -> Option<Boot> {
        let quorum = config.members.len() / 2 + 1;
        let granted_at = |follower: &Progress| follower.granted_at.max(renewed_at(follower.node));
        let members = self.followers.iter().filter(|follower| follower.is_in(config));
        let mut grants: ArrayVec<Boot, MEMBERS_MAX> = members.filter_map(granted_at).collect();
        grants.sort_unstable_by(|a, b| b.cmp(a));
        // The leader grants to itself.
        let weakest = match quorum - 1 {
            0 => return Some(Boot::NEVER),
            others => grants.get(others - 1)?,
        };
        let margin = if planted::active(Planted::ForgetDrift) { Duration::ZERO } else { LEASE_DRIFT };
        Some(weakest.after(LEASE_TERM - margin))
    }
}

impl Progress {
    pub(super) fn new(node: NodeId, next: Slot, mode: Mode, stores: bool, now: Boot) -> Self {
        Self {
            node,
            next,
            matched: Slot::ZERO,
            votes: true,
            mode,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            progress_at: now,
            sent_at: Boot(0),
            told_commit: Slot::ZERO,
            told_settled: Slot::ZERO,
            stores,
            granted_at: None,
        }
    }

    pub(super) fn is_in(&self, config: &GroupConfig) -> bool {
        config.members.iter().any(|member| member.node == self.node)
    }

    fn probe(&mut self, next: Slot, sent_at: Option<Boot>) {
        self.next = next;
        self.mode = Mode::Probe(sent_at);
        self.in_flight.clear();
        self.in_flight_bytes = 0;
    }

    fn acknowledge(&mut self, now: Boot, matched: Slot) {
        self.progress_at = now;
        self.matched = self.matched.max(matched);
        while self.in_flight.front().is_some_and(|(last, _)| *last <= matched) {
            let (_, bytes) = self.in_flight.pop_front().expect("there is a first");
            self.in_flight_bytes -= bytes;
        }
    }

    /// When it is sent entries again, if a quorum does without it.
    fn spared_until(&self) -> Boot {
        self.sent_at.after(SPARE_EVERY)
    }

    fn window_is_open(&self) -> bool {
        self.in_flight.len() < FOLLOWER_WINDOW_ENTRIES && self.in_flight_bytes < FOLLOWER_WINDOW_BYTES
    }

    fn waits_too_long(&self, now: Boot) -> bool {
        !self.in_flight.is_empty() && now.since(self.progress_at) >= RESEND_AFTER
    }
}

impl Replica {
    /// Whether this replica leads, serving or not.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        matches!(self.role, Role::Leader(_))
    }

    /// Whether this replica stands for election.
    #[must_use]
    pub fn is_candidate(&self) -> bool {
        matches!(self.role, Role::Candidate(_))
    }

    /// Whether the leader's quorum lease holds.
    #[must_use]
    pub fn holds_lease(&self, now: Boot) -> bool {
        self.holds_lease_with(now, |_| None)
    }

    fn holds_lease_with(&self, now: Boot, renewed_at: impl Fn(NodeId) -> Option<Boot>) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        planted::active(Planted::ReadAfterLease)
            || leader.lease_until(&self.config, renewed_at).is_some_and(|until| now < until)
    }

    /// From when on no lease of an older ballot can be alive, if this replica leads.
    #[must_use]
    pub fn serves_from(&self) -> Option<Boot> {
        match &self.role {
            Role::Leader(leader) => Some(leader.serve_after),
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }

    /// The first entry of this replica's leadership, if it leads.
    #[must_use]
    pub fn leads_from(&self) -> Option<Slot> {
        match &self.role {
            Role::Leader(leader) => Some(leader.first),
            _ => None,
        }
    }

    /// Whether the protocol lets this replica serve writes and strong reads now: it leads, its first entry is
    /// committed, every older lease has run out, and its own holds.
    #[must_use]
    pub fn is_ready(&self, now: Boot) -> bool {
        self.is_ready_with(now, |_| None)
    }

    /// As [`is_ready`](Self::is_ready), when grants under this ballot count from later on than
    /// [`on_grant`](Self::on_grant) has said.
    #[must_use]
    pub fn is_ready_with(&self, now: Boot, renewed_at: impl Fn(NodeId) -> Option<Boot>) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let may_serve = self.commit >= leader.first && now >= leader.serve_after;
        may_serve && self.holds_lease_with(now, renewed_at)
    }

    /// The next entry's slot.
    #[must_use]
    pub fn next_slot(&self) -> Slot {
        self.log.last().slot.next()
    }

    /// The next entry's timestamp: above the last one's, and not behind the wall clock.
    #[must_use]
    pub fn next_timestamp(&self, wall_ms: u64) -> u64 {
        (self.timestamp + 1).max(wall_ms << 16)
    }

    /// Proposes an entry. Its fate is seen by the commit position passing its slot, or by the leadership's
    /// loss.
    ///
    /// # Panics
    /// When this replica does not lead.
    pub fn propose(
        &mut self,
        kind: EntryKind,
        timestamp: u64,
        payload_bytes: usize,
        write: impl FnOnce(&mut Vec<u8>),
        out: &mut Vec<Output>,
    ) -> Slot {
        assert!(self.is_leader(), "only a leader proposes");
        let header = EntryHeader {
            partition: self.partition(),
            slot: self.next_slot(),
            ballot: self.promised,
            previous: self.log.last().hash,
            timestamp,
            kind,
            payload_bytes: 0,
        };
        let entry = Entry::build(header, payload_bytes, write);
        self.persist_entry(entry, out);
        header.slot
    }

    pub(super) fn propose_noop(&mut self, out: &mut Vec<Output>) -> Slot {
        let timestamp = self.timestamp + 1;
        self.propose(EntryKind::Noop, timestamp, 0, |_| (), out)
    }

    /// Sends each follower what it lacks, as far as its window allows, and the one that is not needed for a
    /// quorum now and then only.
    pub(super) fn replicate(&mut self, now: Boot, out: &mut Vec<Output>) {
        let (ballot, commit, settled) = (self.promised, self.commit, self.settled_here());
        let held = self.spare().filter(|spare| now < spare.spared_until()).map(|spare| spare.node);
        let Self { role: Role::Leader(leader), config, log, .. } = self else {
            return;
        };
        let notice_due = now.since(leader.commit_rose_at) >= COMMIT_NOTICE_AFTER;
        let mut invited = false;
        for follower in &mut leader.followers {
            if follower.waits_too_long(now) {
                follower.probe(follower.matched.next(), None);
            }
            let mut told = false;
            while held != Some(follower.node)
                && let Some(bytes_max) = room(follower, now, log.last().slot)
            {
                let Some(previous) = log.point(follower.next.previous()) else {
                    assert!(follower.next <= log.base().slot, "a snapshot replaces what was trimmed");
                    if config.log_replicas.contains(&follower.node) {
                        follower.mode = Mode::Invite(None);
                    } else {
                        follower.mode = Mode::Snapshot;
                        out.push(Output::NeedsSnapshot { to: follower.node });
                    }
                    break;
                };
                let (entries, last) = log.batch_after(previous.slot, bytes_max);
                let bytes = entries.iter().map(bytes::Bytes::len).sum();
                note_sent(follower, now, last, bytes);
                (follower.told_commit, follower.told_settled, told) = (commit, settled, true);
                let message = Message::Accept { ballot, previous, commit, settled, entries };
                out.push(Output::Send { to: follower.node, message });
            }
            if !told
                && notice_due
                && follower.mode == Mode::Stream
                && is_untold(follower, config, commit, settled)
            {
                (follower.told_commit, follower.told_settled) = (commit, settled);
                let previous = log.point(follower.next.previous()).unwrap_or(log.base());
                let message = Message::Accept { ballot, previous, commit, settled, entries: Vec::new() };
                out.push(Output::Send { to: follower.node, message });
            }
            invited |= matches!(follower.mode, Mode::Invite(_));
        }
        if invited {
            self.invite(now, out);
        }
    }

    /// The follower that a quorum does without: the other one answers sooner
    /// (docs/decisions/0020-spare-follower.md). None where every answer counts, or the other one is to be
    /// sent more before everything that it was sent is committed.
    fn spare(&self) -> Option<&Progress> {
        let Role::Leader(leader) = &self.role else {
            return None;
        };
        let [one, other] = &leader.followers[..] else {
            return None;
        };
        let (ahead, spare) = if leader.ahead == Some(one.node) { (one, other) } else { (other, one) };
        let counts = |follower: &Progress| {
            follower.mode == Mode::Stream && follower.votes && follower.is_in(&self.config)
        };
        let chosen = leader.ahead == Some(ahead.node) && self.votes() && counts(ahead) && counts(spare);
        let at_rest = ahead.next > self.log.last().slot || ahead.next <= self.commit.next();
        (chosen && at_rest).then_some(spare)
    }

    /// When this replica wants [`end_turn`](Self::end_turn) although nothing else happens: a commit position
    /// that a follower has not been told, or entries that one has not been sent.
    #[must_use]
    pub fn sends_at(&self) -> Boot {
        let Role::Leader(leader) = &self.role else {
            return Boot::NEVER;
        };
        let last = self.log.last().slot;
        let spare = self.spare().filter(|spare| spare.next <= last);
        let entries_at = spare.map_or(Boot::NEVER, Progress::spared_until);
        let settled = self.settled_here();
        let untold = |follower: &Progress| {
            follower.mode == Mode::Stream && is_untold(follower, &self.config, self.commit, settled)
        };
        if leader.followers.iter().any(untold) {
            entries_at.min(leader.commit_rose_at.after(COMMIT_NOTICE_AFTER))
        } else {
            entries_at
        }
    }

    pub(super) fn on_accepted(&mut self, now: Boot, from: NodeId, accepted: &Accepted) {
        let last = self.log.last().slot;
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(follower) = leader.followers.iter_mut().find(|follower| follower.node == from) else {
            return;
        };
        if accepted.ballot != self.promised || accepted.matched > last {
            return;
        }
        follower.acknowledge(now, accepted.matched);
        (follower.votes, follower.stores) = (accepted.votes, accepted.stores);
        let base = self.log.base().slot;
        match follower.mode {
            Mode::Probe(_) | Mode::Invite(_) => {
                follower.next = accepted.matched.next();
                follower.mode = Mode::Stream;
            }
            Mode::Stream => follower.next = follower.next.max(accepted.matched.next()),
            Mode::Snapshot if accepted.matched >= base => {
                follower.probe(accepted.matched.next(), None);
                follower.mode = Mode::Stream;
            }
            Mode::Snapshot => {}
        }
        let mut others = leader.followers.iter().filter(|other| other.node != from);
        if others.all(|other| other.matched < accepted.matched) {
            leader.ahead = Some(from);
        }
        self.advance_commit(now);
    }

    /// Raises the commit position to what a quorum has durably.
    pub(super) fn advance_commit(&mut self, now: Boot) {
        let quorum = self.quorum();
        let own = self.votes().then_some(self.durable);
        let Self { role: Role::Leader(leader), config, .. } = self else {
            return;
        };
        let voters = leader.followers.iter().filter(|follower| follower.votes && follower.is_in(config));
        let mut durable: ArrayVec<Slot, MEMBERS_MAX> = voters.map(|follower| follower.matched).collect();
        durable.extend(own);
        durable.sort_unstable_by(|a, b| b.cmp(a));
        let on_quorum = if planted::active(Planted::AcknowledgeBeforeQuorum) {
            self.durable
        } else {
            durable.get(quorum - 1).copied().unwrap_or(Slot::ZERO)
        };
        let own = on_quorum >= leader.first || planted::active(Planted::CommitInherited);
        if own && on_quorum > self.commit {
            self.commit = on_quorum;
            leader.commit_rose_at = now;
        }
    }

    pub(super) fn on_rejected(
        &mut self,
        now: Boot,
        from: NodeId,
        rejected: &Rejected,
        out: &mut Vec<Output>,
    ) {
        self.highest_seen = self.highest_seen.max(rejected.promised);
        let (end, is_member) = (self.log.last().slot, self.is_member(from));
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if rejected.ballot != self.promised {
            return;
        }
        if rejected.promised > self.promised && !is_member {
            // It followed another one, or stood itself, and cannot be a learner of this leader.
            leader.outbid_by = Some(from);
            return self.dismiss();
        }
        if rejected.promised > self.promised {
            return self.become_follower(now, None, out);
        }
        let Some(follower) = leader.followers.iter_mut().find(|follower| follower.node == from) else {
            return;
        };
        if matches!(follower.mode, Mode::Snapshot | Mode::Invite(_)) {
            return;
        }
        match rejected.reason {
            Rejection::Ballot => {}
            // A log that is longer than ours has a tail of an older ballot: whether it equals ours up to our
            // end, an Accept finds out.
            Rejection::Gap(last) => follower.probe(last.min(end).next(), None),
            Rejection::Conflict(commit) => follower.probe(commit.next(), None),
            Rejection::Busy(last) => follower.probe(last.min(end).next(), Some(now)),
            Rejection::Stuck(last) => {
                follower.probe(last.min(end).next(), Some(now));
                if self.config.stores(from) {
                    follower.mode = Mode::Snapshot;
                    out.push(Output::NeedsSnapshot { to: from });
                }
            }
        }
    }

    /// A snapshot to a follower ended, one way or the other: find out how far it is.
    pub fn snapshot_ended(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        if let Some(follower) = leader.followers.iter_mut().find(|follower| follower.node == to)
            && follower.mode == Mode::Snapshot
        {
            follower.probe(follower.matched.next(), None);
        }
    }

    /// Whether a follower is being sent a snapshot and has not reached the log with it.
    #[must_use]
    pub fn awaits_snapshot(&self, to: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        leader.followers.iter().any(|follower| follower.node == to && follower.mode == Mode::Snapshot)
    }

    /// Whether a partition's state on its way to a member or learner has not been taken by it yet.
    #[must_use]
    pub fn awaits_state(&self, to: NodeId) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let mut followers = leader.followers.iter();
        followers.any(|follower| follower.node == to && (follower.mode == Mode::Snapshot || !follower.stores))
    }

    /// The link to a member was lost: what was under way to it is lost, too.
    pub fn link_lost(&mut self, to: NodeId) {
        let Role::Leader(leader) = &mut self.role else {
            return;
        };
        let Some(follower) = leader.followers.iter_mut().find(|follower| follower.node == to) else {
            return;
        };
        match follower.mode {
            Mode::Snapshot | Mode::Invite(_) => {}
            // It has not answered yet: `matched` says nothing of it, and the log may not go back that far.
            Mode::Probe(_) => follower.probe(follower.next, None),
            Mode::Stream => follower.probe(follower.matched.next(), None),
        }
    }

    /// What a leader says of this group in a heartbeat.
    #[must_use]
    pub fn heartbeat(&self, now: Boot) -> Option<HeartbeatGroup> {
        self.is_leader().then(|| HeartbeatGroup {
            partition: self.partition(),
            epoch: self.epoch(),
            ballot: self.promised,
            commit: self.commit,
            holds_lease: self.holds_lease(now),
        })
    }

    /// A member granted the lease that was asked for at `sent_at` under `ballot`.
    ///
    /// # Panics
    /// When it was asked for later than now: a grant counts from before it was given.
    pub fn on_grant(&mut self, now: Boot, from: NodeId, ballot: Ballot, sent_at: Boot) {
        assert!(sent_at <= now, "a lease is granted after it was asked for");
        let promised = self.promised;
        if let Role::Leader(leader) = &mut self.role
            && ballot == promised
            && let Some(follower) = leader.followers.iter_mut().find(|follower| follower.node == from)
        {
            let counted = if planted::active(Planted::LeaseFromReceipt) { now } else { sent_at };
            follower.granted_at = follower.granted_at.max(Some(counted));
        }
    }

    /// A member refused a lease because it has promised another ballot.
    pub fn on_lease_refused(&mut self, now: Boot, from: NodeId, promised: Ballot, out: &mut Vec<Output>) {
        self.highest_seen = self.highest_seen.max(promised);
        if promised > self.promised {
            if self.is_leader() {
                self.become_follower(now, None, out);
            }
        } else if promised != Ballot::ZERO && promised < self.promised {
            // It has not promised us yet: an Accept makes it.
            self.link_lost(from);
        }
    }

    pub(super) fn tick_leader(&mut self, now: Boot, out: &mut Vec<Output>) {
        let Role::Leader(leader) = &self.role else {
            return;
        };
        let until = leader.lease_until(&self.config, |_| None).unwrap_or(Boot(0)).max(leader.since);
        if now >= until.after(LEASE_TERM) {
            self.become_follower(now, None, out);
        }
    }

    /// Gives the lease up in favour of the follower that is best prepared: it serves without waiting. Returns
    /// whether one was found.
    pub fn hand_over(&mut self, now: Boot, out: &mut Vec<Output>) -> bool {
        let last = self.log.last().slot;
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let prepared = leader.followers.iter().filter(|follower| {
            let may_lead = follower.votes && follower.stores && self.config.stores(follower.node);
            may_lead && follower.matched == last
        });
        let Some(chosen) = prepared.max_by_key(|follower| follower.granted_at) else {
            return false;
        };
        let wait_us = leader.serve_after.since(now).as_micros() as u64;
        let relinquished = Relinquished { ballot: self.promised, wait_us };
        let to = chosen.node;
        self.become_follower(now, Some(to), out);
        self.send(to, Message::HandOver(HandOver { relinquished }), out);
        true
    }

    /// Whether a member with items can get what it lacks by a snapshot only.
    #[must_use]
    pub fn owes_a_snapshot(&self) -> bool {
        let Role::Leader(leader) = &self.role else {
            return false;
        };
        let mut storing = leader.followers.iter().filter(|follower| self.config.stores(follower.node));
        storing.any(|follower| follower.mode == Mode::Snapshot)
    }

    /// Leads no more, and is the last to stand again: this leader cannot give a member what that one lacks,
    /// which may find it in another's log when it stands itself.
    pub fn step_aside(&mut self, now: Boot, out: &mut Vec<Output>) {
        if self.is_leader() {
            self.become_follower(now, None, out);
            self.let_others_stand_first();
        }
    }

    /// The other members, and the learner, as a leader sees them.
    #[must_use]
    pub fn followers(&self, now: Boot) -> Vec<FollowerStatus> {
        let Role::Leader(leader) = &self.role else {
            return Vec::new();
        };
        let status = |follower: &Progress| FollowerStatus {
            node: follower.node,
            matched: follower.matched,
            heard_ms_ago: follower.granted_at.map(|at| now.since(at).as_millis() as u64),
            snapshot: follower.mode == Mode::Snapshot,
        };
        leader.followers.iter().map(status).collect()
    }

    /// Whether the leader's first entry is committed.
    pub(super) fn has_committed_own(&self) -> bool {
        matches!(&self.role, Role::Leader(leader) if self.commit >= leader.first)
    }

    pub(super) fn leadership(&mut self) -> Option<&mut Leader> {
        match &mut self.role {
            Role::Leader(leader) => Some(leader),
            Role::Follower(_) | Role::Candidate(_) => None,
        }
    }
}

/// Whether a follower is to be told a commit position, or a log replica what it need not keep.
fn is_untold(follower: &Progress, config: &GroupConfig, commit: Slot, settled: Slot) -> bool {
    follower.told_commit < commit
        || config.log_replicas.contains(&follower.node) && follower.told_settled < settled
}

/// Whether a follower has everything, knows that it is committed, and is known to.
pub(super) fn is_even(follower: &Progress, config: &GroupConfig, commit: Slot) -> bool {
    let told = follower.matched == commit && !is_untold(follower, config, commit, commit);
    follower.votes && follower.mode == Mode::Stream && follower.in_flight.is_empty() && told
}

/// How many bytes may be sent to a follower now; none: nothing.
fn room(follower: &Progress, now: Boot, last: Slot) -> Option<usize> {
    match follower.mode {
        Mode::Snapshot | Mode::Invite(_) => None,
        Mode::Probe(Some(sent_at)) if now.since(sent_at) < RESEND_AFTER => None,
        Mode::Probe(_) => Some(ACCEPT_BYTES_MAX / 8),
        Mode::Stream if follower.next <= last && follower.window_is_open() => Some(ACCEPT_BYTES_MAX),
        Mode::Stream => None,
    }
}

fn note_sent(follower: &mut Progress, now: Boot, last: Slot, bytes: usize) {
    match follower.mode {
        Mode::Probe(_) => follower.mode = Mode::Probe(Some(now)),
        Mode::Stream | Mode::Snapshot | Mode::Invite(_) => {
            if follower.in_flight.is_empty() {
                follower.progress_at = now;
            }
            follower.next = last.next();
            follower.sent_at = now;
            follower.in_flight.push_back((last, bytes));
            follower.in_flight_bytes += bytes;
        }
    }
}
