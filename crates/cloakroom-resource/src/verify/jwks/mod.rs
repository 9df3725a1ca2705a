//! The JWK Set of an authorization server, fetched and kept fresh.
//!
//! # A set that has ended
//!
//! It is fetched again, and requests wait for that. If the fetch fails, the set is still used for a
//! limited time (`stale_if_error`). While the last failure is younger than [`AWAY`], requests do
//! not wait: the set is fetched every [`RETRY`] in the background. A set without a usable key is
//! not an outage: the issuer has withdrawn its keys, and the old set is no longer used.
//!
//! # A key that is not in the set
//!
//! The set is fetched again, but anyone can invent key ids. So
//!
//! - a fetch that was sent after the request began decides: the key is there, or the token is refused.
//!   Requests that wait for a fetch share it;
//! - a key that a fetch has shown to be absent is remembered for 30 s, and its tokens are refused without
//!   a fetch. 4,096 of them are remembered;
//! - fetches for unknown keys are limited by a token bucket: three at once, and one more every 7.5
//!   to 12.5 s, at random. When it is empty, the verifier cannot tell whether the key exists: 503,
//!   not 401.
//!
//! So a flood of invented keys costs the issuer at most 8 fetches a minute for each verifier, after
//! the first three, and cannot hide a new key for longer than 12.5 s, because any of these fetches
//! finds it.

mod life;
mod unknown;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::time::Clock;
use cloakroom_jwt::{JwkSet, KeySet, VerifyError};
use http::header::{self, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use sha2::{Digest as _, Sha256};

use crate::client::http::{HttpClient, exchange};
use crate::client::json::jwk_set_reason;
use crate::client::single_fetch::{FetchPermit, SingleFetch, detached};
use crate::double_buffer::DoubleBuffer;
use crate::double_buffer::{from_numbers, nanos, to_numbers};
use crate::error::UnavailableError;
use cloakroom_core::time::ClockReading;
use life::life;
pub(crate) use unknown::Unknown;
use unknown::{Absent, Allowance};

/// The longest time that a set may serve after its end. A replica holds rules about signing keys for this
/// long after their end.
pub(crate) const MAX_STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// After a failure there is no new fetch for this long: all who waited share its outcome.
const PAUSE: Duration = Duration::from_secs(1);
/// The least time between two tries to refresh ahead.
const INTERVAL: Duration = Duration::from_secs(30);
/// How long after a failure the server counts as away: a set that has ended serves without waiting.
const AWAY: Duration = Duration::from_secs(30);
/// The time between two tries while it does.
const RETRY: Duration = Duration::from_secs(5);

const NO_KEY: &str = "the JWK Set has no usable key";

/// A JWK Set by URL. One fetch at a time, whoever asks; a fetch outlives the request that started
/// it.
#[derive(Debug)]
pub(crate) struct FetchedKeys {
    client: Arc<dyn HttpClient>,
    uri: Uri,
    shared: SingleFetch<State>,
    /// Of the set: when it was asked for, how long it counts, and its version; 0 before the first.
    newest: DoubleBuffer<4>,
}

#[derive(Debug, Default)]
struct State {
    loaded: Option<Loaded>,
    /// The issuer has published a set without a usable key since.
    withdrawn: bool,
    /// How many fetches were sent, and when the last one was.
    sent: u64,
    last_sent: Option<ClockReading>,
    /// The number of the last fetch that ended. A fetch whose future was dropped never ends.
    ended: u64,
    /// When that one ended, if it failed.
    failure: Option<(ClockReading, UnavailableError)>,
    /// Fetches for unknown keys.
    allowance: Allowance,
    absent: Absent,
    /// When it was last traced that there were too many unknown keys.
    complained: Option<ClockReading>,
    /// When refreshing ahead was last tried.
    ahead: Option<ClockReading>,
}

/// Keys that are fresh.
#[derive(Debug, Clone)]
pub(crate) struct CurrentKeys {
    pub(crate) keys: KeySet,
    /// Another number means other keys: a key that has left the set, or changed under its name,
    /// must not live on in what was verified under it.
    pub(crate) version: u64,
    /// Whether the set has ended, and serves because its server is away.
    pub(crate) has_ended: bool,
}

/// What a look for newer keys has brought.
#[derive(Debug)]
pub(crate) enum Newer {
    /// New keys, requested after the call began: a key that is not among them is absent.
    Keys(CurrentKeys, Unknown),
    /// New keys, which may have been requested before the call began.
    Perhaps(CurrentKeys),
    /// There are none for this token.
    None,
}

#[derive(Debug, Clone)]
struct Loaded {
    keys: CurrentKeys,
    /// Of the body that the keys were read from.
    digest: [u8; 32],
    /// When the request was sent: what the answer says is at least as old.
    sent: ClockReading,
    life: Duration,
    etag: Option<HeaderValue>,
}

/// What a fetch is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Why {
    /// The set has ended, or soon will.
    Ended,
    UnknownKey,
}

enum Freshness {
    Fresh(CurrentKeys),
    /// Fresh, but not for long.
    Ageing(CurrentKeys),
    Stale,
}

impl State {
    fn freshness(&self, now: ClockReading) -> Freshness {
        let Some(loaded) = &self.loaded else {
            return Freshness::Stale;
        };
        let age = now.since(loaded.sent);
        if age >= loaded.life {
            Freshness::Stale
        } else if age >= loaded.life / 5 * 4 {
            Freshness::Ageing(loaded.keys.clone())
        } else {
            Freshness::Fresh(loaded.keys.clone())
        }
    }

    /// The keys of a set that ended less than `limit` ago, after its last fetch failed.
    fn outlived(&self, now: ClockReading, limit: Duration) -> Option<CurrentKeys> {
        let loaded = self.loaded.as_ref()?;
        let is_late = now.since(loaded.sent) >= loaded.life.saturating_add(limit);
        (self.failure.is_some() && !self.withdrawn && !is_late)
            .then(|| CurrentKeys { has_ended: true, ..loaded.keys.clone() })
    }

    /// The same, if the server was away lately, after the end of the set; and whether it is time to try
    /// again.
    fn outlived_lately(&self, now: ClockReading, limit: Duration) -> Option<(CurrentKeys, bool)> {
        let keys = self.outlived(now, limit)?;
        let (loaded, (at, _)) = self.loaded.as_ref().zip(self.failure.as_ref())?;
        let lately = at.since(loaded.sent) >= loaded.life && now.since(*at) < AWAY;
        lately.then(|| (keys, now.since(*at) >= RETRY))
    }

    /// The last failure, if it is too young for another fetch.
    fn recent_failure(&self, now: ClockReading) -> Option<UnavailableError> {
        let (at, error) = self.failure.as_ref()?;
        (now.since(*at) < PAUSE).then(|| error.clone())
    }

    /// Whether the last fetch was given up on the way, not long ago.
    fn was_lost(&self, now: ClockReading) -> bool {
        self.sent != self.ended && self.last_sent.is_some_and(|sent| now.since(sent) < PAUSE)
    }

    /// Keys of another version than this.
    fn other_than(&self, version: u64) -> Option<CurrentKeys> {
        let keys = self.loaded.as_ref().map(|loaded| &loaded.keys)?;
        (keys.version != version).then(|| keys.clone())
    }

    /// Notes that the last fetch, which has ended, did not bring this key.
    fn note_absent(&mut self, unknown: Unknown) {
        if let Some(sent) = self.last_sent {
            self.absent.insert(unknown, sent);
        }
    }
}

impl FetchedKeys {
    pub(crate) fn new(client: Arc<dyn HttpClient>, uri: Uri) -> Arc<Self> {
        let (shared, newest) = (SingleFetch::default(), DoubleBuffer::new([0; 4]));
        Arc::new(Self { client, uri, shared, newest })
    }

    /// The version of the keys, if [`current`](Self::current) has them without waiting, and whether their
    /// set has ended. Takes no lock while they are fresh: it is asked for with every request.
    pub(crate) fn fresh_version(
        self: &Arc<Self>,
        clock: &Arc<dyn Clock>,
        stale_if_error: Duration,
        now: ClockReading,
    ) -> Option<(u64, bool)> {
        let [wall, monotonic, life, version] = self.newest.get();
        let age = now.since(from_numbers([wall, monotonic]));
        let life = Duration::from_nanos(life);
        if version == 0 {
            return None;
        }
        if age >= life {
            return self.outlived(clock, stale_if_error, now).map(|keys| (keys.version, true));
        }
        if age >= life / 5 * 4 {
            self.refresh_ahead(clock, now);
        }
        Some((version, false))
    }

    /// The keys, from a set that is fresh; if there is none, and none can be fetched, from one that ended
    /// less than `stale_if_error` ago. Refreshes ahead, in the background, when the set has lived four
    /// fifths of its life.
    ///
    /// # Errors
    ///
    /// If there is no such set.
    pub(crate) async fn current(
        self: &Arc<Self>,
        clock: &Arc<dyn Clock>,
        stale_if_error: Duration,
    ) -> Result<CurrentKeys, UnavailableError> {
        let now = ClockReading::now(&**clock);
        match self.shared.read(|state| state.freshness(now)) {
            Freshness::Fresh(keys) => return Ok(keys),
            Freshness::Ageing(keys) => {
                self.refresh_ahead(clock, now);
                return Ok(keys);
            }
            Freshness::Stale => {}
        }
        if let Some(keys) = self.outlived(clock, stale_if_error, now) {
            return Ok(keys);
        }
        let permit = self.shared.permit().await;
        // Others may have been quicker while this one waited.
        let now = ClockReading::now(&**clock);
        if let Freshness::Fresh(keys) | Freshness::Ageing(keys) =
            self.shared.read(|state| state.freshness(now))
        {
            return Ok(keys);
        }
        let result = match self.shared.read(|state| state.recent_failure(now)) {
            Some(error) => Err(error),
            None => self.fetch_detached(permit, clock, Why::Ended).await,
        };
        result.or_else(|error| {
            let now = ClockReading::now(&**clock);
            self.shared.read(|state| state.outlived(now, stale_if_error).ok_or(error))
        })
    }

    #[cold]
    fn outlived(
        self: &Arc<Self>,
        clock: &Arc<dyn Clock>,
        stale_if_error: Duration,
        now: ClockReading,
    ) -> Option<CurrentKeys> {
        let lately = |state: &State| state.outlived_lately(now, stale_if_error);
        let (keys, is_due) = self.shared.read(lately)?;
        if is_due && let Some((permit, runtime)) = self.shared.try_permit() {
            let (keys, clock) = (Arc::clone(self), Arc::clone(clock));
            runtime.spawn(async move { keys.fetch(permit, &*clock, Why::Ended).await });
        }
        Some(keys)
    }

    /// Keys that are newer than those of this version, for a token that those refused with `error`. The
    /// documentation of this module says which tokens cause a fetch.
    ///
    /// # Errors
    ///
    /// If that fetch fails, or none may be sent now: the key may well exist.
    pub(crate) async fn newer(
        self: &Arc<Self>,
        version: u64,
        error: &VerifyError,
        token: &str,
        clock: &Arc<dyn Clock>,
    ) -> Result<Newer, UnavailableError> {
        let now = ClockReading::now(&**clock);
        let (unknown, known, sent_before) = self.shared.read(|state| {
            let unknown = state.absent.name(error, token);
            let known = match state.other_than(version) {
                Some(keys) => Some(Newer::Perhaps(keys)),
                None => state.absent.contains(unknown, now).then_some(Newer::None),
            };
            (unknown, known, state.sent)
        });
        if let Some(known) = known {
            return Ok(known);
        }
        let permit = self.shared.permit().await;
        let now = ClockReading::now(&**clock);
        if let Some(outcome) = self.shared.write(|state| {
            let is_later = state.ended > sent_before;
            match (state.other_than(version), &state.failure) {
                (Some(keys), None) if is_later => return Some(Ok(Newer::Keys(keys, unknown))),
                (Some(keys), _) => return Some(Ok(Newer::Perhaps(keys))),
                (None, Some((_, error))) if is_later => return Some(Err(error.clone())),
                (None, None) if is_later => {
                    state.note_absent(unknown);
                    return Some(Ok(Newer::None));
                }
                _ => {}
            }
            if state.was_lost(now) {
                return Some(Err(UnavailableError::other("the JWK Set could not be read again")));
            }
            if let Some(error) = state.recent_failure(now) {
                return Some(Err(error));
            }
            if !state.allowance.take(now) {
                self.complain(state, now);
                return Some(Err(UnavailableError::SigningKey));
            }
            None
        }) {
            return outcome;
        }
        let keys = self.fetch_detached(permit, clock, Why::UnknownKey).await?;
        if keys.version == version {
            self.note_absent(unknown);
            return Ok(Newer::None);
        }
        Ok(Newer::Keys(keys, unknown))
    }

    /// Notes that the newest set does not contain this key.
    pub(crate) fn note_absent(&self, unknown: Unknown) {
        self.shared.write(|state| state.note_absent(unknown));
    }

    /// At most once in 30 s: a flood of tokens must not flood the log as well.
    fn complain(&self, state: &mut State, now: ClockReading) {
        if state.complained.is_none_or(|last| now.since(last) >= INTERVAL) {
            state.complained = Some(now);
            tracing::warn!(uri = %self.uri,
                "many tokens name keys that are not in the JWK Set; some cannot be checked yet");
        }
    }

    fn refresh_ahead(self: &Arc<Self>, clock: &Arc<dyn Clock>, now: ClockReading) {
        let Some((permit, runtime)) = self.shared.try_permit() else { return };
        let due = self.shared.write(|state| {
            let due = state.ahead.is_none_or(|last| now.since(last) >= INTERVAL);
            if due {
                state.ahead = Some(now);
            }
            due
        });
        // One that answered between the caller's look and the lock has made this needless.
        if due && matches!(self.shared.read(|state| state.freshness(now)), Freshness::Ageing(_)) {
            let (keys, clock) = (Arc::clone(self), Arc::clone(clock));
            runtime.spawn(async move { keys.fetch(permit, &*clock, Why::Ended).await });
        }
    }

    async fn fetch_detached(
        self: &Arc<Self>,
        permit: FetchPermit,
        clock: &Arc<dyn Clock>,
        why: Why,
    ) -> Result<CurrentKeys, UnavailableError> {
        let (keys, clock) = (Arc::clone(self), Arc::clone(clock));
        detached(async move { keys.fetch(permit, &*clock, why).await })
            .await
            .unwrap_or_else(|error| Err(UnavailableError::NoAnswer(Arc::new(error))))
    }

    /// One request; its outcome is written down before the permit is given back.
    async fn fetch(
        &self,
        _permit: FetchPermit,
        clock: &dyn Clock,
        why: Why,
    ) -> Result<CurrentKeys, UnavailableError> {
        let sent = ClockReading::now(clock);
        let (before, number) = self.shared.write(|state| {
            state.sent += 1;
            state.last_sent = Some(sent);
            (state.loaded.clone(), state.sent)
        });
        let result = match exchange(&*self.client, self.request(before.as_ref(), why)).await {
            Ok(response) => read(&response, before, sent),
            Err(error) => Err(error),
        };
        let ended = ClockReading::now(clock);
        self.shared.write(|state| {
            state.ended = number;
            match &result {
                Ok(loaded) => {
                    let [wall, monotonic] = to_numbers(loaded.sent);
                    self.newest.set([wall, monotonic, nanos(loaded.life), loaded.keys.version]);
                    state.loaded = Some(loaded.clone());
                    state.withdrawn = false;
                    state.failure = None;
                }
                Err(error) => {
                    tracing::warn!(uri = %self.uri, error = error as &dyn std::error::Error,
                        "the JWK Set could not be fetched");
                    state.withdrawn |= matches!(error, UnavailableError::Malformed(NO_KEY));
                    state.failure = Some((ended, error.clone()));
                }
            }
        });
        result.map(|loaded| loaded.keys)
    }

    fn request(&self, before: Option<&Loaded>, why: Why) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/jwk-set+json, application/json"),
        );
        if why == Why::UnknownKey {
            // RFC 9111 §5.2.1.4: a cache on the way asks the issuer. What it holds may be older than the key.
            headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        }
        if let Some(etag) = before.and_then(|loaded| loaded.etag.clone()) {
            headers.insert(header::IF_NONE_MATCH, etag);
        }
        request
    }
}

fn read(
    response: &Response<Bytes>,
    before: Option<Loaded>,
    sent: ClockReading,
) -> Result<Loaded, UnavailableError> {
    let headers = response.headers();
    match (response.status(), before) {
        (StatusCode::OK, before) => {
            let set = JwkSet::from_json(response.body()).map_err(|error| {
                UnavailableError::unreadable("it is not a JWK Set", jwk_set_reason(&error))
            })?;
            let digest = Sha256::digest(response.body()).into();
            let keys = match before {
                Some(before) if before.digest == digest => before.keys,
                before => CurrentKeys {
                    keys: KeySet::prepare(&set),
                    version: before.map_or(0, |before| before.keys.version) + 1,
                    has_ended: false,
                },
            };
            if keys.keys.is_empty() {
                // By such a set, every token would be forged.
                return Err(UnavailableError::Malformed(NO_KEY));
            }
            Ok(Loaded {
                keys,
                digest,
                sent,
                life: life(headers),
                etag: headers.get(header::ETAG).cloned(),
            })
        }
        (StatusCode::NOT_MODIFIED, Some(before)) if before.etag.is_some() => Ok(Loaded {
            sent,
            life: if headers.contains_key(header::CACHE_CONTROL) {
                life(headers)
            } else {
                before.life
            },
            ..before
        }),
        (status, _) => Err(UnavailableError::Status(status)),
    }
}
