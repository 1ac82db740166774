//! Tools of the tests: machines made of closures, and a client that speaks frames over a plain socket.
//!
//! Times here are patience, never expectations: a test fails when something does not happen at all.
#![allow(dead_code, reason = "each test file uses a part of it")]

use evenkeel_link::{Executor, Hosting, LogBuffers, Placement, Polling, start};
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{Identity, Peer, PeerRole, conclude, greet};
use evenkeel_wire::ids::{Incarnation, RequestId};
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Input, Machine, Now};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender};
use std::thread;
use std::time::Duration;

/// How long a test waits for something that must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) const CLUSTER: Incarnation = Incarnation([7; 16]);

pub(crate) fn identity(role: PeerRole) -> Identity {
    Identity { cluster: CLUSTER, peer: Peer::of_role(role) }
}

pub(crate) fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A machine that is a closure; the last argument is when it wants to be woken.
pub(crate) struct Logic<F> {
    step: F,
    wake_at: Boot,
}

impl<F: FnMut(Now, Input<'_>, &mut Effects, &mut Boot)> Machine for Logic<F> {
    fn step(&mut self, now: Now, input: Input<'_>, out: &mut Effects) {
        (self.step)(now, input, out, &mut self.wake_at);
    }

    fn end_turn(&mut self, _: Now, _: &mut Effects) {}

    fn wake_at(&self) -> Boot {
        self.wake_at
    }
}

/// Hosts a closure. It is not woken until it asks.
pub(crate) fn hosting<F>(name: &str, listener: TcpListener, step: F) -> Hosting
where
    F: FnMut(Now, Input<'_>, &mut Effects, &mut Boot) + Send + 'static,
{
    Hosting {
        name: name.to_owned(),
        identity: identity(PeerRole::Storage),
        listener,
        files: None,
        log_buffers: None::<LogBuffers>,
        reserve_bytes: 0,
        build: Box::new(|_| Box::new(Logic { step, wake_at: Boot::NEVER })),
        on_end: None,
    }
}

/// Runs machines on one executor that parks whenever it may, so that every wake-up is needed.
pub(crate) fn run(hosted: Vec<Hosting>) -> Executor {
    start("test", Placement::Unpinned, Polling::Fixed(Duration::ZERO), hosted).unwrap()
}

/// Answers every frame with its own body.
pub(crate) fn echo(_: Now, input: Input<'_>, out: &mut Effects, _: &mut Boot) {
    if let Input::Frame { from, header, body } = input {
        let answer = Header::new(Kind::GetAnswer, header.request);
        out.forward(from, answer, body, header.body_checksum);
    }
}

/// What a machine saw, in a form that can be sent to the test.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Seen {
    Up(Endpoint, PeerRole),
    Down(Endpoint),
    Frame(Endpoint, Kind, RequestId, Vec<u8>),
    Wake,
    Drain,
}

/// Tells the test what a machine sees.
pub(crate) fn tell(sender: &Sender<Seen>, input: &Input<'_>) {
    let seen = match input {
        Input::Frame { from, header, body } => Seen::Frame(*from, header.kind, header.request, body.to_vec()),
        Input::Up { endpoint, peer } => Seen::Up(*endpoint, peer.role),
        Input::Down { endpoint } => Seen::Down(*endpoint),
        Input::Disk(_) => return,
        Input::Wake => Seen::Wake,
        Input::Drain => Seen::Drain,
    };
    let _test_is_over = sender.send(seen);
}

pub(crate) fn next(receiver: &Receiver<Seen>) -> Seen {
    receiver.recv_timeout(PATIENCE).expect("the machine sees something")
}

/// A frame.
pub(crate) fn frame(request: u64, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    seal(&mut out, Header::new(Kind::Get, RequestId(request)), |out| out.extend_from_slice(body));
    out
}

/// The other side of a connection: a plain blocking socket.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    received: Vec<u8>,
}

impl Client {
    /// Connects, without a word.
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, received: Vec::new() }
    }

    /// Connects and greets.
    pub(crate) fn greeted(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        let mut hello = Vec::new();
        greet(&identity(PeerRole::Client), &mut hello);
        client.send(&hello);
        let (header, body) = client.receive().expect("an answer to our greeting");
        conclude(&identity(PeerRole::Client), header, &body).unwrap();
        client
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next frame; nothing when the other side has closed the connection.
    pub(crate) fn receive(&mut self) -> Option<(Header, Vec<u8>)> {
        loop {
            if let Some((header, body)) = first_frame(&self.received, BodyLimit::AFTER_HELLO).unwrap() {
                let (header, body) = (header, body.to_vec());
                self.received.drain(..header.frame_bytes());
                return Some((header, body));
            }
            let mut chunk = [0; 65536];
            match self.stream.read(&mut chunk) {
                Ok(0) => return None,
                Ok(bytes) => self.received.extend_from_slice(&chunk[..bytes]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("nothing came: {error}"),
            }
        }
    }

    /// Sends a frame and expects it back.
    pub(crate) fn ping(&mut self, request: u64, body: &[u8]) {
        self.send(&frame(request, body));
        let (header, answer) = self.receive().expect("an answer");
        assert_eq!((header.kind, header.request), (Kind::GetAnswer, RequestId(request)));
        assert!(answer == body, "the body of request {request} came back changed");
    }
}

/// Waits until `done` says so.
pub(crate) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let pause = Duration::from_millis(5);
    for _ in 0..PATIENCE.as_millis() / pause.as_millis() {
        if done() {
            return;
        }
        #[allow(clippy::disallowed_methods, reason = "waiting is a test's work")]
        thread::sleep(pause);
    }
    panic!("{what} did not happen");
}

/// A machine that is a closure, and is first woken at `wake_at`.
pub(crate) fn machine<F>(step: F, wake_at: Boot) -> Logic<F>
where
    F: FnMut(Now, Input<'_>, &mut Effects, &mut Boot),
{
    Logic { step, wake_at }
}
