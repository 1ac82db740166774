//! A connection with a blocking socket.

use crate::error::Error;
use crate::host::{Clock, cannot_connect, closed_by_peer, connection_lost, silent, would_wait};
use crate::nonblocking::{Link, READ_BYTES};
use crate::protocol::answer::Answer;
use crate::protocol::call::{Failure, Sending};
use crate::protocol::connection::Connection;
use crate::protocol::session::Session;
use crate::sockets;
use evenkeel_wire::turn::Boot;
use polling::Poller;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

/// The shortest time that a socket can be told to wait.
const PATIENCE_MIN: Duration = Duration::from_millis(1);

/// An open connection and its socket. One request is under way on it at a time.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    connection: Connection,
    endpoint: String,
    opened_at: Boot,
    used_at: Boot,
    /// How long the socket waits in one system call.
    patience: Duration,
    scratch: Box<[u8]>,
}

impl Socket {
    /// Connects to one of an endpoint's addresses and shakes hands.
    pub(super) fn open(
        endpoint: &str,
        clock: Clock,
        session: &Session,
        connect_timeout: Duration,
        until: Boot,
    ) -> Result<Self, Error> {
        let addresses = endpoint.to_socket_addrs().map_err(|error| cannot_connect(endpoint, error))?;
        let mut last =
            cannot_connect(endpoint, io::Error::new(io::ErrorKind::NotFound, "the name has no address"));
        for address in addresses {
            let until = until.min(clock.now().after(connect_timeout));
            let opened = Self::connect(address, endpoint, clock, until);
            let opened = opened.map_err(|error| cannot_connect(endpoint, error));
            match opened.and_then(|mut socket| socket.shake_hands(clock, session, until).map(|()| socket)) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn connect(address: SocketAddr, endpoint: &str, clock: Clock, until: Boot) -> io::Result<Self> {
        let patience = clock.left(until).max(PATIENCE_MIN);
        let stream = TcpStream::connect_timeout(&address, patience)?;
        sockets::tune(&stream, address)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        Ok(Self {
            stream,
            connection: Connection::new(),
            endpoint: endpoint.to_owned(),
            opened_at: clock.now(),
            used_at: clock.now(),
            patience,
            scratch: vec![0; READ_BYTES].into(),
        })
    }

    fn shake_hands(&mut self, clock: Clock, session: &Session, until: Boot) -> Result<(), Error> {
        self.connection.greet();
        let mut moved = self.flush(clock, until);
        loop {
            moved.map_err(|error| cannot_connect(&self.endpoint, error))?;
            self.connection.poll_answer()?;
            if let Some(established) = self.connection.established() {
                self.opened_at = clock.now();
                session.learn_clock(established.server_ms, self.opened_at);
                return Ok(());
            }
            moved = self.fill(clock, until);
        }
    }

    /// Sends a request and waits until its answer has arrived.
    pub(super) fn exchange(&mut self, clock: Clock, sending: &Sending<'_>) -> Result<(), Failure> {
        let Sending { kind, body, deadline, answer_by, .. } = *sending;
        self.connection.request(kind, clock.left(deadline), |out| out.extend_from_slice(body));
        let mut moved = self.flush(clock, answer_by);
        loop {
            moved.map_err(|error| self.failure(error))?;
            if self.connection.poll_answer().map_err(|error| Failure::Lost(error.into()))?.is_some() {
                self.used_at = clock.now();
                return Ok(());
            }
            moved = self.fill(clock, answer_by);
        }
    }

    /// The answer that [`exchange`](Self::exchange) waited for.
    pub(super) fn answer(&self) -> Option<Answer<'_>> {
        self.connection.answer()
    }

    fn failure(&self, error: io::Error) -> Failure {
        let is_silence = error.kind() == io::ErrorKind::TimedOut;
        let error = connection_lost(&self.endpoint, error);
        if is_silence { Failure::Silent(error) } else { Failure::Lost(error) }
    }

    /// Sends everything that is to be sent.
    fn flush(&mut self, clock: Clock, until: Boot) -> io::Result<()> {
        while !self.connection.transmit().is_empty() {
            self.be_patient(clock.left(until))?;
            match self.stream.write(self.connection.transmit()) {
                Ok(0) => return Err(closed_by_peer()),
                Ok(bytes) => self.connection.transmitted(bytes),
                Err(error) if would_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits until something arrives.
    fn fill(&mut self, clock: Clock, until: Boot) -> io::Result<()> {
        loop {
            self.be_patient(clock.left(until))?;
            match self.stream.read(&mut self.scratch) {
                Ok(0) => return Err(closed_by_peer()),
                Ok(bytes) => {
                    self.connection.handle_input(&self.scratch[..bytes]);
                    return Ok(());
                }
                Err(error) if would_wait(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Lets the socket wait about as long as there is time left. Changing that costs a system call, so it is
    /// left as it is when it fits: a sixteenth too long is forgiven, and after a wait that was too short
    /// comes another.
    fn be_patient(&mut self, left: Duration) -> io::Result<()> {
        if left.is_zero() {
            return Err(silent());
        }
        if self.patience <= left + left / 16 && self.patience >= left / 8 {
            return Ok(());
        }
        self.patience = left.max(PATIENCE_MIN);
        self.stream.set_read_timeout(Some(self.patience))?;
        self.stream.set_write_timeout(Some(self.patience))
    }

    /// Where it goes.
    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// When the handshake was done.
    pub(super) fn opened_at(&self) -> Boot {
        self.opened_at
    }

    /// When it last gave an answer.
    pub(super) fn used_at(&self) -> Boot {
        self.used_at
    }

    /// The same connection, with the socket watched instead of waited for, and its endpoint.
    pub(super) fn into_link(self, poller: &Arc<Poller>, key: usize) -> Result<(Link, String), Error> {
        let link = Link::established(self.stream, self.connection, poller, key);
        let link = link.map_err(|error| cannot_connect(&self.endpoint, error))?;
        Ok((link, self.endpoint))
    }
}
