//! Importing a signing key that another program made.

use cloakroom_core::revocation::RuleKey;
use cloakroom_jwt::{KeyEvent, KeyManagerError, SigningKey};

use crate::error::TokenError;
use crate::events::{Event, Operation};
use crate::issuer::Issuer;

impl Issuer {
    /// Publishes an existing signing key, such as one of a server that this one replaces
    /// ([`SigningKey::import_pem`], [`SigningKey::import_jwk`]). It is in the JWK Set at once, and
    /// signs after the keys that are there already, once every verifier knows it.
    /// [`Issuer::rotate_keys`] lets it sign earlier.
    ///
    /// # Errors
    ///
    /// If the key is there already or was ever marked as compromised, or a store fails.
    pub async fn import_key(&self, key: SigningKey) -> Result<KeyEvent, TokenError> {
        let kid = key.kid().clone();
        // The rule of a compromised key may outlive its record.
        let rules = self.inner.store.rules(vec![RuleKey::Key(kid.clone())]).await?;
        if !rules.rules.is_empty() {
            return Err(KeyManagerError::KnownKid(kid).into());
        }
        let otherwise = Event::Unconfirmed { operation: Operation::ImportKey, target: None };
        let imported =
            self.inner.write(otherwise, |mut write| async move { write.import_key(&key).await });
        Ok(imported.await?)
    }
}
