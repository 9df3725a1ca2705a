//! The kind of token that an introspection response describes.

use serde_json::Value;

use crate::introspection::ActiveToken;

/// Members by which servers name the kind of a token, and nothing else.
const KIND: [&str; 9] = [
    "token_use",
    "token_usage",
    "token_kind",
    "token_typ",
    "tokenUse",
    "tokenUsage",
    "tokenType",
    "ttype",
    "typ",
];

/// Members that name the kind of a token at some servers, and mean something else at others.
const PERHAPS_KIND: [&str; 4] = ["type", "kind", "use", "usage"];

/// What names an access token: in lower case, without punctuation.
const ACCESS: [&str; 8] = [
    "access",
    "accesstoken",
    "at",
    "atjwt",
    "applicationatjwt",
    "bearer",
    "dpop",
    "urnietfparamsoauthtokentypeaccesstoken",
];

/// What names a token of another kind.
const OTHER: [&str; 12] = [
    "refresh",
    "refreshtoken",
    "rt",
    "offline",
    "offlinetoken",
    "id",
    "idtoken",
    "identity",
    "identitytoken",
    "logout",
    "logouttoken",
    "code",
];

impl ActiveToken {
    /// Whether the response describes an access token: every member by which servers name the kind
    /// of a token (`token_type`, `token_use`, `typ`, …) is absent or names an access token. Case
    /// and punctuation do not count.
    ///
    /// Some servers also introspect refresh tokens, and report them as active; an API must not
    /// accept them (RFC 7662 §4: a token must be used for what it was issued for).
    ///
    /// ```
    /// use cloakroom_core::Introspection;
    ///
    /// let kind = |json: &str| {
    ///     let answer: Introspection = serde_json::from_str(json).unwrap();
    ///     answer.active().unwrap().is_access_token()
    /// };
    /// assert!(kind(r#"{"active":true,"token_type":"Bearer"}"#));
    /// assert!(!kind(r#"{"active":true,"token_type":"Bearer","token_use":"refresh_token"}"#));
    /// assert!(!kind(r#"{"active":true,"typ":"ID"}"#));
    /// ```
    #[must_use]
    pub fn is_access_token(&self) -> bool {
        let own = self.token_type.as_deref().is_none_or(|kind| names(kind, &ACCESS));
        let is_access = |value: &Value| value.as_str().is_some_and(|kind| names(kind, &ACCESS));
        let is_other = |value: &Value| value.as_str().is_some_and(|kind| names(kind, &OTHER));
        let said = |name: &&str| self.extra.get(*name).filter(|value| !value.is_null());
        own && KIND.iter().filter_map(&said).all(is_access)
            && !PERHAPS_KIND.iter().filter_map(said).any(is_other)
    }
}

fn names(kind: &str, list: &[&str]) -> bool {
    let kind: String = kind
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .map(|letter| letter.to_ascii_lowercase())
        .collect();
    list.contains(&&*kind)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is_access_token(mut claims: Value) -> bool {
        claims["sub"] = json!("alice");
        serde_json::from_value::<ActiveToken>(claims).unwrap().is_access_token()
    }

    #[test]
    fn an_access_token_by_any_name_is_one() {
        for claims in [
            json!({}),
            json!({"token_type": "Bearer"}),
            json!({"token_type": "dpop"}),
            json!({"token_type": "access_token"}),
            json!({"token_type": "urn:ietf:params:oauth:token-type:access_token"}),
            json!({"token_type": null, "token_use": null, "typ": null}),
            json!({"token_use": "access"}),
            json!({"token_usage": "access_token"}),
            json!({"tokenType": "AccessToken"}),
            json!({"typ": "Bearer"}),
            json!({"typ": "DPoP"}),
            json!({"typ": "at+JWT"}),
            json!({"type": "premium", "kind": 7, "use": ["a"], "usage": "metered"}),
        ] {
            assert!(is_access_token(claims.clone()), "{claims}");
        }
    }

    #[test]
    fn any_other_kind_is_not() {
        let members = KIND.iter().chain(&PERHAPS_KIND).chain(&["token_type"]);
        for member in members {
            for kind in
                ["refresh_token", "Refresh", "REFRESH-TOKEN", "id_token", "ID", "Offline", "Logout"]
            {
                assert!(!is_access_token(json!({*member: kind})), "{member}: {kind}");
            }
        }
        for member in KIND {
            for kind in [json!("JWT"), json!(""), json!("session"), json!(1), json!(["access"])] {
                assert!(!is_access_token(json!({member: kind})), "{member}: {kind}");
            }
        }
        assert!(!is_access_token(json!({"token_type": "N_A"})));
        assert!(!is_access_token(json!({"token_type": "Bearer", "typ": "Refresh"})));
    }
}
