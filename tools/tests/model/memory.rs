//! What became of members before: most steps of an exploration have been taken by the same member in another
//! state of the whole.
//!
//! A member's digest decides its future, and so, with the input and the time, what a turn comes to. So each
//! turn is run once, and equal members are one.

use super::clients::Requests;
use super::member::Member;
use super::turn::{Input, Turned};
use evenkeel_wire::turn::Boot;
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};

/// Shards, so that threads seldom meet.
const SHARDS: usize = 64;
/// Most members, and most turns, that a shard remembers before it begins again: some gigabytes in all.
const MEMBERS_MAX: usize = 16_384;
const TURNS_MAX: usize = 131_072;

/// What is known of a member or a turn: a digest, an input's digest or none, and the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    member: u64,
    input: u64,
    now: u64,
}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let Self { member, input, now } = *self;
        let mixed = member ^ input.rotate_left(23) ^ now.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state.write_u64(mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    }
}

/// A key is a hash already.
#[derive(Debug, Default)]
struct Taken(u64);

impl Hasher for Taken {
    fn write(&mut self, _: &[u8]) {
        unreachable!("a key is hashed as a number");
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number ^ number >> 32;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

type Map<V> = HashMap<Key, Arc<V>, BuildHasherDefault<Taken>>;

/// Members and turns of one exploration.
#[derive(Debug)]
pub(crate) struct Memory {
    requests: Requests,
    members: Vec<Mutex<Map<Member>>>,
    turns: Vec<Mutex<Map<Turned>>>,
}

impl Memory {
    /// Remembers nothing yet.
    pub(crate) fn new(requests: Requests) -> Self {
        let members = (0..SHARDS).map(|_| Mutex::default()).collect();
        let turns = (0..SHARDS).map(|_| Mutex::default()).collect();
        Self { requests, members, turns }
    }

    /// The requests that clients send.
    pub(crate) fn requests(&self) -> &Requests {
        &self.requests
    }

    /// Lets `input` happen to `member`.
    pub(crate) fn turn(&self, member: &Member, now: Boot, input: Input<'_>) -> Arc<Turned> {
        let key = Key { member: member.digest, input: input.digest(), now: now.0 };
        if let Some(known) = find(&self.turns, key) {
            return known;
        }
        let mut turned = Turned::of(member, now, input, &self.requests);
        let afterwards = Key { member: turned.member.digest, input: 0, now: now.0 };
        match find(&self.members, afterwards) {
            Some(known) => turned.member = known,
            None => keep(&self.members, afterwards, Arc::clone(&turned.member), MEMBERS_MAX),
        }
        let turned = Arc::new(turned);
        keep(&self.turns, key, Arc::clone(&turned), TURNS_MAX);
        turned
    }
}

fn shard<V>(shards: &[Mutex<Map<V>>], key: Key) -> std::sync::MutexGuard<'_, Map<V>> {
    // A map is whole between two calls, whoever panicked in between.
    let place = (key.member ^ key.input) as usize % SHARDS;
    shards[place].lock().unwrap_or_else(PoisonError::into_inner)
}

fn find<V>(shards: &[Mutex<Map<V>>], key: Key) -> Option<Arc<V>> {
    shard(shards, key).get(&key).cloned()
}

fn keep<V>(shards: &[Mutex<Map<V>>], key: Key, value: Arc<V>, most: usize) {
    let mut shard = shard(shards, key);
    if shard.len() >= most {
        shard.clear();
    }
    shard.insert(key, value);
}
