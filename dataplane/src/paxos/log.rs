//! A replica's log of entries, in memory: contiguous, and chained by hashes.
//!
//! The entries up to the *base* may be missing: they are applied, and a follower that needs them is sent a
//! snapshot.

use bytes::Bytes;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::entry::Entry;
use evenkeel_wire::ids::{Ballot, Slot};
use evenkeel_wire::message::peer::{LogEnd, LogPoint};
use std::collections::VecDeque;

/// Entries after a base.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupLog {
    base: LogPoint,
    base_ballot: Ballot,
    entries: VecDeque<Entry>,
    bytes: usize,
}

/// How an entry stands to a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// It is the next one.
    Next,
    /// The log has it, or it is covered by the base.
    Present,
    /// The log has another entry in its slot.
    Conflict,
    /// Entries before it are missing, or it does not chain to the one before.
    Unchained,
}

impl GroupLog {
    /// An empty log after `base`.
    #[must_use]
    pub fn new(base: LogPoint, base_ballot: Ballot) -> Self {
        Self { base, base_ballot, entries: VecDeque::new(), bytes: 0 }
    }

    /// The point after which entries are at hand.
    #[must_use]
    pub fn base(&self) -> LogPoint {
        self.base
    }

    /// The ballot in which the base's entry was first proposed.
    #[must_use]
    pub fn base_ballot(&self) -> Ballot {
        self.base_ballot
    }

    /// The last slot, with its hash.
    #[must_use]
    pub fn last(&self) -> LogPoint {
        self.entries.back().map_or(self.base, point_of)
    }

    /// The last slot, with the ballot in which its entry was first proposed.
    #[must_use]
    pub fn end(&self) -> LogEnd {
        match self.entries.back() {
            Some(entry) => LogEnd { ballot: entry.header.ballot, slot: entry.header.slot },
            None => LogEnd { ballot: self.base_ballot, slot: self.base.slot },
        }
    }

    /// Bytes of the entries at hand.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The entry in `slot`, if it is at hand.
    #[must_use]
    pub fn get(&self, slot: Slot) -> Option<&Entry> {
        self.entries.get(self.place(slot)?)
    }

    /// The point at `slot`, if it is the base or at hand.
    #[must_use]
    pub fn point(&self, slot: Slot) -> Option<LogPoint> {
        if slot == self.base.slot { Some(self.base) } else { self.get(slot).map(point_of) }
    }

    /// The hash at `slot`, if it is the base or at hand.
    #[must_use]
    pub fn hash(&self, slot: Slot) -> Option<Hash128> {
        self.point(slot).map(|point| point.hash)
    }

    /// The entries after `slot`, as far as they are at hand.
    pub fn after(&self, slot: Slot) -> impl Iterator<Item = &Entry> {
        let skip = (slot.0.saturating_sub(self.base.slot.0) as usize).min(self.entries.len());
        self.entries.range(skip..)
    }

    /// How `entry` stands to this log.
    #[must_use]
    pub fn fit(&self, entry: &Entry) -> Fit {
        let slot = entry.header.slot;
        if slot <= self.base.slot {
            return Fit::Present;
        }
        match self.get(slot) {
            Some(present) if present.hash == entry.hash => Fit::Present,
            Some(_) => Fit::Conflict,
            None if slot == self.last().slot.next() && entry.header.previous == self.last().hash => Fit::Next,
            None => Fit::Unchained,
        }
    }

    /// Appends the next entry.
    ///
    /// # Panics
    /// When it is not the next one: [`fit`](Self::fit) tells.
    pub fn append(&mut self, entry: Entry) {
        assert_eq!(entry.header.slot, self.last().slot.next(), "a log has no holes");
        assert_eq!(entry.header.previous, self.last().hash, "a log is one chain");
        self.bytes += entry.bytes.len();
        self.entries.push_back(entry);
    }

    /// Removes `slot` and everything after it.
    pub fn truncate_from(&mut self, slot: Slot) {
        assert!(slot > self.base.slot, "what is applied is never removed");
        while self.entries.back().is_some_and(|entry| entry.header.slot >= slot) {
            let removed = self.entries.pop_back().expect("there is a last");
            self.bytes -= removed.bytes.len();
        }
    }

    /// Forgets entries up to `applied`, oldest first, until at most `bytes_kept` are at hand.
    pub fn trim(&mut self, applied: Slot, bytes_kept: usize) {
        while self.bytes > bytes_kept
            && self.entries.front().is_some_and(|entry| entry.header.slot <= applied)
        {
            let oldest = self.entries.pop_front().expect("there is a first");
            self.bytes -= oldest.bytes.len();
            self.base = point_of(&oldest);
            self.base_ballot = oldest.header.ballot;
        }
    }

    /// The bytes of entries after `slot`, one behind the other, at least one entry if there is one, and not
    /// more than `bytes_max` beyond that. Also the last slot among them.
    #[must_use]
    pub fn batch_after(&self, slot: Slot, bytes_max: usize) -> (Vec<Bytes>, Slot) {
        let (mut batch, mut last, mut bytes) = (Vec::new(), slot, 0);
        for entry in self.after(slot) {
            bytes += entry.bytes.len();
            if !batch.is_empty() && bytes > bytes_max {
                break;
            }
            last = entry.header.slot;
            batch.push(entry.bytes.clone());
        }
        (batch, last)
    }

    fn place(&self, slot: Slot) -> Option<usize> {
        slot.0.checked_sub(self.base.slot.0 + 1).map(|place| place as usize)
    }
}

fn point_of(entry: &Entry) -> LogPoint {
    LogPoint { slot: entry.header.slot, hash: entry.hash }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::entry::{EntryHeader, EntryKind};
    use evenkeel_wire::ids::{NodeId, PartitionId};

    fn ballot(round: u64) -> Ballot {
        Ballot { round, node: NodeId(1) }
    }

    fn next(log: &GroupLog, round: u64) -> Entry {
        let header = EntryHeader {
            partition: PartitionId(1),
            slot: log.last().slot.next(),
            ballot: ballot(round),
            previous: log.last().hash,
            timestamp: 0,
            kind: EntryKind::Noop,
            payload_bytes: 0,
        };
        Entry::build(header, 0, |_| ())
    }

    fn log_of(entries: u64) -> GroupLog {
        let mut log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
        for _ in 0..entries {
            log.append(next(&log, 1));
        }
        log
    }

    #[test]
    fn fits_are_told_apart() {
        let mut log = log_of(3);
        let (same, other) = (log.get(Slot(2)).unwrap().clone(), next(&log_of(1), 9));
        let far = next(&log_of(5), 1);
        assert_eq!(log.fit(&next(&log, 1)), Fit::Next);
        assert_eq!(
            (log.fit(&same), log.fit(&other), log.fit(&far)),
            (Fit::Present, Fit::Conflict, Fit::Unchained)
        );
        log.trim(Slot(2), 0);
        assert_eq!(log.fit(&other), Fit::Present, "what is applied and forgotten cannot conflict");
    }

    #[test]
    fn trimming_keeps_what_is_not_applied_and_moves_the_base() {
        let mut log = log_of(5);
        let third = log.point(Slot(3)).unwrap();
        log.trim(Slot(3), 0);
        assert_eq!((log.base(), log.last().slot, log.get(Slot(3))), (third, Slot(5), None));
        assert_eq!(log.point(Slot(3)), Some(third));
        assert_eq!(log.after(Slot(1)).count(), 2, "only what is at hand");
    }

    #[test]
    fn truncating_and_batching() {
        let mut log = log_of(5);
        log.truncate_from(Slot(4));
        assert_eq!(log.last().slot, Slot(3));
        let (batch, last) = log.batch_after(Slot(0), 100);
        assert_eq!((batch.len(), last), (1, Slot(1)), "one entry always fits");
        let (batch, last) = log.batch_after(Slot(1), 1000);
        assert_eq!((batch.len(), last), (2, Slot(3)));
        assert_eq!(log.bytes(), 3 * 64);
    }
}
