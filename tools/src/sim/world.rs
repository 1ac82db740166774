//! The simulated world: hosts, their clocks, the network and the disks, and the queue of what happens next.
//!
//! Everything runs in one thread, in the order of simulated time; nothing depends on the real clock, on
//! addresses in memory or on hash order, so a seed always gives the same run.

use super::client::SimClient;
use super::disk::Disk;
use super::flips::probe::Probe;
use super::network::{Fate, HostId, LinkId, LinkState, Network, Way, Weather};
use super::trace::Trace;
use evenkeel_dataplane::core::StorageCore;
use evenkeel_router::memds::Memds;
use evenkeel_router::route::Router;
use evenkeel_wire::checksum::hash64;
use evenkeel_wire::frame::{BodyLimit, HEADER_BYTES, Header, first_frame};
use evenkeel_wire::handshake::Peer;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::{
    Boot, ConnectionId, DiskCompletion, Effects, Endpoint, Input, Machine, Now, OperationId,
};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// A millisecond, in the world's time.
pub const MS: u64 = 1_000_000;
/// A second.
pub const SECOND: u64 = 1000 * MS;

/// The real machines.
#[derive(Debug)]
pub enum Node {
    /// A storage core.
    Storage(Box<StorageCore>),
    /// A MemDS server.
    Memds(Box<Memds>),
    /// A router core.
    Router(Box<Router>),
    /// A client with its workload.
    Client(Box<SimClient>),
    /// What asks storage cores directly.
    Probe(Box<Probe>),
}

impl Node {
    fn machine(&mut self) -> &mut dyn Machine {
        match self {
            Self::Storage(machine) => machine.as_mut(),
            Self::Memds(machine) => machine.as_mut(),
            Self::Router(machine) => machine.as_mut(),
            Self::Client(machine) => machine.as_mut(),
            Self::Probe(machine) => machine.as_mut(),
        }
    }
}

/// A host's clock: CLOCK_BOOTTIME with an offset and a rate of its own.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// The world's time when it got its present rate.
    since: u64,
    /// What it showed then, nanoseconds.
    offset: u64,
    /// Parts per million that it is fast (or slow).
    rate_ppm: i64,
    /// Milliseconds that its wall clock is ahead.
    wall_offset_ms: u64,
}

impl Clock {
    /// A clock that is `offset` ahead when the world begins.
    #[must_use]
    pub fn new(offset: u64, rate_ppm: i64, wall_offset_ms: u64) -> Self {
        Self { since: 0, offset, rate_ppm, wall_offset_ms }
    }

    /// From `now` on it has another rate.
    pub fn set_rate(&mut self, now: u64, rate_ppm: i64) {
        let Boot(shown) = self.boot(now);
        *self = Self { since: now, offset: shown, rate_ppm, ..*self };
    }

    fn boot(&self, now: u64) -> Boot {
        let passed = now - self.since;
        let drift = i128::from(passed) * i128::from(self.rate_ppm) / 1_000_000;
        Boot((i128::from(passed) + drift) as u64 + self.offset)
    }

    /// When, in the world's time, this clock shows `at`.
    fn world(&self, at: Boot) -> u64 {
        let local = i128::from(at.0.saturating_sub(self.offset));
        let world = local * 1_000_000 / (1_000_000 + i128::from(self.rate_ppm));
        // Never too early: a wake-up before its time would be repeated without end.
        let world = u64::try_from(world).unwrap_or(u64::MAX);
        world.saturating_add(self.since).saturating_add(2)
    }

    fn now(&self, now: u64) -> Now {
        Now::new(self.boot(now), 1_700_000_000_000 + now / MS + self.wall_offset_ms)
    }
}

/// What is waiting for a host's next turn.
#[derive(Debug)]
enum Inbound {
    Frame { from: Endpoint, bytes: Vec<u8>, link: LinkId },
    Up { endpoint: Endpoint, peer: Peer },
    Down { endpoint: Endpoint },
    Disk(DiskCompletion),
    Drain,
}

/// A place where a machine runs, dies and runs again.
pub struct Host {
    /// For stories.
    pub name: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its availability zone: what partitions separate.
    pub zone: usize,
    /// Who it says it is.
    pub peer: Peer,
    /// The machine, while it is alive.
    pub node: Option<Node>,
    /// Its disk, if it has one.
    pub disk: Option<Disk>,
    /// Its clock.
    pub clock: Clock,
    /// Disk latency, nanoseconds: least, and what may come on top.
    pub disk_latency: (u64, u64),
    /// Makes the machine anew after a restart.
    pub build: Box<dyn FnMut(u32) -> Node>,
    /// How often it was started.
    pub boots: u32,
    /// Until when it is stopped (SIGSTOP).
    pub paused_until: u64,
    inbox: VecDeque<Inbound>,
    effects: Effects,
    turn_at: Option<u64>,
}

impl Host {
    /// A host that has not been started.
    #[must_use]
    pub fn new(
        name: String,
        address: SocketAddr,
        zone: usize,
        peer: Peer,
        disk: Option<Disk>,
        clock: Clock,
        build: Box<dyn FnMut(u32) -> Node>,
    ) -> Self {
        Self {
            name,
            address,
            zone,
            peer,
            node: None,
            disk,
            clock,
            disk_latency: (60_000, 200_000),
            build,
            boots: 0,
            paused_until: 0,
            inbox: VecDeque::new(),
            effects: Effects::new(),
            turn_at: None,
        }
    }

    /// The storage core, if this is one and it is alive.
    #[must_use]
    pub fn storage(&self) -> Option<&StorageCore> {
        match &self.node {
            Some(Node::Storage(core)) => Some(core),
            Some(Node::Memds(_) | Node::Router(_) | Node::Client(_) | Node::Probe(_)) | None => None,
        }
    }

    /// The host's clock, now.
    #[must_use]
    pub fn boot_now(&self, now: u64) -> Boot {
        self.clock.boot(now)
    }
}

/// Something that will happen.
#[derive(Debug)]
enum Event {
    Turn { host: HostId },
    Arrival { link: LinkId, from_opener: bool, bytes: Vec<u8>, damaged: bool },
    Established { link: LinkId },
    ConnectFailed { host: HostId, boots: u32, address: SocketAddr },
    Down { host: HostId, boots: u32, endpoint: Endpoint },
    DiskDone { host: HostId, boots: u32, id: OperationId },
    Start { host: HostId },
}

/// The world.
pub struct World {
    /// Simulated nanoseconds since the beginning.
    pub now: u64,
    /// All randomness comes from here.
    pub prng: Prng,
    /// The hosts.
    pub hosts: Vec<Host>,
    /// The network.
    pub network: Network,
    /// What has happened.
    pub trace: Trace,
    /// Machines that stopped themselves, by reason: expected after a disk fault only.
    pub halts: Vec<String>,
    addresses: BTreeMap<SocketAddr, HostId>,
    queue: BTreeMap<(u64, u64), Event>,
    sequence: u64,
    /// Frames that wait until their link is up.
    waiting: BTreeMap<LinkId, Vec<Vec<u8>>>,
    /// Links that have ended, or will not open, although their opener has not heard of it: what it sends
    /// meanwhile is lost.
    unheard: BTreeSet<(HostId, SocketAddr)>,
}

impl World {
    /// A world without hosts.
    #[must_use]
    pub fn new(seed: u64, weather: Weather, verbose: bool) -> Self {
        Self {
            now: 0,
            prng: Prng::new(seed),
            hosts: Vec::new(),
            network: Network::new(weather),
            trace: Trace::new(verbose),
            halts: Vec::new(),
            addresses: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            waiting: BTreeMap::new(),
            unheard: BTreeSet::new(),
        }
    }

    /// Adds a host, which will be started at `at`.
    pub fn add(&mut self, host: Host, at: u64) -> HostId {
        let id = self.hosts.len();
        self.addresses.insert(host.address, id);
        self.hosts.push(host);
        self.schedule(at, Event::Start { host: id });
        id
    }

    fn schedule(&mut self, at: u64, event: Event) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), event);
    }

    /// Runs until `until`, or until nothing is left to happen.
    pub fn run_until(&mut self, until: u64) {
        while let Some(entry) = self.queue.first_entry() {
            if entry.key().0 > until {
                break;
            }
            let ((at, _), event) = entry.remove_entry();
            self.now = at;
            self.happen(event);
        }
        self.now = self.now.max(until);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Turn { host } => {
                if self.hosts[host].turn_at.is_some_and(|at| at <= self.now) {
                    self.hosts[host].turn_at = None;
                    self.turn(host);
                }
            }
            Event::Arrival { link, from_opener, bytes, damaged } => {
                self.arrive(link, from_opener, bytes, damaged);
            }
            Event::Established { link } => self.establish(link),
            Event::ConnectFailed { host, boots, address } => {
                self.unheard.remove(&(host, address));
                let endpoint = Endpoint::Outgoing(address);
                self.deliver(host, boots, Inbound::Down { endpoint });
            }
            Event::Down { host, boots, endpoint } => {
                if let Endpoint::Outgoing(address) = endpoint {
                    self.unheard.remove(&(host, address));
                }
                self.deliver(host, boots, Inbound::Down { endpoint });
            }
            Event::DiskDone { host, boots, id } => self.disk_done(host, boots, id),
            Event::Start { host } => self.start(host),
        }
    }

    fn deliver(&mut self, host: HostId, boots: u32, inbound: Inbound) {
        if self.hosts[host].boots != boots || self.hosts[host].node.is_none() {
            return;
        }
        self.hosts[host].inbox.push_back(inbound);
        // What arrives within a few microseconds shares a turn.
        let soon = self.now + 5_000 + self.prng.below(40_000);
        self.turn_at(host, soon);
    }

    fn turn_at(&mut self, host: HostId, at: u64) {
        let at = at.max(self.hosts[host].paused_until);
        if self.hosts[host].turn_at.is_none_or(|present| at < present) {
            self.hosts[host].turn_at = Some(at);
            self.schedule(at, Event::Turn { host });
        }
    }

    /// Starts a host that is not alive.
    pub fn start(&mut self, id: HostId) {
        let host = &mut self.hosts[id];
        if host.node.is_some() {
            return;
        }
        host.boots += 1;
        host.node = Some((host.build)(host.boots));
        host.inbox.clear();
        host.effects = Effects::new();
        host.turn_at = None;
        let (now, name) = (self.now, host.name.clone());
        self.trace.note(now, id, "start", 0);
        self.trace.tell(now, || format!("{name} starts"));
        self.turn_at(id, now);
    }

    /// Starts a host after a while.
    pub fn start_after(&mut self, host: HostId, delay: u64) {
        self.schedule(self.now + delay, Event::Start { host });
    }

    /// Kills a host's process. `power`: its disk loses what was not flushed, and its peers hear nothing for a
    /// while.
    pub fn kill(&mut self, id: HostId, power: bool) {
        if self.hosts[id].node.take().is_none() {
            return;
        }
        let (now, name) = (self.now, self.hosts[id].name.clone());
        self.trace.note(now, id, "kill", u64::from(power));
        self.trace.tell(now, || format!("{name} dies{}", if power { ", the power failed" } else { "" }));
        if let Some(disk) = &mut self.hosts[id].disk {
            if power {
                disk.power_failed(&mut self.prng);
            } else {
                disk.process_died(&mut self.prng);
            }
        }
        for link in self.network.links_of(id) {
            let silence = if power { self.prng.below(3 * SECOND) } else { 200_000 };
            self.break_link(link, Some(id), silence);
        }
    }

    /// Ends a link; both sides (but not `dead`) hear of it after `silence`.
    pub fn break_link(&mut self, id: LinkId, dead: Option<HostId>, silence: u64) {
        self.waiting.remove(&id);
        let Some(link) = self.network.close(id) else {
            return;
        };
        let address = self.hosts[link.listener].address;
        let sides = [
            (link.opener, Endpoint::Outgoing(address)),
            (link.listener, Endpoint::Incoming(ConnectionId(id.0))),
        ];
        for (host, endpoint) in sides {
            if Some(host) != dead {
                if let Endpoint::Outgoing(address) = endpoint {
                    self.unheard.insert((host, address));
                }
                let boots = self.hosts[host].boots;
                self.schedule(self.now + silence, Event::Down { host, boots, endpoint });
            }
        }
    }

    /// Asks a storage core for a checkpoint.
    pub fn want_checkpoint(&mut self, host: HostId) {
        if let Some(Node::Storage(core)) = &mut self.hosts[host].node {
            core.want_checkpoint();
        }
    }

    /// Asks a storage core for a check of all its trees. Returns how many it will have ended with it.
    pub fn want_check(&mut self, host: HostId) -> Option<u64> {
        match &mut self.hosts[host].node {
            Some(Node::Storage(core)) => core.want_check(),
            Some(Node::Memds(_) | Node::Router(_) | Node::Client(_) | Node::Probe(_)) | None => None,
        }
    }

    /// Changes the rate of a host's clock.
    pub fn set_rate(&mut self, host: HostId, rate_ppm: i64) {
        self.hosts[host].clock.set_rate(self.now, rate_ppm);
        // It is to be woken by its new rate.
        self.turn_at(host, self.now);
    }

    /// Gives a host a turn at once.
    pub fn wake(&mut self, host: HostId) {
        self.turn_at(host, self.now);
    }

    /// Asks a host to end in good order.
    pub fn drain(&mut self, host: HostId) {
        let boots = self.hosts[host].boots;
        self.deliver(host, boots, Inbound::Drain);
    }

    fn turn(&mut self, id: HostId) {
        let now_world = self.now;
        let host = &mut self.hosts[id];
        if host.paused_until > now_world {
            let at = host.paused_until;
            return self.turn_at(id, at);
        }
        let Some(mut node) = host.node.take() else {
            return;
        };
        let mut inbox = std::mem::take(&mut host.inbox);
        let mut effects = std::mem::take(&mut host.effects);
        let now = host.clock.now(now_world);
        let machine = node.machine();
        let mut damaged = Vec::new();
        for inbound in inbox.drain(..) {
            match inbound {
                Inbound::Frame { from, bytes, link } => match first_frame(&bytes, BodyLimit::AFTER_HELLO) {
                    Ok(Some((header, body))) => {
                        machine.step(now, Input::Frame { from, header, body }, &mut effects);
                    }
                    Ok(None) | Err(_) => damaged.push(link),
                },
                Inbound::Up { endpoint, peer } => {
                    machine.step(now, Input::Up { endpoint, peer }, &mut effects);
                }
                Inbound::Down { endpoint } => machine.step(now, Input::Down { endpoint }, &mut effects),
                Inbound::Disk(completion) => machine.step(now, Input::Disk(completion), &mut effects),
                Inbound::Drain => machine.step(now, Input::Drain, &mut effects),
            }
        }
        if machine.wake_at() <= now.boot {
            machine.step(now, Input::Wake, &mut effects);
        }
        machine.end_turn(now, &mut effects);
        let wake = machine.wake_at();
        let host = &mut self.hosts[id];
        host.node = Some(node);
        host.inbox = inbox;
        if wake != Boot::NEVER {
            // A machine that wants to be woken at once is woken a little later, as a real loop would be.
            let at = host.clock.world(wake).max(now_world + 1000);
            self.turn_at(id, at);
        }
        self.perform(id, &mut effects);
        if self.hosts[id].node.is_some() {
            self.hosts[id].effects = effects;
        }
        for link in damaged {
            self.break_link(link, None, 200_000);
        }
    }

    fn perform(&mut self, id: HostId, effects: &mut Effects) {
        let outboxes: Vec<(Endpoint, Vec<u8>)> = effects.take_outboxes().collect();
        for (endpoint, bytes) in outboxes {
            self.send_all(id, endpoint, &bytes);
            effects.recycle(bytes);
        }
        for operation in effects.disk.drain(..) {
            let (least, spread) = self.hosts[id].disk_latency;
            let at = self.now + least + self.prng.below(spread + 1);
            let host = &mut self.hosts[id];
            let disk = host.disk.as_mut().expect("only hosts with a disk use one");
            let (operation, boots) = (disk.begin(operation), host.boots);
            self.schedule(at, Event::DiskDone { host: id, boots, id: operation });
        }
        for endpoint in effects.close.drain(..) {
            if let Some(link) = self.link_of(id, endpoint) {
                self.break_link(link, None, 200_000);
            }
        }
        if let Some(halt) = effects.halt.take() {
            let (now, name) = (self.now, self.hosts[id].name.clone());
            self.trace.tell(now, || format!("{name} halts: {halt}"));
            self.halts.push(format!("{name}: {halt}"));
            self.kill(id, false);
            let delay = self.prng.below(2 * SECOND);
            self.start_after(id, delay);
        } else if std::mem::take(&mut effects.drained) {
            self.kill(id, false);
            let delay = self.prng.below(2 * SECOND);
            self.start_after(id, delay);
        }
    }

    fn link_of(&self, host: HostId, endpoint: Endpoint) -> Option<LinkId> {
        match endpoint {
            Endpoint::Incoming(connection) => Some(LinkId(connection.0)),
            Endpoint::Outgoing(address) => self.network.between(host, *self.addresses.get(&address)?),
        }
    }

    fn send_all(&mut self, from: HostId, endpoint: Endpoint, bytes: &[u8]) {
        for frame in frames(bytes) {
            match endpoint {
                Endpoint::Incoming(connection) => {
                    let link = LinkId(connection.0);
                    if self.network.link(link).is_some_and(|link| link.listener == from) {
                        self.send(link, false, frame.to_vec());
                    }
                }
                Endpoint::Outgoing(address) => self.send_out(from, address, frame.to_vec()),
            }
        }
    }

    fn send_out(&mut self, from: HostId, address: SocketAddr, frame: Vec<u8>) {
        let Some(to) = self.addresses.get(&address).copied() else {
            return;
        };
        if self.unheard.contains(&(from, address)) {
            return;
        }
        let link = match self.network.between(from, to) {
            Some(link) => link,
            None => match self.connect(from, to) {
                Some(link) => link,
                None => return,
            },
        };
        match self.network.link(link).map(|link| link.state) {
            Some(LinkState::Up) => self.send(link, true, frame),
            Some(LinkState::Opening) | None => self.waiting.entry(link).or_default().push(frame),
        }
    }

    fn way(&self, from: HostId, to: HostId) -> Way {
        Way { hosts: (from, to), zones: (self.hosts[from].zone, self.hosts[to].zone) }
    }

    fn connect(&mut self, from: HostId, to: HostId) -> Option<LinkId> {
        let blocked =
            self.network.is_blocked(self.way(from, to)) || self.network.is_blocked(self.way(to, from));
        if blocked || self.hosts[to].node.is_none() {
            let patience = if blocked { SECOND } else { MS };
            let (boots, address) = (self.hosts[from].boots, self.hosts[to].address);
            self.unheard.insert((from, address));
            self.schedule(self.now + patience, Event::ConnectFailed { host: from, boots, address });
            return None;
        }
        let link = self.network.open(from, to);
        let delay = 2 * self.network.delay(&mut self.prng);
        self.schedule(self.now + delay, Event::Established { link });
        Some(link)
    }

    fn establish(&mut self, id: LinkId) {
        if !self.network.established(id) {
            return;
        }
        let link = self.network.link(id).expect("it was just established").clone();
        let (opener, listener) = (&self.hosts[link.opener], &self.hosts[link.listener]);
        let ups = [
            (link.opener, opener.boots, Endpoint::Outgoing(listener.address), listener.peer),
            (link.listener, listener.boots, Endpoint::Incoming(ConnectionId(id.0)), opener.peer),
        ];
        for (host, boots, endpoint, peer) in ups {
            self.deliver(host, boots, Inbound::Up { endpoint, peer });
        }
        for frame in self.waiting.remove(&id).unwrap_or_default() {
            self.send(id, true, frame);
        }
    }

    fn send(&mut self, id: LinkId, from_opener: bool, bytes: Vec<u8>) {
        let Some(link) = self.network.link(id) else {
            return;
        };
        let (from, to) =
            if from_opener { (link.opener, link.listener) } else { (link.listener, link.opener) };
        let (way, now) = (self.way(from, to), self.now);
        match self.network.fate(id, from_opener, way, now, &mut self.prng) {
            Fate::Arrives(at) => {
                self.schedule(at, Event::Arrival { link: id, from_opener, bytes, damaged: false });
            }
            Fate::ArrivesDamaged(at) => {
                self.schedule(at, Event::Arrival { link: id, from_opener, bytes, damaged: true });
            }
            Fate::Lost => {}
        }
    }

    fn arrive(&mut self, id: LinkId, from_opener: bool, mut bytes: Vec<u8>, damaged: bool) {
        let Some(link) = self.network.link(id).cloned() else {
            return;
        };
        let (host, from) = if from_opener {
            (link.listener, Endpoint::Incoming(ConnectionId(id.0)))
        } else {
            (link.opener, Endpoint::Outgoing(self.hosts[link.listener].address))
        };
        if damaged {
            let bit = self.prng.below(bytes.len() as u64 * 8) as usize;
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        self.trace.note(self.now, host, "frame", hash64(&bytes));
        let boots = self.hosts[host].boots;
        self.deliver(host, boots, Inbound::Frame { from, bytes, link: id });
    }

    /// Sends a frame from one host to another, over a link that is opened if there is none.
    pub fn send_frame(&mut self, from: HostId, to: HostId, frame: Vec<u8>) {
        let address = self.hosts[to].address;
        self.send_out(from, address, frame);
    }

    /// Delivers bytes to a host as if they had come over a link that `from` opened to it.
    pub fn inject(&mut self, from: HostId, to: HostId, bytes: Vec<u8>) {
        if let Some(link) = self.network.between(from, to)
            && self.network.link(link).is_some_and(|link| link.state == LinkState::Up)
        {
            self.arrive(link, true, bytes, false);
        }
    }

    fn disk_done(&mut self, host: HostId, boots: u32, id: OperationId) {
        if self.hosts[host].boots != boots || self.hosts[host].node.is_none() {
            return;
        }
        let disk = self.hosts[host].disk.as_mut().expect("its operation ended");
        if let Some(completion) = disk.complete(id) {
            self.trace.note(self.now, host, "disk", id.0);
            self.deliver(host, boots, Inbound::Disk(completion));
        }
    }
}

/// Takes an outbox apart.
fn frames(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut frames = Vec::new();
    while let Some(header) = bytes.first_chunk::<HEADER_BYTES>() {
        let header = Header::decode(header, BodyLimit::AFTER_HELLO).expect("machines send frames");
        let (frame, rest) = bytes.split_at(header.frame_bytes());
        frames.push(frame);
        bytes = rest;
    }
    frames
}
