//! Redeeming a refresh token (RFC 6749 §6).

use std::sync::Arc;

use cloakroom_core::handle::{ChainHandle, ChainKind};
use cloakroom_core::record::{Chain, GrantRecord, SealedSuccessor, SpentBefore};
use cloakroom_core::store::{Advance, AdvanceOutcome, ChainUpdate};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Random, TokenKind, TokenSecret, scrubbed};

use crate::client::registration::GrantType;
use crate::error::{GrantRefusal, TokenError};
use crate::events::{Event, Operation};
use crate::flow::chain::{
    ChainBinding, CredentialState, Presented, chain_handle, chain_of, mint_credential,
};
use crate::flow::expiry::{refresh_expiry, row_expiry};
use crate::flow::hook::Occasion;
use crate::flow::mint::{MintRequest, MintedToken};
use crate::flow::narrow_scope::{narrow_audience, narrow_scope};
use crate::flow::request::{RefreshRequest, TokenResponse};
use crate::flow::successor;
use crate::issuer::lifetimes::Lifetimes;
use crate::issuer::{Inner, Issuer};

/// The random bytes of a rotation: the secrets of two tokens, and the nonce of the sealed successor.
const RANDOM_BYTES: usize = 24 + 24 + 12;

impl Issuer {
    /// Redeems a refresh token for a new access token, and, if it rotates, for the next refresh token (its
    /// successor).
    ///
    /// A client that lost the response, or a second tab, gets the *same* successor if it presents
    /// the token again within the retry window; if the chain has moved on since, it gets the current
    /// token. After the window, presenting a spent token is reuse, and the grant is revoked.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidGrant`] if the token cannot be redeemed; [`TokenError::InvalidScope`]
    /// or [`TokenError::InvalidTarget`] for more than was granted; another error if a store, the client directory or
    /// a format fails. After such a failure the client may send the same token again.
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
        CredentialState::Current => attempt.repeat(&grant, chain).await,
        CredentialState::Retriable => attempt.catch_up(grant).await,
        CredentialState::Spent => Err(presented.end_for_reuse(&grant).await),
        CredentialState::Newer => Err(presented.end_for_regression(&grant).await),
    }
}

/// How often the chain may move while a request catches up with it.
const MAX_STEPS_MEANWHILE: usize = 32;

/// What became of an access token that was added to a chain.
enum Attached {
    Done(TokenResponse),
    /// The chain was moved meanwhile: the grant as it is now.
    Moved(Arc<GrantRecord>),
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
        let mut next = Box::new(grant.with_chain(chain.without_successor()));
        let expires_at = refresh_expiry(grant, true, now, lifetimes.refresh_idle);
        next.refreshed_at = Some(now);
        if let Some(device) = &self.request.device {
            next.device = next.device.updated(device);
        }
        let binding = ChainBinding::of(grant, chain, client);
        let (confirmation, bound_from) = binding.after(generation, proved);
        // If the next credential is bound, a retry has to prove its key.
        let retry_window = inner.lifetimes.retry_window_of(client, confirmation.is_some());
        let until = now + retry_window + inner.clock_skew();
        next.confirmation = confirmation;
        let lasting = Lifetimes { retry_window, ..inner.lifetimes };
        next.row_expires_at = row_expiry(grant, expires_at, &lasting, inner.clock_skew());
        let mut successor = SealedSuccessor::new(sealed, until);
        successor.earlier = earlier(chain, now);
        if let Some(moved) = &mut next.chain {
            moved.generation = generation;
            moved.digest = digest;
            moved.expires_at = expires_at;
            moved.rotates = true;
            moved.successor = Some(Box::new(successor));
            moved.bound_from = bound_from;
        }
        let mut token = self.mint(&next, random, Occasion::Refresh).await?;

        let step = Advance {
            grant: grant.id,
            expected: chain.position(),
            now,
            change: ChainUpdate::Move(next),
            tokens: token.record.take().into_iter().collect(),
        };
        let done = Event::Refreshed { grant: grant.id, client: grant.client.clone(), generation };
        match inner.advance(Operation::Refresh, Arc::clone(grant), step, done).await? {
            AdvanceOutcome::Advanced => Ok(token.respond(grant.id, Some(refresh_token))),
            // This request saw its token current and then lost the race. That is a retry or a
            // refusal, and never reuse, whatever the clock says, unless the keys prove a second
            // holder.
            AdvanceOutcome::Stale(grant) => self.catch_up(grant).await,
            AdvanceOutcome::Dead | AdvanceOutcome::Unknown => Err(GrantRefusal::Dead.into()),
        }
    }

    /// Responds with the current credential of the chain, which the presented one leads to. The chain
    /// does not move.
    async fn catch_up(&self, grant: Arc<GrantRecord>) -> Result<TokenResponse, TokenError> {
        let mut grant = grant;
        for _ in 0..MAX_STEPS_MEANWHILE {
            self.presented.check_holder(&grant).await?;
            let chain = chain_of(&grant)?;
            let (id, client, generation) = (grant.id, grant.client.clone(), chain.generation);
            let presented = self.presented.handle.generation;
            let done = Event::Retried { grant: id, client, presented, generation };
            let current = self.current_credential(&grant, chain)?;
            match self.attach(&grant, chain, current, done).await? {
                Attached::Done(response) => return Ok(response),
                Attached::Moved(moved) => grant = moved,
            }
        }
        Err(TokenError::Unavailable("the refresh token was rotated again and again meanwhile"))
    }

    /// The credential that the chain stands at. Each spent credential opens the one after it, as long as
    /// the row remembers them.
    fn current_credential(
        &self,
        grant: &GrantRecord,
        chain: &Chain,
    ) -> Result<TokenSecret, GrantRefusal> {
        let Presented { inner, handle, client, proved, .. } = self.presented;
        // Another holder has bound the chain to its key since: this request could not use what it gets.
        let last = chain.generation.saturating_sub(1);
        if ChainBinding::of(grant, chain, client).is_second_holder(last, proved) {
            return Err(GrantRefusal::Spent);
        }
        let successor = chain.successor.as_ref().ok_or(GrantRefusal::Spent)?;
        let sealed_for = |generation| {
            if generation == last {
                return Some(&successor.sealed);
            }
            let spent = successor.earlier.iter().find(|spent| spent.generation == generation);
            spent.map(|spent| &spent.sealed)
        };
        let former_urls = || inner.former_urls.iter().map(|url| &**url);
        let urls = || std::iter::once(&*inner.url).chain(former_urls());
        let open = |holder: &ChainHandle| {
            let sealed = sealed_for(holder.generation)?;
            let next = holder.generation.checked_add(1)?;
            urls().find_map(|url| successor::open(url, holder, grant, next, sealed))
        };
        let mut credential = open(handle).ok_or(GrantRefusal::Spent)?;
        let mut generation = handle.generation + 1;
        while generation < chain.generation {
            let holder =
                scrubbed(|| inner.handles.parse_chain(ChainKind::Refresh, credential.expose()));
            let holder = holder.filter(|holder| holder.generation == generation);
            credential = holder.as_ref().and_then(open).ok_or(GrantRefusal::Spent)?;
            generation += 1;
        }
        Ok(credential)
    }

    /// Responds with the presented credential, which stays valid. RFC 6749 §6: "The authorization server
    /// MAY issue a new refresh token". Clients that drop theirs without one keep this one.
    async fn repeat(
        &self,
        grant: &Arc<GrantRecord>,
        chain: &Chain,
    ) -> Result<TokenResponse, TokenError> {
        let (id, client, generation) = (grant.id, grant.client.clone(), chain.generation);
        let done = Event::Refreshed { grant: id, client, generation };
        match self.attach(grant, chain, self.request.token.clone(), done).await? {
            Attached::Done(response) => Ok(response),
            Attached::Moved(_) => Err(GrantRefusal::Spent.into()),
        }
    }

    /// Adds an access token, and does not move the chain.
    async fn attach(
        &self,
        grant: &Arc<GrantRecord>,
        chain: &Chain,
        refresh_token: TokenSecret,
        done: Event,
    ) -> Result<Attached, TokenError> {
        let is_retry = matches!(done, Event::Retried { .. });
        let occasion = if is_retry { Occasion::Retry } else { Occasion::Refresh };
        let token = self.mint(grant, &self.presented.inner.random, occasion).await?;
        let step = Advance {
            grant: grant.id,
            expected: chain.position(),
            now: self.presented.now,
            change: ChainUpdate::Attach,
            tokens: token.record.clone().into_iter().collect(),
        };
        match self
            .presented
            .inner
            .advance(Operation::Refresh, Arc::clone(grant), step, done)
            .await?
        {
            AdvanceOutcome::Advanced => {
                Ok(Attached::Done(token.respond(grant.id, Some(refresh_token))))
            }
            AdvanceOutcome::Stale(grant) => Ok(Attached::Moved(grant)),
            AdvanceOutcome::Dead | AdvanceOutcome::Unknown => Err(GrantRefusal::Dead.into()),
        }
    }

    /// The access token that this request asks for. Narrowing it does not narrow the grant.
    async fn mint(
        &self,
        grant: &GrantRecord,
        random: &Random,
        occasion: Occasion,
    ) -> Result<MintedToken, TokenError> {
        let Presented { inner, client, proved, now, .. } = self.presented;
        let scope = narrow_scope(self.request.scope.clone(), &grant.scope, client)?;
        let audience = narrow_audience(&self.request.resources, &grant.audience)?;
        let life = inner.lifetimes.of_client(client).access_token;
        let mint =
            MintRequest { client, grant, scope, audience, proved, life, now, random, occasion };
        inner.minter.mint(mint).await
    }
}

/// The earlier credentials whose retry windows are still open.
fn earlier(chain: &Chain, now: UnixTime) -> Vec<SpentBefore> {
    let Some(last) = &chain.successor else { return Vec::new() };
    let previous = chain.generation.checked_sub(1);
    let previous = previous.map(|generation| {
        let mut spent = SpentBefore::new(generation, last.until);
        spent.sealed.clone_from(&last.sealed);
        spent
    });
    let mut open: Vec<_> =
        last.earlier.iter().cloned().chain(previous).filter(|spent| now < spent.until).collect();
    let surplus = open.len().saturating_sub(SealedSuccessor::MAX_EARLIER);
    open.drain(..surplus);
    open
}
