//! A partition: its items and tokens, and the requests that read and write them.
//!
//! * [`state`]: what is replicated. Entries are applied to it, in order, on every replica.
//! * [`sessions`]: the tokens that it remembers.
//! * [`pending`]: what the leader has proposed and not yet applied, and who waits for it.
//! * [`writes`] and [`reads`]: how requests are decided.

pub mod pending;
pub mod reads;
pub mod sessions;
pub mod state;
pub mod writes;
