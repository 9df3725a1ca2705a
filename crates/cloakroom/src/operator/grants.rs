//! What is known of a grant, and the sessions of a user or a client.

use cloakroom_core::record::{Chain, Device, GrantRecord};
use cloakroom_core::revocation::{Epoch, Rule};
use cloakroom_core::store::{Lookup, PageRequest, Selector};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, ClientId, GrantId, Scope, Subject, TokenKind};
use serde::Serialize;

use crate::error::TokenError;
use crate::events::Event;
use crate::issuer::{Inner, Issuer};
use crate::revocation::sessions::Session;

/// A grant as an operator sees it, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "found", content = "grant", rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "the answers of a store are these three")]
pub enum InspectedGrant {
    /// The grant, live or not.
    Grant(Box<GrantInspection>),
    /// The id was revoked before a grant was created under it.
    RevokedBeforeCreation,
    /// The store holds no such grant. It may have ended and been deleted.
    Unknown,
}

/// What is known of a grant. It holds no secret, no token and no digest. Times serialize as
/// milliseconds since 1970.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct GrantInspection {
    /// Its identifier.
    pub id: GrantId,
    /// Whether it is live, and if not, why.
    pub state: GrantState,
    /// The client that holds it.
    pub client: ClientId,
    /// The subject that the client acts for.
    pub subject: Subject,
    /// The human-readable name of the user.
    pub username: Option<String>,
    /// What was granted.
    pub scope: Scope,
    /// The resources that it is for.
    pub audience: Audience,
    /// The description of the device.
    pub device: Device,
    /// The OpenID Connect session (`sid`).
    pub oidc_sid: Option<String>,
    /// When it was made.
    pub created_at: UnixTime,
    /// When a refresh token was last redeemed.
    pub refreshed_at: Option<UnixTime>,
    /// When it ends, regardless of its chain.
    pub expires_at: UnixTime,
    /// When its row can be deleted.
    pub row_expires_at: UnixTime,
    /// When it was revoked.
    pub revoked_at: Option<UnixTime>,
    /// Its place in the order of revocations of its subject and client.
    pub epoch: Epoch,
    /// Whether its refresh tokens are bound to a key.
    pub is_bound: bool,
    /// Its code or its refresh tokens; `None` if it has none, as with `client_credentials`.
    pub chain: Option<ChainInspection>,
}

/// Whether a grant is live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrantState {
    /// Its tokens are active until they expire.
    Live,
    /// It was revoked.
    Revoked,
    /// A revocation of its subject or its client covers it, and it is not marked as revoked yet.
    Denied,
    /// It has ended.
    Expired,
}

/// The chain of single-use credentials of a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ChainInspection {
    /// The kind of the credential that can be redeemed next.
    pub credential: TokenKind,
    /// Its number, from 0.
    pub generation: u32,
    /// When it expires.
    pub expires_at: UnixTime,
    /// Whether a refresh token is replaced at each use.
    pub rotates: bool,
    /// When the retry window of the last rotation ends.
    pub retry_until: Option<UnixTime>,
}

impl From<&Chain> for ChainInspection {
    fn from(chain: &Chain) -> Self {
        Self {
            credential: chain.credential,
            generation: chain.generation,
            expires_at: chain.expires_at,
            rotates: chain.rotates,
            retry_until: chain.successor.as_ref().map(|successor| successor.until),
        }
    }
}

/// A page of sessions.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct SessionPage {
    /// Live sessions, by the id of their grant. There may be fewer than were asked for.
    pub sessions: Vec<Session>,
    /// Grants of this page whose rows cannot be read.
    pub unreadable: Vec<GrantId>,
    /// Where the next page begins; `None` if this page is the last.
    pub next: Option<GrantId>,
}

impl Issuer {
    /// What is known of a grant, for an operator.
    ///
    /// # Errors
    ///
    /// If the store fails, or the row cannot be read.
    pub async fn inspect_grant(&self, grant: GrantId) -> Result<InspectedGrant, TokenError> {
        let inner = &*self.inner;
        Ok(match inner.store.find(grant, None).await? {
            Lookup::Found(found) => {
                let state = state(inner, &found.grant).await?;
                InspectedGrant::Grant(Box::new(GrantInspection::of(&found.grant, state)))
            }
            Lookup::Tombstone => InspectedGrant::RevokedBeforeCreation,
            Lookup::Absent => InspectedGrant::Unknown,
        })
    }

    /// One page of the live sessions of a subject, of a client, or of a subject at a client. Grants
    /// whose code was not redeemed are left out, so a page may hold fewer sessions than its limit (1 to 1,000), or none
    /// at all, without being the last. [`Issuer::sessions`] returns all sessions of a user.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn list_sessions(
        &self,
        of: Selector,
        page: PageRequest,
    ) -> Result<SessionPage, TokenError> {
        let (inner, now) = (&*self.inner, self.inner.now());
        let page = PageRequest { limit: page.limit.clamp(1, 1_000), ..page };
        let listing = inner.store.list(of, page, now).await?;
        for grant in &listing.unreadable {
            inner.events.record(&Event::CorruptRow { grant: Some(*grant), count: 1 });
        }
        let sessions = listing.grants.iter().filter_map(|grant| Session::of(grant, now)).collect();
        Ok(SessionPage { sessions, unreadable: listing.unreadable, next: listing.next })
    }
}

impl GrantInspection {
    fn of(grant: &GrantRecord, state: GrantState) -> Self {
        Self {
            id: grant.id,
            state,
            client: grant.client.clone(),
            subject: grant.subject.clone(),
            username: grant.username.clone().map(String::from),
            scope: grant.scope.clone(),
            audience: grant.audience.clone(),
            device: grant.device.clone(),
            oidc_sid: grant.session.clone().map(String::from),
            created_at: grant.created_at,
            refreshed_at: grant.refreshed_at,
            expires_at: grant.expires_at,
            row_expires_at: grant.row_expires_at,
            revoked_at: grant.revoked_at,
            epoch: grant.epoch,
            is_bound: grant.confirmation.is_some(),
            chain: grant.chain.as_ref().map(ChainInspection::from),
        }
    }
}

/// The state of a grant, with the rules that a sweep may not have applied yet.
pub(super) async fn state(inner: &Inner, grant: &GrantRecord) -> Result<GrantState, TokenError> {
    if grant.revoked_at.is_some() {
        return Ok(GrantState::Revoked);
    }
    if !grant.is_live(inner.now()) {
        return Ok(GrantState::Expired);
    }
    let rules = inner.store.rules(Vec::from(grant.rule_keys())).await?.rules;
    let denies = |rule: &Rule| rule.denies(grant.epoch) && inner.now() < rule.until;
    Ok(if rules.iter().any(denies) { GrantState::Denied } else { GrantState::Live })
}
