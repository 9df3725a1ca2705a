//! What the key manager reports: what it did, and what it could not do.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Kid;
use cloakroom_core::keys::PolicyError;
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use serde::Serialize;

use crate::key::signing::KeyError;
use crate::seal::SealError;

/// A change of the ring of keys that this node made. In JSON, `change` names it: `rotated`, for example.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyEvent {
    /// A new key is in the JWK Set; it does not sign yet.
    Published {
        /// Which.
        kid: Kid,
    },
    /// A key's signing times were written.
    Scheduled {
        /// Which.
        kid: Kid,
        /// From when it is meant to sign.
        from: UnixTime,
        /// Until when it signs.
        until: UnixTime,
    },
    /// The signing key was changed on order.
    Rotated {
        /// The key that signed.
        from: Kid,
        /// The key that signs now.
        to: Kid,
    },
    /// A key was declared compromised.
    Compromised {
        /// Which.
        kid: Kid,
    },
    /// The record of a key that nobody needs any more was deleted.
    Deleted {
        /// Which.
        kid: Kid,
    },
    /// The store has forgotten what this node knows of a key: it went back in time. The key is used
    /// as this node knows it, and its record is written again.
    Regressed {
        /// Which.
        kid: Kid,
    },
}

/// A key that was declared compromised: out of the JWK Set, and never signs again.
///
/// Verifiers that follow the revocation log must be told: write a rule on `kid` that lives until
/// `rule_until`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "verifiers drop what the key signed only once a rule on its `kid` is written"]
#[non_exhaustive]
pub struct Compromised {
    /// The key.
    pub kid: Kid,
    /// Until when a verifier might have trusted it.
    pub rule_until: UnixTime,
}

/// The ring of keys cannot be used, or not be changed, just now.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyManagerError {
    /// Settings that contradict each other.
    #[error("the key policy is inconsistent: {0}")]
    Policy(#[from] PolicyError),
    /// Other parties verify with the JWK Set, so every key in it must have a public half.
    #[error("keys of {0} have no public half to publish: use ES256, EdDSA, RS256, PS256 or ES384")]
    NotPublic(crate::Algorithm),
    /// The key store failed.
    #[error("the key store failed")]
    Store(#[from] StoreError),
    /// A key-encryption key is another than the one that the key store was set up with.
    #[error(
        "the sealer's key-encryption key {0} is not the key of this name that sealed the signing \
         keys: give the sealer that key again; to replace it, give the new one another id and keep \
         the old one as a former key"
    )]
    OtherSealingKey(String),
    /// A private key cannot be sealed or unsealed.
    #[error(
        "the private key of {kid} cannot be sealed or unsealed: give the sealer the \
         key-encryption key that sealed it, or, if that is lost, delete the key's record"
    )]
    Seal {
        /// The key.
        kid: Kid,
        /// Why.
        #[source]
        source: SealError,
    },
    /// A record of the ring is not what this library wrote.
    #[error("the record of key {kid} is damaged: {why}")]
    Damaged {
        /// The key.
        kid: Kid,
        /// What is wrong.
        why: &'static str,
    },
    /// A key could not be made or read.
    #[error("a signing key could not be made or read")]
    Key(#[from] KeyError),
    /// A public key could not be written as JSON.
    #[error("a public key could not be written as JSON")]
    Render(#[source] serde_json::Error),
    /// What this node knows of the ring is too old to be used, and no newer could be had.
    #[error("the ring of keys was loaded {age:?} ago, and may be used for {limit:?}")]
    Outdated {
        /// How long ago its load was sent.
        age: Duration,
        /// How long it may be used.
        limit: Duration,
        /// Why the last attempt to load it failed, if there was one.
        #[source]
        source: Option<Arc<KeyManagerError>>,
    },
    /// No key of the ring signs, or none is published.
    #[error("the ring holds no usable key: let maintenance run")]
    NoKey,
    /// Not every verifier knows the key that would sign next.
    #[error("not every verifier knows the next key yet: rotate again at {ready_at:?}")]
    SuccessorNotKnown {
        /// From when the change is possible.
        ready_at: UnixTime,
    },
    /// No key of the ring has this identifier.
    #[error("the ring holds no key {0}")]
    UnknownKid(Kid),
    /// Other nodes changed the ring again and again, at the same time.
    #[error("the ring of keys never came to rest: try again")]
    Contended,
}
