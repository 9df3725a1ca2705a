//! What strangers try, who choose the URLs.

use super::*;

#[tokio::test]
async fn documents_come_from_public_addresses_only() {
    let host = Host::new().await;
    // In the URL itself.
    let (clients, _) = builder();
    let clients = clients.build().unwrap();
    for literal in [
        "127.0.0.1",
        "127.1.2.3",
        "0.0.0.0",
        "10.0.0.1",
        "169.254.169.254",
        "192.168.0.1",
        "100.64.0.1",
        "[::1]",
        "[::]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "[fe80::1]",
        "[fd00::1]",
    ] {
        assert!(find(&clients, &host.url(literal)).await.is_none(), "{literal}");
    }
    // By the system's own look-up.
    assert!(find(&clients, &host.url("localhost")).await.is_none());
    // By a name that anybody could publish.
    for address in [
        "127.0.0.1",
        "::1",
        "::ffff:127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "fe80::1",
        "fd00:ec2::254",
        "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::",
    ] {
        let (mut builder, _) = builder();
        builder.resolver = Arc::new(Names::of(&[&[address]]));
        let clients = builder.build().unwrap();
        assert!(find(&clients, &host.url("app.example")).await.is_none(), "{address}");
    }
    assert_eq!(host.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked() {
    let good = Host::new().await;
    let at = |ip: [u8; 4]| SocketAddr::from((ip, good.at.port()));
    let bad = Host::on(at([127, 0, 0, 2])).await;
    let url = good.url("app.example");
    good.publishes(&document(&url));

    // A name that changes between look-up and connection.
    let names = Names::of(&[&["127.0.0.1"], &["127.0.0.2"]]);
    assert!(find(&with_names(&names), &url).await.is_some());
    assert_eq!(names.look_ups.load(Ordering::SeqCst), 1);

    // One with addresses of both kinds, in either order.
    for mixed in [["127.0.0.1", "127.0.0.2"], ["127.0.0.2", "127.0.0.1"]] {
        assert!(find(&with_names(&Names::of(&[&mixed])), &url).await.is_some());
    }
    assert_eq!((good.requests(), bad.connections.load(Ordering::SeqCst)), (3, 0));

    // The next fetch checks again.
    let names = Names::of(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let clients = with_names(&names);
    assert!(find(&clients, &url).await.is_some());
    assert!(find(&clients, &good.url("other.example")).await.is_none());
    assert_eq!(bad.connections.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (host, target) = (Host::new().await, Host::new().await);
    let url = host.url("127.0.0.1");
    target.publishes(&document(&url));
    for status in [301, 302, 303, 307, 308] {
        let (clients, _) = local();
        let to = target.url("127.0.0.1");
        host.conducts(Conduct::Answers(format!(
            "HTTP/1.1 {status} Moved\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n"
        )));
        assert!(find(&clients, &url).await.is_none(), "{status}");
    }
    assert_eq!((host.requests(), target.connections.load(Ordering::SeqCst)), (5, 0));
}

#[tokio::test]
async fn bodies_without_an_end_are_given_up() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
    let large = "x".repeat(5 * 1024 + 1);
    for refused in [
        // It goes on and on, in chunks or until the connection ends.
        Conduct::NeverEnds(format!("{head}\r\n{large}")),
        Conduct::NeverEnds(format!("{head}transfer-encoding: chunked\r\n\r\n1401\r\n{large}\r\n")),
        // It says so.
        Conduct::Hangs(format!("{head}content-length: 1000000000\r\n\r\n")),
        Conduct::Answers(ok(&large, "")),
    ] {
        let (clients, _) = local();
        host.conducts(refused);
        assert!(find(&clients, &url).await.is_none());
    }
    for slow in [String::new(), head.into(), format!("{head}content-length: 9\r\n\r\n{{")] {
        let (builder, _) = builder();
        let builder = builder.timeout(Duration::from_millis(200));
        let clients = builder.danger_allow_loopback().build().unwrap();
        host.conducts(Conduct::Hangs(slow));
        assert!(is_unavailable(&clients, &url).await);
    }
    // The largest that is read.
    let mut largest = document(&url);
    let missing = 5 * 1024 - largest.to_string().len() - r#","x":"""#.len();
    largest["x"] = "x".repeat(missing).into();
    assert_eq!(largest.to_string().len(), 5 * 1024);
    host.publishes(&largest);
    assert!(find(&local().0, &url).await.is_some());
}

#[tokio::test]
async fn a_document_is_as_large_as_the_app_allows_and_64_kib_at_most() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let of_size = |bytes: usize| {
        let mut document = document(&url);
        let padding = bytes - document.to_string().len() - r#","x":"""#.len();
        document["x"] = "x".repeat(padding).into();
        document.to_string()
    };
    let in_parts = |body: &str| {
        let parts = body.as_bytes().chunks(1_000).map(|part| std::str::from_utf8(part).unwrap());
        let parts: String = parts.map(|part| format!("{:x}\r\n{part}\r\n", part.len())).collect();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        format!("{head}transfer-encoding: chunked\r\n\r\n{parts}0\r\n\r\n")
    };
    for (limit, largest) in [(2_500, 2_500), (64 * 1024, 64 * 1024), (usize::MAX, 64 * 1024)] {
        for (bytes, is_taken) in [(largest, true), (largest + 1, false)] {
            let body = of_size(bytes);
            for answer in [ok(&body, ""), in_parts(&body)] {
                let clients = builder().0.danger_allow_loopback().max_bytes(limit);
                host.conducts(Conduct::Answers(answer));
                let found = find(&clients.build().unwrap(), &url).await;
                assert_eq!(found.is_some(), is_taken, "{limit} {bytes}");
            }
        }
    }
}

#[tokio::test]
async fn a_document_of_another_client_is_refused() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    for other in ["https://app.example/client.json", &host.url("localhost"), &format!("{url}/")] {
        let (clients, _) = local();
        host.publishes(&document(other));
        assert!(find(&clients, &url).await.is_none(), "{other}");
    }
    // The app cannot make it another client by mistake.
    let (mut builder, _) = builder();
    builder.admit = Box::new(|_, _| Some(Client::public("admin")));
    let clients = builder.danger_allow_loopback().build().unwrap();
    host.publishes(&document(&url));
    assert!(find(&clients, &url).await.is_none());
}

#[tokio::test]
async fn a_certificate_that_is_not_trusted_proves_nothing() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let clients = ClientDocuments::builder(StaticClients::default(), admits);
    let clients = clients.danger_allow_loopback().build().unwrap();
    assert!(is_unavailable(&clients, &url).await);
    // The name must be in it.
    let names = Names::of(&[&["127.0.0.1"]]);
    assert!(is_unavailable(&with_names(&names), &host.url("evil.example")).await);
    assert_eq!(host.requests(), 0);
}

/// A host that accepts connections and says nothing, until it is dropped.
struct Silent {
    at: SocketAddr,
    connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Silent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Silent {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (at, connections) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
        let counted = Arc::clone(&connections);
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                held.push(listener.accept().await.unwrap());
                counted.fetch_add(1, Ordering::SeqCst);
            }
        });
        Self { at, connections, task }
    }

    async fn has(&self, connections: usize) {
        while self.connections.load(Ordering::SeqCst) < connections {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_flood_of_documents_is_bounded() {
    let host = Host::new().await;
    let known = host.url("app.example");
    host.publishes(&document(&known));
    let (builder, clock) = named(&here());
    let clients = builder.timeout(seconds(30)).build().unwrap();
    assert!(find(&clients, &known).await.is_some());
    // It is due to be fetched again.
    clock.advance(seconds(3_700));
    let silent = Silent::new().await;
    let port = silent.at.port();
    let url = |host: usize, path: usize| format!("https://h{host}.example:{port}/{path}.json");
    let waiting: Vec<_> = (0..MAX_FLIGHTS)
        .map(|number| {
            let url = url(number / MAX_FLIGHTS_OF_HOST, number);
            let clients = clients.clone();
            tokio::spawn(async move { is_unavailable(&clients, &url).await })
        })
        .collect();
    silent.has(MAX_FLIGHTS).await;
    assert!(is_unavailable(&clients, &url(MAX_FLIGHTS, 0)).await);
    assert!(find(&clients, &known).await.is_some(), "a known client goes on");
    assert_eq!(silent.connections.load(Ordering::SeqCst), MAX_FLIGHTS);
    assert_eq!(host.requests(), 1);
    drop(silent);
    for one in waiting {
        assert!(one.await.unwrap());
    }
    assert!(clients.0.known().flights.is_empty());

    // What failed takes bounded room, and leaves it.
    let now = clock.now();
    let mut known = clients.0.known();
    let id = |host: usize, path: usize| ClientId::new(url(host, path)).unwrap();
    for number in 0..2 * MAX_FAILURES {
        known.fail(&id(0, number), "h0.example", Missing::Refused, now);
    }
    assert_eq!(known.failures.len(), MAX_FAILURES);
    known.fail(&id(0, 9_999), "h0.example", Missing::Refused, now + PAUSE);
    assert_eq!(known.failures.len(), 1);
}

#[tokio::test]
async fn one_host_with_many_documents_keeps_no_other_from_being_fetched() {
    let host = Host::new().await;
    let other = host.url("other.example");
    host.publishes(&document(&other));
    let silent = Silent::new().await;
    let clients = named(&here()).0.timeout(seconds(30)).build().unwrap();
    let port = silent.at.port();
    let url = |number: usize| format!("https://app.example:{port}/{number}.json");
    let waiting: Vec<_> = (0..MAX_FLIGHTS_OF_HOST)
        .map(|number| {
            let (clients, url) = (clients.clone(), url(number));
            tokio::spawn(async move { is_unavailable(&clients, &url).await })
        })
        .collect();
    silent.has(MAX_FLIGHTS_OF_HOST).await;
    // Another port is the same host.
    for crowded in [url(9), host.url("app.example")] {
        assert!(is_unavailable(&clients, &crowded).await);
    }
    assert!(find(&clients, &other).await.is_some());
    assert_eq!(host.requests(), 1);
    drop(silent);
    for one in waiting {
        assert!(one.await.unwrap());
    }
}

#[tokio::test]
async fn one_host_with_many_failures_makes_no_other_forgotten() {
    let clients = named(&here()).0.build().unwrap();
    let now = clients.0.clock.now();
    let id = |name: &str| ClientId::new(format!("https://{name}.json")).unwrap();
    let mut known = clients.0.known();
    let other = id("other.example/0");
    known.fail(&other, "other.example", Missing::Refused, now);
    for number in 0..2 * MAX_FAILURES {
        let path = id(&format!("app.example/{number}"));
        known.fail(&path, "app.example", Missing::Refused, now + seconds(1));
    }
    assert_eq!(known.failures.len(), MAX_FAILURES);
    assert!(known.failures.contains_key(&other));
}
