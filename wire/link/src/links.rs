//! Links to addresses: which of them has a connection, and when the next may be tried.
//!
//! A link is opened when something is first sent to its address. After a failure there is a pause, which
//! doubles up to a bound; a link that was up for a while and breaks may be opened again at once, because its
//! peer has most likely just been restarted.

use crate::limits::{BACK_OFF_MAX, BACK_OFF_MIN, LINKS_MAX};
use ahash::AHashMap;
use evenkeel_wire::turn::Boot;
use std::net::SocketAddr;
use std::time::Duration;

/// What is known of one address.
#[derive(Debug)]
struct Link {
    /// The place of its connection.
    connection: Option<u32>,
    /// When its handshake was done.
    up_since: Option<Boot>,
    retry_at: Boot,
    pause: Duration,
}

/// How something can be sent to an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Through the connection at this place.
    Through(u32),
    /// A connection must be opened first.
    Open,
    /// Not now.
    Closed,
}

/// All links of a machine.
#[derive(Debug, Default)]
pub(crate) struct Links {
    by_address: AHashMap<SocketAddr, Link>,
}

impl Links {
    /// How to send something there now.
    pub(crate) fn way(&mut self, now: Boot, address: SocketAddr) -> Way {
        match self.by_address.get(&address) {
            Some(Link { connection: Some(place), .. }) => Way::Through(*place),
            Some(link) if now < link.retry_at => Way::Closed,
            Some(_) => Way::Open,
            None => {
                self.forget_rested(now);
                if self.by_address.len() < LINKS_MAX { Way::Open } else { Way::Closed }
            }
        }
    }

    /// Makes room: a link that is closed and may be tried at once says no more than none.
    fn forget_rested(&mut self, now: Boot) {
        if self.by_address.len() >= LINKS_MAX {
            self.by_address.retain(|_, link| link.connection.is_some() || now < link.retry_at);
        }
    }

    /// A connection to `address` is being opened, at `place`.
    pub(crate) fn opening(&mut self, address: SocketAddr, place: u32) {
        let link = self.entry(address);
        link.connection = Some(place);
        link.up_since = None;
    }

    /// Its handshake is done.
    pub(crate) fn up(&mut self, now: Boot, address: SocketAddr) {
        self.entry(address).up_since = Some(now);
    }

    /// It was lost, or could not be opened. Returns whether this is the first failure in a row.
    pub(crate) fn lost(&mut self, now: Boot, address: SocketAddr) -> bool {
        let link = self.entry(address);
        link.connection = None;
        let lasted = link.up_since.take().is_some_and(|since| now.since(since) >= BACK_OFF_MAX);
        if lasted {
            link.pause = BACK_OFF_MIN;
            link.retry_at = now;
            return true;
        }
        let first = link.pause == BACK_OFF_MIN;
        link.retry_at = now.after(link.pause);
        link.pause = (link.pause * 2).min(BACK_OFF_MAX);
        first
    }

    /// It was closed because we wanted it.
    pub(crate) fn closed(&mut self, now: Boot, address: SocketAddr) {
        let link = self.entry(address);
        link.connection = None;
        link.up_since = None;
        link.retry_at = now;
    }

    fn entry(&mut self, address: SocketAddr) -> &mut Link {
        self.by_address.entry(address).or_insert(Link {
            connection: None,
            up_since: None,
            retry_at: Boot(0),
            pause: BACK_OFF_MIN,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Boot = Boot(1_000_000_000_000);

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn pauses_double_up_to_a_bound() {
        let (mut links, mut now, mut pauses) = (Links::default(), START, Vec::new());
        for _ in 0..7 {
            assert_eq!(links.way(now, address(1)), Way::Open);
            links.opening(address(1), 3);
            assert_eq!(links.way(now, address(1)), Way::Through(3));
            links.lost(now, address(1));
            let before = now;
            while links.way(now, address(1)) == Way::Closed {
                now = now.after(Duration::from_millis(1));
            }
            pauses.push(now.since(before).as_millis());
        }
        assert_eq!(pauses, [50, 100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn a_link_that_lasted_is_tried_again_at_once_and_one_that_flaps_is_not() {
        let mut links = Links::default();
        links.opening(address(1), 0);
        links.up(START, address(1));
        let later = START.after(BACK_OFF_MAX);
        assert!(links.lost(later, address(1)));
        assert_eq!(links.way(later, address(1)), Way::Open);
        links.opening(address(1), 0);
        links.up(later, address(1));
        links.lost(later, address(1));
        assert_eq!(links.way(later, address(1)), Way::Closed);
    }

    #[test]
    fn addresses_are_bounded_and_rested_ones_make_room() {
        let mut links = Links::default();
        for port in 0..LINKS_MAX as u16 {
            links.opening(address(port), port.into());
        }
        assert_eq!(links.way(START, address(9999)), Way::Closed);
        links.lost(START, address(5));
        assert_eq!(links.way(START, address(9999)), Way::Closed, "its pause must be remembered");
        assert_eq!(links.way(START.after(BACK_OFF_MAX), address(9999)), Way::Open);
    }
}
