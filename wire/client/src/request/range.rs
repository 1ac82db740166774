//! Query and scan: requests about a range of a table, a page at a time or all of it.

use super::{Placeholders, Prepared, Request, Shell, placeholder_methods, sending_methods};
use crate::error::{Error, Invalid};
use crate::protocol::operation::range::{PageOutput, PageToken, RangeRead};
use std::time::Duration;

/// Reads the items of one partition key, in the order of the sort key.
///
/// `send` gives one page, `items` all items of all pages, `pages` all pages.
///
/// ```no_run
/// use evenkeel_client::Client;
///
/// # let client = Client::builder().connect()?;
/// let orders = client
///     .query("orders")
///     .key_condition("pk = :user AND sk BETWEEN :from AND :to")
///     .filter("total > :least")
///     .value(":user", "user#1")
///     .value(":from", 20_250_101)
///     .value(":to", 20_251_231)
///     .value(":least", 100)
///     .backward();
/// for order in orders.items() {
///     println!("{:?}", order?.get("total"));
/// }
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Query<S> {
    pub(crate) shell: S,
    table: String,
    key_condition: Option<String>,
    forward: bool,
    page: Page,
    placeholders: Placeholders,
    deadline: Option<Duration>,
}

/// Reads a whole table, or a segment of it, in the order in which it is stored.
///
/// `send` gives one page, `items` all items of all pages, `pages` all pages. Threads that share a scan each
/// take a segment.
///
/// ```no_run
/// use evenkeel_client::Client;
///
/// # let client = Client::builder().connect()?;
/// let adults = client.scan("users").filter("age >= :age").value(":age", 18).segment(0, 4).items();
/// println!("{} in the first quarter", adults.count());
/// # Ok::<(), evenkeel_client::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use = "a request does nothing until it is sent"]
pub struct Scan<S> {
    pub(crate) shell: S,
    table: String,
    segment: u32,
    segments: u32,
    page: Page,
    placeholders: Placeholders,
    deadline: Option<Duration>,
}

/// What queries and scans share.
#[derive(Clone, Debug, Default)]
struct Page {
    filter: Option<String>,
    limit: u32,
    eventual: bool,
    from: Option<PageToken>,
}

/// The methods that queries and scans share.
macro_rules! page_methods {
    () => {
        /// Gives only items that meet a condition. It is applied after they were read: they count for the
        /// limit.
        pub fn filter(mut self, filter: impl Into<String>) -> Self {
            self.page.filter = Some(filter.into());
            self
        }

        /// How many items a page looks at, at most, before the filter.
        pub fn limit(mut self, limit: u32) -> Self {
            self.page.limit = limit;
            self
        }

        /// Takes what any replica has: it can be a little old, and costs half.
        pub fn eventual(mut self) -> Self {
            self.page.eventual = true;
            self
        }

        /// Goes on where another page of the same request ended.
        pub fn page_from(mut self, token: PageToken) -> Self {
            self.page.from = Some(token);
            self
        }
    };
}

impl<S: Shell> Query<S> {
    pub(crate) fn new(shell: &S, table: String) -> Self {
        Self {
            shell: shell.clone(),
            table,
            key_condition: None,
            forward: true,
            page: Page::default(),
            placeholders: Placeholders::default(),
            deadline: None,
        }
    }

    /// Which items: `pk = :value`, and if wanted one condition on the sort key.
    pub fn key_condition(mut self, key_condition: impl Into<String>) -> Self {
        self.key_condition = Some(key_condition.into());
        self
    }

    /// From the highest sort key to the lowest.
    pub fn backward(mut self) -> Self {
        self.forward = false;
        self
    }

    page_methods!();
    placeholder_methods!();
    sending_methods!();

    fn operation(mut self) -> Result<RangeRead, Invalid> {
        let filter = self.placeholders.read_condition("filter", self.page.filter.as_deref())?;
        let key_condition = self.key_condition.ok_or(Invalid::Missing { what: "a key condition" })?;
        // The key condition is read against the table's key schema, and tells then which placeholders are
        // unused.
        let read = RangeRead::query(self.table, key_condition, self.placeholders.0);
        let read = if self.forward { read } else { read.backward() };
        self.page.apply(read, filter.as_ref())
    }
}

impl<S: Shell> Scan<S> {
    pub(crate) fn new(shell: &S, table: String) -> Self {
        Self {
            shell: shell.clone(),
            table,
            segment: 0,
            segments: 1,
            page: Page::default(),
            placeholders: Placeholders::default(),
            deadline: None,
        }
    }

    /// Reads only one of some parts of about the same size, counted from zero.
    pub fn segment(mut self, segment: u32, segments: u32) -> Self {
        (self.segment, self.segments) = (segment, segments);
        self
    }

    page_methods!();
    placeholder_methods!();
    sending_methods!();

    fn operation(mut self) -> Result<RangeRead, Invalid> {
        let filter = self.placeholders.read_condition("filter", self.page.filter.as_deref())?;
        self.placeholders.0.finish()?;
        let read = RangeRead::scan(self.table, self.segment, self.segments)?;
        self.page.apply(read, filter.as_ref())
    }
}

impl Page {
    fn apply(
        self,
        read: RangeRead,
        filter: Option<&evenkeel_wire::expression::Condition>,
    ) -> Result<RangeRead, Invalid> {
        let read = if self.eventual { read.eventual() } else { read };
        let read = read.limit(self.limit).page_from(self.from);
        match filter {
            Some(filter) => read.with_filter(filter),
            None => Ok(read),
        }
    }
}

/// A read of page after page.
#[derive(Debug)]
pub(crate) struct Cursor {
    read: Result<RangeRead, Invalid>,
    deadline: Option<Duration>,
    resume: Option<PageToken>,
    ended: bool,
}

impl Cursor {
    pub(crate) fn new(prepared: Prepared<RangeRead>) -> Self {
        let Prepared { operation, deadline } = prepared;
        Self { read: operation, deadline, resume: None, ended: false }
    }

    /// The read of the next page, if there is one.
    pub(crate) fn next_read(&self) -> Option<Prepared<RangeRead>> {
        if self.ended {
            return None;
        }
        let read = self.read.clone();
        let operation = match &self.resume {
            Some(resume) => read.map(|read| read.page_from(Some(resume.clone()))),
            None => read,
        };
        Some(Prepared { operation, deadline: self.deadline })
    }

    /// Takes note of how that read ended. After an error there are no more pages, and `resume` stays.
    pub(crate) fn note(&mut self, page: &Result<PageOutput, Error>) {
        match page {
            Ok(page) => {
                self.resume.clone_from(&page.resume);
                self.ended = page.resume.is_none();
            }
            Err(_) => self.ended = true,
        }
    }

    pub(crate) fn resume(&self) -> Option<&PageToken> {
        self.resume.as_ref()
    }
}

impl<S: Shell> Request for Query<S> {
    type Operation = RangeRead;

    fn prepare(self) -> Prepared<RangeRead> {
        Prepared { deadline: self.deadline, operation: self.operation() }
    }
}

impl<S: Shell> Request for Scan<S> {
    type Operation = RangeRead;

    fn prepare(self) -> Prepared<RangeRead> {
        Prepared { deadline: self.deadline, operation: self.operation() }
    }
}
