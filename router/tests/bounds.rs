//! What strangers send is bounded before anything is made of it: no request and no look-up ends a process.

#[allow(dead_code, reason = "each test file uses a part of it")]
mod harness;

use evenkeel_router::limits::{BOUND_BYTES_MAX, LOOKUP_KEYS_MAX, ROUTE_MEMBERS_MAX};
use evenkeel_router::memds::Memds;
use evenkeel_wire::error::{ErrorAnswer, ErrorCode, Problem};
use evenkeel_wire::frame::{Header, Kind};
use evenkeel_wire::handshake::{Peer, PeerRole};
use evenkeel_wire::ids::{RequestId, Slot};
use evenkeel_wire::key::KeyBytes;
use evenkeel_wire::limits::{BATCH_GET_KEYS_MAX, FRAME_BODY_BYTES_MAX, TABLE_NAME_BYTES_MAX};
use evenkeel_wire::message::access;
use evenkeel_wire::message::batch::{ArchivedBatchGetOutcome, BatchGet, BatchGetAnswer};
use evenkeel_wire::message::request::{Get, Query, Range};
use evenkeel_wire::message::routing::{
    Lookup, LookupAnswer, LookupKey, LookupOutcome, PublishRoutes, PublishTables, TableKey,
};
use evenkeel_wire::table::{Route, TableDescriptor};
use evenkeel_wire::turn::{ConnectionId, Effects, Endpoint, Input, Machine};
use harness::{
    CLIENT, Frame, NOW, TABLE, TestRouter, body, code, found_for, memds, route, sent, step, table,
};
use std::borrow::Cow;

const LONGEST: [usize; 2] = [BOUND_BYTES_MAX, BOUND_BYTES_MAX + 1];

fn get(name: u64, key_bytes: usize) -> Frame {
    let get = Get { table: TABLE, key: Cow::Owned(vec![7; key_bytes]), strong: true };
    (CLIENT, Header::new(Kind::Get, RequestId(name)), body(&get))
}

fn query(forward: bool, bound_bytes: usize) -> Frame {
    let (lower, upper) = (Cow::Owned(vec![7; bound_bytes]), Cow::Owned(vec![8; bound_bytes]));
    let range =
        Range { table: TABLE, lower, upper, forward, limit: 0, filter: Cow::Borrowed(b""), strong: true };
    (CLIENT, Header::new(Kind::Query, RequestId(1)), body(&Query(range)))
}

fn batch_get(key_bytes: usize) -> Frame {
    let key = |n| TableKey { table: TABLE, key: Cow::Owned(vec![n as u8; key_bytes]) };
    let keys = (0..BATCH_GET_KEYS_MAX).map(key).collect();
    (CLIENT, Header::new(Kind::BatchGet, RequestId(1)), body(&BatchGet { keys, strong: true }))
}

/// How many keys each frame of look-ups has, to the first server.
fn lookups(frames: &[Frame]) -> Vec<usize> {
    let [first, _] = memds();
    let frames = frames.iter().filter(|(to, header, _)| *to == first && header.kind == Kind::Lookup);
    frames.map(|(_, _, body)| access::<Lookup<'static>>(body).expect("a look-up").keys.len()).collect()
}

#[test]
fn a_key_longer_than_any_is_refused_before_it_is_looked_up() {
    let [longest, longer] = LONGEST;
    for request in [get(1, longest), query(true, longest), query(false, longest)] {
        assert_eq!(lookups(&TestRouter::new().turn(&[request])), [1]);
    }
    for request in [get(1, longer), query(true, longer), query(false, longer), get(1, 9_000_000)] {
        let sent = TestRouter::new().turn(&[request]);
        assert_eq!((code(&sent), lookups(&sent)), (Some(ErrorCode::Validation), vec![]));
    }
}

#[test]
fn a_batch_of_keys_longer_than_any_is_refused_key_by_key() {
    let request = batch_get(FRAME_BODY_BYTES_MAX / BATCH_GET_KEYS_MAX - 64);
    let sent = TestRouter::new().turn(&[request]);
    assert_eq!(lookups(&sent), Vec::<usize>::new());
    let (_, _, answer) = sent.iter().find(|(to, _, _)| *to == CLIENT).expect("an answer");
    let answer = access::<BatchGetAnswer<'static>>(answer).expect("an answer");
    assert_eq!(answer.outcomes.len(), BATCH_GET_KEYS_MAX);
    for outcome in answer.outcomes.iter() {
        let ArchivedBatchGetOutcome::Failed(error) = outcome else { panic!("too long a key") };
        assert_eq!(error.code.to_native(), ErrorCode::Validation as u16);
    }
}

#[test]
fn the_look_ups_of_a_turn_with_very_many_keys_travel_in_several_frames() {
    let mut router = TestRouter::new();
    let requests: Vec<Frame> =
        (0..2 * LOOKUP_KEYS_MAX as u64 + 1).map(|name| get(name, BOUND_BYTES_MAX)).collect();
    let asked = router.turn(&requests);
    assert_eq!(lookups(&asked), [LOOKUP_KEYS_MAX, LOOKUP_KEYS_MAX, 1]);
    let [first, second] = memds();
    let name = |frame: &Frame| frame.1.request;
    let names: Vec<RequestId> = asked.iter().filter(|(to, _, _)| *to == first).map(name).collect();
    let answers = found_for(names[2], &[first, second], &[LookupOutcome::TableNotFound]);
    let told = router.turn(&answers);
    assert_eq!((told.len(), code(&told)), (1, Some(ErrorCode::TableNotFound)));
    assert_eq!(
        told[0].1.request,
        RequestId(2 * LOOKUP_KEYS_MAX as u64),
        "the last key was in the last frame"
    );
}

#[test]
fn a_refused_frame_of_look_ups_counts_as_no_answer() {
    let mut router = TestRouter::new();
    let asked = router.turn(&[get(1, 8)]);
    let asked = asked.iter().filter(|(_, header, _)| header.kind == Kind::Lookup);
    let refused: Vec<Frame> = asked.map(|frame| harness::refused(frame, ErrorCode::Validation)).collect();
    assert_eq!(code(&router.turn(&refused)), Some(ErrorCode::Unavailable));
}

/// A MemDS server with a peer of each role; says what it answers.
struct TestMemds(Memds);

const ROLES: [PeerRole; 4] = [PeerRole::Client, PeerRole::Router, PeerRole::Memds, PeerRole::Storage];

impl TestMemds {
    fn new() -> Self {
        let mut memds = Memds::new();
        for role in ROLES {
            let (endpoint, peer) = (Self::endpoint(role), Peer::of_role(role));
            memds.step(NOW, Input::Up { endpoint, peer }, &mut Effects::new());
        }
        Self(memds)
    }

    fn endpoint(role: PeerRole) -> Endpoint {
        Endpoint::Incoming(ConnectionId(role as u64))
    }

    fn answer(&mut self, role: PeerRole, kind: Kind, body: Vec<u8>) -> Option<Frame> {
        let mut out = Effects::new();
        step(&mut self.0, &(Self::endpoint(role), Header::new(kind, RequestId(1)), body), &mut out);
        sent(&mut out).pop()
    }

    /// The code of the answer to a look-up of this many keys; none: outcomes, and how many.
    fn look_up(&mut self, role: PeerRole, keys: usize) -> Result<usize, ErrorCode> {
        let key = || LookupKey::At(TableKey { table: TABLE, key: Cow::Owned(vec![]) });
        let lookup = body(&Lookup { keys: (0..keys).map(|_| key()).collect() });
        let (_, header, body) = self.answer(role, Kind::Lookup, lookup).expect("an answer");
        if header.kind == Kind::Error {
            return Err(Problem::from(access::<ErrorAnswer>(&body).expect("an error")).code);
        }
        Ok(access::<LookupAnswer<'static>>(&body).expect("outcomes").outcomes.len())
    }

    fn publish(&mut self, route: Route, table: TableDescriptor) {
        let tables = PublishTables { version: Slot(1), tables: Some(vec![table]) };
        self.answer(PeerRole::Storage, Kind::PublishTables, body(&tables));
        self.answer(PeerRole::Storage, Kind::PublishRoutes, body(&PublishRoutes { routes: vec![route] }));
    }
}

#[test]
fn only_routers_are_answered_look_ups() {
    let mut memds = TestMemds::new();
    for role in ROLES {
        let expected = if role == PeerRole::Router { Ok(1) } else { Err(ErrorCode::UnknownKind) };
        assert_eq!(memds.look_up(role, 1), expected, "{role:?}");
    }
}

#[test]
fn a_frame_of_more_look_ups_than_its_answer_has_room_for_is_refused() {
    let mut memds = TestMemds::new();
    assert_eq!(memds.look_up(PeerRole::Router, LOOKUP_KEYS_MAX + 1), Err(ErrorCode::Validation));
    assert_eq!(memds.look_up(PeerRole::Router, 400_000), Err(ErrorCode::Validation));
}

#[test]
fn the_longest_routes_fit_into_the_answer_to_most_look_ups() {
    let mut memds = TestMemds::new();
    let (longest, mut table) = (route(1, Some(0)), table());
    let members = vec![longest.members[0]; ROUTE_MEMBERS_MAX];
    table.name = "t".repeat(TABLE_NAME_BYTES_MAX);
    memds.publish(Route { end: KeyBytes::from_elem(7, BOUND_BYTES_MAX), members, ..longest }, table);
    assert_eq!(memds.0.status().routes, 1);
    assert_eq!(memds.look_up(PeerRole::Router, LOOKUP_KEYS_MAX), Ok(LOOKUP_KEYS_MAX));
}

#[test]
fn routes_and_tables_longer_than_any_are_not_taken() {
    let members = vec![route(1, None).members[0]; ROUTE_MEMBERS_MAX + 1];
    let long_name = TableDescriptor { name: "t".repeat(TABLE_NAME_BYTES_MAX + 1), ..table() };
    for (route, table, taken) in [
        (Route { end: KeyBytes::from_elem(7, BOUND_BYTES_MAX + 1), ..route(1, None) }, table(), (0, 1)),
        (Route { start: KeyBytes::from_elem(7, BOUND_BYTES_MAX + 1), ..route(1, None) }, table(), (0, 1)),
        (Route { members, ..route(1, None) }, table(), (0, 1)),
        (route(1, None), long_name, (1, 0)),
    ] {
        let mut memds = TestMemds::new();
        memds.publish(route, table);
        assert_eq!((memds.0.status().routes, memds.0.status().tables), taken);
    }
}
