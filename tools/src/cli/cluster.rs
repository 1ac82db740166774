//! Clusters of separate processes on this host, and the state of any cluster.

use super::output::{bar, columns, count, json, line, say};
use super::{Ended, Failed, Global, Outcome, client_of, failed};
use crate::cluster::{Cluster as Processes, Shape};
use crate::config::{CACHE_MIB_MIN, CACHE_MIB_ONE_HOST, SEGMENT_MIB_DEFAULT, SEGMENTS_DEFAULT};
use crate::health::{self, Health};
use clap::{Args, Subcommand, value_parser};
use evenkeel_client::Client;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::message::status::{Role, StatusAnswer, TopologyAnswer, TreeStatus};
use indicatif::HumanBytes;
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How long `up` and `restart` wait for the cluster to be healthy.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// How often they look.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// For how long a core that is being checked may give no answer before it counts as gone.
const SILENT_FOR_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Cluster {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Start a cluster under a folder: a new one, or the one that the folder holds. Returns when it is ready.
    Up(Up),
    /// End all processes of a cluster in good order.
    Down {
        /// The cluster's folder.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Kill one process (SIGKILL), or all: n1, n2, …, memds-0, …, router-0, …, all.
    Kill {
        /// Which.
        node: String,
        /// The cluster's folder.
        #[arg(long)]
        dir: PathBuf,
    },
    /// Start one process again, or all that do not run; one that runs is ended first.
    Restart {
        /// Which.
        node: String,
        /// The cluster's folder.
        #[arg(long)]
        dir: PathBuf,
        /// Return at once, without waiting for the cluster to be ready.
        #[arg(long)]
        no_wait: bool,
    },
    /// Check every page of every tree now, on all nodes that run, beside their work, and wait until that is
    /// done. What is damaged is repaired from peers. Exit code 3 when damage is left.
    Scrub {
        /// One node only: n1, n2, ….
        node: Option<String>,
        /// The cluster's folder; without it, --endpoint names a router.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
    /// How a cluster is: processes, partitions, leaders, lag. Exit code 3 when something is unhealthy.
    Status {
        /// The cluster's folder; without it, --endpoint names a router.
        #[arg(long)]
        dir: Option<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct Up {
    /// The cluster's folder.
    #[arg(long)]
    dir: PathBuf,
    /// Storage nodes of a new cluster, spread over three zones.
    #[arg(long, default_value_t = 3)]
    nodes: u32,
    /// Cores of each storage node.
    #[arg(long, default_value_t = 1)]
    cores: u16,
    /// MemDS servers.
    #[arg(long, default_value_t = 2)]
    memds: usize,
    /// Routers.
    #[arg(long, default_value_t = 1)]
    routers: usize,
    /// The first router's port; the other processes take those that follow. 0: any free ones.
    #[arg(long, default_value_t = 7400)]
    port: u16,
    /// Segments of each core's log.
    #[arg(long, default_value_t = SEGMENTS_DEFAULT)]
    segments: u32,
    /// Size of a segment, MiB.
    #[arg(long, default_value_t = SEGMENT_MIB_DEFAULT)]
    segment_mib: u64,
    /// Page cache of each core, MiB.
    #[arg(long, default_value_t = CACHE_MIB_ONE_HOST)]
    #[arg(value_parser = value_parser!(u64).range(CACHE_MIB_MIN..))]
    cache_mib: u64,
    /// Memory that each core takes when it starts, MiB. Best what it will need: the page cache, and what is
    /// written between two checkpoints. Default: as much as the page cache.
    #[arg(long)]
    reserve_mib: Option<u64>,
    /// What routers' caches do: "on", "off", or for example "flush 100ms". It makes no difference to MemDS.
    #[arg(long, default_value = "on")]
    cache: String,
}

impl Cluster {
    pub(super) fn run(self, global: &Global) -> Outcome {
        match self.verb {
            Verb::Up(up) => up.run(global),
            Verb::Down { dir } => {
                let cluster = Processes::open(&dir)?;
                // Routers first: they take nothing new. Then storage, while MemDS still answers.
                let mut names = cluster.names();
                names.sort_by_key(|name| std::cmp::Reverse(name.starts_with("router")));
                cluster.stop(&names)?;
                Ok(Ended::Ok)
            }
            Verb::Kill { node, dir } => {
                let cluster = Processes::open(&dir)?;
                for name in chosen(&cluster, &node)? {
                    if cluster.kill(&name)? {
                        say(&format!("{name} killed"));
                    } else {
                        say(&format!("{name} does not run"));
                    }
                }
                Ok(Ended::Ok)
            }
            Verb::Restart { node, dir, no_wait } => {
                let cluster = Processes::open(&dir)?;
                let names = chosen(&cluster, &node)?;
                if node != "all" {
                    cluster.stop(&names)?;
                }
                for name in &names {
                    cluster.start(name)?;
                }
                if !no_wait {
                    wait_until_ready(&cluster)?;
                }
                Ok(Ended::Ok)
            }
            Verb::Scrub { node, dir } => scrub(global, node.as_deref(), dir),
            Verb::Status { dir } => status(global, dir),
        }
    }
}

fn chosen(cluster: &Processes, name: &str) -> Result<Vec<String>, Failed> {
    if name == "all" { Ok(cluster.names()) } else { Ok(vec![cluster.name(name)?]) }
}

impl Up {
    fn run(self, global: &Global) -> Outcome {
        crate::config::cache_mode(&self.cache).map_err(failed)?;
        let cluster = match Processes::open(&self.dir) {
            Ok(cluster) => cluster,
            Err(crate::cluster::ClusterError::None { .. }) => self.create()?,
            Err(error) => return Err(error.into()),
        };
        for name in cluster.names() {
            cluster.start(&name)?;
        }
        wait_until_ready(&cluster)?;
        let endpoint = cluster.endpoints();
        if global.json {
            json(&json!({"endpoint": endpoint, "processes": cluster.names()}))?;
        } else {
            line(&endpoint)?;
        }
        Ok(Ended::Ok)
    }

    fn create(&self) -> Result<Processes, Failed> {
        let shape = Shape {
            nodes: self.nodes,
            cores: self.cores,
            memds: self.memds,
            routers: self.routers,
            port: self.port,
            log: (self.segments, self.segment_mib),
            cache_mib: self.cache_mib,
            reserve_mib: self.reserve_mib,
            cache: self.cache.clone(),
        };
        let progress = bar(0, "formatting {bar:30} {bytes} of {total_bytes}");
        let cluster = Processes::create(&self.dir, &shape, &mut |done, total| {
            progress.set_length(total);
            progress.set_position(done);
        });
        progress.finish_and_clear();
        Ok(cluster?)
    }
}

/// Waits until every process of a cluster is there and well.
#[allow(clippy::disallowed_methods, reason = "waiting for processes is a door's work")]
fn wait_until_ready(cluster: &Processes) -> Result<(), Failed> {
    let mut left = READY_WITHIN;
    loop {
        for name in cluster.names() {
            cluster.check(&name)?;
        }
        let endpoints = cluster.endpoints();
        let connected = client_of(&endpoints).deadline(Duration::from_secs(2)).connect();
        let complaints = match connected {
            Ok(client) => health::ask(&client, &cluster.config().topology()).complaints,
            Err(error) => vec![error.to_string()],
        };
        if complaints.is_empty() {
            return Ok(());
        }
        if left.is_zero() {
            return Err(failed(format!("the cluster is not ready: {}", complaints.join("; "))));
        }
        std::thread::sleep(LOOK_EVERY);
        left = left.saturating_sub(LOOK_EVERY);
    }
}

/// A client of a cluster, and where its processes are.
fn reach(global: &Global, dir: Option<PathBuf>) -> Result<(Client, TopologyAnswer), Failed> {
    let Some(dir) = dir else {
        let client = global.connect()?;
        let topology = client.topology().send()?;
        return Ok((client, topology));
    };
    let cluster = Processes::open(&dir)?;
    match Client::builder().endpoint(first_alive(&cluster)).connect() {
        Ok(client) => Ok((client, cluster.config().topology())),
        Err(error) => Err(failed(format!("no process of the cluster answers: {error}"))),
    }
}

/// A core that is checked.
struct Scrubbed {
    name: String,
    address: String,
    /// Checks that will have ended when this one has.
    checks: u64,
    /// How it was before.
    before: TreeStatus,
}

#[allow(clippy::disallowed_methods, reason = "waiting for processes is a door's work")]
fn scrub(global: &Global, node: Option<&str>, dir: Option<PathBuf>) -> Outcome {
    let (client, topology) = reach(global, dir)?;
    let mut scrubbed = Vec::new();
    for of in topology.nodes.iter().filter(|of| node.is_none_or(|node| of.node.to_string() == node)) {
        for (core, address) in of.cores.iter().enumerate() {
            let (name, address) = (format!("{}.c{core}", of.node), address.to_string());
            match trees_of(&client, &address) {
                Ok(trees) => {
                    let checks = client.scrub(address.clone()).send()?.checks;
                    scrubbed.push(Scrubbed { name, address, checks, before: trees });
                }
                Err(error) => say(&format!("{name} is not checked: {error}")),
            }
        }
    }
    if scrubbed.is_empty() {
        return Err(failed("no storage core that could be checked answers"));
    }
    let (mut left, mut found) = (0, Vec::new());
    for core in &scrubbed {
        let mut answered_at = Instant::now();
        let trees = loop {
            let trees = match trees_of(&client, &core.address) {
                Ok(trees) => trees,
                // On a host that is busy an answer may take its time; the check goes on meanwhile.
                Err(_) if answered_at.elapsed() < SILENT_FOR_MAX => {
                    std::thread::sleep(LOOK_EVERY);
                    continue;
                }
                Err(error) => return Err(failed(error)),
            };
            answered_at = Instant::now();
            if trees.checks < core.before.checks {
                return Err(failed(format!("{} was started anew meanwhile; ask again", core.name)));
            }
            if trees.checks >= core.checks {
                break trees;
            }
            std::thread::sleep(LOOK_EVERY);
        };
        left += trees.damaged_pages;
        found.push((core.name.clone(), trees.damage_found.saturating_sub(core.before.damage_found), trees));
    }
    if global.json {
        let cores = found.iter().map(
            |(core, found, trees)| json!({"core": core, "found": found, "damaged": trees.damaged_pages}),
        );
        json(&json!({"cores": cores.collect::<Vec<_>>()}))?;
    } else {
        for (core, found, trees) in &found {
            let damaged = count(trees.damaged_pages);
            line(&format!("{core}: checked, {} damaged pages found, {damaged} left", count(*found)))?;
        }
    }
    Ok(if left == 0 { Ended::Ok } else { Ended::Unhealthy })
}

fn trees_of(client: &Client, address: &str) -> Result<TreeStatus, String> {
    match client.status_of(address).deadline(Duration::from_secs(2)).send() {
        Ok(StatusAnswer::Storage(status)) => Ok(status.tree),
        Ok(StatusAnswer::Memds(_) | StatusAnswer::Router(_)) => {
            Err("another process listens there".to_owned())
        }
        Err(error) => Err(error.to_string()),
    }
}

fn status(global: &Global, dir: Option<PathBuf>) -> Outcome {
    let (client, topology) = reach(global, dir)?;
    let health = health::ask(&client, &topology);
    if global.json {
        json(&health.to_json())?;
    } else {
        print(&health)?;
    }
    Ok(if health.is_healthy() { Ended::Ok } else { Ended::Unhealthy })
}

/// An address of a process that runs; a status needs a connection to begin with.
fn first_alive(cluster: &Processes) -> String {
    let config = cluster.config();
    let routers = (0..).map(|number| format!("router-{number}")).zip(&config.routers);
    let memds = (0..).map(|number| format!("memds-{number}")).zip(&config.memds);
    let nodes = config.nodes.iter().map(|node| (format!("n{}", node.id), &node.cores[0]));
    let all: Vec<(String, String)> =
        routers.chain(memds).chain(nodes).map(|(name, address)| (name, address.to_string())).collect();
    let alive = all.iter().find(|(name, _)| cluster.pid(name).is_some());
    alive.or(all.first()).map(|(_, address)| address.clone()).unwrap_or_default()
}

fn print(health: &Health) -> Result<(), Failed> {
    let mut rows = vec![row(&["process", "zone", "address", "state", "leads", "groups", "log"])];
    for core in &health.cores {
        let name = format!("{}.{}", core.node, core.core);
        rows.push(match &core.said.status {
            Ok(status) => {
                let leads =
                    status.groups.iter().filter(|group| group.role == Role::Leader && group.ready).count();
                let log = format!(
                    "{} in {} writes, {} of {} segments free",
                    HumanBytes(status.log.bytes),
                    count(status.log.writes),
                    status.log.segments_free,
                    status.log.segments
                );
                let state = format!("{:?}", status.state).to_lowercase();
                let groups = status.groups.len().to_string();
                vec![
                    name,
                    core.zone.clone(),
                    core.said.address.clone(),
                    state,
                    leads.to_string(),
                    groups,
                    log,
                ]
            }
            Err(_) => vec![name, core.zone.clone(), core.said.address.clone(), "down".to_owned()],
        });
    }
    for said in &health.memds {
        let state = match &said.status {
            Ok(status) => format!("{} tables, {} routes", status.tables, status.routes),
            Err(_) => "down".to_owned(),
        };
        rows.push(vec!["memds".to_owned(), String::new(), said.address.clone(), state]);
    }
    for said in &health.routers {
        let state = match &said.status {
            Ok(status) => format!("{} requests, {} under way", count(status.requests), status.in_flight),
            Err(_) => "down".to_owned(),
        };
        rows.push(vec!["router".to_owned(), String::new(), said.address.clone(), state]);
    }
    columns(&rows)?;
    line("")?;
    print_trees(health)?;
    line("")?;
    print_partitions(health)?;
    line("")?;
    if health.is_healthy() {
        return line("healthy");
    }
    line("unhealthy:")?;
    health.complaints.iter().try_for_each(|complaint| line(&format!("  {complaint}")))
}

fn print_trees(health: &Health) -> Result<(), Failed> {
    let mut rows =
        vec![row(&["tree", "live", "free", "held", "cache", "hits", "reads", "parked", "damaged"])];
    for core in &health.cores {
        let Ok(status) = &core.said.status else {
            continue;
        };
        let tree = &status.tree;
        let blocks = |blocks: u64| HumanBytes(blocks * BLOCK_BYTES as u64).to_string();
        let lookups = (tree.cache_hits + tree.cache_misses).max(1);
        rows.push(vec![
            format!("{}.{}", core.node, core.core),
            blocks(tree.blocks_live),
            blocks(tree.blocks_free),
            blocks(tree.blocks_retired + tree.blocks_loose),
            format!("{} of {}", HumanBytes(tree.cache_bytes), HumanBytes(tree.cache_bytes_max)),
            format!("{:.1}%", tree.cache_hits as f64 * 100.0 / lookups as f64),
            count(tree.page_reads),
            count(tree.parked),
            format!("{} now, {} repaired", count(tree.damaged_pages), count(tree.damage_repaired)),
        ]);
    }
    columns(&rows)
}

fn print_partitions(health: &Health) -> Result<(), Failed> {
    let mut rows = vec![row(&["partition", "table", "leader", "committed", "items", "bytes", "followers"])];
    for (id, partition) in &health.partitions {
        let followers = partition.followers.iter().map(|follower| {
            let lag = partition.commit.saturating_sub(follower.matched.0);
            match follower.heard_ms_ago {
                _ if follower.snapshot => format!("{} snapshot", follower.node),
                Some(heard) => format!("{} -{lag} ({heard} ms)", follower.node),
                None => format!("{} silent", follower.node),
            }
        });
        rows.push(vec![
            id.to_string(),
            format!("t{}", partition.table),
            partition.leader.map_or("none".to_owned(), |node| node.to_string()),
            partition.commit.to_string(),
            count(partition.items),
            HumanBytes(partition.bytes).to_string(),
            followers.collect::<Vec<_>>().join(", "),
        ]);
    }
    columns(&rows)
}

fn row(cells: &[&str]) -> Vec<String> {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}
