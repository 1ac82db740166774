//! Many requests on one connection, without waiting for each answer before the next request.
//!
//! The pipeline is driven by whoever submits to it or collects from it, on that thread. A request that fails
//! is repeated like any other, while those behind it go on: requests are sent in the order of their
//! submission and are independent of each other, so two writes of one item may be executed in either order.

mod line;

use super::pool::Pool;
use crate::error::Error;
use crate::host::{connection_lost, silent};
use crate::protocol::answer::Answer;
use crate::protocol::call::{Call, Failure, Step};
use crate::protocol::operation::Operation;
use crate::request::Request;
use evenkeel_wire::turn::Boot;
use line::{Line, Place, Sent};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};

/// Requests of a pipeline that may be unanswered. Submitting more waits.
pub const PIPELINE_REQUESTS_MAX: usize = 1024;

/// Bytes of bodies of a pipeline that may be unanswered; one request may be longer.
pub const PIPELINE_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Submitted requests are sent once there are this many bytes of them.
const LOT_BYTES: usize = 32 * 1024;

/// Many requests on one connection.
///
/// ```no_run
/// use evenkeel_client::{Client, Item};
///
/// # let client = Client::builder().connect()?;
/// let mut pipeline = client.pipeline()?;
/// let mut submitted = Vec::new();
/// for number in 0..1000 {
///     submitted.push(pipeline.submit(client.put("numbers", Item::new().with("pk", number))));
/// }
/// for put in submitted {
///     pipeline.collect(put)?;
/// }
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Debug)]
pub struct Pipeline {
    pool: Arc<Pool>,
    line: Line,
    /// Requests that have not ended, in the order of their submission.
    entries: BTreeMap<EntryId, Entry>,
    next: u64,
    /// Those that have something to send.
    ready: BTreeSet<EntryId>,
    /// When those that wait for the time, or for an answer, are to be looked at.
    timers: BTreeSet<(Boot, EntryId)>,
    bytes_under_way: usize,
}

/// A request of a pipeline. What it led to is [collected](Pipeline::collect), or forgotten with this.
#[derive(Debug)]
#[must_use = "if it is not collected nobody is told whether it failed"]
pub struct Submitted<T> {
    outcome: Arc<Outcome<T>>,
}

/// Where what a request led to is left for whoever collects it.
#[derive(Debug)]
struct Outcome<T>(Mutex<Option<Result<T, Error>>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EntryId(u64);

struct Entry {
    call: Box<dyn Drive>,
    /// Its place in the timers.
    look_at: Boot,
    /// The request under way, and the bytes of its body.
    under_way: Option<(Place, usize)>,
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry").field("under_way", &self.under_way).finish_non_exhaustive()
    }
}

/// A call, whatever its operation.
trait Drive: Send {
    /// The next step. At the end the outcome is left for the collector.
    fn advance(&mut self, now: Boot) -> Step<'_, ()>;
    fn answered(&mut self, now: Boot, answer: &Answer<'_>);
    fn failed(&mut self, now: Boot, failure: Failure);
    fn is_describing(&self) -> bool;
}

struct Driven<O: Operation> {
    call: Call<O>,
    outcome: Arc<Outcome<O::Output>>,
}

impl<O: Operation> Drive for Driven<O> {
    fn advance(&mut self, now: Boot) -> Step<'_, ()> {
        match self.call.next(now) {
            Step::Send(sending) => Step::Send(sending),
            Step::Pause { until } => Step::Pause { until },
            Step::Done(outcome) => {
                self.outcome.put(outcome);
                Step::Done(Ok(()))
            }
        }
    }

    fn answered(&mut self, now: Boot, answer: &Answer<'_>) {
        self.call.answered(now, answer);
    }

    fn failed(&mut self, now: Boot, failure: Failure) {
        self.call.failed(now, failure);
    }

    fn is_describing(&self) -> bool {
        self.call.is_describing()
    }
}

impl<T> Outcome<T> {
    fn put(&self, outcome: Result<T, Error>) {
        *self.0.lock().expect("nothing panics while an outcome is moved") = Some(outcome);
    }

    fn take(&self) -> Option<Result<T, Error>> {
        self.0.lock().expect("nothing panics while an outcome is moved").take()
    }
}

impl Pipeline {
    pub(super) fn new(pool: Arc<Pool>) -> Result<Self, Error> {
        let line = Line::open(&pool)?;
        Ok(Self {
            pool,
            line,
            entries: BTreeMap::new(),
            next: 0,
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            bytes_under_way: 0,
        })
    }

    /// Submits a request. Requests are sent in lots; [`flush`](Self::flush) and [`collect`](Self::collect)
    /// send what is left. Waits while too much is unanswered, and once for the description of a table that is
    /// new to the client. An error of any kind is told when it is collected.
    pub fn submit<R: Request>(&mut self, request: R) -> Submitted<<R::Operation as Operation>::Output> {
        let prepared = request.prepare();
        let outcome = Arc::new(Outcome(Mutex::new(None)));
        match prepared.operation {
            Ok(operation) => {
                let policy = self.pool.policy(prepared.deadline);
                let call = Call::new(self.pool.session(), operation, policy, self.now());
                self.enter(Box::new(Driven { call, outcome: Arc::clone(&outcome) }));
            }
            Err(invalid) => outcome.put(Err(invalid.into())),
        }
        Submitted { outcome }
    }

    fn enter(&mut self, call: Box<dyn Drive>) {
        let id = EntryId(self.next);
        self.next += 1;
        self.entries.insert(id, Entry { call, look_at: Boot::NEVER, under_way: None });
        self.ready.insert(id);
        self.look_at_timers();
        self.send_ready();
        // All that follows would ask for the same description.
        while self.entries.get(&id).is_some_and(|entry| entry.call.is_describing()) {
            self.turn();
        }
        if self.line.unsent_bytes() >= LOT_BYTES {
            self.exchange_bytes();
        }
        while self.is_full() {
            self.turn();
        }
    }

    /// Sends what was submitted, as far as the connection takes it.
    pub fn flush(&mut self) {
        self.send_ready();
        self.exchange_bytes();
    }

    /// Waits for what a request led to, while all others go on.
    ///
    /// # Errors
    /// What the request ended with.
    pub fn collect<T>(&mut self, submitted: Submitted<T>) -> Result<T, Error> {
        loop {
            if let Some(outcome) = submitted.outcome.take() {
                return outcome;
            }
            self.turn();
        }
    }

    /// Waits until every request has ended.
    pub fn finish(&mut self) {
        while !self.entries.is_empty() {
            self.turn();
        }
    }

    /// How many requests have not ended.
    #[must_use]
    pub fn unfinished(&self) -> usize {
        self.entries.len()
    }

    fn is_full(&self) -> bool {
        self.entries.len() >= PIPELINE_REQUESTS_MAX
            || (self.entries.len() > 1 && self.bytes_under_way >= PIPELINE_BYTES_MAX)
    }

    fn now(&self) -> Boot {
        self.pool.clock().now()
    }

    /// Does what can be done; if nothing can, waits for the socket or the time.
    fn turn(&mut self) {
        self.look_at_timers();
        self.send_ready();
        self.exchange_bytes();
        if self.ready.is_empty() && !self.entries.is_empty() {
            let until = self.timers.first().map_or(Boot::NEVER, |(at, _)| *at);
            self.line.wait(self.pool.clock().left(until));
            self.exchange_bytes();
        }
    }

    /// Entries whose time has come: their pause has ended, or no answer came.
    fn look_at_timers(&mut self) {
        let now = self.now();
        while let Some((at, id)) = self.timers.first().copied()
            && at <= now
        {
            if let Some(place) = self.land(id) {
                let endpoint = self.line.forget(place);
                self.fail(id, Failure::Silent(connection_lost(&endpoint, silent())));
            }
            self.ready.insert(id);
        }
    }

    /// Sends what is ready, in order.
    fn send_ready(&mut self) {
        while let Some(id) = self.ready.first().copied() {
            let now = self.now();
            let Some(entry) = self.entries.get_mut(&id) else {
                self.ready.remove(&id);
                continue;
            };
            let look_at = match entry.call.advance(now) {
                Step::Pause { until } => until,
                Step::Done(_) => {
                    self.entries.remove(&id);
                    self.ready.remove(&id);
                    continue;
                }
                Step::Send(sending) => {
                    let (answer_by, bytes) = (sending.answer_by, sending.body.len());
                    match self.line.send(&self.pool, &sending, id) {
                        Ok(Sent::UnderWay(place)) => {
                            entry.under_way = Some((place, bytes));
                            self.bytes_under_way += bytes;
                            answer_by
                        }
                        Ok(Sent::Answered(socket)) => {
                            if let Some(answer) = socket.answer() {
                                entry.call.answered(now, &answer);
                            }
                            continue;
                        }
                        Err(failure) => {
                            entry.call.failed(now, failure);
                            continue;
                        }
                    }
                }
            };
            self.ready.remove(&id);
            entry.look_at = look_at;
            self.timers.insert((look_at, id));
        }
    }

    /// Sends and takes what the socket lets through.
    fn exchange_bytes(&mut self) {
        let now = self.now();
        let mut answered = Vec::new();
        let lost = self.line.exchange(|id, answer| {
            if let Some(entry) = self.entries.get_mut(&id) {
                entry.call.answered(now, answer);
            }
            answered.push(id);
        });
        for id in answered {
            self.land(id);
            self.ready.insert(id);
        }
        for (error, id) in lost {
            self.land(id);
            self.fail(id, Failure::Lost(error));
            self.ready.insert(id);
        }
    }

    fn fail(&mut self, id: EntryId, failure: Failure) {
        let now = self.now();
        if let Some(entry) = self.entries.get_mut(&id) {
            entry.call.failed(now, failure);
        }
    }

    /// An entry waits for nothing any more. Returns where its request was under way.
    fn land(&mut self, id: EntryId) -> Option<Place> {
        let entry = self.entries.get_mut(&id)?;
        self.timers.remove(&(entry.look_at, id));
        let (place, bytes) = entry.under_way.take()?;
        self.bytes_under_way -= bytes;
        Some(place)
    }
}
