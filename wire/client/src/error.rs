//! What a call can end with instead of its output.
//!
//! Three questions matter to a program, and each has a function: is the server's code a certain one
//! ([`Error::code`]), can the same call succeed later ([`Error::is_retryable`]), and may the write have taken
//! effect although it failed ([`Error::may_have_executed`]). Everything that a retry could mend has been
//! retried until the call's deadline before one of these is returned.

use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::expression::{ExpressionError, ParseError, UnusedBindings};
use evenkeel_wire::frame::{FrameError, Kind};
use evenkeel_wire::ids::{RequestId, TableId};
use evenkeel_wire::item::ItemError;
use evenkeel_wire::key::KeyError;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// Why a call gave no output.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be opened.
    #[error("cannot connect to {endpoint}: {io}; check the address, and that a router listens there")]
    Connect {
        /// Where to.
        endpoint: String,
        /// What the operating system says.
        io: Arc<io::Error>,
    },
    /// A connection ended, or stayed silent, while a request was under way on it.
    #[error("the connection to {endpoint} failed while a request was under way: {io}")]
    ConnectionLost {
        /// Who was asked.
        endpoint: String,
        /// What the operating system says.
        io: Arc<io::Error>,
    },
    /// The server refused, and said why.
    #[error(transparent)]
    Problem(#[from] Problem),
    /// The deadline passed. The call had no effect.
    #[error("not done within {deadline:?}, after {attempts} attempts; {}", last_of(.last))]
    Timeout {
        /// The call's deadline, from its beginning.
        deadline: Duration,
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed, if one ended before the deadline.
        last: Option<Box<Error>>,
    },
    /// The call was given up while nobody could say whether the write took effect. It may, even later: read
    /// the item before writing it again. Creating and deleting a table end with this, too, when the table is
    /// not active or not gone by the deadline: `last` says so, and describing the table says how it is now.
    #[error(
        "given up after {attempts} attempts without knowing whether the write took effect; read the item \
         before writing it again; {}",
        last_of(.last)
    )]
    OutcomeUnknown {
        /// How often it was tried.
        attempts: u32,
        /// Why the last attempt failed, if one ended before the deadline.
        last: Option<Box<Error>>,
    },
    /// The call is not one that can be sent. Nothing was.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// The other side does not speak the protocol as this client does.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// An item came back with bytes that its checksum does not fit: it was damaged between the client that
    /// wrote it and this one. Nothing of it was used.
    #[error(
        "an item of {bytes} bytes is damaged: its checksum is {computed:08x}, its writer's was \
         {announced:08x}; restore it, and check the storage nodes' disks"
    )]
    CorruptItem {
        /// Length of the archive.
        bytes: usize,
        /// What the answer says.
        announced: u32,
        /// What the bytes give.
        computed: u32,
    },
}

/// Why a call cannot be sent as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// An item breaks a rule of items.
    #[error(transparent)]
    Item(#[from] ItemError),
    /// A key does not fit the table, or the item has none.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A text is not an expression. Shown with the place.
    #[error("{what}: {error}")]
    Text {
        /// Which of the call's texts.
        what: &'static str,
        /// What is wrong, and where.
        error: Box<ParseError>,
    },
    /// An expression breaks a rule.
    #[error(transparent)]
    Expression(#[from] ExpressionError),
    /// Placeholders that no expression of the call uses.
    #[error(transparent)]
    Unused(#[from] UnusedBindings),
    /// Something that the call cannot do without.
    #[error("the call needs {what}")]
    Missing {
        /// What.
        what: &'static str,
    },
    /// A batch of too many keys, or of none.
    #[error("a batch of {got} keys; 1 to {limit} are allowed")]
    BatchSize {
        /// How many there are.
        got: usize,
        /// How many there may be.
        limit: usize,
    },
    /// A batch that names one key twice.
    #[error("the batch names the same key at {first} and at {second}")]
    BatchKeyTwice {
        /// Place of the first, counted from zero.
        first: usize,
        /// Place of the second.
        second: usize,
    },
    /// A request that no server would read.
    #[error("a request of {bytes} bytes; at most {limit} can be sent at once")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The bound.
        limit: usize,
    },
    /// A page token that belongs to another call.
    #[error("the page token belongs to table {got} or to another range, this call reads table {expected}")]
    PageToken {
        /// The table that the token is of.
        got: TableId,
        /// The table that is read.
        expected: TableId,
    },
    /// Bytes that are no page token.
    #[error("{bytes} bytes are not a page token")]
    PageTokenBytes {
        /// How many there are.
        bytes: usize,
    },
    /// A segment that there is not.
    #[error("there is no segment {segment} of {segments}; they are counted from zero")]
    Segment {
        /// The segment.
        segment: u32,
        /// How many there are.
        segments: u32,
    },
    /// An endpoint that is no HOST:PORT, or none at all.
    #[error("{text:?} is no endpoint; it is written HOST:PORT, as in 127.0.0.1:7400")]
    Endpoint {
        /// What was given.
        text: String,
    },
}

/// How the other side fails to speak the protocol.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// Bytes that are not a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It closed the connection, and said why.
    #[error("the server closed the connection: {0}")]
    Complaint(Problem),
    /// An answer that nobody waits for.
    #[error("a frame of kind {kind:?} answers {request}, which was not asked; the server has a bug")]
    NotAsked {
        /// The request that it names.
        request: RequestId,
        /// Its kind.
        kind: Kind,
    },
    /// An answer of another kind than the question has.
    #[error("the answer is of kind {got:?}, expected {expected:?}; the server has a bug")]
    AnswerKind {
        /// What came.
        got: Kind,
        /// What the question asks for.
        expected: Kind,
    },
    /// An answer whose body is not what its kind says.
    #[error("the answer cannot be read: {0}")]
    AnswerBody(Problem),
    /// An item whose checksum fits and that is no item.
    #[error("an item in the answer cannot be read: {0}")]
    Item(ItemError),
    /// A page whose rest begins where the page began.
    #[error("the rest of the page does not begin behind it; the server has a bug")]
    PageStuck,
    /// A batch answer with another number of outcomes than there were keys.
    #[error("a batch of {expected} keys was answered with {got} outcomes; the server has a bug")]
    BatchCount {
        /// How many came.
        got: usize,
        /// How many were asked for.
        expected: usize,
    },
}

impl Error {
    /// The code that the server answered with; for a call that ran out of time, the last one.
    #[must_use]
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Problem(problem) => Some(problem.code),
            Self::Timeout { last, .. } | Self::OutcomeUnknown { last, .. } => last.as_ref()?.code(),
            Self::Connect { .. }
            | Self::ConnectionLost { .. }
            | Self::Invalid(_)
            | Self::Protocol(_)
            | Self::CorruptItem { .. } => None,
        }
    }

    /// Whether a write's condition did not hold.
    #[must_use]
    pub fn is_condition_failed(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.code == ErrorCode::ConditionFailed)
    }

    /// Whether the table does not exist.
    #[must_use]
    pub fn is_table_not_found(&self) -> bool {
        matches!(self, Self::Problem(problem) if problem.code == ErrorCode::TableNotFound)
    }

    /// Whether the same call can succeed later without any change to it, and is safe to make again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Timeout { .. } => true,
            Self::Problem(problem) => problem.code.is_retryable() && !problem.code.may_have_executed(),
            Self::ConnectionLost { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Invalid(_)
            | Self::Protocol(_)
            | Self::CorruptItem { .. } => false,
        }
    }

    /// Whether a write that ended with this may have taken effect.
    #[must_use]
    pub fn may_have_executed(&self) -> bool {
        match self {
            Self::ConnectionLost { .. }
            | Self::OutcomeUnknown { .. }
            | Self::Protocol(_)
            | Self::CorruptItem { .. } => true,
            Self::Problem(problem) => problem.code.may_have_executed(),
            Self::Connect { .. } | Self::Timeout { .. } | Self::Invalid(_) => false,
        }
    }
}

impl ProtocolError {
    /// Whether a new connection may do better: bytes were damaged on their way, or the server had no room.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Frame(error) => {
                matches!(error, FrameError::HeaderChecksum { .. } | FrameError::BodyChecksum { .. })
            }
            Self::Complaint(problem) => problem.code.is_retryable(),
            Self::NotAsked { .. }
            | Self::AnswerKind { .. }
            | Self::AnswerBody(_)
            | Self::Item(_)
            | Self::PageStuck
            | Self::BatchCount { .. } => false,
        }
    }
}

fn last_of(last: &Option<Box<Error>>) -> String {
    match last {
        Some(error) => format!("the last attempt: {error}"),
        None => "no attempt was answered".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_stay_small_enough_to_be_returned_by_value() {
        assert!(size_of::<Error>() <= 128, "{} bytes", size_of::<Error>());
    }

    #[test]
    fn an_error_says_what_the_last_attempt_met() {
        let last = Some(Box::new(Error::from(Problem::new(ErrorCode::NotLeader, "nobody leads"))));
        let error = Error::Timeout { deadline: Duration::from_secs(15), attempts: 9, last };
        assert_eq!(
            error.to_string(),
            "not done within 15s, after 9 attempts; the last attempt: NotLeader: nobody leads"
        );
        assert_eq!(error.code(), Some(ErrorCode::NotLeader));
        assert!(error.is_retryable() && !error.may_have_executed());
    }

    #[test]
    fn an_unknown_outcome_is_never_called_retryable() {
        let unknown = Error::OutcomeUnknown { attempts: 1, last: None };
        assert!(unknown.may_have_executed() && !unknown.is_retryable());
        let told = Error::from(Problem::new(ErrorCode::OutcomeUnknown, "link lost"));
        assert!(told.may_have_executed() && !told.is_retryable());
    }
}
