//! How readers learn that the revocation log has grown: at once if this process wrote to it,
//! otherwise through a connection that listens, or by polling the head of the log.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::revocation::LogNotifications;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use crate::error::Failed;
use crate::pool::Pool;
use crate::revocation_log::HEAD;
use crate::session::Session;
use crate::settings::Settings;

/// Wakes the readers of the log. Its streams end when the last clone is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Growth(watch::Sender<()>);

impl Growth {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(()))
    }

    pub(crate) fn tell(&self) {
        self.0.send_replace(());
    }

    /// An item at the start, and one whenever the log may have grown since the last item.
    pub(crate) fn notifications(&self) -> LogNotifications {
        let mut growth = self.0.subscribe();
        growth.mark_changed();
        let next = |mut growth: watch::Receiver<()>| async move {
            growth.changed().await.ok()?;
            Some(((), growth))
        };
        LogNotifications::Stream(Box::pin(unfold(growth, next).fuse()))
    }
}

/// The longest wait before the next attempt to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Watches the log for what other processes append, until it is dropped.
///
/// The connection is its own: a reader must hear of a revocation while all others are busy. Connections of the
/// app's pool are fewer, so there it is that of the appends.
pub(crate) async fn watch(settings: Arc<Settings>, appends: Pool, growth: Growth) {
    if !settings.are_connections_own() {
        return poll(&settings, &appends, &growth).await;
    }
    let mut pause = Duration::from_millis(10);
    let mut newest = None;
    loop {
        match follow(&settings, &growth, &mut newest).await {
            Ok(()) => pause = Duration::from_millis(10),
            Err(error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "changes of the revocation log are not being watched"
                );
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
        sleep(pause).await;
    }
}

/// Reads the head of the log again and again.
async fn poll(settings: &Settings, appends: &Pool, growth: &Growth) {
    let mut newest = None;
    loop {
        match appends.session("watching the revocation log").await {
            Ok(session) => {
                if let Ok(found) = head(&session).await
                    && newest.replace(found) != Some(found)
                {
                    growth.tell();
                }
            }
            Err(error) => tracing::debug!(
                error = &error as &dyn std::error::Error,
                "changes of the revocation log are not being watched"
            ),
        }
        sleep(settings.poll).await;
    }
}

/// Watches until the connection ends. An error if it could not begin.
async fn follow(
    settings: &Arc<Settings>,
    growth: &Growth,
    newest: &mut Option<i64>,
) -> Result<(), Failed> {
    let (heard, mut hears) = watch::channel(());
    let session = Session::connect(Arc::clone(settings), Some(heard)).await?;
    if settings.may_listen() {
        let listen = format!("LISTEN \"{}\"", settings.names.channel());
        let listening = session.client().batch_execute(&listen);
        timeout(settings.patience(), listening).await.map_err(|_| Failed::TimedOut)??;
    }
    // The head is read after listening has begun, so that no append is missed between the two.
    *newest = Some(head(&session).await?);
    growth.tell();
    loop {
        match timeout(settings.poll, hears.changed()).await {
            Ok(Ok(())) => {
                growth.tell();
                continue;
            }
            // The connection has ended.
            Ok(Err(_)) => return Ok(()),
            Err(_) => {}
        }
        // Nothing was heard for a while. Nothing may have been said, or the connection may be dead.
        let Ok(found) = head(&session).await else { return Ok(()) };
        if newest.replace(found) != Some(found) {
            growth.tell();
        }
    }
}

async fn head(session: &Session) -> Result<i64, Failed> {
    let rows = session.query(&HEAD, 0, &[]).await?;
    let row = rows.first().ok_or(Failed::Ended)?;
    Ok(row.try_get(0)?)
}
