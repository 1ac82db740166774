//! What can be wrong with an item. Every variant is deterministic: it depends on the bytes alone.

use std::fmt;

/// Why something is not an item that a table can hold. `at` is the place, as a document path
/// (`tags[3].name`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ItemError {
    /// The bytes are no archive of an item, or are nested far deeper than one may be.
    #[error("{bytes} bytes are not an encoded item")]
    Malformed {
        /// How many bytes were given.
        bytes: usize,
    },
    /// The archive is longer than one may be.
    #[error("an item is encoded in {bytes} bytes, of {bytes_max} at most")]
    ArchiveTooLarge {
        /// Length of the archive.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// The archive has bytes that no part of the item uses.
    #[error("an item is encoded in {bytes} bytes, and its parts take {used}")]
    ArchiveSlack {
        /// Length of the archive.
        bytes: usize,
        /// Length of all parts.
        used: usize,
    },
    /// The item is larger than a table may hold, by the size rule.
    #[error("an item is {bytes} bytes large, of {bytes_max} at most")]
    TooLarge {
        /// Size by the rule.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Lists and maps are nested too deeply.
    #[error("attribute {at} is nested more than {levels_max} levels deep")]
    TooDeep {
        /// The first value that is too deep.
        at: String,
        /// The bound; an attribute's own value is level one.
        levels_max: usize,
    },
    /// A number's bytes are not in their one form.
    #[error("the number at {at} is not in canonical form")]
    NumberNotCanonical {
        /// The number, or the set that holds it.
        at: String,
    },
    /// A set has no element.
    #[error("the set at {at} is empty")]
    SetEmpty {
        /// The set.
        at: String,
    },
    /// A set's elements do not ascend strictly.
    #[error("the set at {at} has its element {index} twice or out of order")]
    SetNotAscending {
        /// The set.
        at: String,
        /// The first element that is not above the one before it.
        index: usize,
    },
    /// The names of an item or a map do not ascend strictly.
    #[error("attribute {at} is there twice or out of order")]
    NameNotAscending {
        /// The first attribute that is not above the one before it.
        at: String,
    },
    /// An attribute's name is empty.
    #[error("an attribute in {at} has an empty name")]
    NameEmpty {
        /// The map that holds it; empty for the item itself.
        at: String,
    },
    /// An attribute's name is too long.
    #[error("an attribute in {at} has a name of {bytes} bytes, of {bytes_max} at most")]
    NameTooLong {
        /// The map that holds it; empty for the item itself.
        at: String,
        /// Length of the name.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
}

/// Where a walk is. It lives on the walk's stack and becomes text only when there is an error to tell.
#[derive(Clone, Copy)]
pub(crate) enum Trail<'a> {
    /// The item, or a value that stands alone.
    Root,
    /// An attribute of an item or a map.
    Name(&'a Trail<'a>, &'a str),
    /// An element of a list.
    Index(&'a Trail<'a>, usize),
}

impl fmt::Display for Trail<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Name(Self::Root, name) => f.write_str(name),
            Self::Name(parent, name) => write!(f, "{parent}.{name}"),
            Self::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}
