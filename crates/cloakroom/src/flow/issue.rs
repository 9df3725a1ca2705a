//! New grants: tokens at once, or a code first.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::format::{FormatError, Located, TokenTerms};
use cloakroom_core::handle::ChainKind;
use cloakroom_core::record::{
    Chain, ChainKey, CodeBinding, GrantRecord, TokenRecord, bounded_json,
};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{CreateOutcome, StoreError};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{
    Audience, Confirmation, GrantId, MAX_ID_BYTES, Scope, TokenDigest, TokenKind, TokenSecret,
};

use crate::client::Client;
use crate::client::registration::GrantType;
use crate::error::TokenError;
use crate::events::{Event, Operation};
use crate::flow::redeem::refresh_expiry;
use crate::flow::request::{Grant, Pkce, TokenResponse};
use crate::issuer::{Inner, Issuer};

/// The most bytes of JSON that `act`, and `authorization_details`, may take.
const MAX_DETAILS: usize = 8192;

impl Issuer {
    /// Makes a grant and its first tokens at once: an access token, and a refresh token if a user
    /// is the subject and the client may have one (never for `client_credentials`, RFC 6749
    /// §4.4.3).
    ///
    /// # Errors
    ///
    /// If the client may not have what is asked for, if a revocation of the subject or client
    /// covers the grant ([`TokenError::Barred`]), if a token would not fit into HTTP headers, or if
    /// a part fails. A store that fails after it has taken the step leaves a session behind whose
    /// tokens nobody holds, until it ends.
    pub async fn issue(&self, grant: Grant) -> Result<TokenResponse, TokenError> {
        // On the heap, here and below: else each future on the way has room for it, twice.
        let mut grant = Box::new(grant);
        let inner = &self.inner;
        let now = inner.now();
        inner.notice_missing_maintenance(now);
        let client = inner.client(&grant.client).await?;
        let proved = grant.confirmation.take();
        let most = grant.epoch;
        let record = inner.new_grant(&client, grant, now).await?;
        let spare = inner.store.memory().epoch_from_log().map(|_| record.clone());
        match inner.issue_as(&client, record, proved.as_ref(), now).await {
            Err(TokenError::Barred) => {
                let record = inner.with_newer_epoch(spare, most).await?;
                inner.issue_as(&client, record, proved.as_ref(), now).await
            }
            answer => answer,
        }
    }

    /// Makes a grant whose first credential is an authorization code, bound to the redirect URI and
    /// the PKCE challenge.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidClient`] and [`TokenError::RedirectUri`], checked first: the user must
    /// *not* be sent back to the client (RFC 6749 §4.1.2.1). Else if a public client sends no PKCE
    /// challenge, if the client may not have what is asked for, or if a part fails: the user is sent
    /// back with [`TokenError::code`].
    pub async fn authorize(
        &self,
        grant: Grant,
        redirect_uri: impl Into<String>,
        pkce: Option<Pkce>,
    ) -> Result<TokenSecret, TokenError> {
        let mut grant = Box::new(grant);
        let inner = &self.inner;
        let now = inner.now();
        inner.notice_missing_maintenance(now);
        let client = inner.client(&grant.client).await?;
        let redirect_uri = redirect_uri.into();
        if !client.is_redirect_uri(&redirect_uri) {
            return Err(TokenError::RedirectUri);
        }
        if !client.allows(GrantType::AuthorizationCode) {
            return Err(TokenError::UnauthorizedClient("it may not use codes"));
        }
        // RFC 9700 §2.1.1: "Public clients MUST use PKCE"
        if client.is_public() && pkce.is_none() {
            return Err(TokenError::InvalidRequest("a public client needs a PKCE challenge"));
        }
        // The code's own key, whatever kind of client it is for (RFC 9449 §10).
        let confirmation = grant.confirmation.take();
        let most = grant.epoch;
        let mut record = inner.new_grant(&client, grant, now).await?;
        record.confirmation = confirmation;
        let binding = CodeBinding::new(redirect_uri, pkce.map(|pkce| pkce.0));
        let spare =
            inner.store.memory().epoch_from_log().map(|_| (record.clone(), binding.clone()));
        match inner.authorize_as(&client, record, binding, now).await {
            Err(TokenError::Barred) => {
                let (record, binding) = spare.unzip();
                let record = inner.with_newer_epoch(record, most).await?;
                let binding = binding.ok_or(TokenError::Barred)?;
                inner.authorize_as(&client, record, binding, now).await
            }
            answer => answer,
        }
    }

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
        let mut record = inner.new_grant(&client, grant, now).await?;
        record.id = located.grant;
        // Its id leaves no second try: the epoch is the store's own. And a bound is a time of ours:
        // what was issued before it must not seem to come after.
        let newest = inner.store.epoch().await?.min(most);
        let issued_for_sure = issued_at - inner.clock_skew();
        record.epoch = newest.min(Epoch::new(issued_for_sure.as_millis()));
        record.expires_at = expires_at;
        record.row_expires_at = expires_at;
        let (scope, audience) = (record.scope.clone(), record.audience.clone());
        let mut terms = TokenTerms::new(issued_at, record.expires_at, scope, audience);
        terms.confirmation = confirmation;
        let token = terms.record(located.grant, located.digest);
        if inner.create(Operation::Adopt, record, vec![token]).await? {
            Ok(Adopted::Now)
        } else {
            Ok(Adopted::Before)
        }
    }
}

/// What [`Issuer::adopt`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Adopted {
    /// It was taken over now.
    Now,
    /// It was taken over before; nothing was changed.
    Before,
}

fn issued(record: &GrantRecord) -> Event {
    Event::Issued {
        grant: record.id,
        client: record.client.clone(),
        subject: record.subject.clone(),
    }
}

fn chain(
    credential: TokenKind,
    digest: TokenDigest,
    key: ChainKey,
    expires_at: UnixTime,
    rotates: bool,
) -> Chain {
    let mut chain = Chain::new(credential, digest, key, expires_at);
    chain.rotates = rotates;
    chain
}

impl Inner {
    /// The record of a new grant, held to what the client may have. It has no chain yet, and no
    /// key.
    async fn new_grant(
        self: &Arc<Self>,
        client: &Client,
        grant: Box<Grant>,
        now: UnixTime,
    ) -> Result<Box<GrantRecord>, TokenError> {
        let scope = match grant.scope {
            Some(scope) if !scope.is_subset(client.allowed_scope()) => {
                return Err(TokenError::InvalidScope("the client may not have all of it"));
            }
            Some(scope) => scope,
            None => client.allowed_scope().clone(),
        };
        let audience = match grant.audience {
            Some(audience) => audience,
            None => client
                .default_audience()
                .and_then(|resource| Audience::one(resource).ok())
                .ok_or(TokenError::InvalidTarget("the client has no default audience"))?,
        };
        if audience.iter().any(|resource| client.format_for(resource).is_none()) {
            return Err(TokenError::InvalidTarget(
                "the client may not have tokens for this resource",
            ));
        }
        self.check_log_watch().await?;
        let most = self.lifetimes_of(client).grant;
        let life = grant.lifetime.unwrap_or(Duration::MAX).min(most);
        let json = [("act", &grant.act), ("authorization_details", &grant.authorization_details)];
        for (name, value) in json.into_iter().filter_map(|(n, v)| Some((n, v.as_ref()?))) {
            bounded_json(name, value, MAX_DETAILS).map_err(|_| {
                TokenError::InvalidRequest("act or authorization_details is too large")
            })?;
        }
        if grant.session.as_ref().is_some_and(|session| session.len() > MAX_ID_BYTES) {
            return Err(TokenError::InvalidRequest("sid is longer than 255 bytes"));
        }
        // Read before anything is written: a revocation from here on covers the grant. An epoch
        // from the future would escape it.
        let newest = self.epoch().await?;
        let epoch = grant.epoch.map_or(newest, |epoch| epoch.min(newest));
        let id = GrantId::random(&self.random)?;
        let mut record =
            GrantRecord::new(id, grant.client, grant.subject, audience, now, now + life);
        record.scope = scope;
        record.auth_time = grant.auth_time;
        record.epoch = epoch;
        record.username = grant.username;
        record.act = grant.act;
        record.authorization_details = grant.authorization_details;
        record.session = grant.session;
        record.claims = grant.claims;
        record.device = grant.device;
        Ok(Box::new(record))
    }

    /// Makes the first tokens of a new grant, and writes them.
    async fn issue_as(
        self: &Arc<Self>,
        client: &Client,
        mut record: Box<GrantRecord>,
        proved: Option<&Confirmation>,
        now: UnixTime,
    ) -> Result<TokenResponse, TokenError> {
        let mut refresh_token = None;
        if client.may_refresh(&record.subject) {
            let life = self.lifetimes_of(client).refresh_idle;
            let key = ChainKey::random(&self.random)?;
            let (token, digest) =
                self.handles.mint_chain(ChainKind::Refresh, record.id, 0, &key, &self.random)?;
            let rotates = client.rotates_refresh_tokens();
            let expires_at = refresh_expiry(&record, rotates, now, life);
            record.confirmation = proved.cloned().filter(|_| client.is_public());
            record.chain = Some(chain(TokenKind::Refresh, digest, key, expires_at, rotates));
            record.row_expires_at = self.row_expiry(&record, expires_at);
            refresh_token = Some(token);
        } else {
            // Nothing hangs off it but this token.
            let life = self.lifetimes_of(client).access_token;
            record.expires_at = record.expires_at.min(now + life);
            record.row_expires_at = record.expires_at;
        }
        let (scope, audience) = (record.scope.clone(), record.audience.clone());
        let token = self.mint(client, &record, scope, audience, proved, now).await?;
        let id = record.id;
        if token.needs_grant || record.chain.is_some() {
            self.create_new(record, token.record.clone().into_iter().collect()).await?;
        } else {
            self.allow_stateless(&record).await?;
        }
        Ok(token.respond(id, refresh_token))
    }

    /// Makes the code of a new grant, and writes it.
    async fn authorize_as(
        self: &Arc<Self>,
        client: &Client,
        mut record: Box<GrantRecord>,
        binding: CodeBinding,
        now: UnixTime,
    ) -> Result<TokenSecret, TokenError> {
        let key = ChainKey::random(&self.random)?;
        let (code, digest) =
            self.handles.mint_chain(ChainKind::Code, record.id, 0, &key, &self.random)?;
        let expires_at = (now + self.lifetimes.code).min(record.expires_at);
        let rotates = client.rotates_refresh_tokens();
        let mut chain = chain(TokenKind::Code, digest, key, expires_at, rotates);
        chain.code = Some(binding);
        record.chain = Some(chain);
        // A grant whose code is never redeemed ends with its code.
        record.row_expires_at = expires_at;
        self.create_new(record, Vec::new()).await?;
        Ok(code)
    }

    /// A grant that was barred, as another with the epoch that the store allots now: the log may not
    /// have brought the revocation yet after which the login began.
    async fn with_newer_epoch(
        &self,
        barred: Option<Box<GrantRecord>>,
        most: Option<Epoch>,
    ) -> Result<Box<GrantRecord>, TokenError> {
        let mut record = barred.ok_or(TokenError::Barred)?;
        let newest = self.store.epoch().await?;
        let epoch = most.map_or(newest, |most| most.min(newest));
        if epoch <= record.epoch {
            return Err(TokenError::Barred);
        }
        record.epoch = epoch;
        // The barred one is there, revoked.
        record.id = GrantId::random(&self.random)?;
        Ok(record)
    }

    /// Until when a grant's row is needed: its chain may bring one more access token at its last
    /// moment, or within a retry window after.
    pub(crate) fn row_expiry(&self, grant: &GrantRecord, chain_expires_at: UnixTime) -> UnixTime {
        let tail = self.lifetimes.access_token + self.lifetimes.retry_window + self.clock_skew();
        (chain_expires_at + tail).min(grant.expires_at)
    }

    /// Refuses a grant that no store will hold, if a rule covers it.
    async fn allow_stateless(&self, record: &GrantRecord) -> Result<(), TokenError> {
        let rules = self.store.rules(record.rule_keys().into()).await?;
        if rules.rules.iter().any(|rule| rule.denies(record.epoch)) {
            return Err(TokenError::Barred);
        }
        self.events.record(&issued(record));
        Ok(())
    }

    async fn create_new(
        self: &Arc<Self>,
        record: Box<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<(), TokenError> {
        if self.create(Operation::Issue, record, tokens).await? {
            return Ok(());
        }
        let repeated =
            "a grant of this random id exists: the source of random bytes repeats itself";
        Err(TokenError::Store(StoreError::Misuse(repeated)))
    }

    /// Whether the grant was made; `false` if its id was taken.
    async fn create(
        self: &Arc<Self>,
        operation: Operation,
        record: Box<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<bool, TokenError> {
        let event = issued(&record);
        match self.create_grant(operation, record, tokens, event).await? {
            CreateOutcome::Inserted => Ok(true),
            CreateOutcome::Barred => Err(TokenError::Barred),
            CreateOutcome::Exists => Ok(false),
        }
    }

    /// The scope that a request asks for, if it is no wider than what was granted. What the client
    /// may no longer have is left out.
    pub(crate) fn narrow_scope(
        asked: Option<Scope>,
        granted: &Scope,
        client: &Client,
    ) -> Result<Scope, TokenError> {
        let most = &granted.intersection(client.allowed_scope());
        match asked {
            None => Ok(most.clone()),
            // RFC 6749 §6: "MUST NOT include any scope not originally granted by the resource owner"
            Some(scope) if !scope.is_subset(most) => {
                Err(TokenError::InvalidScope("it is wider than what was granted"))
            }
            Some(scope) => Ok(scope),
        }
    }

    /// The resources that a request asks for, if they are some of `most`.
    pub(crate) fn narrow_audience(
        asked: &[String],
        most: &Audience,
    ) -> Result<Audience, TokenError> {
        if asked.is_empty() {
            return Ok(most.clone());
        }
        Audience::new(asked)
            .ok()
            .filter(|audience| audience.is_subset(most))
            .ok_or(TokenError::InvalidTarget("it was not granted"))
    }

    /// Recognizes a presented access token.
    pub(crate) async fn locate(
        &self,
        presented: &TokenSecret,
    ) -> Result<Option<Located>, TokenError> {
        match self.try_locate(presented) {
            // The keys in memory are too old to tell: load them, and look again.
            Err(FormatError::KeysUnavailable(_)) => {
                Box::pin(self.keys.refresh()).await?;
                Ok(self.try_locate(presented)?)
            }
            Ok(None) => {
                self.check_foreign_key(presented).await?;
                Ok(None)
            }
            other => Ok(other?),
        }
    }

    fn try_locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        for format in &self.locators {
            if let Some(located) = format.locate(presented)? {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }
}
