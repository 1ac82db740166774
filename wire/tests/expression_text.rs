//! Any text is a tree or an error with a place; what the parser lets pass, the edge lets pass; damaged trees
//! are errors.

#[allow(dead_code, reason = "the fuzz targets use the rest")]
#[path = "decoders/expression.rs"]
mod decoder;

use decoder::{archive, bindings, check_text};
use evenkeel_wire::expression::{Condition, encode_condition};
use proptest::prelude::*;

const TOKENS: &[&str] = &[
    "a",
    "b",
    "pk",
    "sk",
    "#a",
    "#empty",
    "#x",
    ":s",
    ":n",
    ":b",
    ":l",
    ":m",
    ":ns",
    ":bad",
    ":x",
    "(",
    ")",
    "[",
    "]",
    "0",
    "7",
    ",",
    ".",
    "=",
    "<>",
    "<",
    "<=",
    ">",
    ">=",
    "+",
    "-",
    "AND",
    "or",
    "Not",
    "BETWEEN",
    "IN",
    "SET",
    "REMOVE",
    "ADD",
    "DELETE",
    "size(",
    "contains(",
    "begins_with(",
    "attribute_exists(",
    "attribute_not_exists(",
    "attribute_type(",
    "if_not_exists(",
    "list_append(",
    "\u{e9}",
    "a = :n",
    "SET a = :n",
    "sk BETWEEN :n AND :n",
];

fn soup() -> impl Strategy<Value = String> {
    proptest::collection::vec(proptest::sample::select(TOKENS), 0..14).prop_map(|tokens| tokens.join(" "))
}

/// Texts of the grammar, mostly: what generation by rules reaches and soup does not.
fn condition() -> impl Strategy<Value = String> {
    let operand = prop_oneof![
        Just("a"),
        Just("#a.b[3]"),
        Just(":n"),
        Just(":s"),
        Just(":b"),
        Just("size(a.b)"),
        Just(":l")
    ];
    let comparator = prop_oneof![Just("="), Just("<>"), Just("<"), Just("<="), Just(">"), Just(">=")];
    let leaf = prop_oneof![
        (operand.clone(), comparator, operand.clone())
            .prop_map(|(left, with, right)| format!("{left} {with} {right}")),
        (operand.clone(), operand.clone(), operand.clone())
            .prop_map(|(operand, low, high)| format!("{operand} between {low} and {high}")),
        (operand.clone(), proptest::collection::vec(operand.clone(), 1..4))
            .prop_map(|(operand, candidates)| format!("{operand} IN ({})", candidates.join(", "))),
        (operand.clone(), operand.clone()).prop_map(|(whole, part)| format!("contains({whole}, {part})")),
        (operand.clone(), operand).prop_map(|(whole, part)| format!("begins_with({whole}, {part})")),
        Just("attribute_exists(a.b)".to_owned()),
        Just("attribute_type(a, :s)".to_owned()),
    ];
    leaf.prop_recursive(6, 40, 4, |inner| {
        prop_oneof![
            inner.clone().prop_map(|condition| format!("NOT {condition}")),
            inner.clone().prop_map(|condition| format!("({condition})")),
            proptest::collection::vec(inner.clone(), 2..4).prop_map(|conditions| conditions.join(" AND ")),
            proptest::collection::vec(inner, 2..4).prop_map(|conditions| conditions.join(" OR ")),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn any_text_is_a_tree_or_an_error(text in "\\PC{0,60}") {
        check_text(&text);
    }

    #[test]
    fn any_tokens_are_a_tree_or_an_error(text in soup()) {
        check_text(&text);
    }

    #[test]
    fn generated_conditions_are_read_or_refused_for_a_rule(text in condition()) {
        check_text(&text);
    }

    #[test]
    fn damaged_conditions_are_errors_or_safe_to_walk(
        text in condition(),
        place: prop::sample::Index,
        byte: u8,
    ) {
        if let Ok(condition) = Condition::parse(&text, &mut bindings()) {
            let mut bytes = encode_condition(&condition).expect("what was parsed can be sent");
            let place = place.index(bytes.len());
            bytes[place] = byte;
            archive(&bytes);
            archive(&bytes[..place]);
        }
    }
}

#[test]
fn hostile_texts_of_full_length_are_refused() {
    for unit in ["(", "NOT ", "a.", "a[0]", "size(", "if_not_exists(a,", ":n AND ", "SET ", "#a", ")"] {
        for start in ["", "SET a = ", "a IN "] {
            let mut text = start.to_owned();
            while text.len() + unit.len() <= 4096 {
                text.push_str(unit);
            }
            check_text(&text);
            assert!(Condition::parse(&text, &mut bindings()).is_err());
        }
    }
}
