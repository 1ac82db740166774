//! Frozen: what processes of one release send to those of another, and store. The bytes are in
//! `tests/frozen`, one file for each value; `golden` says how they are compared, and how new ones are
//! written.
//!
//! Bytes of items, expressions and entries are here too; those of numbers, keys and the frame header are at
//! the foot of the files that make them.

mod golden;
mod samples;

use bytes::Bytes;
use evenkeel_wire::checksum::{Hash128, crc32c};
use evenkeel_wire::entry::{Effect, Entry, EntryHeader, EntryKind, Refusal, Split, Write, WrittenItem};
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::expression::{
    Bindings, Condition, Update, access_condition, access_update, encode_condition, encode_update,
};
use evenkeel_wire::frame::{BodyLimit, Kind, first_frame};
use evenkeel_wire::handshake::{Identity, Peer, PeerRole, answer, conclude, greet};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, Incarnation, NodeId, PartitionId, Slot};
use evenkeel_wire::item::{Item, Number, Value, ValueType, access_validated, encode};
use evenkeel_wire::membership::Membership;
use evenkeel_wire::message::request::{ReturnItem, Token};
use evenkeel_wire::table::Member;
use golden::{all, check, folder};
use samples::{every, lower, samples};
use std::collections::BTreeSet;

const MANIFEST_FOLDER: &str = env!("CARGO_MANIFEST_DIR");

/// Compares bytes with the frozen ones, which it returns.
fn check_bytes(name: &str, title: &str, bytes: &[u8]) -> Vec<u8> {
    let title = format!("{title}: {} bytes", bytes.len());
    check(&folder(MANIFEST_FOLDER), name, &title, bytes)
}

#[test]
fn every_message_is_frozen() {
    let mut names = BTreeSet::new();
    for kind in Kind::ALL {
        let samples = samples(*kind);
        let has_body = !matches!(kind, Kind::Status | Kind::Topology | Kind::Scrub);
        assert_eq!(!samples.is_empty(), has_body, "golden bytes of {kind:?}");
        for sample in samples {
            assert_eq!(sample.kind, *kind, "{}", sample.name);
            let title = format!("{kind:?}, kind {}", *kind as u16);
            let frozen = check_bytes(&sample.name, &title, &sample.bytes);
            assert!((sample.is_read_from)(&frozen), "{} is read as another value", sample.name);
            assert!(names.insert(sample.name.clone()), "two samples are called {}", sample.name);
        }
    }
}

/// The handshake and a refusal, with their headers.
#[test]
fn frames_of_the_handshake_are_frozen() {
    let identity = |role, core| Identity {
        cluster: Incarnation([0xc1; 16]),
        peer: Peer { role, node: NodeId(3), core: CoreId(core), incarnation: Incarnation([0xd1; 16]) },
    };
    let (caller, callee) = (identity(PeerRole::Storage, 1), identity(PeerRole::Memds, 2));
    let (mut greeting, mut answered, mut refused) = (Vec::new(), Vec::new(), Vec::new());
    greet(&caller, &mut greeting);
    let greeting = check_bytes("frame.greeting", "Hello, a whole frame", &greeting);
    let (header, body) = first_frame(&greeting, BodyLimit::BEFORE_HELLO).unwrap().unwrap();

    assert_eq!(answer(&callee, header, body, 77, &mut answered), Ok(caller.peer));
    let answered = check_bytes("frame.answer", "HelloAnswer, a whole frame", &answered);
    let (answer_header, answer_body) = first_frame(&answered, BodyLimit::BEFORE_HELLO).unwrap().unwrap();
    assert_eq!(conclude(&caller, answer_header, answer_body), Ok((callee.peer, 77)));

    let stranger = Identity { cluster: Incarnation([0xee; 16]), ..callee };
    let problem = answer(&stranger, header, body, 77, &mut refused).unwrap_err();
    let refused = check_bytes("frame.refusal", "Error, a whole frame", &refused);
    let (header, body) = first_frame(&refused, BodyLimit::BEFORE_HELLO).unwrap().unwrap();
    assert_eq!(conclude(&caller, header, body), Err::<(Peer, u64), Problem>(problem));
}

/// In logs, in what cores of a group send to each other, and under the hashes that chain them.
#[test]
fn entries_are_frozen() {
    let entry = |kind, payload: &[u8]| {
        let header = EntryHeader {
            partition: PartitionId(0x0102_0304_0506_0708),
            slot: Slot(0x1112_1314_1516_1718),
            ballot: Ballot { round: 0x2122_2324_2526_2728, node: NodeId(0x3132_3334) },
            previous: Hash128::of(b"before"),
            timestamp: 0x4142_4344_4546_4748,
            kind,
            payload_bytes: 0,
        };
        Entry::build(header, payload.len(), |out| out.extend_from_slice(payload))
    };
    let check_entry = |name: &str, built: &Entry| {
        let title = format!("{:?} entry, hash {}", built.header.kind, built.hash);
        let mut frozen = Bytes::from(check_bytes(name, &title, &built.bytes));
        assert_eq!(Entry::take(&mut frozen).as_ref(), Ok(built), "{name}");
    };
    let archive = &b"archive of an item"[..];
    let checksum = crc32c(archive);
    let refusal = Refusal { code: ErrorCode::ConditionFailed, message: "it did not hold".to_owned() };
    let effects = every!(
        Effect::Put(_) => Effect::Put(WrittenItem { checksum, archive }),
        Effect::Delete => Effect::Delete,
        Effect::Refused(_) => Effect::Refused(refusal.clone()),
    );
    let [_noop, _write, _split, _membership] = every!(EntryKind: Noop, Write, Split, Membership);
    check_entry("entry.noop", &entry(EntryKind::Noop, b""));
    for (effect, return_item) in effects.into_iter().zip(every!(ReturnItem: None, Old, New)) {
        let name = format!("entry.{}", lower(&effect));
        let carries_old = return_item == ReturnItem::Old;
        let old = carries_old.then_some(WrittenItem { checksum, archive });
        let write = Write {
            token: Token { client: [0xe1; 16], sequence: 1, issued_ms: 2, acknowledged_below: 3 },
            request_hash: 0x5152_5354_5556_5758,
            key: &b"storage key"[..],
            return_item,
            effect,
            old,
        };
        let mut payload = Vec::new();
        write.encode(&mut payload);
        let built = entry(EntryKind::Write, &payload);
        check_entry(&name, &built);
        assert_eq!(built.write(), Ok(write), "{name}");
    }
    let member = |low: u8| Member {
        node: NodeId(0x1112_1300 + u32::from(low)),
        core: CoreId(0x2100 + u16::from(low)),
        incarnation: Incarnation([0xd0 + low; 16]),
    };
    let membership = Membership {
        epoch: Epoch(0x3132_3334),
        members: vec![member(1), member(2)],
        log_replicas: vec![member(2).node],
        former: Some(member(3)),
    };
    let split = Split {
        child: PartitionId(0x6162_6364_6566_6768),
        division: 0x7172_7374,
        border: Bytes::from_static(b"border"),
        end: Bytes::from_static(b"end"),
        members: membership.clone(),
    };
    let mut payload = Vec::new();
    split.encode(&mut payload);
    let built = entry(EntryKind::Split, &payload);
    check_entry("entry.split", &built);
    assert_eq!(Split::decode(built.payload()), Ok(split));
    let mut payload = Vec::new();
    membership.encode(&mut payload);
    let built = entry(EntryKind::Membership, &payload);
    check_entry("entry.membership", &built);
    assert_eq!(Membership::decode(built.payload()), Ok(membership));
}

/// In logs, checkpoints and answers. The bytes depend on rkyv's features in the root Cargo.toml and on the
/// order of the variants of `Value`.
#[test]
fn an_item_of_every_type_is_frozen() {
    let item = Item::new()
        .with("s", "text longer than eight")
        .with("n", "-12.5".parse::<Number>().expect("a number"))
        .with("b", vec![1_u8, 2, 3])
        .with("bool", true)
        .with("null", Value::Null)
        .with("ss", Value::string_set(["a", "b"]).expect("a set"))
        .with("ns", Value::number_set([1, 2]).expect("a set"))
        .with("bs", Value::binary_set([[0xFF_u8]]).expect("a set"))
        .with("l", vec![Value::from("x"), Value::Null])
        .with("m", Item::new().with("inner", 0));
    let types: BTreeSet<ValueType> =
        item.attributes().iter().map(|attribute| attribute.value.view().value_type()).collect();
    assert!(types.into_iter().eq(every!(ValueType: S, N, B, Bool, Null, Ss, Ns, Bs, L, M)));
    let frozen = check_bytes("item.every_type", "an item of every type", &encode(&item).expect("an item"));
    assert!(*access_validated(&frozen).expect("every byte belongs to something") == item);
    let frozen = check_bytes("item.empty", "an empty item", &encode(&Item::new()).expect("an item"));
    assert!(access_validated(&frozen).expect("an item").attributes().is_empty());
}

fn bindings() -> Bindings {
    Bindings::new()
        .with_value(":n", 1)
        .with_value(":s", "S")
        .with_value(":l", Value::L(vec![]))
        .with_value(":ss", Value::string_set(["a"]).expect("a set"))
}

/// From clients to routers and cores. What is read from the frozen bytes is compared as it prints itself.
#[test]
fn expressions_are_frozen() {
    let printed = |archived: &dyn std::fmt::Debug| format!("{archived:?}");
    for (name, text) in CONDITIONS {
        let condition = Condition::parse(text, &mut bindings()).expect(text);
        let bytes = encode_condition(&condition).expect(text);
        let frozen = check_bytes(name, text, &bytes);
        let read = printed(access_condition(&frozen).expect(text));
        assert_eq!(read, printed(access_condition(&bytes).expect(text)), "{text}");
    }
    for (name, text) in UPDATES {
        let update = Update::parse(text, &mut bindings()).expect(text);
        let bytes = encode_update(&update).expect(text);
        let frozen = check_bytes(name, text, &bytes);
        let read = printed(access_update(&frozen).expect(text));
        assert_eq!(read, printed(access_update(&bytes).expect(text)), "{text}");
    }
}

const CONDITIONS: &[(&str, &str)] = &[
    ("expression.compare_path", "a.b[7] = :n"),
    ("expression.compare_size", "size(a) >= :n"),
    ("expression.comparators", "a = :n OR a <> :n OR a < :n OR a <= :n OR a > :n OR a >= :n"),
    ("expression.between", "a BETWEEN :n AND b"),
    ("expression.in", "a IN (:n)"),
    ("expression.attribute_exists", "attribute_exists(a)"),
    ("expression.attribute_not_exists", "attribute_not_exists(a)"),
    ("expression.attribute_type", "attribute_type(a, :s)"),
    ("expression.begins_with", "begins_with(a, :s)"),
    ("expression.contains", "contains(a, :n)"),
    ("expression.and_or_not", "NOT attribute_exists(a) AND (attribute_exists(b) OR attribute_exists(c))"),
];

const UPDATES: &[(&str, &str)] = &[
    ("expression.set_remove", "SET a = b REMOVE c"),
    ("expression.set_arithmetic", "SET a = a + :n, b = :n - b"),
    ("expression.set_functions", "SET a = list_append(if_not_exists(a, :l), :l)"),
    ("expression.add_delete", "ADD a :n DELETE b :ss"),
];

/// In answers, entries and checkpoints; and what an older peer is told about a newer code.
#[test]
fn error_codes_are_frozen() {
    let line = |code: &ErrorCode| {
        let again = if code.is_retryable() { ", again" } else { "" };
        let maybe = if code.may_have_executed() { ", may have executed" } else { "" };
        format!("{} {code:?}{again}{maybe}", *code as u16)
    };
    let codes: Vec<String> = ErrorCode::ALL.iter().map(line).collect();
    assert_eq!(codes, CODES, "{}", golden::ADVICE);
    let empty = [Kind::Status, Kind::Topology, Kind::Scrub].map(|kind| kind as u16);
    assert_eq!(empty, [48, 49, 50], "{}", golden::ADVICE);
}

const CODES: &[&str] = &[
    "1 Malformed",
    "2 UnsupportedVersion",
    "3 FrameTooLarge",
    "4 ChecksumMismatch, again",
    "5 UnknownKind",
    "6 HandshakeRefused",
    "100 Validation",
    "101 ItemTooLarge",
    "102 NestingTooDeep",
    "103 Expression",
    "200 TableNotFound",
    "201 TableExists",
    "202 TableNotReady, again",
    "300 ConditionFailed",
    "301 TokenExpired",
    "302 TokenReused",
    "303 TokenAcknowledged",
    "304 TooManyTokens, again",
    "400 NotLeader, again",
    "401 StaleEpoch, again",
    "402 WrongPartition, again",
    "403 LeaderNotReady, again",
    "500 Overloaded, again",
    "501 DeadlineExceeded, again",
    "502 Unavailable, again",
    "503 OutcomeUnknown, again, may have executed",
    "504 StorageFull, again",
    "505 ShuttingDown, again",
    "506 MetadataWarming, again",
    "600 Internal, may have executed",
    "601 CorruptData, again",
];

#[test]
fn no_golden_bytes_are_left_over() {
    let mut names: BTreeSet<String> =
        Kind::ALL.iter().flat_map(|kind| samples(*kind)).map(|sample| sample.name).collect();
    names.extend(CONDITIONS.iter().chain(UPDATES).map(|(name, _)| (*name).to_owned()));
    names.extend(OTHERS.map(str::to_owned));
    assert!(all(&folder(MANIFEST_FOLDER)).into_keys().eq(names), "a value is gone and its file is not");
}

/// What stands in no list above.
const OTHERS: [&str; 11] = [
    "entry.delete",
    "entry.noop",
    "entry.put",
    "entry.refused",
    "entry.split",
    "entry.membership",
    "frame.answer",
    "frame.greeting",
    "frame.refusal",
    "item.empty",
    "item.every_type",
];
