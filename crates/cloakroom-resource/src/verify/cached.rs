//! Decides about a JWT, whether it is cached or has to be verified.

use super::{Keys, Verifier, is_jwt_shaped};
use crate::MAX_TOKEN_BYTES;
use crate::cache::revocation_check::{RevocationCheck, forget_revoked};
use crate::cache::{CheckedJwt, TokenKey};
use crate::error::{InvalidToken, TokenError, UnavailableError};
use crate::freshness::{self, Freshness};
use crate::metrics::{Event, Of, count};
use crate::revocation_replica::RevocationReplica;
use crate::verify::jwks::Newer;
use crate::verify::proof::Proof;
use crate::verify::token::VerifiedToken;
use crate::verify::unverified::Unverified;
use cloakroom_core::time::ClockReading;

/// What a request demands of a JWT besides a valid signature and claims.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JwtTerms<'a> {
    pub(crate) proof: &'a Proof,
    /// `None` if revocation is not checked.
    pub(crate) freshness: Option<Freshness>,
    /// Whether the route named its freshness. Otherwise it goes with the replica.
    pub(crate) is_named: bool,
    pub(crate) replica: Option<&'a RevocationReplica>,
    /// When the request began.
    pub(crate) now: ClockReading,
}

fn fresh_only(jwt: GoodJwt) -> Result<GoodJwt, TokenError> {
    match jwt {
        GoodJwt::Fresh(_) => Ok(jwt),
        GoodJwt::NotFresh(..) => Err(UnavailableError::Stale.into()),
    }
}

/// A JWT whose signature and claims are good, and whether its key is of a JWK Set that has ended.
struct Verified {
    entry: CheckedJwt,
    has_ended: bool,
}

/// A JWT that passed all checks.
#[derive(Debug)]
pub(crate) enum GoodJwt {
    /// The knowledge about revocations is as fresh as the route requires.
    Fresh(VerifiedToken),
    /// That knowledge is older, or says nothing about this token.
    NotFresh(VerifiedToken, RevocationCheck),
}

impl Verifier {
    /// What this JWT is remembered under; `None` if nothing is remembered here.
    pub(crate) fn cache_key(&self, token: &str) -> Option<TokenKey> {
        let remembers = self.cache.is_some() || self.others.iter().any(|it| it.cache.is_some());
        remembers.then(|| TokenKey::of(token))
    }

    /// Decides about a JWT that is remembered; `None` if it has to be verified.
    pub(crate) fn look_up(
        &self,
        key: &TokenKey,
        terms: JwtTerms<'_>,
    ) -> Option<Result<GoodJwt, TokenError>> {
        let own = self.look_up_own(key, terms);
        own.or_else(|| self.others.iter().find_map(|other| other.look_up_as_other(key, terms)))
    }

    fn look_up_own(
        &self,
        key: &TokenKey,
        terms: JwtTerms<'_>,
    ) -> Option<Result<GoodJwt, TokenError>> {
        let cache = self.cache.as_ref()?;
        let (version, has_ended) = match &self.keys {
            Keys::Static(keys) => (keys.version, false),
            Keys::Fetched(keys) => {
                keys.fresh_version(&self.clock, self.stale_if_error, terms.now)?
            }
        };
        let entry = cache.get(key, version, terms.now.wall(), self.leeway)?;
        count(Of::Jwt, Event::Hit);
        Some(self.decide(Verified { entry, has_ended }, Some(key), terms))
    }

    /// Verifies a JWT that is not remembered, remembers it under `key`, and decides about it.
    pub(crate) async fn verify_and_decide(
        &self,
        token: &str,
        key: Option<&TokenKey>,
        terms: JwtTerms<'_>,
    ) -> Result<GoodJwt, TokenError> {
        if self.others.is_empty() {
            let entry = self.verify_signature(token, key).await?;
            return self.decide(entry, key, terms);
        }
        let unverified = Unverified::read(token)
            .map_err(|why| InvalidToken::from(cloakroom_jwt::VerifyError::Malformed(why)))?;
        let issuer = unverified.issuer();
        let is_of = |verifier: &&Self| issuer.as_deref() == Some(&*verifier.issuer);
        match std::iter::once(self).chain(&self.others).find(is_of) {
            Some(other) if !std::ptr::eq(other, self) => {
                let key = other.cache_key(token);
                let entry = other.verify_signature(token, key.as_ref()).await?;
                other.decide_as_other(entry, key.as_ref(), terms)
            }
            Some(_) => {
                let entry = self.verify_signature(token, key).await?;
                self.decide(entry, key, terms)
            }
            None => Err(InvalidToken::Issuer.into()),
        }
    }

    fn look_up_as_other(
        &self,
        key: &TokenKey,
        terms: JwtTerms<'_>,
    ) -> Option<Result<GoodJwt, TokenError>> {
        let found = self.look_up_own(key, self.terms_as_other(terms))?;
        Some(found.and_then(fresh_only))
    }

    fn decide_as_other(
        &self,
        jwt: Verified,
        key: Option<&TokenKey>,
        terms: JwtTerms<'_>,
    ) -> Result<GoodJwt, TokenError> {
        fresh_only(self.decide(jwt, key, self.terms_as_other(terms))?)
    }

    /// The replica and the authorization server of the caller are those of the first issuer, and know
    /// nothing of this one's tokens.
    fn terms_as_other<'a>(&'a self, terms: JwtTerms<'a>) -> JwtTerms<'a> {
        let replica = self.replica.as_ref();
        // What the route named holds for every token.
        let named = terms.freshness.filter(|_| terms.is_named);
        JwtTerms { freshness: named.or_else(|| freshness::default_of(replica)), replica, ..terms }
    }

    fn decide(
        &self,
        Verified { entry, has_ended }: Verified,
        key: Option<&TokenKey>,
        JwtTerms { proof, freshness, replica, now, .. }: JwtTerms<'_>,
    ) -> Result<GoodJwt, TokenError> {
        let CheckedJwt { token, complete, confirmation } = entry;
        // The rule about a key ends when the JWK Sets with that key have ended.
        if has_ended
            && let Some((replica, kid)) = replica.zip(token.facts().kid.as_ref())
            && replica.has_named_key(kid)
        {
            return Err(InvalidToken::Revoked.into());
        }
        if !(self.trusts_gateway && token.handle_hash().is_some()) {
            proof.covers(confirmation.as_ref())?;
        }
        let Some(freshness) = freshness else {
            return Ok(GoodJwt::Fresh(token));
        };
        match RevocationCheck::new(replica, token.facts(), complete, freshness, now) {
            RevocationCheck::Revoked => {
                if forget_revoked(self.cache.as_ref(), key) {
                    count(Of::Jwt, Event::RevokedEviction);
                }
                Err(InvalidToken::Revoked.into())
            }
            RevocationCheck::Passed => Ok(GoodJwt::Fresh(token)),
            _ if freshness::is_young(token.token().issued_at, replica, freshness, now) => {
                Ok(GoodJwt::Fresh(token))
            }
            check => Ok(GoodJwt::NotFresh(token, check)),
        }
    }

    async fn verify_signature(
        &self,
        token: &str,
        key: Option<&TokenKey>,
    ) -> Result<Verified, TokenError> {
        // Junk must not cause a fetch of keys.
        if token.len() > MAX_TOKEN_BYTES {
            return Err(InvalidToken::TooLarge.into());
        }
        if !is_jwt_shaped(token) {
            return Err(InvalidToken::NotJwt.into());
        }
        if key.is_some() {
            count(Of::Jwt, Event::Miss);
        }
        let mut keys = match &self.keys {
            Keys::Static(keys) => keys.clone(),
            Keys::Fetched(keys) => keys.current(&self.clock, self.stale_if_error).await?,
        };
        let mut result = self.checks.verify(&keys.keys, token);
        // Twice: others may have fetched keys a moment ago, which lack a key that was published since.
        for _ in 0..2 {
            let (Err(error), Keys::Fetched(fetched)) = (&result, &self.keys) else { break };
            if !error.may_be_mended_by_new_keys() {
                break;
            }
            let newer = fetched.newer(keys.version, error, token, &self.clock).await?;
            let absent = match newer {
                Newer::Keys(newer, unknown) => {
                    keys = newer;
                    Some(unknown)
                }
                Newer::Perhaps(newer) => {
                    keys = newer;
                    None
                }
                Newer::None => break,
            };
            result = self.checks.verify(&keys.keys, token);
            if let (Err(error), Some(unknown)) = (&result, absent) {
                if error.may_be_mended_by_new_keys() {
                    fetched.note_absent(unknown);
                }
                break;
            }
        }
        let jwt = VerifiedToken::of_jwt(result.map_err(InvalidToken::from)?)?;
        let entry = CheckedJwt::new(jwt);
        if let (Some(cache), Some(key)) = (&self.cache, key) {
            cache.keep(*key, keys.version, &entry, token.len());
        }
        Ok(Verified { entry, has_ended: keys.has_ended })
    }
}
