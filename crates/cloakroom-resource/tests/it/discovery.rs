use cloakroom_core::TokenSecret;
use cloakroom_resource::{
    ClientCredentials, IntrospectionClient, Introspector, SetupError, UnavailableError, Verifier,
};
use serde_json::json;

use crate::support::{AUDIENCE, Key, Peer, chain, claims_with, json, key_set, respond, secret};

const WELL_KNOWN: &str = "/.well-known/oauth-authorization-server";

/// Serves metadata at the one path where RFC 8414 wants it, and the JWK Set.
async fn issuer(suffix: &str, metadata_path: &str, key: &Key) -> (Peer, String) {
    let peer = Peer::start(|_| respond(404, "", "")).await;
    let issuer = format!("{}{suffix}", peer.url);
    let metadata = json!({
        "issuer": issuer,
        "jwks_uri": format!("{}/keys", peer.url),
        "introspection_endpoint": format!("{}/introspect", peer.url),
    });
    let (path, keys) = (metadata_path.to_owned(), key_set(&[key]));
    peer.answer_with(move |request| match &*request.path {
        "/keys" => respond(200, "application/json", &keys),
        "/introspect" => json(&json!({ "active": false })),
        found if found == path => json(&metadata),
        _ => respond(404, "text/plain", "nothing here"),
    });
    (peer, issuer)
}

#[tokio::test]
async fn an_issuer_is_all_one_needs() {
    let key = Key::new();
    for (suffix, metadata_path) in [
        ("", WELL_KNOWN.to_owned()),
        ("/", WELL_KNOWN.to_owned()),
        ("/tenant/1", format!("{WELL_KNOWN}/tenant/1")),
        ("/tenant/", format!("{WELL_KNOWN}/tenant")),
    ] {
        let (peer, issuer) = issuer(suffix, &metadata_path, &key).await;
        let verifier = Verifier::discover(&issuer, AUDIENCE).await.unwrap();
        assert_eq!(peer.count(), 1);

        let now =
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        let claims = claims_with(&json!({ "iss": issuer, "iat": now, "exp": now + 600 }));
        let token = verifier.verify(&secret(&key.sign(&claims).await)).await.unwrap();
        assert_eq!(token.subject().unwrap().id(), "alice");
        assert_eq!(peer.last().path, "/keys");

        let credentials = ClientCredentials::new("api", "secret");
        let client = IntrospectionClient::discover(&issuer, credentials).await.unwrap();
        let answer = client.introspect(&TokenSecret::new("x")).await.unwrap();
        assert!(!answer.is_active());
        assert_eq!(peer.last().path, "/introspect");
    }
}

#[tokio::test]
async fn the_document_of_openid_connect_serves_where_there_is_no_other() {
    let key = Key::new();
    for suffix in ["", "/", "/tenant/1", "/tenant/"] {
        let path = format!("{}/.well-known/openid-configuration", suffix.trim_end_matches('/'));
        let (peer, issuer) = issuer(suffix, &path, &key).await;
        Verifier::discover(&issuer, AUDIENCE).await.unwrap();
        assert_eq!((peer.count(), peer.last().path), (2, path));
    }
    // Or where a page for people stands in the first place, or another document.
    for (kind, body) in [("text/html", "<h1>Sign in</h1>"), ("application/json", "[]")] {
        let peer = Peer::start(|_| respond(404, "", "")).await;
        let document = json!({ "issuer": peer.url, "jwks_uri": format!("{}/keys", peer.url) });
        peer.answer_with(move |request| match request.path.ends_with("openid-configuration") {
            true => json(&document),
            false => respond(200, kind, body),
        });
        Verifier::discover(&peer.url, AUDIENCE).await.unwrap();
        assert_eq!(peer.count(), 2, "{kind}");
    }
    // What it says is held to the same rules.
    let peer = Peer::start(|_| respond(404, "", "")).await;
    for document in [json!({ "issuer": "https://other.example" }), json!(["https://as.example"])] {
        peer.answer_with(move |request| match request.path.ends_with("openid-configuration") {
            true => json(&document),
            false => respond(200, "text/html", "<h1>Sign in</h1>"),
        });
        let error = Verifier::discover(&peer.url, AUDIENCE).await.unwrap_err();
        assert!(
            matches!(error, SetupError::IssuerMismatch { .. } | SetupError::Fetch { .. }),
            "{error:?}"
        );
    }
    // Where there is neither, the error names the first place; an outage at the second one is told.
    for (second, told, place) in [(404, 404, WELL_KNOWN), (503, 503, "openid-configuration")] {
        peer.answer_with(move |request| match request.path.ends_with("openid-configuration") {
            true => respond(second, "", ""),
            false => respond(404, "", ""),
        });
        match Verifier::discover(&peer.url, AUDIENCE).await.unwrap_err() {
            SetupError::Fetch { uri, source: UnavailableError::Status(status) } => {
                assert!(status == told && uri.path().ends_with(place), "{status} {uri}");
            }
            other => panic!("{other}"),
        }
    }
    // A server that is down is not asked twice.
    peer.answer_with(|_| respond(503, "", ""));
    let before = peer.count();
    assert!(Verifier::discover(&peer.url, AUDIENCE).await.is_err());
    assert_eq!(peer.count(), before + 1);
}

#[tokio::test]
async fn another_issuers_metadata_is_refused() {
    let key = Key::new();
    // The document of "…/" is served for "…", and the other way round.
    for (served, asked) in [("", "/"), ("/", ""), ("/a/", "/a"), ("/a", "/a/")] {
        let path = format!("{WELL_KNOWN}{}", served.trim_end_matches('/'));
        let (peer, issuer) = issuer(served, &path, &key).await;
        let asked = format!("{}{asked}", peer.url);
        match Verifier::discover(&asked, AUDIENCE).await.unwrap_err() {
            SetupError::IssuerMismatch { expected, found } => {
                assert_eq!((expected, found), (asked, issuer));
            }
            other => panic!("{other}"),
        }
        assert_eq!(peer.count(), 1, "the keys were not even asked for");
    }
}

#[tokio::test]
async fn endpoints_that_cannot_be_trusted_are_refused() {
    let peer = Peer::start(|_| respond(404, "", "")).await;
    for (jwks_uri, missing) in [
        (json!(null), true),
        (json!("http://keys.example/jwks"), false),
        (json!("ftp://keys.example/jwks"), false),
        (json!("/keys"), false),
        (json!("https://user:pass@keys.example/jwks"), false),
    ] {
        let metadata = json!({ "issuer": peer.url, "jwks_uri": jwks_uri });
        peer.answer_with(move |_| json(&metadata));
        match Verifier::discover(&peer.url, AUDIENCE).await.unwrap_err() {
            SetupError::Missing("jwks_uri") if missing => {}
            SetupError::Url { what: "jwks_uri", .. } if !missing => {}
            other => panic!("{jwks_uri}: {other}"),
        }
    }
    let credentials = ClientCredentials::new("api", "secret");
    let error = IntrospectionClient::discover(&peer.url, credentials).await.unwrap_err();
    assert!(matches!(error, SetupError::Missing("introspection_endpoint")), "{error}");
}

#[tokio::test]
async fn what_is_no_metadata_is_refused() {
    let peer = Peer::start(|_| respond(404, "", "")).await;
    let good = json!({ "issuer": peer.url, "jwks_uri": format!("{}/keys", peer.url) });
    for (status, content_type, body) in [
        (404, "application/json", good.to_string()),
        (500, "application/json", good.to_string()),
        (204, "", String::new()),
        (302, "application/json", good.to_string()),
        (200, "text/html", good.to_string()),
        (200, "", good.to_string()),
        (200, "application/json", String::new()),
        (200, "application/json", "[]".to_owned()),
        (200, "application/json", json!([peer.url, format!("{}/keys", peer.url)]).to_string()),
        (200, "application/json", r#"{"jwks_uri":"https://x.example"}"#.to_owned()),
        (200, "application/json", r#"{"issuer":1}"#.to_owned()),
        (200, "application/json", format!("{good}{}", " ".repeat(256 * 1024))),
    ] {
        peer.answer_with(move |_| respond(status, content_type, &body));
        let error = Verifier::discover(&peer.url, AUDIENCE).await.unwrap_err();
        assert!(matches!(error, SetupError::Fetch { .. }), "{status} {content_type}: {error}");
    }
    let url = peer.url.clone();
    drop(peer);
    let error = Verifier::discover(&url, AUDIENCE).await.unwrap_err();
    assert!(
        matches!(error, SetupError::Fetch { source: UnavailableError::NoAnswer(_), .. }),
        "{error}"
    );
    let text = chain(&error);
    // Where, what, and what the HTTP stack says of it.
    let place = format!("{url}{WELL_KNOWN}: no answer");
    assert!(text.contains(&place) && text.contains("the HTTP request failed: "), "{text}");
}

#[tokio::test]
async fn an_issuer_must_be_an_issuer() {
    for (bad, expected) in [
        ("", "it cannot be parsed"),
        ("as.example", "it cannot be parsed"),
        ("https://", "it cannot be parsed"),
        ("http://as.example", "plain http is accepted only for this machine; use https"),
        ("https://as.example?tenant=1", "it has a query"),
        ("https://as.example/#top", "it has a fragment"),
        ("https://user@as.example", "it contains credentials"),
        ("https://:secret@as.example", "it contains credentials"),
        ("urn:issuer", "it is not https"),
    ] {
        match Verifier::discover(bad, AUDIENCE).await.unwrap_err() {
            SetupError::Url { what: "issuer", why } => assert_eq!(why, expected, "{bad}"),
            other => panic!("{bad}: {other}"),
        }
    }
}
