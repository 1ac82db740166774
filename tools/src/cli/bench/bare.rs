//! What the disk does with nothing around it, before the load and after it.

use super::Failed;
use evenkeel_bench::report::Latencies;
use evenkeel_link::probe::{self, PageReads};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long each loop is measured, before and after the load.
const BARE_FOR: Duration = Duration::from_secs(2);
/// Bytes of a durable write.
pub(super) const WRITE_BYTES: usize = 4096;
/// Bytes of a read: a page of the tree.
pub(super) const PAGE_BYTES: usize = 8192;

/// A bare loop's operations.
pub(super) struct Bare {
    pub(super) latencies: Latencies,
    measured: Duration,
}

impl Bare {
    fn new(times: &[Duration], measured: Duration) -> Self {
        let mut latencies = Latencies::new();
        times.iter().for_each(|time| latencies.record(*time));
        Self { latencies, measured }
    }

    pub(super) fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.measured.as_secs_f64()
    }

    /// Takes another run of the same loop in.
    fn and(self, other: &Self) -> Self {
        let Self { mut latencies, measured } = self;
        latencies.add(&other.latencies);
        Self { latencies, measured: measured + other.measured }
    }
}

/// The disk of a folder, with the loops that go with a load.
pub(super) struct Disk {
    folder: PathBuf,
    /// Whether the load writes.
    writes: bool,
    /// For a load that reads: the file to read from.
    reads: Option<PageReads>,
    /// Reads under way.
    pub(super) depth: usize,
}

/// What the loops came to.
pub(super) struct BareLoops {
    /// One durable write after the other, as a log without anything around it would do them.
    pub(super) writes: Option<Bare>,
    /// Pages at random, as many at a time as the load has requests under way.
    pub(super) reads: Option<Bare>,
}

impl Disk {
    /// Prepares for a load that reads and writes, or does one of the two. Reads have a file of `scratch_mib`.
    pub(super) fn prepare(
        folder: &Path,
        (reads, writes): (bool, bool),
        scratch_mib: u64,
        depth: usize,
    ) -> Result<Self, Failed> {
        let prepare = || PageReads::prepare(folder, scratch_mib << 20, PAGE_BYTES);
        let reads = reads.then(prepare).transpose()?;
        Ok(Self { folder: folder.to_owned(), writes, reads, depth })
    }

    /// Runs the loops once.
    pub(super) fn run(&mut self) -> Result<BareLoops, Failed> {
        let mut loops = BareLoops { writes: None, reads: None };
        if self.writes {
            let times = probe::log_writes(&self.folder, WRITE_BYTES, BARE_FOR)?;
            loops.writes = Some(Bare::new(&times, times.iter().sum()));
        }
        if let Some(reads) = &mut self.reads {
            loops.reads = Some(Bare::new(&reads.run(self.depth, BARE_FOR)?, BARE_FOR));
        }
        Ok(loops)
    }
}

impl BareLoops {
    /// Both runs together.
    pub(super) fn and(self, other: &Self) -> Self {
        let both = |one: Option<Bare>, other: &Option<Bare>| Some(one?.and(other.as_ref()?));
        Self { writes: both(self.writes, &other.writes), reads: both(self.reads, &other.reads) }
    }
}
