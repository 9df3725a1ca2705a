//! An endpoint of the authorization server that needs client authentication.

use std::sync::Arc;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use url::Url;
use zeroize::Zeroizing;

use crate::client::credentials::ClientCredentials;
use crate::client::discovery::Metadata;
use crate::client::endpoint::Endpoint;
use crate::client::http::{HttpClient, check_media_type, exchange};
use crate::error::{SetupError, UnavailableError};

/// Its URL, the credentials, and the HTTP client.
#[derive(Debug, Clone)]
pub(crate) struct Protected {
    endpoint: Endpoint,
    uri: Uri,
    credentials: ClientCredentials,
    client: Arc<dyn HttpClient>,
}

impl Protected {
    /// The endpoint at this URL. Errors call it `what`.
    pub(crate) fn new(
        what: &'static str,
        endpoint: &str,
        credentials: ClientCredentials,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let endpoint = Endpoint::parse(what, endpoint)?;
        Self::at(what, endpoint, credentials, Arc::new(client))
    }

    /// The endpoint that the issuer's metadata (RFC 8414) names.
    pub(crate) async fn discover(
        what: &'static str,
        named: fn(&Metadata) -> Result<Endpoint, SetupError>,
        issuer: &str,
        credentials: ClientCredentials,
        client: impl HttpClient,
    ) -> Result<Self, SetupError> {
        let client: Arc<dyn HttpClient> = Arc::new(client);
        let endpoint = named(&Metadata::fetch(issuer, &*client).await?)?;
        Self::at(what, endpoint, credentials, client)
    }

    /// The endpoint that metadata names, which were fetched with this client.
    pub(crate) fn at(
        what: &'static str,
        endpoint: Endpoint,
        credentials: ClientCredentials,
        client: Arc<dyn HttpClient>,
    ) -> Result<Self, SetupError> {
        let uri = endpoint.uri(what)?;
        Ok(Self { endpoint, uri, credentials, client })
    }

    pub(crate) const fn uri(&self) -> &Uri {
        &self.uri
    }

    /// The JSON that the endpoint returns for the parameters that `query` adds to its URL.
    pub(crate) async fn get(
        &self,
        query: impl FnOnce(&mut Url),
    ) -> Result<Bytes, UnavailableError> {
        let mut url = self.endpoint.url().clone();
        query(&mut url);
        let mut request = Request::new(Bytes::new());
        *request.uri_mut() = url.as_str().parse().map_err(UnavailableError::other)?;
        json(&successful(self.exchange(request, "application/json").await?)?)
    }

    /// Sends a form to the endpoint, and returns the response if its status is 200 or 204.
    pub(crate) async fn post(
        &self,
        form: Zeroizing<String>,
        accept: &'static str,
    ) -> Result<Response<Bytes>, UnavailableError> {
        successful(self.exchange_form(form, accept).await?)
    }

    /// Sends a form to the endpoint, and returns the response, whatever its status.
    pub(crate) async fn exchange_form(
        &self,
        form: Zeroizing<String>,
        accept: &'static str,
    ) -> Result<Response<Bytes>, UnavailableError> {
        let mut request = Request::new(Bytes::from_owner(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        request.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        self.exchange(request, accept).await
    }

    async fn exchange(
        &self,
        mut request: Request<Bytes>,
        accept: &'static str,
    ) -> Result<Response<Bytes>, UnavailableError> {
        let headers = request.headers_mut();
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(header::AUTHORIZATION, self.credentials.basic()?);
        exchange(&*self.client, request).await
    }
}

fn successful(response: Response<Bytes>) -> Result<Response<Bytes>, UnavailableError> {
    match response.status() {
        StatusCode::OK | StatusCode::NO_CONTENT => Ok(response),
        // RFC 7662 §2.3: these are about the caller's own credentials, not about the token.
        status @ (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
            Err(UnavailableError::Credentials(status))
        }
        status => Err(UnavailableError::Status(status)),
    }
}

/// The public constructors of a type that is made from one such endpoint, by `From<Protected>`.
macro_rules! endpoint_constructors {
    ($type:ident, $what:literal, $named:path) => {
        impl $type {
            #[doc = concat!("Uses the `", $what, "` at this URL.")]
            ///
            /// # Errors
            ///
            /// [`SetupError::Url`](crate::SetupError::Url) if `endpoint` is not a URL, or uses plain
            /// `http` to another machine.
            pub fn new(
                endpoint: &str,
                credentials: $crate::ClientCredentials,
                client: impl $crate::HttpClient,
            ) -> Result<Self, $crate::SetupError> {
                $crate::client::protected::Protected::new($what, endpoint, credentials, client)
                    .map(Self::from)
            }

            #[doc = concat!("Uses the `", $what, "` that the issuer's metadata names (RFC 8414),")]
            /// with the built-in HTTP client. The metadata is fetched once, now.
            ///
            /// # Errors
            ///
            /// [`SetupError`](crate::SetupError) if the metadata cannot be fetched, belongs to
            #[doc = concat!("another issuer, or names no usable `", $what, "`.")]
            #[cfg(feature = "client")]
            pub async fn discover(
                issuer: &str,
                credentials: $crate::ClientCredentials,
            ) -> Result<Self, $crate::SetupError> {
                Self::discover_with(issuer, credentials, $crate::ReqwestClient::new()?).await
            }

            /// Like `discover`, with your own HTTP client.
            ///
            /// # Errors
            ///
            /// [`SetupError`](crate::SetupError) if the metadata cannot be fetched, belongs to
            #[doc = concat!("another issuer, or names no usable `", $what, "`.")]
            pub async fn discover_with(
                issuer: &str,
                credentials: $crate::ClientCredentials,
                client: impl $crate::HttpClient,
            ) -> Result<Self, $crate::SetupError> {
                let (what, named) = ($what, $named);
                $crate::client::protected::Protected::discover(
                    what,
                    named,
                    issuer,
                    credentials,
                    client,
                )
                .await
                .map(Self::from)
            }
        }
    };
}

pub(crate) use endpoint_constructors;

/// The body of a 200 that is JSON.
pub(crate) fn json(response: &Response<Bytes>) -> Result<Bytes, UnavailableError> {
    if response.status() != StatusCode::OK {
        return Err(UnavailableError::Status(response.status()));
    }
    check_media_type(response, "application/json", "it is not application/json")?;
    Ok(response.body().clone())
}
