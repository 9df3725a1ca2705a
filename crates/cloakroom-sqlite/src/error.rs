//! Errors of the store.

use std::path::PathBuf;
use std::sync::Arc;

use cloakroom_core::store::StoreError;
use rusqlite::ErrorCode;

/// The database could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer version of this program wrote the file.
    #[error(
        "the database has schema version {found}, and this program knows up to {known}: use the \
         newer program"
    )]
    Newer {
        /// The version of the file.
        found: usize,
        /// The newest version that this program knows.
        known: usize,
    },
    /// The tables are missing or too old, and this program was told not to migrate.
    #[error(
        "the tables have schema version {found}, and this program needs {needed}: migrate them first"
    )]
    NotMigrated {
        /// The version of the file; 0 if it has no tables.
        found: usize,
        /// The version that this program needs.
        needed: usize,
    },
    /// The file is a database of another program.
    #[error("the file is a database of another program")]
    Foreign,
    /// The file system does not support shared memory between processes, as most network file
    /// systems do not.
    #[error("the database cannot use a write-ahead log (its journal mode is {mode})")]
    NoWal {
        /// The journal mode that SQLite uses instead.
        mode: String,
    },
    /// The file cannot be created or read.
    #[error("the database file {} cannot be used", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The error of the contract for an error of the driver.
pub(crate) fn failed(context: &'static str, error: rusqlite::Error) -> StoreError {
    if is_damage(&error) {
        StoreError::corrupt("a database file", error)
    } else {
        StoreError::unavailable(context, error)
    }
}

fn is_damage(error: &rusqlite::Error) -> bool {
    use rusqlite::Error as E;
    match error {
        E::SqliteFailure(failure, message) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
                || message.as_deref().is_some_and(is_of_schema)
        }
        E::SqlInputError { msg, .. } => is_of_schema(msg),
        // A row that is written with the tables.
        E::QueryReturnedNoRows => true,
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..) => true,
        _ => false,
    }
}

/// Whether a table or a column is missing. It was there when the store was opened.
fn is_of_schema(message: &str) -> bool {
    message.starts_with("no such table") || message.starts_with("no such column")
}

/// Whether another connection holds the lock.
pub(crate) fn is_busy(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else { return false };
    matches!(
        source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// The error of the transaction that several writes shared.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the transaction failed")]
pub(crate) struct GroupFailed(#[source] pub(crate) Arc<StoreError>);

#[cfg(test)]
mod tests {
    use rusqlite::Connection;

    use super::*;

    /// An operator repairs damage, and waits for an outage to end.
    #[test]
    fn only_a_lock_of_another_connection_is_waited_for() {
        let of = |code| rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        for (code, expected) in [
            (rusqlite::ffi::SQLITE_BUSY, true),
            (rusqlite::ffi::SQLITE_LOCKED, true),
            (rusqlite::ffi::SQLITE_IOERR, false),
            (rusqlite::ffi::SQLITE_CORRUPT, false),
        ] {
            assert_eq!(is_busy(&failed("writing", of(code))), expected, "{code}");
        }
        assert!(!is_busy(&StoreError::Misuse("a mistake")));
    }

    #[test]
    fn a_database_without_its_tables_is_damaged() {
        let connection = Connection::open_in_memory().unwrap();
        connection.execute_batch("CREATE TABLE state (a)").unwrap();
        let of = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0));
        for sql in ["SELECT a FROM state", "SELECT b FROM state", "SELECT a FROM nowhere"] {
            let error = failed("reading", of(sql).unwrap_err());
            assert!(matches!(error, StoreError::Corrupt { .. }), "{sql}: {error:?}");
        }
        let error = failed("reading", of("SELEC").unwrap_err());
        assert!(matches!(error, StoreError::Unavailable { .. }), "{error:?}");
    }
}
