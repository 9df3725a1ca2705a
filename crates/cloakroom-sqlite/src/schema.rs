//! The tables, and their migrations.

use std::thread;
use std::time::{Duration, Instant};

use cloakroom_core::Random;
use cloakroom_core::revocation::{EntryId, Epoch};
use cloakroom_core::store::{Migration, StoreError};
use cloakroom_core::time::{Clock, UnixTime};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, TransactionBehavior};

use crate::error::{OpenError, failed, is_busy};

/// Marks a file as ours (`PRAGMA application_id`): "cloa".
const APPLICATION_ID: i32 = 0x636c_6f61;

/// The statements of each version. The version of the schema (`PRAGMA user_version`) counts them.
///
/// Identifiers are blobs, so that SQLite compares them byte by byte. Times are milliseconds.
const MIGRATIONS: &[&str] = &[
    "
    CREATE TABLE grants (
        id               BLOB PRIMARY KEY NOT NULL,
        client           BLOB NOT NULL,
        subject          BLOB NOT NULL,
        epoch            INTEGER NOT NULL,
        generation       INTEGER,
        digest           BLOB,
        chain_expires_at INTEGER,
        expires_at       INTEGER NOT NULL,
        row_expires_at   INTEGER NOT NULL,
        revoked_at       INTEGER,
        body             BLOB NOT NULL
    ) STRICT;
    -- For lists and sweeps, both of which pass over what is revoked.
    CREATE INDEX grants_of_subject ON grants (subject, id) WHERE revoked_at IS NULL;
    CREATE INDEX grants_of_client ON grants (client, id) WHERE revoked_at IS NULL;
    CREATE INDEX grants_by_end ON grants (row_expires_at);

    CREATE TABLE tokens (
        grant_id   BLOB NOT NULL,
        digest     BLOB NOT NULL,
        issued_at  INTEGER NOT NULL,
        expires_at INTEGER NOT NULL,
        revoked_at INTEGER,
        body       BLOB NOT NULL,
        PRIMARY KEY (grant_id, digest)
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tokens_by_end ON tokens (expires_at);

    -- Grants that were revoked before they were seen.
    CREATE TABLE tombstones (
        grant_id BLOB PRIMARY KEY NOT NULL,
        until    INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX tombstones_by_end ON tombstones (until);

    CREATE TABLE rules (
        key   BLOB PRIMARY KEY NOT NULL,
        bound INTEGER,
        until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX rules_by_end ON rules (until);

    CREATE TABLE log (
        position INTEGER PRIMARY KEY AUTOINCREMENT,
        id       BLOB NOT NULL,
        until    INTEGER NOT NULL,
        body     BLOB NOT NULL
    ) STRICT;
    CREATE INDEX log_by_end ON log (until);

    -- Revocations whose grants are not all flagged yet: `after` is the last grant looked at.
    CREATE TABLE sweeps (
        position INTEGER PRIMARY KEY,
        key      BLOB NOT NULL,
        bound    INTEGER NOT NULL,
        at       INTEGER NOT NULL,
        after    BLOB NOT NULL
    ) STRICT;

    CREATE TABLE signing_keys (
        generation INTEGER PRIMARY KEY,
        version    INTEGER NOT NULL,
        body       BLOB NOT NULL
    ) STRICT;

    -- One row.
    CREATE TABLE state (
        incarnation        BLOB NOT NULL,
        newest_bound       INTEGER NOT NULL,
        highest_generation INTEGER NOT NULL
    ) STRICT;
",
    "
    -- What the database remembers of the issuer and the secrets that it belongs to.
    CREATE TABLE check_values (
        name  BLOB PRIMARY KEY NOT NULL,
        value BLOB NOT NULL
    ) STRICT, WITHOUT ROWID;
",
    "
    -- Items that are good once, and were used.
    CREATE TABLE single_use (
        id    BLOB PRIMARY KEY NOT NULL,
        until INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX single_use_by_end ON single_use (until);

    -- One row: the latest end of all items that were deleted.
    CREATE TABLE single_use_forgotten (
        id    INTEGER PRIMARY KEY CHECK (id = 0),
        until INTEGER NOT NULL
    ) STRICT;
    INSERT INTO single_use_forgotten VALUES (0, 0);
",
];

/// The durability of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Synchronous {
    /// A commit is on disk before it is acknowledged. It survives a power cut.
    #[default]
    Full,
    /// A commit survives the end of the process. The last commits may be lost in a crash of the
    /// operating system or a power cut, and tokens that they revoked are then live again. This is
    /// faster.
    Normal,
}

/// Configures a new connection.
pub(crate) fn configure(
    connection: &Connection,
    synchronous: Synchronous,
    busy: Duration,
) -> rusqlite::Result<()> {
    connection.busy_timeout(busy)?;
    connection.set_prepared_statement_cache_capacity(64);
    // The same plan serves all values. Otherwise cached statements, whose values are cleared, would be
    // planned again each time, and a lookup would take several times as long.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    connection.pragma_update(None, "cell_size_check", true)?;
    // 16 MB: grants change often, and a page that changes ten times is then copied back once.
    connection.pragma_update(None, "wal_autocheckpoint", 4000)?;
    let level = match synchronous {
        Synchronous::Full => "FULL",
        Synchronous::Normal => "NORMAL",
    };
    connection.pragma_update(None, "synchronous", level)
}

/// Changes the file to the write-ahead log, and returns the mode that it has then.
///
/// While another process changes the same file, SQLite fails at once instead of waiting: each of the two has
/// begun to read, and neither could wait for the other. So this waits in its place, for as long as SQLite would.
fn write_ahead(connection: &Connection) -> Result<String, StoreError> {
    const PAUSE: Duration = Duration::from_millis(5);
    let patience: u32 =
        connection.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).map_err(preparing)?;
    let (start, patience) = (Instant::now(), Duration::from_millis(patience.into()));
    connection.busy_timeout(Duration::ZERO).map_err(preparing)?;
    let changed = loop {
        let changed = connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0));
        match changed.map_err(preparing) {
            Err(error) if is_busy(&error) && start.elapsed() < patience => thread::sleep(PAUSE),
            changed => break changed,
        }
    };
    connection.busy_timeout(patience).map_err(preparing)?;
    changed
}

fn preparing(error: rusqlite::Error) -> StoreError {
    failed("preparing the database", error)
}

/// Creates or updates the schema. Any number of processes may do so at once.
pub(crate) fn migrate(
    connection: &mut Connection,
    clock: &dyn Clock,
    random: &Random,
) -> Result<(), OpenError> {
    let mode = write_ahead(connection)?;
    if mode != "wal" {
        return Err(OpenError::NoWal { mode });
    }
    // The process that gets the lock first creates the schema, and the others find it.
    let transaction =
        connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(preparing)?;
    let found = version(&transaction)?;
    let known = MIGRATIONS.len();
    if found > known {
        return Err(OpenError::Newer { found, known });
    }
    for migration in &MIGRATIONS[found..] {
        transaction.execute_batch(migration).map_err(preparing)?;
    }
    if found == 0 {
        let incarnation = EntryId::random(random)
            .map_err(|error| StoreError::unavailable("generating the log's incarnation", error))?;
        transaction
            .execute("INSERT INTO state VALUES (?1, 0, 0)", [incarnation.as_bytes()])
            .map_err(preparing)?;
        transaction.pragma_update(None, "application_id", APPLICATION_ID).map_err(preparing)?;
    }
    raise_bound(&transaction, clock.now())?;
    if found < known {
        let version = i64::try_from(known).unwrap_or(i64::MAX);
        transaction.pragma_update(None, "user_version", version).map_err(preparing)?;
    }
    transaction.commit().map_err(preparing)?;
    Ok(())
}

/// Raises the newest bound, so that it is newer than every bound that was allotted before: by an earlier
/// store, or by this store before it was restored from a copy. Replicas know those bounds, and would
/// refuse new grants otherwise.
pub(crate) fn raise_bound(connection: &Connection, now: UnixTime) -> Result<(), StoreError> {
    let now = Epoch::new(now.as_millis()).get().cast_signed();
    connection
        .prepare_cached("UPDATE state SET newest_bound = max(newest_bound, ?1)")
        .and_then(|mut sql| sql.execute([now]))
        .map_err(|error| failed("raising the newest bound", error))?;
    Ok(())
}

/// Checks that the file is ours and needs no migration, without changing its tables.
pub(crate) fn open_migrated(connection: &Connection, clock: &dyn Clock) -> Result<(), OpenError> {
    let (found, needed) = (version(connection)?, MIGRATIONS.len());
    if found < needed {
        return Err(OpenError::NotMigrated { found, needed });
    }
    check(connection)?;
    Ok(raise_bound(connection, clock.now())?)
}

/// The migrations that this database needs; all of them if it is empty.
pub(crate) fn pending(connection: Option<&Connection>) -> Result<Vec<Migration>, OpenError> {
    let found = connection.map_or(Ok(0), version)?;
    if found > MIGRATIONS.len() {
        return Err(OpenError::Newer { found, known: MIGRATIONS.len() });
    }
    let missing = (1..).zip(MIGRATIONS).skip(found);
    Ok(missing.map(|(version, sql)| Migration::new(version, *sql)).collect())
}

/// The version of the tables of an open store.
pub(crate) fn version_of(connection: &Connection) -> Result<usize, StoreError> {
    version(connection).map_err(|error| match error {
        OpenError::Store(error) => error,
        error => StoreError::corrupt("the version of the tables", error),
    })
}

/// The names of the indexes.
pub(crate) fn indexes() -> impl Iterator<Item = &'static str> {
    let statements =
        MIGRATIONS.iter().flat_map(|migration| migration.split("CREATE INDEX ").skip(1));
    statements.filter_map(|statement| statement.split_whitespace().next())
}

/// The version of the schema; 0 in an empty database.
fn version(connection: &Connection) -> Result<usize, OpenError> {
    let during = |error| failed("reading the schema's version", error);
    let number = |pragma: &str| -> Result<i64, StoreError> {
        connection.query_row(&format!("PRAGMA {pragma}"), [], |row| row.get(0)).map_err(during)
    };
    let (application, version) = (number("application_id")?, number("user_version")?);
    if application == i64::from(APPLICATION_ID) {
        return Ok(usize::try_from(version).unwrap_or(usize::MAX));
    }
    let tables: i64 = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
        .map_err(during)?;
    if application != 0 || version != 0 || tables != 0 {
        return Err(OpenError::Foreign);
    }
    Ok(0)
}

/// Checks that the file is ours and has a version that this program knows.
pub(crate) fn check(connection: &Connection) -> Result<(), OpenError> {
    match version(connection)? {
        0 => Err(OpenError::Foreign),
        found if found > MIGRATIONS.len() => {
            Err(OpenError::Newer { found, known: MIGRATIONS.len() })
        }
        _ => Ok(()),
    }
}
