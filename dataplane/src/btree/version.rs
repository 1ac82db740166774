//! A version of a partition's tree: what a checkpoint names, and all that a reader needs to begin with.

use super::pointer::{POINTER_BYTES, PagePointer};
use bytes::{Buf, BufMut};
use evenkeel_wire::ids::{PartitionId, Slot};
use std::collections::BTreeMap;

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
    /// Items and bytes are estimates: the tree was split, and not counted since.
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
/// The next merge writes their parents anew, and they are pages like any other.
#[derive(Clone, Debug, Default)]
pub struct Redirects {
    pages: BTreeMap<u64, Redirect>,
}

#[derive(Clone, Debug)]
struct Redirect {
    damaged: PagePointer,
    instead: PagePointer,
    tree: PartitionId,
    /// The first key of both.
    low: Vec<u8>,
}

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
    /// `low`.
    pub fn add(&mut self, tree: PartitionId, low: Vec<u8>, damaged: PagePointer, instead: PagePointer) {
        self.pages.insert(damaged.block, Redirect { damaged, instead, tree, low });
    }

    /// A split: what begins at or after `border` is of the child's tree.
    pub fn divide(&mut self, parent: PartitionId, border: &[u8], child: PartitionId) {
        for redirect in self.pages.values_mut() {
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

    /// Forgets a page that no tree points to any more.
    pub fn remove(&mut self, block: u64) {
        self.pages.remove(&block);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
