//! A database of [`Plain`] stores: several instances, a restart, a driver that fails.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use cloakroom_conformance::{Database, Failing, Instance};
use cloakroom_core::keys::KeyRecord;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Epoch, Rule, RuleKey, Rules};
use cloakroom_core::store::{Listing, Lookup, StoreError};
use cloakroom_core::time::{Clock, SystemClock};
use cloakroom_core::{GrantId, TokenDigest};

use tokio::sync::watch;

use super::keys::PlainKeys;
use super::log::{RevocationLog, random};
use super::state::{Slot, State};
use super::{Manners, Plain};
use crate::mutants::fault::Fault;

/// What stands between a store and its data.
#[derive(Debug, Default)]
pub(crate) struct Driver(Mutex<Option<Failing>>, AtomicBool);

impl Driver {
    fn lock(&self) -> MutexGuard<'_, Option<Failing>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it has failed ever.
    pub(crate) fn has_failed(&self) -> bool {
        self.1.load(Ordering::Acquire)
    }

    pub(crate) fn failed<T>() -> Result<T, StoreError> {
        Err(StoreError::unavailable("asking the database", "it is out of reach"))
    }

    /// Begins one operation; whether its answer will be lost.
    pub(crate) fn begin(&self) -> Result<bool, StoreError> {
        match &mut *self.lock() {
            None => Ok(false),
            Some(Failing::AnswersLost) => Ok(true),
            Some(Failing::After(left)) if *left > 0 => {
                *left -= 1;
                Ok(false)
            }
            Some(_) => {
                self.1.store(true, Ordering::Release);
                Self::failed()
            }
        }
    }

    /// One operation.
    pub(crate) fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, StoreError> {
        let loses_answers = self.begin()?;
        let done = work();
        if loses_answers { Self::failed() } else { Ok(done) }
    }
}

/// What one instance keeps to itself, if that is what it does wrong.
#[derive(Debug)]
pub(crate) struct Local {
    pub(crate) id: [u8; 16],
    pub(crate) bound: Epoch,
    pub(crate) rules: HashMap<Vec<RuleKey>, Rules>,
    pub(crate) known: HashMap<RuleKey, Rule>,
    pub(crate) found: HashMap<(GrantId, Option<TokenDigest>), Lookup>,
    pub(crate) listed: HashMap<String, Listing>,
    pub(crate) ring: Option<Vec<KeyRecord>>,
    pub(crate) grown: watch::Sender<u64>,
    pub(crate) created: HashSet<GrantId>,
    pub(crate) stepped: HashSet<GrantId>,
    pub(crate) highest: u64,
}

impl Local {
    pub(crate) fn new() -> Self {
        Self {
            id: random(),
            bound: Epoch::new(SystemClock::new().now().as_millis()),
            rules: HashMap::new(),
            known: HashMap::new(),
            found: HashMap::new(),
            listed: HashMap::new(),
            ring: None,
            grown: watch::Sender::new(0),
            created: HashSet::new(),
            stepped: HashSet::new(),
            highest: 0,
        }
    }

    /// This instance has written something.
    pub(crate) fn forget(&mut self) {
        self.rules.clear();
        self.found.clear();
        self.listed.clear();
        self.ring = None;
    }

    /// Whether the rules that it knows let the grant pass.
    pub(crate) fn lets_pass(&self, grant: &GrantRecord) -> bool {
        let keys = grant.rule_keys();
        !keys.iter().any(|key| self.known.get(key).is_some_and(|rule| rule.denies(grant.epoch)))
    }
}

#[derive(Debug)]
pub(crate) struct PlainDatabase {
    stores: Mutex<(Plain, PlainKeys)>,
    driver: Arc<Driver>,
}

impl PlainDatabase {
    pub(crate) fn new(fault: Option<Fault>, manners: Manners) -> Self {
        let plain = Plain::new(fault, manners);
        let keys = PlainKeys::beside(&plain);
        let driver = plain.driver();
        Self { stores: Mutex::new((plain, keys)), driver }
    }

    fn lock(&self) -> MutexGuard<'_, (Plain, PlainKeys)> {
        self.stores.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn instance(&self) -> Instance {
        let stores = self.lock();
        Instance::new(Arc::new(stores.0.another()), Arc::new(stores.1.another()))
    }
}

#[async_trait]
impl Database for PlainDatabase {
    async fn open(&self) -> Instance {
        self.instance()
    }

    async fn another(&self) -> Option<Instance> {
        Some(self.instance())
    }

    async fn restart(&self) -> Option<Instance> {
        {
            let mut stores = self.lock();
            let plain = stores.0.reborn();
            let keys = stores.1.reborn(&plain);
            *stores = (plain, keys);
        }
        Some(self.instance())
    }

    async fn fail(&self, failing: Failing) -> bool {
        *self.driver.lock() = Some(failing);
        true
    }

    async fn heal(&self) {
        *self.driver.lock() = None;
    }

    async fn damage(&self, grant: GrantId) -> bool {
        self.lock().0.lock().damaged.insert(grant)
    }
}

impl State {
    /// What is found after a restart.
    pub(crate) fn reborn(&self) -> Self {
        let mut state = Self { revocation_log: self.revocation_log.reborn(), ..self.clone() };
        match self.fault {
            Some(Fault::TombstonesAreForgotten) => {
                state.slots.retain(|_, slot| matches!(slot, Slot::Grant(_)));
            }
            Some(Fault::SweepsAreForgotten) => state.sweeps.clear(),
            Some(Fault::LastStepIsForgotten) => {
                for (id, record) in &self.previous {
                    state.slots.insert(*id, Slot::Grant(record.clone()));
                }
            }
            Some(Fault::FlagsAreForgotten) => {
                for slot in state.slots.values_mut() {
                    if let Slot::Grant(grant) = slot {
                        grant.revoked_at = None;
                    }
                }
            }
            Some(Fault::AttachedTokensAreForgotten) => {
                let last = state.tokens.keys().next_back().copied();
                state.tokens.retain(|key, _| Some(*key) != last);
            }
            Some(Fault::IndexIsForgotten) => {
                state.unindexed = state.slots.keys().copied().collect::<BTreeSet<_>>();
            }
            _ => {}
        }
        state
    }
}

impl RevocationLog {
    fn reborn(&self) -> Self {
        let mut revocation_log = Self { grown: watch::Sender::new(0), ..self.clone() };
        let now = Epoch::new(SystemClock::new().now().as_millis());
        match self.fault {
            Some(Fault::BoundIsForgotten) => revocation_log.newest_bound = now,
            Some(Fault::BoundIsThatOfTheRules) => {
                let bounds = revocation_log.rules.values().filter_map(|rule| rule.bound);
                revocation_log.newest_bound = bounds.max().unwrap_or(now);
            }
            Some(Fault::HeartbeatBoundIsForgotten) => {
                revocation_log.newest_bound = revocation_log.allotted;
            }
            Some(Fault::LastEntryIsForgotten) => drop(revocation_log.log.pop_last()),
            Some(Fault::SecondRuleIsForgotten) => {
                revocation_log.rules.extend(revocation_log.first_rules.clone());
            }
            Some(Fault::IncarnationIsRedrawn) => revocation_log.incarnation = random(),
            Some(Fault::LogIsForgotten) => revocation_log.log.clear(),
            Some(Fault::PositionsBeginAnew) => revocation_log.newest = 0,
            Some(Fault::RulesAreForgotten) => revocation_log.rules.clear(),
            _ => {}
        }
        revocation_log
    }
}
