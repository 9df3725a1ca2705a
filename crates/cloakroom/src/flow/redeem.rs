//! Redeeming an authorization code (RFC 6749 §4.1.3, RFC 7636 §4.5).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::handle::ChainKind;
use cloakroom_core::record::{CodeBinding, GrantRecord};
use cloakroom_core::store::{Advance, AdvanceOutcome, ChainUpdate};
use cloakroom_core::{TokenKind, scrubbed};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::client::Client;
use crate::client::registration::GrantType;
use crate::error::{GrantRefusal, TokenError};
use crate::events::{Event, Operation};
use crate::flow::chain::{
    ChainBinding, CredentialState, Presented, chain_handle, chain_of, mint_credential,
};
use crate::flow::expiry::{refresh_expiry, row_expiry};
use crate::flow::hook::Occasion;
use crate::flow::mint::MintRequest;
use crate::flow::narrow_scope::{narrow_audience, narrow_scope};
use crate::flow::request::{CodeRequest, TokenResponse};
use crate::issuer::{Inner, Issuer};
use crate::revocation::sessions::replace_older;

impl Issuer {
    /// Redeems an authorization code, once, for an access token, and for a refresh token if the
    /// client may refresh.
    ///
    /// A second redemption by someone who knows the verifier revokes the grant: "If an
    /// authorization code is used more than once, the authorization server MUST deny the request
    /// and SHOULD revoke (when possible) all tokens previously issued based on that authorization
    /// code" (RFC 6749 §4.1.2).
    ///
    /// # Errors
    ///
    /// [`TokenError::InvalidGrant`] if the code cannot be redeemed; [`TokenError::InvalidTarget`]
    /// for a resource that was not granted; another error if a store, the directory or a format
    /// fails. After such a failure the code is not spent, unless the store failed after it had
    /// written. Then the user must sign in again, since codes have no retry window.
    pub async fn redeem(&self, request: CodeRequest) -> Result<TokenResponse, TokenError> {
        let client = request.client.clone();
        let answer = redeem(&self.inner, request).await;
        self.inner.refusals.grant(&client, TokenKind::Code, &answer);
        answer
    }
}

async fn redeem(inner: &Arc<Inner>, request: CodeRequest) -> Result<TokenResponse, TokenError> {
    let now = inner.now();
    let handle = chain_handle(inner, ChainKind::Code, &request.code).await?;
    let client = inner.client(&request.client).await?;
    if !client.allows(GrantType::AuthorizationCode) {
        return Err(TokenError::UnauthorizedClient("the client may not use codes"));
    }
    let proved = request.confirmation.as_ref();
    let presented = Presented { inner, handle: &handle, client: &client, proved, now };
    let grant = presented.grant(&request.client).await?;
    let chain = chain_of(&grant)?;
    check_binding(chain.code.as_deref(), &request, &client)?;
    match CredentialState::of(&handle, chain, now) {
        // RFC 9449 §10: the proof "matches the dpop_jkt parameter value in the authorization
        // request. If they do not match, it MUST reject the request."
        CredentialState::Current
            if grant.confirmation.is_some() && grant.confirmation.as_ref() != proved =>
        {
            return Err(GrantRefusal::OtherKey.into());
        }
        CredentialState::Current => {}
        // Codes have no retry window, and a replay is reuse whatever key it proves.
        CredentialState::Retriable | CredentialState::Spent => {
            return Err(presented.end_for_reuse(&grant).await);
        }
        CredentialState::Newer => {
            return Err(presented.end_for_regression(&grant).await);
        }
    }
    let audience = narrow_audience(&request.resources, &grant.audience)?;

    // Everything that can fail comes before the one write.
    let refreshable = client.may_refresh(&grant.subject);
    let mut next = GrantRecord::clone(&grant);
    let generation = chain.generation + 1;
    let binding = ChainBinding::of(&grant, chain, &client);
    let (confirmation, bound_from) = binding.after(generation, proved);
    next.confirmation = confirmation;
    if let Some(device) = &request.device {
        next.device = next.device.updated(device);
    }
    let rotates = client.rotates_refresh_tokens();
    let lifetimes = inner.lifetimes.of_client(&client);
    if !refreshable {
        next.expires_at = next.expires_at.min(now + lifetimes.access_token);
    }
    let expires_at = refresh_expiry(&next, rotates, now, lifetimes.refresh_idle);
    let random = &inner.random;
    let (refresh_token, digest) =
        mint_credential(inner, ChainKind::Refresh, grant.id, generation, &chain.key, random)?;
    let mut moved = chain.clone();
    moved.credential = TokenKind::Refresh;
    moved.generation = generation;
    moved.digest = digest;
    // A client without refresh tokens gets none. The minted token is discarded, and only marks the
    // code as spent. Its chain ends with the grant, so that a second redemption that comes at the
    // same time meets a chain that has moved on, and not one that has ended.
    moved.expires_at = if refreshable { expires_at } else { next.expires_at };
    moved.successor = None;
    moved.bound_from = bound_from;
    moved.rotates = rotates;
    next.chain = Some(moved);
    next.row_expires_at = row_expiry(&next, expires_at, &inner.lifetimes, inner.clock_skew());
    let scope = narrow_scope(None, &next.scope, &client)?;
    let life = lifetimes.access_token;
    let occasion = Occasion::Redeem;
    let mint = MintRequest {
        client: &client,
        grant: &next,
        scope,
        audience,
        proved,
        life,
        now,
        random,
        occasion,
    };
    let mut token = inner.minter.mint(mint).await?;

    let step = Advance {
        grant: grant.id,
        expected: chain.position(),
        now,
        change: ChainUpdate::Move(Box::new(next)),
        tokens: token.record.take().into_iter().collect(),
    };
    let done = Event::Redeemed { grant: grant.id, client: request.client };
    match inner.advance(Operation::Redeem, Arc::clone(&grant), step, done).await? {
        AdvanceOutcome::Advanced => Box::pin(replace_older(inner, &grant, now)).await,
        // This request saw the code unspent: a double click, unless the keys prove a second
        // holder.
        AdvanceOutcome::Stale(grant) => {
            presented.check_holder(&grant).await?;
            return Err(GrantRefusal::Spent.into());
        }
        AdvanceOutcome::Dead | AdvanceOutcome::Unknown => return Err(GrantRefusal::Dead.into()),
    }
    Ok(token.respond(grant.id, refreshable.then_some(refresh_token)))
}

fn check_binding(
    binding: Option<&CodeBinding>,
    request: &CodeRequest,
    client: &Client,
) -> Result<(), GrantRefusal> {
    let binding = binding.ok_or(GrantRefusal::Verifier)?;
    match &request.redirect_uri {
        // RFC 6749 §4.1.3: "their values MUST be identical"
        Some(uri) if *uri != binding.redirect_uri => return Err(GrantRefusal::RedirectUri),
        Some(_) => {}
        // RFC 6749 §4.1.3: "REQUIRED, if the "redirect_uri" parameter was included in the authorization
        // request". With PKCE, the verifier proves as much, and OAuth 2.1 (§4.1.3) has no such parameter.
        None if binding.redirect_uri_omitted || binding.challenge.is_some() => {}
        None => return Err(GrantRefusal::RedirectUri),
    }
    match (&binding.challenge, &request.verifier) {
        // RFC 7636 §4.6: BASE64URL-ENCODE(SHA256(ASCII(code_verifier))) == code_challenge
        (Some(challenge), Some(verifier)) => {
            let verifier = verifier.expose();
            let computed = scrubbed(|| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier)));
            let long_enough = (43..=128).contains(&verifier.len());
            if long_enough && bool::from(computed.as_bytes().ct_eq(challenge.as_bytes())) {
                Ok(())
            } else {
                Err(GrantRefusal::Verifier)
            }
        }
        // The client may have been registered anew since it requested the code.
        (None, None) if !client.requires_pkce() => Ok(()),
        // RFC 9700 §2.1.1: a verifier without a challenge is a downgrade, and refused.
        _ => Err(GrantRefusal::Verifier),
    }
}
