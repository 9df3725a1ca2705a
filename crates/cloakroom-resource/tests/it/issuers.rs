//! Issuers that do not follow RFC 9068, and several of them at one API.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom_core::revocation::Target;
use cloakroom_jwt::{JwkSet, sign_jwt};
use cloakroom_resource::{
    BearerLayer, ClientCredentials, Cursor, Epoch, Freshness, IntrospectionClient, InvalidToken,
    IssuerProfile, MAX_TOKEN_BYTES, ReqwestClient, RevocationBatch, RevocationLog, RevocationPage,
    RevocationReplica, TokenError, UnavailableError, Verifier, async_trait,
};
use serde_json::json;

use crate::cache_support::{Guard, Log};
use crate::support::{
    AUDIENCE, ISSUER, Key, Peer, START, claims, claims_with, json, key_set, manual_clock, secret,
};

const OTHER: &str = "https://id.example/realms/shop";

fn verifier(issuer: &str, key: &Key) -> Verifier {
    let keys = JwkSet::new(vec![key.0.public_jwk().clone()]);
    Verifier::with_keys(issuer, AUDIENCE, &keys).clock(manual_clock())
}

#[tokio::test]
async fn a_profile_says_how_the_tokens_of_an_issuer_look() {
    let key = Key::new();
    let claims = json!({
        "iss": OTHER, "aud": [AUDIENCE, "account"], "azp": "web-app", "sub": "alice", "typ": "Bearer",
        "iat": START.as_secs(), "exp": START.as_secs() + 300, "scope": "openid orders:read",
    });
    let token = sign_jwt(&key.0, "JWT", &claims).await.unwrap();
    let error = verifier(OTHER, &key).verify(&token).await.unwrap_err();
    assert!(matches!(error, TokenError::Invalid(InvalidToken::Jwt(_))), "{error:?}");

    let keycloak = verifier(OTHER, &key).profile(IssuerProfile::keycloak()).cache(10);
    for _ in 0..2 {
        let verified = keycloak.verify(&token).await.unwrap();
        assert_eq!(verified.client().unwrap().as_str(), "web-app");
        assert!(verified.has_scope("orders:read"));
    }
    let mut id_token = claims;
    id_token["typ"] = json!("ID");
    let token = sign_jwt(&key.0, "JWT", &id_token).await.unwrap();
    assert!(keycloak.verify(&token).await.is_err());
}

#[tokio::test]
async fn the_issuer_of_a_token_decides_whose_rules_apply() {
    let (key, other) = (Key::new(), Key::new());
    let both = verifier(ISSUER, &key).cache(10).or(verifier(OTHER, &other).cache(10));
    let of = |issuer: &str| claims_with(&json!({ "iss": issuer }));
    for _ in 0..2 {
        let first = both.verify(&secret(key.sign(&of(ISSUER)).await)).await.unwrap();
        assert_eq!(first.issuer(), Some(ISSUER));
        let second = both.verify(&secret(other.sign(&of(OTHER)).await)).await.unwrap();
        assert_eq!(second.issuer(), Some(OTHER));
    }
    // The key of one issuer says nothing for the other.
    for (key, issuer) in [(&key, OTHER), (&other, ISSUER)] {
        let error = both.verify(&secret(key.sign(&of(issuer)).await)).await.unwrap_err();
        assert!(matches!(error, TokenError::Invalid(InvalidToken::Jwt(_))), "{error:?}");
    }
    // The name is compared exactly, before any key is looked at.
    for issuer in ["https://id.example/realms/shop/", "https://ID.example/realms/shop", "", "x"] {
        let error = both.verify(&secret(other.sign(&of(issuer)).await)).await.unwrap_err();
        assert!(matches!(error, TokenError::Invalid(InvalidToken::Issuer)), "{issuer}: {error:?}");
    }
    let no_issuer = claims_with(&json!({ "iss": null }));
    let error = both.verify(&secret(other.sign(&no_issuer).await)).await.unwrap_err();
    assert!(matches!(error, TokenError::Invalid(InvalidToken::Issuer)), "{error:?}");
}

#[tokio::test]
async fn a_token_may_have_as_many_bytes_as_the_limit() {
    let key = Key::new();
    let one = verifier(ISSUER, &key);
    let both = verifier(OTHER, &key).or(one.clone());
    let mut padding = "x".repeat(MAX_TOKEN_BYTES / 2);
    let token = loop {
        let token = key.sign(&claims_with(&json!({ "padding": padding }))).await;
        if token.len() >= MAX_TOKEN_BYTES {
            break token;
        }
        // Three bytes are four in Base64.
        padding.push_str(&"x".repeat((MAX_TOKEN_BYTES - token.len()).div_ceil(2)));
    };
    assert_eq!(token.len(), MAX_TOKEN_BYTES);
    one.verify(&secret(&token)).await.unwrap();
    both.verify(&secret(&token)).await.unwrap();
    let error = one.verify(&secret(format!("{token}A"))).await.unwrap_err();
    assert!(matches!(error, TokenError::Invalid(InvalidToken::TooLarge)), "{error:?}");
}

#[tokio::test]
async fn each_issuer_has_a_profile_and_an_audience_of_its_own() {
    let (key, other) = (Key::new(), Key::new());
    let keys = JwkSet::new(vec![other.0.public_jwk().clone()]);
    let cognito = Verifier::with_keys(OTHER, "app-client", &keys).profile(IssuerProfile::cognito());
    let both = verifier(ISSUER, &key).or(cognito);
    let access = json!({
        "iss": OTHER, "sub": "alice", "client_id": "app-client", "token_use": "access", "jti": "1",
        "iat": START.as_secs(), "exp": START.as_secs() + 300, "scope": "orders/read",
    });
    both.verify(&sign_jwt(&other.0, "JWT", &access).await.unwrap()).await.unwrap();
    // The profile of one does not loosen the other's.
    let error = both.verify(&sign_jwt(&key.0, "JWT", &claims()).await.unwrap()).await.unwrap_err();
    assert!(matches!(error, TokenError::Invalid(InvalidToken::Jwt(_))), "{error:?}");
}

/// A log in which no heartbeat stands: what a replica knows of it is never fresh.
#[derive(Debug, Default)]
struct Silent(AtomicBool);

#[async_trait]
impl RevocationLog for Silent {
    async fn read(&self, _: Cursor, _: Duration) -> Result<RevocationPage, UnavailableError> {
        if self.0.swap(true, Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let batch = RevocationBatch::Entries {
            entries: vec![],
            next: Cursor::start(),
            more: false,
            newest_bound: Epoch::default(),
        };
        let (heartbeat, clock_skew) = (Duration::from_secs(1), Duration::from_secs(1));
        Ok(RevocationPage { batch, heartbeat, clock_skew })
    }
}

#[tokio::test]
async fn a_foreign_token_goes_by_its_own_replica() {
    let (key, other) = (Key::new(), Key::new());
    let replica =
        RevocationReplica::builder(Silent::default()).clock(manual_clock()).follow().await.unwrap();
    let both = verifier(ISSUER, &key).or(verifier(OTHER, &other).replica(replica));
    both.verify(&secret(key.token().await)).await.unwrap();
    let old = claims_with(&json!({ "iss": OTHER, "iat": START.as_secs() - 3600 }));
    let error = both.verify(&secret(other.sign(&old).await)).await.unwrap_err();
    assert!(matches!(error, TokenError::Unavailable(UnavailableError::Stale)), "{error:?}");
}

#[tokio::test]
async fn a_token_without_kid_has_new_keys_fetched_once_in_a_while() {
    let (old, new) = (Key::new(), Key::new());
    let nameless = |key: &Key| {
        let mut set: serde_json::Value = serde_json::from_str(&key_set(&[key])).unwrap();
        set["keys"][0].as_object_mut().unwrap().remove("kid");
        set
    };
    let (first, second) = (nameless(&old), nameless(&new));
    let peer = Peer::start(move |_| json(&first)).await;
    let clock = manual_clock();
    let client = ReqwestClient::new().unwrap();
    let verifier = Verifier::fetching(ISSUER, AUDIENCE, &format!("{}/keys", peer.url), client)
        .unwrap()
        .clock(clock.clone());
    let sign = async |key: &Key| {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        use cloakroom_jwt::Signer as _;
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"ES256","typ":"at+jwt"}"#);
        let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims().to_string()));
        let signature = key.0.sign(input.as_bytes()).await.unwrap();
        secret(format!("{input}.{}", URL_SAFE_NO_PAD.encode(signature)))
    };
    verifier.verify(&sign(&old).await).await.unwrap();
    peer.answer_with(move |_| json(&second));
    verifier.verify(&sign(&new).await).await.unwrap();
    assert_eq!(peer.count(), 2);
    // Now the old one is nobody's, and that is not asked again at once for one token.
    let orphan = sign(&old).await;
    for _ in 0..3 {
        let error = verifier.verify(&orphan).await.unwrap_err();
        assert!(matches!(error, TokenError::Invalid(_)), "{error:?}");
    }
    assert_eq!(peer.count(), 3);
    // Of others nobody can tell: there may be a new key without a name. They ask as often as they may.
    let error = verifier.verify(&sign(&old).await).await.unwrap_err();
    assert!(matches!(error, TokenError::Invalid(_)), "{error:?}");
    for _ in 0..3 {
        let error = verifier.verify(&sign(&old).await).await.unwrap_err();
        let unknown = matches!(error, TokenError::Unavailable(UnavailableError::SigningKey));
        assert!(unknown, "{error:?}");
    }
    assert_eq!(peer.count(), 4);
    clock.advance(Duration::from_secs(31));
    assert!(verifier.verify(&orphan).await.is_err());
    assert_eq!(peer.count(), 5);
}

#[tokio::test]
async fn three_issuers_may_be_joined_in_any_way() {
    let keys = [Key::new(), Key::new(), Key::new()];
    let names = [ISSUER, OTHER, "https://third.example"];
    let of = |at: usize| verifier(names[at], &keys[at]);
    for all in [of(0).or(of(1)).or(of(2)), of(0).or(of(1).or(of(2)))] {
        for (key, name) in keys.iter().zip(names) {
            let token = secret(key.sign(&claims_with(&json!({ "iss": name }))).await);
            assert_eq!(all.verify(&token).await.unwrap().issuer(), Some(name));
        }
    }
}

#[tokio::test]
async fn the_freshness_that_a_route_names_holds_for_every_issuer() {
    let (key, other) = (Key::new(), Key::new());
    let both = || verifier(ISSUER, &key).cache(10).or(verifier(OTHER, &other).cache(10));
    let old = claims_with(&json!({ "iss": OTHER, "iat": START.as_secs() - 3600 }));
    let token = other.sign(&old).await;
    let peer = Peer::start(|_| json(&json!({ "active": true }))).await;
    let api = |freshness: Option<Freshness>| {
        let credentials = ClientCredentials::new("api", "secret");
        let url = format!("{}/introspect", peer.url);
        let client = ReqwestClient::new().unwrap();
        let client = IntrospectionClient::new(&url, credentials, client).unwrap();
        let layer = BearerLayer::new(both()).or_introspect(client);
        match freshness {
            Some(freshness) => layer.freshness(freshness).unwrap(),
            None => layer,
        }
    };
    let asked = async |layer: &BearerLayer| layer.verify(&secret(&token), None).await;
    for _ in 0..2 {
        asked(&api(None)).await.unwrap();
        let error = asked(&api(Some(Freshness::every_request()))).await.unwrap_err();
        assert!(matches!(error, TokenError::Unavailable(UnavailableError::Stale)), "{error:?}");
    }
    assert_eq!(peer.count(), 0, "the first issuer's server knows nothing of it");
}

/// Of several issuers, the replica is that of the first one.
#[tokio::test]
async fn a_revoked_token_of_the_first_issuer_is_refused_beside_another_issuer() {
    let (key, other, time) = (Key::new(), Key::new(), manual_clock());
    let (log, token) = (Log::new(Duration::ZERO), key.token().await);
    let replica = log.replica(&time).await;
    log.revoke(Target::Jti("1".parse().unwrap()), None).await;
    for cached in [0, 10] {
        let both = key.verifier(&time).cache(cached).or(verifier(OTHER, &other));
        let guard = Guard::Bearer(BearerLayer::new(both).replica(replica.clone()));
        for _ in 0..2 {
            assert_eq!(guard.ask(&token).await, 401, "{cached}");
        }
    }
}

/// What the first issuer has revoked says nothing of the other one's tokens, though a name is the same.
#[tokio::test]
async fn a_token_of_another_issuer_is_not_refused_by_the_rules_of_the_first() {
    let (key, other, time) = (Key::new(), Key::new(), manual_clock());
    let (log, foreign) = (Log::new(Duration::ZERO), claims_with(&json!({ "iss": OTHER })));
    let replica = log.replica(&time).await;
    log.revoke(Target::Jti("1".parse().unwrap()), None).await;
    let token = other.sign(&foreign).await;
    for cached in [0, 10] {
        let both = key.verifier(&time).or(verifier(OTHER, &other).cache(cached));
        let layer = BearerLayer::new(both).replica(replica.clone());
        let fresh = Freshness::within(Duration::from_secs(60));
        for layer in [layer.clone(), layer.freshness(fresh).unwrap()] {
            let guard = Guard::Bearer(layer);
            for _ in 0..2 {
                assert_eq!(guard.ask(&token).await, 200, "{cached}");
            }
        }
    }
}
