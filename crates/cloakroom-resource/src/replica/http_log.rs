//! The revocation log over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::revocation::{Cursor, RevocationPage};
use url::Url;

use super::log::RevocationLog;
use crate::client::credentials::ClientCredentials;
use crate::client::discovery::Metadata;
use crate::client::http::HttpClient;
use crate::client::protected::Protected;
use crate::error::{SetupError, UnavailableError};

const WHAT: &str = "revocations_endpoint";

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
pub struct HttpLog(Protected);

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
        Protected::new(WHAT, endpoint, credentials, client).map(Self)
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
        Protected::discover(WHAT, Metadata::revocations_endpoint, issuer, credentials, client)
            .await
            .map(Self)
    }
}

#[async_trait]
impl RevocationLog for HttpLog {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let query = |url: &mut Url| {
            let mut query = url.query_pairs_mut();
            if !after.is_start() {
                query.append_pair("after", &after.to_string());
            }
            query.append_pair("wait", &wait.as_secs().to_string());
        };
        RevocationPage::from_json(&self.0.get(query).await?)
            .map_err(|_| UnavailableError::Malformed("it is no page of the revocation log"))
    }
}
