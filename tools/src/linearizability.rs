//! Is a history linearizable? Wing and Gong's search with Lowe's memoisation ("Testing for linearizability",
//! 2017), for one key at a time: operations on different keys commute, so each key's history is checked
//! alone.
//!
//! An operation without a return may have taken effect at any time after its call, or never.

use std::collections::HashSet;
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
    search.run()
}

struct Search<'a, M: Model> {
    model: &'a M,
    history: &'a [Call<M::Operation>],
    /// Those that returned by time of call, then the others: what may never have happened is tried last.
    order: Vec<usize>,
    /// How many of them returned.
    returned: usize,
    /// What the path holds, by place in the order; those that never returned apart.
    done: Vec<u64>,
    done_open: Vec<u64>,
    /// No place before this one is left.
    all_done_below: usize,
    seen: HashSet<(Done, M::State)>,
    /// Places in the order, each with the state before it.
    path: Vec<(usize, M::State)>,
    returns_left: usize,
    /// The longest path so far, and how much of it the present one shares.
    longest: Vec<usize>,
    shared: usize,
}

/// Which operations are done: whole words of finished ones at the beginning are counted, those at the end
/// that nobody has touched are left out.
#[derive(PartialEq, Eq, Hash)]
struct Done {
    full: usize,
    words: Box<[u64]>,
    open: Box<[u64]>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Call<M::Operation>]) -> Self {
        let mut order: Vec<usize> = (0..history.len()).collect();
        order.sort_by_key(|index| (history[*index].returned.is_none(), history[*index].called));
        let returned = history.iter().filter(|call| call.returned.is_some()).count();
        Self {
            model,
            history,
            order,
            returned,
            done: vec![0; returned.div_ceil(64)],
            done_open: vec![0; (history.len() - returned).div_ceil(64)],
            all_done_below: 0,
            seen: HashSet::new(),
            path: Vec::new(),
            returns_left: returned,
            longest: Vec::new(),
            shared: 0,
        }
    }

    fn is_done(&self, place: usize) -> bool {
        let is_set = |words: &[u64], bit: usize| words[bit / 64] >> (bit % 64) & 1 == 1;
        match place.checked_sub(self.returned) {
            Some(open) => is_set(&self.done_open, open),
            None => is_set(&self.done, place),
        }
    }

    fn flip(&mut self, place: usize) {
        if let Some(open) = place.checked_sub(self.returned) {
            self.done_open[open / 64] ^= 1 << (open % 64);
            return;
        }
        self.done[place / 64] ^= 1 << (place % 64);
        self.all_done_below = self.all_done_below.min(place);
        while self.all_done_below < self.returned && self.is_done(self.all_done_below) {
            self.all_done_below += 1;
        }
    }

    /// What is done, in as few words as tell it.
    fn what_is_done(&self) -> Done {
        let full = self.all_done_below / 64;
        let end = |words: &[u64]| words.iter().rposition(|word| *word != 0).map_or(0, |last| last + 1);
        let last = end(&self.done).max(full);
        let open = self.done_open[..end(&self.done_open)].into();
        Done { full, words: self.done[full.min(last)..last].into(), open }
    }

    fn call(&self, place: usize) -> &'a Call<M::Operation> {
        &self.history[self.order[place]]
    }

    /// The next candidate at or after `from` in the order of calls: called before every return that is left.
    fn candidate(&self, from: usize) -> Option<usize> {
        let mut first_return = u64::MAX;
        for place in self.all_done_below..self.returned {
            let call = self.call(place);
            // Nor does anything that was called later return earlier.
            if call.called > first_return {
                break;
            }
            if !self.is_done(place) {
                first_return = first_return.min(call.returned.unwrap_or(u64::MAX));
            }
        }
        let is_next = |place: &usize| !self.is_done(*place) && self.call(*place).called <= first_return;
        let in_time = |place: &usize| self.call(*place).called <= first_return;
        let returned = (from.max(self.all_done_below)..self.returned).take_while(in_time).find(is_next);
        returned.or_else(|| (from.max(self.returned)..self.order.len()).take_while(in_time).find(is_next))
    }

    fn run(&mut self) -> Result<(), NotLinearizable> {
        let mut state = self.model.initial();
        let mut from = 0;
        while self.returns_left > 0 {
            match self.candidate(from) {
                Some(place) => {
                    let next = self.model.apply(&state, &self.call(place).operation);
                    from = place + 1;
                    if let Some(next) = next.filter(|next| !self.is_pointless(place, &state, next)) {
                        self.flip(place);
                        if self.seen.insert((self.what_is_done(), next.clone())) {
                            self.returns_left -= usize::from(place < self.returned);
                            self.path.push((place, std::mem::replace(&mut state, next)));
                            from = 0;
                        } else {
                            self.flip(place);
                        }
                    }
                }
                None => {
                    self.keep_longest();
                    let Some((place, before)) = self.path.pop() else {
                        return Err(self.failure());
                    };
                    self.shared = self.shared.min(self.path.len());
                    state = before;
                    self.flip(place);
                    self.returns_left += usize::from(place < self.returned);
                    from = place + 1;
                }
            }
        }
        Ok(())
    }

    /// Whether nothing is gained by letting an operation that never returned take effect here: it changes
    /// nothing, an earlier one of its kind could do it as well, or it hides all that another one of them has
    /// just done. Without this, every set of them would be tried wherever the search goes astray.
    fn is_pointless(&self, place: usize, state: &M::State, next: &M::State) -> bool {
        let Some(open) = place.checked_sub(self.returned) else {
            return false;
        };
        let operation = &self.call(place).operation;
        let as_good = |earlier: usize| !self.is_done(earlier) && self.call(earlier).operation == *operation;
        if next == state || (self.returned..self.returned + open).any(as_good) {
            return true;
        }
        self.path.last().is_some_and(|(last, before)| {
            *last >= self.returned && self.model.apply(before, operation).as_ref() == Some(next)
        })
    }

    /// Before a step back: only what differs from the longest path is copied.
    fn keep_longest(&mut self) {
        if self.path.len() > self.longest.len() {
            self.longest.truncate(self.shared);
            self.longest.extend(self.path[self.shared..].iter().map(|(place, _)| self.order[*place]));
            self.shared = self.path.len();
        }
    }

    fn failure(&self) -> NotLinearizable {
        let done: HashSet<usize> = self.longest.iter().copied().collect();
        let stuck = (0..self.history.len())
            .filter(|index| self.history[*index].returned.is_some() && !done.contains(index))
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
        assert_eq!(check(&Register, &history).is_ok(), expected, "{calls:?}");
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

    #[test]
    fn a_long_history_is_decided_in_time_that_grows_with_its_length() {
        let mut calls: Vec<(u64, Option<u64>, Op)> = Vec::new();
        for n in 0..20_000_u32 {
            let at = u64::from(n) * 10;
            let open = n % 1000 == 7;
            calls.push((at, (!open).then_some(at + 12), if open { Op::Write(0) } else { Op::Write(n) }));
            if !open {
                calls.push((at + 13, Some(at + 14), Op::Read(n)));
            }
        }
        check_register(&calls, true);
        calls.retain(|(_, returned, _)| returned.is_some());
        calls.push((2_000_000, Some(2_000_001), Op::Read(1)));
        check_register(&calls, false);
    }
}
