//! The futures that wait for the hub.

use super::hub::{Hub, Reply, TicketId};
use crate::error::Error;
use crate::protocol::call::Failure;
use evenkeel_wire::turn::Boot;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Waits for the answer to a request. Dropped early, the answer is discarded when it comes; the request's
/// tokens stay outstanding until then.
#[derive(Debug)]
pub(super) struct Exchange {
    hub: Arc<Hub>,
    ticket: TicketId,
}

impl Exchange {
    pub(super) fn new(hub: &Arc<Hub>, ticket: TicketId) -> Self {
        Self { hub: Arc::clone(hub), ticket }
    }
}

impl Future for Exchange {
    type Output = Result<Reply, Failure>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.hub.poll_ticket(self.ticket, context.waker()) {
            Poll::Ready(outcome) => Poll::Ready(outcome.map(|reply| reply.expect("a request has an answer"))),
            Poll::Pending => Poll::Pending,
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.hub.abandon(self.ticket);
    }
}

/// Waits until a connection is open.
#[derive(Debug)]
pub(super) struct Connected {
    hub: Arc<Hub>,
    ticket: TicketId,
}

impl Connected {
    pub(super) fn new(hub: &Arc<Hub>, ticket: TicketId) -> Self {
        Self { hub: Arc::clone(hub), ticket }
    }
}

impl Future for Connected {
    type Output = Result<(), Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.hub.poll_ticket(self.ticket, context.waker()).map(|outcome| match outcome {
            Ok(_) => Ok(()),
            Err(Failure::NotConnected(error) | Failure::Lost(error) | Failure::Silent(error)) => Err(error),
        })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        self.hub.abandon(self.ticket);
    }
}

/// Waits for an instant.
#[derive(Debug)]
pub(super) struct Pause {
    hub: Arc<Hub>,
    until: Boot,
    ticket: TicketId,
}

impl Pause {
    pub(super) fn new(hub: &Arc<Hub>, until: Boot, ticket: TicketId) -> Self {
        Self { hub: Arc::clone(hub), until, ticket }
    }
}

impl Future for Pause {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.hub.poll_pause(self.ticket, self.until, context.waker())
    }
}

impl Drop for Pause {
    fn drop(&mut self) {
        self.hub.end_pause(self.ticket, self.until);
    }
}
