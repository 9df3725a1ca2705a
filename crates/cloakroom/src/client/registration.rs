//! The parts of a client's registration.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{Audience, InvalidValue};

/// The grant types that the token endpoint supports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum GrantType {
    /// RFC 6749 §4.1.
    AuthorizationCode,
    /// RFC 6749 §6.
    RefreshToken,
    /// RFC 6749 §4.4.
    ClientCredentials,
}

impl GrantType {
    /// All grant types.
    pub const ALL: [Self; 3] =
        [Self::AuthorizationCode, Self::RefreshToken, Self::ClientCredentials];

    /// The name in `grant_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::RefreshToken => "refresh_token",
            Self::ClientCredentials => "client_credentials",
        }
    }
}

impl std::str::FromStr for GrantType {
    type Err = InvalidValue;

    fn from_str(name: &str) -> Result<Self, InvalidValue> {
        Self::ALL
            .into_iter()
            .find(|grant_type| grant_type.as_str() == name)
            .ok_or(InvalidValue { what: "grant type", why: "this server does not support it" })
    }
}

/// The format of access tokens for a resource.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A handle that resource servers introspect.
    Opaque,
    /// A handle that a gateway swaps for a JWT.
    Phantom,
    /// An RFC 9068 JWT.
    Jwt,
    /// A format that you registered under this name
    /// ([`IssuerBuilder::format`](crate::IssuerBuilder::format)). A gateway may swap its tokens,
    /// too.
    Custom(Arc<str>),
}

impl Format {
    /// The name of the format: `opaque`, `phantom`, `jwt`, or that of a custom format.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Opaque => "opaque",
            Self::Phantom => "phantom",
            Self::Jwt => "jwt",
            Self::Custom(name) => name,
        }
    }
}

impl From<&str> for Format {
    fn from(name: &str) -> Self {
        match name {
            "opaque" => Self::Opaque,
            "phantom" => Self::Phantom,
            "jwt" => Self::Jwt,
            custom => Self::Custom(custom.into()),
        }
    }
}

/// What a client may do other than getting tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Introspect tokens whose audience it serves.
    Introspect,
    /// Follow the revocation log, which names every revoked user, client, grant and token.
    RevocationLog,
    /// Get the keys that distinguish forged access handles from genuine ones.
    HandleKeys,
}

impl std::str::FromStr for Role {
    type Err = InvalidValue;

    fn from_str(name: &str) -> Result<Self, InvalidValue> {
        match name {
            "introspect" => Ok(Self::Introspect),
            "revocation-log" => Ok(Self::RevocationLog),
            "handle-keys" => Ok(Self::HandleKeys),
            _ => Err(InvalidValue {
                what: "role",
                why: "it must be introspect, revocation-log or handle-keys",
            }),
        }
    }
}

/// Which resources a resource server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Serves {
    /// No resource.
    Nothing,
    /// These resources.
    Only(Audience),
    /// Every resource, as a gateway does.
    Everything,
}

/// The lifetimes of one client. If a lifetime is `None`, or longer than the issuer's, the issuer's
/// lifetime applies. Only the [`retry_window`](Self::retry_window) may be longer.
///
/// ```
/// use std::time::Duration;
/// use cloakroom::ClientLifetimes;
///
/// let lifetimes = ClientLifetimes::default().access_token(Duration::from_secs(60));
/// assert_eq!(lifetimes.grant, None);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct ClientLifetimes {
    /// The lifetime of an access token.
    pub access_token: Option<Duration>,
    /// The lifetime of a refresh token that is not used.
    pub refresh_idle: Option<Duration>,
    /// The lifetime of a grant, however often it is refreshed.
    pub grant: Option<Duration>,
    /// How long a spent refresh token still leads to the current one.
    pub retry_window: Option<Duration>,
}

/// The longest [`ClientLifetimes::retry_window`].
pub(crate) const MAX_RETRY_WINDOW: Duration = Duration::from_secs(60 * 60);

impl ClientLifetimes {
    /// Sets the lifetime of an access token.
    #[must_use]
    pub const fn access_token(mut self, life: Duration) -> Self {
        self.access_token = Some(life);
        self
    }

    /// Sets the lifetime of a refresh token that is not used.
    #[must_use]
    pub const fn refresh_idle(mut self, life: Duration) -> Self {
        self.refresh_idle = Some(life);
        self
    }

    /// Sets the lifetime of a grant, however often it is refreshed.
    #[must_use]
    pub const fn grant(mut self, life: Duration) -> Self {
        self.grant = Some(life);
        self
    }

    /// Sets how long a spent refresh token still leads to the current one: at most an hour. This is for
    /// clients whose processes share one refresh token: a process that was asleep while others refreshed
    /// presents a token that was spent long ago, and catches up.
    ///
    /// The longer the window, the later the use of a stolen token is noticed. So a window that is longer
    /// than the issuer's ([`Lifetimes::retry_window`](crate::Lifetimes)) counts only where a stolen refresh
    /// token alone is of no use: for a confidential client, which authenticates, and for a public client,
    /// starting with the first refresh token that is bound to a key (RFC 9449 §5). For any other public client,
    /// the issuer's window is the longest possible.
    #[must_use]
    pub const fn retry_window(mut self, window: Duration) -> Self {
        self.retry_window = Some(window);
        self
    }
}
