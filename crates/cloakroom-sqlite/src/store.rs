//! The store: the methods of the contract, and the threads behind them.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, EntryId, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CreateOutcome, Housekeeping, Listing, Lookup, MaintenanceReport,
    Migration, PageRequest, RevokeOutcome, Selector, StoreError, StoreStatus, TokenStore,
};
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use cloakroom_core::{GrantId, Random, TokenDigest};
use rusqlite::Connection;

use crate::error::OpenError;
use crate::grants;
use crate::housekeeping;
use crate::revocation_log::{self, Swept};
use crate::schema::Synchronous;
use crate::shared::Shared;
use crate::status;
use crate::writer::{Room, Writer};

/// A [`TokenStore`], [`KeyStore`](cloakroom_core::keys::KeyStore) and
/// [`SingleUseStore`](cloakroom_core::store::SingleUseStore) in a SQLite file. A clone shares the
/// connections. Several processes on one machine can open the file.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use cloakroom_core::keys::KeyStore;
/// use cloakroom_core::store::TokenStore;
/// use cloakroom_sqlite::SqliteStore;
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("tokens.db");
/// let store = SqliteStore::open(path)?; // creates the file and its tables if there are none
/// let tokens: Arc<dyn TokenStore> = Arc::new(store.clone());
/// let keys: Arc<dyn KeyStore> = Arc::new(store);
/// assert!(keys.load().await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SqliteStore(Arc<Inner>);

struct Inner {
    writer: Writer,
    shared: Arc<Shared>,
}

impl SqliteStore {
    /// Opens the database at this path. If there is no file, it is created, readable only by its owner.
    ///
    /// This reads and writes the file, and may wait some seconds while another process prepares it.
    /// Call it when your program starts.
    ///
    /// # Errors
    ///
    /// If the file cannot be used, belongs to another program, or was written by a newer version.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, OpenError> {
        Self::builder(path).open()
    }

    /// Settings for a store at this path.
    pub fn builder(path: impl AsRef<Path>) -> SqliteStoreBuilder {
        SqliteStoreBuilder {
            settings: Settings {
                path: path.as_ref().to_owned(),
                synchronous: Synchronous::default(),
                readers: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
                poll: Duration::from_millis(50),
                busy: Duration::from_secs(5),
                max_pages: None,
                migrates: true,
                clock: Arc::new(SystemClock::new()),
                random: Random::system(),
            },
        }
    }

    /// A write, in its own transaction or one that it shares with others.
    pub(crate) async fn write<T, F>(&self, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.write_in(Room::Usual, work).await
    }

    async fn write_in<T, F>(&self, room: Room, work: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.writer.run(room, work).await
    }

    /// A read that takes longer than a lookup. It runs on a separate thread.
    pub(crate) async fn read<T, F>(&self, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.0.shared.read_elsewhere(read).await
    }

    fn entry_id(&self) -> Result<EntryId, StoreError> {
        EntryId::random(&self.0.shared.settings.random)
            .map_err(|error| StoreError::unavailable("generating the id of a log entry", error))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore")
            .field("path", &self.0.shared.settings.path)
            .finish_non_exhaustive()
    }
}

/// Settings of a [`SqliteStore`].
///
/// ```
/// use std::time::Duration;
/// use cloakroom_sqlite::{SqliteStore, Synchronous};
///
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("tokens.db");
/// let store = SqliteStore::builder(path)
///     .synchronous(Synchronous::Normal)
///     .poll(Duration::from_millis(20))
///     .open()?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `open` to open the store"]
pub struct SqliteStoreBuilder {
    settings: Settings,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    pub(crate) synchronous: Synchronous,
    pub(crate) readers: usize,
    pub(crate) poll: Duration,
    pub(crate) busy: Duration,
    pub(crate) max_pages: Option<u32>,
    pub(crate) migrates: bool,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
}

/// Longer than anyone needs, and within the range of SQLite.
const MAX_WAIT: Duration = Duration::from_secs(3600);

impl SqliteStoreBuilder {
    /// The durability of a commit ([`Synchronous::Full`] by default).
    pub const fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.settings.synchronous = synchronous;
        self
    }

    /// How often to check whether other processes have written to the revocation log (50 ms; at
    /// least 1 ms, at most an hour). Writes of this process wake readers at once.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.settings.poll = interval.clamp(Duration::from_millis(1), MAX_WAIT);
        self
    }

    /// How long a call waits for a lock that another process holds before it fails (5 s, at most an
    /// hour).
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.settings.busy = timeout.min(MAX_WAIT);
        self
    }

    /// The largest number of pages in the file (`PRAGMA max_page_count`). A page usually has 4 KiB.
    pub const fn max_pages(mut self, pages: u32) -> Self {
        self.settings.max_pages = Some(pages);
        self
    }

    /// Whether [`open`](Self::open) creates the file and migrates its tables (`true`). Otherwise it refuses
    /// a path without a file, and a file whose tables are too old for this program.
    pub const fn auto_migrate(mut self, migrates: bool) -> Self {
        self.settings.migrates = migrates;
        self
    }

    /// The clock for the times that the contract leaves to the store: the first bound of the log, and the time
    /// at which the store revokes a grant that was created too late. The default is the system clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Opens the database; see [`SqliteStore::open`].
    ///
    /// # Errors
    ///
    /// If the file cannot be used, belongs to another program, or was written by a newer version.
    pub fn open(self) -> Result<SqliteStore, OpenError> {
        let (shared, writer) = Shared::open(self.settings)?;
        Ok(SqliteStore(Arc::new(Inner { writer, shared })))
    }

    /// Creates the file if there is none, migrates its tables, and does nothing else. Returns the resulting version of
    /// the tables.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn migrate(self) -> Result<usize, OpenError> {
        Shared::migrate(&self.settings)
    }

    /// The migrations that [`migrate`](Self::migrate) would run; none if the tables are up to date. This
    /// creates and changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`open`](Self::open).
    pub fn pending_migrations(&self) -> Result<Vec<Migration>, OpenError> {
        Shared::pending(&self.settings)
    }
}

#[async_trait]
impl TokenStore for SqliteStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let now = self.0.shared.settings.clock.now();
        self.write(move |connection| grants::create(connection, &grant, &tokens, now)).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.0
            .shared
            .look_up(move |connection| grants::find(connection, grant, token.as_ref()))
            .await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.write(move |connection| grants::advance(connection, &step)).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        let id = self.entry_id()?;
        let record =
            move |connection: &Connection| revocation_log::record(connection, id, &revocation);
        let mut swept = self.write_in(Room::Revocation, record).await?;
        // Each step is its own transaction, so that other writes get their turn. If this future is dropped,
        // `maintain` does the rest.
        while let Swept::More(position) = swept {
            let sweep = move |connection: &Connection| revocation_log::sweep(connection, position);
            swept = self.write_in(Room::Revocation, sweep).await?;
        }
        Ok(RevokeOutcome::Done)
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.0
            .shared
            .look_up(move |connection| revocation_log::rules(connection, keys.clone()))
            .await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.read(move |connection| grants::list(connection, &of, page, now)).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.read(move |connection| revocation_log::read(connection, &after, limit)).await
    }

    fn wakeups(&self) -> LogNotifications {
        self.0.shared.wakeups(Arc::downgrade(&self.0))
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        let id = self.entry_id()?;
        let beat =
            move |connection: &Connection| revocation_log::heartbeat(connection, id, now, until);
        self.write_in(Room::Heartbeat, beat).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        let mut done = MaintenanceReport::default();
        let mut left = task.limit.max(1);
        while left > 0 {
            let (rows, total) = self
                .write(move |connection| {
                    let mut done = done;
                    let rows = housekeeping::step(connection, &task, left, &mut done)?;
                    Ok((rows, done))
                })
                .await?;
            done = total;
            if rows == 0 {
                break;
            }
            left -= rows.min(left);
        }
        (done.more, done.sweeping) = self
            .read(move |connection| {
                let sweeping = match task.sweep {
                    Some(entry) => revocation_log::sweep_of(connection, entry)?.is_some(),
                    None => false,
                };
                Ok((housekeeping::is_due(connection, &task)?, sweeping))
            })
            .await?;
        Ok(done)
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        self.read(move |connection| status::status(connection, before)).await
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        self.read(move |connection| status::scan(connection, page).map(Some)).await
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test]
    async fn a_lookup_that_meets_a_lock_goes_on_elsewhere() {
        let folder = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(folder.path().join("tokens.db")).unwrap();
        let busy = rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY);
        let runs = AtomicU32::new(0);
        let read = move |_: &Connection| match runs.fetch_add(1, Ordering::SeqCst) {
            0 => {
                Err(crate::error::failed("looking up", rusqlite::Error::SqliteFailure(busy, None)))
            }
            run => Ok(run),
        };
        assert_eq!(store.0.shared.look_up(read).await.unwrap(), 1);
    }
}
