//! The connection of a pipeline, and what is under way on it.

use super::EntryId;
use crate::blocking::pool::Pool;
use crate::blocking::socket::Socket;
use crate::error::Error;
use crate::host::{cannot_connect, connection_lost};
use crate::nonblocking::{Link, READ_BYTES};
use crate::protocol::answer::Answer;
use crate::protocol::call::{Failure, Sending, Wish};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::turn::Boot;
use polling::{Events, Poller};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// The connection of a pipeline. When it was lost, or a request wants a newer one, another is opened; what is
/// under way on the old one is still waited for there.
#[derive(Debug)]
pub(super) struct Line {
    poller: Arc<Poller>,
    events: Events,
    scratch: Box<[u8]>,
    /// By their keys in the poller. New requests go to the last.
    open: BTreeMap<usize, Open>,
    next_key: usize,
}

#[derive(Debug)]
struct Open {
    link: Link,
    endpoint: String,
    opened_at: Boot,
    requests: BTreeMap<RequestId, EntryId>,
}

/// Where a request is under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    key: usize,
    request: RequestId,
}

/// What became of a request that was to be sent.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is on its way.
    UnderWay(Place),
    /// It was for one certain process, and is answered.
    Answered(Box<Socket>),
}

impl Line {
    pub(super) fn open(pool: &Pool) -> Result<Self, Error> {
        let poller = Poller::new().map_err(|error| cannot_connect("the host's poller", error))?;
        let mut line = Self {
            poller: Arc::new(poller),
            events: Events::new(),
            scratch: vec![0; READ_BYTES].into(),
            open: BTreeMap::new(),
            next_key: 0,
        };
        let until = pool.clock().now().after(pool.policy(None).deadline);
        line.connect(pool, Wish::default(), until)?;
        Ok(line)
    }

    /// Opens another connection. Returns its key.
    fn connect(&mut self, pool: &Pool, wish: Wish, until: Boot) -> Result<usize, Error> {
        let key = self.next_key;
        let socket = pool.open(wish, until)?;
        let opened_at = socket.opened_at();
        let (link, endpoint) = socket.into_link(&self.poller, key)?;
        self.next_key += 1;
        self.open.insert(key, Open { link, endpoint, opened_at, requests: BTreeMap::new() });
        Ok(key)
    }

    /// Queues a request on a connection that will do for it.
    pub(super) fn send(&mut self, pool: &Pool, sending: &Sending<'_>, id: EntryId) -> Result<Sent, Failure> {
        let Sending { kind, body, deadline, answer_by, wish, endpoint, .. } = *sending;
        if let Some(endpoint) = endpoint {
            let mut socket = pool.open_at(endpoint, answer_by).map_err(Failure::NotConnected)?;
            socket.exchange(pool.clock(), sending)?;
            return Ok(Sent::Answered(Box::new(socket)));
        }
        let last = self.open.last_key_value().filter(|(_, open)| open.opened_at >= wish.opened_after);
        let key = match last {
            Some((key, _)) => *key,
            None => self.connect(pool, wish, answer_by).map_err(Failure::NotConnected)?,
        };
        let open = self.open.get_mut(&key).expect("it was just found or opened");
        let left = pool.clock().left(deadline);
        let request = open.link.connection.request(kind, left, |out| out.extend_from_slice(body));
        open.requests.insert(request, id);
        Ok(Sent::UnderWay(Place { key, request }))
    }

    /// Bytes of requests that the socket has not taken yet.
    pub(super) fn unsent_bytes(&self) -> usize {
        self.open.last_key_value().map_or(0, |(_, open)| open.link.connection.transmit().len())
    }

    /// Nobody waits for this answer any more. Returns the endpoint that was asked.
    pub(super) fn forget(&mut self, place: Place) -> String {
        let Some(open) = self.open.get_mut(&place.key) else {
            return "the router".to_owned();
        };
        open.link.connection.forget(place.request);
        open.requests.remove(&place.request);
        open.endpoint.clone()
    }

    /// Sends and takes what the sockets let through, and hands out answers. Returns the entries whose
    /// requests were under way on a connection that was lost.
    pub(super) fn exchange(&mut self, mut take: impl FnMut(EntryId, &Answer<'_>)) -> Vec<(Error, EntryId)> {
        let mut lost = Vec::new();
        let newest = self.open.last_key_value().map(|(key, _)| *key);
        let scratch = &mut self.scratch;
        self.open.retain(|key, open| match open.exchange(scratch, &mut take) {
            Ok(()) => Some(*key) == newest || !open.requests.is_empty(),
            Err(error) => {
                let requests = std::mem::take(&mut open.requests);
                lost.extend(requests.into_values().map(|id| (error.clone(), id)));
                false
            }
        });
        lost
    }

    /// Waits until a socket has something, or takes something.
    pub(super) fn wait(&mut self, left: Duration) {
        self.events.clear();
        let watched = self.open.values().try_for_each(|open| open.link.watch());
        // An error shows again, with its cause, when bytes are exchanged.
        let _ = watched.and_then(|()| self.poller.wait(&mut self.events, Some(left)));
    }
}

impl Open {
    fn exchange(
        &mut self,
        scratch: &mut [u8],
        take: &mut impl FnMut(EntryId, &Answer<'_>),
    ) -> Result<(), Error> {
        let Self { link, endpoint, requests, .. } = self;
        let lost = |error: io::Error| connection_lost(endpoint, error);
        link.flush().map_err(lost)?;
        while link.fill(scratch).map_err(lost)? {
            while let Some(answer) = link.connection.poll_answer()? {
                if let Some(id) = requests.remove(&answer.header.request) {
                    take(id, &answer);
                }
            }
        }
        Ok(())
    }
}
