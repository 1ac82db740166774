//! What the disk alone takes: a log writer and a reader of pages with nothing around them.

use crate::clock;
use crate::files::{FilesError, os, scratch};
use crate::limits::FILL_WRITE_BYTES;
use crate::ring::{Completion, Payload, Ring, Token, WriteMode};
use crate::signal::Signal;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::prng::Prng;
use evenkeel_wire::turn::Boot;
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fs::File;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
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
    let file = scratch(directory, AREA_BYTES, &noise())?;
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

/// A scratch file that is written to as a core writes its log. It goes when this is dropped.
#[derive(Debug)]
pub struct LogCommits {
    directory: PathBuf,
    file: File,
    offset: u64,
}

impl LogCommits {
    /// Makes the file in `directory`, and fills it: a log's segments have been written before, too.
    ///
    /// # Errors
    /// When the folder cannot be written to, or has no direct input/output.
    pub fn prepare(directory: &Path) -> Result<Self, FilesError> {
        let file = scratch(directory, AREA_BYTES, &noise())?;
        Ok(Self { directory: directory.to_owned(), file, offset: 0 })
    }

    /// Writes `bytes` (whole blocks) at a time for the time `period`, `depth` of them under way: with
    /// O_DIRECT and RWF_DSYNC through a ring like that of a core, from registered buffers if the host allows
    /// them. Returns how long each took.
    ///
    /// # Errors
    /// When the kernel gives no ring, or a write fails.
    ///
    /// # Panics
    /// When `bytes` is not a whole number of blocks, or more than the file has.
    pub fn run(&mut self, bytes: usize, depth: usize, period: Duration) -> Result<Vec<Duration>, FilesError> {
        let directory = self.directory.clone();
        self.write_for(bytes, depth, period).map_err(|error| os(&directory, error))
    }

    fn write_for(&mut self, bytes: usize, depth: usize, period: Duration) -> io::Result<Vec<Duration>> {
        let mut ring = Ring::new(Arc::new(Signal::new()?)).map_err(io::Error::other)?;
        let mut buffers: Vec<AlignedBuffer> = (0..depth).map(|_| AlignedBuffer::zeroed(bytes)).collect();
        buffers.iter_mut().for_each(|buffer| buffer.fill(0x5a));
        // Without them a write costs a little more, as it does a core.
        let _too_little_may_be_locked = ring.register(&mut buffers);
        keep_busy(ring, buffers, period, |ring, place, buffer| self.begin(ring, place, buffer))
    }

    fn begin(&mut self, ring: &mut Ring, place: u32, buffer: AlignedBuffer) -> Boot {
        let bytes = buffer.len() as u64;
        self.offset = if self.offset + bytes <= AREA_BYTES { self.offset } else { 0 };
        let (mode, now) = (WriteMode { durable: true, registered: buffer.registered() }, clock::boot());
        ring.write(place, &self.file, buffer, self.offset, mode);
        self.offset += bytes;
        now
    }
}

/// A scratch file that pages are read from, one here and one there. It goes when this is dropped.
#[derive(Debug)]
pub struct PageReads {
    directory: PathBuf,
    file: File,
    pages: u64,
    page_bytes: usize,
    prng: Prng,
}

impl PageReads {
    /// Makes the file in `directory`: `bytes` in pages of `page_bytes` (whole blocks). It should be larger
    /// than what the device keeps in memory. It holds noise: some devices do not really read zeros.
    ///
    /// # Errors
    /// When the folder cannot be written to, or has no direct input/output.
    ///
    /// # Panics
    /// When the file has no page.
    pub fn prepare(directory: &Path, bytes: u64, page_bytes: usize) -> Result<Self, FilesError> {
        let pages = bytes / page_bytes as u64;
        assert!(pages > 0, "a file to read from has pages");
        let file = scratch(directory, pages * page_bytes as u64, &noise())?;
        Ok(Self { directory: directory.to_owned(), file, pages, page_bytes, prng: Prng::new(1) })
    }

    /// Reads random pages with O_DIRECT for the time `period`, `depth` at a time, through a ring like that of
    /// a core. Returns how long each took.
    ///
    /// # Errors
    /// When the kernel gives no ring, or a read fails.
    pub fn run(&mut self, depth: usize, period: Duration) -> Result<Vec<Duration>, FilesError> {
        let directory = self.directory.clone();
        self.read_for(depth, period).map_err(|error| os(&directory, error))
    }

    fn read_for(&mut self, depth: usize, period: Duration) -> io::Result<Vec<Duration>> {
        let ring = Ring::new(Arc::new(Signal::new()?)).map_err(io::Error::other)?;
        let pages = (0..depth).map(|_| AlignedBuffer::zeroed(self.page_bytes)).collect();
        keep_busy(ring, pages, period, |ring, place, page| self.begin(ring, place, page))
    }

    fn begin(&mut self, ring: &mut Ring, place: u32, page: AlignedBuffer) -> Boot {
        let offset = self.prng.below(self.pages) * self.page_bytes as u64;
        let now = clock::boot();
        ring.read(place, &self.file, page, 0, offset);
        now
    }
}

/// Keeps one operation under way for each buffer for the time `period`, then waits for those. `begin` begins
/// one, and says when. Returns how long each took.
fn keep_busy(
    mut ring: Ring,
    buffers: Vec<AlignedBuffer>,
    period: Duration,
    mut begin: impl FnMut(&mut Ring, u32, AlignedBuffer) -> Boot,
) -> io::Result<Vec<Duration>> {
    let (depth, end) = (buffers.len(), clock::boot().after(period));
    let bytes = buffers.first().map_or(0, |buffer| buffer.len());
    let (mut times, mut completions) = (Vec::new(), Vec::new());
    let places = (0..).zip(buffers);
    let mut begun: Vec<Boot> = places.map(|(place, buffer)| begin(&mut ring, place, buffer)).collect();
    while !ring.is_quiet() {
        ring.wait()?;
        ring.take(depth, &mut completions);
        for Completion { token, result, payload, .. } in completions.drain(..) {
            let (Token::Disk(place), Payload::Block(buffer)) = (token, payload) else {
                unreachable!("nothing but blocks was asked for");
            };
            let got = result.map_err(io::Error::from_raw_os_error)? as usize;
            assert_eq!(got, bytes, "within a file on a disk it is whole, or an error");
            let (begun, now) = (&mut begun[place as usize], clock::boot());
            times.push(now.since(*begun));
            if now < end {
                *begun = begin(&mut ring, place, buffer);
            }
        }
    }
    Ok(times)
}

/// Noise to fill a file with.
fn noise() -> AlignedBuffer {
    let mut noise = AlignedBuffer::with_capacity(FILL_WRITE_BYTES);
    noise.resize(FILL_WRITE_BYTES);
    Prng::new(1).fill(&mut noise);
    noise
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

    #[test]
    fn commits_of_every_length_are_measured_at_any_depth_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut commits = LogCommits::prepare(folder.path()).unwrap();
        for (bytes, depth) in [(4096, 1), (65_536, 4)] {
            let times = commits.run(bytes, depth, Duration::from_millis(20)).unwrap();
            assert!(times.len() >= depth && times.iter().all(|time| !time.is_zero()));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn pages_are_read_at_any_depth_and_nothing_is_left_behind() {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let mut reads = PageReads::prepare(folder.path(), 1 << 20, 8192).unwrap();
        for depth in [1, 32] {
            let times = reads.run(depth, Duration::from_millis(20)).unwrap();
            assert!(times.len() >= depth && times.iter().all(|time| !time.is_zero()));
        }
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
