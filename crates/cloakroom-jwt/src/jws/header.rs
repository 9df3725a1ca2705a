//! What the header of an access token must contain (RFC 7515 §4, RFC 9068 §2.1, RFC 8725 §3).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::{Kid, strict_json};
use serde::Deserialize;

use crate::jws::error::VerifyError;
use crate::jws::profile::IssuerProfile;
use crate::key::algorithm::Algorithm;
use crate::key::encoded_header::ACCESS_TOKEN_TYP;
use crate::key::jwk::Present;
use crate::key::key_set::{KeySet, VerificationKey};

/// The most bytes of a header segment. It is read before any signature is checked.
const MAX_SEGMENT: usize = 2048;

/// The key to verify with, and what the header says beside it.
pub(crate) struct Selected<'k> {
    pub(crate) key: &'k VerificationKey,
    /// Whether it says that this is an access token (RFC 9068 §2.1).
    pub(crate) is_typed: bool,
    /// Whether it names the key.
    pub(crate) is_named: bool,
}

/// Selects the key, once everything that the header says has been approved.
pub(crate) fn select<'k>(
    keys: &'k KeySet,
    segment: &str,
    profile: &IssuerProfile,
) -> Result<Selected<'k>, VerifyError> {
    // A header that is, byte for byte, one that we would write says nothing that needs a look.
    if let Some(key) = keys.by_header(segment) {
        return Ok(Selected { key, is_typed: true, is_named: true });
    }
    if segment.len() > MAX_SEGMENT {
        return Err(VerifyError::Header("it is too large"));
    }
    let json = URL_SAFE_NO_PAD
        .decode(segment)
        .map_err(|_| VerifyError::Malformed("the header is not canonical base64url"))?;
    let header: Header<'_> = strict_json::from_slice(&json).map_err(|_| {
        VerifyError::Malformed("the header is not a JSON object without duplicate members")
    })?;
    let is_typed = header.approve(profile)?;
    // RFC 8725 §3.1: each key MUST be used with exactly one algorithm.
    let is_named = header.kid.is_some();
    let key = match header.kid {
        Some(kid) => match keys.get(&kid, &header.alg) {
            Some(key) => key,
            None if !keys.contains(&kid) && header.alg.parse::<Algorithm>().is_ok() => {
                return Err(VerifyError::UnknownKey(kid));
            }
            None => return Err(VerifyError::Algorithm),
        },
        // RFC 7515 §4.1.4: "kid" is OPTIONAL. Nothing is tried: one key fits, or none is taken.
        None => {
            let mut fitting = keys.of_algorithm(&header.alg);
            match (fitting.next(), fitting.next()) {
                (Some(key), None) => key,
                _ if header.alg.parse::<Algorithm>().is_ok() => return Err(VerifyError::Unnamed),
                _ => return Err(VerifyError::Algorithm),
            }
        }
    };
    Ok(Selected { key, is_typed, is_named })
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
    /// Whether it is typed as an access token.
    fn approve(&self, profile: &IssuerProfile) -> Result<bool, VerifyError> {
        // RFC 7515 §4.1.11: extensions that are not understood make the JWS invalid. None is.
        if self.crit.0 || self.b64.0 {
            return Err(VerifyError::Header("it asks for an extension"));
        }
        // A key that comes with the token proves nothing; a sender that believes otherwise is
        // mistaken or malicious.
        if [&self.jwk, &self.jku, &self.x5c, &self.x5u].iter().any(|member| member.0) {
            return Err(VerifyError::Header("it contains a key"));
        }
        // RFC 9068 §4: reject tokens carrying any other value. RFC 7515 §4.1.9: compared without
        // regard to case, with `application/` left out or not.
        let typ = self.typ.as_deref().map(|typ| match typ.split_at_checked("application/".len()) {
            Some((prefix, rest)) if prefix.eq_ignore_ascii_case("application/") => rest,
            _ => typ,
        });
        let is_typed = typ.is_some_and(|typ| typ.eq_ignore_ascii_case(ACCESS_TOKEN_TYP));
        if !is_typed && !profile.accepts_typ(typ) {
            return Err(VerifyError::Header("`typ` is not `at+jwt`"));
        }
        Ok(is_typed)
    }
}
