//! What becomes of a JWT: verified or remembered, and asked about in both cases.

use super::{Keys, Verifier, is_jwt_shaped};
use crate::MAX_TOKEN_BYTES;
use crate::cache::{Accepted, TokenKey, VerifiedJwts};
use crate::error::{InvalidToken, TokenError};
use crate::freshness::{self, Freshness, RevocationStatus};
use crate::metrics::{Event, Of, count};
use crate::replica::RevocationReplica;
use crate::verify::proof::Proof;
use crate::verify::token::VerifiedToken;
use cloakroom_core::time::ClockReading;

/// A JWT in which nothing is wrong.
#[derive(Debug)]
pub(crate) enum Local {
    /// What is known of revocations is as new as the route wants it.
    Fresh(VerifiedToken),
    /// It is older, or says nothing of this token.
    Unfresh(VerifiedToken, RevocationStatus),
}

impl Verifier {
    /// Verifies a JWT, and asks the replica about it; without a `freshness` there is none.
    pub(crate) async fn judge(
        &self,
        token: &str,
        proof: &Proof,
        freshness: Option<Freshness>,
        replica: Option<&RevocationReplica>,
        now: ClockReading,
    ) -> Result<Local, TokenError> {
        let key = self.verified.as_ref().map(|verified| (verified, TokenKey::of(token)));
        let accepted = match key.and_then(|(verified, key)| self.remembered(verified, &key, now)) {
            Some(accepted) => {
                count(Of::Jwt, Event::Hit);
                accepted
            }
            // Boxed: what a request weighs that is answered from memory is little.
            None => Box::pin(self.verified(token, key)).await?,
        };
        self.weigh(accepted, key, proof, freshness, replica, now)
    }

    /// What becomes of a JWT that is remembered, where nothing but memory is needed to tell.
    pub(crate) fn recall(
        &self,
        token: &str,
        proof: &Proof,
        freshness: Option<Freshness>,
        replica: Option<&RevocationReplica>,
        now: ClockReading,
    ) -> Option<Result<VerifiedToken, TokenError>> {
        let verified = self.verified.as_ref()?;
        let key = TokenKey::of(token);
        let accepted = self.remembered(verified, &key, now)?;
        let told = match self.weigh(accepted, Some((verified, key)), proof, freshness, replica, now)
        {
            Ok(Local::Unfresh(..)) => return None,
            Ok(Local::Fresh(token)) => Ok(token),
            Err(error) => Err(error),
        };
        count(Of::Jwt, Event::Hit);
        Some(told)
    }

    fn weigh(
        &self,
        accepted: Accepted,
        key: Option<(&VerifiedJwts, TokenKey)>,
        proof: &Proof,
        freshness: Option<Freshness>,
        replica: Option<&RevocationReplica>,
        now: ClockReading,
    ) -> Result<Local, TokenError> {
        let Accepted { token, complete, confirmation } = accepted;
        if !(self.trusts_gateway && token.handle_hash().is_some()) {
            proof.covers(confirmation.as_ref())?;
        }
        let Some(freshness) = freshness else {
            return Ok(Local::Fresh(token));
        };
        match RevocationStatus::of(replica, token.facts(), complete, freshness, now) {
            RevocationStatus::Denied => {
                if key.is_some_and(|(verified, key)| verified.forget(&key)) {
                    count(Of::Jwt, Event::RevokedEviction);
                }
                Err(InvalidToken::Revoked.into())
            }
            RevocationStatus::Fresh => Ok(Local::Fresh(token)),
            _ if freshness::is_young(token.token().issued_at, replica, freshness, now) => {
                Ok(Local::Fresh(token))
            }
            standing => Ok(Local::Unfresh(token, standing)),
        }
    }

    /// The token, if it was verified under the keys that count now.
    fn remembered(
        &self,
        verified: &VerifiedJwts,
        key: &TokenKey,
        now: ClockReading,
    ) -> Option<Accepted> {
        let version = match &self.keys {
            Keys::Static(keys) => keys.version,
            Keys::Fetched(keys) => keys.fresh_version(&self.clock, now)?,
        };
        verified.get(key, version, now.wall(), self.leeway)
    }

    async fn verified(
        &self,
        token: &str,
        key: Option<(&VerifiedJwts, TokenKey)>,
    ) -> Result<Accepted, TokenError> {
        // Junk must not make anyone fetch.
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
            Keys::Fetched(keys) => keys.current(&self.clock).await?,
        };
        let mut result = self.checks.verify(&keys.keys, token);
        if let (Err(error), Keys::Fetched(fetched)) = (&result, &self.keys)
            && let Some(kid) = error.unknown_key()
            && let Some(newer) = fetched.with_key(kid, &self.clock).await?
        {
            keys = newer;
            result = self.checks.verify(&keys.keys, token);
        }
        let jwt = VerifiedToken::of_jwt(result.map_err(InvalidToken::from)?)?;
        let accepted = Accepted::new(jwt);
        if let Some((verified, key)) = key {
            verified.keep(key, keys.version, &accepted, token.len());
        }
        Ok(accepted)
    }
}
