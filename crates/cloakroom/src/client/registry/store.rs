//! Where registrations are kept.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cloakroom_core::ClientId;
use cloakroom_core::time::UnixTime;

use super::registered_client::RegisteredClient;
use crate::client::directory::DirectoryError;

/// Keeps the registrations of [`RegisteredClients`](super::RegisteredClients). Implement it over your
/// database with [`#[async_trait]`](macro@crate::async_trait), so that registrations outlive a restart and
/// all nodes know them. A registration is one row, and each method is one statement:
///
/// | column | is |
/// |---|---|
/// | `id` | [`RegisteredClient::id`], the primary key |
/// | `client` | the [`RegisteredClient`], as JSON |
/// | `grants` | how many grants were counted, 0 at first |
/// | `used_at` | when the client registered, then when its last grant was counted |
///
/// The page "Registrations in a database" of the cookbook has one for SQLite.
///
/// # Errors
///
/// Every method fails if the database cannot be reached. Return an error then, and neither `None` nor
/// `false`.
#[async_trait]
pub trait RegistrationStore: fmt::Debug + Send + Sync + 'static {
    /// Adds a registration without grants, unless there are `at_most` or more. Returns whether it did.
    async fn insert(
        &self,
        client: RegisteredClient,
        at_most: usize,
    ) -> Result<bool, DirectoryError>;

    /// The registration with this identifier, and how many grants were counted. It must show every
    /// change that was acknowledged before: do not keep it in a cache.
    async fn find(&self, id: &ClientId) -> Result<Option<(RegisteredClient, u64)>, DirectoryError>;

    /// Replaces the client of the registration with the same identifier, and nothing else. `false` if there
    /// is none.
    async fn update(&self, client: RegisteredClient) -> Result<bool, DirectoryError>;

    /// Adds one to the number of grants. `false` if there is no such registration.
    async fn count_grant(&self, id: &ClientId, now: UnixTime) -> Result<bool, DirectoryError>;

    /// Deletes the registration with this identifier, if it has exactly this number of grants: compare and
    /// delete in one step. Returns whether it did.
    async fn remove(&self, id: &ClientId, grants: u64) -> Result<bool, DirectoryError>;

    /// Deletes one registration that may make room for another: of those without a grant, the one that
    /// registered first; otherwise, the one that was not used for the longest time. `false` if there is
    /// none.
    async fn make_room(&self, replaceable: Replaceable) -> Result<bool, DirectoryError>;
}

/// Which registrations may make room for new ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replaceable {
    /// Those without a grant that registered by then.
    pub registered_by: UnixTime,
    /// Those whose last grant was counted by then.
    pub granted_by: UnixTime,
}

/// Registrations in memory, which a restart forgets.
#[derive(Default)]
pub(super) struct InMemory(Mutex<HashMap<ClientId, Row>>);

struct Row {
    client: RegisteredClient,
    grants: u64,
    used_at: UnixTime,
}

impl InMemory {
    fn rows(&self) -> MutexGuard<'_, HashMap<ClientId, Row>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemory").field("clients", &self.rows().len()).finish()
    }
}

#[async_trait]
impl RegistrationStore for InMemory {
    async fn insert(
        &self,
        client: RegisteredClient,
        at_most: usize,
    ) -> Result<bool, DirectoryError> {
        let mut rows = self.rows();
        if rows.len() >= at_most {
            return Ok(false);
        }
        let used_at = client.created_at();
        rows.insert(client.id().clone(), Row { client, grants: 0, used_at });
        Ok(true)
    }

    async fn find(&self, id: &ClientId) -> Result<Option<(RegisteredClient, u64)>, DirectoryError> {
        Ok(self.rows().get(id).map(|row| (row.client.clone(), row.grants)))
    }

    async fn update(&self, client: RegisteredClient) -> Result<bool, DirectoryError> {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(client.id()) else { return Ok(false) };
        row.client = client;
        Ok(true)
    }

    async fn count_grant(&self, id: &ClientId, now: UnixTime) -> Result<bool, DirectoryError> {
        let mut rows = self.rows();
        let Some(row) = rows.get_mut(id) else { return Ok(false) };
        (row.grants, row.used_at) = (row.grants + 1, now);
        Ok(true)
    }

    async fn remove(&self, id: &ClientId, grants: u64) -> Result<bool, DirectoryError> {
        let mut rows = self.rows();
        let is_unchanged = rows.get(id).is_some_and(|row| row.grants == grants);
        Ok(is_unchanged && rows.remove(id).is_some())
    }

    async fn make_room(&self, replaceable: Replaceable) -> Result<bool, DirectoryError> {
        let Replaceable { registered_by, granted_by } = replaceable;
        let mut rows = self.rows();
        let first = rows
            .iter()
            .filter(|(_, row)| {
                row.used_at <= if row.grants == 0 { registered_by } else { granted_by }
            })
            .min_by_key(|(_, row)| (row.grants > 0, row.used_at))
            .map(|(id, _)| id.clone());
        Ok(first.is_some_and(|first| rows.remove(&first).is_some()))
    }
}
