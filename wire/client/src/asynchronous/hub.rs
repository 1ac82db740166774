//! What the thread and the futures of an async client share, behind one lock.
//!
//! The lock is held for as long as it takes to encode a frame, to move bytes between a socket and a buffer,
//! or to look something up; never while a name is resolved, while the thread waits, or while a waker runs.

use super::driver::Resolved;
use super::slots::Wanted;
use super::state::State;
use super::waiting::{Connected, Exchange, Pause};
use crate::config::Settings;
use crate::error::Error;
use crate::host::{Clock, cannot_connect, new_session};
use crate::protocol::answer::Answer;
use crate::protocol::call::{Failure, Sending};
use crate::protocol::retry::RetryPolicy;
use crate::protocol::session::Session;
use evenkeel_wire::frame::Header;
use evenkeel_wire::turn::Boot;
use polling::Poller;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct Hub {
    clock: Clock,
    session: Arc<Session>,
    policy: RetryPolicy,
    poller: Arc<Poller>,
    state: Mutex<State>,
}

/// Names what somebody waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TicketId(pub(super) u64);

/// An answer, taken out of its connection's buffer.
#[derive(Debug)]
pub(super) struct Reply {
    header: Header,
    body: Vec<u8>,
}

impl Reply {
    pub(super) fn new(answer: &Answer<'_>) -> Self {
        Self { header: answer.header, body: answer.body.to_vec() }
    }

    pub(super) fn answer(&self) -> Answer<'_> {
        Answer { header: self.header, body: &self.body }
    }
}

/// What a ticket led to: the reply, or nothing but a connection if that was all that was waited for.
pub(super) type TicketOutcome = Result<Option<Reply>, Failure>;

impl Hub {
    pub(super) fn new(settings: Settings) -> Result<Arc<Self>, Error> {
        let poller = Poller::new().map_err(|error| cannot_connect("the host's poller", error))?;
        let (poller, clock, session) = (Arc::new(poller), Clock::start(), new_session()?);
        let policy = settings.policy;
        let state = State::new(settings, clock, Arc::clone(&session), Arc::clone(&poller));
        Ok(Arc::new(Self { clock, session, policy, poller, state: Mutex::new(state) }))
    }

    pub(super) fn now(&self) -> Boot {
        self.clock.now()
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    pub(super) fn poller(&self) -> &Poller {
        &self.poller
    }

    /// The client's patience, with a call's own deadline if it has one.
    pub(super) fn policy(&self, deadline: Option<Duration>) -> RetryPolicy {
        RetryPolicy { deadline: deadline.unwrap_or(self.policy.deadline), ..self.policy }
    }

    /// Waits until there is a connection.
    pub(super) fn connected(self: &Arc<Self>) -> Connected {
        let by = self.now().after(self.policy.deadline);
        Connected::new(self, self.with_state(|state| state.open_all(by)))
    }

    /// Sends a request.
    pub(super) fn send(self: &Arc<Self>, sending: &Sending<'_>) -> Exchange {
        Exchange::new(self, self.with_state(|state| state.submit(sending)))
    }

    /// Waits until `until`.
    pub(super) fn pause(self: &Arc<Self>, until: Boot) -> Pause {
        Pause::new(self, until, self.with_state(State::next_ticket))
    }

    /// What a ticket led to, or whom to wake.
    pub(super) fn poll_ticket(&self, ticket: TicketId, waker: &Waker) -> Poll<TicketOutcome> {
        self.with_state(|state| state.poll_ticket(ticket, waker))
    }

    /// Nobody waits for a ticket any more.
    pub(super) fn abandon(&self, ticket: TicketId) {
        self.with_state(|state| state.abandon(ticket));
    }

    /// Whether a pause is over, or whom to wake.
    pub(super) fn poll_pause(&self, ticket: TicketId, until: Boot, waker: &Waker) -> Poll<()> {
        self.with_state(|state| state.poll_pause(ticket, until, waker))
    }

    /// Nobody waits for a pause any more.
    pub(super) fn end_pause(&self, ticket: TicketId, until: Boot) {
        self.with_state(|state| state.end_pause(ticket, until));
    }

    /// The client was dropped: the thread is to end.
    pub(super) fn close(&self) {
        self.with_state(State::close);
    }

    /// The thread has ended: nothing will be answered.
    pub(super) fn end(&self) {
        self.with_state(State::end);
    }

    /// Connections whose endpoints are to be resolved.
    pub(super) fn wanted(&self) -> Vec<Wanted> {
        self.with_state(State::take_wanted)
    }

    /// The endpoints of a connection are resolved.
    pub(super) fn begin_to_open(&self, key: usize, endpoints: Vec<Resolved>) {
        self.with_state(|state| state.begin_to_open(key, endpoints));
    }

    /// How long the thread may wait; `None` when it is to end.
    pub(super) fn before_waiting(&self) -> Option<Duration> {
        self.with_state(State::before_waiting)
    }

    /// Connections are ready, or the time has come.
    pub(super) fn after_waiting(&self, ready: impl Iterator<Item = usize>, scratch: &mut [u8]) {
        self.with_state(State::woken);
        for key in ready {
            self.with_state(|state| state.on_ready(key, scratch));
        }
        self.with_state(State::look_at_timers);
    }

    /// Does something under the lock; afterwards wakes those who have something now, and the thread if it
    /// would sleep too long.
    fn with_state<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let (outcome, wakers, oversleeps) = {
            let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let outcome = action(&mut state);
            (outcome, state.take_wakers(), state.would_oversleep())
        };
        if oversleeps {
            let _ = self.poller.notify();
        }
        for waker in wakers {
            waker.wake();
        }
        outcome
    }
}
