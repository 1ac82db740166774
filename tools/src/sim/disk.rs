//! A simulated disk: what is live and what is durable are kept apart.
//!
//! A completed write is live: it can be read. It is durable when it was a durable write, or when its file was
//! flushed afterwards. When the power fails, each block that is not durable is lost or kept at random, and so
//! is each block of a write that was under way: that is a torn write. When only the process dies, live blocks
//! stay, and writes under way either happened or did not.

use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::{DiskAction, DiskCompletion, DiskFault, DiskOperation, File, OperationId};
use std::collections::BTreeMap;
use std::rc::Rc;

type Block = Rc<[u8]>;

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

/// A disk with the operations that are under way on it.
#[derive(Debug, Default)]
pub struct Disk {
    files: BTreeMap<File, SimFile>,
    under_way: BTreeMap<OperationId, DiskOperation>,
    /// Blocks that checkpoint files may take in all; none: as many as they like.
    pub capacity_blocks: Option<u64>,
    /// The next operation fails with this.
    pub fail_next: Option<DiskFault>,
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
        if let Some(fault) = self.fail_next.take() {
            return Some(DiskCompletion { id, outcome: Err(fault) });
        }
        let outcome = match operation.action {
            DiskAction::Read { offset, bytes } => Ok(Some(self.read(operation.file, offset, bytes))),
            DiskAction::Write { offset, buffer, durable } => {
                if self.is_over_capacity(operation.file, offset, buffer.len()) {
                    Err(DiskFault::Full)
                } else {
                    self.write(operation.file, offset, &buffer, durable);
                    Ok(Some(buffer))
                }
            }
            DiskAction::Flush => {
                let file = self.files.entry(operation.file).or_default();
                let live = std::mem::take(&mut file.live);
                file.durable.extend(live);
                Ok(None)
            }
        };
        Some(DiskCompletion { id, outcome })
    }

    fn is_over_capacity(&self, file: File, offset: u64, bytes: usize) -> bool {
        let (Some(capacity), File::Checkpoint(_)) = (self.capacity_blocks, file) else {
            return false;
        };
        let other = |(name, file): (&File, &SimFile)| match name {
            File::Checkpoint(_) => file.blocks(),
            File::Superblock | File::Segment(_) => 0,
        };
        let present: u64 = self.files.iter().map(other).sum();
        let end = (offset + bytes as u64) / BLOCK_BYTES as u64;
        let grown = end.saturating_sub(self.files.get(&file).map_or(0, SimFile::blocks));
        present + grown > capacity
    }

    fn read(&self, file: File, offset: u64, bytes: usize) -> AlignedBuffer {
        let mut buffer = AlignedBuffer::with_capacity(bytes);
        let first = offset / BLOCK_BYTES as u64;
        let file = self.files.get(&file);
        for index in first..first + (bytes / BLOCK_BYTES) as u64 {
            match file.and_then(|file| file.block(index)) {
                Some(block) => buffer.extend(block),
                None => buffer.resize(buffer.len() + BLOCK_BYTES),
            }
        }
        buffer
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

    /// Flips a bit in a durable block of a log segment. Returns where.
    pub fn flip_bit(&mut self, prng: &mut Prng) -> Option<(File, u64)> {
        let blocks: Vec<(File, u64)> = self
            .files
            .iter()
            .filter(|(name, _)| matches!(name, File::Segment(_)))
            .flat_map(|(name, file)| file.durable.keys().map(|index| (*name, *index)))
            .collect();
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
}
