//! Browsers, and who is signed in there.

use std::sync::Arc;

use cloakroom::core::handle::ChainKind;
use cloakroom::core::record::ChainKey;
use cloakroom::core::{Random, TokenSecret};
use cloakroom::http::{Browser, HeaderMap, Method, SignIn};
use cloakroom::memory::MemorySingleUse;
use cloakroom::{
    Caller, Client, Event, Format, Grant, GrantType, Issuer, NewToken, Occasion, PageError,
    RefreshRequest, TokenChanges, TokenHookError,
};
use http::header::{COOKIE, SET_COOKIE};

use super::support::*;

const QUERY: &str = "response_type=code&client_id=oidc-app";

async fn fixture() -> Fixture {
    Fixture::with(|builder| builder.single_use(Arc::new(MemorySingleUse::new()))).await
}

/// What a browser keeps and sends.
#[derive(Clone, Default)]
struct Jar(HeaderMap);

impl Jar {
    async fn get(&self, issuer: &Issuer) -> Browser {
        issuer.browser(&Method::GET, &self.0).await.unwrap()
    }

    /// A form that a page of this site sends.
    async fn post(&self, issuer: &Issuer, site: &str) -> Browser {
        let mut headers = self.0.clone();
        headers.insert("sec-fetch-site", site.parse().unwrap());
        issuer.browser(&Method::POST, &headers).await.unwrap()
    }

    /// Takes the cookies of a response.
    fn take(&mut self, browser: &Browser) {
        let mut response = HeaderMap::new();
        browser.add_to(&mut response);
        for cookie in response.get_all(SET_COOKIE) {
            assert!(cookie.is_sensitive());
            let cookie = cookie.to_str().unwrap();
            let (pair, attributes) = cookie.split_once("; ").unwrap();
            assert!(attributes.ends_with("; HttpOnly; SameSite=Lax; Secure"), "{cookie}");
            let name = pair.split_once('=').unwrap().0.to_owned();
            self.remove(&name);
            if !attributes.contains("Max-Age=0;") {
                self.0.append(COOKIE, pair.parse().unwrap());
            }
        }
    }

    fn remove(&mut self, name: &str) {
        let kept = |cookie: &&http::HeaderValue| !cookie.to_str().unwrap().starts_with(name);
        let kept: Vec<_> = self.0.get_all(COOKIE).iter().filter(kept).cloned().collect();
        self.0.remove(COOKIE);
        for cookie in kept {
            self.0.append(COOKIE, cookie);
        }
    }

    /// The value of the cookie of the session.
    fn session(&self) -> Option<TokenSecret> {
        let mut all = self.0.get_all(COOKIE).iter().map(|cookie| cookie.to_str().unwrap());
        let found = all.rfind(|cookie| cookie.starts_with("__Host-session-"))?;
        Some(TokenSecret::new(found.split_once('=')?.1))
    }

    /// Another value in its place.
    fn with_session(&self, value: &str) -> Self {
        let mut jar = self.clone();
        let mut all = self.0.get_all(COOKIE).iter().map(|cookie| cookie.to_str().unwrap());
        let name = all.rfind(|cookie| cookie.starts_with("__Host-session-")).unwrap();
        let name = name.split_once('=').unwrap().0;
        jar.remove(name);
        jar.0.append(COOKIE, format!("{name}={value}").parse().unwrap());
        jar
    }

    async fn user(&self, issuer: &Issuer) -> Option<String> {
        self.get(issuer).await.user().map(str::to_owned)
    }

    async fn sign_in(&mut self, issuer: &Issuer, user: &str) {
        let mut browser = self.post(issuer, "same-origin").await;
        browser.sign_in(user).await.unwrap();
        self.take(&browser);
    }
}

#[tokio::test]
async fn a_user_signs_in_and_out() {
    let fixture = fixture().await;
    let (issuer, mut jar) = (&fixture.issuer, Jar::default());
    let first = jar.get(issuer).await;
    assert_eq!((first.user(), first.session(), first.auth_time()), (None, None, None));
    assert!(matches!(first.require_user(), Err(PageError::SignedOut)));
    jar.take(&first);
    assert!(jar.session().is_none());
    assert!(!format!("{:?}", jar.0).contains(first.device()), "the name is not the secret");

    jar.0.insert("user-agent", "Firefox on Linux".parse().unwrap());
    let mut browser = jar.post(issuer, "same-origin").await;
    assert_eq!(browser.device(), first.device());
    browser.sign_in(SignIn::user("alice").acr("mfa").keep_user_agent()).await.unwrap();
    let shown = format!("{browser:?}");
    jar.take(&browser);
    assert!(!shown.contains(jar.session().unwrap().expose()), "{shown}");

    fixture.clock.advance(HOUR);
    let browser = jar.get(issuer).await;
    assert_eq!((browser.user(), browser.acr()), (Some("alice"), Some("mfa")));
    assert_eq!(browser.require_user().unwrap(), &alice());
    assert_eq!((browser.auth_time(), browser.device()), (Some(START), first.device()));
    let session = issuer.sessions(&alice()).await.unwrap().remove(0);
    assert_eq!((Some(session.grant), session.client.as_str()), (browser.session(), ISSUER));
    assert_eq!(session.device_id(), Some(first.device()));
    assert_eq!(session.device.get("user_agent"), Some("Firefox on Linux"));

    let mut browser = jar.post(issuer, "same-origin").await;
    let cookies = jar.clone();
    browser.sign_out().await.unwrap();
    jar.take(&browser);
    assert!(jar.session().is_none());
    assert_eq!(cookies.user(issuer).await, None, "a copy of the cookie is worth nothing");
    assert_eq!(fixture.sessions().await, 0);
    assert_eq!(fixture.events.names(), ["Issued", "Revoked"]);
}

#[tokio::test]
async fn a_browser_keeps_its_session_for_thirty_days_and_its_device_for_a_year() {
    let fixture = fixture().await;
    let mut browser = Jar::default().post(&fixture.issuer, "same-origin").await;
    browser.sign_in("alice").await.unwrap();
    let mut response = HeaderMap::new();
    browser.add_to(&mut response);
    let mut cookies = response.get_all(SET_COOKIE).iter().map(|cookie| cookie.to_str().unwrap());
    for (name, seconds) in [("__Host-device-", 31_536_000), ("__Host-session-", 2_592_000)] {
        let cookie = cookies.next().unwrap();
        assert!(cookie.starts_with(name), "{cookie}");
        assert!(cookie.contains(&format!("; Max-Age={seconds};")), "{cookie}");
    }
}

#[tokio::test]
async fn a_session_ends_with_its_life_and_with_the_next_one() {
    let fixture = fixture().await;
    let (issuer, mut jar) = (&fixture.issuer, Jar::default());
    let mut browser = jar.post(issuer, "same-origin").await;
    browser.sign_in(SignIn::user("alice").life(HOUR)).await.unwrap();
    jar.take(&browser);
    fixture.clock.advance(HOUR - secs(1));
    assert_eq!(jar.user(issuer).await.as_deref(), Some("alice"));
    fixture.clock.advance(secs(1));
    assert_eq!(jar.user(issuer).await, None);

    jar.sign_in(issuer, "alice").await;
    for user in ["alice", "bob"] {
        let older = jar.clone();
        fixture.clock.advance(MINUTE);
        jar.sign_in(issuer, user).await;
        assert_eq!(older.user(issuer).await, None, "the older cookie");
        assert_eq!(jar.user(issuer).await.as_deref(), Some(user));
    }
    // Without the old cookie, as after it was lost.
    let older = jar.clone();
    jar.remove("__Host-session");
    fixture.clock.advance(MINUTE);
    jar.sign_in(issuer, "bob").await;
    assert_eq!(older.user(issuer).await, None);
}

#[tokio::test]
async fn sessions_of_browsers_and_of_apps_end_together_by_device() {
    let fixture = fixture().await;
    let issuer = &fixture.issuer;
    let (mut desk, mut phone) = (Jar::default(), Jar::default());
    let sign_in = async |jar: &mut Jar| {
        jar.sign_in(issuer, "alice").await;
        let grant = Grant::user("web-app", "alice").unwrap();
        let grant = grant.on_device(jar.get(issuer).await.device()).unwrap();
        issuer.issue(grant).await.unwrap().access_token
    };
    let (at_desk, on_phone) = (sign_in(&mut desk).await, sign_in(&mut phone).await);
    let nowhere = fixture.session().await;
    let code = fixture.code().await;
    let desk_id = desk.get(issuer).await.device().to_owned();
    let phone_id = phone.get(issuer).await.device().to_owned();
    assert_eq!(issuer.revoke_device(&alice(), "another").await.unwrap(), 0);
    let bob = cloakroom::Subject::user("bob").unwrap();
    assert_eq!(issuer.revoke_device(&bob, &phone_id).await.unwrap(), 0, "not his");

    assert_eq!(issuer.revoke_device(&alice(), &phone_id).await.unwrap(), 2);
    assert_eq!(phone.user(issuer).await, None);
    assert!(!fixture.is_active(&on_phone).await && fixture.is_active(&at_desk).await);
    assert!(fixture.is_active(&nowhere.access).await);

    let on_phone = sign_in(&mut phone).await;
    assert_eq!(issuer.revoke_other_devices(&alice(), &desk_id).await.unwrap(), 4);
    assert_eq!(phone.user(issuer).await, None);
    for ended in [&on_phone, &nowhere.access] {
        assert!(!fixture.is_active(ended).await);
    }
    assert!(fixture.redeem(&code).await.is_err(), "a sign-in under way elsewhere");
    assert_eq!(desk.user(issuer).await.as_deref(), Some("alice"));
    assert!(fixture.is_active(&at_desk).await);

    issuer.revoke_subject(&alice()).await.unwrap();
    assert_eq!(desk.user(issuer).await, None);
    // The next sign-in is not covered.
    desk.sign_in(issuer, "alice").await;
    assert_eq!(desk.user(issuer).await.as_deref(), Some("alice"));
}

#[tokio::test]
async fn a_form_of_another_site_finds_nobody_signed_in() {
    let fixture = fixture().await;
    let (issuer, mut jar) = (&fixture.issuer, Jar::default());
    jar.sign_in(issuer, "alice").await;
    let request = issuer.authorization_request(QUERY.as_bytes()).await.unwrap();
    let sealed = jar.get(issuer).await.seal(&request).unwrap();
    let own = jar.get(issuer).await.device().to_owned();
    for site in ["cross-site", "same-site", "x"] {
        let mut browser = jar.post(issuer, site).await;
        assert_eq!(browser.user(), None);
        assert_ne!(browser.device(), own);
        assert!(matches!(browser.require_user(), Err(PageError::Foreign)));
        assert!(matches!(browser.sign_in("mallory").await, Err(PageError::Foreign)));
        assert!(matches!(browser.open(&sealed).await, Err(PageError::Forged)));
        browser.sign_out().await.unwrap();
        let mut response = HeaderMap::new();
        browser.add_to(&mut response);
        assert!(!response.contains_key(SET_COOKIE), "it changes no cookie");
        assert_eq!(response["x-frame-options"], "DENY");
    }
    let mut bare = HeaderMap::new();
    bare.insert("cookie", jar.0[COOKIE].clone());
    let unknown = issuer.browser(&Method::DELETE, &bare).await.unwrap();
    assert_eq!(unknown.user(), None, "neither header is there");
    assert_eq!(jar.user(issuer).await.as_deref(), Some("alice"), "a link of another site");
    let browser = jar.post(issuer, "same-origin").await;
    assert!(browser.user().is_some() && browser.open(&sealed).await.is_ok());
}

#[tokio::test]
async fn a_device_is_named_by_a_cookie_of_the_servers_own_making() {
    let fixture = fixture().await;
    let (issuer, mut jar) = (&fixture.issuer, Jar::default());
    let first = jar.get(issuer).await;
    jar.take(&first);
    assert_eq!(jar.get(issuer).await.device(), first.device());
    let pair = jar.0[COOKIE].to_str().unwrap().to_owned();
    let (name, value) = pair.split_once('=').unwrap();
    // Others could have a short one, too.
    for junk in ["", "x", "AAAA", &value[4..], &format!("{value}AAAA"), &"!".repeat(43)] {
        jar.0.insert(COOKIE, format!("{name}={junk}").parse().unwrap());
        let [one, two] = [jar.get(issuer).await, jar.get(issuer).await];
        assert_ne!(one.device(), two.device(), "{junk}");
    }
}

#[test]
fn a_page_that_fails_is_the_servers_fault() {
    assert_eq!(PageError::app("the database is down").to_http().status(), 500);
    assert_eq!(PageError::SignedOut.to_http().status(), 403);
}

#[tokio::test]
async fn a_request_is_sealed_for_one_browser_and_one_user() {
    let fixture = fixture().await;
    let (issuer, mut jar, mut other) = (&fixture.issuer, Jar::default(), Jar::default());
    let request = issuer.authorization_request(QUERY.as_bytes()).await.unwrap();
    let sealed_in = async |jar: &mut Jar| {
        let browser = jar.get(issuer).await;
        jar.take(&browser);
        browser.seal(&request).unwrap()
    };
    let opens = async |jar: &Jar, sealed: &str| match jar.get(issuer).await.open(sealed).await {
        Ok(_) => true,
        Err(PageError::Forged) => false,
        Err(error) => panic!("{error:?}"),
    };
    let (first_tab, second_tab) = (sealed_in(&mut jar).await, sealed_in(&mut jar).await);
    let elsewhere = sealed_in(&mut other).await;
    assert!(opens(&jar, &first_tab).await && !opens(&jar, &elsewhere).await);
    jar.sign_in(issuer, "alice").await;
    other.sign_in(issuer, "alice").await;
    // She signed in in the first tab; the second one shows its sign-in still.
    assert!(opens(&jar, &first_tab).await && opens(&jar, &second_tab).await);
    assert!(!opens(&jar, &elsewhere).await && !opens(&other, &first_tab).await);

    // The page for consent is hers.
    let consent = sealed_in(&mut jar).await;
    assert!(opens(&jar, &consent).await && !opens(&other, &consent).await);
    jar.sign_in(issuer, "alice").await;
    assert!(opens(&jar, &consent).await, "she signed in again, in the second tab");
    jar.sign_in(issuer, "bob").await;
    assert!(!opens(&jar, &consent).await, "he must not answer for her");
    let mut browser = jar.post(issuer, "same-origin").await;
    browser.sign_out().await.unwrap();
    jar.take(&browser);
    assert!(!opens(&jar, &consent).await);
    // Answered in one tab, answered in all.
    jar.sign_in(issuer, "alice").await;
    let browser = jar.get(issuer).await;
    let [one, two] = [&consent, &consent].map(|sealed| browser.open(sealed));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let grant = browser.grant(&one).await.unwrap().unwrap();
    assert_eq!(one.approve(grant).await.unwrap().error_code(), None);
    let grant = browser.grant(&two).await.unwrap().unwrap();
    assert!(matches!(two.approve(grant).await, Err(PageError::Used)));
}

#[tokio::test]
async fn the_grant_says_who_signed_in_when_how_and_where() {
    let fixture = fixture().await;
    let (issuer, mut jar) = (&fixture.issuer, Jar::default());
    let ask = async || issuer.authorization_request(QUERY.as_bytes()).await.unwrap();
    let request = ask().await;
    assert!(jar.get(issuer).await.grant(&request).await.unwrap().is_none());
    let mut browser = jar.post(issuer, "same-origin").await;
    browser.sign_in(SignIn::user("alice").acr("mfa")).await.unwrap();
    jar.take(&browser);
    fixture.clock.advance(MINUTE);
    let browser = jar.get(issuer).await;
    let grant = browser.grant(&request).await.unwrap().unwrap();
    let redirect = request.approve(grant).await.unwrap();
    let code = redirect.location().unwrap().split("code=").nth(1).unwrap();
    let code = TokenSecret::new(code.split('&').next().unwrap());
    let redemption = cloakroom::CodeRequest::new(code, client_id("oidc-app"));
    let tokens = issuer.redeem(redemption).await.unwrap();
    let answer = issuer.introspect(&tokens.access_token, Caller::Internal).await.unwrap();
    let token = answer.active().unwrap();
    assert_eq!((token.acr.as_deref(), token.auth_time), (Some("mfa"), Some(START)));
    let sessions = issuer.sessions(&alice()).await.unwrap();
    let devices: Vec<_> = sessions.iter().map(cloakroom::Session::device_id).collect();
    assert_eq!(devices, [Some(browser.device()); 2]);

    // A log-out while the user reads the consent page covers the grant, wherever it falls.
    let request = ask().await;
    let grant = browser.grant(&request).await.unwrap().unwrap();
    issuer.revoke_subject(&alice()).await.unwrap();
    let refused = request.approve(grant).await.unwrap();
    assert_eq!(refused.error_code(), Some("access_denied"));
    let request = ask().await;
    assert!(browser.grant(&request).await.unwrap().is_none());
    // Someone who removes an app may add it again in the same session.
    jar.sign_in(issuer, "alice").await;
    let browser = jar.get(issuer).await;
    issuer.revoke_subject_at_client(&alice(), &client_id("oidc-app")).await.unwrap();
    let request = ask().await;
    let grant = browser.grant(&request).await.unwrap().unwrap();
    assert_eq!(request.approve(grant).await.unwrap().error_code(), None);
}

#[tokio::test]
async fn nothing_else_is_a_session_and_a_session_is_nothing_else() {
    let fixture = fixture().await;
    let (issuer, mut jar) = (&fixture.issuer, Jar::default());
    jar.sign_in(issuer, "alice").await;
    let cookie = jar.session().unwrap();
    let app = fixture.session().await;
    let code = fixture.code().await;
    let shared = fixture.sign_in("workers").await.refresh_token.unwrap();
    for other in [&app.refresh, &app.access, &code, &shared, &tampered(&cookie, 40)] {
        assert_eq!(jar.with_session(other.expose()).user(issuer).await, None);
    }
    for junk in ["", "x", &"A".repeat(5_000)] {
        assert_eq!(jar.with_session(junk).user(issuer).await, None);
    }
    // Whoever has the handle keys could make these. Not even the session's own key helps.
    let (grant, random) = (grant_of(&cookie), Random::system());
    let own = fixture.store.grant(grant).await.chain.unwrap().key;
    for key in [ChainKey::random(&random).unwrap(), own] {
        let made = handles().mint_chain(ChainKind::Refresh, grant, 0, &key, &random).unwrap().0;
        assert_eq!(jar.with_session(made.expose()).user(issuer).await, None);
    }
    assert_eq!(jar.user(issuer).await.as_deref(), Some("alice"));

    assert!(!issuer.introspect(&cookie, Caller::Internal).await.unwrap().is_active());
    for client in ["web-app", "workers", "spa-app", ISSUER] {
        let refresh = RefreshRequest::new(cookie.clone(), client_id(client));
        assert!(issuer.refresh(refresh).await.is_err(), "{client}");
    }
    assert_eq!(jar.user(issuer).await.as_deref(), Some("alice"), "and it has not ended");
    // Nobody may register the issuer's name, and so make sessions.
    let named = Client::public(ISSUER)
        .grant_types([GrantType::RefreshToken])
        .audience(ORDERS, Format::Opaque);
    let registered = |builder: cloakroom::IssuerBuilder| builder.static_clients([named]).unwrap();
    let fixture = Fixture::with(registered).await;
    let refused = fixture.issuer.issue(Grant::user(ISSUER, "alice").unwrap()).await;
    assert_eq!(refused.unwrap_err().code(), Some("invalid_client"));
    // The session of another issuer, over another store, with the same secrets.
    assert_eq!(jar.user(&fixture.issuer).await, None);
}

#[tokio::test]
async fn a_hook_may_refuse_a_sign_in() {
    let hook = |token: NewToken| async move {
        assert_eq!((token.occasion(), token.client().as_str()), (Occasion::SignIn, ISSUER));
        match token.subject().id() {
            "alice" => Ok(TokenChanges::none()),
            "bob" => Err(TokenHookError::refuse("banned")),
            _ => Err(std::io::Error::other("the database is down"))?,
        }
    };
    let fixture = Fixture::with(|builder| builder.on_token(hook)).await;
    let (issuer, jar) = (&fixture.issuer, Jar::default());
    let sign_in = async |user: &str| jar.post(issuer, "same-origin").await.sign_in(user).await;
    sign_in("alice").await.unwrap();
    assert!(matches!(sign_in("bob").await, Err(PageError::Refused)));
    assert!(matches!(sign_in("carol").await, Err(PageError::Unavailable(_))));
    assert!(matches!(sign_in("").await, Err(PageError::Refused)), "not an identifier");
    assert_eq!(fixture.events.names(), ["Issued"]);
    let refused = fixture.events.refused();
    let [Event::TokenRefused { occasion: Occasion::SignIn, count: 1, .. }] = &*refused else {
        panic!("{refused:?}")
    };
}

#[tokio::test]
async fn an_outage_is_not_a_signed_out_user() {
    let fixture = fixture().await;
    let (issuer, mut jar) = (&fixture.issuer, Jar::default());
    jar.sign_in(issuer, "alice").await;
    fixture.store.fail_all("find", true);
    let read = issuer.browser(&Method::GET, &jar.0).await;
    let Err(outage @ PageError::Unavailable(_)) = read else { panic!("{read:?}") };
    assert_eq!(outage.to_http().status(), 503);
    fixture.store.fail_all("find", false);
    assert_eq!(jar.user(issuer).await.as_deref(), Some("alice"));
}
