//! The settings of a store.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::time::{Clock, SystemClock};

use crate::error::ConnectError;
use crate::store::MysqlStore;
use crate::url::DatabaseUrl;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) url: DatabaseUrl,
    pub(crate) prefix: String,
    pub(crate) connections: usize,
    pub(crate) connect_timeout: Duration,
    pub(crate) statement_timeout: Duration,
    pub(crate) lock_timeout: Duration,
    pub(crate) acquire_timeout: Duration,
    pub(crate) poll: Duration,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
}

/// Settings of a [`MysqlStore`].
///
/// ```no_run
/// use std::time::Duration;
/// use cloakroom_mysql::MysqlStore;
///
/// # async fn connect() -> Result<(), cloakroom_mysql::ConnectError> {
/// let store = MysqlStore::builder("mysql://app:secret@db.example/tokens")?
///     .table_prefix("auth_")
///     .connections(16)
///     .poll(Duration::from_millis(100))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Debug, Clone)]
#[must_use = "call `connect` to connect to the database"]
pub struct MysqlStoreBuilder {
    settings: Settings,
}

/// The longest time of every time-out and interval.
const MAX_TIME: Duration = Duration::from_secs(3600);

/// The longest prefix. Every name of a table must fit into 64 characters.
const MAX_PREFIX: usize = 32;

impl MysqlStoreBuilder {
    pub(crate) fn new(url: &str) -> Result<Self, ConnectError> {
        Ok(Self {
            settings: Settings {
                url: url.parse()?,
                prefix: "cloakroom_".to_owned(),
                connections: 8,
                connect_timeout: Duration::from_secs(5),
                statement_timeout: Duration::from_secs(10),
                lock_timeout: Duration::from_secs(5),
                acquire_timeout: Duration::from_secs(5),
                poll: Duration::from_millis(200),
                clock: Arc::new(SystemClock::new()),
                random: Random::system(),
            },
        })
    }

    /// What the names of the tables begin with (`cloakroom_`): at most 32 ASCII letters, digits and
    /// underscores. Stores with different prefixes can share a database, and share nothing else.
    pub fn table_prefix(mut self, prefix: impl Into<String>) -> Self {
        self.settings.prefix = prefix.into();
        self
    }

    /// The most connections for requests (8; at least 1). Two more serve the revocation log alone, so that a
    /// flood of requests cannot delay a revocation or a heartbeat.
    pub fn connections(mut self, connections: usize) -> Self {
        self.settings.connections = connections.clamp(1, 1024);
        self
    }

    /// How long to wait for a new connection, with TLS and sign-in (5 s).
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.settings.connect_timeout = bounded(timeout);
        self
    }

    /// How long to wait for the answer to one statement (10 s). A connection whose answer does not come is
    /// closed. MariaDB also stops the statement then (`max_statement_time`), and MySQL stops a `SELECT`.
    pub fn statement_timeout(mut self, timeout: Duration) -> Self {
        self.settings.statement_timeout = bounded(timeout);
        self
    }

    /// How long a statement waits for a row that another transaction has locked (5 s, in whole seconds, at
    /// least 1 s: `innodb_lock_wait_timeout`).
    pub fn lock_timeout(mut self, timeout: Duration) -> Self {
        self.settings.lock_timeout = bounded(timeout);
        self
    }

    /// How long a call waits for a free connection (5 s).
    pub fn acquire_timeout(mut self, timeout: Duration) -> Self {
        self.settings.acquire_timeout = bounded(timeout);
        self
    }

    /// How often to check whether other nodes wrote to the revocation log (200 ms; at least 1 ms). Writes of
    /// this process are known at once.
    pub fn poll(mut self, interval: Duration) -> Self {
        self.settings.poll = bounded(interval);
        self
    }

    /// The clock for the times that the contract leaves to the store: the first bound of the log, and how
    /// long a `create` takes. The default is the system clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.settings.clock = clock;
        self
    }

    /// Connects; see [`MysqlStore::connect`].
    ///
    /// # Errors
    ///
    /// If the server cannot be reached, is read-only or too old, or if a newer version of this crate
    /// migrated the tables.
    pub async fn connect(self) -> Result<MysqlStore, ConnectError> {
        let prefix = &self.settings.prefix;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        if prefix.len() > MAX_PREFIX || !prefix.bytes().all(is_name) {
            return Err(ConnectError::Prefix(prefix.clone()));
        }
        MysqlStore::open(self.settings).await
    }
}

fn bounded(time: Duration) -> Duration {
    time.clamp(Duration::from_millis(1), MAX_TIME)
}
