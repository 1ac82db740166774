//! How a load thread's bytes travel: through a ring of its own, or through sockets that a poller watches.

use evenkeel_client::nonblocking::{Link, READ_BYTES};
use evenkeel_client::protocol::connection::Connection;
use evenkeel_link::streams::Streams;
use polling::{Events, Poller};
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Connections with their sockets, known by their place.
pub(crate) trait Transport: Sized {
    /// Takes over connections on which the handshake is done. The calling thread is the one that uses them.
    fn new(lines: Vec<(TcpStream, Connection)>) -> io::Result<Self>;

    /// A connection.
    fn connection(&mut self, place: usize) -> &mut Connection;

    /// Sends what the connections in `dirty` have to send, and empties that list; waits for something to
    /// arrive, `wait` at the most; adds to `ready` the connections that received something.
    fn exchange(&mut self, dirty: &mut Vec<usize>, wait: Duration, ready: &mut Vec<usize>) -> io::Result<()>;
}

/// io_uring: one call to the kernel for each exchange.
pub(crate) struct Ringed {
    streams: Streams,
    connections: Vec<Connection>,
}

impl Transport for Ringed {
    fn new(lines: Vec<(TcpStream, Connection)>) -> io::Result<Self> {
        let (sockets, connections) = lines.into_iter().unzip();
        Ok(Self { streams: Streams::new(sockets)?, connections })
    }

    fn connection(&mut self, place: usize) -> &mut Connection {
        &mut self.connections[place]
    }

    fn exchange(&mut self, dirty: &mut Vec<usize>, wait: Duration, ready: &mut Vec<usize>) -> io::Result<()> {
        let Self { streams, connections } = self;
        for place in dirty.drain(..) {
            let connection = &mut connections[place];
            streams.send(place, connection.transmit());
            connection.transmitted(connection.transmit().len());
        }
        streams.exchange(wait, &mut |place, bytes| {
            connections[place].handle_input(bytes);
            ready.push(place);
        })
    }
}

/// A poller: calls for each read and each write, and for watching again.
pub(crate) struct Polled {
    poller: Arc<Poller>,
    links: Vec<Link>,
    events: Events,
    scratch: Vec<u8>,
}

impl Transport for Polled {
    fn new(lines: Vec<(TcpStream, Connection)>) -> io::Result<Self> {
        let poller = Arc::new(Poller::new()?);
        let link = |(place, (stream, connection))| Link::established(stream, connection, &poller, place);
        let links = lines.into_iter().enumerate().map(link).collect::<io::Result<_>>()?;
        Ok(Self { poller, links, events: Events::new(), scratch: vec![0; READ_BYTES] })
    }

    fn connection(&mut self, place: usize) -> &mut Connection {
        &mut self.links[place].connection
    }

    fn exchange(&mut self, dirty: &mut Vec<usize>, wait: Duration, ready: &mut Vec<usize>) -> io::Result<()> {
        for place in dirty.drain(..) {
            let link = &mut self.links[place];
            link.flush()?;
            if !link.connection.transmit().is_empty() {
                link.watch()?;
            }
        }
        self.events.clear();
        self.poller.wait(&mut self.events, Some(wait))?;
        for event in self.events.iter() {
            let link = &mut self.links[event.key];
            if event.writable {
                link.flush()?;
            }
            if event.readable && link.fill(&mut self.scratch)? {
                ready.push(event.key);
            }
            link.watch()?;
        }
        Ok(())
    }
}
