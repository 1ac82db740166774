//! What a check of trees can find, and how it is told.

use super::lookup::Place;
use super::page::{PageFault, PageKind};
use super::pointer::PagePointer;
use evenkeel_wire::ids::PartitionId;
use std::fmt;

/// Bytes of a key that are printed.
const KEY_BYTES_SHOWN: usize = 64;

/// Something that is wrong with a tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whose tree.
    pub partition: PartitionId,
    /// The leaf or node that is wrong or whose overflow run is, and the keys that it is there for.
    pub place: Place,
    /// The page.
    pub pointer: PagePointer,
    /// What is wrong.
    pub what: FindingKind,
}

/// What is wrong with a page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FindingKind {
    /// It cannot be read, or is not the page that is meant.
    Unusable(PageFault),
    /// It is of another kind than its place.
    Kind {
        /// What it is.
        got: PageKind,
        /// What must stand there.
        expected: PageKind,
    },
    /// It is not one level below its parent.
    Level {
        /// Where it says that it stands.
        got: u8,
        /// Where it is.
        expected: u8,
    },
    /// A separator is not among the keys of its node.
    Separator {
        /// Which.
        separator: Vec<u8>,
    },
    /// A key is not among those of its leaf.
    KeyOutside {
        /// Which.
        key: Vec<u8>,
    },
    /// The bytes of an item are not those that its client wrote.
    ItemChecksum {
        /// Its key.
        key: Vec<u8>,
    },
    /// An overflow run has another length than its leaf says.
    ItemLength {
        /// Its key.
        key: Vec<u8>,
        /// Bytes in the run.
        got: u64,
        /// Bytes as the leaf says.
        expected: u64,
    },
    /// Overflow runs hang below it, and its flag denies that.
    NoOverflowFlag,
    /// The tree holds another number of items, or of their bytes, than its version says.
    Count {
        /// Items and bytes in it.
        got: (u64, u64),
        /// Items and bytes as the version says.
        expected: (u64, u64),
    },
    /// Another page takes the same blocks.
    ReachedTwice,
    /// The bitmap says that its blocks are free: they may be given to another page.
    Free,
}

impl FindingKind {
    /// The fault, where the page as such is damaged.
    #[must_use]
    pub fn fault(&self) -> Option<PageFault> {
        match self {
            Self::Unusable(fault) => Some(*fault),
            Self::ItemChecksum { .. } => Some(PageFault::Malformed("an item's checksum does not hold")),
            Self::ItemLength { .. } => Some(PageFault::Malformed("an overflow run has the wrong length")),
            Self::Kind { .. }
            | Self::Level { .. }
            | Self::Separator { .. }
            | Self::KeyOutside { .. }
            | Self::NoOverflowFlag
            | Self::Count { .. }
            | Self::ReachedTwice
            | Self::Free => None,
        }
    }
}

impl fmt::Display for FindingKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unusable(fault) => write!(f, "the page is damaged: {fault}"),
            Self::Kind { got, expected } => write!(f, "{} stands where {} must", name(*got), name(*expected)),
            Self::Level { got, expected } => {
                write!(f, "the page is of level {got}, and stands where level {expected} must")
            }
            Self::Separator { separator } => {
                write!(f, "its separator {} is not among its keys", KeyText(separator))
            }
            Self::KeyOutside { key } => write!(f, "the key {} does not belong there", KeyText(key)),
            Self::ItemChecksum { key } => {
                write!(f, "the item under {} is not what was written: its checksum differs", KeyText(key))
            }
            Self::ItemLength { key, got, expected } => {
                let key = KeyText(key);
                write!(
                    f,
                    "the item under {key} has {got} bytes in its overflow run, and should have {expected}"
                )
            }
            Self::NoOverflowFlag => write!(f, "overflow runs hang below the page, and its flag denies that"),
            Self::Count { got, expected } => write!(
                f,
                "the tree holds {} items of {} bytes, and its version says {} of {}",
                got.0, got.1, expected.0, expected.1
            ),
            Self::ReachedTwice => write!(f, "another page takes the same blocks"),
            Self::Free => write!(f, "its blocks count as free, and may be given to another page"),
        }
    }
}

/// What happened, where, why, and what to do.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { partition, place, pointer, what } = self;
        write!(f, "{partition}, {}, block {}: {what}; ", KeyRange(place), pointer.block)?;
        if what.fault().is_some() {
            write!(
                f,
                "the node fetches these keys from a peer when it runs; if that recurs, replace the disk"
            )
        } else {
            write!(
                f,
                "no disk does that by itself: keep the folder for who looks for the bug, and format the "
            )?;
            write!(f, "node as a new member, so that its peers refill it")
        }
    }
}

fn name(kind: PageKind) -> &'static str {
    match kind {
        PageKind::Leaf => "a leaf",
        PageKind::Node => "an inner node",
        PageKind::Overflow => "an overflow run",
    }
}

/// A storage key as text: what is printable as it is, the rest in hexadecimal.
#[derive(Clone, Copy, Debug)]
pub struct KeyText<'a>(pub &'a [u8]);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = &self.0[..self.0.len().min(KEY_BYTES_SHOWN)];
        let more = if shown.len() < self.0.len() { "…" } else { "" };
        write!(f, "\"{}{more}\"", shown.escape_ascii())
    }
}

/// A range of keys as text.
#[derive(Clone, Copy, Debug)]
pub struct KeyRange<'a>(pub &'a Place);

impl fmt::Display for KeyRange<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.0.low[..], &self.0.high[..]) {
            ([], []) => write!(f, "all keys"),
            ([], high) => write!(f, "keys before {}", KeyText(high)),
            (low, []) => write!(f, "keys from {} on", KeyText(low)),
            (low, high) => write!(f, "keys from {} to before {}", KeyText(low), KeyText(high)),
        }
    }
}
