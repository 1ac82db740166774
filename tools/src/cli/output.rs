//! What verbs print: lines for people, JSON for programs; and progress, on stderr and only for people.

use super::Failed;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::Value;
use std::io::Write;
use std::time::Duration;

/// Writes a line to stdout. A reader that has gone away is no error: `evenkeel scan t | head` ends quietly.
pub(super) fn line(text: &str) -> Result<(), Failed> {
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{text}") {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => Err(error.into()),
    }
}

/// Writes JSON to stdout, indented.
pub(super) fn json(value: &Value) -> Result<(), Failed> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Writes a message to stderr.
pub(super) fn say(text: &str) {
    eprintln!("{text}");
}

/// A table for people: columns as wide as their widest cell.
pub(super) fn columns(rows: &[Vec<String>]) -> Result<(), Failed> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
    let widths: Vec<usize> = (0..count).map(|column| width(column).unwrap_or(0)).collect();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| {
            let padding = width - cell.chars().count();
            format!("{cell}{}", " ".repeat(padding))
        });
        line(cells.collect::<Vec<_>>().join("  ").trim_end())?;
    }
    Ok(())
}

/// A bar for something whose length is known. Hidden when stderr is no terminal.
pub(super) fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr_with_hz(5));
    let style = ProgressStyle::with_template(template).expect("templates are constants");
    bar.set_style(style);
    bar
}

/// Lets a bar move even while nothing is reported.
pub(super) fn keep_moving(bar: &ProgressBar) {
    bar.enable_steady_tick(Duration::from_millis(200));
}

/// A count with thousands separated: 31,833.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (place, digit) in digits.chars().enumerate() {
        if place > 0 && (digits.len() - place).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (31833, "31,833"), (1234567, "1,234,567")]
        {
            assert_eq!(count(number), text);
        }
    }
}
