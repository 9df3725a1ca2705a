//! The revocation log over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::revocation::{Cursor, RevocationPage};
use url::Url;

use super::log::RevocationLog;
use crate::client::discovery::Metadata;
use crate::client::protected::{Protected, endpoint_constructors};
use crate::error::UnavailableError;

/// The revocation log of an authorization server over HTTP (`GET /revocations?after=…&wait=…`). The
/// client needs the right to read it, because the log names revoked users and clients.
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

endpoint_constructors!(HttpLog, "revocations_endpoint", Metadata::revocations_endpoint);

impl From<Protected> for HttpLog {
    fn from(endpoint: Protected) -> Self {
        Self(endpoint)
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
        RevocationPage::from_json(&self.0.get(query).await?).map_err(|error| {
            UnavailableError::unreadable("it is not a page of the revocation log", error)
        })
    }
}
