//! Coming back from damage: a replica whose log lost data below its durable watermark.
//!
//! It may have promised and accepted things that it no longer knows. If it voted, an entry that was committed
//! with its help could be voted away. So it takes entries and snapshots, but answers no Prepare, grants no
//! lease, and its acceptances do not count. It asks the leader to *rejoin*: the leader proposes an entry,
//! which can only be committed by the others, so the leader's ballot is then known to be above anything that
//! the others have promised, including promises for which this replica's forgotten word was needed. Once the
//! replica has that entry durable and knows it committed, it holds everything that it ever helped to commit,
//! and votes again.
//!
//! If it has the items and nobody else can lead (one other member has the log only, one begins without a
//! state), it stands itself: a proposer need be no acceptor. It counts the others' promises and acceptances,
//! not its own; of a group of three or four all others are that quorum. What it has in its log it did
//! accept, so it may adopt that as it would from one who promised. A ballot that it used before its loss was
//! promised by one of them, who then refuses it; an answer to what it asked in that life is none to this one.
//! When its first entry is committed, none of the others has promised more, and it votes.

use super::{Message, Output, Replica, Role};
use evenkeel_wire::ids::{Ballot, NodeId, Slot};
use evenkeel_wire::message::peer::{Rejoin, RejoinAnswer};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// How often the leader is asked.
pub(super) const ASK_EVERY: Duration = Duration::from_millis(500);

/// The way back of a damaged replica.
#[derive(Clone, Debug)]
pub(super) struct Refill {
    pub(super) nonce: u64,
    pub(super) asked_at: Option<Boot>,
    pub(super) goal: Option<(Ballot, Slot)>,
}

impl Refill {
    pub(super) fn new(prng: &mut Prng) -> Self {
        Self { nonce: prng.next_u64().max(1), asked_at: None, goal: None }
    }
}

impl Replica {
    pub(super) fn tick_refill(&mut self, now: Boot, out: &mut Vec<Output>) {
        let promised = self.promised;
        let Some(leader) = self.leader().filter(|leader| *leader != self.node) else {
            return;
        };
        let Some(refill) = &mut self.refill else {
            return;
        };
        if refill.goal.is_some_and(|(ballot, _)| ballot != promised) {
            refill.goal = None;
        }
        let asked = refill.asked_at.is_some_and(|at| now.since(at) < ASK_EVERY);
        if refill.goal.is_none() && !asked {
            refill.asked_at = Some(now);
            let nonce = refill.nonce;
            self.send(leader, Message::Rejoin(Rejoin { nonce }), out);
        }
    }

    pub(super) fn on_rejoin(&mut self, now: Boot, from: NodeId, rejoin: &Rejoin, out: &mut Vec<Output>) {
        if !self.has_committed_own() || !self.holds_lease(now) {
            return;
        }
        let known = self.leadership().and_then(|leader| leader.rejoin);
        let slot = match known {
            Some((node, nonce, slot)) if (node, nonce) == (from, rejoin.nonce) => slot,
            Some(_) | None => self.propose_noop(out),
        };
        if let Some(leader) = self.leadership() {
            leader.rejoin = Some((from, rejoin.nonce, slot));
        }
        let answer = RejoinAnswer { nonce: rejoin.nonce, ballot: self.promised, slot };
        self.send(from, Message::RejoinAnswer(answer), out);
    }

    pub(super) fn on_rejoin_answer(&mut self, answer: &RejoinAnswer) {
        if let Some(refill) = &mut self.refill
            && answer.nonce == refill.nonce
            && answer.ballot == self.promised
        {
            refill.goal = Some((answer.ballot, answer.slot));
        }
    }

    /// Lets the replica vote again once it has what it must have.
    pub(super) fn finish_refill(&mut self, now: Boot, out: &mut Vec<Output>) {
        let Some(refill) = &self.refill else {
            return;
        };
        let (matched, goal) = match &self.role {
            Role::Follower(_) => (self.matched, refill.goal),
            Role::Leader(leader) => (self.durable, Some((self.promised, leader.first))),
            Role::Candidate(_) => return,
        };
        let durable_promise = self.promised_durable == self.promised;
        let has_it = |slot| self.commit.min(self.durable).min(matched) >= slot;
        if durable_promise && goal.is_some_and(|(ballot, slot)| ballot == self.promised && has_it(slot)) {
            self.refill = None;
            self.owed.accepted = !self.is_leader();
            self.pay_accepted(out);
            self.advance_commit(now);
        }
    }

    /// Tells this replica's lives apart while it must not vote; zero for one that remembers all of them.
    pub(super) fn life(&self) -> u64 {
        self.refill.as_ref().map_or(0, |refill| refill.nonce)
    }
}
