//! Which program measured. Its revision is that of the checkout it was built in, changes that were not
//! committed left out; so the program's own checksum stands beside it.

use evenkeel_wire::checksum::crc32c;
use serde_json::{Value, json};

/// The revision; `unknown` when it was built outside a checkout, or for development.
pub(super) const REVISION: &str = env!("EVENKEEL_REVISION");

/// Version, revision and checksum.
pub(super) fn build_json() -> Value {
    let program = std::fs::read("/proc/self/exe").ok().map(|bytes| format!("{:08x}", crc32c(&bytes)));
    json!({"version": env!("CARGO_PKG_VERSION"), "revision": REVISION, "program_crc32c": program,
        "debug": cfg!(debug_assertions)})
}
