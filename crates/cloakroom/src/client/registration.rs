//! The parts of a client's registration.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::{Audience, InvalidValue};

/// The grant types that the token endpoint knows.
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
    /// All of them.
    pub const ALL: [Self; 3] =
        [Self::AuthorizationCode, Self::RefreshToken, Self::ClientCredentials];

    /// Its name in `grant_type`.
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
            .ok_or(InvalidValue { what: "grant type", why: "it is none that this server knows" })
    }
}

/// How access tokens for a resource look to the client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Format {
    /// A handle; resource servers introspect it.
    Opaque,
    /// A handle that a gateway swaps for a JWT.
    Phantom,
    /// An RFC 9068 JWT.
    Jwt,
    /// One that the app registered under this name; a gateway may swap it, too.
    Custom(Arc<str>),
}

impl Format {
    /// Its name: `opaque`, `phantom`, `jwt`, or the app's own.
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

/// What a client may do beside getting tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Role {
    /// Introspect tokens that are meant for what it serves.
    Introspect,
    /// Follow the revocation log, and so learn who was revoked.
    RevocationLog,
    /// Get the keys that tell a forged access handle from a genuine one.
    HandleKeys,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Introspect, Self::RevocationLog, Self::HandleKeys];
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
                why: "it is none of introspect, revocation-log, handle-keys",
            }),
        }
    }
}

/// Which resources a resource server serves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Serves {
    /// None.
    Nothing,
    /// These.
    Only(Audience),
    /// All, as a gateway does.
    Everything,
}

/// Lifetimes of one client, each at most the issuer's own; `None` is the issuer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientLifetimes {
    /// Of access tokens.
    pub access_token: Option<Duration>,
    /// Of a refresh token that is not used.
    pub refresh_idle: Option<Duration>,
    /// Of a grant, however often it is refreshed.
    pub grant: Option<Duration>,
}
