//! A storage core of one node, on files in memory: everything that a turn does, and no device.

use evenkeel_dataplane::checkpoint::superblock::Superblock;
use evenkeel_dataplane::config::{CoreConfig, NodeInfo};
use evenkeel_dataplane::core::StorageCore;
use evenkeel_dataplane::core::serving::Serving;
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_wire::error::ErrorAnswer;
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::ids::{CoreId, Epoch, Incarnation, NodeId, PartitionId, RequestId, TableId};
use evenkeel_wire::key::{KeySchema, KeyType};
use evenkeel_wire::message::access;
use evenkeel_wire::message::catalog::CreateTable;
use evenkeel_wire::message::encode;
use evenkeel_wire::table::{Billing, Member};
use evenkeel_wire::turn::{
    Boot, ConnectionId, DiskAction, DiskCompletion, Effects, Endpoint, File, Input, Machine, Now,
};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

const IDENTITY: LogIdentity = LogIdentity { incarnation: Incarnation([1; 16]), core: CoreId(0) };
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 7000);
const ITSELF: Endpoint = Endpoint::Incoming(ConnectionId(1));
const ROUTER: Endpoint = Endpoint::Incoming(ConnectionId(2));
/// Segments of the log, and their length: short enough that checkpoints run, as they do in production.
const SEGMENTS: (u32, u64) = (8, 32 << 20);
/// Time from one turn to the next.
const TURN_NS: u64 = 100_000;
/// Wall time of the first turn.
pub(crate) const WALL_MS: u64 = 1_700_000_000_000;

/// The core, with what is around it.
pub(crate) struct Engine {
    core: StorageCore,
    files: BTreeMap<File, Vec<u8>>,
    /// Frames and disk operations that wait for the next turn.
    frames: VecDeque<(Endpoint, Vec<u8>)>,
    ended: VecDeque<DiskCompletion>,
    effects: Effects,
    now: u64,
    /// Answers to the router.
    answered: u64,
    partition: PartitionId,
}

impl Engine {
    /// A core that serves a table.
    pub(crate) fn serving() -> Self {
        let superblock = Superblock::format(SEGMENTS.0, SEGMENTS.1);
        let node = NodeInfo { zone: "a".to_owned(), incarnation: IDENTITY.incarnation, cores: vec![ADDRESS] };
        let member = Member { node: NodeId(1), core: IDENTITY.core, incarnation: IDENTITY.incarnation };
        let config = CoreConfig {
            node: NodeId(1),
            core: IDENTITY.core,
            incarnation: IDENTITY.incarnation,
            nodes: BTreeMap::from([(NodeId(1), node)]),
            memds: Vec::new(),
            system: vec![member],
            cache_bytes: 64 << 20,
            seed: 1,
        };
        let mut start = vec![0; superblock.offset() as usize];
        start.extend_from_slice(&superblock.encode(&IDENTITY));
        let segments = (0..SEGMENTS.0).map(|segment| (File::Segment(segment), vec![0; SEGMENTS.1 as usize]));
        let mut engine = Self {
            core: StorageCore::new(config, Vec::new()),
            files: segments.chain([(File::Superblock, start)]).collect(),
            frames: VecDeque::new(),
            ended: VecDeque::new(),
            effects: Effects::new(),
            now: 1_000_000_000,
            answered: 0,
            partition: PartitionId::SYSTEM,
        };
        let storage = Peer {
            role: PeerRole::Storage,
            node: NodeId(1),
            core: CoreId(0),
            incarnation: IDENTITY.incarnation,
        };
        let router = Peer::of_role(PeerRole::Router);
        for (endpoint, peer) in [(Endpoint::Outgoing(ADDRESS), storage), (ITSELF, storage), (ROUTER, router)]
        {
            let now = engine.clock();
            engine.core.step(now, Input::Up { endpoint, peer }, &mut engine.effects);
        }
        engine.create_table();
        engine
    }

    fn create_table(&mut self) {
        self.until("the table of tables is served", |engine| engine.is_ready(PartitionId::SYSTEM));
        let (name, schema) = ("t".to_owned(), KeySchema::partition_only("pk", KeyType::S));
        let create = CreateTable { name, schema, billing: Billing::OnDemand, partitions: 1 };
        let (mut bytes, header) = (Vec::new(), Header::new(Kind::CreateTable, RequestId(1)));
        seal(&mut bytes, header.to_partition(PartitionId::SYSTEM, Epoch(1)), |out| encode(&create, out));
        self.frames.push_back((ROUTER, bytes));
        self.until("the table has a partition", |engine| {
            let mut groups = engine.core.serving().into_iter().flat_map(Serving::groups);
            let found = groups.find(|group| group.replica.partition() != PartitionId::SYSTEM);
            engine.partition = found.map_or(PartitionId::SYSTEM, |group| group.replica.partition());
            engine.partition != PartitionId::SYSTEM && engine.is_ready(engine.partition)
        });
    }

    /// The table.
    pub(crate) fn table(&self) -> TableId {
        let group = self.core.serving().and_then(|serving| serving.group(self.partition));
        group.expect("it is served").replica.config().table
    }

    /// A frame for the table's partition.
    pub(crate) fn framed(&self, kind: Kind, request: RequestId, body: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        let header = Header::new(kind, request).to_partition(self.partition, Epoch(1));
        seal(&mut bytes, header, |out| out.extend_from_slice(body));
        bytes
    }

    fn is_ready(&self, partition: PartitionId) -> bool {
        let (now, serving) = (self.clock().boot, self.core.serving());
        serving.is_some_and(|serving| {
            serving.group(partition).is_some_and(|group| serving.may_serve(group, now))
        })
    }

    fn until(&mut self, what: &str, mut done: impl FnMut(&mut Self) -> bool) {
        for _ in 0..1_000_000 {
            if done(self) {
                return;
            }
            self.turn(&[]);
        }
        panic!("it never comes to this: {what}");
    }

    /// Serves requests that came together, until all are answered.
    pub(crate) fn serve(&mut self, requests: &[Vec<u8>]) {
        let until = self.answered + requests.len() as u64;
        self.turn(requests);
        while self.answered < until {
            self.turn(&[]);
        }
    }

    fn clock(&self) -> Now {
        Now::new(Boot(self.now), WALL_MS + self.now / 1_000_000)
    }

    fn turn(&mut self, requests: &[Vec<u8>]) {
        self.now += TURN_NS;
        let (now, mut out) = (self.clock(), std::mem::take(&mut self.effects));
        for completion in std::mem::take(&mut self.ended) {
            self.core.step(now, Input::Disk(completion), &mut out);
        }
        let waiting = std::mem::take(&mut self.frames);
        let requests = requests.iter().map(|bytes| (ROUTER, &bytes[..]));
        for (from, bytes) in waiting.iter().map(|(from, bytes)| (*from, &bytes[..])).chain(requests) {
            let frame = first_frame(bytes, BodyLimit::AFTER_HELLO).expect("sound");
            let (header, body) = frame.expect("whole");
            self.core.step(now, Input::Frame { from, header, body }, &mut out);
        }
        if self.core.wake_at() <= now.boot {
            self.core.step(now, Input::Wake, &mut out);
        }
        self.core.end_turn(now, &mut out);
        assert!(out.halt.is_none(), "{:?}", out.halt);
        self.perform(&mut out);
        self.effects = out;
    }

    fn perform(&mut self, out: &mut Effects) {
        let outboxes: Vec<(Endpoint, Vec<u8>)> = out.take_outboxes().collect();
        for (to, bytes) in outboxes {
            let mut rest = &bytes[..];
            while let Some((header, body)) = first_frame(rest, BodyLimit::AFTER_HELLO).expect("sound") {
                let (frame, behind) = rest.split_at(header.frame_bytes());
                rest = behind;
                match to {
                    Endpoint::Outgoing(_) => self.frames.push_back((ITSELF, frame.to_vec())),
                    ITSELF => self.frames.push_back((Endpoint::Outgoing(ADDRESS), frame.to_vec())),
                    Endpoint::Incoming(_) if header.kind == Kind::Error => {
                        panic!("refused: {:?}", access::<ErrorAnswer>(body).map(|error| error.code));
                    }
                    Endpoint::Incoming(_) => self.answered += 1,
                }
            }
            out.recycle(bytes);
        }
        for operation in out.disk.drain(..) {
            let file = self.files.entry(operation.file).or_default();
            let outcome = match operation.action {
                DiskAction::Read { offset, mut buffer } => {
                    let from = (offset as usize).min(file.len());
                    let got = buffer.len().min(file.len() - from);
                    buffer.resize(got);
                    buffer.copy_from_slice(&file[from..from + got]);
                    Some(buffer)
                }
                DiskAction::Write { offset, buffer, .. } => {
                    let (from, to) = (offset as usize, offset as usize + buffer.len());
                    file.resize(file.len().max(to), 0);
                    file[from..to].copy_from_slice(&buffer);
                    Some(buffer)
                }
                DiskAction::Flush => None,
            };
            self.ended.push_back(DiskCompletion { id: operation.id, outcome: Ok(outcome) });
        }
    }
}
