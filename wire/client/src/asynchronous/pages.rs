//! Queries and scans over all their pages, asked for one by one.

use super::AsyncClient;
use crate::error::Error;
use crate::protocol::operation::range::{PageOutput, PageToken};
use crate::request::{Cursor, Query, Request, Scan, Shell};
use evenkeel_wire::item::Item;

/// The pages of a query or scan. After an error there are no more; [`resume`](Self::resume) says where to go
/// on.
#[derive(Debug)]
#[must_use = "nothing is read until `next` is called"]
pub struct AsyncPages {
    client: AsyncClient,
    cursor: Cursor,
}

/// The items of a query or scan, of all its pages: those that are empty and have a rest are passed over.
#[derive(Debug)]
#[must_use = "nothing is read until `next` is called"]
pub struct AsyncItems {
    pages: AsyncPages,
    page: std::vec::IntoIter<Item>,
}

impl Query<AsyncClient> {
    /// All pages, one after the other.
    pub fn pages(self) -> AsyncPages {
        AsyncPages { client: self.shell.clone(), cursor: Cursor::new(self.prepare()) }
    }

    /// All items of all pages. The limit is that of a page.
    pub fn items(self) -> AsyncItems {
        AsyncItems { pages: self.pages(), page: Vec::new().into_iter() }
    }
}

impl Scan<AsyncClient> {
    /// All pages, one after the other.
    pub fn pages(self) -> AsyncPages {
        AsyncPages { client: self.shell.clone(), cursor: Cursor::new(self.prepare()) }
    }

    /// All items of all pages. The limit is that of a page.
    pub fn items(self) -> AsyncItems {
        AsyncItems { pages: self.pages(), page: Vec::new().into_iter() }
    }
}

impl AsyncPages {
    /// The next page. Dropped before it is there, the same page is read again by the next call.
    pub async fn next(&mut self) -> Option<Result<PageOutput, Error>> {
        let page = self.client.execute(self.cursor.next_read()?).await;
        self.cursor.note(&page);
        Some(page)
    }

    /// Where the rest begins after the pages that were read so far, if there is a rest.
    #[must_use]
    pub fn resume(&self) -> Option<&PageToken> {
        self.cursor.resume()
    }
}

impl AsyncItems {
    /// The next item. Can be dropped before it is there, and called again.
    pub async fn next(&mut self) -> Option<Result<Item, Error>> {
        loop {
            if let Some(item) = self.page.next() {
                return Some(Ok(item));
            }
            match self.pages.next().await? {
                Ok(page) => self.page = page.items.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }

    /// Where the rest begins after the page that the last item is of, if there is a rest.
    #[must_use]
    pub fn resume(&self) -> Option<&PageToken> {
        self.pages.resume()
    }
}
