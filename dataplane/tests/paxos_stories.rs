//! Protocol stories: each file in `stories/` is a script that a person can read. A line that begins with `>`
//! is a command; what follows it is the exact traffic that it causes. `UPDATE_STORIES=1 cargo test` writes
//! the traffic anew, for review.
//!
//! ```text
//! > run                  deliver messages and let records become durable, until nothing happens
//! > step                 the same, once: what was sent before is delivered, what was appended is durable
//! > wait 20ms            let time pass, in ticks of 20 ms, with everything that follows from it
//! > propose n1 2         let n1 propose two entries
//! > heartbeat n1         let n1 renew its leases with everybody who can hear it
//! > cut n1 / mend        nobody hears n1 / everybody hears everybody
//! > unlink n1            everybody else's links to n1 break
//! > unlink n1 n2         that of n2 does
//! > hold n2 / release n2 records of n2 do not become durable / they do
//! > crash n2 / start n2  n2 loses what is not durable / comes back with the rest
//! > damage n2            n2, which is down, loses its last two records although they were durable
//! > forget n1            n1 keeps no entries in memory that are committed
//! > drain n1             let n1 hand its leadership over
//! > court n1 n4          n1 invites n4, which has nothing of the group yet or has left it
//! > prepare n3 n2 5     n3, and nobody else, hears that n2 stands in round 5
//! > seek n3 n1           n3 is sent the state that n1 has, and asks the others for the log up to there
//! > outbid n1            n1, which leads, stands once more, above every ballot that it has heard of
//! > add n1 n4            n1 proposes that n4 is a member, with the log only unless it has the items
//! > remove n1 n3         n1 proposes that n3 is none
//! > status               how everybody stands
//! > group 1              instead of a group of three: begin with one of so many
//! ```

use bytes::Bytes;
use evenkeel_dataplane::partition::state::State;
use evenkeel_dataplane::paxos::log::GroupLog;
use evenkeel_dataplane::paxos::{Message, Output, Replica, Seed};
use evenkeel_dataplane::wal::record::{Record, RecordBody};
use evenkeel_dataplane::wal::replay::Replay;
use evenkeel_wire::entry::{Entry, EntryKind};
use evenkeel_wire::ids::{Ballot, CoreId, Incarnation, NodeId, PartitionId, Slot, TableId};
use evenkeel_wire::membership::Membership;
use evenkeel_wire::message::peer::{Invite, LogPoint, Prepare};
use evenkeel_wire::prng::Prng;
use evenkeel_wire::table::{GroupConfig, Member};
use evenkeel_wire::turn::Boot;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

const TICK: Duration = Duration::from_millis(20);

/// One member with its disk.
struct Actor {
    replica: Option<Replica>,
    durable: Vec<Record>,
    appended: VecDeque<Record>,
    held: bool,
    commit: Slot,
    leads: bool,
    damaged: bool,
}

struct Stage {
    now: Boot,
    config: GroupConfig,
    actors: BTreeMap<NodeId, Actor>,
    messages: VecDeque<(NodeId, NodeId, Message)>,
    cut: BTreeSet<NodeId>,
    said: String,
}

impl Stage {
    fn new(members: u32) -> Self {
        let config = GroupConfig::whole(PartitionId(1), TableId(1), (1..=members).map(member).collect());
        let mut stage = Self {
            now: Boot(1_000_000_000),
            config,
            actors: BTreeMap::new(),
            messages: VecDeque::new(),
            cut: BTreeSet::new(),
            said: String::new(),
        };
        for node in (1..=members).map(NodeId) {
            let actor = Actor {
                replica: None,
                durable: Vec::new(),
                appended: VecDeque::new(),
                held: false,
                commit: Slot::ZERO,
                leads: false,
                damaged: false,
            };
            stage.actors.insert(node, actor);
            stage.start(node);
        }
        stage
    }

    fn say(&mut self, line: &str) {
        self.said.push_str(line);
        self.said.push('\n');
    }

    fn start(&mut self, node: NodeId) {
        let actor = self.actors.get_mut(&node).expect("it is a member");
        let seed = if actor.durable.is_empty() {
            let log = GroupLog::new(LogPoint::default(), Ballot::ZERO);
            let (promised, commit) = (Ballot::ZERO, Slot::ZERO);
            Seed {
                config: self.config.clone(),
                promised,
                log,
                commit,
                timestamp: 0,
                refilling: false,
                stores: true,
            }
        } else {
            let mut replay = Replay::default();
            for record in &actor.durable {
                replay.take(record.clone(), actor.damaged).expect("the log chains");
            }
            let mut groups = replay.finish(actor.damaged);
            groups.pop().expect("the group was created").0
        };
        let prng = Prng::new(u64::from(node.0));
        let replica = Replica::new(seed, node, self.now, prng);
        if actor.durable.is_empty() {
            actor.durable.push(replica.state_record(replica.config().clone(), &State::default()));
        }
        actor.commit = replica.commit();
        actor.replica = Some(replica);
    }

    /// What the core of a node does that is invited and does not hold the group.
    fn welcome(&mut self, node: NodeId, invite: &Invite) {
        if self.actors.get(&node).is_some_and(|actor| !actor.durable.is_empty()) {
            return;
        }
        let state = State::of_log(invite.config.partition, invite.at, invite.at_ballot, invite.timestamp);
        let replica = Replica::new(Seed::invited(invite), node, self.now, Prng::new(u64::from(node.0)));
        let actor = Actor {
            durable: vec![replica.state_record(invite.config.clone(), &state)],
            commit: invite.at.slot,
            replica: Some(replica),
            appended: VecDeque::new(),
            held: self.actors.get(&node).is_some_and(|actor| actor.held),
            leads: false,
            damaged: false,
        };
        self.actors.insert(node, actor);
    }

    /// Lets the leader propose other members.
    fn change(&mut self, leader: NodeId, change: impl FnOnce(&Membership, &Replica) -> Membership) {
        self.act(leader, |replica, now, out| {
            let next = change(replica.memberships().latest(), replica);
            replica.propose_members(now, &next, replica.next_timestamp(0), out);
        });
        self.act(leader, Replica::end_turn);
    }

    /// Lets a replica act, and takes what it wants done.
    fn act(&mut self, node: NodeId, action: impl FnOnce(&mut Replica, Boot, &mut Vec<Output>)) {
        let now = self.now;
        let Some(replica) = self.actors.get_mut(&node).and_then(|actor| actor.replica.as_mut()) else {
            return;
        };
        let mut outputs = Vec::new();
        action(replica, now, &mut outputs);
        let (commit, leads) = (replica.commit(), replica.is_ready(now));
        for output in outputs {
            match output {
                Output::Persist(record) => {
                    self.say(&format!("{node} appends {}", show_record(&record)));
                    self.actors.get_mut(&node).expect("it acts").appended.push_back(record);
                }
                Output::Send { to, message } => {
                    self.say(&format!("{node} -> {to} {}", show(&message)));
                    self.messages.push_back((node, to, message));
                }
                Output::NeedsSnapshot { to } => self.say(&format!("{node} must send {to} a snapshot")),
                Output::MembersChanged => self.say(&format!("{node} has other members")),
                Output::LostLeadership => self.say(&format!("{node} no longer leads")),
            }
        }
        let actor = self.actors.get_mut(&node).expect("it acts");
        let (rose, changed) = (commit > actor.commit, leads != actor.leads);
        (actor.commit, actor.leads) = (commit, leads);
        if rose {
            self.say(&format!("{node} knows {commit} committed"));
        }
        if changed {
            self.say(&format!("{node} {}", if leads { "serves" } else { "no longer serves" }));
        }
    }

    /// Delivers what was sent and makes durable what was appended before. Returns whether anything happened.
    fn step(&mut self) -> bool {
        let nodes: Vec<NodeId> = self.actors.keys().copied().collect();
        let mut happened = false;
        let durable: Vec<(NodeId, usize)> = self
            .actors
            .iter()
            .filter(|(_, actor)| !actor.held && actor.replica.is_some())
            .map(|(node, actor)| (*node, actor.appended.len()))
            .collect();
        let messages = std::mem::take(&mut self.messages);
        for (node, count) in durable {
            for _ in 0..count {
                happened = true;
                let actor = self.actors.get_mut(&node).expect("it appended");
                let record = actor.appended.pop_front().expect("it was counted");
                actor.durable.push(record);
                self.act(node, Replica::persisted);
            }
        }
        for (from, to, message) in messages {
            if self.cut.contains(&from) || self.cut.contains(&to) {
                continue;
            }
            happened = true;
            if let Message::Invite(invite) = &message {
                self.welcome(to, invite);
            }
            self.act(to, |replica, now, out| replica.receive(now, from, message, out));
        }
        for node in nodes {
            self.act(node, Replica::end_turn);
        }
        happened || !self.messages.is_empty()
    }

    fn run(&mut self) {
        while self.step() {}
    }

    fn wait(&mut self, duration: Duration) {
        let until = self.now.after(duration);
        while self.now < until {
            self.now = self.now.after(TICK).min(until);
            let nodes: Vec<NodeId> = self.actors.keys().copied().collect();
            for node in nodes {
                self.act(node, Replica::tick);
            }
            self.run();
        }
    }

    fn heartbeat(&mut self, leader: NodeId) {
        let sent_at = self.now;
        let Some(group) =
            self.actors[&leader].replica.as_ref().and_then(|replica| replica.heartbeat(sent_at))
        else {
            return self.say(&format!("{leader} does not lead"));
        };
        let nodes: Vec<NodeId> = self.actors.keys().copied().collect();
        for node in nodes.into_iter().filter(|node| *node != leader) {
            if self.cut.contains(&leader) || self.cut.contains(&node) || self.actors[&node].replica.is_none()
            {
                continue;
            }
            let mut granted = Err(Ballot::ZERO);
            self.act(node, |replica, now, out| granted = replica.on_heartbeat(now, leader, &group, out));
            match granted {
                Ok(()) => {
                    self.say(&format!("{node} grants {leader} a lease under {}", group.ballot));
                    self.act(leader, |replica, now, _| replica.on_grant(now, node, group.ballot, sent_at));
                }
                Err(promised) => {
                    self.say(&format!("{node} grants no lease, it has promised {promised}"));
                    self.act(leader, |replica, now, out| {
                        replica.on_lease_refused(now, node, promised, out);
                    });
                }
            }
        }
        self.act(leader, Replica::end_turn);
    }

    fn status(&mut self) {
        let nodes: Vec<NodeId> = self.actors.keys().copied().collect();
        for node in nodes {
            let line = match &self.actors[&node].replica {
                None => "is down".to_owned(),
                Some(replica) => {
                    let role = if replica.is_ready(self.now) {
                        "leads and serves"
                    } else if replica.is_leader() {
                        "leads"
                    } else if replica.is_candidate() {
                        "stands"
                    } else {
                        "follows"
                    };
                    let voice = if replica.is_refilling() { ", does not vote" } else { "" };
                    let end = replica.log().end();
                    let (promised, durable, commit) =
                        (replica.promised(), replica.durable(), replica.commit());
                    format!(
                        "{role}{voice}: promised {promised}, log to {}@{}, durable {durable}, \
                         committed {commit}",
                        end.slot, end.ballot
                    )
                }
            };
            self.say(&format!("{node} {line}"));
        }
    }

    fn command(&mut self, command: &str) {
        let words: Vec<&str> = command.split_whitespace().collect();
        let named = |word: &str| -> NodeId {
            let number = word.strip_prefix('n').and_then(|number| number.parse().ok());
            NodeId(number.expect("a node is named n1, n2 or n3"))
        };
        let node = || named(words[1]);
        match words[0] {
            "run" => self.run(),
            "step" => {
                self.step();
            }
            "wait" => {
                let millis = words[1].strip_suffix("ms").and_then(|millis| millis.parse().ok());
                self.wait(Duration::from_millis(millis.expect("a time is given as 20ms")));
            }
            "propose" => {
                let count: u64 = words.get(2).map_or(1, |count| count.parse().expect("a count"));
                self.act(node(), |replica, _, out| {
                    for _ in 0..count {
                        let timestamp = replica.next_timestamp(0);
                        replica.propose(EntryKind::Noop, timestamp, 1, |out| out.push(b'x'), out);
                    }
                });
                self.act(node(), Replica::end_turn);
            }
            "heartbeat" => self.heartbeat(node()),
            "cut" => {
                self.cut.insert(node());
            }
            "mend" => self.cut.clear(),
            "unlink" => {
                let (lost, now) = (node(), self.now);
                let of = words.get(2).map(|word| named(word));
                let actors = self
                    .actors
                    .iter_mut()
                    .filter(|(actor, _)| **actor != lost && of.is_none_or(|of| of == **actor));
                for replica in actors.filter_map(|(_, actor)| actor.replica.as_mut()) {
                    replica.leader_link_lost(now, lost);
                }
            }
            "hold" => self.actors.get_mut(&node()).expect("one of three").held = true,
            "release" => self.actors.get_mut(&node()).expect("one of three").held = false,
            "crash" => {
                let actor = self.actors.get_mut(&node()).expect("one of three");
                actor.replica = None;
                actor.appended.clear();
                actor.leads = false;
                self.messages.retain(|(_, to, _)| *to != node());
            }
            "start" => self.start(node()),
            "damage" => {
                let actor = self.actors.get_mut(&node()).expect("one of three");
                let left = actor.durable.len() - 2;
                actor.durable.truncate(left);
                actor.damaged = true;
            }
            "forget" => {
                if let Some(replica) = &mut self.actors.get_mut(&node()).expect("one of three").replica {
                    replica.trim(replica.commit(), 0);
                }
            }
            "drain" => self.act(node(), |replica, now, out| {
                replica.hand_over(now, out);
            }),
            "court" => {
                let member = member(named(words[2]).0);
                self.act(node(), |replica, now, _| replica.court(now, member));
                self.act(node(), Replica::end_turn);
            }
            "prepare" => {
                let candidate = named(words[2]);
                let round = words[3].parse().expect("a round");
                let ballot = Ballot { round, node: candidate };
                let message = Message::Prepare(Prepare { ballot, life: 0 });
                self.act(node(), |replica, now, out| replica.receive(now, candidate, message, out));
                self.act(node(), Replica::end_turn);
            }
            "seek" => {
                let leader = self.actors[&named(words[2])].replica.as_ref().expect("it runs");
                let goal = leader.log().point(leader.commit()).expect("it is at hand");
                self.act(node(), |replica, now, out| replica.seek_log(now, goal, out));
            }
            "outbid" => {
                self.act(node(), Replica::outbid);
                self.act(node(), Replica::end_turn);
            }
            "add" => {
                let added = member(named(words[2]).0);
                let replica = self.actors[&node()].replica.as_ref().expect("it runs");
                let health = replica.health(Boot(0), |_| None);
                if !health.iter().any(|health| health.member == added && health.is_close) {
                    return self.say(&format!("{} waits until {} is close, and votes", node(), added.node));
                }
                self.change(node(), |members, replica| {
                    let mut others = replica.health(Boot(0), |_| None).into_iter();
                    let stores = others.any(|health| health.member == added && health.stores);
                    members.with(added, !stores)
                });
            }
            "remove" => {
                let removed = named(words[2]);
                self.change(node(), |members, _| members.without(removed));
            }
            "status" => self.status(),
            "group" => *self = Self::new(words[1].parse().expect("a count of members")),
            other => panic!("unknown command {other}"),
        }
    }
}

fn member(number: u32) -> Member {
    Member { node: NodeId(number), core: CoreId(0), incarnation: Incarnation([number as u8; 16]) }
}

fn show_record(record: &Record) -> String {
    match &record.body {
        RecordBody::Entry(entry) => format!("entry {}", show_entry(entry)),
        RecordBody::Promise => format!("promise {}", record.promised),
        RecordBody::Supersede(slot) => format!("supersede from {slot}"),
        RecordBody::State(_) => "state".to_owned(),
        RecordBody::Removed => "removed".to_owned(),
    }
}

fn show_entry(entry: &Entry) -> String {
    format!("{}@{}", entry.header.slot, entry.header.ballot)
}

fn show_entries(entries: &[Bytes]) -> String {
    let mut text = String::new();
    for bytes in entries {
        let entry = Entry::take(&mut bytes.clone()).expect("replicas send entries");
        let _ = write!(text, " {}", show_entry(&entry));
    }
    if text.is_empty() { " nothing".to_owned() } else { text }
}

fn show(message: &Message) -> String {
    match message {
        Message::Prepare(Prepare { ballot, life: 0 }) => format!("Prepare {ballot}"),
        Message::Prepare(Prepare { ballot, life: _ }) => format!("Prepare {ballot}, with a lost memory"),
        Message::Promise(body) => format!(
            "Promise {} (before: {}), log to {}@{}, committed {}",
            body.ballot, body.previous, body.last.slot, body.last.ballot, body.commit
        ),
        Message::Refuse(body) => format!("Refuse, promised {}", body.promised),
        Message::Fetch(body) => format!("Fetch {} after {}", body.ballot, body.after.slot),
        Message::Fetched { ballot, previous, entries } => {
            format!("Fetched {ballot} after {}:{}", previous.slot, show_entries(entries))
        }
        Message::Accept { ballot, previous, commit, settled: _, entries } => {
            format!("Accept {ballot} after {}:{}, committed {commit}", previous.slot, show_entries(entries))
        }
        Message::Accepted(body) => {
            let vote = if body.votes { "" } else { ", without a vote" };
            let stores = if body.stores { "" } else { ", without items" };
            format!("Accepted {} to {}{vote}{stores}", body.ballot, body.matched)
        }
        Message::Rejected(body) => {
            format!("Rejected {}: {:?}, promised {}", body.ballot, body.reason, body.promised)
        }
        Message::Suspect(_) => "Suspect?".to_owned(),
        Message::SuspectAnswer(body) => {
            if body.healthy { "the leader is healthy" } else { "I know of no healthy leader" }.to_owned()
        }
        Message::HandOver(body) => format!(
            "HandOver of {}, {} ms still to wait",
            body.relinquished.ballot,
            body.relinquished.wait_us / 1000
        ),
        Message::Invite(body) => format!("Invite to a log from {} on", body.at.slot),
        Message::Rejoin(_) => "Rejoin?".to_owned(),
        Message::RejoinAnswer(body) => format!("Rejoin with {} of {}", body.slot, body.ballot),
    }
}

/// Plays a story: the script with the traffic that was seen.
fn play(script: &str) -> String {
    let mut stage = Stage::new(3);
    let mut played = String::new();
    for line in script.lines() {
        if let Some(command) = line.strip_prefix("> ") {
            let command = command.split('#').next().unwrap_or(command);
            stage.command(command);
            let said = std::mem::take(&mut stage.said);
            let _ = write!(played, "{line}\n{said}");
        } else if line.starts_with('#') || line.is_empty() {
            let _ = writeln!(played, "{line}");
        }
    }
    played
}

#[test]
fn every_story_goes_as_it_is_told() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stories");
    let update = std::env::var_os("UPDATE_STORIES").is_some();
    let mut stories: Vec<_> =
        std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    stories.sort();
    assert!(stories.len() >= 10, "the stories are there");
    for path in stories {
        let script = std::fs::read_to_string(&path).unwrap();
        let played = play(&script);
        if update {
            std::fs::write(&path, &played).unwrap();
            continue;
        }
        assert_eq!(played, script, "{} goes differently", path.display());
    }
}
