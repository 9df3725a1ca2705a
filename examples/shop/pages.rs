//! The pages on which users sign in, consent, and see their devices, and the one for admins.

use axum::Router;
use axum::extract::{Form, FromRequest, FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use cloakroom::core::time::UnixTime;
use cloakroom::{
    AuthorizationError, AuthorizationErrorCode, AuthorizationRequest, NonceError, Prompt, Subject,
};
use minijinja::ErrorKind::InvalidOperation;
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Deserialize;

use crate::users::{SIGNED_IN, User};
use crate::{Error, Shop, random};

pub(crate) fn router() -> Router<Shop> {
    Router::new()
        .route("/authorize", get(authorize))
        .route("/sign-in", post(sign_in))
        .route("/consent", post(consent))
        .route("/devices", get(devices).post(end_sessions))
        .route("/password", post(change_password))
        .route("/admin", get(admin).post(ban))
}

pub(crate) fn templates() -> Result<Environment<'static>, Error> {
    let mut pages = Environment::new();
    // It escapes every value in a page whose name ends in `.html`.
    pages.add_template("base.html", include_str!("pages/base.html"))?;
    pages.add_template("sign_in.html", include_str!("pages/sign_in.html"))?;
    pages.add_template("consent.html", include_str!("pages/consent.html"))?;
    pages.add_template("devices.html", include_str!("pages/devices.html"))?;
    pages.add_template("admin.html", include_str!("pages/admin.html"))?;
    Ok(pages)
}

// --- Browsers and their forms -----------------------------------------------------------------

/// The browser that sends a request. Its cookie `device` lasts for a year and names it; its cookie
/// `session` says who is signed in, and since when.
struct Browser {
    device: String,
    session: Option<(String, User, UnixTime)>,
}

impl FromRequestParts<Shop> for Browser {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, shop: &Shop) -> Result<Self, Failure> {
        let device = match cookie(shop, &parts.headers, "device") {
            Some(device) if device.len() == 64 => device.to_owned(),
            _ => random()?,
        };
        let session = cookie(shop, &parts.headers, "session").unwrap_or_default();
        Self::with(shop, device, session.to_owned())
    }
}

fn cookie<'a>(shop: &Shop, headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let name = format!("{}{name}=", shop.cookie_prefix());
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|field| field.to_str().ok());
    cookies.flat_map(|field| field.split("; ")).find_map(|cookie| cookie.strip_prefix(&*name))
}

/// No script can read it, and it does not come with the forms of other sites.
fn set_cookie(shop: &Shop, name: &str, value: &str, life: u64) -> (HeaderName, String) {
    let prefix = shop.cookie_prefix();
    let secure = if prefix.is_empty() { "" } else { "; Secure" };
    let rest = format!("Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
    (header::SET_COOKIE, format!("{prefix}{name}={value}; {rest}"))
}

impl Shop {
    /// With it, no other host of the domain can set the cookie. It needs HTTPS, which a loopback address
    /// does without.
    fn cookie_prefix(&self) -> &'static str {
        if self.issuer.url().starts_with("https:") { "__Host-" } else { "" }
    }
}

impl Browser {
    fn with(shop: &Shop, device: String, cookie: String) -> Result<Self, Failure> {
        let found = shop.users.session(&cookie, &device, shop.issuer.clock().now())?;
        Ok(Self { device, session: found.map(|(user, at)| (cookie, user, at)) })
    }

    fn user(&self) -> Option<&User> {
        self.session.as_ref().map(|(_, user, _)| user)
    }

    /// A secret of this browser, while the same user is signed in.
    fn secret(&self) -> &[u8] {
        self.session.as_ref().map_or(&self.device, |(cookie, ..)| cookie).as_bytes()
    }

    /// A page without scripts, which no other site may show in a frame (RFC 6749 §10.13).
    fn page(&self, shop: &Shop, name: &str, values: Value) -> Answer {
        // The token of a form: other sites cannot obtain it, and it can be used once.
        let (issuer, secret) = (shop.issuer.clone(), self.secret().to_owned());
        let csrf = Value::from_function(move || {
            let nonce = issuer.nonce("form", &secret, AuthorizationRequest::LIFE);
            nonce.map_err(|error| minijinja::Error::new(InvalidOperation, error.to_string()))
        });
        let (user, device) = (Value::from(Serde(self.user())), self.device.clone());
        let page = shop.pages.get_template(name)?;
        let html = page.render(context! { csrf, user, device, ..values })?;
        let policy = "default-src 'none'; style-src 'self'; frame-ancestors 'none'";
        let headers = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-store"),
            (header::REFERRER_POLICY, "no-referrer"),
            (header::CONTENT_SECURITY_POLICY, policy),
        ];
        Ok((headers, [set_cookie(shop, "device", &self.device, 365 * 24 * 3600)], html)
            .into_response())
    }

    /// The sign-in or consent page for a request, which waits in the form.
    fn ask(&self, shop: &Shop, page: &str, request: &AuthorizationRequest) -> Answer {
        let values = context! {
            request => request.seal_for(self.secret())?,
            app => request.client_name().to_owned(),
            host => request.redirect_host(),
            scopes => Serde(request.scope().iter().collect::<Vec<_>>()),
        };
        self.page(shop, page, values)
    }

    /// The request that has waited there.
    async fn waiting(&self, shop: &Shop, sealed: &str) -> Result<AuthorizationRequest, Failure> {
        let opened = shop.issuer.open_authorization_request_for(sealed, self.secret()).await;
        Ok(opened.map_err(AuthorizationError::from)?)
    }
}

/// A form of ours: its fields, and the browser that sends it.
struct Sent(Fields, Browser);

#[derive(Default, Deserialize)]
#[serde(default)]
struct Fields {
    csrf: String,
    request: String,
    name: String,
    password: String,
    new_password: String,
    answer: String,
    grant: String,
}

impl FromRequest<Shop> for Sent {
    type Rejection = Failure;

    async fn from_request(request: Request, shop: &Shop) -> Result<Self, Failure> {
        let (mut parts, body) = request.into_parts();
        let browser = Browser::from_request_parts(&mut parts, shop).await?;
        let Form(fields): Form<Fields> =
            Form::from_request(Request::from_parts(parts, body), shop).await?;
        shop.issuer.use_nonce("form", browser.secret(), &fields.csrf).await?;
        Ok(Self(fields, browser))
    }
}

/// Ends a request that cannot be answered.
pub(crate) struct Failure(Error);

type Answer = Result<Response, Failure>;

impl<E: Into<Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        match self.0.downcast::<AuthorizationError>() {
            Ok(error) => error.into_response(),
            Err(error) if error.is::<NonceError>() => {
                let why = "This form has expired. Go back, reload the page, and try again.";
                (StatusCode::FORBIDDEN, why).into_response()
            }
            Err(error) => {
                tracing::error!(error, "a request failed");
                StatusCode::INTERNAL_SERVER_ERROR.into_response()
            }
        }
    }
}

// --- Sign-in and consent ----------------------------------------------------------------------

async fn authorize(
    State(shop): State<Shop>,
    browser: Browser,
    request: AuthorizationRequest,
) -> Answer {
    let signed_in_at = browser.session.as_ref().map(|(.., at)| *at);
    if request.has_prompt(Prompt::None) {
        return Ok(request.error(AuthorizationErrorCode::InteractionRequired).into_response());
    }
    let page = if request.needs_sign_in(signed_in_at) { "sign_in.html" } else { "consent.html" };
    browser.ask(&shop, page, &request)
}

async fn sign_in(State(shop): State<Shop>, Sent(form, browser): Sent) -> Answer {
    let Fields { request, name, password, .. } = form;
    if !shop.users.knows(&name, &password).await? {
        let problem = "The name or the password is wrong.";
        return browser.page(&shop, "sign_in.html", context! { request, name, problem });
    }
    if let Some(user) = browser.user() {
        shop.users.leave(&user.name, &browser.device, false)?;
    }
    let cookie = shop.users.enter(&name, &browser.device, shop.issuer.clock().now())?;
    let set = AppendHeaders([set_cookie(&shop, "session", &cookie, SIGNED_IN)]);
    if request.is_empty() {
        return Ok((set, Redirect::to("/devices")).into_response());
    }
    let request = browser.waiting(&shop, &request).await?;
    let browser = Browser::with(&shop, browser.device, cookie)?;
    Ok((set, browser.ask(&shop, "consent.html", &request)?).into_response())
}

async fn consent(State(shop): State<Shop>, Sent(form, browser): Sent) -> Answer {
    let request = browser.waiting(&shop, &form.request).await?;
    let (_, user, signed_in_at) = browser.session.as_ref().ok_or(NonceError::Expired)?;
    if form.answer != "allow" {
        return Ok(request.deny().into_response());
    }
    let grant = request.grant(&user.name)?.on_device(&*browser.device)?.auth_time(*signed_in_at);
    Ok(request.approve(grant).await.map_err(AuthorizationError::from)?.into_response())
}

// --- Devices ----------------------------------------------------------------------------------

async fn devices(State(shop): State<Shop>, browser: Browser) -> Answer {
    let Some(user) = browser.user() else {
        return browser.page(&shop, "sign_in.html", context! {});
    };
    let sessions = shop.issuer.sessions(&Subject::user(&user.name)?).await?;
    let (sessions, now) = (Serde(sessions), shop.issuer.clock().now().as_millis());
    browser.page(&shop, "devices.html", context! { sessions, now })
}

async fn end_sessions(State(shop): State<Shop>, Sent(form, browser): Sent) -> Answer {
    let user = &browser.user().ok_or(NonceError::Expired)?.name;
    match &*form.answer {
        "everywhere" => log_out(&shop, user, None).await?,
        "everywhere else" => log_out(&shop, user, Some(&browser.device)).await?,
        _ => {
            let (subject, grant) = (Subject::user(user)?, form.grant.parse()?);
            let sessions = shop.issuer.sessions(&subject).await?;
            let one = sessions.iter().find(|session| session.grant == grant);
            let device = one.and_then(|session| session.device.get("id")).unwrap_or_default();
            shop.users.leave(user, device, false)?;
            shop.issuer.revoke_session(&subject, grant).await?;
        }
    }
    Ok(Redirect::to("/devices").into_response())
}

/// Ends the sessions of a user, with their browsers, except on one device.
async fn log_out(shop: &Shop, user: &str, keep: Option<&str>) -> Result<(), Failure> {
    shop.users.leave(user, keep.unwrap_or_default(), true)?;
    let subject = Subject::user(user)?;
    let sessions = shop.issuer.sessions(&subject).await?;
    match sessions.iter().find(|it| keep.is_some() && it.device.get("id") == keep) {
        Some(this) => drop(shop.issuer.revoke_other_sessions(&subject, this.grant).await?),
        None => shop.issuer.revoke_subject(&subject).await?,
    }
    Ok(())
}

async fn change_password(State(shop): State<Shop>, Sent(form, browser): Sent) -> Answer {
    let user = &browser.user().ok_or(NonceError::Expired)?.name;
    if form.new_password.len() < 12 || !shop.users.knows(user, &form.password).await? {
        let why = "The old password is wrong, or the new one has fewer than 12 characters.";
        return Ok((StatusCode::FORBIDDEN, why).into_response());
    }
    shop.users.set_password(user, &form.new_password).await?;
    log_out(&shop, user, Some(&browser.device)).await?;
    Ok(Redirect::to("/devices").into_response())
}

// --- Admins -----------------------------------------------------------------------------------

async fn admin(State(shop): State<Shop>, browser: Browser) -> Answer {
    if !browser.user().is_some_and(|user| user.is_admin) {
        return Ok(Redirect::to("/devices").into_response());
    }
    browser.page(&shop, "admin.html", context! { users => Serde(shop.users.all()?) })
}

async fn ban(State(shop): State<Shop>, Sent(form, browser): Sent) -> Answer {
    if !browser.user().is_some_and(|user| user.is_admin && user.name != form.name) {
        return Ok(StatusCode::FORBIDDEN.into_response());
    }
    let is_banned = form.answer == "ban";
    // In this order: from here on, the user gets no token. Then those that exist end.
    shop.users.set_banned(&form.name, is_banned)?;
    if is_banned {
        log_out(&shop, &form.name, None).await?;
    }
    Ok(Redirect::to("/admin").into_response())
}
