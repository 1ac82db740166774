//! One connection, without a socket: bytes in, bytes out, requests and answers in between.
//!
//! ```text
//!   greet ─► transmit ─► (the other side) ─► handle_input ─► poll_answer ─► established
//!   request ─► transmit ─► …               ─► handle_input ─► poll_answer ─► an answer, in any order
//! ```
//!
//! Whoever owns a socket moves bytes between it and this: what [`Connection::transmit`] shows goes out, what
//! comes in goes to [`Connection::handle_input`]. Nothing here blocks or knows the time. In steady state
//! nothing is allocated: requests are encoded where they are sent from, answers are read where they arrived.
//!
//! # Invariants
//!
//! * Headers, body checksums and lengths are checked before anyone sees an answer. Before the handshake is
//!   done the other side may send one small frame only.
//! * Every answer that is given out was asked for and is given out once. An answer to a request that was
//!   [forgotten](Connection::forget) is swallowed.
//! * After an error the framing is lost: the connection gives the same error for ever.
//!
//! Not here: sockets, time, retries, what a body means.

use super::answer::Answer;
use super::questions::{Asked, Questions};
use crate::error::{Error, ProtocolError};
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{BodyLimit, HEADER_BYTES, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{self, Identity, Peer, PeerRole};
use evenkeel_wire::ids::{Incarnation, RequestId};
use evenkeel_wire::message::access;
use std::time::Duration;

/// Read bytes are dropped from the front of the input once there are this many.
const COMPACT_BYTES: usize = 64 * 1024;
/// An empty buffer that is larger is given back: it served one large frame.
const SPARE_BYTES_MAX: usize = 1024 * 1024;

/// A connection to a process of the cluster.
#[derive(Debug)]
pub struct Connection {
    phase: Phase,
    /// What arrived; everything before `read` has been given out.
    input: Vec<u8>,
    read: usize,
    /// What is to be sent; everything before `sent` has been.
    output: Vec<u8>,
    sent: usize,
    questions: Questions,
    /// The answer that was given out last; its body ends at `read`.
    given: Option<Header>,
}

#[derive(Debug)]
enum Phase {
    /// The Hello is to come, or under way.
    Greeting,
    Established(Established),
    Broken(ConnectionError),
}

/// What the handshake told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Established {
    /// Who answers.
    pub peer: Peer,
    /// Its clock when it answered, milliseconds since 1970.
    pub server_ms: u64,
}

/// Why a connection is of no more use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectionError {
    /// The other side refused the handshake.
    #[error(transparent)]
    Refused(Problem),
    /// The other side does not speak the protocol.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
}

impl From<ConnectionError> for Error {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::Refused(problem) => Self::Problem(problem),
            ConnectionError::Protocol(error) => Self::Protocol(error),
        }
    }
}

impl Default for Connection {
    fn default() -> Self {
        Self::new()
    }
}

impl Connection {
    /// A connection on which nothing was said yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            phase: Phase::Greeting,
            input: Vec::new(),
            read: 0,
            output: Vec::new(),
            sent: 0,
            questions: Questions::default(),
            given: None,
        }
    }

    /// Says hello: the first thing to do.
    pub fn greet(&mut self) {
        handshake::greet(&identity(), &mut self.output);
    }

    /// What the handshake told, once it is done.
    #[must_use]
    pub fn established(&self) -> Option<&Established> {
        match &self.phase {
            Phase::Established(established) => Some(established),
            Phase::Greeting | Phase::Broken(_) => None,
        }
    }

    /// Asks. The deadline travels as what is left of it; nothing left is sent as the shortest, `None` as no
    /// deadline.
    ///
    /// # Panics
    /// Before the handshake is done, and when the body is longer than any server reads
    /// ([`FRAME_BODY_BYTES_MAX`](evenkeel_wire::limits::FRAME_BODY_BYTES_MAX)).
    pub fn request(
        &mut self,
        kind: Kind,
        deadline_left: impl Into<Option<Duration>>,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> RequestId {
        assert!(self.established().is_some(), "a request before the handshake is done");
        let request = self.questions.ask();
        let microseconds = |left: Duration| left.as_micros().clamp(1, u128::from(u32::MAX)) as u32;
        let deadline_us = deadline_left.into().map_or(0, microseconds);
        seal(&mut self.output, Header { deadline_us, ..Header::new(kind, request) }, write);
        request
    }

    /// Gives up waiting for an answer: it will be swallowed.
    pub fn forget(&mut self, request: RequestId) {
        self.questions.forget(request);
    }

    /// How many requests wait for an answer.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.questions.waiting()
    }

    /// The bytes that are to be sent next.
    #[must_use]
    pub fn transmit(&self) -> &[u8] {
        &self.output[self.sent..]
    }

    /// So many of them have been sent.
    pub fn transmitted(&mut self, bytes: usize) {
        self.sent += bytes;
        assert!(self.sent <= self.output.len(), "more bytes were sent than there are");
        if self.sent == self.output.len() {
            self.sent = 0;
            self.output.clear();
            self.output.shrink_to(SPARE_BYTES_MAX);
        }
    }

    /// Takes bytes that arrived.
    pub fn handle_input(&mut self, bytes: &[u8]) {
        self.given = None;
        if self.read == self.input.len() {
            self.input.clear();
            self.input.shrink_to(SPARE_BYTES_MAX);
            self.read = 0;
        } else if self.read >= COMPACT_BYTES {
            self.input.drain(..self.read);
            self.read = 0;
        }
        self.input.extend_from_slice(bytes);
    }

    /// The next answer that is complete. Call it until there is none.
    ///
    /// # Errors
    /// When the other side refused us or does not speak the protocol. Everything under way is lost with it.
    pub fn poll_answer(&mut self) -> Result<Option<Answer<'_>>, ConnectionError> {
        match self.next_frame() {
            Ok(given) => {
                self.given = given;
                Ok(self.answer())
            }
            Err(error) => {
                self.given = None;
                self.phase = Phase::Broken(error.clone());
                Err(error)
            }
        }
    }

    /// The answer that [`poll_answer`](Self::poll_answer) gave last, until more input is taken.
    #[must_use]
    pub fn answer(&self) -> Option<Answer<'_>> {
        let header = self.given?;
        let body = &self.input[self.read - header.body_bytes as usize..self.read];
        Some(Answer { header, body })
    }

    /// Reads frames until one is an answer that somebody waits for. It ends at `read`.
    fn next_frame(&mut self) -> Result<Option<Header>, ConnectionError> {
        loop {
            let limit = match &self.phase {
                Phase::Greeting => BodyLimit::BEFORE_HELLO,
                Phase::Established(_) => BodyLimit::AFTER_HELLO,
                Phase::Broken(error) => return Err(error.clone()),
            };
            let frame = first_frame(&self.input[self.read..], limit).map_err(ProtocolError::Frame)?;
            let Some((header, body)) = frame else {
                return Ok(None);
            };
            if let Phase::Greeting = self.phase {
                let (peer, server_ms) = conclude(header, body)?;
                self.phase = Phase::Established(Established { peer, server_ms });
                self.read += header.frame_bytes();
                continue;
            }
            if header.kind == Kind::Error && header.request == RequestId(0) {
                let complaint = access::<ErrorAnswer>(body).map_err(ProtocolError::AnswerBody)?;
                return Err(ProtocolError::Complaint(Problem::from(complaint)).into());
            }
            self.read += header.frame_bytes();
            let asked = header.kind.is_answer().then(|| self.questions.answer(header.request)).flatten();
            match asked {
                Some(Asked::Waiting) => return Ok(Some(header)),
                Some(Asked::Forgotten) => {}
                Some(Asked::Answered) | None => {
                    let (request, kind) = (header.request, header.kind);
                    return Err(ProtocolError::NotAsked { request, kind }.into());
                }
            }
        }
    }
}

const _: () = assert!(COMPACT_BYTES > HEADER_BYTES);

fn identity() -> Identity {
    Identity { cluster: Incarnation::default(), peer: Peer::of_role(PeerRole::Client) }
}

/// Reads the answer to the Hello: a refusal is told from a frame that makes no sense.
fn conclude(header: Header, body: &[u8]) -> Result<(Peer, u64), ConnectionError> {
    if !header.kind.is_answer() {
        return Err(ProtocolError::NotAsked { request: header.request, kind: header.kind }.into());
    }
    handshake::conclude(&identity(), header, body).map_err(|problem| {
        if problem.code == ErrorCode::Malformed {
            ConnectionError::Protocol(ProtocolError::AnswerBody(problem))
        } else {
            ConnectionError::Refused(problem)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::frame::FrameError;
    use evenkeel_wire::handshake::refuse;
    use proptest::prelude::*;

    const LEFT: Duration = Duration::from_secs(1);

    fn router() -> Identity {
        Identity { cluster: Incarnation([7; 16]), peer: Peer::of_role(PeerRole::Router) }
    }

    /// The bytes with which a router answers a Hello.
    fn welcome() -> Vec<u8> {
        let mut connection = Connection::new();
        connection.greet();
        let (header, body) = first_frame(connection.transmit(), BodyLimit::BEFORE_HELLO).unwrap().unwrap();
        let mut out = Vec::new();
        handshake::answer(&router(), header, body, 1_000, &mut out).unwrap();
        out
    }

    fn established() -> Connection {
        let mut connection = Connection::new();
        connection.greet();
        connection.transmitted(connection.transmit().len());
        connection.handle_input(&welcome());
        assert!(connection.poll_answer().unwrap().is_none());
        assert_eq!(connection.established().unwrap().server_ms, 1_000);
        connection
    }

    fn frame(kind: Kind, request: u64, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        seal(&mut out, Header::new(kind, RequestId(request)), |out| out.extend_from_slice(body));
        out
    }

    fn ask(connection: &mut Connection, body: &[u8]) -> RequestId {
        connection.request(Kind::Get, LEFT, |out| out.extend_from_slice(body))
    }

    fn answer(connection: &mut Connection) -> Option<(u64, Vec<u8>)> {
        connection.poll_answer().unwrap().map(|answer| (answer.header.request.0, answer.body.to_vec()))
    }

    #[test]
    fn answers_are_told_apart_by_request_whatever_their_order() {
        let mut connection = established();
        assert_eq!([ask(&mut connection, b"a"), ask(&mut connection, b"b")], [RequestId(1), RequestId(2)]);
        let (header, body) =
            first_frame(connection.transmit(), BodyLimit::AFTER_HELLO).unwrap().expect("a frame");
        assert_eq!((header.kind, header.deadline_us, body), (Kind::Get, 1_000_000, &b"a"[..]));
        connection.transmitted(connection.transmit().len());
        assert_eq!(connection.transmit(), b"");
        connection.handle_input(&[frame(Kind::GetAnswer, 2, b"B"), frame(Kind::GetAnswer, 1, b"A")].concat());
        assert_eq!(connection.in_flight(), 2);
        assert_eq!(answer(&mut connection), Some((2, b"B".to_vec())));
        assert_eq!(answer(&mut connection), Some((1, b"A".to_vec())));
        assert_eq!((answer(&mut connection), connection.in_flight()), (None, 0));
    }

    #[test]
    fn bytes_may_arrive_one_by_one() {
        let mut connection = Connection::new();
        connection.greet();
        for byte in welcome() {
            assert!(connection.established().is_none());
            connection.handle_input(&[byte]);
            assert!(connection.poll_answer().unwrap().is_none());
        }
        ask(&mut connection, b"");
        let bytes = frame(Kind::GetAnswer, 1, &[9; 100]);
        for (place, byte) in bytes.iter().enumerate() {
            connection.handle_input(&[*byte]);
            let complete = place + 1 == bytes.len();
            assert_eq!(answer(&mut connection), complete.then(|| (1, vec![9; 100])));
        }
    }

    #[test]
    fn buffers_do_not_grow_with_the_number_of_requests() {
        let mut connection = established();
        for request in 1..=2_000_u64 {
            ask(&mut connection, &[1; 300]);
            connection.transmitted(connection.transmit().len());
            // Two halves, so that the input is never empty in between.
            let bytes = frame(Kind::GetAnswer, request, &[2; 1000]);
            connection.handle_input(&bytes[..40]);
            assert!(answer(&mut connection).is_none());
            connection.handle_input(&bytes[40..]);
            assert!(answer(&mut connection).is_some());
        }
        assert!(connection.input.capacity() < 2 * COMPACT_BYTES + 4096, "{}", connection.input.capacity());
        assert!(connection.output.capacity() < 4096 && connection.questions.remembered() < 16);
    }

    #[test]
    fn an_answer_that_nobody_waits_for_is_swallowed_if_it_was_asked_for() {
        let mut connection = established();
        let (first, second) = (ask(&mut connection, b""), ask(&mut connection, b""));
        connection.forget(first);
        assert_eq!(connection.in_flight(), 1);
        connection.handle_input(&frame(Kind::GetAnswer, first.0, b"late"));
        connection.handle_input(&frame(Kind::GetAnswer, second.0, b"here"));
        assert_eq!(answer(&mut connection), Some((second.0, b"here".to_vec())));
        connection.forget(second);
        connection.forget(RequestId(99));
        assert_eq!(connection.in_flight(), 0);
    }

    #[test]
    fn an_answer_that_was_not_asked_for_breaks_the_connection() {
        for (kind, request) in
            [(Kind::GetAnswer, 0), (Kind::GetAnswer, 2), (Kind::GetAnswer, u64::MAX), (Kind::Put, 1)]
        {
            let mut connection = established();
            ask(&mut connection, b"");
            connection.handle_input(&frame(kind, request, b""));
            let expected = ProtocolError::NotAsked { request: RequestId(request), kind };
            assert_eq!(connection.poll_answer().unwrap_err(), expected.clone().into());
            assert_eq!(connection.poll_answer().unwrap_err(), expected.into(), "for ever");
        }
        let mut twice = established();
        let (first, _) = (ask(&mut twice, b""), ask(&mut twice, b""));
        twice.handle_input(&frame(Kind::GetAnswer, first.0 + 1, b""));
        twice.handle_input(&frame(Kind::GetAnswer, first.0 + 1, b""));
        assert!(twice.poll_answer().unwrap().is_some());
        assert!(twice.poll_answer().is_err(), "answered twice");
    }

    #[test]
    fn a_refused_handshake_says_why() {
        let mut connection = Connection::new();
        connection.greet();
        let mut out = Vec::new();
        let problem = Problem::new(ErrorCode::UnsupportedVersion, "this build speaks version 2");
        refuse(&problem, RequestId(0), &mut out);
        connection.handle_input(&out);
        assert_eq!(connection.poll_answer().unwrap_err(), ConnectionError::Refused(problem));
    }

    #[test]
    fn a_server_that_cannot_read_us_breaks_the_connection_with_its_reason() {
        let mut connection = established();
        let mut out = Vec::new();
        let problem = Problem::new(ErrorCode::ChecksumMismatch, "frame body damaged");
        refuse(&problem, RequestId(0), &mut out);
        connection.handle_input(&out);
        let complaint = ProtocolError::Complaint(problem);
        assert!(complaint.is_transient());
        assert_eq!(connection.poll_answer().unwrap_err(), complaint.into());
    }

    #[test]
    fn another_protocol_is_recognised_by_its_first_bytes() {
        let mut connection = Connection::new();
        connection.greet();
        connection.handle_input(
            b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n",
        );
        let expected = ProtocolError::Frame(FrameError::Magic { got: *b"HTTP" });
        assert_eq!(connection.poll_answer().unwrap_err(), expected.into());
    }

    #[test]
    fn before_the_handshake_a_large_frame_is_refused() {
        let mut connection = Connection::new();
        connection.greet();
        connection.handle_input(&frame(Kind::HelloAnswer, 0, &[0; 2000])[..HEADER_BYTES]);
        assert!(matches!(
            connection.poll_answer().unwrap_err(),
            ConnectionError::Protocol(ProtocolError::Frame(FrameError::BodyTooLarge { got: 2000, .. }))
        ));
    }

    proptest! {
        #[test]
        fn no_input_makes_a_connection_panic(
            greeted: bool,
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 0..8),
            damage in prop::option::of((0_usize..400, any::<u8>())),
        ) {
            let mut connection = if greeted { established() } else { Connection::new() };
            let mut bytes = welcome();
            if greeted {
                ask(&mut connection, b"question");
                bytes = frame(Kind::GetAnswer, 1, b"an answer of some length");
            }
            if let Some((place, value)) = damage {
                let length = bytes.len();
                bytes[place % length] ^= value;
            }
            connection.handle_input(&bytes);
            while let Ok(Some(answer)) = connection.poll_answer() {
                let _ = answer.refusal();
            }
            for piece in pieces {
                connection.handle_input(&piece);
                while let Ok(Some(answer)) = connection.poll_answer() {
                    let _ = answer.refusal();
                }
            }
        }
    }
}
