//! Where a replica reads from.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::revocation::{Cursor, RevocationPage};

use crate::error::UnavailableError;

/// A revocation log, as a replica reads it. [`HttpLog`](crate::HttpLog) reads it from the
/// authorization server, [`StoreLog`](crate::StoreLog) from the store itself; an app that carries
/// it in another way implements this trait.
///
/// An implementation
///
/// - must hand out entries in the log's order, and must not skip one;
/// - must answer at once with what there is after the cursor, and must wait only if that is
///   nothing: until the log grows, or `wait` has passed. Then it answers with no entries;
/// - must answer a cursor whose place is gone with
///   [`RevocationBatch::Gap`](cloakroom_core::revocation::RevocationBatch::Gap), but a log that merely ends
///   before that place with no entries;
/// - must report whatever goes wrong as an error, never as "nothing new";
/// - must survive being dropped at any time, and be asked again with the same cursor then.
///
/// What it hands out of a page that was read before it was asked is no lie: each heartbeat says how
/// old it is.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_resource::{
///     Cursor, UnavailableError, RevocationBatch, RevocationLog, RevocationPage, async_trait,
/// };
///
/// /// A log that somebody copies to this machine.
/// #[derive(Debug)]
/// struct Files;
///
/// #[async_trait]
/// impl RevocationLog for Files {
///     async fn read(&self, after: Cursor, wait: Duration) -> Result<RevocationPage, Outage> {
///         let path = format!("/var/lib/revocations/{after}.json");
///         let page = std::fs::read(path).map_err(UnavailableError::other)?;
///         RevocationPage::from_json(&page).map_err(UnavailableError::other)
///     }
/// }
/// ```
#[async_trait]
pub trait RevocationLog: fmt::Debug + Send + Sync + 'static {
    /// The entries after `after`; waits at most `wait` for the first.
    ///
    /// # Errors
    ///
    /// If the log cannot be read.
    async fn read(&self, after: Cursor, wait: Duration)
    -> Result<RevocationPage, UnavailableError>;
}

#[async_trait]
impl<T: RevocationLog + ?Sized> RevocationLog for Arc<T> {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        (**self).read(after, wait).await
    }
}
