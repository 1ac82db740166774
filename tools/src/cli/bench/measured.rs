//! A measurement, as it is printed and written.

use super::Failed;
use super::bare::{Bare, BareLoops, PAGE_BYTES, WRITE_BYTES};
use super::build::build_json;
use super::run::{describe, invalid};
use super::servers::{ByRole, Used};
use crate::cli::output::{columns, count, line, say};
use evenkeel_bench::chart::{count_name, time_name};
use evenkeel_bench::host::Host;
use evenkeel_bench::interval_log::{IntervalLog, Second};
use evenkeel_bench::noise::Noise;
use evenkeel_bench::phases::Phase;
use evenkeel_bench::plan::Pace;
use evenkeel_bench::report::{Latencies, PERCENTILES, Report};
use evenkeel_bench::stops::Stops;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// What was run.
pub(super) struct Ran {
    /// The settings that all loads have.
    pub(super) run: Map<String, Value>,
    /// How requests were begun.
    pub(super) pace: Pace,
    /// Whether the rate was found, and not given.
    pub(super) found: bool,
    pub(super) host: Host,
    /// When, in seconds since 1970.
    pub(super) started: u64,
}

/// Everything that a run measured.
pub(super) struct Measured {
    pub(super) report: Report,
    /// Every second.
    pub(super) log: IntervalLog,
    /// The disk alone, with the depth of its reads.
    pub(super) bare: Option<(BareLoops, usize)>,
    /// What the servers used while the load was measured.
    pub(super) used: Option<ByRole>,
    /// What the host itself added, before the load.
    pub(super) noise: Option<Noise>,
    /// What it did meanwhile.
    pub(super) stops: Option<Stops>,
    pub(super) ran: Ran,
}

impl Measured {
    /// Why it is no measurement, if it is none. A closed loop is always one of what it got.
    pub(super) fn invalid(&self) -> Option<String> {
        if self.ran.pace.is_open() { invalid(&self.report) } else { None }
    }

    /// What was run, in one line.
    pub(super) fn describe(&self) -> String {
        describe(self.ran.run["workload"].as_str().unwrap_or_default(), &self.ran.pace)
    }

    /// What came of it, in one line.
    pub(super) fn summary(&self) -> String {
        let report = &self.report;
        let us = |percentile: f64| report.latencies.percentile(percentile);
        let told = PERCENTILES.into_iter().filter_map(|percentile| {
            us(percentile).map(|us| format!("p{percentile} {}", time_name(us as f64)))
        });
        let mut parts = vec![
            format!("{} requests", count(report.latencies.count())),
            format!("{} a second", count_name(report.rate())),
        ];
        parts.extend(told);
        parts.push(format!("max {}", time_name(report.latencies.max() as f64)));
        parts.extend(self.invalid().map(|_| "INVALID".to_owned()));
        parts.extend(self.noisy().then(|| "NOISY host".to_owned()));
        parts.join("  ·  ")
    }

    fn noisy(&self) -> bool {
        self.noisy_before() || self.noisy_meanwhile()
    }

    fn noisy_before(&self) -> bool {
        self.noise.as_ref().is_some_and(|noise| !noise.complaints().is_empty())
    }

    fn noisy_meanwhile(&self) -> bool {
        self.stops.as_ref().is_some_and(|stops| !stops.complaints().is_empty())
    }

    /// For people.
    pub(super) fn print(&self) -> Result<(), Failed> {
        let (report, open) = (&self.report, self.ran.pace.is_open());
        let mut header = vec![String::new(), "per second".to_owned(), "requests".to_owned()];
        header.extend(PERCENTILES.iter().map(|percentile| format!("p{percentile} us")));
        header.push("max us".to_owned());
        let name = if open { "load, open loop" } else { "load, closed loop" };
        let mut rows = vec![header, row(name, report.rate(), &report.latencies)];
        let seconds = report.measured.as_secs_f64();
        let rate = |latencies: &Latencies| latencies.count() as f64 / seconds;
        if open {
            rows.push(row("  service time", report.rate(), &report.service));
            rows.push(row("  sent late by", report.rate(), &report.late));
        }
        let mixed = report.reads.count() > 0 && report.writes.count() > 0;
        for (name, latencies) in [("  reads", &report.reads), ("  writes", &report.writes)] {
            if mixed {
                rows.push(row(name, rate(latencies), latencies));
            }
        }
        let phases = &report.phases;
        if phases.during.latencies.count() > 0 {
            for (name, phase) in [("  in checkpoints", &phases.during), ("  outside", &phases.outside)] {
                rows.push(row(name, phase.rate(), &phase.latencies));
            }
            let (during, outside) = (&phases.during, &phases.outside);
            let rates = (during.rate(), outside.rate());
            rows.push(ratios("  in / outside", rates, (&during.latencies, &outside.latencies)));
        }
        for (name, bare, latencies) in self.loops() {
            rows.push(row(&name, bare.rate(), &bare.latencies));
            let rates = (rate(latencies), bare.rate());
            rows.push(ratios("  load / bare", rates, (latencies, &bare.latencies)));
        }
        columns(&rows)?;
        self.print_used()?;
        if open {
            let offered = report.offered as f64 / seconds;
            line(&format!(
                "offered {} a second, achieved {}",
                count(offered as u64),
                count(report.rate() as u64)
            ))?;
        }
        line(&self.ran.host.line())?;
        if let Some(noise) = &self.noise {
            line(&format!("{}{}", noise.line(), if self.noisy_before() { "  NOISY" } else { "" }))?;
        }
        if let Some(stops) = &self.stops {
            line(&format!("{}{}", stops.line(), if self.noisy_meanwhile() { "  NOISY" } else { "" }))?;
        }
        for (requests, what) in
            [(report.missed, "reads found nothing"), (report.unanswered, "requests were never answered")]
        {
            if requests > 0 {
                say(&format!("{} {what}", count(requests)));
            }
        }
        for (code, errors) in &report.errors {
            say(&format!("{} requests failed: {code}", count(*errors)));
        }
        Ok(())
    }

    fn print_used(&self) -> Result<(), Failed> {
        let Some(used) = &self.used else {
            return Ok(());
        };
        let header = ["server", "CPU s", "requests per CPU s", "bytes written"];
        let mut rows = vec![header.map(str::to_owned).to_vec()];
        for (name, used) in with_sums(used) {
            let written = indicatif::HumanBytes(used.written).to_string();
            let per_cpu = self.per_cpu_second(used.cpu).map_or("-".to_owned(), |rate| count(rate as u64));
            rows.push(vec![name, format!("{:.2}", used.cpu.as_secs_f64()), per_cpu, written]);
        }
        line("")?;
        columns(&rows)?;
        match self.written_per_byte() {
            Some(ratio) => line(&format!("storage wrote {ratio:.2} bytes for each byte that was put")),
            None => Ok(()),
        }
    }

    /// Bare loops with the latencies that are held against them.
    fn loops(&self) -> Vec<(String, &Bare, &Latencies)> {
        let Some((loops, depth)) = &self.bare else {
            return Vec::new();
        };
        let writes = loops.writes.as_ref().map(|bare| {
            let name = format!("bare {} KiB log writes", WRITE_BYTES >> 10);
            (name, bare, &self.report.writes)
        });
        let reads = loops.reads.as_ref().map(|bare| {
            let name = format!("bare {} KiB reads, {depth} at a time", PAGE_BYTES >> 10);
            (name, bare, &self.report.reads)
        });
        writes.into_iter().chain(reads).collect()
    }

    fn per_cpu_second(&self, cpu: Duration) -> Option<f64> {
        (!cpu.is_zero()).then(|| self.report.latencies.count() as f64 / cpu.as_secs_f64())
    }

    /// Bytes that storage processes wrote to disks, for each byte of the items that were put.
    fn written_per_byte(&self) -> Option<f64> {
        let storage = self.used.as_ref()?.get("storage")?;
        (self.report.bytes_put > 0).then(|| storage.written as f64 / self.report.bytes_put as f64)
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let (report, mut run) = (&self.report, self.ran_json());
        let bare_json = |bare: &Bare, latencies: &Latencies| {
            let rate = latencies.count() as f64 / report.measured.as_secs_f64();
            json!({"rate": bare.rate(), "latencies_us": latencies_json(&bare.latencies),
                "rate_ratio": rate / bare.rate(), "p99_ratio": ratio(latencies, &bare.latencies, 99.0)})
        };
        let loops = self.bare.as_ref().map(|(loops, _)| loops);
        let writes = loops.and_then(|loops| loops.writes.as_ref());
        let reads = loops.and_then(|loops| loops.reads.as_ref());
        let phases = &report.phases;
        let (during, outside) = (&phases.during, &phases.outside);
        let measured = json!({
            "measured_seconds": report.measured.as_secs_f64(),
            "valid": self.invalid().is_none(), "invalid": self.invalid(), "noisy": self.noisy(),
            "rate": report.rate(), "achieved_rate": report.rate(),
            "offered": report.offered, "completed": report.completed, "shortfall": report.shortfall(),
            "missed": report.missed, "unanswered": report.unanswered,
            "latencies_us": latencies_json(&report.latencies),
            "service_us": latencies_json(&report.service),
            "late_us": latencies_json(&report.late),
            "reads_us": latencies_json(&report.reads), "writes_us": latencies_json(&report.writes),
            "errors": report.errors,
            "checkpoints": {
                "completed": phases.completed, "during": phase_json(during), "outside": phase_json(outside),
                "rate_ratio": (during.latencies.count() > 0).then(|| during.rate() / outside.rate()),
                "p99_ratio": ratio(&during.latencies, &outside.latencies, 99.0),
            },
            "bare_log_writes": writes.map(|bare| bare_json(bare, &report.writes)),
            "bare_reads": reads.map(|bare| bare_json(bare, &report.reads)),
            "bare_reads_depth": self.bare.as_ref().map(|(_, depth)| depth),
            "servers": self.used.as_ref().map(|used| self.used_json(used)),
            "bytes_put": report.bytes_put,
            "written_per_byte": self.written_per_byte(),
            "seconds": self.log.seconds().iter().map(second_json).collect::<Vec<Value>>(),
            "host": self.ran.host, "build": build_json(),
            "noise": self.noise.as_ref().map(|noise| complaining(noise, &noise.complaints())),
            "stops": self.stops.as_ref().map(|stops| complaining(stops, &stops.complaints())),
        });
        if let Value::Object(measured) = measured {
            run.extend(measured);
        }
        Value::Object(run)
    }

    /// What was run.
    fn ran_json(&self) -> Map<String, Value> {
        let mut run = self.ran.run.clone();
        let (mut rate, mut under_way, mut arrivals, mut speed) = (None, None, None, None);
        match &self.ran.pace {
            Pace::Closed(count) => under_way = Some(*count),
            Pace::Open(offered, how) => (rate, arrivals) = (Some(*offered), Some(how.name())),
            Pace::Trace(trace, times) => {
                arrivals = Some("trace");
                speed = Some(*times);
                rate = Some(trace.requests.len() as f64 / self.report.measured.as_secs_f64());
            }
        }
        let pace = json!({
            "loop": if self.ran.pace.is_open() { "open" } else { "closed" },
            "offered_rate": rate, "rate_was_found": self.ran.found, "arrivals": arrivals,
            "speed": speed, "under_way": under_way, "started": self.ran.started,
        });
        if let Value::Object(pace) = pace {
            run.extend(pace);
        }
        run
    }

    fn used_json(&self, used: &ByRole) -> Value {
        let one = |(name, used): (String, Used)| {
            let value = json!({"cpu_seconds": used.cpu.as_secs_f64(), "bytes_written": used.written,
                "requests_per_cpu_second": self.per_cpu_second(used.cpu)});
            (name, value)
        };
        Value::Object(with_sums(used).into_iter().map(one).collect())
    }
}

/// The roles, and those together that a request passes through.
fn with_sums(used: &ByRole) -> Vec<(String, Used)> {
    let mut rows: Vec<(String, Used)> = used.iter().map(|(role, used)| ((*role).to_owned(), *used)).collect();
    let sum = |roles: &[&str]| {
        let chosen = used.iter().filter(|(role, _)| roles.contains(role));
        chosen.fold(Used::default(), |sum, (_, used)| Used {
            cpu: sum.cpu + used.cpu,
            written: sum.written + used.written,
        })
    };
    rows.push(("storage+router".to_owned(), sum(&["storage", "router"])));
    rows.push(("all".to_owned(), sum(&["storage", "router", "memds"])));
    rows
}

fn row(name: &str, rate: f64, latencies: &Latencies) -> Vec<String> {
    let cell = |value: Option<u64>| value.map_or("-".to_owned(), count);
    let mut row = vec![name.to_owned(), count(rate as u64), count(latencies.count())];
    row.extend(PERCENTILES.iter().map(|percentile| cell(latencies.percentile(*percentile))));
    row.push(count(latencies.max()));
    row
}

fn ratio(above: &Latencies, below: &Latencies, percentile: f64) -> Option<f64> {
    let (above, below) = (above.percentile(percentile)?, below.percentile(percentile)?);
    (below > 0).then(|| above as f64 / below as f64)
}

fn ratios(name: &str, rates: (f64, f64), latencies: (&Latencies, &Latencies)) -> Vec<String> {
    let mut row = vec![name.to_owned(), format!("{:.2}x", rates.0 / rates.1), String::new()];
    row.extend(PERCENTILES.iter().map(|percentile| {
        let ratio = ratio(latencies.0, latencies.1, *percentile);
        ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.2}x"))
    }));
    row
}

/// What was seen of the host, with why it counts as noisy.
fn complaining(seen: &impl Serialize, complaints: &[String]) -> Value {
    let mut value = json!(seen);
    value["complaints"] = json!(complaints);
    value
}

fn second_json(second: &Second) -> Value {
    let Second { index, count, errors, percentiles: [p50, p99, p999], max } = second;
    json!({"second": index, "count": count, "errors": errors, "p50_us": p50, "p99_us": p99,
        "p99.9_us": p999, "max_us": max})
}

fn phase_json(phase: &Phase) -> Value {
    json!({"seconds": phase.lasted.as_secs_f64(), "rate": phase.rate(),
        "latencies_us": latencies_json(&phase.latencies)})
}

fn latencies_json(latencies: &Latencies) -> Value {
    let percentiles =
        PERCENTILES.iter().map(|percentile| (format!("p{percentile}"), latencies.percentile(*percentile)));
    let mut value: Map<String, Value> = percentiles.map(|(name, value)| (name, json!(value))).collect();
    value.insert("max".to_owned(), json!(latencies.max()));
    value.insert("count".to_owned(), json!(latencies.count()));
    Value::Object(value)
}
