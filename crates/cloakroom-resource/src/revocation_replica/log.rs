//! The log that a replica reads.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::revocation::{Cursor, RevocationPage};

use crate::error::UnavailableError;

/// A revocation log that a replica can follow. [`HttpLog`](crate::HttpLog) reads it from the
/// authorization server, [`StoreLog`](crate::StoreLog) from the store. Implement this trait to
/// transport the log in another way. Implementations need `#[async_trait]`, which is re-exported as
/// [`async_trait`](crate::async_trait).
///
/// An implementation
///
/// - must return entries in the log's order, and must not skip any;
/// - must return at once if there are entries after the cursor. Otherwise it must wait until the log
///   grows, or until `wait` has passed, and then return no entries;
/// - must answer a cursor whose position is gone with
///   [`RevocationBatch::Gap`](cloakroom_core::revocation::RevocationBatch::Gap). If the log merely ends before that
///   position, it must return no entries instead;
/// - must report every failure as an error, never as "nothing new";
/// - must survive being dropped at any time, and being called again with the same cursor.
///
/// It may return a page that was read before the call: each heartbeat says how old it is.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_resource::{
///     Cursor, UnavailableError, RevocationBatch, RevocationLog, RevocationPage, async_trait,
/// };
///
/// /// A log that is copied to this machine as files.
/// #[derive(Debug)]
/// struct Files;
///
/// #[async_trait]
/// impl RevocationLog for Files {
///     async fn read(&self, after: Cursor, wait: Duration) -> Result<RevocationPage, UnavailableError> {
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
    /// [`UnavailableError`] if the log cannot be read.
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
