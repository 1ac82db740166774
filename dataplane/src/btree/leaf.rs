//! Leaves: cells in the order of their keys.
//!
//! ```text
//!  header | prefix of all keys | offset of each cell, 2 bytes, from the content's beginning | cells
//!
//!  cell:  offset  bytes  field
//!              0      8  slot             the item's last write
//!              8      8  timestamp        of that write
//!             16      4  item checksum    CRC-32C
//!             20      2  item format      1
//!             22      2  origin region    0
//!             24      4  flags            1: the item stands in an overflow run
//!             28      2  key bytes        behind the prefix
//!             30      2  extension bytes  skippable
//!             32      4  item bytes
//!             36      …  rest of the key, extensions, then the item or a pointer to its run
//! ```
//!
//! A leaf is written once, whole, and read in place: an item's bytes go from the page to the answer.

use super::PAGE_BYTES;
use super::page::{Content, PAGE_HEADER_BYTES, PageFault, PageKind, common_prefix, parts};
use super::pointer::{POINTER_BYTES, PagePointer};
use bytes::{Buf, BufMut};
use evenkeel_wire::aligned::round_up;
use evenkeel_wire::ids::Slot;
use std::cmp::Ordering;

/// Length of a cell before its key, bytes.
const CELL_BYTES: usize = 36;
/// Length of a cell's offset, bytes.
const OFFSET_BYTES: usize = 2;
const ITEM_FORMAT: u16 = 1;
const FLAG_OVERFLOW: u32 = 1;

/// An item longer than this stands in an overflow run, bytes: a quarter of a page.
pub const INLINE_BYTES_MAX: usize = PAGE_BYTES / 4;

/// What stands beside an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CellMeta {
    /// The last write.
    pub slot: Slot,
    /// Its timestamp.
    pub timestamp: u64,
    /// CRC-32C of the item.
    pub checksum: u32,
}

/// Where an item's bytes are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Here.
    Inline(&'a [u8]),
    /// In a run.
    Overflow {
        /// Where.
        run: PagePointer,
        /// How many bytes.
        bytes: u32,
    },
}

impl Value<'_> {
    /// Length of the item, bytes.
    #[must_use]
    pub fn item_bytes(&self) -> usize {
        match self {
            Self::Inline(item) => item.len(),
            Self::Overflow { bytes, .. } => *bytes as usize,
        }
    }

    fn stored_bytes(&self) -> usize {
        match self {
            Self::Inline(item) => item.len(),
            Self::Overflow { .. } => POINTER_BYTES,
        }
    }
}

/// A cell of a leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeafCell<'a> {
    /// The key behind the leaf's prefix.
    pub key_rest: &'a [u8],
    /// What stands beside the item.
    pub meta: CellMeta,
    /// The item.
    pub value: Value<'a>,
}

/// A verified leaf.
#[derive(Clone, Copy, Debug)]
pub struct LeafView<'a> {
    cells: usize,
    prefix: &'a [u8],
    content: &'a [u8],
}

impl<'a> LeafView<'a> {
    /// Looks into a verified leaf.
    #[must_use]
    pub fn new(page: &'a [u8]) -> Self {
        let (cells, prefix, content) = parts(page);
        Self { cells, prefix, content }
    }

    /// Checks the structure of a leaf whose header and checksum hold.
    pub(super) fn check(page: &'a [u8]) -> Result<(), PageFault> {
        let view = Self::new(page);
        if view.content.len() < view.prefix.len() + view.cells * OFFSET_BYTES {
            return Err(PageFault::Malformed("a leaf's offsets reach beyond its content"));
        }
        let mut before: Option<&[u8]> = None;
        for place in 0..view.cells {
            let cell = view.try_cell(place).ok_or(PageFault::Malformed("a leaf's cell is cut off"))?;
            if before.is_some_and(|before| before >= cell.key_rest) {
                return Err(PageFault::Malformed("a leaf's keys do not ascend"));
            }
            before = Some(cell.key_rest);
        }
        Ok(())
    }

    /// How many cells.
    #[must_use]
    pub fn cells(&self) -> usize {
        self.cells
    }

    /// What all its keys begin with.
    #[must_use]
    pub fn prefix(&self) -> &'a [u8] {
        self.prefix
    }

    /// A cell.
    ///
    /// # Panics
    /// When there is none at `place`.
    #[must_use]
    pub fn cell(&self, place: usize) -> LeafCell<'a> {
        assert!(place < self.cells, "cell {place} of {}", self.cells);
        self.try_cell(place).expect("the leaf was verified when it came")
    }

    fn try_cell(&self, place: usize) -> Option<LeafCell<'a>> {
        let mut bytes = self.cell_bytes(place)?;
        let meta = CellMeta {
            slot: Slot(bytes.get_u64_le()),
            timestamp: bytes.get_u64_le(),
            checksum: bytes.get_u32_le(),
        };
        let (format, region, flags) = (bytes.get_u16_le(), bytes.get_u16_le(), bytes.get_u32_le());
        let (key, extensions) = (usize::from(bytes.get_u16_le()), usize::from(bytes.get_u16_le()));
        let item = bytes.get_u32_le();
        if format != ITEM_FORMAT || region != 0 || flags > FLAG_OVERFLOW {
            return None;
        }
        let key_rest = bytes.get(..key)?;
        let stored = bytes.get(key + extensions..)?;
        let value = if flags & FLAG_OVERFLOW != 0 {
            Value::Overflow { run: PagePointer::decode(stored)?, bytes: item }
        } else {
            Value::Inline(stored.get(..item as usize)?)
        };
        Some(LeafCell { key_rest, meta, value })
    }

    fn cell_bytes(&self, place: usize) -> Option<&'a [u8]> {
        let at = self.prefix.len() + place * OFFSET_BYTES;
        let offset = usize::from(self.content.get(at..at + OFFSET_BYTES)?.get_u16_le());
        self.content.get(offset..).filter(|bytes| bytes.len() >= CELL_BYTES)
    }

    fn key_rest(&self, place: usize) -> &'a [u8] {
        let bytes = self.cell_bytes(place).expect("the leaf was verified when it came");
        let key = usize::from((&bytes[28..30]).get_u16_le());
        &bytes[CELL_BYTES..CELL_BYTES + key]
    }

    /// Where `key` stands, or where it would.
    ///
    /// # Errors
    /// The place of the first greater key, when `key` is not here.
    pub fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let shared = key.len().min(self.prefix.len());
        match key[..shared].cmp(&self.prefix[..shared]) {
            Ordering::Less => return Err(0),
            Ordering::Greater => return Err(self.cells),
            Ordering::Equal if shared < self.prefix.len() => return Err(0),
            Ordering::Equal => {}
        }
        let rest = &key[shared..];
        let (mut low, mut high) = (0, self.cells);
        while low < high {
            let middle = low.midpoint(high);
            match self.key_rest(middle).cmp(rest) {
                Ordering::Less => low = middle + 1,
                Ordering::Equal => return Ok(middle),
                Ordering::Greater => high = middle,
            }
        }
        Err(low)
    }
}

/// A cell to be written.
#[derive(Clone, Copy, Debug)]
pub struct NewCell<'a> {
    /// The whole key.
    pub key: &'a [u8],
    /// What stands beside the item.
    pub meta: CellMeta,
    /// The item.
    pub value: Value<'a>,
}

impl NewCell<'_> {
    /// What the cell takes in a leaf without a prefix, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        OFFSET_BYTES + CELL_BYTES + self.key.len() + self.value.stored_bytes()
    }
}

/// Lays `cells`, which ascend, out as a leaf. Returns the content behind the header, zero-padded to whole
/// blocks with room for the header in front, and what the header must say.
///
/// # Panics
/// When they do not fit a page of 64 KiB: the caller divides them.
pub fn lay_out(cells: &[NewCell<'_>], page: &mut Vec<u8>) -> Content {
    let first = cells.first().map_or(&[][..], |cell| cell.key);
    let prefix = common_prefix(first, cells.last().map_or(&[][..], |cell| cell.key));
    page.clear();
    page.resize(PAGE_HEADER_BYTES, 0);
    page.put_slice(&first[..prefix]);
    let mut offset = prefix + cells.len() * OFFSET_BYTES;
    for cell in cells {
        page.put_u16_le(u16::try_from(offset).expect("a leaf's content stays below 64 KiB"));
        offset += CELL_BYTES + cell.key.len() - prefix + cell.value.stored_bytes();
    }
    let mut overflow = false;
    for cell in cells {
        page.put_u64_le(cell.meta.slot.0);
        page.put_u64_le(cell.meta.timestamp);
        page.put_u32_le(cell.meta.checksum);
        page.put_u16_le(ITEM_FORMAT);
        page.put_u16_le(0);
        let in_run = matches!(cell.value, Value::Overflow { .. });
        overflow |= in_run;
        page.put_u32_le(if in_run { FLAG_OVERFLOW } else { 0 });
        page.put_u16_le((cell.key.len() - prefix) as u16);
        page.put_u16_le(0);
        page.put_u32_le(cell.value.item_bytes() as u32);
        page.put_slice(&cell.key[prefix..]);
        match cell.value {
            Value::Inline(item) => page.put_slice(item),
            Value::Overflow { run, .. } => run.encode(page),
        }
    }
    let bytes = page.len() - PAGE_HEADER_BYTES;
    page.resize(round_up(page.len()).max(PAGE_BYTES), 0);
    Content {
        kind: PageKind::Leaf,
        level: 0,
        cells: cells.len() as u16,
        bytes: bytes as u32,
        prefix_bytes: prefix as u16,
        overflow,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::page::{Stamp, seal, verify};
    use super::*;
    use crate::wal::block::LogIdentity;
    use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, PartitionId};

    pub(in crate::btree) const STAMP: Stamp = Stamp {
        identity: LogIdentity { incarnation: Incarnation([7; 16]), core: CoreId(1) },
        tree: PartitionId(3),
        epoch: Epoch(1),
        checkpoint: 9,
        position: Slot(44),
    };

    fn meta(slot: u64) -> CellMeta {
        CellMeta { slot: Slot(slot), timestamp: slot << 16, checksum: slot as u32 }
    }

    #[test]
    fn cells_come_back_and_are_found_with_and_without_a_prefix() {
        let run = PagePointer { block: 3, blocks: 2, overflow: false, birth: 4, checksum: 5 };
        for keys in [["aa1", "aa2", "aa3", "aab"], ["", "b", "ba", "c"]] {
            let cells: Vec<NewCell<'_>> = keys
                .iter()
                .enumerate()
                .map(|(place, key)| NewCell {
                    key: key.as_bytes(),
                    meta: meta(place as u64),
                    value: if place == 2 {
                        Value::Overflow { run, bytes: 5000 }
                    } else {
                        Value::Inline(b"item")
                    },
                })
                .collect();
            let mut page = Vec::new();
            let content = lay_out(&cells, &mut page);
            let pointer = seal(&mut page, &STAMP, &content, 12);
            verify(&page, &STAMP.identity, &pointer).unwrap();
            assert!(pointer.overflow && page.len() == PAGE_BYTES);
            let view = LeafView::new(&page);
            for (place, cell) in cells.iter().enumerate() {
                assert_eq!(view.find(cell.key), Ok(place));
                let read = view.cell(place);
                assert_eq!([view.prefix(), read.key_rest].concat(), cell.key);
                assert_eq!((read.meta, read.value), (cell.meta, cell.value));
            }
            assert_eq!(view.find(b"zz"), Err(4));
            assert_eq!(view.find(b"aa2x"), if keys[0] == "aa1" { Err(2) } else { Err(1) });
        }
    }

    #[test]
    fn a_cell_with_the_longest_key_and_inline_item_gets_a_longer_page() {
        let key = vec![9; 6156];
        let item = vec![1; INLINE_BYTES_MAX];
        let cells = [NewCell { key: &key, meta: meta(1), value: Value::Inline(&item) }];
        let mut page = Vec::new();
        let content = lay_out(&cells, &mut page);
        let pointer = seal(&mut page, &STAMP, &content, 1);
        assert_eq!(pointer.blocks, 3);
        verify(&page, &STAMP.identity, &pointer).unwrap();
        assert_eq!(LeafView::new(&page).find(&key), Ok(0));
    }
}
