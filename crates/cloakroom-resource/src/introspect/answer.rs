//! Introspected tokens.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ActiveToken, Introspection, TokenSecret};

use crate::cache::revocation_check::is_complete;
use crate::cache::{Answer, CachedValue, Refused};
use crate::error::InvalidToken;
use crate::introspect::Introspector;
use crate::layer::token_source::{ServerQuery, ServerReply};
use crate::metrics::Of;
use crate::revocation_replica::TokenFacts;
use crate::verify::is_jwt_shaped;
use crate::verify::token::VerifiedToken;
use crate::verify::unverified::Unverified;

/// How far ahead `nbf` may be: the default of a verifier.
const LEEWAY: Duration = Duration::from_secs(30);

/// Introspects tokens for one resource.
#[derive(Debug, Clone)]
pub(crate) struct Introspect {
    pub(crate) introspector: Arc<dyn Introspector>,
    pub(crate) issuer: Arc<str>,
    pub(crate) audience: Arc<str>,
    /// A verifier has checked the issuer and audience of JWTs: only whether they are active counts.
    pub(crate) verifies_jwts: bool,
}

#[async_trait]
impl ServerQuery for Introspect {
    type Value = VerifiedToken;

    const OF: Of = Of::Introspection;

    async fn send(&self, token: &TokenSecret) -> ServerReply<VerifiedToken> {
        let active = match self.introspector.introspect(token).await? {
            Introspection::Active(active) => *active,
            Introspection::Inactive => return Ok(Err(Refused(InvalidToken::Inactive))),
        };
        let is_jwt = is_jwt_shaped(token.expose());
        if !(is_jwt && self.verifies_jwts)
            && let Err(why) = self.check_recipient(&active)
        {
            return Ok(Err(Refused(why)));
        }
        // The answer names neither the key that signed a JWT nor its handle. The JWT does, and an active
        // JWT can be believed.
        let jwt = is_jwt.then(|| Unverified::read(token.expose()).ok()).flatten();
        let (kid, handle_hash) = jwt.map_or((None, None), |jwt| (jwt.kid(), jwt.handle_hash()));
        let bytes = serde_json::to_vec(&active).map_or(0, |json| json.len());
        let (not_before, expires_at) = (active.not_before, active.expires_at);
        let confirmation = active.confirmation.clone();
        Ok(VerifiedToken::of_introspected(active, kid, handle_hash)
            .map(|value| {
                let complete = is_complete(value.facts(), expires_at, is_jwt);
                Answer { value, complete, not_before, expires_at, confirmation, bytes }
            })
            .map_err(Refused))
    }
}

impl CachedValue for VerifiedToken {
    const IS_REPLACEMENT: bool = false;

    fn facts(&self) -> &TokenFacts {
        self.facts()
    }
}

impl Introspect {
    /// The authorization server says that the token is active; the resource has to check that the token
    /// is meant for it (RFC 7662 §2.2, RFC 9700 §2.3).
    fn check_recipient(&self, token: &ActiveToken) -> Result<(), InvalidToken> {
        if !matches!(&token.audience, Some(audience) if audience.contains(&self.audience)) {
            return Err(InvalidToken::Audience);
        }
        if matches!(&token.issuer, Some(issuer) if *issuer != self.issuer) {
            return Err(InvalidToken::Issuer);
        }
        Ok(())
    }
}

/// Whether an introspected token is valid at this time. Every request checks it.
pub(crate) fn is_in_time<V>(answer: &Answer<V>, now: UnixTime) -> Result<(), InvalidToken> {
    if answer.expires_at.is_some_and(|end| end <= now) {
        return Err(InvalidToken::Expired);
    }
    if answer.not_before.is_some_and(|start| start > now + LEEWAY) {
        return Err(InvalidToken::NotYetValid);
    }
    Ok(())
}
