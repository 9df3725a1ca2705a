//! Building an issuer.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use cloakroom_core::format::{OpaqueFormat, TokenFormat};
use cloakroom_core::handle::HandleKeys;
use cloakroom_core::keys::{KeyPolicy, KeyStore};
use cloakroom_core::store::{SingleUseStore, TokenStore};
use cloakroom_core::time::{Clock, SystemClock};
use cloakroom_core::{Random, Scope};
use cloakroom_jwt::{
    Algorithm, JwtFormat, KeyManager, KeyManagerBuilder, KeyManagerError, KeySealer, PhantomFormat,
};

use crate::client::Client;
use crate::client::builder::ClientConfigError;
use crate::client::directory::{ClientDirectory, StaticClients};
use crate::client::registration::Format;
use crate::error::BuildError;
use crate::events::Event;
use crate::events::damage::Damage;
use crate::events::refusals::Refusals;
use crate::events::sink::{EventSink, Events};
use crate::flow::extension_grant::{ExtensionGrant, ExtensionGrants, check_types};
use crate::flow::hook::{Guard, Hook, TokenHook};
use crate::flow::mint::TokenMinter;
use crate::introspection::locate::TokenLocator;
use crate::issuer::algorithms::SigningAlgorithms;
use crate::issuer::checks::{Intervals, check_formats, check_intervals, check_issuer, refused};
use crate::issuer::lifetimes::Lifetimes;
use crate::issuer::ownership::{ForeignKeys, Owner};
use crate::issuer::{Inner, Issuer, ScopeMapper};
use crate::operator::{Diagnosis, Examined};
use crate::revocation::log_notifier::LogNotifier;
use crate::revocation::log_watch::LogWatch;
use crate::revocation::remembering_store::RememberingStore;
use crate::write::{Finish, Keys, Store};

/// The settings of an [`Issuer`]. [`IssuerBuilder::build`] refuses settings that contradict each
/// other, and says how to fix them.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// use std::sync::Arc;
/// use cloakroom::core::handle::{HandleKeys, HandleSecret};
/// use cloakroom::jwt::AesGcmSealer;
/// use cloakroom::memory::MemoryStore;
/// use cloakroom::{Client, Issuer};
///
/// // Both secrets come from your secret store, and stay the same across restarts.
/// let (handle_secret, sealing_key) = ([1; 32], [2; 32]);
///
/// let issuer = Issuer::builder("https://as.example")
///     .store(Arc::new(MemoryStore::new()))
///     .handle_keys(HandleKeys::new(&HandleSecret::new(1, handle_secret)))
///     .sealer(Arc::new(AesGcmSealer::new(1, sealing_key)))
///     .static_clients([Client::public("app")])?
///     .build()
///     .await?;
/// # Ok(()) }
/// ```
#[must_use = "a builder does nothing until it is built"]
pub struct IssuerBuilder {
    url: String,
    former_urls: Vec<String>,
    store: Option<Arc<dyn TokenStore>>,
    key_store: Option<Arc<dyn KeyStore>>,
    single_use: Option<Arc<dyn SingleUseStore>>,
    handles: Option<HandleKeys>,
    sealer: Option<Arc<dyn KeySealer>>,
    clients: Option<Arc<dyn ClientDirectory>>,
    /// In the order in which a presented token is tried.
    formats: Vec<(Format, Arc<dyn TokenFormat>)>,
    /// The clients, if they are fixed.
    fixed: Option<Arc<StaticClients>>,
    scope_mapper: ScopeMapper,
    hook: Option<Arc<dyn TokenHook>>,
    hook_at_swap: bool,
    guard: Guard,
    extension_grants: ExtensionGrants,
    stateless_jwt: bool,
    clock: Arc<dyn Clock>,
    random: Random,
    events: Events,
    lifetimes: Lifetimes,
    key_policy: KeyPolicy,
    algorithms: SigningAlgorithms,
    heartbeat: Duration,
    housekeeping: Duration,
    max_log_staleness: Option<Duration>,
}

impl IssuerBuilder {
    pub(crate) fn new(url: String) -> Self {
        Self {
            url,
            former_urls: Vec::new(),
            store: None,
            key_store: None,
            single_use: None,
            handles: None,
            sealer: None,
            clients: None,
            formats: Vec::new(),
            fixed: None,
            scope_mapper: Arc::new(|_, scope| scope.clone()),
            hook: None,
            hook_at_swap: false,
            guard: Guard::DEFAULT,
            extension_grants: Vec::new(),
            stateless_jwt: false,
            clock: Arc::new(SystemClock::new()),
            random: Random::system(),
            events: Events::default(),
            lifetimes: Lifetimes::default(),
            key_policy: KeyPolicy::default(),
            algorithms: SigningAlgorithms::default(),
            heartbeat: Duration::from_secs(1),
            housekeeping: Duration::from_secs(30),
            max_log_staleness: None,
        }
    }

    #[cfg(feature = "memory")]
    pub(crate) fn dev() -> Self {
        let mut builder = Self::new("http://127.0.0.1:9000".into())
            .store(Arc::new(cloakroom_memory::MemoryStore::new()))
            .single_use(Arc::new(cloakroom_memory::MemorySingleUse::new()));
        // If the source of random bytes fails, `build` says what is missing.
        // A gateway that knows the keys of the last run must not take them for these: it would refuse good
        // tokens without a question. So their number is random, too.
        let secret = builder
            .random
            .array()
            .and_then(|[id]| cloakroom_core::handle::HandleSecret::random(id, &builder.random));
        if let Ok(secret) = secret {
            builder.handles = Some(HandleKeys::new(&secret));
        }
        if let Ok(sealer) = cloakroom_jwt::AesGcmSealer::random() {
            builder.sealer = Some(Arc::new(sealer));
        }
        builder
    }

    /// Changes the issuer's URL, such as that of [`Issuer::dev`].
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.url = url.into();
        self
    }

    /// Adds a URL that the issuer had before it was renamed. The issuer may then use the store of
    /// that URL, and tokens issued under it stay valid. Keep it on every node until the longest
    /// grant has ended.
    ///
    /// Rename an issuer while none of its nodes is running: a node that knows only the old URL
    /// refuses tokens issued under the new one.
    pub fn former_issuer(mut self, url: impl Into<String>) -> Self {
        self.former_urls.push(url.into());
        self
    }

    /// The store of grants and of signing keys.
    pub fn store<S: TokenStore + KeyStore>(mut self, store: Arc<S>) -> Self {
        self.store = Some(store.clone());
        self.key_store = Some(store);
        self
    }

    /// The store of grants.
    pub fn token_store(mut self, store: Arc<dyn TokenStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// The store of signing keys.
    pub fn key_store(mut self, store: Arc<dyn KeyStore>) -> Self {
        self.key_store = Some(store);
        self
    }

    /// The store of spent single-use items, such as nonces ([`Issuer::use_nonce`]). It may use a
    /// database other than that of the grants, and must be the same for all nodes. [`Issuer::dev`]
    /// has one in memory.
    pub fn single_use(mut self, store: Arc<dyn SingleUseStore>) -> Self {
        self.single_use = Some(store);
        self
    }

    /// The keys that authenticate handles. They must be the same on every node and after a restart.
    /// The token store remembers them, and [`IssuerBuilder::build`] refuses others. They are
    /// derived for the issuer, so that two issuers with the same secret have different keys.
    ///
    /// To replace a secret, first add the new one on every node with
    /// [`with_former`](HandleKeys::with_former). Then make the new secret the current one
    /// everywhere, and the old secret a former one. When the longest grant under the old secret has
    /// ended, retire it with [`with_retired`](HandleKeys::with_retired). A node that receives a
    /// handle under a secret that it does not have answers
    /// [`TokenError::Unavailable`](crate::TokenError::Unavailable), and never reports the token as
    /// invalid.
    pub fn handle_keys(mut self, keys: HandleKeys) -> Self {
        self.handles = Some(keys);
        self
    }

    /// Encrypts private keys before they reach the key store.
    pub fn sealer(mut self, sealer: Arc<dyn KeySealer>) -> Self {
        self.sealer = Some(sealer);
        self
    }

    /// The directory of registered clients.
    pub fn clients(mut self, clients: Arc<dyn ClientDirectory>) -> Self {
        self.clients = Some(clients);
        self.fixed = None;
        self
    }

    /// A fixed set of clients, given as clients or as their builders.
    ///
    /// # Errors
    ///
    /// If a builder fails, or if two clients have the same identifier.
    pub fn static_clients(
        mut self,
        clients: impl IntoIterator<Item = impl TryInto<Client, Error: Into<ClientConfigError>>>,
    ) -> Result<Self, ClientConfigError> {
        let clients = Arc::new(StaticClients::new(clients)?);
        self.clients = Some(Arc::clone(&clients) as Arc<dyn ClientDirectory>);
        self.fixed = Some(clients);
        Ok(self)
    }

    /// Adds a token format of your own, for [`Format::Custom`] with this name.
    pub fn format(mut self, name: &str, format: Arc<dyn TokenFormat>) -> Self {
        self.formats.push((Format::Custom(name.into()), format));
        self
    }

    /// Does not store the grant of a JWT that is issued without a refresh token. Such a JWT is
    /// active until it expires or a rule denies it.
    pub const fn stateless_jwt(mut self) -> Self {
        self.stateless_jwt = true;
        self
    }

    /// Maps the scope of a handle to the scope of the JWT for one audience, when the handle is
    /// swapped.
    pub fn scope_for_audience(
        mut self,
        mapper: impl Fn(&str, &Scope) -> Scope + Send + Sync + 'static,
    ) -> Self {
        self.scope_mapper = Arc::new(mapper);
        self
    }

    /// Calls this hook before each access token is made: see [`TokenHook`]. A closure is a hook.
    pub fn on_token(mut self, hook: impl TokenHook) -> Self {
        self.hook = Some(Arc::new(hook));
        self
    }

    /// Also calls the [`TokenHook`] when a gateway swaps a handle for a JWT ([`Issuer::swap`]), so that
    /// the JWT has the claims of that moment. A gateway remembers the JWT until it ends.
    pub const fn on_token_at_swap(mut self) -> Self {
        self.hook_at_swap = true;
        self
    }

    /// The longest time that requests wait for the [`TokenHook`] and for an [`ExtensionGrant`]
    /// (5 seconds). After that, no token is issued.
    pub const fn on_token_timeout(mut self, limit: Duration) -> Self {
        self.guard = Guard { limit };
        self
    }

    /// Adds a grant type of your own to the token endpoint: see [`ExtensionGrant`]. It is an absolute
    /// URI (RFC 6749 §4.5), and the metadata lists it.
    pub fn extension_grant(
        mut self,
        grant_type: impl Into<String>,
        handler: impl ExtensionGrant,
    ) -> Self {
        self.extension_grants.push((grant_type.into(), Arc::new(handler)));
        self
    }

    /// The clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The source of random bytes.
    pub fn random(mut self, random: Random) -> Self {
        self.random = random;
        self
    }

    /// Reports events to this sink. Without a sink, events go to `tracing` only.
    ///
    /// Call it again for a further sink, such as an audit trail beside a counter: each sink gets every
    /// event, in the order in which they were added.
    pub fn events(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.events = self.events.and(sink);
        self
    }

    /// How long tokens and grants live.
    pub const fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// When signing keys are published, used and deleted.
    pub const fn key_policy(mut self, policy: KeyPolicy) -> Self {
        self.key_policy = policy;
        self
    }

    /// The algorithm of new signing keys (ES256). A change takes effect when the key that is published
    /// next signs.
    pub const fn algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithms.main = algorithm;
        self
    }

    /// Keeps a ring of keys for this algorithm, too, so that the registration of a client may name it
    /// ([`ClientBuilder::jwt_algorithm`](crate::ClientBuilder::jwt_algorithm)). The JWK Set contains the
    /// keys of all rings.
    ///
    /// If the issuer has signed before, the first key of a new algorithm is published for
    /// [`KeyPolicy::publish_ahead`] before it signs. Until then, the JWTs of these clients are signed by
    /// the main ring.
    pub fn further_algorithm(mut self, algorithm: Algorithm) -> Self {
        self.algorithms.further.push(algorithm);
        self
    }

    /// Signs the JWTs for this resource with this algorithm, for example RS256 for a resource server
    /// that does not know ES256 (RFC 9068 §2.1). The issuer keeps a ring of keys for each algorithm,
    /// and the JWK Set contains all of them. This takes precedence over the algorithm that a client
    /// names ([`ClientBuilder::jwt_algorithm`](crate::ClientBuilder::jwt_algorithm)), since the resource
    /// server must be able to check the signature.
    ///
    /// If the issuer has signed before, the first key of a new algorithm is published for
    /// [`KeyPolicy::publish_ahead`] before it signs. Until then, the JWTs for this resource are signed
    /// as before. A client that asks for a JWT for several resources gets `invalid_target` if they
    /// need different algorithms.
    pub fn algorithm_for(mut self, resource: impl Into<String>, algorithm: Algorithm) -> Self {
        self.algorithms.resources.push((resource.into(), algorithm));
        self
    }

    /// How often maintenance writes a heartbeat into the revocation log (1 second).
    pub const fn heartbeat_interval(mut self, interval: Duration) -> Self {
        self.heartbeat = interval;
        self
    }

    /// How often maintenance rotates signing keys and deletes what has ended (every 30 seconds by
    /// default).
    pub const fn housekeeping_interval(mut self, interval: Duration) -> Self {
        self.housekeeping = interval;
        self
    }

    /// Makes the server refuse requests about tokens while the newest heartbeat that it has read
    /// from its own revocation log may be older than this. Introspection, swap and the token
    /// endpoint then answer 503; revocations are still accepted. Without this setting, a server
    /// whose database node is cut off from the others keeps answering from that node's data.
    ///
    /// The clock skew, [`KeyPolicy::clock_skew`], counts towards the age. The minimum is two
    /// heartbeat intervals plus the clock skew: 7 s with the defaults.
    ///
    /// [`Issuer::run_maintenance`] must run: it writes and reads the heartbeats.
    pub const fn max_log_staleness(mut self, at_most: Duration) -> Self {
        self.max_log_staleness = Some(at_most);
        self
    }

    /// Checks the settings, loads the signing keys (making the first ones if there are none), and
    /// builds the issuer.
    ///
    /// # Errors
    ///
    /// If a part is missing, if settings contradict each other, if the stores belong to another
    /// issuer or to other secrets, or if a store fails.
    pub async fn build(self) -> Result<Issuer, BuildError> {
        check_issuer(&self.url)?;
        self.former_urls.iter().try_for_each(|url| check_issuer(url))?;
        if let Err(error) = self.key_policy.check() {
            let why = error.to_string();
            return Err(BuildError::Setting { setting: "key_policy", why });
        }
        self.lifetimes.check(&self.key_policy)?;
        check_intervals(&Intervals {
            heartbeat: self.heartbeat,
            housekeeping: self.housekeeping,
            max_log_staleness: self.max_log_staleness,
            clock_skew: self.key_policy.clock_skew,
        })?;
        check_formats(&self.formats)?;
        self.algorithms.check()?;
        if let Some(clients) = &self.fixed
            && let Some(why) = clients.iter().find_map(|client| self.algorithms.fault_of(client))
        {
            return Err(refused("jwt_algorithm", why));
        }
        check_types(&self.extension_grants).map_err(|why| refused("extension_grant", why))?;
        // A request that waits longer than a code lives, or than a retry window, has lost its purpose.
        if self.guard.limit.is_zero() || self.guard.limit > Duration::from_secs(30) {
            return Err(refused("on_token_timeout", "it must be more than zero, and at most 30 s"));
        }
        let missing = |what, call| BuildError::Missing { what, call };
        let store = self.store.ok_or(missing("the token store", "store(…)"))?;
        let key_store = self.key_store.ok_or(missing("the key store", "key_store(…)"))?;
        let handles = self.handles.ok_or(missing("the handle keys", "handle_keys(…)"))?;
        let sealer = self.sealer.ok_or(missing("the sealer of private keys", "sealer(…)"))?;
        let clients = self.clients.ok_or(missing("the client directory", "clients(…)"))?;

        let handles = handles.for_issuer(&self.url, &self.former_urls);
        let owner = Owner { url: &self.url, former: &self.former_urls, handles: &handles };
        owner.claim(&*store, &*key_store).await?;
        let keys = KeyManager::builder(key_store, sealer)
            .issuer(&*self.url)
            .algorithm(self.algorithms.main)
            .policy(self.key_policy)
            .clock(Arc::clone(&self.clock));
        let keys = self.former_urls.iter().fold(keys, KeyManagerBuilder::former_issuer);
        let keys = self.algorithms.rings().skip(1).fold(keys, KeyManagerBuilder::further_algorithm);
        let events = self.events.clone();
        // This makes the first keys.
        let keys = Finish::new(async move {
            let keys = keys.build().await?;
            for event in keys.take_events() {
                events.record(&Event::Key(event));
            }
            Ok::<_, KeyManagerError>(keys)
        })
        .await?;
        let opaque = OpaqueFormat::new(handles.clone());
        let phantom =
            PhantomFormat::new(opaque.clone(), keys.clone()).max_life(self.lifetimes.phantom_jwt);
        let jwt = JwtFormat::new(keys.clone(), &self.url, Arc::clone(&self.clock));
        let (phantom, jwt) = self.algorithms.resources.iter().fold(
            (phantom, jwt),
            |(phantom, jwt), (resource, algorithm)| {
                let phantom = phantom.algorithm_for(resource, *algorithm);
                (phantom, jwt.algorithm_for(resource, *algorithm))
            },
        );
        // JWTs that were signed under a former URL are valid until they expire.
        let former_jwts = self.former_urls.iter().map(|url| -> Arc<dyn TokenFormat> {
            Arc::new(JwtFormat::new(keys.clone(), url, Arc::clone(&self.clock)))
        });
        let former_jwts: Vec<_> = former_jwts.collect();
        let jwt: Arc<dyn TokenFormat> =
            if self.stateless_jwt { Arc::new(jwt.stateless()) } else { Arc::new(jwt) };
        let opaque: Arc<dyn TokenFormat> = Arc::new(opaque);

        // JWTs come last: only they may be undecidable, if no keys can be loaded.
        let mut locators = vec![Arc::clone(&opaque)];
        locators.extend(self.formats.iter().map(|(_, format)| Arc::clone(format)));
        locators.push(Arc::clone(&jwt));
        locators.extend(former_jwts);
        let mut formats: HashMap<_, _> = self.formats.into_iter().collect();
        formats.insert(Format::Opaque, opaque);
        formats.insert(Format::Phantom, Arc::new(phantom.clone()));
        formats.insert(Format::Jwt, jwt);
        let fixed = self.fixed.iter().flat_map(|clients| clients.iter());
        let mut used = fixed.flat_map(Client::audiences).map(|(_, format)| format);
        if let Some(unknown) = used.find(|used| !formats.contains_key(used)) {
            let why = format!(
                "a client uses the token format `{0}`: register it with `format(\"{0}\", …)`",
                unknown.as_str()
            );
            return Err(BuildError::Setting { setting: "formats", why });
        }
        // A few heartbeats may be late.
        let fresh_for = 3 * self.heartbeat;
        #[cfg(feature = "metrics")]
        let store = crate::metrics::MeteredStore::over(store);
        let store = RememberingStore::new(store, Arc::clone(&self.clock), fresh_for);
        let store = Store::new(store);
        let maintained = AtomicU64::new(self.clock.now().as_millis());
        let clock_skew = keys.policy().clock_skew;
        let url: Arc<str> = self.url.into();
        let keys = Keys::new(keys);
        let foreign_keys = Arc::new(ForeignKeys::new(handles.clone(), store.clone()));
        let locator = TokenLocator {
            formats: locators,
            keys: keys.clone(),
            foreign_keys: Arc::clone(&foreign_keys),
        };
        let guard = self.guard;
        let minter = TokenMinter {
            issuer: Arc::clone(&url),
            formats,
            algorithms: self.algorithms,
            hook: self.hook.map(|hook| Hook { hook, guard, at_swap: self.hook_at_swap }),
        };
        Ok(Issuer {
            inner: Arc::new(Inner {
                url,
                former_urls: self.former_urls,
                foreign_keys,
                log_notifier: LogNotifier::new(store.clone()),
                reader: tokio::sync::Mutex::default(),
                log_damage: Damage::default(),
                key_damage: Damage::default(),
                log_watch: LogWatch::new(self.max_log_staleness, clock_skew),
                store,
                single_use: self.single_use,
                clients,
                handles,
                keys,
                phantom,
                minter,
                extension_grants: self.extension_grants,
                guard,
                locator,
                scope_mapper: self.scope_mapper,
                refusals: Refusals::new(self.events.clone(), Arc::clone(&self.clock)),
                clock: self.clock,
                random: self.random,
                events: self.events,
                lifetimes: self.lifetimes,
                heartbeat: self.heartbeat,
                housekeeping: self.housekeeping,
                maintained,
            }),
        })
    }

    /// Looks for what is wrong with the stores and the settings, for an operator. It writes nothing,
    /// and makes no keys. What is not set is not checked. A store that cannot be opened is a finding
    /// that your own code adds.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::sync::Arc;
    /// use cloakroom::Issuer;
    /// use cloakroom::memory::MemoryStore;
    ///
    /// let store = Arc::new(MemoryStore::new());
    /// let diagnosis = Issuer::builder("https://as.example").store(store).diagnose().await;
    /// // No server runs: nobody has written a heartbeat.
    /// assert!(!diagnosis.is_healthy());
    /// for finding in &diagnosis.findings {
    ///     println!("{}: {}", finding.check, finding.text);
    /// }
    /// # Ok(()) }
    /// ```
    pub async fn diagnose(self) -> Diagnosis {
        let examined = Examined {
            url: self.url,
            former: self.former_urls,
            store: self.store,
            key_store: self.key_store,
            handles: self.handles,
            sealer: self.sealer,
            clock: self.clock,
            policy: self.key_policy,
            lifetimes: self.lifetimes,
            heartbeat: self.heartbeat,
        };
        examined.diagnose().await
    }
}

impl fmt::Debug for IssuerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("IssuerBuilder")
            .field("url", &self.url)
            .field("store", &self.store)
            .field("lifetimes", &self.lifetimes)
            .field("key_policy", &self.key_policy)
            .finish_non_exhaustive()
    }
}
