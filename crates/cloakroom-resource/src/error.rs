//! Errors. Details for an operator are in the error's sources, which are never sent to a client.

use std::error::Error;
use std::sync::Arc;

use http::{StatusCode, Uri};

/// A token was not accepted.
///
/// Keep the two variants apart. An outage says nothing about the token: answer it with 503, so that
/// the client keeps its token and tries again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token is refused: 401, `invalid_token` (RFC 6750 §3.1).
    #[error("the token is not valid")]
    Invalid(#[from] InvalidToken),
    /// The token cannot be checked now: 503.
    #[error("the token could not be checked")]
    Unavailable(#[from] UnavailableError),
}

/// Why a token is refused, for traces. The response does not say why.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// The JWT fails a check.
    #[error("the JWT is refused")]
    Jwt(#[source] Arc<cloakroom_jwt::VerifyError>),
    /// It is opaque, and no introspection is configured.
    #[error("the token is not a JWT, and no introspection is configured for opaque tokens")]
    NotJwt,
    /// The authorization server reports it as inactive.
    #[error("the token is inactive")]
    Inactive,
    /// It is longer than any token this library accepts.
    #[error("the token is longer than {} bytes", crate::MAX_TOKEN_BYTES)]
    TooLarge,
    /// Its audience is a different one, or missing.
    #[error("the token's audience does not contain this resource")]
    Audience,
    /// Another authorization server issued it.
    #[error("the token was issued by another authorization server")]
    Issuer,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// Its `nbf` is in the future.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A [`RevocationReplica`](crate::RevocationReplica) knows that it is revoked.
    #[error("the token is revoked")]
    Revoked,
    /// It is older than the route's [`Freshness`](crate::Freshness) allows, and neither a replica nor
    /// introspection is configured to check it for revocation. The client needs a newer one.
    #[error("the JWT is older than this route allows, and its revocation cannot be checked")]
    TooOld,
    /// The [`GatewayKeys`](crate::GatewayKeys) show that it is not a handle of the authorization
    /// server.
    #[error("the token is not a handle of this authorization server: forged, damaged or foreign")]
    Forged,
    /// It is not an access token.
    #[error("the token is not an access token")]
    NotAccess,
    /// The key it is bound to (`cnf`, RFC 7800) does not match the proved key or the scheme of the
    /// request. Accepting it anyway would undo the binding (RFC 9449 §7.2).
    #[error("the token's key binding does not match the request: {0}")]
    Binding(&'static str),
}

impl From<cloakroom_jwt::VerifyError> for InvalidToken {
    fn from(error: cloakroom_jwt::VerifyError) -> Self {
        Self::Jwt(Arc::new(error))
    }
}

/// The authorization server gave no usable answer, or was not asked. This says nothing about the
/// token.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableError {
    /// No answer: the connection was refused, timed out or was cut off, or the answer is too large.
    #[error("no answer from the authorization server")]
    NoAnswer(#[source] Arc<dyn Error + Send + Sync>),
    /// The authorization server rejects the credentials of this resource server.
    #[error("the authorization server rejects this resource server's credentials ({0})")]
    Credentials(StatusCode),
    /// The authorization server answered with an unexpected status.
    #[error("the authorization server answered {0}")]
    Status(StatusCode),
    /// The authorization server's answer cannot be read.
    #[error("the authorization server's answer is malformed: {0}")]
    Malformed(&'static str),
    /// The authorization server's answer cannot be read. The sources say why, and quote no value of the
    /// answer.
    #[error("the authorization server's answer is malformed")]
    Unreadable(#[source] Arc<dyn Error + Send + Sync>),
    /// The replica is further behind than the route's [`Freshness`](crate::Freshness) allows, or
    /// cannot tell whether the token is revoked; and introspection is not configured, or
    /// [`WhenStale`](crate::WhenStale) excludes it.
    #[error("the replica of the revocation log is too far behind, or cannot check the token")]
    Stale,
    /// The [`IntrospectionLimits`](crate::IntrospectionLimits) are reached.
    #[error("too many introspection requests")]
    Overloaded,
    /// The handle names a key that the [`GatewayKeys`](crate::GatewayKeys) may not have yet.
    #[error("the key of the handle is not known yet")]
    HandleKey,
    /// The JWT names a key that is not in the JWK Set, and the set cannot be fetched again yet: see
    /// [`Verifier`](crate::Verifier#unknown-keys).
    #[error("the key of the JWT is not known yet")]
    SigningKey,
    /// A custom [`Introspector`](crate::Introspector) or [`RevocationLog`](crate::RevocationLog), or
    /// a store, failed.
    #[error("the token or the revocation log could not be looked up")]
    Other(#[source] Arc<dyn Error + Send + Sync>),
}

impl UnavailableError {
    /// The failure of a custom [`Introspector`](crate::Introspector) or
    /// [`RevocationLog`](crate::RevocationLog).
    #[must_use]
    pub fn other(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(Arc::from(source.into()))
    }

    /// An answer that is not `what` it should be, and why.
    pub(crate) fn unreadable(
        what: &'static str,
        why: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        Self::Unreadable(Arc::new(AnswerError { what, source: why.into() }))
    }

    /// Whether the server answered, but the answer cannot be understood. Asking again at once is unlikely
    /// to help, whereas a server that is down or busy may recover at any time.
    pub(crate) fn is_senseless_answer(&self) -> bool {
        match self {
            Self::Malformed(_) | Self::Unreadable(_) => true,
            Self::NoAnswer(source) => {
                matches!(source.downcast_ref(), Some(crate::HttpError::TooLarge))
            }
            Self::Status(status) => {
                !status.is_server_error()
                    && !matches!(
                        *status,
                        StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT
                    )
            }
            _ => false,
        }
    }
}

/// What an answer is not, and why.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
struct AnswerError {
    what: &'static str,
    source: Box<dyn Error + Send + Sync>,
}

impl From<crate::HttpError> for UnavailableError {
    fn from(error: crate::HttpError) -> Self {
        Self::NoAnswer(Arc::new(error))
    }
}

/// A [`Verifier`](crate::Verifier) or a client could not be set up.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A URL cannot be used.
    #[error("the {what} cannot be used as a URL: {why}")]
    Url {
        /// Which URL, such as `jwks_uri`.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The metadata names another issuer (RFC 8414 §3.3): a mistake in the configuration, or an
    /// attempt at impersonation.
    #[error(
        "the metadata of {expected} names the issuer {found:?}; issuers are compared byte for byte: \
         configure that one if it is the server you mean"
    )]
    IssuerMismatch {
        /// The issuer asked for.
        expected: String,
        /// The issuer that the metadata names, cut to 255 characters.
        found: String,
    },
    /// The metadata lacks a member.
    #[error("the authorization server's metadata has no {0}")]
    Missing(&'static str),
    /// The metadata could not be fetched.
    #[error("the authorization server's metadata could not be fetched from {uri}")]
    Fetch {
        /// The URL of the metadata (RFC 8414 §3.1).
        uri: Uri,
        /// What went wrong.
        source: UnavailableError,
    },
    /// The revocation log could not be read.
    #[error("the revocation log of the authorization server could not be read")]
    Log(#[source] UnavailableError),
    /// The freshness can never be met.
    #[error("this freshness can never be met: {0}")]
    Freshness(&'static str),
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be built")]
    Client(#[source] Arc<dyn Error + Send + Sync>),
}
