//! A simulated network: links between hosts that deliver frames late, out of order, damaged or not at all.
//!
//! A link is what a connection is to a machine: it comes up, carries frames both ways, and goes down. A
//! partition swallows frames without telling anybody; a crash tells the other side, sooner or later. Links
//! deliver in order like TCP, unless the run's weather says otherwise: protocols must not depend on it.

use evenkeel_wire::prng::Prng;
use std::collections::{BTreeMap, BTreeSet};

/// A host: a machine with its address.
pub type HostId = usize;

/// A link between two hosts, opened by the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// Where a link is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkState {
    /// The handshake is under way.
    Opening,
    /// Frames go both ways.
    Up,
}

/// A link.
#[derive(Clone, Debug)]
pub struct Link {
    /// Who opened it.
    pub opener: HostId,
    /// Who listens.
    pub listener: HostId,
    /// Where it is in its life.
    pub state: LinkState,
    /// When the last frame of each direction arrives: from the opener, from the listener.
    last_arrival: [u64; 2],
}

/// How the network behaves in this run.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// Least one-way delay, nanoseconds.
    pub delay_min: u64,
    /// What may come on top, uniformly.
    pub delay_spread: u64,
    /// Of 10,000 frames, how many are lost.
    pub lost_of_10k: u64,
    /// Of 10,000 frames, how many are damaged.
    pub damaged_of_10k: u64,
    /// Of 10,000 frames, how many are delayed by up to a second.
    pub stuck_of_10k: u64,
    /// Whether frames of one link may overtake each other.
    pub overtaking: bool,
}

impl Weather {
    /// The weather that a seed gives.
    #[must_use]
    pub fn of(prng: &mut Prng) -> Self {
        let rough = prng.chance(1, 2);
        Self {
            delay_min: 20_000 + prng.below(200_000),
            delay_spread: *prng.pick(&[50_000, 500_000, 5_000_000]),
            lost_of_10k: if rough { prng.below(300) } else { 0 },
            damaged_of_10k: if rough { prng.below(20) } else { 0 },
            stuck_of_10k: if rough { prng.below(100) } else { 0 },
            overtaking: prng.chance(1, 3),
        }
    }

    /// The same without frames that are lost, damaged or stuck.
    #[must_use]
    pub fn calmed(self) -> Self {
        Self { lost_of_10k: 0, damaged_of_10k: 0, stuck_of_10k: 0, ..self }
    }
}

/// What becomes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives at this time.
    Arrives(u64),
    /// It arrives at this time with one bit flipped.
    ArrivesDamaged(u64),
    /// It is lost.
    Lost,
}

/// All links.
#[derive(Debug)]
pub struct Network {
    /// How it behaves.
    pub weather: Weather,
    links: BTreeMap<LinkId, Link>,
    by_hosts: BTreeMap<(HostId, HostId), LinkId>,
    next: u64,
    /// Zones that cannot hear each other: frames from the first to the second are swallowed.
    blocked: BTreeSet<(usize, usize)>,
    /// The same of hosts.
    cut: BTreeSet<(HostId, HostId)>,
    /// Hosts from and to which nothing arrives before this time.
    stalled: BTreeMap<HostId, u64>,
    /// Hosts whose next frames are damaged, and how many.
    corrupting: BTreeMap<HostId, u32>,
}

/// From whom to whom.
#[derive(Clone, Copy, Debug)]
pub struct Way {
    /// The two hosts.
    pub hosts: (HostId, HostId),
    /// Their zones.
    pub zones: (usize, usize),
}

impl Network {
    /// A network without links.
    #[must_use]
    pub fn new(weather: Weather) -> Self {
        Self {
            weather,
            links: BTreeMap::new(),
            by_hosts: BTreeMap::new(),
            next: 0,
            blocked: BTreeSet::new(),
            cut: BTreeSet::new(),
            stalled: BTreeMap::new(),
            corrupting: BTreeMap::new(),
        }
    }

    /// The link that `opener` has to `listener`, if there is one.
    #[must_use]
    pub fn between(&self, opener: HostId, listener: HostId) -> Option<LinkId> {
        self.by_hosts.get(&(opener, listener)).copied()
    }

    /// The link.
    #[must_use]
    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// Begins to open a link.
    pub fn open(&mut self, opener: HostId, listener: HostId) -> LinkId {
        self.next += 1;
        let id = LinkId(self.next);
        let link = Link { opener, listener, state: LinkState::Opening, last_arrival: [0; 2] };
        self.links.insert(id, link);
        self.by_hosts.insert((opener, listener), id);
        id
    }

    /// The handshake is done. False if the link has ended meanwhile.
    pub fn established(&mut self, id: LinkId) -> bool {
        let link = self.links.get_mut(&id);
        link.map(|link| link.state = LinkState::Up).is_some()
    }

    /// Ends a link.
    pub fn close(&mut self, id: LinkId) -> Option<Link> {
        let link = self.links.remove(&id)?;
        self.by_hosts.remove(&(link.opener, link.listener));
        Some(link)
    }

    /// The links of a host.
    #[must_use]
    pub fn links_of(&self, host: HostId) -> Vec<LinkId> {
        let of_host = |(_, link): &(&LinkId, &Link)| link.opener == host || link.listener == host;
        self.links.iter().filter(of_host).map(|(id, _)| *id).collect()
    }

    /// A one-way delay.
    pub fn delay(&self, prng: &mut Prng) -> u64 {
        self.weather.delay_min + prng.below(self.weather.delay_spread + 1)
    }

    /// What becomes of a frame that is sent now.
    pub fn fate(&mut self, id: LinkId, from_opener: bool, way: Way, now: u64, prng: &mut Prng) -> Fate {
        let mut arrival = now + self.delay(prng);
        let Weather { lost_of_10k, damaged_of_10k, stuck_of_10k, overtaking, .. } = self.weather;
        let (lost, damaged) = (prng.chance(lost_of_10k, 10_000), prng.chance(damaged_of_10k, 10_000));
        if prng.chance(stuck_of_10k, 10_000) {
            arrival += prng.below(1_000_000_000);
        }
        if lost || self.is_blocked(way) {
            return Fate::Lost;
        }
        for host in [way.hosts.0, way.hosts.1] {
            arrival = arrival.max(self.stalled.get(&host).copied().unwrap_or(0));
        }
        if let Some(link) = self.links.get_mut(&id)
            && !overtaking
        {
            let last = &mut link.last_arrival[usize::from(!from_opener)];
            arrival = arrival.max(*last);
            *last = arrival;
        }
        let damaged = self.takes_corrupting(way.hosts.0) || damaged;
        if damaged { Fate::ArrivesDamaged(arrival) } else { Fate::Arrives(arrival) }
    }

    /// Whether the next frame of a host is to be damaged: then it was counted.
    fn takes_corrupting(&mut self, host: HostId) -> bool {
        let Some(left) = self.corrupting.get_mut(&host) else {
            return false;
        };
        *left -= 1;
        if *left == 0 {
            self.corrupting.remove(&host);
        }
        true
    }

    /// Whether frames that way are swallowed.
    #[must_use]
    pub fn is_blocked(&self, way: Way) -> bool {
        self.blocked.contains(&way.zones) || self.cut.contains(&way.hosts)
    }

    /// Swallows frames from one zone to another.
    pub fn block(&mut self, from: usize, to: usize) {
        self.blocked.insert((from, to));
    }

    /// Lets everything through again between zones.
    pub fn heal(&mut self) {
        self.blocked.clear();
    }

    /// Swallows frames from one host to another.
    pub fn cut(&mut self, from: HostId, to: HostId) {
        self.cut.insert((from, to));
    }

    /// Lets them through again.
    pub fn mend(&mut self, from: HostId, to: HostId) {
        self.cut.remove(&(from, to));
    }

    /// Holds back what is sent from and to a host until `until`.
    pub fn stall(&mut self, host: HostId, until: u64) {
        self.stalled.insert(host, until);
    }

    /// Damages the next frames that a host sends.
    pub fn corrupt(&mut self, host: HostId, frames: u32) {
        self.corrupting.insert(host, frames);
    }

    /// Lets everything through from now on.
    pub fn put_right(&mut self) {
        self.blocked.clear();
        self.cut.clear();
        self.stalled.clear();
        self.corrupting.clear();
        self.weather = self.weather.calmed();
    }
}
