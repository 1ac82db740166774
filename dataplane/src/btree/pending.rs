//! Cells that wait to become leaves: copied into one arena, then divided into pages.

use super::PAGE_BYTES;
use super::leaf::{CellMeta, NewCell, Value};
use super::page::{PAGE_HEADER_BYTES, common_prefix};
use super::pointer::PagePointer;
use std::ops::Range;

/// A leaf below this is filled up from its neighbour, bytes of cells.
const LEAF_BYTES_MIN: usize = PAGE_BYTES / 3;

/// So many pages' worth of cells may wait; then full pages are cut off.
const PENDING_PAGES_MAX: usize = 16;

/// What cells may take in a page of the usual length, bytes.
const CONTENT_BYTES_MAX: usize = PAGE_BYTES - PAGE_HEADER_BYTES;

#[derive(Clone, Debug)]
struct PendingCell {
    key: Range<usize>,
    meta: CellMeta,
    value: PendingValue,
}

#[derive(Clone, Debug)]
enum PendingValue {
    Inline(Range<usize>),
    Overflow { run: PagePointer, bytes: u32 },
}

/// Cells in ascending order.
#[derive(Debug, Default)]
pub struct Pending {
    arena: Vec<u8>,
    cells: Vec<PendingCell>,
    bytes: usize,
    /// What the parent is to say of the first page: the first key that it may hold.
    pub low: Option<Vec<u8>>,
    /// A page that these cells come from is in the cache, so the new one belongs there.
    pub hot: bool,
}

impl Pending {
    /// Appends a cell whose key is `prefix` and `rest`.
    pub fn push(&mut self, prefix: &[u8], rest: &[u8], meta: CellMeta, value: Value<'_>) {
        let start = self.arena.len();
        self.arena.extend_from_slice(prefix);
        self.arena.extend_from_slice(rest);
        let key = start..self.arena.len();
        let value = match value {
            Value::Inline(item) => {
                self.arena.extend_from_slice(item);
                PendingValue::Inline(key.end..self.arena.len())
            }
            Value::Overflow { run, bytes } => PendingValue::Overflow { run, bytes },
        };
        self.cells.push(PendingCell { key, meta, value });
        self.bytes += self.cell(self.cells.len() - 1).bytes();
    }

    fn cell(&self, place: usize) -> NewCell<'_> {
        let PendingCell { key, meta, value } = &self.cells[place];
        let value = match value {
            PendingValue::Inline(item) => Value::Inline(&self.arena[item.clone()]),
            PendingValue::Overflow { run, bytes } => Value::Overflow { run: *run, bytes: *bytes },
        };
        NewCell { key: &self.arena[key.clone()], meta: *meta, value }
    }

    /// The cells in `places`.
    #[must_use]
    pub fn cells(&self, places: Range<usize>) -> Vec<NewCell<'_>> {
        places.map(|place| self.cell(place)).collect()
    }

    /// How many cells.
    #[must_use]
    pub fn len(&self) -> usize {
        self.cells.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// Whether there are too few for a leaf of their own.
    #[must_use]
    pub fn is_small(&self) -> bool {
        self.bytes < LEAF_BYTES_MIN
    }

    /// Whether full pages should be cut off.
    #[must_use]
    pub fn is_large(&self) -> bool {
        self.bytes > PENDING_PAGES_MAX * PAGE_BYTES
    }

    /// Divides the cells into pages. All pages but the last two are as full as they can be while more cells
    /// are to come; at the end what is left is divided evenly.
    #[must_use]
    pub fn divide(&self, more_to_come: bool) -> Vec<Range<usize>> {
        let full = self.fill(0, CONTENT_BYTES_MAX);
        if more_to_come {
            let cut = full.len().saturating_sub(2);
            return full[..cut].to_vec();
        }
        if full.len() < 2 {
            return full;
        }
        let first = full.len() - full.len().min(3);
        let from = full[first].start;
        let total: usize = full[first..].iter().map(|range| self.content_bytes(range.clone())).sum();
        let even = self.fill(from, (total.div_ceil(full.len() - first) + 64).min(CONTENT_BYTES_MAX));
        full[..first].iter().cloned().chain(even).collect()
    }

    /// Divides the cells from `from` on, each page until `limit` bytes are reached.
    fn fill(&self, from: usize, limit: usize) -> Vec<Range<usize>> {
        let mut pages = Vec::new();
        let (mut start, mut sum) = (from, 0);
        for place in from..self.cells.len() {
            let bytes = self.cell(place).bytes();
            if place > start && self.with_prefix(start, place, sum + bytes) > limit {
                pages.push(start..place);
                (start, sum) = (place, 0);
            }
            sum += bytes;
        }
        if start < self.cells.len() {
            pages.push(start..self.cells.len());
        }
        pages
    }

    /// What cells that take `sum` alone take together: their common prefix stands once.
    fn with_prefix(&self, first: usize, last: usize, sum: usize) -> usize {
        let prefix = common_prefix(self.cell(first).key, self.cell(last).key);
        sum - (last - first) * prefix
    }

    fn content_bytes(&self, places: Range<usize>) -> usize {
        let sum = places.clone().map(|place| self.cell(place).bytes()).sum();
        self.with_prefix(places.start, places.end - 1, sum)
    }

    /// Forgets the first `count` cells.
    pub fn cut(&mut self, count: usize) {
        self.cells.drain(..count);
        let Some(first) = self.cells.first() else {
            self.arena.clear();
            self.bytes = 0;
            return;
        };
        let start = first.key.start;
        self.arena.drain(..start);
        let shift = |range: &mut Range<usize>| *range = range.start - start..range.end - start;
        for cell in &mut self.cells {
            shift(&mut cell.key);
            if let PendingValue::Inline(item) = &mut cell.value {
                shift(item);
            }
        }
        self.bytes = (0..self.cells.len()).map(|place| self.cell(place).bytes()).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::ids::Slot;

    fn pending(cells: usize, item: usize) -> Pending {
        let mut pending = Pending::default();
        for number in 0..cells as u64 {
            let meta = CellMeta { slot: Slot(number), timestamp: 0, checksum: 0 };
            pending.push(b"key", &number.to_be_bytes(), meta, Value::Inline(&vec![1; item]));
        }
        pending
    }

    #[test]
    fn one_cell_too_many_makes_two_pages_of_about_the_same_length() {
        assert_eq!(pending(7, 1024).divide(false), vec![0..7; 1]);
        assert_eq!(pending(8, 1024).divide(false), [0..4, 4..8]);
        assert_eq!(pending(15, 1024).divide(false), [0..5, 5..10, 10..15]);
    }

    #[test]
    fn while_more_is_to_come_full_pages_are_cut_off() {
        let mut pending = pending(40, 1024);
        let pages = pending.divide(true);
        assert_eq!(pages, [0..7, 7..14, 14..21, 21..28]);
        pending.cut(28);
        assert_eq!(pending.divide(false).len(), 2);
        assert_eq!(pending.cells(0..1)[0].key, [b"key", &28u64.to_be_bytes()[..]].concat());
    }
}
