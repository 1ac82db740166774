//! Is a history linearizable? Wing and Gong's search with Lowe's memoisation ("Testing for linearizability",
//! 2017), for one key at a time: operations on different keys commute, so each key's history is checked
//! alone.
//!
//! A read that can be placed is placed before anything else is tried: what might come before it can as well
//! come behind it.
//!
//! An operation without a return may have taken effect at any time after its call, or never. Many of them
//! make the search try very many orders where there is none: after a number of steps, [`sets`] decides.

pub mod sets;

use self::sets::Refused;
use ahash::{HashSet, HashSetExt};
use evenkeel_wire::prng::Prng;
use std::hash::Hash;

/// What the operations act on.
pub trait Model {
    /// The state of one key.
    type State: Clone + Eq + Hash;
    /// An operation, with what was observed of its result.
    type Operation: PartialEq;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// The state after `operation`, if what was observed of it is possible in `state`.
    fn apply(&self, state: &Self::State, operation: &Self::Operation) -> Option<Self::State>;

    /// Whether `operation` changes nothing, in whatever state it is possible.
    fn reads(&self, operation: &Self::Operation) -> bool;

    /// The value that `operation` tells from all others, by what was observed of it or by its condition.
    fn mentions(&self, operation: &Self::Operation) -> Option<u64>;

    /// `state`, where all values that nobody tells from others are the same one.
    fn blur(&self, state: Self::State, is_mentioned: &dyn Fn(u64) -> bool) -> Self::State;

    /// `operation`, where all values that it writes and nobody tells from others are the same one.
    fn blur_operation(
        &self,
        operation: &Self::Operation,
        is_mentioned: &dyn Fn(u64) -> bool,
    ) -> Self::Operation;
}

/// An operation in a history.
#[derive(Clone, Debug)]
pub struct Call<O> {
    /// When it was called.
    pub called: u64,
    /// When it returned; none: nobody learned.
    pub returned: Option<u64>,
    /// What it was, and what came back.
    pub operation: O,
}

/// Why a history is not linearizable: how far the search came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotLinearizable {
    /// Operations, by their place in the history, in the longest order that was possible.
    pub longest: Vec<usize>,
    /// Operations with a return that could not be placed behind it.
    pub stuck: Vec<usize>,
}

/// Finds an order of the operations that explains what was observed.
///
/// # Errors
/// [`NotLinearizable`] when there is none.
pub fn check<M: Model>(model: &M, history: &[Call<M::Operation>]) -> Result<(), NotLinearizable> {
    let mut search = Search::new(model, history);
    let is_possible = search.run(STEPS_MIN + STEPS_PER_CALL * history.len());
    let is_possible = is_possible.unwrap_or_else(|| match sets::check(model, history) {
        Ok(()) => true,
        Err(Refused::Impossible(_)) => false,
        Err(Refused::TooMany) => {
            Search::new(model, history).run(usize::MAX).expect("so many steps are never taken")
        }
    });
    if is_possible { Ok(()) } else { Err(search.failure()) }
}

/// Steps of the search before it is given up: where there is an order, it rarely goes back.
const STEPS_PER_CALL: usize = 8;
const STEPS_MIN: usize = 100_000;

/// The search goes through the events of a history, in a list from which what is placed is taken out: first
/// the calls and returns of operations that returned, by time, then the calls of those that did not, which
/// are tried last. Placing an operation costs as much as there are operations under way at its time, however
/// long the history is.
struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Call<M::Operation>],
    events: Vec<Event>,
    /// The event of each operation's call; its return, if it has one.
    places: Vec<(usize, Option<usize>)>,
    /// A random number for each operation; all of a set, by exclusive or, name the set.
    names: Vec<u128>,
    /// Sets that were placed and the states that they led to. Should two sets have the same name, a history
    /// may be refused that is possible; one that is not is never taken.
    seen: HashSet<(u128, M::State)>,
    done: u128,
    path: Vec<(usize, M::State)>,
    returns_left: usize,
    longest: Vec<usize>,
    /// How much of `longest` is the beginning of `path`.
    shared: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    /// The beginning of one of the two lists.
    Head,
    Call(usize),
    Return(u64),
}

#[derive(Clone, Copy, Debug)]
struct Event {
    what: What,
    previous: usize,
    next: usize,
}

/// The head of those that returned, and of those that did not. Each list is a ring.
const RETURNED: usize = 0;
const OPEN: usize = 1;

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Call<M::Operation>]) -> Self {
        let mut prng = Prng::new(history.len() as u64);
        let mut name = || u128::from(prng.next_u64()) << 64 | u128::from(prng.next_u64());
        let mut search = Self {
            model,
            history,
            events: [RETURNED, OPEN].map(|at| Event { what: What::Head, previous: at, next: at }).to_vec(),
            places: vec![(0, None); history.len()],
            names: history.iter().map(|_| name()).collect(),
            seen: HashSet::new(),
            done: 0,
            path: Vec::new(),
            returns_left: history.iter().filter(|call| call.returned.is_some()).count(),
            longest: Vec::new(),
            shared: 0,
        };
        // At the same instant a call comes before a return: the two are concurrent.
        let mut order: Vec<(u64, bool, usize)> = Vec::new();
        for (index, call) in history.iter().enumerate() {
            order.push((call.called, false, index));
            order.extend(call.returned.map(|at| (at.max(call.called), true, index)));
        }
        order.sort_unstable();
        for (at, is_return, index) in order {
            let head = if history[index].returned.is_some() { RETURNED } else { OPEN };
            let what = if is_return { What::Return(at) } else { What::Call(index) };
            let place = search.append(head, what);
            if is_return {
                search.places[index].1 = Some(place);
            } else {
                search.places[index].0 = place;
            }
        }
        search
    }

    fn append(&mut self, head: usize, what: What) -> usize {
        let (place, previous) = (self.events.len(), self.events[head].previous);
        self.events.push(Event { what, previous, next: head });
        self.events[previous].next = place;
        self.events[head].previous = place;
        place
    }

    fn take_out(&mut self, place: usize) {
        let Event { previous, next, .. } = self.events[place];
        self.events[previous].next = next;
        self.events[next].previous = previous;
    }

    /// Undoes the last [`take_out`](Self::take_out) that is not undone.
    fn put_back(&mut self, place: usize) {
        let Event { previous, next, .. } = self.events[place];
        self.events[previous].next = place;
        self.events[next].previous = place;
    }

    /// The first candidate at or behind `place`: called before every return that is left.
    fn candidate(&self, mut place: usize) -> Option<(usize, usize)> {
        loop {
            match self.events[place].what {
                What::Call(index) if self.history[index].returned.is_some() => return Some((place, index)),
                What::Call(index) => {
                    let is_under_way = self.history[index].called <= self.first_return();
                    return is_under_way.then_some((place, index));
                }
                What::Return(_) => place = self.events[OPEN].next,
                // Returns are left: a list without one is the other.
                What::Head => return None,
            }
        }
    }

    fn first_return(&self) -> u64 {
        let mut place = self.events[RETURNED].next;
        loop {
            match self.events[place].what {
                What::Call(_) => place = self.events[place].next,
                What::Return(at) => return at,
                What::Head => return u64::MAX,
            }
        }
    }

    /// The first candidate that only reads, and saw `state`.
    fn readable(&self, state: &M::State) -> Option<(usize, usize)> {
        let mut from = self.events[RETURNED].next;
        while let Some((place, index)) = self.candidate(from) {
            let operation = &self.history[index].operation;
            if self.model.reads(operation) && self.model.apply(state, operation).is_some() {
                return Some((place, index));
            }
            from = self.events[place].next;
        }
        None
    }

    /// Whether there is an order; none: that was not found out in so many steps.
    fn run(&mut self, steps_max: usize) -> Option<bool> {
        let mut state = self.model.initial();
        // Where the next candidate is looked for; none: nothing was tried here yet.
        let mut from = None;
        for _ in 0..steps_max {
            if self.returns_left == 0 {
                return Some(true);
            }
            let readable = if from.is_none() { self.readable(&state) } else { None };
            let candidate = readable.or_else(|| self.candidate(from.unwrap_or(self.events[RETURNED].next)));
            let Some((place, index)) = candidate else {
                let Some(place) = self.go_back(&mut state) else {
                    return Some(false);
                };
                from = Some(place);
                continue;
            };
            // Beside a read nothing else is tried.
            from = Some(if readable.is_some() { RETURNED } else { self.events[place].next });
            let Some(next) = self.model.apply(&state, &self.history[index].operation) else {
                continue;
            };
            let done = self.done ^ self.names[index];
            if self.seen.insert((done, next.clone())) {
                self.done = done;
                self.lift(index);
                self.path.push((index, std::mem::replace(&mut state, next)));
                from = None;
            }
        }
        self.note_longest();
        None
    }

    /// Takes back what was placed last and was not the only choice. Returns where the next one is looked for,
    /// if there is any.
    fn go_back(&mut self, state: &mut M::State) -> Option<usize> {
        self.note_longest();
        loop {
            let (index, before) = self.path.pop()?;
            self.shared = self.shared.min(self.path.len());
            *state = before;
            self.done ^= self.names[index];
            self.lower(index);
            if !self.model.reads(&self.history[index].operation) {
                return Some(self.events[self.places[index].0].next);
            }
        }
    }

    fn lift(&mut self, index: usize) {
        let (call, back) = self.places[index];
        self.take_out(call);
        if let Some(back) = back {
            self.take_out(back);
            self.returns_left -= 1;
        }
    }

    fn lower(&mut self, index: usize) {
        let (call, back) = self.places[index];
        if let Some(back) = back {
            self.put_back(back);
            self.returns_left += 1;
        }
        self.put_back(call);
    }

    fn note_longest(&mut self) {
        if self.path.len() > self.longest.len() {
            self.longest.truncate(self.shared);
            self.longest.extend(self.path[self.shared..].iter().map(|(index, _)| *index));
            self.shared = self.path.len();
        }
    }

    fn failure(&self) -> NotLinearizable {
        let mut is_placed = vec![false; self.history.len()];
        self.longest.iter().for_each(|index| is_placed[*index] = true);
        let stuck = (0..self.history.len())
            .filter(|index| self.history[*index].returned.is_some() && !is_placed[*index])
            .collect();
        NotLinearizable { longest: self.longest.clone(), stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is read and written.
    struct Register;

    #[derive(Clone, Copy, Debug, PartialEq)]
    enum Op {
        Write(u32),
        Read(u32),
    }

    impl Model for Register {
        type State = u32;
        type Operation = Op;

        fn initial(&self) -> u32 {
            0
        }

        fn apply(&self, state: &u32, operation: &Op) -> Option<u32> {
            match operation {
                Op::Write(value) => Some(*value),
                Op::Read(value) => (value == state).then_some(*state),
            }
        }

        fn reads(&self, operation: &Op) -> bool {
            matches!(operation, Op::Read(_))
        }

        fn mentions(&self, operation: &Op) -> Option<u64> {
            if let Op::Read(value) = operation { Some(u64::from(*value)) } else { None }
        }

        fn blur(&self, state: u32, is_mentioned: &dyn Fn(u64) -> bool) -> u32 {
            if is_mentioned(u64::from(state)) { state } else { u32::MAX }
        }

        fn blur_operation(&self, operation: &Op, is_mentioned: &dyn Fn(u64) -> bool) -> Op {
            match operation {
                Op::Write(value) => Op::Write(self.blur(*value, is_mentioned)),
                Op::Read(value) => Op::Read(*value),
            }
        }
    }

    fn check_register(calls: &[(u64, Option<u64>, Op)], expected: bool) {
        let history: Vec<Call<Op>> = calls
            .iter()
            .map(|(called, returned, operation)| Call {
                called: *called,
                returned: *returned,
                operation: *operation,
            })
            .collect();
        assert_eq!(check(&Register, &history).is_ok(), expected, "{} calls", calls.len());
    }

    #[test]
    fn sequential_histories_are_judged_by_their_order() {
        check_register(&[(1, Some(2), Op::Write(1)), (3, Some(4), Op::Read(1))], true);
        check_register(&[(1, Some(2), Op::Write(1)), (3, Some(4), Op::Read(0))], false);
    }

    #[test]
    fn concurrent_operations_may_take_effect_in_any_order() {
        let write = (1, Some(10), Op::Write(1));
        check_register(&[write, (2, Some(3), Op::Read(0)), (4, Some(5), Op::Read(1))], true);
        check_register(&[write, (2, Some(3), Op::Read(1)), (4, Some(5), Op::Read(0))], false);
    }

    #[test]
    fn an_operation_without_return_happens_late_or_never() {
        let lost = (1, None, Op::Write(1));
        check_register(&[lost, (5, Some(6), Op::Read(0)), (7, Some(8), Op::Read(1))], true);
        check_register(&[lost, (5, Some(6), Op::Read(0)), (7, Some(8), Op::Read(0))], true);
        check_register(&[lost, (5, Some(6), Op::Read(1)), (7, Some(8), Op::Read(0))], false);
    }

    #[test]
    fn a_failure_names_what_could_not_be_placed() {
        let history = [
            Call { called: 1, returned: Some(2), operation: Op::Write(1) },
            Call { called: 3, returned: Some(4), operation: Op::Read(7) },
        ];
        let failure = check(&Register, &history).unwrap_err();
        assert_eq!((failure.longest, failure.stuck), (vec![0], vec![1]));
    }

    #[test]
    fn many_concurrent_writes_are_decided_quickly() {
        let mut calls: Vec<(u64, Option<u64>, Op)> =
            (0..200).map(|n| (n, Some(n + 9), Op::Write(n as u32))).collect();
        calls.extend((0..200).map(|n| (1000 + n, Some(1000 + n + 5), Op::Read(199))));
        check_register(&calls, true);
        calls.push((5000, Some(5001), Op::Read(3)));
        check_register(&calls, false);
    }

    /// Clients that write and read one register for an hour: with a search that looks at the whole history
    /// for each of its operations, this test does not end in a day.
    #[test]
    fn a_long_history_is_decided_as_quickly_as_many_short_ones() {
        const LENGTH: u64 = 100_000;
        let mut calls = Vec::new();
        for n in 0..LENGTH {
            let at = n * 10;
            calls.push((at, Some(at + 25), Op::Write(n as u32)));
            calls.push((at + 3, Some(at + 30), Op::Read(n as u32)));
            if n % 500 == 0 {
                calls.push((at + 5, None, Op::Write(u32::MAX)));
            }
        }
        check_register(&calls, true);
        // What was overwritten long ago is read in the middle.
        let middle = LENGTH * 5;
        calls.push((middle, Some(middle + 1), Op::Read(7)));
        check_register(&calls, false);
    }
}
