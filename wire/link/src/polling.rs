//! How long an executor polls before it parks.
//!
//! A wake-up from parking costs a request tens of microseconds each time; polling costs the CPU. What pays
//! depends on how long the next piece of work usually takes to come, so [`Poller`] keeps a fading histogram
//! of that and polls for as long as costs least. It learns only from idle times that it has watched to their
//! end, or for the longest time that it would ever poll: others say more about parking than about the work.
//! Every sixteenth is watched for that purpose. It knows neither clocks nor rings.
//!
//! It polls not at all when this process has more executors than CPUs, and pauses when the kernel takes the
//! CPU away from a polling executor: somebody else needs it.

use crate::limits::{CONTENDED_PAUSE_MAX, CONTENDED_PAUSE_MIN, PARK_COST, POLL_MAX, STOLEN_MIN};
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// How an executor waits for work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Polling {
    /// Polls as long as it pays, and not when the CPUs are oversubscribed.
    #[default]
    Auto,
    /// Polls for this long each time; zero parks at once.
    Fixed(Duration),
}

/// Upper ends of the histogram's ranges, microseconds; idle times above the last are "long".
const RANGES_US: [u64; 6] = [8, 16, 32, 64, 128, 256];

/// What one idle time counts for after the next was seen.
const FADE: f32 = 15.0 / 16.0;

/// One of so many idle times is watched whether that pays or not.
const WATCH_EVERY: u32 = 16;

const _: () = assert!(RANGES_US[RANGES_US.len() - 1] == POLL_MAX.as_micros() as u64);

/// Decides how long to poll.
#[derive(Debug)]
pub(crate) struct Poller {
    polling: Polling,
    /// How often idle times fell into each range, fading; the last counts long ones.
    weights: [f32; RANGES_US.len() + 1],
    /// What `weights` suggest.
    budget: Duration,
    /// Idle times until one is watched.
    until_watch: u32,
    /// The next pause, when the CPU is taken away.
    pause: Duration,
    paused_until: Boot,
}

impl Poller {
    pub(crate) fn new(polling: Polling) -> Self {
        Self {
            polling,
            weights: [0.0; RANGES_US.len() + 1],
            budget: Duration::ZERO,
            until_watch: 0,
            pause: CONTENDED_PAUSE_MIN,
            paused_until: Boot(0),
        }
    }

    /// How long to poll now.
    pub(crate) fn budget(&mut self, now: Boot, oversubscribed: bool) -> Duration {
        match self.polling {
            Polling::Fixed(budget) => budget,
            Polling::Auto if oversubscribed || now < self.paused_until => Duration::ZERO,
            Polling::Auto if self.until_watch == 0 => {
                self.until_watch = WATCH_EVERY;
                POLL_MAX
            }
            Polling::Auto => {
                self.until_watch -= 1;
                self.budget
            }
        }
    }

    /// Notes what polling for `budget` has come to: how long it took until there was work, or that there was
    /// none.
    pub(crate) fn note(&mut self, budget: Duration, found_after: Option<Duration>) {
        if budget < POLL_MAX {
            return;
        }
        let range = found_after.and_then(|idle| {
            let idle_us = idle.as_micros() as u64;
            RANGES_US.iter().position(|end| idle_us <= *end)
        });
        self.weights.iter_mut().for_each(|weight| *weight *= FADE);
        self.weights[range.unwrap_or(RANGES_US.len())] += 1.0;
        self.budget = cheapest(&self.weights);
    }

    /// Notes that two looks at the rings, one right behind the other, were `step` apart.
    pub(crate) fn looked(&mut self, now: Boot, step: Duration) {
        if step < STOLEN_MIN {
            return;
        }
        let calm = now.since(self.paused_until) > CONTENDED_PAUSE_MAX;
        self.pause = if calm { CONTENDED_PAUSE_MIN } else { (self.pause * 2).min(CONTENDED_PAUSE_MAX) };
        self.paused_until = now.after(self.pause);
    }
}

/// The time to poll for which the expected cost is least: an idle time within it costs itself, a longer one
/// costs the whole poll and then a wake-up.
fn cheapest(weights: &[f32; RANGES_US.len() + 1]) -> Duration {
    let all: f32 = weights.iter().sum();
    let park_us = PARK_COST.as_micros() as f32;
    let mut best = (all * park_us, 0);
    let (mut within, mut within_cost) = (0.0, 0.0);
    for (range, end_us) in RANGES_US.into_iter().enumerate() {
        within += weights[range];
        within_cost += weights[range] * end_us as f32 * 0.75;
        let cost = within_cost + (all - within) * (end_us as f32 + park_us);
        if cost < best.0 {
            best = (cost, end_us);
        }
    }
    Duration::from_micros(best.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For how long a poller polls that has lived through `idle_us`, again and again.
    fn after(idle_us: &[u64]) -> Duration {
        let mut poller = Poller::new(Polling::Auto);
        for us in idle_us.iter().cycle().take(3000) {
            let (budget, idle) = (poller.budget(Boot(0), false), Duration::from_micros(*us));
            poller.note(budget, (idle <= budget).then_some(idle));
        }
        poller.budget
    }

    #[test]
    fn polling_is_as_long_as_the_usual_idle_time_and_no_longer() {
        assert_eq!(after(&[5]), Duration::from_micros(8));
        assert_eq!(after(&[110]), Duration::from_micros(128));
        assert_eq!(after(&[200]), POLL_MAX);
        assert_eq!(after(&[5, 5, 5, 5, 20_000]), Duration::from_micros(8));
    }

    #[test]
    fn an_idle_executor_does_not_poll() {
        assert_eq!(after(&[10_000]), Duration::ZERO);
        assert_eq!(after(&[200, 10_000, 10_000, 10_000, 10_000]), Duration::ZERO);
    }

    #[test]
    fn an_oversubscribed_process_does_not_poll_unless_told_to() {
        let mut poller = Poller::new(Polling::Auto);
        assert_eq!(poller.budget(Boot(0), true), Duration::ZERO);
        let fixed = Polling::Fixed(Duration::from_micros(7));
        assert_eq!(Poller::new(fixed).budget(Boot(0), true), Duration::from_micros(7));
    }

    #[test]
    fn a_contended_cpu_pauses_polling_longer_each_time() {
        let mut poller = Poller::new(Polling::Auto);
        poller.note(POLL_MAX, Some(Duration::from_micros(3)));
        let (mut now, mut pauses) = (Boot(0).after(CONTENDED_PAUSE_MAX * 2), Vec::new());
        poller.looked(now, Duration::from_micros(20));
        assert_ne!(poller.budget(now, false), Duration::ZERO, "the watchdog takes so long");
        for _ in 0..8 {
            poller.looked(now, STOLEN_MIN);
            let since = now;
            while poller.budget(now, false).is_zero() {
                now = now.after(Duration::from_millis(1));
            }
            pauses.push(now.since(since).as_millis());
        }
        assert_eq!(pauses, [20, 40, 80, 160, 320, 640, 1000, 1000]);
        now = now.after(CONTENDED_PAUSE_MAX * 2);
        poller.looked(now, STOLEN_MIN);
        assert!(
            !poller.budget(now.after(CONTENDED_PAUSE_MIN), false).is_zero(),
            "after a calm while it begins anew"
        );
    }
}
