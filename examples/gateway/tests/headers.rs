//! What a service gets to see of a request, and a client of an answer.

use super::*;
use crate::entry::Network;

#[tokio::test(start_paused = true)]
async fn a_request_goes_on_with_a_jwt_and_the_gateways_own_words() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /orders?express=1", &["accept: */*"])).await;

    let mut service = world.service().await;
    let seen = service.head().await;
    assert_eq!(seen.line(), "GET /orders?express=1 HTTP/1.1");
    for (name, value) in [
        ("authorization", format!("Bearer {JWT}").as_str()),
        ("host", "orders.internal:9100"),
        ("accept", "*/*"),
        ("forwarded", "for=192.0.2.7;proto=http"),
        ("x-forwarded-for", "192.0.2.7"),
        ("x-forwarded-proto", "http"),
        ("via", "1.1 gateway"),
    ] {
        assert_eq!(seen.all(name), [value], "{name}");
    }
    // No name of the gateway is set: what the client calls it is worth nothing.
    assert!(!seen.has("x-forwarded-host"));
    assert!(!seen.0.contains(HANDLE));

    service.answer("here").await;
    let answer = client.head().await;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.all("x-request-id"), seen.all("x-request-id"));
    client.take("here").await;
}

#[tokio::test(start_paused = true)]
async fn what_is_about_one_connection_ends_there() {
    let mut world = World::new();
    let mut client = world.client();
    let fields = [
        "connection: keep-alive, x-Mine , X-Also-Mine,, @",
        "connection: x-third",
        "x-mine: 1",
        "x-also-mine: 2",
        "x-third: 3",
        "x-stays: 4",
        "keep-alive: timeout=9",
        "proxy-connection: keep-alive",
        "proxy-authorization: Basic eDp5",
        "te: gzip",
        "upgrade: h2c",
        "http2-settings: AAMAAABkAARAAAAAAAIAAAAA",
    ];
    client.send(&request("GET /orders", &fields)).await;
    let mut service = world.service().await;
    let seen = service.head().await;
    for gone in [
        "connection",
        "x-mine",
        "x-also-mine",
        "x-third",
        "keep-alive",
        "proxy-connection",
        "proxy-authorization",
        "te",
        "upgrade",
        "transfer-encoding",
    ] {
        assert!(!seen.has(gone), "{gone} goes on: {seen:?}");
    }
    assert_eq!(seen.all("x-stays"), ["4"]);

    let answer = "HTTP/1.1 200 OK\r\nconnection: x-hop\r\nx-hop: 1\r\nx-end: 2\r\n\
                  keep-alive: timeout=5\r\nproxy-authenticate: Basic\r\nupgrade: h2c\r\n\
                  content-length: 0\r\n\r\n";
    service.send(answer).await;
    let answer = client.head().await;
    for gone in ["connection", "x-hop", "keep-alive", "proxy-authenticate", "upgrade"] {
        assert!(!answer.has(gone), "{gone} comes back: {answer:?}");
    }
    assert_eq!(answer.all("x-end"), ["2"]);
}

#[tokio::test(start_paused = true)]
async fn nobody_says_of_himself_who_he_is() {
    let lies = [
        "forwarded: for=10.0.0.1;proto=https",
        "x-forwarded-for: 10.0.0.1",
        "x-forwarded-proto: https",
        "x-forwarded-host: evil.example",
        "x-forwarded-user: root",
        "x-forwarded-client-cert: By=root",
        "x-real-ip: 10.0.0.1",
        "true-client-ip: 10.0.0.1",
        "x-user: root",
        "X-User-Id: 0",
        "x-userinfo: e30",
        "x-auth-request-email: root@example",
        "x-authenticated-userid: root",
        "x-remote-user: root",
        "remote-user: root",
        "client-cert: :AA==:",
        "x-ssl-client-s-dn: CN=root",
        "x-original-url: /admin",
        "x-rewrite-url: /admin",
        "x-http-method-override: DELETE",
        "x-jwt-assertion: e30.e30.c2ln",
        "x-scopes: admin",
        "x-roles: admin",
        "proxy: http://evil.example",
        "x_user: root",
        "x_forwarded_for: 10.0.0.1",
        "x-request-id: mine",
    ];
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /orders", &lies)).await;
    let seen = world.service().await.head().await;
    for lie in ["root", "10.0.0.1", "evil", "admin", "mine", "DELETE", "https", "e30\r"] {
        assert!(!seen.0.contains(lie), "{lie} goes on: {seen:?}");
    }
    // What an app says in its own words stays.
    assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.7"]);
}

#[tokio::test(start_paused = true)]
async fn the_proxy_in_front_is_believed_and_nobody_else() {
    let networks = |text: &[&str]| -> Vec<Network> {
        text.iter().map(|network| network.parse().unwrap()).collect()
    };
    let near = networks(&["192.0.2.0/24", "2001:db8::/32"]);
    let far = networks(&["198.51.100.1"]);
    for (proxies, chain, expected, proto) in [
        // Nobody is in front: whatever stands there is the client's own.
        (&far, "203.0.113.9", "192.0.2.7", "http"),
        (&near, "203.0.113.9", "203.0.113.9", "https"),
        // A client that sends a list of its own: the proxy appends whom it has seen.
        (&near, "10.0.0.1, 203.0.113.9", "203.0.113.9", "https"),
        // Two proxies of ours, one behind the other.
        (&near, "10.0.0.1, 203.0.113.9, 192.0.2.8", "203.0.113.9", "https"),
        (&near, "10.0.0.1, 2001:0DB8::1", "10.0.0.1", "https"),
        (&near, "10.0.0.1, 203.0.113.9:4711", "203.0.113.9", "https"),
        // The proxy says something that is no address: then it is all that is known.
        (&near, "10.0.0.1, unknown", "192.0.2.7", "https"),
        (&near, "", "192.0.2.7", "https"),
    ] {
        let rules = Rules { proxies: proxies.clone(), ..Rules::default() };
        let mut world = World::with(rules, Service::Up);
        let mut client = world.client();
        let chain = format!("x-forwarded-for: {chain}");
        client.send(&request("GET /", &[&chain, "x-forwarded-proto: https"])).await;
        let seen = world.service().await.head().await;
        assert_eq!(seen.all("x-forwarded-for"), [expected], "{chain}");
        assert_eq!(seen.all("x-forwarded-proto"), [proto], "{chain}");
        assert_eq!(seen.all("forwarded"), [format!("for={expected};proto={proto}")], "{chain}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_ipv6_client_stands_in_brackets_and_quotes() {
    let mut world =
        World::with(Rules { hosts: vec!["api.example".into()], ..Rules::default() }, Service::Up);
    world.address = "[2001:db8::7]:50000".parse().unwrap();
    let mut client = world.client();
    client.send(&request("GET /", &[])).await;
    let seen = world.service().await.head().await;
    let forwarded = "for=\"[2001:db8::7]\";proto=http;host=\"api.example\"";
    assert_eq!(seen.all("forwarded"), [forwarded]);
    assert_eq!(seen.all("x-forwarded-for"), ["2001:db8::7"]);
    assert_eq!(seen.all("x-forwarded-host"), ["api.example"]);
}

#[test]
fn networks_are_read_strictly() {
    for good in ["10.0.0.0/8", "0.0.0.0/0", "192.0.2.1", "::1", "2001:db8::/32", "::/0"] {
        assert!(good.parse::<Network>().is_ok(), "{good}");
    }
    for bad in ["", "/8", "10.0.0.0/33", "10.0.0.0/-1", "::/129", "10.0.0/8", "localhost", "1/2/3"]
    {
        assert!(bad.parse::<Network>().is_err(), "{bad}");
    }
}
