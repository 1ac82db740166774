//! The async client: futures that need no particular runtime.
//!
//! One thread per client watches its sockets and wakes whoever waits; a request is written by the task that
//! makes it, so sending costs no change of thread. The futures run under any executor.
//!
//! * `hub`: what the thread and the futures share, behind one lock. `state`: tickets and timers. `slots`:
//!   which connection a request goes to. `line`: one connection, from its name to its end.
//! * `driver`: the thread. `waiting`: the futures that wait for it. `pages`: queries and scans page by page.
//!
//! Names of endpoints are resolved by that thread, which then can do nothing else: with an IP address there
//! is nothing to wait for.

mod driver;
mod hub;
mod line;
mod pages;
mod slots;
mod state;
mod waiting;

pub use pages::{AsyncItems, AsyncPages};

use crate::config::{ClientBuilder, Settings};
use crate::error::{Error, Invalid};
use crate::protocol::call::{Call, Step};
use crate::protocol::operation::Operation;
use crate::protocol::retry::RetryPolicy;
use crate::request::{Prepared, Shell, begin_requests};
use hub::Hub;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// A client whose calls are futures. It is cheap to clone, and its requests share a few connections. When the
/// last clone and the last future are dropped, its thread ends.
///
/// ```no_run
/// use evenkeel_client::{AsyncClient, Item};
///
/// # async fn example() -> Result<(), evenkeel_client::Error> {
/// let client = AsyncClient::builder().endpoint("127.0.0.1:7400").connect_async().await?;
/// client.put("users", Item::new().with("pk", "user#1").with("name", "Ada")).send().await?;
/// let mut users = client.scan("users").items();
/// while let Some(user) = users.next().await {
///     println!("{:?}", user?);
/// }
/// # Ok(())
/// # }
/// ```
///
/// A future can be dropped at any time. A write that is under way then may still take effect, once.
#[derive(Clone, Debug)]
pub struct AsyncClient {
    handle: Arc<Handle>,
}

/// Ends the thread when the last client is dropped.
#[derive(Debug)]
struct Handle {
    hub: Arc<Hub>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.hub.close();
    }
}

/// A call of an async client: it begins when it is first polled.
#[must_use = "a future does nothing until it is polled"]
pub struct Pending<T> {
    future: Pin<Box<dyn Future<Output = Result<T, Error>> + Send>>,
}

impl<T> fmt::Debug for Pending<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pending").finish_non_exhaustive()
    }
}

impl<T> Pending<T> {
    fn new(future: impl Future<Output = Result<T, Error>> + Send + 'static) -> Self {
        Self { future: Box::pin(future) }
    }
}

impl<T> Future for Pending<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.future.as_mut().poll(context)
    }
}

begin_requests!(AsyncClient);

impl AsyncClient {
    /// Begins a client: endpoints and patience.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    pub(crate) fn open(settings: Result<Settings, Invalid>) -> Pending<Self> {
        Pending::new(async move {
            let hub = Hub::new(settings?)?;
            let client = Self { handle: Arc::new(Handle { hub: Arc::clone(&hub) }) };
            driver::start(&hub)?;
            hub.connected().await?;
            Ok(client)
        })
    }
}

impl Shell for AsyncClient {
    type Answer<O: Operation> = Pending<O::Output>;

    fn execute<O: Operation>(&self, prepared: Prepared<O>) -> Pending<O::Output> {
        let client = self.clone();
        Pending::new(async move {
            let hub = &client.handle.hub;
            let policy = hub.policy(prepared.deadline);
            run(hub, prepared.operation?, policy).await
        })
    }
}

/// Runs one call to its end.
async fn run<O: Operation>(hub: &Arc<Hub>, operation: O, policy: RetryPolicy) -> Result<O::Output, Error> {
    let mut call = Call::new(hub.session(), operation, policy, hub.now());
    loop {
        let exchange = match call.next(hub.now()) {
            Step::Done(outcome) => return outcome,
            Step::Pause { until } => {
                hub.pause(until).await;
                continue;
            }
            Step::Send(sending) => hub.send(&sending),
        };
        match exchange.await {
            Ok(reply) => call.answered(hub.now(), &reply.answer()),
            Err(failure) => call.failed(hub.now(), failure),
        }
    }
}
