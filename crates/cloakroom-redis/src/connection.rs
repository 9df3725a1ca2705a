//! The connection to the server, to the master that sentinels name, or to a cluster.

use std::fmt;
use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::{ConnectionManager, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::sentinel::SentinelClient;
use redis::{
    AsyncConnectionConfig, Client, Cmd, ErrorKind, Pipeline, RedisError, RedisResult,
    ServerErrorKind, Value,
};
use tokio::sync::Mutex;
use tokio::time::timeout;

use crate::batches::{Answer, Batches, timed};
use crate::cluster::Cluster;
use crate::replicas::Replicas;

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
pub struct SharedConnection(pub(crate) Way);

impl From<MultiplexedConnection> for SharedConnection {
    fn from(connection: MultiplexedConnection) -> Self {
        Self(Way::Multiplexed(connection))
    }
}

impl From<ConnectionManager> for SharedConnection {
    fn from(connection: ConnectionManager) -> Self {
        Self(Way::Manager(connection))
    }
}

impl From<ClusterConnection> for SharedConnection {
    fn from(connection: ClusterConnection) -> Self {
        Self(Way::SharedCluster(connection))
    }
}

impl fmt::Debug for SharedConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedConnection")
    }
}

/// How commands reach the server.
#[derive(Clone)]
pub(crate) struct Link {
    way: Way,
    /// For writes that replicas must have.
    replicas: Option<Arc<Replicas>>,
    /// For a connection of the store's own to one server.
    batches: Option<Arc<Batches>>,
}

#[derive(Clone)]
pub(crate) enum Way {
    Own(Arc<Reconnecting>),
    Multiplexed(MultiplexedConnection),
    Manager(ConnectionManager),
    Cluster(Arc<Cluster>),
    SharedCluster(ClusterConnection),
}

impl Link {
    pub(crate) fn new(way: Way, replicas: Option<Arc<Replicas>>) -> Self {
        let batches = match &way {
            Way::Own(own) => Some(Arc::new(Batches::start(own))),
            _ => None,
        };
        Self { way, replicas, batches }
    }

    /// The same way, on which nothing waits for replicas.
    pub(crate) fn without_waiting(&self) -> Self {
        Self { way: self.way.clone(), replicas: None, batches: self.batches.clone() }
    }

    /// Sends a command that has the same effect if it is sent twice. It is sent once more if the connection
    /// breaks, since a server closes idle connections and nobody notices before the next command, and if a
    /// former master refused it.
    pub(crate) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        match self.send_once(command).await {
            Err(error)
                if matches!(self.way, Way::Own(_))
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
        match &self.way {
            Way::Own(own) => own.send(command).await,
            Way::Multiplexed(connection) => connection.clone().send_packed_command(command).await,
            Way::Manager(connection) => connection.clone().send_packed_command(command).await,
            Way::Cluster(cluster) => cluster.send(command).await,
            Way::SharedCluster(connection) => {
                redis::aio::ConnectionLike::req_packed_command(&mut connection.clone(), command)
                    .await
            }
        }?
        .extract_error()
    }

    /// Sends a command once, perhaps together with those of other callers, and asks for the server's time after it.
    /// `None` for a cluster, where only a single command finds its way by itself.
    pub(crate) async fn send_timed(&self, command: Cmd) -> Option<RedisResult<Answer>> {
        let answers = match &self.way {
            Way::Own(_) => return Some(self.batches.as_ref()?.send(command).await),
            Way::Multiplexed(connection) => {
                connection.clone().send_packed_commands(&timed([command]), 0, 2).await
            }
            Way::Manager(connection) => {
                connection.clone().send_packed_commands(&timed([command]), 0, 2).await
            }
            Way::Cluster(_) | Way::SharedCluster(_) => return None,
        };
        Some(answers.and_then(Answer::read))
    }

    /// As [`Link::send`]; if the store waits for replicas, they have the write then. The key says where the
    /// command goes.
    pub(crate) async fn send_safely(&self, command: &Cmd, key: &[u8]) -> RedisResult<Value> {
        match &self.replicas {
            Some(replicas) => Box::pin(replicas.send(command, key)).await,
            None => self.send(command).await,
        }
    }

    /// As [`Link::send_once`]; if the store waits for replicas, they have the write then.
    pub(crate) async fn send_once_safely(&self, command: &Cmd, key: &[u8]) -> RedisResult<Value> {
        match &self.replicas {
            Some(replicas) => Box::pin(replicas.send_once(command, key)).await,
            None => self.send_once(command).await,
        }
    }

    pub(crate) const fn is_cluster(&self) -> bool {
        matches!(self.way, Way::Cluster(_) | Way::SharedCluster(_))
    }
}

/// Whether this is the answer of a former master that was demoted.
fn is_refused(answer: &Value) -> bool {
    matches!(answer, Value::ServerError(error) if error.code() == "READONLY")
}

/// Whether nobody knows why there is no answer.
fn is_lost(error: &RedisError) -> bool {
    error.is_unrecoverable_error() || error.is_timeout()
}

/// Whether the server says that it is a replica, which is not written to.
pub(crate) fn is_of_replica(error: &RedisError) -> bool {
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
    Target(Arc<Reconnecting>),
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
    target: Arc<Target>,
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
        Self::to(Arc::new(target), connect, response)
    }

    fn to(target: Arc<Target>, connect: Duration, response: Duration) -> Self {
        Self { target, connect, response, current: RwLock::default(), connecting: Mutex::new(None) }
    }

    /// Another connection to the same target, whose answers may take so much longer.
    pub(crate) fn beside(&self, longer: Duration) -> Self {
        Self::to(Arc::clone(&self.target), self.connect, self.response + longer)
    }

    /// How long an answer may take.
    pub(crate) const fn response(&self) -> Duration {
        self.response
    }

    /// Sends a command. An error of the server is an answer.
    pub(crate) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        let (attempt, mut connection) = self.connected().await?;
        let result = connection.send_packed_command(command).await;
        let is_broken = match &result {
            Ok(answer) => is_refused(answer),
            Err(error) => is_lost(error),
        };
        self.replace_if(is_broken, attempt);
        result
    }

    /// Sends commands one right after the other. Errors of the server are among the answers.
    pub(crate) async fn send_all(&self, commands: &Pipeline) -> RedisResult<Vec<Value>> {
        let (attempt, mut connection) = self.connected().await?;
        let result = connection.send_packed_commands(commands, 0, commands.len()).await;
        let is_broken = match &result {
            Ok(answers) => answers.iter().any(is_refused),
            Err(error) => is_lost(error),
        };
        self.replace_if(is_broken, attempt);
        result
    }

    async fn connected(&self) -> RedisResult<(u64, MultiplexedConnection)> {
        match self.current() {
            (attempt, Some(connection)) => Ok((attempt, connection)),
            (attempt, None) => Box::pin(self.connected_after(attempt)).await,
        }
    }

    /// The next command gets a new connection, if it has not got one already.
    fn replace_if(&self, is_broken: bool, attempt: u64) {
        if is_broken {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.attempts == attempt {
                current.connection = None;
            }
        }
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
