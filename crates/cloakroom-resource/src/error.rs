//! What can go wrong. What helps an operator is in the error's sources; nothing of it goes over
//! the wire.

use std::error::Error;
use std::sync::Arc;

use http::{StatusCode, Uri};

/// A token was not accepted.
///
/// The two variants must never be confused: an outage says nothing about the token, lets nobody in
/// and is answered with 503, so that a client keeps its token and tries again.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// The token is refused: 401, `invalid_token` (RFC 6750 §3.1).
    #[error("the token is not valid")]
    Invalid(#[from] InvalidToken),
    /// Just now it cannot be told whether the token is good: 503.
    #[error("the token could not be checked")]
    Unavailable(#[from] UnavailableError),
}

/// Why a token is refused; for traces, never for the one who presented it.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidToken {
    /// The JWT fails a check.
    #[error("the JWT is refused")]
    Jwt(#[source] Arc<cloakroom_jwt::VerifyError>),
    /// It is opaque, and nobody here can introspect it.
    #[error("the token is no JWT: opaque tokens need introspection")]
    NotJwt,
    /// The authorization server calls it inactive.
    #[error("the token is inactive")]
    Inactive,
    /// It is longer than any token this library accepts.
    #[error("the token is longer than {} bytes", crate::MAX_TOKEN_BYTES)]
    TooLarge,
    /// It is meant for somebody else, or does not say for whom.
    #[error("the token is not meant for this resource")]
    Audience,
    /// Another authorization server issued it.
    #[error("the token is from another issuer")]
    Issuer,
    /// It has expired.
    #[error("the token has expired")]
    Expired,
    /// Its `nbf` has not come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// A [`RevocationReplica`](crate::RevocationReplica) knows that it is revoked.
    #[error("the token is revoked")]
    Revoked,
    /// It is older than the route's [`Freshness`](crate::Freshness), and there is neither a replica
    /// nor an introspection that could vouch for it. The client gets a younger one.
    #[error("the JWT was issued longer ago than this route allows, and nobody can vouch for it")]
    TooOld,
    /// By the authorization server's [`GatewayKeys`](crate::GatewayKeys), it is no handle of its.
    #[error("the token is no handle of this authorization server: forged, damaged, or foreign")]
    Forged,
    /// It is no access token.
    #[error("the token is no access token")]
    NotAccess,
    /// The key it is bound to (`cnf`, RFC 7800), the key that is proved and the scheme it came in
    /// do not go together. Accepting it all the same would undo the binding (RFC 9449 §7.2).
    #[error("the token's binding to a key is not kept: {0}")]
    Binding(&'static str),
}

impl From<cloakroom_jwt::VerifyError> for InvalidToken {
    fn from(error: cloakroom_jwt::VerifyError) -> Self {
        Self::Jwt(Arc::new(error))
    }
}

/// The authorization server gave no usable answer, or was not asked. Never a verdict on a token.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum UnavailableError {
    /// No answer: connection refused, timed out, cut off, or larger than is read.
    #[error("no answer from the authorization server")]
    NoAnswer(#[source] Arc<dyn Error + Send + Sync>),
    /// It refuses this resource server's own credentials.
    #[error("the authorization server refuses our own credentials ({0})")]
    Credentials(StatusCode),
    /// It answered with a status that the protocol does not provide for.
    #[error("the authorization server answered {0}")]
    Status(StatusCode),
    /// Its answer cannot be read.
    #[error("the authorization server's answer is malformed: {0}")]
    Malformed(&'static str),
    /// What is known of revocations is older than the route's [`Freshness`](crate::Freshness)
    /// allows, or says nothing of this token, and [`WhenStale`](crate::WhenStale) or the lack of an
    /// introspection forbids to ask.
    #[error("the replica of the revocation log is too far behind, or cannot vouch for the token")]
    Stale,
    /// The [`IntrospectionLimits`](crate::IntrospectionLimits) are reached.
    #[error("too many questions to the authorization server wait or were sent")]
    Overloaded,
    /// The handle names a key that the [`GatewayKeys`](crate::GatewayKeys) may not have yet.
    #[error("the key of this handle is not known yet")]
    HandleKey,
    /// An [`Introspector`](crate::Introspector) or a [`RevocationLog`](crate::RevocationLog) of the
    /// app's own failed, or a store.
    #[error("the question could not be answered")]
    Other(#[source] Arc<dyn Error + Send + Sync>),
}

impl UnavailableError {
    /// The failure of an [`Introspector`](crate::Introspector) or a
    /// [`RevocationLog`](crate::RevocationLog) of the app's own.
    #[must_use]
    pub fn other(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Other(Arc::from(source.into()))
    }
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
    /// No usable URL.
    #[error("the {what} is no usable URL: {why}")]
    Url {
        /// Which URL, such as `jwks_uri`.
        what: &'static str,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The metadata is of another issuer (RFC 8414 §3.3): a mistake in the configuration, or an
    /// attempt to pass for somebody else.
    #[error(
        "the metadata of {expected} says that its issuer is {found:?}; issuers are compared byte for \
         byte: ask for that one if it is the server you mean"
    )]
    IssuerMismatch {
        /// The issuer asked for.
        expected: String,
        /// The issuer that the metadata names, cut to 255 characters.
        found: String,
    },
    /// The metadata lacks what is needed.
    #[error("the authorization server's metadata has no {0}")]
    Missing(&'static str),
    /// The metadata could not be fetched.
    #[error("the authorization server's metadata could not be fetched from {uri}")]
    Fetch {
        /// Where it should be (RFC 8414 §3.1).
        uri: Uri,
        /// What went wrong.
        source: UnavailableError,
    },
    /// The freshness asked for can never be met.
    #[error("this freshness can never be met: {0}")]
    Freshness(&'static str),
    /// The HTTP client could not be built.
    #[error("the HTTP client could not be built")]
    Client(#[source] Arc<dyn Error + Send + Sync>),
}
