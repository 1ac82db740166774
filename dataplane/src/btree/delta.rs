//! Changes in memory: what was written since a version of the tree.

use bytes::Bytes;
use equivalent::{Comparable, Equivalent};
use evenkeel_wire::ids::Slot;
use evenkeel_wire::key::KeyBytes;
use imbl::OrdSet;
use std::cmp::Ordering;
use std::ops::Bound;
use std::sync::Arc;

/// An item with what stands beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The last write: its slot.
    pub slot: Slot,
    /// Its hybrid logical timestamp.
    pub timestamp: u64,
    /// CRC-32C of the archive, as the client computed it.
    pub checksum: u32,
    /// The item's archive.
    pub archive: Bytes,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The storage key.
    pub key: KeyBytes,
    /// The item; none: it was deleted.
    pub cell: Option<Cell>,
}

impl Change {
    /// Bytes of the key and the item.
    fn bytes(&self) -> u64 {
        let item = self.cell.as_ref().map_or(0, |cell| cell.archive.len());
        (self.key.len() + item) as u64
    }
}

/// How two keys stand to each other. Most tell by their first bytes.
#[must_use]
pub fn compare_keys(a: &[u8], b: &[u8]) -> Ordering {
    start_of(a).cmp(&start_of(b)).then_with(|| a.cmp(b))
}

/// A change in its place. Keys begin with a hash, so the first bytes of two nearly always tell which comes
/// first; they stand in the map's nodes, where a comparison need not follow a pointer to learn them.
#[derive(Clone, Debug)]
struct Placed {
    start: u64,
    change: Arc<Change>,
}

/// A key that is looked for.
struct Sought<'a> {
    start: u64,
    key: &'a [u8],
}

impl<'a> Sought<'a> {
    fn new(key: &'a [u8]) -> Self {
        Self { start: start_of(key), key }
    }
}

/// The first bytes of a key, as a number that orders as they do. A key that is shorter is filled with zeros,
/// and so is equal to some that are longer, and never above one.
fn start_of(key: &[u8]) -> u64 {
    match key.first_chunk() {
        Some(start) => u64::from_be_bytes(*start),
        None => {
            let mut start = [0; 8];
            start[..key.len()].copy_from_slice(key);
            u64::from_be_bytes(start)
        }
    }
}

impl PartialEq for Placed {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Placed {}

impl PartialOrd for Placed {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Placed {
    fn cmp(&self, other: &Self) -> Ordering {
        if Arc::ptr_eq(&self.change, &other.change) {
            return Ordering::Equal;
        }
        self.start.cmp(&other.start).then_with(|| self.change.key.cmp(&other.change.key))
    }
}

impl Equivalent<Placed> for Sought<'_> {
    fn equivalent(&self, placed: &Placed) -> bool {
        self.compare(placed).is_eq()
    }
}

impl Comparable<Placed> for Sought<'_> {
    fn compare(&self, placed: &Placed) -> Ordering {
        self.start.cmp(&placed.start).then_with(|| self.key.cmp(&placed.change.key))
    }
}

/// The newest change of each key, with what they take. Cloning one costs a pointer.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    changes: OrdSet<Placed>,
    /// How many of them put an item.
    pub items: u64,
    /// Bytes of keys and items.
    pub bytes: u64,
}

impl Delta {
    /// Notes a change, and returns the one that it replaces.
    pub fn set(&mut self, key: KeyBytes, cell: Option<Cell>) -> Option<Arc<Change>> {
        self.insert(Arc::new(Change { key, cell }))
    }

    /// Notes a change that another delta had.
    pub fn insert(&mut self, change: Arc<Change>) -> Option<Arc<Change>> {
        self.items += u64::from(change.cell.is_some());
        self.bytes += change.bytes();
        let old = self.changes.insert(Placed { start: start_of(&change.key), change })?;
        Some(self.uncount(old))
    }

    /// Forgets a key altogether.
    pub fn forget(&mut self, key: &[u8]) -> Option<Arc<Change>> {
        let old = self.changes.remove(&Sought::new(key))?;
        Some(self.uncount(old))
    }

    /// Forgets the first key.
    pub fn forget_first(&mut self) -> Option<Arc<Change>> {
        let old = self.changes.remove_min()?;
        Some(self.uncount(old))
    }

    fn uncount(&mut self, old: Placed) -> Arc<Change> {
        self.items -= u64::from(old.change.cell.is_some());
        self.bytes -= old.change.bytes();
        old.change
    }

    /// The newest change of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Change> {
        self.changes.get(&Sought::new(key)).map(|placed| &*placed.change)
    }

    /// The changes within a range, in the order of their keys.
    pub fn range<'a>(
        &'a self,
        (lower, upper): Range<'_>,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Change>> + use<'a> {
        let range = (lower.map(Sought::new), upper.map(Sought::new));
        self.changes.range(range).map(|placed| &placed.change)
    }

    /// How many keys changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// Where a range of keys begins and ends.
pub type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The bounds of `lower <= key < upper`, where an empty `upper` is no end. None when no key can lie between.
#[must_use]
pub fn bounds<'a>(lower: &'a [u8], upper: &'a [u8]) -> Option<Range<'a>> {
    if upper.is_empty() {
        return Some((Bound::Included(lower), Bound::Unbounded));
    }
    (lower < upper).then_some((Bound::Included(lower), Bound::Excluded(upper)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn keys_of_any_length_stand_in_the_order_of_their_bytes(
            keys in prop::collection::vec(prop::collection::vec(0u8..3, 0..11), 1..60),
            lower in prop::collection::vec(0u8..3, 0..11),
        ) {
            let (mut delta, mut model) = (Delta::default(), BTreeMap::new());
            for key in keys {
                delta.set(KeyBytes::from_slice(&key), None);
                model.insert(key, ());
            }
            let range = (Bound::Included(&lower[..]), Bound::Unbounded);
            let found: Vec<&[u8]> = delta.range(range).map(|change| &change.key[..]).collect();
            let expected: Vec<&[u8]> = model.range(lower.clone()..).map(|(key, ())| &key[..]).collect();
            prop_assert_eq!(found, expected);
            prop_assert_eq!(delta.get(&lower).is_some(), model.contains_key(&lower));
            while let Some(first) = delta.forget_first() {
                prop_assert_eq!(model.pop_first().map(|(key, ())| key), Some(first.key.to_vec()));
            }
            prop_assert!(model.is_empty() && delta.bytes == 0);
        }
    }
}
