//! Physics of routers and MemDS servers.

use evenkeel_wire::key::KEY_NAME_BYTES_MAX;
use evenkeel_wire::limits::{
    FRAME_BODY_BYTES_MAX, PARTITION_KEY_BYTES_MAX, SORT_KEY_BYTES_MAX, TABLE_NAME_BYTES_MAX,
};
use evenkeel_wire::message::routing::{ArchivedLookupKey, ArchivedLookupOutcome};
use evenkeel_wire::message::tail::ArchivedTrace;
use evenkeel_wire::table::ArchivedRouteMember;
use std::time::Duration;

/// Requests under way in one router core; a batch counts each of its keys.
pub const FLIGHTS_MAX: usize = 16_384;

/// Bytes of their bodies.
pub const FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Routes that a router remembers. When there are more it forgets all: by design that changes nothing for
/// MemDS.
pub const CACHED_ROUTES_MAX: usize = 65_536;

/// How long a request without a deadline may take.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// How long both MemDS servers may take to answer a miss before the router gives up.
pub const LOOKUP_PATIENCE: Duration = Duration::from_millis(1000);

/// How many times a request is sent to a storage core: a wrongly contacted one is forgiven once.
pub const ATTEMPTS_MAX: u8 = 2;

/// Longest key or bound of a range that is looked up, bytes: a storage key with every byte escaped, and the
/// byte that follows it.
pub const BOUND_BYTES_MAX: usize = 2 * (PARTITION_KEY_BYTES_MAX + SORT_KEY_BYTES_MAX) + 64;

/// Most keys in one frame of look-ups: neither it nor its answer can be longer than a frame may be.
pub const LOOKUP_KEYS_MAX: usize = 1024;

/// Most members of a route that a MemDS server takes. Groups have far fewer.
pub const ROUTE_MEMBERS_MAX: usize = 16;

/// Longest look-up with what it refers to, bytes.
const LOOKUP_BYTES_MAX: usize = size_of::<ArchivedLookupKey<'static>>() + BOUND_BYTES_MAX;

/// Longest outcome of a look-up with what it refers to, bytes: a route's ends and members, the names of a
/// table and of its two key attributes, and what aligns them.
const LOOKUP_OUTCOME_BYTES_MAX: usize = size_of::<ArchivedLookupOutcome<'static>>()
    + 2 * BOUND_BYTES_MAX
    + ROUTE_MEMBERS_MAX * size_of::<ArchivedRouteMember>()
    + TABLE_NAME_BYTES_MAX
    + 2 * KEY_NAME_BYTES_MAX
    + 64;

/// What a frame's body has besides.
const LOOKUP_FRAME_BYTES: usize = 64;

const _: () = assert!(LOOKUP_FRAME_BYTES + LOOKUP_KEYS_MAX * LOOKUP_BYTES_MAX <= FRAME_BODY_BYTES_MAX);
const _: () =
    assert!(LOOKUP_FRAME_BYTES + LOOKUP_KEYS_MAX * LOOKUP_OUTCOME_BYTES_MAX <= FRAME_BODY_BYTES_MAX);
const _: () = assert!(TABLE_NAME_BYTES_MAX <= BOUND_BYTES_MAX);

/// How often look-ups go out. Each frame wakes two servers and, twice, this router, which costs more than the
/// look-ups in it (docs/decisions/0019-turns.md); a request without a route waits for half of it, on average.
pub const LOOKUP_FRAME_EVERY: Duration = Duration::from_millis(1);

/// Unanswered look-up frames that are remembered per MemDS server.
pub const LOOKUP_FRAMES_MAX: usize = 1024;

/// Bytes of items in the answer to a batch get (developer guide: 16 MB); the rest is left unprocessed.
pub const BATCH_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Turns of which a router remembers how long they took: those that passed while a request was under way.
pub const TURNS_REMEMBERED: usize = 512;

/// How long an interval of the recorder lasts.
pub const INTERVAL: Duration = Duration::from_secs(1);

/// Intervals that a router remembers: with those below, 1.7 MB for each core.
pub const INTERVALS: usize = 60;

/// Requests of an interval that are remembered because none was slower: the slowest 1% of 3,200 a second.
pub const SLOWEST_PER_INTERVAL: usize = 32;

/// Others that are remembered, drawn by chance.
pub const SAMPLED_PER_INTERVAL: usize = 128;

const _: () = assert!(
    (SLOWEST_PER_INTERVAL + SAMPLED_PER_INTERVAL) * size_of::<ArchivedTrace>() <= FRAME_BODY_BYTES_MAX / 64
);

/// Routes that a MemDS server holds.
pub const MEMDS_ROUTES_MAX: usize = 4_000_000;

const _: () = assert!(LOOKUP_FRAME_EVERY.as_millis() * 100 <= LOOKUP_PATIENCE.as_millis());
