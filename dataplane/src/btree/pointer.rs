//! Pointers to pages.
//!
//! ```text
//!  offset  bytes  field
//!       0      5  block            where the page begins in the tree's file, in blocks of 4 KiB
//!       5      2  blocks           how long it is
//!       7      1  flags            1: overflow runs hang below it
//!       8      8  birth            the checkpoint that wrote it
//!      16      8  checksum         low half of the page's own
//! ```
//!
//! A pointer says all that is needed to refuse a page that is not the one that was meant: one that was never
//! written, was written elsewhere, or has since made place for another.

use bytes::{Buf, BufMut};
use evenkeel_wire::limits::BLOCK_BYTES;

/// Length of an encoded pointer, bytes.
pub const POINTER_BYTES: usize = 24;

/// Blocks that a pointer can reach.
const BLOCK_LIMIT: u64 = 1 << 40;

/// Where a page lies, and which page it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PagePointer {
    /// The first of its blocks.
    pub block: u64,
    /// How many blocks.
    pub blocks: u16,
    /// Whether overflow runs hang below it, so that who frees a tree knows which leaves to read.
    pub overflow: bool,
    /// The checkpoint that wrote it.
    pub birth: u64,
    /// Low half of the checksum that the page carries.
    pub checksum: u64,
}

impl PagePointer {
    /// Where the page begins, bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.block * BLOCK_BYTES as u64
    }

    /// How long the page is, bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        usize::from(self.blocks) * BLOCK_BYTES
    }

    /// Appends the pointer.
    pub fn encode(&self, out: &mut impl BufMut) {
        assert!(self.block < BLOCK_LIMIT, "a block beyond what a pointer can reach");
        let place = self.block | u64::from(self.blocks) << 40 | u64::from(self.overflow) << 56;
        out.put_u64_le(place);
        out.put_u64_le(self.birth);
        out.put_u64_le(self.checksum);
    }

    /// Reads a pointer. None when the bytes are too few, or carry flags that this version does not know.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        if bytes.len() < POINTER_BYTES {
            return None;
        }
        let place = bytes.get_u64_le();
        let flags = place >> 56;
        let pointer = Self {
            block: place & (BLOCK_LIMIT - 1),
            blocks: (place >> 40) as u16,
            overflow: flags == 1,
            birth: bytes.get_u64_le(),
            checksum: bytes.get_u64_le(),
        };
        (flags <= 1).then_some(pointer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pointer_comes_back_and_unknown_flags_are_refused() {
        let pointer =
            PagePointer { block: 0x12_3456_789a, blocks: 101, overflow: true, birth: 7, checksum: 9 };
        let mut bytes = Vec::new();
        pointer.encode(&mut bytes);
        assert_eq!(bytes.len(), POINTER_BYTES);
        assert_eq!(bytes[..8], [0x9a, 0x78, 0x56, 0x34, 0x12, 101, 0, 1]);
        assert_eq!(PagePointer::decode(&bytes), Some(pointer));
        bytes[7] = 2;
        assert_eq!(PagePointer::decode(&bytes), None);
        assert_eq!(PagePointer::decode(&bytes[..23]), None);
    }
}
