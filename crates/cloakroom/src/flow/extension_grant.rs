//! Grant types of your own at the token endpoint (RFC 6749 §4.5).

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::{Audience, Confirmation, Scope, Subject};
use serde_json::{Map, Value};

use crate::client::Client;
use crate::error::TokenError;
use crate::flow::hook::{Occasion, TokenHookError, checked_members};
use crate::flow::request::{Grant, TokenResponse};
use crate::form::Form;
use crate::issuer::Issuer;

/// A grant type of your own, such as token exchange (RFC 8693) or a JWT as a grant (RFC 7523). Add it
/// with [`IssuerBuilder::extension_grant`](crate::IssuerBuilder::extension_grant), and allow clients to use it with
/// [`ClientBuilder::extension_grant`](crate::ClientBuilder::extension_grant).
///
/// The endpoint has authenticated the client. You check what the request presents, and return the grant
/// to be issued. The client must be registered for its scope and resources: [`Issuer::issue`] checks this. The
/// [`TokenHook`](crate::TokenHook) is called for its token, as for every other token.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::{
///     Client, ExtensionGrant, ExtensionRequest, ExtensionResponse, Format, Issuer, Subject,
///     TokenHookError, async_trait,
/// };
///
/// /// Issues a token for a card that a reader has scanned.
/// struct Card;
///
/// #[async_trait]
/// impl ExtensionGrant for Card {
///     async fn grant(&self, request: ExtensionRequest) -> Result<ExtensionResponse, TokenHookError> {
///         match request.parameter("card") {
///             Some("0042") => Ok(request.grant(Subject::user("alice")?)?.into()),
///             _ => Err(TokenHookError::refuse("the card is unknown")),
///         }
///     }
/// }
///
/// let secret = "reader-demo-secret-0123456789";
/// let issuer = Issuer::dev()
///     .static_clients([Client::confidential("reader", secret)
///         .extension_grant("urn:example:card")
///         .audience("https://doors.example", Format::Opaque)])?
///     .extension_grant("urn:example:card", Card)
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
#[async_trait]
pub trait ExtensionGrant: Send + Sync + 'static {
    /// Decides about a request.
    ///
    /// # Errors
    ///
    /// [`TokenHookError`] if no token is to be issued.
    async fn grant(&self, request: ExtensionRequest) -> Result<ExtensionResponse, TokenHookError>;
}

/// A request with an extension grant, from an authenticated client that may use it.
pub struct ExtensionRequest {
    pub(crate) client: Arc<Client>,
    pub(crate) form: Form,
    pub(crate) proved: Option<Confirmation>,
}

impl ExtensionRequest {
    /// The client.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// A parameter of the form.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.form.get(name)
    }

    /// A grant to the client for this subject, with the scope and the resources that the form names.
    ///
    /// # Errors
    ///
    /// `invalid_scope` or `invalid_target` if one is malformed.
    pub fn grant(&self, subject: Subject) -> Result<Grant, TokenHookError> {
        let mut grant = Grant::new(self.client.id().clone(), subject);
        grant.scope =
            self.form.get("scope").map(Scope::parse).transpose().map_err(|_| {
                TokenHookError::refuse_with("invalid_scope", "the scope is malformed")
            })?;
        let target = |_| TokenHookError::refuse_with("invalid_target", "a resource is malformed");
        let resources = self.form.resources().map_err(target)?;
        if resources.is_empty() {
            return Ok(grant);
        }
        let audience = Audience::new(resources).map_err(|_| {
            TokenHookError::refuse_with("invalid_target", "a resource is malformed")
        })?;
        Ok(grant.audience(audience))
    }
}

impl fmt::Debug for ExtensionRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExtensionRequest")
            .field("client", self.client.id())
            .field("form", &self.form)
            .finish_non_exhaustive()
    }
}

/// The grant to be issued.
#[derive(Debug)]
#[must_use]
pub struct ExtensionResponse {
    grant: Grant,
    members: Map<String, Value>,
}

impl From<Grant> for ExtensionResponse {
    fn from(grant: Grant) -> Self {
        Self { grant, members: Map::new() }
    }
}

impl ExtensionResponse {
    /// Adds a member to the response, such as `issued_token_type` (RFC 8693 §2.2.1). The members of
    /// RFC 6749 §5.1 and §5.2 are reserved.
    pub fn member(mut self, name: impl Into<String>, value: Value) -> Self {
        self.members.insert(name.into(), value);
        self
    }
}

/// The extension grants of an issuer, by type.
pub(crate) type ExtensionGrants = Vec<(String, Arc<dyn ExtensionGrant>)>;

impl Issuer {
    /// The types of the extension grants.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only endpoints answer them"))]
    pub(crate) fn extension_grant_types(&self) -> impl Iterator<Item = &str> {
        self.inner.extension_grants.iter().map(|(grant_type, _)| grant_type.as_str())
    }

    /// Answers a request with an extension grant.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only endpoints answer them"))]
    pub(crate) async fn extension(
        &self,
        grant_type: &str,
        request: ExtensionRequest,
    ) -> Result<TokenResponse, TokenError> {
        let known = self.inner.extension_grants.iter().find(|(own, _)| own == grant_type);
        let (_, handler) = known.ok_or(TokenError::UnsupportedGrantType)?;
        let client = Arc::clone(&request.client);
        if !client.allows_extension(grant_type) {
            return Err(TokenError::UnauthorizedClient("the client may not use this grant type"));
        }
        let proved = request.proved.clone();
        let answer = self.inner.guard.run(handler.grant(request), false).await;
        if let Err(TokenError::Denied { code, reason }) = &answer {
            tracing::info!(client = %client.id(), grant_type, code, reason, "a grant was refused");
        }
        self.inner.refusals.token(client.id(), Occasion::Issue, &answer);
        let ExtensionResponse { mut grant, members } = answer?;
        let misuse = |why: &str| TokenError::Hook(why.into());
        if grant.client != *client.id() {
            return Err(misuse("the extension grant is for another client than the request's"));
        }
        let members = checked_members(members).map_err(|why| TokenError::Hook(why.into()))?;
        if proved.is_some() {
            grant.confirmation = proved;
        }
        let mut tokens = self.issue_on(grant, Occasion::Issue).await?;
        // What the hook adds wins.
        for (name, value) in members {
            tokens.extra.entry(name).or_insert(value);
        }
        Ok(tokens)
    }
}

/// Checks the types of extension grants: absolute URIs, each once (RFC 6749 §4.5).
pub(crate) fn check_types(grants: &ExtensionGrants) -> Result<(), String> {
    for (index, (grant_type, _)) in grants.iter().enumerate() {
        if url::Url::parse(grant_type).is_err() {
            return Err(format!("`{grant_type}` is not an absolute URI"));
        }
        if grants[..index].iter().any(|(other, _)| other == grant_type) {
            return Err(format!("`{grant_type}` is there twice"));
        }
    }
    Ok(())
}
