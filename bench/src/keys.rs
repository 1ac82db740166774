//! Which key comes next: alike for all, a popular few, the newest, or a hot spot that moves.
//!
//! Keys are numbers below a base that is there from the beginning, and above it those that were inserted. A
//! load thread inserts keys of its own, every n-th of n threads, so that threads share nothing and a seed
//! decides what each of them does.

use evenkeel_wire::prng::Prng;
use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The exponent of YCSB's popular keys.
pub const THETA_DEFAULT: f64 = 0.99;

/// How keys are chosen. As text: `uniform`, `zipfian`, `zipfian:0.8`, `latest`, `latest:0.8`, `hot:1%:90%`
/// (1% of the keys get 90% of the requests) or `hot:1%:90%:5s` (every 5 seconds the next 1%).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum KeysBy {
    /// All alike.
    Uniform,
    /// Few are popular, by Zipf's law with this exponent between 0 and 1, and lie all over the key space.
    Zipfian(f64),
    /// The newest are popular, by the same law.
    Latest(f64),
    /// A range of keys is popular.
    Hot {
        /// Its share of the keys, percent.
        keys: f64,
        /// Its share of the requests, percent.
        requests: f64,
        /// How long it stays where it is; the range behind it is next. `None`: for ever.
        stays: Option<Duration>,
    },
}

impl FromStr for KeysBy {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?} is no way to choose keys; write uniform, zipfian, zipfian:0.8, latest, hot:1%:90% \
                 or hot:1%:90%:5s"
            )
        };
        let theta = |text: Option<&&str>| -> Result<f64, String> {
            let theta = text.map_or(Ok(THETA_DEFAULT), |text| text.parse().map_err(|_| refused()))?;
            let fits = theta > 0.0 && theta < 1.0;
            if fits { Ok(theta) } else { Err(format!("{text:?}: an exponent is between 0 and 1")) }
        };
        let words: Vec<&str> = text.split(':').collect();
        match words[..] {
            ["uniform"] => Ok(Self::Uniform),
            ["zipfian"] | ["zipfian", _] => Ok(Self::Zipfian(theta(words.get(1))?)),
            ["latest"] | ["latest", _] => Ok(Self::Latest(theta(words.get(1))?)),
            ["hot", keys, requests] | ["hot", keys, requests, _] => {
                let percent = |text: &str| text.strip_suffix('%')?.parse::<f64>().ok();
                let (keys, requests) = percent(keys).zip(percent(requests)).ok_or_else(refused)?;
                let stays = words.get(3).map(|text| seconds(text).ok_or_else(refused)).transpose()?;
                if !(keys > 0.0 && keys <= 100.0 && (0.0..=100.0).contains(&requests)) {
                    return Err(format!("{text:?}: shares are above 0% and at most 100%"));
                }
                Ok(Self::Hot { keys, requests, stays })
            }
            _ => Err(refused()),
        }
    }
}

fn seconds(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 0.001),
        None => (text.strip_suffix('s')?, 1.0),
    };
    let time = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
    (!time.is_zero()).then_some(time)
}

impl fmt::Display for KeysBy {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uniform => out.write_str("uniform"),
            Self::Zipfian(theta) => write!(out, "zipfian:{theta}"),
            Self::Latest(theta) => write!(out, "latest:{theta}"),
            Self::Hot { keys, requests, stays: None } => write!(out, "hot:{keys}%:{requests}%"),
            Self::Hot { keys, requests, stays: Some(time) } => {
                write!(out, "hot:{keys}%:{requests}%:{}s", time.as_secs_f64())
            }
        }
    }
}

/// One of several load threads.
#[derive(Clone, Copy, Debug)]
pub struct Share {
    /// Its number, from 0.
    pub thread: usize,
    /// How many there are.
    pub threads: usize,
}

/// The keys as one load thread sees them.
#[derive(Clone, Debug)]
pub struct Keys {
    by: KeysBy,
    /// Keys that are there from the beginning.
    base: u64,
    share: Share,
    zipf: Option<Zipf>,
    inserts: Inserts,
}

impl Keys {
    /// Of `base` keys, at least one.
    #[must_use]
    pub fn new(by: KeysBy, base: u64, share: Share) -> Self {
        let base = base.max(1);
        let zipf = match by {
            KeysBy::Zipfian(theta) | KeysBy::Latest(theta) => Some(Zipf::new(base, theta)),
            KeysBy::Uniform | KeysBy::Hot { .. } => None,
        };
        Self { by, base, share, zipf, inserts: Inserts::default() }
    }

    /// A key that should be there, for a request that is due `at` after the start.
    pub fn choose(&mut self, at: Duration, prng: &mut Prng) -> u64 {
        match self.by {
            KeysBy::Uniform => prng.below(self.base),
            // Scrambled: neighbours in popularity are strangers in the key space.
            KeysBy::Zipfian(_) => Prng::new(self.rank(prng)).below(self.base),
            KeysBy::Latest(_) => {
                let (rank, inserted) = (self.rank(prng), self.inserts.acknowledged());
                match inserted.checked_sub(rank + 1) {
                    Some(number) => self.inserted(number),
                    None => self.base - 1 - (rank - inserted) % self.base,
                }
            }
            KeysBy::Hot { keys, requests, stays } => {
                let hot = ((self.base as f64 * keys / 100.0) as u64).clamp(1, self.base);
                let moves = stays.map_or(0, |stays| (at.as_nanos() / stays.as_nanos()) as u64);
                let begin = moves.wrapping_mul(hot) % self.base;
                if unit(prng) * 100.0 < requests {
                    return (begin + prng.below(hot)) % self.base;
                }
                match self.base - hot {
                    0 => prng.below(self.base),
                    cold => (begin + hot + prng.below(cold)) % self.base,
                }
            }
        }
    }

    fn rank(&self, prng: &mut Prng) -> u64 {
        self.zipf.as_ref().map_or(0, |zipf| zipf.rank(prng))
    }

    /// A key that is not there yet.
    pub fn insert(&mut self) -> u64 {
        let number = self.inserts.begin();
        self.inserted(number)
    }

    fn inserted(&self, number: u64) -> u64 {
        self.base + number * self.share.threads as u64 + self.share.thread as u64
    }

    /// The insertion of a key is answered.
    pub fn settle(&mut self, key: u64) {
        if let Some(above) = key.checked_sub(self.base + self.share.thread as u64) {
            self.inserts.end(above / self.share.threads as u64);
        }
    }
}

/// A thread's insertions: which are acknowledged without a gap.
#[derive(Clone, Debug, Default)]
struct Inserts {
    /// All below are.
    acknowledged: u64,
    /// Whether it is, for each from there on.
    ended: VecDeque<bool>,
}

impl Inserts {
    fn begin(&mut self) -> u64 {
        self.ended.push_back(false);
        self.acknowledged + self.ended.len() as u64 - 1
    }

    fn end(&mut self, number: u64) {
        let place = number.checked_sub(self.acknowledged).and_then(|place| usize::try_from(place).ok());
        if let Some(ended) = place.and_then(|place| self.ended.get_mut(place)) {
            *ended = true;
        }
        while self.ended.front() == Some(&true) {
            self.ended.pop_front();
            self.acknowledged += 1;
        }
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged
    }
}

/// Uniform in [0, 1).
pub(crate) fn unit(prng: &mut Prng) -> f64 {
    (prng.next_u64() >> 11) as f64 / (1u64 << 53) as f64
}

/// Ranks by Zipf's law: Gray et al., "Quickly generating billion-record synthetic databases" (SIGMOD 1994).
#[derive(Clone, Debug)]
pub(crate) struct Zipf {
    count: f64,
    theta: f64,
    zeta: f64,
    eta: f64,
}

impl Zipf {
    /// Of `count` ranks, at least one; `theta` is between 0 and 1.
    pub(crate) fn new(count: u64, theta: f64) -> Self {
        let zeta_of = |count: u64| (1..=count).map(|rank| 1.0 / (rank as f64).powf(theta)).sum::<f64>();
        let zeta = zeta_of(count);
        let count = count as f64;
        let eta = (1.0 - (2.0 / count).powf(1.0 - theta)) / (1.0 - zeta_of(2) / zeta);
        Self { count, theta, zeta, eta }
    }

    /// A rank, from 0.
    pub(crate) fn rank(&self, prng: &mut Prng) -> u64 {
        let uniform = unit(prng);
        let scaled = uniform * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < 1.0 + 0.5_f64.powf(self.theta) {
            return 1;
        }
        let alpha = 1.0 / (1.0 - self.theta);
        let rank = (self.count * (self.eta * uniform - self.eta + 1.0).powf(alpha)) as u64;
        rank.min(self.count as u64 - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ALONE: Share = Share { thread: 0, threads: 1 };

    #[test]
    fn ways_to_choose_are_read_and_written_alike() {
        for text in
            ["uniform", "zipfian:0.8", "latest:0.5", "hot:1%:90%", "hot:0.5%:50%:2s", "hot:1%:1%:0.25s"]
        {
            assert_eq!(text.parse::<KeysBy>().unwrap().to_string(), text);
        }
        assert_eq!("zipfian".parse::<KeysBy>().unwrap(), KeysBy::Zipfian(THETA_DEFAULT));
        for text in ["", "zipf", "zipfian:1", "zipfian:x", "hot", "hot:1:2", "hot:0%:1%", "hot:1%:90%:0s"] {
            assert!(text.parse::<KeysBy>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn zipfian_keys_have_a_popular_few() {
        let zipf = Zipf::new(1000, 0.99);
        let mut prng = Prng::new(3);
        let ranks: Vec<u64> = (0..50_000).map(|_| zipf.rank(&mut prng)).collect();
        let share = |below: u64| ranks.iter().filter(|rank| **rank < below).count() as f64 / 50_000.0;
        assert!((0.11..0.16).contains(&share(1)), "the first has {}", share(1));
        assert!((0.6..0.75).contains(&share(100)), "the first hundred have {}", share(100));
        assert!((1..4).all(|count| Zipf::new(count, 0.99).rank(&mut prng) < count));
    }

    #[test]
    fn popular_keys_of_zipf_lie_all_over() {
        let (mut keys, mut prng) = (Keys::new(KeysBy::Zipfian(0.99), 1000, ALONE), Prng::new(3));
        let mut counts = BTreeMap::new();
        for _ in 0..20_000 {
            *counts.entry(keys.choose(Duration::ZERO, &mut prng)).or_insert(0) += 1;
        }
        let mut popular: Vec<(u64, i32)> = counts.into_iter().collect();
        popular.sort_by_key(|(_, count)| -count);
        let places: Vec<u64> = popular.iter().take(8).map(|(key, _)| key / 250).collect();
        assert!((0..4).filter(|quarter| places.contains(quarter)).count() >= 3, "{popular:?}");
    }

    #[test]
    fn the_newest_key_that_was_acknowledged_is_the_most_popular() {
        let share = Share { thread: 1, threads: 3 };
        let (mut keys, mut prng) = (Keys::new(KeysBy::Latest(0.99), 100, share), Prng::new(1));
        let most = |keys: &mut Keys, prng: &mut Prng| {
            let mut counts = BTreeMap::new();
            for _ in 0..2000 {
                *counts.entry(keys.choose(Duration::ZERO, prng)).or_insert(0) += 1;
            }
            assert!(counts.values().sum::<i32>() == 2000);
            counts.into_iter().max_by_key(|(_, count)| *count).unwrap().0
        };
        assert_eq!(most(&mut keys, &mut prng), 99);
        let inserted: Vec<u64> = (0..3).map(|_| keys.insert()).collect();
        assert_eq!(inserted, [101, 104, 107], "every third is this thread's");
        keys.settle(107);
        keys.settle(101);
        assert_eq!(most(&mut keys, &mut prng), 101, "104 may not be there yet");
        keys.settle(104);
        assert_eq!(most(&mut keys, &mut prng), 107);
    }

    #[test]
    fn a_hot_spot_has_its_share_and_moves() {
        let by = "hot:10%:90%:1s".parse().unwrap();
        let (mut keys, mut prng) = (Keys::new(by, 1000, ALONE), Prng::new(1));
        for (second, hot) in [(0, 0..100), (1, 100..200), (9, 900..1000), (10, 0..100)] {
            let at = Duration::from_millis(second * 1000 + 500);
            let inside = (0..10_000).filter(|_| hot.contains(&keys.choose(at, &mut prng))).count();
            assert!((8800..9200).contains(&inside), "{inside} of 10000 in second {second}");
        }
    }
}
