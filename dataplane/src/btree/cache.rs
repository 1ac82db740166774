//! The page cache of a core: verified pages, in a fixed number of bytes.
//!
//! A page is found only by the whole pointer that names it, so a block that was used again never answers for
//! the page that it held before. The memory of pages and that of buffers under way to the device come out of
//! one budget, which is taken at the start. It is exceeded only when nothing is left to give up: when more
//! than all of it is under way, or by one page that is longer than what the reads under way have left. What
//! is beyond goes back as soon as there is something to give up.
//!
//! Which page gives way: S3-FIFO ("FIFO queues are all you need for cache eviction", SOSP 2023, section 4).
//! Leaves and overflow runs enter a small queue of a tenth of them; what is used there moves to the main
//! queue, what is not leaves early, and comes back to the main queue if it is wanted again soon. So a scan
//! passes through the tenth. Inner nodes have a queue of their own, from which pages are taken only while it
//! has more than half of the budget, or when there is nothing else.
//!
//! The cache reads nothing and verifies nothing. After start-up, pages come and go without memory being
//! taken; only an overflow run longer than a page has a buffer made for it.

mod ghosts;
#[cfg(test)]
mod model;
mod queues;

use self::ghosts::Ghosts;
use self::queues::{Entry, Queue, Queues};
use super::PAGE_BYTES;
use super::pointer::PagePointer;
use crate::limits::CACHE_CHANCES_MAX;
use crate::planted::{self, Planted};
use ahash::AHashMap;
use evenkeel_wire::aligned::{AlignedBuffer, round_up};
use std::cell::Cell;
use std::fmt;

/// The part of leaves and overflow runs that the small queue keeps: one in this many bytes (section 4.1).
const SMALL_PART: usize = 10;

/// What a page is, as far as its place in the cache goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageClass {
    /// A leaf.
    Leaf,
    /// An inner node, the root included.
    Inner,
    /// An overflow run.
    Overflow,
}

/// How a cache does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheStatus {
    /// Memory of the pages in it, bytes.
    pub bytes: usize,
    /// Its budget, bytes. Buffers under way to the device come out of it too.
    pub capacity_bytes: usize,
    /// Pages in it.
    pub pages: usize,
    /// Lookups since the start that found their page.
    pub hits: u64,
    /// Lookups since the start that did not.
    pub misses: u64,
    /// Pages given up since the start to make room for others.
    pub evictions: u64,
}

/// The pages of a core that are in memory.
pub struct Cache {
    capacity: usize,
    /// Frames of one page each that hold nothing.
    free: Vec<AlignedBuffer>,
    /// Memory of the buffers that were taken and have not come back, bytes.
    handed_out: usize,
    pages: Queues,
    /// Where the page is that begins at a block. Never iterated.
    by_block: AHashMap<u64, u32>,
    ghosts: Ghosts,
    hits: Cell<u64>,
    misses: Cell<u64>,
    evictions: u64,
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cache").field(&self.status()).finish()
    }
}

impl Cache {
    /// An empty cache with a budget of `bytes`, which it takes at once.
    ///
    /// # Panics
    /// When that is less than one page.
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let frames = bytes / PAGE_BYTES;
        assert!(frames > 0, "a cache of {bytes} bytes holds no page");
        Self {
            capacity: bytes,
            free: (0..frames).map(|_| AlignedBuffer::with_capacity(PAGE_BYTES)).collect(),
            handed_out: 0,
            pages: Queues::new(frames),
            // A map that is at most half full clears traces of removed entries in place, and never grows.
            by_block: AHashMap::with_capacity(2 * (frames + 1)),
            ghosts: Ghosts::new(frames),
            hits: Cell::new(0),
            misses: Cell::new(0),
            evictions: 0,
        }
    }

    /// The page, for a request: counts as a use of it, and as a hit or a miss.
    #[must_use]
    pub fn get(&self, pointer: &PagePointer) -> Option<&[u8]> {
        let found = self.find(pointer);
        let counter = if found.is_some() { &self.hits } else { &self.misses };
        counter.set(counter.get() + 1);
        let entry = found?;
        entry.touch();
        Some(&entry.buffer)
    }

    /// The page, for merges, checks and the like: nothing is counted, and it stays no longer for it.
    #[must_use]
    pub fn peek(&self, pointer: &PagePointer) -> Option<&[u8]> {
        self.find(pointer).map(|entry| &*entry.buffer)
    }

    /// Whether the page is there. Nothing is counted.
    #[must_use]
    pub fn contains(&self, pointer: &PagePointer) -> bool {
        self.find(pointer).is_some()
    }

    /// A buffer with a filled length of `bytes`, for a read to be made into; what it holds is arbitrary.
    /// Other pages give way to it. It must come back, by [`insert`](Self::insert) or
    /// [`give_back`](Self::give_back).
    #[must_use]
    pub fn take_frame(&mut self, bytes: usize) -> AlignedBuffer {
        let mut buffer = if bytes <= PAGE_BYTES {
            while self.free.is_empty() && self.held() + PAGE_BYTES > self.capacity && self.evict() {}
            self.free.pop().unwrap_or_else(|| AlignedBuffer::with_capacity(PAGE_BYTES))
        } else {
            self.make_room(round_up(bytes));
            AlignedBuffer::with_capacity(bytes)
        };
        self.handed_out += buffer.capacity();
        buffer.resize(bytes);
        buffer
    }

    /// Takes a buffer back whose read failed or is not wanted any more.
    ///
    /// # Panics
    /// When more comes back than was taken.
    pub fn give_back(&mut self, buffer: AlignedBuffer) {
        self.came_back(&buffer);
        self.recycle(buffer);
    }

    /// Adds a verified page, in a buffer from [`take_frame`](Self::take_frame). What began at its block
    /// before, this page or another, is forgotten. The page is there until other pages come; it never gives
    /// way to itself, so that who waited for it finds it.
    ///
    /// # Panics
    /// When the buffer is not as long as the page, or more comes back than was taken.
    pub fn insert(&mut self, pointer: PagePointer, class: PageClass, buffer: AlignedBuffer) {
        assert_eq!(buffer.len(), pointer.bytes(), "a page is as long as its pointer says");
        self.came_back(&buffer);
        if let Some(index) = self.by_block.get(&pointer.block) {
            self.remove(*index);
        }
        self.make_room(buffer.capacity());
        let queue = match class {
            PageClass::Inner => Queue::Inner,
            PageClass::Leaf | PageClass::Overflow if self.ghosts.recall(&pointer) => Queue::Main,
            PageClass::Leaf | PageClass::Overflow => Queue::Small,
        };
        let index = self.pages.push(queue, pointer, buffer);
        self.by_block.insert(pointer.block, index);
    }

    /// Forgets the page that begins at `block`, if there is one: the block is free.
    pub fn forget(&mut self, block: u64) {
        if planted::active(Planted::StaleCachePage) {
            return;
        }
        if let Some(index) = self.by_block.get(&block) {
            self.remove(*index);
        }
    }

    /// How it does.
    #[must_use]
    pub fn status(&self) -> CacheStatus {
        CacheStatus {
            bytes: self.bytes(),
            capacity_bytes: self.capacity,
            pages: self.pages.pages(),
            hits: self.hits.get(),
            misses: self.misses.get(),
            evictions: self.evictions,
        }
    }

    fn find(&self, pointer: &PagePointer) -> Option<&Entry> {
        let entry = self.pages.entry(*self.by_block.get(&pointer.block)?);
        (entry.pointer == *pointer || planted::active(Planted::StaleCachePage)).then_some(entry)
    }

    /// Memory of the pages, bytes.
    fn bytes(&self) -> usize {
        self.pages.bytes(Queue::Small) + self.pages.bytes(Queue::Main) + self.pages.bytes(Queue::Inner)
    }

    /// All memory that the cache answers for, bytes.
    fn held(&self) -> usize {
        self.bytes() + self.free.len() * PAGE_BYTES + self.handed_out
    }

    fn came_back(&mut self, buffer: &AlignedBuffer) {
        let left = self.handed_out.checked_sub(buffer.capacity());
        self.handed_out = left.expect("a buffer came back that was not taken from this cache");
    }

    /// Gives up frames and pages until `bytes` more are within the budget, or nothing is left to give up.
    fn make_room(&mut self, bytes: usize) {
        while self.held() + bytes > self.capacity {
            if self.free.pop().is_none() && !self.evict() {
                break;
            }
        }
    }

    /// Takes a page out and keeps its memory, if it may.
    fn remove(&mut self, index: u32) {
        let entry = self.pages.remove(index);
        self.by_block.remove(&entry.pointer.block);
        self.recycle(entry.buffer);
    }

    /// Keeps a buffer as a free frame, if it is one and within the budget.
    fn recycle(&mut self, buffer: AlignedBuffer) {
        if buffer.capacity() == PAGE_BYTES && self.held() + PAGE_BYTES <= self.capacity {
            self.free.push(buffer);
        }
    }

    /// The queue whose turn it is to give up a page. None when there are no pages.
    fn gives_way(&self) -> Option<Queue> {
        let [small, main, inner] =
            [Queue::Small, Queue::Main, Queue::Inner].map(|queue| self.pages.bytes(queue));
        if inner > self.capacity / 2 || (small + main == 0 && inner > 0) {
            Some(Queue::Inner)
        } else if small > 0 && small * SMALL_PART >= small + main {
            Some(Queue::Small)
        } else {
            (main > 0).then_some(Queue::Main)
        }
    }

    /// Gives up one page. False when there is none.
    fn evict(&mut self) -> bool {
        let mut chances = CACHE_CHANCES_MAX;
        while let Some(queue) = self.gives_way() {
            let index = self.pages.oldest(queue).expect("a queue with bytes has pages");
            let entry = self.pages.entry(index);
            let frequency = entry.frequency.get();
            match queue {
                // The request that brought the page is one access: only another one shows that it is in use.
                Queue::Small if frequency > 1 && chances > 0 => {
                    entry.frequency.set(0);
                    self.pages.shift(index, Queue::Main);
                }
                Queue::Main if frequency > 0 && chances > 0 => {
                    entry.frequency.set(frequency - 1);
                    self.pages.shift(index, Queue::Main);
                }
                Queue::Inner if frequency > 0 && chances > 0 => {
                    entry.frequency.set(0);
                    self.pages.shift(index, Queue::Inner);
                }
                Queue::Small | Queue::Main | Queue::Inner => {
                    if queue == Queue::Small {
                        self.ghosts.remember(entry.pointer);
                    }
                    self.remove(index);
                    self.evictions += 1;
                    return true;
                }
            }
            chances -= 1;
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::limits::BLOCK_BYTES;
    use std::collections::VecDeque;

    pub(super) fn page(block: u64) -> PagePointer {
        PagePointer { block, blocks: 2, overflow: false, birth: 1, checksum: block }
    }

    fn cache(pages: usize) -> Cache {
        Cache::new(pages * PAGE_BYTES)
    }

    /// What must hold at any time, when `newest` bytes came in last.
    pub(super) fn check(cache: &Cache, newest: usize) {
        assert!(cache.bytes() + cache.free.len() * PAGE_BYTES <= cache.capacity.max(newest));
        assert!(cache.held() <= cache.capacity.max(cache.handed_out + newest), "beyond what is handed out");
        assert_eq!(cache.by_block.len(), cache.pages.pages());
    }

    /// Adds a page that is full of `fill`.
    pub(super) fn insert(cache: &mut Cache, pointer: PagePointer, class: PageClass, fill: u8) {
        let mut buffer = cache.take_frame(pointer.bytes());
        buffer.fill(fill);
        cache.insert(pointer, class, buffer);
        check(cache, pointer.bytes().max(PAGE_BYTES));
    }

    /// Reads a page as a request does: a miss is parked, and executed again when the page has come.
    fn read(cache: &mut Cache, pointer: PagePointer, class: PageClass) -> bool {
        if cache.get(&pointer).is_some() {
            return true;
        }
        insert(cache, pointer, class, 1);
        assert!(cache.get(&pointer).is_some(), "who waited for the page finds it");
        false
    }

    /// The thing to beat.
    struct Lru(VecDeque<u64>, usize);

    impl Lru {
        fn read(&mut self, block: u64) -> bool {
            let place = self.0.iter().position(|candidate| *candidate == block);
            if let Some(place) = place {
                self.0.remove(place);
            } else if self.0.len() == self.1 {
                self.0.pop_front();
            }
            self.0.push_back(block);
            place.is_some()
        }
    }

    #[test]
    fn a_scan_of_ten_times_the_cache_leaves_the_hot_pages_in() {
        const PAGES: usize = 100;
        let (mut ours, mut lru) = (cache(PAGES), Lru(VecDeque::new(), PAGES));
        let hot = |turn: u64| 10_000 + 2 * (turn % 60);
        for turn in 0..180 {
            read(&mut ours, page(hot(turn)), PageClass::Leaf);
            lru.read(hot(turn));
        }
        let (mut our_hits, mut lru_hits) = (0, 0);
        for turn in 0..10 * PAGES as u64 {
            read(&mut ours, page(2 * turn), PageClass::Leaf);
            lru.read(2 * turn);
            our_hits += usize::from(read(&mut ours, page(hot(turn)), PageClass::Leaf));
            lru_hits += usize::from(lru.read(hot(turn)));
        }
        assert!(our_hits > 990 && lru_hits < 50, "{our_hits} hits of 1000, an LRU has {lru_hits}");
        assert!((0..60).all(|turn| ours.contains(&page(hot(turn)))));
    }

    #[test]
    fn inner_nodes_survive_scans_and_keep_half_at_most() {
        let mut cache = cache(20);
        for block in 0..10 {
            read(&mut cache, page(2 * block), PageClass::Inner);
        }
        for block in 100..400 {
            read(&mut cache, page(2 * block), PageClass::Leaf);
        }
        assert!((0..10).all(|block| cache.contains(&page(2 * block))), "a half is theirs");
        for block in 1000..1100 {
            read(&mut cache, page(2 * block), PageClass::Inner);
            let _ = cache.get(&page(2));
        }
        assert!(cache.contains(&page(2)), "an inner node in use has a second chance");
        assert!(!cache.contains(&page(0)));
        for block in 100..400 {
            read(&mut cache, page(2 * block), PageClass::Leaf);
        }
        assert_eq!(cache.pages.bytes(Queue::Inner), cache.capacity / 2);
    }

    #[test]
    fn a_page_that_is_wanted_again_soon_enters_the_main_queue() {
        let mut cache = cache(10);
        for block in 0..11 {
            read(&mut cache, page(2 * block), PageClass::Leaf);
        }
        assert!(!cache.contains(&page(0)));
        read(&mut cache, page(0), PageClass::Leaf);
        assert_eq!(cache.pages.bytes(Queue::Main), PAGE_BYTES);
    }

    #[test]
    fn a_reused_block_never_answers_for_an_old_page() {
        let mut cache = cache(4);
        let old = page(8);
        insert(&mut cache, old, PageClass::Leaf, 1);
        for other in [
            PagePointer { blocks: 1, ..old },
            PagePointer { birth: 2, ..old },
            PagePointer { checksum: 9, ..old },
        ] {
            assert!(cache.get(&other).is_none() && cache.peek(&other).is_none() && !cache.contains(&other));
        }
        let new = PagePointer { birth: 2, checksum: 7, ..old };
        insert(&mut cache, new, PageClass::Leaf, 2);
        assert_eq!(cache.peek(&new), Some(&[2; PAGE_BYTES][..]));
        assert!(!cache.contains(&old));
        cache.forget(8);
        assert!(!cache.contains(&new));
        let status = cache.status();
        assert_eq!((status.bytes, status.pages, status.hits, status.misses), (0, 0, 0, 3));
        assert_eq!(status.evictions, 0, "nothing was given up for another");
    }

    #[test]
    fn overflow_runs_take_their_bytes_from_pages_and_give_them_back() {
        let mut cache = cache(16);
        for block in 0..16 {
            insert(&mut cache, page(2 * block), PageClass::Leaf, 1);
        }
        let run = PagePointer { blocks: 13, ..page(100) };
        insert(&mut cache, run, PageClass::Overflow, 3);
        let status = cache.status();
        assert_eq!((status.pages, status.evictions), (10, 7));
        assert_eq!(status.bytes, 9 * PAGE_BYTES + 13 * BLOCK_BYTES);
        cache.forget(100);
        for block in 50..70 {
            insert(&mut cache, page(2 * block), PageClass::Leaf, 1);
        }
        assert_eq!(cache.status().bytes, 16 * PAGE_BYTES, "frames are made anew in the place of the run");
    }

    #[test]
    fn reads_under_way_may_exceed_the_budget_and_it_shrinks_back() {
        let mut cache = cache(4);
        for block in 0..4 {
            insert(&mut cache, page(2 * block), PageClass::Leaf, 1);
        }
        let mut taken: Vec<AlignedBuffer> = (0..6).map(|_| cache.take_frame(PAGE_BYTES)).collect();
        assert_eq!((cache.status().pages, cache.held()), (0, 6 * PAGE_BYTES));
        cache.give_back(taken.pop().expect("six were taken"));
        assert_eq!(cache.held(), 5 * PAGE_BYTES);
        for (block, buffer) in (10..).zip(taken) {
            cache.insert(page(2 * block), PageClass::Leaf, buffer);
            assert!(cache.contains(&page(2 * block)));
            check(&cache, PAGE_BYTES);
        }
        assert_eq!((cache.status().pages, cache.held()), (4, 4 * PAGE_BYTES));
    }

    #[test]
    fn a_cache_of_hot_pages_gives_one_up_after_a_bounded_search() {
        let mut cache = cache(2000);
        for block in (0..2000).chain((0..2000).cycle().take(6000)) {
            read(&mut cache, page(2 * block), PageClass::Leaf);
        }
        read(&mut cache, page(9000), PageClass::Leaf);
        assert_eq!(cache.pages.bytes(Queue::Main), CACHE_CHANCES_MAX as usize * PAGE_BYTES);
    }

    #[test]
    fn pages_come_and_go_without_memory_being_taken() {
        let mut cache = cache(50);
        let room = |cache: &Cache| [cache.by_block.capacity(), cache.free.capacity()];
        let before = room(&cache);
        for turn in 0..20_000_u64 {
            read(&mut cache, page(turn * 7919 % 3000), PageClass::Leaf);
            cache.forget(turn * 31 % 3000);
        }
        assert!(room(&cache).iter().zip(before).all(|(now, before)| *now <= before));
    }
}
