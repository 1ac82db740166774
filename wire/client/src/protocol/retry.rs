//! When a failed attempt is made again, and with what a call ends if not.
//!
//! A pure state machine: told how an attempt failed and how much of the deadline is left, it says when to try
//! again or which error to give. The wait before an attempt is drawn uniformly from zero to a ceiling that
//! doubles with every failure ("full jitter"), so that clients which failed together do not come back
//! together.
//!
//! # Invariants
//!
//! * Once one attempt of a write may have been executed, the call ends with its output, with an answer that
//!   settles it, or with [`Error::OutcomeUnknown`]: never with an error that claims it had no effect.
//! * A call ends by its deadline. The last waits are shortened to fit, instead of giving up early.
//!
//! A fail-over takes a few seconds, in which attempts are answered with `NotLeader`, `LeaderNotReady` and the
//! like: the default deadline is several times as long.

use crate::error::Error;
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::prng::Prng;
use std::time::Duration;

/// How long calls and their attempts may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// From the beginning of a call to its end, with all attempts.
    pub deadline: Duration,
    /// One attempt. A leader that hangs without its connection breaking costs a call this much.
    pub attempt: Duration,
    /// The ceiling of the wait after the first failure.
    pub backoff_base: Duration,
    /// The highest ceiling.
    pub backoff_max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            deadline: Duration::from_secs(15),
            attempt: Duration::from_secs(2),
            backoff_base: Duration::from_millis(10),
            backoff_max: Duration::from_millis(500),
        }
    }
}

/// How an attempt failed.
#[derive(Clone, Debug)]
pub struct Setback {
    /// What happened.
    pub error: Error,
    /// Whether trying again can help.
    pub retryable: bool,
    /// Whether the attempt may have been executed, or may yet be.
    pub may_have_executed: bool,
    /// Whether this is the answer to the write itself, and not to a question before or after it.
    pub answers_request: bool,
}

/// What follows from a failed attempt.
#[derive(Clone, Debug)]
pub enum Verdict {
    /// Try again after this long.
    Retry {
        /// How long to wait first.
        after: Duration,
    },
    /// The call has ended.
    GiveUp(Error),
}

/// The attempts of one call.
#[derive(Clone, Debug, Default)]
pub struct Attempts {
    made: u32,
    failed_in_a_row: u32,
    outcome_unknown: bool,
    last: Option<Box<Error>>,
}

impl Attempts {
    /// An attempt is made now.
    pub fn begin(&mut self) {
        self.made = self.made.saturating_add(1);
    }

    /// An attempt was answered: the next failure is waited out shortly again.
    pub fn answered(&mut self) {
        self.failed_in_a_row = 0;
    }

    /// An attempt was answered, nothing about it is open, and the call goes on with its next request.
    pub fn settled(&mut self) {
        self.answered();
        self.outcome_unknown = false;
        self.last = None;
    }

    /// The change was made, or may have been; what follows are questions about it, and whatever becomes of
    /// them, the call is not without effect.
    pub fn changed(&mut self) {
        self.answered();
        self.outcome_unknown = true;
        self.last = None;
    }

    /// Whether an attempt may have been executed whose answer never came.
    #[must_use]
    pub fn is_outcome_unknown(&self) -> bool {
        self.outcome_unknown
    }

    /// Decides what follows from a failed attempt when `left` is left of the deadline.
    pub fn judge(
        &mut self,
        policy: &RetryPolicy,
        setback: Setback,
        left: Duration,
        prng: &mut Prng,
    ) -> Verdict {
        let was_unknown = self.outcome_unknown;
        self.outcome_unknown |= setback.may_have_executed;
        if !setback.retryable {
            let is_settled = !was_unknown || (setback.answers_request && settles(&setback.error));
            return Verdict::GiveUp(self.end_with(setback.error, is_settled));
        }
        let ceiling = backoff_ceiling(policy, self.failed_in_a_row);
        self.failed_in_a_row = self.failed_in_a_row.saturating_add(1);
        self.last = Some(Box::new(setback.error));
        if left <= policy.backoff_base {
            return Verdict::GiveUp(self.time_is_up(policy.deadline));
        }
        let drawn = prng.below(ceiling.as_nanos() as u64 + 1);
        Verdict::Retry { after: Duration::from_nanos(drawn).min(left / 2) }
    }

    /// The error of a call whose deadline passed.
    #[must_use]
    pub fn time_is_up(&mut self, deadline: Duration) -> Error {
        let (attempts, last) = (self.made, self.last.take());
        if self.outcome_unknown {
            Error::OutcomeUnknown { attempts, last }
        } else {
            Error::Timeout { deadline, attempts, last }
        }
    }

    /// The error of a call that ends on the way to its next attempt.
    #[must_use]
    pub fn end_between(&self, error: Error) -> Error {
        self.end_with(error, !self.outcome_unknown)
    }

    /// The error of a call that ends with a failure which no repetition mends, when what became of the
    /// attempts before is settled or not.
    fn end_with(&self, error: Error, is_settled: bool) -> Error {
        let tells_all = match &error {
            Error::Problem(_) => is_settled,
            Error::Connect { .. }
            | Error::ConnectionLost { .. }
            | Error::Timeout { .. }
            | Error::OutcomeUnknown { .. }
            | Error::Invalid(_)
            | Error::Protocol(_)
            | Error::CorruptItem { .. } => !self.outcome_unknown,
        };
        if tells_all {
            return error;
        }
        Error::OutcomeUnknown { attempts: self.made, last: Some(Box::new(error)) }
    }
}

/// Whether an answer to a repetition says that no earlier attempt was executed: it was decided on what the
/// partition remembers of the token. An expired or acknowledged token is not remembered.
fn settles(error: &Error) -> bool {
    !error.may_have_executed()
        && !matches!(error.code(), Some(ErrorCode::TokenExpired | ErrorCode::TokenAcknowledged))
}

fn backoff_ceiling(policy: &RetryPolicy, failed_in_a_row: u32) -> Duration {
    let doubled = policy.backoff_base.saturating_mul(1 << failed_in_a_row.min(20));
    doubled.min(policy.backoff_max)
}

#[cfg(test)]
mod tests {
    use super::*;
    use evenkeel_wire::error::Problem;
    use proptest::prelude::*;

    const LEFT: Duration = Duration::from_secs(10);

    fn refused(code: ErrorCode) -> Setback {
        Setback {
            error: Problem::new(code, "told").into(),
            retryable: code.is_retryable(),
            may_have_executed: code.may_have_executed(),
            answers_request: true,
        }
    }

    /// Runs a story of codes, all retried but the last; what the call ends with.
    fn check(codes: &[ErrorCode], left_at_the_end: Duration) -> Error {
        let (policy, mut prng, mut attempts) = (RetryPolicy::default(), Prng::new(1), Attempts::default());
        for (place, code) in codes.iter().enumerate() {
            attempts.begin();
            let last = place + 1 == codes.len();
            let left = if last { left_at_the_end } else { LEFT };
            match attempts.judge(&policy, refused(*code), left, &mut prng) {
                Verdict::Retry { .. } => assert!(!last, "the last attempt was to be retried"),
                Verdict::GiveUp(error) => {
                    assert!(last, "given up after {code:?}: {error}");
                    return error;
                }
            }
        }
        unreachable!("the last attempt is given up");
    }

    #[test]
    fn what_cannot_be_mended_ends_the_call_at_once() {
        let error = check(&[ErrorCode::NotLeader, ErrorCode::ConditionFailed], LEFT);
        assert!(error.is_condition_failed());
        let error = check(&[ErrorCode::Internal], LEFT);
        assert_eq!(error.code(), Some(ErrorCode::Internal));
        assert!(error.may_have_executed());
    }

    #[test]
    fn a_deadline_that_ends_without_a_risky_attempt_is_a_timeout() {
        let error = check(&[ErrorCode::NotLeader, ErrorCode::LeaderNotReady], Duration::ZERO);
        assert!(matches!(error, Error::Timeout { attempts: 2, .. }), "{error:?}");
        assert_eq!(error.code(), Some(ErrorCode::LeaderNotReady));
    }

    #[test]
    fn a_deadline_that_ends_after_a_risky_attempt_leaves_the_outcome_unknown() {
        let error = check(&[ErrorCode::OutcomeUnknown, ErrorCode::NotLeader], Duration::ZERO);
        assert!(matches!(error, Error::OutcomeUnknown { attempts: 2, .. }), "{error:?}");
    }

    #[test]
    fn an_answer_that_was_decided_on_the_token_settles_a_risky_attempt() {
        let error = check(&[ErrorCode::OutcomeUnknown, ErrorCode::ConditionFailed], LEFT);
        assert!(error.is_condition_failed());
    }

    #[test]
    fn an_answer_to_another_question_settles_nothing() {
        let mut attempts = Attempts::default();
        let risky = refused(ErrorCode::OutcomeUnknown);
        let _ = attempts.judge(&RetryPolicy::default(), risky, LEFT, &mut Prng::new(1));
        let about_table = Setback { answers_request: false, ..refused(ErrorCode::TableNotFound) };
        let verdict = attempts.judge(&RetryPolicy::default(), about_table, LEFT, &mut Prng::new(1));
        assert!(matches!(verdict, Verdict::GiveUp(Error::OutcomeUnknown { .. })), "{verdict:?}");
    }

    #[test]
    fn a_token_that_is_no_more_remembered_settles_nothing() {
        for code in [ErrorCode::TokenExpired, ErrorCode::TokenAcknowledged, ErrorCode::Internal] {
            let error = check(&[ErrorCode::OutcomeUnknown, code], LEFT);
            assert!(matches!(error, Error::OutcomeUnknown { .. }), "{code:?}: {error:?}");
        }
    }

    #[test]
    fn waits_grow_to_their_ceiling_and_an_answer_makes_them_short_again() {
        let policy = RetryPolicy::default();
        let ceilings: Vec<u128> = (0..8).map(|failed| backoff_ceiling(&policy, failed).as_millis()).collect();
        assert_eq!(ceilings, [10, 20, 40, 80, 160, 320, 500, 500]);
        let (mut prng, mut attempts) = (Prng::new(7), Attempts::default());
        for _ in 0..20 {
            let _ = attempts.judge(&policy, refused(ErrorCode::NotLeader), LEFT, &mut prng);
        }
        attempts.answered();
        let Verdict::Retry { after } =
            attempts.judge(&policy, refused(ErrorCode::NotLeader), LEFT, &mut prng)
        else {
            panic!("much of the deadline is left");
        };
        assert!(after <= policy.backoff_base);
    }

    proptest! {
        #[test]
        fn a_wait_never_reaches_the_deadline(seed: u64, failures in 1_u32..60, left_ms in 0_u64..20_000) {
            let (policy, mut prng) = (RetryPolicy::default(), Prng::new(seed));
            let mut attempts = Attempts::default();
            let left = Duration::from_millis(left_ms);
            for _ in 0..failures {
                match attempts.judge(&policy, refused(ErrorCode::Unavailable), left, &mut prng) {
                    Verdict::Retry { after } => prop_assert!(after < left && after <= policy.backoff_max),
                    Verdict::GiveUp(_) => prop_assert!(left <= policy.backoff_base),
                }
            }
        }
    }
}
