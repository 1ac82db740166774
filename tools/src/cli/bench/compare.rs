//! What was measured before and after.

use super::folder::{Read, read_side};
use super::{Failed, Global, Outcome};
use crate::cli::Ended;
use crate::cli::output::{columns, json, line, say};
use clap::Args;
use evenkeel_bench::chart::{count_name, time_name};
use evenkeel_bench::compare::{Figure, Run, Settings, Verdict, compare};
use serde_json::{Value, json};
use std::path::PathBuf;

/// What two sides must share for their difference to mean something.
const ALIKE: [&str; 16] = [
    "workload",
    "mix",
    "keys_by",
    "item_bytes",
    "keys",
    "loop",
    "arrivals",
    "offered_rate",
    "under_way",
    "connections",
    "threads",
    "client",
    "pin",
    "tick_us",
    "measured_seconds",
    "host.cpu",
];

#[derive(Debug, Args)]
pub(super) struct Compare {
    /// The first side: a report's folder, or one that holds several.
    before: PathBuf,
    /// The second side.
    after: PathBuf,
    /// The least difference that counts, percent.
    #[arg(long, default_value_t = 3.0)]
    least: f64,
    /// Decides the draws of the bootstrap.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

impl Compare {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let sides = [read_side(&self.before)?, read_side(&self.after)?];
        let invalid: Vec<&Read> =
            sides.iter().flatten().filter(|read| read.report["valid"] == json!(false)).collect();
        for read in &invalid {
            say(&format!("INVALID: {} is no measurement; it cannot be compared", read.folder.display()));
        }
        if !invalid.is_empty() {
            return Ok(Ended::Invalid);
        }
        let unlike = unlike(&sides);
        for warning in unlike.iter().chain(&few(&sides)).chain(&noisy(&sides)) {
            say(&format!("warning: {warning}"));
        }
        let [before, after] =
            sides.each_ref().map(|side| side.iter().map(|read| read.run.clone()).collect::<Vec<Run>>());
        let settings = Settings { least: self.least / 100.0, seed: self.seed };
        let figures = compare(&before, &after, settings);
        if figures.is_empty() {
            say("INVALID: a side has no answers");
            return Ok(Ended::Invalid);
        }
        let worse = figures.iter().any(|figure| figure.verdict == Verdict::Worse);
        if global.json {
            json(&json!({
                "runs": [before.len(), after.len()], "least_percent": self.least, "figures": figures,
                "worse": worse, "unlike": unlike,
            }))?;
        } else {
            print(&figures)?;
        }
        Ok(if worse { Ended::Worse } else { Ended::Ok })
    }
}

/// What the reports do not share.
fn unlike(sides: &[Vec<Read>; 2]) -> Vec<String> {
    let value =
        |read: &Read, name: &str| name.split('.').fold(&read.report, |value, key| &value[key]).clone();
    let differs = |name: &&&str| {
        let mut values = sides.iter().flatten().map(|read| value(read, name));
        let first = values.next();
        values.any(|value| Some(&value) != first.as_ref())
    };
    let said = |name: &&str| {
        let of = |side: &[Read]| side.first().map_or(Value::Null, |read| value(read, name));
        format!("the reports differ in {name}: {} and {}", of(&sides[0]), of(&sides[1]))
    };
    ALIKE.iter().filter(differs).map(said).collect()
}

fn few(sides: &[Vec<Read>; 2]) -> Option<String> {
    let one = sides.iter().any(|side| side.len() == 1);
    one.then(|| {
        "a side has one run: what differs between runs is not seen; measure each side several times, in turn"
            .to_owned()
    })
}

fn noisy(sides: &[Vec<Read>; 2]) -> Option<String> {
    let noisy = sides.iter().flatten().filter(|read| read.report["noisy"] == json!(true)).count();
    let all = sides.iter().flatten().count();
    (noisy > 0)
        .then(|| format!("{noisy} of {all} reports were made on a noisy host; tails may be the host's"))
}

fn print(figures: &[Figure]) -> Result<(), Failed> {
    let head = ["", "before", "after", "ratio", "99% spread", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for Figure { name, before, after, ratio, spread, verdict } in figures {
        let value = if name == "rate" { count_name } else { time_name };
        rows.push(vec![
            name.clone(),
            value(*before),
            value(*after),
            format!("{ratio:.3}x"),
            format!("{:.3} to {:.3}", spread.0, spread.1),
            match verdict {
                Verdict::Same => "no difference",
                Verdict::Better => "better",
                Verdict::Worse => "WORSE",
            }
            .to_owned(),
        ]);
    }
    columns(&rows)?;
    let different = figures.iter().any(|figure| figure.verdict != Verdict::Same);
    if different { Ok(()) } else { line("no difference") }
}
