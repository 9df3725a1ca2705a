//! One introspection of a token at a time, which all waiting requests share.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::time::Clock;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

use crate::cache::TokenKey;
use crate::error::UnavailableError;
use crate::freshness::Freshness;
use crate::introspect::limits::{Allowance, IntrospectionLimits};
use cloakroom_core::time::ClockReading;

/// The requests to the authorization server that are in progress or wait. `R` is the result of one.
///
/// # Who may join
///
/// A caller may share the answer to a flight that
///
/// - is *not yet sent*: it will be sent after the caller's request began, so its answer takes account
///   of everything revoked before that. [`Freshness::every_request`] allows nothing else;
/// - or was *sent at most `d` ago*, for `within(d)`: its answer takes account of everything revoked
///   before it was sent, like an answer in memory of that age.
///
/// Whether and when a flight was sent is recorded and read under one lock, before it is sent. So a
/// flight in progress is never taken for unsent.
///
/// A fresh replica does not allow joining an older flight: such a request starts its own, at most
/// once in `d` for each token.
///
/// For one token, the flight that was started first is sent first. The state holds only the newest;
/// an older one continues for the callers that wait for it.
pub(crate) struct SingleFlight<R> {
    state: Mutex<State<R>>,
    turns: Arc<Semaphore>,
    limits: IntrospectionLimits,
}

struct State<R> {
    newest: HashMap<TokenKey, Entry<R>>,
    /// How many flights wait to be sent.
    waiting: usize,
    started: u64,
    allowance: Allowance,
    complained: Option<ClockReading>,
}

struct Entry<R> {
    number: u64,
    sent: Option<ClockReading>,
    result: watch::Receiver<Option<R>>,
}

/// How a caller gets its answer.
pub(crate) enum Joining<R, L> {
    /// The answer arrived in the meantime.
    Answered(L),
    /// The caller waits for a flight that another started.
    Joined(Waiter<R>),
    /// The caller waits for a flight that it has to run.
    Started(Waiter<R>, Flight<R>),
    /// The limits are reached.
    Full,
}

/// Waits for an answer. Dropping it does not affect others.
pub(crate) struct Waiter<R>(watch::Receiver<Option<R>>);

impl<R: Clone> Waiter<R> {
    /// The result of the flight, or an error if the flight was dropped.
    pub(crate) async fn result(mut self) -> Result<R, UnavailableError> {
        let result = match self.0.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            Err(_) => None,
        };
        result.ok_or_else(|| UnavailableError::other("the introspection was cancelled"))
    }
}

impl<R> SingleFlight<R> {
    pub(crate) fn new(limits: IntrospectionLimits) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                newest: HashMap::new(),
                waiting: 0,
                started: 0,
                allowance: Allowance::full(&limits),
                complained: None,
            }),
            turns: Arc::new(Semaphore::new(limits.at_once)),
            limits,
        })
    }

    /// Joins a question about the token, or starts one. `answered` looks once more for an answer in
    /// memory, where those that have arrived are put before their question leaves the state.
    pub(crate) fn join_or_start<L>(
        self: &Arc<Self>,
        key: TokenKey,
        freshness: Freshness,
        now: ClockReading,
        answered: impl FnOnce() -> Option<L>,
    ) -> Joining<R, L> {
        let mut state = self.state();
        if let Some(entry) = state.newest.get(&key)
            && entry.sent.is_none_or(|sent| freshness.allows(now.since(sent)))
        {
            return Joining::Joined(Waiter(entry.result.clone()));
        }
        if let Some(answered) = answered() {
            return Joining::Answered(answered);
        }
        if state.waiting >= self.limits.waiting || !state.allowance.take(&self.limits, now) {
            state.complain(now);
            return Joining::Full;
        }
        state.waiting += 1;
        state.started += 1;
        let number = state.started;
        let (sender, result) = watch::channel(None);
        let waiter = Waiter(result.clone());
        state.newest.insert(key, Entry { number, sent: None, result });
        drop(state);
        let flight =
            Flight { flights: Arc::clone(self), key, number, sender, waits: true, listed: true };
        Joining::Started(waiter, flight)
    }

    fn state(&self) -> MutexGuard<'_, State<R>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<R> State<R> {
    /// Removes this very question, if no newer one has taken its place.
    fn remove(&mut self, key: &TokenKey, number: u64) {
        if self.newest.get(key).is_some_and(|entry| entry.number == number) {
            self.newest.remove(key);
        }
    }

    /// At most once a second: a flood of requests must not flood the log as well.
    fn complain(&mut self, now: ClockReading) {
        const PAUSE: Duration = Duration::from_secs(1);
        if self.complained.is_none_or(|last| now.since(last) >= PAUSE) {
            self.complained = Some(now);
            tracing::warn!(
                waiting = self.waiting,
                "too many introspection requests; requests are refused"
            );
        }
    }
}

impl<R> fmt::Debug for SingleFlight<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("SingleFlight")
            .field("under_way", &state.newest.len())
            .field("waiting", &state.waiting)
            .field("limits", &self.limits)
            .finish()
    }
}

/// A request that is to be sent when its turn comes. If it is dropped, the callers that wait for it get an
/// outage.
pub(crate) struct Flight<R> {
    flights: Arc<SingleFlight<R>>,
    key: TokenKey,
    number: u64,
    sender: watch::Sender<Option<R>>,
    waits: bool,
    listed: bool,
}

impl<R> Flight<R> {
    pub(crate) const fn key(&self) -> TokenKey {
        self.key
    }

    /// Increases, and so orders the flights of one token as they are sent.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    /// Waits for its turn, and records that it is sent; the caller then sends it. `None` if every caller
    /// that waited has gone: then nothing needs to be sent.
    pub(crate) async fn start(
        &mut self,
        clock: &dyn Clock,
    ) -> Option<(ClockReading, OwnedSemaphorePermit)> {
        let turn = Arc::clone(&self.flights.turns).acquire_owned().await.ok()?;
        let mut state = self.flights.state();
        state.waiting -= 1;
        self.waits = false;
        // The state has one itself.
        if self.sender.receiver_count() <= 1 {
            state.remove(&self.key, self.number);
            self.listed = false;
            return None;
        }
        let sent = ClockReading::now(clock);
        if let Some(entry) = state.newest.get_mut(&self.key)
            && entry.number == self.number
        {
            entry.sent = Some(sent);
        }
        Some((sent, turn))
    }

    /// Hands the result to those who wait. `result` puts it into memory; that happens to one
    /// question at a time, and before the question leaves the state.
    pub(crate) fn complete(mut self, result: impl FnOnce() -> R) {
        let result = {
            let mut state = self.flights.state();
            let result = result();
            state.remove(&self.key, self.number);
            self.listed = false;
            result
        };
        self.sender.send_replace(Some(result));
    }
}

impl<R> Drop for Flight<R> {
    fn drop(&mut self) {
        if self.waits || self.listed {
            let mut state = self.flights.state();
            state.waiting -= usize::from(self.waits);
            state.remove(&self.key, self.number);
        }
    }
}

#[cfg(test)]
mod tests;
