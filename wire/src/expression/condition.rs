//! Conditions as trees.

use super::error::ExpressionError;
use super::path::{ArchivedPath, Path, check_path};
use super::rule::{Use, check_between, check_count, check_use};
use crate::item::{Value, ValueType, check_value};
use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX, IN_OPERANDS_MAX};
use rkyv::{Archive, Serialize};
use std::fmt;

/// Something that is true or false of an item.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)),
    derive(Debug)
)]
pub enum Condition {
    /// Two operands compared.
    Compare {
        /// How.
        comparator: Comparator,
        /// The operand on the left.
        left: Operand,
        /// The operand on the right.
        right: Operand,
    },
    /// An operand is at least one and at most another.
    Between {
        /// The operand.
        operand: Operand,
        /// The least that it may be.
        low: Operand,
        /// The most that it may be.
        high: Operand,
    },
    /// An operand equals one of several.
    In {
        /// The operand.
        operand: Operand,
        /// The others: 1 to 100.
        candidates: Vec<Operand>,
    },
    /// Something is at a path.
    AttributeExists(Path),
    /// Nothing is at a path.
    AttributeNotExists(Path),
    /// An operand is of a type.
    AttributeType {
        /// The operand.
        operand: Operand,
        /// The type.
        value_type: ValueType,
    },
    /// A text or byte string begins with another.
    BeginsWith {
        /// The whole.
        operand: Operand,
        /// What it begins with.
        prefix: Operand,
    },
    /// A text or byte string is part of another, or a value is in a set or a list.
    Contains {
        /// The whole.
        container: Operand,
        /// The part.
        element: Operand,
    },
    /// All of two or more conditions.
    And(#[rkyv(omit_bounds)] Vec<Condition>),
    /// Any of two or more conditions.
    Or(#[rkyv(omit_bounds)] Vec<Condition>),
    /// The opposite.
    Not(#[rkyv(omit_bounds)] Box<Condition>),
}

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)),
    derive(Debug)
)]
pub enum Operand {
    /// What is at a path.
    Path(Path),
    /// A constant.
    Value(Value),
    /// The size of what is at a path: UTF-16 code units of a text, bytes, elements.
    Size(Path),
}

/// How two operands are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(derive(Clone, Copy, Debug, PartialEq, Eq))]
pub enum Comparator {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

impl Comparator {
    /// As it is written.
    #[must_use]
    pub fn symbol(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }

    /// What constants this compares.
    pub(super) fn usage(self) -> Use {
        match self {
            Self::Equal | Self::NotEqual => Use::Any,
            Self::Less | Self::LessOrEqual | Self::Greater | Self::GreaterOrEqual => {
                Use::Ordering(self.symbol())
            }
        }
    }
}

impl From<ArchivedComparator> for Comparator {
    fn from(archived: ArchivedComparator) -> Self {
        match archived {
            ArchivedComparator::Equal => Self::Equal,
            ArchivedComparator::NotEqual => Self::NotEqual,
            ArchivedComparator::Less => Self::Less,
            ArchivedComparator::LessOrEqual => Self::LessOrEqual,
            ArchivedComparator::Greater => Self::Greater,
            ArchivedComparator::GreaterOrEqual => Self::GreaterOrEqual,
        }
    }
}

impl fmt::Display for Comparator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.symbol())
    }
}

impl Condition {
    /// Checks the depth of the tree and of its constants, so that it is safe to walk.
    pub(super) fn check_depth(&self) -> Result<(), ExpressionError> {
        self.check_depth_left(EXPRESSION_DEPTH_MAX)
    }

    fn check_depth_left(&self, depth_left: usize) -> Result<(), ExpressionError> {
        let Some(depth_left) = depth_left.checked_sub(1) else {
            return Err(ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX });
        };
        match self {
            Self::Compare { left, right, comparator: _ } => check_constants([left, right]),
            Self::Between { operand, low, high } => check_constants([operand, low, high]),
            Self::In { operand, candidates } => check_constants(std::iter::once(operand).chain(candidates)),
            Self::AttributeExists(_) | Self::AttributeNotExists(_) => Ok(()),
            Self::AttributeType { operand, value_type: _ } => check_constants([operand]),
            Self::BeginsWith { operand, prefix } => check_constants([operand, prefix]),
            Self::Contains { container, element } => check_constants([container, element]),
            Self::And(conditions) | Self::Or(conditions) => {
                conditions.iter().try_for_each(|condition| condition.check_depth_left(depth_left))
            }
            Self::Not(condition) => condition.check_depth_left(depth_left),
        }
    }
}

fn check_constants<'a>(operands: impl IntoIterator<Item = &'a Operand>) -> Result<(), ExpressionError> {
    for operand in operands {
        if let Operand::Value(value) = operand {
            check_value(value.view())?;
        }
    }
    Ok(())
}

/// Checks the rules of an archived condition, whose depth is still only that of its pointers.
pub(super) fn check_condition(condition: &ArchivedCondition) -> Result<(), ExpressionError> {
    let mut nodes_left = EXPRESSION_NODES_MAX;
    check_node(condition, EXPRESSION_DEPTH_MAX, &mut nodes_left)
}

fn check_node(
    condition: &ArchivedCondition,
    depth_left: usize,
    nodes_left: &mut usize,
) -> Result<(), ExpressionError> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err(ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX });
    };
    let mut check = |operand: &ArchivedOperand, usage| check_operand(operand, usage, nodes_left);
    match condition {
        ArchivedCondition::Compare { comparator, left, right } => {
            let usage = Comparator::from(*comparator).usage();
            check(left, usage)?;
            check(right, usage)?;
            take_nodes(1, nodes_left)
        }
        ArchivedCondition::Between { operand, low, high } => {
            for operand in [operand, low, high] {
                check(operand, Use::Ordering("BETWEEN"))?;
            }
            if let (ArchivedOperand::Value(low), ArchivedOperand::Value(high)) = (low, high) {
                check_between(low.view(), high.view())?;
            }
            take_nodes(1, nodes_left)
        }
        ArchivedCondition::In { operand, candidates } => {
            check_count("IN", candidates.len(), 1, IN_OPERANDS_MAX)?;
            check(operand, Use::Any)?;
            candidates.iter().try_for_each(|candidate| check(candidate, Use::Any))?;
            take_nodes(1, nodes_left)
        }
        ArchivedCondition::AttributeExists(path) | ArchivedCondition::AttributeNotExists(path) => {
            check_archived_path(path)?;
            take_nodes(1, nodes_left)
        }
        ArchivedCondition::AttributeType { operand, value_type: _ } => {
            check_whole("attribute_type", operand)?;
            check(operand, Use::Any)?;
            take_nodes(1, nodes_left)
        }
        ArchivedCondition::BeginsWith { operand, prefix } => {
            for operand in [operand, prefix] {
                check_whole("begins_with", operand)?;
                check(operand, Use::Prefix)?;
            }
            take_nodes(1, nodes_left)
        }
        ArchivedCondition::Contains { container, element } => {
            for operand in [container, element] {
                check_whole("contains", operand)?;
                check(operand, Use::Any)?;
            }
            take_nodes(1, nodes_left)
        }
        ArchivedCondition::And(conditions) => check_all("AND", conditions, depth_left, nodes_left),
        ArchivedCondition::Or(conditions) => check_all("OR", conditions, depth_left, nodes_left),
        ArchivedCondition::Not(condition) => {
            take_nodes(1, nodes_left)?;
            check_node(condition, depth_left, nodes_left)
        }
    }
}

fn check_all(
    operator: &'static str,
    conditions: &[ArchivedCondition],
    depth_left: usize,
    nodes_left: &mut usize,
) -> Result<(), ExpressionError> {
    check_count(operator, conditions.len(), 2, EXPRESSION_NODES_MAX + 1)?;
    take_nodes(conditions.len() - 1, nodes_left)?;
    conditions.iter().try_for_each(|condition| check_node(condition, depth_left, nodes_left))
}

fn check_operand(
    operand: &ArchivedOperand,
    usage: Use,
    nodes_left: &mut usize,
) -> Result<(), ExpressionError> {
    match operand {
        ArchivedOperand::Path(path) => check_archived_path(path),
        ArchivedOperand::Value(value) => {
            check_value(value.view())?;
            check_use(usage, value.view())
        }
        ArchivedOperand::Size(path) => {
            take_nodes(1, nodes_left)?;
            check_archived_path(path)
        }
    }
}

/// Refuses `size()` where a function looks at a value itself.
fn check_whole(operator: &'static str, operand: &ArchivedOperand) -> Result<(), ExpressionError> {
    match operand {
        ArchivedOperand::Path(_) | ArchivedOperand::Value(_) => Ok(()),
        ArchivedOperand::Size(_) => Err(ExpressionError::OperandSize { operator }),
    }
}

pub(super) fn check_archived_path(path: &ArchivedPath) -> Result<(), ExpressionError> {
    check_path(|| path.views())
}

/// Takes operators and functions from what an expression may have.
pub(super) fn take_nodes(nodes: usize, nodes_left: &mut usize) -> Result<(), ExpressionError> {
    match nodes_left.checked_sub(nodes) {
        Some(left) => {
            *nodes_left = left;
            Ok(())
        }
        None => Err(ExpressionError::TooManyNodes { nodes_max: EXPRESSION_NODES_MAX }),
    }
}
