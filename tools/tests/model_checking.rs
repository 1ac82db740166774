//! The replication protocol under every order of events within small bounds, and bugs that must be found.
//!
//! What takes longer than a few seconds is ignored here, and run by `.ci/run explore`; larger bounds are
//! explored by the example `model`. What is explored, and what is not: docs/decisions/0013-model-checking.md.

mod model;

use evenkeel_dataplane::planted::Planted;
use model::{Exploration, Report, Search, bounds};

fn explore(bound: &str, planted: Option<Planted>, search: Search) -> Report {
    let bound = bounds::named(bound).expect("there is such a bound");
    let threads = match search {
        Search::Everything => std::thread::available_parallelism().map_or(1, usize::from),
        // The nearest violation is the nearest only with one.
        Search::Nearest => 1,
    };
    Exploration::new(bound, planted).run(search, threads, |_, _| ())
}

/// Everything within the bound is as it must be, and what makes it worth looking at is within it.
fn holds(bound: &str, states: usize) {
    let report = explore(bound, None, Search::Everything);
    assert!(report.violated.is_empty() && report.missed.is_empty(), "{report}");
    assert!(report.exhausted, "{report}");
    assert_eq!(
        report.states, states,
        "the model or the protocol has changed: say so where bounds are told of"
    );
}

/// The bug breaks what it must break, and the story of it can be told.
fn is_found(planted: Planted, bound: &str, broken: &str) {
    let report = explore(bound, Some(planted), Search::Nearest);
    let (_, story) = report
        .violated
        .iter()
        .find(|(name, _)| *name == broken)
        .unwrap_or_else(|| panic!("{planted:?} is not found:\n{report}"));
    assert!(story.contains("=>") && story.lines().count() > 5, "{story}");
}

#[test]
fn a_group_is_born_and_serves_whatever_is_lost() {
    holds("birth", BIRTH_STATES);
}

#[test]
fn one_replica_is_not_a_quorum() {
    is_found(Planted::AcknowledgeBeforeQuorum, "birth", "no acknowledged write is lost");
}

#[test]
fn what_a_follower_has_in_memory_is_not_durable() {
    is_found(Planted::AcceptBeforeDurable, "birth", "no acknowledged write is lost");
}

#[test]
fn a_repetition_is_not_a_write() {
    is_found(Planted::ReplayToken, "writes", "no write executes twice");
}

#[test]
fn the_longest_log_is_not_the_best() {
    is_found(Planted::AdoptLongest, "overtaken", "agreement");
}

#[test]
fn who_lost_its_memory_is_no_part_of_a_quorum() {
    is_found(Planted::CountRefilling, "forgotten", "no assertion of the code fails");
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn who_lost_its_memory_leads_by_the_others_promises() {
    holds("forgotten", FORGOTTEN_STATES);
    holds("refused", REFUSED_STATES);
}

#[test]
fn a_lease_that_has_run_out_is_none() {
    is_found(Planted::ReadAfterLease, "lease", "lease exclusivity");
}

#[test]
fn what_an_older_leader_left_is_not_committed_by_its_length() {
    is_found(Planted::CommitInherited, "restored", "agreement");
}

#[test]
fn a_roll_renews_no_lease_of_a_ballot_that_is_over() {
    is_found(Planted::RollIgnoresBallot, "rolls", "lease exclusivity");
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn a_lease_counts_from_when_it_was_asked_for() {
    is_found(Planted::LeaseFromReceipt, "late", "lease exclusivity");
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn clocks_drift_apart_while_a_lease_runs_out() {
    is_found(Planted::ForgetDrift, "lapse", "lease exclusivity");
    holds("lapse", LAPSE_STATES);
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn leases_exclude_each_other_whatever_becomes_of_rolls() {
    holds("rolls", ROLLS_STATES);
    holds("rolls-twice", ROLLS_TWICE_STATES);
    holds("rolls-restart", ROLLS_RESTART_STATES);
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn leases_exclude_each_other_through_elections_restarts_and_hand_overs() {
    holds("lease", LEASE_STATES);
    holds("restart", RESTART_STATES);
    holds("hand-over", HAND_OVER_STATES);
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn two_that_want_to_lead_again_agree() {
    holds("restored", RESTORED_STATES);
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn writes_hold_wherever_a_crash_or_a_loss_falls() {
    holds("writes", WRITES_STATES);
    holds("twice", TWICE_STATES);
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn a_promise_that_is_not_durable_is_none() {
    is_found(Planted::PromiseBeforeDurable, "restart", "no assertion of the code fails");
}

#[test]
#[ignore = "a minute: .ci/run explore"]
fn a_new_leader_waits_for_the_old_lease() {
    is_found(Planted::ServeWithoutWaiting, "lease", "lease exclusivity");
}

const BIRTH_STATES: usize = 53_679;
const WRITES_STATES: usize = 103_551;
const TWICE_STATES: usize = 277_650;
const LEASE_STATES: usize = 8_800_584;
const RESTART_STATES: usize = 12_247_941;
const HAND_OVER_STATES: usize = 3_800_199;
const ROLLS_STATES: usize = 222_451;
const ROLLS_TWICE_STATES: usize = 642_427;
const ROLLS_RESTART_STATES: usize = 1_342_307;
const LAPSE_STATES: usize = 10_717_154;
const FORGOTTEN_STATES: usize = 5_111_172;
const REFUSED_STATES: usize = 14_470_781;
const RESTORED_STATES: usize = 3_586_090;
