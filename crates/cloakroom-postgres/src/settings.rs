//! The settings of a store, and the builder that sets them.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::store::Migration;
use cloakroom_core::time::{Clock, SystemClock};
use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio_postgres::Config;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::address::{Address, each_host};
use crate::error::ConnectError;
use crate::schema;
use crate::sql::Names;
use crate::store::PostgresStore;
use crate::tls;

/// What the parts of an open store share.
pub(crate) struct Settings {
    /// The app's pool, if the connections come from there and not from a URL.
    #[cfg(feature = "deadpool")]
    pub(crate) pool: Option<deadpool_postgres::Pool>,
    /// The settings of each host, in the order of the URL.
    pub(crate) hosts: Vec<Config>,
    /// The host that was the primary last.
    pub(crate) primary: AtomicUsize,
    pub(crate) tls: Option<MakeRustlsConnect>,
    pub(crate) names: Names,
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    /// Whether a pooler gives each transaction to another server connection.
    pub(crate) is_pooled: bool,
    pub(crate) poll: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
    pub(crate) runtime: Handle,
}

impl Settings {
    /// How long a caller waits for an answer: longer than the server works on it, so that the server's own
    /// error arrives.
    pub(crate) fn patience(&self) -> Duration {
        self.statement_timeout + self.statement_timeout / 4
    }

    /// Whether connections are the store's own, and not those of the app's pool.
    pub(crate) fn are_connections_own(&self) -> bool {
        !self.hosts.is_empty()
    }

    /// Whether a connection can listen.
    pub(crate) fn may_listen(&self) -> bool {
        !self.is_pooled && self.are_connections_own()
    }

    /// What a new connection is set to; `None` behind a pooler, where nothing of it would last.
    pub(crate) fn setup(&self) -> Option<String> {
        if self.is_pooled {
            return None;
        }
        let timeout = self.statement_timeout.as_millis();
        // One plan for all values, made once, and never one that scans: a plan that was made while a table
        // was empty may be in use when it no longer is.
        Some(format!(
            "SET statement_timeout = {timeout}; SET lock_timeout = {timeout}; \
             SET default_transaction_isolation = 'read committed'; \
             SET plan_cache_mode = force_generic_plan; SET enable_seqscan = off; SET jit = off; \
             SET client_min_messages = error"
        ))
    }
}

/// Settings of a [`PostgresStore`].
///
/// ```no_run
/// use std::time::Duration;
/// use cloakroom_postgres::PostgresStore;
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let store = PostgresStore::builder("postgres://as@db.internal/auth?sslrootcert=/etc/db-ca.pem")
///     .schema("tokens")
///     .statement_timeout(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "call `connect` to open the store"]
pub struct PostgresStoreBuilder {
    via: Via,
    tls: Option<ClientConfig>,
    schema: Option<String>,
    prefix: Option<String>,
    lookups: usize,
    writes: usize,
    connect_timeout: Duration,
    statement_timeout: Duration,
    is_pooled: bool,
    poll: Option<Duration>,
    migrates: bool,
    clock: Arc<dyn Clock>,
    random: Random,
}

/// Where connections come from.
#[derive(Clone)]
enum Via {
    Url(String),
    #[cfg(feature = "deadpool")]
    Pool(deadpool_postgres::Pool),
}

/// Longer than anyone needs, and within the range of the server.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// How often the head of the log is read while a connection listens: a connection can die without a sign.
const POLL_LISTENING: Duration = Duration::from_secs(1);

/// How often the head of the log is read where nobody can listen.
const POLL_ALONE: Duration = Duration::from_millis(100);

impl PostgresStoreBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self::over(Via::Url(url.to_owned()))
    }

    #[cfg(feature = "deadpool")]
    pub(crate) fn with_pool(pool: deadpool_postgres::Pool) -> Self {
        Self { lookups: 1, writes: 2, ..Self::over(Via::Pool(pool)) }
    }

    fn over(via: Via) -> Self {
        Self {
            via,
            tls: None,
            schema: None,
            prefix: None,
            lookups: 2,
            writes: 4,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            is_pooled: false,
            poll: None,
            migrates: true,
            clock: Arc::new(SystemClock::new()),
            random: Random::system(),
        }
    }

    /// The schema of the tables (`cloakroom`): up to 24 lowercase letters, digits and underscores. It is
    /// created if it is missing.
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = Some(schema.into());
        self
    }

    /// A prefix of the names of the tables and indexes (none): up to 24 lowercase letters, digits and
    /// underscores. With a prefix, several stores can share a schema.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = Some(prefix.into());
        self
    }

    /// How many connections serve lookups (2), and how many serve writes of grants (4). At least one each.
    ///
    /// A connection carries many statements at the same time, and the server works on one after the other.
    /// Besides these, the store has one connection for the log, one that listens, and two for lists and
    /// housekeeping. Connections are opened when they are first needed. Over a pool of the app, the
    /// defaults are 1 and 2, no connection listens, and one is for lists and housekeeping.
    pub const fn connections(mut self, lookups: usize, writes: usize) -> Self {
        self.lookups = lookups;
        self.writes = writes;
        self
    }

    /// How long an attempt to connect may take (5 s), with TLS and authentication; over a pool of the
    /// app, including the wait for a free connection.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout.clamp(Duration::from_millis(1), MAX_WAIT);
        self
    }

    /// How long a statement may take (5 s), including its wait for locks. After that, the server
    /// cancels it. If the server does not answer within 1.25 times this time, the connection is
    /// closed.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = timeout.clamp(Duration::from_millis(1), MAX_WAIT);
        self
    }

    /// Whether the URL is that of a pooler that may run each transaction on a different server
    /// connection, such as `PgBouncer` with `pool_mode = transaction` (`false` by default).
    ///
    /// The store then prepares no statements, sets nothing on its connections, and polls the log
    /// instead of listening to it. Set `statement_timeout` for the user or the database yourself.
    pub const fn transaction_pooler(mut self, is_pooled: bool) -> Self {
        self.is_pooled = is_pooled;
        self
    }

    /// How often to check whether other nodes have written to the revocation log: 1 s by default,
    /// as a safeguard in addition to `LISTEN`, and 100 ms behind a
    /// [`transaction_pooler`](Self::transaction_pooler) or over a pool of the app. At least 1 ms, at most an hour. Writes of
    /// this process wake readers at once.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = Some(interval.clamp(Duration::from_millis(1), MAX_WAIT));
        self
    }

    /// Whether [`connect`](Self::connect) creates and migrates the tables (`true`). Otherwise it refuses a
    /// database without tables, or with tables that are too old for this program.
    pub const fn auto_migrate(mut self, migrates: bool) -> Self {
        self.migrates = migrates;
        self
    }

    /// The TLS configuration, for example with a client certificate. It replaces the one derived
    /// from `sslmode` and `sslrootcert`; `sslmode` still decides whether TLS is used. A pool of the app
    /// has its own.
    pub fn tls(mut self, config: ClientConfig) -> Self {
        self.tls = Some(config);
        self
    }

    /// The clock for the times that the contract leaves to the store: the first bound of the log,
    /// and the time at which a grant that a rule covers is revoked. The default is the system
    /// clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Connects, and opens the store; see [`PostgresStore::connect`].
    ///
    /// # Errors
    ///
    /// If the URL or a name is invalid, the server cannot be reached or does not accept writes, or the tables
    /// were made by a newer version.
    pub async fn connect(self) -> Result<PostgresStore, ConnectError> {
        let settings = Arc::new(self.settings()?);
        schema::open(&settings, self.migrates).await?;
        Ok(PostgresStore::start(settings, self.lookups, self.writes))
    }

    /// Creates or migrates the tables, and nothing else. Use it in a deployment step whose database
    /// user has more privileges than the program's. Returns the resulting version of the tables.
    ///
    /// Any number of nodes may do this at the same time. One migrates, and the others wait for it.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub async fn migrate(self) -> Result<u32, ConnectError> {
        schema::open(&Arc::new(self.settings()?), true).await
    }

    /// The migrations that [`migrate`](Self::migrate) would run; none if the tables are up to date. This
    /// changes nothing. If there is no schema yet, `migrate` creates it first.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub async fn pending_migrations(&self) -> Result<Vec<Migration>, ConnectError> {
        schema::pending(&Arc::new(self.settings()?)).await
    }

    pub(crate) fn settings(&self) -> Result<Settings, ConnectError> {
        let mut names = Names::default();
        if let Some(schema) = &self.schema {
            names = names.with_schema(schema)?;
        }
        if let Some(prefix) = &self.prefix {
            names = names.with_prefix(prefix)?;
        }
        let (tls, hosts) = match &self.via {
            Via::Url(url) => self.hosts(url)?,
            #[cfg(feature = "deadpool")]
            Via::Pool(pool) => {
                crate::app_pool::check_size(pool, self.lookups, self.writes)?;
                (None, Vec::new())
            }
        };
        let mut settings = Settings {
            #[cfg(feature = "deadpool")]
            pool: match &self.via {
                Via::Url(_) => None,
                Via::Pool(pool) => Some(pool.clone()),
            },
            tls,
            hosts,
            primary: AtomicUsize::new(0),
            names,
            connect_timeout: self.connect_timeout,
            statement_timeout: self.statement_timeout,
            is_pooled: self.is_pooled,
            poll: POLL_ALONE,
            clock: Arc::clone(&self.clock),
            random: self.random.clone(),
            runtime: Handle::try_current().map_err(|error| {
                cloakroom_core::store::StoreError::unavailable("looking for a tokio runtime", error)
            })?,
        };
        if settings.may_listen() {
            settings.poll = POLL_LISTENING;
        }
        settings.poll = self.poll.unwrap_or(settings.poll);
        Ok(settings)
    }

    /// How to reach the hosts of the URL.
    fn hosts(&self, url: &str) -> Result<(Option<MakeRustlsConnect>, Vec<Config>), ConnectError> {
        let mut address = Address::parse(url)?;
        let config = &mut address.config;
        if config.get_tcp_user_timeout().is_none() {
            // A peer that acknowledges nothing for so long is gone.
            config.tcp_user_timeout(self.statement_timeout * 2);
        }
        Ok((tls::connector(&address, self.tls.clone())?, each_host(&address.config)))
    }
}

impl fmt::Debug for PostgresStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresStoreBuilder")
            .field("schema", &self.schema)
            .field("table_prefix", &self.prefix)
            .finish_non_exhaustive()
    }
}
