//! What can go wrong, in the words of the RFCs.

use cloakroom_core::RandomError;
use cloakroom_core::format::FormatError;
use cloakroom_core::store::StoreError;
use cloakroom_jwt::KeyManagerError;
use serde::Serialize;

use crate::client::directory::DirectoryError;

/// A request was refused, or could not be served.
///
/// [`TokenError::code`] is what goes over the wire; `Display` and `source()` are for traces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// `invalid_request`: the request is malformed.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// `invalid_request`: the redirect URI is not registered. The user must *not* be sent there (RFC
    /// 6749 §4.1.2.1).
    #[error("the redirect URI is not registered")]
    RedirectUri,
    /// `invalid_client`: unknown client, or wrong credentials.
    #[error("client authentication failed: {0}")]
    InvalidClient(AuthenticationFailure),
    /// `invalid_grant`: the code or refresh token is not good. One answer for every reason.
    #[error("invalid grant: {0}")]
    InvalidGrant(GrantRefusal),
    /// `unauthorized_client`: the client may not do this.
    #[error("the client is not allowed to do this: {0}")]
    UnauthorizedClient(&'static str),
    /// `unsupported_grant_type`.
    #[error("unsupported grant type")]
    UnsupportedGrantType,
    /// `invalid_scope`: malformed, unknown, or wider than what was granted.
    #[error("invalid scope: {0}")]
    InvalidScope(&'static str),
    /// `invalid_target` (RFC 8707 §2): a resource that the client may not name.
    #[error("invalid target: {0}")]
    InvalidTarget(&'static str),
    /// The grant was revoked while it was made: nothing was issued.
    #[error("a revocation covers the grant")]
    Barred,
    /// The server cannot answer now; the same request may succeed later.
    #[error("not now: {0}")]
    Unavailable(&'static str),
    /// The token store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client directory failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// No token could be made or judged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The signing keys failed.
    #[error(transparent)]
    Keys(#[from] KeyManagerError),
}

/// Why a client was not authenticated. For traces and events: the wire says `invalid_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthenticationFailure {
    /// The request names no client, or its credentials cannot be read.
    #[error("there are no credentials that can be read")]
    Malformed,
    /// No client has this identifier.
    #[error("the client is unknown")]
    UnknownClient,
    /// The client is known, and has credentials; the request brought none.
    #[error("the client must send its credentials")]
    MissingCredentials,
    /// The client is known; its secret, or another proof, is wrong.
    #[error("the credentials are wrong")]
    WrongCredentials,
    /// The client is known, and is public: it has no credentials, and so it may not do this.
    #[error("the client is public")]
    PublicClient,
}

/// Why a code or a refresh token was refused. For traces and events: the wire says `invalid_grant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrantRefusal {
    /// It is no credential of ours.
    #[error("malformed or forged")]
    Forged,
    /// No such grant.
    #[error("its grant is unknown")]
    Unknown,
    /// The grant was revoked, or has ended.
    #[error("its grant is revoked or expired")]
    Dead,
    /// Another client's.
    #[error("it belongs to another client")]
    OtherClient,
    /// The proved key is not the one it is bound to.
    #[error("it is bound to another key")]
    OtherKey,
    /// The redirect URI is not that of the authorization request.
    #[error("the redirect URI differs")]
    RedirectUri,
    /// The PKCE verifier is missing or wrong.
    #[error("the code verifier is missing or wrong")]
    Verifier,
    /// It was spent before: the grant is now revoked.
    #[error("it was spent before; the grant is revoked")]
    Reused,
    /// It was spent a moment ago, and is not the one that the retry window is for.
    #[error("it was spent a moment ago")]
    Spent,
    /// The store does not know it yet: the grant is now revoked.
    #[error("the store has gone back in time; the grant is revoked")]
    Regressed,
}

impl TokenError {
    /// The error code of RFC 6749 §5.2 and RFC 8707 §2; `None` for an outage, which is 503.
    #[must_use]
    pub const fn code(&self) -> Option<&'static str> {
        match self {
            Self::InvalidRequest(_) | Self::RedirectUri => Some("invalid_request"),
            Self::InvalidClient(_) => Some("invalid_client"),
            Self::InvalidGrant(_) | Self::Barred => Some("invalid_grant"),
            Self::UnauthorizedClient(_) => Some("unauthorized_client"),
            Self::UnsupportedGrantType => Some("unsupported_grant_type"),
            Self::InvalidScope(_) => Some("invalid_scope"),
            Self::InvalidTarget(_) => Some("invalid_target"),
            Self::Unavailable(_)
            | Self::Store(_)
            | Self::Directory(_)
            | Self::Format(_)
            | Self::Keys(_) => None,
        }
    }
}

impl TokenError {
    /// What the caller did wrong, for `error_description`, where that reveals nothing: never why a
    /// credential was refused.
    #[must_use]
    pub const fn description(&self) -> Option<&'static str> {
        match self {
            Self::RedirectUri => Some("the redirect URI is not registered"),
            Self::InvalidRequest(why)
            | Self::InvalidScope(why)
            | Self::InvalidTarget(why)
            | Self::UnauthorizedClient(why) => Some(why),
            _ => None,
        }
    }
}

impl From<GrantRefusal> for TokenError {
    fn from(refusal: GrantRefusal) -> Self {
        Self::InvalidGrant(refusal)
    }
}

impl From<AuthenticationFailure> for TokenError {
    fn from(failure: AuthenticationFailure) -> Self {
        Self::InvalidClient(failure)
    }
}

impl From<RandomError> for TokenError {
    fn from(error: RandomError) -> Self {
        Self::Format(FormatError::Random(error))
    }
}

/// An issuer was set up inconsistently. The text says how to mend it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A part is missing.
    #[error("{what} is missing: call `{call}`")]
    Missing {
        /// What.
        what: &'static str,
        /// What to call.
        call: &'static str,
    },
    /// A setting contradicts another, or a limit.
    #[error("{setting}: {why}")]
    Setting {
        /// Which.
        setting: &'static str,
        /// What is wrong, and how to mend it.
        why: String,
    },
    /// The store's check values could not be read or written.
    #[error("what the store remembers of its issuer could not be read or written")]
    Store(#[from] StoreError),
    /// The signing keys could not be set up.
    #[error("the signing keys could not be set up")]
    Keys(#[from] KeyManagerError),
    /// No random bytes.
    #[error(transparent)]
    Random(#[from] RandomError),
}
