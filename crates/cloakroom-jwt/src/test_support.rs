//! What unit tests share: records, a store that fails and races on demand, and a source of random
//! bytes that has none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom_core::format::TokenTerms;
use cloakroom_core::keys::{KeyInserted, KeyPolicy, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::record::{Claims, GrantRecord};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{CheckValue, CheckValues, StoreError};
use cloakroom_core::time::{ManualClock, UnixTime};
use cloakroom_core::{
    Audience, ClientId, Confirmation, GrantId, Kid, Random, Scope, Subject, TokenSecret,
};
use serde_json::{Value, json};

use crate::{AesGcmSealer, JwkSet, KeyManager, PublishedJwks};

pub(crate) const ISSUER: &str = "https://as.example";
pub(crate) const ORDERS: &str = "https://orders.example";
pub(crate) const START: UnixTime = UnixTime::from_millis(1_700_000_000_250);

pub(crate) const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

pub(crate) fn clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(START))
}

pub(crate) fn sealer() -> Arc<AesGcmSealer> {
    Arc::new(AesGcmSealer::new(1, [7; 32]))
}

pub(crate) async fn manager(store: &Arc<RingStore>, clock: &Arc<ManualClock>) -> KeyManager {
    with_policy(store, clock, KeyPolicy::default()).await
}

pub(crate) async fn with_policy(
    store: &Arc<RingStore>,
    clock: &Arc<ManualClock>,
    policy: KeyPolicy,
) -> KeyManager {
    KeyManager::builder(Arc::clone(store) as _, sealer())
        .clock(Arc::clone(clock) as _)
        .policy(policy)
        .build()
        .await
        .unwrap()
}

/// The names of the keys in a JWK Set.
pub(crate) fn kids(jwks: &PublishedJwks) -> Vec<Kid> {
    let set = JwkSet::from_json(jwks.json.as_bytes()).unwrap();
    set.iter().map(|jwk| jwk.kid().unwrap().clone()).collect()
}

/// The name of the key that signs.
pub(crate) async fn signer(manager: &KeyManager) -> Kid {
    manager.signer().await.unwrap().kid().clone()
}

/// A ring of keys in memory that counts its calls, fails when told to, and gives every caller a
/// turn to lose a race: it yields before and after each step.
#[derive(Debug)]
pub(crate) struct RingStore {
    ring: Mutex<(Vec<KeyRecord>, u64)>,
    values: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(crate) loads: AtomicU64,
    pub(crate) writes: AtomicU64,
    pub(crate) reads_fail: AtomicBool,
    pub(crate) writes_fail: AtomicBool,
    /// The store goes down right after the next update.
    pub(crate) last_update: AtomicBool,
    /// Writes are done, and their answers lost.
    pub(crate) answers_lost: AtomicBool,
    /// Writes are sent twice, and answered the second time.
    pub(crate) sent_twice: AtomicBool,
    /// How long an insert takes, and the clock that shows it.
    pub(crate) slow_insert: Mutex<Option<(Arc<ManualClock>, Duration)>>,
    /// The same for an update.
    pub(crate) slow_update: Mutex<Option<(Arc<ManualClock>, Duration)>>,
    /// Every generation that was ever inserted.
    pub(crate) generations: Mutex<Vec<u64>>,
}

impl RingStore {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ring: Mutex::default(),
            values: Mutex::default(),
            loads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            reads_fail: AtomicBool::new(false),
            writes_fail: AtomicBool::new(false),
            last_update: AtomicBool::new(false),
            answers_lost: AtomicBool::new(false),
            sent_twice: AtomicBool::new(false),
            slow_insert: Mutex::default(),
            slow_update: Mutex::default(),
            generations: Mutex::default(),
        })
    }

    pub(crate) fn down(&self, down: bool) {
        self.reads_fail.store(down, Ordering::SeqCst);
        self.writes_fail.store(down, Ordering::SeqCst);
    }

    pub(crate) fn loads(&self) -> u64 {
        self.loads.load(Ordering::SeqCst)
    }

    pub(crate) fn records(&self) -> Vec<KeyRecord> {
        self.ring.lock().unwrap().0.clone()
    }

    /// Loses the check values.
    pub(crate) fn forget(&self) {
        self.values.lock().unwrap().clear();
    }

    pub(crate) fn tamper(&self, change: impl FnOnce(&mut Vec<KeyRecord>)) {
        change(&mut self.ring.lock().unwrap().0);
    }

    /// A copy of everything, to be put back by [`RingStore::restore`].
    pub(crate) fn copy(&self) -> (Vec<KeyRecord>, u64) {
        self.ring.lock().unwrap().clone()
    }

    pub(crate) fn restore(&self, copy: (Vec<KeyRecord>, u64)) {
        *self.ring.lock().unwrap() = copy;
    }

    fn updated(&self, is_done: bool) -> KeyUpdated {
        let is_done = is_done && !self.sent_twice.load(Ordering::SeqCst);
        if is_done { KeyUpdated::Updated } else { KeyUpdated::Stale }
    }

    fn check(fails: &AtomicBool) -> Result<(), StoreError> {
        if fails.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("test", "the store is down"));
        }
        Ok(())
    }
}

#[async_trait]
impl CheckValues for RingStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        Self::check(&self.reads_fail)?;
        let values = self.values.lock().unwrap();
        let value = |(name, value): (&String, &Vec<u8>)| CheckValue {
            name: name.clone(),
            value: value.clone(),
        };
        Ok(values.iter().map(value).collect())
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        Self::check(&self.writes_fail)?;
        let mut values = self.values.lock().unwrap();
        let stored = values.get(name).map(Vec::as_slice);
        if stored == value {
            return Ok(true);
        }
        if stored != expected {
            return Ok(false);
        }
        values.remove(name);
        values.extend(value.map(|value| (name.to_owned(), value.to_vec())));
        Ok(true)
    }
}

#[async_trait]
impl KeyStore for RingStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Self::check(&self.reads_fail)?;
        let records = self.records();
        tokio::task::yield_now().await;
        Ok(records)
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Self::check(&self.writes_fail)?;
        if let Some((clock, time)) = &*self.slow_insert.lock().unwrap() {
            clock.advance(*time);
        }
        let mut ring = self.ring.lock().unwrap();
        if record.generation <= ring.1 {
            return Ok(KeyInserted::Taken);
        }
        ring.1 = record.generation;
        self.generations.lock().unwrap().push(record.generation);
        ring.0.push(record);
        Self::check(&self.answers_lost)?;
        let again = self.sent_twice.load(Ordering::SeqCst);
        Ok(if again { KeyInserted::Taken } else { KeyInserted::Inserted })
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Self::check(&self.writes_fail)?;
        if let Some((clock, time)) = &*self.slow_update.lock().unwrap() {
            clock.advance(*time);
        }
        assert_ne!(record.version, expected, "a write gives the record a new version");
        let mut ring = self.ring.lock().unwrap();
        let stored = ring.0.iter_mut().find(|own| own.generation == record.generation);
        match stored.filter(|own| own.version == expected) {
            Some(own) => {
                *own = record;
                if self.last_update.load(Ordering::SeqCst) {
                    self.down(true);
                }
                Self::check(&self.answers_lost)?;
                Ok(self.updated(true))
            }
            None => Ok(KeyUpdated::Stale),
        }
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.writes.fetch_add(1, Ordering::SeqCst);
        tokio::task::yield_now().await;
        Self::check(&self.writes_fail)?;
        let mut ring = self.ring.lock().unwrap();
        let before = ring.0.len();
        ring.0.retain(|own| own.generation != generation || own.version != expected);
        Self::check(&self.answers_lost)?;
        Ok(self.updated(ring.0.len() < before))
    }
}

pub(crate) fn grant() -> GrantRecord {
    let mut grant = GrantRecord::new(
        GrantId::from_bytes([1; 16]),
        ClientId::new("web-app").unwrap(),
        Subject::user("alice").unwrap(),
        Audience::new([ORDERS, "https://billing.example"]).unwrap(),
        START,
        START + secs(86_400),
    );
    grant.scope = Scope::parse("orders:read orders:write").unwrap();
    grant.confirmation = Some(Confirmation::JwkThumbprint([4; 32]));
    grant.auth_time = Some(UnixTime::from_secs(1_699_999_000));
    grant.acr = Some("urn:example:mfa".into());
    grant.epoch = Epoch::new(1_700_000_000_250);
    grant.username = Some("Alice Liddell".into());
    grant.act = Some(Box::new(json!({"sub": "support"})));
    grant.authorization_details = Some(Box::new(json!([{"type": "payment"}])));
    grant.session = Some("sid-1".into());
    grant.claims = Claims::new([("tenant", json!("acme"))]).unwrap();
    grant.row_expires_at = START + secs(90_000);
    grant
}

pub(crate) fn terms() -> TokenTerms {
    let scope = Scope::parse("orders:read").unwrap();
    let mut terms =
        TokenTerms::new(START, START + secs(600), scope, Audience::one(ORDERS).unwrap());
    terms.confirmation = Some(Confirmation::JwkThumbprint([4; 32]));
    terms
}

/// Header and claims of a JWT, unchecked.
pub(crate) fn parts(jwt: &TokenSecret) -> (Value, Value) {
    let json = |part: &str| {
        let bytes = URL_SAFE_NO_PAD.decode(part).unwrap();
        serde_json::from_slice(&bytes).unwrap()
    };
    let mut parts = jwt.expose().split('.');
    (json(parts.next().unwrap()), json(parts.next().unwrap()))
}

pub(crate) fn no_random() -> Random {
    struct None;
    impl rand_core::TryRng for None {
        type Error = std::io::Error;
        fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
            Err(std::io::Error::other("no random bytes"))
        }
        fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
            Err(std::io::Error::other("no random bytes"))
        }
        fn try_fill_bytes(&mut self, _: &mut [u8]) -> Result<(), Self::Error> {
            Err(std::io::Error::other("no random bytes"))
        }
    }
    impl rand_core::TryCryptoRng for None {}
    Random::from_rng(None)
}
