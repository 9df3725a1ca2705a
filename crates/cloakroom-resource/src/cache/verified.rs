//! JWTs whose signature was verified.

use std::fmt;
use std::time::Duration;

use cloakroom_core::{Confirmation, UnixTime};

use super::{Bounded, Footprint, TokenKey, bounded};
use crate::freshness::is_complete;
use crate::verified::VerifiedToken;

/// A bounded memory of JWTs that a verifier has accepted. One that it refused is not remembered:
/// to verify junk anew costs what verifying any junk costs, and nobody is asked.
#[derive(Clone)]
pub(crate) struct VerifiedJwts(std::sync::Arc<Bounded<Verified>>);

/// A JWT that was verified. All that is looked at on every request lies together in memory.
#[derive(Debug, Clone)]
pub(crate) struct Accepted {
    pub(crate) token: VerifiedToken,
    /// Whether its facts are all that rules go by.
    pub(crate) complete: bool,
    /// The key that the token is bound to.
    pub(crate) confirmation: Option<Confirmation>,
}

impl Accepted {
    pub(crate) fn new(token: VerifiedToken) -> Self {
        let claims = token.token();
        let complete = is_complete(token.facts(), claims.expires_at, true);
        Self { complete, confirmation: claims.confirmation.clone(), token }
    }
}

#[derive(Clone)]
struct Verified {
    accepted: Accepted,
    starts: UnixTime,
    ends: UnixTime,
    /// Of the keys that it was verified under: a key that has left the set accepts nothing more.
    key_set: u64,
    bytes: usize,
}

impl Footprint for Verified {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl VerifiedJwts {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(std::sync::Arc::new(bounded(capacity)))
    }

    /// The token, if it was accepted under these very keys and its time has come and not passed.
    pub(crate) fn get(
        &self,
        key: &TokenKey,
        key_set: u64,
        now: UnixTime,
        leeway: Duration,
    ) -> Option<Accepted> {
        let verified = self.0.get(key)?;
        // As the verifier itself has it.
        let in_time = now < verified.ends + leeway && now + leeway >= verified.starts;
        if verified.key_set != key_set || !in_time {
            // It is about to be verified anew, or over.
            self.0.remove(key);
            return None;
        }
        Some(verified.accepted)
    }

    pub(crate) fn keep(&self, key: TokenKey, key_set: u64, accepted: &Accepted, bytes: usize) {
        let claims = accepted.token.token();
        // A verifier accepts no JWT without both; without an end nothing is kept.
        let (Some(issued), Some(ends)) = (claims.issued_at, claims.expires_at) else {
            return;
        };
        let starts = claims.not_before.unwrap_or(issued).max(issued);
        let accepted = accepted.clone();
        self.0.insert(key, Verified { accepted, starts, ends, key_set, bytes });
    }

    /// Removes a token; says whether it was there.
    pub(crate) fn forget(&self, key: &TokenKey) -> bool {
        self.0.remove(key).is_some()
    }
}

impl fmt::Debug for VerifiedJwts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VerifiedJwts({})", self.0.len())
    }
}
