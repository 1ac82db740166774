//! Items: what is safe to walk is walked; what is valid is written in as many bytes, and is the same item.

use evenkeel_wire::item::view::ValueView;
use evenkeel_wire::item::{access, access_validated, encode, item_size, validate};
use evenkeel_wire::key::{HashKey, KeySchema, KeyType};
use evenkeel_wire::limits::ITEM_BYTES_MAX;

/// An item's archive.
pub(crate) fn item(bytes: &[u8]) -> bool {
    let Ok(archived) = access(bytes) else { return false };
    walk(ValueView::M(archived.view()));
    let schema = KeySchema::partition_only("s", KeyType::S).with_sort("n", KeyType::N);
    let _ = schema.storage_key(&HashKey([7; 16]), archived);
    let size = item_size(archived);
    if validate(archived).is_err() {
        return false;
    }
    assert!(size <= ITEM_BYTES_MAX);
    let owned = archived.to_item().expect("a valid item");
    let written = encode(&owned).expect("a valid item");
    let again = access_validated(&written).expect("what was written is valid");
    assert!(*again == owned && *archived == owned);
    assert_eq!(item_size(again), size);
    // Nothing may be hidden in what an item takes.
    let every_byte_used = access_validated(bytes).is_ok();
    assert_eq!(every_byte_used, written.len() == bytes.len());
    every_byte_used
}

/// Reads everything that a value has. What it says does not matter; that it says something does.
pub(crate) fn walk(value: ValueView<'_>) -> usize {
    match value {
        ValueView::S(text) => text.chars().count(),
        ValueView::N(number) => number.to_number().map_or(0, |number| number.to_string().len()),
        ValueView::B(bytes) => bytes.iter().map(|byte| usize::from(*byte)).sum(),
        ValueView::Bool(value) => usize::from(value),
        ValueView::Null => 0,
        ValueView::Set(set) => {
            set.iter().map(walk).sum::<usize>() + usize::from(set.contains(ValueView::S("a")))
        }
        ValueView::L(list) => list.iter().map(walk).sum(),
        ValueView::M(map) => {
            let found = usize::from(map.get("a").is_some());
            map.iter().map(|(name, value)| name.len() + walk(value)).sum::<usize>() + found
        }
    }
}
