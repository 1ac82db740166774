//! What is read and written while bits flip, and the model that it is compared with.
//!
//! Every item says by which write of which key it was made, and its body follows from that. So a damaged one
//! cannot be taken for a right one, and an old one not for the present one.

use super::Campaign;
use super::probe::Mailbox;
use crate::sim::checks::Item;
use crate::sim::matrix::client::Place;
use crate::sim::matrix::model::{Content, Model};
use crate::sim::network::HostId;
use crate::sim::world::{MS, SECOND};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::{ErrorAnswer, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::ids::{Epoch, PartitionId, RequestId, TableId};
use evenkeel_wire::item::encode as encode_item;
use evenkeel_wire::key::{KeySchema, KeyType};
use evenkeel_wire::message::catalog::CreateTable;
use evenkeel_wire::message::request::{
    ArchivedRow, Delete, Get, GetAnswer, PageAnswer, Put, Range, ReturnItem, Scan, Token, WriteAnswer,
};
use evenkeel_wire::message::{Body, Encode, access, encode};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::Billing;
use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;

/// How long an answer may take before it is asked for again.
const ANSWER_WITHIN: u64 = SECOND;
/// How often a write is sent before it counts as refused for ever.
const ATTEMPTS: u32 = 60;

/// The workload's side of a run.
#[derive(Debug)]
pub struct Asker {
    /// Keys and contents.
    pub model: Model,
    /// Where the table is.
    pub place: Place,
    /// The way to the cores.
    pub mailbox: Rc<RefCell<Mailbox>>,
    /// The host that empties it.
    pub host: HostId,
    /// What each key has ever been; the last is what it is.
    been: Vec<Vec<Option<Content>>>,
    requests: u64,
    prng: Prng,
}

/// What came of some reads.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// Answered, with what was written.
    pub right: u64,
    /// Refused for now, or not answered.
    pub refused: u64,
}

/// A request that can be sent again.
#[derive(Debug)]
struct Ask {
    id: RequestId,
    header: Header,
    body: Vec<u8>,
}

impl Asker {
    /// One for a table of so many keys, with nothing in it.
    #[must_use]
    pub fn new(prng: &mut Prng, keys: usize) -> Self {
        let model = Model::new(prng, keys);
        let been = model.keys.iter().map(|_| vec![None]).collect();
        let place = Place { table: TableId(0), partition: PartitionId::SYSTEM, epoch: Epoch(1) };
        let mailbox = Rc::new(RefCell::new(Mailbox::default()));
        Self { model, place, mailbox, host: 0, been, requests: 0, prng: prng.fork() }
    }

    /// The places of the keys with `low <= key < high`; an empty `high` is no end.
    #[must_use]
    pub fn keys_between(&self, low: &[u8], high: &[u8]) -> Vec<usize> {
        let keys = &self.model.keys;
        let from = keys.partition_point(|key| &key.bytes[..] < low);
        let until =
            if high.is_empty() { keys.len() } else { keys.partition_point(|key| &key.bytes[..] < high) };
        (from..until.max(from)).collect()
    }

    fn ask<T: Body + for<'a> Encode<'a>>(&mut self, body: &T) -> Ask {
        self.requests += 1;
        let id = RequestId(self.requests);
        let header = Header { deadline_us: 2_000_000, ..Header::new(T::KIND, id) };
        let header = header.to_partition(self.place.partition, self.place.epoch);
        let mut bytes = Vec::new();
        encode(body, &mut bytes);
        Ask { id, header, body: bytes }
    }

    fn write(&mut self, key: usize, content: Option<Content>, token: Token) -> Ask {
        let table = self.place.table;
        let (condition, return_item) = (Cow::Borrowed(&b""[..]), ReturnItem::None);
        let storage_key = self.model.keys[key].bytes.clone();
        let Some(content) = content else {
            let key = Cow::Owned(storage_key);
            return self.ask(&Delete { table, token, key, condition, return_item });
        };
        let archive = encode_item(&Model::item(key, content)).expect("the model's items are items");
        self.ask(&Put {
            table,
            token,
            key: Cow::Owned(storage_key),
            item_checksum: crc32c(&archive),
            item: Cow::Owned(archive),
            condition,
            return_item,
        })
    }

    /// What an item is, that a read has brought under some key.
    fn judge(&self, key: usize, got: Option<Content>, exact: bool) -> Result<(), String> {
        let been = &self.been[key];
        let right = if exact { been.last() == Some(&got) } else { been.contains(&got) };
        if right {
            return Ok(());
        }
        let now = been.last().expect("it was nothing at first");
        Err(format!("key {key} was served as {got:?}, and is {now:?} after {} writes", been.len() - 1))
    }

    /// Compares all items of a replica with the model.
    ///
    /// # Errors
    /// What differs.
    pub fn compare(&self, items: Vec<Item>) -> Result<(), String> {
        let mut items = items.into_iter().peekable();
        for (place, key) in self.model.keys.iter().enumerate() {
            let found = items.next_if(|(bytes, ..)| *bytes == key.bytes);
            let content =
                found.map(|(_, _, archive)| Model::read(&archive).ok_or("an item is none")).transpose()?;
            if content.is_some_and(|(of, _)| of != place) {
                return Err(format!("under key {place} stands the item of another"));
            }
            self.judge(place, content.map(|(_, content)| content), true)?;
        }
        items.next().map_or(Ok(()), |(key, ..)| Err(format!("{key:?} stands there, and nobody wrote it")))
    }
}

fn read_row(row: &ArchivedRow<'static>) -> Result<(usize, Content), String> {
    if crc32c(&row.item) != row.checksum {
        return Err("an item was served that does not have its checksum".to_owned());
    }
    Model::read(&row.item).ok_or_else(|| "an item was served that nobody wrote".to_owned())
}

/// Refused for now, or why the answer is wrong.
fn refusal(header: &Header, body: &[u8]) -> Result<bool, String> {
    if header.kind != Kind::Error {
        return Ok(false);
    }
    let error = access::<ErrorAnswer>(body).map_err(|problem| problem.to_string())?;
    let problem = Problem::from(error);
    if problem.code.is_retryable() { Ok(true) } else { Err(format!("a request was answered with {problem}")) }
}

impl Campaign {
    /// Who leads the table's partition and serves, or the system partition.
    pub(super) fn leader(&self, system: bool) -> Option<HostId> {
        let partition = if system { PartitionId::SYSTEM } else { self.asker.place.partition };
        self.cluster.storage().find(|host| {
            let now = self.world.hosts[*host].boot_now(self.world.now);
            let core = self.core(*host);
            core.is_some_and(|core| core.group(partition).is_some_and(|group| core.may_serve(group, now)))
        })
    }

    /// Creates the table, and waits until it is led.
    pub(super) fn create_table(&mut self) -> Result<(), String> {
        let create = CreateTable {
            name: "flips".to_owned(),
            schema: KeySchema::partition_only("k", KeyType::N),
            billing: Billing::OnDemand,
            partitions: 1,
        };
        let ask = self.asker.ask(&create);
        let system = self.leader(true).ok_or("the system partition has no leader")?;
        self.send(system, std::slice::from_ref(&ask))?;
        let of_table = |run: &Self| {
            let core = run.core(system)?;
            let group = core.groups().find(|group| group.replica.partition() != PartitionId::SYSTEM)?;
            let config = group.replica.config();
            Some(Place { table: config.table, partition: config.partition, epoch: config.epoch })
        };
        self.until("the table's partition", |run| of_table(run).is_some())?;
        self.asker.place = of_table(self).expect("it was just there");
        self.until("the table's leader", |run| run.leader(false).is_some())
    }

    /// Sends requests, and waits until all are answered or time is up.
    fn send(&mut self, to: HostId, asks: &[Ask]) -> Result<(), String> {
        let address = self.world.hosts[to].address;
        let frames = asks.iter().map(|ask| (address, ask.header, ask.body.clone()));
        self.asker.mailbox.borrow_mut().outgoing.extend(frames);
        self.world.wake(self.asker.host);
        let deadline = self.world.now + ANSWER_WITHIN;
        let answered = |run: &Self| {
            let mailbox = run.asker.mailbox.borrow();
            asks.iter().all(|ask| mailbox.answers.contains_key(&ask.id))
        };
        while !answered(self) && self.world.now < deadline {
            self.advance(MS / 5)?;
        }
        Ok(())
    }

    fn answer(&self, ask: &Ask) -> Option<(Header, Vec<u8>)> {
        self.asker.mailbox.borrow_mut().answers.remove(&ask.id)
    }

    /// Writes keys, until all writes are acknowledged.
    pub(super) fn put(&mut self, keys: &[usize]) -> Result<(), String> {
        let first = self.asker.requests + 1;
        let issued_ms = 1_700_000_000_000 + self.world.now / MS;
        let mut asks = Vec::new();
        for key in keys {
            let mut prng = self.asker.prng.fork();
            let content = (!prng.chance(1, 20)).then(|| self.asker.model.new_content(&mut prng));
            self.asker.been[*key].push(content);
            let sequence = self.asker.requests + 1;
            let token = Token { client: [7; 16], sequence, issued_ms, acknowledged_below: first };
            asks.push(self.asker.write(*key, content, token));
        }
        for _ in 0..ATTEMPTS {
            self.until("a leader", |run| run.leader(false).is_some())?;
            let leader = self.leader(false).expect("it was just there");
            self.send(leader, &asks)?;
            let mut left = Vec::new();
            for ask in asks {
                match self.answer(&ask) {
                    Some((header, body)) if !refusal(&header, &body)? => {
                        access::<WriteAnswer<'static>>(&body).map_err(|problem| problem.to_string())?;
                    }
                    Some(_) | None => left.push(ask),
                }
            }
            if left.is_empty() {
                return Ok(());
            }
            asks = left;
            self.advance(20 * MS)?;
        }
        Err(format!("{} writes were refused again and again", asks.len()))
    }

    /// Reads keys at one replica, which may be behind unless `exact`.
    pub(super) fn get(&mut self, host: HostId, keys: &[usize], exact: bool) -> Result<Reading, String> {
        let leads = self.leader(false) == Some(host);
        let (table, mut asks) = (self.asker.place.table, Vec::new());
        for key in keys {
            let strong = leads && self.asker.prng.chance(1, 2);
            let key = Cow::Owned(self.asker.model.keys[*key].bytes.clone());
            asks.push(self.asker.ask(&Get { table, key, strong }));
        }
        self.send(host, &asks)?;
        let mut reading = Reading::default();
        for (key, ask) in keys.iter().zip(&asks) {
            let Some((header, body)) = self.answer(ask) else {
                reading.refused += 1;
                continue;
            };
            if refusal(&header, &body)? {
                reading.refused += 1;
                continue;
            }
            let answer = access::<GetAnswer<'static>>(&body).map_err(|problem| problem.to_string())?;
            let got = answer.item.as_ref().map(read_row).transpose()?;
            if got.is_some_and(|(of, _)| of != *key) {
                return Err(format!("key {key} was served with the item of another: {got:?}"));
            }
            self.asker.judge(*key, got.map(|(_, content)| content), exact)?;
            reading.right += 1;
        }
        Ok(reading)
    }

    /// Reads one page of a range at one replica.
    pub(super) fn scan(
        &mut self,
        host: HostId,
        low: &[u8],
        high: &[u8],
        exact: bool,
    ) -> Result<Reading, String> {
        let range = Range {
            table: self.asker.place.table,
            lower: Cow::Borrowed(low),
            upper: Cow::Borrowed(high),
            forward: true,
            limit: 0,
            filter: Cow::Borrowed(b""),
            strong: false,
        };
        let ask = self.asker.ask(&Scan(range));
        self.send(host, std::slice::from_ref(&ask))?;
        let refused = Reading { right: 0, refused: 1 };
        let Some((header, body)) = self.answer(&ask) else {
            return Ok(refused);
        };
        if refusal(&header, &body)? {
            return Ok(refused);
        }
        let answer = access::<PageAnswer<'static>>(&body).map_err(|problem| problem.to_string())?;
        let end = answer.resume.as_ref().map_or(high, |resume| &resume[..]);
        let mut rows =
            answer.rows.iter().map(read_row).collect::<Result<Vec<_>, _>>()?.into_iter().peekable();
        for key in self.asker.keys_between(low, end) {
            let got = rows.next_if(|(of, _)| *of == key).map(|(_, content)| content);
            self.asker.judge(key, got, exact)?;
        }
        match rows.next() {
            Some(row) => Err(format!("a scan served {row:?} out of its place")),
            None => Ok(Reading { right: 1, refused: 0 }),
        }
    }
}
