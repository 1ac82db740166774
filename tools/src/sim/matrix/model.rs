//! What the engine must hold: for each key, what it may be.
//!
//! Every item says of which key it is and by which write; its body follows from that. So two items are equal
//! exactly if what the model keeps of them is.

use evenkeel_wire::item::{self, Item, Number, Value};
use evenkeel_wire::prng::Prng;
use std::collections::BTreeSet;

/// What the model keeps of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Content {
    /// The write that made it what it is.
    pub version: u64,
    /// The write that gave it its body.
    pub body: u64,
    /// Length of the body.
    pub bytes: usize,
}

/// A key with what stands under it.
#[derive(Debug)]
pub struct Key {
    /// The storage key.
    pub bytes: Vec<u8>,
    /// What it may be: one, unless nobody knows whether a write was done.
    pub may_be: Vec<Option<Content>>,
    /// What the write under way makes of it.
    pub writing: Option<Option<Content>>,
    /// When that last changed, in requests.
    pub changed: u64,
}

/// The keys, in their order.
#[derive(Debug)]
pub struct Model {
    /// All keys that are used.
    pub keys: Vec<Key>,
    versions: u64,
}

impl Model {
    /// Keys of many lengths, many with long common beginnings, and nothing under them.
    #[must_use]
    pub fn new(prng: &mut Prng, count: usize) -> Self {
        let mut keys = BTreeSet::new();
        let mut long = vec![b'l'; 6000];
        prng.fill(&mut long[5900..]);
        while keys.len() < count {
            let mut tail = vec![0; 4 + prng.below(20) as usize];
            prng.fill(&mut tail);
            let mut key = match prng.below(40) {
                0 => vec![prng.next_u64() as u8],
                1..=3 => format!("{:03}", prng.below(1000)).into_bytes(),
                4..=25 => [&b"table/partition/"[..], &tail].concat(),
                26..=32 => tail,
                33..=36 => [&long[..prng.below(300) as usize], &tail].concat(),
                37..=38 => [&long[..1000], &tail].concat(),
                _ => [&long[..3000 + prng.below(3000) as usize], &tail].concat(),
            };
            if prng.chance(1, 10) {
                // Neighbours that differ only at their end.
                key.push(0);
            }
            keys.insert(key);
        }
        let key = |bytes| Key { bytes, may_be: vec![None], writing: None, changed: 0 };
        Self { keys: keys.into_iter().map(key).collect(), versions: 0 }
    }

    /// A new item's content: mostly small, some as long as their page allows, some in overflow runs.
    pub fn new_content(&mut self, prng: &mut Prng) -> Content {
        self.versions += 1;
        let bytes = match prng.below(20) {
            0..=11 => prng.below(200),
            12..=15 => prng.below(1900),
            16..=18 => 1900 + prng.below(300),
            _ => prng.below(20 * 1024),
        };
        Content { version: self.versions, body: self.versions, bytes: bytes as usize }
    }

    /// The same item after an update.
    pub fn updated(&mut self, content: Content) -> Content {
        self.versions += 1;
        Content { version: self.versions, ..content }
    }

    /// The item of a key.
    #[must_use]
    pub fn item(key: usize, content: Content) -> Item {
        let mut body = vec![0; content.bytes];
        Prng::new(content.body).fill(&mut body);
        let Content { version, body: from, .. } = content;
        Item::new().with("b", body).with("f", from).with("k", key as u64).with("v", version)
    }

    /// What an archive holds, if it is an item that was made here.
    #[must_use]
    pub fn read(archive: &[u8]) -> Option<(usize, Content)> {
        let item = item::access(archive).ok()?.to_item().ok()?;
        let number = |name: &str| match item.get(name) {
            Some(Value::N(number)) => Number::to_u64(number),
            _ => None,
        };
        let Some(Value::B(body)) = item.get("b") else {
            return None;
        };
        let content = Content { version: number("v")?, body: number("f")?, bytes: body.len() };
        let key = number("k")? as usize;
        (item == Self::item(key, content)).then_some((key, content))
    }

    /// How many keys certainly hold an item; none when not everything is certain.
    #[must_use]
    pub fn items(&self) -> Option<u64> {
        let certain = |key: &Key| key.may_be.len() == 1 && key.writing.is_none();
        let holds = self.keys.iter().filter(|key| key.may_be[0].is_some()).count();
        self.keys.iter().all(certain).then_some(holds as u64)
    }

    /// A crash: writes that were under way happened, or did not.
    pub fn crashed(&mut self) {
        for key in &mut self.keys {
            if let Some(content) = key.writing.take() {
                key.may_be.push(content);
            }
        }
    }
}
