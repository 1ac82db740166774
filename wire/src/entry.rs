//! Log entries of a replication group: their logical bytes, which are identical on every replica and chained
//! by hashes.
//!
//! ```text
//!  offset  bytes  field
//!       0      8  partition
//!       8      8  slot
//!      16      8  ballot round     of the ballot in which the entry was first proposed;
//!      24      4  ballot node      an entry is never re-stamped
//!      28      4  payload bytes
//!      32     16  previous hash    of the entry in the slot before
//!      48      8  timestamp        hybrid logical clock of the leader: milliseconds << 16 | counter
//!      56      2  kind             1 no-op, 2 write, 3 split, 4 membership (see `membership`)
//!      58      2  format           of the payload, 1
//!      60      4  flags            reserved, zero
//!      64      …  payload
//! ```
//!
//! The entry's own hash is XXH3-128 of all these bytes. The payload of a write holds the evaluated result,
//! never an expression:
//!
//! ```text
//!       0     16  client           token of the request
//!      16      8  sequence
//!      24      8  issued, ms
//!      32      8  acknowledged below
//!      40      8  request hash     XXH3-64 of the request's body
//!      48      1  operation        1 put, 2 delete, 3 refused
//!      49      1  return           what the answer carries: 0 nothing, 1 the old item, 2 the new item
//!      50      2  item format      1
//!      52      2  origin region    0 until there are several
//!      54      2  item flags       reserved, zero
//!      56      4  item checksum    CRC-32C, computed by the client (by the leader for an update);
//!                                  refused: the code
//!      60      4  key bytes
//!      64      4  extension bytes
//!      68      4  item bytes
//!      72      …  key, extensions (skippable), item; refused: why, as text
//! ```
//!
//! The payload of a split, which divides the partition's range:
//!
//! ```text
//!       0      8  child            the partition that holds the upper part from now on
//!       8      4  division         how often the range was divided, this time included
//!      12      4  border bytes
//!      16      4  end bytes
//!      20      …  border: the child's first key; end of its range (empty: none)
//! ```
//!
//! A refusal that depends on the item (a failed condition, an update that does not fit) is an outcome like
//! any other and is written down: otherwise a duplicate of the request that arrives late could succeed after
//! its client was told that it failed.

use crate::checksum::Hash128;
use crate::error::ErrorCode;
use crate::ids::{Ballot, NodeId, PartitionId, Slot};
use crate::membership::Membership;
use crate::message::request::{ReturnItem, Token};
use bytes::{Buf, BufMut, Bytes};
use std::ops::Deref;
use thiserror::Error;

/// Length of an entry's header, bytes.
pub const ENTRY_HEADER_BYTES: usize = 64;
/// Length of a write's fixed part, bytes.
const WRITE_HEADER_BYTES: usize = 72;
/// Length of a split's fixed part, bytes.
const SPLIT_HEADER_BYTES: usize = 24;
/// Length of an extension before its content: kind 2, reserved 2, content bytes 4.
const EXTENSION_HEADER_BYTES: usize = 8;
/// The item before: its checksum 4, then its archive.
const EXTENSION_OLD: u16 = 1;
/// The payload format that this build writes.
const PAYLOAD_FORMAT: u16 = 1;
/// The item format that this build writes.
const ITEM_FORMAT: u16 = 1;

/// What an entry does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub enum EntryKind {
    /// Nothing: a new leader's first entry, which commits what it found.
    Noop = 1,
    /// Writes one item.
    Write = 2,
    /// Divides the range: its upper part is another partition from now on.
    Split = 3,
    /// Other members are in the group from here on.
    Membership = 4,
}

/// An entry's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryHeader {
    /// The group.
    pub partition: PartitionId,
    /// Its place in the group's log.
    pub slot: Slot,
    /// The ballot in which it was first proposed.
    pub ballot: Ballot,
    /// Hash of the entry before it.
    pub previous: Hash128,
    /// The leader's hybrid logical clock.
    pub timestamp: u64,
    /// What it does.
    pub kind: EntryKind,
    /// Length of the payload, bytes.
    pub payload_bytes: u32,
}

/// Why bytes are not an entry.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum EntryError {
    /// They end too early.
    #[error("an entry needs {expected} bytes, {got} are left")]
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        got: usize,
    },
    /// A field has a value that this build does not know.
    #[error("unknown {field} {got} in an entry; it was written by a newer version")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        got: u64,
    },
}

/// An entry with its bytes and their hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The header.
    pub header: EntryHeader,
    /// Hash of `bytes`: the next entry's `previous`.
    pub hash: Hash128,
    /// Header and payload.
    pub bytes: Bytes,
}

impl Entry {
    /// Makes an entry; `write` appends its payload.
    #[must_use]
    pub fn build(mut header: EntryHeader, payload_bytes: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        header.payload_bytes = payload_bytes as u32;
        let mut bytes = Vec::with_capacity(ENTRY_HEADER_BYTES + payload_bytes);
        header.encode(&mut bytes);
        write(&mut bytes);
        assert_eq!(
            bytes.len(),
            ENTRY_HEADER_BYTES + payload_bytes,
            "the payload has the length it was announced with"
        );
        Self { header, hash: Hash128::of(&bytes), bytes: Bytes::from(bytes) }
    }

    /// Takes the first entry from `bytes`.
    ///
    /// # Errors
    /// When they are not one.
    pub fn take(bytes: &mut Bytes) -> Result<Self, EntryError> {
        let header = EntryHeader::decode(bytes)?;
        let expected = ENTRY_HEADER_BYTES + header.payload_bytes as usize;
        if bytes.len() < expected {
            return Err(EntryError::Truncated { expected, got: bytes.len() });
        }
        let bytes = bytes.split_to(expected);
        Ok(Self { header, hash: Hash128::of(&bytes), bytes })
    }

    /// The bytes after the header.
    #[must_use]
    pub fn payload(&self) -> Bytes {
        self.bytes.slice(ENTRY_HEADER_BYTES..)
    }

    /// Reads the payload of a write. Key and items are borrowed from the entry: most who read one need a part
    /// of it, and to count references to its bytes for every part costs as much as reading it.
    ///
    /// # Errors
    /// When it is not a write's.
    pub fn write(&self) -> Result<Write<&[u8]>, EntryError> {
        Write::decode(&self.bytes[ENTRY_HEADER_BYTES..])
    }

    /// A part of the entry that shares its memory.
    ///
    /// # Panics
    /// When the bytes are not the entry's own.
    #[must_use]
    pub fn share(&self, item: &WrittenItem<&[u8]>) -> WrittenItem {
        WrittenItem { checksum: item.checksum, archive: self.bytes.slice_ref(item.archive) }
    }
}

impl EntryHeader {
    fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.partition.0);
        out.put_u64_le(self.slot.0);
        out.put_u64_le(self.ballot.round);
        out.put_u32_le(self.ballot.node.0);
        out.put_u32_le(self.payload_bytes);
        out.put_slice(&self.previous.0);
        out.put_u64_le(self.timestamp);
        out.put_u16_le(self.kind as u16);
        out.put_u16_le(PAYLOAD_FORMAT);
        out.put_u32_le(0);
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() < ENTRY_HEADER_BYTES {
            return Err(EntryError::Truncated { expected: ENTRY_HEADER_BYTES, got: bytes.len() });
        }
        let partition = PartitionId(bytes.get_u64_le());
        let slot = Slot(bytes.get_u64_le());
        let round = bytes.get_u64_le();
        let ballot = Ballot { round, node: NodeId(bytes.get_u32_le()) };
        let payload_bytes = bytes.get_u32_le();
        let mut previous = Hash128::ZERO;
        bytes.copy_to_slice(&mut previous.0);
        let timestamp = bytes.get_u64_le();
        let kind = match bytes.get_u16_le() {
            1 => EntryKind::Noop,
            2 => EntryKind::Write,
            3 => EntryKind::Split,
            4 => EntryKind::Membership,
            got => return Err(EntryError::Unknown { field: "kind", got: got.into() }),
        };
        expect("payload format", bytes.get_u16_le().into(), PAYLOAD_FORMAT.into())?;
        expect("flags", bytes.get_u32_le().into(), 0)?;
        Ok(Self { partition, slot, ballot, previous, timestamp, kind, payload_bytes })
    }
}

fn expect(field: &'static str, got: u64, expected: u64) -> Result<(), EntryError> {
    if got == expected { Ok(()) } else { Err(EntryError::Unknown { field, got }) }
}

/// The payload of a write entry. `B` holds the bytes of keys and items: borrowed ones in a payload that was
/// read, also shared ones in a payload that is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write<B = Bytes> {
    /// The request's token.
    pub token: Token,
    /// XXH3-64 of the request's body.
    pub request_hash: u64,
    /// The item's storage key.
    pub key: B,
    /// What the answer carries, so that a repetition is answered alike by any later leader.
    pub return_item: ReturnItem,
    /// What it does.
    pub effect: Effect<B>,
    /// The item before, if the answer carries it: those who apply the entry need not look for it.
    pub old: Option<WrittenItem<B>>,
}

/// What a write does to its item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect<B = Bytes> {
    /// The item is this from now on.
    Put(WrittenItem<B>),
    /// There is no item from now on.
    Delete,
    /// Nothing: the request was refused, for a reason that lies in the item.
    Refused(Refusal),
}

/// Why a write was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code.
    pub code: ErrorCode,
    /// For a person.
    pub message: String,
}

/// An item as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WrittenItem<B = Bytes> {
    /// CRC-32C of `archive`.
    pub checksum: u32,
    /// The item's archive.
    pub archive: B,
}

impl<B: Deref<Target = [u8]>> Write<B> {
    /// Length of the payload, bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        let effect = match &self.effect {
            Effect::Put(item) => item.archive.len(),
            Effect::Delete => 0,
            Effect::Refused(refusal) => refusal.message.len(),
        };
        WRITE_HEADER_BYTES + self.key.len() + self.extension_bytes() + effect
    }

    fn extension_bytes(&self) -> usize {
        self.old.as_ref().map_or(0, |old| EXTENSION_HEADER_BYTES + 4 + old.archive.len())
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (operation, checksum, last) = match &self.effect {
            Effect::Put(item) => (1, item.checksum, &item.archive[..]),
            Effect::Delete => (2, 0, &[][..]),
            Effect::Refused(refusal) => (3, refusal.code as u32, refusal.message.as_bytes()),
        };
        out.put_slice(&self.token.client);
        out.put_u64_le(self.token.sequence);
        out.put_u64_le(self.token.issued_ms);
        out.put_u64_le(self.token.acknowledged_below);
        out.put_u64_le(self.request_hash);
        out.put_u8(operation);
        out.put_u8(match self.return_item {
            ReturnItem::None => 0,
            ReturnItem::Old => 1,
            ReturnItem::New => 2,
        });
        out.put_u16_le(ITEM_FORMAT);
        out.put_u16_le(0);
        out.put_u16_le(0);
        out.put_u32_le(checksum);
        out.put_u32_le(self.key.len() as u32);
        out.put_u32_le(self.extension_bytes() as u32);
        out.put_u32_le(last.len() as u32);
        out.put_slice(&self.key);
        if let Some(old) = &self.old {
            out.put_u16_le(EXTENSION_OLD);
            out.put_u16_le(0);
            out.put_u32_le((4 + old.archive.len()) as u32);
            out.put_u32_le(old.checksum);
            out.put_slice(&old.archive);
        }
        out.put_slice(last);
    }
}

impl<'a> Write<&'a [u8]> {
    /// Reads a payload.
    ///
    /// # Errors
    /// When the bytes are not a write.
    pub fn decode(mut bytes: &'a [u8]) -> Result<Self, EntryError> {
        if bytes.len() < WRITE_HEADER_BYTES {
            return Err(EntryError::Truncated { expected: WRITE_HEADER_BYTES, got: bytes.len() });
        }
        let mut token = Token::default();
        bytes.copy_to_slice(&mut token.client);
        token.sequence = bytes.get_u64_le();
        token.issued_ms = bytes.get_u64_le();
        token.acknowledged_below = bytes.get_u64_le();
        let request_hash = bytes.get_u64_le();
        let operation = bytes.get_u8();
        let return_item = match bytes.get_u8() {
            0 => ReturnItem::None,
            1 => ReturnItem::Old,
            2 => ReturnItem::New,
            got => return Err(EntryError::Unknown { field: "return", got: got.into() }),
        };
        expect("item format", bytes.get_u16_le().into(), ITEM_FORMAT.into())?;
        expect("origin region", bytes.get_u16_le().into(), 0)?;
        expect("item flags", bytes.get_u16_le().into(), 0)?;
        let checksum = bytes.get_u32_le();
        let [key, extensions, last] = std::array::from_fn(|_| bytes.get_u32_le() as usize);
        let expected = key + extensions + last;
        if bytes.len() != expected {
            return Err(EntryError::Truncated { expected, got: bytes.len() });
        }
        let (key, bytes) = bytes.split_at(key);
        let (extensions, last) = bytes.split_at(extensions);
        let old = take_old(extensions)?;
        let effect = match operation {
            1 => Effect::Put(WrittenItem { checksum, archive: last }),
            2 => Effect::Delete,
            3 => Effect::Refused(Refusal {
                code: ErrorCode::from_u16(checksum as u16),
                message: String::from_utf8_lossy(last).into_owned(),
            }),
            got => return Err(EntryError::Unknown { field: "operation", got: got.into() }),
        };
        Ok(Self { token, request_hash, key, return_item, effect, old })
    }
}

/// The payload of a split entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split {
    /// Who holds the upper part of the range from now on.
    pub child: PartitionId,
    /// How often the range was divided, this time included.
    pub division: u32,
    /// First key of the upper part.
    pub border: Bytes,
    /// Its end, exclusive. Empty: to the end.
    pub end: Bytes,
    /// Who is in the group at this entry, and so in both from now on. Whoever applies the entry may know of
    /// later memberships already, and not any more of this one.
    pub members: Membership,
}

impl Split {
    /// Length of the payload, bytes.
    #[must_use]
    pub fn encoded_bytes(&self) -> usize {
        SPLIT_HEADER_BYTES + self.border.len() + self.end.len() + self.members.encoded_bytes()
    }

    /// Appends the payload.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.put_u64_le(self.child.0);
        out.put_u32_le(self.division);
        out.put_u32_le(self.border.len() as u32);
        out.put_u32_le(self.end.len() as u32);
        out.put_u32_le(self.members.encoded_bytes() as u32);
        out.put_slice(&self.border);
        out.put_slice(&self.end);
        self.members.encode(out);
    }

    /// Reads a payload.
    ///
    /// # Errors
    /// When the bytes are not a split of a range into two that can hold keys.
    pub fn decode(mut bytes: Bytes) -> Result<Self, EntryError> {
        if bytes.len() < SPLIT_HEADER_BYTES {
            return Err(EntryError::Truncated { expected: SPLIT_HEADER_BYTES, got: bytes.len() });
        }
        let (child, division) = (PartitionId(bytes.get_u64_le()), bytes.get_u32_le());
        let [border, end, members] = std::array::from_fn(|_| bytes.get_u32_le() as usize);
        if bytes.len() != border + end + members {
            return Err(EntryError::Truncated { expected: border + end + members, got: bytes.len() });
        }
        let (border, end) = (bytes.split_to(border), bytes.split_to(end));
        if border.is_empty() || (!end.is_empty() && end <= border) {
            return Err(EntryError::Unknown { field: "border", got: border.len() as u64 });
        }
        Ok(Self { child, division, border, end, members: Membership::decode(bytes)? })
    }
}

/// Finds the item before among a write's extensions; those of other kinds are skipped.
fn take_old(mut extensions: &[u8]) -> Result<Option<WrittenItem<&[u8]>>, EntryError> {
    let mut old = None;
    while !extensions.is_empty() {
        let got = extensions.len();
        if got < EXTENSION_HEADER_BYTES {
            return Err(EntryError::Truncated { expected: EXTENSION_HEADER_BYTES, got });
        }
        let (kind, reserved) = (extensions.get_u16_le(), extensions.get_u16_le());
        let length = extensions.get_u32_le() as usize;
        expect("extension flags", reserved.into(), 0)?;
        if extensions.len() < length {
            return Err(EntryError::Truncated { expected: EXTENSION_HEADER_BYTES + length, got });
        }
        let (mut extension, left) = extensions.split_at(length);
        extensions = left;
        if kind == EXTENSION_OLD {
            if length < 4 {
                return Err(EntryError::Truncated { expected: 4, got: length });
            }
            old = Some(WrittenItem { checksum: extension.get_u32_le(), archive: extension });
        }
    }
    Ok(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{CoreId, Epoch, Incarnation};
    use crate::table::Member;

    fn put() -> Write<&'static [u8]> {
        write(Effect::Put(WrittenItem { checksum: 6, archive: b"item" }))
    }

    fn write(effect: Effect<&'static [u8]>) -> Write<&'static [u8]> {
        Write {
            token: Token { client: [7; 16], sequence: 1, issued_ms: 2, acknowledged_below: 1 },
            request_hash: 5,
            key: b"key",
            return_item: ReturnItem::None,
            effect,
            old: None,
        }
    }

    fn entry(write: &Write<&[u8]>) -> Entry {
        let header = EntryHeader {
            partition: PartitionId(1),
            slot: Slot(2),
            ballot: Ballot { round: 3, node: NodeId(4) },
            previous: Hash128::of(b"before"),
            timestamp: 5,
            kind: EntryKind::Write,
            payload_bytes: 0,
        };
        Entry::build(header, write.encoded_bytes(), |out| write.encode(out))
    }

    #[test]
    fn entries_come_back_and_share_their_memory() {
        let refusal = Refusal { code: ErrorCode::ConditionFailed, message: "no".to_owned() };
        let old = Some(WrittenItem { checksum: 8, archive: &b"before"[..] });
        let deleting = Write { old, return_item: ReturnItem::Old, ..write(Effect::Delete) };
        for original in [put(), deleting, write(Effect::Refused(refusal))] {
            let built = entry(&original);
            let mut bytes = built.bytes.clone();
            let taken = Entry::take(&mut bytes).unwrap();
            assert_eq!((&taken, bytes.len()), (&built, 0));
            assert_eq!(taken.write().as_ref(), Ok(&original));
            if let Effect::Put(item) = original.effect {
                let Ok(Write { effect: Effect::Put(borrowed), .. }) = built.write() else { panic!("a put") };
                let shared = built.share(&borrowed);
                assert_eq!((shared.checksum, &shared.archive[..]), (item.checksum, item.archive));
                assert_eq!(shared.archive.as_ptr(), borrowed.archive.as_ptr());
            }
        }
    }

    #[test]
    fn a_split_comes_back_and_one_that_divides_nothing_is_an_error() {
        let member = |node| Member { node: NodeId(node), core: CoreId(0), incarnation: Incarnation([0; 16]) };
        let members = vec![member(1), member(2)];
        let split = |border: &'static [u8], end: &'static [u8]| Split {
            child: PartitionId(9),
            division: 3,
            border: Bytes::from_static(border),
            end: Bytes::from_static(end),
            members: Membership { epoch: Epoch(4), members: members.clone(), ..Default::default() },
        };
        let bytes_of = |split: &Split| {
            let mut bytes = Vec::new();
            split.encode(&mut bytes);
            assert_eq!(bytes.len(), split.encoded_bytes());
            Bytes::from(bytes)
        };
        for whole in [split(b"m", b""), split(b"m", b"p")] {
            let bytes = bytes_of(&whole);
            for end in 0..bytes.len() {
                assert!(Split::decode(bytes.slice(..end)).is_err(), "prefix of {end} bytes");
            }
            assert_eq!(Split::decode(bytes), Ok(whole));
        }
        for empty in [split(b"", b""), split(b"", b"p"), split(b"p", b"p"), split(b"q", b"p")] {
            assert!(Split::decode(bytes_of(&empty)).is_err(), "{empty:?}");
        }
    }

    #[test]
    fn truncated_and_unknown_entries_are_errors() {
        let entry = entry(&put());
        for end in 0..entry.bytes.len() {
            let error = Entry::take(&mut entry.bytes.slice(..end)).unwrap_err();
            assert!(matches!(error, EntryError::Truncated { .. }), "prefix of {end} bytes: {error}");
        }
        let mut newer = entry.bytes.to_vec();
        newer[58] = 2;
        let error = Entry::take(&mut Bytes::from(newer)).unwrap_err();
        assert_eq!(error, EntryError::Unknown { field: "payload format", got: 2 });
        for end in 0..entry.payload().len() {
            assert!(Write::decode(&entry.payload()[..end]).is_err(), "payload prefix of {end} bytes");
        }
    }
}
