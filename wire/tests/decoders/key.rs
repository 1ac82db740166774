//! Storage keys, and the numbers in them: each value has one encoding.

use evenkeel_wire::item::{Item, Number};
use evenkeel_wire::key::{HASH_BYTES, HashKey, KeySchema, KeyType};

const HASH_KEY: HashKey = HashKey([7; 16]);
const KEY_TYPES: [KeyType; 3] = [KeyType::S, KeyType::N, KeyType::B];

/// Every schema that a table can have, as far as types go.
fn schemas() -> Vec<KeySchema> {
    let partitions = KEY_TYPES.map(|key_type| KeySchema::partition_only("pk", key_type));
    let sorts = [None, Some(KeyType::S), Some(KeyType::N), Some(KeyType::B)];
    let with_sort = |schema: KeySchema, sort: Option<KeyType>| match sort {
        Some(key_type) => schema.with_sort("sk", key_type),
        None => schema,
    };
    partitions.into_iter().flat_map(|schema| sorts.map(|sort| with_sort(schema.clone(), sort))).collect()
}

/// A storage key, read under every schema.
pub(crate) fn key(bytes: &[u8]) -> bool {
    let taken = schemas().into_iter().filter(|schema| key_of(schema, bytes)).count();
    taken > 0
}

fn key_of(schema: &KeySchema, bytes: &[u8]) -> bool {
    let checked = schema.check_storage_key(&HASH_KEY, bytes);
    let Ok(item) = schema.decode(bytes) else {
        assert!(checked.is_err());
        return false;
    };
    // Without the right hash it is still a key's form; empty and overlong values are refused.
    let Ok(written) = schema.storage_key_of_key(&HASH_KEY, &item) else {
        assert!(checked.is_err());
        return false;
    };
    assert_eq!(written.as_bytes()[HASH_BYTES..], bytes[HASH_BYTES..]);
    assert_eq!(checked.is_ok(), written.as_bytes() == bytes);
    assert_eq!(schema.check_storage_key(&HASH_KEY, written.as_bytes()), Ok(()));
    true
}

/// A number as bytes and as text.
pub(crate) fn number(bytes: &[u8]) -> bool {
    let split = Number::split_encoded(bytes);
    if let Ok((number, rest)) = &split {
        assert_eq!([number.encoded(), rest].concat(), bytes);
        assert_eq!(number.to_string().parse().as_ref(), Ok(number));
    }
    let parsed = std::str::from_utf8(bytes).ok().and_then(|text| text.parse::<Number>().ok());
    if let Some(number) = &parsed {
        assert_eq!(Number::from_encoded(number.encoded()).as_ref(), Ok(number));
        assert_eq!(number.to_string().parse().as_ref(), Ok(number));
    }
    split.is_ok() || parsed.is_some()
}

/// A key of every schema.
pub(crate) fn keys() -> Vec<(String, Vec<u8>)> {
    let values = Item::new().with("S", "a\0text").with("N", -12).with("B", vec![0_u8, 0xFF, 1]);
    let key = |schema: KeySchema| {
        let value = |name: &str| values.get(name).expect("a value of every key type").clone();
        let attributes =
            schema.attributes().map(|attribute| (&attribute.name, value(attribute.key_type.name())));
        let item = attributes.fold(Item::new(), |item, (name, value)| item.with(name, value));
        let types: Vec<_> = schema.attributes().map(|attribute| attribute.key_type.name()).collect();
        let key = schema.storage_key_of_key(&HASH_KEY, &item).expect("a key");
        (format!("key.{}", types.join("_")), key.0)
    };
    schemas().into_iter().map(key).collect()
}

/// Some numbers, as text and as bytes.
pub(crate) fn numbers() -> Vec<(String, Vec<u8>)> {
    let texts = ["0", "1", "-123", "12.34", "-1E-130", "9.9999999999999999999999999999999999999e125"];
    let both = |(index, text): (usize, &str)| {
        let number: Number = text.parse().expect("a number");
        [
            (format!("number.text_{index}"), text.into()),
            (format!("number.{index}"), number.encoded().to_vec()),
        ]
    };
    texts.into_iter().enumerate().flat_map(both).collect()
}
