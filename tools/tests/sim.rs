//! The simulator: seeds pass, runs repeat exactly, planted bugs are found.
//!
//! `.ci/run` runs many more seeds with the release build.

use evenkeel::live::Part;
use evenkeel::sim::coverage::Role;
use evenkeel::sim::faults::Fault;
use evenkeel::sim::flips;
use evenkeel::sim::script::Script;
use evenkeel::sim::total::Total;
use evenkeel::sim::{Failure, Options, Report, run, run_script, shrink};
use evenkeel_dataplane::planted::{Planted, choose};
use evenkeel_wire::prng::Prng;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// Seeds within which a planted bug must show.
const SEEDS_TO_FIND: u64 = 80;
/// Simulated seconds of a run with a planted bug.
const SECONDS_TO_FIND: u64 = 60;
/// Simulated seconds of a run.
const SECONDS: u64 = 30;

fn options(seed: u64, seconds: u64) -> Options {
    Options { seed, seconds, ..Options::default() }
}

/// Runs seeds on all CPUs until one fails.
fn search(seeds: std::ops::Range<u64>, faults: Option<&[Fault]>) -> Result<Vec<Report>, Failure> {
    let next = AtomicU64::new(seeds.start);
    let work = || {
        let mut reports = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(reports);
            }
            let options = Options { faults: faults.map(<[_]>::to_vec), ..options(seed, SECONDS) };
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
    let reports = search(1..13, Some(&faults)).unwrap_or_else(|failure| panic!("{failure}"));
    let splits: u64 = reports.iter().map(|report| report.splits).sum();
    assert!(splits > 12, "{splits} partitions came of splits");
    // Often enough that members are moved past splits by snapshots, and pages are damaged that halves share.
    let faults = [&Fault::ALL[..], &[Fault::Split; 3]].concat();
    let reports = search(1..25, Some(&faults)).unwrap_or_else(|failure| panic!("{failure}"));
    let splits: u64 = reports.iter().map(|report| report.splits).sum();
    assert!(splits > 24, "{splits} partitions came of splits");
}

#[test]
fn pages_that_were_damaged_are_built_anew_and_nobody_is_served_from_them() {
    let faults = [Fault::FlipPage, Fault::Checkpoint, Fault::Kill];
    let reports = search(1..13, Some(&faults)).unwrap_or_else(|failure| panic!("{failure}"));
    let flips: u64 = reports.iter().filter_map(|report| report.faults.get(&Fault::FlipPage)).sum();
    let repaired: u64 = reports.iter().map(|report| report.repaired).sum();
    assert!(flips > 50 && repaired > 0, "{flips} flips, {repaired} repairs");
}

#[test]
fn bits_that_flip_are_found_and_never_served_and_repaired_from_a_peer() {
    let options = flips::Options { seed: 3, flips: 68, keys: flips::KEYS };
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

/// What flips say of a bug, by seed.
fn flips_with(planted: Planted, seeds: std::ops::Range<u64>, flips: u64) -> Vec<String> {
    choose(Some(planted));
    let run = |seed| flips::run(&flips::Options { seed, flips, keys: flips::KEYS }).err();
    let failures: Vec<String> = seeds.filter_map(run).map(|failure| failure.to_string()).collect();
    choose(None);
    println!("{failures:#?}");
    failures
}

#[test]
fn a_page_that_is_taken_although_its_checksum_does_not_hold_is_found() {
    let failures = flips_with(Planted::ForgetChecksum, 1..5, 17);
    assert_eq!(failures.len(), 4, "every seed finds it");
}

#[test]
fn damage_that_is_taken_for_a_torn_tail_is_found() {
    assert_eq!(flips_with(Planted::IgnoreWatermark, 1..2, 68).len(), 1);
}

#[test]
fn histories_under_faults_are_linearizable() {
    let reports = search(1..61, None).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(reports.len(), 60);
    let operations: usize = reports.iter().map(|report| report.operations).sum();
    assert!(operations > 24 * 1000, "{operations} operations in all runs");
    let mut total = Total::default();
    reports.iter().for_each(|report| total.add(&Total::of(report)));
    assert!(total.faults_in_all() > 500 && !total.is_idle(), "{total:?}");
    // Whatever a replica does, it is killed in the middle of it; and whatever goes wrong, leaders suffer it.
    let struck =
        |fault: Fault, roles: &[Role]| roles.iter().map(|role| total.coverage.of(fault, *role)).sum::<u64>();
    let deadly = [Fault::Kill, Fault::PowerNode, Fault::PowerZone, Fault::PowerAll];
    for role in [Role::Ready, Role::Leader, Role::Candidate, Role::Follower, Role::Starting, Role::Down] {
        let times: u64 = deadly.iter().map(|fault| struck(*fault, &[role])).sum();
        assert!(times > 0, "{role:?} was never killed\n{}", total.coverage);
    }
    for fault in Fault::ALL.into_iter().filter(|fault| fault.is_borne()) {
        let struck = struck(fault, &Role::ALL) - struck(fault, &[Role::Nobody]);
        assert!(struck > 0, "{fault:?} struck nobody\n{}", total.coverage);
    }
}

#[test]
fn disks_that_lie_are_found_out() {
    let faults = [
        Fault::LoseWrite,
        Fault::TearWrite,
        Fault::MisplaceWrite,
        Fault::LoseFlush,
        Fault::Checkpoint,
        Fault::Kill,
    ];
    let reports = search(1..13, Some(&faults)).unwrap_or_else(|failure| panic!("{failure}"));
    let repaired: u64 = reports.iter().map(|report| report.repaired).sum();
    assert!(repaired > 0, "nothing was repaired");
}

#[test]
fn a_folder_of_another_version_is_refused_and_the_own_one_served_again() {
    let reports = search(1..7, Some(&[Fault::OtherFormat, Fault::PowerNode]));
    let reports = reports.unwrap_or_else(|failure| panic!("{failure}"));
    let refused: u64 = reports.iter().map(|report| report.refused).sum();
    assert!(refused > 20, "{refused} folders were refused");
}

#[test]
fn clocks_that_run_wild_make_reads_old_and_lose_nothing() {
    for seed in 1..7 {
        let options = Options { beyond: true, ..options(seed, SECONDS) };
        let report = run(&options).unwrap_or_else(|failure| panic!("{failure}"));
        assert!(seed > 1 || report.faults.contains_key(&Fault::DriftBeyond));
    }
}

/// Variants of a script within which the bug that it leads to must show.
const VARIANTS: u64 = 60;

/// A script, and the same with the faults of its second half some seconds earlier or later: the traffic
/// between the faults is another one after each change of the program.
fn variants(script: &Script) -> impl Iterator<Item = Script> {
    (0..VARIANTS).map(|variant| {
        let mut moved = script.clone();
        let (mut prng, moves) = (Prng::new(variant), 8_000_000);
        for strike in moved.strikes.iter_mut().filter(|strike| variant > 0 && strike.at > script.duration / 2)
        {
            strike.at = strike.at.saturating_add(prng.below(moves) * 1000).saturating_sub(moves / 2 * 1000);
        }
        moved.strikes.sort_by_key(|strike| strike.at);
        moved
    })
}

/// What seeds have found, made small; each with the bug that it still leads to if that is planted, or without
/// one, if the traffic has changed so much that it does not lead there any more.
#[test]
fn scripts_of_bugs_that_were_found_end_well_and_without_the_repair_they_do_not() {
    let scripts = [
        (include_str!("scripts/leader-of-a-damaged-tree.sim"), Some(Planted::NeverStepAside)),
        (include_str!("scripts/candidate-that-slept-through-removals.sim"), Some(Planted::LearnerVotes)),
        (include_str!("scripts/learner-that-forgot.sim"), Some(Planted::CourtTheForgetful)),
        (include_str!("scripts/checkpoint-of-a-removed-partition.sim"), None),
    ];
    for (script, planted) in scripts {
        let script = Script::parse(script).unwrap();
        let found = variants(&script).find_map(|script| {
            run_script(&script, false).unwrap_or_else(|failure| panic!("{failure}"));
            choose(planted);
            let failure = run_script(&script, false).err();
            choose(None);
            failure
        });
        match found {
            Some(failure) => println!("{planted:?}: {failure}"),
            None => assert_eq!(planted, None, "the planted bug shows"),
        }
    }
}

#[test]
fn a_script_is_the_run_that_it_was_made_of() {
    let options = options(5, SECONDS);
    let script = Script::of(&options);
    let again = Script::parse(&script.to_string()).unwrap();
    assert_eq!(run_script(&again, false).unwrap(), run(&options).unwrap());
}

#[test]
fn a_failing_run_is_made_small_and_fails_in_the_same_way() {
    choose(Some(Planted::ReadAfterLease));
    let failing = (1..40).map(|seed| Script::of(&options(seed, SECONDS_TO_FIND)));
    let failing = failing.filter(|script| script.strikes.len() > 30);
    let (script, failure) = failing
        .filter_map(|script| run_script(&script, false).err().map(|failure| (script, failure)))
        .next()
        .unwrap();
    let shrunk = shrink::shrink(&script, 150, |_| ()).expect("it fails");
    let text = shrunk.script.annotated(&shrunk.failure.told);
    let again = run_script(&Script::parse(&text).unwrap(), false).expect_err("it still fails");
    choose(None);
    println!("{text}{again}, after {} runs", shrunk.runs);
    assert_eq!(shrink::way(&again.what), shrink::way(&failure.what));
    assert!(shrunk.script.strikes.len() * 5 < script.strikes.len(), "{text}");
    assert!(shrunk.script.duration <= script.duration);
    run_script(&shrunk.script, false).unwrap_or_else(|failure| panic!("without the bug: {failure}"));
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
    let reports = search(1..9, Some(&[Fault::DiskFull, Fault::Kill]));
    let reports = reports.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(reports.iter().any(|report| report.faults.contains_key(&Fault::DiskFull)));
}

/// Bugs, each with the faults that bring it out. docs/testing.md lists those that are not found yet.
const PLANTED: [(Planted, &[Fault]); 19] = {
    use Fault::*;
    [
        (Planted::AcknowledgeBeforeDurable, &[PowerAll, PowerNode, Kill]),
        (Planted::SkipFlush, &[PowerAll, PowerNode, Kill]),
        (Planted::AcknowledgeBeforeQuorum, &[Kill, Partition, PowerNode]),
        (Planted::ReadAfterLease, &[Partition, Pause, OneWay]),
        (Planted::ReplayToken, &[BreakLink, Kill, KillFront, Stall]),
        (Planted::AcceptStaleEpoch, &[Ghost]),
        (Planted::ForgetPromise, &[Kill, PowerNode, Partition, Pause]),
        (Planted::KeepSuperseded, &[Kill, PowerNode, Partition, BreakLink]),
        (Planted::CommitBeyondMatch, &[Partition, OneWay, Kill, Pause, Stall]),
        (Planted::IgnorePending, &[]),
        (Planted::SplitForgetsTokens, &[Split, BreakLink, Stall, OneWay, KillFront]),
        (Planted::CheckpointForgetsTokens, &[Checkpoint, Kill, KillFront, PowerNode]),
        (Planted::CheckpointForgetsOpen, &[Checkpoint, Kill, PowerNode, PowerAll]),
        (Planted::SnapshotOverNewer, &[LoseFlush, Kill, SlowDisk, FlipBit, BreakLink]),
        (Planted::ServeMovedKeys, &[Split, Kill]),
        (Planted::IgnoreFrozen, &[Checkpoint, SlowDisk]),
        (Planted::ForgetDeletion, &[Checkpoint]),
        (Planted::VoteWithDamage, &[FlipBit, Partition, Pause, Kill]),
        (Planted::RenewAnyBallot, &[Partition, OneWay, Pause]),
    ]
};

/// What a seed says of a bug.
fn found_by(planted: Planted, faults: &[Fault], seed: u64) -> Option<Failure> {
    choose(Some(planted));
    let options = Options { faults: Some(faults.to_vec()), ..options(seed, SECONDS_TO_FIND) };
    let failure = run(&options).err();
    choose(None);
    failure
}

/// Works on all bugs on all CPUs.
fn for_each_bug(work: impl Fn(Planted, &[Fault]) + Sync) {
    let next = AtomicU64::new(0);
    let threads = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some((planted, faults)) = PLANTED.get(next.fetch_add(1, Ordering::Relaxed) as usize)
                {
                    work(*planted, faults);
                }
            });
        }
    });
}

#[test]
fn planted_bugs_are_found() {
    let missed = Mutex::new(Vec::new());
    for_each_bug(|planted, faults| {
        match (1..=SEEDS_TO_FIND).find_map(|seed| found_by(planted, faults, seed)) {
            Some(failure) => println!("{planted:?}: {failure}"),
            None => missed.lock().unwrap().push(planted),
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "{missed:?} are not found");
}

#[test]
#[ignore = "minutes: it says how likely each bug is to be found"]
fn how_many_of_twenty_seeds_find_each_bug() {
    for_each_bug(|planted, faults| {
        let found: Vec<Failure> = (1..=20).filter_map(|seed| found_by(planted, faults, seed)).collect();
        let first = found.first().map_or("nothing".to_owned(), ToString::to_string);
        println!("{planted:?}: {} of 20; {}", found.len(), first.lines().next().unwrap_or(""));
    });
}
