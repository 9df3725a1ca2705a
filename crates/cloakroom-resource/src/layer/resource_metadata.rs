//! Protected resource metadata (RFC 9728): where a client learns which authorization server issues the
//! tokens of a resource.

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use cloakroom_core::{InvalidValue, Scope};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use serde_json::{Map, Value};
use tower_layer::Layer;
use tower_service::Service;

use crate::client::endpoint::Endpoint;
use crate::error::SetupError;
use crate::layer::response_future::ResponseFuture;
use crate::layer::service::take_ready;

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The metadata of a protected resource (RFC 9728), as a tower layer that serves it.
///
/// [`BearerLayer::resource_metadata`](crate::BearerLayer::resource_metadata) makes it from what the layer
/// knows, and [`BearerLayer::announce`](crate::BearerLayer::announce) names it in refusals. A client that
/// knows only the resource then finds its way to a token: from the first 401 to the metadata, to the
/// authorization server, to a token with the scope that the 401 names.
///
/// ```
/// use axum::{Router, routing::get};
/// # use cloakroom_resource::BearerLayer;
/// # async fn read() {}
///
/// fn app(bearer: BearerLayer) -> Result<Router, Box<dyn std::error::Error>> {
///     let metadata = bearer.resource_metadata()?.scopes("notes:read notes:write")?.name("Notes");
///     let reading = bearer.announce(&metadata).require_scope("notes:read")?;
///     Ok(Router::new().route("/notes", get(read)).route_layer(reading).layer(metadata))
/// }
/// ```
///
/// With axum, add it to the whole app, after the last `merge`: a router that is merged later brings a
/// fallback of its own, which would answer instead.
///
/// # Where it is
///
/// | the resource | its metadata |
/// |---|---|
/// | `https://api.example` | `https://api.example/.well-known/oauth-protected-resource` |
/// | `https://api.example/notes` | `https://api.example/.well-known/oauth-protected-resource/notes` |
///
/// The layer answers GET and HEAD at both paths; the second row's document is at the first row's path,
/// too, since some clients look only there. If a host has several resources, serve the first path for one
/// of them ([`only_at_its_path`](Self::only_at_its_path) for the others). All other requests go on to the
/// service inside. Scripts of every origin may read the document (CORS).
#[derive(Debug, Clone)]
pub struct ResourceMetadata {
    url: Arc<str>,
    /// Below the host, with the query.
    path: Arc<str>,
    at_root: bool,
    members: Arc<Map<String, Value>>,
}

impl ResourceMetadata {
    /// The metadata of a resource whose tokens this issuer issues.
    ///
    /// # Errors
    ///
    /// [`SetupError::Url`] if the resource is not an `https` URL (or `http` on this machine), or has a
    /// fragment (RFC 9728 §1.2).
    pub fn new(resource: &str, issuer: &str) -> Result<Self, SetupError> {
        let endpoint = Endpoint::parse("resource", resource)?;
        let mut url = endpoint.url().clone();
        // RFC 9728 §3.1: "If the resource identifier value contains a path or query component, any
        // terminating slash (/) following the host component MUST be removed before inserting
        // /.well-known/ and the well-known URI path suffix between the host component and the path
        // and/or query components."
        let own = if url.path() == "/" { "" } else { url.path() };
        url.set_path(&format!("{WELL_KNOWN}{own}"));
        let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
        let path = format!("{}{query}", url.path()).into();
        let members = [
            ("resource", Value::from(resource)),
            ("authorization_servers", vec![issuer].into()),
            ("bearer_methods_supported", vec!["header"].into()),
        ];
        let members = members.map(|(name, value)| (name.to_owned(), value));
        Ok(Self {
            url: url.as_str().into(),
            path,
            at_root: true,
            members: Arc::new(members.into_iter().collect()),
        })
    }

    /// Names another authorization server whose tokens the resource accepts.
    #[must_use]
    pub fn authorization_server(mut self, issuer: &str) -> Self {
        if let Some(Value::Array(all)) =
            Arc::make_mut(&mut self.members).get_mut("authorization_servers")
            && !all.iter().any(|known| known == issuer)
        {
            all.push(issuer.into());
        }
        self
    }

    /// The scope values that the resource knows (`scopes_supported`), separated by spaces. Clients request
    /// all of them if a 401 names none, so list only what an ordinary client needs at first.
    ///
    /// # Errors
    ///
    /// [`InvalidValue`] if the value is not a valid scope (RFC 6749 §3.3).
    pub fn scopes(self, scopes: &str) -> Result<Self, InvalidValue> {
        let scopes = Scope::parse(scopes)?;
        let all: Vec<&str> = scopes.iter().collect();
        Ok(self.member("scopes_supported", all.into()))
    }

    /// The name of the resource for people (`resource_name`).
    #[must_use]
    pub fn name(self, name: &str) -> Self {
        self.member("resource_name", name.into())
    }

    /// Sets a member, such as `resource_documentation` (RFC 9728 §2). A member that is `null` is left out.
    /// `resource` cannot be changed: clients compare it with the resource that they know.
    #[must_use]
    pub fn member(mut self, name: &str, value: Value) -> Self {
        let members = Arc::make_mut(&mut self.members);
        match value {
            _ if name == "resource" => {}
            Value::Null => drop(members.remove(name)),
            value => drop(members.insert(name.into(), value)),
        }
        self
    }

    /// Serves the document at the path of the resource only, and not at
    /// `/.well-known/oauth-protected-resource` as well: another resource of this host is there.
    #[must_use]
    pub const fn only_at_its_path(mut self) -> Self {
        self.at_root = false;
        self
    }

    /// The URL of the document.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The document, as JSON.
    #[must_use]
    pub fn document(&self) -> Value {
        Value::Object(Map::clone(&self.members))
    }
}

impl<S> Layer<S> for ResourceMetadata {
    type Service = ResourceMetadataService<S>;

    fn layer(&self, inner: S) -> ResourceMetadataService<S> {
        ResourceMetadataService {
            inner,
            path: Arc::clone(&self.path),
            at_root: self.at_root,
            body: self.document().to_string().into(),
        }
    }
}

/// The service that [`ResourceMetadata`] makes.
#[derive(Debug, Clone)]
pub struct ResourceMetadataService<S> {
    inner: S,
    path: Arc<str>,
    at_root: bool,
    body: Bytes,
}

impl<S> ResourceMetadataService<S> {
    /// The answer to a request for the document.
    fn answer<B, R: From<Bytes>>(&self, request: &Request<B>) -> Option<Response<R>> {
        let uri = request.uri();
        if !uri.path().starts_with(WELL_KNOWN) {
            return None;
        }
        let asked = uri.path_and_query().map_or(uri.path(), |asked| asked.as_str());
        if *asked != *self.path && !(self.at_root && uri.path() == WELL_KNOWN) {
            return None;
        }
        let fixed = HeaderValue::from_static;
        let (status, body, fields) = match *request.method() {
            Method::GET | Method::HEAD => {
                let body =
                    if request.method() == Method::GET { self.body.clone() } else { Bytes::new() };
                let fields = [
                    (header::CONTENT_TYPE, fixed("application/json")),
                    (header::CACHE_CONTROL, fixed("public, max-age=3600")),
                    (header::CONTENT_LENGTH, self.body.len().into()),
                ];
                (StatusCode::OK, body, fields)
            }
            // The document is public, and no cookie or token plays a part.
            Method::OPTIONS => {
                let fields = [
                    (header::ACCESS_CONTROL_ALLOW_METHODS, fixed("GET, HEAD")),
                    (header::ACCESS_CONTROL_ALLOW_HEADERS, fixed("*")),
                    (header::ACCESS_CONTROL_MAX_AGE, fixed("600")),
                ];
                (StatusCode::NO_CONTENT, Bytes::new(), fields)
            }
            _ => {
                let fields = [
                    (header::ALLOW, fixed("GET, HEAD")),
                    (header::CACHE_CONTROL, fixed("no-store")),
                    (header::CONTENT_LENGTH, fixed("0")),
                ];
                (StatusCode::METHOD_NOT_ALLOWED, Bytes::new(), fields)
            }
        };
        let mut response = Response::new(R::from(body));
        *response.status_mut() = status;
        response.headers_mut().extend(fields);
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, fixed("*"));
        Some(response)
    }
}

impl<S, B, R> Service<Request<B>> for ResourceMetadataService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone,
    R: From<Bytes> + Send + 'static,
    S::Error: Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = ResponseFuture<S::Future, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match self.answer(&request) {
            Some(response) => {
                drop(take_ready(&mut self.inner));
                ResponseFuture::waiting(std::future::ready(Ok(response)))
            }
            None => ResponseFuture::inner(self.inner.call(request)),
        }
    }
}
