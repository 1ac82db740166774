//! Pages: what every page of the tree's file begins with, and what is verified before anybody looks inside.
//!
//! ```text
//!  offset  bytes  field
//!       0      8  magic            "EKPAGE01"
//!       8      8  zero
//!      16     16  checksum         XXH3-128 of the bytes from 32 to the page's end
//!      32      2  format           1
//!      34      1  kind             1 leaf, 2 inner node, 3 overflow run
//!      35      1  level            0 for leaves and runs; a node is one above its children
//!      36      2  core
//!      38      2  cells            entries of a leaf or node
//!      40      4  content bytes    behind the header
//!      44      2  prefix bytes     that all keys of the page begin with
//!      46      2  flags            1: overflow runs hang below
//!      48      8  block            where this page stands
//!      56      8  birth            the checkpoint that wrote it
//!      64     16  incarnation      of the data folder
//!      80      8  tree             the partition for which it was written
//!      88      4  epoch            of that partition's membership
//!      92      4  key id           reserved
//!      96      8  position         the slot up to which its tree was applied
//!     104     12  nonce            reserved
//!     116     16  tag              reserved
//!     132     12  zero
//!     144      …  content, then zeros
//! ```
//!
//! A page of [`PAGE_BYTES`](super::PAGE_BYTES) holds several cells. One that must hold a key that is too long
//! for that is longer, by whole blocks.

use super::leaf::LeafView;
use super::node::NodeView;
use super::pointer::PagePointer;
use crate::planted::{self, Planted};
use crate::wal::block::LogIdentity;
use bytes::{Buf, BufMut};
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::ids::{Epoch, PartitionId, Slot};
use evenkeel_wire::turn::DiskFault;
use thiserror::Error;

/// Length of a page's header, bytes.
pub const PAGE_HEADER_BYTES: usize = 144;

const MAGIC: [u8; 8] = *b"EKPAGE01";
const FORMAT: u16 = 1;
const CHECKED_FROM: usize = 32;

/// What a page is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Cells.
    Leaf,
    /// Pointers to pages one level below.
    Node,
    /// One large item.
    Overflow,
}

/// Whose page it is, and as of when: the same for all pages that one merge writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Data folder and core.
    pub identity: LogIdentity,
    /// The partition.
    pub tree: PartitionId,
    /// Its membership epoch.
    pub epoch: Epoch,
    /// The checkpoint that writes.
    pub checkpoint: u64,
    /// Up to where the tree will be applied.
    pub position: Slot,
}

/// What the header of a page says of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// What it is.
    pub kind: PageKind,
    /// How high it stands above the leaves.
    pub level: u8,
    /// Entries.
    pub cells: u16,
    /// Bytes behind the header.
    pub bytes: u32,
    /// Bytes of the common prefix.
    pub prefix_bytes: u16,
    /// Whether overflow runs hang below.
    pub overflow: bool,
}

/// Why a page must not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum PageFault {
    /// The device could not read it.
    #[error("it cannot be read: {0}")]
    Disk(DiskFault),
    /// The file ends before the page does.
    #[error("the file holds {got} of its {expected} bytes")]
    Short {
        /// Bytes there.
        got: usize,
        /// Bytes of the page.
        expected: usize,
    },
    /// There is no page here: it was never written, or its first bytes are damaged.
    #[error("there is no page there")]
    NotAPage,
    /// A newer version wrote it.
    #[error("it was written in format {0}; start a version that knows it")]
    NewerFormat(u16),
    /// The bytes are not those that were written.
    #[error("its checksum does not hold")]
    Checksum,
    /// A whole page of another place or data folder: a write went astray.
    #[error("it belongs to another place")]
    Misplaced,
    /// A whole page of this place, and not the one that is pointed to: a write was lost.
    #[error("it is another version of the page, of checkpoint {got} where {expected} is meant")]
    Version {
        /// The checkpoint that wrote what is there.
        got: u64,
        /// The one that is pointed to.
        expected: u64,
    },
    /// It is whole, and its content makes no sense.
    #[error("it is malformed: {0}")]
    Malformed(&'static str),
}

/// A page's header, as read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageHeader {
    /// What is in it.
    pub content: Content,
    /// Where it says that it stands.
    pub block: u64,
    /// Whose it is.
    pub stamp: Stamp,
}

/// Writes the header of the page in `page`, whose content is there already, and computes its checksum.
pub fn seal(page: &mut [u8], stamp: &Stamp, content: &Content, block: u64) -> PagePointer {
    let mut out = &mut page[..PAGE_HEADER_BYTES];
    out.put_slice(&MAGIC);
    out.put_u64_le(0);
    out.put_slice(&Hash128::ZERO.0);
    out.put_u16_le(FORMAT);
    out.put_u8(match content.kind {
        PageKind::Leaf => 1,
        PageKind::Node => 2,
        PageKind::Overflow => 3,
    });
    out.put_u8(content.level);
    out.put_u16_le(stamp.identity.core.0);
    out.put_u16_le(content.cells);
    out.put_u32_le(content.bytes);
    out.put_u16_le(content.prefix_bytes);
    out.put_u16_le(u16::from(content.overflow));
    out.put_u64_le(block);
    out.put_u64_le(stamp.checkpoint);
    out.put_slice(&stamp.identity.incarnation.0);
    out.put_u64_le(stamp.tree.0);
    out.put_u32_le(stamp.epoch.0);
    out.put_u32_le(0);
    out.put_u64_le(stamp.position.0);
    out.put_bytes(0, 40);
    let hash = Hash128::of(&page[CHECKED_FROM..]);
    page[16..CHECKED_FROM].copy_from_slice(&hash.0);
    PagePointer {
        block,
        blocks: (page.len() / evenkeel_wire::limits::BLOCK_BYTES) as u16,
        overflow: content.overflow,
        birth: stamp.checkpoint,
        checksum: low_half(&hash),
    }
}

fn low_half(hash: &Hash128) -> u64 {
    (&hash.0[..8]).get_u64_le()
}

/// Verifies that `page` is what `pointer` points to, whole, and well formed within.
///
/// # Errors
/// [`PageFault`].
pub fn verify(page: &[u8], identity: &LogIdentity, pointer: &PagePointer) -> Result<PageHeader, PageFault> {
    if page.len() != pointer.bytes() || page.len() < PAGE_HEADER_BYTES {
        return Err(PageFault::Short { got: page.len(), expected: pointer.bytes() });
    }
    if page[..8] != MAGIC || page[8..16] != [0; 8] {
        return Err(PageFault::NotAPage);
    }
    let hash = Hash128::of(&page[CHECKED_FROM..]);
    if hash.0 != page[16..CHECKED_FROM] && !planted::active(Planted::ForgetChecksum) {
        return Err(PageFault::Checksum);
    }
    let header = read_header(page)?;
    if header.stamp.identity != *identity || header.block != pointer.block {
        return Err(PageFault::Misplaced);
    }
    if header.stamp.checkpoint != pointer.birth || low_half(&hash) != pointer.checksum {
        if planted::active(Planted::ForgetChecksum) {
            return Ok(header);
        }
        return Err(PageFault::Version { got: header.stamp.checkpoint, expected: pointer.birth });
    }
    if header.content.overflow != pointer.overflow {
        return Err(PageFault::Malformed("its flags are not those of its pointer"));
    }
    match header.content.kind {
        PageKind::Leaf => LeafView::check(page)?,
        PageKind::Node => NodeView::check(page)?,
        PageKind::Overflow => {}
    }
    Ok(header)
}

/// Reads the header of a page whose checksum holds.
///
/// # Errors
/// When a newer version wrote it, or a field is out of range.
pub fn read_header(page: &[u8]) -> Result<PageHeader, PageFault> {
    let mut fields = page.get(CHECKED_FROM..PAGE_HEADER_BYTES).ok_or(PageFault::NotAPage)?;
    let format = fields.get_u16_le();
    if format != FORMAT {
        return Err(PageFault::NewerFormat(format));
    }
    let kind = match fields.get_u8() {
        1 => PageKind::Leaf,
        2 => PageKind::Node,
        3 => PageKind::Overflow,
        _ => return Err(PageFault::Malformed("an unknown kind of page")),
    };
    let level = fields.get_u8();
    let core = evenkeel_wire::ids::CoreId(fields.get_u16_le());
    let cells = fields.get_u16_le();
    let bytes = fields.get_u32_le();
    let (prefix_bytes, flags) = (fields.get_u16_le(), fields.get_u16_le());
    let (block, checkpoint) = (fields.get_u64_le(), fields.get_u64_le());
    let mut incarnation = evenkeel_wire::ids::Incarnation::default();
    fields.copy_to_slice(&mut incarnation.0);
    let (tree, epoch) = (PartitionId(fields.get_u64_le()), Epoch(fields.get_u32_le()));
    let key_id = fields.get_u32_le();
    let position = Slot(fields.get_u64_le());
    if flags > 1 || key_id != 0 || fields.iter().any(|byte| *byte != 0) {
        return Err(PageFault::Malformed("reserved bytes that are not zero: a newer version wrote it"));
    }
    if PAGE_HEADER_BYTES + bytes as usize > page.len() || u32::from(prefix_bytes) > bytes {
        return Err(PageFault::Malformed("content beyond the page's end"));
    }
    let content = Content { kind, level, cells, bytes, prefix_bytes, overflow: flags == 1 };
    let identity = LogIdentity { incarnation, core };
    Ok(PageHeader { content, block, stamp: Stamp { identity, tree, epoch, checkpoint, position } })
}

/// How high a verified page stands above the leaves.
#[must_use]
pub fn level_of(page: &[u8]) -> u8 {
    page[35]
}

/// The item in a verified overflow run.
#[must_use]
pub fn overflow_item(page: &[u8]) -> &[u8] {
    let bytes = (&page[40..44]).get_u32_le() as usize;
    &page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + bytes]
}

/// Entries, prefix and content of a page whose header is verified.
pub(super) fn parts(page: &[u8]) -> (usize, &[u8], &[u8]) {
    let cells = usize::from((&page[38..40]).get_u16_le());
    let bytes = (&page[40..44]).get_u32_le() as usize;
    let prefix = usize::from((&page[44..46]).get_u16_le());
    let content = &page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + bytes];
    (cells, &content[..prefix], content)
}

/// How many leading bytes two keys share.
#[must_use]
pub fn common_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::super::leaf::{self, CellMeta, NewCell, Value};
    use super::super::node::{self, Child};
    use super::*;
    use evenkeel_wire::ids::{CoreId, Incarnation};

    fn stamp() -> Stamp {
        let identity = LogIdentity { incarnation: Incarnation([7; 16]), core: CoreId(1) };
        Stamp { identity, tree: PartitionId(3), epoch: Epoch(2), checkpoint: 9, position: Slot(44) }
    }

    fn overflow_page() -> (Vec<u8>, PagePointer) {
        let mut page = vec![0; 4096];
        page[PAGE_HEADER_BYTES..PAGE_HEADER_BYTES + 4].copy_from_slice(b"item");
        let content = Content {
            kind: PageKind::Overflow,
            level: 0,
            cells: 0,
            bytes: 4,
            prefix_bytes: 0,
            overflow: false,
        };
        let pointer = seal(&mut page, &stamp(), &content, 5);
        (page, pointer)
    }

    #[test]
    fn a_page_is_taken_only_where_it_belongs_and_as_what_it_was_written() {
        let (page, pointer) = overflow_page();
        let identity = stamp().identity;
        assert_eq!(verify(&page, &identity, &pointer).unwrap().stamp, stamp());
        assert_eq!(overflow_item(&page), b"item");
        let check = |pointer: PagePointer, expected| {
            assert_eq!(verify(&page, &identity, &pointer).unwrap_err(), expected);
        };
        check(PagePointer { block: 6, ..pointer }, PageFault::Misplaced);
        check(PagePointer { birth: 10, ..pointer }, PageFault::Version { got: 9, expected: 10 });
        check(PagePointer { checksum: 1, ..pointer }, PageFault::Version { got: 9, expected: 9 });
        check(PagePointer { blocks: 2, ..pointer }, PageFault::Short { got: 4096, expected: 8192 });
        let elsewhere = LogIdentity { core: CoreId(0), ..identity };
        assert_eq!(verify(&page, &elsewhere, &pointer), Err(PageFault::Misplaced));
        assert_eq!(verify(&[0; 4096], &identity, &pointer), Err(PageFault::NotAPage));
    }

    #[test]
    fn every_flipped_bit_of_every_kind_of_page_is_found() {
        let (overflow, pointer) = overflow_page();
        let meta = CellMeta { slot: Slot(1), timestamp: 2, checksum: 3 };
        let cells = [NewCell { key: b"key", meta, value: Value::Inline(b"item") }];
        let children = [Child { separator: b"key".to_vec(), pointer }];
        let (mut leaf, mut node) = (Vec::new(), Vec::new());
        let leaf_content = leaf::lay_out(&cells, &mut leaf);
        let node_content = node::lay_out(&children, 1, &mut node);
        let leaf_pointer = seal(&mut leaf, &stamp(), &leaf_content, 7);
        let node_pointer = seal(&mut node, &stamp(), &node_content, 9);
        for (mut page, pointer) in [(overflow, pointer), (leaf, leaf_pointer), (node, node_pointer)] {
            verify(&page, &stamp().identity, &pointer).unwrap();
            for bit in 0..page.len() * 8 {
                page[bit / 8] ^= 1 << (bit % 8);
                assert!(verify(&page, &stamp().identity, &pointer).is_err(), "bit {bit}");
                page[bit / 8] ^= 1 << (bit % 8);
            }
        }
    }
}
