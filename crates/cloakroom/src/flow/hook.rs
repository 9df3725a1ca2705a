//! Your say in every token: fresh claims, more members of the response, or a refusal.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::record::{Claims, GrantRecord};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{Audience, ClientId, GrantId, InvalidValue, Scope, Subject};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::error::TokenError;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Is called before each access token is made: it gives the token fresh claims, adds members to the
/// response, or refuses. Set it with [`IssuerBuilder::on_token`](crate::IssuerBuilder::on_token).
///
/// A closure is a hook:
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom::serde_json::json;
/// use cloakroom::{Caller, Client, Format, Grant, Issuer, NewToken, TokenChanges, TokenHookError};
///
/// # async fn roles_of(user: &str) -> Result<Option<Vec<String>>, std::io::Error> {
/// #     Ok((user == "alice").then(|| vec!["admin".to_owned()]))
/// # }
/// let issuer = Issuer::dev()
///     .static_clients([Client::public("app")
///         .scope("orders:read")
///         .audience("https://orders.example", Format::Opaque)])?
///     .on_token(|token: NewToken| async move {
///         // `?` on an error of your database: no token is issued, and the client may try again.
///         let Some(roles) = roles_of(token.subject().id()).await? else {
///             return Err(TokenHookError::refuse("the user was banned"));
///         };
///         Ok(TokenChanges::none().claim("roles", json!(roles)))
///     })
///     .build()
///     .await?;
///
/// let tokens = issuer.issue(Grant::user("app", "alice")?).await?;
/// let answer = issuer.introspect(&tokens.access_token, Caller::Internal).await?;
/// assert_eq!(answer.active().unwrap().extra["roles"], json!(["admin"]));
///
/// let refused = issuer.issue(Grant::user("app", "mallory")?).await.unwrap_err();
/// assert_eq!(refused.code(), Some("invalid_grant"));
/// # Ok(()) }
/// ```
///
/// # When it is called
///
/// [`Occasion`] lists the occasions. The hook comes after all other checks and before anything is
/// written. If it refuses, fails, panics or takes longer than
/// [`on_token_timeout`](crate::IssuerBuilder::on_token_timeout), no token is issued, and the code or the
/// refresh token is not spent: the client may present it again. Refusals are events:
/// [`Event::GrantRefused`](crate::Event::GrantRefused) for a code or a refresh token, and otherwise
/// [`Event::TokenRefused`](crate::Event::TokenRefused).
///
/// A client that repeats a refresh within the retry window gets another access token, for which the hook is called
/// again ([`Occasion::Retry`]). So the two access tokens may have different claims, each with those that were current
/// when it was made, and a user who was banned in between gets none. [`Event::Retried`] reports such a repetition.
///
/// [`Event::Retried`]: crate::Event::Retried
///
/// The hook may be called for a token that is not issued in the end: of two requests with one refresh
/// token, one wins. It must not do anything that cannot be repeated.
///
/// # What the claims are
///
/// A claim of the hook is added to those of the grant ([`Grant::claim`](crate::Grant::claim)), and replaces one of the
/// same name. It belongs to that one access token: introspection, the JWT and the swapped JWT show it. The grant stays
/// as it is, so that the next call starts from the same claims. Together, claims may take 4,096 bytes.
#[async_trait]
pub trait TokenHook: Send + Sync + 'static {
    /// Decides about an access token.
    ///
    /// # Errors
    ///
    /// [`TokenHookError`] if the token is not to be issued.
    async fn on_token(&self, token: NewToken) -> Result<TokenChanges, TokenHookError>;
}

#[async_trait]
impl<F, R> TokenHook for F
where
    F: Fn(NewToken) -> R + Send + Sync + 'static,
    R: Future<Output = Result<TokenChanges, TokenHookError>> + Send,
{
    async fn on_token(&self, token: NewToken) -> Result<TokenChanges, TokenHookError> {
        self(token).await
    }
}

/// Why an access token is about to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Occasion {
    /// [`Issuer::issue`](crate::Issuer::issue) for a user, or an
    /// [extension grant](crate::ExtensionGrant).
    Issue,
    /// A client gets a token for itself (`client_credentials`).
    ClientCredentials,
    /// A code is redeemed.
    Redeem,
    /// A refresh token is redeemed.
    Refresh,
    /// A refresh token is presented again within its retry window.
    Retry,
    /// A gateway swaps a handle for a JWT
    /// ([`on_token_at_swap`](crate::IssuerBuilder::on_token_at_swap)). The scope and the audience are those
    /// of the JWT, and the claims those of the handle. Members of the response are ignored. A handle whose
    /// swap is refused is inactive for the gateway.
    Swap,
    /// A user signs in at your own pages ([`Browser::sign_in`](crate::http::Browser::sign_in)). The client
    /// is the issuer itself, by its URL. No token is made, so that the changes are ignored.
    SignIn,
}

/// An access token that is about to be made.
#[derive(Clone)]
pub struct NewToken {
    pub(crate) occasion: Occasion,
    pub(crate) grant: Box<GrantRecord>,
    pub(crate) scope: Scope,
    pub(crate) audience: Audience,
    pub(crate) nonce: Option<String>,
}

impl NewToken {
    /// Why it is made.
    #[must_use]
    pub const fn occasion(&self) -> Occasion {
        self.occasion
    }

    /// The client that gets it.
    #[must_use]
    pub fn client(&self) -> &ClientId {
        &self.grant.client
    }

    /// The user that the client acts for, or the client itself.
    #[must_use]
    pub fn subject(&self) -> &Subject {
        &self.grant.subject
    }

    /// The identifier of the user that the client acts for; `None` if it acts for itself. A client may
    /// have the same identifier as a user.
    #[must_use]
    pub fn user(&self) -> Option<&str> {
        match &self.grant.subject {
            Subject::User(user) => Some(user.as_str()),
            Subject::Client(_) => None,
        }
    }

    /// Its grant.
    #[must_use]
    pub fn grant(&self) -> GrantId {
        self.grant.id
    }

    /// Its scope.
    #[must_use]
    pub const fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The resources that it is meant for.
    #[must_use]
    pub const fn audience(&self) -> &Audience {
        &self.audience
    }

    /// The claims of the grant.
    #[must_use]
    pub fn claims(&self) -> &Claims {
        &self.grant.claims
    }

    /// When the grant was made.
    #[must_use]
    pub fn granted_at(&self) -> UnixTime {
        self.grant.created_at
    }

    /// When the user signed in.
    #[must_use]
    pub fn auth_time(&self) -> Option<UnixTime> {
        self.grant.auth_time
    }

    /// How the user signed in.
    #[must_use]
    pub fn acr(&self) -> Option<&str> {
        self.grant.acr.as_deref()
    }

    /// The OpenID Connect session.
    #[must_use]
    pub fn session(&self) -> Option<&str> {
        self.grant.session.as_deref()
    }

    /// The `nonce` of the authorization request, for an ID token. It is available for every token of a grant that began
    /// with a code.
    #[must_use]
    pub fn nonce(&self) -> Option<&str> {
        self.nonce.as_deref()
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewToken")
            .field("occasion", &self.occasion)
            .field("grant", &self.grant.id)
            .field("client", &self.grant.client)
            .field("subject", &self.grant.subject)
            .finish_non_exhaustive()
    }
}

/// What a [`TokenHook`] changes.
///
/// ```
/// use cloakroom::TokenChanges;
/// use cloakroom::serde_json::json;
///
/// let changes = TokenChanges::none()
///     .claim("roles", json!(["admin"]))
///     .member("id_token", json!("eyJ..."));
/// ```
#[derive(Clone, Default)]
pub struct TokenChanges {
    without_grant: bool,
    claims: Map<String, Value>,
    members: Map<String, Value>,
}

/// Members of the response that the library writes (RFC 6749 §5.1, §5.2, RFC 9396 §7).
const RESERVED_MEMBERS: [&str; 9] = [
    "access_token",
    "authorization_details",
    "error",
    "error_description",
    "error_uri",
    "expires_in",
    "refresh_token",
    "scope",
    "token_type",
];

/// The most bytes of JSON that the members of a hook may take.
const MAX_MEMBERS: usize = 16 * 1024;

impl TokenChanges {
    /// No change.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Gives the token this claim, in place of the grant's claim of that name. The reserved names are those of
    /// [`Claims`].
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: Value) -> Self {
        self.claims.insert(name.into(), value);
        self
    }

    /// Leaves the claims of the grant out of the token.
    #[must_use]
    pub const fn without_grant_claims(mut self) -> Self {
        self.without_grant = true;
        self
    }

    /// Adds a member to the response of the token endpoint, such as `id_token`. Members of RFC 6749 §5.1
    /// and §5.2 are reserved.
    #[must_use]
    pub fn member(mut self, name: impl Into<String>, value: Value) -> Self {
        self.members.insert(name.into(), value);
        self
    }

    /// The claims of the token, `None` for those of the grant, and the members of the response.
    pub(crate) fn apply(self, grant: &Claims) -> Result<Applied, InvalidValue> {
        let claims = if self.claims.is_empty() && !self.without_grant {
            None
        } else {
            let kept = grant.iter().filter(|_| !self.without_grant);
            let kept = kept.map(|(name, value)| (name.to_owned(), value.clone()));
            let mut all: Map<String, Value> = kept.collect();
            all.extend(self.claims);
            Some(Claims::new(all)?)
        };
        Ok(Applied { claims, members: checked_members(self.members)? })
    }
}

impl fmt::Debug for TokenChanges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenChanges")
            .field("claims", &self.claims.keys().collect::<Vec<_>>())
            .field("members", &self.members.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Refuses members that would hide one of the library's, or that are too large.
pub(crate) fn checked_members(
    members: Map<String, Value>,
) -> Result<Map<String, Value>, InvalidValue> {
    if members.keys().any(|name| RESERVED_MEMBERS.contains(&name.as_str())) {
        return Err(InvalidValue {
            what: "member of the token response",
            why: "its name is reserved",
        });
    }
    let value = Value::Object(members);
    cloakroom_core::record::bounded_json("set of members", &value, MAX_MEMBERS)?;
    match value {
        Value::Object(members) => Ok(members),
        _ => Ok(Map::new()),
    }
}

/// What a hook changes in one token.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) claims: Option<Claims>,
    pub(crate) members: Map<String, Value>,
}

/// A [`TokenHook`] or an [`ExtensionGrant`](crate::ExtensionGrant) issues no token.
///
/// Every error becomes one with `?`: then the hook has failed, and the client gets 503. To refuse, use
/// [`TokenHookError::refuse`].
#[derive(Debug)]
pub struct TokenHookError(Kind);

#[derive(Debug)]
enum Kind {
    Refused { code: Option<&'static str>, reason: String },
    Failed(Failure),
}

impl TokenHookError {
    /// Refuses. The client gets `invalid_grant`, which tells it to ask its user to sign in again, or
    /// `unauthorized_client` if it acts for itself. The reason goes to the trace, and not to the client.
    pub fn refuse(reason: impl Into<String>) -> Self {
        Self(Kind::Refused { code: None, reason: reason.into() })
    }

    /// Refuses with this error code, such as `access_denied` or `invalid_target`.
    pub fn refuse_with(code: &'static str, reason: impl Into<String>) -> Self {
        Self(Kind::Refused { code: Some(code), reason: reason.into() })
    }

    /// The decision is not possible now: the client gets 503, and may try again.
    pub fn failed(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Self(Kind::Failed(error.into()))
    }
}

impl<E: std::error::Error + Send + Sync + 'static> From<E> for TokenHookError {
    fn from(error: E) -> Self {
        Self::failed(error)
    }
}

/// Code of the app that requests wait for: it is bounded in time, and a panic is an error.
#[derive(Clone, Copy)]
pub(crate) struct Guard {
    pub(crate) limit: Duration,
}

#[derive(Debug, thiserror::Error)]
enum GuardError {
    #[error("it took longer than {0:?}")]
    TooSlow(Duration),
    #[error("it panicked")]
    Panicked,
}

impl Guard {
    /// The default of [`IssuerBuilder::on_token_timeout`](crate::IssuerBuilder::on_token_timeout).
    pub(crate) const DEFAULT: Self = Self { limit: Duration::from_secs(5) };

    /// Runs the future to its end. `is_client` says whether a client acts for itself.
    pub(crate) async fn run<T>(
        self,
        mut future: Pin<Box<dyn Future<Output = Result<T, TokenHookError>> + Send + '_>>,
        is_client: bool,
    ) -> Result<T, TokenError> {
        let polled = std::future::poll_fn(|cx| {
            // The future is not polled again after a panic.
            match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                Ok(Poll::Ready(answer)) => Poll::Ready(Ok(answer)),
                Ok(Poll::Pending) => Poll::Pending,
                Err(_) => Poll::Ready(Err(GuardError::Panicked)),
            }
        });
        let answer = match tokio::time::timeout(self.limit, polled).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(panicked)) => Err(TokenHookError::failed(panicked)),
            Err(_) => Err(TokenHookError::failed(GuardError::TooSlow(self.limit))),
        };
        answer.map_err(|TokenHookError(kind)| match kind {
            Kind::Refused { code, reason } => {
                let default = if is_client { "unauthorized_client" } else { "invalid_grant" };
                TokenError::Denied { code: code.unwrap_or(default), reason }
            }
            Kind::Failed(error) => TokenError::Hook(error),
        })
    }
}

/// The hook of an issuer.
#[derive(Clone)]
pub(crate) struct Hook {
    pub(crate) hook: Arc<dyn TokenHook>,
    pub(crate) guard: Guard,
    /// Whether it is asked when a handle is swapped.
    pub(crate) at_swap: bool,
}

impl Hook {
    pub(crate) async fn run(&self, token: NewToken) -> Result<Applied, TokenError> {
        let is_client = matches!(token.grant.subject, Subject::Client(_));
        let (id, client) = (token.grant.id, token.grant.client.clone());
        let claims = token.grant.claims.clone();
        let answer = self.guard.run(self.hook.on_token(token), is_client).await;
        if let Err(TokenError::Denied { code, reason }) = &answer {
            tracing::info!(grant = %id, %client, code, reason, "the token hook refused a token");
        }
        answer?.apply(&claims).map_err(|invalid| TokenError::Hook(invalid.into()))
    }
}
