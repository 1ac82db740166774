//! One turn of a machine, while its inputs are executed: the machine, the time, and how much may still be
//! done.
//!
//! A turn is begun after everything that it will execute has been taken from the ring, and its time was read
//! after that. The order is a safety rule: see `evenkeel_wire::turn`.

use crate::limits::FRAMES_PER_TURN_MAX;
use evenkeel_wire::turn::{Effects, Input, Machine, Now};

/// A turn.
pub(crate) struct Turn<'a> {
    /// Counts turns; tells one from another.
    pub(crate) number: u64,
    pub(crate) now: Now,
    /// Frames that may still be executed.
    pub(crate) frames_left: usize,
    /// Whether anything was executed.
    pub(crate) stepped: bool,
    pub(crate) effects: &'a mut Effects,
    /// Not there when the machine has ended: it is called no more.
    machine: Option<&'a mut dyn Machine>,
}

impl<'a> Turn<'a> {
    pub(crate) fn new(number: u64, now: Now, machine: &'a mut dyn Machine, effects: &'a mut Effects) -> Self {
        let machine = Some(machine);
        Self { number, now, frames_left: FRAMES_PER_TURN_MAX, stepped: false, effects, machine }
    }

    /// A turn of a machine that has ended: what is in flight ends, and nobody is told.
    pub(crate) fn without_machine(number: u64, now: Now, effects: &'a mut Effects) -> Self {
        Self { number, now, frames_left: 0, stepped: false, effects, machine: None }
    }

    /// Executes one input.
    pub(crate) fn step(&mut self, input: Input<'_>) {
        if let Some(machine) = &mut self.machine {
            self.stepped = true;
            machine.step(self.now, input, self.effects);
        }
    }

    /// Ends the turn, if there was anything in it. Returns whether there was.
    pub(crate) fn end(self) -> bool {
        if let Some(machine) = self.machine
            && self.stepped
        {
            machine.end_turn(self.now, self.effects);
        }
        self.stepped
    }
}
