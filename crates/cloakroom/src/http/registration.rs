//! The registration endpoint (RFC 7591), and the management of a registration by its client (RFC 7592).

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use ::http::header::{self, HeaderMap, HeaderValue};
use ::http::{Extensions, Method, Request, Response, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cloakroom_core::ClientId;
use cloakroom_core::time::UnixTime;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::form::Form;
use super::{Endpoints, REGISTER, respond};
use crate::client::Client;
use crate::client::metadata::members;
use crate::client::registry::{MetadataFault, PREFIX, RegisteredClient, RegisteredClients};
use crate::client::secret_hash::SecretHash;
use crate::error::TokenError;

/// The largest metadata, in bytes.
const MAX_METADATA: usize = 8 * 1024;

/// How often a client may get a grant while its registration is deleted.
const MAX_GRANTS_MEANWHILE: usize = 16;

/// What a client asks to register.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct RegistrationRequest<'a> {
    /// The client as it would be registered. Its identifier is new.
    pub client: &'a RegisteredClient,
    /// The headers of the request.
    pub headers: &'a HeaderMap,
    /// The extensions of the request, such as the address of the peer, which your server sets.
    pub extensions: &'a Extensions,
}

/// Why a client may not register.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RegistrationRefusal {
    /// Too many clients registered: 429, and how long to wait.
    TooMany(Duration),
    /// Its metadata is not acceptable: 400 `invalid_client_metadata`, with this description.
    Metadata(&'static str),
    /// It needs a valid initial access token: 401.
    Unauthorized,
}

type Policy =
    dyn Fn(&RegistrationRequest<'_>) -> Result<(), RegistrationRefusal> + Send + Sync + 'static;

/// Lets clients register themselves (RFC 7591) in [`RegisteredClients`], and change and delete their own
/// registration (RFC 7592). It is off unless [`Endpoints::registration`] is called.
///
/// Unless you require an [initial access token](Self::initial_access_token), anyone can register. So at most 30 clients
/// register in a minute ([`limit`](Self::limit)), your [`policy`](Self::policy) may refuse any of them, and
/// registrations that no user has let in make room for new ones. A client whose identifier is the URL of a metadata
/// document (`ClientDocuments`) needs no registration: prefer that where your clients support it.
///
/// | method | path | does |
/// |---|---|---|
/// | POST | `/register` | registers a client |
/// | GET | `/register?client_id=…` | shows a registration |
/// | PUT | `/register?client_id=…` | replaces its metadata |
/// | DELETE | `/register?client_id=…` | deletes it, and revokes all that the client was granted |
///
/// The last three need the registration access token that the first one returned. A client is public
/// (`token_endpoint_auth_method: none`) or has a secret that the server makes; only hashes are kept. It uses
/// `authorization_code`, and `refresh_token` if it asks for it.
#[derive(Clone)]
pub struct Registration(Arc<Settings>);

#[derive(Clone)]
struct Settings {
    clients: Arc<RegisteredClients>,
    initial: Vec<SecretHash>,
    policy: Arc<Policy>,
    limit: Arc<Limit>,
}

impl Registration {
    /// Registration in this directory. The issuer must have the same directory
    /// ([`IssuerBuilder::clients`](crate::IssuerBuilder::clients)), or one over it.
    #[must_use]
    pub fn new(clients: Arc<RegisteredClients>) -> Self {
        Self(Arc::new(Settings {
            clients,
            initial: Vec::new(),
            policy: Arc::new(|_| Ok(())),
            limit: Arc::new(Limit::new(30, Duration::from_secs(60))),
        }))
    }

    /// Requires an initial access token, sent as a `Bearer` token (RFC 7591 §3). Each call of this method adds one that
    /// is accepted. It must be random, and at least 22 bytes long ([`SecretHash::of`]).
    #[must_use]
    pub fn initial_access_token(mut self, token: SecretHash) -> Self {
        self.settings().initial.push(token);
        self
    }

    /// Also asks this policy, before a client is registered or changed.
    #[must_use]
    pub fn policy(
        mut self,
        policy: impl Fn(&RegistrationRequest<'_>) -> Result<(), RegistrationRefusal>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        self.settings().policy = Arc::new(policy);
        self
    }

    /// How many clients may register at this node within `per` (30 in a minute by default).
    #[must_use]
    pub fn limit(mut self, clients: u32, per: Duration) -> Self {
        self.settings().limit = Arc::new(Limit::new(clients, per));
        self
    }

    fn settings(&mut self) -> &mut Settings {
        Arc::make_mut(&mut self.0)
    }
}

impl fmt::Debug for Registration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration").field("clients", &self.0.clients).finish_non_exhaustive()
    }
}

/// A number in a time, all of which may come at once.
struct Limit {
    /// The time that one takes.
    each: Duration,
    per: Duration,
    /// When all that came would have come one after the other.
    busy_until: Mutex<UnixTime>,
}

impl Limit {
    fn new(number: u32, per: Duration) -> Self {
        // None at all: each takes longer than there is.
        let each = per.checked_div(number).unwrap_or(per + Duration::from_secs(1));
        Self { each, per, busy_until: Mutex::new(UnixTime::from_millis(0)) }
    }

    /// Takes one, or says how long to wait.
    fn take(&self, now: UnixTime) -> Result<(), Duration> {
        let mut busy_until = self.busy_until.lock().unwrap_or_else(PoisonError::into_inner);
        // A clock that went back must not stop everybody for long.
        let busy = (*busy_until).max(now).min(now + self.per) + self.each;
        let ahead = busy.since(now);
        if ahead > self.per {
            return Err(ahead - self.per);
        }
        *busy_until = busy;
        Ok(())
    }
}

/// What is answered instead of a registration.
enum Refusal {
    /// RFC 7591 §3.2.2.
    Metadata(MetadataFault),
    /// RFC 6750 §3.1: the token is missing or wrong.
    Token,
    TooMany(Duration),
    NoRoom,
    Failed(TokenError),
}

impl<E: Into<TokenError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

fn invalid(why: &str) -> Refusal {
    Refusal::Metadata(why.to_owned().into())
}

impl Endpoints {
    /// Lets clients register themselves (RFC 7591); the metadata names the `registration_endpoint`. By
    /// default they cannot.
    #[must_use]
    pub fn registration(mut self, registration: Registration) -> Self {
        self.registration = Some(registration);
        self
    }

    pub(super) async fn register(
        &self,
        request: &Request<Bytes>,
        registration: &Registration,
    ) -> Result<Response<Bytes>, TokenError> {
        let settings = &*registration.0;
        let answer = if *request.method() == Method::POST {
            self.register_new(request, settings).await
        } else {
            self.manage(request, settings).await
        };
        answer.or_else(|refusal| match refusal {
            Refusal::Metadata(MetadataFault { code, why }) => {
                tracing::debug!(code, why, "a registration is refused");
                Ok(refused(StatusCode::BAD_REQUEST, code, Some(&why)))
            }
            Refusal::Token => {
                let mut response = refused(StatusCode::UNAUTHORIZED, "invalid_token", None);
                let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
                response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
                Ok(response)
            }
            Refusal::TooMany(wait) => {
                let code = "temporarily_unavailable";
                let mut response = refused(StatusCode::TOO_MANY_REQUESTS, code, None);
                let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
                response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
                Ok(response)
            }
            Refusal::NoRoom => {
                tracing::warn!("no more clients can register: there is no room");
                let code = "temporarily_unavailable";
                let mut response = refused(StatusCode::SERVICE_UNAVAILABLE, code, None);
                response.headers_mut().insert(header::RETRY_AFTER, 3600.into());
                Ok(response)
            }
            Refusal::Failed(error) => Err(error),
        })
    }

    async fn register_new(
        &self,
        request: &Request<Bytes>,
        settings: &Settings,
    ) -> Result<Response<Bytes>, Refusal> {
        let initial = bearer(request.headers());
        if !settings.initial.is_empty() {
            let presented = SecretHash::presented(&initial.ok_or(Refusal::Token)?);
            // All of them are looked at.
            let known = settings.initial.iter().filter(|known| **known == presented).count();
            if known == 0 {
                return Err(Refusal::Token);
            }
        }
        let members = metadata(request)?;
        let inner = &self.issuer.inner;
        let id = format!("{PREFIX}{}", secret(&inner.random.array::<16>()?).as_str());
        let id = ClientId::new(&id).map_err(|_| invalid("no identifier could be made"))?;
        let access = secret(&inner.random.array::<32>()?);
        let now = inner.now();
        let mut client = RegisteredClient::read(id, now, SecretHash::presented(&access), &members)
            .map_err(Refusal::Metadata)?;
        let plain = self.new_secret(&mut client)?;
        self.check(request, settings, &client)?;
        let admitted = self.admitted(settings, &client)?;
        settings.limit.take(now).map_err(Refusal::TooMany)?;
        if !settings.clients.insert(&client).await? {
            return Err(Refusal::NoRoom);
        }
        tracing::info!(client = %client.id(), "a client registered itself");
        Ok(self.shown(StatusCode::CREATED, &client, &admitted, &access, plain))
    }

    /// RFC 7592 §2.
    async fn manage(
        &self,
        request: &Request<Bytes>,
        settings: &Settings,
    ) -> Result<Response<Bytes>, Refusal> {
        let query = Form::parse(request.uri().query().unwrap_or_default().as_bytes())?;
        let id = query.get("client_id").and_then(|id| ClientId::new(id).ok());
        let access = bearer(request.headers()).ok_or(Refusal::Token)?;
        let known = match &id {
            Some(id) => settings.clients.registration(id).await?,
            None => None,
        };
        // RFC 7592 §2.1: for an unknown client or a wrong token alike, 401.
        let known = known.filter(|known| known.is_managed_by(&access)).ok_or(Refusal::Token)?;
        match *request.method() {
            Method::DELETE => {
                self.delete(&settings.clients, known.id()).await?;
                tracing::info!(client = %known.id(), "a client deleted its registration");
                Ok(respond::empty(StatusCode::NO_CONTENT))
            }
            Method::PUT => {
                let members = metadata(request)?;
                // RFC 7592 §2.2: "The client MUST include its "client_id" field in the request".
                if members.get("client_id").and_then(Value::as_str) != Some(known.id().as_str()) {
                    return Err(invalid("its client_id is not that of the registration"));
                }
                let (id, created_at) = (known.id().clone(), known.created_at());
                let mut client = RegisteredClient::read(id, created_at, known.access(), &members)
                    .map_err(Refusal::Metadata)?;
                let plain = match known.secret() {
                    kept @ Some(_) if client.authenticates() => {
                        client.set_secret(kept);
                        None
                    }
                    _ => self.new_secret(&mut client)?,
                };
                self.check(request, settings, &client)?;
                let admitted = self.admitted(settings, &client)?;
                if !settings.clients.update(&client).await? {
                    return Err(Refusal::Token);
                }
                Ok(self.shown(StatusCode::OK, &client, &admitted, &access, plain))
            }
            _ => {
                let admitted = self.admitted(settings, &known)?;
                Ok(self.shown(StatusCode::OK, &known, &admitted, &access, None))
            }
        }
    }

    /// Deletes a registration, and revokes what the client was granted.
    ///
    /// The revocation comes first: a client that is gone could not ask for it again. A grant that is made in
    /// between was counted before, so the registration is not deleted then, and both are done again. Once it is
    /// deleted, no grant is made.
    ///
    /// A client without a grant has nothing to revoke. Every server would have to remember the revocation for as
    /// long as grants live, and a loop of registrations and deletions must not fill their memories.
    async fn delete(&self, clients: &RegisteredClients, id: &ClientId) -> Result<(), TokenError> {
        let is_counted = self.counts_grants().await?;
        for _ in 0..MAX_GRANTS_MEANWHILE {
            let Some((_, grants)) = clients.find(id).await? else { return Ok(()) };
            if grants > 0 || !is_counted {
                self.issuer.revoke_client(id).await?;
            }
            if clients.remove(id, grants).await? {
                if !is_counted {
                    // Nobody knows whether a grant was made in between.
                    self.issuer.revoke_client(id).await?;
                }
                return Ok(());
            }
        }
        Err(TokenError::Unavailable("the client got grants again and again meanwhile"))
    }

    /// Whether the issuer's directory leads to the registered clients, so that they count its grants: they
    /// know no client of this name, and refuse it. A directory that does not hand the call on takes any.
    async fn counts_grants(&self) -> Result<bool, TokenError> {
        match ClientId::new(PREFIX) {
            Ok(nobody) => Ok(!self.issuer.inner.clients.count_grant(&nobody).await?),
            Err(_) => Ok(false),
        }
    }

    fn check(
        &self,
        request: &Request<Bytes>,
        settings: &Settings,
        client: &RegisteredClient,
    ) -> Result<(), Refusal> {
        let (headers, extensions) = (request.headers(), request.extensions());
        let asked = RegistrationRequest { client, headers, extensions };
        (settings.policy)(&asked).map_err(|refusal| match refusal {
            RegistrationRefusal::TooMany(wait) => Refusal::TooMany(wait),
            RegistrationRefusal::Metadata(why) => invalid(why),
            RegistrationRefusal::Unauthorized => Refusal::Token,
        })
    }

    /// The client as the registry admits it.
    fn admitted(&self, settings: &Settings, client: &RegisteredClient) -> Result<Client, Refusal> {
        let refused = || invalid("this server does not take the client");
        let admitted = settings.clients.admit(client).ok_or_else(refused)?;
        // It could get no token.
        if let Some(why) = self.issuer.inner.minter.algorithms.fault_of(&admitted) {
            tracing::error!("a registration is refused: {why}");
            return Err(refused());
        }
        Ok(admitted)
    }

    /// Gives a confidential client a secret, and returns it.
    fn new_secret(
        &self,
        client: &mut RegisteredClient,
    ) -> Result<Option<Zeroizing<String>>, Refusal> {
        if !client.authenticates() {
            client.set_secret(None);
            return Ok(None);
        }
        let plain = secret(&self.issuer.inner.random.array::<32>()?);
        client.set_secret(Some(SecretHash::presented(&plain)));
        Ok(Some(plain))
    }

    /// The client information response (RFC 7591 §3.2.1, RFC 7592 §3).
    fn shown(
        &self,
        status: StatusCode,
        client: &RegisteredClient,
        admitted: &Client,
        access: &str,
        secret: Option<Zeroizing<String>>,
    ) -> Response<Bytes> {
        let mut all = client.metadata().clone();
        let uri = format!("{}{REGISTER}?client_id={}", self.issuer.url(), client.id());
        let members = [
            ("client_id", json!(client.id().as_str())),
            ("client_id_issued_at", json!(client.created_at().as_secs())),
            ("registration_client_uri", uri.into()),
            ("registration_access_token", access.into()),
        ];
        all.extend(members.map(|(name, value)| (name.to_owned(), value)));
        if !admitted.scope().is_empty() {
            all.insert("scope".into(), admitted.scope().as_str().into());
        }
        if let Some(secret) = secret {
            all.insert("client_secret".into(), secret.as_str().into());
            all.insert("client_secret_expires_at".into(), 0.into());
        }
        let mut response = respond::body("application/json", Value::Object(all).to_string());
        *response.status_mut() = status;
        response
    }
}

fn metadata(request: &Request<Bytes>) -> Result<Map<String, Value>, Refusal> {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let essence = content_type.and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = essence.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(invalid("the content type must be application/json"));
    }
    if request.body().len() > MAX_METADATA {
        return Err(invalid("the metadata is too large"));
    }
    members(request.body()).map_err(|why| Refusal::Metadata(why.into()))
}

/// The token of the one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Option<Zeroizing<String>> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (only, None) = (all.next()?, all.next()) else { return None };
    let (scheme, token) = only.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| Zeroizing::new(token.trim().to_owned()))
}

fn secret(bytes: &[u8]) -> Zeroizing<String> {
    Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes))
}

fn refused(status: StatusCode, code: &str, why: Option<&str>) -> Response<Bytes> {
    let body = match why {
        Some(why) => json!({ "error": code, "error_description": why }),
        None => json!({ "error": code }),
    };
    let mut response = respond::body("application/json", body.to_string());
    *response.status_mut() = status;
    response
}
