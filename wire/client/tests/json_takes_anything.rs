//! Whatever text is given, the reader of DynamoDB JSON answers; what it takes, it understands.

mod decoders;
#[path = "../../tests/mutation/mod.rs"]
mod mutation;

#[test]
fn json_takes_anything() {
    mutation::feed("json", decoders::json, decoders::lines(), 10_000);
}
