//! New grants: tokens at once, or a code first.

use std::time::Duration;

use cloakroom_core::{
    Audience, Chain, ChainKey, ChainKind, CodeBinding, Created, FormatError, GrantId, GrantRecord,
    Located, Scope, StoreError, Subject, TokenDigest, TokenKind, TokenRecord, TokenSecret,
    TokenStoreExt, TokenTerms, UnixTime, UnknownFields,
};

use crate::client::{Client, GrantType};
use crate::error::TokenError;
use crate::events::Event;
use crate::grant::{Grant, Pkce, TokenResponse};
use crate::issuer::{Inner, Issuer};
use crate::redeem::refresh_expiry;

impl Issuer {
    /// Makes a grant and its first tokens at once: an access token, and a refresh token if a user
    /// is the subject and the client may have one (never for `client_credentials`, RFC 6749
    /// §4.4.3).
    ///
    /// # Errors
    ///
    /// If the client may not have what is asked for, if a revocation of the subject or client
    /// covers the grant ([`TokenError::Barred`]), or if a part fails.
    pub async fn issue(&self, grant: Grant) -> Result<TokenResponse, TokenError> {
        let inner = &*self.inner;
        let now = inner.now();
        inner.notice_missing_maintenance(now);
        let client = inner.client(&grant.client).await?;
        let refreshable =
            matches!(grant.subject, Subject::User(_)) && client.allows(GrantType::RefreshToken);
        let mut record = inner.new_grant(&client, grant, now).await?;

        let mut refresh_token = None;
        if refreshable {
            let life = inner.lifetimes_of(&client).refresh_idle;
            let key = ChainKey::random(&inner.random)?;
            let (token, digest) =
                inner.handles.mint_chain(ChainKind::Refresh, record.id, 0, &key, &inner.random)?;
            let rotates = client.rotates_refresh_tokens();
            let expires_at = refresh_expiry(&record, rotates, now, life);
            record.chain = Some(chain(TokenKind::Refresh, digest, key, expires_at, rotates));
            record.row_expires_at = inner.row_expiry(&record, expires_at);
            refresh_token = Some(token);
        } else {
            // Nothing hangs off it but this token.
            let life = inner.lifetimes_of(&client).access_token;
            record.expires_at = record.expires_at.min(now + life);
            record.row_expires_at = record.expires_at;
        }
        let (scope, audience) = (record.scope.clone(), record.audience.clone());
        let token = inner.mint(&client, &record, scope, audience, now).await?;
        if token.needs_grant || record.chain.is_some() {
            inner.create(record, token.record.into_iter().collect()).await?;
        }
        Ok(TokenResponse {
            access_token: token.secret,
            token_type: token.token_type,
            expires_in: token.expires_in,
            refresh_token,
            scope: token.scope,
        })
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
        let inner = &*self.inner;
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
        let mut record = inner.new_grant(&client, grant, now).await?;
        let key = ChainKey::random(&inner.random)?;
        let (code, digest) =
            inner.handles.mint_chain(ChainKind::Code, record.id, 0, &key, &inner.random)?;
        let expires_at = (now + inner.lifetimes.code).min(record.expires_at);
        let rotates = client.rotates_refresh_tokens();
        record.chain = Some(Chain {
            code: Some(CodeBinding { redirect_uri, challenge: pkce.map(|pkce| pkce.0) }),
            ..chain(TokenKind::Code, digest, key, expires_at, rotates)
        });
        // A grant whose code is never redeemed ends with its code.
        record.row_expires_at = expires_at;
        inner.create_new(record, Vec::new()).await?;
        Ok(code)
    }

    /// Takes over an access token of another system: from now on it is introspected, swapped and
    /// revoked like one of ours, until `expires_at`, and at most for
    /// [`Lifetimes::adopted_token`](crate::Lifetimes::adopted_token). A registered format must
    /// recognize it, and derive its grant from its digest ([`GrantId::from_digest`]).
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidRequest`] if no format recognizes it as such; else as
    /// [`Issuer::issue`].
    pub async fn adopt(
        &self,
        token: &TokenSecret,
        grant: Grant,
        expires_at: UnixTime,
    ) -> Result<Adopted, TokenError> {
        let inner = &*self.inner;
        let now = inner.now();
        let located = inner
            .locate(token)
            .await?
            .filter(|located| located.carried.is_none())
            .filter(|located| located.grant == GrantId::from_digest(&located.digest))
            .ok_or(TokenError::InvalidRequest("no token format recognizes the foreign token"))?;
        let client = inner.client(&grant.client).await?;
        let mut record = inner.new_grant(&client, grant, now).await?;
        record.id = located.grant;
        let latest = now + inner.lifetimes.adopted_token;
        record.expires_at = expires_at.min(latest).min(record.expires_at);
        record.row_expires_at = record.expires_at;
        let terms = TokenTerms {
            issued_at: now,
            expires_at: record.expires_at,
            scope: record.scope.clone(),
            audience: record.audience.clone(),
            confirmation: record.confirmation.clone(),
        };
        let token = terms.record(located.grant, located.digest);
        if inner.create(record, vec![token]).await? {
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

fn chain(
    credential: TokenKind,
    digest: TokenDigest,
    key: ChainKey,
    expires_at: UnixTime,
    rotates: bool,
) -> Chain {
    Chain {
        credential,
        generation: 0,
        digest,
        key,
        expires_at,
        code: None,
        successor: None,
        rotates,
        unknown: UnknownFields::default(),
    }
}

impl Inner {
    /// The record of a new grant without a chain, held to what the client may have.
    async fn new_grant(
        &self,
        client: &Client,
        grant: Grant,
        now: UnixTime,
    ) -> Result<GrantRecord, TokenError> {
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
        let most = self.lifetimes_of(client).grant;
        let life = grant.lifetime.unwrap_or(Duration::MAX).min(most);
        // Read before anything is written: a revocation from here on covers the grant.
        let epoch = match grant.epoch {
            Some(epoch) => epoch,
            None => self.store.epoch().await?,
        };
        Ok(GrantRecord {
            id: GrantId::random(&self.random)?,
            client: grant.client,
            subject: grant.subject,
            scope,
            audience,
            confirmation: grant.confirmation,
            auth_time: grant.auth_time,
            created_at: now,
            epoch,
            username: grant.username,
            act: grant.act,
            authorization_details: grant.authorization_details,
            session: grant.session,
            claims: grant.claims,
            device: grant.device,
            chain: None,
            expires_at: now + life,
            row_expires_at: now + life,
            refreshed_at: None,
            revoked_at: None,
            unknown: UnknownFields::default(),
        })
    }

    /// Until when a grant's row is needed: its chain may bring one more access token at its last
    /// moment, or within a retry window after.
    pub(crate) fn row_expiry(&self, grant: &GrantRecord, chain_expires_at: UnixTime) -> UnixTime {
        let tail = self.lifetimes.access_token + self.lifetimes.retry_window + self.clock_skew();
        (chain_expires_at + tail).min(grant.expires_at)
    }

    async fn create_new(
        &self,
        record: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<(), TokenError> {
        if self.create(record, tokens).await? {
            return Ok(());
        }
        let repeated =
            "a grant of this random id exists: the source of random bytes repeats itself";
        Err(TokenError::Store(StoreError::Misuse(repeated)))
    }

    /// Whether the grant was made; `false` if its id was taken.
    async fn create(
        &self,
        record: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<bool, TokenError> {
        let event = Event::Issued {
            grant: record.id,
            client: record.client.clone(),
            subject: record.subject.clone(),
        };
        match self.store.create(record, tokens).await? {
            Created::Inserted => {
                self.record_event(&event);
                Ok(true)
            }
            Created::Barred => Err(TokenError::Barred),
            Created::Exists => Ok(false),
        }
    }

    /// The scope that a request asks for, if it is no wider than `most`.
    pub(crate) fn narrow_scope(asked: Option<Scope>, most: &Scope) -> Result<Scope, TokenError> {
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
                self.keys.refresh().await?;
                Ok(self.try_locate(presented)?)
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
