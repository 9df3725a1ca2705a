use cloakroom_core::format::Persisted;
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::{TokenDigest, TokenKind};
use serde_json::json;

use super::*;
use crate::Verifier;
use crate::test_support::*;

async fn phantom() -> (PhantomFormat, KeyManager) {
    let keys = manager(&RingStore::new(), &clock()).await;
    let secret = HandleSecret::new(1, [5; 32]);
    let outside = OpaqueFormat::new(HandleKeys::new(&secret));
    (PhantomFormat::new(outside, keys.clone()), keys)
}

/// A handle as it is minted, and its record.
async fn handle(format: &PhantomFormat, grant: &GrantRecord) -> (TokenSecret, TokenRecord) {
    let (terms, random) = (terms(), Random::system());
    let context = MintContext::new(ISSUER, grant, &terms, &random);
    let minted = format.mint(context).await.unwrap();
    let Persisted::Token(digest) = minted.kept else { panic!("{:?}", minted.kept) };
    (minted.token, terms.record(grant.id, digest))
}

struct Case {
    grant: GrantRecord,
    token: TokenRecord,
    audience: &'static str,
    algorithm: Option<Algorithm>,
    now: UnixTime,
}

impl Case {
    async fn swap(&self, format: &PhantomFormat) -> Result<SwappedJwt, FormatError> {
        format
            .swap(Swap {
                issuer: ISSUER,
                grant: &self.grant,
                token: &self.token,
                audience: self.audience,
                scope: &Scope::parse("read").unwrap(),
                algorithm: self.algorithm,
                now: self.now,
                random: &Random::system(),
            })
            .await
    }
}

async fn case(format: &PhantomFormat) -> Case {
    let grant = grant();
    let (_, token) = handle(format, &grant).await;
    Case { grant, token, audience: ORDERS, algorithm: None, now: START }
}

#[tokio::test]
async fn outside_it_is_opaque() {
    let (format, _) = phantom().await;
    let grant = grant();
    let (handle, record) = handle(&format, &grant).await;
    assert!(handle.expose().starts_with("cr_at_"));
    let located = format.locate(&handle).unwrap().unwrap();
    assert_eq!((located.grant, located.digest), (grant.id, record.digest));
    assert_eq!(located.kind, TokenKind::Access);
    assert_eq!(located.carried, None);
}

#[tokio::test]
async fn inside_it_is_a_jwt_for_the_one_audience_that_asked() {
    let (format, keys) = phantom().await;
    let case = case(&format).await;
    let swapped = case.swap(&format).await.unwrap();
    let (header, claims) = parts(&swapped.jwt);
    assert_eq!(header["typ"], json!("at+jwt"));
    assert_eq!(claims["aud"], json!(ORDERS));
    assert_eq!(claims["scope"], json!("read"), "as the caller mapped it");
    assert_eq!(claims["exp"], json!(START.as_secs() + 300));
    assert_eq!(swapped.expires_at.as_millis() % 1000, 0);
    assert_eq!(claims["exp"], json!(swapped.expires_at.as_secs()));
    assert_eq!(claims["grant_id"], json!(grant().id.to_string()));
    assert!(claims.get("username").is_none());

    let verifier = Verifier::new(ISSUER, ORDERS).clock(clock());
    let verified = verifier.verify(&keys.keys().unwrap(), swapped.jwt.expose()).unwrap();
    assert_eq!(
        verified.handle_hash,
        Some(handle_hash(&case.token.digest)),
        "revoking the handle reaches the JWT"
    );
    assert_ne!(verified.handle_hash, Some(case.token.digest));
    assert!(!verified.stateless);
    // The JWT stays inside: outside it is nothing.
    assert!(format.locate(&swapped.jwt).unwrap().is_none());
}

#[test]
fn the_handle_hash_is_sha_256_of_the_digest() {
    // `printf '\0%.0s' {1..32} | sha256sum`
    let hash = handle_hash(&TokenDigest::from_bytes([0; 32]));
    assert_eq!(
        serde_json::to_value(hash).unwrap(),
        json!("Zmh6rfhivXdsj8GLjp-OIAiXFIVu4jOzkCpZHQ1fKSU")
    );
}

#[tokio::test]
async fn it_never_outlives_its_handle_or_the_settings() {
    let (format, _) = phantom().await;
    let end = |swapped: SwappedJwt| swapped.expires_at;
    let mut case = case(&format).await;
    case.token.expires_at = START + Duration::from_millis(100_900);
    let short = end(case.swap(&format).await.unwrap());
    assert_eq!(short, UnixTime::from_secs(1_700_000_101), "rounded down");
    assert!(short <= case.token.expires_at);
    case.grant.expires_at = START + secs(50);
    assert!(end(case.swap(&format).await.unwrap()) <= case.grant.expires_at);

    let case = self::case(&format).await;
    let minute = format.clone().max_life(secs(60));
    let expected = UnixTime::from_secs(1_700_000_060);
    assert_eq!(end(case.swap(&minute).await.unwrap()), expected);
    let day = format.max_life(secs(86_400));
    let expected = UnixTime::from_secs(1_700_000_300);
    assert_eq!(end(case.swap(&day).await.unwrap()), expected);

    // Its key is published only as long as the policy's longest token needs.
    let policy = cloakroom_core::keys::KeyPolicy::default().max_token_life(secs(20));
    let keys = with_policy(&RingStore::new(), &clock(), policy).await;
    let format = PhantomFormat::new(day.outside, keys);
    let expected = UnixTime::from_secs(1_700_000_020);
    assert_eq!(end(case.swap(&format).await.unwrap()), expected);
}

#[tokio::test]
async fn a_swap_that_the_token_does_not_allow_makes_nothing() {
    let (format, _) = phantom().await;
    let refused = |case: Case| {
        let format = format.clone();
        async move {
            let error = case.swap(&format).await.unwrap_err();
            assert!(matches!(error, FormatError::Other(_)), "{error:?}");
        }
    };
    let good = || case(&format);
    // The grant has it, the token does not.
    refused(Case { audience: "https://billing.example", ..good().await }).await;
    refused(Case { now: START + secs(600), ..good().await }).await;
    let mut case = good().await;
    case.token.revoked_at = Some(START);
    refused(case).await;
    let mut case = good().await;
    case.grant.revoked_at = Some(START);
    refused(case).await;
    let mut case = good().await;
    case.token.grant = cloakroom_core::GrantId::from_bytes([9; 16]);
    refused(case).await;
    assert!(good().await.swap(&format).await.is_ok());
}

#[tokio::test]
async fn debug_shows_no_secret() {
    let (format, _) = phantom().await;
    let swapped = case(&format).await.swap(&format).await.unwrap();
    let text = format!("{swapped:?} {format:?}");
    assert!(!text.contains(swapped.jwt.expose()));
    assert!(!text.contains("[5, 5") && !text.contains("0505"), "{text}");
}

/// A long signature leaves less room for claims. A handle whose JWT would not fit is not made.
#[cfg(feature = "ml-dsa")]
#[tokio::test]
async fn a_handle_whose_jwt_would_be_too_long_is_not_made() {
    use crate::{Algorithm, MAX_JWT_BYTES};

    let keys = KeyManager::builder(RingStore::new() as _, sealer())
        .further_algorithm(Algorithm::MlDsa65)
        .clock(clock() as _)
        .build()
        .await
        .unwrap();
    let outside = OpaqueFormat::new(HandleKeys::new(&HandleSecret::new(1, [5; 32])));
    let short = PhantomFormat::new(outside.clone(), keys.clone());
    let long = PhantomFormat::new(outside, keys).algorithm_for(ORDERS, Algorithm::MlDsa65);
    let with = |bytes: usize| {
        let mut grant = grant();
        grant.authorization_details = Some(Box::new(json!([{"type": "x".repeat(bytes)}])));
        grant
    };
    let mint = async |format: &PhantomFormat, grant: &GrantRecord| {
        let (terms, random) = (terms(), Random::system());
        format.mint(MintContext::new(ISSUER, grant, &terms, &random)).await
    };
    // The longest that is accepted can be swapped, and one byte more is refused.
    let mut bytes = 0;
    for step in [1024, 256, 64, 16, 4, 1] {
        while mint(&long, &with(bytes + step)).await.is_ok() {
            bytes += step;
        }
    }
    let grant = with(bytes);
    let (_, token) = handle(&long, &grant).await;
    let scope = Case { grant, token, audience: ORDERS, algorithm: None, now: START };
    let swapped = scope.swap(&long).await.unwrap();
    let length = swapped.jwt.expose().len();
    assert!((MAX_JWT_BYTES - 64..=MAX_JWT_BYTES).contains(&length), "{length}");
    let refused = mint(&long, &with(bytes + 1)).await;
    assert!(matches!(refused, Err(FormatError::TooLarge { .. })), "{refused:?}");
    mint(&short, &with(bytes + 2000)).await.unwrap();
}
