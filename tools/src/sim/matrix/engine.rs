//! A storage core on a simulated disk, without a network: turns, disk operations that end at random times,
//! and crashes between any two effects.

use crate::sim::disk::{Disk, FileKind};
use crate::sim::world::{MS, SECOND};
use evenkeel_dataplane::checkpoint::superblock::Superblock;
use evenkeel_dataplane::config::{CoreConfig, NodeInfo};
use evenkeel_dataplane::core::StorageCore;
use evenkeel_dataplane::core::serving::Serving;
use evenkeel_dataplane::group::Group;
use evenkeel_dataplane::limits::{SEGMENT_BYTES_MIN, SEGMENTS_MIN};
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, NodeId, PartitionId, RequestId};
use evenkeel_wire::message::catalog::SplitPartition;
use evenkeel_wire::message::encode;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::{Boot, ConnectionId, Effects, Endpoint, Input, Machine, Now, OperationId};
use std::collections::BTreeMap;
use std::net::SocketAddr;

const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([1; 16]), core: CoreId(0) };
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7000);
/// The core's link to itself, as the one who was connected to sees it.
const ITSELF: Endpoint = Endpoint::Incoming(ConnectionId(1));
/// The router whose requests are the matrix's.
const ROUTER: Endpoint = Endpoint::Incoming(ConnectionId(2));

/// When a core is to crash.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    /// After so many effects…
    pub effects: u64,
    /// …counted from the next operation on a file of this kind on; none: from now on.
    pub behind: Option<FileKind>,
}

#[derive(Debug)]
enum Event {
    Disk(OperationId),
    Frame { from: Endpoint, bytes: Vec<u8> },
}

/// The core with what is around it.
pub struct Engine {
    /// Its disk.
    pub disk: Disk,
    /// All randomness comes from here.
    pub prng: Prng,
    /// Simulated nanoseconds.
    pub now: u64,
    /// Answers to the router that nobody has taken.
    pub answers: Vec<(Header, Vec<u8>)>,
    /// Effects that were performed.
    pub effects_done: u64,
    /// Damage was done: the core may stop itself.
    pub may_halt: bool,
    crash: Option<Crash>,
    core: Option<Box<StorageCore>>,
    config: CoreConfig,
    latency: (u64, u64),
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    effects: Effects,
}

impl Engine {
    /// A core that was never started, on a disk that was just formatted.
    #[must_use]
    pub fn new(mut prng: Prng) -> Self {
        let superblock = Superblock::format(SEGMENTS_MIN, SEGMENT_BYTES_MIN);
        let node = NodeInfo { zone: "a".to_owned(), incarnation: IDENTITY.incarnation, cores: vec![ADDRESS] };
        let member = Member { node: NodeId(1), core: IDENTITY.core, incarnation: IDENTITY.incarnation };
        let config = CoreConfig {
            node: NodeId(1),
            core: IDENTITY.core,
            incarnation: IDENTITY.incarnation,
            nodes: BTreeMap::from([(NodeId(1), node)]),
            memds: Vec::new(),
            system: vec![member],
            cache_bytes: *prng.pick(&[64 << 10, 128 << 10, 512 << 10]),
            seed: 0,
        };
        let latency = *prng.pick(&[(20_000, 100_000), (60_000, 400_000), (100_000, 4 * MS)]);
        Self {
            disk: Disk::formatted(&superblock.encode(&IDENTITY), superblock.offset()),
            prng,
            now: 0,
            answers: Vec::new(),
            effects_done: 0,
            may_halt: false,
            crash: None,
            core: None,
            config,
            latency,
            queue: BTreeMap::new(),
            sequence: 0,
            effects: Effects::new(),
        }
    }

    /// Starts the core, which begins with its recovery, and says when it will crash, if it will.
    pub fn start(&mut self, crash: Option<Crash>) {
        let config = CoreConfig { seed: self.prng.next_u64(), ..self.config.clone() };
        self.core = Some(Box::new(StorageCore::new(config, Vec::new())));
        self.crash = crash;
        let mut out = Effects::new();
        let now = self.clock();
        let storage = Peer {
            role: PeerRole::Storage,
            node: self.config.node,
            core: self.config.core,
            incarnation: self.config.incarnation,
        };
        let router = Peer::of_role(PeerRole::Router);
        let core = self.core.as_mut().expect("it was just made");
        for (endpoint, peer) in [(Endpoint::Outgoing(ADDRESS), storage), (ITSELF, storage), (ROUTER, router)]
        {
            core.step(now, Input::Up { endpoint, peer }, &mut out);
        }
        if self.perform(&mut out) {
            self.core = None;
        }
    }

    /// Says when the core will crash, or that it will not.
    pub fn crash_at(&mut self, crash: Option<Crash>) {
        self.crash = crash;
    }

    /// Whether it lives.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.core.is_some()
    }

    /// Ends it: the process, or the power.
    pub fn die(&mut self, power: bool) {
        self.core = None;
        self.queue.clear();
        self.answers.clear();
        if power {
            self.disk.power_failed(&mut self.prng);
        } else {
            self.disk.process_died(&mut self.prng);
        }
        self.now += self.prng.below(SECOND);
    }

    /// The groups of the table, when the catalogue has created the first.
    pub fn groups(&self) -> impl Iterator<Item = &Group> {
        let serving = self.core.as_ref().and_then(|core| core.serving());
        let groups = serving.into_iter().flat_map(Serving::groups);
        groups.filter(|group| group.replica.partition() != PartitionId::SYSTEM)
    }

    /// The partition that holds `key`, or of which `key` is the end; empty: the last.
    #[must_use]
    pub fn route(&self, key: &[u8], below: bool) -> Option<PartitionId> {
        let holds = |config: &GroupConfig| {
            let reaches = config.end.is_empty() || (!key.is_empty() && key <= config.end.as_slice());
            let begins = key.is_empty() || config.start.as_slice() < key;
            if below { reaches && begins } else { config.contains(key) }
        };
        let mut configs = self.groups().map(|group| group.replica.config());
        configs.find(|config| holds(config)).map(|config| config.partition)
    }

    /// Whether a group serves.
    #[must_use]
    pub fn is_ready(&self, partition: PartitionId) -> bool {
        let serving = self.core.as_ref().and_then(|core| core.serving());
        let now = self.clock().boot;
        serving.is_some_and(|serving| {
            serving.group(partition).is_some_and(|group| serving.may_serve(group, now))
        })
    }

    /// Whether all groups of the table serve.
    #[must_use]
    pub fn all_ready(&self) -> bool {
        self.groups().all(|group| group.is_ready(self.clock().boot))
    }

    /// The order to split a partition is on its way, as if the catalogue gave it.
    pub fn split(&mut self, parent: PartitionId, child: PartitionId, border: Vec<u8>) {
        let header = Header::new(Kind::SplitPartition, RequestId(0)).to_partition(parent, Epoch(1));
        let mut bytes = Vec::new();
        seal(&mut bytes, header, |out| encode(&SplitPartition { child, border }, out));
        self.schedule(self.now + 1000, Event::Frame { from: ITSELF, bytes });
    }

    /// How the core stands, for a failure's story.
    #[must_use]
    pub fn describe(&self) -> String {
        let Some(core) = &self.core else {
            return "it does not live".to_owned();
        };
        let Some(serving) = core.serving() else {
            return "it recovers, or has stopped itself".to_owned();
        };
        let now = self.clock().boot;
        let groups = serving.groups().map(|group| format!("{:?}", group.status(now)));
        [serving.recovery_report().to_owned(), groups.collect::<Vec<_>>().join("; ")].join("; ")
    }

    /// Asks the core for a checkpoint.
    pub fn want_checkpoint(&mut self) {
        if let Some(core) = &mut self.core {
            core.want_checkpoint();
        }
    }

    /// The clocks.
    #[must_use]
    pub fn clock(&self) -> Now {
        Now::new(Boot(self.now + SECOND), 1_700_000_000_000 + self.now / MS)
    }

    /// A frame of the router is on its way.
    pub fn ask(&mut self, bytes: Vec<u8>) {
        let at = self.now + 1 + self.prng.below(50_000);
        self.schedule(at, Event::Frame { from: ROUTER, bytes });
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), event);
    }

    /// Goes on to the core's next turn, or to `until`, if that comes first.
    ///
    /// # Errors
    /// When the core stops itself.
    pub fn advance(&mut self, until: u64) -> Result<(), String> {
        let Some(core) = &self.core else {
            return Ok(());
        };
        let wake = core.wake_at().0.saturating_sub(SECOND).max(self.now + 1000);
        let event = self.queue.first_key_value().map_or(u64::MAX, |(key, _)| key.0);
        let next = wake.min(event);
        if next > until {
            self.now = self.now.max(until);
            return Ok(());
        }
        // What arrives within a few microseconds shares a turn.
        self.now = self.now.max(next + self.prng.below(20_000)).min(until.max(next));
        self.turn()
    }

    fn turn(&mut self) -> Result<(), String> {
        let Some(mut core) = self.core.take() else {
            return Ok(());
        };
        let mut out = std::mem::take(&mut self.effects);
        let now = self.clock();
        while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
            match entry.remove() {
                Event::Disk(id) => {
                    if let Some(completion) = self.disk.complete(id) {
                        core.step(now, Input::Disk(completion), &mut out);
                    }
                }
                Event::Frame { from, bytes } => {
                    let frame = first_frame(&bytes, BodyLimit::AFTER_HELLO).ok().flatten();
                    let (header, body) = frame.expect("whole frames are sent");
                    core.step(now, Input::Frame { from, header, body }, &mut out);
                }
            }
        }
        if core.wake_at() <= now.boot {
            core.step(now, Input::Wake, &mut out);
        }
        core.end_turn(now, &mut out);
        self.core = Some(core);
        let halt = out.halt.take();
        if self.perform(&mut out) {
            // What the crash kept from being performed is not performed in the next life.
            self.core = None;
            out = Effects::new();
        }
        self.effects = out;
        match halt {
            Some(halt) if !self.may_halt => Err(format!("the core halts: {halt}")),
            Some(_) => {
                self.core = None;
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Performs effects, one by one. Returns whether the core crashed between two of them.
    fn perform(&mut self, out: &mut Effects) -> bool {
        let outboxes: Vec<(Endpoint, Vec<u8>)> = out.take_outboxes().collect();
        for (to, bytes) in outboxes {
            let mut rest = &bytes[..];
            while let Ok(Some((header, body))) = first_frame(rest, BodyLimit::AFTER_HELLO) {
                if self.strikes(None) {
                    return true;
                }
                let frame = rest[..header.frame_bytes()].to_vec();
                rest = &rest[header.frame_bytes()..];
                let at = self.now + 1000;
                match to {
                    ROUTER => self.answers.push((header, body.to_vec())),
                    ITSELF => {
                        self.schedule(at, Event::Frame { from: Endpoint::Outgoing(ADDRESS), bytes: frame });
                    }
                    Endpoint::Outgoing(ADDRESS) => {
                        self.schedule(at, Event::Frame { from: ITSELF, bytes: frame });
                    }
                    Endpoint::Incoming(_) | Endpoint::Outgoing(_) => {}
                }
            }
            out.recycle(bytes);
        }
        for operation in std::mem::take(&mut out.disk) {
            if self.strikes(Some(FileKind::of(operation.file))) {
                return true;
            }
            let (least, spread) = self.latency;
            // Now and then one takes much longer than those around it.
            let slow = if self.prng.chance(1, 50) { 10 } else { 1 };
            let at = self.now + least + self.prng.below(spread * slow);
            let id = self.disk.begin(operation);
            self.schedule(at, Event::Disk(id));
        }
        false
    }

    /// Whether the core crashes instead of this effect: an operation on a file of that kind, or a frame.
    fn strikes(&mut self, kind: Option<FileKind>) -> bool {
        self.effects_done += 1;
        let Some(crash) = &mut self.crash else {
            return false;
        };
        if crash.behind.is_some() && crash.behind == kind {
            crash.behind = None;
        }
        if crash.behind.is_none() {
            if crash.effects == 0 {
                self.crash = None;
                return true;
            }
            crash.effects -= 1;
        }
        false
    }
}

/// Whether an answer is an error.
#[must_use]
pub fn is_error(header: &Header) -> bool {
    header.kind == Kind::Error
}
