//! How a document is fetched and read.

use super::*;

#[tokio::test]
async fn a_document_becomes_a_client() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let home = url.replace("client.json", "home");
    let mut published = document(&url);
    published["client_uri"] = home.as_str().into();
    host.publishes(&published);
    let (clients, _) = local();
    let client = find(&clients, &url).await.unwrap();
    assert_eq!((client.id().as_str(), client.name()), (&*url, Some("App")));
    assert_eq!(client.uri(), Some(&*home));
    assert!(client.is_public() && client.requires_pkce());
    assert!(client.is_redirect_uri("http://127.0.0.1:1234/cb"));
    assert_eq!(client.scope().as_str(), "notes:read");
    let read = clients.document(client.id()).unwrap();
    assert_eq!((read.url(), read.host()), (&*url, "127.0.0.1"));
    assert!(clients.takes_documents() && !StaticClients::default().takes_documents());
}

#[tokio::test]
async fn registered_clients_come_first_and_other_names_are_not_looked_up() {
    let registered = StaticClients::new([
        Client::public("app"),
        Client::public("https://app.example/client.json").name("Registered"),
    ]);
    let names = Names::of(&[&["127.0.0.1"]]);
    let mut builder = ClientDocuments::builder(registered.unwrap(), admits);
    builder.resolver = Arc::new(names.clone());
    let clients = builder.build().unwrap();
    assert!(find(&clients, "app").await.is_some());
    let registered = find(&clients, "https://app.example/client.json").await.unwrap();
    assert_eq!(registered.name(), Some("Registered"));
    for other in ["other", "http://app.example/c", "https://app.example/", "https://a@b.example/c"]
    {
        assert!(find(&clients, other).await.is_none());
    }
    assert_eq!(names.look_ups.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn only_plain_json_is_read() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let body = document(&url).to_string();
    for (content_type, more, accepted) in [
        ("application/json", "", true),
        ("application/json; charset=utf-8", "", true),
        ("Application/JSON", "content-encoding: identity\r\n", true),
        ("application/oauth-client+json", "", true),
        ("text/html", "", false),
        ("text/plain", "", false),
        ("application/jsonp", "", false),
        ("image/svg+json", "", false),
        ("application/json", "content-encoding: gzip\r\n", false),
        ("application/json", "content-type: text/html\r\n", false),
    ] {
        let (clients, _) = local();
        let length = body.len();
        host.conducts(Conduct::Answers(format!(
            "HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\n{more}content-length: {length}\r\n\r\n{body}"
        )));
        assert_eq!(find(&clients, &url).await.is_some(), accepted, "{content_type} {more}");
    }
    for status in ["201 Created", "204 No Content", "206 Partial Content", "403 Forbidden", "404 x"]
    {
        let (clients, _) = local();
        host.conducts(Conduct::Answers(ok(&body, "").replace("200 OK", status)));
        assert!(find(&clients, &url).await.is_none(), "{status}");
    }
}

#[tokio::test]
async fn what_the_app_does_not_allow_is_not_fetched() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let allowing = builder().0.danger_allow_loopback().allow(|url| url.contains("app.example"));
    assert!(find(&allowing.build().unwrap(), &url).await.is_none());
    assert_eq!(host.requests(), 0);
    // It may also decide by what the document says.
    let (mut builder, _) = builder();
    builder.admit = Box::new(|client, document| (document.name() != Some("App")).then_some(client));
    let clients = builder.danger_allow_loopback().build().unwrap();
    assert!(find(&clients, &url).await.is_none());
    assert_eq!(host.requests(), 1);
}

#[tokio::test]
async fn clients_authenticate_by_key_or_not_at_all() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    let mut signing = document(&url);
    signing["token_endpoint_auth_method"] = "private_key_jwt".into();
    signing["jwks"] = json!({ "keys": [] });
    host.publishes(&signing);
    assert!(find(&local().0, &url).await.is_none());
    let (builder, _) = builder();
    let clients = builder.danger_allow_loopback().private_key_jwt().build().unwrap();
    let client = find(&clients, &url).await.unwrap();
    assert!(!client.is_public() && !client.has_secret(""));
    let read = clients.document(client.id()).unwrap();
    assert_eq!(read.member("jwks"), Some(&json!({ "keys": [] })));
}

#[tokio::test]
async fn everyone_who_waits_for_a_document_shares_one_fetch() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    host.gate.forget_permits(1_000_000);
    let (clients, _) = local();
    let asking = |clients: &ClientDocuments| {
        let (clients, url) = (clients.clone(), url.clone());
        tokio::spawn(async move { find(&clients, &url).await.is_some() })
    };
    let first = asking(&clients);
    while host.requests() == 0 {
        tokio::task::yield_now().await;
    }
    // The one who began goes away.
    first.abort();
    let others: Vec<_> = (0..20).map(|_| asking(&clients)).collect();
    host.gate.add_permits(1);
    for other in others {
        assert!(other.await.unwrap());
    }
    assert_eq!(host.requests(), 1);
}

#[tokio::test]
async fn a_hook_that_panics_holds_nobody_up() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    host.publishes(&document(&url));
    let (mut builder, _) = builder();
    builder.admit = Box::new(|_, _| panic!("the app is broken"));
    let clients = builder.danger_allow_loopback().build().unwrap();
    for _ in 0..2 {
        assert!(is_unavailable(&clients, &url).await);
        assert!(clients.0.known().flights.is_empty());
    }
}

#[tokio::test]
async fn a_document_has_32_redirect_uris_at_most() {
    let host = Host::new().await;
    let url = host.url("127.0.0.1");
    for (number, is_taken) in [(32, true), (33, false)] {
        let uris: Vec<_> = (0..number).map(|n| format!("http://127.0.0.1/{n}")).collect();
        let mut published = document(&url);
        published["redirect_uris"] = uris.into();
        host.publishes(&published);
        assert_eq!(find(&local().0, &url).await.is_some(), is_taken, "{number}");
    }
}
