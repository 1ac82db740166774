//! What the loads of `bench` and `bench sweep` share: what to ask, of whom, with how many threads.

use super::live::Live;
use super::{Failed, Global};
use crate::cli::demo::duration;
use crate::cli::failed;
use crate::cli::output::{bar, say};
use crate::config;
use crate::process::entropy;
use clap::{Args, ValueEnum};
use evenkeel_bench::interval_log::IntervalLog;
use evenkeel_bench::keys::KeysBy;
use evenkeel_bench::load::Options;
use evenkeel_bench::noise::Noise;
use evenkeel_bench::plan::Pace;
use evenkeel_bench::preload::resume_from;
use evenkeel_bench::report::Report;
use evenkeel_bench::schedule::Arrivals;
use evenkeel_bench::sizes::Sizes;
use evenkeel_bench::threads::{self, Event, Threads};
use evenkeel_bench::watch::Watch;
use evenkeel_bench::workload::{Spec, Workload, key_item, key_name};
use evenkeel_client::{Client, KeyType};
use evenkeel_link::cpus;
use evenkeel_wire::table::TableDescriptor;
use serde_json::{Map, Value, json};
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Requests under way in the closed loop that looks for a rate, and how long that takes.
const TRIAL: (usize, Duration) = (64, Duration::from_secs(2));

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Client_ {
    /// An io_uring ring for each load thread.
    Ring,
    /// Sockets watched with epoll, for hosts that refuse rings.
    Epoll,
}

#[derive(Debug, Args)]
pub(super) struct Setup {
    /// What to do: put, get, get-eventual, get-put, ycsb-a to ycsb-f, or a TOML file.
    #[arg(long, default_value = "put", value_name = "NAME or FILE")]
    pub(super) workload: String,
    /// How keys are chosen: uniform, zipfian, zipfian:0.8, latest, hot:1%:90% or hot:1%:90%:5s (1% of the
    /// keys get 90% of the requests, every 5 seconds the next 1%). By default as the workload does.
    #[arg(long, value_name = "HOW")]
    keys_by: Option<KeysBy>,
    /// Bytes of an item: 1024, 100..4096, zipf:100..65536 or 100:90%,1024:10%. By default as the workload.
    #[arg(long, value_name = "SIZES")]
    item_bytes: Option<Sizes>,
    /// How an open loop's requests arrive: uniform or poisson.
    #[arg(long, default_value = "uniform")]
    pub(super) arrivals: Arrivals,
    /// How long to measure.
    #[arg(long = "for", value_name = "TIME", value_parser = duration, default_value = "10s")]
    pub(super) time: Duration,
    /// How long to run before measuring begins.
    #[arg(long, value_parser = duration, default_value = "2s")]
    pub(super) warm_up: Duration,
    /// Connections, over all threads; by default one for each request under way, at most 64.
    #[arg(long)]
    connections: Option<usize>,
    /// Load threads. They share nothing.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=256))]
    threads: u64,
    /// CPUs to pin load threads to, in turn, as 2,3. By default they are not pinned: only you know which CPUs
    /// the servers have.
    #[arg(long, value_delimiter = ',', value_name = "CPUS")]
    pin: Vec<usize>,
    /// How bytes travel.
    #[arg(long, value_enum, default_value = "ring")]
    client: Client_,
    /// Look for answers without ever sleeping. Each load thread needs a CPU of its own.
    #[arg(long)]
    spin: bool,
    /// Begin requests of an open loop that are due within so much time together, at its end, as `100us`: each
    /// wake-up costs a CPU that servers may need. Latency still counts from when each was due.
    #[arg(long, value_parser = duration, value_name = "TIME", conflicts_with = "spin")]
    tick: Option<Duration>,
    /// Keys to choose from; all are written once before a workload that reads.
    #[arg(long, default_value_t = 10_000)]
    keys: u64,
    /// Do not write the keys before a workload that reads: the table holds them.
    #[arg(long, conflicts_with = "resume_preload")]
    no_preload: bool,
    /// Go on with writing the keys where the same command was interrupted while it wrote them.
    #[arg(long)]
    resume_preload: bool,
    /// The table; created if it is not there.
    #[arg(long, default_value = "bench")]
    table: String,
    /// Partitions that the table begins with when it is created; by default what a table on demand has. On
    /// one that is there already, a check.
    #[arg(long)]
    partitions: Option<u32>,
    /// Decides operations, keys, sizes and Poisson arrivals.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Do not watch the host for its own noise before the load: that takes one and a half seconds.
    #[arg(long)]
    no_noise_check: bool,
    /// Write the report into this folder: report.json, latency.hlog, latency.hgrm and latency.svg; of a sweep
    /// sweep.json and sweep.svg.
    #[arg(long, value_name = "FOLDER")]
    pub(super) report: Option<PathBuf>,
}

/// Loads that are ready to run.
pub(super) struct Ready {
    pub(super) options: Options,
    pub(super) threads: Threads,
    pub(super) noise: Option<Noise>,
    cores: Vec<SocketAddr>,
}

impl Setup {
    /// The workload, with what the command line says instead.
    pub(super) fn workload(&self) -> Result<Workload, Failed> {
        let mut workload = match Workload::named(&self.workload) {
            Some(workload) => workload,
            None => self.workload_of_file()?,
        };
        workload.keys_by = self.keys_by.unwrap_or(workload.keys_by);
        workload.sizes = self.item_bytes.clone().unwrap_or(workload.sizes);
        Ok(workload)
    }

    fn workload_of_file(&self) -> Result<Workload, Failed> {
        let path = Path::new(&self.workload);
        if !path.is_file() {
            let names: Vec<&str> = Workload::names().collect();
            return Err(failed(format!(
                "there is no workload {:?}, and no such file; there are {}",
                self.workload,
                names.join(", ")
            )));
        }
        let spec: Spec = config::parse(&config::read(path)?, path)?;
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or("file");
        spec.workload(name).map_err(|error| failed(format!("{}: {error}", path.display())))
    }

    /// Watches the host, makes the table, and writes what will be read.
    pub(super) fn prepare(&self, global: &Global, workload: Workload, pace: Pace) -> Result<Ready, Failed> {
        let usable = cpus::usable();
        if let Some(cpu) = self.pin.iter().find(|cpu| !usable.contains(cpu)) {
            return Err(failed(format!("CPU {cpu} cannot be pinned to; this process may use {usable:?}")));
        }
        let client = global.connect()?;
        let noise = (!self.no_noise_check).then(Noise::measure);
        if let Some(noise) = noise.as_ref().filter(|noise| !noise.complaints().is_empty()) {
            say(&format!("NOISY: {}", noise.complaints().join("; ")));
        }
        let table = self.table(&client)?;
        let options = self.options(global, workload, pace, table)?;
        let threads = self.threads();
        let cores = storage_cores(&client)?;
        let traced = matches!(options.pace, Pace::Trace(..));
        if options.workload.reads() && !self.no_preload && !traced {
            self.preload(&client, &options)?;
        }
        Ok(Ready { options, threads, noise, cores })
    }

    fn threads(&self) -> Threads {
        let client = match self.client {
            Client_::Ring => threads::Client::Ring,
            Client_::Epoll => threads::Client::Epoll,
        };
        Threads { count: self.threads as usize, pin: self.pin.clone(), client }
    }

    fn preload(&self, client: &Client, options: &Options) -> Result<(), Failed> {
        let is_there = |key| {
            let answer = client.get(&self.table, key_item(&key_name(key))).send();
            answer.map(|answer| answer.item.is_some())
        };
        let first = if self.resume_preload { resume_from(options.keys, is_there)? } else { 0 };
        let progress =
            bar(options.keys, "writing keys {bar:30} {human_pos} of {human_len}, {per_sec}, {eta} left");
        progress.set_position(first);
        progress.reset_eta();
        // Keys are written as fast as they are taken, whatever the load is.
        let options = Options { pace: Pace::Closed(1), client: entropy()?, ..options.clone() };
        let written = threads::preload(&options, self.threads().client, first, &mut |written| {
            progress.set_position(written);
        });
        progress.finish_and_clear();
        written.map_err(|error| failed(format!("{error}; --resume-preload goes on from here")))
    }

    fn table(&self, client: &Client) -> Result<TableDescriptor, Failed> {
        if client.list_tables().send()?.contains(&self.table) {
            let table = client.describe_table(&self.table).send()?;
            return match self.partitions {
                Some(wanted) if wanted != table.partitions => Err(failed(format!(
                    "table {} has {} partitions, not {wanted}; name another one with --table, and it is \
                     created",
                    self.table, table.partitions
                ))),
                _ => Ok(table),
            };
        }
        let mut create = client.create_table(&self.table).partition_key("pk", KeyType::S);
        if let Some(partitions) = self.partitions {
            create = create.partitions(partitions);
        }
        Ok(create.wait_until_active().send()?)
    }

    fn options(
        &self,
        global: &Global,
        workload: Workload,
        pace: Pace,
        table: TableDescriptor,
    ) -> Result<Options, Failed> {
        let endpoint = global.endpoint.split(',').next().unwrap_or_default();
        let router = endpoint.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
        let router = router.ok_or_else(|| failed(format!("{endpoint:?} is no address; write HOST:PORT")))?;
        let connections = match pace {
            Pace::Closed(under_way) => under_way.min(64),
            Pace::Open(..) | Pace::Trace(..) => 64,
        };
        Ok(Options {
            router,
            table,
            workload,
            pace,
            // Every thread has as many.
            connections: self
                .connections
                .unwrap_or(connections)
                .max(1)
                .next_multiple_of(self.threads as usize),
            keys: self.keys.max(1),
            warm_up: self.warm_up,
            measure: self.time,
            seed: self.seed,
            client: entropy()?,
            spin: self.spin,
            tick: self.tick.unwrap_or_default(),
        })
    }

    /// What was run, for programs.
    pub(super) fn to_json(&self, options: &Options) -> Map<String, Value> {
        let workload = &options.workload;
        let traced = matches!(options.pace, Pace::Trace(..));
        let item_bytes = match &workload.sizes {
            _ if traced => Value::Null,
            Sizes::Fixed(bytes) => json!(bytes),
            sizes => json!(sizes.to_string()),
        };
        let keys_by = (!traced).then(|| workload.keys_by.to_string());
        let mix: Map<String, Value> = workload
            .mix
            .iter()
            .map(|(kind, percent)| (format!("{kind:?}").to_lowercase(), json!(percent)))
            .collect();
        let run = json!({
            "workload": workload.name, "mix": mix, "keys_by": keys_by,
            "item_bytes": item_bytes, "keys": options.keys, "seed": options.seed,
            "partitions": options.table.partitions, "connections": options.connections,
            "threads": self.threads, "pin": self.pin,
            "client": match self.client { Client_::Ring => "ring", Client_::Epoll => "epoll" },
            "spin": self.spin, "tick_us": self.tick.map(|tick| tick.as_micros() as u64),
            "warm_up_seconds": options.warm_up.as_secs_f64(),
        });
        run.as_object().cloned().unwrap_or_default()
    }
}

impl Ready {
    /// Runs a load. `at` is told when measuring will begin soon, begins and ends.
    pub(super) fn run(
        &self,
        options: &Options,
        live: &mut Live,
        at: &mut dyn FnMut(&Event<'_>),
    ) -> Result<(Report, IntervalLog), Failed> {
        let (watch, looks) = Watch::start(self.cores.clone(), self.threads.count)?;
        let mut log = IntervalLog::begin();
        live.warming_up();
        let report = threads::run(options, &self.threads, looks, &mut |event| {
            match &event {
                Event::Begin => log.restart(),
                Event::Interval(interval) => live.second(&log.push(interval)),
                Event::Soon | Event::End => {}
            }
            at(&event);
        });
        live.end();
        drop(watch);
        Ok((report?, log))
    }

    /// A rate to offer when none is given: half of what a closed loop gets.
    pub(super) fn find_rate(&self) -> Result<f64, Failed> {
        let (under_way, time) = TRIAL;
        let pace = Pace::Closed(under_way);
        let options =
            Options { pace, warm_up: time / 4, measure: time, client: entropy()?, ..self.options.clone() };
        let (report, _) = self.run(&options, &mut Live::hidden(), &mut |_| ())?;
        let half = report.rate() / 2.0;
        if half < 1.0 {
            return Err(failed("nothing was answered while a rate was looked for; give one with --rate"));
        }
        // Two digits: nobody should read more into it.
        let step = 10f64.powf(half.log10().floor() - 1.0);
        Ok((half / step).round() * step)
    }
}

fn storage_cores(client: &Client) -> Result<Vec<SocketAddr>, Failed> {
    let nodes = client.topology().send()?.nodes;
    Ok(nodes.into_iter().flat_map(|node| node.cores).map(SocketAddr::from).collect())
}
