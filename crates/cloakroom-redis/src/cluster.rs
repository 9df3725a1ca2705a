//! The connection to a cluster.
//!
//! The driver asks for the map of the slots when a node redirects it, or when a connection breaks. A node that is
//! frozen or cut off does neither, even after its replica has taken its place. So a call that gets no answer
//! lets the whole connection be made again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use redis::aio::ConnectionLike as _;
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::SingleNodeRoutingInfo;
use redis::{Cmd, Pipeline, RedisResult, Value};
use tokio::time::timeout;

/// A connection that is replaced when a node does not answer.
pub(crate) struct Cluster {
    client: ClusterClient,
    connect: Duration,
    current: RwLock<Current>,
    is_replacing: AtomicBool,
}

#[derive(Clone)]
struct Current {
    /// How often it was replaced.
    replaced: u64,
    connection: ClusterConnection,
}

impl Cluster {
    pub(crate) async fn open(client: ClusterClient, connect: Duration) -> RedisResult<Arc<Self>> {
        let connection = opened(&client, connect).await?;
        Ok(Arc::new(Self {
            client,
            connect,
            current: RwLock::new(Current { replaced: 0, connection }),
            is_replacing: AtomicBool::new(false),
        }))
    }

    /// Sends a command to the master of its keys. An error of the server is an answer.
    pub(crate) async fn send(self: &Arc<Self>, command: &Cmd) -> RedisResult<Value> {
        let Current { replaced, mut connection } = self.current();
        let result = connection.req_packed_command(command).await;
        self.watch(replaced, result)
    }

    /// Sends commands to one node, one right after the other. Errors of the server are among the answers.
    pub(crate) async fn send_all(
        self: &Arc<Self>,
        commands: Pipeline,
        to: SingleNodeRoutingInfo,
    ) -> RedisResult<Vec<Value>> {
        let count = commands.len();
        let Current { replaced, mut connection } = self.current();
        let result = connection.route_pipeline(commands, 0, count, to).await;
        self.watch(replaced, result)
    }

    fn watch<T>(self: &Arc<Self>, replaced: u64, result: RedisResult<T>) -> RedisResult<T> {
        if result.as_ref().is_err_and(redis::RedisError::is_timeout) {
            self.replace(replaced);
        }
        result
    }

    fn current(&self) -> Current {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the connection, if this is still the one. Other calls go on with it meanwhile.
    fn replace(self: &Arc<Self>, replaced: u64) {
        if self.is_replacing.swap(true, Ordering::AcqRel) {
            return;
        }
        let cluster = Arc::clone(self);
        tokio::spawn(async move {
            if cluster.current().replaced == replaced {
                match opened(&cluster.client, cluster.connect).await {
                    Ok(connection) => {
                        let mut current =
                            cluster.current.write().unwrap_or_else(PoisonError::into_inner);
                        *current = Current { replaced: replaced + 1, connection };
                    }
                    Err(error) => tracing::debug!(%error, "the cluster cannot be reached"),
                }
            }
            cluster.is_replacing.store(false, Ordering::Release);
        });
    }
}

async fn opened(client: &ClusterClient, limit: Duration) -> RedisResult<ClusterConnection> {
    match timeout(limit, client.get_async_connection()).await {
        Ok(connection) => connection,
        Err(elapsed) => Err(std::io::Error::from(elapsed).into()),
    }
}
