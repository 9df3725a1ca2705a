//! The stores that everything is tried with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom::core::keys::KeyStore;
use cloakroom::core::store::TokenStore;
use cloakroom::core::time::Clock;
use cloakroom::memory::MemoryStore;
use cloakroom::mysql::MysqlStore;
use cloakroom::postgres::PostgresStore;
use cloakroom::redis::RedisStore;
use cloakroom::sqlite::{SqliteStore, Synchronous};
use tempfile::TempDir;

/// A store, and what lies behind it. Another store needs another implementation, and one more line
/// in the list of [`each_store`].
#[async_trait]
pub(crate) trait Fixture: fmt::Debug + Send + Sync + 'static {
    /// What a process opens that starts: the authorization server at each of its starts, and
    /// whoever reads the log from the store. All of them see the same tokens.
    async fn open(&self) -> Opened;

    /// Where another process finds it, for [`open_place`]. `None` if it is in this process alone.
    fn place(&self) -> Option<String> {
        None
    }
}

/// Opens the store of a [`Fixture`] of another process.
pub(crate) async fn open_place(place: &str, clock: Arc<dyn Clock>) -> Opened {
    let (kind, name) = place.split_once(' ').unwrap();
    // Many processes share the server.
    let server = |kind| Server { kind, name: name.into(), few: true, clock: Arc::clone(&clock) };
    match kind {
        "Mysql" => server(Kind::Mysql).open().await,
        "Postgres" => server(Kind::Postgres).open().await,
        "Redis" => server(Kind::Redis).open().await,
        _ => open_sqlite(Path::new(name), clock),
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) tokens: Arc<dyn TokenStore>,
    pub(crate) keys: Arc<dyn KeyStore>,
}

impl Opened {
    fn of<S: TokenStore + KeyStore>(store: Arc<S>) -> Self {
        Self { tokens: store.clone(), keys: store }
    }
}

/// A store in memory outlives the servers that use it.
#[derive(Debug)]
pub(crate) struct Memory(Arc<MemoryStore>);

impl Memory {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(MemoryStore::with_clock(clock)))
    }
}

#[async_trait]
impl Fixture for Memory {
    async fn open(&self) -> Opened {
        Opened::of(Arc::clone(&self.0))
    }
}

/// A file, which every process opens for itself.
#[derive(Debug)]
pub(crate) struct Sqlite {
    folder: TempDir,
    clock: Arc<dyn Clock>,
}

impl Sqlite {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { folder: tempfile::tempdir().unwrap(), clock }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("tokens.db")
    }
}

#[async_trait]
impl Fixture for Sqlite {
    async fn open(&self) -> Opened {
        open_sqlite(&self.path(), Arc::clone(&self.clock))
    }

    fn place(&self) -> Option<String> {
        Some(format!("Sqlite {}", self.path().display()))
    }
}

fn open_sqlite(path: &Path, clock: Arc<dyn Clock>) -> Opened {
    // No machine loses its power here.
    let store = SqliteStore::builder(path).clock(clock).synchronous(Synchronous::Normal);
    Opened::of(Arc::new(store.open().unwrap()))
}

/// A database on a server, to which every process connects by itself.
#[derive(Debug)]
pub(crate) struct Server {
    kind: Kind,
    /// Keeps the tests apart.
    name: String,
    /// Whether to open as few connections as possible.
    few: bool,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Mysql,
    Postgres,
    Redis,
}

impl Server {
    pub(crate) fn new(kind: Kind, clock: Arc<dyn Clock>) -> Self {
        let random: [u8; 8] = cloakroom::core::Random::system().array().unwrap();
        Self::of_name(kind, format!("t{:016x}_", u64::from_le_bytes(random)), clock)
    }

    /// The database of this name, which several processes share.
    pub(crate) const fn of_name(kind: Kind, name: String, clock: Arc<dyn Clock>) -> Self {
        Self { kind, name, few: false, clock }
    }
}

#[async_trait]
impl Fixture for Server {
    async fn open(&self) -> Opened {
        let Self { kind, name, few, clock } = self;
        let variable = format!("CLOAKROOM_TEST_{}_URL", format!("{kind:?}").to_uppercase());
        let url = std::env::var(&variable).unwrap_or_else(|_| {
            panic!("{variable} is not set: `cargo xtask test` starts a server")
        });
        let clock = Arc::clone(clock);
        match kind {
            Kind::Mysql => {
                let store = MysqlStore::builder(&url).table_prefix(name).clock(clock);
                let store = if *few { store.connections(1) } else { store };
                Opened::of(Arc::new(store.connect().await.unwrap()))
            }
            Kind::Postgres => {
                let store = PostgresStore::builder(&url).schema(name).clock(clock);
                let store = if *few { store.connections(1, 1) } else { store };
                Opened::of(Arc::new(store.connect().await.unwrap()))
            }
            Kind::Redis => {
                let store = RedisStore::builder(&url).prefix(name).clock(clock).connect();
                Opened::of(Arc::new(store.await.unwrap()))
            }
        }
    }

    fn place(&self) -> Option<String> {
        Some(format!("{:?} {}", self.kind, self.name))
    }
}

/// Tries a test with each store: `each_store!(name_of_the_function);` makes a module of that name.
macro_rules! each_store {
    ($test:ident) => {
        mod $test {
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_memory() {
                super::$test(|clock| std::sync::Arc::new($crate::fixture::Memory::new(clock)))
                    .await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn in_sqlite() {
                super::$test(|clock| std::sync::Arc::new($crate::fixture::Sqlite::new(clock)))
                    .await;
            }

            mod with_mysql {
                use $crate::fixture::{Kind, Server};

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn in_mysql() {
                    let server = |clock| std::sync::Arc::new(Server::new(Kind::Mysql, clock));
                    super::super::$test(server).await;
                }
            }

            mod with_postgres {
                use $crate::fixture::{Kind, Server};

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn in_postgres() {
                    let server = |clock| std::sync::Arc::new(Server::new(Kind::Postgres, clock));
                    super::super::$test(server).await;
                }
            }

            mod with_redis {
                use $crate::fixture::{Kind, Server};

                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn in_redis() {
                    let server = |clock| std::sync::Arc::new(Server::new(Kind::Redis, clock));
                    super::super::$test(server).await;
                }
            }
        }
    };
}
pub(crate) use each_store;
