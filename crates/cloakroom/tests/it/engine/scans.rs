//! What the walks over all grants and over the revocation log name, and what they leave out.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::core::record::*;
use cloakroom::core::revocation::*;
use cloakroom::core::store::*;
use cloakroom::core::time::UnixTime;
use cloakroom::core::*;
use cloakroom::operator::{
    Check, Diagnosis, Finding, Outcome, RevokedScan, RowScan, scan_revoked_grants, scan_rows,
    with_causes,
};

use super::support::{HOUR, MINUTE, START};

const NOW: UnixTime = START;

/// What a walk leaves alone: a server may still be at it.
const YOUNG: Duration = Duration::from_secs(600);

const MILLI: Duration = Duration::from_millis(1);

/// A store that answers what a test says.
#[derive(Debug, Default)]
struct Scripted {
    /// The pages of a scan, each with where the next one begins.
    pages: Vec<Listing>,
    /// Every rule that is known.
    rules: Vec<Rule>,
    log: Vec<RevocationBatch>,
    found: BTreeMap<GrantId, Grant>,
    /// What was asked for.
    asked: Mutex<Vec<String>>,
}

#[derive(Debug)]
enum Grant {
    There(Box<GrantRecord>),
    Damaged,
    Down,
}

impl Scripted {
    fn note(&self, what: String) {
        self.asked.lock().unwrap().push(what);
    }

    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

#[async_trait]
impl CheckValues for Scripted {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        panic!("no walk asks this")
    }

    async fn set_check_value(
        &self,
        _: &str,
        _: Option<&[u8]>,
        _: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        panic!("a walk writes nothing")
    }
}

#[async_trait]
impl TokenStore for Scripted {
    async fn create(
        &self,
        _: GrantRecord,
        _: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        panic!("a walk writes nothing")
    }

    async fn find(&self, id: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        assert_eq!(token, None);
        self.note(format!("find {}", id.as_bytes()[15]));
        match self.found.get(&id) {
            None => Ok(Lookup::Absent),
            Some(Grant::There(grant)) => {
                Ok(Lookup::Found(Found { grant: Arc::new((**grant).clone()), token: None }))
            }
            Some(Grant::Damaged) => Err(StoreError::corrupt("a grant", "it is damaged")),
            Some(Grant::Down) => Err(StoreError::unavailable("a lookup", "it is down")),
        }
    }

    async fn advance(&self, _: Advance) -> Result<AdvanceOutcome, StoreError> {
        panic!("a walk writes nothing")
    }

    async fn revoke(&self, _: Revocation) -> Result<RevokeOutcome, StoreError> {
        panic!("a walk writes nothing")
    }

    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.note(format!("{} rules", keys.len()));
        let rules = self.rules.iter().filter(|rule| keys.contains(&rule.key)).cloned().collect();
        Ok(Rules { rules, newest_bound: Epoch::new(0) })
    }

    async fn list(&self, _: Selector, _: PageRequest, _: UnixTime) -> Result<Listing, StoreError> {
        panic!("no walk asks this")
    }

    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        let at = if after == Cursor::start() { 0 } else { usize::from(after.as_bytes()[0]) };
        self.note(format!("log {at}"));
        assert!(limit > 1);
        // The last page is repeated, as by a log that grows and grows.
        Ok(self.log[at.min(self.log.len() - 1)].clone())
    }

    fn wakeups(&self) -> LogNotifications {
        panic!("no walk waits")
    }

    async fn heartbeat(&self, _: UnixTime, _: UnixTime) -> Result<(), StoreError> {
        panic!("a walk writes nothing")
    }

    async fn maintain(&self, _: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        panic!("a walk writes nothing")
    }

    async fn scan(&self, page: PageRequest) -> Result<Option<Listing>, StoreError> {
        assert_eq!(page.limit, 1_000);
        let ends = self.pages.iter().map(|page| page.next);
        // Each page begins where another one ends, and the first at the beginning.
        let at = page.after.map_or(Some(0), |after| {
            ends.enumerate().find(|(_, next)| *next == Some(after)).map(|(at, _)| at + 1)
        });
        Ok(self.pages.get(at.unwrap()).cloned())
    }
}

fn id(number: u8) -> GrantId {
    let mut bytes = [0; 16];
    bytes[15] = number;
    GrantId::from_bytes(bytes)
}

fn alice() -> Subject {
    Subject::user("alice").unwrap()
}

fn app() -> ClientId {
    ClientId::new("app").unwrap()
}

/// A grant of Alice at "app" that lives for an hour yet, of before every bound here.
fn grant(number: u8) -> GrantRecord {
    let audience = Audience::one("https://api.example").unwrap();
    let mut grant = GrantRecord::new(id(number), app(), alice(), audience, NOW - HOUR, NOW + HOUR);
    grant.epoch = Epoch::new(1);
    grant
}

/// The same, revoked.
fn ended(number: u8) -> GrantRecord {
    let mut grant = grant(number);
    grant.revoked_at = Some(NOW);
    grant
}

fn page(grants: Vec<GrantRecord>, unreadable: &[u8], next: Option<u8>) -> Listing {
    Listing {
        grants: grants.into_iter().map(Arc::new).collect(),
        unreadable: unreadable.iter().copied().map(id).collect(),
        next: next.map(id),
    }
}

/// A rule of this age about Alice.
fn rule(age: Duration) -> Rule {
    let bound = Epoch::new((NOW - age).as_millis());
    Rule { key: RuleKey::Subject(alice()), bound: Some(bound), until: NOW + HOUR }
}

async fn rows(store: &Scripted) -> RowScan {
    scan_rows(store, NOW, |_| ()).await.unwrap()
}

async fn revoked(store: &Scripted) -> RevokedScan {
    scan_revoked_grants(store, NOW, |_| ()).await.unwrap()
}

#[tokio::test]
async fn every_page_is_read_and_what_cannot_be_read_is_named() {
    let first = page(vec![grant(1), grant(4)], &[2, 3], Some(4));
    let many: Vec<u8> = (5..=105).collect();
    let last = page(vec![], &many, None);
    let store = Scripted { pages: vec![first, last], ..Scripted::default() };
    let mut progress = Vec::new();
    let scan = scan_rows(&store, NOW, |rows| progress.push(rows)).await.unwrap();
    assert_eq!(progress, [4, 105]);
    assert_eq!((scan.rows, scan.unreadable, scan.logged_out), (Some(105), 103, 0));
    let named: Vec<GrantId> = [2, 3].into_iter().chain(5..=102).map(id).collect();
    assert_eq!(scan.named, named);
    assert_eq!(scan.named.len(), RowScan::MAX_NAMED);
    // The rules of a page are asked for once; of one without grants, never.
    assert_eq!(store.asked(), ["3 rules"]);
    let finding = scan.finding();
    assert_eq!((finding.check, finding.outcome), (Check::Rows, Outcome::Failed));
    let expected = format!("103 of 105 grants cannot be read: revoke each by its id ({}", id(2));
    assert!(finding.text.starts_with(&expected), "{}", finding.text);
    assert!(!finding.text.contains("logged out"), "{}", finding.text);
}

#[tokio::test]
async fn a_store_that_lists_nothing_is_skipped_and_a_sound_one_passes() {
    let scan = rows(&Scripted::default()).await;
    assert_eq!(scan, RowScan::default());
    assert_eq!(scan.finding().outcome, Outcome::Skipped);
    let store = Scripted { pages: vec![page(vec![grant(1)], &[], None)], ..Scripted::default() };
    let finding = rows(&store).await.finding();
    assert_eq!((finding.outcome, &*finding.text), (Outcome::Passed, "every grant can be read: 1"));
}

#[tokio::test]
async fn a_live_grant_that_an_old_rule_denies_is_named() {
    let of_key = |key| Rule { key, ..rule(YOUNG + MILLI) };
    for (rule, is_named) in [
        (rule(YOUNG + MILLI), true),
        // Its sweep may not have come to the grant.
        (rule(YOUNG), false),
        (rule(MINUTE), false),
        (of_key(RuleKey::Client(app())), true),
        (of_key(RuleKey::SubjectAtClient(alice(), app())), true),
        (of_key(RuleKey::Subject(Subject::user("bob").unwrap())), false),
        // Rules without a bound are of every age.
        (Rule { bound: None, ..rule(YOUNG) }, true),
        // It has ended.
        (Rule { until: NOW, ..rule(YOUNG + MILLI) }, false),
        (Rule { until: NOW + MILLI, ..rule(YOUNG + MILLI) }, true),
        // The grant is of later.
        (Rule { bound: Some(Epoch::new(0)), ..rule(HOUR) }, false),
    ] {
        let pages = vec![page(vec![grant(1)], &[], None)];
        let store = Scripted { pages, rules: vec![rule.clone()], ..Scripted::default() };
        let scan = rows(&store).await;
        let named = if is_named { vec![id(1)] } else { Vec::new() };
        assert_eq!((scan.logged_out, &scan.named_logged_out), (named.len() as u64, &named));
        let expected = if is_named { Outcome::Failed } else { Outcome::Passed };
        assert_eq!(scan.finding().outcome, expected, "{rule:?}");
    }
}

#[tokio::test]
async fn a_grant_that_has_ended_is_not_looked_up_among_the_rules() {
    let mut expired = grant(2);
    expired.expires_at = NOW;
    let pages = vec![page(vec![ended(1), expired], &[3], None)];
    let store = Scripted { pages, rules: vec![rule(HOUR)], ..Scripted::default() };
    let scan = rows(&store).await;
    assert_eq!((scan.rows, scan.unreadable, scan.logged_out), (Some(3), 1, 0));
    assert!(store.asked().is_empty());
}

#[tokio::test]
async fn two_kinds_of_wrong_rows_are_one_finding_and_at_most_a_hundred_are_named() {
    let pages = vec![page((1..=101).map(grant).collect(), &[200], None)];
    let store = Scripted { pages, rules: vec![rule(HOUR)], ..Scripted::default() };
    let scan = rows(&store).await;
    assert_eq!(scan.logged_out, 101);
    assert_eq!(scan.named_logged_out, (1..=100).map(id).collect::<Vec<_>>());
    let text = scan.finding().text;
    assert!(text.starts_with("1 of 102 grants cannot be read"), "{text}");
    assert!(text.contains("; 101 of 102 grants are live although they were logged out"), "{text}");
    assert!(text.ends_with(&format!("({}, {})", id(1), listed(2..=100))), "{text}");
}

fn listed(ids: impl Iterator<Item = u8>) -> String {
    ids.map(|number| id(number).to_string()).collect::<Vec<_>>().join(", ")
}

/// An entry that revokes a grant.
fn entry(number: u8, age: Duration) -> LogEntry {
    let event = LogEvent::Revoked {
        target: Target::Grant(id(number)),
        bound: None,
        client: None,
        grant: None,
    };
    of(event, age)
}

fn of(event: LogEvent, age: Duration) -> LogEntry {
    LogEntry { id: EntryId::from_bytes([0; 16]), event, at: NOW - age, until: NOW + HOUR }
}

/// A page of the log that ends before the page of this number.
fn entries(entries: Vec<LogEntry>, next: u8, more: bool) -> RevocationBatch {
    let next = Cursor::from_bytes(&[next]).unwrap();
    RevocationBatch::Entries { entries, next, more, newest_bound: Epoch::new(0) }
}

fn there(grants: impl IntoIterator<Item = GrantRecord>) -> BTreeMap<GrantId, Grant> {
    grants.into_iter().map(|grant| (grant.id, Grant::There(Box::new(grant)))).collect()
}

#[tokio::test]
async fn a_live_grant_that_the_log_revokes_is_named() {
    let old = YOUNG + MILLI;
    let subject = LogEvent::Revoked {
        target: Target::Subject(alice()),
        bound: None,
        client: None,
        grant: Some(id(7)),
    };
    let log = vec![
        entries(vec![of(LogEvent::Heartbeat {}, 3 * HOUR), entry(5, 2 * HOUR)], 1, true),
        // One is revoked again, one by its user, and two not long ago.
        entries(vec![entry(1, old), entry(5, old), of(subject, old), entry(2, YOUNG)], 2, true),
        entries(vec![entry(3, old), entry(4, old), entry(6, MILLI)], 3, false),
    ];
    let mut found = there([1, 2, 5, 6, 7].map(grant));
    found.extend(there([ended(3)]));
    let store = Scripted { log, found, ..Scripted::default() };
    let mut progress = Vec::new();
    let scan = scan_revoked_grants(&store, NOW, |number| progress.push(number)).await.unwrap();
    assert_eq!((scan.revoked, scan.live), (Some(5), 2));
    assert_eq!(scan.since, Some(NOW - 3 * HOUR));
    assert_eq!(scan.named, [id(1), id(5)]);
    assert_eq!(progress, [1, 2, 3, 4]);
    let asked = ["log 0", "log 1", "log 2", "find 1", "find 3", "find 4", "find 5"];
    assert_eq!(store.asked(), asked);
    let finding = scan.finding();
    assert_eq!((finding.check, finding.outcome), (Check::Revocations, Outcome::Failed));
    assert!(finding.text.contains("are live: 2"), "{}", finding.text);
    assert!(finding.text.ends_with(&format!("({})", listed([1, 5].into_iter()))));
}

#[tokio::test]
async fn a_log_that_revokes_no_live_grant_passes_and_says_how_far_back_it_goes() {
    let log = vec![entries(vec![entry(1, HOUR)], 1, false)];
    let found = BTreeMap::from([(id(1), Grant::Damaged)]);
    let store = Scripted { log, found, ..Scripted::default() };
    let scan = revoked(&store).await;
    assert_eq!((scan.revoked, scan.live, scan.since), (Some(1), 0, Some(NOW - HOUR)));
    let finding = scan.finding();
    assert_eq!(finding.outcome, Outcome::Passed);
    let since = NOW - HOUR;
    assert_eq!(finding.text, format!("no grant is live that the log revokes since {since}: 1"));

    let store = Scripted { log: vec![entries(vec![], 1, false)], ..Scripted::default() };
    let scan = revoked(&store).await;
    assert_eq!((scan.revoked, scan.since), (Some(0), None));
    let text = scan.finding().text;
    assert!(text.starts_with("the log revokes no grant by its id"), "{text}");
}

#[tokio::test]
async fn a_log_that_is_not_read_to_its_end_is_skipped() {
    // What was read before the place was lost is looked at all the same.
    let first = || entries(vec![entry(1, HOUR)], 1, true);
    let store = Scripted { log: vec![first(), RevocationBatch::Gap], ..Scripted::default() };
    let scan = revoked(&store).await;
    assert_eq!((scan.revoked, scan.live), (None, 0));
    assert_eq!(scan.finding().outcome, Outcome::Skipped);
    assert_eq!(store.asked(), ["log 0", "log 1", "find 1"]);

    let log = vec![first(), RevocationBatch::Gap];
    let store = Scripted { log, found: there([grant(1)]), ..Scripted::default() };
    assert_eq!(revoked(&store).await.finding().outcome, Outcome::Failed);

    // A log that grows as fast as it is read does not keep the walk for ever.
    let store = Scripted { log: vec![first()], ..Scripted::default() };
    let scan = revoked(&store).await;
    assert_eq!(scan.revoked, None);
    let asked = store.asked();
    assert_eq!(asked.len(), 10_001);
    assert_eq!(asked.last().map(String::as_str), Some("find 1"));
}

#[tokio::test]
async fn an_outage_ends_the_walk_and_belongs_to_the_store() {
    let log = vec![entries(vec![entry(1, HOUR)], 1, false)];
    let found = BTreeMap::from([(id(1), Grant::Down)]);
    let store = Scripted { log, found, ..Scripted::default() };
    let scan = scan_revoked_grants(&store, NOW, |_| ()).await;
    let Err(outage @ StoreError::Unavailable { .. }) = scan else { panic!("{scan:?}") };
    let damage = StoreError::corrupt("a grant", "it is damaged");
    for (error, check, has_outage) in
        [(outage, Check::Store, true), (damage, Check::Revocations, false)]
    {
        let finding = Finding::failure(Check::Revocations, &error);
        assert_eq!((finding.check, finding.outcome), (check, Outcome::Failed));
        assert_eq!(finding.text, with_causes(&error));
        let mut diagnosis = Diagnosis::default();
        diagnosis.findings.push(finding);
        assert_eq!((diagnosis.has_outage(), diagnosis.is_healthy()), (has_outage, false));
    }
}

#[tokio::test]
async fn at_most_a_hundred_live_grants_are_named() {
    let log = vec![entries((1..=101).map(|number| entry(number, HOUR)).collect(), 1, false)];
    let store = Scripted { log, found: there((1..=101).map(grant)), ..Scripted::default() };
    let scan = revoked(&store).await;
    assert_eq!(scan.live, 101);
    assert_eq!(scan.named, (1..=100).map(id).collect::<Vec<_>>());
    assert_eq!(scan.named.len(), RevokedScan::MAX_NAMED);
}
