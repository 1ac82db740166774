//! Physics of routers and MemDS servers.

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

/// Unanswered look-up frames that are remembered per MemDS server.
pub const LOOKUP_FRAMES_MAX: usize = 1024;

/// Bytes of items in the answer to a batch get (developer guide: 16 MB); the rest is left unprocessed.
pub const BATCH_ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Routes that a MemDS server holds.
pub const MEMDS_ROUTES_MAX: usize = 4_000_000;
