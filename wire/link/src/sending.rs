//! What waits to be sent on one connection: one buffer in flight, and one in which the next is gathered.
//!
//! Invariants: bytes leave in the order in which they were added, and at most one send is in flight.

/// The sending half of a connection.
#[derive(Debug, Default)]
pub(crate) struct Sending {
    /// Gathered, not yet handed to the ring.
    pending: Vec<u8>,
    /// Bytes of the buffer in flight that have not been sent.
    in_flight: usize,
}

impl Sending {
    /// Adds bytes. A buffer that is not needed is given back, to be used again.
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> Option<Vec<u8>> {
        if self.pending.is_empty() {
            let empty = std::mem::replace(&mut self.pending, bytes);
            return (empty.capacity() > 0).then_some(empty);
        }
        self.pending.extend_from_slice(&bytes);
        Some(bytes)
    }

    /// Appends what `write` writes.
    pub(crate) fn add_with<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        write(&mut self.pending)
    }

    /// Takes what has been gathered, if nothing is in flight. It is in flight from now on.
    pub(crate) fn begin(&mut self) -> Option<Vec<u8>> {
        if self.in_flight > 0 || self.pending.is_empty() {
            return None;
        }
        self.in_flight = self.pending.len();
        Some(std::mem::take(&mut self.pending))
    }

    /// Notes that bytes of the buffer in flight are out. Returns how many remain of it.
    pub(crate) fn sent(&mut self, bytes: usize) -> usize {
        self.in_flight = self.in_flight.checked_sub(bytes).expect("no more is sent than was in flight");
        self.in_flight
    }

    /// Bytes that are not out yet.
    pub(crate) fn unsent(&self) -> usize {
        self.in_flight + self.pending.len()
    }

    /// Forgets everything that is not in flight.
    pub(crate) fn forget(&mut self) {
        self.pending = Vec::new();
        self.in_flight = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_while_a_send_is_in_flight_goes_out_behind_it() {
        let mut sending = Sending::default();
        assert_eq!(sending.add(b"one".to_vec()), None);
        assert_eq!(sending.begin().unwrap(), b"one");
        sending.add(b"two".to_vec());
        assert!(sending.add(b"three".to_vec()).is_some(), "the second buffer is free again");
        assert_eq!((sending.begin(), sending.unsent()), (None, 11));
        assert_eq!((sending.sent(2), sending.begin()), (1, None));
        assert_eq!(sending.sent(1), 0);
        assert_eq!(sending.begin().unwrap(), b"twothree");
    }
}
