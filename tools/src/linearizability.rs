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
    type Operation;

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
    done: Vec<u64>,
    seen: HashSet<(Vec<u64>, M::State)>,
    path: Vec<(usize, M::State)>,
    returns_left: usize,
    longest: Vec<usize>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, history: &'a [Call<M::Operation>]) -> Self {
        let mut order: Vec<usize> = (0..history.len()).collect();
        order.sort_by_key(|index| (history[*index].returned.is_none(), history[*index].called));
        Self {
            model,
            history,
            order,
            done: vec![0; history.len().div_ceil(64)],
            seen: HashSet::new(),
            path: Vec::new(),
            returns_left: history.iter().filter(|call| call.returned.is_some()).count(),
            longest: Vec::new(),
        }
    }

    fn is_done(&self, index: usize) -> bool {
        self.done[index / 64] >> (index % 64) & 1 == 1
    }

    fn flip(&mut self, index: usize) {
        self.done[index / 64] ^= 1 << (index % 64);
    }

    /// The next candidate at or after `from` in the order of calls: called before every return that is left.
    fn candidate(&self, from: usize) -> Option<usize> {
        let left = self.order.iter().filter(|index| !self.is_done(**index));
        let first_return = left.filter_map(|index| self.history[*index].returned).min().unwrap_or(u64::MAX);
        (from..self.order.len()).find(|place| {
            let index = self.order[*place];
            !self.is_done(index) && self.history[index].called <= first_return
        })
    }

    fn run(&mut self) -> Result<(), NotLinearizable> {
        let mut state = self.model.initial();
        let mut from = 0;
        // Places in the order of calls at which the search goes on after going back.
        let mut places = Vec::new();
        while self.returns_left > 0 {
            match self.candidate(from) {
                Some(place) => {
                    let index = self.order[place];
                    let next = self.model.apply(&state, &self.history[index].operation);
                    from = place + 1;
                    if let Some(next) = next {
                        self.flip(index);
                        if self.seen.insert((self.done.clone(), next.clone())) {
                            self.returns_left -= usize::from(self.history[index].returned.is_some());
                            self.path.push((index, std::mem::replace(&mut state, next)));
                            places.push(place);
                            from = 0;
                            if self.path.len() > self.longest.len() {
                                self.longest = self.path.iter().map(|(index, _)| *index).collect();
                            }
                        } else {
                            self.flip(index);
                        }
                    }
                }
                None => {
                    let (Some((index, before)), Some(place)) = (self.path.pop(), places.pop()) else {
                        return Err(self.failure());
                    };
                    state = before;
                    self.flip(index);
                    self.returns_left += usize::from(self.history[index].returned.is_some());
                    from = place + 1;
                }
            }
        }
        Ok(())
    }

    fn failure(&self) -> NotLinearizable {
        let stuck = (0..self.history.len())
            .filter(|index| self.history[*index].returned.is_some() && !self.longest.contains(index))
            .collect();
        NotLinearizable { longest: self.longest.clone(), stuck }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A register that is read and written.
    struct Register;

    #[derive(Clone, Copy, Debug)]
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
}
