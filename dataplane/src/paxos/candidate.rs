//! Standing for election: promises, and adopting the best log among them.

use super::leader::Leader;
use super::{MEMBERS_MAX, Mark, Message, Output, Replica, Role};
use crate::limits::{CANDIDATE_PATIENCE, LEASE_DRIFT, LEASE_TERM, PREPARE_AGAIN_AFTER};
use crate::planted::{self, Planted};
use crate::wal::record::RecordBody;
use arrayvec::ArrayVec;
use bytes::Bytes;
use evenkeel_wire::ids::{Ballot, NodeId};
use evenkeel_wire::message::peer::{Fetch, LogEnd, LogPoint, Prepare, Promise, Relinquished};
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// A candidacy.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// When to give up and try again.
    pub(super) deadline: Boot,
    /// The proof that the former leader gave up its lease, and when it came.
    pub(super) relinquished: Option<(Relinquished, Boot)>,
    /// When Prepare was last sent: only once the own promise is durable, so that no ballot is ever used
    /// twice.
    pub(super) asked_at: Option<Boot>,
    pub(super) promises: ArrayVec<(NodeId, Promise), MEMBERS_MAX>,
    pub(super) quorum_at: Option<Boot>,
    /// From whom the log is being adopted, and up to where.
    pub(super) adopting: Option<(NodeId, LogEnd)>,
    /// Who no longer has in its log what is missing here.
    pub(super) lacking: ArrayVec<NodeId, MEMBERS_MAX>,
}

impl Replica {
    /// Stands for election.
    pub(super) fn stand(&mut self, now: Boot, relinquished: Option<Relinquished>, out: &mut Vec<Output>) {
        let ballot = self.promised.max(self.highest_seen).successor(self.node);
        self.promise(now, ballot, None, out);
        let jitter = Duration::from_nanos(self.prng.below(CANDIDATE_PATIENCE.as_nanos() as u64));
        self.role = Role::Candidate(Candidate {
            deadline: now.after(CANDIDATE_PATIENCE + jitter),
            relinquished: relinquished.map(|proof| (proof, now)),
            asked_at: None,
            promises: ArrayVec::new(),
            quorum_at: None,
            adopting: None,
            lacking: ArrayVec::new(),
        });
        self.persist(Mark::Promise(ballot), RecordBody::Promise, out);
    }

    pub(super) fn tick_candidate(&mut self, now: Boot, out: &mut Vec<Output>) {
        let Role::Candidate(candidate) = &self.role else {
            return;
        };
        if now >= candidate.deadline {
            return self.become_follower(now, None, out);
        }
        let long_ago = candidate.asked_at.is_some_and(|at| now.since(at) >= PREPARE_AGAIN_AFTER);
        // A forgetful candidate is refused the second time, if the answer to the first is on its way.
        let unanswered = long_ago && !self.is_refilling();
        if unanswered && candidate.quorum_at.is_none() {
            self.ask_for_promises(now, out);
        }
    }

    fn ask_for_promises(&mut self, now: Boot, out: &mut Vec<Output>) {
        if let Role::Candidate(candidate) = &mut self.role {
            candidate.asked_at = Some(now);
        }
        let prepare = Message::Prepare(Prepare { ballot: self.promised, life: self.life() });
        let Role::Candidate(Candidate { promises, .. }) = &self.role else {
            return;
        };
        // Who has promised a forgetful candidate refuses it the second time.
        let spared = if self.is_refilling() { &promises[..] } else { &[] };
        for member in self.others().filter(|member| !spared.iter().any(|(from, _)| *from == member.node)) {
            self.send(member.node, prepare.clone(), out);
        }
    }

    pub(super) fn on_promise(&mut self, now: Boot, from: NodeId, promise: Promise, out: &mut Vec<Output>) {
        let life = self.life();
        let Role::Candidate(candidate) = &mut self.role else {
            return;
        };
        let known = candidate.promises.iter().any(|(node, _)| *node == from);
        let is_answer = promise.ballot == self.promised && promise.life == life;
        if !is_answer || known || candidate.promises.is_full() {
            return;
        }
        candidate.promises.push((from, promise));
        self.advance_candidate(now, out);
    }

    pub(super) fn on_refuse(&mut self, now: Boot, promised: Ballot, out: &mut Vec<Output>) {
        self.highest_seen = self.highest_seen.max(promised);
        let outbid = promised > self.promised || promised == self.promised && self.is_refilling();
        if outbid && matches!(self.role, Role::Candidate(_)) {
            self.become_follower(now, None, out);
        }
    }

    pub(super) fn advance_candidate(&mut self, now: Boot, out: &mut Vec<Output>) {
        let quorum = self.quorum();
        let own_end = self.log.end();
        let own = self.votes().then_some(self.node);
        let Role::Candidate(Candidate { asked_at, adopting, .. }) = &self.role else {
            return;
        };
        if self.promised_durable < self.promised || adopting.is_some() {
            return;
        }
        if asked_at.is_none() {
            self.ask_for_promises(now, out);
        }
        let Self { role: Role::Candidate(candidate), config, .. } = self else {
            return;
        };
        // Its own promise is a lone member's quorum: no answer will come that could be waited for.
        let promised = candidate.promises.iter().map(|(from, _)| *from).chain(own);
        let promised = promised.filter(|node| config.members.iter().any(|member| member.node == *node));
        if promised.count() < quorum {
            return;
        }
        candidate.quorum_at.get_or_insert(now);
        let best = candidate.promises.iter().map(|(_, promise)| promise.last).max_by_key(|last| worth(*last));
        let Some(best) = best.filter(|best| worth(*best) > worth(own_end)) else {
            return self.lead(now, out);
        };
        let as_good = candidate.promises.iter().filter(|(_, promise)| worth(promise.last) == worth(best));
        let source = as_good.map(|(from, _)| *from).rfind(|from| !candidate.lacking.contains(from));
        let all_promised = candidate.promises.len() + 1 >= config.members.len();
        match source {
            Some(source) => {
                candidate.adopting = Some((source, best));
                let commit = self.log.point(self.commit).expect("what is committed is at hand or the base");
                self.fetch(commit, out);
            }
            // Who has yet to promise may have what the others have trimmed.
            None if !all_promised => {}
            // It takes somebody who lacks less to lead.
            None => {
                self.become_follower(now, None, out);
                self.let_others_stand_first();
            }
        }
    }

    fn fetch(&mut self, after: LogPoint, out: &mut Vec<Output>) {
        let Role::Candidate(Candidate { adopting: Some((from, _)), .. }) = &self.role else {
            return;
        };
        self.send(*from, Message::Fetch(Fetch { ballot: self.promised, after }), out);
    }

    pub(super) fn on_fetched(
        &mut self,
        now: Boot,
        from: NodeId,
        ballot: Ballot,
        previous: LogPoint,
        entries: Vec<Bytes>,
        out: &mut Vec<Output>,
    ) {
        let Role::Candidate(Candidate { adopting: Some((source, goal)), .. }) = &self.role else {
            return;
        };
        if ballot != self.promised || from != *source || self.log.hash(previous.slot) != Some(previous.hash) {
            return;
        }
        let goal = *goal;
        let last = self.log.last();
        if entries.is_empty() && previous.slot < last.slot {
            // Its log begins behind what is known here to be committed, perhaps within what was accepted. It
            // is a log replica then: nobody else has what is missing, and it cannot lead.
            return self.fetch(last, out);
        }
        // Without entries the source has trimmed its log.
        if entries.is_empty() || self.adopt(&entries, out).is_err() {
            if let Role::Candidate(candidate) = &mut self.role {
                candidate.adopting = None;
                candidate.lacking.push(from);
            }
            return self.advance_candidate(now, out);
        }
        if self.log.end() >= goal {
            // What was adopted may say that others are members: then it needs a quorum of those.
            if let Role::Candidate(candidate) = &mut self.role {
                candidate.adopting = None;
            }
            return self.advance_candidate(now, out);
        }
        let last = self.last_of(&entries).unwrap_or(previous);
        self.fetch(last, out);
    }

    /// The point of the last of `entries`, which are in the log.
    fn last_of(&self, entries: &[Bytes]) -> Option<LogPoint> {
        let entry = evenkeel_wire::entry::Entry::take(&mut entries.last()?.clone()).ok()?;
        self.log.point(entry.header.slot)
    }

    /// Leads under the promised ballot: every older lease is waited out, and a no-op commits what was found.
    fn lead(&mut self, now: Boot, out: &mut Vec<Output>) {
        if !self.has_what_leaders_need() {
            self.become_follower(now, None, out);
            return self.let_others_stand_first();
        }
        let Role::Candidate(candidate) = &self.role else {
            return;
        };
        let serve_after = serve_after(candidate, self.previous, now).max(self.not_before);
        let leader = Leader::new(self, now, serve_after, &candidate.promises);
        self.role = Role::Leader(leader);
        self.propose_noop(out);
    }
}

/// By which a log is chosen: what was proposed in a later ballot counts for more than length.
fn worth(end: LogEnd) -> LogEnd {
    if planted::active(Planted::AdoptLongest) { LogEnd { ballot: Ballot::ZERO, ..end } } else { end }
}

/// From when the new leader may serve: when no lease of an older ballot can be alive.
fn serve_after(candidate: &Candidate, previous: Ballot, now: Boot) -> Boot {
    let promises = candidate.promises.iter().map(|(_, promise)| promise.previous);
    let previous = promises.fold(previous, Ballot::max);
    let full_wait = candidate.quorum_at.unwrap_or(now).after(LEASE_TERM + LEASE_DRIFT);
    match &candidate.relinquished {
        // A lease needs a quorum of promises, and ours would have met one of them.
        _ if previous == Ballot::ZERO || planted::active(Planted::ServeWithoutWaiting) => now,
        Some((proof, came_at)) if previous <= proof.ballot => {
            came_at.after(Duration::from_micros(proof.wait_us))
        }
        Some(_) | None => full_wait,
    }
}

#[cfg(test)]
mod tests {
    use super::super::Seed;
    use super::super::log::GroupLog;
    use super::*;
    use evenkeel_wire::checksum::Hash128;
    use evenkeel_wire::entry::{Entry, EntryHeader, EntryKind};
    use evenkeel_wire::ids::{CoreId, Incarnation, PartitionId, Slot, TableId};
    use evenkeel_wire::prng::Prng;
    use evenkeel_wire::table::{GroupConfig, Member, Origin};

    const OLD: Ballot = Ballot { round: 1, node: NodeId(3) };
    const NOW: Boot = Boot(1_000_000_000);

    fn entry(log: &GroupLog) -> Entry {
        let header = EntryHeader {
            partition: PartitionId(1),
            slot: log.last().slot.next(),
            ballot: OLD,
            previous: log.last().hash,
            timestamp: 0,
            kind: EntryKind::Noop,
            payload_bytes: 0,
        };
        Entry::build(header, 0, |_| ())
    }

    fn member(node: u32) -> Member {
        Member { node: NodeId(node), core: CoreId(0), incarnation: Incarnation([0; 16]) }
    }

    /// Node 1 of `members`, of which `log_replicas` are, with this log: it stands, and has promised itself.
    fn standing(members: [u32; 3], log_replicas: &[u32], log: GroupLog, commit: Slot) -> Replica {
        let whole = GroupConfig::whole(PartitionId(1), TableId(1), members.map(member).into());
        let log_replicas = log_replicas.iter().copied().map(NodeId).collect();
        let config = GroupConfig { log_replicas, ..whole };
        let (promised, timestamp) = (OLD, 0);
        let seed = Seed { config, promised, log, commit, timestamp, refilling: false, stores: true };
        let mut replica = Replica::new(seed, NodeId(1), NOW, Prng::new(1));
        replica.stand(NOW, None, &mut Vec::new());
        replica.persisted(NOW, &mut Vec::new());
        replica
    }

    /// The promise of a member whose log ends with `last`, which is committed.
    fn promise(ballot: Ballot, last: &Entry) -> Message {
        let (slot, last_hash) = (last.header.slot, last.hash);
        let end = LogEnd { ballot: OLD, slot };
        Message::Promise(Promise { ballot, previous: OLD, last: end, last_hash, commit: slot, life: 0 })
    }

    #[test]
    fn a_log_replica_whose_log_begins_behind_the_commit_position_gives_what_is_missing() {
        let mut log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        for _ in 1..=6 {
            log.append(entry(&log));
        }
        let (accepted, seventh) = (log.last(), entry(&log));
        let (now, mut out) = (NOW, Vec::new());
        let mut replica = standing([1, 3, 5], &[5], log, Slot(5));
        let ballot = replica.promised();
        replica.receive(now, NodeId(5), promise(ballot, &seventh), &mut out);
        let fetches = |out: &mut Vec<Output>| {
            let fetch = |output| match output {
                Output::Send { message: Message::Fetch(fetch), .. } => Some(fetch.after),
                _ => None,
            };
            out.drain(..).filter_map(fetch).next()
        };
        let after = fetches(&mut out).unwrap();
        assert_eq!(after.slot, Slot(5), "the rest may be another one's");
        let nothing = Message::Fetched { ballot, previous: after, entries: vec![] };
        replica.receive(now, NodeId(5), nothing, &mut out);
        assert_eq!(fetches(&mut out), Some(accepted));
        let rest = Message::Fetched { ballot, previous: accepted, entries: vec![seventh.bytes] };
        replica.receive(now, NodeId(5), rest, &mut out);
        assert!(replica.is_leader() && replica.log().last().slot == Slot(8));
    }

    #[test]
    fn who_was_created_without_what_a_split_gave_it_does_not_begin_with_nothing() {
        let stands = |log: GroupLog| {
            let members: Vec<Member> = [1, 2, 3].map(member).into();
            let origin = Some(Origin { parent: PartitionId(7), slot: Slot(6) });
            let config = GroupConfig { origin, ..GroupConfig::whole(PartitionId(1), TableId(1), members) };
            let (promised, commit, timestamp) = (Ballot::ZERO, log.base().slot, 0);
            let seed = Seed { config, promised, log, commit, timestamp, refilling: false, stores: true };
            let mut replica = Replica::new(seed, NodeId(1), NOW, Prng::new(1));
            replica.tick(NOW, &mut Vec::new());
            replica.is_candidate()
        };
        let (born_at, hash) = (Slot(6), Hash128::of(b"the split"));
        assert!(stands(GroupLog::new(LogPoint { slot: born_at, hash }, OLD)));
        assert!(!stands(GroupLog::new(LogPoint::default(), Ballot::ZERO)), "another one may be as empty");
    }

    #[test]
    fn what_one_member_has_trimmed_is_asked_of_the_next_and_without_it_others_stand_first() {
        let log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        let first = entry(&log);
        let (now, mut out) = (NOW, Vec::new());
        let mut replica = standing([1, 2, 3], &[], log, Slot::ZERO);
        let ballot = replica.promised();
        let promise = promise(ballot, &first);
        let empty = Message::Fetched { ballot, previous: LogPoint::default(), entries: vec![] };
        replica.receive(now, NodeId(2), promise.clone(), &mut out);
        replica.receive(now, NodeId(2), empty.clone(), &mut out);
        assert!(replica.is_candidate(), "node 3 may have it");
        replica.receive(now, NodeId(3), promise, &mut out);
        let mut other = replica.clone();
        let entries = vec![first.bytes];
        let found = Message::Fetched { ballot, previous: LogPoint::default(), entries };
        replica.receive(now, NodeId(3), found, &mut out);
        assert!(replica.is_leader());
        other.receive(now, NodeId(3), empty, &mut out);
        assert!(!other.is_candidate() && !other.is_leader());
    }
}
