//! Queries and scans over all their pages, as iterators.

use super::Client;
use crate::error::Error;
use crate::protocol::operation::range::{PageOutput, PageToken};
use crate::request::{Cursor, Query, Request, Scan, Shell};
use evenkeel_wire::item::Item;

/// The pages of a query or scan. After an error there are no more; [`resume`](Self::resume) says where to go
/// on.
#[derive(Debug)]
#[must_use = "an iterator reads nothing until it is asked"]
pub struct Pages {
    client: Client,
    cursor: Cursor,
}

/// The items of a query or scan, of all its pages: those that are empty and have a rest are passed over.
#[derive(Debug)]
#[must_use = "an iterator reads nothing until it is asked"]
pub struct Items {
    pages: Pages,
    page: std::vec::IntoIter<Item>,
}

impl Query<Client> {
    /// All pages, one after the other.
    pub fn pages(self) -> Pages {
        Pages { client: self.shell.clone(), cursor: Cursor::new(self.prepare()) }
    }

    /// All items of all pages. The limit is that of a page.
    pub fn items(self) -> Items {
        Items { pages: self.pages(), page: Vec::new().into_iter() }
    }
}

impl Scan<Client> {
    /// All pages, one after the other.
    pub fn pages(self) -> Pages {
        Pages { client: self.shell.clone(), cursor: Cursor::new(self.prepare()) }
    }

    /// All items of all pages. The limit is that of a page.
    pub fn items(self) -> Items {
        Items { pages: self.pages(), page: Vec::new().into_iter() }
    }
}

impl Pages {
    /// Where the rest begins after the pages that were read so far, if there is a rest.
    #[must_use]
    pub fn resume(&self) -> Option<&PageToken> {
        self.cursor.resume()
    }
}

impl Iterator for Pages {
    type Item = Result<PageOutput, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        let page = self.client.execute(self.cursor.next_read()?);
        self.cursor.note(&page);
        Some(page)
    }
}

impl Items {
    /// Where the rest begins after the page that the last item is of, if there is a rest.
    #[must_use]
    pub fn resume(&self) -> Option<&PageToken> {
        self.pages.resume()
    }
}

impl Iterator for Items {
    type Item = Result<Item, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(item) = self.page.next() {
                return Some(Ok(item));
            }
            match self.pages.next()? {
                Ok(page) => self.page = page.items.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
