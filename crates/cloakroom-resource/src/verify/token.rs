//! The token of a request, after it has been checked.

use std::sync::Arc;

use cloakroom_core::{ActiveToken, ClientId, Kid, Scope, Subject, TokenDigest};
use cloakroom_jwt::VerifiedJwt;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::error::InvalidToken;
use crate::revocation_replica::TokenFacts;
use crate::verify::proof::check_type;

/// An access token whose signature, issuer, audience and times have been checked, or that the
/// authorization server reports as active. [`BearerLayer`](crate::BearerLayer) puts it into the
/// request's extensions; with axum it is an extractor. Cheap to clone.
///
/// ```
/// use cloakroom_resource::VerifiedToken;
/// use cloakroom_resource::http::StatusCode;
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
pub struct VerifiedToken(Arc<Known>);

/// In this order in memory: see [`TokenFacts`].
#[derive(Debug, PartialEq)]
#[repr(C)]
struct Known {
    /// What a revocation may name of it.
    facts: TokenFacts,
    token: ActiveToken,
    /// Whether the signature was checked here.
    is_jwt: bool,
    stateless: bool,
}

impl VerifiedToken {
    /// The user that the request acts for, or the client itself.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.0.token.subject.as_ref()
    }

    /// The identifier of the user that the request acts for; `None` if the client acts for itself. Use it
    /// to look up what belongs to a user: a client may have the same identifier as a user
    /// (RFC 9700 §4.15).
    ///
    /// ```
    /// use cloakroom_resource::VerifiedToken;
    ///
    /// fn orders_of(token: &VerifiedToken) -> Option<String> {
    ///     let user = token.user()?; // the orders of nobody else
    ///     Some(format!("the orders of {user}"))
    /// }
    /// # let of = |claims| VerifiedToken::for_tests(serde_json::from_value(claims).unwrap());
    /// # let alice = serde_json::json!({ "sub": "alice", "client_id": "app" });
    /// # assert_eq!(orders_of(&of(alice)).unwrap(), "the orders of alice");
    /// # let client = serde_json::json!({ "sub": "alice", "client_id": "alice" });
    /// # assert_eq!(orders_of(&of(client)), None);
    /// ```
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match self.subject()? {
            Subject::User(user) => Some(user.as_str()),
            Subject::Client(_) => None,
        }
    }

    /// The issuer of the token, if the token or the introspection answer names it. Where an API
    /// accepts the tokens of several issuers ([`Verifier::or`](crate::Verifier::or)), a subject is
    /// unique only together with its issuer.
    #[must_use]
    pub fn issuer(&self) -> Option<&str> {
        self.0.token.issuer.as_deref()
    }

    /// The client that sends the request.
    #[must_use]
    pub fn client(&self) -> Option<&ClientId> {
        self.0.token.client.as_ref()
    }

    /// The scope that the token grants.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.0.token.scope
    }

    /// Whether the token grants this scope value.
    #[must_use]
    pub fn has_scope(&self, value: &str) -> bool {
        self.0.token.scope.contains(value)
    }

    /// A custom claim. [`claims`](Self::claims) reads all of them into one type.
    #[must_use]
    pub fn claim(&self, name: &str) -> Option<&Value> {
        self.0.token.extra.get(name)
    }

    /// The custom claims as a type of your own. They exclude the claims that the protocol defines,
    /// so a type with `deny_unknown_fields` works.
    ///
    /// ```
    /// use cloakroom_resource::{ActiveToken, VerifiedToken};
    ///
    /// #[derive(serde::Deserialize)]
    /// struct OrderClaims {
    ///     tenant: String,
    /// }
    ///
    /// fn tenant(token: &VerifiedToken) -> Result<String, serde_json::Error> {
    ///     Ok(token.claims::<OrderClaims>()?.tenant)
    /// }
    /// # let claims = serde_json::json!({ "sub": "alice", "tenant": "acme" });
    /// # let token = VerifiedToken::for_tests(serde_json::from_value(claims).unwrap());
    /// # assert_eq!(tenant(&token).unwrap(), "acme");
    /// # assert!(tenant(&VerifiedToken::for_tests(ActiveToken::default())).is_err());
    /// ```
    ///
    /// # Errors
    ///
    /// If a claim is missing or has another type. The token is still valid: decide yourself whether to
    /// accept the request.
    pub fn claims<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.0.token.extra)
    }

    /// Everything that is known about the token, such as times, audience, `jti` and grant.
    #[must_use]
    pub fn token(&self) -> &ActiveToken {
        &self.0.token
    }

    /// The key that signed the JWT; `None` if the token was introspected.
    #[must_use]
    pub fn key_id(&self) -> Option<&Kid> {
        self.0.facts.kid.as_ref().filter(|_| self.0.is_jwt)
    }

    /// For a phantom JWT, the digest of its handle's digest, which names the handle in the revocation
    /// log.
    #[must_use]
    pub fn handle_hash(&self) -> Option<&TokenDigest> {
        self.0.facts.handle_hash.as_ref().filter(|_| self.0.is_jwt)
    }

    /// Whether the authorization server stores no grant for the JWT.
    #[must_use]
    pub fn is_stateless(&self) -> bool {
        self.0.stateless
    }

    /// A token that was **not checked**, for tests of handlers. Do not use it outside tests.
    ///
    /// ```
    /// use cloakroom_resource::{ActiveToken, VerifiedToken};
    /// use serde_json::json;
    ///
    /// async fn whoami(token: VerifiedToken) -> String {
    ///     token.subject().map_or("nobody", |subject| subject.id()).to_owned()
    /// }
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), serde_json::Error> {
    /// let token: ActiveToken =
    ///     serde_json::from_value(json!({ "sub": "alice", "scope": "orders:read" }))?;
    /// assert_eq!(whoami(VerifiedToken::for_tests(token)).await, "alice");
    /// # Ok(()) }
    /// ```
    #[must_use]
    pub fn for_tests(token: ActiveToken) -> Self {
        Self::unchecked(token, None, None)
    }

    pub(crate) fn of_jwt(jwt: VerifiedJwt) -> Result<Self, InvalidToken> {
        check_kind(&jwt.token)?;
        let VerifiedJwt { kid, token, handle_hash, stateless, .. } = jwt;
        let facts = TokenFacts::new(&token, Some(kid), handle_hash);
        Ok(Self(Arc::new(Known { facts, token, is_jwt: true, stateless })))
    }

    /// A token that the authorization server calls active. If it is a JWT, key and hash are what
    /// it says.
    pub(crate) fn of_introspected(
        token: ActiveToken,
        kid: Option<Kid>,
        handle_hash: Option<TokenDigest>,
    ) -> Result<Self, InvalidToken> {
        check_kind(&token)?;
        Ok(Self::unchecked(token, kid, handle_hash))
    }

    fn unchecked(token: ActiveToken, kid: Option<Kid>, handle_hash: Option<TokenDigest>) -> Self {
        let facts = TokenFacts::new(&token, kid, handle_hash);
        Self(Arc::new(Known { facts, token, is_jwt: false, stateless: false }))
    }

    pub(crate) fn facts(&self) -> &TokenFacts {
        &self.0.facts
    }
}

/// That it is an access token, whose binding to a key, if there is one, can be seen.
fn check_kind(token: &ActiveToken) -> Result<(), InvalidToken> {
    check_type(token)?;
    // Some servers call refresh tokens active, and name their kind in a member.
    if !token.is_access_token() {
        return Err(InvalidToken::NotAccess);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admit(json: &str) -> Result<VerifiedToken, InvalidToken> {
        VerifiedToken::of_introspected(serde_json::from_str(json).unwrap(), None, None)
    }

    #[test]
    fn only_access_tokens_are_admitted() {
        let cnf = |kind: &str| format!(r#""cnf":{{"{kind}":"{}"}}"#, "A".repeat(43));
        let (jkt, x5t) = (cnf("jkt"), cnf("x5t#S256"));
        for good in [
            r#"{"sub":"alice"}"#.to_owned(),
            r#"{"token_type":"Bearer","token_use":"access_token"}"#.to_owned(),
            format!(r#"{{"token_type":"dpop",{jkt}}}"#),
            format!(r#"{{"token_type":"Bearer",{x5t}}}"#),
        ] {
            assert!(admit(&good).is_ok(), "{good}");
        }
        for unclear in [
            r#"{"token_type":"dpop"}"#.to_owned(),
            r#"{"token_type":"mac"}"#.to_owned(),
            format!(r#"{{"token_type":"DPoP",{x5t}}}"#),
            format!(r#"{{"token_type":"MAC",{jkt}}}"#),
        ] {
            assert!(matches!(admit(&unclear), Err(InvalidToken::Binding(_))), "{unclear}");
        }
        for other in [
            r#"{"token_type":"refresh_token"}"#,
            r#"{"token_type":"Bearer","token_use":"refresh_token"}"#,
            r#"{"token_type":"Bearer","token_usage":"refresh_token"}"#,
            r#"{"token_type":"Bearer","typ":"Refresh"}"#,
            r#"{"token_use":"id"}"#,
            r#"{"tokenType":"ID_TOKEN"}"#,
        ] {
            assert!(matches!(admit(other), Err(InvalidToken::NotAccess)), "{other}");
        }
    }
}
