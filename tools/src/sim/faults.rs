//! What goes wrong in a run. Each seed picks its own mix, so that rare combinations come up.

use super::client::SimClient;
use super::cluster::Cluster;
use super::disk::FileKind;
use super::network::HostId;
use super::world::{MS, SECOND, World};
use bytes::Bytes;
use evenkeel_dataplane::btree::lookup::Pages;
use evenkeel_dataplane::catalog::record::TableRecord;
use evenkeel_dataplane::core::messages;
use evenkeel_dataplane::paxos::Message;
use evenkeel_wire::entry::{Effect, Entry, EntryHeader, EntryKind, Write, WrittenItem};
use evenkeel_wire::frame::{Header, Kind, seal};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{Epoch, NodeId, PartitionId, RequestId};
use evenkeel_wire::message::catalog::SplitTable;
use evenkeel_wire::message::encode;
use evenkeel_wire::message::request::{ReturnItem, Token};
use evenkeel_wire::turn::{DiskFault, Effects, Endpoint};
use std::collections::BTreeMap;

/// A way for things to go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// A process is killed, and started again.
    Kill,
    /// A node's power fails.
    PowerNode,
    /// A zone's power fails.
    PowerZone,
    /// The power fails everywhere.
    PowerAll,
    /// A process is stopped and goes on later.
    Pause,
    /// A zone is cut off from the others, or cannot be heard by one of them.
    Partition,
    /// A link breaks.
    BreakLink,
    /// A disk becomes slow.
    SlowDisk,
    /// A disk operation fails.
    DiskError,
    /// Checkpoints find no space.
    DiskFull,
    /// A bit flips in a log, while its process is down.
    FlipBit,
    /// A bit flips in a tree's pages or a checkpoint, while its process is down.
    FlipPage,
    /// A core is asked for a checkpoint: no fault, but what pages are damaged by comes after it.
    Checkpoint,
    /// A member of an older epoch speaks up.
    Ghost,
    /// A process is asked to end in good order.
    Drain,
    /// A router or MemDS server is killed.
    KillFront,
    /// A partition is to be split at one of the workload's keys: no fault either, but much changes at once.
    Split,
}

impl Fault {
    /// The kind of that name, as it is spelt in stories.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|fault| format!("{fault:?}").eq_ignore_ascii_case(name))
    }

    /// Every kind.
    pub const ALL: [Self; 17] = [
        Self::Kill,
        Self::PowerNode,
        Self::PowerZone,
        Self::PowerAll,
        Self::Pause,
        Self::Partition,
        Self::BreakLink,
        Self::SlowDisk,
        Self::DiskError,
        Self::DiskFull,
        Self::FlipBit,
        Self::FlipPage,
        Self::Checkpoint,
        Self::Ghost,
        Self::Drain,
        Self::KillFront,
        Self::Split,
    ];
}

/// The faults of a run, and what they still have to put right.
#[derive(Debug)]
pub struct Faults {
    mix: Vec<Fault>,
    /// Mean time between two.
    period: u64,
    /// The node whose log may be damaged: one only, so that its peers can refill it.
    damaged_node: NodeId,
    /// How fast disks are when they are not slow.
    disk_latency: (u64, u64),
    heal_network_at: Option<u64>,
    slow_until: BTreeMap<HostId, u64>,
    full_until: BTreeMap<HostId, u64>,
    /// How often each came up.
    pub counts: BTreeMap<Fault, u64>,
}

impl Faults {
    /// The faults that a seed gives.
    #[must_use]
    pub fn of(world: &mut World, cluster: &Cluster) -> Self {
        let prng = &mut world.prng;
        let mix: Vec<Fault> = Fault::ALL.into_iter().filter(|_| prng.chance(1, 3)).collect();
        let nodes: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        let period = *prng.pick(&[400 * MS, 1200 * MS, 4 * SECOND]);
        let damaged_node = *prng.pick(&nodes);
        Self {
            mix,
            period,
            damaged_node,
            disk_latency: cluster.storage().next().map_or((0, 0), |host| world.hosts[host].disk_latency),
            heal_network_at: None,
            slow_until: BTreeMap::new(),
            full_until: BTreeMap::new(),
            counts: BTreeMap::new(),
        }
    }

    /// These faults only.
    #[must_use]
    pub fn only(mut self, mix: &[Fault]) -> Self {
        self.mix = mix.to_vec();
        self
    }

    /// When the next fault comes.
    pub fn next_at(&self, world: &mut World) -> u64 {
        world.now + world.prng.below(2 * self.period) + MS
    }

    /// Puts right what is due, and lets something go wrong.
    pub fn strike(&mut self, world: &mut World, cluster: &Cluster) {
        self.put_right(world, false);
        if self.mix.is_empty() {
            return;
        }
        let fault = *world.prng.pick(&self.mix);
        *self.counts.entry(fault).or_default() += 1;
        let now = world.now;
        world.trace.tell(now, || format!("fault: {fault:?}"));
        self.cause(fault, world, cluster);
    }

    /// Puts everything right, for the end of a run.
    pub fn put_right(&mut self, world: &mut World, everything: bool) {
        let now = world.now;
        let due = |at: &u64| everything || *at <= now;
        if self.heal_network_at.as_ref().is_some_and(due) {
            self.heal_network_at = None;
            world.network.heal();
        }
        let expired = |map: &mut BTreeMap<HostId, u64>| -> Vec<HostId> {
            let hosts = map.iter().filter(|(_, at)| due(at)).map(|(host, _)| *host).collect::<Vec<_>>();
            map.retain(|host, _| !hosts.contains(host));
            hosts
        };
        for host in expired(&mut self.slow_until) {
            world.hosts[host].disk_latency = self.disk_latency;
        }
        for host in expired(&mut self.full_until) {
            if let Some(disk) = &mut world.hosts[host].disk {
                disk.capacity_blocks = None;
            }
        }
        if everything {
            for host in 0..world.hosts.len() {
                world.hosts[host].paused_until = 0;
                world.start_after(host, 0);
            }
        }
    }

    fn cause(&mut self, fault: Fault, world: &mut World, cluster: &Cluster) {
        let storage: Vec<HostId> = cluster.storage().collect();
        let host = *world.prng.pick(&storage);
        match fault {
            Fault::Kill => restart(world, &[host], false),
            Fault::PowerNode => {
                let nodes: Vec<&Vec<HostId>> = cluster.nodes.values().collect();
                let hosts = (*world.prng.pick(&nodes)).clone();
                restart(world, &hosts, true);
            }
            Fault::PowerZone => {
                let zone = world.prng.below(3) as usize;
                let hosts: Vec<HostId> =
                    storage.into_iter().filter(|host| world.hosts[*host].zone == zone).collect();
                restart(world, &hosts, true);
            }
            Fault::PowerAll => restart(world, &storage, true),
            Fault::Pause => {
                let all = [storage, cluster.routers.clone()].concat();
                let host = *world.prng.pick(&all);
                let pause = world.prng.below(5 * SECOND);
                world.hosts[host].paused_until = world.now + pause;
            }
            Fault::Partition => {
                let zone = world.prng.below(3) as usize;
                // A whole zone is cut off, or one way between two zones.
                if world.prng.chance(1, 2) {
                    for other in (0..3).filter(|other| *other != zone) {
                        world.network.block(zone, other);
                        world.network.block(other, zone);
                    }
                } else {
                    world.network.block(zone, (zone + 1 + world.prng.below(2) as usize) % 3);
                }
                self.heal_network_at = Some(world.now + world.prng.below(6 * SECOND));
            }
            Fault::BreakLink => {
                let links = world.network.links_of(host);
                if !links.is_empty() {
                    let link = *world.prng.pick(&links);
                    world.break_link(link, None, 200_000);
                }
            }
            Fault::SlowDisk => {
                world.hosts[host].disk_latency = (2 * MS, 60 * MS);
                self.slow_until.insert(host, world.now + world.prng.below(8 * SECOND));
            }
            Fault::DiskError => {
                if let Some(disk) = &mut world.hosts[host].disk {
                    disk.fail_next = Some(DiskFault::Os { errno: 5 });
                }
            }
            Fault::DiskFull => {
                if let Some(disk) = &mut world.hosts[host].disk {
                    disk.capacity_blocks = Some(1);
                }
                let longest = *world.prng.pick(&[8 * SECOND, 8 * SECOND, 100 * SECOND]);
                self.full_until.insert(host, world.now + world.prng.below(longest));
            }
            Fault::FlipBit => self.flip(world, cluster, FileKind::Segment),
            Fault::FlipPage => {
                let kind = *world.prng.pick(&[FileKind::Tree, FileKind::Tree, FileKind::Checkpoint]);
                self.flip(world, cluster, kind);
            }
            Fault::Checkpoint => {
                for host in storage {
                    world.want_checkpoint(host);
                }
            }
            Fault::Ghost => ghost(world, cluster),
            Fault::Drain => world.drain(host),
            Fault::KillFront => {
                let front = [cluster.routers.clone(), cluster.memds.clone()].concat();
                let host = *world.prng.pick(&front);
                restart(world, &[host], false);
            }
            Fault::Split => {
                split(world, cluster);
            }
        }
    }
}

/// Asks the catalogue, as a router does, to split a partition. Nothing comes of it if the key is the first of
/// its partition, or if nobody leads the catalogue.
fn split(world: &mut World, cluster: &Cluster) -> Option<()> {
    let leader = cluster.storage().find(|host| {
        let host = &world.hosts[*host];
        let serving = host.storage().and_then(|core| core.serving());
        let group = serving.and_then(|serving| serving.group(PartitionId::SYSTEM));
        group.is_some_and(|group| group.is_ready(host.boot_now(world.now)))
    })?;
    let catalog = world.hosts[leader].storage()?.serving()?.group(PartitionId::SYSTEM)?.state();
    let mut walk = catalog.tree.walk(Pages::default(), b"", b"", true);
    let record = TableRecord::from_found(&walk.next().ok()??)?;
    drop(walk);
    let table = record.table;
    let item = SimClient::key_item(world.prng.below(cluster.keys as u64) as usize);
    let border = table.schema.storage_key(&table.hash_key, &item).ok()?.0;
    let group = record.groups.iter().find(|group| group.can_divide_at(&border))?;
    let (name, generation, partition) = (table.name, table.generation, group.partition);
    let header = Header { deadline_us: 5_000_000, ..Header::new(Kind::SplitTable, RequestId(u64::MAX)) };
    let header = header.to_partition(PartitionId::SYSTEM, Epoch(1));
    let mut frame = Vec::new();
    seal(&mut frame, header, |out| encode(&SplitTable { name, generation, partition, border }, out));
    let router = *world.prng.pick(&cluster.routers);
    world.send_frame(router, leader, frame);
    Some(())
}

impl Faults {
    /// Flips a bit in a file of the node that may be damaged, while its process is down.
    fn flip(&self, world: &mut World, cluster: &Cluster, kind: FileKind) {
        let host = *world.prng.pick(&cluster.nodes[&self.damaged_node]);
        world.kill(host, false);
        if let Some(disk) = &mut world.hosts[host].disk {
            disk.flip_bit(&mut world.prng, kind);
        }
        world.start_after(host, 100 * MS);
    }
}

/// Kills hosts and starts them again a while later.
fn restart(world: &mut World, hosts: &[HostId], power: bool) {
    let longest = *world.prng.pick(&[200 * MS, 3 * SECOND, 8 * SECOND]);
    for host in hosts {
        world.kill(*host, power);
        let delay = 10 * MS + world.prng.below(longest);
        world.start_after(*host, delay);
    }
}

/// What one who was a member in an older epoch might still say: it leads, under a high ballot, and here is an
/// entry.
fn ghost(world: &mut World, cluster: &Cluster) {
    let storage: Vec<HostId> = cluster.storage().collect();
    let to = *world.prng.pick(&storage);
    let Some(serving) = world.hosts[to].storage().and_then(|core| core.serving()) else {
        return;
    };
    let replicas: Vec<_> = serving.groups().map(|group| &group.replica).collect();
    if replicas.is_empty() {
        return;
    }
    let mut prng = world.prng.fork();
    let replica = *prng.pick(&replicas);
    let committed = replica.memberships().at(replica.commit());
    let members = &committed.members;
    let strangers: Vec<HostId> = storage
        .into_iter()
        .filter(|host| {
            let Peer { node, core, .. } = world.hosts[*host].peer;
            !members.iter().any(|member| (member.node, member.core) == (node, core))
        })
        .collect();
    if strangers.is_empty() {
        return;
    }
    let from = *prng.pick(&strangers);
    let node = world.hosts[from].peer.node;
    let ballot = replica.promised().max(replica.promised().successor(NodeId(0))).successor(node);
    let Some(previous) = replica.log().point(replica.commit()) else {
        return;
    };
    let entry = forged_entry(replica.partition(), previous, ballot);
    let slot = entry.header.slot;
    let entries = vec![entry.bytes];
    let message = Message::Accept { ballot, previous, commit: slot, settled: slot, entries };
    let older = Epoch(committed.epoch.0 - 1);
    let header = messages::header(replica.partition(), older);
    let mut effects = Effects::new();
    messages::send(Endpoint::Outgoing(world.hosts[to].address), header, &message, &mut effects);
    let bytes = effects.take_outboxes().next().map(|(_, bytes)| bytes);
    if let Some(bytes) = bytes {
        world.inject(from, to, bytes);
    }
}

fn forged_entry(
    partition: PartitionId,
    previous: evenkeel_wire::message::peer::LogPoint,
    ballot: evenkeel_wire::ids::Ballot,
) -> Entry {
    let write = Write {
        token: Token { client: [0xee; 16], sequence: 1, issued_ms: 0, acknowledged_below: 0 },
        request_hash: 0,
        key: Bytes::from_static(b"forged"),
        return_item: ReturnItem::None,
        effect: Effect::Put(WrittenItem { checksum: 0, archive: Bytes::from_static(b"forged") }),
        old: None,
    };
    let header = EntryHeader {
        partition,
        slot: previous.slot.next(),
        ballot,
        previous: previous.hash,
        timestamp: 1,
        kind: EntryKind::Write,
        payload_bytes: 0,
    };
    Entry::build(header, write.encoded_bytes(), |out| write.encode(out))
}
