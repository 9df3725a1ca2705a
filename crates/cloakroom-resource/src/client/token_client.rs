//! A token of the program's own (`client_credentials`).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::TokenSecret;
use cloakroom_core::time::{Clock, ClockReading, SystemClock};
use http::{Response, StatusCode};
use serde::Deserialize;
use url::form_urlencoded;
use zeroize::Zeroizing;

use crate::cache::TokenKey;
use crate::client::discovery::Metadata;
use crate::client::json::read_object;
use crate::client::protected::{Protected, endpoint_constructors, json};
use crate::client::single_fetch::{SingleFetch, detached};
use crate::error::UnavailableError;

/// How long a token counts whose server does not say how long it lives.
const UNKNOWN_LIFE: Duration = Duration::from_secs(60);
/// A token is replaced when this part of its life is left, so that it does not end on its way to an API.
const MARGIN: u32 = 10;
const NO_LIFE: &str = "its expires_in is not a number of seconds";
/// The longest error text of a server that is kept.
const MAX_TEXT: usize = 200;

/// Gets a token for this program itself (`client_credentials`, RFC 6749 §4.4), keeps it until shortly before it
/// ends, and then gets the next one. For a job or a service that calls an API while no user is there. Cheap to
/// clone; clones share the token. Any number of tasks may ask: one request is sent for all of them.
///
/// ```no_run
/// # async fn run(http: reqwest::Client) -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom_resource::{ClientCredentials, TokenClient};
///
/// let credentials = ClientCredentials::new("nightly", std::env::var("NIGHTLY_SECRET")?);
/// let tokens = TokenClient::discover("https://as.example", credentials)
///     .await?
///     .scope("orders:read")
///     .resource("https://orders.example");
///
/// let token = tokens.token().await?;
/// let answer = http.get("https://orders.example/orders").bearer_auth(token.expose()).send().await?;
/// if answer.status() == 401 {
///     tokens.forget(&token); // it was revoked: the next call of `token` gets another one
/// }
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct TokenClient {
    endpoint: Protected,
    scope: Option<String>,
    resources: Vec<String>,
    clock: Arc<dyn Clock>,
    shared: Arc<SingleFetch<State>>,
}

#[derive(Default)]
struct State {
    held: Option<Held>,
    /// How many requests have ended, and why the last one failed: an answer to all who waited for it.
    ended: u64,
    failed: Option<TokenRequestError>,
}

struct Held {
    token: TokenSecret,
    /// When it was asked for: it began to live no earlier.
    asked: ClockReading,
    life: Duration,
    /// When the last attempt to replace it failed.
    failed: Option<ClockReading>,
}

impl Held {
    /// Whether it lives, and is not to be replaced now.
    fn serves(&self, now: ClockReading) -> bool {
        let margin = self.life / MARGIN;
        let age = now.since(self.asked);
        // After a failure, calls do not wait for the server each time.
        let has_just_failed = || self.failed.is_some_and(|at| now.since(at) < margin / MARGIN);
        age < self.life - margin || (age < self.life && has_just_failed())
    }
}

/// Why there is no token.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TokenRequestError {
    /// The authorization server refuses the request (RFC 6749 §5.2), for example because of a scope or a resource
    /// that the client may not have. To ask again does not help.
    #[error("the authorization server refuses to issue a token: {code}{}", shown(.description.as_ref()))]
    Refused {
        /// The value of `error`, such as `invalid_scope`.
        code: String,
        /// The value of `error_description`.
        description: Option<String>,
    },
    /// The authorization server cannot be reached, rejects the credentials, or answers nonsense.
    #[error(transparent)]
    Unavailable(#[from] UnavailableError),
}

fn shown(description: Option<&String>) -> String {
    description.map(|text| format!(" ({text})")).unwrap_or_default()
}

endpoint_constructors!(TokenClient, "token_endpoint", Metadata::token_endpoint);

impl From<Protected> for TokenClient {
    fn from(endpoint: Protected) -> Self {
        Self {
            endpoint,
            scope: None,
            resources: Vec::new(),
            clock: Arc::new(SystemClock::new()),
            shared: Arc::new(SingleFetch::new(State::default())),
        }
    }
}

impl TokenClient {
    /// The scope to ask for, several values separated by blanks. Without it, the server chooses.
    #[must_use]
    pub fn scope(mut self, scope: impl Into<String>) -> Self {
        self.scope = Some(scope.into());
        self.changed()
    }

    /// An API that the token is for (RFC 8707). May be called several times.
    #[must_use]
    pub fn resource(mut self, resource: impl Into<String>) -> Self {
        self.resources.push(resource.into());
        self.changed()
    }

    /// Takes the time from this clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self.changed()
    }

    /// A token that was asked for in another way is not this client's.
    fn changed(mut self) -> Self {
        self.shared = Arc::new(SingleFetch::new(State::default()));
        self
    }

    /// The token: the one at hand, or a new one if nine tenths of its life are over. If the server gives no new one, the
    /// one at hand serves until its end, with a warning in the trace.
    ///
    /// # Errors
    ///
    /// [`TokenRequestError`] if there is none at hand that lives, and the server gives none. Nothing is asked again by
    /// itself.
    pub async fn token(&self) -> Result<TokenSecret, TokenRequestError> {
        let began = self.shared.read(|state| state.ended);
        if let Some(token) = self.at_hand(ClockReading::now(&*self.clock)) {
            return Ok(token);
        }
        let permit = self.shared.permit().await;
        // Another task may have got a token while this one waited.
        let now = ClockReading::now(&*self.clock);
        if let Some(token) = self.at_hand(now) {
            return Ok(token);
        }
        if let Some(failure) = self.shared.read(|state| state.failure_since(began)) {
            return Err(failure);
        }
        let this = self.clone();
        let asked = detached(async move {
            let _one_at_a_time = permit;
            let answer = this.ask(now).await;
            let now = ClockReading::now(&*this.clock);
            this.shared.write(|state| state.end(answer, now))
        });
        asked.await.map_err(UnavailableError::other)?
    }

    /// Forgets this token, because an API has answered it with 401: it was revoked. A newer token stays.
    pub fn forget(&self, token: &TokenSecret) {
        // Digests are compared: how long that takes says nothing of a token.
        let refused = TokenKey::of(token.expose());
        self.shared.write(|state| {
            if state.held.as_ref().is_some_and(|held| TokenKey::of(held.token.expose()) == refused)
            {
                state.held = None;
            }
        });
    }

    fn at_hand(&self, now: ClockReading) -> Option<TokenSecret> {
        self.shared.read(|state| {
            let held = state.held.as_ref()?;
            held.serves(now).then(|| held.token.clone())
        })
    }

    async fn ask(&self, now: ClockReading) -> Result<Held, TokenRequestError> {
        let response = self.endpoint.exchange_form(self.form(), "application/json").await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(&response));
        }
        let answer: Answer = read_object(&json(&response)?).map_err(unreadable)?;
        // RFC 6749 §7.1: "The client MUST NOT use an access token if it does not understand the token type."
        if !answer.token_type.eq_ignore_ascii_case("Bearer") {
            return Err(UnavailableError::Malformed("the token is not a bearer token").into());
        }
        // RFC 6750 §2.1: a bearer token has at least one character, and no blank. No other could be sent.
        let token = TokenSecret::new(answer.access_token);
        if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic())
        {
            return Err(UnavailableError::Malformed("its access_token cannot be sent").into());
        }
        let life = match answer.expires_in {
            None => UNKNOWN_LIFE,
            Some(life) => life.duration().ok_or(UnavailableError::Malformed(NO_LIFE))?,
        };
        Ok(Held { token, asked: now, life, failed: None })
    }

    fn form(&self) -> Zeroizing<String> {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if let Some(scope) = &self.scope {
            form.append_pair("scope", scope);
        }
        for resource in &self.resources {
            form.append_pair("resource", resource);
        }
        Zeroizing::new(form.finish())
    }
}

impl State {
    fn end(
        &mut self,
        answer: Result<Held, TokenRequestError>,
        now: ClockReading,
    ) -> Result<TokenSecret, TokenRequestError> {
        self.ended += 1;
        match answer {
            Ok(held) => {
                let token = held.token.clone();
                (self.held, self.failed) = (Some(held), None);
                Ok(token)
            }
            Err(error) => {
                self.failed = Some(error.clone());
                match &mut self.held {
                    Some(held) if now.since(held.asked) < held.life => {
                        let error: &dyn std::error::Error = &error;
                        tracing::warn!(
                            error,
                            "the token could not be replaced, and serves until its end"
                        );
                        held.failed = Some(now);
                        Ok(held.token.clone())
                    }
                    _ => Err(error),
                }
            }
        }
    }

    /// The failure of a request that ended after there had been so many: to ask again would take as long for
    /// each of those who wait.
    fn failure_since(&self, began: u64) -> Option<TokenRequestError> {
        self.failed.clone().filter(|_| self.ended > began)
    }
}

/// RFC 6749 §5.1.
#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: String,
    expires_in: Option<Seconds>,
}

/// RFC 6749 §5.1 asks for a number. Some servers send a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Whole(u64),
    Number(f64),
    Text(String),
}

impl Seconds {
    /// Rounded down, so that no token lives longer.
    fn duration(&self) -> Option<Duration> {
        match self {
            Self::Whole(seconds) => Some(Duration::from_secs(*seconds)),
            Self::Number(seconds) => Duration::try_from_secs_f64(seconds.floor()).ok(),
            Self::Text(digits) => digits.parse().ok().map(Duration::from_secs),
        }
    }
}

/// RFC 6749 §5.2.
#[derive(Deserialize)]
struct Refusal {
    error: String,
    error_description: Option<String>,
}

fn refusal(response: &Response<Bytes>) -> TokenRequestError {
    let status = response.status();
    match read_object::<Refusal>(response.body()) {
        // "401 (Unauthorized)" is for the client's own credentials.
        Ok(refusal) if status == StatusCode::BAD_REQUEST && refusal.error != "invalid_client" => {
            TokenRequestError::Refused {
                code: plain(&refusal.error),
                description: refusal.error_description.as_deref().map(plain),
            }
        }
        Ok(refusal) if refusal.error == "invalid_client" => {
            UnavailableError::Credentials(status).into()
        }
        _ if status == StatusCode::UNAUTHORIZED => UnavailableError::Credentials(status).into(),
        _ => UnavailableError::Status(status).into(),
    }
}

fn unreadable(why: String) -> TokenRequestError {
    UnavailableError::unreadable("it is not a token response", why).into()
}

/// A server's text for a trace: short, and without control characters.
fn plain(text: &str) -> String {
    text.chars().take(MAX_TEXT).flat_map(char::escape_debug).collect()
}

impl fmt::Debug for TokenClient {
    /// Does not show the token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenClient")
            .field("endpoint", &self.endpoint)
            .field("scope", &self.scope)
            .field("resources", &self.resources)
            .finish_non_exhaustive()
    }
}
