//! What asks storage cores directly, as a router would: any replica of a partition, whoever leads it.

use evenkeel_wire::frame::{Header, seal};
use evenkeel_wire::ids::RequestId;
use evenkeel_wire::turn::{Boot, Effects, Endpoint, Input, Machine, Now};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::rc::Rc;

/// Frames on their way out, and what came back.
#[derive(Debug, Default)]
pub struct Mailbox {
    /// To be sent: where, and what.
    pub outgoing: Vec<(SocketAddr, Header, Vec<u8>)>,
    /// Answers by the requests that they are to.
    pub answers: BTreeMap<RequestId, (Header, Vec<u8>)>,
}

/// The machine that empties the mailbox.
#[derive(Debug)]
pub struct Probe {
    mailbox: Rc<RefCell<Mailbox>>,
}

impl Probe {
    /// One for that mailbox.
    #[must_use]
    pub fn new(mailbox: Rc<RefCell<Mailbox>>) -> Self {
        Self { mailbox }
    }
}

impl Machine for Probe {
    fn step(&mut self, _: Now, input: Input<'_>, _: &mut Effects) {
        match input {
            Input::Frame { header, body, .. } => {
                self.mailbox.borrow_mut().answers.insert(header.request, (header, body.to_vec()));
            }
            // What is lost is asked again.
            Input::Up { .. } | Input::Down { .. } | Input::Disk(_) | Input::Wake | Input::Drain => {}
        }
    }

    fn end_turn(&mut self, _: Now, out: &mut Effects) {
        for (to, header, body) in std::mem::take(&mut self.mailbox.borrow_mut().outgoing) {
            seal(out.outbox(Endpoint::Outgoing(to)), header, |out| out.extend_from_slice(&body));
        }
    }

    fn wake_at(&self) -> Boot {
        Boot::NEVER
    }
}
