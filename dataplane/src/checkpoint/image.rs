//! A partition's state as a stream of records: what a checkpoint file and a snapshot to a peer carry.
//!
//! ```text
//!  offset  bytes  field
//!       0      4  record bytes     this header included
//!       4      2  kind             1 begin, 2 cell, 3 session, 4 outcome, 5 end, 6 space, 7 open
//!       6      2  format           4
//!       8      …  payload
//!
//!  begin    when tokens were last swept, log milliseconds 8; version of the tree on disk 56 (all zero: its
//!           cells follow); then a log record of kind "group state" (wal/record.rs): configuration, and the
//!           slot that the state is of
//!  cell     slot 8, timestamp 8, item checksum 4, item format 2, origin region 2, item flags 4, key bytes 4,
//!           extension bytes 4, item bytes 4, then key, extensions, item
//!  session  client 16, acknowledged below 8, latest issued 8
//!  outcome  (of the session before it) sequence 8, issued 8, request hash 8, slot 8, timestamp 8, flag 4 (0
//!           nothing, 1 an item, 2 a refusal follows the key), item checksum or code 4, key bytes 4, item or
//!           text bytes 4, then key, item or text
//!  open     a log record of kind "entry": what was accepted and is not in the state; in checkpoints only
//!  end      cells 8, sessions 8, entries 8
//!  space    first word 8, then words of the tree file's bitmap, 8 each: a bit for each block, 1 in use
//! ```
//!
//! A record never spans chunks, so each chunk can be read alone.

use crate::btree::leaf::CellMeta;
use crate::btree::lookup::{Found, Miss, Pages};
use crate::btree::version::{VERSION_BYTES, Version};
use crate::limits::{CHUNK_BYTES, SNAPSHOT_CHUNK_BYTES};
use crate::partition::sessions::{Outcome, Returned, Session};
use crate::partition::state::State;
use crate::planted::{self, Planted};
use crate::tree::Cell;
use crate::wal::record::{EncodedRecord, Record, RecordBody, RecordError};
use bytes::{Buf, BufMut, Bytes};
use evenkeel_wire::entry::Refusal;
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::ids::Slot;
use evenkeel_wire::key::KeyBytes;
use std::sync::Arc;

const HEADER_BYTES: usize = 8;
const FORMAT: u16 = 4;
/// Words of the bitmap in one record.
const SPACE_WORDS: usize = 4096;
const CELL_FIXED_BYTES: usize = 40;
const SESSION_FIXED_BYTES: usize = 32;
const OUTCOME_FIXED_BYTES: usize = 56;

/// One record of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImageRecord {
    /// A partition's state begins.
    Begin {
        /// The group's state record: configuration, base, promise.
        group: Box<Record>,
        /// See [`Sessions::swept_ms`](crate::partition::sessions::Sessions::swept_ms).
        swept_ms: u64,
        /// The tree on disk; none in a snapshot to a peer, and for trees that are not on disk.
        version: Version,
    },
    /// An item.
    Cell {
        /// Its storage key.
        key: KeyBytes,
        /// The item.
        cell: Cell,
    },
    /// A client; its outcomes follow.
    Session {
        /// The client.
        client: [u8; 16],
        /// The client is done with everything below.
        acknowledged_below: u64,
        /// When its newest token was issued.
        latest_issued_ms: u64,
    },
    /// An outcome of the session before it.
    Outcome(Outcome),
    /// An entry that was accepted and is not in the state.
    Open(Box<Record>),
    /// A partition's state ends.
    End {
        /// How many cells it had.
        cells: u64,
        /// How many sessions.
        sessions: u64,
        /// How many entries that are not in the state.
        open: u64,
    },
    /// A part of the tree file's bitmap.
    Space {
        /// Which word of it comes first.
        first: u64,
        /// The words.
        words: Vec<u64>,
    },
}

impl ImageRecord {
    fn kind(&self) -> u16 {
        match self {
            Self::Begin { .. } => 1,
            Self::Cell { .. } => 2,
            Self::Session { .. } => 3,
            Self::Outcome(_) => 4,
            Self::End { .. } => 5,
            Self::Space { .. } => 6,
            Self::Open(_) => 7,
        }
    }

    /// Appends the record.
    pub fn encode(&self, out: &mut Vec<u8>) {
        encode_record(self.kind(), out, |out| self.encode_payload(out));
    }

    fn encode_payload(&self, out: &mut Vec<u8>) {
        match self {
            Self::Begin { group, swept_ms, version } => {
                out.put_u64_le(*swept_ms);
                version.encode(out);
                encode_log_record(group, out);
            }
            Self::Cell { key, cell } => {
                let Cell { slot, timestamp, checksum, archive } = cell;
                let meta = CellMeta { slot: *slot, timestamp: *timestamp, checksum: *checksum };
                encode_cell(key, &Found { meta, archive }, out);
            }
            Self::Session { client, acknowledged_below, latest_issued_ms } => {
                out.put_slice(client);
                out.put_u64_le(*acknowledged_below);
                out.put_u64_le(*latest_issued_ms);
            }
            Self::Outcome(outcome) => encode_outcome(outcome, out),
            Self::Open(record) => encode_log_record(record, out),
            Self::End { cells, sessions, open } => {
                out.put_u64_le(*cells);
                out.put_u64_le(*sessions);
                out.put_u64_le(*open);
            }
            Self::Space { first, words } => {
                out.put_u64_le(*first);
                words.iter().for_each(|word| out.put_u64_le(*word));
            }
        }
    }

    /// Takes the first record from `bytes`. Keys and items are copied out of them, so that one item does not
    /// keep a whole chunk in memory.
    ///
    /// # Errors
    /// When the bytes are not one.
    pub fn take(bytes: &mut Bytes) -> Result<Self, RecordError> {
        need(bytes, HEADER_BYTES)?;
        let length = (&bytes[..4]).get_u32_le() as usize;
        if length < HEADER_BYTES {
            return Err(RecordError::Payload(format!("a record of {length} bytes, less than its header")));
        }
        need(bytes, length)?;
        let mut payload = bytes.split_to(length);
        payload.advance(4);
        let (kind, format) = (payload.get_u16_le(), payload.get_u16_le());
        if format != FORMAT {
            return Err(RecordError::Unknown { field: "image format", got: format.into() });
        }
        match kind {
            1 => {
                need(&payload, 8 + VERSION_BYTES)?;
                let swept_ms = payload.get_u64_le();
                let version = Version::decode(&payload.split_to(VERSION_BYTES))
                    .ok_or_else(|| RecordError::Payload("an image's tree version is malformed".to_owned()))?;
                let group = Record::take(&mut payload)?;
                if !matches!(group.body, RecordBody::State(_)) {
                    return Err(RecordError::Payload("an image begins with a group state".to_owned()));
                }
                Ok(Self::Begin { group: Box::new(group), swept_ms, version })
            }
            2 => decode_cell(payload),
            3 => {
                need(&payload, SESSION_FIXED_BYTES)?;
                let mut client = [0; 16];
                payload.copy_to_slice(&mut client);
                let acknowledged_below = payload.get_u64_le();
                Ok(Self::Session { client, acknowledged_below, latest_issued_ms: payload.get_u64_le() })
            }
            4 => decode_outcome(payload).map(Self::Outcome),
            5 => {
                need(&payload, 24)?;
                let [cells, sessions, open] = std::array::from_fn(|_| payload.get_u64_le());
                Ok(Self::End { cells, sessions, open })
            }
            6 => {
                need(&payload, 8)?;
                let first = payload.get_u64_le();
                if payload.is_empty() || !payload.len().is_multiple_of(8) {
                    let message = format!("a part of the bitmap of {} bytes", payload.len());
                    return Err(RecordError::Payload(message));
                }
                let words = payload.chunks_exact(8).map(|mut word| word.get_u64_le()).collect();
                Ok(Self::Space { first, words })
            }
            7 => {
                // It would keep the whole chunk in memory, as keys and items would.
                let record = Record::take(&mut Bytes::copy_from_slice(&payload))?;
                if !matches!(record.body, RecordBody::Entry(_)) {
                    return Err(RecordError::Payload("what is not in a state is an entry".to_owned()));
                }
                Ok(Self::Open(Box::new(record)))
            }
            got => Err(RecordError::Unknown { field: "image kind", got: got.into() }),
        }
    }
}

fn need(bytes: &Bytes, expected: usize) -> Result<(), RecordError> {
    if bytes.len() < expected {
        return Err(RecordError::Truncated { expected, got: bytes.len() });
    }
    Ok(())
}

pub(super) fn encode_cell_record(key: &[u8], cell: &Found<'_>, out: &mut Vec<u8>) {
    encode_record(2, out, |out| encode_cell(key, cell, out));
}

/// The parts of a bitmap as records.
pub fn space_records(words: &[u64]) -> impl Iterator<Item = ImageRecord> + '_ {
    words
        .chunks(SPACE_WORDS)
        .zip(0..)
        .map(|(words, part)| ImageRecord::Space { first: part * SPACE_WORDS as u64, words: words.to_vec() })
}

/// Appends a record: its header, then what `payload` appends.
fn encode_record(kind: u16, out: &mut Vec<u8>, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.put_u32_le(0);
    out.put_u16_le(kind);
    out.put_u16_le(FORMAT);
    payload(out);
    let length = (out.len() - start) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

fn encode_log_record(record: &Record, out: &mut Vec<u8>) {
    let EncodedRecord { header, payload } = record.encode();
    out.put_slice(&header);
    out.put_slice(&payload);
}

fn encode_cell(key: &[u8], cell: &Found<'_>, out: &mut Vec<u8>) {
    out.put_u64_le(cell.meta.slot.0);
    out.put_u64_le(cell.meta.timestamp);
    out.put_u32_le(cell.meta.checksum);
    out.put_u16_le(1);
    out.put_u16_le(0);
    out.put_u32_le(0);
    out.put_u32_le(key.len() as u32);
    out.put_u32_le(0);
    out.put_u32_le(cell.archive.len() as u32);
    out.put_slice(key);
    out.put_slice(cell.archive);
}

fn decode_cell(mut payload: Bytes) -> Result<ImageRecord, RecordError> {
    need(&payload, CELL_FIXED_BYTES)?;
    let (slot, timestamp, checksum) =
        (Slot(payload.get_u64_le()), payload.get_u64_le(), payload.get_u32_le());
    let (format, region, flags) = (payload.get_u16_le(), payload.get_u16_le(), payload.get_u32_le());
    if (format, region, flags) != (1, 0, 0) {
        return Err(RecordError::Unknown { field: "item format", got: format.into() });
    }
    let [key, extensions, archive] = std::array::from_fn(|_| payload.get_u32_le() as usize);
    need(&payload, key + extensions + archive)?;
    let key = KeyBytes::from_slice(&payload.split_to(key));
    payload.advance(extensions);
    let archive = Bytes::copy_from_slice(&payload[..archive]);
    Ok(ImageRecord::Cell { key, cell: Cell { slot, timestamp, checksum, archive } })
}

fn encode_outcome(outcome: &Outcome, out: &mut Vec<u8>) {
    out.put_u64_le(outcome.sequence);
    out.put_u64_le(outcome.issued_ms);
    out.put_u64_le(outcome.request_hash);
    out.put_u64_le(outcome.slot.0);
    out.put_u64_le(outcome.timestamp);
    let (flag, number, last) = match (&outcome.returned, &outcome.refused) {
        (_, Some(refusal)) => (2, refusal.code as u32, refusal.message.as_bytes()),
        (Some(returned), None) => (1, returned.checksum, &returned.archive[..]),
        (None, None) => (0, 0, &[][..]),
    };
    out.put_u32_le(flag);
    out.put_u32_le(number);
    out.put_u32_le(outcome.key.len() as u32);
    out.put_u32_le(last.len() as u32);
    out.put_slice(&outcome.key);
    out.put_slice(last);
}

fn decode_outcome(mut payload: Bytes) -> Result<Outcome, RecordError> {
    need(&payload, OUTCOME_FIXED_BYTES)?;
    let [sequence, issued_ms, request_hash, slot, timestamp] = std::array::from_fn(|_| payload.get_u64_le());
    let flag = payload.get_u32_le();
    let number = payload.get_u32_le();
    let [key, last] = std::array::from_fn(|_| payload.get_u32_le() as usize);
    need(&payload, key + last)?;
    let key = KeyBytes::from_slice(&payload.split_to(key));
    let last = Bytes::copy_from_slice(&payload[..last]);
    let (mut returned, mut refused) = (None, None);
    match flag {
        0 => {}
        1 => returned = Some(Returned { checksum: number, archive: last }),
        2 => {
            let message = String::from_utf8_lossy(&last).into_owned();
            refused = Some(Refusal { code: ErrorCode::from_u16(number as u16), message });
        }
        got => return Err(RecordError::Unknown { field: "outcome flag", got: got.into() }),
    }
    Ok(Outcome { sequence, issued_ms, request_hash, slot: Slot(slot), timestamp, key, returned, refused })
}

/// A partition's state as it was when the snapshot was taken, to be read off in chunks.
#[derive(Clone, Debug)]
pub struct ImageSource {
    state: State,
    /// Entries that are not in it.
    open: Arc<[Record]>,
    stage: Stage,
    cells: u64,
    sessions: u64,
    begin: Option<ImageRecord>,
    /// A chunk is full when it has so many bytes.
    chunk_bytes: usize,
}

#[derive(Clone, Debug)]
enum Stage {
    /// The key to go on from.
    Cells(Vec<u8>),
    /// The client to go on after.
    Sessions(Option<[u8; 16]>),
    /// The client whose session has begun, and the sequence to go on from.
    Outcomes([u8; 16], u64),
    /// How many entries are done.
    Open(usize),
    Done,
}

impl ImageSource {
    /// The image of `state` for a member, with all its cells. The group stands as `group` says.
    #[must_use]
    pub fn whole(state: State, group: Record) -> Self {
        let whole = Self::new(state, group, [].into(), Version::default(), false);
        Self { chunk_bytes: SNAPSHOT_CHUNK_BYTES, ..whole }
    }

    /// The image of `state` for a checkpoint that holds its tree as `version`, with what was accepted and is
    /// not in it. The cells of a tree that stays in memory stand in the image.
    #[must_use]
    pub fn beside_tree(state: State, group: Record, open: Arc<[Record]>, version: Version) -> Self {
        let names_version = !state.tree.is_resident();
        Self::new(state, group, open, version, names_version)
    }

    fn new(state: State, group: Record, open: Arc<[Record]>, version: Version, names_version: bool) -> Self {
        let swept_ms = state.sessions.swept_ms();
        let begin = Some(ImageRecord::Begin { group: Box::new(group), swept_ms, version });
        let stage = if names_version { Stage::Sessions(None) } else { Stage::Cells(Vec::new()) };
        Self { state, open, stage, cells: 0, sessions: 0, begin, chunk_bytes: CHUNK_BYTES }
    }

    /// Appends records until `out` holds about a chunk. Returns whether the image is complete.
    ///
    /// # Errors
    /// When pages must be read first. What was appended stays; call again with the same `out`.
    pub fn fill(&mut self, pages: Pages<'_>, out: &mut Vec<u8>) -> Result<bool, Miss> {
        if let Some(begin) = self.begin.take() {
            begin.encode(out);
        }
        if let Stage::Cells(from) = &mut self.stage {
            let mut walk = self.state.tree.walk(pages, from, b"", true);
            let mut full = false;
            loop {
                let next = walk.next();
                let found = match next {
                    Ok(Some(found)) => found,
                    Ok(None) => break,
                    Err(miss) => return Err(miss),
                };
                from.clear();
                from.extend_from_slice(walk.key());
                if out.len() >= self.chunk_bytes {
                    full = true;
                    break;
                }
                from.push(0);
                encode_cell_record(walk.key(), &found, out);
                self.cells += 1;
            }
            if !full {
                self.stage = Stage::Sessions(None);
            }
        }
        if matches!(self.stage, Stage::Sessions(_) | Stage::Outcomes(..)) {
            self.stage = self.fill_sessions(out);
        }
        if let Stage::Open(done) = self.stage {
            self.stage = self.fill_open(done, out);
        }
        Ok(matches!(self.stage, Stage::Done))
    }

    /// Appends sessions until the chunk is full. Returns where to go on; a session with many outcomes goes on
    /// in the next chunk.
    fn fill_sessions(&mut self, out: &mut Vec<u8>) -> Stage {
        let mut after = None;
        match self.stage {
            Stage::Sessions(client) => after = client,
            Stage::Outcomes(client, from) => {
                let session = self.state.sessions.get(&client).expect("the state does not change");
                if let Some(next) = fill_outcomes(session, from, self.chunk_bytes, out) {
                    return Stage::Outcomes(client, next);
                }
                after = Some(client);
            }
            Stage::Cells(_) | Stage::Open(_) | Stage::Done => {}
        }
        for (client, session) in self.state.sessions.after(after) {
            if out.len() >= self.chunk_bytes {
                return Stage::Sessions(after);
            }
            ImageRecord::Session {
                client: *client,
                acknowledged_below: session.acknowledged_below,
                latest_issued_ms: session.latest_issued_ms,
            }
            .encode(out);
            self.sessions += 1;
            if let Some(next) = fill_outcomes(session, 0, self.chunk_bytes, out) {
                return Stage::Outcomes(*client, next);
            }
            after = Some(*client);
        }
        Stage::Open(0)
    }

    /// Appends entries from one on until the chunk is full, and the end when there are no more. Returns where
    /// to go on.
    fn fill_open(&self, done: usize, out: &mut Vec<u8>) -> Stage {
        for (place, record) in self.open.iter().enumerate().skip(done) {
            if out.len() >= self.chunk_bytes {
                return Stage::Open(place);
            }
            encode_record(7, out, |out| encode_log_record(record, out));
        }
        let Self { cells, sessions, .. } = *self;
        ImageRecord::End { cells, sessions, open: self.open.len() as u64 }.encode(out);
        Stage::Done
    }
}

/// Appends a session's outcomes from a sequence on; the one to go on from, if the chunk is full before all
/// are done.
fn fill_outcomes(session: &Session, from: u64, chunk_bytes: usize, out: &mut Vec<u8>) -> Option<u64> {
    if planted::active(Planted::CheckpointForgetsTokens) {
        return None;
    }
    for outcome in session.outcomes.iter().filter(|outcome| outcome.sequence >= from) {
        if out.len() >= chunk_bytes {
            return Some(outcome.sequence);
        }
        ImageRecord::Outcome(outcome.clone()).encode(out);
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::sink::{Image, ImageSink};
    use super::*;
    use crate::paxos::log::GroupLog;
    use crate::wal::record::GroupState;
    use evenkeel_wire::checksum::Hash128;
    use evenkeel_wire::entry::{Entry, EntryHeader, EntryKind};
    use evenkeel_wire::ids::{Ballot, NodeId, PartitionId, TableId};
    use evenkeel_wire::message::peer::LogPoint;
    use evenkeel_wire::message::request::Token;
    use evenkeel_wire::table::GroupConfig;

    fn state(items: u64) -> State {
        let mut state = State::default();
        for number in 0..items {
            let archive = Bytes::from(vec![number as u8; 100 + number as usize % 50]);
            let cell = Cell { slot: Slot(number + 1), timestamp: number, checksum: 3, archive };
            state.tree.put(KeyBytes::from_slice(&number.to_be_bytes()), cell);
            let token =
                Token { client: [number as u8; 16], sequence: number, issued_ms: 5, ..Token::default() };
            let returned =
                (number % 3 == 0).then(|| Returned { checksum: 1, archive: Bytes::from_static(b"old") });
            let outcome = Outcome {
                sequence: number,
                issued_ms: 5,
                request_hash: 6,
                slot: Slot(number + 1),
                timestamp: 5 << 16,
                key: KeyBytes::from_slice(b"key"),
                returned,
                refused: (number % 3 == 1)
                    .then(|| Refusal { code: ErrorCode::ConditionFailed, message: "no".to_owned() }),
            };
            state.sessions.record(&token, outcome);
        }
        state.applied = LogPoint { slot: Slot(items), hash: Hash128::of(b"applied") };
        state.applied_ballot = Ballot { round: 1, node: NodeId(1) };
        state.timestamp = 77;
        state
    }

    fn items_of(state: &State) -> Vec<(Vec<u8>, Slot, Vec<u8>)> {
        let mut walk = state.tree.walk(Pages::default(), b"", b"", true);
        let mut items = Vec::new();
        while let Some(found) = walk.next().unwrap() {
            items.push((walk.key().to_vec(), found.meta.slot, found.archive.to_vec()));
        }
        items
    }

    fn group(state: &State) -> Record {
        let config = GroupConfig::whole(PartitionId(7), TableId(1), Vec::new());
        let base = GroupState {
            config,
            base: state.applied,
            base_ballot: state.applied_ballot,
            base_timestamp: state.timestamp,
            refilling: false,
            stores: true,
        };
        let body = RecordBody::State(Box::new(base));
        Record { partition: PartitionId(7), promised: Ballot::ZERO, commit: state.applied.slot, body }
    }

    /// So many entries behind a state.
    fn entries(state: &State, count: u64) -> Vec<Record> {
        let mut log = GroupLog::new(state.applied, state.applied_ballot);
        let entry = |number: u64| {
            let header = EntryHeader {
                partition: PartitionId(7),
                slot: log.last().slot.next(),
                ballot: state.applied_ballot,
                previous: log.last().hash,
                timestamp: number,
                kind: EntryKind::Noop,
                payload_bytes: 0,
            };
            let entry = Entry::build(header, 100, |out| out.extend_from_slice(&[number as u8; 100]));
            log.append(entry.clone());
            Record { body: RecordBody::Entry(entry), ..group(state) }
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn a_state_comes_back_through_any_number_of_chunks() {
        for items in [0, 1, 5000] {
            let original = state(items);
            let open = entries(&original, items).into();
            let version = Version::default();
            let mut source = ImageSource::new(original.clone(), group(&original), open, version, false);
            let mut sink = ImageSink::default();
            let mut chunks = 0;
            loop {
                let mut chunk = Vec::new();
                let complete = source.fill(Pages::default(), &mut chunk).unwrap();
                assert!(chunk.len() < CHUNK_BYTES + 4096);
                sink.take(Bytes::from(chunk)).unwrap();
                chunks += 1;
                if complete {
                    break;
                }
            }
            let Image { group: read_group, state: read, open } = sink.complete.pop().expect("one image");
            assert_eq!((read_group, open), (group(&original), entries(&original, items)));
            assert_eq!(read.tree.items(), items);
            assert_eq!(items_of(&read), items_of(&original));
            assert_eq!(read.sessions, original.sessions);
            assert_eq!((read.applied, read.timestamp), (original.applied, original.timestamp));
            assert_eq!(chunks > 1, items == 5000);
        }
    }

    #[test]
    fn an_image_that_lost_a_record_is_refused() {
        let original = state(3);
        let mut chunk = Vec::new();
        assert_eq!(
            ImageSource::whole(original.clone(), group(&original)).fill(Pages::default(), &mut chunk),
            Ok(true)
        );
        let mut bytes = Bytes::from(chunk);
        let whole = bytes.clone();
        let _begin = ImageRecord::take(&mut bytes).unwrap();
        let begin = whole.slice(..whole.len() - bytes.len());
        let _lost = ImageRecord::take(&mut bytes).unwrap();
        let mut sink = ImageSink::default();
        sink.take(begin).unwrap();
        assert!(sink.take(bytes).is_err());
    }

    #[test]
    fn a_session_with_much_to_remember_takes_several_chunks() {
        let mut state = State::default();
        let archive = Bytes::from(vec![7; 400_000]);
        for sequence in 1..=20 {
            let token = Token { client: [1; 16], sequence, issued_ms: 5, ..Token::default() };
            let outcome = Outcome {
                sequence,
                issued_ms: 5,
                request_hash: 6,
                slot: Slot(sequence),
                timestamp: 5 << 16,
                key: KeyBytes::from_slice(b"key"),
                returned: Some(Returned { checksum: 1, archive: archive.clone() }),
                refused: None,
            };
            state.sessions.record(&token, outcome);
        }
        let mut source = ImageSource::whole(state.clone(), group(&state));
        let (mut sink, mut done) = (ImageSink::default(), false);
        while !done {
            let mut chunk = Vec::new();
            done = source.fill(Pages::default(), &mut chunk).unwrap();
            assert!(chunk.len() <= CHUNK_BYTES + 2 * archive.len(), "{} bytes", chunk.len());
            sink.take(Bytes::from(chunk)).unwrap();
        }
        let restored = sink.complete.pop().unwrap().state;
        assert_eq!(restored.sessions, state.sessions);
    }
}
