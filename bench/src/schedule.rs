//! When requests of an open loop are due, whatever becomes of those before them.

use crate::keys::{Share, unit};
use evenkeel_wire::prng::Prng;
use std::str::FromStr;
use std::time::Duration;

/// How arrivals are spread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrivals {
    /// Evenly.
    Uniform,
    /// As independent clients would come: times between arrivals are exponentially distributed.
    Poisson,
}

impl FromStr for Arrivals {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "uniform" => Ok(Self::Uniform),
            "poisson" => Ok(Self::Poisson),
            _ => Err(format!("{text:?} is no way to arrive; write uniform or poisson")),
        }
    }
}

impl Arrivals {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Uniform => "uniform",
            Self::Poisson => "poisson",
        }
    }
}

/// The arrivals of one load thread. All threads together have the rate; evenly spread ones take turns.
#[derive(Clone, Debug)]
pub struct Schedule {
    arrivals: Arrivals,
    /// Nanoseconds between two arrivals, on average.
    interval: f64,
    /// The number of the next arrival, and for Poisson arrivals its time in nanoseconds.
    number: u64,
    next: f64,
    prng: Prng,
}

impl Schedule {
    /// `rate` arrivals a second over all threads.
    ///
    /// # Panics
    /// When the rate is not above zero.
    #[must_use]
    pub fn new(arrivals: Arrivals, rate: f64, share: Share, seed: u64) -> Self {
        assert!(rate > 0.0 && rate.is_finite(), "a rate is above zero");
        let interval = 1e9 * share.threads as f64 / rate;
        let mut schedule = Self {
            arrivals,
            interval,
            number: 0,
            next: interval * share.thread as f64 / share.threads as f64,
            prng: Prng::new(seed ^ 0xa441),
        };
        if arrivals == Arrivals::Poisson {
            schedule.next = schedule.gap();
        }
        schedule
    }

    /// When the next request is due, from the start.
    #[must_use]
    pub fn peek(&self) -> Duration {
        let at = match self.arrivals {
            // From its number, so that roundings do not add up.
            Arrivals::Uniform => self.next + self.number as f64 * self.interval,
            Arrivals::Poisson => self.next,
        };
        Duration::from_nanos(at as u64)
    }

    /// Goes on to the one after it.
    pub fn advance(&mut self) {
        self.number += 1;
        if self.arrivals == Arrivals::Poisson {
            self.next += self.gap();
        }
    }

    fn gap(&mut self) -> f64 {
        -(1.0 - unit(&mut self.prng)).ln() * self.interval
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(arrivals: Arrivals, threads: usize, count: usize) -> Vec<u64> {
        let mut times = Vec::new();
        for thread in 0..threads {
            let mut schedule = Schedule::new(arrivals, 1000.0, Share { thread, threads }, thread as u64);
            for _ in 0..count / threads {
                times.push(schedule.peek().as_micros() as u64);
                schedule.advance();
            }
        }
        times.sort_unstable();
        times
    }

    #[test]
    fn threads_take_turns_and_keep_the_rate_for_ever() {
        for threads in [1, 2, 4] {
            let times = times(Arrivals::Uniform, threads, 4000);
            assert!(
                times.iter().enumerate().all(|(number, time)| *time == number as u64 * 1000),
                "{threads}"
            );
        }
    }

    #[test]
    fn poisson_arrivals_have_the_rate_and_exponential_gaps() {
        for threads in [1, 3] {
            let times = times(Arrivals::Poisson, threads, 30_000);
            let span = *times.last().unwrap() as f64 / 1e6;
            assert!((28.5..31.5).contains(&span), "30000 at 1000 a second take {span} s");
            let gaps: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
            // Of exponential gaps, e^-1 are longer than the mean, and e^-3 than three of it.
            let longer = |us: u64| gaps.iter().filter(|gap| **gap > us).count() as f64 / gaps.len() as f64;
            assert!((longer(1000) - 0.368).abs() < 0.02 && (longer(3000) - 0.0498).abs() < 0.01, "{threads}");
        }
    }

    #[test]
    fn a_seed_decides() {
        let share = Share { thread: 0, threads: 1 };
        let first = |seed| Schedule::new(Arrivals::Poisson, 10.0, share, seed).peek();
        assert_eq!(first(7), first(7));
        assert_ne!(first(7), first(8));
    }
}
