//! Clients, and the directory that knows them.

pub(crate) mod directory;
pub(crate) mod registration;
pub(crate) mod secret_hash;

use std::sync::Arc;

use cloakroom_core::{Audience, ClientId, InvalidValue, Scope, Subject};
use subtle::Choice;

use crate::client::registration::{ClientLifetimes, Format, GrantType, Role, Serves};
use crate::client::secret_hash::SecretHash;

/// A registered client (RFC 6749 §2), or a resource server that introspects.
///
/// ```
/// use cloakroom::{Client, Format, GrantType};
///
/// let client = Client::confidential("web-app", "web-app-demo-secret-0123456789")?
///     .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
///     .redirect_uri("https://app.example/callback")
///     .scope("orders:read orders:write")?
///     .audience("https://orders.example", Format::Phantom)?;
/// assert!(client.allows(GrantType::RefreshToken));
/// # Ok::<(), cloakroom::core::InvalidValue>(())
/// ```
#[derive(Debug, Clone)]
pub struct Client {
    pub(crate) id: ClientId,
    public: bool,
    secrets: Vec<SecretHash>,
    pub(crate) grant_types: Vec<GrantType>,
    pub(crate) redirect_uris: Vec<String>,
    scope: Scope,
    pub(crate) audiences: Vec<(Arc<str>, Format)>,
    pub(crate) lifetimes: ClientLifetimes,
    rotates: bool,
    roles: Vec<Role>,
    pub(crate) serves: Serves,
}

impl Client {
    /// A public client (RFC 6749 §2.1): it has no secret, and must use PKCE.
    ///
    /// # Errors
    ///
    /// If `id` is no client identifier.
    pub fn public(id: impl AsRef<str>) -> Result<Self, InvalidValue> {
        Ok(Self {
            id: ClientId::new(id)?,
            public: true,
            secrets: Vec::new(),
            grant_types: Vec::new(),
            redirect_uris: Vec::new(),
            scope: Scope::empty(),
            audiences: Vec::new(),
            lifetimes: ClientLifetimes::default(),
            rotates: true,
            roles: Vec::new(),
            serves: Serves::Nothing,
        })
    }

    /// A confidential client with this secret.
    ///
    /// # Errors
    ///
    /// If `id` is no client identifier, or the secret is shorter than 22 bytes: secrets are random,
    /// not passwords, and kept as a plain SHA-256.
    pub fn confidential(id: impl AsRef<str>, secret: &str) -> Result<Self, InvalidValue> {
        Ok(Self::public(id)?.secret(SecretHash::of(secret)?))
    }

    /// A confidential client whose secrets are kept as hashes. Without any it is let in by none.
    ///
    /// # Errors
    ///
    /// If `id` is no client identifier.
    pub fn hashed(
        id: impl AsRef<str>,
        secrets: impl IntoIterator<Item = SecretHash>,
    ) -> Result<Self, InvalidValue> {
        Ok(secrets.into_iter().fold(Self::authenticated_by_app(id)?, Self::secret))
    }

    /// A confidential client that the app's own
    /// [`ClientAuthenticator`](crate::http::ClientAuthenticator) knows, by a certificate or a signed
    /// assertion. It has no secret here, and is not let in without one.
    ///
    /// # Errors
    ///
    /// If `id` is no client identifier.
    pub fn authenticated_by_app(id: impl AsRef<str>) -> Result<Self, InvalidValue> {
        Ok(Self { public: false, ..Self::public(id)? })
    }

    /// A resource server: it introspects tokens meant for what it serves, and gets none itself.
    ///
    /// # Errors
    ///
    /// As [`Client::confidential`].
    pub fn resource_server(
        id: impl AsRef<str>,
        secret: &str,
        serves: Serves,
    ) -> Result<Self, InvalidValue> {
        Ok(Self::confidential(id, secret)?.role(Role::Introspect).serves(serves))
    }

    /// Accepts this secret, too: while a secret is being replaced there are two.
    #[must_use]
    pub fn secret(mut self, secret: SecretHash) -> Self {
        self.secrets.push(secret);
        self.public = false;
        self
    }

    /// Allows these grant types.
    #[must_use]
    pub fn grant_types(mut self, grant_types: impl IntoIterator<Item = GrantType>) -> Self {
        self.grant_types.extend(grant_types);
        self
    }

    /// Registers a redirect URI, compared byte for byte. One on `http://127.0.0.1` or
    /// `http://[::1]` without a port matches every port (RFC 8252 §7.3).
    #[must_use]
    pub fn redirect_uri(mut self, uri: impl Into<String>) -> Self {
        self.redirect_uris.push(uri.into());
        self
    }

    /// What it may be granted, and gets if it asks for nothing.
    ///
    /// # Errors
    ///
    /// If the scope is malformed.
    pub fn scope(mut self, scope: &str) -> Result<Self, InvalidValue> {
        self.scope = Scope::parse(scope)?;
        Ok(self)
    }

    /// Allows tokens for this resource, in this format. The first one is the default.
    ///
    /// # Errors
    ///
    /// If the identifier is empty or over-long.
    pub fn audience(mut self, resource: &str, format: Format) -> Result<Self, InvalidValue> {
        Audience::one(resource)?;
        self.audiences.push((resource.into(), format));
        Ok(self)
    }

    /// Shortens the issuer's lifetimes for this client.
    #[must_use]
    pub const fn lifetimes(mut self, lifetimes: ClientLifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Keeps one refresh token for the life of the grant: for confidential clients whose workers
    /// share it. A public client's refresh token always rotates (RFC 9700 §4.14.2).
    #[must_use]
    pub const fn without_rotation(mut self) -> Self {
        self.rotates = false;
        self
    }

    /// Gives it a role.
    #[must_use]
    pub fn role(mut self, role: Role) -> Self {
        self.roles.push(role);
        self
    }

    /// Says which resources it serves, as a resource server.
    #[must_use]
    pub fn serves(mut self, serves: Serves) -> Self {
        self.serves = serves;
        self
    }

    /// Its identifier.
    #[must_use]
    pub const fn id(&self) -> &ClientId {
        &self.id
    }

    /// Whether it cannot authenticate (RFC 6749 §2.1).
    #[must_use]
    pub const fn is_public(&self) -> bool {
        self.public
    }

    /// Whether it may use this grant type.
    #[must_use]
    pub fn allows(&self, grant_type: GrantType) -> bool {
        self.grant_types.contains(&grant_type)
    }

    /// Whether it has this role.
    #[must_use]
    pub fn has_role(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// Whether it serves this resource.
    #[must_use]
    pub fn is_served(&self, resource: &str) -> bool {
        match &self.serves {
            Serves::Nothing => false,
            Serves::Only(audience) => audience.contains(resource),
            Serves::Everything => true,
        }
    }

    /// The only resource that it serves, if it serves exactly one.
    #[must_use]
    pub fn only_served(&self) -> Option<&str> {
        match &self.serves {
            Serves::Only(audience) => audience.single(),
            _ => None,
        }
    }

    /// Whether a redirect URI is one of the registered.
    #[must_use]
    pub fn is_redirect_uri(&self, uri: &str) -> bool {
        self.redirect_uris.iter().any(|registered| {
            registered == uri || without_port(uri).is_some_and(|uri| uri == *registered)
        })
    }

    /// The formats of its tokens.
    pub(crate) fn formats(&self) -> impl Iterator<Item = &Format> {
        self.audiences.iter().map(|(_, format)| format)
    }

    /// What it may be granted, and gets if it asks for nothing.
    pub(crate) const fn allowed_scope(&self) -> &Scope {
        &self.scope
    }

    /// The format of tokens for this resource, if it may have any.
    pub(crate) fn format_for(&self, resource: &str) -> Option<&Format> {
        self.audiences.iter().find(|(own, _)| **own == *resource).map(|(_, format)| format)
    }

    pub(crate) fn default_audience(&self) -> Option<&str> {
        self.audiences.first().map(|(resource, _)| &**resource)
    }

    /// Whether it gets a refresh token for a grant of this subject: never for itself, since it can
    /// ask again (RFC 6749 §4.4.3).
    pub(crate) fn may_refresh(&self, subject: &Subject) -> bool {
        matches!(subject, Subject::User(_)) && self.allows(GrantType::RefreshToken)
    }

    pub(crate) fn rotates_refresh_tokens(&self) -> bool {
        self.rotates || self.is_public()
    }

    /// Whether the secret is one of its own, in constant time: every registered one is looked at.
    #[must_use]
    pub fn has_secret(&self, presented: &str) -> bool {
        let presented = SecretHash::presented(presented);
        self.secrets.iter().fold(Choice::from(0), |any, own| any | own.matches(&presented)).into()
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
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_match_exactly_but_for_a_loopback_port() {
        let client = Client::public("app")
            .unwrap()
            .redirect_uri("http://127.0.0.1/callback")
            .redirect_uri("https://app.example/cb");
        for good in [
            "http://127.0.0.1/callback",
            "http://127.0.0.1:49152/callback",
            "https://app.example/cb",
        ] {
            assert!(client.is_redirect_uri(good), "{good}");
        }
        for bad in [
            "http://127.0.0.1:49152/callback/",
            "http://127.0.0.1:/callback",
            "http://127.0.0.1:80x/callback",
            "http://127.0.0.1:1@evil.example/callback",
            "http://localhost:1/callback",
            "https://127.0.0.1:1/callback",
            "https://app.example:443/cb",
            "https://app.example/cb?x",
            "https://APP.example/cb",
        ] {
            assert!(!client.is_redirect_uri(bad), "{bad}");
        }
    }

    #[test]
    fn secrets_are_long_hashed_and_never_shown() {
        assert!(Client::confidential("app", "short").is_err());
        let secret = "0123456789012345678901";
        let client = Client::confidential("app", secret).unwrap();
        assert!(client.has_secret(secret));
        assert!(!client.has_secret("0123456789012345678902"));
        assert!(!format!("{client:?}").contains(secret));
    }

    #[test]
    fn who_has_no_secret_here_is_not_therefore_public() {
        assert!(Client::public("app").unwrap().is_public());
        let client = Client::authenticated_by_app("app").unwrap();
        assert!(!client.is_public());
        assert!(!client.has_secret(""));
    }

    #[test]
    fn a_public_client_always_rotates() {
        assert!(Client::public("app").unwrap().without_rotation().rotates_refresh_tokens());
    }

    #[test]
    fn only_a_loopback_address_has_a_port_to_choose() {
        let client = Client::public("app")
            .unwrap()
            .redirect_uri("http://localhost/callback")
            .redirect_uri("http://app.example/callback")
            .redirect_uri("http://[::1]/callback")
            .redirect_uri("http://127.0.0.1");
        for good in ["http://localhost/callback", "http://[::1]:7/callback", "http://127.0.0.1:7"] {
            assert!(client.is_redirect_uri(good), "{good}");
        }
        for bad in [
            "http://localhost:7/callback",
            "http://app.example:7/callback",
            "http://[::1]:/callback",
            "http://127.0.0.1:7/",
        ] {
            assert!(!client.is_redirect_uri(bad), "{bad}");
        }
    }

    #[test]
    fn each_of_its_secrets_lets_a_client_in_and_nothing_else() {
        let hash = |secret: char| SecretHash::of(&secret.to_string().repeat(22)).unwrap();
        let presented = |secret: char| secret.to_string().repeat(22);
        // One is listed twice, as happens where secrets are replaced by hand.
        let client = Client::hashed("app", [hash('a'), hash('b'), hash('a')]).unwrap();
        assert!(!client.is_public());
        for (secret, is_own) in [('a', true), ('b', true), ('c', false)] {
            assert_eq!(client.has_secret(&presented(secret)), is_own, "{secret}");
        }
        assert!(!Client::hashed("app", []).unwrap().has_secret(&presented('a')));
        assert_eq!((hash('a') == hash('a'), hash('a') == hash('b')), (true, false));
    }

    #[test]
    fn a_secret_has_22_bytes_or_more() {
        for (bytes, is_good) in [(0, false), (21, false), (22, true), (23, true), (200, true)] {
            assert_eq!(SecretHash::of(&"s".repeat(bytes)).is_ok(), is_good, "{bytes}");
        }
    }

    #[test]
    fn what_is_registered_is_allowed_and_nothing_else() {
        let client = Client::confidential("app", &"s".repeat(22))
            .unwrap()
            .grant_types([GrantType::RefreshToken])
            .audience("https://a", Format::Opaque)
            .unwrap()
            .audience("https://b", Format::Jwt)
            .unwrap()
            .role(Role::Introspect);
        assert!(client.allows(GrantType::RefreshToken));
        assert!(!client.allows(GrantType::ClientCredentials));
        assert!(client.has_role(Role::Introspect) && !client.has_role(Role::HandleKeys));
        assert_eq!(client.default_audience(), Some("https://a"));
        assert_eq!(client.format_for("https://b"), Some(&Format::Jwt));
        assert_eq!(client.format_for("https://c"), None);
        assert_eq!(client.formats().count(), 2);

        let (user, itself) = (Subject::user("app").unwrap(), Subject::client("app").unwrap());
        assert!(client.may_refresh(&user) && !client.may_refresh(&itself));
        let without = Client::confidential("app", &"s".repeat(22)).unwrap();
        assert!(!without.may_refresh(&user) && !without.may_refresh(&itself));
        assert!(without.rotates_refresh_tokens());
        assert!(!without.without_rotation().rotates_refresh_tokens());
    }

    #[test]
    fn a_resource_server_serves_what_it_says() {
        let serving = |serves| Client::public("api").unwrap().serves(serves);
        let only = |all: &[&str]| serving(Serves::Only(Audience::new(all).unwrap()));
        for (client, a, b, single) in [
            (serving(Serves::Nothing), false, false, None),
            (serving(Serves::Everything), true, true, None),
            (only(&["https://a"]), true, false, Some("https://a")),
            (only(&["https://a", "https://b"]), true, true, None),
        ] {
            assert_eq!(client.is_served("https://a"), a, "{client:?}");
            assert_eq!(client.is_served("https://b"), b, "{client:?}");
            assert_eq!(client.only_served(), single, "{client:?}");
        }
    }
}
