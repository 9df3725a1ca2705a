//! The built-in HTTP client.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, uri::Scheme};
use zeroize::Zeroizing;

use crate::client::http::{HttpClient, HttpError, MAX_BODY_BYTES};
use crate::error::SetupError;

/// An [`HttpClient`] on reqwest and rustls. Needs a tokio runtime. Cheap to clone; clones share
/// their connections.
///
/// A proxy named by the environment (`HTTPS_PROXY`, `NO_PROXY`) is used for `https` only: plain
/// HTTP is for this machine itself, and credentials in it must not travel to a proxy.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_resource::ReqwestClient;
///
/// let client = ReqwestClient::new()?; // 2 s to connect, 5 s in all
/// let patient = ReqwestClient::with_timeouts(Duration::from_secs(5), Duration::from_secs(20))?;
/// # Ok::<(), cloakroom_resource::SetupError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReqwestClient {
    https: reqwest::Client,
    plain: reqwest::Client,
}

impl ReqwestClient {
    /// A client that gives up connecting after 2 s and waiting after 5 s in all.
    ///
    /// # Errors
    ///
    /// If the system's certificates cannot be loaded.
    pub fn new() -> Result<Self, SetupError> {
        Self::with_timeouts(Duration::from_secs(2), Duration::from_secs(5))
    }

    /// A client with time-outs of the app's own: for the connection, and for the whole exchange
    /// to the last byte of the body.
    ///
    /// # Errors
    ///
    /// If the system's certificates cannot be loaded.
    pub fn with_timeouts(connect: Duration, whole: Duration) -> Result<Self, SetupError> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("cloakroom-resource/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(connect)
                .timeout(whole)
        };
        let built = |result: Result<reqwest::Client, reqwest::Error>| {
            result.map_err(|error| SetupError::Client(Arc::new(error)))
        };
        Ok(Self {
            https: built(builder().https_only(true).build())?,
            plain: built(builder().no_proxy().build())?,
        })
    }
}

#[async_trait]
impl HttpClient for ReqwestClient {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client =
            if request.uri().scheme() == Some(&Scheme::HTTPS) { &self.https } else { &self.plain };
        let (parts, body) = request.into_parts();
        let mut outgoing =
            client.request(parts.method, parts.uri.to_string()).headers(parts.headers);
        if !body.is_empty() {
            outgoing = outgoing.body(body);
        }
        let mut incoming = outgoing.send().await.map_err(HttpError::failed)?;

        let mut response = Response::new(Bytes::new());
        *response.status_mut() = incoming.status();
        *response.headers_mut() = std::mem::take(incoming.headers_mut());
        // A JWT may be in it.
        let announced = incoming.content_length().and_then(|length| usize::try_from(length).ok());
        let room = announced.unwrap_or(0).min(MAX_BODY_BYTES);
        let mut body = Zeroizing::new(Vec::with_capacity(room));
        while let Some(chunk) = incoming.chunk().await.map_err(HttpError::failed)? {
            if body.len() + chunk.len() > MAX_BODY_BYTES {
                return Err(HttpError::TooLarge);
            }
            append(&mut body, &chunk);
        }
        *response.body_mut() = Bytes::from_owner(body);
        Ok(response)
    }
}

/// Wipes the buffer that becomes too small, which the vector's own growth would not.
fn append(body: &mut Zeroizing<Vec<u8>>, chunk: &[u8]) {
    let needed = body.len() + chunk.len();
    if needed > body.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(needed.next_power_of_two()));
        larger.extend_from_slice(body);
        *body = larger;
    }
    body.extend_from_slice(chunk);
}
