//! The router that the core answers to: it sends requests, several at a time, and compares each answer with
//! the model.
//!
//! At most one write of a key is under way, so what it leads to is known. A read may be answered with
//! whatever its key was or may have been from when it was asked until it is answered.

use super::engine::{Engine, is_error};
use super::model::{Content, Model};
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::expression::{Bindings, Condition, Update as UpdateTree, encode_condition, encode_update};
use evenkeel_wire::frame::{Header, seal};
use evenkeel_wire::ids::{Epoch, PartitionId, RequestId, TableId};
use evenkeel_wire::item::{Item, encode as encode_item};
use evenkeel_wire::message::request::{
    ArchivedRow, Delete, Get, GetAnswer, PageAnswer, Put, Query, Range, ReturnItem, Scan, Token, Update,
    WriteAnswer,
};
use evenkeel_wire::message::{Body, Encode, access, encode};
use evenkeel_wire::prng::Prng;
use std::borrow::Cow;
use std::collections::BTreeMap;

/// Where the table is.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// The table.
    pub table: TableId,
    /// Its first partition.
    pub partition: PartitionId,
    /// The epoch of all of them.
    pub epoch: Epoch,
}

/// A range of places in the model's keys, `low <= key < high`, read in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub low: usize,
    /// The first beyond.
    pub high: usize,
    /// Upwards.
    pub forward: bool,
}

/// A request under way.
#[derive(Debug)]
pub enum Asked {
    /// A write of a key.
    Write {
        /// Its place.
        key: usize,
        /// The item as it was is asked for, and this is it.
        old: Option<Option<Content>>,
        /// It is not to be refused.
        fits: bool,
    },
    /// A read of a key.
    Get {
        /// Its place.
        key: usize,
        /// What it may be.
        may_be: Vec<Option<Content>>,
    },
    /// A page of a range.
    Page {
        /// Which.
        span: Span,
        /// When it was asked for, in requests.
        since: u64,
    },
}

/// What was answered.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    /// As it should be.
    Rightly,
    /// A key is this.
    Key(usize, Option<Content>),
    /// A page of a range, which goes on here.
    Page(Option<Span>),
    /// It was refused, for now.
    Refused(Problem),
}

/// The router.
#[derive(Debug)]
pub struct Client {
    /// What the engine must hold.
    pub model: Model,
    place: Place,
    pending: BTreeMap<RequestId, Asked>,
    requests: u64,
    /// The write under way by its token's sequence.
    tokens: BTreeMap<RequestId, u64>,
    /// Keys that are to be deleted one after the other.
    deleting: std::ops::Range<usize>,
}

impl Client {
    /// A router of a table.
    #[must_use]
    pub fn new(model: Model, place: Place) -> Self {
        Self { model, place, pending: BTreeMap::new(), requests: 0, tokens: BTreeMap::new(), deleting: 0..0 }
    }

    /// Requests that were sent so far.
    #[must_use]
    pub fn requests(&self) -> u64 {
        self.requests
    }

    /// Requests under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        self.pending.len()
    }

    /// The request that has waited longest.
    #[must_use]
    pub fn oldest(&self) -> Option<&Asked> {
        self.pending.first_key_value().map(|(_, asked)| asked)
    }

    /// The core crashed: nothing that was asked will be answered.
    pub fn crashed(&mut self) {
        self.pending.clear();
        self.tokens.clear();
        self.model.crashed();
    }

    /// Asks for something.
    pub fn ask_anything(&mut self, engine: &mut Engine) {
        let mut prng = engine.prng.fork();
        if let Some(key) = self.deleting.next() {
            return self.write(engine, &mut prng, key, 8);
        }
        let keys = self.model.keys.len() as u64;
        // Half of it goes to a tenth of the keys.
        let among = if prng.chance(1, 2) { keys / 10 } else { keys };
        let key = prng.below(among) as usize;
        match prng.below(1000) {
            0..=1 => {
                let length = 1 + prng.below(keys / 4) as usize;
                self.deleting = key..(key + length).min(keys as usize);
            }
            2..=649 => {
                let what = prng.below(20);
                self.write(engine, &mut prng, key, what);
            }
            650..=949 => self.get(engine, key),
            _ => {
                let high = (key + 1 + prng.below(40) as usize).min(keys as usize);
                let span = Span { low: key, high, forward: prng.chance(1, 2) };
                self.page(engine, span, prng.below(30) as u32);
            }
        }
    }

    /// Writes a key, unless a write of it is under way, or nobody knows what stands there.
    fn write(&mut self, engine: &mut Engine, prng: &mut Prng, key: usize, what: u64) {
        let place = &self.model.keys[key];
        if place.writing.is_some() || place.may_be.len() > 1 {
            return;
        }
        let before = place.may_be[0];
        let old = prng.chance(1, 4).then_some(before);
        let return_item = if old.is_some() { ReturnItem::Old } else { ReturnItem::None };
        let storage_key = place.bytes.clone();
        let table = self.place.table;
        let token = self.token(engine);
        match what {
            0..=7 | 12.. => {
                let content = self.model.new_content(prng);
                let archive = archive_of(&Model::item(key, content));
                let put = Put {
                    table,
                    token,
                    key: Cow::Owned(storage_key),
                    item_checksum: crc32c(&archive),
                    item: Cow::Owned(archive),
                    condition: Cow::Borrowed(b""),
                    return_item,
                };
                self.begin_write(key, Some(content), old, true);
                self.send(engine, &put.key, false, &put);
            }
            8 => {
                let condition = Cow::Borrowed(&b""[..]);
                let delete = Delete { table, token, key: Cow::Owned(storage_key), condition, return_item };
                self.begin_write(key, None, old, true);
                self.send(engine, &delete.key, false, &delete);
            }
            9..=11 => {
                // One in four expects what is not there.
                let fits = before.is_some() && !prng.chance(1, 4);
                let seen = before.filter(|_| fits).map_or(0, |content| content.version);
                let after = before.filter(|_| fits).map(|content| self.model.updated(content));
                let version = after.map_or(0, |content| content.version);
                let mut bindings = Bindings::new().with_value(":new", version).with_value(":seen", seen);
                let update = UpdateTree::parse("SET v = :new", &mut bindings).expect("it parses");
                let condition = Condition::parse("v = :seen", &mut bindings).expect("it parses");
                let update = Update {
                    table,
                    token,
                    key: Cow::Owned(storage_key),
                    key_item: Cow::Owned(archive_of(&Item::new().with("k", key as u64))),
                    update: Cow::Owned(encode_update(&update).expect("it can be encoded")),
                    condition: Cow::Owned(encode_condition(&condition).expect("it can be encoded")),
                    return_item,
                };
                self.begin_write(key, if fits { after } else { before }, old, fits);
                self.send(engine, &update.key, false, &update);
            }
        }
    }

    fn token(&mut self, engine: &Engine) -> Token {
        let sequence = self.requests + 1;
        let acknowledged_below = self.tokens.values().min().copied().unwrap_or(sequence);
        self.tokens.insert(RequestId(sequence), sequence);
        Token { client: [1; 16], sequence, issued_ms: engine.clock().wall_ms, acknowledged_below }
    }

    fn begin_write(&mut self, key: usize, to: Option<Content>, old: Option<Option<Content>>, fits: bool) {
        let place = &mut self.model.keys[key];
        place.writing = Some(to);
        place.changed = self.requests + 1;
        for asked in self.pending.values_mut() {
            if let Asked::Get { key: read, may_be } = asked
                && *read == key
            {
                may_be.push(to);
            }
        }
        self.pending.insert(RequestId(self.requests + 1), Asked::Write { key, old, fits });
    }

    /// Reads a key.
    pub fn get(&mut self, engine: &mut Engine, key: usize) {
        let place = &self.model.keys[key];
        let may_be = place.may_be.iter().copied().chain(place.writing).collect();
        let get = Get { table: self.place.table, key: Cow::Owned(place.bytes.clone()), strong: true };
        self.pending.insert(RequestId(self.requests + 1), Asked::Get { key, may_be });
        self.send(engine, &get.key, false, &get);
    }

    /// Reads a page of a range, as a scan or as a query. A span from the first key or to the last has no
    /// bound there.
    pub fn page(&mut self, engine: &mut Engine, span: Span, limit: u32) {
        let keys = &self.model.keys;
        let lower = if span.low == 0 { Vec::new() } else { keys[span.low].bytes.clone() };
        let upper = keys.get(span.high).map_or_else(Vec::new, |key| key.bytes.clone());
        let range = Range {
            table: self.place.table,
            lower: Cow::Owned(lower),
            upper: Cow::Owned(upper),
            forward: span.forward,
            limit,
            filter: Cow::Borrowed(b""),
            strong: true,
        };
        self.pending.insert(RequestId(self.requests + 1), Asked::Page { span, since: self.requests });
        let begins_at = if span.forward { range.lower.clone() } else { range.upper.clone() };
        if engine.prng.chance(1, 2) {
            self.send(engine, &begins_at, !span.forward, &Scan(range));
        } else {
            self.send(engine, &begins_at, !span.forward, &Query(range));
        }
    }

    /// Sends a request to the partition of `key`, or to that of the keys just below.
    fn send<T: Body + for<'a> Encode<'a>>(&mut self, engine: &mut Engine, key: &[u8], below: bool, body: &T) {
        self.requests += 1;
        let header = Header { deadline_us: 2_000_000, ..Header::new(T::KIND, RequestId(self.requests)) };
        let mut bytes = Vec::new();
        let partition = engine.route(key, below).unwrap_or(self.place.partition);
        let header = header.to_partition(partition, self.place.epoch);
        seal(&mut bytes, header, |out| encode(body, out));
        engine.ask(bytes);
    }

    /// Takes an answer.
    ///
    /// # Errors
    /// When it is wrong.
    pub fn take(&mut self, header: &Header, body: &[u8]) -> Result<Answered, String> {
        let Some(asked) = self.pending.remove(&header.request) else {
            return Ok(Answered::Rightly);
        };
        self.tokens.remove(&header.request);
        if is_error(header) {
            let error = access::<ErrorAnswer>(body).map_err(|problem| problem.to_string())?;
            return self.refused(&asked, Problem::from(error));
        }
        match asked {
            Asked::Write { key, old, fits } => {
                let answer = access::<WriteAnswer<'static>>(body).map_err(|problem| problem.to_string())?;
                if !fits {
                    return Err(format!("key {key} was written although its condition did not hold"));
                }
                if let Some(old) = old {
                    let got = answer.item.as_ref().map(read_row).transpose()?;
                    let expected = old.map(|content| (key, content));
                    if got != expected {
                        return Err(format!("a write answered with {got:?} in the place of {expected:?}"));
                    }
                }
                self.end_write(key, true);
                Ok(Answered::Rightly)
            }
            Asked::Get { key, may_be } => {
                let answer = access::<GetAnswer<'static>>(body).map_err(|problem| problem.to_string())?;
                let got = answer.item.as_ref().map(read_row).transpose()?;
                let content = got.map(|(_, content)| content);
                if got.is_some_and(|(other, _)| other != key) || !may_be.contains(&content) {
                    return Err(format!("key {key} was read as {got:?}, and may be one of {may_be:?}"));
                }
                Ok(Answered::Key(key, content))
            }
            Asked::Page { span, since } => {
                let answer = access::<PageAnswer<'static>>(body).map_err(|problem| problem.to_string())?;
                let rows = answer.rows.iter().map(read_row).collect::<Result<Vec<_>, _>>()?;
                let resume = answer.resume.as_ref().map(|resume| &resume[..]);
                self.check_page(span, since, &rows, resume)
            }
        }
    }

    fn end_write(&mut self, key: usize, done: bool) {
        let place = &mut self.model.keys[key];
        let to = place.writing.take().expect("it was being written");
        place.changed = self.requests;
        if done {
            place.may_be = vec![to];
        }
    }

    fn refused(&mut self, asked: &Asked, problem: Problem) -> Result<Answered, String> {
        if let Asked::Write { key, fits, .. } = *asked {
            if problem.code == ErrorCode::ConditionFailed && !fits {
                self.end_write(key, true);
                return Ok(Answered::Rightly);
            }
            let to = self.model.keys[key].writing;
            self.end_write(key, false);
            if problem.code.may_have_executed() {
                self.model.keys[key].may_be.extend(to);
            }
        }
        if problem.code.is_retryable() {
            return Ok(Answered::Refused(problem));
        }
        Err(format!("{asked:?} was answered with {problem}"))
    }

    /// Compares a page with the model. Keys that changed since it was asked for may be either.
    fn check_page(
        &self,
        span: Span,
        since: u64,
        rows: &[(usize, Content)],
        resume: Option<&[u8]>,
    ) -> Result<Answered, String> {
        let keys = &self.model.keys;
        let Span { low, high, forward } = span;
        let left = match resume {
            Some(resume) if forward => keys.partition_point(|key| &key.bytes[..] < resume)..high,
            Some(resume) => low..keys.partition_point(|key| &key.bytes[..] < resume),
            None => high..high,
        };
        let read = match resume {
            Some(_) if forward => low..left.start,
            Some(_) => left.end..high,
            None => low..high,
        };
        let mut rows = rows.to_vec();
        if !forward {
            rows.reverse();
        }
        let mut rows = rows.into_iter().peekable();
        for place in read {
            let key = &keys[place];
            let got = rows.next_if(|(key, _)| *key == place).map(|(_, content)| content);
            let settled = key.writing.is_none() && key.changed <= since;
            if settled && !key.may_be.contains(&got) {
                return Err(format!("a scan of {span:?} found {got:?} under key {place}: {:?}", key.may_be));
            }
        }
        match rows.next() {
            Some(row) => Err(format!("a scan of {span:?} found {row:?} out of its place")),
            None => {
                let left = Span { low: left.start, high: left.end, forward };
                Ok(Answered::Page(resume.map(|_| left)))
            }
        }
    }
}

fn archive_of(item: &Item) -> Vec<u8> {
    encode_item(item).expect("the model's items are items")
}

fn read_row(row: &ArchivedRow<'static>) -> Result<(usize, Content), String> {
    if crc32c(&row.item) != row.checksum {
        return Err("an item came that does not have its checksum".to_owned());
    }
    Model::read(&row.item).ok_or_else(|| "an item came that nobody wrote".to_owned())
}
