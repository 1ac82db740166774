//! Frozen: these bytes go from clients of one release to routers and cores of another. They depend on rkyv's
//! features in the root Cargo.toml and on the order of the variants of the trees.

use evenkeel_wire::expression::{Bindings, Condition, Update, encode_condition, encode_update};
use evenkeel_wire::item::Value;

fn bindings() -> Bindings {
    Bindings::new()
        .with_value(":n", 1)
        .with_value(":s", "S")
        .with_value(":l", Value::L(vec![]))
        .with_value(":ss", Value::string_set(["a"]).expect("a set"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn conditions_are_frozen() {
    for (text, expected) in CONDITIONS {
        let condition = Condition::parse(text, &mut bindings()).expect(text);
        assert_eq!(hex(&encode_condition(&condition).expect(text)), *expected, "{text}");
    }
}

#[test]
fn updates_are_frozen() {
    for (text, expected) in UPDATES {
        let update = Update::parse(text, &mut bindings()).expect(text);
        assert_eq!(hex(&encode_update(&update).expect(text)), *expected, "{text}");
    }
}

const CONDITIONS: &[(&str, &str)] = &[
    (
        "a.b[7] = :n",
        concat!(
            "0062ffffffffffffff01070000000000000003820b0000000061ffffffffffffffdfffffff020000000101e7",
            "ffffff040000000000000000000000000000000000000000000000000000",
        ),
    ),
    (
        "size(a) >= :n",
        concat!(
            "03820b0000050261fffffffffffffff1ffffff000000000101e7ffffff040000000000000000000000000000",
            "000000000000000000000000",
        ),
    ),
    (
        "a BETWEEN :n AND b",
        concat!(
            "03820b00010061fffffffffffffff2ffffff000000000101e8ffffff04000000000000000000000062ffffff",
            "ffffffffd4ffffff00000000",
        ),
    ),
    (
        "a IN (:n)",
        concat!(
            "03820b000101faffffff0400000000000000000000020061ffffffffffffffe1ffffff00000000ddffffff01",
            "0000000000000000000000000000000000000000000000000000000000",
        ),
    ),
    (
        "attribute_exists(a)",
        concat!(
            "0361fffffffffffffff7ffffff00000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000",
        ),
    ),
    (
        "attribute_not_exists(a)",
        concat!(
            "0461fffffffffffffff7ffffff00000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000",
        ),
    ),
    (
        "attribute_type(a, :s)",
        concat!(
            "050061fffffffffffffff6ffffff000000000000000000000000000000000000000000000000000000000000",
            "0000000000000000",
        ),
    ),
    (
        "begins_with(a, :s)",
        concat!(
            "060061fffffffffffffff6ffffff00000000010053ffffffffffffff00000000000000000000000000000000",
            "0000000000000000",
        ),
    ),
    (
        "contains(a, :n)",
        concat!(
            "03820b00070061fffffffffffffff2ffffff000000000101e8ffffff04000000000000000000000000000000",
            "000000000000000000000000",
        ),
    ),
    (
        "NOT attribute_exists(a) AND (attribute_exists(b) OR attribute_exists(c))",
        concat!(
            "0361fffffffffffffff7ffffff00000000000000000000000000000000000000000000000000000000000000",
            "00000000000000000362fffffffffffffff7ffffff0000000000000000000000000000000000000000000000",
            "000000000000000000000000000000000363ffffffffffffffc3ffffff000000000000000000000000000000",
            "0000000000000000000000000000000000000000000000000a63ffffff000000000000000000000000000000",
            "00000000000000000000000000000000000000000000000000000000000000000963ffffff02000000000000",
            "000000000000000000000000000000000000000000000000000000000000000000000000000000000897ffff",
            "ff02000000000000000000000000000000000000000000000000000000000000000000000000000000000000",
            "00000000",
        ),
    ),
];

const UPDATES: &[(&str, &str)] = &[
    (
        "SET a = b REMOVE c",
        concat!(
            "0061fffffffffffffff7ffffff00000000000062ffffffffffffffe5ffffff00000000000000000000000000",
            "000000000000000000000000000000000163ffffffffffffffbbffffff000000000000000000000000000000",
            "000000000000000000000000000000000000000000000000000000000000000088ffffff02000000",
        ),
    ),
    (
        "SET a = a + :n, b = :n - b",
        concat!(
            "03820b0003820b000061ffffffffffffffefffffff00000000010061ffffffffffffffddffffff0000000000",
            "0000000101cfffffff0400000000000000000000000000000062ffffffffffffffb7ffffff00000000020101",
            "acffffff0400000000000000000000000000000062ffffffffffffff94ffffff000000000000000088ffffff",
            "02000000",
        ),
    ),
    (
        "SET a = list_append(if_not_exists(a, :l), :l)",
        concat!(
            "0108feffffff0000000000000000000000000000000261ffffffffffffffe2ffffff00000000daffffff0108",
            "feffffff0000000000000000000000000000000061ffffffffffffffb8ffffff000000000003c3ffffffd4ff",
            "ffff000000000000000000000000000000000000000000000000000000000000000000c4ffffff01000000",
        ),
    ),
    (
        "ADD a :n DELETE b :ss",
        concat!(
            "03820b0061ffffffffffffff0261ffffffffffffffebffffff0000000001e2ffffff04000000000000000000",
            "000000000000000000000000000000000000000000000000000000000362ffffffffffffffb3ffffff000000",
            "0005aaffffff0100000000000000000000000000000000000000000000000000000000000000000000000000",
            "88ffffff02000000",
        ),
    ),
];
