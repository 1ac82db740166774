//! Tokens: how a write that is sent twice is executed once.
//!
//! A client has a random id and counts its writes. A partition remembers the outcome of each write under its
//! token until the client says that it will never ask about it again: every token carries the lowest sequence
//! that is still outstanding, and everything below is forgotten (the scheme is RIFL's, SOSP 2015). So a token
//! must be retired when its write has ended for good, answered or given up, and not before.
//!
//! Not here: entropy, which is the shell's; the server's clock ([`session`](super::session)).

use evenkeel_wire::message::request::Token;
use std::collections::VecDeque;

/// Issues the tokens of one client.
#[derive(Clone, Debug)]
pub struct TokenSource {
    client: [u8; 16],
    /// The lowest sequence that is outstanding, or the next one.
    lowest: u64,
    /// For each sequence from `lowest` on whether it is outstanding. The first always is.
    outstanding: VecDeque<bool>,
}

/// Consecutive tokens of one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenRange {
    first: Token,
    count: u64,
}

impl TokenSource {
    /// The tokens of a client. The id must be random: two clients with one id would take each other's writes
    /// for repetitions.
    #[must_use]
    pub fn new(client: [u8; 16]) -> Self {
        Self { client, lowest: 1, outstanding: VecDeque::new() }
    }

    /// Issues tokens for `count` writes. They are outstanding until [`retire`](Self::retire) is called.
    pub fn issue(&mut self, count: usize, issued_ms: u64) -> TokenRange {
        let sequence = self.lowest + self.outstanding.len() as u64;
        self.outstanding.extend(std::iter::repeat_n(true, count));
        let first =
            Token { client: self.client, sequence, issued_ms, acknowledged_below: self.acknowledged_below() };
        TokenRange { first, count: count as u64 }
    }

    /// The writes of these tokens have ended for good.
    ///
    /// # Panics
    /// When one is not outstanding: its write would have been acknowledged while it was under way.
    pub fn retire(&mut self, tokens: &TokenRange) {
        for sequence in tokens.first.sequence..tokens.first.sequence + tokens.count {
            let place = sequence.checked_sub(self.lowest).and_then(|place| usize::try_from(place).ok());
            let outstanding = place.and_then(|place| self.outstanding.get_mut(place));
            assert_eq!(outstanding.as_deref(), Some(&true), "token {sequence} is retired twice");
            if let Some(outstanding) = outstanding {
                *outstanding = false;
            }
        }
        while self.outstanding.front() == Some(&false) {
            self.outstanding.pop_front();
            self.lowest += 1;
        }
    }

    /// The lowest sequence that is outstanding: the client is done with everything below.
    #[must_use]
    pub fn acknowledged_below(&self) -> u64 {
        self.lowest
    }
}

impl TokenRange {
    /// The token of one of the writes, counted from zero.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn token(&self, place: usize) -> Token {
        assert!((place as u64) < self.count, "token {place} of {}", self.count);
        Token { sequence: self.first.sequence + place as u64, ..self.first }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_token_acknowledges_what_is_below_the_lowest_outstanding_write() {
        let mut source = TokenSource::new([3; 16]);
        let first = source.issue(1, 500);
        let batch = source.issue(3, 501);
        assert_eq!(
            first.token(0),
            Token { client: [3; 16], sequence: 1, issued_ms: 500, acknowledged_below: 1 }
        );
        assert_eq!(
            batch.token(2),
            Token { client: [3; 16], sequence: 4, issued_ms: 501, acknowledged_below: 1 }
        );
        source.retire(&batch);
        assert_eq!(source.issue(1, 502).token(0).acknowledged_below, 1, "the first is outstanding");
        source.retire(&first);
        assert_eq!(source.acknowledged_below(), 5);
    }

    #[test]
    fn a_token_never_acknowledges_itself() {
        let mut source = TokenSource::new([0; 16]);
        for _ in 0..3 {
            let tokens = source.issue(1, 0);
            assert_eq!(tokens.token(0).acknowledged_below, tokens.token(0).sequence);
            source.retire(&tokens);
        }
    }

    proptest! {
        #[test]
        fn acknowledged_below_is_the_lowest_outstanding_sequence(
            steps in prop::collection::vec((1_usize..4, any::<u8>()), 1..60),
        ) {
            let mut source = TokenSource::new([0; 16]);
            let mut under_way: Vec<TokenRange> = Vec::new();
            let mut outstanding = BTreeSet::new();
            let mut next = 1;
            for (count, choice) in steps {
                if choice % 2 == 0 || under_way.is_empty() {
                    let tokens = source.issue(count, 0);
                    for place in 0..count {
                        prop_assert_eq!(tokens.token(place).sequence, next);
                        outstanding.insert(next);
                        next += 1;
                    }
                    under_way.push(tokens);
                } else {
                    let tokens = under_way.swap_remove(usize::from(choice) % under_way.len());
                    for place in 0..tokens.count as usize {
                        outstanding.remove(&tokens.token(place).sequence);
                    }
                    source.retire(&tokens);
                }
                prop_assert_eq!(source.acknowledged_below(), outstanding.first().copied().unwrap_or(next));
            }
        }
    }
}
