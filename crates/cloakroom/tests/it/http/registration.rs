//! Clients that register themselves (RFC 7591), and manage their registration (RFC 7592).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom::http::{Registration, RegistrationRefusal};
use cloakroom::jwt::Algorithm;
use cloakroom::{
    ApprovedRequest, Client, ClientBuilder, ClientId, Format, Grant, GrantType, Pkce,
    RegisteredClient, RegisteredClients, SecretHash, StaticClients,
};
use http::Request;
use serde_json::{Value, json};

use super::request::{Reply, With, get, post};
use super::server::{CHALLENGE, ISSUER, Server, VERIFIER};

const NOTES: &str = "https://notes.example/mcp";
pub(super) const CALLBACK: &str = "http://127.0.0.1/callback";
const INITIAL: &str = "an-initial-access-token-0123456789";
const METADATA: &str = "/.well-known/oauth-authorization-server";

fn admits(client: ClientBuilder, _: &RegisteredClient) -> Option<ClientBuilder> {
    Some(client.scope("notes:read notes:write").audience(NOTES, Format::Opaque))
}

/// A server whose clients register, with these settings of the registry and of the endpoint.
pub(super) async fn server_with(
    registry: impl FnOnce(RegisteredClients) -> RegisteredClients,
    registration: impl FnOnce(Registration) -> Registration,
) -> (Server, Arc<RegisteredClients>) {
    let first = Client::public("first-party").audience(NOTES, Format::Opaque);
    let known = StaticClients::new([first]).unwrap();
    let clients = Arc::new(registry(RegisteredClients::new(known, admits)));
    let directory = clients.clone();
    let server = Server::with(|issuer| issuer.clients(directory)).await;
    let registration = registration(Registration::new(clients.clone()));
    (server.mounted(|endpoints| endpoints.registration(registration)), clients)
}

async fn server() -> (Server, Arc<RegisteredClients>) {
    server_with(|registry| registry, |registration| registration).await
}

pub(super) fn ask(
    method: &str,
    uri: &str,
    metadata: &Value,
    token: Option<&str>,
) -> Request<Bytes> {
    let request = Request::builder().method(method).uri(uri);
    let request = request.header("content-type", "application/json");
    let request = token
        .into_iter()
        .fold(request, |request, token| request.header("authorization", format!("Bearer {token}")));
    request.body(metadata.to_string().into()).unwrap()
}

pub(super) fn registering(metadata: &Value) -> Request<Bytes> {
    ask("POST", "/register", metadata, None)
}

pub(super) fn public() -> Value {
    json!({
        "client_name": "Agent",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "token_endpoint_auth_method": "none",
    })
}

fn changed(name: &str, value: Value) -> Value {
    let mut metadata = public();
    metadata[name] = value;
    metadata
}

/// What a client is told, once it has registered.
pub(super) async fn registered(server: &Server, metadata: &Value) -> Value {
    let reply = server.send(registering(metadata)).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.header("cache-control"), "no-store");
    reply.json()
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

/// The path and query of the registration.
pub(super) fn manages(client: &Value) -> String {
    text(client, "registration_client_uri").strip_prefix(ISSUER).unwrap().to_owned()
}

#[track_caller]
fn assert_refused(reply: &Reply, status: u16, error: &str) {
    assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(error)), "{reply:?}");
}

/// Alice lets this client act for her; the tokens it then gets.
pub(super) async fn tokens(server: &Server, client: &Value) -> Value {
    let id = text(client, "client_id");
    let grant = Grant::user(id, "alice").unwrap();
    let request = ApprovedRequest::new(grant, "http://127.0.0.1:4000/callback");
    let request = request.pkce(Some(Pkce::s256(CHALLENGE).unwrap()));
    let code = server.issuer().authorize(request).await.unwrap();
    let mut form = vec![
        ("grant_type", "authorization_code"),
        ("code", code.expose()),
        ("code_verifier", VERIFIER),
        ("client_id", id),
    ];
    if let Some(secret) = client["client_secret"].as_str() {
        form.push(("client_secret", secret));
    }
    server.send(post("/token", &form)).await.ok().json()
}

#[tokio::test]
async fn registration_is_off_by_default() {
    let server = Server::new().await;
    assert_eq!(server.send(registering(&public())).await.status, 404);
    for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"] {
        let reply = server.send(ask(method, "/register", &public(), None)).await;
        assert_eq!(reply.status, 404, "{method}");
    }
    let metadata = server.send(get(METADATA)).await.json();
    assert!(metadata.get("registration_endpoint").is_none());
    assert!(metadata.get("client_id_metadata_document_supported").is_none());
}

#[tokio::test]
async fn a_public_client_registers_and_gets_tokens() {
    let (server, _) = server().await;
    let metadata = server.send(get(METADATA)).await.json();
    assert_eq!(metadata["registration_endpoint"], format!("{ISSUER}/register"));

    let mut client = registered(&server, &changed("unknown_member", json!([1]))).await;
    let id = text(&client, "client_id").to_owned();
    let tokens = tokens(&server, &client).await;
    assert_eq!(tokens["scope"], "notes:read notes:write");
    assert!(tokens["refresh_token"].is_string());

    // It is told what it may do, and nothing that it made up.
    for secret in ["registration_access_token", "client_id"] {
        client.as_object_mut().unwrap().remove(secret).unwrap();
    }
    let expected = json!({
        "client_name": "Agent",
        "redirect_uris": [CALLBACK],
        "grant_types": ["authorization_code", "refresh_token"],
        "response_types": ["code"],
        "token_endpoint_auth_method": "none",
        "scope": "notes:read notes:write",
        "client_id_issued_at": 1_760_000_000,
        "registration_client_uri": format!("{ISSUER}/register?client_id={id}"),
    });
    assert_eq!(client, expected);
}

#[tokio::test]
async fn a_confidential_client_gets_a_secret_that_only_it_knows() {
    let (server, clients) = server().await;
    for method in [Value::Null, json!("client_secret_basic"), json!("client_secret_post")] {
        let client = registered(&server, &changed("token_endpoint_auth_method", method)).await;
        let (id, secret) = (text(&client, "client_id"), text(&client, "client_secret"));
        assert_eq!((secret.len(), &client["client_secret_expires_at"]), (43, &json!(0)));
        assert!(tokens(&server, &client).await["access_token"].is_string());
        let wrong = post("/token", &[("grant_type", "refresh_token"), ("refresh_token", "x")]);
        assert_refused(&server.send(wrong.basic(id, "wrong")).await, 401, "invalid_client");

        let kept = clients.registration(&ClientId::new(id).unwrap()).await.unwrap().unwrap();
        let stored = serde_json::to_string(&kept).unwrap();
        let access = text(&client, "registration_access_token");
        assert!(!stored.contains(secret) && !stored.contains(access), "{stored}");
        // As a database would give it back.
        let read: RegisteredClient = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, kept);
        let client = read.builder().audience(NOTES, Format::Opaque).build().unwrap();
        assert!(client.has_secret(secret));
    }
}

#[tokio::test]
async fn what_cannot_be_registered_is_refused() {
    let (server, _) = server().await;
    for (metadata, error) in [
        (json!([]), "invalid_client_metadata"),
        (
            changed("token_endpoint_auth_method", json!("tls_client_auth")),
            "invalid_client_metadata",
        ),
        (changed("redirect_uris", json!([])), "invalid_redirect_uri"),
        (changed("redirect_uris", json!(["http://app.example/cb"])), "invalid_redirect_uri"),
        (changed("redirect_uris", json!(["javascript:alert(1)"])), "invalid_redirect_uri"),
        (changed("redirect_uris", json!(["https://a.example/#x"])), "invalid_redirect_uri"),
        (changed("redirect_uris", json!(vec![CALLBACK; 17])), "invalid_redirect_uri"),
        (changed("redirect_uris", json!(CALLBACK)), "invalid_client_metadata"),
        (changed("redirect_uris", json!([1])), "invalid_client_metadata"),
        (changed("grant_types", json!(["client_credentials"])), "invalid_client_metadata"),
        (changed("response_types", json!(["token"])), "invalid_client_metadata"),
        (changed("client_name", json!(5)), "invalid_client_metadata"),
        (
            changed("token_endpoint_auth_method", json!("private_key_jwt")),
            "invalid_client_metadata",
        ),
        (changed("client_name", json!("x".repeat(9_000))), "invalid_client_metadata"),
    ] {
        assert_refused(&server.send(registering(&metadata)).await, 400, error);
    }
    for (uris, why) in [
        (json!([]), "it has no redirect_uris"),
        (json!(vec![CALLBACK; 17]), "it has too many redirect_uris"),
    ] {
        let reply = server.send(registering(&changed("redirect_uris", uris))).await;
        assert_eq!(reply.member("error_description"), why);
    }
    for (content_type, body) in [
        ("application/x-www-form-urlencoded", public().to_string()),
        ("text/plain", public().to_string()),
        ("application/json", "{\"redirect_uris\":".to_owned()),
        (
            "application/json",
            r#"{"redirect_uris":[],"redirect_uris":["http://127.0.0.1/"]}"#.into(),
        ),
    ] {
        let request = Request::post("/register").header("content-type", content_type);
        let reply = server.send(request.body(body.into()).unwrap()).await;
        assert_refused(&reply, 400, "invalid_client_metadata");
    }
}

#[tokio::test]
async fn only_who_has_an_initial_access_token_registers() {
    let token = SecretHash::of(INITIAL).unwrap();
    let (server, _) =
        server_with(|registry| registry, |endpoint| endpoint.initial_access_token(token)).await;
    let other = format!("{INITIAL}0");
    for bad in [None, Some(""), Some("x"), Some(&*other)] {
        let reply = server.send(ask("POST", "/register", &public(), bad)).await;
        assert_refused(&reply, 401, "invalid_token");
        assert_eq!(reply.header("www-authenticate"), "Bearer error=\"invalid_token\"");
    }
    let reply = server.send(ask("POST", "/register", &public(), Some(INITIAL))).await;
    assert_eq!(reply.status, 201);
}

#[tokio::test]
async fn the_app_decides_who_registers() {
    #[derive(Clone)]
    struct Peer(u8);

    let policy = |asked: &cloakroom::http::RegistrationRequest<'_>| {
        if asked.client.member("client_name") == Some(&json!("Admin")) {
            return Err(RegistrationRefusal::Metadata("this name is taken"));
        }
        match asked.extensions.get::<Peer>() {
            Some(Peer(1)) => Ok(()),
            Some(_) => Err(RegistrationRefusal::TooMany(Duration::from_millis(1_500))),
            None => Err(RegistrationRefusal::Unauthorized),
        }
    };
    let (server, _) = server_with(|registry| registry, |endpoint| endpoint.policy(policy)).await;
    let from = |peer: u8, metadata: &Value| {
        let mut request = registering(metadata);
        request.extensions_mut().insert(Peer(peer));
        request
    };
    assert_eq!(server.send(from(1, &public())).await.status, 201);
    assert_eq!(server.send(registering(&public())).await.status, 401);
    let reply = server.send(from(2, &public())).await;
    assert_eq!((reply.status, reply.header("retry-after")), (429, "2"));
    let reply = server.send(from(1, &changed("client_name", json!("Admin")))).await;
    assert_eq!(reply.json()["error_description"], "this name is taken");
}

#[tokio::test]
async fn a_client_that_registers_in_a_loop_is_stopped() {
    let (server, clients) = server().await;
    for _ in 0..30 {
        registered(&server, &public()).await;
    }
    for _ in 0..100 {
        let reply = server.send(registering(&public())).await;
        assert_eq!((reply.status, reply.header("retry-after")), (429, "2"));
    }
    // What is refused takes nothing, and costs nobody's turn.
    server.clock.advance(Duration::from_secs(2));
    let bad = changed("redirect_uris", json!([]));
    assert_eq!(server.send(registering(&bad)).await.status, 400);
    registered(&server, &public()).await;
    assert_eq!(server.send(registering(&public())).await.status, 429);
    assert!(format!("{clients:?}").contains("clients: 31"), "{clients:?}");
    server.clock.advance(Duration::from_secs(60));
    for _ in 0..30 {
        registered(&server, &public()).await;
    }
}

#[tokio::test]
async fn a_client_that_the_app_does_not_admit_is_not_kept() {
    let known = StaticClients::new([Client::public("admin")]).unwrap();
    let clients = Arc::new(RegisteredClients::new(known, |client, registered| {
        match registered.member("client_name").and_then(Value::as_str) {
            // The app makes it somebody else, by mistake.
            Some("Other") => Some(Client::public("admin")),
            // It contradicts itself.
            Some("Odd") => Some(client.grant_types([GrantType::ClientCredentials])),
            Some("Banned") => None,
            _ => Some(client.audience(NOTES, Format::Opaque)),
        }
    }));
    let directory = clients.clone();
    let server = Server::with(|issuer| issuer.clients(directory)).await;
    let registration = Registration::new(clients.clone());
    let server = server.mounted(|endpoints| endpoints.registration(registration));
    for name in ["Other", "Odd", "Banned"] {
        let reply = server.send(registering(&changed("client_name", json!(name)))).await;
        assert_refused(&reply, 400, "invalid_client_metadata");
    }
    assert!(format!("{clients:?}").contains("clients: 0"));
    registered(&server, &public()).await;
}

#[tokio::test]
async fn a_client_reads_changes_and_deletes_its_registration() {
    let (server, _) = server().await;
    let client = registered(&server, &public()).await;
    let (id, access) = (text(&client, "client_id"), text(&client, "registration_access_token"));
    let at = manages(&client);
    let read = server.send(ask("GET", &at, &Value::Null, Some(access))).await.ok().json();
    assert_eq!(read, client);

    // It becomes confidential, with another callback.
    let mut confidential = changed("token_endpoint_auth_method", json!("client_secret_post"));
    confidential["client_id"] = id.into();
    confidential["redirect_uris"] = json!(["http://127.0.0.1/callback", "https://app.example/cb"]);
    let changed = server.send(ask("PUT", &at, &confidential, Some(access))).await.ok().json();
    assert_eq!(changed["redirect_uris"], confidential["redirect_uris"]);
    assert_eq!(text(&changed, "client_secret").len(), 43);
    let tokens = tokens(&server, &changed).await;
    // Its secret stays as it is, and is not shown again.
    let again = server.send(ask("PUT", &at, &confidential, Some(access))).await.ok().json();
    assert!(again.get("client_secret").is_none());
    let refresh = [
        ("grant_type", "refresh_token"),
        ("refresh_token", text(&tokens, "refresh_token")),
        ("client_id", id),
        ("client_secret", text(&changed, "client_secret")),
    ];
    let tokens = server.send(post("/token", &refresh)).await.ok().json();

    let deleted = server.send(ask("DELETE", &at, &Value::Null, Some(access))).await;
    assert_eq!((deleted.status, deleted.text()), (204, ""));
    for method in ["GET", "DELETE"] {
        let reply = server.send(ask(method, &at, &Value::Null, Some(access))).await;
        assert_refused(&reply, 401, "invalid_token");
    }
    assert_refused(&server.send(post("/token", &refresh)).await, 401, "invalid_client");
    let access = cloakroom::TokenSecret::new(text(&tokens, "access_token"));
    let answer = server.issuer().introspect(&access, cloakroom::Caller::Internal).await.unwrap();
    assert!(!answer.is_active(), "what it was granted is revoked");
}

#[tokio::test]
async fn a_client_that_becomes_public_has_no_secret_any_more() {
    let (server, _) = server().await;
    let confidential = changed("token_endpoint_auth_method", json!("client_secret_post"));
    let client = registered(&server, &confidential).await;
    tokens(&server, &client).await;
    let mut public = public();
    public["client_id"] = client["client_id"].clone();
    let access = text(&client, "registration_access_token");
    let request = ask("PUT", &manages(&client), &public, Some(access));
    let changed = server.send(request).await.ok().json();
    assert!(changed.get("client_secret").is_none());
    tokens(&server, &changed).await;
    let old = [
        ("grant_type", "refresh_token"),
        ("refresh_token", "x"),
        ("client_id", text(&client, "client_id")),
        ("client_secret", text(&client, "client_secret")),
    ];
    assert_refused(&server.send(post("/token", &old)).await, 401, "invalid_client");
}

#[tokio::test]
async fn what_is_kept_is_what_the_client_said_within_a_bound() {
    let (server, _) = server().await;
    let mut metadata = changed("software_id", json!("agent-7"));
    metadata["tos_uri"] = Value::Null;
    let client = registered(&server, &metadata).await;
    assert_eq!((&client["software_id"], client.get("tos_uri")), (&json!("agent-7"), None));
    let empty = changed("x", json!("")).to_string().len();
    for (bytes, status) in [(8 * 1024, 201), (8 * 1024 + 1, 400)] {
        let metadata = changed("x", json!("x".repeat(bytes - empty)));
        assert_eq!(metadata.to_string().len(), bytes);
        assert_eq!(server.send(registering(&metadata)).await.status, status, "{bytes}");
    }
}

#[tokio::test]
async fn nobody_manages_the_registration_of_another() {
    let (server, clients) = server().await;
    let (one, two) = (registered(&server, &public()).await, registered(&server, &public()).await);
    let own = text(&one, "registration_access_token");
    let unknown = "/register?client_id=dyn-unknown".to_owned();
    let first_party = "/register?client_id=first-party".to_owned();
    for (at, token) in [
        (manages(&two), Some(own)),
        (manages(&one), None),
        (manages(&one), Some("")),
        (manages(&one), Some(INITIAL)),
        (unknown, Some(own)),
        (first_party, Some(own)),
        ("/register".into(), Some(own)),
        ("/register?client_id=".into(), Some(own)),
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let reply = server.send(ask(method, &at, &public(), token)).await;
            assert_refused(&reply, 401, "invalid_token");
        }
    }
    // Nor can it become another.
    let mut other = public();
    for id in [json!(null), two["client_id"].clone(), json!("first-party")] {
        other["client_id"] = id;
        let reply = server.send(ask("PUT", &manages(&one), &other, Some(own))).await;
        assert_refused(&reply, 400, "invalid_client_metadata");
    }
    assert!(format!("{clients:?}").contains("clients: 2"));
}

/// A client whose JWTs could not be signed is refused when it registers, not when it asks for a token.
#[tokio::test]
async fn a_client_whose_algorithm_has_no_keys_is_not_registered() {
    for (algorithm, status) in [(Algorithm::EdDsa, 400), (Algorithm::Rs256, 201)] {
        let registry = RegisteredClients::new(StaticClients::default(), move |client, _| {
            Some(client.audience(NOTES, Format::Jwt).jwt_algorithm(algorithm))
        });
        let clients = Arc::new(registry);
        let directory = clients.clone();
        let server =
            Server::with(|issuer| issuer.clients(directory).further_algorithm(Algorithm::Rs256))
                .await;
        let server = server.mounted(|endpoints| endpoints.registration(Registration::new(clients)));
        let reply = server.send(registering(&public())).await;
        assert_eq!(reply.status, status, "{algorithm}");
        if status == 400 {
            assert_eq!(reply.json()["error"], "invalid_client_metadata");
        }
    }
}
