//! The settings of a store.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::store::Migration;
use cloakroom_core::time::{Clock, SystemClock};

use crate::error::ConnectError;
use crate::store::MysqlStore;
use crate::url::DatabaseUrl;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) via: Via,
    pub(crate) prefix: String,
    pub(crate) connections: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) poll: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
}

/// Where connections come from.
#[derive(Clone)]
pub(crate) enum Via {
    Url(Box<DatabaseUrl>),
    /// The app's pool.
    Pool(mysql_async::Pool),
}

/// Shows no options of a pool, which contain a password.
impl fmt::Debug for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Url(url) => url.fmt(f),
            Self::Pool(_) => f.write_str("a pool of the app"),
        }
    }
}

impl Settings {
    /// How long a statement waits for the lock of another transaction, in the whole seconds that the server
    /// knows. It is shorter than the time-out of the statement, so that the error names the reason.
    pub(crate) fn lock_seconds(&self) -> u64 {
        (self.statement_timeout / 2).as_secs().max(1)
    }

    /// How long to wait for an answer before the connection is given up.
    pub(crate) fn patience(&self) -> Duration {
        self.statement_timeout * 5 / 4
    }
}

/// Settings of a [`MysqlStore`].
///
/// ```no_run
/// use std::time::Duration;
/// use cloakroom_mysql::MysqlStore;
///
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// let store = MysqlStore::builder("mysql://as@db.internal/auth?ssl-ca=/etc/db-ca.pem")
///     .table_prefix("tokens_")
///     .connections(16)
///     .statement_timeout(Duration::from_secs(2))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "call `connect` to open the store"]
pub struct MysqlStoreBuilder {
    from: Origin,
    prefix: String,
    connections: usize,
    connect_timeout: Duration,
    statement_timeout: Duration,
    poll: Duration,
    migrates: bool,
    clock: Arc<dyn Clock>,
    random: Random,
}

/// What [`Via`] is made from.
#[derive(Clone)]
enum Origin {
    Url(String),
    Pool(mysql_async::Pool),
}

/// Longer than anyone needs, and within the range of the server.
const MAX_WAIT: Duration = Duration::from_secs(3600);

/// The longest prefix. The name of a table has at most 64 characters.
const MAX_PREFIX: usize = 32;

impl MysqlStoreBuilder {
    pub(crate) fn new(url: &str) -> Self {
        Self::over(Origin::Url(url.to_owned()))
    }

    pub(crate) fn with_pool(pool: mysql_async::Pool) -> Self {
        Self::over(Origin::Pool(pool))
    }

    fn over(from: Origin) -> Self {
        Self {
            from,
            prefix: "cloakroom_".to_owned(),
            connections: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
            poll: Duration::from_millis(100),
            migrates: true,
            clock: Arc::new(SystemClock::new()),
            random: Random::system(),
        }
    }

    /// The prefix of the names of the tables (`cloakroom_`): up to 32 letters, digits and
    /// underscores. With different prefixes, several stores can share a database.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How many connections serve requests and housekeeping (8; at least 1). Each carries one
    /// statement at a time. Two more are reserved for the revocation log, so that revocations and
    /// heartbeats do not wait for requests. Connections are opened when they are first needed.
    pub fn connections(mut self, connections: usize) -> Self {
        self.connections = connections.clamp(1, 4096);
        self
    }

    /// How long an attempt to connect may take (5 s), with TLS and authentication; over a pool of the
    /// app, including the wait for a free connection.
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = bounded(timeout);
        self
    }

    /// How long a statement may take (5 s), and how long a call waits for a free connection. After
    /// that, MariaDB cancels the statement; MySQL cancels only a `SELECT`. A wait for a lock ends
    /// after half of this time, but not before a second has passed. If the server does not answer
    /// within 1.25 times this time, the connection is closed.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.statement_timeout = bounded(timeout);
        self
    }

    /// How often to check whether other nodes have written to the revocation log (100 ms; at least
    /// 1 ms, at most an hour). Writes of this process wake readers at once.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.poll = bounded(interval);
        self
    }

    /// Whether [`connect`](Self::connect) creates and migrates the tables (`true`). Otherwise it refuses a
    /// database without tables, or with tables that are too old for this program.
    pub const fn auto_migrate(mut self, migrates: bool) -> Self {
        self.migrates = migrates;
        self
    }

    /// The clock for the times that the contract leaves to the store: the first bound of the log,
    /// how long a `create` takes, and the time at which a grant that a rule covers is revoked. The
    /// default is the system clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Connects, and opens the store; see [`MysqlStore::connect`].
    ///
    /// # Errors
    ///
    /// If the URL or the prefix is invalid, the server cannot be reached, does not accept writes or is too
    /// old, or the tables were made by a newer version.
    pub async fn connect(self) -> Result<MysqlStore, ConnectError> {
        MysqlStore::open(self.settings()?, self.migrates).await
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
        MysqlStore::prepare(self.settings()?, true).await.map(|(_, version)| version)
    }

    /// The migrations that [`migrate`](Self::migrate) would run; none if the tables are up to date. This
    /// changes nothing.
    ///
    /// # Errors
    ///
    /// As for [`connect`](Self::connect).
    pub async fn pending_migrations(&self) -> Result<Vec<Migration>, ConnectError> {
        MysqlStore::pending(self.settings()?).await
    }

    fn settings(&self) -> Result<Settings, ConnectError> {
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if self.prefix.len() > MAX_PREFIX || !self.prefix.bytes().all(is_name) {
            return Err(ConnectError::Name { name: self.prefix.clone() });
        }
        Ok(Settings {
            via: match &self.from {
                Origin::Url(url) => Via::Url(Box::new(url.parse()?)),
                Origin::Pool(pool) => Via::Pool(pool.clone()),
            },
            prefix: self.prefix.clone(),
            connections: self.connections,
            connect_timeout: self.connect_timeout,
            statement_timeout: self.statement_timeout,
            poll: self.poll,
            clock: Arc::clone(&self.clock),
            random: self.random.clone(),
        })
    }
}

/// Shows no URL, which may contain a password.
impl fmt::Debug for MysqlStoreBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MysqlStoreBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

fn bounded(time: Duration) -> Duration {
    time.clamp(Duration::from_millis(1), MAX_WAIT)
}
