//! Clients, and the directory of registered clients.

pub(crate) mod builder;
pub(crate) mod directory;
#[cfg(feature = "client-documents")]
pub(crate) mod document;
#[cfg(any(feature = "client-documents", feature = "http"))]
pub(crate) mod metadata;
pub(crate) mod registration;
#[cfg(feature = "http")]
pub(crate) mod registry;
pub(crate) mod secret_hash;
pub(crate) mod uris;

use cloakroom_core::{Audience, ClientId, Scope, Subject};
use cloakroom_jwt::Algorithm;
use subtle::Choice;

use crate::client::builder::{Authentication, ClientBuilder};
use crate::client::registration::{ClientLifetimes, Format, GrantType, Role, Serves};
use crate::client::secret_hash::SecretHash;

/// A registered client (RFC 6749 §2), or a resource server that introspects tokens.
///
/// ```
/// use cloakroom::{Client, Format, GrantType};
///
/// let client = Client::confidential("web-app", "web-app-demo-secret-0123456789")
///     .name("Orders")
///     .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
///     .redirect_uri("https://app.example/callback")
///     .scope("orders:read orders:write")
///     .audience("https://orders.example", Format::Phantom)
///     .build()?;
///
/// // What a consent page shows.
/// assert_eq!(client.name(), Some("Orders"));
/// assert!(client.scope().contains("orders:read"));
/// # Ok::<(), cloakroom::ClientConfigError>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    id: ClientId,
    name: Option<String>,
    uri: Option<String>,
    extension_grants: Vec<String>,
    public: bool,
    secrets: Vec<SecretHash>,
    grant_types: Vec<GrantType>,
    redirect_uris: Vec<String>,
    scope: Scope,
    /// Each an audience of one, which the grants of the client share.
    audiences: Vec<(Audience, Format)>,
    pub(crate) lifetimes: ClientLifetimes,
    jwt_algorithm: Option<Algorithm>,
    rotates: bool,
    requires_pkce: bool,
    roles: Vec<Role>,
    serves: Serves,
}

impl Client {
    /// A public client (RFC 6749 §2.1): it has no secret, and must use PKCE.
    pub fn public(id: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(id.as_ref(), Authentication::None)
    }

    /// A confidential client with this secret, of at least 22 bytes. Secrets are random, not
    /// passwords, and are kept as a plain SHA-256 ([`SecretHash`]).
    pub fn confidential(id: impl AsRef<str>, secret: &str) -> ClientBuilder {
        ClientBuilder::new(id.as_ref(), Authentication::Required).secret(secret)
    }

    /// A confidential client whose secrets are given as hashes. A client without a secret cannot
    /// authenticate with [`SecretAuthenticator`](crate::http::SecretAuthenticator).
    pub fn hashed(
        id: impl AsRef<str>,
        secrets: impl IntoIterator<Item = SecretHash>,
    ) -> ClientBuilder {
        let builder = ClientBuilder::new(id.as_ref(), Authentication::Required);
        secrets.into_iter().fold(builder, ClientBuilder::secret_hash)
    }

    /// A confidential client that your own
    /// [`ClientAuthenticator`](crate::http::ClientAuthenticator) authenticates, by a certificate or
    /// a signed assertion. It has no registered secret.
    pub fn authenticated_by_app(id: impl AsRef<str>) -> ClientBuilder {
        ClientBuilder::new(id.as_ref(), Authentication::Required)
    }

    /// A resource server: it introspects tokens whose audience it serves, and gets no tokens
    /// itself. The secret must satisfy the rules of [`Client::confidential`].
    pub fn resource_server(id: impl AsRef<str>, secret: &str, serves: Serves) -> ClientBuilder {
        Self::confidential(id, secret).role(Role::Introspect).serves(serves)
    }

    /// The client's identifier.
    #[must_use]
    pub const fn id(&self) -> &ClientId {
        &self.id
    }

    /// The human-readable name of the client, for a consent page.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The client's home page, for a link on a consent page: an `https` URL, or `http` on this machine.
    #[must_use]
    pub fn uri(&self) -> Option<&str> {
        self.uri.as_deref()
    }

    /// Whether the client cannot authenticate (RFC 6749 §2.1).
    #[must_use]
    pub const fn is_public(&self) -> bool {
        self.public
    }

    /// The scope that the client may be granted, and gets if it requests none.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The resources that the client may have tokens for, each with the format of its tokens. The
    /// first one is the default.
    pub fn audiences(&self) -> impl Iterator<Item = (&str, &Format)> {
        self.audiences.iter().filter_map(|(resource, format)| Some((resource.single()?, format)))
    }

    /// The algorithm of the client's JWTs, if its registration names one
    /// ([`ClientBuilder::jwt_algorithm`](crate::ClientBuilder::jwt_algorithm)).
    #[must_use]
    pub const fn jwt_algorithm(&self) -> Option<Algorithm> {
        self.jwt_algorithm
    }

    /// The registered redirect URIs.
    pub fn redirect_uris(&self) -> impl Iterator<Item = &str> {
        self.redirect_uris.iter().map(String::as_str)
    }

    /// The redirect URI of an authorization request that names none: the registered one, if there is
    /// exactly one (RFC 6749 §3.1.2.3).
    #[must_use]
    pub fn only_redirect_uri(&self) -> Option<&str> {
        match &*self.redirect_uris {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether the client must send a PKCE challenge to get a code. Every public client must.
    #[must_use]
    pub const fn requires_pkce(&self) -> bool {
        self.requires_pkce || self.public
    }

    /// Whether the client may use this grant type.
    #[must_use]
    pub fn allows(&self, grant_type: GrantType) -> bool {
        self.grant_types.contains(&grant_type)
    }

    /// Whether the client may use the extension grant of this type
    /// ([`ExtensionGrant`](crate::ExtensionGrant)).
    #[must_use]
    pub fn allows_extension(&self, grant_type: &str) -> bool {
        self.extension_grants.iter().any(|own| own == grant_type)
    }

    /// Whether the client has this role.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether the client serves this resource, as a resource server.
    #[must_use]
    pub fn serves(&self, resource: &str) -> bool {
        match &self.serves {
            Serves::Nothing => false,
            Serves::Only(audience) => audience.find(resource).is_some(),
            Serves::Everything => true,
        }
    }

    /// The resource that the client serves, if it serves exactly one.
    pub(crate) fn only_served(&self) -> Option<&str> {
        match &self.serves {
            Serves::Only(audience) => audience.single(),
            _ => None,
        }
    }

    /// The resources that the client serves, unless it serves none or all.
    #[cfg(feature = "http")]
    pub(crate) const fn served(&self) -> Option<&Audience> {
        match &self.serves {
            Serves::Only(audience) => Some(audience),
            Serves::Nothing | Serves::Everything => None,
        }
    }

    /// Whether this redirect URI is registered.
    #[must_use]
    pub fn is_redirect_uri(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| {
            registered == uri || without_port(uri).is_some_and(|uri| uri == *registered)
        })
    }

    /// Whether the secret is one of the client's. The comparison takes constant time and looks at
    /// every registered secret.
    #[must_use]
    pub fn has_secret(&self, presented: &str) -> bool {
        let presented = SecretHash::presented(presented);
        self.secrets.iter().fold(Choice::from(0), |any, own| any | own.matches(&presented)).into()
    }

    /// The format of tokens for this resource, if the client may have any.
    pub(crate) fn format_for(&self, resource: &str) -> Option<&Format> {
        self.registered(resource).map(|(_, format)| format)
    }

    /// The resource as the client is registered for it, with the format of its tokens.
    pub(crate) fn registered(&self, resource: &str) -> Option<(&str, &Format)> {
        self.audiences().find(|(own, _)| Audience::is_same(own, resource))
    }

    /// The one resource of this audience, as the client is registered for it.
    pub(crate) fn registered_audience(&self, audience: &Audience) -> Option<&Audience> {
        let resource = audience.single()?;
        let is_it = |own: &&Audience| own.find(resource).is_some();
        self.audiences.iter().map(|(own, _)| own).find(is_it)
    }

    pub(crate) fn default_audience(&self) -> Option<&Audience> {
        self.audiences.first().map(|(audience, _)| audience)
    }

    /// Whether the client gets a refresh token for a grant of this subject: never for itself, since
    /// it can request a new token at any time (RFC 6749 §4.4.3).
    pub(crate) fn may_refresh(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::User(_)) && self.allows(GrantType::RefreshToken)
    }

    pub(crate) fn rotates_refresh_tokens(&self) -> bool {
        self.rotates || self.is_public()
    }
}

/// A redirect URI on a loopback address, without its port.
fn without_port(uri: &str) -> Option<String> {
    let rest = uri.strip_prefix("http://")?;
    let (authority, path) = match rest.find(['/', '?', '#']) {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let (host, port) = authority.rsplit_once(':')?;
    let loopback = matches!(host, "127.0.0.1" | "[::1]");
    (loopback && !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| format!("http://{host}{path}"))
}

#[cfg(test)]
mod tests;
