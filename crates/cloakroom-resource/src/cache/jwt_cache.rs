//! JWTs whose signature was verified.

use std::fmt;
use std::time::Duration;

use cloakroom_core::Confirmation;
use cloakroom_core::time::UnixTime;

use super::{Bounded, Footprint, TokenKey, bounded};
use crate::cache::revocation_check::is_complete;
use crate::verify::token::VerifiedToken;

/// A bounded memory of JWTs that a verifier has accepted. Refused JWTs are not remembered: verifying
/// junk again costs no more than verifying other junk, and sends no request.
#[derive(Clone)]
pub(crate) struct JwtCache(std::sync::Arc<Bounded<Entry>>);

/// A JWT that was verified. What every request reads lies together in memory.
#[derive(Debug, Clone)]
pub(crate) struct CheckedJwt {
    pub(crate) token: VerifiedToken,
    /// Whether rules can check it: see `is_complete`.
    pub(crate) complete: bool,
    /// The key that the token is bound to.
    pub(crate) confirmation: Option<Confirmation>,
}

impl CheckedJwt {
    pub(crate) fn new(token: VerifiedToken) -> Self {
        let claims = token.token();
        let complete = is_complete(token.facts(), claims.expires_at, true);
        Self { complete, confirmation: claims.confirmation.clone(), token }
    }
}

#[derive(Clone)]
struct Entry {
    jwt: CheckedJwt,
    starts: UnixTime,
    ends: UnixTime,
    /// The version of the JWK Set that verified it: a key that left the set accepts nothing more.
    key_set: u64,
    bytes: usize,
}

impl Footprint for Entry {
    fn bytes(&self) -> usize {
        self.bytes
    }
}

impl JwtCache {
    pub(crate) fn new(capacity: usize) -> Self {
        Self(std::sync::Arc::new(bounded(capacity)))
    }

    /// The token, if it was accepted under this version of the keys and is valid now.
    pub(crate) fn get(
        &self,
        key: &TokenKey,
        key_set: u64,
        now: UnixTime,
        leeway: Duration,
    ) -> Option<CheckedJwt> {
        let entry = self.0.get(key)?;
        // As the verifier itself has it.
        let in_time = now < entry.ends + leeway && now + leeway >= entry.starts;
        if entry.key_set != key_set || !in_time {
            // It has to be verified again, or has expired.
            self.0.remove(key);
            return None;
        }
        Some(entry.jwt)
    }

    pub(crate) fn keep(&self, key: TokenKey, key_set: u64, jwt: &CheckedJwt, bytes: usize) {
        let claims = jwt.token.token();
        // A verifier accepts no JWT without both; without an end nothing is kept.
        let (Some(issued), Some(ends)) = (claims.issued_at, claims.expires_at) else {
            return;
        };
        let starts = claims.not_before.unwrap_or(issued).max(issued);
        let jwt = jwt.clone();
        self.0.insert(key, Entry { jwt, starts, ends, key_set, bytes });
    }

    /// Removes a token; says whether it was there.
    pub(crate) fn forget(&self, key: &TokenKey) -> bool {
        self.0.remove(key).is_some()
    }
}

impl fmt::Debug for JwtCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "JwtCache({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use cloakroom_core::ActiveToken;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn at(secs: u64) -> UnixTime {
        UnixTime::from_secs(secs)
    }

    fn accepted(issued: u64, not_before: Option<u64>, ends: u64) -> CheckedJwt {
        let mut token = ActiveToken::default();
        token.issued_at = Some(at(issued));
        token.not_before = not_before.map(at);
        token.expires_at = Some(at(ends));
        CheckedJwt::new(VerifiedToken::for_tests(token))
    }

    #[test]
    fn a_jwt_is_remembered_for_as_long_as_its_verifier_would_accept_it() {
        let leeway = 30 * SECOND;
        let key = TokenKey::of("a.b.c");
        for (issued, not_before, starts) in
            [(1000, None, 1000), (1000, Some(900), 1000), (1000, Some(1100), 1100)]
        {
            for (now, is_there) in [
                (at(starts) - leeway - MILLISECOND, false),
                (at(starts) - leeway, true),
                (at(2000), true),
                (at(2000) + leeway - MILLISECOND, true),
                (at(2000) + leeway, false),
            ] {
                let jwts = JwtCache::new(10);
                jwts.keep(key, 1, &accepted(issued, not_before, 2000), 100);
                assert_eq!(jwts.get(&key, 1, now, leeway).is_some(), is_there, "{now:?}");
                // What is over is not kept.
                assert_eq!(jwts.forget(&key), is_there, "{now:?}");
                assert!(!jwts.forget(&key));
            }
        }
    }

    #[test]
    fn a_jwt_is_forgotten_with_the_keys_that_it_was_verified_under() {
        let (jwts, key) = (JwtCache::new(10), TokenKey::of("a.b.c"));
        jwts.keep(key, 1, &accepted(1000, None, 2000), 100);
        assert!(jwts.get(&key, 1, at(1500), SECOND).is_some());
        assert!(jwts.get(&TokenKey::of("a.b.d"), 1, at(1500), SECOND).is_none());
        assert!(jwts.get(&key, 2, at(1500), SECOND).is_none());
        assert!(jwts.get(&key, 1, at(1500), SECOND).is_none(), "nor do the old keys come back");
    }

    #[test]
    fn a_large_jwt_counts_for_as_many_as_it_takes() {
        let jwts = JwtCache::new(64);
        for number in 0..64 {
            let key = TokenKey::of(&number.to_string());
            jwts.keep(key, 1, &accepted(1000, None, 2000), 16 * 1024);
        }
        let there = (0..64).filter(|number| {
            jwts.get(&TokenKey::of(&number.to_string()), 1, at(1500), SECOND).is_some()
        });
        assert!((1..=4).contains(&there.count()));
    }
}
