//! What this crate needs from an HTTP client.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};

use crate::error::UnavailableError;

/// The largest response body that is accepted: 256 KiB.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// Sends a request to the authorization server. [`ReqwestClient`](crate::ReqwestClient) is built in;
/// implement this trait to use another HTTP stack. Implementations need `#[async_trait]`, which is
/// re-exported as [`async_trait`](crate::async_trait).
///
/// An implementation
///
/// - must bound the time of the whole exchange, since requests wait for it. 5 s is a good bound. If
///   it is below 4 s, shorten [`ReplicaBuilder::wait`](crate::ReplicaBuilder::wait) too: a server may
///   hold back its answer for that long;
/// - must fail on a body of more than [`MAX_BODY_BYTES`], without reading it to its end;
/// - must not follow redirects, but must return the 3xx response, which is then refused. A redirect
///   would carry credentials and tokens elsewhere;
/// - must not cache;
/// - must survive being dropped at any time.
#[async_trait]
pub trait HttpClient: fmt::Debug + Send + Sync + 'static {
    /// Sends the request, and reads the whole response.
    ///
    /// # Errors
    ///
    /// [`HttpError`] if there is no complete response. A response with any status is not an error.
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError>;
}

#[async_trait]
impl<T: HttpClient + ?Sized> HttpClient for Arc<T> {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        (**self).send(request).await
    }
}

/// An exchange over HTTP that brought no complete response.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The body is larger than [`MAX_BODY_BYTES`].
    #[error("the response has more than {MAX_BODY_BYTES} bytes")]
    TooLarge,
    /// Anything else: no connection, a time-out, a broken response.
    #[error("the HTTP request failed")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

impl HttpError {
    /// A failure of the HTTP stack.
    #[must_use]
    pub fn failed(source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self::Failed(source.into())
    }
}

/// Sends a request, and does not rely on the client to bound the body.
pub(crate) async fn exchange(
    client: &dyn HttpClient,
    request: Request<Bytes>,
) -> Result<Response<Bytes>, UnavailableError> {
    let response = client.send(request).await?;
    if response.body().len() > MAX_BODY_BYTES {
        return Err(HttpError::TooLarge.into());
    }
    Ok(response)
}

/// Whether `Content-Type` is this media type; parameters do not count.
pub(crate) fn is_media_type(response: &Response<Bytes>, expected: &str) -> bool {
    let mut values = response.headers().get_all(http::header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    value.to_str().is_ok_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(expected)
    })
}
