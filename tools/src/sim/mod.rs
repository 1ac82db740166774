//! The simulator: a whole cluster in one thread, with simulated time, network and disks, under faults.
//!
//! Real routers, MemDS servers and storage cores run; clients work on a few keys and write down what they
//! saw. A run ends by putting everything right, waiting until the cluster is healthy again, reading every
//! key, and checking that all of it can be explained. The same seed gives the same run: [`Report::trace`] is
//! the proof.
//!
//! * [`script`]: which faults, and when. [`faults`]: the kinds. [`striker`]: what each does. [`orders`]: what
//!   is said to cores. [`coverage`]: whom they struck. [`shrink`]: the fewest that fail. [`total`]: sums.
//! * [`world`]: hosts, clocks, events. [`network`] and [`disk`]: what the doors would be. [`cluster`]: who is
//!   there.
//! * [`client`]: the workload. [`history`]: what it saw. [`checks`]: what must hold beside it. [`trace`]:
//!   what happened.
//! * [`matrix`]: one core and its disk alone, for the storage engine. [`flips`]: one bit at a time, where it
//!   matters.

pub mod checks;
pub mod client;
pub mod cluster;
pub mod coverage;
pub mod disk;
pub mod faults;
pub mod flips;
pub mod history;
pub mod matrix;
pub mod network;
pub mod orders;
pub mod script;
pub mod shrink;
pub mod striker;
pub mod total;
pub mod trace;
pub mod world;

use checks::Checks;
use cluster::Cluster;
use coverage::Coverage;
use evenkeel_dataplane::core::serving::Serving;
use faults::Fault;
use script::{Script, Setting};
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use striker::Striker;
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
    /// Clocks may also run faster and slower than leases assume. Then reads may be old; what must hold is
    /// what needs no clock: agreement, and that no acknowledged write is lost.
    pub beyond: bool,
    /// Keep the story for a failure.
    pub verbose: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { seed: 1, seconds: 60, faults: None, beyond: false, verbose: false }
    }
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
    /// How long it took, simulated nanoseconds.
    pub time: u64,
    /// Operations that returned.
    pub operations: usize,
    /// Operations whose outcome nobody learned.
    pub unknown: usize,
    /// How often each fault came up.
    pub faults: BTreeMap<Fault, u64>,
    /// Whom they struck.
    pub coverage: Coverage,
    /// How often a folder of another version was refused.
    pub refused: u64,
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
    /// What each fault did that came before.
    pub told: Vec<String>,
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
    run_script(&Script::of(options), options.verbose)
}

/// Runs a script.
///
/// # Errors
/// What must not be, with its story if it is `verbose`.
pub fn run_script(script: &Script, verbose: bool) -> Result<Report, Failure> {
    let mut run = Run::new(script, verbose);
    // A panic is a bug like any other: it belongs to its seed and has a story. Nothing goes on after it.
    let gone = catch_unwind(AssertUnwindSafe(|| run.go(script.duration)));
    match gone.unwrap_or_else(|panic| Err(format!("a panic: {}", message(panic.as_ref())))) {
        Ok(()) => Ok(run.report(script.seed)),
        Err(what) => {
            let story = format!("{}{}\n", run.world.trace, Checks::describe(&run.world, &run.cluster));
            Err(Failure { seed: script.seed, at: run.world.now, what, story, told: run.striker.told })
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
    striker: Striker,
    checks: Checks,
    look_at: u64,
    beyond: bool,
    /// Damaged pages that were repaired by processes that were started anew for the end.
    repaired_before: u64,
}

impl Run {
    fn new(script: &Script, verbose: bool) -> Self {
        let Setting { shape, weather, world, damaged, .. } = script.setting();
        let (world, cluster, shared) = cluster::build(world, &shape, weather, verbose);
        let striker = Striker::new(script, damaged, &world, &cluster);
        let beyond = script.goes_beyond();
        Self {
            world,
            cluster,
            shared,
            striker,
            checks: Checks::new(beyond),
            look_at: LOOK_EVERY,
            beyond,
            repaired_before: 0,
        }
    }

    fn go(&mut self, duration: u64) -> Result<(), String> {
        while self.world.now < duration {
            let strike_at = self.striker.next_at().unwrap_or(u64::MAX);
            if strike_at <= self.world.now {
                self.striker.strike(&mut self.world, &self.cluster);
            } else {
                self.advance(strike_at.min(duration))?;
            }
        }
        self.settle()?;
        if self.beyond {
            // Until leases that a slow clock has prolonged are over.
            self.pass(5 * SECOND)?;
        }
        let settled = self.world.now;
        self.read_everything()?;
        Checks::compare_replicas(&self.world, &self.cluster)?;
        let history = &self.shared.borrow().history;
        if self.beyond { history.without_reads_before(settled).check() } else { history.check() }
    }

    /// Goes on until `until`, or until it is time to look at everybody.
    fn advance(&mut self, until: u64) -> Result<(), String> {
        self.world.run_until(until.min(self.look_at));
        if self.world.now >= self.look_at {
            self.look_at = self.world.now + LOOK_EVERY;
            self.striker.put_right(&mut self.world, &self.cluster, false)?;
            self.checks.look(&self.world, &self.cluster)?;
        }
        match &self.shared.borrow().violation {
            Some(violation) => Err(violation.clone()),
            None => Ok(()),
        }
    }

    fn pass(&mut self, time: u64) -> Result<(), String> {
        let until = self.world.now + time;
        while self.world.now < until {
            self.advance(until)?;
        }
        Ok(())
    }

    /// Puts everything right, lets clients finish, and waits until the cluster is healthy.
    fn settle(&mut self) -> Result<(), String> {
        let repaired = self.repaired();
        self.striker.put_right(&mut self.world, &self.cluster, true)?;
        self.repaired_before = repaired - self.repaired();
        self.shared.borrow_mut().stop = true;
        let after_damage = self.striker.has_damaged();
        let deadline = self.world.now + HEALTHY_WITHIN;
        loop {
            self.pass(LOOK_EVERY)?;
            let quiet = self.shared.borrow().busy.is_empty();
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
            self.pass(LOOK_EVERY)?;
            if self.world.now > deadline {
                return Err("the last reads got no answer".to_owned());
            }
        }
        // What the last reads found is applied everywhere a moment later.
        self.pass(SECOND)
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
            time: self.world.now,
            faults: self.striker.counts.clone(),
            coverage: self.striker.coverage.clone(),
            refused: self.striker.refused,
            halts: self.world.halts.len(),
            repaired: self.repaired_before + self.repaired(),
            splits: self.splits(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_beyond_the_bound_let_two_leaders_serve_if_that_is_looked_for() {
        let fails = |seed| {
            let options = Options {
                seed,
                seconds: 60,
                faults: Some(vec![Fault::Partition, Fault::OneWay, Fault::Pause, Fault::Stall]),
                beyond: true,
                verbose: false,
            };
            let mut run = Run::new(&Script::of(&options), false);
            run.checks = Checks::new(false);
            run.go(options.seconds * SECOND).err()
        };
        let found = (1..600).find_map(fails).expect("leases are broken in one of the seeds");
        assert!(found.contains("both lead"), "{found}");
    }
}
