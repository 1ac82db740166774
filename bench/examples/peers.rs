//! The other side of `bench/peers`: drives peers with the load that `evenkeel bench` puts on us, and is the
//! limit that every replicated log is held against.
//!
//! ```text
//!  peers drive   one thread, many connections, one request under way on each; RESP, or etcd's gRPC
//!  peers limit   the bare three-log loop: RESP in, one write to three logs, answered at two
//!  peers follow  one of the two other logs
//! ```
//!
//! Nothing here checks, orders, routes or recovers anything. What a peer does is what its own documents say
//! of it; `bench/peers/common.py` starts it.
#![forbid(unsafe_code)]

#[path = "peers/drive.rs"]
mod drive;
#[path = "peers/etcd.rs"]
mod etcd;
#[path = "peers/limit.rs"]
mod limit;
#[path = "peers/resp.rs"]
mod resp;

use evenkeel_client::sockets;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;

/// `--name value` pairs.
pub(crate) struct Arguments(BTreeMap<String, String>);

impl Arguments {
    fn read(words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut pairs = BTreeMap::new();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let name = word.strip_prefix("--").ok_or_else(|| format!("{word:?} is no option"))?;
            let value = words.next().ok_or_else(|| format!("--{name} needs a value"))?;
            pairs.insert(name.to_owned(), value);
        }
        Ok(Self(pairs))
    }

    /// The text behind a name.
    pub(crate) fn text(&self, name: &str) -> Result<&str, String> {
        self.0.get(name).map(String::as_str).ok_or_else(|| format!("--{name} is missing"))
    }

    /// Several, separated by commas; none when it is not there.
    pub(crate) fn list(&self, name: &str) -> Vec<&str> {
        self.0
            .get(name)
            .map(|text| text.split(',').filter(|part| !part.is_empty()).collect())
            .unwrap_or_default()
    }

    /// The number behind a name.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<T, String> {
        let text = self.text(name)?;
        text.parse().map_err(|_| format!("--{name} {text:?} is no number that fits"))
    }
}

/// A connection whose sockets have the options that ours have.
pub(crate) fn connect(address: &str) -> Result<TcpStream, String> {
    let parsed: SocketAddr = address.parse().map_err(|error| format!("{address}: {error}"))?;
    sockets::connect(parsed).map_err(|error| format!("{address}: {error}"))
}

/// A listener that hands these options on.
pub(crate) fn listen(address: &str) -> Result<TcpListener, String> {
    let listener = TcpListener::bind(address).map_err(|error| format!("{address}: {error}"))?;
    let tuned = listener.local_addr().and_then(|own| sockets::tune(&listener, own));
    tuned.map(|()| listener).map_err(|error| format!("{address}: {error}"))
}

fn main() -> ExitCode {
    // As evenkeel's threads do: neither the load nor the limit shall wait where ours does not.
    let _where_the_kernel_knows_them = evenkeel_link::slice::ask_for_short();
    let mut words = std::env::args().skip(1);
    let verb = words.next().unwrap_or_default();
    let outcome = Arguments::read(words).and_then(|arguments| match verb.as_str() {
        "drive" => drive::run(&arguments),
        "limit" => limit::lead(&arguments),
        "follow" => limit::follow(&arguments),
        _ => Err(format!("{verb:?} is none of: drive, limit, follow")),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("peers {verb}: {problem}");
            ExitCode::FAILURE
        }
    }
}
