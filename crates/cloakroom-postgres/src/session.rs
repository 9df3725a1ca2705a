//! One connection. Statements of many callers are in flight on it at the same time, and the server answers
//! them in order.

use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::future::maybe_done;
#[cfg(feature = "deadpool")]
use futures_util::future::{Either, select};
use futures_util::stream::FuturesUnordered;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Connection, NoTls, Row, SimpleQueryMessage, Statement};

#[cfg(feature = "deadpool")]
use crate::app_pool::Taken;
use crate::error::Failed;
use crate::settings::Settings;
use crate::sql::Sql;

/// How long a host has to answer before the next one is tried, too.
const HEAD_START: Duration = Duration::from_millis(250);

/// The parameters of a statement.
pub(crate) type Params<'a> = &'a [&'a (dyn ToSql + Sync)];

/// A connection. When it is dropped, it ends after the last answer.
pub(crate) struct Session {
    link: Link,
    settings: Arc<Settings>,
    /// What was prepared here, by the key of the statement and its limit.
    statements: Mutex<HashMap<(usize, u32), Statement>>,
}

/// Whose connection it is.
enum Link {
    /// The store's own.
    Own { client: Client, driver: AbortHandle },
    /// One of the app's pool.
    #[cfg(feature = "deadpool")]
    Taken(Taken),
}

/// A statement that can be sent at once.
pub(crate) enum Prepared {
    Named(Statement),
    /// Its text, since a pooler may give each statement to another server connection.
    Unnamed(String, &'static [Type]),
}

impl Session {
    /// Connects. What the server announces on channels that this connection listens to is sent to `heard`.
    pub(crate) async fn connect(
        settings: Arc<Settings>,
        heard: Option<watch::Sender<()>>,
    ) -> Result<Self, Failed> {
        let patience = settings.connect_timeout;
        timeout(patience, Self::connecting(settings, heard)).await.map_err(|_| Failed::TimedOut)?
    }

    async fn connecting(
        settings: Arc<Settings>,
        heard: Option<watch::Sender<()>>,
    ) -> Result<Self, Failed> {
        let link = link(&settings, heard.as_ref()).await?;
        let session = Self { link, statements: Mutex::new(HashMap::new()), settings };
        if let Some(setup) = session.settings.setup() {
            session.client().batch_execute(&setup).await?;
        }
        Ok(session)
    }

    pub(crate) fn is_closed(&self) -> bool {
        #[cfg(feature = "deadpool")]
        if let Link::Taken(taken) = &self.link
            && taken.is_killed()
        {
            return true;
        }
        self.client().is_closed()
    }

    /// Ends the connection now. Whoever waits for an answer gets an error.
    pub(crate) fn kill(&self) {
        match &self.link {
            Link::Own { driver, .. } => driver.abort(),
            #[cfg(feature = "deadpool")]
            Link::Taken(taken) => taken.kill(),
        }
    }

    pub(crate) fn client(&self) -> &Client {
        match &self.link {
            Link::Own { client, .. } => client,
            #[cfg(feature = "deadpool")]
            Link::Taken(taken) => taken.client(),
        }
    }

    /// Prepares a statement. Two callers at the same time both prepare it: nobody waits for a caller whose
    /// future is not polled.
    pub(crate) async fn prepared(&self, sql: &'static Sql, limit: u32) -> Result<Prepared, Failed> {
        let text = || self.settings.names.render_limited(sql.text, limit);
        if self.settings.is_pooled {
            return Ok(Prepared::Unnamed(text(), sql.types));
        }
        let key = (sql.key(), limit);
        let known =
            self.statements.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(statement) = known {
            return Ok(Prepared::Named(statement));
        }
        let text = text();
        let preparing = async { Ok(self.client().prepare_typed(&text, sql.types).await?) };
        let statement = self.patiently(preparing).await?;
        self.statements
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(key, statement.clone());
        Ok(Prepared::Named(statement))
    }

    /// Runs a prepared statement. It is sent when this future is first polled.
    pub(crate) async fn run(
        &self,
        prepared: &Prepared,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failed> {
        self.patiently(async {
            Ok(match prepared {
                Prepared::Named(statement) => self.client().query(statement, params).await?,
                Prepared::Unnamed(text, types) => {
                    let typed: Vec<(&(dyn ToSql + Sync), Type)> =
                        params.iter().copied().zip(types.iter().cloned()).collect();
                    self.client().query_typed(text, &typed).await?
                }
            })
        })
        .await
    }

    /// Runs statements without parameters in one message, and so in one transaction.
    pub(crate) async fn simple(&self, sql: &str) -> Result<Vec<SimpleQueryMessage>, Failed> {
        self.patiently(async { Ok(self.client().simple_query(sql).await?) }).await
    }

    pub(crate) async fn query(
        &self,
        sql: &'static Sql,
        limit: u32,
        params: Params<'_>,
    ) -> Result<Vec<Row>, Failed> {
        let prepared = self.prepared(sql, limit).await?;
        self.run(&prepared, params).await
    }

    /// Runs two statements in one flight. The second is sent after the first, without waiting for its answer,
    /// and the server begins it when the first is committed.
    pub(crate) async fn run_both(
        &self,
        first: (&Prepared, Params<'_>),
        second: (&Prepared, Params<'_>),
    ) -> (Result<Vec<Row>, Failed>, Result<Vec<Row>, Failed>) {
        let mut first = pin!(maybe_done(self.run(first.0, first.1)));
        let mut second = pin!(maybe_done(self.run(second.0, second.1)));
        // The first poll of each sends it, so the order of these two lines matters.
        poll_fn(|cx| {
            let first = first.as_mut().poll(cx);
            let second = second.as_mut().poll(cx);
            if first.is_ready() && second.is_ready() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
        let ended = || Err(Failed::Ended);
        (first.take_output().unwrap_or_else(ended), second.take_output().unwrap_or_else(ended))
    }

    /// A server that does not answer in time may never answer, and everything that was sent after this
    /// statement waits for it, too. So the connection ends.
    async fn patiently<T>(
        &self,
        answer: impl Future<Output = Result<T, Failed>>,
    ) -> Result<T, Failed> {
        #[cfg(feature = "deadpool")]
        let answer = async {
            match &self.link {
                Link::Own { .. } => answer.await,
                Link::Taken(taken) => match select(pin!(answer), pin!(taken.killed())).await {
                    Either::Left((answer, _)) => answer,
                    Either::Right(_) => Err(Failed::TimedOut),
                },
            }
        };
        let answer = match timeout(self.settings.patience(), answer).await {
            Ok(answer) => answer,
            Err(_) => Err(Failed::TimedOut),
        };
        if answer.as_ref().is_err_and(Failed::is_final) {
            self.kill();
        }
        answer
    }
}

/// Connects, or takes a connection of the app's pool.
async fn link(settings: &Settings, heard: Option<&watch::Sender<()>>) -> Result<Link, Failed> {
    #[cfg(feature = "deadpool")]
    if let Some(pool) = &settings.pool {
        return Taken::from(pool, settings.is_pooled).await.map(Link::Taken);
    }
    let (client, driver) = primary(settings, heard).await?;
    Ok(Link::Own { client, driver })
}

/// Connects to the first host that accepts writes. A host that does not answer may never do so, so the next one
/// is tried meanwhile. The host that was the primary last comes first.
async fn primary(
    settings: &Settings,
    heard: Option<&watch::Sender<()>>,
) -> Result<(Client, AbortHandle), Failed> {
    let hosts = settings.hosts.len();
    let first = settings.primary.load(Ordering::Relaxed);
    let mut left = (0..hosts).map(|number| (first + number) % hosts);
    let mut attempts = FuturesUnordered::new();
    let mut failed = None;
    loop {
        attempts.extend(left.next().map(|host| connect(settings, host, heard)));
        let next = attempts.next();
        let ended = match left.len() {
            0 => next.await,
            _ => match timeout(HEAD_START, next).await {
                Ok(ended) => ended,
                Err(_) => continue,
            },
        };
        match ended {
            Some((host, Ok(connected))) => {
                settings.primary.store(host, Ordering::Relaxed);
                return Ok(connected);
            }
            // A primary may be among those that cannot be reached.
            Some((_, Err(error))) if failed.as_ref().is_none_or(Failed::is_standby) => {
                failed = Some(error);
            }
            Some(_) => {}
            None => return Err(failed.unwrap_or(Failed::Ended)),
        }
    }
}

async fn connect(
    settings: &Settings,
    host: usize,
    heard: Option<&watch::Sender<()>>,
) -> (usize, Result<(Client, AbortHandle), Failed>) {
    let config = &settings.hosts[host];
    let runtime = &settings.runtime;
    let connected = match settings.tls.clone() {
        Some(tls) => config.connect(tls).await.map(|(client, connection)| {
            (client, runtime.spawn(drive(connection, heard.cloned())).abort_handle())
        }),
        None => config.connect(NoTls).await.map(|(client, connection)| {
            (client, runtime.spawn(drive(connection, heard.cloned())).abort_handle())
        }),
    };
    (host, connected.map_err(Failed::from))
}

/// Moves bytes until the connection ends.
async fn drive<S, T>(mut connection: Connection<S, T>, heard: Option<watch::Sender<()>>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    loop {
        match poll_fn(|cx| connection.poll_message(cx)).await {
            Some(Ok(AsyncMessage::Notification(_))) => {
                if let Some(heard) = &heard {
                    heard.send_replace(());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::debug!(error = &error as &dyn std::error::Error, "a connection ended");
                return;
            }
            None => return,
        }
    }
}
