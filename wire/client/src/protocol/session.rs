//! What all calls of one client share: its tokens, the tables that it knows, the server's clock, its
//! generator.
//!
//! Behind one lock, which is held for look-ups only and never while anything is encoded, sent or waited for.
//! Nothing here knows the time or has entropy: both are given by the shell, so a simulated client is replayed
//! exactly.

use super::tables::TableCache;
use super::tokens::{TokenRange, TokenSource};
use evenkeel_wire::message::request::Token;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::TableDescriptor;
use evenkeel_wire::turn::Boot;
use std::sync::{Arc, Mutex, MutexGuard};

/// The shared state of a client.
#[derive(Debug)]
pub struct Session {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tokens: TokenSource,
    tables: TableCache,
    clock: ServerClock,
    prng: Prng,
}

/// The server's clock as a handshake told it: tokens are issued by it, so that it does not matter what the
/// client's host believes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct ServerClock {
    /// What to add to this client's monotone clock, milliseconds.
    ahead_ms: u64,
}

impl ServerClock {
    fn learn(&mut self, server_ms: u64, now: Boot) {
        self.ahead_ms = server_ms.wrapping_sub(milliseconds(now));
    }

    fn at(self, now: Boot) -> u64 {
        milliseconds(now).wrapping_add(self.ahead_ms)
    }
}

fn milliseconds(now: Boot) -> u64 {
    now.0 / 1_000_000
}

impl Session {
    /// A session of a client with this id, which must be random, and a seed for its jitter.
    #[must_use]
    pub fn new(client: [u8; 16], seed: u64) -> Arc<Self> {
        let state = State {
            tokens: TokenSource::new(client),
            tables: TableCache::new(),
            clock: ServerClock::default(),
            prng: Prng::new(seed),
        };
        Arc::new(Self { state: Mutex::new(state) })
    }

    /// A server said what time it is. Call it for every handshake; before the first, tokens are issued at a
    /// time that every server refuses.
    pub fn learn_clock(&self, server_ms: u64, now: Boot) {
        self.state().clock.learn(server_ms, now);
    }

    /// The table of this name, if the client knows it.
    #[must_use]
    pub fn table(&self, name: &str) -> Option<Arc<TableDescriptor>> {
        self.state().tables.get(name)
    }

    /// The client has learned a table.
    pub fn remember_table(&self, table: TableDescriptor) {
        self.state().tables.insert(table);
    }

    /// A table is not what the client believes.
    pub fn forget_table(&self, name: &str) {
        self.state().tables.forget(name);
    }

    /// Issues tokens for `count` writes of one call.
    #[must_use]
    pub fn lease_tokens(self: &Arc<Self>, count: usize, now: Boot) -> Arc<TokenLease> {
        let mut state = self.state();
        let issued_ms = state.clock.at(now);
        let tokens = state.tokens.issue(count, issued_ms);
        Arc::new(TokenLease { session: Arc::clone(self), tokens })
    }

    /// Everything below is acknowledged.
    #[must_use]
    pub fn acknowledged_below(&self) -> u64 {
        self.state().tokens.acknowledged_below()
    }

    /// A generator for one decision or one call.
    #[must_use]
    pub fn fork_prng(&self) -> Prng {
        self.state().prng.fork()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing that holds this lock can panic but by a bug in the tokens")
    }
}

/// Tokens that are outstanding for as long as anyone holds this: the call, and the connection on which one of
/// its attempts is under way, even when nobody waits for the answer any more.
#[derive(Debug)]
pub struct TokenLease {
    session: Arc<Session>,
    tokens: TokenRange,
}

impl TokenLease {
    /// The token of one of the writes, counted from zero.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn token(&self, place: usize) -> Token {
        self.tokens.token(place)
    }
}

impl Drop for TokenLease {
    fn drop(&mut self) {
        self.session.state().tokens.retire(&self.tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_issued_by_the_servers_clock() {
        let session = Session::new([1; 16], 0);
        session.learn_clock(1_700_000_000_000, Boot(5_000_000_000));
        let lease = session.lease_tokens(1, Boot(7_500_000_000));
        assert_eq!(lease.token(0).issued_ms, 1_700_000_002_500);
        session.learn_clock(1_000, Boot(9_000_000_000));
        assert_eq!(
            session.lease_tokens(1, Boot(9_001_000_000)).token(0).issued_ms,
            1_001,
            "behind the client's"
        );
    }

    #[test]
    fn tokens_are_outstanding_while_anyone_holds_their_lease() {
        let session = Session::new([1; 16], 0);
        let lease = session.lease_tokens(2, Boot(0));
        let on_its_way = Arc::clone(&lease);
        drop(lease);
        assert_eq!(session.acknowledged_below(), 1);
        drop(on_its_way);
        assert_eq!(session.acknowledged_below(), 3);
    }
}
