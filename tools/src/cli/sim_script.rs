//! One simulated run as a script: run again, or made as small as it fails.

use super::output::{json, line, say};
use super::sim::Sim;
use super::sim_hours::{print_total, sum};
use super::{Ended, Global, Outcome, failed};
use crate::sim::script::Script;
use crate::sim::total::Total;
use crate::sim::{run_script, shrink};
use serde_json::json;
use std::path::Path;

/// Runs that making a failure small may take.
const RUNS_MAX: usize = 3000;

/// Runs a script.
pub(super) fn go(sim: &Sim, script: &Script, story: bool, global: &Global) -> Outcome {
    sim.plant();
    let report = run_script(script, story).map_err(|failure| {
        say(&failure.story);
        say(&script.annotated(&failure.told));
        failed(failure.to_string())
    })?;
    if global.json {
        json(&json!({"trace": format!("{:016x}", report.trace), "sum": sum(&Total::of(&report))}))?;
    } else {
        line(&format!("seed {}: trace {:016x}", report.seed, report.trace))?;
        print_total(&Total::of(&report))?;
    }
    Ok(Ended::Ok)
}

/// Makes a failing run small, prints it and writes it to `out`.
pub(super) fn make_small(sim: &Sim, script: &Script, out: Option<&Path>) -> Outcome {
    sim.plant();
    // A run that panics is one of many here.
    std::panic::set_hook(Box::new(|_| {}));
    let shrunk = shrink::shrink(script, RUNS_MAX, say);
    drop(std::panic::take_hook());
    let Some(shrunk) = shrunk else {
        return Err(failed(format!("seed {} does not fail: there is nothing to make small", script.seed)));
    };
    let what: Vec<String> = shrunk.failure.what.lines().map(|line| format!("# {line}\n")).collect();
    let text = format!("{}{}", what.concat(), shrunk.script.annotated(&shrunk.failure.told));
    line(text.trim_end())?;
    if let Some(path) = out {
        std::fs::write(path, &text)?;
        say(&format!("again: evenkeel sim --script {}", path.display()));
    }
    Ok(Ended::Ok)
}
