//! The real time: a load generator is a door.

use std::time::{Duration, Instant, SystemTime};

#[allow(clippy::disallowed_methods, reason = "a load generator measures real time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a report says when it was made")]
pub(crate) fn wall() -> SystemTime {
    SystemTime::now()
}

#[allow(clippy::disallowed_methods, reason = "timers are measured by sleeping")]
pub(crate) fn sleep(time: Duration) {
    std::thread::sleep(time);
}
