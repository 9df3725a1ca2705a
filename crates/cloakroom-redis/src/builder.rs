//! Settings, and how a store is opened.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::time::{Clock, SystemClock};
use redis::cluster::{ClusterClient, ClusterClientBuilder};
use redis::sentinel::{SentinelClient, SentinelClientBuilder, SentinelServerType};
use redis::{Client, ClientTlsConfig, RedisResult, TlsCertificates, TlsMode};
use tokio::sync::Mutex;

use crate::address::{Address, tcp_settings};
use crate::check_server;
use crate::cluster::Cluster;
use crate::connection::{Link, Reconnecting, SharedConnection, Source, Target, Way};
use crate::error::{OpenError, failed};
use crate::layout::Layout;
use crate::replicas::{self, Promise, Replicas};
use crate::store::{Inner, RedisStore};
use crate::wakeups::Wakeups;

/// Settings of a [`RedisStore`].
///
/// ```no_run
/// # async fn demo() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
/// use cloakroom_redis::RedisStore;
///
/// let store = RedisStore::builder("rediss://redis.internal")
///     .login("cloakroom", std::env::var("REDIS_PASSWORD")?)
///     .prefix("shop")
///     .response_timeout(Duration::from_millis(500))
///     .connect()
///     .await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
#[must_use = "call `connect` to open the store"]
pub struct RedisStoreBuilder {
    to: To,
    prefix: String,
    connect: Duration,
    response: Duration,
    login: Option<(String, String)>,
    sentinel_login: Option<(String, String)>,
    roots: Option<Vec<u8>>,
    certificate: Option<(Vec<u8>, Vec<u8>)>,
    allows_eviction: bool,
    promise: Option<Promise>,
    clock: Arc<dyn Clock>,
    random: Random,
}

#[derive(Clone)]
enum To {
    Url(String),
    Shared(SharedConnection),
}

impl fmt::Debug for RedisStoreBuilder {
    /// Without the URL, which may hold a password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisStoreBuilder").field("prefix", &self.prefix).finish_non_exhaustive()
    }
}

impl RedisStoreBuilder {
    pub(crate) fn url(url: &str) -> Self {
        Self::new(To::Url(url.to_owned()))
    }

    pub(crate) fn shared(connection: SharedConnection) -> Self {
        Self::new(To::Shared(connection))
    }

    fn new(to: To) -> Self {
        Self {
            to,
            prefix: "cloakroom".to_owned(),
            connect: Duration::from_secs(3),
            response: Duration::from_secs(2),
            login: None,
            sentinel_login: None,
            roots: None,
            certificate: None,
            allows_eviction: false,
            promise: None,
            clock: Arc::new(SystemClock::new()),
            random: Random::system(),
        }
    }

    /// The prefix of every key (`cloakroom` by default); the keys contain it in braces. Each app or
    /// tenant on a server needs a prefix of its own, without braces.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The ACL user and its password, instead of those in the URL.
    pub fn login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.login = Some((user.into(), password.into()));
        self
    }

    /// The user (usually `default`) and the password for the sentinels, which have users of their own.
    /// Without this, the store does not log in to them.
    pub fn sentinel_login(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.sentinel_login = Some((user.into(), password.into()));
        self
    }

    /// How long it may take to connect (3 s).
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect = timeout;
        self
    }

    /// How long an answer may take (2 s). A call that takes longer is an error, and the next call
    /// uses a new connection. This has no effect on a [`SharedConnection`].
    pub const fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response = timeout;
        self
    }

    /// The root certificates that the server's certificate is checked against, in PEM. By default,
    /// those of the operating system are used.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// The certificate chain and the key by which this client authenticates to the server, in PEM.
    pub fn client_certificate(
        mut self,
        chain: impl Into<Vec<u8>>,
        key: impl Into<Vec<u8>>,
    ) -> Self {
        self.certificate = Some((chain.into(), key.into()));
        self
    }

    /// Accepts a server that evicts keys when its memory is full, with a warning. Evicted data is
    /// lost: sessions, or the rules that refuse late logins.
    pub const fn allow_eviction(mut self) -> Self {
        self.allows_eviction = true;
        self
    }

    /// Makes each call wait (`WAIT`) until this many replicas have what must not be lost: revocations, steps of
    /// a chain, signing keys and check values. The grants and their steps are in one stream, so a grant is safe
    /// from its first step on. By default, no call waits.
    ///
    /// A call is an error (`StoreError::Unavailable`) if fewer replicas have the write within this time. The
    /// master has it then, and does not undo it: the call may be repeated. Choose a time below the time-outs of
    /// your endpoints; for as long as replicas are missing, each of these calls takes it all. With a number
    /// that is lower than that of the replicas, a failover may still promote one without the write.
    ///
    /// Other calls do not wait, not even for these: these writes have a connection of their own. So this is
    /// not for a [`SharedConnection`].
    pub const fn wait_for_replicas(mut self, replicas: u32, within: Duration) -> Self {
        self.promise = match replicas {
            0 => None,
            replicas => Some(Promise { replicas, timeout: within }),
        };
        self
    }

    /// The clock for the times that the contract leaves to the store: the first bound of the log, and the time
    /// at which the store revokes a grant that was created too late. The default is the system clock.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Connects, checks the server, and prepares the log.
    ///
    /// # Errors
    ///
    /// If a setting is invalid, or if the server cannot be reached, is too old, is a replica, or may evict keys.
    pub async fn connect(self) -> Result<RedisStore, OpenError> {
        let layout = Layout::new(&self.prefix)?;
        let (link, source) = self.link().await?;
        check_server::check(&link, self.allows_eviction).await?;
        let wakeups =
            source.map(|source| Wakeups::new(source, layout.log().log.clone(), self.connect));
        let store = RedisStore(Arc::new(Inner {
            link,
            layout,
            wakeups,
            clock: self.clock,
            random: self.random,
        }));
        store.open_log().await?;
        Ok(store)
    }

    async fn link(&self) -> Result<(Link, Option<Source>), OpenError> {
        let during = |error| OpenError::from(failed("connecting", error));
        let url = match &self.to {
            To::Shared(_) if self.promise.is_some() => return Err(OpenError::SharedConnection),
            To::Shared(shared) => return Ok((Link::new(shared.0.clone(), None), None)),
            To::Url(url) => url,
        };
        let mut address = Address::parse(url)?;
        if let Some((user, password)) = &self.login {
            address.log_in(Some(user), Some(password));
        }
        if address.is_tls() {
            provide_cryptography();
        }
        let target = match address {
            Address::Cluster(nodes) => {
                let client = self.cluster(nodes.clone(), Duration::ZERO).map_err(during)?;
                let connection =
                    Cluster::open(client.clone(), self.connect).await.map_err(during)?;
                let replicas = match self.promise {
                    Some(promise) => {
                        let patient = self.cluster(nodes, promise.timeout).map_err(during)?;
                        let own = Cluster::open(patient, self.connect).await.map_err(during)?;
                        Some(Arc::new(Replicas::new(replicas::Way::Cluster(own), promise)))
                    }
                    None => None,
                };
                let link = Link::new(Way::Cluster(connection), replicas);
                return Ok((link, Some(Source::Cluster(Box::new(client)))));
            }
            Address::Server(info) => Target::Server(
                match self.certificates() {
                    Some(certificates)
                        if matches!(info.addr(), redis::ConnectionAddr::TcpTls { .. }) =>
                    {
                        Client::build_with_tls(info, certificates)
                    }
                    _ => Client::open(info),
                }
                .map_err(during)?,
            ),
            Address::Sentinel { sentinels, service, login, is_tls } => {
                let client = self.sentinel(sentinels, &service, &login, is_tls).map_err(during)?;
                Target::Sentinel(Mutex::new(client))
            }
        };
        let own = Arc::new(Reconnecting::new(target, self.connect, self.response));
        let replicas = self.promise.map(|promise| {
            let own = Arc::new(own.beside(promise.timeout));
            Arc::new(Replicas::new(replicas::Way::Own(own), promise))
        });
        Ok((Link::new(Way::Own(Arc::clone(&own)), replicas), Some(Source::Target(own))))
    }

    fn certificates(&self) -> Option<TlsCertificates> {
        if self.roots.is_none() && self.certificate.is_none() {
            return None;
        }
        let client_tls = self
            .certificate
            .clone()
            .map(|(client_cert, client_key)| ClientTlsConfig { client_cert, client_key });
        Some(TlsCertificates { client_tls, root_cert: self.roots.clone() })
    }

    /// A client whose answers may take so much longer.
    fn cluster(
        &self,
        nodes: Vec<redis::ConnectionInfo>,
        longer: Duration,
    ) -> RedisResult<ClusterClient> {
        let login = nodes.first().map(|node| node.redis_settings().clone()).unwrap_or_default();
        let is_tls =
            nodes.iter().any(|node| matches!(node.addr(), redis::ConnectionAddr::TcpTls { .. }));
        let mut builder = ClusterClientBuilder::new(nodes)
            .tcp_settings(tcp_settings())
            // Some nodes may not answer: the others get time, too.
            .connection_timeout(self.connect / 2)
            .response_timeout(self.response + longer)
            // The driver sends again after MOVED, ASK and TRYAGAIN, and after a failover.
            .overall_response_timeout(Some(self.connect + self.response + longer));
        if let Some(user) = login.username() {
            builder = builder.username(user);
        }
        if let Some(password) = login.password() {
            builder = builder.password(password);
        }
        if is_tls {
            builder = builder.tls(TlsMode::Secure);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder.certs(certificates);
        }
        builder.build()
    }

    fn sentinel(
        &self,
        sentinels: Vec<redis::ConnectionAddr>,
        service: &str,
        login: &redis::RedisConnectionInfo,
        is_tls: bool,
    ) -> RedisResult<SentinelClient> {
        let mut builder =
            SentinelClientBuilder::new(sentinels, service, SentinelServerType::Master)?
                .set_client_to_redis_db(login.db())
                .set_client_to_redis_tcp_settings(tcp_settings());
        if let Some(user) = login.username() {
            builder = builder.set_client_to_redis_username(user);
        }
        if let Some(password) = login.password() {
            builder = builder.set_client_to_redis_password(password);
        }
        if let Some((user, password)) = &self.sentinel_login {
            builder = builder
                .set_client_to_sentinel_username(user)
                .set_client_to_sentinel_password(password);
        }
        if is_tls {
            builder = builder
                .set_client_to_redis_tls_mode(TlsMode::Secure)
                .set_client_to_sentinel_tls_mode(TlsMode::Secure);
        }
        if let Some(certificates) = self.certificates() {
            builder = builder
                .set_client_to_redis_certificates(certificates.clone())
                .set_client_to_sentinel_certificates(certificates);
        }
        builder.build()
    }
}

/// The driver uses the process's cryptography. If the app has chosen none, it is aws-lc-rs: with two of them
/// in its dependencies, rustls would not know which one to take, and panic.
fn provide_cryptography() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that somebody else has just chosen one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    }
}
