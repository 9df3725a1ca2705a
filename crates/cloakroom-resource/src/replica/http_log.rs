//! The revocation log over HTTP.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom_core::{Cursor, RevocationPage};
use http::header::{self, HeaderValue};
use http::{Method, Request, StatusCode};

use super::log::RevocationLog;
use crate::discovery::Metadata;
use crate::endpoint::Endpoint;
use crate::error::{Outage, SetupError};
use crate::http_client::{HttpClient, exchange, is_media_type};
use crate::introspection::ClientCredentials;

const WHAT: &str = "revocations endpoint";

/// The revocation log of an authorization server that hands it out over HTTP
/// (`GET /revocations?after=…&wait=…`), to clients that it lets follow it: who follows the log
/// learns who is revoked.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom_resource::{ClientCredentials, HttpLog, ReqwestClient, RevocationReplica};
///
/// let credentials = || ClientCredentials::new("orders-api", "s3cret");
/// let log = HttpLog::discover("https://as.example", credentials()).await?;
///
/// // Without metadata:
/// let endpoint = "https://as.example/revocations";
/// let log = HttpLog::new(endpoint, credentials(), ReqwestClient::new()?)?;
/// let replica = RevocationReplica::follow(log).await?;
/// # Ok(()) }
/// ```
#[derive(Debug)]
pub struct HttpLog {
    endpoint: Endpoint,
    credentials: ClientCredentials,
    client: Arc<dyn HttpClient>,
}

impl HttpLog {
    /// The log that the endpoint at this URL hands out.
    ///
    /// # Errors
    ///
    /// If `endpoint` is no URL, or neither `https` nor on this machine.
    pub fn new(
        endpoint: &str,
        credentials: ClientCredentials,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        Self::at(Endpoint::parse(WHAT, endpoint)?, credentials, Arc::new(client))
    }

    /// The log at the `revocations_endpoint` that the issuer's metadata names (RFC 8414), with the
    /// built-in HTTP client. The metadata is fetched once, now.
    ///
    /// # Errors
    ///
    /// If the metadata cannot be fetched, is of another issuer, or names no usable
    /// `revocations_endpoint`.
    #[cfg(feature = "client")]
    pub async fn discover(
        issuer: &str,
        credentials: ClientCredentials,
    ) -> Result<Self, SetupError> {
        Self::discover_with(issuer, credentials, crate::ReqwestClient::new()?).await
    }

    /// Like `discover`, with an HTTP client of the app's own.
    ///
    /// # Errors
    ///
    /// If the metadata cannot be fetched, is of another issuer, or names no usable
    /// `revocations_endpoint`.
    pub async fn discover_with(
        issuer: &str,
        credentials: ClientCredentials,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let client: Arc<dyn HttpClient> = Arc::new(client);
        let endpoint = Metadata::fetch(issuer, &*client).await?.revocations_endpoint()?;
        Self::at(endpoint, credentials, client)
    }

    fn at(
        endpoint: Endpoint,
        credentials: ClientCredentials,
        client: Arc<dyn HttpClient>,
    ) -> Result<Self, SetupError> {
        endpoint.uri(WHAT)?;
        Ok(Self { endpoint, credentials, client })
    }

    fn request(&self, after: Cursor, wait: Duration) -> Result<Request<Bytes>, Outage> {
        let mut url = self.endpoint.url().clone();
        {
            let mut query = url.query_pairs_mut();
            if after.place().is_some() {
                query.append_pair("after", &after.to_string());
            }
            query.append_pair("wait", &wait.as_secs().to_string());
        }
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = url.as_str().parse().map_err(Outage::other)?;
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(header::AUTHORIZATION, self.credentials.basic()?);
        Ok(request)
    }
}

#[async_trait]
impl RevocationLog for HttpLog {
    async fn read(&self, after: Cursor, wait: Duration) -> Result<RevocationPage, Outage> {
        let response = exchange(&*self.client, self.request(after, wait)?).await?;
        match response.status() {
            StatusCode::OK => {}
            status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                return Err(Outage::Credentials(status));
            }
            status => return Err(Outage::Status(status)),
        }
        if !is_media_type(&response, "application/json") {
            return Err(Outage::Malformed("it is not application/json"));
        }
        RevocationPage::from_json(response.body())
            .map_err(|_| Outage::Malformed("it is no page of the revocation log"))
    }
}
