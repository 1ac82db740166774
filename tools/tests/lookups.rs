//! Constant work: what the metadata servers are asked does not depend on what routers remember.

mod support;

use evenkeel::health;
use evenkeel::local::Cluster;
use evenkeel_client::{Client, Item, KeyType};
use evenkeel_router::cache::CacheMode;
use std::time::Duration;
use support::wait_for;

/// Keys that each MemDS server has looked up so far, and requests that the router took.
fn counters(client: &Client, cluster: &Cluster) -> (Vec<u64>, u64) {
    let health = health::ask(client, &cluster.config().topology());
    let memds = health.memds.iter().map(|said| said.status.as_ref().unwrap().keys_looked_up).collect();
    (memds, health.routers[0].status.as_ref().unwrap().requests)
}

/// Waits until all look-ups have arrived: the counters stand still.
fn settled(client: &Client, cluster: &Cluster) -> (Vec<u64>, u64) {
    let mut last = counters(client, cluster);
    wait_for("look-ups to arrive", || {
        #[allow(clippy::disallowed_methods, reason = "look-ups in the background need a moment")]
        std::thread::sleep(Duration::from_millis(100));
        let now = counters(client, cluster);
        let before = std::mem::replace(&mut last, now);
        (before == last).then(|| last.clone())
    })
}

const ROUNDS: u64 = 500;

fn work(client: &Client) {
    for round in 0..ROUNDS {
        let key = || Item::new().with("id", format!("key {round}"));
        client.put("users", key().with("round", round)).send().unwrap();
        client.get("users", key()).send().unwrap();
        client.get("users", key()).eventual().send().unwrap();
        client.delete("users", key()).send().unwrap();
    }
}

/// Keys looked up per request, at each server.
fn lookups_per_request(cache: CacheMode) -> Vec<f64> {
    let cluster = Cluster::temporary_builder().unwrap().cache(cache).start().unwrap();
    let client = Client::builder().endpoint(cluster.endpoint()).connect().unwrap();
    client.create_table("users").partition_key("id", KeyType::S).wait_until_active().send().unwrap();
    work(&client);
    let (memds_before, requests_before) = settled(&client, &cluster);
    work(&client);
    let (memds, requests) = settled(&client, &cluster);
    let requests = requests - requests_before;
    assert!(requests >= 4 * ROUNDS, "the router counts what it is asked: {requests}");
    memds.iter().zip(memds_before).map(|(now, before)| (now - before) as f64 / (4 * ROUNDS) as f64).collect()
}

#[test]
fn a_cold_cache_costs_the_metadata_servers_no_more_than_a_warm_one() {
    let modes = [CacheMode::On, CacheMode::FlushEvery(Duration::from_millis(100)), CacheMode::Off];
    for cache in modes {
        let per_server = lookups_per_request(cache);
        println!("{cache:?}: {per_server:?} keys looked up per request");
        assert_eq!(per_server.len(), 2);
        assert!(per_server.iter().all(|keys| (keys - 1.0).abs() < 0.01), "{cache:?}: {per_server:?}");
    }
}
