//! Items as bytes: every item comes back, and damaged bytes are errors.

#[allow(dead_code, reason = "the fuzz targets use the rest")]
#[path = "decoders/item.rs"]
mod decoder;

use evenkeel_wire::item::{Attribute, Item, Number, Value, access_validated, encode, item_size};
use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

fn number() -> impl Strategy<Value = Number> {
    prop_oneof![
        any::<i64>().prop_map(Number::from),
        ("-?", 1..u64::MAX, -130..100_i32).prop_map(|(sign, digits, exponent)| format!(
            "{sign}{digits}e{exponent}"
        )
        .parse()
        .expect("in range")),
    ]
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        "\\PC{0,20}".prop_map(Value::S),
        number().prop_map(Value::N),
        vec(any::<u8>(), 0..20).prop_map(Value::B),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::Null),
        btree_set("\\PC{0,12}", 1..4).prop_map(|set| Value::string_set(set).expect("a set")),
        btree_set(number(), 1..4).prop_map(|set| Value::number_set(set).expect("a set")),
        btree_set(vec(any::<u8>(), 0..12), 1..4).prop_map(|set| Value::binary_set(set).expect("a set")),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..5).prop_map(Value::L),
            btree_map("\\PC{1,12}", inner, 0..5).prop_map(|map| Value::M(attributes(map))),
        ]
    })
}

fn attributes(map: impl IntoIterator<Item = (String, Value)>) -> Vec<Attribute> {
    map.into_iter().map(|(name, value)| Attribute::new(name, value)).collect()
}

fn item() -> impl Strategy<Value = Item> {
    btree_map("\\PC{1,12}", value(), 0..6)
        .prop_map(|map| Item::from_attributes(attributes(map)).expect("distinct names"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_item_comes_back(item in item()) {
        let bytes = encode(&item).expect("an item");
        let archived = access_validated(&bytes).expect("every byte belongs to something");
        prop_assert!(*archived == item);
        prop_assert_eq!(archived.to_item(), Ok(item.clone()));
        prop_assert_eq!(item_size(archived), item_size(&item));
        for attribute in item.attributes() {
            prop_assert!(archived.get(&attribute.name).is_some_and(|value| *value == attribute.value));
        }
        prop_assert!(archived.get("a name that no item has").is_none());
    }

    #[test]
    fn equal_items_have_equal_bytes_however_they_were_built(item in item()) {
        let mut shuffled = item.clone().into_attributes();
        shuffled.reverse();
        let add = |item: Item, attribute: Attribute| item.with(attribute.name, attribute.value);
        let rebuilt = shuffled.into_iter().fold(Item::new(), add);
        prop_assert_eq!(encode(&rebuilt), encode(&item));
    }

    #[test]
    fn equality_is_the_same_for_views_and_for_values(left in value(), right in value()) {
        prop_assert_eq!(left.view() == right.view(), left == right);
        prop_assert!(left.view() == left.clone().view());
    }

    #[test]
    fn damaged_bytes_are_errors_or_safe_to_walk(item in item(), place: prop::sample::Index, byte: u8) {
        let mut bytes = encode(&item).expect("an item");
        let place = place.index(bytes.len());
        bytes[place] = byte;
        decoder::item(&bytes);
        decoder::item(&bytes[..place]);
    }

    #[test]
    fn any_bytes_are_errors_or_safe_to_walk(
        bytes in vec(prop_oneof![0..12_u8, 0xF0..=0xFF_u8, any::<u8>()], 0..64),
    ) {
        decoder::item(&bytes);
    }
}
