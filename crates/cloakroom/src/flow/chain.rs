//! The checks that codes and refresh tokens share, in their fixed order.
//!
//! Tag → grant live → genuine → client → (for codes) redirect URI and verifier, (for refresh
//! tokens) the key that the token is bound to → generation. A failure before the last check changes
//! nothing: nobody can end a session with an old code without its verifier, or with a refresh token
//! of another client or without its key.

use std::cmp::Ordering;
use std::sync::Arc;

use cloakroom_core::handle::{ChainHandle, ChainKind};
use cloakroom_core::record::{Chain, ChainKey, GrantRecord};
use cloakroom_core::revocation::Target;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, Confirmation, GrantId, Random, TokenDigest, TokenSecret};

use crate::client::Client;
use crate::error::{GrantRefusal, TokenError};
use crate::events::Event;
use crate::issuer::Inner;
use crate::revocation::retention::TargetDetails;
use crate::revocation::store_regression::Regression;

/// The state of a genuine credential in its chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CredentialState {
    /// It can be redeemed.
    Current,
    /// It was spent, and its own retry window is open: the current credential is returned. The window of
    /// a later step does not count, or a thief who keeps rotating would keep it open.
    Retriable,
    /// It was spent, and its retry window is closed.
    Spent,
    /// It is newer than the chain: the store has gone back in time.
    Newer,
}

impl CredentialState {
    pub(crate) fn of(handle: &ChainHandle, chain: &Chain, now: UnixTime) -> Self {
        let presented = handle.generation;
        match (presented.cmp(&chain.generation), &chain.successor) {
            (Ordering::Equal, _) if handle.digest == chain.digest => Self::Current,
            (Ordering::Equal | Ordering::Greater, _) => Self::Newer,
            (Ordering::Less, Some(successor)) => {
                let is_open = if presented + 1 == chain.generation {
                    now < successor.until
                } else {
                    successor.is_recent(presented, now)
                };
                if is_open { Self::Retriable } else { Self::Spent }
            }
            (Ordering::Less, None) => Self::Spent,
        }
    }
}

/// The key that refresh tokens of a chain are bound to, and which of them are bound.
///
/// "When an authorization server supporting DPoP issues a refresh token to a public client that
/// presents a valid DPoP proof at the token endpoint, the refresh token MUST be bound to the
/// respective public key." (RFC 9449 §5) A confidential client's is not: the client's
/// authentication binds it (RFC 8705 §7.1), so that a new key or a renewed certificate ends no
/// session.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChainBinding<'a> {
    public: bool,
    key: Option<&'a Confirmation>,
    /// The first generation that is bound.
    from: u32,
}

impl<'a> ChainBinding<'a> {
    /// The binding, as the client is registered now.
    pub(crate) fn of(grant: &'a GrantRecord, chain: &Chain, client: &Client) -> Self {
        let public = client.is_public();
        Self {
            public,
            key: grant.confirmation.as_ref().filter(|_| public),
            // Every token of a new chain is bound. Without a value, the current token counts as
            // bound, and earlier ones do not, so that reuse by a thief is noticed.
            from: chain.bound_from.unwrap_or(chain.generation),
        }
    }

    /// Refuses a request that does not prove the key that this refresh token was issued for. Spent
    /// or not, the token is useless without it, and cannot end the session.
    pub(crate) fn check(
        &self,
        generation: u32,
        proved: Option<&Confirmation>,
    ) -> Result<(), GrantRefusal> {
        if self.key.is_some() && generation >= self.from && proved != self.key {
            return Err(GrantRefusal::OtherKey);
        }
        Ok(())
    }

    /// Whether a request that presents this spent credential comes from a holder other than the one
    /// that spent it: the two proved different keys.
    ///
    /// The request that spent it proved the chain's key if the next credential is bound, and none
    /// otherwise. A request that proves the chain's key always comes from its holder.
    pub(crate) fn is_second_holder(&self, generation: u32, proved: Option<&Confirmation>) -> bool {
        self.public
            && match proved {
                Some(_) => proved != self.key,
                None => self.key.is_some() && generation.saturating_add(1) >= self.from,
            }
    }

    /// The binding after a request that proves this key has moved the chain to `generation`: the
    /// confirmation of the new record, and the first generation that it binds.
    pub(crate) fn after(
        &self,
        generation: u32,
        proved: Option<&Confirmation>,
    ) -> (Option<Confirmation>, Option<u32>) {
        match self.key {
            _ if !self.public => (None, None),
            Some(key) => (Some(key.clone()), Some(self.from)),
            None => (proved.cloned(), proved.map(|_| generation)),
        }
    }
}

/// Parses a presented credential of this kind. Its outer tag must be genuine.
pub(crate) async fn chain_handle(
    inner: &Inner,
    kind: ChainKind,
    presented: &TokenSecret,
) -> Result<ChainHandle, TokenError> {
    match inner.handles.parse_chain(kind, presented.expose()) {
        Some(handle) => Ok(handle),
        None => {
            inner.foreign_keys.check(presented).await?;
            Err(GrantRefusal::Forged.into())
        }
    }
}

/// Makes a credential of a chain.
pub(crate) fn mint_credential(
    inner: &Inner,
    kind: ChainKind,
    grant: GrantId,
    generation: u32,
    key: &ChainKey,
    random: &Random,
) -> Result<(TokenSecret, TokenDigest), TokenError> {
    Ok(inner.handles.mint_chain(kind, grant, generation, key, random)?)
}

/// A request that presents a code or a refresh token.
#[derive(Clone, Copy)]
pub(crate) struct Presented<'a> {
    pub(crate) inner: &'a Arc<Inner>,
    pub(crate) handle: &'a ChainHandle,
    pub(crate) client: &'a Client,
    /// The key that the request proves.
    pub(crate) proved: Option<&'a Confirmation>,
    pub(crate) now: UnixTime,
}

impl Presented<'_> {
    /// The grant whose genuine credential `client` presents, after the checks that codes and
    /// refresh tokens share, in their order.
    pub(crate) async fn grant(&self, client: &ClientId) -> Result<Arc<GrantRecord>, TokenError> {
        self.inner.check_store_is_current().await?;
        let grant = self.inner.find(self.handle.grant).await?.ok_or(GrantRefusal::Unknown)?;
        if !grant.is_live(self.now) {
            return Err(GrantRefusal::Dead.into());
        }
        if !self.handle.is_genuine(&chain_of(&grant)?.key) {
            return Err(GrantRefusal::Forged.into());
        }
        if grant.client != *client {
            return Err(GrantRefusal::OtherClient.into());
        }
        Ok(grant)
    }

    /// Revokes the grant if this request, which presents a spent credential, comes from a second
    /// holder ([`ChainBinding::is_second_holder`]). The retry window is for one holder: of two, one
    /// would get a successor that only the other can use.
    ///
    /// This includes a request that saw its credential current and lost a race. Two keys prove two
    /// holders, whatever the clocks say. If the loser were only refused, its user would sign in
    /// again, and a thief who won the race would keep the session.
    pub(crate) async fn check_holder(&self, grant: &GrantRecord) -> Result<(), TokenError> {
        let binding = ChainBinding::of(grant, chain_of(grant)?, self.client);
        if binding.is_second_holder(self.handle.generation, self.proved) {
            return Err(self.end_for_reuse(grant).await);
        }
        Ok(())
    }

    /// Revokes the grant because a spent credential was presented (RFC 6749 §4.1.2, RFC 9700
    /// §4.14.2).
    pub(crate) async fn end_for_reuse(&self, grant: &GrantRecord) -> TokenError {
        let event = |revoked| Event::ReuseDetected {
            grant: grant.id,
            client: grant.client.clone(),
            credential: self.handle.kind.token_kind(),
            presented: self.handle.generation,
            current: generation(grant),
            revoked,
        };
        self.end(grant, event, GrantRefusal::Reused).await
    }

    /// Revokes the grant because its store has gone back in time.
    pub(crate) async fn end_for_regression(&self, grant: &GrantRecord) -> TokenError {
        let event = |revoked| Event::StoreRegressed {
            noticed: Regression::Credential {
                grant: grant.id,
                client: grant.client.clone(),
                presented: self.handle.generation,
                current: generation(grant),
                revoked,
            },
        };
        self.inner.store.memory().suspect_regression_reported();
        self.end(grant, event, GrantRefusal::Regressed).await
    }

    /// Revokes the grant, and returns the error for the request. The event says whether the
    /// revocation is confirmed.
    async fn end(
        &self,
        grant: &GrantRecord,
        event: impl Fn(bool) -> Event,
        refusal: GrantRefusal,
    ) -> TokenError {
        let details = TargetDetails::of_client(&grant.client);
        let revocation =
            self.inner.retention().revocation(Target::Grant(grant.id), details, self.now);
        match self.inner.revoke_fully(revocation, event(true), event(false)).await {
            Ok(()) => refusal.into(),
            Err(error) => error.into(),
        }
    }
}

/// The chain of a grant. Without a chain, no chain handle of the grant can be genuine.
pub(crate) fn chain_of(grant: &GrantRecord) -> Result<&Chain, TokenError> {
    grant.chain.as_ref().ok_or_else(|| GrantRefusal::Forged.into())
}

fn generation(grant: &GrantRecord) -> u32 {
    grant.chain.as_ref().map_or(0, |chain| chain.generation)
}
