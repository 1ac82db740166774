//! What is seen while a load runs: the last second, on one line that changes; on a stderr that is no
//! terminal, a plain line for every ten seconds.

use crate::cli::output::{count, say};
use evenkeel_bench::chart::time_name;
use evenkeel_bench::interval_log::Second;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::time::Duration;

/// Seconds between two plain lines.
const PLAIN_EVERY: u64 = 10;

/// The live line.
pub(super) struct Live {
    line: Option<ProgressBar>,
    plain: bool,
    seconds: u64,
}

impl Live {
    /// For a load of that length.
    pub(super) fn new(time: Duration) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let line = terminal.then(|| {
            let line = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("templates are constants");
            line.set_style(style);
            line
        });
        Self { line, plain: !terminal, seconds: time.as_secs() }
    }

    /// For a load that nobody watches.
    pub(super) fn hidden() -> Self {
        Self { line: None, plain: false, seconds: 0 }
    }

    pub(super) fn warming_up(&self) {
        if let Some(line) = &self.line {
            line.set_message("warming up");
            line.enable_steady_tick(Duration::from_millis(200));
        }
    }

    /// A second is over.
    pub(super) fn second(&self, second: &Second) {
        if let Some(line) = &self.line {
            line.set_message(self.text(second));
        } else if self.plain && second.index % PLAIN_EVERY == PLAIN_EVERY - 1 {
            say(&self.text(second));
        }
    }

    pub(super) fn end(&self) {
        if let Some(line) = &self.line {
            line.finish_and_clear();
        }
    }

    fn text(&self, second: &Second) -> String {
        let Second { index, count: answers, errors, percentiles, max } = second;
        let names = ["p50", "p99", "p99.9"];
        let told = names.iter().zip(percentiles).filter_map(|(name, us)| us.map(|us| (name, us)));
        let told: Vec<String> = told.map(|(name, us)| format!("{name} {}", time_name(us as f64))).collect();
        format!(
            "{} of {} s  {} a second  {}  max {}  {} failed",
            index + 1,
            self.seconds,
            count(*answers),
            told.join("  "),
            time_name(*max as f64),
            count(*errors)
        )
    }
}
