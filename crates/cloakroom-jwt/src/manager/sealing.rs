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

/// The prefix of the name of the mark of a key-encryption key that was replaced. Its value is the name of
/// the newer key.
const REPLACED: &str = "sealing-key-replaced/";

/// Follows the name in a mark as long as a node may still insert a signing key that it sealed with the
/// replaced key-encryption key.
const UNFENCED: char = '*';

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
        self.sealer
            .seal(&context, private)
            .await
            .map_err(|source| failed(kid, self.sealer.current_key(), source))
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
        Err(failed(kid, self.sealer.key_of(sealed), refused))
    }

    /// Compares the key-encryption keys with those that the store remembers, before they are used.
    ///
    /// # Errors
    ///
    /// If a key differs from the one with its name, if the key that seals was replaced, or if the store
    /// fails.
    pub(crate) async fn compare(&self, store: &dyn KeyStore) -> Result<(), KeyManagerError> {
        let own = self.sealer.checks();
        if own.is_empty() && self.sealer.current_key().is_none() {
            return Ok(());
        }
        let known = store.check_values().await?;
        self.refuse_replaced(&known)?;
        for check in own {
            let name = format!("{PREFIX}{}", check.name);
            if known.iter().any(|known| known.name == name && known.value != check.value) {
                return Err(KeyManagerError::OtherSealingKey(check.name));
            }
        }
        Ok(())
    }

    /// Checks that the sealer has every key-encryption key of the store that was not replaced. A ring whose
    /// keys have all ended does not show that one is missing, and a new key would hide it.
    ///
    /// # Errors
    ///
    /// If one is missing, or if the store fails.
    pub(crate) async fn lacks_none(&self, store: &dyn KeyStore) -> Result<(), KeyManagerError> {
        let own = self.sealer.checks();
        if own.is_empty() {
            return Ok(());
        }
        let known = store.check_values().await?;
        let is_replaced = |key: &str| {
            let name = format!("{REPLACED}{key}");
            known.iter().any(|known| known.name == name)
        };
        let missing = known
            .iter()
            .filter_map(|known| known.name.strip_prefix(PREFIX))
            .find(|key| own.iter().all(|own| own.name != **key) && !is_replaced(key));
        missing.map_or(Ok(()), |key| Err(KeyManagerError::MissingSealingKey(key.to_owned())))
    }

    /// Checks that no newer key-encryption key has replaced the one that seals here.
    ///
    /// # Errors
    ///
    /// If one has, or if the store fails.
    pub(crate) async fn may_seal(&self, store: &dyn KeyStore) -> Result<(), KeyManagerError> {
        if self.sealer.current_key().is_none() {
            return Ok(());
        }
        self.refuse_replaced(&store.check_values().await?)
    }

    fn refuse_replaced(&self, known: &[CheckValue]) -> Result<(), KeyManagerError> {
        let Some(key) = self.sealer.current_key() else { return Ok(()) };
        let name = format!("{REPLACED}{key}");
        match known.iter().find(|known| known.name == name) {
            Some(mark) => {
                let by = String::from_utf8_lossy(&mark.value);
                Err(KeyManagerError::ReplacedSealingKey {
                    key,
                    by: by.trim_end_matches(UNFENCED).to_owned(),
                })
            }
            None => Ok(()),
        }
    }

    /// Marks the older key-encryption keys as replaced by the current one, so that no node that reads
    /// the marks from now on seals with them. Returns those for which [`Sealing::fence`] is still to be
    /// called.
    pub(crate) async fn mark_replaced(
        &self,
        store: &dyn KeyStore,
        current: &str,
    ) -> Result<Vec<String>, KeyManagerError> {
        let mut unfenced = Vec::new();
        for key in self.sealer.replaced_keys() {
            let mark = format!("{current}{UNFENCED}");
            let name = format!("{REPLACED}{key}");
            match store.claim(&name, mark.as_bytes()).await? {
                None => unfenced.push(key),
                // An earlier change of keys that did not end.
                Some(found) if found.ends_with(&[UNFENCED as u8]) => unfenced.push(key),
                Some(_) => {}
            }
        }
        Ok(unfenced)
    }

    /// Notes that no node can insert any more a signing key that it sealed with these key-encryption keys.
    pub(crate) async fn fence(
        &self,
        store: &dyn KeyStore,
        keys: &[String],
    ) -> Result<(), KeyManagerError> {
        let known = store.check_values().await?;
        for key in keys {
            let name = format!("{REPLACED}{key}");
            let Some(mark) = known.iter().find(|known| known.name == name) else { continue };
            if let Some((_, by)) =
                mark.value.split_last().filter(|(last, _)| **last == UNFENCED as u8)
            {
                // If another node was faster, it has noted the same.
                let _ = store.set_check_value(&name, Some(&mark.value), Some(by)).await?;
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

fn failed(kid: &Kid, sealing_key: Option<String>, source: SealError) -> KeyManagerError {
    KeyManagerError::Seal { kid: kid.clone(), sealing_key, source }
}

/// The context of a sealed private key. Neither a URL nor the name of an algorithm contains a `|`, so that no
/// two records share a context.
fn context(issuer: &str, generation: u64, algorithm: Algorithm, kid: &Kid) -> Vec<u8> {
    format!("cloakroom signing key|{issuer}|{generation}|{algorithm}|{kid}").into_bytes()
}
