//! The watchdog: one thread per process that wakes every executor every few milliseconds.
//!
//! The executor that hosts our machines can, on a contended CPU, park although one of its tasks may run
//! (docs/decisions/0001-door.md). A wake-up from outside frees it. The thread starts with the first executor
//! and ends after the last.

use crate::limits::WATCHDOG_INTERVAL;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::{io, thread};

/// Everybody who is woken.
#[derive(Debug)]
struct Watched {
    wakers: Vec<(u64, Waker)>,
    registrations: u64,
    running: bool,
}

static WATCHED: Mutex<Watched> = Mutex::new(Watched { wakers: Vec::new(), registrations: 0, running: false });

/// Keeps a task being woken until it is dropped. Drop it on the task's own thread: the waker goes with it.
#[derive(Debug)]
pub(crate) struct Registration(u64);

/// Has a task woken from now on.
///
/// # Errors
/// When there is no thread to do it.
pub(crate) fn register(waker: Waker) -> io::Result<Registration> {
    let mut watched = lock();
    if !watched.running {
        thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
        watched.running = true;
    }
    watched.registrations += 1;
    let registration = watched.registrations;
    watched.wakers.push((registration, waker));
    Ok(Registration(registration))
}

impl Drop for Registration {
    fn drop(&mut self) {
        lock().wakers.retain(|(registration, _)| *registration != self.0);
    }
}

fn watch() {
    loop {
        #[allow(clippy::disallowed_methods, reason = "waiting is this thread's work")]
        thread::sleep(WATCHDOG_INTERVAL);
        let mut watched = lock();
        if watched.wakers.is_empty() {
            watched.running = false;
            return;
        }
        // Under the lock: a task cannot end, and its waker not be dropped, while it is being woken.
        watched.wakers.iter().for_each(|(_, waker)| waker.wake_by_ref());
    }
}

fn lock() -> MutexGuard<'static, Watched> {
    WATCHED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::mpsc::{Sender, channel};
    use std::task::Wake;
    use std::time::Duration;

    struct Bell(Mutex<Sender<()>>);

    impl Wake for Bell {
        fn wake(self: Arc<Self>) {
            let _nobody_listens = self.0.lock().unwrap().send(());
        }
    }

    #[test]
    fn a_registered_task_is_woken_again_and_again_and_then_no_more() {
        let (sender, receiver) = channel();
        let registration = register(Waker::from(Arc::new(Bell(Mutex::new(sender))))).unwrap();
        for _ in 0..3 {
            receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        drop(registration);
        while receiver.recv().is_ok() {}
    }
}
