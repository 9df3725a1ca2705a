//! The server with limits, and peers that are slow or refused.

use std::time::Duration;

use tokio::io::AsyncWriteExt as _;
use tokio::time::sleep;

use super::serve::{METADATA, Served, answer, rest};

#[tokio::test(start_paused = true)]
async fn who_finds_no_place_is_not_cut_off_while_it_sends() {
    let served = Served::with(|it| it, |server| server.max_connections(0)).await;
    let head = "POST /token HTTP/1.1\r\nhost: as\r\ncontent-length: 60000\r\n\r\n";
    let mut stream = served.sent(&format!("{head}{}", "x".repeat(30_000))).await;
    assert!(answer(&mut stream).await.starts_with("HTTP/1.1 503 "));
    for _ in 0..30 {
        stream.write_all(&[b'x'; 1_000]).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert_eq!(rest(stream).await, "");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_nobody_wants_may_come_in_any_parts() {
    let served = Served::new().await;
    let chunked = "transfer-encoding: chunked\r\n\r\n";
    let largest = format!("{chunked}{}", format!("4000\r\n{}\r\n", "x".repeat(0x4000)).repeat(4));
    for parts in [
        ["content-length: 15\r\n\r\nhello", "world", "hello"],
        [chunked, "5\r\nhello\r\n5\r\nworld\r\n", "0\r\n\r\n"],
        ["x: y\r\n", &largest, "0\r\n\r\n"],
    ] {
        let mut stream = served.sent("POST /nowhere HTTP/1.1\r\nhost: as\r\n").await;
        for part in parts {
            stream.write_all(part.as_bytes()).await.unwrap();
            sleep(Duration::from_secs(1)).await;
        }
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 404 "), "{}", parts[0]);
        stream.write_all(METADATA.as_bytes()).await.unwrap();
        assert!(answer(&mut stream).await.starts_with("HTTP/1.1 200 "), "{}", parts[0]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_the_app_has_given_up_is_not_held_against_its_client() {
    let served = Served::with(|it| it, |server| server.max_connections(1)).await;
    let head = "POST /impatient HTTP/1.1\r\nhost: as\r\ncontent-length: 10\r\n\r\n";
    let mut client = served.sent(head).await;
    sleep(Duration::from_secs(3)).await;
    let refused = rest(served.sent(METADATA).await).await;
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(answer(&mut client).await.starts_with("HTTP/1.1 200 "));
}

/// In real time: this is much more than fits between the server and its client.
#[tokio::test]
async fn a_large_answer_arrives_whole() {
    let served = Served::new().await;
    let mut stream = served.sent("GET /large HTTP/1.1\r\nhost: as\r\n\r\n").await;
    // The body, too.
    let head = answer(&mut stream).await;
    assert!(head.contains("content-length: 67108864"), "{head}");
}
