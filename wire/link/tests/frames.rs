//! Frames over real sockets, in every shape in which TCP can deliver them, in both directions.

mod common;

use common::{Client, Seen, echo, frame, hosting, listener, next, run, tell};
use evenkeel_link::{Placement, Polling, clock, start};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::PeerRole;
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::turn::{Boot, Endpoint, Input};
use std::io::Write;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

#[test]
fn pipelined_frames_are_answered_in_order() {
    let (listener, address) = listener();
    let _executor = run(vec![hosting("echo", listener, echo)]);
    let mut client = Client::greeted(address);
    let all: Vec<u8> = (0..10_000).flat_map(|request| frame(request, &request.to_le_bytes())).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let writing = thread::Builder::new().spawn(move || writer.write_all(&all).unwrap()).unwrap();
    for request in 0..10_000_u64 {
        let (header, body) = client.receive().unwrap();
        assert_eq!((header.request, &body[..]), (RequestId(request), &request.to_le_bytes()[..]));
    }
    writing.join().unwrap();
}

#[test]
fn a_frame_of_17_mib_comes_and_goes_in_pieces() {
    let (listener, address) = listener();
    let _executor = run(vec![hosting("echo", listener, echo)]);
    let mut client = Client::greeted(address);
    let body: Vec<u8> = (0..17 * 1024 * 1024_u32).map(|index| (index % 251) as u8).collect();
    let mut writer = client.stream.try_clone().unwrap();
    let sent = frame(1, &body);
    let writing = thread::Builder::new().spawn(move || writer.write_all(&sent).unwrap()).unwrap();
    let (header, answer) = client.receive().unwrap();
    assert_eq!(header.request, RequestId(1));
    assert!(answer == body);
    writing.join().unwrap();
    client.ping(2, b"and a small one behind it");
}

#[test]
fn frames_that_come_byte_by_byte_are_frames() {
    let (listener, address) = listener();
    let _executor = run(vec![hosting("echo", listener, echo)]);
    let mut client = Client::greeted(address);
    for byte in [frame(1, b"slowly"), frame(2, b"")].concat() {
        client.send(&[byte]);
    }
    assert_eq!(client.receive().unwrap().1, b"slowly");
    assert_eq!(client.receive().unwrap().0.request, RequestId(2));
}

#[test]
fn pieces_that_end_in_the_middle_of_a_header_or_a_body_are_put_together() {
    let (listener, address) = listener();
    let _executor = run(vec![hosting("echo", listener, echo)]);
    let mut client = Client::greeted(address);
    let bodies: Vec<Vec<u8>> = (0..40).map(|index| vec![index as u8; index * 311]).collect();
    let all: Vec<u8> =
        bodies.iter().enumerate().flat_map(|(index, body)| frame(index as u64, body)).collect();
    for (index, piece) in all.chunks(997).enumerate() {
        client.send(piece);
        if index % 7 == 0 {
            thread::yield_now();
        }
    }
    for body in &bodies {
        assert!(client.receive().unwrap().1 == *body);
    }
}

#[test]
fn many_connections_are_served_side_by_side() {
    let (listener, address) = listener();
    let polling = Polling::Auto;
    let _executor =
        start("test", Placement::Unpinned, polling, vec![hosting("echo", listener, echo)]).unwrap();
    let mut clients: Vec<Client> = (0..100).map(|_| Client::greeted(address)).collect();
    for round in 0..20 {
        for client in &mut clients {
            client.send(&frame(round, b"together"));
        }
        for client in &mut clients {
            assert_eq!(client.receive().unwrap().0.request, RequestId(round));
        }
    }
}

/// A machine that is told to by its first client asks an echo machine, and tells the client what came back.
fn ask_through_a_middle_man(on_one_executor: bool) {
    let (echo_listener, echo_address) = listener();
    let (listener, address) = listener();
    let server = Endpoint::Outgoing(echo_address);
    let mut client = None;
    let (sender, receiver) = channel();
    let middle = hosting("middle", listener, move |_, input, out, _| match input {
        Input::Frame { from, header, body } if from == server => {
            let answer = Header::new(Kind::GetAnswer, header.request);
            out.forward(client.unwrap(), answer, body, header.body_checksum);
        }
        Input::Frame { from, header, body } => {
            client = Some(from);
            out.forward(server, header, body, header.body_checksum);
        }
        other => tell(&sender, &other),
    });
    let echo = hosting("echo", echo_listener, echo);
    let (first, second) =
        if on_one_executor { (vec![middle, echo], vec![]) } else { (vec![middle], vec![echo]) };
    let _executors = (run(first), run(second));
    let mut client = Client::greeted(address);
    assert!(matches!(next(&receiver), Seen::Up(Endpoint::Incoming(_), PeerRole::Client)));
    for request in 0..200 {
        client.ping(request, &vec![request as u8; request as usize * 100]);
    }
    assert_eq!(next(&receiver), Seen::Up(server, PeerRole::Storage), "one link for all of it");
    client.send(&(0..200).flat_map(|request| frame(request, b"all at once")).collect::<Vec<u8>>());
    for request in 0..200 {
        assert_eq!(client.receive().unwrap().0.request, RequestId(request));
    }
    drop(client);
    assert!(matches!(next(&receiver), Seen::Down(Endpoint::Incoming(_))));
}

#[test]
fn machines_on_two_executors_speak_with_each_other() {
    ask_through_a_middle_man(false);
}

#[test]
fn machines_on_one_executor_speak_with_each_other() {
    ask_through_a_middle_man(true);
}

#[test]
fn the_time_of_a_turn_lies_between_a_frames_arrival_and_its_execution() {
    let (listener, address) = listener();
    let _executor = run(vec![hosting("clock", listener, |now, input, out, _| {
        if let Input::Frame { from, header, .. } = input {
            let read = clock::boot();
            out.outbox(from)
                .extend(frame(header.request.0, &[now.boot.0, read.0].map(u64::to_le_bytes).concat()));
        }
    })]);
    let mut client = Client::greeted(address);
    for request in 0..2000 {
        let sent = clock::boot();
        client.send(&frame(request, b""));
        let (_, body) = client.receive().unwrap();
        let turn = Boot(u64::from_le_bytes(body[..8].try_into().unwrap()));
        let executed = Boot(u64::from_le_bytes(body[8..].try_into().unwrap()));
        assert!(sent <= turn && turn <= executed, "sent {sent:?}, turn {turn:?}, executed {executed:?}");
    }
}

#[test]
fn a_machine_is_woken_when_it_wants_to_be_and_not_before() {
    let (listener, _) = listener();
    let (sender, receiver) = channel();
    let mut left = 3;
    let mut first = hosting("clock", listener, move |_, _, _, _| ());
    first.build = Box::new(move |_| {
        let step = move |now: evenkeel_wire::turn::Now,
                         input: Input<'_>,
                         _: &mut evenkeel_wire::turn::Effects,
                         wake_at: &mut Boot| {
            assert!(now.boot >= *wake_at);
            tell(&sender, &input);
            left -= 1;
            *wake_at = if left == 0 { Boot::NEVER } else { now.boot.after(Duration::from_millis(3)) };
        };
        Box::new(common::machine(step, Boot(0)))
    });
    let _executor = run(vec![first]);
    for _ in 0..3 {
        assert_eq!(next(&receiver), Seen::Wake);
    }
    assert!(receiver.recv_timeout(Duration::from_millis(50)).is_err(), "three times were asked for");
}
