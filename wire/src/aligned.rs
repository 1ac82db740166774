//! Buffers that direct I/O accepts: aligned to a block, of a length that is a whole number of blocks.
//!
//! A buffer knows how much of it is filled. It may carry the index under which a ring has registered its
//! memory, so that the door can use a fixed write; logic carries the index and never looks at it.
#![allow(unsafe_code)]

use crate::limits::BLOCK_BYTES;
use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;

/// A block-aligned, fixed-capacity byte buffer. It dereferences to its filled part.
pub struct AlignedBuffer {
    memory: NonNull<u8>,
    capacity: usize,
    filled: usize,
    registered: Option<u16>,
}

// SAFETY: the buffer owns its memory alone, as a `Box<[u8]>` does; nothing else holds the pointer.
unsafe impl Send for AlignedBuffer {}
// SAFETY: shared references give shared slices only; every change needs `&mut self`.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// A zeroed, empty buffer of at least `bytes`, rounded up to whole blocks.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        let capacity = round_up(bytes.max(1));
        let layout = Self::layout(capacity);
        // SAFETY: the layout's size is not zero, because at least one byte was asked for.
        let memory = unsafe { alloc_zeroed(layout) };
        let Some(memory) = NonNull::new(memory) else { handle_alloc_error(layout) };
        Self { memory, capacity, filled: 0, registered: None }
    }

    /// A buffer that is filled with `bytes` zeros: what a read of that many bytes wants.
    #[must_use]
    pub fn zeroed(bytes: usize) -> Self {
        let mut buffer = Self::with_capacity(bytes);
        // The memory is new, and therefore zero already.
        buffer.filled = bytes;
        buffer
    }

    /// A buffer that holds a copy of `bytes`.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut buffer = Self::with_capacity(bytes.len());
        buffer.extend(bytes);
        buffer
    }

    fn layout(capacity: usize) -> Layout {
        Layout::from_size_align(capacity, BLOCK_BYTES)
            .expect("a block is a power of two and capacities are small")
    }

    /// Bytes that fit, a whole number of blocks.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Bytes that still fit.
    #[must_use]
    pub fn room(&self) -> usize {
        self.capacity - self.filled
    }

    /// Appends `bytes`.
    ///
    /// # Panics
    /// When they do not fit: the caller checks [`room`](Self::room).
    pub fn extend(&mut self, bytes: &[u8]) {
        assert!(bytes.len() <= self.room(), "{} bytes into a room of {}", bytes.len(), self.room());
        let start = self.filled;
        self.filled += bytes.len();
        self[start..].copy_from_slice(bytes);
    }

    /// Appends zeros up to the next block border.
    pub fn pad_to_block(&mut self) {
        self.resize(round_up(self.filled));
    }

    /// Sets the filled length, zeroing what is new.
    ///
    /// # Panics
    /// When `bytes` is above the capacity.
    pub fn resize(&mut self, bytes: usize) {
        assert!(bytes <= self.capacity, "{bytes} bytes into a capacity of {}", self.capacity);
        let old = self.filled;
        self.filled = bytes;
        if bytes > old {
            self[old..].fill(0);
        }
    }

    /// Forgets the contents; keeps the memory.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// The start of the memory, for a door that hands it to the kernel. The memory stays where it is when the
    /// buffer moves.
    #[must_use]
    pub fn as_ptr(&self) -> *mut u8 {
        self.memory.as_ptr()
    }

    /// The index under which a ring has registered this memory, if one has.
    #[must_use]
    pub fn registered(&self) -> Option<u16> {
        self.registered
    }

    /// Notes that a ring has registered this memory as `index`.
    pub fn set_registered(&mut self, index: u16) {
        self.registered = Some(index);
    }
}

/// The smallest whole number of blocks that holds `bytes`, in bytes.
#[must_use]
pub const fn round_up(bytes: usize) -> usize {
    bytes.next_multiple_of(BLOCK_BYTES)
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `filled <= capacity`, all `capacity` bytes were zeroed when allocated, and `&self` keeps
        // them from changing.
        unsafe { std::slice::from_raw_parts(self.memory.as_ptr(), self.filled) }
    }
}

impl AsRef<[u8]> for AlignedBuffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes this the only reference.
        unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.filled) }
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `with_capacity` with this very layout, and freed only here.
        unsafe { dealloc(self.memory.as_ptr(), Self::layout(self.capacity)) }
    }
}

impl fmt::Debug for AlignedBuffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AlignedBuffer({} of {} bytes)", self.filled, self.capacity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_block_aligned_and_padding_is_zero() {
        let mut buffer = AlignedBuffer::with_capacity(5000);
        assert_eq!(buffer.as_ptr() as usize % BLOCK_BYTES, 0);
        assert_eq!(buffer.capacity(), 8192);
        buffer.extend(&[7; 5000]);
        buffer.clear();
        buffer.extend(&[9; 10]);
        buffer.pad_to_block();
        assert_eq!(buffer.len(), BLOCK_BYTES);
        assert!(buffer[10..].iter().all(|byte| *byte == 0), "old contents must not leak into padding");
    }

    #[test]
    fn a_zeroed_buffer_is_filled_and_rounded_up() {
        let buffer = AlignedBuffer::zeroed(5000);
        assert_eq!((buffer.len(), buffer.capacity()), (5000, 8192));
        assert!(buffer.iter().all(|byte| *byte == 0));
    }
}
