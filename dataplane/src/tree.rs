//! A partition's items by storage key: a version of the on-disk tree, and what was written since
//! (docs/decisions/0010-btree.md).
//!
//! ```text
//!  active    applied since the last checkpoint began
//!  frozen    being merged by the checkpoint that runs
//!  version   the tree of the last durable checkpoint
//! ```
//!
//! The first layer that knows a key says what it is. Writing touches `active` alone. A clone is a snapshot:
//! it costs a pointer, and stays as it was while the tree changes.
//!
//! A split copies nothing: both halves begin with the same layers, and each *keeps* only its own keys of
//! them. The next checkpoint merges them into versions of their own.
//!
//! A *resident* tree has no version: all its items stay in `active`, and checkpoints carry them.

pub use crate::btree::delta::Cell;

use crate::btree::delta::{Change, Delta, bounds};
use crate::btree::leaf::CellMeta;
use crate::btree::lookup::{self, Cursor, Found, Miss, Pages};
use crate::btree::merge::Clip;
use crate::btree::version::Version;
use crate::planted::{self, Planted};
use evenkeel_wire::key::KeyBytes;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// A partition's items.
#[derive(Clone, Debug)]
pub struct Tree {
    resident: bool,
    active: Delta,
    frozen: Option<Delta>,
    version: Version,
    /// The layers are another tree's, too.
    shared: Option<Shared>,
}

/// How layers are shared since a split.
#[derive(Clone, Debug)]
struct Shared {
    /// What this tree holds of them.
    keep: Clip,
    /// Splits since.
    splits: u32,
    /// The checkpoint that runs makes a version of these keys alone.
    merging: bool,
}

impl Default for Tree {
    fn default() -> Self {
        Self::resident()
    }
}

impl Tree {
    /// An empty tree whose items all stay in memory.
    #[must_use]
    pub fn resident() -> Self {
        let (active, version) = (Delta::default(), Version::default());
        Self { resident: true, active, frozen: None, version, shared: None }
    }

    /// A tree that begins with a version on disk.
    #[must_use]
    pub fn paged(version: Version) -> Self {
        Self { resident: false, version, ..Self::resident() }
    }

    /// Whether all items stay in memory.
    #[must_use]
    pub fn is_resident(&self) -> bool {
        self.resident
    }

    /// The version on disk.
    #[must_use]
    pub fn version(&self) -> &Version {
        &self.version
    }

    /// What the checkpoint that runs is to merge.
    #[must_use]
    pub fn frozen(&self) -> Option<&Delta> {
        self.frozen.as_ref()
    }

    /// Which keys of its layers the tree holds, if others hold the rest. They all have the same version.
    #[must_use]
    pub fn keep(&self) -> Option<&Clip> {
        self.shared.as_ref().map(|shared| &shared.keep)
    }

    /// Gives the keys from `border` to `end` away, and returns the tree that holds them.
    ///
    /// # Panics
    /// When all items stay in memory.
    #[must_use]
    pub fn split(&mut self, border: &[u8], end: &[u8]) -> Self {
        assert!(!self.resident, "the catalogue is not split");
        let mut child = self.clone();
        let low = self.keep().map_or_else(Vec::new, |keep| keep.low.clone());
        let splits = self.shared.as_ref().map_or(0, |shared| shared.splits) + 1;
        let shared = |keep| Some(Shared { keep, splits, merging: false });
        self.shared = shared(Clip { low, high: border.to_vec() });
        child.shared = shared(Clip { low: border.to_vec(), high: end.to_vec() });
        child
    }

    /// Reads what writes of these keys will touch, before they come.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) {
        // The count is not used: memory was read for it.
        std::hint::black_box(self.active.look_ahead(keys));
    }

    /// Puts an item.
    pub fn put(&mut self, key: KeyBytes, cell: Cell) {
        self.active.set(key, Some(cell));
    }

    /// Deletes an item, whether there is one or not.
    pub fn delete(&mut self, key: KeyBytes) {
        if self.resident || planted::active(Planted::ForgetDeletion) {
            self.active.forget(&key);
        } else {
            self.active.set(key, None);
        }
    }

    /// Hands what was written over to a checkpoint.
    ///
    /// # Panics
    /// When one has it already.
    pub fn freeze(&mut self) {
        assert!(self.frozen.is_none() && !self.resident, "one checkpoint at a time, and of trees on disk");
        self.frozen = Some(std::mem::take(&mut self.active));
        if let Some(shared) = &mut self.shared {
            shared.merging = true;
        }
    }

    /// The checkpoint was cancelled: what was frozen for it is for the next one.
    pub fn thaw(&mut self) {
        if let Some(frozen) = self.frozen.take() {
            let newer = std::mem::replace(&mut self.active, frozen);
            for change in newer.range((Bound::Unbounded, Bound::Unbounded)) {
                self.active.insert(change.clone());
            }
        }
        if let Some(shared) = &mut self.shared {
            shared.merging = false;
        }
    }

    /// The checkpoint is durable: `version` holds what was frozen. A tree that had nothing in the checkpoint
    /// does not change: it stays in memory, or is younger. Returns what is not needed any more: it may be
    /// much, and to free it takes time.
    pub fn adopt(&mut self, version: Version) -> Option<Delta> {
        let merged = self.frozen.take()?;
        self.version = version;
        // What was written since the checkpoint began is this tree's own, unless it was split since.
        self.shared = self.shared.take().filter(|shared| !shared.merging);
        Some(merged)
    }

    /// The tree on disk was counted: it holds so many more items and bytes than its version says, if that
    /// has estimates only.
    pub fn recount(&mut self, items: i64, bytes: i64) {
        let version = &mut self.version;
        if version.estimated {
            version.items = version.items.saturating_add_signed(items);
            version.bytes = version.bytes.saturating_add_signed(bytes);
            version.estimated = false;
        }
    }

    /// The item under `key`.
    ///
    /// # Errors
    /// When a page is not in memory.
    pub fn get<'a>(&'a self, pages: &Pages<'a>, key: &[u8]) -> Result<Option<Found<'a>>, Miss> {
        if self.keep().is_some_and(|keep| !keep.holds(key)) {
            return Ok(None);
        }
        let frozen = self.frozen.iter().filter(|_| !planted::active(Planted::IgnoreFrozen));
        for delta in std::iter::once(&self.active).chain(frozen) {
            if let Some(change) = delta.get(key) {
                return Ok(change.cell.as_ref().map(found));
            }
        }
        lookup::get(&self.version, pages, key)
    }

    /// Walks over the items with `lower <= key < upper`, in one direction; an empty `upper` is the end.
    #[must_use]
    pub fn walk<'a>(&'a self, pages: Pages<'a>, lower: &[u8], upper: &[u8], forward: bool) -> Walk<'a> {
        let (lower, upper) = self.keep().map_or((lower, upper), |keep| keep.within(lower, upper));
        let layer = |delta: &'a Delta| Layer::new(delta, lower, upper, forward);
        Walk {
            active: layer(&self.active),
            frozen: self.frozen.as_ref().map_or_else(Layer::empty, layer),
            base: Cursor::new(&self.version, pages, lower, upper, forward),
            base_next: None,
            base_ended: false,
            forward,
            key: Vec::new(),
        }
    }

    /// How many items: exact as of the version; each put and deletion since is counted as if its key had not
    /// been there, or had. Of shared layers a half counts for each split.
    #[must_use]
    pub fn items(&self) -> u64 {
        let layers = std::iter::once(&self.active).chain(&self.frozen);
        let puts: u64 = layers.clone().map(|delta| delta.items).sum();
        let deletions: u64 = layers.map(|delta| delta.len() as u64 - delta.items).sum();
        (self.version.items + puts).saturating_sub(deletions) >> self.splits()
    }

    /// Bytes of keys and items, counted in the same way.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let layers = std::iter::once(&self.active).chain(&self.frozen);
        (self.version.bytes + layers.map(|delta| delta.bytes).sum::<u64>()) >> self.splits()
    }

    fn splits(&self) -> u32 {
        self.shared.as_ref().map_or(0, |shared| shared.splits.min(63))
    }

    /// Bytes of keys and items that are in memory only, for a checkpoint to write.
    #[must_use]
    pub fn unwritten_bytes(&self) -> u64 {
        if self.resident { 0 } else { self.active.bytes }
    }
}

fn found(cell: &Cell) -> Found<'_> {
    let meta = CellMeta { slot: cell.slot, timestamp: cell.timestamp, checksum: cell.checksum };
    Found { meta, archive: &cell.archive }
}

/// A layer in memory, with its next change.
struct Layer<'a> {
    changes: Box<dyn Iterator<Item = &'a Arc<Change>> + 'a>,
    next: Option<&'a Change>,
}

impl std::fmt::Debug for Layer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layer").field("next", &self.next.map(|change| &change.key)).finish_non_exhaustive()
    }
}

impl<'a> Layer<'a> {
    fn empty() -> Self {
        Self { changes: Box::new(std::iter::empty()), next: None }
    }

    fn new(delta: &'a Delta, lower: &[u8], upper: &[u8], forward: bool) -> Self {
        let Some(range) = bounds(lower, upper) else {
            return Self::empty();
        };
        let range = delta.range(range);
        let mut layer = Self { next: None, ..Self::empty() };
        layer.changes = if forward { Box::new(range) } else { Box::new(range.rev()) };
        layer.take();
        layer
    }

    fn take(&mut self) -> Option<&'a Change> {
        std::mem::replace(&mut self.next, self.changes.next().map(|change| &**change))
    }
}

/// A walk over a range of a tree.
#[derive(Debug)]
pub struct Walk<'a> {
    active: Layer<'a>,
    frozen: Layer<'a>,
    base: Cursor<'a>,
    base_next: Option<Found<'a>>,
    base_ended: bool,
    forward: bool,
    key: Vec<u8>,
}

impl<'a> Walk<'a> {
    /// The key of the item that [`next`](Self::next) gave last.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        &self.key
    }

    /// The next item.
    ///
    /// # Errors
    /// When a page is not in memory. The walk cannot go on; begin another behind [`key`](Self::key).
    #[allow(clippy::should_implement_trait, reason = "it can fail, and its key is read from the walk")]
    pub fn next(&mut self) -> Result<Option<Found<'a>>, Miss> {
        loop {
            if self.base_next.is_none() && !self.base_ended {
                self.base_next = self.base.next()?;
                self.base_ended = self.base_next.is_none();
            }
            let base = self.base_next.map(|_| self.base.key());
            let active = self.active.next.map(|change| &change.key[..]);
            let frozen = self.frozen.next.map(|change| &change.key[..]);
            let Some(first) = self.earliest([base, active, frozen]) else {
                return Ok(None);
            };
            self.key.clear();
            self.key.extend_from_slice(first);
            let here = |key: Option<&[u8]>| key == Some(&self.key[..]);
            let (in_base, in_active, in_frozen) = (here(base), here(active), here(frozen));
            let base = if in_base { self.base_next.take() } else { None };
            let frozen = if in_frozen { self.frozen.take() } else { None };
            let active = if in_active { self.active.take() } else { None };
            let item = match active.or(frozen) {
                Some(change) => change.cell.as_ref().map(found),
                None => base,
            };
            if item.is_some() {
                return Ok(item);
            }
        }
    }

    fn earliest<'k>(&self, keys: [Option<&'k [u8]>; 3]) -> Option<&'k [u8]> {
        let first = if self.forward { Ordering::Less } else { Ordering::Greater };
        keys.into_iter().flatten().reduce(|best, key| if key.cmp(best) == first { key } else { best })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use evenkeel_wire::ids::Slot;

    fn cell(text: &'static str) -> Cell {
        Cell { slot: Slot(1), timestamp: 1, checksum: 0, archive: Bytes::from_static(text.as_bytes()) }
    }

    fn key(text: &str) -> KeyBytes {
        KeyBytes::from_slice(text.as_bytes())
    }

    fn tree(keys: &[&'static str]) -> Tree {
        let mut tree = Tree::paged(Version::default());
        for name in keys {
            tree.put(key(name), cell("v"));
        }
        tree
    }

    fn check(tree: &Tree, lower: &str, upper: &str, expected: &[&str]) {
        for forward in [true, false] {
            let mut walk = tree.walk(Pages::default(), lower.as_bytes(), upper.as_bytes(), forward);
            let mut keys = Vec::new();
            while walk.next().unwrap().is_some() {
                keys.push(String::from_utf8(walk.key().to_vec()).unwrap());
            }
            if !forward {
                keys.reverse();
            }
            assert_eq!(keys, expected);
        }
    }

    #[test]
    fn ranges_are_half_open_and_empty_ones_are_empty() {
        let tree = tree(&["a", "b", "c"]);
        check(&tree, "", "", &["a", "b", "c"]);
        check(&tree, "a", "c", &["a", "b"]);
        check(&tree, "b", "", &["b", "c"]);
        check(&tree, "b", "b", &[]);
        check(&tree, "c", "a", &[]);
    }

    #[test]
    fn the_newest_layer_that_knows_a_key_says_what_it_is() {
        let mut tree = tree(&["a", "b", "d"]);
        tree.freeze();
        tree.put(key("b"), cell("newer"));
        tree.put(key("c"), cell("v"));
        tree.delete(key("d"));
        check(&tree, "", "", &["a", "b", "c"]);
        let pages = Pages::default();
        assert_eq!(tree.get(&pages, b"b").unwrap().unwrap().archive, b"newer");
        assert_eq!(tree.get(&pages, b"a").unwrap().unwrap().archive, b"v");
        assert_eq!(tree.get(&pages, b"d"), Ok(None));
    }

    #[test]
    fn what_was_frozen_for_a_cancelled_checkpoint_stays_below_what_is_newer() {
        let mut tree = tree(&["a", "b"]);
        tree.freeze();
        tree.put(key("a"), cell("newer"));
        tree.delete(key("b"));
        tree.thaw();
        check(&tree, "", "", &["a"]);
        assert_eq!(tree.get(&Pages::default(), b"a").unwrap().unwrap().archive, b"newer");
        tree.freeze();
    }

    #[test]
    fn halves_of_a_split_hold_their_own_keys_of_the_layers_that_they_share() {
        let mut below = tree(&["a", "b", "m", "z"]);
        below.freeze();
        below.put(key("b"), cell("newer"));
        let mut middle = below.split(b"c", b"");
        let mut above = middle.split(b"n", b"");
        check(&below, "", "", &["a", "b"]);
        check(&middle, "", "", &["m"]);
        check(&above, "", "", &["z"]);
        check(&above, "a", "n", &[]);
        assert_eq!(middle.get(&Pages::default(), b"a"), Ok(None));
        assert!(above.items() + middle.items() + below.items() <= 4, "nothing counts twice");
        // The checkpoint that ran when they were split holds what they all began with.
        let version = Version { items: 4, ..Version::default() };
        for tree in [&mut below, &mut middle, &mut above] {
            tree.adopt(version);
            assert!(tree.keep().is_some() && tree.frozen().is_none());
            tree.freeze();
        }
        // The next one makes a version of each; a split meanwhile keeps that one's apart.
        let last = above.split(b"zz", b"");
        middle.adopt(version);
        above.adopt(version);
        assert_eq!((middle.keep(), above.keep().map(|keep| &keep.high[..])), (None, Some(&b"zz"[..])));
        check(&last, "", "", &[]);
    }

    #[test]
    fn a_snapshot_does_not_change_and_a_resident_tree_forgets_what_is_deleted() {
        let mut tree = Tree::resident();
        tree.put(key("a"), cell("v"));
        tree.put(key("b"), cell("v"));
        let snapshot = tree.clone();
        tree.put(key("a"), cell("longer"));
        tree.delete(key("b"));
        assert_eq!((snapshot.items(), snapshot.bytes()), (2, 4));
        assert_eq!((tree.items(), tree.bytes()), (1, 7));
        check(&snapshot, "", "", &["a", "b"]);
    }
}
