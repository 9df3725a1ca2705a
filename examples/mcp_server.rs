//! A server of the Model Context Protocol (MCP) that is protected, with its authorization server in the same
//! process. Any MCP client that can open a browser signs in by itself; nobody has to register it first.
//!
//! ```text
//! cargo run -p cloakroom-examples --features mcp --example mcp_server
//! npx @modelcontextprotocol/inspector   # then connect to http://127.0.0.1:9300/mcp
//! ```
//!
//! `docs/mcp.md` explains it step by step. A package of your own needs:
//!
//! ```toml
//! [dependencies]
//! axum = "0.8"
//! cloakroom = { path = "../cloakroom/crates/cloakroom", features = ["client-documents", "resource"] }
//! rmcp = { version = "3.11", features = ["transport-streamable-http-server"] }
//! serde = { version = "1", features = ["derive"] }
//! serde_json = "1"
//! tokio = { version = "1", features = ["macros", "net", "rt-multi-thread"] }
//! ```

use std::error::Error;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use clap::Parser;
use cloakroom::http::{Endpoints, Registration};
use cloakroom::resource::{BearerLayer, Scope, VerifiedToken};
use cloakroom::{
    Client, ClientBuilder, ClientDocuments, Format, GrantType, Issuer, RegisteredClients,
    StaticClients,
};
use rmcp::handler::server::tool::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{ServerCapabilities, ServerConfig};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use rmcp::{ErrorData, ServerHandler, schemars, tool, tool_handler, tool_router};
use tokio::net::TcpListener;

mod sign_in;

/// An MCP server with notes.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen.
    #[arg(long, default_value = "127.0.0.1:9300")]
    listen: String,
    /// For tests: fetch client metadata documents from this machine, too, and trust this certificate.
    #[arg(long)]
    danger_test_certificate: Option<std::path::PathBuf>,
}

// --- The protection: from here to the next line like this ---------------------------------------

/// The MCP server behind bearer tokens, and the authorization server that issues them, at this URL.
async fn protect(mcp: Router, url: &str, args: &Args) -> Result<Router, Box<dyn Error>> {
    let resource = format!("{url}/mcp");

    // What every client may have that a user lets in.
    let audience = resource.clone();
    let notes = move |client: ClientBuilder| {
        client.scope("notes:read notes:write").audience(&audience, Format::Opaque)
    };

    // Clients that you know; clients that register themselves; clients with a metadata document.
    let known = Client::public("notes-cli")
        .grant_types([GrantType::AuthorizationCode, GrantType::RefreshToken])
        .redirect_uri("http://127.0.0.1/callback");
    let known = StaticClients::new([notes(known)])?;
    let admit = notes.clone();
    let registered = RegisteredClients::new(known, move |client, _| Some(admit(client)));
    let registered = Arc::new(registered);
    let mut clients =
        ClientDocuments::builder(registered.clone(), move |client, _| Some(notes(client)));
    if let Some(path) = &args.danger_test_certificate {
        clients = clients.root_certificate(std::fs::read(path)?).danger_allow_loopback();
    }

    // A real server has a store, secrets and `run_maintenance`: see `authorization_server.rs`.
    let issuer = Issuer::dev().url(url).clients(Arc::new(clients.build()?)).build().await?;
    let endpoints = Endpoints::new(issuer.clone())
        .authorization_page(&format!("{url}/authorize"))
        .registration(Registration::new(registered));

    // The resource: its metadata, and a 401 or 403 that leads there.
    let bearer = issuer.protect(&resource);
    let metadata = bearer.resource_metadata()?.scopes("notes:read")?.name("Notes");
    let bearer = bearer.announce(&metadata).require_scope("notes:read")?;
    let mcp = mcp.route_layer(from_fn_with_state(bearer.clone(), step_up)).route_layer(bearer);
    Ok(mcp.merge(endpoints.router()).merge(sign_in::router("", issuer)).layer(metadata))
}

/// Asks for `notes:write` where a call needs it, so that the client gets it and tries again. The tool
/// checks the scope as well.
async fn step_up(
    State(bearer): State<BearerLayer>,
    token: VerifiedToken,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, 1 << 20).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let call: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
    if call["params"]["name"] == "add_note" && !token.has_scope(WRITE) {
        return bearer.insufficient_scope(&token, &Scope::parse(WRITE).unwrap_or_default());
    }
    next.run(Request::from_parts(parts, body.into())).await
}

const WRITE: &str = "notes:write";

// --- The MCP server: nothing below is about protection, except whose notes they are ---------------

/// The notes of everybody.
#[derive(Debug, Clone, Default)]
struct Notes(Arc<Mutex<Vec<(String, String)>>>);

#[derive(Debug, serde::Deserialize, schemars::JsonSchema)]
struct NewNote {
    text: String,
}

fn token(parts: &Parts) -> Result<&VerifiedToken, ErrorData> {
    let token = parts.extensions.get::<VerifiedToken>();
    token.ok_or_else(|| ErrorData::internal_error("there is no token", None))
}

fn user(parts: &Parts) -> Result<String, ErrorData> {
    let subject = token(parts)?.subject();
    let user = subject.map(|subject| subject.id().to_owned());
    user.ok_or_else(|| ErrorData::invalid_request("the token has no user", None))
}

#[tool_router]
impl Notes {
    #[tool(description = "List your notes")]
    fn list_notes(&self, Extension(parts): Extension<Parts>) -> Result<String, ErrorData> {
        let (user, all) = (user(&parts)?, self.0.lock().map_err(|_| broken())?);
        let own = all.iter().filter(|(owner, _)| *owner == user).map(|(_, text)| text.as_str());
        Ok(own.collect::<Vec<_>>().join("\n"))
    }

    #[tool(description = "Add a note")]
    fn add_note(
        &self,
        Parameters(NewNote { text }): Parameters<NewNote>,
        Extension(parts): Extension<Parts>,
    ) -> Result<String, ErrorData> {
        if !token(&parts)?.has_scope(WRITE) {
            return Err(ErrorData::invalid_request("this needs notes:write", None));
        }
        self.0.lock().map_err(|_| broken())?.push((user(&parts)?, text));
        Ok("added".to_owned())
    }
}

fn broken() -> ErrorData {
    ErrorData::internal_error("the notes cannot be read", None)
}

#[tool_handler]
impl ServerHandler for Notes {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let args = Args::parse();
    let listener = TcpListener::bind(&args.listen).await?;
    let address = listener.local_addr()?;
    let notes = Notes::default();
    let service: StreamableHttpService<Notes, LocalSessionManager> = StreamableHttpService::new(
        move || Ok(notes.clone()),
        Arc::default(),
        StreamableHttpServerConfig::default()
            .with_legacy_session_mode(false)
            .with_json_response(true),
    );
    let mcp = Router::new().route_service("/mcp", service);
    let app = protect(mcp, &format!("http://{address}"), &args).await?;
    eprintln!("*** DEMO: it signs in `alice` without asking. Not for the open network.");
    println!("ready http://{address}/mcp");
    cloakroom::http::serve(listener, app).await?;
    Ok(())
}
