//! Buffers into which the kernel receives: one mapping, half of it a queue that is shared with the kernel.
//!
//! ```text
//!  offset                    what
//!       0                    RECEIVE_BUFFERS entries of 16 bytes: the queue of free buffers; the last two
//!                            bytes of the first entry are the queue's tail
//!  RECEIVE_BUFFERS * 16      RECEIVE_BUFFERS buffers of RECEIVE_BUFFER_BYTES
//! ```
//!
//! A buffer belongs to the kernel from the moment it is queued until a completion names it, and then to
//! whoever holds its [`Received`], until that is given back.
#![allow(unsafe_code)]

use crate::limits::{RECEIVE_BUFFER_BYTES, RECEIVE_BUFFERS};
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU16, Ordering};

const QUEUE_BYTES: usize = RECEIVE_BUFFERS as usize * size_of::<BufRingEntry>();
const MAPPING_BYTES: usize = QUEUE_BYTES + RECEIVE_BUFFERS as usize * RECEIVE_BUFFER_BYTES;

// The buffers begin on a page, as the mapping does.
const _: () = assert!(QUEUE_BYTES.is_multiple_of(4096));

/// The buffers of one ring.
pub(super) struct ReceiveBuffers {
    mapping: NonNull<u8>,
    tail: u16,
}

/// Received bytes, until they are given back. There is one for each completion that carries data.
#[derive(Debug)]
pub(crate) struct Received {
    buffer: u16,
    bytes: usize,
}

impl ReceiveBuffers {
    /// Maps the memory and queues every buffer.
    ///
    /// # Errors
    /// When there is no memory.
    pub(super) fn map() -> io::Result<Self> {
        let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new anonymous mapping touches no memory that exists.
        let mapping = unsafe { libc::mmap(std::ptr::null_mut(), MAPPING_BYTES, access, kind, -1, 0) };
        if mapping == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let mapping = NonNull::new(mapping.cast()).expect("mmap returns no null pointer unless asked to");
        let mut buffers = Self { mapping, tail: 0 };
        (0..RECEIVE_BUFFERS).for_each(|buffer| buffers.queue(buffer));
        Ok(buffers)
    }

    /// Where the queue lies, to be registered.
    pub(super) fn address(&self) -> u64 {
        self.mapping.as_ptr() as u64
    }

    /// What a completion has named: `bytes` in `buffer`. The buffer is the holder's from now on.
    pub(super) fn received(buffer: u16, bytes: usize) -> Received {
        assert!(
            buffer < RECEIVE_BUFFERS && bytes <= RECEIVE_BUFFER_BYTES,
            "{bytes} bytes in buffer {buffer}"
        );
        Received { buffer, bytes }
    }

    /// The received bytes.
    pub(super) fn bytes(&self, received: &Received) -> &[u8] {
        // SAFETY: the range lies inside the mapping, because `received` checks both numbers; the mapping is
        // initialised (anonymous memory is zeroed); and the kernel does not write there until the buffer is
        // given back, which needs `&mut self` and takes the `Received`.
        unsafe { slice::from_raw_parts(self.start_of(received.buffer), received.bytes) }
    }

    /// Lets the kernel receive into that buffer again.
    pub(super) fn give_back(&mut self, received: Received) {
        self.queue(received.buffer);
    }

    fn queue(&mut self, buffer: u16) {
        let start = self.start_of(buffer) as u64;
        let queue: *mut BufRingEntry = self.mapping.as_ptr().cast();
        // SAFETY: the index is below RECEIVE_BUFFERS, so the entry lies inside the mapping; the kernel reads
        // entries only up to the published tail, which this one is behind, because there are never more
        // buffers queued than entries.
        let entry = unsafe { &mut *queue.add(usize::from(self.tail % RECEIVE_BUFFERS)) };
        entry.set_addr(start);
        entry.set_len(RECEIVE_BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: the queue's first entry is initialised memory of the mapping, as `tail` requires.
        let tail: *const AtomicU16 = unsafe { BufRingEntry::tail(queue) }.cast();
        // SAFETY: the tail is two aligned bytes of the mapping that both sides access atomically only.
        unsafe { (*tail).store(self.tail, Ordering::Release) };
    }

    fn start_of(&self, buffer: u16) -> *mut u8 {
        self.mapping.as_ptr().wrapping_add(QUEUE_BYTES + usize::from(buffer) * RECEIVE_BUFFER_BYTES)
    }
}

impl Drop for ReceiveBuffers {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; the ring drops this only when none of its operations is
        // in flight, so the kernel writes here no more, and every borrow of the bytes has ended.
        let result = unsafe { libc::munmap(self.mapping.as_ptr().cast(), MAPPING_BYTES) };
        assert_eq!(result, 0, "the mapping is ours");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_lie_side_by_side_in_zeroed_memory() {
        let buffers = ReceiveBuffers::map().unwrap();
        let (first, last) = (buffers.start_of(0) as usize, buffers.start_of(RECEIVE_BUFFERS - 1) as usize);
        assert_eq!(last - first, (usize::from(RECEIVE_BUFFERS) - 1) * RECEIVE_BUFFER_BYTES);
        let received = ReceiveBuffers::received(RECEIVE_BUFFERS - 1, RECEIVE_BUFFER_BYTES);
        assert!(buffers.bytes(&received).iter().all(|byte| *byte == 0));
    }

    #[test]
    #[should_panic(expected = "bytes in buffer")]
    fn a_buffer_that_does_not_exist_is_a_bug() {
        let _ = ReceiveBuffers::received(RECEIVE_BUFFERS, 1);
    }
}
