//! A log writer with nothing around it: what the disk alone takes for durable writes.

use crate::clock;
use crate::files::{FilesError, os, scratch};
use evenkeel_wire::aligned::AlignedBuffer;
use rustix::io::{ReadWriteFlags, pwritev2};
use std::io::IoSlice;
use std::path::Path;
use std::time::Duration;

/// Bytes that are written over and over.
const AREA_BYTES: u64 = 16 * 1024 * 1024;

/// Writes `bytes` (whole blocks) durably, one write after the other, in a temporary file in `directory` for
/// the time `period`: with O_DIRECT and RWF_DSYNC into space that was written before, as a core writes its
/// log. Returns how long each took.
///
/// # Errors
/// When the folder cannot be written to, or has no direct input/output.
///
/// # Panics
/// When `bytes` is not a whole number of blocks, or more than 16 MiB.
pub fn log_writes(directory: &Path, bytes: usize, period: Duration) -> Result<Vec<Duration>, FilesError> {
    let file = scratch(directory, AREA_BYTES)?;
    let mut block = AlignedBuffer::zeroed(bytes);
    block.fill(0x5a);
    let (start, mut times, mut offset) = (clock::boot(), Vec::new(), 0);
    while clock::boot().since(start) < period {
        let before = clock::boot();
        let written = pwritev2(&file, &[IoSlice::new(&block)], offset, ReadWriteFlags::DSYNC);
        let written = written.map_err(|error| os(directory, error.into()))?;
        assert_eq!(written, bytes, "a write to a file on a disk is whole, or an error");
        times.push(clock::boot().since(before));
        offset = if offset + 2 * bytes as u64 <= AREA_BYTES { offset + bytes as u64 } else { 0 };
    }
    Ok(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_measures_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let times = log_writes(folder.path(), 4096, Duration::from_millis(30)).unwrap();
        assert!(!times.is_empty() && times.iter().all(|time| !time.is_zero()));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
