//! The follower's side: hearing the leader, suspecting it, and asking the peers before doing anything about
//! it.

use super::{Message, Output, Replica, Role};
use crate::limits::{
    BROKEN_JITTER, BROKEN_STAGGER, LEASE_TERM, SUSPECT_AFTER, SUSPECT_ANSWER_WITHIN, SUSPECT_JITTER,
    SUSPECT_STAGGER,
};
use crate::planted::{self, Planted};
use evenkeel_wire::ids::{Ballot, NodeId, Slot};
use evenkeel_wire::message::peer::{
    HeartbeatGroup, Rejected, Rejection, Relinquished, Suspect, SuspectAnswer,
};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// A follower's view of its leader.
#[derive(Clone, Debug)]
pub(super) struct Follower {
    /// Who leads, if that is known.
    pub(super) leader: Option<NodeId>,
    /// The last `matched` that the leader was told.
    pub(super) told: Slot,
    /// When the leader's latest frame said that it holds a quorum lease; none if it said that it does not.
    pub(super) lease_stated_at: Option<Boot>,
    /// How far the log was known to match when the last heartbeat found it behind the commit position.
    pub(super) behind_at: Option<Slot>,
    /// When to act on the leader's silence.
    pub(super) deadline: Boot,
    /// Whether the peers have been asked about the leader.
    pub(super) asking: bool,
    /// Nobody was ever promised anything here, and this member is to lead: stand without asking.
    pub(super) stands_at_once: bool,
}

impl Follower {
    pub(super) fn new(now: Boot, rank: usize, stands_at_once: bool, prng: &mut Prng) -> Self {
        let patience = if stands_at_once { Duration::ZERO } else { patience(rank, prng) };
        Self {
            leader: None,
            told: Slot::ZERO,
            lease_stated_at: None,
            behind_at: None,
            deadline: now.after(patience),
            asking: false,
            stands_at_once,
        }
    }

    /// Whether nothing is missing but the leader's next word.
    pub(super) fn is_at_rest(&self, leader: NodeId, matched: Slot) -> bool {
        let heard = self.leader == Some(leader) && self.lease_stated_at.is_some() && !self.asking;
        heard && self.behind_at.is_none() && self.told >= matched
    }

    /// Whether the leader's latest frame said, within one term, that it holds a quorum lease.
    fn knows_healthy_leader(&self, now: Boot) -> bool {
        let stale = planted::active(Planted::StaleHealth);
        self.lease_stated_at.is_some_and(|at| now.since(at) < LEASE_TERM || stale)
    }
}

fn patience(rank: usize, prng: &mut Prng) -> Duration {
    let jitter = Duration::from_nanos(prng.below(SUSPECT_JITTER.as_nanos() as u64));
    SUSPECT_AFTER + SUSPECT_STAGGER * rank as u32 + jitter
}

impl Replica {
    /// Notes that the leader of the promised ballot has spoken.
    pub(super) fn hear_leader(&mut self, now: Boot, from: NodeId, out: &mut Vec<Output>) {
        if !matches!(self.role, Role::Follower(_)) {
            self.become_follower(now, Some(from), out);
        }
        self.owed.promise = None;
        self.heard_at = now;
        let patience = patience(self.rank(), &mut self.prng);
        if let Role::Follower(follower) = &mut self.role {
            follower.leader = Some(from);
            follower.deadline = now.after(patience);
            follower.asking = false;
            follower.stands_at_once = false;
        }
    }

    /// The link to a member broke. If that one leads, what it said of its lease counts no more, and the peers
    /// are asked soon: they call it healthy if only this one link is concerned.
    pub fn leader_link_lost(&mut self, now: Boot, to: NodeId) {
        let rank = self.rank() as u32;
        let jitter = Duration::from_nanos(self.prng.below(BROKEN_JITTER.as_nanos() as u64));
        if let Role::Follower(follower) = &mut self.role
            && follower.leader == Some(to)
        {
            follower.lease_stated_at = None;
            follower.deadline = follower.deadline.min(now.after(BROKEN_STAGGER * rank + jitter));
        }
    }

    /// Waits longer than any other member would: this one has stood and cannot lead. Otherwise the one of the
    /// lowest rank would stand again and again, and keep the others from it.
    pub(super) fn let_others_stand_first(&mut self) {
        if let Role::Follower(follower) = &mut self.role {
            follower.deadline = follower.deadline.after(SUSPECT_AFTER);
        }
    }

    /// A leader renews its lease. Grants it, or says which ballot is promised instead (zero: no vote).
    ///
    /// # Errors
    /// The promised ballot, when no lease is granted.
    pub fn on_heartbeat(
        &mut self,
        now: Boot,
        from: NodeId,
        group: &HeartbeatGroup,
        out: &mut Vec<Output>,
    ) -> Result<(), Ballot> {
        let other = group.ballot != self.promised && !planted::active(Planted::RenewAnyBallot);
        if other || group.ballot.node != from {
            self.highest_seen = self.highest_seen.max(group.ballot);
            return Err(self.promised);
        }
        self.hear_leader(now, from, out);
        if let Role::Follower(follower) = &mut self.role {
            follower.lease_stated_at = group.holds_lease.then_some(now);
        }
        self.learn_commit(group.commit);
        self.complain_if_behind(from, group.commit, out);
        if self.is_refilling() { Err(Ballot::ZERO) } else { Ok(()) }
    }

    /// Asks for what is missing, when two heartbeats in a row found this log behind the commit position and
    /// without progress: an Accept was lost, or this replica has restarted and does not know how much of its
    /// log matches.
    fn complain_if_behind(&mut self, leader: NodeId, commit: Slot, out: &mut Vec<Output>) {
        let (matched, behind) = (self.matched, commit > self.commit);
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let stuck = behind && follower.behind_at == Some(matched);
        follower.behind_at = behind.then_some(matched);
        if stuck {
            let reason = Rejection::Gap(self.log.last().slot);
            let rejected = Rejected { ballot: self.promised, promised: self.promised, reason };
            self.send(leader, Message::Rejected(rejected), out);
        }
    }

    pub(super) fn tick_follower(&mut self, now: Boot, out: &mut Vec<Output>) {
        let may_lead = self.may_lead(now);
        let alone = self.others().next().is_none();
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        if now < follower.deadline || !may_lead {
            return;
        }
        if follower.stands_at_once || alone {
            return self.stand(now, None, out);
        }
        follower.asking = true;
        follower.deadline = now.after(SUSPECT_ANSWER_WITHIN);
        let suspect = Message::Suspect(Suspect { promised: self.promised });
        self.send_others(&suspect, out);
    }

    pub(super) fn on_suspect(&mut self, now: Boot, from: NodeId, out: &mut Vec<Output>) {
        let healthy = match &self.role {
            Role::Leader(_) => self.holds_lease(now),
            Role::Follower(follower) => follower.knows_healthy_leader(now),
            Role::Candidate(_) => false,
        };
        self.send(from, Message::SuspectAnswer(SuspectAnswer { healthy }), out);
    }

    pub(super) fn on_suspect_answer(&mut self, now: Boot, healthy: bool, out: &mut Vec<Output>) {
        let may_lead = self.may_lead(now);
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        if !follower.asking {
            return;
        }
        follower.asking = false;
        if healthy || !may_lead {
            // It may have died since it said so: ask again soon.
            follower.deadline = now.after(SUSPECT_ANSWER_WITHIN);
        } else {
            self.stand(now, None, out);
        }
    }

    pub(super) fn on_hand_over(
        &mut self,
        now: Boot,
        from: NodeId,
        relinquished: Relinquished,
        out: &mut Vec<Output>,
    ) {
        let given_up = relinquished.ballot == self.promised && relinquished.ballot.node == from;
        if given_up && self.may_lead(now) && matches!(self.role, Role::Follower(_)) {
            self.stand(now, Some(relinquished), out);
        }
    }

    /// Who leads, as far as this replica knows.
    #[must_use]
    pub fn leader(&self) -> Option<NodeId> {
        match &self.role {
            Role::Leader(_) => Some(self.node),
            Role::Follower(follower) => follower.leader,
            Role::Candidate(_) => None,
        }
    }
}
