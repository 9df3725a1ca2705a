//! What this crate needs from an HTTP client.

use std::error::Error;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, header};

use crate::error::UnavailableError;

/// The largest response body that is accepted: 256 KiB.
pub const MAX_BODY_BYTES: usize = 256 * 1024;

/// Sends a request to the authorization server. [`ReqwestClient`](crate::ReqwestClient) is built in;
/// implement this trait to use another HTTP stack. Implementations need `#[async_trait]`, which is
/// re-exported as [`async_trait`](crate::async_trait).
///
/// An implementation
///
/// - must limit the time of the whole exchange, since requests wait for it. 5 s is a good limit. If
///   it is below 4 s, shorten [`ReplicaBuilder::wait`](crate::ReplicaBuilder::wait) too: a server
///   may delay its response for that long;
/// - must fail on a body of more than [`MAX_BODY_BYTES`], without reading it to its end;
/// - must not follow redirects, but must return the 3xx response, which is then refused. A redirect
///   would carry credentials and tokens elsewhere;
/// - must not cache;
/// - should send a request once more, on a new connection and within the same time limit, if its
///   connection ends before a response begins: a server may close an idle connection just as the
///   next request is sent. All requests of this crate may be repeated;
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

/// An HTTP exchange without a complete response.
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
    mut request: Request<Bytes>,
) -> Result<Response<Bytes>, UnavailableError> {
    // RFC 9110 §12.5.3: without this field, the server may choose any coding.
    request
        .headers_mut()
        .insert(header::ACCEPT_ENCODING, header::HeaderValue::from_static("identity"));
    let response = client.send(request).await?;
    if response.body().len() > MAX_BODY_BYTES {
        return Err(HttpError::TooLarge.into());
    }
    if response.status().is_success()
        && let Some(coding) = response.headers().get(header::CONTENT_ENCODING)
        && !coding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        let why = format!("its content coding is {}", shown(coding));
        return Err(UnavailableError::unreadable(
            "it has a content coding that was not requested",
            why,
        ));
    }
    Ok(response)
}

/// A field value for a trace: short, and ASCII.
fn shown(value: &header::HeaderValue) -> String {
    let text: String = value.as_bytes().iter().take(64).map(|byte| char::from(*byte)).collect();
    text.escape_default().to_string()
}

/// That the media type of a response is `expected`.
pub(crate) fn check_media_type(
    response: &Response<Bytes>,
    expected: &str,
    what: &'static str,
) -> Result<(), UnavailableError> {
    if is_media_type(response, expected) {
        return Ok(());
    }
    let all: Vec<String> =
        response.headers().get_all(header::CONTENT_TYPE).iter().map(shown).collect();
    let why = match &*all {
        [] => "it has no content type".to_owned(),
        [one] => format!("its content type is {one}"),
        _ => format!("it has {} content types", all.len()),
    };
    Err(UnavailableError::unreadable(what, why))
}

/// Whether `Content-Type` is this media type; parameters do not count.
fn is_media_type(response: &Response<Bytes>, expected: &str) -> bool {
    let mut values = response.headers().get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return false;
    };
    value.to_str().is_ok_and(|value| {
        let essence = value.split(';').next().unwrap_or_default().trim();
        essence.eq_ignore_ascii_case(expected)
    })
}
