//! Requests about the cluster itself.

use super::{Prepared, Request, Shell, sending_methods};
use crate::config::check_endpoint;
use crate::protocol::operation::status;
use std::time::Duration;

/// Asks where the processes of the cluster are.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Topology<S> {
    shell: S,
    deadline: Option<Duration>,
}

/// Asks one process, of any role, what it knows of itself.
///
/// ```no_run
/// use evenkeel_client::Client;
///
/// # let client = Client::builder().connect()?;
/// for router in client.topology().send()?.routers {
///     println!("{:?}", client.status_of(router.to_string()).send()?);
/// }
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Status<S> {
    shell: S,
    endpoint: String,
    deadline: Option<Duration>,
}

/// Asks a storage core to check all its trees now, beside its work. Its [`Status`] tells when that is done.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Scrub<S> {
    shell: S,
    endpoint: String,
    deadline: Option<Duration>,
}

/// Asks a router where the time of requests went (decision 0018): for the first interval that it still has
/// from this one on.
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Tail<S> {
    shell: S,
    endpoint: String,
    from: u64,
    deadline: Option<Duration>,
}

impl<S: Shell> Topology<S> {
    pub(crate) fn new(shell: &S) -> Self {
        Self { shell: shell.clone(), deadline: None }
    }

    sending_methods!();
}

impl<S: Shell> Status<S> {
    pub(crate) fn new(shell: &S, endpoint: String) -> Self {
        Self { shell: shell.clone(), endpoint, deadline: None }
    }

    sending_methods!();
}

impl<S: Shell> Scrub<S> {
    pub(crate) fn new(shell: &S, endpoint: String) -> Self {
        Self { shell: shell.clone(), endpoint, deadline: None }
    }

    sending_methods!();
}

impl<S: Shell> Tail<S> {
    pub(crate) fn new(shell: &S, endpoint: String, from: u64) -> Self {
        Self { shell: shell.clone(), endpoint, from, deadline: None }
    }

    sending_methods!();
}

impl<S: Shell> Request for Topology<S> {
    type Operation = status::Topology;

    fn prepare(self) -> Prepared<status::Topology> {
        Prepared { operation: Ok(status::Topology), deadline: self.deadline }
    }
}

impl<S: Shell> Request for Status<S> {
    type Operation = status::Status;

    fn prepare(self) -> Prepared<status::Status> {
        let operation = check_endpoint(&self.endpoint).map(|()| status::Status::new(self.endpoint));
        Prepared { operation, deadline: self.deadline }
    }
}

impl<S: Shell> Request for Scrub<S> {
    type Operation = status::Scrub;

    fn prepare(self) -> Prepared<status::Scrub> {
        let operation = check_endpoint(&self.endpoint).map(|()| status::Scrub::new(self.endpoint));
        Prepared { operation, deadline: self.deadline }
    }
}

impl<S: Shell> Request for Tail<S> {
    type Operation = status::Tail;

    fn prepare(self) -> Prepared<status::Tail> {
        let operation = check_endpoint(&self.endpoint).map(|()| status::Tail::new(self.endpoint, self.from));
        Prepared { operation, deadline: self.deadline }
    }
}
