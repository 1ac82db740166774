//! The network at its bounds, which real peers would take long to reach.

use super::*;
use crate::clock;
use crate::limits::{FRAMES_PER_CONNECTION_MAX, FRAMES_PER_TURN_MAX, HELD_BYTES_MAX};
use crate::ring::Token;
use crate::signal::Signal;
use evenkeel_wire::error::ErrorAnswer;
use evenkeel_wire::frame::{BodyLimit, HEADER_BYTES, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{Peer, PeerRole, greet};
use evenkeel_wire::ids::{Incarnation, RequestId};
use evenkeel_wire::message::access;
use evenkeel_wire::turn::{Effects, Machine, Now};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

/// Notes in which turn each frame came, and from whom.
#[derive(Default)]
struct Witness {
    frames: Vec<(u64, ConnectionId, RequestId)>,
    turn: u64,
}

impl Machine for Witness {
    fn step(&mut self, _: Now, input: Input<'_>, _: &mut Effects) {
        if let Input::Frame { from: Endpoint::Incoming(id), header, .. } = input {
            self.frames.push((self.turn, id, header.request));
        }
    }

    fn end_turn(&mut self, _: Now, _: &mut Effects) {
        self.turn += 1;
    }

    fn wake_at(&self) -> Boot {
        Boot::NEVER
    }
}

struct World {
    ring: Ring,
    network: Network,
    machine: Witness,
    effects: Effects,
    address: SocketAddr,
    turns: u64,
}

fn identity() -> Identity {
    Identity { cluster: Incarnation::default(), peer: Peer::of_role(PeerRole::Client) }
}

fn world() -> World {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    World {
        ring: Ring::new(Arc::new(Signal::new().unwrap())).unwrap(),
        network: Network::new("test".to_owned(), identity(), listener),
        machine: Witness::default(),
        effects: Effects::new(),
        address,
        turns: 0,
    }
}

impl World {
    fn turn(&mut self) {
        let mut batch = Vec::new();
        self.ring.enter().unwrap();
        self.ring.take(1024, &mut batch);
        self.turns += 1;
        let mut turn = Turn::new(self.turns, clock::now(), &mut self.machine, &mut self.effects);
        self.network.execute_ready(&mut turn);
        for completion in batch {
            let Token::Socket(token) = completion.token else { panic!("only sockets were asked for") };
            self.network.complete(&mut self.ring, &mut turn, token, completion);
        }
        turn.end();
        self.network.tend(&mut self.ring, clock::boot());
    }

    /// Turns until `client`, on a thread of its own, has done what it does.
    fn serve<T: Send + 'static>(&mut self, client: impl FnOnce(SocketAddr) -> T + Send + 'static) -> T {
        let address = self.address;
        let client = thread::Builder::new().spawn(move || client(address)).unwrap();
        while !client.is_finished() {
            self.turn();
        }
        client.join().unwrap()
    }
}

/// Connects, sends, and reads to the end: the error that came, if one did.
fn refusal(address: SocketAddr, bytes: &[u8]) -> Option<Problem> {
    let mut stream = TcpStream::connect(address).unwrap();
    let mut received = Vec::new();
    let _refused_at_once = stream.write_all(bytes);
    let _reset = stream.read_to_end(&mut received);
    while let Some((header, body)) = first_frame(&received, BodyLimit::AFTER_HELLO).unwrap() {
        if header.kind == Kind::Error {
            return Some(Problem::from(access::<ErrorAnswer>(body).unwrap()));
        }
        received.drain(..header.frame_bytes());
    }
    None
}

fn frames(requests: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    greet(&identity(), &mut out);
    for request in 0..requests {
        seal(&mut out, Header::new(Kind::Get, RequestId(request)), |out| out.extend_from_slice(body));
    }
    out
}

#[test]
fn a_connection_above_the_bound_is_told_so_and_one_far_above_it_is_closed() {
    let mut world = world();
    world.network.incoming = CONNECTIONS_MAX;
    let problem = world.serve(|address| refusal(address, b"")).expect("an error");
    assert_eq!(problem.code, ErrorCode::Overloaded);
    assert!(problem.code.is_retryable());
    while world.network.incoming > CONNECTIONS_MAX {
        world.turn();
    }
    world.network.incoming = CONNECTIONS_MAX + REFUSALS_MAX;
    assert_eq!(world.serve(|address| refusal(address, b"")), None);
}

#[test]
fn the_connection_whose_incomplete_frame_is_too_much_for_all_is_refused() {
    let mut world = world();
    world.network.held = HELD_BYTES_MAX - 100;
    let bytes = frames(1, &[0; 500]);
    let problem = world.serve(move |address| refusal(address, &bytes[..bytes.len() - 1])).expect("an error");
    assert_eq!(problem.code, ErrorCode::Overloaded);
    assert_eq!(world.network.held, HELD_BYTES_MAX - 100, "nothing of it is held any more");
}

#[test]
fn one_turn_executes_a_bounded_number_of_frames_of_each_connection_in_order() {
    let mut world = world();
    let all = 3000;
    let mut clients: Vec<TcpStream> = (0..3).map(|_| TcpStream::connect(world.address).unwrap()).collect();
    for client in &mut clients {
        client.write_all(&frames(all, b"")).unwrap();
    }
    while world.machine.frames.len() < 3 * all as usize {
        world.turn();
    }
    let frames = &world.machine.frames;
    let mut ids: Vec<ConnectionId> = frames.iter().map(|(_, id, _)| *id).collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 3);
    for turn in 0..=world.machine.turn {
        let of_turn: Vec<_> = frames.iter().filter(|frame| frame.0 == turn).collect();
        assert!(of_turn.len() <= FRAMES_PER_TURN_MAX);
        for id in &ids {
            let count = of_turn.iter().filter(|frame| frame.1 == *id).count();
            assert!(count <= FRAMES_PER_CONNECTION_MAX, "{count} frames of {id:?} in turn {turn}");
        }
    }
    for id in ids {
        let requests = frames.iter().filter(|frame| frame.1 == id).map(|frame| frame.2.0);
        assert!(requests.eq(0..all), "in the order in which they were sent");
    }
    assert_eq!(world.network.held, 0);
}

#[test]
fn a_header_that_announces_more_than_comes_holds_only_what_has_come() {
    let mut world = world();
    let mut bytes = frames(1, &vec![0; 16 * 1024 * 1024]);
    let hello = frames(0, b"").len();
    bytes.truncate(hello + HEADER_BYTES + 1000);
    let mut client = TcpStream::connect(world.address).unwrap();
    client.write_all(&bytes).unwrap();
    while world.network.held < HEADER_BYTES + 1000 {
        world.turn();
    }
    assert_eq!(world.network.held, HEADER_BYTES + 1000);
    drop(client);
    while world.network.incoming > 0 {
        world.turn();
    }
    assert_eq!(world.network.held, 0);
}
