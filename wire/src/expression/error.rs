//! What can be wrong with a tree. Every variant is deterministic: it depends on the tree alone.

use crate::item::{ItemError, ValueType};

/// Why a tree is not an expression that may be evaluated.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExpressionError {
    /// The bytes are no archive of an expression, or are nested far deeper than one may be.
    #[error("{bytes} bytes are not an encoded expression")]
    Malformed {
        /// How many bytes were given.
        bytes: usize,
    },
    /// The archive is longer than one may be.
    #[error("an expression is encoded in {bytes} bytes, of {bytes_max} at most")]
    ArchiveTooLarge {
        /// Length of the archive.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// Conditions or functions are nested too deeply.
    #[error("an expression is nested more than {depth_max} levels deep")]
    TooDeep {
        /// The bound.
        depth_max: usize,
    },
    /// There are too many operators and functions.
    #[error("an expression has more than {nodes_max} operators and functions")]
    TooManyNodes {
        /// The bound.
        nodes_max: usize,
    },
    /// An operator has a number of operands that it does not take.
    #[error("{operator} has {operands} operands, of {operands_min} to {operands_max}")]
    OperandCount {
        /// The operator.
        operator: &'static str,
        /// How many it has.
        operands: usize,
        /// The fewest that it takes.
        operands_min: usize,
        /// The most that it takes.
        operands_max: usize,
    },
    /// A constant has a type that its operator or function never takes.
    #[error("{operator} does not take a value of type {found}")]
    OperandType {
        /// The operator or function.
        operator: &'static str,
        /// The constant's type.
        found: ValueType,
    },
    /// `size()` stands where a document path or a value must.
    #[error("{operator} does not take size()")]
    OperandSize {
        /// The operator or function.
        operator: &'static str,
    },
    /// The constants of BETWEEN are of two types, or the upper one is below the lower one.
    #[error("BETWEEN needs two values of one type, the lower one first")]
    BetweenReversed,
    /// A constant is not a canonical value.
    #[error("a value in an expression is wrong: {0}")]
    Value(#[from] ItemError),
    /// A document path has more steps than an item has levels.
    #[error("document path {path} has more than {levels_max} levels")]
    PathTooDeep {
        /// The path.
        path: String,
        /// The bound.
        levels_max: usize,
    },
    /// A name in a document path is empty or too long.
    #[error("a name in a document path has {bytes} bytes, of 1 to {bytes_max}")]
    PathName {
        /// Length of the name.
        bytes: usize,
        /// The bound.
        bytes_max: usize,
    },
    /// An update does nothing.
    #[error("an update has no action")]
    NoAction,
    /// Two actions change one place, or a place and something inside it.
    #[error("an update changes {first} and {second}, which overlap")]
    PathsOverlap {
        /// The path of the earlier action.
        first: String,
        /// The path of the later action.
        second: String,
    },
    /// Two actions take one place for a list and for a map.
    #[error("an update changes {first} and {second}, which cannot both be there")]
    PathsConflict {
        /// The path of the earlier action.
        first: String,
        /// The path of the later action.
        second: String,
    },
    /// An update changes an attribute of the key.
    #[error("an update cannot change {name}, which is part of the key")]
    KeyUpdated {
        /// The key attribute.
        name: String,
    },
}
