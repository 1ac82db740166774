//! One thread that keeps many connections busy.
//!
//! In a closed loop each answer begins the next request, so that a slow server is asked less. In an open loop
//! requests are due at fixed times, and their latency counts from when they were due: a server that stalls is
//! charged for all that it kept waiting (no coordinated omission).

use crate::phases::{Look, Phases};
use crate::report::Report;
use crate::workload::{Kind, Workload};
use crate::writer::Writer;
use evenkeel_client::nonblocking::Link;
use evenkeel_client::protocol::connection::Connection;
use evenkeel_wire::error::{ErrorAnswer, Problem};
use evenkeel_wire::frame;
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::message::access;
use evenkeel_wire::table::TableDescriptor;
use polling::{Events, Poller};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
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
    /// A key cannot be written, and will not be if it is tried again.
    #[error("key {key} cannot be written: {problem}")]
    Preload {
        /// Its number.
        key: u64,
        /// Why not.
        problem: String,
    },
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnderWay {
    pub(crate) request: RequestId,
    pub(crate) kind: Kind,
    pub(crate) key: u64,
    pub(crate) due: Instant,
    pub(crate) sent: Instant,
}

/// A request that is not under way any more.
pub(crate) struct Answered {
    pub(crate) asked: UnderWay,
    arrived: Instant,
    /// Why it failed, if it did.
    pub(crate) problem: Option<Problem>,
}

/// A connection with the requests that are under way on it.
pub(crate) struct Line {
    pub(crate) link: Link,
    pub(crate) under_way: VecDeque<UnderWay>,
}

/// A border of the time that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Border {
    /// Measuring begins.
    Begin,
    /// It ends; answers that are still to come count.
    End,
}

/// The thread's state.
pub struct Load {
    pub(crate) options: Options,
    poller: Arc<Poller>,
    pub(crate) lines: Vec<Line>,
    pub(crate) writer: Writer,
    /// What has arrived and was not looked at.
    pub(crate) answered: Vec<Answered>,
    report: Report,
    phases: Phases,
    /// Looks at the servers, from whoever takes them.
    looks: Receiver<Look>,
    /// Measuring begins here, and ends there.
    from: Instant,
    until: Instant,
    /// When the next request of an open loop is due.
    due: Instant,
    next_line: usize,
}

/// The real time: a load generator is a door.
#[allow(clippy::disallowed_methods, reason = "a load generator measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

impl Load {
    /// Connects. `looks` say when checkpoints run, while the load does; without any, that is not known.
    ///
    /// # Errors
    /// When a connection cannot be opened.
    pub fn connect(options: Options, looks: Receiver<Look>) -> Result<Self, LoadError> {
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
            answered: Vec::new(),
            report: Report::default(),
            phases: Phases::default(),
            looks,
            from: now,
            until: now,
            due: now,
            next_line: 0,
            options,
        })
    }

    /// Runs the load: warms up, measures, and stops. `at_border` is called when measuring begins and ends.
    ///
    /// # Errors
    /// When a connection fails.
    pub fn run(mut self, at_border: &mut dyn FnMut(Border)) -> Result<Report, LoadError> {
        let start = now();
        self.from = start + self.options.warm_up;
        self.until = self.from + self.options.measure;
        self.due = start;
        let mut border = self.from;
        while now() < self.until {
            if now() >= border {
                at_border(Border::Begin);
                border = self.until;
            }
            match self.options.pace {
                Pace::Closed(under_way) => self.fill_up(under_way),
                Pace::Open(rate) => self.begin_due(rate),
            }
            let left = border.saturating_duration_since(now());
            let wait = match self.options.pace {
                Pace::Closed(_) => left,
                Pace::Open(_) => left.min(self.due.saturating_duration_since(now())),
            };
            self.exchange(Some(wait))?;
            self.count_answers();
        }
        at_border(Border::End);
        self.drain()?;
        self.report.measured = self.options.measure;
        self.report.phases = self.phases;
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
            self.count_answers();
        }
        // The looks that tell what the last of them met.
        while !self.phases.is_settled() && now() < end {
            match self.looks.recv_timeout(end.saturating_duration_since(now())) {
                Ok(look) => self.phases.look(look),
                Err(_) => break,
            }
        }
        Ok(())
    }

    /// Counts what has arrived, if it was due in the time that is measured.
    fn count_answers(&mut self) {
        while let Ok(look) = self.looks.try_recv() {
            self.phases.look(look);
        }
        for Answered { asked, arrived, problem } in self.answered.drain(..) {
            if !(self.from..self.until).contains(&asked.due) {
                continue;
            }
            if let Some(Problem { code, .. }) = problem {
                *self.report.errors.entry(format!("{code:?}")).or_default() += 1;
                continue;
            }
            let (latency, service) = (arrived - asked.due, arrived - asked.sent);
            self.report.latencies.record(latency);
            self.report.service.record(service);
            self.phases.answered(asked.due, arrived);
            if asked.kind.is_read() {
                self.report.reads.record(latency);
            } else {
                self.report.writes.record(latency);
            }
            if asked.kind == Kind::Put {
                self.report.bytes_put += self.options.item_bytes as u64;
            }
        }
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
    pub(crate) fn exchange(&mut self, wait: Option<Duration>) -> Result<(), LoadError> {
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
                line.take_answers(&mut self.answered)
                    .map_err(|message| LoadError::Protocol { router, message })?;
            }
            line.link.watch().map_err(socket_error)?;
        }
        Ok(())
    }
}

impl Line {
    fn take_answers(&mut self, into: &mut Vec<Answered>) -> Result<(), String> {
        let arrived = now();
        loop {
            let answer = self.link.connection.poll_answer().map_err(|error| error.to_string())?;
            let Some(answer) = answer else {
                return Ok(());
            };
            let request = answer.header.request;
            let problem = (answer.header.kind == frame::Kind::Error)
                .then(|| access::<ErrorAnswer>(answer.body).map_or_else(|problem| problem, Problem::from));
            let place = self.under_way.iter().position(|under_way| under_way.request == request);
            if let Some(asked) = place.and_then(|place| self.under_way.remove(place)) {
                into.push(Answered { asked, arrived, problem });
            }
        }
    }
}

/// Opens a connection and says hello.
pub(crate) fn shake(router: SocketAddr) -> Result<(TcpStream, Connection), LoadError> {
    let socket_error = |error| LoadError::Socket { router, error };
    let mut stream = TcpStream::connect(router).map_err(socket_error)?;
    stream.set_nodelay(true).map_err(socket_error)?;
    let mut connection = Connection::new();
    connection.greet();
    stream.write_all(connection.transmit()).map_err(socket_error)?;
    connection.transmitted(connection.transmit().len());
    while connection.established().is_none() {
        receive(&mut stream, &mut connection).map_err(socket_error)?;
        let polled = connection.poll_answer().map(|_| ());
        polled.map_err(|error| LoadError::Protocol { router, message: error.to_string() })?;
    }
    Ok((stream, connection))
}

/// Waits for bytes, and gives them to the connection.
pub(crate) fn receive(stream: &mut TcpStream, connection: &mut Connection) -> std::io::Result<()> {
    let mut bytes = [0; 4096];
    let count = stream.read(&mut bytes)?;
    if count == 0 {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    connection.handle_input(&bytes[..count]);
    Ok(())
}

/// Requests that an open loop has under way at the most; what is due beyond them waits, and its latency
/// counts.
const UNDER_WAY_MAX: usize = 100_000;
/// Requests that an open loop begins before it looks for answers.
const BEGUN_AT_ONCE_MAX: usize = 256;
/// How long answers are waited for after the end.
const DRAIN: Duration = Duration::from_secs(2);
