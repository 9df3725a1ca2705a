//! The answers of the authorization server.

use std::fmt;
use std::time::Duration;

use cloakroom_core::Confirmation;
use cloakroom_core::time::UnixTime;

use super::{Bounded, Footprint, TokenKey, bounded};
use crate::error::InvalidToken;
use crate::freshness::Freshness;
use crate::revocation_replica::TokenFacts;
use cloakroom_core::time::ClockReading;

/// How many refusals are remembered. They are kept apart from good tokens, so that a flood of junk
/// cannot push those out.
const REFUSALS: usize = 10_000;
/// The longest time that a refusal is remembered, whatever the route's freshness: a token may become
/// active, for instance when its server adopts it.
const REFUSAL_LIFE: Duration = Duration::from_secs(10);

/// What is remembered of a good token. It must be cheap to clone: every request takes a clone.
pub(crate) trait CachedValue: Clone + fmt::Debug + Send + Sync + 'static {
    /// Whether it is a token of its own, made in exchange for the one presented: then it or its key
    /// may be revoked while the presented token is good.
    const IS_REPLACEMENT: bool;

    /// What a revocation may name.
    fn facts(&self) -> &TokenFacts;
}

/// What the authorization server said about an active token that is meant for this audience.
#[derive(Debug, Clone)]
pub(crate) struct Answer<V> {
    pub(crate) value: V,
    /// Whether rules can check it: see `is_complete`.
    pub(crate) complete: bool,
    pub(crate) not_before: Option<UnixTime>,
    pub(crate) expires_at: Option<UnixTime>,
    /// The key that the token is bound to.
    pub(crate) confirmation: Option<Confirmation>,
    /// About how many bytes it takes in memory.
    pub(crate) bytes: usize,
}

/// Why a token is refused because of what the authorization server said.
#[derive(Debug, Clone)]
pub(crate) struct Refused(pub(crate) InvalidToken);

/// An answer, and how old it is. What every request reads lies together in memory.
#[derive(Debug, Clone)]
pub(crate) struct CachedAnswer<V> {
    pub(crate) answer: Answer<V>,
    /// When it was requested: it takes account of every revocation acknowledged before that.
    pub(crate) sent: ClockReading,
    /// The number of its request: of two answers, the one that was requested later counts.
    number: u64,
}

impl<V> Footprint for CachedAnswer<V> {
    fn bytes(&self) -> usize {
        self.answer.bytes
    }
}

#[derive(Debug, Clone)]
struct Refusal {
    why: Refused,
    sent: ClockReading,
    number: u64,
}

impl Footprint for Refusal {
    fn bytes(&self) -> usize {
        size_of::<Self>()
    }
}

/// A bounded memory of answers. Whether an answer may be used for a request is decided elsewhere.
pub(crate) struct AnswerCache<V> {
    /// `None` remembers nothing.
    memory: Option<Memory<V>>,
}

struct Memory<V> {
    entries: Bounded<CachedAnswer<V>>,
    refusals: Bounded<Refusal>,
}

impl<V: CachedValue> AnswerCache<V> {
    /// Remembers this many answers of at most 1 KiB; zero remembers none.
    pub(crate) fn new(capacity: usize) -> Self {
        let memory = (capacity > 0)
            .then(|| Memory { entries: bounded(capacity), refusals: bounded(REFUSALS) });
        Self { memory }
    }

    /// The answer for a token, unless it has expired. An answer without `exp` is kept: its age decides
    /// whether it may be used.
    pub(crate) fn get(&self, key: &TokenKey, now: UnixTime) -> Option<CachedAnswer<V>> {
        let memory = self.memory.as_ref()?;
        let entry = memory.entries.get(key)?;
        if entry.answer.expires_at.is_some_and(|end| end <= now) {
            self.forget(key, &entry);
            return None;
        }
        Some(entry)
    }

    /// Why the token was refused, if that was lately enough for this freshness.
    pub(crate) fn refusal(
        &self,
        key: &TokenKey,
        freshness: Freshness,
        now: ClockReading,
    ) -> Option<Refused> {
        let refusal = self.memory.as_ref()?.refusals.get(key)?;
        let age = now.since(refusal.sent);
        (age <= REFUSAL_LIFE && freshness.allows(age)).then_some(refusal.why)
    }

    /// Remembers an answer, unless what is remembered was requested later. The caller must ensure that
    /// calls for one token do not overlap.
    pub(crate) fn keep(
        &self,
        key: TokenKey,
        sent: ClockReading,
        number: u64,
        result: Result<Answer<V>, Refused>,
    ) -> Result<CachedAnswer<V>, Refused> {
        let result = result.map(|answer| CachedAnswer { answer, sent, number });
        let Some(memory) = &self.memory else {
            return result;
        };
        let newest = memory.entries.peek(&key).map(|entry| entry.number);
        let newest = newest.max(memory.refusals.peek(&key).map(|refusal| refusal.number));
        if newest.is_some_and(|newest| newest > number) {
            return result;
        }
        match &result {
            Ok(entry) => {
                memory.refusals.remove(&key);
                memory.entries.insert(key, entry.clone());
            }
            Err(why) => {
                memory.entries.remove(&key);
                memory.refusals.insert(key, Refusal { why: why.clone(), sent, number });
            }
        }
        result
    }

    /// Removes this answer; returns whether it was there.
    pub(crate) fn forget(&self, key: &TokenKey, entry: &CachedAnswer<V>) -> bool {
        self.memory.as_ref().is_some_and(|memory| {
            memory.entries.remove_if(key, |found| found.number == entry.number).is_some()
        })
    }
}

impl<V: CachedValue> fmt::Debug for AnswerCache<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |of: fn(&Memory<V>) -> usize| self.memory.as_ref().map_or(0, of);
        f.debug_struct("AnswerCache")
            .field("entries", &count(|memory| memory.entries.len()))
            .field("refusals", &count(|memory| memory.refusals.len()))
            .finish()
    }
}

#[cfg(test)]
mod tests;
