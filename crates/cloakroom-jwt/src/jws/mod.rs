//! JWTs as compact JWS (RFC 7515 §3.1).

mod error;
mod header;
pub(crate) mod profile;
pub(crate) mod verify;

pub use self::error::VerifyError;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::TokenSecret;
use cloakroom_core::format::FormatError;
use serde::Serialize;

use crate::key::algorithm::Algorithm;
use crate::key::encoded_header::{ACCESS_TOKEN_TYP, encoded_header};
use crate::key::signing::Signer;

/// The largest size of an access token, in bytes. It fits into an HTTP header.
pub const MAX_JWT_BYTES: usize = 8192;

/// Signs `claims` as a JWT with the header `{"alg":…,"kid":…,"typ":…}`, in this order. It makes
/// exactly one signature.
///
/// `typ` keeps one kind of JWT from being used as another (RFC 8725 §3.11): [`ACCESS_TOKEN_TYP`]
/// for access tokens, `token-introspection+jwt` for RFC 9701.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// use cloakroom_jwt::{Algorithm, SigningKey, sign_jwt};
/// use serde_json::json;
///
/// let key = SigningKey::generate(Algorithm::Es256)?;
/// let answer = json!({"iss": "https://as.example", "token_introspection": {"active": false}});
/// let jwt = sign_jwt(&key, "token-introspection+jwt", &answer).await?;
/// assert_eq!(jwt.expose().split('.').count(), 3);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`FormatError::TooLarge`] if an access token would have more than [`MAX_JWT_BYTES`] (other JWTs
/// have no limit, since they are sent in bodies), [`FormatError::KeysUnavailable`] if the signer
/// fails, and [`FormatError::Other`] if the claims cannot be written as JSON.
pub async fn sign_jwt(
    signer: &dyn Signer,
    typ: &str,
    claims: &(impl Serialize + ?Sized + Sync),
) -> Result<TokenSecret, FormatError> {
    let mut json = Vec::with_capacity(512);
    serde_json::to_writer(&mut json, claims).map_err(|error| FormatError::Other(error.into()))?;
    let ready = signer.access_token_header().filter(|_| typ == ACCESS_TOKEN_TYP);
    let header = ready.map_or_else(
        || encoded_header(signer.algorithm(), signer.kid(), typ).into(),
        Cow::Borrowed,
    );
    let unsigned = header.len() + 1 + encoded_len(json.len()) + 1;
    // Do not sign what is already too long without its signature.
    within_limit(typ, unsigned)?;

    // There is room for the signature, so that the token is not moved and leaves no copy behind.
    let room = unsigned + encoded_len(most_signature_bytes(signer.algorithm()));
    let mut jwt = Vec::with_capacity(room);
    jwt.extend_from_slice(header.as_bytes());
    jwt.push(b'.');
    push_encoded(&mut jwt, &json)?;
    let signature =
        signer.sign(&jwt).await.map_err(|error| FormatError::KeysUnavailable(error.into()))?;
    within_limit(typ, unsigned + encoded_len(signature.len()))?;
    jwt.push(b'.');
    push_encoded(&mut jwt, &signature)?;
    let jwt = String::from_utf8(jwt);
    let jwt = jwt.map_err(|error| FormatError::Other(error.utf8_error().into()))?;
    Ok(TokenSecret::new(jwt))
}

/// Appends these bytes as base64url. In place: `encode_string` would clear and fill a buffer of its own first.
fn push_encoded(text: &mut Vec<u8>, bytes: &[u8]) -> Result<(), FormatError> {
    let begin = text.len();
    text.extend(std::iter::repeat_n(0, encoded_len(bytes.len())));
    let written = URL_SAFE_NO_PAD.encode_slice(bytes, &mut text[begin..]);
    written.map(drop).map_err(|error| FormatError::Other(error.into()))
}

/// Checks that an access token with these claims stays within the limit under a key that we generate for
/// this algorithm, or for any classical one.
pub(crate) fn will_fit(algorithm: Algorithm, claims: &impl Serialize) -> Result<(), FormatError> {
    // The longest header that we write, without the thumbprint and the algorithm.
    const HEADER: &str = r#"{"alg":"","kid":"","typ":"at+jwt"}"#;
    const THUMBPRINT: usize = encoded_len(32);
    let longest = |algorithm: Algorithm, signature: usize| {
        let header = HEADER.len() + algorithm.as_str().len() + THUMBPRINT;
        encoded_len(header) + 1 + 1 + encoded_len(signature)
    };
    // The longest classical signature of a key that we generate: RSA with 2048 bits.
    let mut rest = longest(Algorithm::Rs256, 256);
    if algorithm.is_post_quantum() {
        rest = rest.max(longest(algorithm, most_signature_bytes(algorithm)));
    }
    let claims = serde_json::to_vec(claims).map_err(|error| FormatError::Other(error.into()))?;
    within_limit(ACCESS_TOKEN_TYP, encoded_len(claims.len()) + rest)
}

/// The most bytes in a signature. For RSA, that of a key with 4096 bits.
const fn most_signature_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::Danger(_) => 32,
        Algorithm::Es256 | Algorithm::EdDsa => 64,
        Algorithm::Es384 => 96,
        Algorithm::Es512 => 132,
        Algorithm::Rs256
        | Algorithm::Rs384
        | Algorithm::Rs512
        | Algorithm::Ps256
        | Algorithm::Ps384
        | Algorithm::Ps512 => 512,
        #[cfg(feature = "ml-dsa")]
        Algorithm::MlDsa44 => 2420,
        #[cfg(feature = "ml-dsa")]
        Algorithm::MlDsa65 => 3309,
    }
}

const fn encoded_len(bytes: usize) -> usize {
    (bytes * 4).div_ceil(3)
}

fn within_limit(typ: &str, size: usize) -> Result<(), FormatError> {
    if typ == ACCESS_TOKEN_TYP && size > MAX_JWT_BYTES {
        return Err(FormatError::TooLarge { size, limit: MAX_JWT_BYTES });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
