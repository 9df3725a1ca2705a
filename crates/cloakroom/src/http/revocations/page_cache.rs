//! Pages of the revocation log, read and encoded once for all requests for the same page.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::revocation::{Cursor, LogEntry, RevocationBatch, RevocationPage};
use cloakroom_core::store::StoreError;
use tokio::sync::watch;

use crate::write::Store;

/// The largest page, in bytes. A follower reads at most 256 KiB.
const MAX_BYTES: usize = 192 * 1024;

/// More bytes than a page has besides its entries.
const ENVELOPE: usize = 1024;

/// The most pages that are kept: followers are at the end of the log, or not far from it.
const MAX_PAGES: usize = 64;

/// The position and size of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::http) struct Wanted {
    pub(in crate::http) after: Cursor,
    pub(in crate::http) limit: u32,
}

/// The result of a read.
#[derive(Clone)]
pub(in crate::http) enum Page {
    /// Entries, or a gap.
    Entries(Bytes),
    /// Nothing after the cursor.
    Empty(Bytes),
    /// The store failed.
    Failed,
}

/// Reads pages from the store.
#[derive(Debug)]
pub(in crate::http) struct Source {
    pub(in crate::http) store: Store,
    pub(in crate::http) heartbeat: Duration,
    pub(in crate::http) clock_skew: Duration,
}

/// The pages that were read since the log last grew. A clone shares them.
#[derive(Clone, Default)]
pub(in crate::http) struct PageCache(Arc<Mutex<CachedPages>>);

impl fmt::Debug for PageCache {
    /// Hides the pages, which say who is revoked.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PageCache").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct CachedPages {
    /// How often the log had grown when the oldest page was read.
    changes: u64,
    /// The number of the newest read.
    reads: u64,
    /// The most recently used page is the last.
    pages: Vec<CachedPage>,
}

struct CachedPage {
    wanted: Wanted,
    /// The number of its read.
    read: u64,
    page: watch::Receiver<Option<Page>>,
}

impl PageCache {
    /// The number of the newest read so far.
    pub(in crate::http) async fn latest(&self) -> u64 {
        let reads = self.0.lock().unwrap_or_else(PoisonError::into_inner).reads;
        // All requests whose time ends now look before any of them reads, and so share a read.
        tokio::task::yield_now().await;
        reads
    }

    /// The page, read when the log had grown `changes` times or later, by a read with a number
    /// above `newer`. A read is a task of its own: it continues if the request that started it goes
    /// away.
    pub(in crate::http) async fn page(
        &self,
        source: Source,
        wanted: &Wanted,
        changes: u64,
        newer: u64,
    ) -> Page {
        let mut page = self.reading(source, wanted, changes, newer);
        match page.wait_for(Option::is_some).await {
            Ok(page) => page.clone().unwrap_or(Page::Failed),
            // The task ended early: its runtime is gone.
            Err(_) => Page::Failed,
        }
    }

    fn reading(
        &self,
        source: Source,
        wanted: &Wanted,
        changes: u64,
        newer: u64,
    ) -> watch::Receiver<Option<Page>> {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if changes > cached.changes {
            cached.changes = changes;
            cached.pages.clear();
        }
        let found = cached.pages.iter().position(|held| held.wanted == *wanted);
        if let Some(held) = found.map(|at| cached.pages.remove(at))
            && held.read > newer
            && !held.has_failed()
        {
            let page = held.page.clone();
            cached.pages.push(held);
            return page;
        }
        cached.reads += 1;
        let (sender, page) = watch::channel(None);
        let (read, changes) = (cached.reads, cached.changes);
        cached.put(CachedPage { wanted: wanted.clone(), read, page: page.clone() });
        let (pages, wanted) = (self.clone(), wanted.clone());
        tokio::spawn(async move {
            let page = match source.read(&wanted).await {
                Ok(Found { page, end }) => {
                    if let Some((after, nothing)) = end {
                        pages.keep_end(Wanted { after, ..wanted }, nothing, changes, read);
                    }
                    page
                }
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::error!(error, "the revocation log cannot be read");
                    Page::Failed
                }
            };
            // Perhaps no request waits any more.
            let _ = sender.send(Some(page));
        });
        page
    }

    /// Keeps the empty page after the last entry: a follower that has read the last entry requests
    /// it next.
    fn keep_end(&self, wanted: Wanted, nothing: Bytes, changes: u64, read: u64) {
        let mut cached = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if cached.changes == changes && !cached.pages.iter().any(|held| held.wanted == wanted) {
            let page = watch::channel(Some(Page::Empty(nothing))).1;
            cached.put(CachedPage { wanted, read, page });
        }
    }
}

impl CachedPages {
    fn put(&mut self, held: CachedPage) {
        if self.pages.len() == MAX_PAGES {
            self.pages.remove(0);
        }
        self.pages.push(held);
    }
}

impl CachedPage {
    fn has_failed(&self) -> bool {
        match &*self.page.borrow() {
            Some(page) => matches!(page, Page::Failed),
            None => self.page.has_changed().is_err(),
        }
    }
}

struct Found {
    page: Page,
    /// If this is the last page: the cursor after it, and the empty page at that cursor.
    end: Option<(Cursor, Bytes)>,
}

impl Source {
    /// Reads a page of at most [`MAX_BYTES`].
    async fn read(&self, wanted: &Wanted) -> Result<Found, StoreError> {
        let mut limit = wanted.limit;
        loop {
            let page = self.page(self.store.revocations(wanted.after.clone(), limit).await?);
            let json = Bytes::from(page.to_json());
            let RevocationBatch::Entries { entries, next, more, newest_bound } = page.batch else {
                return Ok(Found { page: Page::Entries(json), end: None });
            };
            if entries.is_empty() && !more && next == wanted.after {
                return Ok(Found { page: Page::Empty(json), end: None });
            }
            if json.len() > MAX_BYTES && entries.len() > 1 {
                // Only the store knows a cursor inside a batch.
                limit = fitting(&entries);
                continue;
            }
            let end = (!more).then(|| {
                let entries = Vec::new();
                let after = next.clone();
                let nothing = RevocationBatch::Entries { entries, next, more, newest_bound };
                (after, Bytes::from(self.page(nothing).to_json()))
            });
            return Ok(Found { page: Page::Entries(json), end });
        }
    }

    fn page(&self, batch: RevocationBatch) -> RevocationPage {
        RevocationPage { batch, heartbeat: self.heartbeat, clock_skew: self.clock_skew }
    }
}

/// How many of these entries fit into a page.
fn fitting(entries: &[LogEntry]) -> u32 {
    let length = |entry: &LogEntry| serde_json::to_vec(entry).map_or(MAX_BYTES, |json| json.len());
    let mut size = ENVELOPE;
    let fit = entries.iter().take_while(|entry| {
        size += length(entry) + 1;
        size <= MAX_BYTES
    });
    u32::try_from(fit.count().clamp(1, entries.len() - 1)).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use cloakroom_core::revocation::{EntryId, LogEvent};
    use cloakroom_core::time::UnixTime;

    use super::*;

    fn heartbeats(count: usize) -> Vec<LogEntry> {
        let (id, at) = (EntryId::from_bytes([1; 16]), UnixTime::from_secs(1_800_000_000));
        vec![LogEntry { id, event: LogEvent::Heartbeat {}, at, until: at }; count]
    }

    #[test]
    fn as_many_entries_fit_as_there_is_room_for_and_a_comma_after_each() {
        let size = serde_json::to_vec(&heartbeats(1)[0]).unwrap().len() + 1;
        let fit = (MAX_BYTES - ENVELOPE) / size;
        assert_eq!(fitting(&heartbeats(fit + 20)), u32::try_from(fit).unwrap());
    }

    #[test]
    fn of_a_page_that_is_too_large_all_entries_never_fit() {
        // Whatever made it too large: the same page would be read again for ever.
        for count in 2..5 {
            assert_eq!(fitting(&heartbeats(count)), u32::try_from(count).unwrap() - 1);
        }
    }
}
