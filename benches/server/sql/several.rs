//! Several connections of the raw driver.

use std::sync::atomic::{AtomicUsize, Ordering};

use cloakroom_core::store::Advance;

use crate::server::Login;
use crate::server::calls::Calls;
use crate::server::records::Key;

/// They take turns.
pub(crate) struct Several<R> {
    connections: Vec<R>,
    next: AtomicUsize,
}

impl<R> Several<R> {
    pub(crate) fn new(connections: Vec<R>) -> Self {
        Self { connections, next: AtomicUsize::new(0) }
    }

    fn next(&self) -> &R {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        &self.connections[next % self.connections.len()]
    }
}

impl<R: Calls> Calls for Several<R> {
    async fn find(&self, key: &Key) {
        self.next().find(key).await;
    }

    async fn advance(&self, step: Advance) {
        self.next().advance(step).await;
    }

    async fn create(&self, login: Login) {
        self.next().create(login).await;
    }
}
