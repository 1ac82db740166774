//! The client without sockets, clocks, threads or entropy: state machines that shells, load generators and
//! the simulator drive.
//!
//! * [`connection`]: bytes in, bytes out; the handshake; requests and their [`answer`]s.
//! * [`call`]: one call from beginning to end: tables, tokens, repetitions, the deadline. [`retry`] decides
//!   what follows from a failure.
//! * [`operation`]: what each request puts into its body and reads from its answer.
//! * [`session`]: what the calls of a client share: [`tokens`], [`tables`], the server's clock.
//!
//! A shell is a loop around [`Call::next`](call::Call::next): it sends what it is told to, waits for the
//! answer or for the time, and says what happened. A load generator that wants no more than frames uses a
//! [`Connection`](connection::Connection) and a [`TokenSource`](tokens::TokenSource) alone:
//!
//! ```
//! use evenkeel_client::protocol::connection::Connection;
//!
//! let mut connection = Connection::new();
//! connection.greet();
//! // What `transmit` shows goes to the server; what comes back goes to `handle_input`.
//! let sent = connection.transmit().len();
//! connection.transmitted(sent);
//! connection.handle_input(b"");
//! assert!(connection.poll_answer().expect("nothing came yet").is_none());
//! assert!(connection.established().is_none(), "requests can be made once the handshake is done");
//! ```

pub mod answer;
pub mod call;
pub mod connection;
pub mod operation;
mod questions;
pub mod retry;
pub mod session;
pub mod tables;
pub mod tokens;
