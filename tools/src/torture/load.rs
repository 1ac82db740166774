//! Clients of a cluster under torture: threads that write and read, and write down what they saw.
//!
//! Each client stays in one partition, so that a partition without a leader holds up its own clients only.
//! Two things are kept in the table `t`: *registers* (sort key 0), on which all operations are done and whose
//! histories are checked; and *rows* (sort key from 1), each put once, which must all be there at the end.

use super::stand::pause;
use super::{Report, TortureError};
use crate::linearizability::Call;
use crate::sim::history::{Operation, Seen};
use evenkeel_client::{Client, ClientBuilder, Error, Invalid, Item, KeyType, Value, WriteOutput};
use evenkeel_wire::ids::{PartitionId, TableId};
use evenkeel_wire::prng::Prng;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TABLE: &str = "t";
/// Keys that are tried for each register that is needed, until every partition has its share.
const KEYS_TRIED: usize = 10;
/// How long clients stay with the same registers. What nobody learned the fate of may take effect at any time
/// after, so a register's history is harder to judge the more of that there is in it.
const REGISTERS_USED_FOR: Duration = Duration::from_secs(30);

/// What clients do.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// How many there are.
    pub clients: usize,
    /// Partitions of the table.
    pub partitions: u32,
    /// Registers of each that are in use at a time.
    pub registers: usize,
    /// How often clients go on to others.
    pub generations: usize,
    /// Pause of a client between two operations.
    pub think: Duration,
    /// How long an operation is tried.
    pub deadline: Duration,
    /// Decides what they do.
    pub seed: u64,
}

/// How an operation ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was answered, be it that its condition does not hold.
    Answered,
    /// It had no effect.
    Refused(String),
    /// Nobody knows.
    Unknown(String),
}

/// An operation that ended.
#[derive(Clone, Debug)]
pub struct Done {
    /// The partition, by its place among the partitions of the table.
    pub partition: usize,
    /// When it was called, nanoseconds since the load began.
    pub called: u64,
    /// When it ended.
    pub ended: u64,
    /// Whether it is a write.
    pub is_write: bool,
    /// How.
    pub outcome: Outcome,
}

/// What all clients did and saw.
#[derive(Debug, Default)]
pub struct Seens {
    /// By register; the place is the register's number.
    pub registers: Vec<Vec<Call<Operation>>>,
    /// Rows that were put.
    pub rows: BTreeSet<(String, u64)>,
    /// Rows that may have been put.
    pub rows_unknown: BTreeSet<(String, u64)>,
    /// Everything that ended, in that order.
    pub done: Vec<Done>,
}

#[derive(Debug)]
struct Shared {
    begun: Instant,
    stop: AtomicBool,
    seens: Mutex<Seens>,
    /// When each partition last took a write.
    last_write: Vec<AtomicU64>,
}

/// Clients that are at work.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    registers: Arc<Vec<Register>>,
    /// Ids of the partitions, by place.
    pub partitions: Vec<u64>,
    threads: Vec<JoinHandle<()>>,
}

/// A register as storage cores know it.
#[derive(Clone, Debug)]
pub struct Question {
    /// The register's number.
    pub place: usize,
    /// Where it is.
    pub partition: PartitionId,
    /// Its table.
    pub table: TableId,
    /// Its storage key.
    pub key: Vec<u8>,
}

#[derive(Clone, Debug)]
struct Register {
    name: String,
    partition: usize,
}

impl Shared {
    #[allow(clippy::disallowed_methods, reason = "clients of real processes live in real time")]
    fn now(&self) -> u64 {
        Instant::now().duration_since(self.begun).as_nanos() as u64
    }

    /// Reads a register, strongly, and notes what was seen.
    fn read(&self, client: &Client, place: usize, name: &str) -> Result<(), Error> {
        let called = self.now();
        let seen = seen(client.get(TABLE, key(name, 0)).send()?.item.as_ref());
        let call = Call { called, returned: Some(self.now()), operation: Operation::Get { seen } };
        self.seens().registers[place].push(call);
        Ok(())
    }

    fn seens(&self) -> std::sync::MutexGuard<'_, Seens> {
        self.seens.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

pub(super) fn client(endpoints: &[String], first: usize, deadline: Duration) -> Result<Client, Error> {
    let order = (0..endpoints.len()).map(|place| &endpoints[(first + place) % endpoints.len()]);
    order.fold(Client::builder(), ClientBuilder::endpoint).deadline(deadline).connect()
}

fn key(register: &str, row: u64) -> Item {
    Item::new().with("pk", register).with("sk", row)
}

impl Plan {
    /// The plan of a run that takes `time`: no register is used for long.
    #[must_use]
    pub fn lasting(self, time: Duration) -> Self {
        let generations = time.as_nanos().div_ceil(REGISTERS_USED_FOR.as_nanos()).max(1) as usize;
        Self { generations, ..self }
    }
}

impl Load {
    /// Creates the table, finds registers in each partition, and lets the clients begin.
    ///
    /// # Errors
    /// When the cluster, which must be well, does not answer.
    #[allow(clippy::disallowed_methods, reason = "clients of real processes are threads in real time")]
    pub fn begin(endpoints: &[String], plan: Plan) -> Result<Self, TortureError> {
        let first = client(endpoints, 0, Duration::from_secs(15))?;
        let create = first.create_table(TABLE).partition_key("pk", KeyType::S).sort_key("sk", KeyType::N);
        create.partitions(plan.partitions).wait_until_active().send()?;
        let (partitions, registers) = find_registers(&first, plan)?;
        let seens = Seens { registers: vec![Vec::new(); registers.len()], ..Seens::default() };
        let shared = Arc::new(Shared {
            begun: Instant::now(),
            stop: AtomicBool::new(false),
            seens: Mutex::new(seens),
            last_write: partitions.iter().map(|_| AtomicU64::new(0)).collect(),
        });
        let registers = Arc::new(registers);
        let mut prng = Prng::new(plan.seed);
        let mut threads = Vec::new();
        for number in 0..plan.clients {
            let partition = number % partitions.len();
            let own = (0..registers.len()).filter(|place| registers[*place].partition == partition);
            let worker = Worker {
                // Every partition has clients of every router.
                client: client(endpoints, number / partitions.len(), plan.deadline)?,
                number: number as u64,
                own: own.collect(),
                at_a_time: plan.registers,
                partition,
                shared: Arc::clone(&shared),
                registers: Arc::clone(&registers),
                prng: prng.fork(),
                sequence: 0,
                known: vec![None; registers.len()],
                think: plan.think,
            };
            threads.push(std::thread::spawn(move || worker.run()));
        }
        Ok(Self { shared, registers, partitions, threads })
    }

    /// Now, as clients note it.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.shared.now()
    }

    /// Whether each partition took a write after `time`.
    #[must_use]
    pub fn all_wrote_after(&self, time: u64) -> bool {
        self.shared.last_write.iter().all(|last| last.load(Ordering::Relaxed) > time)
    }

    /// Looks at what has ended.
    pub fn look<T>(&self, look: impl FnOnce(&[Done]) -> T) -> T {
        look(&self.shared.seens().done)
    }

    /// Lets the clients finish what they do.
    pub fn end(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let panicked = thread.join().is_err();
            assert!(!panicked, "a client's thread panicked, which is a bug of the harness");
        }
    }

    /// Hands over what was noted.
    pub fn take_into(&self, report: &mut Report) {
        let seens = std::mem::take(&mut *self.shared.seens());
        (report.registers, report.done, report.rows) = (seens.registers, seens.done, seens.rows.len());
        report.partitions.clone_from(&self.partitions);
    }

    /// Reads every register once more, which is its history's end, and every row. Returns what is missing,
    /// and what was never written.
    ///
    /// # Errors
    /// When something cannot be read.
    pub fn last_words(&self, endpoints: &[String]) -> Result<Vec<String>, TortureError> {
        let client = client(endpoints, 0, Duration::from_secs(15))?;
        for place in 0..self.registers.len() {
            self.shared.read(&client, place, &self.registers[place].name)?;
        }
        let (mut complaints, mut found) = (Vec::new(), BTreeSet::new());
        for item in client.scan(TABLE).items() {
            let item = item?;
            let (Some(Value::S(register)), Some(row)) = (item.get("pk"), number(&item, "sk")) else {
                complaints.push(format!("an item without its key: {item:?}"));
                continue;
            };
            if row > 0 {
                found.insert((register.clone(), row));
            }
        }
        let seens = self.shared.seens();
        let lost: Vec<_> = seens.rows.difference(&found).collect();
        if let Some(first) = lost.first() {
            complaints.push(format!("{} rows were acknowledged and are lost, as {first:?}", lost.len()));
        }
        let known = |row: &&(String, u64)| seens.rows.contains(*row) || seens.rows_unknown.contains(*row);
        if let Some(row) = found.iter().find(|row| !known(row)) {
            complaints.push(format!("a row is there that was refused or never written: {row:?}"));
        }
        Ok(complaints)
    }

    /// The registers of these partitions, and how a storage core is asked for each.
    ///
    /// # Errors
    /// When the table cannot be described.
    pub fn questions(
        &self,
        endpoints: &[String],
        partitions: &[usize],
    ) -> Result<Vec<Question>, TortureError> {
        let table = client(endpoints, 0, Duration::from_secs(15))?.describe_table(TABLE).send()?;
        let places = (0..self.registers.len()).map(|place| (place, &self.registers[place]));
        let concerned = places.filter(|(_, register)| partitions.contains(&register.partition));
        let question = |(place, register): (usize, &Register)| {
            let wanted = key(&register.name, 0);
            let key = table.schema.storage_key_of_key(&table.hash_key, &wanted);
            let key = key.map_err(|error| Error::from(Invalid::from(error)))?;
            let partition = PartitionId(self.partitions[register.partition]);
            Ok(Question { place, partition, table: table.id, key: key.as_bytes().to_vec() })
        };
        concerned.map(question).collect()
    }

    /// Notes what somebody else has read from a register.
    pub fn note_read(&self, place: usize, called: u64, item: Option<&Item>) {
        let operation = Operation::Get { seen: seen(item) };
        let call = Call { called, returned: Some(self.now()), operation };
        self.shared.seens().registers[place].push(call);
    }

    /// How many of these registers were overwritten between two times.
    #[must_use]
    pub fn overwritten(&self, places: &[usize], from: u64, to: u64) -> usize {
        let seens = self.shared.seens();
        let is_overwritten = |place: &&usize| {
            seens.registers[**place].iter().any(|call| {
                let within = call.called >= from && call.returned.is_some_and(|at| at < to);
                within && matches!(call.operation, Operation::Put { .. })
            })
        };
        places.iter().filter(is_overwritten).count()
    }

    /// Reads every register through one router, and waits for each answer as long as `patience`, in threads
    /// that are waited for at the end of the load.
    ///
    /// # Errors
    /// When the router cannot be reached.
    #[allow(clippy::disallowed_methods, reason = "clients of real processes are threads")]
    pub fn read_patiently(&mut self, endpoint: &str, patience: Duration) -> Result<(), TortureError> {
        let builder = Client::builder().endpoint(endpoint).deadline(patience).attempt_deadline(patience);
        let client = builder.connect()?;
        for place in 0..self.registers.len() {
            let (client, shared) = (client.clone(), Arc::clone(&self.shared));
            let name = self.registers[place].name.clone();
            // Nothing is learned from a read that fails.
            self.threads.push(std::thread::spawn(move || drop(shared.read(&client, place, &name))));
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// Tries keys until each partition has its registers. What that wrote is deleted again.
fn find_registers(client: &Client, plan: Plan) -> Result<(Vec<u64>, Vec<Register>), TortureError> {
    let (mut ids, mut found) = (BTreeSet::new(), Vec::new());
    let (each, all) = (plan.registers * plan.generations, plan.partitions as usize);
    for number in 0..KEYS_TRIED * each * all {
        let name = format!("r{number}");
        let partition = client.delete(TABLE, key(&name, 0)).send()?.position.partition.0;
        ids.insert(partition);
        if found.iter().filter(|(of, _)| *of == partition).count() < each {
            found.push((partition, name));
        }
        if found.len() == each * all {
            break;
        }
    }
    if ids.len() != all || found.len() != each * all {
        return Err(TortureError::Wrong(format!("keys fall into {} partitions only", ids.len())));
    }
    let ids: Vec<u64> = ids.into_iter().collect();
    let place = |partition: u64| ids.iter().position(|id| *id == partition).unwrap_or_default();
    let registers = found.iter().map(|(id, name)| Register { name: name.clone(), partition: place(*id) });
    let registers = registers.collect();
    Ok((ids, registers))
}

fn number(item: &Item, name: &str) -> Option<u64> {
    match item.get(name) {
        Some(Value::N(number)) => number.to_u64(),
        Some(_) | None => None,
    }
}

fn seen(item: Option<&Item>) -> Option<Seen> {
    item.map(|item| {
        let count = number(item, "n").unwrap_or_default() as i64;
        Seen { value: number(item, "v").unwrap_or_default(), count }
    })
}

struct Worker {
    client: Client,
    number: u64,
    /// Registers of its partition, generation by generation.
    own: Vec<usize>,
    at_a_time: usize,
    partition: usize,
    shared: Arc<Shared>,
    registers: Arc<Vec<Register>>,
    prng: Prng,
    sequence: u64,
    /// The value last seen in each register, for conditions.
    known: Vec<Option<u64>>,
    think: Duration,
}

impl Worker {
    fn run(mut self) {
        while !self.shared.stop.load(Ordering::Relaxed) {
            self.sequence += 1;
            if self.prng.chance(1, 10) {
                self.put_row();
            } else {
                self.operate();
            }
            if !self.think.is_zero() {
                let half = self.think / 2;
                let more = self.prng.below(self.think.as_nanos() as u64 + 1);
                pause(half + Duration::from_nanos(more));
            }
        }
    }

    /// A number that nobody else has.
    fn unique(&self) -> u64 {
        (self.number + 1) << 32 | self.sequence
    }

    /// One of the registers that are in use.
    fn pick(&mut self) -> usize {
        let generations = self.own.len() / self.at_a_time;
        let generation = (self.shared.now() / REGISTERS_USED_FOR.as_nanos() as u64) as usize % generations;
        let first = generation * self.at_a_time;
        *self.prng.pick(&self.own[first..first + self.at_a_time])
    }

    fn put_row(&mut self) {
        let place = self.pick();
        let register = self.registers[place].name.clone();
        let row = self.unique();
        let called = self.shared.now();
        let outcome = outcome(&self.client.put(TABLE, key(&register, row).with("v", row)).send());
        let time = (called, self.shared.now());
        let mut seens = self.shared.seens();
        match outcome {
            Outcome::Answered => seens.rows.insert((register, row)),
            Outcome::Unknown(_) => seens.rows_unknown.insert((register, row)),
            Outcome::Refused(_) => false,
        };
        self.note(&mut seens, time, true, outcome);
    }

    fn note(&self, seens: &mut Seens, time: (u64, u64), is_write: bool, outcome: Outcome) {
        let (called, ended) = time;
        if is_write && outcome == Outcome::Answered {
            self.shared.last_write[self.partition].store(ended, Ordering::Relaxed);
        }
        seens.done.push(Done { partition: self.partition, called, ended, is_write, outcome });
    }

    fn operate(&mut self) {
        let place = self.pick();
        let (name, value) = (self.registers[place].name.clone(), self.unique());
        let called = self.shared.now();
        let item = || key(&name, 0).with("v", value).with("n", 0);
        let (operation, outcome) = match self.prng.below(100) {
            0..40 => {
                let got = self.client.get(TABLE, key(&name, 0)).send();
                let seen = got.as_ref().ok().and_then(|got| seen(got.item.as_ref()));
                self.known[place] = seen.map(|seen| seen.value);
                (Operation::Get { seen }, outcome(&got))
            }
            40..65 => {
                self.known[place] = Some(value);
                (Operation::Put { value }, outcome(&self.client.put(TABLE, item()).send()))
            }
            65..80 => {
                let expected = self.known[place].filter(|value| *value > 0);
                let put = self.client.put(TABLE, item());
                let put = match expected {
                    Some(expected) => put.condition("v = :v").value(":v", expected),
                    None => put.condition("attribute_not_exists(pk)"),
                };
                let answer = put.send();
                let held = match &answer {
                    Ok(_) => Some(true),
                    Err(error) if error.is_condition_failed() => Some(false),
                    Err(_) => None,
                };
                self.known[place] = (held == Some(true)).then_some(value);
                let outcome = if held == Some(false) { Outcome::Answered } else { outcome(&answer) };
                (Operation::PutIf { expected, value, held }, outcome)
            }
            80..85 => {
                self.known[place] = None;
                (Operation::Delete, outcome(&self.client.delete(TABLE, key(&name, 0)).send()))
            }
            _ => {
                let update = self.client.update(TABLE, key(&name, 0)).expression("ADD n :one");
                let answer = update.value(":one", 1).return_new().send();
                (Operation::Count { count: count(&answer) }, outcome(&answer))
            }
        };
        let is_write = !matches!(operation, Operation::Get { .. });
        let ended = self.shared.now();
        let returned = (outcome == Outcome::Answered).then_some(ended);
        let mut seens = self.shared.seens();
        // What is said to have had no effect is left out: if it had one, somebody sees it.
        let is_read_in_vain = !is_write && returned.is_none();
        if !is_read_in_vain && !matches!(outcome, Outcome::Refused(_)) {
            seens.registers[place].push(Call { called, returned, operation });
        }
        self.note(&mut seens, (called, ended), is_write, outcome);
    }
}

fn count(answer: &Result<WriteOutput, Error>) -> Option<i64> {
    let item = answer.as_ref().ok()?.item.as_ref()?;
    number(item, "n").map(|count| count as i64)
}

fn outcome<T>(answer: &Result<T, Error>) -> Outcome {
    match answer {
        Ok(_) => Outcome::Answered,
        Err(error) if error.may_have_executed() => Outcome::Unknown(error.to_string()),
        Err(error) => Outcome::Refused(error.to_string()),
    }
}
