//! A simulated client: a machine that runs a random workload on a few keys and writes down what it saw.
//!
//! It does what a well-behaved client does: one operation at a time, a token for each write, and the same
//! token and bytes again when the outcome is unknown.

use super::history::{CallId, History, Operation, Seen};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::expression::{Bindings, Condition, Update as UpdateTree, encode_condition, encode_update};
use evenkeel_wire::frame::{Header, Kind, seal};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::item::{Item, Number, Value, access as access_item, encode as encode_item};
use evenkeel_wire::key::{KeySchema, KeyType};
use evenkeel_wire::message::catalog::{CreateTable, DescribeTable, TableAnswer};
use evenkeel_wire::message::request::{
    Delete, Get, GetAnswer, PageAnswer, Put, Range, ReturnItem, Scan, Token, Update, WriteAnswer,
};
use evenkeel_wire::message::{Body, Encode, access, encode, to_owned};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{Billing, TableDescriptor, TableStatus};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Input, Machine, Now};
use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

const TABLE: &str = "simulated";
const ANSWER_WITHIN: Duration = Duration::from_millis(2500);

/// What the run tells its clients, and what they write down.
#[derive(Debug)]
pub struct Shared {
    /// What was done and seen.
    pub history: History,
    /// Begin nothing new.
    pub stop: bool,
    /// Read every key once, strongly: the last word.
    pub read_everything: bool,
    /// Set by the reader when it has.
    pub everything_read: bool,
    /// Something that must never happen.
    pub violation: Option<String>,
    /// Clients with an operation under way. One that died has none when it lives again.
    pub busy: BTreeSet<usize>,
}

/// What clients do: part of what a run's seed decides.
#[derive(Clone, Copy, Debug)]
pub struct Workload {
    /// Keys that they share.
    pub keys: usize,
    /// How long a client thinks between operations, at most.
    pub think: Duration,
    /// How often it does what, one against the other: put, put on a condition, delete, count, read strongly,
    /// read eventually, scan.
    pub weights: [u64; 7],
    /// Half of all that is done is done to the first key.
    pub hot: bool,
    /// Partitions of the table, when it is created.
    pub partitions: u32,
}

impl Workload {
    /// The workload that a seed gives. Some things are not done at all by it.
    #[must_use]
    pub fn of(prng: &mut Prng) -> Self {
        let mut weights = [6, 2, 1, 4, 5, 1, 1];
        if prng.chance(1, 2) {
            weights.iter_mut().for_each(|weight| *weight *= u64::from(prng.chance(3, 4)));
        }
        let [puts, .., reads, _, _] = &mut weights;
        (*puts, *reads) = ((*puts).max(1), (*reads).max(2));
        Self {
            keys: 2 + prng.below(6) as usize,
            think: Duration::from_millis(*prng.pick(&[10, 40, 120])),
            weights,
            hot: prng.chance(1, 4),
            partitions: 1 + prng.below(3) as u32,
        }
    }

    fn key(&self, prng: &mut Prng) -> usize {
        if self.hot && prng.chance(1, 2) { 0 } else { prng.below(self.keys as u64) as usize }
    }

    /// Which of the things that clients do is next, by its place among the weights.
    fn next(&self, prng: &mut Prng) -> usize {
        let mut point = prng.below(self.weights.iter().sum());
        let is_it = |weight: &u64| match point.checked_sub(*weight) {
            Some(left) => {
                point = left;
                false
            }
            None => true,
        };
        self.weights.iter().position(is_it).expect("the point is below their sum")
    }
}

/// One client.
#[derive(Debug)]
pub struct SimClient {
    number: usize,
    /// How often it was started: what it names must not be named again by the next life.
    life: u32,
    routers: Vec<SocketAddr>,
    workload: Workload,
    shared: Rc<RefCell<Shared>>,
    prng: Prng,
    table: Option<TableDescriptor>,
    sequence: u64,
    request: u64,
    values: u64,
    /// The value last seen under each key, for conditions.
    seen: Vec<Option<u64>>,
    current: Option<Attempt>,
    last_read: usize,
    wake: Boot,
}

/// An operation under way.
#[derive(Debug)]
struct Attempt {
    what: What,
    kind: Kind,
    body: Vec<u8>,
    request: RequestId,
    give_up: Boot,
}

#[derive(Debug)]
enum What {
    Create,
    Describe,
    /// Recorded in the history.
    On {
        key: usize,
        call: CallId,
        operation: Operation,
    },
    /// An eventual read: it may be old, but never of something that nobody wrote.
    Eventual {
        key: usize,
    },
    /// A page of a scan: only its form is looked at.
    Scan,
}

impl SimClient {
    /// A client. The first one creates the table.
    #[must_use]
    pub fn new(
        number: usize,
        life: u32,
        routers: Vec<SocketAddr>,
        workload: Workload,
        shared: Rc<RefCell<Shared>>,
        prng: Prng,
    ) -> Self {
        shared.borrow_mut().busy.remove(&number);
        Self {
            number,
            life,
            routers,
            workload,
            shared,
            prng,
            table: None,
            sequence: 0,
            request: 0,
            values: 0,
            seen: vec![None; workload.keys],
            current: None,
            last_read: 0,
            wake: Boot(0),
        }
    }

    /// The key attributes of the item of that number.
    #[must_use]
    pub fn key_item(key: usize) -> Item {
        Item::new().with("pk", format!("key-{key}"))
    }

    fn storage_key(&self, key: usize) -> Vec<u8> {
        let table = self.table.as_ref().expect("operations begin once the table is known");
        let key = table.schema.storage_key(&table.hash_key, &Self::key_item(key));
        key.expect("the workload's keys are keys").0
    }

    fn begin_next(&mut self, now: Now, out: &mut Effects) {
        let Some(table) = self.table.as_ref().map(|table| table.id) else {
            let create = self.number == 0 && self.request == 0;
            return if create { self.create_table(now, out) } else { self.describe_table(now, out) };
        };
        let (stop, read_everything) = {
            let shared = self.shared.borrow();
            (shared.stop, shared.read_everything && self.number == 0)
        };
        if read_everything {
            return self.read_next(now, out);
        }
        if stop {
            return;
        }
        let key = self.workload.key(&mut self.prng);
        let eventual = Get { table, key: Cow::Owned(self.storage_key(key)), strong: false };
        match self.workload.next(&mut self.prng) {
            0 => self.put(now, key, out),
            1 => self.put_if(now, key, out),
            2 => self.delete(now, key, out),
            3 => self.count(now, key, out),
            4 => self.read(now, key, out),
            5 => self.send(now, What::Eventual { key }, &eventual, out),
            _ => self.scan(now, out),
        }
    }

    fn create_table(&mut self, now: Now, out: &mut Effects) {
        let schema = KeySchema::partition_only("pk", KeyType::S);
        let create = CreateTable {
            name: TABLE.to_owned(),
            schema,
            billing: Billing::OnDemand,
            partitions: self.workload.partitions,
        };
        self.send(now, What::Create, &create, out);
    }

    fn describe_table(&mut self, now: Now, out: &mut Effects) {
        self.send(now, What::Describe, &DescribeTable { name: TABLE.to_owned() }, out);
    }

    fn token(&mut self, now: Now) -> Token {
        self.sequence += 1;
        let sequence = self.sequence;
        let mut client = [0; 16];
        client[0] = self.number as u8 + 1;
        client[1..5].copy_from_slice(&self.life.to_le_bytes());
        Token { client, sequence, issued_ms: now.wall_ms, acknowledged_below: sequence }
    }

    fn new_value(&mut self) -> u64 {
        self.values += 1;
        (self.number as u64 + 1) << 48 | u64::from(self.life) << 28 | self.values
    }

    fn record(&self, now: Now, key: usize, operation: Operation) -> What {
        let mut shared = self.shared.borrow_mut();
        let call = shared.history.call(key, now.boot.0, operation.clone());
        shared.busy.insert(self.number);
        What::On { key, call, operation }
    }

    fn send_put(
        &mut self,
        now: Now,
        key: usize,
        operation: Operation,
        value: u64,
        condition: &[u8],
        out: &mut Effects,
    ) {
        let item = Self::key_item(key).with("v", value).with("n", 0);
        let archive = encode_item(&item).expect("the workload's items are items");
        let put = Put {
            table: self.table.as_ref().expect("it is known").id,
            token: self.token(now),
            key: Cow::Owned(self.storage_key(key)),
            item_checksum: crc32c(&archive),
            item: Cow::Owned(archive),
            condition: Cow::Borrowed(condition),
            return_item: ReturnItem::None,
        };
        let what = self.record(now, key, operation);
        self.send(now, what, &put, out);
    }

    fn put(&mut self, now: Now, key: usize, out: &mut Effects) {
        let value = self.new_value();
        self.send_put(now, key, Operation::Put { value }, value, b"", out);
    }

    fn put_if(&mut self, now: Now, key: usize, out: &mut Effects) {
        let (value, expected) = (self.new_value(), self.seen[key]);
        let (text, mut bindings) = match expected {
            // An item that counting created has no value.
            Some(0) => ("attribute_exists(pk) AND attribute_not_exists(v)", Bindings::new()),
            Some(value) => ("v = :v", Bindings::new().with_value(":v", value)),
            None => ("attribute_not_exists(pk)", Bindings::new()),
        };
        let condition = Condition::parse(text, &mut bindings).expect("the workload's conditions parse");
        let condition = encode_condition(&condition).expect("and can be encoded");
        let operation = Operation::PutIf { expected, value, held: None };
        self.send_put(now, key, operation, value, &condition, out);
    }

    fn delete(&mut self, now: Now, key: usize, out: &mut Effects) {
        let delete = Delete {
            table: self.table.as_ref().expect("it is known").id,
            token: self.token(now),
            key: Cow::Owned(self.storage_key(key)),
            condition: Cow::Borrowed(b""),
            return_item: ReturnItem::None,
        };
        let what = self.record(now, key, Operation::Delete);
        self.send(now, what, &delete, out);
    }

    fn count(&mut self, now: Now, key: usize, out: &mut Effects) {
        let mut bindings = Bindings::new().with_value(":one", 1);
        let update = UpdateTree::parse("ADD n :one", &mut bindings).expect("the workload's updates parse");
        let update = Update {
            table: self.table.as_ref().expect("it is known").id,
            token: self.token(now),
            key: Cow::Owned(self.storage_key(key)),
            key_item: Cow::Owned(encode_item(&Self::key_item(key)).expect("a key is an item")),
            update: Cow::Owned(encode_update(&update).expect("and can be encoded")),
            condition: Cow::Borrowed(b""),
            return_item: ReturnItem::New,
        };
        let what = self.record(now, key, Operation::Count { count: None });
        self.send(now, what, &update, out);
    }

    fn read(&mut self, now: Now, key: usize, out: &mut Effects) {
        let table = self.table.as_ref().expect("it is known").id;
        let get = Get { table, key: Cow::Owned(self.storage_key(key)), strong: true };
        let what = self.record(now, key, Operation::Get { seen: None });
        self.send(now, what, &get, out);
    }

    fn read_next(&mut self, now: Now, out: &mut Effects) {
        if self.last_read == self.workload.keys {
            self.shared.borrow_mut().everything_read = true;
            return;
        }
        self.last_read += 1;
        self.read(now, self.last_read - 1, out);
    }

    fn scan(&mut self, now: Now, out: &mut Effects) {
        let scan = Scan(Range {
            table: self.table.as_ref().expect("it is known").id,
            lower: Cow::Borrowed(b""),
            upper: Cow::Borrowed(b""),
            forward: self.prng.chance(1, 2),
            limit: self.prng.below(4) as u32,
            filter: Cow::Borrowed(b""),
            strong: self.prng.chance(1, 2),
        });
        self.send(now, What::Scan, &scan, out);
    }

    fn send<T: Body + for<'a> Encode<'a>>(&mut self, now: Now, what: What, body: &T, out: &mut Effects) {
        let mut bytes = Vec::new();
        encode(body, &mut bytes);
        self.current =
            Some(Attempt { what, kind: T::KIND, body: bytes, request: RequestId(0), give_up: Boot(0) });
        self.send_again(now, out);
    }

    /// Sends the current operation, for the first time or once more: the same bytes, to any router.
    fn send_again(&mut self, now: Now, out: &mut Effects) {
        let Some(attempt) = &mut self.current else {
            return;
        };
        self.request += 1;
        attempt.request = RequestId(self.request);
        attempt.give_up = now.boot.after(ANSWER_WITHIN);
        self.wake = attempt.give_up;
        let router = *self.prng.pick(&self.routers);
        let deadline_us = 2_000_000;
        let header = Header { deadline_us, ..Header::new(attempt.kind, attempt.request) };
        seal(out.outbox(Endpoint::Outgoing(router)), header, |out| out.extend_from_slice(&attempt.body));
    }

    fn pause(&mut self, now: Now, at_most: Duration) {
        let pause = Duration::from_nanos(self.prng.below(at_most.as_nanos() as u64 + 1));
        self.wake = now.boot.after(pause);
    }

    fn on_frame(&mut self, now: Now, header: Header, body: &[u8]) {
        let expected = self.current.as_ref().is_some_and(|attempt| attempt.request == header.request);
        if !expected {
            return;
        }
        if header.kind == Kind::Error {
            let Ok(error) = access::<ErrorAnswer>(body) else {
                return;
            };
            return self.on_problem(now, &Problem::from(error));
        }
        let attempt = self.current.take().expect("it was just seen");
        self.pause(now, self.workload.think);
        match attempt.what {
            What::Create | What::Describe => {
                if let Ok(answer) = access::<TableAnswer>(body) {
                    let table = to_owned::<TableAnswer>(answer).table;
                    self.table = (table.status == TableStatus::Active).then_some(table);
                }
            }
            What::On { key, call, operation } => {
                let observed = self.observe(key, operation, body);
                self.finish(call, Some((now, observed)));
            }
            What::Eventual { key } => self.check_eventual(key, body),
            What::Scan => {
                if access::<PageAnswer<'static>>(body).is_err() {
                    self.violate("a page is malformed".to_owned());
                }
            }
        }
    }

    fn finish(&mut self, call: CallId, returned: Option<(Now, Operation)>) {
        let mut shared = self.shared.borrow_mut();
        shared.busy.remove(&self.number);
        if let Some((now, observed)) = returned {
            shared.history.returned(call, now.boot.0, observed);
        }
    }

    fn violate(&self, what: String) {
        let mut shared = self.shared.borrow_mut();
        shared.violation.get_or_insert(format!("client {}: {what}", self.number));
    }

    fn observe(&mut self, key: usize, operation: Operation, body: &[u8]) -> Operation {
        match operation {
            Operation::Get { .. } => {
                let seen = access::<GetAnswer<'static>>(body).ok().and_then(|answer| {
                    answer.item.as_ref().map(|row| read_item(&row.item, row.checksum.into()))
                });
                self.seen[key] = seen.map(|seen| seen.value);
                Operation::Get { seen }
            }
            Operation::Count { .. } => {
                let answer = access::<WriteAnswer<'static>>(body).ok();
                let count = answer.and_then(|answer| {
                    answer.item.as_ref().map(|row| read_item(&row.item, row.checksum.into()).count)
                });
                Operation::Count { count }
            }
            Operation::Put { value } => {
                self.seen[key] = Some(value);
                operation
            }
            Operation::PutIf { expected, value, .. } => {
                self.seen[key] = Some(value);
                Operation::PutIf { expected, value, held: Some(true) }
            }
            Operation::Delete => {
                self.seen[key] = None;
                operation
            }
        }
    }

    fn check_eventual(&self, key: usize, body: &[u8]) {
        let Ok(answer) = access::<GetAnswer<'static>>(body) else {
            return self.violate("a read is malformed".to_owned());
        };
        if let Some(row) = answer.item.as_ref() {
            let seen = read_item(&row.item, row.checksum.into());
            if !self.shared.borrow().history.was_written(key, seen.value) {
                self.violate(format!("key {key} was read with {}, which nobody wrote", seen.value));
            }
        }
    }

    fn on_problem(&mut self, now: Now, problem: &Problem) {
        if problem.code.is_retryable() || problem.code == ErrorCode::TableNotFound {
            return self.pause(now, Duration::from_millis(200));
        }
        let attempt = self.current.take().expect("a problem answers something");
        self.pause(now, self.workload.think);
        match (attempt.what, problem.code) {
            (
                What::On { key, call, operation: Operation::PutIf { expected, value, .. } },
                ErrorCode::ConditionFailed,
            ) => {
                self.seen[key] = None;
                let observed = Operation::PutIf { expected, value, held: Some(false) };
                self.finish(call, Some((now, observed)));
            }
            // It may have been executed long ago; nobody can tell any more.
            (What::On { call, .. }, ErrorCode::TokenExpired) => self.finish(call, None),
            (What::Create, ErrorCode::TableExists) | (What::Describe, _) => {}
            (what, _) => self.violate(format!("{what:?} was answered with {problem}")),
        }
    }
}

fn read_item(archive: &[u8], checksum: u32) -> Seen {
    assert_eq!(crc32c(archive), checksum, "items arrive as they were written");
    let item = access_item(archive)
        .and_then(evenkeel_wire::item::ArchivedItem::to_item)
        .expect("stored items are items");
    let number = |name: &str| match item.get(name) {
        Some(Value::N(number)) => Number::to_i64(number).unwrap_or(0),
        _ => 0,
    };
    Seen { value: number("v") as u64, count: number("n") }
}

impl Machine for SimClient {
    fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects) {
        match input {
            Input::Frame { header, body, .. } => self.on_frame(now, header, body),
            Input::Down { .. } if self.current.is_some() => self.pause(now, Duration::from_millis(100)),
            Input::Wake if now.boot >= self.wake => match self.current {
                Some(_) => self.send_again(now, out),
                None => {
                    self.wake = now.boot.after(Duration::from_millis(50));
                    self.begin_next(now, out);
                }
            },
            Input::Down { .. } | Input::Wake | Input::Up { .. } | Input::Disk(_) | Input::Drain => {}
        }
    }

    fn end_turn(&mut self, _: Now, _: &mut Effects) {}

    fn wake_at(&self) -> Boot {
        self.wake
    }
}
