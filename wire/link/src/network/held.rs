//! Received bytes that could not be executed yet: the beginning of a frame, or frames that wait for their
//! turn.
//!
//! The memory grows with bytes that have arrived, never by a length that somebody announces.

use crate::limits::HELD_CAPACITY_KEPT;

/// Bytes of one connection, in the order of their arrival.
#[derive(Debug, Default)]
pub(super) struct Held {
    bytes: Vec<u8>,
    /// What lies before this was executed.
    start: usize,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.bytes.len() - self.start
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets the first `bytes`.
    pub(super) fn advance(&mut self, bytes: usize) {
        self.start += bytes;
        assert!(self.start <= self.bytes.len(), "no more is executed than was held");
        if self.is_empty() {
            self.start = 0;
            self.bytes.clear();
            self.bytes.shrink_to(HELD_CAPACITY_KEPT);
        } else if self.start > self.bytes.len() / 2 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_in_order_and_memory_is_given_back() {
        let mut held = Held::default();
        let all: Vec<u8> = (0..200_000).map(|index| index as u8).collect();
        held.extend(&all);
        let mut at = 0;
        while !held.is_empty() {
            let step = 777.min(held.len());
            assert_eq!(held.bytes()[..step], all[at..at + step]);
            held.advance(step);
            at += step;
        }
        assert_eq!(at, all.len());
        assert!(held.bytes.capacity() <= HELD_CAPACITY_KEPT);
    }
}
