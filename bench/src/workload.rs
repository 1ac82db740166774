//! Workloads: which operations, on which keys, of which sizes.
//!
//! The mixes are those of YCSB ("Benchmarking Cloud Serving Systems with YCSB", SoCC 2010). Two differ: F's
//! read, modify and write is one update on the server, and E's scan reads one page, which ends where its
//! partition does. A mix of one's own is a [`Spec`], as a file holds it:
//!
//! ```toml
//! keys_by = "hot:1%:90%:5s"            # uniform, zipfian, zipfian:0.8, latest, hot:1%:90%, hot:1%:90%:5s
//! item_bytes = "100:90%,1024:10%"      # 1024, 100..4096, zipf:100..65536, or shares
//! scan_items = "1..100"                # how many items a scan asks for
//!
//! [mix]                                # percent; together 100
//! get = 70                             # also: put, insert, update, delete, get-eventual, scan
//! put = 20
//! scan = 10
//! ```

use crate::keys::{Keys, KeysBy, Share, THETA_DEFAULT};
use crate::sizes::{SizeDraw, Sizes};
use evenkeel_client::Item;
use evenkeel_wire::prng::Prng;
use serde::Deserialize;
use std::time::Duration;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Writes a whole item.
    Put,
    /// The same, of a key that is not there.
    Insert,
    /// Reads an item, strongly.
    Get,
    /// Reads an item from any replica.
    GetEventual,
    /// Counts a number in an item up.
    Update,
    /// Removes an item.
    Delete,
    /// Reads one page of items, in the order of their storage keys.
    Scan,
}

impl Kind {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(self) -> bool {
        match self {
            Self::Get | Self::GetEventual | Self::Scan => true,
            Self::Put | Self::Insert | Self::Update | Self::Delete => false,
        }
    }

    /// Whether it carries a whole item.
    #[must_use]
    pub fn carries_item(self) -> bool {
        match self {
            Self::Put | Self::Insert => true,
            Self::Get | Self::GetEventual | Self::Scan | Self::Update | Self::Delete => false,
        }
    }
}

/// What one request is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The operation.
    pub kind: Kind,
    /// The number of its key; of a trace, its place among the trace's keys.
    pub key: u64,
    /// Bytes of its item, if it carries one.
    pub bytes: u32,
    /// Items that it asks for, if it is a scan.
    pub items: u32,
}

/// A mix of operations.
#[derive(Clone, Debug, PartialEq)]
pub struct Workload {
    /// Its name.
    pub name: String,
    /// Operations, each with its share in percent.
    pub mix: Vec<(Kind, u64)>,
    /// How keys are chosen.
    pub keys_by: KeysBy,
    /// Sizes of items.
    pub sizes: Sizes,
    /// Items that a scan asks for: all between the two, and these, alike.
    pub scan_items: (u32, u32),
}

/// Bytes of an item, unless something else is said.
const ITEM_BYTES_DEFAULT: usize = 1024;
/// Items that a scan asks for: YCSB's.
const SCAN_ITEMS_DEFAULT: (u32, u32) = (1, 100);

const ZIPFIAN: KeysBy = KeysBy::Zipfian(THETA_DEFAULT);

/// A name, its operations with their shares in percent, and how keys are chosen.
type Named = (&'static str, &'static [(Kind, u64)], KeysBy);

/// Every workload that has a name.
const NAMED: [Named; 10] = [
    ("put", &[(Kind::Put, 100)], KeysBy::Uniform),
    ("get", &[(Kind::Get, 100)], KeysBy::Uniform),
    ("get-eventual", &[(Kind::GetEventual, 100)], KeysBy::Uniform),
    ("get-put", &[(Kind::Get, 90), (Kind::Put, 10)], KeysBy::Uniform),
    ("ycsb-a", &[(Kind::Get, 50), (Kind::Put, 50)], ZIPFIAN),
    ("ycsb-b", &[(Kind::Get, 95), (Kind::Put, 5)], ZIPFIAN),
    ("ycsb-c", &[(Kind::Get, 100)], ZIPFIAN),
    ("ycsb-d", &[(Kind::Get, 95), (Kind::Insert, 5)], KeysBy::Latest(THETA_DEFAULT)),
    ("ycsb-e", &[(Kind::Scan, 95), (Kind::Insert, 5)], ZIPFIAN),
    ("ycsb-f", &[(Kind::Get, 50), (Kind::Update, 50)], ZIPFIAN),
];

impl Workload {
    /// The workload of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        let (name, mix, keys_by) = NAMED.iter().find(|(known, ..)| *known == name)?;
        Some(Self {
            name: (*name).to_owned(),
            mix: mix.to_vec(),
            keys_by: *keys_by,
            sizes: Sizes::Fixed(ITEM_BYTES_DEFAULT),
            scan_items: SCAN_ITEMS_DEFAULT,
        })
    }

    /// The names that there are.
    pub fn names() -> impl Iterator<Item = &'static str> {
        NAMED.iter().map(|(name, ..)| *name)
    }

    /// Whether it reads what must have been written before.
    #[must_use]
    pub fn reads(&self) -> bool {
        self.mix.iter().any(|(kind, _)| kind.is_read())
    }

    /// Whether it writes.
    #[must_use]
    pub fn writes(&self) -> bool {
        self.mix.iter().any(|(kind, _)| !kind.is_read())
    }
}

/// A workload as a file holds it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spec {
    /// Percent by operation.
    pub mix: Mix,
    /// [`KeysBy`] as text.
    pub keys_by: Option<String>,
    /// [`Sizes`] as text.
    pub item_bytes: Option<String>,
    /// Items that a scan asks for, as `1..100`.
    pub scan_items: Option<String>,
}

/// Percent by operation.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
#[allow(missing_docs, reason = "each is the share of the operation of that name")]
pub struct Mix {
    pub put: u64,
    pub insert: u64,
    pub get: u64,
    pub get_eventual: u64,
    pub update: u64,
    pub delete: u64,
    pub scan: u64,
}

impl Spec {
    /// The workload that it means.
    ///
    /// # Errors
    /// What is wrong with a value, and what to write.
    pub fn workload(&self, name: &str) -> Result<Workload, String> {
        let Mix { put, insert, get, get_eventual, update, delete, scan } = self.mix;
        let mix = [
            (Kind::Put, put),
            (Kind::Insert, insert),
            (Kind::Get, get),
            (Kind::GetEventual, get_eventual),
            (Kind::Update, update),
            (Kind::Delete, delete),
            (Kind::Scan, scan),
        ];
        let sum = mix.iter().try_fold(0_u64, |sum, (_, percent)| sum.checked_add(*percent));
        if sum != Some(100) {
            return Err("the shares of [mix] are percent, and together make 100".to_owned());
        }
        let keys_by = self.keys_by.as_deref().map_or(Ok(KeysBy::Uniform), str::parse);
        let sizes = self.item_bytes.as_deref().map_or(Ok(Sizes::Fixed(ITEM_BYTES_DEFAULT)), str::parse);
        let scan_items = self.scan_items.as_deref().map_or(Ok(SCAN_ITEMS_DEFAULT), scan_items);
        Ok(Workload {
            name: name.to_owned(),
            mix: mix.into_iter().filter(|(_, percent)| *percent > 0).collect(),
            keys_by: keys_by.map_err(|error| format!("keys_by: {error}"))?,
            sizes: sizes.map_err(|error| format!("item_bytes: {error}"))?,
            scan_items: scan_items.map_err(|error| format!("scan_items: {error}"))?,
        })
    }
}

fn scan_items(text: &str) -> Result<(u32, u32), String> {
    let refused = || format!("{text:?} is no range; write, for example, 1..100");
    let (least, most) = text.split_once("..").ok_or_else(refused)?;
    let (least, most) = (least.parse().map_err(|_| refused())?, most.parse().map_err(|_| refused())?);
    if least >= 1 && least <= most { Ok((least, most)) } else { Err(refused()) }
}

/// Draws the operations of one load thread.
#[derive(Clone, Debug)]
pub struct Draw {
    mix: Vec<(Kind, u64)>,
    keys: Keys,
    sizes: SizeDraw,
    scan_items: (u32, u32),
    prng: Prng,
}

impl Draw {
    /// Draws from `keys` keys (at least one).
    #[must_use]
    pub fn new(workload: &Workload, keys: u64, share: Share, seed: u64) -> Self {
        Self {
            mix: workload.mix.clone(),
            keys: Keys::new(workload.keys_by, keys, share),
            sizes: workload.sizes.draw(),
            scan_items: workload.scan_items,
            prng: Prng::new(seed),
        }
    }

    /// The next operation, of a request that is due `at` after the start.
    pub fn operation(&mut self, at: Duration) -> Operation {
        let mut share = self.prng.below(100);
        let chosen = self.mix.iter().find(|(_, percent)| {
            let chosen = share < *percent;
            share = share.saturating_sub(*percent);
            chosen
        });
        let kind = chosen.map_or(self.mix[0].0, |(kind, _)| *kind);
        let key = match kind {
            Kind::Insert => self.keys.insert(),
            _ => self.keys.choose(at, &mut self.prng),
        };
        let bytes = if kind.carries_item() { self.sizes.next(&mut self.prng) as u32 } else { 0 };
        let (least, most) = self.scan_items;
        let items = match kind {
            Kind::Scan => least + self.prng.below(u64::from(most - least) + 1) as u32,
            _ => 0,
        };
        Operation { kind, key, bytes, items }
    }

    /// A write of that key, as before a load that reads.
    pub(crate) fn put(&mut self, key: u64) -> Operation {
        Operation { kind: Kind::Put, key, bytes: self.sizes.next(&mut self.prng) as u32, items: 0 }
    }

    /// An operation has succeeded.
    pub(crate) fn settle(&mut self, kind: Kind, key: u64) {
        if kind == Kind::Insert {
            self.keys.settle(key);
        }
    }
}

/// The name of a key: "user" and its number, as YCSB names them.
#[must_use]
pub fn key_name(key: u64) -> String {
    format!("user{key:012}")
}

/// The key of an item.
#[must_use]
pub fn key_item(name: &str) -> Item {
    Item::new().with("pk", name)
}

/// An item whose attributes have about `bytes` bytes in all.
#[must_use]
pub fn item(name: &str, bytes: usize, prng: &mut Prng) -> Item {
    let mut filler = vec![0; bytes.saturating_sub(40)];
    prng.fill(&mut filler);
    key_item(name).with("n", 0).with("v", evenkeel_client::Value::B(filler))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(workload: &Workload) -> Vec<Operation> {
        let mut draw = Draw::new(workload, 1000, Share { thread: 0, threads: 1 }, 7);
        (0..20_000).map(|_| draw.operation(Duration::ZERO)).collect()
    }

    #[test]
    fn mixes_add_up_and_names_are_found() {
        for name in Workload::names() {
            let workload = Workload::named(name).unwrap();
            assert_eq!(workload.mix.iter().map(|(_, share)| share).sum::<u64>(), 100, "{name}");
        }
        assert!(Workload::named("ycsb-z").is_none());
    }

    #[test]
    fn operations_come_in_their_shares_and_keys_stay_in_range() {
        let drawn = draw(&Workload::named("ycsb-b").unwrap());
        let puts = drawn.iter().filter(|operation| operation.kind == Kind::Put).count();
        assert!((800..1200).contains(&puts), "{puts} of 20000 are puts");
        assert!(drawn.iter().all(|operation| operation.key < 1000));
        assert!(drawn.iter().all(|operation| (operation.bytes > 0) == operation.kind.carries_item()));
    }

    #[test]
    fn inserts_are_of_new_keys_and_scans_of_all_lengths() {
        let drawn = draw(&Workload::named("ycsb-e").unwrap());
        let inserted: Vec<u64> =
            drawn.iter().filter(|operation| operation.kind == Kind::Insert).map(|o| o.key).collect();
        assert!((800..1200).contains(&inserted.len()));
        assert!(inserted.iter().enumerate().all(|(number, key)| *key == 1000 + number as u64));
        let scans: Vec<u32> =
            drawn.iter().filter(|operation| operation.kind == Kind::Scan).map(|o| o.items).collect();
        assert!((1..=100).all(|items| scans.contains(&items)) && scans.iter().all(|items| *items <= 100));
    }

    #[test]
    fn a_spec_is_checked() {
        let spec = |get, keys_by: &str, scan_items: &str| Spec {
            mix: Mix { get, put: 30, ..Mix::default() },
            keys_by: Some(keys_by.to_owned()),
            item_bytes: None,
            scan_items: Some(scan_items.to_owned()),
        };
        let workload = spec(70, "latest", "5..9").workload("mine").unwrap();
        assert_eq!(workload.mix, [(Kind::Put, 30), (Kind::Get, 70)]);
        assert_eq!((workload.keys_by, workload.scan_items), (KeysBy::Latest(0.99), (5, 9)));
        for (spec, words) in [
            (spec(71, "latest", "1..2"), "make 100"),
            (spec(u64::MAX, "latest", "1..2"), "make 100"),
            (spec(70, "lately", "1..2"), "keys_by"),
            (spec(70, "latest", "0..2"), "scan_items"),
        ] {
            let error = spec.workload("mine").unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
