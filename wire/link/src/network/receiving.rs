//! From received bytes to executed frames, and the handshake before them.
//!
//! A frame is executed where it was received, in the ring's buffer, when all of it lies there. Otherwise its
//! bytes are held until the rest has come. Frames that this turn may not execute any more are held too, and
//! the connection is put into the queue of those that are ready.

use super::Network;
use super::connection::{Connection, Phase};
use crate::limits::{DISCARD_BYTES_MAX, FRAMES_PER_CONNECTION_MAX, HELD_BYTES_MAX};
use crate::ring::{Payload, Ring};
use crate::turn::Turn;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{Header, first_frame};
use evenkeel_wire::handshake::{Peer, answer, conclude, greet, refuse};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::turn::{Boot, Endpoint, Input};

impl Network {
    /// Something came from a connection, or it ended.
    pub(super) fn received(
        &mut self,
        ring: &mut Ring,
        turn: &mut Turn<'_>,
        place: u32,
        result: Result<u32, i32>,
        last: bool,
        payload: Payload,
    ) {
        if last {
            let connection = self.connections.get_mut(place).expect("it has an operation in flight");
            connection.receive = None;
            self.list(place);
        }
        self.heard = place;
        if let Payload::Received(received) = payload {
            self.feed(place, ring.received(&received), turn);
            ring.give_back(received);
        }
        match result {
            Ok(0) => self.hung_up(turn.now.boot, place),
            // All buffers were in use, or receiving was paused: `tend` goes on when it may.
            Ok(_) | Err(libc::ENOBUFS | libc::ECANCELED | libc::EINTR | libc::EAGAIN) => {}
            Err(errno) => {
                tracing::debug!(machine = self.name, place, errno, "a connection broke");
                self.part(turn.now.boot, place, Phase::Closing);
            }
        }
    }

    /// The peer has shut its half: nothing more will come. What is on its way to it still goes out, but what
    /// it asked and was not answered yet is lost to it.
    fn hung_up(&mut self, now: Boot, place: u32) {
        if let Some(connection) = self.connections.get_mut(place) {
            connection.hung_up = true;
            self.part(now, place, Phase::Leaving);
            self.list(place);
        }
    }

    fn feed(&mut self, place: u32, chunk: &[u8], turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        match connection.phase {
            Phase::Greeting | Phase::Up if connection.held.is_empty() => {
                let used = self.execute(place, chunk, turn);
                self.hold(place, &chunk[used..], turn.now.boot);
            }
            Phase::Greeting | Phase::Up => {
                self.hold(place, chunk, turn.now.boot);
                self.execute_held(place, turn);
            }
            Phase::Leaving => {
                connection.discarded += chunk.len();
                if connection.discarded > DISCARD_BYTES_MAX {
                    self.part(turn.now.boot, place, Phase::Closing);
                }
            }
            Phase::Connecting | Phase::Closing => {}
        }
    }

    fn hold(&mut self, place: u32, bytes: &[u8], now: Boot) {
        let Some(connection) = self.connections.get_mut(place).filter(|connection| connection.takes_frames())
        else {
            return;
        };
        connection.held.extend(bytes);
        self.held += bytes.len();
        if self.held > HELD_BYTES_MAX {
            let message = "too many incomplete frames are held for all connections; try again in a moment";
            self.refuse(now, place, &Problem::new(ErrorCode::Overloaded, message));
        }
    }

    fn execute_held(&mut self, place: u32, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        // Taken out meanwhile: executing needs the rest of the network.
        let mut held = std::mem::take(&mut connection.held);
        let before = held.len();
        let used = self.execute(place, held.bytes(), turn);
        held.advance(used);
        match self.connections.get_mut(place).filter(|connection| connection.takes_frames()) {
            Some(connection) => {
                connection.held = held;
                self.held -= used;
            }
            // Parted with meanwhile, when the connection seemed to hold nothing.
            None => self.held -= before,
        }
    }

    /// Executes frames that lie whole in `bytes`, as many as this turn may. Returns how many bytes they took.
    fn execute(&mut self, place: u32, bytes: &[u8], turn: &mut Turn<'_>) -> usize {
        let mut used = 0;
        loop {
            let Some(connection) =
                self.connections.get_mut(place).filter(|connection| connection.takes_frames())
            else {
                return bytes.len();
            };
            match first_frame(&bytes[used..], connection.limit()) {
                Ok(None) => return used,
                Ok(Some(_)) if connection.paused => return used,
                Ok(Some((header, body))) => {
                    if turn.frames_left == 0
                        || !connection.may_execute(turn.number, FRAMES_PER_CONNECTION_MAX)
                    {
                        self.make_ready(place);
                        return used;
                    }
                    turn.frames_left -= 1;
                    used += header.frame_bytes();
                    self.frame(place, header, body, turn);
                }
                Err(error) => {
                    self.refuse(turn.now.boot, place, &error.problem());
                    return bytes.len();
                }
            }
        }
    }

    fn frame(&mut self, place: u32, header: Header, body: &[u8], turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get(place) else {
            return;
        };
        let from = connection.endpoint;
        match (connection.phase, from) {
            (Phase::Up, _) => turn.step(Input::Frame { from, header, body }),
            (Phase::Greeting, Endpoint::Incoming(_)) => self.answer_greeting(place, header, body, turn),
            (Phase::Greeting, Endpoint::Outgoing(_)) => self.conclude_greeting(place, header, body, turn),
            (Phase::Connecting | Phase::Leaving | Phase::Closing, _) => {
                unreachable!("frames are executed only on connections that take them")
            }
        }
    }

    /// Puts a connection with whole frames into the queue.
    pub(super) fn make_ready(&mut self, place: u32) {
        if let Some(connection) = self.connections.get_mut(place)
            && !connection.ready
        {
            connection.ready = true;
            self.ready.push_back(place);
        }
    }

    /// Executes frames that earlier turns left over, each connection once.
    pub(crate) fn execute_ready(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..self.ready.len() {
            let Some(place) = self.ready.pop_front() else {
                return;
            };
            if let Some(connection) = self.connections.get_mut(place) {
                connection.ready = false;
                self.execute_held(place, turn);
            }
        }
    }

    /// The first frame of somebody who connected to us.
    fn answer_greeting(&mut self, place: u32, header: Header, body: &[u8], turn: &mut Turn<'_>) {
        let (identity, wall_ms) = (self.identity, turn.now.wall_ms);
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        let write = |out: &mut Vec<u8>| answer(&identity, header, body, wall_ms, out);
        match connection.sending.add_with(write) {
            Ok(peer) => self.come_up(place, peer, turn),
            Err(problem) => {
                tracing::info!(machine = self.name, %problem, "a connection was refused");
                self.part(turn.now.boot, place, Phase::Leaving);
            }
        }
    }

    /// The answer to our own first frame.
    fn conclude_greeting(&mut self, place: u32, header: Header, body: &[u8], turn: &mut Turn<'_>) {
        match conclude(&self.identity, header, body) {
            Ok((peer, _)) => self.come_up(place, peer, turn),
            Err(problem) => {
                let endpoint = self.connections.get(place).map(|connection| connection.endpoint);
                tracing::warn!(machine = self.name, ?endpoint, %problem, "our greeting was refused");
                self.part(turn.now.boot, place, Phase::Closing);
            }
        }
    }

    fn come_up(&mut self, place: u32, peer: Peer, turn: &mut Turn<'_>) {
        let Some(connection) = self.connections.get_mut(place) else {
            return;
        };
        connection.phase = Phase::Up;
        let queued = std::mem::take(&mut connection.queued);
        connection.sending.add_with(|out| out.extend_from_slice(&queued));
        if queued.capacity() > 0 {
            turn.effects.recycle(queued);
        }
        let (endpoint, close) = (connection.endpoint, connection.close_when_up);
        if let Endpoint::Outgoing(address) = endpoint {
            self.links.up(turn.now.boot, address);
        }
        self.list(place);
        turn.step(Input::Up { endpoint, peer });
        if close {
            self.leave(turn.now.boot, place);
        }
    }

    /// The socket that we open is connected, or cannot be.
    pub(super) fn connected(&mut self, now: Boot, place: u32, result: Result<u32, i32>) {
        let connection = self.connections.get_mut(place).expect("it has an operation in flight");
        connection.connect = None;
        self.list(place);
        let Some(connection) = self.connections.get_mut(place).filter(is_connecting) else {
            return;
        };
        match result {
            Ok(_) => {
                let identity = self.identity;
                connection.phase = Phase::Greeting;
                connection.sending.add_with(|out| greet(&identity, out));
            }
            Err(errno) => {
                tracing::debug!(machine = self.name, endpoint = ?connection.endpoint, errno, "not connected");
                self.part(now, place, Phase::Closing);
            }
        }
    }

    /// Tells a peer why we part with it, and does.
    pub(super) fn refuse(&mut self, now: Boot, place: u32, problem: &Problem) {
        if let Some(connection) = self.connections.get_mut(place) {
            let endpoint = connection.endpoint;
            tracing::info!(machine = self.name, ?endpoint, %problem, "a peer is told to go");
            connection.sending.add_with(|out| refuse(problem, RequestId(0), out));
            self.part(now, place, Phase::Leaving);
        }
    }
}

fn is_connecting(connection: &&mut Connection) -> bool {
    connection.phase == Phase::Connecting
}
