//! Inner nodes: children and the keys that separate them.
//!
//! ```text
//!  header | prefix of all separators | offset of each entry, 2 bytes, from the content's beginning | entries
//!
//!  entry:  pointer 24, separator bytes 2, rest of the separator behind the prefix
//! ```
//!
//! A child holds the keys from its separator on, up to the next one. Separators are as short as they can be.

use super::PAGE_BYTES;
use super::page::{Content, PAGE_HEADER_BYTES, PageFault, PageKind, common_prefix, parts};
use super::pointer::{POINTER_BYTES, PagePointer};
use bytes::{Buf, BufMut};
use evenkeel_wire::aligned::round_up;
use std::cmp::Ordering;

const ENTRY_BYTES: usize = POINTER_BYTES + 2;
const OFFSET_BYTES: usize = 2;

/// Children that a node has at least when it is split, however long their separators are: so a tree stays
/// flat.
pub const NODE_CHILDREN_MIN: usize = 4;

/// A child with its separator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// The first key that it may hold.
    pub separator: Vec<u8>,
    /// Where it is.
    pub pointer: PagePointer,
}

impl Child {
    /// What the child takes in a node without a prefix, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        OFFSET_BYTES + ENTRY_BYTES + self.separator.len()
    }
}

/// A verified node.
#[derive(Clone, Copy, Debug)]
pub struct NodeView<'a> {
    children: usize,
    prefix: &'a [u8],
    content: &'a [u8],
}

impl<'a> NodeView<'a> {
    /// Looks into a verified node.
    #[must_use]
    pub fn new(page: &'a [u8]) -> Self {
        let (children, prefix, content) = parts(page);
        Self { children, prefix, content }
    }

    /// Checks the structure of a node whose header and checksum hold.
    pub(super) fn check(page: &'a [u8]) -> Result<(), PageFault> {
        let view = Self::new(page);
        if view.children == 0 || view.content.len() < view.prefix.len() + view.children * OFFSET_BYTES {
            return Err(PageFault::Malformed("a node's offsets reach beyond its content"));
        }
        let mut before: Option<&[u8]> = None;
        for place in 0..view.children {
            let entry = view.try_entry(place).filter(|(pointer, _)| pointer.is_some());
            let (_, rest) = entry.ok_or(PageFault::Malformed("a node's entry is cut off"))?;
            if before.is_some_and(|before| before >= rest) {
                return Err(PageFault::Malformed("a node's separators do not ascend"));
            }
            before = Some(rest);
        }
        Ok(())
    }

    /// How many children.
    #[must_use]
    pub fn children(&self) -> usize {
        self.children
    }

    fn try_entry(&self, place: usize) -> Option<(Option<PagePointer>, &'a [u8])> {
        let at = self.prefix.len() + place * OFFSET_BYTES;
        let offset = usize::from(self.content.get(at..at + OFFSET_BYTES)?.get_u16_le());
        let entry = self.content.get(offset..).filter(|entry| entry.len() >= ENTRY_BYTES)?;
        let rest = usize::from((&entry[POINTER_BYTES..ENTRY_BYTES]).get_u16_le());
        Some((PagePointer::decode(entry), entry.get(ENTRY_BYTES..ENTRY_BYTES + rest)?))
    }

    fn entry(&self, place: usize) -> (Option<PagePointer>, &'a [u8]) {
        assert!(place < self.children, "child {place} of {}", self.children);
        self.try_entry(place).expect("the node was verified when it came")
    }

    /// A child's pointer.
    ///
    /// # Panics
    /// When there is none at `place`.
    #[must_use]
    pub fn pointer(&self, place: usize) -> PagePointer {
        self.entry(place).0.expect("the node was verified when it came")
    }

    /// A child's separator.
    ///
    /// # Panics
    /// When there is none at `place`.
    #[must_use]
    pub fn separator(&self, place: usize) -> Vec<u8> {
        [self.prefix, self.entry(place).1].concat()
    }

    /// All children.
    #[must_use]
    pub fn to_children(&self) -> Vec<Child> {
        let child = |place| Child { separator: self.separator(place), pointer: self.pointer(place) };
        (0..self.children).map(child).collect()
    }

    /// How many separators are not above `key`: the child that holds `key` stands before that place.
    fn not_above(&self, key: &[u8], or_equal: bool) -> usize {
        let shared = key.len().min(self.prefix.len());
        match key[..shared].cmp(&self.prefix[..shared]) {
            Ordering::Less => return 0,
            Ordering::Greater => return self.children,
            Ordering::Equal if shared < self.prefix.len() => return 0,
            Ordering::Equal => {}
        }
        let rest = &key[shared..];
        let (mut low, mut high) = (0, self.children);
        while low < high {
            let middle = low.midpoint(high);
            let separator = self.entry(middle).1;
            if separator < rest || (or_equal && separator == rest) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// The child that holds `key`, if any does.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> usize {
        self.not_above(key, true).saturating_sub(1)
    }

    /// The last child that may hold a key below `end`; an empty `end` is above every key.
    #[must_use]
    pub fn find_below(&self, end: &[u8]) -> usize {
        if end.is_empty() {
            return self.children - 1;
        }
        self.not_above(end, false).saturating_sub(1)
    }
}

/// The shortest key that is above `left` and not above `right`.
#[must_use]
pub fn separator_between(left: &[u8], right: &[u8]) -> Vec<u8> {
    right[..(common_prefix(left, right) + 1).min(right.len())].to_vec()
}

/// Lays `children`, whose separators ascend, out as a node of `level`. As for leaves, `page` gets room for
/// the header in front.
///
/// # Panics
/// When there are no children, or they do not fit 64 KiB: the caller divides them.
pub fn lay_out(children: &[Child], level: u8, page: &mut Vec<u8>) -> Content {
    let first = &children.first().expect("a node has children").separator;
    let last = &children.last().expect("a node has children").separator;
    let prefix = common_prefix(first, last);
    page.clear();
    page.resize(PAGE_HEADER_BYTES, 0);
    page.put_slice(&first[..prefix]);
    let mut offset = prefix + children.len() * OFFSET_BYTES;
    for child in children {
        page.put_u16_le(u16::try_from(offset).expect("a node's content stays below 64 KiB"));
        offset += ENTRY_BYTES + child.separator.len() - prefix;
    }
    for child in children {
        child.pointer.encode(page);
        page.put_u16_le((child.separator.len() - prefix) as u16);
        page.put_slice(&child.separator[prefix..]);
    }
    let bytes = page.len() - PAGE_HEADER_BYTES;
    page.resize(round_up(page.len()).max(PAGE_BYTES), 0);
    Content {
        kind: PageKind::Node,
        level,
        cells: children.len() as u16,
        bytes: bytes as u32,
        prefix_bytes: prefix as u16,
        overflow: children.iter().any(|child| child.pointer.overflow),
    }
}

#[cfg(test)]
mod tests {
    use super::super::leaf::tests::STAMP;
    use super::super::page::{seal, verify};
    use super::*;

    fn child(separator: &str, block: u64) -> Child {
        let pointer = PagePointer { block, blocks: 2, overflow: false, birth: 1, checksum: 2 };
        Child { separator: separator.as_bytes().to_vec(), pointer }
    }

    #[test]
    fn a_key_is_sought_in_the_last_child_whose_separator_is_not_above_it() {
        for separators in [["", "b", "bc", "d"], ["ka", "kb", "kbc", "kd"]] {
            let children: Vec<Child> = separators.iter().zip(1..).map(|(s, block)| child(s, block)).collect();
            let mut page = Vec::new();
            let content = lay_out(&children, 1, &mut page);
            let pointer = seal(&mut page, &STAMP, &content, 8);
            verify(&page, &STAMP.identity, &pointer).unwrap();
            let view = NodeView::new(&page);
            assert_eq!(view.to_children(), children);
            let start = if separators[0].is_empty() { "" } else { "k" };
            let key = |rest: &str| [start, rest].concat().into_bytes();
            assert_eq!([view.find(&key("a")), view.find(&key("b")), view.find(&key("bb"))], [0, 1, 1]);
            assert_eq!([view.find(&key("bc")), view.find(&key("z")), view.find(b"")], [2, 3, 0]);
            assert_eq!([view.find_below(&key("b")), view.find_below(&key("ba"))], [0, 1]);
            assert_eq!([view.find_below(b""), view.find_below(b"a")], [3, 0]);
        }
    }

    #[test]
    fn separators_are_as_short_as_they_can_be() {
        assert_eq!(separator_between(b"abcd", b"abxyz"), b"abx");
        assert_eq!(separator_between(b"ab", b"abc"), b"abc");
        assert_eq!(separator_between(b"a", b"b"), b"b");
    }
}
