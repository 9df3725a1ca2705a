//! Who knows what a token stands for: memory, or the authorization server.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom_core::TokenSecret;
use cloakroom_core::time::{Clock, SystemClock};

use crate::cache::{Answer, Answers, Entry, Refused, TokenKey, Value};
use crate::error::{InvalidToken, TokenError, UnavailableError};
use crate::freshness::{Freshness, RevocationStatus, WhenStale};
use crate::introspect::handle_keys::GatewayKeys;
use crate::introspect::limits::IntrospectionLimits;
use crate::introspect::single_flight::{Flight, Joining, SingleFlight};
use crate::metrics::{Event, Of, count};
use crate::replica::{RevocationReplica, TokenFacts, Verdict};
use cloakroom_core::time::ClockReading;

/// A question about tokens, for one audience.
#[async_trait]
pub(crate) trait Question: fmt::Debug + Send + Sync + 'static {
    /// What is remembered of a good token.
    type Value: Value;

    const OF: Of;

    /// Whether the answer is a token of its own, made for the question: then it may be revoked, or
    /// its key may be, while the token that was presented is good.
    const BRINGS_ANOTHER: bool;

    async fn ask(&self, token: &TokenSecret) -> Told<Self::Value>;
}

/// What the authorization server said.
pub(crate) type Told<V> = Result<Result<Answer<V>, Refused>, UnavailableError>;
/// The same, remembered.
type Outcome<V> = Result<Result<Entry<V>, Refused>, UnavailableError>;

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
    fn standing<V: Value>(&self, Answer { value, complete, .. }: &Answer<V>) -> RevocationStatus {
        RevocationStatus::of(self.replica, value.facts(), *complete, self.freshness, self.now)
    }

    fn denies(&self, facts: &TokenFacts) -> bool {
        self.replica.is_some_and(|replica| replica.verdict(facts) == Verdict::Denied)
    }
}

/// One question, and the memory of its answers. What is remembered for one audience is never told
/// to another: each has a source of its own.
#[derive(Debug)]
pub(crate) struct Source<Q: Question> {
    question: Arc<Q>,
    answers: Answers<Q::Value>,
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

/// What the rules make of an answer.
enum Denied {
    No,
    /// The token that was presented is revoked.
    Token,
    /// Only the one that came for it is.
    Answer,
}

impl<Q: Question> Source<Q> {
    pub(crate) fn new(question: Q, settings: Settings) -> Arc<Self> {
        Self::of(Arc::new(question), settings)
    }

    fn of(question: Arc<Q>, settings: Settings) -> Arc<Self> {
        Arc::new(Self {
            question,
            answers: Answers::new(settings.capacity),
            flights: SingleFlight::new(settings.limits),
            settings,
        })
    }

    /// The same question with other settings, and with nothing remembered.
    pub(crate) fn with(&self, settings: Settings) -> Arc<Self> {
        Self::of(Arc::clone(&self.question), settings)
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
    ) -> Result<Entry<Q::Value>, TokenError> {
        // What is in memory is no junk: it was asked about.
        if let Some(keys) = terms.handle_keys
            && let Err(error) = keys.check(token, terms.now, &self.settings.clock).await
        {
            count(Q::OF, Event::ForgedHandle);
            return Err(error);
        }
        let entry = self.ask(key, token, &terms, terms.freshness).await?;
        match self.denied(&key, &entry, &terms) {
            Denied::No => return Ok(entry),
            Denied::Token => return Err(InvalidToken::Revoked.into()),
            Denied::Answer => {}
        }
        // Asked after the revocation is known, the server brings another one; who began before
        // that question is sent may have its answer, and nobody shares one that is on its way.
        let entry = self.ask(key, token, &terms, Freshness::every_request()).await?;
        match self.denied(&key, &entry, &terms) {
            Denied::No => Ok(entry),
            Denied::Token => Err(InvalidToken::Revoked.into()),
            // The token is good: no reason to make its client throw it away.
            Denied::Answer => {
                Err(UnavailableError::Malformed("the JWT is revoked, or signed with a revoked key")
                    .into())
            }
        }
    }

    /// What memory says of a token, where that meets the terms. The replica is read each time.
    pub(crate) fn look_up(
        &self,
        key: &TokenKey,
        terms: &Terms<'_>,
    ) -> Option<Result<Entry<Q::Value>, TokenError>> {
        terms.freshness.bound()?;
        let Some(entry) = self.answers.get(key, terms.now.wall()) else {
            let Refused(why) = self.answers.refusal(key, terms.freshness, terms.now)?;
            count(Q::OF, Event::NegativeHit);
            return Some(Err(why.into()));
        };
        match terms.standing(&entry.answer) {
            RevocationStatus::Denied => match self.denied(key, &entry, terms) {
                Denied::Token => Some(Err(InvalidToken::Revoked.into())),
                Denied::Answer | Denied::No => None,
            },
            status
                if status == RevocationStatus::Fresh
                    || terms.freshness.allows(terms.now.since(entry.sent)) =>
            {
                count(Q::OF, Event::Hit);
                Some(Ok(entry))
            }
            RevocationStatus::Stale if terms.when_stale == WhenStale::Refuse => {
                count(Q::OF, Event::StaleRefusal);
                Some(Err(UnavailableError::Stale.into()))
            }
            _ => None,
        }
    }

    /// What the rules say of an answer by now. One that they deny is forgotten.
    ///
    /// An answer that a revocation crossed on its way is refused by this, like one in memory. What
    /// denies the presented token itself is final: whatever a second question brought, the token
    /// would be refused. Only where the rules deny no more than what came for the token, which
    /// another question may bring anew, it is worth asking.
    fn denied(&self, key: &TokenKey, entry: &Entry<Q::Value>, terms: &Terms<'_>) -> Denied {
        let facts = entry.answer.value.facts();
        if !terms.denies(facts) {
            return Denied::No;
        }
        if self.answers.forget(key, entry) {
            count(Q::OF, Event::RevokedEviction);
        }
        if Q::BRINGS_ANOTHER && !terms.denies(&TokenFacts { kid: None, jti: None, ..facts.clone() })
        {
            return Denied::Answer;
        }
        Denied::Token
    }

    /// Asks, or waits for the answer to a question of somebody else's that `freshness` lets it
    /// join.
    async fn ask(
        self: &Arc<Self>,
        key: TokenKey,
        token: &str,
        terms: &Terms<'_>,
        freshness: Freshness,
    ) -> Result<Entry<Q::Value>, TokenError> {
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
                    Ok(runtime) => drop(runtime.spawn(source.fly(flight, token))),
                    Err(_) => source.fly(flight, token).await,
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

    async fn fly(self: Arc<Self>, mut flight: Flight<Outcome<Q::Value>>, token: TokenSecret) {
        let Some((sent, _turn)) = flight.start(&*self.settings.clock).await else {
            return;
        };
        let told = self.question.ask(&token).await;
        drop(token);
        let (key, number) = (flight.key(), flight.number());
        // A failure reaches those who wait, and is never remembered.
        flight.complete(|| told.map(|result| self.answers.keep(key, sent, number, result)));
    }
}
