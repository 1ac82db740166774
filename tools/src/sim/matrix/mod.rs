//! The crash matrix of the storage engine: one real storage core on a simulated disk, beside a reference
//! model, with crashes at random effects.
//!
//! There is no network and no other replica here, so all that survives a crash is what the core's own log,
//! checkpoints and tree hold; and without the rest of a cluster a core does a great many operations in little
//! time. Segments are few, the cache is a fraction of the tree, checkpoints follow each other.
//!
//! A run is a row of *lives*. In each the core serves, then crashes between two effects: its process dies, or
//! the power fails and takes what was not durable. It recovers, perhaps crashing again meanwhile. Then every
//! key is read, and everything is scanned in both directions: each key must be what its last acknowledged
//! write made of it, or one that was under way; and nothing else may be there. The last lives are spent with
//! bits flipped, and writes lost and misplaced, in the tree's file: then answers are right, or errors that
//! say what is wrong.
//!
//! * [`engine`]: the core, its disk, its crashes. [`client`]: what it is asked, and what it must answer.
//!   [`model`]: what must be there.

pub mod client;
pub mod engine;
pub mod model;

use super::disk::{Access, FileKind};
use super::world::{MS, SECOND};
use super::{Failure, message};
use client::{Answered, Client, Place, Span};
use engine::{Crash, Engine};
use evenkeel_dataplane::tree::Tree;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind, seal};
use evenkeel_wire::ids::{Epoch, PartitionId, RequestId};
use evenkeel_wire::key::{KeySchema, KeyType};
use evenkeel_wire::message::catalog::CreateTable;
use evenkeel_wire::message::encode;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::Billing;
use evenkeel_wire::turn::DiskFault;
use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// How long a core may take until it serves, simulated: an election in which nobody else takes part.
const SERVES_WITHIN: u64 = 30 * SECOND;
/// How long everything that was asked may take to be answered.
const ANSWERS_WITHIN: u64 = 60 * SECOND;
/// How often a refused read is repeated, when nothing is wrong with the disk.
const PATIENCE: u32 = 1000;
/// Lives in which a disk operation fails.
const FAILING_LIVES: u64 = 6;
/// Splits that are ordered, at most.
const SPLITS_MAX: u64 = 30;
/// Lives that are spent with damage.
const DAMAGED_LIVES: u32 = 6;

/// What to run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Decides everything.
    pub seed: u64,
    /// Requests to be answered, those that read everything after a crash not counted.
    pub operations: u64,
}

/// A run that went well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Requests that were made.
    pub operations: u64,
    /// Reads that compared everything with the model.
    pub verified: u64,
    /// Deaths of the process.
    pub killed: u64,
    /// Failures of the power.
    pub power_failures: u64,
    /// Reads of a damaged tree that were refused.
    pub refused: u64,
    /// Partitions that came of splits.
    pub splits: u64,
    /// Simulated nanoseconds.
    pub time: u64,
}

impl Report {
    /// Adds what another seed did.
    pub fn add(&mut self, other: &Self) {
        self.operations += other.operations;
        self.verified += other.verified;
        self.killed += other.killed;
        self.power_failures += other.power_failures;
        self.refused += other.refused;
        self.splits += other.splits;
        self.time += other.time;
    }
}

/// Runs one seed.
///
/// # Errors
/// What must not be.
pub fn run(options: &Options) -> Result<Report, Failure> {
    let mut prng = Prng::new(options.seed);
    let mut engine = Engine::new(prng.fork());
    // A panic is a bug like any other.
    let gone = catch_unwind(AssertUnwindSafe(|| {
        engine.start(None);
        let place = create_table(&mut engine)?;
        let mut run = Run::new(&mut engine, prng, place, options);
        run.go(options.operations)?;
        run.report.time = run.engine.now;
        run.report.splits = run.engine.groups().count() as u64 - 1;
        Ok(run.report)
    }));
    let gone = gone.unwrap_or_else(|panic| Err(format!("a panic: {}", message(panic.as_ref()))));
    gone.map_err(|what| Failure {
        seed: options.seed,
        at: engine.now,
        what,
        story: String::new(),
        told: Vec::new(),
    })
}

/// Creates the table, through the catalogue.
fn create_table(engine: &mut Engine) -> Result<Place, String> {
    serves(engine, PartitionId::SYSTEM)?;
    let create = CreateTable {
        name: "matrix".to_owned(),
        schema: KeySchema::partition_only("k", KeyType::N),
        billing: Billing::OnDemand,
        partitions: 1,
    };
    let header = Header::new(Kind::CreateTable, RequestId(0)).to_partition(PartitionId::SYSTEM, Epoch(1));
    let mut bytes = Vec::new();
    seal(&mut bytes, header, |out| encode(&create, out));
    engine.ask(bytes);
    let deadline = engine.now + SERVES_WITHIN;
    while engine.groups().next().is_none() && engine.now < deadline {
        engine.advance(deadline)?;
    }
    let group = engine.groups().next().ok_or("the catalogue does not create the table's partition")?;
    let config = group.replica.config();
    let place = Place { table: config.table, partition: config.partition, epoch: config.epoch };
    serves(engine, place.partition)?;
    Ok(place)
}

/// Waits until the core serves a partition and all others that it has, or has crashed.
fn serves(engine: &mut Engine, partition: PartitionId) -> Result<(), String> {
    let deadline = engine.now + SERVES_WITHIN;
    while engine.is_alive() && !(engine.is_ready(partition) && engine.all_ready()) {
        if engine.now >= deadline {
            let seconds = SERVES_WITHIN / SECOND;
            return Err(format!(
                "{partition} does not serve {seconds} s after the start: {}",
                engine.describe()
            ));
        }
        engine.advance(deadline)?;
    }
    Ok(())
}

struct Run<'e> {
    engine: &'e mut Engine,
    prng: Prng,
    client: Client,
    partition: PartitionId,
    /// Requests under way, at most.
    depth: usize,
    /// Time between requests, at most.
    think: u64,
    /// Reads of a damaged tree may be refused.
    damaged: bool,
    /// Partitions are split; so many orders were given.
    splits: bool,
    ordered: u64,
    report: Report,
}

impl<'e> Run<'e> {
    fn new(engine: &'e mut Engine, mut prng: Prng, place: Place, options: &Options) -> Self {
        let keys = *prng.pick(&[300, 1000, 2000]);
        let model = model::Model::new(&mut prng, keys);
        Self {
            engine,
            client: Client::new(model, place),
            partition: place.partition,
            depth: *prng.pick(&[1, 8, 40]),
            think: *prng.pick(&[100_000, 400_000, MS]),
            splits: prng.chance(3, 4),
            ordered: 0,
            prng,
            damaged: false,
            report: Report { seed: options.seed, ..Report::default() },
        }
    }

    fn go(&mut self, operations: u64) -> Result<(), String> {
        while self.report.operations < operations {
            self.live(operations)?;
            self.restart()?;
            self.verify()?;
            self.count()?;
        }
        self.engine.may_halt = true;
        for _ in 0..FAILING_LIVES {
            self.fail_operation()?;
            self.restart()?;
            self.verify()?;
        }
        self.damaged = true;
        for _ in 0..DAMAGED_LIVES {
            self.damage()?;
            self.restart()?;
            self.verify()?;
        }
        Ok(())
    }

    /// Serves until the crash.
    fn live(&mut self, operations: u64) -> Result<(), String> {
        let kinds = [FileKind::Superblock, FileKind::Checkpoint, FileKind::Tree];
        let crash = if self.prng.chance(1, 2) {
            Crash { effects: self.prng.below(12), behind: Some(*self.prng.pick(&kinds)) }
        } else {
            Crash { effects: 0, behind: None }
        };
        // At first many effects, so that there is something to lose.
        let undisturbed = self.engine.effects_done + self.prng.below(6000);
        let at = Crash { effects: crash.effects + self.prng.below(500), ..crash };
        let mut planned = false;
        while self.engine.is_alive() && (self.report.operations < operations || planned) {
            if !planned && self.engine.effects_done >= undisturbed {
                planned = true;
                if self.prng.chance(1, 3) {
                    self.split();
                }
                self.engine.crash_at(Some(if crash.behind.is_some() { crash } else { at }));
            }
            self.work()?;
        }
        Ok(())
    }

    /// Asks for a little more, and goes on to the next turn.
    fn work(&mut self) -> Result<(), String> {
        self.engine.want_checkpoint();
        if self.client.under_way() < self.depth {
            let before = self.client.requests();
            self.client.ask_anything(self.engine);
            self.report.operations += self.client.requests() - before;
        }
        if self.prng.chance(1, 400) {
            self.split();
        }
        let think = self.engine.now + self.prng.below(self.think);
        while self.engine.is_alive() && self.engine.now < think {
            self.engine.advance(think)?;
            for answered in self.answers()? {
                match answered {
                    Answered::Rightly | Answered::Key(..) | Answered::Page(_) => {}
                    Answered::Refused(problem) if self.damaged || is_overload(&problem) => {}
                    Answered::Refused(problem) if self.splits && is_moving(&problem) => {}
                    Answered::Refused(problem) => return Err(format!("a request was refused: {problem}")),
                }
            }
        }
        Ok(())
    }

    /// Splits a partition at one of the model's keys, if the partition holds it and it is not its first.
    fn split(&mut self) {
        if !self.splits || self.ordered == SPLITS_MAX {
            return;
        }
        // Below the first key there is nothing, and a page of nothing is no progress of a scan.
        let border = self.prng.pick(&self.client.model.keys[1..]).bytes.clone();
        if let Some(parent) = self.engine.route(&border, false) {
            // An order that comes to nothing leaves its number unused, like a catalogue would.
            self.ordered += 1;
            let child = PartitionId(self.partition.0 + self.ordered);
            self.engine.split(parent, child, border);
        }
    }

    fn answers(&mut self) -> Result<Vec<Answered>, String> {
        let answers = std::mem::take(&mut self.engine.answers);
        answers.iter().map(|(header, body)| self.client.take(header, body)).collect()
    }

    /// The crash, and the recovery, during which it may crash again.
    fn restart(&mut self) -> Result<(), String> {
        loop {
            // What was sent before the crash arrives.
            self.answers()?;
            self.client.crashed();
            let power = self.prng.chance(1, 2);
            self.engine.die(power);
            if power {
                self.report.power_failures += 1;
            } else {
                self.report.killed += 1;
            }
            let again = self.prng.chance(1, 6);
            let crash = Crash { effects: self.prng.below(60), behind: None };
            self.engine.start(again.then_some(crash));
            serves(self.engine, self.partition)?;
            if self.engine.is_alive() {
                self.engine.crash_at(None);
                return Ok(());
            }
        }
    }

    /// Reads every key, and scans everything in both directions.
    fn verify(&mut self) -> Result<(), String> {
        let keys = self.client.model.keys.len();
        let mut left: VecDeque<usize> = (0..keys).collect();
        let deadline = self.engine.now + ANSWERS_WITHIN;
        let mut refused = 0;
        while !left.is_empty() || self.client.under_way() > 0 {
            while self.client.under_way() < 32
                && let Some(key) = left.pop_front()
            {
                self.report.verified += 1;
                self.client.get(self.engine, key);
            }
            self.wait(deadline)?;
            for answered in self.answers()? {
                match answered {
                    Answered::Rightly | Answered::Page(_) => {}
                    Answered::Key(key, content) => self.client.model.keys[key].may_be = vec![content],
                    Answered::Refused(_) if self.damaged => self.report.refused += 1,
                    Answered::Refused(problem) => {
                        refused += 1;
                        if refused > PATIENCE || !is_overload(&problem) {
                            return Err(format!("a key cannot be read: {problem}"));
                        }
                        left = (0..keys).collect();
                    }
                }
            }
        }
        for forward in [true, false] {
            self.scan(Span { low: 0, high: keys, forward })?;
        }
        Ok(())
    }

    fn scan(&mut self, mut span: Span) -> Result<(), String> {
        let deadline = self.engine.now + ANSWERS_WITHIN;
        loop {
            self.report.verified += 1;
            self.client.page(self.engine, span, 0);
            while self.client.under_way() > 0 && self.engine.answers.is_empty() {
                self.wait(deadline)?;
            }
            for answered in self.answers()? {
                match answered {
                    Answered::Rightly | Answered::Key(..) => {}
                    Answered::Page(None) => return Ok(()),
                    Answered::Page(Some(rest)) if rest == span => {
                        return Err(format!("a scan of {span:?} does not get on"));
                    }
                    Answered::Page(Some(rest)) => span = rest,
                    Answered::Refused(_) if self.damaged => {
                        self.report.refused += 1;
                        return Ok(());
                    }
                    Answered::Refused(problem) => return Err(format!("a scan was refused: {problem}")),
                }
            }
        }
    }

    fn wait(&mut self, deadline: u64) -> Result<(), String> {
        if self.engine.now >= deadline {
            let what = self.client.oldest();
            return Err(format!("no answer within {} s to {what:?}", ANSWERS_WITHIN / SECOND));
        }
        if !self.engine.is_alive() {
            return Err("the core died of what it read".to_owned());
        }
        self.engine.advance(deadline)
    }

    /// Now and then: once a checkpoint has taken everything over, the tree knows how many items there are.
    fn count(&mut self) -> Result<(), String> {
        if self.prng.chance(1, 2) {
            return Ok(());
        }
        self.engine.want_checkpoint();
        let deadline = self.engine.now + ANSWERS_WITHIN;
        let merged = |engine: &Engine| {
            engine.groups().all(|group| {
                let tree = &group.state().tree;
                tree.frozen().is_none() && tree.unwritten_bytes() == 0
            })
        };
        while !merged(self.engine) {
            self.wait(deadline)?;
        }
        let trees = || self.engine.groups().map(|group| &group.state().tree);
        let counted = trees().all(|tree| !tree.version().estimated && tree.keep().is_none());
        let items = counted.then(|| trees().map(Tree::items).sum::<u64>());
        let expected = self.client.model.items().filter(|_| counted);
        if items != expected {
            return Err(format!("the tree counts {items:?} items, and there are {expected:?}"));
        }
        Ok(())
    }

    /// A life in which a disk operation fails: the core stops itself, tries again, or has lost nothing by it.
    fn fail_operation(&mut self) -> Result<(), String> {
        let faults = [
            (FileKind::Segment, Access::Write, DiskFault::Os { errno: 5 }),
            (FileKind::Segment, Access::Write, DiskFault::Full),
            (FileKind::Segment, Access::Write, DiskFault::Short { got: 4096, expected: 8192 }),
            (FileKind::Tree, Access::Read, DiskFault::Os { errno: 5 }),
            (FileKind::Tree, Access::Write, DiskFault::Os { errno: 5 }),
            (FileKind::Tree, Access::Write, DiskFault::Full),
            (FileKind::Tree, Access::Flush, DiskFault::Os { errno: 5 }),
            (FileKind::Checkpoint, Access::Write, DiskFault::Os { errno: 5 }),
            (FileKind::Checkpoint, Access::Write, DiskFault::Full),
            (FileKind::Checkpoint, Access::Flush, DiskFault::Os { errno: 5 }),
            (FileKind::Superblock, Access::Write, DiskFault::Os { errno: 5 }),
        ];
        self.engine.disk.fail_next_on = Some(*self.prng.pick(&faults));
        self.engine.want_checkpoint();
        for _ in 0..100 + self.prng.below(300) {
            if self.engine.is_alive() {
                self.work()?;
            }
        }
        self.engine.disk.fail_next_on = None;
        Ok(())
    }

    /// A life with damage: writes of the tree are lost or misplaced, and in the end bits are flipped.
    fn damage(&mut self) -> Result<(), String> {
        match self.prng.below(3) {
            0 => self.engine.disk.lose_next_write_to_tree = true,
            1 => {
                let offset = self.prng.below(100) * 4096;
                self.engine.disk.misdirect_next_write_to_tree = Some(offset);
            }
            _ => {}
        }
        for _ in 0..self.prng.below(300) {
            if self.engine.is_alive() {
                self.work()?;
            }
        }
        for _ in 0..1 + self.prng.below(20) {
            self.engine.disk.flip_bit(&mut self.prng, FileKind::Tree);
        }
        Ok(())
    }
}

/// Whether a key is just moving to another partition, or that one has no leader yet.
fn is_moving(problem: &Problem) -> bool {
    matches!(problem.code, ErrorCode::WrongPartition | ErrorCode::NotLeader | ErrorCode::LeaderNotReady)
}

fn is_overload(problem: &Problem) -> bool {
    problem.code == ErrorCode::Overloaded
}
