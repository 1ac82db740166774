//! What a leader has proposed and not yet applied, and who waits for what.
//!
//! Conditions are evaluated against the newest pending write of their key, or against the tree if there is
//! none: the *overlay*. What they lead to, refusals too, is proposed behind those writes, and answered when
//! it is committed: so an answer never speaks of something that came to nothing.

use crate::limits::{PARKED_ANSWERS_MAX, PENDING_BYTES_MAX, PENDING_WRITES_MAX};
use crate::partition::waited::Waited;
use ahash::AHashMap;
use evenkeel_wire::entry::{self, Effect, WrittenItem};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::ids::{RequestId, Slot};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::message::request::Token;
use evenkeel_wire::turn::Endpoint;
use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::hash::{Hash, Hasher};

/// Who waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asker {
    /// On which link.
    pub endpoint: Endpoint,
    /// Which of its requests.
    pub request: RequestId,
    /// How long it has waited.
    pub waited: Waited,
}

impl Asker {
    /// Who has only just asked.
    #[must_use]
    pub fn new(endpoint: Endpoint, request: RequestId) -> Self {
        Self { endpoint, request, waited: Waited::default() }
    }
}

/// An item as it will be once a pending write is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PendingItem {
    /// The write.
    pub slot: Slot,
    /// The item; none: deleted.
    pub item: Option<WrittenItem>,
}

/// A proposed write.
#[derive(Clone, Debug)]
struct PendingWrite {
    slot: Slot,
    asker: Option<Asker>,
    key: KeyBytes,
    token: ([u8; 16], u64),
    bytes: usize,
}

/// A leader's open business.
#[derive(Clone, Debug, Default)]
pub struct Pending {
    writes: VecDeque<PendingWrite>,
    bytes: usize,
    overlay: AHashMap<KeyBytes, PendingItem>,
    tokens: AHashMap<([u8; 16], u64), (Slot, u64)>,
    /// Repetitions of pending writes, ascending by slot.
    parked: VecDeque<(Slot, Asker, Token)>,
}

impl Pending {
    /// The pending state of a key.
    #[must_use]
    pub fn item(&self, key: &[u8]) -> Option<&PendingItem> {
        self.overlay.get(key)
    }

    /// The pending write with this token: its slot and the hash of its request.
    #[must_use]
    pub fn token(&self, token: &Token) -> Option<(Slot, u64)> {
        self.tokens.get(&(token.client, token.sequence)).copied()
    }

    /// How many writes are pending.
    #[must_use]
    pub fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Whether nobody waits for anything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes.is_empty() && self.parked.is_empty()
    }

    /// Whether another write may be proposed.
    ///
    /// # Errors
    /// When too many are pending.
    pub fn admit(&self) -> Result<(), Problem> {
        if self.writes.len() < PENDING_WRITES_MAX && self.bytes < PENDING_BYTES_MAX {
            return Ok(());
        }
        Err(overloaded("writes wait for their quorum", self.writes.len()))
    }

    /// Notes a write that was just proposed, for which `asker` waits. Its item is kept as the entry has it,
    /// without a copy.
    ///
    /// # Panics
    /// When the entry is not a write's.
    pub fn proposed(&mut self, entry: &entry::Entry, asker: Option<Asker>) {
        let (slot, write) = (entry.header.slot, entry.write().expect("this core encoded it"));
        let key = KeyBytes::from_slice(write.key);
        let token = (write.token.client, write.token.sequence);
        let bytes = write.encoded_bytes();
        self.bytes += bytes;
        let item = match &write.effect {
            Effect::Put(item) => Some(Some(entry.share(item))),
            Effect::Delete => Some(None),
            Effect::Refused(_) => None,
        };
        if let Some(item) = item {
            self.overlay.insert(key.clone(), PendingItem { slot, item });
        }
        self.tokens.insert(token, (slot, write.request_hash));
        self.writes.push_back(PendingWrite { slot, asker, key, token, bytes });
    }

    /// Parks the repetition of a write until that write is committed.
    ///
    /// # Errors
    /// When too many wait already.
    pub fn park(&mut self, slot: Slot, asker: Asker, token: Token) -> Result<(), Problem> {
        if self.parked.len() >= PARKED_ANSWERS_MAX {
            return Err(overloaded("answers wait for a commit", self.parked.len()));
        }
        let place = self.parked.partition_point(|(other, ..)| *other <= slot);
        self.parked.insert(place, (slot, asker, token));
        Ok(())
    }

    /// The write in `slot` has been applied. Returns who waits for it.
    pub fn applied(&mut self, slot: Slot) -> Option<Asker> {
        if self.writes.front().is_none_or(|write| write.slot != slot) {
            return None;
        }
        let write = self.writes.pop_front().expect("there is a first");
        self.bytes -= write.bytes;
        self.tokens.remove(&write.token);
        if let Entry::Occupied(item) = self.overlay.entry(write.key)
            && item.get().slot == slot
        {
            item.remove();
        }
        write.asker
    }

    /// The first parked repetition whose write is applied.
    pub fn unpark(&mut self, applied: Slot) -> Option<(Asker, Token)> {
        if self.parked.front()?.0 > applied {
            return None;
        }
        self.parked.pop_front().map(|(_, asker, token)| (asker, token))
    }

    /// Feeds `hasher` with who waits for what. What the writes are, their slots' entries say.
    pub fn digest(&self, hasher: &mut impl Hasher) {
        let asker = |asker: &Asker| (asker.endpoint, asker.request);
        for write in &self.writes {
            (write.slot, write.asker.as_ref().map(asker)).hash(hasher);
        }
        self.writes.len().hash(hasher);
        for (slot, waits, _) in &self.parked {
            (slot, asker(waits)).hash(hasher);
        }
        self.parked.len().hash(hasher);
    }

    /// Forgets everything, and returns everybody who waited.
    pub fn abandon(&mut self) -> Vec<Asker> {
        let writes = self.writes.drain(..).filter_map(|write| write.asker);
        let askers = writes.chain(self.parked.drain(..).map(|(_, asker, _)| asker)).collect();
        *self = Self::default();
        askers
    }
}

fn overloaded(what: &str, count: usize) -> Problem {
    let message = format!("{count} {what} in this partition; try again in a moment, or spread the keys");
    Problem::new(ErrorCode::Overloaded, message)
}
