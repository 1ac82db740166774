//! Connections of one thread, on a ring of its own: for a load generator.
//!
//! What was gathered for all connections goes out with one call to the kernel, which is the same that waits
//! for what arrives. At most one send of a connection is in flight, and one receive, which goes on by itself.
//!
//! It hosts no machine and needs no executor; whoever uses it has a loop of its own. The thread that makes it
//! is the one that uses it.

use crate::limits::SEND_BYTES_MAX;
use crate::ring::{Completion, Payload, Ring, SocketToken, Token};
use crate::sending::Sending;
use crate::signal::Signal;
use std::fmt;
use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

/// Connections on a ring.
pub struct Streams {
    ring: Ring,
    streams: Vec<Stream>,
    /// Those for which something was gathered.
    gathered: Vec<usize>,
    completions: Vec<Completion>,
}

struct Stream {
    socket: TcpStream,
    sending: Sending,
}

impl fmt::Debug for Streams {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Streams").field("streams", &self.streams.len()).finish_non_exhaustive()
    }
}

impl Streams {
    /// A ring for these connections, which are known by their place from here on.
    ///
    /// # Errors
    /// When the kernel gives no ring ([`preflight`](crate::preflight()) says why).
    pub fn new(sockets: Vec<TcpStream>) -> io::Result<Self> {
        let ring = Ring::new(Arc::new(Signal::new()?)).map_err(io::Error::other)?;
        let streams =
            sockets.into_iter().map(|socket| Stream { socket, sending: Sending::default() }).collect();
        let mut streams = Self { ring, streams, gathered: Vec::new(), completions: Vec::new() };
        for place in 0..streams.streams.len() {
            streams.receive(place);
        }
        Ok(streams)
    }

    fn receive(&mut self, place: usize) {
        let _not_cancelled = self.ring.receive(place as u32, &self.streams[place].socket);
    }

    /// Gathers bytes to be sent on a connection with the next exchange.
    pub fn send(&mut self, place: usize, bytes: &[u8]) {
        self.streams[place].sending.add_with(|pending| pending.extend_from_slice(bytes));
        self.gathered.push(place);
    }

    /// Sends what was gathered, waits for something to complete, `wait` at the most, and hands over what has
    /// arrived. Without a time to wait, or while something is at hand, it does not sleep.
    ///
    /// # Errors
    /// When a connection is lost, or was closed by the other side.
    pub fn exchange(&mut self, wait: Duration, arrived: &mut dyn FnMut(usize, &[u8])) -> io::Result<()> {
        while let Some(place) = self.gathered.pop() {
            self.begin_send(place);
        }
        if wait.is_zero() {
            self.ring.enter()?;
        } else {
            self.ring.sleep(Some(wait))?;
        }
        let mut completions = std::mem::take(&mut self.completions);
        self.ring.take(usize::MAX, &mut completions);
        let mut outcome = Ok(());
        for completion in completions.drain(..) {
            let completed = self.complete(completion, arrived);
            outcome = outcome.and(completed);
        }
        self.completions = completions;
        outcome
    }

    fn begin_send(&mut self, place: usize) {
        let stream = &mut self.streams[place];
        if let Some(bytes) = stream.sending.begin() {
            let part = 0..bytes.len().min(SEND_BYTES_MAX);
            let _not_cancelled = self.ring.send(place as u32, &stream.socket, bytes, part);
        }
    }

    fn complete(&mut self, completion: Completion, arrived: &mut dyn FnMut(usize, &[u8])) -> io::Result<()> {
        let Completion { token, result, last, payload } = completion;
        match token {
            Token::Socket(SocketToken::Send(place)) => {
                let Payload::Bytes(bytes) = payload else {
                    unreachable!("a send gives its memory back");
                };
                self.sent(place as usize, result, bytes)
            }
            Token::Socket(SocketToken::Receive(place)) => {
                if let Payload::Received(received) = payload {
                    arrived(place as usize, self.ring.received(&received));
                    self.ring.give_back(received);
                }
                match result {
                    Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                    // All buffers were in use: they are free again when this exchange has ended.
                    Ok(_) | Err(libc::ENOBUFS | libc::EINTR | libc::EAGAIN) => {}
                    Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
                }
                if last {
                    self.receive(place as usize);
                }
                Ok(())
            }
            Token::Socket(SocketToken::Accept | SocketToken::Connect(_)) | Token::Disk(_) => {
                unreachable!("nothing but sends and receives was asked for")
            }
        }
    }

    fn sent(&mut self, place: usize, result: Result<u32, i32>, mut bytes: Vec<u8>) -> io::Result<()> {
        let sent = match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(sent) => sent as usize,
            Err(errno) => return Err(io::Error::from_raw_os_error(errno)),
        };
        let stream = &mut self.streams[place];
        match stream.sending.sent(sent) {
            0 => {
                bytes.clear();
                let _spare = stream.sending.add(bytes);
                self.gathered.push(place);
            }
            left => {
                let from = bytes.len() - left;
                let part = from..from + left.min(SEND_BYTES_MAX);
                let _not_cancelled = self.ring.send(place as u32, &stream.socket, bytes, part);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the other side of a connection needs a thread")]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread::spawn;

    /// A pair of connected sockets.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let one = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (one, listener.accept().unwrap().0)
    }

    #[test]
    fn bytes_go_out_and_come_back_in_order_on_every_connection() {
        let (ours, theirs): (Vec<_>, Vec<_>) = (0..3).map(|_| pair()).unzip();
        let echoes: Vec<_> = theirs
            .into_iter()
            .map(|mut socket| {
                spawn(move || {
                    let mut reader = socket.try_clone().unwrap();
                    io::copy(&mut reader, &mut socket).unwrap()
                })
            })
            .collect();
        let mut streams = Streams::new(ours).unwrap();
        // More than one send takes, and more than the receive buffers hold together.
        let bytes = |place: usize| -> Vec<u8> {
            (0..6 << 20).map(|number: usize| ((number * (place + 3)) >> 7) as u8).collect()
        };
        let mut back = vec![Vec::new(); 3];
        for place in 0..3 {
            let bytes = bytes(place);
            let (first, rest) = bytes.split_at(1000);
            streams.send(place, first);
            streams.send(place, rest);
        }
        while back.iter().any(|back| back.len() < 6 << 20) {
            let mut arrived = |place: usize, bytes: &[u8]| back[place].extend_from_slice(bytes);
            streams.exchange(Duration::from_secs(60), &mut arrived).unwrap();
        }
        assert!(back.iter().enumerate().all(|(place, back)| *back == bytes(place)));
        drop(streams);
        for echo in echoes {
            assert_eq!(echo.join().unwrap(), 6 << 20);
        }
    }

    #[test]
    fn an_exchange_ends_without_anything_and_a_lost_connection_is_an_error() {
        let (ours, mut theirs) = pair();
        let mut streams = Streams::new(vec![ours]).unwrap();
        let mut nothing = |_: usize, _: &[u8]| panic!("nothing was sent");
        streams.exchange(Duration::ZERO, &mut nothing).unwrap();
        streams.exchange(Duration::from_millis(1), &mut nothing).unwrap();
        theirs.write_all(b"last").unwrap();
        drop(theirs);
        let mut last = Vec::new();
        let error = loop {
            let mut arrived = |_: usize, bytes: &[u8]| last.extend_from_slice(bytes);
            if let Err(error) = streams.exchange(Duration::from_secs(60), &mut arrived) {
                break error;
            }
        };
        assert_eq!((last.as_slice(), error.kind()), (&b"last"[..], io::ErrorKind::UnexpectedEof));
    }

    #[test]
    fn what_is_in_flight_when_streams_are_dropped_does_no_harm() {
        let (ours, mut theirs) = pair();
        let mut streams = Streams::new(vec![ours]).unwrap();
        streams.send(0, &vec![7; 64 << 20]);
        streams.exchange(Duration::ZERO, &mut |_, _| {}).unwrap();
        drop(streams);
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).unwrap();
        assert!(got.len() < 64 << 20 && got.iter().all(|byte| *byte == 7));
    }
}
