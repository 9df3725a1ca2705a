//! Tokens bound to a key (`cnf`, RFC 7800), and the key that a request proves.

use cloakroom_core::{ActiveToken, Confirmation};

use crate::error::InvalidToken;

/// The scheme that a token came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// RFC 6750 §2.1; also a cookie.
    Bearer,
    /// RFC 9449 §7.1.
    Dpop,
}

/// What a request proves about its sender.
#[derive(Debug, Clone)]
pub(crate) struct Proof {
    /// `None` if the caller checks the scheme.
    pub(crate) scheme: Option<Scheme>,
    pub(crate) key: Option<Confirmation>,
}

impl Proof {
    /// What can be decided without the token: one that came as `DPoP` without a proof needs no
    /// introspection.
    pub(crate) fn check(&self) -> Result<(), InvalidToken> {
        let proves_jwk = matches!(self.key, Some(Confirmation::JwkThumbprint(_)));
        if self.scheme == Some(Scheme::Dpop) && !proves_jwk {
            return Err(InvalidToken::Binding("it was sent as DPoP without a verified DPoP proof"));
        }
        Ok(())
    }

    /// Whether a token that is bound like this may be used with this proof. An unbound token may be used
    /// with any proof: some clients always show a certificate.
    pub(crate) fn covers(&self, bound: Option<&Confirmation>) -> Result<(), InvalidToken> {
        let refuse = |why| Err(InvalidToken::Binding(why));
        let is_dpop = matches!(bound, Some(Confirmation::JwkThumbprint(_)));
        match (bound, &self.key) {
            (Some(_), None) => return refuse("no key is proved"),
            (Some(bound), Some(key)) if bound != key => return refuse("another key is proved"),
            _ => {}
        }
        match self.scheme {
            // RFC 9449 §7.2: a resource server "MUST reject a DPoP-bound access token received as
            // a bearer token".
            Some(Scheme::Bearer) if is_dpop => refuse("it is bound by DPoP but was sent as Bearer"),
            // RFC 9449 §4.3: with a token, the proof's key must be the one the token is bound to.
            Some(Scheme::Dpop) if !is_dpop => {
                refuse("it was sent as DPoP but is not bound to a DPoP key")
            }
            _ => Ok(()),
        }
    }
}

/// A token may say by its type alone that it is bound. Then its key is unknown.
pub(crate) fn check_type(token: &ActiveToken) -> Result<(), InvalidToken> {
    let is = |kind: &str| {
        token.token_type.as_deref().is_some_and(|found| found.eq_ignore_ascii_case(kind))
    };
    let names_key = matches!(token.confirmation, Some(Confirmation::JwkThumbprint(_)));
    if is("mac") || is("DPoP") && !names_key {
        return Err(InvalidToken::Binding("its type says that it is bound, but it names no key"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn key_and_scheme_must_both_be_right() {
        let jwk = |byte| Confirmation::JwkThumbprint([byte; 32]);
        let certificate = |byte| Confirmation::CertificateThumbprint([byte; 32]);
        let keys = [None, Some(jwk(1)), Some(jwk(2)), Some(certificate(1)), Some(certificate(2))];
        for bound in &keys {
            for key in &keys {
                let same = bound == key;
                let is_dpop = matches!(bound, Some(Confirmation::JwkThumbprint(_)));
                for (scheme, accepted) in [
                    (None, bound.is_none() || same),
                    (Some(Scheme::Bearer), bound.is_none() || same && !is_dpop),
                    (Some(Scheme::Dpop), same && is_dpop),
                ] {
                    let proof = Proof { scheme, key: key.clone() };
                    let covers = proof.covers(bound.as_ref()).is_ok();
                    assert_eq!(covers, accepted, "{bound:?} {proof:?}");
                    assert!(proof.check().is_ok() || !covers, "{bound:?} {proof:?}");
                }
            }
        }
    }

    #[test]
    fn what_came_as_dpop_needs_a_dpop_proof_before_anything_else() {
        let jwk = Confirmation::JwkThumbprint([1; 32]);
        let certificate = Confirmation::CertificateThumbprint([1; 32]);
        for (key, is_jwk) in [(None, false), (Some(certificate), false), (Some(jwk), true)] {
            for (scheme, is_good) in
                [(None, true), (Some(Scheme::Bearer), true), (Some(Scheme::Dpop), is_jwk)]
            {
                let proof = Proof { scheme, key: key.clone() };
                assert_eq!(proof.check().is_ok(), is_good, "{proof:?}");
            }
        }
    }

    #[test]
    fn a_type_that_says_bound_needs_the_key() {
        let jwk = Some(Confirmation::JwkThumbprint([1; 32]));
        let certificate = Some(Confirmation::CertificateThumbprint([1; 32]));
        for (kind, confirmation, is_good) in [
            (None, None, true),
            (None, jwk.clone(), true),
            (Some("Bearer"), None, true),
            (Some("Bearer"), certificate.clone(), true),
            (Some("DPoP"), jwk.clone(), true),
            (Some("dpop"), jwk.clone(), true),
            (Some("DPoP"), None, false),
            (Some("dpop"), None, false),
            (Some("DPoP"), certificate, false),
            (Some("mac"), None, false),
            (Some("MAC"), jwk, false),
        ] {
            let mut token = ActiveToken::default();
            token.token_type = kind.map(Into::into);
            token.confirmation = confirmation;
            assert_eq!(check_type(&token).is_ok(), is_good, "{token:?}");
        }
    }
}
