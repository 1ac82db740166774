//! Writing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use evenkeel_wire::item::Item;
use evenkeel_wire::item::view::{MapView, ValueView};

/// Writes an item.
#[must_use]
pub fn to_json(item: &Item) -> String {
    let mut out = String::new();
    append_json(item, &mut out);
    out
}

/// Writes an item at the end of a text.
pub fn append_json(item: &Item, out: &mut String) {
    append_map(item.view(), out);
}

fn append_map(map: MapView<'_>, out: &mut String) {
    append_list(out, '{', '}', map.iter(), |(name, value), out| {
        append_text(name, out);
        out.push(':');
        append_value(value, out);
    });
}

fn append_value(value: ValueView<'_>, out: &mut String) {
    out.push_str("{\"");
    out.push_str(value.value_type().name());
    out.push_str("\":");
    match value {
        ValueView::S(_) | ValueView::N(_) | ValueView::B(_) => append_scalar(value, out),
        ValueView::Bool(value) => out.push_str(if value { "true" } else { "false" }),
        ValueView::Null => out.push_str("true"),
        ValueView::Set(set) => append_list(out, '[', ']', set.iter(), append_scalar),
        ValueView::L(list) => append_list(out, '[', ']', list.iter(), append_value),
        ValueView::M(map) => append_map(map, out),
    }
    out.push('}');
}

/// Writes a text, a number or a byte string as a JSON string; nothing else is an element of a set.
fn append_scalar(value: ValueView<'_>, out: &mut String) {
    match value {
        ValueView::S(text) => append_text(text, out),
        ValueView::N(number) => {
            let number = number.to_number().expect("an owned number is canonical");
            append_text(&number.to_string(), out);
        }
        ValueView::B(bytes) => append_text(&STANDARD.encode(bytes), out),
        _ => {}
    }
}

fn append_list<T>(
    out: &mut String,
    open: char,
    close: char,
    elements: impl Iterator<Item = T>,
    append: impl Fn(T, &mut String),
) {
    out.push(open);
    for (index, element) in elements.enumerate() {
        if index > 0 {
            out.push(',');
        }
        append(element, out);
    }
    out.push(close);
}

fn append_text(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..'\u{20}' => out.push_str(&format!("\\u{:04x}", u32::from(character))),
            other => out.push(other),
        }
    }
    out.push('"');
}
