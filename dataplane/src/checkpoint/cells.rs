//! Cells of a key range for a member whose pages are damaged, as records of an image.

use super::image::encode_cell_record;
use crate::btree::lookup::Found;
use crate::limits::CHUNK_BYTES;

/// Cells for a member, as many as a frame takes.
#[derive(Debug, Default)]
pub struct CellBatch {
    /// Records of kind cell.
    pub records: Vec<u8>,
    /// How many.
    pub cells: usize,
    /// The key to go on from, if there are more.
    pub resume: Option<Vec<u8>>,
    last: Vec<u8>,
}

impl CellBatch {
    /// Adds a cell.
    pub fn add(&mut self, key: &[u8], cell: &Found<'_>) {
        encode_cell_record(key, cell, &mut self.records);
        self.cells += 1;
        self.last.clear();
        self.last.extend_from_slice(key);
    }

    /// Whether a frame has enough of them.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.records.len() >= CHUNK_BYTES
    }

    /// The first possible key behind the last cell.
    #[must_use]
    pub fn behind_last(&self) -> Vec<u8> {
        [&self.last[..], &[0]].concat()
    }
}
