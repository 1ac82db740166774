//! Links that a machine opens: when they fail, when they come back, and what it is told.

mod common;

use common::{Client, Seen, echo, frame, hosting, identity, listener, next, run, tell, wait_until};
use evenkeel_link::Hosting;
use evenkeel_wire::frame::Kind;
use evenkeel_wire::handshake::{Identity, PeerRole};
use evenkeel_wire::ids::{Incarnation, RequestId};
use evenkeel_wire::turn::{Endpoint, Input};
use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// A machine that sends what its clients send on to `peer`, tells the test everything about `peer`, and
/// answers its clients only when told to by nobody: the test looks at what it sees.
fn relay(listener: TcpListener, peer: SocketAddr) -> (Hosting, Receiver<Seen>) {
    let (sender, receiver) = channel();
    let peer = Endpoint::Outgoing(peer);
    let relay = hosting("relay", listener, move |_, input, out, _| match input {
        Input::Frame { from: Endpoint::Incoming(_), header, body } => {
            out.forward(peer, header, body, header.body_checksum);
        }
        Input::Up { endpoint: Endpoint::Incoming(_), .. }
        | Input::Down { endpoint: Endpoint::Incoming(_) } => {}
        other => tell(&sender, &other),
    });
    (relay, receiver)
}

/// An address at which nobody listens, for now.
fn vacant() -> SocketAddr {
    listener().1
}

#[test]
fn a_link_that_cannot_be_opened_is_down_and_can_be_opened_later() {
    let peer = vacant();
    let (listener, address) = listener();
    let (relay, seen) = relay(listener, peer);
    let _executor = run(vec![relay]);
    let mut client = Client::greeted(address);
    client.send(&frame(1, b"to nobody"));
    assert_eq!(next(&seen), Seen::Down(Endpoint::Outgoing(peer)));
    let _echo = run(vec![hosting("echo", TcpListener::bind(peer).unwrap(), echo)]);
    let mut request = 2;
    // Until the pause is over, each attempt is answered with one Down.
    loop {
        client.send(&frame(request, b"again"));
        match next(&seen) {
            Seen::Down(_) => request += 1,
            other => {
                assert_eq!(other, Seen::Up(Endpoint::Outgoing(peer), PeerRole::Storage));
                break;
            }
        }
    }
    let expected =
        Seen::Frame(Endpoint::Outgoing(peer), Kind::GetAnswer, RequestId(request), b"again".to_vec());
    assert_eq!(next(&seen), expected);
}

#[test]
fn everything_that_was_sent_while_a_link_opened_arrives_in_order() {
    let (peer_listener, peer) = listener();
    let (listener, address) = listener();
    let (relay, seen) = relay(listener, peer);
    let _executor = run(vec![relay]);
    let mut client = Client::greeted(address);
    client.send(&(0..50).flat_map(|request| frame(request, &[3; 5000])).collect::<Vec<u8>>());
    // Somebody has connected, but nobody greets yet.
    wait_until("the link's connection", || peer_listener.accept().is_ok());
    client.send(&frame(50, b"late"));
    let _echo = run(vec![hosting("echo", peer_listener, echo)]);
    // The first connection was taken by this test and is gone: the machine hears of that, and asks once more.
    assert_eq!(next(&seen), Seen::Down(Endpoint::Outgoing(peer)));
    let mut request = 100;
    loop {
        client.send(
            &(request..request + 50).flat_map(|request| frame(request, &[3; 5000])).collect::<Vec<u8>>(),
        );
        if let Seen::Up(..) = next(&seen) {
            break;
        }
        request += 50;
    }
    let Seen::Frame(_, _, first, _) = next(&seen) else { panic!("answers") };
    for expected in first.0 + 1..request + 50 {
        let Seen::Frame(_, Kind::GetAnswer, got, body) = next(&seen) else { panic!("answers") };
        assert_eq!((got, body.len()), (RequestId(expected), 5000));
    }
}

#[test]
fn a_link_that_breaks_is_down_once_and_is_opened_again() {
    let (peer_listener, peer) = listener();
    let (listener, address) = listener();
    let (relay, seen) = relay(listener, peer);
    let _executor = run(vec![relay]);
    let mut client = Client::greeted(address);
    for round in 0..3 {
        let echo = run(vec![hosting("echo", peer_listener.try_clone().unwrap(), echo)]);
        let mut request = round * 1000;
        loop {
            client.send(&frame(request, b"hello"));
            if next(&seen) == Seen::Up(Endpoint::Outgoing(peer), PeerRole::Storage) {
                break;
            }
            request += 1;
        }
        assert!(matches!(next(&seen), Seen::Frame(_, Kind::GetAnswer, got, _) if got == RequestId(request)));
        echo.stop();
        let _ended = echo.join();
        assert_eq!(next(&seen), Seen::Down(Endpoint::Outgoing(peer)));
        assert!(seen.recv_timeout(Duration::from_millis(30)).is_err(), "one Down for one loss");
    }
}

#[test]
fn a_peer_of_another_cluster_is_down_and_gets_no_frame() {
    let (peer_listener, peer) = listener();
    let (listener, address) = listener();
    let (sender, strange) = channel();
    let mut stranger = hosting("stranger", peer_listener, move |_, input, _, _| tell(&sender, &input));
    stranger.identity = Identity { cluster: Incarnation([1; 16]), ..identity(PeerRole::Storage) };
    let (relay, seen) = relay(listener, peer);
    let _executors = (run(vec![stranger]), run(vec![relay]));
    let mut client = Client::greeted(address);
    client.send(&frame(1, b"secret"));
    assert_eq!(next(&seen), Seen::Down(Endpoint::Outgoing(peer)));
    assert!(strange.recv_timeout(Duration::from_millis(30)).is_err());
}

#[test]
fn a_peer_that_never_answers_our_greeting_is_down() {
    let (peer_listener, peer) = listener();
    let (listener, address) = listener();
    let (relay, seen) = relay(listener, peer);
    let _executor = run(vec![relay]);
    let mut client = Client::greeted(address);
    client.send(&frame(1, b"anybody there?"));
    let (mut silent, _) = peer_listener.accept().unwrap();
    let mut greeting = [0; 64];
    silent.read_exact(&mut greeting).unwrap();
    assert_eq!(next(&seen), Seen::Down(Endpoint::Outgoing(peer)));
}

#[test]
fn a_link_is_closed_by_its_machine_behind_its_last_words() {
    let (peer_listener, peer) = listener();
    let (listener, address) = listener();
    let peer = Endpoint::Outgoing(peer);
    let (sender, receiver) = channel();
    let (echo_sender, echo_receiver) = channel();
    let witness = hosting("witness", peer_listener, move |_, input, _, _| tell(&echo_sender, &input));
    let closer = hosting("closer", listener, move |_, input, out, _| match input {
        Input::Frame { from, header, body } => {
            out.forward(peer, header, body, header.body_checksum);
            out.close.extend([peer, from]);
        }
        other => tell(&sender, &other),
    });
    let _executors = (run(vec![witness]), run(vec![closer]));
    let mut client = Client::greeted(address);
    let Seen::Up(incoming, _) = next(&receiver) else { panic!("up first") };
    client.send(&frame(1, b"last words"));
    assert_eq!(client.receive(), None, "this connection was closed too");
    assert_eq!(next(&receiver), Seen::Down(incoming));
    assert_eq!(next(&receiver), Seen::Up(peer, PeerRole::Storage));
    assert_eq!(next(&receiver), Seen::Down(peer));
    let Seen::Up(from, _) = next(&echo_receiver) else { panic!("up first") };
    assert_eq!(next(&echo_receiver), Seen::Frame(from, Kind::Get, RequestId(1), b"last words".to_vec()));
    assert_eq!(next(&echo_receiver), Seen::Down(from));
}

#[test]
fn ids_of_connections_are_never_used_again() {
    let (listener, address) = listener();
    let (sender, receiver) = channel();
    let _executor = run(vec![hosting("witness", listener, move |_, input, _, _| tell(&sender, &input))]);
    let mut ids = Vec::new();
    for _ in 0..20 {
        drop(Client::greeted(address));
        let Seen::Up(endpoint, _) = next(&receiver) else { panic!("up first") };
        assert_eq!(next(&receiver), Seen::Down(endpoint));
        assert!(!ids.contains(&endpoint));
        ids.push(endpoint);
        thread::yield_now();
    }
}
