//! One connection: its socket, where it stands in its life, and what is in flight for it.
//!
//! ```text
//!   accepted ─────────────► Greeting ──► Up ──► Leaving ──► Closing ──► gone
//!   opened ──► Connecting ──┘   └───────────────┴──┘              (every phase may go to Closing)
//! ```

use super::held::Held;
use crate::ring::Key;
use crate::sending::Sending;
use evenkeel_wire::frame::BodyLimit;
use evenkeel_wire::turn::Endpoint;
use std::net::TcpStream;

/// Where a connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The socket is being connected.
    Connecting,
    /// The handshake is not done.
    Greeting,
    /// Frames go to the machine and come from it.
    Up,
    /// What was sent on it goes out, what comes is thrown away, then it is closed. The machine knows.
    Leaving,
    /// Its operations are being cancelled; it is gone when the last has ended.
    Closing,
}

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) endpoint: Endpoint,
    /// Tells it from others that stood at its place.
    pub(super) serial: u64,
    pub(super) phase: Phase,
    pub(super) connect: Option<Key>,
    pub(super) receive: Option<Key>,
    pub(super) send: Option<Key>,
    pub(super) sending: Sending,
    /// What waits for the handshake of a link that we open.
    pub(super) queued: Vec<u8>,
    pub(super) held: Held,
    /// The peer does not read: nothing more is received from it.
    pub(super) paused: bool,
    /// The machine wants it closed as soon as its handshake is done and its queue is out.
    pub(super) close_when_up: bool,
    /// Our half was shut.
    pub(super) shut: bool,
    /// The peer has shut its half.
    pub(super) hung_up: bool,
    /// Its operations were asked to end.
    pub(super) cancelled: bool,
    /// It is in the list of connections to tend.
    pub(super) listed: bool,
    /// It is in the queue of connections with frames to execute.
    pub(super) ready: bool,
    /// Bytes thrown away.
    pub(super) discarded: usize,
    /// In which turn frames were last executed, and how many.
    pub(super) executed: (u64, usize),
}

impl Connection {
    pub(super) fn new(stream: TcpStream, endpoint: Endpoint, serial: u64, phase: Phase) -> Self {
        Self {
            stream,
            endpoint,
            serial,
            phase,
            connect: None,
            receive: None,
            send: None,
            sending: Sending::default(),
            queued: Vec::new(),
            held: Held::default(),
            paused: false,
            close_when_up: false,
            shut: false,
            hung_up: false,
            cancelled: false,
            listed: false,
            ready: false,
            discarded: 0,
            executed: (0, 0),
        }
    }

    pub(super) fn is_incoming(&self) -> bool {
        matches!(self.endpoint, Endpoint::Incoming(_))
    }

    /// Whether frames on it mean something.
    pub(super) fn takes_frames(&self) -> bool {
        matches!(self.phase, Phase::Greeting | Phase::Up)
    }

    /// Whether the machine must be told when it is lost: it was told that it is up, or has sent something to
    /// it.
    pub(super) fn owes_down(&self) -> bool {
        match self.phase {
            Phase::Up => true,
            Phase::Connecting | Phase::Greeting => !self.is_incoming(),
            Phase::Leaving | Phase::Closing => false,
        }
    }

    /// How much the peer may send in one frame.
    pub(super) fn limit(&self) -> BodyLimit {
        if self.phase == Phase::Up { BodyLimit::AFTER_HELLO } else { BodyLimit::BEFORE_HELLO }
    }

    /// Everything in flight for it.
    pub(super) fn operations(&self) -> impl Iterator<Item = Key> {
        [self.connect, self.receive, self.send].into_iter().flatten()
    }

    /// Counts a frame, unless this turn has executed enough of this connection's.
    pub(super) fn may_execute(&mut self, turn: u64, frames_max: usize) -> bool {
        if self.executed.0 != turn {
            self.executed = (turn, 0);
        }
        let may = self.executed.1 < frames_max;
        self.executed.1 += usize::from(may);
        may
    }
}
