//! How a read is answered: from applied state, in place.

use super::Stop;
use super::state::State;
use super::writes::corrupt;
use crate::btree::lookup::{Found, Miss, Pages};
use crate::evaluate;
use crate::tree::Walk;
use evenkeel_wire::error::{ErrorCode, Problem};
use evenkeel_wire::expression::{ArchivedCondition, access_condition};
use evenkeel_wire::item;
use evenkeel_wire::limits::PAGE_BYTES_MAX;
use evenkeel_wire::message::request::{ArchivedRange, GetAnswer, PageAnswer, Position, Row};
use evenkeel_wire::table::GroupConfig;
use std::borrow::Cow;

/// The item under `key`.
///
/// # Errors
/// When pages must be read first.
pub fn get<'a>(
    state: &'a State,
    pages: &Pages<'a>,
    config: &GroupConfig,
    key: &[u8],
) -> Result<GetAnswer<'a>, Miss> {
    let item = state.tree.get(pages, key)?.map(row);
    Ok(GetAnswer { position: position(state, config), item })
}

/// One page of `range`, as far as this partition holds it. A page that has begun ends where the tree's pages
/// are not in memory; they are named, so that they may be there when the next page is asked for.
///
/// # Errors
/// When the partition does not hold the range's beginning, the filter is malformed, or pages must be read
/// before anything can be answered.
pub fn page<'a>(
    state: &'a State,
    pages: &Pages<'a>,
    config: &GroupConfig,
    range: &ArchivedRange<'static>,
) -> Result<(PageAnswer<'a>, Option<Miss>), Stop> {
    let (lower, upper): (&[u8], &[u8]) = (&range.lower, &range.upper);
    if !holds_beginning(config, lower, upper, range.forward) {
        let message = "the range does not begin in this partition; look its route up again";
        return Err(Problem::new(ErrorCode::WrongPartition, message).into());
    }
    let filter = if range.filter.is_empty() {
        None
    } else {
        let filter = access_condition(&range.filter);
        Some(filter.map_err(|error| Problem::new(ErrorCode::Expression, error.to_string()))?)
    };
    let from = lower.max(&config.start);
    let to = earlier_end(upper, &config.end);
    let limit = match range.limit.to_native() {
        0 => u32::MAX,
        limit => limit,
    };
    let mut page = Page { rows: Vec::new(), scanned: 0, bytes: 0, limit, filter };
    let mut walk = state.tree.walk(*pages, from, to, range.forward);
    let (full, ahead) = match page.read(&mut walk) {
        Ok(full) => (full, None),
        Err(Stop::Wait(miss)) if page.scanned > 0 => (true, Some(miss)),
        Err(stop) => return Err(stop),
    };
    let resume = match full {
        true if range.forward => Some([page.last(&walk), &[0]].concat()),
        true => Some(page.last(&walk).to_vec()),
        false => rest_beyond(config, lower, upper, range.forward),
    };
    let Page { rows, scanned, .. } = page;
    Ok((PageAnswer { position: position(state, config), rows, scanned, resume }, ahead))
}

struct Page<'a, 'f> {
    rows: Vec<Row<'a>>,
    scanned: u32,
    bytes: usize,
    limit: u32,
    filter: Option<&'f ArchivedCondition>,
}

impl<'a> Page<'a, '_> {
    /// Takes items until the page is full. Returns whether it is, before the items end.
    fn read(&mut self, walk: &mut Walk<'a>) -> Result<bool, Stop> {
        while let Some(found) = walk.next()? {
            self.scanned += 1;
            self.bytes += found.archive.len();
            let passes = match self.filter {
                Some(filter) => {
                    let item = item::access(found.archive).map_err(|error| corrupt(&error))?;
                    evaluate::evaluate(filter, Some(item))
                }
                None => true,
            };
            if passes {
                self.rows.push(row(found));
            }
            if self.scanned >= self.limit || self.bytes >= PAGE_BYTES_MAX {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The key of the last item that was taken.
    fn last<'w>(&self, walk: &'w Walk<'a>) -> &'w [u8] {
        assert!(self.scanned > 0, "a page that stops has begun");
        walk.key()
    }
}

/// Whether the keys with which the range begins, in its direction, lie in this partition.
fn holds_beginning(config: &GroupConfig, lower: &[u8], upper: &[u8], forward: bool) -> bool {
    if forward {
        return config.contains(lower);
    }
    let within_end = config.end.is_empty() || (!upper.is_empty() && upper <= config.end.as_slice());
    within_end && (upper.is_empty() || upper > config.start.as_slice())
}

/// The lower of two ends, where empty means none.
fn earlier_end<'a>(a: &'a [u8], b: &'a [u8]) -> &'a [u8] {
    match (a.is_empty(), b.is_empty()) {
        (true, _) => b,
        (_, true) => a,
        (false, false) => a.min(b),
    }
}

/// Where the range goes on in another partition, if it does.
fn rest_beyond(config: &GroupConfig, lower: &[u8], upper: &[u8], forward: bool) -> Option<Vec<u8>> {
    if forward {
        let goes_on = !config.end.is_empty() && (upper.is_empty() || upper > config.end.as_slice());
        return goes_on.then(|| config.end.clone());
    }
    let goes_on = !config.start.is_empty() && lower < config.start.as_slice();
    goes_on.then(|| config.start.clone())
}

fn row(found: Found<'_>) -> Row<'_> {
    Row { checksum: found.meta.checksum, item: Cow::Borrowed(found.archive) }
}

fn position(state: &State, config: &GroupConfig) -> Position {
    Position { partition: config.partition, slot: state.slot() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Cell;
    use bytes::Bytes;
    use evenkeel_wire::ids::{PartitionId, Slot, TableId};
    use evenkeel_wire::item::{Item, encode};
    use evenkeel_wire::key::KeyBytes;
    use evenkeel_wire::message::request::Range;
    use evenkeel_wire::message::{access, encode as encode_body};

    fn config(start: &str, end: &str) -> GroupConfig {
        GroupConfig {
            start: start.as_bytes().to_vec(),
            end: end.as_bytes().to_vec(),
            ..GroupConfig::whole(PartitionId(1), TableId(1), Vec::new())
        }
    }

    fn state(keys: &[&str]) -> State {
        let mut state = State::default();
        for key in keys {
            let archive = Bytes::from(encode(&Item::new().with("k", *key)).unwrap());
            let cell = Cell { slot: Slot(1), timestamp: 0, checksum: 0, archive };
            state.tree.put(KeyBytes::from_slice(key.as_bytes()), cell);
        }
        state
    }

    /// Reads one page; the keys in it, and where to go on.
    fn check(
        config: &GroupConfig,
        range: (&str, &str),
        forward: bool,
        limit: u32,
        expected: (&str, Option<&str>),
    ) {
        let state = state(&["b1", "b2", "b3", "b4"]);
        let range = Range {
            table: TableId(1),
            lower: Cow::Borrowed(range.0.as_bytes()),
            upper: Cow::Borrowed(range.1.as_bytes()),
            forward,
            limit,
            filter: Cow::Borrowed(b""),
            strong: true,
        };
        let mut body = Vec::new();
        encode_body(&range, &mut body);
        let range = access::<Range<'static>>(&body).unwrap();
        let (page, _) = page(&state, &Pages::default(), config, range).unwrap();
        let keys: Vec<String> = page
            .rows
            .iter()
            .map(|row| format!("{:?}", item::access(&row.item).unwrap().to_item().unwrap().get("k").unwrap()))
            .collect();
        let digits: String = keys.concat().chars().filter(char::is_ascii_digit).collect();
        let resume = page.resume.map(|resume| String::from_utf8(resume).unwrap());
        assert_eq!((digits.as_str(), resume.as_deref()), expected);
    }

    #[test]
    fn pages_go_on_where_they_stopped_in_both_directions() {
        let whole = config("", "");
        check(&whole, ("", ""), true, 0, ("1234", None));
        check(&whole, ("", ""), true, 2, ("12", Some("b2\0")));
        check(&whole, ("b2\0", ""), true, 2, ("34", Some("b4\0")));
        check(&whole, ("b4\0", ""), true, 2, ("", None));
        check(&whole, ("", ""), false, 3, ("432", Some("b2")));
        check(&whole, ("", "b2"), false, 3, ("1", None));
    }

    #[test]
    fn a_page_ends_at_the_partitions_border_and_says_where_the_next_begins() {
        let middle = config("b", "c");
        check(&middle, ("b", ""), true, 0, ("1234", Some("c")));
        check(&middle, ("b", "b3"), true, 0, ("12", None));
        check(&middle, ("", "c"), false, 0, ("4321", Some("b")));
        check(&middle, ("b1", "c"), false, 0, ("4321", None));
    }

    #[test]
    fn a_range_that_begins_elsewhere_is_refused() {
        let middle = config("b", "c");
        assert!(holds_beginning(&middle, b"b", b"", true));
        assert!(!holds_beginning(&middle, b"a", b"", true));
        assert!(!holds_beginning(&middle, b"c", b"", true));
        assert!(!holds_beginning(&middle, b"", b"", false));
        assert!(!holds_beginning(&middle, b"", b"b", false));
        assert!(holds_beginning(&middle, b"", b"c", false));
    }
}
