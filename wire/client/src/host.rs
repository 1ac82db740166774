//! What the shells take from the host: a clock, entropy, and words for silence.

use crate::error::Error;
use crate::protocol::session::Session;
use evenkeel_wire::turn::Boot;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A clock that never goes back, and starts with the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    started: Instant,
}

impl Clock {
    #[expect(clippy::disallowed_methods, reason = "a shell is a door: it reads the clock for the logic")]
    pub(crate) fn start() -> Self {
        Self { started: Instant::now() }
    }

    pub(crate) fn now(self) -> Boot {
        Boot(0).after(self.started.elapsed())
    }

    /// Time left until `until`.
    pub(crate) fn left(self, until: Boot) -> Duration {
        until.since(self.now())
    }
}

/// A session with a random client id.
#[expect(
    clippy::disallowed_methods,
    reason = "a shell is a door: it has the entropy that the logic is given"
)]
pub(crate) fn new_session() -> Result<Arc<Session>, Error> {
    let mut bytes = [0; 24];
    getrandom::fill(&mut bytes).map_err(|error| Error::Connect {
        endpoint: "the host's source of randomness".to_owned(),
        io: Arc::new(io::Error::other(error.to_string())),
    })?;
    let (client, seed) = bytes.split_at(16);
    let client = client.try_into().expect("16 of 24 bytes");
    let seed = u64::from_le_bytes(seed.try_into().expect("8 of 24 bytes"));
    Ok(Session::new(client, seed))
}

/// The error of a connection that could not be opened.
pub(crate) fn cannot_connect(endpoint: &str, error: io::Error) -> Error {
    Error::Connect { endpoint: endpoint.to_owned(), io: Arc::new(error) }
}

/// The error of a connection that ended.
pub(crate) fn connection_lost(endpoint: &str, error: io::Error) -> Error {
    Error::ConnectionLost { endpoint: endpoint.to_owned(), io: Arc::new(error) }
}

/// The error of a connection that the other side closed.
pub(crate) fn closed_by_peer() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the other side closed it")
}

/// The error of a connection on which nothing came in time.
pub(crate) fn silent() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer came in time")
}

/// Whether a system call should simply be made again, later if it would have had to wait.
pub(crate) fn would_wait(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
