//! Authorization requests and their responses over HTTP. The endpoint itself is the app's.

use ::http::{HeaderValue, Method, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::{form, respond};
use crate::flow::authorization_request::{
    AuthorizationError, AuthorizationRedirect, AuthorizationRequest, PageError,
};
use crate::issuer::Issuer;

/// The query of a request that came by `POST`, before the sealed request.
const BY_POST: &str = "sealed=";

impl Issuer {
    /// Checks the authorization request in the query of a `GET`, or in the form of a `POST`
    /// ([`Issuer::authorization_request`]). The query of a `POST` is not read.
    ///
    /// A client's page sends its form across sites, without the cookies of your page
    /// (`SameSite=Lax`). So a `POST` is answered with 303 to the same page, where the browser sends them:
    /// your page sees the request by `GET`. Its query is the request, [sealed](AuthorizationRequest::seal),
    /// because a client that sends a form may want to keep the parameters out of URLs. If the issuer has no
    /// store of single-use items, nothing can be sealed, and your page sees the `POST`.
    ///
    /// # Errors
    ///
    /// As [`Issuer::authorization_request`], [`AuthorizationError::Repeat`] for a `POST`, and
    /// [`AuthorizationError::Page`] for other methods and for bodies that are not forms.
    pub async fn read_authorization_request(
        &self,
        request: &Request<Bytes>,
    ) -> Result<AuthorizationRequest, AuthorizationError> {
        match *request.method() {
            Method::GET | Method::HEAD => {
                let query = request.uri().query().unwrap_or_default();
                match query.strip_prefix(BY_POST).filter(|sealed| !sealed.contains('&')) {
                    Some(sealed) => {
                        let context = BY_POST.as_bytes();
                        Ok(self.open_authorization_request_for(sealed, context).await?)
                    }
                    None => self.authorization_request(query.as_bytes()).await,
                }
            }
            Method::POST => {
                form::check_headers(request.headers())?;
                let request = self.authorization_request(request.body()).await?;
                if self.inner.single_use.is_none() {
                    return Ok(request);
                }
                let sealed = request.seal_for(BY_POST.as_bytes())?;
                let query = format!("{BY_POST}{sealed}");
                Err(AuthorizationError::Repeat(AuthorizationRedirect::to_query(&query)))
            }
            _ => Err(PageError::Malformed("the method must be GET or POST").into()),
        }
    }
}

impl AuthorizationRedirect {
    /// The response to the browser: 303 with `Location`, or the page with the form. No cache keeps it.
    #[must_use]
    pub fn into_http(self) -> Response<Bytes> {
        let (location, page) = self.into_parts();
        let mut response = match page {
            None => respond::empty(StatusCode::SEE_OTHER),
            Some(html) => {
                let hash = STANDARD.encode(Sha256::digest(Self::SCRIPT));
                let policy = format!("default-src 'none'; script-src 'sha256-{hash}'");
                page_of(respond::body("text/html; charset=utf-8", secret(html)), &policy)
            }
        };
        // A redirect URI is registered, and what is added to it is encoded: it is a header's value.
        let location = location.and_then(|url| HeaderValue::from_maybe_shared(secret(url)).ok());
        if let Some(mut location) = location {
            location.set_sensitive(true);
            response.headers_mut().insert(header::LOCATION, location);
        }
        without_referrer(response)
    }
}

impl PageError {
    /// A plain page with the text of the error: 400, 403 for a refusal, 500 if your handler failed, or
    /// 503 for an outage.
    #[must_use]
    pub fn to_http(&self) -> Response<Bytes> {
        let status = match self {
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::App(_) => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Foreign | Self::SignedOut | Self::Refused => StatusCode::FORBIDDEN,
            _ => StatusCode::BAD_REQUEST,
        };
        let error: &dyn std::error::Error = self;
        if status.is_server_error() {
            tracing::error!(error, "an authorization request failed");
        } else {
            tracing::debug!(error, "an authorization request was refused");
        }
        let text = format!("{self}\n");
        let mut response =
            page_of(respond::body("text/plain; charset=utf-8", text), "default-src 'none'");
        *response.status_mut() = status;
        without_referrer(response)
    }
}

impl AuthorizationError {
    /// The response to the browser: an error page, or the redirect to the client.
    #[must_use]
    pub fn into_http(self) -> Response<Bytes> {
        match self {
            Self::Page(error) => error.to_http(),
            Self::Redirect(redirect) | Self::Repeat(redirect) => redirect.into_http(),
        }
    }
}

fn secret(text: Zeroizing<String>) -> Bytes {
    Bytes::from_owner(text)
}

/// RFC 6749 §10.13, RFC 9700 §4.16: no other page may show it in a frame.
fn page_of(mut response: Response<Bytes>, policy: &str) -> Response<Bytes> {
    let policy = format!("{policy}; base-uri 'none'; frame-ancestors 'none'");
    let headers = response.headers_mut();
    if let Ok(policy) = HeaderValue::try_from(policy) {
        headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    response
}

/// RFC 9700 §4.2.4: the URL of the request, with its `state`, must not reach the client's page.
fn without_referrer(mut response: Response<Bytes>) -> Response<Bytes> {
    response.headers_mut().insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}

#[cfg(feature = "axum")]
mod axum {
    use ::axum::body::Body;
    use ::axum::extract::{FromRef, FromRequest};
    use ::axum::response::IntoResponse;
    use ::http::{Request, Response};

    use super::{AuthorizationError, AuthorizationRedirect, AuthorizationRequest, PageError};
    use crate::http::BODY_LIMIT;
    use crate::http::axum::read;
    use crate::issuer::Issuer;

    impl<S> FromRequest<S> for AuthorizationRequest
    where
        Issuer: FromRef<S>,
        S: Send + Sync,
    {
        type Rejection = Response<Body>;

        async fn from_request(request: Request<Body>, state: &S) -> Result<Self, Self::Rejection> {
            let issuer = Issuer::from_ref(state);
            let (parts, body) = request.into_parts();
            let body = read(body, BODY_LIMIT).await.map_err(|refused| refused.map(Body::from))?;
            let request = Request::from_parts(parts, body);
            let checked = issuer.read_authorization_request(&request).await;
            checked.map_err(IntoResponse::into_response)
        }
    }

    impl IntoResponse for AuthorizationRedirect {
        /// As [`AuthorizationRedirect::into_http`].
        fn into_response(self) -> Response<Body> {
            self.into_http().map(Body::from)
        }
    }

    impl IntoResponse for PageError {
        /// As [`PageError::to_http`].
        fn into_response(self) -> Response<Body> {
            self.to_http().map(Body::from)
        }
    }

    impl IntoResponse for AuthorizationError {
        /// As [`AuthorizationError::into_http`].
        fn into_response(self) -> Response<Body> {
            self.into_http().map(Body::from)
        }
    }
}
