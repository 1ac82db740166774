//! Bytes that nobody should send: at random, and good ones with a few changes.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, TestRunner};
use std::cell::Cell;

/// Numbers that lengths, pointers and discriminants are broken with.
const WORDS: [u32; 6] = [0, 1, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFF0, 0xFFFF_FFFF];

#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Byte(Index, u8),
    Word(Index, u32),
    Truncate(Index),
    Behead(Index),
    Extend(Vec<u8>),
    Insert(Index, Vec<u8>),
    /// From a place on, what another one has from a place on.
    Splice(Index, Vec<u8>, Index),
}

fn change(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Change> {
    let place = any::<Index>;
    prop_oneof![
        4 => (place(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, 1 << bit)),
        4 => (place(), any::<u8>()).prop_map(|(at, byte)| Change::Byte(at, byte)),
        2 => (place(), select(&WORDS[..])).prop_map(|(at, word)| Change::Word(at, word)),
        1 => place().prop_map(Change::Truncate),
        1 => place().prop_map(Change::Behead),
        1 => vec(any::<u8>(), 1..40).prop_map(Change::Extend),
        1 => (place(), vec(any::<u8>(), 1..20)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        2 => (place(), select(seeds), place()).prop_map(|(at, other, from)| Change::Splice(at, other, from)),
    ]
}

fn apply(change: Change, bytes: &mut Vec<u8>) {
    let length = bytes.len();
    // A place in the bytes, or the end.
    let place = |at: Index| at.index(length + 1);
    match change {
        Change::Flip(at, mask) if length > 0 => bytes[at.index(length)] ^= mask,
        Change::Byte(at, byte) if length > 0 => bytes[at.index(length)] = byte,
        Change::Word(at, word) if length >= 4 => {
            let start = at.index(length - 3);
            bytes[start..start + 4].copy_from_slice(&word.to_le_bytes());
        }
        Change::Flip(..) | Change::Byte(..) | Change::Word(..) => {}
        Change::Truncate(at) => bytes.truncate(place(at)),
        Change::Behead(at) => drop(bytes.drain(..place(at))),
        Change::Extend(more) => bytes.extend(more),
        Change::Insert(at, more) => drop(bytes.splice(place(at)..place(at), more)),
        Change::Splice(at, other, from) => {
            bytes.truncate(place(at));
            bytes.extend_from_slice(&other[from.index(other.len() + 1)..]);
        }
    }
}

fn anything(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let changes = vec(change(seeds.clone()), 1..4);
    let changed = (select(seeds), changes).prop_map(|(mut bytes, changes)| {
        changes.into_iter().for_each(|change| apply(change, &mut bytes));
        bytes
    });
    prop_oneof![1 => vec(any::<u8>(), 0..300), 7 => changed]
}

/// Gives a decoder each seed, which it must take, and then what becomes of them. Of that, a decoder that is
/// worth its name takes some and refuses some.
pub(crate) fn feed(name: &str, decoder: fn(&[u8]) -> bool, seeds: Vec<(String, Vec<u8>)>, cases: u32) {
    assert!(!seeds.is_empty(), "{name} has no golden bytes");
    for (seed, bytes) in &seeds {
        assert!(decoder(bytes), "{name} does not take {seed}");
    }
    let seeds = seeds.into_iter().map(|(_, bytes)| bytes).collect();
    let mut runner = TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() });
    let (taken, refused) = (Cell::new(0), Cell::new(0));
    let outcome = runner.run(&anything(seeds), |bytes| {
        let count = if decoder(&bytes) { &taken } else { &refused };
        count.set(count.get() + 1);
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
    let (taken, refused): (u32, u32) = (taken.get(), refused.get());
    assert!(taken > 0 && refused > 0, "{name} took {taken} and refused {refused}");
}
