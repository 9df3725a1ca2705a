//! Requests whose ends two readers might see in two places (request smuggling). Whatever happens,
//! a service must see one request, and see the same end as the gateway.

use super::*;

#[tokio::test(start_paused = true)]
async fn ambiguous_framing_is_refused() {
    for (fields, expected) in [
        ("content-length: 5\r\ncontent-length: 6", 400),
        ("content-length: +5", 400),
        ("content-length: 5, 6", 400),
        ("content-length: 0x5", 400),
        ("transfer-encoding: identity", 400),
        ("transfer-encoding: chunked, identity", 400),
        ("transfer-encoding: gzip, chunked", 501),
        ("transfer-encoding: chunked, chunked", 400),
        ("transfer-encoding: chunked\r\ntransfer-encoding: chunked", 400),
        ("transfer-encoding: , chunked", 501),
        ("transfer-encoding: gzip\r\ntransfer-encoding: chunked", 501),
        ("transfer-encoding : chunked", 400),
        ("transfer-encoding:\x0bchunked", 400),
        (" folded: yes", 400),
        ("x-a: 1\r\n  folded", 400),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request("POST /orders", &[fields])).await;
        assert_eq!(client.head().await.status(), expected, "{fields:?}");
        assert_eq!((world.more_connections(), world.swaps()), (0, 0), "{fields:?}");
    }
}

/// RFC 9112 §6.3: "If a message is received with both a Transfer-Encoding and a Content-Length
/// header field, the Transfer-Encoding overrides the Content-Length."
#[tokio::test(start_paused = true)]
async fn of_two_lengths_only_one_goes_on() {
    for fields in [
        ["content-length: 4", "transfer-encoding: chunked"],
        ["transfer-encoding: chunked", "content-length: 4"],
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request("POST /orders", &fields)).await;
        // Who went by the length would read `1b`, and take the rest for a request.
        let inner = "GET /admin HTTP/1.1\r\nx: y\r\n";
        client.send(&format!("1b\r\n{inner}\r\n0\r\n\r\n")).await;
        let mut service = world.service().await;
        let head = service.head().await;
        assert_eq!(head.all("transfer-encoding"), ["chunked"]);
        assert!(!head.has("content-length"));
        service.take(&format!("1B\r\n{inner}\r\n0\r\n\r\n")).await;
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_lengths_of_an_answer_only_one_comes_back() {
    for fields in [
        "content-length: 4\r\ntransfer-encoding: chunked",
        "transfer-encoding: chunked\r\ncontent-length: 4",
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request("GET /orders", &[])).await;
        let mut service = world.service().await;
        service.head().await;
        service.send(&format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n")).await;
        let head = client.head().await;
        assert_eq!(head.all("transfer-encoding"), ["chunked"], "{fields}");
        assert!(!head.has("content-length"), "{fields}");
        service.send("6\r\nlonger\r\n0\r\n\r\n").await;
        client.take("6\r\nlonger\r\n0\r\n\r\n").await;
    }
}

/// RFC 9110 §8.6: equal lengths in a list are one length. A service may know that or not.
#[tokio::test(start_paused = true)]
async fn a_service_gets_one_length() {
    for (line, fields, expected) in [
        ("POST /", &["content-length: 5", "content-length: 5"][..], &["5"][..]),
        ("POST /", &["content-length: 5"], &["5"]),
        ("POST /", &["content-length: 005"], &["5"]),
        ("POST /", &["content-length: 0"], &["0"]),
        ("GET /", &["content-length: 5"], &["5"]),
        ("GET /", &[], &[]),
        ("DELETE /", &[], &[]),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request(line, fields)).await;
        if expected == ["5"] {
            client.send("hello").await;
        }
        let mut service = world.service().await;
        let head = service.head().await;
        assert_eq!(head.all("content-length"), expected, "{line} {fields:?}");
        assert!(!head.has("transfer-encoding"), "{line} {fields:?}");
        if expected == ["5"] {
            service.take("hello").await;
        }
        service.answer("").await;
        assert_eq!(client.head().await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_cannot_take_the_length_away() {
    let mut world = World::new();
    let mut client = world.client();
    let fields = ["content-length: 5", "connection: content-length, host, transfer-encoding"];
    client.send(&request("POST /orders", &fields)).await;
    client.send("hello").await;
    let mut service = world.service().await;
    let head = service.head().await;
    assert_eq!(head.all("content-length"), ["5"]);
    assert_eq!(head.all("host"), ["orders.internal:9100"]);
    service.take("hello").await;
}

#[tokio::test(start_paused = true)]
async fn heads_have_an_end() {
    let long = format!("x-long: {}", "y".repeat(LIMITS.head));
    let many: Vec<String> = (0..200).map(|number| format!("x-{number}: y")).collect();
    let path = format!("GET /{}", "z".repeat(LIMITS.head));
    for request in [
        request("GET /", &[&long]),
        request("GET /", &many.iter().map(String::as_str).collect::<Vec<_>>()),
        request(&path, &[]),
    ] {
        let mut world = World::new();
        let (mut from, mut to) = tokio::io::split(world.raw_client());
        tokio::spawn(async move { drop(to.write_all(request.as_bytes()).await) });
        let mut answer = [0; 12];
        in_time(from.read_exact(&mut answer)).await.unwrap();
        assert!([b"HTTP/1.1 431", b"HTTP/1.1 414"].contains(&&answer), "{answer:?}");
        assert_eq!((world.more_connections(), world.swaps()), (0, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_asks_first_is_told_to_go_on_only_if_let_in() {
    let mut world = World::new();
    let expect = ["expect: 100-continue", "content-length: 5"];
    let mut client = world.client();
    client.send(&request("POST /orders", &expect).replace(HANDLE, "cr_at_bad")).await;
    assert_eq!(client.head().await.status(), 401);

    let mut client = world.client();
    client.send(&request("POST /orders", &expect)).await;
    assert_eq!(client.head().await.status(), 100);
    client.send("hello").await;
    let mut service = world.service().await;
    assert!(!service.head().await.has("expect"));
    service.take("hello").await;
    service.answer("").await;
    assert_eq!(client.head().await.status(), 200);
}
