//! `WebSocket`s, and what else might want to be one.

use super::*;

const ASKS: [&str; 4] = [
    "connection: Upgrade, keep-alive",
    "upgrade: WebSocket",
    "sec-websocket-version: 13",
    "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
];
const SWITCHES: &str = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
                        upgrade: websocket\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// An open tunnel, by its two ends.
async fn open(world: &mut World) -> (Wire, Wire) {
    let mut client = world.client();
    client.send(&request("GET /live", &ASKS)).await;
    let mut service = world.service().await;
    let seen = service.head().await;
    assert_eq!(seen.all("connection"), ["upgrade"]);
    assert_eq!(seen.all("upgrade"), ["websocket"]);
    assert_eq!(seen.all("sec-websocket-key").len(), 1);
    assert_eq!(seen.all("authorization"), [format!("Bearer {JWT}")]);
    // The service may well speak first, in the same breath.
    service.send(&format!("{SWITCHES}welcome")).await;
    let head = client.head().await;
    assert_eq!(head.status(), 101);
    assert_eq!(head.all("connection"), ["upgrade"]);
    assert_eq!(head.all("upgrade"), ["websocket"]);
    assert_eq!(head.all("sec-websocket-accept").len(), 1);
    assert!(!head.has("content-length") && !head.has("transfer-encoding"), "{head:?}");
    client.take("welcome").await;
    (client, service)
}

#[tokio::test(start_paused = true)]
async fn a_websocket_goes_through_both_ways() {
    let mut world = World::new();
    let (mut client, mut service) = open(&mut world).await;
    for round in 0..3 {
        client.send(&format!("ping {round}")).await;
        service.take(&format!("ping {round}")).await;
        service.send(&format!("pong {round}")).await;
        client.take(&format!("pong {round}")).await;
    }
    // It is still one of the connections that may be open.
    assert_eq!(world.seats.available_permits(), LIMITS.connections - 1);
    // One side ends, the other still has something to say.
    client.0.get_mut().shutdown().await.unwrap();
    assert_eq!(service.rest().await, "");
    service.send("bye").await;
    drop(service);
    assert_eq!(client.rest().await, "bye");
    in_time(world.tunnels.closed()).await;
    assert_eq!(world.seats.available_permits(), LIMITS.connections);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_does_not_last_for_ever() {
    let mut world = World::new();
    let (mut client, mut service) = open(&mut world).await;
    let began = tokio::time::Instant::now();
    assert_eq!(client.rest().await, "");
    assert_eq!(began.elapsed().as_secs(), TUNNEL_IDLE.as_secs());
    assert_eq!(service.rest().await, "");

    let (mut client, mut service) = open(&mut world).await;
    let began = tokio::time::Instant::now();
    let mut rounds = 0;
    // No divisor of its lifetime, so that nothing else happens at its end.
    let pause = Duration::from_secs(35);
    while timeout(pause, client.0.fill_buf()).await.is_err() {
        client.send("still here").await;
        service.take("still here").await;
        rounds += 1;
        assert!(rounds < 100, "it never ends");
    }
    assert_eq!(began.elapsed().as_secs(), TUNNEL_LIFETIME.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_service_may_decline() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /live", &ASKS)).await;
    let mut service = world.service().await;
    service.head().await;
    let declines = "HTTP/1.1 426 Upgrade Required\r\nsec-websocket-version: 14\r\n\
                    connection: upgrade\r\nupgrade: websocket\r\ncontent-length: 3\r\n\r\nno!";
    service.send(declines).await;
    let head = client.head().await;
    assert_eq!(head.status(), 426);
    assert_eq!(head.all("sec-websocket-version"), ["14"]);
    client.take("no!").await;
    // And no bytes go past the gateway's eyes: what comes next is a request, with its token.
    client.send("GET /admin HTTP/1.1\r\nhost: api.example\r\n\r\n").await;
    assert_eq!(client.head().await.status(), 401);
}

#[tokio::test(start_paused = true)]
async fn nothing_but_a_websocket_is_let_through() {
    for (line, upgrade) in [
        // Behind it, requests would go to the service that nobody here sees.
        (
            "GET /",
            &["connection: upgrade, http2-settings", "upgrade: h2c", "http2-settings: AAM"][..],
        ),
        ("GET /", &["connection: upgrade", "upgrade: TLS/1.0"]),
        ("POST /", &ASKS),
        ("GET /", &["upgrade: websocket"]),
        ("GET /", &["connection: upgrade", "upgrade: websocket", "content-length: 1"]),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request(line, upgrade)).await;
        let mut service = world.service().await;
        let seen = service.head().await;
        assert!(!seen.has("upgrade") && !seen.has("connection"), "{seen:?}");
        assert!(!seen.has("http2-settings"), "{seen:?}");
        // A service that switches all the same is not followed.
        service.send(SWITCHES).await;
        assert_eq!(client.head().await.status(), 502, "{upgrade:?}");
        in_time(world.tunnels.closed()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_switches_to_something_else_is_not_followed() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /", &ASKS)).await;
    let mut service = world.service().await;
    service.head().await;
    service.send(&SWITCHES.replace("upgrade: websocket", "upgrade: h2c")).await;
    assert_eq!(client.head().await.status(), 502);
    in_time(world.tunnels.closed()).await;
}
