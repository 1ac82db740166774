//! Lets the faults of a script happen, remembers what is to be put right, and notes whom each one struck.

use super::cluster::Cluster;
use super::coverage::{Coverage, Role};
use super::disk::{FileKind, Lie, OwnVersion};
use super::faults::Fault;
use super::network::HostId;
use super::orders;
use super::script::{Script, Strike};
use super::world::{MS, SECOND, World};
use evenkeel_wire::ids::NodeId;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::DiskFault;
use std::collections::BTreeMap;

/// How fast or slow a clock may become, parts per million: two of them are within the bound that leases
/// assume (`LEASE_DRIFT` of `LEASE_TERM`).
const RATE_PPM_MAX: i64 = 9_900;
/// The format that another version would write.
const OTHER_FORMAT: u16 = 9;

/// The faults of a run, and what they still have to put right.
#[derive(Debug)]
pub struct Striker {
    strikes: std::vec::IntoIter<Strike>,
    next: Option<Strike>,
    /// The node whose disk may be damaged and may lie: one only, so that its peers can refill it.
    damaged_node: NodeId,
    /// How fast disks are when they are not slow.
    disk_latency: (u64, u64),
    heal_network_at: Option<u64>,
    cut_until: BTreeMap<(HostId, HostId), u64>,
    slow_until: BTreeMap<HostId, u64>,
    full_until: BTreeMap<HostId, u64>,
    beyond_until: BTreeMap<HostId, u64>,
    power_fails_at: BTreeMap<HostId, u64>,
    foreign: BTreeMap<HostId, Foreign>,
    /// How often each came up.
    pub counts: BTreeMap<Fault, u64>,
    /// Whom they struck.
    pub coverage: Coverage,
    /// What each did, in words.
    pub told: Vec<String>,
    /// How often a folder of another version was refused.
    pub refused: u64,
}

/// A host whose folder another version has written, for a while.
#[derive(Debug)]
struct Foreign {
    until: u64,
    own: OwnVersion,
    halts_before: usize,
}

/// Whom a fault struck, and what it did.
struct Struck {
    hosts: Vec<HostId>,
    did: String,
}

impl Striker {
    /// The faults of a script, in its cluster.
    #[must_use]
    pub fn new(script: &Script, damaged: u64, world: &World, cluster: &Cluster) -> Self {
        let nodes: Vec<NodeId> = cluster.nodes.keys().copied().collect();
        let mut strikes = script.strikes.clone().into_iter();
        Self {
            next: strikes.next(),
            strikes,
            damaged_node: nodes[(damaged % nodes.len() as u64) as usize],
            disk_latency: cluster.storage().next().map_or((0, 0), |host| world.hosts[host].disk_latency),
            heal_network_at: None,
            cut_until: BTreeMap::new(),
            slow_until: BTreeMap::new(),
            full_until: BTreeMap::new(),
            beyond_until: BTreeMap::new(),
            power_fails_at: BTreeMap::new(),
            foreign: BTreeMap::new(),
            counts: BTreeMap::new(),
            coverage: Coverage::default(),
            told: Vec::new(),
            refused: 0,
        }
    }

    /// When the next fault comes.
    #[must_use]
    pub fn next_at(&self) -> Option<u64> {
        self.next.map(|strike| strike.at)
    }

    /// Lets the next fault happen.
    pub fn strike(&mut self, world: &mut World, cluster: &Cluster) {
        let Some(Strike { fault, choice, .. }) = self.next.take() else {
            return;
        };
        self.next = self.strikes.next();
        let roles = Role::of_all(world, cluster);
        let Struck { hosts, did } = self.cause(fault, world, cluster, &mut Prng::new(choice.into()));
        let now = world.now;
        world.trace.tell(now, || format!("fault: {fault:?} {did}"));
        *self.counts.entry(fault).or_default() += 1;
        let struck = hosts.iter().filter_map(|host| roles.get(host)).flatten();
        struck.for_each(|role| self.coverage.count(fault, *role, 1));
        if hosts.is_empty() {
            self.coverage.count(fault, Role::Nobody, 1);
        }
        self.told.push(did);
    }

    /// Whether some disk was given other bytes than were written to it.
    #[must_use]
    pub fn has_damaged(&self) -> bool {
        self.counts.keys().any(|fault| fault.damages())
    }

    /// Puts right what is due; at the end of a run, everything.
    ///
    /// # Errors
    /// When a folder of another version was not refused.
    pub fn put_right(
        &mut self,
        world: &mut World,
        cluster: &Cluster,
        everything: bool,
    ) -> Result<(), String> {
        let now = world.now;
        let due = |at: u64| everything || at <= now;
        if self.heal_network_at.take_if(|at| due(*at)).is_some() {
            world.network.heal();
        }
        for ((from, to), _) in self.cut_until.extract_if(.., |_, at| due(*at)) {
            world.network.mend(from, to);
        }
        for (host, _) in self.slow_until.extract_if(.., |_, at| due(*at)) {
            world.hosts[host].disk_latency = self.disk_latency;
        }
        for (host, _) in self.full_until.extract_if(.., |_, at| due(*at)) {
            if let Some(disk) = &mut world.hosts[host].disk {
                disk.capacity_blocks = None;
            }
        }
        for (host, _) in self.beyond_until.extract_if(.., |_, at| due(*at)) {
            world.set_rate(host, 0);
        }
        for (host, _) in self.power_fails_at.extract_if(.., |_, at| due(*at)) {
            world.kill(host, true);
            world.start_after(host, 100 * MS);
        }
        self.end_foreign(world, everything)?;
        if everything {
            world.network.put_right();
            for host in 0..world.hosts.len() {
                world.hosts[host].paused_until = 0;
                if let Some(disk) = &mut world.hosts[host].disk {
                    disk.put_right();
                }
            }
            if self.has_damaged() {
                // What was damaged under a running process is found by the check that follows its start.
                cluster.nodes[&self.damaged_node].iter().for_each(|host| world.kill(*host, false));
            }
            (0..world.hosts.len()).for_each(|host| world.start_after(host, 0));
        }
        Ok(())
    }

    /// Gives hosts their own folders back. Until then they must not serve.
    fn end_foreign(&mut self, world: &mut World, everything: bool) -> Result<(), String> {
        for host in self.foreign.keys() {
            let host = &world.hosts[*host];
            if host.storage().is_some_and(|core| core.serving().is_some()) {
                return Err(format!("{} serves from a folder of another version", host.name));
            }
        }
        let now = world.now;
        let ended: Vec<_> =
            self.foreign.extract_if(.., |_, foreign| everything || foreign.until <= now).collect();
        for (host, Foreign { own, halts_before, .. }) in ended {
            world.kill(host, false);
            let name = format!("{}: ", world.hosts[host].name);
            let mut halts = world.halts[halts_before..].iter().filter(|halt| halt.starts_with(&name));
            // A disk that fails meanwhile is another reason.
            let because = format!("was written in format {OTHER_FORMAT}");
            self.refused += u64::from(halts.any(|halt| halt.contains(&because)));
            if let Some(disk) = &mut world.hosts[host].disk {
                disk.as_own_version(own);
            }
            world.start_after(host, 10 * MS);
        }
        Ok(())
    }

    fn cause(&mut self, fault: Fault, world: &mut World, cluster: &Cluster, prng: &mut Prng) -> Struck {
        let storage: Vec<HostId> = cluster.storage().collect();
        let host = *prng.pick(&storage);
        let now = world.now;
        match fault {
            Fault::Kill => restart(world, vec![host], false, prng),
            Fault::PowerNode => {
                let nodes: Vec<&Vec<HostId>> = cluster.nodes.values().collect();
                restart(world, (*prng.pick(&nodes)).clone(), true, prng)
            }
            Fault::LoseNode => {
                let nodes: Vec<&Vec<HostId>> = cluster.nodes.values().collect();
                let hosts = (*prng.pick(&nodes)).clone();
                let delay = 4 * SECOND + prng.below(26 * SECOND);
                for host in &hosts {
                    world.kill(*host, false);
                    world.start_after(*host, delay);
                }
                on(world, hosts, &format!("for {:.3} s", delay as f64 / 1e9))
            }
            Fault::PowerZone => {
                let zone = prng.below(3) as usize;
                let hosts = storage.into_iter().filter(|host| world.hosts[*host].zone == zone).collect();
                restart(world, hosts, true, prng)
            }
            Fault::PowerAll => restart(world, storage, true, prng),
            Fault::Pause => {
                let all = [storage, cluster.routers.clone(), cluster.memds.clone()].concat();
                let (host, pause) = (*prng.pick(&all), prng.below(5 * SECOND));
                world.hosts[host].paused_until = now + pause;
                on(world, vec![host], &lasting(pause))
            }
            Fault::Partition => self.partition(world, cluster, prng),
            Fault::OneWay => {
                let all = [storage, cluster.routers.clone(), cluster.memds.clone()].concat();
                let (to, lasts) = (*prng.pick(&all), prng.below(8 * SECOND));
                if to == host {
                    return on(world, Vec::new(), "");
                }
                world.network.cut(host, to);
                self.cut_until.insert((host, to), now + lasts);
                let did = format!("to {}, {}", world.hosts[to].name, lasting(lasts));
                on(world, vec![host], &did)
            }
            Fault::BreakLink => {
                let links = world.network.links_of(host);
                if links.is_empty() {
                    return on(world, Vec::new(), "");
                }
                let link = *prng.pick(&links);
                world.break_link(link, None, 200_000);
                on(world, vec![host], "")
            }
            Fault::Stall => {
                let all = [storage, cluster.routers.clone()].concat();
                let (host, lasts) = (*prng.pick(&all), prng.below(3 * SECOND));
                world.network.stall(host, now + lasts);
                on(world, vec![host], &lasting(lasts))
            }
            Fault::CorruptFrames => {
                let all = [storage, cluster.routers.clone(), cluster.memds.clone()].concat();
                let (host, frames) = (*prng.pick(&all), 1 + prng.below(5) as u32);
                world.network.corrupt(host, frames);
                on(world, vec![host], &format!("{frames} frames"))
            }
            Fault::Drift => {
                let rate = prng.below(2 * RATE_PPM_MAX as u64 + 1) as i64 - RATE_PPM_MAX;
                if self.beyond_until.contains_key(&host) {
                    return on(world, Vec::new(), "");
                }
                world.set_rate(host, rate);
                on(world, vec![host], &format!("{rate} ppm"))
            }
            Fault::DriftBeyond => {
                let rate = 20_000 + prng.below(380_000) as i64;
                let rate = if prng.chance(1, 2) { rate } else { -rate };
                let lasts = prng.below(8 * SECOND);
                world.set_rate(host, rate);
                self.beyond_until.insert(host, now + lasts);
                on(world, vec![host], &format!("{rate} ppm, {}", lasting(lasts)))
            }
            Fault::SlowDisk => {
                let lasts = prng.below(8 * SECOND);
                world.hosts[host].disk_latency = (2 * MS, 60 * MS);
                self.slow_until.insert(host, now + lasts);
                on(world, vec![host], &lasting(lasts))
            }
            Fault::DiskError => {
                if let Some(disk) = &mut world.hosts[host].disk {
                    disk.fail_next = Some(DiskFault::Os { errno: 5 });
                }
                on(world, vec![host], "")
            }
            Fault::DiskFull => {
                if let Some(disk) = &mut world.hosts[host].disk {
                    disk.capacity_blocks = Some(1);
                }
                let longest = *prng.pick(&[8 * SECOND, 8 * SECOND, 100 * SECOND]);
                let lasts = prng.below(longest);
                self.full_until.insert(host, now + lasts);
                on(world, vec![host], &lasting(lasts))
            }
            Fault::FlipBit => self.flip(world, cluster, FileKind::Segment, prng),
            Fault::FlipPage => {
                let kind = *prng.pick(&[FileKind::Tree, FileKind::Tree, FileKind::Checkpoint]);
                self.flip(world, cluster, kind, prng)
            }
            Fault::LoseWrite => self.lie(world, cluster, Lie::Lost, prng),
            Fault::TearWrite => self.lie(world, cluster, Lie::Torn, prng),
            Fault::MisplaceWrite => {
                let choice = prng.next_u64();
                self.lie(world, cluster, Lie::Misplaced(choice), prng)
            }
            Fault::LoseFlush => {
                let host = *prng.pick(&cluster.nodes[&self.damaged_node]);
                let kind = *prng.pick(&[FileKind::Tree, FileKind::Checkpoint]);
                if let Some(disk) = &mut world.hosts[host].disk {
                    disk.lie_next = Some((kind, Lie::NotFlushed));
                }
                world.want_checkpoint(host);
                self.power_fails_at.insert(host, now + prng.below(4 * SECOND));
                on(world, vec![host], &format!("{kind:?}"))
            }
            Fault::OtherFormat => self.other_format(world, host, prng),
            Fault::Checkpoint => {
                storage.iter().for_each(|host| world.want_checkpoint(*host));
                on(world, storage, "")
            }
            Fault::Check => {
                world.want_check(host);
                on(world, vec![host], "")
            }
            Fault::Ghost => match orders::ghost(world, cluster, prng) {
                Some(host) => on(world, vec![host], ""),
                None => on(world, Vec::new(), ""),
            },
            Fault::Drain => {
                world.drain(host);
                on(world, vec![host], "")
            }
            Fault::KillFront => {
                let front = [cluster.routers.clone(), cluster.memds.clone()].concat();
                let host = *prng.pick(&front);
                restart(world, vec![host], false, prng)
            }
            Fault::KillClient => {
                let host = *prng.pick(&cluster.clients);
                restart(world, vec![host], false, prng)
            }
            Fault::Split => match orders::split(world, cluster, prng) {
                Some(leader) => on(world, vec![leader], ""),
                None => on(world, Vec::new(), ""),
            },
        }
    }

    /// A whole zone is cut off, or one way between two zones.
    fn partition(&mut self, world: &mut World, cluster: &Cluster, prng: &mut Prng) -> Struck {
        let zone = prng.below(3) as usize;
        let did = if prng.chance(1, 2) {
            for other in (0..3).filter(|other| *other != zone) {
                world.network.block(zone, other);
                world.network.block(other, zone);
            }
            "cut off".to_owned()
        } else {
            let to = (zone + 1 + prng.below(2) as usize) % 3;
            world.network.block(zone, to);
            format!("not heard by zone {to}")
        };
        let lasts = prng.below(6 * SECOND);
        self.heal_network_at = Some(world.now + lasts);
        let hosts = cluster.storage().filter(|host| world.hosts[*host].zone == zone).collect();
        on(world, hosts, &format!("{did}, {}", lasting(lasts)))
    }

    /// Flips a bit in a file of the node that may be damaged, while its process is down.
    fn flip(&self, world: &mut World, cluster: &Cluster, kind: FileKind, prng: &mut Prng) -> Struck {
        let host = *prng.pick(&cluster.nodes[&self.damaged_node]);
        world.kill(host, false);
        let flipped = world.hosts[host].disk.as_mut().and_then(|disk| disk.flip_bit(prng, kind));
        world.start_after(host, 100 * MS);
        match flipped {
            Some((file, offset)) => on(world, vec![host], &format!("{file:?} at {offset}")),
            None => on(world, Vec::new(), ""),
        }
    }

    /// The next write to a file of the node whose disk may lie is lied about.
    fn lie(&self, world: &mut World, cluster: &Cluster, lie: Lie, prng: &mut Prng) -> Struck {
        let host = *prng.pick(&cluster.nodes[&self.damaged_node]);
        let kind = *prng.pick(&[FileKind::Tree, FileKind::Tree, FileKind::Checkpoint, FileKind::Segment]);
        if let Some(disk) = &mut world.hosts[host].disk {
            disk.lie_next = Some((kind, lie));
        }
        if kind != FileKind::Segment {
            world.want_checkpoint(host);
        }
        on(world, vec![host], &format!("{kind:?}"))
    }

    fn other_format(&mut self, world: &mut World, host: HostId, prng: &mut Prng) -> Struck {
        if self.foreign.contains_key(&host) {
            return on(world, Vec::new(), "");
        }
        world.kill(host, false);
        let Some(disk) = &mut world.hosts[host].disk else {
            return on(world, Vec::new(), "");
        };
        let own = disk.as_another_version(OTHER_FORMAT);
        let lasts = 500 * MS + prng.below(3 * SECOND);
        let foreign = Foreign { until: world.now + lasts, own, halts_before: world.halts.len() };
        self.foreign.insert(host, foreign);
        world.start_after(host, 50 * MS);
        on(world, vec![host], &lasting(lasts))
    }
}

fn lasting(nanoseconds: u64) -> String {
    format!("for {:.3} s", nanoseconds as f64 / 1e9)
}

/// What a fault did, with the names of whom it struck.
fn on(world: &World, hosts: Vec<HostId>, what: &str) -> Struck {
    let names: Vec<&str> = hosts.iter().map(|host| world.hosts[*host].name.as_str()).collect();
    let names = if names.is_empty() { "nobody".to_owned() } else { names.join(" ") };
    let did = format!("{names} {what}").trim_end().to_owned();
    Struck { hosts, did }
}

/// Kills hosts and starts them again a while later.
fn restart(world: &mut World, hosts: Vec<HostId>, power: bool, prng: &mut Prng) -> Struck {
    let longest = *prng.pick(&[200 * MS, 3 * SECOND, 8 * SECOND]);
    let mut delays = Vec::new();
    for host in &hosts {
        world.kill(*host, power);
        let delay = 10 * MS + prng.below(longest);
        world.start_after(*host, delay);
        delays.push(format!("{:.3}", delay as f64 / 1e9));
    }
    on(world, hosts, &format!("for {} s", delays.join(" ")))
}
