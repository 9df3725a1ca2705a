//! The connection to the server, to the master that sentinels name, or to a cluster.

use std::fmt;
use std::future::Future;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use redis::aio::{ConnectionManager, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, RedisError, RedisResult, ServerErrorKind, Value,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// An existing connection of your app.
///
/// ```no_run
/// # async fn demo(client: redis::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom_redis::{RedisStore, redis};
///
/// let manager = client.get_connection_manager().await?;
/// let store = RedisStore::over(manager).prefix("shop").connect().await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct SharedConnection(pub(crate) Link);

impl From<MultiplexedConnection> for SharedConnection {
    fn from(connection: MultiplexedConnection) -> Self {
        Self(Link::Multiplexed(connection))
    }
}

impl From<ConnectionManager> for SharedConnection {
    fn from(connection: ConnectionManager) -> Self {
        Self(Link::Manager(connection))
    }
}

impl From<ClusterConnection> for SharedConnection {
    fn from(connection: ClusterConnection) -> Self {
        Self(Link::Cluster(connection))
    }
}

impl fmt::Debug for SharedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedConnection")
    }
}

/// How commands reach the server.
#[derive(Clone)]
pub(crate) enum Link {
    Own(std::sync::Arc<Reconnecting>),
    Multiplexed(MultiplexedConnection),
    Manager(ConnectionManager),
    Cluster(ClusterConnection),
}

impl Link {
    /// Sends a command that has the same effect if it is sent twice. It is sent once more if the connection
    /// breaks, since a server closes idle connections and nobody notices before the next command, and if a
    /// former master refused it.
    pub(crate) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        match self.send_once(command).await {
            Err(error)
                if matches!(self, Self::Own(_))
                    && (error.is_connection_dropped() || is_of_replica(&error)) =>
            {
                // What happens rarely is boxed, so that the futures of calls stay small.
                Box::pin(self.send_once(command)).await
            }
            result => result,
        }
    }

    /// Sends a command, and returns its answer. An error of the server is an error.
    pub(crate) async fn send_once(&self, command: &Cmd) -> RedisResult<Value> {
        match self {
            Self::Own(own) => own.send(command).await,
            Self::Multiplexed(connection) => connection.clone().send_packed_command(command).await,
            Self::Manager(connection) => connection.clone().send_packed_command(command).await,
            Self::Cluster(connection) => {
                redis::aio::ConnectionLike::req_packed_command(&mut connection.clone(), command)
                    .await
            }
        }?
        .extract_error()
    }

    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Whether the server says that it is a replica, which is not written to.
fn is_of_replica(error: &RedisError) -> bool {
    error.kind() == ErrorKind::Server(ServerErrorKind::ReadOnly)
}

/// Where to connect to.
pub(crate) enum Target {
    Server(Client),
    Sentinel(Mutex<SentinelClient>),
}

impl Target {
    /// A new connection; with no time-out for answers, it may be used for a read that waits.
    pub(crate) async fn open(
        &self,
        connect: Duration,
        response: Option<Duration>,
    ) -> RedisResult<MultiplexedConnection> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(connect))
            .set_response_timeout(response);
        match self {
            Self::Server(client) => {
                let opened = client.get_multiplexed_async_connection_with_config(&config);
                within(connect, opened).await
            }
            Self::Sentinel(client) => {
                // It asks the sentinels each time, and checks that the server is a master.
                let opened =
                    async { client.lock().await.get_async_connection_with_config(&config).await };
                within(connect, opened).await
            }
        }
    }
}

/// What [`wakeups`](crate::wakeups) need for a connection that nobody else uses.
pub(crate) enum Source {
    Target(std::sync::Arc<Reconnecting>),
    Cluster(Box<ClusterClient>),
}

async fn within<T>(limit: Duration, work: impl Future<Output = RedisResult<T>>) -> RedisResult<T> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(elapsed) => Err(std::io::Error::from(elapsed).into()),
    }
}

/// One connection, which is opened again when it breaks.
pub(crate) struct Reconnecting {
    target: Target,
    connect: Duration,
    response: Duration,
    current: RwLock<Current>,
    /// The error of the last attempt to connect, and its number.
    connecting: Mutex<Option<(u64, RedisError)>>,
}

#[derive(Default)]
struct Current {
    /// How often a connection was opened, or failed to open.
    attempts: u64,
    connection: Option<MultiplexedConnection>,
}

impl Reconnecting {
    pub(crate) fn new(target: Target, connect: Duration, response: Duration) -> Self {
        Self { target, connect, response, current: RwLock::default(), connecting: Mutex::new(None) }
    }

    async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let (attempt, mut connection) = match self.current() {
            (attempt, Some(connection)) => (attempt, connection),
            (attempt, None) => Box::pin(self.connected_after(attempt)).await?,
        };
        let result = connection.send_packed_command(command).await;
        let is_broken = match &result {
            // A former master that was demoted.
            Ok(Value::ServerError(error)) => error.code() == "READONLY",
            Ok(_) => false,
            // Nobody knows why there is no answer. The next command gets a new connection.
            Err(error) => error.is_unrecoverable_error() || error.is_timeout(),
        };
        if is_broken {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.attempts == attempt {
                current.connection = None;
            }
        }
        result
    }

    fn current(&self) -> (u64, Option<MultiplexedConnection>) {
        let current = self.current.read().unwrap_or_else(PoisonError::into_inner);
        (current.attempts, current.connection.clone())
    }

    /// A new connection. Callers that wait for the same attempt to connect get its error.
    async fn connected_after(&self, before: u64) -> RedisResult<(u64, MultiplexedConnection)> {
        let mut failure = within(self.connect, async { Ok(self.connecting.lock().await) }).await?;
        let (attempts, connection) = self.current();
        if let Some(connection) = connection {
            return Ok((attempts, connection));
        }
        if let Some((attempt, error)) = &*failure
            && *attempt > before
        {
            return Err(error.clone());
        }
        let opened = self.open(Some(self.response)).await;
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        current.attempts += 1;
        match opened {
            Ok(connection) => {
                current.connection = Some(connection.clone());
                Ok((current.attempts, connection))
            }
            Err(error) => {
                *failure = Some((current.attempts, error.clone()));
                Err(error)
            }
        }
    }

    pub(crate) async fn open(
        &self,
        response: Option<Duration>,
    ) -> RedisResult<MultiplexedConnection> {
        self.target.open(self.connect, response).await
    }
}
