//! An axum router over the handlers.

use std::convert::Infallible;
use std::error::Error as _;
use std::sync::Arc;

use ::axum::Router;
use ::axum::body::Body;
use ::axum::extract::{FromRef, FromRequestParts, Request, State};
use ::axum::response::{IntoResponse, IntoResponseParts, ResponseParts};
use ::axum::routing::any;
use ::http::Response;
use ::http::request::Parts;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::{BodyExt as _, LengthLimitError};
use zeroize::Zeroizing;

use super::{
    Browser, Endpoints, HANDLE_KEYS, INTROSPECT, JWK_SET, METADATA, REGISTER, REVOCATIONS, REVOKE,
    TOKEN, respond,
};
use crate::error::TokenError;
use crate::flow::authorization_request::PageError;
use crate::flow::request::TokenResponse;
use crate::issuer::Issuer;
use crate::metrics::Timer;

impl Endpoints {
    /// A router with all endpoints, each below the path of the issuer's URL. Only the well-known
    /// part of the metadata URL comes before that path
    /// (`/.well-known/oauth-authorization-server/tenant`, RFC 8414 §3.1). Merge the router into
    /// yours at the root; nesting would change the paths.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use cloakroom::http::Endpoints;
    /// use cloakroom::{Client, Issuer};
    ///
    /// let issuer = Issuer::dev().static_clients([Client::public("app")])?.build().await?;
    /// let app: axum::Router = axum::Router::new().merge(Endpoints::new(issuer).router());
    /// # Ok(()) }
    /// ```
    pub fn router(self) -> Router {
        let under = |path: &str| format!("{}{path}", self.path);
        let mut router = Router::new().route(&format!("{METADATA}{}", self.path), any(serve));
        for path in [TOKEN, INTROSPECT, REVOKE, REVOCATIONS, HANDLE_KEYS, REGISTER, JWK_SET] {
            router = router.route(&under(path), any(serve));
        }
        router.with_state(Arc::new(self))
    }
}

async fn serve(State(endpoints): State<Arc<Endpoints>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let timer = Timer::start();
    match read(body, endpoints.body_limit).await {
        Ok(body) => endpoints.respond(&Request::from_parts(parts, body)).await,
        Err(refused) => endpoints.refused(&parts, refused, &timer),
    }
    .map(Body::from)
}

/// The whole body, or the refusal of one that is too large or cannot be read.
pub(super) async fn read(mut body: Body, limit: usize) -> Result<Bytes, Response<Bytes>> {
    if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        // The client has said that the body is too large, so it need not send it.
        return Err(respond::too_large());
    }
    let mut all = Zeroizing::new(Vec::new());
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| unread(&error))?;
        // Trailers mean nothing here.
        let Ok(data) = frame.into_data() else { continue };
        if data.len() > limit - all.len() {
            return Err(respond::too_large());
        }
        if all.is_empty() && body.is_end_stream() {
            return Ok(data);
        }
        // Copied, since each part would keep the connection's buffer, which is larger.
        append(&mut all, &data);
    }
    Ok(Bytes::from_owner(all))
}

/// Appends without leaving a copy behind: the body may hold a secret. Room is made for what has come,
/// not for what is announced.
fn append(all: &mut Zeroizing<Vec<u8>>, data: &[u8]) {
    let length = all.len() + data.len();
    if length > all.capacity() {
        let mut larger = Zeroizing::new(Vec::with_capacity(length.max(2 * all.capacity())));
        larger.extend_from_slice(all);
        *all = larger;
    }
    all.extend_from_slice(data);
}

/// The response to a request whose body could not be read.
fn unread(error: &::axum::Error) -> Response<Bytes> {
    let mut source = error.source();
    while let Some(cause) = source {
        // A limit of the app's own, around the router.
        if cause.is::<LengthLimitError>() {
            return respond::too_large();
        }
        #[cfg(feature = "serve")]
        if cause.is::<super::serve::BodyTimeout>() {
            return respond::too_slow();
        }
        source = cause.source();
    }
    // A malformed chunk, or a client that went away, which does not read the response.
    let error: &dyn std::error::Error = error;
    tracing::debug!(error, "a body could not be read");
    respond::malformed()
}

impl<S> FromRequestParts<S> for Browser
where
    Issuer: FromRef<S>,
    S: Send + Sync,
{
    type Rejection = PageError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, PageError> {
        Issuer::from_ref(state).browser(&parts.method, &parts.headers).await
    }
}

impl IntoResponseParts for Browser {
    type Error = Infallible;

    /// As [`Browser::add_to`].
    fn into_response_parts(self, mut response: ResponseParts) -> Result<ResponseParts, Infallible> {
        self.add_to(response.headers_mut());
        Ok(response)
    }
}

impl From<Endpoints> for Router {
    fn from(endpoints: Endpoints) -> Self {
        endpoints.router()
    }
}

impl IntoResponse for TokenResponse {
    /// The response of RFC 6749 §5.1, with `no-store`.
    fn into_response(self) -> Response<Body> {
        match respond::tokens(&self) {
            Ok(response) => response.map(Body::from),
            Err(error) => respond::error(&error).map(Body::from),
        }
    }
}

impl IntoResponse for TokenError {
    /// The error response of RFC 6749 §5.2, or 503 with `Retry-After` for an outage. The cause goes
    /// to the trace only.
    fn into_response(self) -> Response<Body> {
        respond::error(&self).map(Body::from)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::stream::{self, StreamExt as _};

    use super::*;

    /// A part of a body that counts those that are still held.
    struct Held(Arc<AtomicUsize>);

    impl AsRef<[u8]> for Held {
        fn as_ref(&self) -> &[u8] {
            b"part;"
        }
    }

    impl Drop for Held {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_body_holds_no_part_of_a_connection_while_it_comes() {
        let held = Arc::new(AtomicUsize::new(0));
        let most = Arc::new(AtomicUsize::new(0));
        let parts = {
            let (held, most) = (Arc::clone(&held), Arc::clone(&most));
            stream::repeat_with(move || {
                let now = held.fetch_add(1, Ordering::SeqCst) + 1;
                most.fetch_max(now, Ordering::SeqCst);
                Ok::<_, std::io::Error>(Bytes::from_owner(Held(Arc::clone(&held))))
            })
        };
        let body = Body::from_stream(parts.take(1_000));
        let read = read(body, 5_000).await.unwrap();
        assert_eq!(read, "part;".repeat(1_000));
        // The next part may be there before the last one is dropped.
        assert!(most.load(Ordering::SeqCst) <= 2, "{most:?}");
        assert_eq!(held.load(Ordering::SeqCst), 0);
    }

    #[tokio::test]
    async fn a_body_ends_at_the_limit_however_it_comes() {
        let parts = |count: usize| {
            let parts =
                stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(b"0123")));
            Body::from_stream(parts.take(count))
        };
        for (count, limit, is_read) in [
            (0, 0, true),
            (1, 4, true),
            (1, 3, false),
            (3, 12, true),
            (3, 11, false),
            (1, 0, false),
        ] {
            let answer = read(parts(count), limit).await;
            assert_eq!(answer.is_ok(), is_read, "{count} {limit}");
            match answer {
                Ok(body) => assert_eq!(body.len(), 4 * count),
                Err(refused) => assert_eq!(refused.status(), 413),
            }
        }
    }

    #[test]
    fn room_is_made_for_what_has_come() {
        let mut all = Zeroizing::new(Vec::new());
        for _ in 0..30_000 {
            append(&mut all, b"x");
            assert!(all.capacity() <= (2 * all.len()).max(8), "{}", all.capacity());
        }
    }
}
