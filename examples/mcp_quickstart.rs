//! A server of the Model Context Protocol behind a sign-in page.

use std::{error::Error, sync::Arc};

use axum::{
    Router,
    extract::State,
    http::request::Parts,
    response::Html,
    routing::{get, post},
};
use cloakroom::http::{Bytes, Endpoints, Form, Registration};
use cloakroom::resource::VerifiedToken;
use cloakroom::{
    AuthorizationError, AuthorizationErrorCode, AuthorizationRedirect, AuthorizationRequest,
    ClientBuilder, ClientDocuments, Format, Issuer, RegisteredClients, StaticClients,
};
use rmcp::handler::server::tool::Extension;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ServerHandler, tool, tool_handler, tool_router};

const URL: &str = "http://127.0.0.1:9300";

// --- The MCP server: one tool. ---

struct Greeter;

#[tool_router]
impl Greeter {
    #[tool(description = "Greet the user")]
    fn greet(&self, Extension(parts): Extension<Parts>) -> String {
        let token = parts.extensions.get::<VerifiedToken>();
        let user = token.and_then(|token| token.subject()).map_or("stranger", |user| user.id());
        format!("Hello, {user}!")
    }
}

#[tool_handler]
impl ServerHandler for Greeter {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

// --- The protection. ---

/// The MCP server behind bearer tokens, and the authorization server that issues them.
async fn protect(mcp: Router) -> Result<Router, Box<dyn Error>> {
    // The resource is the URL of the MCP endpoint: clients compare the two.
    let resource = format!("{URL}/mcp");
    // What a client may have, once a user lets it in.
    let audience = resource.clone();
    let may =
        move |client: ClientBuilder| client.scope("greet").audience(&audience, Format::Opaque);
    // Who may ask: clients that you know (none here), that register themselves, and that have a document.
    let (known, admit) = (StaticClients::default(), may.clone());
    let registered = Arc::new(RegisteredClients::new(known, move |client, _| Some(admit(client))));
    let clients = ClientDocuments::builder(registered.clone(), move |client, _| Some(may(client)));

    // The authorization server.
    let issuer = Issuer::dev().url(URL).clients(Arc::new(clients.build()?)).build().await?;
    let endpoints = Endpoints::new(issuer.clone())
        .authorization_page(&format!("{URL}/authorize"))
        .registration(Registration::new(registered));
    let page = Router::new()
        .route("/authorize", get(authorize).post(authorize))
        .route("/sign-in", post(sign_in))
        .with_state(issuer.clone());

    // The resource server.
    let bearer = issuer.protect(&resource);
    let metadata = bearer.resource_metadata()?.scopes("greet")?.name("Greeter");
    let bearer = bearer.announce(&metadata).require_scope("greet")?;
    // The metadata is a layer of the whole app, after the last `merge`.
    Ok(mcp.route_layer(bearer).merge(endpoints.router()).merge(page).layer(metadata))
}

/// The page to which a client sends its user.
async fn authorize(request: AuthorizationRequest) -> Result<Html<String>, AuthorizationError> {
    let escaped = |text: &str| text.replace('&', "&amp;").replace('<', "&lt;");
    let (client, host) = (escaped(request.client_name()), escaped(&request.redirect_host()));
    Ok(Html(format!(
        "<form method=post action=/sign-in><p>Let {client} at {host} use the greeter?
         <p><input name=user placeholder=User> <input name=password type=password placeholder=Password>
         <input name=request type=hidden value={}> <button>Allow</button></form>",
        request.seal()?
    )))
}

/// The user has sent the form.
async fn sign_in(
    State(issuer): State<Issuer>,
    body: Bytes,
) -> Result<AuthorizationRedirect, AuthorizationError> {
    let form = Form::parse(&body)?;
    let field = |name| form.get(name).unwrap_or_default();
    let request = issuer.open_authorization_request(field("request")).await?;
    match request.grant(field("user")) {
        // Yours: look the user up.
        Ok(grant) if field("password") == "open sesame" => Ok(request.approve(grant).await?),
        _ => Ok(request.error(AuthorizationErrorCode::AccessDenied).await?),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true);
    let service: StreamableHttpService<Greeter, LocalSessionManager> =
        StreamableHttpService::new(|| Ok(Greeter), Arc::default(), config);
    let app = protect(Router::new().route_service("/mcp", service)).await?;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:9300").await?;
    println!("{URL}/mcp");
    Ok(cloakroom::http::serve(listener, app).await?)
}
