//! The header segment of a JWT.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::Kid;

use crate::key::algorithm::Algorithm;

/// `typ` of an access token (RFC 9068 §2.1).
pub const ACCESS_TOKEN_TYP: &str = "at+jwt";

/// The header segment that [`sign_jwt`](crate::sign_jwt) writes.
pub(crate) fn encoded_header(algorithm: Algorithm, kid: &Kid, typ: &str) -> String {
    let (kid, typ) = (json_string(kid.as_str()), json_string(typ));
    URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"{algorithm}","kid":{kid},"typ":{typ}}}"#))
}

fn json_string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
