//! Whatever bytes arrive, a decoder answers; what it takes, it understands. `decoders` has the decoders and
//! says what that means for each; `wire/fuzz` looks longer.

mod decoders;
mod golden;
mod mutation;

use decoders::{DECODERS, seeds};
use std::collections::BTreeSet;

#[test]
fn decoders_take_anything() {
    let frozen = golden::folder(env!("CARGO_MANIFEST_DIR"));
    for (name, decoder) in DECODERS {
        mutation::feed(name, *decoder, seeds(name, &frozen), 10_000);
    }
}

#[test]
fn golden_bytes_name_their_decoder() {
    let decoders: BTreeSet<&str> = DECODERS.iter().map(|(name, _)| *name).collect();
    for name in golden::all(&golden::folder(env!("CARGO_MANIFEST_DIR"))).keys() {
        let of = name.split_once('.').map(|(of, _)| of);
        assert!(of.is_some_and(|of| decoders.contains(of)), "{name} is of no decoder");
    }
}
