//! What `build` refuses, and how it says so.

use std::sync::Arc;

use cloakroom::core::handle::HandleCheck;
use cloakroom::core::keys::*;
use cloakroom::core::*;
use cloakroom::jwt::{AesGcmSealer, KeyManagerError};
use cloakroom::memory::MemoryStore;
use cloakroom::{
    BuildError, Client, ClientLifetimes, Format, Grant, GrantType, Issuer, IssuerBuilder,
    Lifetimes, TokenError,
};

use super::formats::Legacy;
use super::support::*;

/// A builder that lacks nothing.
fn complete() -> IssuerBuilder {
    Issuer::dev().static_clients([Client::public("app").build().unwrap()]).unwrap()
}

/// Why these settings are refused: the setting, and the advice.
async fn refused(builder: IssuerBuilder) -> (&'static str, String) {
    match builder.build().await.unwrap_err() {
        BuildError::Setting { setting, why } => (setting, why),
        other => panic!("{other:?}"),
    }
}

async fn refused_policy(policy: KeyPolicy) -> String {
    let (setting, why) = refused(complete().key_policy(policy)).await;
    assert_eq!(setting, "key_policy");
    why
}

/// A gateway would take the tokens of the next run for forged ones.
#[tokio::test]
async fn two_runs_of_the_preset_for_development_do_not_share_the_number_of_a_key() {
    let client = Client::public("app").audience("https://a.example", Format::Opaque);
    let issuer = Issuer::dev().static_clients([client]).unwrap().build().await.unwrap();
    let token = issuer.issue(Grant::user("app", "alice").unwrap()).await.unwrap().access_token;
    let mut checks = Vec::new();
    for _ in 0..8 {
        let other = complete().build().await.unwrap();
        checks.push(other.access_handle_keys().check(token.expose()));
    }
    // One of 256 does by chance.
    assert!(checks.contains(&HandleCheck::UnknownKey), "{checks:?}");
}

#[tokio::test]
async fn the_defaults_fit_together() {
    let issuer = complete().build().await.unwrap();
    assert_eq!(issuer.url(), "http://127.0.0.1:9000");
    assert!(issuer.jwks().await.unwrap().json.contains("ES256"));
}

#[tokio::test]
async fn a_rotation_that_would_sign_before_it_published_is_refused() {
    let good = KeyPolicy::default();
    let least = good.jwks_max_age + 2 * good.reload + good.clock_skew;
    let exact = good.publish_ahead(least);
    complete().key_policy(exact).build().await.unwrap();
    let short = good.publish_ahead(least - secs(1));
    let why = refused_policy(short).await;
    assert!(why.contains("publish_ahead is 3724s, but must be at least 3725s"), "{why}");
    assert!(why.contains("jwks_max_age + 2 × reload + clock_skew"), "{why}");
}

#[tokio::test]
async fn each_setting_of_the_keys_is_named_with_its_remedy() {
    let good = KeyPolicy::default();
    let least = good.max_token_life + good.clock_skew + good.leeway + good.max_blind;
    complete().key_policy(good.retention(least)).build().await.unwrap();
    for (policy, parts) in [
        (
            good.retention(least - secs(1)),
            ["retention", "at least 7235s", "max_token_life + clock_skew + leeway + max_blind"],
        ),
        (
            good.rotation(good.publish_ahead - secs(1)),
            ["rotation", "at least 86400s", "publish_ahead"],
        ),
        (good.max_blind(secs(59)), ["max_blind", "at least 60s", "reload"]),
        (good.jwks_max_age(2 * DAY), ["publish_ahead", "at least", "jwks_max_age"]),
        (good.max_token_life(3 * DAY), ["retention", "at least", "max_token_life"]),
    ] {
        let why = refused_policy(policy).await;
        assert!(parts.iter().all(|part| why.contains(part)), "{why}");
    }
}

#[tokio::test]
async fn each_lifetime_is_named_with_its_bounds() {
    let good = Lifetimes::default();
    let zero = secs(0);
    for (lifetimes, setting, bounds) in [
        (good.access_token(zero), "access_token", "1 s"),
        (good.access_token(DAY), "access_token", "max_token_life (3600s)"),
        (good.code(zero), "code", "1s"),
        (good.code(secs(601)), "code", "600s"),
        (good.phantom_jwt(zero), "phantom_jwt", "1s"),
        (good.phantom_jwt(secs(301)), "phantom_jwt", "300s"),
        (good.retry_window(secs(301)), "retry_window", "300s"),
        // A grant without an end could never be forgotten.
        (good.grant(std::time::Duration::MAX), "grant", "600s"),
        (good.grant(MINUTE), "grant", "600s"),
        (good.refresh_idle(zero), "refresh_idle", "1s"),
        (good.refresh_idle(91 * DAY), "refresh_idle", "7776000s"),
        (good.adopted_token(zero), "adopted_token", "1s"),
        (good.adopted_token(91 * DAY), "adopted_token", "7776000s"),
    ] {
        let (named, why) = refused(complete().lifetimes(lifetimes)).await;
        assert_eq!(named, format!("lifetimes.{setting}"));
        assert!(why.contains(bounds), "{named}: {why}");
    }
}

#[tokio::test]
async fn maintenance_that_cannot_keep_its_promises_is_refused() {
    let millis = std::time::Duration::from_millis;
    for (heartbeat, housekeeping, named) in [
        (millis(9), secs(30), "heartbeat_interval"),
        (secs(0), secs(30), "heartbeat_interval"),
        (secs(31), secs(30), "housekeeping_interval"),
        (secs(1), secs(3601), "housekeeping_interval"),
    ] {
        let (setting, why) =
            refused(complete().heartbeat_interval(heartbeat).housekeeping_interval(housekeeping))
                .await;
        assert_eq!(setting, named);
        assert!(why.contains("heartbeat") || why.contains("hourly"), "{why}");
    }
    complete().heartbeat_interval(millis(10)).housekeeping_interval(HOUR).build().await.unwrap();
    // A heartbeat is heard when the next one is due, at the latest, and clocks differ.
    let (setting, why) = refused(complete().max_log_staleness(millis(6999))).await;
    assert_eq!(setting, "max_log_staleness");
    assert!(why.contains("less than two heartbeat intervals plus key_policy.clock_skew"), "{why}");
    complete().max_log_staleness(millis(7000)).build().await.unwrap();
    let one_clock = KeyPolicy::default().clock_skew(secs(0));
    let with_one_clock = |at_most| complete().key_policy(one_clock).max_log_staleness(at_most);
    refused(with_one_clock(millis(1999))).await;
    with_one_clock(millis(2000)).build().await.unwrap();
}

#[tokio::test]
async fn clocks_that_nobody_keeps_are_refused() {
    let good = KeyPolicy::default().publish_ahead(2 * DAY).retention(3 * DAY);
    let most = KeyPolicy::MAX_CLOCK_SKEW;
    complete().key_policy(good.clock_skew(most)).build().await.unwrap();
    for clock_skew in [most + std::time::Duration::from_millis(1), 12 * HOUR] {
        let why = refused_policy(good.clock_skew(clock_skew)).await;
        assert!(why.contains("clock_skew is") && why.contains("at most 300s"), "{why}");
    }
}

/// Whatever a duration is set to, `build` works or refuses it by name: nothing overflows.
#[tokio::test]
async fn no_duration_makes_build_panic() {
    use std::time::Duration;
    let extremes = [
        Duration::ZERO,
        Duration::from_nanos(1),
        Duration::from_millis(1),
        KeyPolicy::MAX_DURATION,
        KeyPolicy::MAX_DURATION + Duration::from_nanos(1),
        Duration::from_secs(u64::MAX / 2),
        Duration::MAX,
    ];
    type Set = fn(IssuerBuilder, Duration) -> IssuerBuilder;
    macro_rules! fields {
        ($($field:ident)*) => {
            [$((
                stringify!($field),
                (|builder, value| {
                    builder.key_policy(KeyPolicy::default().$field(value))
                }) as Set,
            )),*]
        };
    }
    macro_rules! setters {
        ($($field:ident)*) => {
            [$((
                stringify!($field),
                (|builder, value| builder.lifetimes(Lifetimes::default().$field(value))) as Set,
            )),*]
        };
    }
    let keys = fields!(rotation publish_ahead retention jwks_max_age reload
        max_blind clock_skew leeway max_token_life);
    let lives = setters!(access_token code refresh_idle grant phantom_jwt
        adopted_token retry_window);
    let all_keys: Set = |builder, all| {
        builder.key_policy(
            KeyPolicy::default()
                .rotation(all)
                .publish_ahead(all)
                .retention(all)
                .jwks_max_age(all)
                .reload(all)
                .max_blind(all)
                .clock_skew(all)
                .leeway(all)
                .max_token_life(all),
        )
    };
    let others: [(&str, Set); 5] = [
        ("_interval", |builder, both| builder.heartbeat_interval(both).housekeeping_interval(both)),
        ("_interval", |builder, value| {
            builder.heartbeat_interval(value).housekeeping_interval(secs(30))
        }),
        ("_interval", |builder, value| {
            builder.heartbeat_interval(secs(1)).housekeeping_interval(value)
        }),
        ("max_log_staleness", |builder, value| builder.max_log_staleness(value)),
        ("is", all_keys),
    ];
    let (mut built, mut refused) = (0, 0);
    for (name, set) in keys.into_iter().chain(lives).chain(others) {
        for value in extremes {
            match set(complete(), value).build().await {
                Ok(issuer) => {
                    // What was taken serves, too.
                    issuer.maintain().await.unwrap();
                    let grant = Grant::user("app", "alice").unwrap();
                    let grant = grant.audience(Audience::one(ORDERS).unwrap());
                    let issued = issuer.issue(grant.lifetime(Duration::MAX)).await;
                    assert!(matches!(issued, Ok(_) | Err(TokenError::InvalidTarget(_))));
                    issuer.revoke_subject(&alice()).await.unwrap();
                    built += 1;
                }
                Err(BuildError::Setting { setting, why }) => {
                    let told = format!("{setting}: {why}");
                    assert!(told.contains(name) && why.len() > 20, "{name}: {told}");
                    refused += 1;
                }
                Err(other) => panic!("{name} {value:?}: {other:?}"),
            }
        }
    }
    assert!(built > 15 && refused > 60, "{built} built, {refused} refused");
}

#[tokio::test]
async fn an_issuer_is_an_https_url_in_its_one_spelling() {
    for good in ["https://as.example", "https://as.example/tenant-1", "http://localhost:9000"] {
        let issuer = complete().url(good).build().await.unwrap();
        assert_eq!(issuer.url(), good);
    }
    for (bad, advice) in [
        ("as.example", "https://as.example"),
        ("", "https://as.example"),
        ("http://as.example", "https"),
        ("https://as.example/", "slash"),
        ("https://as.example?tenant=1", "query"),
        ("https://as.example#x", "fragment"),
        ("https://user@as.example", "credentials"),
        ("https://AS.example", "byte for byte"),
    ] {
        let (setting, why) = refused(complete().url(bad)).await;
        assert_eq!(setting, "issuer");
        assert!(why.contains(advice), "{why}");
    }
}

#[tokio::test]
async fn a_missing_part_is_named_with_the_call_that_brings_it() {
    let bare = || Issuer::builder(ISSUER);
    let store = Arc::new(MemoryStore::new());
    let sealer = Arc::new(AesGcmSealer::new(1, [2; 32]));
    let missing = async |builder: IssuerBuilder| match builder.build().await.unwrap_err() {
        BuildError::Missing { call, .. } => call,
        other => panic!("{other:?}"),
    };
    assert_eq!(missing(bare()).await, "store(…)");
    let tokens = bare().token_store(store.clone());
    assert_eq!(missing(tokens).await, "key_store(…)");
    let stores = || bare().store(store.clone());
    assert_eq!(missing(stores()).await, "handle_keys(…)");
    let keyed = || stores().handle_keys(handles());
    assert_eq!(missing(keyed()).await, "sealer(…)");
    let sealed = || keyed().sealer(sealer.clone());
    assert_eq!(missing(sealed()).await, "clients(…)");
    sealed().static_clients([] as [Client; 0]).unwrap().build().await.unwrap();
}

#[tokio::test]
async fn a_format_that_nobody_registered_is_refused() {
    let client = Client::public("app").audience(ORDERS, Format::from("house-made"));
    let client = client.build().unwrap();
    let (setting, why) = refused(Issuer::dev().static_clients([client]).unwrap()).await;
    assert_eq!(setting, "formats");
    assert!(why.contains(r#"`format("house-made", …)`"#), "{why}");
}

#[tokio::test]
async fn a_format_needs_a_name_of_its_own() {
    let named = |names: &[&str]| {
        names.iter().fold(complete(), |builder, name| builder.format(name, Arc::new(Legacy)))
    };
    named(&["one", "two"]).build().await.unwrap();
    for names in [&["opaque"][..], &["phantom"], &["jwt"], &["one", "two", "one"]] {
        let (setting, why) = refused(named(names)).await;
        assert_eq!(setting, "formats");
        assert!(why.contains(&format!("`{}` is taken", names[0])), "{why}");
    }
}

#[tokio::test]
async fn a_sealer_that_does_not_open_the_ring_is_noticed_at_the_start() {
    let store = Arc::new(MemoryStore::new());
    let with = |id, key| {
        let sealer = Arc::new(AesGcmSealer::new(id, key));
        complete().store(store.clone()).handle_keys(handles()).sealer(sealer).build()
    };
    with(1, [1; 32]).await.unwrap();
    let BuildError::Keys(cause) = with(2, [1; 32]).await.unwrap_err() else { panic!() };
    assert!(matches!(cause, KeyManagerError::Seal { .. }), "{cause:?}");
    assert!(cause.to_string().contains("give the sealer the key-encryption key"));
    let source = std::error::Error::source(&cause).unwrap().to_string();
    assert!(source.contains("sealed under the key-encryption key 1"), "{source}");
    let BuildError::Keys(cause) = with(1, [9; 32]).await.unwrap_err() else { panic!() };
    assert!(matches!(cause, KeyManagerError::OtherSealingKey(_)), "{cause:?}");
    assert!(cause.to_string().contains("key-encryption key 1"), "{cause}");
}

#[test]
fn contradictory_clients_are_refused_by_name() {
    let app = || Client::public("app").audience(ORDERS, Format::Opaque);
    let zero = ClientLifetimes::default().access_token(secs(0));
    for client in [
        app().grant_types([GrantType::ClientCredentials]),
        app().grant_types([GrantType::AuthorizationCode]),
        app().lifetimes(zero),
    ] {
        let refused = client.build().unwrap_err();
        assert!(refused.to_string().starts_with("client `app`: "), "{refused}");
    }
    assert!(Client::confidential("app", "too-short").build().is_err());
    assert!(Client::public("").build().is_err());
}
