//! One load after the other, until the knee is found.

use super::build::build_json;
use super::live::Live;
use super::run::{invalid, rate, started};
use super::setup::Setup;
use super::{Failed, Global, Outcome};
use crate::cli::demo::duration;
use crate::cli::output::{columns, count, json, line, say};
use crate::cli::{Ended, failed};
use crate::process::entropy;
use clap::Args;
use evenkeel_bench::chart::time_name;
use evenkeel_bench::host::Host;
use evenkeel_bench::load::Options;
use evenkeel_bench::noise::Noise;
use evenkeel_bench::pictures;
use evenkeel_bench::plan::Pace;
use evenkeel_bench::report::Report;
use evenkeel_bench::sweep::{Limits, Point, Search};
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Args)]
pub(super) struct Sweep {
    #[command(flatten)]
    setup: Setup,
    /// The first rate, requests a second. It is doubled until one is not served well.
    #[arg(long, default_value_t = 1000.0, value_parser = rate)]
    from: f64,
    /// The highest rate that is tried.
    #[arg(long, default_value_t = 1e6, value_parser = rate)]
    to: f64,
    /// The highest p99 that is good; by default ten times that of the first rate.
    #[arg(long, value_name = "TIME", value_parser = duration)]
    p99: Option<Duration>,
    /// How close the highest good rate and the lowest bad one come to each other, percent.
    #[arg(long, default_value_t = 10.0, value_parser = rate)]
    within: f64,
}

/// What was tried.
struct Tried {
    point: Point,
    good: bool,
}

impl Sweep {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let workload = self.setup.workload()?;
        let (host, started) = (Host::look(None), started());
        let ready = self.setup.prepare(global, workload, Pace::Open(self.from, self.setup.arrivals))?;
        let mut search = Search::new(Limits {
            first: self.from,
            most: self.to,
            p99_us: self.p99.map(|time| time.as_micros() as u64),
            within: 1.0 + self.within / 100.0,
        });
        let mut tried = Vec::new();
        while let Some(rate) = search.next() {
            let pace = Pace::Open(rate, self.setup.arrivals);
            let options = Options { pace, client: entropy()?, ..ready.options.clone() };
            let (report, _) = ready.run(&options, &mut Live::new(options.measure), &mut |_| ())?;
            let point = point(rate, &report);
            let good = search.found(point);
            say(&told(&point, good));
            tried.push(Tried { point, good });
        }
        let knee = search.knee();
        let value = self.to_json(&ready.options, &tried, knee, &host, ready.noise.as_ref(), started);
        self.write(&value, &tried, knee)?;
        if global.json {
            json(&value)?;
        } else {
            print(&tried, knee)?;
        }
        match knee {
            Some(_) => Ok(Ended::Ok),
            None => Err(failed("no rate was served well; begin lower with --from, or allow more with --p99")),
        }
    }

    fn to_json(
        &self,
        options: &Options,
        tried: &[Tried],
        knee: Option<Point>,
        host: &Host,
        noise: Option<&Noise>,
        started: u64,
    ) -> Value {
        let mut value = self.setup.to_json(options);
        let points = tried.iter().map(|tried| {
            let mut point = json!(tried.point);
            point["good"] = json!(tried.good);
            point
        });
        let more = json!({
            "loop": "open", "arrivals": self.setup.arrivals.name(), "started": started,
            "seconds_each": options.measure.as_secs_f64(),
            "points": points.collect::<Vec<Value>>(), "knee": knee, "host": host, "noise": noise,
            "noisy": noise.map(|noise| !noise.complaints().is_empty()), "build": build_json(),
        });
        if let Value::Object(more) = more {
            value.extend(more);
        }
        Value::Object(value)
    }

    fn write(&self, value: &Value, tried: &[Tried], knee: Option<Point>) -> Result<(), Failed> {
        let Some(folder) = &self.setup.report else {
            return Ok(());
        };
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join("sweep.json"), serde_json::to_string_pretty(value)?)?;
        let points: Vec<Point> = latest(tried).map(|tried| tried.point).collect();
        let title = format!("{}, open loop, {} arrivals", self.setup.workload, self.setup.arrivals.name());
        let text = format!("{} rates, {:?} each", points.len(), self.setup.time);
        let svg = pictures::sweep(&title, &text, &points, knee.map(|knee| knee.rate));
        std::fs::write(folder.join("sweep.svg"), svg)?;
        Ok(())
    }
}

fn point(rate: f64, report: &Report) -> Point {
    let us = |percentile| report.latencies.percentile(percentile);
    Point {
        rate,
        achieved: report.rate(),
        requests: report.latencies.count(),
        shortfall: report.shortfall(),
        short: invalid(report).is_some(),
        p50_us: us(50.0),
        p99_us: us(99.0),
        p999_us: us(99.9),
        max_us: report.latencies.max(),
    }
}

/// Of each rate what was found last.
fn latest(tried: &[Tried]) -> impl Iterator<Item = &Tried> {
    let again = |number: usize, rate: f64| tried[number + 1..].iter().any(|later| later.point.rate == rate);
    tried.iter().enumerate().filter(move |(number, tried)| !again(*number, tried.point.rate)).map(|(_, t)| t)
}

fn told(point: &Point, good: bool) -> String {
    let p99 = point.p99_us.map_or("-".to_owned(), |us| time_name(us as f64));
    let verdict = match (good, point.short) {
        (true, _) => "good",
        (false, true) => "short",
        (false, false) => "the tail is too long",
    };
    format!("{} a second: p99 {p99}, {verdict}", count(point.rate as u64))
}

fn print(tried: &[Tried], knee: Option<Point>) -> Result<(), Failed> {
    let head = ["offered", "achieved", "p50 us", "p99 us", "p99.9 us", "max us", ""];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let mut sorted: Vec<&Tried> = latest(tried).collect();
    sorted.sort_by(|a, b| a.point.rate.total_cmp(&b.point.rate));
    let cell = |value: Option<u64>| value.map_or("-".to_owned(), count);
    for Tried { point, good } in sorted {
        let said = match (good, point.short) {
            (true, _) => "",
            (false, true) => "short",
            (false, false) => "tail",
        };
        rows.push(vec![
            count(point.rate as u64),
            count(point.achieved as u64),
            cell(point.p50_us),
            cell(point.p99_us),
            cell(point.p999_us),
            count(point.max_us),
            said.to_owned(),
        ]);
    }
    columns(&rows)?;
    match knee {
        Some(knee) => line(&format!("knee: {} a second", count(knee.rate as u64))),
        None => Ok(()),
    }
}
