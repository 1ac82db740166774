//! Updates as trees.

use super::condition::{check_archived_path, take_nodes};
use super::error::ExpressionError;
use super::path::{ArchivedPath, Path, Relation, StepView, relation};
use super::rule::{Use, check_use};
use crate::item::{ArchivedValue, Value, check_value};
use crate::key::KeySchema;
use crate::limits::{EXPRESSION_DEPTH_MAX, EXPRESSION_NODES_MAX};
use rkyv::{Archive, Serialize};
use std::fmt::Display;

/// How an item is changed: all actions see the item as it was before.
#[derive(Clone, Debug, Default, PartialEq, Eq, Archive, Serialize)]
#[rkyv(derive(Debug))]
pub struct Update {
    /// What is done. The order does not matter, because no two actions touch one place.
    pub actions: Vec<Action>,
}

/// One change to one place.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)),
    derive(Debug)
)]
pub enum Action {
    /// Puts a value at a path. An index after a list's end appends.
    Set {
        /// The path.
        path: Path,
        /// The value.
        value: SetValue,
    },
    /// Removes what is at a path.
    Remove {
        /// The path.
        path: Path,
    },
    /// Adds a number to a number, or elements to a set; creates either.
    Add {
        /// The path.
        path: Path,
        /// A number or a set.
        value: Value,
    },
    /// Removes elements from a set, and the set with its last element.
    Delete {
        /// The path.
        path: Path,
        /// A set.
        value: Value,
    },
}

/// What SET puts.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(derive(Debug))]
pub enum SetValue {
    /// An operand.
    Operand(SetOperand),
    /// The sum of two numbers.
    Sum(SetOperand, SetOperand),
    /// The difference of two numbers.
    Difference(SetOperand, SetOperand),
}

/// What SET looks at.
#[derive(Clone, Debug, PartialEq, Eq, Archive, Serialize)]
#[rkyv(
    serialize_bounds(__S: rkyv::ser::Writer + rkyv::ser::Allocator, __S::Error: rkyv::rancor::Source),
    bytecheck(bounds(__C: rkyv::validation::ArchiveContext, __C::Error: rkyv::rancor::Source)),
    derive(Debug)
)]
pub enum SetOperand {
    /// What is at a path.
    Path(Path),
    /// A constant.
    Value(Value),
    /// What is at a path, or something else if nothing is there.
    IfNotExists {
        /// The path.
        path: Path,
        /// The something else.
        #[rkyv(omit_bounds)]
        otherwise: Box<SetOperand>,
    },
    /// Two lists, one after the other.
    ListAppend {
        /// The first list.
        #[rkyv(omit_bounds)]
        first: Box<SetOperand>,
        /// The list that follows.
        #[rkyv(omit_bounds)]
        second: Box<SetOperand>,
    },
}

impl Action {
    /// The place that is changed.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Set { path, .. }
            | Self::Remove { path }
            | Self::Add { path, .. }
            | Self::Delete { path, .. } => path,
        }
    }

    fn check_depth(&self) -> Result<(), ExpressionError> {
        match self {
            Self::Set { path: _, value } => value.operands().try_for_each(|operand| operand.check_depth(0)),
            Self::Remove { path: _ } => Ok(()),
            Self::Add { path: _, value } | Self::Delete { path: _, value } => Ok(check_value(value.view())?),
        }
    }
}

impl ArchivedAction {
    /// The place that is changed.
    #[must_use]
    pub fn path(&self) -> &ArchivedPath {
        match self {
            Self::Set { path, .. }
            | Self::Remove { path }
            | Self::Add { path, .. }
            | Self::Delete { path, .. } => path,
        }
    }
}

impl SetValue {
    fn operands(&self) -> impl Iterator<Item = &SetOperand> {
        match self {
            Self::Operand(operand) => [Some(operand), None],
            Self::Sum(left, right) | Self::Difference(left, right) => [Some(left), Some(right)],
        }
        .into_iter()
        .flatten()
    }
}

impl SetOperand {
    fn check_depth(&self, depth: usize) -> Result<(), ExpressionError> {
        if depth >= EXPRESSION_DEPTH_MAX {
            return Err(ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX });
        }
        match self {
            Self::Path(_) => Ok(()),
            Self::Value(value) => Ok(check_value(value.view())?),
            Self::IfNotExists { path: _, otherwise } => otherwise.check_depth(depth + 1),
            Self::ListAppend { first, second } => {
                first.check_depth(depth + 1)?;
                second.check_depth(depth + 1)
            }
        }
    }
}

impl Update {
    /// Checks the depth of the tree and of its constants, so that it is safe to walk.
    pub(super) fn check_depth(&self) -> Result<(), ExpressionError> {
        self.actions.iter().try_for_each(Action::check_depth)
    }

    /// Checks that no two actions touch one place.
    pub(super) fn check_places(&self) -> Result<(), ExpressionError> {
        check_places(&self.actions, |action| action.path().views(), Action::path)
    }

    /// Checks that no action touches an attribute of the key.
    ///
    /// # Errors
    /// [`ExpressionError::KeyUpdated`].
    pub fn check_keys(&self, schema: &KeySchema) -> Result<(), ExpressionError> {
        check_keys(schema, self.actions.iter().map(|action| action.path().root.as_str()))
    }
}

impl ArchivedUpdate {
    /// Checks that no action touches an attribute of the key.
    ///
    /// # Errors
    /// [`ExpressionError::KeyUpdated`].
    pub fn check_keys(&self, schema: &KeySchema) -> Result<(), ExpressionError> {
        check_keys(schema, self.actions.iter().map(|action| action.path().root.as_str()))
    }
}

fn check_keys<'a>(
    schema: &KeySchema,
    mut roots: impl Iterator<Item = &'a str>,
) -> Result<(), ExpressionError> {
    match roots.find(|root| schema.is_key(root)) {
        Some(name) => Err(ExpressionError::KeyUpdated { name: name.to_owned() }),
        None => Ok(()),
    }
}

fn check_places<'a, A, I, P>(
    actions: &'a [A],
    views: impl Fn(&'a A) -> I,
    path: impl Fn(&'a A) -> &'a P,
) -> Result<(), ExpressionError>
where
    I: Iterator<Item = StepView<'a>>,
    P: Display + 'a,
{
    for (index, second) in actions.iter().enumerate() {
        for first in &actions[..index] {
            let texts = || (path(first).to_string(), path(second).to_string());
            match relation(views(first), views(second)) {
                Relation::Apart => {}
                Relation::Overlap => {
                    let (first, second) = texts();
                    return Err(ExpressionError::PathsOverlap { first, second });
                }
                Relation::Conflict => {
                    let (first, second) = texts();
                    return Err(ExpressionError::PathsConflict { first, second });
                }
            }
        }
    }
    Ok(())
}

/// Checks the rules of an archived update, whose depth is still only that of its pointers.
pub(super) fn check_update(update: &ArchivedUpdate) -> Result<(), ExpressionError> {
    let mut nodes_left = EXPRESSION_NODES_MAX;
    if update.actions.is_empty() {
        return Err(ExpressionError::NoAction);
    }
    for action in update.actions.iter() {
        take_nodes(1, &mut nodes_left)?;
        check_archived_path(action.path())?;
        match action {
            ArchivedAction::Set { path: _, value } => check_set_value(value, &mut nodes_left)?,
            ArchivedAction::Remove { path: _ } => {}
            ArchivedAction::Add { path: _, value } => check_constant(Use::Add, value)?,
            ArchivedAction::Delete { path: _, value } => check_constant(Use::Delete, value)?,
        }
    }
    check_places(&update.actions, |action| action.path().views(), ArchivedAction::path)
}

fn check_set_value(value: &ArchivedSetValue, nodes_left: &mut usize) -> Result<(), ExpressionError> {
    let (left, right, usage) = match value {
        ArchivedSetValue::Operand(operand) => {
            return check_set_operand(operand, Use::Any, EXPRESSION_DEPTH_MAX, nodes_left);
        }
        ArchivedSetValue::Sum(left, right) => (left, right, Use::Arithmetic("+")),
        ArchivedSetValue::Difference(left, right) => (left, right, Use::Arithmetic("-")),
    };
    take_nodes(1, nodes_left)?;
    check_set_operand(left, usage, EXPRESSION_DEPTH_MAX, nodes_left)?;
    check_set_operand(right, usage, EXPRESSION_DEPTH_MAX, nodes_left)
}

fn check_set_operand(
    operand: &ArchivedSetOperand,
    usage: Use,
    depth_left: usize,
    nodes_left: &mut usize,
) -> Result<(), ExpressionError> {
    let Some(depth_left) = depth_left.checked_sub(1) else {
        return Err(ExpressionError::TooDeep { depth_max: EXPRESSION_DEPTH_MAX });
    };
    match operand {
        ArchivedSetOperand::Path(path) => check_archived_path(path),
        ArchivedSetOperand::Value(value) => check_constant(usage, value),
        ArchivedSetOperand::IfNotExists { path, otherwise } => {
            take_nodes(1, nodes_left)?;
            check_archived_path(path)?;
            check_set_operand(otherwise, usage, depth_left, nodes_left)
        }
        ArchivedSetOperand::ListAppend { first, second } => {
            take_nodes(1, nodes_left)?;
            check_set_operand(first, Use::ListAppend, depth_left, nodes_left)?;
            check_set_operand(second, Use::ListAppend, depth_left, nodes_left)
        }
    }
}

fn check_constant(usage: Use, value: &ArchivedValue) -> Result<(), ExpressionError> {
    check_value(value.view())?;
    check_use(usage, value.view())
}
