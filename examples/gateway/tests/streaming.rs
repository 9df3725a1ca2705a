//! Bodies go through as they come, both ways.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_upload_arrives_before_it_has_ended() {
    for (field, first, second) in [
        ("content-length: 10", "first", "final"),
        ("transfer-encoding: chunked", "5\r\nfirst\r\n", "5\r\nfinal\r\n0\r\n\r\n"),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request("POST /orders", &[field])).await;
        client.send(first).await;
        let mut service = world.service().await;
        let head = service.head().await;
        let (name, value) = field.split_once(": ").unwrap();
        assert_eq!(head.all(name), [value]);
        service.take(first).await;
        // Only now does the client go on.
        client.send(second).await;
        service.take(second).await;
        service.answer("").await;
        assert_eq!(client.head().await.status(), 200);
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_arrives_before_it_has_ended_and_even_before_the_upload_has() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("POST /chat", &["transfer-encoding: chunked"])).await;
    client.send("4\r\nping\r\n").await;
    let mut service = world.service().await;
    service.head().await;
    service.take("4\r\nping\r\n").await;
    service.send("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npong\r\n").await;
    assert_eq!(client.head().await.status(), 200);
    client.take("4\r\npong\r\n").await;
    client.send("4\r\nping\r\n0\r\n\r\n").await;
    service.take("4\r\nping\r\n0\r\n\r\n").await;
    service.send("0\r\n\r\n").await;
    client.take("0\r\n\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn nothing_is_collected_on_the_way() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("POST /orders", &["content-length: 100000000"])).await;
    let mut service = world.service().await;
    service.head().await;
    // The service reads no more. How much goes in before the client has to wait?
    let (piece, mut taken) = ([b'x'; 1024], 0);
    let stream = client.0.get_mut();
    while let Ok(written) = timeout(Duration::from_secs(1), stream.write(&piece)).await {
        taken += written.unwrap();
        assert!(taken < 1_000_000, "the gateway takes all of it");
    }
    assert!(taken > 0);
}

#[tokio::test(start_paused = true)]
async fn a_get_keeps_the_body_it_came_with() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /search", &["transfer-encoding: chunked"])).await;
    client.send("5\r\nquery\r\n0\r\n\r\n").await;
    let mut service = world.service().await;
    assert_eq!(service.head().await.all("transfer-encoding"), ["chunked"]);
    service.take("5\r\nquery\r\n0\r\n\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn trailers_come_back_and_do_not_go_in() {
    let mut world = World::new();
    let mut client = world.client();
    let fields =
        ["transfer-encoding: chunked", "trailer: x-user", "te: trailers", "connection: te"];
    client.send(&request("POST /rpc", &fields)).await;
    client.send("2\r\nhi\r\n0\r\nx-user: root\r\n\r\n").await;
    let mut service = world.service().await;
    let head = service.head().await;
    assert_eq!(head.all("te"), ["trailers"]);
    assert_eq!(head.all("connection"), ["te"]);
    assert!(!head.has("trailer"));
    service.take("2\r\nhi\r\n0\r\n\r\n").await;
    let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: grpc-status\r\n\r\n\
                  2\r\nho\r\n0\r\ngrpc-status: 0\r\n\r\n";
    service.send(answer).await;
    assert_eq!(client.head().await.all("trailer"), ["grpc-status"]);
    client.take("2\r\nho\r\n0\r\ngrpc-status: 0\r\n\r\n").await;
}

#[tokio::test(start_paused = true)]
async fn connections_to_the_service_are_used_again() {
    let mut world = World::new();
    let mut client = world.client();
    let mut other = world.client();
    client.send(&request("GET /1", &[])).await;
    let mut service = world.service().await;
    for number in 1..=20 {
        assert_eq!(service.head().await.line(), format!("GET /{number} HTTP/1.1"));
        service.answer("ok").await;
        let asks = if number % 2 == 1 { &mut client } else { &mut other };
        assert_eq!(asks.head().await.status(), 200);
        asks.take("ok").await;
        let next = if number % 2 == 1 { &mut other } else { &mut client };
        next.send(&request(&format!("GET /{}", number + 1), &[])).await;
    }
    assert_eq!(world.more_connections(), 0);

    // One that was silent for too long is not.
    service.head().await;
    service.answer("ok").await;
    client.head().await;
    tokio::time::sleep(TIMEOUTS.keep * 2).await;
    client.send(&request("GET /late", &[])).await;
    assert_eq!(world.service().await.head().await.line(), "GET /late HTTP/1.1");
}

#[tokio::test(start_paused = true)]
async fn answers_without_a_body_say_what_the_service_says() {
    for (line, answer) in [
        ("HEAD /", "HTTP/1.1 200 OK\r\ncontent-length: 1234\r\n\r\n"),
        ("HEAD /", "HTTP/1.1 200 OK\r\n\r\n"),
        ("GET /", "HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\n\r\n"),
        ("GET /", "HTTP/1.1 204 No Content\r\n\r\n"),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request(line, &[])).await;
        let mut service = world.service().await;
        service.head().await;
        service.send(answer).await;
        let expected = Head(answer.to_owned());
        let head = client.head().await;
        assert_eq!(head.status(), expected.status());
        assert_eq!(head.all("content-length"), expected.all("content-length"), "{line} {answer}");
        assert!(!head.has("transfer-encoding"), "{line} {answer}");
        // What comes next is the next answer, and nothing is left of this one.
        client.send(&request("GET /next", &[])).await;
        service.head().await;
        service.answer("next").await;
        assert_eq!(client.head().await.status(), 200);
        client.take("next").await;
    }
}
