//! The requests of the flows, and the response to the client.

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use cloakroom_core::record::{Claims, Device};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{
    Audience, ClientId, Confirmation, GrantId, InvalidValue, Scope, Subject, TokenSecret,
};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use crate::revocation::sessions::DEVICE_ID;

/// A grant to be made: what a client may do for a subject.
///
/// The scope and audience default to the client's registration: its whole scope, and its first
/// audience.
///
/// ```
/// use cloakroom::Grant;
/// use serde_json::json;
///
/// let grant = Grant::user("web-app", "alice")?
///     .scope("orders:read")?
///     .claim("tenant", json!("acme"))?;
/// # Ok::<(), cloakroom::core::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
pub struct Grant {
    pub(crate) client: ClientId,
    pub(crate) subject: Subject,
    pub(crate) scope: Option<Scope>,
    pub(crate) audience: Option<Audience>,
    pub(crate) confirmation: Option<Confirmation>,
    pub(crate) auth_time: Option<UnixTime>,
    pub(crate) acr: Option<String>,
    pub(crate) username: Option<String>,
    pub(crate) act: Option<Value>,
    pub(crate) authorization_details: Option<Value>,
    pub(crate) session: Option<String>,
    pub(crate) claims: Claims,
    pub(crate) device: Device,
    pub(crate) epoch: Option<Epoch>,
    pub(crate) lifetime: Option<Duration>,
}

impl Grant {
    /// A grant to a client, for a user.
    ///
    /// # Errors
    ///
    /// If an identifier is invalid.
    pub fn user(client: impl AsRef<str>, user: impl AsRef<str>) -> Result<Self, InvalidValue> {
        Ok(Self::new(ClientId::new(client)?, Subject::user(user)?))
    }

    /// A grant to a client for itself (`client_credentials`). It is never refreshed.
    ///
    /// # Errors
    ///
    /// If the identifier is invalid.
    pub fn client(client: impl AsRef<str>) -> Result<Self, InvalidValue> {
        let client = ClientId::new(client)?;
        Ok(Self::new(client.clone(), Subject::Client(client)))
    }

    /// A grant to a client, for a subject.
    #[must_use]
    pub fn new(client: ClientId, subject: Subject) -> Self {
        Self {
            client,
            subject,
            scope: None,
            audience: None,
            confirmation: None,
            auth_time: None,
            acr: None,
            username: None,
            act: None,
            authorization_details: None,
            session: None,
            claims: Claims::default(),
            device: Device::default(),
            epoch: None,
            lifetime: None,
        }
    }

    /// The granted scope, which the client must be registered for.
    ///
    /// # Errors
    ///
    /// If the scope is malformed.
    pub fn scope(mut self, scope: &str) -> Result<Self, InvalidValue> {
        self.scope = Some(Scope::parse(scope)?);
        Ok(self)
    }

    /// The resources (RFC 8707), which the client must be registered for.
    #[must_use]
    pub fn audience(mut self, audience: Audience) -> Self {
        self.audience = Some(audience);
        self
    }

    /// The key that the client has proved, or named in its authorization request (`dpop_jkt`, RFC
    /// 9449 §10).
    ///
    /// [`Issuer::issue`](crate::Issuer::issue) binds the access token to it, and the refresh tokens
    /// of a public client. [`Issuer::authorize`](crate::Issuer::authorize) binds the code, and
    /// [`Issuer::adopt`](crate::Issuer::adopt) the token that it takes over.
    #[must_use]
    pub fn confirmation(mut self, confirmation: Confirmation) -> Self {
        self.confirmation = Some(confirmation);
        self
    }

    /// When the user signed in. Tokens show it as `auth_time`, by which an API can require a recent
    /// sign-in (RFC 9470).
    #[must_use]
    pub const fn auth_time(mut self, auth_time: UnixTime) -> Self {
        self.auth_time = Some(auth_time);
        self
    }

    /// How the user signed in: an authentication context class that you and your APIs agree on, such as
    /// `urn:example:mfa`. Tokens show it as `acr` (RFC 9470 §6).
    ///
    /// # Errors
    ///
    /// If it is empty or longer than 255 bytes, or contains a blank or a character that is not printable ASCII.
    pub fn acr(mut self, acr: impl Into<String>) -> Result<Self, InvalidValue> {
        let acr = acr.into();
        if acr.is_empty() || acr.len() > cloakroom_core::MAX_ID_BYTES {
            return Err(InvalidValue { what: "acr", why: "it is not 1 to 255 bytes long" });
        }
        if !acr.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidValue {
                what: "acr",
                why: "it is not printable ASCII without blanks",
            });
        }
        self.acr = Some(acr);
        Ok(self)
    }

    /// The human-readable name of the user (RFC 7662 §2.2).
    ///
    /// # Errors
    ///
    /// If it is longer than 255 bytes.
    pub fn username(mut self, username: impl Into<String>) -> Result<Self, InvalidValue> {
        let username = username.into();
        if username.len() > cloakroom_core::MAX_ID_BYTES {
            return Err(InvalidValue { what: "username", why: "it is longer than 255 bytes" });
        }
        self.username = Some(username);
        Ok(self)
    }

    /// Who acts for the subject (RFC 8693 §4.1).
    #[must_use]
    pub fn act(mut self, act: Value) -> Self {
        self.act = Some(act);
        self
    }

    /// The authorization details (RFC 9396).
    #[must_use]
    pub fn authorization_details(mut self, details: Value) -> Self {
        self.authorization_details = Some(details);
        self
    }

    /// The OpenID Connect session (`sid`).
    #[must_use]
    pub fn session(mut self, session: impl Into<String>) -> Self {
        self.session = Some(session.into());
        self
    }

    /// Adds a custom claim. Everyone who sees a JWT can read its claims: do not put secrets or a
    /// user's profile here.
    ///
    /// # Errors
    ///
    /// If the name is reserved, or if all claims together take more than 4,096 bytes.
    pub fn claim(mut self, name: &str, value: Value) -> Result<Self, InvalidValue> {
        let others = self.claims.iter().map(|(name, value)| (name.to_owned(), value.clone()));
        self.claims = Claims::new(others.chain([(name.to_owned(), value)]).collect::<Vec<_>>())?;
        Ok(self)
    }

    /// The device of the user, for [`Issuer::sessions`](crate::Issuer::sessions).
    #[must_use]
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Names the device, such as a random value in a long-lived cookie. When the session begins, it
    /// replaces the older sessions of this user and this client on the same device: they are revoked.
    ///
    /// The name becomes the value `id` of the [`device`](Self::device): call this method after that one.
    ///
    /// # Errors
    ///
    /// If the description of the device then takes more than 1,024 bytes.
    pub fn on_device(mut self, id: impl Into<String>) -> Result<Self, InvalidValue> {
        let others = self.device.iter().filter(|(name, _)| *name != DEVICE_ID);
        let others = others.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let fields: Vec<_> = others.chain([(DEVICE_ID.to_owned(), id.into())]).collect();
        self.device = Device::new(fields)?;
        Ok(self)
    }

    /// The epoch that you read with [`Issuer::epoch`](crate::Issuer::epoch) when the login began. A
    /// revocation of the subject or client while the user signs in then covers this grant. Keep the
    /// epoch on the server. If it is newer than the epoch of the log, the latter is used. Abandon a login that takes
    /// longer than [`Lifetimes::grant`](crate::Lifetimes::grant), because a revocation is remembered only for as long
    /// as a grant from before it can live.
    #[must_use]
    pub const fn epoch(mut self, epoch: Epoch) -> Self {
        self.epoch = Some(epoch);
        self
    }

    /// Shortens the lifetime of the grant.
    #[must_use]
    pub const fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = Some(lifetime);
        self
    }
}

/// A PKCE challenge (RFC 7636). The method `plain` is not supported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkce(pub(crate) String);

impl Pkce {
    /// A `code_challenge` of method `S256`: 43 characters of base64url.
    ///
    /// # Errors
    ///
    /// If the challenge is anything else.
    pub fn s256(challenge: impl Into<String>) -> Result<Self, InvalidValue> {
        let challenge = challenge.into();
        if challenge.len() != 43 || !challenge.bytes().all(is_base64url) {
            return Err(InvalidValue {
                what: "code_challenge",
                why: "it is not 43 characters of base64url",
            });
        }
        Ok(Self(challenge))
    }
}

const fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// An authorization request that you have checked, and that the user has approved (RFC 6749 §4.1.1).
///
/// [`Issuer::authorization_request`](crate::Issuer::authorization_request) checks requests for you.
#[derive(Debug, Clone)]
pub struct ApprovedRequest {
    pub(crate) grant: Grant,
    /// `None` if the request named none.
    pub(crate) redirect_uri: Option<String>,
    pub(crate) pkce: Option<Pkce>,
    pub(crate) nonce: Option<String>,
}

impl ApprovedRequest {
    /// A request for a code that named this redirect URI, to which the code is sent.
    pub fn new(grant: Grant, redirect_uri: impl Into<String>) -> Self {
        Self { grant, redirect_uri: Some(redirect_uri.into()), pkce: None, nonce: None }
    }

    /// A request that named no redirect URI. The code is sent to
    /// [`Client::only_redirect_uri`](crate::Client::only_redirect_uri), and the client may omit the
    /// URI when it redeems the code, too (RFC 6749 §4.1.3).
    #[must_use]
    pub const fn without_redirect_uri(grant: Grant) -> Self {
        Self { grant, redirect_uri: None, pkce: None, nonce: None }
    }

    /// The PKCE challenge. A client must send one unless it is registered
    /// [without PKCE](crate::ClientBuilder::without_pkce).
    #[must_use]
    pub fn pkce(mut self, pkce: impl Into<Option<Pkce>>) -> Self {
        self.pkce = pkce.into();
        self
    }
}

/// An access token of another system, to be taken over by [`Issuer::adopt`](crate::Issuer::adopt).
#[derive(Debug, Clone)]
pub struct AdoptRequest {
    pub(crate) token: TokenSecret,
    pub(crate) grant: Grant,
    pub(crate) validity: Range<UnixTime>,
}

impl AdoptRequest {
    /// This token, for this grant. `validity` lasts from the time at which the other system issued
    /// the token to the time at which it expires.
    #[must_use]
    pub const fn new(token: TokenSecret, grant: Grant, validity: Range<UnixTime>) -> Self {
        Self { token, grant, validity }
    }
}

/// A code that a client redeems (RFC 6749 §4.1.3).
#[derive(Debug, Clone)]
pub struct CodeRequest {
    pub(crate) device: Option<Device>,
    pub(crate) code: TokenSecret,
    pub(crate) client: ClientId,
    pub(crate) redirect_uri: Option<String>,
    pub(crate) verifier: Option<TokenSecret>,
    pub(crate) resources: Vec<String>,
    pub(crate) confirmation: Option<Confirmation>,
}

impl CodeRequest {
    /// This code, redeemed by this client, which has authenticated.
    #[must_use]
    pub const fn new(code: TokenSecret, client: ClientId) -> Self {
        Self {
            device: None,
            code,
            client,
            redirect_uri: None,
            verifier: None,
            resources: Vec::new(),
            confirmation: None,
        }
    }

    /// The redirect URI that the client sends with the code. It must be that of the authorization
    /// request. It may be omitted if that request named none (RFC 6749 §4.1.3) or had a PKCE
    /// challenge (OAuth 2.1 §4.1.3).
    #[must_use]
    pub fn redirect_uri(mut self, uri: impl Into<Option<String>>) -> Self {
        self.redirect_uri = uri.into();
        self
    }

    /// What is known of the device that redeems the code: see [`RefreshRequest::device`].
    #[must_use]
    pub fn device(mut self, device: impl Into<Option<Device>>) -> Self {
        self.device = device.into();
        self
    }

    /// The PKCE verifier.
    #[must_use]
    pub fn verifier(mut self, verifier: impl Into<Option<TokenSecret>>) -> Self {
        self.verifier = verifier.into();
        self
    }

    /// Narrows the access token to these of the grant's resources (RFC 8707 §2.2).
    #[must_use]
    pub fn resources(mut self, resources: Vec<String>) -> Self {
        self.resources = resources;
        self
    }

    /// The key that the client has proved. The access token is bound to it, and so are the refresh
    /// tokens of a public client. If the authorization request named a key
    /// ([`Grant::confirmation`]), it must be the same.
    #[must_use]
    pub fn confirmation(mut self, key: impl Into<Option<Confirmation>>) -> Self {
        self.confirmation = key.into();
        self
    }
}

/// A refresh token that a client redeems (RFC 6749 §6).
#[derive(Debug, Clone)]
pub struct RefreshRequest {
    pub(crate) token: TokenSecret,
    pub(crate) client: ClientId,
    pub(crate) scope: Option<Scope>,
    pub(crate) resources: Vec<String>,
    pub(crate) confirmation: Option<Confirmation>,
    pub(crate) device: Option<Device>,
}

impl RefreshRequest {
    /// This refresh token, redeemed by this client, which has authenticated.
    #[must_use]
    pub const fn new(token: TokenSecret, client: ClientId) -> Self {
        Self { token, client, scope: None, resources: Vec::new(), confirmation: None, device: None }
    }

    /// What is known of the device now, such as its address. It updates the description of the session,
    /// name by name, if the refresh token rotates. A description that would become longer than 1,024
    /// bytes stays as it was.
    #[must_use]
    pub fn device(mut self, device: impl Into<Option<Device>>) -> Self {
        self.device = device.into();
        self
    }

    /// Narrows the scope of the access token.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<Option<Scope>>) -> Self {
        self.scope = scope.into();
        self
    }

    /// Narrows the access token to these of the grant's resources (RFC 8707 §2.2).
    #[must_use]
    pub fn resources(mut self, resources: Vec<String>) -> Self {
        self.resources = resources;
        self
    }

    /// The key that the client has proved. The access token is bound to it. The first key that a
    /// public client proves also binds all later refresh tokens of the grant. A confidential
    /// client's refresh tokens are bound by its authentication, and it may prove a different key
    /// each time.
    ///
    /// A retry must prove the same key as the request that spent the token, or none if that request
    /// proved none. A different key means two holders, and the grant is revoked.
    #[must_use]
    pub fn confirmation(mut self, key: impl Into<Option<Confirmation>>) -> Self {
        self.confirmation = key.into();
        self
    }
}

/// The response of the token endpoint (RFC 6749 §5.1). It serializes to the response body, and
/// `Debug` does not show the tokens.
#[non_exhaustive]
pub struct TokenResponse {
    /// The access token.
    pub access_token: TokenSecret,
    /// `Bearer`, or `DPoP` for a token that is bound to a proved key (RFC 9449 §5).
    pub token_type: &'static str,
    /// The lifetime of the access token, in whole seconds.
    pub expires_in: u64,
    /// The refresh token: a new one, or the presented one if it does not rotate.
    pub refresh_token: Option<TokenSecret>,
    /// The access token's scope.
    pub scope: Scope,
    /// The authorization details that were granted (RFC 9396 §7).
    pub authorization_details: Option<Value>,
    /// Members that your [`TokenHook`](crate::TokenHook) added, such as `id_token`.
    pub extra: Map<String, Value>,
    /// The grant of the tokens, for [`Issuer::revoke_grant`](crate::Issuer::revoke_grant). It is
    /// not sent to the client.
    pub grant: GrantId,
}

impl Serialize for TokenResponse {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("access_token", self.access_token.expose())?;
        map.serialize_entry("token_type", self.token_type)?;
        map.serialize_entry("expires_in", &self.expires_in)?;
        if let Some(token) = &self.refresh_token {
            map.serialize_entry("refresh_token", token.expose())?;
        }
        if !self.scope.is_empty() {
            map.serialize_entry("scope", &self.scope)?;
        }
        // RFC 9396 §7: "the AS MUST also return the authorization details as granted by the resource
        // owner and assigned to the respective access token."
        if let Some(details) = &self.authorization_details {
            map.serialize_entry("authorization_details", details)?;
        }
        self.extra.iter().try_for_each(|(name, value)| map.serialize_entry(name, value))?;
        map.end()
    }
}

impl fmt::Debug for TokenResponse {
    /// Shows neither the tokens nor the values that a hook added, of which one may be a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenResponse")
            .field("access_token", &self.access_token)
            .field("token_type", &self.token_type)
            .field("expires_in", &self.expires_in)
            .field("refresh_token", &self.refresh_token)
            .field("scope", &self.scope)
            .field("authorization_details", &self.authorization_details)
            .field("extra", &self.extra.keys().collect::<Vec<_>>())
            .field("grant", &self.grant)
            .finish()
    }
}
