//! The contract between logic and doors.
//!
//! A [`Machine`] is one synchronous state machine: a storage core, a MemDS server or a router. A door (the
//! production driver in `wire/link`, or the simulator) runs it in *turns*:
//!
//! 1. take everything that has arrived;
//! 2. read the clocks, once;
//! 3. [`Machine::step`] for each input, then [`Machine::end_turn`];
//! 4. perform the [`Effects`].
//!
//! The clock is read after the last input was taken and before the first is executed. That order is what
//! makes a lease check inside `step` sound: a process that was paused finds its lease expired, and a reply
//! that is decided in a turn speaks of an instant after the request's arrival at which the lease held.
//!
//! A machine never waits. What it wants from the outside is an effect, and the outcome is a later input.

use crate::aligned::AlignedBuffer;
use crate::frame::{Header, Kind, add_turn, forward, seal};
use crate::handshake::Peer;
use crate::ids::RequestId;
use crate::message::{Body, Encode, encode};
use ahash::AHashMap;
use std::net::SocketAddr;
use std::time::Duration;
use thiserror::Error;

/// Nanoseconds of CLOCK_BOOTTIME: monotonic, and running while the host sleeps. Leases are measured with it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Boot(pub u64);

impl Boot {
    /// An instant that never comes.
    pub const NEVER: Self = Self(u64::MAX);

    /// This instant and `duration` more.
    #[must_use]
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration.as_nanos() as u64))
    }

    /// Time from `earlier` until this instant; zero when `earlier` is later.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// The clocks, read once for a turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// For leases and timers.
    pub boot: Boot,
    /// Milliseconds since 1970: for token issue times and record timestamps, never for safety.
    pub wall_ms: u64,
    /// For those who account for where time went.
    pub delays: Delays,
}

impl Now {
    /// These clocks, and no delay: everything came in this instant.
    #[must_use]
    pub const fn new(boot: Boot, wall_ms: u64) -> Self {
        let delays = Delays { looked: boot, kept_ns: 0, performed: Boot(0), run_queue_ns: 0, stolen_ns: 0 };
        Self { boot, wall_ms, delays }
    }
}

/// What the door knows of the time before a turn. Nothing is ever decided by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delays {
    /// The door looked and had nothing: what this turn executes came later.
    pub looked: Boot,
    /// How much of the time since then the thread was runnable and did not run, nanoseconds.
    pub kept_ns: u64,
    /// When the effects of the machine's turn before had been handed to the kernel; zero: at once.
    pub performed: Boot,
    /// For how long the thread was runnable and did not run, nanoseconds since it began.
    pub run_queue_ns: u64,
    /// For how long the hypervisor ran somebody else on its CPU, nanoseconds since some instant.
    pub stolen_ns: u64,
}

/// A connection that somebody else opened to this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// The other side of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// Whoever opened this connection to us.
    Incoming(ConnectionId),
    /// Whoever listens there. The door connects when something is first sent, and again after a failure.
    Outgoing(SocketAddr),
}

/// What a machine is told.
#[derive(Debug)]
pub enum Input<'a> {
    /// A checked frame.
    Frame {
        /// Who sent it.
        from: Endpoint,
        /// Its header.
        header: Header,
        /// Its body, whose checksum held. Nothing else was checked.
        body: &'a [u8],
    },
    /// A handshake succeeded.
    Up {
        /// The link.
        endpoint: Endpoint,
        /// Who is on the other side.
        peer: Peer,
    },
    /// A link ended or could not be opened; frames on their way may be lost.
    Down {
        /// The link.
        endpoint: Endpoint,
    },
    /// A disk operation ended.
    Disk(DiskCompletion),
    /// The time that [`Machine::wake_at`] named has come.
    Wake,
    /// The operator wants this process to end: hand over, finish, refuse new work.
    Drain,
}

/// A file of a storage core. Doors know the paths.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum File {
    /// Two alternating blocks that name the present checkpoint.
    Superblock,
    /// A log segment.
    Segment(u32),
    /// One of two checkpoint files, used in turn.
    Checkpoint(u8),
    /// The pages of all the core's trees.
    Tree,
}

/// Names a disk operation until it has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(pub u64);

/// A disk operation to perform.
#[derive(Debug)]
pub struct DiskOperation {
    /// Repeated in the completion.
    pub id: OperationId,
    /// On which file.
    pub file: File,
    /// What to do.
    pub action: DiskAction,
}

/// What to do with a file. Offsets and lengths are whole blocks.
#[derive(Debug)]
pub enum DiskAction {
    /// Read over the buffer's filled part: its length says how much. It comes back with what was read,
    /// shorter at the end of the file. A door never makes a buffer longer, so one that is read into again
    /// and again is never filled with zeros in between.
    Read {
        /// Where.
        offset: u64,
        /// Where to, and how much.
        buffer: AlignedBuffer,
    },
    /// Write the buffer's filled part at `offset`.
    Write {
        /// Where.
        offset: u64,
        /// What.
        buffer: AlignedBuffer,
        /// Whether the completion means "durable" (RWF_DSYNC).
        durable: bool,
    },
    /// Make everything written to this file before durable.
    Flush,
}

/// How a disk operation ended.
#[derive(Debug)]
pub struct DiskCompletion {
    /// Which.
    pub id: OperationId,
    /// For a read its buffer, with the bytes; for a write its buffer, to be used again; for a flush nothing.
    /// A fault takes the buffer with it.
    pub outcome: Result<Option<AlignedBuffer>, DiskFault>,
}

/// Why a disk operation failed. None is ever retried on the same place: the kernel may have dropped the data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DiskFault {
    /// No space is left.
    #[error("the disk is full; free space or move the data folder")]
    Full,
    /// The device moved fewer bytes than asked.
    #[error("the device moved {got} of {expected} bytes")]
    Short {
        /// Bytes moved.
        got: usize,
        /// Bytes asked for.
        expected: usize,
    },
    /// The operating system refused.
    #[error("input/output error {errno} from the operating system; check the device and the kernel log")]
    Os {
        /// Its number.
        errno: i32,
    },
}

/// Why a machine must stop: it can no longer keep its promises. The process reports it loudly and ends its
/// service.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct Halt(pub String);

/// What a turn wants done. One value is used for every turn: its buffers are kept.
#[derive(Debug, Default)]
pub struct Effects {
    /// Frames per destination, in the order of first use.
    outboxes: Vec<(Endpoint, Vec<u8>)>,
    /// Where a destination stands in `outboxes`. Looked up, never iterated.
    places: AHashMap<Endpoint, usize>,
    spare: Vec<Vec<u8>>,
    /// Answers whose stages were measured: outbox, and where they begin in it.
    measured: Vec<(usize, usize)>,
    /// Disk operations, in the order in which they must be submitted.
    pub disk: Vec<DiskOperation>,
    /// Links to close once what was sent on them is out.
    pub close: Vec<Endpoint>,
    /// Set when the machine must stop.
    pub halt: Option<Halt>,
    /// Set when a draining machine has nothing left to do.
    pub drained: bool,
}

impl Effects {
    /// Empty effects.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends a frame with `body`, whose kind is the body's.
    pub fn send<T: Body + for<'a> Encode<'a>>(&mut self, to: Endpoint, header: Header, body: &T) {
        debug_assert_eq!(header.kind, T::KIND);
        let place = self.place(to);
        let outbox = &mut self.outboxes[place].1;
        if header.timeline.is_measured() {
            self.measured.push((place, outbox.len()));
        }
        seal(outbox, header, |out| encode(body, out));
    }

    /// Tells how long the turn took: it is added to the answers whose stages were measured.
    pub fn took(&mut self, took: Duration) {
        let took_ns = took.as_nanos() as u64;
        for (place, start) in self.measured.drain(..) {
            add_turn(&mut self.outboxes[place].1[start..], took_ns);
        }
    }

    /// Asks: a frame with `body` and a request id.
    pub fn ask<T: Body + for<'a> Encode<'a>>(&mut self, to: Endpoint, request: RequestId, body: &T) {
        self.send(to, Header::new(T::KIND, request), body);
    }

    /// Sends a frame without a body.
    pub fn send_empty(&mut self, to: Endpoint, kind: Kind, request: RequestId) {
        seal(self.outbox(to), Header::new(kind, request), |_| ());
    }

    /// Sends a body that came in another frame, with the checksum that came with it.
    pub fn forward(&mut self, to: Endpoint, header: Header, body: &[u8], body_checksum: u32) {
        forward(self.outbox(to), header, body, body_checksum);
    }

    /// The bytes that go to `to` at the end of this turn.
    pub fn outbox(&mut self, to: Endpoint) -> &mut Vec<u8> {
        let place = self.place(to);
        &mut self.outboxes[place].1
    }

    fn place(&mut self, to: Endpoint) -> usize {
        *self.places.entry(to).or_insert_with(|| {
            self.outboxes.push((to, self.spare.pop().unwrap_or_default()));
            self.outboxes.len() - 1
        })
    }

    /// Takes everything to be sent, in the order of first use. Give the buffers back with
    /// [`recycle`](Self::recycle).
    pub fn take_outboxes(&mut self) -> std::vec::Drain<'_, (Endpoint, Vec<u8>)> {
        self.places.clear();
        self.measured.clear();
        self.outboxes.drain(..)
    }

    /// Keeps the memory of a buffer for a later turn.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE_BUFFERS_MAX && buffer.capacity() <= SPARE_BUFFER_BYTES_MAX {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

/// Outbox buffers that are kept between turns.
const SPARE_BUFFERS_MAX: usize = 256;
/// A larger buffer is given back to the allocator: it served one large page.
const SPARE_BUFFER_BYTES_MAX: usize = 256 * 1024;

/// One synchronous state machine. Implemented by the storage core, the MemDS server and the router.
pub trait Machine {
    /// Executes one input.
    fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects);

    /// Ends a turn: hands over what the turn has collected.
    fn end_turn(&mut self, now: Now, out: &mut Effects);

    /// When this machine next wants [`Input::Wake`], if nothing else happens before.
    fn wake_at(&self) -> Boot;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{BodyLimit, first_frame};
    use crate::message::status::ScrubAnswer;
    use crate::timeline::{Packed, Stage, Timeline};

    #[test]
    fn what_a_turn_took_is_added_to_the_answers_that_were_measured_and_to_no_others() {
        let mut effects = Effects::new();
        let [a, b] = [1, 2].map(|id| Endpoint::Incoming(ConnectionId(id)));
        let measured = Timeline::default().pack();
        for (to, timeline) in [(a, Packed::NONE), (b, measured), (a, measured), (a, Packed::NONE)] {
            let header = Header { timeline, ..Header::new(Kind::ScrubAnswer, RequestId(7)) };
            effects.send(to, header, &ScrubAnswer { checks: 1 });
        }
        effects.took(Duration::from_nanos(200));
        let executed: Vec<(Endpoint, Vec<u64>)> = effects
            .take_outboxes()
            .map(|(to, bytes)| {
                let (mut left, mut executed) = (&bytes[..], Vec::new());
                while let Some((header, _)) = first_frame(left, BodyLimit::AFTER_HELLO).unwrap() {
                    executed.push(header.timeline.unpack().get(Stage::Execute));
                    left = &left[header.frame_bytes()..];
                }
                (to, executed)
            })
            .collect();
        assert_eq!(executed, [(a, vec![0, 200, 0]), (b, vec![200])]);
    }
}
