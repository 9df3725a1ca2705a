//! How long documents and failures are remembered, and what makes room.

use super::*;
use crate::client::document::known;

#[tokio::test]
async fn a_document_is_kept_as_long_as_its_headers_say() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let (clients, clock) = local();
    let body = document(&url).to_string();
    host.conducts(Conduct::Answers(ok(&body, "cache-control: max-age=600\r\n")));
    for _ in 0..3 {
        assert!(find(&clients, &url).await.is_some());
    }
    clock.advance(seconds(599));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 1);
    clock.advance(seconds(1));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 2);

    // A client that takes its document away is unknown as soon as that is noticed.
    clock.advance(seconds(600));
    host.conducts(Conduct::Answers(not_found()));
    assert!(find(&clients, &url).await.is_none());
    assert!(clients.document(&ClientId::new(&url).unwrap()).is_none());
}

#[tokio::test]
async fn a_refusal_is_remembered_for_a_moment() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let (clients, clock) = local();
    for _ in 0..5 {
        assert!(find(&clients, &url).await.is_none());
    }
    clock.advance(seconds(9));
    assert!(find(&clients, &url).await.is_none());
    assert_eq!(host.requests(), 1);
    host.publishes(&document(&url));
    clock.advance(seconds(1));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 2);
}

#[tokio::test]
async fn a_client_outlives_an_outage_of_its_host() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let (clients, clock) = local();
    let failing = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n";
    host.conducts(Conduct::Answers(failing.into()));
    assert!(is_unavailable(&clients, &url).await);
    clock.advance(seconds(10));

    host.publishes(&document(&url));
    assert!(find(&clients, &url).await.is_some());
    clock.advance(seconds(3_600));
    host.conducts(Conduct::Answers(failing.into()));
    // Its host is asked again every ten seconds, and no more often.
    for _ in 0..5 {
        assert!(find(&clients, &url).await.is_some());
    }
    assert_eq!(host.requests(), 3);
    clock.advance(seconds(3_599));
    assert!(find(&clients, &url).await.is_some());
    assert_eq!(host.requests(), 4);
    clock.advance(seconds(10));
    assert!(is_unavailable(&clients, &url).await);
    assert!(is_unavailable(&clients, &url).await);
    assert_eq!(host.requests(), 5);
}

#[tokio::test]
async fn the_document_that_was_not_used_for_longest_makes_room() {
    let host = Host::new().await;
    let (builder, _) = builder();
    let clients = builder.danger_allow_loopback().max_documents(2).build().unwrap();
    let url = |name: &str| format!("https://127.0.0.1:{}/{name}", host.at.port());
    for (asked, fetches) in [("a", 1), ("b", 2), ("a", 2), ("c", 3), ("a", 3), ("b", 4), ("b", 4)] {
        host.publishes(&document(&url(asked)));
        assert!(find(&clients, &url(asked)).await.is_some());
        assert_eq!(host.requests(), fetches, "{asked}");
        assert!(clients.0.known().documents.len() <= 2);
    }
}

#[tokio::test]
async fn the_host_with_the_most_documents_makes_room() {
    let (many, other) = (Host::new().await, Host::new().await);
    let known = other.url("other.example");
    other.publishes(&document(&known));
    let clients = named(&here()).0.max_documents(3).build().unwrap();
    assert!(find(&clients, &known).await.is_some());
    for number in 0..10 {
        let url = format!("https://app.example:{}/{number}.json", many.at.port());
        many.publishes(&document(&url));
        assert!(find(&clients, &url).await.is_some());
        assert!(clients.0.known().documents.len() <= 3);
    }
    assert!(find(&clients, &known).await.is_some());
    assert_eq!((many.requests(), other.requests()), (10, 1));
}

#[tokio::test]
async fn a_new_host_takes_room_from_the_host_with_the_most_documents() {
    let host = Host::new().await;
    let clients = named(&here()).0.max_documents(3).build().unwrap();
    let at = |name: &str, path: &str| format!("https://{name}:{}/{path}", host.at.port());
    let urls = [
        at("other.example", "a"),
        at("app.example", "b"),
        at("app.example", "c"),
        at("127.0.0.1", "d"),
    ];
    for url in &urls {
        host.publishes(&document(url));
        assert!(find(&clients, url).await.is_some());
    }
    // The first one was not used for longest, but is the only one of its host.
    let is_kept = |url: &String| clients.document(&ClientId::new(url).unwrap()).is_some();
    assert_eq!(urls.each_ref().map(is_kept), [true, false, true, true]);
}

#[tokio::test]
async fn without_room_no_document_is_kept() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let clients = builder().0.danger_allow_loopback().max_documents(0).build().unwrap();
    for fetches in [1, 2] {
        assert!(find(&clients, &url).await.is_some());
        assert_eq!(host.requests(), fetches);
        assert!(clients.0.known().documents.is_empty());
    }
}

/// Nobody can fetch it then: its host fails, or too many others are being fetched.
#[tokio::test]
async fn a_document_counts_for_an_hour_after_its_end_and_no_longer() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let failing = "HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n";
    for (age, counts) in [(7_199, true), (7_200, false)] {
        for is_crowded in [false, true] {
            let (clients, clock) = local();
            host.publishes(&document(&url));
            assert!(find(&clients, &url).await.is_some());
            host.conducts(Conduct::Answers(failing.into()));
            clock.advance(seconds(age));
            for number in 0..if is_crowded { MAX_FLIGHTS } else { 0 } {
                let (name, now) = (format!("h{number}.example"), clock.now());
                let id = ClientId::new(format!("https://{name}/client.json")).unwrap();
                let started = clients.0.known().look_up(&id, &name, now);
                assert!(matches!(started, known::LookUp::Started(..)));
            }
            assert_eq!(is_unavailable(&clients, &url).await, !counts, "{age} {is_crowded}");
        }
    }
}
