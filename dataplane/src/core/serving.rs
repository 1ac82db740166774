//! The turn of a core that is at work.
//!
//! Inputs change groups and collect records and frames. At the end of the turn, groups apply what is
//! committed and answer, leaders send what followers lack, and everything that was appended becomes one log
//! write.

use super::hand_over::HandOvers;
use super::heartbeats::Heartbeats;
use super::members::Members;
use super::merged::Merged;
use super::messages;
use super::publish::Publisher;
use super::receive::Arrivals;
use super::repair::Repairs;
use super::scrub::Scrub;
use super::snapshots::Snapshots;
use crate::btree::feed::Feed;
use crate::btree::lookup::Pages;
use crate::btree::store::{Delivery, FeedId, Store};
use crate::btree::version::{Blocks, Version};
use crate::catalog::Catalog;
use crate::checkpoint::recovery::Recovered;
use crate::checkpoint::superblock::Superblock;
use crate::checkpoint::writer::{Checkpointer, Progress};
use crate::config::CoreConfig;
use crate::group::Group;
use crate::operations::Owner;
use crate::partition::state::State;
use crate::partition::waited::Moment;
use crate::paxos::log::GroupLog;
use crate::paxos::{Message, Output, Seed};
use crate::planted::{self, Planted};
use crate::wal::block::LogIdentity;
use crate::wal::segments::Segments;
use crate::wal::writer::Writer;
use ahash::AHashMap;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::frame::Header;
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::ids::{Ballot, Epoch, Lsn, NodeId, PartitionId, Slot, TableId};
use evenkeel_wire::message::catalog::EnsureReplicasAnswer;
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::GroupConfig;
use evenkeel_wire::timeline::Packed;
use evenkeel_wire::turn::{Boot, DiskCompletion, Effects, Endpoint, Halt, Input, Now};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

/// How often groups that are not at rest are looked at.
const TICK: Duration = Duration::from_millis(20);

/// How often a core with nothing to do looks whether its peers have fallen silent.
const TICK_AT_REST: Duration = Duration::from_millis(100);

/// A core at work.
#[derive(Debug)]
pub struct Serving {
    pub(crate) config: CoreConfig,
    pub(crate) log: Writer,
    pub(crate) checkpointer: Checkpointer,
    pub(crate) store: Store,
    pub(crate) groups: BTreeMap<PartitionId, Group>,
    /// Records that are not yet durable, in the order of the log.
    awaiting: VecDeque<Awaiting>,
    /// Groups that were made while a checkpoint ran: of which of its partitions it merges their changes.
    pub(super) merged_as: BTreeMap<PartitionId, PartitionId>,
    /// Groups to end the turn for.
    pub(crate) touched: BTreeSet<PartitionId>,
    pub(crate) peers: AHashMap<Endpoint, Peer>,
    pub(crate) heartbeats: Heartbeats,
    pub(super) snapshots: Snapshots,
    pub(super) arrivals: Arrivals,
    pub(super) repairs: Repairs,
    pub(super) scrub: Scrub,
    pub(super) members: Members,
    pub(crate) catalog: Catalog,
    pub(super) publisher: Publisher,
    /// What the catalogue's orders led to, to be answered once it is durable.
    pub(super) ensured: VecDeque<Ensured>,
    pub(crate) outputs: Vec<Output>,
    pub(super) recovery_report: String,
    /// Acknowledged data was lost here, and the catalogue has not yet said what this core must hold.
    pub(super) lost_memory: Option<LostMemory>,
    /// That was so once, in this life of the data folder.
    pub(super) memory_was_lost: bool,
    /// Replicas that were removed since the start because they were no members any more, and in which epoch
    /// that was known.
    pub(super) removed_in: BTreeMap<PartitionId, Epoch>,
    /// Groups that were being refilled when this was last looked at.
    refilling: BTreeSet<PartitionId>,
    pub(super) draining_since: Option<Boot>,
    pub(super) hand_overs: HandOvers,
    /// Changes that checkpoints have merged, to be freed.
    merged: Merged,
    /// A checkpoint is wanted whatever the log's length.
    pub(super) checkpoint_wanted: bool,
    tick_at: Boot,
    /// A group has come to be served here of which MemDS must be told.
    publish_wanted: bool,
    /// A snapshot was seen to wait for a checkpoint.
    staged: bool,
    /// When some follower must be sent something although nothing else happens.
    sends_at: Boot,
    pub(crate) prng: Prng,
}

/// A core that lost acknowledged data does not know what it has lost: there may have been groups that nothing
/// speaks of any more. Until the catalogue has said what the core must hold, and all of that is refilled, any
/// replica that it creates may have existed before, and does not vote.
#[derive(Clone, Copy, Debug)]
pub(super) struct LostMemory {
    /// The number with which the catalogue is asked for everything.
    pub(super) number: u64,
    /// The catalogue has answered: every group that is missing was created.
    pub(super) told_everything: bool,
}

/// A record that is not yet durable.
#[derive(Clone, Copy, Debug)]
struct Awaiting {
    lsn: Lsn,
    partition: PartitionId,
    /// The turn that appended it.
    appended: Moment,
}

/// An answer to the catalogue that waits for the log.
#[derive(Debug)]
pub(super) struct Ensured {
    pub(super) lsn: Lsn,
    pub(super) to: Endpoint,
    pub(super) request: evenkeel_wire::ids::RequestId,
    pub(super) answer: EnsureReplicasAnswer,
}

impl Serving {
    pub(super) fn new(
        config: CoreConfig,
        identity: LogIdentity,
        recovered: Recovered,
        buffers: Vec<AlignedBuffer>,
        now: Now,
    ) -> Self {
        let report = recovered.report();
        if !report.is_empty() {
            tracing::error!(node = %config.node, core = %config.core, "{report}");
        }
        let lost = recovered.superblock.memory_lost || !report.is_empty();
        let memory_was_lost = recovered.superblock.memory_was_lost || lost;
        // Every checkpoint from here on says so, also one that begins when all of it is refilled.
        let superblock = Superblock { memory_was_lost, ..recovered.superblock };
        let segments =
            Segments::new(superblock.segments, superblock.segment_bytes, recovered.log.used.clone());
        let mut prng = Prng::new(config.seed);
        let groups = recovered.groups.into_iter().map(|(seed, state)| {
            let group = Group::new(seed, state, config.node, now.boot, prng.fork()).on_core(config.core);
            (group.replica.partition(), group)
        });
        let groups: BTreeMap<PartitionId, Group> = groups.collect();
        let heartbeats = Heartbeats::new(now.boot, prng.next_u64(), groups.keys().copied());
        let mut serving = Self {
            log: Writer::new(identity, segments, recovered.log.tail, buffers),
            checkpointer: Checkpointer::new(identity, superblock),
            store: Store::new(identity, config.cache_bytes, recovered.space, superblock.sequence),
            members: Members::new(groups.values()),
            groups,
            awaiting: VecDeque::new(),
            merged_as: BTreeMap::new(),
            touched: BTreeSet::new(),
            peers: AHashMap::new(),
            heartbeats,
            snapshots: Snapshots::default(),
            arrivals: Arrivals::default(),
            repairs: Repairs::default(),
            scrub: Scrub::new(now.boot),
            catalog: Catalog::default(),
            publisher: Publisher::new(now.boot),
            ensured: VecDeque::new(),
            outputs: Vec::new(),
            recovery_report: report,
            lost_memory: None,
            memory_was_lost,
            removed_in: BTreeMap::new(),
            refilling: BTreeSet::new(),
            draining_since: None,
            hand_overs: HandOvers::default(),
            merged: Merged::default(),
            checkpoint_wanted: false,
            tick_at: now.boot,
            publish_wanted: false,
            staged: false,
            sends_at: Boot::NEVER,
            prng,
            config,
        };
        if lost {
            let number = serving.prng.next_u64();
            serving.lost_memory = Some(LostMemory { number, told_everything: false });
        }
        serving.create_system_group(now.boot);
        // A split that was applied again, and of whose child nothing was durable.
        let partitions: Vec<PartitionId> = serving.groups.keys().copied().collect();
        for partition in partitions {
            serving.take_in_born(partition, now, &mut Effects::new());
        }
        serving
    }

    /// Creates the system partition's replica, if this core is a member and does not have it yet.
    fn create_system_group(&mut self, now: Boot) {
        let member = self.config.member();
        if self.config.system.contains(&member) && !self.groups.contains_key(&PartitionId::SYSTEM) {
            let members = self.config.system.clone();
            let group = GroupConfig::whole(PartitionId::SYSTEM, TableId::SYSTEM, members);
            self.create_group(group, now);
        }
    }

    /// Creates a replica of a group of which this core is a member, and returns the log write that makes it
    /// durable. It votes if this core has not had one. Who became a member later was invited by the leader,
    /// has the replica since then, and keeps it while it is a member: so a core has never had one that is not
    /// here, unless it lost its memory. Then it may vote in groups that were created for a table when
    /// everything was known again: of what splits made, leaders know before the catalogue does.
    pub(super) fn create_group(&mut self, config: GroupConfig, now: Boot) -> Lsn {
        let partition = config.partition;
        let is_first_of_table = config.origin.is_none() && config.epoch == config.birth;
        let may_have_had_it = self.lost_memory.is_some() || self.memory_was_lost && !is_first_of_table;
        // A split may have made it while this member was a log replica.
        let stores = config.stores(self.config.node);
        let seed = Seed {
            config,
            promised: Ballot::ZERO,
            log: GroupLog::new(LogPoint::default(), Ballot::ZERO),
            commit: Slot::ZERO,
            timestamp: 0,
            refilling: may_have_had_it,
            stores,
        };
        let state = State { log_only: !stores, ..State::of(partition, Version::default()) };
        self.take_in(seed, state, now)
    }

    /// Takes in a group of which the log knows nothing yet, and returns the write that makes it durable.
    pub(super) fn take_in(&mut self, seed: Seed, state: State, now: Boot) -> Lsn {
        let partition = seed.config.partition;
        let group = Group::new(seed, state, self.config.node, now, self.prng.fork());
        let group = group.on_core(self.config.core);
        // The first record of the group: whatever it promises comes behind it in the log.
        let lsn = self.log.append(&group.snapshot().0);
        self.groups.insert(partition, group);
        self.heartbeats.add(partition);
        self.touched.insert(partition);
        lsn
    }

    pub(super) fn link_up(&mut self, endpoint: Endpoint, peer: Peer) {
        if let Endpoint::Outgoing(address) = endpoint
            && self.config.memds.contains(&address)
        {
            self.publisher.link_up(address);
        }
        self.peers.insert(endpoint, peer);
    }

    /// The group, for those who look inside.
    #[must_use]
    pub fn group(&self, partition: PartitionId) -> Option<&Group> {
        self.groups.get(&partition)
    }

    /// Whether a check of everything has ended since the start, and nothing is damaged that was found.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.scrub.completed > 0 && self.store.damaged_pages() == 0
    }

    /// How many pages were found damaged since the start, and how many of them were repaired.
    #[must_use]
    pub fn damage_counts(&self) -> (u64, u64) {
        self.store.damage_counts()
    }

    /// What recovery found, in a sentence; empty when nothing was damaged, or all of it is refilled.
    #[must_use]
    pub fn recovery_report(&self) -> &str {
        &self.recovery_report
    }

    /// Where those who look inside find pages: in the cache, or in `feed`.
    #[must_use]
    pub fn pages_with<'a>(&'a self, feed: &'a Feed) -> Pages<'a> {
        self.store.pages_with(feed)
    }

    /// Whether no checkpoint is being written or asked for, nothing is being checked, and the log has nothing
    /// to write.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        !self.checkpoint_wanted
            && self.scrub.is_at_rest()
            && self.checkpointer.may_begin()
            && self.log.is_idle()
    }

    /// Asks for a checkpoint as soon as none is running, however short the log is. Otherwise they begin when
    /// half of it is used.
    pub fn want_checkpoint(&mut self) {
        self.checkpoint_wanted = true;
    }

    /// All groups of the core.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    pub(super) fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects) -> Result<(), Halt> {
        self.log.performed(now.delays.performed);
        match input {
            Input::Frame { from, header, body } => self.on_frame(now, from, header, body, out),
            Input::Up { endpoint, peer } => self.link_up(endpoint, peer),
            Input::Down { endpoint } => self.link_down(now.boot, endpoint),
            Input::Disk(completion) => self.on_disk(now, completion, out)?,
            Input::Wake => {}
            Input::Drain => self.draining_since = self.draining_since.or(Some(now.boot)),
        }
        Ok(())
    }

    fn link_down(&mut self, now: Boot, endpoint: Endpoint) {
        let Some(peer) = self.peers.remove(&endpoint) else {
            return;
        };
        if matches!(endpoint, Endpoint::Outgoing(_)) {
            self.members.link_lost(now, peer);
            self.wake_all();
            for group in self.groups.values_mut() {
                group.replica.link_lost(peer.node);
                group.replica.leader_link_lost(now, peer.node);
            }
        }
    }

    fn on_disk(&mut self, now: Now, completion: DiskCompletion, out: &mut Effects) -> Result<(), Halt> {
        match Owner::of(completion.id) {
            Owner::Log(_) => {
                self.log.completed(now.boot, completion)?;
                self.settle(now, out);
            }
            Owner::Checkpoint(_) => {
                let (log, store) = (&mut self.log, &mut self.store);
                match self.checkpointer.completed_operation(now.boot, log, store, completion)? {
                    Progress::Running => {}
                    Progress::Complete { versions, replaced } => self.checkpointed(versions, &replaced),
                }
            }
            Owner::Tree(_) => self.checkpointer.completed_pages(now.boot, completion)?,
            Owner::Repair(_) => self.repair_written(now.boot, completion)?,
            Owner::Arrival(_) => self.arrival_written(completion)?,
            Owner::Page(_) => self.page_came(now, completion, out),
            Owner::Recovery => {}
        }
        Ok(())
    }

    /// A checkpoint is durable.
    fn checkpointed(&mut self, mut versions: Vec<(PartitionId, Version)>, replaced: &BTreeSet<Blocks>) {
        self.forget_replaced(replaced);
        let unused = self.store.redirects.forget(|tree| !self.groups.contains_key(&tree));
        self.store.space.retire_loose(&unused);
        self.store.forget_unreachable_damage();
        // What stood in for a page and is read by nobody would wait for a checkpoint that nobody asks for.
        self.checkpoint_wanted |= self.store.space.awaits_checkpoint();
        for (child, partition) in std::mem::take(&mut self.merged_as) {
            let merged = versions.iter().find(|(other, _)| *other == partition).copied();
            versions.extend(merged.map(|(_, version)| (child, version)));
        }
        for (partition, version) in versions {
            if let Some(group) = self.groups.get_mut(&partition) {
                // One of the two trees, the present and the staged one, is given up.
                let replaced = group.checkpoint_holds_snapshot();
                let divided = group.state().tree.keep().is_some();
                self.merged.add(group.checkpointed(version));
                self.touched.insert(partition);
                // Which of them a shared page belonged to is found out again.
                let divided = divided && group.state().tree.keep().is_none();
                if divided && !replaced {
                    self.forget_damage(partition);
                } else if replaced {
                    self.scrub.sweep_wanted = true;
                    self.forget_damage(partition);
                }
            }
        }
    }

    /// A page was read: what waited for it goes on.
    fn page_came(&mut self, now: Now, completion: DiskCompletion, out: &mut Effects) {
        let (mut ready, mut deliveries) = (Vec::new(), Vec::new());
        self.store.completed(completion, &mut ready, &mut deliveries);
        for Delivery { feed: id, pointer, page } in deliveries {
            let Some(feed) = self.feed(id) else {
                continue;
            };
            match page {
                Ok(page) => feed.arrived(&pointer, page),
                Err(fault) => {
                    // It is asked for again, and is damaged if that fails too.
                    feed.failed(&pointer);
                    if id == FeedId::Check {
                        self.scrub.failed(&pointer, fault, &self.store.redirects);
                    }
                }
            }
        }
        for mut parked in ready {
            self.store.resume(&mut parked);
            parked.asker.waited.missed_pages(&now, self.causes());
            self.execute(now, parked.asker, parked.header, &parked.body, out);
            self.store.unpark(parked);
        }
    }

    fn feed(&mut self, id: FeedId) -> Option<&mut Feed> {
        match id {
            FeedId::Checkpoint => Some(&mut self.checkpointer.feed),
            FeedId::Snapshot(partition, to) => self.snapshots.feed(partition, to),
            FeedId::Arrival => Some(&mut self.arrivals.feed),
            FeedId::Check => Some(&mut self.scrub.feed),
        }
    }

    /// Tells groups which of their records are durable.
    fn settle(&mut self, now: Now, out: &mut Effects) {
        let durable = self.log.durable();
        while self.awaiting.front().is_some_and(|awaiting| awaiting.lsn <= durable) {
            let Awaiting { lsn, partition, appended } = self.awaiting.pop_front().expect("there is a first");
            if let Some(group) = self.groups.get_mut(&partition) {
                let write = self.log.settled(lsn).unwrap_or_default();
                group.persisted(now, appended, write, &mut self.outputs);
                self.perform(partition, now, out);
            }
        }
        while self.ensured.front().is_some_and(|ensured| ensured.lsn <= durable) {
            let ensured = self.ensured.pop_front().expect("there is a first");
            self.answer_ensured(ensured, out);
        }
    }

    /// A replica is gone: nobody waits for its records.
    pub(super) fn forget_awaited(&mut self, partition: PartitionId) {
        self.awaiting.retain(|awaiting| awaiting.partition != partition);
    }

    /// Does what a group's replica wants done.
    pub(crate) fn perform(&mut self, partition: PartitionId, now: Now, out: &mut Effects) {
        self.touched.insert(partition);
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::Persist(record) => {
                    let lsn = self.log.append(&record);
                    self.awaiting.push_back(Awaiting { lsn, partition, appended: Moment::of(&now) });
                }
                Output::Send { to, message } => {
                    if let Some((endpoint, epoch)) = self.member_endpoint(partition, to) {
                        let timeline = self.log_took(partition, &message, &now);
                        let header = Header { timeline, ..messages::header(partition, epoch) };
                        messages::send(endpoint, header, &message, out);
                    }
                }
                Output::NeedsSnapshot { to } => self.begin_snapshot(partition, to, now.boot),
                Output::MembersChanged => self.members_changed(partition),
                Output::LostLeadership => {
                    if let Some(group) = self.groups.get_mut(&partition) {
                        group.abandon(out);
                    }
                    self.snapshots.abandon(partition, &mut self.store);
                    self.arrivals.abandon(partition);
                    if partition == PartitionId::SYSTEM {
                        self.catalog.lost_leadership(out);
                    }
                }
            }
        }
        self.outputs = outputs;
    }

    /// How long this core's log took for what `message` acknowledges.
    fn log_took(&self, partition: PartitionId, message: &Message, now: &Now) -> Packed {
        let group = self.groups.get(&partition).filter(|_| matches!(message, Message::Accepted(_)));
        group.map_or(Packed::NONE, |group| group.log_took(now))
    }

    /// Where a member of a group listens, and the group's epoch.
    pub(super) fn member_endpoint(&self, partition: PartitionId, node: NodeId) -> Option<(Endpoint, Epoch)> {
        let replica = &self.groups.get(&partition)?.replica;
        let address = self.config.address(node, replica.other(node)?.core)?;
        Some((Endpoint::Outgoing(address), replica.epoch()))
    }

    pub(super) fn end_turn(&mut self, now: Now, out: &mut Effects) {
        let ticks = now.boot >= self.tick_at;
        if ticks {
            self.tick_at = Boot::NEVER;
            self.tick(now, out);
        }
        self.end_groups(now, out);
        self.advance_hand_overs(now, ticks, out);
        self.release_held(now, out);
        self.heartbeat(now.boot, out);
        self.advance_snapshots(now.boot, out);
        self.advance_arrivals(now.boot, out);
        if ticks || std::mem::take(&mut self.publish_wanted) {
            self.publish(now.boot, out);
        }
        self.tend_catalog(now, out);
        self.end_groups(now, out);
        if ticks {
            self.lay_to_rest(now.boot);
        }
        self.advance_repairs(now, out);
        self.advance_scrub(now.boot);
        self.begin_checkpoint(now.boot);
        self.log.end_turn(now.boot, out);
        self.checkpointer.end_turn(now.boot, &self.log, &mut self.store, out);
        if self.checkpointer.take_cancelled() {
            self.groups.values_mut().for_each(Group::checkpoint_cancelled);
            self.merged_as.clear();
        }
        if let Some((partition, page, place, fault)) = self.checkpointer.damage(&self.store) {
            self.found_damage(partition, page, place, fault);
        }
        self.store.end_turn(out);
        self.merged.add(self.arrivals.merged.drain(..));
        self.merged.free(now.boot);
        if planted::active(Planted::AcknowledgeBeforeDurable) {
            self.settle(now, out);
        }
        let stays = self.draining_since.is_none();
        let idle = stays && self.heartbeats.awake().next().is_none() && self.is_at_rest();
        self.tick_at = self.tick_at.min(now.boot.after(if idle { TICK_AT_REST } else { TICK }));
    }

    fn tick(&mut self, now: Now, out: &mut Effects) {
        self.wake_unheard(now.boot);
        let awake: Vec<PartitionId> = self.heartbeats.awake().collect();
        for partition in awake {
            if let Some(group) = self.groups.get_mut(&partition) {
                group.replica.tick(now.boot, &mut self.outputs);
                self.perform(partition, now, out);
            }
        }
        self.note_snapshot_installed(now.boot);
        self.heal(now, out);
        let leader_without_lease =
            |group: &Group| group.replica.is_leader() && !group.replica.holds_lease(now.boot);
        let waits = |group: &Group| {
            let staged = group.staged.as_ref();
            staged.is_some_and(|staged| !staged.in_checkpoint) && !group.holds_snapshot_back()
        };
        let awake = || self.heartbeats.awake().filter_map(|partition| self.groups.get(&partition));
        self.staged = awake().any(waits);
        let refilling = awake().filter(|group| group.replica.is_refilling());
        let refilling: BTreeSet<PartitionId> = refilling.map(|group| group.replica.partition()).collect();
        // Until a checkpoint says that a replica is whole, a restart has it refilled once more.
        let durable = !planted::active(Planted::RefilledUntilRestart);
        self.checkpoint_wanted |= durable && !self.refilling.is_subset(&refilling);
        self.refilling = refilling;
        if awake().any(leader_without_lease) {
            self.heartbeats.hurry();
        }
        self.watch_log(now.boot);
        let told_everything = self.lost_memory.is_some_and(|lost| lost.told_everything);
        if told_everything && self.groups.values().all(|group| !group.replica.is_refilling()) {
            // What was damaged lies before the next checkpoint's log.
            self.lost_memory = None;
            self.recovery_report.clear();
            tracing::warn!(node = %self.config.node, core = %self.config.core, "every replica is refilled");
            self.checkpoint_wanted = true;
        }
    }

    fn end_groups(&mut self, now: Now, out: &mut Effects) {
        let touched = std::mem::take(&mut self.touched);
        if touched.is_empty() {
            return;
        }
        self.sends_at = Boot::NEVER;
        let causes = self.causes();
        for partition in &touched {
            let Some(group) = self.groups.get_mut(partition) else {
                continue;
            };
            self.heartbeats.wake(group);
            let changed = group.apply_committed(now, causes, out);
            if changed && *partition == PartitionId::SYSTEM {
                self.catalog.mark_changed();
            }
            self.take_in_born(*partition, now, out);
            let Some(group) = self.groups.get_mut(partition) else {
                continue;
            };
            group.replica.end_turn(now.boot, &mut self.outputs);
            if group.wants_lease() {
                self.heartbeats.hurry();
            }
            self.publish_wanted |= group.is_ready(now.boot) && !self.publisher.knows(group);
            self.sends_at = self.sends_at.min(group.replica.sends_at());
            self.perform(*partition, now, out);
        }
        // Performing has touched them again; only those with something left to tell stay.
        self.touched.retain(|partition| !touched.contains(partition));
        for partition in touched {
            for pages in
                self.groups.get_mut(&partition).into_iter().flat_map(|group| group.given_up.drain(..))
            {
                self.arrivals.give_up(&pages);
            }
            let due = self.groups.get(&partition).map(|group| group.replica.sends_at());
            if due.is_some_and(|due| due != Boot::NEVER) {
                self.touched.insert(partition);
            }
        }
    }

    fn begin_checkpoint(&mut self, now: Boot) {
        if self.checkpointer.may_begin() {
            self.take_recounts();
        }
        let status = self.log.status();
        let long = status.segments_free * 2 <= status.segments;
        if !self.checkpointer.may_begin() || !(long || self.staged || self.checkpoint_wanted) {
            return;
        }
        (self.checkpoint_wanted, self.staged) = (false, false);
        let images = self.groups.values_mut().map(Group::image).collect();
        self.checkpointer.begin(now, &mut self.log, images, self.lost_memory.is_some());
    }

    pub(super) fn wake_at(&self) -> Boot {
        let touched = if self.touched.is_empty() { Boot::NEVER } else { self.sends_at };
        self.tick_at
            .min(self.log.wake_at())
            .min(touched)
            .min(self.checkpointer.wake_at())
            .min(self.repairs_wake_at())
            .min(self.snapshots.wake_at)
            .min(self.arrivals.wake_at)
            .min(self.merged.wake_at())
            .min(self.heartbeats.hurries_at())
    }
}
