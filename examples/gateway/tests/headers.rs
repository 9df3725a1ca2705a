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
        "role",
        "Sub",
        "scope",
        "tenant",
        "client-id",
        "jwt",
        "Id-Token",
        "from",
        "uid",
        "account",
        "act-as",
        "claims",
        "company",
        "customer",
        "issuer",
        "org",
        "permissions",
        "principal",
        "sec-user",
        "session",
        "subject",
        "token",
        "baggage",
        "a-word-of-the-services-own",
        "forwarded",
        "x-forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "x-forwarded-user",
        "x-forwarded-client-cert",
        "x-real-ip",
        "true-client-ip",
        "cf-connecting-ip",
        "x-user",
        "X-User-Id",
        "X-UserId",
        "X-Username",
        "x-userinfo",
        "x-email",
        "x-groups",
        "x-webauth-user",
        "x-auth-request-email",
        "x-authenticated-userid",
        "x-authentik-username",
        "x-remote-user",
        "remote-user",
        "remote-groups",
        "tailscale-user-login",
        "x-goog-iap-jwt-assertion",
        "x-goog-authenticated-user-email",
        "x-endpoint-api-userinfo",
        "x-ms-client-principal-name",
        "x-ms-token-aad-access-token",
        "x-amzn-oidc-identity",
        "cf-access-jwt-assertion",
        "impersonate-user",
        "oidc-claim-sub",
        "client-cert",
        "x-ssl-client-s-dn",
        "x-host",
        "x-original-url",
        "x-rewrite-url",
        "x-http-method-override",
        "x-access-token",
        "x-jwt-assertion",
        "x-scopes",
        "x-roles",
        "proxy",
        "x-request-id",
        "X_User",
        "x_forwarded_for",
        // An old Apache made a variable of any name: `HTTP_X_USER`.
        "x.user",
        "x~user",
    ];
    // And what an app says in its own words.
    let own = [
        "accept-language",
        "content-type",
        "dpop",
        "idempotency-key",
        "if-none-match",
        "range",
        "traceparent",
        "user-agent",
        "x-api-key",
        "x-client-version",
        "x-csrf-token",
        "x-requested-with",
    ];
    let mut world = World::new();
    let lines: Vec<String> = lies.iter().map(|name| format!("{name}: a lie")).collect();
    for lines in lines.chunks(10) {
        let mut client = world.client();
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        client.send(&request("GET /orders", &lines)).await;
        let mut service = world.service().await;
        let seen = service.head().await;
        assert!(!seen.0.contains("a lie"), "it goes on: {seen:?}");
        assert_eq!(seen.all("x-forwarded-for"), ["192.0.2.7"]);
    }
    let lines: Vec<String> = own.iter().map(|name| format!("{name}: mine")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let mut client = world.client();
    client.send(&request("GET /orders", &lines)).await;
    let seen = world.service().await.head().await;
    for name in own {
        assert_eq!(seen.all(name), ["mine"], "{name}");
    }
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
async fn the_last_word_is_the_proxys() {
    for (fields, address, proto) in [
        (&["x-forwarded-proto: https"][..], "192.0.2.7", "https"),
        (&["x-forwarded-proto: HTTPS"], "192.0.2.7", "https"),
        // The client has said something before it.
        (&["x-forwarded-proto: https", "x-forwarded-proto: http"], "192.0.2.7", "http"),
        (&["x-forwarded-proto: http", "x-forwarded-proto: https"], "192.0.2.7", "https"),
        (&["x-forwarded-proto: https, http"], "192.0.2.7", "http"),
        (&["x-forwarded-proto: http,https"], "192.0.2.7", "https"),
        (&["x-forwarded-proto: https,"], "192.0.2.7", "http"),
        (&["x-forwarded-proto: https", "x-forwarded-proto:"], "192.0.2.7", "http"),
        (&["x-forwarded-for: 10.0.0.1", "x-forwarded-for: 203.0.113.9"], "203.0.113.9", "http"),
        (&["x-forwarded-for: 203.0.113.9", "x-forwarded-for:"], "192.0.2.7", "http"),
        // Of no proxy: nothing else says who is calling.
        (&["forwarded: for=203.0.113.9;proto=https"], "192.0.2.7", "http"),
    ] {
        let proxies = vec!["192.0.2.7".parse().unwrap()];
        let mut world = World::with(Rules { proxies, ..Rules::default() }, Service::Up);
        let mut client = world.client();
        client.send(&request("GET /", fields)).await;
        let seen = world.service().await.head().await;
        assert_eq!(seen.all("x-forwarded-proto"), [proto], "{fields:?}");
        assert_eq!(seen.all("x-forwarded-for"), [address], "{fields:?}");
        assert_eq!(seen.all("forwarded"), [format!("for={address};proto={proto}")], "{fields:?}");
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
