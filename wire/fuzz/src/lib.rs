//! What the fuzz targets run: the bodies that stand beside the tests of each crate.
//!
//! The properties are told there, once: `wire/tests/decoders`, `wire/client/tests/decoders` and
//! `dataplane/tests/decoders`.
#![forbid(unsafe_code)]

#[path = "../../../dataplane/tests/decoders/mod.rs"]
mod dataplane;
#[path = "../../tests/golden/mod.rs"]
mod golden;
#[path = "../../client/tests/decoders/mod.rs"]
mod json;
#[path = "../../tests/decoders/mod.rs"]
mod wire;

use std::path::Path;

/// A decoder: its name, and what is true of it.
type Decoder = (&'static str, fn(&[u8]) -> bool);

const JSON: Decoder = ("json", json::json);

/// Every decoder of every crate.
fn decoders() -> impl Iterator<Item = Decoder> {
    wire::DECODERS.iter().copied().chain([JSON]).chain(dataplane::DECODERS.iter().copied())
}

/// Gives bytes to a decoder.
///
/// # Panics
/// When what is true of the decoder is not true of the bytes, or there is no such decoder.
pub fn run(decoder: &str, bytes: &[u8]) {
    let (_, body) = decoders().find(|(name, _)| *name == decoder).expect("a target names a decoder");
    body(bytes);
}

/// For each decoder, bytes that it takes, with their names.
#[must_use]
pub fn seeds() -> Vec<(&'static str, Vec<(String, Vec<u8>)>)> {
    let crates = Path::new(env!("CARGO_MANIFEST_DIR"));
    let frozen = |tests: &str| golden::folder(&crates.join(tests).to_string_lossy());
    let (of_wire, of_dataplane) = (frozen(".."), frozen("../../dataplane"));
    let wire = wire::DECODERS.iter().map(|(name, _)| (*name, wire::seeds(name, &of_wire)));
    let dataplane =
        dataplane::DECODERS.iter().map(|(name, _)| (*name, dataplane::seeds(name, &of_dataplane)));
    wire.chain([("json", json::lines())]).chain(dataplane).collect()
}
