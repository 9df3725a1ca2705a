//! The engine.

pub(crate) mod builder;
pub(crate) mod lifetimes;
pub(crate) mod maintenance;
pub(crate) mod ownership;
pub(crate) mod single_use;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cloakroom_core::format::{FormatError, MintContext, Persisted, TokenFormat, TokenTerms};
use cloakroom_core::handle::{AccessHandleKeys, HandleKeys};
use cloakroom_core::record::{GrantRecord, TokenRecord, token_type};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{Lookup, SingleUseStore, StoreError};
use cloakroom_core::time::{Clock, UnixTime};
use cloakroom_core::{Audience, ClientId, Confirmation, GrantId, Random, Scope, TokenSecret};
use cloakroom_jwt::{Algorithm, KeyManager, PhantomFormat, PublishedJwks, Verifier};

use crate::client::Client;
use crate::client::directory::ClientDirectory;
use crate::client::registration::{ClientLifetimes, Format};
use crate::error::{AuthenticationFailure, TokenError};
use crate::events::Events;
use crate::events::refusals::Refusals;
use crate::flow::request::TokenResponse;
use crate::issuer::builder::IssuerBuilder;
use crate::issuer::lifetimes::Lifetimes;
use crate::issuer::ownership::ForeignKeys;
use crate::revocation::follow::LogReader;
use crate::revocation::log_notifier::LogNotifier;
use crate::revocation::log_watch::LogWatch;
use crate::write::{Keys, Store};

#[doc = include_str!("issuer.md")]
#[derive(Clone)]
pub struct Issuer {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) url: Arc<str>,
    /// What it was called before.
    pub(crate) former_urls: Vec<String>,
    pub(crate) store: Store,
    pub(crate) single_use: Option<Arc<dyn SingleUseStore>>,
    /// When its revocation log grows.
    pub(crate) growth: LogNotifier,
    /// How far it was read. Held by whoever reads it.
    pub(crate) reader: tokio::sync::Mutex<LogReader>,
    /// What is heard of it.
    pub(crate) log_watch: LogWatch,
    pub(crate) clients: Arc<dyn ClientDirectory>,
    pub(crate) handles: HandleKeys,
    pub(crate) foreign_keys: ForeignKeys,
    pub(crate) keys: Keys,
    /// With which new signing keys sign.
    pub(crate) algorithm: Algorithm,
    pub(crate) phantom: PhantomFormat,
    pub(crate) formats: HashMap<Format, Arc<dyn TokenFormat>>,
    /// The formats in the order in which a presented token is tried.
    pub(crate) locators: Vec<Arc<dyn TokenFormat>>,
    pub(crate) scope_mapper: ScopeMapper,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
    pub(crate) events: Events,
    /// What is refused, counted.
    pub(crate) refusals: Refusals,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) heartbeat: Duration,
    pub(crate) housekeeping: Duration,
    /// When maintenance last ran, or was last missed, in ms.
    pub(crate) maintained: AtomicU64,
}

/// Maps a token's scope to the scope of the JWT for one audience.
pub(crate) type ScopeMapper = Arc<dyn Fn(&str, &Scope) -> Scope + Send + Sync>;

impl Issuer {
    /// An issuer of this URL: `https` (`http` on a loopback address alone), without query, fragment
    /// or trailing slash (RFC 8414 §2).
    pub fn builder(url: impl Into<String>) -> IssuerBuilder {
        IssuerBuilder::new(url.into())
    }

    /// A preset for trying things out: `http://127.0.0.1:9000`, everything in memory, fresh random
    /// keys. Whatever it issues is worthless after a restart.
    #[cfg(feature = "memory")]
    pub fn dev() -> IssuerBuilder {
        IssuerBuilder::dev()
    }

    /// The issuer's URL (`iss`).
    #[must_use]
    pub fn url(&self) -> &str {
        &self.inner.url
    }

    /// The clients.
    #[must_use]
    pub fn clients(&self) -> &dyn ClientDirectory {
        &*self.inner.clients
    }

    /// The keys that sign its JWTs, to be read. Change them with [`Issuer::rotate_keys`],
    /// [`Issuer::compromise_key`] and [`Issuer::maintain`]: what the key manager is told directly is
    /// no event, and a key that is compromised there has no rule.
    #[must_use]
    pub fn keys(&self) -> &KeyManager {
        self.inner.keys.for_app()
    }

    /// What tells its access handles from junk, for a gateway in the same process.
    #[must_use]
    pub fn access_handle_keys(&self) -> &AccessHandleKeys {
        self.inner.handles.access_keys()
    }

    /// The algorithm of new signing keys.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.inner.algorithm
    }

    /// The clock that it goes by.
    #[must_use]
    pub fn clock(&self) -> &Arc<dyn Clock> {
        &self.inner.clock
    }

    /// The JWK Set (RFC 7517 §5) with its `ETag` and `max-age`.
    ///
    /// # Errors
    ///
    /// If the key store fails and what is in memory is too old to be served.
    pub async fn jwks(&self) -> Result<Arc<PublishedJwks>, TokenError> {
        Ok(self.inner.keys.jwks().await?)
    }

    /// The epoch of a login that begins now, for [`Grant::epoch`](crate::Grant::epoch). The store is
    /// asked: a login that carries its epoch has no second try.
    ///
    /// # Errors
    ///
    /// If the store fails.
    pub async fn epoch(&self) -> Result<Epoch, TokenError> {
        self.inner.check_log_watch().await?;
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

/// A new access token, ready for the response and for the store.
pub(crate) struct NewToken {
    pub(crate) secret: TokenSecret,
    pub(crate) expires_in: u64,
    pub(crate) token_type: &'static str,
    pub(crate) scope: Scope,
    /// What the store keeps of it.
    pub(crate) record: Option<TokenRecord>,
    /// Whether the store must hold its grant.
    pub(crate) needs_grant: bool,
}

impl NewToken {
    /// The response to the client.
    pub(crate) fn respond(
        self,
        grant: GrantId,
        refresh_token: Option<TokenSecret>,
    ) -> TokenResponse {
        TokenResponse {
            access_token: self.secret,
            token_type: self.token_type,
            expires_in: self.expires_in,
            refresh_token,
            scope: self.scope,
            grant,
        }
    }
}

impl Inner {
    pub(crate) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    /// The client of this identifier, which has authenticated before.
    pub(crate) async fn client(&self, id: &ClientId) -> Result<Arc<Client>, TokenError> {
        let client = self.clients.client(id).await?;
        client.ok_or(AuthenticationFailure::UnknownClient.into())
    }

    /// The epoch of a grant whose creation begins now: from the log, if that is followed.
    pub(crate) async fn epoch(&self) -> Result<Epoch, TokenError> {
        match self.store.memory().epoch_from_log() {
            Some(epoch) => Ok(epoch),
            None => Ok(self.store.epoch().await?),
        }
    }

    /// The grant of this identifier, live or not. A tombstone is none.
    pub(crate) async fn find(&self, id: GrantId) -> Result<Option<Arc<GrantRecord>>, StoreError> {
        Ok(match self.store.find(id, None).await? {
            Lookup::Found(found) => Some(found.grant),
            Lookup::Tombstone | Lookup::Absent => None,
        })
    }

    /// Makes an access token for a grant, in the format of its audience, bound to the key that
    /// this request proves. Nothing is written.
    pub(crate) async fn mint(
        &self,
        client: &Client,
        grant: &GrantRecord,
        scope: Scope,
        audience: Audience,
        proved: Option<&Confirmation>,
        now: UnixTime,
    ) -> Result<NewToken, TokenError> {
        let life = self.lifetimes_of(client).access_token;
        let expires_at = (now + life).min(grant.expires_at);
        let mut terms = TokenTerms::new(now, expires_at, scope, audience);
        terms.confirmation = proved.cloned();
        let format = self.format_of(client, &terms.audience)?;
        let minted = format.mint(MintContext::new(&self.url, grant, &terms, &self.random)).await?;
        let expires_in = terms.expires_at.as_secs().saturating_sub(now.as_secs());
        let token_type = token_type(terms.confirmation.as_ref());
        let scope = terms.scope.clone();
        let (record, needs_grant) = match minted.kept {
            Persisted::Token(digest) => (Some(terms.record(grant.id, digest)), true),
            Persisted::Nothing => (None, false),
            _ => (None, true),
        };
        Ok(NewToken { secret: minted.token, expires_in, token_type, scope, record, needs_grant })
    }

    /// The one format that the client has for all of these resources.
    fn format_of(
        &self,
        client: &Client,
        audience: &Audience,
    ) -> Result<&Arc<dyn TokenFormat>, TokenError> {
        let mut formats = audience.iter().map(|resource| client.format_for(resource));
        let first = formats
            .next()
            .flatten()
            .ok_or(TokenError::InvalidTarget("the client may not have tokens for this resource"))?;
        if formats.any(|format| format != Some(first)) {
            return Err(TokenError::InvalidTarget(
                "the resources have tokens of different formats: ask for one at a time",
            ));
        }
        self.formats.get(first).ok_or_else(|| {
            tracing::error!(format = first.as_str(), "a client's token format is not registered");
            TokenError::Format(FormatError::Other("the token format is not registered".into()))
        })
    }

    /// A client's lifetimes: its own, but never beyond the issuer's, from which the ends of keys
    /// and rules are computed.
    pub(crate) fn lifetimes_of(&self, client: &Client) -> Lifetimes {
        let ClientLifetimes { access_token, refresh_idle, grant } = client.lifetimes;
        let at_most = |own: Option<Duration>, most: Duration| own.map_or(most, |own| own.min(most));
        Lifetimes {
            access_token: at_most(access_token, self.lifetimes.access_token),
            refresh_idle: at_most(refresh_idle, self.lifetimes.refresh_idle),
            grant: at_most(grant, self.lifetimes.grant),
            ..self.lifetimes
        }
    }

    /// The longest that any token lives after its grant is revoked, as verifiers see it.
    pub(crate) fn token_horizon(&self) -> Duration {
        // A foreign token may come from a clock that is ahead.
        let adopted = self.lifetimes.adopted_token + self.clock_skew();
        let life = self.keys.policy().max_token_life.max(adopted);
        life + self.token_tail()
    }

    /// How long after its end some verifier may still take a token.
    pub(crate) fn token_tail(&self) -> Duration {
        let policy = self.keys.policy();
        policy.clock_skew + policy.leeway.max(Verifier::MAX_LEEWAY)
    }

    pub(crate) fn clock_skew(&self) -> Duration {
        self.keys.policy().clock_skew
    }

    /// Says so, once an hour, if nobody runs maintenance: expired rows then pile up, and keys do
    /// not rotate.
    pub(crate) fn notice_missing_maintenance(&self, now: UnixTime) {
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
