//! The requests of one connection: which are answered, and which nobody waits for any more.
//!
//! Ids are given out in order, so what is open is a window: no map, and nothing is allocated in steady state.
//! A request that stays open for long holds one byte for each that came after it, for as long as its
//! deadline.

use evenkeel_wire::ids::RequestId;
use std::collections::VecDeque;

/// What was asked on a connection.
#[derive(Clone, Debug)]
pub(super) struct Questions {
    /// The state of every request from `oldest` on. The first is not answered.
    asked: VecDeque<Asked>,
    oldest: u64,
    waiting: usize,
}

/// The state of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// Its answer is waited for.
    Waiting,
    /// Its answer will come, and nobody waits.
    Forgotten,
    /// It is answered.
    Answered,
}

impl Default for Questions {
    fn default() -> Self {
        Self { asked: VecDeque::new(), oldest: 1, waiting: 0 }
    }
}

impl Questions {
    /// The id of another request.
    pub(super) fn ask(&mut self) -> RequestId {
        let request = RequestId(self.oldest + self.asked.len() as u64);
        self.asked.push_back(Asked::Waiting);
        self.waiting += 1;
        request
    }

    /// Nobody waits for this answer any more.
    pub(super) fn forget(&mut self, request: RequestId) {
        if let Some(asked @ Asked::Waiting) = self.find(request) {
            *asked = Asked::Forgotten;
            self.waiting -= 1;
        }
    }

    /// A request is answered. Returns what it was before, if it was asked at all and not answered long ago.
    pub(super) fn answer(&mut self, request: RequestId) -> Option<Asked> {
        let asked = self.find(request)?;
        let before = std::mem::replace(asked, Asked::Answered);
        self.waiting -= usize::from(before == Asked::Waiting);
        while self.asked.front() == Some(&Asked::Answered) {
            self.asked.pop_front();
            self.oldest += 1;
        }
        Some(before)
    }

    /// How many answers are waited for.
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    /// How many requests there is memory for.
    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.asked.capacity()
    }

    fn find(&mut self, request: RequestId) -> Option<&mut Asked> {
        let place = request.0.checked_sub(self.oldest)?;
        self.asked.get_mut(usize::try_from(place).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_answered_once() {
        let mut questions = Questions::default();
        let [first, second, third] = [questions.ask(), questions.ask(), questions.ask()];
        assert_eq!([first, second, third], [RequestId(1), RequestId(2), RequestId(3)]);
        assert_eq!(questions.answer(second), Some(Asked::Waiting));
        assert_eq!(questions.answer(second), Some(Asked::Answered));
        questions.forget(third);
        questions.forget(third);
        assert_eq!(questions.waiting(), 1);
        assert_eq!(questions.answer(first), Some(Asked::Waiting));
        assert_eq!(questions.answer(second), None, "answered, and so are all before it");
        assert_eq!(questions.answer(third), Some(Asked::Forgotten));
        assert_eq!((questions.waiting(), questions.ask()), (0, RequestId(4)));
    }

    #[test]
    fn what_was_not_asked_is_not_known() {
        let mut questions = Questions::default();
        questions.ask();
        for request in [0, 2, u64::MAX] {
            assert_eq!(questions.answer(RequestId(request)), None);
        }
    }
}
