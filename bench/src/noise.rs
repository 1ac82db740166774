//! What the host itself adds: how often the CPU is taken away, and how late timers are. A tail that a quiet
//! server shows on a noisy host is the host's.

use crate::clock::{now, sleep};
use crate::report::Latencies;
use serde::Serialize;
use std::time::Duration;

/// How long the CPU is watched.
const SPIN: Duration = Duration::from_secs(1);
/// A step of the clock, between two looks at it, in which somebody else had the CPU: an interrupt takes less.
const GAP_MIN: Duration = Duration::from_micros(10);
/// Timers that are watched, and for how long each is set.
const TIMERS: usize = 1000;
const TIMER: Duration = Duration::from_micros(200);

/// The host is noisy when the CPU was taken away for a larger share of the time, …
pub const STOLEN_MAX: f64 = 0.01;
/// …or once for longer, microseconds, …
pub const GAP_US_MAX: u64 = 5_000;
/// …or when one timer in a hundred was later, microseconds.
pub const TIMER_LATE_US_MAX: u64 = 1_000;

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Noise {
    /// How long the CPU was watched.
    pub spun_seconds: f64,
    /// Share of that time in which somebody else had it.
    pub stolen: f64,
    /// The longest time without it, microseconds.
    pub gap_us_max: u64,
    /// How many gaps of at least 10 us, 100 us, 1 ms and 10 ms there were.
    pub gaps: Gaps,
    /// How late timers were, microseconds: the median, …
    pub timer_late_us_p50: u64,
    /// …one in a hundred, …
    pub timer_late_us_p99: u64,
    /// …and the latest.
    pub timer_late_us_max: u64,
}

/// Gaps, each counted once, by the least that it lasted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[allow(missing_docs, reason = "each is the least that the gaps in it lasted")]
pub struct Gaps {
    pub us_10: u64,
    pub us_100: u64,
    pub ms_1: u64,
    pub ms_10: u64,
}

impl Noise {
    /// Watches for about one and a half seconds. Nothing should be started meanwhile.
    #[must_use]
    pub fn measure() -> Self {
        let start = now();
        let (mut last, mut gaps) = (start, Vec::new());
        while last - start < SPIN {
            let time = now();
            if time - last >= GAP_MIN {
                gaps.push(time - last);
            }
            last = time;
        }
        let mut late = Latencies::new();
        for _ in 0..TIMERS {
            let due = now() + TIMER;
            sleep(TIMER);
            late.record(now().saturating_duration_since(due));
        }
        Self::of(last - start, &gaps, &late)
    }

    fn of(spun: Duration, gaps: &[Duration], late: &Latencies) -> Self {
        let stolen: Duration = gaps.iter().sum();
        let mut counts = Gaps::default();
        for gap in gaps {
            *(match gap.as_micros() {
                0..100 => &mut counts.us_10,
                100..1_000 => &mut counts.us_100,
                1_000..10_000 => &mut counts.ms_1,
                10_000.. => &mut counts.ms_10,
            }) += 1;
        }
        Self {
            spun_seconds: spun.as_secs_f64(),
            stolen: stolen.as_secs_f64() / spun.as_secs_f64(),
            gap_us_max: gaps.iter().max().map_or(0, |gap| gap.as_micros() as u64),
            gaps: counts,
            timer_late_us_p50: late.percentile(50.0).unwrap_or(0),
            timer_late_us_p99: late.percentile(99.0).unwrap_or(0),
            timer_late_us_max: late.max(),
        }
    }

    /// Why the host counts as noisy; empty: it does not.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        if self.stolen > STOLEN_MAX {
            complaints.push(format!("the CPU was taken away for {:.1}% of a second", self.stolen * 100.0));
        }
        if self.gap_us_max > GAP_US_MAX {
            complaints.push(format!("once for {:.1} ms", self.gap_us_max as f64 / 1e3));
        }
        if self.timer_late_us_p99 > TIMER_LATE_US_MAX {
            let late = self.timer_late_us_p99 as f64 / 1e3;
            complaints.push(format!("one timer in a hundred was {late:.1} ms late"));
        }
        complaints
    }

    /// One line for people.
    #[must_use]
    pub fn line(&self) -> String {
        format!(
            "host: CPU taken away for {:.2}% of {:.0} s, longest {} us; timers late by p50 {} us, p99 {} us, \
             max {} us",
            self.stolen * 100.0,
            self.spun_seconds,
            self.gap_us_max,
            self.timer_late_us_p50,
            self.timer_late_us_p99,
            self.timer_late_us_max
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(gaps_us: &[u64], late_us: u64) -> Noise {
        let gaps: Vec<Duration> = gaps_us.iter().map(|us| Duration::from_micros(*us)).collect();
        let mut late = Latencies::new();
        (0..1000).for_each(|_| late.record(Duration::from_micros(late_us)));
        Noise::of(SPIN, &gaps, &late)
    }

    #[test]
    fn gaps_are_counted_and_a_noisy_host_is_said_to_be_noisy() {
        let quiet = noise(&[12, 150, 1_500], 60);
        assert!(quiet.complaints().is_empty(), "{quiet:?}");
        assert_eq!(quiet.gaps, Gaps { us_10: 1, us_100: 1, ms_1: 1, ms_10: 0 });
        assert_eq!((quiet.gap_us_max, quiet.timer_late_us_p99), (1_500, 60));
        for (noise, words) in [
            (noise(&[12_000], 60), vec!["1.2%", "12.0 ms"]),
            (noise(&[4_000; 5], 60), vec!["2.0%"]),
            (noise(&[], 2_000), vec!["2.0 ms late"]),
        ] {
            let complaints = noise.complaints();
            assert_eq!(complaints.len(), words.len(), "{complaints:?}");
            assert!(complaints.iter().zip(words).all(|(said, words)| said.contains(words)), "{complaints:?}");
        }
    }

    #[test]
    fn a_real_host_can_be_watched() {
        let noise = Noise::measure();
        assert!(noise.spun_seconds >= 1.0 && (0.0..=1.0).contains(&noise.stolen), "{noise:?}");
        assert!(noise.timer_late_us_p50 <= noise.timer_late_us_max, "{noise:?}");
    }
}
