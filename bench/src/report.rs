//! Latencies, as percentiles with the counts behind them.

use crate::phases::Phases;
use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

/// The percentiles that are told, if there are enough samples behind them.
pub const PERCENTILES: [f64; 5] = [50.0, 90.0, 99.0, 99.9, 99.99];

/// Samples that must lie beyond a percentile for it to be told.
pub(crate) const BEYOND_MIN: f64 = 10.0;

/// Latencies of one kind, microseconds.
#[derive(Clone, Debug, PartialEq)]
pub struct Latencies(pub(crate) Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self::new()
    }
}

impl Latencies {
    /// None yet. Values from 1 µs to 10 minutes are kept, to three digits.
    ///
    /// # Panics
    /// Never: the bounds are constants that the histogram accepts.
    #[must_use]
    pub fn new() -> Self {
        Self(Histogram::new_with_bounds(1, 600_000_000, 3).expect("the bounds are in order"))
    }

    /// Notes one.
    pub fn record(&mut self, latency: Duration) {
        self.0.saturating_record(latency.as_micros().max(1) as u64);
    }

    /// Takes others in.
    ///
    /// # Panics
    /// Never: all have the same bounds.
    pub fn add(&mut self, others: &Self) {
        self.0.add(&others.0).expect("all histograms have the same bounds");
    }

    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// A percentile, microseconds; none when too few samples lie beyond it.
    #[must_use]
    pub fn percentile(&self, percentile: f64) -> Option<u64> {
        let beyond = self.0.len() as f64 * (100.0 - percentile) / 100.0;
        (beyond >= BEYOND_MIN).then(|| self.0.value_at_percentile(percentile))
    }

    /// The longest, microseconds.
    #[must_use]
    pub fn max(&self) -> u64 {
        self.0.max()
    }
}

/// What a run saw.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Latencies of requests that succeeded, from when they were due.
    pub latencies: Latencies,
    /// The same, from when they were sent: in a closed loop there is no difference.
    pub service: Latencies,
    /// How much later than due they were sent: the load generator's own share, or what it had to wait for
    /// because too much was under way.
    pub late: Latencies,
    /// Of the latencies, those of reads.
    pub reads: Latencies,
    /// Of the latencies, those of writes.
    pub writes: Latencies,
    /// The latencies by whether a checkpoint ran.
    pub phases: Phases,
    /// Bytes of the items that were put, as the workload counts them.
    pub bytes_put: u64,
    /// Requests that failed, by error.
    pub errors: BTreeMap<String, u64>,
    /// Reads of single items that succeeded and found nothing.
    pub missed: u64,
    /// How long it measured.
    pub measured: Duration,
    /// Requests that were due in that time; in a closed loop those that were sent.
    pub offered: u64,
    /// Requests that succeeded within that time, whenever they were due.
    pub completed: u64,
    /// Requests that nobody had answered when the run was over.
    pub unanswered: u64,
}

/// An open loop that offered this much more than it got done is no measurement of the offered rate.
pub const SHORTFALL_MAX: f64 = 0.01;

/// So many requests may be under way at the end, and not at the beginning, whatever their share is.
const GROWTH_MIN: u64 = 10;

impl Report {
    /// Takes another thread's in, which ran beside.
    pub fn add(&mut self, other: Self) {
        self.latencies.add(&other.latencies);
        self.service.add(&other.service);
        self.late.add(&other.late);
        self.reads.add(&other.reads);
        self.writes.add(&other.writes);
        self.phases.add(&other.phases);
        self.bytes_put += other.bytes_put;
        for (code, count) in other.errors {
            *self.errors.entry(code).or_default() += count;
        }
        self.missed += other.missed;
        self.measured = self.measured.max(other.measured);
        self.offered += other.offered;
        self.completed += other.completed;
        self.unanswered += other.unanswered;
    }

    /// Requests that succeeded, a second: the achieved rate.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.completed as f64 / self.measured.as_secs_f64().max(1e-9)
    }

    /// Share of the offered requests that failed or never came, or by which the queue of those under way has
    /// grown, whichever is larger.
    #[must_use]
    pub fn shortfall(&self) -> f64 {
        let lost = self.offered.saturating_sub(self.latencies.count());
        let grown = self.offered.saturating_sub(self.completed);
        let short = lost.max(if grown < GROWTH_MIN { 0 } else { grown });
        short as f64 / (self.offered as f64).max(1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_without_enough_samples_is_not_told() {
        let mut latencies = Latencies::new();
        for micros in 1..=999 {
            latencies.record(Duration::from_micros(micros));
        }
        assert_eq!(latencies.percentile(50.0), Some(500));
        assert_eq!(latencies.percentile(99.0), None, "only 9.99 samples lie beyond");
        latencies.record(Duration::from_micros(1000));
        assert_eq!(latencies.percentile(99.0), Some(990));
    }
    #[test]
    fn a_queue_that_grows_is_short_though_every_request_succeeds_in_the_end() {
        let mut report = Report { offered: 1000, completed: 1000, ..Report::default() };
        (0..1000).for_each(|_| report.latencies.record(Duration::from_millis(1)));
        assert_eq!(report.shortfall(), 0.0);
        report.completed = 991;
        assert_eq!(report.shortfall(), 0.0, "a few are under way at any time");
        report.completed = 900;
        assert_eq!(report.shortfall(), 0.1);
        report = Report { offered: 1020, completed: 1020, ..report };
        assert!((report.shortfall() - 20.0 / 1020.0).abs() < 1e-9, "what failed is lost");
    }
}
