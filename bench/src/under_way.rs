//! Requests that are under way on one connection.

use crate::workload::Kind;
use evenkeel_client::protocol::tokens::TokenRange;
use evenkeel_wire::ids::RequestId;
use std::collections::VecDeque;
use std::time::Instant;

/// A request under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct UnderWay {
    pub(crate) request: RequestId,
    pub(crate) kind: Kind,
    pub(crate) key: u64,
    /// Of the item that it carries.
    pub(crate) bytes: u32,
    /// Of a write.
    pub(crate) token: Option<TokenRange>,
    pub(crate) due: Instant,
    pub(crate) sent: Instant,
}

/// Requests by id. Ids follow each other, so what is open is a window, and none is looked for.
#[derive(Debug, Default)]
pub(crate) struct Window {
    /// The id of the first.
    first: u64,
    requests: VecDeque<Option<UnderWay>>,
    open: usize,
}

impl Window {
    /// Adds the request that was begun last.
    pub(crate) fn push(&mut self, under_way: UnderWay) {
        if self.requests.is_empty() {
            self.first = under_way.request.0;
        }
        let expected = self.first + self.requests.len() as u64;
        assert_eq!(under_way.request.0, expected, "a connection numbers its requests in order");
        self.requests.push_back(Some(under_way));
        self.open += 1;
    }

    /// Takes one that was answered.
    pub(crate) fn take(&mut self, request: RequestId) -> Option<UnderWay> {
        let place = usize::try_from(request.0.checked_sub(self.first)?).ok()?;
        let taken = self.requests.get_mut(place)?.take()?;
        self.open -= 1;
        while let Some(None) = self.requests.front() {
            self.requests.pop_front();
            self.first += 1;
        }
        Some(taken)
    }

    /// How many there are.
    pub(crate) fn open(&self) -> usize {
        self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::now;

    #[test]
    fn requests_are_taken_once_in_any_order() {
        let mut window = Window::default();
        let request = |id| UnderWay {
            request: RequestId(id),
            kind: Kind::Get,
            key: id * 10,
            bytes: 0,
            token: None,
            due: now(),
            sent: now(),
        };
        (5..9).for_each(|id| window.push(request(id)));
        let mut take = |id| window.take(RequestId(id)).map(|taken| taken.key);
        assert_eq!([take(6), take(6), take(4), take(9)], [Some(60), None, None, None]);
        assert_eq!([take(5), take(8), take(7)], [Some(50), Some(80), Some(70)]);
        assert_eq!(window.open(), 0);
        window.push(request(9));
        assert_eq!((window.open(), window.take(RequestId(9)).is_some()), (1, true));
    }
}
