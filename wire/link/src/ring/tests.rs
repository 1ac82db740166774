//! The ring against the kernel: memory comes back, timers fire, a drop waits.

use super::*;
use crate::clock;
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn ring() -> Ring {
    Ring::new(Arc::new(Signal::new().unwrap())).unwrap()
}

/// Waits for completions, one at least.
fn wait(ring: &mut Ring) -> Vec<Completion> {
    let mut taken = Vec::new();
    while taken.is_empty() {
        ring.enter().unwrap();
        ring.take(64, &mut taken);
    }
    taken
}

#[test]
fn this_kernel_knows_every_operation() {
    assert_eq!(ring().check_operations(), Ok(()));
}

#[test]
fn a_send_gives_its_memory_back_and_received_bytes_lie_in_the_rings_buffers() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let server = listener.accept().unwrap().0;
    ring.send(1, &client, b"hello, ring".to_vec(), 0..5);
    ring.receive(2, &server);
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.extend(wait(&mut ring));
    }
    for completion in seen {
        match (completion.token, completion.payload) {
            (Token::Socket(SocketToken::Send(1)), Payload::Bytes(bytes)) => {
                assert_eq!((bytes.len(), completion.result), (11, Ok(5)));
            }
            (Token::Socket(SocketToken::Receive(2)), Payload::Received(received)) => {
                assert_eq!(ring.received(&received), b"hello");
                assert!(!completion.last, "receiving goes on");
                ring.give_back(received);
            }
            other => panic!("not asked for: {other:?}"),
        }
    }
}

#[test]
fn more_operations_than_the_queue_holds_are_all_submitted() {
    let mut ring = ring();
    let file = tempfile::tempfile().unwrap();
    let operations = 3 * SUBMISSION_ENTRIES;
    (0..operations).for_each(|place| ring.flush(place, &file));
    let mut seen = Vec::new();
    while seen.len() < operations as usize {
        seen.extend(wait(&mut ring));
    }
    assert!(seen.iter().all(|completion| completion.result == Ok(0)) && ring.is_quiet());
}

#[test]
fn an_earlier_time_replaces_a_later_one_and_raises_the_signal() {
    let mut ring = ring();
    ring.wake_at(clock::boot().after(Duration::from_secs(3600)));
    ring.enter().unwrap();
    ring.wake_at(clock::boot().after(Duration::from_millis(1)));
    while ring.timer.is_some() {
        ring.enter().unwrap();
        ring.take(64, &mut Vec::new());
    }
    ring.enter().unwrap();
    ring.take(64, &mut Vec::new());
    assert!(ring.is_quiet());
}

#[test]
fn a_dropped_ring_waits_for_what_is_in_flight() {
    let mut ring = ring();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    ring.accept(&listener);
    ring.receive(0, &client);
    ring.wake_at(clock::boot().after(Duration::from_secs(3600)));
    ring.enter().unwrap();
    drop(ring);
}

#[test]
fn registered_buffers_know_their_index() {
    let mut ring = ring();
    let mut buffers: Vec<AlignedBuffer> = (0..2).map(|_| AlignedBuffer::with_capacity(8192)).collect();
    ring.register(&mut buffers).unwrap();
    assert_eq!(buffers[1].registered(), Some(1));
}

#[test]
fn a_sleep_ends_when_its_time_is_over_something_completes_or_the_signal_is_raised() {
    let signal = Arc::new(Signal::new().unwrap());
    let mut ring = Ring::new(Arc::clone(&signal)).unwrap();
    ring.watch_signal();
    let before = clock::boot();
    ring.sleep(Some(Duration::from_millis(20))).unwrap();
    assert!(clock::boot().since(before) >= Duration::from_millis(20) && !ring.take_raised());
    for _ in 0..3 {
        signal.raise();
        let mut taken = Vec::new();
        while !ring.take_raised() {
            ring.sleep(None).unwrap();
            ring.take(64, &mut taken);
        }
        assert!(taken.is_empty(), "a raised signal is nobody's completion");
        signal.clear();
    }
    let file = tempfile::tempfile().unwrap();
    ring.flush(7, &file);
    let mut taken = Vec::new();
    while taken.is_empty() {
        ring.sleep(None).unwrap();
        ring.take(64, &mut taken);
    }
    assert_eq!(taken[0].token, Token::Disk(7));
    ring.disarm();
    while !ring.is_quiet() {
        ring.sleep(None).unwrap();
        ring.take(64, &mut taken);
    }
}
