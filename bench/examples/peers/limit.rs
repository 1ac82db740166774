//! The bare three-log loop: what two of three durable copies cost on this host when nothing else is done.
//!
//! The leader takes what has arrived from all connections, sends it to both followers as one message each,
//! writes it to its own log, waits until one follower has it durable, and answers. It then takes what has
//! arrived meanwhile: one write is under way at a time. Writes are O_DIRECT and RWF_DSYNC into space that was
//! written before, in whole blocks, like those of a core. Reads are answered with a value of the right length
//! out of nowhere: an empty server.

use crate::resp::{line_of, number};
use crate::{Arguments, connect, listen};
use evenkeel_wire::aligned::AlignedBuffer;
use evenkeel_wire::limits::BLOCK_BYTES;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::{ReadWriteFlags, pwritev2};
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::{FileExt, OpenOptionsExt};

/// Length of a log, which is written over and over.
const LOG_BYTES: u64 = 256 << 20;
/// What is filled at once before anything begins.
const FILL_BYTES: usize = 1 << 20;

/// A log.
struct Log {
    file: File,
    buffer: AlignedBuffer,
    offset: u64,
}

impl Log {
    fn create(path: &str) -> Result<Self, String> {
        let said = |error: std::io::Error| format!("{path}: {error}");
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true).custom_flags(OFlags::DIRECT.bits() as i32);
        let file = options.open(path).map_err(said)?;
        let mut buffer = AlignedBuffer::zeroed(FILL_BYTES);
        buffer.fill(0x5a);
        for offset in (0..LOG_BYTES).step_by(FILL_BYTES) {
            file.write_all_at(&buffer, offset).map_err(said)?;
        }
        file.sync_all().map_err(said)?;
        Ok(Self { file, buffer, offset: 0 })
    }

    /// Writes a batch, and returns when it is durable.
    fn commit(&mut self, batch: &[u8]) -> Result<(), String> {
        if self.buffer.capacity() < batch.len() + BLOCK_BYTES {
            self.buffer = AlignedBuffer::with_capacity(2 * batch.len() + BLOCK_BYTES);
        }
        self.buffer.clear();
        self.buffer.extend(batch);
        self.buffer.pad_to_block();
        let bytes = self.buffer.len() as u64;
        if self.offset + bytes > LOG_BYTES {
            self.offset = 0;
        }
        let slices = [IoSlice::new(&self.buffer)];
        let written = pwritev2(&self.file, &slices, self.offset, ReadWriteFlags::DSYNC);
        let written = written.map_err(|error| format!("the log: {error}"))?;
        assert_eq!(written as u64, bytes, "a write to a file on a disk is whole, or an error");
        self.offset += bytes;
        Ok(())
    }
}

/// A client.
struct Client {
    stream: TcpStream,
    input: Vec<u8>,
    output: Vec<u8>,
}

/// `peers follow`: takes batches (their length, their number, their bytes) and answers with the number when
/// one is durable.
pub(crate) fn follow(arguments: &Arguments) -> Result<(), String> {
    let mut log = Log::create(arguments.text("log")?)?;
    let listener = listen(arguments.text("listen")?)?;
    let (mut leader, _) = listener.accept().map_err(said)?;
    let mut batch = Vec::new();
    loop {
        let mut head = [0; 16];
        leader.read_exact(&mut head).map_err(said)?;
        let (bytes, sequence) = head.split_at(8);
        batch.resize(u64::from_le_bytes(bytes.try_into().expect("eight bytes")) as usize, 0);
        leader.read_exact(&mut batch).map_err(said)?;
        log.commit(&batch)?;
        leader.write_all(sequence).map_err(said)?;
    }
}

struct Leader {
    log: Log,
    followers: Vec<TcpStream>,
    /// The last batch that each of them has.
    matched: Vec<u64>,
    sequence: u64,
    value: Vec<u8>,
}

/// `peers limit`.
pub(crate) fn lead(arguments: &Arguments) -> Result<(), String> {
    let log = Log::create(arguments.text("log")?)?;
    let mut followers = Vec::new();
    for address in arguments.list("followers") {
        followers.push(connect(address)?);
    }
    let item_bytes: usize = arguments.number("item-bytes")?;
    let mut value = format!("${item_bytes}\r\n").into_bytes();
    value.resize(value.len() + item_bytes, b'x');
    value.extend_from_slice(b"\r\n");
    let matched = vec![0; followers.len()];
    let listener = listen(arguments.text("listen")?)?;
    Leader { log, followers, matched, sequence: 0, value }.serve(&listener)
}

impl Leader {
    fn serve(mut self, listener: &TcpListener) -> Result<(), String> {
        const NEW: u64 = u64::MAX;
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(said)?;
        listener.set_nonblocking(true).map_err(said)?;
        epoll::add(&epoll, listener, EventData::new_u64(NEW), EventFlags::IN).map_err(said)?;
        let mut clients: Vec<Option<Client>> = Vec::new();
        let mut events = [Event { flags: EventFlags::empty(), data: EventData::new_u64(0) }; 512];
        let (mut batch, mut answering) = (Vec::new(), Vec::new());
        loop {
            let count = epoll::wait(&epoll, &mut events, None).map_err(said)?;
            batch.clear();
            for event in &events[..count] {
                let place = event.data.u64();
                if place == NEW {
                    while let Ok((stream, _)) = listener.accept() {
                        stream.set_nonblocking(true).map_err(said)?;
                        let data = EventData::new_u64(clients.len() as u64);
                        epoll::add(&epoll, &stream, data, EventFlags::IN).map_err(said)?;
                        clients.push(Some(Client { stream, input: Vec::new(), output: Vec::new() }));
                    }
                    continue;
                }
                let slot = &mut clients[place as usize];
                let Some(client) = slot else { continue };
                if client.take(&mut batch, &self.value)? {
                    answering.push(place as usize);
                } else {
                    *slot = None;
                }
            }
            if !batch.is_empty() {
                self.replicate(&batch)?;
            }
            for place in answering.drain(..) {
                if let Some(client) = &mut clients[place] {
                    client.flush()?;
                }
            }
        }
    }

    /// Returns when two of three have a batch.
    fn replicate(&mut self, batch: &[u8]) -> Result<(), String> {
        self.sequence += 1;
        let head = [(batch.len() as u64).to_le_bytes(), self.sequence.to_le_bytes()].concat();
        for follower in &mut self.followers {
            let sent = follower.write_vectored(&[IoSlice::new(&head), IoSlice::new(batch)]).map_err(said)?;
            follower.write_all(&head[sent.min(head.len())..]).map_err(said)?;
            follower.write_all(&batch[sent.saturating_sub(head.len())..]).map_err(said)?;
        }
        self.log.commit(batch)?;
        while !self.matched.contains(&self.sequence) {
            let mut waiting: Vec<PollFd<'_>> =
                self.followers.iter().map(|follower| PollFd::new(follower, PollFlags::IN)).collect();
            poll(&mut waiting, None).map_err(said)?;
            let ready: Vec<bool> = waiting.iter().map(|one| one.revents().contains(PollFlags::IN)).collect();
            let followers = self.followers.iter_mut().zip(&mut self.matched).zip(ready);
            for ((follower, matched), _) in followers.filter(|(_, ready)| *ready) {
                let mut sequence = [0; 8];
                follower.read_exact(&mut sequence).map_err(said)?;
                *matched = u64::from_le_bytes(sequence);
            }
        }
        Ok(())
    }
}

impl Client {
    /// Takes what has arrived: writes go into the batch, and all are answered, later. False when the client
    /// is gone.
    fn take(&mut self, batch: &mut Vec<u8>, value: &[u8]) -> Result<bool, String> {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => return Ok(false),
            Ok(bytes) => self.input.extend_from_slice(&chunk[..bytes]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(true),
            Err(_) => return Ok(false),
        }
        let mut at = 0;
        while let Some(bytes) = command_of(&self.input[at..])? {
            let command = &self.input[at..at + bytes];
            if command.starts_with(b"*2") {
                self.output.extend_from_slice(value);
            } else {
                batch.extend_from_slice(command);
                self.output.extend_from_slice(b"+OK\r\n");
            }
            at += bytes;
        }
        self.input.drain(..at);
        Ok(true)
    }

    fn flush(&mut self) -> Result<(), String> {
        let written = self.stream.write(&self.output).map_err(said)?;
        if written < self.output.len() {
            return Err("a client does not read its answers".to_owned());
        }
        self.output.clear();
        Ok(())
    }
}

/// Length of the first command, if all of it is there.
fn command_of(input: &[u8]) -> Result<Option<usize>, String> {
    let Some(first) = line_of(input) else {
        return Ok(None);
    };
    let words = match first.split_first() {
        Some((b'*', digits)) => number(digits)?,
        _ => return Err("that is no command".to_owned()),
    };
    let mut at = first.len() + 2;
    for _ in 0..words {
        let Some(line) = input.get(at..).and_then(line_of) else {
            return Ok(None);
        };
        at += line.len() + 2 + number(line.get(1..).unwrap_or_default())? + 2;
    }
    Ok((input.len() >= at).then_some(at))
}

fn said(error: impl ToString) -> String {
    error.to_string()
}
