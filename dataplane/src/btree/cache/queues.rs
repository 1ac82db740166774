//! The pages of a cache in their order of arrival: three queues through one slab.
//!
//! Queues are linked by index, so a page leaves from any place, and moves to another queue, without memory
//! being taken. Which page leaves is decided by the owner.

use crate::btree::pointer::PagePointer;
use evenkeel_wire::aligned::AlignedBuffer;
use std::cell::Cell;

/// The most accesses that are remembered of a page: two bits.
const FREQUENCY_MAX: u8 = 3;

/// Which queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Queue {
    /// Leaves and overflow runs that came a short while ago.
    Small,
    /// Leaves and overflow runs that were used again.
    Main,
    /// Inner nodes.
    Inner,
}

/// A page in memory.
pub(super) struct Entry {
    pub(super) pointer: PagePointer,
    pub(super) buffer: AlignedBuffer,
    /// How often it was accessed, up to three. Looking a page up does not take the cache.
    pub(super) frequency: Cell<u8>,
    queue: Queue,
    newer: Option<u32>,
    older: Option<u32>,
}

impl Entry {
    /// Notes an access.
    pub(super) fn touch(&self) {
        self.frequency.set(FREQUENCY_MAX.min(self.frequency.get() + 1));
    }
}

#[derive(Clone, Copy, Default)]
struct Ends {
    newest: Option<u32>,
    oldest: Option<u32>,
    bytes: usize,
}

/// All pages of a cache, each in one queue.
pub(super) struct Queues {
    slots: Vec<Option<Entry>>,
    vacant: Vec<u32>,
    ends: [Ends; 3],
}

impl Queues {
    /// Empty queues, with memory for `pages`.
    pub(super) fn new(pages: usize) -> Self {
        Self {
            slots: Vec::with_capacity(pages),
            vacant: Vec::with_capacity(pages),
            ends: [Ends::default(); 3],
        }
    }

    /// How many pages.
    pub(super) fn pages(&self) -> usize {
        self.slots.len() - self.vacant.len()
    }

    /// Memory of the pages of a queue, bytes.
    pub(super) fn bytes(&self, queue: Queue) -> usize {
        self.ends[queue as usize].bytes
    }

    /// The page that came first of a queue.
    pub(super) fn oldest(&self, queue: Queue) -> Option<u32> {
        self.ends[queue as usize].oldest
    }

    pub(super) fn entry(&self, index: u32) -> &Entry {
        self.slots[index as usize].as_ref().expect("an index is of a page that is there")
    }

    fn entry_mut(&mut self, index: u32) -> &mut Entry {
        self.slots[index as usize].as_mut().expect("an index is of a page that is there")
    }

    /// Adds a page as the newest of a queue. The index stays until it is removed.
    pub(super) fn push(&mut self, queue: Queue, pointer: PagePointer, buffer: AlignedBuffer) -> u32 {
        let entry = Entry { pointer, buffer, frequency: Cell::new(0), queue, newer: None, older: None };
        let index = if let Some(index) = self.vacant.pop() {
            self.slots[index as usize] = Some(entry);
            index
        } else {
            let index = u32::try_from(self.slots.len()).expect("a cache has less than 2^32 pages");
            self.slots.push(Some(entry));
            index
        };
        self.link(index, queue);
        index
    }

    /// Makes a page the newest of a queue.
    pub(super) fn shift(&mut self, index: u32, queue: Queue) {
        self.unlink(index);
        self.link(index, queue);
    }

    /// Takes a page out.
    pub(super) fn remove(&mut self, index: u32) -> Entry {
        self.unlink(index);
        self.vacant.push(index);
        self.slots[index as usize].take().expect("an index is of a page that is there")
    }

    fn link(&mut self, index: u32, queue: Queue) {
        let older = self.ends[queue as usize].newest;
        let entry = self.entry_mut(index);
        (entry.queue, entry.newer, entry.older) = (queue, None, older);
        let bytes = entry.buffer.capacity();
        match older {
            Some(older) => self.entry_mut(older).newer = Some(index),
            None => self.ends[queue as usize].oldest = Some(index),
        }
        let ends = &mut self.ends[queue as usize];
        ends.newest = Some(index);
        ends.bytes += bytes;
    }

    fn unlink(&mut self, index: u32) {
        let Entry { queue, newer, older, ref buffer, .. } = *self.entry(index);
        let bytes = buffer.capacity();
        match newer {
            Some(newer) => self.entry_mut(newer).older = older,
            None => self.ends[queue as usize].newest = older,
        }
        match older {
            Some(older) => self.entry_mut(older).newer = newer,
            None => self.ends[queue as usize].oldest = newer,
        }
        self.ends[queue as usize].bytes -= bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Blocks of a queue, oldest first, after checking that both directions agree.
    fn blocks(queues: &Queues, queue: Queue) -> Vec<u64> {
        let (mut at, mut before, mut found) = (queues.oldest(queue), None, Vec::new());
        while let Some(index) = at {
            let entry = queues.entry(index);
            assert_eq!((entry.queue, entry.older), (queue, before));
            found.push(entry.pointer.block);
            (before, at) = (at, entry.newer);
        }
        assert_eq!(queues.ends[queue as usize].newest, before);
        assert_eq!(queues.bytes(queue), found.len() * 4096);
        found
    }

    #[test]
    fn pages_leave_and_move_from_any_place_of_a_queue() {
        let mut queues = Queues::new(5);
        let mut push = |block| {
            let pointer = PagePointer { block, blocks: 1, overflow: false, birth: 1, checksum: 0 };
            queues.push(Queue::Small, pointer, AlignedBuffer::with_capacity(4096))
        };
        let index: [u32; 5] = std::array::from_fn(|block| push(block as u64));
        assert_eq!(queues.remove(index[2]).pointer.block, 2);
        queues.shift(index[0], Queue::Main);
        queues.shift(index[4], Queue::Main);
        queues.shift(index[0], Queue::Main);
        assert_eq!(blocks(&queues, Queue::Small), [1, 3]);
        assert_eq!(blocks(&queues, Queue::Main), [4, 0]);
        assert_eq!(queues.pages(), 4);
        queues.remove(index[1]);
        queues.remove(index[3]);
        assert_eq!(blocks(&queues, Queue::Small), [0; 0]);
        assert_eq!((queues.oldest(Queue::Small), queues.slots.len()), (None, 5));
    }
}
