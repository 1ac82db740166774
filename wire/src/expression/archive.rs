//! Expressions as bytes, between the client and the data plane. They are never stored.

use super::condition::{ArchivedCondition, Condition, check_condition};
use super::error::ExpressionError;
use super::update::{ArchivedUpdate, Update, check_update};
use crate::item::{VecSerializer, access_within, serialize_into};
use crate::limits::{ARCHIVE_DEPTH_MAX, EXPRESSION_DEPTH_MAX, ITEM_ARCHIVE_BYTES_MAX};
use rkyv::Serialize;
use rkyv::rancor::Failure;

/// Largest encoded expression, bytes: constants are at most what an item could be.
pub const EXPRESSION_ARCHIVE_BYTES_MAX: usize = ITEM_ARCHIVE_BYTES_MAX;

/// Longest chain of pointers: a level of the tree is one; operands and actions are in vectors, which are one
/// more; at the leaf is a value, with the chain of an item.
const POINTER_DEPTH_MAX: usize = EXPRESSION_DEPTH_MAX + 1 + ARCHIVE_DEPTH_MAX;

/// Encodes a condition.
///
/// # Errors
/// When it breaks a rule or exceeds a limit.
pub fn encode_condition(condition: &Condition) -> Result<Vec<u8>, ExpressionError> {
    condition.check_depth()?;
    let bytes = serialize(condition)?;
    validate_condition(access_condition(&bytes)?)?;
    Ok(bytes)
}

/// Encodes an update.
///
/// # Errors
/// When it breaks a rule or exceeds a limit.
pub fn encode_update(update: &Update) -> Result<Vec<u8>, ExpressionError> {
    update.check_depth()?;
    let bytes = serialize(update)?;
    validate_update(access_update(&bytes)?)?;
    Ok(bytes)
}

/// The condition in these bytes, if they are safe to walk.
///
/// # Errors
/// [`ExpressionError::ArchiveTooLarge`] or [`ExpressionError::Malformed`].
pub fn access_condition(bytes: &[u8]) -> Result<&ArchivedCondition, ExpressionError> {
    check_length(bytes)?;
    access_within(bytes, POINTER_DEPTH_MAX).ok_or(ExpressionError::Malformed { bytes: bytes.len() })
}

/// The update in these bytes, if they are safe to walk.
///
/// # Errors
/// [`ExpressionError::ArchiveTooLarge`] or [`ExpressionError::Malformed`].
pub fn access_update(bytes: &[u8]) -> Result<&ArchivedUpdate, ExpressionError> {
    check_length(bytes)?;
    access_within(bytes, POINTER_DEPTH_MAX).ok_or(ExpressionError::Malformed { bytes: bytes.len() })
}

/// Checks every rule of a condition. Done once, at the edge.
///
/// # Errors
/// The first rule that it breaks.
pub fn validate_condition(condition: &ArchivedCondition) -> Result<(), ExpressionError> {
    check_condition(condition)
}

/// Checks every rule of an update, except that it leaves the key alone: see [`ArchivedUpdate::check_keys`].
///
/// # Errors
/// The first rule that it breaks.
pub fn validate_update(update: &ArchivedUpdate) -> Result<(), ExpressionError> {
    check_update(update)
}

fn check_length(bytes: &[u8]) -> Result<(), ExpressionError> {
    if bytes.len() > EXPRESSION_ARCHIVE_BYTES_MAX {
        return Err(ExpressionError::ArchiveTooLarge {
            bytes: bytes.len(),
            bytes_max: EXPRESSION_ARCHIVE_BYTES_MAX,
        });
    }
    Ok(())
}

fn serialize<T>(tree: &T) -> Result<Vec<u8>, ExpressionError>
where
    T: for<'a> Serialize<VecSerializer<'a>>,
{
    let mut bytes = Vec::new();
    serialize_into(tree, &mut bytes).map_err(|Failure| ExpressionError::Malformed { bytes: 0 })?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::expression::{Action, Comparator, Operand, Path, SetOperand, SetValue};
    use crate::item::{ItemError, Value, ValueType};
    use crate::limits::{EXPRESSION_NODES_MAX, NESTING_LEVELS_MAX};

    fn exists() -> Condition {
        Condition::AttributeExists(Path::new("an attribute").field("with a long name"))
    }

    fn negated(condition: Condition) -> Condition {
        Condition::Not(Box::new(condition))
    }

    /// The archive of a condition negated this many times, without a walk: each node is the same bytes, which
    /// point at the node before.
    fn negations(count: usize) -> Vec<u8> {
        let mut bytes = encode_condition(&negated(exists())).expect("a condition");
        let node = bytes[bytes.len() - size_of::<ArchivedCondition>()..].to_vec();
        for _ in 1..count {
            bytes.extend_from_slice(&node);
        }
        bytes
    }

    fn deep_value() -> Value {
        let leaf = Value::string_set(["long enough to be out of line"]).expect("a set");
        (1..NESTING_LEVELS_MAX).fold(leaf, |value, _| Value::L(vec![value]))
    }

    #[test]
    fn the_deepest_condition_that_is_allowed_is_walked() {
        let candidates = vec![Operand::Value(deep_value())];
        let leaf = Condition::In { operand: Operand::Size(Path::new("a")), candidates };
        let deepest =
            (1..EXPRESSION_DEPTH_MAX).fold(leaf, |condition, _| Condition::And(vec![exists(), condition]));
        let bytes = encode_condition(&deepest).expect("32 levels");
        assert_eq!(validate_condition(access_condition(&bytes).expect("an archive")), Ok(()));
        let too_deep = Err(ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX });
        assert_eq!(encode_condition(&negated(deepest)), too_deep);
    }

    #[test]
    fn the_deepest_update_that_is_allowed_is_walked() {
        let nest = |operand| SetOperand::IfNotExists { path: Path::new("a"), otherwise: Box::new(operand) };
        let update = |levels| {
            let operand = (1..levels).fold(SetOperand::Value(deep_value()), |operand, _| nest(operand));
            Update { actions: vec![Action::Set { path: Path::new("b"), value: SetValue::Operand(operand) }] }
        };
        let bytes = encode_update(&update(EXPRESSION_DEPTH_MAX)).expect("32 levels");
        assert_eq!(validate_update(access_update(&bytes).expect("an archive")), Ok(()));
        let too_deep = Err(ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX });
        assert_eq!(encode_update(&update(EXPRESSION_DEPTH_MAX + 1)), too_deep);
    }

    #[test]
    fn bytes_nested_without_end_are_an_error_and_not_an_overflow() {
        let bytes = negations(EXPRESSION_DEPTH_MAX);
        let too_deep = Err(ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX });
        assert_eq!(validate_condition(access_condition(&bytes).expect("safe to walk")), too_deep);
        for count in [100, 50_000] {
            let bytes = negations(count);
            let malformed = ExpressionError::Malformed { bytes: bytes.len() };
            assert_eq!(access_condition(&bytes).map(drop), Err(malformed));
        }
    }

    fn check_condition_error(condition: Condition, error: ExpressionError) {
        assert_eq!(encode_condition(&condition), Err(error));
    }

    #[test]
    fn a_tree_that_no_text_gives_is_held_to_the_rules() {
        check_condition_error(
            Condition::And(vec![exists()]),
            ExpressionError::OperandCount {
                operator: "AND",
                operands: 1,
                operands_min: 2,
                operands_max: EXPRESSION_NODES_MAX + 1,
            },
        );
        check_condition_error(
            Condition::Or(vec![exists(); EXPRESSION_NODES_MAX]),
            ExpressionError::TooManyNodes { nodes_max: EXPRESSION_NODES_MAX },
        );
        check_condition_error(
            Condition::BeginsWith {
                operand: Operand::Size(Path::new("a")),
                prefix: Operand::Value("x".into()),
            },
            ExpressionError::OperandSize { operator: "begins_with" },
        );
        check_condition_error(
            Condition::AttributeExists(Path::new("")),
            ExpressionError::PathName { bytes: 0, bytes_max: 65_535 },
        );
        check_condition_error(
            Condition::Compare {
                comparator: Comparator::Less,
                left: Operand::Path(Path::new("a")),
                right: Operand::Value(true.into()),
            },
            ExpressionError::OperandType { operator: "<", found: ValueType::Bool },
        );
        check_condition_error(
            Condition::Contains {
                container: Operand::Path(Path::new("a")),
                element: Operand::Value(Value::Ss(vec![])),
            },
            ExpressionError::Value(ItemError::SetEmpty { at: String::new() }),
        );
        assert_eq!(encode_update(&Update::default()), Err(ExpressionError::NoAction));
    }
}
