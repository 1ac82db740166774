//! How a cluster is: what its processes say of themselves, put together and judged.
//!
//! A cluster is healthy when every process answers, every partition has a leader that serves, and every
//! replica votes, was heard within a heartbeat's time, and is not behind.

use evenkeel_client::Client;
use evenkeel_wire::ids::{CoreId, NodeId, PartitionId};
use evenkeel_wire::message::status::{
    CoreState, FollowerStatus, GroupStatus, MemdsStatus, Role, RouterStatus, StatusAnswer, StorageStatus,
    TopologyAnswer, TreeStatus,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Entries that a follower may be behind and still count as healthy: what is under way at any moment.
const LAG_MAX: u64 = 10_000;
/// A follower that was heard this long ago is missed.
const HEARD_WITHIN_MS: u64 = 1500;
/// How long one process may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(1500);

/// A process, and what it said.
#[derive(Clone, Debug)]
pub struct Said<T> {
    /// Where it listens.
    pub address: String,
    /// What it said, or why it did not.
    pub status: Result<T, String>,
}

/// A storage core, and what it said.
#[derive(Clone, Debug)]
pub struct Core {
    /// The node.
    pub node: NodeId,
    /// The core.
    pub core: CoreId,
    /// Its zone.
    pub zone: String,
    /// What it said.
    pub said: Said<StorageStatus>,
}

/// A partition, put together from what its members say.
#[derive(Clone, Debug, Default)]
pub struct Partition {
    /// Its table.
    pub table: u64,
    /// Who leads and serves.
    pub leader: Option<NodeId>,
    /// Items, as the leader has them.
    pub items: u64,
    /// Their bytes.
    pub bytes: u64,
    /// The leader's last committed slot.
    pub commit: u64,
    /// The members that hold the log only.
    pub log_replicas: Vec<NodeId>,
    /// The followers, as the leader sees them.
    pub followers: Vec<FollowerStatus>,
    /// Members that said anything.
    pub replicas: usize,
    /// What is wrong with it; empty: nothing.
    pub complaints: Vec<String>,
}

/// How a cluster is.
#[derive(Clone, Debug)]
pub struct Health {
    /// Storage cores.
    pub cores: Vec<Core>,
    /// MemDS servers.
    pub memds: Vec<Said<MemdsStatus>>,
    /// Routers.
    pub routers: Vec<Said<RouterStatus>>,
    /// Partitions.
    pub partitions: BTreeMap<PartitionId, Partition>,
    /// What is wrong; empty: nothing.
    pub complaints: Vec<String>,
}

/// Asks every process of a cluster.
#[must_use]
pub fn ask(client: &Client, topology: &TopologyAnswer) -> Health {
    let mut cores = Vec::new();
    for node in &topology.nodes {
        for (core, address) in node.cores.iter().enumerate() {
            let said = ask_one(client, address.to_string(), |status| match status {
                StatusAnswer::Storage(status) => Some(status),
                StatusAnswer::Memds(_) | StatusAnswer::Router(_) => None,
            });
            cores.push(Core { node: node.node, core: CoreId(core as u16), zone: node.zone.clone(), said });
        }
    }
    let memds = topology.memds.iter().map(|address| {
        ask_one(client, address.to_string(), |status| match status {
            StatusAnswer::Memds(status) => Some(status),
            StatusAnswer::Storage(_) | StatusAnswer::Router(_) => None,
        })
    });
    let memds = memds.collect();
    let routers = topology.routers.iter().map(|address| {
        ask_one(client, address.to_string(), |status| match status {
            StatusAnswer::Router(status) => Some(status),
            StatusAnswer::Storage(_) | StatusAnswer::Memds(_) => None,
        })
    });
    let routers = routers.collect();
    Health::judge(cores, memds, routers)
}

fn ask_one<T>(client: &Client, address: String, pick: impl Fn(StatusAnswer) -> Option<T>) -> Said<T> {
    let answer = client.status_of(address.clone()).deadline(ANSWER_WITHIN).send();
    let status = match answer {
        Ok(answer) => pick(answer).ok_or_else(|| "another process listens there".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    Said { address, status }
}

impl Health {
    fn judge(cores: Vec<Core>, memds: Vec<Said<MemdsStatus>>, routers: Vec<Said<RouterStatus>>) -> Self {
        let mut health = Self { cores, memds, routers, partitions: BTreeMap::new(), complaints: Vec::new() };
        health.judge_processes();
        health.put_partitions_together();
        for (partition, state) in &mut health.partitions {
            judge_partition(state);
            health.complaints.extend(state.complaints.iter().map(|what| format!("{partition}: {what}")));
        }
        if health.partitions.is_empty() {
            health.complaints.push("no partition has a leader".to_owned());
        }
        health
    }

    fn judge_processes(&mut self) {
        let mut complaints = Vec::new();
        for Core { node, core, said, .. } in &self.cores {
            match &said.status {
                Ok(status) if status.state == CoreState::Recovering => {
                    complaints.push(format!("{node}.{core} is reading its log"));
                }
                Ok(status) if status.state == CoreState::Draining => {
                    complaints.push(format!("{node}.{core} is shutting down"));
                }
                Ok(status) if !status.recovery.is_empty() => {
                    complaints.push(format!("{node}.{core}: {}", status.recovery));
                }
                Ok(_) => {}
                Err(_) => complaints.push(format!("{node}.{core} at {} does not answer", said.address)),
            }
        }
        for said in &self.memds {
            match &said.status {
                Ok(status) if status.catalog_version.0 == 0 => {
                    complaints.push(format!("memds at {} has not heard from the catalogue", said.address));
                }
                Ok(_) => {}
                Err(_) => complaints.push(format!("memds at {} does not answer", said.address)),
            }
        }
        for said in self.routers.iter().filter(|said| said.status.is_err()) {
            complaints.push(format!("router at {} does not answer", said.address));
        }
        self.complaints = complaints;
    }

    fn put_partitions_together(&mut self) {
        for core in &self.cores {
            let Ok(status) = &core.said.status else {
                continue;
            };
            for group in &status.groups {
                let partition = self.partitions.entry(group.partition).or_default();
                partition.table = group.table.0;
                partition.replicas += 1;
                if group.refilling {
                    partition.complaints.push(format!("{} is being refilled after damage", core.node));
                }
                if group.role == Role::Leader && group.ready {
                    partition.lead(core.node, group);
                }
            }
        }
    }

    /// Whether nothing is wrong.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.complaints.is_empty()
    }

    /// All of it, for programs.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let cores: Vec<Value> = self.cores.iter().map(core_json).collect();
        let memds = self.memds.iter().map(|said| match &said.status {
            Ok(status) => json!({
                "address": said.address, "up": true, "keys_looked_up": status.keys_looked_up,
                "tables": status.tables, "routes": status.routes, "catalog_version": status.catalog_version.0,
            }),
            Err(error) => json!({"address": said.address, "up": false, "error": error}),
        });
        let routers = self.routers.iter().map(|said| match &said.status {
            Ok(status) => json!({
                "address": said.address, "up": true, "requests": status.requests, "keys": status.keys,
                "cache_hits": status.cache_hits, "cache_misses": status.cache_misses,
                "lookups": status.lookups,
                "cached": status.cached, "in_flight": status.in_flight, "errors": status.errors,
                "overloaded": status.overloaded, "redirected": status.redirected,
            }),
            Err(error) => json!({"address": said.address, "up": false, "error": error}),
        });
        let partitions = self.partitions.iter().map(|(id, partition)| {
            let followers = partition.followers.iter().map(|follower| {
                json!({
                    "node": follower.node.0, "matched": follower.matched.0,
                    "lag": partition.commit.saturating_sub(follower.matched.0),
                    "heard_ms_ago": follower.heard_ms_ago, "snapshot": follower.snapshot,
                })
            });
            json!({
                "partition": id.0, "table": partition.table, "leader": partition.leader.map(|node| node.0),
                "commit": partition.commit, "items": partition.items, "bytes": partition.bytes,
                "log_replicas": partition.log_replicas.iter().map(|node| node.0).collect::<Vec<_>>(),
                "followers": followers.collect::<Vec<_>>(), "complaints": partition.complaints,
            })
        });
        json!({
            "healthy": self.is_healthy(), "complaints": self.complaints, "cores": cores,
            "memds": memds.collect::<Vec<_>>(), "routers": routers.collect::<Vec<_>>(),
            "partitions": partitions.collect::<Vec<_>>(),
        })
    }
}

impl Partition {
    fn lead(&mut self, node: NodeId, group: &GroupStatus) {
        self.leader = Some(node);
        self.items = group.items;
        self.bytes = group.bytes;
        self.commit = group.commit.0;
        self.log_replicas.clone_from(&group.log_replicas);
        self.followers = group.followers.clone();
    }
}

fn judge_partition(partition: &mut Partition) {
    if partition.leader.is_none() {
        partition.complaints.push("nobody leads and serves it".to_owned());
    }
    for node in &partition.log_replicas {
        partition.complaints.push(format!("{node} holds its log only, until the items are copied"));
    }
    for follower in &partition.followers {
        let lag = partition.commit.saturating_sub(follower.matched.0);
        let node = follower.node;
        if follower.snapshot {
            partition.complaints.push(format!("{node} is being sent a snapshot"));
        } else if follower.heard_ms_ago.is_none_or(|heard| heard > HEARD_WITHIN_MS) {
            partition.complaints.push(format!("{node} does not answer its leader"));
        } else if lag > LAG_MAX {
            partition.complaints.push(format!("{node} is {lag} entries behind"));
        }
    }
}

fn core_json(core: &Core) -> Value {
    let Core { node, core, zone, said } = core;
    match &said.status {
        Ok(status) => json!({
            "node": node.0, "core": core.0, "zone": zone, "address": said.address, "up": true,
            "state": format!("{:?}", status.state).to_lowercase(),
            "incarnation": status.incarnation.to_string(),
            "groups": status.groups.len(),
            "leads": status.groups.iter().filter(|group| group.role == Role::Leader && group.ready).count(),
            "log": {
                "writes": status.log.writes, "bytes": status.log.bytes, "records": status.log.records,
                "segments": status.log.segments, "segments_free": status.log.segments_free,
                "checkpoints": status.log.checkpoints, "checkpointing": status.log.checkpointing,
            },
            "tree": tree_json(&status.tree),
            "recovery": status.recovery,
        }),
        Err(error) => {
            json!({
                "node": node.0, "core": core.0, "zone": zone, "address": said.address, "up": false,
                "error": error,
            })
        }
    }
}

fn tree_json(tree: &TreeStatus) -> Value {
    json!({
        "blocks": tree.blocks, "blocks_live": tree.blocks_live, "blocks_free": tree.blocks_free,
        "blocks_retired": tree.blocks_retired, "blocks_loose": tree.blocks_loose,
        "cache_bytes": tree.cache_bytes, "cache_bytes_max": tree.cache_bytes_max,
        "cache_hits": tree.cache_hits, "cache_misses": tree.cache_misses,
        "cache_evictions": tree.cache_evictions,
        "page_reads": tree.page_reads, "bytes_written": tree.bytes_written, "parked": tree.parked,
        "damaged_pages": tree.damaged_pages, "damage_found": tree.damage_found,
        "damage_repaired": tree.damage_repaired, "checks": tree.checks, "blocks_swept": tree.blocks_swept,
    })
}
