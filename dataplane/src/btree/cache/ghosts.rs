//! The pages that a cache gave up a short while ago, without their bytes: one that is wanted again was given
//! up too early.

use crate::btree::pointer::PagePointer;
use ahash::AHashMap;
use std::collections::VecDeque;

/// The last pages that were given up, as many as `bound`.
pub(super) struct Ghosts {
    bound: usize,
    /// Oldest first.
    ring: VecDeque<PagePointer>,
    /// How many have left the ring: the number of its first.
    left: u64,
    /// The number of the last one of a block, unless it was recalled. Never iterated.
    by_block: AHashMap<u64, u64>,
}

impl Ghosts {
    pub(super) fn new(bound: usize) -> Self {
        assert!(bound > 0, "a memory of nothing");
        Self {
            bound,
            ring: VecDeque::with_capacity(bound),
            left: 0,
            // A map that is at most half full clears traces of removed entries in place, and never grows.
            by_block: AHashMap::with_capacity(2 * (bound + 1)),
        }
    }

    /// Notes that the page was given up.
    pub(super) fn remember(&mut self, pointer: PagePointer) {
        if self.ring.len() == self.bound {
            let oldest = self.ring.pop_front().expect("the bound is not zero");
            if self.by_block.get(&oldest.block) == Some(&self.left) {
                self.by_block.remove(&oldest.block);
            }
            self.left += 1;
        }
        self.by_block.insert(pointer.block, self.left + self.ring.len() as u64);
        self.ring.push_back(pointer);
    }

    /// Whether the page was given up a short while ago. It is forgotten by that.
    pub(super) fn recall(&mut self, pointer: &PagePointer) -> bool {
        let Some(number) = self.by_block.get(&pointer.block) else { return false };
        let known = self.ring[(number - self.left) as usize] == *pointer;
        if known {
            self.by_block.remove(&pointer.block);
        }
        known
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(block: u64, birth: u64) -> PagePointer {
        PagePointer { block, blocks: 2, overflow: false, birth, checksum: 0 }
    }

    #[test]
    fn ghosts_are_recalled_once_and_only_while_they_are_recent() {
        let mut ghosts = Ghosts::new(3);
        for block in 0..4 {
            ghosts.remember(page(block, 1));
        }
        assert!(!ghosts.recall(&page(0, 1)), "the oldest of four has left a ring of three");
        assert!(!ghosts.recall(&page(1, 2)), "another page of the same block");
        assert!(ghosts.recall(&page(1, 1)));
        assert!(!ghosts.recall(&page(1, 1)));
        // Given up again: what leaves the ring now is its earlier self, which must not take it along.
        ghosts.remember(page(1, 1));
        assert!(ghosts.recall(&page(1, 1)));
    }

    #[test]
    fn the_map_never_grows() {
        let mut ghosts = Ghosts::new(100);
        let capacity = ghosts.by_block.capacity();
        for block in 0..100_000 {
            ghosts.remember(page(block * 7919 % 5000, block));
            ghosts.recall(&page(block * 31 % 5000, block));
        }
        assert!(ghosts.by_block.len() <= 100 && ghosts.ring.capacity() < 200);
        assert!(ghosts.by_block.capacity() <= capacity);
    }
}
