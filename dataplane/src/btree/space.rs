//! Which blocks of the tree's file are in use.
//!
//! A bit per block of 4 KiB, in regions of 256 blocks. Pages are placed through one region in ascending
//! order, then through the one that has the most room, so that those of one checkpoint lie close together and
//! mostly side by side. A page never crosses regions.
//!
//! * A block that checkpoint N frees is *retired*: it stays in use until the superblock of N is durable,
//!   since a crash before that brings back the version before, and until no pin of a version before N is
//!   held.
//! * A block that no checkpoint refers to yet, because a tree is being built beside them, is *loose*. It is
//!   adopted by a checkpoint, or released.
//! * What is stored with checkpoint N are the blocks of version N alone: neither loose ones nor those that
//!   were retired up to N. After a crash nobody holds anything else.
//!
//! A block that is freed twice is a bug that would give one place to two pages, so every step states what it
//! expects and panics otherwise. The file's length is the owner's work: it is `blocks` of the status, and
//! never shrinks while a process runs.

mod bitmap;
#[cfg(test)]
mod model;

use self::bitmap::Bitmap;
use crate::btree::version::Blocks;
use crate::planted::{self, Planted};
use evenkeel_wire::limits::BLOCK_BYTES;
use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Blocks of a region: 1 MiB.
pub const REGION_BLOCKS: u64 = 256;

/// Most blocks of one page: it stands within one region.
pub const RUN_BLOCKS_MAX: u16 = 255;

const _: () = assert!((RUN_BLOCKS_MAX as u64) < REGION_BLOCKS);

/// Blocks side by side, all in one region.
#[derive(Clone, Copy, Debug)]
struct Run {
    block: u64,
    blocks: u16,
}

/// What is known of a region's free blocks.
#[derive(Clone, Copy, Debug)]
struct Region {
    free: u16,
    /// How many of them lie side by side, at most.
    longest: u16,
}

/// A version whose blocks are held. It is given back by [`Space::unpin`].
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a pin that is lost holds its blocks for ever"]
pub struct PinId {
    checkpoint: u64,
}

/// How many blocks are what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpaceStatus {
    /// Length of the file, blocks: a whole number of regions.
    pub blocks: u64,
    /// In use, retired and loose ones included.
    pub used: u64,
    /// Not in use.
    pub free: u64,
    /// Freed by a checkpoint that is not durable, or held by a pin.
    pub retired: u64,
    /// Not of any version yet.
    pub loose: u64,
}

/// Retired blocks that are not much, and the part of those in use that is not.
const RETIRED_BLOCKS_MAX: u64 = (64 << 20) / BLOCK_BYTES as u64;
const RETIRED_PART_MAX: u64 = 8;

/// Pages that no version refers to yet: the first block of each, and how many.
pub type LoosePages = Arc<Vec<Blocks>>;

/// The blocks of a file.
#[derive(Debug)]
pub struct Space {
    used: Bitmap,
    loose: Bitmap,
    retired: Bitmap,
    regions: Vec<Region>,
    /// The region that is being worked through…
    region: usize,
    /// …and how far.
    next: u16,
    /// By the checkpoint that freed them.
    retirements: BTreeMap<u64, Vec<Run>>,
    /// How many pins each version has.
    pins: BTreeMap<u64, u32>,
    /// The last checkpoint whose superblock is known to be durable.
    durable: u64,
    /// What checkpoints up to this one retired is free.
    settled: u64,
}

impl Space {
    /// The space of a version, from what [`stored_words`](Self::stored_words) gave for it. No words: an empty
    /// file.
    #[must_use]
    pub fn restore(words: &[u64]) -> Self {
        let used = Bitmap::new(words.to_vec());
        let empty = Bitmap::new(vec![0; used.words().len()]);
        Self {
            regions: (0..used.regions()).map(|region| Region::of(&used, region)).collect(),
            used,
            loose: empty.clone(),
            retired: empty,
            region: 0,
            next: REGION_BLOCKS as u16,
            retirements: BTreeMap::new(),
            pins: BTreeMap::new(),
            durable: 0,
            settled: 0,
        }
    }

    /// A place for a page of so many blocks, for the next checkpoint. When there is none, or little room is
    /// left anywhere, the file grows. Returns the first block.
    ///
    /// # Panics
    /// When `blocks` is zero or above [`RUN_BLOCKS_MAX`].
    pub fn allocate(&mut self, blocks: u16) -> u64 {
        self.take(blocks).block
    }

    /// The same for a page that no checkpoint refers to yet. It is adopted or released later.
    ///
    /// # Panics
    /// As [`allocate`](Self::allocate).
    pub fn allocate_loose(&mut self, blocks: u16) -> u64 {
        let run = self.take(blocks);
        self.loose.insert(run);
        run.block
    }

    /// Makes loose blocks part of the next checkpoint.
    ///
    /// # Panics
    /// When they are not loose.
    pub fn adopt(&mut self, block: u64, blocks: u16) {
        let run = self.run(block, blocks);
        assert_eq!(self.loose.count_in(run), blocks, "{run:?} is not loose");
        self.loose.remove(run);
    }

    /// Frees blocks that no durable version refers to, at once: loose ones, and those of a checkpoint that
    /// was given up.
    ///
    /// # Panics
    /// When they are not in use, or retired.
    pub fn release(&mut self, block: u64, blocks: u16) {
        let run = self.run(block, blocks);
        assert_eq!(self.used.count_in(run), blocks, "{run:?} is not in use");
        assert_eq!(self.retired.count_in(run), 0, "{run:?} is retired already");
        self.loose.remove(run);
        self.used.remove(run);
        self.changed(run);
    }

    /// Frees loose blocks that somebody may still read: with the next checkpoint, and when no pin is held.
    /// Those that are not loose are left alone.
    pub fn retire_loose(&mut self, written: &[(u64, u16)]) {
        for (block, blocks) in written {
            if self.is_loose(*block) {
                self.adopt(*block, *blocks);
                self.retire(self.durable + 1, *block, *blocks);
            }
        }
    }

    /// Notes that a checkpoint does not refer to these blocks any more, while the version before it does.
    /// They are free once it is settled and no older version is pinned. A checkpoint that may still be given
    /// up retires nothing.
    ///
    /// # Panics
    /// When they are not in use, loose, or retired already, or when the checkpoint is settled.
    pub fn retire(&mut self, checkpoint: u64, block: u64, blocks: u16) {
        if planted::active(Planted::ReuseTooEarly) {
            self.release(block, blocks);
            return;
        }
        assert!(checkpoint > self.durable, "checkpoint {checkpoint} is durable and frees nothing more");
        let run = self.run(block, blocks);
        assert_eq!(self.used.count_in(run), blocks, "{run:?} is not in use");
        assert_eq!(self.loose.count_in(run), 0, "{run:?} is of no version");
        assert_eq!(self.retired.count_in(run), 0, "{run:?} is retired already");
        self.retired.insert(run);
        self.retirements.entry(checkpoint).or_default().push(run);
    }

    /// Retires, with the next checkpoint, those of the `lost` blocks, a bit each, that are in use, not loose
    /// and not retired. Until its superblock is durable, the present one may still refer to them. Returns how
    /// many.
    pub fn retire_lost(&mut self, lost: &[u64]) -> u64 {
        let words = self.used.words().iter().zip(self.loose.words()).zip(self.retired.words()).zip(lost);
        let lost = words.map(|(((used, loose), retired), lost)| used & !loose & !retired & lost);
        let lost = Bitmap::new(lost.collect());
        let checkpoint = self.durable + 1;
        for region in 0..lost.regions() {
            for run in lost.runs(region) {
                self.retire(checkpoint, run.block, run.blocks);
            }
        }
        lost.count()
    }

    /// Notes that the superblock of a checkpoint is durable, and frees what was retired up to it and is not
    /// pinned.
    ///
    /// # Panics
    /// When a later one was durable before.
    pub fn settle(&mut self, durable_checkpoint: u64) {
        assert!(durable_checkpoint >= self.durable, "superblocks become durable in their order");
        self.durable = durable_checkpoint;
        self.free_settled();
    }

    /// Holds the blocks of the version of `checkpoint`: what later checkpoints retire stays in use.
    ///
    /// # Panics
    /// When blocks of that version are free already.
    pub fn pin(&mut self, checkpoint: u64) -> PinId {
        assert!(checkpoint >= self.settled, "version {checkpoint} is gone, {} is settled", self.settled);
        *self.pins.entry(checkpoint).or_default() += 1;
        PinId { checkpoint }
    }

    /// Gives a pin back, and frees what only it has held.
    ///
    /// # Panics
    /// When it is a pin of another space.
    pub fn unpin(&mut self, pin: PinId) {
        let count = self.pins.get_mut(&pin.checkpoint).expect("a pin comes back to the space that it is of");
        *count -= 1;
        if *count == 0 {
            self.pins.remove(&pin.checkpoint);
        }
        self.free_settled();
    }

    /// The blocks of the version of `checkpoint`, a bit each, the lowest block first, without zeros at the
    /// end: those in use that are not loose and were not retired up to it. It is asked when everything that
    /// the checkpoint writes has its place, and before the next one begins.
    #[must_use]
    pub fn stored_words(&self, checkpoint: u64) -> Vec<u64> {
        let words = self.used.words().iter().zip(self.loose.words());
        let mut stored = Bitmap::new(words.map(|(used, loose)| used & !loose).collect());
        self.retirements.range(..=checkpoint).flat_map(|(_, runs)| runs).for_each(|run| stored.remove(*run));
        let words = stored.words();
        let length = words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        words[..length].to_vec()
    }

    /// Every block in use, a bit each, the lowest block first: retired and loose ones included.
    #[must_use]
    pub fn used_words(&self) -> &[u64] {
        self.used.words()
    }

    /// Whether a block is in use. One beyond the file's end is not.
    #[must_use]
    pub fn is_used(&self, block: u64) -> bool {
        block / REGION_BLOCKS < self.regions.len() as u64 && self.used.count_in(Run { block, blocks: 1 }) == 1
    }

    /// The last checkpoint whose superblock is known to be durable.
    #[must_use]
    pub fn durable_checkpoint(&self) -> u64 {
        self.durable
    }

    /// Whether a block belongs to no version yet.
    #[must_use]
    pub fn is_loose(&self, block: u64) -> bool {
        block / REGION_BLOCKS < self.regions.len() as u64
            && self.loose.count_in(Run { block, blocks: 1 }) == 1
    }

    /// Whether a block is of no version that will be read from now on: it was freed by a checkpoint, and is
    /// held by a pin or until the next one is durable.
    #[must_use]
    pub fn is_retired(&self, block: u64) -> bool {
        block / REGION_BLOCKS < self.regions.len() as u64
            && self.retired.count_in(Run { block, blocks: 1 }) == 1
    }

    /// Whether a block is in use, and not retired.
    #[must_use]
    pub fn is_held(&self, block: u64) -> bool {
        self.is_used(block) && !self.is_retired(block)
    }

    /// Whether blocks are retired that only the next checkpoint frees.
    #[must_use]
    pub fn awaits_checkpoint(&self) -> bool {
        self.retirements.last_key_value().is_some_and(|(checkpoint, _)| *checkpoint > self.durable)
    }

    /// Whether a pin is of an old version, and so much is retired that its holder should go on with a new
    /// one. A pin that is kept for long under writes makes the file grow by a whole tree with each
    /// checkpoint.
    #[must_use]
    pub fn holds_much(&self, pin: &PinId) -> bool {
        if pin.checkpoint == self.durable {
            return false;
        }
        let SpaceStatus { used, retired, .. } = self.status();
        retired > RETIRED_BLOCKS_MAX.max(used / RETIRED_PART_MAX)
    }

    /// How many blocks are what.
    #[must_use]
    pub fn status(&self) -> SpaceStatus {
        let blocks = self.regions.len() as u64 * REGION_BLOCKS;
        SpaceStatus {
            blocks,
            used: self.used.count(),
            free: blocks - self.used.count(),
            retired: self.retired.count(),
            loose: self.loose.count(),
        }
    }

    /// The run of these blocks, which must be a possible one.
    fn run(&self, block: u64, blocks: u16) -> Run {
        let (region, within) = (block / REGION_BLOCKS, block % REGION_BLOCKS);
        let possible = region < self.regions.len() as u64
            && (1..=RUN_BLOCKS_MAX).contains(&blocks)
            && within + u64::from(blocks) <= REGION_BLOCKS;
        assert!(possible, "{blocks} blocks at {block} are not within a region of the file");
        Run { block, blocks }
    }

    /// Finds a place and marks it as used.
    fn take(&mut self, blocks: u16) -> Run {
        assert!((1..=RUN_BLOCKS_MAX).contains(&blocks), "a page of {blocks} blocks");
        let place = self.fit(blocks).unwrap_or_else(|| {
            (self.region, self.next) = (self.roomiest(blocks), 0);
            self.fit(blocks).expect("the region was chosen because it has room")
        });
        self.next = place + blocks;
        let run = Run { block: self.region as u64 * REGION_BLOCKS + u64::from(place), blocks };
        assert_eq!(self.used.count_in(run), 0, "{run:?} is in use");
        self.used.insert(run);
        self.changed(run);
        run
    }

    /// The next place of the current region that has so many blocks.
    fn fit(&self, blocks: u16) -> Option<u16> {
        self.regions.get(self.region)?;
        self.used.gaps(self.region, self.next).find(|(_, gap)| *gap >= blocks).map(|(place, _)| place)
    }

    /// The region to go on with: the one with the most free blocks among those that have so many side by
    /// side. A new one is better while little is free: scattered places cost more writes than a longer file.
    fn roomiest(&mut self, blocks: u16) -> usize {
        let fitting = self.regions.iter().enumerate().filter(|(_, region)| region.longest >= blocks);
        let best = fitting.max_by_key(|(index, region)| (region.free, Reverse(*index)));
        let SpaceStatus { used, free, .. } = self.status();
        match best {
            Some((index, region)) if u64::from(region.free) * 2 >= REGION_BLOCKS || free * 4 >= used => index,
            Some(_) | None => {
                self.used.grow();
                self.loose.grow();
                self.retired.grow();
                self.regions.push(Region { free: REGION_BLOCKS as u16, longest: REGION_BLOCKS as u16 });
                self.regions.len() - 1
            }
        }
    }

    /// Notes that the use of a run has changed.
    fn changed(&mut self, run: Run) {
        let region = (run.block / REGION_BLOCKS) as usize;
        self.regions[region] = Region::of(&self.used, region);
    }

    /// Frees what was retired up to the durable checkpoint, and up to the oldest version that is pinned.
    fn free_settled(&mut self) {
        let oldest_pinned = self.pins.first_key_value().map_or(u64::MAX, |(checkpoint, _)| *checkpoint);
        self.settled = self.settled.max(self.durable.min(oldest_pinned));
        while let Some(first) = self.retirements.first_entry().filter(|first| *first.key() <= self.settled) {
            for run in first.remove() {
                self.retired.remove(run);
                self.release(run.block, run.blocks);
            }
        }
    }
}

impl Region {
    fn of(used: &Bitmap, region: usize) -> Self {
        let gaps = used.gaps(region, 0).map(|(_, gap)| gap);
        let (free, longest) = gaps.fold((0, 0), |(free, longest), gap| (free + gap, longest.max(gap)));
        Self { free, longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of full regions, as many as `regions`.
    fn full(regions: u64) -> Space {
        Space::restore(&vec![u64::MAX; (regions * REGION_BLOCKS / 64) as usize])
    }

    fn free(space: &mut Space, blocks: impl IntoIterator<Item = u64>) {
        blocks.into_iter().for_each(|block| space.release(block, 1));
    }

    #[test]
    fn pages_lie_side_by_side_and_fill_a_region_in_ascending_order() {
        let mut space = Space::restore(&[]);
        assert_eq!(
            (0..128).map(|_| space.allocate(2)).collect::<Vec<_>>(),
            (0..256).step_by(2).collect::<Vec<_>>()
        );
        assert_eq!(space.status(), SpaceStatus { blocks: 256, used: 256, ..SpaceStatus::default() });
        space.release(10, 2);
        space.release(20, 4);
        assert_eq!(space.allocate(2), 256, "a few holes are not worth scattered writes");
        assert!(space.is_used(257) && !space.is_used(258) && !space.is_used(21) && !space.is_used(512));
    }

    #[test]
    fn a_region_is_worked_through_before_another_is_chosen() {
        let mut space = full(4);
        free(&mut space, 256..400);
        free(&mut space, 520..720);
        assert_eq!(space.allocate(100), 520, "the region with the most room");
        free(&mut space, [513, 600]);
        assert_eq!(space.allocate(2), 620, "never backwards");
        assert_eq!(space.allocate(100), 256, "what does not fit goes on elsewhere");
        assert_eq!(space.allocate(2), 356);
    }

    #[test]
    fn the_file_grows_while_little_is_free_and_is_filled_up_otherwise() {
        let mut space = full(8);
        free(&mut space, (0..7).flat_map(|region| region * 256..region * 256 + 57));
        assert_eq!(space.allocate(1), 2048, "399 of 2048 are free, nowhere a half");
        let mut space = full(8);
        free(&mut space, (0..8).flat_map(|region| region * 256..region * 256 + 57));
        assert_eq!(space.allocate(1), 0, "456 of 2048 are free");
    }

    #[test]
    fn a_long_run_passes_over_regions_whose_room_is_scattered() {
        let mut space = full(3);
        free(&mut space, (0..256).step_by(2));
        free(&mut space, 256..356);
        assert_eq!(space.allocate(100), 256);
        assert_eq!(space.allocate(100), 768, "no place is long enough");
        assert_eq!(space.allocate(255), 1024);
    }

    #[test]
    fn what_a_checkpoint_frees_is_held_until_it_is_durable_and_unpinned() {
        let mut space = Space::restore(&[]);
        let page = space.allocate(2);
        space.settle(6);
        let (one, two) = (space.pin(6), space.pin(6));
        space.retire(7, page, 2);
        assert_eq!(space.stored_words(6), [3]);
        assert_eq!(space.stored_words(7), [0; 0]);
        assert_eq!(space.status().retired, 2);
        space.unpin(one);
        space.settle(7);
        let newer = space.pin(7);
        assert!(space.is_used(page), "a pin of version 6 is left");
        space.unpin(two);
        assert!(!space.is_used(page), "version 7 has no use for it");
        assert_eq!(space.status(), SpaceStatus { blocks: 256, free: 256, ..SpaceStatus::default() });
        space.unpin(newer);
    }

    #[test]
    fn loose_blocks_are_of_no_version_until_they_are_adopted() {
        let mut space = Space::restore(&[]);
        let (kept, dropped, ordinary) = (space.allocate_loose(3), space.allocate_loose(2), space.allocate(1));
        assert_eq!((kept, dropped, ordinary), (0, 3, 5));
        assert_eq!(space.stored_words(1), [0b10_0000]);
        space.adopt(kept, 3);
        space.release(dropped, 2);
        assert_eq!(space.status().loose, 0);
        assert_eq!((space.stored_words(1), space.used_words()[0]), (vec![0b10_0111], 0b10_0111));
    }

    #[test]
    fn lost_blocks_are_retired_with_the_next_checkpoint_unless_something_else_became_of_them() {
        let mut space = Space::restore(&[0b11_1111]);
        space.settle(4);
        space.release(0, 1);
        space.retire(5, 1, 1);
        let loose = space.allocate_loose(1);
        assert_eq!(space.retire_lost(&[0b1_1111 | 1 << loose, u64::MAX]), 3);
        assert!((1..6).all(|block| space.is_used(block)), "version 4 may refer to them");
        let pin = space.pin(4);
        space.settle(5);
        assert!((1..6).all(|block| space.is_used(block)), "version 4 is read");
        space.unpin(pin);
        assert_eq!(space.used_words()[0], 1 << 5 | 1 << loose);
    }

    #[test]
    #[should_panic(expected = "not in use")]
    fn a_block_is_not_released_twice() {
        let mut space = full(1);
        space.release(8, 2);
        space.release(9, 1);
    }

    #[test]
    #[should_panic(expected = "retired already")]
    fn a_block_is_not_retired_twice() {
        let mut space = full(1);
        space.retire(1, 8, 2);
        space.retire(1, 9, 2);
    }

    #[test]
    #[should_panic(expected = "version 3 is gone")]
    fn a_version_of_which_blocks_are_free_is_not_pinned() {
        let mut space = full(1);
        space.settle(4);
        let _ = space.pin(3);
    }
}
