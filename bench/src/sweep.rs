//! Looking for the knee: the highest rate that is served without a queue growing or the tail exploding.
//!
//! Rates are doubled from the first until one is not served well, then the gap between the last good one and
//! the first bad one is halved until it is small. A bad rate is tried a second time before it is believed:
//! one hiccup of the host must not pass for the server's limit.

use serde::Serialize;

/// How to look.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The first rate, requests a second.
    pub first: f64,
    /// The highest rate that is tried.
    pub most: f64,
    /// The highest p99 that is good, microseconds; `None`: [`EXPLODED`] times that of the first rate.
    pub p99_us: Option<u64>,
    /// How close the good and the bad rate come to each other, as a ratio above 1.
    pub within: f64,
}

/// A p99 so many times that of the first rate has exploded.
pub const EXPLODED: f64 = 10.0;
/// Below this rate nothing is looked for.
const RATE_MIN: f64 = 1.0;

/// What a rate came to.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Point {
    /// Requests that were offered, a second.
    pub rate: f64,
    /// Requests that succeeded, a second.
    pub achieved: f64,
    /// Latencies behind the percentiles. Without any, the rate was not measured, and is not good.
    pub requests: u64,
    /// Share of the offered ones that was short, as [`Report::shortfall`](crate::report::Report::shortfall).
    pub shortfall: f64,
    /// Whether it was short, so that its percentiles are no measurement.
    pub short: bool,
    /// Percentiles from when requests were due, microseconds, if there were enough samples.
    pub p50_us: Option<u64>,
    /// The same.
    pub p99_us: Option<u64>,
    /// The same.
    pub p999_us: Option<u64>,
    /// The longest, microseconds.
    pub max_us: u64,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    limits: Limits,
    good: Option<Point>,
    bad: Option<f64>,
    /// The rate that was bad once.
    doubted: Option<f64>,
    /// The p99 above which a rate is bad.
    p99_us_max: Option<f64>,
    next: Option<f64>,
}

impl Search {
    /// Begins.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        let p99_us_max = limits.p99_us.map(|us| us as f64);
        let next = Some(limits.first.min(limits.most));
        Self { limits, good: None, bad: None, doubted: None, p99_us_max, next }
    }

    /// The rate to try next; none when the search is over.
    #[must_use]
    pub fn next(&self) -> Option<f64> {
        self.next
    }

    /// The rate of [`next`](Self::next) came to this. Returns whether it was served well.
    pub fn found(&mut self, point: Point) -> bool {
        let exploded = |most: f64| point.p99_us.or(Some(point.max_us)).is_some_and(|us| us as f64 > most);
        let bad = point.short || point.requests == 0 || self.p99_us_max.is_some_and(exploded);
        if bad && self.doubted != Some(point.rate) {
            self.doubted = Some(point.rate);
            return false;
        }
        if bad {
            self.bad = Some(point.rate);
        } else {
            self.p99_us_max = self.p99_us_max.or_else(|| point.p99_us.map(|us| us as f64 * EXPLODED));
            self.good = Some(point);
        }
        self.next = match (self.good.map(|good| good.rate), self.bad) {
            (Some(good), None) if good >= self.limits.most => None,
            (Some(good), None) => Some((good * 2.0).min(self.limits.most)),
            (Some(good), Some(bad)) if bad / good <= self.limits.within => None,
            (Some(good), Some(bad)) => Some(rounded(good, bad)),
            (None, Some(bad)) if bad / 2.0 < RATE_MIN => None,
            (None, Some(bad)) => Some(bad / 2.0),
            (None, None) => None,
        };
        !bad
    }

    /// The highest rate that was served well so far.
    #[must_use]
    pub fn knee(&self) -> Option<Point> {
        self.good
    }
}

/// A rate between two others that is short to write.
fn rounded(good: f64, bad: f64) -> f64 {
    let middle = (good * bad).sqrt();
    let step = 10f64.powf((bad - good).log10().floor() - 1.0).max(1e-3);
    let rounded = (middle / step).round() * step;
    if rounded > good && rounded < bad { rounded } else { middle }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server of one queue: it serves `capacity`, and its tail grows as it comes near.
    fn served(rate: f64, capacity: f64) -> Point {
        let short = rate > capacity;
        let busy = (rate / capacity).min(0.999_9);
        let p99 = (500.0 / (1.0 - busy)) as u64;
        Point {
            rate,
            achieved: rate.min(capacity),
            requests: 1000,
            shortfall: (1.0 - capacity / rate).max(0.0),
            short,
            p50_us: Some(p99 / 5),
            p99_us: Some(p99),
            p999_us: None,
            max_us: p99 * 2,
        }
    }

    fn knee(limits: Limits, capacity: f64) -> (Option<f64>, usize) {
        let (mut search, mut tried) = (Search::new(limits), 0);
        while let Some(rate) = search.next() {
            search.found(served(rate, capacity));
            tried += 1;
            assert!(tried < 60, "the search ends");
        }
        (search.knee().map(|point| point.rate), tried)
    }

    const LIMITS: Limits = Limits { first: 1000.0, most: 1e6, p99_us: None, within: 1.1 };

    #[test]
    fn the_knee_is_where_the_tail_explodes_or_the_rate_is_short() {
        // Ten times the first p99 is reached at 90% of the capacity and a little more.
        let (rate, _) = knee(LIMITS, 37_000.0);
        assert!((0.82..0.91).contains(&(rate.unwrap() / 37_000.0)), "{rate:?}");
        let loose = Limits { p99_us: Some(u64::MAX), ..LIMITS };
        let (rate, _) = knee(loose, 37_000.0);
        assert!((0.9..=1.0).contains(&(rate.unwrap() / 37_000.0)), "{rate:?}");
        let (rate, _) = knee(Limits { p99_us: Some(1_000), ..LIMITS }, 37_000.0);
        assert!((0.44..=0.5).contains(&(rate.unwrap() / 37_000.0)), "{rate:?}");
    }

    #[test]
    fn a_first_rate_that_is_too_high_is_halved_and_the_highest_is_not_passed() {
        let (rate, _) = knee(LIMITS, 100.0);
        assert!(rate.unwrap() < 100.0 && rate.unwrap() > 60.0, "{rate:?}");
        assert_eq!(knee(LIMITS, 0.1).0, None);
        let mut nothing = Search::new(Limits { first: 1.5, ..LIMITS });
        let point = Point { requests: 0, ..served(1.5, 10.0) };
        assert!(!nothing.found(point) && !nothing.found(point));
        assert_eq!((nothing.next(), nothing.knee()), (None, None));
        let (rate, tried) = knee(Limits { most: 3000.0, ..LIMITS }, 1e9);
        assert_eq!((rate, tried), (Some(3000.0), 3));
    }

    #[test]
    fn one_bad_measurement_is_not_believed() {
        let mut search = Search::new(LIMITS);
        assert!(search.found(served(1000.0, 1e5)));
        assert!(!search.found(served(2000.0, 1e3)), "the host had a hiccup");
        assert_eq!(search.next(), Some(2000.0));
        assert!(search.found(served(2000.0, 1e5)));
        assert_eq!(search.next(), Some(4000.0));
        search.found(served(4000.0, 1e3));
        assert!(!search.found(served(4000.0, 1e3)));
        assert!((2000.0..4000.0).contains(&search.next().unwrap()));
    }
}
