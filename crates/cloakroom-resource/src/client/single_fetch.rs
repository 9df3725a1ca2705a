//! A shared value that is fetched again from time to time.

use std::sync::{Arc, PoisonError, RwLock};

use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard};
use tokio::task::JoinError;

/// What is known of it, and the right to fetch it anew: one fetch at a time.
#[derive(Debug, Default)]
pub(crate) struct SingleFetch<S> {
    state: RwLock<S>,
    fetching: Arc<Mutex<()>>,
}

/// The right to fetch. The next one gets it when this is dropped.
#[derive(Debug)]
pub(crate) struct FetchPermit(#[expect(dead_code, reason = "held")] OwnedMutexGuard<()>);

impl<S> SingleFetch<S> {
    pub(crate) fn new(state: S) -> Self {
        Self { state: RwLock::new(state), fetching: Arc::default() }
    }

    pub(crate) fn read<T>(&self, read: impl FnOnce(&S) -> T) -> T {
        read(&self.state.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn write<T>(&self, write: impl FnOnce(&mut S) -> T) -> T {
        write(&mut self.state.write().unwrap_or_else(PoisonError::into_inner))
    }

    /// Waits until nobody else is fetching. Look at the state again: it may be new.
    pub(crate) async fn permit(&self) -> FetchPermit {
        FetchPermit(Arc::clone(&self.fetching).lock_owned().await)
    }

    /// The permit and a runtime to fetch in; `None` if somebody is fetching, or without a runtime.
    pub(crate) fn try_permit(&self) -> Option<(FetchPermit, Handle)> {
        let runtime = Handle::try_current().ok()?;
        let fetching = Arc::clone(&self.fetching).try_lock_owned().ok()?;
        Some((FetchPermit(fetching), runtime))
    }
}

/// Runs this in a task of its own where there is a runtime, so that a caller who goes away takes
/// nothing from those who wait.
pub(crate) async fn detached<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    match Handle::try_current() {
        Ok(runtime) => runtime.spawn(work).await,
        Err(_) => Ok(work.await),
    }
}
