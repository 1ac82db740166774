//! Questions to MemDS: constant work.
//!
//! Every key that a client names becomes one look-up at each of two servers, whether the cache knows its
//! route or not: so what MemDS has to do depends on the traffic and on nothing else. Look-ups travel
//! together: one frame per server and [`LOOKUP_FRAME_EVERY`], or a few when there are very many. A request
//! that waits for its route is no exception, or a flushed cache would cost MemDS more than a warm one; one
//! that comes after a pause goes at once.

use crate::flight::FlightId;
use crate::limits::{LOOKUP_FRAME_EVERY, LOOKUP_FRAMES_MAX, LOOKUP_KEYS_MAX};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::message::routing::{Lookup, LookupKey};
use evenkeel_wire::turn::{Boot, Effects, Endpoint};
use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;

/// Look-ups that are being gathered, and those that are unanswered.
#[derive(Debug)]
pub struct Lookups {
    servers: Vec<SocketAddr>,
    keys: Vec<LookupKey<'static>>,
    /// Who waits for each key; none: the answer only refreshes the cache.
    waiting: Vec<Option<Waiting>>,
    unanswered: BTreeMap<SocketAddr, VecDeque<Asked>>,
    next_request: u64,
    sent: u64,
    /// When the next frame may go.
    due: Boot,
}

/// A request that waits for a look-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// The request.
    pub flight: FlightId,
    /// How often it had been sent when it asked: tells its look-ups apart.
    pub attempts: u8,
}

/// A request to a server, and who waits for each of its keys.
type Asked = (RequestId, Vec<Option<Waiting>>);

/// How many servers are asked about each key.
pub const SERVERS_ASKED: usize = 2;

impl Lookups {
    /// Look-ups at two of `servers`, chosen by `seed` where there are more.
    #[must_use]
    pub fn new(servers: &[SocketAddr], seed: u64) -> Self {
        let mut servers = servers.to_vec();
        if !servers.is_empty() {
            let rotation = seed as usize % servers.len();
            servers.rotate_left(rotation);
        }
        servers.truncate(SERVERS_ASKED);
        Self {
            servers,
            keys: Vec::new(),
            waiting: Vec::new(),
            unanswered: BTreeMap::new(),
            next_request: 0,
            sent: 0,
            due: Boot(0),
        }
    }

    /// How many servers will answer.
    #[must_use]
    pub fn servers(&self) -> u8 {
        self.servers.len() as u8
    }

    /// Keys sent so far, summed over servers.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// Asks for a key with the next frame.
    pub fn ask(&mut self, key: LookupKey<'static>, waiting: Option<Waiting>) {
        self.keys.push(key);
        self.waiting.push(waiting);
    }

    /// When a frame is to go, if one waits.
    #[must_use]
    pub fn wake_at(&self) -> Boot {
        if self.keys.is_empty() { Boot::NEVER } else { self.due }
    }

    /// Sends what was gathered, if its time has come. Returns who was forgotten by a server that answers too
    /// slowly.
    pub fn end_turn(&mut self, now: Boot, out: &mut Effects) -> Vec<Waiting> {
        let mut forgotten = Vec::new();
        if now < self.due && self.keys.len() < LOOKUP_KEYS_MAX {
            return forgotten;
        }
        while self.keys.len() > LOOKUP_KEYS_MAX {
            let later = (self.keys.split_off(LOOKUP_KEYS_MAX), self.waiting.split_off(LOOKUP_KEYS_MAX));
            self.send(&mut forgotten, out);
            (self.keys, self.waiting) = later;
        }
        if !self.keys.is_empty() {
            self.send(&mut forgotten, out);
            self.due = now.after(LOOKUP_FRAME_EVERY);
        }
        forgotten
    }

    /// Sends what was gathered in one frame per server.
    fn send(&mut self, forgotten: &mut Vec<Waiting>, out: &mut Effects) {
        let lookup = Lookup { keys: std::mem::take(&mut self.keys) };
        self.next_request += 1;
        let request = RequestId(self.next_request);
        for server in &self.servers {
            out.ask(Endpoint::Outgoing(*server), request, &lookup);
            self.sent += lookup.keys.len() as u64;
            let unanswered = self.unanswered.entry(*server).or_default();
            if unanswered.len() == LOOKUP_FRAMES_MAX {
                let (_, waiting) = unanswered.pop_front().expect("it is full");
                forgotten.extend(waiting.into_iter().flatten());
            }
            unanswered.push_back((request, self.waiting.clone()));
        }
        self.waiting.clear();
        self.keys = lookup.keys;
        self.keys.clear();
    }

    /// Who waits for the keys of an answered frame, in their order.
    pub fn answered(&mut self, server: SocketAddr, request: RequestId) -> Option<Vec<Option<Waiting>>> {
        let unanswered = self.unanswered.get_mut(&server)?;
        let place = unanswered.iter().position(|(other, _)| *other == request)?;
        unanswered.remove(place).map(|(_, waiting)| waiting)
    }

    /// A server's link is down. Returns who waited for it.
    pub fn lost(&mut self, server: SocketAddr) -> Vec<Waiting> {
        let unanswered = self.unanswered.remove(&server).unwrap_or_default();
        unanswered.into_iter().flat_map(|(_, waiting)| waiting).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// Asks for a name, for somebody who waits or not, and ends the turn. Returns to how many servers frames
    /// go.
    fn ask(lookups: &mut Lookups, now: Boot, waits: bool) -> usize {
        let waiting = waits.then_some(Waiting { flight: FlightId(1), attempts: 0 });
        lookups.ask(LookupKey::Name("t".to_owned()), waiting);
        end_turn(lookups, now)
    }

    fn end_turn(lookups: &mut Lookups, now: Boot) -> usize {
        let mut out = Effects::new();
        assert!(lookups.end_turn(now, &mut out).is_empty());
        out.take_outboxes().count()
    }

    #[test]
    fn frames_are_as_many_whether_somebody_waits_or_not() {
        let servers = [901, 902].map(|port| ([127, 0, 0, 1], port).into());
        for waits in [false, true] {
            let (mut lookups, start) = (Lookups::new(&servers, 0), Boot(1_000_000_000));
            assert_eq!(ask(&mut lookups, start, waits), 2, "the first after a pause goes at once");
            let soon = start.after(LOOKUP_FRAME_EVERY / 2);
            assert_eq!((ask(&mut lookups, soon, waits), ask(&mut lookups, soon, waits)), (0, 0));
            assert_eq!(lookups.wake_at(), start.after(LOOKUP_FRAME_EVERY));
            let due = lookups.wake_at();
            assert_eq!((end_turn(&mut lookups, due), lookups.sent()), (2, 6), "three keys, twice");
            assert_eq!((lookups.wake_at(), end_turn(&mut lookups, due)), (Boot::NEVER, 0));
            let later = due.after(LOOKUP_FRAME_EVERY + Duration::from_secs(1));
            assert_eq!(ask(&mut lookups, later, waits), 2);
        }
    }
}
