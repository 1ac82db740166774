//! Changes that checkpoints have merged. The pages have them; what is left to do is to free their memory,
//! little by little: all of it at once would hold up a turn, and some in each of a busy core's turns would
//! leave its CPU no time for others (docs/decisions/0019-turns.md).

use crate::btree::delta::Delta;
use crate::limits::{CHANGES_FREED_MIN, FREE_EVERY, FREE_STEPS};
use evenkeel_wire::turn::Boot;

/// Changes to be freed.
#[derive(Debug)]
pub(super) struct Merged {
    deltas: Vec<Delta>,
    /// How many changes a step frees.
    step: usize,
    /// When the next step is due.
    due: Boot,
}

impl Default for Merged {
    fn default() -> Self {
        Self { deltas: Vec::new(), step: 0, due: Boot::NEVER }
    }
}

impl Merged {
    /// Takes what was merged.
    pub(super) fn add(&mut self, merged: impl IntoIterator<Item = Delta>) {
        let before = self.deltas.len();
        self.deltas.extend(merged);
        if self.deltas.len() == before {
            return;
        }
        let changes: usize = self.deltas.iter().map(Delta::len).sum();
        self.step = (changes / FREE_STEPS).max(CHANGES_FREED_MIN);
        if self.due == Boot::NEVER {
            self.due = Boot(0);
        }
    }

    /// Frees some, if it is time.
    pub(super) fn free(&mut self, now: Boot) {
        if now < self.due {
            return;
        }
        let mut left = self.step;
        while left > 0
            && let Some(delta) = self.deltas.last_mut()
        {
            if delta.forget_first().is_none() {
                self.deltas.pop();
            } else {
                left -= 1;
            }
        }
        self.due = if self.deltas.is_empty() { Boot::NEVER } else { now.after(FREE_EVERY) };
    }

    /// When the next step is due.
    pub(super) fn wake_at(&self) -> Boot {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn delta(changes: usize) -> Delta {
        let mut delta = Delta::default();
        for number in 0..changes {
            delta.set(number.to_be_bytes()[..].into(), None);
        }
        delta
    }

    fn left(merged: &Merged) -> usize {
        merged.deltas.iter().map(Delta::len).sum()
    }

    #[test]
    fn turns_in_quick_succession_free_no_more_than_others() {
        let mut merged = Merged::default();
        merged.add([delta(10 * CHANGES_FREED_MIN)]);
        for turn in 0..100 {
            merged.free(Boot(1 + turn));
        }
        assert_eq!(left(&merged), 9 * CHANGES_FREED_MIN);
        merged.free(Boot(1).after(FREE_EVERY));
        assert_eq!(left(&merged), 8 * CHANGES_FREED_MIN);
    }

    #[test]
    fn it_takes_about_a_second_however_much_there_is() {
        for changes in [CHANGES_FREED_MIN, 3 * FREE_STEPS, 50 * FREE_STEPS, 100 * FREE_STEPS] {
            let (mut merged, begin) = (Merged::default(), Boot(1_000_000_000));
            merged.add([delta(changes / 3), delta(changes - changes / 3)]);
            let mut now = begin;
            while merged.wake_at() != Boot::NEVER {
                now = now.max(merged.wake_at());
                merged.free(now);
            }
            assert_eq!(left(&merged), 0);
            let took = now.since(begin);
            assert!(took <= FREE_EVERY * (FREE_STEPS as u32 + 2), "{changes} took {took:?}");
            assert!(changes < CHANGES_FREED_MIN * FREE_STEPS || took > Duration::from_millis(900));
        }
    }

    #[test]
    fn what_comes_on_top_makes_the_steps_larger() {
        let mut merged = Merged::default();
        merged.add([]);
        assert_eq!(merged.wake_at(), Boot::NEVER);
        let much = CHANGES_FREED_MIN * FREE_STEPS;
        merged.add([delta(much)]);
        assert_eq!(merged.step, CHANGES_FREED_MIN);
        merged.add([delta(much)]);
        assert_eq!(merged.step, 2 * CHANGES_FREED_MIN);
    }
}
