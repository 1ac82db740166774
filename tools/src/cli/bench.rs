//! Putting load on a cluster.

use super::demo::duration;
use super::output::{bar, columns, count, json, say};
use super::{Ended, Failed, Global, Outcome, failed};
use crate::process::entropy;
use clap::Args;
use evenkeel_bench::load::{Load, Options, Pace};
use evenkeel_bench::report::{Latencies, PERCENTILES, Report};
use evenkeel_bench::workload::{WORKLOADS, Workload};
use evenkeel_client::{Client, KeyType};
use evenkeel_link::probe;
use evenkeel_wire::table::TableDescriptor;
use serde_json::{Value, json};
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

/// An open loop that offered this much more than it got done is no measurement of the offered rate.
const SHORTFALL_MAX: f64 = 0.01;
/// How long the bare loop of log writes is measured, before and after the load.
const BARE_FOR: Duration = Duration::from_secs(2);

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// What to do: put, get, get-eventual, ycsb-a, ycsb-b, ycsb-c or ycsb-f.
    #[arg(long, default_value = "put")]
    workload: String,
    /// Open loop: so many requests are due each second, whatever becomes of them.
    #[arg(long, value_name = "PER SECOND", conflicts_with = "closed")]
    rate: Option<f64>,
    /// Closed loop: so many requests are under way at any time.
    #[arg(long, value_name = "COUNT")]
    closed: Option<usize>,
    /// How long to measure.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "10s")]
    time: Duration,
    /// How long to run before measuring begins.
    #[arg(long, value_parser = duration, default_value = "2s")]
    warm_up: Duration,
    /// Connections; by default one for each request under way, at most 64.
    #[arg(long)]
    connections: Option<usize>,
    /// Keys to choose from; all are written once before a workload that reads.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Bytes of an item.
    #[arg(long, default_value_t = 1024)]
    item_bytes: usize,
    /// The table; created if it is not there.
    #[arg(long, default_value = "bench")]
    table: String,
    /// Decides operations and keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also measure a bare loop of durable 4 KiB writes in this folder, before and after, and print ratios to
    /// it.
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// Write report.json into this folder.
    #[arg(long, value_name = "FOLDER")]
    report: Option<PathBuf>,
}

impl Bench {
    pub(super) fn run(self, global: &Global) -> Outcome {
        let Some(workload) = Workload::named(&self.workload) else {
            let names: Vec<&str> = WORKLOADS.iter().map(|workload| workload.name).collect();
            return Err(failed(format!(
                "there is no workload {:?}; there are {}",
                self.workload,
                names.join(", ")
            )));
        };
        let client = global.connect()?;
        let table = self.table(&client)?;
        let before = self.disk.as_deref().map(bare_loop).transpose()?;
        let mut load = Load::connect(self.options(global, workload, table)?)?;
        if workload.reads() {
            let progress = bar(self.keys, "writing keys {bar:30} {pos} of {len}");
            load.preload(&mut |written| progress.set_position(written))?;
            progress.finish_and_clear();
        }
        say(&format!("{} for {:?}, after {:?}", self.describe(), self.time, self.warm_up));
        let report = load.run()?;
        let after = self.disk.as_deref().map(bare_loop).transpose()?;
        let bare = before.zip(after).map(|(mut before, after)| {
            before.add(&after);
            before
        });
        self.print(global, &report, bare.as_ref())?;
        let open = self.rate.is_some();
        if open && report.shortfall() > SHORTFALL_MAX {
            let percent = report.shortfall() * 100.0;
            say(&format!("INVALID: {percent:.1}% of the offered requests were not served in time"));
            return Ok(Ended::Invalid);
        }
        Ok(Ended::Ok)
    }

    fn table(&self, client: &Client) -> Result<TableDescriptor, Failed> {
        if client.list_tables().send()?.contains(&self.table) {
            return Ok(client.describe_table(&self.table).send()?);
        }
        let create = client.create_table(&self.table).partition_key("pk", KeyType::S);
        Ok(create.wait_until_active().send()?)
    }

    fn pace(&self) -> Pace {
        match self.rate {
            Some(rate) => Pace::Open(rate),
            None => Pace::Closed(self.closed.unwrap_or(64)),
        }
    }

    fn options(
        &self,
        global: &Global,
        workload: &'static Workload,
        table: TableDescriptor,
    ) -> Result<Options, Failed> {
        let endpoint = global.endpoint.split(',').next().unwrap_or_default();
        let router = endpoint.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let router = router.ok_or_else(|| failed(format!("{endpoint:?} is no address; write HOST:PORT")))?;
        let connections = match self.pace() {
            Pace::Closed(under_way) => under_way.min(64),
            Pace::Open(_) => 64,
        };
        Ok(Options {
            router,
            table,
            workload,
            pace: self.pace(),
            connections: self.connections.unwrap_or(connections).max(1),
            keys: self.keys.max(1),
            item_bytes: self.item_bytes,
            warm_up: self.warm_up,
            measure: self.time,
            seed: self.seed,
            client: entropy()?,
        })
    }

    fn describe(&self) -> String {
        match self.pace() {
            Pace::Closed(under_way) => format!("{}, closed loop, {under_way} under way", self.workload),
            Pace::Open(rate) => format!("{}, open loop, {rate} a second", self.workload),
        }
    }

    fn print(&self, global: &Global, report: &Report, bare: Option<&Bare>) -> Result<(), Failed> {
        let value = self.to_json(report, bare);
        if let Some(folder) = &self.report {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&value)?)?;
        }
        if global.json {
            return json(&value);
        }
        let mut header = vec!["".to_owned(), "per second".to_owned(), "requests".to_owned()];
        header.extend(PERCENTILES.iter().map(|percentile| format!("p{percentile} us")));
        header.push("max us".to_owned());
        let mut rows = vec![header, row("load", report.rate(), &report.latencies)];
        if self.rate.is_some() {
            rows.push(row("  service time", report.rate(), &report.service));
        }
        if let Some(bare) = bare {
            rows.push(row("bare 4 KiB log writes", bare.rate(), &bare.latencies));
            rows.push(ratios(report, bare));
        }
        columns(&rows)?;
        for (code, errors) in &report.errors {
            say(&format!("{} requests failed: {code}", count(*errors)));
        }
        Ok(())
    }

    fn to_json(&self, report: &Report, bare: Option<&Bare>) -> Value {
        let bare_json = bare.map(|bare| {
            json!({"rate": bare.rate(), "latencies_us": latencies_json(&bare.latencies),
                "rate_ratio": report.rate() / bare.rate()})
        });
        json!({
            "workload": self.workload, "loop": if self.rate.is_some() { "open" } else { "closed" },
            "offered_rate": self.rate, "under_way": self.closed,
            "measured_seconds": report.measured.as_secs_f64(),
            "item_bytes": self.item_bytes, "keys": self.keys, "seed": self.seed,
            "rate": report.rate(), "offered": report.offered,
            "latencies_us": latencies_json(&report.latencies),
            "service_us": latencies_json(&report.service), "errors": report.errors,
            "bare_log_writes": bare_json,
        })
    }
}

/// A bare loop of durable writes, as a log without anything around it would do them.
struct Bare {
    latencies: Latencies,
    measured: Duration,
}

impl Bare {
    fn rate(&self) -> f64 {
        self.latencies.count() as f64 / self.measured.as_secs_f64()
    }

    fn add(&mut self, other: &Self) {
        self.latencies.add(&other.latencies);
        self.measured += other.measured;
    }
}

fn bare_loop(folder: &std::path::Path) -> Result<Bare, Failed> {
    let times = probe::log_writes(folder, 4096, BARE_FOR)?;
    let mut latencies = Latencies::new();
    times.iter().for_each(|time| latencies.record(*time));
    Ok(Bare { latencies, measured: times.iter().sum() })
}

fn cell(value: Option<u64>) -> String {
    value.map_or("-".to_owned(), count)
}

fn row(name: &str, rate: f64, latencies: &Latencies) -> Vec<String> {
    let mut row = vec![name.to_owned(), count(rate as u64), count(latencies.count())];
    row.extend(PERCENTILES.iter().map(|percentile| cell(latencies.percentile(*percentile))));
    row.push(count(latencies.max()));
    row
}

fn ratios(report: &Report, bare: &Bare) -> Vec<String> {
    let ratio = |a: Option<u64>, b: Option<u64>| match (a, b) {
        (Some(a), Some(b)) if b > 0 => format!("{:.2}x", a as f64 / b as f64),
        _ => "-".to_owned(),
    };
    let mut row =
        vec!["load / bare".to_owned(), format!("{:.2}x", report.rate() / bare.rate()), String::new()];
    row.extend(PERCENTILES.iter().map(|percentile| {
        ratio(report.latencies.percentile(*percentile), bare.latencies.percentile(*percentile))
    }));
    row
}

fn latencies_json(latencies: &Latencies) -> Value {
    let percentiles =
        PERCENTILES.iter().map(|percentile| (format!("p{percentile}"), latencies.percentile(*percentile)));
    let mut value: serde_json::Map<String, Value> =
        percentiles.map(|(name, value)| (name, json!(value))).collect();
    value.insert("max".to_owned(), json!(latencies.max()));
    value.insert("count".to_owned(), json!(latencies.count()));
    Value::Object(value)
}
