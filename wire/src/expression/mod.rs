//! Expressions: conditions, updates and key conditions, as trees and as text.
//!
//! Text is parsed where a person wrote it, by the client or the gateway, against [`Bindings`] of `#names` and
//! `:values`. What travels is the tree, encoded; the data plane never sees text. The grammar is that of
//! DynamoDB's developer guide (condition expressions, update expressions), with its precedence: NOT, then
//! AND, then OR.
//!
//! # Invariants
//!
//! * A tree is bounded: text by bytes, trees by operators and depth, paths and values by the limit on
//!   nesting. So the recursion of everyone who walks a tree is bounded.
//! * [`access_condition`] and [`access_update`] prove that bytes are safe to walk; [`validate_condition`] and
//!   [`validate_update`] prove, once and at the edge, that the rules hold. A tree that was only accessed may
//!   break rules, and its evaluation must then give an answer or an error, never a panic.
//! * Trees are never stored: logs hold what they evaluated to.
//!
//! Not here: evaluation (the data plane), projections, reserved words other than the grammar's own. Where
//! DynamoDB refuses redundant parentheses and its reserved words, this grammar is more liberal.

mod archive;
mod condition;
mod error;
mod parse;
mod path;
mod rule;
mod update;

pub use archive::{
    EXPRESSION_ARCHIVE_BYTES_MAX, access_condition, access_update, encode_condition, encode_update,
    validate_condition, validate_update,
};
pub use condition::{ArchivedComparator, ArchivedCondition, ArchivedOperand, Comparator, Condition, Operand};
pub use error::ExpressionError;
pub use parse::{Bindings, KeyCondition, ParseError, ParseProblem, UnusedBindings};
pub use path::{ArchivedPath, ArchivedStep, Path, Step, StepView};
pub use update::{
    Action, ArchivedAction, ArchivedSetOperand, ArchivedSetValue, ArchivedUpdate, SetOperand, SetValue,
    Update,
};
