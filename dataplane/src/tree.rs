//! The ordered tree that holds a partition's items: the only place that knows how they are kept.
//!
//! It is a persistent ordered map in memory (docs/decisions/0006-tree.md): [`Tree::snapshot`] costs a
//! pointer, and the snapshot stays as it was while the tree changes. The on-disk tree will stand here; what
//! uses this one asks for one key, for a range in steps, or for a snapshot, and keeps no reference between
//! turns.

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

/// A partition's items by storage key.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    cells: OrdMap<Bytes, Cell>,
    bytes: u64,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The cell under `key`.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&Cell> {
        self.cells.get(key)
    }

    /// Puts a cell, and returns the one that was there.
    pub fn insert(&mut self, key: Bytes, cell: Cell) -> Option<Cell> {
        let key_bytes = key.len() as u64;
        self.bytes += key_bytes + cell.archive.len() as u64;
        let old = self.cells.insert(key, cell);
        if let Some(old) = &old {
            self.bytes -= key_bytes + old.archive.len() as u64;
        }
        old
    }

    /// Removes a cell, and returns it.
    pub fn remove(&mut self, key: &[u8]) -> Option<Cell> {
        let old = self.cells.remove(key)?;
        self.bytes -= (key.len() + old.archive.len()) as u64;
        Some(old)
    }

    /// The cells with `lower <= key < upper`, ascending; an empty `upper` is the end.
    pub fn ascending<'a>(
        &'a self,
        lower: &[u8],
        upper: &[u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Cell)> {
        self.cells.range::<_, [u8]>(bounds(lower, upper))
    }

    /// The same, descending.
    pub fn descending<'a>(
        &'a self,
        lower: &[u8],
        upper: &[u8],
    ) -> impl Iterator<Item = (&'a Bytes, &'a Cell)> {
        self.cells.range::<_, [u8]>(bounds(lower, upper)).rev()
    }

    /// The tree as it is now, unaffected by later changes.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        self.clone()
    }

    /// How many items.
    #[must_use]
    pub fn items(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Bytes of keys and items.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn bounds<'a>(lower: &'a [u8], upper: &'a [u8]) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let end = if upper.is_empty() { Bound::Unbounded } else { Bound::Excluded(upper) };
    if !upper.is_empty() && lower >= upper {
        return (Bound::Excluded(upper), Bound::Included(upper));
    }
    (Bound::Included(lower), end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(text: &'static str) -> Cell {
        Cell { slot: Slot(1), timestamp: 1, checksum: 0, archive: Bytes::from_static(text.as_bytes()) }
    }

    fn tree(keys: &[&'static str]) -> Tree {
        let mut tree = Tree::new();
        for key in keys {
            tree.insert(Bytes::from_static(key.as_bytes()), cell("v"));
        }
        tree
    }

    fn check(tree: &Tree, lower: &str, upper: &str, expected: &[&str]) {
        let keys = |iterator: &mut dyn Iterator<Item = (&Bytes, &Cell)>| -> Vec<String> {
            iterator.map(|(key, _)| String::from_utf8(key.to_vec()).unwrap()).collect()
        };
        let ascending = keys(&mut tree.ascending(lower.as_bytes(), upper.as_bytes()));
        let mut descending = keys(&mut tree.descending(lower.as_bytes(), upper.as_bytes()));
        assert_eq!(ascending, expected);
        descending.reverse();
        assert_eq!(descending, expected);
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
    fn a_snapshot_does_not_change_and_bytes_are_counted() {
        let mut tree = tree(&["a", "b"]);
        let snapshot = tree.snapshot();
        tree.insert(Bytes::from_static(b"a"), cell("longer"));
        tree.remove(b"b");
        assert_eq!((snapshot.items(), snapshot.bytes()), (2, 4));
        assert_eq!((tree.items(), tree.bytes()), (1, 7));
        assert_eq!(snapshot.get(b"a"), Some(&cell("v")));
    }
}
