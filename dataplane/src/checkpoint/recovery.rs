//! Recovery: superblock, then checkpoint, then log, one disk operation at a time, into what the core's groups
//! start from.
//!
//! Everything that was read is made durable before the core votes: a write that survived the crash of the
//! process may still lie in the device's cache only.

use super::chunk::ChunkPlace;
use super::reader::{Advance, CheckpointReader};
use super::superblock::{SUPERBLOCK_FILE_BYTES, Superblock, SuperblockError};
use crate::btree::space::Space;
use crate::partition::state::State;
use crate::paxos::Seed;
use crate::planted::{self, Planted};
use crate::wal::block::{LogIdentity, Place};
use crate::wal::record::RecordError;
use crate::wal::recovery::{LogError, LogRecovery, Next, RecoveredLog};
use crate::wal::replay::{Replay, ReplayError};
use bytes::Bytes;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::turn::{DiskAction, DiskFault, File};
use std::collections::VecDeque;
use thiserror::Error;

/// Why a core cannot start from its files.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum RecoveryError {
    /// No usable superblock.
    #[error(transparent)]
    Superblock(#[from] SuperblockError),
    /// A record of the checkpoint is malformed although its chunk is whole.
    #[error("checkpoint: {0}")]
    Image(#[from] RecordError),
    /// The log cannot be read by this version.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The log's records contradict each other.
    #[error(transparent)]
    Replay(#[from] ReplayError),
    /// The disk failed.
    #[error("reading {file:?} failed: {fault}")]
    Disk {
        /// Which file.
        file: File,
        /// How.
        fault: DiskFault,
    },
}

/// What to do next.
#[derive(Debug)]
pub enum RecoveryStep {
    /// Perform this, then call again with the outcome.
    Operation(File, DiskAction),
    /// Everything has been read and is durable.
    Done(Box<Recovered>),
}

/// What a core starts from.
#[derive(Debug)]
pub struct Recovered {
    /// The superblock in force.
    pub superblock: Superblock,
    /// The other one was written once and cannot be read: this one may be too old.
    pub superblock_damaged: bool,
    /// The log.
    pub log: RecoveredLog,
    /// The chunk of the checkpoint that could not be read, if one could not: the groups begin empty.
    pub damaged_chunk: Option<ChunkPlace>,
    /// Which blocks of the tree's file the checkpoint uses.
    pub space: Space,
    /// The groups: what their replica starts from, and their state. After damage none of them may vote until
    /// it is refilled by its peers.
    pub groups: Vec<(Seed, State)>,
}

impl Recovered {
    /// What was found, in a sentence; empty when nothing is damaged.
    #[must_use]
    pub fn report(&self) -> String {
        let chunk = self.damaged_chunk.iter().map(|place| {
            format!(
                "checkpoint file {} is damaged at byte {} (chunk {})",
                place.file, place.offset, place.index
            )
        });
        let log = self.log.damage.iter().map(|damage| {
            let Place { at, offset } = damage.place;
            let until = damage.until.map_or("the end".to_owned(), |until| until.to_string());
            format!(
                "log segment {} is damaged at byte {offset} (writes {} to before {until}, durable once)",
                at.segment, damage.from
            )
        });
        let superblock = self.superblock_damaged.then(|| "one of the two superblocks is damaged".to_owned());
        let found: Vec<String> = superblock.into_iter().chain(chunk).chain(log).collect();
        if found.is_empty() {
            return String::new();
        }
        format!("{}; this core's replicas do not vote until their peers have refilled them", found.join("; "))
    }
}

#[derive(Debug)]
enum Phase {
    Superblock,
    Checkpoint(Box<CheckpointReader>),
    Log(Box<LogRecovery>),
    Flush { left: VecDeque<File>, log: RecoveredLog },
}

/// Reads a core's files.
#[derive(Debug)]
pub struct Recovery {
    identity: LogIdentity,
    phase: Phase,
    superblock: Option<Superblock>,
    superblock_damaged: bool,
    replay: Replay,
    space: Space,
    damaged_chunk: Option<ChunkPlace>,
    /// What the last operation was on.
    asked: Option<(File, u64)>,
}

impl Recovery {
    /// Begins.
    #[must_use]
    pub fn new(identity: LogIdentity) -> Self {
        Self {
            identity,
            phase: Phase::Superblock,
            superblock: None,
            superblock_damaged: false,
            replay: Replay::default(),
            space: Space::restore(&[]),
            damaged_chunk: None,
            asked: None,
        }
    }

    /// The first operation.
    #[must_use]
    pub fn begin(&mut self) -> RecoveryStep {
        self.read(File::Superblock, 0, SUPERBLOCK_FILE_BYTES)
    }

    /// Takes the outcome of the last operation and says what to do next.
    ///
    /// # Errors
    /// When the core cannot start from these files.
    pub fn next(
        &mut self,
        outcome: Result<Option<AlignedBuffer>, DiskFault>,
    ) -> Result<RecoveryStep, RecoveryError> {
        let (file, offset) = self.asked.expect("an operation was asked for");
        let bytes = outcome.map_err(|fault| RecoveryError::Disk { file, fault })?;
        let bytes = bytes.map(Bytes::from_owner).unwrap_or_default();
        match &mut self.phase {
            Phase::Superblock => {
                let superblock = Superblock::choose(&bytes, &self.identity)?;
                self.superblock = Some(superblock);
                self.superblock_damaged = Superblock::is_damaged(&bytes, &self.identity);
                match superblock.checkpoint {
                    Some(name) => {
                        self.phase =
                            Phase::Checkpoint(Box::new(CheckpointReader::new(name, superblock.sequence)));
                        self.read_checkpoint()
                    }
                    None => self.begin_log(),
                }
            }
            Phase::Checkpoint(reader) => {
                reader.take(offset, bytes);
                self.read_checkpoint()
            }
            Phase::Log(_) => {
                let File::Segment(segment) = file else {
                    unreachable!("the log is read from segments");
                };
                self.read_log(Some((segment, offset, bytes)))
            }
            Phase::Flush { .. } => self.flush(),
        }
    }

    fn read(&mut self, file: File, offset: u64, bytes: usize) -> RecoveryStep {
        self.asked = Some((file, offset));
        RecoveryStep::Operation(file, DiskAction::Read { offset, buffer: AlignedBuffer::zeroed(bytes) })
    }

    fn read_checkpoint(&mut self) -> Result<RecoveryStep, RecoveryError> {
        let Phase::Checkpoint(reader) = &mut self.phase else {
            unreachable!("called while the checkpoint is read");
        };
        match reader.advance(&self.identity)? {
            Advance::Read { offset, bytes } => {
                let file = reader.file();
                Ok(self.read(file, offset, bytes))
            }
            Advance::Complete => {
                let image = reader.finish();
                self.space = Space::restore(&image.space);
                self.replay = Replay::new(image.complete)?;
                self.begin_log()
            }
            Advance::Damaged => {
                self.damaged_chunk = Some(reader.place());
                self.replay = Replay::without_checkpoint();
                self.begin_log()
            }
        }
    }

    fn begin_log(&mut self) -> Result<RecoveryStep, RecoveryError> {
        let superblock = self.superblock.expect("the superblock was read first");
        let Superblock { segments, segment_bytes, log_start, .. } = superblock;
        self.phase =
            Phase::Log(Box::new(LogRecovery::new(self.identity, segments, segment_bytes, log_start)));
        self.read_log(None)
    }

    fn read_log(&mut self, read: Option<(u32, u64, Bytes)>) -> Result<RecoveryStep, RecoveryError> {
        let Phase::Log(log) = &mut self.phase else {
            unreachable!("called while the log is read");
        };
        let next = log.next(read)?;
        let damaged = log.is_damaged();
        for record in log.records.drain(..) {
            self.replay.take(record, damaged)?;
        }
        match next {
            Next::Read { segment, offset, bytes } => Ok(self.read(File::Segment(segment), offset, bytes)),
            Next::Done(log) => {
                // What a process that was killed had under way may be live and not durable: what was read
                // must be.
                let mut left: VecDeque<File> = [File::Superblock, File::Tree].into();
                let superblock = self.superblock.expect("the superblock was read first");
                left.extend(superblock.checkpoint.map(|name| File::Checkpoint(name.file)));
                left.extend(log.used.iter().map(|segment| File::Segment(segment.at.segment)));
                self.phase = Phase::Flush { left, log };
                self.flush()
            }
        }
    }

    fn flush(&mut self) -> Result<RecoveryStep, RecoveryError> {
        let Phase::Flush { left, log } = &mut self.phase else {
            unreachable!("called while flushing");
        };
        if let Some(file) = left.pop_front().filter(|_| !planted::active(Planted::ServeUnflushed)) {
            self.asked = Some((file, 0));
            return Ok(RecoveryStep::Operation(file, DiskAction::Flush));
        }
        let log = log.clone();
        let groups =
            std::mem::take(&mut self.replay).finish(!log.damage.is_empty() || self.superblock_damaged);
        let superblock = self.superblock.expect("the superblock was read first");
        let damaged_chunk = self.damaged_chunk;
        let superblock_damaged = self.superblock_damaged;
        let space = std::mem::replace(&mut self.space, Space::restore(&[]));
        let recovered = Recovered { superblock, superblock_damaged, log, damaged_chunk, space, groups };
        Ok(RecoveryStep::Done(Box::new(recovered)))
    }
}
