//! Changes to an item that a program owns. They are told no by `None`, which a plan that was worked out
//! excludes.

use evenkeel_wire::expression::{Path, Step};
use evenkeel_wire::item::{Attribute, Item, Value};

/// Puts a value at a path that has room for it.
pub(super) fn put(item: &mut Item, path: &Path, value: Value) -> Option<()> {
    let Some((last, holder)) = path.steps.split_last() else {
        item.insert(path.root.as_str(), value);
        return Some(());
    };
    match (holder_mut(item, path, holder)?, last) {
        (Holder::Map(attributes), Step::Field(name)) => match place_of(attributes, name) {
            Ok(place) => attributes[place].value = value,
            Err(place) => attributes.insert(place, Attribute::new(name.as_str(), value)),
        },
        (Holder::List(elements), Step::Index(index)) => match elements.get_mut(*index as usize) {
            Some(element) => *element = value,
            None => elements.push(value),
        },
        (Holder::Map(_), Step::Index(_)) | (Holder::List(_), Step::Field(_)) => return None,
    }
    Some(())
}

/// Removes what is at a path.
pub(super) fn remove(item: &mut Item, path: &Path) -> Option<()> {
    let Some((last, holder)) = path.steps.split_last() else {
        return item.remove(&path.root).map(|_| ());
    };
    match (holder_mut(item, path, holder)?, last) {
        (Holder::Map(attributes), Step::Field(name)) => {
            attributes.remove(place_of(attributes, name).ok()?);
        }
        (Holder::List(elements), Step::Index(index)) => {
            let index = *index as usize;
            if index >= elements.len() {
                return None;
            }
            elements.remove(index);
        }
        (Holder::Map(_), Step::Index(_)) | (Holder::List(_), Step::Field(_)) => return None,
    }
    Some(())
}

/// A map or a list that is being changed.
enum Holder<'a> {
    Map(&'a mut Vec<Attribute>),
    List(&'a mut Vec<Value>),
}

/// The map or list that some of a path's steps lead to.
fn holder_mut<'a>(item: &'a mut Item, path: &Path, steps: &[Step]) -> Option<Holder<'a>> {
    let mut value = item.get_mut(&path.root)?;
    for step in steps {
        value = match (Holder::of(value)?, step) {
            (Holder::Map(attributes), Step::Field(name)) => {
                let place = place_of(attributes, name).ok()?;
                &mut attributes[place].value
            }
            (Holder::List(elements), Step::Index(index)) => elements.get_mut(*index as usize)?,
            (Holder::Map(_), Step::Index(_)) | (Holder::List(_), Step::Field(_)) => return None,
        };
    }
    Holder::of(value)
}

impl<'a> Holder<'a> {
    fn of(value: &'a mut Value) -> Option<Self> {
        match value {
            Value::M(attributes) => Some(Self::Map(attributes)),
            Value::L(elements) => Some(Self::List(elements)),
            _ => None,
        }
    }
}

fn place_of(attributes: &[Attribute], name: &str) -> Result<usize, usize> {
    attributes.binary_search_by(|attribute| attribute.name.as_str().cmp(name))
}
