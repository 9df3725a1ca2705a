//! Shared secrets (HS256) and unsealed private keys, for cases where nothing better is possible.
//!
//! # Unsealed private keys
//!
//! **Anyone who can read the key store can sign tokens** if private keys are stored with [`unsealed`], and
//! anyone who can write to it can replace the keys. That includes those who can read a backup. Use it only
//! if the store itself is as safe as a key would be. To stop using it, see [`formerly_unsealed`].
//!
//! # Shared secrets
//!
//! **Anyone who can verify an HS256 token can also forge one.** Every resource server that has the
//! secret can issue tokens for any user and any audience. If any of them leaks the secret, the
//! issuer's key has leaked, and there is no JWK Set from which you could remove it. Use another
//! [`Algorithm`] unless the same process signs and verifies.
//!
//! HS256 exists only in this module: its name is never parsed, a JWK of type `oct` is never read, and the
//! bytes of a public key are never used as a secret.
//!
//! ```
//! use cloakroom_core::Random;
//! use cloakroom_jwt::danger::{Hs256Key, hs256_key_set};
//! use cloakroom_jwt::Signer as _;
//!
//! let secrets = [Hs256Key::random(&Random::system())?];
//! let keys = hs256_key_set(&secrets);
//! assert!(keys.contains(secrets[0].kid()));
//! # Ok::<(), cloakroom_core::RandomError>(())
//! ```

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::store::CheckValue;
use cloakroom_core::{Kid, Random, RandomError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use crate::key::algorithm::Hs256;

use crate::key::algorithm::Algorithm;
use crate::key::key_set::{KeySet, PreparedKey, VerificationKey};
use crate::key::signing::{KeyError, SignError, Signer};
use crate::seal::{AesGcmSealer, KeySealer, SealError};

/// HMAC with SHA-256 (RFC 7518 §3.2): read the warning of [this module](self).
pub const HS256: Algorithm = Algorithm::Danger(Hs256::new());

/// A shared secret of at least 32 bytes, and the `kid` that is derived from it. It is wiped on drop and
/// redacted in `Debug`. Read the warning of [this module](self).
pub struct Hs256Key {
    secret: Zeroizing<Vec<u8>>,
    prepared: hmac::Key,
    kid: Kid,
}

impl Hs256Key {
    /// The smallest size of a secret, in bytes. RFC 7518 §3.2: a key of the same size as the hash
    /// output, or larger, MUST be used.
    pub const MIN_BYTES: usize = 32;

    /// A new random secret of 32 bytes.
    ///
    /// # Errors
    ///
    /// If the source of random bytes fails.
    pub fn random(random: &Random) -> Result<Self, RandomError> {
        let mut secret = Zeroizing::new(vec![0; Self::MIN_BYTES]);
        random.fill(&mut secret)?;
        Ok(Self::prepare(secret))
    }

    /// A key from an existing secret. The secret must be random bytes: anyone who holds a token can try
    /// passwords against it offline.
    ///
    /// # Errors
    ///
    /// If the secret is shorter than 32 bytes.
    pub fn from_secret(secret: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        if secret.len() < Self::MIN_BYTES {
            return Err(KeyError::TooShort);
        }
        Ok(Self::prepare(secret))
    }

    fn prepare(secret: Zeroizing<Vec<u8>>) -> Self {
        // A `kid` is public. With a prefix of its own, this hash of the secret is not the one that
        // some other protocol may use as a key.
        let digest =
            Sha256::new().chain_update(b"cloakroom hs256 kid").chain_update(&*secret).finalize();
        let kid = URL_SAFE_NO_PAD.encode(&digest[..16]);
        Self {
            prepared: hmac::Key::new(hmac::HMAC_SHA256, &secret),
            kid: Kid::new(kid).expect("22 characters of base64url are a kid"),
            secret,
        }
    }

    /// The secret, so that you can store it safely.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.secret
    }
}

impl fmt::Debug for Hs256Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hs256Key").field("kid", &self.kid).finish_non_exhaustive()
    }
}

#[async_trait]
impl Signer for Hs256Key {
    fn kid(&self) -> &Kid {
        &self.kid
    }

    fn algorithm(&self) -> Algorithm {
        HS256
    }

    async fn sign(&self, signing_input: &[u8]) -> Result<Vec<u8>, SignError> {
        Ok(hmac::sign(&self.prepared, signing_input).as_ref().to_vec())
    }
}

/// A set of these verification keys. A set cannot contain both shared secrets and public keys.
#[must_use]
pub fn hs256_key_set(keys: &[impl Borrow<Hs256Key>]) -> KeySet {
    KeySet::of(keys.iter().map(|key| {
        let key: &Hs256Key = key.borrow();
        VerificationKey {
            kid: key.kid.clone(),
            algorithm: HS256,
            key: PreparedKey::Secret(Box::new(key.prepared.clone())),
        }
    }))
}

/// Stores private keys as they are: read the warning of [this module](self).
///
/// ```
/// use std::sync::Arc;
/// use cloakroom_jwt::{AesGcmSealer, KeyManager, danger};
/// use cloakroom_memory::MemoryStore;
///
/// # tokio::runtime::Builder::new_current_thread().build()?.block_on(async {
/// let store = Arc::new(MemoryStore::new());
/// KeyManager::builder(store.clone(), danger::unsealed()).build().await?;
///
/// // Later: seal what is there.
/// let sealer = danger::formerly_unsealed(AesGcmSealer::new(1, [1; 32]));
/// let keys = KeyManager::builder(store.clone(), sealer).build().await?;
/// assert_eq!(keys.reseal().await?.removable, ["unsealed"]);
///
/// KeyManager::builder(store, Arc::new(AesGcmSealer::new(1, [1; 32]))).build().await?;
/// # Ok::<(), Box<dyn std::error::Error>>(()) })?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use]
pub fn unsealed() -> Arc<dyn KeySealer> {
    tracing::warn!("private signing keys are stored unsealed");
    Arc::new(Unsealed(None))
}

/// Seals with `sealer`, and also opens what was stored with [`unsealed`]. When
/// [`KeyManager::reseal`](crate::KeyManager::reseal) names `unsealed` as removable, use `sealer` alone: until
/// then, anyone who can write to the key store can replace the keys.
#[must_use]
pub fn formerly_unsealed(sealer: AesGcmSealer) -> Arc<dyn KeySealer> {
    Arc::new(Unsealed(Some(sealer)))
}

/// Does not seal, or only opens what was not sealed.
#[derive(Debug)]
struct Unsealed(Option<AesGcmSealer>);

/// The first byte of what is not sealed. No version of [`AesGcmSealer`] begins with it.
const PLAIN: u8 = 0;

/// The name of the key-encryption key that is none.
const NAME: &str = "unsealed";

#[async_trait]
impl KeySealer for Unsealed {
    async fn seal(&self, context: &[u8], plain: &[u8]) -> Result<Vec<u8>, SealError> {
        match &self.0 {
            Some(sealer) => sealer.seal(context, plain).await,
            None => Ok([&[PLAIN], plain].concat()),
        }
    }

    async fn unseal(&self, context: &[u8], sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        match (sealed, &self.0) {
            ([PLAIN, plain @ ..], _) => Ok(Zeroizing::new(plain.to_vec())),
            (_, Some(sealer)) => sealer.unseal(context, sealed).await,
            (_, None) => Err(SealError::Damaged),
        }
    }

    fn checks(&self) -> Vec<CheckValue> {
        self.0.as_ref().map_or_else(Vec::new, KeySealer::checks)
    }

    fn current_key(&self) -> Option<String> {
        self.0.as_ref().map_or_else(|| Some(NAME.to_owned()), KeySealer::current_key)
    }

    fn key_of(&self, sealed: &[u8]) -> Option<String> {
        match sealed {
            [PLAIN, ..] => Some(NAME.to_owned()),
            _ => self.0.as_ref()?.key_of(sealed),
        }
    }

    fn replaced_keys(&self) -> Vec<String> {
        let Some(sealer) = &self.0 else { return Vec::new() };
        let mut keys = sealer.replaced_keys();
        keys.push(NAME.to_owned());
        keys
    }
}
