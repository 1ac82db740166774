//! Makes a failing run small: the fewest faults, the shortest time, the fewest clients and keys that still
//! fail in the same way.
//!
//! Zeller and Hildebrandt's ddmin ("Simplifying and isolating failure-inducing input", 2002) over the faults,
//! then the rest one by one, then the faults again. Every step is a run; nothing is guessed.

use super::script::{Script, Strike};
use super::world::SECOND;
use super::{Failure, run_script};

/// What came of it.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The smallest run that was found.
    pub script: Script,
    /// How it fails.
    pub failure: Failure,
    /// Runs that this took.
    pub runs: usize,
}

/// In what way a run failed: its first line, without what differs between two runs that fail alike.
#[must_use]
pub fn way(what: &str) -> String {
    let line = what.lines().next().unwrap_or("");
    let mut words: Vec<&str> = line.split(|c: char| !c.is_ascii_alphabetic()).collect();
    words.retain(|word| word.len() > 1);
    words.join(" ")
}

/// Makes a failing run smaller, in at most `runs_max` runs. None: it does not fail.
pub fn shrink(script: &Script, runs_max: usize, mut say: impl FnMut(&str)) -> Option<Shrunk> {
    let failure = run_script(script, false).err()?;
    let mut search = Search {
        way: way(&failure.what),
        best: Shrunk { script: script.clone(), failure, runs: 1 },
        runs_max,
    };
    let faults = |search: &Search| search.best.script.strikes.len();
    search.end_early();
    say(&format!("{} of {} faults were before the failure", faults(&search), script.strikes.len()));
    search.fewer_faults();
    say(&format!("{} faults are enough", faults(&search)));
    search.smaller();
    search.fewer_faults();
    search.end_early();
    say(&format!("{} faults in a smaller run, after {} runs", faults(&search), search.best.runs));
    Some(search.best)
}

struct Search {
    way: String,
    best: Shrunk,
    runs_max: usize,
}

impl Search {
    /// Takes `script` if it fails in the same way.
    fn try_out(&mut self, script: Script) -> bool {
        if script == self.best.script || self.best.runs >= self.runs_max {
            return false;
        }
        self.best.runs += 1;
        match run_script(&script, false) {
            Err(failure) if way(&failure.what) == self.way => {
                (self.best.script, self.best.failure) = (script, failure);
                true
            }
            Err(_) | Ok(_) => false,
        }
    }

    fn with_strikes(&self, strikes: Vec<Strike>) -> Script {
        Script { strikes, ..self.best.script.clone() }
    }

    /// Leaves out what came after the failure; then tries shorter times.
    fn end_early(&mut self) {
        let at = self.best.failure.at;
        let ended = |duration: u64, script: &Script| Script {
            duration,
            strikes: script.strikes.iter().filter(|strike| strike.at < duration).copied().collect(),
            ..script.clone()
        };
        if at < self.best.script.duration {
            let script = ended((at + SECOND).next_multiple_of(SECOND), &self.best.script);
            self.try_out(script);
        }
        for eighths in [1, 2, 4, 6, 7] {
            let duration = (self.best.script.duration * eighths / 8).next_multiple_of(SECOND);
            let script = ended(duration, &self.best.script);
            if self.try_out(script) {
                break;
            }
        }
    }

    /// ddmin: parts of the list, then what is left without each, in ever smaller parts.
    fn fewer_faults(&mut self) {
        if self.try_out(self.with_strikes(Vec::new())) {
            return;
        }
        let mut parts = 2;
        while self.best.script.strikes.len() >= 2 && self.best.runs < self.runs_max {
            let strikes = self.best.script.strikes.clone();
            let size = strikes.len().div_ceil(parts);
            let chunks: Vec<&[Strike]> = strikes.chunks(size).collect();
            let alone = parts == 2;
            let mut smaller = None;
            if alone {
                smaller =
                    chunks.iter().find(|chunk| self.try_out(self.with_strikes(chunk.to_vec()))).map(|_| 2);
            }
            if smaller.is_none() {
                let without = |skipped: usize| -> Vec<Strike> {
                    let kept = chunks.iter().enumerate().filter(|(place, _)| *place != skipped);
                    kept.flat_map(|(_, chunk)| chunk.iter().copied()).collect()
                };
                let found =
                    (0..chunks.len()).find(|skipped| self.try_out(self.with_strikes(without(*skipped))));
                smaller = found.map(|_| parts.saturating_sub(1).max(2));
            }
            match smaller {
                Some(next) => parts = next,
                None if size == 1 => break,
                None => parts = (parts * 2).min(strikes.len()),
            }
        }
    }

    /// A calm network, fewer clients, fewer keys.
    fn smaller(&mut self) {
        let shape = self.best.script.setting().shape;
        self.try_out(Script { calm: true, ..self.best.script.clone() });
        let _ = (1..shape.clients)
            .find(|clients| self.try_out(Script { clients: Some(*clients), ..self.best.script.clone() }));
        let _ = (1..shape.workload.keys)
            .find(|keys| self.try_out(Script { keys: Some(*keys), ..self.best.script.clone() }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_alike_whatever_their_numbers() {
        let one = "the history of key 3 is not linearizable\n  the longest order";
        assert_eq!(way(one), way("the history of key 0 is not linearizable"));
        assert_eq!(
            way("1.0 and 3.1 both lead p4 under a lease"),
            way("2.0 and 1.0 both lead p1 under a lease")
        );
        assert_ne!(way(one), way("the cluster is not healthy 60 s after everything was put right"));
    }
}
