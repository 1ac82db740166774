//! A router without sockets: tests say what comes in and see what goes out.

use evenkeel_router::cache::CacheMode;
use evenkeel_router::limits::LOOKUP_FRAME_EVERY;
use evenkeel_router::route::{Router, RouterConfig};
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{BodyLimit, HEADER_BYTES, Header, Kind, first_frame, seal};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, NodeId, PartitionId, RequestId, TableId};
use evenkeel_wire::key::{HashKey, KeyBytes, KeySchema, KeyType};
use evenkeel_wire::message::routing::{LookupAnswer, LookupOutcome};
use evenkeel_wire::message::status::TopologyAnswer;
use evenkeel_wire::message::{Body, Encode, access, encode};
use evenkeel_wire::table::{Route, RouteGeneration, RouteMember, TableDescriptor};
use evenkeel_wire::turn::{Boot, ConnectionId, Effects, Endpoint, Input, Machine, Now};
use std::net::SocketAddr;

pub(crate) const NOW: Now = Now::new(Boot(1_000_000_000), 1_000_000);
pub(crate) const TABLE: TableId = TableId(9);
pub(crate) const CLIENT: Endpoint = Endpoint::Incoming(ConnectionId(7));

/// A frame: the other side's name, its header and its body.
pub(crate) type Frame = (Endpoint, Header, Vec<u8>);

/// The two MemDS servers.
pub(crate) fn memds() -> [Endpoint; 2] {
    [Endpoint::Outgoing(address(901)), Endpoint::Outgoing(address(902))]
}

/// The storage core of this node.
pub(crate) fn node(node: u16) -> Endpoint {
    Endpoint::Outgoing(address(node))
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

pub(crate) fn table() -> TableDescriptor {
    let schema = KeySchema::partition_only("pk", KeyType::S);
    let (name, hash_key) = ("t".to_owned(), HashKey([3; 16]));
    TableDescriptor { id: TABLE, name, schema, hash_key, ..TableDescriptor::system() }
}

/// The whole table's route in this round; `leader` is a place among the nodes 1, 2 and 3.
pub(crate) fn route(round: u64, leader: Option<u8>) -> Route {
    let member =
        |node: u16| RouteMember { node: NodeId(node.into()), core: CoreId(0), address: address(node).into() };
    Route {
        table: TABLE,
        partition: PartitionId(5),
        start: KeyBytes::new(),
        end: KeyBytes::new(),
        generation: RouteGeneration {
            epoch: Epoch(1),
            division: 0,
            ballot: Ballot { round, node: NodeId(1) },
        },
        leader,
        members: vec![member(1), member(2), member(3)],
    }
}

pub(crate) fn body<T: Body + for<'a> Encode<'a>>(body: &T) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(body, &mut bytes);
    bytes
}

/// The frames that a machine sends to whom.
pub(crate) fn sent(out: &mut Effects) -> Vec<Frame> {
    let mut frames = Vec::new();
    for (to, bytes) in out.take_outboxes() {
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (header, body) = first_frame(rest, BodyLimit::AFTER_HELLO).expect("sound").expect("whole");
            frames.push((to, header, body.to_vec()));
            rest = &rest[HEADER_BYTES + body.len()..];
        }
    }
    frames
}

/// Gives a machine a frame, sealed and opened as on a wire.
pub(crate) fn step(machine: &mut dyn Machine, (from, header, body): &Frame, out: &mut Effects) {
    let mut sealed = Vec::new();
    seal(&mut sealed, *header, |out| out.extend_from_slice(body));
    let (header, body) = first_frame(&sealed, BodyLimit::AFTER_HELLO).expect("sound").expect("whole");
    machine.step(NOW, Input::Frame { from: *from, header, body }, out);
}

/// The code of the error that a client was answered with.
pub(crate) fn code(frames: &[Frame]) -> Option<ErrorCode> {
    let mut errors = frames.iter().filter(|(to, header, _)| *to == CLIENT && header.kind == Kind::Error);
    errors.next().map(|(_, _, body)| Problem::from(access::<ErrorAnswer>(body).expect("an error")).code)
}

pub(crate) struct TestRouter {
    router: Router,
    out: Effects,
    /// Each turn is so much later than the one before that look-ups go out at its end.
    now: Now,
}

impl TestRouter {
    pub(crate) fn new() -> Self {
        let topology = TopologyAnswer { nodes: vec![], memds: vec![], routers: vec![] };
        let memds = vec![address(901), address(902)];
        let config = RouterConfig { memds, topology, cache: CacheMode::On, seed: 1 };
        Self { router: Router::new(config), out: Effects::new(), now: NOW }
    }

    /// One turn with these frames; what was sent in it.
    pub(crate) fn turn(&mut self, frames: &[Frame]) -> Vec<Frame> {
        for frame in frames {
            step(&mut self.router, frame, &mut self.out);
        }
        self.router.end_turn(self.now, &mut self.out);
        self.now.boot = self.now.boot.after(LOOKUP_FRAME_EVERY);
        sent(&mut self.out)
    }

    /// A turn in which a link breaks; what was sent in it.
    pub(crate) fn down(&mut self, endpoint: Endpoint) -> Vec<Frame> {
        self.router.step(NOW, Input::Down { endpoint }, &mut self.out);
        self.turn(&[])
    }
}

/// Answers of these servers to the look-up among `frames`.
pub(crate) fn found(frames: &[Frame], servers: &[Endpoint], outcomes: &[LookupOutcome<'_>]) -> Vec<Frame> {
    let lookup = frames.iter().find(|(_, header, _)| header.kind == Kind::Lookup);
    let asked = lookup.expect("a look-up").1.request;
    found_for(asked, servers, outcomes)
}

pub(crate) fn found_for(
    asked: RequestId,
    servers: &[Endpoint],
    outcomes: &[LookupOutcome<'_>],
) -> Vec<Frame> {
    let body = body(&LookupAnswer { outcomes: outcomes.to_vec() });
    let header = Header::new(Kind::LookupAnswer, asked);
    servers.iter().map(|server| (*server, header, body.clone())).collect()
}

/// A storage core refuses the frame that was sent to it.
pub(crate) fn refused((to, header, _): &Frame, code: ErrorCode) -> Frame {
    let answer = ErrorAnswer::from(&Problem::new(code, "told"));
    (*to, Header::new(Kind::Error, header.request), body(&answer))
}
