//! An axum router over the handlers.

use std::error::Error as _;
use std::sync::Arc;

use ::axum::Router;
use ::axum::body::{Body, to_bytes};
use ::axum::extract::{Request, State};
use ::axum::response::IntoResponse;
use ::axum::routing::any;
use ::http::Response;
use bytes::Bytes;
use http_body::Body as _;
use http_body_util::LengthLimitError;

use super::{
    Endpoints, HANDLE_KEYS, INTROSPECT, JWK_SET, METADATA, REVOCATIONS, REVOKE, TOKEN, respond,
};
use crate::error::TokenError;
use crate::flow::request::TokenResponse;

impl Endpoints {
    /// A router with all endpoints, each below the path of the issuer's URL. Only the well-known
    /// part of the metadata comes before that path
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
        for path in [TOKEN, INTROSPECT, REVOKE, REVOCATIONS, HANDLE_KEYS, JWK_SET] {
            router = router.route(&under(path), any(serve));
        }
        router.with_state(Arc::new(self))
    }
}

async fn serve(State(endpoints): State<Arc<Endpoints>>, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let limit = endpoints.body_limit;
    let read = if body.size_hint().lower() > u64::try_from(limit).unwrap_or(u64::MAX) {
        // The client has said that the body is too large, so it need not send it.
        Err(respond::too_large())
    } else {
        to_bytes(body, limit).await.map_err(|error| unread(&error))
    };
    match read {
        Ok(body) => endpoints.respond(&Request::from_parts(parts, body)).await,
        Err(refused) => endpoints.refused(&parts, refused),
    }
    .map(Body::from)
}

/// The response to a request whose body could not be read.
fn unread(error: &::axum::Error) -> Response<Bytes> {
    let mut source = error.source();
    while let Some(error) = source {
        if error.is::<LengthLimitError>() {
            return respond::too_large();
        }
        #[cfg(feature = "serve")]
        if error.is::<super::serve::BodyTimeout>() {
            return respond::too_slow();
        }
        source = error.source();
    }
    // A malformed chunk, or a client that went away, which does not read the response.
    respond::malformed()
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
