//! The counters, gauges and histograms of the feature `metrics`. `docs/metrics.md` lists them.
//!
//! Without the feature, the functions are empty or absent.

#[cfg(feature = "metrics")]
pub(crate) mod metered_store;

use std::time::Duration;

#[cfg(feature = "metrics")]
use cloakroom_core::{store::MaintenanceReport, time::UnixTime};

use crate::events::Event;
#[cfg(feature = "metrics")]
use alarms::{CORRUPT_ROWS, KEY_CHANGES, REGRESSIONS, REUSE, UNCONFIRMED};
#[cfg(feature = "metrics")]
pub(crate) use metered_store::MeteredStore;

/// What is counted under the feature, and nothing without it.
macro_rules! metered {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),* $(,)?) $body:block) => {
        $(#[$doc])*
        #[cfg(feature = "metrics")]
        pub(crate) fn $name($($argument: $type),*) $body

        $(#[$doc])*
        #[cfg(not(feature = "metrics"))]
        pub(crate) fn $name($(_: $type),*) {}
    };
}

/// When a request began. Without the feature, no clock is read.
#[cfg(feature = "http")]
pub(crate) struct Timer(#[cfg(feature = "metrics")] std::time::Instant);

#[cfg(feature = "http")]
impl Timer {
    pub(crate) fn start() -> Self {
        Self(
            #[cfg(feature = "metrics")]
            std::time::Instant::now(),
        )
    }
}

#[cfg(feature = "http")]
metered! {
    /// An endpoint answered with this status.
    fn request(endpoint: &str, status: u16, timer: &Timer) {
        let (endpoint, status) = (endpoint.to_owned(), status.to_string());
        metrics::counter!(
            "cloakroom_server_requests_total", "endpoint" => endpoint.clone(), "status" => status
        )
        .increment(1);
        metrics::histogram!("cloakroom_server_request_seconds", "endpoint" => endpoint)
            .record(timer.0.elapsed().as_secs_f64());
    }
}

/// The counters behind alarms.
#[cfg(feature = "metrics")]
mod alarms {
    pub(super) const REUSE: &str = "cloakroom_reuse_detected_total";
    pub(super) const REGRESSIONS: &str = "cloakroom_store_regressions_total";
    pub(super) const UNCONFIRMED: &str = "cloakroom_unconfirmed_writes_total";
    pub(super) const CORRUPT_ROWS: &str = "cloakroom_corrupt_rows_total";
    /// An alarm if the label `change` is `compromised`.
    pub(super) const KEY_CHANGES: &str = "cloakroom_key_changes_total";
}

metered! {
    /// The counters behind alarms begin at zero. Prometheus sees no increase where a series begins, and so would
    /// miss the first event of each process.
    fn begin() {
        for name in [REUSE, REGRESSIONS, UNCONFIRMED, CORRUPT_ROWS] {
            metrics::counter!(name).increment(0);
        }
        metrics::counter!(KEY_CHANGES, "change" => "compromised").increment(0);
    }
}

metered! {
    /// An event was reported.
    fn event(event: &Event) {
        let name = match event {
            Event::Issued { .. } => "cloakroom_grants_issued_total",
            Event::Redeemed { .. } => "cloakroom_codes_redeemed_total",
            Event::Refreshed { .. } => "cloakroom_refreshes_total",
            Event::Retried { .. } => "cloakroom_refresh_retries_total",
            Event::ReuseDetected { .. } => REUSE,
            Event::Revoked { .. } => "cloakroom_revocations_total",
            Event::StoreRegressed { .. } => REGRESSIONS,
            Event::Unconfirmed { .. } => UNCONFIRMED,
            Event::CorruptRow { count, .. } => {
                return metrics::counter!(CORRUPT_ROWS).increment(*count);
            }
            Event::GrantRefused { reason, count, .. } => {
                let reason = label(reason);
                return metrics::counter!("cloakroom_grants_refused_total", "reason" => reason)
                    .increment(*count);
            }
            Event::TokenRefused { count, .. } => {
                return metrics::counter!("cloakroom_tokens_refused_total").increment(*count);
            }
            Event::AuthenticationFailed { reason, count, .. } => {
                let reason = label(reason);
                return metrics::counter!(
                    "cloakroom_authentication_failures_total", "reason" => reason
                )
                .increment(*count);
            }
            Event::Key(change) => {
                let change = label(change);
                return metrics::counter!(KEY_CHANGES, "change" => change).increment(1);
            }
        };
        metrics::counter!(name).increment(1);
    }
}

/// The name of a reason or of a change, as events have it.
#[cfg(feature = "metrics")]
fn label(of: &impl serde::Serialize) -> String {
    let value = serde_json::to_value(of).unwrap_or_default();
    let name = value.as_str().or_else(|| value.get("change")?.as_str());
    name.unwrap_or("other").to_owned()
}

metered! {
    /// How old the newest heartbeat in the revocation log is: infinitely, if there is none.
    fn log_lag(age: Option<Duration>) {
        let seconds = age.map_or(f64::INFINITY, |age| age.as_secs_f64());
        metrics::gauge!("cloakroom_log_lag_seconds").set(seconds);
    }
}

/// A round of housekeeping ended.
#[cfg(feature = "metrics")]
pub(crate) fn housekeeping(done: &MaintenanceReport) {
    for (what, rows) in
        [("grants", done.grants), ("tokens", done.tokens), ("revocations", done.revocations)]
    {
        metrics::counter!("cloakroom_housekeeping_deleted_total", "what" => what).increment(rows);
    }
}

/// How many ended rows wait to be deleted.
#[cfg(feature = "metrics")]
pub(crate) fn backlog(rows: u64) {
    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
    metrics::gauge!("cloakroom_housekeeping_backlog_rows").set(rows as f64);
}

/// When the key that signs at `now` with this algorithm began to, and when the last one that may follow it ends.
#[cfg(feature = "metrics")]
pub(crate) fn signing_key(algorithm: &str, now: UnixTime, from: UnixTime, until: UnixTime) {
    let algorithm = algorithm.to_owned();
    metrics::gauge!("cloakroom_signing_key_age_seconds", "algorithm" => algorithm.clone())
        .set(now.since(from).as_secs_f64());
    metrics::gauge!("cloakroom_signing_key_remaining_seconds", "algorithm" => algorithm)
        .set(until.since(now).as_secs_f64());
}
