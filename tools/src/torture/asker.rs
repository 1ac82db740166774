//! A storage core asked directly, as a router asks it: what it answers to questions that waited in its socket
//! while it was stopped. A router in between would hear of another leader, or give up.

use evenkeel_wire::error::{ErrorAnswer, Problem};
use evenkeel_wire::frame::{BodyLimit, Header, Kind, first_frame, seal};
use evenkeel_wire::handshake::{Identity, Peer, PeerRole, conclude, greet};
use evenkeel_wire::ids::{Epoch, Incarnation, PartitionId, RequestId};
use evenkeel_wire::item::{self, Item};
use evenkeel_wire::message::request::{Get, GetAnswer};
use evenkeel_wire::message::{access, encode};
use std::io::{Error, ErrorKind, Read, Result, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A connection to a storage core.
#[derive(Debug)]
pub struct Asker {
    socket: TcpStream,
    input: Vec<u8>,
    asked: u64,
}

/// What came back for a question.
#[derive(Debug)]
pub enum Answer {
    /// The item, if there is one.
    Found(Option<Item>),
    /// It would not say.
    Refused(Problem),
}

impl Asker {
    /// Connects, and shakes hands as a router of that cluster does.
    ///
    /// # Errors
    /// When that fails.
    pub fn connect(address: SocketAddr, cluster: Incarnation, patience: Duration) -> Result<Self> {
        let socket = TcpStream::connect_timeout(&address, patience)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(patience))?;
        let mut asker = Self { socket, input: Vec::new(), asked: 0 };
        let identity = Identity { cluster, peer: Peer::of_role(PeerRole::Router) };
        let mut hello = Vec::new();
        greet(&identity, &mut hello);
        asker.socket.write_all(&hello)?;
        let (header, body) = asker.frame(BodyLimit::BEFORE_HELLO)?;
        conclude(&identity, header, &body).map_err(Error::other)?;
        Ok(asker)
    }

    /// Sends a question without waiting for its answer. Returns its number.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn ask(&mut self, partition: PartitionId, epoch: Epoch, get: &Get<'_>) -> Result<u64> {
        let (number, mut frame) = (self.asked, Vec::new());
        let header = Header::new(Kind::Get, RequestId(number)).to_partition(partition, epoch);
        seal(&mut frame, header, |out| encode(get, out));
        self.socket.write_all(&frame)?;
        self.asked += 1;
        Ok(number)
    }

    /// Waits for the next answer, and returns the number of its question.
    ///
    /// # Errors
    /// When none comes in time, or it makes no sense.
    pub fn answer(&mut self) -> Result<(u64, Answer)> {
        let (header, body) = self.frame(BodyLimit::AFTER_HELLO)?;
        let answer = match header.kind {
            Kind::GetAnswer => {
                let answer = access::<GetAnswer<'static>>(&body).map_err(Error::other)?;
                let row = answer.item.as_ref();
                let item = row.map(|row| item::access(&row.item).and_then(item::ArchivedItem::to_item));
                Answer::Found(item.transpose().map_err(Error::other)?)
            }
            _ => Answer::Refused(access::<ErrorAnswer>(&body).map_err(Error::other)?.into()),
        };
        Ok((header.request.0, answer))
    }

    fn frame(&mut self, limit: BodyLimit) -> Result<(Header, Vec<u8>)> {
        let mut part = [0; 4096];
        loop {
            if let Some((header, body)) = first_frame(&self.input, limit).map_err(Error::other)? {
                let body = body.to_vec();
                self.input.drain(..header.frame_bytes());
                return Ok((header, body));
            }
            match self.socket.read(&mut part)? {
                0 => return Err(ErrorKind::UnexpectedEof.into()),
                count => self.input.extend_from_slice(&part[..count]),
            }
        }
    }
}
