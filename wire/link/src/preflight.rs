//! Trying the host out before anything is started on it.
//!
//! A refused ring would otherwise end in an error number deep inside an executor. [`preflight`] makes the
//! very ring that a machine gets, and says in words what stands in the way and how to remove it.
#![allow(unsafe_code)]

use crate::cpus;
use crate::limits::MEMLOCK_BYTES_MIN;
use crate::ring::{Ring, SetupError, SetupStep};
use crate::signal::Signal;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use std::fs;
use std::sync::Arc;
use thiserror::Error;

/// The first kernel that has everything: completions that come into being only when the owner asks (6.1).
const KERNEL_MIN: (u32, u32) = (6, 1);

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Preflight {
    /// The kernel's release, as it names itself.
    pub kernel: String,
    /// How many CPUs' worth of time this process is given.
    pub cpus: usize,
    /// Bytes that may be locked into memory; `None`: no limit.
    pub locked_memory_bytes: Option<u64>,
    /// Whether log buffers can be registered. Without it each log write costs a little more.
    pub registered_buffers: bool,
}

/// What stands in the way.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum PreflightError {
    /// The sysctl forbids io_uring.
    #[error(
        "io_uring is switched off on this host (kernel.io_uring_disabled={setting}); {}",
        fix_of(*setting)
    )]
    Disabled {
        /// 1: only for the privileged. 2: for everybody.
        setting: u8,
    },
    /// Something else forbids it.
    #[error(
        "io_uring is forbidden to this process although the kernel allows it, most likely by a container's \
         seccomp profile; allow io_uring_setup, io_uring_enter and io_uring_register (docker run \
         --security-opt seccomp=unconfined is the quick way)"
    )]
    Forbidden,
    /// Too little memory may be locked.
    #[error(
        "too little memory may be locked by this process ({limit_bytes} bytes); raise it: ulimit -l \
         unlimited, or LimitMEMLOCK=infinity in the systemd unit"
    )]
    LockedMemory {
        /// The present limit.
        limit_bytes: u64,
    },
    /// The kernel has no memory for the ring.
    #[error("the kernel has no memory left for a ring; free memory, or raise the container's limit")]
    NoMemory,
    /// The kernel is too old.
    #[error("kernel {release} is too old; run Linux {}.{} or newer", KERNEL_MIN.0, KERNEL_MIN.1)]
    KernelTooOld {
        /// Its release.
        release: String,
    },
    /// No descriptors are left.
    #[error(
        "no file descriptors are left; raise the limit: ulimit -n 65536, or LimitNOFILE=65536 in the systemd \
         unit"
    )]
    NoDescriptors,
    /// Anything else.
    #[error("the ring cannot be made ({step}): error {errno} from the operating system; see the kernel log")]
    Other {
        /// What was tried.
        step: String,
        /// The error's number.
        errno: i32,
    },
}

fn fix_of(setting: u8) -> &'static str {
    match setting {
        1 => "run sysctl kernel.io_uring_disabled=0, or start this process with CAP_SYS_ADMIN",
        _ => "run sysctl kernel.io_uring_disabled=0",
    }
}

/// Tries out what an executor and a machine need.
///
/// # Errors
/// [`PreflightError`]: what stands in the way, and how to remove it.
pub fn preflight() -> Result<Preflight, PreflightError> {
    let host = Host::look();
    let locked_memory_bytes = host.locked_memory_bytes;
    if let Some(limit_bytes) = locked_memory_bytes.filter(|limit| *limit < MEMLOCK_BYTES_MIN) {
        return Err(PreflightError::LockedMemory { limit_bytes });
    }
    let setup = |step| move |errno| SetupError { step, errno };
    let signal = Signal::new().map_err(|error| error.raw_os_error().unwrap_or(0));
    let signal = signal.map_err(setup(SetupStep::Signal)).map_err(|error| host.explain(error))?;
    let mut ring = Ring::new(Arc::new(signal)).map_err(|error| host.explain(error))?;
    ring.check_operations().map_err(|error| host.explain(error))?;
    let registered_buffers = ring.register(&mut [AlignedBuffer::with_capacity(BLOCK_BYTES)]).is_ok();
    Ok(Preflight { kernel: host.release, cpus: cpus::count(), locked_memory_bytes, registered_buffers })
}

/// Says why a ring could not be made.
pub(crate) fn explain(error: SetupError) -> PreflightError {
    Host::look().explain(error)
}

/// What decides how an error number is to be read.
#[derive(Clone, Debug)]
struct Host {
    release: String,
    io_uring_disabled: u8,
    locked_memory_bytes: Option<u64>,
}

impl Host {
    fn look() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        Self {
            release: read("/proc/sys/kernel/osrelease"),
            io_uring_disabled: read("/proc/sys/kernel/io_uring_disabled").parse().unwrap_or(0),
            locked_memory_bytes: crate::host::memlock_bytes(),
        }
    }

    fn explain(&self, error: SetupError) -> PreflightError {
        match error.errno {
            libc::EPERM | libc::EACCES if self.io_uring_disabled > 0 => {
                PreflightError::Disabled { setting: self.io_uring_disabled }
            }
            libc::EPERM | libc::EACCES => PreflightError::Forbidden,
            libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP if self.is_too_old() => {
                PreflightError::KernelTooOld { release: self.release.clone() }
            }
            // A kernel that is new enough knows the call: newer container runtimes pretend that it does not.
            libc::ENOSYS => PreflightError::Forbidden,
            libc::ENOMEM => match self.locked_memory_bytes {
                Some(limit_bytes) => PreflightError::LockedMemory { limit_bytes },
                None => PreflightError::NoMemory,
            },
            libc::EMFILE | libc::ENFILE => PreflightError::NoDescriptors,
            errno => PreflightError::Other { step: format!("{:?}", error.step), errno },
        }
    }

    fn is_too_old(&self) -> bool {
        let mut numbers = self.release.split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        version < KERNEL_MIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(release: &str, io_uring_disabled: u8, locked_memory_bytes: Option<u64>) -> Host {
        Host { release: release.to_owned(), io_uring_disabled, locked_memory_bytes }
    }

    fn check(host: &Host, errno: i32, expected: &PreflightError) {
        assert_eq!(host.explain(SetupError { step: SetupStep::Create, errno }), *expected);
    }

    #[test]
    fn this_host_can_run_the_tests() {
        let found = preflight().unwrap();
        assert!(found.cpus >= 1 && !found.kernel.is_empty());
    }

    #[test]
    fn the_causes_of_one_error_number_are_told_apart() {
        check(&host("6.8.0", 0, None), libc::EPERM, &PreflightError::Forbidden);
        check(&host("6.8.0", 1, None), libc::EPERM, &PreflightError::Disabled { setting: 1 });
        check(&host("6.8.0-45-generic", 0, None), libc::ENOSYS, &PreflightError::Forbidden);
        let old = PreflightError::KernelTooOld { release: "5.15.0-generic".to_owned() };
        check(&host("5.15.0-generic", 0, None), libc::ENOSYS, &old);
        check(&host("5.15.0-generic", 0, None), libc::EINVAL, &old);
        check(
            &host("6.8.0", 0, Some(65_536)),
            libc::ENOMEM,
            &PreflightError::LockedMemory { limit_bytes: 65_536 },
        );
        check(&host("6.8.0", 0, None), libc::ENOMEM, &PreflightError::NoMemory);
    }

    #[test]
    fn every_explanation_says_what_to_do() {
        let errors = [
            PreflightError::Disabled { setting: 2 },
            PreflightError::Forbidden,
            PreflightError::LockedMemory { limit_bytes: 1 },
            PreflightError::NoMemory,
            PreflightError::KernelTooOld { release: "4.19".to_owned() },
            PreflightError::NoDescriptors,
        ];
        for error in errors {
            assert!(error.to_string().contains("; "), "{error}");
        }
    }
}
