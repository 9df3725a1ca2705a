//! The state of a token: from the cache, or from the authorization server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::TokenSecret;
use cloakroom_core::time::{Clock, SystemClock};

use crate::cache::revocation_check::{RevocationCheck, Revoked, revoked};
use crate::cache::{
    Answer, AnswerCache, CachedAnswer, CachedValue, Refused, SenselessAnswers, TokenKey,
};
use crate::error::{InvalidToken, TokenError, UnavailableError};
use crate::freshness::{Freshness, WhenStale};
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::introspect::single_flight::{Flight, Joining, SingleFlight};
use crate::metrics::{Event, Of, count};
use crate::revocation_replica::RevocationReplica;
use cloakroom_core::time::ClockReading;

/// A request about a token to the authorization server, for one audience.
#[async_trait]
pub(crate) trait ServerQuery: fmt::Debug + Send + Sync + 'static {
    /// What is remembered of a good token.
    type Value: CachedValue;

    const OF: Of;

    async fn send(&self, token: &TokenSecret) -> ServerReply<Self::Value>;
}

/// What the authorization server said.
pub(crate) type ServerReply<V> = Result<Result<Answer<V>, Refused>, UnavailableError>;
/// The same, remembered.
type Outcome<V> = Result<Result<CachedAnswer<V>, Refused>, UnavailableError>;

/// What a request demands of an answer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// When it began.
    pub(crate) now: ClockReading,
    pub(crate) freshness: Freshness,
    pub(crate) when_stale: WhenStale,
    pub(crate) replica: Option<&'a RevocationReplica>,
    /// The keys that refuse junk without introspection.
    pub(crate) handle_keys: Option<&'a GatewayKeys>,
}

impl Terms<'_> {
    fn check_revocation<V: CachedValue>(&self, answer: &Answer<V>) -> RevocationCheck {
        let facts = answer.value.facts();
        RevocationCheck::new(self.replica, facts, answer.complete, self.freshness, self.now)
    }
}

/// One query, and the memory of its answers. Each audience has a source of its own, so that an answer
/// for one is never used for another.
#[derive(Debug)]
pub(crate) struct TokenSource<Q: ServerQuery> {
    query: Arc<Q>,
    answers: AnswerCache<Q::Value>,
    senseless: SenselessAnswers,
    flights: Arc<SingleFlight<Outcome<Q::Value>>>,
    settings: Settings,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) capacity: usize,
    pub(crate) limits: IntrospectionLimits,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            capacity: 0,
            limits: IntrospectionLimits::default(),
            clock: Arc::new(SystemClock::new()),
        }
    }
}

impl<Q: ServerQuery> TokenSource<Q> {
    pub(crate) fn new(query: Q, settings: Settings) -> Arc<Self> {
        Self::of(Arc::new(query), settings)
    }

    fn of(query: Arc<Q>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            query,
            answers: AnswerCache::new(settings.capacity),
            senseless: SenselessAnswers::default(),
            flights: SingleFlight::new(settings.limits),
            settings,
        })
    }

    /// The same question with other settings, and with nothing remembered.
    pub(crate) fn with(&self, settings: Settings) -> Arc<Self> {
        Self::of(Arc::clone(&self.query), settings)
    }

    /// Asks the authorization server about a token that memory does not decide about.
    ///
    /// # Errors
    ///
    /// If the token is refused, or if there is no answer.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        key: TokenKey,
        token: &str,
        terms: Terms<'_>,
    ) -> Result<CachedAnswer<Q::Value>, TokenError> {
        // Only for tokens that are not in memory: those are known not to be junk.
        if let Some(keys) = terms.handle_keys
            && let Err(error) = keys.check(token, terms.now, &self.settings.clock).await
        {
            count(Q::OF, Event::ForgedHandle);
            return Err(error);
        }
        let entry = self.ask(key, token, &terms, terms.freshness).await?;
        match self.revoked(&key, &entry, &terms) {
            Revoked::Nothing => return Ok(entry),
            Revoked::Token => return Err(InvalidToken::Revoked.into()),
            Revoked::Replacement => {}
        }
        // The revocation is known, so a new request brings another JWT. A request that is not yet sent
        // may be shared, one that is in progress may not.
        let entry = self.ask(key, token, &terms, Freshness::every_request()).await?;
        match self.revoked(&key, &entry, &terms) {
            Revoked::Nothing => Ok(entry),
            Revoked::Token => Err(InvalidToken::Revoked.into()),
            // The token is good: no reason to make its client throw it away.
            Revoked::Replacement => {
                Err(UnavailableError::Malformed("the JWT is revoked, or signed with a revoked key")
                    .into())
            }
        }
    }

    /// What memory says of a token, where that meets the terms. The replica is consulted
    /// each time.
    pub(crate) fn look_up(
        &self,
        key: &TokenKey,
        terms: &Terms<'_>,
    ) -> Option<Result<CachedAnswer<Q::Value>, TokenError>> {
        terms.freshness.bound()?;
        let Some(entry) = self.answers.get(key, terms.now.wall()) else {
            let Refused(why) = self.answers.refusal(key, terms.freshness, terms.now)?;
            count(Q::OF, Event::NegativeHit);
            return Some(Err(why.into()));
        };
        match terms.check_revocation(&entry.answer) {
            RevocationCheck::Revoked => match self.revoked(key, &entry, terms) {
                Revoked::Token => Some(Err(InvalidToken::Revoked.into())),
                Revoked::Replacement | Revoked::Nothing => None,
            },
            status
                if status == RevocationCheck::Passed
                    || terms.freshness.allows(terms.now.since(entry.sent)) =>
            {
                count(Q::OF, Event::Hit);
                Some(Ok(entry))
            }
            RevocationCheck::Stale if terms.when_stale == WhenStale::Refuse => {
                count(Q::OF, Event::StaleRefusal);
                Some(Err(UnavailableError::Stale.into()))
            }
            _ => None,
        }
    }

    fn revoked(
        &self,
        key: &TokenKey,
        entry: &CachedAnswer<Q::Value>,
        terms: &Terms<'_>,
    ) -> Revoked {
        let on_eviction = || count(Q::OF, Event::RevokedEviction);
        revoked(terms.replica, &self.answers, key, entry, on_eviction)
    }

    /// Asks the authorization server, or joins a flight that `freshness` allows.
    async fn ask(
        self: &Arc<Self>,
        key: TokenKey,
        token: &str,
        terms: &Terms<'_>,
        freshness: Freshness,
    ) -> Result<CachedAnswer<Q::Value>, TokenError> {
        if let Some(error) = self.senseless.get(&key, terms.now) {
            return Err(error.into());
        }
        let terms = Terms { freshness, ..*terms };
        let answered = || self.look_up(&key, &terms);
        let waiter = match self.flights.join_or_start(key, freshness, terms.now, answered) {
            Joining::Answered(decision) => return decision,
            Joining::Joined(waiter) => {
                count(Q::OF, Event::Coalesced);
                waiter
            }
            Joining::Started(waiter, flight) => {
                count(Q::OF, Event::Miss);
                let (source, token) = (Arc::clone(self), TokenSecret::new(token));
                match tokio::runtime::Handle::try_current() {
                    // In a task, so that a caller that is dropped does not affect the others.
                    Ok(runtime) => drop(runtime.spawn(source.run_flight(flight, token))),
                    Err(_) => source.run_flight(flight, token).await,
                }
                waiter
            }
            Joining::Full => {
                count(Q::OF, Event::Overload);
                return Err(UnavailableError::Overloaded.into());
            }
        };
        match waiter.result().await?? {
            Ok(entry) => Ok(entry),
            Err(Refused(why)) => Err(why.into()),
        }
    }

    async fn run_flight(
        self: Arc<Self>,
        mut flight: Flight<Outcome<Q::Value>>,
        token: TokenSecret,
    ) {
        let Some((sent, _turn)) = flight.start(&*self.settings.clock).await else {
            return;
        };
        let told = self.query.send(&token).await;
        drop(token);
        let (key, number) = (flight.key(), flight.number());
        if let Err(error) = &told {
            self.senseless.note(key, ClockReading::now(&*self.settings.clock), error);
        }
        // A failure reaches the callers that wait. None is remembered as an answer.
        flight.complete(|| told.map(|result| self.answers.keep(key, sent, number, result)));
    }
}
