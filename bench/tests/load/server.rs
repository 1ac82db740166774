//! A server that speaks the frame protocol, keeps nothing, and misbehaves as it is told: every answer is made
//! up, and the times at which it is given are planted.

use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{Identity, Peer, PeerRole, answer};
use evenkeel_wire::ids::Incarnation;
use evenkeel_wire::message::request::{Get, GetAnswer, PageAnswer, Position, Put};
use evenkeel_wire::message::request::{Row, Scan, Token, WriteAnswer};
use evenkeel_wire::message::{Body, Encode, access, encode};
use std::borrow::Cow;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Behaviour {
    /// In each of these periods, nothing is answered for that time.
    pub(crate) stalls: Option<(Duration, Duration)>,
    /// How long the one worker of the server takes for a request.
    pub(crate) service: Duration,
    /// A connection is closed when it has asked this much.
    pub(crate) closes_after: Option<usize>,
}

/// A request that came: its kind and its storage key.
pub(crate) type Seen = (Kind, Vec<u8>);

/// A server. It lives as long as the test's process.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    tokens: Arc<Mutex<Vec<Token>>>,
}

impl Server {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, seen) = (listener.local_addr().unwrap(), Arc::<Mutex<Vec<Seen>>>::default());
        let tokens = Arc::<Mutex<Vec<Token>>>::default();
        let (log, issued) = (Arc::clone(&seen), Arc::clone(&tokens));
        let (worker, started) = (Arc::new(Mutex::new(())), now());
        spawn(move || {
            for stream in listener.incoming() {
                let (log, worker, tokens) = (Arc::clone(&log), Arc::clone(&worker), Arc::clone(&issued));
                spawn(move || Serving { behaviour, started, worker, log, tokens }.serve(stream.unwrap()));
            }
        });
        Self { address, seen, tokens }
    }

    /// The tokens of the puts that came so far, in order.
    pub(crate) fn tokens(&self) -> Vec<Token> {
        self.tokens.lock().unwrap().clone()
    }

    /// What came so far, in order.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

struct Serving {
    behaviour: Behaviour,
    started: Instant,
    worker: Arc<Mutex<()>>,
    log: Arc<Mutex<Vec<Seen>>>,
    tokens: Arc<Mutex<Vec<Token>>>,
}

impl Serving {
    /// Serves a connection until the other side closes it.
    fn serve(&self, mut stream: TcpStream) {
        stream.set_nodelay(true).unwrap();
        let (mut input, mut scratch, mut served) = (Vec::new(), vec![0; 64 * 1024], 0);
        loop {
            let count = match stream.read(&mut scratch) {
                Ok(0) => return,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("{error}"),
            };
            input.extend_from_slice(&scratch[..count]);
            let (mut used, mut out) = (0, Vec::new());
            while let Some((header, body)) = first_frame(&input[used..], BodyLimit::AFTER_HELLO).unwrap() {
                used += header.frame_bytes();
                served += usize::from(header.kind != Kind::Hello);
                if self.behaviour.closes_after.is_some_and(|most| served > most) {
                    return;
                }
                self.answer(header, body, &mut out);
            }
            input.drain(..used);
            if stream.write_all(&out).is_err() {
                return;
            }
        }
    }

    fn answer(&self, header: Header, body: &[u8], out: &mut Vec<u8>) {
        let row = || Row { checksum: 0, item: Cow::Borrowed(&b"an item"[..]) };
        let position = Position::default();
        let key = match header.kind {
            Kind::Hello => {
                let peer = Peer::of_role(PeerRole::Router);
                answer(&Identity { cluster: Incarnation([7; 16]), peer }, header, body, 1, out).unwrap();
                return;
            }
            Kind::Get => {
                reply(out, header, &GetAnswer { position, item: Some(row()) });
                access::<Get<'static>>(body).unwrap().key.to_vec()
            }
            Kind::Scan => {
                reply(out, header, &PageAnswer { position, rows: vec![row()], scanned: 1, resume: None });
                access::<Scan<'static>>(body).unwrap().0.lower.to_vec()
            }
            Kind::Put => {
                reply(out, header, &WriteAnswer { position, timestamp: 0, item: None });
                let put = access::<Put<'static>>(body).unwrap();
                self.tokens.lock().unwrap().push(Token::from(&put.token));
                put.key.to_vec()
            }
            kind => panic!("these tests send no {kind:?}"),
        };
        self.log.lock().unwrap().push((header.kind, key));
        self.take_time();
    }

    #[allow(clippy::disallowed_methods, reason = "the planted delays are real")]
    fn take_time(&self) {
        if !self.behaviour.service.is_zero() {
            let _worker = self.worker.lock().unwrap();
            std::thread::sleep(self.behaviour.service);
        }
        if let Some((period, stall)) = self.behaviour.stalls {
            let into = self.started.elapsed().as_nanos() % period.as_nanos();
            let left = stall.saturating_sub(Duration::from_nanos(into as u64));
            std::thread::sleep(left);
        }
    }
}

fn reply<T: Body + for<'a> Encode<'a>>(out: &mut Vec<u8>, header: Header, body: &T) {
    seal(out, Header::new(T::KIND, header.request), |out| encode(body, out));
}

#[allow(clippy::disallowed_methods, reason = "the planted delays are real")]
fn now() -> Instant {
    Instant::now()
}

#[allow(clippy::disallowed_methods, reason = "a server needs threads")]
fn spawn(body: impl FnOnce() + Send + 'static) {
    std::thread::spawn(body);
}
