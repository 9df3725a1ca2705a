//! Who knows what a token stands for: memory, or the authorization server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::TokenSecret;
use cloakroom_core::time::{Clock, SystemClock};

use crate::cache::revocation_check::{RevocationCheck, Revoked, revoked};
use crate::cache::{Answer, AnswerCache, CachedAnswer, CachedValue, Refused, TokenKey};
use crate::error::{InvalidToken, TokenError, UnavailableError};
use crate::freshness::{Freshness, WhenStale};
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::introspect::single_flight::{Flight, Joining, SingleFlight};
use crate::metrics::{Event, Of, count};
use crate::replica::RevocationReplica;
use cloakroom_core::time::ClockReading;

/// What the authorization server is asked about tokens, for one audience.
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

/// On what terms a request is answered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    /// When it began.
    pub(crate) now: ClockReading,
    pub(crate) freshness: Freshness,
    pub(crate) when_stale: WhenStale,
    pub(crate) replica: Option<&'a RevocationReplica>,
    /// What refuses junk before anyone is asked.
    pub(crate) handle_keys: Option<&'a GatewayKeys>,
}

impl Terms<'_> {
    fn check_revocation<V: CachedValue>(&self, answer: &Answer<V>) -> RevocationCheck {
        let facts = answer.value.facts();
        RevocationCheck::new(self.replica, facts, answer.complete, self.freshness, self.now)
    }
}

/// One question, and the memory of its answers. What is remembered for one audience is never told
/// to another: each has a source of its own.
#[derive(Debug)]
pub(crate) struct TokenSource<Q: ServerQuery> {
    query: Arc<Q>,
    answers: AnswerCache<Q::Value>,
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
            flights: SingleFlight::new(settings.limits),
            settings,
        })
    }

    /// The same question with other settings, and with nothing remembered.
    pub(crate) fn with(&self, settings: Settings) -> Arc<Self> {
        Self::of(Arc::clone(&self.query), settings)
    }

    /// Asks what a token stands for that memory says nothing of.
    ///
    /// # Errors
    ///
    /// If the token is refused, or if nobody can tell.
    pub(crate) async fn resolve(
        self: &Arc<Self>,
        key: TokenKey,
        token: &str,
        terms: Terms<'_>,
    ) -> Result<CachedAnswer<Q::Value>, TokenError> {
        // What is in memory is no junk: it was asked about.
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
        // Asked after the revocation is known, the server brings another one; who began before
        // that question is sent may have its answer, and nobody shares one that is on its way.
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

    /// Asks, or waits for the answer to a question of somebody else's that `freshness` lets it
    /// join.
    async fn ask(
        self: &Arc<Self>,
        key: TokenKey,
        token: &str,
        terms: &Terms<'_>,
        freshness: Freshness,
    ) -> Result<CachedAnswer<Q::Value>, TokenError> {
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
                    // A task of its own: a caller who goes away takes nothing from those who wait.
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
        // A failure reaches those who wait, and is never remembered.
        flight.complete(|| told.map(|result| self.answers.keep(key, sent, number, result)));
    }
}
