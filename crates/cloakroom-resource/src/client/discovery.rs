//! Authorization server metadata (RFC 8414).

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use serde::Deserialize;

use crate::client::endpoint::Endpoint;
use crate::client::http::{HttpClient, check_media_type, exchange};
use crate::client::json::read_object;
use crate::error::{SetupError, UnavailableError};

const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";

/// OpenID Connect Discovery 1.0 §4: appended to the issuer.
const OPENID: &str = "/.well-known/openid-configuration";

/// The members this crate uses.
#[derive(Debug, Deserialize)]
struct Document {
    issuer: String,
    jwks_uri: Option<String>,
    token_endpoint: Option<String>,
    introspection_endpoint: Option<String>,
    revocations_endpoint: Option<String>,
    handle_keys_endpoint: Option<String>,
}

/// Whether the server answered, but not with a metadata document.
fn has_no_document(error: &SetupError) -> bool {
    match error {
        SetupError::Fetch { source: UnavailableError::Status(status), .. } => {
            status.is_client_error()
        }
        // A page for people where there is nothing.
        SetupError::Fetch {
            source: UnavailableError::Malformed(_) | UnavailableError::Unreadable(_),
            ..
        } => true,
        _ => false,
    }
}

impl Document {
    async fn fetch(at: Endpoint, client: &dyn HttpClient) -> Result<Self, SetupError> {
        let uri = at.uri("issuer")?;
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = uri.clone();
        request
            .headers_mut()
            .insert(header::ACCEPT, header::HeaderValue::from_static("application/json"));
        let document = match exchange(client, request).await {
            Ok(response) => Self::read(&response),
            Err(outage) => Err(outage),
        };
        document.map_err(|source| SetupError::Fetch { uri, source })
    }

    fn read(response: &Response<Bytes>) -> Result<Self, UnavailableError> {
        // RFC 8414 §3.2: "A successful response MUST use the 200 OK HTTP status code and return a
        // JSON object using the application/json content type"
        if response.status() != StatusCode::OK {
            return Err(UnavailableError::Status(response.status()));
        }
        check_media_type(response, "application/json", "the metadata is not application/json")?;
        read_object(response.body()).map_err(|why| {
            UnavailableError::unreadable("the metadata is not the expected JSON object", why)
        })
    }
}

/// Metadata whose issuer was checked.
#[derive(Debug)]
pub(crate) struct Metadata {
    issuer: Endpoint,
    document: Document,
}

impl Metadata {
    pub(crate) async fn fetch(issuer: &str, client: &dyn HttpClient) -> Result<Self, SetupError> {
        let endpoint = Endpoint::parse("issuer", issuer)?;
        if endpoint.url().query().is_some() {
            return Err(SetupError::Url { what: "issuer", why: "it has a query" });
        }
        let document = match Document::fetch(well_known(&endpoint), client).await {
            // Many servers have the document of OpenID Connect alone, whose members are the same.
            Err(error) if has_no_document(&error) => {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "there is no RFC 8414 metadata; trying OpenID Connect metadata"
                );
                match Document::fetch(openid(&endpoint), client).await {
                    Err(second) if has_no_document(&second) => {
                        tracing::debug!(
                            error = &second as &dyn std::error::Error,
                            "there is no OpenID Connect metadata, either"
                        );
                        return Err(error);
                    }
                    document => document?,
                }
            }
            document => document?,
        };
        // RFC 8414 §3.3: "The "issuer" value returned MUST be identical to the authorization
        // server's issuer identifier value into which the well-known URI string was inserted"
        if document.issuer != issuer {
            return Err(SetupError::IssuerMismatch {
                expected: issuer.to_owned(),
                found: document.issuer.chars().take(255).collect(),
            });
        }
        Ok(Self { issuer: endpoint, document })
    }

    pub(crate) fn jwks_uri(&self) -> Result<Endpoint, SetupError> {
        self.endpoint("jwks_uri", self.document.jwks_uri.as_deref())
    }

    pub(crate) fn token_endpoint(&self) -> Result<Endpoint, SetupError> {
        self.endpoint("token_endpoint", self.document.token_endpoint.as_deref())
    }

    pub(crate) fn introspection_endpoint(&self) -> Result<Endpoint, SetupError> {
        self.endpoint("introspection_endpoint", self.document.introspection_endpoint.as_deref())
    }

    pub(crate) fn revocations_endpoint(&self) -> Result<Endpoint, SetupError> {
        self.endpoint("revocations_endpoint", self.document.revocations_endpoint.as_deref())
    }

    pub(crate) fn handle_keys_endpoint(&self) -> Result<Endpoint, SetupError> {
        self.endpoint("handle_keys_endpoint", self.document.handle_keys_endpoint.as_deref())
    }

    fn endpoint(&self, what: &'static str, url: Option<&str>) -> Result<Endpoint, SetupError> {
        Endpoint::of_metadata(what, url.ok_or(SetupError::Missing(what))?, &self.issuer)
    }
}

/// RFC 8414 §3.1: "If the issuer identifier value contains a path component, any terminating "/"
/// MUST be removed before inserting "/.well-known/" and the well-known URI suffix between the host
/// component and the path component."
fn well_known(issuer: &Endpoint) -> Endpoint {
    let path = issuer.url().path().trim_end_matches('/');
    issuer.with_path(&format!("{WELL_KNOWN}{path}"))
}

/// OpenID Connect Discovery 1.0 §4.1: "If the Issuer value contains a path component, any
/// terminating / MUST be removed before appending /.well-known/openid-configuration."
fn openid(issuer: &Endpoint) -> Endpoint {
    let path = issuer.url().path().trim_end_matches('/');
    issuer.with_path(&format!("{path}{OPENID}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_well_known_path_is_inserted_before_the_issuers_own() {
        for (issuer, expected) in [
            ("https://as.example", "https://as.example/.well-known/oauth-authorization-server"),
            ("https://as.example/", "https://as.example/.well-known/oauth-authorization-server"),
            (
                "https://as.example/tenant/1",
                "https://as.example/.well-known/oauth-authorization-server/tenant/1",
            ),
            (
                "https://as.example:8443/tenant/",
                "https://as.example:8443/.well-known/oauth-authorization-server/tenant",
            ),
        ] {
            let endpoint = Endpoint::parse("issuer", issuer).unwrap();
            assert_eq!(well_known(&endpoint).url().as_str(), expected);
            let path = issuer.trim_end_matches('/');
            let expected = format!("{path}/.well-known/openid-configuration");
            assert_eq!(openid(&endpoint).url().as_str(), expected);
        }
    }
}
