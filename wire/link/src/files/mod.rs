//! A storage core's folder.
//!
//! ```text
//!  superblock     two blocks, written in turn
//!  log-0000 …     the log's segments, all of one length, filled with zeros when the folder is made
//!  checkpoint-0   two checkpoint files, used in turn
//!  checkpoint-1
//!  tree           pages of the partitions' trees
//! ```
//!
//! Every file is opened with O_DIRECT: what the device has acknowledged is what later reads see, and the
//! kernel keeps no copy that could hide a lost write. A file system that cannot do that is refused, never
//! used with a cache between.
//!
//! Every file is locked while the folder is open. Two processes cannot serve one core; and because the kernel
//! keeps a lock for as long as it still writes what a killed process had asked for, whoever holds them all
//! reads a log that no late write can change any more (docs/decisions/0004-log.md). Who only looks, a checker
//! beside the serving process, takes no lock, cannot write, and must expect files to change while it reads.
#![allow(unsafe_code)]

mod create;

pub use create::create_core;

use crate::clock;
use crate::disk::fault;
use crate::limits::{FILES_PER_CORE_MAX, LOCK_PATIENCE, LOCK_RETRY};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::{self, DiskFault};
use std::ffi::CString;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;
use thiserror::Error;

/// Why a core's folder cannot be made or opened.
#[derive(Debug, Error)]
pub enum FilesError {
    /// The folder is not empty.
    #[error("{} already holds something; name an empty folder, or remove what is in it", path.display())]
    NotEmpty {
        /// The folder.
        path: PathBuf,
    },
    /// A file is missing.
    #[error(
        "{} is missing: the folder was not formatted to its end, or is damaged; format a new one",
        path.display()
    )]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// Another process has the folder open.
    #[error("{} is in use by another process; stop that one first", path.display())]
    InUse {
        /// The folder.
        path: PathBuf,
    },
    /// The file system has no direct input/output.
    #[error(
        "the file system of {} cannot do direct input/output (O_DIRECT); choose a folder on ext4 or XFS",
        path.display()
    )]
    DirectRefused {
        /// The file.
        path: PathBuf,
    },
    /// The file system lives in memory.
    #[error(
        "{} lies in memory (tmpfs) and would be lost at a restart; choose a folder on a disk",
        path.display()
    )]
    InMemory {
        /// The folder.
        path: PathBuf,
    },
    /// No space is left.
    #[error(
        "no space is left for {} ({bytes} bytes); free space, or choose fewer or smaller segments",
        path.display()
    )]
    Full {
        /// The file.
        path: PathBuf,
        /// How long it was to become.
        bytes: u64,
    },
    /// More segments than a process can have open.
    #[error("{segments} segments are more than {FILES_PER_CORE_MAX}; choose fewer, larger segments")]
    TooManySegments {
        /// How many were wanted.
        segments: u32,
    },
    /// Anything else.
    #[error("{}: {error}", path.display())]
    Os {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system says.
        error: io::Error,
    },
}

/// The open files of a core. They are closed, and the folder is unlocked, when this is dropped.
#[derive(Debug)]
pub struct CoreFiles {
    superblock: File,
    segments: Vec<File>,
    checkpoints: [File; 2],
    tree: File,
    /// A fault: how much later writes and flushes reach the disk.
    write_delay: Duration,
}

impl CoreFiles {
    /// Opens and locks the folder `directory` of a core whose log has `segments` segments.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn open(directory: &Path, segments: u32) -> Result<Self, FilesError> {
        Self::open_each(directory, segments, |path| {
            let file = open_direct(path, Access::Change)?;
            lock(&file, directory)?;
            Ok(file)
        })
    }

    /// Opens the folder for reading only, without locks: another process may be serving it.
    ///
    /// # Errors
    /// [`FilesError`].
    pub fn open_read_only(directory: &Path, segments: u32) -> Result<Self, FilesError> {
        Self::open_each(directory, segments, |path| open_direct(path, Access::Read))
    }

    fn open_each(
        directory: &Path,
        segments: u32,
        open: impl Fn(&Path) -> Result<File, FilesError>,
    ) -> Result<Self, FilesError> {
        if segments > FILES_PER_CORE_MAX {
            return Err(FilesError::TooManySegments { segments });
        }
        check_file_system(directory)?;
        let open = |file| open(&path_of(directory, file));
        let superblock = open(turn::File::Superblock)?;
        let segments = (0..segments).map(|segment| open(turn::File::Segment(segment)));
        Ok(Self {
            superblock,
            segments: segments.collect::<Result<_, _>>()?,
            checkpoints: [open(turn::File::Checkpoint(0))?, open(turn::File::Checkpoint(1))?],
            tree: open(turn::File::Tree)?,
            write_delay: Duration::ZERO,
        })
    }

    /// Makes a slow disk of it, for tests: every write and flush reaches it this much later. What has not
    /// reached it when the process is killed never does.
    pub fn delay_writes(&mut self, delay: Duration) {
        self.write_delay = delay;
    }

    pub(crate) fn write_delay(&self) -> Duration {
        self.write_delay
    }

    /// Reads over the buffer's filled part, and waits for it: its length says how much, and it becomes
    /// shorter at the end of the file. The offset and the length are whole blocks.
    ///
    /// # Errors
    /// What the operating system says, also when there is no such file.
    pub fn read_at(
        &self,
        file: turn::File,
        offset: u64,
        buffer: &mut AlignedBuffer,
    ) -> Result<(), DiskFault> {
        let file = self.get(file).ok_or(DiskFault::Os { errno: libc::EBADF })?;
        let mut filled = 0;
        while filled < buffer.len() {
            let got = file.read_at(&mut buffer[filled..], offset + filled as u64);
            let got = got.map_err(|error| fault(error.raw_os_error().unwrap_or(libc::EIO)))?;
            filled += got;
            // A part of a block, or nothing, is the end of the file; whole blocks may be followed by more.
            if got == 0 || !got.is_multiple_of(BLOCK_BYTES) {
                break;
            }
        }
        buffer.resize(filled);
        Ok(())
    }

    /// How long the tree's file is, blocks.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn tree_blocks(&self) -> Result<u64, DiskFault> {
        let facts = self.tree.metadata();
        let facts = facts.map_err(|error| fault(error.raw_os_error().unwrap_or(libc::EIO)))?;
        Ok(facts.len() / BLOCK_BYTES as u64)
    }

    /// The file, if there is one.
    pub(crate) fn get(&self, file: turn::File) -> Option<&File> {
        match file {
            turn::File::Superblock => Some(&self.superblock),
            turn::File::Segment(segment) => self.segments.get(segment as usize),
            turn::File::Checkpoint(checkpoint) => self.checkpoints.get(usize::from(checkpoint)),
            turn::File::Tree => Some(&self.tree),
        }
    }
}

/// Where a file of a core lies.
fn path_of(directory: &Path, file: turn::File) -> PathBuf {
    directory.join(match file {
        turn::File::Superblock => "superblock".to_owned(),
        turn::File::Segment(segment) => format!("log-{segment:04}"),
        turn::File::Checkpoint(checkpoint) => format!("checkpoint-{checkpoint}"),
        turn::File::Tree => "tree".to_owned(),
    })
}

/// What a file is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Access {
    /// To be made, and written.
    Create,
    /// To be read and written.
    Change,
    /// To be read.
    Read,
}

fn open_direct(path: &Path, access: Access) -> Result<File, FilesError> {
    let create = access == Access::Create;
    let mut options = OpenOptions::new();
    options.read(true).write(access != Access::Read).create_new(create).mode(0o640);
    options.custom_flags(libc::O_DIRECT);
    options.open(path).map_err(|error| match error.raw_os_error() {
        Some(libc::EINVAL) => FilesError::DirectRefused { path: path.to_owned() },
        Some(libc::ENOENT) if !create => FilesError::Missing { path: path.to_owned() },
        _ => os(path, error),
    })
}

/// Refuses file systems that accept O_DIRECT and keep everything in memory all the same.
///
/// # Errors
/// [`FilesError::InMemory`], or when the folder cannot be looked at.
pub fn check_file_system(directory: &Path) -> Result<(), FilesError> {
    let name = CString::new(directory.as_os_str().as_bytes())
        .map_err(|error| os(directory, io::Error::new(io::ErrorKind::InvalidInput, error)))?;
    // SAFETY: an all-zero `statfs` is a valid value of this plain structure.
    let mut facts: libc::statfs = unsafe { std::mem::zeroed() };
    // SAFETY: the name is terminated, the structure is ours, and both live through the call.
    if unsafe { libc::statfs(name.as_ptr(), &raw mut facts) } < 0 {
        return Err(os(directory, io::Error::last_os_error()));
    }
    if matches!(facts.f_type, libc::TMPFS_MAGIC | RAMFS_MAGIC) {
        return Err(FilesError::InMemory { path: directory.to_owned() });
    }
    Ok(())
}

/// From the kernel's `magic.h`.
const RAMFS_MAGIC: libc::__fsword_t = 0x8584_58f6;

/// Locks a file, and waits a moment for a process that has been killed to be gone altogether.
fn lock(file: &File, directory: &Path) -> Result<(), FilesError> {
    let since = clock::boot();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(()),
            Err(fs::TryLockError::WouldBlock) if clock::boot().since(since) < LOCK_PATIENCE => {
                #[allow(clippy::disallowed_methods, reason = "waiting is a door's work")]
                thread::sleep(LOCK_RETRY);
            }
            Err(fs::TryLockError::WouldBlock) => {
                return Err(FilesError::InUse { path: directory.to_owned() });
            }
            Err(fs::TryLockError::Error(error)) => return Err(os(directory, error)),
        }
    }
}

/// A file of `bytes` in `directory` that repeats `pattern`, has no name and goes when it is closed.
pub(crate) fn scratch(directory: &Path, bytes: u64, pattern: &AlignedBuffer) -> Result<File, FilesError> {
    let path = directory.join(format!(".evenkeel-scratch-{}", std::process::id()));
    let made =
        create::fill(&path, bytes, pattern, &mut |_| {}).and_then(|()| open_direct(&path, Access::Change));
    let removed = fs::remove_file(&path).map_err(|error| os(&path, error));
    made.and_then(|file| removed.map(|()| file))
}

pub(crate) fn os(path: &Path, error: io::Error) -> FilesError {
    FilesError::Os { path: path.to_owned(), error }
}

/// Makes names in a folder durable.
fn sync_directory(directory: &Path) -> Result<(), FilesError> {
    let folder = File::open(directory).map_err(|error| os(directory, error))?;
    folder.sync_all().map_err(|error| os(directory, error))
}

/// Reserves space for a file, so that writing to it cannot run out of it.
fn reserve(file: &File, path: &Path, bytes: u64) -> Result<(), FilesError> {
    // SAFETY: the call takes no pointers.
    let result = unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, bytes as libc::off_t) };
    if result == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    match error.raw_os_error() {
        // The writes that follow allocate just as well, only not beforehand.
        Some(libc::EOPNOTSUPP) => Ok(()),
        _ => Err(full_or_os(path, bytes, error)),
    }
}

fn full_or_os(path: &Path, bytes: u64, error: io::Error) -> FilesError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => FilesError::Full { path: path.to_owned(), bytes },
        _ => os(path, error),
    }
}

#[cfg(test)]
mod tests;
