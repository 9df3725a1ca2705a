use cloakroom_core::format::TokenTerms;
use cloakroom_core::record::Claims;
use cloakroom_core::time::{ManualClock, UnixTime};
use cloakroom_core::{Audience, Random, Scope, Subject, TokenDigest, TokenKind};
use serde_json::json;

use super::*;
use crate::key::signing::{Signer, SigningKey};
use crate::test_support::*;
use crate::{Algorithm, KeySet};

async fn format(store: &Arc<RingStore>, clock: &Arc<ManualClock>) -> (JwtFormat, KeyManager) {
    let keys = manager(store, clock).await;
    let format = JwtFormat::new(keys.clone(), ISSUER, Arc::clone(clock) as _);
    (format, keys)
}

async fn mint_with(format: &JwtFormat, terms: &TokenTerms) -> Result<Minted, FormatError> {
    let (grant, random) = (grant(), Random::system());
    format.mint(MintContext::new(ISSUER, &grant, terms, &random)).await
}

#[tokio::test]
async fn a_minted_token_is_an_rfc_9068_token() {
    let (format, keys) = format(&RingStore::new(), &clock()).await;
    let minted = mint_with(&format, &terms()).await.unwrap();
    assert_eq!(minted.kept, Persisted::Grant);

    let (header, claims) = parts(&minted.token);
    assert_eq!(header["typ"], json!("at+jwt"));
    assert_eq!(header["alg"], json!("ES256"));
    assert_eq!(header["kid"], json!(keys.signer().await.unwrap().kid().as_str()));

    let jti = claims["jti"].as_str().unwrap();
    assert_eq!(jti.len(), 22, "128 random bits");
    let expected = json!({
        "iss": ISSUER,
        "sub": "alice",
        "aud": ORDERS,
        "client_id": "web-app",
        "scope": "orders:read",
        "iat": 1_700_000_000,
        "exp": 1_700_000_600,
        "jti": jti,
        "auth_time": 1_699_999_000,
        "acr": "urn:example:mfa",
        "cnf": {"jkt": "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ"},
        "act": {"sub": "support"},
        "authorization_details": [{"type": "payment"}],
        "sid": "sid-1",
        "grant_id": grant().id.to_string(),
        "grant_epoch": 1_700_000_000_250_u64,
        "tenant": "acme",
    });
    assert_eq!(claims, expected, "and no `username`, no `token_type`");
    let another = mint_with(&format, &terms()).await.unwrap();
    assert_ne!(parts(&another.token).1["jti"], claims["jti"]);
}

#[tokio::test]
async fn what_was_minted_is_located_with_all_it_says() {
    let (format, keys) = format(&RingStore::new(), &clock()).await;
    let minted = mint_with(&format, &terms()).await.unwrap();
    let located = format.locate(&minted.token).unwrap().unwrap();
    assert_eq!(located.kind, TokenKind::Access);
    assert_eq!(located.grant, grant().id);
    let jwt = minted.token.expose();
    assert_eq!(located.digest, TokenDigest::compute(TokenKind::Access, jwt.as_bytes()));
    let carried = located.carried.unwrap();
    assert_eq!(carried.kid, *keys.signer().await.unwrap().kid());
    assert!(!carried.stateless);
    assert_eq!(carried.token.digest, located.digest);
    assert_eq!(carried.token.grant, grant().id);
    assert_eq!(carried.token.scope, terms().scope);
    assert_eq!(carried.token.audience, terms().audience);
    assert_eq!(carried.token.confirmation, terms().confirmation);
    assert_eq!(carried.token.expires_at, UnixTime::from_secs(1_700_000_600));
    assert!(carried.token.expires_at <= terms().expires_at);
    let (own, stored) = (carried.grant, grant());
    assert_eq!(own.client, stored.client);
    assert_eq!(own.subject, stored.subject);
    assert_eq!(own.epoch, stored.epoch);
    assert_eq!(own.act, stored.act);
    assert_eq!(own.authorization_details, stored.authorization_details);
    assert_eq!(own.session, stored.session);
    assert_eq!(own.claims, stored.claims);
    assert_eq!(own.auth_time, stored.auth_time);
    assert_eq!(own.expires_at, carried.token.expires_at);
}

#[tokio::test]
async fn a_client_that_acts_for_itself_stays_one() {
    let (format, _) = format(&RingStore::new(), &clock()).await;
    let mut grant = grant();
    grant.subject = Subject::client("web-app").unwrap();
    let (terms, random) = (terms(), Random::system());
    let context = MintContext::new(ISSUER, &grant, &terms, &random);
    let minted = format.mint(context).await.unwrap();
    assert_eq!(parts(&minted.token).1["sub_kind"], json!("client"));
    let carried = format.locate(&minted.token).unwrap().unwrap().carried;
    assert_eq!(carried.unwrap().grant.subject, grant.subject);
}

#[tokio::test]
async fn a_stateless_token_says_so_and_leaves_nothing() {
    let (format, _) = format(&RingStore::new(), &clock()).await;
    let format = format.stateless();
    let minted = mint_with(&format, &terms()).await.unwrap();
    assert_eq!(minted.kept, Persisted::Nothing);
    assert_eq!(parts(&minted.token).1["stateless"], json!(true));
    let located = format.locate(&minted.token).unwrap().unwrap();
    assert!(located.carried.unwrap().stateless);
}

/// The resource's algorithm comes first, then the client's. What is no algorithm is refused, and never
/// answered by a token of another one.
#[tokio::test]
async fn a_client_may_name_the_algorithm_of_its_tokens() {
    let keys = KeyManager::builder(RingStore::new() as _, sealer())
        .further_algorithm(Algorithm::EdDsa)
        .further_algorithm(Algorithm::Es384)
        .clock(clock() as _)
        .build()
        .await
        .unwrap();
    // The last word on a resource counts.
    let format = JwtFormat::new(keys, ISSUER, clock() as _)
        .algorithm_for("https://old.example", Algorithm::Es256)
        .algorithm_for("https://older.example", Algorithm::Es384)
        .algorithm_for("https://old.example", Algorithm::Es384);
    let mint = async |algorithm, resource| {
        let (mut terms, grant, random) = (terms(), grant(), Random::system());
        terms.audience = Audience::one(resource).unwrap();
        let context = MintContext::new(ISSUER, &grant, &terms, &random).with_algorithm(algorithm);
        format.mint(context).await.map(|minted| parts(&minted.token).0["alg"].clone())
    };
    for (named, resource, expected) in [
        (None, ORDERS, "ES256"),
        (Some("EdDSA"), ORDERS, "EdDSA"),
        (Some("EdDSA"), "https://old.example/", "ES384"),
        (Some("EdDSA"), "https://older.example", "ES384"),
    ] {
        assert_eq!(mint(named, resource).await.unwrap(), json!(expected), "{named:?}, {resource}");
    }
    for unknown in ["none", "HS256", ""] {
        assert!(mint(Some(unknown), ORDERS).await.is_err(), "{unknown}");
    }
}

#[tokio::test]
async fn each_token_costs_one_signature() {
    #[derive(Debug)]
    struct Counting(SigningKey, std::sync::atomic::AtomicUsize);
    #[async_trait]
    impl Signer for Counting {
        fn kid(&self) -> &cloakroom_core::Kid {
            self.0.kid()
        }
        fn algorithm(&self) -> Algorithm {
            self.0.algorithm()
        }
        async fn sign(&self, input: &[u8]) -> Result<Vec<u8>, crate::SignError> {
            self.1.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            self.0.sign(input).await
        }
    }
    let key = SigningKey::generate(Algorithm::Es256).unwrap();
    let keys = KeySet::prepare(&crate::JwkSet::new(vec![key.public_jwk().clone()]));
    let signer = Counting(key, std::sync::atomic::AtomicUsize::new(0));
    let jti = Jti::random(&Random::system()).unwrap();
    let claims = AccessClaims::new(ISSUER, &grant(), terms(), jti);
    let jwt = sign_jwt(&signer, ACCESS_TOKEN_TYP, &claims).await.unwrap();
    assert_eq!(signer.1.load(std::sync::atomic::Ordering::SeqCst), 1);
    let verifier = Verifier::new(ISSUER, ORDERS).clock(clock());
    verifier.verify(&keys, jwt.expose()).unwrap();
}

#[tokio::test]
async fn foreign_damaged_and_expired_tokens_are_not_located() {
    let clock = clock();
    let (format, keys) = format(&RingStore::new(), &clock).await;
    let good = mint_with(&format, &terms()).await.unwrap().token;
    let jwt = good.expose();
    let none = |text: &str| {
        let located = format.locate(&TokenSecret::new(text)).unwrap();
        assert!(located.is_none(), "{text}");
    };
    for text in ["", "..", "a.b.c", "cr_at_x", "a.b.c.d", &"a.".repeat(9000)] {
        none(text);
    }
    // One character of each part, never the last, whose low bits may mean nothing.
    for part in 0..3 {
        let mut segments: Vec<String> = jwt.split('.').map(str::to_owned).collect();
        let flipped = if segments[part].starts_with('A') { "B" } else { "A" };
        segments[part].replace_range(0..1, flipped);
        none(&segments.join("."));
    }
    none(&format!("{jwt} "));

    // Signed by the ring, but not as an access token, or not of this issuer.
    let signer = keys.signer().await.unwrap();
    let claims = AccessClaims::new(ISSUER, &grant(), terms(), Jti::new("1").unwrap());
    let typ = "token-introspection+jwt";
    none(sign_jwt(&*signer, typ, &claims).await.unwrap().expose());
    let other =
        AccessClaims::new("https://other.example", &grant(), terms(), Jti::new("1").unwrap());
    none(sign(&keys, None, &other).await.unwrap().expose());
    // Without the grant that all of ours name.
    let bare = json!({
        "iss": ISSUER, "aud": ORDERS, "sub": "alice", "client_id": "web-app", "jti": "1",
        "iat": 1_700_000_000, "exp": 1_700_000_600,
    });
    none(sign_jwt(&*signer, ACCESS_TOKEN_TYP, &bare).await.unwrap().expose());
    // A phantom JWT is not an access token that a client may hold.
    let mut phantom = AccessClaims::new(ISSUER, &grant(), terms(), Jti::new("1").unwrap());
    phantom.handle_hash = Some(TokenDigest::from_bytes([1; 32]));
    none(sign(&keys, None, &phantom).await.unwrap().expose());

    assert!(format.locate(&good).unwrap().is_some());
    clock.advance(secs(600 + 119));
    assert!(format.locate(&good).unwrap().is_some(), "some verifier may still take it");
    clock.advance(secs(2));
    assert!(format.locate(&good).unwrap().is_none(), "expired");
}

#[tokio::test]
async fn an_outage_never_looks_like_a_forged_token() {
    let (store, clock) = (RingStore::new(), clock());
    let (format, keys) = format(&store, &clock).await;
    let mut terms = terms();
    terms.expires_at = START + secs(3600);
    let good = mint_with(&format, &terms).await.unwrap().token;

    // Another node's key, which this one has not loaded yet.
    let unknown = SigningKey::generate(Algorithm::Es256).unwrap();
    let claims = AccessClaims::new(ISSUER, &grant(), terms.clone(), Jti::new("1").unwrap());
    let unknown = sign_jwt(&unknown, ACCESS_TOKEN_TYP, &claims).await.unwrap();
    assert!(format.locate(&unknown).unwrap().is_none(), "the ring is fresh");
    store.down(true);
    clock.advance(secs(61));
    assert!(matches!(format.locate(&unknown), Err(FormatError::KeysUnavailable(_))));
    assert!(format.locate(&good).unwrap().is_some(), "known keys serve on");
    mint_with(&format, &terms).await.unwrap();

    clock.advance(keys.policy().max_blind);
    assert!(matches!(format.locate(&good), Err(FormatError::KeysUnavailable(_))));
    assert!(matches!(mint_with(&format, &terms).await, Err(FormatError::KeysUnavailable(_))));
    // What is no JWT at all needs no keys to tell.
    assert!(format.locate(&TokenSecret::new("cr_at_x")).unwrap().is_none());
}

#[tokio::test]
async fn what_cannot_be_a_token_is_refused_at_issue() {
    let (format, _) = format(&RingStore::new(), &clock()).await;
    let mut long = terms();
    long.expires_at = START + secs(3601);
    let error = mint_with(&format, &long).await.unwrap_err();
    let cause = std::error::Error::source(&error).unwrap().to_string();
    assert!(cause.contains("max_token_life"), "{cause}");

    let (mut big, random) = (grant(), Random::system());
    big.claims = Claims::new([("a", json!("x".repeat(4000)))]).unwrap();
    big.authorization_details = Some(Box::new(json!("x".repeat(4000))));
    let own = terms();
    let minted = format.mint(MintContext::new(ISSUER, &big, &own, &random)).await;
    assert!(matches!(minted, Err(FormatError::TooLarge { limit: 8192, .. })));

    let grant = grant();
    let context = MintContext::new("https://other.example", &grant, &own, &random);
    let error = format.mint(context).await.unwrap_err();
    assert!(matches!(error, FormatError::Other(_)));

    let none = no_random();
    let context = MintContext::new(ISSUER, &grant, &own, &none);
    assert!(matches!(format.mint(context).await, Err(FormatError::Random(_))));
}

#[tokio::test]
async fn a_token_outlives_the_rotation_of_its_key_but_not_its_compromise() {
    let (store, clock) = (RingStore::new(), clock());
    let (format, keys) = format(&store, &clock).await;
    let mut terms = terms();
    terms.scope = Scope::empty();
    terms.audience = Audience::new([ORDERS, "https://billing.example"]).unwrap();
    let token = mint_with(&format, &terms).await.unwrap().token;
    let kid = keys.signer().await.unwrap().kid().clone();
    keys.rotate().await.unwrap();
    assert!(format.locate(&token).unwrap().is_some());
    let _ = keys.compromise(&kid).await.unwrap();
    assert!(format.locate(&token).unwrap().is_none());
}
