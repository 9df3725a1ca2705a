//! The keys with which a gateway refuses forged handles without introspection.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::handle::{AccessHandleKeys, HandleCheck};
use cloakroom_core::time::Clock;

use crate::client::discovery::Metadata;
use crate::client::protected::{Protected, endpoint_constructors};
use crate::client::single_fetch::{FetchPermit, SingleFetch, detached};
use crate::error::{InvalidToken, TokenError, UnavailableError};
use cloakroom_core::time::ClockReading;

/// How old keys may get before they are fetched again, in the background.
const PERIOD: Duration = Duration::from_secs(10 * 60);
/// The least time between two fetches, whatever they are for: a handle can name any key.
const INTERVAL: Duration = Duration::from_secs(10);

/// The keys that distinguish the handles of an authorization server from other strings (`GET
/// /handle-keys`). With them, forged and damaged handles are refused without introspection. Cheap
/// to clone; clones share the keys.
///
/// The authorization server gives the keys to clients that it trusts. Anyone who has them can make
/// handles that pass this check, but not handles that are active.
///
/// ```no_run
/// # async fn run() -> Result<(), Box<dyn std::error::Error>> {
/// use cloakroom_resource::{
///     ClientCredentials, GatewayKeys, IntrospectionClient, PhantomLayer,
/// };
///
/// let credentials = ClientCredentials::new("gateway", std::env::var("GATEWAY_SECRET")?);
/// let keys = GatewayKeys::discover("https://as.example", credentials.clone()).await?;
/// let client = IntrospectionClient::discover("https://as.example", credentials).await?;
/// let gateway = PhantomLayer::new(client, "https://orders.example").handle_keys(keys);
/// # Ok(()) }
/// ```
///
/// # What is refused
///
/// This applies to opaque tokens that are not in memory:
///
/// | the token is | result |
/// |---|---|
/// | a handle with a genuine tag | introspected |
/// | a handle that is forged or damaged | 401 |
/// | a handle with an unknown key | 401 if keys fetched for it lack that key; 503 if other keys were fetched within 10 s |
/// | anything else | 401 if keys of the last 10 s confirm it, 503 without such keys; introspected with [`introspect_other_tokens`](Self::introspect_other_tokens) |
///
/// The keys are fetched when the first token arrives, every ten minutes while they are in use, and
/// for an unknown key or prefix: one fetch at a time, and at most one in 10 s. If no keys can be
/// fetched, a warning is traced, and tokens are introspected within the
/// [`IntrospectionLimits`](crate::IntrospectionLimits).
#[derive(Clone)]
pub struct GatewayKeys {
    keys: Arc<Keys>,
    introspects_others: bool,
}

struct Keys {
    /// `None` if the keys are at hand.
    remote: Option<Protected>,
    shared: SingleFetch<State>,
}

#[derive(Default)]
struct State {
    loaded: Option<Loaded>,
    /// When the last fetch was sent, and whether it brought keys.
    last: Option<(ClockReading, bool)>,
}

#[derive(Clone)]
struct Loaded {
    keys: Arc<AccessHandleKeys>,
    /// When they were asked for; `None` if they were at hand.
    sent: Option<ClockReading>,
}

/// What can be told of the keys that a request needs.
enum Fetched {
    /// These were asked for after the request began.
    Now(Arc<AccessHandleKeys>),
    /// Others have asked not long ago; these are the newest.
    Lately(Arc<AccessHandleKeys>),
    /// There are none, or none newer.
    Failed,
}

endpoint_constructors!(GatewayKeys, "handle_keys_endpoint", Metadata::handle_keys_endpoint);

impl From<Protected> for GatewayKeys {
    fn from(remote: Protected) -> Self {
        Self::of(Some(remote), State::default())
    }
}

impl GatewayKeys {
    /// Uses these keys of an authorization server in the same process (its issuer's
    /// `access_handle_keys`), and fetches nothing.
    #[must_use]
    pub fn with_keys(keys: AccessHandleKeys) -> Self {
        let loaded = Loaded { keys: Arc::new(keys), sent: None };
        Self::of(None, State { loaded: Some(loaded), last: None })
    }

    /// Introspects tokens that do not look like handles. Use this if the authorization server
    /// adopts tokens of another server, or has custom formats. Invented tokens that do not look
    /// like handles are then introspected as well.
    #[must_use]
    pub const fn introspect_other_tokens(mut self) -> Self {
        self.introspects_others = true;
        self
    }

    fn of(remote: Option<Protected>, state: State) -> Self {
        let keys = Keys { remote, shared: SingleFetch::new(state) };
        Self { keys: Arc::new(keys), introspects_others: false }
    }

    /// Whether a token of a request that began at `now` is worth asking about.
    ///
    /// # Errors
    ///
    /// If it is junk, or if that cannot be told yet.
    pub(crate) async fn check(
        &self,
        token: &str,
        now: ClockReading,
        clock: &Arc<dyn Clock>,
    ) -> Result<(), TokenError> {
        let mut is_foreign = false;
        if let Some(loaded) = self.keys.shared.read(|state| state.loaded.clone()) {
            match loaded.keys.check(token) {
                HandleCheck::UnknownKey => {}
                // Or handles have got another spelling since.
                HandleCheck::Foreign if !self.introspects_others => is_foreign = true,
                known => {
                    if loaded.sent.is_some_and(|sent| now.since(sent) >= PERIOD) {
                        self.keys.refresh(clock, now);
                    }
                    return self.decide(known);
                }
            }
        }
        match self.keys.newer(clock, now).await {
            Fetched::Now(keys) => self.decide(keys.check(token)),
            Fetched::Lately(keys) => match keys.check(token) {
                HandleCheck::UnknownKey => Err(UnavailableError::HandleKey.into()),
                known => self.decide(known),
            },
            Fetched::Failed if is_foreign => Err(UnavailableError::HandleKey.into()),
            Fetched::Failed => Ok(()),
        }
    }

    fn decide(&self, check: HandleCheck) -> Result<(), TokenError> {
        match check {
            HandleCheck::Genuine(_) => Ok(()),
            HandleCheck::Foreign if self.introspects_others => Ok(()),
            HandleCheck::Foreign | HandleCheck::Forged | HandleCheck::UnknownKey => {
                Err(InvalidToken::Forged.into())
            }
        }
    }
}

impl fmt::Debug for GatewayKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let keys = self.keys.shared.read(|state| state.loaded.clone()).map(|loaded| loaded.keys);
        f.debug_struct("GatewayKeys")
            .field("uri", &self.keys.remote.as_ref().map(Protected::uri))
            .field("keys", &keys)
            .field("introspects_others", &self.introspects_others)
            .finish()
    }
}

impl Keys {
    /// Keys that were requested after `now`, unless others were requested within the interval.
    async fn newer(self: &Arc<Self>, clock: &Arc<dyn Clock>, now: ClockReading) -> Fetched {
        if self.remote.is_none() {
            // There are none but these.
            let loaded = self.shared.read(|state| state.loaded.clone());
            return loaded.map_or(Fetched::Failed, |loaded| Fetched::Now(loaded.keys));
        }
        let permit = self.shared.permit().await;
        let (last, loaded) = self.shared.read(|state| (state.last, state.loaded.clone()));
        match (last, loaded) {
            (Some((sent, true)), Some(loaded))
                if ClockReading::now(&**clock).since(sent) < INTERVAL =>
            {
                // The monotonic clock: it is never set.
                if sent.monotonic() > now.monotonic() {
                    Fetched::Now(loaded.keys)
                } else {
                    Fetched::Lately(loaded.keys)
                }
            }
            (Some((sent, false)), _) if ClockReading::now(&**clock).since(sent) < INTERVAL => {
                Fetched::Failed
            }
            _ => self.fetch_detached(permit, clock).await,
        }
    }

    fn refresh(self: &Arc<Self>, clock: &Arc<dyn Clock>, now: ClockReading) {
        let Some((permit, runtime)) = self.shared.try_permit() else { return };
        let last = self.shared.read(|state| state.last);
        if last.is_none_or(|(sent, _)| now.since(sent) >= INTERVAL) {
            let (keys, clock) = (Arc::clone(self), Arc::clone(clock));
            runtime.spawn(async move { keys.fetch(permit, &*clock).await });
        }
    }

    async fn fetch_detached(
        self: &Arc<Self>,
        permit: FetchPermit,
        clock: &Arc<dyn Clock>,
    ) -> Fetched {
        let (keys, clock) = (Arc::clone(self), Arc::clone(clock));
        let fetch = detached(async move { keys.fetch(permit, &*clock).await });
        fetch.await.unwrap_or(Fetched::Failed)
    }

    /// One request; its outcome is written down before the permit is given back.
    async fn fetch(&self, _permit: FetchPermit, clock: &dyn Clock) -> Fetched {
        let Some(remote) = &self.remote else {
            return Fetched::Failed;
        };
        let sent = ClockReading::now(clock);
        // Should this be given up on the way, it counts as a failure.
        self.shared.write(|state| state.last = Some((sent, false)));
        match fetch(remote).await {
            Ok(keys) => {
                let keys = Arc::new(keys);
                self.shared.write(|state| {
                    state.loaded = Some(Loaded { keys: Arc::clone(&keys), sent: Some(sent) });
                    state.last = Some((sent, true));
                });
                Fetched::Now(keys)
            }
            Err(error) => {
                tracing::warn!(uri = %remote.uri(), error = &error as &dyn std::error::Error,
                    "the handle keys could not be fetched; forged handles are introspected");
                Fetched::Failed
            }
        }
    }
}

async fn fetch(remote: &Protected) -> Result<AccessHandleKeys, UnavailableError> {
    AccessHandleKeys::from_json(&remote.get(|_| {}).await?)
        .map_err(|error| UnavailableError::unreadable("these are not handle keys", error))
}
