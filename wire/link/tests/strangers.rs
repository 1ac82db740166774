//! Peers that do not speak as they should: each costs its own connection, is told why, and nobody else
//! notices.

mod common;

use common::{Client, Seen, echo, frame, hosting, identity, listener, next, run, tell};
use evenkeel_link::Executor;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{HEADER_BYTES, Header, Kind};
use evenkeel_wire::handshake::{Identity, PeerRole, greet};
use evenkeel_wire::ids::{Incarnation, RequestId};
use evenkeel_wire::limits::FRAME_BODY_BYTES_MAX;
use evenkeel_wire::message::access;
use std::io::{ErrorKind, Write};
use std::net::{Shutdown, SocketAddr};
use std::sync::mpsc::channel;
use std::time::Duration;

fn echo_server() -> (Executor, SocketAddr) {
    let (listener, address) = listener();
    (run(vec![hosting("echo", listener, echo)]), address)
}

/// Expects one error frame, and then the end.
fn expect_refusal(client: &mut Client) -> Problem {
    let (header, body) = client.receive().expect("an error before the end");
    assert_eq!(header.kind, Kind::Error);
    let problem = Problem::from(access::<ErrorAnswer>(&body).unwrap());
    assert_eq!(client.receive(), None, "one error, then the end");
    problem
}

/// Sends `bytes` on a connection that is up, beside a neighbour that must not notice.
fn check_damage(bytes: &[u8], expected: ErrorCode) {
    let (_executor, address) = echo_server();
    let (mut neighbour, mut stranger) = (Client::greeted(address), Client::greeted(address));
    neighbour.ping(1, b"before");
    stranger.ping(2, b"still in order");
    stranger.send(bytes);
    neighbour.ping(3, b"during");
    assert_eq!(expect_refusal(&mut stranger).code, expected);
    neighbour.ping(4, b"after");
    Client::greeted(address).ping(5, b"and a new one");
}

#[test]
fn bytes_that_are_no_frame_cost_only_their_connection() {
    check_damage(&[b'x'; 4096], ErrorCode::Malformed);
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a-browser\r\nAccept: */*\r\n\r\n";
    check_damage(http, ErrorCode::Malformed);
}

#[test]
fn a_frame_of_another_version_costs_only_its_connection() {
    let mut bytes = frame(9, b"newer");
    bytes[4] = 200;
    check_damage(&bytes, ErrorCode::UnsupportedVersion);
}

#[test]
fn a_damaged_header_or_body_costs_only_its_connection() {
    for place in [20, HEADER_BYTES + 2] {
        let mut bytes = frame(9, b"damaged");
        bytes[place] ^= 1;
        check_damage(&bytes, ErrorCode::ChecksumMismatch);
    }
}

#[test]
fn an_announced_length_above_the_bound_is_refused_before_its_body_comes() {
    let body_bytes = FRAME_BODY_BYTES_MAX as u32 + 1;
    let header = Header { body_bytes, ..Header::new(Kind::Put, RequestId(1)) };
    check_damage(&header.encode(), ErrorCode::FrameTooLarge);
}

#[test]
fn a_truncated_frame_ends_with_its_connection_and_is_never_executed() {
    let (listener, address) = listener();
    let (sender, receiver) = channel();
    let _executor = run(vec![hosting("witness", listener, move |_, input, _, _| tell(&sender, &input))]);
    let mut client = Client::greeted(address);
    let bytes = frame(1, &[5; 20_000]);
    client.send(&bytes[..bytes.len() - 1]);
    drop(client);
    assert!(matches!(next(&receiver), Seen::Up(..)));
    assert!(matches!(next(&receiver), Seen::Down(..)));
}

#[test]
fn a_stranger_who_sends_megabytes_of_garbage_still_reads_why_he_must_go() {
    let (_executor, address) = echo_server();
    let mut client = Client::connect(address);
    client.send(&vec![b'z'; 8 * 1024 * 1024]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(expect_refusal(&mut client).code, ErrorCode::Malformed);
}

#[test]
fn a_peer_that_hangs_up_behind_its_garbage_still_reads_why() {
    let (_executor, address) = echo_server();
    let mut client = Client::connect(address);
    client.send(&[b'z'; 64]);
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(expect_refusal(&mut client).code, ErrorCode::Malformed);
}

#[test]
fn a_stranger_gets_no_buffer_before_his_greeting() {
    let (_executor, address) = echo_server();
    let mut client = Client::connect(address);
    client.send(&frame(1, &[0; 2048]));
    assert_eq!(expect_refusal(&mut client).code, ErrorCode::FrameTooLarge);
}

#[test]
fn a_first_frame_that_is_no_hello_is_refused() {
    let (_executor, address) = echo_server();
    let mut client = Client::connect(address);
    client.send(&frame(1, b"no greeting"));
    assert_eq!(expect_refusal(&mut client).code, ErrorCode::HandshakeRefused);
}

#[test]
fn another_cluster_is_refused_and_the_machine_never_hears_of_it() {
    let (listener, address) = listener();
    let (sender, receiver) = channel();
    let _executor = run(vec![hosting("witness", listener, move |_, input, _, _| tell(&sender, &input))]);
    let mut client = Client::connect(address);
    let mut hello = Vec::new();
    let other = Identity { cluster: Incarnation([9; 16]), ..identity(PeerRole::Storage) };
    greet(&other, &mut hello);
    client.send(&[hello, frame(1, b"and a frame at once")].concat());
    assert_eq!(expect_refusal(&mut client).code, ErrorCode::HandshakeRefused);
    drop(Client::greeted(address));
    assert!(matches!(next(&receiver), Seen::Up(..)), "the first that it hears is the second connection");
}

#[test]
fn frames_right_behind_the_hello_are_executed_after_up() {
    let (listener, address) = listener();
    let (sender, receiver) = channel();
    let _executor = run(vec![hosting("witness", listener, move |_, input, _, _| tell(&sender, &input))]);
    let mut client = Client::connect(address);
    let mut hello = Vec::new();
    greet(&identity(PeerRole::Router), &mut hello);
    client.send(&[hello, frame(1, &[1; 3000]), frame(2, b"")].concat());
    let Seen::Up(endpoint, PeerRole::Router) = next(&receiver) else { panic!("up first") };
    assert_eq!(next(&receiver), Seen::Frame(endpoint, Kind::Get, RequestId(1), vec![1; 3000]));
    assert_eq!(next(&receiver), Seen::Frame(endpoint, Kind::Get, RequestId(2), vec![]));
}

#[test]
fn a_stranger_who_says_nothing_is_told_to_go() {
    let (_executor, address) = echo_server();
    let mut client = Client::connect(address);
    assert_eq!(expect_refusal(&mut client).code, ErrorCode::HandshakeRefused);
}

#[test]
fn a_stranger_who_never_stops_sending_is_cut_off() {
    let (_executor, address) = echo_server();
    let mut client = Client::connect(address);
    client.stream.set_write_timeout(Some(Duration::from_secs(60))).unwrap();
    let garbage = vec![b'z'; 1024 * 1024];
    let mut sent = 0;
    let end = loop {
        match client.stream.write(&garbage) {
            Ok(bytes) => sent += bytes,
            Err(error) => break error.kind(),
        }
        assert!(sent < 1024 * 1024 * 1024, "nobody reads that much");
    };
    assert!(matches!(end, ErrorKind::ConnectionReset | ErrorKind::BrokenPipe), "{end:?}");
}
