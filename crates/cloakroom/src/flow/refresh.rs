//! Redeeming a refresh token (RFC 6749 §6).

use std::sync::Arc;

use cloakroom_core::handle::ChainKind;
use cloakroom_core::record::{Chain, GrantRecord, SealedSuccessor, SpentBefore};
use cloakroom_core::store::{Advance, AdvanceOutcome, ChainUpdate};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Random, TokenKind, TokenSecret};

use crate::client::registration::GrantType;
use crate::error::{GrantRefusal, TokenError};
use crate::events::{Event, Operation};
use crate::flow::chain::{
    ChainBinding, CredentialState, Presented, chain_handle, chain_of, mint_credential,
};
use crate::flow::expiry::{refresh_expiry, row_expiry};
use crate::flow::mint::{MintRequest, NewToken};
use crate::flow::narrow_scope::{narrow_audience, narrow_scope};
use crate::flow::request::{RefreshRequest, TokenResponse};
use crate::flow::successor;
use crate::issuer::{Inner, Issuer};

/// The random bytes of a rotation: the secrets of two tokens, and the nonce of the sealed successor.
const RANDOM_BYTES: usize = 24 + 24 + 12;

impl Issuer {
    /// Redeems a refresh token for a new access token, and for its successor if it rotates.
    ///
    /// A client that lost the response, or a second tab, gets the *same* successor if it presents
    /// the token again within the retry window. After the window, presenting a spent token is
    /// reuse, and the grant is revoked.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidGrant`] if the token cannot be redeemed; [`TokenError::InvalidScope`]
    /// or [`TokenError::InvalidTarget`] for more than was granted; else if a store, the directory
    /// or a format fails. After such a failure the client may send the same token again.
    pub async fn refresh(&self, request: RefreshRequest) -> Result<TokenResponse, TokenError> {
        let client = request.client.clone();
        let answer = refresh(&self.inner, request).await;
        self.inner.refusals.grant(&client, TokenKind::Refresh, &answer);
        answer
    }
}

async fn refresh(inner: &Arc<Inner>, request: RefreshRequest) -> Result<TokenResponse, TokenError> {
    let now = inner.now();
    inner.warn_if_unmaintained(now);
    let handle = chain_handle(inner, ChainKind::Refresh, &request.token).await?;
    let client = inner.client(&request.client).await?;
    if !client.allows(GrantType::RefreshToken) {
        return Err(TokenError::UnauthorizedClient("the client may not refresh"));
    }
    let proved = request.confirmation.as_ref();
    let presented = Presented { inner, handle: &handle, client: &client, proved, now };
    let grant = presented.grant(&request.client).await?;
    let attempt = Attempt { presented, request: &request };
    let chain = chain_of(&grant)?;
    let binding = ChainBinding::of(&grant, chain, &client);
    binding.check(handle.generation, proved)?;
    match CredentialState::of(&handle, chain, now) {
        CredentialState::Current if now >= chain.expires_at => Err(GrantRefusal::Dead.into()),
        CredentialState::Current if chain.rotates || client.rotates_refresh_tokens() => {
            attempt.rotate(&grant, chain).await
        }
        CredentialState::Current => attempt.attach(&grant, chain, None).await,
        CredentialState::Retriable => {
            presented.check_holder(&grant).await?;
            attempt.retry(&grant).await
        }
        // Refused, and the grant stays live.
        CredentialState::SpentRecently => {
            presented.check_holder(&grant).await?;
            Err(GrantRefusal::Spent.into())
        }
        CredentialState::Spent => Err(presented.end_for_reuse(&grant).await),
        CredentialState::Newer => Err(presented.end_for_regression(&grant).await),
    }
}

/// A request to refresh that has passed every check but the generation.
struct Attempt<'a> {
    presented: Presented<'a>,
    request: &'a RefreshRequest,
}

impl Attempt<'_> {
    /// Moves the chain to its next generation.
    async fn rotate(
        &self,
        grant: &Arc<GrantRecord>,
        chain: &Chain,
    ) -> Result<TokenResponse, TokenError> {
        let Presented { inner, handle, client, proved, now } = self.presented;
        let lifetimes = inner.lifetimes.of_client(client);
        // Everything that can fail comes before the one write.
        let generation = chain.generation + 1;
        let random = &inner.random.batch(RANDOM_BYTES);
        let (refresh_token, digest) =
            mint_credential(inner, ChainKind::Refresh, grant.id, generation, &chain.key, random)?;
        let sealed =
            successor::seal(&inner.url, handle, grant, generation, &refresh_token, random)?;
        let until = now + lifetimes.retry_window + inner.clock_skew();
        let mut next = GrantRecord::clone(grant);
        let expires_at = refresh_expiry(grant, true, now, lifetimes.refresh_idle);
        next.refreshed_at = Some(now);
        let binding = ChainBinding::of(grant, chain, client);
        let (confirmation, bound_from) = binding.after(generation, proved);
        next.confirmation = confirmation;
        next.row_expires_at = row_expiry(grant, expires_at, &inner.lifetimes, inner.clock_skew());
        let mut successor = SealedSuccessor::new(sealed, until);
        successor.earlier = earlier(chain, now);
        let mut moved = chain.clone();
        moved.generation = generation;
        moved.digest = digest;
        moved.expires_at = expires_at;
        moved.rotates = true;
        moved.successor = Some(successor);
        moved.bound_from = bound_from;
        next.chain = Some(moved);
        let token = self.mint(&next, random).await?;

        let step = Advance {
            grant: grant.id,
            expected: chain.position(),
            now,
            change: ChainUpdate::Move(Box::new(next)),
            tokens: token.record.clone().into_iter().collect(),
        };
        let done = Event::Refreshed { grant: grant.id, client: grant.client.clone(), generation };
        match inner.advance(Operation::Refresh, Arc::clone(grant), step, done).await? {
            AdvanceOutcome::Advanced => Ok(token.respond(grant.id, Some(refresh_token))),
            // This request saw its token current and then lost the race. That is a retry or a
            // refusal, and never reuse, whatever the clock says, unless the keys prove a second
            // holder.
            AdvanceOutcome::Stale(grant) => {
                self.presented.check_holder(&grant).await?;
                if chain_of(&grant)?.generation == generation {
                    self.retry(&grant).await
                } else {
                    Err(GrantRefusal::Spent.into())
                }
            }
            AdvanceOutcome::Dead | AdvanceOutcome::Unknown => Err(GrantRefusal::Dead.into()),
        }
    }

    /// Responds with the successor that the presented token already has.
    async fn retry(&self, grant: &Arc<GrantRecord>) -> Result<TokenResponse, TokenError> {
        let chain = chain_of(grant)?;
        let sealed = chain.successor.as_ref().ok_or(GrantRefusal::Spent)?;
        let Presented { inner, handle, .. } = self.presented;
        let generation = chain.generation;
        let successor = std::iter::once(&*inner.url)
            .chain(inner.former_urls.iter().map(|url| &**url))
            .find_map(|url| successor::open(url, handle, grant, generation, &sealed.sealed))
            .ok_or(GrantRefusal::Spent)?;
        self.attach(grant, chain, Some(successor)).await
    }

    /// Adds an access token and does not move the chain. With a refresh token it is a retry.
    async fn attach(
        &self,
        grant: &Arc<GrantRecord>,
        chain: &Chain,
        refresh_token: Option<TokenSecret>,
    ) -> Result<TokenResponse, TokenError> {
        let token = self.mint(grant, &self.presented.inner.random).await?;
        let step = Advance {
            grant: grant.id,
            expected: chain.position(),
            now: self.presented.now,
            change: ChainUpdate::Attach,
            tokens: token.record.clone().into_iter().collect(),
        };
        let (id, client, generation) = (grant.id, grant.client.clone(), chain.generation);
        let done = match refresh_token {
            Some(_) => Event::Retried { grant: id, client, generation },
            None => Event::Refreshed { grant: id, client, generation },
        };
        match self
            .presented
            .inner
            .advance(Operation::Refresh, Arc::clone(grant), step, done)
            .await?
        {
            AdvanceOutcome::Advanced => {
                // A token that does not rotate stays valid. RFC 6749 §6: "The authorization server MAY
                // issue a new refresh token". Clients that drop theirs without one keep this one.
                let refresh_token = refresh_token.unwrap_or_else(|| self.request.token.clone());
                Ok(token.respond(grant.id, Some(refresh_token)))
            }
            AdvanceOutcome::Stale(_) => Err(GrantRefusal::Spent.into()),
            AdvanceOutcome::Dead | AdvanceOutcome::Unknown => Err(GrantRefusal::Dead.into()),
        }
    }

    /// The access token that this request asks for. Narrowing it does not narrow the grant.
    async fn mint(&self, grant: &GrantRecord, random: &Random) -> Result<NewToken, TokenError> {
        let Presented { inner, client, proved, now, .. } = self.presented;
        let scope = narrow_scope(self.request.scope.clone(), &grant.scope, client)?;
        let audience = narrow_audience(&self.request.resources, &grant.audience)?;
        let life = inner.lifetimes.of_client(client).access_token;
        let mint = MintRequest { client, grant, scope, audience, proved, life, now, random };
        inner.minter.mint(mint).await
    }
}

/// The earlier credentials whose retry windows are still open.
fn earlier(chain: &Chain, now: UnixTime) -> Vec<SpentBefore> {
    let Some(last) = &chain.successor else { return Vec::new() };
    let previous = chain.generation.checked_sub(1);
    let previous = previous.map(|generation| SpentBefore::new(generation, last.until));
    let mut open: Vec<_> =
        last.earlier.iter().cloned().chain(previous).filter(|spent| now < spent.until).collect();
    let surplus = open.len().saturating_sub(SealedSuccessor::MAX_EARLIER);
    open.drain(..surplus);
    open
}
