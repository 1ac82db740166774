//! The thread of an async client: it waits for sockets and for the time, and wakes whoever waits for them.

use super::hub::Hub;
use crate::error::Error;
use crate::host::cannot_connect;
use polling::Events;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

/// Starts the thread. It ends when the hub is closed.
pub(super) fn start(hub: &Arc<Hub>) -> Result<(), Error> {
    let for_thread = Arc::clone(hub);
    let thread = std::thread::Builder::new().name("evenkeel-client".to_owned());
    let spawned = thread.spawn(move || drive(&for_thread));
    spawned.map(|_| ()).map_err(|error| cannot_connect("a thread of its own", error))
}

fn drive(hub: &Arc<Hub>) {
    // However this thread ends, nobody may wait for it any longer.
    let _end = End(hub);
    let mut events = Events::new();
    let mut scratch = vec![0; crate::nonblocking::READ_BYTES];
    loop {
        for wanted in hub.wanted() {
            let candidates = wanted.endpoints.iter().map(|endpoint| resolve(endpoint)).collect();
            hub.begin_to_open(wanted.key, candidates);
        }
        let Some(left) = hub.before_waiting() else {
            return;
        };
        events.clear();
        let waited = left.is_zero() || hub.poller().wait(&mut events, Some(left)).is_ok();
        hub.after_waiting(events.iter().map(|event| event.key), &mut scratch);
        if !waited {
            return;
        }
    }
}

struct End<'a>(&'a Hub);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// The addresses of an endpoint, or why it has none.
pub(super) type Resolved = (String, Result<Vec<SocketAddr>, Error>);

fn resolve(endpoint: &str) -> Resolved {
    let addresses = endpoint.to_socket_addrs().map(Iterator::collect);
    (endpoint.to_owned(), addresses.map_err(|error| cannot_connect(endpoint, error)))
}
