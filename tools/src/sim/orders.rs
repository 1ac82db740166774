//! What a run says to storage cores beside its clients: an order of the catalogue, and what nobody should
//! say.

use super::client::SimClient;
use super::cluster::Cluster;
use super::network::HostId;
use super::world::World;
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
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::Member;
use evenkeel_wire::turn::{Effects, Endpoint};

/// Asks the catalogue, as a router does, to split a partition. Nothing comes of it if the key is the first of
/// its partition, or if nobody leads the catalogue. Returns who leads it.
pub fn split(world: &mut World, cluster: &Cluster, prng: &mut Prng) -> Option<HostId> {
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
    let item = SimClient::key_item(prng.below(cluster.keys as u64) as usize);
    let border = table.schema.storage_key(&table.hash_key, &item).ok()?.0;
    let group = record.groups.iter().find(|group| group.can_divide_at(&border))?;
    let (name, generation, partition) = (table.name, table.generation, group.partition);
    let header = Header { deadline_us: 5_000_000, ..Header::new(Kind::SplitTable, RequestId(u64::MAX)) };
    let header = header.to_partition(PartitionId::SYSTEM, Epoch(1));
    let mut frame = Vec::new();
    seal(&mut frame, header, |out| encode(&SplitTable { name, generation, partition, border }, out));
    let router = *prng.pick(&cluster.routers);
    world.send_frame(router, leader, frame);
    Some(leader)
}

/// What one who was a member in an older epoch might still say: it leads, under a high ballot, and here is an
/// entry. Returns who was told.
pub fn ghost(world: &mut World, cluster: &Cluster, prng: &mut Prng) -> Option<HostId> {
    let storage: Vec<HostId> = cluster.storage().collect();
    let to = *prng.pick(&storage);
    if world.hosts[to].paused_until > world.now {
        // By the time that it hears it, much may have changed.
        return None;
    }
    let serving = world.hosts[to].storage().and_then(|core| core.serving())?;
    let replicas: Vec<_> = serving.groups().map(|group| &group.replica).collect();
    if replicas.is_empty() {
        return None;
    }
    let replica = *prng.pick(&replicas);
    let committed = replica.memberships().at(replica.commit());
    // Who is a member by what others know speaks for itself by the time that this one knows it, too.
    let serving = storage.iter().filter_map(|host| world.hosts[*host].storage()?.serving());
    let elsewhere = serving.filter_map(|core| core.group(replica.partition()));
    let elsewhere: Vec<&[Member]> = elsewhere.map(|group| &group.replica.config().members[..]).collect();
    let is_stranger = |host: &HostId| {
        let Peer { node, core, .. } = world.hosts[*host].peer;
        let mut members = committed.members.iter().chain(elsewhere.iter().copied().flatten());
        !members.any(|member| (member.node, member.core) == (node, core))
    };
    let strangers: Vec<HostId> = storage.into_iter().filter(is_stranger).collect();
    if strangers.is_empty() {
        return None;
    }
    let from = *prng.pick(&strangers);
    let node = world.hosts[from].peer.node;
    let ballot = replica.promised().max(replica.promised().successor(NodeId(0))).successor(node);
    let previous = replica.log().point(replica.commit())?;
    let entry = forged_entry(replica.partition(), previous, ballot);
    let slot = entry.header.slot;
    let entries = vec![entry.bytes];
    let message = Message::Accept { ballot, previous, commit: slot, settled: slot, entries };
    let older = Epoch(committed.epoch.0 - 1);
    let header = messages::header(replica.partition(), older);
    let mut effects = Effects::new();
    messages::send(Endpoint::Outgoing(world.hosts[to].address), header, &message, &mut effects);
    let bytes = effects.take_outboxes().next().map(|(_, bytes)| bytes);
    world.inject(from, to, bytes?);
    Some(to)
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
