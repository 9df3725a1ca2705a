//! What is wrong with a store, without changing it.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::handle::HandleKeys;
use cloakroom_core::keys::schedule::{self, KeyStep, MAIN_RING};
use cloakroom_core::keys::{KeyPolicy, KeyRecord, KeyStore};
use cloakroom_core::revocation::{Cursor, LogEvent, RevocationBatch};
use cloakroom_core::store::{QueryPlan, StoreError, StoreStatus, TokenStore};
use cloakroom_core::time::{Clock, UnixTime};
use cloakroom_jwt::{KeyManager, KeyManagerBuilder, KeyManagerError, KeySealer};
use serde::Serialize;

use crate::error::BuildError;
use crate::issuer::checks::check_issuer;
use crate::issuer::lifetimes::Lifetimes;
use crate::issuer::maintenance::MARGIN;
use crate::issuer::ownership::Owner;
use crate::operator::causes::{is_outage, with_causes};

/// How long something may be overdue before it is a finding: nodes take turns, and may restart.
pub(super) const PATIENCE: Duration = Duration::from_secs(600);

/// How long ago the oldest row that housekeeping may delete may have ended.
const BACKLOG: Duration = Duration::from_secs(3_600);

/// The most pages of the revocation log that are read.
pub(super) const MAX_PAGES: usize = 10_000;

pub(super) const LOST_PLACE: &str = "the log lost its place while it was read: try again";

/// The entries of one page.
pub(super) const PAGE: u32 = 1_000;

/// What is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Check {
    /// Whether the settings are consistent.
    Settings,
    /// Whether the store can be reached and read.
    Store,
    /// Whether the tables have a version that this program knows, with their indexes, and whether the
    /// database is set up so that it keeps what it acknowledged.
    Schema,
    /// Whether the queries that must be fast read their indexes, as the database plans them now.
    Plans,
    /// Whether the store belongs to the issuer.
    Issuer,
    /// Whether the handle secrets are those of the store.
    HandleSecrets,
    /// Whether the key-encryption keys are those of the store, and whether they open every published key.
    SealingKeys,
    /// Whether a key can sign, and whether its successor is published in time.
    SigningKeys,
    /// Whether the clocks of this process, the database and the servers agree.
    Clock,
    /// Whether ended rows are deleted.
    Housekeeping,
    /// Whether the revocation log can be read, and whether servers write heartbeats.
    RevocationLog,
    /// Whether every grant can be read ([`scan_rows`](crate::operator::scan_rows)).
    Rows,
    /// Whether the grants that the revocation log revokes are revoked
    /// ([`scan_revoked_grants`](crate::operator::scan_revoked_grants)).
    Revocations,
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Settings => "settings",
            Self::Store => "store",
            Self::Schema => "schema",
            Self::Plans => "plans",
            Self::Issuer => "issuer",
            Self::HandleSecrets => "handle secrets",
            Self::SealingKeys => "sealing keys",
            Self::SigningKeys => "signing keys",
            Self::Clock => "clock",
            Self::Housekeeping => "housekeeping",
            Self::RevocationLog => "revocation log",
            Self::Rows => "rows",
            Self::Revocations => "revocations",
        })
    }
}

/// How a check ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
#[expect(clippy::exhaustive_enums, reason = "a caller must decide on each outcome")]
pub enum Outcome {
    /// Nothing is wrong.
    Passed,
    /// It could not be checked; the text says why.
    Skipped,
    /// Look at it when you have time.
    Warning,
    /// Something is wrong; the text says what to do.
    Failed,
}

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Finding {
    /// What was checked.
    pub check: Check,
    /// How it ended.
    pub outcome: Outcome,
    /// What was found and what to do about it, for a person. It holds no secret.
    pub text: String,
}

impl Finding {
    /// The result of a check.
    #[must_use]
    pub fn new(check: Check, outcome: Outcome, text: impl Into<String>) -> Self {
        Self { check, outcome, text: text.into() }
    }

    /// A check that the store made fail. Damage belongs to the check, and an outage to [`Check::Store`], so that
    /// [`Diagnosis::has_outage`] tells them apart.
    #[must_use]
    pub fn failure(check: Check, error: &(dyn std::error::Error + 'static)) -> Self {
        let check = if is_outage(error) { Check::Store } else { check };
        Self::new(check, Outcome::Failed, with_causes(error))
    }
}

/// What [`IssuerBuilder::diagnose`](crate::IssuerBuilder::diagnose) found, in the order of the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// At least one finding for each check that was made.
    pub findings: Vec<Finding>,
}

impl Diagnosis {
    /// Whether no check failed. Warnings are not failures.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.findings.iter().all(|finding| finding.outcome != Outcome::Failed)
    }

    /// Whether a check could not be made because the store is unavailable.
    #[must_use]
    pub fn has_outage(&self) -> bool {
        self.findings
            .iter()
            .any(|finding| (finding.check, finding.outcome) == (Check::Store, Outcome::Failed))
    }

    fn add(&mut self, check: Check, outcome: Outcome, text: impl Into<String>) {
        self.findings.push(Finding::new(check, outcome, text));
    }

    fn failed(&mut self, check: Check, text: impl Into<String>) {
        self.add(check, Outcome::Failed, text);
    }

    fn store_failed(&mut self, check: Check, error: &(dyn std::error::Error + 'static)) {
        self.findings.push(Finding::failure(check, error));
    }

    /// Adds that a check passed, if nothing was found by it.
    fn passed(&mut self, check: Check, text: impl Into<String>) {
        if self.findings.iter().all(|finding| finding.check != check) {
            self.add(check, Outcome::Passed, text);
        }
    }
}

/// The settings of an issuer that is to be examined. What is missing is not checked.
pub(crate) struct Examined {
    pub(crate) url: String,
    pub(crate) former: Vec<String>,
    pub(crate) store: Option<Arc<dyn TokenStore>>,
    pub(crate) key_store: Option<Arc<dyn KeyStore>>,
    pub(crate) handles: Option<HandleKeys>,
    pub(crate) sealer: Option<Arc<dyn KeySealer>>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) policy: KeyPolicy,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) heartbeat: Duration,
}

impl Examined {
    pub(crate) async fn diagnose(self) -> Diagnosis {
        let mut found = Diagnosis::default();
        self.check_settings(&mut found);
        let Some(store) = &self.store else {
            found.add(Check::Store, Outcome::Skipped, "no store was given");
            return found;
        };
        self.check_status(&**store, &mut found).await;
        self.check_owner(&**store, &mut found).await;
        self.check_keys(&mut found).await;
        self.check_log(&**store, &mut found).await;
        found.passed(Check::Store, "the store can be read");
        found.passed(Check::Clock, "no clock differs by more than the clock skew");
        found
    }

    fn check_settings(&self, found: &mut Diagnosis) {
        let urls = std::iter::once(&self.url).chain(&self.former);
        for error in urls.filter_map(|url| check_issuer(url).err()) {
            found.failed(Check::Settings, error.to_string());
        }
        if let Err(error) = self.policy.check() {
            found.failed(Check::Settings, error.to_string());
        }
        if let Err(error) = self.lifetimes.check(&self.policy) {
            found.failed(Check::Settings, error.to_string());
        }
        found.passed(Check::Settings, "the settings are consistent");
    }

    /// What the store says of itself.
    async fn check_status(&self, store: &dyn TokenStore, found: &mut Diagnosis) {
        let sent = self.clock.now();
        let before = sent - (self.policy.clock_skew + MARGIN);
        let status = match store.status(before).await {
            Ok(status) => status,
            Err(error) => return found.store_failed(Check::Schema, &error),
        };
        self.check_server_clock(status.time, sent, found);
        for problem in &status.problems {
            found.failed(Check::Schema, problem.as_str());
        }
        match (&status.server, status.schema) {
            (Some(server), Some(version)) => {
                found.passed(Check::Schema, format!("{server}, tables of version {version}"));
            }
            (Some(server), None) => found.passed(Check::Schema, server.as_str()),
            (None, _) => {
                found.add(Check::Schema, Outcome::Skipped, "the store does not describe itself");
            }
        }
        Self::check_plans(&status, found);
        Self::check_backlog(&status, before, found);
    }

    fn check_plans(status: &StoreStatus, found: &mut Diagnosis) {
        let Some(plans) = &status.plans else {
            let text = "not checked: the store shows no plans";
            return found.add(Check::Plans, Outcome::Skipped, text);
        };
        for QueryPlan { query, index, instead, .. } in plans {
            let Some(instead) = instead else { continue };
            let text = format!(
                "to {query}, the database does not read the index `{index}`: {instead}. Create the \
                 index if it is missing, or let the database analyse its tables"
            );
            found.failed(Check::Plans, text);
        }
        found.passed(Check::Plans, format!("{} queries read their indexes", plans.len()));
    }

    fn check_server_clock(&self, server: Option<UnixTime>, sent: UnixTime, found: &mut Diagnosis) {
        let Some(server) = server else { return };
        let now = self.clock.now();
        // The server read its clock between the two.
        let differs = server.since(now).max(sent.since(server));
        if differs > self.policy.clock_skew {
            found.failed(
                Check::Clock,
                format!(
                    "the clock of the database is {server}, and the one here {now}: they differ \
                     by {differs:?}, and the clock skew is {:?}. Synchronize them",
                    self.policy.clock_skew
                ),
            );
        }
    }

    fn check_backlog(status: &StoreStatus, before: UnixTime, found: &mut Diagnosis) {
        let Some(rows) = status.ended_rows else {
            return found.add(Check::Housekeeping, Outcome::Skipped, "the store does not count");
        };
        let at_most = if rows >= StoreStatus::MAX_COUNTED { " or more" } else { "" };
        match status.oldest_ended {
            Some(oldest) if before.since(oldest) > BACKLOG => found.failed(
                Check::Housekeeping,
                format!(
                    "{rows}{at_most} rows have ended and are still stored, the oldest since \
                     {oldest}: does a server run `run_maintenance`?"
                ),
            ),
            _ => {}
        }
        if let Some(open @ 1..) = status.open_sweeps {
            found.add(
                Check::Housekeeping,
                Outcome::Warning,
                format!(
                    "{open} revocations are in force but have not marked all of their grants yet: \
                     maintenance finishes them"
                ),
            );
        }
        found.passed(Check::Housekeeping, format!("{rows}{at_most} ended rows wait to be deleted"));
    }

    /// Whether the store belongs to the issuer and its secrets.
    async fn check_owner(&self, store: &dyn TokenStore, found: &mut Diagnosis) {
        let placeholder;
        let handles = match &self.handles {
            Some(handles) => handles.clone().for_issuer(&self.url, &self.former),
            None => {
                placeholder = cloakroom_core::handle::HandleSecret::new(0, [0; 32]);
                HandleKeys::new(&placeholder)
            }
        };
        let owner = Owner { url: &self.url, former: &self.former, handles: &handles };
        let compared = owner.compare(store, self.key_store.as_deref()).await;
        let compared = match compared {
            Ok(compared) => compared,
            Err(error) => return found.store_failed(Check::Issuer, &error),
        };
        match compared.issuer {
            Err(error) => found.failed(Check::Issuer, why(&error)),
            Ok(true) => found.passed(Check::Issuer, format!("the store belongs to {}", self.url)),
            Ok(false) => found.add(
                Check::Issuer,
                Outcome::Warning,
                format!("no issuer has used the store yet: a server of {} will claim it", self.url),
            ),
        }
        if self.handles.is_none() {
            let text = "no handle secret was given";
            return found.add(Check::HandleSecrets, Outcome::Skipped, text);
        }
        match compared.handle_keys {
            Err(error) => found.failed(Check::HandleSecrets, why(&error)),
            Ok(true) => found.passed(Check::HandleSecrets, "the handle secrets are the store's"),
            Ok(false) => found.add(
                Check::HandleSecrets,
                Outcome::Warning,
                "the handle secrets here differ from the store's in a way that a server may: one \
                 is new, or one was given up",
            ),
        }
    }

    /// Whether the signing keys can be used, and are on schedule.
    async fn check_keys(&self, found: &mut Diagnosis) {
        let Some(key_store) = &self.key_store else {
            let text = "no key store was given";
            return found.add(Check::SigningKeys, Outcome::Skipped, text);
        };
        let (records, now) = match &self.sealer {
            None => {
                let text = "no key-encryption key was given";
                found.add(Check::SealingKeys, Outcome::Skipped, text);
                match key_store.load().await {
                    Ok(records) => (records, self.clock.now()),
                    Err(error) => return found.store_failed(Check::SigningKeys, &error),
                }
            }
            Some(sealer) => {
                let keys = KeyManager::builder(Arc::clone(key_store), Arc::clone(sealer))
                    .issuer(&*self.url)
                    .policy(self.policy)
                    .clock(Arc::clone(&self.clock));
                let keys = self.former.iter().fold(keys, KeyManagerBuilder::former_issuer);
                match keys.check_ring().await {
                    Ok(ring) => {
                        ring.failures.iter().for_each(|failure| add_key_failure(failure, found));
                        (ring.records, ring.read_at)
                    }
                    // It is a finding about the settings already.
                    Err(KeyManagerError::Policy(_)) => return,
                    Err(error) => return found.store_failed(Check::SigningKeys, &error),
                }
            }
        };
        if self.sealer.is_some() {
            found.passed(Check::SealingKeys, "the key-encryption keys open every published key");
        }
        self.check_schedule(&records, now, found);
    }

    fn check_schedule(&self, records: &[KeyRecord], now: UnixTime, found: &mut Diagnosis) {
        let check = Check::SigningKeys;
        if records.is_empty() {
            let text = "there are no signing keys: a server makes them when it starts";
            return found.add(check, Outcome::Warning, text);
        }
        let rings: BTreeSet<&str> = records.iter().map(|record| record.ring.as_str()).collect();
        let is_due = |ring: &str, at| {
            let step = schedule::next_step(records, ring, at, &self.policy);
            matches!(step, Some(KeyStep::Publish { .. } | KeyStep::Schedule { .. }))
        };
        if rings.iter().any(|ring| is_due(ring, now - PATIENCE) && is_due(ring, now)) {
            found.failed(
                check,
                "a rotation is overdue: does a server run `run_maintenance`? `maintain` makes up \
                 for it, and verifiers that know the next key lose nothing",
            );
        }
        let Some(signer) = schedule::signer(records, MAIN_RING, now) else {
            let text = "no key can sign: run maintenance, and look at its errors";
            return found.failed(check, text);
        };
        if let Some(signing) = &signer.times.signing {
            let (signs, stays) =
                (signing.until.since(signing.from), signing.published_until.since(signing.until));
            if signs > self.policy.rotation || stays < self.policy.retention {
                found.add(
                    check,
                    Outcome::Warning,
                    format!(
                        "the key {} signs for {signs:?} and stays published for {stays:?} after \
                         that, and the settings here say {:?} and {:?}: are they those of the \
                         servers?",
                        signer.kid, self.policy.rotation, self.policy.retention
                    ),
                );
            }
            found.passed(check, format!("the key {} signs until {}", signer.kid, signing.until));
        }
    }

    /// Whether the log can be read to its end, and who writes heartbeats.
    async fn check_log(&self, store: &dyn TokenStore, found: &mut Diagnosis) {
        let check = Check::RevocationLog;
        let (mut cursor, mut newest, mut entries_read) = (Cursor::start(), None, 0_usize);
        for _ in 0..MAX_PAGES {
            match store.revocations(cursor, PAGE).await {
                Err(error @ StoreError::Corrupt { .. }) => {
                    let text = format!(
                        "{}. No server reads on past this row: delete it, and repeat the latest \
                         revocations",
                        with_causes(&error)
                    );
                    return found.failed(check, text);
                }
                Err(error) => return found.store_failed(check, &error),
                Ok(RevocationBatch::Gap) => {
                    return found.add(check, Outcome::Skipped, LOST_PLACE);
                }
                Ok(RevocationBatch::Entries { entries, next, more, .. }) => {
                    entries_read += entries.len();
                    let beats = entries
                        .iter()
                        .filter(|entry| matches!(entry.event, LogEvent::Heartbeat {}))
                        .map(|entry| entry.at);
                    newest = newest.max(beats.max());
                    cursor = next;
                    if !more {
                        break;
                    }
                }
            }
        }
        let now = self.clock.now();
        let Some(newest) = newest else {
            let text = "the log holds no heartbeat: does a server run `run_maintenance`?";
            return found.failed(check, text);
        };
        let (ahead, age) = (newest.since(now), now.since(newest));
        if ahead > self.policy.clock_skew {
            found.failed(
                Check::Clock,
                format!(
                    "a server wrote a heartbeat that is {ahead:?} ahead of the clock here, and the \
                     clock skew is {:?}. Synchronize the clocks",
                    self.policy.clock_skew
                ),
            );
        }
        // A few heartbeats may be late.
        if age > (10 * self.heartbeat).max(Duration::from_secs(30)) + self.policy.clock_skew {
            found.failed(
                check,
                format!(
                    "the newest heartbeat is {age:?} old, and replicas refuse to answer: does a \
                     server run `run_maintenance`?"
                ),
            );
        }
        let text = format!("{entries_read} entries, and the newest heartbeat is {age:?} old");
        found.passed(check, text);
    }
}

fn why(error: &BuildError) -> String {
    match error {
        BuildError::Setting { why, .. } => why.clone(),
        error => with_causes(error),
    }
}

fn add_key_failure(failure: &KeyManagerError, found: &mut Diagnosis) {
    let check = match failure {
        KeyManagerError::OtherSealingKey(_) | KeyManagerError::Seal { .. } => Check::SealingKeys,
        _ => Check::SigningKeys,
    };
    found.failed(check, with_causes(failure));
}
