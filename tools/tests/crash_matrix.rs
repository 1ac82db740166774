//! The crash matrix of the storage engine: seeds pass, and planted bugs are found (docs/testing.md).
//!
//! `evenkeel sim --seeds 200 --matrix 5000` runs a million operations with the release build.

use evenkeel::sim::Failure;
use evenkeel::sim::matrix::{Options, Report, run};
use evenkeel_dataplane::planted::{Planted, choose};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Seeds of the usual run.
const SEEDS: u64 = 12;
/// Operations of each.
const OPERATIONS: u64 = 5000;
/// Seeds within which a planted bug must show.
const SEEDS_TO_FIND: u64 = 40;
/// Operations of each.
const OPERATIONS_TO_FIND: u64 = 4000;

/// Runs seeds on all CPUs until one fails.
fn search(seeds: u64, operations: u64, planted: Option<Planted>) -> Result<Vec<Report>, Failure> {
    let next = AtomicU64::new(1);
    let work = || {
        choose(planted);
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed > seeds {
                return Ok(reports);
            }
            match run(&Options { seed, operations }) {
                Ok(report) => reports.push(report),
                Err(failure) => {
                    next.store(seeds, Ordering::Relaxed);
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
fn no_crash_loses_or_changes_what_was_acknowledged() {
    let reports = search(SEEDS, OPERATIONS, None).unwrap_or_else(|failure| panic!("{failure}"));
    let sum = |of: fn(&Report) -> u64| reports.iter().map(of).sum::<u64>();
    assert!(sum(|report| report.operations) >= SEEDS * OPERATIONS);
    assert!(sum(|report| report.killed) > SEEDS && sum(|report| report.power_failures) > SEEDS);
    assert!(sum(|report| report.refused) > 0, "damage was found");
    assert!(sum(|report| report.splits) > SEEDS, "partitions were split");
}

#[test]
fn the_same_seed_is_the_same_run() {
    let options = Options { seed: 3, operations: 1000 };
    assert_eq!(run(&options).unwrap(), run(&options).unwrap());
}

fn is_found(planted: Planted) {
    let found = search(SEEDS_TO_FIND, OPERATIONS_TO_FIND, Some(planted));
    println!("{}", found.expect_err("the bug shows in one of the seeds"));
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
fn a_superblock_before_its_pages_is_found() {
    is_found(Planted::SuperblockBeforePages);
}

#[test]
fn a_block_that_is_used_again_too_early_is_found() {
    is_found(Planted::ReuseTooEarly);
}

#[test]
fn a_stale_page_in_the_cache_is_found() {
    is_found(Planted::StaleCachePage);
}

#[test]
fn a_checksum_that_is_not_compared_is_found() {
    is_found(Planted::ForgetChecksum);
}

#[test]
fn a_split_whose_copied_pages_are_not_flushed_is_found() {
    is_found(Planted::SplitWithoutFlush);
}

#[test]
fn what_was_read_at_the_start_and_not_flushed_is_found() {
    is_found(Planted::ServeUnflushed);
}

#[test]
fn a_completion_that_overtakes_is_found() {
    is_found(Planted::CountAnyCompletion);
}

#[test]
fn the_older_of_two_superblocks_is_found() {
    is_found(Planted::OlderSuperblock);
}
