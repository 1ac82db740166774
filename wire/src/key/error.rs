//! What can be wrong with a key.

use super::KeyType;
use crate::item::ValueType;

/// Why something is not a key of a table. Every variant is deterministic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A key attribute is not there.
    #[error("key attribute {name} is missing")]
    Missing {
        /// The key attribute.
        name: String,
    },
    /// A key attribute has another type than the schema says.
    #[error("key attribute {name} is of type {found}, and the table's key is of type {expected}")]
    WrongType {
        /// The key attribute.
        name: String,
        /// The schema's type.
        expected: KeyType,
        /// The value's type.
        found: ValueType,
    },
    /// A key value is empty.
    #[error("key attribute {name} is empty")]
    Empty {
        /// The key attribute.
        name: String,
    },
    /// A key value is too long.
    #[error("key attribute {name} has {bytes} bytes, of {bytes_max} at most")]
    TooLong {
        /// The key attribute.
        name: String,
        /// Length of the value.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// A key value is a number that is not canonical.
    #[error("key attribute {name} is a number that is not in canonical form")]
    NumberNotCanonical {
        /// The key attribute.
        name: String,
    },
    /// A key has an attribute that is not of the key.
    #[error("{name} is not an attribute of the table's key")]
    Unexpected {
        /// The attribute.
        name: String,
    },
    /// The table's key has no sort key, and a condition on one was given.
    #[error("the table's key has no sort key")]
    NoSortKey,
    /// The condition is not one for a sort key of this type.
    #[error("begins_with needs a sort key of type S or B, and {name} is of type N")]
    NoPrefix {
        /// The sort key's name.
        name: String,
    },
    /// The bytes are not those of a key of this table.
    #[error("a storage key of {bytes} bytes is broken at byte {offset}")]
    Malformed {
        /// Length of the key.
        bytes: usize,
        /// Where it is broken.
        offset: usize,
    },
    /// The key does not begin with the hash of its partition key in this table.
    #[error("a storage key begins with {found:016x}, and its partition key's hash is {expected:016x}")]
    WrongHash {
        /// What the table's hash gives.
        expected: u64,
        /// What stands there.
        found: u64,
    },
    /// A schema's key attribute has a name that is empty or too long.
    #[error("the name of a key attribute has {bytes} bytes, of 1 to {bytes_max}")]
    NameLength {
        /// Length of the name.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// A schema's two key attributes are one.
    #[error("{name} cannot be both the partition key and the sort key")]
    SameName {
        /// The name.
        name: String,
    },
}
