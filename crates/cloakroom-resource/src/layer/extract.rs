//! [`VerifiedToken`] as an extractor of axum.

use axum_core::extract::FromRequestParts;
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;

use crate::verify::token::VerifiedToken;

/// A handler takes a [`VerifiedToken`] on a route without [`BearerLayer`](crate::BearerLayer). This
/// is a mistake in the program, not in the request: the response is 500, and an error is traced.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("this route has no `BearerLayer`: add `.route_layer(BearerLayer::new(verifier))`")]
#[non_exhaustive]
pub struct MissingLayer;

impl IntoResponse for MissingLayer {
    fn into_response(self) -> Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// The token that [`BearerLayer`](crate::BearerLayer) has checked.
///
/// ```
/// use axum::{Router, routing::get};
/// use cloakroom_resource::{BearerLayer, VerifiedToken, Verifier};
///
/// async fn orders(token: VerifiedToken) -> String {
///     format!("orders of {:?}", token.subject())
/// }
///
/// fn app(verifier: Verifier) -> Router {
///     Router::new()
///         .route("/orders", get(orders))
///         .route_layer(BearerLayer::new(verifier))
/// }
/// ```
impl<S: Sync> FromRequestParts<S> for VerifiedToken {
    type Rejection = MissingLayer;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, MissingLayer> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| {
            tracing::error!(uri = %parts.uri.path(), "{MissingLayer}");
            MissingLayer
        })
    }
}
