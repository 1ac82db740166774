//! What other processes of the cluster say: members of groups, the catalogue's leader, MemDS.

use super::messages;
use super::serving::{Ensured, Serving};
use crate::group::{Group, answer_error};
use crate::partition::Stop;
use crate::partition::pending::Asker;
use crate::paxos::Message;
use crate::planted::{self, Planted};
use crate::wal::record::{Record, RecordBody};
use bytes::Bytes;
use evenkeel_wire::entry::{Entry, EntryKind};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::ids::{Lsn, PartitionId, Slot, TableId};
use evenkeel_wire::message::catalog::{
    EnsureReplicas, EnsureReplicasAnswer, Removal, SplitPartition, SplitPartitionAnswer,
};
use evenkeel_wire::message::peer::{
    FetchRange, Heartbeat, HeartbeatAnswer, RangeCells, Rejected, Rejection, SnapshotAck, SnapshotChunk,
};
use evenkeel_wire::message::routing::PublishAnswer;
use evenkeel_wire::message::{access, to_owned};
use evenkeel_wire::table::GroupConfig;
use evenkeel_wire::turn::{Effects, Endpoint, Now};
use std::collections::BTreeSet;

/// Whether an Accept is taken even when the log has no room for client writes: a new leader's no-op must find
/// a quorum, or reads would not go on.
fn is_always_accepted(entries: &[Bytes]) -> bool {
    let is_noop = |bytes: &Bytes| {
        Entry::take(&mut bytes.clone()).is_ok_and(|entry| entry.header.kind == EntryKind::Noop)
    };
    entries.iter().all(is_noop)
}

impl Serving {
    pub(super) fn on_peer_frame(
        &mut self,
        now: Now,
        from: Endpoint,
        header: Header,
        body: &[u8],
        out: &mut Effects,
    ) {
        let Some(peer) = self.peers.get(&from).copied() else {
            return;
        };
        self.members.heard(peer);
        let outcome = match header.kind {
            Kind::Heartbeat => access::<Heartbeat>(body).map(|heartbeat| {
                let heartbeat = to_owned::<Heartbeat>(heartbeat);
                self.on_heartbeat(now, from, peer, header, &heartbeat, out);
            }),
            Kind::HeartbeatAnswer => access::<HeartbeatAnswer>(body).map(|answer| {
                self.on_heartbeat_answer(now, peer, &to_owned::<HeartbeatAnswer>(answer), out);
            }),
            Kind::SnapshotChunk => access::<SnapshotChunk<'static>>(body).map(|chunk| {
                self.on_snapshot_chunk(now, peer, header, chunk, out);
            }),
            Kind::SnapshotAck => access::<SnapshotAck>(body).map(|ack| {
                self.on_snapshot_ack(now.boot, peer, header.partition, &to_owned::<SnapshotAck>(ack));
            }),
            Kind::FetchRange => access::<FetchRange>(body).map(|fetch| {
                if let Err(Stop::Wait(miss)) = self.on_fetch_range(from, peer, header, fetch, out) {
                    // Without room to wait, or with damage here, the asker asks another member.
                    let _ = self.park(Asker::new(from, header.request), header, body, miss);
                }
            }),
            Kind::RangeCells => access::<RangeCells<'static>>(body).map(|cells| {
                self.on_range_cells(now.boot, peer, cells, out);
            }),
            Kind::EnsureReplicas if peer.role != PeerRole::Storage => {
                self.refuse_kind(from, header, out);
                Ok(())
            }
            Kind::EnsureReplicas => access::<EnsureReplicas>(body).map(|ensure| {
                let ensure = to_owned::<EnsureReplicas>(ensure);
                self.on_ensure(now, from, header, ensure, out);
            }),
            Kind::EnsureReplicasAnswer => access::<EnsureReplicasAnswer>(body).map(|answer| {
                let answer = to_owned::<EnsureReplicasAnswer>(answer);
                let system = self.groups.get(&PartitionId::SYSTEM).map(|group| group.replica.config());
                // A configured member makes its replica anew at each start: it keeps it.
                let keeps = self.config.system.iter().any(|member| member.node == peer.node);
                self.catalog.on_ensured(peer.node, peer.core, &answer, system.filter(|_| !keeps));
            }),
            Kind::SplitPartition if peer.role != PeerRole::Storage => {
                self.refuse_kind(from, header, out);
                Ok(())
            }
            Kind::SplitPartition => access::<SplitPartition>(body).map(|order| {
                let order = to_owned::<SplitPartition>(order);
                self.on_split_partition(now, from, header, order, out);
            }),
            Kind::SplitPartitionAnswer => access::<SplitPartitionAnswer>(body).map(|answer| {
                let answer = to_owned::<SplitPartitionAnswer>(answer);
                self.catalog.on_split_answer(header.partition, answer);
            }),
            Kind::PublishAnswer => access::<PublishAnswer>(body).map(|answer| {
                if let Endpoint::Outgoing(memds) = from {
                    self.catalog.on_published(memds, Slot::from(&answer.version));
                }
            }),
            kind => match messages::read(kind, body) {
                Ok(Some(message)) => {
                    self.on_message(now, peer, header, message, out);
                    Ok(())
                }
                Ok(None) => {
                    self.refuse_kind(from, header, out);
                    Ok(())
                }
                Err(problem) => Err(problem),
            },
        };
        if outcome.is_err() {
            // A peer that sends malformed bodies has a bug or is not one of ours; nothing it says can be
            // trusted.
            out.close.push(from);
        }
    }

    fn refuse_kind(&self, from: Endpoint, header: Header, out: &mut Effects) {
        if !header.kind.is_answer() {
            let message = format!("a storage core does not serve {:?}; ask a router", header.kind);
            let asker = Asker::new(from, header.request);
            answer_error(asker, &Problem::new(ErrorCode::UnknownKind, message), out);
        }
    }

    /// Whether what `peer` says of a group that this core holds is listened to: it is a member, or knows of a
    /// later membership than this core.
    pub(super) fn speaks_for(&self, peer: Peer, header: Header) -> bool {
        let admits = |group: &Group| group.replica.admits(peer.as_member(), header.epoch);
        let group = self.groups.get(&header.partition);
        let plants = planted::active(Planted::AcceptStaleEpoch);
        self.is_storage(peer) && group.is_some_and(|group| plants || admits(group))
    }

    /// Whether a peer is a storage core of this cluster, in the present life of its data folder: a later
    /// membership may have any of them in it, and nobody else.
    pub(super) fn is_storage(&self, peer: Peer) -> bool {
        let info = self.config.nodes.get(&peer.node);
        peer.role == PeerRole::Storage && info.is_some_and(|info| info.incarnation == peer.incarnation)
    }

    fn on_message(&mut self, now: Now, peer: Peer, header: Header, message: Message, out: &mut Effects) {
        let partition = header.partition;
        if let Message::Invite(invite) = &message {
            self.accept_invitation(now, peer, invite);
        }
        let is_learners = match message {
            Message::Accepted(_) | Message::Rejected(_) => true,
            Message::Rejoin(_) => !planted::active(Planted::CourtTheForgetful),
            _ => false,
        };
        let is_prospect = |group: &Group| group.replica.is_prospect(peer.as_member());
        let learns = is_learners && self.groups.get(&partition).is_some_and(is_prospect);
        if !learns && !self.speaks_for(peer, header) {
            return;
        }
        if matches!(message, Message::Prepare(_))
            && !self.groups[&partition].replica.may_promise(header.epoch)
        {
            return;
        }
        self.wake(partition);
        let group = &self.groups[&partition];
        if matches!(message, Message::Accept { .. } | Message::Fetched { .. })
            && (group.gives_tree_up() || group.stands_still())
        {
            // By these its log could catch up with the snapshot, which would not be needed any more.
            return;
        }
        let is_sought = matches!(message, Message::Fetched { .. }) && !group.replica.is_candidate();
        if is_sought && self.log.is_nearly_full() {
            return;
        }
        if let Some(rejected) = self.refuse_for_room(partition, &message) {
            self.outputs.push(crate::paxos::Output::Send { to: peer.node, message: rejected });
        } else if let Some(group) = self.groups.get_mut(&partition) {
            group.replica.meet(peer.as_member());
            group.receive(now.boot, peer.node, message, header.timeline, &mut self.outputs);
        }
        self.perform(partition, now, out);
    }

    /// The answer to an Accept for which the log has no room.
    fn refuse_for_room(&self, partition: PartitionId, message: &Message) -> Option<Message> {
        let Message::Accept { ballot, entries, .. } = message else {
            return None;
        };
        let replica = &self.groups.get(&partition)?.replica;
        let has_room = !self.log.is_nearly_full() && (replica.stores() || !self.members.keeps_too_much());
        if has_room || is_always_accepted(entries) {
            return None;
        }
        let last = replica.log().last().slot;
        let held_up = self.checkpointer.damage(&self.store).is_some() && self.waits_for_entries(partition);
        let stuck = held_up && !planted::active(Planted::NeverStuck);
        let reason = if stuck { Rejection::Stuck(last) } else { Rejection::Busy(last) };
        Some(Message::Rejected(Rejected { ballot: *ballot, promised: replica.promised(), reason }))
    }

    /// The catalogue's leader says what this core must hold.
    fn on_ensure(
        &mut self,
        now: Now,
        from: Endpoint,
        header: Header,
        ensure: EnsureReplicas,
        out: &mut Effects,
    ) {
        let (answer, lsn) = self.ensure(now, ensure, out);
        let ensured = Ensured { lsn, to: from, request: header.request, answer };
        if lsn <= self.log.durable() {
            self.answer_ensured(ensured, out);
        } else {
            self.ensured.push_back(ensured);
        }
    }

    /// Creates and removes replicas. What is so, once the log is durable up to the returned write.
    pub(super) fn ensure(
        &mut self,
        now: Now,
        ensure: EnsureReplicas,
        out: &mut Effects,
    ) -> (EnsureReplicasAnswer, Lsn) {
        // A replica that exists may still be on its way to the disk: wait for everything that was appended.
        let mut lsn = self.log.appended();
        let mut created = Vec::new();
        let tables: BTreeSet<TableId> = ensure.create.iter().map(|config| config.table).collect();
        for config in ensure.create {
            let partition = config.partition;
            if self.groups.contains_key(&partition) {
                created.push(partition);
            } else if self.is_for_us(&config) && !self.awaits_split(&config) && !self.was_removed(&config) {
                lsn = lsn.max(self.create_group(config, now.boot));
                created.push(partition);
            }
        }
        let mut remove = ensure.remove.clone();
        if let Some(lost) = &mut self.lost_memory
            && ensure.everything == Some(lost.number)
            && !lost.told_everything
        {
            lost.told_everything = true;
            // A group that is not named was removed, and this core lost the record of that. Not when its
            // table is there: then a split made it, of which the catalogue has not heard yet. Nor when it has
            // a leader, or had one that refilled it: the catalogue hears of new members after the members do.
            let unnamed = self.groups.iter().filter(|(partition, group)| {
                let table_is_there = tables.contains(&group.replica.config().table);
                let is_led = !group.replica.is_refilling() || group.replica.leader().is_some();
                let may_be_one = table_is_there || is_led;
                **partition != PartitionId::SYSTEM && !created.contains(partition) && !may_be_one
            });
            remove.extend(unnamed.map(|(partition, _)| Removal { partition: *partition, below: None }));
        }
        for Removal { partition, below } in &remove {
            let epoch = self.groups.get(partition).map(|group| group.replica.epoch());
            if epoch.is_some_and(|epoch| below.is_none_or(|below| epoch < below))
                && let Some(removed) = self.remove_group(*partition, out)
            {
                lsn = lsn.max(removed);
                self.removed_in.extend(below.map(|below| (*partition, below)));
            }
        }
        let ask_everything = self.lost_memory.filter(|lost| !lost.told_everything).map(|lost| lost.number);
        for fence in &ensure.fence {
            self.begin_next_epoch(now, *fence, out);
        }
        let (changed, strays) = (self.changed_members(&ensure.known), self.strays(now.boot));
        (EnsureReplicasAnswer { created, removed: ensure.remove, changed, strays, ask_everything }, lsn)
    }

    /// Whether a replica that a split makes is still to be made by it. One that was created without its
    /// state votes, so it must not be on a member whose word the split was committed with: there its state
    /// comes from the parent. (A core that lost its memory knows nothing of that, but does not vote either.)
    fn awaits_split(&self, config: &GroupConfig) -> bool {
        let Some(origin) = config.origin.filter(|_| self.lost_memory.is_none()) else {
            return false;
        };
        self.groups.get(&origin.parent).is_some_and(|parent| parent.state().slot() < origin.slot)
    }

    /// Whether a replica of a later epoch was removed here: the order was long on its way.
    fn was_removed(&self, config: &GroupConfig) -> bool {
        self.removed_in.get(&config.partition).is_some_and(|in_epoch| config.epoch < *in_epoch)
    }

    fn is_for_us(&self, config: &GroupConfig) -> bool {
        config.members.contains(&self.config.member())
    }

    fn remove_group(&mut self, partition: PartitionId, out: &mut Effects) -> Option<Lsn> {
        let mut group = self.groups.remove(&partition)?;
        // It may be invited again: what is on its way to the disk is none of that replica's.
        self.forget_awaited(partition);
        self.heartbeats.forget(partition);
        group.abandon(out);
        self.snapshots.abandon(partition, &mut self.store);
        self.arrivals.abandon(partition);
        let staged = group.staged.take().filter(|staged| !staged.in_checkpoint);
        for pages in group.given_up.drain(..).chain(staged.map(|staged| staged.pages)) {
            self.arrivals.give_up(&pages);
        }
        self.scrub.sweep_wanted = true;
        let record = Record {
            partition,
            promised: group.replica.promised(),
            commit: group.replica.commit(),
            body: RecordBody::Removed,
        };
        Some(self.log.append(&record))
    }

    pub(super) fn answer_ensured(&self, ensured: Ensured, out: &mut Effects) {
        let header = Header::new(Kind::EnsureReplicasAnswer, ensured.request);
        out.send(ensured.to, header, &ensured.answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btree::space::Space;
    use crate::checkpoint::recovery::Recovered;
    use crate::checkpoint::superblock::Superblock;
    use crate::config::CoreConfig;
    use crate::limits::{SEGMENT_BYTES_MIN, SEGMENTS_MIN};
    use crate::wal::block::{CameFrom, LogIdentity};
    use crate::wal::recovery::RecoveredLog;
    use crate::wal::writer::LogTail;
    use evenkeel_wire::checksum::Hash128;
    use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, NodeId};
    use evenkeel_wire::table::Member;
    use evenkeel_wire::turn::{Boot, DiskAction, DiskCompletion, File, Input};
    use std::collections::{BTreeMap, VecDeque};

    const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([1; 16]), core: CoreId(0) };
    const PARTITION: PartitionId = PartitionId(7);

    /// The core as it starts from its files, which hold no group.
    fn started(superblock: Superblock, superblock_damaged: bool) -> Serving {
        let tail =
            LogTail { highest: Lsn::ZERO, last: Lsn::ZERO, hash: Hash128::ZERO, end: CameFrom::Nowhere };
        let recovered = Recovered {
            superblock,
            superblock_damaged,
            log: RecoveredLog { tail, used: VecDeque::new(), damage: Vec::new() },
            damaged_chunk: None,
            space: Space::restore(&[]),
            groups: Vec::new(),
        };
        let config = CoreConfig {
            node: NodeId(1),
            core: IDENTITY.core,
            incarnation: IDENTITY.incarnation,
            nodes: BTreeMap::new(),
            memds: Vec::new(),
            system: Vec::new(),
            cache_bytes: 1 << 20,
            seed: 1,
        };
        Serving::new(config, IDENTITY, recovered, Vec::new(), now(1))
    }

    fn now(seconds: u64) -> Now {
        Now::new(Boot(seconds * 1_000_000_000), 1_700_000_000_000)
    }

    fn formatted() -> Superblock {
        Superblock::format(SEGMENTS_MIN, SEGMENT_BYTES_MIN)
    }

    /// A group of nodes 1 to 3 that was born in epoch 1 and has come to `epoch`.
    fn group(partition: PartitionId, epoch: u32) -> GroupConfig {
        let member = |number: u32| Member {
            node: NodeId(number),
            core: CoreId(0),
            incarnation: Incarnation([number as u8; 16]),
        };
        let members = (1..=3).map(member).collect();
        GroupConfig { epoch: Epoch(epoch), ..GroupConfig::whole(partition, TableId(1), members) }
    }

    fn nothing() -> EnsureReplicas {
        EnsureReplicas { create: vec![], remove: vec![], known: vec![], fence: vec![], everything: None }
    }

    fn order(serving: &mut Serving, ensure: EnsureReplicas) -> EnsureReplicasAnswer {
        serving.ensure(now(1), ensure, &mut Effects::new()).0
    }

    fn create(serving: &mut Serving, config: GroupConfig) -> bool {
        let partition = config.partition;
        let answer = order(serving, EnsureReplicas { create: vec![config], ..nothing() });
        assert_eq!(answer.created.contains(&partition), serving.groups.contains_key(&partition));
        serving.groups.contains_key(&partition)
    }

    fn is_refilling(serving: &Serving, partition: PartitionId) -> bool {
        serving.groups[&partition].replica.is_refilling()
    }

    /// Performs what the core asks of its disk, for so many seconds; the last superblock that it writes.
    fn run(serving: &mut Serving, seconds: u64) -> Superblock {
        let mut file = vec![0; 8192];
        for second in 1..=seconds {
            let mut out = Effects::new();
            serving.end_turn(now(second), &mut out);
            while !out.disk.is_empty() {
                for operation in std::mem::take(&mut out.disk) {
                    if let (File::Superblock, DiskAction::Write { offset, buffer, .. }) =
                        (operation.file, &operation.action)
                    {
                        let at = *offset as usize;
                        file[at..at + buffer.len()].copy_from_slice(buffer);
                    }
                    let completion = DiskCompletion { id: operation.id, outcome: Ok(None) };
                    serving.step(now(second), Input::Disk(completion), &mut out).unwrap();
                }
                serving.end_turn(now(second), &mut out);
            }
        }
        Superblock::choose(&file, &IDENTITY).unwrap()
    }

    #[test]
    fn an_order_that_a_removal_has_overtaken_makes_no_replica() {
        let mut serving = started(formatted(), false);
        assert!(create(&mut serving, group(PARTITION, 4)));
        let removal = Removal { partition: PARTITION, below: Some(Epoch(6)) };
        order(&mut serving, EnsureReplicas { remove: vec![removal], ..nothing() });
        assert!(!create(&mut serving, group(PARTITION, 5)), "it votes in the place of who replaced it");
        assert!(create(&mut serving, group(PARTITION, 6)), "it is a member again");
        assert!(!is_refilling(&serving, PARTITION), "nothing was lost here");
    }

    #[test]
    fn a_core_that_lost_its_memory_once_does_not_vote_in_what_it_may_have_had() {
        let mut serving = started(formatted(), true);
        let asked = order(&mut serving, nothing()).ask_everything;
        assert!(asked.is_some(), "it does not know what it held");
        order(&mut serving, EnsureReplicas { everything: asked, ..nothing() });
        let durable = run(&mut serving, 3);
        assert!(serving.lost_memory.is_none(), "everything is refilled: there is nothing");
        assert!(!durable.memory_lost && durable.memory_was_lost, "{durable:?}");

        let mut restarted = started(durable, false);
        for serving in [&mut serving, &mut restarted] {
            let (first, later) = (PARTITION, PartitionId(8));
            assert!(create(serving, group(first, 1)) && create(serving, group(later, 2)));
            assert!(!is_refilling(serving, first), "a new table's group begins here");
            assert!(is_refilling(serving, later), "a split may have made it before the loss");
        }
    }
}
