//! The simulator: a whole cluster in one thread, with simulated time, network and disks, under faults.
//!
//! Real routers, MemDS servers and storage cores run; clients work on a few keys and write down what they
//! saw. A run ends by putting everything right, waiting until the cluster is healthy again, reading every
//! key, and checking that all of it can be explained. The same seed gives the same run: [`Report::trace`] is
//! the proof.
//!
//! * [`world`]: hosts, clocks, events. [`network`] and [`disk`]: what the doors would be. [`cluster`]: who is
//!   there.
//! * [`client`]: the workload. [`history`]: what it saw. [`checks`]: what must hold beside it. [`faults`]:
//!   what goes wrong. [`trace`]: what happened.
//! * [`matrix`]: one core and its disk alone, for the storage engine. [`flips`]: one bit at a time, where it
//!   matters.

pub mod checks;
pub mod client;
pub mod cluster;
pub mod disk;
pub mod faults;
pub mod flips;
pub mod history;
pub mod matrix;
pub mod network;
pub mod trace;
pub mod world;

use checks::Checks;
use cluster::{Cluster, Shape};
use evenkeel_dataplane::core::serving::Serving;
use evenkeel_wire::prng::Prng;
use faults::{Fault, Faults};
use network::Weather;
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use world::{MS, SECOND, World};

/// How long, in simulated time, a cluster may take to become healthy once nothing goes wrong any more.
const HEALTHY_WITHIN: u64 = 60 * SECOND;
/// How often checks look at the whole cluster.
const LOOK_EVERY: u64 = 50 * MS;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Simulated time under faults, seconds.
    pub seconds: u64,
    /// These faults only, instead of the seed's mix.
    pub faults: Option<Vec<Fault>>,
    /// Keep the story for a failure.
    pub verbose: bool,
}

/// A run that went well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Hash of everything that happened.
    pub trace: u64,
    /// How many things happened.
    pub events: u64,
    /// Operations that returned.
    pub operations: usize,
    /// Operations whose outcome nobody learned.
    pub unknown: usize,
    /// How often each fault came up.
    pub faults: BTreeMap<Fault, u64>,
    /// Cores that stopped themselves.
    pub halts: usize,
    /// Damaged pages that were repaired, by the processes that lived in the end.
    pub repaired: u64,
    /// Partitions that splits made.
    pub splits: u64,
}

/// A run that did not.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// When, in simulated time.
    pub at: u64,
    /// What must not be.
    pub what: String,
    /// What happened before, if it was kept.
    pub story: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "seed {} failed after {:.3} simulated seconds: {}",
            self.seed,
            self.at as f64 / 1e9,
            self.what
        )
    }
}

impl std::error::Error for Failure {}

/// Runs one seed.
///
/// # Errors
/// What must not be, with its story.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let mut run = Run::new(options);
    // A panic is a bug like any other: it belongs to its seed and has a story. Nothing goes on after it.
    let gone = catch_unwind(AssertUnwindSafe(|| run.go(options.seconds * SECOND)));
    match gone.unwrap_or_else(|panic| Err(format!("a panic: {}", message(panic.as_ref())))) {
        Ok(()) => Ok(run.report(options.seed)),
        Err(what) => {
            let story = format!("{}{}\n", run.world.trace, Checks::describe(&run.world, &run.cluster));
            Err(Failure { seed: options.seed, at: run.world.now, what, story })
        }
    }
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it says nothing")
}

struct Run {
    world: World,
    cluster: Cluster,
    shared: Rc<RefCell<client::Shared>>,
    faults: Faults,
    checks: Checks,
}

impl Run {
    fn new(options: &Options) -> Self {
        let mut prng = Prng::new(options.seed);
        let shape = Shape::of(&mut prng);
        let weather = weather(&mut prng);
        let (mut world, cluster, shared) = cluster::build(prng.next_u64(), &shape, weather, options.verbose);
        let mut faults = Faults::of(&mut world, &cluster);
        if let Some(mix) = &options.faults {
            faults = faults.only(mix);
        }
        Self { world, cluster, shared, faults, checks: Checks::default() }
    }

    fn go(&mut self, duration: u64) -> Result<(), String> {
        let mut strike_at = self.faults.next_at(&mut self.world);
        while self.world.now < duration {
            if self.world.now >= strike_at {
                self.faults.strike(&mut self.world, &self.cluster);
                strike_at = self.faults.next_at(&mut self.world);
            }
            self.advance()?;
        }
        self.settle()?;
        self.read_everything()?;
        Checks::compare_replicas(&self.world, &self.cluster)?;
        self.shared.borrow().history.check()
    }

    fn advance(&mut self) -> Result<(), String> {
        self.world.run_until(self.world.now + LOOK_EVERY);
        self.checks.look(&self.world, &self.cluster)?;
        match &self.shared.borrow().violation {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    /// Puts everything right, lets clients finish, and waits until the cluster is healthy.
    fn settle(&mut self) -> Result<(), String> {
        self.faults.put_right(&mut self.world, true);
        self.world.network.weather =
            Weather { lost_of_10k: 0, damaged_of_10k: 0, stuck_of_10k: 0, ..self.world.network.weather };
        self.shared.borrow_mut().stop = true;
        let after_damage = self.faults.counts.contains_key(&Fault::FlipPage);
        let deadline = self.world.now + HEALTHY_WITHIN;
        loop {
            self.advance()?;
            let quiet = self.shared.borrow().busy == 0;
            if quiet && Checks::is_healthy(&self.world, &self.cluster, after_damage) {
                return Ok(());
            }
            if self.world.now > deadline {
                let what = if quiet { "the cluster is not healthy" } else { "a client got no answer" };
                return Err(format!("{what} {} s after everything was put right", HEALTHY_WITHIN / SECOND));
            }
        }
    }

    fn read_everything(&mut self) -> Result<(), String> {
        self.shared.borrow_mut().read_everything = true;
        let deadline = self.world.now + HEALTHY_WITHIN;
        while !self.shared.borrow().everything_read {
            self.advance()?;
            if self.world.now > deadline {
                return Err("the last reads got no answer".to_owned());
            }
        }
        // What the last reads found is applied everywhere a moment later.
        for _ in 0..20 {
            self.advance()?;
        }
        Ok(())
    }

    /// Damaged pages that were repaired, by the processes that live in the end.
    fn repaired(&self) -> u64 {
        let hosts = self.cluster.storage().map(|host| &self.world.hosts[host]);
        let cores = hosts.filter_map(|host| host.storage().and_then(|core| core.serving()));
        cores.map(|core| core.damage_counts().1).sum()
    }

    /// Partitions that splits made.
    fn splits(&self) -> u64 {
        let hosts = self.cluster.storage().map(|host| &self.world.hosts[host]);
        let cores = hosts.filter_map(|host| host.storage().and_then(|core| core.serving()));
        let configs = cores.flat_map(Serving::groups).map(|group| group.replica.config());
        let made: BTreeSet<_> =
            configs.filter(|config| config.origin.is_some()).map(|config| config.partition).collect();
        made.len() as u64
    }

    fn report(&self, seed: u64) -> Report {
        let (operations, unknown) = self.shared.borrow().history.counts();
        Report {
            seed,
            trace: self.world.trace.hash(),
            events: self.world.trace.events(),
            operations,
            unknown,
            faults: self.faults.counts.clone(),
            halts: self.world.halts.len(),
            repaired: self.repaired(),
            splits: self.splits(),
        }
    }
}

/// The weather that a seed gives.
fn weather(prng: &mut Prng) -> Weather {
    let rough = prng.chance(1, 2);
    Weather {
        delay_min: 20_000 + prng.below(200_000),
        delay_spread: *prng.pick(&[50_000, 500_000, 5 * MS]),
        lost_of_10k: if rough { prng.below(300) } else { 0 },
        damaged_of_10k: if rough { prng.below(20) } else { 0 },
        stuck_of_10k: if rough { prng.below(100) } else { 0 },
        overtaking: prng.chance(1, 3),
    }
}
