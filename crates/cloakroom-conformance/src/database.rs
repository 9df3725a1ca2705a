//! Databases that can do more than open one store.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::GrantId;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::TokenStore;

/// A database, and what a factory can do with it. All methods except [`open`](Database::open) are
/// optional: the report names the checks that could not be run.
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use cloakroom_conformance::{Database, Instance};
/// use cloakroom_memory::MemoryStore;
///
/// /// An in-memory database does not survive a restart, and has no driver that fails.
/// #[derive(Debug)]
/// struct InMemory(MemoryStore);
///
/// #[async_trait]
/// impl Database for InMemory {
///     async fn open(&self) -> Instance {
///         Instance::new(Arc::new(self.0.clone()), Arc::new(self.0.clone()))
///     }
///
///     async fn another(&self) -> Option<Instance> {
///         Some(self.open().await)
///     }
/// }
/// ```
#[async_trait]
pub trait Database: fmt::Debug + Send + Sync + 'static {
    /// The first instance over the data. The kit calls this once.
    async fn open(&self) -> Instance;

    /// Another instance over the same data while the first is in use, as on another node. It shares
    /// only the database with the first.
    async fn another(&self) -> Option<Instance> {
        None
    }

    /// An instance as if the program were killed now and started again. The kit no longer uses the earlier
    /// instances.
    async fn restart(&self) -> Option<Instance> {
        None
    }

    /// Makes the driver fail in this way for every instance until [`Database::heal`]. Returns
    /// `false` if it cannot. A call that fails must return the error of the store.
    async fn fail(&self, failing: Failing) -> bool {
        let _ = failing;
        false
    }

    /// Makes the driver work again.
    async fn heal(&self) {}

    /// Makes the row of this existing grant unreadable. Returns `false` if it cannot.
    async fn damage(&self, grant: GrantId) -> bool {
        let _ = grant;
        false
    }
}

/// One program's instance over a database.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Instance {
    /// Its token store.
    pub tokens: Arc<dyn TokenStore>,
    /// Its key store.
    pub keys: Arc<dyn KeyStore>,
}

impl Instance {
    /// An instance of these two stores.
    #[must_use]
    pub fn new(tokens: Arc<dyn TokenStore>, keys: Arc<dyn KeyStore>) -> Self {
        Self { tokens, keys }
    }
}

/// How a driver fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Failing {
    /// This many operations of the driver succeed. After that, every operation fails and has no effect.
    /// With 0 the database cannot be reached; with more, a call may stop half-way.
    After(u32),
    /// Every operation takes effect, but its answer is lost.
    AnswersLost,
}
