//! The watchdog: one thread that wakes every executor that parks in glommio every few milliseconds.
//!
//! Such an executor can, on a contended CPU, park although its task may run (docs/decisions/0001-door.md). A
//! wake-up from outside frees it. The thread starts with the first one that takes a seat and ends after the
//! last; a process whose executors have one machine each has none.

use crate::limits::WATCHDOG_INTERVAL;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::{io, thread};

/// Everybody who is woken.
#[derive(Debug)]
struct Watched {
    wakers: Vec<(u64, Waker)>,
    /// Seats that are taken. The thread ends when none is.
    seats: usize,
    /// Seats that were ever taken.
    serials: u64,
    running: bool,
}

static WATCHED: Mutex<Watched> =
    Mutex::new(Watched { wakers: Vec::new(), seats: 0, serials: 0, running: false });

/// A place among those who are woken. Drop it on the task's own thread: the waker goes with it.
#[derive(Debug)]
pub(crate) struct Seat(u64);

/// Takes a seat, and starts the watchdog if it does not run. Call it on a thread that is not pinned: the
/// watchdog's thread runs where its maker may run, and must not stand in the way of one executor.
///
/// # Errors
/// When there is no thread to do it.
pub(crate) fn seat() -> io::Result<Seat> {
    let mut watched = lock();
    if !watched.running {
        thread::Builder::new().name("watchdog".to_owned()).spawn(watch)?;
        watched.running = true;
    }
    watched.seats += 1;
    watched.serials += 1;
    Ok(Seat(watched.serials))
}

impl Seat {
    /// Has a task woken from now on.
    pub(crate) fn watch(&self, waker: Waker) {
        lock().wakers.push((self.0, waker));
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut watched = lock();
        watched.seats -= 1;
        watched.wakers.retain(|(seat, _)| *seat != self.0);
    }
}

fn watch() {
    loop {
        #[allow(clippy::disallowed_methods, reason = "waiting is this thread's work")]
        thread::sleep(WATCHDOG_INTERVAL);
        let mut watched = lock();
        if watched.seats == 0 {
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
    fn a_watched_task_is_woken_again_and_again_and_then_no_more() {
        let (sender, receiver) = channel();
        let seat = seat().unwrap();
        seat.watch(Waker::from(Arc::new(Bell(Mutex::new(sender)))));
        for _ in 0..3 {
            receiver.recv_timeout(Duration::from_secs(60)).unwrap();
        }
        drop(seat);
        while receiver.recv().is_ok() {}
    }
}
