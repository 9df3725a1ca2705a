//! The pages on which users sign in, consent, and see their devices, and the one for admins.

use axum::Router;
use axum::extract::{Form, State};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use cloakroom::http::{Browser, SignIn};
use cloakroom::{AuthorizationErrorCode, AuthorizationRequest, PageError, Prompt, Subject};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Deserialize;

use crate::users::User;
use crate::{Error, Shop};

pub(crate) fn router() -> Router<Shop> {
    Router::new()
        .route("/authorize", get(authorize).post(authorize))
        .route("/sign-in", post(sign_in))
        .route("/consent", post(consent))
        .route("/devices", get(devices).post(log_out))
        .route("/password", post(set_password))
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

/// The fields of all forms.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Sent {
    request: String,
    name: String,
    password: String,
    new_password: String,
    answer: String,
    device: String,
}

pub(crate) type Answer = Result<Response, PageError>;

impl Shop {
    fn user(&self, browser: &Browser) -> Result<Option<User>, Error> {
        browser.user().map_or(Ok(None), |name| self.users.find(name))
    }

    /// A page without scripts.
    fn page(&self, browser: Browser, name: &str, values: Value) -> Answer {
        let (user, device) = (Serde(self.user(&browser)?), browser.device().to_owned());
        let page = self.pages.get_template(name);
        let html = page.and_then(|page| page.render(context! { user, device, ..values }));
        let html = html.map_err(PageError::app)?;
        let policy = "default-src 'none'; style-src 'self'; frame-ancestors 'none'";
        Ok((browser, [(header::CONTENT_SECURITY_POLICY, policy)], Html(html)).into_response())
    }

    /// The page for a request, which waits in its form: for the sign-in, or for consent.
    fn ask(&self, browser: Browser, request: &AuthorizationRequest) -> Answer {
        let sign_in = request.needs_sign_in(browser.auth_time());
        let values = context! {
            request => browser.seal(request)?,
            app => request.client_name().to_owned(),
            host => request.redirect_host(),
            scopes => Serde(request.scope().iter().collect::<Vec<_>>()),
        };
        self.page(browser, if sign_in { "sign_in.html" } else { "consent.html" }, values)
    }
}

// --- Sign-in and consent ----------------------------------------------------------------------

async fn authorize(
    State(shop): State<Shop>,
    browser: Browser,
    request: AuthorizationRequest,
) -> Answer {
    if request.has_prompt(Prompt::None) {
        let code = AuthorizationErrorCode::InteractionRequired;
        return Ok(request.error(code).await?.into_response());
    }
    shop.ask(browser, &request)
}

async fn sign_in(State(shop): State<Shop>, mut browser: Browser, Form(form): Form<Sent>) -> Answer {
    let Sent { request, name, .. } = form;
    if !shop.users.knows(&name, &form.password).await? {
        let problem = "The name or the password is wrong.";
        return shop.page(browser, "sign_in.html", context! { request, name, problem });
    }
    let waiting = if request.is_empty() { None } else { Some(browser.open(&request).await?) };
    browser.sign_in(SignIn::user(name).keep_user_agent()).await?;
    match waiting {
        Some(request) => shop.ask(browser, &request),
        None => Ok((browser, Redirect::to("/devices")).into_response()),
    }
}

async fn consent(State(shop): State<Shop>, browser: Browser, Form(form): Form<Sent>) -> Answer {
    let request = browser.open(&form.request).await?;
    if form.answer != "allow" {
        return Ok(request.deny().await?.into_response());
    }
    match browser.grant(&request).await? {
        Some(grant) => Ok(request.approve(grant).await?.into_response()),
        None => shop.ask(browser, &request),
    }
}

// --- Devices ----------------------------------------------------------------------------------

async fn devices(State(shop): State<Shop>, browser: Browser) -> Answer {
    let Some(user) = browser.subject() else {
        return shop.page(browser, "sign_in.html", context! {});
    };
    let sessions = Serde(shop.issuer.sessions(user).await?);
    let now = shop.issuer.clock().now().as_millis();
    shop.page(browser, "devices.html", context! { sessions, now })
}

async fn log_out(State(shop): State<Shop>, browser: Browser, Form(form): Form<Sent>) -> Answer {
    let user = browser.require_user()?;
    match &*form.answer {
        "everywhere" => shop.issuer.revoke_subject(user).await?,
        "everywhere else" => drop(shop.issuer.revoke_other_devices(user, browser.device()).await?),
        _ => drop(shop.issuer.revoke_device(user, &form.device).await?),
    }
    Ok(Redirect::to("/devices").into_response())
}

async fn set_password(
    State(shop): State<Shop>,
    browser: Browser,
    Form(form): Form<Sent>,
) -> Answer {
    let user = browser.require_user()?;
    if form.new_password.len() < 12 || !shop.users.knows(user.id(), &form.password).await? {
        let why = "The old password is wrong, or the new one has fewer than 12 characters.";
        return Ok((StatusCode::FORBIDDEN, why).into_response());
    }
    shop.users.set_password(user.id(), &form.new_password).await?;
    shop.issuer.revoke_other_devices(user, browser.device()).await?;
    Ok(Redirect::to("/devices").into_response())
}

// --- Admins -----------------------------------------------------------------------------------

async fn admin(State(shop): State<Shop>, browser: Browser) -> Answer {
    if !shop.user(&browser)?.is_some_and(|user| user.is_admin) {
        return Ok(Redirect::to("/devices").into_response());
    }
    shop.page(browser, "admin.html", context! { users => Serde(shop.users.all()?) })
}

async fn ban(State(shop): State<Shop>, browser: Browser, Form(form): Form<Sent>) -> Answer {
    if !shop.user(&browser)?.is_some_and(|user| user.is_admin && user.name != form.name) {
        return Ok(StatusCode::FORBIDDEN.into_response());
    }
    let is_banned = form.answer == "ban";
    // In this order: from here on, the user gets no token. Then those that exist end.
    shop.users.set_banned(&form.name, is_banned)?;
    if is_banned {
        let user = Subject::user(&form.name).map_err(PageError::app)?;
        shop.issuer.revoke_subject(&user).await?;
    }
    Ok(Redirect::to("/admin").into_response())
}
