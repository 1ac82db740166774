//! Partitions' states on their way to members that are too far behind for the log: the sender's side.
//! [`receive`](super::receive) is the other one.
//!
//! A consistent snapshot is read off in chunks, a few under way at a time. A transfer that stalls is
//! forgotten by both sides and begun again.

use super::messages;
use super::serving::Serving;
use crate::btree::feed::Feed;
use crate::btree::lookup::Miss;
use crate::btree::space::PinId;
use crate::btree::store::{FeedId, Store};
use crate::checkpoint::image::ImageSource;
use crate::limits::{
    SNAPSHOT_BURST_BYTES, SNAPSHOT_BYTES_PER_SECOND, SNAPSHOT_PATIENCE, SNAPSHOT_WINDOW_CHUNKS,
};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{Ballot, NodeId, PartitionId};
use evenkeel_wire::message::peer::{LogPoint, SnapshotAck, SnapshotChunk};
use evenkeel_wire::turn::{Boot, Effects, Endpoint};
use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

/// How long a sender waits, after its last chunk, for the receiver to make the state durable.
const INSTALL_PATIENCE: Duration = Duration::from_secs(20);

/// Transfers that this core may send, and receive, at a time. The rest waits for its turn.
pub(super) const TRANSFERS_MAX: usize = 8;

/// Snapshots under way.
#[derive(Debug, Default)]
pub(super) struct Snapshots {
    outgoing: BTreeMap<(PartitionId, NodeId), Outgoing>,
    /// Wanted, and not yet begun.
    waiting: VecDeque<(PartitionId, NodeId)>,
    transfers: u64,
    /// Bytes that may be sent now, or that were sent too early, and when that was reckoned.
    budget: i64,
    reckoned_at: Boot,
    /// When more may be sent although nothing else happens.
    pub(super) wake_at: Boot,
}

#[derive(Debug)]
struct Outgoing {
    transfer: u64,
    ballot: Ballot,
    at: LogPoint,
    at_ballot: Ballot,
    source: ImageSource,
    /// Pages that the source reads.
    feed: Feed,
    /// The version that the source reads stays on disk.
    pin: PinId,
    /// The chunk that is being gathered.
    gathered: Vec<u8>,
    /// What it waits for.
    missing: Option<Miss>,
    complete: bool,
    /// Chunks that are not acknowledged; the first has the index `acknowledged`.
    unacknowledged: VecDeque<Vec<u8>>,
    acknowledged: u32,
    /// The next chunk to send.
    next: u32,
    progress_at: Boot,
}

impl Snapshots {
    /// Transfers are paced: beside them, requests go on.
    fn reckon(&mut self, now: Boot) {
        // A second's worth is more than may be saved up.
        let time = now.since(self.reckoned_at).min(Duration::from_secs(1));
        let earned = time.as_micros() as i64 * SNAPSHOT_BYTES_PER_SECOND / 1_000_000;
        if earned > 0 {
            self.budget = (self.budget + earned).min(SNAPSHOT_BURST_BYTES);
            self.reckoned_at = now;
        }
    }

    /// When something may be sent again, if all that may be sent was.
    fn earned_at(&self, now: Boot) -> Boot {
        if self.outgoing.is_empty() || self.budget > 0 {
            return Boot::NEVER;
        }
        let micros = (1 - self.budget) as u64 * 1_000_000 / SNAPSHOT_BYTES_PER_SECOND as u64;
        now.after(Duration::from_micros(micros + 1))
    }

    /// Forgets what is under way for a partition.
    pub(super) fn abandon(&mut self, partition: PartitionId, store: &mut Store) {
        for (_, outgoing) in self.outgoing.extract_if(.., |(other, _), _| *other == partition) {
            store.space.unpin(outgoing.pin);
        }
        self.waiting.retain(|(other, _)| *other != partition);
    }

    /// Whether a partition's state is on its way to a member, or is to be.
    pub(super) fn is_sending(&self, partition: PartitionId, to: NodeId) -> bool {
        self.outgoing.contains_key(&(partition, to)) || self.waiting.contains(&(partition, to))
    }

    /// The pages of a transfer.
    pub(super) fn feed(&mut self, partition: PartitionId, to: NodeId) -> Option<&mut Feed> {
        self.outgoing.get_mut(&(partition, to)).map(|outgoing| &mut outgoing.feed)
    }
}

impl Outgoing {
    fn is_sent(&self) -> bool {
        self.complete && self.unacknowledged.is_empty()
    }

    /// The next chunk to send now, if the window allows one and its pages are in memory.
    fn next_chunk(&mut self, store: &Store) -> Option<(u32, bool)> {
        let sent = (self.next - self.acknowledged) as usize;
        if self.next - self.acknowledged >= SNAPSHOT_WINDOW_CHUNKS {
            return None;
        }
        if sent == self.unacknowledged.len() {
            if self.complete {
                return None;
            }
            match self.source.fill(store.pages_with(&self.feed), &mut self.gathered) {
                Ok(complete) => self.complete = complete,
                Err(miss) => {
                    for pointer in &miss.pages {
                        self.feed.want(*pointer);
                    }
                    self.missing = Some(miss);
                    return None;
                }
            }
            self.feed.clear();
            self.unacknowledged.push_back(std::mem::take(&mut self.gathered));
        }
        let index = self.next;
        self.next += 1;
        Some((index, self.complete && sent + 1 == self.unacknowledged.len()))
    }
}

impl Serving {
    /// A follower needs a partition's state.
    pub(super) fn begin_snapshot(&mut self, partition: PartitionId, to: NodeId, now: Boot) {
        if self.snapshots.outgoing.len() >= TRANSFERS_MAX {
            self.snapshots.waiting.push_back((partition, to));
            return;
        }
        let Some(group) = self.groups.get(&partition) else {
            return;
        };
        self.snapshots.transfers += 1;
        let (record, state) = group.snapshot();
        let outgoing = Outgoing {
            transfer: self.snapshots.transfers,
            ballot: group.replica.promised(),
            at: state.applied,
            at_ballot: state.applied_ballot,
            source: ImageSource::whole(state, record),
            feed: Feed::default(),
            pin: self.store.space.pin(self.store.space.durable_checkpoint()),
            gathered: Vec::new(),
            missing: None,
            complete: false,
            unacknowledged: VecDeque::new(),
            acknowledged: 0,
            next: 0,
            progress_at: now,
        };
        self.snapshots.outgoing.insert((partition, to), outgoing);
    }

    /// Sends chunks, repeats what was lost, and forgets what has stalled.
    pub(super) fn advance_snapshots(&mut self, now: Boot, out: &mut Effects) {
        let (mut ended, mut damaged) = (Vec::new(), Vec::new());
        self.snapshots.reckon(now);
        let mut budget = self.snapshots.budget;
        for ((partition, to), outgoing) in &mut self.snapshots.outgoing {
            let silent = now.since(outgoing.progress_at);
            let Some(group) = self.groups.get(partition) else {
                ended.push((*partition, *to));
                continue;
            };
            let still_leads = group.replica.is_leader() && group.replica.promised() == outgoing.ballot;
            let patience = if outgoing.is_sent() { INSTALL_PATIENCE } else { SNAPSHOT_PATIENCE * 5 };
            if !still_leads || silent >= patience {
                ended.push((*partition, *to));
                continue;
            }
            if silent >= SNAPSHOT_PATIENCE && outgoing.next > outgoing.acknowledged {
                outgoing.next = outgoing.acknowledged;
            }
            let config = group.replica.config();
            let member = group.replica.other(*to);
            let Some(address) = member.and_then(|member| self.config.address(*to, member.core)) else {
                continue;
            };
            while budget > 0
                && let Some((index, last)) = outgoing.next_chunk(&self.store)
            {
                let place = (index - outgoing.acknowledged) as usize;
                let chunk = SnapshotChunk {
                    transfer: outgoing.transfer,
                    ballot: outgoing.ballot,
                    at: outgoing.at,
                    at_ballot: outgoing.at_ballot,
                    index,
                    last,
                    records: Cow::Borrowed(&outgoing.unacknowledged[place]),
                };
                let header =
                    Header { kind: Kind::SnapshotChunk, ..messages::header(*partition, config.epoch) };
                budget -= chunk.records.len() as i64;
                out.send(Endpoint::Outgoing(address), header, &chunk);
            }
            if let Some(miss) = outgoing.missing.take()
                && let Some(fault) = self.store.damage(&miss.pages[0])
            {
                damaged.push((*partition, miss, fault));
            }
            self.store.serve_feed(FeedId::Snapshot(*partition, *to), &mut outgoing.feed);
        }
        self.snapshots.budget = budget;
        self.snapshots.wake_at = self.snapshots.earned_at(now);
        for (partition, miss, fault) in damaged {
            self.found_damage(partition, miss.pages[0], *miss.place, fault);
        }
        for key in ended {
            self.end_snapshot(key);
        }
    }

    /// Forgets a transfer, and lets the leader find out how far the follower is.
    fn end_snapshot(&mut self, (partition, to): (PartitionId, NodeId)) {
        if let Some(outgoing) = self.snapshots.outgoing.remove(&(partition, to)) {
            self.store.space.unpin(outgoing.pin);
        }
        if let Some(group) = self.groups.get_mut(&partition) {
            group.replica.snapshot_ended(to);
            self.touched.insert(partition);
        }
    }

    /// Begins a transfer that waits, if there is room.
    fn begin_waiting_snapshot(&mut self, now: Boot) {
        if self.snapshots.outgoing.len() < TRANSFERS_MAX
            && let Some((partition, to)) = self.snapshots.waiting.pop_front()
        {
            self.begin_snapshot(partition, to, now);
        }
    }

    pub(super) fn on_snapshot_ack(
        &mut self,
        now: Boot,
        peer: Peer,
        partition: PartitionId,
        ack: &SnapshotAck,
    ) {
        let Some(outgoing) = self.snapshots.outgoing.get_mut(&(partition, peer.node)) else {
            return;
        };
        if outgoing.transfer != ack.transfer || ack.next <= outgoing.acknowledged {
            return;
        }
        let acknowledged = (ack.next - outgoing.acknowledged) as usize;
        outgoing.unacknowledged.drain(..acknowledged.min(outgoing.unacknowledged.len()));
        outgoing.acknowledged = ack.next;
        outgoing.next = outgoing.next.max(ack.next);
        outgoing.progress_at = now;
    }

    /// The follower reached the snapshot's point: the transfer is done.
    pub(super) fn note_snapshot_installed(&mut self, now: Boot) {
        let groups = &self.groups;
        let installed = |(partition, to): &(PartitionId, NodeId)| {
            groups.get(partition).is_none_or(|group| !group.replica.awaits_state(*to))
        };
        let done = |key: &_, outgoing: &mut Outgoing| outgoing.is_sent() && installed(key);
        for (_, outgoing) in self.snapshots.outgoing.extract_if(.., done) {
            self.store.space.unpin(outgoing.pin);
        }
        self.begin_waiting_snapshot(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transfers_have_as_many_bytes_as_were_earned_after_any_pause() {
        let (mut snapshots, month) = (Snapshots::default(), Duration::from_secs(30 * 24 * 3600));
        let mut now = Boot(0).after(month);
        snapshots.reckon(now);
        assert_eq!(snapshots.budget, SNAPSHOT_BURST_BYTES, "no more than may be sent at once");
        // What was sent too early is owed.
        snapshots.budget -= SNAPSHOT_BURST_BYTES + SNAPSHOT_BYTES_PER_SECOND / 4;
        for _ in 0..250 {
            assert!(snapshots.budget <= 0);
            now = now.after(Duration::from_millis(1));
            snapshots.reckon(now);
        }
        now = now.after(Duration::from_millis(1));
        snapshots.reckon(now);
        assert!(snapshots.budget > 0 && snapshots.budget < SNAPSHOT_BURST_BYTES);
    }
}
