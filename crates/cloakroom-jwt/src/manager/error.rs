//! The events and errors of the key manager.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Kid;
use cloakroom_core::keys::PolicyError;
use cloakroom_core::store::StoreError;
use cloakroom_core::time::UnixTime;
use serde::Serialize;

use crate::key::signing::KeyError;
use crate::seal::SealError;

/// A change of the ring of keys that this node made. In JSON, the member `change` names it, for example
/// `rotated`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "change", rename_all = "snake_case")]
#[non_exhaustive]
pub enum KeyEvent {
    /// A new key was added to the JWK Set. It does not sign yet.
    Published {
        /// The key.
        kid: Kid,
    },
    /// The signing times of a key were set.
    Scheduled {
        /// The key.
        kid: Kid,
        /// When it starts to sign.
        from: UnixTime,
        /// When it stops signing.
        until: UnixTime,
    },
    /// The signing key was rotated on request.
    Rotated {
        /// The key that signed.
        from: Kid,
        /// The key that signs now.
        to: Kid,
    },
    /// A key was ended on request. It no longer signs, and stays published until what it signed has expired.
    Retired {
        /// The key.
        kid: Kid,
    },
    /// A key was declared compromised.
    Compromised {
        /// The key.
        kid: Kid,
    },
    /// The private half of a key was sealed again, under the current key-encryption key.
    Resealed {
        /// The key.
        kid: Kid,
    },
    /// The record of a key that is no longer needed was deleted.
    Deleted {
        /// The key.
        kid: Kid,
    },
    /// The store went back in time: it lost something that this node knows about a key. The node
    /// relies on what it knows, and writes the record again.
    Regressed {
        /// The key.
        kid: Kid,
    },
}

/// A key that was declared compromised. It is not in the JWK Set and never signs again.
///
/// To inform verifiers that follow the revocation log, write a rule about `kid` that ends at
/// `rule_until`.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "verifiers refuse what the key signed only after you write a rule on its `kid`"]
#[non_exhaustive]
pub struct Compromised {
    /// The key.
    pub kid: Kid,
    /// When the last verifier stops trusting it.
    pub rule_until: UnixTime,
}

/// The ring of keys cannot be used or changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyManagerError {
    /// Two settings contradict each other.
    #[error("the key policy is inconsistent: {0}")]
    Policy(#[from] PolicyError),
    /// The algorithm has no public keys, but others verify with the JWK Set.
    #[error("keys for {0} have no public key to publish: use ES256, EdDSA, RS256, PS256 or ES384")]
    NotPublic(crate::Algorithm),
    /// The key store failed.
    #[error("the key store failed")]
    Store(#[from] StoreError),
    /// A key-encryption key is not the one that the key store was set up with.
    #[error(
        "the sealer's key-encryption key {0} is not the key of this name that sealed the signing \
         keys: give the sealer that key again; to replace it, give the new key another id and keep \
         the old key as a former key"
    )]
    OtherSealingKey(String),
    /// The sealer lacks a key-encryption key of the key store, and no published key proves that it is not
    /// needed.
    #[error(
        "the sealer lacks the key-encryption key {0}, under which signing keys were sealed: give it that \
         key as a former key; if the key is lost and new signing keys shall be made, delete the check \
         value `sealing-key/{0}` of the key store"
    )]
    MissingSealingKey(String),
    /// The key-encryption key that this node seals with was replaced by a newer one.
    #[error(
        "the key-encryption key {key}, which seals here, was replaced by {by}: make {by} the current \
         key of the sealer, and keep {key} as a former key"
    )]
    ReplacedSealingKey {
        /// The name of the key.
        key: String,
        /// The name of the key that replaced it.
        by: String,
    },
    /// The sealer does not name its key-encryption keys, so it is not known what must be sealed again.
    #[error(
        "the sealer does not name its key-encryption keys: implement `current_key` and `key_of`"
    )]
    UnnamedSealingKeys,
    /// A private key could not be sealed or unsealed.
    #[error(
        "the private key of {kid} could not be sealed or unsealed with {}: give the sealer the \
         key-encryption key that sealed it, or, if that is lost, delete the key's record",
        sealing_key.as_ref().map_or("its key-encryption key".to_owned(), |name| {
            format!("the key-encryption key {name}")
        })
    )]
    Seal {
        /// The key.
        kid: Kid,
        /// The name of the key-encryption key, if the sealer names its keys.
        sealing_key: Option<String>,
        /// The cause.
        #[source]
        source: SealError,
    },
    /// A record of the ring is damaged.
    #[error("the record of key {kid} is damaged: {why}")]
    Damaged {
        /// The key.
        kid: Kid,
        /// What is wrong.
        why: &'static str,
    },
    /// A signing key could not be made or read.
    #[error("a signing key could not be made or read")]
    Key(#[from] KeyError),
    /// A public key could not be written as JSON.
    #[error("a public key could not be written as JSON")]
    Render(#[source] serde_json::Error),
    /// This node's copy of the ring is too old, and no newer one could be loaded.
    #[error("the ring of keys was loaded {age:?} ago, but may be used for only {limit:?}")]
    Outdated {
        /// The time since the load was sent.
        age: Duration,
        /// The time for which it may be used.
        limit: Duration,
        /// The error of the last attempt to load it, if there was one.
        #[source]
        source: Option<Arc<KeyManagerError>>,
    },
    /// No key of the ring can sign, or none is published.
    #[error("the ring has no usable key: run maintenance")]
    NoKey,
    /// Some verifiers may not have the next signing key yet.
    #[error("some verifiers may not have the next key yet: rotate again at {ready_at}")]
    SuccessorNotKnown {
        /// When the rotation becomes possible.
        ready_at: UnixTime,
    },
    /// The ring has no key with this identifier.
    #[error("the ring has no key {0}")]
    UnknownKid(Kid),
    /// The key is in the ring, or was compromised, and is not imported.
    #[error(
        "the key {0} is in the ring already, or is known as compromised: a key is imported once"
    )]
    KnownKid(Kid),
    /// Other nodes kept changing the ring at the same time.
    #[error("other nodes keep changing the ring of keys: try again")]
    Contended,
}
