//! A connection with a socket that never waits, watched for readiness.
//!
//! The async client and pipelines are made of it, and so is any program that keeps many requests under way on
//! its connections and has a poller of its own.
//!
//! This is the one file of the client with `unsafe`: the poller must not outlive its knowledge of a socket,
//! which the compiler cannot see and `Watched` guarantees.
#![allow(unsafe_code)]

use crate::host::{closed_by_peer, would_wait};
use crate::protocol::connection::Connection;
use polling::{Event, PollMode, Poller};
use std::cell::Cell;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// How much to read at once: a good length for [`Link::fill`]'s scratch memory.
pub const READ_BYTES: usize = 64 * 1024;

/// A socket that a poller watches for as long as this lives.
#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    poller: Arc<Poller>,
    key: usize,
    /// What it is watched for until that is changed: something to read, room to write.
    interest: Cell<(bool, bool)>,
}

impl Watched {
    fn new(stream: TcpStream, poller: &Arc<Poller>, key: usize, interest: Event) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // SAFETY: the socket must be deleted from the poller before it is closed. It is owned by the value
        // that is made below, whose `drop` deletes it; nothing moves it out.
        unsafe { poller.add_with_mode(&stream, interest, mode(poller))? };
        let interest = Cell::new((interest.readable, interest.writable));
        Ok(Self { stream, poller: Arc::clone(poller), key, interest })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // An error means that the poller does not know the socket (any more), which is what is wanted.
        let _ = self.poller.delete(&self.stream);
    }
}

/// How a socket is watched: until something else is said, which saves two system calls for each request; once
/// at a time where the system cannot do that.
fn mode(poller: &Poller) -> PollMode {
    if poller.supports_level() { PollMode::Level } else { PollMode::Oneshot }
}

/// A connection and its socket, of which a poller says when it is ready. Take what has come when it does, and
/// call [`watch`](Link::watch) after that: the poller says the same again and again otherwise, or never.
#[derive(Debug)]
pub struct Link {
    watched: Watched,
    /// The connection, without its socket.
    pub connection: Connection,
}

impl Link {
    /// A link whose connection attempt is under way. It becomes writable when that has ended, one way or the
    /// other.
    ///
    /// # Errors
    /// When the operating system refuses to watch the socket.
    pub fn connecting(stream: TcpStream, poller: &Arc<Poller>, key: usize) -> io::Result<Self> {
        let watched = Watched::new(stream, poller, key, Event::writable(key))?;
        Ok(Self { watched, connection: Connection::new() })
    }

    /// A link on which the handshake is done, or under way. It is watched for something to read.
    ///
    /// # Errors
    /// When the operating system refuses to watch the socket.
    pub fn established(
        stream: TcpStream,
        connection: Connection,
        poller: &Arc<Poller>,
        key: usize,
    ) -> io::Result<Self> {
        let watched = Watched::new(stream, poller, key, Event::readable(key))?;
        Ok(Self { watched, connection })
    }

    /// How the connection attempt ended.
    ///
    /// # Errors
    /// Why it failed.
    pub fn connect_outcome(&self) -> io::Result<()> {
        match self.watched.stream.take_error()? {
            Some(error) => Err(error),
            None => self.watched.stream.peer_addr().map(|_| ()),
        }
    }

    /// Sends as much as the socket takes.
    ///
    /// # Errors
    /// When the connection is lost.
    pub fn flush(&mut self) -> io::Result<()> {
        while !self.connection.transmit().is_empty() {
            match (&self.watched.stream).write(self.connection.transmit()) {
                Ok(0) => return Err(closed_by_peer()),
                Ok(bytes) => self.connection.transmitted(bytes),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if would_wait(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes once what has arrived, by way of `scratch`. Returns whether something had.
    ///
    /// # Errors
    /// When the connection is lost, or was closed by the other side.
    pub fn fill(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
        match (&self.watched.stream).read(scratch) {
            Ok(0) => Err(closed_by_peer()),
            Ok(bytes) => {
                self.connection.handle_input(&scratch[..bytes]);
                Ok(true)
            }
            Err(error) if would_wait(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Tells the poller what to watch for: something to read, and room to write if something is left.
    ///
    /// # Errors
    /// When the operating system refuses to watch the socket.
    pub fn watch(&self) -> io::Result<()> {
        let Watched { stream, poller, key, interest } = &self.watched;
        let writable = !self.connection.transmit().is_empty();
        if interest.replace((true, writable)) == (true, writable) && poller.supports_level() {
            return Ok(());
        }
        poller.modify_with_mode(stream, Event::new(*key, true, writable), mode(poller))
    }
}
