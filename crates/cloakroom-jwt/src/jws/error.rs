//! Why a JWT is refused.

use cloakroom_core::Kid;

/// Why a token was refused. Write it to traces, and do not show it to the client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// It is larger than allowed. It was not read.
    #[error("the token is too large")]
    TooLarge,
    /// It is not a compact JWS.
    #[error("malformed token: {0}")]
    Malformed(&'static str),
    /// The header has a member or a value that an access token must not have.
    #[error("unacceptable header: {0}")]
    Header(&'static str),
    /// `alg` is not the algorithm of the key, or is not supported.
    #[error("`alg` is not the algorithm of the key")]
    Algorithm,
    /// The key is not in the set. Fetching the issuer's set again may help.
    #[error("unknown key {0:?}")]
    UnknownKey(Kid),
    /// The token has no `kid`. No key of the set has its `alg`, or several have it, or the only one
    /// did not sign the token. Fetching the issuer's set again may help.
    #[error("the token has no `kid`, and the key that signed it cannot be determined")]
    Unnamed,
    /// The signature is wrong.
    #[error("wrong signature")]
    Signature,
    /// The claims are not JSON, or a member is repeated or has the wrong type.
    #[error("unacceptable claims")]
    Json(#[source] serde_json::Error),
    /// A claim is missing or invalid.
    #[error("unacceptable claims: {0}")]
    Claims(&'static str),
    /// `iss` is not the issuer.
    #[error("wrong issuer")]
    Issuer,
    /// `aud` does not contain the audience.
    #[error("wrong audience")]
    Audience,
    /// `exp` has passed.
    #[error("expired")]
    Expired,
    /// `nbf` or `iat` is in the future.
    #[error("not yet valid")]
    NotYetValid,
}
