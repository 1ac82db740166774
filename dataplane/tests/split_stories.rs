//! A partition that is split: what a crash leaves of both halves, what a member finds that was away, and who
//! may serve the half that is new.

use bytes::Bytes;
use evenkeel_dataplane::btree::lookup::Pages;
use evenkeel_dataplane::btree::version::Version;
use evenkeel_dataplane::group::{Born, Group};
use evenkeel_dataplane::limits::{LEASE_DRIFT, LEASE_TERM};
use evenkeel_dataplane::partition::state::State;
use evenkeel_dataplane::paxos::log::GroupLog;
use evenkeel_dataplane::paxos::{Message, Output, Seed};
use evenkeel_dataplane::wal::record::{GroupState, Record, RecordBody};
use evenkeel_dataplane::wal::replay::Replay;
use evenkeel_wire::checksum::Hash128;
use evenkeel_wire::entry::{Effect, Entry, EntryHeader, EntryKind, Split, Write, WrittenItem};
use evenkeel_wire::ids::{Ballot, CoreId, Epoch, Incarnation, NodeId, PartitionId, Slot, TableId};
use evenkeel_wire::message::peer::LogPoint;
use evenkeel_wire::message::request::{ReturnItem, Token};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::timeline::{Causes, Packed};
use evenkeel_wire::turn::{Boot, Effects, Now};
use std::sync::Arc;
use std::time::Duration;

const PARENT: PartitionId = PartitionId(7);
const CHILD: PartitionId = PartitionId(8);
const NODE: NodeId = NodeId(1);
const BALLOT: Ballot = Ballot { round: 3, node: NODE };
const NOW: Boot = Boot(1_000_000_000);

fn config() -> GroupConfig {
    GroupConfig::whole(
        PARENT,
        TableId(1),
        vec![Member { node: NODE, core: CoreId(0), incarnation: Incarnation([1; 16]) }],
    )
}

/// The next entry behind `at`.
fn entry(partition: PartitionId, at: &mut LogPoint, kind: EntryKind, payload: &[u8]) -> Entry {
    let header = EntryHeader {
        partition,
        slot: at.slot.next(),
        ballot: BALLOT,
        previous: at.hash,
        timestamp: 50 + at.slot.0,
        kind,
        payload_bytes: 0,
    };
    let entry = Entry::build(header, payload.len(), |out| out.extend_from_slice(payload));
    *at = LogPoint { slot: entry.header.slot, hash: entry.hash };
    entry
}

fn token(sequence: u64) -> Token {
    Token { client: [9; 16], sequence, issued_ms: 0, acknowledged_below: 0 }
}

fn put(partition: PartitionId, at: &mut LogPoint, key: &'static str) -> Entry {
    let archive = Bytes::from_static(key.as_bytes());
    let write = Write {
        token: token(at.slot.next().0),
        request_hash: 0,
        key: archive.clone(),
        return_item: ReturnItem::None,
        effect: Effect::Put(WrittenItem { checksum: 0, archive }),
        old: None,
    };
    let mut payload = Vec::new();
    write.encode(&mut payload);
    entry(partition, at, EntryKind::Write, &payload)
}

/// The upper part is the child's, which has the members that the parent has.
fn split() -> Split {
    let (border, end) = (Bytes::from_static(b"m"), Bytes::new());
    Split { child: CHILD, division: 1, border, end, members: config().membership() }
}

/// The parent's log up to its split at "m": puts of "a" and "z", then the split.
fn until_split() -> (Vec<Entry>, LogPoint) {
    let mut at = LogPoint::default();
    let mut entries = vec![put(PARENT, &mut at, "a"), put(PARENT, &mut at, "z")];
    let mut payload = Vec::new();
    split().encode(&mut payload);
    entries.push(entry(PARENT, &mut at, EntryKind::Split, &payload));
    (entries, at)
}

fn record(partition: PartitionId, commit: u64, body: RecordBody) -> Record {
    Record { partition, promised: BALLOT, commit: Slot(commit), body }
}

fn created(config: GroupConfig, base: LogPoint) -> RecordBody {
    created_as(true, config, base)
}

/// A group's creation, with items or as a log replica.
fn created_as(stores: bool, config: GroupConfig, base: LogPoint) -> RecordBody {
    let base_ballot = Ballot::ZERO;
    RecordBody::State(Box::new(GroupState {
        config,
        base,
        base_ballot,
        base_timestamp: 0,
        refilling: false,
        stores,
    }))
}

/// Replays the parent's creation, its entries, none of which is said to be committed, and more records.
fn replay(entries: &[Entry], commit: u64, more: Vec<Record>) -> Vec<Group> {
    replay_as(true, entries, commit, more)
}

/// The same with items or as a log replica.
fn replay_as(stores: bool, entries: &[Entry], commit: u64, more: Vec<Record>) -> Vec<Group> {
    let mut replay = Replay::default();
    replay.take(record(PARENT, 0, created_as(stores, config(), LogPoint::default())), false).unwrap();
    for entry in entries {
        replay.take(record(PARENT, commit, RecordBody::Entry(entry.clone())), false).unwrap();
    }
    for record in more {
        replay.take(record, false).unwrap();
    }
    let groups = replay.finish(false).into_iter();
    groups.map(|(seed, state)| Group::new(seed, state, NODE, NOW, Prng::new(1))).collect()
}

fn keys(state: &State) -> String {
    let mut walk = state.tree.walk(Pages::default(), b"", b"", true);
    let mut keys = String::new();
    while walk.next().unwrap().is_some() {
        keys.push_str(std::str::from_utf8(walk.key()).unwrap());
    }
    keys
}

/// The child's configuration, as whoever applies the split makes it.
fn child_config(at: LogPoint) -> GroupConfig {
    let mut parent = config();
    let child = parent.child(&split(), at);
    parent.divide(&split(), at);
    assert_eq!(parent.last_child().as_ref(), Some(&child));
    child
}

#[test]
fn a_crash_behind_the_childs_first_record_finds_both_halves_with_what_they_wrote_since() {
    let (entries, at) = until_split();
    let (mut parents, mut childs) = (at, at);
    let more = vec![
        record(CHILD, at.slot.0, created(child_config(at), at)),
        record(CHILD, at.slot.0, RecordBody::Entry(put(CHILD, &mut childs, "y"))),
        record(CHILD, childs.slot.0, RecordBody::Promise),
        record(PARENT, at.slot.0, RecordBody::Entry(put(PARENT, &mut parents, "b"))),
        record(PARENT, parents.slot.0, RecordBody::Promise),
    ];
    let groups = replay(&entries, 0, more);
    let [parent, child] = &groups[..] else { panic!("{} groups", groups.len()) };
    assert_eq!((keys(parent.state()), keys(child.state())), ("ab".to_owned(), "yz".to_owned()));
    assert_eq!((parent.replica.config().end.as_slice(), parent.replica.config().division), (&b"m"[..], 1));
    assert_eq!(child.state().applied, childs);
    for group in &groups {
        // A repetition of the write of "z" is recognised, wherever it goes.
        assert!(group.state().sessions.find(&token(2)).is_some());
    }
}

#[test]
fn a_crash_before_the_childs_first_record_makes_it_again_once_the_split_is_known_to_be_committed() {
    let (entries, at) = until_split();
    let [parent] = &mut replay(&entries, at.slot.0, Vec::new())[..] else { panic!("one group") };
    let [child] = &parent.take_born()[..] else { panic!("one child") };
    assert_eq!((&child.config, keys(&child.state)), (&child_config(at), "z".to_owned()));
    assert_eq!(keys(parent.state()), "a");
    // As long as that is not known, nothing happened.
    let [parent] = &mut replay(&entries, 2, Vec::new())[..] else { panic!("one group") };
    assert_eq!((parent.take_born().len(), keys(parent.state())), (0, "az".to_owned()));
    assert_eq!(parent.replica.config(), &config());
}

#[test]
fn the_child_has_the_members_of_the_splits_entry_whatever_is_known_by_then() {
    let (entries, at) = until_split();
    let mut later = config();
    later.epoch = Epoch(later.epoch.0 + 9);
    // As of a learner, whose log begins behind what it knows of the group's members.
    let more = vec![record(PARENT, at.slot.0, created(later, LogPoint::default()))];
    let [parent] = &mut replay(&entries, 2, more)[..] else { panic!("one group") };
    let [Born { config, forgetful, .. }] = &parent.take_born()[..] else { panic!("one child") };
    assert_eq!((config, parent.replica.epoch().0 - config.epoch.0), (&child_config(at), 9));
    assert!(forgetful, "it may not vote for what it may have forgotten");
}

#[test]
fn a_copy_of_the_parents_state_from_behind_the_split_does_not_change_what_the_split_makes() {
    // A checkpoint began behind the split and was not completed: the parent is copied forward as it is then.
    let (entries, at) = until_split();
    let mut divided = config();
    divided.divide(&Split::decode(entries[2].payload()).unwrap(), at);
    let more = vec![record(PARENT, at.slot.0, created(divided, at))];
    let [parent] = &mut replay(&entries, at.slot.0, more)[..] else { panic!("one group") };
    let [Born { config, state, forgetful }] = &parent.take_born()[..] else { panic!("one child") };
    assert_eq!((config, keys(state), keys(parent.state())), (&child_config(at), "z".into(), "a".into()));
    assert!(!forgetful);
}

#[test]
fn a_snapshot_from_behind_a_split_is_preceded_by_the_split_where_its_entry_is_in_the_log() {
    let (entries, at) = until_split();
    let mut divided = config();
    divided.divide(&Split::decode(entries[2].payload()).unwrap(), at);
    let later = State {
        applied: LogPoint { slot: Slot(90), hash: Hash128::of(b"later") },
        ..State::of(PARENT, Version::default())
    };
    for (has_entry, born) in [(true, 1), (false, 0)] {
        let kept = if has_entry { 3 } else { 2 };
        let [group] = &mut replay(&entries[..kept], 2, Vec::new())[..] else { panic!("one group") };
        group.stage(divided.clone(), later.clone(), Arc::default());
        group.apply_committed(Now::new(NOW, 0), Causes::NONE, &mut Effects::new());
        assert_eq!(group.take_born().len(), born, "the entry is there: {has_entry}");
        assert!(group.staged.is_some(), "it is still behind the snapshot");
    }
}

#[test]
fn a_snapshot_from_behind_a_split_waits_while_the_log_may_be_found() {
    let member = |node| Member { node: NodeId(node), core: CoreId(0), incarnation: Incarnation([1; 16]) };
    let (leader, log_replica, ballot) = (NodeId(2), NodeId(3), Ballot { round: 4, node: NodeId(2) });
    let members = [1, 2, 3].map(member).to_vec();
    let group =
        GroupConfig { log_replicas: vec![log_replica], ..GroupConfig::whole(PARENT, TableId(1), members) };
    let (entries, at) = until_split();
    let mut divided = group.clone();
    divided.divide(&Split::decode(entries[2].payload()).unwrap(), at);
    let mut later = State::of(PARENT, Version::default());
    (later.applied, later.applied_ballot) = (at, BALLOT);
    let missing = vec![entries[2].bytes.clone()];
    for (found, born) in [(missing, "z"), (Vec::new(), "")] {
        let mut replay = Replay::default();
        let created = created(group.clone(), LogPoint::default());
        replay.take(record(PARENT, 0, created), false).unwrap();
        for entry in &entries[..2] {
            replay.take(record(PARENT, 2, RecordBody::Entry(entry.clone())), false).unwrap();
        }
        let (seed, state) = replay.finish(false).pop().unwrap();
        let mut group = Group::new(seed, state, NODE, NOW, Prng::new(1));
        let mut out = Vec::new();
        assert!(group.replica.accept_leader(NOW, leader, ballot, &mut out));
        group.replica.seek_log(NOW, at, &mut out);
        let asked = out.iter().find_map(|output| match output {
            Output::Send { to, message: Message::Fetch(fetch) } => Some((*to, fetch.after)),
            _ => None,
        });
        let (asked, previous) = asked.expect("somebody is asked");
        assert_eq!((asked, previous.slot), (log_replica, Slot(2)), "it has what storage replicas lack");
        group.stage(divided.clone(), later.clone(), Arc::default());
        let _image = group.image();
        assert!(group.holds_snapshot_back() && !group.checkpoint_holds_snapshot());
        group.checkpoint_cancelled();
        assert_eq!(keys(group.state()), "az", "both halves are here");

        let answer = Message::Fetched { ballot, previous, entries: found };
        group.receive(NOW, log_replica, answer, Packed::NONE, &mut out);
        group.apply_committed(Now::new(NOW, 0), Causes::NONE, &mut Effects::new());
        assert!(!group.holds_snapshot_back());
        let children = group.take_born();
        assert_eq!(children.iter().map(|child| keys(&child.state)).collect::<String>(), born);
        let _image = group.image();
        assert_eq!(
            group.checkpoint_holds_snapshot(),
            born.is_empty(),
            "where there is no log, there is that"
        );
    }
}

#[test]
fn items_that_come_to_a_log_replica_from_behind_a_split_are_preceded_by_the_split() {
    let (entries, at) = until_split();
    let mut divided = config();
    divided.divide(&Split::decode(entries[2].payload()).unwrap(), at);
    let [group] = &mut replay_as(false, &entries, 2, Vec::new())[..] else { panic!("one group") };
    group.expect(Some(at.slot));
    let mut items = State::of(PARENT, Version::default());
    (items.applied, items.applied_ballot) = (at, BALLOT);
    group.stage(divided.clone(), items, Arc::default());
    group.apply_committed(Now::new(NOW, 0), Causes::NONE, &mut Effects::new());
    assert!(group.take_born().is_empty() && group.state().log_only, "the split is not settled");
    let _image = group.image();
    group.checkpointed(Version::default());
    let [child] = &group.take_born()[..] else { panic!("one child") };
    assert_eq!((&child.config, child.state.log_only), (&child_config(at), true));
    assert_eq!((group.replica.config(), group.state().applied), (&divided, at));
    assert!(!group.state().log_only);
}

#[test]
fn a_half_that_a_snapshot_is_to_replace_gives_the_shared_tree_up_for_good() {
    let (entries, at) = until_split();
    let later = State {
        applied: LogPoint { slot: Slot(90), hash: Hash128::of(b"later") },
        ..State::of(PARENT, Version::default())
    };
    for (commit, shares) in [(at.slot.0, true), (2, false)] {
        let [group] = &mut replay(&entries, commit, Vec::new())[..] else { panic!("one group") };
        let config = group.replica.config().clone();
        group.stage(config, later.clone(), Arc::default());
        assert!(!group.gives_tree_up(), "no checkpoint holds the snapshot yet");
        let image = group.image().state;
        assert_eq!(image.applied, later.applied);
        // Otherwise its log might catch up, and the checkpoint would leave it with pages that it has freed.
        assert_eq!(group.gives_tree_up(), shares);
        group.checkpointed(Version::default());
        assert!(!group.gives_tree_up());
        assert_eq!((group.state().applied, group.state().tree.keep()), (later.applied, None));
    }
}

#[test]
fn a_replica_that_a_checkpoint_replaces_by_a_snapshot_is_not_split_meanwhile() {
    let (entries, at) = until_split();
    let later = State {
        applied: LogPoint { slot: Slot(90), hash: Hash128::of(b"later") },
        ..State::of(PARENT, Version::default())
    };
    let [group] = &mut replay(&entries, 2, Vec::new())[..] else { panic!("one group") };
    group.stage(config(), later.clone(), Arc::default());
    let _image = group.image();
    // It hears that the split is committed.
    group.replica.confirm(at);
    group.apply_committed(Now::new(NOW, 0), Causes::NONE, &mut Effects::new());
    assert!(group.stands_still() && group.take_born().is_empty());
    assert_eq!(group.state().slot(), Slot(2));
    group.checkpointed(Version::default());
    assert!(!group.stands_still() && group.take_born().is_empty());
    assert_eq!(group.state().applied, later.applied);
    // A checkpoint that is given up leaves it as it was.
    let [group] = &mut replay(&entries, 2, Vec::new())[..] else { panic!("one group") };
    group.stage(config(), later, Arc::default());
    let _image = group.image();
    group.replica.confirm(at);
    group.checkpoint_cancelled();
    group.apply_committed(Now::new(NOW, 0), Causes::NONE, &mut Effects::new());
    assert_eq!((group.take_born().len(), group.state().slot()), (1, at.slot));
}

/// The child on a member, with or without the parent's leader there; when it serves after its creation.
fn serves_after(parent_serves_from: Option<Boot>) -> Duration {
    let (entries, at) = until_split();
    let [parent] = &mut replay(&entries, at.slot.0, Vec::new())[..] else { panic!("one group") };
    let Born { config, state, .. } = parent.take_born().pop().unwrap();
    let seed = Seed {
        config,
        promised: Ballot::ZERO,
        log: GroupLog::new(state.applied, state.applied_ballot),
        commit: state.slot(),
        timestamp: state.timestamp,
        refilling: false,
        stores: true,
    };
    let mut child = Group::new(seed, state, NODE, NOW, Prng::new(1));
    child.replica.succeed(NOW, parent_serves_from);
    let mut now = NOW;
    while !child.is_ready(now) {
        let mut outputs = Vec::new();
        child.replica.tick(now, &mut outputs);
        // Its disk is quick.
        while let Some(place) = outputs.iter().position(|output| matches!(output, Output::Persist(_))) {
            outputs.remove(place);
            child.replica.persisted(now, &mut outputs);
        }
        child.apply_committed(Now::new(now, 0), Causes::NONE, &mut Effects::new());
        if !child.is_ready(now) {
            now = now.after(Duration::from_millis(1));
        }
    }
    now.since(NOW)
}

#[test]
fn the_parents_leader_serves_the_child_at_once_and_others_wait_for_leases_of_the_parent() {
    assert_eq!(serves_after(Some(Boot(0))), Duration::ZERO);
    // One that does not serve the parent yet, because an older leader may.
    let wait = Duration::from_millis(400);
    assert_eq!(serves_after(Some(NOW.after(wait))), wait);
    assert!(serves_after(None) >= LEASE_TERM + LEASE_DRIFT);
}
