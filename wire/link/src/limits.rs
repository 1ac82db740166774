//! Physics of the door: fixed bounds, each with its unit and its reason.

use evenkeel_wire::limits::FRAME_BODY_BYTES_MAX;
use std::time::Duration;

/// Entries of a ring's submission queue. A turn that needs more submits in between.
pub(crate) const SUBMISSION_ENTRIES: u32 = 512;

/// Entries of a ring's completion queue: what may arrive during a long turn without the kernel having to put
/// it aside.
pub(crate) const COMPLETION_ENTRIES: u32 = 4096;

/// Completions that one turn takes. The rest belongs to the next turn, so that a flood cannot keep the
/// machine from its timers and its disk.
pub(crate) const COMPLETIONS_PER_TURN_MAX: usize = 1024;

/// How often one turn asks the kernel for more: it hands over deferred work in small portions.
pub(crate) const ENTERS_PER_TURN_MAX: usize = 8;

/// Frames that one turn executes.
pub(crate) const FRAMES_PER_TURN_MAX: usize = 4096;

/// Frames of one connection that one turn executes. It bounds what one peer's questions can make a single
/// turn answer, before the bounds on unsent bytes are looked at.
pub(crate) const FRAMES_PER_CONNECTION_MAX: usize = 256;

/// Buffers into which the kernel receives, per ring; a power of two. They also bound the bytes that a turn
/// takes.
pub(crate) const RECEIVE_BUFFERS: u16 = 512;

/// Length of each, bytes: most requests and answers fit into one.
pub(crate) const RECEIVE_BUFFER_BYTES: usize = 8 * 1024;

/// Connections that others may open to one machine.
pub(crate) const CONNECTIONS_MAX: usize = 4096;

/// Connections above that bound that are still told why they are refused; further ones are closed without a
/// word.
pub(crate) const REFUSALS_MAX: usize = 64;

/// Addresses to which one machine may have links.
pub(crate) const LINKS_MAX: usize = 1024;

/// Time from the opening of a connection until its handshake is done.
pub(crate) const HELLO_WITHIN: Duration = Duration::from_secs(5);

/// Time for a connection that is being closed to take what was sent on it and to hang up.
pub(crate) const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// Bytes of a connection that is being closed that are read and thrown away, so that the last words reach the
/// peer before a reset does. A peer that goes on for longer is cut off.
pub(crate) const DISCARD_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Pause before accepting again when the process has no descriptors left.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// First pause after a link could not be opened…
pub(crate) const BACK_OFF_MIN: Duration = Duration::from_millis(50);

/// …and the longest: pauses double. A link that was up for at least this long is opened again at once.
pub(crate) const BACK_OFF_MAX: Duration = Duration::from_secs(1);

/// Bytes that wait for a link's handshake.
pub(crate) const LINK_QUEUE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Unsent bytes of a connection above which nothing more is received from it: it must read answers first.
pub(crate) const UNSENT_PAUSE_BYTES: usize = 32 * 1024 * 1024;

/// Unsent bytes below which it may go on.
pub(crate) const UNSENT_RESUME_BYTES: usize = UNSENT_PAUSE_BYTES / 2;

/// Unsent bytes above which a connection is given up.
pub(crate) const UNSENT_BYTES_MAX: usize = 96 * 1024 * 1024;

/// Bytes of one send. Progress is known only when a send has ended, so it must be a small part of the bounds
/// above.
pub(crate) const SEND_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of incomplete frames that all connections of one machine may hold together. The connection that
/// crosses the bound is refused.
pub(crate) const HELD_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Capacity of a connection's buffer for incomplete frames that is kept when it is empty, bytes.
pub(crate) const HELD_CAPACITY_KEPT: usize = 64 * 1024;

/// Time without an acknowledgement after which the kernel gives a connection up, so that a host that has
/// vanished is noticed.
pub(crate) const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(30);

/// Silence after which the kernel asks whether the other host is still there.
pub(crate) const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(15);

/// Segments of one core's log: each is an open file.
pub(crate) const FILES_PER_CORE_MAX: u32 = 4096;

/// Bytes of one write while a core's segments, or a scratch file, are filled.
pub(crate) const FILL_WRITE_BYTES: usize = 1024 * 1024;

/// How often the watchdog wakes every executor that parks.
pub(crate) const WATCHDOG_INTERVAL: Duration = Duration::from_millis(10);

/// Longest time that an executor polls before it parks: what a durable write on a fast disk takes.
pub(crate) const POLL_MAX: Duration = Duration::from_micros(256);

/// What a wake-up from parking counts for when polling and parking are weighed against each other: as much as
/// the longest poll. It takes 30 to 100 us, a request pays it several times on its way, and the core is ours.
pub(crate) const PARK_COST: Duration = POLL_MAX;

/// A step of the clock between two looks at the rings that means that somebody else had the CPU. An interrupt
/// or the watchdog takes some microseconds; a neighbour that computes takes milliseconds.
pub(crate) const STOLEN_MIN: Duration = Duration::from_micros(500);

/// A gap between two looks that is worth asking the kernel for how much of it the thread was kept from
/// running…
pub(crate) const RUN_QUEUE_GAP_MIN: Duration = STOLEN_MIN;

/// …and how often that is asked without such a gap, so that short delays are not told of a later long gap. A
/// look costs about a microsecond.
pub(crate) const RUN_QUEUE_READ_EVERY: Duration = Duration::from_millis(5);

/// A gap that is worth asking what the hypervisor took: it is counted in ticks…
pub(crate) const STEAL_GAP_MIN: Duration = Duration::from_millis(4);

/// …and how often that is asked at most, because the file has a line for each interrupt.
pub(crate) const STEAL_READ_EVERY: Duration = Duration::from_millis(200);

/// A tick in `/proc/stat`, nanoseconds: its unit is a hundredth of a second on every architecture.
pub(crate) const STEAL_TICK_NS: u64 = 10_000_000;

/// First pause of polling after the CPU was taken away from a polling executor…
pub(crate) const CONTENDED_PAUSE_MIN: Duration = Duration::from_millis(20);

/// …and the longest: pauses double.
pub(crate) const CONTENDED_PAUSE_MAX: Duration = Duration::from_secs(1);

/// Time slice of a thread that serves: what a turn takes, where the kernel's own is 3 ms.
pub(crate) const SLICE: Duration = Duration::from_micros(300);

/// How often a thread that may run near others looks where its messages come from…
pub(crate) const NEAR_LOOK_EVERY: Duration = Duration::from_millis(10);

/// …and after how many looks it decides where it runs.
pub(crate) const NEAR_LOOKS: usize = 16;

/// It goes near them when it has something to do in at most this share of the time, running or waiting…
pub(crate) const NEAR_SHARE: f64 = 0.45;

/// …and anywhere when that is more than this: sharing a CPU makes it wait.
pub(crate) const NEAR_SHARE_MAX: f64 = 0.5;

/// How long it stays away then.
pub(crate) const NEAR_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Memory that glommio registers for its own files, bytes. Nothing uses it; 64 KiB is the least it takes, and
/// it counts three times against the limit on locked memory.
pub(crate) const GLOMMIO_MEMORY_BYTES: usize = 64 * 1024;

/// Entries of glommio's own rings: one wait at a time.
pub(crate) const GLOMMIO_RING_ENTRIES: usize = 16;

/// Locked memory below which glommio refuses to start, bytes.
pub(crate) const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

const _: () = assert!(RECEIVE_BUFFERS.is_power_of_two());
const _: () = assert!((RECEIVE_BUFFERS as usize) < COMPLETIONS_PER_TURN_MAX);
const _: () = assert!(COMPLETIONS_PER_TURN_MAX <= COMPLETION_ENTRIES as usize);
const _: () = assert!(LINK_QUEUE_BYTES_MAX > FRAME_BODY_BYTES_MAX + 64 * 1024);
const _: () = assert!(UNSENT_PAUSE_BYTES > FRAME_BODY_BYTES_MAX);
const _: () =
    assert!(UNSENT_BYTES_MAX >= 2 * UNSENT_PAUSE_BYTES && UNSENT_BYTES_MAX >= 2 * LINK_QUEUE_BYTES_MAX);
const _: () = assert!(DISCARD_BYTES_MAX > FRAME_BODY_BYTES_MAX);
const _: () = assert!(SEND_BYTES_MAX * 8 <= UNSENT_RESUME_BYTES);

/// How long opening a folder waits for the process that had it open to be gone: the kernel ends a killed
/// process's disk operations after it has let its parent know.
pub(crate) const LOCK_PATIENCE: Duration = Duration::from_secs(3);

/// How often it tries meanwhile.
pub(crate) const LOCK_RETRY: Duration = Duration::from_millis(10);
