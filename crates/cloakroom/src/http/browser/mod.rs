//! The browser that sends a request to your own pages: its device, and who is signed in there.

mod cookies;
mod session;

use std::fmt;
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue, Method, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::record::Device;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, InvalidValue, Subject};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use self::cookies::{Cookies, is_same_origin};
use self::session::BrowserSession;
use super::token::user_agent;
use crate::error::TokenError;
use crate::flow::authorization_request::{AuthorizationRequest, PageError};
use crate::flow::request::Grant;
use crate::issuer::Issuer;
use crate::revocation::sessions::DEVICE_ID;

#[doc = include_str!("browser.md")]
pub struct Browser {
    issuer: Issuer,
    /// The value of the cookie that names the device.
    secret: Zeroizing<String>,
    device: String,
    user_agent: Option<String>,
    session: Option<BrowserSession>,
    change: Change,
    is_foreign: bool,
}

/// What a response does to the cookie of the session.
#[derive(Clone, Copy)]
enum Change {
    Keep,
    Set(Duration),
    Remove,
}

/// A user who has proved who they are, for [`Browser::sign_in`].
#[derive(Debug, Clone)]
#[must_use = "pass it to `Browser::sign_in`"]
pub struct SignIn {
    user: String,
    life: Duration,
    acr: Option<String>,
    device: Device,
    keeps_user_agent: bool,
}

impl SignIn {
    /// How long a browser stays signed in, unless you say otherwise: 30 days.
    pub const LIFE: Duration = Duration::from_secs(30 * 24 * 3600);

    /// This user.
    pub fn user(user: impl Into<String>) -> Self {
        Self {
            user: user.into(),
            life: Self::LIFE,
            acr: None,
            device: Device::default(),
            keeps_user_agent: false,
        }
    }

    /// How long the browser stays signed in: at most [`Lifetimes::grant`](crate::Lifetimes::grant).
    pub const fn life(mut self, life: Duration) -> Self {
        self.life = life;
        self
    }

    /// How the user signed in, for [`Grant::acr`](crate::Grant::acr).
    pub fn acr(mut self, acr: impl Into<String>) -> Self {
        self.acr = Some(acr.into());
        self
    }

    /// Describes the device for [`Issuer::sessions`](crate::Issuer::sessions).
    pub fn device(mut self, device: Device) -> Self {
        self.device = device;
        self
    }

    /// Keeps the `User-Agent` of the browser in the description of the device, as
    /// [`Endpoints::keep_user_agents`](super::Endpoints::keep_user_agents) does for tokens.
    pub const fn keep_user_agent(mut self) -> Self {
        self.keeps_user_agent = true;
        self
    }
}

impl<T: Into<String>> From<T> for SignIn {
    fn from(user: T) -> Self {
        Self::user(user)
    }
}

impl Issuer {
    /// The browser that sends a request to one of your pages, from the method and the headers of the
    /// request. In axum, [`Browser`] is an extractor.
    ///
    /// # Errors
    ///
    /// [`PageError::Unavailable`] if a store or the source of random bytes fails.
    pub async fn browser(
        &self,
        method: &Method,
        headers: &HeaderMap,
    ) -> Result<Browser, PageError> {
        let is_foreign = !method.is_safe() && !is_same_origin(&self.inner.url, headers);
        let cookies = Cookies::of(&self.inner.url);
        let read = |name: &str| if is_foreign { None } else { cookies.read(headers, name) };
        let secret = match read(cookies::DEVICE).filter(|value| is_device(value)) {
            Some(value) => Zeroizing::new(value.to_owned()),
            None => new_device(self)?,
        };
        let session = match read(cookies::SESSION) {
            Some(value) => session::find(&self.inner, value).await?,
            None => None,
        };
        Ok(Browser {
            issuer: self.clone(),
            device: name_of(&secret),
            secret,
            user_agent: user_agent(headers),
            session,
            change: Change::Keep,
            is_foreign,
        })
    }
}

impl Browser {
    /// The user who is signed in.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        self.session.as_ref().map(|session| session.subject.id())
    }

    /// The user who is signed in, for [`Issuer::sessions`](crate::Issuer::sessions) and the like.
    #[must_use]
    pub fn subject(&self) -> Option<&Subject> {
        self.session.as_ref().map(|session| &session.subject)
    }

    /// The user who is signed in, in a handler for those only.
    ///
    /// # Errors
    ///
    /// [`PageError::Foreign`] if a page of another site has sent the request, else
    /// [`PageError::SignedOut`] if nobody is signed in.
    pub fn require_user(&self) -> Result<&Subject, PageError> {
        let nobody = if self.is_foreign { PageError::Foreign } else { PageError::SignedOut };
        self.subject().ok_or(nobody)
    }

    /// When the user signed in, for [`AuthorizationRequest::needs_sign_in`].
    #[must_use]
    pub fn auth_time(&self) -> Option<UnixTime> {
        self.session.as_ref().map(|session| session.auth_time)
    }

    /// How the user signed in ([`SignIn::acr`]).
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.session.as_ref()?.acr.as_deref()
    }

    /// The grant of the session, as [`Issuer::sessions`](crate::Issuer::sessions) lists it.
    #[must_use]
    pub fn session(&self) -> Option<GrantId> {
        self.session.as_ref().map(|session| session.grant)
    }

    /// The name of the device, which stays the same for a year after its last visit, whoever signs in. It
    /// is not secret.
    #[must_use]
    pub fn device(&self) -> &str {
        &self.device
    }

    /// The user has proved who they are: signs them in. An older session of this browser ends.
    ///
    /// Send the browser with the response (`(browser, page)` in axum, otherwise [`add_to`](Self::add_to)).
    ///
    /// # Errors
    ///
    /// [`PageError::Foreign`] if a page of another site has sent the request, [`PageError::Refused`] if
    /// the [`TokenHook`](crate::TokenHook) refuses the user, or if the user's identifier or `acr` is
    /// invalid; else [`PageError::Unavailable`].
    pub async fn sign_in(&mut self, sign_in: impl Into<SignIn>) -> Result<(), PageError> {
        // Another site must not sign its own user in here: they would see what this one does.
        if self.is_foreign {
            return Err(PageError::Foreign);
        }
        let SignIn { user, life, acr, device, keeps_user_agent } = sign_in.into();
        let invalid = |why: InvalidValue| {
            let error: &dyn std::error::Error = &why;
            tracing::error!(error, "a user cannot be signed in");
            PageError::Refused
        };
        let subject = Subject::user(user).map_err(invalid)?;
        let agent = self.user_agent.as_deref().filter(|_| keeps_user_agent);
        let seen = Device::new(agent.map(|agent| ("user_agent", agent))).map_err(invalid)?;
        let mut grant = session::grant_of(&self.issuer.inner, subject).map_err(invalid)?;
        grant = grant.device(seen.updated(&device)).on_device(&*self.device).map_err(invalid)?;
        if let Some(acr) = acr {
            grant = grant.acr(acr).map_err(invalid)?;
        }
        let begun = session::begin(&self.issuer.inner, grant.lifetime(life)).await?;
        self.change = Change::Set(begun.life);
        if let Some(old) = self.session.replace(begun) {
            session::end(&self.issuer.inner, old.grant).await?;
        }
        Ok(())
    }

    /// Signs the user out in this browser. Sessions of apps go on: to end them as well, call
    /// [`Issuer::revoke_device`](crate::Issuer::revoke_device).
    ///
    /// # Errors
    ///
    /// If the store fails. The user may then still be signed in.
    pub async fn sign_out(&mut self) -> Result<(), PageError> {
        if let Some(old) = self.session.take() {
            session::end(&self.issuer.inner, old.grant).await?;
            self.change = Change::Remove;
        }
        Ok(())
    }

    /// Seals a request for a form of this browser and of the user who is signed in. No other browser can
    /// open it, and this one cannot for another user, or after a sign-out. Sealed before anybody has
    /// signed in, it can be opened afterwards: two tabs may both show the sign-in.
    ///
    /// # Errors
    ///
    /// As [`AuthorizationRequest::seal`].
    pub fn seal(&self, request: &AuthorizationRequest) -> Result<String, PageError> {
        Ok(request.seal_for(&self.context(self.subject()))?)
    }

    /// Opens a request that [`seal`](Self::seal) has sealed.
    ///
    /// # Errors
    ///
    /// As [`Issuer::open_authorization_request`](crate::Issuer::open_authorization_request).
    pub async fn open(&self, sealed: &str) -> Result<AuthorizationRequest, PageError> {
        let open = async |user| {
            self.issuer.open_authorization_request_for(sealed, &self.context(user)).await
        };
        match open(self.subject()).await {
            // From before the sign-in.
            Err(PageError::Forged) => open(None).await,
            answer => answer,
        }
    }

    /// A grant of everything that the client requests, for the user who is signed in: with the device,
    /// and the time and the way of the sign-in. `None` if nobody is signed in any more.
    ///
    /// A revocation of the user from now on covers this grant, even if the code is issued later.
    ///
    /// # Errors
    ///
    /// If a store fails.
    pub async fn grant(&self, request: &AuthorizationRequest) -> Result<Option<Grant>, PageError> {
        let Some(session) = &self.session else { return Ok(None) };
        // First the epoch, then the session: each revocation ends one of the two.
        let epoch = self.issuer.epoch().await?;
        if !session::is_live(&self.issuer.inner, session.grant).await? {
            return Ok(None);
        }
        let mut grant = request.grant_to(session.subject.clone()).auth_time(session.auth_time);
        grant.device = self.named_device();
        grant.acr = session.acr.as_deref().map(str::to_owned);
        Ok(Some(grant.epoch(epoch)))
    }

    /// Adds to the headers of a response: the cookies, and what every page of a signed-in user needs,
    /// unless it is there: no cache keeps it (`Cache-Control: no-store`), and no other page shows it in a
    /// frame (RFC 6749 §10.13) or learns its URL (`Referrer-Policy: same-origin`).
    pub fn add_to(&self, headers: &mut HeaderMap) {
        for (name, value) in [
            (header::CACHE_CONTROL, "no-store"),
            (header::CONTENT_SECURITY_POLICY, "frame-ancestors 'none'"),
            (header::REFERRER_POLICY, "same-origin"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::X_FRAME_OPTIONS, "DENY"),
        ] {
            headers.entry(name).or_insert(HeaderValue::from_static(value));
        }
        // A page of another site must not decide which device this is.
        if self.is_foreign {
            return;
        }
        let cookies = Cookies::of(&self.issuer.inner.url);
        let device = cookies.set(cookies::DEVICE, &self.secret, cookies::YEAR);
        let session = match (self.change, &self.session) {
            (Change::Set(life), Some(session)) => {
                cookies.set(cookies::SESSION, session.cookie.expose(), life)
            }
            (Change::Remove, _) => cookies.set(cookies::SESSION, "", Duration::ZERO),
            _ => None,
        };
        for cookie in [device, session].into_iter().flatten() {
            headers.append(header::SET_COOKIE, cookie);
        }
    }

    /// A secret of this browser while this user, or nobody, is signed in, for sealed requests. The secret
    /// of the device has a fixed length, so that no two pairs give the same bytes.
    fn context(&self, user: Option<&Subject>) -> Zeroizing<Vec<u8>> {
        let user = user.map(|user| ["user ", user.id()].concat()).unwrap_or_default();
        Zeroizing::new([self.secret.as_bytes(), user.as_bytes()].concat())
    }

    fn named_device(&self) -> Device {
        Device::new([(DEVICE_ID, &*self.device)]).unwrap_or_default()
    }
}

impl fmt::Debug for Browser {
    /// Does not show the cookies.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Browser")
            .field("device", &self.device)
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}

/// The random bytes in the cookie that names the device.
const DEVICE_BYTES: usize = 32;

fn new_device(issuer: &Issuer) -> Result<Zeroizing<String>, TokenError> {
    let bytes = Zeroizing::new(issuer.inner.random.array::<DEVICE_BYTES>()?);
    Ok(Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes)))
}

fn is_device(cookie: &str) -> bool {
    URL_SAFE_NO_PAD.decode(cookie).is_ok_and(|bytes| bytes.len() == DEVICE_BYTES)
}

/// The name of the device whose cookie this is: it can be shown without giving the cookie away.
fn name_of(cookie: &str) -> String {
    URL_SAFE_NO_PAD.encode(&Sha256::digest(cookie)[..16])
}
