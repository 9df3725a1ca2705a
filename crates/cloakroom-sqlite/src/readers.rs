//! Connections for reading. A lookup takes microseconds, so it runs on the caller's thread.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};

use cloakroom_core::store::StoreError;
use rusqlite::Connection;

/// A few connections, each used by one thread at a time.
#[derive(Debug)]
pub(crate) struct Readers {
    connections: RwLock<Vec<Mutex<Connection>>>,
}

thread_local! {
    /// The connection that the thread tries first. So threads do not block each other, and each finds the
    /// pages that it has read before.
    static PREFERRED: usize = {
        static THREADS: AtomicUsize = AtomicUsize::new(0);
        THREADS.fetch_add(1, Ordering::Relaxed)
    };
}

impl Readers {
    pub(crate) fn new(connections: Vec<Connection>) -> Self {
        Self { connections: RwLock::new(connections.into_iter().map(Mutex::new).collect()) }
    }

    /// Replaces the connections when nobody uses them.
    pub(crate) fn replace(&self, connections: Vec<Connection>) {
        *self.connections.write().unwrap_or_else(PoisonError::into_inner) =
            connections.into_iter().map(Mutex::new).collect();
    }

    pub(crate) fn read<T>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connections = self.connections.read().unwrap_or_else(PoisonError::into_inner);
        let start = PREFERRED.with(|preferred| *preferred);
        let nth = |n: usize| connections.get(start.wrapping_add(n) % connections.len().max(1));
        let free = (0..connections.len()).find_map(|n| nth(n)?.try_lock().ok());
        let connection: MutexGuard<'_, Connection> = match (free, nth(0)) {
            (Some(connection), _) => connection,
            // All are busy for some microseconds.
            (None, Some(connection)) => connection.lock().unwrap_or_else(PoisonError::into_inner),
            (None, None) => {
                return Err(StoreError::unavailable("reading", "there is no connection"));
            }
        };
        let answer = read(&connection);
        if matches!(answer, Err(StoreError::Corrupt { .. })) {
            // Damaged pages must not stay cached after they are gone from the file.
            let _ = connection.release_memory();
        }
        answer
    }
}
