//! Images as they are read back: states and what stands beside them, built from records.

use super::image::ImageRecord;
use crate::partition::sessions::Session;
use crate::partition::state::State;
use crate::wal::record::{Record, RecordBody, RecordError};
use bytes::Bytes;
use std::collections::VecDeque;

/// Builds states from the records of images.
#[derive(Debug, Default)]
pub struct ImageSink {
    begun: Option<Begun>,
    /// Images that are complete.
    pub complete: Vec<Image>,
    /// The bitmap of the tree's file.
    pub space: Vec<u64>,
}

/// What an image says of a group.
#[derive(Debug)]
pub struct Image {
    /// The group's state record.
    pub group: Record,
    /// The partition's state.
    pub state: State,
    /// What was accepted and is not in it.
    pub open: Vec<Record>,
}

#[derive(Debug)]
struct Begun {
    image: Image,
    session: Option<([u8; 16], Session)>,
    cells: u64,
    sessions: u64,
}

impl ImageSink {
    /// Takes a chunk of records.
    ///
    /// # Errors
    /// When a record is malformed or out of place.
    pub fn take(&mut self, mut records: Bytes) -> Result<(), RecordError> {
        while !records.is_empty() {
            let record = ImageRecord::take(&mut records)?;
            self.add(record)?;
        }
        Ok(())
    }

    /// The state that is being built, or was built last.
    pub fn last_state(&mut self) -> Option<&mut State> {
        let begun = self.begun.as_mut().map(|begun| &mut begun.image);
        begun.or_else(|| self.complete.last_mut()).map(|image| &mut image.state)
    }

    /// Whether an image has begun and not ended.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.begun.is_some()
    }

    fn add(&mut self, record: ImageRecord) -> Result<(), RecordError> {
        let misplaced = |what: &str| Err(RecordError::Payload(format!("{what} outside an image")));
        match (record, &mut self.begun) {
            (ImageRecord::Begin { group, swept_ms, version }, None) => {
                let RecordBody::State(base) = &group.body else {
                    return misplaced("a begin without a state");
                };
                let mut state = State {
                    applied: base.base,
                    applied_ballot: base.base_ballot,
                    timestamp: base.base_timestamp,
                    ..State::of(group.partition, version)
                };
                state.sessions.set_swept_ms(swept_ms);
                let image = Image { group: *group, state, open: Vec::new() };
                self.begun = Some(Begun { image, session: None, cells: 0, sessions: 0 });
            }
            (ImageRecord::Begin { .. } | ImageRecord::Space { .. }, Some(_)) => {
                return misplaced("a begin or a bitmap inside an image, and records");
            }
            (ImageRecord::Space { first, words }, None) => {
                if first != self.space.len() as u64 {
                    return misplaced("a part of the bitmap in another place, and records");
                }
                self.space.extend(words);
            }
            (_, None) => return misplaced("a record"),
            (ImageRecord::Cell { key, cell }, Some(begun)) => {
                begun.image.state.tree.put(key, cell);
                begun.cells += 1;
            }
            (ImageRecord::Session { client, acknowledged_below, latest_issued_ms }, Some(begun)) => {
                begun.close_session();
                let session = Session { acknowledged_below, latest_issued_ms, outcomes: VecDeque::new() };
                begun.session = Some((client, session));
                begun.sessions += 1;
            }
            (ImageRecord::Open(record), Some(begun)) => begun.image.open.push(*record),
            (ImageRecord::Outcome(outcome), Some(begun)) => match &mut begun.session {
                Some((_, session)) => session.outcomes.push_back(outcome),
                None => return misplaced("an outcome"),
            },
            (ImageRecord::End { cells, sessions, open }, Some(begun)) => {
                begun.close_session();
                let (said, got) =
                    ((cells, sessions, open), (begun.cells, begun.sessions, begun.image.open.len() as u64));
                if got != said {
                    let message = format!("an image of (cells, sessions, entries) {said:?} has {got:?}");
                    return Err(RecordError::Payload(message));
                }
                self.complete.extend(self.begun.take().map(|begun| begun.image));
            }
        }
        Ok(())
    }
}

impl Begun {
    fn close_session(&mut self) {
        if let Some((client, session)) = self.session.take() {
            self.image.state.sessions.restore(client, session);
        }
    }
}
