//! A load, by several threads that share nothing.

use crate::clock::now;
use crate::interval::{Gathering, Interval};
use crate::keys::Share;
use crate::load::{Load, LoadError, Options, Times, shake};
use crate::phases::Look;
use crate::report::Report;
use crate::transport::{Polled, Ringed, Transport};
use evenkeel_link::{cpus, slice};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::{Builder, ScopedJoinHandle, scope};
use std::time::{Duration, Instant};

/// How a thread's bytes travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Through an io_uring ring for each thread.
    Ring,
    /// Through sockets that a poller watches.
    Epoll,
}

/// The threads of a load.
#[derive(Clone, Debug)]
pub struct Threads {
    /// How many, at least one.
    pub count: usize,
    /// CPUs that they are pinned to, in turn; empty: they are not pinned.
    pub pin: Vec<usize>,
    /// How their bytes travel.
    pub client: Client,
}

/// Something that whoever waits for a load may want to know at once.
#[derive(Debug)]
pub enum Event<'a> {
    /// Measuring begins before long: what happens from now on may still be felt then.
    Soon,
    /// Measuring begins.
    Begin,
    /// An interval is over.
    Interval(&'a Interval),
    /// Measuring ends; answers that are still to come count.
    End,
}

/// Writes the keys from `first` on, so that reads find something, from one thread. `progress` is told below
/// which number all keys are written.
///
/// # Errors
/// When a connection fails, or a put for a reason that does not pass.
pub fn preload(
    options: &Options,
    client: Client,
    first: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), LoadError> {
    let lines = (0..options.connections.max(1)).map(|_| shake(options.router)).collect::<Result<_, _>>()?;
    let (options, share) = (Arc::new(options.clone()), Share { thread: 0, threads: 1 });
    let (id, keys) = (client_id(options.client, 0), options.keys);
    match client {
        Client::Ring => {
            let load = Load::<Ringed>::new(options, lines, share, id).map_err(LoadError::Ring);
            load?.preload(first, keys, progress)
        }
        Client::Epoll => {
            let load = Load::<Polled>::new(options, lines, share, id)
                .map_err(|error| LoadError::Thread { thread: 0, message: error.to_string() });
            load?.preload(first, keys, progress)
        }
    }
}

/// Runs a load to its end. There is one of `looks` for each thread: they say when checkpoints run; one
/// without a sender says nothing. `event` is called on the calling thread.
///
/// # Errors
/// When a connection fails, or a thread does not start as it should.
pub fn run(
    options: &Options,
    threads: &Threads,
    looks: Vec<Receiver<Look>>,
    event: &mut dyn FnMut(Event<'_>),
) -> Result<Report, LoadError> {
    match threads.client {
        Client::Ring => run_with::<Ringed>(options, threads, looks, LoadError::Ring, event),
        Client::Epoll => {
            let refused = |error: std::io::Error| LoadError::Thread { thread: 0, message: error.to_string() };
            run_with::<Polled>(options, threads, looks, refused, event)
        }
    }
}

/// A thread that waits for its times, or runs.
type Running<'a> = (Sender<Times>, ScopedJoinHandle<'a, Result<Report, LoadError>>);

/// What a thread says while it runs.
enum Told {
    Ready,
    Failed,
    Interval(Interval),
}

fn run_with<T: Transport>(
    options: &Options,
    threads: &Threads,
    looks: Vec<Receiver<Look>>,
    refused: fn(std::io::Error) -> LoadError,
    event: &mut dyn FnMut(Event<'_>),
) -> Result<Report, LoadError> {
    let count = threads.count.max(1);
    assert_eq!(looks.len(), count, "each thread has its looks");
    let options = Arc::new(options.clone());
    let per_thread = options.connections.div_ceil(count).max(1);
    scope(|scope| {
        let (tell, told) = channel();
        let mut running: Vec<Running<'_>> = Vec::new();
        for (thread, looks) in looks.into_iter().enumerate() {
            let lines = (0..per_thread).map(|_| shake(options.router)).collect::<Result<Vec<_>, _>>()?;
            let cpu = (!threads.pin.is_empty()).then(|| threads.pin[thread % threads.pin.len()]);
            let (go, begin) = channel();
            let (options, tell) = (Arc::clone(&options), tell.clone());
            let failed = move |message: String| LoadError::Thread { thread, message };
            let prepare = move || {
                if let Some(cpu) = cpu.filter(|cpu| !cpus::pin(*cpu)) {
                    return Err(failed(format!("it cannot be pinned to CPU {cpu}")));
                }
                // A generator that is kept waiting sends late, and hears late what has come.
                let _where_the_kernel_knows_them = slice::ask_for_short();
                let (share, id) =
                    (Share { thread, threads: count }, client_id(options.client, thread as u64 + 1));
                Load::<T>::new(options, lines, share, id).map_err(refused)
            };
            let body = move || {
                let prepared = prepare();
                let _nobody_waits = tell.send(if prepared.is_ok() { Told::Ready } else { Told::Failed });
                let load = prepared?;
                let Ok(times) = begin.recv() else {
                    return Ok(Report::default());
                };
                load.run(times, looks, &mut |interval| {
                    let _nobody_waits = tell.send(Told::Interval(interval));
                })
            };
            let spawned = Builder::new().name(format!("load-{thread}")).spawn_scoped(scope, body);
            running.push((go, spawned.map_err(|error| failed(error.to_string()))?));
        }
        drop(tell);
        let ready = (0..count).all(|_| matches!(told.recv(), Ok(Told::Ready)));
        let start = now() + START_AFTER;
        let from = start + options.warm_up;
        let times = Times { start, from, until: from + options.measure };
        if ready {
            for (go, _) in &running {
                let _ended = go.send(times);
            }
            wait(&told, times, count, event);
        }
        let mut report = Report::default();
        for (go, thread) in running {
            drop(go);
            report.add(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        report.measured = options.measure;
        Ok(report)
    })
}

/// Passes on what threads say until all have ended.
fn wait(told: &Receiver<Told>, times: Times, threads: usize, event: &mut dyn FnMut(Event<'_>)) {
    let mut gathering = Gathering::new(threads);
    let soon = times.from - SOON.min(times.from - times.start);
    let mut borders = vec![(times.until, Event::End), (times.from, Event::Begin), (soon, Event::Soon)];
    let mut running = true;
    while running {
        let left =
            borders.last().map_or(FOR_EVER, |(at, _): &(Instant, _)| at.saturating_duration_since(now()));
        match told.recv_timeout(left) {
            Ok(Told::Interval(interval)) => {
                if let Some(whole) = gathering.add(&interval) {
                    event(Event::Interval(&whole));
                }
            }
            Ok(Told::Ready | Told::Failed) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => running = false,
        }
        // Threads may see a border, and end, before it is seen here.
        while let Some((_, border)) = borders.pop_if(|(at, _)| now() >= *at) {
            event(border);
        }
    }
    for rest in gathering.rest() {
        event(Event::Interval(&rest));
    }
}

/// The id of one of the clients of a run: no two may be alike, or one's writes would be taken for
/// repetitions of the other's.
fn client_id(run: [u8; 16], number: u64) -> [u8; 16] {
    (u128::from_le_bytes(run).wrapping_add(u128::from(number))).to_le_bytes()
}

/// How long before measuring begins is soon: a backlog of the warm-up is worked off in less.
pub const SOON: Duration = Duration::from_millis(500);
/// Time for all threads to hear when to start.
const START_AFTER: Duration = Duration::from_millis(5);
const FOR_EVER: Duration = Duration::from_secs(3600);
