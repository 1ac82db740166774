//! Changes in memory: what was written since a version of the tree.

use super::changes::{Changes, Place, start_of};
use bytes::Bytes;
use evenkeel_wire::ids::Slot;
use evenkeel_wire::key::KeyBytes;
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
    fn counts(&self) -> (u64, u64) {
        counts(&self.key, self.cell.as_ref())
    }
}

/// How many items a change puts, and the bytes of key and item.
fn counts(key: &[u8], cell: Option<&Cell>) -> (u64, u64) {
    let item = cell.map_or(0, |cell| cell.archive.len());
    (u64::from(cell.is_some()), (key.len() + item) as u64)
}

/// How two keys stand to each other. Most tell by their first bytes.
#[must_use]
pub fn compare_keys(a: &[u8], b: &[u8]) -> Ordering {
    start_of(a).cmp(&start_of(b)).then_with(|| a.cmp(b))
}

/// The newest change of each key, with what they take. Cloning one costs a pointer.
#[derive(Clone, Debug, Default)]
pub struct Delta {
    changes: Changes,
    /// How many of them put an item.
    pub items: u64,
    /// Bytes of keys and items.
    pub bytes: u64,
}

impl Delta {
    /// Notes a change. The one that it replaces is written over, unless a clone of the delta has it, too.
    pub fn set(&mut self, key: KeyBytes, cell: Option<Cell>) {
        let counts = counts(&key, cell.as_ref());
        let replaced = match self.changes.place(&key) {
            Place::Free(vacancy) => {
                vacancy.fill(Arc::new(Change { key, cell }));
                (0, 0)
            }
            Place::Taken(change) => {
                let replaced = change.counts();
                match Arc::get_mut(change) {
                    Some(change) => change.cell = cell,
                    None => *change = Arc::new(Change { key, cell }),
                }
                replaced
            }
        };
        self.count(counts, replaced);
    }

    /// Notes a change that another delta had.
    pub fn insert(&mut self, change: Arc<Change>) {
        let counts = change.counts();
        let replaced = match self.changes.place(&change.key) {
            Place::Free(vacancy) => {
                vacancy.fill(change);
                (0, 0)
            }
            Place::Taken(place) => std::mem::replace(place, change).counts(),
        };
        self.count(counts, replaced);
    }

    /// Reads what writes of these keys will touch, of so many as are [seen ahead](crate::limits), before they
    /// come. Returns how many of the items there are nobody else's.
    pub fn look_ahead<'k>(&self, keys: impl Iterator<Item = &'k [u8]>) -> usize {
        self.changes.look_ahead(keys)
    }

    /// Forgets a key altogether.
    pub fn forget(&mut self, key: &[u8]) -> Option<Arc<Change>> {
        let old = self.changes.remove(key)?;
        self.count((0, 0), old.counts());
        Some(old)
    }

    /// Forgets the first key.
    pub fn forget_first(&mut self) -> Option<Arc<Change>> {
        let old = self.changes.remove_first()?;
        self.count((0, 0), old.counts());
        Some(old)
    }

    /// Counts the items and bytes of a change that came, and no more those of one that went.
    fn count(&mut self, came: (u64, u64), went: (u64, u64)) {
        (self.items, self.bytes) = (self.items + came.0 - went.0, self.bytes + came.1 - went.1);
    }

    /// The newest change of a key.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Change> {
        self.changes.get(key)
    }

    /// The changes within a range, in the order of their keys.
    pub fn range<'a>(
        &'a self,
        range: Range<'_>,
    ) -> impl DoubleEndedIterator<Item = &'a Arc<Change>> + use<'a> {
        self.changes.range(range)
    }

    /// How many keys changed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.changes.len()
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
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
    fn cell(slot: u64, bytes: usize) -> Cell {
        Cell { slot: Slot(slot), timestamp: 0, checksum: 0, archive: Bytes::from(vec![7; bytes]) }
    }

    fn content(delta: &Delta) -> Vec<(Vec<u8>, Option<Cell>)> {
        let all = delta.range((Bound::Unbounded, Bound::Unbounded));
        all.map(|change| (change.key.to_vec(), change.cell.clone())).collect()
    }

    proptest! {
        #[test]
        fn what_is_written_over_stays_in_clones_and_is_counted_once(
            writes in prop::collection::vec((0u8..9, prop::option::of(0usize..50), 0u8..10), 1..300),
        ) {
            let (mut delta, mut model) = (Delta::default(), BTreeMap::new());
            let (mut clones, mut lent) = (Vec::new(), Vec::new());
            for (slot, (key, bytes, meanwhile)) in (0..).zip(writes) {
                let cell = bytes.map(|bytes| cell(slot, bytes));
                delta.set(KeyBytes::from_slice(&[key]), cell.clone());
                model.insert(vec![key], cell);
                match meanwhile {
                    0 => clones.push((delta.clone(), content(&delta))),
                    1 => {
                        let all = delta.range((Bound::Unbounded, Bound::Unbounded));
                        lent.extend(all.map(|change| (change.clone(), (**change).clone())));
                    }
                    _ => {}
                }
            }
            clones.push((delta, model.into_iter().collect()));
            for (delta, expected) in clones {
                let cells: Vec<&Cell> = expected.iter().filter_map(|(_, cell)| cell.as_ref()).collect();
                let archives: usize = cells.iter().map(|cell| cell.archive.len()).sum();
                // Each key is a byte.
                let counts = (cells.len() as u64, (archives + expected.len()) as u64);
                prop_assert_eq!((delta.items, delta.bytes), counts);
                prop_assert_eq!(content(&delta), expected);
            }
            for (change, as_it_was) in lent {
                prop_assert_eq!(&*change, &as_it_was);
            }
        }
    }
}
