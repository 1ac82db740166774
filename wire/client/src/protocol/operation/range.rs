//! Query and scan: one page of a range of a table.
//!
//! A page visits one partition at most, so an empty page can have a rest. Whoever reads on gives the page's
//! token to the next read; the [pagers](crate::request::Query::items) do.

use super::{Context, Operation, Progress, Unready, expect, verified_item};
use crate::error::{Error, Invalid, ProtocolError};
use crate::protocol::answer::Answer;
use crate::protocol::session::Session;
use evenkeel_wire::expression::{Bindings, Condition, KeyCondition, encode_condition};
use evenkeel_wire::frame::Kind;
use evenkeel_wire::ids::TableId;
use evenkeel_wire::item::Item;
use evenkeel_wire::message::encode;
use evenkeel_wire::message::request::{PageAnswer, Position, Query, Range, Scan};
use evenkeel_wire::table::TableDescriptor;
use std::borrow::Cow;

/// A read of one page.
#[derive(Clone, Debug)]
pub struct RangeRead {
    table: String,
    wanted: Wanted,
    /// Archive of a condition; empty: none.
    filter: Vec<u8>,
    forward: bool,
    limit: u32,
    strong: bool,
    from: Option<PageToken>,
    /// What the request under way asks for.
    asked: Bounds,
}

/// Which part of the table.
#[derive(Clone, Debug)]
enum Wanted {
    /// What a key condition says, as text: it is read against the table's key schema.
    Query { key_condition: String, bindings: Bindings },
    /// One of some equal parts.
    Segment { segment: u32, segments: u32 },
}

/// Storage keys from `lower` up to `upper`, which is exclusive; empty: no bound.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bounds {
    table: TableId,
    lower: Vec<u8>,
    upper: Vec<u8>,
}

/// Where a read goes on. It belongs to the table and the range that it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    table: TableId,
    key: Vec<u8>,
}

/// One page.
#[derive(Clone, Debug, PartialEq)]
pub struct PageOutput {
    /// What the filter let through, in order.
    pub items: Vec<Item>,
    /// How many items were looked at.
    pub scanned: u32,
    /// Where the rest begins; absent: there is none. A page can be empty and have a rest.
    pub resume: Option<PageToken>,
    /// Up to where the replica that answered had applied its partition's log.
    pub position: Position,
}

impl PageToken {
    /// The token as bytes, to be kept or sent.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.table.0.to_le_bytes().to_vec();
        bytes.extend_from_slice(&self.key);
        bytes
    }

    /// The token that [`to_bytes`](Self::to_bytes) made these bytes of.
    ///
    /// # Errors
    /// [`Invalid::PageTokenBytes`] when they are too few.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Invalid> {
        match bytes.split_first_chunk::<8>() {
            Some((table, key)) if !key.is_empty() => {
                Ok(Self { table: TableId(u64::from_le_bytes(*table)), key: key.to_vec() })
            }
            Some(_) | None => Err(Invalid::PageTokenBytes { bytes: bytes.len() }),
        }
    }
}

impl RangeRead {
    /// The items that meet a key condition. Its placeholders, and those of a filter that was read before, are
    /// in `bindings`; one that neither uses is an error, before anything is asked for.
    #[must_use]
    pub fn query(table: impl Into<String>, key_condition: impl Into<String>, bindings: Bindings) -> Self {
        Self::new(table.into(), Wanted::Query { key_condition: key_condition.into(), bindings })
    }

    /// All items of a table, or one of `segments` parts of about the same size, counted from zero.
    ///
    /// # Errors
    /// [`Invalid::Segment`].
    pub fn scan(table: impl Into<String>, segment: u32, segments: u32) -> Result<Self, Invalid> {
        if segment >= segments {
            return Err(Invalid::Segment { segment, segments });
        }
        Ok(Self::new(table.into(), Wanted::Segment { segment, segments }))
    }

    fn new(table: String, wanted: Wanted) -> Self {
        Self {
            table,
            wanted,
            filter: Vec::new(),
            forward: true,
            limit: 0,
            strong: true,
            from: None,
            asked: Bounds::default(),
        }
    }

    /// Gives only what meets a condition.
    ///
    /// # Errors
    /// When the condition breaks a rule.
    pub fn with_filter(mut self, filter: &Condition) -> Result<Self, Invalid> {
        self.filter = encode_condition(filter)?;
        Ok(self)
    }

    /// Looks at no more than so many items, before the filter; zero: as many as a page holds.
    #[must_use]
    pub fn limit(mut self, limit: u32) -> Self {
        self.limit = limit;
        self
    }

    /// Reads from the end.
    #[must_use]
    pub fn backward(mut self) -> Self {
        self.forward = false;
        self
    }

    /// Takes what any replica has.
    #[must_use]
    pub fn eventual(mut self) -> Self {
        self.strong = false;
        self
    }

    /// Goes on where another page ended.
    #[must_use]
    pub fn page_from(mut self, token: Option<PageToken>) -> Self {
        self.from = token;
        self
    }

    fn bounds(&self, table: &TableDescriptor) -> Result<Bounds, Invalid> {
        let mut bounds = match &self.wanted {
            Wanted::Query { key_condition, bindings } => {
                let mut bindings = bindings.clone();
                let condition = KeyCondition::parse(key_condition, &mut bindings, &table.schema);
                let condition = condition
                    .map_err(|error| Invalid::Text { what: "key condition", error: Box::new(error) })?;
                bindings.finish()?;
                let range = condition.range(&table.schema, &table.hash_key)?;
                Bounds { table: table.id, lower: range.lower.0, upper: range.upper.0 }
            }
            Wanted::Segment { segment, segments } => Bounds {
                table: table.id,
                lower: if *segment == 0 { Vec::new() } else { border(*segment, *segments) },
                upper: if segment + 1 == *segments { Vec::new() } else { border(segment + 1, *segments) },
            },
        };
        if let Some(token) = &self.from {
            if token.table != table.id || !bounds.contains(&token.key, self.forward) {
                return Err(Invalid::PageToken { got: token.table, expected: table.id });
            }
            *bounds.beginning(self.forward) = token.key.clone();
        }
        Ok(bounds)
    }

    /// The token of the rest, if what the server names lies in the range at all.
    fn rest(&self, resume: &[u8]) -> Result<Option<PageToken>, ProtocolError> {
        let Bounds { table, lower, upper } = &self.asked;
        let advances = if self.forward {
            resume > lower.as_slice()
        } else {
            upper.is_empty() || resume < upper.as_slice()
        };
        if !advances {
            return Err(ProtocolError::PageStuck);
        }
        let token = PageToken { table: *table, key: resume.to_vec() };
        Ok(self.asked.contains(resume, self.forward).then_some(token))
    }
}

impl Bounds {
    /// Whether a read that goes on at `key` has anything left to read.
    fn contains(&self, key: &[u8], forward: bool) -> bool {
        if forward {
            key >= self.lower.as_slice() && (self.upper.is_empty() || key < self.upper.as_slice())
        } else {
            key > self.lower.as_slice() && (self.upper.is_empty() || key <= self.upper.as_slice())
        }
    }

    fn beginning(&mut self, forward: bool) -> &mut Vec<u8> {
        if forward { &mut self.lower } else { &mut self.upper }
    }
}

/// The first key of one of some equal parts of a table: storage keys begin with a hash.
fn border(segment: u32, segments: u32) -> Vec<u8> {
    let hash = (u128::from(segment) << 64) / u128::from(segments);
    (hash as u64).to_be_bytes().to_vec()
}

impl Operation for RangeRead {
    type Output = PageOutput;

    fn encode(&mut self, context: &mut Context<'_>, body: &mut Vec<u8>) -> Result<Kind, Unready> {
        let table = context.table(&self.table)?;
        self.asked = self.bounds(&table)?;
        let range = Range {
            table: table.id,
            lower: Cow::Borrowed(&self.asked.lower),
            upper: Cow::Borrowed(&self.asked.upper),
            forward: self.forward,
            limit: self.limit,
            filter: Cow::Borrowed(&self.filter),
            strong: self.strong,
        };
        match &self.wanted {
            Wanted::Query { .. } => {
                encode(&Query(range), body);
                Ok(Kind::Query)
            }
            Wanted::Segment { .. } => {
                encode(&Scan(range), body);
                Ok(Kind::Scan)
            }
        }
    }

    fn absorb(&mut self, answer: &Answer<'_>, _: &Session) -> Result<Progress<PageOutput>, Error> {
        let page = expect::<PageAnswer<'static>>(answer)?;
        let resume = match page.resume.as_ref() {
            Some(resume) => self.rest(resume)?,
            None => None,
        };
        Ok(Progress::Done(PageOutput {
            items: page.rows.iter().map(verified_item).collect::<Result<_, _>>()?,
            scanned: page.scanned.to_native(),
            resume,
            position: Position::from(&page.position),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(lower: &[u8], upper: &[u8]) -> Bounds {
        Bounds { table: TableId(4), lower: lower.to_vec(), upper: upper.to_vec() }
    }

    fn check(asked: (&[u8], &[u8]), forward: bool, resume: &[u8], expected: Result<bool, ProtocolError>) {
        let mut read = RangeRead::scan("t", 0, 1).expect("a segment");
        read.forward = forward;
        read.asked = bounds(asked.0, asked.1);
        assert_eq!(read.rest(resume).map(|token| token.is_some()), expected, "{asked:?} {resume:?}");
    }

    #[test]
    fn a_rest_outside_the_range_is_none() {
        check((b"b", b"d"), true, b"c", Ok(true));
        check((b"b", b"d"), true, b"d", Ok(false));
        check((b"b", b""), true, b"zz", Ok(true));
        check((b"b", b"d"), false, b"c", Ok(true));
        check((b"b", b"d"), false, b"b", Ok(false));
        check((b"", b""), false, b"a", Ok(true));
    }

    #[test]
    fn a_server_that_does_not_advance_is_found_out() {
        check((b"b", b"d"), true, b"b", Err(ProtocolError::PageStuck));
        check((b"b", b"d"), true, b"a", Err(ProtocolError::PageStuck));
        check((b"b", b"d"), false, b"d", Err(ProtocolError::PageStuck));
        check((b"", b""), true, b"", Err(ProtocolError::PageStuck));
    }

    #[test]
    fn segments_cover_a_table_once() {
        let table = TableDescriptor::system();
        for segments in [1, 2, 3, 7, 1000] {
            let mut end = Vec::new();
            for segment in 0..segments {
                let read = RangeRead::scan("t", segment, segments).expect("a segment");
                let bounds = read.bounds(&table).expect("bounds");
                assert_eq!(bounds.lower, end);
                end = bounds.upper;
            }
            assert_eq!(end, b"");
        }
        assert_eq!(RangeRead::scan("t", 3, 3).err(), Some(Invalid::Segment { segment: 3, segments: 3 }));
    }

    #[test]
    fn a_token_belongs_to_its_table_and_range() {
        let table = TableDescriptor { id: TableId(4), ..TableDescriptor::system() };
        let read = RangeRead::scan("t", 0, 2).expect("a segment");
        let token = |table, key: &[u8]| Some(PageToken { table: TableId(table), key: key.to_vec() });
        let go_on = read.clone().page_from(token(4, b"\x01")).bounds(&table);
        assert_eq!(go_on, Ok(bounds(b"\x01", &border(1, 2))));
        let other = Invalid::PageToken { got: TableId(5), expected: TableId(4) };
        assert_eq!(read.clone().page_from(token(5, b"\x01")).bounds(&table), Err(other));
        let other = Invalid::PageToken { got: TableId(4), expected: TableId(4) };
        assert_eq!(read.page_from(token(4, b"\xff")).bounds(&table), Err(other), "the other segment's");
    }

    #[test]
    fn tokens_survive_as_bytes() {
        let token = PageToken { table: TableId(7), key: b"key".to_vec() };
        assert_eq!(PageToken::from_bytes(&token.to_bytes()), Ok(token));
        assert_eq!(PageToken::from_bytes(b"12345678"), Err(Invalid::PageTokenBytes { bytes: 8 }));
    }
}
