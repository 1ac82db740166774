//! Real processes under faults: a cluster in network namespaces, clients that note what they see, and the
//! judgement of it.
//!
//! * [`zones`]: the network. [`stand`]: the processes, and what can be done to them.
//! * [`load`]: the clients. [`asker`]: one that asks a storage core directly. [`figures`]: latencies and
//!   unavailability from what they noted.
//! * [`fill`]: data that must be there. [`faults`]: the random mix. [`scenarios`]: single faults, each with
//!   what it must show.
//!
//! A run happens in network, process and mount namespaces of its own, of which this process is the first:
//! when it ends, in whatever way, the kernel ends all that it started.

pub mod asker;
pub mod faults;
pub mod figures;
pub mod fill;
pub mod load;
pub mod scenarios;
pub mod stand;
pub mod zones;

use crate::check::{CheckError, check_core};
use crate::cluster::ClusterError;
use crate::folder::{self, FolderError};
use crate::linearizability::Call;
use crate::local::LocalError;
use crate::sim::history::{History, Operation};
use evenkeel_wire::prng::Prng;
use faults::Fault;
use figures::{Window, millis, windows};
use load::{Done, Load, Outcome, Plan};
use scenarios::Scenario;
use serde_json::{Map, Value, json};
use stand::{Stand, pause};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use thiserror::Error;

/// A partition that takes no write for this long is counted as unavailable, nanoseconds.
const UNAVAILABLE: u64 = 1_000_000_000;
/// How often the mix looks at what is due.
const STEP: Duration = Duration::from_millis(50);
/// Faults at the same time.
const FAULTS_MAX: usize = 2;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Ends the run as soon as it can be.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::Relaxed);
}

fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Why a run cannot go on.
#[derive(Debug, Error)]
pub enum TortureError {
    /// The host has no such network.
    #[error("this host cannot have the network of a run: {0}")]
    Zone(#[from] zones::ZoneError),
    /// Processes or their folder.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    /// Ids.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A process cannot be signalled or waited for.
    #[error("a process of the cluster: {0}")]
    Process(std::io::Error),
    /// A client, while the cluster must be well.
    #[error("a client of a cluster that should be well: {0}")]
    Client(#[from] evenkeel_client::Error),
    /// A data folder cannot be opened.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A data folder cannot be checked.
    #[error(transparent)]
    Check(#[from] CheckError),
    /// Something is not as it must be.
    #[error("{0}")]
    Wrong(String),
    /// Somebody asked for the end.
    #[error("interrupted")]
    Interrupted,
}

/// What a run does.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides faults and clients.
    pub seed: u64,
    /// How long faults go on, or each phase of a scenario.
    pub time: Option<Duration>,
    /// These faults instead of the seed's own mix.
    pub faults: Option<Vec<Fault>>,
    /// This scenario instead of a mix.
    pub scenario: Option<Scenario>,
    /// How often a scenario does it.
    pub runs: Option<u64>,
    /// Data that a scenario begins with, MiB.
    pub data: Option<u64>,
    /// Clients; as many as suit the run, if it is not said.
    pub clients: Option<usize>,
    /// An empty folder for the cluster.
    pub folder: PathBuf,
}

/// What came of a run.
#[derive(Debug, Default)]
pub struct Report {
    /// Faults, by kind.
    pub faults: BTreeMap<String, u64>,
    /// The mix that they were taken from.
    pub mix: Vec<String>,
    /// What a scenario measured.
    pub figures: Map<String, Value>,
    /// Promises that were broken; empty: none.
    pub violations: Vec<String>,
    /// Figures beyond their bound.
    pub missed: Vec<String>,
    /// Everything that clients did, in the order in which it ended.
    pub done: Vec<Done>,
    /// Ids of the partitions.
    pub partitions: Vec<u64>,
    /// Operations on each register.
    pub registers: Vec<Vec<Call<Operation>>>,
    /// Rows that were acknowledged, and found.
    pub rows: usize,
}

impl Report {
    fn count(&self, of: impl Fn(&Outcome) -> bool) -> usize {
        self.done.iter().filter(|done| of(&done.outcome)).count()
    }

    /// Operations that were answered, refused, and of unknown outcome.
    #[must_use]
    pub fn operations(&self) -> [usize; 3] {
        [
            self.count(|outcome| *outcome == Outcome::Answered),
            self.count(|outcome| matches!(outcome, Outcome::Refused(_))),
            self.count(|outcome| matches!(outcome, Outcome::Unknown(_))),
        ]
    }

    /// Times without a write, of each partition: all of a second or more, longest first; and the longest.
    #[must_use]
    pub fn unavailability(&self) -> Vec<(u64, Vec<Window>, u64)> {
        let begin = self.done.iter().map(|done| done.ended).min().unwrap_or_default();
        let end = self.done.iter().map(|done| done.ended).max().unwrap_or_default();
        let of = |(place, id): (usize, &u64)| {
            let mut all = windows(&self.done, place, begin, end);
            let longest = all.first().map_or(0, |window| window.length());
            all.retain(|window| window.length() >= UNAVAILABLE);
            (*id, all, longest)
        };
        self.partitions.iter().enumerate().map(of).collect()
    }

    /// All of it but the histories, for programs.
    #[must_use]
    pub fn to_json(&self, options: &Options) -> Value {
        let [answered, refused, unknown] = self.operations();
        let unavailability = self.unavailability().into_iter().map(|(partition, windows, longest)| {
            json!({
                "partition": partition, "longest_ms": millis(longest), "windows": windows.len(),
                "windows_ms": windows.iter().map(|window| millis(window.length())).collect::<Vec<_>>(),
            })
        });
        let mut errors: BTreeMap<&str, u64> = BTreeMap::new();
        for done in &self.done {
            if let Outcome::Refused(why) | Outcome::Unknown(why) = &done.outcome {
                *errors.entry(why).or_default() += 1;
            }
        }
        json!({
            "seed": options.seed, "scenario": options.scenario.map(Scenario::name), "mix": self.mix,
            "faults": self.faults, "answered": answered, "refused": refused, "unknown": unknown,
            "errors": errors, "registers": self.registers.len(), "rows": self.rows,
            "unavailability": unavailability.collect::<Vec<_>>(), "figures": self.figures,
            "violations": self.violations, "missed": self.missed,
        })
    }

    /// The histories, one operation a line: register, call, return (or never), operation.
    #[must_use]
    pub fn history(&self) -> String {
        let calls = self.registers.iter().enumerate();
        let calls = calls.flat_map(|(register, calls)| calls.iter().map(move |call| (register, call)));
        let line = |(register, call): (usize, &Call<Operation>)| {
            let operation = format!("{:?}", call.operation);
            let (called, returned) = (call.called, call.returned);
            let value = json!({
                "register": register, "called": called, "returned": returned, "operation": operation,
            });
            format!("{value}\n")
        };
        calls.map(line).collect()
    }
}

/// Runs it. `progress` is told what happens.
///
/// # Errors
/// When the run cannot be made or was interrupted. What is wrong with the cluster stands in the report.
pub fn run(options: &Options, progress: &mut dyn FnMut(&str)) -> Result<Report, TortureError> {
    let mut report = Report::default();
    progress("starting a cluster");
    let mut stand = Stand::begin(&options.folder, options.scenario.is_some_and(Scenario::wants_spare_node))?;
    let mix_plan = || MIX.lasting(options.time.unwrap_or(MIX_TIME));
    let plan = options.scenario.map_or_else(mix_plan, Scenario::plan);
    let plan = Plan { seed: options.seed, clients: options.clients.unwrap_or(plan.clients), ..plan };
    let mut load = Load::begin(&stand.endpoints(), plan)?;
    let outcome = match options.scenario {
        None => mix(options, &mut stand, &load, &mut report, progress),
        Some(scenario) => scenarios::run(scenario, options, &mut stand, &mut load, &mut report, progress),
    };
    let outcome = outcome.and_then(|()| judge(&mut stand, &mut load, &mut report, progress));
    match outcome {
        Ok(()) => {}
        Err(TortureError::Interrupted) => return Err(TortureError::Interrupted),
        Err(error) => report.violations.push(error.to_string()),
    }
    if report.done.is_empty() {
        load.end();
        load.take_into(&mut report);
    }
    Ok(report)
}

/// How long a mix goes on, if it is not said.
const MIX_TIME: Duration = Duration::from_secs(60);

/// Clients of a mix.
const MIX: Plan = Plan {
    clients: 24,
    partitions: 6,
    registers: 8,
    generations: 1,
    think: Duration::from_millis(10),
    deadline: Duration::from_secs(6),
    seed: 0,
};

/// Faults by chance.
fn mix(
    options: &Options,
    stand: &mut Stand,
    load: &Load,
    report: &mut Report,
    progress: &mut dyn FnMut(&str),
) -> Result<(), TortureError> {
    let mut prng = Prng::new(options.seed);
    let mut mix = Fault::mix(&mut prng);
    if let Some(faults) = &options.faults {
        mix.clone_from(faults);
    }
    report.mix = mix.iter().map(|fault| format!("{fault:?}")).collect();
    let end = load.now() + options.time.unwrap_or(MIX_TIME).as_nanos() as u64;
    let (mut active, mut next) = (Vec::new(), load.now());
    while load.now() < end {
        if interrupted() {
            return Err(TortureError::Interrupted);
        }
        stand.check_processes()?;
        let now = load.now();
        let (due, later): (Vec<_>, Vec<_>) = active.into_iter().partition(|(due, _)| *due <= now);
        active = later;
        for (_, undo) in due {
            faults::undo(undo, stand)?;
        }
        if now >= next {
            next = now + prng.below(3_000_000_000);
            let fault = *prng.pick(&mix);
            let time = faults::duration(&mut prng);
            if active.len() < FAULTS_MAX
                && let Some(undo) = faults::apply(fault, stand, &mut prng)?
            {
                progress(&format!("{fault:?} for {} ms", time.as_millis()));
                active.push((load.now() + time.as_nanos() as u64, undo));
                *report.faults.entry(format!("{fault:?}")).or_default() += 1;
            }
        }
        pause(STEP);
    }
    Ok(())
}

/// Puts everything right, and looks whether the cluster recovers by itself and kept its promises.
fn judge(
    stand: &mut Stand,
    load: &mut Load,
    report: &mut Report,
    progress: &mut dyn FnMut(&str),
) -> Result<(), TortureError> {
    progress("everything is put right");
    stand.put_right()?;
    stand.wait_until_healthy()?;
    // The cluster is well while clients still write.
    let since = load.now();
    stand.wait_for("writes in every partition", |_| load.all_wrote_after(since).then_some(()))?;
    load.end();
    stand.wait_until_caught_up()?;
    progress("reading everything");
    let complaints = load.last_words(&stand.endpoints());
    load.take_into(report);
    report.violations.extend(complaints?);
    progress("checking histories");
    let history = History::of(std::mem::take(&mut report.registers));
    let verdict = history.check();
    report.registers = history.into_keys();
    report.violations.extend(verdict.err());
    progress("ending the cluster, and checking its folders");
    let names = stand.cluster().names();
    for name in &names {
        stand.drain(name)?;
    }
    for name in &names {
        stand.wait_until_ended(name)?;
    }
    for node in &stand.cluster().config().nodes {
        let data = stand.cluster().data_path(&format!("n{}", node.id));
        let folder = folder::open_read_only(&data)?;
        for core in 0..folder.cores.len() as u16 {
            let checked = check_core(&folder, core, &mut |_, _| ())?;
            let findings = checked.findings.iter().map(|finding| format!("node {}: {finding}", node.id));
            report.violations.extend(findings);
        }
    }
    Ok(())
}
