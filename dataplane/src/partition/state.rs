//! A partition's replicated state: items, tokens, and how far its log has been applied.
//!
//! [`State::apply`] is the only thing that changes it, and depends on nothing but the entry: replicas that
//! have applied the same entries are equal.

use super::sessions::{Outcome, Returned, Sessions};
use crate::btree::version::Version;
use crate::planted::{self, Planted};
use crate::tree::{Cell, Tree};
use evenkeel_wire::entry::{Effect, Entry, EntryKind, Split, Write, WrittenItem};
use evenkeel_wire::ids::{Ballot, PartitionId, Slot};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::message::peer::{LogEnd, LogPoint};
use evenkeel_wire::message::request::ReturnItem;

/// What replicas of a partition agree on.
#[derive(Clone, Debug, Default)]
pub struct State {
    /// The items.
    pub tree: Tree,
    /// The tokens.
    pub sessions: Sessions,
    /// Up to where the log has been applied.
    pub applied: LogPoint,
    /// Ballot in which the last applied entry was first proposed.
    pub applied_ballot: Ballot,
    /// The last applied entry's timestamp.
    pub timestamp: u64,
    /// A log replica's: nothing of what is applied is kept.
    pub log_only: bool,
}

/// What applying an entry did.
#[derive(Clone, Debug)]
pub enum Applied {
    /// A no-op.
    Nothing,
    /// A write, with what its answer carries.
    Written {
        /// Where and when.
        outcome: Outcome,
    },
    /// A split.
    Split {
        /// How.
        split: Split,
        /// The entry.
        at: LogPoint,
        /// What the child begins with.
        child: Box<State>,
    },
}

impl State {
    /// The empty state of a partition. The system partition's items stay in memory.
    #[must_use]
    pub fn of(partition: PartitionId, version: Version) -> Self {
        let is_system = partition == PartitionId::SYSTEM;
        let tree = if is_system { Tree::resident() } else { Tree::paged(version) };
        Self { tree, ..Self::default() }
    }

    /// What a log replica has whose log begins at `at`.
    #[must_use]
    pub fn of_log(partition: PartitionId, at: LogPoint, ballot: Ballot, timestamp: u64) -> Self {
        let state = Self::of(partition, Version::default());
        Self { applied: at, applied_ballot: ballot, timestamp, log_only: true, ..state }
    }

    /// The end of the applied log.
    #[must_use]
    pub fn end(&self) -> LogEnd {
        LogEnd { ballot: self.applied_ballot, slot: self.applied.slot }
    }

    /// Applies the next entry.
    ///
    /// # Panics
    /// When it is not the next one, or is not what it was when it was accepted: both are bugs, because every
    /// entry was checked when it came.
    pub fn apply(&mut self, entry: &Entry) -> Applied {
        assert_eq!(entry.header.slot, self.applied.slot.next(), "entries are applied in order");
        assert_eq!(entry.header.previous, self.applied.hash, "entries are applied along the chain");
        let applied = match entry.header.kind {
            EntryKind::Noop | EntryKind::Membership => Applied::Nothing,
            EntryKind::Write if self.log_only => Applied::Nothing,
            EntryKind::Write => {
                let write = entry.write().expect("an accepted entry was checked when it came");
                self.apply_write(entry, write)
            }
            EntryKind::Split => {
                let split =
                    Split::decode(entry.payload()).expect("an accepted entry was checked when it came");
                self.apply_split(entry, split)
            }
        };
        self.applied = LogPoint { slot: entry.header.slot, hash: entry.hash };
        self.applied_ballot = entry.header.ballot;
        self.timestamp = entry.header.timestamp;
        applied
    }

    fn apply_write(&mut self, entry: &Entry, write: Write<&[u8]>) -> Applied {
        let (slot, timestamp) = (entry.header.slot, entry.header.timestamp);
        let old = write.old.filter(|_| write.return_item == ReturnItem::Old);
        let mut returned = old.map(|old| Returned::from(entry.share(&old)));
        let mut refused = None;
        // A copy: tree and outcome keep it for longer than the entry's bytes should be kept for it.
        let key = KeyBytes::from_slice(write.key);
        match write.effect {
            Effect::Put(item) => {
                let WrittenItem { checksum, archive } = entry.share(&item);
                if write.return_item == ReturnItem::New {
                    returned = Some(Returned { checksum, archive: archive.clone() });
                }
                let cell = Cell { slot, timestamp, checksum, archive };
                self.tree.put(key.clone(), cell);
            }
            Effect::Delete => self.tree.delete(key.clone()),
            Effect::Refused(refusal) => refused = Some(refusal),
        }
        let outcome = Outcome {
            sequence: write.token.sequence,
            issued_ms: write.token.issued_ms,
            request_hash: write.request_hash,
            slot,
            timestamp,
            key,
            returned,
            refused,
        };
        self.sessions.record(&write.token, outcome.clone());
        Applied::Written { outcome }
    }

    /// The child's log goes on behind this entry. It remembers every token: whichever half a write belongs
    /// to, a repetition of it is recognised.
    fn apply_split(&mut self, entry: &Entry, split: Split) -> Applied {
        let at = LogPoint { slot: entry.header.slot, hash: entry.hash };
        let child = if self.log_only {
            Self::of_log(split.child, at, Ballot::ZERO, entry.header.timestamp)
        } else {
            self.child(&split, at, entry.header.timestamp)
        };
        Applied::Split { split, at, child: Box::new(child) }
    }

    fn child(&mut self, split: &Split, at: LogPoint, timestamp: u64) -> Self {
        let forgets = planted::active(Planted::SplitForgetsTokens);
        Self {
            tree: self.tree.split(&split.border, &split.end),
            sessions: if forgets { Sessions::default() } else { self.sessions.clone() },
            applied: at,
            // Below every ballot in which the child's own entries can be proposed.
            applied_ballot: Ballot::ZERO,
            timestamp,
            log_only: false,
        }
    }

    /// Up to which slot everything is applied.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.applied.slot
    }
}
