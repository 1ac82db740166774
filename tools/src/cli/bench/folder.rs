//! Reports on disk: what a run writes, and what `compare` reads.
//!
//! * `report.json`: everything that was measured and on what. `latency.hlog`: every second, as HdrHistogram's
//!   interval log. `latency.hgrm`: its percentile distribution. `latency.svg`: charts.

use super::measured::Measured;
use super::{Failed, build};
use crate::cli::failed;
use evenkeel_bench::compare::Run;
use evenkeel_bench::interval_log;
use evenkeel_bench::percentile_table::percentile_table;
use evenkeel_bench::pictures;
use evenkeel_bench::report::Latencies;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

const REPORT: &str = "report.json";
const LOG: &str = "latency.hlog";

/// Writes a run's report into a folder, which is made.
pub(super) fn write_report(folder: &Path, measured: &Measured) -> Result<(), Failed> {
    fs::create_dir_all(folder)?;
    let write = |name: &str, bytes: &[u8]| {
        let path = folder.join(name);
        fs::write(&path, bytes).map_err(|error| failed(format!("{}: {error}", path.display())))
    };
    write(REPORT, serde_json::to_string_pretty(&measured.to_json())?.as_bytes())?;
    let comments = [
        format!("evenkeel bench: {}; revision {}", measured.describe(), build::REVISION),
        "values are microseconds; Interval_Max is in milliseconds".to_owned(),
    ];
    write(LOG, &measured.log.text(&comments))?;
    write("latency.hgrm", percentile_table(&measured.report.latencies).as_bytes())?;
    let (open, seconds) = (measured.ran.pace.is_open(), measured.log.seconds());
    let svg = pictures::run(&measured.describe(), &measured.summary(), &measured.report, open, seconds);
    write("latency.svg", svg.as_bytes())
}

/// A report that was read back.
pub(super) struct Read {
    /// Where it was.
    pub(super) folder: PathBuf,
    /// Its `report.json`.
    pub(super) report: Value,
    /// Its seconds.
    pub(super) run: Run,
}

/// Reads the reports of one side: those in the folder itself, or in the folders in it.
pub(super) fn read_side(folder: &Path) -> Result<Vec<Read>, Failed> {
    if folder.join(REPORT).is_file() {
        return Ok(vec![read_one(folder)?]);
    }
    let entries = fs::read_dir(folder).map_err(|error| failed(format!("{}: {error}", folder.display())))?;
    let mut folders = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.join(REPORT).is_file() {
            folders.push(path);
        }
    }
    folders.sort();
    if folders.is_empty() {
        return Err(failed(format!(
            "{}: no {REPORT} here or in a folder in it; write one with `bench --report`",
            folder.display()
        )));
    }
    folders.iter().map(|folder| read_one(folder)).collect()
}

fn read_one(folder: &Path) -> Result<Read, Failed> {
    let open = |name: &str| {
        let path = folder.join(name);
        fs::read(&path).map_err(|error| failed(format!("{}: {error}", path.display())))
    };
    let wrong = |name: &str, error: &dyn std::fmt::Display| {
        failed(format!("{}: {error}", folder.join(name).display()))
    };
    let report: Value = serde_json::from_slice(&open(REPORT)?).map_err(|error| wrong(REPORT, &error))?;
    let logged = interval_log::read(&open(LOG)?).map_err(|error| wrong(LOG, &error))?;
    let measured = report["measured_seconds"].as_f64().unwrap_or(0.0);
    // What came after the end belongs to the last second: it was due before.
    let last = (measured.ceil() as usize).max(1) - 1;
    let mut seconds = vec![Latencies::new(); last + 1];
    for interval in logged {
        seconds[(interval.start.as_secs() as usize).min(last)].add(&interval.latencies);
    }
    Ok(Read { folder: folder.to_owned(), report, run: Run { seconds } })
}
