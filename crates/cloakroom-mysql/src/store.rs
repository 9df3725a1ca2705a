//! The store: the methods of the contract.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use async_trait::async_trait;
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, EntryId, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, CreateOutcome, Housekeeping, Listing, Lookup, MaintenanceReport,
    Migration, PageRequest, RevokeOutcome, Selector, StoreError, StoreStatus, TokenStore,
    fresh_tokens, tokens_of,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};
use tokio::runtime::Handle;

use crate::advance::{LockedStep, Step, Taken};
use crate::appender::Appender;
use crate::error::ConnectError;
use crate::grants::{Before, Create, Created, CreatedBefore, Find, List, Revoke};
use crate::housekeeping::Maintain;
use crate::pool::{LOG_CONNECTIONS, Pool};
use crate::revocation_log::{Append, ReadLog};
use crate::rules::ReadRules;
use crate::schema::{self, BeginLog, Migrate, Version};
use crate::session;
use crate::settings::{MysqlStoreBuilder, Settings, Via};
use crate::status::{Scan, Status};
use crate::sweeps::{Sweep, Swept, Which};
use crate::wakeups::{self, LogGrowth};

/// A [`TokenStore`], [`KeyStore`](cloakroom_core::keys::KeyStore) and
/// [`SingleUseStore`](cloakroom_core::store::SingleUseStore) in a MySQL or MariaDB database. A clone shares the
/// connections. Any number of nodes can use the database.
///
/// ```no_run
/// use std::sync::Arc;
/// use cloakroom_core::keys::KeyStore;
/// use cloakroom_core::store::TokenStore;
/// use cloakroom_mysql::MysqlStore;
///
/// # async fn connect() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MysqlStore::connect("mysql://as:secret@db.internal/auth").await?;
/// let tokens: Arc<dyn TokenStore> = Arc::new(store.clone());
/// let keys: Arc<dyn KeyStore> = Arc::new(store);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MysqlStore(Arc<Inner>);

struct Inner {
    pool: Arc<Pool>,
    appender: Arc<Appender>,
    growth: Arc<LogGrowth>,
    is_forgetting: AtomicBool,
}

impl MysqlStore {
    /// Connects to the database of this URL, and creates or migrates the tables in it.
    ///
    /// The URL is `mysql://user:password@host:port/database?ssl-mode=…`; `mariadb://` is accepted
    /// as well. Percent-encode special characters in the user and the password. Parameters:
    ///
    /// | parameter | meaning |
    /// |---|---|
    /// | `ssl-mode` | see below |
    /// | `ssl-ca` | a PEM file with the root certificates for the server's certificate; without it, those that browsers trust |
    /// | `ssl-server-name` | the name in the server's certificate, if it is not the host |
    /// | `ssl-cert`, `ssl-key` | PEM files with a client certificate and its key |
    /// | `socket` | the path of a Unix socket, instead of host and port |
    ///
    /// | `ssl-mode` | TLS | the server's certificate |
    /// |---|---|---|
    /// | `DISABLED` | never | – |
    /// | `PREFERRED` | if the server offers it | not checked |
    /// | `REQUIRED` | always | not checked |
    /// | `VERIFY_IDENTITY`, `VERIFY_CA` | always | must be signed by `ssl-ca`, and name the host or the `ssl-server-name` |
    ///
    /// The default `ssl-mode` is `VERIFY_IDENTITY`, unless the host is this machine (`localhost`, a
    /// loopback address or a Unix socket): then it is `DISABLED`. So a database on another host
    /// that has no TLS needs `ssl-mode=DISABLED`.
    ///
    /// Must be called on a tokio runtime with its I/O and time drivers. The store does its work on that runtime.
    ///
    /// # Errors
    ///
    /// If the URL is invalid, the server cannot be reached, does not accept writes or is too old, or the tables
    /// were made by a newer version.
    pub async fn connect(url: &str) -> Result<Self, ConnectError> {
        Self::builder(url).connect().await
    }

    /// Settings for a store in the database of this URL.
    pub fn builder(url: &str) -> MysqlStoreBuilder {
        MysqlStoreBuilder::new(url)
    }

    /// Settings for a store on connections of the app's own pool.
    ///
    /// The pool says how to connect: the server, the database, TLS, the user. Its options must have
    /// `client_found_rows(true)`. The store resets each connection when it takes it, so that it depends on
    /// nothing that the app left there, and the pool resets it when the store gives it back.
    ///
    /// The store takes up to [`connections`](MysqlStoreBuilder::connections) (8) and two more, and keeps
    /// them until it is dropped. So give the pool that many more than the app needs, and drop the store
    /// before you call `Pool::disconnect`, which waits for all connections.
    /// [`connect_timeout`](MysqlStoreBuilder::connect_timeout) is how long to wait for the pool.
    ///
    /// ```no_run
    /// use cloakroom_mysql::MysqlStore;
    /// use cloakroom_mysql::mysql_async::{Opts, OptsBuilder, Pool};
    ///
    /// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
    /// let options = OptsBuilder::from_opts(Opts::from_url("mysql://app@db.internal/app")?);
    /// let pool = Pool::new(options.client_found_rows(true));
    /// let store = MysqlStore::with_pool(pool.clone()).connections(4).connect().await?;
    /// # Ok(()) }
    /// ```
    pub fn with_pool(pool: mysql_async::Pool) -> MysqlStoreBuilder {
        MysqlStoreBuilder::with_pool(pool)
    }

    /// Connects, and checks the server.
    async fn reach(settings: Settings) -> Result<Arc<Pool>, ConnectError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // The driver uses the provider of the process. If the app has installed one, it stays.
            let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        }
        let pool = Arc::new(Pool::new(settings, Handle::current()));
        let (connection, server) = session::open(&pool.settings, pool.prefix())
            .await
            .map_err(|failure| failure.into_store_error("connecting to the database"))?;
        if let Via::Pool(_) = &pool.settings.via {
            let needed = pool.settings.connections + LOG_CONNECTIONS;
            let opts = connection.opts();
            if !opts.client_found_rows() {
                return Err(ConnectError::ChangedRows);
            }
            match opts.pool_opts().constraints().max() {
                max if max < needed => return Err(ConnectError::PoolTooSmall { max, needed }),
                _ => {}
            }
        }
        if !server.is_new_enough() {
            return Err(ConnectError::TooOld { found: server.text });
        }
        if server.is_read_only {
            return Err(ConnectError::ReadOnly);
        }
        pool.keep(connection);
        Ok(pool)
    }

    /// The migrations that the tables still need.
    pub(crate) async fn pending(settings: Settings) -> Result<Vec<Migration>, ConnectError> {
        let pool = Self::reach(settings).await?;
        let found = pool.once(Version).await?;
        schema::pending(found, &pool.prefix())
    }

    /// Connects, and checks or migrates the tables. Returns their version.
    pub(crate) async fn prepare(
        settings: Settings,
        migrates: bool,
    ) -> Result<(Arc<Pool>, u32), ConnectError> {
        let pool = Self::reach(settings).await?;
        let mut found = pool.once(Version).await?;
        if migrates && found < schema::KNOWN {
            pool.steps(Migrate).await?;
            found = pool.once(Version).await?;
        }
        schema::check(found)?;
        let Settings { clock, random, .. } = &pool.settings;
        let incarnation = schema::incarnation(random)?;
        let now = clock.now().as_millis();
        pool.once(BeginLog { incarnation, now }).await?;
        Ok((pool, found))
    }

    pub(crate) async fn open(settings: Settings, migrates: bool) -> Result<Self, ConnectError> {
        let (pool, _) = Self::prepare(settings, migrates).await?;
        let growth = Arc::new(LogGrowth::default());
        let appender = Arc::new(Appender::new(Arc::clone(&pool), Arc::clone(&growth)));
        pool.handle().spawn(wakeups::watch(Arc::downgrade(&pool), Arc::clone(&growth)));
        let is_forgetting = AtomicBool::new(false);
        Ok(Self(Arc::new(Inner { pool, appender, growth, is_forgetting })))
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0.pool
    }

    pub(crate) fn is_forgetting(&self) -> &AtomicBool {
        &self.0.is_forgetting
    }

    fn entry_id(&self) -> Result<EntryId, StoreError> {
        EntryId::random(&self.0.pool.settings.random)
            .map_err(|error| StoreError::unavailable("generating the id of a log entry", error))
    }

    async fn revoke_created(&self, id: GrantId) -> Result<(), StoreError> {
        let at = self.0.pool.settings.clock.now();
        self.0.pool.once(Revoke { id, at }).await
    }
}

impl fmt::Debug for MysqlStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlStore")
            .field("database", &self.0.pool.settings.via)
            .field("prefix", &self.0.pool.settings.prefix)
            .finish_non_exhaustive()
    }
}

/// How many pages of grants a revocation sweeps before it leaves the rest to `maintain`.
const PAGES_A_CALL: usize = 20;

/// How often a create starts again, because the row that it met was deleted in between.
const MAX_MEETINGS: usize = 8;

#[async_trait]
impl TokenStore for MysqlStore {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        tokens_of(grant.id, &tokens)?;
        let tokens = fresh_tokens(tokens, |_| Ok(None::<TokenRecord>))?;
        let (pool, id) = (self.pool(), grant.id);
        for _ in 0..MAX_MEETINGS {
            let clock = Arc::clone(&pool.settings.clock);
            let create = Create { grant: grant.clone(), tokens: tokens.clone(), clock };
            // A transaction that fails has to be rolled back, whoever polls.
            let created = match create.tokens.is_empty() {
                true => pool.once(create).await?,
                false => pool.steps(create).await?,
            };
            match created {
                Created::Inserted => return Ok(CreateOutcome::Inserted),
                Created::Denied => {
                    self.revoke_created(id).await?;
                    return Ok(CreateOutcome::Barred);
                }
                Created::TooLate => {
                    self.revoke_created(id).await?;
                    return Err(StoreError::unavailable("creating a grant", "it took too long"));
                }
                Created::Taken => {}
            }
            let (grant, tokens) = (grant.clone(), tokens.clone());
            match pool.once(CreatedBefore { grant, tokens }).await? {
                Before::Answer(answer) => return Ok(answer),
                Before::Denied => {
                    self.revoke_created(id).await?;
                    return Ok(CreateOutcome::Barred);
                }
                Before::Gone => {}
            }
        }
        Err(StoreError::unavailable("creating a grant", "its row comes and goes"))
    }

    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.pool().once(Find { id: grant, digest: token }).await
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        tokens_of(step.grant, &step.tokens)?;
        let tokens = fresh_tokens(step.tokens.clone(), |_| Ok(None::<TokenRecord>))?;
        let first = Step { step: step.clone(), tokens };
        let taken = match first.tokens.is_empty() {
            true => self.pool().once(first).await?,
            false => self.pool().steps(first).await?,
        };
        match taken {
            Taken::Advanced => Ok(AdvanceOutcome::Advanced),
            Taken::Refused(refused) => Ok(refused),
            Taken::Undecided => self.pool().steps(LockedStep { step }).await,
        }
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        let id = self.entry_id()?;
        let append = Append::Revocation(id, Box::new(revocation));
        let sweeps = append.sweeps();
        self.0.appender.append(append).await?;
        if !sweeps {
            return Ok(RevokeOutcome::Done);
        }
        // The entry, the rule and the record of the sweep are committed. If this future is dropped, or there
        // are more grants than a call should wait for, `maintain` does the rest.
        for _ in 0..PAGES_A_CALL {
            match self.pool().steps(Sweep(Which::Of(id))).await? {
                Swept::More => {}
                Swept::None | Swept::Last | Swept::Unreadable => return Ok(RevokeOutcome::Done),
            }
        }
        Ok(RevokeOutcome::Sweeping(id))
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.pool().once(ReadRules { keys }).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.pool().once(List { of, page, now }).await
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.pool().once(ReadLog { after, limit }).await
    }

    fn wakeups(&self) -> LogNotifications {
        self.0.growth.notifications()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        let id = self.entry_id()?;
        self.0.appender.append(Append::Heartbeat { id, at: now, until }).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        self.pool().steps(Maintain(task)).await
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        self.pool().once(Status { before }).await
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        self.pool().once(Scan { page }).await.map(Some)
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.growth.end();
    }
}
