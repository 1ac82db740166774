//! Changes in memory: what was written since a version of the tree.

use bytes::Bytes;
use evenkeel_wire::ids::Slot;
use imbl::OrdMap;
use std::ops::Bound;

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

/// The newest change of each key; none: the item was deleted.
pub type Changes = OrdMap<Bytes, Option<Cell>>;

/// Changes with what they take. Cloning one costs a pointer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// By storage key.
    pub changes: Changes,
    /// How many of them put an item.
    pub items: u64,
    /// Bytes of keys and items.
    pub bytes: u64,
}

impl Delta {
    /// Notes a change, and returns the one that it replaces.
    pub fn set(&mut self, key: Bytes, change: Option<Cell>) -> Option<Option<Cell>> {
        let key_bytes = key.len() as u64;
        self.count(key_bytes, change.as_ref(), true);
        let old = self.changes.insert(key, change);
        if let Some(old) = &old {
            self.count(key_bytes, old.as_ref(), false);
        }
        old
    }

    /// Forgets a key altogether.
    pub fn forget(&mut self, key: &[u8]) -> Option<Option<Cell>> {
        let old = self.changes.remove(key)?;
        self.count(key.len() as u64, old.as_ref(), false);
        Some(old)
    }

    fn count(&mut self, key_bytes: u64, change: Option<&Cell>, added: bool) {
        let (items, bytes) = (u64::from(change.is_some()), key_bytes + change.map_or(0, item_bytes));
        if added {
            self.items += items;
            self.bytes += bytes;
        } else {
            self.items -= items;
            self.bytes -= bytes;
        }
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

fn item_bytes(cell: &Cell) -> u64 {
    cell.archive.len() as u64
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
