//! The issuer: its state, which the steps of all requests share.

pub(crate) mod algorithms;
pub(crate) mod builder;
pub(crate) mod checks;
mod import_key;
pub(crate) mod lifetimes;
pub(crate) mod maintenance;
pub(crate) mod ownership;
pub(crate) mod signing_keys;
pub(crate) mod single_use;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloakroom_core::handle::{AccessHandleKeys, HandleKeys};
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{Lookup, SingleUseStore, StoreError};
use cloakroom_core::time::{Clock, UnixTime};
use cloakroom_core::{ClientId, GrantId, Random, Scope};
use cloakroom_jwt::{Algorithm, PhantomFormat, PublishedJwks};

use crate::client::Client;
use crate::client::directory::ClientDirectory;
use crate::error::{AuthenticationFailure, TokenError};
use crate::events::damage::Damage;
use crate::events::refusals::Refusals;
use crate::events::sink::Events;
use crate::flow::extension_grant::ExtensionGrants;
use crate::flow::hook::Guard;
use crate::flow::mint::TokenMinter;
use crate::introspection::locate::TokenLocator;
use crate::issuer::builder::IssuerBuilder;
use crate::issuer::lifetimes::Lifetimes;
use crate::issuer::ownership::ForeignKeys;
use crate::issuer::signing_keys::SigningKeys;
use crate::revocation::log_follower::LogReader;
use crate::revocation::log_notifier::LogNotifier;
use crate::revocation::log_watch::LogWatch;
use crate::revocation::retention::Retention;
use crate::write::{Keys, Store};

#[doc = include_str!("issuer.md")]
#[derive(Clone)]
pub struct Issuer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) url: Arc<str>,
    /// The issuer's URLs before it was renamed.
    pub(crate) former_urls: Vec<String>,
    pub(crate) store: Store,
    pub(crate) single_use: Option<Arc<dyn SingleUseStore>>,
    /// Tells when the revocation log may have grown.
    pub(crate) log_notifier: LogNotifier,
    /// How far the log was read. The task that reads it holds the lock.
    pub(crate) reader: tokio::sync::Mutex<LogReader>,
    /// Whether an entry of the log cannot be read.
    pub(crate) log_damage: Damage,
    /// Whether a signing key cannot be read.
    pub(crate) key_damage: Damage,
    /// The newest heartbeat in the log.
    pub(crate) log_watch: LogWatch,
    pub(crate) clients: Arc<dyn ClientDirectory>,
    pub(crate) handles: HandleKeys,
    pub(crate) foreign_keys: Arc<ForeignKeys>,
    pub(crate) keys: Keys,
    pub(crate) phantom: PhantomFormat,
    pub(crate) minter: TokenMinter,
    pub(crate) extension_grants: ExtensionGrants,
    /// Bounds the code of the app.
    pub(crate) guard: Guard,
    pub(crate) locator: TokenLocator,
    pub(crate) scope_mapper: ScopeMapper,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
    pub(crate) events: Events,
    /// Counts refused requests.
    pub(crate) refusals: Refusals,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) heartbeat: Duration,
    pub(crate) housekeeping: Duration,
    /// When maintenance last ran, or was last reported missing, in ms.
    pub(crate) maintained: AtomicU64,
}

/// Maps a token's scope to the scope of the JWT for one audience.
pub(crate) type ScopeMapper = Arc<dyn Fn(&str, &Scope) -> Scope + Send + Sync>;

impl Issuer {
    /// Builds an issuer with this URL: `https` (`http` only on a loopback address), without query,
    /// fragment or trailing slash (RFC 8414 §2).
    pub fn builder(url: impl Into<String>) -> IssuerBuilder {
        IssuerBuilder::new(url.into())
    }

    /// A preset for development: `http://127.0.0.1:9000`, everything in memory, new random keys.
    /// The tokens that it issues are invalid after a restart.
    #[cfg(feature = "memory")]
    pub fn dev() -> IssuerBuilder {
        IssuerBuilder::dev()
    }

    /// The issuer's URL (`iss`).
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The directory of registered clients.
    #[must_use]
    pub fn clients(&self) -> &dyn ClientDirectory {
        &*self.inner.clients
    }

    /// The keys that sign the issuer's JWTs, read-only.
    #[must_use]
    pub fn keys(&self) -> SigningKeys<'_> {
        let Inner { keys, url, clock, .. } = &*self.inner;
        SigningKeys { keys: keys.manager(), issuer: url, clock }
    }

    /// The keys that distinguish genuine access handles from forged ones, for a gateway in the same
    /// process.
    #[must_use]
    pub fn access_handle_keys(&self) -> &AccessHandleKeys {
        self.inner.handles.access_keys()
    }

    /// The algorithm of new signing keys.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.inner.minter.algorithms.main
    }

    /// The issuer's clock.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The JWK Set (RFC 7517 §5) with its `ETag` and `max-age`.
    ///
    /// # Errors
    ///
    /// If the key store fails and the keys in memory are too old to be published.
    pub async fn jwks(&self) -> Result<Arc<PublishedJwks>, TokenError> {
        Ok(self.inner.keys.jwks().await?)
    }

    /// The epoch of a login that begins now, for [`Grant::epoch`](crate::Grant::epoch). It is read
    /// from the store, because a grant with a given epoch cannot be created again with a newer one.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn epoch(&self) -> Result<Epoch, TokenError> {
        self.inner.check_store_is_current().await?;
        Ok(self.inner.store.epoch().await?)
    }
}

impl fmt::Debug for Issuer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("url", &self.inner.url)
            .field("store", &self.inner.store)
            .finish_non_exhaustive()
    }
}

impl Drop for Inner {
    /// Nothing that was noticed or done stays unreported.
    fn drop(&mut self) {
        self.report_pending();
    }
}

impl Inner {
    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The client with this identifier, which has authenticated.
    pub(crate) async fn client(&self, id: &ClientId) -> Result<Arc<Client>, TokenError> {
        // Its own grants are the sessions of browsers.
        if self.is_own_url(id.as_str()) {
            return Err(AuthenticationFailure::UnknownClient.into());
        }
        let client = self.clients.client(id).await?;
        client.ok_or(AuthenticationFailure::UnknownClient.into())
    }

    /// Counts a grant that is about to be made, and refuses it if its client has gone. Call it after the
    /// grant's epoch was read: a revocation that ends the client later covers the grant then, and one that
    /// ended it before is noticed here.
    pub(crate) async fn count_grant(&self, id: &ClientId) -> Result<(), TokenError> {
        // The directory does not know the client of its own grants.
        if self.is_own_url(id.as_str()) || self.clients.count_grant(id).await? {
            Ok(())
        } else {
            Err(AuthenticationFailure::UnknownClient.into())
        }
    }

    /// Whether the issuer has this URL, or had it before it was renamed.
    pub(crate) fn is_own_url(&self, url: &str) -> bool {
        url == &*self.url || self.former_urls.iter().any(|former| former == url)
    }

    /// The grant with this identifier, live or not; `None` for a tombstone.
    pub(crate) async fn find(&self, id: GrantId) -> Result<Option<Arc<GrantRecord>>, StoreError> {
        Ok(match self.store.find(id, None).await? {
            Lookup::Found(found) => Some(found.grant),
            Lookup::Tombstone | Lookup::Absent => None,
        })
    }

    /// The settings that decide how long revocations are remembered.
    pub(crate) fn retention(&self) -> Retention<'_> {
        Retention { lifetimes: &self.lifetimes, policy: self.keys.policy() }
    }

    pub(crate) fn clock_skew(&self) -> Duration {
        self.keys.policy().clock_skew
    }

    /// Logs an error once an hour if maintenance does not run. Without it, expired rows pile up and
    /// keys do not rotate.
    pub(crate) fn warn_if_unmaintained(&self, now: UnixTime) {
        const HOUR: u64 = 3_600_000;
        let last = self.maintained.load(Ordering::Relaxed);
        if now.as_millis().saturating_sub(last) >= HOUR
            && self
                .maintained
                .compare_exchange(last, now.as_millis(), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        {
            tracing::error!(
                "no maintenance for an hour: spawn `issuer.run_maintenance()`, or signing keys \
                 will not rotate and expired rows will stay"
            );
        }
    }
}
