//! Simulations.

use super::output::{bar, json, line, say};
use super::sim_hours::{self, check_rate, print_total, sum};
use super::{Ended, Failed, Global, Outcome, failed, sim_script};
use crate::sim::faults::Fault;
use crate::sim::script::Script;
use crate::sim::total::Total;
use crate::sim::world::SECOND;
use crate::sim::{Options, Report, flips, matrix, run};
use clap::Args;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Debug, Args)]
pub(super) struct Sim {
    /// The seed of the run, or of the first of several.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many seeds to run, one after the other.
    #[arg(long, default_value_t = 1)]
    seeds: u64,
    /// Simulated hours under faults, for each seed.
    #[arg(long, conflicts_with = "seconds")]
    hours: Option<f64>,
    /// Simulated seconds under faults, for each seed.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// These faults only, as their names stand in stories (FlipPage, Kill, …), instead of each seed's own
    /// mix.
    #[arg(long, value_name = "FAULT", value_delimiter = ',', conflicts_with = "matrix")]
    faults: Vec<String>,
    /// The crash matrix instead: one storage core on a disk that fails, so many operations for each seed,
    /// compared with a model at every restart.
    #[arg(long, value_name = "OPERATIONS", conflicts_with_all = ["hours", "seconds", "story"])]
    matrix: Option<u64>,
    /// Flips instead: so many bits of one node's live data, one after the other, for each seed; each must be
    /// detected, never served, and repaired from a peer.
    #[arg(long, value_name = "BITS", conflicts_with_all = ["hours", "seconds", "faults", "matrix"])]
    flips: Option<u64>,
    /// Go on with seed after seed until so many hours of clusters are simulated; --seconds is how long each
    /// takes.
    #[arg(long, value_name = "HOURS", conflicts_with_all = ["seeds", "hours", "matrix", "flips", "story"])]
    cluster_hours: Option<f64>,
    /// Keep what --cluster-hours has done in this file, and go on where it ends.
    #[arg(long, value_name = "FILE", requires = "cluster_hours")]
    log: Option<PathBuf>,
    /// Clocks also run faster and slower than leases assume; then only what needs no clock must hold.
    #[arg(long, conflicts_with_all = ["matrix", "flips"])]
    beyond: bool,
    /// Run the faults of this script, instead of a seed's.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["seed", "seeds", "hours", "seconds", "faults",
        "beyond", "matrix", "flips", "cluster_hours"])]
    script: Option<PathBuf>,
    /// Make the failure of --seed or --script as small as it is found: print it as a script, and write it to
    /// a file if one is named.
    #[arg(long, value_name = "FILE", num_args = 0..=1,
        conflicts_with_all = ["seeds", "matrix", "flips", "cluster_hours", "story"])]
    shrink: Option<Option<PathBuf>>,
    /// Threads that run seeds side by side; 0: as many as there are CPUs.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// When a seed fails, run it again and print what happened.
    #[arg(long)]
    story: bool,
    /// Plant a bug, to see that it is found (only in builds with the feature `planted`).
    #[arg(long, value_name = "NAME")]
    plant: Option<String>,
}

/// What all threads work on.
struct Shared<'a> {
    sim: &'a Sim,
    next: AtomicU64,
    reports: Mutex<Vec<Report>>,
    matrix: Mutex<matrix::Report>,
    flips: Mutex<flips::Report>,
    failures: Mutex<Vec<(u64, String)>>,
    progress: indicatif::ProgressBar,
}

impl Sim {
    pub(super) fn run(self, global: &Global) -> Outcome {
        self.check_plant()?;
        if let Some(unknown) = self.faults.iter().find(|name| Fault::named(name).is_none()) {
            let names: Vec<String> = Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect();
            return Err(failed(format!("there is no fault {unknown:?}; there are {}", names.join(", "))));
        }
        let threads = if self.threads == 0 { evenkeel_link::cpus::count() } else { self.threads };
        if self.script.is_some() || self.shrink.is_some() {
            return self.run_script(global);
        }
        if let Some(hours) = self.cluster_hours {
            return sim_hours::go(&self, hours, threads, self.log.as_deref(), global);
        }
        let shared = Shared {
            sim: &self,
            next: AtomicU64::new(self.seed),
            reports: Mutex::new(Vec::new()),
            matrix: Mutex::new(matrix::Report::default()),
            flips: Mutex::new(flips::Report::default()),
            failures: Mutex::new(Vec::new()),
            progress: bar(self.seeds, "{bar:30} seed {pos} of {len}, {elapsed}"),
        };
        std::thread::scope(|scope| {
            for _ in 0..threads.min(self.seeds as usize).max(1) {
                scope.spawn(|| shared.work());
            }
        });
        shared.progress.finish_and_clear();
        let mut reports = shared.reports.into_inner().expect("no thread panicked");
        let mut failures = shared.failures.into_inner().expect("no thread panicked");
        reports.sort_by_key(|report| report.seed);
        failures.sort();
        match (self.matrix, self.flips) {
            (None, None) => self.print(global, &reports, &failures)?,
            (None, Some(_)) => {
                let flips = shared.flips.into_inner().expect("no thread panicked");
                Self::print_flips(global, &flips, &failures)?;
            }
            (Some(_), _) => {
                let matrix = shared.matrix.into_inner().expect("no thread panicked");
                Self::print_matrix(global, &matrix, &failures)?;
            }
        }
        if failures.is_empty() {
            return Ok(Ended::Ok);
        }
        Err(failed(format!("{} of {} seeds failed", failures.len(), self.seeds)))
    }

    /// Runs one script, or makes it small.
    fn run_script(&self, global: &Global) -> Outcome {
        let script = match &self.script {
            Some(path) => Script::parse(&std::fs::read_to_string(path)?)
                .map_err(|error| failed(format!("{}: {error}", path.display())))?,
            None => Script::of(&self.options(self.seed, false)),
        };
        match &self.shrink {
            Some(out) => sim_script::make_small(self, &script, out.as_deref()),
            None => sim_script::go(self, &script, self.story, global),
        }
    }

    pub(super) fn first_seed(&self) -> u64 {
        self.seed
    }

    /// What decides the runs, beside their seeds.
    pub(super) fn what(&self) -> Value {
        let Options { seconds, faults, beyond, .. } = self.options(self.seed, false);
        let faults = faults.map(|faults| faults.iter().map(|fault| format!("{fault:?}")).collect::<Vec<_>>());
        let (first, plant) = (self.seed, &self.plant);
        json!({"first": first, "seconds": seconds, "faults": faults, "beyond": beyond, "plant": plant})
    }

    pub(super) fn options(&self, seed: u64, verbose: bool) -> Options {
        let seconds = self.hours.map_or(self.seconds, |hours| (hours * 3600.0) as u64);
        let faults: Vec<Fault> = self.faults.iter().filter_map(|name| Fault::named(name)).collect();
        let faults = (!faults.is_empty()).then_some(faults);
        Options { seed, seconds, faults, beyond: self.beyond, verbose }
    }

    fn print(&self, global: &Global, reports: &[Report], failures: &[(u64, String)]) -> Result<(), Failed> {
        let mut total = Total::default();
        reports.iter().for_each(|report| total.add(&Total::of(report)));
        if global.json {
            let report = |report: &Report| {
                json!({
                    "seed": report.seed, "trace": format!("{:016x}", report.trace), "events": report.events,
                    "operations": report.operations, "unknown": report.unknown,
                })
            };
            let reports: Vec<_> = reports.iter().map(report).collect();
            let failures: Vec<_> =
                failures.iter().map(|(seed, what)| json!({"seed": seed, "what": what})).collect();
            json(&json!({"passed": reports, "failed": failures, "sum": sum(&total)}))?;
            return self.check_rate(&total);
        }
        for report in reports {
            line(&format!(
                "seed {}: trace {:016x}, {} events, {} operations ({} of unknown outcome), {} faults, \
                 {} pages repaired",
                report.seed,
                report.trace,
                report.events,
                report.operations,
                report.unknown,
                report.faults.values().sum::<u64>(),
                report.repaired,
            ))?;
        }
        print_total(&total)?;
        failures.iter().for_each(|(_, what)| say(what));
        self.check_rate(&total)
    }

    /// A few seeds, or chosen faults, may be idle.
    fn check_rate(&self, total: &Total) -> Result<(), Failed> {
        if total.time < 3600 * SECOND || !self.faults.is_empty() { Ok(()) } else { check_rate(total) }
    }

    /// The sum over all seeds that went well.
    fn print_matrix(global: &Global, sum: &matrix::Report, failures: &[(u64, String)]) -> Result<(), Failed> {
        if global.json {
            let failures: Vec<_> =
                failures.iter().map(|(seed, what)| json!({"seed": seed, "what": what})).collect();
            return json(&json!({
                "operations": sum.operations, "killed": sum.killed, "power_failures": sum.power_failures,
                "verified": sum.verified, "refused": sum.refused, "splits": sum.splits, "failed": failures,
            }));
        }
        line(&format!(
            "{} operations; {} kills and {} power failures, and everything compared {} times; {} reads of \
             damaged pages refused; {} partitions came of splits",
            sum.operations, sum.killed, sum.power_failures, sum.verified, sum.refused, sum.splits,
        ))?;
        failures.iter().for_each(|(_, what)| say(what));
        Ok(())
    }

    /// The sum over all seeds that went well, by what was struck.
    fn print_flips(global: &Global, sum: &flips::Report, failures: &[(u64, String)]) -> Result<(), Failed> {
        if global.json {
            let failures: Vec<_> =
                failures.iter().map(|(seed, what)| json!({"seed": seed, "what": what})).collect();
            let count = |count: &flips::Count| {
                json!({
                    "flipped": count.flipped, "detected": count.detected(), "by_read": count.by_read,
                    "by_check": count.by_check, "by_start": count.by_start, "refused": count.refused,
                    "served": count.served, "repaired": count.repaired,
                })
            };
            let parts: serde_json::Map<_, _> =
                sum.counts.iter().map(|(part, of)| (format!("{part:?}"), count(of))).collect();
            return json(&json!({
                "parts": parts, "all": count(&sum.sum()), "reads": sum.reads, "failed": failures,
            }));
        }
        line(&sum.to_string())?;
        failures.iter().for_each(|(_, what)| say(what));
        Ok(())
    }

    #[cfg(feature = "planted")]
    fn check_plant(&self) -> Result<(), Failed> {
        use evenkeel_dataplane::planted::Planted;
        let Some(name) = &self.plant else {
            return Ok(());
        };
        let names: Vec<&str> = Planted::ALL.iter().map(|(name, _)| *name).collect();
        match Planted::named(name) {
            Some(_) => Ok(()),
            None => Err(failed(format!("there is no bug named {name:?}; there are {}", names.join(", ")))),
        }
    }

    #[cfg(not(feature = "planted"))]
    fn check_plant(&self) -> Result<(), Failed> {
        match self.plant {
            None => Ok(()),
            Some(_) => Err(failed("this build has no bugs to plant; build it with --features planted")),
        }
    }

    #[cfg(feature = "planted")]
    pub(super) fn plant(&self) {
        let planted = self.plant.as_deref().and_then(evenkeel_dataplane::planted::Planted::named);
        evenkeel_dataplane::planted::choose(planted);
    }

    #[cfg(not(feature = "planted"))]
    pub(super) fn plant(&self) {}
}

/// The command that runs a seed again.
pub(super) fn again(sim: &Sim, seed: u64) -> String {
    let Options { seconds, faults, beyond, .. } = sim.options(seed, false);
    let names = faults.map(|faults| faults.iter().map(|fault| format!("{fault:?}")).collect::<Vec<_>>());
    let faults = names.map_or(String::new(), |names| format!(" --faults {}", names.join(",")));
    let beyond = if beyond { " --beyond" } else { "" };
    format!("evenkeel sim --seed {seed} --seconds {seconds}{faults}{beyond} --story")
}

impl Shared<'_> {
    fn run_matrix(&self, seed: u64, operations: u64) {
        match matrix::run(&matrix::Options { seed, operations }) {
            Ok(report) => self.matrix.lock().expect("no thread panicked").add(&report),
            Err(failure) => {
                let what = format!("{failure}\n  again: evenkeel sim --seed {seed} --matrix {operations}");
                self.failures.lock().expect("no thread panicked").push((seed, what));
            }
        }
    }

    fn run_flips(&self, seed: u64, flips: u64) {
        match flips::run(&flips::Options { seed, flips, keys: flips::KEYS }) {
            Ok(report) => self.flips.lock().expect("no thread panicked").add(&report),
            Err(failure) => {
                let mut what = format!("{failure}\n  again: evenkeel sim --seed {seed} --flips {flips}");
                if self.sim.story {
                    what = format!("{}\n{what}", failure.story);
                }
                self.failures.lock().expect("no thread panicked").push((seed, what));
            }
        }
    }

    fn work(&self) {
        self.sim.plant();
        loop {
            let seed = self.next.fetch_add(1, Ordering::Relaxed);
            if seed >= self.sim.seed + self.sim.seeds {
                return;
            }
            if let Some(operations) = self.sim.matrix {
                self.run_matrix(seed, operations);
                self.progress.inc(1);
                continue;
            }
            if let Some(flips) = self.sim.flips {
                self.run_flips(seed, flips);
                self.progress.inc(1);
                continue;
            }
            match run(&self.sim.options(seed, false)) {
                Ok(report) => self.reports.lock().expect("no thread panicked").push(report),
                Err(failure) => {
                    let mut what = format!("{failure}\n  again: {}", again(self.sim, seed));
                    if self.sim.story
                        && let Err(failure) = run(&self.sim.options(seed, true))
                    {
                        what = format!("{}\n{what}", failure.story);
                    }
                    self.failures.lock().expect("no thread panicked").push((seed, what));
                }
            }
            self.progress.inc(1);
        }
    }
}
