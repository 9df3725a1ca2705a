//! The tables, and their migrations.

use std::sync::Arc;

use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::Migration;
use tokio_postgres::types::Type;
use tokio_postgres::{Client, SimpleQueryMessage};

use crate::error::{ConnectError, Failed, failed};
use crate::rows::column;
use crate::session::Session;
use crate::settings::Settings;
use crate::sql::{Names, Sql};

/// The schema as this program knows it.
#[derive(Debug, Clone, Copy)]
struct Known {
    /// The statements of each version, from 1 on. A file may only add tables, columns with a default, and
    /// indexes: nodes of the version before work on the tables at the same time.
    migrations: &'static [&'static str],
    /// The oldest version with which this program works.
    oldest: u32,
}

const KNOWN: Known =
    Known { migrations: &[include_str!("../migrations/0001_tables.sql")], oldest: 1 };

impl Known {
    fn newest(self) -> u32 {
        u32::try_from(self.migrations.len()).unwrap_or(u32::MAX)
    }
}

/// Checks the tables, or creates and migrates them. Returns their version.
pub(crate) async fn open(settings: &Arc<Settings>, migrates: bool) -> Result<u32, ConnectError> {
    open_as(settings, migrates, KNOWN).await
}

async fn open_as(
    settings: &Arc<Settings>,
    migrates: bool,
    known: Known,
) -> Result<u32, ConnectError> {
    let session = match Session::connect(Arc::clone(settings), None).await {
        Ok(session) => session,
        Err(error) if error.is_standby() => return Err(ConnectError::ReadOnly),
        Err(error) => return Err(failed("connecting to the server", error).into()),
    };
    let during = |error: Failed| match error.is_read_only() {
        true => ConnectError::ReadOnly,
        false => failed("preparing the tables", error).into(),
    };
    // What each statement survives is argued for this level.
    let level = first(session.client(), "SHOW transaction_isolation").await.map_err(during)?;
    match level {
        Some(level) if level != "read committed" => {
            return Err(ConnectError::Isolation { found: level });
        }
        _ => {}
    }
    let mut found = version(session.client(), &settings.names).await.map_err(during)?;
    if migrates && found < known.newest() {
        found = migrate(session.client(), &settings.names, known).await.map_err(during)?;
    }
    if found > known.newest() {
        return Err(ConnectError::Newer { found, known: known.newest() });
    }
    if found < known.oldest {
        return Err(ConnectError::NotMigrated { found, needed: known.oldest });
    }
    raise_bound(&session, settings).await.map_err(during)?;
    Ok(found)
}

/// The migrations that the tables still need, with the real names in them. This changes nothing.
pub(crate) async fn pending(settings: &Arc<Settings>) -> Result<Vec<Migration>, ConnectError> {
    let session = Session::connect(Arc::clone(settings), None)
        .await
        .map_err(|error| failed("connecting to the server", error))?;
    let found = version(session.client(), &settings.names)
        .await
        .map_err(|error| failed("reading the version of the tables", error))?;
    if found > KNOWN.newest() {
        return Err(ConnectError::Newer { found, known: KNOWN.newest() });
    }
    let missing = (1..).zip(KNOWN.migrations).skip(found as usize);
    let render = |sql| settings.names.render(sql);
    Ok(missing.map(|(version, sql)| Migration::new(version, render(sql))).collect())
}

/// The names of the indexes, without the prefix.
pub(crate) fn indexes() -> impl Iterator<Item = &'static str> {
    let statements = KNOWN.migrations.iter().flat_map(|file| file.split("CREATE INDEX ").skip(1));
    statements.filter_map(|statement| statement.split_whitespace().next())
}

/// The version of the tables; 0 if there are none.
async fn version(client: &Client, names: &Names) -> Result<u32, Failed> {
    let table = names.render("cloakroom.version");
    // Read from the catalog with a snapshot. `to_regclass` would ask a cache, which is not up to date in the
    // middle of a transaction.
    let exists = format!(
        "SELECT 1 FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE n.nspname = '{}' AND c.relname = '{}version'",
        names.schema(),
        names.prefix()
    );
    if first(client, &exists).await?.is_none() {
        return Ok(0);
    }
    let version = first(client, &format!("SELECT max(version) FROM {table}")).await?;
    Ok(version.and_then(|version| version.parse().ok()).unwrap_or(0))
}

/// The first column of the first row.
pub(crate) async fn first(client: &Client, sql: &str) -> Result<Option<String>, Failed> {
    let messages = client.simple_query(sql).await?;
    Ok(messages.into_iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(ToOwned::to_owned),
        _ => None,
    }))
}

/// Brings the tables to the newest version, in one transaction. Of several nodes, the one that gets the lock
/// first does it, and the others find it done.
async fn migrate(client: &Client, names: &Names, known: Known) -> Result<u32, Failed> {
    let (schema, channel) = (names.schema(), names.channel());
    // The lock ends with the transaction, also behind a pooler.
    let begin = format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0; \
         SELECT pg_advisory_xact_lock(1668050785, hashtext('{channel}'))"
    );
    client.batch_execute(&begin).await?;
    let found = version(client, names).await?;
    let exists = format!("SELECT 1 FROM pg_namespace WHERE nspname = '{schema}'");
    // A user who may not create schemas can use one that exists.
    if first(client, &exists).await?.is_none() {
        client.batch_execute(&format!("CREATE SCHEMA \"{schema}\"")).await?;
    }
    for migration in known.migrations.iter().skip(found as usize) {
        client.batch_execute(&names.render(migration)).await?;
    }
    client.batch_execute("COMMIT").await?;
    version(client, names).await
}

/// Raises the newest bound, so that it is newer than every bound that was allotted before: by an earlier
/// store, or before a failover or a restore. Replicas know those bounds, and would refuse new grants
/// otherwise.
///
/// READ COMMITTED: if an append is under way, this waits for its row, and compares again.
static RAISE_BOUND: Sql = Sql::new(
    "UPDATE cloakroom.log_state SET newest_bound = $1 WHERE newest_bound < $1",
    &[Type::INT8],
);

async fn raise_bound(session: &Session, settings: &Settings) -> Result<(), Failed> {
    let now = column(Epoch::new(settings.clock.now().as_millis()).get());
    session.query(&RAISE_BOUND, 0, &[&now]).await.map(drop)
}

/// For a look at their plans.
#[cfg(test)]
pub(crate) const STATEMENTS: &[(&str, &Sql)] = &[("RAISE_BOUND", &RAISE_BOUND)];

/// Two versions of the program over one database, as when nodes are updated one by one.
#[cfg(test)]
mod with_postgres {
    use cloakroom_core::Random;
    use cloakroom_core::store::{TokenStore as _, TokenStoreExt as _};

    use super::*;
    use crate::PostgresStore;

    /// The version after this one. It works with the tables of this version.
    const NEXT: Known = Known {
        migrations: &[
            KNOWN.migrations[0],
            "ALTER TABLE cloakroom.grants ADD COLUMN colour bytea; \
             CREATE INDEX grants_by_colour ON cloakroom.grants (colour); \
             UPDATE cloakroom.version SET version = 2;",
        ],
        oldest: 1,
    };

    /// A version that needs what the next one added.
    const LATER: Known = Known { oldest: 2, ..NEXT };

    fn settings() -> Arc<Settings> {
        let random: [u8; 8] = Random::system().array().unwrap();
        let schema = random.iter().fold("t_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        let url = std::env::var("CLOAKROOM_TEST_POSTGRES_URL").unwrap();
        let builder = PostgresStore::builder(&url).schema(&schema);
        Arc::new(builder.settings().unwrap())
    }

    #[tokio::test]
    async fn nodes_of_two_versions_work_side_by_side() {
        let settings = settings();
        assert_eq!(open(&settings, true).await.unwrap(), 1);
        let old = PostgresStore::start(Arc::clone(&settings), 1, 1);
        assert!(old.epoch().await.is_ok());
        // The new program starts on the old tables, and does not migrate them until it is told to.
        assert_eq!(open_as(&settings, false, NEXT).await.unwrap(), 1);
        let new = PostgresStore::start(Arc::clone(&settings), 1, 1);
        assert!(new.epoch().await.is_ok());
        assert!(matches!(
            open_as(&settings, false, LATER).await.unwrap_err(),
            ConnectError::NotMigrated { found: 1, needed: 2 }
        ));
        assert_eq!(open_as(&settings, true, NEXT).await.unwrap(), 2);
        assert_eq!(open_as(&settings, false, LATER).await.unwrap(), 2);
        // Nodes that run go on, and the old program does not start again.
        for store in [&old, &new] {
            let now = settings.clock.now();
            store.heartbeat(now, now).await.unwrap();
        }
        for migrates in [true, false] {
            assert!(matches!(
                open(&settings, migrates).await.unwrap_err(),
                ConnectError::Newer { found: 2, known: 1 }
            ));
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn many_nodes_migrate_what_is_there() {
        let settings = settings();
        open(&settings, true).await.unwrap();
        let nodes: Vec<_> = (0..8)
            .map(|_| {
                let settings = Arc::clone(&settings);
                tokio::spawn(async move { open_as(&settings, true, NEXT).await.unwrap() })
            })
            .collect();
        for node in nodes {
            assert_eq!(node.await.unwrap(), 2);
        }
    }

    /// A migration that fails leaves the tables as they were.
    #[tokio::test]
    async fn a_migration_that_fails_is_undone() {
        const BROKEN: Known = Known {
            migrations: &[
                KNOWN.migrations[0],
                "CREATE TABLE cloakroom.half (id bytea); SELECT * FROM cloakroom.nothing;",
            ],
            oldest: 1,
        };
        let settings = settings();
        assert!(open_as(&settings, true, BROKEN).await.is_err());
        assert!(matches!(
            open(&settings, false).await.unwrap_err(),
            ConnectError::NotMigrated { found: 0, needed: 1 }
        ));
        assert_eq!(open(&settings, true).await.unwrap(), 1);
        assert!(open_as(&settings, true, BROKEN).await.is_err());
        assert_eq!(open(&settings, false).await.unwrap(), 1);
    }
}
