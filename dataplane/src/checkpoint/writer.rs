//! Writes checkpoints, one chunk at a time and one at most under way, so that requests beside it hardly
//! notice.
//!
//! The order of what becomes durable: the copies in the log and all chunks, then the superblock, then
//! segments are recycled. A checkpoint that finds no space waits and writes its chunks again, from the same
//! states and behind the same copies in the log: waiting uses up no log. Until there is space the log fills,
//! and the core refuses writes. Any other failure halts the core.

use super::chunk::{ChunkPlace, lay_out};
use super::image::ImageSource;
use super::superblock::{CheckpointName, Superblock};
use crate::operations::Owner;
use crate::partition::state::State;
use crate::wal::block::LogIdentity;
use crate::wal::record::Record;
use crate::wal::recovery::LogStart;
use crate::wal::writer::Writer;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::ids::Lsn;
use evenkeel_wire::turn::{Boot, DiskAction, DiskCompletion, DiskFault, DiskOperation, Effects, File, Halt};
use std::collections::VecDeque;
use std::time::Duration;

/// How long to wait after a checkpoint that found no space.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(2);

/// A group's part of a checkpoint.
#[derive(Debug)]
pub struct GroupImage {
    /// The group's state record.
    pub group: Record,
    /// Records of what was accepted and not applied.
    pub open: Vec<Record>,
    /// The partition's state.
    pub state: State,
}

/// What has come of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Running,
    /// The checkpoint is complete and durable.
    Complete,
}

#[derive(Debug)]
struct Running {
    name: CheckpointName,
    sequence: u64,
    log_start: Lsn,
    /// All images, to begin again with.
    all: VecDeque<ImageSource>,
    /// Those that are not written yet.
    images: VecDeque<ImageSource>,
    offset: u64,
    memory_lost: bool,
    step: Step,
    busy: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Chunks,
    Flush,
    Superblock,
}

/// Writes a core's checkpoints.
#[derive(Debug)]
pub struct Checkpointer {
    identity: LogIdentity,
    superblock: Superblock,
    running: Option<Running>,
    operations: u64,
    not_before: Boot,
    full: bool,
    completed: u64,
}

impl Checkpointer {
    /// Goes on behind the checkpoint that `superblock` names.
    #[must_use]
    pub fn new(identity: LogIdentity, superblock: Superblock) -> Self {
        Self {
            identity,
            superblock,
            running: None,
            operations: 0,
            not_before: Boot(0),
            full: false,
            completed: 0,
        }
    }

    /// Whether a checkpoint may begin now.
    #[must_use]
    pub fn may_begin(&self) -> bool {
        self.running.is_none()
    }

    /// Whether it finds no space.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.full
    }

    /// How many were completed.
    #[must_use]
    pub fn completed(&self) -> u64 {
        self.completed
    }

    /// Begins a checkpoint of `groups`: copies what must survive forward in the log.
    pub fn begin(&mut self, log: &mut Writer, groups: Vec<GroupImage>, memory_lost: bool) {
        assert!(self.running.is_none(), "one checkpoint at a time");
        let log_start = log.begin_marked_write();
        let mut images = VecDeque::new();
        for image in groups {
            log.append(&image.group);
            for record in &image.open {
                log.append(record);
            }
            images.push_back(ImageSource::new(image.state, image.group));
        }
        let file = self.superblock.checkpoint.map_or(0, |present| 1 - present.file);
        self.running = Some(Running {
            name: CheckpointName { file, chunks: 0, last_hash: Hash128::ZERO },
            sequence: self.superblock.sequence + 1,
            log_start,
            all: images.clone(),
            images,
            offset: 0,
            memory_lost,
            step: Step::Chunks,
            busy: false,
        });
    }

    /// Issues the next operation, if none is under way.
    pub fn end_turn(&mut self, now: Boot, log: &Writer, out: &mut Effects) {
        let Some(running) = &mut self.running else {
            return;
        };
        if running.busy || now < self.not_before {
            return;
        }
        let file = File::Checkpoint(running.name.file);
        let (file, action) = match running.step {
            Step::Chunks => (file, running.next_chunk(&self.identity)),
            Step::Flush => (file, DiskAction::Flush),
            Step::Superblock => {
                // The copies must be durable before anything points at them.
                let (Some(place), true) = (log.marked_place(), log.durable() >= running.log_start) else {
                    return;
                };
                let log_start = LogStart { lsn: running.log_start, place: Some(place) };
                let next = Superblock {
                    sequence: running.sequence,
                    log_start,
                    checkpoint: Some(running.name),
                    memory_lost: running.memory_lost,
                    ..self.superblock
                };
                self.superblock = next;
                let buffer = next.encode(&self.identity);
                (File::Superblock, DiskAction::Write { offset: next.offset(), buffer, durable: true })
            }
        };
        running.busy = true;
        self.operations += 1;
        out.disk.push(DiskOperation { id: Owner::Checkpoint(self.operations).id(), file, action });
    }

    /// Takes the completion of an operation.
    ///
    /// # Errors
    /// [`Halt`] when it failed for another reason than space.
    pub fn completed_operation(
        &mut self,
        now: Boot,
        log: &mut Writer,
        completion: DiskCompletion,
    ) -> Result<Progress, Halt> {
        let running = self.running.as_mut().expect("completions belong to a running checkpoint");
        running.busy = false;
        match completion.outcome {
            Ok(_) => {}
            Err(DiskFault::Full) if running.step == Step::Chunks => {
                running.begin_again();
                self.full = true;
                self.not_before = now.after(RETRY_AFTER_FULL);
                return Ok(Progress::Running);
            }
            Err(fault) => return Err(Halt(format!("checkpoint write failed: {fault}"))),
        }
        match running.step {
            Step::Chunks if running.images.is_empty() => running.step = Step::Flush,
            Step::Chunks => {}
            Step::Flush => running.step = Step::Superblock,
            Step::Superblock => {
                log.recycle_before(running.log_start);
                self.running = None;
                self.full = false;
                self.completed += 1;
                return Ok(Progress::Complete);
            }
        }
        Ok(Progress::Running)
    }
}

impl Running {
    fn begin_again(&mut self) {
        self.images = self.all.clone();
        self.offset = 0;
        self.name = CheckpointName { chunks: 0, last_hash: Hash128::ZERO, ..self.name };
    }

    /// Lays out the next chunk. A checkpoint of a core without groups is one empty chunk.
    fn next_chunk(&mut self, identity: &LogIdentity) -> DiskAction {
        let mut records = Vec::with_capacity(crate::limits::CHUNK_BYTES + 4096);
        while let Some(image) = self.images.front_mut() {
            if !image.fill(&mut records) {
                break;
            }
            self.images.pop_front();
        }
        let place = ChunkPlace {
            file: self.name.file,
            checkpoint: self.sequence,
            index: self.name.chunks,
            offset: self.offset,
        };
        let last = self.images.is_empty();
        let (buffer, hash) = lay_out(identity, &place, self.name.last_hash, &records, last);
        self.offset += buffer.len() as u64;
        self.name.chunks += 1;
        self.name.last_hash = hash;
        DiskAction::Write { offset: place.offset, buffer, durable: false }
    }
}
