//! Taking over an access token of another system.

use cloakroom_core::format::TokenTerms;
use cloakroom_core::revocation::Epoch;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenSecret};

use crate::error::TokenError;
use crate::events::Operation;
use crate::flow::new_grant::{create, new_grant};
use crate::flow::request::Grant;
use crate::issuer::Issuer;

/// What [`Issuer::adopt`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// The token was taken over now.
    Now,
    /// The token was taken over before; nothing was changed.
    Before,
}

impl Issuer {
    /// Takes over an access token of another system: from now on it is introspected, swapped and
    /// revoked like one of ours, until `expires_at`. A registered format must recognize it, and
    /// derive its grant from its digest ([`GrantId::from_digest`]).
    ///
    /// `issued_at` is when the other system issued it: a revocation of its subject or client since
    /// then covers it, and so does one of the moment before, as long as clocks may differ. A token that was revoked by [`Issuer::revoke`] *before* it was taken over is
    /// not known to have been: take tokens over before clients may revoke them here.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] if no format recognizes it as such, or if it lives longer than
    /// [`Lifetimes::adopted_token`](crate::Lifetimes::adopted_token), for which revocations are
    /// remembered; [`TokenError::Barred`] if a revocation covers it; else as [`Issuer::issue`].
    pub async fn adopt(
        &self,
        token: &TokenSecret,
        grant: Grant,
        issued_at: UnixTime,
        expires_at: UnixTime,
    ) -> Result<Adopted, TokenError> {
        let mut grant = Box::new(grant);
        let inner = &self.inner;
        let now = inner.now();
        let located = inner
            .locator
            .locate(token)
            .await?
            .filter(|located| located.carried.is_none())
            .filter(|located| located.grant == GrantId::from_digest(&located.digest))
            .ok_or(TokenError::InvalidRequest("no token format recognizes the foreign token"))?;
        // The other system's clock may be ahead by the clock skew: of what it issues just now, that is
        // added to the life.
        if expires_at > now + inner.lifetimes.adopted_token + inner.clock_skew() {
            return Err(TokenError::InvalidRequest(
                "the foreign token outlives lifetimes.adopted_token",
            ));
        }
        let client = inner.client(&grant.client).await?;
        let confirmation = grant.confirmation.take();
        let most = grant.epoch.unwrap_or(Epoch::new(u64::MAX));
        let mut record = new_grant(inner, &client, grant, now).await?;
        record.id = located.grant;
        // Its id leaves no second try: the epoch is the store's own. And a bound is a time of ours:
        // what was issued before it must not seem to come after.
        let newest = inner.store.epoch().await?.min(most);
        let issued_for_sure = issued_at - inner.clock_skew();
        record.epoch = newest.min(Epoch::new(issued_for_sure.as_millis()));
        record.expires_at = expires_at;
        record.row_expires_at = expires_at;
        let terms = TokenTerms {
            issued_at,
            expires_at: record.expires_at,
            scope: record.scope.clone(),
            audience: record.audience.clone(),
            confirmation,
        };
        let token = terms.record(located.grant, located.digest);
        if create(inner, Operation::Adopt, record, vec![token]).await? {
            Ok(Adopted::Now)
        } else {
            Ok(Adopted::Before)
        }
    }
}
