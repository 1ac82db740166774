//! A simulated cluster: storage nodes in three zones, two MemDS servers, routers and clients.

use super::client::{Shared, SimClient, Workload};
use super::disk::Disk;
use super::history::History;
use super::network::{HostId, Weather};
use super::world::{Clock, Host, MS, Node, World};
use evenkeel_dataplane::checkpoint::superblock::Superblock;
use evenkeel_dataplane::config::{CoreConfig, NodeInfo};
use evenkeel_dataplane::core::StorageCore;
use evenkeel_dataplane::limits::SEGMENT_BYTES_MIN;
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_router::cache::CacheMode;
use evenkeel_router::memds::Memds;
use evenkeel_router::route::{Router, RouterConfig};
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::ids::{CoreId, Incarnation, NodeId};
use evenkeel_wire::message::status::TopologyAnswer;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::Member;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

/// How large a run is: part of what its seed decides.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Storage nodes, spread over three zones.
    pub nodes: u32,
    /// Cores of each.
    pub cores: u16,
    /// Routers.
    pub routers: usize,
    /// Clients.
    pub clients: usize,
    /// What they do.
    pub workload: Workload,
    /// What routers' caches do.
    pub cache: CacheMode,
    /// Segments of a core's log: few make checkpoints frequent.
    pub segments: u32,
    /// Latency of disks, nanoseconds: least, and what may come on top.
    pub disk_latency: (u64, u64),
    /// Bytes of a core's page cache: few make most reads wait for the disk.
    pub cache_bytes: usize,
}

impl Shape {
    /// The shape that a seed gives.
    #[must_use]
    pub fn of(prng: &mut Prng) -> Self {
        let cache = match prng.below(4) {
            0 => CacheMode::Off,
            1 => CacheMode::FlushEvery(Duration::from_millis(100)),
            _ => CacheMode::On,
        };
        Self {
            nodes: if prng.chance(1, 2) { 4 + prng.below(3) as u32 } else { 3 },
            cores: 1 + prng.below(2) as u16,
            routers: 1 + prng.below(2) as usize,
            clients: 3 + prng.below(4) as usize,
            workload: Workload::of(prng),
            cache,
            segments: 6 + prng.below(3) as u32,
            disk_latency: *prng.pick(&[(60_000, 200_000), (500_000, 4 * MS), (4 * MS, 30 * MS)]),
            cache_bytes: *prng.pick(&[256 << 10, 512 << 10, 2 << 20]),
        }
    }
}

/// The hosts of a cluster, by what they are.
#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Storage cores, by node.
    pub nodes: BTreeMap<NodeId, Vec<HostId>>,
    /// MemDS servers.
    pub memds: Vec<HostId>,
    /// Routers.
    pub routers: Vec<HostId>,
    /// Clients.
    pub clients: Vec<HostId>,
    /// Keys that they share.
    pub keys: usize,
}

impl Cluster {
    /// All storage cores.
    pub fn storage(&self) -> impl Iterator<Item = HostId> + '_ {
        self.nodes.values().flatten().copied()
    }
}

/// The zone of clients: no partition separates them from anything.
const OUTSIDE: usize = 99;

fn address(kind: u8, number: u32, core: u16) -> SocketAddr {
    SocketAddr::from(([10, kind, (number >> 8) as u8, number as u8], 7000 + core))
}

fn incarnation(node: NodeId) -> Incarnation {
    Incarnation([node.0 as u8; 16])
}

/// Builds a world with a cluster in it. Nothing has started yet.
pub fn build(
    seed: u64,
    shape: &Shape,
    weather: Weather,
    verbose: bool,
) -> (World, Cluster, Rc<RefCell<Shared>>) {
    let mut world = World::new(seed, weather, verbose);
    let mut cluster = Cluster { keys: shape.workload.keys, ..Cluster::default() };
    let nodes: BTreeMap<NodeId, NodeInfo> =
        (1..=shape.nodes).map(|number| node_info(shape, number)).collect();
    let memds: Vec<SocketAddr> = (0..2).map(|number| address(2, number, 0)).collect();
    let system: Vec<Member> = nodes
        .iter()
        .take(3)
        .map(|(node, info)| Member { node: *node, core: CoreId(0), incarnation: info.incarnation })
        .collect();
    for node in nodes.keys() {
        for core in 0..shape.cores {
            let config = CoreConfig {
                node: *node,
                core: CoreId(core),
                incarnation: incarnation(*node),
                nodes: nodes.clone(),
                memds: memds.clone(),
                system: system.clone(),
                cache_bytes: shape.cache_bytes,
                seed: 0,
            };
            let host = storage_host(&mut world, shape, config);
            cluster.nodes.entry(*node).or_default().push(host);
        }
    }
    for (number, address) in memds.iter().enumerate() {
        let clock = clock(&mut world.prng);
        let build = Box::new(|_| Node::Memds(Box::new(Memds::new())));
        let peer = Peer::of_role(PeerRole::Memds);
        let host = Host::new(format!("memds-{number}"), *address, number, peer, None, clock, build);
        cluster.memds.push(world.add(host, 0));
    }
    for number in 0..shape.routers {
        let host = router_host(&mut world, shape, number, memds.clone());
        cluster.routers.push(world.add(host, 0));
    }
    let shared = Rc::new(RefCell::new(Shared {
        history: History::new(shape.workload.keys),
        stop: false,
        read_everything: false,
        everything_read: false,
        violation: None,
        busy: BTreeSet::new(),
    }));
    for number in 0..shape.clients {
        let host = client_host(&mut world, shape, number, &shared);
        cluster.clients.push(world.add(host, 0));
    }
    (world, cluster, shared)
}

fn node_info(shape: &Shape, number: u32) -> (NodeId, NodeInfo) {
    let zone = ["a", "b", "c"][(number as usize - 1) % 3].to_owned();
    let cores = (0..shape.cores).map(|core| address(1, number, core)).collect();
    (NodeId(number), NodeInfo { zone, incarnation: incarnation(NodeId(number)), cores })
}

fn clock(prng: &mut Prng) -> Clock {
    // Within the drift bound that leases assume.
    let rate_ppm = prng.below(4001) as i64 - 2000;
    Clock::new(prng.below(1 << 40), rate_ppm, prng.below(500))
}

fn storage_host(world: &mut World, shape: &Shape, config: CoreConfig) -> HostId {
    let CoreConfig { node, core, incarnation, .. } = config;
    let superblock = Superblock::format(shape.segments, SEGMENT_BYTES_MIN);
    let identity = LogIdentity { incarnation, core };
    let disk = Disk::formatted(&superblock.encode(&identity), superblock.offset());
    let peer = Peer { role: PeerRole::Storage, node, core, incarnation };
    let zone = (node.0 as usize - 1) % 3;
    let address = config.address(node, core).expect("every node is configured");
    let mut seeds = world.prng.fork();
    let build = Box::new(move |_| {
        let config = CoreConfig { seed: seeds.next_u64(), ..config.clone() };
        Node::Storage(Box::new(StorageCore::new(config, Vec::new())))
    });
    let clock = clock(&mut world.prng);
    let name = format!("{node}.{core}");
    let mut host = Host::new(name, address, zone, peer, Some(disk), clock, build);
    host.disk_latency = shape.disk_latency;
    world.add(host, 0)
}

fn router_host(world: &mut World, shape: &Shape, number: usize, memds: Vec<SocketAddr>) -> Host {
    let topology = TopologyAnswer { nodes: Vec::new(), memds: Vec::new(), routers: Vec::new() };
    let mut seeds = world.prng.fork();
    let cache = shape.cache;
    let build = Box::new(move |_| {
        let (memds, topology) = (memds.clone(), topology.clone());
        Node::Router(Box::new(Router::new(RouterConfig { memds, topology, cache, seed: seeds.next_u64() })))
    });
    let peer = Peer::of_role(PeerRole::Router);
    let clock = clock(&mut world.prng);
    Host::new(format!("router-{number}"), address(3, number as u32, 0), number, peer, None, clock, build)
}

fn client_host(world: &mut World, shape: &Shape, number: usize, shared: &Rc<RefCell<Shared>>) -> Host {
    let routers: Vec<SocketAddr> = (0..shape.routers).map(|router| address(3, router as u32, 0)).collect();
    let (workload, shared) = (shape.workload, shared.clone());
    let mut prng = world.prng.fork();
    let build = Box::new(move |life| {
        let (routers, prng) = (routers.clone(), prng.fork());
        Node::Client(Box::new(SimClient::new(number, life, routers, workload, shared.clone(), prng)))
    });
    // Clients share the world's clock: their histories are compared.
    let clock = Clock::new(0, 0, 0);
    let peer = Peer::of_role(PeerRole::Client);
    Host::new(format!("client-{number}"), address(4, number as u32, 0), OUTSIDE, peer, None, clock, build)
}
