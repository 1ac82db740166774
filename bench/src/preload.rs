//! Writing every key once, so that reads find something: as fast as the cluster takes them.
//!
//! Keys go out in order, and none is more than a window ahead of the first that is not acknowledged. So
//! whoever finds a key that is there and whose successor is not knows that all keys up to one window before
//! it are there, too, and can go on from that one ([`resume_from`]).

use crate::clock::now;
use crate::load::{Load, LoadError};
use crate::transport::Transport;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

/// Puts under way, over all connections.
const UNDER_WAY: usize = 1024;
/// Keys from the first that is not acknowledged to the last that was sent.
const WINDOW: u64 = 4096;
/// How long to wait for answers at a time.
const WAIT: Duration = Duration::from_millis(100);

impl<T: Transport> Load<T> {
    /// Writes the keys from `first` to `keys`. A put that fails for a passing reason is repeated. `progress`
    /// is told below which number all keys are written.
    ///
    /// # Errors
    /// When a connection fails, or a put for a reason that does not pass.
    pub(crate) fn preload(
        &mut self,
        first: u64,
        keys: u64,
        progress: &mut dyn FnMut(u64),
    ) -> Result<(), LoadError> {
        let per_line = UNDER_WAY.div_ceil(self.under_way.len());
        let (mut next, mut again, mut open) = (first, VecDeque::new(), BTreeSet::new());
        loop {
            for place in 0..self.under_way.len() {
                while self.under_way[place].open() < per_line {
                    let acknowledged = open.first().copied().unwrap_or(next);
                    let key = match again.pop_front() {
                        Some(key) => key,
                        None if next < keys && next < acknowledged + WINDOW => {
                            open.insert(next);
                            next += 1;
                            next - 1
                        }
                        None => break,
                    };
                    let Some(put) = self.plan.put(key) else {
                        return Ok(());
                    };
                    self.ask(place, put, now());
                }
            }
            progress(open.first().copied().unwrap_or(next));
            if open.is_empty() {
                return Ok(());
            }
            self.exchange(WAIT)?;
            for answer in self.answered.drain(..) {
                let key = answer.asked.key;
                match answer.problem {
                    None => {
                        open.remove(&key);
                    }
                    Some(problem) if problem.code.is_retryable() => again.push_back(key),
                    Some(problem) => return Err(LoadError::Preload { key, problem: problem.to_string() }),
                }
            }
        }
    }
}

/// Where an interrupted preload of `keys` keys goes on; `is_there` looks a key up.
///
/// # Errors
/// Those of `is_there`.
pub fn resume_from<E>(keys: u64, mut is_there: impl FnMut(u64) -> Result<bool, E>) -> Result<u64, E> {
    // All keys below `low` that were looked up are there, and the one at `high` is not.
    let (mut low, mut high) = (0, keys);
    while low < high {
        let middle = low + (high - low) / 2;
        if is_there(middle)? {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    Ok(if low == keys { keys } else { low.saturating_sub(WINDOW) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_preload_goes_on_below_the_first_key_that_is_missing() {
        let keys = 1_000_000;
        for (first_missing, holes) in [(0, 0), (1, 7), (5000, 100), (999_000, WINDOW - 1), (keys - 1, 0)] {
            // Beyond the first missing key, within the window, some are there and some are not.
            let there = |key: u64| key < first_missing || key < first_missing + holes && key % 3 == 1;
            let from = resume_from(keys, |key| Ok::<_, ()>(there(key))).unwrap();
            assert!(from <= first_missing && first_missing - from <= WINDOW, "{first_missing}: {from}");
        }
        assert_eq!(resume_from(keys, |_| Ok::<_, ()>(true)).unwrap(), keys);
    }
}
