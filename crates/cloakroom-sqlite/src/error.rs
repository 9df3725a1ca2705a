//! What can go wrong, in the contract's words.

use std::path::PathBuf;
use std::sync::Arc;

use cloakroom_core::store::StoreError;
use rusqlite::ErrorCode;

/// A database could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// A newer version of this program wrote it.
    #[error(
        "the database has schema version {found}, and this program knows up to {known}: use the \
         newer program"
    )]
    Newer {
        /// The version found.
        found: usize,
        /// The newest version known.
        known: usize,
    },
    /// It holds tables of something else.
    #[error("the file is a database of another program")]
    Foreign,
    /// Its file system cannot share memory between processes, as a network's cannot.
    #[error("the database cannot use a write-ahead log (its journal mode is {mode})")]
    NoWal {
        /// The journal mode it stays in.
        mode: String,
    },
    /// The file cannot be made or read.
    #[error("the database file {} cannot be used", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// SQLite failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Says in the contract's words what failed.
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
        E::SqliteFailure(failure, _) => {
            matches!(failure.code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
        }
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..) => true,
        _ => false,
    }
}

/// Whether somebody else holds the lock that is needed.
pub(crate) fn is_busy(error: &StoreError) -> bool {
    let StoreError::Unavailable { source, .. } = error else { return false };
    matches!(
        source.downcast_ref::<rusqlite::Error>().and_then(rusqlite::Error::sqlite_error_code),
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked)
    )
}

/// What befell the transaction that several writes shared.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the transaction failed")]
pub(crate) struct GroupFailed(#[source] pub(crate) Arc<StoreError>);
