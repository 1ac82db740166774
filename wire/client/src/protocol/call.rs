//! One call from its beginning to its end, whatever happens in between.
//!
//! ```text
//!   next ─► Send ─► (the shell sends and waits) ─► answered, or failed ─┐
//!     ▲  └► Pause ─► (the shell waits)                                  │
//!     │  └► Done                                                        │
//!     └─────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A call describes the tables that it does not know, encodes the operation, repeats attempts that failed,
//! and ends by its deadline. Both shells, pipelines and the simulator run this machine; they differ only in
//! how they wait.
//!
//! # Invariants
//!
//! * A repetition carries the same bytes, and so the same token, as the attempt that it repeats. A new token
//!   is issued only if no attempt under the old one can have been executed.
//! * The call's tokens are outstanding until it ends, and as long as an attempt is under way on a connection.

use super::answer::{Answer, Refusal};
use super::operation::table::{descriptor, encode_describe};
use super::operation::{Context, Operation, Progress, Unready};
use super::retry::{Attempts, RetryPolicy, Setback, Verdict};
use super::session::{Session, TokenLease};
use crate::error::{Error, Invalid};
use evenkeel_wire::error::ErrorCode;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::limits::FRAME_BODY_BYTES_MAX;
use evenkeel_wire::turn::Boot;
use std::sync::Arc;
use std::time::Duration;

/// How much longer than an attempt may take its answer is waited for: a server that gives up says so at the
/// last moment, and that is worth knowing.
pub const ANSWER_GRACE: Duration = Duration::from_millis(200);

/// Refusals in a row after which another endpoint is tried: a router that hears too little of the others
/// refuses what its neighbour would serve.
pub const REFUSALS_PER_ENDPOINT: u32 = 4;

/// A call under way. Dropped early, it is given up.
#[derive(Debug)]
pub struct Call<O: Operation> {
    session: Arc<Session>,
    operation: O,
    policy: RetryPolicy,
    deadline: Boot,
    attempts: Attempts,
    lease: Option<Arc<TokenLease>>,
    tables_used: Vec<String>,
    question: Question,
    body: Vec<u8>,
    wish: Wish,
    described_again: bool,
    token_renewed: bool,
    refused_in_a_row: u32,
    phase: Phase<O::Output>,
}

/// What `body` holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Question {
    Nothing,
    Description,
    Operation(Kind),
}

#[derive(Debug)]
enum Phase<T> {
    Ready,
    Paused(Boot),
    UnderWay,
    Ended(Result<T, Error>),
    /// The outcome has been given out.
    Over,
}

/// What to do next.
#[derive(Debug)]
pub enum Step<'a, T> {
    /// Send this, and come back with the answer or with what went wrong.
    Send(Sending<'a>),
    /// Come back at this instant.
    Pause {
        /// When.
        until: Boot,
    },
    /// The call has ended.
    Done(Result<T, Error>),
}

/// A request to send.
#[derive(Clone, Copy, Debug)]
pub struct Sending<'a> {
    /// Its kind.
    pub kind: Kind,
    /// Its body.
    pub body: &'a [u8],
    /// What the request may still take, to be sent with it.
    pub deadline: Boot,
    /// When to stop waiting for the answer.
    pub answer_by: Boot,
    /// Which connection will do.
    pub wish: Wish,
    /// Who must be asked, if not any router.
    pub endpoint: Option<&'a str>,
    /// To be held until the answer is there or the connection is gone, even if the call is dropped.
    pub lease: Option<&'a Arc<TokenLease>>,
}

/// Which connections will do for a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Only one that was opened at this instant or later: those that are older have failed, or know an older
    /// clock.
    pub opened_after: Boot,
    /// A new connection should begin with another endpoint than the last.
    pub elsewhere: bool,
}

/// Why an attempt was not answered.
#[derive(Clone, Debug)]
pub enum Failure {
    /// There was no connection: nothing was sent.
    NotConnected(Error),
    /// The connection ended before the answer came.
    Lost(Error),
    /// The answer did not come in time.
    Silent(Error),
}

impl<O: Operation> Call<O> {
    /// A call that begins now.
    #[must_use]
    pub fn new(session: &Arc<Session>, operation: O, policy: RetryPolicy, now: Boot) -> Self {
        Self {
            session: Arc::clone(session),
            operation,
            policy,
            deadline: now.after(policy.deadline),
            attempts: Attempts::default(),
            lease: None,
            tables_used: Vec::new(),
            question: Question::Nothing,
            body: Vec::new(),
            wish: Wish::default(),
            described_again: false,
            token_renewed: false,
            refused_in_a_row: 0,
            phase: Phase::Ready,
        }
    }

    /// Whether the call waits for a table's description, without which its request cannot be encoded.
    #[must_use]
    pub fn is_describing(&self) -> bool {
        self.question == Question::Description
    }

    /// What to do now.
    ///
    /// # Panics
    /// While a request is under way, and after [`Step::Done`].
    pub fn next(&mut self, now: Boot) -> Step<'_, O::Output> {
        if let Phase::Paused(until) = self.phase {
            if now < until {
                return Step::Pause { until };
            }
            self.phase = Phase::Ready;
        }
        if let Phase::Ready = self.phase {
            self.prepare(now);
        }
        match std::mem::replace(&mut self.phase, Phase::Over) {
            Phase::Ended(outcome) => Step::Done(outcome),
            Phase::Ready => Step::Send(self.send(now)),
            Phase::Paused(_) | Phase::UnderWay | Phase::Over => {
                panic!("a call is asked for its next step while it waits, or after its end")
            }
        }
    }

    /// Sees to it that there is a body to send, or that the call has ended.
    fn prepare(&mut self, now: Boot) {
        if now >= self.deadline {
            let error = self.attempts.time_is_up(self.policy.deadline);
            return self.give_up(error);
        }
        if self.question != Question::Nothing {
            return;
        }
        self.body.clear();
        let mut context = Context {
            session: &self.session,
            lease: &mut self.lease,
            tables_used: &mut self.tables_used,
            now,
        };
        match self.operation.encode(&mut context, &mut self.body) {
            Ok(kind) => self.question = Question::Operation(kind),
            Err(Unready::TableNotKnown(name)) => {
                self.body.clear();
                encode_describe(&name, &mut self.body);
                self.question = Question::Description;
            }
            Err(Unready::Invalid(invalid)) => return self.end_between(invalid.into()),
        }
        if self.body.len() > FRAME_BODY_BYTES_MAX {
            let invalid = Invalid::TooLarge { bytes: self.body.len(), limit: FRAME_BODY_BYTES_MAX };
            self.end_between(invalid.into());
        }
    }

    fn send(&mut self, now: Boot) -> Sending<'_> {
        self.phase = Phase::UnderWay;
        self.attempts.begin();
        let deadline = self.deadline.min(now.after(self.policy.attempt));
        Sending {
            kind: match self.question {
                Question::Operation(kind) => kind,
                Question::Description | Question::Nothing => Kind::DescribeTable,
            },
            body: &self.body,
            deadline,
            answer_by: self.deadline.min(deadline.after(ANSWER_GRACE)),
            wish: self.wish,
            endpoint: self.operation.endpoint(),
            lease: self.lease.as_ref(),
        }
    }

    /// The request was answered.
    pub fn answered(&mut self, now: Boot, answer: &Answer<'_>) {
        match answer.refusal() {
            Ok(Some(refusal)) => self.on_refusal(now, refusal),
            Ok(None) if self.question == Question::Description => match descriptor(answer) {
                Ok(table) => {
                    self.session.remember_table(table);
                    self.refused_in_a_row = 0;
                    self.attempts.answered();
                    self.ask_anew();
                }
                Err(error) => self.end_between(error),
            },
            Ok(None) => match self.operation.absorb(answer, &self.session) {
                Ok(progress) => self.on_progress(now, progress),
                Err(error) => self.give_up(error),
            },
            Err(error) => self.end_between(error.into()),
        }
    }

    fn on_progress(&mut self, now: Boot, progress: Progress<O::Output>) {
        if !matches!(progress, Progress::Refused(_)) {
            self.refused_in_a_row = 0;
        }
        match progress {
            Progress::Done(output) => self.end(Ok(output)),
            Progress::Next => {
                self.attempts.settled();
                self.ask_anew();
            }
            Progress::Follow => {
                self.attempts.changed();
                self.ask_anew();
            }
            Progress::Refused(refusal) => {
                // What is left of the request is another body than before.
                self.question = Question::Nothing;
                self.judge_refusal(now, refusal, true);
            }
        }
    }

    fn on_refusal(&mut self, now: Boot, refusal: Refusal) {
        let of_operation = self.question != Question::Description;
        if of_operation {
            let unknown = self.attempts.is_outcome_unknown();
            match self.operation.refused(&refusal, unknown, &self.session) {
                Some(Progress::Refused(other)) => return self.judge_refusal(now, other, true),
                Some(progress) => return self.on_progress(now, progress),
                None => {}
            }
        }
        self.judge_refusal(now, refusal, of_operation);
    }

    fn judge_refusal(&mut self, now: Boot, refusal: Refusal, of_operation: bool) {
        let code = refusal.problem.code;
        if code == ErrorCode::TableNotFound && of_operation && self.describe_again() {
            return;
        }
        if code == ErrorCode::TokenExpired && self.renew_token(now) {
            return;
        }
        self.refused_in_a_row += 1;
        if code == ErrorCode::ShuttingDown || self.refused_in_a_row.is_multiple_of(REFUSALS_PER_ENDPOINT) {
            self.wish = Wish { opened_after: now, elsewhere: true };
        }
        let setback = Setback {
            error: refusal.problem.into(),
            retryable: refusal.retryable,
            may_have_executed: refusal.may_have_executed && of_operation && self.operation.is_write(),
            answers_request: of_operation && self.operation.is_write(),
        };
        self.judge(now, setback);
    }

    /// The request was not answered.
    pub fn failed(&mut self, now: Boot, failure: Failure) {
        let (error, sent) = match failure {
            Failure::NotConnected(error) => (error, false),
            Failure::Lost(error) => {
                self.wish.opened_after = now;
                (error, true)
            }
            Failure::Silent(error) => {
                self.wish = Wish { opened_after: now, elsewhere: true };
                (error, true)
            }
        };
        let of_operation = self.question != Question::Description;
        let setback = Setback {
            retryable: is_mendable(&error),
            may_have_executed: sent && of_operation && self.operation.is_write(),
            answers_request: false,
            error,
        };
        self.judge(now, setback);
    }

    fn judge(&mut self, now: Boot, setback: Setback) {
        let left = self.deadline.since(now);
        let mut prng = self.session.fork_prng();
        match self.attempts.judge(&self.policy, setback, left, &mut prng) {
            Verdict::Retry { after } => self.phase = Phase::Paused(now.after(after)),
            Verdict::GiveUp(error) => self.give_up(error),
        }
    }

    /// Describes the tables again that the request was encoded for, once: they may have been created again
    /// under their names.
    fn describe_again(&mut self) -> bool {
        if self.described_again || self.tables_used.is_empty() {
            return false;
        }
        self.described_again = true;
        self.forget_tables();
        self.ask_anew();
        true
    }

    /// Takes another token, once, if no attempt under the old one can have been executed. Before it is
    /// issued, the handshake of a new connection must correct the clock: describing the tables again needs
    /// one.
    fn renew_token(&mut self, now: Boot) -> bool {
        if self.token_renewed || self.lease.is_none() || self.attempts.is_outcome_unknown() {
            return false;
        }
        self.token_renewed = true;
        self.lease = None;
        self.wish.opened_after = now;
        self.forget_tables();
        self.ask_anew();
        true
    }

    fn forget_tables(&mut self) {
        for table in self.tables_used.drain(..) {
            self.session.forget_table(&table);
        }
    }

    fn ask_anew(&mut self) {
        self.question = Question::Nothing;
        self.phase = Phase::Ready;
    }

    /// Ends with an error that says nothing about the attempts that were made.
    fn end_between(&mut self, error: Error) {
        let error = self.attempts.end_between(error);
        self.give_up(error);
    }

    fn give_up(&mut self, error: Error) {
        let outcome = self.operation.give_up(error);
        self.end(outcome);
    }

    fn end(&mut self, outcome: Result<O::Output, Error>) {
        self.lease = None;
        self.phase = Phase::Ended(outcome);
    }
}

/// Whether a new connection can help.
fn is_mendable(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::ConnectionLost { .. } => true,
        Error::Problem(problem) => problem.code.is_retryable(),
        Error::Protocol(error) => error.is_transient(),
        Error::Timeout { .. }
        | Error::OutcomeUnknown { .. }
        | Error::Invalid(_)
        | Error::CorruptItem { .. } => false,
    }
}
