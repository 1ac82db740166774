//! etcd's KV service: gRPC over HTTP/2 (RFC 9113, RFC 7541), as much of both as one unary call at a time
//! needs. A call is two frames out (headers, data) and, for etcd, about three back. Names that each call
//! repeats are put into the header table by the first one, as any client does.
//!
//! A call has succeeded when its stream brought a message before it ended: a unary call that fails ends with
//! trailers alone.

use crate::drive::{Answer, Protocol};
use evenkeel_bench::workload::Kind;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// Length of a frame's header.
const FRAME_HEADER: usize = 9;
/// What we may send before the server says more (RFC 9113, 6.9.2).
const FIRST_WINDOW: i64 = 65_535;
/// What we let the server send, and when we let it send that much again.
const OUR_WINDOW: u32 = 1 << 30;

/// A connection.
pub(crate) struct Etcd {
    authority: String,
    /// The call under way.
    stream: u32,
    /// Bytes that we may still send.
    window: i64,
    /// Bytes that the server has sent since we last let it.
    received: u32,
    /// Bytes of messages that the call has brought.
    brought: usize,
    reads: bool,
    /// Length of the values that are written: an answer to a read that is shorter holds none.
    value_bytes: usize,
}

impl Etcd {
    /// A new connection's first words.
    pub(crate) fn greet(authority: &str, out: &mut Vec<u8>) -> Self {
        out.extend_from_slice(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
        // SETTINGS_INITIAL_WINDOW_SIZE: every stream may bring that much.
        let setting = [&4_u16.to_be_bytes()[..], &OUR_WINDOW.to_be_bytes()].concat();
        frame(out, SETTINGS, 0, 0, &setting);
        frame(out, WINDOW_UPDATE, 0, 0, &(OUR_WINDOW - FIRST_WINDOW as u32).to_be_bytes());
        let authority = authority.to_owned();
        Self {
            authority,
            stream: 0,
            window: FIRST_WINDOW,
            received: 0,
            brought: 0,
            reads: false,
            value_bytes: 0,
        }
    }

    /// The header block of a call.
    fn headers(&self, path: &str) -> Vec<u8> {
        // Static table: 3 is `:method: POST`, 6 `:scheme: http`, 4 names `:path`.
        let mut block = vec![0x83, 0x86, 0x04];
        text(&mut block, path);
        if self.stream == 1 {
            // Into the table: `:authority` (name 1), `content-type` (name 31), `te`.
            block.push(0x41);
            text(&mut block, &self.authority);
            block.push(0x40 | 31);
            text(&mut block, "application/grpc");
            block.push(0x40);
            text(&mut block, "te");
            text(&mut block, "trailers");
        } else {
            // The youngest entry is 62.
            block.extend_from_slice(&[0x80 | 64, 0x80 | 63, 0x80 | 62]);
        }
        block
    }
}

impl Protocol for Etcd {
    fn ask(&mut self, kind: Kind, key: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), String> {
        self.stream = if self.stream == 0 { 1 } else { self.stream + 2 };
        self.brought = 0;
        self.reads = kind.is_read();
        self.value_bytes = value.len();
        let mut message = vec![0; 5];
        field(&mut message, 1, key.as_bytes());
        let path = if kind.is_read() {
            if kind == Kind::GetEventual {
                message.extend_from_slice(&[7 << 3, 1]);
            }
            "/etcdserverpb.KV/Range"
        } else {
            field(&mut message, 2, value);
            "/etcdserverpb.KV/Put"
        };
        let bytes = (message.len() - 5) as u32;
        message[1..5].copy_from_slice(&bytes.to_be_bytes());
        self.window -= message.len() as i64;
        if self.window < 0 {
            return Err("the server lets us send no more".to_owned());
        }
        frame(out, HEADERS, END_HEADERS, self.stream, &self.headers(path));
        frame(out, DATA, END_STREAM, self.stream, &message);
        Ok(())
    }

    fn answer(&mut self, input: &mut Vec<u8>, out: &mut Vec<u8>) -> Result<Option<Answer>, String> {
        let (mut at, mut answer) = (0, None);
        while let Some(head) = input.get(at..at + FRAME_HEADER) {
            let bytes = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
            let (kind, flags) = (head[3], head[4]);
            let stream = u32::from_be_bytes([head[5] & 0x7f, head[6], head[7], head[8]]);
            let Some(body) = input.get(at + FRAME_HEADER..at + FRAME_HEADER + bytes) else {
                break;
            };
            at += FRAME_HEADER + bytes;
            match kind {
                DATA => {
                    self.received += bytes as u32;
                    self.brought += if stream == self.stream { bytes } else { 0 };
                }
                SETTINGS if flags & ACK == 0 => frame(out, SETTINGS, ACK, 0, &[]),
                PING if flags & ACK == 0 => frame(out, PING, ACK, 0, body),
                WINDOW_UPDATE if stream == 0 => {
                    let more = body.try_into().map_err(|_| "a window update of a strange length")?;
                    self.window += i64::from(u32::from_be_bytes(more));
                }
                GOAWAY => return Err("the server closes the connection".to_owned()),
                RST_STREAM if stream == self.stream => answer = Some(Answer::Failed),
                _ => {}
            }
            if matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0 && stream == self.stream {
                answer = Some(self.outcome());
            }
        }
        input.drain(..at);
        if self.received > OUR_WINDOW / 2 {
            frame(out, WINDOW_UPDATE, 0, 0, &self.received.to_be_bytes());
            self.received = 0;
        }
        Ok(answer)
    }
}

impl Etcd {
    fn outcome(&self) -> Answer {
        match self.brought {
            0 => Answer::Failed,
            bytes if self.reads && bytes < self.value_bytes => Answer::Missing,
            _ => Answer::Done,
        }
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, flags: u8, stream: u32, body: &[u8]) {
    out.extend_from_slice(&(body.len() as u32).to_be_bytes()[1..]);
    out.extend_from_slice(&[kind, flags]);
    out.extend_from_slice(&stream.to_be_bytes());
    out.extend_from_slice(body);
}

/// A text of a header block, as it is.
fn text(block: &mut Vec<u8>, text: &str) {
    assert!(text.len() < 127, "a length of one byte");
    block.push(text.len() as u8);
    block.extend_from_slice(text.as_bytes());
}

/// A field of bytes of a protocol buffer.
fn field(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    let mut length = bytes.len();
    while length > 127 {
        message.push(length as u8 | 0x80);
        length >>= 7;
    }
    message.push(length as u8);
    message.extend_from_slice(bytes);
}
