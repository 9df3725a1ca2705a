//! The signs that a store went back in time.

use cloakroom_core::revocation::Epoch;
use cloakroom_core::{ClientId, GrantId, Kid};
use serde::Serialize;

/// How a server noticed that its store went back in time, in
/// [`Event::StoreRegressed`](crate::Event::StoreRegressed). The cause is a restored backup, or a
/// failover that lost writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "noticed", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Regression {
    /// A genuine credential is newer than its chain. The grant is revoked.
    Credential {
        /// The grant.
        grant: GrantId,
        /// The client that presented it.
        client: ClientId,
        /// The generation of the presented credential.
        presented: u32,
        /// The generation of the chain.
        current: u32,
        /// Whether the store has confirmed that the grant is revoked. If not, call
        /// [`Issuer::revoke_grant`](crate::Issuer::revoke_grant).
        revoked: bool,
    },
    /// The revocation log has lost entries that this server had read and that have not ended.
    Log,
    /// The revocation log lacks an entry that this server wrote.
    Written,
    /// The newest bound is lower than one that this server has seen.
    Bound {
        /// The bound that was seen before.
        seen: Epoch,
        /// The newest bound as it is now.
        found: Epoch,
    },
    /// The key store has lost a change of a signing key.
    Key {
        /// The key.
        kid: Kid,
    },
}
