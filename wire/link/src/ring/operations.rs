//! What can be asked of a ring. Each operation takes the memory that it needs, and its last completion gives
//! it back.

use super::{BUFFER_GROUP, Ring};
use crate::socket::RawAddress;
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::turn::Boot;
use io_uring::types::{CancelBuilder, Fd, FsyncFlags, TimeoutFlags, Timespec};
use io_uring::{opcode, squeue};
use std::net::SocketAddr;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd};

/// The operations that are submitted here, as the kernel numbers them.
pub(super) const CODES: [u8; 12] = [
    opcode::AcceptMulti::CODE,
    opcode::AsyncCancel2::CODE,
    opcode::Connect::CODE,
    opcode::Fsync::CODE,
    opcode::PollAdd::CODE,
    opcode::Read::CODE,
    opcode::RecvMulti::CODE,
    opcode::Send::CODE,
    opcode::Timeout::CODE,
    opcode::TimeoutUpdate::CODE,
    opcode::Write::CODE,
    opcode::WriteFixed::CODE,
];

/// What an operation is for; its completions repeat it. The numbers are places in tables of the asking side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Token {
    Socket(SocketToken),
    Disk(u32),
}

/// What an operation on a socket is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketToken {
    /// Connections to our listener, until cancelled.
    Accept,
    /// Bytes from a connection, until cancelled, or until no buffer is free.
    Receive(u32),
    /// Bytes to a connection.
    Send(u32),
    /// A connection that we open.
    Connect(u32),
}

/// Whose an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// Somebody asked for it, and is told of its completions.
    Asked(Token),
    /// The ring's timer.
    Timer,
    /// The ring's watch over its signal.
    Signal,
    /// Something that the ring does for its own sake.
    Aside,
}

/// Names an operation in flight, so that it can be cancelled. No two operations of a ring have the same key
/// within four billion others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Key(pub(super) u64);

impl Key {
    fn new(generation: u32, place: u32) -> Self {
        Self(u64::from(generation) << 32 | u64::from(place))
    }

    pub(super) fn place(self) -> u32 {
        self.0 as u32
    }
}

/// What an operation holds for the kernel. Everything is behind a pointer, so it stays where it is when this
/// moves.
#[derive(Debug)]
pub(super) enum Memory {
    Nothing,
    Bytes(Vec<u8>),
    Block(AlignedBuffer),
    Address(Box<RawAddress>),
    Time(Box<Timespec>),
}

/// An operation in flight.
#[derive(Debug)]
pub(super) struct Operation {
    pub(super) key: Key,
    pub(super) owner: Owner,
    pub(super) memory: Memory,
}

/// How a write reaches its device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct WriteMode {
    /// The completion means that the bytes are durable.
    pub(crate) durable: bool,
    /// The index under which this ring has registered the buffer.
    pub(crate) registered: Option<u16>,
}

impl Ring {
    /// Accepts connections to `listener`, until cancelled.
    pub(crate) fn accept(&mut self, listener: &impl AsFd) -> Key {
        let listener = descriptor(listener);
        self.submit(asked(SocketToken::Accept), Memory::Nothing, |_| {
            opcode::AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build()
        })
    }

    /// Receives from a connection into this ring's buffers, until cancelled.
    pub(crate) fn receive(&mut self, place: u32, socket: &impl AsFd) -> Key {
        let socket = descriptor(socket);
        self.submit(asked(SocketToken::Receive(place)), Memory::Nothing, |_| {
            opcode::RecvMulti::new(socket, BUFFER_GROUP).build()
        })
    }

    /// Sends a part of `bytes`, all of it unless the connection breaks.
    pub(crate) fn send(&mut self, place: u32, socket: &impl AsFd, bytes: Vec<u8>, part: Range<usize>) -> Key {
        let socket = descriptor(socket);
        self.submit(asked(SocketToken::Send(place)), Memory::Bytes(bytes), |memory| {
            let Memory::Bytes(bytes) = memory else {
                unreachable!("a send holds bytes");
            };
            let part = &bytes[part];
            opcode::Send::new(socket, part.as_ptr(), part.len() as u32)
                .flags(libc::MSG_WAITALL | libc::MSG_NOSIGNAL)
                .build()
        })
    }

    /// Connects a socket.
    pub(crate) fn connect(&mut self, place: u32, socket: &impl AsFd, address: SocketAddr) -> Key {
        let socket = descriptor(socket);
        let address = Memory::Address(Box::new(address.into()));
        self.submit(asked(SocketToken::Connect(place)), address, |memory| {
            let Memory::Address(address) = memory else {
                unreachable!("a connect holds an address");
            };
            let (pointer, bytes) = address.parts();
            opcode::Connect::new(socket, pointer, bytes).build()
        })
    }

    /// Reads into the part of the buffer that begins at `from` and ends where the buffer is filled.
    pub(crate) fn read(
        &mut self,
        place: u32,
        file: &impl AsFd,
        buffer: AlignedBuffer,
        from: usize,
        offset: u64,
    ) {
        let file = descriptor(file);
        self.submit(Owner::Asked(Token::Disk(place)), Memory::Block(buffer), |memory| {
            let Memory::Block(buffer) = memory else {
                unreachable!("a read holds a buffer");
            };
            let part = &mut buffer[from..];
            opcode::Read::new(file, part.as_mut_ptr(), part.len() as u32).offset(offset).build()
        });
    }

    /// Writes the filled part of a buffer.
    pub(crate) fn write(
        &mut self,
        place: u32,
        file: &impl AsFd,
        buffer: AlignedBuffer,
        offset: u64,
        mode: WriteMode,
    ) {
        let file = descriptor(file);
        let flags = if mode.durable { libc::RWF_DSYNC } else { 0 };
        self.submit(Owner::Asked(Token::Disk(place)), Memory::Block(buffer), |memory| {
            let Memory::Block(buffer) = memory else {
                unreachable!("a write holds a buffer");
            };
            let (pointer, bytes) = (buffer.as_ptr().cast_const(), buffer.len() as u32);
            match mode.registered {
                Some(index) => opcode::WriteFixed::new(file, pointer, bytes, index)
                    .offset(offset)
                    .rw_flags(flags)
                    .build(),
                None => opcode::Write::new(file, pointer, bytes).offset(offset).rw_flags(flags).build(),
            }
        });
    }

    /// Makes durable what was written to a file, and what is needed to find it again.
    pub(crate) fn flush(&mut self, place: u32, file: &impl AsFd) {
        let file = descriptor(file);
        self.submit(Owner::Asked(Token::Disk(place)), Memory::Nothing, |_| {
            opcode::Fsync::new(file).flags(FsyncFlags::DATASYNC).build()
        });
    }

    /// Has somebody who raises the signal wake whoever [sleeps](Self::sleep) here.
    pub(crate) fn watch_signal(&mut self) {
        let signal = Fd(self.signal.as_raw_fd());
        self.watch = Some(self.submit(Owner::Signal, Memory::Nothing, |_| {
            opcode::PollAdd::new(signal, libc::POLLIN as u32).multi(true).build()
        }));
    }

    /// Raises the signal at `at` at the latest. An earlier time than before replaces it; a later one does
    /// not, and costs a wake-up for nothing instead of an operation for each turn.
    pub(crate) fn wake_at(&mut self, at: Boot) {
        let time = || Memory::Time(Box::new(timespec(at)));
        let key = match self.timer {
            Some((_, armed)) if armed <= at => return,
            Some((key, _)) => {
                self.submit(Owner::Aside, time(), |memory| {
                    opcode::TimeoutUpdate::new(key.0, time_in(memory)).flags(TimeoutFlags::ABS).build()
                });
                key
            }
            None => self.submit(Owner::Timer, time(), |memory| {
                let flags = TimeoutFlags::ABS | TimeoutFlags::BOOTTIME;
                opcode::Timeout::new(time_in(memory)).flags(flags).build()
            }),
        };
        self.timer = Some((key, at));
    }

    /// Forgets the timer, and the watch over the signal.
    pub(crate) fn disarm(&mut self) {
        if let Some(key) = self.watch.take() {
            self.cancel(key);
        }
        if let Some((key, _)) = self.timer.take() {
            self.cancel(key);
        }
    }

    /// Asks an operation to end now. Its last completion still comes.
    pub(crate) fn cancel(&mut self, key: Key) {
        self.submit(Owner::Aside, Memory::Nothing, |_| {
            opcode::AsyncCancel2::new(CancelBuilder::user_data(key.0)).build()
        });
    }

    pub(super) fn submit(
        &mut self,
        owner: Owner,
        memory: Memory,
        build: impl FnOnce(&mut Memory) -> squeue::Entry,
    ) -> Key {
        self.generation = self.generation.wrapping_add(1);
        let key = Key::new(self.generation, self.operations.next_place());
        let place = self.operations.insert(Operation { key, owner, memory });
        let operation = self.operations.get_mut(place).expect("it was just inserted");
        let entry = build(&mut operation.memory).user_data(key.0);
        self.push(entry);
        key
    }
}

fn asked(token: SocketToken) -> Owner {
    Owner::Asked(Token::Socket(token))
}

fn descriptor(file: &impl AsFd) -> Fd {
    Fd(file.as_fd().as_raw_fd())
}

fn timespec(at: Boot) -> Timespec {
    Timespec::new().sec(at.0 / 1_000_000_000).nsec((at.0 % 1_000_000_000) as u32)
}

fn time_in(memory: &Memory) -> *const Timespec {
    let Memory::Time(time) = memory else {
        unreachable!("a timer holds a time");
    };
    &raw const **time
}
