//! A connection with a socket that never waits, watched for readiness.
//!
//! This is the one file of the client with `unsafe`: the poller must not outlive its knowledge of a socket, which the
//! compiler cannot see and [`Watched`] guarantees.
#![allow(unsafe_code)]

use crate::host::{closed_by_peer, would_wait};
use crate::protocol::connection::Connection;
use polling::{Event, Poller};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

/// How much is read at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// A socket that a poller watches for as long as this lives.
#[derive(Debug)]
struct Watched {
    stream: TcpStream,
    poller: Arc<Poller>,
    key: usize,
}

impl Watched {
    fn new(stream: TcpStream, poller: &Arc<Poller>, key: usize, interest: Event) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        // SAFETY: the socket must be deleted from the poller before it is closed. It is owned by the value that is
        // made below, whose `drop` deletes it; nothing moves it out.
        unsafe { poller.add(&stream, interest)? };
        Ok(Self { stream, poller: Arc::clone(poller), key })
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // An error means that the poller does not know the socket (any more), which is what is wanted.
        let _ = self.poller.delete(&self.stream);
    }
}

/// A connection, its socket, and what the poller is to watch for.
#[derive(Debug)]
pub(crate) struct Link {
    watched: Watched,
    pub(crate) connection: Connection,
}

impl Link {
    /// A link whose connection attempt is under way: it becomes writable when that has ended.
    pub(crate) fn connecting(stream: TcpStream, poller: &Arc<Poller>, key: usize) -> io::Result<Self> {
        let watched = Watched::new(stream, poller, key, Event::writable(key))?;
        Ok(Self { watched, connection: Connection::new() })
    }

    /// A link on which the handshake is done.
    pub(crate) fn established(
        stream: TcpStream,
        connection: Connection,
        poller: &Arc<Poller>,
        key: usize,
    ) -> io::Result<Self> {
        let watched = Watched::new(stream, poller, key, Event::readable(key))?;
        Ok(Self { watched, connection })
    }

    /// How the connection attempt ended.
    pub(crate) fn connect_outcome(&self) -> io::Result<()> {
        match self.watched.stream.take_error()? {
            Some(error) => Err(error),
            None => self.watched.stream.peer_addr().map(|_| ()),
        }
    }

    /// Sends as much as the socket takes.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
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

    /// Takes once what has arrived; whether something had.
    pub(crate) fn fill(&mut self, scratch: &mut [u8]) -> io::Result<bool> {
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

    /// Tells the poller what to watch for, once: to read, and to write if something is left.
    pub(crate) fn watch(&self) -> io::Result<()> {
        let writable = !self.connection.transmit().is_empty();
        let interest = Event::new(self.watched.key, true, writable);
        self.watched.poller.modify(&self.watched.stream, interest)
    }
}
