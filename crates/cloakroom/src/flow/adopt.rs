//! Taking over an access token of another system.

use std::ops::Range;

use cloakroom_core::GrantId;
use cloakroom_core::format::TokenTerms;
use cloakroom_core::revocation::Epoch;

use crate::error::TokenError;
use crate::events::Operation;
use crate::flow::new_grant::{create, new_grant};
use crate::flow::request::AdoptRequest;
use crate::issuer::Issuer;

/// What [`Issuer::adopt`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::exhaustive_enums, reason = "a token is taken over now, or was before")]
pub enum Adopted {
    /// The token was taken over now.
    Now,
    /// The token was taken over before; nothing was changed.
    Before,
}

impl Issuer {
    /// Takes over an access token of another system. From now on it is introspected, swapped and
    /// revoked like a token of this issuer, until it expires. A registered format must recognize
    /// it, and derive its grant from its digest ([`GrantId::from_digest`]).
    ///
    /// A revocation of its subject or client after the token was issued covers it. Because clocks
    /// may differ, a revocation from shortly before may cover it, too. A revocation of the token itself by
    /// [`Issuer::revoke`] *before* it is taken over has no effect: take tokens over before clients
    /// may revoke them here.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] if no format recognizes the token as foreign, or if its
    /// lifetime is longer than [`Lifetimes::adopted_token`](crate::Lifetimes::adopted_token), the
    /// time for which revocations are remembered; [`TokenError::Barred`] if a revocation covers it;
    /// otherwise the errors of [`Issuer::issue`].
    pub async fn adopt(&self, request: AdoptRequest) -> Result<Adopted, TokenError> {
        let AdoptRequest { token, grant, validity } = request;
        let Range { start: issued_at, end: expires_at } = validity;
        let mut grant = Box::new(grant);
        let inner = &self.inner;
        let now = inner.now();
        let located = inner
            .locator
            .locate(&token)
            .await?
            .filter(|located| located.carried.is_none())
            .filter(|located| located.grant == GrantId::from_digest(&located.digest))
            .ok_or(TokenError::InvalidRequest("no token format recognizes the foreign token"))?;
        // The other system's clock may be ahead by the clock skew, which then adds to the life of a
        // token that it issues now.
        if expires_at > now + inner.lifetimes.adopted_token + inner.clock_skew() {
            return Err(TokenError::InvalidRequest(
                "the foreign token outlives lifetimes.adopted_token",
            ));
        }
        let client = inner.client(&grant.client).await?;
        let confirmation = grant.confirmation.take();
        let max_epoch = grant.epoch.unwrap_or(Epoch::new(u64::MAX));
        // The id is fixed, so there is no second try: the epoch comes from the store itself. A
        // bound is a time of this issuer's clock: what was issued before it must not seem to come
        // after.
        let newest = inner.store.epoch().await?.min(max_epoch);
        let mut record = new_grant(inner, &client, grant, now, &inner.random).await?;
        record.id = located.grant;
        let issued_no_later = issued_at - inner.clock_skew();
        record.epoch = newest.min(Epoch::new(issued_no_later.as_millis()));
        record.expires_at = expires_at;
        record.row_expires_at = expires_at;
        let (scope, audience) = (record.scope.clone(), record.audience.clone());
        let mut terms = TokenTerms::new(issued_at, record.expires_at, scope, audience);
        terms.confirmation = confirmation;
        let token = terms.record(located.grant, located.digest);
        if create(inner, Operation::Adopt, record, vec![token]).await? {
            Ok(Adopted::Now)
        } else {
            Ok(Adopted::Before)
        }
    }
}
