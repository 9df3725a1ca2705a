//! What is refused for what it is, before anybody is asked about its token.

use super::*;

async fn status(rules: Rules, request: &str) -> u16 {
    let mut world = World::with(rules, Service::Down);
    let mut client = world.client();
    client.send(request).await;
    let head = client.head().await;
    let status = head.status();
    if status == 502 {
        assert_eq!(world.swaps(), 1, "it was let in");
    } else {
        assert_eq!((world.swaps(), world.more_connections()), (0, 0), "{request}");
    }
    if status == 405 {
        assert_eq!(head.all("allow").len(), 1);
    }
    status
}

#[tokio::test(start_paused = true)]
async fn methods_that_are_not_for_services_are_refused() {
    for (line, expected) in [
        ("GET /", 502),
        ("OPTIONS /", 502),
        ("PATCH /", 502),
        // It would show the client the JWT.
        ("TRACE /", 405),
        ("CONNECT evil.example:443", 405),
        ("PROPFIND /", 405),
        ("get /", 405),
    ] {
        assert_eq!(status(Rules::default(), &request(line, &[])).await, expected, "{line}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_target_stays_on_the_service() {
    for (line, expected) in [
        ("GET http://api.example/orders", 502),
        ("GET //evil.example/orders", 502),
        ("GET @evil.example/orders", 400),
        ("OPTIONS *", 400),
        ("GET evil.example", 400),
    ] {
        let world = World::with(Rules::default(), Service::Down);
        let mut client = world.client();
        client.send(&request(line, &[])).await;
        assert_eq!(client.head().await.status(), expected, "{line}");
    }
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET //evil.example/../x?y=http://z", &[])).await;
    let head = world.service().await.head().await;
    assert_eq!(head.line(), "GET //evil.example/../x?y=http://z HTTP/1.1");
    assert_eq!(head.all("host"), ["orders.internal:9100"]);
}

#[tokio::test(start_paused = true)]
async fn a_request_is_for_one_host_and_for_this_one() {
    let ours = || Rules {
        hosts: vec!["api.example".into(), "api.example:8443".into()],
        ..Rules::default()
    };
    for (host, ours_alone, any) in [
        ("host: api.example\r\n", 502, 502),
        ("host: API.Example\r\n", 502, 502),
        ("host: api.example:8443\r\n", 502, 502),
        ("host: api.example:9999\r\n", 421, 502),
        ("host: evil.example\r\n", 421, 502),
        ("host: api.example.evil.example\r\n", 421, 502),
        ("", 400, 400),
        ("host: \r\n", 400, 400),
        ("host: api.example/x\r\n", 400, 400),
        ("host: api.example@evil.example\r\n", 400, 400),
        ("host: api.example\r\nhost: api.example\r\n", 400, 400),
        ("host: api.example\r\nhost: evil.example\r\n", 400, 400),
    ] {
        let request = request("GET /", &[]).replace("host: api.example\r\n", host);
        assert_eq!(status(ours(), &request).await, ours_alone, "{host:?}");
        assert_eq!(status(Rules::default(), &request).await, any, "{host:?}");
    }
    // RFC 9112 §3.2.2: the target in absolute form says for whom it is; here both must.
    let differs = request("GET http://evil.example/", &[]);
    assert_eq!(status(ours(), &differs).await, 400);
}

#[tokio::test(start_paused = true)]
async fn a_page_of_another_site_changes_nothing_by_the_cookie() {
    let origin = "https://app.example";
    let rules = || Rules {
        cookie: Some("__Host-token".into()),
        origins: vec![origin.into()],
        ..Rules::default()
    };
    let cookie = format!("cookie: theme=dark; __Host-token={HANDLE}");
    let (ours, evil) = (format!("origin: {origin}"), "origin: https://evil.example");
    let websocket = ["connection: upgrade", "upgrade: websocket"];
    let by_cookie = |line: &str, fields: &[&str]| {
        let fields: Vec<&str> = fields.iter().copied().chain([cookie.as_str()]).collect();
        request(line, &fields).replace(&format!("authorization: Bearer {HANDLE}\r\n"), "")
    };
    for (request, expected) in [
        (by_cookie("GET /", &[]), 502),
        (by_cookie("GET /", &[evil]), 502),
        (by_cookie("POST /", &[&ours]), 502),
        (by_cookie("POST /", &[evil]), 403),
        (by_cookie("POST /", &["origin: null"]), 403),
        (by_cookie("POST /", &[]), 403),
        (by_cookie("POST /", &[&ours, evil]), 403),
        (by_cookie("DELETE /", &["origin: https://app.example.evil.example"]), 403),
        // No page may read what comes over a socket that it opens elsewhere, but it may open it.
        (by_cookie("GET /", &[&websocket[..], &[evil]].concat()), 403),
        (by_cookie("GET /", &websocket), 403),
        (by_cookie("GET /", &[&websocket[..], &[&ours]].concat()), 502),
        // No browser adds the header by itself.
        (request("POST /", &[evil]), 502),
    ] {
        assert_eq!(status(rules(), &request).await, expected, "{request}");
    }

    let mut world = World::with(rules(), Service::Up);
    let mut client = world.client();
    client.send(&by_cookie("GET /", &[])).await;
    let seen = world.service().await.head().await;
    assert_eq!(seen.all("cookie"), ["theme=dark"]);
    assert_eq!(seen.all("authorization"), [format!("Bearer {JWT}")]);
}
