//! What can be done with a database beside asking one store of it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::GrantId;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::TokenStore;

/// A database of its own, and what a factory can do with it beside opening it once. Each thing is
/// optional: the report names the checks that were not run for want of it.
///
/// ```
/// use std::sync::Arc;
/// use async_trait::async_trait;
/// use cloakroom_conformance::{Database, Instance};
/// use cloakroom_memory::MemoryStore;
///
/// /// In memory nothing survives a restart, and there is no driver that fails.
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
    /// The first instance over the data. It is asked for once.
    async fn open(&self) -> Instance;

    /// Another instance over the same data while the first is in use, as another node has it: it
    /// shares nothing with the first but the database.
    async fn another(&self) -> Option<Instance> {
        None
    }

    /// The data as a program finds it that was killed at this moment and started again. Instances of
    /// before are not asked again.
    async fn restart(&self) -> Option<Instance> {
        None
    }

    /// From now on the driver fails, for every instance, until [`Database::heal`]; whether it can
    /// fail like this. A call that fails has been answered by the store's own error.
    async fn fail(&self, failing: Failing) -> bool {
        let _ = failing;
        false
    }

    /// The driver works again.
    async fn heal(&self) {}

    /// Makes the row of this grant, which is there, unreadable; whether it can.
    async fn damage(&self, grant: GrantId) -> bool {
        let _ = grant;
        false
    }
}

/// An instance over a database: what one program holds of it.
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
    /// The first operations of the driver, this many, go well; then every one fails and has no
    /// effect. With 0 the database is out of reach; with more a call may stop half-way.
    After(u32),
    /// Every operation takes effect, and its answer is lost.
    AnswersLost,
}
