//! Evaluation: is a condition true of an item, and what does an update make of it?
//!
//! Both work on archives, in place. Both are pure: the same bytes give the same answer on every replica and
//! at every time, so an answer may be replicated. Neither panics on trees or items that were accessed but not
//! validated.
//!
//! The meaning is that of DynamoDB's developer guide (condition expressions, update expressions). Where the
//! guide is silent, this is what the service was observed to do, and the tests say so.
//!
//! Not here: reading and writing items, capacity, which of a request's expressions comes first.

mod condition;
mod place;
mod update;

pub use condition::evaluate;
pub use update::{UpdateError, apply};
