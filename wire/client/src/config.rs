//! How a client is made: where it connects to and how patient it is.

use crate::asynchronous::{AsyncClient, Pending};
use crate::blocking::Client;
use crate::error::{Error, Invalid};
use crate::protocol::retry::RetryPolicy;
use std::time::Duration;

/// The environment variable that names the endpoints: `HOST:PORT`, or several with commas between them.
pub const ENDPOINT_VARIABLE: &str = "EVENKEEL_ENDPOINT";

/// Where a router listens if nobody says otherwise.
pub const DEFAULT_ENDPOINT: &str = "127.0.0.1:7400";

/// Connections that an async client keeps at most.
pub const CONNECTIONS_MAX: usize = 256;

/// Makes a [`Client`] or an [`AsyncClient`].
///
/// ```no_run
/// use evenkeel_client::Client;
/// use std::time::Duration;
///
/// let client = Client::builder()
///     .endpoint("10.0.0.4:7400")
///     .endpoint("10.0.0.5:7400")
///     .deadline(Duration::from_secs(5))
///     .connect()?;
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until it connects"]
pub struct ClientBuilder {
    endpoints: Vec<String>,
    policy: RetryPolicy,
    connect_timeout: Duration,
    connections: Option<usize>,
}

/// What was chosen, checked.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Routers, each `HOST:PORT`; at least one.
    pub(crate) endpoints: Vec<String>,
    pub(crate) policy: RetryPolicy,
    pub(crate) connect_timeout: Duration,
    /// Connections of an async client.
    pub(crate) connections: usize,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self::new()
    }
}

impl ClientBuilder {
    /// A builder for a client of the router at [`DEFAULT_ENDPOINT`], with default patience.
    pub fn new() -> Self {
        Self {
            endpoints: Vec::new(),
            policy: RetryPolicy::default(),
            connect_timeout: Duration::from_secs(1),
            connections: None,
        }
    }

    /// A builder for a client of the routers that [`ENDPOINT_VARIABLE`] names, if it is set.
    pub fn from_env() -> Self {
        let mut builder = Self::new();
        if let Ok(endpoints) = std::env::var(ENDPOINT_VARIABLE) {
            builder.endpoints = endpoints.split(',').map(|endpoint| endpoint.trim().to_owned()).collect();
        }
        builder
    }

    /// A router to connect to, `HOST:PORT`. With several, the next one is tried when one cannot be reached,
    /// hangs or shuts down.
    pub fn endpoint(mut self, endpoint: impl Into<String>) -> Self {
        self.endpoints.push(endpoint.into());
        self
    }

    /// How long a call may take, with all its repetitions: 15 seconds, which outlasts a fail-over.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.policy.deadline = deadline;
        self
    }

    /// How long one attempt of a call may take before it is repeated: 2 seconds.
    pub fn attempt_deadline(mut self, deadline: Duration) -> Self {
        self.policy.attempt = deadline;
        self
    }

    /// How long opening a connection to one address may take: 1 second.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How many connections an async client keeps, between which it spreads its requests: one for each
    /// endpoint if not chosen. A blocking client has one for each thread that is in a call.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = Some(connections);
        self
    }

    /// Connects a blocking client.
    ///
    /// # Errors
    /// [`Error::Connect`] when no router can be reached, [`Error::Problem`] when the handshake is refused,
    /// [`Error::Protocol`] when something else listens there, [`Error::Invalid`] for an endpoint that is
    /// none.
    pub fn connect(self) -> Result<Client, Error> {
        Client::open(self.settings()?)
    }

    /// Connects an async client.
    pub fn connect_async(self) -> Pending<AsyncClient> {
        AsyncClient::open(self.settings())
    }

    fn settings(self) -> Result<Settings, Invalid> {
        let mut endpoints = self.endpoints;
        if endpoints.is_empty() {
            endpoints.push(DEFAULT_ENDPOINT.to_owned());
        }
        for endpoint in &endpoints {
            check_endpoint(endpoint)?;
        }
        let connections = self.connections.unwrap_or(endpoints.len()).clamp(1, CONNECTIONS_MAX);
        Ok(Settings {
            endpoints,
            policy: self.policy,
            connect_timeout: self.connect_timeout.max(Duration::from_millis(1)),
            connections,
        })
    }
}

/// Checks that a text is HOST:PORT. Whether there is such a host is found out by connecting.
pub(crate) fn check_endpoint(text: &str) -> Result<(), Invalid> {
    let well_formed =
        text.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if well_formed { Ok(()) } else { Err(Invalid::Endpoint { text: text.to_owned() }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        for text in ["127.0.0.1:7400", "[::1]:1", "router.example:65535"] {
            assert_eq!(check_endpoint(text), Ok(()), "{text}");
        }
        for text in ["", "7400", ":7400", "host:", "host:65536", "host:http"] {
            assert_eq!(check_endpoint(text), Err(Invalid::Endpoint { text: text.to_owned() }));
        }
    }

    #[test]
    fn a_client_has_an_endpoint_and_a_connection() {
        let settings = ClientBuilder::new().connections(0).settings().unwrap();
        assert_eq!((settings.endpoints, settings.connections), (vec![DEFAULT_ENDPOINT.to_owned()], 1));
        let two = ClientBuilder::new().endpoint("a:1").endpoint("b:2").settings().unwrap();
        assert_eq!(two.connections, 2);
    }
}
