//! The JWK Set of an authorization server, fetched and kept fresh.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cloakroom_core::time::Clock;
use cloakroom_jwt::{JwkSet, KeySet};
use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Request, Response, StatusCode, Uri};
use sha2::{Digest as _, Sha256};

use crate::client::http::{HttpClient, exchange};
use crate::client::single_fetch::{FetchPermit, SingleFetch, detached};
use crate::double_buffer::DoubleBuffer;
use crate::double_buffer::{from_numbers, nanos, to_numbers};
use crate::error::UnavailableError;
use cloakroom_core::time::ClockReading;

/// The life of a set that does not name one.
const DEFAULT_LIFE: Duration = Duration::from_secs(60 * 60);
/// Bounds of the life of a set.
const LIFE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(24 * 60 * 60));
/// After a failure there is no new fetch for this long: all who waited share its outcome.
const PAUSE: Duration = Duration::from_secs(1);
/// The least time between two fetches for unknown keys, and between two tries to refresh ahead.
const INTERVAL: Duration = Duration::from_secs(30);

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
    /// The last fetch, if it failed.
    failure: Option<(ClockReading, UnavailableError)>,
    /// When the last fetch for an unknown key was sent, and what came of it.
    unknown: Option<(ClockReading, Outcome)>,
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

#[derive(Debug, Clone)]
enum Outcome {
    /// It never ended: its future was dropped.
    Lost,
    Answered,
    Failed(UnavailableError),
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
}

impl FetchedKeys {
    pub(crate) fn new(client: Arc<dyn HttpClient>, uri: Uri) -> Arc<Self> {
        let (shared, newest) = (SingleFetch::default(), DoubleBuffer::new([0; 4]));
        Arc::new(Self { client, uri, shared, newest })
    }

    /// The version of the keys, if they are fresh; refreshes ahead like [`current`](Self::current).
    /// Takes no lock: it is asked for with every request.
    pub(crate) fn fresh_version(
        self: &Arc<Self>,
        clock: &Arc<dyn Clock>,
        now: ClockReading,
    ) -> Option<u64> {
        let [wall, monotonic, life, version] = self.newest.get();
        let age = now.since(from_numbers([wall, monotonic]));
        let life = Duration::from_nanos(life);
        if version == 0 || age >= life {
            return None;
        }
        if age >= life / 5 * 4 {
            self.refresh_ahead(clock, now);
        }
        Some(version)
    }

    /// The keys, from a set that is fresh. Refreshes ahead, in the background, when the set has
    /// lived four fifths of its life.
    ///
    /// # Errors
    ///
    /// If there is no fresh set and none can be fetched.
    pub(crate) async fn current(
        self: &Arc<Self>,
        clock: &Arc<dyn Clock>,
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
        let permit = self.shared.permit().await;
        // Others may have been quicker while this one waited.
        let now = ClockReading::now(&**clock);
        if let Freshness::Fresh(keys) | Freshness::Ageing(keys) =
            self.shared.read(|state| state.freshness(now))
        {
            return Ok(keys);
        }
        if let Some(error) = self.shared.read(|state| match &state.failure {
            Some((at, error)) if now.since(*at) < PAUSE => Some(error.clone()),
            _ => None,
        }) {
            return Err(error);
        }
        self.fetch_detached(permit, clock).await
    }

    /// Keys that are newer than those of this version, if a fetch brings any; `None` if not. At most
    /// one fetch per interval for all callers and all tokens: anyone can invent key names.
    ///
    /// # Errors
    ///
    /// If that fetch fails, or failed within the interval: the key may well exist.
    pub(crate) async fn newer(
        self: &Arc<Self>,
        version: u64,
        clock: &Arc<dyn Clock>,
    ) -> Result<Option<CurrentKeys>, UnavailableError> {
        let permit = self.shared.permit().await;
        let now = ClockReading::now(&**clock);
        if let Some(keys) = self.shared.read(|state| {
            let keys = state.loaded.as_ref().map(|loaded| &loaded.keys)?;
            (keys.version != version).then(|| keys.clone())
        }) {
            return Ok(Some(keys));
        }
        if let Some(outcome) = self.shared.read(|state| match &state.unknown {
            Some((sent, outcome)) if now.since(*sent) < INTERVAL => Some(outcome.clone()),
            _ => None,
        }) {
            return match outcome {
                Outcome::Answered => Ok(None),
                Outcome::Failed(error) => Err(error),
                Outcome::Lost => {
                    Err(UnavailableError::other("the JWK Set could not be read again"))
                }
            };
        }
        self.shared.write(|state| state.unknown = Some((now, Outcome::Lost)));
        let result = self.fetch_detached(permit, clock).await;
        result.map(|keys| (keys.version != version).then_some(keys))
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
            runtime.spawn(async move { keys.fetch(permit, &*clock).await });
        }
    }

    async fn fetch_detached(
        self: &Arc<Self>,
        permit: FetchPermit,
        clock: &Arc<dyn Clock>,
    ) -> Result<CurrentKeys, UnavailableError> {
        let (keys, clock) = (Arc::clone(self), Arc::clone(clock));
        detached(async move { keys.fetch(permit, &*clock).await })
            .await
            .unwrap_or_else(|error| Err(UnavailableError::NoAnswer(Arc::new(error))))
    }

    /// One request; its outcome is written down before the permit is given back.
    async fn fetch(
        &self,
        _permit: FetchPermit,
        clock: &dyn Clock,
    ) -> Result<CurrentKeys, UnavailableError> {
        let before = self.shared.read(|state| state.loaded.clone());
        let sent = ClockReading::now(clock);
        let result = match exchange(&*self.client, self.request(before.as_ref())).await {
            Ok(response) => read(&response, before, sent),
            Err(error) => Err(error),
        };
        let ended = ClockReading::now(clock);
        self.shared.write(|state| {
            match &result {
                Ok(loaded) => {
                    let [wall, monotonic] = to_numbers(loaded.sent);
                    self.newest.set([wall, monotonic, nanos(loaded.life), loaded.keys.version]);
                    state.loaded = Some(loaded.clone());
                    state.failure = None;
                    // Whatever a fetch for an unknown key missed, this set is newer.
                    if let Some((_, outcome)) = &mut state.unknown {
                        *outcome = Outcome::Answered;
                    }
                }
                Err(error) => {
                    tracing::warn!(uri = %self.uri, error = error as &dyn std::error::Error,
                        "the JWK Set could not be fetched");
                    state.failure = Some((ended, error.clone()));
                    if let Some((_, outcome @ Outcome::Lost)) = &mut state.unknown {
                        *outcome = Outcome::Failed(error.clone());
                    }
                }
            }
        });
        result.map(|loaded| loaded.keys)
    }

    fn request(&self, before: Option<&Loaded>) -> Request<Bytes> {
        let mut request = Request::new(Bytes::new());
        *request.method_mut() = Method::GET;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        headers.insert(
            header::ACCEPT,
            HeaderValue::from_static("application/jwk-set+json, application/json"),
        );
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
            let set = JwkSet::from_json(response.body())
                .map_err(|_| UnavailableError::Malformed("no JWK Set"))?;
            let digest = Sha256::digest(response.body()).into();
            let keys = match before {
                Some(before) if before.digest == digest => before.keys,
                before => CurrentKeys {
                    keys: KeySet::prepare(&set),
                    version: before.map_or(0, |before| before.keys.version) + 1,
                },
            };
            if keys.keys.is_empty() {
                // By such a set, every token would be forged.
                return Err(UnavailableError::Malformed("the JWK Set has no key of use here"));
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

/// How long a response counts, from when it was asked for (RFC 9111 §4.2): its `max-age` less the
/// `Age` it already had in a cache on the way.
fn life(headers: &HeaderMap) -> Duration {
    let directives = headers
        .get_all(header::CACHE_CONTROL)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim);
    let mut max_age = None;
    for directive in directives {
        let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
        if name.eq_ignore_ascii_case("no-store") || name.eq_ignore_ascii_case("no-cache") {
            return LIFE.0;
        }
        if name.eq_ignore_ascii_case("max-age") {
            // RFC 9111 §4.2.1: one that cannot be read counts as stale; of two, the shorter is safe.
            let seconds = value.trim_matches('"').parse::<u64>().unwrap_or(0);
            max_age = Some(max_age.map_or(seconds, |other: u64| other.min(seconds)));
        }
    }
    let age = headers
        .get(header::AGE)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .unwrap_or(0);
    let life = max_age.map_or(DEFAULT_LIFE, Duration::from_secs);
    life.saturating_sub(Duration::from_secs(age)).clamp(LIFE.0, LIFE.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_are_read_and_bounded() {
        for (cache_control, age, seconds) in [
            (None, None, 3600),
            (Some("public"), None, 3600),
            (Some("max-age=600"), None, 600),
            (Some("public, Max-Age=\"600\", must-revalidate"), None, 600),
            (Some("max-age=600"), Some("100"), 500),
            (Some("max-age=600"), Some("1000"), 30),
            (Some("max-age=600, max-age=300"), None, 300),
            (Some("max-age=0"), None, 30),
            (Some("max-age=-1"), None, 30),
            (Some("max-age=99999999999999999999"), None, 30),
            (Some("no-store"), None, 30),
            (Some("max-age=600, no-cache"), None, 30),
            (Some("max-age=31536000"), None, 86_400),
            (Some("s-maxage=5"), None, 3600),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(value) = cache_control {
                headers.insert(header::CACHE_CONTROL, value.parse().unwrap());
            }
            if let Some(value) = age {
                headers.insert(header::AGE, value.parse().unwrap());
            }
            assert_eq!(life(&headers).as_secs(), seconds, "{cache_control:?} {age:?}");
        }
    }
}
