//! A service that is down, slow, or breaks off; and a client that does.

use super::*;

/// The status of the answer, after making sure that it says nothing else.
async fn bare_answer(client: &mut Wire) -> u16 {
    let head = client.head().await;
    assert_eq!(head.all("content-length"), ["0"], "{head:?}");
    head.status()
}

#[tokio::test(start_paused = true)]
async fn a_service_that_is_down_is_502() {
    let world = World::with(Rules::default(), Service::Down);
    let mut client = world.client();
    client.send(&request("GET /orders", &[])).await;
    assert_eq!(bare_answer(&mut client).await, 502);
    // The client's connection is as good as before.
    client.send(&request("GET /orders", &[])).await;
    assert_eq!(bare_answer(&mut client).await, 502);
}

#[tokio::test(start_paused = true)]
async fn a_service_that_cannot_be_reached_is_504() {
    let world = World::with(Rules::default(), Service::Silent);
    let began = tokio::time::Instant::now();
    let mut client = world.client();
    client.send(&request("GET /orders", &[])).await;
    assert_eq!(bare_answer(&mut client).await, 504);
    assert_eq!(began.elapsed().as_secs(), TIMEOUTS.connect.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_answer_is_504() {
    let mut world = World::new();
    let began = tokio::time::Instant::now();
    let mut client = world.client();
    client.send(&request("GET /orders", &[])).await;
    let mut service = world.service().await;
    service.head().await;
    assert_eq!(bare_answer(&mut client).await, 504);
    assert_eq!(began.elapsed().as_secs(), TIMEOUTS.head.as_secs());
    // And is told that nobody waits any more.
    assert_eq!(service.rest().await, "");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_takes_no_more_of_an_upload_is_504() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("POST /orders", &["content-length: 100000"])).await;
    let mut service = world.service().await;
    service.head().await;
    let (mut from, mut to) = tokio::io::split(client.0.into_inner());
    tokio::spawn(async move { while to.write_all(&[b'x'; 100]).await.is_ok() {} });
    let mut answer = [0; 12];
    in_time(from.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 504");
}

#[tokio::test(start_paused = true)]
async fn a_slow_upload_is_not_the_services_fault() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("POST /orders", &["content-length: 5"])).await;
    let mut service = world.service().await;
    service.head().await;
    // Four minutes in all: longer than any time-out, but never silent for that long.
    for piece in ["a", "b", "c", "d", "e"] {
        tokio::time::sleep(TIMEOUTS.idle - Duration::from_secs(1)).await;
        client.send(piece).await;
        service.take(piece).await;
    }
    // From here on the service has its time, and all of it.
    tokio::time::sleep(TIMEOUTS.head - Duration::from_secs(1)).await;
    service.answer("").await;
    assert_eq!(client.head().await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_stops_uploading_is_told_so() {
    let mut world = World::new();
    let began = tokio::time::Instant::now();
    let mut client = world.client();
    client.send(&request("POST /orders", &["content-length: 100"])).await;
    client.send("all that ever comes").await;
    let mut service = world.service().await;
    service.head().await;
    assert_eq!(bare_answer(&mut client).await, 408);
    assert_eq!(began.elapsed().as_secs(), TIMEOUTS.idle.as_secs());
    // The service must not take the piece for the whole.
    assert_eq!(service.rest().await, "all that ever comes");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_breaks_off_ends_the_request_at_the_service() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("POST /orders", &["transfer-encoding: chunked"])).await;
    client.send("4\r\nhalf\r\n").await;
    let mut service = world.service().await;
    service.head().await;
    drop(client);
    let rest = service.rest().await;
    assert!(!rest.ends_with("0\r\n\r\n"), "a half is passed off as the whole: {rest:?}");
}

#[tokio::test(start_paused = true)]
async fn half_an_answer_is_never_passed_off_as_a_whole() {
    for (framing, is_dropped) in [
        ("content-length: 100", true),
        ("content-length: 100", false),
        ("transfer-encoding: chunked", true),
        ("transfer-encoding: chunked", false),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request("GET /orders", &[])).await;
        let mut service = world.service().await;
        service.head().await;
        service.send(&format!("HTTP/1.1 200 OK\r\n{framing}\r\n\r\n4\r\nhalf\r\n")).await;
        assert_eq!(client.head().await.status(), 200);
        // It goes away, or stays and says nothing more.
        let _silent = (!is_dropped).then_some(service);
        let rest = client.rest().await;
        assert!(rest.contains("half") && !rest.contains("0\r\n\r\n"), "{framing}: {rest:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kept_connection_that_closes_costs_no_request_that_may_be_repeated() {
    for (line, fields, expected) in [
        ("GET /orders", &[][..], 200),
        ("HEAD /orders", &[], 200),
        ("OPTIONS /orders", &[], 200),
        // What it did before it closed, nobody knows.
        ("DELETE /orders", &[], 502),
        ("POST /orders", &["content-length: 0"], 502),
        ("GET /orders", &["content-length: 1"], 502),
        ("GET /orders", &["connection: upgrade", "upgrade: websocket"], 502),
    ] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request("GET /", &[])).await;
        let mut kept = world.service().await;
        kept.head().await;
        kept.answer("").await;
        assert_eq!(client.head().await.status(), 200);

        client.send(&request(line, fields)).await;
        if fields == ["content-length: 1"] {
            client.send("x").await;
        }
        let first = kept.head().await;
        drop(kept);
        if expected == 200 {
            let mut fresh = world.service().await;
            assert_eq!(fresh.head().await.0, first.0, "{line}");
            fresh.answer("").await;
        }
        assert_eq!(client.head().await.status(), expected, "{line} {fields:?}");
        assert_eq!(world.more_connections(), 0, "{line} {fields:?}");
    }
}

/// Twice at most, and within the time for one.
#[tokio::test(start_paused = true)]
async fn a_service_that_closes_every_connection_is_502() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /", &[])).await;
    for _ in 0..2 {
        world.service().await.head().await;
    }
    assert_eq!(bare_answer(&mut client).await, 502);
    assert_eq!(world.more_connections(), 0);

    client.send(&request("GET /", &[])).await;
    let began = tokio::time::Instant::now();
    let mut first = world.service().await;
    first.head().await;
    tokio::time::sleep(TIMEOUTS.head / 3 * 2).await;
    drop(first);
    let _silent = world.service().await;
    assert_eq!(bare_answer(&mut client).await, 504);
    assert_eq!(began.elapsed().as_secs(), TIMEOUTS.head.as_secs());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_is_502() {
    for nonsense in ["SSH-2.0-OpenSSH_9.9\r\n", "HTTP/1.1 200 OK\r\nx y: z\r\n\r\n", ""] {
        let mut world = World::new();
        let mut client = world.client();
        client.send(&request("GET /orders", &[])).await;
        let mut service = world.service().await;
        service.head().await;
        service.send(nonsense).await;
        drop(service);
        if nonsense.is_empty() {
            // Perhaps it just closed a connection that was kept: that is tried once more.
            drop(world.service().await);
        }
        assert_eq!(bare_answer(&mut client).await, 502, "{nonsense:?}");
    }
}
