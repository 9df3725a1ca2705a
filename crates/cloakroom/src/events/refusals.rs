//! Counts refusals, so that a million bad tokens do not become a million events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::time::{Clock, UnixTime};
use cloakroom_core::{ClientId, TokenKind};

use crate::error::{AuthenticationFailure, GrantRefusal, TokenError};
use crate::events::Event;
use crate::events::sink::Events;
use crate::flow::hook::Occasion;

/// How often a counter is reported.
const INTERVAL: Duration = Duration::from_secs(60);

/// The most counters that name a client. Beyond that, refusals are counted for all clients
/// together, with one counter for each reason.
const MAX_COUNTERS: usize = 1024;

/// The most characters of a claimed identifier that are kept.
#[cfg(feature = "http")]
const MAX_CLAIMED: usize = 64;

/// What was refused, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Refusal {
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only endpoints authenticate"))]
    Authentication {
        method: &'static str,
        reason: AuthenticationFailure,
    },
    Grant {
        credential: TokenKind,
        reason: GrantRefusal,
    },
    Token {
        occasion: Occasion,
    },
}

#[derive(Debug)]
pub(crate) struct Refusals {
    events: Events,
    clock: Arc<dyn Clock>,
    counters: Mutex<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    /// By client; `None` for all clients together.
    each: HashMap<(Option<ClientId>, Refusal), Counter>,
    /// When the counters were last checked, by the monotonic clock.
    swept: Duration,
}

#[derive(Debug)]
struct Counter {
    /// When its interval began, by the monotonic clock.
    began: Duration,
    /// The refusals since its last event.
    count: u64,
    /// The time of the first of them.
    since: UnixTime,
    /// The identifier that the newest caller claimed.
    claimed: Option<String>,
}

impl Refusals {
    pub(crate) fn new(events: Events, clock: Arc<dyn Clock>) -> Self {
        Self { events, clock, counters: Mutex::default() }
    }

    /// Counts the answer to a code or a refresh token if it is a refusal. Reuse has an event of its
    /// own.
    pub(crate) fn grant<T>(
        &self,
        client: &ClientId,
        credential: TokenKind,
        answer: &Result<T, TokenError>,
    ) {
        match answer {
            Err(TokenError::InvalidGrant(GrantRefusal::Reused | GrantRefusal::Regressed)) => {}
            Err(TokenError::InvalidGrant(reason)) => {
                let refusal = Refusal::Grant { credential, reason: *reason };
                self.note(Some(client.clone()), refusal, None);
            }
            Err(TokenError::Denied { .. }) => {
                let refusal = Refusal::Grant { credential, reason: GrantRefusal::Denied };
                self.note(Some(client.clone()), refusal, None);
            }
            _ => {}
        }
    }

    /// Counts the answer to a request for a token without a code or a refresh token, if the app has
    /// refused it.
    pub(crate) fn token<T>(
        &self,
        client: &ClientId,
        occasion: Occasion,
        answer: &Result<T, TokenError>,
    ) {
        if let Err(TokenError::Denied { .. }) = answer {
            self.note(Some(client.clone()), Refusal::Token { occasion }, None);
        }
    }

    /// Counts a client that failed to authenticate. `claimed` is the identifier that it claimed.
    #[cfg(feature = "http")]
    pub(crate) fn authentication(
        &self,
        claimed: Option<&str>,
        method: &'static str,
        reason: AuthenticationFailure,
    ) {
        use AuthenticationFailure::{Malformed, UnknownClient};
        // An attacker can invent any number of identifiers.
        let client = match reason {
            Malformed | UnknownClient => None,
            _ => claimed.and_then(|claimed| ClientId::new(claimed).ok()),
        };
        self.note(client, Refusal::Authentication { method, reason }, claimed.map(escaped));
    }

    fn note(&self, client: Option<ClientId>, refusal: Refusal, claimed: Option<String>) {
        let (now, since) = (self.clock.monotonic(), self.clock.now());
        let mut counters = self.counters();
        let mut events = Vec::new();
        if now.saturating_sub(counters.swept) >= INTERVAL {
            counters.sweep(now, &mut events);
        }
        let mut key = (client, refusal);
        if counters.each.len() >= MAX_COUNTERS && !counters.each.contains_key(&key) {
            key.0 = None;
        }
        if let Some(counter) = counters.each.get_mut(&key) {
            if counter.count == 0 {
                counter.since = since;
            }
            counter.count += 1;
            counter.claimed = claimed;
        } else {
            events.push(event(&key, claimed, 1, since));
            counters.each.insert(key, Counter { began: now, count: 0, since, claimed: None });
        }
        drop(counters);
        // A sink may call the issuer.
        events.iter().for_each(|event| self.events.record(event));
    }

    /// Reports the counters whose interval has ended.
    pub(crate) fn report_due(&self) {
        let mut events = Vec::new();
        self.counters().sweep(self.clock.monotonic(), &mut events);
        events.iter().for_each(|event| self.events.record(event));
    }

    fn counters(&self) -> std::sync::MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Counters {
    fn sweep(&mut self, now: Duration, events: &mut Vec<Event>) {
        self.swept = now;
        self.each.retain(|key, counter| {
            if now.saturating_sub(counter.began) < INTERVAL {
                return true;
            }
            // After an interval without refusals, the next one is reported at once again.
            let is_news = counter.count > 0;
            if is_news {
                events.push(counter.report(key));
                counter.began = now;
            }
            is_news
        });
    }
}

impl Counter {
    fn report(&mut self, key: &(Option<ClientId>, Refusal)) -> Event {
        event(key, self.claimed.take(), std::mem::take(&mut self.count), self.since)
    }
}

impl Drop for Refusals {
    fn drop(&mut self) {
        let counters = self.counters.get_mut().unwrap_or_else(PoisonError::into_inner);
        for (key, counter) in counters.each.iter_mut().filter(|(_, counter)| counter.count > 0) {
            self.events.record(&counter.report(key));
        }
    }
}

fn event(
    (client, refusal): &(Option<ClientId>, Refusal),
    claimed: Option<String>,
    count: u64,
    since: UnixTime,
) -> Event {
    let client = client.clone();
    match *refusal {
        Refusal::Authentication { method, reason } => {
            Event::AuthenticationFailed { client, claimed, method, reason, count, since }
        }
        Refusal::Grant { credential, reason } => {
            Event::GrantRefused { client, credential, reason, count, since }
        }
        Refusal::Token { occasion } => Event::TokenRefused { client, occasion, count, since },
    }
}

/// A claimed identifier, escaped for logs.
#[cfg(feature = "http")]
fn escaped(claimed: &str) -> String {
    claimed.chars().take(MAX_CLAIMED).flat_map(char::escape_default).collect()
}
