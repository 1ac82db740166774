//! One connection of an async client, from the addresses that it may be opened to until it is lost.
//!
//! ```text
//!   wanted ─► connecting ─► greeting ─► open
//!                ▲  │           │
//!                └──┴───────────┘  on failure, with the next address
//! ```

use super::driver::Resolved;
use super::hub::TicketId;
use crate::error::Error;
use crate::host::{Clock, cannot_connect, connection_lost, silent};
use crate::nonblocking::Link;
use crate::protocol::answer::Answer;
use crate::protocol::call::Sending;
use crate::sockets::begin_to_connect;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::turn::Boot;
use polling::Poller;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

/// How often a ready socket is read before others have their turn.
const READS_MAX: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Line {
    key: usize,
    stage: Stage,
    link: Option<Link>,
    endpoint: String,
    candidates: VecDeque<(String, SocketAddr)>,
    /// Why a candidate failed: what a caller can retry outweighs what it cannot.
    kept: Option<Error>,
    /// Tickets that wait until the line is open.
    pub(super) queue: VecDeque<TicketId>,
    /// Tickets whose requests are under way.
    pub(super) requests: BTreeMap<RequestId, TicketId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Wanted,
    Connecting { until: Boot },
    Greeting { until: Boot },
    Open { since: Boot },
}

/// A request, kept until its line is open.
#[derive(Debug)]
pub(super) struct Outgoing {
    kind: Kind,
    body: Vec<u8>,
    deadline: Boot,
}

/// What became of a line whose socket was ready.
#[derive(Debug)]
pub(super) enum Moved {
    /// It goes on.
    On,
    /// The handshake is done.
    Opened {
        /// The server's clock, milliseconds since 1970.
        server_ms: u64,
    },
    /// It could not be opened at this address.
    NotOpened,
    /// It was open, and is of no more use.
    Lost(Error),
}

impl Outgoing {
    pub(super) fn new(sending: &Sending<'_>) -> Self {
        Self { kind: sending.kind, body: sending.body.to_vec(), deadline: sending.deadline }
    }
}

impl Line {
    pub(super) fn new(key: usize) -> Self {
        Self {
            key,
            stage: Stage::Wanted,
            link: None,
            endpoint: String::new(),
            candidates: VecDeque::new(),
            kept: None,
            queue: VecDeque::new(),
            requests: BTreeMap::new(),
        }
    }

    pub(super) fn set_candidates(&mut self, endpoints: Vec<Resolved>) {
        for (endpoint, addresses) in endpoints {
            match addresses {
                Ok(addresses) => {
                    self.candidates.extend(addresses.into_iter().map(|address| (endpoint.clone(), address)));
                }
                Err(error) => self.keep(error),
            }
        }
    }

    /// Begins to connect to the next address.
    ///
    /// # Errors
    /// When there is none left: why the others failed.
    pub(super) fn try_next_address(&mut self, poller: &Arc<Poller>, until: Boot) -> Result<(), Error> {
        self.link = None;
        while let Some((endpoint, address)) = self.candidates.pop_front() {
            self.endpoint = endpoint;
            let begun = begin_to_connect(address);
            match begun.and_then(|stream| Link::connecting(stream, poller, self.key)) {
                Ok(link) => {
                    self.link = Some(link);
                    self.stage = Stage::Connecting { until };
                    return Ok(());
                }
                Err(error) => self.keep(cannot_connect(&self.endpoint, error)),
            }
        }
        Err(self.kept.take().unwrap_or_else(|| {
            let error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
            cannot_connect(&self.endpoint, error)
        }))
    }

    fn keep(&mut self, error: Error) {
        if self.kept.as_ref().is_none_or(|kept| !kept.is_retryable()) {
            self.kept = Some(error);
        }
    }

    /// The present address did not answer in time.
    pub(super) fn not_opened_in_time(&mut self) {
        self.keep(cannot_connect(&self.endpoint, silent()));
    }

    /// By when the present address must have been opened.
    pub(super) fn opening_until(&self) -> Option<Boot> {
        match self.stage {
            Stage::Connecting { until } | Stage::Greeting { until } => Some(until),
            Stage::Wanted | Stage::Open { .. } => None,
        }
    }

    pub(super) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open { .. })
    }

    pub(super) fn is_unused(&self) -> bool {
        self.requests.is_empty() && self.queue.is_empty()
    }

    /// Whether it was opened before an instant.
    pub(super) fn was_opened_before(&self, instant: Boot) -> bool {
        matches!(self.stage, Stage::Open { since } if since < instant)
    }

    /// Sends a request as soon as the socket takes it.
    pub(super) fn send(&mut self, clock: Clock, ticket: TicketId, outgoing: &Outgoing) -> Option<RequestId> {
        let link = self.link.as_mut().filter(|_| matches!(self.stage, Stage::Open { .. }))?;
        let left = clock.left(outgoing.deadline);
        let request =
            link.connection.request(outgoing.kind, left, |out| out.extend_from_slice(&outgoing.body));
        self.requests.insert(request, ticket);
        Some(request)
    }

    /// Hands what is to be sent to the socket, and has the rest watched.
    ///
    /// # Errors
    /// When the line is lost.
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let flushed = link
            .flush()
            .and_then(|()| if link.connection.transmit().is_empty() { Ok(()) } else { link.watch() });
        flushed.map_err(|error| connection_lost(&self.endpoint, error))
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&mut self, request: RequestId) {
        if let Some(link) = &mut self.link {
            link.connection.forget(request);
        }
        self.requests.remove(&request);
    }

    /// The socket is ready: takes what has arrived and hands out answers.
    pub(super) fn on_ready(
        &mut self,
        now: Boot,
        scratch: &mut [u8],
        mut take: impl FnMut(TicketId, &Answer<'_>),
    ) -> Moved {
        let was_open = self.is_open();
        match self.exchange(scratch, &mut take) {
            Err(error) if was_open => Moved::Lost(error),
            Err(error) => {
                self.keep(error);
                Moved::NotOpened
            }
            Ok(Some(server_ms)) if !was_open => {
                self.stage = Stage::Open { since: now };
                Moved::Opened { server_ms }
            }
            Ok(_) => Moved::On,
        }
    }

    /// Moves bytes both ways. Returns the server's clock, if the handshake is done.
    fn exchange(
        &mut self,
        scratch: &mut [u8],
        take: &mut impl FnMut(TicketId, &Answer<'_>),
    ) -> Result<Option<u64>, Error> {
        let Self { stage, link: Some(link), endpoint, requests, .. } = self else {
            return Ok(None);
        };
        let is_open = matches!(stage, Stage::Open { .. });
        let failed = |error| {
            if is_open { connection_lost(endpoint, error) } else { cannot_connect(endpoint, error) }
        };
        if let Stage::Connecting { until } = *stage {
            link.connect_outcome().map_err(failed)?;
            link.connection.greet();
            *stage = Stage::Greeting { until };
        }
        link.flush().map_err(failed)?;
        for _ in 0..READS_MAX {
            let arrived = link.fill(scratch);
            // Answers that came before the end of the connection count.
            while let Some(answer) = link.connection.poll_answer()? {
                if let Some(ticket) = requests.remove(&answer.header.request) {
                    take(ticket, &answer);
                }
            }
            if !arrived.map_err(failed)? {
                break;
            }
        }
        link.watch().map_err(failed)?;
        Ok(link.connection.established().map(|established| established.server_ms))
    }
}
