//! The server that the environment names, and fresh tables in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_mysql::mysql_async::prelude::Queryable as _;
use cloakroom_mysql::mysql_async::{Conn, Opts, OptsBuilder, Row};
use cloakroom_mysql::{MysqlStore, MysqlStoreBuilder};

use crate::proxy::Proxy;

/// The URL of a database that the tests may fill: `cargo xtask test` makes one.
pub(crate) fn url() -> String {
    let url = std::env::var("CLOAKROOM_TEST_MYSQL_URL").unwrap_or_default();
    assert!(
        !url.is_empty(),
        "CLOAKROOM_TEST_MYSQL_URL names no database: run the tests by `cargo xtask test`, or leave \
         out those that need a server with `--skip with_mysql::`"
    );
    url
}

/// A session of a stranger, who writes SQL by hand.
pub(crate) struct Admin(pub(crate) Conn);

impl Admin {
    pub(crate) async fn connect() -> Self {
        let opts = Opts::from_url(&url().replacen("mariadb://", "mysql://", 1)).unwrap();
        let opts = OptsBuilder::from_opts(opts).prefer_socket(false).client_found_rows(true);
        Self(Conn::new(opts).await.unwrap())
    }

    pub(crate) async fn run(&mut self, sql: impl AsRef<str>) -> u64 {
        self.0.query_drop(sql.as_ref()).await.unwrap_or_else(|e| panic!("{}: {e}", sql.as_ref()));
        self.0.affected_rows()
    }

    pub(crate) async fn rows(&mut self, sql: impl AsRef<str>) -> Vec<Row> {
        self.0.query(sql.as_ref()).await.unwrap_or_else(|e| panic!("{}: {e}", sql.as_ref()))
    }

    /// The one number that a query returns.
    pub(crate) async fn number(&mut self, sql: impl AsRef<str>) -> i64 {
        self.rows(sql).await.remove(0).take(0).unwrap()
    }
}

/// Bytes as a literal.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("X'{digits}'")
}

/// Tables of their own, in the database of all tests.
#[derive(Debug, Clone)]
pub(crate) struct Tables {
    pub(crate) prefix: String,
    proxy: Option<Arc<Proxy>>,
}

impl Tables {
    pub(crate) fn new() -> Self {
        let bytes: [u8; 8] = Random::system().array().unwrap();
        let name = u64::from_le_bytes(bytes);
        Self::named(format!("t{name:016x}_"))
    }

    /// Those with this prefix.
    pub(crate) const fn named(prefix: String) -> Self {
        Self { prefix, proxy: None }
    }

    /// Behind a proxy, which can fail.
    pub(crate) async fn behind_proxy() -> (Self, Arc<Proxy>) {
        let proxy = Arc::new(Proxy::start(&url()).await);
        (Self { proxy: Some(Arc::clone(&proxy)), ..Self::new() }, proxy)
    }

    /// Without a proxy, stores use both nodes of a cluster by turns, if a second one is named.
    pub(crate) fn url(&self) -> String {
        static TURN: AtomicUsize = AtomicUsize::new(0);
        let second = std::env::var("CLOAKROOM_TEST_MYSQL_SECOND_URL");
        let turn = std::process::id() as usize + TURN.fetch_add(1, Ordering::Relaxed);
        match (&self.proxy, second) {
            (Some(proxy), _) => proxy.url(),
            (None, Ok(second)) if turn.is_multiple_of(2) => second,
            (None, _) => url(),
        }
    }

    pub(crate) fn builder(&self) -> MysqlStoreBuilder {
        MysqlStore::builder(&self.url())
            .table_prefix(&self.prefix)
            .connections(4)
            .poll(Duration::from_millis(5))
    }

    /// A store on these tables. The first creates them.
    pub(crate) async fn open(&self) -> MysqlStore {
        self.builder().connect().await.unwrap()
    }

    /// SQL with `~` for the prefix.
    pub(crate) fn sql(&self, template: &str) -> String {
        template.replace('~', &self.prefix)
    }
}

/// A store on fresh tables.
pub(crate) async fn store() -> (Tables, MysqlStore) {
    let tables = Tables::new();
    let store = tables.open().await;
    (tables, store)
}
