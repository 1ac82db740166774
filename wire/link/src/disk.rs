//! A machine's disk operations: from its effects to the ring, and back as its inputs.
//!
//! Nothing is ever tried again. A flush covers every write to its file that was asked for before it, so it is
//! submitted only when those have ended; the ring itself would let it overtake them.

use crate::files::CoreFiles;
use crate::ring::{Payload, Ring, WriteMode};
use crate::slots::Slots;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::{Boot, DiskAction, DiskCompletion, DiskFault, DiskOperation, File, OperationId};
use std::collections::VecDeque;
use std::time::Duration;

/// An operation that has not ended.
#[derive(Debug)]
struct InFlight {
    id: OperationId,
    file: File,
    step: Step,
}

#[derive(Debug)]
enum Step {
    /// `offset` is where the read began; `filled` bytes have come.
    Read { offset: u64, filled: usize },
    /// All of `bytes` must be written.
    Write { bytes: usize },
    /// Submitted when the writes at these places have ended.
    Flush { behind: Vec<u32> },
}

/// The disk half of a driver.
#[derive(Debug)]
pub(crate) struct Disk {
    files: Option<CoreFiles>,
    /// Where the buffers lie that the ring has registered, by index.
    registered: Vec<usize>,
    in_flight: Slots<InFlight>,
    /// Ended without the ring.
    ended: Vec<DiskCompletion>,
    /// A slow disk, which is a fault that tests ask for: how much later it takes writes and flushes…
    write_delay: Duration,
    /// …and those that it has not taken yet.
    delayed: VecDeque<(Boot, DiskOperation)>,
}

impl Disk {
    /// A disk with `files`, if the machine has any. `registered` are the buffers that the ring knows, by
    /// index.
    pub(crate) fn new(files: Option<CoreFiles>, registered: &[AlignedBuffer]) -> Self {
        let registered = registered.iter().filter(|buffer| buffer.registered().is_some());
        let registered = registered.map(|buffer| buffer.as_ptr() as usize).collect();
        let write_delay = files.as_ref().map(CoreFiles::write_delay).unwrap_or_default();
        let (in_flight, delayed) = (Slots::default(), VecDeque::new());
        Self { files, registered, in_flight, ended: Vec::new(), write_delay, delayed }
    }

    /// Whether no operation is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.delayed.is_empty()
    }

    /// When the next operation that is delayed is to begin.
    pub(crate) fn deadline(&self) -> Boot {
        self.delayed.front().map_or(Boot::NEVER, |(due, _)| *due)
    }

    /// Begins what was delayed until now.
    pub(crate) fn release(&mut self, ring: &mut Ring, now: Boot) {
        while self.delayed.front().is_some_and(|(due, _)| *due <= now) {
            let (_, operation) = self.delayed.pop_front().expect("it is there");
            self.submit(ring, operation);
        }
    }

    /// Whether something has ended without the ring.
    pub(crate) fn has_ended(&self) -> bool {
        !self.ended.is_empty()
    }

    /// What has ended without the ring.
    pub(crate) fn take_ended(&mut self) -> Vec<DiskCompletion> {
        std::mem::take(&mut self.ended)
    }

    /// Begins an operation, or lets it wait where the disk is made slow.
    pub(crate) fn begin(&mut self, ring: &mut Ring, now: Boot, operation: DiskOperation) {
        let is_read = matches!(operation.action, DiskAction::Read { .. });
        if self.write_delay.is_zero() || is_read {
            return self.submit(ring, operation);
        }
        self.delayed.push_back((now.after(self.write_delay), operation));
    }

    fn submit(&mut self, ring: &mut Ring, operation: DiskOperation) {
        let DiskOperation { id, file, action } = operation;
        let Some(descriptor) = self.files.as_ref().and_then(|files| files.get(file)) else {
            let outcome = Err(DiskFault::Os { errno: libc::EBADF });
            return self.ended.push(DiskCompletion { id, outcome });
        };
        match action {
            DiskAction::Read { offset, buffer } => {
                let step = Step::Read { offset, filled: 0 };
                let place = self.in_flight.insert(InFlight { id, file, step });
                ring.read(place, descriptor, buffer, 0, offset);
            }
            DiskAction::Write { offset, buffer, durable } => {
                let mode = WriteMode { durable, registered: self.index_of(&buffer) };
                let step = Step::Write { bytes: buffer.len() };
                let place = self.in_flight.insert(InFlight { id, file, step });
                ring.write(place, descriptor, buffer, offset, mode);
            }
            DiskAction::Flush => {
                let behind = self.writes_to(file);
                let waits = !behind.is_empty();
                let place = self.in_flight.insert(InFlight { id, file, step: Step::Flush { behind } });
                if !waits {
                    ring.flush(place, descriptor);
                }
            }
        }
    }

    /// The index under which this ring has registered a buffer: what the buffer says, unless another ring
    /// said it.
    fn index_of(&self, buffer: &AlignedBuffer) -> Option<u16> {
        let address = buffer.as_ptr() as usize;
        buffer.registered().filter(|index| self.registered.get(usize::from(*index)) == Some(&address))
    }

    fn writes_to(&self, file: File) -> Vec<u32> {
        let places = self.in_flight.places().into_iter();
        let is_write = |place: &u32| {
            self.in_flight
                .get(*place)
                .is_some_and(|other| other.file == file && matches!(other.step, Step::Write { .. }))
        };
        places.filter(is_write).collect()
    }

    /// Takes a completion from the ring. Returns what the machine is told, unless the operation goes on.
    pub(crate) fn complete(
        &mut self,
        ring: &mut Ring,
        place: u32,
        result: Result<u32, i32>,
        payload: Payload,
    ) -> Option<DiskCompletion> {
        let buffer = if let Payload::Block(buffer) = payload { Some(buffer) } else { None };
        let in_flight = self.in_flight.get_mut(place).expect("it is in flight");
        let outcome = match (&mut in_flight.step, result) {
            (_, Err(errno)) => Err(fault(errno)),
            (Step::Read { offset, filled }, Ok(got)) => {
                let mut buffer = buffer.expect("a read gives its buffer back");
                *filled += got as usize;
                // A part of a block, or nothing, is the end of the file; whole blocks may be followed by
                // more.
                let at_end = got == 0 || !(got as usize).is_multiple_of(BLOCK_BYTES);
                if *filled < buffer.len() && !at_end {
                    let (from, offset, file) = (*filled, *offset + *filled as u64, in_flight.file);
                    let descriptor = self.files.as_ref().and_then(|files| files.get(file));
                    ring.read(place, descriptor.expect("the file is open"), buffer, from, offset);
                    return None;
                }
                buffer.resize(*filled);
                Ok(Some(buffer))
            }
            (Step::Write { bytes }, Ok(got)) if got as usize == *bytes => Ok(buffer),
            (Step::Write { bytes }, Ok(got)) => Err(DiskFault::Short { got: got as usize, expected: *bytes }),
            (Step::Flush { .. }, Ok(_)) => Ok(None),
        };
        let ended = self.in_flight.remove(place).expect("it was found above");
        if matches!(ended.step, Step::Write { .. }) {
            self.release_flushes(ring, place, ended.file);
        }
        Some(DiskCompletion { id: ended.id, outcome })
    }

    /// Submits flushes that waited for the write at `place` alone.
    fn release_flushes(&mut self, ring: &mut Ring, place: u32, file: File) {
        for waiting in self.in_flight.places() {
            let Some(InFlight { step: Step::Flush { behind }, .. }) = self.in_flight.get_mut(waiting) else {
                continue;
            };
            let before = behind.len();
            behind.retain(|write| *write != place);
            let free = before > 0 && behind.is_empty();
            if free && let Some(descriptor) = self.files.as_ref().and_then(|files| files.get(file)) {
                ring.flush(waiting, descriptor);
            }
        }
    }
}

/// What an error number of the operating system means to a machine.
pub(crate) fn fault(errno: i32) -> DiskFault {
    match errno {
        libc::ENOSPC | libc::EDQUOT => DiskFault::Full,
        errno => DiskFault::Os { errno },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ring::{Completion, Token};
    use crate::signal::Signal;
    use std::sync::Arc;

    struct Bench {
        ring: Ring,
        disk: Disk,
        _folder: tempfile::TempDir,
    }

    fn bench() -> Bench {
        let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let core = folder.path().join("core");
        let superblock = AlignedBuffer::copy_of(&[1; BLOCK_BYTES]);
        crate::files::create_core(&core, 1, 64 * 1024, &superblock, 0, &mut |_| ()).unwrap();
        let files = CoreFiles::open(&core, 1).unwrap();
        let ring = Ring::new(Arc::new(Signal::new().unwrap())).unwrap();
        Bench { ring, disk: Disk::new(Some(files), &[]), _folder: folder }
    }

    impl Bench {
        fn begin(&mut self, id: u64, file: File, action: DiskAction) {
            let operation = DiskOperation { id: OperationId(id), file, action };
            self.disk.begin(&mut self.ring, Boot(0), operation);
        }

        /// Runs until nothing is under way; what ended, in order.
        fn finish(&mut self) -> Vec<DiskCompletion> {
            let mut done = Vec::new();
            while !self.disk.is_idle() {
                let mut taken = Vec::new();
                self.ring.enter().unwrap();
                self.ring.take(16, &mut taken);
                for Completion { token, result, payload, .. } in taken {
                    let Token::Disk(place) = token else { panic!("only the disk was asked") };
                    done.extend(self.disk.complete(&mut self.ring, place, result, payload));
                }
            }
            done
        }
    }

    fn write(bytes: u8, blocks: usize, offset: u64) -> DiskAction {
        let buffer = AlignedBuffer::copy_of(&vec![bytes; blocks * BLOCK_BYTES]);
        DiskAction::Write { offset, buffer, durable: false }
    }

    fn read(offset: u64, bytes: usize) -> DiskAction {
        DiskAction::Read { offset, buffer: AlignedBuffer::zeroed(bytes) }
    }

    #[test]
    fn a_flush_ends_after_every_write_that_was_asked_for_before_it() {
        let mut bench = bench();
        for id in 0..8 {
            bench.begin(id, File::Checkpoint(0), write(7, 16, id * 65536));
        }
        bench.begin(8, File::Checkpoint(0), DiskAction::Flush);
        bench.begin(9, File::Checkpoint(0), write(7, 1, 0));
        let order: Vec<u64> = bench.finish().iter().map(|completion| completion.id.0).collect();
        let flush = order.iter().position(|id| *id == 8).unwrap();
        assert!(order.iter().position(|id| *id == 9).unwrap() < order.len());
        assert_eq!(order[..flush].iter().filter(|id| **id < 8).count(), 8, "{order:?}");
    }

    #[test]
    fn a_slow_disk_takes_writes_and_flushes_later_in_their_order_and_reads_at_once() {
        let mut bench = bench();
        bench.disk.write_delay = Duration::from_nanos(20);
        bench.begin(1, File::Checkpoint(0), write(7, 1, 0));
        bench.begin(2, File::Checkpoint(0), DiskAction::Flush);
        bench.begin(3, File::Segment(0), read(0, 4096));
        assert_eq!((bench.disk.deadline(), bench.disk.in_flight.places().len()), (Boot(20), 1));
        bench.disk.release(&mut bench.ring, Boot(19));
        assert_eq!(bench.disk.in_flight.places().len(), 1, "only the read has begun");
        bench.disk.release(&mut bench.ring, Boot(20));
        assert_eq!(bench.disk.deadline(), Boot::NEVER);
        let ended = bench.finish();
        let place = |id: u64| ended.iter().position(|completion| completion.id.0 == id).unwrap();
        assert!(place(1) < place(2) && ended.iter().all(|completion| completion.outcome.is_ok()));
        assert_eq!(ended.len(), 3);
    }

    #[test]
    fn a_read_at_the_end_of_a_file_returns_what_is_there() {
        let mut bench = bench();
        bench.begin(1, File::Checkpoint(1), write(9, 2, 0));
        bench.finish();
        bench.begin(2, File::Checkpoint(1), read(4096, 65536));
        bench.begin(3, File::Checkpoint(1), read(1 << 20, 4096));
        let mut lengths = [0; 2];
        for DiskCompletion { id, outcome } in bench.finish() {
            let buffer = outcome.unwrap().unwrap();
            assert!(buffer.iter().all(|byte| *byte == 9));
            lengths[id.0 as usize - 2] = buffer.len();
        }
        assert_eq!(lengths, [4096, 0]);
    }

    #[test]
    fn a_read_uses_the_memory_that_it_was_given() {
        let mut bench = bench();
        bench.begin(1, File::Tree, write(9, 4, 0));
        bench.finish();
        let mut frame = AlignedBuffer::zeroed(4 * BLOCK_BYTES);
        frame.resize(2 * BLOCK_BYTES);
        let address = frame.as_ptr();
        bench.begin(2, File::Tree, DiskAction::Read { offset: BLOCK_BYTES as u64, buffer: frame });
        let [completion] = bench.finish().try_into().unwrap();
        let frame = completion.outcome.unwrap().unwrap();
        assert_eq!((frame.as_ptr(), frame.len()), (address, 2 * BLOCK_BYTES), "as much as was filled");
        assert!(frame.iter().all(|byte| *byte == 9));
    }

    #[test]
    fn a_file_that_does_not_exist_and_a_crooked_offset_are_faults() {
        let mut bench = bench();
        bench.begin(1, File::Segment(7), DiskAction::Flush);
        assert!(matches!(
            bench.disk.take_ended()[..],
            [DiskCompletion { outcome: Err(DiskFault::Os { .. }), .. }]
        ));
        bench.begin(2, File::Segment(0), write(1, 1, 17));
        let faults = bench.finish();
        assert!(matches!(
            faults[..],
            [DiskCompletion { outcome: Err(DiskFault::Os { errno: libc::EINVAL }), .. }]
        ));
    }

    #[test]
    fn a_buffer_registered_elsewhere_is_not_written_by_index() {
        let mut buffer = AlignedBuffer::with_capacity(4096);
        buffer.set_registered(0);
        let disk = Disk::new(None, &[]);
        assert_eq!(disk.index_of(&buffer), None);
        let known = [buffer];
        assert_eq!(Disk::new(None, &known).index_of(&known[0]), Some(0));
    }

    #[test]
    fn a_full_disk_has_a_fault_of_its_own() {
        assert_eq!(fault(libc::ENOSPC), DiskFault::Full);
        assert_eq!(fault(libc::EDQUOT), DiskFault::Full);
        assert_eq!(fault(libc::EIO), DiskFault::Os { errno: libc::EIO });
    }
}
