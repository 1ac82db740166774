//! Answers, and the refusals among them.

use crate::error::ProtocolError;
use evenkeel_wire::error::{ArchivedErrorAnswer, ErrorAnswer, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::message::access;

/// An answer as it stands in the connection's buffer.
#[derive(Clone, Copy, Debug)]
pub struct Answer<'a> {
    /// Its header. The request is the one that
    /// [`Connection::request`](super::connection::Connection::request) returned.
    pub header: Header,
    /// Its body, whose checksum held.
    pub body: &'a [u8],
}

/// A server's refusal: its problem, and what follows from it as the server sees it, so that a code which is
/// newer than this client is treated rightly.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What went wrong.
    pub problem: Problem,
    /// Whether the same request can succeed later.
    pub retryable: bool,
    /// Whether the request may have been executed.
    pub may_have_executed: bool,
}

impl From<Problem> for Refusal {
    fn from(problem: Problem) -> Self {
        let (retryable, may_have_executed) = (problem.code.is_retryable(), problem.code.may_have_executed());
        Self { problem, retryable, may_have_executed }
    }
}

impl From<&ArchivedErrorAnswer> for Refusal {
    fn from(archived: &ArchivedErrorAnswer) -> Self {
        Self {
            problem: Problem::from(archived),
            retryable: archived.retryable,
            may_have_executed: archived.may_have_executed,
        }
    }
}

impl Answer<'_> {
    /// The refusal, if this is one.
    ///
    /// # Errors
    /// When the body is not that of an error.
    pub fn refusal(&self) -> Result<Option<Refusal>, ProtocolError> {
        if self.header.kind != Kind::Error {
            return Ok(None);
        }
        let error = access::<ErrorAnswer>(self.body).map_err(ProtocolError::AnswerBody)?;
        Ok(Some(Refusal::from(error)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::error::ErrorCode;
    use evenkeel_wire::ids::RequestId;

    #[test]
    fn a_refusal_keeps_what_the_server_says_about_codes_that_are_newer_than_this_client() {
        let answer = ErrorAnswer {
            code: 59_999,
            retryable: true,
            may_have_executed: false,
            message: "something new".to_owned(),
            hint: None,
        };
        let mut body = Vec::new();
        evenkeel_wire::message::encode(&answer, &mut body);
        let header = Header::new(Kind::Error, RequestId(1));
        let refusal = Answer { header, body: &body }.refusal().unwrap().unwrap();
        assert!(refusal.retryable && !refusal.may_have_executed);
        assert_eq!(refusal.problem.code, ErrorCode::Internal);
    }
}
