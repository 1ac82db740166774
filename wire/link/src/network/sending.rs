//! From a turn's outboxes to sends: one for each destination, with at most one in flight for each connection.
//!
//! A peer that does not read is not read from, and is given up when that does not help. A link that is not up
//! yet gathers what is sent to it.

use super::Network;
use super::connection::{Connection, Phase};
use crate::limits::{
    LINK_QUEUE_BYTES_MAX, SEND_BYTES_MAX, UNSENT_BYTES_MAX, UNSENT_PAUSE_BYTES, UNSENT_RESUME_BYTES,
};
use crate::links::Way;
use crate::ring::{Payload, Ring};
use crate::socket;
use crate::turn::Turn;
use evenkeel_wire::turn::{Boot, Endpoint};
use std::net::{Shutdown, SocketAddr};

impl Network {
    /// Sends `bytes` to `to`, or queues them. Returns a buffer to be used again.
    pub(crate) fn send(
        &mut self,
        ring: &mut Ring,
        now: Boot,
        to: Endpoint,
        bytes: Vec<u8>,
    ) -> Option<Vec<u8>> {
        if bytes.is_empty() {
            return Some(bytes);
        }
        match to {
            Endpoint::Incoming(id) => match self.place_of(id) {
                Some(place) => self.send_through(now, place, bytes),
                None => Some(bytes),
            },
            Endpoint::Outgoing(address) => match self.links.way(now, address) {
                Way::Through(place) => self.send_through(now, place, bytes),
                Way::Open => self.open(ring, now, address, bytes),
                Way::Closed => {
                    self.downs.push(to);
                    Some(bytes)
                }
            },
        }
    }

    fn send_through(&mut self, now: Boot, place: u32, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let connection = self.connections.get_mut(place)?;
        match connection.phase {
            Phase::Up => {
                let spare = connection.sending.add(bytes);
                self.list(place);
                spare
            }
            Phase::Connecting | Phase::Greeting if !connection.is_incoming() => {
                connection.queued.extend_from_slice(&bytes);
                if connection.queued.len() > LINK_QUEUE_BYTES_MAX {
                    let endpoint = connection.endpoint;
                    tracing::warn!(machine = self.name, ?endpoint, "too much waits for a link");
                    self.part(now, place, Phase::Closing);
                }
                Some(bytes)
            }
            Phase::Connecting | Phase::Greeting | Phase::Leaving | Phase::Closing => Some(bytes),
        }
    }

    fn open(&mut self, ring: &mut Ring, now: Boot, address: SocketAddr, bytes: Vec<u8>) -> Option<Vec<u8>> {
        let stream = match socket::open(address) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(machine = self.name, %address, %error, "no socket for a link");
                self.links.lost(now, address);
                self.downs.push(Endpoint::Outgoing(address));
                return Some(bytes);
            }
        };
        let place = self.insert(now, stream, Phase::Connecting, |_| Endpoint::Outgoing(address));
        self.links.opening(address, place);
        let connection = self.connections.get_mut(place).expect("it was just inserted");
        connection.queued = bytes;
        connection.connect = Some(ring.connect(place, &connection.stream, address));
        None
    }

    /// Closes a link once what was sent on it is out.
    pub(crate) fn close(&mut self, now: Boot, endpoint: Endpoint) {
        let place = match endpoint {
            Endpoint::Incoming(id) => self.place_of(id),
            Endpoint::Outgoing(address) => match self.links.way(now, address) {
                Way::Through(place) => Some(place),
                Way::Open | Way::Closed => None,
            },
        };
        let Some(connection) = place.and_then(|place| self.connections.get_mut(place)) else {
            return;
        };
        match (connection.phase, place) {
            (Phase::Connecting | Phase::Greeting, _) => connection.close_when_up = true,
            (Phase::Up, Some(place)) => self.leave(now, place),
            (Phase::Up | Phase::Leaving | Phase::Closing, _) => {}
        }
    }

    /// Parts with a connection because the machine wants it.
    pub(super) fn leave(&mut self, now: Boot, place: u32) {
        if let Some(Endpoint::Outgoing(address)) =
            self.connections.get(place).map(|connection| connection.endpoint)
        {
            self.links.closed(now, address);
        }
        self.part(now, place, Phase::Leaving);
    }

    /// A send has ended.
    pub(super) fn sent(
        &mut self,
        ring: &mut Ring,
        turn: &mut Turn<'_>,
        place: u32,
        result: Result<u32, i32>,
        payload: Payload,
    ) {
        let Payload::Bytes(bytes) = payload else {
            unreachable!("a send gives its memory back");
        };
        let connection = self.connections.get_mut(place).expect("it has an operation in flight");
        connection.send = None;
        match result {
            _ if connection.phase == Phase::Closing => turn.effects.recycle(bytes),
            Ok(sent) if sent > 0 => match connection.sending.sent(sent as usize) {
                0 => turn.effects.recycle(bytes),
                left => begin_send(ring, place, connection, bytes, left),
            },
            Ok(_) | Err(_) => {
                tracing::debug!(machine = self.name, endpoint = ?connection.endpoint, ?result, "not sent");
                self.part(turn.now.boot, place, Phase::Closing);
            }
        }
        self.list(place);
    }

    /// Goes on with a connection at the end of a turn: sends what has gathered, receives if it may.
    pub(super) fn go_on(&mut self, ring: &mut Ring, now: Boot, place: u32) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        if let Some(bytes) = connection.sending.begin() {
            let all = bytes.len();
            begin_send(ring, place, connection, bytes, all);
        }
        let unsent = connection.sending.unsent();
        if unsent > UNSENT_BYTES_MAX {
            let endpoint = connection.endpoint;
            tracing::warn!(machine = self.name, ?endpoint, unsent, "a peer does not read");
            return self.part(now, place, Phase::Closing);
        }
        let may_pause = connection.phase == Phase::Up && connection.is_incoming();
        if may_pause && !connection.paused && unsent > UNSENT_PAUSE_BYTES {
            connection.paused = true;
            if let Some(receive) = connection.receive {
                ring.cancel(receive);
            }
        }
        let resumed = connection.paused && unsent < UNSENT_RESUME_BYTES;
        if resumed {
            connection.paused = false;
        }
        if !connection.paused && !connection.hung_up && connection.receive.is_none() {
            connection.receive = Some(ring.receive(place, &connection.stream));
        }
        if connection.phase == Phase::Leaving && unsent == 0 {
            if connection.hung_up {
                return self.part(now, place, Phase::Closing);
            }
            if !connection.shut {
                connection.shut = true;
                // A socket that is no longer connected ends by itself.
                let _not_connected = connection.stream.shutdown(Shutdown::Write);
            }
        }
        if resumed {
            self.make_ready(place);
        }
    }
}

/// Sends the next piece of the last `left` bytes.
fn begin_send(ring: &mut Ring, place: u32, connection: &mut Connection, bytes: Vec<u8>, left: usize) {
    let from = bytes.len() - left;
    let part = from..from + left.min(SEND_BYTES_MAX);
    connection.send = Some(ring.send(place, &connection.stream, bytes, part));
}
