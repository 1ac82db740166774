//! Reading a checkpoint's file: its chunks, one behind the other, each of which names the one before it.
//!
//! This is a state machine: [`CheckpointReader::advance`] asks for one read at a time. Who calls it performs
//! the read: a core when it starts, or a check beside it.

use super::chunk::{CHUNK_HEADER_BYTES, ChunkHeader, ChunkPlace};
use super::sink::ImageSink;
use super::superblock::CheckpointName;
use crate::limits::RECOVERY_READ_BYTES;
use crate::wal::block::LogIdentity;
use crate::wal::record::RecordError;
use bytes::Bytes;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::File;

/// Reads a checkpoint.
#[derive(Debug)]
pub struct CheckpointReader {
    name: CheckpointName,
    sequence: u64,
    index: u64,
    offset: u64,
    previous_hash: Hash128,
    sink: ImageSink,
    window: Bytes,
    window_offset: u64,
    /// What was asked for last: offset and least length.
    asked: Option<(u64, usize)>,
}

/// What a reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// These bytes of its file; fewer when the file ends before.
    Read {
        /// Where they begin.
        offset: u64,
        /// How many, a whole number of blocks.
        bytes: usize,
    },
    /// Nothing: the checkpoint is read.
    Complete,
    /// Nothing: the chunk at its place is damaged.
    Damaged,
}

impl CheckpointReader {
    /// Begins to read the checkpoint that the superblock `sequence` names.
    #[must_use]
    pub fn new(name: CheckpointName, sequence: u64) -> Self {
        Self {
            name,
            sequence,
            index: 0,
            offset: 0,
            previous_hash: Hash128::ZERO,
            sink: ImageSink::default(),
            window: Bytes::new(),
            window_offset: 0,
            asked: None,
        }
    }

    /// The file that it reads.
    #[must_use]
    pub fn file(&self) -> File {
        File::Checkpoint(self.name.file)
    }

    /// The chunk that comes next, or is damaged.
    #[must_use]
    pub fn place(&self) -> ChunkPlace {
        let Self { name, sequence, index, offset, .. } = *self;
        ChunkPlace { file: name.file, checkpoint: sequence, index, offset }
    }

    /// Takes what was read at `offset`.
    pub fn take(&mut self, offset: u64, bytes: Bytes) {
        self.window = bytes;
        self.window_offset = offset;
    }

    /// What was read, once it is complete.
    #[must_use]
    pub fn finish(&mut self) -> ImageSink {
        std::mem::take(&mut self.sink)
    }

    /// Takes chunks from what was read last, and says what to read next.
    ///
    /// # Errors
    /// When a record is malformed although its chunk is whole.
    pub fn advance(&mut self, identity: &LogIdentity) -> Result<Advance, RecordError> {
        loop {
            let skip = ((self.offset - self.window_offset) as usize).min(self.window.len());
            let left = self.window.slice(skip..);
            if left.len() < BLOCK_BYTES {
                return Ok(self.ask_for(BLOCK_BYTES));
            }
            let Some((header, hash)) = ChunkHeader::decode(&left, identity, &self.place()) else {
                return Ok(Advance::Damaged);
            };
            if left.len() < header.disk_bytes() {
                return Ok(self.ask_for(header.disk_bytes()));
            }
            let payload = left.slice(CHUNK_HEADER_BYTES..CHUNK_HEADER_BYTES + header.payload_bytes as usize);
            if header.previous_hash != self.previous_hash || Hash128::of(&payload) != header.payload_hash {
                return Ok(Advance::Damaged);
            }
            self.sink.take(payload)?;
            self.index += 1;
            self.offset += header.disk_bytes() as u64;
            self.previous_hash = hash;
            if header.last {
                let as_named = self.index == self.name.chunks && hash == self.name.last_hash;
                let whole = as_named && !self.sink.is_open();
                return Ok(if whole { Advance::Complete } else { Advance::Damaged });
            }
        }
    }

    /// Asks for `bytes` at the present offset, once: the file is too short if they did not come.
    fn ask_for(&mut self, bytes: usize) -> Advance {
        if self.asked == Some((self.offset, bytes)) {
            return Advance::Damaged;
        }
        self.asked = Some((self.offset, bytes));
        Advance::Read { offset: self.offset, bytes: bytes.max(RECOVERY_READ_BYTES) }
    }
}
