//! Refusals, counted: whoever sends a million bad tokens must not fill a disk with events.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::time::{Clock, UnixTime};
use cloakroom_core::{ClientId, TokenKind};

use crate::error::{AuthenticationFailure, GrantRefusal, TokenError};
use crate::events::{Event, Events};

/// How often a counter is reported.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many counters may be for one client; what comes beyond is counted for all clients together.
/// Those are as few as there are reasons.
const MAX_COUNTERS: usize = 1024;

/// The longest claimed name that is kept, in characters.
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
}

#[derive(Debug)]
pub(crate) struct Refusals {
    events: Events,
    clock: Arc<dyn Clock>,
    counters: Mutex<Counters>,
}

#[derive(Debug, Default)]
struct Counters {
    /// By client, if they are for one.
    each: HashMap<(Option<ClientId>, Refusal), Counter>,
    /// When all were last looked at, by the monotonic clock.
    swept: Duration,
}

#[derive(Debug)]
struct Counter {
    /// When its interval began, by the monotonic clock.
    began: Duration,
    /// How many there were since its last event.
    count: u64,
    /// When the first of these was.
    since: UnixTime,
    /// What the newest caller named itself.
    claimed: Option<String>,
}

impl Refusals {
    pub(crate) fn new(events: Events, clock: Arc<dyn Clock>) -> Self {
        Self { events, clock, counters: Mutex::default() }
    }

    /// A code or a refresh token was answered. Reuse has an event of its own.
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
            _ => {}
        }
    }

    /// A client did not authenticate. `claimed` is what it named itself.
    #[cfg(feature = "http")]
    pub(crate) fn authentication(
        &self,
        claimed: Option<&str>,
        method: &'static str,
        reason: AuthenticationFailure,
    ) {
        use AuthenticationFailure::{Malformed, UnknownClient};
        // Names that nobody has would be as many as an attacker likes.
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
            // Where it was quiet for a whole interval, the next refusal is news again.
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
    }
}

/// A name of which anybody may have written anything, fit for a log.
#[cfg(feature = "http")]
fn escaped(claimed: &str) -> String {
    claimed.chars().take(MAX_CLAIMED).flat_map(char::escape_default).collect()
}
