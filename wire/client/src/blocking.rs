//! The blocking client: a call writes and reads on the thread that makes it.
//!
//! There is no thread behind it. A call takes an idle connection or opens one, sends its request, waits for
//! the answer right there, and puts the connection back: the shortest way that a request can take.
//!
//! Not here: what is sent and when it is repeated ([`protocol`](crate::protocol)).

mod pages;
mod pipeline;
mod pool;
mod socket;

pub use pages::{Items, Pages};
pub use pipeline::{PIPELINE_BYTES_MAX, PIPELINE_REQUESTS_MAX, Pipeline, Submitted};

use crate::config::{ClientBuilder, Settings};
use crate::error::Error;
use crate::protocol::call::{Call, Failure, Sending, Step};
use crate::protocol::operation::Operation;
use crate::protocol::retry::RetryPolicy;
use crate::request::{Prepared, Shell, begin_requests};
use pool::Pool;
use socket::Socket;
use std::sync::Arc;
use std::time::Duration;

/// A client whose calls block. It is cheap to clone, and can be shared between threads: each call that is
/// under way has a connection of its own.
///
/// ```no_run
/// use evenkeel_client::{Client, Item, KeyType};
///
/// let client = Client::builder().endpoint("127.0.0.1:7400").connect()?;
/// client.create_table("users").partition_key("pk", KeyType::S).wait_until_active().send()?;
/// client.put("users", Item::new().with("pk", "user#1").with("name", "Ada")).send()?;
/// let found = client.get("users", Item::new().with("pk", "user#1")).send()?;
/// assert_eq!(found.item.and_then(|user| user.get("name").cloned()), Some("Ada".into()));
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    pool: Arc<Pool>,
}

begin_requests!(Client);

impl Client {
    /// Begins a client: endpoints and patience.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new()
    }

    pub(crate) fn open(settings: Settings) -> Result<Self, Error> {
        let pool = Pool::new(settings)?;
        pool.warm_up()?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Many requests on one connection, without waiting for each answer before the next request.
    ///
    /// # Errors
    /// When no router can be reached.
    pub fn pipeline(&self) -> Result<Pipeline, Error> {
        Pipeline::new(Arc::clone(&self.pool))
    }
}

impl Shell for Client {
    type Answer<O: Operation> = Result<O::Output, Error>;

    fn execute<O: Operation>(&self, prepared: Prepared<O>) -> Result<O::Output, Error> {
        let policy = self.pool.policy(prepared.deadline);
        run(&self.pool, prepared.operation?, policy)
    }
}

/// Runs one call to its end.
fn run<O: Operation>(pool: &Pool, operation: O, policy: RetryPolicy) -> Result<O::Output, Error> {
    let clock = pool.clock();
    let mut call = Call::new(pool.session(), operation, policy, clock.now());
    loop {
        match call.next(clock.now()) {
            Step::Done(outcome) => return outcome,
            Step::Pause { until } => sleep(clock.left(until)),
            Step::Send(sending) => {
                let is_pooled = sending.endpoint.is_none();
                match exchange(pool, &sending) {
                    Ok(socket) => {
                        let answer = socket.answer().expect("the exchange waited for it");
                        call.answered(clock.now(), &answer);
                        if is_pooled {
                            pool.check_in(socket);
                        }
                    }
                    Err(failure) => call.failed(clock.now(), failure),
                }
            }
        }
    }
}

/// Sends a request and waits until its answer has arrived. The connection of a request that failed is closed.
fn exchange(pool: &Pool, sending: &Sending<'_>) -> Result<Socket, Failure> {
    let mut socket = match sending.endpoint {
        None => pool.check_out(sending.wish, sending.answer_by)?,
        Some(endpoint) => pool.open_at(endpoint, sending.answer_by).map_err(Failure::NotConnected)?,
    };
    socket.exchange(pool.clock(), sending)?;
    Ok(socket)
}

#[expect(clippy::disallowed_methods, reason = "a blocking call waits on its caller's thread")]
fn sleep(left: Duration) {
    std::thread::sleep(left);
}
