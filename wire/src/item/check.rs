//! The full walk: is this value canonical, and not nested too deeply?
//!
//! It runs on views, so an item is held to the same rules before it is encoded and after it has arrived.
//! Recursion is bounded by the limit on nesting itself: the walk stops at the first value that is too deep.

use super::error::{ItemError, Trail};
use super::view::{EncodedNumber, MapView, SetView, ValueView};
use crate::limits::{ATTRIBUTE_NAME_BYTES_MAX, NESTING_LEVELS_MAX};
use std::cmp::Ordering;

/// Checks an item: names, sets, numbers and nesting. Size is another matter.
pub(crate) fn check_item(item: MapView<'_>) -> Result<(), ItemError> {
    check_attributes(item, 1, &Trail::Root)
}

/// Checks a value that stands alone, as the operand of an expression does; it is at level one, like an
/// attribute's.
pub(crate) fn check_value(value: ValueView<'_>) -> Result<(), ItemError> {
    check_at(value, 1, &Trail::Root)
}

/// Checks a value at a level of nesting: an attribute's own value is level one, and what it holds one more.
fn check_at(value: ValueView<'_>, level: usize, trail: &Trail<'_>) -> Result<(), ItemError> {
    if level > NESTING_LEVELS_MAX {
        return Err(ItemError::TooDeep { at: trail.to_string(), levels_max: NESTING_LEVELS_MAX });
    }
    match value {
        ValueView::S(_) | ValueView::B(_) | ValueView::Bool(_) | ValueView::Null => Ok(()),
        ValueView::N(number) => check_number(number, trail),
        ValueView::Set(set) => check_set(set, trail),
        ValueView::L(list) => {
            for (index, element) in list.iter().enumerate() {
                check_at(element, level + 1, &Trail::Index(trail, index))?;
            }
            Ok(())
        }
        ValueView::M(map) => check_attributes(map, level + 1, trail),
    }
}

fn check_attributes(map: MapView<'_>, level: usize, trail: &Trail<'_>) -> Result<(), ItemError> {
    let mut previous = None;
    for (name, value) in map.iter() {
        if name.is_empty() {
            return Err(ItemError::NameEmpty { at: trail.to_string() });
        }
        if name.len() > ATTRIBUTE_NAME_BYTES_MAX {
            return Err(ItemError::NameTooLong {
                at: trail.to_string(),
                bytes: name.len(),
                bytes_max: ATTRIBUTE_NAME_BYTES_MAX,
            });
        }
        let here = Trail::Name(trail, name);
        if previous.is_some_and(|previous| previous >= name) {
            return Err(ItemError::NameNotAscending { at: here.to_string() });
        }
        check_at(value, level, &here)?;
        previous = Some(name);
    }
    Ok(())
}

fn check_set(set: SetView<'_>, trail: &Trail<'_>) -> Result<(), ItemError> {
    if set.is_empty() {
        return Err(ItemError::SetEmpty { at: trail.to_string() });
    }
    let mut previous: Option<ValueView<'_>> = None;
    for (index, element) in set.iter().enumerate() {
        if let ValueView::N(number) = element {
            check_number(number, trail)?;
        }
        if previous.is_some_and(|previous| previous.compare(element) != Some(Ordering::Less)) {
            return Err(ItemError::SetNotAscending { at: trail.to_string(), index });
        }
        previous = Some(element);
    }
    Ok(())
}

fn check_number(number: EncodedNumber<'_>, trail: &Trail<'_>) -> Result<(), ItemError> {
    match number.to_number() {
        Ok(_) => Ok(()),
        Err(_) => Err(ItemError::NumberNotCanonical { at: trail.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Attribute, Item, Number, Value};

    fn check(value: Value, expected: Result<(), ItemError>) {
        assert_eq!(check_item(Item::new().with("a", value).view()), expected);
    }

    fn nested(levels: usize, leaf: Value) -> Value {
        (1..levels).fold(leaf, |value, level| {
            if level % 2 == 0 { Value::L(vec![value]) } else { Value::M(vec![Attribute::new("m", value)]) }
        })
    }

    #[test]
    fn thirty_two_levels_are_allowed_and_no_more() {
        check(nested(32, Value::string_set(["x"]).expect("a set")), Ok(()));
        let Err(ItemError::TooDeep { at, levels_max: 32 }) =
            check_item(Item::new().with("a", nested(33, Value::Null)).view())
        else {
            panic!("33 levels passed");
        };
        assert_eq!(at, format!("a{}", "[0].m".repeat(16)));
    }

    #[test]
    fn sets_must_ascend_strictly() {
        let texts = |texts: &[&str]| Value::Ss(texts.iter().map(|text| (*text).to_owned()).collect());
        let not_ascending = |index| Err(ItemError::SetNotAscending { at: "a".to_owned(), index });
        check(texts(&["", "a", "a\0"]), Ok(()));
        check(texts(&["a", "a"]), not_ascending(1));
        check(texts(&["a", "c", "b"]), not_ascending(2));
        check(Value::Ns(vec![Number::from(2), Number::from(10), Number::from(-1)]), not_ascending(2));
        check(Value::Bs(vec![vec![1], vec![1]]), not_ascending(1));
        check(Value::Bs(vec![]), Err(ItemError::SetEmpty { at: "a".to_owned() }));
    }

    #[test]
    fn names_must_ascend_strictly_and_be_neither_empty_nor_huge() {
        let map = |names: &[&str]| {
            Value::L(vec![Value::M(names.iter().map(|name| Attribute::new(*name, 1)).collect())])
        };
        check(map(&["a", "b"]), Ok(()));
        check(map(&["b", "b"]), Err(ItemError::NameNotAscending { at: "a[0].b".to_owned() }));
        check(map(&["b", "a"]), Err(ItemError::NameNotAscending { at: "a[0].a".to_owned() }));
        check(map(&[""]), Err(ItemError::NameEmpty { at: "a[0]".to_owned() }));
        check(map(&["n".repeat(65_535).as_str()]), Ok(()));
        let too_long = ItemError::NameTooLong {
            at: "a[0]".to_owned(),
            bytes: 65_536,
            bytes_max: ATTRIBUTE_NAME_BYTES_MAX,
        };
        check(map(&["n".repeat(65_536).as_str()]), Err(too_long));
    }
}
