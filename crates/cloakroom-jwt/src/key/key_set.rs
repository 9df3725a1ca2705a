//! Sets of prepared verification keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use aws_lc_rs::hmac;
use aws_lc_rs::signature::ParsedPublicKey;
use cloakroom_core::Kid;

use crate::key::algorithm::Algorithm;
use crate::key::encoded_header::{ACCESS_TOKEN_TYP, encoded_header};
use crate::key::jwk::Jwk;
use crate::key::jwk_set::JwkSet;

/// The keys that a [`Verifier`](crate::Verifier) trusts. Each is parsed once and pinned to one algorithm.
/// A clone is cheap. The default is empty and verifies nothing.
///
/// ```
/// use cloakroom_jwt::{Algorithm, JwkSet, KeySet, SigningKey};
///
/// let key = SigningKey::generate(Algorithm::EdDsa)?;
/// let keys = KeySet::prepare(&JwkSet::new(vec![key.public_jwk().clone()]));
/// assert!(keys.contains(key.kid()));
/// assert!(!KeySet::default().contains(key.kid()));
/// # Ok::<(), cloakroom_jwt::KeyError>(())
/// ```
#[derive(Clone, Default)]
pub struct KeySet(Arc<Keys>);

#[derive(Default)]
struct Keys {
    all: Vec<VerificationKey>,
    /// A `kid` may name several keys with different algorithms.
    by_kid: HashMap<Kid, Vec<usize>>,
    /// The header segment that `sign_jwt` writes with this key.
    by_header: HashMap<String, usize>,
}

impl KeySet {
    /// Prepares the usable keys of a JWK Set.
    ///
    /// A key without `alg` gets the algorithm of its curve, or RS256 if it is an RSA key. A key
    /// without `kid` is named by its thumbprint (RFC 7638). A `kid` may name several keys with
    /// different algorithms.
    ///
    /// It skips a key whose `use` is not `sig` or whose `key_ops` lack `verify`, and a second key
    /// with the same `kid` and algorithm. Each causes a warning in the trace.
    #[must_use]
    pub fn prepare(set: &JwkSet) -> Self {
        Self::of(set.iter().filter_map(|jwk| {
            prepare(jwk)
                .inspect_err(|why| tracing::warn!(kid = ?jwk.kid(), why, "a JWK cannot be used"))
                .ok()
        }))
    }

    /// Whether the set has a key with this `kid`.
    #[must_use]
    pub fn contains(&self, kid: &Kid) -> bool {
        self.0.by_kid.contains_key(kid)
    }

    /// The `kid`s of the keys, in the order of the set.
    #[must_use]
    pub fn kids(&self) -> impl ExactSizeIterator<Item = &Kid> {
        self.0.all.iter().map(|key| &key.kid)
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.all.is_empty()
    }

    pub(crate) fn of(keys: impl IntoIterator<Item = VerificationKey>) -> Self {
        let mut set = Keys::default();
        for key in keys {
            let place = set.all.len();
            let of_kid = set.by_kid.entry(key.kid.clone()).or_default();
            if of_kid.iter().any(|&at| set.all[at].algorithm == key.algorithm) {
                tracing::warn!(kid = ?key.kid, "a second key with the same kid and algorithm is ignored");
                continue;
            }
            of_kid.push(place);
            set.by_header.insert(encoded_header(key.algorithm, &key.kid, ACCESS_TOKEN_TYP), place);
            set.all.push(key);
        }
        Self(Arc::new(set))
    }

    /// The key whose access tokens start with this header segment.
    pub(crate) fn by_header(&self, segment: &str) -> Option<&VerificationKey> {
        self.0.by_header.get(segment).map(|&at| &self.0.all[at])
    }

    /// The key of this name for this algorithm.
    pub(crate) fn get(&self, kid: &Kid, alg: &str) -> Option<&VerificationKey> {
        let of_kid = self.0.by_kid.get(kid)?;
        of_kid.iter().map(|&at| &self.0.all[at]).find(|key| key.algorithm.is_named(alg))
    }

    /// All keys for this algorithm.
    pub(crate) fn of_algorithm(&self, alg: &str) -> impl Iterator<Item = &VerificationKey> {
        self.0.all.iter().filter(move |key| key.algorithm.is_named(alg))
    }
}

impl fmt::Debug for KeySet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.all.iter().map(|key| (&key.kid, key.algorithm))).finish()
    }
}

fn prepare(jwk: &Jwk) -> Result<VerificationKey, &'static str> {
    if !jwk.may_verify() {
        return Err("it is not for verifying signatures");
    }
    let algorithm = jwk.pinned();
    Ok(VerificationKey {
        kid: jwk.kid().cloned().unwrap_or_else(|| jwk.thumbprint()),
        algorithm,
        key: PreparedKey::Public(jwk.material.prepare(algorithm)?),
    })
}

/// A key that is prepared for one algorithm.
pub(crate) struct VerificationKey {
    pub(crate) kid: Kid,
    pub(crate) algorithm: Algorithm,
    pub(crate) key: PreparedKey,
}

pub(crate) enum PreparedKey {
    Public(ParsedPublicKey),
    Secret(Box<hmac::Key>),
}

impl VerificationKey {
    pub(crate) fn verifies(&self, input: &[u8], signature: &[u8]) -> bool {
        match &self.key {
            PreparedKey::Public(key) => key.verify_sig(input, signature).is_ok(),
            PreparedKey::Secret(key) => hmac::verify(key, input, signature).is_ok(),
        }
    }
}
