//! A machine that uses files, on a real file system.

mod common;

use common::{PATIENCE, hosting, listener, machine, run};
use evenkeel_link::{CoreFiles, Hosting, LogBuffers, Outcome, create_core};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::{
    Boot, DiskAction, DiskCompletion, DiskOperation, Effects, File, Input, Now, OperationId,
};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};

const SEGMENT_BYTES: u64 = 1024 * 1024;

fn files(folder: &Path) -> CoreFiles {
    let core = folder.join("core");
    let superblock = AlignedBuffer::copy_of(&[1; BLOCK_BYTES]);
    create_core(&core, 2, SEGMENT_BYTES, &superblock, 0, &mut |_| ()).unwrap();
    CoreFiles::open(&core, 2).unwrap()
}

/// A folder on the disk that holds the sources: the one for temporary files may lie in memory.
fn folder() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap()
}

type Buffers = Vec<AlignedBuffer>;

/// Hosts a machine that performs `first` when it is woken, and then whatever `next` makes of each completion.
fn disk_machine(
    folder: &Path,
    buffers: LogBuffers,
    first: impl FnOnce(&mut Buffers) -> Vec<DiskOperation> + Send + 'static,
    mut next: impl FnMut(DiskCompletion) -> Vec<DiskOperation> + Send + 'static,
) -> Hosting {
    let mut hosting = hosting("disk", listener().0, |_: Now, _: Input<'_>, _: &mut Effects, _: &mut Boot| ());
    hosting.files = Some(files(folder));
    hosting.log_buffers = Some(buffers);
    hosting.build = Box::new(move |mut buffers| {
        let mut first = Some(first);
        let step = move |_: Now, input: Input<'_>, out: &mut Effects, wake_at: &mut Boot| {
            *wake_at = Boot::NEVER;
            match input {
                Input::Wake => {
                    out.disk.extend(first.take().map(|first| first(&mut buffers)).unwrap_or_default());
                }
                Input::Disk(completion) => out.disk.extend(next(completion)),
                Input::Frame { .. } | Input::Up { .. } | Input::Down { .. } | Input::Drain => {}
            }
        };
        Box::new(machine(step, Boot(0)))
    });
    hosting
}

fn operation(id: u64, file: File, action: DiskAction) -> DiskOperation {
    DiskOperation { id: OperationId(id), file, action }
}

fn write_all(buffers: &mut Buffers, bytes: u8, durable: bool) -> Vec<DiskOperation> {
    let mut offset = 0;
    let writes = buffers.drain(..).map(|mut buffer| {
        let capacity = buffer.capacity();
        buffer.resize(capacity);
        buffer.fill(bytes);
        let at = offset;
        offset += capacity as u64;
        operation(at, File::Segment(1), DiskAction::Write { offset: at, buffer, durable })
    });
    writes.collect()
}

fn finished(receiver: &Receiver<DiskCompletion>) -> AlignedBuffer {
    receiver.recv_timeout(PATIENCE).expect("a completion").outcome.expect("success").expect("a buffer")
}

fn forward(sender: &Sender<DiskCompletion>, completion: DiskCompletion) {
    let _test_is_over = sender.send(completion);
}

#[test]
fn durable_writes_from_registered_buffers_come_back_and_can_be_read() {
    let (folder, (sender, receiver)) = (folder(), channel());
    let buffers = LogBuffers { count: 4, bytes: 64 * 1024 };
    let hosted = disk_machine(
        folder.path(),
        buffers,
        |buffers| {
            assert!(
                buffers.iter().all(|buffer| buffer.registered().is_some()),
                "this host can register 256 KiB"
            );
            write_all(buffers, 0xa5, true)
        },
        move |completion| {
            forward(&sender, completion);
            Vec::new()
        },
    );
    let executor = run(vec![hosted]);
    for _ in 0..4 {
        let buffer = finished(&receiver);
        assert_eq!((buffer.capacity(), buffer.len()), (64 * 1024, 64 * 1024));
    }
    executor.stop();
    assert_eq!(executor.join()[0].outcome, Outcome::Stopped);
    let segment = fs::read(folder.path().join("core/log-0001")).unwrap();
    assert!(segment[..256 * 1024].iter().all(|byte| *byte == 0xa5));
    assert!(segment[256 * 1024..].iter().all(|byte| *byte == 0));
}

#[test]
fn write_flush_and_read_in_one_turn_each_tell_their_outcome() {
    let (folder, (sender, receiver)) = (folder(), channel());
    let first = |_: &mut Buffers| {
        let buffer = AlignedBuffer::copy_of(&[3; 2 * BLOCK_BYTES]);
        vec![
            operation(1, File::Checkpoint(0), DiskAction::Write { offset: 0, buffer, durable: false }),
            operation(2, File::Checkpoint(0), DiskAction::Flush),
        ]
    };
    let buffers = LogBuffers { count: 0, bytes: 0 };
    let hosted = disk_machine(folder.path(), buffers, first, move |completion| {
        let id = completion.id.0;
        forward(&sender, completion);
        let buffer = AlignedBuffer::zeroed(1024 * 1024);
        let read = DiskAction::Read { offset: BLOCK_BYTES as u64, buffer };
        if id == 2 { vec![operation(3, File::Checkpoint(0), read)] } else { Vec::new() }
    });
    let _executor = run(vec![hosted]);
    let (write, flush) = (receiver.recv_timeout(PATIENCE).unwrap(), receiver.recv_timeout(PATIENCE).unwrap());
    assert_eq!((write.id.0, write.outcome.unwrap().unwrap().len()), (1, 2 * BLOCK_BYTES));
    assert!(flush.id.0 == 2 && flush.outcome.unwrap().is_none());
    let read = finished(&receiver);
    assert_eq!((read.len(), read[0]), (BLOCK_BYTES, 3));
}

#[test]
fn buffers_that_cannot_be_registered_are_used_all_the_same() {
    let (folder, (sender, receiver)) = (folder(), channel());
    // More than one ring may register.
    let buffers = LogBuffers { count: 20_000, bytes: BLOCK_BYTES };
    let hosted = disk_machine(
        folder.path(),
        buffers,
        |buffers| {
            assert!(buffers.iter().all(|buffer| buffer.registered().is_none()));
            buffers.truncate(3);
            write_all(buffers, 0x5a, true)
        },
        move |completion| {
            forward(&sender, completion);
            Vec::new()
        },
    );
    let _executor = run(vec![hosted]);
    for _ in 0..3 {
        assert_eq!(finished(&receiver).len(), BLOCK_BYTES);
    }
}

#[test]
fn a_stop_waits_for_what_is_in_flight_and_unlocks_the_folder() {
    for round in 0..10 {
        let folder = folder();
        let buffers = LogBuffers { count: 4, bytes: 256 * 1024 };
        let (sender, receiver) = channel();
        let hosted = disk_machine(
            folder.path(),
            buffers,
            move |buffers| {
                let _test_is_over = sender.send(());
                write_all(buffers, round, true)
            },
            |_| Vec::new(),
        );
        let executor = run(vec![hosted]);
        receiver.recv_timeout(PATIENCE).unwrap();
        executor.stop();
        assert_eq!(executor.join()[0].outcome, Outcome::Stopped);
        CoreFiles::open(&folder.path().join("core"), 2).expect("nobody holds the folder any more");
    }
}

#[test]
fn no_file_of_a_core_has_a_cache_between() {
    let folder = folder();
    let hosted =
        disk_machine(folder.path(), LogBuffers { count: 1, bytes: 4096 }, |_| Vec::new(), |_| Vec::new());
    let _executor = run(vec![hosted]);
    let core = folder.path().join("core");
    let mut seen = 0;
    for entry in fs::read_dir("/proc/self/fd").unwrap().flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        if !target.starts_with(&core) || target == core {
            continue;
        }
        let facts = fs::read_to_string(Path::new("/proc/self/fdinfo").join(entry.file_name())).unwrap();
        let flags = facts.lines().find_map(|line| line.strip_prefix("flags:")).unwrap().trim();
        let direct = i32::from_str_radix(flags, 8).unwrap() & libc_o_direct();
        assert_ne!(direct, 0, "{}", target.display());
        seen += 1;
    }
    assert_eq!(seen, 6, "superblock, two segments, two checkpoints, tree");
}

/// O_DIRECT on this machine, found out rather than named: what an open file of a core has and others have
/// not.
fn libc_o_direct() -> i32 {
    let plain = fs::File::open("/dev/null").unwrap();
    let facts = fs::read_to_string(format!("/proc/self/fdinfo/{}", plain.as_raw_fd())).unwrap();
    assert!(facts.contains("flags:"));
    if cfg!(any(target_arch = "aarch64", target_arch = "arm")) { 0o200_000 } else { 0o40_000 }
}
