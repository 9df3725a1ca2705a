//! The contexts to which sealed private keys are bound, and the check values of the key-encryption keys.

use std::sync::Arc;

use cloakroom_core::Kid;
use cloakroom_core::keys::KeyStore;
use cloakroom_core::store::{CheckValue, CheckValuesExt as _};
use zeroize::Zeroizing;

use crate::key::algorithm::Algorithm;
use crate::manager::error::KeyManagerError;
use crate::seal::{KeySealer, SealError};

/// The prefix of the name of a check value. The name that the sealer gives its key follows.
const PREFIX: &str = "sealing-key/";

/// The sealer, and the issuer whose keys it seals.
#[derive(Debug)]
pub(crate) struct Sealing {
    pub(crate) sealer: Arc<dyn KeySealer>,
    /// The issuer; empty for a ring without one.
    pub(crate) issuer: String,
    /// Its former URLs.
    pub(crate) former: Vec<String>,
}

impl Sealing {
    /// Seals the private half of a key.
    pub(crate) async fn seal(
        &self,
        generation: u64,
        algorithm: Algorithm,
        kid: &Kid,
        private: &[u8],
    ) -> Result<Vec<u8>, KeyManagerError> {
        let context = context(&self.issuer, generation, algorithm, kid);
        self.sealer.seal(&context, private).await.map_err(|source| failed(kid, source))
    }

    /// Unseals the private half of a key that was sealed for this issuer, under any of its URLs.
    pub(crate) async fn unseal(
        &self,
        generation: u64,
        algorithm: Algorithm,
        kid: &Kid,
        sealed: &[u8],
    ) -> Result<Zeroizing<Vec<u8>>, KeyManagerError> {
        let open = async |issuer: &str| {
            self.sealer.unseal(&context(issuer, generation, algorithm, kid), sealed).await
        };
        let refused = match open(&self.issuer).await {
            Ok(private) => return Ok(private),
            Err(refused) => refused,
        };
        for issuer in &self.former {
            if let Ok(private) = open(issuer).await {
                return Ok(private);
            }
        }
        Err(failed(kid, refused))
    }

    /// Compares the key-encryption keys with those that the store remembers, before they are used.
    ///
    /// # Errors
    ///
    /// If a key differs from the one with its name, or if the store fails.
    pub(crate) async fn compare(&self, store: &dyn KeyStore) -> Result<(), KeyManagerError> {
        let own = self.sealer.checks();
        if own.is_empty() {
            return Ok(());
        }
        let known = store.check_values().await?;
        for check in own {
            let name = format!("{PREFIX}{}", check.name);
            if known.iter().any(|known| known.name == name && known.value != check.value) {
                return Err(KeyManagerError::OtherSealingKey(check.name));
            }
        }
        Ok(())
    }

    /// Stores the check values of the key-encryption keys, after the ring was unsealed with them.
    ///
    /// # Errors
    ///
    /// Those of [`Sealing::compare`], since another node may have been faster.
    pub(crate) async fn claim(&self, store: &dyn KeyStore) -> Result<(), KeyManagerError> {
        for CheckValue { name, value } in self.sealer.checks() {
            if store.claim(&format!("{PREFIX}{name}"), &value).await?.is_some() {
                return Err(KeyManagerError::OtherSealingKey(name));
            }
        }
        Ok(())
    }
}

fn failed(kid: &Kid, source: SealError) -> KeyManagerError {
    KeyManagerError::Seal { kid: kid.clone(), source }
}

/// The context of a sealed private key. Neither a URL nor the name of an algorithm contains a `|`, so that no
/// two records share a context.
fn context(issuer: &str, generation: u64, algorithm: Algorithm, kid: &Kid) -> Vec<u8> {
    format!("cloakroom signing key|{issuer}|{generation}|{algorithm}|{kid}").into_bytes()
}
