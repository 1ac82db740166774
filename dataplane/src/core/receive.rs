//! Partitions' states that come from a leader, because this member is too far behind for its log.
//!
//! The state is built beside the one that the group has. Its items may be many times the memory: whenever
//! some of them are here, they are merged into a tree of *loose* pages, which no version refers to yet, and
//! the sender hears no more until that is done. When the state is complete, the next checkpoint takes over
//! its pages and makes it durable, and only then does the replica take it and tell the leader. A crash before
//! that forgets the loose pages.
//!
//! One partition is merged at a time, so that a merge has ended, writes included, before its pages are read
//! again.

use super::messages;
use super::serving::Serving;
use super::snapshots::TRANSFERS_MAX;
use crate::btree::batch::Batches;
use crate::btree::delta::Delta;
use crate::btree::feed::Feed;
use crate::btree::merge::{Clip, Merge, Progress, Workshop};
use crate::btree::page::Stamp;
use crate::btree::space::LoosePages;
use crate::btree::store::{FeedId, Store};
use crate::checkpoint::sink::{Image, ImageSink};
use crate::limits::{
    SNAPSHOT_CACHE_PART, SNAPSHOT_LEAVES_PER_TURN, SNAPSHOT_MERGE_BYTES, SNAPSHOT_PATIENCE, SNAPSHOT_REST,
    SNAPSHOT_WRITES_IN_FLIGHT_MAX,
};
use crate::operations::Owner;
use crate::partition::state::State;
use crate::wal::record::RecordBody;
use bytes::Bytes;
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{Ballot, NodeId, PartitionId, Slot};
use evenkeel_wire::message::peer::{ArchivedSnapshotChunk, LogPoint, SnapshotAck};
use evenkeel_wire::message::to_owned;
use evenkeel_wire::turn::{Boot, DiskCompletion, DiskFault, DiskOperation, Effects, File, Halt, Now};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// States that are being received.
#[derive(Debug)]
pub(super) struct Arrivals {
    incoming: BTreeMap<PartitionId, Incoming>,
    /// Whose items are being merged.
    merging: Option<PartitionId>,
    merge: Option<Box<Merge>>,
    /// What was merged since the transfers began, to be freed.
    pub(super) merged: Vec<Delta>,
    /// The merge does not go on before this, whatever else happens.
    rests_until: Boot,
    /// When the merge goes on although nothing else happens.
    pub(super) wake_at: Boot,
    /// Pages that the merge reads.
    pub(super) feed: Feed,
    batches: Batches,
    operations: u64,
    /// Merges and pages that were given up. They are freed when no write is under way any more.
    ended_merges: Vec<Merge>,
    ended_pages: Vec<(u64, u16)>,
}

#[derive(Debug)]
struct Incoming {
    from: NodeId,
    transfer: u64,
    next: u32,
    /// What the sender heard last.
    acknowledged: u32,
    sink: ImageSink,
    /// The tree so far.
    pages: BTreeSet<(u64, u16)>,
    /// The last chunk is here; the state is of this slot.
    complete: Option<Slot>,
    heard_at: Boot,
}

impl Incoming {
    fn state(&mut self) -> Option<&mut State> {
        self.sink.last_state()
    }

    /// Whether enough items are gathered for a merge.
    fn is_due(&mut self, merge_bytes: u64) -> bool {
        self.state().is_some_and(|state| state.tree.unwritten_bytes() >= merge_bytes)
    }
}

impl Default for Arrivals {
    fn default() -> Self {
        Self {
            incoming: BTreeMap::new(),
            merging: None,
            merge: None,
            merged: Vec::new(),
            rests_until: Boot(0),
            wake_at: Boot::NEVER,
            feed: Feed::default(),
            batches: Batches::new(SNAPSHOT_WRITES_IN_FLIGHT_MAX),
            operations: 0,
            ended_merges: Vec::new(),
            ended_pages: Vec::new(),
        }
    }
}

impl Arrivals {
    /// Forgets what comes for a partition.
    pub(super) fn abandon(&mut self, partition: PartitionId) {
        if let Some(incoming) = self.incoming.remove(&partition) {
            self.ended_pages.extend(incoming.pages);
        }
        if self.merging == Some(partition) {
            self.merging = None;
            self.ended_merges.extend(self.merge.take().map(|merge| *merge));
            self.batches.abandon();
            self.feed = Feed::default();
        }
    }

    /// Gives up pages of a state that will not be installed.
    pub(super) fn give_up(&mut self, pages: &LoosePages) {
        self.ended_pages.extend(pages.iter());
    }

    fn forget_stalled(&mut self, now: Boot) {
        let patience = SNAPSHOT_PATIENCE * 5;
        let stalled = self.incoming.iter().filter(|(_, incoming)| now.since(incoming.heard_at) >= patience);
        let stalled: Vec<PartitionId> = stalled.map(|(partition, _)| *partition).collect();
        stalled.into_iter().for_each(|partition| self.abandon(partition));
    }

    /// Frees what was given up, once nothing writes to it any more.
    fn free_ended(&mut self, store: &mut Store) {
        if self.batches.is_idle() {
            self.ended_merges.drain(..).for_each(|merge| merge.abandon(&mut store.space));
            self.ended_pages.drain(..).for_each(|(block, blocks)| store.space.release(block, blocks));
        }
    }
}

impl Serving {
    /// Whether a state of the partition is coming from its leader, for those who look inside.
    #[must_use]
    pub fn is_receiving(&self, partition: PartitionId) -> bool {
        self.arrivals.incoming.contains_key(&partition)
    }

    pub(super) fn on_snapshot_chunk(
        &mut self,
        now: Now,
        peer: Peer,
        header: Header,
        chunk: &ArchivedSnapshotChunk<'static>,
        out: &mut Effects,
    ) {
        let partition = header.partition;
        let ballot = Ballot::from(&chunk.ballot);
        if !self.speaks_for(peer, header) {
            return;
        }
        let group = self.groups.get_mut(&partition).expect("it speaks for a group we hold");
        group.replica.meet(peer.as_member());
        let from_leader = group.replica.accept_leader(now.boot, peer.node, ballot, &mut self.outputs);
        self.perform(partition, now, out);
        if !from_leader {
            return;
        }
        self.arrivals.forget_stalled(now.boot);
        let (transfer, index) = (chunk.transfer.to_native(), chunk.index.to_native());
        let known = self.arrivals.incoming.get(&partition);
        let same = known.is_some_and(|incoming| (incoming.from, incoming.transfer) == (peer.node, transfer));
        if !same {
            if index != 0 || self.arrivals.incoming.len() >= TRANSFERS_MAX {
                return;
            }
            self.arrivals.abandon(partition);
            let incoming = Incoming {
                from: peer.node,
                transfer,
                next: 0,
                acknowledged: 0,
                sink: ImageSink::default(),
                pages: BTreeSet::new(),
                complete: None,
                heard_at: now.boot,
            };
            self.arrivals.incoming.insert(partition, incoming);
            if let Some(group) = self.groups.get_mut(&partition) {
                let at = to_owned::<LogPoint>(&chunk.at);
                group.expect(Some(at.slot));
                group.replica.seek_log(now.boot, at, &mut self.outputs);
            }
            self.perform(partition, now, out);
        }
        let incoming = self.arrivals.incoming.get_mut(&partition).expect("it was just made sure of");
        incoming.heard_at = now.boot;
        if index == incoming.next {
            if incoming.sink.take(Bytes::copy_from_slice(&chunk.records)).is_err() {
                self.arrivals.abandon(partition);
                return;
            }
            incoming.next += 1;
            incoming.complete = chunk.last.then(|| Slot::from(&chunk.at.slot));
        }
        if incoming.next > incoming.acknowledged || index < incoming.acknowledged {
            self.acknowledge_chunks(partition, out);
        }
    }

    /// Tells the sender how far this member is, unless as much is gathered as may be.
    fn acknowledge_chunks(&mut self, partition: PartitionId, out: &mut Effects) {
        let merge_bytes = self.arrival_bytes_max();
        let Some(incoming) = self.arrivals.incoming.get_mut(&partition).filter(|incoming| incoming.next > 0)
        else {
            return;
        };
        if incoming.is_due(merge_bytes) {
            return;
        }
        incoming.acknowledged = incoming.next;
        let (from, ack) = (incoming.from, SnapshotAck { transfer: incoming.transfer, next: incoming.next });
        if let Some((endpoint, epoch)) = self.member_endpoint(partition, from) {
            let header = Header { kind: Kind::SnapshotAck, ..messages::header(partition, epoch) };
            out.send(endpoint, header, &ack);
        }
    }

    /// Bytes of keys and items that are gathered before they are merged; what is under way comes on top.
    fn arrival_bytes_max(&self) -> u64 {
        SNAPSHOT_MERGE_BYTES.min(self.config.cache_bytes / SNAPSHOT_CACHE_PART) as u64
    }

    /// Merges what has come, and stages what is complete.
    pub(super) fn advance_arrivals(&mut self, now: Boot, out: &mut Effects) {
        self.arrivals.wake_at = Boot::NEVER;
        self.arrivals.free_ended(&mut self.store);
        if self.arrivals.merging.is_none() {
            let merge_bytes = self.arrival_bytes_max();
            let due = |(partition, incoming): (&PartitionId, &mut Incoming)| {
                incoming.is_due(merge_bytes).then_some(*partition)
            };
            self.arrivals.merging = self.arrivals.incoming.iter_mut().find_map(due);
        }
        if now < self.arrivals.rests_until {
            self.arrivals.wake_at = self.arrivals.rests_until;
        } else if let Some(partition) = self.arrivals.merging {
            self.merge_arrived(partition, now, out);
        }
        let complete = self.arrivals.incoming.iter().filter(|(_, incoming)| incoming.complete.is_some());
        let complete: Vec<PartitionId> = complete.map(|(partition, _)| *partition).collect();
        for partition in complete {
            if self.arrivals.merging != Some(partition) {
                self.take_snapshot(partition);
            }
        }
    }

    /// Merges the items of a partition that have come into the tree that is being built.
    fn merge_arrived(&mut self, partition: PartitionId, now: Boot, out: &mut Effects) {
        let identity = self.store.identity();
        let Self { arrivals, store, groups, .. } = self;
        let (Some(incoming), Some(group)) = (arrivals.incoming.get_mut(&partition), groups.get(&partition))
        else {
            return arrivals.abandon(partition);
        };
        let state = incoming.state().expect("its items are being merged");
        let stamp = Stamp {
            identity,
            tree: partition,
            epoch: group.replica.epoch(),
            checkpoint: store.space.durable_checkpoint() + 1,
            position: state.slot(),
        };
        if arrivals.merge.is_none() {
            state.tree.freeze();
            let frozen = state.tree.frozen().expect("it was just frozen");
            arrivals.merge = Some(Box::new(Merge::new(*state.tree.version(), frozen, Clip::default())));
        }
        let merge = arrivals.merge.as_mut().expect("it was just made sure of");
        let (space, cache, redirects) = store.workshop();
        let batches = &mut arrivals.batches;
        let mut shop = Workshop { stamp, space, cache, redirects, batches, loose: true };
        let progress = merge.advance(&mut shop, &mut arrivals.feed, SNAPSHOT_LEAVES_PER_TURN);
        let damaged = arrivals.feed.waits_for().filter(|page| store.damage(page).is_some());
        if let Some(page) = damaged.filter(|_| progress == Progress::Waits) {
            // What was just written is damaged: all of it comes again.
            store.repaired(&page);
            return arrivals.abandon(partition);
        }
        while let Some(action) = arrivals.batches.next_write(progress == Progress::Done) {
            arrivals.operations += 1;
            let id = Owner::Arrival(arrivals.operations).id();
            out.disk.push(DiskOperation { id, file: File::Tree, action });
        }
        store.serve_feed(FeedId::Arrival, &mut arrivals.feed);
        if progress == Progress::More && !arrivals.batches.is_full() {
            arrivals.rests_until = now.after(SNAPSHOT_REST);
            arrivals.wake_at = arrivals.rests_until;
        }
        if progress == Progress::Done && arrivals.batches.is_idle() {
            let merged = arrivals.merge.take().expect("it was just advanced").finish();
            arrivals.merging = None;
            arrivals.feed.clear();
            arrivals.merged.extend(state.tree.adopt(merged.version));
            incoming.pages.extend(merged.written);
            for (block, blocks) in merged.replaced {
                incoming.pages.remove(&(block, blocks));
                store.space.release(block, blocks);
            }
            arrivals.wake_at = now;
            self.acknowledge_chunks(partition, out);
        }
    }

    /// Every chunk is here: the state waits for the next checkpoint.
    fn take_snapshot(&mut self, partition: PartitionId) {
        let Some(mut incoming) = self.arrivals.incoming.remove(&partition) else {
            return;
        };
        let pages: LoosePages = Arc::new(incoming.pages.into_iter().collect());
        let complete = incoming.sink.complete.pop();
        let complete = complete.filter(|image| {
            // What a leader has accepted and not applied is no part of a snapshot.
            Some(image.state.slot()) == incoming.complete && image.open.is_empty()
        });
        let staged = complete.and_then(|Image { group, state, .. }| match group.body {
            RecordBody::State(of) => Some((of.config, state)),
            RecordBody::Entry(_) | RecordBody::Promise | RecordBody::Supersede(_) | RecordBody::Removed => {
                None
            }
        });
        match (staged, self.groups.get_mut(&partition)) {
            (Some((config, state)), Some(group)) => {
                group.stage(config, state, pages);
                self.touched.insert(partition);
            }
            _ => self.arrivals.give_up(&pages),
        }
    }

    /// Takes the completion of a write of pages of an arriving state.
    ///
    /// # Errors
    /// [`Halt`] when it failed for another reason than space.
    pub(super) fn arrival_written(&mut self, completion: DiskCompletion) -> Result<(), Halt> {
        match completion.outcome {
            Ok(buffer) => self.arrivals.batches.ended(buffer),
            Err(DiskFault::Full) => {
                self.arrivals.batches.ended(None);
                if let Some(partition) = self.arrivals.merging {
                    self.arrivals.abandon(partition);
                }
            }
            Err(fault) => return Err(Halt(format!("writing pages of a snapshot failed: {fault}"))),
        }
        Ok(())
    }
}
