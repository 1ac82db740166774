//! Tickets and timers of an async client: what futures wait for, and until when.
//!
//! # Invariants
//!
//! * A ticket has an outcome by its time: every ticket without one has a timer.
//! * A ticket that nobody waits for any more is kept, with its lease on tokens, until its request is
//!   answered, lost or late.

use super::driver::Resolved;
use super::hub::{Reply, TicketId, TicketOutcome};
use super::line::{Moved, Outgoing};
use super::slots::{REOPEN_AFTER, Slots, Wanted};
use crate::config::Settings;
use crate::error::Error;
use crate::host::{Clock, cannot_connect, connection_lost, silent};
use crate::protocol::call::{Failure, Sending};
use crate::protocol::session::{Session, TokenLease};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::turn::Boot;
use polling::Poller;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;
use std::task::{Poll, Waker};
use std::time::Duration;

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    clock: Clock,
    session: Arc<Session>,
    poller: Arc<Poller>,
    connect_timeout: Duration,
    slots: Slots,
    tickets: BTreeMap<TicketId, Ticket>,
    next_ticket: u64,
    timers: BTreeSet<(Boot, Timer)>,
    pauses: BTreeMap<TicketId, Waker>,
    wakers: Vec<Waker>,
    /// When the thread will wake by itself, while it sleeps.
    asleep_until: Option<Boot>,
    closed: bool,
}

#[derive(Debug)]
struct Ticket {
    line: usize,
    by: Boot,
    stage: Stage,
    waker: Option<Waker>,
    /// Whether nobody waits any more.
    abandoned: bool,
    /// Keeps the request's tokens outstanding.
    _lease: Option<Arc<TokenLease>>,
}

#[derive(Debug)]
enum Stage {
    /// The line is not open yet. Without a request, to be open is all that is waited for.
    Queued(Option<Outgoing>),
    UnderWay(RequestId),
    Done(TicketOutcome),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    Ticket(TicketId),
    Pause(TicketId),
    Opening(usize),
}

impl State {
    pub(super) fn new(settings: Settings, clock: Clock, session: Arc<Session>, poller: Arc<Poller>) -> Self {
        Self {
            clock,
            session,
            poller,
            connect_timeout: settings.connect_timeout,
            slots: Slots::new(settings),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            timers: BTreeSet::new(),
            pauses: BTreeMap::new(),
            wakers: Vec::new(),
            asleep_until: None,
            closed: false,
        }
    }

    /// Begins to open all connections. The ticket is for the first.
    pub(super) fn open_all(&mut self, by: Boot) -> TicketId {
        let line = self.slots.open_all();
        self.queue(line, None, by, None)
    }

    /// Sends a request, or queues it until a connection is open.
    pub(super) fn submit(&mut self, sending: &Sending<'_>) -> TicketId {
        let line = match sending.endpoint {
            Some(endpoint) => self.slots.open_line(vec![endpoint.to_owned()]),
            None => self.slots.choose(sending.wish, self.clock.now()),
        };
        let outgoing = Some(Outgoing::new(sending));
        let ticket = self.queue(line, outgoing, sending.answer_by, sending.lease.cloned());
        self.send_queued(line);
        ticket
    }

    fn queue(
        &mut self,
        key: usize,
        outgoing: Option<Outgoing>,
        by: Boot,
        lease: Option<Arc<TokenLease>>,
    ) -> TicketId {
        let id = self.next_ticket();
        let stage = Stage::Queued(outgoing);
        self.tickets
            .insert(id, Ticket { line: key, by, stage, waker: None, abandoned: false, _lease: lease });
        self.timers.insert((by, Timer::Ticket(id)));
        match self.slots.line(key) {
            Some(line) if !self.closed => line.queue.push_back(id),
            Some(_) | None => self.complete(id, Err(Failure::NotConnected(ended()))),
        }
        id
    }

    /// Sends what waited for a line to be open, if it is.
    fn send_queued(&mut self, key: usize) {
        let Some(line) = self.slots.line(key).filter(|line| line.is_open()) else {
            return;
        };
        let mut connected = Vec::new();
        while let Some(id) = line.queue.pop_front() {
            let Some(ticket) = self.tickets.get_mut(&id) else {
                continue;
            };
            let outgoing = match &ticket.stage {
                Stage::Queued(outgoing) => outgoing.as_ref(),
                Stage::UnderWay(_) | Stage::Done(_) => continue,
            };
            match outgoing.and_then(|outgoing| line.send(self.clock, id, outgoing)) {
                Some(request) => ticket.stage = Stage::UnderWay(request),
                None => connected.push(id),
            }
        }
        let flushed = line.flush();
        for id in connected {
            self.complete(id, Ok(None));
        }
        if let Err(error) = flushed {
            self.close_line(key, &Failure::Lost(error), Duration::ZERO);
        }
    }

    /// What a ticket led to, or whom to wake.
    pub(super) fn poll_ticket(&mut self, id: TicketId, waker: &Waker) -> Poll<TicketOutcome> {
        let Some(mut ticket) = self.tickets.remove(&id) else {
            return Poll::Ready(Err(Failure::NotConnected(ended())));
        };
        match ticket.stage {
            Stage::Done(outcome) => Poll::Ready(outcome),
            Stage::Queued(_) | Stage::UnderWay(_) => {
                if ticket.waker.as_ref().is_none_or(|known| !known.will_wake(waker)) {
                    ticket.waker = Some(waker.clone());
                }
                self.tickets.insert(id, ticket);
                Poll::Pending
            }
        }
    }

    /// Nobody waits for a ticket any more.
    pub(super) fn abandon(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.get_mut(&id) else {
            return;
        };
        let key = ticket.line;
        ticket.abandoned = true;
        ticket.waker = None;
        match ticket.stage {
            Stage::UnderWay(_) => return,
            Stage::Queued(_) => {
                if let Some(line) = self.slots.line(key) {
                    line.queue.retain(|queued| *queued != id);
                }
            }
            Stage::Done(_) => {}
        }
        self.complete(id, Ok(None));
        self.slots.close_if_unused(key);
    }

    /// A ticket has an outcome: whoever waits is woken.
    fn complete(&mut self, id: TicketId, outcome: TicketOutcome) {
        let Some(ticket) = self.tickets.get_mut(&id) else {
            return;
        };
        self.timers.remove(&(ticket.by, Timer::Ticket(id)));
        if ticket.abandoned {
            self.tickets.remove(&id);
            return;
        }
        ticket.stage = Stage::Done(outcome);
        self.wakers.extend(ticket.waker.take());
    }

    /// The endpoints of a line are resolved: it begins with the first address.
    pub(super) fn begin_to_open(&mut self, key: usize, endpoints: Vec<Resolved>) {
        if let Some(line) = self.slots.line(key) {
            line.set_candidates(endpoints);
            self.try_next_address(key);
        }
    }

    fn try_next_address(&mut self, key: usize) {
        let until = self.clock.now().after(self.connect_timeout);
        let Some(line) = self.slots.line(key) else {
            return;
        };
        if let Some(until) = line.opening_until() {
            self.timers.remove(&(until, Timer::Opening(key)));
        }
        match line.try_next_address(&self.poller, until) {
            Ok(()) => {
                self.timers.insert((until, Timer::Opening(key)));
            }
            Err(error) => self.close_line(key, &Failure::NotConnected(error), REOPEN_AFTER),
        }
    }

    /// A line's socket is ready.
    pub(super) fn on_ready(&mut self, key: usize, scratch: &mut [u8]) {
        let now = self.clock.now();
        let Some(line) = self.slots.line(key) else {
            return;
        };
        let opening_until = line.opening_until();
        let mut replies = Vec::new();
        let moved = line.on_ready(now, scratch, |id, answer| replies.push((id, Reply::new(answer))));
        for (id, reply) in replies {
            self.complete(id, Ok(Some(reply)));
        }
        match moved {
            Moved::On => self.slots.close_if_unused(key),
            Moved::Opened { server_ms } => {
                self.timers.remove(&(opening_until.unwrap_or(Boot::NEVER), Timer::Opening(key)));
                self.session.learn_clock(server_ms, now);
                self.send_queued(key);
            }
            Moved::NotOpened => self.try_next_address(key),
            Moved::Lost(error) => self.close_line(key, &Failure::Lost(error), Duration::ZERO),
        }
    }

    /// A line is of no more use. Whoever waits for something on it is told.
    fn close_line(&mut self, key: usize, failure: &Failure, reopen_after: Duration) {
        let closed_until = self.clock.now().after(reopen_after);
        let Some(line) = self.slots.remove(key, closed_until) else {
            return;
        };
        if let Some(until) = line.opening_until() {
            self.timers.remove(&(until, Timer::Opening(key)));
        }
        for id in line.requests.values().chain(&line.queue) {
            self.complete(*id, Err(failure.clone()));
        }
    }

    pub(super) fn look_at_timers(&mut self) {
        let now = self.clock.now();
        while let Some((at, timer)) = self.timers.first().copied()
            && at <= now
        {
            self.timers.remove(&(at, timer));
            match timer {
                Timer::Ticket(id) => self.on_late(id),
                Timer::Pause(id) => self.wakers.extend(self.pauses.remove(&id)),
                Timer::Opening(key) => {
                    if let Some(line) = self.slots.line(key) {
                        line.not_opened_in_time();
                    }
                    self.try_next_address(key);
                }
            }
        }
    }

    /// A ticket's time is up.
    fn on_late(&mut self, id: TicketId) {
        let Some(ticket) = self.tickets.get(&id) else {
            return;
        };
        let key = ticket.line;
        let line = self.slots.line(key);
        let endpoint = line.as_ref().map_or_else(String::new, |line| line.endpoint().to_owned());
        let failure = match ticket.stage {
            Stage::Queued(_) => {
                if let Some(line) = line {
                    line.queue.retain(|queued| *queued != id);
                }
                Failure::NotConnected(cannot_connect(&endpoint, silent()))
            }
            Stage::UnderWay(request) => {
                if let Some(line) = line {
                    line.forget(request);
                }
                Failure::Silent(connection_lost(&endpoint, silent()))
            }
            Stage::Done(_) => return,
        };
        self.complete(id, Err(failure));
        self.slots.close_if_unused(key);
    }

    pub(super) fn next_ticket(&mut self) -> TicketId {
        self.next_ticket += 1;
        TicketId(self.next_ticket)
    }

    /// Whether a pause is over, or whom to wake.
    pub(super) fn poll_pause(&mut self, id: TicketId, until: Boot, waker: &Waker) -> Poll<()> {
        if self.closed || self.clock.now() >= until {
            return Poll::Ready(());
        }
        self.pauses.insert(id, waker.clone());
        self.timers.insert((until, Timer::Pause(id)));
        Poll::Pending
    }

    pub(super) fn end_pause(&mut self, id: TicketId, until: Boot) {
        self.pauses.remove(&id);
        self.timers.remove(&(until, Timer::Pause(id)));
    }

    pub(super) fn take_wanted(&mut self) -> Vec<Wanted> {
        self.slots.take_wanted()
    }

    /// How long the thread may wait; `None` when it is to end.
    pub(super) fn before_waiting(&mut self) -> Option<Duration> {
        if self.closed {
            return None;
        }
        if self.slots.has_wanted() {
            return Some(Duration::ZERO);
        }
        let until = self.timers.first().map_or(Boot::NEVER, |(at, _)| *at);
        self.asleep_until = Some(until);
        Some(self.clock.left(until))
    }

    pub(super) fn woken(&mut self) {
        self.asleep_until = None;
    }

    /// Whether the thread sleeps although there is something for it to do earlier. It is woken once.
    pub(super) fn would_oversleep(&mut self) -> bool {
        let earlier = |until: Boot| {
            self.closed || self.slots.has_wanted() || self.timers.first().is_some_and(|(at, _)| *at < until)
        };
        let oversleeps = self.asleep_until.is_some_and(earlier);
        if oversleeps {
            self.asleep_until = None;
        }
        oversleeps
    }

    pub(super) fn take_wakers(&mut self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers)
    }

    /// The thread is to end.
    pub(super) fn close(&mut self) {
        self.closed = true;
    }

    /// The thread has ended: nothing will be answered.
    pub(super) fn end(&mut self) {
        self.closed = true;
        for key in self.slots.keys() {
            self.close_line(key, &Failure::Lost(ended()), Duration::ZERO);
        }
        self.wakers.extend(std::mem::take(&mut self.pauses).into_values());
    }
}

/// The error of those who wait for a thread that has ended.
fn ended() -> Error {
    let error = io::Error::new(io::ErrorKind::NotConnected, "the client's thread has ended");
    cannot_connect("any router", error)
}
