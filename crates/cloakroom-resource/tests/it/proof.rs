use std::convert::Infallible;

use cloakroom_core::{Confirmation, Introspection, TokenSecret};
use cloakroom_resource::{
    BearerLayer, Introspector, InvalidToken, PhantomJwt, PhantomLayer, TokenError,
    UnavailableError, VerifiedToken, async_trait,
};
use http::{Request, Response};
use serde_json::{Value, json};
use tower::{Layer, ServiceBuilder, ServiceExt, service_fn};

use crate::bearer::send_with;
use crate::introspection::client;
use crate::support::{
    AUDIENCE, ISSUER, Key, Peer, claims_with, is_invalid, json, manual_clock, secret,
};

fn jwk(byte: u8) -> Confirmation {
    Confirmation::JwkThumbprint([byte; 32])
}

fn certificate(byte: u8) -> Confirmation {
    Confirmation::CertificateThumbprint([byte; 32])
}

/// Token, scheme, proof, and whether the three go together.
fn cases() -> Vec<(Option<Confirmation>, &'static str, Option<Confirmation>, bool)> {
    let proofs = || [None, Some(jwk(1)), Some(jwk(2)), Some(certificate(1)), Some(certificate(2))];
    let mut cases = Vec::new();
    for proof in proofs() {
        cases.push((None, "Bearer", proof.clone(), true));
        cases.push((None, "DPoP", proof.clone(), false));
        cases.push((Some(jwk(1)), "Bearer", proof.clone(), false));
        cases.push((Some(jwk(1)), "dpop", proof.clone(), proof == Some(jwk(1))));
        cases.push((Some(certificate(1)), "Bearer", proof.clone(), proof == Some(certificate(1))));
        cases.push((Some(certificate(1)), "DPoP", proof, false));
    }
    cases
}

fn bound(key: Option<&Confirmation>) -> Value {
    claims_with(&json!({ "cnf": key }))
}

/// What both layers answer, in the scheme that the token came in.
fn assert_answer<B>(response: &Response<B>, scheme: &str, accepted: bool, what: &str) {
    if accepted {
        assert_eq!(response.status(), 200, "{what}");
        return;
    }
    assert_eq!(response.status(), 401, "{what}");
    let scheme = if scheme == "Bearer" { scheme } else { "DPoP" };
    let expected = format!(r#"{scheme} realm="{AUDIENCE}", error="invalid_token""#);
    assert_eq!(response.headers()["www-authenticate"], expected, "{what}");
}

#[tokio::test]
async fn a_bound_jwt_needs_its_proof_and_its_scheme() {
    let key = Key::new();
    let layer = BearerLayer::new(key.verifier(&manual_clock()));
    for (cnf, scheme, proof, accepted) in cases() {
        let credential = format!("{scheme} {}", key.sign(&bound(cnf.as_ref())).await);
        let response = send_with(&layer, &[credential.as_bytes()], proof.clone()).await;
        assert_answer(&response, scheme, accepted, &format!("{cnf:?} {scheme} {proof:?}"));
    }
    // What else may be wrong with it is not made good by a proof.
    let expired = key.sign(&claims_with(&json!({ "cnf": jwk(1), "exp": 2 }))).await;
    let dpop = format!("DPoP {expired}");
    let response = send_with(&layer, &[dpop.as_bytes()], Some(jwk(1))).await;
    assert_answer(&response, "DPoP", false, "expired");

    let writing = layer.require_scope("orders:write").unwrap();
    let dpop = format!("DPoP {}", key.sign(&bound(Some(&jwk(1)))).await);
    let response = send_with(&writing, &[dpop.as_bytes()], Some(jwk(1))).await;
    assert_eq!(response.status(), 403);
    let challenge = response.headers()["www-authenticate"].to_str().unwrap();
    assert!(challenge.starts_with("DPoP ") && challenge.contains("insufficient_scope"));
}

#[tokio::test]
async fn an_introspected_token_needs_them_too() {
    let peer = Peer::start(|_| json(&json!({ "active": false }))).await;
    let layer = BearerLayer::introspecting(client(&peer), ISSUER, AUDIENCE);
    for (cnf, scheme, proof, accepted) in cases() {
        let mut answer = json!({ "active": true, "sub": "alice", "aud": AUDIENCE });
        if let Some(cnf) = &cnf {
            answer["cnf"] = json!(cnf);
        }
        peer.answer_with(move |_| json(&answer));
        let credential = format!("{scheme} cr_at_x");
        let response = send_with(&layer, &[credential.as_bytes()], proof.clone()).await;
        assert_answer(&response, scheme, accepted, &format!("{cnf:?} {scheme} {proof:?}"));
    }
    let count = peer.count();
    for unproved in [None, Some(certificate(1))] {
        let response = send_with(&layer, &[b"DPoP cr_at_x"], unproved).await;
        assert_answer(&response, "DPoP", false, "no DPoP proof");
    }
    assert_eq!(peer.count(), count, "nobody is asked about what cannot pass");
}

#[tokio::test]
async fn without_a_request_the_proof_is_said() {
    let key = Key::new();
    let verifier = key.verifier(&manual_clock());
    for cnf in [jwk(1), certificate(1)] {
        let token = key.sign(&bound(Some(&cnf))).await;
        let refused = verifier.verify(&secret(&token)).await;
        assert!(matches!(refused, Err(TokenError::Invalid(InvalidToken::Binding(_)))));
        for (proof, accepted) in [(&cnf, true), (&jwk(2), false), (&certificate(2), false)] {
            let result = verifier.verify_with(&secret(&token), Some(proof)).await;
            assert_eq!(result.is_ok(), accepted, "{cnf:?} {proof:?}");
            assert_eq!(is_invalid(&result), !accepted);
        }
    }
    let unbound = key.token().await;
    assert!(verifier.verify_with(&secret(&unbound), Some(&jwk(1))).await.is_ok());
}

/// An authorization server in the same process: swaps whatever it gets for this JWT.
#[derive(Debug)]
struct Swaps(String);

#[async_trait]
impl Introspector for Swaps {
    async fn introspect(&self, _: &TokenSecret) -> Result<Introspection, UnavailableError> {
        Ok(Introspection::Inactive)
    }

    async fn swap(&self, _: &TokenSecret, _: &str) -> Result<Option<PhantomJwt>, UnavailableError> {
        PhantomJwt::parse(TokenSecret::new(self.0.as_str())).map(Some)
    }
}

fn request(header: (&str, &str), proved: Option<Confirmation>) -> Request<()> {
    let mut request = Request::get("/orders").header(header.0, header.1).body(()).unwrap();
    if let Some(key) = proved {
        request.extensions_mut().insert(key);
    }
    request
}

/// Says what `Authorization` reached it.
async fn echo(request: Request<()>) -> Result<Response<String>, Infallible> {
    let value = request.headers()["authorization"].to_str().unwrap();
    Ok(Response::new(value.to_owned()))
}

#[tokio::test]
async fn a_bound_handle_is_swapped_for_its_proof_alone() {
    let key = Key::new();
    for (cnf, scheme, proof, accepted) in cases() {
        let jwt = key.sign(&bound(cnf.as_ref())).await;
        let what = format!("{cnf:?} {scheme} {proof:?}");
        let layer = PhantomLayer::new(Swaps(jwt.clone()), AUDIENCE).cookie("__Host-at");
        let credential = format!("{scheme} cr_at_x");
        let sent = request(("authorization", &credential), proof.clone());
        let response = layer.layer(service_fn(echo)).oneshot(sent).await.unwrap();
        assert_answer(&response, scheme, accepted, &what);
        let passed_on = if accepted { format!("Bearer {jwt}") } else { String::new() };
        assert_eq!(response.body(), &passed_on, "{what}");

        // A cookie is no `DPoP` scheme.
        if scheme == "Bearer" {
            let sent = request(("cookie", "__Host-at=cr_at_x"), proof);
            let response = layer.layer(service_fn(echo)).oneshot(sent).await.unwrap();
            assert_answer(&response, "Bearer", accepted, &what);
        }
    }
    // Two tokens, though one of them came as `DPoP`.
    let layer = PhantomLayer::new(Swaps(key.token().await), AUDIENCE).cookie("__Host-at");
    let mut sent = request(("authorization", "DPoP cr_at_x"), Some(jwk(1)));
    sent.headers_mut().insert("cookie", "__Host-at=cr_at_x".parse().unwrap());
    let response = layer.layer(service_fn(echo)).oneshot(sent).await.unwrap();
    assert_eq!(response.status(), 400);
}

#[tokio::test]
async fn behind_a_gateway_a_phantom_jwt_may_be_bound() {
    let key = Key::new();
    let careful = key.verifier(&manual_clock());
    let trusting = careful.clone().trust_gateway_proofs();
    let phantom = claims_with(&json!({ "cnf": jwk(1), "handle_hash": "A".repeat(43) }));
    let phantom = key.sign(&phantom).await;
    let bearer = format!("Bearer {phantom}");

    assert!(is_invalid(&careful.verify(&secret(&phantom)).await), "off by default");
    let token = trusting.verify(&secret(&phantom)).await.unwrap();
    assert_eq!(token.token().confirmation, Some(jwk(1)), "handlers see the binding");
    assert!(token.handle_hash().is_some());
    let (careful, trusting) = (BearerLayer::new(careful), BearerLayer::new(trusting));
    // The last one: what mutual TLS between the gateway and the service proves.
    for proof in [None, Some(jwk(1)), Some(certificate(9))] {
        let response = send_with(&careful, &[bearer.as_bytes()], proof.clone()).await;
        assert_eq!(response.status(), 401, "{proof:?}");
        let response = send_with(&trusting, &[bearer.as_bytes()], proof.clone()).await;
        assert_eq!(response.status(), 200, "{proof:?}");
    }

    // Bound, but no phantom: the switch is not about it.
    for cnf in [jwk(1), certificate(1)] {
        let bearer = format!("Bearer {}", key.sign(&bound(Some(&cnf))).await);
        for proof in [None, Some(jwk(2)), Some(certificate(2))] {
            let response = send_with(&trusting, &[bearer.as_bytes()], proof).await;
            assert_answer(&response, "Bearer", false, "no phantom");
        }
    }
    // Nor about anything else that may be wrong.
    let forged = Key::new().sign(&json!({ "handle_hash": "A".repeat(43) })).await;
    let response = send_with(&trusting, &[format!("Bearer {forged}").as_bytes()], None).await;
    assert_answer(&response, "Bearer", false, "forged");

    // Both in one process: the handle comes as `DPoP`, the JWT goes on as `Bearer`.
    for (bearer, expected) in [(careful, 401), (trusting, 200)] {
        let app = ServiceBuilder::new()
            .layer(PhantomLayer::new(Swaps(phantom.clone()), AUDIENCE))
            .layer(bearer)
            .service(service_fn(|request: Request<()>| async move {
                let token = request.extensions().get::<VerifiedToken>().unwrap();
                Ok::<_, Infallible>(Response::new(token.subject().unwrap().id().to_owned()))
            }));
        let sent = request(("authorization", "DPoP cr_at_x"), Some(jwk(1)));
        assert_eq!(app.oneshot(sent).await.unwrap().status(), expected);
    }
}
