//! Signatures with a shared secret (HS256), for cases where no other algorithm is possible.
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

use async_trait::async_trait;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::{Kid, Random, RandomError};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

pub use crate::key::algorithm::Hs256;

use crate::key::algorithm::Algorithm;
use crate::key::key_set::{KeySet, PreparedKey, VerificationKey};
use crate::key::signing::{KeyError, SignError, Signer};

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
