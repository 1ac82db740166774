//! One bit at a time: whatever flips in live data is found, never served, and repaired from a peer.
//!
//! A cluster of three storage nodes under a clear sky holds a table whose tree has inner nodes and overflow
//! runs. Again and again one bit flips in what [`live`](crate::live) lists of one node's files; each kind of
//! page, log record and checkpoint record has its turn. Then the damage is made to be noticed: a read comes
//! that needs the page, or a check of everything, or the process starts again. Of each flip is required:
//!
//! * *detected*: the core counts it and names where it is and what is wrong: for a page the partition, the
//!   keys and the cause; for the rest, at the start, the file and the place in it;
//! * *never served*: until it is repaired, reads of the keys concerned are right or refused;
//! * *repaired*: pages are built anew from a peer's items, and replicas that lost a part of their log or
//!   checkpoint are refilled; then the check that `evenkeel check` makes finds the node's files whole.
//!
//! At the end the three replicas are equal to a model, and no block is lost.
//!
//! [`asker`]: what is read and written. [`probe`]: how that reaches a core. [`volley`]: several pages at
//! once.

pub mod asker;
pub mod probe;
pub mod volley;

use super::checks::{Checks, items};
use super::client::Workload;
use super::cluster::{Cluster, Shape, build};
use super::network::{HostId, Weather};
use super::world::{Clock, Host, MS, Node, SECOND, World};
use super::{Failure, message};
use crate::check::{CoreReport, check_files};
use crate::live::{Live, LivePage, Part, live};
use asker::{Asker, Reading};
use evenkeel_dataplane::btree::finding::KeyRange;
use evenkeel_dataplane::checkpoint::superblock::{SUPERBLOCK_FILE_BYTES, Superblock};
use evenkeel_dataplane::core::serving::Serving;
use evenkeel_dataplane::limits::SEGMENTS_MIN;
use evenkeel_dataplane::wal::block::LogIdentity;
use evenkeel_router::cache::CacheMode;
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::File;
use probe::Probe;
use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use tracing_subscriber::util::SubscriberInitExt;

/// Keys of the table, unless told otherwise: enough for a tree with inner nodes below its root.
pub const KEYS: usize = 1500;
/// How long anything may take, simulated: a bound for what never happens.
const PATIENCE: u64 = 120 * SECOND;
/// How often conditions are looked at.
const LOOK_EVERY: u64 = 5 * MS;
/// After this long without a write, the log has said itself that all of it is durable.
const LOG_RESTS: u64 = 40 * MS;
/// Keys of a damaged page that are read, at most.
const READS: usize = 24;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Bits to flip.
    pub flips: u64,
    /// Keys of the table.
    pub keys: usize,
}

/// What became of the flips in one kind of data.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Bits that flipped.
    pub flipped: u64,
    /// Of them, those that were found: by a read…
    pub by_read: u64,
    /// …by a check of everything…
    pub by_check: u64,
    /// …by a start.
    pub by_start: u64,
    /// Reads that were refused because of them.
    pub refused: u64,
    /// Reads that were answered with something that nobody wrote, or that was no longer so. The first ends
    /// the run.
    pub served: u64,
    /// Those that were made good.
    pub repaired: u64,
}

impl Count {
    /// Flips that were found, however.
    #[must_use]
    pub fn detected(&self) -> u64 {
        self.by_read + self.by_check + self.by_start
    }
}

/// A run that went well.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// By what was struck.
    pub counts: BTreeMap<Part, Count>,
    /// Reads whose answers were compared while something was damaged.
    pub reads: u64,
    /// Simulated nanoseconds.
    pub time: u64,
}

impl Report {
    /// Adds what another seed did.
    pub fn add(&mut self, other: &Self) {
        for (part, count) in &other.counts {
            let sum = self.counts.entry(*part).or_default();
            sum.flipped += count.flipped;
            sum.by_read += count.by_read;
            sum.by_check += count.by_check;
            sum.by_start += count.by_start;
            sum.refused += count.refused;
            sum.served += count.served;
            sum.repaired += count.repaired;
        }
        self.reads += other.reads;
        self.time += other.time;
    }

    /// All kinds together.
    #[must_use]
    pub fn sum(&self) -> Count {
        let one = Part::Root;
        let mut sum = Self::default();
        for count in self.counts.values() {
            sum.add(&Self { counts: BTreeMap::from([(one, *count)]), ..Self::default() });
        }
        sum.counts.get(&one).copied().unwrap_or_default()
    }
}

/// Runs one seed.
///
/// # Errors
/// What must not be.
pub fn run(options: &Options) -> Result<Report, Failure> {
    with_campaign(options, |campaign| campaign.go(options.flips))
}

/// Runs one seed of volleys.
///
/// # Errors
/// What must not be.
pub fn run_volleys(options: &Options) -> Result<Report, Failure> {
    with_campaign(options, |campaign| campaign.volleys(options.flips))
}

fn with_campaign(
    options: &Options,
    go: impl FnOnce(&mut Campaign) -> Result<(), String>,
) -> Result<Report, Failure> {
    let said = Said::default();
    let writer = said.clone();
    let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
    let _heard = subscriber.set_default();
    let mut campaign = Campaign::new(options, said);
    // A panic is a bug like any other.
    let gone = catch_unwind(AssertUnwindSafe(|| go(&mut campaign)));
    let gone = gone.unwrap_or_else(|panic| Err(format!("a panic: {}", message(panic.as_ref()))));
    let at = campaign.world.now;
    match gone {
        Ok(()) => Ok(Report { time: at, ..campaign.report }),
        Err(what) => {
            let (what, story) = (format!("{}{what}", campaign.doing), campaign.said.take());
            Err(Failure { seed: options.seed, at, what, story, told: Vec::new() })
        }
    }
}

/// What the cores have said, since it was last taken.
#[derive(Clone, Debug, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn take(&self) -> String {
        String::from_utf8_lossy(&std::mem::take(&mut *self.0.lock().expect("nobody panics in it")))
            .into_owned()
    }

    fn contains(&self, text: &str) -> bool {
        String::from_utf8_lossy(&self.0.lock().expect("nobody panics in it")).contains(text)
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nobody panics in it").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// How a damaged page is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Notice {
    /// Reads come that need it, if it is not in memory.
    Read,
    /// All trees are checked.
    Check,
    /// The process starts again, and is read from.
    Start,
}

struct Campaign {
    world: World,
    cluster: Cluster,
    checks: Checks,
    asker: Asker,
    prng: Prng,
    said: Said,
    report: Report,
    /// What is going on, for a failure.
    doing: String,
}

impl Campaign {
    fn new(options: &Options, said: Said) -> Self {
        let mut prng = Prng::new(options.seed);
        let shape = Shape {
            nodes: 3,
            cores: 1,
            routers: 1,
            clients: 0,
            // What asks here is no client.
            workload: Workload::of(&mut Prng::new(0)),
            cache: CacheMode::On,
            segments: SEGMENTS_MIN,
            disk_latency: (60_000, 200_000),
            // A fraction of the tree, so that most reads wait for the disk.
            cache_bytes: *prng.pick(&[64 << 10, 256 << 10]),
        };
        let weather = Weather {
            delay_min: 20_000,
            delay_spread: 50_000,
            lost_of_10k: 0,
            damaged_of_10k: 0,
            stuck_of_10k: 0,
            overtaking: false,
        };
        let (mut world, cluster, _) = build(prng.next_u64(), &shape, weather, false);
        let mut asker = Asker::new(&mut prng, options.keys);
        let mailbox = asker.mailbox.clone();
        let clock = Clock::new(0, 0, 0);
        let make = Box::new(move |_| Node::Probe(Box::new(Probe::new(mailbox.clone()))));
        let address = SocketAddr::from(([10, 9, 0, 1], 7000));
        let peer = Peer::of_role(PeerRole::Router);
        asker.host = world.add(Host::new("probe".to_owned(), address, 98, peer, None, clock, make), 0);
        let (checks, report, doing) = (Checks::default(), Report::default(), String::new());
        Self { world, cluster, checks, asker, prng, said, report, doing }
    }

    fn go(&mut self, flips: u64) -> Result<(), String> {
        "setting up: ".clone_into(&mut self.doing);
        self.set_up()?;
        let mut turn = 0;
        while self.report.sum().flipped < flips {
            let part = Part::ALL[turn % Part::ALL.len()];
            turn += 1;
            self.flip(part)?;
            if turn % (4 * Part::ALL.len()) == 0 {
                "comparing everything: ".clone_into(&mut self.doing);
                self.compare()?;
            }
            if self.report.sum().flipped == 0 && turn > 4 * Part::ALL.len() {
                return Err("there is nothing to be flipped".to_owned());
            }
        }
        "at the end: ".clone_into(&mut self.doing);
        self.rest()?;
        self.compare()?;
        self.give_back()
    }

    /// The table and what is in it, in two checkpoints of every node and a log behind them.
    fn set_up(&mut self) -> Result<(), String> {
        self.until("the system partition is led", |run| run.leader(true).is_some())?;
        self.create_table()?;
        let all: Vec<usize> = (0..self.asker.model.keys.len()).collect();
        for keys in all.chunks(64) {
            self.put(keys)?;
        }
        for _ in 0..2 {
            self.rest()?;
            self.checkpoint_all()?;
            self.write_some()?;
        }
        self.rest()
    }

    /// Flips a bit of that kind, if there is one.
    fn flip(&mut self, part: Part) -> Result<(), String> {
        self.doing = format!("before a flip in a {part:?}: ");
        self.write_some()?;
        let storage: Vec<HostId> = self.cluster.storage().collect();
        let victim = *self.prng.pick(&storage);
        // Otherwise what a start found is behind the next checkpoint's log.
        if self.prng.chance(1, 3) {
            self.checkpoint(victim)?;
            self.write_some()?;
        }
        if part == Part::LogLink {
            // The first write of a process is one.
            self.world.kill(victim, false);
            self.start(victim)?;
        }
        self.rest()?;
        self.world.run_until(self.world.now + LOG_RESTS);
        self.said.take();
        if part.is_page() { self.flip_page(part, victim) } else { self.flip_at_rest(part, victim) }
    }

    fn choose(&mut self, part: Part, victim: HostId) -> Result<Option<(Live, u64, u8)>, String> {
        let host = &self.world.hosts[victim];
        let disk = host.disk.as_ref().expect("it stores");
        let parts: Vec<Live> =
            live(disk, &identity(host))?.into_iter().filter(|live| live.part == part).collect();
        if parts.is_empty() {
            return Ok(None);
        }
        let chosen = self.prng.pick(&parts).clone();
        let at = chosen.at + self.prng.below(chosen.bytes);
        let bit = self.prng.below(8) as u8;
        let name = &self.world.hosts[victim].name;
        let number = self.report.sum().flipped + 1;
        let page = chosen.page.as_ref().map_or(String::new(), |page| {
            format!(", block {} of {}, {}", page.pointer.block, page.partition, KeyRange(&page.place))
        });
        self.doing = format!(
            "flip {number}, bit {bit} of byte {at} of {name}'s {:?}, a {part:?}{page}: ",
            chosen.file
        );
        Ok(Some((chosen, at, bit)))
    }

    fn do_flip(&mut self, part: Part, victim: HostId, file: File, at: u64, bit: u8) {
        let disk = self.world.hosts[victim].disk.as_mut().expect("it stores");
        assert!(disk.flip(file, at, bit), "what is live was written");
        self.count(part).flipped += 1;
    }

    fn count(&mut self, part: Part) -> &mut Count {
        self.report.counts.entry(part).or_default()
    }

    fn flip_page(&mut self, part: Part, victim: HostId) -> Result<(), String> {
        let Some((live, at, bit)) = self.choose(part, victim)? else {
            return Ok(());
        };
        let page = live.page.expect("pages are pages");
        let notice = *self.prng.pick(&[Notice::Read, Notice::Check, Notice::Start]);
        if notice == Notice::Start {
            self.world.kill(victim, false);
        }
        self.do_flip(part, victim, live.file, at, bit);
        let sequence = self.sequence(victim)?;
        if notice == Notice::Start {
            self.start(victim)?;
        }
        let before = self.found(victim);
        // A replica that has just started may lag behind, and nobody writes.
        let exact = notice != Notice::Start;
        if notice != Notice::Check {
            self.read_page(part, victim, &page, exact)?;
        }
        if self.found(victim) > before {
            self.count(part).by_read += 1;
        } else {
            let checks = self.world.want_check(victim).ok_or("the core does not serve")?;
            self.until("a check of everything", |run| {
                run.core(victim).is_some_and(|core| core.tree_status().checks >= checks)
            })?;
            if self.found(victim) == before {
                return Err("it was not found, neither by reads nor by a check of everything".to_owned());
            }
            self.count(part).by_check += 1;
        }
        let named = format!("a page of {} at block {} is damaged: ", page.partition, page.pointer.block);
        let keys = KeyRange(&page.place).to_string();
        if !(self.said.contains(&named) && self.said.contains(&keys)) {
            return Err(format!("the damage was not named: {:?} does not say {named:?}", self.said.take()));
        }
        let deadline = self.world.now + PATIENCE;
        while !self.is_repaired(victim) {
            if self.world.now > deadline {
                return Err("it is not repaired".to_owned());
            }
            self.read_page(part, victim, &page, exact)?;
            self.advance(LOOK_EVERY)?;
        }
        self.read_page(part, victim, &page, exact)?;
        self.made_good(part, victim, sequence)
    }

    /// Flips what is read at a start only.
    fn flip_at_rest(&mut self, part: Part, victim: HostId) -> Result<(), String> {
        self.world.kill(victim, false);
        let Some((live, at, bit)) = self.choose(part, victim)? else {
            return self.start(victim);
        };
        self.do_flip(part, victim, live.file, at, bit);
        self.start(victim)?;
        let report = self.core(victim).map(|core| core.recovery_report().to_owned()).unwrap_or_default();
        let named = match live.file {
            File::Superblock => "one of the two superblocks is damaged".to_owned(),
            File::Checkpoint(file) => format!("checkpoint file {file} is damaged at byte "),
            // The first write of a segment is missed where the log came from.
            File::Segment(_) if live.at == 0 && part == Part::LogLink => "log segment ".to_owned(),
            File::Segment(segment) => format!("log segment {segment} is damaged at byte "),
            File::Tree => unreachable!("pages are read when they are needed"),
        };
        if !report.contains(&named) {
            return Err(format!("the start said {report:?}, and not {named:?}"));
        }
        self.count(part).by_start += 1;
        let sequence = self.sequence(victim)?;
        // Whoever was refilled a little may be old, and is never wrong.
        self.read_anything(part, victim)?;
        let deadline = self.world.now + PATIENCE;
        while !self.core(victim).is_some_and(|core| core.recovery_report().is_empty()) {
            if self.world.now > deadline {
                return Err("it is not refilled".to_owned());
            }
            self.read_anything(part, victim)?;
            self.advance(20 * LOOK_EVERY)?;
        }
        self.made_good(part, victim, sequence)
    }

    /// The next checkpoint, and what is then on the disk.
    fn made_good(&mut self, part: Part, victim: HostId, sequence: u64) -> Result<(), String> {
        self.until("the next checkpoint", |run| run.sequence(victim).is_ok_and(|now| now > sequence))?;
        self.rest()?;
        let report = self.check(victim)?;
        if let Some(finding) = report.findings.first() {
            return Err(format!("after the repair a check of the files finds: {finding}"));
        }
        let damaged = self.core(victim).map_or(0, |core| core.tree_status().damaged_pages);
        if damaged > 0 {
            return Err(format!("{damaged} pages count as damaged after the repair"));
        }
        self.count(part).repaired += 1;
        Ok(())
    }

    fn start(&mut self, victim: HostId) -> Result<(), String> {
        self.world.start_after(victim, MS);
        let deadline = self.world.now + PATIENCE;
        // A look in each turn: what was found at the start is told before anything is refilled.
        while self.core(victim).is_none() {
            self.advance(MS / 10)?;
            if self.world.now > deadline {
                return Err(format!("it does not start: {:?}", self.world.halts));
            }
        }
        Ok(())
    }

    fn read_page(&mut self, part: Part, victim: HostId, page: &LivePage, exact: bool) -> Result<(), String> {
        let mut keys = self.asker.keys_between(&page.low, &page.high);
        while keys.len() > READS {
            let left_out = self.prng.below(keys.len() as u64) as usize;
            keys.swap_remove(left_out);
        }
        self.read(part, victim, &keys, exact)?;
        let scanned = self.scan(victim, &page.low, &page.high, exact);
        self.note(part, scanned)
    }

    fn read_anything(&mut self, part: Part, victim: HostId) -> Result<(), String> {
        let all = self.asker.model.keys.len() as u64;
        let keys: Vec<usize> = (0..READS / 4).map(|_| self.prng.below(all) as usize).collect();
        self.read(part, victim, &keys, false)
    }

    fn read(&mut self, part: Part, victim: HostId, keys: &[usize], exact: bool) -> Result<(), String> {
        let read = self.get(victim, keys, exact);
        self.note(part, read)
    }

    /// Counts reads.
    fn note(&mut self, part: Part, reading: Result<Reading, String>) -> Result<(), String> {
        match reading {
            Ok(Reading { right, refused }) => {
                self.report.reads += right + refused;
                self.count(part).refused += refused;
                Ok(())
            }
            Err(what) => {
                self.count(part).served += 1;
                Err(what)
            }
        }
    }

    fn write_some(&mut self) -> Result<(), String> {
        let all = self.asker.model.keys.len() as u64;
        let mut keys: Vec<usize> = (0..8).map(|_| self.prng.below(all) as usize).collect();
        keys.sort_unstable();
        keys.dedup();
        self.put(&keys)
    }

    fn checkpoint_all(&mut self) -> Result<(), String> {
        let storage: Vec<HostId> = self.cluster.storage().collect();
        storage.into_iter().try_for_each(|host| self.checkpoint(host))
    }

    fn checkpoint(&mut self, host: HostId) -> Result<(), String> {
        let before = self.sequence(host)?;
        self.world.want_checkpoint(host);
        self.until("a checkpoint", |run| run.sequence(host).is_ok_and(|now| now > before))
    }

    /// Waits until every replica has applied everything, and nobody writes a checkpoint.
    fn rest(&mut self) -> Result<(), String> {
        self.until("rest", |run| {
            let idle = |core: &Serving| core.is_at_rest() && core.tree_status().damaged_pages == 0;
            Checks::is_healthy(&run.world, &run.cluster, false)
                && run.cluster.storage().all(|host| run.core(host).is_some_and(idle))
        })
    }

    /// Compares all replicas with each other, and one with the model.
    fn compare(&mut self) -> Result<(), String> {
        self.rest()?;
        Checks::compare_replicas(&self.world, &self.cluster)?;
        let host = &self.world.hosts[self.cluster.storage().next().expect("there are three")];
        let core = host.storage().and_then(|core| core.serving()).ok_or("a core does not serve")?;
        let group = core.group(self.asker.place.partition).ok_or("a core lacks its partition")?;
        self.asker.compare(items(host, core, group.state())?)
    }

    /// Nothing is lost or held in the end.
    fn give_back(&mut self) -> Result<(), String> {
        let storage: Vec<HostId> = self.cluster.storage().collect();
        for host in storage {
            // The check that ends lets a sweep begin, and the next checkpoint frees what that has found.
            let checks = self.world.want_check(host).ok_or("the core does not serve")?;
            self.until("a check of everything", |run| {
                run.core(host).is_some_and(|core| core.tree_status().checks >= checks)
            })?;
            self.advance(SECOND)?;
            self.until("lost blocks to be given back", |run| run.is_whole(host))?;
        }
        Ok(())
    }

    fn is_whole(&self, host: HostId) -> bool {
        let held = self.core(host).map(Serving::tree_status);
        let held = held.is_none_or(|status| status.blocks_loose + status.blocks_retired > 0);
        let of_table = self.core(host).and_then(|core| core.group(self.asker.place.partition));
        let counted = of_table.is_some_and(|group| !group.state().tree.version().estimated);
        !held
            && counted
            && self.check(host).is_ok_and(|report| report.findings.is_empty() && report.lost == Some(0))
    }

    fn check(&self, host: HostId) -> Result<CoreReport, String> {
        let host = &self.world.hosts[host];
        let disk = host.disk.as_ref().expect("it stores");
        check_files(disk, identity(host), &mut |_, _| ()).map_err(|error| error.to_string())
    }

    fn sequence(&self, host: HostId) -> Result<u64, String> {
        let host = &self.world.hosts[host];
        let disk = host.disk.as_ref().expect("it stores");
        let blocks = disk.read(File::Superblock, 0, SUPERBLOCK_FILE_BYTES);
        Superblock::choose(&blocks, &identity(host))
            .map(|superblock| superblock.sequence)
            .map_err(|error| error.to_string())
    }

    fn core(&self, host: HostId) -> Option<&Serving> {
        self.world.hosts[host].storage().and_then(|core| core.serving())
    }

    fn found(&self, host: HostId) -> u64 {
        self.core(host).map_or(0, |core| core.damage_counts().0)
    }

    fn is_repaired(&self, host: HostId) -> bool {
        self.core(host).is_some_and(|core| {
            let (found, repaired) = core.damage_counts();
            repaired == found && core.tree_status().damaged_pages == 0
        })
    }

    fn advance(&mut self, time: u64) -> Result<(), String> {
        self.world.run_until(self.world.now + time);
        self.checks.look(&self.world, &self.cluster)?;
        match self.world.halts.first() {
            Some(halt) => Err(format!("a core stopped: {halt}")),
            None => Ok(()),
        }
    }

    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> Result<(), String> {
        let deadline = self.world.now + PATIENCE;
        while !holds(self) {
            if self.world.now > deadline {
                let state = Checks::describe(&self.world, &self.cluster);
                return Err(format!("waited {} s in vain for {what}\n{state}", PATIENCE / SECOND));
            }
            self.advance(LOOK_EVERY)?;
        }
        Ok(())
    }
}

fn identity(host: &Host) -> LogIdentity {
    LogIdentity { incarnation: host.peer.incarnation, core: host.peer.core }
}

const _: () = assert!(SUPERBLOCK_FILE_BYTES == 2 * BLOCK_BYTES);

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |f: &mut fmt::Formatter<'_>, name: &str, count: &Count| {
            writeln!(
                f,
                "{name:<17}{:>8}{:>10}{:>8}{:>8}{:>8}{:>9}{:>8}{:>10}",
                count.flipped,
                count.detected(),
                count.by_read,
                count.by_check,
                count.by_start,
                count.refused,
                count.served,
                count.repaired
            )
        };
        writeln!(
            f,
            "{:<17}{:>8}{:>10}{:>8}{:>8}{:>8}{:>9}{:>8}{:>10}",
            "in a", "flipped", "detected", "read", "check", "start", "refused", "served", "repaired"
        )?;
        for (part, count) in &self.counts {
            row(f, &format!("{part:?}"), count)?;
        }
        row(f, "all", &self.sum())?;
        write!(f, "{} reads compared meanwhile, {} simulated seconds", self.reads, self.time / SECOND)
    }
}
