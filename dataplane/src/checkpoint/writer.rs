//! Writes checkpoints in the background, a few operations at a time, so that requests beside it hardly
//! notice.
//!
//! The order of what happens: each group's state record in the log; for each partition the merge of what was
//! written into the next version of its tree; the images, which name those versions and hold what is accepted
//! and not applied, and the bitmap of the tree's file; flushes of both files; when all that and the state
//! records are durable, the superblock; then segments and blocks are free.
//!
//! It is *paced*: merging goes no further than the log has filled up in the meantime, with some advance, so
//! that it is done in time and its work is spread evenly.
//!
//! A checkpoint that finds no space gives up what it has written, waits, and begins again, from the same
//! states and behind the same records in the log: waiting uses up no log, and being started again and again
//! uses up hardly any. Until there is space the log fills, and the core refuses writes. Any other failure
//! halts the core.

use super::chunk::{ChunkPlace, lay_out};
use super::image::{ImageSource, space_records};
use super::superblock::{CheckpointName, Superblock};
use crate::btree::batch::Batches;
use crate::btree::delta::Delta;
use crate::btree::feed::Feed;
use crate::btree::lookup::Pages;
use crate::btree::lookup::Place;
use crate::btree::merge::{Merge, Merged, Progress as MergeProgress, Workshop};
use crate::btree::page::{PageFault, Stamp};
use crate::btree::pointer::PagePointer;
use crate::btree::space::LoosePages;
use crate::btree::store::{FeedId, Store};
use crate::btree::version::{Blocks, Redirects, Version};
use crate::limits::{
    CHECKPOINT_ADVANCE, CHECKPOINT_CHANGES_PER_SECOND, CHECKPOINT_LAG_MAX, CHECKPOINT_LEAVES_PER_TURN,
    CHUNK_BYTES, SEGMENTS_RESERVED,
};
use crate::operations::Owner;
use crate::partition::state::State;
use crate::planted::{self, Planted};
use crate::wal::block::LogIdentity;
use crate::wal::record::{Record, RecordBody};
use crate::wal::recovery::LogStart;
use crate::wal::writer::Writer;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::ids::{Epoch, Lsn, PartitionId};
use evenkeel_wire::turn::{Boot, DiskAction, DiskCompletion, DiskFault, DiskOperation, Effects, File, Halt};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// How long to wait after a checkpoint that found no space.
const RETRY_AFTER_FULL: Duration = Duration::from_secs(2);
/// How long a checkpoint that is ahead of the log rests.
const REST: Duration = Duration::from_millis(2);

/// A group's part of a checkpoint.
#[derive(Debug)]
pub struct GroupImage {
    /// The group's state record.
    pub group: Record,
    /// Records of what was accepted and not applied.
    pub open: Vec<Record>,
    /// The partition's state. What its tree has frozen is merged.
    pub state: State,
    /// Pages of its tree that are of no version yet: the checkpoint takes them over.
    pub loose: LoosePages,
}

/// What has come of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It goes on.
    Running,
    /// The checkpoint is complete and durable.
    Complete {
        /// The versions of the trees that it holds.
        versions: Vec<(PartitionId, Version)>,
        /// Blocks of the pages that they do without.
        replaced: BTreeSet<Blocks>,
    },
}

/// A partition's part of the checkpoint that runs.
#[derive(Debug)]
struct Part {
    group: Record,
    open: Arc<[Record]>,
    state: State,
    loose: LoosePages,
    /// Its tree, once it is merged.
    version: Option<Version>,
}

impl Part {
    fn epoch(&self) -> Epoch {
        match &self.group.body {
            RecordBody::State(state) => state.config.epoch,
            RecordBody::Entry(_) | RecordBody::Promise | RecordBody::Supersede(_) | RecordBody::Removed => {
                unreachable!("an image begins with a group's state")
            }
        }
    }
}

#[derive(Debug)]
struct Running {
    sequence: u64,
    log_start: Lsn,
    memory_lost: bool,
    began: Boot,
    parts: Vec<Part>,
    /// Changes in all parts, and in those that are merged.
    changes: u64,
    changes_done: u64,
    merge: Option<Box<Merge>>,
    /// A tree was split since the last one: paths are copied.
    divides: bool,
    /// Blocks that the new versions do without, and blocks that were written for them.
    replaced: BTreeSet<Blocks>,
    written: Vec<(u64, u16)>,
    name: CheckpointName,
    images: VecDeque<ImageSource>,
    space: Vec<u64>,
    /// Records of the bitmap that are in chunks already.
    space_done: usize,
    offset: u64,
    step: Step,
    busy: bool,
    /// There was no space: when nothing is under way any more, it begins again…
    giving_up: bool,
    /// …or ends.
    cancelled: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Trees,
    Chunks,
    FlushTree,
    FlushChunks,
    Superblock,
}

/// Writes a core's checkpoints.
#[derive(Debug)]
pub struct Checkpointer {
    identity: LogIdentity,
    superblock: Superblock,
    running: Option<Box<Running>>,
    batches: Batches,
    /// Pages for the merges.
    pub feed: Feed,
    operations: u64,
    not_before: Boot,
    wake_at: Boot,
    full: bool,
    /// One was cancelled, and nobody has taken note yet.
    cancelled: bool,
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
            batches: Batches::default(),
            feed: Feed::default(),
            operations: 0,
            not_before: Boot(0),
            wake_at: Boot::NEVER,
            full: false,
            cancelled: false,
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

    /// Bytes of pages written since the start.
    #[must_use]
    pub fn tree_bytes_written(&self) -> u64 {
        self.batches.bytes
    }

    /// Ends the checkpoint that runs, if it still merges: it may wait for what only another one can bring.
    /// See [`take_cancelled`](Self::take_cancelled).
    pub fn cancel(&mut self) {
        if let Some(running) = self.running.as_mut().filter(|running| running.step == Step::Trees) {
            self.batches.abandon();
            running.giving_up = true;
            running.cancelled = true;
        }
    }

    /// Whether a checkpoint was cancelled since the last question: then what was frozen for it is not merged.
    pub fn take_cancelled(&mut self) -> bool {
        std::mem::take(&mut self.cancelled)
    }

    /// Whether the log fills up faster than the checkpoint goes on: then writes are held until it has caught
    /// up, so that they are slowed down evenly and never meet a log that is full.
    #[must_use]
    pub fn lags(&self, log: &Writer) -> bool {
        let Some(running) = self.running.as_ref().filter(|_| !self.full) else {
            return false;
        };
        let behind = running.step == Step::Trees && running.done() < running.due(log, CHECKPOINT_LAG_MAX);
        behind || log.is_nearly_full()
    }

    /// When the checkpoint wants to go on although nothing else happens.
    #[must_use]
    pub fn wake_at(&self) -> Boot {
        self.wake_at
    }

    /// Begins a checkpoint of `groups`: the log that it needs begins with their state records.
    pub fn begin(&mut self, now: Boot, log: &mut Writer, groups: Vec<GroupImage>, memory_lost: bool) {
        assert!(self.running.is_none(), "one checkpoint at a time");
        let log_start = log.begin_marked_write();
        let mut parts = Vec::new();
        for GroupImage { group, open, state, loose } in groups {
            log.append(&group);
            parts.push(Part { group, open: open.into(), state, loose, version: None });
        }
        let changes = parts.iter().filter_map(|part| part.state.tree.frozen());
        let file = self.superblock.checkpoint.map_or(0, |present| 1 - present.file);
        self.not_before = now;
        self.running = Some(Box::new(Running {
            sequence: self.superblock.sequence + 1,
            log_start,
            memory_lost,
            began: now,
            changes: changes.map(|delta| delta.len() as u64).sum(),
            changes_done: 0,
            divides: parts.iter().any(|part: &Part| part.state.tree.keep().is_some()),
            parts,
            merge: None,
            replaced: BTreeSet::new(),
            written: Vec::new(),
            name: CheckpointName { file, chunks: 0, last_hash: Hash128::ZERO },
            images: VecDeque::new(),
            space: Vec::new(),
            space_done: 0,
            offset: 0,
            step: Step::Trees,
            busy: false,
            giving_up: false,
            cancelled: false,
        }));
    }

    /// Goes on, and issues the next operations.
    pub fn end_turn(&mut self, now: Boot, log: &Writer, store: &mut Store, out: &mut Effects) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        if running.giving_up && self.batches.is_idle() && !running.busy {
            running.begin_again(store);
            if running.cancelled {
                self.feed.clear();
                self.cancelled = true;
                self.wake_at = Boot::NEVER;
                return;
            }
        }
        self.wake_at = if now < self.not_before { self.not_before } else { Boot::NEVER };
        if now >= self.not_before && !running.giving_up && !running.busy {
            if running.step == Step::Trees {
                self.merge_trees(now, &mut running, log, store);
            }
            match running.step {
                Step::Trees => {}
                Step::Chunks | Step::FlushTree | Step::FlushChunks | Step::Superblock => {
                    self.next_operation(&mut running, log, out);
                }
            }
        }
        if !running.giving_up {
            let merged = running.parts.iter().all(|part| part.version.is_some());
            while let Some(action) = self.batches.next_write(merged) {
                self.operations += 1;
                let id = Owner::Tree(self.operations).id();
                out.disk.push(DiskOperation { id, file: File::Tree, action });
            }
        }
        store.serve_feed(FeedId::Checkpoint, &mut self.feed);
        self.running = Some(running);
    }

    /// Merges on, as far as the pace allows.
    fn merge_trees(&mut self, now: Boot, running: &mut Running, log: &Writer, store: &mut Store) {
        running.take_over_unchanged(&store.redirects);
        let Some(place) = running.parts.iter().position(|part| part.version.is_none()) else {
            if self.batches.is_idle() {
                running.end_trees(store);
            }
            return;
        };
        let unpaced = planted::active(Planted::UnpacedCheckpoint);
        if running.is_ahead(now, log) && !unpaced {
            self.wake_at = now.after(REST);
            return;
        }
        let part = &mut running.parts[place];
        let (partition, position) = (part.group.partition, part.state.slot());
        let old = *part.state.tree.version();
        let stamp = Stamp {
            identity: self.identity,
            tree: partition,
            epoch: part.epoch(),
            checkpoint: running.sequence,
            position,
        };
        if running.merge.is_none() {
            store.redirects.begin_merge(partition, running.sequence);
        }
        let Store { space, cache, redirects, .. } = store;
        let mut shop = Workshop { stamp, space, cache, redirects, batches: &mut self.batches, loose: false };
        let frozen = part.state.tree.frozen();
        let clip = || part.state.tree.keep().cloned().unwrap_or_default();
        let merge = running
            .merge
            .get_or_insert_with(|| Box::new(Merge::new(old, frozen.unwrap_or(&Delta::default()), clip())));
        let leaves_max = if unpaced { usize::MAX } else { CHECKPOINT_LEAVES_PER_TURN };
        match merge.advance(&mut shop, &mut self.feed, leaves_max) {
            MergeProgress::Waits => return,
            MergeProgress::More => {
                // Writes that end wake it when enough of them are under way.
                self.wake_at = if self.batches.is_full() { Boot::NEVER } else { now };
                return;
            }
            MergeProgress::Done => self.wake_at = now,
        }
        let merge = running.merge.take().expect("it was just advanced");
        running.changes_done += merge.progress().0;
        let Merged { version, replaced, written } = merge.finish();
        part.version = Some(version);
        running.replaced.extend(replaced);
        running.written.extend(written);
    }

    fn next_operation(&mut self, running: &mut Running, log: &Writer, out: &mut Effects) {
        let unflushed = planted::active(Planted::SuperblockBeforePages)
            || (running.divides && planted::active(Planted::SplitWithoutFlush));
        if running.step == Step::FlushTree && unflushed {
            running.step = Step::FlushChunks;
        }
        let file = File::Checkpoint(running.name.file);
        let (file, action) = match running.step {
            Step::Chunks => (file, running.next_chunk(&self.identity)),
            Step::FlushTree => (File::Tree, DiskAction::Flush),
            Step::FlushChunks => (file, DiskAction::Flush),
            Step::Superblock => {
                // The state records must be durable before anything points at them.
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
            Step::Trees => unreachable!("trees are merged, not written as a step"),
        };
        running.busy = true;
        self.operations += 1;
        out.disk.push(DiskOperation { id: Owner::Checkpoint(self.operations).id(), file, action });
    }

    /// A damaged page for which the merge waits: of which partition, where it stands, and what is wrong.
    #[must_use]
    pub fn damage(&self, store: &Store) -> Option<(PartitionId, PagePointer, Place, PageFault)> {
        let running = self.running.as_ref()?;
        let part = running.parts.iter().find(|part| part.version.is_none())?;
        let page = self.feed.waits_for()?;
        let fault = store.damage(&page)?;
        let place = running.merge.as_ref()?.place_of(&page, &store.redirects)?;
        Some((part.group.partition, page, place, fault))
    }

    /// Takes the completion of a write of pages.
    ///
    /// # Errors
    /// [`Halt`] when it failed for another reason than space.
    pub fn completed_pages(&mut self, now: Boot, completion: DiskCompletion) -> Result<(), Halt> {
        match completion.outcome {
            Ok(buffer) => self.batches.ended(buffer),
            Err(DiskFault::Full) => {
                self.batches.ended(None);
                self.give_up(now);
            }
            Err(fault) => return Err(Halt(format!("writing pages of the tree failed: {fault}"))),
        }
        Ok(())
    }

    fn give_up(&mut self, now: Boot) {
        self.full = true;
        self.not_before = now.after(RETRY_AFTER_FULL);
        self.batches.abandon();
        if let Some(running) = &mut self.running {
            running.giving_up = true;
        }
    }

    /// Takes the completion of an operation.
    ///
    /// # Errors
    /// [`Halt`] when it failed for another reason than space.
    pub fn completed_operation(
        &mut self,
        now: Boot,
        log: &mut Writer,
        store: &mut Store,
        completion: DiskCompletion,
    ) -> Result<Progress, Halt> {
        let running = self.running.as_mut().expect("completions belong to a running checkpoint");
        running.busy = false;
        match completion.outcome {
            Ok(_) => {}
            Err(DiskFault::Full) if running.step == Step::Chunks => {
                running.begin_chunks();
                self.full = true;
                self.not_before = now.after(RETRY_AFTER_FULL);
                return Ok(Progress::Running);
            }
            Err(fault) => return Err(Halt(format!("checkpoint write failed: {fault}"))),
        }
        match running.step {
            Step::Trees => unreachable!("trees are merged, not written as a step"),
            Step::Chunks if running.is_in_chunks() => running.step = Step::FlushTree,
            Step::Chunks => {}
            Step::FlushTree => running.step = Step::FlushChunks,
            Step::FlushChunks => running.step = Step::Superblock,
            Step::Superblock => {
                log.recycle_before(running.log_start);
                store.space.settle(running.sequence);
                for (block, blocks) in &running.replaced {
                    if store.space.is_loose(*block) {
                        store.space.release(*block, *blocks);
                    }
                }
                let unused = store.redirects.settle(running.sequence, &running.replaced);
                store.space.retire_loose(&unused);
                let running = self.running.take().expect("it is running");
                self.full = false;
                self.completed += 1;
                let versions = running
                    .parts
                    .into_iter()
                    .map(|part| (part.group.partition, part.version.expect("every tree was merged")));
                return Ok(Progress::Complete { versions: versions.collect(), replaced: running.replaced });
            }
        }
        Ok(Progress::Running)
    }
}

impl Running {
    /// Whether more is merged than the log's filling up since asks for.
    fn is_ahead(&self, now: Boot, log: &Writer) -> bool {
        let done = self.done();
        let by_time = now.since(self.began).as_millis() as u64 * CHECKPOINT_CHANGES_PER_SECOND / 1000;
        done > by_time && done > self.due(log, CHECKPOINT_ADVANCE)
    }

    /// How many changes are merged.
    fn done(&self) -> u64 {
        self.changes_done + self.merge.as_ref().map_or(0, |merge| merge.progress().1)
    }

    /// How many should be, for the checkpoint to be done when the log has used up its part, or as much
    /// earlier as `advance` says.
    fn due(&self, log: &Writer, advance: f64) -> u64 {
        // From half of the log, where checkpoints begin, until only the reserve is left. One that begins
        // later, after a restart or a disk that was full, has no time to lose.
        let half = f64::from(log.status().segments) / 2.0;
        let budget = half - SEGMENTS_RESERVED as f64;
        let used = (half - log.free_segments()).max(0.0);
        (self.changes as f64 * (used / budget * advance).min(1.0)) as u64
    }

    /// Takes over the trees in which nothing changed.
    fn take_over_unchanged(&mut self, redirects: &Redirects) {
        if self.merge.is_some() {
            return;
        }
        for part in self.parts.iter_mut().filter(|part| part.version.is_none()) {
            let redirected = redirects.within(part.group.partition, b"", b"");
            let tree = &part.state.tree;
            if tree.frozen().is_none_or(Delta::is_empty) && tree.keep().is_none() && !redirected {
                let position = part.state.slot();
                part.version = Some(Version { position, ..*part.state.tree.version() });
            }
        }
    }

    /// All trees are merged and their pages written.
    fn end_trees(&mut self, store: &mut Store) {
        for (block, blocks) in &self.replaced {
            // What stood in for a damaged page belongs to no version: it is released with the superblock.
            if !store.space.is_loose(*block) {
                store.space.retire(self.sequence, *block, *blocks);
            }
        }
        let arrived = self.parts.iter().flat_map(|part| part.loose.iter().copied());
        let arrived = arrived.filter(|page| !self.replaced.contains(page)).collect::<Vec<Blocks>>();
        let repaired = store.redirects.taken_over(&self.replaced);
        for (block, blocks) in arrived.into_iter().chain(repaired) {
            store.space.adopt(block, blocks);
        }
        self.written.clear();
        self.space = store.space.stored_words(self.sequence);
        self.step = Step::Chunks;
        self.begin_chunks();
    }

    /// Begins the checkpoint file, again if there was no space before.
    fn begin_chunks(&mut self) {
        let image = |part: &Part| {
            let version = part.version.expect("every tree was merged");
            let forgets = planted::active(Planted::CheckpointForgetsOpen);
            let open = if forgets { Arc::default() } else { Arc::clone(&part.open) };
            ImageSource::beside_tree(part.state.clone(), part.group.clone(), open, version)
        };
        self.images = self.parts.iter().map(image).collect();
        self.space_done = 0;
        self.offset = 0;
        self.name = CheckpointName { chunks: 0, last_hash: Hash128::ZERO, ..self.name };
    }

    /// Gives up what was written of the trees, and begins again with the first.
    fn begin_again(&mut self, store: &mut Store) {
        if let Some(merge) = self.merge.take() {
            merge.abandon(&mut store.space);
        }
        for (block, blocks) in self.written.drain(..) {
            store.space.release(block, blocks);
        }
        self.replaced.clear();
        self.changes_done = 0;
        for part in &mut self.parts {
            part.version = None;
        }
        self.giving_up = false;
    }

    fn is_in_chunks(&self) -> bool {
        self.images.is_empty() && self.space_done == space_records(&self.space).count()
    }

    /// Lays out the next chunk. A checkpoint of a core without groups is one empty chunk.
    fn next_chunk(&mut self, identity: &LogIdentity) -> DiskAction {
        let mut records = Vec::with_capacity(CHUNK_BYTES + 4096);
        while let Some(image) = self.images.front_mut() {
            let complete = image.fill(Pages::default(), &mut records);
            if !complete.expect("an image beside its tree reads no pages") {
                break;
            }
            self.images.pop_front();
        }
        if self.images.is_empty() {
            for record in space_records(&self.space).skip(self.space_done) {
                if records.len() >= CHUNK_BYTES {
                    break;
                }
                record.encode(&mut records);
                self.space_done += 1;
            }
        }
        let place = ChunkPlace {
            file: self.name.file,
            checkpoint: self.sequence,
            index: self.name.chunks,
            offset: self.offset,
        };
        let last = self.is_in_chunks();
        let (buffer, hash) = lay_out(identity, &place, self.name.last_hash, &records, last);
        self.offset += buffer.len() as u64;
        self.name.chunks += 1;
        self.name.last_hash = hash;
        DiskAction::Write { offset: place.offset, buffer, durable: false }
    }
}
