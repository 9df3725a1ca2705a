//! What a request may do, after its token was checked.

use std::sync::Arc;

use cloakroom_core::{ActiveToken, ClientId, Scope, Subject};
use serde_json::Value;

use crate::error::InvalidToken;

/// An access token that was checked: the signature of a JWT, or the word of the authorization
/// server; issuer, audience and time. [`BearerLayer`](crate::BearerLayer) puts it into the
/// request's extensions, and with axum it is an extractor. Cheap to clone.
///
/// ```
/// use cloakroom_resource::VerifiedToken;
/// use http::StatusCode;
///
/// fn delete_order(token: &VerifiedToken) -> Result<(), StatusCode> {
///     if !token.has_scope("orders:write") {
///         return Err(StatusCode::FORBIDDEN);
///     }
///     let who = token.subject().ok_or(StatusCode::FORBIDDEN)?;
///     let tenant = token.claim("tenant").and_then(|tenant| tenant.as_str());
///     println!("{} of {tenant:?} deletes an order", who.id());
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct VerifiedToken(Arc<ActiveToken>);

impl VerifiedToken {
    /// The last check that both ways share: it is an access token that anyone who holds it may use.
    pub(crate) fn admit(token: ActiveToken) -> Result<Self, InvalidToken> {
        // RFC 9449 §7.2: a token bound to a key must not be accepted as a bearer token.
        let bound_by_type =
            |kind: &str| kind.eq_ignore_ascii_case("DPoP") || kind.eq_ignore_ascii_case("mac");
        if token.confirmation.is_some() || token.token_type.as_deref().is_some_and(bound_by_type) {
            return Err(InvalidToken::Bound);
        }
        // Some servers call refresh tokens active, and say so in one of these members.
        let token_use = token.extra.get("token_use").and_then(Value::as_str);
        if [token.token_type.as_deref(), token_use].contains(&Some("refresh_token")) {
            return Err(InvalidToken::NotAccess);
        }
        Ok(Self(Arc::new(token)))
    }

    /// For whom the request speaks: a user, or a client on its own behalf.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.0.subject.as_ref()
    }

    /// The client that sends the request.
    #[must_use]
    pub fn client(&self) -> Option<&ClientId> {
        self.0.client.as_ref()
    }

    /// All that the token grants.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// Whether the token grants this scope value.
    #[must_use]
    pub fn has_scope(&self, value: &str) -> bool {
        self.0.scope.contains(value)
    }

    /// A claim of the app's own.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.0.extra.get(name)
    }

    /// Everything else that is known of the token: times, audience, `jti`, grant.
    #[must_use]
    pub fn token(&self) -> &ActiveToken {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(json: &str) -> Result<VerifiedToken, InvalidToken> {
        VerifiedToken::admit(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn only_bearer_access_tokens_are_admitted() {
        assert!(admit(r#"{"sub":"alice"}"#).is_ok());
        assert!(admit(r#"{"token_type":"Bearer","token_use":"access_token"}"#).is_ok());
        let thumbprint = "A".repeat(43);
        for bound in [
            format!(r#"{{"cnf":{{"jkt":"{thumbprint}"}}}}"#),
            format!(r#"{{"token_type":"Bearer","cnf":{{"x5t#S256":"{thumbprint}"}}}}"#),
            r#"{"token_type":"dpop"}"#.to_owned(),
        ] {
            assert!(matches!(admit(&bound), Err(InvalidToken::Bound)), "{bound}");
        }
        for other in [
            r#"{"token_type":"refresh_token"}"#,
            r#"{"token_type":"Bearer","token_use":"refresh_token"}"#,
        ] {
            assert!(matches!(admit(other), Err(InvalidToken::NotAccess)), "{other}");
        }
    }
}
