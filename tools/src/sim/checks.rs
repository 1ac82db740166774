//! What must hold at every moment of a run, and at its end, beside the clients' histories.

use super::cluster::Cluster;
use super::network::HostId;
use super::world::{Host, World};
use evenkeel_dataplane::btree::feed::Feed;
use evenkeel_dataplane::btree::page::verify;
use evenkeel_dataplane::core::serving::Serving;
use evenkeel_dataplane::group::Group;
use evenkeel_dataplane::partition::state::State;
use evenkeel_dataplane::paxos::Replica;
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::ids::{CoreId, NodeId, PartitionId, Slot};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::File;
use std::collections::{BTreeMap, BTreeSet};

/// Committed entries of a partition that are remembered: more than any replica is behind without a snapshot.
const COMMITTED_KEPT: usize = 50_000;

/// Compares replicas while a run goes on.
#[derive(Debug, Default)]
pub struct Checks {
    /// The newest entries that any replica has held to be committed.
    committed: BTreeMap<PartitionId, BTreeMap<Slot, Hash128>>,
    /// What of a replica was compared last. What it says is compared again when it says something else.
    compared: BTreeMap<(HostId, PartitionId), (u32, LogPoint)>,
    /// Clocks do not keep to what leases assume: two leaders may think that they serve.
    beyond: bool,
}

impl Checks {
    /// Checks of a run. `beyond`: clocks do not keep to what leases assume.
    #[must_use]
    pub fn new(beyond: bool) -> Self {
        Self { beyond, ..Self::default() }
    }

    /// Looks at every replica.
    ///
    /// # Errors
    /// What must not be: two leaders that may serve at the same time, or two different committed entries in
    /// one slot.
    pub fn look(&mut self, world: &World, cluster: &Cluster) -> Result<(), String> {
        let mut serving: BTreeMap<PartitionId, &str> = BTreeMap::new();
        for id in cluster.storage() {
            let host = &world.hosts[id];
            let Some(core) = host.storage().and_then(|core| core.serving()) else {
                continue;
            };
            let now = host.boot_now(world.now);
            for group in core.groups() {
                let partition = group.replica.partition();
                if !self.beyond
                    && core.may_serve(group, now)
                    && let Some(other) = serving.insert(partition, &host.name)
                {
                    return Err(format!("{other} and {} both lead {partition} under a lease", host.name));
                }
                self.compare_commits(id, host, &group.replica)?;
            }
        }
        Ok(())
    }

    fn compare_commits(&mut self, id: HostId, host: &Host, replica: &Replica) -> Result<(), String> {
        let (partition, commit) = (replica.partition(), replica.commit());
        if let Some(point) = replica.log().point(commit) {
            let says = (host.boots, point);
            if self.compared.insert((id, partition), says) == Some(says) {
                return Ok(());
            }
        }
        let committed = self.committed.entry(partition).or_default();
        // The newest few suffice: an entry's hash covers all before it.
        let from = Slot(commit.0.saturating_sub(8));
        for entry in replica.log().after(from) {
            let slot = entry.header.slot;
            if slot > commit {
                break;
            }
            let known = committed.entry(slot).or_insert(entry.hash);
            if *known != entry.hash {
                return Err(format!(
                    "{} holds another entry for committed at {slot} of {partition}",
                    host.name
                ));
            }
        }
        while committed.len() > COMMITTED_KEPT {
            committed.pop_first();
        }
        Ok(())
    }

    /// Whether every group has a leader that may serve, as many members as it should have, all of them with
    /// the partition's items and all of its log, and no replica is left over; and after damage to pages,
    /// whether all of them were looked at and none is damaged any more.
    #[must_use]
    pub fn is_healthy(world: &World, cluster: &Cluster, after_damage: bool) -> bool {
        let mut led: BTreeMap<PartitionId, (&GroupConfig, Slot)> = BTreeMap::new();
        let mut applied: BTreeMap<(PartitionId, NodeId, CoreId), Slot> = BTreeMap::new();
        for host in cluster.storage() {
            let host = &world.hosts[host];
            let Some(core) = host.storage().and_then(|core| core.serving()) else {
                return false;
            };
            if after_damage && !core.is_checked() {
                return false;
            }
            let now = host.boot_now(world.now);
            for group in core.groups() {
                let replica = &group.replica;
                if core.may_serve(group, now) {
                    led.insert(replica.partition(), (replica.config(), replica.log().last().slot));
                }
                let slot = if replica.is_refilling() { Slot::ZERO } else { group.state().slot() };
                applied.insert((replica.partition(), host.peer.node, host.peer.core), slot);
            }
        }
        let is_member = |(partition, node, core): &(PartitionId, NodeId, CoreId)| {
            // The system partition's former members stay: they are configured.
            let is_system = *partition == PartitionId::SYSTEM;
            is_system || led.get(partition).is_some_and(|(config, _)| stores(config, *node, *core))
        };
        let is_whole = |(config, last): &(&GroupConfig, Slot)| {
            let mut members = config.members.iter();
            let even =
                |member: &Member| applied.get(&(config.partition, member.node, member.core)) == Some(last);
            members.len() == 3 && members.all(|member| config.stores(member.node) && even(member))
        };
        led.values().all(is_whole) && applied.keys().all(is_member)
    }

    /// How every replica stands, for a failure's story.
    #[must_use]
    pub fn describe(world: &World, cluster: &Cluster) -> String {
        let mut lines = Vec::new();
        for id in cluster.storage() {
            let host = &world.hosts[id];
            let Some(core) = host.storage().and_then(|core| core.serving()) else {
                lines.push(format!("{} does not serve", host.name));
                continue;
            };
            if !core.is_checked() {
                let (found, repaired) = core.damage_counts();
                let name = &host.name;
                lines
                    .push(format!("{name} is not checked: {repaired} of {found} damaged pages are repaired"));
            }
            lines.push(format!("{}: {:?}", host.name, core.log_status()));
            let now = host.boot_now(world.now);
            for group in core.groups() {
                let status = group.status(now);
                lines.push(format!("{}: {status:?}", host.name));
            }
        }
        lines.join("\n")
    }

    /// Compares the replicas of every group, which must be at rest.
    ///
    /// # Errors
    /// When two differ.
    pub fn compare_replicas(world: &World, cluster: &Cluster) -> Result<(), String> {
        let mut first: BTreeMap<PartitionId, (&str, &State, Vec<Item>)> = BTreeMap::new();
        let mut newest: BTreeMap<PartitionId, &GroupConfig> = BTreeMap::new();
        let serving = |host: HostId| world.hosts[host].storage().and_then(|core| core.serving());
        for group in cluster.storage().filter_map(serving).flat_map(Serving::groups) {
            let config = group.replica.config();
            let known = newest.entry(config.partition).or_insert(config);
            if known.epoch < config.epoch {
                *known = config;
            }
        }
        for host in cluster.storage() {
            let host = &world.hosts[host];
            let Some(core) = host.storage().and_then(|core| core.serving()) else {
                continue;
            };
            let is_member =
                |group: &&Group| stores(newest[&group.replica.partition()], host.peer.node, host.peer.core);
            for group in core.groups().filter(is_member) {
                let (partition, state) = (group.replica.partition(), group.state());
                let items = items(host, core, state)?;
                let Some((name, other, others)) = first.get(&partition) else {
                    first.insert(partition, (&host.name, state, items));
                    continue;
                };
                if let Some(what) = difference((other, others), (state, &items)) {
                    let here = &host.name;
                    return Err(format!("{name} and {here} hold different data for {partition}: {what}"));
                }
            }
        }
        Ok(())
    }
}

/// In what two replicas differ, if they do.
fn difference(one: (&State, &[Item]), other: (&State, &[Item])) -> Option<String> {
    if one.0.applied != other.0.applied {
        return Some(format!("{:?} and {:?} are applied", one.0.applied, other.0.applied));
    }
    let only_in = |some: &[Item], others: &[Item]| {
        let other: BTreeSet<&Item> = others.iter().collect();
        some.iter().find(|item| !other.contains(item)).map(|(key, slot, _)| format!("{key:02x?} of {slot}"))
    };
    match (only_in(one.1, other.1), only_in(other.1, one.1)) {
        (None, None) if one.1 != other.1 => Some("the order of items".to_owned()),
        (None, None) => (one.0.sessions != other.0.sessions).then(|| "tokens".to_owned()),
        (one, other) => Some(format!("only the first has {one:?}, only the second {other:?}")),
    }
}

/// Whether the replica on a core is a member with the partition's items.
fn stores(config: &GroupConfig, node: NodeId, core: CoreId) -> bool {
    config.stores(node) && config.has_member(node, core)
}

/// An item: its key, its last write and its archive.
pub type Item = (Vec<u8>, Slot, Vec<u8>);

/// All items of a partition, those on the host's disk too.
///
/// # Errors
/// When a page is not what it should be.
///
/// # Panics
/// When the host has no disk.
pub fn items(host: &Host, core: &Serving, state: &State) -> Result<Vec<Item>, String> {
    let disk = host.disk.as_ref().expect("storage hosts have disks");
    let identity = LogIdentity { incarnation: host.peer.incarnation, core: host.peer.core };
    let (mut items, mut from, mut feed): (Vec<Item>, _, _) = (Vec::new(), Vec::new(), Feed::default());
    loop {
        let mut walk = state.tree.walk(core.pages_with(&feed), &from, b"", true);
        let miss = loop {
            match walk.next() {
                Ok(Some(found)) => items.push((walk.key().to_vec(), found.meta.slot, found.archive.to_vec())),
                Ok(None) => return Ok(items),
                Err(miss) => break miss,
            }
        };
        if let Some((last, ..)) = items.last() {
            from = [last, &[0][..]].concat();
        }
        drop(walk);
        let pointer = miss.pages[0];
        let page = disk.read(File::Tree, pointer.offset(), pointer.bytes());
        verify(&page, &identity, &pointer)
            .map_err(|fault| format!("{}: the page at block {}: {fault}", host.name, pointer.block))?;
        feed.arrived(&pointer, page);
    }
}
