//! Making an access token. Nothing is written here.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::format::{FormatError, MintContext, Persisted, TokenFormat, TokenTerms};
use cloakroom_core::record::{GrantRecord, TokenRecord, token_type};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, Confirmation, GrantId, Random, Scope, TokenSecret};
use cloakroom_jwt::Algorithm;
use serde_json::{Map, Value};

use crate::client::Client;
use crate::client::registration::Format;
use crate::error::TokenError;
use crate::flow::hook::{Applied, Hook, NewToken, Occasion};
use crate::flow::request::TokenResponse;
use crate::issuer::algorithms::SigningAlgorithms;

/// Makes access tokens in the format that a client is registered with.
pub(crate) struct TokenMinter {
    /// The issuer's URL.
    pub(crate) issuer: Arc<str>,
    pub(crate) formats: HashMap<Format, Arc<dyn TokenFormat>>,
    /// Which algorithm signs JWTs.
    pub(crate) algorithms: SigningAlgorithms,
    pub(crate) hook: Option<Hook>,
}

/// What an access token is made for.
pub(crate) struct MintRequest<'a> {
    pub(crate) client: &'a Client,
    pub(crate) grant: &'a GrantRecord,
    pub(crate) scope: Scope,
    pub(crate) audience: Audience,
    /// The key that the request proves, which the token is bound to.
    pub(crate) proved: Option<&'a Confirmation>,
    /// How long it lives, unless its grant ends before.
    pub(crate) life: Duration,
    pub(crate) now: UnixTime,
    pub(crate) random: &'a Random,
    pub(crate) occasion: Occasion,
}

/// A new access token, ready for the response and for the store.
pub(crate) struct MintedToken {
    secret: TokenSecret,
    expires_in: u64,
    token_type: &'static str,
    scope: Scope,
    authorization_details: Option<Value>,
    extra: Map<String, Value>,
    /// What the store keeps of it.
    pub(crate) record: Option<TokenRecord>,
    /// Whether the store must hold its grant.
    pub(crate) needs_grant: bool,
}

impl MintedToken {
    /// The response to the client.
    pub(crate) fn respond(
        self,
        grant: GrantId,
        refresh_token: Option<TokenSecret>,
    ) -> TokenResponse {
        TokenResponse {
            access_token: self.secret,
            token_type: self.token_type,
            expires_in: self.expires_in,
            refresh_token,
            scope: self.scope,
            authorization_details: self.authorization_details,
            extra: self.extra,
            grant,
        }
    }
}

impl TokenMinter {
    /// Makes an access token.
    pub(crate) async fn mint(&self, request: MintRequest<'_>) -> Result<MintedToken, TokenError> {
        let MintRequest { client, grant, scope, audience, proved, life, now, random, occasion } =
            request;
        let expires_at = (now + life).min(grant.expires_at);
        let mut terms = TokenTerms::new(now, expires_at, scope, audience);
        terms.confirmation = proved.cloned();
        let format = self.format_of(client, &terms.audience)?;
        // Before anything is signed, and long before anything is written.
        let Applied { claims, members: extra } = self.ask_hook(occasion, grant, &terms).await?;
        terms.claims = claims;
        let context = MintContext::new(&self.issuer, grant, &terms, random)
            .with_algorithm(client.jwt_algorithm().map(Algorithm::as_str));
        let minted = format.mint(context).await?;
        let expires_in = terms.expires_at.as_secs().saturating_sub(now.as_secs());
        let token_type = token_type(terms.confirmation.as_ref());
        let scope = terms.scope.clone();
        let (record, needs_grant) = match minted.kept {
            Persisted::Token(digest) => (Some(terms.record(grant.id, digest)), true),
            Persisted::Nothing => (None, false),
            _ => (None, true),
        };
        let authorization_details = grant.authorization_details.as_deref().cloned();
        Ok(MintedToken {
            secret: minted.token,
            expires_in,
            token_type,
            scope,
            authorization_details,
            extra,
            record,
            needs_grant,
        })
    }

    async fn ask_hook(
        &self,
        occasion: Occasion,
        grant: &GrantRecord,
        terms: &TokenTerms,
    ) -> Result<Applied, TokenError> {
        let Some(hook) = &self.hook else { return Ok(Applied::default()) };
        let code = grant.chain.as_ref().and_then(|chain| chain.code.as_ref());
        let token = NewToken {
            occasion,
            grant: Box::new(grant.clone()),
            scope: terms.scope.clone(),
            audience: terms.audience.clone(),
            nonce: code.and_then(|code| code.nonce.clone()),
        };
        // On the heap, to keep the future of an issuer without a hook small.
        Box::pin(hook.run(token)).await
    }

    /// The one format that the client is registered with for all of these resources.
    fn format_of(
        &self,
        client: &Client,
        audience: &Audience,
    ) -> Result<&Arc<dyn TokenFormat>, TokenError> {
        let mut formats = audience.iter().map(|resource| client.format_for(resource));
        let first = formats
            .next()
            .flatten()
            .ok_or(TokenError::InvalidTarget("the client may not have tokens for this resource"))?;
        if formats.any(|format| format != Some(first)) {
            return Err(TokenError::InvalidTarget(
                "the resources have tokens of different formats: request one at a time",
            ));
        }
        self.check_algorithm(client, first, audience)?;
        self.formats.get(first).ok_or_else(|| {
            tracing::error!(format = first.as_str(), "a client uses an unregistered token format");
            TokenError::Format(FormatError::Other("the token format is not registered".into()))
        })
    }

    /// Refuses an algorithm that has no keys, and resources that need different ones.
    fn check_algorithm(
        &self,
        client: &Client,
        format: &Format,
        audience: &Audience,
    ) -> Result<(), TokenError> {
        if !matches!(format, Format::Jwt | Format::Phantom) {
            return Ok(());
        }
        let of_all = self.algorithms.of_all(audience, self.algorithm_of(client)?);
        // A handle is swapped for a JWT for one resource at a time.
        if *format == Format::Jwt && of_all.is_err() {
            return Err(TokenError::InvalidTarget(
                "the resources have tokens of different algorithms: ask for one at a time",
            ));
        }
        Ok(())
    }

    /// The algorithm that the client names.
    ///
    /// `build` has seen fixed clients only. A directory of the app's own may name an algorithm without keys.
    pub(crate) fn algorithm_of(&self, client: &Client) -> Result<Option<Algorithm>, TokenError> {
        if let Some(why) = self.algorithms.fault_of(client) {
            tracing::error!("{why}");
            return Err(TokenError::Format(FormatError::Other(why.into())));
        }
        Ok(client.jwt_algorithm())
    }

    /// The algorithm of JWTs that this resource server checks: that of all its resources, otherwise that
    /// of its own registration. `None` for that of the main ring.
    #[cfg(feature = "http")]
    pub(crate) fn algorithm_at(&self, server: &Client) -> Option<Algorithm> {
        let own = server.jwt_algorithm().filter(|_| self.algorithms.fault_of(server).is_none());
        match server.served() {
            Some(served) => self.algorithms.of_all(served, own).unwrap_or(own),
            None => own,
        }
    }
}
