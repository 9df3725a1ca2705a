//! Tokens by hand: whatever an attacker or another implementation may write.

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::time::{ManualClock, UnixTime};
use cloakroom_jwt::{
    ACCESS_TOKEN_TYP, Algorithm, JwkSet, KeySet, Signer, SigningKey, Verifier, sign_jwt,
};
use serde_json::{Value, json};

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const AUDIENCE: &str = "https://orders.example";
/// The time that the verifier's clock shows, in seconds.
pub(crate) const NOW: u64 = 1_700_000_000;

pub(crate) const ALGORITHMS: [Algorithm; 5] =
    [Algorithm::Es256, Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Ps256, Algorithm::Es384];

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().build().unwrap()
}

/// The claims of RFC 9068 §2.2, and nothing else.
pub(crate) fn claims() -> Value {
    json!({
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "client_id": "web-app",
        "jti": "dbe39bf3a3ba4238a513f51d6e1691c4",
        "iat": NOW,
        "exp": NOW + 600,
    })
}

pub(crate) fn verifier() -> Verifier {
    Verifier::new(ISSUER, AUDIENCE).clock(Arc::new(ManualClock::at(UnixTime::from_secs(NOW))))
}

pub(crate) fn key_set(keys: &[&SigningKey]) -> KeySet {
    KeySet::prepare(&JwkSet::new(keys.iter().map(|key| key.public_jwk().clone()).collect()))
}

pub(crate) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// As the issuer signs it.
pub(crate) fn token(key: &dyn Signer, claims: &Value) -> String {
    let jwt = runtime().block_on(sign_jwt(key, ACCESS_TOKEN_TYP, claims));
    jwt.unwrap().expose().to_owned()
}

/// A header and claims of any text, with a good signature.
pub(crate) fn signed(key: &dyn Signer, header: &str, claims: &str) -> String {
    signed_segments(key, &b64(header), &b64(claims))
}

/// Any segments, with a good signature.
pub(crate) fn signed_segments(key: &dyn Signer, header: &str, claims: &str) -> String {
    let input = format!("{header}.{claims}");
    let signature = runtime().block_on(key.sign(input.as_bytes())).unwrap();
    format!("{input}.{}", b64(signature))
}

/// The usual header as a value.
pub(crate) fn header(key: &dyn Signer) -> Value {
    json!({"alg": key.algorithm().as_str(), "kid": key.kid(), "typ": "at+jwt"})
}

/// What a segment says.
pub(crate) fn unb64(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// The reason of a refusal: how `{:?}` shows the error, without quotation marks.
pub(crate) fn reason(error: &dyn std::fmt::Debug) -> String {
    format!("{error:?}").replace(['"', '\\'], "")
}

/// The token is refused, for a reason that begins like this.
#[track_caller]
pub(crate) fn refuses(keys: &KeySet, what: &str, jwt: &str, expected: &str) {
    let verified = verifier().max_bytes(1 << 20).verify(keys, jwt);
    let Err(error) = verified else { panic!("{what}: accepted, where {expected} was expected") };
    let reason = reason(&error);
    assert!(reason.starts_with(expected), "{what}: {reason}, where {expected} was expected");
}

/// The token is accepted: the twin of a refused one, lest that was refused for something else.
#[track_caller]
pub(crate) fn accepts(keys: &KeySet, what: &str, jwt: &str) {
    if let Err(error) = verifier().max_bytes(1 << 20).verify(keys, jwt) {
        panic!("{what}: {error:?}");
    }
}

/// An existing key with a `kid` of another choice.
pub(crate) fn published_as(key: &SigningKey, kid: &str) -> KeySet {
    let mut jwk = serde_json::to_value(key.public_jwk()).unwrap();
    jwk["kid"] = json!(kid);
    KeySet::prepare(&serde_json::from_value(json!({"keys": [jwk]})).unwrap())
}

pub(crate) fn pem(label: &str, der: &[u8]) -> String {
    let text = base64::engine::general_purpose::STANDARD.encode(der);
    let lines: Vec<&str> =
        (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}
