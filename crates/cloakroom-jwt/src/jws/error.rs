//! Why a JWT does not pass.

use cloakroom_core::Kid;

/// Why a token did not pass. For traces: none of it is for the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// Larger than allowed; nothing of it was read.
    #[error("the token is too large")]
    TooLarge,
    /// No compact JWS.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// The header says something that an access token must not say.
    #[error("unacceptable header: {0}")]
    Header(&'static str),
    /// `alg` is not the algorithm of the key, or none that is supported.
    #[error("`alg` is not the algorithm of the key")]
    Algorithm,
    /// The key is not in the set. Fetching the issuer's set again may help.
    #[error("unknown key {0:?}")]
    UnknownKey(Kid),
    /// The token has no `kid`, and no key of the set is for its `alg`, or several are. Fetching the
    /// issuer's set again may help.
    #[error("the token has no `kid`, and not exactly one key is for its `alg`")]
    Unnamed,
    /// The signature is wrong.
    #[error("wrong signature")]
    Signature,
    /// The claims are no JSON, hold a duplicate member, or one of the wrong type.
    #[error("unacceptable claims")]
    Json(#[source] serde_json::Error),
    /// A claim is missing or makes no sense.
    #[error("unacceptable claims: {0}")]
    Claims(&'static str),
    /// `iss` is not the issuer.
    #[error("wrong issuer")]
    Issuer,
    /// `aud` does not hold the audience.
    #[error("wrong audience")]
    Audience,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf` or `iat` has not come.
    #[error("not yet valid")]
    NotYetValid,
}
