//! The load: in one thread, a closed loop as `evenkeel bench --closed N --connections N` is one, or with
//! `--rate` an open loop as `evenkeel bench --rate R --connections N` is one. Operations, keys and arrivals
//! are drawn by the same code, values are as random, and latencies go into the same histogram.

use crate::{Arguments, connect, etcd, resp};
use evenkeel_bench::keys::Share;
use evenkeel_bench::percentile_table::percentile_table;
use evenkeel_bench::report::Latencies;
use evenkeel_bench::schedule::{Arrivals, Schedule};
use evenkeel_bench::stops::Watcher;
use evenkeel_bench::threads::SOON;
use evenkeel_bench::workload::{Draw, Kind, Operation, Workload, key_name};
use evenkeel_wire::prng::Prng;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::Timespec;
use rustix::param::clock_ticks_per_second;
use serde_json::json;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::{Duration, Instant};

/// What a server said to a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// It did it.
    Done,
    /// A read found nothing.
    Missing,
    /// It did not.
    Failed,
}

/// One connection's side of a protocol.
pub(crate) trait Protocol {
    /// Writes a request; the value is for those that write.
    fn ask(&mut self, kind: Kind, key: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), String>;

    /// Reads the answer out of `input`, as soon as all of it is there, and takes away what was read. What the
    /// protocol wants to say meanwhile goes to `out`.
    fn answer(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Option<Answer>, String>;
}

/// A connection.
struct Line {
    stream: TcpStream,
    protocol: Box<dyn Protocol>,
    input: Vec<u8>,
    output: Vec<u8>,
    /// Requests that are not answered, and since when they count: one in a closed loop.
    under_way: VecDeque<(Kind, Instant)>,
    /// It is watched for room to write.
    writes: bool,
}

/// What the load saw since measuring began.
#[derive(Default)]
struct Seen {
    all: Latencies,
    reads: Latencies,
    writes: Latencies,
    failed: u64,
    missing: u64,
}

/// Which operations there are left to do.
enum Source {
    /// Drawn, without an end.
    Drawn(Box<Draw>),
    /// Every key once.
    Each(std::ops::Range<u64>),
}

struct Load {
    epoll: OwnedFd,
    lines: Vec<Line>,
    source: Source,
    item_bytes: usize,
    prng: Prng,
    value: Vec<u8>,
    seen: Seen,
    /// Requests that began before do not count.
    since: Instant,
    /// Requests a second, in an open loop.
    rate: Option<f64>,
    /// As `evenkeel bench --tick`.
    tick: Duration,
    /// The connection of the next arrival.
    next_line: usize,
}

/// How long to wait for answers before the time is looked at again.
const WAIT: Duration = Duration::from_millis(50);

#[allow(clippy::disallowed_methods, reason = "a load generator measures real time")]
fn now() -> Instant {
    Instant::now()
}

/// `peers drive`.
pub(crate) fn run(arguments: &Arguments) -> Result<(), String> {
    let name = arguments.text("workload")?;
    let keys = arguments.number("keys")?;
    let source = match Workload::named(name) {
        Some(workload) => {
            let share = Share { thread: 0, threads: 1 };
            Source::Drawn(Box::new(Draw::new(&workload, keys, share, arguments.number("seed")?)))
        }
        None if name == "load" => Source::Each(0..keys),
        None => return Err(format!("there is no workload {name:?}")),
    };
    let mut load = Load::connect(arguments, source)?;
    load.rate = arguments.text("rate").is_ok().then(|| arguments.number("rate")).transpose()?;
    if arguments.text("tick-us").is_ok() {
        load.tick = Duration::from_micros(arguments.number("tick-us")?);
    }
    if load.rate.is_some() && (arguments.text("protocol")? != "redis" || load.lines.is_empty()) {
        return Err("--rate needs connections, and a protocol that takes requests without waiting".to_owned());
    }
    let pids = arguments.list("pids");
    let watch = || Watcher::start(arguments.text("folder").ok().map(Path::new)).map_err(said);
    let watcher = if matches!(load.source, Source::Each(_)) {
        load.run(None)?;
        watch()?
    } else {
        let warm_up = Duration::from_secs_f64(arguments.number("warm-up")?);
        let soon = SOON.min(warm_up);
        load.run(Some(warm_up - soon))?;
        let watcher = watch()?;
        load.run(Some(soon))?;
        watcher
    };
    let (servers, own) = (cpu_of(&pids)?, cpu_of(&["self"])?);
    load.seen = Seen::default();
    load.since = now();
    if matches!(load.source, Source::Drawn(_)) {
        load.run(Some(Duration::from_secs_f64(arguments.number("seconds")?)))?;
    }
    let measured = load.since.elapsed().as_secs_f64();
    let stops = watcher.end();
    let spent = |before: Vec<f64>, after: Vec<f64>| -> Vec<f64> {
        after.iter().zip(before).map(|(after, before)| after - before).collect()
    };
    let (servers, own) = (spent(servers, cpu_of(&pids)?), spent(own, cpu_of(&["self"])?)[0]);
    load.drain()?;
    let seen = &load.seen;
    if let Ok(path) = arguments.text("table") {
        std::fs::write(path, percentile_table(&seen.all)).map_err(|error| format!("{path}: {error}"))?;
    }
    let told = |latencies: &Latencies| {
        let at = |percentile| latencies.percentile(percentile);
        json!({"count": latencies.count(), "p50": at(50.0), "p99": at(99.0), "p99.9": at(99.9)})
    };
    let report = json!({
        "requests": seen.all.count(), "rate": seen.all.count() as f64 / measured, "measured_s": measured,
        "failed": seen.failed, "missing": seen.missing, "cpu_s": servers, "generator_cpu_s": own,
        "latencies_us": told(&seen.all), "reads_us": told(&seen.reads), "writes_us": told(&seen.writes),
        "stops": stops, "noisy": !stops.complaints().is_empty(),
    });
    println!("{report}");
    Ok(())
}

impl Load {
    fn connect(arguments: &Arguments, source: Source) -> Result<Self, String> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|error| error.to_string())?;
        let addresses = arguments.list("address");
        let is_etcd = match arguments.text("protocol")? {
            "etcd" => true,
            "redis" => false,
            other => return Err(format!("--protocol {other:?} is none of: redis, etcd")),
        };
        let mut lines = Vec::new();
        for number in 0..arguments.number::<usize>("connections")? {
            let address = addresses.get(number % addresses.len().max(1)).ok_or("--address is missing")?;
            let stream = connect(address)?;
            stream.set_nonblocking(true).map_err(said)?;
            let mut output = Vec::new();
            let protocol: Box<dyn Protocol> = if is_etcd {
                Box::new(etcd::Etcd::greet(address, &mut output))
            } else {
                Box::new(resp::Resp)
            };
            epoll::add(&epoll, &stream, EventData::new_u64(number as u64), EventFlags::IN).map_err(said)?;
            let (input, under_way) = (Vec::new(), VecDeque::new());
            lines.push(Line { stream, protocol, input, output, under_way, writes: false });
        }
        let item_bytes = arguments.number("item-bytes")?;
        let (prng, value) = (Prng::new(7), vec![0; item_bytes]);
        let (seen, since, rate, tick, next_line) = (Seen::default(), now(), None, Duration::ZERO, 0);
        Ok(Self { epoll, lines, source, item_bytes, prng, value, seen, since, rate, tick, next_line })
    }

    /// Puts load on for a time, or until there is nothing left to do.
    fn run(&mut self, time: Option<Duration>) -> Result<(), String> {
        match (self.rate, time) {
            (Some(rate), Some(time)) => self.run_open(rate, time),
            _ => self.run_closed(time),
        }
    }

    /// Keeps every connection busy.
    fn run_closed(&mut self, time: Option<Duration>) -> Result<(), String> {
        let until = time.map(|time| now() + time);
        loop {
            let mut busy = false;
            for number in 0..self.lines.len() {
                busy |= !self.lines[number].under_way.is_empty() || self.begin(number, now())?;
            }
            if !busy || until.is_some_and(|until| now() >= until) {
                return Ok(());
            }
            self.exchange(true, WAIT)?;
        }
    }

    /// Begins requests when they are due, whatever becomes of those before them; they count from when they
    /// were due.
    fn run_open(&mut self, rate: f64, time: Duration) -> Result<(), String> {
        let start = now();
        let mut schedule = Schedule::new(Arrivals::Poisson, rate, Share { thread: 0, threads: 1 }, 1);
        loop {
            let looked = now();
            while schedule.peek() < time && start + schedule.peek() <= now() {
                self.begin(self.next_line, start + schedule.peek())?;
                self.next_line = (self.next_line + 1) % self.lines.len();
                schedule.advance();
            }
            if schedule.peek() >= time {
                return Ok(());
            }
            let next = (start + schedule.peek()).max(looked + self.tick);
            self.exchange(false, next.saturating_duration_since(now()).min(WAIT))?;
        }
    }

    /// Waits for what is under way, which counts.
    fn drain(&mut self) -> Result<(), String> {
        let until = now() + Duration::from_secs(10);
        while self.lines.iter().any(|line| !line.under_way.is_empty()) && now() < until {
            self.exchange(false, WAIT)?;
        }
        Ok(())
    }

    /// Begins the next request of a connection, if there is one; it counts from `due` on.
    fn begin(&mut self, number: usize, due: Instant) -> Result<bool, String> {
        let (kind, key) = match &mut self.source {
            Source::Drawn(draw) => {
                let Operation { kind, key, .. } = draw.operation(self.since.elapsed());
                (kind, key)
            }
            Source::Each(left) => match left.next() {
                Some(key) => (Kind::Put, key),
                None => return Ok(false),
            },
        };
        if !kind.is_read() {
            self.prng.fill(&mut self.value[..self.item_bytes]);
        }
        let line = &mut self.lines[number];
        line.protocol.ask(kind, &key_name(key), &self.value, &mut line.output)?;
        line.under_way.push_back((kind, due));
        line.flush(&self.epoll, number)?;
        Ok(true)
    }

    /// Waits a while, and takes what has come; each answer begins the next request, if `go_on`.
    fn exchange(&mut self, go_on: bool, at_most: Duration) -> Result<(), String> {
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 256];
        let wait = Timespec { tv_sec: 0, tv_nsec: at_most.as_nanos() as _ };
        let count = epoll::wait(&self.epoll, &mut events, Some(&wait)).map_err(said)?;
        let mut chunk = [0; 64 * 1024];
        for event in &events[..count] {
            let number = event.data.u64() as usize;
            let line = &mut self.lines[number];
            match line.stream.read(&mut chunk) {
                Ok(0) => return Err("a connection was closed".to_owned()),
                Ok(bytes) => line.input.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.to_string()),
            }
            while let Some((kind, begun)) = line.under_way.front().copied()
                && let Some(answer) = line.protocol.answer(&mut line.input, &mut line.output)?
            {
                line.under_way.pop_front();
                self.seen.note(kind, begun, self.since, answer);
            }
            if go_on && line.under_way.is_empty() {
                self.begin(number, now())?;
            }
            let line = &mut self.lines[number];
            line.flush(&self.epoll, number)?;
        }
        Ok(())
    }
}

impl Line {
    /// Sends what the socket takes; what is left goes out when there is room.
    fn flush(&mut self, epoll: &OwnedFd, number: usize) -> Result<(), String> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(bytes) => drop(self.output.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.to_string()),
            }
        }
        if self.writes == self.output.is_empty() {
            self.writes = !self.output.is_empty();
            let flags = if self.writes { EventFlags::IN | EventFlags::OUT } else { EventFlags::IN };
            epoll::modify(epoll, &self.stream, EventData::new_u64(number as u64), flags).map_err(said)?;
        }
        Ok(())
    }
}

impl Seen {
    fn note(&mut self, kind: Kind, begun: Instant, since: Instant, answer: Answer) {
        if begun < since {
            return;
        }
        if answer == Answer::Failed {
            self.failed += 1;
            return;
        }
        self.missing += u64::from(answer == Answer::Missing);
        let latency = now() - begun;
        self.all.record(latency);
        if kind.is_read() { self.reads.record(latency) } else { self.writes.record(latency) }
    }
}

/// CPU seconds of processes so far, user and system, with those of children that have ended: Redis rewrites
/// its log in a child.
fn cpu_of(pids: &[&str]) -> Result<Vec<f64>, String> {
    let ticks = clock_ticks_per_second() as f64;
    let one = |pid: &&str| {
        let path = format!("/proc/{pid}/stat");
        let stat = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
        let fields = stat.rsplit_once(')').map(|(_, fields)| fields).unwrap_or_default();
        let used = fields.split_whitespace().skip(11).take(4).filter_map(|field| field.parse::<f64>().ok());
        Ok(used.sum::<f64>() / ticks)
    };
    pids.iter().map(one).collect()
}

fn said(error: impl ToString) -> String {
    error.to_string()
}
