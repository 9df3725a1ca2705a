//! A JWT that a handle was swapped for.

use cloakroom_core::time::UnixTime;
use cloakroom_core::{ActiveToken, Confirmation, TokenSecret};
use serde::Deserialize as _;
use serde_json::Value;

use crate::error::UnavailableError;
use crate::revocation_replica::TokenFacts;
use crate::verify::unverified::Unverified;

/// The JWT that a handle was swapped for. The gateway trusts the connection it came over; the service
/// behind the gateway checks its signature.
#[derive(Debug, Clone)]
pub struct PhantomJwt {
    jwt: TokenSecret,
    expires_at: Option<UnixTime>,
    confirmation: Option<Confirmation>,
    facts: TokenFacts,
}

impl PhantomJwt {
    /// Reads a JWT without checking its signature: three segments of base64url, the first two JSON
    /// objects, at most 8,192 bytes.
    ///
    /// # Errors
    ///
    /// [`UnavailableError::Malformed`] if it is anything else, or an introspection response as a JWT
    /// (RFC 9701 §5).
    pub fn parse(jwt: TokenSecret) -> Result<Self, UnavailableError> {
        let refuse = UnavailableError::Malformed;
        let unverified = Unverified::read(jwt.expose()).map_err(refuse)?;
        let typ = unverified.header.get("typ").and_then(Value::as_str).unwrap_or("JWT");
        let typ = typ.to_ascii_lowercase();
        if typ.trim_start_matches("application/") == "token-introspection+jwt" {
            return Err(refuse("it is an introspection response, not an access token"));
        }
        // A binding of a kind unknown here must not turn a bound token into a bearer token.
        let confirmation = unverified.claims.get("cnf").map(Confirmation::deserialize).transpose();
        let confirmation = confirmation.map_err(|_| refuse("the JWT's `cnf` cannot be read"))?;
        let expires_at =
            unverified.claims.get("exp").and_then(Value::as_u64).map(UnixTime::from_secs);
        let (kid, handle_hash) = (unverified.kid(), unverified.handle_hash());
        // Another server's claims may be of other types: then no rule can go by them.
        let token = ActiveToken::deserialize(Value::Object(unverified.claims)).unwrap_or_default();
        Ok(Self { facts: TokenFacts::new(&token, kid, handle_hash), expires_at, confirmation, jwt })
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

    /// The key it is bound to (`cnf`). Such a JWT needs a proof of that key.
    #[must_use]
    pub const fn confirmation(&self) -> Option<&Confirmation> {
        self.confirmation.as_ref()
    }

    /// What a revocation may name of it.
    pub(crate) const fn facts(&self) -> &TokenFacts {
        &self.facts
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use cloakroom_core::revocation::Epoch;
    use cloakroom_core::{Kid, Subject, TokenDigest};

    use super::*;

    fn jwt(header: &str, claims: &str) -> String {
        let encode = |text: &str| URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", encode(header), encode(claims))
    }

    #[test]
    fn a_jwt_is_taken_for_what_it_is() {
        let text = jwt(r#"{"alg":"ES256","typ":"at+jwt"}"#, r#"{"exp":1700000000}"#);
        let swapped = PhantomJwt::parse(TokenSecret::new(text.clone())).unwrap();
        assert_eq!(swapped.jwt().expose(), text);
        assert_eq!(swapped.expires_at(), Some(UnixTime::from_secs(1_700_000_000)));
        assert_eq!(swapped.confirmation(), None);
        let text = jwt("{}", &format!(r#"{{"cnf":{{"jkt":"{}"}}}}"#, "A".repeat(43)));
        let swapped = PhantomJwt::parse(TokenSecret::new(text)).unwrap();
        assert_eq!(swapped.confirmation(), Some(&Confirmation::JwkThumbprint([0; 32])));
    }

    #[test]
    fn a_revocation_finds_what_it_names() {
        let hash = URL_SAFE_NO_PAD.encode([7; 32]);
        let claims = format!(
            r#"{{"sub":"job","sub_kind":"client","client_id":"app","jti":"j","iat":5,
                "grant_id":"{}","grant_epoch":9,"handle_hash":"{hash}"}}"#,
            "A".repeat(22)
        );
        let text = jwt(r#"{"kid":"k"}"#, &claims);
        let facts = PhantomJwt::parse(TokenSecret::new(text)).unwrap().facts;
        assert_eq!(facts.grant.unwrap().as_bytes(), &[0; 16]);
        assert_eq!(facts.epoch, Some(Epoch::new(9)));
        assert_eq!(facts.issued_at, Some(UnixTime::from_secs(5)));
        assert_eq!(facts.subject, Some(Subject::client("job").unwrap()));
        assert_eq!(facts.client.unwrap().as_str(), "app");
        assert_eq!(facts.jti.unwrap().as_str(), "j");
        assert_eq!(facts.kid, Some(Kid::new("k").unwrap()));
        assert_eq!(facts.handle_hash, Some(TokenDigest::from_bytes([7; 32])));

        // Claims of another server, of other types: the JWT is none the worse, but nobody can say
        // that no rule is about it.
        let text = jwt(r#"{"kid":"k"}"#, r#"{"jti":7,"grant_epoch":9}"#);
        let facts = PhantomJwt::parse(TokenSecret::new(text)).unwrap().facts;
        assert_eq!((facts.epoch, facts.jti), (None, None));
        assert_eq!(facts.kid, Some(Kid::new("k").unwrap()), "its key may be revoked all the same");
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
            assert!(PhantomJwt::parse(TokenSecret::new(bad.as_str())).is_err(), "{bad}");
        }
    }
}
