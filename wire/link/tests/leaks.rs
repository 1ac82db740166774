//! Executors come and go without a trace. Alone in its file: it counts what belongs to the whole process.

mod common;

use common::{Client, echo, hosting, listener, run, wait_until};
use evenkeel_link::{CoreFiles, LogBuffers, create_core};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::limits::BLOCK_BYTES;
use evenkeel_wire::turn::{Endpoint, Input};
use std::fs;
use std::path::Path;

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn threads() -> usize {
    fs::read_dir("/proc/self/task").unwrap().count()
}

fn mappings() -> usize {
    fs::read_to_string("/proc/self/maps").unwrap().lines().count()
}

/// Starts two executors with machines that speak with each other, with clients, files and a link that fails,
/// and stops them in the middle of it.
fn one_life(core: &Path, round: usize) {
    let ((echo_listener, echo_address), (listener, address), vacant) = (listener(), listener(), listener().1);
    let mut middle = hosting("middle", listener, move |now, input, out, wake_at| {
        if let Input::Frame { from: Endpoint::Incoming(_), header, body } = input {
            out.forward(Endpoint::Outgoing(echo_address), header, body, header.body_checksum);
            out.send_empty(Endpoint::Outgoing(vacant), Kind::Status, RequestId(1));
            *wake_at = now.boot.after(std::time::Duration::from_secs(3600));
            echo(now, input, out, wake_at);
        }
    });
    middle.files = Some(CoreFiles::open(core, 1).unwrap());
    middle.log_buffers = Some(LogBuffers { count: 2, bytes: 65536 });
    let executors = [run(vec![middle]), run(vec![hosting("echo", echo_listener, echo)])];
    let mut clients: Vec<Client> = (0..3).map(|_| Client::greeted(address)).collect();
    clients.iter_mut().for_each(|client| client.ping(1, &[1; 10_000]));
    if round.is_multiple_of(2) {
        drop(clients);
    }
    executors.iter().for_each(evenkeel_link::Executor::stop);
    executors.into_iter().for_each(|executor| assert_eq!(executor.join().len(), 1));
}

#[test]
fn starting_and_stopping_leaves_no_descriptor_thread_or_mapping_behind() {
    let folder = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
    let core = folder.path().join("core");
    let superblock = AlignedBuffer::copy_of(&[1; BLOCK_BYTES]);
    create_core(&core, 1, 65536, &superblock, 0, &mut |_| ()).unwrap();
    // The first lives make what a process makes once.
    (0..3).for_each(|round| one_life(&core, round));
    let (open, running, mapped) = (descriptors(), threads(), mappings());
    (0..40).for_each(|round| one_life(&core, round));
    wait_until("the closing of all descriptors", || descriptors() <= open);
    // The watchdog and glommio's helper threads end a moment after the executors.
    wait_until("the end of all threads", || threads() <= running.min(4));
    // Each life maps some 30 ranges; the allocator's own come and go.
    assert!(mappings() < mapped + 60, "{} mappings became {}", mapped, mappings());
}
