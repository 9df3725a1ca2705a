//! JWTs whose signature was verified.

use std::fmt;
use std::time::Duration;

use cloakroom_core::UnixTime;

use super::{Bounded, Footprint, TokenKey, bounded};
use crate::verified::VerifiedToken;

/// A bounded memory of JWTs that a verifier has accepted. One that it refused is not remembered:
/// to verify junk anew costs what verifying any junk costs, and nobody is asked.
#[derive(Clone)]
pub(crate) struct VerifiedJwts(std::sync::Arc<Bounded<Verified>>);

#[derive(Clone)]
struct Verified {
    token: VerifiedToken,
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
    ) -> Option<VerifiedToken> {
        let verified = self.0.get(key)?;
        // As the verifier itself has it.
        let in_time = now < verified.ends + leeway && now + leeway >= verified.starts;
        if verified.key_set != key_set || !in_time {
            // It is about to be verified anew, or over.
            self.0.remove(key);
            return None;
        }
        Some(verified.token)
    }

    pub(crate) fn keep(&self, key: TokenKey, key_set: u64, token: &VerifiedToken, bytes: usize) {
        let claims = token.token();
        // A verifier accepts no JWT without both; without an end nothing is kept.
        let (Some(issued), Some(ends)) = (claims.issued_at, claims.expires_at) else {
            return;
        };
        let starts = claims.not_before.unwrap_or(issued).max(issued);
        self.0.insert(key, Verified { token: token.clone(), starts, ends, key_set, bytes });
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
