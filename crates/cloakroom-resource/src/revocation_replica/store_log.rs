//! The revocation log of a store that this process has open.

use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::keys::KeyPolicy;
use cloakroom_core::revocation::{Cursor, LogNotifications, RevocationBatch, RevocationPage};
use cloakroom_core::store::TokenStore;
use futures_core::Stream;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::log::RevocationLog;
use crate::error::UnavailableError;

/// The most entries that are read at once.
const MAX_ENTRIES: u32 = 1_000;

/// The longest wait.
const MAX_WAIT: Duration = Duration::from_secs(24 * 60 * 60);

/// The shortest polling interval, for a store without notifications.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

/// The revocation log of a store that this process has open, in an authorization server or in an API
/// beside it. Use one for each replica.
///
/// The store does not know the settings of the authorization servers: if they differ from the
/// defaults, set them here, too.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use cloakroom_memory::MemoryStore;
/// use cloakroom_resource::{RevocationReplica, StoreLog};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom_resource::UnavailableError> {
/// let store = Arc::new(MemoryStore::new());
/// // One process alone writes and reads: there is only one clock.
/// let log = StoreLog::new(store).clock_skew(Duration::ZERO);
/// let replica = RevocationReplica::follow(log).await?;
/// assert_eq!(replica.steady_staleness(), Duration::from_secs(2));
/// # Ok(()) }
/// ```
pub struct StoreLog {
    store: Arc<dyn TokenStore>,
    heartbeat: Duration,
    clock_skew: Duration,
    /// Kept between reads, so that no notification is lost.
    wakeups: Mutex<Option<LogNotifications>>,
}

impl StoreLog {
    /// The log of this store.
    #[must_use]
    pub fn new(store: Arc<dyn TokenStore>) -> Self {
        Self {
            store,
            heartbeat: Duration::from_secs(1),
            clock_skew: KeyPolicy::default().clock_skew,
            wakeups: Mutex::default(),
        }
    }

    /// How often the authorization servers write a heartbeat (default: 1 s).
    #[must_use]
    pub const fn heartbeat(mut self, period: Duration) -> Self {
        self.heartbeat = period;
        self
    }

    /// The largest difference between the clocks of the servers that write heartbeats and the local one
    /// (default: 5 s). Zero is right only if no other process writes into the log.
    #[must_use]
    pub const fn clock_skew(mut self, most: Duration) -> Self {
        self.clock_skew = most;
        self
    }
}

#[async_trait]
impl RevocationLog for StoreLog {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let deadline = Instant::now() + wait.min(MAX_WAIT);
        let mut wakeups = self.wakeups.lock().await;
        // Before the first look: what comes after the look wakes.
        let listening = wakeups.get_or_insert_with(|| self.store.wakeups());
        loop {
            let batch = self
                .store
                .revocations(after.clone(), MAX_ENTRIES)
                .await
                .map_err(UnavailableError::other)?;
            let is_nothing =
                matches!(&batch, RevocationBatch::Entries { entries, .. } if entries.is_empty());
            if !is_nothing || Instant::now() >= deadline {
                let (heartbeat, clock_skew) = (self.heartbeat, self.clock_skew);
                return Ok(RevocationPage { batch, heartbeat, clock_skew });
            }
            match listening {
                LogNotifications::Poll(interval) => {
                    let next = Instant::now() + (*interval).clamp(MIN_INTERVAL, MAX_WAIT);
                    sleep_until(next.min(deadline)).await;
                }
                LogNotifications::Stream(stream) => {
                    if let Ok(None) = timeout_at(deadline, woken(stream)).await {
                        *wakeups = None;
                        return Err(UnavailableError::other(
                            "the store's notifications have ended",
                        ));
                    }
                }
            }
        }
    }
}

async fn woken(stream: &mut Pin<Box<dyn Stream<Item = ()> + Send>>) -> Option<()> {
    poll_fn(|context| stream.as_mut().poll_next(context)).await
}

impl fmt::Debug for StoreLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StoreLog")
            .field("store", &self.store)
            .field("heartbeat", &self.heartbeat)
            .field("clock_skew", &self.clock_skew)
            .finish_non_exhaustive()
    }
}
