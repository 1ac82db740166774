//! How large an item is, by the rule that limits and capacity units use (developer guide, item sizes and
//! formats).
//!
//! ```text
//!   attribute   bytes of the name + the value
//!   S, B        its bytes                     N      one byte for two digits, and one more; zero is 1
//!   BOOL, NULL  1                             SS, NS, BS   the sum of the elements
//!   L, M        3, and 1 for each element, and the elements; a map's names count
//! ```
//!
//! The guide gives the rule for numbers as approximate. Here it is exact: pairs of digits from the first
//! significant one, which is also how they are encoded. The rule says nothing of the archive's length; see
//! the limits for that.

use super::view::{MapView, ValueView};

const CONTAINER_BYTES: usize = 3;
const ELEMENT_BYTES: usize = 1;
/// Bytes of a number's encoding that are not digits, less the one that the rule adds.
const NUMBER_ENCODING_OVERHEAD: usize = 2;

/// The size of an item, bytes.
#[must_use]
pub fn item_size<'a>(item: impl Into<MapView<'a>>) -> usize {
    attributes_size(item.into())
}

/// The size of a value without its name, bytes.
#[must_use]
pub fn value_size<'a>(value: impl Into<ValueView<'a>>) -> usize {
    match value.into() {
        ValueView::S(text) => text.len(),
        ValueView::N(number) => number_size(number.encoded()),
        ValueView::B(bytes) => bytes.len(),
        ValueView::Bool(_) | ValueView::Null => 1,
        ValueView::Set(set) => set.iter().map(value_size).sum(),
        ValueView::L(list) => {
            CONTAINER_BYTES + list.iter().map(|value| ELEMENT_BYTES + value_size(value)).sum::<usize>()
        }
        ValueView::M(map) => CONTAINER_BYTES + map.len() * ELEMENT_BYTES + attributes_size(map),
    }
}

fn attributes_size(map: MapView<'_>) -> usize {
    map.iter().map(|(name, value)| name.len() + value_size(value)).sum()
}

fn number_size(encoded: &[u8]) -> usize {
    encoded.len().saturating_sub(NUMBER_ENCODING_OVERHEAD).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::item::{Item, Number, Value, access, encode};

    fn check(value: impl Into<Value>, size: usize) {
        let value = value.into();
        assert_eq!(value_size(&value), size, "{value:?}");
        let item = Item::new().with("name", value);
        assert_eq!(item_size(&item), 4 + size);
        let bytes = encode(&item).expect("an item");
        assert_eq!(item_size(access(&bytes).expect("an archive")), 4 + size, "archived");
    }

    #[test]
    fn every_type_has_the_documented_size() {
        check("", 0);
        check("h\u{e9}", 3);
        check(vec![1_u8, 2, 3], 3);
        check(true, 1);
        check(Value::Null, 1);
        check(Value::string_set(["a", "bcd"]).expect("a set"), 4);
        check(Value::number_set([1, 100, 12345]).expect("a set"), 2 + 2 + 4);
        check(Value::L(vec![]), 3);
        check(vec![Value::Null, Value::from("ab")], 3 + (1 + 1) + (1 + 2));
        check(Item::new(), 3);
        check(Item::new().with("key", "value").with("k", Value::L(vec![])), 3 + (1 + 3 + 5) + (1 + 1 + 3));
    }

    #[test]
    fn a_number_costs_a_byte_for_two_digits_and_one() {
        for (text, size) in
            [("0", 1), ("7", 2), ("-7", 2), ("10", 2), ("123", 3), ("1e100", 2), ("0.001", 2), ("1.2345", 4)]
        {
            check(text.parse::<Number>().expect("a number"), size);
        }
        check("9".repeat(38).parse::<Number>().expect("a number"), 20);
    }
}
