//! Tokens that a partition remembers, so that a repeated write is recognised (docs/decisions/0005-tokens.md;
//! the scheme is RIFL's: "Implementing Linearizability at Large Scale and Low Latency", SOSP 2015).
//!
//! This is replicated state: it changes only when an entry is applied, and expiry runs on the entries'
//! timestamps. A client counts its writes and says up to which one it will never ask again; the outcomes
//! below that are forgotten. A client that falls silent is forgotten after the retention time, when its
//! tokens are too old to be accepted.

use crate::limits::{OUTCOME_BYTES_MAX, OUTCOMES_MAX, SESSIONS_MAX, TOKEN_AHEAD_MS_MAX, TOKEN_RETENTION_MS};
use bytes::Bytes;
use evenkeel_wire::entry::{Refusal, WrittenItem};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::ids::Slot;
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::message::request::Token;
use imbl::OrdMap;
use std::cmp::Ordering;
use std::collections::VecDeque;
use std::ops::Bound;

/// How often, in log time, silent clients are looked for.
const SWEEP_MS: u64 = 5_000;

/// While no more of a client's outcomes are missing before one, it is found by its number.
const MISSING_MAX: usize = 8;

/// An item that an answer carried, kept for a repetition: its checksum and archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Returned {
    /// CRC-32C of `archive`.
    pub checksum: u32,
    /// The item's archive.
    pub archive: Bytes,
}

impl From<WrittenItem> for Returned {
    fn from(item: WrittenItem) -> Self {
        Self { checksum: item.checksum, archive: item.archive }
    }
}

/// What a write led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The token's sequence.
    pub sequence: u64,
    /// When the token was issued.
    pub issued_ms: u64,
    /// XXH3-64 of the request.
    pub request_hash: u64,
    /// Where the write stands.
    pub slot: Slot,
    /// Its timestamp.
    pub timestamp: u64,
    /// The key it wrote: the outcome goes where its key goes when a partition is split.
    pub key: KeyBytes,
    /// The item that the answer carried.
    pub returned: Option<Returned>,
    /// Why it was refused, if it was: then nothing was written.
    pub refused: Option<Refusal>,
}

/// A client's tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Session {
    /// The client is done with everything below.
    pub acknowledged_below: u64,
    /// When its newest token was issued.
    pub latest_issued_ms: u64,
    /// What its other writes led to, ascending by sequence.
    pub outcomes: VecDeque<Outcome>,
}

/// All clients that a partition remembers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sessions {
    clients: OrdMap<[u8; 16], Session>,
    outcomes: usize,
    /// Of all outcomes.
    bytes: usize,
    swept_ms: u64,
}

/// What a token turns out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recognised {
    /// Not seen before.
    Fresh,
    /// The write has been done.
    Repeated(Outcome),
}

impl Sessions {
    /// Looks a token up.
    ///
    /// # Errors
    /// When it must not be executed: too old to be told from a repeated one, acknowledged, used for another
    /// request; or when there is no room to remember it.
    pub fn recognise(&self, token: &Token, request_hash: u64, now_ms: u64) -> Result<Recognised, Problem> {
        check_age(token, now_ms)?;
        let Some(session) = self.clients.get(&token.client) else {
            if self.clients.len() >= SESSIONS_MAX && !self.would_sweep(now_ms) {
                return Err(too_many("clients"));
            }
            self.check_room(None, token, now_ms)?;
            return Ok(Recognised::Fresh);
        };
        if let Ok(place) = session.find(token.sequence) {
            let outcome = &session.outcomes[place];
            if outcome.request_hash != request_hash {
                return Err(reused(token));
            }
            return Ok(Recognised::Repeated(outcome.clone()));
        }
        if token.sequence < session.acknowledged_below {
            let message = format!("the client has said that it is done with its write {}", token.sequence);
            return Err(Problem::new(ErrorCode::TokenAcknowledged, message));
        }
        self.check_room(Some(session), token, now_ms)?;
        Ok(Recognised::Fresh)
    }

    /// Whether one more outcome can be remembered: there is room, or recording it makes room.
    fn check_room(&self, session: Option<&Session>, token: &Token, now_ms: u64) -> Result<(), Problem> {
        if self.outcomes < OUTCOMES_MAX && self.bytes < OUTCOME_BYTES_MAX {
            return Ok(());
        }
        let oldest = session.and_then(|session| session.outcomes.front());
        let acknowledges = oldest.is_some_and(|outcome| outcome.sequence < token.acknowledged_below);
        if acknowledges || self.would_sweep(now_ms) {
            return Ok(());
        }
        Err(too_many("outcomes"))
    }

    /// Whether recording an outcome at `now_ms` forgets anything by its age.
    fn would_sweep(&self, now_ms: u64) -> bool {
        now_ms >= self.swept_ms + SWEEP_MS && self.clients.values().any(|session| session.has_expired(now_ms))
    }

    /// The outcome of a token, if it is remembered.
    #[must_use]
    pub fn find(&self, token: &Token) -> Option<&Outcome> {
        let session = self.clients.get(&token.client)?;
        session.find(token.sequence).ok().map(|place| &session.outcomes[place])
    }

    /// Remembers what a write led to, forgets what its client is done with, and now and then silent clients.
    pub fn record(&mut self, token: &Token, outcome: Outcome) {
        let now_ms = outcome.timestamp >> 16;
        let session = self.clients.entry(token.client).or_default();
        session.latest_issued_ms = session.latest_issued_ms.max(token.issued_ms);
        session.acknowledged_below = session.acknowledged_below.max(token.acknowledged_below);
        if let Err(place) = session.find(token.sequence) {
            self.outcomes += 1;
            self.bytes += outcome.bytes();
            session.outcomes.insert(place, outcome);
        }
        let done = session.acknowledged_below;
        while session.outcomes.front().is_some_and(|outcome| outcome.sequence < done) {
            let outcome = session.outcomes.pop_front().expect("there is a first");
            self.outcomes -= 1;
            self.bytes -= outcome.bytes();
        }
        if now_ms >= self.swept_ms + SWEEP_MS {
            self.sweep(now_ms);
        }
    }

    /// Forgets what is too old: its tokens would be refused for their age.
    fn sweep(&mut self, now_ms: u64) {
        self.swept_ms = now_ms;
        let stale = self.clients.iter().filter(|(_, session)| session.has_expired(now_ms));
        let stale: Vec<[u8; 16]> = stale.map(|(client, _)| *client).collect();
        for client in stale {
            let mut session = self.clients.remove(&client).expect("it was just seen");
            self.uncount(&session);
            if !is_expired(session.latest_issued_ms, now_ms) {
                session.outcomes.retain(|outcome| !is_expired(outcome.issued_ms, now_ms));
                self.restore(client, session);
            }
        }
    }

    fn uncount(&mut self, session: &Session) {
        self.outcomes -= session.outcomes.len();
        self.bytes -= session.outcomes.iter().map(Outcome::bytes).sum::<usize>();
    }

    /// A client's session.
    #[must_use]
    pub fn get(&self, client: &[u8; 16]) -> Option<&Session> {
        self.clients.get(client)
    }

    /// The clients after one, ascending.
    pub fn after(&self, client: Option<[u8; 16]>) -> impl Iterator<Item = (&[u8; 16], &Session)> {
        let lower = client.map_or(Bound::Unbounded, Bound::Excluded);
        self.clients.range((lower, Bound::Unbounded))
    }

    /// Puts back a session that [`after`](Self::after) gave.
    pub fn restore(&mut self, client: [u8; 16], session: Session) {
        self.outcomes += session.outcomes.len();
        self.bytes += session.outcomes.iter().map(Outcome::bytes).sum::<usize>();
        if let Some(old) = self.clients.insert(client, session) {
            self.uncount(&old);
        }
    }

    /// When silent clients were last looked for, in log time.
    #[must_use]
    pub fn swept_ms(&self) -> u64 {
        self.swept_ms
    }

    /// Sets what [`swept_ms`](Self::swept_ms) gave, so that replicas sweep at the same entries.
    pub fn set_swept_ms(&mut self, swept_ms: u64) {
        self.swept_ms = swept_ms;
    }
}

impl Session {
    /// Whether anything of it is too old. A client issues its tokens in order: its first outcome is its
    /// oldest.
    fn has_expired(&self, now_ms: u64) -> bool {
        let oldest = self.outcomes.front().map_or(self.latest_issued_ms, |outcome| outcome.issued_ms);
        is_expired(oldest.min(self.latest_issued_ms), now_ms)
    }

    /// Where a write's outcome stands, or would stand. A client counts its writes: if none is missing, one
    /// stands as far behind the first as its number says, and before that by as many as are missing.
    fn find(&self, sequence: u64) -> Result<usize, usize> {
        let first = self.outcomes.front().map_or(sequence, |outcome| outcome.sequence);
        let behind_first = usize::try_from(sequence.saturating_sub(first)).unwrap_or(usize::MAX);
        let mut place = behind_first.min(self.outcomes.len());
        for _ in 0..MISSING_MAX {
            match self.outcomes.get(place).map(|outcome| outcome.sequence.cmp(&sequence)) {
                Some(Ordering::Equal) => return Ok(place),
                Some(Ordering::Less) => return Err(place + 1),
                Some(Ordering::Greater) | None => {}
            }
            let Some(before) = place.checked_sub(1) else {
                return Err(place);
            };
            place = before;
        }
        self.outcomes.binary_search_by_key(&sequence, |outcome| outcome.sequence)
    }
}

impl Outcome {
    /// What it takes to remember, about, bytes.
    fn bytes(&self) -> usize {
        let returned = self.returned.as_ref().map_or(0, |returned| returned.archive.len());
        self.key.len() + returned + self.refused.as_ref().map_or(0, |refused| refused.message.len())
    }
}

fn is_expired(issued_ms: u64, now_ms: u64) -> bool {
    issued_ms + TOKEN_RETENTION_MS < now_ms
}

fn check_age(token: &Token, now_ms: u64) -> Result<(), Problem> {
    let (oldest, newest) = (now_ms.saturating_sub(TOKEN_RETENTION_MS), now_ms + TOKEN_AHEAD_MS_MAX);
    if (oldest..=newest).contains(&token.issued_ms) {
        return Ok(());
    }
    let message = format!(
        "the token was issued at {} ms, the log stands at {now_ms} ms; tokens are accepted for {} s; \
         issue a new one by the server's clock if this is the first try",
        token.issued_ms,
        TOKEN_RETENTION_MS / 1000,
    );
    Err(Problem::new(ErrorCode::TokenExpired, message))
}

/// The error for a token that came with another request before.
#[must_use]
pub fn reused(token: &Token) -> Problem {
    let message = format!("the client's write {} was another request; use a token once", token.sequence);
    Problem::new(ErrorCode::TokenReused, message)
}

fn too_many(what: &str) -> Problem {
    let message = format!("the partition remembers as many {what} as it can; try again in a moment");
    Problem::new(ErrorCode::TooManyTokens, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW_MS: u64 = 1_000_000;

    fn token(client: u8, sequence: u64, acknowledged_below: u64) -> Token {
        Token { client: [client; 16], sequence, issued_ms: NOW_MS, acknowledged_below }
    }

    fn outcome(token: &Token, request_hash: u64, at_ms: u64) -> Outcome {
        Outcome {
            sequence: token.sequence,
            issued_ms: token.issued_ms,
            request_hash,
            slot: Slot(token.sequence),
            timestamp: at_ms << 16,
            key: KeyBytes::from_slice(b"k"),
            returned: None,
            refused: None,
        }
    }

    fn code(sessions: &Sessions, token: &Token, hash: u64) -> ErrorCode {
        sessions.recognise(token, hash, NOW_MS).unwrap_err().code
    }

    #[test]
    fn a_repetition_gets_the_first_outcome_and_a_reuse_is_refused() {
        let mut sessions = Sessions::default();
        let first = token(1, 5, 0);
        assert_eq!(sessions.recognise(&first, 9, NOW_MS), Ok(Recognised::Fresh));
        sessions.record(&first, outcome(&first, 9, NOW_MS));
        let repeated = Recognised::Repeated(outcome(&first, 9, NOW_MS));
        assert_eq!(sessions.recognise(&first, 9, NOW_MS), Ok(repeated));
        assert_eq!(code(&sessions, &first, 8), ErrorCode::TokenReused);
        assert_eq!(sessions.recognise(&token(2, 5, 0), 9, NOW_MS), Ok(Recognised::Fresh), "another client");
    }

    #[test]
    fn acknowledged_outcomes_are_forgotten_and_never_executed_again() {
        let mut sessions = Sessions::default();
        for sequence in [3, 1, 2] {
            let token = token(1, sequence, 0);
            sessions.record(&token, outcome(&token, 0, NOW_MS));
        }
        let newer = token(1, 4, 3);
        sessions.record(&newer, outcome(&newer, 0, NOW_MS));
        let kept: Vec<u64> =
            sessions.after(None).next().unwrap().1.outcomes.iter().map(|o| o.sequence).collect();
        assert_eq!((kept, sessions.outcomes), (vec![3, 4], 2));
        assert_eq!(code(&sessions, &token(1, 2, 0), 0), ErrorCode::TokenAcknowledged);
    }

    #[test]
    fn old_and_future_tokens_are_refused() {
        let sessions = Sessions::default();
        let late = Token { issued_ms: NOW_MS - TOKEN_RETENTION_MS - 1, ..token(1, 1, 0) };
        let early = Token { issued_ms: NOW_MS + TOKEN_AHEAD_MS_MAX + 1, ..token(1, 1, 0) };
        assert_eq!(code(&sessions, &late, 0), ErrorCode::TokenExpired);
        assert_eq!(code(&sessions, &early, 0), ErrorCode::TokenExpired);
    }

    #[test]
    fn a_silent_client_is_forgotten_only_when_its_tokens_are_too_old() {
        let mut sessions = Sessions::default();
        let silent = token(1, 1, 0);
        sessions.record(&silent, outcome(&silent, 0, NOW_MS));
        for later_ms in [NOW_MS + TOKEN_RETENTION_MS, NOW_MS + TOKEN_RETENTION_MS + SWEEP_MS] {
            let other = Token { issued_ms: later_ms, ..token(2, later_ms, 0) };
            sessions.record(&other, outcome(&other, 0, later_ms));
            let expected = if later_ms == NOW_MS + TOKEN_RETENTION_MS { 2 } else { 1 };
            assert_eq!(sessions.after(None).count(), expected, "at {later_ms} ms");
        }
    }

    /// As many clients as are remembered, each with one outcome.
    fn full_of_clients() -> Sessions {
        let mut sessions = Sessions::default();
        for number in 0..SESSIONS_MAX as u64 {
            let mut client = [0; 16];
            client[..8].copy_from_slice(&number.to_le_bytes());
            let token = Token { client, ..token(0, 1, 0) };
            sessions.record(&token, outcome(&token, 0, NOW_MS));
        }
        sessions
    }

    #[test]
    fn a_full_table_takes_new_clients_again_when_old_ones_have_been_silent() {
        let mut sessions = full_of_clients();
        assert_eq!(code(&sessions, &token(0xee, 1, 0), 0), ErrorCode::TooManyTokens);
        let later = NOW_MS + TOKEN_RETENTION_MS + SWEEP_MS;
        let new = Token { issued_ms: later, ..token(0xee, 1, 0) };
        assert_eq!(sessions.recognise(&new, 0, later), Ok(Recognised::Fresh));
        sessions.record(&new, outcome(&new, 0, later));
        assert_eq!((sessions.clients.len(), sessions.outcomes), (1, 1));
    }

    #[test]
    fn a_client_that_acknowledges_makes_room_for_itself() {
        let mut sessions = Sessions::default();
        for sequence in 1..=OUTCOMES_MAX as u64 {
            let token = token(1, sequence, 0);
            sessions.record(&token, outcome(&token, 0, NOW_MS));
        }
        let next = OUTCOMES_MAX as u64 + 1;
        assert_eq!(code(&sessions, &token(1, next, 0), 0), ErrorCode::TooManyTokens);
        let acknowledging = token(1, next, next);
        assert_eq!(sessions.recognise(&acknowledging, 0, NOW_MS), Ok(Recognised::Fresh));
        sessions.record(&acknowledging, outcome(&acknowledging, 0, NOW_MS));
        assert_eq!(sessions.outcomes, 1);
    }

    #[test]
    fn outcomes_of_a_busy_client_expire_and_their_tokens_stay_refused() {
        let mut sessions = Sessions::default();
        let stuck = token(1, 1, 0);
        let archive = Bytes::from(vec![0; 1000]);
        let returned = Some(Returned { checksum: 0, archive });
        sessions.record(&stuck, Outcome { returned, ..outcome(&stuck, 0, NOW_MS) });
        let later = NOW_MS + TOKEN_RETENTION_MS + SWEEP_MS;
        let busy = Token { issued_ms: later, ..token(1, 2, 0) };
        sessions.record(&busy, outcome(&busy, 0, later));
        assert_eq!((sessions.outcomes, sessions.bytes), (1, 1));
        assert_eq!(sessions.recognise(&stuck, 0, later).unwrap_err().code, ErrorCode::TokenExpired);
    }

    proptest! {
        #[test]
        fn an_outcome_is_found_by_its_number_however_many_are_missing(
            present in prop::collection::btree_set(3u64..60, 0..40),
            sequence in 0u64..64,
        ) {
            let outcomes = present.iter().map(|sequence| outcome(&token(1, *sequence, 0), 0, NOW_MS));
            let session = Session { outcomes: outcomes.collect(), ..Session::default() };
            let before = present.range(..sequence).count();
            let expected = if present.contains(&sequence) { Ok(before) } else { Err(before) };
            prop_assert_eq!(session.find(sequence), expected);
        }
    }
}
