//! The on-disk tree: a B+tree that never changes. A checkpoint merges what was written since into a new
//! version of it, copy-on-write (docs/decisions/0010-btree.md).
//!
//! * [`mod@pointer`]: how pages point to each other.
//! * [`page`]: what every page begins with. [`leaf`] and [`node`]: what stands in them.
//! * [`version`]: a tree as of one position. [`lookup`]: reading it. [`delta`]: what was written since.
//! * [`merge`]: the next version, through [`pending`] and [`batch`]. [`feed`]: pages for work in the
//!   background.
//! * [`check`]: whether trees are what they should be; [`finding`]: in which way they are not.
//! * [`space`]: which blocks are in use. [`cache`]: pages in memory. [`store`]: both, and who waits for
//!   pages.

pub mod batch;
pub mod cache;
mod changes;
pub mod check;
pub mod delta;
pub mod feed;
pub mod finding;
pub mod leaf;
pub mod lookup;
pub mod merge;
pub mod node;
pub mod page;
pub mod pending;
pub mod pointer;
pub mod space;
pub mod store;
pub mod version;

use evenkeel_wire::limits::BLOCK_BYTES;

/// Length of a leaf or an inner node, bytes.
pub const PAGE_BYTES: usize = 8192;

/// The same in blocks.
pub const PAGE_BLOCKS: u16 = (PAGE_BYTES / BLOCK_BYTES) as u16;
