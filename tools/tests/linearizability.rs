//! The checker of histories beside an independent one: `stateright`'s. Random histories of one register, some
//! of them impossible, are judged alike.

use evenkeel::linearizability::{Call, check, sets};
use evenkeel::sim::history::{ItemModel, Operation, Seen};
use evenkeel_wire::prng::Prng;
use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};

const THREADS: usize = 4;

/// An operation, without what was observed.
#[derive(Clone, Debug, PartialEq)]
enum Op {
    Put(u64),
    PutIf(Option<u64>, u64),
    Delete,
    Get,
    Count,
}

/// What is observed of one.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Observed {
    Nothing,
    Held(bool),
    Seen(Option<Seen>),
    Counted(i64),
}

/// A register, written anew: nothing of it is shared with the model.
#[derive(Clone, Debug, Default)]
struct Register(Option<(u64, i64)>);

impl SequentialSpec for Register {
    type Op = Op;
    type Ret = Observed;

    fn invoke(&mut self, op: &Op) -> Observed {
        match op {
            Op::Put(value) => {
                self.0 = Some((*value, 0));
                Observed::Nothing
            }
            Op::PutIf(expected, value) => {
                let holds = self.0.map(|(value, _)| value) == *expected;
                if holds {
                    self.0 = Some((*value, 0));
                }
                Observed::Held(holds)
            }
            Op::Delete => {
                self.0 = None;
                Observed::Nothing
            }
            Op::Get => Observed::Seen(self.0.map(|(value, count)| Seen { value, count })),
            Op::Count => {
                let (value, count) = self.0.unwrap_or((0, 0));
                self.0 = Some((value, count + 1));
                Observed::Counted(count + 1)
            }
        }
    }
}

fn operation(op: &Op, observed: Option<Observed>) -> Operation {
    match (op, observed) {
        (Op::Put(value), _) => Operation::Put { value: *value },
        (Op::PutIf(expected, value), observed) => {
            let held = if let Some(Observed::Held(held)) = observed { Some(held) } else { None };
            Operation::PutIf { expected: *expected, value: *value, held }
        }
        (Op::Delete, _) => Operation::Delete,
        (Op::Get, Some(Observed::Seen(seen))) => Operation::Get { seen },
        (Op::Get, observed) => panic!("a read that saw {observed:?}"),
        (Op::Count, Some(Observed::Counted(count))) => Operation::Count { count: Some(count) },
        (Op::Count, _) => Operation::Count { count: None },
    }
}

/// A call under way: when it was called, what it is, and what it will say once it has taken effect.
struct Open {
    called: u64,
    op: Op,
    observed: Option<Observed>,
}

/// Makes a history, in which answers are wrong with a chance of one in `wrong`, and returns both verdicts.
fn judge(seed: u64, wrong: u64) -> (bool, bool) {
    let mut prng = Prng::new(seed);
    let mut register = Register::default();
    let mut tester = LinearizabilityTester::new(Register::default());
    let mut history = Vec::new();
    let mut threads: Vec<Option<Open>> = (0..THREADS).map(|_| None).collect();
    let mut gone = [false; THREADS];
    for now in 0..60 {
        let thread = prng.below(THREADS as u64) as usize;
        if gone[thread] {
            continue;
        }
        match threads[thread].take() {
            None => {
                let value = prng.below(4) + 1;
                let op = match prng.below(5) {
                    0 => Op::Put(value),
                    1 => Op::PutIf(if prng.chance(1, 3) { None } else { Some(prng.below(4) + 1) }, value),
                    2 => Op::Delete,
                    3 => Op::Get,
                    _ => Op::Count,
                };
                tester.on_invoke(thread, op.clone()).unwrap();
                threads[thread] = Some(Open { called: now, op, observed: None });
            }
            Some(Open { called, op, observed: None }) => {
                let mut observed = register.invoke(&op);
                if prng.chance(1, wrong) {
                    observed = Register(Some((prng.below(4) + 1, prng.below(3) as i64))).invoke(&op);
                }
                // A client that never learns of it stays with it for ever.
                gone[thread] = prng.chance(1, 30) && op != Op::Get;
                let observed = if gone[thread] { None } else { Some(observed) };
                threads[thread] = Some(Open { called, op, observed });
            }
            Some(Open { called, op, observed: Some(observed) }) => {
                tester.on_return(thread, observed).unwrap();
                let operation = operation(&op, Some(observed));
                history.push(Call { called, returned: Some(now), operation });
            }
        }
    }
    // What is under way at the end may have happened. A read that nobody answered says nothing.
    let open = threads.into_iter().flatten().filter(|open| open.op != Op::Get);
    history.extend(open.map(|open| {
        let operation = operation(&open.op, None);
        Call { called: open.called, returned: None, operation }
    }));
    let ours = check(&ItemModel, &history).is_ok();
    assert_eq!(ours, sets::check(&ItemModel, &history).is_ok(), "the search and the sets, seed {seed}");
    (ours, tester.is_consistent())
}

#[test]
fn verdicts_are_those_of_another_checker() {
    let (mut possible, mut impossible) = (0, 0);
    for seed in 0..600 {
        let wrong = [1000, 12, 5][seed as usize % 3];
        let (ours, theirs) = judge(seed, wrong);
        assert_eq!(ours, theirs, "the history of seed {seed}");
        if ours { possible += 1 } else { impossible += 1 }
    }
    assert!(possible > 100 && impossible > 100, "{possible} are possible, {impossible} are not");
}

/// In each round a counter begins anew, by one of two puts of which nobody heard again, and nothing ever
/// tells which: as many explanations as there are sets of rounds. Where values that nobody asks for are one,
/// they are a single explanation; without that this test does not end in a day.
#[test]
fn what_nobody_can_tell_apart_is_not_tried_apart() {
    let mut history = Vec::new();
    for round in 0..100 {
        let at = 10 * round;
        for value in [2 * round + 1, 2 * round + 2] {
            history.push(Call { called: at, returned: None, operation: Operation::Put { value } });
        }
        let operation = Operation::Count { count: Some(1) };
        history.push(Call { called: at + 1, returned: Some(at + 2), operation });
    }
    assert!(check(&ItemModel, &history).is_ok());
    // The first count needs no put. Of 200 puts 101 are left: each makes one more such count possible.
    let count = |at, count| Call {
        called: at,
        returned: Some(at + 1),
        operation: Operation::Count { count: Some(count) },
    };
    history.extend((0..101).map(|n| count(2000 + 2 * n, 1)));
    assert!(check(&ItemModel, &history).is_ok());
    history.push(count(3000, 1));
    assert!(check(&ItemModel, &history).is_err());
    assert_eq!(sets::check(&ItemModel, &history), Err(sets::Refused::Impossible(history.len() - 1)));
}
