//! What one action makes of its place, seen from the item as it was.

use super::{UpdateError, check_bytes};
use crate::evaluate::place::{has_room, value_at};
use evenkeel_wire::expression::{
    ArchivedAction, ArchivedPath, ArchivedSetOperand, ArchivedSetValue, StepView,
};
use evenkeel_wire::item::view::{MapView, ValueView};
use evenkeel_wire::item::{ArchivedValue, ItemError, Number, NumberError, Value, value_size};

/// What an action does to its place.
pub(super) enum Outcome {
    /// The place will hold this.
    Put(Value),
    /// The place will hold nothing.
    Remove,
    /// The place stays as it is.
    Leave,
}

/// The item as it is, and the path that one action changes.
#[derive(Clone, Copy)]
pub(super) struct Before<'a> {
    item: MapView<'a>,
    is_there: bool,
    path: &'a ArchivedPath,
}

impl<'a> Before<'a> {
    /// An item, or none, and the path that an action changes.
    pub(super) fn new(item: Option<MapView<'a>>, path: &'a ArchivedPath) -> Self {
        Self { item: item.unwrap_or(MapView::Archived(&[])), is_there: item.is_some(), path }
    }

    /// What the action does.
    pub(super) fn outcome(self, action: &ArchivedAction) -> Result<Outcome, UpdateError> {
        let existing = value_at(self.item, self.path.views());
        match action {
            ArchivedAction::Set { path: _, value } => {
                self.check_room()?;
                Ok(Outcome::Put(self.set_value(value)?))
            }
            ArchivedAction::Remove { path: _ } => match existing {
                Some(_) => Ok(Outcome::Remove),
                None => self.nothing_to_remove(),
            },
            ArchivedAction::Add { path: _, value } => {
                self.check_room()?;
                Ok(Outcome::Put(self.sum_or_union(existing, value)?))
            }
            ArchivedAction::Delete { path: _, value } => match existing {
                Some(existing) => Ok(self.difference(existing, value)?.map_or(Outcome::Remove, Outcome::Put)),
                None => self.nothing_to_remove(),
            },
        }
    }

    fn check_room(self) -> Result<(), UpdateError> {
        let path: Vec<StepView<'_>> = self.path.views().collect();
        if has_room(self.item, &path) {
            Ok(())
        } else {
            Err(UpdateError::NoRoom { path: self.path.to_string() })
        }
    }

    /// Removing what is not there changes nothing, if it could be there. From an item that is itself not
    /// there, anything may be removed: so does the service.
    fn nothing_to_remove(self) -> Result<Outcome, UpdateError> {
        if self.is_there {
            self.check_room()?;
        }
        Ok(Outcome::Leave)
    }

    fn set_value(self, value: &ArchivedSetValue) -> Result<Value, UpdateError> {
        match value {
            ArchivedSetValue::Operand(operand) => self.operand(operand),
            ArchivedSetValue::Sum(left, right) => {
                let (left, right) = (self.number("+", left)?, self.number("+", right)?);
                self.arithmetic(left.checked_add(&right))
            }
            ArchivedSetValue::Difference(left, right) => {
                let (left, right) = (self.number("-", left)?, self.number("-", right)?);
                self.arithmetic(left.checked_sub(&right))
            }
        }
    }

    fn operand(self, operand: &ArchivedSetOperand) -> Result<Value, UpdateError> {
        match operand {
            ArchivedSetOperand::Path(path) => match value_at(self.item, path.views()) {
                Some(value) => self.owned(value),
                None => Err(UpdateError::NothingThere { path: path.to_string() }),
            },
            ArchivedSetOperand::Value(value) => self.owned(value.view()),
            ArchivedSetOperand::IfNotExists { path, otherwise } => match value_at(self.item, path.views()) {
                Some(value) => self.owned(value),
                None => self.operand(otherwise),
            },
            ArchivedSetOperand::ListAppend { first, second } => {
                let mut elements = self.list(first)?;
                elements.extend(self.list(second)?);
                let list = Value::L(elements);
                check_bytes(value_size(&list))?;
                Ok(list)
            }
        }
    }

    fn number(self, operator: &'static str, operand: &ArchivedSetOperand) -> Result<Number, UpdateError> {
        match self.operand(operand)? {
            Value::N(number) => Ok(number),
            other => Err(self.wrong_type(operator, other.view())),
        }
    }

    fn list(self, operand: &ArchivedSetOperand) -> Result<Vec<Value>, UpdateError> {
        match self.operand(operand)? {
            Value::L(elements) => Ok(elements),
            other => Err(self.wrong_type("list_append", other.view())),
        }
    }

    /// ADD: what is not there counts as zero, or as the empty set.
    fn sum_or_union(
        self,
        existing: Option<ValueView<'_>>,
        added: &ArchivedValue,
    ) -> Result<Value, UpdateError> {
        let added = self.owned(added.view())?;
        if !matches!(added, Value::N(_) | Value::Ss(_) | Value::Ns(_) | Value::Bs(_)) {
            return Err(self.wrong_type("ADD", added.view()));
        }
        let Some(existing) = existing else {
            return Ok(added);
        };
        match (self.owned(existing)?, added) {
            (Value::N(existing), Value::N(added)) => self.arithmetic(existing.checked_add(&added)),
            (Value::Ss(existing), Value::Ss(added)) => Ok(Value::Ss(union(existing, added))),
            (Value::Ns(existing), Value::Ns(added)) => Ok(Value::Ns(union(existing, added))),
            (Value::Bs(existing), Value::Bs(added)) => Ok(Value::Bs(union(existing, added))),
            (existing, _) => Err(self.wrong_type("ADD", existing.view())),
        }
    }

    /// DELETE: what remains of a set, or nothing if no element does.
    fn difference(
        self,
        existing: ValueView<'_>,
        deleted: &ArchivedValue,
    ) -> Result<Option<Value>, UpdateError> {
        match (self.owned(existing)?, self.owned(deleted.view())?) {
            (Value::Ss(existing), Value::Ss(deleted)) => Ok(without(existing, &deleted).map(Value::Ss)),
            (Value::Ns(existing), Value::Ns(deleted)) => Ok(without(existing, &deleted).map(Value::Ns)),
            (Value::Bs(existing), Value::Bs(deleted)) => Ok(without(existing, &deleted).map(Value::Bs)),
            (existing, _) => Err(self.wrong_type("DELETE", existing.view())),
        }
    }

    fn arithmetic(self, result: Result<Number, NumberError>) -> Result<Value, UpdateError> {
        result.map(Value::N).map_err(|error| UpdateError::Arithmetic { path: self.path.to_string(), error })
    }

    fn owned(self, value: ValueView<'_>) -> Result<Value, UpdateError> {
        value
            .to_value()
            .map_err(|_: NumberError| ItemError::NumberNotCanonical { at: self.path.to_string() }.into())
    }

    fn wrong_type(self, operator: &'static str, value: ValueView<'_>) -> UpdateError {
        UpdateError::OperandType { path: self.path.to_string(), operator, found: value.value_type() }
    }
}

/// The elements of both sets, in order.
fn union<T: Ord>(mut left: Vec<T>, right: Vec<T>) -> Vec<T> {
    left.extend(right);
    left.sort_unstable();
    left.dedup();
    left
}

/// The elements of a set that are not in the other, if there are any.
fn without<T: Ord>(mut set: Vec<T>, deleted: &[T]) -> Option<Vec<T>> {
    set.retain(|element| deleted.binary_search(element).is_err());
    (!set.is_empty()).then_some(set)
}
