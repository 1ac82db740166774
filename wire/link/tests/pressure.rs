//! Peers that do not read: what they can make a machine hold is bounded, and others do not notice.

mod common;

use common::{Client, Seen, echo, frame, hosting, listener, next, run, tell, wait_until};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::turn::{Endpoint, Input};
use std::io::{ErrorKind, Write};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

const MIB: usize = 1024 * 1024;

/// Writes as long as the other side takes it; returns how much that was.
fn write_until_stuck(client: &mut Client, bytes: &[u8]) -> usize {
    client.stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    let mut written = 0;
    while written < bytes.len() {
        match client.stream.write(&bytes[written..]) {
            Ok(more) => written += more,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return written,
            Err(error) => panic!("the connection broke: {error}"),
        }
    }
    panic!("all of {} bytes were taken from a client that reads nothing", bytes.len());
}

#[test]
fn a_client_that_does_not_read_is_not_read_from_and_loses_nothing() {
    let (listener, address) = listener();
    let _executor = run(vec![hosting("echo", listener, echo)]);
    let (mut stuck, mut neighbour) = (Client::greeted(address), Client::greeted(address));
    let requests = 3000_u64;
    let all: Vec<u8> = (0..requests).flat_map(|request| frame(request, &[8; 64 * 1024])).collect();
    let written = write_until_stuck(&mut stuck, &all);
    assert!(written < 80 * MIB, "{} MiB were taken", written / MIB);
    neighbour.ping(1, b"not my problem");
    let mut writer = stuck.stream.try_clone().unwrap();
    writer.set_write_timeout(Some(common::PATIENCE)).unwrap();
    let rest = all[written..].to_vec();
    let writing = thread::Builder::new().spawn(move || writer.write_all(&rest).unwrap()).unwrap();
    for request in 0..requests {
        assert_eq!(stuck.receive().unwrap().0.request, RequestId(request));
    }
    writing.join().unwrap();
    stuck.ping(requests, b"and on it goes");
}

#[test]
fn a_client_for_whom_too_much_waits_is_given_up() {
    let (listener, address) = listener();
    let (sender, receiver) = channel();
    // Each frame of any client makes the machine send 8 MiB to the first client.
    let mut first = None;
    let _executor = run(vec![hosting("flood", listener, move |_, input, out, _| {
        tell(&sender, &input);
        if let Input::Frame { header, .. } = input {
            out.outbox(first.unwrap()).extend(frame(header.request.0, &vec![1; 8 * MIB]));
        } else if let Input::Up { endpoint, .. } = input {
            first = first.or(Some(endpoint));
        }
    })]);
    let _reads_nothing = Client::greeted(address);
    let Seen::Up(victim, _) = next(&receiver) else { panic!("up first") };
    let mut driver = Client::greeted(address);
    let Seen::Up(..) = next(&receiver) else { panic!("up first") };
    for request in 0.. {
        driver.send(&frame(request, b""));
        match next(&receiver) {
            Seen::Frame(..) => assert!(request < 64, "it should have been given up"),
            other => {
                assert_eq!(other, Seen::Down(victim));
                break;
            }
        }
    }
}

#[test]
fn a_link_whose_peer_does_not_read_is_given_up() {
    let (deaf_listener, deaf) = listener();
    let (listener, address) = listener();
    let (sender, receiver) = channel();
    let deaf = Endpoint::Outgoing(deaf);
    let _executor = run(vec![hosting("flood", listener, move |_, input, out, _| {
        if let Input::Frame { header, .. } = input {
            out.outbox(deaf).extend(frame(header.request.0, &vec![1; 8 * MIB]));
        }
        tell(&sender, &input);
    })]);
    let (release, released) = channel::<()>();
    // A peer that connects, never greets and never reads: what is queued for it is bounded.
    let holding = thread::Builder::new()
        .spawn(move || {
            let _connection = deaf_listener.accept().unwrap();
            let _test_is_over = released.recv();
        })
        .unwrap();
    let mut driver = Client::greeted(address);
    let mut sent = 0_u64;
    let mut down = false;
    while !down {
        driver.send(&frame(sent, b""));
        sent += 1;
        // Up, frames of the driver, and at last the loss.
        while let Ok(seen) = receiver.recv_timeout(Duration::from_millis(20)) {
            down |= seen == Seen::Down(deaf);
        }
        assert!(sent < 64, "it should have been given up");
    }
    drop(release);
    holding.join().unwrap();
}

#[test]
fn memory_for_incomplete_frames_grows_with_what_has_come_not_with_what_was_announced() {
    let (listener, address) = listener();
    let _executor = run(vec![hosting("echo", listener, echo)]);
    let resident = || {
        let facts = std::fs::read_to_string("/proc/self/statm").unwrap();
        facts.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
    };
    let mut clients: Vec<Client> = (0..100).map(|_| Client::greeted(address)).collect();
    let whole = frame(1, &vec![2; 16 * MIB]);
    let before = resident();
    for client in &mut clients {
        client.send(&whole[..10_000]);
    }
    let mut witness = Client::greeted(address);
    witness.ping(1, b"all of that has been taken");
    assert!(resident() < before + 400 * MIB, "1600 MiB were announced and 1 MiB came");
    wait_until("the end of one of them", || clients.pop().is_none());
}
