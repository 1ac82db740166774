//! Connections that go wrong from their beginning, or carry something else than was asked for, with both
//! clients.

mod harness;

use evenkeel_client::protocol::operation::get::Get;
use evenkeel_client::{Client, Error, ProtocolError};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::frame::{FrameError, Kind};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::message::request::GetAnswer;
use harness::{Greeting, Reply, SERVER_MS, Seen, Server, TestShell, in_turn, key, position, table};
use std::time::Duration;

on_both_clients! {
    a_refused_version_is_told_with_the_servers_words
    another_service_is_recognised
    a_server_that_closes_at_once_cannot_be_connected_to
    a_server_that_never_greets_is_given_up
    a_server_without_room_is_tried_again
    a_server_that_cannot_read_us_says_so
    an_answer_that_was_not_asked_for_is_no_answer
    answers_may_come_in_small_pieces
    a_connection_that_closes_while_idle_is_replaced
}

fn get() -> Get {
    Get::new("t", key("a"), true)
}

fn absent(seen: &Seen) -> Vec<Reply> {
    vec![seen.answer(&GetAnswer { position: position(), item: None })]
}

fn greeting_only(greeting: Greeting) -> Server {
    Server::greeting(vec![], move |_| greeting.clone(), |_| None)
}

fn a_refused_version_is_told_with_the_servers_words<S: TestShell>() {
    let problem = Problem::new(ErrorCode::UnsupportedVersion, "this build speaks version 2 and 3");
    let server = greeting_only(Greeting::Refuse(problem));
    let error = S::connect(server.builder()).err().expect("the versions differ");
    assert_eq!(error.code(), Some(ErrorCode::UnsupportedVersion));
    assert!(error.to_string().contains("speaks version 2 and 3"), "{error}");
}

fn another_service_is_recognised<S: TestShell>() {
    let page = b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<html></html>";
    let server = greeting_only(Greeting::Send(page.to_vec()));
    let error = S::connect(server.builder()).err().expect("that is no router");
    let expected = ProtocolError::Frame(FrameError::Magic { got: *b"HTTP" });
    assert!(matches!(&error, Error::Protocol(got) if *got == expected), "{error:?}");
}

fn a_server_that_closes_at_once_cannot_be_connected_to<S: TestShell>() {
    let server = greeting_only(Greeting::Close);
    let error = S::connect(server.builder()).err().expect("nobody greets");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

fn a_server_that_never_greets_is_given_up<S: TestShell>() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let endpoint = server.local_addr().expect("an address").to_string();
    let builder = Client::builder().endpoint(endpoint).connect_timeout(Duration::from_millis(20));
    let error = S::connect(builder).err().expect("nobody greets");
    assert!(matches!(error, Error::Connect { .. }), "{error:?}");
}

fn a_server_without_room_is_tried_again<S: TestShell>() {
    let full = || Greeting::Refuse(Problem::new(ErrorCode::Overloaded, "4096 connections are open"));
    let server = Server::greeting(
        vec![table(1, "t")],
        move |connection| if connection == 1 { full() } else { Greeting::Welcome(SERVER_MS) },
        in_turn(Kind::Get, vec![Box::new(|_| vec![Reply::Close]), Box::new(absent)]),
    );
    let client = S::connect(server.builder()).expect("a connection");
    assert_eq!(client.run(get()).expect("answered").item, None);
    assert_eq!(server.seen(&[Kind::Get])[1].connection, 2);
}

fn a_server_that_cannot_read_us_says_so<S: TestShell>() {
    let complaint = |code| {
        move |_: &Seen| {
            let mut out = Vec::new();
            let problem = Problem::new(code, "the frame makes no sense");
            evenkeel_wire::handshake::refuse(&problem, RequestId(0), &mut out);
            vec![Reply::Send(out), Reply::Close]
        }
    };
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Get,
            vec![
                Box::new(complaint(ErrorCode::ChecksumMismatch)),
                Box::new(complaint(ErrorCode::UnknownKind)),
            ],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(get()).expect_err("the server does not know gets");
    let Error::Protocol(ProtocolError::Complaint(problem)) = &error else {
        panic!("{error:?}");
    };
    assert_eq!(problem.code, ErrorCode::UnknownKind);
    assert_eq!(server.seen(&[Kind::Get]).len(), 2, "what was damaged on its way is sent again");
}

fn an_answer_that_was_not_asked_for_is_no_answer<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Get,
            vec![Box::new(|seen| {
                let other = RequestId(seen.header.request.0 + 1);
                vec![Reply::Send(harness::frame(Kind::GetAnswer, other, b""))]
            })],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    let error = client.run(get()).expect_err("nobody asked that");
    assert!(matches!(error, Error::Protocol(ProtocolError::NotAsked { .. })), "{error:?}");
}

fn answers_may_come_in_small_pieces<S: TestShell>() {
    let server = Server::start(
        vec![table(1, "t")],
        in_turn(
            Kind::Get,
            vec![Box::new(|seen| {
                let Some(Reply::Send(bytes)) = absent(seen).pop() else { unreachable!("an answer") };
                bytes.chunks(1).map(|byte| Reply::Send(byte.to_vec())).collect()
            })],
        ),
    );
    let client = S::connect(server.builder()).expect("a connection");
    for _ in 0..3 {
        assert_eq!(client.run(get()).expect("answered").item, None);
    }
}

fn a_connection_that_closes_while_idle_is_replaced<S: TestShell>() {
    let server = Server::start(vec![table(1, "t")], in_turn(Kind::Get, vec![Box::new(absent)]));
    let client = S::connect(server.builder()).expect("a connection");
    client.run(get()).expect("answered");
    server.send(0, &Reply::Close);
    server.wait_until_deserted();
    client.run(get()).expect("answered");
    assert_eq!(server.seen(&[Kind::Get]).last().expect("a get").connection, 1);
}
