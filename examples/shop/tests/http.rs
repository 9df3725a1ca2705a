//! Over HTTP, with cookies, as a browser without scripts.

use std::collections::BTreeMap;
use std::sync::Mutex;

use reqwest::header::{COOKIE, LOCATION, SET_COOKIE, USER_AGENT};
use reqwest::{Client, Method, Response, StatusCode, redirect};
use serde_json::Value;
use tower::ServiceExt as _;
use url::Url;

use super::{PASSWORD, open};
use crate::{Error, Shop};

// The pair of RFC 7636 appendix B.
const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";

struct Browser {
    url: String,
    client: Client,
    cookies: Mutex<BTreeMap<String, String>>,
    /// Whose pages send the forms.
    site: &'static str,
}

impl Browser {
    fn new(url: &str) -> Result<Self, Error> {
        let client = Client::builder().redirect(redirect::Policy::none()).build()?;
        Ok(Self { url: url.to_owned(), client, cookies: Mutex::default(), site: "same-origin" })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        form: &[(&str, &str)],
    ) -> Result<Response, Error> {
        let cookies = self.cookies.lock().map_err(|_| "poisoned")?.clone();
        let cookies: Vec<_> =
            cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = self.client.request(method.clone(), format!("{}{path}", self.url));
        request = request.header(COOKIE, cookies.join("; ")).header(USER_AGENT, "Firefox, Linux");
        if method == Method::POST {
            request = request.header("sec-fetch-site", self.site).form(form);
        }
        let response = request.send().await?;
        for cookie in response.headers().get_all(SET_COOKIE) {
            let cookie = cookie.to_str()?;
            assert!(cookie.ends_with("; HttpOnly; SameSite=Lax"), "{cookie}");
            let (name, value) =
                cookie.split(';').next().unwrap_or("").split_once('=').ok_or("=")?;
            let mut cookies = self.cookies.lock().map_err(|_| "poisoned")?;
            cookies.insert(name.to_owned(), value.to_owned());
        }
        Ok(response)
    }

    async fn page(&self, path: &str) -> Result<String, Error> {
        Ok(self.send(Method::GET, path, &[]).await?.text().await?)
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Result<Response, Error> {
        self.send(Method::POST, path, form).await
    }

    /// The consent page, after signing in.
    async fn sign_in(&self, name: &str, password: &str) -> Result<String, Error> {
        let asked = format!(
            "/authorize?response_type=code&client_id=shop&scope=orders:read+orders:write&state=s\
             &code_challenge={CHALLENGE}&code_challenge_method=S256"
        );
        let page = self.page(&asked).await?;
        let request = hidden(&page, "request")?;
        let form = [("request", &*request), ("name", name), ("password", password)];
        Ok(self.post("/sign-in", &form).await?.text().await?)
    }

    async fn consent(&self, page: &str, answer: &str) -> Result<Response, Error> {
        let request = hidden(page, "request")?;
        self.post("/consent", &[("request", &*request), ("answer", answer)]).await
    }

    /// The tokens, after everything.
    async fn tokens(&self, name: &str, password: &str) -> Result<Value, Error> {
        let page = self.sign_in(name, password).await?;
        let answer = self.consent(&page, "allow").await?;
        let location: Url = answer.headers()[LOCATION].to_str()?.parse()?;
        let code = location.query_pairs().find(|(name, _)| name == "code").ok_or("a code")?.1;
        let form = [("grant_type", "authorization_code"), ("client_id", "shop"), ("code", &code)];
        let form = [&form[..], &[("code_verifier", VERIFIER)]].concat();
        let answer = self.post("/token", &form).await?;
        assert_eq!(answer.status(), StatusCode::OK);
        Ok(serde_json::from_str(&answer.text().await?)?)
    }

    async fn refresh(&self, tokens: &Value) -> Result<(StatusCode, Value), Error> {
        let token = tokens["refresh_token"].as_str().unwrap_or_default();
        let form =
            [("grant_type", "refresh_token"), ("client_id", "shop"), ("refresh_token", token)];
        let answer = self.post("/token", &form).await?;
        Ok((answer.status(), serde_json::from_str(&answer.text().await?)?))
    }

    async fn orders(&self, tokens: &Value) -> Result<(StatusCode, String), Error> {
        let token = tokens["access_token"].as_str().unwrap_or_default();
        let answer = self.client.get(format!("{}/orders", self.url)).bearer_auth(token);
        let answer = answer.send().await?;
        Ok((answer.status(), answer.text().await?))
    }

    async fn submit(&self, path: &str, form: &[(&str, &str)]) -> Result<StatusCode, Error> {
        Ok(self.post(path, form).await?.status())
    }
}

/// The value of the first hidden field with this name.
fn hidden(page: &str, name: &str) -> Result<String, Error> {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).ok_or(page)?;
    Ok(rest.split('"').next().unwrap_or_default().to_owned())
}

const REFUSED: StatusCode = StatusCode::UNAUTHORIZED;

#[tokio::test]
async fn alice_signs_in_and_orders() -> Result<(), Error> {
    let (_, url) = open().await?;
    let browser = Browser::new(&url)?;
    let page = browser.sign_in("alice", "wrong").await?;
    assert!(page.contains("The name or the password is wrong."), "{page}");
    let page = browser.sign_in("nobody", PASSWORD).await?;
    assert!(page.contains("The name or the password is wrong."), "{page}");
    let page = browser.sign_in("alice", PASSWORD).await?;
    assert!(page.contains("Allow Corner Shop?") && page.contains("order for you"), "{page}");
    let denied = browser.consent(&page, "deny").await?;
    assert!(denied.headers()[LOCATION].to_str()?.contains("error=access_denied"));

    let tokens = Browser::new(&url)?.tokens("alice", PASSWORD).await?;
    let token = tokens["access_token"].as_str().ok_or("a token")?;
    let order = browser.client.post(format!("{url}/orders")).bearer_auth(token);
    let order = order.header("content-type", "application/json").body("\"<b>Tea\"");
    assert_eq!(order.send().await?.status(), StatusCode::CREATED);
    assert_eq!(browser.orders(&tokens).await?, (StatusCode::OK, r#"["<b>Tea"]"#.to_owned()));
    assert_eq!(browser.orders(&serde_json::json!({ "access_token": "made-up" })).await?.0, REFUSED);
    Ok(())
}

#[tokio::test]
async fn a_form_of_another_site_or_browser_is_refused() -> Result<(), Error> {
    let (_, url) = open().await?;
    let (mut alice, other) = (Browser::new(&url)?, Browser::new(&url)?);
    let consent = alice.sign_in("alice", PASSWORD).await?;
    // Another user's request.
    let foreign = other.sign_in("admin", PASSWORD).await?;
    assert_eq!(alice.consent(&foreign, "allow").await?.status(), StatusCode::BAD_REQUEST);
    let tokens = alice.tokens("alice", PASSWORD).await?;
    let consent_again = alice.sign_in("alice", PASSWORD).await?;
    assert_ne!(consent, consent_again);
    let forms = [
        ("/devices", vec![("answer", "everywhere")]),
        ("/password", vec![("password", PASSWORD), ("new_password", "another password")]),
        ("/admin", vec![("name", "admin"), ("answer", "ban")]),
        // Nobody signs a user in as somebody else.
        ("/sign-in", vec![("name", "admin"), ("password", PASSWORD)]),
    ];
    for site in ["cross-site", "same-site", ""] {
        alice.site = site;
        for (path, form) in &forms {
            assert_eq!(alice.submit(path, form).await?, StatusCode::FORBIDDEN, "{path}");
        }
        let answer = alice.consent(&consent_again, "allow").await?;
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
    }
    // Nothing has happened: she is still signed in, and her own forms still work, once.
    alice.site = "same-origin";
    assert!(alice.page("/devices").await?.contains("this device"));
    assert_eq!(alice.orders(&tokens).await?.0, StatusCode::OK);
    assert!(alice.consent(&consent_again, "allow").await?.headers().contains_key(LOCATION));
    assert!(!alice.consent(&consent_again, "allow").await?.headers().contains_key(LOCATION));
    // A customer bans nobody.
    let ban = [("name", "admin"), ("answer", "ban")];
    assert_eq!(alice.submit("/admin", &ban).await?, StatusCode::FORBIDDEN);
    Ok(())
}

#[tokio::test]
async fn a_client_may_post_its_request() -> Result<(), Error> {
    let (_, url) = open().await?;
    let mut alice = Browser::new(&url)?;
    alice.sign_in("alice", PASSWORD).await?;
    // The form of a page of the client, which is another site. A browser sends no cookies with it.
    alice.site = "cross-site";
    let form = [
        ("response_type", "code"),
        ("client_id", "shop"),
        ("code_challenge", CHALLENGE),
        ("code_challenge_method", "S256"),
    ];
    let answer = alice.post("/authorize", &form).await?;
    assert_eq!(answer.status(), StatusCode::SEE_OTHER);
    let query = answer.headers()[LOCATION].to_str()?.to_owned();
    let page = alice.page(&format!("/authorize{query}")).await?;
    assert!(page.contains("signed in as <b>alice</b>"), "{page}");
    alice.site = "same-origin";
    assert!(alice.consent(&page, "allow").await?.headers().contains_key(LOCATION));
    Ok(())
}

#[tokio::test]
async fn two_tabs_refresh_at_once() -> Result<(), Error> {
    let (_, url) = open().await?;
    let browser = Browser::new(&url)?;
    let tokens = browser.tokens("alice", PASSWORD).await?;
    let (one, other) = tokio::join!(browser.refresh(&tokens), browser.refresh(&tokens));
    for (status, tokens) in [one?, other?] {
        assert_eq!(status, StatusCode::OK);
        assert_eq!(browser.orders(&tokens).await?.0, StatusCode::OK);
    }
    Ok(())
}

#[tokio::test]
async fn sessions_end_on_one_device_on_others_and_everywhere() -> Result<(), Error> {
    let (shop, url) = open().await?;
    let (desk, phone) = (Browser::new(&url)?, Browser::new(&url)?);
    let older = desk.tokens("alice", PASSWORD).await?;
    let at_desk = desk.tokens("alice", PASSWORD).await?;
    // A browser has one session.
    assert_eq!(desk.orders(&older).await?.0, REFUSED);

    let on_phone = phone.tokens("alice", PASSWORD).await?;
    assert_eq!(desk.submit("/devices", &[("answer", "everywhere else")]).await?, 303);
    assert_eq!(phone.orders(&on_phone).await?.0, REFUSED);
    assert_eq!(phone.refresh(&on_phone).await?.0, StatusCode::BAD_REQUEST);
    assert!(phone.page("/devices").await?.contains("Sign in"));
    assert_eq!(desk.orders(&at_desk).await?.0, StatusCode::OK);

    let on_phone = phone.tokens("alice", PASSWORD).await?;
    let alice = cloakroom::Subject::user("alice")?;
    let newest = shop.issuer.sessions(&alice).await?.remove(0);
    let one = [("answer", "this one"), ("device", newest.device_id().ok_or("a device")?)];
    assert_eq!(desk.submit("/devices", &one).await?, 303);
    assert_eq!(phone.orders(&on_phone).await?.0, REFUSED);
    assert!(phone.page("/devices").await?.contains("Sign in"));
    assert_eq!(desk.orders(&at_desk).await?.0, StatusCode::OK);

    let on_phone = phone.tokens("alice", PASSWORD).await?;
    let change = [("password", PASSWORD), ("new_password", "a better password")];
    assert_eq!(desk.submit("/password", &change).await?, 303);
    assert_eq!(phone.orders(&on_phone).await?.0, REFUSED);
    assert!(phone.sign_in("alice", PASSWORD).await?.contains("is wrong"));
    assert_eq!(desk.orders(&at_desk).await?.0, StatusCode::OK);

    let on_phone = phone.tokens("alice", "a better password").await?;
    assert_eq!(desk.submit("/devices", &[("answer", "everywhere")]).await?, 303);
    assert_eq!(desk.orders(&at_desk).await?.0, REFUSED);
    assert_eq!(phone.orders(&on_phone).await?.0, REFUSED);
    assert!(desk.page("/devices").await?.contains("Sign in"));
    Ok(())
}

#[tokio::test]
async fn a_ban_works_at_once() -> Result<(), Error> {
    let (shop, url) = open().await?;
    let (alice, admin) = (Browser::new(&url)?, Browser::new(&url)?);
    let tokens = alice.tokens("alice", PASSWORD).await?;
    admin.sign_in("admin", PASSWORD).await?;
    let ban = [("name", "alice"), ("answer", "ban")];
    assert_eq!(admin.submit("/admin", &ban).await?, 303);
    assert_eq!(alice.orders(&tokens).await?.0, REFUSED);
    assert_eq!(alice.refresh(&tokens).await?.0, StatusCode::BAD_REQUEST);
    assert!(alice.sign_in("alice", PASSWORD).await?.contains("is wrong"));

    let lift = [("name", "alice"), ("answer", "lift")];
    assert_eq!(admin.submit("/admin", &lift).await?, 303);
    let tokens = alice.tokens("alice", PASSWORD).await?;
    // The hook alone, without the end of the sessions.
    shop.users.set_banned("alice", true)?;
    let (status, answer) = alice.refresh(&tokens).await?;
    assert_eq!(
        (status, &answer["error"]),
        (StatusCode::BAD_REQUEST, &"invalid_grant".into()),
        "{answer}"
    );
    Ok(())
}

#[tokio::test]
async fn cookies_are_secure_except_on_a_loopback_address() -> Result<(), Error> {
    for (url, expected) in [
        ("https://shop.example", ["__Host-device-", "; HttpOnly; SameSite=Lax; Secure"]),
        ("http://127.0.0.1:9000", ["device-", "; HttpOnly; SameSite=Lax"]),
    ] {
        let app = Shop::open(url).await?.router()?;
        let request = axum::http::Request::get("/devices").body(axum::body::Body::empty())?;
        let response = app.oneshot(request).await?;
        let cookie = response.headers()["set-cookie"].to_str()?;
        let [start, end] = expected;
        assert!(cookie.starts_with(start) && cookie.ends_with(end), "{cookie}");
    }
    Ok(())
}
