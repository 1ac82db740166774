//! How long an executor polls before it parks.
//!
//! A wake-up from parking costs a request some 30 us each time; polling costs the CPU. What pays depends on
//! how long the next piece of work usually takes to come, so [`Poller`] keeps a fading histogram of that and
//! polls for as long as costs least. It knows neither clocks nor rings: it is told how long each idle time
//! was.
//!
//! It polls not at all when this process has more executors than CPUs, and pauses when the kernel takes the
//! CPU away from a polling executor: somebody else needs it.

use crate::limits::{
    CONTENDED_PAUSE_MAX, CONTENDED_PAUSE_MIN, CONTENDED_WINDOW, INTERRUPTIONS_PER_SECOND_MAX, PARK_COST,
    POLL_MAX,
};
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
const FADE: f32 = 31.0 / 32.0;

const _: () = assert!(RANGES_US[RANGES_US.len() - 1] == POLL_MAX.as_micros() as u64);

/// Decides how long to poll.
#[derive(Debug)]
pub(crate) struct Poller {
    polling: Polling,
    /// How often idle times fell into each range, fading; the last counts long ones.
    weights: [f32; RANGES_US.len() + 1],
    /// What `weights` suggest.
    budget: Duration,
    /// When the count of switches was last looked at, and what it was.
    looked: (Boot, u64),
    pause: Duration,
    paused_until: Boot,
}

impl Poller {
    pub(crate) fn new(polling: Polling) -> Self {
        Self {
            polling,
            weights: [0.0; RANGES_US.len() + 1],
            budget: Duration::ZERO,
            looked: (Boot(0), 0),
            pause: CONTENDED_PAUSE_MIN,
            paused_until: Boot(0),
        }
    }

    /// How long to poll now.
    pub(crate) fn budget(&self, now: Boot, oversubscribed: bool) -> Duration {
        match self.polling {
            Polling::Fixed(budget) => budget,
            Polling::Auto if oversubscribed || now < self.paused_until => Duration::ZERO,
            Polling::Auto => self.budget,
        }
    }

    /// Notes how long it took until there was work, by polling or by parking.
    pub(crate) fn note(&mut self, idle: Duration) {
        let idle_us = idle.as_micros() as u64;
        let range = RANGES_US.iter().position(|end| idle_us <= *end).unwrap_or(RANGES_US.len());
        self.weights.iter_mut().for_each(|weight| *weight *= FADE);
        self.weights[range] += 1.0;
        self.budget = cheapest(&self.weights);
    }

    /// Whether the caller should look how often the kernel took the CPU away from this thread, and tell
    /// [`interrupted`](Self::interrupted).
    pub(crate) fn wants_switches(&self, now: Boot) -> bool {
        self.polling == Polling::Auto && now.since(self.looked.0) >= CONTENDED_WINDOW
    }

    /// Takes the thread's count of involuntary switches.
    pub(crate) fn interrupted(&mut self, now: Boot, switches: u64) {
        let (since, before) = std::mem::replace(&mut self.looked, (now, switches));
        let allowed = now.since(since).as_millis() as u64 * INTERRUPTIONS_PER_SECOND_MAX / 1000;
        if switches.saturating_sub(before) > allowed {
            self.paused_until = now.after(self.pause);
            self.pause = (self.pause * 2).min(CONTENDED_PAUSE_MAX);
        } else {
            self.pause = CONTENDED_PAUSE_MIN;
        }
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

    fn after(idle_us: &[u64]) -> Duration {
        let mut poller = Poller::new(Polling::Auto);
        idle_us.iter().cycle().take(300).for_each(|us| poller.note(Duration::from_micros(*us)));
        poller.budget(Boot(0), false)
    }

    #[test]
    fn polling_is_as_long_as_the_usual_idle_time_and_no_longer() {
        assert_eq!(after(&[5]), Duration::from_micros(8));
        assert_eq!(after(&[110]), Duration::from_micros(128));
        assert_eq!(after(&[5, 5, 5, 20_000]), Duration::from_micros(8));
    }

    #[test]
    fn an_idle_executor_does_not_poll() {
        assert_eq!(after(&[10_000]), Duration::ZERO);
        assert_eq!(after(&[200, 10_000, 10_000, 10_000]), Duration::ZERO);
    }

    #[test]
    fn an_oversubscribed_process_does_not_poll_unless_told_to() {
        let mut poller = Poller::new(Polling::Auto);
        poller.note(Duration::from_micros(3));
        assert_eq!(poller.budget(Boot(0), true), Duration::ZERO);
        let fixed = Polling::Fixed(Duration::from_micros(7));
        assert_eq!(Poller::new(fixed).budget(Boot(0), true), Duration::from_micros(7));
    }

    #[test]
    fn a_contended_cpu_pauses_polling_longer_each_time() {
        let mut poller = Poller::new(Polling::Auto);
        poller.note(Duration::from_micros(3));
        let mut now = Boot(0);
        let mut look = |poller: &mut Poller, switches| {
            now = now.after(CONTENDED_WINDOW);
            assert!(poller.wants_switches(now));
            poller.interrupted(now, switches);
            now
        };
        let first = look(&mut poller, 8);
        assert_eq!(poller.budget(first, false), Duration::ZERO);
        assert_ne!(poller.budget(first.after(CONTENDED_PAUSE_MIN), false), Duration::ZERO);
        let second = look(&mut poller, 16);
        assert_eq!(poller.budget(second.after(CONTENDED_PAUSE_MIN), false), Duration::ZERO);
        let calm = look(&mut poller, 17);
        assert_ne!(poller.budget(calm, false), Duration::ZERO);
    }
}
