//! A way through the states, told to a person.

use super::member::{EntryId, Member, node};
use super::network::{Letter, Said};
use super::world::{Action, World};
use bytes::Bytes;
use evenkeel_dataplane::paxos::Message;
use evenkeel_wire::entry::Entry;
use evenkeel_wire::message::peer::{Heartbeat, HeartbeatAnswer, HeartbeatGroup};
use std::fmt::Write as _;

/// Tells a path: each action, and how those whom it changed stand afterwards.
pub(crate) fn tell(path: Vec<(World, Option<Action>)>) -> String {
    let mut told = String::new();
    let afterwards = path.iter().skip(1).map(|(world, _)| world);
    for (number, ((before, action), after)) in path.iter().zip(afterwards).enumerate() {
        let Some(action) = action else {
            continue;
        };
        let _ = writeln!(told, "  {:>3}. {}", number + 1, show_action(before, *action));
        for place in 0..before.members.len() {
            if before.members[place].digest != after.members[place].digest && *action != Action::Time {
                let _ = writeln!(told, "       {}", show_member(after, place));
            }
        }
        let new = |letter: &&std::sync::Arc<Letter>| {
            before.network.letters().iter().all(|known| known.digest != letter.digest)
        };
        for letter in after.network.letters().iter().filter(new) {
            let _ = writeln!(told, "       sent: {}", show_letter(letter));
        }
        if after.history.acknowledged != before.history.acknowledged {
            let _ = writeln!(told, "       a client is told that its write is done");
        }
        if let Some(broken) = after.broken {
            let _ = writeln!(told, "       => {broken:?}");
        }
    }
    told
}

fn show_action(world: &World, action: Action) -> String {
    let letter = |index: usize| show_letter(&world.network.letters()[index]);
    match action {
        Action::Deliver(index) => format!("arrives: {}", letter(index)),
        Action::Duplicate(index) => format!("arrives, and will again: {}", letter(index)),
        Action::Lose(index) => format!("is lost: {}", letter(index)),
        Action::Persist(place) => format!("{}: what it appended is durable", node(place)),
        Action::Tick(place) => format!("{} looks at the time", node(place)),
        Action::Heartbeat(place) => format!("{} renews its lease", node(place)),
        Action::Time => format!("time passes; it is step {}", world.steps + 1),
        Action::Submit(place, write) => format!("a client sends write {write} to {}", node(place)),
        Action::Crash(place, survive) => format!(
            "{} crashes with {survive} of {} records that were under way, and starts again",
            node(place),
            world.members[place].appended.len()
        ),
        Action::HandOver(place) => format!("{} gives its lease up", node(place)),
    }
}

fn show_member(world: &World, place: usize) -> String {
    let (now, member): (_, &Member) = (world.now(place), &world.members[place]);
    let replica = &member.group.replica;
    let role = if member.serves {
        "serves"
    } else if replica.is_leader() {
        "leads"
    } else if replica.is_candidate() {
        "stands"
    } else {
        "follows"
    };
    let lease = if replica.holds_lease(now) { ", has a lease" } else { "" };
    let rest = if member.is_at_rest() { ", at rest" } else { "" };
    format!(
        "{} {role}{lease}{rest}: promised {} (durable {}), log {}, durable {}, committed {}, under way {}",
        node(place),
        replica.promised(),
        member.durable.promised,
        show_log(&member.entries),
        show_log(&member.durable.entries),
        replica.commit(),
        member.appended.len(),
    )
}

fn show_log(entries: &[EntryId]) -> String {
    let show = |entry: &EntryId| match entry.write {
        Some(write) => format!("w{write}@{}", entry.ballot),
        None => format!("-@{}", entry.ballot),
    };
    format!("[{}]", entries.iter().map(show).collect::<Vec<_>>().join(" "))
}

fn show_letter(letter: &Letter) -> String {
    let said = match &letter.said {
        Said::Message(message) => show_message(message),
        Said::Heartbeat { group, .. } => format!(
            "heartbeat of {}, committed {}, {}",
            group.ballot,
            group.commit,
            if group.holds_lease { "with a lease" } else { "without a lease" }
        ),
        Said::HeartbeatAnswer { ballot, granted: Ok(()), .. } => format!("a lease for {ballot}"),
        Said::HeartbeatAnswer { granted: Err(promised), .. } => format!("no lease, promised {promised}"),
        Said::Roll(heartbeat) => show_roll(heartbeat),
        Said::RollAnswer(answer) => show_roll_answer(answer),
    };
    format!("{} -> {} {said}", letter.from, letter.to)
}

fn show_roll(heartbeat: &Heartbeat) -> String {
    let Heartbeat { roll, since, version, changes, .. } = heartbeat;
    let mut text = format!("roll {roll}, version {version}, changes since {since}:");
    for HeartbeatGroup { ballot, commit, holds_lease, .. } in changes {
        let lease = if *holds_lease { "with a lease" } else { "without a lease" };
        let _ = write!(text, " {ballot}, committed {commit}, {lease}");
    }
    if changes.is_empty() { text + " none" } else { text }
}

fn show_roll_answer(answer: &HeartbeatAnswer) -> String {
    let HeartbeatAnswer { version, exceptions, .. } = answer;
    let mut text = format!("has version {version}");
    for exception in exceptions {
        let _ = write!(text, ", but has promised {}", exception.promised);
    }
    text
}

fn show_message(message: &Message) -> String {
    match message {
        Message::Prepare(body) => format!("Prepare {}", body.ballot),
        Message::Promise(body) => format!(
            "Promise {} (before: {}), log to {}@{}",
            body.ballot, body.previous, body.last.slot, body.last.ballot
        ),
        Message::Refuse(body) => format!("Refuse, promised {}", body.promised),
        Message::Fetch(body) => format!("Fetch {} after {}", body.ballot, body.after.slot),
        Message::Fetched { ballot, previous, entries } => {
            format!("Fetched {ballot} after {}:{}", previous.slot, show_entries(entries))
        }
        Message::Accept { ballot, previous, commit, settled: _, entries } => {
            format!("Accept {ballot} after {}:{}, committed {commit}", previous.slot, show_entries(entries))
        }
        Message::Accepted(body) => format!("Accepted {} to {}", body.ballot, body.matched),
        Message::Rejected(body) => {
            format!("Rejected {}: {:?}, promised {}", body.ballot, body.reason, body.promised)
        }
        Message::Suspect(_) => "Suspect?".to_owned(),
        Message::SuspectAnswer(body) => {
            if body.healthy { "the leader is healthy" } else { "I know of no healthy leader" }.to_owned()
        }
        Message::HandOver(body) => format!("HandOver of {}", body.relinquished.ballot),
        Message::Invite(invite) => format!("Invite to a log from {} on", invite.at.slot),
        Message::Rejoin(_) | Message::RejoinAnswer(_) => format!("{message:?}"),
    }
}

fn show_entries(entries: &[Bytes]) -> String {
    let mut text = String::new();
    for bytes in entries {
        let entry = Entry::take(&mut bytes.clone()).expect("replicas send entries");
        let _ = write!(text, " {}@{}", entry.header.slot, entry.header.ballot);
    }
    if text.is_empty() { " nothing".to_owned() } else { text }
}
