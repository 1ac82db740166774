//! Making a core's folder.
//!
//! The segments are filled with real zeros: a write into space that is only reserved costs about twice as
//! much, and a log does nothing but such writes. The superblock comes last; without it a folder that was not
//! finished cannot be taken for one that was.

use super::{
    Access, FilesError, check_file_system, full_or_os, open_direct, os, path_of, reserve, sync_directory,
};
use crate::limits::{FILES_PER_CORE_MAX, FILL_WRITE_BYTES};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Blocks of the superblock file.
const SUPERBLOCK_BLOCKS: usize = 2;

/// Makes the folder of a core: `segments` zeroed segments of `segment_bytes` (whole blocks), empty
/// checkpoints, an empty tree file, and `superblock` at `superblock_offset`. `progress` is told after each
/// write how many bytes of segments are done. Everything is durable when this returns.
///
/// # Errors
/// [`FilesError`]; what was made so far is left for a person to look at.
///
/// # Panics
/// When a length or the offset is not a whole number of blocks, or the superblock does not fit its file.
pub fn create_core(
    directory: &Path,
    segments: u32,
    segment_bytes: u64,
    superblock: &AlignedBuffer,
    superblock_offset: u64,
    progress: &mut dyn FnMut(u64),
) -> Result<(), FilesError> {
    assert!(segment_bytes.is_multiple_of(BLOCK_BYTES as u64), "segments are whole blocks");
    if segments > FILES_PER_CORE_MAX {
        return Err(FilesError::TooManySegments { segments });
    }
    fs::create_dir_all(directory).map_err(|error| os(directory, error))?;
    let mut entries = fs::read_dir(directory).map_err(|error| os(directory, error))?;
    if entries.next().is_some() {
        return Err(FilesError::NotEmpty { path: directory.to_owned() });
    }
    check_file_system(directory)?;
    let mut zeros = AlignedBuffer::with_capacity(FILL_WRITE_BYTES);
    zeros.resize(FILL_WRITE_BYTES);
    let mut done = 0;
    for segment in 0..segments {
        let path = path_of(directory, turn::File::Segment(segment));
        fill(&path, segment_bytes, &zeros, &mut |bytes| {
            done += bytes;
            progress(done);
        })?;
    }
    for file in [turn::File::Checkpoint(0), turn::File::Checkpoint(1), turn::File::Tree] {
        let path = path_of(directory, file);
        open_direct(&path, Access::Create)?.sync_all().map_err(|error| os(&path, error))?;
    }
    sync_directory(directory)?;
    write_superblock(directory, superblock, superblock_offset)?;
    sync_directory(directory)?;
    // The folder's own name; a folder at the root, or relative to the present one, has no parent to speak of.
    match directory.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        Some(parent) => sync_directory(parent),
        None => Ok(()),
    }
}

/// Makes a file of `bytes` that repeats `pattern`.
pub(super) fn fill(
    path: &Path,
    bytes: u64,
    pattern: &AlignedBuffer,
    progress: &mut dyn FnMut(u64),
) -> Result<(), FilesError> {
    let file = open_direct(path, Access::Create)?;
    reserve(&file, path, bytes)?;
    let mut offset = 0;
    while offset < bytes {
        let step = (bytes - offset).min(pattern.len() as u64);
        file.write_all_at(&pattern[..step as usize], offset)
            .map_err(|error| full_or_os(path, bytes, error))?;
        offset += step;
        progress(step);
    }
    file.sync_all().map_err(|error| full_or_os(path, bytes, error))
}

fn write_superblock(directory: &Path, superblock: &AlignedBuffer, offset: u64) -> Result<(), FilesError> {
    let bytes = SUPERBLOCK_BLOCKS * BLOCK_BYTES;
    let (start, end) = (offset as usize, offset as usize + superblock.len());
    assert!(
        start.is_multiple_of(BLOCK_BYTES) && end <= bytes,
        "the superblock at {start} has its file's blocks"
    );
    let path = path_of(directory, turn::File::Superblock);
    let mut both = AlignedBuffer::zeroed(bytes);
    both[start..end].copy_from_slice(superblock);
    let file = open_direct(&path, Access::Create)?;
    file.write_all_at(&both, 0).map_err(|error| full_or_os(&path, bytes as u64, error))?;
    file.sync_all().map_err(|error| full_or_os(&path, bytes as u64, error))
}
