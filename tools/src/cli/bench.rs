//! Putting load on a cluster.
//!
//! * [`bare`]: the disk alone, in the same run. [`servers`]: what the processes use. [`measured`]: all
//!   of it, as it is told.

mod bare;
mod measured;
mod servers;

use super::demo::duration;
use super::output::{bar, json, say};
use super::{Ended, Failed, Global, Outcome, failed};
use crate::cluster::Cluster;
use crate::process::entropy;
use bare::Disk;
use clap::Args;
use evenkeel_bench::load::{Border, Load, Options, Pace};
use evenkeel_bench::preload::resume_from;
use evenkeel_bench::report::Report;
use evenkeel_bench::watch::Watch;
use evenkeel_bench::workload::{WORKLOADS, Workload, key_item};
use evenkeel_client::{Client, KeyType};
use evenkeel_wire::table::TableDescriptor;
use measured::Measured;
use serde_json::{Map, Value, json};
use servers::ByRole;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::time::Duration;

/// An open loop that offered this much more than it got done is no measurement of the offered rate.
const SHORTFALL_MAX: f64 = 0.01;

#[derive(Debug, Args)]
pub(super) struct Bench {
    /// What to do: put, get, get-eventual, get-put, ycsb-a, ycsb-b, ycsb-c or ycsb-f.
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
    /// Do not write the keys before a workload that reads: the table holds them.
    #[arg(long, conflicts_with = "resume_preload")]
    no_preload: bool,
    /// Go on with writing the keys where the same command was interrupted while it wrote them.
    #[arg(long)]
    resume_preload: bool,
    /// Bytes of an item.
    #[arg(long, default_value_t = 1024)]
    item_bytes: usize,
    /// The table; created if it is not there.
    #[arg(long, default_value = "bench")]
    table: String,
    /// Decides operations and keys.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Also measure the disk of this folder alone, before and after, and print ratios to it: durable 4 KiB
    /// writes, one after the other, beside a workload that writes; random 8 KiB reads, as many at a time as
    /// there are requests under way (in an open loop one), beside one that reads.
    #[arg(long, value_name = "FOLDER")]
    disk: Option<PathBuf>,
    /// MiB of the file that is read from with --disk: more than the device keeps in memory.
    #[arg(long, default_value_t = 2048, value_parser = clap::value_parser!(u64).range(1..))]
    scratch_mib: u64,
    /// The folder of the cluster, if its processes run on this host: also tell what they use, CPU time and
    /// bytes written.
    #[arg(long, value_name = "FOLDER")]
    cluster: Option<PathBuf>,
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
        let cluster = self.cluster.as_deref().map(Cluster::open).transpose()?;
        let mut disk = self.disk(workload)?;
        let (watch, looks) = Watch::start(storage_cores(&client)?)?;
        let mut load = Load::connect(self.options(global, workload, table)?, looks)?;
        if workload.reads() && !self.no_preload {
            self.preload(&client, &mut load)?;
        }
        let before = disk.as_mut().map(Disk::run).transpose()?;
        say(&format!("{} for {:?}, after {:?}", self.describe(), self.time, self.warm_up));
        let (report, used) = run(load, cluster.as_ref())?;
        drop(watch);
        let after = disk.as_mut().map(Disk::run).transpose()?;
        let depth = disk.map_or(0, |disk| disk.depth);
        let bare = before.zip(after).map(|(before, after)| (before.and(&after), depth));
        let measured = Measured { report, bare, used };
        self.tell(global, &measured)?;
        let open = self.rate.is_some();
        if open && measured.report.shortfall() > SHORTFALL_MAX {
            let percent = measured.report.shortfall() * 100.0;
            say(&format!("INVALID: {percent:.1}% of the offered requests were not served in time"));
            return Ok(Ended::Invalid);
        }
        Ok(Ended::Ok)
    }

    fn disk(&self, workload: &Workload) -> Result<Option<Disk>, Failed> {
        let depth = match self.pace() {
            Pace::Closed(under_way) => under_way.max(1),
            Pace::Open(_) => 1,
        };
        let kinds = (workload.reads(), workload.writes());
        let prepare = |folder| Disk::prepare(folder, kinds, self.scratch_mib, depth);
        self.disk.as_deref().map(prepare).transpose()
    }

    fn preload(&self, client: &Client, load: &mut Load) -> Result<(), Failed> {
        let is_there =
            |key| client.get(&self.table, key_item(key)).send().map(|answer| answer.item.is_some());
        let first = if self.resume_preload { resume_from(self.keys, is_there)? } else { 0 };
        let progress =
            bar(self.keys, "writing keys {bar:30} {human_pos} of {human_len}, {per_sec}, {eta} left");
        progress.set_position(first);
        progress.reset_eta();
        let written = load.preload(first, &mut |written| progress.set_position(written));
        progress.finish_and_clear();
        written.map_err(|error| failed(format!("{error}; --resume-preload goes on from here")))
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

    fn tell(&self, global: &Global, measured: &Measured) -> Result<(), Failed> {
        let value = measured.to_json(self.run_json());
        if let Some(folder) = &self.report {
            std::fs::create_dir_all(folder)?;
            std::fs::write(folder.join("report.json"), serde_json::to_string_pretty(&value)?)?;
        }
        if global.json { json(&value) } else { measured.print(self.rate.is_some()) }
    }

    fn run_json(&self) -> Map<String, Value> {
        let run = json!({
            "workload": self.workload, "loop": if self.rate.is_some() { "open" } else { "closed" },
            "offered_rate": self.rate, "under_way": self.closed,
            "item_bytes": self.item_bytes, "keys": self.keys, "seed": self.seed,
        });
        run.as_object().cloned().unwrap_or_default()
    }
}

fn storage_cores(client: &Client) -> Result<Vec<SocketAddr>, Failed> {
    let nodes = client.topology().send()?.nodes;
    Ok(nodes.into_iter().flat_map(|node| node.cores).map(SocketAddr::from).collect())
}

/// Runs a load, and looks at what the servers use meanwhile.
fn run(load: Load, cluster: Option<&Cluster>) -> Result<(Report, Option<ByRole>), Failed> {
    let (mut before, mut after) = (None, None);
    let report = load.run(&mut |border| {
        let used = cluster.map(servers::used);
        match border {
            Border::Begin => before = used,
            Border::End => after = used,
        }
    })?;
    let (before, after) = (before.transpose()?, after.transpose()?);
    Ok((report, before.zip(after).map(|(before, after)| servers::between(&before, &after))))
}
