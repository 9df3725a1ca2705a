//! Errors of the store, and what the errors of the server mean.

use std::time::Duration;

use cloakroom_core::store::StoreError;
use mysql_async::Error;

/// The database cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The URL is not a MySQL URL, or has a parameter that this store does not support.
    #[error("the database URL is invalid: {why}")]
    Url {
        /// What is wrong. It does not contain the password.
        why: String,
    },
    /// The table prefix is not a valid name.
    #[error(
        "`{name}` cannot be used in the names of tables: use at most 32 letters, digits and \
         underscores"
    )]
    Name {
        /// The name.
        name: String,
    },
    /// The server does not accept writes: it is a replica, or set to read-only.
    #[error("the server does not accept writes: it is a replica, or set to read only")]
    ReadOnly,
    /// The app's pool does not set `client_found_rows`.
    #[error(
        "the pool reports changed rows, and the store needs to know the matched ones: set \
         `client_found_rows(true)` in its options"
    )]
    ChangedRows,
    /// The app's pool has too few connections for the store.
    #[error(
        "the pool has at most {max} connections, and the store uses {needed}: give it more, and some for \
         the app, or set `connections`"
    )]
    PoolTooSmall {
        /// The size of the pool.
        max: usize,
        /// How many connections the store uses.
        needed: usize,
    },
    /// The server is too old.
    #[error("the server has version {found}: MySQL 8.0 or MariaDB 10.11 is needed")]
    TooOld {
        /// The version of the server.
        found: String,
    },
    /// A newer version of this program made the tables.
    #[error(
        "the tables have schema version {found}, and this program knows up to {known}: use the newer \
         program"
    )]
    Newer {
        /// The version of the tables.
        found: u32,
        /// The newest version that this program knows.
        known: u32,
    },
    /// The tables are missing or too old, and this program was told not to migrate.
    #[error(
        "the tables have schema version {found}, and this program needs at least {needed}: migrate \
         them first"
    )]
    NotMigrated {
        /// The version of the tables; 0 if there are none.
        found: u32,
        /// The oldest version with which this program works.
        needed: u32,
    },
    /// The server could not be reached, or refused the connection.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why an operation failed.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The driver or the server failed.
    Driver(Error),
    /// Another node of a cluster took the same key first. Its transaction was applied here while this one, which
    /// the node was about to give up, waited for the key.
    Overtaken(Error),
    /// There was no answer in time.
    Timeout(Duration),
    /// All connections stayed in use.
    Exhausted(Duration),
    /// The server of a new connection cannot be used.
    Refused(&'static str),
    /// It was noticed in this program, not by the server.
    Store(StoreError),
}

/// What to do after a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server gave the transaction up, or never ran the statement. It can run again at once.
    RunAgain,
    /// The connection is gone. What it was doing may have taken effect.
    Broken,
    /// The server no longer accepts writes, or is not part of its cluster: no connection to it is good.
    Demoted,
    /// The statement failed, and the connection is good.
    Failed,
}

/// A duplicate of a primary or unique key.
pub(crate) const DUPLICATE: u16 = 1062;

const LOCK_WAIT_TIMEOUT: u16 = 1205;
const DEADLOCK: u16 = 1213;
const NEEDS_TO_BE_PREPARED_AGAIN: u16 = 1615;

/// The transaction of a savepoint is gone.
const NO_SAVEPOINT: u16 = 1305;

/// `read_only`, a read-only transaction, a read-only storage engine, a server that goes offline, a Galera node
/// without its cluster.
const DEMOTED: [u16; 6] = [1290, 1792, 1836, 1874, 3032, 1047];

/// A server that shuts down, a connection that was killed or idle for too long, and a proxy that moved the
/// session to a server that does not know its prepared statements.
const GONE: [u16; 5] = [1053, 1927, 4031, 1152, 1243];

/// A row that cannot be read back.
const DAMAGED: [u16; 3] = [126, 145, 1194];

impl Failure {
    pub(crate) fn verdict(&self) -> Verdict {
        match self {
            Self::Driver(Error::Server(error)) => match error.code {
                DEADLOCK | NEEDS_TO_BE_PREPARED_AGAIN | NO_SAVEPOINT => Verdict::RunAgain,
                code if DEMOTED.contains(&code) => Verdict::Demoted,
                code if GONE.contains(&code) => Verdict::Broken,
                _ => Verdict::Failed,
            },
            Self::Overtaken(_) => Verdict::RunAgain,
            Self::Driver(_) | Self::Timeout(_) => Verdict::Broken,
            Self::Refused(_) => Verdict::Demoted,
            Self::Exhausted(_) | Self::Store(_) => Verdict::Failed,
        }
    }

    /// Whether a key is already there.
    pub(crate) const fn is_duplicate(&self) -> bool {
        matches!(self, Self::Driver(Error::Server(error)) if error.code == DUPLICATE)
    }

    /// A duplicate that only another node of a cluster can have written.
    pub(crate) fn overtaken(self) -> Self {
        match self {
            Self::Driver(error) => Self::Overtaken(error),
            other => other,
        }
    }

    /// Whether somebody else holds a lock for too long.
    pub(crate) const fn is_lock_timeout(&self) -> bool {
        matches!(self, Self::Driver(Error::Server(error)) if error.code == LOCK_WAIT_TIMEOUT)
    }

    /// The error of the contract.
    pub(crate) fn into_store_error(self, context: &'static str) -> StoreError {
        match self {
            Self::Store(error) => error,
            Self::Driver(Error::Server(error)) if DAMAGED.contains(&error.code) => {
                StoreError::corrupt("a table", error)
            }
            Self::Driver(error) | Self::Overtaken(error) => StoreError::unavailable(context, error),
            Self::Timeout(after) => {
                StoreError::unavailable(context, format!("no answer within {after:?}"))
            }
            Self::Exhausted(after) => {
                StoreError::unavailable(context, format!("no connection was free for {after:?}"))
            }
            Self::Refused(why) => StoreError::unavailable(context, why),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Driver(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

#[cfg(test)]
mod tests {
    use mysql_async::ServerError;

    use super::*;

    fn server(code: u16) -> Failure {
        let (message, state) = (String::new(), "HY000".to_owned());
        Failure::Driver(Error::Server(ServerError { code, message, state }))
    }

    #[test]
    fn only_what_took_no_effect_runs_again() {
        for (code, verdict) in [
            (1213, Verdict::RunAgain),
            (1615, Verdict::RunAgain),
            (1305, Verdict::RunAgain),
            (1205, Verdict::Failed),
            (1062, Verdict::Failed),
            (1290, Verdict::Demoted),
            (1047, Verdict::Demoted),
            (1053, Verdict::Broken),
            (1927, Verdict::Broken),
        ] {
            assert_eq!(server(code).verdict(), verdict, "{code}");
        }
        assert_eq!(server(1062).overtaken().verdict(), Verdict::RunAgain);
        assert_eq!(Failure::Timeout(Duration::ZERO).verdict(), Verdict::Broken);
        let io = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(Failure::from(Error::from(io)).verdict(), Verdict::Broken);
    }

    #[test]
    fn every_outage_has_its_source() {
        let all = [
            server(1205),
            Failure::Timeout(Duration::from_secs(1)),
            Failure::Exhausted(Duration::from_secs(1)),
            Failure::Refused("the server is read-only"),
        ];
        for failure in all {
            let error = failure.into_store_error("testing");
            assert!(error.is_retryable(), "{error:?}");
            assert!(std::error::Error::source(&error).is_some(), "{error:?}");
        }
        assert!(!server(1194).into_store_error("testing").is_retryable());
    }
}
