//! Junk costs the authorization server nothing.

use std::sync::Mutex;

use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use clap::Parser as _;
use cloakroom::http::Endpoints;
use cloakroom::{Audience, Client, Format, Grant, GrantType, Issuer, Role, Serves};
use tokio::net::TcpListener;

use super::*;
use crate::Settings;

const ORDERS: &str = "https://orders.example";
const SECRET: &str = "gateway-test-secret-0123456789";

/// A real authorization server, and the paths that it was asked for.
async fn authorization_server() -> (Issuer, Arc<Mutex<Vec<String>>>) {
    let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gateway =
        Client::resource_server("gateway", SECRET, Serves::Only(Audience::one(ORDERS).unwrap()))
            .role(Role::RevocationLog)
            .role(Role::HandleKeys);
    let app = Client::public("web-app")
        .grant_types([GrantType::RefreshToken])
        .scope("orders:read")
        .audience(ORDERS, Format::Phantom);
    let issuer = Issuer::dev()
        .url(format!("http://{}", socket.local_addr().unwrap()))
        .static_clients([app, gateway])
        .unwrap()
        .build()
        .await
        .unwrap();
    let maintained = issuer.clone();
    tokio::spawn(async move { maintained.run_maintenance().await });
    let asked = Arc::new(Mutex::new(Vec::new()));
    let paths = Arc::clone(&asked);
    let count = from_fn(move |request: Request, next: Next| {
        paths.lock().unwrap().push(request.uri().path().to_owned());
        next.run(request)
    });
    let router: Router = Endpoints::new(issuer.clone()).router().layer(count);
    tokio::spawn(async move { axum::serve(socket, router).await });
    (issuer, asked)
}

fn count(asked: &Mutex<Vec<String>>, path: &str) -> usize {
    asked.lock().unwrap().iter().filter(|asked| *asked == path).count()
}

#[tokio::test]
async fn two_thousand_made_up_tokens_ask_nothing() {
    let (issuer, asked) = authorization_server().await;
    let settings = Settings::parse_from([
        "gateway",
        "--issuer",
        issuer.url(),
        "--audience",
        ORDERS,
        "--service",
        "http://orders.internal:9100",
    ]);
    let phantom = settings.phantom(SECRET.to_owned()).await.unwrap();
    let mut world = World::of(Rules::default(), Service::Up, phantom, Arc::default());

    let grant = Grant::user("web-app", "alice").unwrap().scope("orders:read").unwrap();
    let token = issuer.issue(grant).await.unwrap().access_token;
    let good = token.expose();
    let mut client = world.client();
    client.send(&request("GET /", &[]).replace(HANDLE, good)).await;
    let mut service = world.service().await;
    let seen = service.head().await;
    assert!(seen.all("authorization")[0].starts_with("Bearer eyJ"), "{seen:?}");
    service.answer("").await;
    assert_eq!(client.head().await.status(), 200);
    assert_eq!((count(&asked, "/introspect"), count(&asked, "/handle-keys")), (1, 1));

    let (head, tail) = good.split_at(good.len() - 12);
    let mut client = world.client();
    for number in 0..2000 {
        let junk = match number % 4 {
            0 => format!("{head}{number:012}"),
            1 => format!("cr_at_{number}"),
            2 => format!("{}{number:04}{tail}", &head[..head.len() - 4]),
            _ => format!("some-other-token-{number}"),
        };
        client.send(&request("GET /", &[]).replace(HANDLE, &junk)).await;
        let head = client.head().await;
        assert!(matches!(head.status(), 401 | 503), "{junk}: {head:?}");
    }
    assert_eq!(count(&asked, "/introspect"), 1);
    assert!(count(&asked, "/handle-keys") <= 3, "they are fetched once in ten seconds");
    assert_eq!(world.more_connections(), 0);
}
