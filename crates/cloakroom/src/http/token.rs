//! The token endpoint (RFC 6749 §3.2).

use ::http::{HeaderMap, Request, Response, header};
use bytes::Bytes;
use cloakroom_core::record::Device;
use cloakroom_core::{Audience, Confirmation, Scope, Subject, TokenSecret};

use super::form::Form;
use super::{Endpoints, respond};
use crate::client::Client;
use crate::client::registration::GrantType;
use crate::error::TokenError;
use crate::flow::extension_grant::ExtensionRequest;
use crate::flow::request::{CodeRequest, Grant, RefreshRequest, TokenResponse};

/// The most characters of a user agent that are kept.
const MAX_USER_AGENT: usize = 256;

impl Endpoints {
    pub(super) async fn token(
        &self,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, TokenError> {
        let form = Form::of(request)?;
        let client = self.authenticate(request, &form).await?;
        let proved = request.extensions().get::<Confirmation>().cloned();
        let device = self.device_of(request);
        let grant_type = form.require("grant_type", "grant_type is missing")?;
        let tokens = match grant_type.parse() {
            Ok(GrantType::ClientCredentials) => {
                self.client_credentials(&client, &form, proved).await?
            }
            Ok(GrantType::AuthorizationCode) => {
                let code = form.secret("code", "code is missing")?;
                let redeem = CodeRequest::new(code, client.id().clone())
                    .redirect_uri(form.get("redirect_uri").map(str::to_owned))
                    .verifier(form.get("code_verifier").map(TokenSecret::new))
                    .device(device)
                    .resources(form.resources()?)
                    .confirmation(proved);
                Box::pin(self.issuer.redeem(redeem)).await?
            }
            Ok(GrantType::RefreshToken) => {
                let token = form.secret("refresh_token", "refresh_token is missing")?;
                let refresh = RefreshRequest::new(token, client.id().clone())
                    .scope(scope(&form)?)
                    .device(device)
                    .resources(form.resources()?)
                    .confirmation(proved);
                Box::pin(self.issuer.refresh(refresh)).await?
            }
            Err(_) => {
                let grant_type = grant_type.to_owned();
                let request = ExtensionRequest { client, form, proved };
                Box::pin(self.issuer.extension(&grant_type, request)).await?
            }
        };
        respond::tokens(&tokens)
    }

    /// What the request says of the device, as far as the app allows.
    fn device_of(&self, request: &Request<Bytes>) -> Option<Device> {
        let of_app = request.extensions().get::<Device>().cloned();
        let agent = user_agent(request.headers()).filter(|_| self.keeps_user_agents);
        let Some(agent) = agent else { return of_app };
        let device = Device::new([("user_agent", agent)]).ok()?;
        Some(of_app.map_or_else(|| device.clone(), |of_app| device.updated(&of_app)))
    }

    async fn client_credentials(
        &self,
        client: &Client,
        form: &Form,
        proved: Option<Confirmation>,
    ) -> Result<TokenResponse, TokenError> {
        // RFC 6749 §4.4: "MUST only be used by confidential clients". `ClientBuilder::build` gives
        // it to no other.
        if !client.allows(GrantType::ClientCredentials) {
            return Err(TokenError::UnauthorizedClient(
                "the client may not use client_credentials",
            ));
        }
        let mut grant = Grant::new(client.id().clone(), Subject::Client(client.id().clone()));
        grant.scope = scope(form)?;
        grant.confirmation = proved;
        let resources = form.resources()?;
        if !resources.is_empty() {
            let audience = Audience::new(resources)
                .map_err(|_| TokenError::InvalidTarget("a resource is invalid"))?;
            grant = grant.audience(audience);
        }
        Box::pin(self.issuer.issue(grant)).await
    }
}

/// What the browser says of itself, cut to a length that can be kept.
pub(super) fn user_agent(headers: &HeaderMap) -> Option<String> {
    let agent = headers.get(header::USER_AGENT)?.to_str().ok()?;
    Some(agent.chars().take(MAX_USER_AGENT).collect())
}

fn scope(form: &Form) -> Result<Option<Scope>, TokenError> {
    form.get("scope")
        .map(Scope::parse)
        .transpose()
        .map_err(|_| TokenError::InvalidScope("the scope is malformed"))
}
