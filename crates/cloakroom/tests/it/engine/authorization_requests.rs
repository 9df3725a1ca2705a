//! Authorization requests: checked before the sign-in, and answered with a complete redirect.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::core::{Audience, ClientId, Confirmation, Subject, TokenSecret};
use cloakroom::memory::MemorySingleUse;
use cloakroom::{
    AuthorizationError, AuthorizationErrorCode, AuthorizationRedirect, AuthorizationRequest,
    Caller, Client, ClientBuilder, ClientDirectory, CodeRequest, DirectoryError, Format, Grant,
    GrantType, HandleKeys, HandleSecret, Issuer, PageError, Prompt,
};

use super::support::*;

const SPA: &str = "response_type=code&client_id=spa-app&state=x%20%26y";

fn pkce() -> String {
    let challenge = format!("{:?}", challenge());
    let challenge = challenge.trim_start_matches("Pkce(\"").trim_end_matches("\")").to_owned();
    format!("&code_challenge={challenge}&code_challenge_method=S256")
}

/// A good request of `spa-app`, with more parameters.
pub(super) fn good(more: &str) -> String {
    format!("{SPA}&redirect_uri={CALLBACK}{}{more}", pkce())
}

pub(super) async fn fixture() -> Fixture {
    Fixture::with(|builder| builder.single_use(Arc::new(MemorySingleUse::new()))).await
}

impl Fixture {
    pub(super) async fn asked(
        &self,
        query: &str,
    ) -> Result<AuthorizationRequest, AuthorizationError> {
        self.issuer.authorization_request(query.as_bytes()).await
    }

    pub(super) async fn opened(&self, sealed: &str) -> Result<AuthorizationRequest, PageError> {
        self.issuer.open_authorization_request(sealed).await
    }
}

/// The parameter of this name in the redirect.
pub(super) fn sent(redirect: &AuthorizationRedirect, name: &str) -> Option<String> {
    let url = url::Url::parse(redirect.location().unwrap()).unwrap();
    let found = url.query_pairs().find(|(own, _)| own == name);
    found.map(|(_, value)| value.into_owned())
}

#[track_caller]
fn assert_error(redirect: &AuthorizationRedirect, code: &str) {
    assert_eq!(redirect.error_code(), Some(code));
    assert!(redirect.location().unwrap().starts_with(&format!("{CALLBACK}?error={code}&")));
    assert_eq!(sent(redirect, "state").as_deref(), Some("x &y"));
    assert_eq!(sent(redirect, "iss").as_deref(), Some(ISSUER));
    assert_eq!(sent(redirect, "code"), None);
}

#[tokio::test]
async fn a_request_is_read_and_approved() {
    let fixture = fixture().await;
    let more = format!(
        "&scope=orders:read+admin&resource={JOBS}&resource={REPORTS}/&nonce=n-1&prompt=login+odd\
         &max_age=60&acr_values=phr+mfa&login_hint=alice&ui_locales=pt"
    );
    let request = fixture.asked(&good(&more)).await.unwrap();
    assert_eq!(request.client_id().as_str(), "spa-app");
    assert_eq!(request.client_name(), "spa-app", "it has no name");
    assert_eq!((request.redirect_uri(), &*request.redirect_host()), (CALLBACK, "app.example"));
    assert_eq!(request.scope().as_str(), "orders:read", "the rest is not the client's");
    assert_eq!(request.audience().iter().collect::<Vec<_>>(), [JOBS, REPORTS]);
    assert_eq!(request.prompt(), [Prompt::Login]);
    assert_eq!(request.max_age(), Some(MINUTE));
    assert_eq!(request.acr_values().collect::<Vec<_>>(), ["phr", "mfa"]);
    assert_eq!((request.login_hint(), request.nonce()), (Some("alice"), Some("n-1")));
    assert_eq!(request.parameter("ui_locales"), Some("pt"));
    assert_eq!(request.parameter("state"), None);

    let grant = request.grant("alice").unwrap().acr("mfa").unwrap().auth_time(START);
    let grant = grant.audience(Audience::one(REPORTS).unwrap());
    let redirect = request.approve(grant).await.unwrap();
    assert_eq!(redirect.error_code(), None);
    assert!(!format!("{redirect:?}").contains("cr_ac_"));
    assert_eq!(sent(&redirect, "state").as_deref(), Some("x &y"));
    assert_eq!(sent(&redirect, "iss").as_deref(), Some(ISSUER));
    let code = TokenSecret::new(sent(&redirect, "code").unwrap());
    let tokens = fixture.issuer.redeem(redemption_by("spa-app", &code)).await.unwrap();
    assert_eq!(tokens.scope.as_str(), "orders:read");
    let answer = fixture.issuer.introspect(&tokens.access_token, Caller::Internal).await.unwrap();
    let token = answer.active().unwrap();
    assert_eq!((token.acr.as_deref(), token.auth_time), (Some("mfa"), Some(START)));
    assert_eq!(token.audience, Some(Audience::one(REPORTS).unwrap()));
}

#[tokio::test]
async fn nobody_is_redirected_before_client_and_redirect_uri_are_known() {
    let fixture = fixture().await;
    let evil = "https://evil.example/cb";
    for query in [
        String::new(),
        format!("response_type=code&redirect_uri={evil}"),
        format!("response_type=code&client_id=&redirect_uri={evil}"),
        format!("response_type=code&client_id=nobody&redirect_uri={evil}"),
        format!("{SPA}&redirect_uri={evil}"),
        format!("{SPA}&redirect_uri={CALLBACK}/"),
        format!("{SPA}&redirect_uri={CALLBACK}%23x"),
        format!("{SPA}&redirect_uri={CALLBACK}@evil.example"),
        format!("{SPA}&redirect_uri={}", CALLBACK.to_uppercase()),
        // Pollution: two readers might each believe another value.
        format!("{SPA}&redirect_uri={CALLBACK}&redirect_uri={evil}"),
        format!("{SPA}&redirect_uri={evil}&redirect_uri={CALLBACK}"),
        format!("{SPA}&client_id=web-app&redirect_uri={CALLBACK}"),
        format!("{SPA}&client_id=&redirect_uri={CALLBACK}"),
        format!("{SPA}&redirect_uri={CALLBACK}&x=%ff"),
        format!("{SPA}&redirect_uri={CALLBACK}&x={}", "y".repeat(17_000)),
        // A resource server has no redirect URI.
        format!("response_type=code&client_id=gateway&redirect_uri={CALLBACK}"),
        "response_type=code&client_id=gateway".to_owned(),
    ] {
        // Neither does anything else that is wrong, or right, change that.
        for more in ["", "&response_type=token", "&request=eyJ", &pkce()] {
            match fixture.asked(&format!("{query}{more}")).await {
                Err(AuthorizationError::Page(error)) => {
                    assert!(!error.to_string().contains("evil"), "{error}");
                }
                other => panic!("{query}{more}: {other:?}"),
            }
        }
    }
}

#[tokio::test]
async fn what_else_is_wrong_goes_to_the_client() {
    let fixture = fixture().await;
    let bare = format!("{SPA}&redirect_uri={CALLBACK}");
    let s256 = "&code_challenge_method=S256";
    for (query, code) in [
        (bare.replace("response_type=code", ""), "invalid_request"),
        (good("").replace("=code&", "=token&"), "unsupported_response_type"),
        (good("").replace("=code&", "=code+id_token&"), "unsupported_response_type"),
        (good("&response_type=token"), "invalid_request"),
        (good("&scope=a&scope=b"), "invalid_request"),
        (good("&x=1&x=2"), "invalid_request"),
        (good("&request=eyJ"), "request_not_supported"),
        (good("&request_uri=https://evil.example"), "request_uri_not_supported"),
        (good("&registration=%7B%7D"), "registration_not_supported"),
        (good("&response_mode=fragment"), "invalid_request"),
        (bare.clone(), "invalid_request"),
        (format!("{bare}{s256}"), "invalid_request"),
        (format!("{bare}&code_challenge={}", "a".repeat(43)), "invalid_request"),
        (good("").replace("S256", "plain"), "invalid_request"),
        (format!("{bare}{s256}&code_challenge=short"), "invalid_request"),
        (good("&scope=admin"), "invalid_scope"),
        (good("&scope=a%22b"), "invalid_scope"),
        (good("&resource=https://evil.example"), "invalid_target"),
        (good("&resource=orders"), "invalid_target"),
        (good(&format!("&resource={ORDERS}&resource=https://evil.example")), "invalid_target"),
        (good("&prompt=none+login"), "invalid_request"),
        (good("&max_age=-1"), "invalid_request"),
        (good("&max_age=1.5"), "invalid_request"),
        (good("&max_age=99999999999999999999"), "invalid_request"),
        (good("&dpop_jkt=short"), "invalid_request"),
        (good(&format!("&nonce={}", "n".repeat(600))), "invalid_request"),
    ] {
        match fixture.asked(&query).await {
            Err(AuthorizationError::Redirect(redirect)) => assert_error(&redirect, code),
            other => panic!("{query}: {other:?}"),
        }
    }
    // With two states, none is the client's.
    let Err(AuthorizationError::Redirect(redirect)) = fixture.asked(&good("&state=z")).await else {
        panic!("two states");
    };
    assert_eq!((redirect.error_code(), sent(&redirect, "state")), (Some("invalid_request"), None));
}

#[tokio::test]
async fn every_end_is_a_complete_redirect() {
    let fixture = fixture().await;
    let denied = fixture.asked(&good("")).await.unwrap().deny().await;
    assert_error(&denied.unwrap(), "access_denied");
    for (error, code) in [
        (AuthorizationErrorCode::LoginRequired, "login_required"),
        (
            AuthorizationErrorCode::UnmetAuthenticationRequirements,
            "unmet_authentication_requirements",
        ),
    ] {
        let request = fixture.asked(&good("&prompt=none")).await.unwrap();
        assert_error(&request.error(error).await.unwrap(), code);
    }
}

#[tokio::test]
async fn a_grant_that_does_not_fit_the_request_gets_no_code() {
    let fixture = fixture().await;
    let grant = |client: &str| Grant::user(client, "alice").unwrap();
    for (more, grant, code) in [
        ("", grant("web-app"), "server_error"),
        ("&scope=orders:read", grant("spa-app").scope("orders:write").unwrap(), "invalid_scope"),
        ("", grant("spa-app").audience(Audience::one(BILLING).unwrap()), "invalid_target"),
        ("&prompt=login", grant("spa-app"), "login_required"),
        ("&prompt=login", grant("spa-app").auth_time(START - secs(1)), "login_required"),
        ("&max_age=60", grant("spa-app"), "login_required"),
        ("&max_age=60", grant("spa-app").auth_time(START - secs(61)), "login_required"),
    ] {
        let request = fixture.asked(&good(more)).await.unwrap();
        assert_error(&request.approve(grant).await.unwrap(), code);
    }
    assert_eq!(fixture.events.names(), [""; 0]);
    fixture.store.tokens_down(true);
    let request = fixture.asked(&good("")).await.unwrap();
    let redirect = request.approve(grant("spa-app")).await.unwrap();
    assert_error(&redirect, "temporarily_unavailable");
}

#[tokio::test]
async fn what_a_grant_leaves_open_is_what_was_asked_for() {
    let fixture = fixture().await;
    let jkt = "BAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQ";
    let more = format!("&scope=orders:read&resource={BILLING}&dpop_jkt={jkt}");
    let request = fixture.asked(&good(&more)).await.unwrap();
    let redirect = request.approve(Grant::user("spa-app", "alice").unwrap()).await.unwrap();
    let code = TokenSecret::new(sent(&redirect, "code").unwrap());
    let record = fixture.store.grant(grant_of(&code)).await;
    assert_eq!(record.scope.as_str(), "orders:read");
    assert_eq!(record.audience, Audience::one(BILLING).unwrap());
    assert_eq!(record.confirmation, Some(Confirmation::JwkThumbprint([4; 32])));
}

#[tokio::test]
async fn a_sign_in_is_asked_for_once() {
    let fixture = fixture().await;
    let earlier = |seconds| Some(START - secs(seconds));
    let later = Some(START + MINUTE);
    for (more, auth_time, needed) in [
        ("", None, true),
        ("", earlier(1_000_000), false),
        ("&prompt=login", earlier(1), true),
        ("&prompt=login", later, false),
        ("&max_age=60", earlier(60), false),
        ("&max_age=60", earlier(61), true),
        ("&max_age=0", earlier(1), true),
        ("&max_age=0", later, false),
    ] {
        let request = fixture.asked(&good(more)).await.unwrap();
        // However long the page was open.
        fixture.clock.advance(Duration::from_secs(600));
        let sealed = request.seal().unwrap();
        let request = fixture.opened(&sealed).await.unwrap();
        assert_eq!(request.needs_sign_in(auth_time), needed, "{more} {auth_time:?}");
        fixture.clock.set(START);
    }
}

#[tokio::test]
async fn a_sealed_request_says_the_same_and_can_be_approved_once() {
    let fixture = fixture().await;
    let more = "&scope=orders:read&nonce=n-1&prompt=consent&acr_values=mfa&ui_locales=pt";
    let request = fixture.asked(&good(more)).await.unwrap();
    let sealed = request.seal().unwrap();
    assert_ne!(sealed, request.seal().unwrap());
    let opened = fixture.opened(&sealed).await.unwrap();
    assert_eq!(format!("{opened:?}"), format!("{request:?}"));
    assert_eq!((opened.nonce(), opened.parameter("ui_locales")), (Some("n-1"), Some("pt")));
    assert_eq!((opened.prompt(), opened.acr_values().next()), (request.prompt(), Some("mfa")));

    // A request that was sealed again, for a session, is still the same one.
    let resealed = opened.seal_for(b"session 7").unwrap();
    let of_session =
        async |context| fixture.issuer.open_authorization_request_for(&resealed, context).await;
    for other in [&b""[..], b"session 8", b"session 70"] {
        assert!(matches!(of_session(other).await, Err(PageError::Forged)));
    }
    let last = of_session(b"session 7").await.unwrap();
    let grant = last.grant("alice").unwrap();
    assert_eq!(last.approve(grant).await.unwrap().error_code(), None);
    for again in [request, opened, fixture.opened(&sealed).await.unwrap()] {
        let grant = again.grant("alice").unwrap();
        assert!(matches!(again.approve(grant).await, Err(PageError::Used)));
    }
    assert_eq!(fixture.events.names(), ["Issued"]);
}

#[tokio::test]
async fn every_request_that_is_taken_can_be_sealed_and_opened() {
    let fixture = fixture().await;
    // In the sealed form, some bytes take six times as many.
    for (filler, most) in [("x", 15_500), ("%22", 5_000), ("\"", 15_500), ("\u{1}", 8_000)] {
        for length in (0..16_000).step_by(500) {
            let query = good(&format!("&ui_locales={}", filler.repeat(length)));
            let is_taken = match fixture.asked(&query).await {
                Ok(request) => {
                    let sealed = request.seal().unwrap();
                    assert!(fixture.opened(&sealed).await.is_ok(), "{filler:?} {length}");
                    true
                }
                Err(AuthorizationError::Redirect(redirect)) => {
                    assert_error(&redirect, "invalid_request");
                    false
                }
                Err(AuthorizationError::Page(PageError::Malformed(_))) => false,
                Err(other) => panic!("{other:?}"),
            };
            assert_eq!(is_taken, length <= most, "{filler:?} {length}");
        }
    }
}

#[tokio::test]
async fn a_sealed_request_ends_after_an_hour() {
    let fixture = fixture().await;
    let request = fixture.asked(&good("")).await.unwrap();
    fixture.clock.advance(MINUTE);
    let sealed = request.seal().unwrap();
    fixture.clock.advance(HOUR - MINUTE - Duration::from_millis(1));
    let opened = fixture.opened(&sealed).await.unwrap();
    let resealed = opened.seal().unwrap();
    fixture.clock.advance(Duration::from_millis(1));
    for late in [&sealed, &resealed] {
        assert!(matches!(fixture.opened(late).await, Err(PageError::Expired)));
    }
    let grant = opened.grant("alice").unwrap();
    assert!(matches!(opened.approve(grant).await, Err(PageError::Expired)));
}

#[tokio::test]
async fn a_sealed_request_that_was_denied_is_not_approved() {
    let fixture = fixture().await;
    let denied = AuthorizationErrorCode::AccessDenied;
    for with_code in [false, true] {
        let sealed = fixture.asked(&good("")).await.unwrap().seal().unwrap();
        let opened = async || fixture.opened(&sealed).await.unwrap();
        let (no, yes, again) = (opened().await, opened().await, opened().await);
        let redirect = if with_code { no.error(denied).await } else { no.deny().await };
        assert_error(&redirect.unwrap(), "access_denied");
        let grant = yes.grant("alice").unwrap();
        assert!(matches!(yes.approve(grant).await, Err(PageError::Used)));
        assert!(matches!(again.deny().await, Err(PageError::Used)));
    }
    assert_eq!(fixture.events.names(), [""; 0]);
    // And one that was approved is not denied: the client has its code.
    let sealed = fixture.asked(&good("")).await.unwrap().seal().unwrap();
    let (yes, no) =
        (fixture.opened(&sealed).await.unwrap(), fixture.opened(&sealed).await.unwrap());
    let grant = yes.grant("alice").unwrap();
    assert_eq!(yes.approve(grant).await.unwrap().error_code(), None);
    assert!(matches!(no.deny().await, Err(PageError::Used)));
    // Too late for both.
    let late = fixture.asked(&good("")).await.unwrap();
    late.seal().unwrap();
    fixture.clock.advance(HOUR);
    assert!(matches!(late.deny().await, Err(PageError::Expired)));
}

#[tokio::test]
async fn a_no_reaches_the_client_even_if_it_cannot_be_remembered() {
    let fixture =
        Fixture::with(|builder| builder.single_use(Arc::new(MemorySingleUse::with_max_items(0))))
            .await;
    let request = fixture.asked(&good("")).await.unwrap();
    request.seal().unwrap();
    assert_error(&request.deny().await.unwrap(), "access_denied");
}

#[tokio::test]
async fn a_changed_or_foreign_request_is_not_opened() {
    let fixture = fixture().await;
    let sealed = fixture.asked(&good("")).await.unwrap().seal().unwrap();
    for at in 0..sealed.len() {
        let changed = tampered(&TokenSecret::new(&*sealed), at);
        let opened = fixture.opened(changed.expose()).await;
        assert!(matches!(opened, Err(PageError::Forged)), "{at}");
    }
    for bad in ["", "AQ", &sealed[1..], &format!("{sealed}A"), &"A".repeat(100_000)] {
        assert!(matches!(fixture.opened(bad).await, Err(PageError::Forged)));
    }
    // Another issuer, with the same secret and the same clients.
    let (handles, url) = (HandleKeys::new(&HandleSecret::new(1, [1; 32])), "https://b.example");
    let other = |keys| {
        let client = Client::public("spa-app")
            .grant_types([GrantType::AuthorizationCode])
            .redirect_uri(CALLBACK)
            .audience(ORDERS, Format::Opaque);
        let builder = Issuer::dev().url(url).handle_keys(keys).clock(fixture.clock.clone());
        builder.static_clients([client]).unwrap()
    };
    let issuer = other(handles.clone()).build().await.unwrap();
    let opened = issuer.open_authorization_request(&sealed).await;
    assert!(matches!(opened, Err(PageError::Forged)));
    // Unless it is the same one, renamed.
    let renamed = other(handles).former_issuer(ISSUER).build().await.unwrap();
    assert!(renamed.open_authorization_request(&sealed).await.is_ok());
}

#[tokio::test]
async fn a_request_without_a_store_of_single_use_items_is_not_sealed() {
    let fixture = Fixture::new().await;
    let request = fixture.asked(&good("")).await.unwrap();
    assert!(request.seal().unwrap_err().to_string().contains("single_use"));
    let grant = request.grant("alice").unwrap();
    assert_eq!(request.approve(grant).await.unwrap().error_code(), None);
}

#[tokio::test]
async fn a_client_that_names_no_redirect_uri_and_needs_no_pkce_gets_its_code() {
    let fixture = fixture().await;
    let query = "client_id=oidc-app&response_type=code";
    let request = fixture.asked(query).await.unwrap();
    let redirect = request.approve(Grant::user("oidc-app", "alice").unwrap()).await.unwrap();
    assert_eq!(sent(&redirect, "state"), None);
    let code = TokenSecret::new(sent(&redirect, "code").unwrap());
    let redemption = CodeRequest::new(code, client_id("oidc-app"));
    assert!(fixture.issuer.redeem(redemption).await.is_ok());
}

#[tokio::test]
async fn a_response_by_form_holds_what_a_url_would_and_breaks_out_of_nothing() {
    let fixture = fixture().await;
    let query = good("&response_mode=form_post").replace("x%20%26y", "%22%3E%3Cscript%3E");
    let request = fixture.asked(&query).await.unwrap();
    let redirect = request.deny().await.unwrap();
    assert_eq!(redirect.location(), None);
    let page = redirect.page().unwrap();
    assert!(page.contains(&format!("<form method=post action=\"{CALLBACK}\">")));
    assert!(page.contains("name=\"error\" value=\"access_denied\""));
    assert!(page.contains("name=\"state\" value=\"&quot;&gt;&lt;script&gt;\""));
    assert!(page.contains(&format!("name=\"iss\" value=\"{ISSUER}\"")));
    assert_eq!(page.matches("<script>").count(), 1);
}

#[tokio::test]
async fn a_revocation_while_the_user_signs_in_covers_the_grant_if_it_has_the_epoch() {
    let fixture = fixture().await;
    let epoch = fixture.issuer.epoch().await.unwrap();
    let request = fixture.asked(&good("")).await.unwrap();
    fixture.issuer.revoke_subject(&Subject::user("alice").unwrap()).await.unwrap();
    let grant = request.grant("alice").unwrap().epoch(epoch);
    assert_error(&request.approve(grant).await.unwrap(), "access_denied");
}

/// Knows one client, as it is registered now.
#[derive(Debug)]
struct Registry(Mutex<Option<Arc<Client>>>);

#[async_trait]
impl ClientDirectory for Registry {
    async fn client(&self, _: &ClientId) -> Result<Option<Arc<Client>>, DirectoryError> {
        Ok(self.0.lock().unwrap().clone())
    }
}

#[tokio::test]
async fn a_request_that_waited_is_checked_against_the_registration_of_today() {
    let app = || {
        Client::confidential("spa-app", CLIENT_SECRET)
            .without_pkce()
            .grant_types([GrantType::AuthorizationCode])
            .redirect_uri(CALLBACK)
            .scope("orders:read orders:write")
            .audience(ORDERS, Format::Opaque)
    };
    let registry = Arc::new(Registry(Mutex::new(None)));
    let register = |client: Option<ClientBuilder>| {
        let client = client.map(|client| Arc::new(client.build().unwrap()));
        *registry.0.lock().unwrap() = client;
    };
    let fixture = Fixture::with(|builder| {
        builder.clients(registry.clone()).single_use(Arc::new(MemorySingleUse::new()))
    })
    .await;
    let query = format!("{SPA}&redirect_uri={CALLBACK}");
    let sealed = async || {
        register(Some(app()));
        fixture.asked(&query).await.unwrap().seal().unwrap()
    };
    let elsewhere = || {
        let client = Client::confidential("spa-app", CLIENT_SECRET).without_pkce();
        let client = client.grant_types([GrantType::AuthorizationCode]);
        client.redirect_uri("https://app.example/new").audience(ORDERS, Format::Opaque)
    };

    let waiting = sealed().await;
    register(None);
    assert!(matches!(fixture.opened(&waiting).await, Err(PageError::UnknownClient)));
    register(Some(elsewhere()));
    assert!(matches!(fixture.opened(&waiting).await, Err(PageError::RedirectUri)));
    register(Some(app().scope("orders:read")));
    let request = fixture.opened(&waiting).await.unwrap();
    assert_eq!(request.scope().as_str(), "orders:read");
    // Once it is open, the last word is that of the engine.
    for (client, error) in [(None, "not known"), (Some(elsewhere()), "not registered")] {
        let waiting = sealed().await;
        let request = fixture.opened(&waiting).await.unwrap();
        register(client);
        let grant = request.grant("alice").unwrap();
        let page = request.approve(grant).await.unwrap_err();
        assert!(page.to_string().contains(error), "{page}");
    }
    let without_codes = Client::confidential("spa-app", CLIENT_SECRET).redirect_uri(CALLBACK);
    let other_resource = app().audience(BILLING, Format::Opaque);
    let strict = Client::public("spa-app")
        .grant_types([GrantType::AuthorizationCode])
        .redirect_uri(CALLBACK)
        .audience(ORDERS, Format::Opaque);
    for (client, code) in [
        (without_codes, Some("unauthorized_client")),
        (strict, Some("invalid_request")),
        (other_resource, None),
    ] {
        let waiting = sealed().await;
        register(Some(client));
        let request = fixture.opened(&waiting).await.unwrap();
        let grant = request.grant("alice").unwrap();
        assert_eq!(request.approve(grant).await.unwrap().error_code(), code);
    }
}
