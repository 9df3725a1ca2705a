//! What an operator orders of the signing keys, through the issuer.

use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::keys::schedule::KeyState;
use cloakroom::core::{Audience, TokenSecret};
use cloakroom::jwt::{AesGcmSealer, Algorithm, KeyEvent};
use cloakroom::{
    BuildError, Caller, Client, Event, Format, Grant, GrantType, Issuer, IssuerBuilder, TokenError,
};

use super::support::*;

/// An API that knows RS256 alone.
const OLD: &str = "https://old.example";

#[tokio::test]
async fn keys_are_listed_and_ended_and_each_order_is_reported() {
    let fixture = Fixture::new().await;
    let issuer = &fixture.issuer;
    fixture.clock.advance(2 * HOUR);
    let all = issuer.key_states().await.unwrap();
    assert_eq!(
        all.iter().map(|key| key.state).collect::<Vec<_>>(),
        [KeyState::Signing, KeyState::Published]
    );
    assert!(all[0].signs_now && all[0].last_used.is_none());
    let token = fixture.token_for(JOBS).await.access_token;
    let event = issuer.retire_key(&all[0].kid).await.unwrap();
    let rotated = KeyEvent::Rotated { from: all[0].kid.clone(), to: all[1].kid.clone() };
    assert_eq!(event, rotated);
    assert!(fixture.events.take().contains(&Event::Key(rotated)));
    assert!(fixture.is_active(&token).await, "what it signed stays valid");
    let all = issuer.key_states().await.unwrap();
    assert_eq!(all[0].state, KeyState::Retired);
    assert!(all[0].last_used.is_some());
    let unknown = cloakroom::core::Kid::new("unknown").unwrap();
    assert!(matches!(issuer.retire_key(&unknown).await, Err(TokenError::Keys(_))));
}

#[tokio::test]
async fn the_key_encryption_key_is_replaced_while_tokens_stay_valid() {
    let fixture = Fixture::new().await;
    let token = fixture.token_for(JOBS).await.access_token;
    let with = async |sealer: AesGcmSealer| {
        let builder = builder(&fixture.store, &fixture.clock).events(fixture.events.clone());
        builder.sealer(std::sync::Arc::new(sealer)).build().await
    };
    let new = with(AesGcmSealer::new(2, [3; 32]).with_former(1, [2; 32])).await.unwrap();
    fixture.events.take();
    let done = new.reseal_keys().await.unwrap();
    assert_eq!((done.resealed, done.remaining, &*done.removable), (2, 0, &["1".to_owned()][..]));
    let resealed = |event: &Event| matches!(event, Event::Key(KeyEvent::Resealed { .. }));
    assert_eq!(fixture.events.take().iter().filter(|event| resealed(event)).count(), 2);
    assert!(new.key_states().await.unwrap().iter().all(|key| key.sealed_under == Some("2".into())));
    let alone = with(AesGcmSealer::new(2, [3; 32])).await.unwrap();
    assert!(alone.introspect(&token, Caller::Internal).await.unwrap().is_active());
    // The first node still seals with the key that was replaced, and says so.
    let refused = fixture.issuer.reseal_keys().await.unwrap_err().to_string();
    assert!(refused.contains("the key-encryption key 1") && refused.contains("by 2"), "{refused}");
}

fn with_an_old_api(builder: IssuerBuilder) -> IssuerBuilder {
    let client = |id: &str| {
        Client::confidential(id, CLIENT_SECRET)
            .grant_types([GrantType::ClientCredentials])
            .scope("orders:read")
    };
    builder
        .algorithm_for(OLD, Algorithm::Rs256)
        .static_clients([
            client("jwt-app").audience(JOBS, Format::Jwt).audience(OLD, Format::Jwt),
            client("phantom-app").audience(OLD, Format::Phantom).audience(ORDERS, Format::Phantom),
        ])
        .unwrap()
}

fn algorithm(jwt: &TokenSecret) -> String {
    use base64::Engine as _;
    let header = jwt.expose().split('.').next().unwrap();
    let header = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    let header: serde_json::Value = serde_json::from_slice(&header).unwrap();
    header["alg"].as_str().unwrap().to_owned()
}

async fn token(
    issuer: &Issuer,
    client: &str,
    audience: &[&str],
) -> Result<TokenSecret, TokenError> {
    let grant = Grant::client(client).unwrap();
    let grant = grant.audience(Audience::new(audience.iter().copied()).unwrap());
    issuer.issue(grant).await.map(|response| response.access_token)
}

#[tokio::test]
async fn each_resource_gets_jwts_of_its_algorithm() {
    let fixture = Fixture::with(with_an_old_api).await;
    let issuer = &fixture.issuer;
    for (resource, expected) in [(OLD, "RS256"), (&*format!("{OLD}/"), "RS256"), (JOBS, "ES256")] {
        let jwt = token(issuer, "jwt-app", &[resource]).await.unwrap();
        assert_eq!(algorithm(&jwt), expected, "{resource}");
        assert!(fixture.is_active(&jwt).await);
    }
    let both = token(issuer, "jwt-app", &[JOBS, OLD]).await.unwrap_err();
    assert_eq!(both.code(), Some("invalid_target"));
    // A handle for both is swapped for one JWT each.
    let handle = token(issuer, "phantom-app", &[OLD, ORDERS]).await.unwrap();
    for (resource, expected) in [(OLD, "RS256"), (ORDERS, "ES256")] {
        let swapped =
            issuer.swap(&handle, Some(resource), Caller::Internal).await.unwrap().unwrap();
        assert_eq!(algorithm(&swapped.jwt), expected, "{resource}");
    }
    let jwks = issuer.jwks().await.unwrap();
    assert!(jwks.json.contains("\"RS256\"") && jwks.json.contains("\"ES256\""));
    // Each ring is rotated for itself.
    fixture.clock.advance(2 * HOUR);
    let signs = async || {
        let all = issuer.key_states().await.unwrap().into_iter();
        let kids: Vec<_> = all.filter(|key| key.signs_now).map(|key| key.kid).collect();
        <[_; 2]>::try_from(kids).unwrap()
    };
    let [main, further] = signs().await;
    let KeyEvent::Rotated { from, .. } = issuer.rotate_keys_of(Algorithm::Rs256).await.unwrap()
    else {
        panic!("it was rotated")
    };
    assert_eq!(from, further);
    assert!(signs().await.contains(&main));
    issuer.rotate_keys().await.unwrap();
    assert!(!signs().await.contains(&main));
    assert!(issuer.rotate_keys_of(Algorithm::EdDsa).await.is_err(), "there is no such ring");
}

/// A new algorithm is announced like a rotation.
#[tokio::test]
async fn a_resource_that_changes_its_algorithm_gets_the_old_one_until_every_verifier_knows_the_new()
{
    let fixture = Fixture::new().await;
    let builder = with_an_old_api(builder(&fixture.store, &fixture.clock));
    fixture.clock.advance(HOUR);
    let issuer = builder.build().await.unwrap();
    let get = async || algorithm(&token(&issuer, "jwt-app", &[OLD]).await.unwrap());
    assert_eq!(get().await, "ES256");
    assert!(issuer.jwks().await.unwrap().json.contains("\"RS256\""), "it is published");
    fixture.clock.advance(KeyPolicy::default().publish_ahead - secs(1));
    issuer.maintain().await.unwrap();
    assert_eq!(get().await, "ES256");
    fixture.clock.advance(secs(1));
    assert_eq!(get().await, "RS256");
}

#[tokio::test]
async fn contradictory_algorithms_are_refused_by_name() {
    let built = async |choices: &[(&str, Algorithm)]| {
        let builder = Issuer::dev().static_clients([Client::public("app")]).unwrap();
        let choose = |builder: IssuerBuilder, (resource, algorithm): &(&str, Algorithm)| {
            builder.algorithm_for(*resource, *algorithm)
        };
        choices.iter().fold(builder, choose).build().await
    };
    for bad in [
        &[(OLD, Algorithm::Rs256), (OLD, Algorithm::EdDsa)][..],
        &[(OLD, Algorithm::Rs256), ("https://old.example/", Algorithm::EdDsa)],
        &[("old", Algorithm::Rs256)],
    ] {
        let Err(BuildError::Setting { setting, why }) = built(bad).await else { panic!("{bad:?}") };
        assert_eq!(setting, "algorithm_for");
        assert!(why.contains(bad[0].0), "{why}");
    }
    built(&[(OLD, Algorithm::Rs256), (OLD, Algorithm::Rs256)]).await.unwrap();
}
