//! One member of the group: the group that ships, its disk, and what is on its way to the disk.

use super::bounds::Bound;
use super::clients::{self, Read, Requests};
use super::digest::Collected;
use evenkeel_dataplane::btree::version::Version;
use evenkeel_dataplane::core::heartbeats::Heartbeats;
use evenkeel_dataplane::group::Group;
use evenkeel_dataplane::partition::state::State;
use evenkeel_dataplane::paxos::Seed;
use evenkeel_dataplane::paxos::log::GroupLog;
use evenkeel_dataplane::wal::record::{Record, RecordBody};
use evenkeel_dataplane::wal::replay::Replay;
use evenkeel_wire::entry::{Entry, EntryKind};
use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, NodeId, PartitionId, Slot, TableId};
use evenkeel_wire::message::peer::{HeartbeatGroup, LogPoint};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{GroupConfig, Member as GroupMember};
use evenkeel_wire::turn::Boot;
use std::collections::VecDeque;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

/// How many members the group begins with.
pub(crate) const MEMBERS: usize = 3;
/// How many nodes there are: one more, which may come to hold a replica when memberships change.
pub(crate) const PLACES: usize = 4;

/// The group's partition.
pub(crate) const PARTITION: PartitionId = PartitionId(1);

/// What identifies an entry: its slot is its place in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct EntryId {
    /// In which it was first proposed.
    pub(crate) ballot: Ballot,
    /// The beginning of its hash, which names everything before it, too.
    pub(crate) hash: u64,
    /// Which of the clients' writes it holds; none: it is a no-op.
    pub(crate) write: Option<u8>,
}

/// What a crash leaves: what replay makes of the durable records, kept beside them so that it need not be run
/// to know it. Every restart compares the two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Durable {
    /// The highest ballot.
    pub(crate) promised: Ballot,
    /// Up to where the log is known to be committed.
    pub(crate) commit: Slot,
    /// The log.
    pub(crate) entries: Vec<EntryId>,
}

/// What a member's core knows of leases.
#[derive(Clone, Debug)]
pub(crate) struct Core {
    /// Its rolls, and whether the group is at rest.
    pub(crate) heartbeats: Heartbeats,
    /// How often the process was started: each life has rolls of its own.
    lives: u64,
    /// No message is on its way for longer than an instant.
    prompt: bool,
}

impl Core {
    fn new(lives: u64, prompt: bool, now: Boot) -> Self {
        Self { heartbeats: Heartbeats::new(now, lives, [PARTITION].into_iter()), lives, prompt }
    }
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// Where it stands.
    pub(crate) place: usize,
    /// Its replica and its partition.
    pub(crate) group: Group,
    /// The rolls of its core, if leases are renewed by rolls.
    pub(crate) core: Option<Core>,
    /// Records that a crash leaves.
    disk: Arc<Vec<Record>>,
    /// What they come to.
    pub(crate) durable: Arc<Durable>,
    /// Records that were appended and are not known to be durable, oldest first.
    pub(crate) appended: VecDeque<Record>,
    /// The log in memory.
    pub(crate) entries: Vec<EntryId>,
    /// The last heartbeat: saying the same in the same instant changes nothing.
    pub(crate) said: Option<(Boot, HeartbeatGroup)>,
    /// Whether it serves now.
    pub(crate) serves: bool,
    /// What it says to a strong read now.
    pub(crate) read: Read,
    /// Hash of all that matters from now on.
    pub(crate) digest: u64,
}

/// The node at `place`.
pub(crate) fn node(place: usize) -> NodeId {
    NodeId(place as u32 + 1)
}

/// The place of `node`.
pub(crate) fn place(node: NodeId) -> usize {
    node.0 as usize - 1
}

/// The data folder of the node at `place`.
pub(crate) fn incarnation(place: usize) -> Incarnation {
    Incarnation([place as u8 + 1; 16])
}

fn config() -> GroupConfig {
    let member =
        |place: usize| GroupMember { node: node(place), core: CoreId(0), incarnation: incarnation(place) };
    GroupConfig::whole(PARTITION, TableId(1), (0..MEMBERS).map(member).collect())
}

impl Member {
    /// A member of a group that was just created.
    pub(crate) fn new(place: usize, now: Boot, bound: &Bound, requests: &Requests) -> Self {
        let seed = Seed {
            config: config(),
            promised: Ballot::ZERO,
            log: GroupLog::new(LogPoint::default(), Ballot::ZERO),
            commit: Slot::ZERO,
            timestamp: 0,
            refilling: false,
            stores: true,
        };
        let state = State::of(PARTITION, Version::default());
        let group = Group::new(seed, state, node(place), now, Prng::lowest());
        let created = group.snapshot().0;
        let mut member = Self {
            place,
            group,
            core: bound.rolls.then(|| Core::new(1, bound.late == 0, now)),
            disk: Arc::new(vec![created]),
            durable: Arc::default(),
            appended: VecDeque::new(),
            entries: Vec::new(),
            said: None,
            serves: false,
            read: Read::Refused,
            digest: 0,
        };
        member.refresh(now, requests);
        member
    }

    /// Whether its core does nothing for the group.
    pub(crate) fn is_at_rest(&self) -> bool {
        self.core.as_ref().is_some_and(|core| core.heartbeats.awake().next().is_none())
    }

    /// The oldest record on its way to the disk is durable.
    pub(crate) fn becomes_durable(&mut self) {
        let record = self.appended.pop_front().expect("a record is on its way");
        let durable = Arc::make_mut(&mut self.durable);
        durable.promised = durable.promised.max(record.promised);
        durable.commit = durable.commit.max(record.commit);
        match &record.body {
            RecordBody::Entry(entry) => durable.entries.push(id_of(entry)),
            RecordBody::Supersede(slot) => durable.entries.truncate(slot.0 as usize - 1),
            RecordBody::Promise | RecordBody::State(_) | RecordBody::Removed => {}
        }
        Arc::make_mut(&mut self.disk).push(record);
    }

    /// The process dies with `survive` of the records that were on their way, and another one starts from
    /// what the disk holds.
    pub(crate) fn crash(&mut self, survive: usize, now: Boot) {
        for _ in 0..survive {
            self.becomes_durable();
        }
        let Durable { promised, commit, entries } = Arc::unwrap_or_clone(Arc::clone(&self.durable));
        self.start(false, now);
        let last = Slot(entries.len() as u64);
        let expected = Durable { promised, commit: commit.min(last), entries };
        assert_eq!(*self.durable, expected, "replay and the model agree");
    }

    /// The process dies, and another one starts from what the disk holds, which has lost the last `lost`
    /// records and knows that it has lost some.
    pub(crate) fn forget(&mut self, lost: usize, now: Boot) {
        let disk = Arc::make_mut(&mut self.disk);
        disk.truncate(disk.len() - lost);
        self.start(true, now);
        assert!(self.group.replica.is_refilling(), "it does not vote");
    }

    /// A process starts from what the disk holds.
    fn start(&mut self, damaged: bool, now: Boot) {
        let mut replay = Replay::default();
        for record in self.disk.iter() {
            replay.take(record.clone(), damaged).expect("the log chains");
        }
        let (seed, state) = replay.finish(damaged).pop().expect("the group was created");
        let entries = seed.log.after(Slot::ZERO).map(id_of).collect();
        self.durable = Arc::new(Durable { promised: seed.promised, commit: seed.commit, entries });
        self.group = Group::new(seed, state, node(self.place), now, Prng::lowest());
        self.core = self.core.as_ref().map(|core| Core::new(core.lives + 1, core.prompt, now));
        self.appended.clear();
        self.said = None;
    }

    /// Brings up to date what is derived from the rest.
    pub(crate) fn refresh(&mut self, now: Boot, requests: &Requests) {
        let log = self.group.replica.log();
        assert_eq!(log.base().slot, Slot::ZERO, "so little is never trimmed");
        let last = log.last();
        let fresh = self.entries.last().map(|entry| entry.hash)
            == (last.slot > Slot::ZERO).then(|| short(&last.hash.0));
        if !fresh || self.entries.len() as u64 != last.slot.0 {
            self.entries = log.after(Slot::ZERO).map(id_of).collect();
        }
        self.said = self.said.filter(|(at, _)| *at == now);
        let mut hasher = Collected::new();
        self.place.hash(&mut hasher);
        match &self.core {
            None => {
                self.serves = self.group.replica.is_ready(now);
                self.read = requests.read(&self.group, now);
            }
            Some(Core { heartbeats, lives, prompt }) => {
                // As for a request: the group is woken, and asked.
                let (mut heartbeats, mut group) = (heartbeats.clone(), self.group.clone());
                heartbeats.digest(now, if *prompt { now } else { Boot(0) }, &mut hasher);
                lives.hash(&mut hasher);
                let may_serve = heartbeats.may_serve(&group, now);
                heartbeats.wake(&mut group);
                assert_eq!(may_serve, group.is_ready(now), "who asks without waking is told the same");
                self.serves = group.replica.is_ready(now);
                self.read = requests.read(&group, now);
            }
        }
        self.group.digest(now, &mut hasher);
        self.durable.hash(&mut hasher);
        for Record { partition: _, promised, commit, body } in &self.appended {
            (promised, commit).hash(&mut hasher);
            match body {
                RecordBody::Entry(entry) => (0u8, entry.hash).hash(&mut hasher),
                RecordBody::Promise => 1u8.hash(&mut hasher),
                RecordBody::Supersede(slot) => (2u8, slot).hash(&mut hasher),
                RecordBody::State(_) | RecordBody::Removed => {
                    panic!("no checkpoint and no removal happens here")
                }
            }
        }
        if let Some((_, HeartbeatGroup { partition: _, epoch: _, ballot, commit, holds_lease })) = &self.said
        {
            (ballot, commit, holds_lease).hash(&mut hasher);
        }
        self.digest = hasher.finish();
    }
}

/// What identifies `entry`.
pub(crate) fn id_of(entry: &Entry) -> EntryId {
    let write = match entry.header.kind {
        EntryKind::Noop | EntryKind::Split | EntryKind::Membership => None,
        EntryKind::Write => Some(clients::write_of(&entry.payload())),
    };
    EntryId { ballot: entry.header.ballot, hash: short(&entry.hash.0), write }
}

fn short(hash: &[u8; 16]) -> u64 {
    let (first, _) = hash.split_at(8);
    u64::from_le_bytes(first.try_into().expect("eight bytes were split off"))
}
