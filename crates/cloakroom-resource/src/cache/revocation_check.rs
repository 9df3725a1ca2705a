//! Refuses revoked tokens, whether they are cached, just introspected or just verified.

use std::time::Duration;

use cloakroom_core::time::{ClockReading, UnixTime};

use super::{AnswerCache, CachedAnswer, CachedValue, JwtCache, TokenKey};
use crate::freshness::Freshness;
use crate::revocation_replica::{RevocationReplica, RevocationStatus, TokenFacts};

/// What a replica says of a token, for a route that wants it this fresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevocationCheck {
    /// A rule denies the token.
    Revoked,
    /// No rule denies it, and the rules are as new as the route wants them.
    Passed,
    /// No rule denies it, but the rules are older than that.
    Stale,
    /// There is no replica, or it cannot tell.
    Unknown,
}

impl RevocationCheck {
    /// Reads the staleness first, and the rules after it: rules are published before the staleness
    /// that counts them in, so this order can only see more of them.
    pub(crate) fn new(
        replica: Option<&RevocationReplica>,
        facts: &TokenFacts,
        complete: bool,
        freshness: Freshness,
        now: ClockReading,
    ) -> Self {
        let Some(replica) = replica else {
            return Self::Unknown;
        };
        let staleness = replica.staleness_at(now);
        Self::from_parts(staleness, replica.revocation_status(facts), complete, freshness)
    }

    fn from_parts(
        staleness: Option<Duration>,
        status: RevocationStatus,
        complete: bool,
        freshness: Freshness,
    ) -> Self {
        match status {
            RevocationStatus::Revoked => Self::Revoked,
            RevocationStatus::NotRevoked if !complete => Self::Unknown,
            RevocationStatus::NotRevoked if staleness.is_some_and(|age| freshness.allows(age)) => {
                Self::Passed
            }
            RevocationStatus::NotRevoked => Self::Stale,
            RevocationStatus::Unknown => Self::Unknown,
        }
    }
}

/// Whether everything is known of a token that a rule may name: only then does it mean something
/// that no rule denies it. Rules end when the longest-lived token that they deny has ended, so they
/// say nothing of a token without an end.
pub(crate) fn is_complete(facts: &TokenFacts, expires_at: Option<UnixTime>, is_jwt: bool) -> bool {
    expires_at.is_some()
        && facts.grant.is_some()
        && facts.epoch.is_some()
        && facts.subject.is_some()
        && facts.client.is_some()
        && facts.jti.is_some()
        && (facts.kid.is_some() || !is_jwt)
}

/// What the rules deny.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Revoked {
    Nothing,
    /// The token that was presented.
    Token,
    /// Only the token that came in exchange for it.
    Replacement,
}

/// What the rules say now of an answer. An answer that they deny is forgotten.
///
/// This also refuses an answer that a revocation crossed on its way. A rule that denies the
/// presented token is final: the token would be refused whatever a second request brought. Only
/// where the rules deny no more than the replacement, which a second request may renew, is it worth
/// asking again.
pub(crate) fn revoked<V: CachedValue>(
    replica: Option<&RevocationReplica>,
    cache: &AnswerCache<V>,
    key: &TokenKey,
    entry: &CachedAnswer<V>,
    on_eviction: impl FnOnce(),
) -> Revoked {
    let denies = |facts: &TokenFacts| {
        replica.is_some_and(|it| it.revocation_status(facts) == RevocationStatus::Revoked)
    };
    let facts = entry.answer.value.facts();
    if !denies(facts) {
        return Revoked::Nothing;
    }
    if cache.forget(key, entry) {
        on_eviction();
    }
    if V::IS_REPLACEMENT && !denies(&TokenFacts { kid: None, jti: None, ..facts.clone() }) {
        return Revoked::Replacement;
    }
    Revoked::Token
}

/// Forgets a JWT that is revoked; says whether it was remembered.
pub(crate) fn forget_revoked(cache: Option<&JwtCache>, key: Option<&TokenKey>) -> bool {
    cache.zip(key).is_some_and(|(cache, key)| cache.forget(key))
}

#[cfg(test)]
mod tests;
