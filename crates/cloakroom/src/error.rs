//! Errors, with the codes of the RFCs.

use cloakroom_core::RandomError;
use cloakroom_core::format::FormatError;
use cloakroom_core::store::StoreError;
use cloakroom_jwt::KeyManagerError;
use serde::Serialize;

use crate::client::directory::DirectoryError;

/// A request was refused or could not be served.
///
/// The response holds [`TokenError::code`]. `Display` and `source()` are for traces.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// `invalid_request`: the request is malformed.
    #[error("invalid request: {0}")]
    InvalidRequest(&'static str),
    /// `invalid_request`: the redirect URI is not registered. The user must *not* be sent there
    /// (RFC 6749 §4.1.2.1).
    #[error("the redirect URI is not registered")]
    RedirectUri,
    /// `invalid_client`: unknown client, or wrong credentials.
    #[error("client authentication failed: {0}")]
    InvalidClient(AuthenticationFailure),
    /// `invalid_grant`: the code or refresh token cannot be used. The response does not say why.
    #[error("invalid grant: {0}")]
    InvalidGrant(GrantRefusal),
    /// `unauthorized_client`: the client may not do this.
    #[error("the client is not allowed to do this: {0}")]
    UnauthorizedClient(&'static str),
    /// `unsupported_grant_type`.
    #[error("unsupported grant type")]
    UnsupportedGrantType,
    /// `invalid_scope`: the scope is malformed, unknown, or wider than what was granted.
    #[error("invalid scope: {0}")]
    InvalidScope(&'static str),
    /// `invalid_target` (RFC 8707 §2): the client may not name this resource.
    #[error("invalid target: {0}")]
    InvalidTarget(&'static str),
    /// `invalid_grant`: a revocation of the subject or client covers the new grant. Nothing was
    /// issued.
    #[error("a revocation covers the grant")]
    Barred,
    /// Your [`TokenHook`](crate::TokenHook) or [`ExtensionGrant`](crate::ExtensionGrant) refused, with
    /// this error code. The response does not say why.
    #[error("refused by the app: {reason}")]
    Denied {
        /// The error code.
        code: &'static str,
        /// Why, for the trace.
        reason: String,
    },
    /// Your [`TokenHook`](crate::TokenHook) or [`ExtensionGrant`](crate::ExtensionGrant) failed, or took
    /// too long. Nothing was issued or spent.
    #[error("the app's hook failed")]
    Hook(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The server cannot answer now. The same request may succeed later.
    #[error("unavailable: {0}")]
    Unavailable(&'static str),
    /// The token store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The client directory failed.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// A token format failed.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The signing keys failed.
    #[error(transparent)]
    Keys(#[from] KeyManagerError),
}

/// Why a client failed to authenticate, for traces and events. The response says `invalid_client`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AuthenticationFailure {
    /// The request names no client, or its credentials are malformed.
    #[error("the credentials are missing or malformed")]
    Malformed,
    /// No registered client has this identifier.
    #[error("the client is unknown")]
    UnknownClient,
    /// The client is confidential, and the request holds no credentials.
    #[error("the client must send its credentials")]
    MissingCredentials,
    /// The secret, or another credential, is wrong.
    #[error("the credentials are wrong")]
    WrongCredentials,
    /// The client is public, and only confidential clients may use this endpoint.
    #[error("the client is public")]
    PublicClient,
}

/// Why a code or a refresh token was refused, for traces and events. The response says
/// `invalid_grant`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum GrantRefusal {
    /// This issuer did not make it.
    #[error("malformed or forged")]
    Forged,
    /// Its grant does not exist.
    #[error("its grant is unknown")]
    Unknown,
    /// Its grant was revoked or has expired.
    #[error("its grant is revoked or expired")]
    Dead,
    /// It belongs to another client.
    #[error("it belongs to another client")]
    OtherClient,
    /// It is bound to a key other than the proved one.
    #[error("it is bound to another key")]
    OtherKey,
    /// The redirect URI differs from the authorization request's, or is missing.
    #[error("the redirect URI differs or is missing")]
    RedirectUri,
    /// The PKCE verifier is missing or wrong.
    #[error("the code verifier is missing or wrong")]
    Verifier,
    /// It was spent before. The grant is now revoked.
    #[error("it was spent before; the grant is revoked")]
    Reused,
    /// It was spent a moment ago, and the request is not a retry that gets the same successor.
    #[error("it was spent a moment ago")]
    Spent,
    /// Your [`TokenHook`](crate::TokenHook) refused it. It is not spent, and the trace has the reason.
    #[error("the app's hook refused it")]
    Denied,
    /// It is newer than what the store holds, which has gone back in time. The grant is now
    /// revoked.
    #[error("the store has gone back in time; the grant is revoked")]
    Regressed,
}

impl TokenError {
    /// The error code of RFC 6749 §5.2 and RFC 8707 §2; `None` for an outage, which the endpoints
    /// answer with 503.
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
            Self::Denied { code, .. } => Some(code),
            Self::Unavailable(_)
            | Self::Hook(_)
            | Self::Store(_)
            | Self::Directory(_)
            | Self::Format(_)
            | Self::Keys(_) => None,
        }
    }

    /// What the caller did wrong, for `error_description`. `None` where it would tell an attacker
    /// something, such as why a credential was refused.
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

/// An issuer could not be built. The text says how to fix the settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BuildError {
    /// A required setting is missing.
    #[error("{what} is missing: call `{call}`")]
    Missing {
        /// The missing setting.
        what: &'static str,
        /// The builder method that sets it.
        call: &'static str,
    },
    /// A setting contradicts another one, exceeds a limit, or does not match the stores.
    #[error("{setting}: {why}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What is wrong, and how to fix it.
        why: String,
    },
    /// The check values of a store could not be read or written.
    #[error("the check values of the store could not be read or written")]
    Store(#[from] StoreError),
    /// The signing keys could not be loaded or made.
    #[error("the signing keys could not be loaded or made")]
    Keys(#[from] KeyManagerError),
    /// The source of random bytes failed.
    #[error(transparent)]
    Random(#[from] RandomError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_says_what_the_caller_did_wrong_and_nothing_of_credentials() {
        let wrong = TokenError::RedirectUri.description();
        assert_eq!(wrong, Some("the redirect URI is not registered"));
        assert_eq!(TokenError::InvalidRequest("why").description(), Some("why"));
        assert_eq!(TokenError::InvalidGrant(GrantRefusal::Unknown).description(), None);
    }
}
