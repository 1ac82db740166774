//! Records: what a log write carries.
//!
//! ```text
//!  offset  bytes  field
//!       0      4  record bytes     this header included
//!       4      2  kind             1 entry, 2 promise, 3 supersede, 4 group state, 5 group removed
//!       6      2  format           3
//!       8      8  partition
//!      16      8  promised round   the ballot that the group had promised when this was appended
//!      24      4  promised node
//!      28      4  reserved, zero
//!      32      8  commit           up to where the group was known to be committed
//!      40      …  payload
//! ```
//!
//! The header is the envelope: it lies outside an entry's hash, because it may differ between replicas.
//! Payloads: an entry's logical bytes; nothing; the first superseded slot (8 bytes); a [`GroupState`];
//! nothing.

use bytes::{Buf, BufMut, Bytes};
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::entry::{Entry, EntryError};
use evenkeel_wire::ids::{Ballot, NodeId, PartitionId, Slot};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::message::{access, encode, to_owned};
use evenkeel_wire::table::GroupConfig;
use thiserror::Error;

/// Length of the envelope, bytes.
pub const RECORD_HEADER_BYTES: usize = 40;
/// Length of a group state before its configuration, bytes.
const GROUP_STATE_HEADER_BYTES: usize = 56;
/// The record format that this build writes.
const FORMAT: u16 = 4;

/// What a group must remember besides its entries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupState {
    /// Who and what the group is.
    pub config: GroupConfig,
    /// Everything up to here is in the tree.
    pub base: LogPoint,
    /// Ballot in which the base's entry was first proposed.
    pub base_ballot: Ballot,
    /// The base's timestamp.
    pub base_timestamp: u64,
    /// The replica was damaged and may not vote.
    pub refilling: bool,
    /// The replica has the partition's items; a log replica has not.
    pub stores: bool,
}

/// The body of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RecordBody {
    /// An entry was accepted.
    Entry(Entry),
    /// A ballot was promised: the envelope's.
    Promise,
    /// Entries from this slot on are void: a later leader has others.
    Supersede(Slot),
    /// A group as it stands: when it is created, and again at the beginning of every checkpoint.
    State(Box<GroupState>),
    /// The group was removed.
    Removed,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The group.
    pub partition: PartitionId,
    /// The ballot that it had promised.
    pub promised: Ballot,
    /// Up to where it was known to be committed.
    pub commit: Slot,
    /// What happened.
    pub body: RecordBody,
}

/// Why bytes are not a record, although their checksum held.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecordError {
    /// They end too early.
    #[error("a record needs {expected} bytes, {got} are left")]
    Truncated {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        got: usize,
    },
    /// A field has a value that this build does not know.
    #[error("unknown record {field} {got}; it was written by a newer version")]
    Unknown {
        /// Which field.
        field: &'static str,
        /// Its value.
        got: u64,
    },
    /// The payload is not what the kind says.
    #[error("a record's payload is malformed: {0}")]
    Payload(String),
}

impl From<EntryError> for RecordError {
    fn from(error: EntryError) -> Self {
        Self::Payload(error.to_string())
    }
}

impl Record {
    /// Length of the record, bytes. Exact for entries; a state's configuration is encoded to learn its
    /// length.
    #[must_use]
    pub fn encode(&self) -> EncodedRecord {
        let payload = match &self.body {
            RecordBody::Entry(entry) => entry.bytes.clone(),
            RecordBody::Promise | RecordBody::Removed => Bytes::new(),
            RecordBody::Supersede(slot) => Bytes::copy_from_slice(&slot.0.to_le_bytes()),
            RecordBody::State(state) => state.encode(),
        };
        let mut header = [0; RECORD_HEADER_BYTES];
        let mut out = &mut header[..];
        out.put_u32_le((RECORD_HEADER_BYTES + payload.len()) as u32);
        out.put_u16_le(self.kind());
        out.put_u16_le(FORMAT);
        out.put_u64_le(self.partition.0);
        out.put_u64_le(self.promised.round);
        out.put_u32_le(self.promised.node.0);
        out.put_u32_le(0);
        out.put_u64_le(self.commit.0);
        EncodedRecord { header, payload }
    }

    fn kind(&self) -> u16 {
        match self.body {
            RecordBody::Entry(_) => 1,
            RecordBody::Promise => 2,
            RecordBody::Supersede(_) => 3,
            RecordBody::State(_) => 4,
            RecordBody::Removed => 5,
        }
    }

    /// Takes the first record from `bytes`. An entry shares their memory.
    ///
    /// # Errors
    /// When they are not one.
    pub fn take(bytes: &mut Bytes) -> Result<Self, RecordError> {
        let truncated = |expected, got| Err(RecordError::Truncated { expected, got });
        if bytes.len() < RECORD_HEADER_BYTES {
            return truncated(RECORD_HEADER_BYTES, bytes.len());
        }
        let length = (&bytes[..4]).get_u32_le() as usize;
        if length < RECORD_HEADER_BYTES || bytes.len() < length {
            return truncated(length.max(RECORD_HEADER_BYTES), bytes.len());
        }
        let mut payload = bytes.split_to(length);
        payload.advance(4);
        let (kind, format) = (payload.get_u16_le(), payload.get_u16_le());
        if format != FORMAT {
            return Err(RecordError::Unknown { field: "format", got: format.into() });
        }
        let partition = PartitionId(payload.get_u64_le());
        let promised = Ballot { round: payload.get_u64_le(), node: NodeId(payload.get_u32_le()) };
        let reserved = payload.get_u32_le();
        if reserved != 0 {
            return Err(RecordError::Unknown { field: "flags", got: reserved.into() });
        }
        let commit = Slot(payload.get_u64_le());
        let body = match kind {
            1 => RecordBody::Entry(Entry::take(&mut payload)?),
            2 => RecordBody::Promise,
            3 if payload.len() == 8 => RecordBody::Supersede(Slot(payload.get_u64_le())),
            3 => return truncated(8, payload.len()),
            4 => RecordBody::State(Box::new(GroupState::decode(std::mem::take(&mut payload))?)),
            5 => RecordBody::Removed,
            got => return Err(RecordError::Unknown { field: "kind", got: got.into() }),
        };
        if !payload.is_empty() {
            return Err(RecordError::Payload(format!("{} bytes behind a record's end", payload.len())));
        }
        Ok(Self { partition, promised, commit, body })
    }
}

/// A record's bytes, in two parts so that an entry's need not be copied twice.
#[derive(Clone, Debug)]
pub struct EncodedRecord {
    /// The envelope.
    pub header: [u8; RECORD_HEADER_BYTES],
    /// The payload.
    pub payload: Bytes,
}

impl EncodedRecord {
    /// Length of both parts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        RECORD_HEADER_BYTES + self.payload.len()
    }
}

impl GroupState {
    /// ```text
    ///  0   8  base slot        8  16  base hash      24   8  base ballot round
    /// 32   4  base ballot node 36   4  flags (1 refilling, 2 log replica)
    /// 40   8  base timestamp  48   8  reserved, zero 56   …  archive of the configuration
    /// ```
    fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(256);
        out.put_u64_le(self.base.slot.0);
        out.put_slice(&self.base.hash.0);
        out.put_u64_le(self.base_ballot.round);
        out.put_u32_le(self.base_ballot.node.0);
        out.put_u32_le(u32::from(self.refilling) | u32::from(!self.stores) << 1);
        out.put_u64_le(self.base_timestamp);
        out.put_u64_le(0);
        encode(&self.config, &mut out);
        Bytes::from(out)
    }

    fn decode(mut bytes: Bytes) -> Result<Self, RecordError> {
        if bytes.len() < GROUP_STATE_HEADER_BYTES {
            return Err(RecordError::Truncated { expected: GROUP_STATE_HEADER_BYTES, got: bytes.len() });
        }
        let slot = Slot(bytes.get_u64_le());
        let mut hash = Hash128::ZERO;
        bytes.copy_to_slice(&mut hash.0);
        let base_ballot = Ballot { round: bytes.get_u64_le(), node: NodeId(bytes.get_u32_le()) };
        let flags = bytes.get_u32_le();
        if flags > 3 {
            return Err(RecordError::Unknown { field: "state flags", got: flags.into() });
        }
        let base_timestamp = bytes.get_u64_le();
        let reserved = bytes.get_u64_le();
        if reserved != 0 {
            return Err(RecordError::Unknown { field: "state", got: reserved });
        }
        let archived =
            access::<GroupConfig>(&bytes).map_err(|problem| RecordError::Payload(problem.message))?;
        let base = LogPoint { slot, hash };
        let (refilling, stores) = (flags & 1 != 0, flags & 2 == 0);
        Ok(Self { config: to_owned(archived), base, base_ballot, base_timestamp, refilling, stores })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::entry::{EntryHeader, EntryKind};
    use evenkeel_wire::ids::{CoreId, Incarnation, TableId};
    use evenkeel_wire::table::Member;

    fn records() -> Vec<Record> {
        let header = EntryHeader {
            partition: PartitionId(9),
            slot: Slot(4),
            ballot: Ballot { round: 1, node: NodeId(2) },
            previous: Hash128::ZERO,
            timestamp: 77,
            kind: EntryKind::Noop,
            payload_bytes: 0,
        };
        let config = GroupConfig {
            start: vec![1],
            ..GroupConfig::whole(
                PartitionId(9),
                TableId(3),
                vec![Member { node: NodeId(1), core: CoreId(0), incarnation: Incarnation([5; 16]) }],
            )
        };
        let state = GroupState {
            config,
            base: LogPoint { slot: Slot(3), hash: Hash128::of(b"x") },
            base_ballot: Ballot { round: 1, node: NodeId(1) },
            base_timestamp: 66,
            refilling: true,
            stores: false,
        };
        let bodies = [
            RecordBody::Entry(Entry::build(header, 0, |_| ())),
            RecordBody::Promise,
            RecordBody::Supersede(Slot(8)),
            RecordBody::State(Box::new(state)),
            RecordBody::Removed,
        ];
        let promised = Ballot { round: 6, node: NodeId(2) };
        bodies
            .map(|body| Record { partition: PartitionId(9), promised, commit: Slot(2), body })
            .into_iter()
            .collect()
    }

    fn bytes_of(record: &Record) -> Vec<u8> {
        let encoded = record.encode();
        [&encoded.header[..], &encoded.payload[..]].concat()
    }

    #[test]
    fn records_come_back_one_behind_the_other() {
        let mut bytes = Bytes::from(records().iter().flat_map(bytes_of).collect::<Vec<_>>());
        for record in records() {
            assert_eq!(Record::take(&mut bytes), Ok(record));
        }
        assert!(bytes.is_empty());
    }

    #[test]
    fn truncated_records_are_errors() {
        for record in records() {
            let bytes = bytes_of(&record);
            for end in 0..bytes.len() {
                assert!(Record::take(&mut Bytes::copy_from_slice(&bytes[..end])).is_err());
            }
        }
    }

    #[test]
    fn a_newer_format_is_refused_by_name() {
        let mut bytes = bytes_of(&records()[1]);
        bytes[6] = FORMAT as u8 + 1;
        let error = Record::take(&mut Bytes::from(bytes)).unwrap_err();
        assert_eq!(error, RecordError::Unknown { field: "format", got: u64::from(FORMAT) + 1 });
    }
}
