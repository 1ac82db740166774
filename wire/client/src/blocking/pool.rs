//! Connections of a blocking client: those that are idle, and how new ones are opened.
//!
//! There is one connection for each thread that is in a call; it is idle in between. The one that was used
//! last is used next, so that a burst's surplus grows old and is closed.

use super::socket::Socket;
use crate::config::Settings;
use crate::error::Error;
use crate::host::{Clock, new_session};
use crate::protocol::call::{Failure, Wish};
use crate::protocol::retry::RetryPolicy;
use crate::protocol::session::Session;
use evenkeel_wire::turn::Boot;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// Idle connections that are kept.
const IDLE_MAX: usize = 64;

/// A connection that was idle for longer is not trusted: something on the way may have forgotten it, and a
/// request would wait for nothing.
const IDLE_TIME_MAX: Duration = Duration::from_secs(30);

/// The connections of one client.
#[derive(Debug)]
pub(super) struct Pool {
    settings: Settings,
    clock: Clock,
    session: Arc<Session>,
    idle: Mutex<Vec<Socket>>,
    /// The endpoint that new connections go to first.
    preferred: AtomicUsize,
}

impl Pool {
    pub(super) fn new(settings: Settings) -> Result<Self, Error> {
        Ok(Self {
            settings,
            clock: Clock::start(),
            session: new_session()?,
            idle: Mutex::new(Vec::new()),
            preferred: AtomicUsize::new(0),
        })
    }

    pub(super) fn clock(&self) -> Clock {
        self.clock
    }

    pub(super) fn session(&self) -> &Arc<Session> {
        &self.session
    }

    /// The client's patience, with a call's own deadline if it has one.
    pub(super) fn policy(&self, deadline: Option<Duration>) -> RetryPolicy {
        let policy = self.settings.policy;
        RetryPolicy { deadline: deadline.unwrap_or(policy.deadline), ..policy }
    }

    /// Opens the first connection, so that a wrong endpoint is found out at once.
    pub(super) fn warm_up(&self) -> Result<(), Error> {
        let socket = self.open(Wish::default(), self.clock.now().after(self.settings.policy.deadline))?;
        self.check_in(socket);
        Ok(())
    }

    /// A connection for one request.
    pub(super) fn check_out(&self, wish: Wish, until: Boot) -> Result<Socket, Failure> {
        let now = self.clock.now();
        let mut left = None;
        loop {
            let Some(socket) = self.idle().pop() else {
                return self.open_but(wish, left.as_deref(), until).map_err(Failure::NotConnected);
            };
            if socket.opened_at() >= wish.opened_after && now.since(socket.used_at()) <= IDLE_TIME_MAX {
                return Ok(socket);
            }
            // The first that will not do is the one that was used last: what is to be left is its endpoint.
            left.get_or_insert_with(|| socket.endpoint().to_owned());
        }
    }

    /// The request is answered: the connection is free.
    pub(super) fn check_in(&self, socket: Socket) {
        let mut idle = self.idle();
        if idle.len() < IDLE_MAX {
            idle.push(socket);
        }
    }

    /// Opens a connection: to the preferred endpoint, or to the next one that can be reached.
    pub(super) fn open(&self, wish: Wish, until: Boot) -> Result<Socket, Error> {
        self.open_but(wish, None, until)
    }

    /// As [`open`](Self::open). If another thread has left this endpoint already, it is followed.
    fn open_but(&self, wish: Wish, left: Option<&str>, until: Boot) -> Result<Socket, Error> {
        let endpoints = &self.settings.endpoints;
        let preferred = self.preferred.load(Ordering::Relaxed);
        let is_left = left.is_some_and(|left| endpoints[preferred % endpoints.len()] != left);
        let first = preferred + usize::from(wish.elsewhere && !is_left);
        let mut kept: Option<Error> = None;
        for place in first..first + endpoints.len() {
            match self.open_at(&endpoints[place % endpoints.len()], until) {
                Ok(socket) => {
                    self.preferred.store(place % endpoints.len(), Ordering::Relaxed);
                    return Ok(socket);
                }
                // If any endpoint can be tried again, the call is not at its end.
                Err(error) if kept.as_ref().is_none_or(|kept| !kept.is_retryable()) => kept = Some(error),
                Err(_) => {}
            }
        }
        Err(kept.expect("there is an endpoint, and it failed"))
    }

    /// Opens a connection to this endpoint.
    pub(super) fn open_at(&self, endpoint: &str, until: Boot) -> Result<Socket, Error> {
        Socket::open(endpoint, self.clock, &self.session, self.settings.connect_timeout, until)
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Socket>> {
        self.idle.lock().expect("nothing panics while the idle connections are looked at")
    }
}
