//! What everyone may read: the JWK Set (RFC 7517) and the metadata (RFC 8414).

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::core::ClientId;
use cloakroom::http::Endpoints;
use cloakroom::jwt::Algorithm;
use cloakroom::{Client, ClientDirectory, DirectoryError};
use serde_json::{Value, json};

use super::request::{Reply, With, get, post};
use super::server::{ISSUER, Server, Wire};

const JWK_SET: &str = "/.well-known/jwks.json";
const METADATA: &str = "/.well-known/oauth-authorization-server";

#[tokio::test]
async fn the_jwk_set_is_cached_and_asked_for_again_cheaply() {
    let wire = Wire::new().await;
    let reply = wire.send(get(JWK_SET)).await.ok();
    assert_eq!(reply.header("content-type"), "application/jwk-set+json");
    assert_eq!(reply.header("cache-control"), "public, max-age=3600");
    assert_eq!(reply.header("pragma"), "");
    let etag = reply.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 8, "{etag}");

    let ask = |tags: &str| wire.send(get(JWK_SET).with("if-none-match", tags));
    for known in [
        &*etag,
        &format!("W/{etag}"),
        &format!("\"other\", {etag}"),
        &format!("\"other\",W/{etag} , \"more\""),
        "*",
    ] {
        let reply = ask(known).await;
        assert_eq!((reply.status, reply.text()), (304, ""), "{known}");
        assert_eq!(reply.header("etag"), etag);
        assert_eq!(reply.header("cache-control"), "public, max-age=3600");
    }
    for other in ["\"other\"", etag.trim_matches('"'), "W/\"other\", \"x\"", "", "junk\""] {
        assert_eq!(ask(other).await.status, 200, "{other}");
    }
}

#[tokio::test]
async fn another_set_has_another_tag() {
    let server = Server::new().await;
    let before = server.send(get(JWK_SET)).await;
    server.issuer().maintain().await.unwrap();
    // A key's successor is published a day before it signs.
    server.clock.advance(Duration::from_secs(30 * 86_400));
    server.issuer().maintain().await.unwrap();
    let after = server.send(get(JWK_SET)).await;
    assert_ne!(before.body, after.body);
    let asked = get(JWK_SET).with("if-none-match", before.header("etag"));
    assert_eq!(server.send(asked).await.status, 200);
}

#[tokio::test]
async fn no_private_member_is_published() {
    for algorithm in
        [Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa, Algorithm::Rs256, Algorithm::Ps256]
    {
        let server = Server::with(|issuer| issuer.algorithm(algorithm)).await;
        let document = server.send(get(JWK_SET)).await.ok().json();
        let keys = document["keys"].as_array().unwrap();
        assert!(!keys.is_empty());
        for key in keys {
            let members = key.as_object().unwrap();
            // RFC 7518 §6: `d`, `p`, `q`, `dp`, `dq`, `qi`, `oth` and `k` are private; and nobody
            // asks for more than these.
            for name in members.keys() {
                let public = ["alg", "crv", "e", "kid", "kty", "n", "use", "x", "y"];
                assert!(public.contains(&&**name), "{algorithm}: {name}");
            }
            assert_eq!(key["alg"], algorithm.as_str());
            assert_eq!(key["use"], "sig");
        }
        assert_eq!(document.as_object().unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_metadata_says_where_everything_is() {
    let wire = Wire::at("", |endpoints| endpoints).await;
    let reply = wire.send(get(METADATA)).await.ok();
    assert_eq!(reply.header("content-type"), "application/json");
    assert_eq!(reply.header("cache-control"), "public, max-age=3600");
    let issuer = wire.server.issuer().url();
    let at = |path: &str| format!("{issuer}{path}");
    assert_eq!(
        reply.json(),
        json!({
            "issuer": issuer,
            "token_endpoint": at("/token"),
            "introspection_endpoint": at("/introspect"),
            "revocation_endpoint": at("/revoke"),
            "revocations_endpoint": at("/revocations"),
            "handle_keys_endpoint": at("/handle-keys"),
            "jwks_uri": at(JWK_SET),
            // There is no authorization endpoint, so clients are offered no code.
            "response_types_supported": [],
            "grant_types_supported": ["refresh_token", "client_credentials"],
            "token_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "none"],
            "revocation_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post", "none"],
            "introspection_endpoint_auth_methods_supported":
                ["client_secret_basic", "client_secret_post"],
            "introspection_signing_alg_values_supported": ["ES256"],
            "code_challenge_methods_supported": ["S256"],
            "scopes_supported": ["orders:read", "orders:write"],
        })
    );
}

#[tokio::test]
async fn codes_are_offered_with_the_page_that_issues_them() {
    let page = "https://login.example/authorize";
    let metadata = |mount: fn(Endpoints) -> Endpoints| async move {
        Server::new().await.mounted(mount).send(get(METADATA)).await.json()
    };
    let with: [fn(Endpoints) -> Endpoints; 2] = [
        |e| {
            e.authorization_endpoint("https://login.example/authorize").authorization_response_iss()
        },
        |e| {
            e.add_metadata("authorization_endpoint", "https://login.example/authorize".into())
                .add_metadata("authorization_response_iss_parameter_supported", true.into())
        },
    ];
    for mount in with {
        let metadata = metadata(mount).await;
        assert_eq!(metadata["authorization_endpoint"], page);
        assert_eq!(metadata["response_types_supported"], json!(["code"]));
        assert_eq!(metadata["grant_types_supported"][0], "authorization_code");
        assert_eq!(metadata["authorization_response_iss_parameter_supported"], true);
    }
    let without: [fn(Endpoints) -> Endpoints; 2] =
        [|e| e, |e| e.add_metadata("authorization_endpoint", Value::Null)];
    for mount in without {
        let metadata = metadata(mount).await;
        let metadata = metadata.as_object().unwrap();
        assert!(!metadata.contains_key("authorization_endpoint"), "{metadata:?}");
        assert!(!metadata.contains_key("authorization_response_iss_parameter_supported"));
        assert_eq!(metadata["response_types_supported"], json!([]));
        assert!(!metadata["grant_types_supported"].to_string().contains("code"));
    }
}

/// A directory that can name no scopes.
#[derive(Debug)]
struct Registry;

#[async_trait]
impl ClientDirectory for Registry {
    async fn client(&self, _: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        Ok(None)
    }
}

#[tokio::test]
async fn scopes_are_those_of_the_directory_or_of_the_app() {
    let named = |e: Endpoints| e.add_metadata("scopes_supported", json!(["orders:read"]));
    let hidden = |e: Endpoints| e.add_metadata("scopes_supported", Value::Null);
    let registry = || Server::with(|issuer| issuer.clients(Arc::new(Registry)));
    for (server, scopes) in [
        (Server::new().await, json!(["orders:read", "orders:write"])),
        (Server::new().await.mounted(named), json!(["orders:read"])),
        (Server::new().await.mounted(hidden), Value::Null),
        (registry().await, Value::Null),
        (registry().await.mounted(named), json!(["orders:read"])),
    ] {
        let metadata = server.send(get(METADATA)).await.json();
        assert_eq!(metadata["scopes_supported"], scopes);
        assert_eq!(metadata.get("scopes_supported").is_none(), scopes.is_null());
    }
}

#[tokio::test]
async fn every_algorithm_is_named_that_still_signs() {
    const DAYS: Duration = Duration::from_secs(86_400);
    let named = |server: &Server| {
        let endpoints = server.endpoints.clone();
        async move {
            let reply: Reply = endpoints.handle(get(METADATA)).await.into();
            reply.json()["introspection_signing_alg_values_supported"].clone()
        }
    };
    let signer = |server: &Server| {
        let issuer = server.issuer().clone();
        async move { issuer.keys().signer().await.unwrap().algorithm() }
    };
    let before = Server::new().await;
    assert_eq!(named(&before).await, json!(["ES256"]));
    // The same keys, and new ones in another algorithm.
    let store = before.store.clone();
    let clock = before.clock.clone();
    let after =
        Server::with(|issuer| issuer.store(store).clock(clock).algorithm(Algorithm::EdDsa)).await;
    assert_eq!(signer(&after).await, Algorithm::Es256);
    assert_eq!(named(&after).await, json!(["ES256", "EdDSA"]));
    let mut seen = Vec::new();
    for _ in 0..120 {
        before.clock.advance(DAYS);
        after.issuer().maintain().await.unwrap();
        let (names, algorithm) = (named(&after).await, signer(&after).await);
        assert!(names.as_array().unwrap().contains(&json!(algorithm.as_str())), "{names}");
        // What an ended key has signed is still verified, but it signs no more.
        assert_eq!(names == json!(["EdDSA"]), algorithm == Algorithm::EdDsa, "{names}");
        seen.push(names);
    }
    seen.dedup();
    assert_eq!(seen, [json!(["ES256", "EdDSA"]), json!(["EdDSA"])]);
    // Without its keys it names what it knew.
    after.store.keys_down(true);
    before.clock.advance(DAYS);
    assert_eq!(named(&after).await, json!(["EdDSA"]));
}

#[tokio::test]
async fn an_issuer_with_a_path_is_found_and_every_endpoint_answers() {
    let page = "https://login.example/authorize";
    let wire = Wire::at("/tenants/one", |e| e.authorization_endpoint(page)).await;
    // RFC 8414 §3.1: the well-known part goes between the host and the path.
    let metadata = wire.send(get(&format!("{METADATA}/tenants/one"))).await.ok().json();
    assert_eq!(metadata["issuer"], wire.server.issuer().url());
    assert_eq!(metadata["authorization_endpoint"], page);

    let url = |name: &str| metadata[name].as_str().unwrap().to_owned();
    let keys = wire.send(get(&url("jwks_uri"))).await.ok().json();
    assert!(!keys["keys"].as_array().unwrap().is_empty());
    for name in ["token_endpoint", "introspection_endpoint", "revocation_endpoint"] {
        let reply = wire.send(post(&url(name), &[])).await;
        reply.refused(401, "invalid_client");
    }
    for name in ["revocations_endpoint", "handle_keys_endpoint"] {
        wire.send(get(&url(name))).await.refused(401, "invalid_client");
    }
    for elsewhere in [
        METADATA,
        JWK_SET,
        "/token",
        &format!("/tenants/one{METADATA}"),
        &format!("{METADATA}/tenants/two"),
        &format!("{METADATA}/tenants/one/"),
        "/tenants/two/token",
    ] {
        assert_eq!(wire.send(get(elsewhere)).await.status, 404, "{elsewhere}");
        assert_eq!(wire.server.send(get(elsewhere)).await.status, 404, "{elsewhere}");
    }
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let wire = Wire::new().await;
    for path in [JWK_SET, METADATA] {
        let head = || http::Request::head(path).body(bytes::Bytes::new()).unwrap();
        let full = wire.send(get(path)).await.ok();
        let same = |reply: &Reply| {
            assert_eq!((reply.status, reply.text()), (200, ""));
            assert_eq!(reply.header("content-length"), full.body.len().to_string());
            for name in ["etag", "cache-control", "content-type"] {
                assert_eq!(reply.header(name), full.header(name));
            }
        };
        same(&wire.send(head()).await);
        same(&wire.server.send(head()).await);
    }
    let etag = wire.send(get(JWK_SET)).await.header("etag").to_owned();
    let head = http::Request::head(JWK_SET).body(bytes::Bytes::new()).unwrap();
    assert_eq!(wire.send(head.with("if-none-match", &etag)).await.status, 304);
}

#[tokio::test]
async fn a_server_without_its_keys_says_so_and_never_publishes_an_empty_set() {
    let server = Server::new().await;
    server.store.keys_down(true);
    // What was loaded a moment ago is good enough.
    let keys: Value = server.send(get(JWK_SET)).await.ok().json();
    assert_eq!(keys["keys"].as_array().map(Vec::is_empty), Some(false));

    server.advance(61);
    let reply = server.send(get(JWK_SET)).await;
    reply.refused(503, "temporarily_unavailable");
    server.send(get(METADATA)).await.ok();
    server.store.keys_down(false);
    // The key store is not asked again at once.
    server.advance(10);
    server.send(get(JWK_SET)).await.ok();
}

#[tokio::test]
async fn what_the_app_adds_to_the_metadata_replaces_nothing() {
    let server = Server::new().await.mounted(|endpoints| {
        endpoints
            .add_metadata("issuer", "https://evil.example".into())
            .add_metadata("jwks_uri", "https://evil.example/jwks.json".into())
            .add_metadata("service_documentation", "https://docs.example".into())
            .add_metadata("response_types_supported", json!(["token"]))
    });
    let metadata = server.send(get(METADATA)).await.json();
    assert_eq!(metadata["issuer"], ISSUER);
    assert!(metadata["jwks_uri"].as_str().unwrap().starts_with(ISSUER), "{metadata}");
    assert_eq!(metadata["service_documentation"], "https://docs.example");
    assert_eq!(metadata["response_types_supported"], json!([]));
}
