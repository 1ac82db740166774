//! The connections of an async client, and which of them a request goes to.
//!
//! A *slot* stands for one of the client's connections and has at most one *line*, which may be opening or
//! open. A slot whose line is gone is filled again when something is to be sent. A line that is too old for a
//! request, because others failed or the clock was corrected since it was opened, loses its slot: what is
//! under way on it is still waited for, then it is closed.

use super::line::Line;
use crate::config::Settings;
use crate::protocol::call::Wish;
use evenkeel_wire::turn::Boot;
use std::collections::BTreeMap;
use std::time::Duration;

/// A slot whose endpoints all failed is left alone for this long, unless there is no other.
pub(super) const REOPEN_AFTER: Duration = Duration::from_millis(250);

/// See the module.
#[derive(Debug)]
pub(super) struct Slots {
    endpoints: Vec<String>,
    slots: Vec<Slot>,
    /// By their keys in the poller.
    lines: BTreeMap<usize, Line>,
    next_key: usize,
    wanted: Vec<Wanted>,
}

#[derive(Debug)]
struct Slot {
    line: Option<usize>,
    /// Place of the endpoint that is tried first.
    endpoint: usize,
    closed_until: Boot,
}

/// A line whose endpoints are to be resolved, in the order in which they are tried.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) key: usize,
    pub(super) endpoints: Vec<String>,
}

impl Slots {
    pub(super) fn new(settings: Settings) -> Self {
        let slot =
            |place| Slot { line: None, endpoint: place % settings.endpoints.len(), closed_until: Boot(0) };
        Self {
            slots: (0..settings.connections).map(slot).collect(),
            endpoints: settings.endpoints,
            lines: BTreeMap::new(),
            next_key: 0,
            wanted: Vec::new(),
        }
    }

    pub(super) fn line(&mut self, key: usize) -> Option<&mut Line> {
        self.lines.get_mut(&key)
    }

    pub(super) fn keys(&self) -> Vec<usize> {
        self.lines.keys().copied().collect()
    }

    /// Fills all slots. Returns the first line.
    pub(super) fn open_all(&mut self) -> usize {
        for slot in 1..self.slots.len() {
            self.fill(slot);
        }
        self.fill(0)
    }

    /// The line for a request: an open one, or one that is opening, or one that is opened for it.
    pub(super) fn choose(&mut self, wish: Wish, now: Boot) -> usize {
        for slot in 0..self.slots.len() {
            let line = self.slots[slot].line.and_then(|key| self.lines.get(&key));
            if line.is_some_and(|line| line.was_opened_before(wish.opened_after)) {
                self.vacate(slot, wish.elsewhere);
            }
        }
        let lines = self.slots.iter().filter_map(|slot| slot.line);
        let open = lines.filter(|key| self.lines.get(key).is_some_and(Line::is_open));
        if let Some(key) = open.min_by_key(|key| self.lines[key].requests.len()) {
            let empty = |slot: &Slot| slot.line.is_none() && slot.closed_until <= now;
            if let Some(slot) = self.slots.iter().position(empty) {
                self.fill(slot);
            }
            return key;
        }
        let opening = self.slots.iter().position(|slot| slot.line.is_some());
        self.fill(opening.unwrap_or(0))
    }

    /// Takes a slot's line out of use.
    fn vacate(&mut self, slot: usize, elsewhere: bool) {
        let slot = &mut self.slots[slot];
        slot.endpoint = (slot.endpoint + usize::from(elsewhere)) % self.endpoints.len();
        if let Some(key) = slot.line.take() {
            self.close_if_unused(key);
        }
    }

    /// The line of a slot, opened if there is none.
    fn fill(&mut self, slot: usize) -> usize {
        if let Some(key) = self.slots[slot].line {
            return key;
        }
        let (first, count) = (self.slots[slot].endpoint, self.endpoints.len());
        let endpoints = self.endpoints.iter().cycle().skip(first).take(count).cloned();
        let key = self.open_line(endpoints.collect());
        self.slots[slot].line = Some(key);
        key
    }

    /// A line to the first of these endpoints that can be reached. It has no slot: it is closed after use.
    pub(super) fn open_line(&mut self, endpoints: Vec<String>) -> usize {
        let key = self.next_key;
        self.next_key += 1;
        self.lines.insert(key, Line::new(key));
        self.wanted.push(Wanted { key, endpoints });
        key
    }

    /// Takes a line away, and leaves its slot alone for a while.
    pub(super) fn remove(&mut self, key: usize, closed_until: Boot) -> Option<Line> {
        for slot in self.slots.iter_mut().filter(|slot| slot.line == Some(key)) {
            slot.line = None;
            slot.closed_until = closed_until;
        }
        self.lines.remove(&key)
    }

    /// Closes a line that has no slot, once nothing is under way on it.
    pub(super) fn close_if_unused(&mut self, key: usize) {
        let has_slot = self.slots.iter().any(|slot| slot.line == Some(key));
        if !has_slot && self.lines.get(&key).is_some_and(Line::is_unused) {
            self.lines.remove(&key);
        }
    }

    pub(super) fn take_wanted(&mut self) -> Vec<Wanted> {
        std::mem::take(&mut self.wanted)
    }

    pub(super) fn has_wanted(&self) -> bool {
        !self.wanted.is_empty()
    }
}
