//! A version of a partition's tree: what a checkpoint names, and all that a reader needs to begin with.

use super::pointer::{POINTER_BYTES, PagePointer};
use bytes::{Buf, BufMut};
use evenkeel_wire::ids::{PartitionId, Slot};
use std::collections::{BTreeMap, BTreeSet};

/// Length of an encoded version, bytes.
pub const VERSION_BYTES: usize = 32 + POINTER_BYTES;

/// Items and bytes are estimates.
const FLAG_ESTIMATED: u64 = 1;

/// A tree as of one position of its partition's log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    /// The root; none: the tree is empty.
    pub root: Option<PagePointer>,
    /// How many items.
    pub items: u64,
    /// Bytes of keys and items.
    pub bytes: u64,
    /// Up to where the log is applied in it.
    pub position: Slot,
    /// Items and bytes are estimates: the tree was split, or pages were built from a peer's items, and what
    /// the damaged ones held is not known. The next check counts.
    pub estimated: bool,
}

impl Version {
    /// Appends the version: items 8, bytes 8, position 8, flags 8 (1: items and bytes are estimates), the
    /// root's pointer (all zero: none).
    pub fn encode(&self, out: &mut impl BufMut) {
        out.put_u64_le(self.items);
        out.put_u64_le(self.bytes);
        out.put_u64_le(self.position.0);
        out.put_u64_le(if self.estimated { FLAG_ESTIMATED } else { 0 });
        match &self.root {
            Some(root) => root.encode(out),
            None => out.put_bytes(0, POINTER_BYTES),
        }
    }

    /// Reads a version. None when the bytes are not one.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < VERSION_BYTES {
            return None;
        }
        let [items, size, position, flags] = std::array::from_fn(|_| bytes.get_u64_le());
        if flags > FLAG_ESTIMATED {
            return None;
        }
        let root = PagePointer::decode(bytes)?;
        let root = (root.blocks > 0).then_some(root);
        let estimated = flags == FLAG_ESTIMATED;
        Some(Self { root, items, bytes: size, position: Slot(position), estimated })
    }
}

/// Pages that were built from a peer's data in the place of damaged ones, by the block of the damaged page.
/// The next merge writes what stands in anew, with its parents, and takes over what hangs below it: from then
/// on these are pages like any other.
#[derive(Clone, Debug, Default)]
pub struct Redirects {
    pages: BTreeMap<u64, Redirect>,
    /// Those in whose place others have come: a merge may have gone through them.
    superseded: Vec<Redirect>,
    added: u64,
}

#[derive(Clone, Debug)]
struct Redirect {
    damaged: PagePointer,
    instead: PagePointer,
    tree: PartitionId,
    /// The first key of both.
    low: Vec<u8>,
    /// All blocks that were written for it, those of `instead` and of what hangs below.
    written: Vec<Blocks>,
    /// The checkpoint whose merge has begun since, and will come by.
    merging: Option<u64>,
}

/// Blocks of a page: the first, and how many.
pub type Blocks = (u64, u16);

impl Redirects {
    /// The page to read where `pointer` points.
    #[must_use]
    pub fn resolve(&self, pointer: &PagePointer) -> PagePointer {
        match self.pages.get(&pointer.block) {
            Some(redirect) if redirect.damaged == *pointer => redirect.instead,
            Some(_) | None => *pointer,
        }
    }

    /// From now on `instead` is read where the tree of a partition points to `damaged`, whose keys begin with
    /// `low`. For it, and for what hangs below it, `written` was written.
    pub fn add(
        &mut self,
        tree: PartitionId,
        low: Vec<u8>,
        damaged: PagePointer,
        instead: PagePointer,
        written: Vec<Blocks>,
    ) {
        let redirect = Redirect { damaged, instead, tree, low, written, merging: None };
        self.added += 1;
        self.superseded.extend(self.pages.insert(damaged.block, redirect));
    }

    /// How many have ever been added.
    #[must_use]
    pub fn added(&self) -> u64 {
        self.added
    }

    fn all(&self) -> impl Iterator<Item = &Redirect> {
        self.pages.values().chain(&self.superseded)
    }

    fn take(&mut self, is_over: impl Fn(&Redirect) -> bool) -> Vec<Redirect> {
        let over = self.pages.extract_if(.., |_, redirect| is_over(redirect)).map(|(_, redirect)| redirect);
        let mut over: Vec<Redirect> = over.collect();
        over.extend(self.superseded.extract_if(.., |redirect| is_over(redirect)));
        over
    }

    /// A merge of a tree begins, and will come by all that is redirected in it so far.
    pub fn begin_merge(&mut self, tree: PartitionId, checkpoint: u64) {
        let all = self.pages.values_mut().chain(&mut self.superseded);
        for redirect in all.filter(|redirect| redirect.tree == tree) {
            redirect.merging = Some(checkpoint);
        }
    }

    /// The blocks that the versions of a checkpoint take over, when its merges did without the `replaced`
    /// ones: what hangs below pages that stood in for others.
    #[must_use]
    pub fn taken_over(&self, replaced: &BTreeSet<Blocks>) -> Vec<Blocks> {
        let merged = self.all().filter(|redirect| redirect.is_merged(replaced));
        let written = merged.flat_map(|redirect| &redirect.written);
        written.filter(|blocks| !replaced.contains(blocks)).copied().collect()
    }

    /// A checkpoint is durable: forgets what its versions do without. Returns the blocks of pages that stood
    /// in for others until they were replaced, and were taken over by nobody.
    pub fn settle(&mut self, checkpoint: u64, replaced: &BTreeSet<Blocks>) -> Vec<Blocks> {
        let is_over = |redirect: &Redirect| {
            let Redirect { damaged, merging, .. } = redirect;
            *merging == Some(checkpoint) || replaced.contains(&(damaged.block, damaged.blocks))
        };
        let over = self.take(is_over).into_iter();
        let unused = over.filter(|redirect| !redirect.is_merged(replaced));
        unused.flat_map(|redirect| redirect.written).collect()
    }

    /// Forgets what is redirected in trees that are gone. Returns the blocks that were written for it.
    pub fn forget(&mut self, is_gone: impl Fn(PartitionId) -> bool) -> Vec<Blocks> {
        let gone = self.take(|redirect| is_gone(redirect.tree));
        gone.into_iter().flat_map(|redirect| redirect.written).collect()
    }

    /// A split: what begins at or after `border` is of the child's tree.
    pub fn divide(&mut self, parent: PartitionId, border: &[u8], child: PartitionId) {
        for redirect in self.pages.values_mut().chain(&mut self.superseded) {
            if redirect.tree == parent && redirect.low[..] >= *border {
                redirect.tree = child;
            }
        }
    }

    /// Whether a page of a tree is redirected whose keys begin at or after `start`, and before `end`.
    #[must_use]
    pub fn within(&self, tree: PartitionId, start: &[u8], end: &[u8]) -> bool {
        let is_within = |low: &[u8]| low >= start && (end.is_empty() || low < end);
        self.pages.values().any(|redirect| redirect.tree == tree && is_within(&redirect.low))
    }
}

impl Redirect {
    /// Whether the merge that did without the `replaced` pages went through what stands in. It may have come
    /// when the merge had begun and was not that far: what hangs below it is of the new version all the same.
    fn is_merged(&self, replaced: &BTreeSet<Blocks>) -> bool {
        replaced.contains(&(self.instead.block, self.instead.blocks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pointer(block: u64) -> PagePointer {
        PagePointer { block, blocks: 2, overflow: false, birth: 1, checksum: block }
    }

    const TREE: PartitionId = PartitionId(1);

    /// A node at block 0 is damaged; 10 stands in for it, and 20 and 30 hang below.
    fn redirected() -> Redirects {
        redirects_with(Redirects::default())
    }

    fn redirects_with(mut redirects: Redirects) -> Redirects {
        redirects.add(TREE, vec![], pointer(0), pointer(10), vec![(20, 2), (30, 2), (10, 2)]);
        redirects
    }

    #[test]
    fn what_hangs_below_a_page_that_stood_in_is_taken_over_by_the_checkpoint_that_replaces_it() {
        let mut redirects = redirected();
        redirects.begin_merge(TREE, 7);
        // One of the pages below has changed again.
        let replaced = BTreeSet::from([(0, 2), (10, 2), (30, 2)]);
        assert_eq!(redirects.taken_over(&replaced), [(20, 2)]);
        assert_eq!(redirects.settle(7, &replaced), []);
        assert_eq!(redirects.resolve(&pointer(0)), pointer(0));
    }

    #[test]
    fn what_a_merge_goes_through_is_taken_over_although_it_came_when_the_merge_had_begun() {
        let mut redirects = Redirects::default();
        redirects.begin_merge(TREE, 7);
        let mut redirects = redirects_with(redirects);
        let replaced = BTreeSet::from([(0, 2), (10, 2)]);
        assert_eq!(redirects.taken_over(&replaced), [(20, 2), (30, 2)]);
        assert_eq!(redirects.settle(7, &replaced), [], "the new version reads what hangs below");
    }

    #[test]
    fn what_stood_in_when_a_merge_had_passed_by_waits_for_the_next_or_is_given_back() {
        let mut redirects = Redirects::default();
        redirects.begin_merge(TREE, 7);
        redirects.add(TREE, vec![], pointer(0), pointer(10), vec![(10, 2)]);
        assert_eq!(redirects.settle(7, &BTreeSet::new()), []);
        assert_eq!(redirects.resolve(&pointer(0)), pointer(10), "the tree still points to the damaged page");
        redirects.begin_merge(TREE, 8);
        redirects.add(TREE, vec![], pointer(0), pointer(40), vec![(40, 2)]);
        // The merge went by what stood in first, and has replaced the page.
        let replaced = BTreeSet::from([(0, 2), (10, 2)]);
        assert_eq!(redirects.taken_over(&replaced), []);
        assert_eq!(redirects.settle(8, &replaced), [(40, 2)], "nobody reads the other one");
        let mut redirects = redirected();
        assert_eq!(redirects.forget(|tree| tree == TREE), [(20, 2), (30, 2), (10, 2)]);
    }

    #[test]
    fn a_version_comes_back_with_and_without_a_root() {
        let root = PagePointer { block: 0, blocks: 2, overflow: false, birth: 1, checksum: 3 };
        for root in [Some(root), None] {
            let estimated = root.is_some();
            let version = Version { root, items: 5, bytes: 6, position: Slot(7), estimated };
            let mut bytes = Vec::new();
            version.encode(&mut bytes);
            assert_eq!((bytes.len(), Version::decode(&bytes)), (VERSION_BYTES, Some(version)));
            assert_eq!(Version::decode(&bytes[1..]), None);
        }
    }
}
