//! One thread that keeps many connections busy.
//!
//! In a closed loop each answer begins the next request, so that a slow server is asked less. In an open loop
//! requests are due at fixed times, and their latency counts from when they were due: a server that stalls is
//! charged for all that it kept waiting (no coordinated omission).

use crate::report::Report;
use crate::workload::{Draw, Kind, Workload, item, key_item};
use evenkeel_client::nonblocking::Link;
use evenkeel_client::protocol::connection::Connection;
use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::error::{ErrorAnswer, Problem};
use evenkeel_wire::expression::{Bindings, Update as UpdateTree, encode_update};
use evenkeel_wire::frame;
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::item::encode as encode_item;
use evenkeel_wire::message::request::{Get, Put, ReturnItem, Token, Update};
use evenkeel_wire::message::{Body, Encode, access, encode};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::TableDescriptor;
use polling::{Events, Poller};
use std::borrow::Cow;
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};
use thiserror::Error;

/// How requests are begun.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many are under way at any time.
    Closed(usize),
    /// So many are due each second.
    Open(f64),
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub router: SocketAddr,
    /// The table, whose key is `pk:S`.
    pub table: TableDescriptor,
    /// Which operations.
    pub workload: &'static Workload,
    /// How they are begun.
    pub pace: Pace,
    /// Connections.
    pub connections: usize,
    /// Keys to choose from.
    pub keys: u64,
    /// Bytes of an item.
    pub item_bytes: usize,
    /// How long before measuring begins.
    pub warm_up: Duration,
    /// How long to measure.
    pub measure: Duration,
    /// Decides operations and keys.
    pub seed: u64,
    /// The client's id, for tokens: random.
    pub client: [u8; 16],
}

/// Why a run cannot go on.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A connection.
    #[error("connection to {router}: {error}")]
    Socket {
        /// The router.
        router: SocketAddr,
        /// What happened.
        error: std::io::Error,
    },
    /// The other side does not speak the protocol.
    #[error("connection to {router}: {message}")]
    Protocol {
        /// The router.
        router: SocketAddr,
        /// What happened.
        message: String,
    },
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    request: RequestId,
    due: Instant,
    sent: Instant,
}

/// A connection with the requests that are under way on it.
struct Line {
    link: Link,
    under_way: VecDeque<UnderWay>,
}

/// The thread's state.
pub struct Load {
    options: Options,
    poller: Arc<Poller>,
    lines: Vec<Line>,
    writer: Writer,
    report: Report,
    /// Measuring begins here, and ends there.
    from: Instant,
    until: Instant,
    /// When the next request of an open loop is due.
    due: Instant,
    next_line: usize,
}

/// The real time: a load generator is a door.
#[allow(clippy::disallowed_methods, reason = "a load generator measures real time")]
fn now() -> Instant {
    Instant::now()
}

impl Load {
    /// Connects.
    ///
    /// # Errors
    /// When a connection cannot be opened.
    pub fn connect(options: Options) -> Result<Self, LoadError> {
        let router = options.router;
        let socket_error = |error| LoadError::Socket { router, error };
        let poller = Arc::new(Poller::new().map_err(socket_error)?);
        let (mut lines, mut server_ms) = (Vec::new(), 0);
        for key in 0..options.connections {
            let (stream, connection) = shake(router)?;
            server_ms = connection.established().map_or(server_ms, |established| established.server_ms);
            let link = Link::established(stream, connection, &poller, key).map_err(socket_error)?;
            lines.push(Line { link, under_way: VecDeque::new() });
        }
        let now = now();
        let writer = Writer::new(&options, server_ms, now);
        Ok(Self {
            poller,
            lines,
            writer,
            report: Report::default(),
            from: now,
            until: now,
            due: now,
            next_line: 0,
            options,
        })
    }

    /// Writes every key once, so that reads find something. `progress` is told how many are written.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn preload(&mut self, progress: &mut dyn FnMut(u64)) -> Result<(), LoadError> {
        let per_line = PRELOAD_UNDER_WAY.div_ceil(self.lines.len());
        let mut next = 0;
        self.from = now() + FAR;
        while next < self.options.keys || self.lines.iter().any(|line| !line.under_way.is_empty()) {
            for line in &mut self.lines {
                while line.under_way.len() < per_line && next < self.options.keys {
                    self.writer.ask(line, Kind::Put, next, now());
                    next += 1;
                }
            }
            self.exchange(Some(Duration::from_millis(100)))?;
            progress(next);
        }
        Ok(())
    }

    /// Runs the load: warms up, measures, and stops.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn run(mut self) -> Result<Report, LoadError> {
        let start = now();
        self.from = start + self.options.warm_up;
        self.until = self.from + self.options.measure;
        self.due = start;
        while now() < self.until {
            match self.options.pace {
                Pace::Closed(under_way) => self.fill_up(under_way),
                Pace::Open(rate) => self.begin_due(rate),
            }
            let left = self.until.saturating_duration_since(now());
            let wait = match self.options.pace {
                Pace::Closed(_) => left,
                Pace::Open(_) => left.min(self.due.saturating_duration_since(now())),
            };
            self.exchange(Some(wait))?;
        }
        self.drain()?;
        self.report.measured = self.options.measure;
        if let Pace::Open(rate) = self.options.pace {
            // What was due, also if it was never sent.
            self.report.offered = (self.options.measure.as_secs_f64() * rate) as u64;
        }
        Ok(self.report)
    }

    /// Waits a while for what was due in time: to leave the slowest out would flatter the server.
    fn drain(&mut self) -> Result<(), LoadError> {
        let end = self.until + DRAIN;
        while self.under_way() > 0 && now() < end {
            self.exchange(Some(end.saturating_duration_since(now())))?;
        }
        Ok(())
    }

    fn under_way(&self) -> usize {
        self.lines.iter().map(|line| line.under_way.len()).sum()
    }

    /// A closed loop: every connection has its share under way.
    fn fill_up(&mut self, under_way: usize) {
        let per_line = under_way.div_ceil(self.lines.len());
        for line in &mut self.lines {
            while line.under_way.len() < per_line {
                let due = now();
                self.report.offered += u64::from(due >= self.from);
                let (kind, key) = self.writer.draw.operation();
                self.writer.ask(line, kind, key, due);
            }
        }
    }

    /// An open loop: whatever is due goes out, on the connections in turn; of much that is due at once, a
    /// part, so that answers are taken in between.
    fn begin_due(&mut self, rate: f64) {
        let interval = Duration::from_secs_f64(1.0 / rate);
        let room = UNDER_WAY_MAX.saturating_sub(self.under_way()).min(BEGUN_AT_ONCE_MAX);
        for _ in 0..room {
            if self.due > now() {
                return;
            }
            let place = self.next_line % self.lines.len();
            self.next_line += 1;
            let (kind, key) = self.writer.draw.operation();
            self.writer.ask(&mut self.lines[place], kind, key, self.due);
            self.due += interval;
        }
    }

    /// Sends what is to be sent, waits, and takes what has arrived.
    fn exchange(&mut self, wait: Option<Duration>) -> Result<(), LoadError> {
        let router = self.options.router;
        let socket_error = |error| LoadError::Socket { router, error };
        for line in &mut self.lines {
            if !line.link.connection.transmit().is_empty() {
                line.link.flush().map_err(socket_error)?;
                line.link.watch().map_err(socket_error)?;
            }
        }
        let mut events = Events::new();
        self.poller.wait(&mut events, wait).map_err(socket_error)?;
        let mut scratch = [0; 64 * 1024];
        for event in events.iter() {
            let line = &mut self.lines[event.key];
            if event.writable {
                line.link.flush().map_err(socket_error)?;
            }
            if event.readable {
                line.link.fill(&mut scratch).map_err(socket_error)?;
                line.take_answers(&mut self.report, self.from..self.until)
                    .map_err(|message| LoadError::Protocol { router, message })?;
            }
            line.link.watch().map_err(socket_error)?;
        }
        Ok(())
    }
}

impl Line {
    /// Takes answers. Those to requests that were due in the window count.
    fn take_answers(&mut self, report: &mut Report, window: Range<Instant>) -> Result<(), String> {
        let arrived = now();
        loop {
            let answer = self.link.connection.poll_answer().map_err(|error| error.to_string())?;
            let Some(answer) = answer else {
                return Ok(());
            };
            let request = answer.header.request;
            let problem = (answer.header.kind == frame::Kind::Error).then(|| {
                access::<ErrorAnswer>(answer.body).map_or_else(|problem| problem, Problem::from).code
            });
            let place = self.under_way.iter().position(|under_way| under_way.request == request);
            let Some(UnderWay { due, sent, .. }) = place.and_then(|place| self.under_way.remove(place))
            else {
                continue;
            };
            if !window.contains(&due) {
                continue;
            }
            match problem {
                None => {
                    report.latencies.record(arrived - due);
                    report.service.record(arrived - sent);
                }
                Some(code) => *report.errors.entry(format!("{code:?}")).or_default() += 1,
            }
        }
    }
}

/// Writes requests.
struct Writer {
    table: TableDescriptor,
    client: [u8; 16],
    item_bytes: usize,
    draw: Draw,
    prng: Prng,
    update: Vec<u8>,
    sequence: u64,
    /// Requests that may still be unanswered: tokens below the oldest are done.
    window: u64,
    server_ms: u64,
    begin: Instant,
}

impl Writer {
    fn new(options: &Options, server_ms: u64, begin: Instant) -> Self {
        let mut bindings = Bindings::new().with_value(":one", 1);
        let update = UpdateTree::parse("ADD n :one", &mut bindings).expect("a constant expression parses");
        Self {
            table: options.table.clone(),
            client: options.client,
            item_bytes: options.item_bytes,
            draw: Draw::new(options.workload, options.keys, options.seed),
            prng: Prng::new(options.seed ^ 0x5eed),
            update: encode_update(&update).expect("a constant expression can be encoded"),
            sequence: 0,
            window: TOKENS_KEPT,
            server_ms,
            begin,
        }
    }

    fn token(&mut self) -> Token {
        self.sequence += 1;
        let issued_ms = self.server_ms + now().duration_since(self.begin).as_millis() as u64;
        let acknowledged_below = self.sequence.saturating_sub(self.window);
        Token { client: self.client, sequence: self.sequence, issued_ms, acknowledged_below }
    }

    fn ask(&mut self, line: &mut Line, kind: Kind, key: u64, due: Instant) {
        let key_item = key_item(key);
        let storage_key = self.table.schema.storage_key(&self.table.hash_key, &key_item);
        let storage_key = Cow::Owned(storage_key.expect("the workload's keys are keys").0);
        let table = self.table.id;
        let condition = Cow::Borrowed(&[][..]);
        let request = match kind {
            Kind::Get | Kind::GetEventual => {
                request(line, &Get { table, key: storage_key, strong: kind == Kind::Get })
            }
            Kind::Put => {
                let item = item(key, self.item_bytes, &mut self.prng);
                let archive = encode_item(&item).expect("the workload's items are items");
                let item_checksum = crc32c(&archive);
                let (token, return_item) = (self.token(), ReturnItem::None);
                let item = Cow::Owned(archive);
                request(
                    line,
                    &Put { table, token, key: storage_key, item, item_checksum, condition, return_item },
                )
            }
            Kind::Update => {
                let key_item = Cow::Owned(encode_item(&key_item).expect("a key is an item"));
                let (token, return_item) = (self.token(), ReturnItem::None);
                let update = Cow::Borrowed(&self.update[..]);
                let key = storage_key;
                request(line, &Update { table, token, key, key_item, update, condition, return_item })
            }
        };
        line.under_way.push_back(UnderWay { request, due, sent: now() });
    }
}

fn request<T: Body + for<'a> Encode<'a>>(line: &mut Line, body: &T) -> RequestId {
    line.link.connection.request(T::KIND, REQUEST_DEADLINE, |out| encode(body, out))
}

/// Opens a connection and says hello.
fn shake(router: SocketAddr) -> Result<(TcpStream, Connection), LoadError> {
    let socket_error = |error| LoadError::Socket { router, error };
    let mut stream = TcpStream::connect(router).map_err(socket_error)?;
    stream.set_nodelay(true).map_err(socket_error)?;
    let mut connection = Connection::new();
    connection.greet();
    stream.write_all(connection.transmit()).map_err(socket_error)?;
    connection.transmitted(connection.transmit().len());
    let mut bytes = [0; 1024];
    while connection.established().is_none() {
        let count = stream.read(&mut bytes).map_err(socket_error)?;
        if count == 0 {
            return Err(socket_error(std::io::ErrorKind::UnexpectedEof.into()));
        }
        connection.handle_input(&bytes[..count]);
        let polled = connection.poll_answer().map(|_| ());
        polled.map_err(|error| LoadError::Protocol { router, message: error.to_string() })?;
    }
    Ok((stream, connection))
}

/// Requests that an open loop has under way at the most; what is due beyond them waits, and its latency
/// counts.
const UNDER_WAY_MAX: usize = 100_000;
/// Requests that an open loop begins before it looks for answers.
const BEGUN_AT_ONCE_MAX: usize = 256;
/// How long answers are waited for after the end.
const DRAIN: Duration = Duration::from_secs(2);
/// Puts under way while keys are written for the first time.
const PRELOAD_UNDER_WAY: usize = 256;
/// How long a request may take.
const REQUEST_DEADLINE: Duration = Duration::from_secs(10);
/// Writes that may be unanswered: a token is acknowledged when this many others came after it.
const TOKENS_KEPT: u64 = 8192;
/// Later than any run.
const FAR: Duration = Duration::from_secs(1 << 30);
