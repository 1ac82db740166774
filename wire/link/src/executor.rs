//! Executors: threads that run machines.
//!
//! An executor is a glommio executor with one task, which takes the turns of all its machines one after
//! another. When no machine has work the task polls for a while and then waits. In production there is one
//! machine, and the thread sleeps in that one's ring: one system call submits, waits and collects
//! (docs/decisions/0019-turns.md). A demonstration or a test has several machines on few CPUs: then the task
//! parks, and glommio sleeps until a ring has raised the signal.
//!
//! Everything that a machine has in flight ends before its executor does.

use crate::clock;
use crate::control::{Command, Control, Ended, Outcome};
use crate::cpus;
use crate::delays::ThreadDelays;
use crate::disk::Disk;
use crate::driver::Driver;
use crate::files::CoreFiles;
use crate::limits::{GLOMMIO_MEMORY_BYTES, GLOMMIO_RING_ENTRIES};
use crate::near::Near;
use crate::network::Network;
use crate::polling::{Poller, Polling};
use crate::preflight::{PreflightError, explain};
use crate::reserve;
use crate::ring::Ring;
use crate::signal::Signal;
use crate::slice;
use crate::watchdog;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::handshake::Identity;
use evenkeel_wire::turn::{Boot, Halt, Machine};
use glommio::io::PollableFd;
use glommio::{ExecutorJoinHandle, LocalExecutorBuilder};
use std::fmt;
use std::future::poll_fn;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::task::Poll;
use std::time::Duration;
use thiserror::Error;

/// Builds a machine on its executor's thread, from its log buffers.
pub type Build = Box<dyn FnOnce(Vec<AlignedBuffer>) -> Box<dyn Machine> + Send>;

/// Told when a machine has ended, on its executor's thread.
pub type OnEnd = Box<dyn FnOnce(&Ended) + Send>;

/// Log buffers that a machine is given, registered with its ring if the host allows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogBuffers {
    /// How many.
    pub count: usize,
    /// Capacity of each, bytes.
    pub bytes: usize,
}

/// A machine to run.
pub struct Hosting {
    /// Its name, for people.
    pub name: String,
    /// Who it says that it is.
    pub identity: Identity,
    /// Where it listens; already bound, so that the address is known and errors are the caller's.
    pub listener: TcpListener,
    /// Its files, if it is a storage core.
    pub files: Option<CoreFiles>,
    /// Its log buffers, if it has a log.
    pub log_buffers: Option<LogBuffers>,
    /// Memory that its thread takes before it is made, bytes: what it will need.
    pub reserve_bytes: usize,
    /// Makes it.
    pub build: Build,
    /// Told when it has ended.
    pub on_end: Option<OnEnd>,
}

impl fmt::Debug for Hosting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hosting")
            .field("name", &self.name)
            .field("listener", &self.listener)
            .finish_non_exhaustive()
    }
}

/// On which CPU an executor runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On any.
    Unpinned,
    /// On this one only.
    Cpu(usize),
    /// On the one that its messages come from while it has little to do, else on any. Of several machines on
    /// one executor: on any.
    Near,
}

/// Why an executor could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    /// The host does not let a machine have its ring.
    #[error(transparent)]
    Ring(#[from] PreflightError),
    /// There is no thread, or it could not be placed where it should be.
    #[error("executor {name} could not be started: {reason}")]
    Thread {
        /// The executor.
        name: String,
        /// Why.
        reason: String,
    },
}

/// A running executor. Dropping it stops its machines and waits for them.
#[derive(Debug)]
pub struct Executor {
    name: String,
    machines: Vec<String>,
    control: Arc<Control>,
    thread: Option<ExecutorJoinHandle<()>>,
}

/// Executors of this process that run.
static EXECUTORS: AtomicUsize = AtomicUsize::new(0);

/// Starts an executor that runs the machines of `hosted`, and returns when all have been built.
///
/// # Errors
/// [`StartError`]; nothing runs then.
pub fn start(
    name: &str,
    placement: Placement,
    polling: Polling,
    hosted: Vec<Hosting>,
) -> Result<Executor, StartError> {
    let failed = |reason: String| StartError::Thread { name: name.to_owned(), reason };
    let control = Arc::new(Control::new(Signal::new().map_err(|error| failed(error.to_string()))?));
    let machines = hosted.iter().map(|hosting| hosting.name.clone()).collect();
    let cpus = cpus::count();
    let glommio_placement = match placement {
        Placement::Unpinned | Placement::Near => glommio::Placement::Unbound,
        Placement::Cpu(cpu) => glommio::Placement::Fixed(cpu),
    };
    // Who sleeps in a ring is not woken by glommio, and needs no watchdog.
    let seat = (hosted.len() > 1).then(watchdog::seat).transpose();
    let seat = seat.map_err(|error| failed(error.to_string()))?;
    let (sender, receiver) = channel();
    let thread = LocalExecutorBuilder::new(glommio_placement)
        .name(name)
        .io_memory(GLOMMIO_MEMORY_BYTES)
        .ring_depth(GLOMMIO_RING_ENTRIES)
        .spawn({
            let control = Arc::clone(&control);
            move || async move {
                let short_slices = slice::ask_for_short();
                tracing::debug!(short_slices, "how this thread is scheduled");
                let poller = Poller::new(polling);
                let cpu = if let Placement::Cpu(cpu) = placement { Some(cpu) } else { None };
                let delays = ThreadDelays::of_this_thread(cpu);
                let near = (placement == Placement::Near).then(Near::of_this_thread).flatten();
                let host =
                    Host { drivers: Vec::new(), on_ends: Vec::new(), control, poller, delays, near, cpus };
                if let Some(seat) = &seat {
                    seat.watch(poll_fn(|cx| Poll::Ready(cx.waker().clone())).await);
                }
                host.run(hosted, sender).await;
                drop(seat);
                // The watchdog may have woken us a moment ago; the executor drops such wake-ups when it looks
                // at its timers.
                glommio::timer::sleep(Duration::from_micros(1)).await;
            }
        })
        .map_err(|error| failed(error.to_string()))?;
    match receiver.recv() {
        Ok(Ok(())) => Ok(Executor { name: name.to_owned(), machines, control, thread: Some(thread) }),
        Ok(Err(error)) => {
            let _has_said_why = thread.join();
            Err(error)
        }
        // The thread has ended without a word: glommio could not make its executor, or a machine's maker
        // panicked.
        Err(_) => {
            let reason = thread.join().err().map_or("it ended at once".to_owned(), |error| error.to_string());
            Err(failed(reason))
        }
    }
}

impl Executor {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Tells every machine to hand over, finish, and end.
    pub fn drain(&self) {
        self.control.tell(Command::Drain);
    }

    /// Ends every machine now: nothing more is executed, connections are closed, disk operations are waited
    /// for.
    pub fn stop(&self) {
        self.control.tell(Command::Stop);
    }

    /// The machines that have ended so far, in that order.
    #[must_use]
    pub fn ended(&self) -> Vec<Ended> {
        self.control.ended()
    }

    /// Whether all machines have ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.control.ended().len() == self.machines.len()
    }

    /// Waits until all machines have ended. Returns how each did, in the order of their endings.
    #[must_use]
    pub fn join(mut self) -> Vec<Ended> {
        self.wait();
        self.control.ended()
    }

    fn wait(&mut self) {
        let Some(thread) = self.thread.take() else {
            return;
        };
        if let Err(error) = thread.join() {
            tracing::error!(executor = self.name, %error, "an executor's thread ended by a panic");
            let ended = self.control.ended();
            let missing = self.machines.iter().filter(|name| !ended.iter().any(|other| other.name == **name));
            for name in missing {
                let halt = Halt(format!("its executor's thread ended: {error}"));
                self.control.note(Ended { name: name.clone(), outcome: Outcome::Halted(halt) });
            }
        }
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.stop();
            self.wait();
        }
    }
}

/// Counts an executor as long as it runs.
struct Counted;

impl Counted {
    fn new() -> Self {
        EXECUTORS.fetch_add(1, Ordering::Relaxed);
        Self
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        EXECUTORS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The task of an executor.
struct Host {
    drivers: Vec<Driver>,
    /// Whom to tell, for each driver.
    on_ends: Vec<Option<OnEnd>>,
    control: Arc<Control>,
    poller: Poller,
    delays: ThreadDelays,
    near: Option<Near>,
    cpus: usize,
}

impl Host {
    async fn run(mut self, hosted: Vec<Hosting>, started: Sender<Result<(), StartError>>) {
        let pollable = match self.set_up(hosted) {
            Ok(pollable) => pollable,
            Err(error) => {
                let _caller_is_gone = started.send(Err(error));
                return;
            }
        };
        let _counted = Counted::new();
        let _caller_is_gone = started.send(Ok(()));
        if self.drivers.len() == 1 {
            return self.run_alone();
        }
        while !self.drivers.is_empty() {
            let command = self.control.command();
            let mut worked = false;
            for driver in &mut self.drivers {
                worked |= driver.turn(command, &mut self.delays);
            }
            self.bury();
            if worked {
                glommio::yield_if_needed().await;
            } else if !self.drivers.is_empty() {
                self.idle(&pollable).await;
            }
        }
    }

    /// Runs the only driver. The task never returns to glommio meanwhile: nobody else is there.
    fn run_alone(mut self) {
        self.drivers[0].watch_signal();
        while let [driver] = &mut self.drivers[..] {
            // In this order: a command that is told from here on raises the signal again.
            if driver.take_raised() {
                self.control.signal.clear();
            }
            let worked = driver.turn(self.control.command(), &mut self.delays);
            if let Some(near) = &mut self.near {
                near.look(driver.turned_at(), || driver.came_from());
            }
            self.bury();
            if !worked && !self.drivers.is_empty() && self.poll_for_work().is_none() {
                self.drivers[0].sleep();
                self.delays.parked = true;
            }
        }
    }

    /// Makes the drivers, and what this task waits with.
    fn set_up(&mut self, hosted: Vec<Hosting>) -> Result<PollableFd<Arc<Signal>>, StartError> {
        for hosting in hosted {
            self.host(hosting)?;
        }
        PollableFd::new(Arc::clone(&self.control.signal))
            .map_err(|error| StartError::Thread { name: "executor".to_owned(), reason: error.to_string() })
    }

    fn host(&mut self, hosting: Hosting) -> Result<(), StartError> {
        let Hosting { name, identity, listener, files, log_buffers, reserve_bytes, build, on_end } = hosting;
        let reserved = reserve::reserve(reserve_bytes);
        tracing::debug!(machine = name, reserve_bytes, reserved, "memory");
        let mut ring = Ring::new(Arc::clone(&self.control.signal)).map_err(explain)?;
        let LogBuffers { count, bytes } = log_buffers.unwrap_or(LogBuffers { count: 0, bytes: 0 });
        let mut buffers: Vec<AlignedBuffer> =
            (0..count).map(|_| AlignedBuffer::with_capacity(bytes)).collect();
        if !buffers.is_empty()
            && let Err(error) = ring.register(&mut buffers)
        {
            tracing::warn!(
                machine = name, %error,
                "log buffers are not registered, writes cost a little more; raise the limit: ulimit -l \
                 unlimited"
            );
        }
        let disk = Disk::new(files, &buffers);
        let network = Network::new(name.clone(), identity, listener);
        self.drivers.push(Driver::new(name, build(buffers), ring, network, disk));
        self.on_ends.push(on_end);
        Ok(())
    }

    /// Removes machines that have ended.
    fn bury(&mut self) {
        let mut place = 0;
        while place < self.drivers.len() {
            let Some(ended) = self.drivers[place].ended() else {
                place += 1;
                continue;
            };
            // First the machine's files and sockets, then the news.
            drop(self.drivers.remove(place));
            let on_end = self.on_ends.remove(place);
            self.control.note(ended.clone());
            if let Some(on_end) = on_end {
                on_end(&ended);
            }
        }
    }

    /// Waits for work: polls as long as it pays, then parks.
    async fn idle(&mut self, pollable: &PollableFd<Arc<Signal>>) {
        if self.poll_for_work().is_none() {
            self.park(pollable).await;
        }
    }

    /// Polls as long as it pays. Returns how long it took until there was work, if any came.
    fn poll_for_work(&mut self) -> Option<Duration> {
        let since = clock::boot();
        let budget = self.poller.budget(since, EXECUTORS.load(Ordering::Relaxed) > self.cpus);
        let found_after = if budget.is_zero() { None } else { self.poll(since, budget) };
        self.poller.note(budget, found_after);
        found_after
    }

    /// Looks at the rings until there is work or `budget` is used up. Returns how long it took to find some.
    fn poll(&mut self, since: Boot, budget: Duration) -> Option<Duration> {
        let deadline = self.drivers.iter_mut().map(Driver::deadline).min().unwrap_or_default();
        let mut looked = since;
        loop {
            let has_work = self.drivers.iter_mut().any(Driver::has_work);
            let now = clock::boot();
            self.poller.looked(now, now.since(looked));
            self.delays.quiet_at = looked;
            looked = now;
            let idle = now.since(since);
            if has_work || now >= deadline {
                return Some(idle);
            }
            if idle >= budget {
                return None;
            }
            std::hint::spin_loop();
        }
    }

    async fn park(&mut self, pollable: &PollableFd<Arc<Signal>>) {
        self.drivers.iter_mut().for_each(Driver::prepare_to_park);
        if !self.drivers.iter_mut().any(Driver::has_work)
            && let Err(error) = pollable.readable().await
        {
            tracing::error!(%error, "waiting for the signal failed");
            glommio::timer::sleep(Duration::from_millis(1)).await;
        }
        self.control.signal.clear();
        self.delays.parked = true;
        self.drivers.iter_mut().for_each(Driver::unparked);
    }
}
