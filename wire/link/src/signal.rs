//! The descriptor that wakes an executor: raised by the rings when something has completed while it is
//! parked, and by other threads when they want something from it.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

/// An eventfd. Any thread may raise it; its executor clears it.
#[derive(Debug)]
pub(crate) struct Signal(File);

impl Signal {
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: the call takes no pointers.
        let descriptor = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us; nobody else has it.
        Ok(Self(File::from(unsafe { OwnedFd::from_raw_fd(descriptor) })))
    }

    /// Wakes whoever waits. An overflow means that it is raised already.
    pub(crate) fn raise(&self) {
        let _already_raised = (&self.0).write(&1_u64.to_ne_bytes());
    }

    /// Takes back what was raised.
    pub(crate) fn clear(&self) {
        let _was_not_raised = (&self.0).read(&mut [0; 8]);
    }
}

impl AsRawFd for Signal {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_twice_and_clearing_without_need_are_harmless() {
        let signal = Signal::new().unwrap();
        signal.clear();
        signal.raise();
        signal.raise();
        assert_eq!((&signal.0).read(&mut [0; 8]).unwrap(), 8);
        signal.clear();
        assert_eq!((&signal.0).read(&mut [0; 8]).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }
}
