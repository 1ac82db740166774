//! Whatever a disk or a peer gives, a decoder answers; what it takes, it understands. `decoders` has the
//! decoders; `wire/fuzz` looks longer.

mod decoders;
#[path = "../../wire/tests/golden/mod.rs"]
mod golden;
#[path = "../../wire/tests/mutation/mod.rs"]
mod mutation;

use decoders::{DECODERS, seeds};

#[test]
fn decoders_take_anything() {
    let frozen = golden::folder(env!("CARGO_MANIFEST_DIR"));
    for (name, decoder) in DECODERS {
        mutation::feed(name, *decoder, seeds(name, &frozen), 5_000);
    }
}
