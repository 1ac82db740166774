//! Frames: what is taken is the very bytes that a sender would write.

use evenkeel_wire::checksum::crc32c;
use evenkeel_wire::frame::{BodyLimit, HEADER_BYTES, first_frame, forward};

/// The header and its body, as they are, and once more with checksums that fit: a damaged header is refused
/// before anything else is looked at.
pub(crate) fn frame(bytes: &[u8]) -> bool {
    let mut repaired = bytes.to_vec();
    repair(&mut repaired);
    check(bytes) | check(&repaired)
}

fn check(bytes: &[u8]) -> bool {
    let taken =
        [BodyLimit::BEFORE_HELLO, BodyLimit::AFTER_HELLO].map(|limit| match first_frame(bytes, limit) {
            Ok(Some((header, body))) => {
                let mut written = Vec::new();
                forward(&mut written, header, body, header.body_checksum);
                assert_eq!(written, bytes[..header.frame_bytes()]);
                true
            }
            Ok(None) => false,
            Err(error) => {
                assert!(!error.problem().message.is_empty());
                false
            }
        });
    taken != [false; 2]
}

fn repair(bytes: &mut [u8]) {
    let Some((header, body)) = bytes.split_first_chunk_mut::<HEADER_BYTES>() else { return };
    let announced = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
    if let Some(body) = body.get(..announced) {
        header[12..16].copy_from_slice(&crc32c(body).to_le_bytes());
    }
    let checksum = crc32c(&header[..60]);
    header[60..].copy_from_slice(&checksum.to_le_bytes());
}
