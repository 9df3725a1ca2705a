//! What is counted, and whether the docs and the dashboard name the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cloakroom::core::record::{GrantRecord, TokenRecord};
use cloakroom::core::revocation::{
    Cursor, LogNotifications, Revocation, RevocationBatch, RuleKey, Rules,
};
use cloakroom::core::store::*;
use cloakroom::core::time::{ManualClock, UnixTime};
use cloakroom::core::{GrantId, TokenDigest};
use cloakroom::http::Endpoints;
use cloakroom::jwt::KeyStatus;
use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

use tower::ServiceExt as _;

use super::support::*;

/// What was recorded last under each name with its labels; a counter is a sum, and a histogram a count.
#[derive(Debug, Clone, Default)]
struct Measured(Arc<Mutex<BTreeMap<String, f64>>>);

struct Series(Measured, String);

impl Series {
    fn change(&self, change: impl FnOnce(&mut f64)) {
        change(self.0.0.lock().unwrap().entry(self.1.clone()).or_default());
    }
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        self.change(|sum| *sum += value as f64);
    }

    fn absolute(&self, _: u64) {
        unreachable!("nothing is set")
    }
}

impl GaugeFn for Series {
    fn increment(&self, _: f64) {
        unreachable!("gauges are set")
    }

    fn decrement(&self, _: f64) {
        unreachable!("gauges are set")
    }

    fn set(&self, value: f64) {
        self.change(|last| *last = value);
    }
}

impl HistogramFn for Series {
    fn record(&self, value: f64) {
        assert!(value >= 0.0);
        self.change(|count| *count += 1.0);
    }
}

impl Measured {
    fn series(&self, key: &Key) -> Arc<Series> {
        let labels: Vec<&str> = key.labels().map(metrics::Label::value).collect();
        let name = key.name().trim_start_matches("cloakroom_");
        Arc::new(Series(self.clone(), [&[name], &labels[..]].concat().join(" ")))
    }

    fn get(&self, name: &str) -> f64 {
        self.0.lock().unwrap().get(name).copied().unwrap_or(f64::NAN)
    }
}

impl Recorder for Measured {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}
    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.series(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.series(key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.series(key))
    }
}

/// Runs on this thread alone, where everything is recorded.
fn measured(test: impl Future<Output = ()>) -> Measured {
    let measured = Measured::default();
    // Time passes only when everything waits.
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&measured, || runtime.block_on(test));
    measured
}

#[test]
fn the_life_of_a_session_is_counted() {
    let measured = measured(async {
        let fixture = Fixture::new().await;
        fixture.redeem(&fixture.code().await).await.unwrap();
        let session = fixture.session().await;
        let next = Session::of(fixture.refresh(&session.refresh).await.unwrap());
        fixture.refresh(&session.refresh).await.unwrap();
        fixture.clock.advance(HOUR);
        fixture.refresh(&session.refresh).await.unwrap_err();
        fixture.refresh(&next.refresh).await.unwrap_err();
        let other = fixture.session().await;
        fixture.issuer.revoke_grant(grant_of(&other.access)).await.unwrap();
        fixture.issuer.maintain().await.unwrap();
    });
    for (name, count) in [
        ("grants_issued_total", 3.0),
        ("codes_redeemed_total", 1.0),
        ("refreshes_total", 1.0),
        ("refresh_retries_total", 1.0),
        ("reuse_detected_total", 1.0),
        ("grants_refused_total dead", 1.0),
        ("revocations_total", 1.0),
        ("store_seconds create", 3.0),
    ] {
        assert_eq!(measured.get(name), count, "{name}: {measured:#?}");
    }
    assert!(measured.get("store_seconds advance") >= 2.0, "{measured:#?}");
    assert!(measured.get("signing_key_age_seconds ES256") >= HOUR.as_secs_f64(), "{measured:#?}");
    assert!(measured.get("signing_key_remaining_seconds ES256") > DAY.as_secs_f64());
    // Two access tokens have ended; the grants live on.
    assert!(measured.get("housekeeping_deleted_total tokens") >= 2.0, "{measured:#?}");
}

#[test]
fn requests_are_counted_by_endpoint_and_status() {
    let measured = measured(async {
        let fixture = Fixture::new().await;
        let endpoints = Endpoints::new(fixture.issuer.clone());
        let request = |method: &str, path: &str| {
            let request = http::Request::builder().method(method).uri(path);
            request.body(Bytes::new()).unwrap()
        };
        for (method, path) in [
            ("GET", "/.well-known/jwks.json"),
            ("GET", "/.well-known/oauth-authorization-server"),
            ("GET", "/token"),
            ("POST", "/token"),
            ("GET", "/nothing"),
        ] {
            endpoints.handle(request(method, path)).await;
        }
        // Its body is not read.
        let large =
            http::Request::post("/token").body(axum::body::Body::from(vec![0; 100_000])).unwrap();
        let answer = endpoints.router().oneshot(large).await.unwrap();
        assert_eq!(answer.status(), 413);
    });
    for name in [
        "server_requests_total jwks.json 200",
        "server_requests_total metadata 200",
        "server_requests_total token 405",
        "server_requests_total token 400",
        "server_requests_total token 413",
        "server_request_seconds jwks.json",
    ] {
        assert_eq!(measured.get(name), 1.0, "{name}: {measured:#?}");
    }
    let paths = measured.0.lock().unwrap().keys().filter(|name| name.contains("nothing")).count();
    assert_eq!(paths, 0, "what a caller invents is no label");
}

#[test]
fn changes_of_keys_are_counted_by_kind() {
    let measured = measured(async {
        let fixture = Fixture::new().await;
        fixture.clock.advance(2 * DAY);
        fixture.issuer.maintain().await.unwrap();
        let signs = |keys: Vec<KeyStatus>| keys.into_iter().find(|key| key.signs_now).unwrap().kid;
        fixture.issuer.rotate_keys().await.unwrap();
        let kid = signs(fixture.issuer.key_states().await.unwrap());
        fixture.issuer.compromise_key(&kid).await.unwrap();
    });
    for change in ["rotated", "compromised"] {
        let name = format!("key_changes_total {change}");
        assert_eq!(measured.get(&name), 1.0, "{measured:#?}");
    }
    assert!(measured.get("key_changes_total published") >= 2.0, "{measured:#?}");
}

/// Otherwise the gauge would run down before each change of keys, or stand still while no key can be made.
#[test]
fn the_remaining_time_is_that_of_all_keys_and_told_when_none_can_be_made() {
    let measured = Measured::default();
    let remaining = || measured.get("signing_key_remaining_seconds ES256");
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().start_paused(true).build().unwrap();
    let test = async {
        let fixture = Fixture::new().await;
        fixture.issuer.maintain().await.unwrap();
        let keys = fixture.issuer.key_states().await.unwrap();
        let until = keys.iter().find(|key| key.signs_now).unwrap().signs_until.unwrap();
        fixture.clock.set(until - HOUR);
        fixture.issuer.maintain().await.unwrap();
        let known = remaining();
        assert!(known > (7 * DAY).as_secs_f64(), "{known}");
        fixture.store.keys_down(true);
        fixture.clock.advance(2 * DAY);
        fixture.issuer.maintain().await.unwrap_err();
        assert_eq!(known - remaining(), (2 * DAY).as_secs_f64());
    };
    metrics::with_local_recorder(&measured, || runtime.block_on(test));
}

/// A store with a backlog, whose log can be followed, and that fails.
#[derive(Debug)]
struct Backlog(cloakroom::memory::MemoryStore);

#[async_trait::async_trait]
impl CheckValues for Backlog {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.0.check_values().await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        self.0.set_check_value(name, expected, value).await
    }
}

#[async_trait::async_trait]
impl TokenStore for Backlog {
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        self.0.create(grant, tokens).await
    }

    async fn find(&self, _: GrantId, _: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        Err(StoreError::unavailable("finding", "down"))
    }

    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        self.0.advance(step).await
    }

    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        self.0.revoke(revocation).await
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.0.rules(keys).await
    }

    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        let listed = self.0.list(of, page, now).await?;
        Err(StoreError::corrupt("a row", format!("{} others are good", listed.grants.len())))
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.0.revocations(after, limit).await
    }

    fn wakeups(&self) -> LogNotifications {
        self.0.wakeups()
    }

    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.0.heartbeat(now, until).await
    }

    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        self.0.maintain(task).await
    }

    async fn status(&self, before: UnixTime) -> Result<StoreStatus, StoreError> {
        assert_eq!(before, START - secs(65), "what housekeeping would delete");
        let mut status = StoreStatus::default();
        status.ended_rows = Some(7);
        Ok(status)
    }
}

#[test]
fn the_state_of_the_store_is_measured() {
    let measured = measured(async {
        let store = Arc::new(Backlog(cloakroom::memory::MemoryStore::new()));
        let issuer = cloakroom::Issuer::dev()
            .token_store(store)
            .clock(Arc::new(ManualClock::at(START)))
            .static_clients([cloakroom::Client::public("app")])
            .unwrap()
            .build()
            .await
            .unwrap();
        issuer
            .revoke_session(
                &cloakroom::Subject::user("alice").unwrap(),
                GrantId::from_bytes([1; 16]),
            )
            .await
            .unwrap_err();
        issuer.sessions(&alice()).await.unwrap_err();
        issuer.maintain().await.unwrap();
        // Until the log was read once, and a heartbeat written.
        let _ =
            tokio::time::timeout(std::time::Duration::from_millis(300), issuer.run_maintenance())
                .await;
    });
    assert_eq!(measured.get("housekeeping_backlog_rows"), 7.0, "{measured:#?}");
    assert_eq!(measured.get("store_errors_total find unavailable"), 1.0, "{measured:#?}");
    assert_eq!(measured.get("store_errors_total list corrupt"), 1.0, "{measured:#?}");
    assert!(measured.get("log_lag_seconds") >= 0.0, "{measured:#?}");
    // An increase from nothing is none for Prometheus.
    for name in [
        "reuse_detected_total",
        "store_regressions_total",
        "unconfirmed_writes_total",
        "corrupt_rows_total",
        "key_changes_total compromised",
    ] {
        assert_eq!(measured.get(name), 0.0, "{name}: {measured:#?}");
    }
}

/// The names in a text.
fn names(text: &str) -> BTreeSet<String> {
    let is_part = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let parts = text.split(|c: char| !is_part(c));
    parts.filter(|part| part.starts_with("cloakroom_")).map(str::to_owned).collect()
}

#[test]
fn the_docs_and_the_dashboard_name_what_the_code_counts() {
    let code = [
        include_str!("../../../src/metrics.rs"),
        include_str!("../../../src/metrics/metered_store.rs"),
        include_str!("../../../../cloakroom-resource/src/metrics.rs"),
    ];
    // `cloakroom_core` is a crate.
    let mut counted = names(&code.concat());
    counted.retain(|name| name != "cloakroom_core");
    assert!(counted.len() > 30, "{counted:?}");
    let docs = include_str!("../../../../../docs/metrics.md");
    let rows = docs.lines().filter(|line| line.starts_with("| `cloakroom_"));
    let documented: BTreeSet<String> =
        rows.map(|row| row.split('`').nth(1).unwrap().to_owned()).collect();
    assert_eq!(documented, counted);
    // Names in the text around the tables, such as those of alarms, exist.
    assert!(names(docs).is_subset(&counted), "{:?}", names(docs));

    let dashboard: serde_json::Value =
        serde_json::from_str(include_str!("../../../../../docs/grafana.json")).unwrap();
    let mut shown = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "{panel}");
        for target in panel["targets"].as_array().into_iter().flatten() {
            shown.extend(names(target["expr"].as_str().unwrap()));
        }
    }
    let shown: BTreeSet<String> =
        shown.iter().map(|name| name.trim_end_matches("_bucket").to_owned()).collect();
    assert_eq!(shown, counted);
}
