//! Tells all waiting tasks when the revocation log may have grown, with one subscription to the
//! store.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::revocation::LogNotifications;
use futures_core::Stream;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::write::Store;

/// How long to wait before subscribing again after a stream of notifications ended.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts how often the log may have grown. The first subscriber starts the task that counts; it
/// ends when this is dropped.
pub(crate) struct LogNotifier {
    store: Store,
    changes: watch::Sender<u64>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl LogNotifier {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, changes: watch::Sender::new(0), task: Mutex::new(None) }
    }

    /// The count. To miss nothing, look at the count, then read the log, then wait for the count to
    /// change.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        // The task has finished if its runtime has ended.
        if task.as_ref().is_none_or(JoinHandle::is_finished) {
            // Subscribe here, not in the task: every notification from now on is counted.
            let notifications = self.store.wakeups();
            *task =
                Some(tokio::spawn(count(self.store.clone(), notifications, self.changes.clone())));
        }
        self.changes.subscribe()
    }
}

impl Drop for LogNotifier {
    fn drop(&mut self) {
        let task = self.task.get_mut().unwrap_or_else(PoisonError::into_inner);
        if let Some(task) = task {
            task.abort();
        }
    }
}

async fn count(store: Store, mut notifications: LogNotifications, changes: watch::Sender<u64>) {
    loop {
        match notifications {
            LogNotifications::Stream(mut stream) => {
                while next(&mut stream).await.is_some() {
                    changes.send_modify(|count| *count += 1);
                }
                tracing::warn!("the store's log notifications ended; subscribing again");
                tokio::time::sleep(PAUSE).await;
            }
            LogNotifications::Poll(interval) => tokio::time::sleep(interval).await,
        }
        notifications = store.wakeups();
        // The log may have grown in between.
        changes.send_modify(|count| *count += 1);
    }
}

async fn next(stream: &mut Pin<Box<dyn Stream<Item = ()> + Send>>) -> Option<()> {
    poll_fn(|cx| stream.as_mut().poll_next(cx)).await
}
