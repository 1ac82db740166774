//! Are two sides different, or do they differ by chance?
//!
//! The sample is what was measured: runs, and the seconds within each. A circular block bootstrap draws runs
//! with replacement, and within each run blocks of seconds that follow each other (their length is the cube
//! root of their number, so that what one second does to the next is kept), puts the histograms of what was
//! drawn together, and takes each percentile of each side. The ratio of the two, over [`RESAMPLES`] draws,
//! has a spread. A difference is significant when that spread leaves 1 out, at a level of 1% over all figures
//! that are compared together (Bonferroni), and the ratio itself is at least [`Settings::least`] away from 1:
//! a difference that nobody would mind is none.
//!
//! Of one run for each side the spread holds what happens within a run, not what differs between runs.

use crate::report::Latencies;
use evenkeel_wire::prng::Prng;
use serde::Serialize;

/// Draws.
pub const RESAMPLES: usize = 5000;
/// Chance that any figure of two equal sides is called different.
pub const LEVEL: f64 = 0.01;
/// Percentiles that are compared, as far as both sides have enough samples.
pub const PERCENTILES: [f64; 4] = [50.0, 90.0, 99.0, 99.9];
/// Seconds of a run are put together until there are no more than this.
const UNITS_MAX: usize = 240;
/// Bins of latencies are so much wider than the one below.
const BIN_RATIO: f64 = 1.005;

/// One run, by seconds.
#[derive(Clone, Debug)]
pub struct Run {
    /// What arrived in each second that was measured.
    pub seconds: Vec<Latencies>,
}

/// How to compare.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// The least difference that counts: 0.03 is 3%.
    pub least: f64,
    /// Decides the draws.
    pub seed: u64,
}

/// What became of a figure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No significant difference.
    Same,
    /// Better, significantly.
    Better,
    /// Worse, significantly.
    Worse,
}

/// A figure of both sides.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// `p99`, or `rate`.
    pub name: String,
    /// Of the first side: microseconds, or requests a second.
    pub before: f64,
    /// Of the second.
    pub after: f64,
    /// The second to the first.
    pub ratio: f64,
    /// The spread of that ratio.
    pub spread: (f64, f64),
    /// What to think of it.
    pub verdict: Verdict,
}

/// Compares two sides, each of at least one run with at least one second. Without samples there are no
/// figures.
#[must_use]
pub fn compare(before: &[Run], after: &[Run], settings: Settings) -> Vec<Figure> {
    let sides = [Side::new(before), Side::new(after)];
    if sides.iter().any(|side| side.total.count() == 0) {
        return Vec::new();
    }
    let told = |percentile: &f64| sides.iter().all(|side| side.total.percentile(*percentile).is_some());
    let percentiles: Vec<f64> = PERCENTILES.into_iter().filter(told).collect();
    let figures = percentiles.len() + 1;
    let mut prng = Prng::new(settings.seed);
    let mut ratios = vec![Vec::with_capacity(RESAMPLES); figures];
    for _ in 0..RESAMPLES {
        let [before, after] = [0, 1].map(|side: usize| sides[side].draw(&percentiles, &mut prng));
        for (place, ratios) in ratios.iter_mut().enumerate() {
            ratios.push(after[place] / before[place]);
        }
    }
    let [before, after] = sides.each_ref().map(|side| side.figures(&percentiles));
    let names = percentiles.iter().map(|percentile| format!("p{percentile}")).chain(["rate".to_owned()]);
    let level = LEVEL / figures as f64;
    let judged = names.zip(ratios).enumerate().map(|(place, (name, mut ratios))| {
        ratios.sort_by(f64::total_cmp);
        let at = |share: f64| ratios[((RESAMPLES as f64 * share) as usize).min(RESAMPLES - 1)];
        let (spread, ratio) = ((at(level / 2.0), at(1.0 - level / 2.0)), after[place] / before[place]);
        let apart = (spread.0 > 1.0 || spread.1 < 1.0) && (ratio - 1.0).abs() >= settings.least;
        let more_is_worse = name != "rate";
        let verdict = match (apart, (ratio > 1.0) == more_is_worse) {
            (false, _) => Verdict::Same,
            (true, true) => Verdict::Worse,
            (true, false) => Verdict::Better,
        };
        Figure { name, before: before[place], after: after[place], ratio, spread, verdict }
    });
    judged.collect()
}

/// Bins with something in them, each with how much.
type Sparse = Vec<(u16, u32)>;

struct Side {
    runs: Vec<Vec<Sparse>>,
    total: Latencies,
    /// Answers, and the seconds in which they came.
    seconds: usize,
    /// Seconds that one unit holds, of each run.
    unit_seconds: Vec<f64>,
}

impl Side {
    fn new(runs: &[Run]) -> Self {
        let mut side =
            Self { runs: Vec::new(), total: Latencies::new(), seconds: 0, unit_seconds: Vec::new() };
        for run in runs.iter().filter(|run| !run.seconds.is_empty()) {
            let per_unit = run.seconds.len().div_ceil(UNITS_MAX);
            let units = run.seconds.chunks(per_unit).map(|seconds| {
                let mut unit = Latencies::new();
                seconds.iter().for_each(|second| unit.add(second));
                side.total.add(&unit);
                binned(&unit)
            });
            let units: Vec<Sparse> = units.collect();
            side.unit_seconds.push(run.seconds.len() as f64 / units.len() as f64);
            side.runs.push(units);
            side.seconds += run.seconds.len();
        }
        side
    }

    fn figures(&self, percentiles: &[f64]) -> Vec<f64> {
        let value = |percentile: &f64| self.total.percentile(*percentile).unwrap_or(0).max(1) as f64;
        let rate = self.total.count() as f64 / self.seconds as f64;
        percentiles.iter().map(value).chain([rate]).collect()
    }

    /// The figures of one draw.
    fn draw(&self, percentiles: &[f64], prng: &mut Prng) -> Vec<f64> {
        let (mut bins, mut count, mut seconds) = (Vec::<u64>::new(), 0, 0.0);
        for _ in 0..self.runs.len() {
            let place = prng.below(self.runs.len() as u64) as usize;
            let units = &self.runs[place];
            let block = (units.len() as f64).cbrt().ceil() as usize;
            let mut drawn = 0;
            while drawn < units.len() {
                let start = prng.below(units.len() as u64) as usize;
                for step in 0..block.min(units.len() - drawn) {
                    for (bin, samples) in &units[(start + step) % units.len()] {
                        let bin = usize::from(*bin);
                        if bin >= bins.len() {
                            bins.resize(bin + 1, 0);
                        }
                        bins[bin] += u64::from(*samples);
                        count += u64::from(*samples);
                    }
                    drawn += 1;
                }
            }
            seconds += units.len() as f64 * self.unit_seconds[place];
        }
        let values = percentiles.iter().map(|percentile| quantile(&bins, count, percentile / 100.0));
        values.chain([count.max(1) as f64 / seconds]).collect()
    }
}

fn binned(latencies: &Latencies) -> Sparse {
    let mut sparse = Sparse::new();
    for step in latencies.0.iter_recorded() {
        let bin = (step.value_iterated_to().max(1) as f64).log(BIN_RATIO) as u16;
        let samples = step.count_at_value() as u32;
        match sparse.last_mut() {
            Some((last, sum)) if *last == bin => *sum += samples,
            Some(_) | None => sparse.push((bin, samples)),
        }
    }
    sparse
}

/// A quantile of bins; between their borders in proportion, so that a draw moves it a little, not by a bin.
fn quantile(bins: &[u64], count: u64, quantile: f64) -> f64 {
    let wanted = count as f64 * quantile;
    let mut below = 0.0;
    for (bin, samples) in bins.iter().enumerate() {
        let samples = *samples as f64;
        if samples > 0.0 && below + samples >= wanted {
            return BIN_RATIO.powf(bin as f64 + (wanted - below) / samples);
        }
        below += samples;
    }
    1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::unit;
    use std::time::Duration;

    /// Runs of exponential latencies around `mean_us`, in which each second is a little unlike the last.
    fn runs(count: usize, seconds: usize, mean_us: f64, seed: u64) -> Vec<Run> {
        let mut prng = Prng::new(seed);
        let second = |prng: &mut Prng, mood: &mut f64| {
            *mood = 0.7 * *mood + 0.06 * (unit(prng) - 0.5);
            let mut latencies = Latencies::new();
            for _ in 0..400 {
                let us = mean_us * (1.0 + *mood) * (0.2 - (1.0 - unit(prng)).ln());
                latencies.record(Duration::from_micros(us as u64 + 1));
            }
            latencies
        };
        let run = |_| {
            let mut mood = 0.0;
            Run { seconds: (0..seconds).map(|_| second(&mut prng, &mut mood)).collect() }
        };
        (0..count).map(run).collect()
    }

    fn verdicts(before: &[Run], after: &[Run]) -> Vec<(String, Verdict)> {
        let figures = compare(before, after, Settings { least: 0.03, seed: 1 });
        figures.into_iter().map(|figure| (figure.name, figure.verdict)).collect()
    }

    #[test]
    fn equal_samples_are_not_different() {
        for (runs_each, seconds) in [(1, 30), (3, 20)] {
            for seed in 0..4 {
                let before = runs(runs_each, seconds, 1000.0, seed);
                let after = runs(runs_each, seconds, 1000.0, seed + 100);
                let verdicts = verdicts(&before, &after);
                assert!(verdicts.len() >= 4, "{verdicts:?}");
                assert!(
                    verdicts.iter().all(|(_, verdict)| *verdict == Verdict::Same),
                    "{seed}: {verdicts:?}"
                );
            }
        }
    }

    #[test]
    fn a_shift_of_a_fifth_is_found_and_has_a_direction() {
        for (runs_each, seconds) in [(1, 30), (3, 20)] {
            let (before, after) = (runs(runs_each, seconds, 1000.0, 1), runs(runs_each, seconds, 1200.0, 2));
            let of = |verdicts: Vec<(String, Verdict)>, name: &str| {
                verdicts.into_iter().find(|(known, _)| known == name).map(|(_, verdict)| verdict)
            };
            for name in ["p50", "p90", "p99"] {
                assert_eq!(of(verdicts(&before, &after), name), Some(Verdict::Worse), "{name}");
                assert_eq!(of(verdicts(&after, &before), name), Some(Verdict::Better), "{name}");
            }
            assert_eq!(of(verdicts(&before, &after), "rate"), Some(Verdict::Same));
        }
    }

    #[test]
    fn a_rate_that_falls_is_worse_and_small_differences_do_not_count() {
        let before = runs(2, 20, 1000.0, 1);
        let half = |run: &Run| Run {
            seconds: run
                .seconds
                .iter()
                .enumerate()
                .map(|(number, second)| if number % 2 == 0 { second.clone() } else { Latencies::new() })
                .collect(),
        };
        let after: Vec<Run> = before.iter().map(half).collect();
        let figures = compare(&before, &after, Settings { least: 0.03, seed: 1 });
        let rate = figures.iter().find(|figure| figure.name == "rate").unwrap();
        assert_eq!((rate.verdict, (rate.ratio * 100.0).round()), (Verdict::Worse, 50.0));
        let after = runs(2, 20, 1200.0, 2);
        let figures = compare(&before, &after, Settings { least: 0.5, seed: 1 });
        assert!(figures.iter().all(|figure| figure.verdict == Verdict::Same), "{figures:?}");
    }

    #[test]
    fn sides_without_samples_have_no_figures() {
        let empty = [Run { seconds: vec![Latencies::new()] }];
        assert!(compare(&empty, &runs(1, 5, 10.0, 1), Settings { least: 0.03, seed: 1 }).is_empty());
    }
}
