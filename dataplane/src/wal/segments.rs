//! The segments of a log: a fixed set of files of one size, each free or in use.
//!
//! A segment is taken when the one before is full, and is free again when everything in it is older than the
//! log's start, which only a durable checkpoint moves.

use super::block::{Place, SegmentLife};
use evenkeel_wire::ids::Lsn;
use std::collections::VecDeque;

/// A segment that the log needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentUse {
    /// Which, and in which life.
    pub at: SegmentLife,
    /// The last write in it.
    pub last: Lsn,
}

/// Free and used segments.
#[derive(Clone, Debug)]
pub struct Segments {
    segment_bytes: u64,
    free: VecDeque<u32>,
    /// Oldest first.
    used: VecDeque<SegmentUse>,
}

impl Segments {
    /// The segments `0..count`, of which `used` hold the log, oldest first.
    #[must_use]
    pub fn new(count: u32, segment_bytes: u64, used: VecDeque<SegmentUse>) -> Self {
        let free = (0..count).filter(|id| used.iter().all(|segment| segment.at.segment != *id)).collect();
        Self { segment_bytes, free, used }
    }

    /// Length of each, bytes.
    #[must_use]
    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.free.len() + self.used.len()
    }

    /// How many are free.
    #[must_use]
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// Takes a free segment, whose life begins with the write `first`. Its first write is its last so far.
    pub fn take(&mut self, first: Lsn) -> Option<Place> {
        let segment = self.free.pop_front()?;
        let at = SegmentLife { segment, life: first };
        self.used.push_back(SegmentUse { at, last: first });
        Some(Place { at, offset: 0 })
    }

    /// Notes that the write `lsn` went to the newest segment.
    pub fn wrote(&mut self, lsn: Lsn) {
        if let Some(newest) = self.used.back_mut() {
            newest.last = lsn;
        }
    }

    /// Frees every segment whose writes are all before `start`, but never the newest.
    pub fn recycle_before(&mut self, start: Lsn) {
        while self.used.len() > 1 && self.used[0].last < start {
            let oldest = self.used.pop_front().expect("there is more than one");
            self.free.push_back(oldest.at.segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_free_only_when_all_of_it_is_before_the_start() {
        let mut segments = Segments::new(3, 4096, VecDeque::new());
        assert_eq!(segments.take(Lsn(1)).map(|place| place.at.segment), Some(0));
        segments.wrote(Lsn(5));
        assert_eq!(segments.take(Lsn(6)).map(|place| place.at.segment), Some(1));
        segments.wrote(Lsn(9));
        segments.recycle_before(Lsn(5));
        assert_eq!(segments.free(), 1);
        segments.recycle_before(Lsn(6));
        assert_eq!(segments.free(), 2);
        segments.recycle_before(Lsn(100));
        assert_eq!(segments.free(), 2, "the newest segment stays");
    }

    #[test]
    fn a_log_without_free_segments_gets_none() {
        let mut segments = Segments::new(1, 4096, VecDeque::new());
        assert!(segments.take(Lsn(1)).is_some());
        assert!(segments.take(Lsn(2)).is_none());
    }
}
