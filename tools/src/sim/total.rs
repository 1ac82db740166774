//! The sum of many runs.

use super::Report;
use super::coverage::Coverage;
use super::faults::Fault;
use super::world::SECOND;
use std::collections::BTreeMap;

/// Operations per simulated second below which a run counts as idle, and its hours for nothing.
pub const OPERATIONS_PER_SECOND_MIN: f64 = 10.0;

/// The sum of runs that went well.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Total {
    /// How many.
    pub seeds: u64,
    /// Simulated nanoseconds.
    pub time: u64,
    /// Events.
    pub events: u64,
    /// Operations that returned.
    pub operations: u64,
    /// Operations whose outcome nobody learned.
    pub unknown: u64,
    /// How often each fault came up.
    pub faults: BTreeMap<Fault, u64>,
    /// Whom they struck.
    pub coverage: Coverage,
    /// Folders of another version that were refused.
    pub refused: u64,
    /// Cores that stopped themselves.
    pub halts: u64,
    /// Damaged pages that were repaired, by the processes that lived in the end.
    pub repaired: u64,
    /// Partitions that splits made.
    pub splits: u64,
}

impl Total {
    /// The sum of one run.
    #[must_use]
    pub fn of(report: &Report) -> Self {
        Self {
            seeds: 1,
            time: report.time,
            events: report.events,
            operations: report.operations as u64,
            unknown: report.unknown as u64,
            faults: report.faults.clone(),
            coverage: report.coverage.clone(),
            refused: report.refused,
            halts: report.halts as u64,
            repaired: report.repaired,
            splits: report.splits,
        }
    }

    /// Adds another sum.
    pub fn add(&mut self, other: &Self) {
        self.seeds += other.seeds;
        self.time += other.time;
        self.events += other.events;
        self.operations += other.operations;
        self.unknown += other.unknown;
        for (fault, count) in &other.faults {
            *self.faults.entry(*fault).or_default() += count;
        }
        self.coverage.add(&other.coverage);
        self.refused += other.refused;
        self.halts += other.halts;
        self.repaired += other.repaired;
        self.splits += other.splits;
    }

    /// Simulated hours.
    #[must_use]
    pub fn hours(&self) -> f64 {
        self.time as f64 / (3600 * SECOND) as f64
    }

    /// Faults of all kinds.
    #[must_use]
    pub fn faults_in_all(&self) -> u64 {
        self.faults.values().sum()
    }

    /// Operations that returned per simulated second.
    #[must_use]
    pub fn operations_per_second(&self) -> f64 {
        self.operations as f64 * SECOND as f64 / self.time.max(1) as f64
    }

    /// Whether so little was done that the time shows nothing.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.operations_per_second() < OPERATIONS_PER_SECOND_MIN
    }
}
