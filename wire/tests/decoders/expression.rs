//! Expressions, as text and as bytes: what the parser lets pass, the edge lets pass; any text is a tree or an
//! error with a place in the text.

use evenkeel_wire::expression::{
    Bindings, Condition, KeyCondition, ParseError, Update, access_condition, access_update, encode_condition,
    encode_update, validate_condition, validate_update,
};
use evenkeel_wire::item::{Item, Value};
use evenkeel_wire::key::{KeySchema, KeyType};

/// Placeholders of every kind, good and bad.
pub(crate) fn bindings() -> Bindings {
    Bindings::new()
        .with_name("#a", "a name")
        .with_name("#empty", "")
        .with_value(":s", "S")
        .with_value(":n", 5)
        .with_value(":b", vec![1_u8, 0])
        .with_value(":l", vec![Value::from(1), Value::Null])
        .with_value(":m", Item::new().with("x", 1))
        .with_value(":ns", Value::number_set([1, 2]).expect("a set"))
        .with_value(":bad", Value::Ss(vec![]))
}

fn schema() -> KeySchema {
    KeySchema::partition_only("pk", KeyType::S).with_sort("sk", KeyType::N)
}

/// A text in UTF-8.
pub(crate) fn text(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_ok_and(check_text)
}

/// Reads a text as a condition, an update and a key condition.
pub(crate) fn check_text(text: &str) -> bool {
    let condition = Condition::parse(text, &mut bindings());
    match &condition {
        Ok(condition) => {
            let bytes = encode_condition(condition).unwrap_or_else(|error| panic!("{text}: {error}"));
            validate_condition(access_condition(&bytes).expect("an archive")).expect("valid");
        }
        Err(error) => check_error(text, error),
    }
    let update = Update::parse(text, &mut bindings());
    match &update {
        Ok(update) => {
            let bytes = encode_update(update).unwrap_or_else(|error| panic!("{text}: {error}"));
            validate_update(access_update(&bytes).expect("an archive")).expect("valid");
        }
        Err(error) => check_error(text, error),
    }
    let key_condition = KeyCondition::parse(text, &mut bindings(), &schema());
    if let Err(error) = &key_condition {
        check_error(text, error);
    }
    condition.is_ok() || update.is_ok() || key_condition.is_ok()
}

fn check_error(text: &str, error: &ParseError) {
    assert!(error.position() <= text.len());
    assert!(error.to_string().lines().count() >= 3, "{error}");
}

/// The archive of a condition or of an update. What is safe to walk is walked.
pub(crate) fn archive(bytes: &[u8]) -> bool {
    let condition = access_condition(bytes).is_ok_and(|condition| {
        assert!(!format!("{condition:?}").is_empty());
        validate_condition(condition).is_ok()
    });
    let update = access_update(bytes).is_ok_and(|update| {
        assert!(!format!("{update:?}").is_empty());
        let _ = update.check_keys(&schema());
        validate_update(update).is_ok()
    });
    condition || update
}

/// Texts that are read.
pub(crate) fn texts() -> Vec<(String, Vec<u8>)> {
    let texts = [
        "#a.b[7] = :n AND NOT size(a) <> :n OR a < :b",
        "a BETWEEN :n AND b AND c IN (:n, :s)",
        "attribute_exists(a) OR attribute_not_exists(a) AND attribute_type(a, :s)",
        "begins_with(a, :s) AND (contains(a, :n) OR a >= :n)",
        "SET a = b, c = c + :n, d = :n - b REMOVE e[3]",
        "SET a = list_append(if_not_exists(a, :l), :l) ADD b :n DELETE c :ns",
        "pk = :s AND sk BETWEEN :n AND :n",
        "sk > :n AND pk = :s",
    ];
    let name = |index| format!("expression_text.{index}");
    texts.iter().enumerate().map(|(index, text)| (name(index), (*text).into())).collect()
}
