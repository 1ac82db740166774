//! One load thread, which keeps many connections busy.
//!
//! In a closed loop each answer begins the next request, so that a slow server is asked less. In an open loop
//! requests are due at fixed times, and their latency counts from when they were due: a server that stalls is
//! charged for all that it kept waiting (no coordinated omission). How late the thread itself was to send is
//! told beside it.

use crate::clock::now;
use crate::interval::{INTERVAL, Interval};
use crate::keys::Share;
use crate::phases::{Look, Phases};
use crate::plan::{Pace, Plan};
use crate::report::Report;
use crate::transport::Transport;
use crate::under_way::{UnderWay, Window};
use crate::workload::{Operation, Workload};
use crate::writer::Writer;
use evenkeel_client::protocol::connection::Connection;
use evenkeel_client::sockets;
use evenkeel_wire::error::{ErrorAnswer, Problem};
use evenkeel_wire::frame;
use evenkeel_wire::message::access;
use evenkeel_wire::message::request::GetAnswer;
use evenkeel_wire::table::TableDescriptor;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};
use thiserror::Error;

/// What to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where to.
    pub router: SocketAddr,
    /// The table, whose key is `pk:S`.
    pub table: TableDescriptor,
    /// Which operations.
    pub workload: Workload,
    /// How they are begun.
    pub pace: Pace,
    /// Connections, over all threads.
    pub connections: usize,
    /// Keys to choose from.
    pub keys: u64,
    /// How long before measuring begins.
    pub warm_up: Duration,
    /// How long to measure.
    pub measure: Duration,
    /// Decides operations, keys, sizes and Poisson arrivals.
    pub seed: u64,
    /// The client's id, for tokens: random, and another one for each run.
    pub client: [u8; 16],
    /// Whether threads look for answers without ever sleeping. Each needs a CPU of its own.
    pub spin: bool,
    /// A thread is woken no sooner than this after it last looked, for what is due; answers wake it at any
    /// time. Zero: as soon as something is due.
    pub tick: Duration,
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
    /// There is no ring.
    #[error(
        "this host gives no io_uring ring ({0}); `--client epoll` does without, `evenkeel doctor` says why"
    )]
    Ring(std::io::Error),
    /// The thread cannot be started, or not where it should be.
    #[error("load thread {thread}: {message}")]
    Thread {
        /// Its number.
        thread: usize,
        /// What happened.
        message: String,
    },
}

/// A request that is not under way any more.
pub(crate) struct Answered {
    pub(crate) asked: UnderWay,
    arrived: Instant,
    /// Why it failed, if it did.
    pub(crate) problem: Option<Problem>,
    /// A read that found nothing.
    missed: bool,
}

/// When to measure.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// Requests are begun from here on…
    pub(crate) start: Instant,
    /// …measured from here on…
    pub(crate) from: Instant,
    /// …and until here.
    pub(crate) until: Instant,
}

/// The thread's state.
pub(crate) struct Load<T> {
    options: Arc<Options>,
    transport: T,
    /// Requests under way, for each connection.
    pub(crate) under_way: Vec<Window>,
    writer: Writer,
    pub(crate) plan: Plan,
    under_way_max: usize,
    dirty: Vec<usize>,
    ready: Vec<usize>,
    /// What has arrived and was not looked at.
    pub(crate) answered: Vec<Answered>,
    next_line: usize,
}

impl<T: Transport> Load<T> {
    /// A thread with these connections; `client` is its own id.
    pub(crate) fn new(
        options: Arc<Options>,
        lines: Vec<(TcpStream, Connection)>,
        share: Share,
        client: [u8; 16],
    ) -> std::io::Result<Self> {
        let established = lines.iter().find_map(|(_, connection)| connection.established());
        let server_ms = established.map_or(0, |established| established.server_ms);
        let names = match &options.pace {
            Pace::Trace(trace, _) => Some(Arc::clone(trace)),
            Pace::Closed(_) | Pace::Open(..) => None,
        };
        Ok(Self {
            under_way: lines.iter().map(|_| Window::default()).collect(),
            transport: T::new(lines)?,
            writer: Writer::new(&options, client, names, server_ms),
            plan: Plan::new(&options.pace, &options.workload, options.keys, share, options.seed),
            under_way_max: (UNDER_WAY_MAX / share.threads).max(1),
            dirty: Vec::new(),
            ready: Vec::new(),
            answered: Vec::new(),
            next_line: 0,
            options,
        })
    }

    /// Runs the load: warms up, measures, and stops. `looks` say when checkpoints run. `tell` is given every
    /// interval, in order.
    ///
    /// # Errors
    /// When a connection fails.
    pub(crate) fn run(
        mut self,
        times: Times,
        looks: Receiver<Look>,
        tell: &mut dyn FnMut(Interval),
    ) -> Result<Report, LoadError> {
        let mut count = Count::new(times, looks, tell);
        loop {
            let time = now();
            if time >= times.until {
                break;
            }
            let border = count.next_border(time);
            let wait = match self.begin(time, times, &mut count.report) {
                Some(due) => border.min(due.max(time + self.options.tick).saturating_duration_since(now())),
                None => border,
            };
            self.exchange(if self.options.spin { Duration::ZERO } else { wait })?;
            self.count(&mut count);
        }
        if self.options.pace.is_open() {
            // What has become due since that was last looked at.
            self.begin(times.until - Duration::from_nanos(1), times, &mut count.report);
        }
        // What was due and could not be sent was offered all the same.
        while let Some(at) = self.plan.due().filter(|at| times.start + *at < times.until) {
            count.report.offered += u64::from(times.start + at >= times.from);
            self.plan.skip();
        }
        self.drain(&mut count)?;
        count.report.unanswered = self.count_under_way() as u64;
        Ok(count.end(self.options.measure))
    }

    /// Begins what is to be begun. Returns when the next request is due, if that is known.
    fn begin(&mut self, time: Instant, times: Times, report: &mut Report) -> Option<Instant> {
        if let Plan::Closed(_, under_way) = self.plan {
            self.fill_up(under_way, time, times, report);
            return None;
        }
        let mut room = self.under_way_max.saturating_sub(self.count_under_way());
        if room == 0 {
            return Some(time + FULL_PAUSE);
        }
        // Of much that is due at once a part, so that answers are taken in between.
        room = room.min(BEGUN_AT_ONCE_MAX);
        loop {
            let at = self.plan.due()?;
            let due = times.start + at;
            if due > time || room == 0 {
                return Some(due);
            }
            room -= 1;
            let operation = self.plan.take(at)?;
            report.offered += u64::from((times.from..times.until).contains(&due));
            let place = match self.plan.line_of(operation.key, self.under_way.len()) {
                Some(place) => place,
                None => {
                    self.next_line += 1;
                    self.next_line % self.under_way.len()
                }
            };
            self.ask(place, operation, due);
        }
    }

    /// A closed loop: every connection has its share under way.
    fn fill_up(&mut self, under_way: usize, time: Instant, times: Times, report: &mut Report) {
        let lines = self.under_way.len();
        for place in 0..lines {
            let share = under_way / lines + usize::from(place < under_way % lines);
            while self.under_way[place].open() < share {
                let Some(operation) = self.plan.take(time - times.start) else {
                    return;
                };
                report.offered += u64::from(time >= times.from);
                self.ask(place, operation, now());
            }
        }
    }

    /// Begins a request on a connection.
    pub(crate) fn ask(&mut self, place: usize, operation: Operation, due: Instant) {
        let connection = self.transport.connection(place);
        if connection.transmit().is_empty() {
            self.dirty.push(place);
        }
        let (request, token) = self.writer.ask(connection, operation);
        let Operation { kind, key, bytes, .. } = operation;
        self.under_way[place].push(UnderWay { request, kind, key, bytes, token, due, sent: now() });
    }

    /// Sends what is to be sent, waits, and takes what has arrived.
    pub(crate) fn exchange(&mut self, wait: Duration) -> Result<(), LoadError> {
        let router = self.options.router;
        let exchanged = self.transport.exchange(&mut self.dirty, wait, &mut self.ready);
        exchanged.map_err(|error| LoadError::Socket { router, error })?;
        let (arrived, before) = (now(), self.answered.len());
        for place in self.ready.drain(..) {
            let (connection, window) = (self.transport.connection(place), &mut self.under_way[place]);
            take_answers(connection, window, arrived, &mut self.answered)
                .map_err(|message| LoadError::Protocol { router, message })?;
        }
        for token in self.answered[before..].iter().filter_map(|answered| answered.asked.token.as_ref()) {
            self.writer.retire(token);
        }
        Ok(())
    }

    fn count(&mut self, count: &mut Count<'_>) {
        for answered in self.answered.drain(..) {
            // An insertion that failed may have been executed: its key is read from now on, too, and a read
            // that finds nothing is counted.
            self.plan.settle(answered.asked.kind, answered.asked.key);
            count.answered(&answered);
        }
        count.look_and_roll(now());
    }

    fn count_under_way(&self) -> usize {
        self.under_way.iter().map(Window::open).sum()
    }

    /// Waits a while for what was due in time: to leave the slowest out would flatter the server.
    fn drain(&mut self, count: &mut Count<'_>) -> Result<(), LoadError> {
        let end = count.times.until + DRAIN;
        while self.count_under_way() > 0 && now() < end {
            self.exchange(end.saturating_duration_since(now()))?;
            self.count(count);
        }
        count.settle_phases(end);
        Ok(())
    }
}

fn take_answers(
    connection: &mut Connection,
    window: &mut Window,
    arrived: Instant,
    into: &mut Vec<Answered>,
) -> Result<(), String> {
    loop {
        let answer = connection.poll_answer().map_err(|error| error.to_string())?;
        let Some(answer) = answer else {
            return Ok(());
        };
        let problem = (answer.header.kind == frame::Kind::Error)
            .then(|| access::<ErrorAnswer>(answer.body).map_or_else(|problem| problem, Problem::from));
        let missed = answer.header.kind == frame::Kind::GetAnswer
            && access::<GetAnswer<'static>>(answer.body).is_ok_and(|answer| answer.item.is_none());
        if let Some(asked) = window.take(answer.header.request) {
            into.push(Answered { asked, arrived, problem, missed });
        }
    }
}

/// What a thread counts while it measures.
struct Count<'a> {
    times: Times,
    report: Report,
    phases: Phases,
    looks: Receiver<Look>,
    interval: Interval,
    tell: &'a mut dyn FnMut(Interval),
}

impl<'a> Count<'a> {
    fn new(times: Times, looks: Receiver<Look>, tell: &'a mut dyn FnMut(Interval)) -> Self {
        let (report, phases, interval) = Default::default();
        Self { times, report, phases, looks, interval, tell }
    }

    fn interval_end(&self) -> Instant {
        self.times.from + INTERVAL * (self.interval.index as u32 + 1)
    }

    /// Time until something must be done though nothing has arrived.
    fn next_border(&self, time: Instant) -> Duration {
        self.interval_end().min(self.times.until).saturating_duration_since(time)
    }

    fn roll(&mut self, time: Instant) {
        while time >= self.interval_end() {
            let next = Interval { index: self.interval.index + 1, ..Interval::default() };
            (self.tell)(std::mem::replace(&mut self.interval, next));
        }
    }

    fn look_and_roll(&mut self, time: Instant) {
        while let Ok(look) = self.looks.try_recv() {
            self.phases.look(look);
        }
        self.roll(time);
    }

    fn answered(&mut self, answered: &Answered) {
        let Answered { asked, arrived, problem, missed } = answered;
        let measured = self.times.from..self.times.until;
        let succeeded = problem.is_none();
        self.report.completed += u64::from(succeeded && measured.contains(arrived));
        if !measured.contains(&asked.due) {
            return;
        }
        self.roll(*arrived);
        if let Some(Problem { code, .. }) = problem {
            *self.report.errors.entry(format!("{code:?}")).or_default() += 1;
            self.interval.errors += 1;
            return;
        }
        let latency = *arrived - asked.due;
        self.report.latencies.record(latency);
        self.report.service.record(*arrived - asked.sent);
        self.report.late.record(asked.sent.saturating_duration_since(asked.due));
        self.report.missed += u64::from(*missed);
        self.interval.latencies.record(latency);
        self.phases.answered(asked.due, *arrived);
        if asked.kind.is_read() {
            self.report.reads.record(latency);
        } else {
            self.report.writes.record(latency);
        }
        self.report.bytes_put += u64::from(asked.bytes);
    }

    /// Waits for the looks that tell what the last requests met.
    fn settle_phases(&mut self, end: Instant) {
        while !self.phases.is_settled() {
            match self.looks.recv_timeout(end.saturating_duration_since(now())) {
                Ok(look) => self.phases.look(look),
                Err(_) => return,
            }
        }
    }

    fn end(mut self, measured: Duration) -> Report {
        if self.interval.latencies.count() > 0 || self.interval.errors > 0 {
            (self.tell)(self.interval);
        }
        self.report.measured = measured;
        self.report.phases = self.phases;
        self.report
    }
}

/// Opens a connection and says hello.
pub(crate) fn shake(router: SocketAddr) -> Result<(TcpStream, Connection), LoadError> {
    let socket_error = |error| LoadError::Socket { router, error };
    let mut stream = sockets::connect(router).map_err(socket_error)?;
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

/// Requests that an open loop has under way at the most, over all threads; what is due beyond them waits, and
/// its latency counts.
const UNDER_WAY_MAX: usize = 100_000;
/// How long a thread that has that many waits for room.
const FULL_PAUSE: Duration = Duration::from_millis(1);
/// Requests that an open loop begins before it looks for answers.
const BEGUN_AT_ONCE_MAX: usize = 256;
/// How long answers are waited for after the end.
const DRAIN: Duration = Duration::from_secs(2);
