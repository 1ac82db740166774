//! One load.

use super::bare::Disk;
use super::folder::write_report;
use super::live::Live;
use super::measured::{Measured, Ran};
use super::servers::{self, ByRole};
use super::setup::Setup;
use super::{Failed, Global, Outcome};
use crate::cli::output::{json, say};
use crate::cli::{Ended, failed};
use crate::cluster::Cluster;
use clap::Args;
use evenkeel_bench::host::Host;
use evenkeel_bench::plan::Pace;
use evenkeel_bench::report::SHORTFALL_MAX;
use evenkeel_bench::stops::Watcher;
use evenkeel_bench::threads::Event;
use evenkeel_bench::trace::Trace;
use evenkeel_bench::workload::Workload;
use std::fs::File;
use std::io::BufReader;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

#[derive(Debug, Args)]
pub(super) struct Run {
    #[command(flatten)]
    setup: Setup,
    /// Open loop: so many requests are due each second, whatever becomes of them. Without it, half of what a
    /// closed loop of two seconds gets.
    #[arg(long, value_name = "PER SECOND", conflicts_with_all = ["closed", "trace"], value_parser = rate)]
    rate: Option<f64>,
    /// Closed loop: so many requests are under way at any time. A server that stalls is asked less, and the
    /// stall is hidden.
    #[arg(long, value_name = "COUNT", conflicts_with_all = ["trace", "tick"])]
    closed: Option<usize>,
    /// Open loop: requests are those of this file, one JSON object a line: at_us, op, key, bytes, items.
    #[arg(long, value_name = "FILE", conflicts_with = "workload")]
    trace: Option<PathBuf>,
    /// How many times faster than recorded a trace goes.
    #[arg(long, default_value_t = 1.0, value_parser = rate, requires = "trace")]
    speed: f64,
    /// Also measure the disk of this folder alone, before and after, and print ratios to it: durable 4 KiB
    /// writes, one after the other, beside a workload that writes; random 8 KiB reads, as many at a time as
    /// there are requests under way (in an open loop one), beside one that reads.
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// MiB of the file that is read from with --disk: more than the device keeps in memory.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    scratch_mib: u64,
    /// The folder of the cluster, if its processes run on this host: also tell what they use, CPU time and
    /// bytes written, and whether its disk stood still meanwhile.
    #[arg(long, value_name = "FOLDER")]
    cluster: Option<PathBuf>,
}

/// A number above zero.
pub(super) fn rate(text: &str) -> Result<f64, String> {
    let rate: f64 = text.parse().map_err(|_| format!("{text:?} is no number"))?;
    if rate > 0.0 && rate.is_finite() { Ok(rate) } else { Err("it must be above zero".to_owned()) }
}

impl Run {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let trace = self.trace()?;
        let workload = match (&trace, &self.trace) {
            (Some(trace), Some(path)) => trace.workload(&format!("trace {}", path.display())),
            _ => self.setup.workload()?,
        };
        let pace = match (&trace, self.closed) {
            (Some(trace), _) => Pace::Trace(Arc::clone(trace), self.speed),
            (None, Some(0)) => return Err(failed("--closed 0 asks nothing")),
            (None, Some(under_way)) => Pace::Closed(under_way),
            (None, None) => Pace::Open(self.rate.unwrap_or(1.0), self.setup.arrivals),
        };
        let cluster = self.cluster.as_deref().map(Cluster::open).transpose()?;
        let mut disk = self.disk(&workload, &pace)?;
        let (host, started) = (Host::look(self.disk.as_deref()), started());
        let mut ready = self.setup.prepare(global, workload, pace)?;
        if let Some(trace) = &trace {
            // A trace is measured from its beginning to its end.
            ready.options.warm_up = Duration::ZERO;
            ready.options.measure = trace.lasts().div_f64(self.speed) + Duration::from_millis(1);
        }
        let found = self.rate.is_none() && self.closed.is_none() && trace.is_none();
        if found {
            let rate = ready.find_rate()?;
            say(&format!("no --rate: {rate} a second, half of what a closed loop gets"));
            ready.options.pace = Pace::Open(rate, self.setup.arrivals);
        }
        let before = disk.as_mut().map(Disk::run).transpose()?;
        let options = &ready.options;
        say(&format!(
            "{} for {:?}, after {:?}",
            describe(self.name(), &options.pace),
            options.measure,
            options.warm_up
        ));
        let mut live = Live::new(options.measure);
        let (mut used_before, mut used_after) = (None, None);
        let (watched, mut watcher, mut stops) =
            (self.cluster.as_deref().or(self.disk.as_deref()), None, None);
        let used = || cluster.as_ref().map(servers::used);
        let (report, log) = ready.run(options, &mut live, &mut |event| match event {
            // Without threads for it nobody watches, and the report says so.
            Event::Soon => watcher = Watcher::start(watched).ok(),
            Event::Begin => used_before = used(),
            Event::End => {
                used_after = used();
                stops = watcher.take().map(Watcher::end);
            }
            Event::Interval(_) => {}
        })?;
        let after = disk.as_mut().map(Disk::run).transpose()?;
        let depth = disk.map_or(0, |disk| disk.depth);
        let bare = before.zip(after).map(|(before, after)| (before.and(&after), depth));
        let used = between(used_before, used_after)?;
        let ran = Ran { run: self.setup.to_json(options), pace: options.pace.clone(), found, host, started };
        let measured = Measured { report, log, bare, used, noise: ready.noise, stops, ran };
        if let Some(folder) = &self.setup.report {
            write_report(folder, &measured)?;
        }
        if global.json {
            json(&measured.to_json())?;
        } else {
            measured.print()?;
        }
        Ok(ended(&measured))
    }

    fn name(&self) -> &str {
        match &self.trace {
            Some(_) => "trace",
            None => &self.setup.workload,
        }
    }

    fn trace(&self) -> Result<Option<Arc<Trace>>, Failed> {
        let Some(path) = &self.trace else {
            return Ok(None);
        };
        let wrong = |error: &dyn std::fmt::Display| failed(format!("{}: {error}", path.display()));
        let file = File::open(path).map_err(|error| wrong(&error))?;
        Ok(Some(Arc::new(Trace::read(BufReader::new(file)).map_err(|error| wrong(&error))?)))
    }

    fn disk(&self, workload: &Workload, pace: &Pace) -> Result<Option<Disk>, Failed> {
        let depth = match pace {
            Pace::Closed(under_way) => *under_way,
            Pace::Open(..) | Pace::Trace(..) => 1,
        };
        let kinds = (workload.reads(), workload.writes());
        let prepare = |folder| Disk::prepare(folder, kinds, self.scratch_mib, depth);
        self.disk.as_deref().map(prepare).transpose()
    }
}

/// An open loop that is short measured something else than what was offered.
fn ended(measured: &Measured) -> Ended {
    match measured.invalid() {
        None => Ended::Ok,
        Some(reason) => {
            say(&format!("INVALID: {reason}"));
            Ended::Invalid
        }
    }
}

/// Why a report is no measurement of an offered rate.
pub(super) fn invalid(report: &evenkeel_bench::report::Report) -> Option<String> {
    let shortfall = report.shortfall();
    (shortfall > SHORTFALL_MAX)
        .then(|| format!("{:.1}% of the offered requests were not served in time", shortfall * 100.0))
}

pub(super) fn describe(name: &str, pace: &Pace) -> String {
    match pace {
        Pace::Closed(under_way) => format!("{name}, closed loop, {under_way} under way"),
        Pace::Open(rate, arrivals) => {
            format!("{name}, open loop, {rate} a second, {} arrivals", arrivals.name())
        }
        Pace::Trace(trace, speed) => {
            format!("{name}, open loop, {} requests, {speed} times as fast", trace.requests.len())
        }
    }
}

type Look = Option<Result<ByRole, Failed>>;

fn between(before: Look, after: Look) -> Result<Option<ByRole>, Failed> {
    let (before, after) = (before.transpose()?, after.transpose()?);
    Ok(before.zip(after).map(|(before, after)| servers::between(&before, &after)))
}

/// Seconds since 1970.
#[allow(clippy::disallowed_methods, reason = "a report says when it was made")]
pub(super) fn started() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
