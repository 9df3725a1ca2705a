//! A JWT that came for a handle.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::{Confirmation, TokenSecret, UnixTime};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use crate::MAX_TOKEN_BYTES;
use crate::error::Outage;

/// The JWT that a handle was swapped for. Its signature is for the service behind the gateway to
/// check; the gateway trusts the connection it came over.
#[derive(Debug, Clone)]
pub struct Swapped {
    jwt: TokenSecret,
    expires_at: Option<UnixTime>,
    confirmation: Option<Confirmation>,
}

impl Swapped {
    /// Takes a JWT for what it is: three segments of base64url, the first two JSON objects, at most
    /// 8,192 bytes. An introspection response as a JWT (RFC 9701 §5) is no access token.
    ///
    /// # Errors
    ///
    /// [`Outage::Malformed`] if it is anything else.
    pub fn parse(jwt: TokenSecret) -> Result<Self, Outage> {
        let refuse = Outage::Malformed;
        let text = jwt.expose();
        if text.len() > MAX_TOKEN_BYTES {
            return Err(refuse("the JWT is larger than what HTTP headers carry"));
        }
        let mut segments = text.split('.');
        let (Some(header), Some(claims), Some(signature), None) =
            (segments.next(), segments.next(), segments.next(), segments.next())
        else {
            return Err(refuse("it is no JWT"));
        };
        let (Some(header), Some(claims)) = (object(header), object(claims)) else {
            return Err(refuse("it is no JWT"));
        };
        if signature.is_empty() || URL_SAFE_NO_PAD.decode(signature).is_err() {
            return Err(refuse("the JWT has no signature"));
        }
        let typ = header.get("typ").and_then(Value::as_str).unwrap_or("JWT");
        let typ = typ.to_ascii_lowercase();
        if typ.trim_start_matches("application/") == "token-introspection+jwt" {
            return Err(refuse("it is an introspection response, not a token"));
        }
        // A binding of a kind unknown here must not turn a bound token into a bearer token.
        let confirmation = claims.get("cnf").map(Confirmation::deserialize).transpose();
        Ok(Self {
            expires_at: claims.get("exp").and_then(Value::as_u64).map(UnixTime::from_secs),
            confirmation: confirmation.map_err(|_| refuse("the JWT's `cnf` cannot be read"))?,
            jwt,
        })
    }

    /// The JWT.
    #[must_use]
    pub const fn jwt(&self) -> &TokenSecret {
        &self.jwt
    }

    /// Its `exp`.
    #[must_use]
    pub const fn expires_at(&self) -> Option<UnixTime> {
        self.expires_at
    }

    /// The key it is bound to (`cnf`): then only who proves that key may use it.
    #[must_use]
    pub const fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation.as_ref()
    }
}

fn object(segment: &str) -> Option<Map<String, Value>> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(segment).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(header: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(header), encode(claims))
    }

    #[test]
    fn a_jwt_is_taken_for_what_it_is() {
        let text = jwt(r#"{"alg":"ES256","typ":"at+jwt"}"#, r#"{"exp":1700000000}"#);
        let swapped = Swapped::parse(TokenSecret::new(text.clone())).unwrap();
        assert_eq!(swapped.jwt().expose(), text);
        assert_eq!(swapped.expires_at(), Some(UnixTime::from_secs(1_700_000_000)));
        assert_eq!(swapped.confirmation(), None);
        let text = jwt("{}", &format!(r#"{{"cnf":{{"jkt":"{}"}}}}"#, "A".repeat(43)));
        let swapped = Swapped::parse(TokenSecret::new(text)).unwrap();
        assert_eq!(swapped.confirmation(), Some(&Confirmation::JwkThumbprint([0; 32])));
    }

    #[test]
    fn nothing_else_is() {
        let good = jwt("{}", "{}");
        for bad in [
            String::new(),
            "..".to_owned(),
            r#"{"active":false}"#.to_owned(),
            "cr_at_opaque".to_owned(),
            good.trim_end_matches("c2ln").to_owned(),
            format!("{good}\n"),
            format!("{good}."),
            format!("{good}=="),
            format!(" {good}"),
            jwt("[]", "{}"),
            jwt("{}", "null"),
            jwt("{}", r#"{"cnf":null}"#),
            jwt("{}", r#"{"cnf":{}}"#),
            jwt("{}", r#"{"cnf":{"jkt":"x"}}"#),
            jwt("{}", r#"{"cnf":{"new-kind":"x"}}"#),
            jwt(r#"{"typ":"token-introspection+jwt"}"#, "{}"),
            jwt(r#"{"typ":"application/Token-Introspection+JWT"}"#, "{}"),
            jwt("{}", &format!(r#"{{"x":"{}"}}"#, "y".repeat(8192))),
        ] {
            assert!(Swapped::parse(TokenSecret::new(bad.as_str())).is_err(), "{bad}");
        }
    }
}
