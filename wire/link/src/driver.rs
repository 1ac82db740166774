//! The driver: takes a machine through its turns.
//!
//! A turn is: take what has completed; read the clocks, once; execute each input; end the turn; perform its
//! effects. The order is a safety rule that leases rest on, so [`Driver::turn`] is the only place that reads
//! the clocks, and it does so after the ring has been emptied and before the machine is called.
//!
//! What a machine says in a turn in which it halts is not performed: it can no longer keep its promises, and
//! silence never breaks one. A machine that panics is halted in the same way; its neighbours go on.

use crate::clock;
use crate::control::{Command, Ended, Outcome};
use crate::delays::ThreadDelays;
use crate::disk::Disk;
use crate::limits::{COMPLETIONS_PER_TURN_MAX, ENTERS_PER_TURN_MAX};
use crate::network::Network;
use crate::ring::{Completion, Ring, Token};
use crate::turn::Turn;
use evenkeel_wire::turn::{Boot, Delays, Effects, Halt, Input, Machine, Now};
use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Where a machine stands.
#[derive(Debug)]
enum State {
    Running,
    /// Nothing is executed any more; what is in flight ends.
    Ending(Outcome),
    /// Nothing is in flight.
    Ended(Outcome),
}

/// A machine with everything that it needs.
pub(crate) struct Driver {
    name: String,
    machine: Box<dyn Machine>,
    effects: Effects,
    ring: Ring,
    network: Network,
    disk: Disk,
    /// What a turn has taken from the ring.
    batch: Vec<Completion>,
    /// Buffers on their way back to `effects`.
    spent: Vec<Vec<u8>>,
    turns: u64,
    /// When the ring was last emptied, and when the last turn's effects had been handed to the kernel.
    gathered: Boot,
    performed: Boot,
    /// They have not been yet.
    performing: bool,
    wake_at: Boot,
    drain_told: bool,
    state: State,
}

impl Driver {
    pub(crate) fn new(
        name: String,
        machine: Box<dyn Machine>,
        ring: Ring,
        network: Network,
        disk: Disk,
    ) -> Self {
        let wake_at = machine.wake_at();
        Self {
            name,
            machine,
            effects: Effects::new(),
            ring,
            network,
            disk,
            batch: Vec::new(),
            spent: Vec::new(),
            turns: 0,
            gathered: Boot(0),
            performed: Boot(0),
            performing: false,
            wake_at,
            drain_told: false,
            state: State::Running,
        }
    }

    /// Runs one turn. Returns whether there was anything in it.
    pub(crate) fn turn(&mut self, command: Command, delays: &mut ThreadDelays) -> bool {
        match catch_unwind(AssertUnwindSafe(|| self.run(command, delays))) {
            Ok(worked) => worked,
            Err(panic) => {
                let halt = Halt(format!("it panicked, which is a bug: {}", words_of(&*panic)));
                self.end(clock::boot(), Outcome::Halted(halt));
                true
            }
        }
    }

    fn run(&mut self, command: Command, delays: &mut ThreadDelays) -> bool {
        if let Err(error) = self.gather() {
            tracing::error!(machine = self.name, %error, "the ring does not work any more");
            self.state = State::Ended(Outcome::Halted(Halt(format!("the ring failed: {error}"))));
            return true;
        }
        // What this turn executes has been taken; nothing of it was executed yet. This is the one place for
        // this.
        let now = self.with_delays(clock::now(), delays);
        if command == Command::Stop && matches!(self.state, State::Running) {
            self.end(now.boot, Outcome::Stopped);
        }
        self.network.overdue(now.boot);
        self.disk.release(&mut self.ring, now.boot);
        let worked = match &self.state {
            State::Running => self.execute(now, command == Command::Drain),
            State::Ending(_) => self.wind_up(now),
            State::Ended(_) => false,
        };
        self.network.tend(&mut self.ring, now.boot);
        worked
    }

    /// Adds what the door knows of the time before this turn.
    fn with_delays(&mut self, now: Now, thread: &mut ThreadDelays) -> Now {
        let before = std::mem::replace(&mut self.gathered, now.boot);
        let (looked, kept_ns) = thread.look(now.boot, before.max(thread.quiet_at));
        let delays = Delays {
            looked,
            kept_ns,
            performed: self.performed,
            run_queue_ns: thread.run_queue_ns,
            stolen_ns: thread.stolen_ns,
        };
        Now { delays, ..now }
    }

    /// Takes what has arrived, as far as one turn may.
    fn gather(&mut self) -> io::Result<()> {
        for _ in 0..ENTERS_PER_TURN_MAX {
            self.ring.enter()?;
            if std::mem::take(&mut self.performing) {
                self.performed = clock::boot();
            }
            self.ring.take(COMPLETIONS_PER_TURN_MAX, &mut self.batch);
            if self.batch.len() == COMPLETIONS_PER_TURN_MAX || !self.ring.has_work() {
                break;
            }
        }
        Ok(())
    }

    /// Executes the inputs of a turn and performs its effects.
    fn execute(&mut self, now: Now, drain: bool) -> bool {
        let due = now.boot >= self.wake_at;
        let drain = drain && !self.drain_told;
        if self.batch.is_empty() && !due && !drain && !self.network.has_work() && !self.disk.has_ended() {
            return false;
        }
        self.turns += 1;
        let mut turn = Turn::new(self.turns, now, &mut *self.machine, &mut self.effects);
        self.network.deliver_downs(&mut turn);
        self.network.execute_ready(&mut turn);
        execute_batch(&mut self.batch, &mut self.ring, &mut self.network, &mut self.disk, &mut turn);
        self.disk.take_ended().into_iter().for_each(|ended| turn.step(Input::Disk(ended)));
        self.network.deliver_downs(&mut turn);
        if due {
            turn.step(Input::Wake);
        }
        if drain {
            self.drain_told = true;
            turn.step(Input::Drain);
        }
        if turn.end() {
            self.wake_at = self.machine.wake_at();
            self.perform(now.boot);
        }
        true
    }

    /// Performs what the turn wants done.
    fn perform(&mut self, now: Boot) {
        if let Some(halt) = self.effects.halt.take() {
            return self.end(now, Outcome::Halted(halt));
        }
        self.effects.took(clock::boot().since(now));
        self.performing = true;
        for (to, bytes) in self.effects.take_outboxes() {
            self.spent.extend(self.network.send(&mut self.ring, now, to, bytes));
        }
        self.spent.drain(..).for_each(|buffer| self.effects.recycle(buffer));
        for operation in self.effects.disk.drain(..) {
            self.disk.begin(&mut self.ring, now, operation);
        }
        for endpoint in self.effects.close.drain(..) {
            self.network.close(now, endpoint);
        }
        if std::mem::take(&mut self.effects.drained) && self.drain_told {
            self.end(now, Outcome::Drained);
        }
    }

    /// Stops executing. A drained machine's last words still go out.
    fn end(&mut self, now: Boot, outcome: Outcome) {
        if !matches!(self.state, State::Running) {
            return;
        }
        let politely = match &outcome {
            Outcome::Drained => true,
            Outcome::Stopped => false,
            Outcome::Halted(halt) => {
                tracing::error!(machine = self.name, reason = %halt, "halted");
                false
            }
        };
        self.network.end(&mut self.ring, now, politely);
        self.state = State::Ending(outcome);
    }

    /// Lets what is in flight end. The machine is called no more.
    fn wind_up(&mut self, now: Now) -> bool {
        let worked = !self.batch.is_empty();
        let mut turn = Turn::without_machine(self.turns, now, &mut self.effects);
        execute_batch(&mut self.batch, &mut self.ring, &mut self.network, &mut self.disk, &mut turn);
        self.network.tend(&mut self.ring, now.boot);
        if self.network.is_over() && self.disk.is_idle() {
            self.ring.disarm();
            if self.ring.is_quiet()
                && let State::Ending(outcome) = &self.state
            {
                self.state = State::Ended(outcome.clone());
                return true;
            }
        }
        worked
    }

    /// How the machine ended, if nothing of it is in flight any more.
    pub(crate) fn ended(&self) -> Option<Ended> {
        match &self.state {
            State::Ended(outcome) => Some(Ended { name: self.name.clone(), outcome: outcome.clone() }),
            State::Running | State::Ending(_) => None,
        }
    }

    /// When its last turn began.
    pub(crate) fn turned_at(&self) -> Boot {
        self.gathered
    }

    /// The CPU on which the kernel received what came last.
    pub(crate) fn came_from(&self) -> Option<usize> {
        self.network.came_from()
    }

    /// Whether a turn would find something, time aside.
    pub(crate) fn has_work(&mut self) -> bool {
        self.ring.has_work() || self.network.has_work() || self.disk.has_ended()
    }

    /// When time alone makes a turn necessary.
    pub(crate) fn deadline(&mut self) -> Boot {
        let machine = if matches!(self.state, State::Running) { self.wake_at } else { Boot::NEVER };
        machine.min(self.network.deadline()).min(self.disk.deadline())
    }

    /// Sleeps in the ring until something completes, time makes a turn necessary, or the signal is raised.
    /// For a driver that has its executor to itself, and [watches](Self::watch_signal) the signal.
    pub(crate) fn sleep(&mut self) {
        if self.network.has_work() || self.disk.has_ended() {
            return;
        }
        let (deadline, now) = (self.deadline(), clock::boot());
        if deadline <= now {
            return;
        }
        let at_most = (deadline != Boot::NEVER).then(|| deadline.since(now));
        if let Err(error) = self.ring.sleep(at_most) {
            // The next turn meets the same error and ends the machine.
            tracing::warn!(machine = self.name, %error, "the ring could not be waited for");
        }
    }

    /// Has the signal wake it from its sleep.
    pub(crate) fn watch_signal(&mut self) {
        self.ring.watch_signal();
    }

    /// Whether the signal was raised since this was last asked.
    pub(crate) fn take_raised(&mut self) -> bool {
        self.ring.take_raised()
    }

    /// Prepares for parking: what completes from now on, and the deadline, raise the signal. Look for work
    /// once more before parking.
    pub(crate) fn prepare_to_park(&mut self) {
        let deadline = self.deadline();
        if deadline != Boot::NEVER {
            self.ring.wake_at(deadline);
        }
        self.ring.listen(true);
        if let Err(error) = self.ring.enter() {
            // The next turn meets the same error and ends the machine.
            tracing::warn!(machine = self.name, %error, "the ring could not be entered before parking");
        }
    }

    /// The executor is awake again.
    pub(crate) fn unparked(&mut self) {
        self.ring.listen(false);
    }
}

/// Hands what a turn has taken from the ring to those who asked for it.
fn execute_batch(
    batch: &mut Vec<Completion>,
    ring: &mut Ring,
    network: &mut Network,
    disk: &mut Disk,
    turn: &mut Turn<'_>,
) {
    for completion in batch.drain(..) {
        match completion.token {
            Token::Socket(token) => network.complete(ring, turn, token, completion),
            Token::Disk(place) => {
                let Completion { result, payload, .. } = completion;
                if let Some(ended) = disk.complete(ring, place, result, payload) {
                    turn.step(Input::Disk(ended));
                }
            }
        }
    }
}

/// What a panic said.
fn words_of(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a word")
}
