//! Real processes under faults.
//!
//! The verb runs itself once more, as the first process of new network, process and mount namespaces
//! (`unshare`, from util-linux): what it makes there is seen nowhere else, and the kernel ends all of it with
//! that process, however it ends. Between the two is a pipe; when it is closed, the run ends.

use super::output::{columns, json, keep_moving, line, say};
use super::{Ended, Failed, Global, Outcome, demo, failed};
use crate::local::temporary_folder;
use crate::process::entropy;
use crate::torture::faults::Fault;
use crate::torture::figures::millis;
use crate::torture::scenarios::Scenario;
use crate::torture::{self, Options, Report, TortureError};
use clap::Args;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// How long the run may take to end when it is asked to.
const END_WITHIN: Duration = Duration::from_secs(20);
/// How often it is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// What it needs of the host.
const NEEDED: [&str; 5] = ["ip", "tc", "unshare", "nsenter", "mount"];

#[derive(Debug, Args)]
pub(super) struct Torture {
    /// The seed of faults and clients; one by chance, if none is given.
    #[arg(long)]
    seed: Option<u64>,
    /// How long faults go on, as in 30s, 5m: a minute, if it is not said. In a scenario, how long each of its
    /// phases takes.
    #[arg(long = "for", value_name = "TIME", value_parser = demo::duration)]
    time: Option<Duration>,
    /// These faults only (KillNode, CutZone, …) instead of the seed's own mix.
    #[arg(long, value_name = "FAULT", value_delimiter = ',', conflicts_with = "scenario")]
    faults: Vec<String>,
    /// One fault, measured: leader-kill, hand-over, one-way, stopped-leader, slow-disk or lost-node.
    #[arg(long, value_name = "NAME")]
    scenario: Option<String>,
    /// How often a scenario does it.
    #[arg(long, requires = "scenario")]
    runs: Option<u64>,
    /// MiB of data that lost-node begins with: 256, if it is not said.
    #[arg(long, value_name = "MIB", requires = "scenario")]
    data: Option<u64>,
    /// Threads that write and read.
    #[arg(long)]
    clients: Option<usize>,
    /// Where the histories and the processes' messages are kept when a run fails.
    #[arg(long, value_name = "FOLDER", default_value = "evenkeel-torture")]
    report: PathBuf,
    /// Set by the verb itself: the folder of the cluster, in the namespaces of the run.
    #[arg(long, hide = true)]
    inside: Option<PathBuf>,
}

impl Torture {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let faults = self.faults.iter().map(|name| {
            let names: Vec<String> = Fault::ALL.iter().map(|fault| format!("{fault:?}")).collect();
            let unknown = || failed(format!("there is no fault {name:?}; there are {}", names.join(", ")));
            Fault::named(name).ok_or_else(unknown)
        });
        let faults: Vec<Fault> = faults.collect::<Result<_, _>>()?;
        let scenario = self.scenario.as_deref().map(|name| {
            let names: Vec<&str> = Scenario::ALL.into_iter().map(Scenario::name).collect();
            let unknown = || failed(format!("there is no scenario {name:?}; there are {}", names.join(", ")));
            Scenario::named(name).ok_or_else(unknown)
        });
        let scenario = scenario.transpose()?;
        let Some(folder) = &self.inside else {
            return self.outside();
        };
        if std::process::id() != 1 {
            return Err(failed("--inside is not for people; leave it out"));
        }
        let options = Options {
            seed: self.seed.unwrap_or_default(),
            time: self.time,
            faults: (!faults.is_empty()).then_some(faults),
            scenario,
            runs: self.runs,
            data: self.data,
            clients: self.clients,
            folder: folder.clone(),
        };
        self.inside(global, &options)
    }

    /// Makes the namespaces, and waits for what happens in them.
    #[allow(clippy::disallowed_methods, reason = "waiting for a process is a door's work")]
    fn outside(&self) -> Outcome {
        if let Some(why) = why_not() {
            say(&format!("skipped: {why}"));
            return Ok(Ended::Skipped);
        }
        // Signals are taken from here on, so that nothing is left behind whenever ^C comes.
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let folder = temporary_folder("evenkeel-torture-")?;
        let mut command = separate();
        command.arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
        command.arg("--inside").arg(folder.path());
        if self.seed.is_none() {
            let seed = u32::from_le_bytes(entropy()?);
            command.arg("--seed").arg(seed.to_string());
        }
        // A group of its own: ^C at the terminal is for this process, which ends the run in good order.
        let mut child = command.stdin(Stdio::piped()).process_group(0).spawn()?;
        let mut left = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return match status.code() {
                    Some(0) => Ok(Ended::Ok),
                    Some(77) => Ok(Ended::Skipped),
                    _ => Err(failed("the run has failed")),
                };
            }
            if signals.pending().next().is_some() {
                drop(child.stdin.take());
                left = Some(END_WITHIN);
            }
            if left == Some(Duration::ZERO) {
                // Its end is the end of everything in its namespaces.
                child.kill()?;
            }
            std::thread::sleep(LOOK_EVERY);
            left = left.map(|left| left.saturating_sub(LOOK_EVERY));
        }
    }

    #[allow(clippy::disallowed_methods, reason = "somebody has to wait for the pipe's end")]
    fn inside(&self, global: &Global, options: &Options) -> Outcome {
        std::thread::spawn(|| {
            // Nothing is ever written to it: what comes is its end.
            let _ended = std::io::stdin().read_to_end(&mut Vec::new());
            torture::interrupt();
        });
        let bar = indicatif::ProgressBar::new_spinner();
        keep_moving(&bar);
        let outcome =
            torture::run(options, &mut |what| bar.set_message(format!("{what}  {:?}", bar.elapsed())));
        bar.finish_and_clear();
        let report = match outcome {
            Ok(report) => report,
            Err(error @ TortureError::Zone(_)) => {
                say(&format!("skipped: {error}"));
                return Ok(Ended::Skipped);
            }
            Err(error) => return Err(error.into()),
        };
        if global.json {
            json(&report.to_json(options))?;
        } else {
            print(options, &report)?;
        }
        if report.violations.is_empty() && report.missed.is_empty() {
            return Ok(Ended::Ok);
        }
        let place = self.report.join(options.seed.to_string());
        keep(&place, options, &report)?;
        let what = report.violations.iter().chain(&report.missed).cloned().collect::<Vec<_>>().join("\n");
        Err(failed(format!("{what}\nwhat was seen is kept in {}", place.display())))
    }
}

/// A command that runs what follows it in namespaces of its own, which end with it.
fn separate() -> Command {
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    command
}

/// Why this host cannot have a run.
fn why_not() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("network namespaces need root".to_owned());
    }
    let silent = |command: &mut Command| {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).output()
    };
    let missing = NEEDED.iter().find(|name| silent(Command::new(name).arg("-V")).is_err());
    if let Some(name) = missing {
        return Some(format!("the command `{name}` is missing; install iproute2 and util-linux"));
    }
    match silent(separate().arg("true")) {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Keeps what a run has seen: the report, the histories, the messages of the processes.
fn keep(place: &Path, options: &Options, report: &Report) -> Result<(), Failed> {
    std::fs::create_dir_all(place)?;
    let text = serde_json::to_string_pretty(&report.to_json(options))?;
    std::fs::write(place.join("report.json"), text)?;
    std::fs::write(place.join("history.jsonl"), report.history())?;
    for entry in std::fs::read_dir(options.folder.join("log"))? {
        let entry = entry?;
        std::fs::copy(entry.path(), place.join(entry.file_name()))?;
    }
    Ok(())
}

fn print(options: &Options, report: &Report) -> Result<(), Failed> {
    let [answered, refused, unknown] = report.operations();
    let faults: Vec<String> = report.faults.iter().map(|(fault, count)| format!("{fault} {count}")).collect();
    line(&format!("seed {}; faults: {}", options.seed, faults.join(", ")))?;
    line(&format!(
        "{answered} operations answered, {refused} refused, {unknown} of unknown outcome; {} registers, {} \
         rows",
        report.registers.len(),
        report.rows
    ))?;
    let mut rows =
        vec![["partition", "longest without a write", "of a second or more"].map(str::to_owned).to_vec()];
    for (partition, windows, longest) in report.unavailability() {
        let lengths: Vec<String> =
            windows.iter().take(8).map(|window| format!("{:.1}", millis(window.length()) / 1e3)).collect();
        let lengths = if lengths.is_empty() { String::new() } else { format!(": {} s", lengths.join(" ")) };
        let windows = format!("{}{lengths}", windows.len());
        rows.push(vec![format!("{partition:x}"), format!("{:.0} ms", millis(longest)), windows]);
    }
    columns(&rows)?;
    for (name, value) in &report.figures {
        line(&format!("{name}: {value}"))?;
    }
    Ok(())
}
