//! What an operator orders of the signing keys, through the issuer.

use std::sync::Arc;

use cloakroom::core::keys::KeyPolicy;
use cloakroom::core::keys::schedule::KeyState;
use cloakroom::core::{Audience, TokenSecret};
use cloakroom::jwt::{AesGcmSealer, Algorithm, KeyEvent};
use cloakroom::{
    BuildError, Caller, Client, Event, Format, Grant, GrantType, Issuer, IssuerBuilder,
    StaticClients, TokenError,
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
        builder.sealer(Arc::new(sealer)).build().await
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

/// A client that names an algorithm gets JWTs of it, and those that its handles are swapped for. A resource
/// with an algorithm of its own comes first.
#[tokio::test]
async fn a_client_gets_jwts_of_the_algorithm_that_it_is_registered_with() {
    let fixture = Fixture::with(|builder| {
        let client = |id: &str| {
            Client::confidential(id, CLIENT_SECRET)
                .grant_types([GrantType::ClientCredentials])
                .audience(JOBS, Format::Jwt)
                .audience(OLD, Format::Jwt)
                .audience(ORDERS, Format::Phantom)
        };
        builder
            .algorithm_for(OLD, Algorithm::Rs256)
            .further_algorithm(Algorithm::EdDsa)
            .static_clients([
                client("plain"),
                client("ed").jwt_algorithm(Algorithm::EdDsa),
                client("rs").jwt_algorithm(Algorithm::Rs256),
            ])
            .unwrap()
    })
    .await;
    let issuer = &fixture.issuer;
    for (client, resource, expected) in [
        ("plain", JOBS, "ES256"),
        ("plain", OLD, "RS256"),
        ("ed", JOBS, "EdDSA"),
        ("ed", OLD, "RS256"),
        ("rs", JOBS, "RS256"),
        ("rs", OLD, "RS256"),
    ] {
        let jwt = token(issuer, client, &[resource]).await.unwrap();
        assert_eq!(algorithm(&jwt), expected, "{client} at {resource}");
        assert!(fixture.is_active(&jwt).await);
    }
    // One JWT for both needs one algorithm.
    for client in ["plain", "ed"] {
        let both = token(issuer, client, &[JOBS, OLD]).await.unwrap_err();
        assert_eq!(both.code(), Some("invalid_target"), "{client}");
    }
    assert_eq!(algorithm(&token(issuer, "rs", &[JOBS, OLD]).await.unwrap()), "RS256");
    for (client, expected) in [("plain", "ES256"), ("ed", "EdDSA"), ("rs", "RS256")] {
        let handle = token(issuer, client, &[ORDERS]).await.unwrap();
        let swapped = issuer.swap(&handle, None, Caller::Internal).await.unwrap().unwrap();
        assert_eq!(algorithm(&swapped.jwt), expected, "{client}");
    }
    assert!(issuer.jwks().await.unwrap().json.contains("\"EdDSA\""));
    // A ring that no resource needs is rotated, too.
    fixture.clock.advance(2 * HOUR);
    issuer.rotate_keys_of(Algorithm::EdDsa).await.unwrap();
}

/// A client whose algorithm has no keys is refused when the issuer is built; one of a directory of the app's
/// own when it asks for a token, and never gets one of another algorithm.
#[tokio::test]
async fn an_algorithm_without_keys_is_refused_by_the_name_of_the_client() {
    let client = |format| {
        Client::confidential("ed", CLIENT_SECRET)
            .grant_types([GrantType::ClientCredentials])
            .audience(JOBS, format)
            .jwt_algorithm(Algorithm::EdDsa)
    };
    let built = Issuer::dev().static_clients([client(Format::Jwt)]).unwrap().build().await;
    let Err(BuildError::Setting { setting, why }) = built else { panic!("it was built") };
    assert_eq!(setting, "jwt_algorithm");
    assert!(why.contains("`ed`") && why.contains("EdDSA"), "{why}");
    let main = client(Format::Jwt).jwt_algorithm(Algorithm::Es256);
    Issuer::dev().static_clients([main]).unwrap().build().await.unwrap();

    for format in [Format::Jwt, Format::Phantom] {
        let directory = StaticClients::new([client(format)]).unwrap();
        let issuer = Issuer::dev().clients(Arc::new(directory)).build().await.unwrap();
        let refused = token(&issuer, "ed", &[JOBS]).await.unwrap_err();
        assert!(matches!(refused, TokenError::Format(_)), "{refused}");
    }
    // A handle needs no keys.
    let directory = StaticClients::new([client(Format::Opaque)]).unwrap();
    let issuer = Issuer::dev().clients(Arc::new(directory)).build().await.unwrap();
    token(&issuer, "ed", &[JOBS]).await.unwrap();
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
