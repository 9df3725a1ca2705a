//! The session of a browser is a grant of the issuer to itself, with a chain that does not rotate. Its
//! refresh token is the value of the cookie.
//!
//! So the cookie is stored by its digest, every revocation of the user covers it, it is listed among the
//! user's sessions, and the store knows nothing new. No client can redeem the token: the grant belongs to
//! a client that no directory has, and the token of a client's grant is no session.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::handle::ChainKind;
use cloakroom_core::record::{ChainKey, GrantRecord};
use cloakroom_core::revocation::Target;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, InvalidValue, Subject, TokenKind, TokenSecret};

use crate::client::Client;
use crate::client::directory::DirectoryError;
use crate::client::registration::{Format, GrantType};
use crate::error::TokenError;
use crate::flow::authorization_request::PageError;
use crate::flow::chain::{CredentialState, chain_handle, mint_credential};
use crate::flow::expiry::row_expiry;
use crate::flow::hook::{NewToken, Occasion};
use crate::flow::new_grant::{create_new, first_chain, new_grant, with_newer_epoch};
use crate::flow::request::Grant;
use crate::issuer::Inner;
use crate::revocation::retention::TargetDetails;
use crate::revocation::revoke_now;
use crate::revocation::sessions::replace_older;

/// A user who is signed in.
pub(super) struct BrowserSession {
    pub(super) cookie: TokenSecret,
    pub(super) grant: GrantId,
    pub(super) subject: Subject,
    pub(super) auth_time: UnixTime,
    pub(super) acr: Option<Box<str>>,
    /// How long it had to live when it was read or made.
    pub(super) life: Duration,
}

impl BrowserSession {
    fn of(cookie: TokenSecret, grant: &GrantRecord, now: UnixTime) -> Self {
        Self {
            cookie,
            grant: grant.id,
            subject: grant.subject.clone(),
            auth_time: grant.auth_time.unwrap_or(grant.created_at),
            acr: grant.acr.clone(),
            life: grant.expires_at.since(now),
        }
    }
}

/// The session whose cookie this is, if it is live.
pub(super) async fn find(
    inner: &Arc<Inner>,
    cookie: &str,
) -> Result<Option<BrowserSession>, TokenError> {
    let cookie = TokenSecret::new(cookie);
    let handle = match chain_handle(inner, ChainKind::Refresh, &cookie).await {
        Ok(handle) => handle,
        Err(TokenError::InvalidGrant(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    inner.check_store_is_current().await?;
    let now = inner.now();
    let Some(grant) = inner.find(handle.grant).await? else { return Ok(None) };
    let is_session = is_own(inner, &grant)
        && grant.is_live(now)
        && grant.chain.as_ref().is_some_and(|chain| {
            chain.credential == TokenKind::Refresh
                && handle.is_genuine(&chain.key)
                && CredentialState::of(&handle, chain, now) == CredentialState::Current
        });
    Ok(is_session.then(|| BrowserSession::of(cookie, &grant, now)))
}

/// Whether the session of this grant is live.
pub(super) async fn is_live(inner: &Arc<Inner>, grant: GrantId) -> Result<bool, TokenError> {
    Ok(inner.find(grant).await?.is_some_and(|grant| grant.is_live(inner.now())))
}

/// Whether the grant is one of the issuer to itself, for a user.
fn is_own(inner: &Inner, grant: &GrantRecord) -> bool {
    matches!(grant.subject, Subject::User(_)) && inner.is_own_url(grant.client.as_str())
}

/// A grant of the issuer to itself.
pub(super) fn grant_of(inner: &Inner, subject: Subject) -> Result<Grant, InvalidValue> {
    Ok(Grant::new(ClientId::new(&*inner.url)?, subject).auth_time(inner.now()))
}

/// Begins a session. It replaces an older one of the user on the same device.
pub(super) async fn begin(inner: &Arc<Inner>, grant: Grant) -> Result<BrowserSession, PageError> {
    let now = inner.now();
    inner.warn_if_unmaintained(now);
    // No directory has it, so no client can act as it.
    let client = Client::public(&*inner.url)
        .grant_types([GrantType::RefreshToken])
        .audience(&inner.url, Format::Opaque)
        .build()
        .map_err(|error| TokenError::Directory(DirectoryError::new(error)))?;
    let record = new_grant(inner, &client, Box::new(grant), now, &inner.random).await?;
    ask_hook(inner, &record).await?;
    let for_retry = inner.store.memory().epoch_from_log().map(|_| record.clone());
    match create(inner, record, now).await {
        Err(TokenError::Barred) => {
            let record = with_newer_epoch(inner, for_retry, None).await;
            Ok(create(inner, record.map_err(refused)?, now).await.map_err(refused)?)
        }
        answer => answer.map_err(refused),
    }
}

async fn create(
    inner: &Arc<Inner>,
    mut record: Box<GrantRecord>,
    now: UnixTime,
) -> Result<BrowserSession, TokenError> {
    let key = ChainKey::random(&inner.random)?;
    let (cookie, digest) =
        mint_credential(inner, ChainKind::Refresh, record.id, 0, &key, &inner.random)?;
    let ends = record.expires_at;
    record.chain = Some(first_chain(TokenKind::Refresh, digest, key, ends, false));
    record.row_expires_at = row_expiry(&record, ends, &inner.lifetimes, inner.clock_skew());
    let session = BrowserSession::of(cookie, &record, now);
    let new = record.clone();
    create_new(inner, record, Vec::new()).await?;
    Box::pin(replace_older(inner, &new, now)).await;
    Ok(session)
}

async fn ask_hook(inner: &Inner, record: &GrantRecord) -> Result<(), PageError> {
    let Some(hook) = &inner.minter.hook else { return Ok(()) };
    let (scope, audience) = (record.scope.clone(), record.audience.clone());
    let (occasion, grant) = (Occasion::SignIn, Box::new(record.clone()));
    let new = NewToken { occasion, grant, scope, audience, nonce: None };
    let answer = Box::pin(hook.run(new)).await;
    inner.refusals.token(&record.client, occasion, &answer);
    answer.map(drop).map_err(refused)
}

/// The page for a user who may not sign in, or the outage.
fn refused(error: TokenError) -> PageError {
    match error {
        TokenError::Denied { .. } | TokenError::Barred => PageError::Refused,
        error => error.into(),
    }
}

/// Ends a session.
pub(super) async fn end(inner: &Arc<Inner>, grant: GrantId) -> Result<(), TokenError> {
    revoke_now(inner, Target::Grant(grant), TargetDetails::default()).await
}
