//! Rules on constants, held by the parser with a position and by the walk over archives without one.
//!
//! They are about values in the expression only. A value from an item that is of the wrong type makes a
//! condition false, or an update fail, when it is evaluated.

use super::error::ExpressionError;
use crate::item::ValueType;
use crate::item::view::ValueView;
use std::cmp::Ordering;

/// What a constant is the operand of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// `=`, `<>`, IN, contains, and SET: any type.
    Any,
    /// `<`, `<=`, `>`, `>=` and BETWEEN, by name.
    Ordering(&'static str),
    /// begins_with.
    Prefix,
    /// `+` and `-`.
    Arithmetic(&'static str),
    /// list_append.
    ListAppend,
    /// ADD.
    Add,
    /// DELETE.
    Delete,
}

/// Checks that a constant is of a type that its use can ever take.
pub(super) fn check_use(usage: Use, value: ValueView<'_>) -> Result<(), ExpressionError> {
    use ValueType::{B, Bs, L, N, Ns, S, Ss};
    let (operator, types): (_, &[ValueType]) = match usage {
        Use::Any => return Ok(()),
        Use::Ordering(operator) => (operator, &[S, N, B]),
        Use::Prefix => ("begins_with", &[S, B]),
        Use::Arithmetic(operator) => (operator, &[N]),
        Use::ListAppend => ("list_append", &[L]),
        Use::Add => ("ADD", &[N, Ss, Ns, Bs]),
        Use::Delete => ("DELETE", &[Ss, Ns, Bs]),
    };
    let found = value.value_type();
    if types.contains(&found) { Ok(()) } else { Err(ExpressionError::OperandType { operator, found }) }
}

/// Checks that the constants of BETWEEN are one range.
pub(super) fn check_between(low: ValueView<'_>, high: ValueView<'_>) -> Result<(), ExpressionError> {
    match low.compare(high) {
        Some(Ordering::Less | Ordering::Equal) => Ok(()),
        Some(Ordering::Greater) | None => Err(ExpressionError::BetweenReversed),
    }
}

/// Checks how many operands an operator has.
pub(super) fn check_count(
    operator: &'static str,
    operands: usize,
    operands_min: usize,
    operands_max: usize,
) -> Result<(), ExpressionError> {
    if (operands_min..=operands_max).contains(&operands) {
        Ok(())
    } else {
        Err(ExpressionError::OperandCount { operator, operands, operands_min, operands_max })
    }
}
