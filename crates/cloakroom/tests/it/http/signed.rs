//! Introspection as a signed JWT (RFC 9701).

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::Audience;
use cloakroom::jwt::Algorithm;
use cloakroom::{Client, Serves};
use serde_json::{Value, json};

use super::request::{With, get, post};
use super::server::{ORDERS, SECRET, START, Server, Wire};

const TYPE: &str = "application/token-introspection+jwt";

fn decoded(part: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(part).unwrap()
}

/// Checks the signature by the published JWK Set, with nothing of ours, and returns the header and
/// the claims.
fn opened(jwk_set: &Value, jwt: &str) -> (Value, Value) {
    let (input, signature) = jwt.rsplit_once('.').unwrap();
    let (header, claims) = input.split_once('.').unwrap();
    let header: Value = serde_json::from_slice(&decoded(header)).unwrap();
    let mut keys = jwk_set["keys"].as_array().unwrap().iter();
    let key = keys.find(|key| key["kid"] == header["kid"]).unwrap();
    let (x, y) = (key["x"].as_str().unwrap(), key["y"].as_str().unwrap());
    let point = [vec![4], decoded(x), decoded(y)].concat();
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
        .verify(input.as_bytes(), &decoded(signature))
        .unwrap();
    (header, serde_json::from_slice(&decoded(claims)).unwrap())
}

#[tokio::test]
async fn the_answer_is_evidence_for_its_caller() {
    let wire = Wire::new().await;
    let server = &wire.server;
    let session = server.session("web-app").await;
    let jwk_set = wire.send(get("/.well-known/jwks.json")).await.json();
    for (caller, token) in [
        ("orders-api", &*session.access),
        ("gateway", &session.access),
        ("billing-api", &session.access),
        ("orders-api", &session.refresh),
        ("orders-api", "junk"),
    ] {
        let plain = server.introspect(caller, token).await.json();
        let request = post("/introspect", &[("token", token)]).with("accept", TYPE);
        let reply = wire.send(request.basic(caller, SECRET)).await.ok();
        assert_eq!(reply.header("content-type"), TYPE);
        assert_eq!(reply.header("cache-control"), "no-store");

        // RFC 9701 §5: signed also when the token is inactive.
        let (header, claims) = opened(&jwk_set, reply.text());
        assert_eq!(header["typ"], "token-introspection+jwt");
        assert_eq!(header["alg"], "ES256");
        assert_eq!(
            claims,
            json!({
                "iss": server.issuer().url(),
                "aud": caller,
                "iat": START.as_secs(),
                "token_introspection": plain,
            })
        );
    }
}

/// A resource server that knows RS256 alone can read the answers that it gets, and the metadata says
/// so.
#[tokio::test]
async fn a_resource_server_gets_answers_of_its_algorithm() {
    let server = Server::with(|issuer| issuer.algorithm_for(ORDERS, Algorithm::Rs256)).await;
    let session = server.session("web-app").await;
    for (caller, expected) in
        [("orders-api", "RS256"), ("billing-api", "ES256"), ("gateway", "ES256")]
    {
        let request = post("/introspect", &[("token", &*session.access)]).with("accept", TYPE);
        let reply = server.send(request.basic(caller, SECRET)).await.ok();
        let header = decoded(reply.text().split('.').next().unwrap());
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["alg"], expected, "{caller}");
    }
    let metadata = server.send(get("/.well-known/oauth-authorization-server")).await.json();
    assert_eq!(metadata["introspection_signing_alg_values_supported"], json!(["ES256", "RS256"]));
}

/// RFC 9701 §6: the registration of a resource server names the algorithm of its answers. That of the
/// resources that it serves comes first.
#[tokio::test]
async fn a_resource_server_may_name_the_algorithm_of_its_answers() {
    let serves = |id: &str, serves| {
        Client::resource_server(id, SECRET, serves).jwt_algorithm(Algorithm::EdDsa)
    };
    let orders = || Serves::Only(Audience::one(ORDERS).unwrap());
    let server = Server::with(|issuer| {
        issuer
            .algorithm_for(ORDERS, Algorithm::Rs256)
            .further_algorithm(Algorithm::EdDsa)
            .static_clients([serves("orders-api", orders()), serves("gateway", Serves::Everything)])
            .unwrap()
    })
    .await;
    for (caller, expected) in [("orders-api", "RS256"), ("gateway", "EdDSA")] {
        let request = post("/introspect", &[("token", "unknown")]).with("accept", TYPE);
        let reply = server.send(request.basic(caller, SECRET)).await.ok();
        let header = decoded(reply.text().split('.').next().unwrap());
        let header: Value = serde_json::from_slice(&header).unwrap();
        assert_eq!(header["alg"], expected, "{caller}");
    }
    let metadata = server.send(get("/.well-known/oauth-authorization-server")).await.json();
    let expected = json!(["ES256", "EdDSA", "RS256"]);
    assert_eq!(metadata["introspection_signing_alg_values_supported"], expected);
}

#[tokio::test]
async fn it_never_passes_for_an_access_token() {
    let server = Server::new().await;
    let keys = server.keys().await;
    let session = server.session("web-app").await;
    let ask = |accept: &str| {
        let request = post("/introspect", &[("token", &*session.access)]);
        server.send(request.with("accept", accept).basic("orders-api", SECRET))
    };
    let evidence = ask(TYPE).await.ok();
    // Whatever audience is looked for: its caller's name, or the resource.
    for audience in ["orders-api", ORDERS] {
        let error = server.verifier(audience).verify(&keys, evidence.text()).unwrap_err();
        assert!(error.to_string().contains("header"), "not for its `typ`: {error}");
    }
    // Nor does the server itself take it for one.
    let reply = server.introspect("orders-api", evidence.text()).await;
    assert_eq!(reply.text(), r#"{"active":false}"#);

    // And an access token is no such answer: its `typ` is another.
    let phantom = ask("application/jwt").await.ok();
    server.verifier(ORDERS).verify(&keys, phantom.text()).unwrap();
    let jwk_set = server.send(get("/.well-known/jwks.json")).await.json();
    for jwt in [phantom.text(), &server.client_token("batch-job", &[]).await] {
        let (header, claims) = opened(&jwk_set, jwt);
        assert_eq!(header["typ"], "at+jwt");
        assert!(claims.get("token_introspection").is_none());
    }
}
