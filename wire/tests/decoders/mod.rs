//! Every decoder of this crate, with what is true of it for any bytes: it does not panic, and what it takes
//! is written again as the same bytes, or as bytes that are read as the same value. The bodies are run by
//! tests (`decoders_take_anything.rs`) and by the fuzz targets of `wire/fuzz`.
//!
//! A body tells whether the bytes were taken, so that a test can see that it is not idle.
#![allow(dead_code, reason = "each test file uses a part of it")]

pub(crate) mod entry;
pub(crate) mod expression;
pub(crate) mod frame;
pub(crate) mod item;
pub(crate) mod key;
pub(crate) mod message;

use crate::golden::all;
use std::path::Path;

/// A decoder: its name, and what is true of it.
pub(crate) type Decoder = (&'static str, fn(&[u8]) -> bool);

/// Every decoder.
pub(crate) const DECODERS: &[Decoder] = &[
    ("frame", frame::frame),
    ("handshake", message::handshake),
    ("request", message::request),
    ("batch", message::batch),
    ("catalog", message::catalog),
    ("routing", message::routing),
    ("status", message::status),
    ("peer", message::peer),
    ("entry", entry::entry),
    ("item", item::item),
    ("key", key::key),
    ("number", key::number),
    ("expression", expression::archive),
    ("expression_text", expression::text),
];

/// Bytes that a decoder takes, with their names; `frozen` is the folder of golden bytes.
pub(crate) fn seeds(decoder: &str, frozen: &Path) -> Vec<(String, Vec<u8>)> {
    match decoder {
        "key" => key::keys(),
        "number" => key::numbers(),
        "expression_text" => expression::texts(),
        _ => {
            let frozen = all(frozen).into_iter();
            let ours = frozen.filter(|(name, _)| name.split_once('.').is_some_and(|(of, _)| of == decoder));
            ours.map(|(name, golden)| (name, message::with_kind(golden))).collect()
        }
    }
}
