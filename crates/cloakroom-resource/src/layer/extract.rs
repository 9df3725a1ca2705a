//! [`VerifiedToken`] and [`Token`] as extractors of axum.

use std::ops::Deref;

use axum_core::extract::{FromRequestParts, OptionalFromRequestParts};
use axum_core::response::{IntoResponse, Response};
use http::StatusCode;
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::layer::bearer_policy::Anonymous;
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

/// The token, or `None` for a request without one that passed an
/// [optional](crate::BearerLayer::optional) layer. On a route without a layer the answer is 500, as for a
/// handler that needs a token.
impl<S: Sync> OptionalFromRequestParts<S> for VerifiedToken {
    type Rejection = MissingLayer;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, MissingLayer> {
        if parts.extensions.get::<Self>().is_none() && parts.extensions.get::<Anonymous>().is_some()
        {
            return Ok(None);
        }
        <Self as FromRequestParts<S>>::from_request_parts(parts, state).await.map(Some)
    }
}

/// The token that [`BearerLayer`](crate::BearerLayer) has checked, with the custom claims as a type of your own. It
/// dereferences to [`VerifiedToken`].
///
/// If the token is valid but its claims do not fit the type, the answer is 403, and the trace says what is missing.
///
/// ```
/// use axum::{Router, routing::get};
/// use cloakroom_resource::{BearerLayer, Token};
///
/// #[derive(serde::Deserialize)]
/// struct Claims {
///     tenant: String,
/// }
///
/// async fn orders(token: Token<Claims>) -> String {
///     let who = token.subject().map_or("nobody", |subject| subject.id());
///     format!("orders of {who} at {}", token.claims.tenant)
/// }
///
/// fn app(bearer: BearerLayer) -> Router {
///     Router::new().route("/orders", get(orders)).route_layer(bearer)
/// }
/// ```
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Token<C> {
    /// The token.
    pub token: VerifiedToken,
    /// Its custom claims.
    pub claims: C,
}

impl<C: DeserializeOwned> Token<C> {
    /// The token with its custom claims, as [`VerifiedToken::claims`] reads them.
    ///
    /// # Errors
    ///
    /// If a claim is missing or has another type.
    pub fn new(token: VerifiedToken) -> Result<Self, serde_json::Error> {
        Ok(Self { claims: token.claims()?, token })
    }
}

impl<C> Deref for Token<C> {
    type Target = VerifiedToken;

    fn deref(&self) -> &VerifiedToken {
        &self.token
    }
}

/// A handler takes a [`Token`], and there is none for it.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRejection {
    /// The route has no layer: 500.
    #[error(transparent)]
    MissingLayer(#[from] MissingLayer),
    /// The claims of the token are not those of the type: 403.
    #[error("the token lacks a claim that this route needs")]
    Claims,
}

impl IntoResponse for TokenRejection {
    fn into_response(self) -> Response {
        match self {
            Self::MissingLayer(missing) => missing.into_response(),
            Self::Claims => StatusCode::FORBIDDEN.into_response(),
        }
    }
}

fn with_claims<C: DeserializeOwned>(token: VerifiedToken) -> Result<Token<C>, TokenRejection> {
    Token::new(token).map_err(|error| {
        // Its text may quote a claim.
        tracing::debug!(kind = ?error.classify(), claims = std::any::type_name::<C>(),
            "the claims of a token do not fit");
        TokenRejection::Claims
    })
}

impl<S: Sync, C: DeserializeOwned> FromRequestParts<S> for Token<C> {
    type Rejection = TokenRejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, TokenRejection> {
        let token =
            <VerifiedToken as FromRequestParts<S>>::from_request_parts(parts, state).await?;
        with_claims(token)
    }
}

impl<S: Sync, C: DeserializeOwned> OptionalFromRequestParts<S> for Token<C> {
    type Rejection = TokenRejection;

    async fn from_request_parts(
        parts: &mut Parts,
        state: &S,
    ) -> Result<Option<Self>, TokenRejection> {
        let token =
            <VerifiedToken as OptionalFromRequestParts<S>>::from_request_parts(parts, state)
                .await?;
        token.map(with_claims).transpose()
    }
}
