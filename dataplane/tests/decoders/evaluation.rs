//! Evaluation of what is safe to walk and may break every rule: it gives an answer or an error. What is
//! fuzzed is the length of an expression (2 bytes), the expression, and an item.

use evenkeel_dataplane::evaluate::{apply, evaluate};
use evenkeel_wire::expression::{
    Bindings, Condition, Update, access_condition, access_update, encode_condition, encode_update,
};
use evenkeel_wire::item::{Item, Value, access, access_validated, encode};

pub(super) fn evaluation(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return false };
    let Some((expression, item)) = rest.split_at_checked(u16::from_le_bytes(*length).into()) else {
        return false;
    };
    let Ok(item) = access(item) else { return false };
    let key = encode(&Item::new().with("pk", "a key")).expect("an item");
    let key = access(&key).expect("an item");
    let condition = access_condition(expression).map(|condition| {
        let answer = evaluate(condition, Some(item));
        assert_eq!(answer, evaluate(condition, Some(item)), "the same bytes give the same answer");
        let _ = evaluate(condition, None);
    });
    let update = access_update(expression).map(|update| {
        for current in [Some(item), None] {
            if let Ok(after) = apply(update, current, key) {
                assert!(access_validated(&after).is_ok(), "an update makes an item that can be stored");
            }
        }
    });
    condition.is_ok() || update.is_ok()
}

/// Expressions with items that they fit.
pub(super) fn seeds() -> Vec<(String, Vec<u8>)> {
    let item = Item::new()
        .with("pk", "a key")
        .with("a", "text longer than eight")
        .with("b", vec![Value::from(1), Value::from("x"), Value::Null])
        .with("c", Item::new().with("inner", 5).with("numbers", Value::number_set([1, 2]).expect("a set")))
        .with("n", 7);
    let item = encode(&item).expect("an item");
    let bindings = || {
        Bindings::new()
            .with_value(":n", 1)
            .with_value(":s", "S")
            .with_value(":t", "text")
            .with_value(":l", vec![Value::from(1)])
            .with_value(":ns", Value::number_set([2, 3]).expect("a set"))
    };
    let conditions = [
        "begins_with(a, :t) AND NOT contains(b, :n) OR size(c) >= :n",
        "c.inner BETWEEN :n AND n AND b[1] IN (:s, :t) AND attribute_type(a, :s)",
    ]
    .map(|text| {
        let condition = Condition::parse(text, &mut bindings()).expect(text);
        encode_condition(&condition).expect(text)
    });
    let updates = [
        "SET n = n + :n, b[5] = :s, c.added = list_append(if_not_exists(x, :l), b) REMOVE b[0], b[2]",
        "ADD n :n, c.numbers :ns, fresh :n DELETE gone :ns",
    ]
    .map(|text| {
        let update = Update::parse(text, &mut bindings()).expect(text);
        encode_update(&update).expect(text)
    });
    let seed = |(index, expression): (usize, Vec<u8>)| {
        let length = (expression.len() as u16).to_le_bytes();
        (format!("evaluation.{index}"), [&length[..], &expression, &item].concat())
    };
    conditions.into_iter().chain(updates).enumerate().map(seed).collect()
}
