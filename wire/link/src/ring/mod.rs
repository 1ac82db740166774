//! The ring: one raw io_uring per machine, for its sockets, its files and its timer.
//!
//! Invariants:
//! * An operation owns its memory until its last completion gives it back. What the kernel reads or writes
//!   can therefore not be freed or changed meanwhile, and every function here is safe to call.
//! * A ring that is dropped first waits for all its operations.
//! * One thread makes, uses and drops a ring (SINGLE_ISSUER); completions come into being only when that
//!   thread enters the kernel (DEFER_TASKRUN), so nothing interrupts a turn.
//!
//! * [`operations`]: what can be asked of a ring. [`buffers`]: where received bytes lie.
//!
//! What it does not do: know what an operation is for. That is its [`Token`], which the completion repeats.
#![allow(unsafe_code)]

mod buffers;
mod operations;

pub(crate) use buffers::Received;
pub(crate) use operations::{Key, SocketToken, Token, WriteMode};

use crate::limits::{COMPLETION_ENTRIES, RECEIVE_BUFFERS, SUBMISSION_ENTRIES};
use crate::signal::Signal;
use crate::slots::Slots;
use buffers::ReceiveBuffers;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::turn::Boot;
use io_uring::types::{SubmitArgs, Timespec};
use io_uring::{IoUring, Probe, cqueue, opcode, squeue};
use operations::{Memory, Operation, Owner};
use std::collections::VecDeque;
use std::io;
use std::mem::ManuallyDrop;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{Ordering, fence};
use std::time::Duration;
use thiserror::Error;

/// The group of receive buffers; a ring has one.
const BUFFER_GROUP: u16 = 0;

/// Which part of a ring's making the kernel refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SetupStep {
    /// The ring itself.
    Create,
    /// The mapping and registration of receive buffers.
    Buffers,
    /// The descriptor that wakes the executor.
    Signal,
    /// Operations that this crate submits are unknown to the kernel.
    Operations,
}

/// Why there is no ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("{step:?}: error {errno} from the operating system")]
pub(crate) struct SetupError {
    pub(crate) step: SetupStep,
    pub(crate) errno: i32,
}

/// What an operation has come to.
#[derive(Debug)]
pub(crate) struct Completion {
    pub(crate) token: Token,
    /// What the system call would have returned, or its errno.
    pub(crate) result: Result<u32, i32>,
    /// Whether the operation has ended; others go on completing.
    pub(crate) last: bool,
    pub(crate) payload: Payload,
}

/// What a completion brings.
#[derive(Debug)]
pub(crate) enum Payload {
    Nothing,
    /// Bytes from a socket, to be given back to the ring.
    Received(Received),
    /// A connection.
    Accepted(OwnedFd),
    /// The memory of a send.
    Bytes(Vec<u8>),
    /// The memory of a disk operation.
    Block(AlignedBuffer),
}

/// A ring.
pub(crate) struct Ring {
    ring: IoUring,
    operations: Slots<Operation>,
    generation: u32,
    /// Entries for which the submission queue had no room, in order.
    backlog: VecDeque<squeue::Entry>,
    /// The timer that is armed, and for when.
    timer: Option<(Key, Boot)>,
    /// Dropped by `drop` alone, once the kernel has finished with them.
    buffers: ManuallyDrop<ReceiveBuffers>,
    /// Kept open as long as the kernel may raise it, or watch it.
    signal: Arc<Signal>,
    /// The watch over the signal, and whether it was raised since somebody asked.
    watch: Option<Key>,
    raised: bool,
}

impl Ring {
    /// Makes a ring that raises `signal` when something completes, while [`listen`](Self::listen) lets it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub(crate) fn new(signal: Arc<Signal>) -> Result<Self, SetupError> {
        let at = |step| move |error: io::Error| SetupError { step, errno: error.raw_os_error().unwrap_or(0) };
        let mut builder = IoUring::builder();
        builder.setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().setup_submit_all();
        builder.setup_cqsize(COMPLETION_ENTRIES);
        let ring: IoUring = builder.build(SUBMISSION_ENTRIES).map_err(at(SetupStep::Create))?;
        let buffers = ReceiveBuffers::map().map_err(at(SetupStep::Buffers))?;
        let (address, submitter) = (buffers.address(), ring.submitter());
        // SAFETY: the queue at `address` has RECEIVE_BUFFERS entries and stays mapped until `drop` has seen
        // the last operation of this ring complete.
        unsafe { submitter.register_buf_ring_with_flags(address, RECEIVE_BUFFERS, BUFFER_GROUP, 0) }
            .map_err(at(SetupStep::Buffers))?;
        submitter.register_eventfd(signal.as_raw_fd()).map_err(at(SetupStep::Signal))?;
        let mut ring = Self {
            ring,
            operations: Slots::default(),
            generation: 0,
            backlog: VecDeque::new(),
            timer: None,
            buffers: ManuallyDrop::new(buffers),
            signal,
            watch: None,
            raised: false,
        };
        ring.listen(false);
        Ok(ring)
    }

    /// Whether the kernel knows every operation that this crate submits.
    ///
    /// # Errors
    /// When it does not.
    pub(crate) fn check_operations(&self) -> Result<(), SetupError> {
        let failed = |errno| SetupError { step: SetupStep::Operations, errno };
        let mut probe = Probe::new();
        let submitter = self.ring.submitter();
        submitter.register_probe(&mut probe).map_err(|error| failed(error.raw_os_error().unwrap_or(0)))?;
        let known = operations::CODES.iter().all(|code| probe.is_supported(*code));
        if known { Ok(()) } else { Err(failed(libc::EOPNOTSUPP)) }
    }

    /// Registers buffers, so that writes from them need not look their pages up; each is told its index. The
    /// memory stays usable, and is not the ring's.
    ///
    /// # Errors
    /// When the kernel refuses, above all because too little memory may be locked.
    pub(crate) fn register(&mut self, buffers: &mut [AlignedBuffer]) -> io::Result<()> {
        let ranges: Vec<libc::iovec> = buffers
            .iter()
            .map(|buffer| libc::iovec { iov_base: buffer.as_ptr().cast(), iov_len: buffer.capacity() })
            .collect();
        // SAFETY: the ranges are whole allocations that are alive now, when the kernel takes hold of their
        // pages. It keeps the pages, not the addresses: should a buffer be freed before the ring, a write
        // that names its index still finds the old pages, and nothing else ever names it.
        unsafe { self.ring.submitter().register_buffers(&ranges) }?;
        for (index, buffer) in buffers.iter_mut().enumerate() {
            buffer.set_registered(index as u16);
        }
        Ok(())
    }

    /// Submits what was asked for, and lets completed operations show up. Costs no system call when there is
    /// neither.
    ///
    /// # Errors
    /// When the kernel refuses for a reason other than that completions must be taken first.
    pub(crate) fn enter(&mut self) -> io::Result<()> {
        loop {
            self.fill_from_backlog();
            let queue = self.ring.submission();
            if queue.is_empty() && !queue.taskrun() && !queue.cq_overflow() {
                return Ok(());
            }
            drop(queue);
            match self.ring.submit() {
                Ok(_) if self.backlog.is_empty() => return Ok(()),
                Ok(_) => {}
                Err(error) => match error.raw_os_error() {
                    Some(libc::EINTR) => {}
                    Some(libc::EAGAIN | libc::EBUSY) => return Ok(()),
                    _ => return Err(error),
                },
            }
        }
    }

    /// Submits what was asked for, and sleeps until something has completed.
    ///
    /// # Errors
    /// When the kernel refuses for a reason other than that completions must be taken first.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        self.fill_from_backlog();
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Submits what was asked for, and sleeps until something has completed, the signal is raised, or that
    /// much time is over. All of it is one system call, without a timer.
    ///
    /// # Errors
    /// When the kernel refuses for a reason other than that completions must be taken first.
    pub(crate) fn sleep(&mut self, at_most: Option<Duration>) -> io::Result<()> {
        self.fill_from_backlog();
        if !self.backlog.is_empty() {
            return self.enter();
        }
        let time = at_most.map(Timespec::from);
        let mut arguments = SubmitArgs::new();
        if let Some(time) = &time {
            arguments = arguments.timespec(time);
        }
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    /// Whether the signal was raised since this was last asked. Clear it, and look at what it may stand for
    /// after that.
    pub(crate) fn take_raised(&mut self) -> bool {
        std::mem::take(&mut self.raised)
    }

    /// Whether [`enter`](Self::enter) or [`take`](Self::take) would find something.
    pub(crate) fn has_work(&mut self) -> bool {
        let queue = self.ring.submission();
        if !queue.is_empty() || queue.taskrun() || queue.cq_overflow() || !self.backlog.is_empty() {
            return true;
        }
        drop(queue);
        !self.ring.completion().is_empty()
    }

    /// Whether no operation is in flight.
    pub(crate) fn is_quiet(&self) -> bool {
        self.operations.is_empty() && self.backlog.is_empty()
    }

    /// Lets the kernel raise the signal, or not. After letting it, look for work once more: what completed
    /// before is not signalled.
    pub(crate) fn listen(&mut self, listen: bool) {
        let completions = self.ring.completion();
        if listen {
            completions.enable_eventfd();
            // The kernel publishes work and then reads this flag; we set the flag and then look for work.
            // Without a full barrier on both sides each could miss the other.
            fence(Ordering::SeqCst);
        } else {
            completions.disable_eventfd();
        }
    }

    /// Takes completions until `into` holds `limit`.
    pub(crate) fn take(&mut self, limit: usize, into: &mut Vec<Completion>) {
        while into.len() < limit {
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            if let Some(completion) = self.complete(&entry) {
                into.push(completion);
            }
        }
    }

    /// What an entry says; nothing for the ring's own operations.
    fn complete(&mut self, entry: &cqueue::Entry) -> Option<Completion> {
        let key = Key(entry.user_data());
        let operation = self.operations.get(key.place()).filter(|operation| operation.key == key);
        let owner = operation.expect("the kernel completes what was submitted, and ends it once").owner;
        let last = !cqueue::more(entry.flags());
        let result = u32::try_from(entry.result()).map_err(|_| -entry.result());
        let mut payload = Payload::Nothing;
        if let Some(buffer) = cqueue::buffer_select(entry.flags()) {
            payload = Payload::Received(ReceiveBuffers::received(buffer, result.unwrap_or(0) as usize));
        } else if let (Owner::Asked(Token::Socket(SocketToken::Accept)), Ok(descriptor)) = (owner, result) {
            // SAFETY: the kernel has just made this descriptor for us, and names it in this one completion.
            payload = Payload::Accepted(unsafe { OwnedFd::from_raw_fd(descriptor as i32) });
        }
        if last {
            let operation = self.operations.remove(key.place()).expect("it was found above");
            match operation.memory {
                Memory::Bytes(bytes) => payload = Payload::Bytes(bytes),
                Memory::Block(block) => payload = Payload::Block(block),
                Memory::Nothing | Memory::Address(_) | Memory::Time(_) => {}
            }
        }
        match owner {
            Owner::Asked(token) => Some(Completion { token, result, last, payload }),
            Owner::Timer => {
                self.timer = self.timer.filter(|(armed, _)| *armed != key || !last);
                None
            }
            Owner::Signal => {
                self.raised = true;
                // The kernel may end a watch of its own accord; we have forgotten one that we have ended.
                if last && self.watch.is_some_and(|watch| watch == key) {
                    self.watch_signal();
                }
                None
            }
            Owner::Aside => None,
        }
    }

    /// The bytes that a completion has brought.
    pub(crate) fn received(&self, received: &Received) -> &[u8] {
        self.buffers.bytes(received)
    }

    /// Lets the kernel receive into that buffer again.
    pub(crate) fn give_back(&mut self, received: Received) {
        self.buffers.give_back(received);
    }

    fn fill_from_backlog(&mut self) {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return;
            }
            self.backlog.pop_front();
        }
    }

    /// Queues an entry whose memory an operation owns.
    fn push(&mut self, entry: squeue::Entry) {
        // SAFETY: whatever the entry points to is owned by its operation in `operations`, whose memory does
        // not move and is released only after the last completion; descriptors are plain numbers, and a wrong
        // one is an error.
        let queued = self.backlog.is_empty() && unsafe { self.ring.submission().push(&entry) }.is_ok();
        if !queued {
            self.backlog.push_back(entry);
        }
    }

    /// Ends every operation, whatever it takes.
    ///
    /// # Errors
    /// When the kernel does not let us wait; then memory may still be in use.
    fn drain(&mut self) -> io::Result<()> {
        let mut taken = Vec::new();
        self.watch = None;
        if !self.is_quiet() {
            self.submit(Owner::Aside, Memory::Nothing, |_| {
                opcode::AsyncCancel2::new(io_uring::types::CancelBuilder::any()).build()
            });
        }
        while !self.is_quiet() {
            self.wait()?;
            self.take(usize::MAX, &mut taken);
            taken.clear();
        }
        Ok(())
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        match self.drain() {
            // SAFETY: this is the only place that drops the buffers, and it runs once; no operation is in
            // flight.
            Ok(()) => unsafe { ManuallyDrop::drop(&mut self.buffers) },
            Err(error) => {
                // The kernel may still write into what operations own: the memory is given up, not freed.
                tracing::error!(%error, "a ring could not be drained; its memory is given up");
                std::mem::forget(std::mem::take(&mut self.operations));
            }
        }
    }
}

#[cfg(test)]
mod tests;
