//! A partition: its items and tokens, and the requests that read and write them.
//!
//! * [`state`]: what is replicated. Entries are applied to it, in order, on every replica.
//! * [`sessions`]: the tokens that it remembers.
//! * [`pending`]: what the leader has proposed and not yet applied, and who waits for it.
//! * [`waited`]: where a request's time went.
//! * [`writes`] and [`reads`]: how requests are decided.

pub mod pending;
pub mod reads;
pub mod sessions;
pub mod state;
pub mod waited;
pub mod writes;

use crate::btree::lookup::Miss;
use evenkeel_wire::error::Problem;

/// Why a request is not answered now.
#[derive(Clone, Debug, PartialEq)]
pub enum Stop {
    /// It cannot be done.
    Refuse(Problem),
    /// Pages must be read first; then it is executed again from its beginning.
    Wait(Miss),
    /// It is a write, and the checkpoint must catch up first; then it is executed again.
    Hold,
}

impl From<Problem> for Stop {
    fn from(problem: Problem) -> Self {
        Self::Refuse(problem)
    }
}

impl From<Miss> for Stop {
    fn from(miss: Miss) -> Self {
        Self::Wait(miss)
    }
}
