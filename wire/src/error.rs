//! Errors as they travel: a stable code, what the code implies, and a sentence for a person.
//!
//! A [`Problem`] says what happened, why, and what to do. Two facts are derived from the code and never
//! guessed from the text: whether trying again can help, and whether the request may have been executed.

use crate::expression::ExpressionError;
use crate::frame::Kind;
use crate::item::ItemError;
use crate::key::KeyError;
use crate::message::Body;
use crate::table::RouteHint;
use rkyv::{Archive, Deserialize, Serialize};
use std::fmt;

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $value:literal, $retry:ident, $effect:ident;)*) => {
        /// What went wrong. The numbers are part of the format; new ones are added, none is reused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u16)]
        pub enum ErrorCode { $($(#[$doc])* $name = $value,)* }

        impl ErrorCode {
            /// Every code.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The code with this number. A number from a newer peer reads as [`ErrorCode::Internal`].
            #[must_use]
            pub fn from_u16(value: u16) -> Self {
                match value {
                    $($value => Self::$name,)*
                    _ => Self::Internal,
                }
            }

            /// Whether the same request can succeed later without any change to it.
            #[must_use]
            pub fn is_retryable(self) -> bool {
                match self { $(Self::$name => codes!(@retry $retry),)* }
            }

            /// Whether the request may have taken effect although it was answered with this.
            #[must_use]
            pub fn may_have_executed(self) -> bool {
                match self { $(Self::$name => codes!(@effect $effect),)* }
            }
        }
    };
    (@retry again) => { true };
    (@retry final_) => { false };
    (@effect none) => { false };
    (@effect unknown) => { true };
}

codes! {
    /// The bytes are not what they claim to be.
    Malformed = 1, final_, none;
    /// The other side speaks another protocol version.
    UnsupportedVersion = 2, final_, none;
    /// A frame is longer than this connection may send.
    FrameTooLarge = 3, final_, none;
    /// Bytes were damaged on their way.
    ChecksumMismatch = 4, again, none;
    /// A frame kind that this process does not serve.
    UnknownKind = 5, final_, none;
    /// The handshake was refused.
    HandshakeRefused = 6, final_, none;

    /// The request is well-formed but not allowed.
    Validation = 100, final_, none;
    /// The item is larger than 400 KiB by DynamoDB's rule.
    ItemTooLarge = 101, final_, none;
    /// Lists and maps are nested deeper than 32 levels.
    NestingTooDeep = 102, final_, none;
    /// An expression is malformed or does not fit the item.
    Expression = 103, final_, none;

    /// No table has this name or id.
    TableNotFound = 200, final_, none;
    /// A table with this name exists.
    TableExists = 201, final_, none;
    /// The table is being created or deleted.
    TableNotReady = 202, again, none;

    /// The condition of a write did not hold.
    ConditionFailed = 300, final_, none;
    /// The token was issued too long ago, or too far in the future, to be told from a repeated one.
    TokenExpired = 301, final_, none;
    /// The token was used for another request.
    TokenReused = 302, final_, none;
    /// The client has said that it is done with this token.
    TokenAcknowledged = 303, final_, none;
    /// Too many tokens are remembered for this partition.
    TooManyTokens = 304, again, none;

    /// This replica does not lead the partition.
    NotLeader = 400, again, none;
    /// The sender's view of the membership is older than ours.
    StaleEpoch = 401, again, none;
    /// The key is not in this partition.
    WrongPartition = 402, again, none;
    /// The new leader waits until no older lease can be alive.
    LeaderNotReady = 403, again, none;

    /// More is under way than this process takes on.
    Overloaded = 500, again, none;
    /// The deadline passed before the request was executed.
    DeadlineExceeded = 501, again, none;
    /// Nobody who could serve the request can be reached.
    Unavailable = 502, again, none;
    /// The request was under way when its leader changed or the connection broke; it may still take effect.
    OutcomeUnknown = 503, again, unknown;
    /// The disk is full: reads go on, writes are refused.
    StorageFull = 504, again, none;
    /// The process is shutting down.
    ShuttingDown = 505, again, none;
    /// The metadata service has not yet heard from the catalogue.
    MetadataWarming = 506, again, none;

    /// A bug or a fault on the serving side.
    Internal = 600, final_, unknown;
    /// Stored bytes failed their checksum.
    CorruptData = 601, again, none;
}

/// An error with its facts, as it is returned, sent and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What went wrong.
    pub code: ErrorCode,
    /// What happened, why, and what to do: one line for a person.
    pub message: String,
    /// Who would know better, when the code is about routing.
    pub hint: Option<RouteHint>,
}

impl Problem {
    /// A problem without a hint.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), hint: None }
    }

    /// The same, naming who leads.
    #[must_use]
    pub fn with_hint(mut self, hint: Option<RouteHint>) -> Self {
        self.hint = hint;
        self
    }
}

impl From<&ItemError> for Problem {
    fn from(error: &ItemError) -> Self {
        let code = match error {
            ItemError::TooLarge { .. } | ItemError::ArchiveTooLarge { .. } => ErrorCode::ItemTooLarge,
            ItemError::TooDeep { .. } => ErrorCode::NestingTooDeep,
            ItemError::Malformed { .. }
            | ItemError::ArchiveSlack { .. }
            | ItemError::NumberNotCanonical { .. }
            | ItemError::SetEmpty { .. }
            | ItemError::SetNotAscending { .. }
            | ItemError::NameNotAscending { .. }
            | ItemError::NameEmpty { .. }
            | ItemError::NameTooLong { .. } => ErrorCode::Validation,
        };
        Self::new(code, error.to_string())
    }
}

impl From<&KeyError> for Problem {
    fn from(error: &KeyError) -> Self {
        Self::new(ErrorCode::Validation, error.to_string())
    }
}

impl From<&ExpressionError> for Problem {
    fn from(error: &ExpressionError) -> Self {
        Self::new(ErrorCode::Expression, error.to_string())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.code, self.message)
    }
}

impl std::error::Error for Problem {}

/// The body of an [`Kind::Error`] frame.
#[derive(Clone, Debug, PartialEq, Archive, Serialize, Deserialize)]
pub struct ErrorAnswer {
    /// [`ErrorCode`] as its number.
    pub code: u16,
    /// Repeats [`ErrorCode::is_retryable`], so that an older client treats a newer code rightly.
    pub retryable: bool,
    /// Repeats [`ErrorCode::may_have_executed`], for the same reason.
    pub may_have_executed: bool,
    /// For a person.
    pub message: String,
    /// Who leads, if the sender knows.
    pub hint: Option<RouteHint>,
}

impl Body for ErrorAnswer {
    const KIND: Kind = Kind::Error;
}

impl From<&Problem> for ErrorAnswer {
    fn from(problem: &Problem) -> Self {
        Self {
            code: problem.code as u16,
            retryable: problem.code.is_retryable(),
            may_have_executed: problem.code.may_have_executed(),
            message: problem.message.clone(),
            hint: problem.hint,
        }
    }
}

impl From<&ArchivedErrorAnswer> for Problem {
    fn from(archived: &ArchivedErrorAnswer) -> Self {
        Self {
            code: ErrorCode::from_u16(archived.code.into()),
            message: archived.message.to_string(),
            hint: archived.hint.as_ref().map(RouteHint::from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_their_numbers_and_unknown_ones_are_internal() {
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::from_u16(*code as u16), *code);
        }
        assert_eq!(ErrorCode::from_u16(65_000), ErrorCode::Internal);
    }

    #[test]
    fn only_an_unknown_outcome_or_a_fault_may_have_executed() {
        let unknown: Vec<_> = ErrorCode::ALL.iter().filter(|code| code.may_have_executed()).collect();
        assert_eq!(unknown, [&ErrorCode::OutcomeUnknown, &ErrorCode::Internal]);
    }
}
