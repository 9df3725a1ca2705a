//! The authorization request (RFC 6749 §4.1.1): checked before the user signs in, and answered with a
//! complete redirect.

mod check;
mod error;
mod redirect;
mod seal;
mod terms;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use cloakroom_core::store::{SingleUse, Spent, StoreError};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, ClientId, InvalidValue, Scope, Subject};
use url::Url;

pub use self::error::{AuthorizationError, AuthorizationErrorCode, PageError};
pub use self::redirect::AuthorizationRedirect;
use self::redirect::Responder;
pub use self::terms::Prompt;
use self::terms::Terms;
use crate::client::Client;
use crate::error::TokenError;
use crate::flow::request::{ApprovedRequest, Grant, Pkce};
use crate::issuer::Issuer;
use crate::issuer::single_use::spend;

/// An authorization request that was checked: the client and its redirect URI are registered, and the
/// request asks for nothing that the client may not have (RFC 6749 §4.1.1).
///
/// Show the user what the client requests, and end the request with [`approve`](Self::approve), [`deny`](Self::deny) or
/// [`error`](Self::error). Each makes a complete redirect to the client, with `state` and `iss`.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::{Client, Format, GrantType, Issuer};
///
/// let issuer = Issuer::dev()
///     .static_clients([Client::public("app")
///         .name("The app")
///         .grant_types([GrantType::AuthorizationCode])
///         .redirect_uri("https://app.example/callback")
///         .scope("orders:read orders:write")
///         .audience("https://orders.example", Format::Opaque)])?
///     .build()
///     .await?;
///
/// // The query of `GET /authorize`, or the form of `POST /authorize`.
/// let query = "response_type=code&client_id=app&scope=orders:read+admin&state=xyz\
///              &code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM\
///              &code_challenge_method=S256";
/// let request = issuer.authorization_request(query.as_bytes()).await?;
///
/// // What a consent page shows. The client may not have the scope `admin`.
/// assert_eq!(request.client_name(), "The app");
/// assert_eq!(request.scope().as_str(), "orders:read");
/// assert_eq!(request.redirect_host(), "app.example");
///
/// // The request waits in a hidden field of the sign-in form.
/// let sealed = request.seal()?;
/// let request = issuer.open_authorization_request(&sealed).await?;
///
/// // Alice has signed in, and consents.
/// let grant = request.grant("alice")?.auth_time(issuer.clock().now());
/// let redirect = request.approve(grant).await?;
/// let url = redirect.location().ok_or("a redirect")?;
/// assert!(url.starts_with("https://app.example/callback?code=cr_ac_"));
/// assert!(url.ends_with("&state=xyz&iss=http%3A%2F%2F127.0.0.1%3A9000"));
/// # Ok(()) }
/// ```
///
/// With axum, it is an extractor for `GET` and `POST`, in routers whose state is the [`Issuer`], or a
/// type from which one can be taken (`FromRef`). It answers invalid requests itself:
///
/// ```
/// # #[cfg(feature = "axum")] {
/// use axum::response::Html;
/// use cloakroom::{AuthorizationError, AuthorizationRequest};
///
/// async fn authorize(request: AuthorizationRequest) -> Result<Html<String>, AuthorizationError> {
///     let sealed = request.seal()?;
///     Ok(Html(format!("<form method=post action=/sign-in> … <input type=hidden value={sealed}>")))
/// }
/// # }
/// ```
///
/// # What you do yourself
///
/// - Sign the user in, and remember that with a session cookie.
/// - Protect the consent form against forgery: bind the request to the user's session
///   ([`seal_for`](Self::seal_for)).
/// - Look at [`prompt`](Self::prompt). Ask for the sign-in again if
///   [`needs_sign_in`](Self::needs_sign_in) says so.
#[must_use = "end it with `approve`, `deny` or `error`, or `seal` it"]
pub struct AuthorizationRequest {
    issuer: Issuer,
    client: Arc<Client>,
    terms: Box<Terms>,
    /// Whether a sealed copy exists, so that only the first approval counts.
    is_sealed: AtomicBool,
}

impl Issuer {
    /// Checks an authorization request, given as the query of `GET` or the form of `POST`, before
    /// anybody signs in.
    ///
    /// Scope that the client may not have is left out. Without `scope`, the request asks for all that
    /// the client is registered for, and without `resource` for its first audience.
    ///
    /// # Errors
    ///
    /// [`AuthorizationError::Page`] if the client or the redirect URI is wrong: show the user an error
    /// page, and do *not* redirect (RFC 6749 §4.1.2.1). [`AuthorizationError::Redirect`] for every other
    /// error: send the user back with it. With axum, return the error: it becomes the right response.
    pub async fn authorization_request(
        &self,
        parameters: &[u8],
    ) -> Result<AuthorizationRequest, AuthorizationError> {
        let (client, terms) = check::check(&self.inner, parameters).await?;
        let is_sealed = AtomicBool::new(false);
        Ok(AuthorizationRequest { issuer: self.clone(), client, terms, is_sealed })
    }

    /// Opens a request that was sealed with [`AuthorizationRequest::seal`], and checks it against the
    /// client's registration again.
    ///
    /// # Errors
    ///
    /// [`PageError`] if another issuer sealed it, if it is damaged or has expired, if the client or its
    /// redirect URI is no longer registered, or if the directory fails. Show the user an error page.
    pub async fn open_authorization_request(
        &self,
        sealed: &str,
    ) -> Result<AuthorizationRequest, PageError> {
        self.open_authorization_request_for(sealed, b"").await
    }

    /// Opens a request that was sealed with [`AuthorizationRequest::seal_for`] for the same context.
    ///
    /// # Errors
    ///
    /// As [`Issuer::open_authorization_request`], and if the context differs.
    pub async fn open_authorization_request_for(
        &self,
        sealed: &str,
        context: &[u8],
    ) -> Result<AuthorizationRequest, PageError> {
        let terms = seal::open(&self.inner, sealed, context)?;
        let (client, terms) = check::check_again(&self.inner, terms).await?;
        let is_sealed = AtomicBool::new(true);
        Ok(AuthorizationRequest { issuer: self.clone(), client, terms, is_sealed })
    }
}

impl AuthorizationRequest {
    /// How long a request can wait for the user to sign in and to consent: one hour.
    pub const LIFE: Duration = Duration::from_secs(3600);

    /// The client, as it is registered.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The client's identifier.
    #[must_use]
    pub fn client_id(&self) -> &ClientId {
        self.client.id()
    }

    /// The client's name for a consent page, or its identifier if it has no name.
    #[must_use]
    pub fn client_name(&self) -> &str {
        self.client.name().unwrap_or(self.client.id().as_str())
    }

    /// The client's home page, for a link on a consent page.
    #[must_use]
    pub fn client_uri(&self) -> Option<&str> {
        self.client.uri()
    }

    /// Where the user is sent back to, for a consent page: the host of the redirect URI, or its scheme if it has no
    /// host, as with a mobile app.
    #[must_use]
    pub fn redirect_host(&self) -> String {
        Url::parse(&self.terms.redirect_uri).map_or_else(
            |_| String::new(),
            |url| url.host_str().map_or_else(|| format!("{}:", url.scheme()), str::to_owned),
        )
    }

    /// The redirect URI.
    #[must_use]
    pub fn redirect_uri(&self) -> &str {
        &self.terms.redirect_uri
    }

    /// The requested scope, without what the client may not have.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.terms.scope
    }

    /// The requested resources (RFC 8707), as they are registered.
    #[must_use]
    pub fn audience(&self) -> &Audience {
        &self.terms.audience
    }

    /// What the client wants to be shown to the user (OpenID Connect Core §3.1.2.1 `prompt`). Values
    /// that this version does not know are left out.
    ///
    /// With [`Prompt::None`], no page may be shown: approve the request at once, or end it with
    /// [`AuthorizationErrorCode::LoginRequired`] or [`AuthorizationErrorCode::ConsentRequired`].
    #[must_use]
    pub fn prompt(&self) -> &[Prompt] {
        &self.terms.prompt
    }

    /// Whether the client sent this value of `prompt`.
    #[must_use]
    pub fn has_prompt(&self, prompt: Prompt) -> bool {
        self.terms.prompt.contains(&prompt)
    }

    /// Whether the user has to sign in, if the session of the browser began at `auth_time`: there is no
    /// session, the client demands a new sign-in (`prompt=login`), or the last one is longer ago than
    /// `max_age` allows.
    ///
    /// A sign-in after the request was first received is always recent enough, so that no request asks
    /// for it twice.
    #[must_use]
    pub fn needs_sign_in(&self, auth_time: Option<UnixTime>) -> bool {
        let Some(auth_time) = auth_time else { return true };
        // OpenID Connect Core §3.1.2.1: "If the elapsed time is greater than this value, the OP MUST
        // attempt to actively re-authenticate the End-User." It does not say elapsed until when. The time
        // of the request is the one that the client knows, and the only one that ends: measured at the
        // approval, `max_age=0` could never be met, and whoever reads the consent page for longer than
        // `max_age` would sign in again and again. The request expires after an hour, which bounds the
        // difference, and a client that needs less compares `auth_time` (§3.1.3.7, step 13).
        let requested_at = self.terms.requested_at;
        if auth_time >= requested_at {
            return false;
        }
        self.has_prompt(Prompt::Login)
            || self.max_age().is_some_and(|max_age| requested_at.since(auth_time) > max_age)
    }

    /// How long ago the user may have signed in (`max_age`).
    #[must_use]
    pub fn max_age(&self) -> Option<Duration> {
        self.terms.max_age.map(Duration::from_secs)
    }

    /// The authentication context classes that the client wants, the best first (`acr_values`). If you
    /// cannot reach one that it needs, end the request with
    /// [`AuthorizationErrorCode::UnmetAuthenticationRequirements`].
    pub fn acr_values(&self) -> impl Iterator<Item = &str> {
        self.terms.acr_values.iter().map(String::as_str)
    }

    /// The user that the client expects (`login_hint`). Anyone can send it: prefill the form with it,
    /// and no more.
    #[must_use]
    pub fn login_hint(&self) -> Option<&str> {
        self.terms.login_hint.as_deref()
    }

    /// The `nonce` for an ID token. It is kept with the code, for
    /// [`NewToken::nonce`](crate::NewToken::nonce).
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.terms.nonce.as_deref()
    }

    /// A parameter that this type does not read, such as `ui_locales`.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.terms.others.iter().find(|(own, _)| own == name).map(|(_, value)| value.as_str())
    }

    /// A grant of everything that the client requests, for this user. Add `auth_time` and whatever else you know, and
    /// narrow it to what the user has consented to.
    ///
    /// # Errors
    ///
    /// If the user's identifier is invalid.
    pub fn grant(&self, user: impl AsRef<str>) -> Result<Grant, InvalidValue> {
        Ok(self.grant_to(Subject::user(user)?))
    }

    pub(crate) fn grant_to(&self, subject: Subject) -> Grant {
        let mut grant = Grant::new(self.client.id().clone(), subject);
        grant.scope = Some(self.terms.scope.clone());
        grant.audience(self.terms.audience.clone())
    }

    /// Issues the code for what the user has consented to, and sends the user back with it.
    ///
    /// What the grant leaves open is filled in from the request: scope, audience, and the key that the
    /// code is bound to (`dpop_jkt`, RFC 9449 §10). If it cannot be done, the redirect holds an error
    /// and the cause goes to the trace:
    ///
    /// | cause | error |
    /// |---|---|
    /// | the grant is for another client | `server_error` |
    /// | the grant goes beyond the request | `invalid_scope`, `invalid_target` |
    /// | the request needs a new sign-in, and the grant's [`auth_time`](Grant::auth_time) does not show one | `login_required` |
    /// | a revocation covers the grant | `access_denied` |
    /// | a store or the directory fails | `temporarily_unavailable` |
    ///
    /// # Errors
    ///
    /// [`PageError`] if a sealed request was ended before, or if the client or its redirect URI is no
    /// longer registered. Show the user an error page.
    pub async fn approve(self, mut grant: Grant) -> Result<AuthorizationRedirect, PageError> {
        let responder = self.responder();
        if let Err((code, description)) = self.complete(&mut grant) {
            return Ok(responder.error(code, description));
        }
        let answer = Box::pin(self.issue_code(grant)).await?;
        match answer {
            Ok(code) => Ok(responder.code(&code)),
            Err(error) => responder.refusal(&error).ok_or_else(|| PageError::from(error)),
        }
    }

    /// Sends the user back because they refused (`access_denied`).
    ///
    /// A sealed request cannot be approved afterwards: the browser's back button and another tab do not
    /// turn the no into a yes. If the store of single-use items fails, that is not certain, and a warning
    /// in the trace says so.
    ///
    /// # Errors
    ///
    /// [`PageError`] if a sealed request was ended before, or has expired. Show the user an error page.
    pub async fn deny(self) -> Result<AuthorizationRedirect, PageError> {
        self.end("access_denied", "the user did not consent").await
    }

    /// Sends the user back with an error.
    ///
    /// # Errors
    ///
    /// As [`deny`](Self::deny).
    pub async fn error(
        self,
        code: AuthorizationErrorCode,
    ) -> Result<AuthorizationRedirect, PageError> {
        self.end(code.as_str(), "").await
    }

    async fn end(
        self,
        code: &'static str,
        description: &str,
    ) -> Result<AuthorizationRedirect, PageError> {
        if let Err(error) = self.spend().await? {
            // Nothing is granted, and the client need not wait for the store.
            let error: &dyn std::error::Error = &error;
            tracing::warn!(error, code, "a request that has ended may be approved later");
        }
        Ok(self.responder().error(code, description))
    }

    /// Seals the request, for a hidden field or a URL of your sign-in page. The string is encrypted for
    /// this issuer, cannot be changed, and can be opened for [an hour](Self::LIFE) after the request was
    /// first received. Only one of all its copies can be answered: approved, denied or ended with an error.
    ///
    /// # Errors
    ///
    /// If the issuer has no store of single-use items
    /// ([`IssuerBuilder::single_use`](crate::IssuerBuilder::single_use)), or if the source of random
    /// bytes fails.
    pub fn seal(&self) -> Result<String, TokenError> {
        self.seal_for(b"")
    }

    /// Seals the request for one context, such as the identifier of the user's session: the string can
    /// be opened only with the same context.
    ///
    /// Do this for the consent form. A page of another site can make the browser submit a form
    /// (RFC 6749 §10.12), but it cannot obtain a request that is sealed for the user's session.
    ///
    /// # Errors
    ///
    /// As [`seal`](Self::seal).
    pub fn seal_for(&self, context: &[u8]) -> Result<String, TokenError> {
        let sealed = seal::seal(&self.issuer.inner, &self.terms, context)?;
        self.is_sealed.store(true, Ordering::Relaxed);
        Ok(sealed)
    }

    fn responder(&self) -> Responder {
        Responder::new(&self.issuer.inner.url, &self.terms)
    }

    /// Fills in what the grant leaves open, and checks the rest.
    ///
    /// # Errors
    ///
    /// The error code for the client, and its description.
    fn complete(&self, grant: &mut Grant) -> Result<(), (&'static str, &'static str)> {
        let refused = |code, why: &'static str| {
            tracing::error!(client = %self.client.id(), code, "a request cannot be approved: {why}");
            Err((code, ""))
        };
        if grant.client != *self.client.id() {
            return refused("server_error", "the grant is for another client");
        }
        let scope = grant.scope.get_or_insert_with(|| self.terms.scope.clone());
        if !scope.is_subset(&self.terms.scope) {
            return refused("invalid_scope", "the grant has scope that the client did not request");
        }
        let audience = grant.audience.get_or_insert_with(|| self.terms.audience.clone());
        if !audience.iter().all(|resource| self.terms.audience.find(resource).is_some()) {
            return refused(
                "invalid_target",
                "the grant has a resource that the client did not request",
            );
        }
        // RFC 9449 §10: the code is bound to the key that the request names.
        if self.terms.dpop_jkt.is_some() {
            grant.confirmation.clone_from(&self.terms.dpop_jkt);
        }
        let demands_sign_in = self.has_prompt(Prompt::Login) || self.terms.max_age.is_some();
        if demands_sign_in && self.needs_sign_in(grant.auth_time) {
            return refused(
                "login_required",
                "the client demands a recent sign-in, which the grant's `auth_time` does not show",
            );
        }
        Ok(())
    }

    async fn issue_code(
        self,
        grant: Grant,
    ) -> Result<Result<cloakroom_core::TokenSecret, TokenError>, PageError> {
        if let Err(error) = self.spend().await? {
            // It may have been spent.
            return Ok(Err(error.into()));
        }
        let Terms { redirect_uri, redirect_uri_omitted, challenge, nonce, .. } = *self.terms;
        let mut request = if redirect_uri_omitted {
            ApprovedRequest::without_redirect_uri(grant)
        } else {
            ApprovedRequest::new(grant, redirect_uri)
        };
        request.pkce = challenge.map(Pkce);
        request.nonce = nonce;
        Ok(self.issuer.authorize(request).await)
    }
}

impl AuthorizationRequest {
    /// Spends a sealed request: of all its copies, one is answered.
    ///
    /// # Errors
    ///
    /// Outside, what the user is told; inside, that it is not known whether it was spent.
    async fn spend(&self) -> Result<Result<(), StoreError>, PageError> {
        if !self.is_sealed.load(Ordering::Relaxed) {
            return Ok(Ok(()));
        }
        let inner = &self.issuer.inner;
        let now = inner.now();
        if self.terms.expires_at <= now {
            return Err(PageError::Expired);
        }
        let item = SingleUse { purpose: "authorization request", owner: "", value: &self.terms.id };
        match spend(inner, item.id(), self.terms.expires_at, now).await {
            Ok(Spent::First) => Ok(Ok(())),
            Ok(Spent::Again) => Err(PageError::Used),
            Err(error) => Ok(Err(error)),
        }
    }
}

impl fmt::Debug for AuthorizationRequest {
    /// Shows neither the user nor what the client keeps secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthorizationRequest")
            .field("client", self.client.id())
            .field("redirect_uri", &self.terms.redirect_uri)
            .field("scope", &self.terms.scope)
            .field("audience", &self.terms.audience)
            .finish_non_exhaustive()
    }
}
