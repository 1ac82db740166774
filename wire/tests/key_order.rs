//! The order of storage keys is the order of values, and every range selects what a filter selects.

use evenkeel_wire::item::{Item, Number, Value};
use evenkeel_wire::key::{HashKey, KeySchema, KeyType, SortCondition, StorageKey, hash_prefix};
use proptest::prelude::*;
use std::cmp::Ordering;

const HASH_KEY: HashKey = HashKey(*b"frozen for tests");

/// Bytes that meet every special case of the encoding, and each other's prefixes.
fn key_bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        proptest::collection::vec(
            prop_oneof![Just(0x00), Just(0x01), Just(0x02), Just(0xFE), Just(0xFF)],
            1..5
        ),
        proptest::collection::vec(any::<u8>(), 1..12),
    ]
}

fn key_value(key_type: KeyType) -> BoxedStrategy<Value> {
    match key_type {
        KeyType::S => {
            prop_oneof!["[\u{0}\u{1}a\u{ff}]{1,4}", "[a-c]{1,3}", "\\PC{1,6}"].prop_map(Value::S).boxed()
        }
        KeyType::B => key_bytes().prop_map(Value::B).boxed(),
        KeyType::N => prop_oneof![
            (-20..20_i64).prop_map(Number::from),
            any::<i64>().prop_map(Number::from),
            ("-?", 1..9999_u32, -130..120_i32).prop_map(|(sign, digits, exponent)| format!(
                "{sign}{digits}e{exponent}"
            )
            .parse()
            .expect("a number")),
        ]
        .prop_map(Value::N)
        .boxed(),
    }
}

fn key_type() -> impl Strategy<Value = KeyType> {
    prop_oneof![Just(KeyType::S), Just(KeyType::N), Just(KeyType::B)]
}

/// The types of a table's key, and some items: few partition keys, many sort keys.
fn table() -> impl Strategy<Value = (KeySchema, Vec<(Value, Value)>)> {
    (key_type(), key_type()).prop_flat_map(|(partition, sort)| {
        let schema = KeySchema::partition_only("pk", partition).with_sort("sk", sort);
        let partitions = proptest::collection::vec(key_value(partition), 1..4);
        let keys = partitions.prop_flat_map(move |partitions| {
            proptest::collection::vec((proptest::sample::select(partitions), key_value(sort)), 1..20)
        });
        (Just(schema), keys)
    })
}

fn storage_key(schema: &KeySchema, partition: &Value, sort: &Value) -> StorageKey {
    let key = Item::new().with("pk", partition.clone()).with("sk", sort.clone());
    schema.storage_key_of_key(&HASH_KEY, &key).expect("a key")
}

fn compare(left: &Value, right: &Value) -> Ordering {
    left.view().compare(right.view()).expect("values of one key type")
}

fn meets(sort: &Value, condition: &SortCondition) -> bool {
    match condition {
        SortCondition::Equal(value) => compare(sort, value).is_eq(),
        SortCondition::Less(value) => compare(sort, value).is_lt(),
        SortCondition::LessOrEqual(value) => compare(sort, value).is_le(),
        SortCondition::Greater(value) => compare(sort, value).is_gt(),
        SortCondition::GreaterOrEqual(value) => compare(sort, value).is_ge(),
        SortCondition::Between(low, high) => compare(sort, low).is_ge() && compare(sort, high).is_le(),
        SortCondition::BeginsWith(start) => match (sort, start) {
            (Value::S(text), Value::S(start)) => text.starts_with(start),
            (Value::B(bytes), Value::B(start)) => bytes.starts_with(start),
            (other, _) => panic!("begins_with on {other:?}"),
        },
    }
}

/// What a text or byte string begins with, `length` bytes or characters of it.
fn start_of(value: &Value, length: usize) -> Option<Value> {
    match value {
        Value::S(text) => Some(Value::S(text.chars().take(length).collect())),
        Value::B(bytes) => Some(Value::B(bytes.iter().copied().take(length).collect())),
        _ => None,
    }
}

fn conditions(low: &Value, high: &Value, length: usize) -> Vec<SortCondition> {
    let mut conditions = vec![
        SortCondition::Equal(low.clone()),
        SortCondition::Less(low.clone()),
        SortCondition::LessOrEqual(low.clone()),
        SortCondition::Greater(low.clone()),
        SortCondition::GreaterOrEqual(low.clone()),
        SortCondition::Between(low.clone(), high.clone()),
    ];
    conditions.extend(start_of(low, length).map(SortCondition::BeginsWith));
    conditions
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn keys_order_by_hash_then_partition_key_then_sort_key((schema, keys) in table()) {
        for (left_partition, left_sort) in &keys {
            for (right_partition, right_sort) in &keys {
                let left = storage_key(&schema, left_partition, left_sort);
                let right = storage_key(&schema, right_partition, right_sort);
                let expected = hash_prefix(left.as_bytes())
                    .cmp(&hash_prefix(right.as_bytes()))
                    .then_with(|| compare(left_partition, right_partition))
                    .then_with(|| compare(left_sort, right_sort));
                prop_assert_eq!(left.cmp(&right), expected);
                if expected.is_ne() {
                    prop_assert!(!left.as_bytes().starts_with(right.as_bytes()));
                }
            }
        }
    }

    #[test]
    fn collections_never_interleave((schema, keys) in table()) {
        let mut stored: Vec<(StorageKey, &Value)> = keys
            .iter()
            .map(|(partition, sort)| (storage_key(&schema, partition, sort), partition))
            .collect();
        stored.sort_by(|left, right| left.0.cmp(&right.0));
        let changes = stored.windows(2).filter(|pair| pair[0].1 != pair[1].1).count();
        let mut partitions: Vec<&Value> = keys.iter().map(|(partition, _)| partition).collect();
        partitions.sort_by(|left, right| compare(left, right));
        partitions.dedup();
        prop_assert_eq!(changes + 1, partitions.len());
    }

    #[test]
    fn ranges_select_what_a_filter_selects(
        (schema, keys) in table(),
        pick: [prop::sample::Index; 2],
        length in 0..4_usize,
    ) {
        let (partition, low) = &keys[pick[0].index(keys.len())];
        let (_, high) = &keys[pick[1].index(keys.len())];
        let whole = schema.query_range(&HASH_KEY, partition, None).expect("a range");
        for condition in conditions(low, high, length) {
            let range = schema.query_range(&HASH_KEY, partition, Some(&condition)).expect("a range");
            for (other_partition, sort) in &keys {
                let key = storage_key(&schema, other_partition, sort);
                let here = partition == other_partition;
                prop_assert_eq!(whole.contains(key.as_bytes()), here);
                prop_assert_eq!(
                    range.contains(key.as_bytes()),
                    here && meets(sort, &condition),
                    "{:?} {:?}", condition, sort
                );
            }
        }
    }

    #[test]
    fn keys_decode_to_what_they_were_made_from((schema, keys) in table()) {
        for (partition, sort) in &keys {
            let key = storage_key(&schema, partition, sort);
            let item = Item::new().with("pk", partition.clone()).with("sk", sort.clone());
            prop_assert_eq!(schema.decode(key.as_bytes()), Ok(item));
            prop_assert_eq!(schema.check_storage_key(&HASH_KEY, key.as_bytes()), Ok(()));
            prop_assert!(key < key.after());
            let between = keys.iter().map(|(partition, sort)| storage_key(&schema, partition, sort));
            prop_assert_eq!(between.filter(|other| *other > key && *other < key.after()).count(), 0);
        }
    }

    #[test]
    fn any_bytes_are_one_key_or_an_error(
        (schema, keys) in table(),
        bytes in proptest::collection::vec(any::<u8>(), 0..24),
        place: prop::sample::Index,
        byte: u8,
    ) {
        let mut mutated = storage_key(&schema, &keys[0].0, &keys[0].1).0;
        let place = place.index(mutated.len());
        mutated[place] = byte;
        for bytes in [bytes, mutated] {
            if schema.check_storage_key(&HASH_KEY, &bytes).is_ok() {
                let key = schema.decode(&bytes).expect("checked");
                prop_assert_eq!(schema.storage_key_of_key(&HASH_KEY, &key), Ok(StorageKey(bytes)));
            }
        }
    }
}
