//! The simulator: seeds pass, runs repeat exactly, planted bugs are found.
//!
//! `.ci/run` runs many more seeds with the release build.

use evenkeel::live::Part;
use evenkeel::sim::faults::Fault;
use evenkeel::sim::flips;
use evenkeel::sim::{Failure, Options, Report, run};
use evenkeel_dataplane::planted::{Planted, choose};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Seeds within which a planted bug must show.
const SEEDS_TO_FIND: u64 = 100;
/// Simulated seconds of a run with a planted bug.
const SECONDS_TO_FIND: u64 = 60;
/// Simulated seconds of a run.
const SECONDS: u64 = 30;

fn options(seed: u64, seconds: u64) -> Options {
    Options { seed, seconds, faults: None, verbose: false }
}

/// Runs seeds on all CPUs until one fails.
fn search(
    seeds: std::ops::Range<u64>,
    planted: Option<Planted>,
    faults: Option<&[Fault]>,
) -> Result<Vec<Report>, Failure> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        choose(planted);
        let seconds = if planted.is_some() { SECONDS_TO_FIND } else { SECONDS };
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(reports);
            }
            let options = Options { faults: faults.map(<[_]>::to_vec), ..options(seed, seconds) };
            match run(&options) {
                Ok(report) => reports.push(report),
                Err(failure) => {
                    next.store(seeds.end, Ordering::Relaxed);
                    return Err(failure);
                }
            }
        }
    };
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let done = workers.into_iter().map(|worker| worker.join().unwrap()).collect::<Result<Vec<_>, _>>();
        Ok(done?.into_iter().flatten().collect())
    })
}

#[test]
fn partitions_are_split_while_processes_die_and_nothing_is_lost() {
    let faults = [Fault::Split, Fault::Kill, Fault::PowerNode, Fault::Checkpoint, Fault::Drain];
    let reports = search(1..13, None, Some(&faults)).unwrap_or_else(|failure| panic!("{failure}"));
    let splits: u64 = reports.iter().map(|report| report.splits).sum();
    assert!(splits > 12, "{splits} partitions came of splits");
    // Often enough that members are moved past splits by snapshots, and pages are damaged that halves share.
    let faults = [&Fault::ALL[..], &[Fault::Split; 3]].concat();
    let reports = search(1..13, None, Some(&faults)).unwrap_or_else(|failure| panic!("{failure}"));
    let splits: u64 = reports.iter().map(|report| report.splits).sum();
    assert!(splits > 12, "{splits} partitions came of splits");
}

#[test]
fn pages_that_were_damaged_are_built_anew_and_nobody_is_served_from_them() {
    let faults = [Fault::FlipPage, Fault::Checkpoint, Fault::Kill];
    let reports = search(1..13, None, Some(&faults)).unwrap_or_else(|failure| panic!("{failure}"));
    let flips: u64 = reports.iter().filter_map(|report| report.faults.get(&Fault::FlipPage)).sum();
    let repaired: u64 = reports.iter().map(|report| report.repaired).sum();
    assert!(flips > 50 && repaired > 0, "{flips} flips, {repaired} repairs");
}

#[test]
fn bits_that_flip_are_found_and_never_served_and_repaired_from_a_peer() {
    let options = flips::Options { seed: 1, flips: 68, keys: flips::KEYS };
    let report = flips::run(&options).unwrap_or_else(|failure| panic!("{failure}"));
    let struck = [
        Part::Root,
        Part::Node,
        Part::Leaf,
        Part::Run,
        Part::Superblock,
        Part::OlderSuperblock,
        Part::ChunkHeader,
        Part::ChunkImage,
        Part::ChunkBitmap,
        Part::LogLink,
        Part::LogHeader,
        Part::LogWatermark,
        Part::LogEntry,
        Part::LogState,
    ];
    for part in struck {
        let count = report.counts.get(&part).copied().unwrap_or_default();
        assert!(count.flipped >= 2, "{part:?} was hardly struck:\n{report}");
    }
    let sum = report.sum();
    assert_eq!((sum.flipped, sum.detected(), sum.served, sum.repaired), (68, 68, 0, 68), "{report}");
    assert!(sum.by_read > 0 && sum.by_check > 0 && sum.by_start > 0, "{report}");
}

#[test]
fn pages_that_are_damaged_together_are_found_and_repaired_once_each_while_checkpoints_end() {
    for seed in 1..7 {
        let options = flips::Options { seed, flips: 60, keys: flips::KEYS };
        let report = flips::run_volleys(&options).unwrap_or_else(|failure| panic!("{failure}"));
        let (leaves, runs) = (report.counts[&Part::Leaf], report.counts[&Part::Run]);
        assert!(leaves.flipped > 4 && runs.flipped > 4, "{report}");
    }
}

#[test]
fn a_page_that_is_taken_although_its_checksum_does_not_hold_is_found() {
    choose(Some(Planted::ForgetChecksum));
    let failures =
        (1..5).filter_map(|seed| flips::run(&flips::Options { seed, flips: 17, keys: flips::KEYS }).err());
    let failures: Vec<String> = failures.map(|failure| failure.to_string()).collect();
    choose(None);
    assert_eq!(failures.len(), 4, "every seed finds it: {failures:#?}");
    println!("{failures:#?}");
}

#[test]
fn histories_under_faults_are_linearizable() {
    let reports = search(1..27, None, None).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(reports.len(), 26);
    let operations: usize = reports.iter().map(|report| report.operations).sum();
    assert!(operations > 24 * 1000, "{operations} operations in all runs");
    let faults: u64 = reports.iter().flat_map(|report| report.faults.values()).sum();
    assert!(faults > 100, "{faults} faults in all runs");
}

#[test]
fn the_same_seed_is_the_same_run() {
    for seed in [3, 4] {
        let (first, second) = (run(&options(seed, SECONDS)).unwrap(), run(&options(seed, SECONDS)).unwrap());
        assert_eq!(first, second);
        assert_ne!(first.trace, run(&options(seed + 1000, SECONDS)).unwrap().trace);
    }
}

#[test]
fn full_disks_lose_nothing_and_are_left_behind() {
    let reports = search(1..9, None, Some(&[Fault::DiskFull, Fault::Kill]));
    let reports = reports.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(reports.iter().any(|report| report.faults.contains_key(&Fault::DiskFull)));
}

fn is_found(planted: Planted) {
    let found = search(1..1 + SEEDS_TO_FIND, Some(planted), None);
    let failure = found.expect_err("the bug shows in one of the seeds");
    println!("{failure}");
}

#[test]
fn an_acknowledgement_before_the_log_is_durable_is_found() {
    is_found(Planted::AcknowledgeBeforeDurable);
}

#[test]
fn a_log_that_is_not_flushed_is_found() {
    is_found(Planted::SkipFlush);
}

#[test]
fn an_acknowledgement_before_the_quorum_is_found() {
    is_found(Planted::AcknowledgeBeforeQuorum);
}

#[test]
fn a_read_after_the_lease_is_found() {
    is_found(Planted::ReadAfterLease);
}

#[test]
fn a_token_that_executes_twice_is_found() {
    is_found(Planted::ReplayToken);
}

#[test]
fn a_member_of_an_older_epoch_that_takes_part_is_found() {
    is_found(Planted::AcceptStaleEpoch);
}
