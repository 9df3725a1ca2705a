//! Tells readers that the log may have grown.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloakroom_core::revocation::LogNotifications;
use futures_util::stream;
use redis::aio::ConnectionLike;
use redis::{RedisResult, Value};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::connection::Source;

/// How long a read waits for an entry. Then the newest entry is looked up: a log that began anew has lower
/// ids than the one that the read waits for.
const BLOCK: Duration = Duration::from_secs(1);

/// How long to wait before connecting again.
const PAUSE: Duration = Duration::from_millis(50);

/// How often to read the log over a connection that cannot be used to wait.
const POLL: Duration = Duration::from_millis(100);

/// A task that waits for new entries, on a connection of its own. It begins when the first reader listens.
pub(crate) struct Wakeups {
    source: Arc<Source>,
    log: Vec<u8>,
    connect: Duration,
    listening: OnceLock<Listening>,
}

struct Listening {
    grown: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Wakeups {
    pub(crate) fn new(source: Source, log: Vec<u8>, connect: Duration) -> Self {
        Self { source: Arc::new(source), log, connect, listening: OnceLock::new() }
    }

    /// A stream for one reader. It yields once at its start.
    pub(crate) fn listen(&self) -> LogNotifications {
        let listening = self.listening.get_or_init(|| {
            let (grew, grown) = watch::channel(0);
            let source = Arc::clone(&self.source);
            let task = tokio::spawn(wait(source, self.log.clone(), self.connect, grew));
            Listening { grown, task }
        });
        let mut grown = listening.grown.clone();
        grown.mark_changed();
        LogNotifications::Stream(Box::pin(stream::unfold(grown, |mut grown| async move {
            grown.changed().await.ok()?;
            grown.borrow_and_update();
            Some(((), grown))
        })))
    }
}

impl Drop for Wakeups {
    fn drop(&mut self) {
        if let Some(listening) = self.listening.get() {
            listening.task.abort();
        }
    }
}

/// What readers get if the store has no connection that it may block.
pub(crate) const fn poll() -> LogNotifications {
    LogNotifications::Poll(POLL)
}

async fn wait(source: Arc<Source>, log: Vec<u8>, connect: Duration, grew: watch::Sender<u64>) {
    let grew = || grew.send_modify(|times| *times += 1);
    loop {
        let error = match &*source {
            Source::Target(target) => match target.open(None).await {
                Ok(connection) => follow(connection, &log, connect, &grew).await,
                Err(error) => Err(error),
            },
            Source::Cluster(client) => {
                let config = redis::cluster::ClusterConfig::new()
                    .set_response_timeout(BLOCK + connect)
                    .set_connection_timeout(connect);
                match client.get_async_connection_with_config(config).await {
                    Ok(connection) => follow(connection, &log, connect, &grew).await,
                    Err(error) => Err(error),
                }
            }
        };
        if let Err(error) = error {
            tracing::debug!(%error, "the connection that waits for new revocations was lost");
        }
        sleep(PAUSE).await;
    }
}

/// Waits for entries until the connection breaks.
async fn follow(
    mut connection: impl ConnectionLike,
    log: &[u8],
    patience: Duration,
    grew: &impl Fn(),
) -> RedisResult<()> {
    let mut newest = newest_entry(&mut connection, log, patience).await?;
    // Something may have been written while nobody listened.
    grew();
    loop {
        let mut read = redis::cmd("XREAD");
        let wait = u64::try_from(BLOCK.as_millis()).unwrap_or(u64::MAX);
        read.arg("COUNT").arg(1).arg("BLOCK").arg(wait).arg("STREAMS").arg(log);
        read.arg(newest.as_deref().unwrap_or(b"0-0"));
        let found = answer(&mut connection, &read, BLOCK + patience).await?;
        let grown = found != Value::Nil;
        let now = newest_entry(&mut connection, log, patience).await?;
        if grown || now != newest {
            newest = now;
            grew();
        }
    }
}

/// The place of the newest entry.
async fn newest_entry(
    connection: &mut impl ConnectionLike,
    log: &[u8],
    patience: Duration,
) -> RedisResult<Option<Vec<u8>>> {
    let mut last = redis::cmd("XREVRANGE");
    last.arg(log).arg("+").arg("-").arg("COUNT").arg(1);
    let Value::Array(entries) = answer(connection, &last, patience).await? else {
        return Ok(None);
    };
    Ok(entries.into_iter().next().and_then(|entry| match entry {
        Value::Array(parts) => parts.into_iter().next().and_then(|place| match place {
            Value::BulkString(place) => Some(place),
            _ => None,
        }),
        _ => None,
    }))
}

/// A server that is gone without a word must not keep a reader waiting.
async fn answer(
    connection: &mut impl ConnectionLike,
    command: &redis::Cmd,
    patience: Duration,
) -> RedisResult<Value> {
    match timeout(patience, connection.req_packed_command(command)).await {
        Ok(value) => value?.extract_error(),
        Err(elapsed) => Err(std::io::Error::from(elapsed).into()),
    }
}
