//! New pages on their way to the file: those that lie side by side become one write.

use crate::limits::{TREE_WRITE_BYTES, TREE_WRITES_IN_FLIGHT_MAX};
use crate::planted::{self, Planted};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::DiskAction;
use std::collections::VecDeque;

#[derive(Debug)]
struct Batch {
    block: u64,
    buffer: AlignedBuffer,
}

impl Batch {
    fn takes(&self, block: u64, bytes: usize) -> bool {
        self.block + (self.buffer.len() / BLOCK_BYTES) as u64 == block && self.buffer.room() >= bytes
    }
}

/// Gathers pages and hands out writes.
#[derive(Debug)]
pub struct Batches {
    /// Writes that may be under way. Few: they share the device with the log.
    in_flight_max: usize,
    queue: VecDeque<Batch>,
    pool: Vec<AlignedBuffer>,
    under_way: usize,
    /// Bytes handed out so far.
    pub bytes: u64,
}

impl Default for Batches {
    fn default() -> Self {
        Self::new(TREE_WRITES_IN_FLIGHT_MAX)
    }
}

impl Batches {
    /// With at most `in_flight_max` writes under way.
    #[must_use]
    pub fn new(in_flight_max: usize) -> Self {
        Self { in_flight_max, queue: VecDeque::new(), pool: Vec::new(), under_way: 0, bytes: 0 }
    }

    /// Adds a page that begins at `block`.
    pub fn add(&mut self, block: u64, page: &[u8]) {
        if !self.queue.back().is_some_and(|batch| batch.takes(block, page.len())) {
            let capacity = TREE_WRITE_BYTES.max(page.len());
            let pooled = self.pool.pop().filter(|buffer| buffer.capacity() >= capacity);
            let mut buffer = pooled.unwrap_or_else(|| AlignedBuffer::with_capacity(capacity));
            buffer.clear();
            self.queue.push_back(Batch { block, buffer });
        }
        let batch = self.queue.back_mut().expect("a batch with room was just made sure of");
        batch.buffer.extend(page);
    }

    /// Whether enough waits: no more pages should be made now.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.queue.len() + self.under_way >= 2 * self.in_flight_max
            && !planted::active(Planted::UnpacedCheckpoint)
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way == 0
    }

    /// The next write. The last batch may still grow, and is kept back unless `finish`.
    pub fn next_write(&mut self, finish: bool) -> Option<DiskAction> {
        let keep = usize::from(!finish);
        if self.under_way >= self.in_flight_max || self.queue.len() <= keep {
            return None;
        }
        let Batch { block, buffer } = self.queue.pop_front()?;
        self.under_way += 1;
        self.bytes += buffer.len() as u64;
        Some(DiskAction::Write { offset: block * BLOCK_BYTES as u64, buffer, durable: false })
    }

    /// A write has ended; its buffer may be used again.
    pub fn ended(&mut self, buffer: Option<AlignedBuffer>) {
        self.under_way -= 1;
        if let Some(buffer) = buffer
            && self.pool.len() < 2 * self.in_flight_max
        {
            self.pool.push(buffer);
        }
    }

    /// Forgets what waits: the work that made it was given up.
    pub fn abandon(&mut self) {
        self.queue.clear();
    }
}
