//! The built-in HTTP client.

use std::error::Error;
use std::io::ErrorKind;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, uri::Scheme};
use tokio::time::Instant;
use zeroize::Zeroizing;

use crate::client::http::{HttpClient, HttpError, MAX_BODY_BYTES};
use crate::error::SetupError;

/// How long a [`ReqwestClient`] waits: by default 2 s for a connection, and 5 s in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct HttpTimeouts {
    connect: Duration,
    total: Duration,
}

impl Default for HttpTimeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), total: Duration::from_secs(5) }
    }
}

impl HttpTimeouts {
    /// How long it may take to connect.
    pub const fn connect(mut self, limit: Duration) -> Self {
        self.connect = limit;
        self
    }

    /// How long the whole exchange may take, from connecting to the last byte of the body.
    pub const fn total(mut self, limit: Duration) -> Self {
        self.total = limit;
        self
    }
}

/// An [`HttpClient`] on reqwest and rustls. It needs a tokio runtime. Cheap to clone; clones share
/// their connections.
///
/// If the connection of a request ends before a response begins, the request is sent once more, on
/// a new connection and within the same time limit: servers close idle connections without notice.
/// So **send only requests that may be repeated**; all requests of this crate may.
///
/// A proxy named by the environment (`HTTPS_PROXY`, `NO_PROXY`) is used for `https` only. Plain
/// HTTP is used only on this machine, so its credentials must not be sent to a proxy.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_resource::{HttpTimeouts, ReqwestClient};
///
/// let client = ReqwestClient::new()?;
/// let timeouts = HttpTimeouts::default().total(Duration::from_secs(20));
/// let patient = ReqwestClient::with_timeouts(timeouts)?;
/// # Ok::<(), cloakroom_resource::SetupError>(())
/// ```
#[derive(Debug, Clone)]
pub struct ReqwestClient {
    https: Connections,
    plain: Connections,
    total: Duration,
}

/// For one scheme.
#[derive(Debug, Clone)]
struct Connections {
    /// Keeps them for further requests.
    kept: reqwest::Client,
    /// Opens a new one for each request.
    new: reqwest::Client,
}

impl ReqwestClient {
    /// A client with the default [`HttpTimeouts`].
    ///
    /// # Errors
    ///
    /// [`SetupError::Client`] if the system's certificates cannot be loaded.
    pub fn new() -> Result<Self, SetupError> {
        Self::with_timeouts(HttpTimeouts::default())
    }

    /// A client that gives up after these times.
    ///
    /// # Errors
    ///
    /// [`SetupError::Client`] if the system's certificates cannot be loaded.
    pub fn with_timeouts(timeouts: HttpTimeouts) -> Result<Self, SetupError> {
        let builder = || {
            reqwest::Client::builder()
                .user_agent(concat!("cloakroom-resource/", env!("CARGO_PKG_VERSION")))
                .redirect(reqwest::redirect::Policy::none())
                .referer(false)
                .connect_timeout(timeouts.connect)
                .timeout(timeouts.total)
        };
        let https = || builder().https_only(true);
        // It makes no TLS connection, so it need not load the system's certificates.
        let plain = || builder().no_proxy().tls_certs_only([]);
        let connections = |builder: &dyn Fn() -> reqwest::ClientBuilder| {
            let built = |builder: reqwest::ClientBuilder| {
                builder.build().map_err(|error| SetupError::Client(Arc::new(error)))
            };
            Ok(Connections {
                kept: built(builder())?,
                new: built(builder().pool_max_idle_per_host(0))?,
            })
        };
        Ok(Self { https: connections(&https)?, plain: connections(&plain)?, total: timeouts.total })
    }
}

#[async_trait]
impl HttpClient for ReqwestClient {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let connections =
            if request.uri().scheme() == Some(&Scheme::HTTPS) { &self.https } else { &self.plain };
        let began = Instant::now();
        let first = outgoing(&connections.kept, request.clone()).send().await;
        let mut incoming = match first {
            Ok(incoming) => incoming,
            Err(error) => {
                let left = self.total.saturating_sub(began.elapsed());
                if left.is_zero() || !ended_before_an_answer(&error) {
                    return Err(HttpError::failed(error));
                }
                tracing::debug!(
                    error = &error as &dyn Error,
                    "the connection ended before a response began; trying a new one"
                );
                let again = outgoing(&connections.new, request).timeout(left);
                again.send().await.map_err(HttpError::failed)?
            }
        };

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

fn outgoing(client: &reqwest::Client, request: Request<Bytes>) -> reqwest::RequestBuilder {
    let (parts, body) = request.into_parts();
    let outgoing = client.request(parts.method, parts.uri.to_string()).headers(parts.headers);
    if body.is_empty() { outgoing } else { outgoing.body(body) }
}

/// Whether the server, or something on the way to it, has ended the connection, and no head of an answer
/// has come.
fn ended_before_an_answer(error: &reqwest::Error) -> bool {
    if !error.is_request() || error.is_connect() || error.is_timeout() {
        return false;
    }
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<hyper::Error>()
            && (error.is_incomplete_message() || error.is_canceled() || error.is_closed())
        {
            return true;
        }
        if let Some(error) = error.downcast_ref::<std::io::Error>() {
            return matches!(
                error.kind(),
                ErrorKind::BrokenPipe
                    | ErrorKind::ConnectionAborted
                    | ErrorKind::ConnectionReset
                    | ErrorKind::NotConnected
                    | ErrorKind::UnexpectedEof
            );
        }
        cause = error.source();
    }
    false
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

#[cfg(test)]
mod tests;
