//! The form of an issuer's access tokens.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::jws::error::VerifyError;

type Name = Cow<'static, str>;

/// The form of an issuer's access tokens, where it differs from RFC 9068: the value of `typ`, the
/// claims that hold the client and the scope, and which claims may be missing.
///
/// The default is exactly RFC 9068. The presets are for issuers that do not follow it; start a
/// profile of your own from [`rfc9068`](Self::rfc9068).
///
/// **A profile must never let another kind of token pass.** RFC 9068 distinguishes the kinds by
/// `typ`. A profile that accepts another `typ`, or none, needs something else that distinguishes an
/// access token from an ID token of the same issuer: a claim that only access tokens have
/// ([`require_any`](Self::require_any)), or one that names the kind
/// ([`require_value`](Self::require_value)). Under every profile, a JWT that is not typed `at+jwt`
/// and holds a claim that only other kinds of JWTs have (`nonce`, `at_hash`, `events`, …) is
/// refused, as is one that [names another kind](cloakroom_core::ActiveToken::is_access_token) of
/// token.
///
/// ```
/// use cloakroom_jwt::{IssuerProfile, Verifier};
///
/// let verifier = Verifier::new("https://id.example/realms/shop", "https://orders.example")
///     .profile(IssuerProfile::keycloak());
///
/// // A server that writes `typ: JWT`, the client in `azp`, and `token_use: access`.
/// let profile = IssuerProfile::rfc9068()
///     .accept_typ("JWT")
///     .client_in(["client_id", "azp"])
///     .require_value("token_use", ["access"]);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerProfile {
    /// Beside `at+jwt`.
    typ: Vec<Name>,
    without_typ: bool,
    client: Vec<Name>,
    scope: Vec<Name>,
    audience: Name,
    needs_jti: bool,
    needs_subject: bool,
    /// Of each group, one claim must be present.
    any: Vec<Vec<Name>>,
    /// Each claim must be present, with one of the values.
    values: Vec<(Name, Vec<Name>)>,
    prefixes: Vec<(Name, Name)>,
    /// Both claims must be the same string.
    equal: Vec<(Name, Name)>,
}

/// Claims of ID tokens (OpenID Connect Core §2, §3.3.2.11). Some issuers that name the kind of a
/// token put one of them into access tokens, too.
const OF_ID_TOKENS: [&str; 4] = ["nonce", "at_hash", "c_hash", "s_hash"];

/// Claims of logout tokens and other security events (RFC 8417 §2.2), introspection responses
/// (RFC 9701 §5 and its drafts), DPoP proofs (RFC 9449 §4.2), self-issued ID tokens and request
/// objects (RFC 9101 §4).
const OF_OTHERS: [&str; 9] = [
    "events",
    "token_introspection",
    "active",
    "htm",
    "htu",
    "ath",
    "sub_jwk",
    "response_type",
    "code_challenge",
];

impl Default for IssuerProfile {
    fn default() -> Self {
        Self::rfc9068()
    }
}

impl IssuerProfile {
    /// RFC 9068 §2: `typ` is `at+jwt`; `iss`, `exp`, `aud`, `sub`, `client_id`, `iat` and `jti` are
    /// present; `scope` is a string.
    #[must_use]
    pub fn rfc9068() -> Self {
        Self {
            typ: Vec::new(),
            without_typ: false,
            client: vec!["client_id".into()],
            scope: vec!["scope".into()],
            audience: "aud".into(),
            needs_jti: true,
            needs_subject: true,
            any: Vec::new(),
            values: Vec::new(),
            prefixes: Vec::new(),
            equal: Vec::new(),
        }
    }

    /// Keycloak: `typ` is `JWT`, and the claim `typ` names the kind; the client is in `azp`.
    #[must_use]
    pub fn keycloak() -> Self {
        Self::rfc9068()
            .accept_typ("JWT")
            .client_in(["azp", "client_id"])
            .optional_jti()
            .require_value("typ", ["Bearer", "DPoP"])
    }

    /// Microsoft Entra ID, tokens of version 1.0 and 2.0: the client is in `azp` or `appid`, scopes
    /// are in `scp`, roles of apps in `roles`; there is no `jti`.
    #[must_use]
    pub fn entra_id() -> Self {
        Self::rfc9068()
            .accept_typ("JWT")
            .client_in(["azp", "appid"])
            .scope_in(["scp", "roles"])
            .optional_jti()
            .require_any(["scp", "roles"])
    }

    /// Auth0, both of its token profiles: the client is in `azp` or `client_id`; the default one has
    /// `typ: JWT` and no `jti`.
    #[must_use]
    pub fn auth0() -> Self {
        Self::rfc9068()
            .accept_typ("JWT")
            .client_in(["azp", "client_id"])
            .optional_jti()
            .require_any(["scope", "permissions", "gty"])
    }

    /// Okta's custom authorization servers: no `typ`, the client is in `cid`, scopes are an array in
    /// `scp`, and `jti` starts with `AT.`.
    #[must_use]
    pub fn okta() -> Self {
        Self::rfc9068()
            .accept_typ("JWT")
            .accept_missing_typ()
            .client_in(["cid"])
            .scope_in(["scp"])
            .require_prefix("jti", "AT.")
    }

    /// AWS Cognito: no `typ`, `token_use` is `access`, and there is no `aud`: the verifier's
    /// audience is compared with `client_id`, the id of the app client.
    #[must_use]
    pub fn cognito() -> Self {
        Self::rfc9068()
            .accept_typ("JWT")
            .accept_missing_typ()
            .audience_in("client_id")
            .require_value("token_use", ["access"])
    }

    /// JWTs that a Google service account signs for itself: `iss` and `sub` are the account, which
    /// is the client; there is no `jti`. Google's own access tokens are opaque. Its ID tokens do
    /// not pass, since their `iss` is Google.
    #[must_use]
    pub fn google_service_account() -> Self {
        Self::rfc9068()
            .accept_typ("JWT")
            .client_in(["sub"])
            .optional_jti()
            .require_equal("iss", "sub")
    }

    /// Also accepts this `typ`, ignoring case, with or without `application/`.
    #[must_use]
    pub fn accept_typ(mut self, typ: impl Into<Name>) -> Self {
        self.typ.push(typ.into());
        self
    }

    /// Also accepts tokens without `typ`.
    #[must_use]
    pub const fn accept_missing_typ(mut self) -> Self {
        self.without_typ = true;
        self
    }

    /// The claims that may hold the client: the first one that is present is used.
    #[must_use]
    pub fn client_in<N: Into<Name>>(mut self, claims: impl IntoIterator<Item = N>) -> Self {
        self.client = claims.into_iter().map(Into::into).collect();
        self
    }

    /// The claims that may hold the scope, as a string or an array: the first one that is present
    /// is used.
    #[must_use]
    pub fn scope_in<N: Into<Name>>(mut self, claims: impl IntoIterator<Item = N>) -> Self {
        self.scope = claims.into_iter().map(Into::into).collect();
        self
    }

    /// The claim that holds the audience: `aud` by default.
    #[must_use]
    pub fn audience_in(mut self, claim: impl Into<Name>) -> Self {
        self.audience = claim.into();
        self
    }

    /// `jti` may be missing. A single such token cannot be revoked; its user, its client and its key
    /// can.
    #[must_use]
    pub const fn optional_jti(mut self) -> Self {
        self.needs_jti = false;
        self
    }

    /// `sub` may be missing, as in tokens that some servers issue to a client for itself.
    #[must_use]
    pub const fn optional_subject(mut self) -> Self {
        self.needs_subject = false;
        self
    }

    /// Requires that one of these claims is present.
    #[must_use]
    pub fn require_any<N: Into<Name>>(mut self, claims: impl IntoIterator<Item = N>) -> Self {
        self.any.push(claims.into_iter().map(Into::into).collect());
        self
    }

    /// Requires that the claim is one of these strings; case matters.
    #[must_use]
    pub fn require_value<N: Into<Name>>(
        mut self,
        claim: impl Into<Name>,
        values: impl IntoIterator<Item = N>,
    ) -> Self {
        self.values.push((claim.into(), values.into_iter().map(Into::into).collect()));
        self
    }

    /// Requires that the claim is a string with this prefix.
    #[must_use]
    pub fn require_prefix(mut self, claim: impl Into<Name>, prefix: impl Into<Name>) -> Self {
        self.prefixes.push((claim.into(), prefix.into()));
        self
    }

    /// Requires that both claims are the same string.
    #[must_use]
    pub fn require_equal(mut self, claim: impl Into<Name>, other: impl Into<Name>) -> Self {
        self.equal.push((claim.into(), other.into()));
        self
    }

    pub(crate) const fn needs_jti(&self) -> bool {
        self.needs_jti
    }

    pub(crate) const fn needs_subject(&self) -> bool {
        self.needs_subject
    }

    /// Whether the header of an access token may have this `typ`.
    pub(crate) fn accepts_typ(&self, typ: Option<&str>) -> bool {
        match typ {
            None => self.without_typ,
            Some(typ) => self.typ.iter().any(|own| typ.eq_ignore_ascii_case(own)),
        }
    }

    /// Checks that the claims are those of an access token, and moves client, scope and audience to
    /// where RFC 9068 has them. `is_typed`: the `typ` of the header is `at+jwt`.
    pub(crate) fn apply(
        &self,
        claims: &mut Map<String, Value>,
        is_typed: bool,
    ) -> Result<(), VerifyError> {
        if !is_typed {
            self.check_kind(claims)?;
        }
        let client = first(&self.client, claims);
        let scope = first(&self.scope, claims);
        let audience = claims.get(&*self.audience).cloned();
        put(claims, "client_id", client);
        put(claims, "scope", scope);
        put(claims, "aud", audience);
        Ok(())
    }

    fn check_kind(&self, claims: &Map<String, Value>) -> Result<(), VerifyError> {
        let there = |name: &str| claims.get(name).is_some_and(|value| !value.is_null());
        let text = |name: &str| claims.get(name).and_then(Value::as_str);
        let is_id_token = self.values.is_empty() && OF_ID_TOKENS.into_iter().any(there);
        if is_id_token || OF_OTHERS.into_iter().any(there) {
            return Err(VerifyError::Claims("a claim of another kind of token is present"));
        }
        let is_access_token = self.any.iter().all(|names| names.iter().any(|name| there(name)))
            && self.values.iter().all(|(name, values)| {
                text(name).is_some_and(|found| values.iter().any(|value| value == found))
            })
            && self
                .prefixes
                .iter()
                .all(|(name, prefix)| text(name).is_some_and(|found| found.starts_with(&**prefix)))
            && self
                .equal
                .iter()
                .all(|(name, other)| text(name).is_some() && text(name) == text(other));
        if !is_access_token {
            return Err(VerifyError::Claims(
                "a claim that the issuer's access tokens must have is missing",
            ));
        }
        Ok(())
    }
}

/// The first of these claims that is present.
fn first(names: &[Name], claims: &Map<String, Value>) -> Option<Value> {
    names.iter().find_map(|name| claims.get(&**name).filter(|value| !value.is_null())).cloned()
}

fn put(claims: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    match value {
        Some(value) => claims.insert(name.to_owned(), value),
        None => claims.remove(name),
    };
}
