//! A new grant: its record, its first credential, and the write that creates it.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::{Chain, ChainKey, GrantRecord, TokenRecord, bounded_json};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{CreateOutcome, StoreError};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, GrantId, MAX_ID_BYTES, Random, TokenDigest, TokenKind};

use crate::client::Client;
use crate::error::TokenError;
use crate::events::{Event, Operation};
use crate::flow::request::Grant;
use crate::issuer::Inner;

/// The largest size of the JSON of `act` and of `authorization_details`, each, in bytes.
const MAX_DETAILS: usize = 8192;

/// The record of a new grant, checked against what the client may have. It has no chain and no key
/// yet.
pub(crate) async fn new_grant(
    inner: &Arc<Inner>,
    client: &Client,
    grant: Box<Grant>,
    now: UnixTime,
    random: &Random,
) -> Result<Box<GrantRecord>, TokenError> {
    let scope = match grant.scope {
        Some(scope) if !scope.is_subset(client.scope()) => {
            return Err(TokenError::InvalidScope("the client may not have all of this scope"));
        }
        Some(scope) if scope != *client.scope() => scope,
        // Grants share what they have in common with the registration: here, and below.
        _ => client.scope().clone(),
    };
    let audience = match &grant.audience {
        Some(audience) => as_registered(client, audience)?,
        None => client
            .default_audience()
            .cloned()
            .ok_or(TokenError::InvalidTarget("the client has no default audience"))?,
    };
    inner.check_store_is_current().await?;
    let most = inner.lifetimes.of_client(client).grant;
    let life = grant.lifetime.unwrap_or(Duration::MAX).min(most);
    let json = [("act", &grant.act), ("authorization_details", &grant.authorization_details)];
    for (name, value) in json.into_iter().filter_map(|(n, v)| Some((n, v.as_ref()?))) {
        bounded_json(name, value, MAX_DETAILS)
            .map_err(|_| TokenError::InvalidRequest("act or authorization_details is too large"))?;
    }
    if grant.session.as_ref().is_some_and(|session| session.len() > MAX_ID_BYTES) {
        return Err(TokenError::InvalidRequest("sid is longer than 255 bytes"));
    }
    // Read before anything is written, so that every later revocation covers the grant. An epoch
    // from the future would escape them.
    let newest = current_epoch(inner).await?;
    let epoch = grant.epoch.map_or(newest, |epoch| epoch.min(newest));
    inner.count_grant(client.id()).await?;
    let id = GrantId::random(random)?;
    let owner = client.id().clone();
    let mut record = GrantRecord::new(id, owner, grant.subject, audience, now, now + life);
    record.scope = scope;
    record.auth_time = grant.auth_time;
    record.acr = grant.acr.map(Into::into);
    record.epoch = epoch;
    record.username = grant.username.map(Into::into);
    record.act = grant.act.map(Box::new);
    record.authorization_details = grant.authorization_details.map(Box::new);
    record.session = grant.session.map(Into::into);
    record.claims = grant.claims;
    record.device = grant.device;
    Ok(Box::new(record))
}

/// The resources as the client is registered for them.
fn as_registered(client: &Client, audience: &Audience) -> Result<Audience, TokenError> {
    if let Some(registered) = client.registered_audience(audience) {
        return Ok(registered.clone());
    }
    let spelled: Option<Vec<&str>> = audience
        .iter()
        .map(|resource| client.registered(resource).map(|(spelled, _)| spelled))
        .collect();
    spelled
        .and_then(|spelled| Audience::new(spelled).ok())
        .ok_or(TokenError::InvalidTarget("the client may not have tokens for this resource"))
}

/// The epoch of a grant whose creation begins now: from the log if that is followed, else from the
/// store.
async fn current_epoch(inner: &Inner) -> Result<Epoch, TokenError> {
    match inner.store.memory().epoch_from_log() {
        Some(epoch) => Ok(epoch),
        None => Ok(inner.store.epoch().await?),
    }
}

/// The chain of a new grant.
pub(crate) fn first_chain(
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

/// A copy of a barred grant with the epoch that the store allots now. When the log was last read, it may
/// not yet have contained a revocation from before the login.
pub(crate) async fn with_newer_epoch(
    inner: &Inner,
    barred: Option<Box<GrantRecord>>,
    max: Option<Epoch>,
) -> Result<Box<GrantRecord>, TokenError> {
    let mut record = barred.ok_or(TokenError::Barred)?;
    let newest = inner.store.epoch().await?;
    let epoch = max.map_or(newest, |max| max.min(newest));
    if epoch <= record.epoch {
        return Err(TokenError::Barred);
    }
    inner.count_grant(&record.client).await?;
    record.epoch = epoch;
    // The barred grant is in the store, revoked.
    record.id = GrantId::random(&inner.random)?;
    Ok(record)
}

pub(crate) async fn create_new(
    inner: &Arc<Inner>,
    record: Box<GrantRecord>,
    tokens: Vec<TokenRecord>,
) -> Result<(), TokenError> {
    if create(inner, Operation::Issue, record, tokens).await? {
        return Ok(());
    }
    let repeated =
        "a grant with this random id exists: the source of random bytes repeats its values";
    Err(TokenError::Store(StoreError::Misuse(repeated)))
}

/// Creates the grant; `false` if its id exists.
pub(crate) async fn create(
    inner: &Arc<Inner>,
    operation: Operation,
    record: Box<GrantRecord>,
    tokens: Vec<TokenRecord>,
) -> Result<bool, TokenError> {
    let event = issued(&record);
    match inner.create_grant(operation, record, tokens, event).await? {
        CreateOutcome::Inserted => Ok(true),
        CreateOutcome::Barred => Err(TokenError::Barred),
        CreateOutcome::Exists => Ok(false),
    }
}

/// The event of a new grant.
pub(crate) fn issued(record: &GrantRecord) -> Event {
    Event::Issued {
        grant: record.id,
        client: record.client.clone(),
        subject: record.subject.clone(),
    }
}
