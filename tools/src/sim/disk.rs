//! A simulated disk: what is live and what is durable are kept apart.
//!
//! A completed write is live: it can be read. It is durable when it was a durable write, or when its file was
//! flushed afterwards. When the power fails, each block that is not durable is lost or kept at random, and so
//! is each block of a write that was under way: that is a torn write. When only the process dies, live blocks
//! stay, and writes under way either happened or did not.
//!
//! A disk can be told to fail, and to lie: to flip a bit, to lose, tear or misplace a write that it reports
//! as done, or not to flush. A lie about the very last write of a log would be taken for a torn tail
//! (docs/decisions/0004-log.md), so what is done to a log is done to writes that later ones stand behind.

use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::{DiskAction, DiskCompletion, DiskFault, DiskOperation, File, OperationId};
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

type Block = Rc<[u8]>;

/// What a file is, for faults that strike files of one kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// The superblock.
    Superblock,
    /// A segment of the log.
    Segment,
    /// A checkpoint file.
    Checkpoint,
    /// The tree file.
    Tree,
}

impl FileKind {
    /// The kind of a file.
    #[must_use]
    pub fn of(file: File) -> Self {
        match file {
            File::Superblock => Self::Superblock,
            File::Segment(_) => Self::Segment,
            File::Checkpoint(_) => Self::Checkpoint,
            File::Tree => Self::Tree,
        }
    }

    /// Whether its files begin empty and grow, and share the disk's capacity. The others have their full
    /// length from the beginning.
    fn grows(self) -> bool {
        match self {
            Self::Superblock | Self::Segment => false,
            Self::Checkpoint | Self::Tree => true,
        }
    }
}

/// A way to use a file, for faults that strike one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Flush,
}

impl Access {
    fn of(action: &DiskAction) -> Self {
        match action {
            DiskAction::Read { .. } => Self::Read,
            DiskAction::Write { .. } => Self::Write,
            DiskAction::Flush => Self::Flush,
        }
    }
}

/// What a disk does instead of what it reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// The write changes nothing.
    Lost,
    /// The first half of the write is done; of a single block, the half of it.
    Torn,
    /// The write lands on another block of the same file, which the number chooses.
    Misplaced(u64),
    /// Nothing is flushed.
    NotFlushed,
}

/// Later writes of the log that must stand behind one before it is lied about: more than are in flight, so
/// that one of them names it durable.
const WRITES_BEHIND: usize = 6;

/// A write of the log that is not what was written, once enough later ones stand behind it.
#[derive(Debug)]
struct Pending {
    file: File,
    first: u64,
    /// What was written, and what stood there before.
    blocks: Vec<(Block, Option<Block>)>,
    lie: Lie,
    writes_left: usize,
}

#[derive(Debug, Default)]
struct SimFile {
    durable: BTreeMap<u64, Block>,
    /// Written since the last flush.
    live: BTreeMap<u64, Block>,
}

impl SimFile {
    fn block(&self, index: u64) -> Option<&Block> {
        self.live.get(&index).or_else(|| self.durable.get(&index))
    }

    fn blocks(&self) -> u64 {
        let end = |map: &BTreeMap<u64, Block>| map.last_key_value().map_or(0, |(index, _)| index + 1);
        end(&self.live).max(end(&self.durable))
    }
}

/// Bytes of a superblock that its checksum, which follows them, covers (docs/formats.md).
const SUPERBLOCK_CHECKED: usize = 128;

/// What superblocks were before another version's took their place.
#[derive(Debug)]
pub struct OwnVersion(Vec<(u64, Block)>);

/// A disk with the operations that are under way on it.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<File, SimFile>,
    under_way: BTreeMap<OperationId, DiskOperation>,
    /// Blocks that checkpoint files and the tree may take in all; none: as many as they like.
    pub capacity_blocks: Option<u64>,
    /// The next operation fails with this.
    pub fail_next: Option<DiskFault>,
    /// The next operation of this sort on such a file fails with this.
    pub fail_next_on: Option<(FileKind, Access, DiskFault)>,
    /// The next write to the tree file is reported as done, and changes nothing.
    pub lose_next_write_to_tree: bool,
    /// The next write to the tree file is reported as done, and lands at this offset (a block's) instead.
    pub misdirect_next_write_to_tree: Option<u64>,
    /// The next operation on a file of this kind, a write or for [`Lie::NotFlushed`] a flush, is lied about.
    pub lie_next: Option<(FileKind, Lie)>,
    pending: Option<Pending>,
    /// The newest writes of the log: file, first block, blocks.
    recent: VecDeque<(File, u64, u64)>,
}

impl Disk {
    /// A formatted disk: `superblock` is durable at its offset.
    #[must_use]
    pub fn formatted(superblock: &[u8], offset: u64) -> Self {
        let mut disk = Self::default();
        let file = disk.files.entry(File::Superblock).or_default();
        file.durable.insert(offset / BLOCK_BYTES as u64, Rc::from(superblock));
        disk
    }

    /// An operation begins.
    pub fn begin(&mut self, operation: DiskOperation) -> OperationId {
        let id = operation.id;
        self.under_way.insert(id, operation);
        id
    }

    /// An operation ends.
    pub fn complete(&mut self, id: OperationId) -> Option<DiskCompletion> {
        let operation = self.under_way.remove(&id)?;
        if let Some(fault) = self.fault_of(&operation) {
            return Some(DiskCompletion { id, outcome: Err(fault) });
        }
        let outcome = match operation.action {
            DiskAction::Read { offset, mut buffer } => {
                self.read_into(operation.file, offset, &mut buffer);
                Ok(Some(buffer))
            }
            DiskAction::Write { offset, buffer, durable } => {
                if self.is_over_capacity(operation.file, offset, buffer.len()) {
                    Err(DiskFault::Full)
                } else {
                    self.write_or_lie(operation.file, offset, &buffer, durable);
                    Ok(Some(buffer))
                }
            }
            DiskAction::Flush if self.lies(operation.file, true).is_some() => Ok(None),
            DiskAction::Flush => {
                let file = self.files.entry(operation.file).or_default();
                let live = std::mem::take(&mut file.live);
                file.durable.extend(live);
                Ok(None)
            }
        };
        Some(DiskCompletion { id, outcome })
    }

    fn fault_of(&mut self, operation: &DiskOperation) -> Option<DiskFault> {
        let struck = (FileKind::of(operation.file), Access::of(&operation.action));
        self.fail_next.take().or_else(|| {
            let on = self.fail_next_on.take_if(|(kind, access, _)| (*kind, *access) == struck);
            on.map(|(_, _, fault)| fault)
        })
    }

    /// Where a write lands that is meant for `offset`, unless it is lost.
    fn landing(&mut self, file: File, offset: u64) -> Option<u64> {
        if file != File::Tree {
            return Some(offset);
        }
        let is_lost = std::mem::take(&mut self.lose_next_write_to_tree);
        (!is_lost).then(|| self.misdirect_next_write_to_tree.take().unwrap_or(offset))
    }

    /// The lie that is due for an operation on a file.
    fn lies(&mut self, file: File, flush: bool) -> Option<Lie> {
        let due = |(kind, lie): &mut (FileKind, Lie)| {
            *kind == FileKind::of(file) && (*lie == Lie::NotFlushed) == flush
        };
        self.lie_next.take_if(due).map(|(_, lie)| lie)
    }

    fn write_or_lie(&mut self, file: File, offset: u64, bytes: &[u8], durable: bool) {
        let Some(offset) = self.landing(file, offset) else {
            return;
        };
        let lie = self.lies(file, false);
        if FileKind::of(file) == FileKind::Segment {
            let first = offset / BLOCK_BYTES as u64;
            if let Some(lie) = lie.filter(|_| self.pending.is_none()) {
                let present = self.files.get(&file);
                let old = |index| present.and_then(|file| file.block(index)).cloned();
                let blocks = bytes.chunks(BLOCK_BYTES).zip(first..);
                let blocks = blocks.map(|(block, index)| (Rc::from(block), old(index))).collect();
                self.pending = Some(Pending { file, first, blocks, lie, writes_left: WRITES_BEHIND });
            }
            self.write(file, offset, bytes, durable);
            self.log_written(file, first, (bytes.len() / BLOCK_BYTES) as u64);
            return;
        }
        match lie {
            None | Some(Lie::NotFlushed) => self.write(file, offset, bytes, durable),
            Some(Lie::Lost) => {}
            Some(Lie::Torn) => {
                let mut torn = self.read_raw(file, offset, bytes.len());
                torn[..bytes.len() / 2].copy_from_slice(&bytes[..bytes.len() / 2]);
                self.write(file, offset, &torn, durable);
            }
            Some(Lie::Misplaced(choice)) => {
                let others = self.files.get(&file).map_or(0, SimFile::blocks).max(1);
                self.write(file, choice % others * BLOCK_BYTES as u64, bytes, durable);
            }
        }
    }

    /// What stands there, with zeros where nothing was written.
    fn read_raw(&self, file: File, offset: u64, bytes: usize) -> Vec<u8> {
        let first = offset / BLOCK_BYTES as u64;
        let file = self.files.get(&file);
        let blocks =
            (first..first + (bytes / BLOCK_BYTES) as u64).map(|index| file.and_then(|f| f.block(index)));
        blocks.flat_map(|block| block.map_or(vec![0; BLOCK_BYTES], |block| block.to_vec())).collect()
    }

    /// Counts a write of the log, and makes the lie true that waited for it.
    fn log_written(&mut self, file: File, first: u64, blocks: u64) {
        self.recent.push_back((file, first, blocks));
        if self.recent.len() > WRITES_BEHIND {
            self.recent.pop_front();
        }
        let due = |pending: &mut Pending| {
            pending.writes_left -= 1;
            pending.writes_left == 0
        };
        let Some(pending) = self.pending.take_if(due) else {
            return;
        };
        let Pending { file, first, blocks, lie, .. } = pending;
        if let Lie::Misplaced(choice) = lie {
            let old: Vec<(File, u64)> = self.old_blocks(FileKind::Segment);
            if !old.is_empty() {
                let (file, index) = old[choice as usize % old.len()];
                let victim = blocks[0].0.clone();
                self.files.entry(file).or_default().durable.insert(index, victim);
            }
        }
        let torn = if lie == Lie::Torn { blocks.len() / 2 } else { 0 };
        let single = lie == Lie::Torn && blocks.len() == 1;
        let present = self.files.entry(file).or_default();
        for ((written, old), index) in blocks.into_iter().zip(first..).skip(torn) {
            // The segment may have been used again: then there is nothing left to lie about.
            if present.block(index).is_some_and(|block| **block == *written) {
                present.live.remove(&index);
                let mut bytes = old.map_or(vec![0; BLOCK_BYTES], |old| old.to_vec());
                if single {
                    bytes[..BLOCK_BYTES / 2].copy_from_slice(&written[..BLOCK_BYTES / 2]);
                }
                present.durable.insert(index, Rc::from(bytes));
            }
        }
    }

    /// The durable blocks of files of a kind, without those of the newest writes of a log.
    fn old_blocks(&self, kind: FileKind) -> Vec<(File, u64)> {
        let is_recent = |name: File, index: u64| {
            let mut recent = self.recent.iter();
            recent.any(|(file, first, blocks)| *file == name && (*first..first + blocks).contains(&index))
        };
        let files = self.files.iter().filter(|(name, _)| FileKind::of(**name) == kind);
        let blocks = files.flat_map(|(name, file)| file.durable.keys().map(|index| (*name, *index)));
        blocks.filter(|(name, index)| !is_recent(*name, *index)).collect()
    }

    /// Forgets what it was told to do wrong.
    pub fn put_right(&mut self) {
        (self.lie_next, self.pending, self.fail_next, self.capacity_blocks) = (None, None, None, None);
    }

    /// Writes the superblocks anew as another version would have, and says what they were.
    pub fn as_another_version(&mut self, format: u16) -> OwnVersion {
        let mut own = Vec::new();
        if let Some(file) = self.files.get_mut(&File::Superblock) {
            for (index, block) in file.durable.iter_mut().chain(file.live.iter_mut()) {
                own.push((*index, block.clone()));
                let mut bytes = block.to_vec();
                bytes[8..10].copy_from_slice(&format.to_le_bytes());
                let checksum = crc32c(&bytes[..SUPERBLOCK_CHECKED]).to_le_bytes();
                bytes[SUPERBLOCK_CHECKED..SUPERBLOCK_CHECKED + 4].copy_from_slice(&checksum);
                *block = Rc::from(bytes);
            }
        }
        OwnVersion(own)
    }

    /// The superblocks are again what they were.
    pub fn as_own_version(&mut self, own: OwnVersion) {
        let file = self.files.entry(File::Superblock).or_default();
        file.live.clear();
        file.durable.extend(own.0);
    }

    fn is_over_capacity(&self, file: File, offset: u64, bytes: usize) -> bool {
        let (Some(capacity), true) = (self.capacity_blocks, FileKind::of(file).grows()) else {
            return false;
        };
        let growing = self.files.iter().filter(|(name, _)| FileKind::of(**name).grows());
        let present: u64 = growing.map(|(_, file)| file.blocks()).sum();
        let end = (offset + bytes as u64) / BLOCK_BYTES as u64;
        let grown = end.saturating_sub(self.files.get(&file).map_or(0, SimFile::blocks));
        present + grown > capacity
    }

    /// What a read of `bytes` (whole blocks) at `offset` would find now: fewer at the end of a file that
    /// grows.
    #[must_use]
    pub fn read(&self, file: File, offset: u64, bytes: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::zeroed(bytes);
        self.read_into(file, offset, &mut buffer);
        buffer
    }

    /// How long a file is, in blocks that were written.
    #[must_use]
    pub fn blocks(&self, name: File) -> u64 {
        self.files.get(&name).map_or(0, SimFile::blocks)
    }

    /// Flips one bit of a byte, wherever the block that holds it is by now. Returns whether anything was
    /// written there.
    pub fn flip(&mut self, name: File, at: u64, bit: u8) -> bool {
        let index = at / BLOCK_BYTES as u64;
        let Some(file) = self.files.get_mut(&name) else {
            return false;
        };
        let mut found = false;
        for blocks in [&mut file.live, &mut file.durable] {
            if let Some(block) = blocks.get_mut(&index) {
                let mut bytes = block.to_vec();
                bytes[(at % BLOCK_BYTES as u64) as usize] ^= 1 << bit;
                *block = Rc::from(bytes);
                found = true;
            }
        }
        found
    }

    /// Reads what [`read`](Self::read) would find over a buffer.
    pub fn read_into(&self, name: File, offset: u64, buffer: &mut AlignedBuffer) {
        let first = offset / BLOCK_BYTES as u64;
        let file = self.files.get(&name);
        if FileKind::of(name).grows() {
            let left = file.map_or(0, SimFile::blocks).saturating_sub(first);
            buffer.resize(buffer.len().min(left as usize * BLOCK_BYTES));
        }
        buffer.fill(0);
        let Some(file) = file else {
            return;
        };
        let end = first + (buffer.len() / BLOCK_BYTES) as u64;
        for blocks in [&file.durable, &file.live] {
            for (index, block) in blocks.range(first..end) {
                let start = (index - first) as usize * BLOCK_BYTES;
                buffer[start..start + BLOCK_BYTES].copy_from_slice(block);
            }
        }
    }

    fn write(&mut self, file: File, offset: u64, bytes: &[u8], durable: bool) {
        let file = self.files.entry(file).or_default();
        let first = offset / BLOCK_BYTES as u64;
        for (index, block) in (first..).zip(bytes.chunks(BLOCK_BYTES)) {
            if durable {
                file.live.remove(&index);
                file.durable.insert(index, Rc::from(block));
            } else {
                file.live.insert(index, Rc::from(block));
            }
        }
    }

    /// The process died: what it had under way happened, or did not.
    pub fn process_died(&mut self, prng: &mut Prng) {
        self.pending = None;
        for (_, operation) in std::mem::take(&mut self.under_way) {
            if let DiskAction::Write { offset, buffer, durable } = operation.action
                && prng.chance(1, 2)
            {
                self.write(operation.file, offset, &buffer, durable && prng.chance(1, 2));
            }
        }
    }

    /// The power failed: whatever is not durable is lost, kept, or torn.
    pub fn power_failed(&mut self, prng: &mut Prng) {
        self.pending = None;
        // Some failures lose everything, some nothing, some tear.
        let kept_of_four = prng.below(5);
        for (_, operation) in std::mem::take(&mut self.under_way) {
            if let DiskAction::Write { offset, buffer, .. } = operation.action {
                for (place, block) in buffer.chunks(BLOCK_BYTES).enumerate() {
                    if prng.chance(kept_of_four, 4) {
                        self.write(operation.file, offset + (place * BLOCK_BYTES) as u64, block, true);
                    }
                }
            }
        }
        for file in self.files.values_mut() {
            for (index, block) in std::mem::take(&mut file.live) {
                if prng.chance(kept_of_four, 4) {
                    file.durable.insert(index, block);
                }
            }
        }
    }

    /// Flips a bit in a durable block of a file of that kind, but not in the newest writes of a log. Returns
    /// where: the file, and the block's offset.
    pub fn flip_bit(&mut self, prng: &mut Prng, kind: FileKind) -> Option<(File, u64)> {
        let blocks = self.old_blocks(kind);
        if blocks.is_empty() {
            return None;
        }
        let (name, index) = *prng.pick(&blocks);
        let file = self.files.get_mut(&name)?;
        let mut block = file.durable[&index].to_vec();
        let bit = prng.below(BLOCK_BYTES as u64 * 8) as usize;
        block[bit / 8] ^= 1 << (bit % 8);
        file.durable.insert(index, Rc::from(block));
        Some((name, index * BLOCK_BYTES as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &mut Disk, id: u64, durable: bool) {
        let buffer = AlignedBuffer::copy_of(&[id as u8; 2 * BLOCK_BYTES]);
        let action = DiskAction::Write { offset: 0, buffer, durable };
        disk.begin(DiskOperation { id: OperationId(id), file: File::Segment(0), action });
    }

    fn first_bytes(disk: &Disk) -> (u8, u8) {
        let buffer = disk.read(File::Segment(0), 0, 2 * BLOCK_BYTES);
        (buffer[0], buffer[BLOCK_BYTES])
    }

    #[test]
    fn only_durable_writes_survive_every_power_failure() {
        let (mut lost, mut torn) = (false, false);
        for seed in 0..200 {
            let mut disk = Disk::default();
            write(&mut disk, 1, true);
            disk.complete(OperationId(1));
            write(&mut disk, 2, false);
            disk.complete(OperationId(2));
            assert_eq!(first_bytes(&disk), (2, 2), "a completed write can be read");
            disk.power_failed(&mut Prng::new(seed));
            let bytes = first_bytes(&disk);
            assert!(bytes.0 > 0 && bytes.1 > 0, "the durable write is never lost");
            lost |= bytes == (1, 1);
            torn |= bytes.0 != bytes.1;
        }
        assert!(lost && torn);
    }

    #[test]
    fn a_flush_makes_what_was_written_before_durable() {
        for seed in 0..50 {
            let mut disk = Disk::default();
            write(&mut disk, 2, false);
            disk.complete(OperationId(2));
            let flush =
                DiskOperation { id: OperationId(3), file: File::Segment(0), action: DiskAction::Flush };
            disk.begin(flush);
            disk.complete(OperationId(3));
            disk.power_failed(&mut Prng::new(seed));
            assert_eq!(first_bytes(&disk), (2, 2));
        }
    }

    const PAGE: usize = 2 * BLOCK_BYTES;

    fn perform(disk: &mut Disk, file: File, action: DiskAction) -> Result<Option<AlignedBuffer>, DiskFault> {
        let id = disk.begin(DiskOperation { id: OperationId(9), file, action });
        disk.complete(id).unwrap().outcome
    }

    /// Writes a page of `byte` as the page of that index.
    fn put(disk: &mut Disk, file: File, page: usize, byte: u8) -> Result<Option<AlignedBuffer>, DiskFault> {
        let buffer = AlignedBuffer::copy_of(&[byte; PAGE]);
        perform(disk, file, DiskAction::Write { offset: (page * PAGE) as u64, buffer, durable: true })
    }

    /// What the first byte of each page of the tree is, as a read tells.
    fn pages(disk: &mut Disk) -> Vec<u8> {
        let read = DiskAction::Read { offset: 0, buffer: AlignedBuffer::zeroed(100 * PAGE) };
        let buffer = perform(disk, File::Tree, read).unwrap().unwrap();
        assert_eq!(buffer[..], disk.read(File::Tree, 0, 100 * PAGE)[..]);
        buffer.chunks(PAGE).map(|page| page[0]).collect()
    }

    #[test]
    fn a_read_ends_where_a_growing_file_does_and_a_fixed_one_is_zero_where_nothing_was_written() {
        let mut disk = Disk::default();
        assert_eq!(disk.read(File::Tree, 0, PAGE).len(), 0);
        put(&mut disk, File::Tree, 2, 7).unwrap();
        assert_eq!(pages(&mut disk), [0, 0, 7], "with a hole at its beginning");
        assert_eq!(disk.read(File::Tree, 2 * PAGE as u64 + BLOCK_BYTES as u64, PAGE).len(), BLOCK_BYTES);
        assert_eq!(disk.read(File::Segment(1), 1 << 20, PAGE)[..], [0; PAGE]);
    }

    #[test]
    fn checkpoints_and_the_tree_share_the_capacity_and_the_log_does_not() {
        let mut disk = Disk { capacity_blocks: Some(4), ..Disk::default() };
        put(&mut disk, File::Segment(0), 9, 1).unwrap();
        put(&mut disk, File::Tree, 0, 1).unwrap();
        put(&mut disk, File::Checkpoint(0), 0, 1).unwrap();
        assert_eq!(put(&mut disk, File::Tree, 1, 2).unwrap_err(), DiskFault::Full);
        assert_eq!(put(&mut disk, File::Checkpoint(1), 0, 2).unwrap_err(), DiskFault::Full);
        put(&mut disk, File::Tree, 0, 3).unwrap();
        assert_eq!(pages(&mut disk), [3]);
    }

    #[test]
    fn a_fault_waits_for_an_operation_of_its_sort() {
        let fault = DiskFault::Os { errno: 5 };
        for (access, action) in [
            (Access::Read, DiskAction::Read { offset: 0, buffer: AlignedBuffer::zeroed(PAGE) }),
            (
                Access::Write,
                DiskAction::Write { offset: 0, buffer: AlignedBuffer::zeroed(PAGE), durable: true },
            ),
            (Access::Flush, DiskAction::Flush),
        ] {
            let mut disk = Disk::default();
            put(&mut disk, File::Tree, 0, 1).unwrap();
            disk.fail_next_on = Some((FileKind::Tree, access, fault));
            put(&mut disk, File::Checkpoint(0), 0, 1).unwrap();
            perform(&mut disk, File::Checkpoint(0), DiskAction::Flush).unwrap();
            assert_eq!(perform(&mut disk, File::Tree, action).unwrap_err(), fault);
            assert_eq!(pages(&mut disk), [1], "what fails changes nothing, and the next succeeds");
            put(&mut disk, File::Tree, 0, 2).unwrap();
            perform(&mut disk, File::Tree, DiskAction::Flush).unwrap();
        }
    }

    #[test]
    fn a_lost_write_is_reported_as_done_and_changes_nothing() {
        let mut disk = Disk { lose_next_write_to_tree: true, ..Disk::default() };
        put(&mut disk, File::Checkpoint(0), 0, 1).unwrap();
        assert_eq!(disk.read(File::Checkpoint(0), 0, PAGE)[0], 1, "it waits for the tree");
        assert_eq!(put(&mut disk, File::Tree, 0, 1).unwrap().unwrap().len(), PAGE);
        assert!(pages(&mut disk).is_empty());
        put(&mut disk, File::Tree, 0, 2).unwrap();
        assert_eq!(pages(&mut disk), [2], "only one is lost");
    }

    #[test]
    fn a_misdirected_write_lands_elsewhere() {
        let mut disk = Disk::default();
        put(&mut disk, File::Tree, 0, 1).unwrap();
        put(&mut disk, File::Tree, 1, 2).unwrap();
        disk.misdirect_next_write_to_tree = Some(PAGE as u64);
        put(&mut disk, File::Tree, 0, 3).unwrap();
        put(&mut disk, File::Tree, 2, 4).unwrap();
        assert_eq!(pages(&mut disk), [1, 3, 4]);
    }

    #[test]
    fn a_bit_flips_in_the_kind_of_file_that_was_named() {
        let all = [File::Superblock, File::Segment(3), File::Checkpoint(1), File::Tree];
        for struck in all {
            let mut disk = Disk::default();
            assert_eq!(disk.flip_bit(&mut Prng::new(1), FileKind::of(struck)), None, "nothing is there");
            for file in all {
                put(&mut disk, file, 0, 0).unwrap();
            }
            // The newest writes of a log are spared.
            for later in 1..=WRITES_BEHIND {
                put(&mut disk, File::Segment(3), later, 0).unwrap();
            }
            let (file, offset) = disk.flip_bit(&mut Prng::new(1), FileKind::of(struck)).unwrap();
            assert_eq!(file, struck);
            for other in all {
                let ones = |bytes: &[u8]| bytes.iter().map(|byte| byte.count_ones()).sum::<u32>();
                assert_eq!(ones(&disk.read(other, 0, PAGE)), u32::from(other == struck));
            }
            assert_eq!(disk.read(file, offset, BLOCK_BYTES).iter().filter(|byte| **byte != 0).count(), 1);
        }
    }

    /// Writes block after block of a segment, durably; returns the first bytes of all.
    fn log(disk: &mut Disk, lie: Lie, writes: u8) -> Vec<u8> {
        for byte in 1..=writes {
            disk.lie_next = disk.lie_next.or((byte == 2).then_some((FileKind::Segment, lie)));
            let buffer = AlignedBuffer::copy_of(&[byte; BLOCK_BYTES]);
            let offset = u64::from(byte - 1) * BLOCK_BYTES as u64;
            perform(disk, File::Segment(0), DiskAction::Write { offset, buffer, durable: true }).unwrap();
        }
        let bytes = disk.read(File::Segment(0), 0, usize::from(writes) * BLOCK_BYTES);
        bytes.chunks(BLOCK_BYTES).flat_map(|block| [block[0], block[BLOCK_BYTES - 1]]).collect()
    }

    #[test]
    fn a_lie_about_a_log_is_told_once_later_writes_stand_behind_it() {
        let told = |lie| log(&mut Disk::default(), lie, 7)[..4].to_vec();
        assert_eq!(log(&mut Disk::default(), Lie::Lost, 6)[..4], [1, 1, 2, 2], "not yet");
        assert_eq!(told(Lie::Lost), [1, 1, 0, 0]);
        assert_eq!(told(Lie::Torn), [1, 1, 2, 0]);
        assert_eq!(told(Lie::Misplaced(0)), [2, 2, 0, 0], "it lies where another one was");
        let mut disk = Disk::default();
        log(&mut disk, Lie::Lost, 5);
        disk.process_died(&mut Prng::new(1));
        assert_eq!(log(&mut disk, Lie::NotFlushed, 7)[..4], [1, 1, 2, 2], "nobody learned of it");
    }

    #[test]
    fn a_lie_about_a_tree_is_told_at_once_and_a_flush_that_was_none_keeps_nothing() {
        let lied = |kind, lie| {
            let mut disk = Disk::default();
            put(&mut disk, File::Tree, 0, 1).unwrap();
            disk.lie_next = Some((kind, lie));
            put(&mut disk, File::Tree, 1, 2).unwrap();
            let read = disk.read(File::Tree, 0, 2 * PAGE);
            read.chunks(BLOCK_BYTES).map(|block| block[0]).collect::<Vec<_>>()
        };
        assert_eq!(lied(FileKind::Tree, Lie::Lost), [1, 1]);
        assert_eq!(lied(FileKind::Tree, Lie::Torn), [1, 1, 2, 0]);
        assert_eq!(lied(FileKind::Tree, Lie::Misplaced(0)), [2, 2]);
        assert_eq!(lied(FileKind::Checkpoint, Lie::Lost), [1, 1, 2, 2], "it is about another file");
        let mut disk = Disk { lie_next: Some((FileKind::Tree, Lie::NotFlushed)), ..Disk::default() };
        let buffer = AlignedBuffer::copy_of(&[1; PAGE]);
        perform(&mut disk, File::Tree, DiskAction::Write { offset: 0, buffer, durable: false }).unwrap();
        perform(&mut disk, File::Tree, DiskAction::Flush).unwrap();
        assert!(disk.files[&File::Tree].durable.is_empty());
        perform(&mut disk, File::Tree, DiskAction::Flush).unwrap();
        assert_eq!(disk.files[&File::Tree].durable.len(), 2, "the next one is");
    }
}
