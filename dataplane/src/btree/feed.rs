//! Pages for work in the background: merges, snapshots, checks. They are read into buffers of their own and
//! dropped when they have been used, so that such work never pushes anything out of the cache.

use super::cache::Cache;
use super::pointer::PagePointer;
use evenkeel_wire::aligned::AlignedBuffer;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What one piece of background work has read and wants to read.
#[derive(Debug, Default)]
pub struct Feed {
    wanted: VecDeque<PagePointer>,
    /// Wanted or under way.
    asked: BTreeSet<u64>,
    held: BTreeMap<u64, AlignedBuffer>,
    /// What was last found missing.
    missing: Option<PagePointer>,
}

impl Feed {
    /// The page, if it is here or in the cache.
    #[must_use]
    pub fn page<'a>(&'a self, cache: &'a Cache, pointer: &PagePointer) -> Option<&'a [u8]> {
        self.held.get(&pointer.block).map(|buffer| &buffer[..]).or_else(|| cache.peek(pointer))
    }

    /// The page, if it was read for this work.
    #[must_use]
    pub fn held(&self, pointer: &PagePointer) -> Option<&[u8]> {
        self.held.get(&pointer.block).map(|buffer| &buffer[..])
    }

    /// Asks for a page. Asking again changes nothing.
    pub fn want(&mut self, pointer: PagePointer) {
        if !self.held.contains_key(&pointer.block) && self.asked.insert(pointer.block) {
            self.wanted.push_back(pointer);
        }
    }

    /// Asks for the page without which nothing goes on.
    pub fn need(&mut self, pointer: PagePointer) {
        self.missing = Some(pointer);
        self.want(pointer);
    }

    /// The page without which nothing goes on.
    #[must_use]
    pub fn waits_for(&self) -> Option<PagePointer> {
        self.missing
    }

    /// How many pages are held, wanted or under way.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.held.len() + self.asked.len()
    }

    /// The next page to read.
    pub fn take_wanted(&mut self) -> Option<PagePointer> {
        self.wanted.pop_front()
    }

    /// How many are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.asked.len() - self.wanted.len()
    }

    /// Forgets what is wanted and not under way.
    pub fn forget_wanted(&mut self) {
        for pointer in self.wanted.drain(..) {
            self.asked.remove(&pointer.block);
        }
    }

    /// A verified page has come.
    pub fn arrived(&mut self, pointer: &PagePointer, page: AlignedBuffer) {
        self.asked.remove(&pointer.block);
        self.held.insert(pointer.block, page);
    }

    /// A page will not come now; it may be asked for again.
    pub fn failed(&mut self, pointer: &PagePointer) {
        self.asked.remove(&pointer.block);
    }

    /// No page that is held is needed any more.
    pub fn clear(&mut self) {
        self.held.clear();
    }

    /// The page is not needed any more.
    pub fn done_with(&mut self, pointer: &PagePointer) {
        self.held.remove(&pointer.block);
    }
}
