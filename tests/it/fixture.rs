//! The stores that everything is tried with.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom::core::keys::KeyStore;
use cloakroom::core::store::TokenStore;
use cloakroom::core::time::Clock;
use cloakroom::memory::MemoryStore;
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
}

#[async_trait]
impl Fixture for Sqlite {
    async fn open(&self) -> Opened {
        let store = SqliteStore::builder(self.folder.path().join("tokens.db"))
            .clock(Arc::clone(&self.clock))
            // No machine loses its power here.
            .synchronous(Synchronous::Normal);
        Opened::of(Arc::new(store.open().unwrap()))
    }
}

/// A schema of a database, to which every process connects by itself.
#[derive(Debug)]
pub(crate) struct Postgres {
    schema: String,
    clock: Arc<dyn Clock>,
}

impl Postgres {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let random: [u8; 8] = cloakroom::core::Random::system().array().unwrap();
        let schema = random.iter().fold("t_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        Self { schema, clock }
    }
}

#[async_trait]
impl Fixture for Postgres {
    async fn open(&self) -> Opened {
        let url = std::env::var("CLOAKROOM_TEST_POSTGRES_URL")
            .expect("CLOAKROOM_TEST_POSTGRES_URL names a database; `cargo xtask test` starts one");
        let store = PostgresStore::builder(&url)
            .schema(&self.schema)
            .clock(Arc::clone(&self.clock))
            .connect();
        Opened::of(Arc::new(store.await.unwrap()))
    }
}

/// The keys below a prefix, to which every process connects by itself.
#[derive(Debug)]
pub(crate) struct Redis {
    prefix: String,
    clock: Arc<dyn Clock>,
}

impl Redis {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        let random: [u8; 8] = cloakroom::core::Random::system().array().unwrap();
        let prefix = random.iter().fold("t".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        Self { prefix, clock }
    }
}

#[async_trait]
impl Fixture for Redis {
    async fn open(&self) -> Opened {
        let url = std::env::var("CLOAKROOM_TEST_REDIS_URL")
            .expect("CLOAKROOM_TEST_REDIS_URL names a server; `cargo xtask test` starts one");
        let store =
            RedisStore::builder(&url).prefix(&self.prefix).clock(Arc::clone(&self.clock)).connect();
        Opened::of(Arc::new(store.await.unwrap()))
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

            mod with_postgres {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn in_postgres() {
                    use $crate::fixture::Postgres;
                    super::super::$test(|clock| std::sync::Arc::new(Postgres::new(clock))).await;
                }
            }

            mod with_redis {
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn in_redis() {
                    use $crate::fixture::Redis;
                    super::super::$test(|clock| std::sync::Arc::new(Redis::new(clock))).await;
                }
            }
        }
    };
}
pub(crate) use each_store;
