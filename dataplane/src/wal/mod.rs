//! The core's write-ahead log: one for all partitions of a core.
//!
//! Records of a turn are gathered into one write, which goes to a fresh block of a pre-zeroed, recycled
//! segment with O_DIRECT and RWF_DSYNC. Every write names where it stands, the life of its segment, and up to
//! where the log was durable when it was issued; each is chained to the one before by a hash. So recovery can
//! tell a torn tail (not yet acknowledged, superseded) from a damaged middle (acknowledged once, to be
//! refilled from peers).
//!
//! * [`record`]: what a write carries; [`block`]: how it stands on disk.
//! * [`writer`]: gathers, issues, and knows the contiguous durable prefix.
//! * [`segments`]: which segments are free, which are used, and when one may be recycled.
//! * [`recovery`]: reads a log back; [`replay`]: makes of its records what replicas start from.

pub mod block;
pub mod record;
pub mod recovery;
pub mod replay;
pub mod segments;
pub mod writer;
