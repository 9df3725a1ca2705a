//! The claims of an access token (RFC 9068 §2.2), made from records and read back.

use std::sync::Arc;

use cloakroom_core::format::{SelfContained, TokenTerms};
use cloakroom_core::record::{Claims, GrantRecord, RESERVED_CLAIMS, TokenRecord};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ActiveToken, InvalidValue, Jti, TokenDigest, TokenKind};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::jws::verify::VerifiedJwt;

/// The claim by which a JWT names the handle that it was swapped for: SHA-256 of the digest of the
/// handle. With it, revoking the handle also revokes the JWT. It cannot be used to look the handle up.
#[must_use]
pub fn handle_hash(handle: &TokenDigest) -> TokenDigest {
    TokenDigest::from_bytes(Sha256::digest(handle.as_bytes()).into())
}

#[derive(Serialize)]
pub(crate) struct AccessClaims {
    #[serde(flatten)]
    token: ActiveToken,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) handle_hash: Option<TokenDigest>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(crate) stateless: bool,
}

impl AccessClaims {
    /// The claims of a token with these terms. They name the user only by `sub`. `username` is for
    /// people, and only introspection shows it.
    pub(crate) fn new(issuer: &str, grant: &GrantRecord, terms: TokenTerms, jti: Jti) -> Self {
        let expires_at = UnixTime::from_secs(terms.expires_at.as_secs());
        // A JWT has a `jti`, and no store knows its digest.
        let record: TokenRecord = terms.record(grant.id, TokenDigest::from_bytes([0; 32]));
        let mut token = ActiveToken::from_records(&Arc::from(issuer), grant, &record);
        token.jti = Some(jti);
        token.expires_at = Some(expires_at);
        token.username = None;
        token.token_type = None;
        Self { token, handle_hash: None, stateless: false }
    }
}

/// The records in a verified token of this issuer; `None` if it lacks a claim that our tokens have.
pub(crate) fn carried(
    jwt: &str,
    verified: VerifiedJwt,
) -> Result<Option<SelfContained>, InvalidValue> {
    let VerifiedJwt { kid, token, stateless, .. } = verified;
    let (
        Some(client),
        Some(subject),
        Some(audience),
        Some(id),
        Some(epoch),
        Some(issued_at),
        Some(expires_at),
        Some(jti),
    ) = (
        token.client,
        token.subject,
        token.audience,
        token.grant,
        token.epoch,
        token.issued_at,
        token.expires_at,
        token.jti,
    )
    else {
        return Ok(None);
    };
    let own = token.extra.into_iter();
    let claims = Claims::new(own.filter(|(name, _)| !RESERVED_CLAIMS.contains(&name.as_str())))?;
    let mut terms = TokenTerms::new(issued_at, expires_at, token.scope.clone(), audience.clone());
    terms.confirmation = token.confirmation.clone();
    // The stored grant may have other claims than the token was issued with.
    terms.claims = Some(claims.clone());
    let mut grant = GrantRecord::new(id, client, subject, audience, issued_at, expires_at);
    grant.scope = token.scope;
    grant.confirmation = token.confirmation;
    grant.auth_time = token.auth_time;
    grant.acr = token.acr.map(Into::into);
    grant.epoch = epoch;
    grant.act = token.act.map(Box::new);
    grant.authorization_details = token.authorization_details.map(Box::new);
    grant.session = token.session.map(Into::into);
    grant.claims = claims;
    let record = terms.record(id, TokenDigest::compute(TokenKind::Access, jwt.as_bytes()));
    let mut carried = SelfContained::new(grant, record, jti, kid);
    carried.stateless = stateless;
    Ok(Some(carried))
}
