//! How large items are.

use crate::keys::{Zipf, unit};
use evenkeel_wire::limits::ITEM_BYTES_MAX;
use evenkeel_wire::prng::Prng;
use std::fmt;
use std::str::FromStr;

/// Bytes of the attributes of an item, as the workload counts them. As text: `1024`; `100..4096`, all alike;
/// `zipf:100..65536`, small ones often; `100:90%,1024:10%`.
#[derive(Clone, Debug, PartialEq)]
pub enum Sizes {
    /// All the same.
    Fixed(usize),
    /// All between the two, and these, alike.
    Uniform(usize, usize),
    /// The same, the smaller the more often: Zipf's law.
    Zipfian(usize, usize),
    /// Sizes, each with its share in percent.
    Shares(Vec<(usize, f64)>),
}

/// What the other attributes of the largest item leave.
const BYTES_MAX: usize = ITEM_BYTES_MAX - 1024;

impl Sizes {
    /// What draws them.
    #[must_use]
    pub fn draw(&self) -> SizeDraw {
        let zipf = match self {
            Self::Zipfian(least, most) => Some(Zipf::new((most - least) as u64 + 1, 0.99)),
            Self::Fixed(_) | Self::Uniform(..) | Self::Shares(_) => None,
        };
        SizeDraw { sizes: self.clone(), zipf }
    }
}

/// Draws sizes.
#[derive(Clone, Debug)]
pub struct SizeDraw {
    sizes: Sizes,
    zipf: Option<Zipf>,
}

impl SizeDraw {
    /// The next size, bytes.
    pub fn next(&self, prng: &mut Prng) -> usize {
        match &self.sizes {
            Sizes::Fixed(bytes) => *bytes,
            Sizes::Uniform(least, most) => least + prng.below((most - least) as u64 + 1) as usize,
            Sizes::Zipfian(least, _) => least + self.zipf.as_ref().map_or(0, |zipf| zipf.rank(prng) as usize),
            Sizes::Shares(shares) => {
                let mut left = unit(prng) * 100.0;
                let chosen = shares.iter().find(|(_, percent)| {
                    left -= percent;
                    left < 0.0
                });
                chosen.or(shares.last()).map_or(0, |(bytes, _)| *bytes)
            }
        }
    }
}

impl FromStr for Sizes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || {
            format!(
                "{text:?} is no distribution of sizes; write 1024, 100..4096, zipf:100..65536 or \
                 100:90%,1024:10%"
            )
        };
        let bytes = |text: &str| -> Result<usize, String> {
            let bytes = text.trim().parse().map_err(|_| refused())?;
            if bytes <= BYTES_MAX { Ok(bytes) } else { Err(format!("{text}: at most {BYTES_MAX} bytes")) }
        };
        let range = |text: &str| -> Result<(usize, usize), String> {
            let (least, most) = text.split_once("..").ok_or_else(refused)?;
            let (least, most) = (bytes(least)?, bytes(most)?);
            if least <= most { Ok((least, most)) } else { Err(format!("{text}: the smaller one is first")) }
        };
        if let Some(rest) = text.strip_prefix("zipf:") {
            return range(rest).map(|(least, most)| Self::Zipfian(least, most));
        }
        if text.contains("..") {
            return range(text).map(|(least, most)| Self::Uniform(least, most));
        }
        if !text.contains(':') {
            return bytes(text).map(Self::Fixed);
        }
        let mut shares = Vec::new();
        for part in text.split(',') {
            let (size, share) = part.split_once(':').ok_or_else(refused)?;
            let percent: f64 =
                share.trim().strip_suffix('%').and_then(|share| share.parse().ok()).ok_or_else(refused)?;
            if !(0.0..=100.0).contains(&percent) {
                return Err(format!("{part}: a share is between 0% and 100%"));
            }
            shares.push((bytes(size)?, percent));
        }
        let sum: f64 = shares.iter().map(|(_, percent)| percent).sum();
        if (sum - 100.0).abs() < 1e-6 {
            Ok(Self::Shares(shares))
        } else {
            Err(format!("{text:?}: the shares make {sum}%, not 100%"))
        }
    }
}

impl fmt::Display for Sizes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(bytes) => write!(out, "{bytes}"),
            Self::Uniform(least, most) => write!(out, "{least}..{most}"),
            Self::Zipfian(least, most) => write!(out, "zipf:{least}..{most}"),
            Self::Shares(shares) => {
                let parts: Vec<String> =
                    shares.iter().map(|(bytes, percent)| format!("{bytes}:{percent}%")).collect();
                out.write_str(&parts.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(text: &str) -> Vec<usize> {
        let (sizes, mut prng) = (text.parse::<Sizes>().unwrap().draw(), Prng::new(1));
        (0..10_000).map(|_| sizes.next(&mut prng)).collect()
    }

    #[test]
    fn sizes_are_read_and_written_alike() {
        for text in ["0", "1024", "100..4096", "zipf:1..100", "100:90%,1024:10%", "7:100%"] {
            assert_eq!(text.parse::<Sizes>().unwrap().to_string(), text);
        }
        for text in ["", "x", "-1", "9..1", "1..x", "zipf:7", "1:50%,2:49%", "1:2", "500000", "1:x%"] {
            assert!(text.parse::<Sizes>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn sizes_come_in_their_shares() {
        assert!(drawn("64").iter().all(|bytes| *bytes == 64));
        let uniform = drawn("10..19");
        assert!(
            (10..=19).all(|bytes| (800..1200).contains(&uniform.iter().filter(|b| **b == bytes).count()))
        );
        let shares = drawn("100:90%,1024:10%");
        let small = shares.iter().filter(|bytes| **bytes == 100).count();
        assert!((8800..9200).contains(&small), "{small}");
        assert!(shares.iter().all(|bytes| [100, 1024].contains(bytes)));
        let zipf = drawn("zipf:100..1099");
        let small = zipf.iter().filter(|bytes| **bytes < 200).count();
        assert!((6000..7500).contains(&small), "{small} are below 200");
        assert!(zipf.iter().all(|bytes| (100..=1099).contains(bytes)));
    }
}
