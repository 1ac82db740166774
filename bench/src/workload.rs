//! Workloads: which operations, on which keys.
//!
//! The mixes are those of YCSB ("Benchmarking Cloud Serving Systems with YCSB", SoCC 2010), as far as they
//! are of single items. Zipfian keys are scrambled, so that popular ones are spread over the key space.

use evenkeel_client::Item;
use evenkeel_wire::prng::Prng;

/// One operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Writes a whole item.
    Put,
    /// Reads an item, strongly.
    Get,
    /// Reads an item from any replica.
    GetEventual,
    /// Counts a number in an item up.
    Update,
}

impl Kind {
    /// Whether it changes nothing.
    #[must_use]
    pub fn is_read(self) -> bool {
        match self {
            Self::Get | Self::GetEventual => true,
            Self::Put | Self::Update => false,
        }
    }
}

/// How keys are chosen.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Keys {
    /// All alike.
    Uniform,
    /// Few are popular: Zipf's law with this exponent below 1.
    Zipfian(f64),
}

/// A mix of operations.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its name.
    pub name: &'static str,
    /// Operations, each with its share in hundredths.
    mix: &'static [(Kind, u64)],
    keys: Keys,
}

const ZIPFIAN: Keys = Keys::Zipfian(0.99);

/// Every workload.
pub const WORKLOADS: &[Workload] = &[
    Workload { name: "put", mix: &[(Kind::Put, 100)], keys: Keys::Uniform },
    Workload { name: "get", mix: &[(Kind::Get, 100)], keys: Keys::Uniform },
    Workload { name: "get-eventual", mix: &[(Kind::GetEventual, 100)], keys: Keys::Uniform },
    Workload { name: "get-put", mix: &[(Kind::Get, 90), (Kind::Put, 10)], keys: Keys::Uniform },
    Workload { name: "ycsb-a", mix: &[(Kind::Get, 50), (Kind::Put, 50)], keys: ZIPFIAN },
    Workload { name: "ycsb-b", mix: &[(Kind::Get, 95), (Kind::Put, 5)], keys: ZIPFIAN },
    Workload { name: "ycsb-c", mix: &[(Kind::Get, 100)], keys: ZIPFIAN },
    Workload { name: "ycsb-f", mix: &[(Kind::Get, 50), (Kind::Update, 50)], keys: ZIPFIAN },
];

impl Workload {
    /// The workload of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        WORKLOADS.iter().find(|workload| workload.name == name)
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

/// Draws operations and keys.
#[derive(Debug)]
pub struct Draw {
    workload: &'static Workload,
    keys: u64,
    zipf: Option<Zipf>,
    prng: Prng,
}

impl Draw {
    /// Draws from `keys` keys (at least one).
    #[must_use]
    pub fn new(workload: &'static Workload, keys: u64, seed: u64) -> Self {
        let zipf = match workload.keys {
            Keys::Uniform => None,
            Keys::Zipfian(theta) => Some(Zipf::new(keys, theta)),
        };
        Self { workload, keys, zipf, prng: Prng::new(seed) }
    }

    /// The next operation and its key.
    pub fn operation(&mut self) -> (Kind, u64) {
        let mut share = self.prng.below(100);
        let mix = self.workload.mix;
        let chosen = mix.iter().find(|(_, hundredths)| {
            let chosen = share < *hundredths;
            share = share.saturating_sub(*hundredths);
            chosen
        });
        let kind = chosen.map_or(mix[0].0, |(kind, _)| *kind);
        let key = match &self.zipf {
            None => self.prng.below(self.keys),
            // Scrambled: neighbours in popularity are strangers in the key space.
            Some(zipf) => Prng::new(zipf.rank(&mut self.prng)).below(self.keys),
        };
        (kind, key)
    }
}

/// Ranks by Zipf's law: Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD 1994).
#[derive(Debug)]
struct Zipf {
    count: f64,
    theta: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    fn new(count: u64, theta: f64) -> Self {
        let zeta_of = |count: u64| (1..=count).map(|rank| 1.0 / (rank as f64).powf(theta)).sum::<f64>();
        let zeta = zeta_of(count);
        let count = count as f64;
        let eta = (1.0 - (2.0 / count).powf(1.0 - theta)) / (1.0 - zeta_of(2) / zeta);
        Self { count, theta, zeta, eta }
    }

    fn rank(&self, prng: &mut Prng) -> u64 {
        let uniform = (prng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let alpha = 1.0 / (1.0 - self.theta);
        (self.count * (self.eta * uniform - self.eta + 1.0).powf(alpha)) as u64
    }
}

/// The key of an item: "user" and its number, as YCSB names them.
#[must_use]
pub fn key_item(key: u64) -> Item {
    Item::new().with("pk", format!("user{key:012}"))
}

/// An item whose attributes have about `bytes` bytes in all.
#[must_use]
pub fn item(key: u64, bytes: usize, prng: &mut Prng) -> Item {
    let mut filler = vec![0; bytes.saturating_sub(40)];
    prng.fill(&mut filler);
    key_item(key).with("n", 0).with("v", evenkeel_client::Value::B(filler))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixes_add_up_and_names_are_found() {
        for workload in WORKLOADS {
            assert_eq!(workload.mix.iter().map(|(_, share)| share).sum::<u64>(), 100, "{}", workload.name);
            assert!(Workload::named(workload.name).is_some());
        }
        assert!(Workload::named("ycsb-z").is_none());
    }

    #[test]
    fn operations_come_in_their_shares_and_keys_stay_in_range() {
        let mut draw = Draw::new(Workload::named("ycsb-b").unwrap(), 1000, 7);
        let drawn: Vec<_> = (0..20_000).map(|_| draw.operation()).collect();
        let puts = drawn.iter().filter(|(kind, _)| *kind == Kind::Put).count();
        assert!((800..1200).contains(&puts), "{puts} of 20000 are puts");
        assert!(drawn.iter().all(|(_, key)| *key < 1000));
    }

    #[test]
    fn zipfian_keys_have_a_popular_few() {
        let zipf = Zipf::new(1000, 0.99);
        let mut prng = Prng::new(3);
        let ranks: Vec<u64> = (0..50_000).map(|_| zipf.rank(&mut prng)).collect();
        let share = |below: u64| ranks.iter().filter(|rank| **rank < below).count() as f64 / 50_000.0;
        assert!((0.11..0.16).contains(&share(1)), "the first has {}", share(1));
        assert!((0.6..0.75).contains(&share(100)), "the first hundred have {}", share(100));
    }
}
