//! Connections: how they start, how they end, and what one client may take.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_without_a_request_is_closed() {
    for said in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM", "GET / HTTP/1.1\r\nhost: a"] {
        let world = World::new();
        let began = tokio::time::Instant::now();
        let mut client = world.client();
        client.send(said).await;
        client.rest().await;
        assert_eq!(began.elapsed().as_secs(), LIMITS.first.as_secs(), "{said:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_connection_is_closed_later() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /", &[])).await;
    let mut service = world.service().await;
    service.head().await;
    service.answer("").await;
    client.head().await;
    let began = tokio::time::Instant::now();
    assert_eq!(client.rest().await, "");
    assert_eq!(began.elapsed().as_secs(), LIMITS.next.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_nothing_is_cut_off() {
    let mut world = World::new();
    let mut client = world.client();
    client.send(&request("GET /", &[])).await;
    let mut service = world.service().await;
    service.head().await;
    service.send("HTTP/1.1 200 OK\r\ncontent-length: 10000000\r\n\r\n").await;
    // The service notices: nobody takes any more of it.
    let began = tokio::time::Instant::now();
    let stream = service.0.get_mut();
    while in_time(stream.write_all(&[b'x'; 1024])).await.is_ok() {}
    assert_eq!(began.elapsed().as_secs(), LIMITS.stuck.as_secs());
}

#[tokio::test(start_paused = true)]
async fn what_is_under_way_at_the_end_is_finished() {
    let mut world = World::new();
    let (mut busy, mut silent) = (world.client(), world.client());
    busy.send(&request("GET /", &[])).await;
    let mut service = world.service().await;
    service.head().await;
    service.send("HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await;
    assert_eq!(busy.head().await.status(), 200);

    world.ending.send(()).unwrap();
    assert_eq!(silent.rest().await, "");
    busy.take("first").await;
    assert_eq!(world.ending.receiver_count(), 1);
    service.send("final").await;
    assert_eq!(busy.rest().await, "final");
    in_time(world.ending.closed()).await;
}
