//! Issuing an authorization code for a new grant (RFC 6749 §4.1.2).

use std::sync::Arc;

use cloakroom_core::handle::ChainKind;
use cloakroom_core::record::{ChainKey, CodeBinding, GrantRecord};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Random, TokenKind, TokenSecret};

use crate::client::Client;
use crate::client::registration::GrantType;
use crate::error::TokenError;
use crate::flow::chain::mint_credential;
use crate::flow::new_grant::{create_new, first_chain, new_grant, with_newer_epoch};
use crate::flow::request::ApprovedRequest;
use crate::issuer::{Inner, Issuer};

/// The random bytes of a new grant: its id, the key of its chain, and the secret of its code.
const RANDOM_BYTES: usize = 16 + 16 + 24;

impl Issuer {
    /// Makes a grant whose first credential is an authorization code, bound to the redirect URI and
    /// the PKCE challenge.
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidClient`] and [`TokenError::RedirectUri`] are checked first: do *not*
    /// send the user back to the client then (RFC 6749 §4.1.2.1). For every other error, send the
    /// user back with [`AuthorizationResponse::refusal`](crate::AuthorizationResponse::refusal): if a
    /// client that needs PKCE sends no challenge, if the client may not have what it requests, or if a
    /// store, the directory or a format fails.
    pub async fn authorize(&self, request: ApprovedRequest) -> Result<TokenSecret, TokenError> {
        let ApprovedRequest { grant, redirect_uri, pkce, nonce } = request;
        let mut grant = Box::new(grant);
        let inner = &self.inner;
        let now = inner.now();
        inner.warn_if_unmaintained(now);
        let client = inner.client(&grant.client).await?;
        let omitted = redirect_uri.is_none();
        // RFC 6749 §3.1.2.3: "If multiple redirection URIs have been registered [...], the client MUST
        // include a redirection URI with the authorization request".
        let redirect_uri = redirect_uri
            .filter(|uri| client.is_redirect_uri(uri))
            .or_else(|| client.only_redirect_uri().filter(|_| omitted).map(str::to_owned))
            .ok_or(TokenError::RedirectUri)?;
        if !client.allows(GrantType::AuthorizationCode) {
            return Err(TokenError::UnauthorizedClient("the client may not use codes"));
        }
        if client.requires_pkce() && pkce.is_none() {
            return Err(TokenError::InvalidRequest("the client must send a PKCE challenge"));
        }
        // Every client's code is bound to the key (RFC 9449 §10).
        let confirmation = grant.confirmation.take();
        let max_epoch = grant.epoch;
        let random = inner.random.batch(RANDOM_BYTES);
        let mut record = new_grant(inner, &client, grant, now, &random).await?;
        record.confirmation = confirmation;
        let mut binding = CodeBinding::new(redirect_uri, pkce.map(|pkce| pkce.0));
        binding.redirect_uri_omitted = omitted;
        binding.nonce = nonce;
        let for_retry =
            inner.store.memory().epoch_from_log().map(|_| (record.clone(), binding.clone()));
        match authorize_as(inner, &client, record, binding, now, &random).await {
            Err(TokenError::Barred) => {
                let (record, binding) = for_retry.unzip();
                let record = with_newer_epoch(inner, record, max_epoch).await?;
                let binding = binding.ok_or(TokenError::Barred)?;
                authorize_as(inner, &client, record, binding, now, &random).await
            }
            answer => answer,
        }
    }
}

/// Makes the code of a new grant, and writes the grant.
async fn authorize_as(
    inner: &Arc<Inner>,
    client: &Client,
    mut record: Box<GrantRecord>,
    binding: CodeBinding,
    now: UnixTime,
    random: &Random,
) -> Result<TokenSecret, TokenError> {
    let key = ChainKey::random(random)?;
    let (code, digest) = mint_credential(inner, ChainKind::Code, record.id, 0, &key, random)?;
    let expires_at = (now + inner.lifetimes.code).min(record.expires_at);
    let rotates = client.rotates_refresh_tokens();
    let mut chain = first_chain(TokenKind::Code, digest, key, expires_at, rotates);
    chain.code = Some(Box::new(binding));
    record.chain = Some(chain);
    // A grant whose code is never redeemed ends with its code.
    record.row_expires_at = expires_at;
    create_new(inner, record, Vec::new()).await?;
    Ok(code)
}
