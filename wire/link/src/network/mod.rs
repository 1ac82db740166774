//! The connections of one machine: those that others open to it, and those that it opens.
//!
//! Invariants:
//! * The machine sees no frame before `Input::Up` and none after `Input::Down`, and never a frame of the
//!   handshake.
//! * `Input::Down` comes exactly once for a link that was up, or to which something was sent.
//! * A connection's place and socket are used again only when none of its operations is in flight.
//! * Whatever a peer sends costs at most its own connection.
//!
//! * [`receiving`]: from received bytes to executed frames. [`sending`]: from a turn's outboxes to sends.
//! * [`connection`]: one connection. [`held`]: its incomplete frames.
//!
//! What it does not do: read a clock, or decide when a turn is. The driver does both.

mod connection;
mod held;
mod receiving;
mod sending;

use crate::limits::{ACCEPT_PAUSE, CONNECTIONS_MAX, HELLO_WITHIN, LEAVE_WITHIN, REFUSALS_MAX};
use crate::links::{Links, Way};
use crate::ring::{Completion, Key, Payload, Ring, SocketToken};
use crate::slots::Slots;
use crate::socket;
use crate::turn::Turn;
use connection::{Connection, Phase};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::handshake::Identity;
use evenkeel_wire::turn::{Boot, ConnectionId, Endpoint, Input};
use rustix::net::sockopt::socket_incoming_cpu;
use std::collections::VecDeque;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;

/// Bits of a connection's id that name its place; the others count connections, so no id comes twice.
const PLACE_BITS: u32 = 20;

const _: () = assert!(2 * (CONNECTIONS_MAX + REFUSALS_MAX + crate::limits::LINKS_MAX) < 1 << PLACE_BITS);

/// A time by which a connection must have got further.
#[derive(Clone, Copy, Debug)]
struct Deadline {
    at: Boot,
    place: u32,
    serial: u64,
}

/// All connections of a machine.
pub(crate) struct Network {
    name: String,
    identity: Identity,
    listener: TcpListener,
    accept: Option<Key>,
    /// When to accept again, after a failure.
    accept_at: Boot,
    connections: Slots<Connection>,
    /// Connections that others have opened.
    incoming: usize,
    serials: u64,
    links: Links,
    /// Bytes that all connections hold.
    held: usize,
    /// Lost links of which the machine has not been told.
    downs: Vec<Endpoint>,
    /// Connections for which something must be done at the end of the turn.
    listed: Vec<u32>,
    /// Connections with whole frames that wait for their turn.
    ready: VecDeque<u32>,
    /// Both in ascending order, because the time allowed is the same for all.
    greeting: VecDeque<Deadline>,
    leaving: VecDeque<Deadline>,
    /// Where something came from last.
    heard: u32,
    ending: bool,
}

impl Network {
    pub(crate) fn new(name: String, identity: Identity, listener: TcpListener) -> Self {
        if let Ok(address) = listener.local_addr() {
            socket::do_not_pace_within_host(&listener, address);
        }
        Self {
            name,
            identity,
            listener,
            accept: None,
            accept_at: Boot(0),
            connections: Slots::default(),
            incoming: 0,
            serials: 0,
            links: Links::default(),
            held: 0,
            downs: Vec::new(),
            listed: Vec::new(),
            ready: VecDeque::new(),
            greeting: VecDeque::new(),
            leaving: VecDeque::new(),
            heard: 0,
            ending: false,
        }
    }

    /// Whether there is something to execute without anything arriving.
    pub(crate) fn has_work(&self) -> bool {
        !self.downs.is_empty() || !self.ready.is_empty() || !self.listed.is_empty()
    }

    /// The CPU on which the kernel received what came last.
    pub(crate) fn came_from(&self) -> Option<usize> {
        let stream = &self.connections.get(self.heard)?.stream;
        socket_incoming_cpu(stream).ok().map(|cpu| cpu as usize)
    }

    /// Whether every connection is gone and nobody is let in.
    pub(crate) fn is_over(&self) -> bool {
        self.ending && self.connections.is_empty() && self.accept.is_none()
    }

    /// When time alone makes something happen here.
    pub(crate) fn deadline(&mut self) -> Boot {
        let connections = &self.connections;
        let is_stale = |deadline: &Deadline, phases: [Phase; 2]| {
            connections.get(deadline.place).is_none_or(|connection| {
                connection.serial != deadline.serial || !phases.contains(&connection.phase)
            })
        };
        while self.greeting.front().is_some_and(|first| is_stale(first, [Phase::Connecting, Phase::Greeting]))
        {
            self.greeting.pop_front();
        }
        while self.leaving.front().is_some_and(|first| is_stale(first, [Phase::Leaving, Phase::Leaving])) {
            self.leaving.pop_front();
        }
        let accept = if self.accept.is_none() && !self.ending { self.accept_at } else { Boot::NEVER };
        let first = |deadlines: &VecDeque<Deadline>| deadlines.front().map_or(Boot::NEVER, |first| first.at);
        accept.min(first(&self.greeting)).min(first(&self.leaving))
    }

    /// Does what is due.
    pub(crate) fn overdue(&mut self, now: Boot) {
        while self.deadline() <= now {
            let is_due =
                |deadlines: &VecDeque<Deadline>| deadlines.front().is_some_and(|first| first.at <= now);
            if is_due(&self.greeting) {
                let late = self.greeting.pop_front().expect("there is a first");
                self.greeting_took_too_long(now, late.place);
            } else if is_due(&self.leaving) {
                let late = self.leaving.pop_front().expect("there is a first");
                self.part(now, late.place, Phase::Closing);
            } else {
                return; // Accepting: `tend` does it.
            }
        }
    }

    fn greeting_took_too_long(&mut self, now: Boot, place: u32) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        if connection.is_incoming() {
            let message = format!("no Hello came within {} s; greet first", HELLO_WITHIN.as_secs());
            self.refuse(now, place, &Problem::new(ErrorCode::HandshakeRefused, message));
        } else {
            tracing::debug!(machine = self.name, endpoint = ?connection.endpoint, "no answer to our Hello");
            self.part(now, place, Phase::Closing);
        }
    }

    /// Tells the machine which links it has lost.
    pub(crate) fn deliver_downs(&mut self, turn: &mut Turn<'_>) {
        for endpoint in std::mem::take(&mut self.downs) {
            turn.step(Input::Down { endpoint });
        }
    }

    /// Takes a completion of what `token` says.
    pub(crate) fn complete(
        &mut self,
        ring: &mut Ring,
        turn: &mut Turn<'_>,
        token: SocketToken,
        completion: Completion,
    ) {
        let now = turn.now.boot;
        let Completion { result, last, payload, .. } = completion;
        match token {
            SocketToken::Accept => self.accepted(now, result, last, payload),
            SocketToken::Connect(place) => self.connected(now, place, result),
            SocketToken::Receive(place) => self.received(ring, turn, place, result, last, payload),
            SocketToken::Send(place) => self.sent(ring, turn, place, result, payload),
        }
    }

    fn accepted(&mut self, now: Boot, result: Result<u32, i32>, last: bool, payload: Payload) {
        if last {
            self.accept = None;
        }
        match (result, payload) {
            (Ok(_), Payload::Accepted(descriptor)) => self.admit(now, descriptor),
            (Err(libc::ECANCELED | libc::ECONNABORTED | libc::EINTR), _) => {}
            (Err(errno), _) => {
                tracing::warn!(machine = self.name, errno, "connections cannot be accepted for a moment");
                self.accept_at = now.after(ACCEPT_PAUSE);
            }
            (Ok(_), _) => unreachable!("an accept brings a connection"),
        }
    }

    fn admit(&mut self, now: Boot, descriptor: OwnedFd) {
        let stream = TcpStream::from(descriptor);
        if self.ending || self.incoming >= CONNECTIONS_MAX + REFUSALS_MAX || socket::tune(&stream).is_err() {
            return;
        }
        self.incoming += 1;
        let place = self.insert(now, stream, Phase::Greeting, Endpoint::Incoming);
        if self.incoming > CONNECTIONS_MAX {
            let message =
                format!("{CONNECTIONS_MAX} connections are open, which is the bound; try again in a moment");
            self.refuse(now, place, &Problem::new(ErrorCode::Overloaded, message));
        }
    }

    fn insert(
        &mut self,
        now: Boot,
        stream: TcpStream,
        phase: Phase,
        endpoint: impl FnOnce(ConnectionId) -> Endpoint,
    ) -> u32 {
        self.serials += 1;
        let (serial, place) = (self.serials, self.connections.next_place());
        assert!(place < 1 << PLACE_BITS, "the bounds on connections keep places small");
        let endpoint = endpoint(ConnectionId(serial << PLACE_BITS | u64::from(place)));
        self.connections.insert(Connection::new(stream, endpoint, serial, phase));
        self.greeting.push_back(Deadline { at: now.after(HELLO_WITHIN), place, serial });
        self.list(place);
        place
    }

    /// The place of a connection that somebody else has opened, if it is still there.
    fn place_of(&self, id: ConnectionId) -> Option<u32> {
        let place = (id.0 & ((1 << PLACE_BITS) - 1)) as u32;
        let connection = self.connections.get(place)?;
        (connection.endpoint == Endpoint::Incoming(id)).then_some(place)
    }

    /// Has a connection tended at the end of the turn.
    fn list(&mut self, place: u32) {
        if let Some(connection) = self.connections.get_mut(place)
            && !connection.listed
        {
            connection.listed = true;
            self.listed.push(place);
        }
    }

    /// Parts with a connection: at once, or once everything on it is out. The machine is told if it must be.
    fn part(&mut self, now: Boot, place: u32, manner: Phase) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        let owes_down = connection.owes_down();
        if connection.phase == Phase::Closing || (connection.phase == manner) {
            return;
        }
        connection.phase = manner;
        connection.paused = false;
        connection.queued = Vec::new();
        self.held -= connection.held.len();
        connection.held = held::Held::default();
        let (endpoint, serial) = (connection.endpoint, connection.serial);
        if manner == Phase::Leaving {
            self.leaving.push_back(Deadline { at: now.after(LEAVE_WITHIN), place, serial });
        }
        self.list(place);
        if owes_down && !self.ending {
            self.downs.push(endpoint);
            if let Endpoint::Outgoing(address) = endpoint
                && self.links.way(now, address) == Way::Through(place)
                && self.links.lost(now, address)
            {
                tracing::warn!(machine = self.name, %address, "link lost, or not to be opened");
            }
        }
    }

    /// Ends all connections: at once, or once everything on them is out. Nobody is let in any more, and the
    /// machine is told nothing.
    pub(crate) fn end(&mut self, ring: &mut Ring, now: Boot, politely: bool) {
        self.ending = true;
        self.downs.clear();
        if let Some(accept) = self.accept {
            ring.cancel(accept);
        }
        for place in self.connections.places() {
            let up = self.connections.get(place).is_some_and(Connection::takes_frames);
            self.part(now, place, if politely && up { Phase::Leaving } else { Phase::Closing });
        }
        self.tend(ring, now);
    }

    /// Does for connections and the listener what the turn has made necessary.
    pub(crate) fn tend(&mut self, ring: &mut Ring, now: Boot) {
        if self.accept.is_none() && !self.ending && self.accept_at <= now {
            self.accept = Some(ring.accept(&self.listener));
        }
        while let Some(place) = self.listed.pop() {
            if let Some(connection) = self.connections.get_mut(place) {
                connection.listed = false;
                self.tend_connection(ring, now, place);
            }
        }
    }

    fn tend_connection(&mut self, ring: &mut Ring, now: Boot, place: u32) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        match connection.phase {
            Phase::Connecting => {}
            Phase::Greeting | Phase::Up | Phase::Leaving => self.go_on(ring, now, place),
            Phase::Closing => {
                if !connection.cancelled {
                    connection.cancelled = true;
                    connection.sending.forget();
                    connection.operations().for_each(|operation| ring.cancel(operation));
                }
                if connection.operations().next().is_none() {
                    self.incoming -= usize::from(connection.is_incoming());
                    self.connections.remove(place);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
