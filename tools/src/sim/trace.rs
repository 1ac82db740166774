//! The trace: everything that happens, hashed, so that two runs of a seed can be compared, and kept for a
//! while, so that a failure can be told.

use evenkeel_wire::checksum::hash64;
use std::collections::VecDeque;
use std::fmt;

/// Lines kept for a failure's story.
const LINES_KEPT: usize = 4000;

/// What has happened.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    events: u64,
    lines: VecDeque<String>,
    verbose: bool,
}

impl Trace {
    /// An empty trace. A verbose one keeps a line for each event.
    #[must_use]
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// Notes an event: when, where, what, and the hash of its bytes.
    pub fn note(&mut self, now: u64, host: usize, what: &'static str, bytes: u64) {
        let mut event = [0; 40];
        event[..8].copy_from_slice(&self.hash.to_le_bytes());
        event[8..16].copy_from_slice(&now.to_le_bytes());
        event[16..24].copy_from_slice(&(host as u64).to_le_bytes());
        event[24..32].copy_from_slice(&hash64(what.as_bytes()).to_le_bytes());
        event[32..].copy_from_slice(&bytes.to_le_bytes());
        self.hash = hash64(&event);
        self.events += 1;
    }

    /// Notes a line for people. It does not enter the hash.
    pub fn tell(&mut self, now: u64, line: impl FnOnce() -> String) {
        if !self.verbose {
            return;
        }
        if self.lines.len() == LINES_KEPT {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>12.6} {}", now as f64 / 1e9, line()));
    }

    /// The hash of everything so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash
    }

    /// How many events.
    #[must_use]
    pub fn events(&self) -> u64 {
        self.events
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}
