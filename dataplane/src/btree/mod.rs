//! The on-disk tree: a B+tree that never changes. A checkpoint merges what was written since into a new
//! version of it, copy-on-write (docs/decisions/0010-btree.md).
//!
//! * [`pointer`]: how pages point to each other.
//! * [`page`]: what every page begins with. [`leaf`] and [`node`]: what stands in them.

pub mod leaf;
pub mod node;
pub mod page;
pub mod pointer;

use evenkeel_wire::limits::BLOCK_BYTES;

/// Length of a leaf or an inner node, bytes.
pub const PAGE_BYTES: usize = 8192;

/// The same in blocks.
pub const PAGE_BLOCKS: u16 = (PAGE_BYTES / BLOCK_BYTES) as u16;
