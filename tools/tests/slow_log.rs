//! A leader whose log becomes slow hands its leaderships to faster members; where all are slow, they stay.

use evenkeel::sim::client::Workload;
use evenkeel::sim::cluster::{Cluster, Shape, build};
use evenkeel::sim::network::Weather;
use evenkeel::sim::world::{MS, SECOND, World};
use evenkeel_router::cache::CacheMode;
use evenkeel_wire::ids::{NodeId, PartitionId, Slot};
use std::collections::BTreeMap;
use std::time::Duration;

const SHAPE: Shape = Shape {
    nodes: 3,
    cores: 1,
    routers: 1,
    clients: 6,
    workload: Workload {
        keys: 12,
        think: Duration::from_millis(5),
        weights: [6, 2, 1, 4, 5, 1, 1],
        hot: false,
        partitions: 3,
    },
    cache: CacheMode::On,
    segments: 6,
    disk_latency: (60_000, 200_000),
    cache_bytes: 16 << 20,
};

const CALM: Weather = Weather {
    delay_min: 50_000,
    delay_spread: 100_000,
    lost_of_10k: 0,
    damaged_of_10k: 0,
    stuck_of_10k: 0,
    overtaking: false,
};

/// A disk on which every write takes nearly half a second.
const SLOW: (u64, u64) = (400 * MS, 50 * MS);

/// Who leads and serves each partition, and how far it is.
fn leaders(world: &World, cluster: &Cluster) -> BTreeMap<PartitionId, (NodeId, Slot)> {
    let mut leaders = BTreeMap::new();
    for host in cluster.storage() {
        let host = &world.hosts[host];
        let Some(serving) = host.storage().and_then(|core| core.serving()) else {
            continue;
        };
        let now = host.boot_now(world.now);
        for group in serving.groups().filter(|group| serving.may_serve(group, now)) {
            leaders.insert(group.replica.partition(), (host.peer.node, group.replica.commit()));
        }
    }
    leaders
}

/// A cluster at work, with everything led by somebody.
fn cluster(seed: u64) -> (World, Cluster) {
    let (mut world, cluster, _) = build(seed, &SHAPE, CALM, false);
    world.run_until(10 * SECOND);
    assert_eq!(leaders(&world, &cluster).len(), 4, "three partitions and the catalogue");
    (world, cluster)
}

fn nodes(leaders: &BTreeMap<PartitionId, (NodeId, Slot)>) -> BTreeMap<PartitionId, NodeId> {
    leaders.iter().map(|(partition, (node, _))| (*partition, *node)).collect()
}

#[test]
fn a_leader_whose_log_is_slow_hands_over_to_faster_members() {
    for seed in 1..4 {
        let (mut world, cluster) = cluster(seed);
        let before = leaders(&world, &cluster);
        let (victim, _) = before[before.keys().next_back().unwrap()];
        world.hosts[cluster.nodes[&victim][0]].disk_latency = SLOW;
        world.run_until(world.now + 5 * SECOND);
        let after = leaders(&world, &cluster);
        assert_eq!(after.len(), 4, "{after:?}");
        assert!(
            nodes(&after).values().all(|node| *node != victim),
            "{victim} was left by {before:?}: {after:?}"
        );
        // They stay where they are now, and go on with their work.
        world.run_until(world.now + 30 * SECOND);
        let later = leaders(&world, &cluster);
        assert_eq!(nodes(&after), nodes(&later));
        let progress = |partition: &PartitionId| later[partition].1.0 - after[partition].1.0;
        assert!(before.keys().filter(|partition| progress(partition) > 100).count() >= 3, "{later:?}");
    }
}

#[test]
fn where_all_logs_are_slow_leaderships_do_not_go_round() {
    let (mut world, cluster) = cluster(1);
    let before = leaders(&world, &cluster);
    for host in cluster.storage() {
        world.hosts[host].disk_latency = SLOW;
    }
    let (mut last, mut moves) = (nodes(&before), 0);
    for _ in 0..60 {
        world.run_until(world.now + SECOND);
        let now = nodes(&leaders(&world, &cluster));
        moves += now
            .iter()
            .filter(|(partition, node)| last.get(*partition).is_some_and(|was| was != *node))
            .count();
        last.extend(now);
    }
    let each = moves as f64 / last.len() as f64;
    assert!(each <= 4.0, "each leadership moved {each} times in a minute");
}
