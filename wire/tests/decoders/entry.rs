//! Log entries: a header is the very bytes that a leader writes; a write may come with extensions, which are
//! skipped.

use bytes::Bytes;
use evenkeel_wire::entry::{Entry, EntryKind, Split, Write};
use evenkeel_wire::membership::Membership;

/// Entries one behind the other, with the payloads of writes.
pub(crate) fn entry(bytes: &[u8]) -> bool {
    let mut left = Bytes::copy_from_slice(bytes);
    let mut taken = false;
    while let Ok(entry) = Entry::take(&mut left) {
        let payload = entry.payload();
        let rebuilt = Entry::build(entry.header, payload.len(), |out| out.extend_from_slice(&payload));
        assert_eq!(rebuilt, entry);
        taken |= match entry.header.kind {
            EntryKind::Noop => true,
            EntryKind::Write => write(&payload),
            EntryKind::Split => split(payload),
            EntryKind::Membership => membership(payload),
        };
    }
    taken
}

fn write(payload: &[u8]) -> bool {
    let Ok(write) = Write::decode(payload) else { return false };
    let mut written = Vec::new();
    write.encode(&mut written);
    assert_eq!(written.len(), write.encoded_bytes());
    assert_eq!(Write::decode(&written), Ok(write));
    true
}

fn split(payload: Bytes) -> bool {
    let Ok(split) = Split::decode(payload.clone()) else { return false };
    let mut written = Vec::new();
    split.encode(&mut written);
    assert_eq!(written, payload);
    true
}

fn membership(payload: Bytes) -> bool {
    let Ok(membership) = Membership::decode(payload.clone()) else { return false };
    let mut written = Vec::new();
    membership.encode(&mut written);
    assert_eq!(written, payload);
    true
}
