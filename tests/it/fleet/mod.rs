//! Signing keys of a fleet: processes that share a key store and nothing else.
//!
//! The coordinator tells each process what time it is, with a skew of its own, and waits for its answer.
//! So nothing depends on how fast a process is, except which of them wins a race.
//!
//! The test is told true times. The clocks of two processes differ by at most [`SKEW`].

mod node;
mod process;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloakroom::core::Kid;
use cloakroom::core::keys::schedule::{MAIN_RING, signer};
use cloakroom::core::keys::{KeyPolicy, KeyRecord, KeyStore};
use cloakroom::core::time::{Clock, ManualClock, UnixTime};
use cloakroom::jwt::{JwkSet, KeySet, Verifier};
use cloakroom::sqlite::{SqliteStore, Synchronous};
use serde_json::{Value, json};

use crate::dice::Dice;
use crate::fixture::{Kind, Server};
use crate::fleet::process::Process;

const ISSUER: &str = "https://as.example";
const ORDERS: &str = "https://orders.example";
const START: UnixTime = UnixTime::from_millis(1_700_000_000_000);

/// The largest difference between any two clocks.
const SKEW: Duration = Duration::from_secs(5);
const LIFE: Duration = Duration::from_secs(60);
const PROCESSES: usize = 8;

/// The shortest times that the inequalities allow, but for the rotation.
fn policy() -> KeyPolicy {
    let (max_age, reload, leeway, blind) = (secs(60), secs(10), secs(5), secs(30));
    let ahead = max_age + 2 * reload + SKEW;
    let policy = KeyPolicy::default()
        .jwks_max_age(max_age)
        .reload(reload)
        .clock_skew(SKEW)
        .leeway(leeway)
        .max_blind(blind)
        .max_token_life(LIFE)
        .publish_ahead(ahead)
        // A third key is made when two are no longer enough.
        .rotation(ahead + secs(30))
        .retention(LIFE + SKEW + leeway + blind);
    policy.check().unwrap();
    let less = policy.publish_ahead(ahead - Duration::from_millis(1));
    assert!(less.check().is_err() && policy.retention(policy.retention - secs(1)).check().is_err());
    policy
}

const fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

/// Where the key store is.
#[derive(Debug, Clone)]
enum Place {
    Sqlite(PathBuf),
    Server(Kind, String),
}

impl Place {
    fn server(kind: Kind) -> Self {
        let random: [u8; 8] = cloakroom::core::Random::system().array().unwrap();
        Self::Server(kind, format!("t{:016x}_", u64::from_le_bytes(random)))
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Sqlite(path) => json!({"sqlite": path.to_str().unwrap()}),
            Self::Server(kind, name) => json!({"server": format!("{kind:?}"), "name": name}),
        }
    }

    fn from_json(json: &Value) -> Self {
        if let Some(path) = json["sqlite"].as_str() {
            return Self::Sqlite(path.into());
        }
        let all = [Kind::Mysql, Kind::Postgres, Kind::Redis];
        let kind = all.into_iter().find(|kind| json["server"] == format!("{kind:?}")).unwrap();
        Self::Server(kind, json["name"].as_str().unwrap().to_owned())
    }

    async fn open(&self, clock: Arc<dyn Clock>) -> Arc<dyn KeyStore> {
        match self {
            Self::Sqlite(path) => {
                // No machine loses its power here.
                let store = SqliteStore::builder(path).synchronous(Synchronous::Normal);
                Arc::new(store.clock(clock).open().unwrap())
            }
            Self::Server(kind, name) => {
                use crate::fixture::Fixture as _;
                Server::of_name(*kind, name.clone(), clock).open().await.keys
            }
        }
    }
}

/// The fleet, and what was seen of it.
struct Fleet {
    now: UnixTime,
    nodes: Vec<Process>,
    store: Arc<dyn KeyStore>,
    /// The key of each generation, as it was first seen.
    generations: BTreeMap<u64, String>,
    /// The JWK Sets that verifiers may have, by document: when it was last asked for, and its keys.
    cached: HashMap<String, (UnixTime, KeySet)>,
    /// Tokens that have not expired.
    tokens: Vec<Token>,
    signers: BTreeSet<String>,
    compromised: BTreeSet<String>,
}

#[derive(Debug, Clone)]
struct Token {
    jwt: String,
    kid: String,
    expires: UnixTime,
}

impl Token {
    fn of(jwt: &str) -> Self {
        let json = |part: &str| -> Value {
            serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
        };
        let mut parts = jwt.split('.');
        let (header, claims) = (json(parts.next().unwrap()), json(parts.next().unwrap()));
        let expires = UnixTime::from_secs(claims["exp"].as_u64().unwrap());
        Self { jwt: jwt.to_owned(), kid: header["kid"].as_str().unwrap().to_owned(), expires }
    }
}

impl Fleet {
    /// All processes start at once, and race to make the first keys.
    async fn start(place: &Place, processes: usize) -> Self {
        let most = SKEW.as_millis() as i64;
        let skew = |index: usize| match processes {
            1 => 0,
            _ => most * index as i64 / (processes as i64 - 1) - most / 2,
        };
        let mut nodes: Vec<Process> =
            (0..processes).map(|index| Process::start(place, START, skew(index), &[1])).collect();
        for node in &mut nodes {
            let ready = node.answer();
            assert_eq!(ready, json!({"ready": true}));
        }
        let store = place.open(Arc::new(ManualClock::at(START))).await;
        Self {
            now: START,
            nodes,
            store,
            generations: BTreeMap::new(),
            cached: HashMap::new(),
            tokens: Vec::new(),
            signers: BTreeSet::new(),
            compromised: BTreeSet::new(),
        }
    }

    async fn records(&mut self) -> Vec<KeyRecord> {
        let records = self.store.load().await.unwrap();
        for record in &records {
            let kid = record.kid.to_string();
            let known = self.generations.entry(record.generation).or_insert_with(|| kid.clone());
            assert_eq!(*known, kid, "two keys of generation {}", record.generation);
        }
        records
    }

    /// Gives one order to each of these nodes, all at once.
    fn all(&mut self, nodes: &[usize], order: impl Fn(usize) -> Value) -> Vec<(usize, Value)> {
        for &index in nodes {
            self.nodes[index].send(self.now, &order(index));
        }
        nodes.iter().map(|&index| (index, self.nodes[index].answer())).collect()
    }

    fn one(&mut self, node: usize, order: &Value) -> Value {
        self.nodes[node].ask(self.now, order)
    }

    /// What one process issued counts from now on.
    fn issued(&mut self, node: usize, answer: &Value) -> Token {
        let token =
            Token::of(answer["token"].as_str().unwrap_or_else(|| panic!("{node}: {answer}")));
        self.signers.insert(token.kid.clone());
        self.tokens.push(token.clone());
        token
    }

    /// A verifier whose clock is right. It accepts what expired less than the leeway ago.
    fn verify(&self, keys: &KeySet, token: &Token, when: &str) {
        let clock = Arc::new(ManualClock::at(self.now));
        let verifier = Verifier::new(ISSUER, ORDERS).clock(clock).leeway(policy().leeway + SKEW);
        if let Err(error) = verifier.verify(keys, &token.jwt) {
            panic!("{when}, at {:?}: {error}: {token:?} with {keys:?}", self.now);
        }
    }

    /// Forgets what no longer matters.
    fn forget(&mut self) {
        let now = self.now;
        self.cached.retain(|_, (asked, _)| now.since(*asked) <= policy().jwks_max_age);
        self.tokens.retain(|token| now < token.expires + policy().leeway);
        let compromised = self.compromised.clone();
        self.tokens.retain(|token| !compromised.contains(&token.kid));
    }

    /// Every node serves its JWK Set, and every token that any node issued verifies with it.
    fn check_jwk_sets(&mut self, nodes: &[usize]) {
        let mut documents = BTreeSet::new();
        for (node, answer) in self.all(nodes, |_| json!({"do": "jwks"})) {
            let jwks = answer["jwks"].as_str().unwrap_or_else(|| panic!("{node}: {answer}"));
            documents.insert(jwks.to_owned());
        }
        for document in documents {
            let known = self.cached.get(&document).map(|(_, keys)| keys.clone());
            let keys = known.unwrap_or_else(|| {
                KeySet::prepare(&JwkSet::from_json(document.as_bytes()).unwrap())
            });
            for token in &self.tokens {
                self.verify(&keys, token, "with a JWK Set that is served now");
            }
            for kid in &self.compromised {
                let kid = Kid::new(kid.as_str()).unwrap();
                assert!(!keys.contains(&kid), "a compromised key is published");
            }
            self.cached.insert(document, (self.now, keys));
        }
    }

    /// Every verifier accepts these tokens, if it asked for the JWK Set up to its `max-age` ago.
    fn check_verifiers(&self, tokens: &[Token]) {
        for (asked, keys) in self.cached.values() {
            for token in tokens {
                self.verify(keys, token, &format!("with a JWK Set of {asked:?}"));
            }
        }
    }

    /// When the last key stops signing, if no process makes another.
    async fn last_end(&mut self) -> UnixTime {
        let records = self.records().await;
        let ends = records.iter().filter(|record| record.compromised_at.is_none());
        ends.filter_map(|record| Some(record.times.signing.as_ref()?.until)).max().unwrap()
    }

    /// The key that signs by the true time, if every verifier knows the one that signs in its place. For a
    /// process whose clock is ahead, another one may sign already.
    async fn dispensable(&mut self) -> Option<Kid> {
        let mut records = self.records().await;
        let current = signer(&records, MAIN_RING, self.now).unwrap().kid.clone();
        records.retain(|record| record.kid != current);
        let successor = signer(&records, MAIN_RING, self.now)?;
        let known = successor.times.published + policy().known_after() + SKEW;
        (known <= self.now).then_some(current)
    }

    /// A process learns that a key is compromised. The others follow with their next load, which is due once
    /// they have their reload interval behind them.
    fn compromise(&mut self, node: usize, kid: &Kid) {
        let answer = self.one(node, &json!({"do": "compromise", "kid": kid.as_str()}));
        assert_eq!(answer, json!({}), "{node}");
        self.compromised.insert(kid.as_str().to_owned());
        self.now = self.now + policy().reload + Duration::from_millis(1);
        self.forget();
    }
}

/// Over many rotations, planned, ordered and after a leak, every token that any process issues is
/// accepted by every process, and by every verifier, whatever JWK Set it has.
async fn every_token_is_accepted_everywhere(place: Place, rotations: usize) {
    let dice = Dice::from_environment();
    println!("CLOAKROOM_SEED={}", dice.seed);
    let mut fleet = Fleet::start(&place, PROCESSES).await;
    let everyone: Vec<usize> = (0..PROCESSES).collect();
    assert_eq!(fleet.records().await.len(), 2, "eight processes made two keys");
    let (mut steps, mut rest) = (0, START);
    while fleet.signers.len() < rotations + 1 {
        steps += 1;
        assert!(steps < 40 * rotations, "{} rotations in {steps} steps", fleet.signers.len());
        fleet.now = fleet.now + Duration::from_millis(1 + dice.draw() % 30_000);
        fleet.forget();
        if fleet.now >= rest && dice.percent(4) {
            // No process runs maintenance for a while, so that the next key is published late.
            rest = fleet.now + Duration::from_millis(dice.draw() % 300_000);
            rest = rest.min(fleet.last_end().await - SKEW - secs(30));
        }
        let is_resting = fleet.now < rest;
        // Otherwise every process runs it in most steps, at the same time as the others.
        let share = if is_resting { 0 } else { 80 };
        let maintained: Vec<usize> =
            everyone.iter().copied().filter(|_| dice.percent(share)).collect();
        for (node, answer) in fleet.all(&maintained, |_| json!({"do": "maintain"})) {
            assert!(answer["error"].is_null(), "{node}: {answer}");
        }
        match dice.below(20) {
            // An order runs maintenance, too.
            _ if is_resting => {}
            0 => {
                let orders: Vec<usize> = everyone[..2 + dice.below(3)].to_vec();
                for (node, answer) in fleet.all(&orders, |_| json!({"do": "rotate"})) {
                    let refused = answer["error"].as_str().unwrap_or_default();
                    let is_early = refused.contains("rotate again at");
                    assert!(answer["rotated"] == true || is_early, "{node}: {answer}");
                }
            }
            1 if dice.percent(50) => {
                if let Some(kid) = fleet.dispensable().await {
                    fleet.compromise(dice.below(PROCESSES), &kid);
                }
            }
            _ => {}
        }
        let mut new = Vec::new();
        for (node, answer) in fleet.all(&everyone, |_| json!({"do": "issue"})) {
            let token = fleet.issued(node, &answer);
            assert!(!fleet.compromised.contains(&token.kid), "{node} signs with a compromised key");
            new.push(token);
        }
        let jwts: Vec<&str> = new.iter().map(|token| &*token.jwt).collect();
        for (node, answer) in fleet.all(&everyone, |_| json!({"do": "check", "tokens": jwts})) {
            assert_eq!(answer, json!({"refused": []}), "{node}");
        }
        fleet.check_verifiers(&new);
        fleet.check_jwk_sets(&everyone);
        let records = fleet.records().await;
        let highest = records.iter().map(|record| record.generation).max().unwrap();
        let ended = fleet.signers.len() + fleet.compromised.len();
        assert!(highest as usize <= ended + 3, "{highest} keys were made for {ended}");
    }
}

/// A process that is stopped in the middle of a rotation, right before it writes.
async fn a_paused_process_writes_nothing_old(place: Place) {
    let mut fleet = Fleet::start(&place, 4).await;
    let (everyone, others) = ([0, 1, 2, 3], [1, 2, 3]);
    fleet.now = fleet.now + secs(1);
    // It has loaded the ring, sees that a key is due, and makes it.
    for (held, count) in [("insert", 1), ("update", 4)] {
        let mut is_held = false;
        for _ in 0..60 {
            fleet.now = fleet.now + secs(7);
            let answer = fleet.one(0, &json!({"do": "maintain", "hold": held}));
            is_held = answer["held"] == true;
            if is_held {
                break;
            }
            for (node, answer) in fleet.all(&others, |_| json!({"do": "maintain"})) {
                assert!(answer["error"].is_null(), "{node}: {answer}");
            }
        }
        assert!(is_held, "no {held} came");
        fleet.nodes[0].pause();
        let before = fleet.signers.len();
        while fleet.signers.len() < before + count {
            fleet.now = fleet.now + secs(9);
            fleet.forget();
            for (node, answer) in fleet.all(&others, |_| json!({"do": "maintain"})) {
                assert!(answer["error"].is_null(), "{node}: {answer}");
            }
            for (node, answer) in fleet.all(&others, |_| json!({"do": "issue"})) {
                fleet.issued(node, &answer);
            }
            fleet.check_jwk_sets(&others);
        }
        let ended = |records: Vec<KeyRecord>, now: UnixTime| -> Vec<KeyRecord> {
            let until = |record: &KeyRecord| record.times.signing.as_ref().map(|times| times.until);
            let has_ended = |record: &KeyRecord| until(record).is_some_and(|until| until <= now);
            records.into_iter().filter(has_ended).collect()
        };
        let now = fleet.now;
        let before = ended(fleet.records().await, now);
        // One of the keys that it knows leaks in the meantime.
        if held == "update"
            && let Some(kid) = fleet.dispensable().await
        {
            fleet.compromise(1, &kid);
        }
        // It wakes up, and sends what it was about to write.
        fleet.nodes[0].wake();
        let answer = fleet.one(0, &json!({"do": "go on"}));
        assert!(answer["error"].is_null(), "{answer}");
        assert_eq!(ended(fleet.records().await, now), before, "{held}: it wrote old times back");
        let mut new = Vec::new();
        for (node, answer) in fleet.all(&everyone, |_| json!({"do": "issue"})) {
            new.push(fleet.issued(node, &answer));
        }
        assert!(new.iter().all(|token| !fleet.compromised.contains(&token.kid)), "{held}");
        fleet.check_verifiers(&new);
        fleet.check_jwk_sets(&everyone);
    }
}

/// The key-encryption key is replaced, process by process, while keys rotate and tokens are issued.
async fn the_key_encryption_key_is_replaced(place: Place) {
    let mut fleet = Fleet::start(&place, 4).await;
    let everyone = [0, 1, 2, 3];
    let ready = json!({"ready": true});
    for sealer in [&[1, 2][..], &[2, 1], &[2]] {
        if sealer == [2] {
            // All of them are told to seal everything again, at once, while a key is rotated.
            fleet.now = fleet.now + policy().known_after() + SKEW;
            fleet.forget();
            let order = |node| json!({"do": if node == 3 { "rotate" } else { "reseal" }});
            for (node, answer) in fleet.all(&everyone, order) {
                assert!(answer["error"].is_null(), "{node}: {answer}");
            }
            let done = fleet.one(0, &json!({"do": "reseal"}));
            let expected =
                json!({"current": "2", "resealed": 0, "remaining": 0, "removable": ["1"]});
            assert_eq!(done, expected);
            // A process that still has the older key alone is told why it cannot start.
            let now = fleet.now;
            let refused = fleet.nodes[3].restart(&place, now, &[1]).to_string();
            assert!(refused.contains("the key-encryption key 1, which seals here"), "{refused}");
            assert!(refused.contains("was replaced by 2"), "{refused}");
            assert_eq!(fleet.nodes[3].restart(&place, now, &[2, 1]), ready);
        }
        for node in everyone {
            fleet.now = fleet.now + secs(12);
            fleet.forget();
            let now = fleet.now;
            assert_eq!(fleet.nodes[node].restart(&place, now, sealer), ready, "{node}: {sealer:?}");
            for (node, answer) in fleet.all(&everyone, |_| json!({"do": "maintain"})) {
                assert!(answer["error"].is_null(), "{node}: {answer}");
            }
            let mut new = Vec::new();
            for (node, answer) in fleet.all(&everyone, |_| json!({"do": "issue"})) {
                new.push(fleet.issued(node, &answer));
            }
            fleet.check_verifiers(&new);
            fleet.check_jwk_sets(&everyone);
        }
    }
    for record in fleet.records().await {
        assert_eq!(record.sealed[..2], [1, 2], "the version, and the id of the key");
    }
}

/// A process that cannot reach the key store continues with the keys that it has for a while, and then says why it
/// stops.
async fn without_the_store_a_process_signs_for_a_while(place: Place) {
    let mut fleet = Fleet::start(&place, 2).await;
    // Right before a change of keys.
    let first = fleet.records().await.remove(0).times.signing.unwrap().until;
    while fleet.now + SKEW + secs(5) < first {
        fleet.now = (fleet.now + policy().reload).min(first - SKEW - secs(5));
        for (node, answer) in fleet.all(&[0, 1], |_| json!({"do": "maintain"})) {
            assert!(answer["error"].is_null(), "{node}: {answer}");
        }
        fleet.check_jwk_sets(&[0, 1]);
        fleet.forget();
    }
    let loaded = fleet.now;
    assert_eq!(fleet.one(1, &json!({"do": "down"})), json!({"down": true}));
    let mut kids = BTreeSet::new();
    while fleet.now < loaded + policy().max_blind {
        fleet.now = (fleet.now + secs(3)).min(loaded + policy().max_blind);
        fleet.forget();
        let answer = fleet.one(0, &json!({"do": "maintain"}));
        assert!(answer["error"].is_null(), "{answer}");
        for (node, answer) in fleet.all(&[0, 1], |_| json!({"do": "issue"})) {
            let token = fleet.issued(node, &answer);
            fleet.check_verifiers(std::slice::from_ref(&token));
            if node == 1 {
                kids.insert(token.kid);
            }
        }
        // Only the other one vouches for a JWK Set.
        fleet.check_jwk_sets(&[0]);
        let answer = fleet.one(1, &json!({"do": "jwks"}));
        let is_fresh = fleet.now.since(loaded) <= policy().reload;
        assert_eq!(answer["jwks"].is_string(), is_fresh, "{answer}");
    }
    assert_eq!(kids.len(), 2, "it changed keys by its clock");
    fleet.now = fleet.now + Duration::from_millis(1);
    let answer = fleet.one(1, &json!({"do": "issue"}));
    let why = answer["error"].as_str().unwrap_or_else(|| panic!("{answer}"));
    assert!(why.contains("the ring of keys was loaded 30.001s ago"), "{why}");
    assert!(why.contains("may be used for only 30s"), "{why}");
    assert!(why.contains("the store is cut off"), "{why}");
    // It resumes by itself.
    assert_eq!(fleet.one(1, &json!({"do": "up"})), json!({"down": false}));
    fleet.now = fleet.now + secs(2);
    let answer = fleet.one(1, &json!({"do": "issue"}));
    fleet.issued(1, &answer);
    fleet.check_jwk_sets(&[0, 1]);
}

macro_rules! on {
    ($module:ident, $place:expr) => {
        mod $module {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn every_token_is_accepted_everywhere() {
                let _turn = crate::TURN.lock().await;
                let (place, _folder) = $place;
                super::every_token_is_accepted_everywhere(place, 200).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn a_paused_process_writes_nothing_old() {
                let (place, _folder) = $place;
                super::a_paused_process_writes_nothing_old(place).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn the_key_encryption_key_is_replaced() {
                let (place, _folder) = $place;
                super::the_key_encryption_key_is_replaced(place).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn without_the_store_a_process_signs_for_a_while() {
                let (place, _folder) = $place;
                super::without_the_store_a_process_signs_for_a_while(place).await;
            }
        }
    };
}

on!(in_sqlite, {
    let folder = tempfile::tempdir().unwrap();
    (Place::Sqlite(folder.path().join("keys.db")), folder)
});
on!(with_postgres, (Place::server(Kind::Postgres), ()));
on!(with_redis, (Place::server(Kind::Redis), ()));
on!(with_mysql, (Place::server(Kind::Mysql), ()));
