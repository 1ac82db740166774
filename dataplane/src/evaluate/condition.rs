//! Conditions.
//!
//! An item that is not there has no attributes. What is not there equals nothing, not even another thing that
//! is not there, so `<>` is true of it; it has no order, begins with nothing and contains nothing. The same
//! holds for values of different types. `size()` of what has none is like something that is not there.

use super::place::value_at;
use evenkeel_wire::expression::{ArchivedCondition, ArchivedOperand, ArchivedPath, Comparator};
use evenkeel_wire::item::view::{MapView, ValueView};
use evenkeel_wire::item::{ArchivedItem, Number, ValueType};
use memchr::memmem;
use std::cmp::Ordering;

/// Whether a condition is true of an item, or of no item.
#[must_use]
pub fn evaluate(condition: &ArchivedCondition, item: Option<&ArchivedItem>) -> bool {
    holds(condition, item.map_or(MapView::Archived(&[]), ArchivedItem::view))
}

fn holds(condition: &ArchivedCondition, item: MapView<'_>) -> bool {
    match condition {
        ArchivedCondition::Compare { comparator, left, right } => {
            compare((*comparator).into(), &resolve(left, item), &resolve(right, item))
        }
        ArchivedCondition::Between { operand, low, high } => {
            let operand = resolve(operand, item);
            compare(Comparator::GreaterOrEqual, &operand, &resolve(low, item))
                && compare(Comparator::LessOrEqual, &operand, &resolve(high, item))
        }
        ArchivedCondition::In { operand, candidates } => {
            let operand = resolve(operand, item);
            candidates.iter().any(|candidate| compare(Comparator::Equal, &operand, &resolve(candidate, item)))
        }
        ArchivedCondition::AttributeExists(path) => value_at(item, path.views()).is_some(),
        ArchivedCondition::AttributeNotExists(path) => value_at(item, path.views()).is_none(),
        ArchivedCondition::AttributeType { operand, value_type } => resolve(operand, item)
            .view()
            .is_some_and(|value| value.value_type() == ValueType::from(value_type)),
        ArchivedCondition::BeginsWith { operand, prefix } => {
            both(&resolve(operand, item), &resolve(prefix, item), begins_with)
        }
        ArchivedCondition::Contains { container, element } => {
            both(&resolve(container, item), &resolve(element, item), contains)
        }
        ArchivedCondition::And(conditions) => conditions.iter().all(|condition| holds(condition, item)),
        ArchivedCondition::Or(conditions) => conditions.iter().any(|condition| holds(condition, item)),
        ArchivedCondition::Not(condition) => !holds(condition, item),
    }
}

/// What an operand stands for.
enum Resolved<'a> {
    /// Nothing is there, or it has no size.
    Missing,
    /// A value of the item or a constant.
    Value(ValueView<'a>),
    /// A size.
    Size(Number),
}

impl Resolved<'_> {
    fn view(&self) -> Option<ValueView<'_>> {
        match self {
            Self::Missing => None,
            Self::Value(value) => Some(*value),
            Self::Size(size) => Some(ValueView::from(size)),
        }
    }
}

fn resolve<'a>(operand: &'a ArchivedOperand, item: MapView<'a>) -> Resolved<'a> {
    let at = |path: &'a ArchivedPath| value_at(item, path.views());
    match operand {
        ArchivedOperand::Path(path) => at(path).map_or(Resolved::Missing, Resolved::Value),
        ArchivedOperand::Value(value) => Resolved::Value(value.view()),
        ArchivedOperand::Size(path) => at(path)
            .and_then(size)
            .and_then(|size| u64::try_from(size).ok())
            .map_or(Resolved::Missing, |size| Resolved::Size(Number::from(size))),
    }
}

/// What `size()` is of a value. Texts count UTF-16 code units: the guide says "length", and the service
/// counts so.
fn size(value: ValueView<'_>) -> Option<usize> {
    match value {
        ValueView::S(text) => Some(text.encode_utf16().count()),
        ValueView::B(bytes) => Some(bytes.len()),
        ValueView::Set(set) => Some(set.len()),
        ValueView::L(list) => Some(list.len()),
        ValueView::M(map) => Some(map.len()),
        ValueView::N(_) | ValueView::Bool(_) | ValueView::Null => None,
    }
}

fn both(
    left: &Resolved<'_>,
    right: &Resolved<'_>,
    relation: fn(ValueView<'_>, ValueView<'_>) -> bool,
) -> bool {
    match (left.view(), right.view()) {
        (Some(left), Some(right)) => relation(left, right),
        (Some(_) | None, Some(_) | None) => false,
    }
}

fn compare(comparator: Comparator, left: &Resolved<'_>, right: &Resolved<'_>) -> bool {
    let equal = || both(left, right, |left, right| left == right);
    let order = || left.view().and_then(|left| right.view().and_then(|right| left.compare(right)));
    match comparator {
        Comparator::Equal => equal(),
        Comparator::NotEqual => !equal(),
        Comparator::Less => order().is_some_and(Ordering::is_lt),
        Comparator::LessOrEqual => order().is_some_and(Ordering::is_le),
        Comparator::Greater => order().is_some_and(Ordering::is_gt),
        Comparator::GreaterOrEqual => order().is_some_and(Ordering::is_ge),
    }
}

fn begins_with(whole: ValueView<'_>, prefix: ValueView<'_>) -> bool {
    match (whole, prefix) {
        (ValueView::S(whole), ValueView::S(prefix)) => whole.starts_with(prefix),
        (ValueView::B(whole), ValueView::B(prefix)) => whole.starts_with(prefix),
        _ => false,
    }
}

fn contains(container: ValueView<'_>, element: ValueView<'_>) -> bool {
    match (container, element) {
        (ValueView::S(whole), ValueView::S(part)) => whole.contains(part),
        // A search that is linear in the worst case, since both sides are a stranger's.
        (ValueView::B(whole), ValueView::B(part)) => memmem::find(whole, part).is_some(),
        (ValueView::Set(set), element) => set.contains(element),
        (ValueView::L(list), element) => list.iter().any(|value| value == element),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::expression::{Bindings, Condition, access_condition, encode_condition};
    use evenkeel_wire::item::{Item, Value, access, encode};

    fn item() -> Item {
        Item::new()
            .with("one", 1)
            .with("two", 2)
            .with("text", "hello")
            .with("music", "\u{e9}\u{1d11e}")
            .with("bytes", vec![1_u8, 2, 3])
            .with("yes", true)
            .with("nothing", Value::Null)
            .with("texts", Value::string_set(["a", "b"]).expect("a set"))
            .with("numbers", Value::number_set([1, 2, 3]).expect("a set"))
            .with("list", vec![Value::from(1), Value::from("x"), Value::number_set([1]).expect("a set")])
            .with("map", Item::new().with("inner", vec![Value::from(5), Value::from(7)]))
    }

    fn bindings() -> Bindings {
        Bindings::new()
            .with_value(":zero", 0)
            .with_value(":one", 1)
            .with_value(":three", 3)
            .with_value(":five", 5)
            .with_value(":a", "a")
            .with_value(":el", "el")
            .with_value(":he", "he")
            .with_value(":hello", "hello")
            .with_value(":N", "N")
            .with_value(":NS", "NS")
            .with_value(":NULL", "NULL")
            .with_value(":b1", vec![1_u8])
            .with_value(":b23", vec![2_u8, 3])
            .with_value(":b13", vec![1_u8, 3])
            .with_value(":yes", true)
            .with_value(":list", vec![Value::from(5), Value::from(7)])
            .with_value(":set1", Value::number_set([1]).expect("a set"))
            .with_value(":texts", Value::string_set(["b", "a"]).expect("a set"))
    }

    fn check(item: Option<&Item>, text: &str, expected: bool) {
        let condition = Condition::parse(text, &mut bindings()).unwrap_or_else(|error| panic!("{error}"));
        let condition = encode_condition(&condition).expect("a condition");
        let condition = access_condition(&condition).expect("an archive");
        let bytes = item.map(|item| encode(item).expect("an item"));
        let archived = bytes.as_ref().map(|bytes| access(bytes).expect("an archive"));
        assert_eq!(evaluate(condition, archived), expected, "{text}");
    }

    fn check_true(texts: &[&str]) {
        for text in texts {
            check(Some(&item()), text, true);
            check(Some(&item()), &format!("NOT ({text})"), false);
        }
    }

    fn check_false(texts: &[&str]) {
        for text in texts {
            check(Some(&item()), text, false);
        }
    }

    #[test]
    fn values_of_one_type_compare() {
        check_true(&[
            "one = :one",
            "one <> two",
            "one < two",
            "one <= :one",
            "two > one",
            "two >= :one",
            "text = :hello",
            "text > :he",
            "bytes < :b23",
            "bytes > :b13 OR bytes < :b13",
            "yes = :yes",
            "texts = :texts",
            "map.inner = :list",
            "map.inner[1] > map.inner[0]",
            "one BETWEEN :zero AND two",
            "one BETWEEN :one AND one",
            "two IN (:three, :he, two)",
            "nothing = nothing",
        ]);
        check_false(&[
            "one = two",
            "two < one",
            "one <> :one",
            "text < :hello",
            "one BETWEEN two AND :three",
            "one IN (:zero, two)",
            "texts = numbers",
            "map.inner[0] = map.inner[1]",
        ]);
    }

    #[test]
    fn values_of_two_types_are_unequal_and_have_no_order() {
        check_true(&["one <> text", "text <> bytes", "texts <> numbers", "yes <> nothing", "one <> :hello"]);
        check_false(&[
            "one = :hello",
            "one < :hello",
            "one >= :hello",
            "list < map",
            "yes < yes",
            "yes >= yes",
            "one BETWEEN :he AND :hello",
            "one BETWEEN :zero AND text",
        ]);
    }

    #[test]
    fn what_is_not_there_is_unequal_even_to_itself_and_has_no_order() {
        check_true(&["no <> one", "no <> no", "one <> map.no", "list[9] <> :one", "text.inner <> :one"]);
        check_false(&[
            "no = no",
            "no < one",
            "one >= no",
            "no IN (no)",
            "no BETWEEN no AND no",
            "begins_with(no, :a)",
            "contains(no, :a)",
            "contains(list, no)",
            "attribute_type(no, :N)",
        ]);
    }

    #[test]
    fn no_item_has_no_attributes() {
        check(None, "attribute_not_exists(one)", true);
        check(None, "attribute_exists(one)", false);
        check(None, "one = :one", false);
        check(None, "one <> :one", true);
        check(None, "NOT one = :one", true);
        check(None, ":one < :three", true);
        check(Some(&Item::new()), "attribute_not_exists(one)", true);
    }

    #[test]
    fn paths_lead_through_maps_and_lists() {
        check_true(&[
            "attribute_exists(map.inner[1])",
            "attribute_not_exists(map.inner[2])",
            "attribute_not_exists(map[0])",
            "attribute_not_exists(list.inner)",
            "attribute_not_exists(one.x)",
            "attribute_exists(nothing)",
            "map.inner[0] = :five",
        ]);
    }

    #[test]
    fn types_are_told_apart() {
        check_true(&[
            "attribute_type(one, :N)",
            "attribute_type(numbers, :NS)",
            "attribute_type(nothing, :NULL)",
        ]);
        check_true(&["attribute_type(:one, :N)"]);
        check_false(&["attribute_type(text, :N)", "attribute_type(texts, :NS)"]);
    }

    #[test]
    fn begins_with_is_of_texts_and_of_bytes() {
        check_true(&[
            "begins_with(text, :he)",
            "begins_with(text, text)",
            "begins_with(bytes, :b1)",
            "begins_with(:hello, text)",
        ]);
        check_false(&[
            "begins_with(text, :el)",
            "begins_with(bytes, :b23)",
            "begins_with(text, :b1)",
            "begins_with(one, :he)",
        ]);
        check_false(&["begins_with(list, text)", "begins_with(text, one)"]);
    }

    #[test]
    fn contains_is_of_texts_bytes_sets_and_lists() {
        check_true(&[
            "contains(text, :el)",
            "contains(bytes, :b23)",
            "contains(texts, :a)",
            "contains(numbers, :three)",
            "contains(list, :one)",
            "contains(list, :set1)",
            "contains(map.inner, :five)",
            "contains(numbers, one)",
        ]);
        check_false(&[
            "contains(text, :a)",
            "contains(bytes, :b13)",
            "contains(texts, :he)",
            "contains(texts, :one)",
            "contains(list, :five)",
            "contains(map, :five)",
            "contains(one, :one)",
            "contains(numbers, :set1)",
        ]);
    }

    #[test]
    fn size_counts_code_units_bytes_and_elements() {
        check_true(&[
            "size(text) = :five",
            "size(music) = :three",
            "size(bytes) = :three",
            "size(numbers) = :three",
            "size(list) = :three",
            "size(map) = one",
            "size(texts) < :three",
            "size(text) IN (:zero, :five)",
            "size(text) BETWEEN :three AND :five",
            "size(text) > size(bytes)",
        ]);
        check_false(&[
            "size(one) = :one",
            "size(yes) = :one",
            "size(nothing) = :one",
            "size(no) = :zero",
            "size(text) = :hello",
        ]);
        check_true(&["size(one) <> :one", "size(no) <> :zero"]);
    }

    #[test]
    fn conditions_combine() {
        check_true(&[
            "one = :one AND two = two",
            "one = two OR two = two",
            "NOT one = two",
            "one = :one OR one = two AND no = no",
            "NOT (one = two OR no = no)",
        ]);
        check_false(&["one = :one AND one = two", "NOT one = :one AND two = two", "one = two OR no = no"]);
    }
}
