//! The content of a JWT, read without checking its signature: for tokens that the authorization
//! server has just reported as active.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::{Kid, TokenDigest};
use serde::Deserialize;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::MAX_TOKEN_BYTES;

/// Header and claims of something that looks like a signed JWT.
#[derive(Debug)]
pub(crate) struct Unverified {
    pub(crate) header: Map<String, Value>,
    pub(crate) claims: Map<String, Value>,
}

impl Unverified {
    /// Three segments of base64url, the first two JSON objects, at most 8,192 bytes.
    pub(crate) fn read(text: &str) -> Result<Self, &'static str> {
        if text.len() > MAX_TOKEN_BYTES {
            return Err("the JWT is too large");
        }
        let mut segments = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err("it is not a JWT");
        };
        let (Some(header), Some(claims)) = (object(header), object(claims)) else {
            return Err("it is not a JWT");
        };
        // With it, header and claims are a token again.
        let decoded = URL_SAFE_NO_PAD.decode(signature).map(Zeroizing::new);
        if signature.is_empty() || decoded.is_err() {
            return Err("the JWT has no signature");
        }
        Ok(Self { header, claims })
    }

    /// The issuer that it names.
    pub(crate) fn issuer(&self) -> Option<String> {
        self.claims.get("iss").and_then(Value::as_str).map(str::to_owned)
    }

    /// The key that signed it.
    pub(crate) fn kid(&self) -> Option<Kid> {
        self.header.get("kid").and_then(Value::as_str).and_then(|kid| Kid::new(kid).ok())
    }

    /// Of a phantom JWT, the digest of its handle's digest.
    pub(crate) fn handle_hash(&self) -> Option<TokenDigest> {
        TokenDigest::deserialize(self.claims.get("handle_hash")?).ok()
    }
}

fn object(segment: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}
