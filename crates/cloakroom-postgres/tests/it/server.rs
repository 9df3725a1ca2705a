//! The server that the tests use, and schemas of their own in it.

use cloakroom_core::Random;
use cloakroom_postgres::tokio_postgres::types::ToSql;
use cloakroom_postgres::tokio_postgres::{Client, Config, NoTls, Row};
use cloakroom_postgres::{PostgresStore, PostgresStoreBuilder};

/// The URL of the database that the tests may use.
pub(crate) fn url() -> String {
    std::env::var("CLOAKROOM_TEST_POSTGRES_URL")
        .expect("CLOAKROOM_TEST_POSTGRES_URL names a database; `cargo xtask test` starts one")
}

/// Nobody else's schema.
pub(crate) fn schema() -> String {
    let random: [u8; 8] = Random::system().array().unwrap();
    random.iter().fold("t_".to_owned(), |name, byte| format!("{name}{byte:02x}"))
}

/// A store in a new schema.
pub(crate) fn builder() -> PostgresStoreBuilder {
    PostgresStore::builder(&url()).schema(schema())
}

/// A connection of somebody else.
pub(crate) async fn stranger() -> Stranger {
    let config: Config = without_sslmode(&url()).parse().unwrap();
    connect(&config).await
}

/// The driver knows fewer modes than the store.
pub(crate) fn without_sslmode(url: &str) -> String {
    url.split_once('?').map_or(url, |(base, _)| base).to_owned()
}

pub(crate) async fn connect(config: &Config) -> Stranger {
    let (client, connection) = config.connect(NoTls).await.unwrap();
    tokio::spawn(connection);
    Stranger(client)
}

pub(crate) struct Stranger(pub(crate) Client);

impl Stranger {
    pub(crate) async fn run(&self, sql: &str) {
        self.0.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub(crate) async fn query(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.0.query(sql, params).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"))
    }

    /// The number in the only row.
    pub(crate) async fn number(&self, sql: &str) -> i64 {
        self.query(sql, &[]).await[0].get(0)
    }
}

/// The URL of another database of the server.
pub(crate) fn database_url(database: &str) -> String {
    let (server, rest) = url().rsplit_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).unwrap();
    match rest.split_once('?') {
        Some((_, options)) => format!("{server}/{database}?{options}"),
        None => format!("{server}/{database}"),
    }
}
