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
#[derive(Debug, Default)]
pub struct Batches {
    queue: VecDeque<Batch>,
    pool: Vec<AlignedBuffer>,
    under_way: usize,
    /// Bytes handed out so far.
    pub bytes: u64,
}

impl Batches {
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
        let bound = 2 * TREE_WRITES_IN_FLIGHT_MAX;
        self.queue.len() + self.under_way >= bound && !planted::active(Planted::UnpacedCheckpoint)
    }

    /// Whether nothing waits and nothing is under way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty() && self.under_way == 0
    }

    /// The next write. The last batch may still grow, and is kept back unless `finish`.
    pub fn next_write(&mut self, finish: bool) -> Option<DiskAction> {
        let keep = usize::from(!finish);
        if self.under_way >= TREE_WRITES_IN_FLIGHT_MAX || self.queue.len() <= keep {
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
            && self.pool.len() < 2 * TREE_WRITES_IN_FLIGHT_MAX
        {
            self.pool.push(buffer);
        }
    }

    /// Forgets what waits: the work that made it was given up.
    pub fn abandon(&mut self) {
        self.queue.clear();
    }
}
