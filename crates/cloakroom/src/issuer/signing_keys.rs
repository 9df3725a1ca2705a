//! Read-only access to the signing keys.

use std::fmt;
use std::sync::Arc;

use cloakroom_core::keys::KeyPolicy;
use cloakroom_core::time::Clock;
use cloakroom_jwt::{Algorithm, JwtFormat, KeyManager, Signer};

use crate::error::TokenError;

/// The keys that sign an issuer's JWTs, read-only.
///
/// To change them call [`Issuer::rotate_keys`](crate::Issuer::rotate_keys),
/// [`Issuer::compromise_key`](crate::Issuer::compromise_key) or
/// [`Issuer::maintain`](crate::Issuer::maintain), which write the rule of a compromised key and
/// report every change.
#[derive(Clone, Copy)]
pub struct SigningKeys<'a> {
    pub(super) keys: &'a KeyManager,
    pub(super) issuer: &'a str,
    pub(super) clock: &'a Arc<dyn Clock>,
}

impl SigningKeys<'_> {
    /// The key of the main ring that signs now.
    ///
    /// # Errors
    ///
    /// If the key store fails and the keys in memory are too old to be used.
    pub async fn signer(&self) -> Result<Arc<dyn Signer>, TokenError> {
        Ok(self.keys.signer().await?)
    }

    /// The key of this algorithm that signs now, or else that of the main ring; see
    /// [`KeyManager::signer_for`].
    ///
    /// # Errors
    ///
    /// If the key store fails and the keys in memory are too old to be used.
    pub async fn signer_for(&self, algorithm: Algorithm) -> Result<Arc<dyn Signer>, TokenError> {
        Ok(self.keys.signer_for(algorithm).await?)
    }

    /// The algorithms of the keys of the main ring that sign now or will sign next, each once. While the issuer changes
    /// to another algorithm there are two.
    #[must_use]
    pub fn algorithms(&self) -> Vec<Algorithm> {
        self.keys.algorithms()
    }

    /// When signing keys are published, used and deleted.
    #[must_use]
    pub fn policy(&self) -> &KeyPolicy {
        self.keys.policy()
    }

    /// A format of JWTs that these keys sign and verify, for a [`TokenFormat`] of your own that
    /// wraps it.
    ///
    /// [`TokenFormat`]: cloakroom_core::format::TokenFormat
    #[must_use]
    pub fn jwt_format(&self) -> JwtFormat {
        JwtFormat::new(self.keys.clone(), self.issuer, Arc::clone(self.clock))
    }
}

impl fmt::Debug for SigningKeys<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKeys").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}
