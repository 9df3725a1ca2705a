//! Issuing tokens for a new grant at once.

use std::sync::Arc;

use cloakroom_core::handle::ChainKind;
use cloakroom_core::record::{ChainKey, GrantRecord};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Confirmation, Random, Subject, TokenKind};

use crate::client::Client;
use crate::error::TokenError;
use crate::flow::chain::mint_credential;
use crate::flow::expiry::{refresh_expiry, row_expiry};
use crate::flow::hook::Occasion;
use crate::flow::mint::MintRequest;
use crate::flow::new_grant::{create_new, first_chain, issued, new_grant, with_newer_epoch};
use crate::flow::request::{Grant, TokenResponse};
use crate::issuer::{Inner, Issuer};
use crate::revocation::sessions::{DEVICE_ID, replace_older};

/// The random bytes of a new grant: its id, the key of its chain, and the secrets of two tokens.
const RANDOM_BYTES: usize = 16 + 16 + 24 + 24;

impl Issuer {
    /// Makes a grant and its first tokens: an access token, and a refresh token if the subject is a
    /// user and the client may refresh (never for `client_credentials`, RFC 6749 §4.4.3).
    ///
    /// # Errors
    ///
    /// If the client may not have what the grant names, if a revocation of the subject or client
    /// covers the grant ([`TokenError::Barred`]), if a token would not fit into HTTP headers, or if
    /// a store, the directory or a format fails. If the store fails after it has written the grant,
    /// a session whose tokens nobody has remains until it expires.
    pub async fn issue(&self, grant: Grant) -> Result<TokenResponse, TokenError> {
        let occasion = match grant.subject {
            Subject::User(_) => Occasion::Issue,
            Subject::Client(_) => Occasion::ClientCredentials,
        };
        self.issue_on(grant, occasion).await
    }

    pub(crate) async fn issue_on(
        &self,
        grant: Grant,
        occasion: Occasion,
    ) -> Result<TokenResponse, TokenError> {
        // On the heap, here and below, to keep every future on the way small.
        let grant = Box::new(grant);
        let client = grant.client.clone();
        let answer = self.issue_boxed(grant, occasion).await;
        self.inner.refusals.token(&client, occasion, &answer);
        answer
    }

    async fn issue_boxed(
        &self,
        mut grant: Box<Grant>,
        occasion: Occasion,
    ) -> Result<TokenResponse, TokenError> {
        let inner = &self.inner;
        let now = inner.now();
        inner.warn_if_unmaintained(now);
        let client = inner.client(&grant.client).await?;
        let proved = grant.confirmation.take();
        let max_epoch = grant.epoch;
        // A grant with a chain needs random bytes in four places.
        let random = if client.may_refresh(&grant.subject) {
            inner.random.batch(RANDOM_BYTES)
        } else {
            inner.random.clone()
        };
        let record = new_grant(inner, &client, grant, now, &random).await?;
        let for_retry = inner.store.memory().epoch_from_log().map(|_| record.clone());
        let proof = Proved { key: proved.as_ref(), occasion };
        match issue_as(inner, &client, record, proof, now, &random).await {
            Err(TokenError::Barred) => {
                let record = with_newer_epoch(inner, for_retry, max_epoch).await?;
                issue_as(inner, &client, record, proof, now, &random).await
            }
            answer => answer,
        }
    }
}

/// What the request proves, and why it asks.
#[derive(Clone, Copy)]
struct Proved<'a> {
    key: Option<&'a Confirmation>,
    occasion: Occasion,
}

/// Makes the first tokens of a new grant, and writes the grant.
async fn issue_as(
    inner: &Arc<Inner>,
    client: &Client,
    mut record: Box<GrantRecord>,
    Proved { key: proved, occasion }: Proved<'_>,
    now: UnixTime,
    random: &Random,
) -> Result<TokenResponse, TokenError> {
    let mut refresh_token = None;
    if client.may_refresh(&record.subject) {
        let life = inner.lifetimes.of_client(client).refresh_idle;
        let key = ChainKey::random(random)?;
        let (token, digest) =
            mint_credential(inner, ChainKind::Refresh, record.id, 0, &key, random)?;
        let rotates = client.rotates_refresh_tokens();
        let expires_at = refresh_expiry(&record, rotates, now, life);
        record.confirmation = proved.cloned().filter(|_| client.is_public());
        record.chain = Some(first_chain(TokenKind::Refresh, digest, key, expires_at, rotates));
        record.row_expires_at =
            row_expiry(&record, expires_at, &inner.lifetimes, inner.clock_skew());
        refresh_token = Some(token);
    } else {
        // The grant has no token but this one.
        let life = inner.lifetimes.of_client(client).access_token;
        record.expires_at = record.expires_at.min(now + life);
        record.row_expires_at = record.expires_at;
    }
    let (scope, audience) = (record.scope.clone(), record.audience.clone());
    let life = inner.lifetimes.of_client(client).access_token;
    let grant = &record;
    let mint = MintRequest { client, grant, scope, audience, proved, life, now, random, occasion };
    let mut token = inner.minter.mint(mint).await?;
    let id = record.id;
    if token.needs_grant || record.chain.is_some() {
        let new = record.device.get(DEVICE_ID).map(|_| record.clone());
        create_new(inner, record, token.record.take().into_iter().collect()).await?;
        if let Some(new) = new {
            Box::pin(replace_older(inner, &new, now)).await;
        }
    } else {
        allow_stateless(inner, &record).await?;
    }
    Ok(token.respond(id, refresh_token))
}

/// Refuses a grant that is not stored, if a rule covers it.
async fn allow_stateless(inner: &Inner, record: &GrantRecord) -> Result<(), TokenError> {
    let rules = inner.store.rules(record.rule_keys().into()).await?;
    if rules.rules.iter().any(|rule| rule.denies(record.epoch)) {
        return Err(TokenError::Barred);
    }
    inner.events.record(&issued(record));
    Ok(())
}
