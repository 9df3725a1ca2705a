//! Connections of the app's own pool.
//!
//! The store keeps what it takes, and closes it when it no longer needs it. So the app gets no connection back
//! that has the store's settings, or on which a statement of the store is still under way; and the store uses
//! none on which the app has left a transaction open.

use deadpool_postgres::tokio_postgres::Client;
use deadpool_postgres::tokio_postgres::error::SqlState;
use deadpool_postgres::{Object, Pool, PoolError};
use tokio::sync::watch;

use crate::error::{ConnectError, Failed};
use crate::schema::first;
use crate::settings::PostgresStoreBuilder;
use crate::store::PostgresStore;

/// How many connections the store uses besides those of `connections`: one for the log, and one for lists and
/// housekeeping.
const FURTHER: usize = 2;

impl PostgresStore {
    /// Settings for a store on connections of the app's own pool (feature `deadpool`).
    ///
    /// The pool says how to connect: the server, TLS, the user. Its hooks run as usual, but what they set
    /// with `SET` does not stay: the store resets each connection when it takes it (`DISCARD ALL`), so that it
    /// depends on nothing that the app left there.
    ///
    /// The store takes up to five connections: one for lookups and two for writes (see
    /// [`connections`](PostgresStoreBuilder::connections)), one for the log, and one for lists and housekeeping.
    /// It keeps them until it is dropped, and then closes them; the pool makes new ones for the app. So give
    /// the pool that many more than the app needs.
    ///
    /// A pool hides what a connection listens to, so the store polls the log every 100 ms
    /// ([`poll`](PostgresStoreBuilder::poll)).
    /// [`connect_timeout`](PostgresStoreBuilder::connect_timeout) is how long to wait for the pool.
    ///
    /// ```no_run
    /// use cloakroom_postgres::deadpool_postgres::{Manager, Pool};
    /// use cloakroom_postgres::{PostgresStore, tokio_postgres};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let config: tokio_postgres::Config = "host=/run/postgresql user=app dbname=app".parse()?;
    /// let pool = Pool::builder(Manager::new(config, tokio_postgres::NoTls)).max_size(16).build()?;
    /// let store = PostgresStore::with_pool(pool.clone()).schema("tokens").connect().await?;
    /// # Ok(()) }
    /// ```
    pub fn with_pool(pool: Pool) -> PostgresStoreBuilder {
        PostgresStoreBuilder::with_pool(pool)
    }
}

/// Fails if the pool is too small for the store.
pub(crate) fn check_size(pool: &Pool, lookups: usize, writes: usize) -> Result<(), ConnectError> {
    let needed = lookups.max(1) + writes.max(1) + FURTHER;
    match pool.status().max_size {
        max if max < needed => Err(ConnectError::PoolTooSmall { max, needed }),
        _ => Ok(()),
    }
}

/// A connection of the pool. It still counts as one of the pool's.
pub(crate) struct Taken {
    object: Option<Object>,
    is_killed: watch::Sender<bool>,
}

impl Taken {
    /// Takes a connection that is as good as new.
    pub(crate) async fn from(pool: &Pool, is_behind_pooler: bool) -> Result<Self, Failed> {
        // Each attempt that fails closes the connection, and the pool has only so many.
        for _ in 0..=pool.status().max_size {
            let object = match pool.get().await {
                Ok(object) => object,
                Err(PoolError::Backend(error)) => return Err(Failed::Driver(error)),
                Err(error) => return Err(Failed::Pool(error)),
            };
            let taken = Self { object: Some(object), is_killed: watch::Sender::new(false) };
            match taken.prepare(is_behind_pooler).await {
                Ok(true) => return Ok(taken),
                // A transaction is open, or the connection has ended.
                Ok(false) => {}
                Err(Failed::Driver(error)) if error.is_closed() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Failed::Ended)
    }

    /// Resets the session. `false` if the app left a transaction open.
    async fn prepare(&self, is_behind_pooler: bool) -> Result<bool, Failed> {
        let client = self.client();
        // `DISCARD ALL` fails in a transaction. Behind a pooler, it would be that of any server connection. There,
        // the time of the transaction is that of the statement only if the transaction began with it.
        if is_behind_pooler {
            if first(client, "SELECT now() = statement_timestamp()").await? != Some("t".to_owned())
            {
                return Ok(false);
            }
        } else if let Err(error) = client.batch_execute("DISCARD ALL").await {
            let is_open = error.code().is_some_and(|code| {
                *code == SqlState::ACTIVE_SQL_TRANSACTION
                    || *code == SqlState::IN_FAILED_SQL_TRANSACTION
            });
            return if is_open { Ok(false) } else { Err(error.into()) };
        }
        match first(client, "SHOW transaction_read_only").await? {
            Some(value) if value == "off" => Ok(true),
            _ => Err(Failed::Standby),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        // It is taken out only when this is dropped.
        self.object.as_ref().expect("it is there until it is dropped")
    }

    /// Whoever waits for an answer stops waiting. The connection ends when the last of them has.
    pub(crate) fn kill(&self) {
        self.is_killed.send_replace(true);
    }

    pub(crate) fn is_killed(&self) -> bool {
        *self.is_killed.borrow()
    }

    pub(crate) async fn killed(&self) {
        // The sender is here, so this ends when it is killed.
        let _ = self.is_killed.subscribe().wait_for(|is_killed| *is_killed).await;
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        // Not back into the pool.
        self.object.take().map(Object::take);
    }
}
