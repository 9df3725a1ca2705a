//! Opaque handles, phantom handles with their swap, and formats of the app's own.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::format::*;
use cloakroom::core::keys::*;
use cloakroom::core::record::*;
use cloakroom::core::revocation::*;
use cloakroom::core::store::*;
use cloakroom::core::time::*;
use cloakroom::core::*;
use cloakroom::jwt::{JwkSet, JwtFormat, KeySet, VerifiedJwt, Verifier, handle_hash};
use cloakroom::{
    AdoptRequest, Adopted, Caller, Client, Format, Grant, GrantType, Lifetimes, StaticClients,
    TokenError,
};
use serde_json::json;

use super::support::*;

/// What a service inside sees, which knows the JWK Set and nothing else.
async fn verified(fixture: &Fixture, jwt: &TokenSecret, audience: &str) -> VerifiedJwt {
    let jwks = fixture.issuer.jwks().await.unwrap();
    let keys = KeySet::prepare(&JwkSet::from_json(jwks.json.as_bytes()).unwrap());
    let verifier = Verifier::new(ISSUER, audience).clock(fixture.clock.clone());
    verifier.verify(&keys, jwt.expose()).unwrap()
}

impl Fixture {
    async fn swap(
        &self,
        token: &TokenSecret,
        resource: Option<&str>,
        caller: &str,
    ) -> Result<Option<cloakroom::jwt::SwappedJwt>, TokenError> {
        let caller = self.client(caller).await;
        self.issuer.swap(token, resource, Caller::Client(&caller)).await
    }

    /// A token for orders and billing at once.
    async fn for_both(&self) -> TokenSecret {
        let grant = Grant::user("web-app", "alice").unwrap();
        let grant = grant.audience(Audience::new([ORDERS, BILLING]).unwrap());
        self.issuer.issue(grant).await.unwrap().access_token
    }

    async fn sees(&self, caller: &str, token: &TokenSecret) -> bool {
        let caller = self.client(caller).await;
        let answer = self.issuer.introspect(token, Caller::Client(&caller)).await;
        answer.unwrap().is_active()
    }
}

#[tokio::test]
async fn a_resource_server_sees_what_is_meant_for_it_alone() {
    let fixture = Fixture::new().await;
    let Session { access, refresh } = fixture.session().await;
    let (both, code) = (fixture.for_both().await, fixture.code().await);
    for (caller, own, two) in [
        ("orders-api", true, true),
        ("billing-api", false, true),
        ("jobs-api", false, false),
        ("gateway", true, true),
        ("web-app", true, true),
        ("other-app", false, false),
    ] {
        assert_eq!(fixture.sees(caller, &access).await, own, "{caller}");
        assert_eq!(fixture.sees(caller, &both).await, two, "{caller}");
        assert_eq!(fixture.sees(caller, &refresh).await, caller == "web-app", "{caller}");
        assert!(!fixture.sees(caller, &code).await, "a code is inactive to everyone");
    }
    for token in [&refresh, &code] {
        assert!(!fixture.is_active(token).await);
    }
}

#[tokio::test]
async fn a_refresh_token_is_active_to_its_own_client_while_it_is_the_current_one() {
    let fixture = Fixture::new().await;
    let first = fixture.session().await;
    let next = Session::of(fixture.refresh(&first.refresh).await.unwrap());
    assert!(!fixture.sees("web-app", &first.refresh).await, "spent");
    assert!(fixture.sees("web-app", &next.refresh).await);
    let own = fixture.client("web-app").await;
    let answer = fixture.issuer.introspect(&next.refresh, Caller::Client(&own)).await;
    let token = answer.unwrap().active().unwrap().clone();
    assert_eq!(token.expires_at, Some(START + 14 * DAY));
    fixture.clock.advance(14 * DAY);
    assert!(!fixture.sees("web-app", &next.refresh).await, "timed out");
    fixture.issuer.revoke_subject(&alice()).await.unwrap();
    // Looking at a spent one, however late, ends nothing.
    assert_eq!(fixture.events.names(), ["Issued", "Refreshed", "Revoked"]);
}

#[tokio::test]
async fn a_handle_tells_nothing_and_an_inactive_one_neither() {
    let fixture = Fixture::new().await;
    for resource in [ORDERS, REPORTS] {
        let token = fixture.token_for(resource).await.access_token;
        assert!(token.expose().starts_with("cr_at_"));
        assert_eq!(token.expose().len(), 73);
        fixture.clock.advance(10 * MINUTE);
        let answer = fixture.issuer.introspect(&token, Caller::Internal).await.unwrap();
        assert_eq!(serde_json::to_string(&answer).unwrap(), r#"{"active":false}"#);
    }
}

#[tokio::test]
async fn a_phantom_handle_is_swapped_for_a_jwt_of_one_audience() {
    let fixture = Fixture::new().await;
    let token = fixture.for_both().await;
    let swapped = fixture.swap(&token, Some(BILLING), "gateway").await.unwrap().unwrap();
    let seen = verified(&fixture, &swapped.jwt, BILLING).await;
    assert_eq!(seen.token.audience.as_ref().unwrap().single(), Some(BILLING));
    assert_eq!(seen.token.subject, Some(alice()));
    assert_eq!(seen.token.client, Some(client_id("web-app")));
    assert_eq!(seen.token.grant, Some(grant_of(&token)));
    let digest = handles().parse_access(token.expose()).unwrap().digest;
    assert_eq!(seen.handle_hash, Some(handle_hash(&digest)));

    // A service that serves one resource need not name it; one that serves several must.
    let swapped = fixture.swap(&token, None, "orders-api").await.unwrap().unwrap();
    verified(&fixture, &swapped.jwt, ORDERS).await;
    let unnamed = fixture.swap(&token, None, "gateway").await;
    assert!(matches!(unnamed, Err(TokenError::InvalidTarget(_))));
    let single = fixture.session().await.access;
    let swapped = fixture.swap(&single, None, "gateway").await.unwrap().unwrap();
    verified(&fixture, &swapped.jwt, ORDERS).await;
    // Inside it is a token; outside it is none.
    assert!(!fixture.is_active(&swapped.jwt).await);
}

#[tokio::test]
async fn a_swap_gives_nothing_to_whom_it_does_not_concern() {
    let fixture = Fixture::new().await;
    let (orders, both) = (fixture.session().await.access, fixture.for_both().await);
    let reports = fixture.token_for(REPORTS).await.access_token;
    let jwt = fixture.token_for(JOBS).await.access_token;
    for (what, token, resource, caller) in [
        ("not meant for it", &orders, BILLING, "billing-api"),
        ("another service's part", &both, ORDERS, "billing-api"),
        ("a resource that was not granted", &orders, BILLING, "gateway"),
        ("its own client", &orders, ORDERS, "web-app"),
        ("another client", &orders, ORDERS, "other-app"),
        ("a format that is not swapped", &reports, REPORTS, "gateway"),
        ("a JWT", &jwt, JOBS, "gateway"),
        ("a resource that nobody knows", &orders, "https://x.example", "gateway"),
    ] {
        let swapped = fixture.swap(token, Some(resource), caller).await;
        assert!(swapped.unwrap().is_none(), "{what}");
    }
    fixture.issuer.revoke(&orders, &client_id("web-app")).await.unwrap();
    assert!(fixture.swap(&orders, Some(ORDERS), "gateway").await.unwrap().is_none());
    fixture.clock.advance(10 * MINUTE);
    assert!(fixture.swap(&both, Some(ORDERS), "gateway").await.unwrap().is_none());
}

#[tokio::test]
async fn a_phantom_jwt_lives_no_longer_than_it_may_nor_than_its_handle() {
    for (phantom, waited, life) in [(300, 0, 300), (300, 400, 200), (60, 0, 60), (1, 599, 1)] {
        let lifetimes = Lifetimes::default().phantom_jwt(secs(phantom));
        let fixture = Fixture::with(|builder| builder.lifetimes(lifetimes)).await;
        let token = fixture.session().await.access;
        fixture.clock.advance(secs(waited));
        let swapped = fixture.swap(&token, None, "gateway").await.unwrap().unwrap();
        let now = fixture.clock.now();
        assert_eq!(swapped.expires_at.as_secs() - now.as_secs(), life);
        let claims = claims(&swapped.jwt);
        assert_eq!(claims["exp"], swapped.expires_at.as_secs());
        assert_eq!(claims["iat"], now.as_secs());
    }
}

#[tokio::test]
async fn the_app_maps_the_scope_of_what_goes_inside() {
    let fixture = Fixture::with(|builder| {
        builder.scope_for_audience(|audience, scope| match audience {
            ORDERS => scope.intersection(&Scope::parse("orders:read").unwrap()),
            _ => Scope::parse("invoices").unwrap(),
        })
    })
    .await;
    let token = fixture.for_both().await;
    for (resource, scope) in [(ORDERS, "orders:read"), (BILLING, "invoices")] {
        let swapped = fixture.swap(&token, Some(resource), "gateway").await;
        assert_eq!(claims(&swapped.unwrap().unwrap().jwt)["scope"], scope);
    }
    let answer = fixture.issuer.introspect(&token, Caller::Internal).await.unwrap();
    assert_eq!(answer.active().unwrap().scope.as_str(), "orders:read orders:write");
}

#[tokio::test]
async fn one_client_has_another_format_for_another_resource() {
    let fixture = Fixture::new().await;
    let looks = |token: &TokenSecret| token.expose().starts_with("cr_at_");
    for (resource, opaque) in [(ORDERS, true), (REPORTS, true), (JOBS, false)] {
        assert_eq!(looks(&fixture.token_for(resource).await.access_token), opaque);
    }
    // Of one format they may share a token; of several they may not.
    let grant = Grant::user("web-app", "alice").unwrap();
    let grant = grant.audience(Audience::new([ORDERS, JOBS]).unwrap());
    let mixed = fixture.issuer.issue(grant).await;
    assert!(matches!(mixed, Err(TokenError::InvalidTarget(_))));
}

/// A format of the app's own: the grant, a dot, and 32 random bytes in hexadecimal.
#[derive(Debug)]
struct Dotted;

#[async_trait]
impl TokenFormat for Dotted {
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError> {
        let secret: [u8; 32] = context.random.array()?;
        let token = format!("{}.{}", context.grant.id, URL_SAFE_NO_PAD.encode(secret));
        let digest = TokenDigest::compute(TokenKind::Access, token.as_bytes());
        Ok(Minted::new(TokenSecret::new(token), Persisted::Token(digest)))
    }

    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        let grant = presented.expose().split_once('.').map(|(id, _)| id.parse());
        let Some(Ok(grant)) = grant else {
            return Ok(None);
        };
        let digest = TokenDigest::compute(TokenKind::Access, presented.expose().as_bytes());
        Ok(Some(Located::new(TokenKind::Access, grant, digest)))
    }
}

/// Tokens of a system that this one replaces: they are recognized, and none is made any more.
#[derive(Debug)]
pub(super) struct Legacy;

#[async_trait]
impl TokenFormat for Legacy {
    async fn mint(&self, _: MintContext<'_>) -> Result<Minted, FormatError> {
        Err(FormatError::Other("legacy tokens are not issued any more".into()))
    }

    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        if presented.expose().len() != 36 {
            return Ok(None);
        }
        let digest = TokenDigest::compute(TokenKind::Access, presented.expose().as_bytes());
        Ok(Some(Located::new(TokenKind::Access, GrantId::from_digest(&digest), digest)))
    }
}

pub(super) async fn with_formats_of_its_own() -> Fixture {
    let app = Client::confidential("web-app", CLIENT_SECRET)
        .grant_types(GrantType::ALL)
        .redirect_uri(CALLBACK)
        .audience(ORDERS, Format::from("dotted"))
        .build()
        .unwrap();
    let gateway = Client::resource_server("gateway", CLIENT_SECRET, cloakroom::Serves::Everything);
    Fixture::with(|builder| {
        builder
            .static_clients([app, gateway.build().unwrap()])
            .unwrap()
            .format("dotted", Arc::new(Dotted))
            .format("legacy", Arc::new(Legacy))
    })
    .await
}

#[tokio::test]
async fn a_format_of_the_apps_own_is_issued_introspected_swapped_and_revoked() {
    let fixture = with_formats_of_its_own().await;
    let session = fixture.session().await;
    assert_eq!(session.access.expose().find('.'), Some(22));
    assert!(fixture.is_active(&session.access).await);
    let swapped = fixture.swap(&session.access, None, "gateway").await.unwrap();
    verified(&fixture, &swapped.unwrap().jwt, ORDERS).await;
    let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
    fixture.issuer.revoke(&next.access, &client_id("web-app")).await.unwrap();
    assert!(!fixture.is_active(&next.access).await);
    assert!(fixture.is_active(&session.access).await);
}

#[tokio::test]
async fn a_format_that_is_not_registered_is_a_fault_of_the_set_up() {
    let app = Client::public("web-app").audience(ORDERS, Format::from("forgotten"));
    let app = app.build().unwrap();
    // From a directory of the app's own, of which nobody knows beforehand what it holds.
    let directory = Arc::new(StaticClients::new([app]).unwrap());
    let fixture = Fixture::with(|builder| builder.clients(directory)).await;
    let grant = Grant::user("web-app", "alice").unwrap();
    let failed = fixture.issuer.issue(grant).await.unwrap_err();
    assert!(matches!(failed, TokenError::Format(_)) && failed.code().is_none());
}

#[tokio::test]
async fn a_token_of_a_former_system_is_taken_over() {
    let fixture = with_formats_of_its_own().await;
    let (issuer, until) = (&fixture.issuer, START + HOUR);
    let token = TokenSecret::new("3f0a8b1e-7c2d-4e5f-9a6b-0c1d2e3f4a5b");
    let grant = || Grant::user("web-app", "alice").unwrap().claim("tenant", json!("acme")).unwrap();
    assert!(!fixture.is_active(&token).await);
    assert_eq!(
        issuer.adopt(AdoptRequest::new(token.clone(), grant(), START..until)).await.unwrap(),
        Adopted::Now
    );

    let answer = issuer.introspect(&token, Caller::Internal).await.unwrap();
    let active = answer.active().unwrap();
    assert_eq!(active.expires_at, Some(until), "longer than ours live, as it was promised");
    assert_eq!(active.extra.get("tenant"), Some(&json!("acme")));
    let swapped = fixture.swap(&token, None, "gateway").await.unwrap().unwrap();
    verified(&fixture, &swapped.jwt, ORDERS).await;
    assert_eq!(fixture.sessions().await, 1);
    fixture.events.take();
    // Whoever takes them over on sight may see one twice.
    let again = grant().claim("tenant", json!("mallory")).unwrap();
    assert_eq!(
        issuer.adopt(AdoptRequest::new(token.clone(), again, START..until)).await.unwrap(),
        Adopted::Before
    );
    assert_eq!(fixture.events.names(), [""; 0]);
    let answer = issuer.introspect(&token, Caller::Internal).await.unwrap();
    assert_eq!(answer.active().unwrap().extra.get("tenant"), Some(&json!("acme")));
    issuer.revoke(&token, &client_id("web-app")).await.unwrap();
    assert!(!fixture.is_active(&token).await);

    let other = TokenSecret::new("00000000-0000-4000-8000-000000000000");
    let key = Confirmation::JwkThumbprint([4; 32]);
    issuer
        .adopt(AdoptRequest::new(other.clone(), grant().confirmation(key.clone()), START..until))
        .await
        .unwrap();
    let answer = issuer.introspect(&other, Caller::Internal).await.unwrap();
    assert_eq!(answer.active().unwrap().confirmation, Some(key.clone()));
    issuer.revoke_subject(&alice()).await.unwrap();
    assert!(!fixture.is_active(&other).await);
    // Whoever sends the very same again hears of the revocation.
    let again =
        issuer.adopt(AdoptRequest::new(other.clone(), grant().confirmation(key), START..until));
    let again = again.await;
    assert!(matches!(again, Err(TokenError::Barred)), "{again:?}");
    let expiring = TokenSecret::new("11111111-0000-4000-8000-000000000000");
    let login = UnixTime::from_millis(issuer.epoch().await.unwrap().get());
    let refused =
        issuer.adopt(AdoptRequest::new(expiring.clone(), grant(), login..START + 1000 * DAY)).await;
    assert!(
        matches!(refused, Err(TokenError::InvalidRequest(_))),
        "revocations would be forgotten"
    );
    // Issued before "log out everywhere", seen here only after.
    let covered =
        issuer.adopt(AdoptRequest::new(expiring.clone(), grant(), START - HOUR..until)).await;
    assert!(matches!(covered, Err(TokenError::Barred)), "{covered:?}");
    let later = TokenSecret::new("22222222-0000-4000-8000-000000000000");
    let after = login + KeyPolicy::default().clock_skew;
    assert_eq!(
        issuer.adopt(AdoptRequest::new(later.clone(), grant(), after..until)).await.unwrap(),
        Adopted::Now
    );
    // A token that was revoked does not come back, whatever housekeeping has done since.
    fixture.clock.advance(HOUR - secs(1));
    issuer.maintain().await.unwrap();
    assert_eq!(
        issuer.adopt(AdoptRequest::new(token.clone(), grant(), login..until)).await.unwrap(),
        Adopted::Before
    );
    assert!(!fixture.is_active(&token).await);
}

/// The clocks of both systems may differ by the clock skew, either way.
#[tokio::test]
async fn a_foreign_clock_may_be_off_by_the_clock_skew() {
    let fixture = with_formats_of_its_own().await;
    let issuer = &fixture.issuer;
    let (skew, milli) = (KeyPolicy::default().clock_skew, std::time::Duration::from_millis(1));
    let mut number = 0;
    let mut token = || {
        number += 1;
        TokenSecret::new(format!("{number:08}-0000-4000-8000-000000000000"))
    };
    let grant = || Grant::user("web-app", "alice").unwrap();

    // Issued just now for the longest life, by a clock that is ahead.
    let end = START + HOUR + skew;
    let longest = token();
    issuer.adopt(AdoptRequest::new(longest.clone(), grant(), START + skew..end)).await.unwrap();
    let refused =
        issuer.adopt(AdoptRequest::new(token(), grant(), START + skew..end + milli)).await;
    assert!(matches!(refused, Err(TokenError::InvalidRequest(_))), "{refused:?}");

    issuer.revoke_subject(&alice()).await.unwrap();
    let bound = UnixTime::from_millis(issuer.epoch().await.unwrap().get() - 1);
    // Its end is remembered by whoever's clock it lives longest.
    fixture.clock.set(end + skew);
    issuer.maintain().await.unwrap();
    let rule = issuer_rules(&fixture).await;
    assert!(rule >= end + skew, "{rule:?}");
    fixture.clock.set(START);

    // Issued before the revocation, by a clock that is ahead: covered.
    let covered =
        issuer.adopt(AdoptRequest::new(token(), grant(), bound + skew..START + HOUR)).await;
    assert!(matches!(covered, Err(TokenError::Barred)), "{covered:?}");
    let later =
        issuer.adopt(AdoptRequest::new(token(), grant(), bound + skew + milli..START + HOUR)).await;
    assert_eq!(later.unwrap(), Adopted::Now);
}

/// Until when the log says that Alice was logged out everywhere.
async fn issuer_rules(fixture: &Fixture) -> UnixTime {
    let batch = fixture.store.revocations(Cursor::start(), 1000).await.unwrap();
    let RevocationBatch::Entries { entries, .. } = batch else { panic!("a gap") };
    let of_alice = |entry: &&LogEntry| {
        matches!(&entry.event, LogEvent::Revoked { target: Target::Subject(_), .. })
    };
    entries.iter().find(of_alice).unwrap().until
}

#[tokio::test]
async fn what_no_format_derives_from_itself_is_not_taken_over() {
    let fixture = with_formats_of_its_own().await;
    let session = fixture.session().await;
    let unknown = TokenSecret::new("what is this");
    for token in [&session.access, &session.refresh, &unknown] {
        let grant = Grant::user("web-app", "mallory").unwrap();
        let refused = fixture
            .issuer
            .adopt(AdoptRequest::new(token.clone(), grant, START..START + HOUR))
            .await;
        assert!(matches!(refused, Err(TokenError::InvalidRequest(_))));
    }
}

/// JWTs in disguise: made and found by [`JwtFormat`], spelled without dots.
#[derive(Debug, Default)]
struct Disguised(OnceLock<JwtFormat>);

#[async_trait]
impl TokenFormat for Disguised {
    async fn mint(&self, context: MintContext<'_>) -> Result<Minted, FormatError> {
        let minted = self.0.get().expect("it is set").mint(context).await?;
        let token = TokenSecret::new(minted.token.expose().replace('.', "~"));
        Ok(Minted::new(token, minted.kept))
    }

    fn locate(&self, presented: &TokenSecret) -> Result<Option<Located>, FormatError> {
        let jwt = TokenSecret::new(presented.expose().replace('~', "."));
        self.0.get().expect("it is set").locate(&jwt)
    }
}

#[tokio::test]
async fn what_does_not_show_its_key_is_vouched_for_by_no_replica() {
    let format = Arc::new(Disguised::default());
    let app = Client::confidential("web-app", CLIENT_SECRET)
        .grant_types([GrantType::RefreshToken])
        .audience(ORDERS, Format::from("disguised"))
        .audience(JOBS, Format::Jwt)
        .build()
        .unwrap();
    let fixture = Fixture::with(|issuer| {
        issuer.static_clients([app]).unwrap().format("disguised", format.clone())
    })
    .await;
    let jwts = fixture.issuer.keys().jwt_format();
    assert!(format.0.set(jwts).is_ok());
    for (resource, has_epoch) in [(ORDERS, false), (JOBS, true)] {
        let token = fixture.token_for(resource).await.access_token;
        let answer = fixture.issuer.introspect(&token, Caller::Internal).await.unwrap();
        let answer = answer.active().expect("it is active");
        assert_eq!((answer.epoch.is_some(), answer.jti.is_some()), (has_epoch, true));
    }
}
