//! The store: the methods of the contract, and the connections that they use.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, EntryId, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CreateOutcome, Housekeeping, Listing, Lookup, MaintenanceReport,
    PageRequest, RevokeOutcome, Selector, StoreError, StoreStatus, TokenStore,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use tokio::task::AbortHandle;

use crate::advance;
use crate::create;
use crate::error::{ConnectError, Failed, failed};
use crate::housekeeping;
use crate::list;
use crate::log_writer::{Append, LogWriter};
use crate::lookups::Lookups;
use crate::pool::Pool;
use crate::revocation_log::{self, SweepTarget, Swept};
use crate::settings::{PostgresStoreBuilder, Settings};
use crate::status;
use crate::watch::{self, Growth};

/// A [`TokenStore`], [`KeyStore`](cloakroom_core::keys::KeyStore) and
/// [`SingleUseStore`](cloakroom_core::store::SingleUseStore) in a PostgreSQL database. A clone shares the
/// connections. Any number of nodes can use the database.
///
/// ```no_run
/// use std::sync::Arc;
/// use cloakroom_core::keys::KeyStore;
/// use cloakroom_core::store::TokenStore;
/// use cloakroom_postgres::PostgresStore;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let url = std::env::var("DATABASE_URL")?;
/// let store = PostgresStore::connect(&url).await?; // creates the tables if there are none
/// let tokens: Arc<dyn TokenStore> = Arc::new(store.clone());
/// let keys: Arc<dyn KeyStore> = Arc::new(store);
/// assert!(keys.load().await?.is_empty());
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct PostgresStore(Arc<Inner>);

struct Inner {
    settings: Arc<Settings>,
    /// For lookups, which must not wait for writes.
    lookups: Lookups,
    /// For writes of grants, tokens and items.
    writes: Pool,
    /// For what takes longer: lists, housekeeping, sweeps, and what happens seldom.
    long: Pool,
    log: LogWriter,
    growth: Growth,
    watch: AbortHandle,
}

impl PostgresStore {
    /// Connects to the database of this URL, and creates or migrates the tables in the schema `cloakroom`.
    ///
    /// The URL has the form of libpq: `postgres://user:password@host:port/database?sslmode=…`. It
    /// may name several hosts, of which the store uses the one that accepts writes.
    ///
    /// | `sslmode` | TLS | the server's certificate |
    /// |---|---|---|
    /// | `disable` | never | – |
    /// | `allow`, `prefer` | if the server offers it | not checked |
    /// | `require` | always | not checked; with `sslrootcert` as for `verify-ca` |
    /// | `verify-ca` | always | must be signed by `sslrootcert`, which is required |
    /// | `verify-full` | always | must also name the host; without `sslrootcert`, the system's root certificates are used |
    ///
    /// The default `sslmode` is `verify-full`, unless every host is this machine (`localhost`, a
    /// loopback address or a Unix socket) and there is no `sslrootcert`: then it is `prefer`. So a
    /// database on another host that has no TLS needs `sslmode=disable`.
    /// [`PostgresStoreBuilder::tls`] replaces these checks.
    ///
    /// Must be called on a tokio runtime with its I/O and time drivers. The store does its work on that runtime.
    ///
    /// # Errors
    ///
    /// If the URL is invalid, the server cannot be reached or does not accept writes, or the tables were made
    /// by a newer version.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// Settings for a store in the database of this URL.
    pub fn builder(url: &str) -> PostgresStoreBuilder {
        PostgresStoreBuilder::new(url)
    }

    pub(crate) fn start(settings: Arc<Settings>, lookups: usize, writes: usize) -> Self {
        let growth = Growth::new();
        let appends = Pool::new(&settings, 1);
        let log = LogWriter::start(&settings, appends.clone(), growth.clone());
        let watching = watch::watch(Arc::clone(&settings), appends, growth.clone());
        let watch = settings.runtime.spawn(watching).abort_handle();
        Self(Arc::new(Inner {
            lookups: Lookups::start(&settings, lookups),
            writes: Pool::new(&settings, writes),
            long: Pool::new(&settings, if settings.are_connections_own() { 2 } else { 1 }),
            log,
            growth,
            watch,
            settings,
        }))
    }

    pub(crate) fn writes(&self) -> &Pool {
        &self.0.writes
    }

    pub(crate) fn long(&self) -> &Pool {
        &self.0.long
    }

    fn entry_id(&self) -> Result<EntryId, StoreError> {
        EntryId::random(&self.0.settings.random)
            .map_err(|error| StoreError::unavailable("generating the id of a log entry", error))
    }

    /// Runs a read with a large answer in a task. A caller that does not take its answer would otherwise hold
    /// up the answers of all others on the connection.
    async fn apart<T: Send + 'static>(
        &self,
        during: &'static str,
        read: impl Future<Output = Result<T, StoreError>> + Send + 'static,
    ) -> Result<T, StoreError> {
        let reading = self.0.settings.runtime.spawn(read);
        reading.await.unwrap_or_else(|_| Err(failed(during, Failed::Ended)))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.watch.abort();
    }
}

impl fmt::Debug for PostgresStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStore")
            .field("tables", &self.0.settings.names)
            .finish_non_exhaustive()
    }
}

#[async_trait]
impl TokenStore for PostgresStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        let now = self.0.settings.clock.now();
        create::create(&self.0.writes, &grant, tokens, now).await
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.0.lookups.find(grant, token).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        advance::advance(&self.0.writes, &step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        let id = self.entry_id()?;
        let target = SweepTarget::of(&revocation.target);
        let append = Append::Revocation(id, Box::new(revocation));
        let position = self.0.log.append(append).await?;
        // The entry and the rule are committed. Each step is a statement. If this future is dropped,
        // `maintain` does the rest.
        if let Some(target) = target {
            while revocation_log::sweep(&self.0.long, position, &target).await? == Swept::More {}
        }
        Ok(RevokeOutcome::Done)
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        revocation_log::rules(self.0.lookups.pool(), keys).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        let pool = self.0.long.clone();
        self.apart("listing grants", async move { list::list(&pool, &of, page, now).await }).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        let pool = self.0.lookups.pool().clone();
        self.apart("reading the revocation log", async move {
            revocation_log::read(&pool, &after, limit).await
        })
        .await
    }

    fn wakeups(&self) -> LogNotifications {
        self.0.growth.notifications()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        let id = self.entry_id()?;
        self.0.log.append(Append::Heartbeat { id, at: now, until }).await.map(drop)
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        housekeeping::maintain(&self.0.long, &task).await
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        status::status(&self.0.long, &self.0.settings.names, before).await
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        let pool = self.0.long.clone();
        let scan = self.apart("reading all grants", async move { status::scan(&pool, page).await });
        scan.await.map(Some)
    }
}
