//! Where a thread runs that may run on several CPUs: near those that it hears from while it has little to do,
//! on any once it has much.
//!
//! Whoever is woken on an idle CPU waits until that CPU is told and has left its sleep; on a virtual machine
//! the hypervisor has a part in both. Whoever is woken on the sender's CPU waits until the sender sleeps,
//! which it mostly does at once. The kernel prefers the idle CPU. So a thread that has little to do asks to
//! stay where its messages come from, and lets go when the time in which it has something to do, running or
//! waiting for the CPU, becomes more than half of all (docs/decisions/0021-near.md).
//!
//! The kernel knows on which CPU it received what came last over a connection. Within a host that is the
//! sender's, from another host the one that serves the network card.

use crate::clock;
use crate::cpus;
use crate::delays::RunQueue;
use crate::limits::{NEAR_AGAIN_AFTER, NEAR_LOOK_EVERY, NEAR_LOOKS, NEAR_SHARE, NEAR_SHARE_MAX};
use evenkeel_wire::turn::Boot;
use std::time::Duration;

/// Where a thread is allowed to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    Anywhere,
    On(usize),
}

/// Decides where a thread runs. It knows neither clocks nor the kernel.
#[derive(Debug)]
struct Choice {
    place: Place,
    /// The CPUs that messages came from, one for each look; none: nothing has come.
    origins: Vec<Option<usize>>,
    not_before: Boot,
}

impl Choice {
    fn new() -> Self {
        Self { place: Place::Anywhere, origins: Vec::with_capacity(NEAR_LOOKS), not_before: Boot(0) }
    }

    /// Decides after [`NEAR_LOOKS`] looks at `origins`, in which the thread had something to do for `busy` of
    /// the time. Returns where it runs from now on, if that is somewhere else than before.
    fn decide(&mut self, now: Boot, busy: f64) -> Option<Place> {
        let (origins, before) = (&self.origins, self.place);
        let came_from = |cpu: usize| origins.iter().filter(|origin| **origin == Some(cpu)).count();
        let most = origins.iter().flatten().copied().find(|cpu| came_from(*cpu) * 2 > origins.len());
        self.origins.clear();
        match before {
            Place::On(_) if busy > NEAR_SHARE_MAX => {
                self.place = Place::Anywhere;
                self.not_before = now.after(NEAR_AGAIN_AFTER);
            }
            Place::Anywhere if busy > NEAR_SHARE || now < self.not_before => {}
            Place::Anywhere | Place::On(_) => self.place = most.map_or(before, Place::On),
        }
        (self.place != before).then_some(self.place)
    }
}

/// Keeps the calling thread near those that it hears from.
#[derive(Debug)]
pub(crate) struct Near {
    run_queue: RunQueue,
    /// The CPUs on which it may run.
    usable: Vec<usize>,
    choice: Choice,
    look_at: Boot,
    /// When this round of looks began, and what the thread had had to do until then.
    since: Boot,
    busy_ns: u64,
}

impl Near {
    /// For the calling thread. None where there is no choice, or nothing is known of a thread's time.
    pub(crate) fn of_this_thread() -> Option<Self> {
        let usable = cpus::usable();
        let run_queue = RunQueue::of_this_thread()?;
        let busy_ns = run_queue.busy_ns()?;
        let (choice, look_at, since) = (Choice::new(), Boot(0), clock::boot());
        (usable.len() > 1).then_some(Self { run_queue, usable, choice, look_at, since, busy_ns })
    }

    /// The thread works at `now`. `came_from`: the CPU on which the kernel received what came last.
    pub(crate) fn look(&mut self, now: Boot, came_from: impl FnOnce() -> Option<usize>) {
        if now < self.look_at {
            return;
        }
        self.look_at = now.after(NEAR_LOOK_EVERY);
        self.choice.origins.push(came_from().filter(|cpu| self.usable.contains(cpu)));
        if self.choice.origins.len() < NEAR_LOOKS {
            return;
        }
        let busy_ns = self.run_queue.busy_ns().unwrap_or(self.busy_ns);
        let busy = Duration::from_nanos(busy_ns - std::mem::replace(&mut self.busy_ns, busy_ns));
        let all = now.since(std::mem::replace(&mut self.since, now));
        if let Some(place) = self.choice.decide(now, busy.as_secs_f64() / all.as_secs_f64()) {
            self.go(place);
        }
    }

    fn go(&mut self, place: Place) {
        let went = match place {
            Place::Anywhere => cpus::confine(&self.usable),
            Place::On(cpu) => cpus::confine(&[cpu]),
        };
        match went {
            Ok(()) => tracing::debug!(?place, "this thread runs elsewhere"),
            Err(error) => {
                // Somebody has taken CPUs from this process: from here on it is for them to say.
                tracing::warn!(?place, %error, "this thread could not be placed, and stays where it is");
                self.look_at = Boot::NEVER;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LITTLE: f64 = NEAR_SHARE - 0.1;
    const BETWEEN: f64 = f64::midpoint(NEAR_SHARE, NEAR_SHARE_MAX);
    const MUCH: f64 = NEAR_SHARE_MAX + 0.1;

    fn decide(choice: &mut Choice, now: Boot, origins: &[(usize, usize)], busy: f64) -> Place {
        let looks = origins.iter().flat_map(|(cpu, times)| std::iter::repeat_n(Some(*cpu), *times));
        choice.origins.extend(looks);
        let moved = choice.decide(now, busy);
        assert!(moved.is_none_or(|place| place == choice.place) && choice.origins.is_empty());
        choice.place
    }

    #[test]
    fn who_has_little_to_do_goes_where_its_messages_come_from() {
        let mut choice = Choice::new();
        assert_eq!(decide(&mut choice, Boot(0), &[(1, NEAR_LOOKS)], MUCH), Place::Anywhere);
        assert_eq!(decide(&mut choice, Boot(0), &[(1, 5), (3, 11)], LITTLE), Place::On(3));
        assert_eq!(decide(&mut choice, Boot(0), &[(1, 11), (3, 5)], LITTLE), Place::On(1), "they have moved");
        assert_eq!(decide(&mut choice, Boot(0), &[(1, 8), (3, 8)], LITTLE), Place::On(1), "no majority");
        assert_eq!(decide(&mut choice, Boot(0), &[], LITTLE), Place::On(1), "nothing came");
    }

    #[test]
    fn who_has_much_to_do_runs_anywhere_and_does_not_come_back_at_once() {
        let (mut choice, all) = (Choice::new(), [(0, NEAR_LOOKS)]);
        decide(&mut choice, Boot(0), &all, LITTLE);
        assert_eq!(
            decide(&mut choice, Boot(1), &all, BETWEEN),
            Place::On(0),
            "nearness itself makes it wait"
        );
        let left = Boot(2);
        assert_eq!(decide(&mut choice, left, &all, MUCH), Place::Anywhere);
        assert_eq!(decide(&mut choice, left, &all, LITTLE), Place::Anywhere, "too early");
        let later = left.after(NEAR_AGAIN_AFTER);
        assert_eq!(decide(&mut choice, later, &all, BETWEEN), Place::Anywhere, "still too much");
        assert_eq!(decide(&mut choice, later, &all, LITTLE), Place::On(0));
    }

    #[test]
    fn who_cannot_be_placed_stays_and_asks_no_more() {
        let Some(mut near) = Near::of_this_thread() else {
            return;
        };
        let before = cpus::usable();
        (near.usable, near.since) = (vec![usize::MAX], Boot(0));
        for _ in 0..NEAR_LOOKS {
            near.look(near.look_at, || Some(usize::MAX));
        }
        assert_eq!((near.look_at, cpus::usable()), (Boot::NEVER, before));
    }
}
