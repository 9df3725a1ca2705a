//! The introspection endpoint (RFC 7662), in three representations.

use ::http::{Request, Response, StatusCode};
use bytes::Bytes;
use cloakroom_core::{Introspection, TokenSecret};
use cloakroom_jwt::sign_jwt;
use serde::Serialize;

use super::accept_header::{Representation, representation};
use super::form::Form;
use super::{Endpoints, respond};
use crate::client::Client;
use crate::error::{AuthenticationFailure, TokenError};
use crate::introspection::Caller;

impl Endpoints {
    pub(super) async fn introspect(
        &self,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, TokenError> {
        let form = Form::of(request)?;
        let client = self.authenticate(request, &form).await?;
        // RFC 7662 §2.1: "To prevent token scanning attacks, the endpoint MUST also require some
        // form of authorization to access this endpoint"
        if client.is_public() {
            return Err(AuthenticationFailure::PublicClient.into());
        }
        let token = form.secret("token", "token is missing")?;
        // Boxed as in `respond`.
        match representation(request.headers()) {
            Representation::Json => {
                let answer = self.answer(&token, &form.resources()?, &client).await?;
                respond::json(&answer)
            }
            Representation::Signed => {
                let answer = self.answer(&token, &form.resources()?, &client).await?;
                Box::pin(self.signed(&answer, &client)).await
            }
            Representation::Jwt => {
                let resources = form.resources()?;
                let resource = match resources.as_slice() {
                    [] => None,
                    [one] => Some(one.as_str()),
                    _ => return Err(TokenError::InvalidTarget("name one resource")),
                };
                Box::pin(self.swapped(&token, resource, &client)).await
            }
        }
    }

    /// Introspects the token for the caller. If the caller names resources, a token that is not
    /// meant for all of them is inactive.
    async fn answer(
        &self,
        token: &TokenSecret,
        resources: &[String],
        client: &Client,
    ) -> Result<Introspection, TokenError> {
        let answer = Box::pin(self.issuer.introspect(token, Caller::Client(client))).await?;
        let is_meant = answer.active().is_some_and(|token| {
            resources.iter().all(|resource| {
                token.audience.as_ref().is_some_and(|audience| audience.find(resource).is_some())
            })
        });
        if !is_meant && answer.is_active() {
            respond::trace_refusal(
                "the token's audience does not contain all resources that the caller names",
            );
            return Ok(Introspection::Inactive);
        }
        Ok(answer)
    }

    /// The phantom JWT as the body; 204 if the handle is inactive. A 200 always holds a JWT,
    /// because a gateway forwards the body.
    async fn swapped(
        &self,
        token: &TokenSecret,
        resource: Option<&str>,
        client: &Client,
    ) -> Result<Response<Bytes>, TokenError> {
        let Some(swapped) = self.issuer.swap(token, resource, Caller::Client(client)).await? else {
            return Ok(respond::empty(StatusCode::NO_CONTENT));
        };
        let life = swapped.expires_at.since(self.issuer.inner.now());
        let seconds = life.min(self.cache_swapped).as_secs();
        let response = respond::jwt("application/jwt", &swapped.jwt);
        Ok(match seconds {
            0 => response,
            _ => respond::cached(response, &format!("max-age={seconds}")),
        })
    }

    /// The answer as a signed JWT that the caller can keep as evidence (RFC 9701), also for an
    /// inactive token. Its `typ` prevents its use as an access token.
    async fn signed(
        &self,
        answer: &Introspection,
        client: &Client,
    ) -> Result<Response<Bytes>, TokenError> {
        #[derive(Serialize)]
        struct Claims<'a> {
            iss: &'a str,
            aud: &'a str,
            iat: u64,
            token_introspection: &'a Introspection,
        }
        // A resource server that knows one algorithm alone gets answers of that algorithm, too.
        let signer = match self.issuer.inner.minter.algorithm_at(client) {
            Some(algorithm) => self.issuer.keys().signer_for(algorithm).await?,
            None => self.issuer.keys().signer().await?,
        };
        let claims = Claims {
            iss: self.issuer.url(),
            aud: client.id().as_str(),
            iat: self.issuer.inner.now().as_secs(),
            token_introspection: answer,
        };
        let jwt = sign_jwt(&*signer, "token-introspection+jwt", &claims).await?;
        Ok(respond::jwt("application/token-introspection+jwt", &jwt))
    }
}
