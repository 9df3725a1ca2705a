//! Builds a client, and checks every rule for registrations.

use std::convert::Infallible;
use std::time::Duration;

use cloakroom_core::{Audience, ClientId, InvalidValue, Scope};
use cloakroom_jwt::Algorithm;

use crate::client::Client;
use crate::client::registration::{
    ClientLifetimes, Format, GrantType, MAX_RETRY_WINDOW, Role, Serves,
};
use crate::client::secret_hash::SecretHash;
use crate::client::uris::{is_home_page, redirect_fault, resource_fault};

/// A client's registration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("client `{client}`: {why}")]
#[non_exhaustive]
pub struct ClientConfigError {
    /// The identifier of the client.
    pub client: String,
    /// What is wrong.
    pub why: String,
}

/// Builds a [`Client`]. Start with [`Client::public`], [`Client::confidential`] or another
/// constructor of [`Client`]; [`ClientBuilder::build`] checks every value.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until it is built"]
pub struct ClientBuilder {
    id: String,
    name: Option<String>,
    uri: Option<String>,
    extension_grants: Vec<String>,
    authentication: Authentication,
    secrets: Vec<SecretHash>,
    grant_types: Vec<GrantType>,
    redirect_uris: Vec<String>,
    scope: Scope,
    audiences: Vec<(Audience, Format)>,
    lifetimes: ClientLifetimes,
    jwt_algorithm: Option<Algorithm>,
    rotates: bool,
    requires_pkce: bool,
    roles: Vec<Role>,
    serves: Serves,
    /// The first value that could not be parsed.
    invalid: Option<InvalidValue>,
}

/// Whether a client authenticates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Authentication {
    /// It is public.
    None,
    /// It is confidential.
    Required,
}

/// So that a directory takes clients and builders alike: a client is never refused.
impl From<Infallible> for ClientConfigError {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}

impl TryFrom<ClientBuilder> for Client {
    type Error = ClientConfigError;

    fn try_from(builder: ClientBuilder) -> Result<Self, ClientConfigError> {
        builder.build()
    }
}

impl ClientBuilder {
    pub(crate) fn new(id: &str, authentication: Authentication) -> Self {
        Self {
            id: id.to_owned(),
            name: None,
            uri: None,
            extension_grants: Vec::new(),
            authentication,
            secrets: Vec::new(),
            grant_types: Vec::new(),
            redirect_uris: Vec::new(),
            scope: Scope::empty(),
            audiences: Vec::new(),
            lifetimes: ClientLifetimes::default(),
            jwt_algorithm: None,
            rotates: true,
            requires_pkce: true,
            roles: Vec::new(),
            serves: Serves::Nothing,
            invalid: None,
        }
    }

    /// The value, or the default if it is invalid: then `build` fails.
    fn valid<T: Default>(&mut self, value: Result<T, InvalidValue>) -> T {
        value.unwrap_or_else(|invalid| {
            self.invalid.get_or_insert(invalid);
            T::default()
        })
    }

    /// The human-readable name of the client, for a consent page.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// The client's home page, for a link on a consent page (RFC 7591 `client_uri`): an `https` URL, or
    /// `http` on this machine.
    pub fn uri(mut self, uri: impl Into<String>) -> Self {
        self.uri = Some(uri.into());
        self
    }

    /// Adds a secret of at least 22 bytes. To replace a secret, register the old and the new one
    /// for a while. A client with a secret is confidential.
    pub fn secret(mut self, secret: &str) -> Self {
        let hash = self.valid(SecretHash::of(secret).map(Some));
        hash.into_iter().fold(self, Self::secret_hash)
    }

    /// Adds a secret, given as its hash.
    pub fn secret_hash(mut self, secret: SecretHash) -> Self {
        self.secrets.push(secret);
        self.authentication = Authentication::Required;
        self
    }

    /// Allows these grant types.
    pub fn grant_types(mut self, grant_types: impl IntoIterator<Item = GrantType>) -> Self {
        self.grant_types.extend(grant_types);
        self
    }

    /// Allows an extension grant of this type, which
    /// [`IssuerBuilder::extension_grant`](crate::IssuerBuilder::extension_grant) adds to the issuer.
    pub fn extension_grant(mut self, grant_type: impl Into<String>) -> Self {
        self.extension_grants.push(grant_type.into());
        self
    }

    /// Registers a redirect URI, compared byte for byte. A URI on `http://127.0.0.1` or
    /// `http://[::1]` without a port matches every port (RFC 8252 §7.3).
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uris.push(uri.into());
        self
    }

    /// The scope that the client may be granted, and gets if it requests none: names separated by
    /// spaces (RFC 6749 §3.3).
    pub fn scope(mut self, scope: &str) -> Self {
        self.scope = self.valid(Scope::parse(scope));
        self
    }

    /// Allows tokens for this resource, in this format. The first resource is the default.
    ///
    /// A resource is an absolute URI without a fragment (RFC 8707 §2), so that requests can name
    /// it. It is compared byte for byte, except that `https://api.example` and
    /// `https://api.example/` are one resource ([`Audience::is_same`]). Tokens contain it as it is
    /// written here, whichever of the two a request sends.
    pub fn audience(mut self, resource: &str, format: Format) -> Self {
        match Audience::one(resource) {
            Ok(audience) => self.audiences.push((audience, format)),
            Err(invalid) => self.valid(Err(invalid)),
        }
        self
    }

    /// Shortens the issuer's lifetimes for this client.
    pub const fn lifetimes(mut self, lifetimes: ClientLifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Signs the client's JWTs with this algorithm: its JWT access tokens, those that its handles are
    /// swapped for, and, if it introspects, the signed answers that it gets (RFC 9701 §5). The issuer must
    /// have keys for it ([`IssuerBuilder::further_algorithm`](crate::IssuerBuilder::further_algorithm)).
    ///
    /// A resource whose JWTs have an algorithm of their own
    /// ([`IssuerBuilder::algorithm_for`](crate::IssuerBuilder::algorithm_for)) takes precedence: the
    /// resource server must be able to check the signature.
    pub const fn jwt_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.jwt_algorithm = Some(algorithm);
        self
    }

    /// Keeps one refresh token for the lifetime of the grant: for confidential clients whose
    /// workers share it. The refresh token of a public client always rotates (RFC 9700 §4.14.2).
    pub const fn without_rotation(mut self) -> Self {
        self.rotates = false;
        self
    }

    /// Lets the client request codes without PKCE, which is required by default. A code that it
    /// requests with a challenge still needs its verifier.
    ///
    /// This is for confidential clients that cannot send a challenge, and that detect an injected code
    /// in another way, such as OpenID Connect's `nonce` (RFC 9700 §2.1.1). A public client always needs
    /// PKCE.
    pub const fn without_pkce(mut self) -> Self {
        self.requires_pkce = false;
        self
    }

    /// Gives the client a role.
    pub fn role(mut self, role: Role) -> Self {
        self.roles.push(role);
        self
    }

    /// Sets which resources the client serves, as a resource server. They are identified in the same way as in
    /// [`audience`](Self::audience).
    pub fn serves(mut self, serves: Serves) -> Self {
        self.serves = serves;
        self
    }

    /// Builds the client.
    ///
    /// # Errors
    ///
    /// If a value is invalid, such as the identifier, a secret, the scope or a redirect URI, or if
    /// the settings contradict each other.
    pub fn build(self) -> Result<Client, ClientConfigError> {
        let id = match (ClientId::new(&self.id), &self.invalid) {
            (Ok(id), None) => id,
            (Err(invalid), _) => return Err(self.refused(invalid.to_string())),
            (Ok(_), Some(invalid)) => return Err(self.refused(invalid.to_string())),
        };
        if let Some(why) = self.contradiction() {
            return Err(self.refused(why));
        }
        Ok(Client {
            id,
            name: self.name,
            uri: self.uri,
            extension_grants: self.extension_grants,
            public: self.authentication == Authentication::None,
            secrets: self.secrets,
            grant_types: self.grant_types,
            redirect_uris: self.redirect_uris,
            scope: self.scope,
            audiences: self.audiences,
            lifetimes: self.lifetimes,
            jwt_algorithm: self.jwt_algorithm,
            rotates: self.rotates,
            requires_pkce: self.requires_pkce,
            roles: self.roles,
            serves: self.serves,
        })
    }

    fn refused(&self, why: impl Into<String>) -> ClientConfigError {
        ClientConfigError { client: self.id.clone(), why: why.into() }
    }

    fn contradiction(&self) -> Option<&'static str> {
        let is_public = self.authentication == Authentication::None;
        let allows = |grant_type| self.grant_types.contains(&grant_type);
        let introspects = self.roles.contains(&Role::Introspect);
        let lifetimes =
            [self.lifetimes.access_token, self.lifetimes.refresh_idle, self.lifetimes.grant];
        let resources = || self.audiences.iter().flat_map(|(audience, _)| audience.iter());
        let repeated = |(index, resource): (usize, &str)| {
            resources().take(index).any(|other| Audience::is_same(other, resource))
        };
        let served = match &self.serves {
            Serves::Only(audience) => audience.iter().find_map(resource_fault),
            Serves::Nothing | Serves::Everything => None,
        };
        if is_public && allows(GrantType::ClientCredentials) {
            // RFC 6749 §4.4: "MUST only be used by confidential clients"
            Some("client_credentials needs a secret")
        } else if allows(GrantType::AuthorizationCode) && self.redirect_uris.is_empty() {
            Some("authorization_code needs a redirect URI")
        } else if let Some(why) = self.redirect_uris.iter().find_map(|uri| redirect_fault(uri)) {
            Some(why)
        } else if let Some(why) = resources().find_map(resource_fault).or(served) {
            Some(why)
        } else if self.uri.as_deref().is_some_and(|uri| !is_home_page(uri)) {
            Some("its uri must be an https URL")
        } else if is_public && !self.requires_pkce {
            // RFC 9700 §2.1.1: "Public clients MUST use PKCE"
            Some("a public client needs PKCE")
        } else if !(self.grant_types.is_empty() && self.extension_grants.is_empty())
            && self.audiences.is_empty()
        {
            Some("it has grant types, but no audience")
        } else if resources().enumerate().any(repeated) {
            Some("an audience is listed twice")
        } else if lifetimes.contains(&Some(Duration::ZERO)) {
            Some("a lifetime is zero")
        } else if self.lifetimes.retry_window.is_some_and(|window| window > MAX_RETRY_WINDOW) {
            Some("its retry window is longer than an hour")
        } else if !introspects && self.serves != Serves::Nothing {
            Some("it serves resources, but lacks the role to introspect")
        } else if introspects && self.serves == Serves::Nothing {
            Some("it has the role to introspect, but serves nothing")
        } else if is_public && !self.roles.is_empty() {
            Some("a client with a role needs a secret")
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registrations_that_contradict_themselves_are_refused() {
        let public = || Client::public("app");
        let confidential = || Client::confidential("app", &"s".repeat(32));
        let audience = |client: ClientBuilder| client.audience("https://a", Format::Opaque);
        let shortened = ClientLifetimes::default().grant(Duration::ZERO);
        let patient = ClientLifetimes::default().retry_window(Duration::from_secs(3_601));
        let serving = |resource| {
            let audience = Audience::new(["https://a", resource]).unwrap();
            Client::resource_server("app", &"s".repeat(32), Serves::Only(audience))
        };
        for (client, why) in [
            (audience(public().grant_types([GrantType::ClientCredentials])), "secret"),
            (audience(public().grant_types([GrantType::AuthorizationCode])), "redirect"),
            (public().redirect_uri("/callback"), "absolute"),
            (public().redirect_uri("https://app.example/#x"), "fragment"),
            (public().redirect_uri("https://app.example/#"), "fragment"),
            (public().redirect_uri("https://user@app.example/cb"), "user information"),
            (public().redirect_uri("https://:secret@app.example/cb"), "user information"),
            (public().redirect_uri(" https://app.example/cb"), "spaces"),
            (public().redirect_uri("https://app.example/c b"), "spaces"),
            (public().redirect_uri("https://app.example/cb\n"), "spaces"),
            (public().redirect_uri("https:\\\\app.example\\cb"), "backslashes"),
            (public().redirect_uri("http://app.example/cb"), "plain http"),
            (public().redirect_uri("http://127.0.0.1.app.example/cb"), "plain http"),
            (public().redirect_uri("http://localhost.app.example/cb"), "plain http"),
            (public().redirect_uri("HTTP://app.example/cb"), "plain http"),
            (public().redirect_uri("javascript:alert(1)"), "scheme"),
            (public().redirect_uri("JavaScript:alert(1)"), "scheme"),
            (public().redirect_uri("data:text/html,x"), "scheme"),
            (public().redirect_uri("file:///tmp/x"), "scheme"),
            (public().redirect_uri("blob:https://app.example/x"), "scheme"),
            (public().grant_types([GrantType::RefreshToken]), "audience"),
            (audience(audience(public())), "twice"),
            (audience(public()).audience("https://a/", Format::Jwt), "twice"),
            (public().audience("orders", Format::Jwt), "absolute"),
            (public().audience("https://a#b", Format::Jwt), "fragment"),
            (audience(public()).audience("https://a b", Format::Jwt), "absolute"),
            (serving("orders"), "absolute"),
            (serving("https://a#b"), "fragment"),
            (public().without_pkce(), "PKCE"),
            (public().uri("app.example"), "https"),
            (public().uri("javascript:alert(1)"), "https"),
            (public().uri("http://app.example"), "https"),
            (public().uri("https://user@app.example"), "https"),
            (public().lifetimes(shortened), "zero"),
            (confidential().lifetimes(patient), "hour"),
            (confidential().role(Role::Introspect), "serves nothing"),
            (confidential().serves(Serves::Everything), "lacks the role"),
            (public().role(Role::Introspect).serves(Serves::Everything), "secret"),
            (public().role(Role::RevocationLog), "secret"),
            (public().role(Role::HandleKeys), "secret"),
        ] {
            let refused = client.build().unwrap_err();
            assert!(refused.why.contains(why), "{refused}");
            assert_eq!(refused.client, "app");
        }
    }

    #[test]
    fn what_cannot_be_parsed_is_refused_when_the_client_is_built() {
        for (client, why) in [
            (Client::public(""), "client_id"),
            (Client::public("app").scope("orders:read \u{7}"), "scope"),
            (Client::public("app").audience("", Format::Opaque), "audience"),
            (Client::confidential("app", "short"), "22 bytes"),
            (Client::public("app").secret("short").secret(&"s".repeat(22)), "22 bytes"),
        ] {
            let refused = client.build().unwrap_err();
            assert!(refused.why.contains(why), "{refused}");
        }
    }
}
