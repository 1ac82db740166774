//! Simulations that go on, seed after seed, until so many cluster-hours are simulated. A log keeps what was
//! done, so that a run that was interrupted goes on where it stopped.

use super::output::{count, json, line, say};
use super::sim::{Sim, again};
use super::{Ended, Failed, Global, Outcome, failed};
use crate::sim::coverage::{Coverage, Role};
use crate::sim::faults::Fault;
use crate::sim::run;
use crate::sim::total::Total;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::sync::Mutex;

/// Failures after which it makes no sense to go on.
const FAILURES_MAX: usize = 50;
/// Progress is told this often, in parts of the whole.
const PROGRESS_PARTS: f64 = 50.0;

/// What all threads work on.
struct Campaign {
    hours: f64,
    total: Total,
    /// Seeds that are done.
    done: BTreeSet<u64>,
    next: u64,
    failures: BTreeMap<u64, String>,
    log: Option<File>,
    told: f64,
}

impl Campaign {
    fn is_over(&self) -> bool {
        self.total.hours() >= self.hours || self.failures.len() >= FAILURES_MAX
    }

    fn next_seed(&mut self) -> u64 {
        while self.done.contains(&self.next) {
            self.next += 1;
        }
        self.next += 1;
        self.next - 1
    }

    fn take(&mut self, seed: u64, outcome: Result<Total, String>) -> std::io::Result<()> {
        if let Some(log) = &mut self.log {
            let entry = match &outcome {
                Ok(total) => written(seed, total),
                Err(what) => json!({"seed": seed, "failed": what}),
            };
            writeln!(log, "{entry}")?;
        }
        self.count(seed, outcome);
        let part = self.total.hours() / self.hours * PROGRESS_PARTS;
        if part >= self.told + 1.0 {
            self.told = part.floor();
            say(&format!("{:3.0}% {}", part / PROGRESS_PARTS * 100.0, self.words()));
        }
        Ok(())
    }

    fn count(&mut self, seed: u64, outcome: Result<Total, String>) {
        self.done.insert(seed);
        match outcome {
            Ok(total) => self.total.add(&total),
            Err(what) => {
                say(&what);
                self.failures.insert(seed, what);
            }
        }
    }

    fn words(&self) -> String {
        format!(
            "{:.1} of {} cluster-hours in {} seeds: {} operations ({:.1} per simulated second), {} faults, \
             {} seeds failed",
            self.total.hours(),
            self.hours,
            count(self.total.seeds),
            count(self.total.operations),
            self.total.operations_per_second(),
            count(self.total.faults_in_all()),
            self.failures.len(),
        )
    }
}

/// Runs seeds until so many hours are simulated.
pub(super) fn go(sim: &Sim, hours: f64, threads: usize, log: Option<&Path>, global: &Global) -> Outcome {
    let mut campaign = Campaign {
        hours,
        total: Total::default(),
        done: BTreeSet::new(),
        next: sim.first_seed(),
        failures: BTreeMap::new(),
        log: None,
        told: 0.0,
    };
    if let Some(path) = log {
        campaign.log = Some(resume(path, &sim.what(), &mut campaign)?);
        campaign.told = (campaign.total.hours() / hours * PROGRESS_PARTS).floor();
    }
    let campaign = Mutex::new(campaign);
    let broken = Mutex::new(None);
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                sim.plant();
                loop {
                    let seed = {
                        let mut campaign = campaign.lock().expect("no thread panicked");
                        if campaign.is_over() || broken.lock().expect("no thread panicked").is_some() {
                            return;
                        }
                        campaign.next_seed()
                    };
                    let outcome = run(&sim.options(seed, false));
                    let outcome = outcome
                        .map(|report| Total::of(&report))
                        .map_err(|failure| format!("{failure}\n  again: {}", again(sim, seed)));
                    let taken = campaign.lock().expect("no thread panicked").take(seed, outcome);
                    if let Err(error) = taken {
                        *broken.lock().expect("no thread panicked") = Some(error);
                    }
                }
            });
        }
    });
    if let Some(error) = broken.into_inner().expect("no thread panicked") {
        return Err(failed(format!("the log cannot be written: {error}")));
    }
    let campaign = campaign.into_inner().expect("no thread panicked");
    let Campaign { total, failures, .. } = &campaign;
    if global.json {
        json(&json!({"sum": sum(total), "failed": failures.iter().map(|(seed, what)| {
            json!({"seed": seed, "what": what})
        }).collect::<Vec<_>>()}))?;
    } else {
        line(&campaign.words())?;
        print_total(total)?;
    }
    if !failures.is_empty() {
        return Err(failed(format!("{} seeds failed", failures.len())));
    }
    check_rate(total)?;
    Ok(Ended::Ok)
}

/// Hours in which next to nothing was asked are no hours of a cluster.
pub(super) fn check_rate(total: &Total) -> Result<(), Failed> {
    if total.is_idle() {
        return Err(failed(format!(
            "{:.1} operations per simulated second are too few to show anything; there must be {}",
            total.operations_per_second(),
            crate::sim::total::OPERATIONS_PER_SECOND_MIN
        )));
    }
    Ok(())
}

/// What a sum says beside its counts.
pub(super) fn print_total(total: &Total) -> Result<(), Failed> {
    line(&format!(
        "{:.2} cluster-hours, {} operations ({} of unknown outcome; {:.1} per simulated second), {} faults, \
         {} cores halted, {} pages repaired, {} partitions came of splits, {} foreign folders refused",
        total.hours(),
        count(total.operations),
        count(total.unknown),
        total.operations_per_second(),
        count(total.faults_in_all()),
        count(total.halts),
        count(total.repaired),
        count(total.splits),
        count(total.refused),
    ))?;
    line(&total.coverage.to_string())
}

/// A sum, for programs.
pub(super) fn sum(total: &Total) -> Value {
    let faults: Map<String, Value> =
        total.faults.iter().map(|(fault, count)| (format!("{fault:?}"), json!(count))).collect();
    let struck: Map<String, Value> = Fault::ALL
        .iter()
        .map(|fault| {
            let of = |role: &Role| (format!("{role:?}"), json!(total.coverage.of(*fault, *role)));
            (format!("{fault:?}"), Value::Object(Role::ALL.iter().map(of).collect()))
        })
        .collect();
    json!({
        "seeds": total.seeds, "hours": total.hours(), "operations": total.operations,
        "operations_per_second": total.operations_per_second(), "unknown": total.unknown,
        "events": total.events, "faults": faults, "struck": struck, "refused": total.refused,
        "halts": total.halts, "repaired": total.repaired, "splits": total.splits,
    })
}

/// One seed's line in the log.
fn written(seed: u64, total: &Total) -> Value {
    let faults: Map<String, Value> =
        total.faults.iter().map(|(fault, count)| (format!("{fault:?}"), json!(count))).collect();
    let struck: Vec<Value> = total
        .coverage
        .struck
        .iter()
        .map(|((fault, role), times)| json!([format!("{fault:?}"), format!("{role:?}"), times]))
        .collect();
    json!({
        "seed": seed, "time": total.time, "events": total.events, "operations": total.operations,
        "unknown": total.unknown, "faults": faults, "struck": struck, "refused": total.refused,
        "halts": total.halts, "repaired": total.repaired, "splits": total.splits,
    })
}

/// Reads what [`written`] wrote. None: it is something else, or its kinds are not of this build.
fn read(entry: &Value) -> Option<(u64, Result<Total, String>)> {
    let seed = entry["seed"].as_u64()?;
    if let Some(what) = entry["failed"].as_str() {
        return Some((seed, Err(what.to_owned())));
    }
    let number = |name: &str| entry[name].as_u64();
    let mut total = Total {
        seeds: 1,
        time: number("time")?,
        events: number("events")?,
        operations: number("operations")?,
        unknown: number("unknown")?,
        faults: BTreeMap::new(),
        coverage: Coverage::default(),
        refused: number("refused")?,
        halts: number("halts")?,
        repaired: number("repaired")?,
        splits: number("splits")?,
    };
    for (name, count) in entry["faults"].as_object()? {
        total.faults.insert(Fault::named(name)?, count.as_u64()?);
    }
    for struck in entry["struck"].as_array()? {
        let fault = Fault::named(struck[0].as_str()?)?;
        let role = Role::ALL.into_iter().find(|role| Some(&*format!("{role:?}")) == struck[1].as_str())?;
        total.coverage.count(fault, role, struck[2].as_u64()?);
    }
    Some((seed, Ok(total)))
}

/// Opens a log, and counts what it says was done: by a run with the same settings only.
fn resume(path: &Path, what: &Value, campaign: &mut Campaign) -> Result<File, Failed> {
    let mut whole = 0;
    if path.exists() {
        let mut reader = BufReader::new(File::open(path)?);
        let mut text = String::new();
        let mut number = 0;
        while reader.read_line(&mut text)? > 0 {
            // What was being written when the run was interrupted counts for nothing.
            if !text.ends_with('\n') {
                break;
            }
            number += 1;
            let wrong = || failed(format!("{}: line {number} is none of this run's", path.display()));
            let entry: Value = serde_json::from_str(&text).map_err(|_| wrong())?;
            if number == 1 {
                if entry != *what {
                    return Err(failed(format!(
                        "{} is of another run ({entry}); this one is {what}",
                        path.display()
                    )));
                }
            } else {
                let (seed, outcome) = read(&entry).ok_or_else(wrong)?;
                campaign.count(seed, outcome);
            }
            whole += text.len() as u64;
            text.clear();
        }
    }
    let mut log = File::options().create(true).append(true).open(path)?;
    log.set_len(whole)?;
    if whole == 0 {
        writeln!(log, "{what}")?;
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Options;

    fn campaign() -> Campaign {
        Campaign {
            hours: 1.0,
            total: Total::default(),
            done: BTreeSet::new(),
            next: 1,
            failures: BTreeMap::new(),
            log: None,
            told: 0.0,
        }
    }

    #[test]
    fn a_run_goes_on_where_its_log_ends_and_not_where_another_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let what = json!({"seconds": 5});
        let report = run(&Options { seed: 3, seconds: 5, ..Options::default() }).unwrap();
        let mut first = campaign();
        first.log = Some(resume(&path, &what, &mut campaign()).unwrap());
        first.take(1, Ok(Total::of(&report))).unwrap();
        first.take(2, Err("what must not be".to_owned())).unwrap();
        write!(first.log.as_mut().unwrap(), "{{\"seed\": 3").unwrap();
        for _ in 0..2 {
            let mut again = campaign();
            resume(&path, &what, &mut again).unwrap();
            assert_eq!((&again.total, &again.failures), (&first.total, &first.failures));
            assert_eq!(again.next_seed(), 3);
        }
        assert!(resume(&path, &json!({"seconds": 6}), &mut campaign()).is_err());
    }

    #[test]
    fn hours_without_work_count_for_nothing() {
        let second = crate::sim::world::SECOND;
        let total = |operations| Total { time: 100 * second, operations, ..Total::default() };
        assert!(check_rate(&total(1000)).is_ok() && check_rate(&total(999)).is_err());
    }
}
