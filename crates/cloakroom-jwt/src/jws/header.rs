//! What the header of an access token must say (RFC 7515 §4, RFC 9068 §2.1, RFC 8725 §3).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::Kid;
use serde::Deserialize;

use crate::jws::error::VerifyError;
use crate::key::algorithm::Algorithm;
use crate::key::header_segment::ACCESS_TOKEN_TYP;
use crate::key::jwk::Present;
use crate::key::key_set::{KeySet, VerificationKey};
use crate::strict_json;

/// The most bytes of a header segment. It is read before any signature is checked.
const MAX_SEGMENT: usize = 2048;

/// The key that the header names, once everything the header says has been approved.
pub(crate) fn select<'k>(
    keys: &'k KeySet,
    segment: &str,
) -> Result<&'k VerificationKey, VerifyError> {
    // A header that is, byte for byte, one that we would write says nothing that needs a look.
    if let Some(key) = keys.by_header(segment) {
        return Ok(key);
    }
    if segment.len() > MAX_SEGMENT {
        return Err(VerifyError::Header("it is too large"));
    }
    let json = URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| VerifyError::Malformed("the header is not canonical base64url"))?;
    let header: Header<'_> = strict_json::from_slice(&json)
        .map_err(|_| VerifyError::Malformed("the header is no unambiguous JSON object"))?;
    let kid = header.approve()?;
    match keys.by_kid(&kid) {
        // RFC 8725 §3.1: each key MUST be used with exactly one algorithm.
        Some(key) if key.algorithm.as_str() == header.alg => Ok(key),
        None if header.alg.parse::<Algorithm>().is_ok() => Err(VerifyError::UnknownKey(kid)),
        _ => Err(VerifyError::Algorithm),
    }
}

#[derive(Deserialize)]
struct Header<'a> {
    #[serde(borrow)]
    alg: Cow<'a, str>,
    #[serde(borrow)]
    typ: Option<Cow<'a, str>>,
    kid: Option<Kid>,
    #[serde(default)]
    crit: Present,
    #[serde(default)]
    b64: Present,
    #[serde(default)]
    jwk: Present,
    #[serde(default)]
    jku: Present,
    #[serde(default)]
    x5c: Present,
    #[serde(default)]
    x5u: Present,
}

impl Header<'_> {
    fn approve(&self) -> Result<Kid, VerifyError> {
        // RFC 7515 §4.1.11: extensions that are not understood make the JWS invalid. None is.
        if self.crit.0 || self.b64.0 {
            return Err(VerifyError::Header("it asks for an extension"));
        }
        // A key that comes with the token proves nothing; a sender that believes otherwise is
        // mistaken or malicious.
        if [&self.jwk, &self.jku, &self.x5c, &self.x5u].iter().any(|member| member.0) {
            return Err(VerifyError::Header("it brings a key of its own"));
        }
        // RFC 9068 §4: reject tokens carrying any other value. RFC 7515 §4.1.9: compared without
        // regard to case, with `application/` left out or not.
        let is_access_token = self.typ.as_deref().is_some_and(|typ| {
            let typ = match typ.split_at_checked("application/".len()) {
                Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
                _ => typ,
            };
            typ.eq_ignore_ascii_case(ACCESS_TOKEN_TYP)
        });
        if !is_access_token {
            return Err(VerifyError::Header("`typ` is not `at+jwt`"));
        }
        self.kid.clone().ok_or(VerifyError::Header("`kid` is missing"))
    }
}
