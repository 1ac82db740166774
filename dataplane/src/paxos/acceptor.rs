//! The acceptor's side: promises, and entries accepted in slot order.

use super::log::Fit;
use super::{Mark, Message, Output, Replica, Role};
use crate::limits::ACCEPT_BYTES_MAX;
use crate::planted::{self, Planted};
use crate::wal::record::RecordBody;
use bytes::Bytes;
use evenkeel_wire::entry::{Entry, EntryError, EntryKind, Split};
use evenkeel_wire::ids::{Ballot, Epoch, NodeId, PartitionId, Slot};
use evenkeel_wire::membership::Membership;
use evenkeel_wire::message::peer::{
    Accepted, Fetch, LogPoint, Prepare, Promise, Refuse, Rejected, Rejection,
};
use evenkeel_wire::turn::Boot;

/// A leader's Accept, taken apart.
#[derive(Clone, Debug)]
pub(super) struct Proposal {
    pub(super) ballot: Ballot,
    pub(super) previous: LogPoint,
    pub(super) commit: Slot,
    pub(super) settled: Slot,
    pub(super) entries: Vec<Bytes>,
}

impl Replica {
    pub(super) fn on_prepare(&mut self, now: Boot, from: NodeId, prepare: &Prepare, out: &mut Vec<Output>) {
        let ballot = prepare.ballot;
        let is_used = prepare.life != 0 && ballot == self.promised;
        if self.is_refilling() {
            // It may have to stand itself.
            self.highest_seen = self.highest_seen.max(ballot);
        }
        if self.is_refilling() || ballot < self.promised || is_used || ballot.node != from {
            return self.send(from, Message::Refuse(Refuse { promised: self.promised }), out);
        }
        if ballot > self.promised {
            self.promise(now, ballot, None, out);
            self.persist(Mark::Promise(ballot), RecordBody::Promise, out);
        }
        // A repeated question gets the same answer, unless the candidate has already won and leads.
        if self.leader().is_none() {
            self.owed.promise = Some((from, prepare.life));
            self.pay_promise(out);
        }
    }

    /// Whether a candidate whose latest membership is that of `epoch` may count this replica's promise. Not
    /// when this replica knows that it has been removed since: the one that was a member then may be gone,
    /// with all that it had accepted, and this a learner.
    #[must_use]
    pub fn may_promise(&self, epoch: Epoch) -> bool {
        let committed = self.committed_members();
        let is_member = self.takes_part() || committed.members.iter().any(|member| self.is_here(member));
        is_member || epoch > committed.epoch || planted::active(Planted::LearnerVotes)
    }

    /// Raises the promise in memory. The caller persists it.
    pub(super) fn promise(
        &mut self,
        now: Boot,
        ballot: Ballot,
        leader: Option<NodeId>,
        out: &mut Vec<Output>,
    ) {
        assert!(ballot > self.promised, "a promise only rises");
        self.previous = self.promised;
        self.promised = ballot;
        self.matched = self.commit;
        self.owed = super::Owed::default();
        self.become_follower(now, leader, out);
    }

    /// Sends the promise that is owed, once it is durable.
    pub(super) fn pay_promise(&mut self, out: &mut Vec<Output>) {
        let Some((to, life)) = self.owed.promise else {
            return;
        };
        if self.promised_durable < self.promised && !planted::active(Planted::PromiseBeforeDurable) {
            return;
        }
        self.owed.promise = None;
        let promise = self.own_promise(life);
        self.send(to, Message::Promise(promise), out);
    }

    /// This replica's promise of the promised ballot. The end of the log that it names must survive a crash.
    fn own_promise(&self, life: u64) -> Promise {
        let last = self.log.end();
        assert!(
            self.durable >= last.slot,
            "entries were appended before the promise and are durable with it"
        );
        Promise {
            ballot: self.promised,
            previous: self.previous,
            last,
            last_hash: self.log.last().hash,
            commit: self.commit,
            life,
        }
    }

    /// Takes `from` for the leader of `ballot`, promising that ballot if it is a higher one. False if a still
    /// higher one is promised.
    pub fn accept_leader(&mut self, now: Boot, from: NodeId, ballot: Ballot, out: &mut Vec<Output>) -> bool {
        if ballot < self.promised || ballot.node != from {
            return false;
        }
        if ballot > self.promised {
            self.promise(now, ballot, Some(from), out);
            self.persist(Mark::Promise(ballot), RecordBody::Promise, out);
        }
        self.hear_leader(now, from, out);
        true
    }

    pub(super) fn on_accept(&mut self, now: Boot, from: NodeId, proposal: Proposal, out: &mut Vec<Output>) {
        let ballot = proposal.ballot;
        if !self.accept_leader(now, from, ballot, out) {
            return self.reject(from, ballot, Rejection::Ballot, out);
        }
        if let Some(reason) = self.refusal(proposal.previous) {
            return self.reject(from, ballot, reason, out);
        }
        match self.take_entries(&proposal, out) {
            Ok(last) => self.matched = self.matched.max(last),
            Err(_) => return self.reject(from, ballot, Rejection::Conflict(self.commit), out),
        }
        self.learn_commit(proposal.commit);
        self.settled = self.settled.max(proposal.settled);
        self.owed.accepted = true;
    }

    /// Why entries after `previous` cannot be taken, if they cannot.
    fn refusal(&self, previous: LogPoint) -> Option<Rejection> {
        let last = self.log.last().slot;
        if previous.slot > last {
            return Some(Rejection::Gap(last));
        }
        match self.log.hash(previous.slot) {
            Some(hash) if hash != previous.hash => Some(Rejection::Conflict(self.commit)),
            Some(_) | None => None,
        }
    }

    /// Appends what is new, after superseding what conflicts. Returns the last slot that the proposal covers.
    fn take_entries(&mut self, proposal: &Proposal, out: &mut Vec<Output>) -> Result<Slot, EntryError> {
        let mut last = proposal.previous.slot;
        for bytes in &proposal.entries {
            let entry = check_entry(self.partition(), bytes)?;
            let slot = entry.header.slot;
            let chained = slot == last.next() && entry.header.ballot <= proposal.ballot;
            if !chained {
                return Err(EntryError::Unknown { field: "slot", got: slot.0 });
            }
            match self.log.fit(&entry) {
                Fit::Present => {}
                Fit::Next => self.persist_entry(entry, out),
                Fit::Conflict => {
                    self.supersede(slot, out);
                    self.append_if_chained(entry, out)?;
                }
                Fit::Unchained => return Err(EntryError::Unknown { field: "previous hash", got: slot.0 }),
            }
            last = slot;
        }
        Ok(last)
    }

    fn append_if_chained(&mut self, entry: Entry, out: &mut Vec<Output>) -> Result<(), EntryError> {
        if self.log.fit(&entry) != Fit::Next {
            return Err(EntryError::Unknown { field: "previous hash", got: entry.header.slot.0 });
        }
        self.persist_entry(entry, out);
        Ok(())
    }

    pub(super) fn adopt(&mut self, entries: &[Bytes], out: &mut Vec<Output>) -> Result<(), EntryError> {
        for bytes in entries {
            let entry = check_entry(self.partition(), bytes)?;
            match self.log.fit(&entry) {
                Fit::Present => {}
                Fit::Next => self.persist_entry(entry, out),
                Fit::Conflict => {
                    self.supersede(entry.header.slot, out);
                    self.append_if_chained(entry, out)?;
                }
                Fit::Unchained => {
                    return Err(EntryError::Unknown { field: "previous hash", got: entry.header.slot.0 });
                }
            }
        }
        Ok(())
    }

    /// Raises the commit position as far as the log is known to equal the leader's.
    pub(super) fn learn_commit(&mut self, leaders: Slot) {
        let beyond = planted::active(Planted::CommitBeyondMatch);
        let known = if beyond { self.log.last().slot } else { self.matched };
        self.commit = self.commit.max(leaders.min(known));
    }

    pub(super) fn reject(&self, to: NodeId, ballot: Ballot, reason: Rejection, out: &mut Vec<Output>) {
        let rejected = Rejected { ballot, promised: self.promised, reason };
        self.send(to, Message::Rejected(rejected), out);
    }

    /// Tells the leader how far this log is, when it is owed that.
    pub(super) fn pay_accepted(&mut self, out: &mut Vec<Output>) {
        let Role::Follower(follower) = &mut self.role else {
            return;
        };
        let Some(leader) = follower.leader else {
            return;
        };
        if self.promised_durable < self.promised || leader != self.promised.node {
            return;
        }
        let early = planted::active(Planted::AcceptBeforeDurable);
        let matched = if early { self.matched } else { self.matched.min(self.durable) };
        let news = matched > follower.told;
        // An Accept whose entries are on their way to the disk is answered once they are there.
        let due = self.owed.accepted && self.matched <= self.durable;
        if !news && !due {
            return;
        }
        self.owed.accepted = false;
        follower.told = matched;
        let accepted = Accepted { ballot: self.promised, matched, votes: self.votes(), stores: self.stores };
        self.send(leader, Message::Accepted(accepted), out);
    }

    pub(super) fn on_fetch(&mut self, from: NodeId, fetch: &Fetch, out: &mut Vec<Output>) {
        if fetch.ballot != self.promised {
            return self.send(from, Message::Refuse(Refuse { promised: self.promised }), out);
        }
        let mut entries = Vec::new();
        if self.log.hash(fetch.after.slot) == Some(fetch.after.hash) {
            entries = self.log.batch_after(fetch.after.slot, ACCEPT_BYTES_MAX).0;
        }
        let fetched = Message::Fetched { ballot: fetch.ballot, previous: fetch.after, entries };
        self.send(from, fetched, out);
    }
}

/// Reads an entry that another member sent, fully: from here on it is known to be well-formed.
pub(super) fn check_entry(partition: PartitionId, bytes: &Bytes) -> Result<Entry, EntryError> {
    let entry = Entry::take(&mut bytes.clone())?;
    if entry.header.partition != partition {
        return Err(EntryError::Unknown { field: "partition", got: entry.header.partition.0 });
    }
    match entry.header.kind {
        EntryKind::Noop => {}
        EntryKind::Write => {
            entry.write()?;
        }
        EntryKind::Split => {
            Split::decode(entry.payload())?;
        }
        EntryKind::Membership => {
            Membership::decode(entry.payload())?;
        }
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::super::Seed;
    use super::super::log::GroupLog;
    use super::*;
    use evenkeel_wire::entry::EntryHeader;
    use evenkeel_wire::ids::{CoreId, Incarnation, TableId};
    use evenkeel_wire::prng::Prng;
    use evenkeel_wire::table::{GroupConfig, Member};

    /// Node 5 was a member until epoch 11 and is being made a member again. A candidate that knows of less
    /// counts it as one of three; a candidate that knows of more, rightly.
    #[test]
    fn who_was_removed_promises_nothing_to_those_who_do_not_know_it() {
        let member = |node| Member { node: NodeId(node), core: CoreId(0), incarnation: Incarnation([0; 16]) };
        let members = GroupConfig::whole(PartitionId(1), TableId(1), [2, 4, 6].map(member).into());
        let config = GroupConfig { epoch: Epoch(11), ..members };
        let ballot = Ballot { round: 3, node: NodeId(6) };
        let log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        let (commit, timestamp) = (Slot::ZERO, 0);
        let (next, previous) = (config.membership().with(member(5), true), log.last());
        let seed = Seed { config, promised: ballot, log, commit, timestamp, refilling: false, stores: false };
        let (now, mut out) = (Boot(1_000_000_000), Vec::new());
        let mut replica = Replica::new(seed, NodeId(5), now, Prng::new(1)).on_core(CoreId(0));
        assert!(!replica.may_promise(Epoch(9)) && !replica.may_promise(Epoch(11)));
        assert!(replica.may_promise(Epoch(12)));

        let header = EntryHeader {
            partition: PartitionId(1),
            slot: Slot(1),
            ballot,
            previous: previous.hash,
            timestamp: 1,
            kind: EntryKind::Membership,
            payload_bytes: 0,
        };
        let entry = Entry::build(header, next.encoded_bytes(), |out| next.encode(out));
        let accept =
            Message::Accept { ballot, previous, commit, settled: commit, entries: vec![entry.bytes] };
        replica.receive(now, NodeId(6), accept, &mut out);
        assert!(replica.may_promise(Epoch(9)), "whoever counts it sees the entry that made it a member");
    }
}
