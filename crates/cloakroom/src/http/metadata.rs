//! The public documents: the JWK Set (RFC 7517) and the metadata (RFC 8414).

use ::http::{HeaderValue, Request, Response, StatusCode, header};
use bytes::Bytes;
use serde_json::json;

use super::{
    Endpoints, HANDLE_KEYS, INTROSPECT, JWK_SET, REGISTER, REVOCATIONS, REVOKE, TOKEN, respond,
};
use crate::client::registration::GrantType;
use crate::error::TokenError;

const SCOPES: &str = "scopes_supported";
const DOCUMENTS: &str = "client_id_metadata_document_supported";

impl Endpoints {
    pub(super) async fn jwk_set(
        &self,
        request: &Request<Bytes>,
    ) -> Result<Response<Bytes>, TokenError> {
        let jwks = self.issuer.jwks().await?;
        let mut response = if names(request, &jwks.etag) {
            respond::empty(StatusCode::NOT_MODIFIED)
        } else {
            respond::body("application/jwk-set+json", jwks.json.clone())
        };
        if let Ok(etag) = HeaderValue::try_from(&jwks.etag) {
            response.headers_mut().insert(header::ETAG, etag);
        }
        let max_age = jwks.max_age.as_secs();
        Ok(respond::cached(response, &format!("public, max-age={max_age}")))
    }

    pub(super) fn metadata(&self) -> Response<Bytes> {
        let issuer = self.issuer.url();
        let at = |path: &str| format!("{issuer}{path}");
        let any = self.authenticator.methods();
        let confidential: Vec<_> = any.iter().filter(|method| **method != "none").collect();
        let has_page =
            self.metadata.get("authorization_endpoint").is_some_and(|url| !url.is_null());
        // RFC 8414 §2: an authorization endpoint is "REQUIRED unless no grant types are supported that
        // use the authorization endpoint".
        let grant_types: Vec<_> = GrantType::ALL
            .into_iter()
            .filter(|grant_type| has_page || *grant_type != GrantType::AuthorizationCode)
            .map(|grant_type| -> &str { grant_type.as_str() })
            .chain(self.issuer.extension_grant_types())
            .collect();
        let response_types: &[&str] = if has_page { &["code"] } else { &[] };
        let mut metadata = json!({
            "issuer": issuer,
            "token_endpoint": at(TOKEN),
            "introspection_endpoint": at(INTROSPECT),
            "revocation_endpoint": at(REVOKE),
            // RFC 8414 §2 has no names for these two.
            "revocations_endpoint": at(REVOCATIONS),
            "handle_keys_endpoint": at(HANDLE_KEYS),
            "jwks_uri": at(JWK_SET),
            "response_types_supported": response_types,
            "grant_types_supported": grant_types,
            "token_endpoint_auth_methods_supported": any,
            "revocation_endpoint_auth_methods_supported": any,
            "introspection_endpoint_auth_methods_supported": confidential,
            "introspection_signing_alg_values_supported": self.signing_algorithms(),
            "code_challenge_methods_supported": ["S256"],
        });
        if let Some(members) = metadata.as_object_mut() {
            for (name, value) in self.metadata.iter().filter(|(_, value)| !value.is_null()) {
                // The members of the server win: clients rely on them.
                members.entry(name).or_insert_with(|| value.clone());
            }
            if self.registration.is_some() {
                members.insert("registration_endpoint".into(), at(REGISTER).into());
            }
            if self.issuer.clients().takes_documents() {
                members.insert(DOCUMENTS.into(), true.into());
            }
            let scopes = self.issuer.clients().scopes();
            if !scopes.is_empty() && !self.metadata.contains_key(SCOPES) {
                members.insert(SCOPES.into(), scopes.into());
            }
        }
        respond::cached(
            respond::body("application/json", metadata.to_string()),
            "public, max-age=3600",
        )
    }
}

impl Endpoints {
    /// The algorithms of the keys that sign now or next, and those of new keys.
    fn signing_algorithms(&self) -> Vec<String> {
        let mut all = self.issuer.keys().algorithms();
        for new in self.issuer.inner.minter.algorithms.rings() {
            if !all.contains(&new) {
                all.push(new);
            }
        }
        all.iter().map(ToString::to_string).collect()
    }
}

/// Whether `If-None-Match` names the entity tag (RFC 9110 §13.1.2).
fn names(request: &Request<Bytes>, etag: &str) -> bool {
    request.headers().get_all(header::IF_NONE_MATCH).iter().any(|value| {
        value.to_str().is_ok_and(|value| {
            value
                .split(',')
                .map(str::trim)
                .any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
        })
    })
}
