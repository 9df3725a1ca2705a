//! The counters and gauges of the feature `metrics`. The crate's documentation lists them.

/// The label `cache`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Of {
    Introspection,
    Phantom,
    Jwt,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    Hit,
    NegativeHit,
    Miss,
    Coalesced,
    StaleRefusal,
    RevokedEviction,
    Overload,
    ForgedHandle,
}

/// The counter of an event in this cache. Its key is a static: a key with computed labels would be allocated for each
/// request.
#[cfg(feature = "metrics")]
macro_rules! counter_in {
    ($cache:expr, $name:literal) => {
        match $cache {
            Of::Introspection => metrics::counter!($name, "cache" => "introspection"),
            Of::Phantom => metrics::counter!($name, "cache" => "phantom"),
            Of::Jwt => metrics::counter!($name, "cache" => "jwt"),
        }
    };
}

#[cfg(feature = "metrics")]
pub(crate) fn count(of: Of, event: Event) {
    let counter = match event {
        Event::Hit => counter_in!(of, "cloakroom_cache_hits_total"),
        Event::NegativeHit => counter_in!(of, "cloakroom_cache_negative_hits_total"),
        Event::Miss => counter_in!(of, "cloakroom_cache_misses_total"),
        Event::Coalesced => counter_in!(of, "cloakroom_cache_coalesced_total"),
        Event::StaleRefusal => counter_in!(of, "cloakroom_stale_refusals_total"),
        Event::RevokedEviction => counter_in!(of, "cloakroom_cache_revoked_evictions_total"),
        Event::Overload => counter_in!(of, "cloakroom_introspection_overloads_total"),
        Event::ForgedHandle => counter_in!(of, "cloakroom_forged_handles_total"),
    };
    counter.increment(1);
}

#[cfg(not(feature = "metrics"))]
pub(crate) const fn count(_: Of, _: Event) {}

/// How many rules a replica holds, and how far it may be behind: infinitely while that is unknown.
#[cfg(feature = "metrics")]
pub(crate) fn replica(staleness: Option<std::time::Duration>, rules: usize) {
    let seconds = staleness.map_or(f64::INFINITY, |age| age.as_secs_f64());
    metrics::gauge!("cloakroom_replica_staleness_seconds").set(seconds);
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("cloakroom_replica_rules").set(rules as f64);
}

#[cfg(feature = "metrics")]
pub(crate) fn replica_gap() {
    metrics::counter!("cloakroom_replica_gaps_total").increment(1);
}

#[cfg(feature = "metrics")]
pub(crate) fn replica_reconnected() {
    metrics::counter!("cloakroom_replica_reconnects_total").increment(1);
}

#[cfg(not(feature = "metrics"))]
pub(crate) const fn replica(_: Option<std::time::Duration>, _: usize) {}

#[cfg(not(feature = "metrics"))]
pub(crate) const fn replica_gap() {}

#[cfg(not(feature = "metrics"))]
pub(crate) const fn replica_reconnected() {}
