//! What goes wrong in a run, as an explicit list: a seed's faults can be repeated, shortened and kept.
//!
//! ```text
//! seed 152
//! seconds 60
//! clients 3
//! keys 2
//! calm
//! at 12.350125 Kill 81f2a90c     # 2.0
//! ```
//!
//! The seed decides the rest: the cluster's shape, the weather of its network (`calm`: nothing is lost or
//! damaged by it), what clients do. The number behind a fault's name decides what the fault chooses: whom,
//! for how long. What stands behind a `#` is for people.

use super::Options;
use super::cluster::Shape;
use super::faults::Fault;
use super::network::Weather;
use super::world::{MS, SECOND};
use evenkeel_wire::prng::Prng;
use std::fmt;
use std::fmt::Write;

/// A fault at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// When, simulated nanoseconds, a whole number of microseconds.
    pub at: u64,
    /// What.
    pub fault: Fault,
    /// Decides what it strikes and for how long.
    pub choice: u32,
}

/// A whole run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Decides what is not said otherwise.
    pub seed: u64,
    /// Simulated time under faults, nanoseconds, a whole number of microseconds.
    pub duration: u64,
    /// Clients, instead of those of the seed's shape.
    pub clients: Option<usize>,
    /// Keys that they share, instead of those of the seed's shape.
    pub keys: Option<usize>,
    /// The network loses, damages and delays nothing by itself.
    pub calm: bool,
    /// The faults, in the order of time.
    pub strikes: Vec<Strike>,
}

/// What a script's seed decides, with what the script says otherwise.
#[derive(Clone, Debug)]
pub struct Setting {
    /// The cluster's shape.
    pub shape: Shape,
    /// The network's weather.
    pub weather: Weather,
    /// The seed of the world.
    pub world: u64,
    /// Which of the nodes may have a disk that lies.
    pub damaged: u64,
    faults: Prng,
}

impl Script {
    /// The faults that a seed gives.
    #[must_use]
    pub fn of(options: &Options) -> Self {
        let script = Self {
            seed: options.seed,
            duration: options.seconds * SECOND,
            clients: None,
            keys: None,
            calm: false,
            strikes: Vec::new(),
        };
        let mut prng = script.setting().faults;
        let chosen: Vec<Fault> = Fault::ALL.into_iter().filter(|_| prng.chance(1, 3)).collect();
        let mut mix = match &options.faults {
            Some(mix) => mix.clone(),
            None => chosen.into_iter().filter(|fault| fault.is_borne()).collect(),
        };
        mix.extend(options.beyond.then_some(Fault::DriftBeyond));
        let period = *prng.pick(&[400 * MS, 1200 * MS, 4 * SECOND]);
        let mut strikes = Vec::new();
        let mut at = 0;
        while !mix.is_empty() {
            at += (prng.below(2 * period) + MS).next_multiple_of(1000);
            if at >= script.duration {
                break;
            }
            let fault = *prng.pick(&mix);
            strikes.push(Strike { at, fault, choice: prng.next_u64() as u32 });
        }
        Self { strikes, ..script }
    }

    /// What the seed decides.
    #[must_use]
    pub fn setting(&self) -> Setting {
        let mut prng = Prng::new(self.seed);
        let mut shape = Shape::of(&mut prng);
        let mut weather = Weather::of(&mut prng);
        shape.clients = self.clients.unwrap_or(shape.clients);
        shape.workload.keys = self.keys.unwrap_or(shape.workload.keys);
        if self.calm {
            weather = weather.calmed();
        }
        Setting { shape, weather, world: prng.next_u64(), damaged: prng.next_u64(), faults: prng.fork() }
    }

    /// Whether clocks go beyond what leases assume: then only what needs no clock must hold.
    #[must_use]
    pub fn goes_beyond(&self) -> bool {
        self.strikes.iter().any(|strike| !strike.fault.is_borne())
    }

    /// The script, with what each fault did, if a run has told.
    #[must_use]
    pub fn annotated(&self, told: &[String]) -> String {
        let mut text = self.to_string();
        if told.is_empty() {
            return text;
        }
        let mut told = told.iter();
        let lines: Vec<String> = text
            .lines()
            .map(|line| match line.starts_with("at ").then(|| told.next()).flatten() {
                Some(did) => format!("{line:<40} # {did}"),
                None => line.to_owned(),
            })
            .collect();
        text = lines.join("\n");
        text.push('\n');
        text
    }

    /// Reads a script.
    ///
    /// # Errors
    /// The line that is none, and why.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut script =
            Self { seed: 1, duration: 0, clients: None, keys: None, calm: false, strikes: Vec::new() };
        for (number, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
            let wrong = |why: &str| format!("line {}: {line:?}: {why}", number + 1);
            match words[..] {
                [] => {}
                ["seed", seed] => script.seed = seed.parse().map_err(|_| wrong("no seed"))?,
                ["seconds", time] => script.duration = nanoseconds(time).ok_or_else(|| wrong("no time"))?,
                ["clients", count] => {
                    script.clients = Some(positive(count).ok_or_else(|| wrong("no count"))?);
                }
                ["keys", count] => script.keys = Some(positive(count).ok_or_else(|| wrong("no count"))?),
                ["calm"] => script.calm = true,
                ["at", at, fault, choice] => script.strikes.push(Strike {
                    at: nanoseconds(at).ok_or_else(|| wrong("no time"))?,
                    fault: Fault::named(fault).ok_or_else(|| wrong("there is no such fault"))?,
                    choice: u32::from_str_radix(choice, 16).map_err(|_| wrong("no choice"))?,
                }),
                _ => return Err(wrong("neither a setting nor a fault")),
            }
        }
        if script.duration == 0 {
            return Err("a script says how many seconds it takes".to_owned());
        }
        script.strikes.sort();
        Ok(script)
    }
}

fn positive(text: &str) -> Option<usize> {
    text.parse().ok().filter(|count| *count > 0)
}

/// A time with at most six decimals.
fn nanoseconds(text: &str) -> Option<u64> {
    let (seconds, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = part.bytes().all(|byte| byte.is_ascii_digit()) && part.len() <= 6;
    let micros: u64 = format!("{part:0<6}").parse().ok().filter(|_| digits)?;
    seconds.parse::<u64>().ok()?.checked_mul(SECOND)?.checked_add(micros * 1000)
}

fn seconds(nanoseconds: u64) -> String {
    let mut text = format!("{}.{:06}", nanoseconds / SECOND, nanoseconds % SECOND / 1000);
    text.truncate(text.trim_end_matches('0').trim_end_matches('.').len());
    text
}

impl fmt::Display for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {}\nseconds {}", self.seed, seconds(self.duration))?;
        self.clients.iter().try_for_each(|count| writeln!(f, "clients {count}"))?;
        self.keys.iter().try_for_each(|count| writeln!(f, "keys {count}"))?;
        f.write_str(if self.calm { "calm\n" } else { "" })?;
        for Strike { at, fault, choice } in &self.strikes {
            let mut line = String::new();
            write!(line, "at {} {fault:?} {choice:08x}", seconds(*at))?;
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_is_read_as_it_was_written() {
        for (seed, clients, calm) in [(1, None, false), (2, Some(1), true)] {
            let options = Options { seed, seconds: 90, ..Options::default() };
            let script = Script { clients, keys: clients, calm, ..Script::of(&options) };
            assert_eq!(Script::parse(&script.to_string()), Ok(script.clone()));
            let told: Vec<String> = script.strikes.iter().map(|strike| format!("# {strike:?}")).collect();
            let annotated = script.annotated(&told);
            assert!(script.strikes.is_empty() || annotated.contains("Strike"));
            assert_eq!(Script::parse(&annotated), Ok(script));
        }
    }

    #[test]
    fn a_time_has_six_decimals_at_most() {
        for (text, time) in
            [("12", Some(12_000_000_000)), ("0.000001", Some(1000)), ("3.5", Some(3_500_000_000))]
        {
            assert_eq!(nanoseconds(text), time);
            assert_eq!(time.map(seconds).as_deref(), Some(text));
        }
        for text in ["", "x", "1.0000001", "1.-5", "1.+5", "99999999999999999999"] {
            assert_eq!(nanoseconds(text), None, "{text:?}");
        }
    }

    #[test]
    fn what_is_no_script_is_refused_with_its_line() {
        for (text, why) in [
            ("seconds 5\nat 1 Explode 0", "line 2"),
            ("seconds 5\nclients 0", "no count"),
            ("seed 5", "how many seconds"),
            ("seconds 5\nat 1 Kill xyz", "no choice"),
            ("seconds 5\nsometimes", "neither"),
        ] {
            let error = Script::parse(text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
