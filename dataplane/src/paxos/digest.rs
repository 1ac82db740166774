//! What decides a replica's future, as a hash.
//!
//! Two replicas of one member with the same digest do the same from now on, given the same inputs: whoever
//! explores states need look at one of them only. So it holds what later steps depend on and nothing else.
//! Instants enter as far as anything still depends on them: what is left until a deadline, and how long ago
//! something was, up to the longest time that is ever asked for. The log's entries are named by their hash
//! chain. Left out are the generator, because what it gives is a choice, and of the configuration what does
//! not change.
//!
//! Every structure is taken apart field by field, so that a new field does not compile before somebody has
//! decided whether it belongs here.

use super::candidate::Candidate;
use super::follower::Follower;
use super::leader::{Leader, Mode, Progress};
use super::refill::{ASK_EVERY, Refill};
use super::{Replica, Role};
use crate::limits::{
    COMMIT_NOTICE_AFTER, FORGETFUL_STANDS_AFTER, LEASE_TERM, PREPARE_AGAIN_AFTER, RESEND_AFTER, SPARE_EVERY,
};
use evenkeel_wire::message::peer::{LogEnd, Promise, Relinquished};
use evenkeel_wire::turn::Boot;
use std::hash::{Hash, Hasher};
use std::time::Duration;

/// A leader without a lease gives up one term after the lease has run out: nothing older than this matters.
const GRANT_MATTERS_FOR: Duration = LEASE_TERM.saturating_mul(2);

impl Replica {
    /// Feeds `hasher` with what decides what this replica does from now on.
    pub fn digest(&self, now: Boot, hasher: &mut impl Hasher) {
        let Self {
            config: _,
            memberships,
            settled,
            stores,
            core: _,
            heard_at,
            stranger,
            node: _,
            promised,
            promised_durable,
            previous,
            highest_seen,
            log,
            durable,
            commit,
            timestamp,
            marks,
            role,
            matched,
            owed,
            refill,
            seek,
            not_before,
            prng: _,
        } = self;
        (promised, promised_durable, previous, highest_seen).hash(hasher);
        (log.base().slot, log.last().slot, log.last().hash).hash(hasher);
        (durable, commit, timestamp, matched).hash(hasher);
        (memberships, settled, stores, stranger).hash(hasher);
        marks.hash(hasher);
        owed.hash(hasher);
        not_before.since(now).hash(hasher);
        assert!(seek.is_none(), "no snapshot comes where digests are taken, so no log is sought");
        match role {
            Role::Follower(follower) => (0u8, digest_follower(follower, now)).hash(hasher),
            Role::Candidate(candidate) => {
                1u8.hash(hasher);
                digest_candidate(candidate, now, hasher);
            }
            Role::Leader(leader) => {
                2u8.hash(hasher);
                digest_leader(leader, now, hasher);
            }
        }
        if let Some(Refill { nonce, asked_at, goal }) = refill {
            (nonce, asked_at.map(|at| age(now, at, ASK_EVERY)), goal).hash(hasher);
            // Nobody else asks for it, but who tends replicas.
            age(now, *heard_at, FORGETFUL_STANDS_AFTER).hash(hasher);
        }
    }
}

/// How long ago `at` was; what is at least `most` ago is all the same.
fn age(now: Boot, at: Boot, most: Duration) -> Duration {
    now.since(at).min(most)
}

/// How long it is until `at`; what is past is all the same.
fn left(now: Boot, at: Boot) -> Duration {
    at.since(now)
}

fn digest_follower(follower: &Follower, now: Boot) -> impl Hash + use<> {
    let Follower { leader, told, lease_stated_at, behind_at, deadline, asking, stands_at_once } = follower;
    let stated = lease_stated_at.map(|at| age(now, at, LEASE_TERM)).filter(|age| *age < LEASE_TERM);
    (*leader, *told, stated, *behind_at, left(now, *deadline), *asking, *stands_at_once)
}

fn digest_candidate(candidate: &Candidate, now: Boot, hasher: &mut impl Hasher) {
    let Candidate { deadline, relinquished, asked_at, promises, quorum_at, adopting, lacking } = candidate;
    (left(now, *deadline), asked_at.map(|at| age(now, at, PREPARE_AGAIN_AFTER))).hash(hasher);
    for (node, promise) in promises {
        // Those of other lives are not taken.
        let Promise { ballot, previous, last, last_hash, commit, life: _ } = promise;
        (node, ballot, previous, end(last), last_hash, commit).hash(hasher);
    }
    promises.len().hash(hasher);
    // A candidate gives up before any of these is old enough not to matter.
    quorum_at.map(|at| now.since(at)).hash(hasher);
    if let Some((Relinquished { ballot, wait_us }, came_at)) = relinquished {
        (ballot, wait_us, now.since(*came_at)).hash(hasher);
    }
    adopting.as_ref().map(|(node, goal)| (*node, end(goal))).hash(hasher);
    lacking.hash(hasher);
}

fn digest_leader(leader: &Leader, now: Boot, hasher: &mut impl Hasher) {
    let Leader { since, serve_after, first, followers, ahead, commit_rose_at, prospect, outbid_by, rejoin } =
        leader;
    (age(now, *since, LEASE_TERM), left(now, *serve_after), first, ahead).hash(hasher);
    (age(now, *commit_rose_at, COMMIT_NOTICE_AFTER), prospect, outbid_by, rejoin).hash(hasher);
    for follower in followers {
        let Progress {
            node,
            next,
            matched,
            votes,
            stores,
            mode,
            in_flight,
            in_flight_bytes: _,
            progress_at,
            sent_at,
            told_commit,
            told_settled,
            granted_at,
        } = follower;
        let mode = match mode {
            Mode::Probe(None) | Mode::Invite(None) => None,
            Mode::Probe(Some(sent_at)) | Mode::Invite(Some(sent_at)) => {
                Some(age(now, *sent_at, RESEND_AFTER)).filter(|age| *age < RESEND_AFTER)
            }
            Mode::Stream => Some(Duration::MAX),
            Mode::Snapshot => Some(Duration::MAX - Duration::from_nanos(1)),
        };
        let progress = (!in_flight.is_empty()).then(|| age(now, *progress_at, RESEND_AFTER));
        let sent = Some(age(now, *sent_at, SPARE_EVERY)).filter(|age| *age < SPARE_EVERY);
        let granted = granted_at.map(|at| age(now, at, GRANT_MATTERS_FOR));
        let invited = matches!(follower.mode, Mode::Invite(_));
        (node, next, matched, votes, stores, invited).hash(hasher);
        (mode, progress, sent, told_commit, told_settled, granted).hash(hasher);
        in_flight.hash(hasher);
    }
}

fn end(end: &LogEnd) -> impl Hash + use<> {
    let LogEnd { ballot, slot } = *end;
    (ballot, slot)
}

#[cfg(test)]
mod tests {
    use super::super::log::GroupLog;
    use super::super::{Message, Output, Seed};
    use super::*;
    use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, NodeId, PartitionId, Slot, TableId};
    use evenkeel_wire::message::peer::{LogPoint, Prepare};
    use evenkeel_wire::prng::Prng;
    use evenkeel_wire::table::{GroupConfig, Member};
    use std::hash::DefaultHasher;

    fn replica(now: Boot, seed: u64) -> Replica {
        let member =
            |number| Member { node: NodeId(number), core: CoreId(0), incarnation: Incarnation([0; 16]) };
        let config = GroupConfig::whole(PartitionId(1), TableId(1), (1..=3).map(member).collect());
        let log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        let (promised, commit) = (Ballot::ZERO, Slot::ZERO);
        let seed_of = Seed { config, promised, log, commit, timestamp: 0, refilling: false, stores: true };
        Replica::new(seed_of, NodeId(2), now, Prng::new(seed))
    }

    fn digest(replica: &Replica, now: Boot) -> u64 {
        let mut hasher = DefaultHasher::new();
        replica.digest(now, &mut hasher);
        hasher.finish()
    }

    #[test]
    fn only_what_is_left_of_a_deadline_counts() {
        let (early, late) = (Boot(1_000), Boot(9_000_000_000_000));
        assert_eq!(digest(&replica(early, 1), early), digest(&replica(late, 1), late));
        let half = early.after(Duration::from_millis(500));
        assert_ne!(digest(&replica(early, 1), early), digest(&replica(early, 1), half));
        let (past, long_past) = (early.after(LEASE_TERM), early.after(LEASE_TERM * 9));
        let replica = replica(early, 1);
        assert_eq!(digest(&replica, past), digest(&replica, long_past), "a deadline that is past is past");
    }

    #[test]
    fn a_promise_and_its_durability_count() {
        let now = Boot(1_000);
        let mut replica = replica(now, 1);
        let mut out = Vec::new();
        let before = digest(&replica, now);
        let ballot = Ballot { round: 1, node: NodeId(3) };
        replica.receive(now, NodeId(3), Message::Prepare(Prepare { ballot, life: 0 }), &mut out);
        let promised = digest(&replica, now);
        assert!(matches!(out[..], [Output::Persist(_)]));
        replica.persisted(now, &mut out);
        assert_ne!(promised, before);
        assert_ne!(promised, digest(&replica, now));
    }
}
