//! A process of the fleet, from inside: an issuer over the shared key store, with a token store of its own.

use std::fmt;
use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom::core::handle::{HandleKeys, HandleSecret};
use cloakroom::core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom::core::store::{CheckValue, CheckValues, StoreError};
use cloakroom::core::time::{ManualClock, UnixTime};
use cloakroom::core::{Kid, TokenSecret};
use cloakroom::jwt::AesGcmSealer;
use cloakroom::memory::MemoryStore;
use cloakroom::{Caller, Client, Format, Grant, GrantType, Issuer, Lifetimes};
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use crate::fleet::{ISSUER, LIFE, ORDERS, Place, policy};

/// The test that is a node, if [`CHILD`] is set.
pub(super) const TEST: &str = "fleet::node::a_process_of_the_fleet";
/// The settings of a node.
pub(super) const CHILD: &str = "CLOAKROOM_FLEET_CHILD";
/// What precedes an answer in its line.
pub(super) const ANSWER: &str = "ANSWER ";

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_process_of_the_fleet() {
    let Ok(settings) = std::env::var(CHILD) else { return };
    let settings: Value = serde_json::from_str(&settings).unwrap();
    let time = |of: &Value| UnixTime::from_millis(of["now"].as_u64().unwrap());
    let clock = Arc::new(ManualClock::at(time(&settings)));
    let shared = Place::from_json(&settings["place"]).open(clock.clone()).await;
    let keys = Arc::new(Faulty::new(shared));
    // The key-encryption keys by their ids: the current one first.
    let ids: Vec<u8> = serde_json::from_value(settings["sealer"].clone()).unwrap();
    let sealer = AesGcmSealer::new(ids[0], [ids[0]; 32]);
    let sealer = ids[1..].iter().fold(sealer, |sealer, id| sealer.with_former(*id, [*id; 32]));
    let client = Client::confidential("service", "a-secret-of-the-tests-0123456789")
        .grant_types([GrantType::ClientCredentials])
        .scope("orders:read")
        .audience(ORDERS, Format::Jwt);
    let issuer = Issuer::builder(ISSUER)
        .token_store(Arc::new(MemoryStore::with_clock(clock.clone())))
        .key_store(keys.clone())
        .handle_keys(HandleKeys::new(&HandleSecret::new(1, [1; 32])))
        .sealer(Arc::new(sealer))
        .static_clients([client])
        .unwrap()
        .clock(clock.clone())
        .key_policy(policy())
        .lifetimes(Lifetimes::default().access_token(LIFE).phantom_jwt(LIFE).adopted_token(LIFE))
        .stateless_jwt();
    let issuer = match issuer.build().await {
        Ok(issuer) => issuer,
        Err(error) => return say(&failed(&error)),
    };
    say(&json!({"ready": true}));

    let mut node = Node { issuer, keys, held: None };
    let mut orders = orders();
    while let Some(order) = orders.recv().await {
        let order: Value = serde_json::from_str(&order).unwrap();
        // A clock that is never set back, and whose monotonic time passes as well.
        let now = cloakroom::core::time::Clock::now(&*clock);
        clock.advance(time(&order).since(now));
        let answer = node.obey(&order).await;
        say(&answer);
    }
}

/// The lines of the standard input.
fn orders() -> mpsc::UnboundedReceiver<String> {
    let (sender, receiver) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lines() {
            if sender.send(line.unwrap()).is_err() {
                break;
            }
        }
    });
    receiver
}

fn say(answer: &Value) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{ANSWER}{answer}").unwrap();
    out.flush().unwrap();
}

struct Node {
    issuer: Issuer,
    keys: Arc<Faulty>,
    /// Maintenance that was held up, and what lets it go on.
    held: Option<(tokio::task::JoinHandle<Value>, oneshot::Sender<()>)>,
}

impl Node {
    async fn obey(&mut self, order: &Value) -> Value {
        match order["do"].as_str().unwrap() {
            "maintain" => self.maintain(order["hold"].as_str()).await,
            "go on" => {
                let (maintaining, go) = self.held.take().unwrap();
                go.send(()).unwrap();
                maintaining.await.unwrap()
            }
            "issue" => {
                let grant = Grant::client("service").unwrap();
                match self.issuer.issue(grant).await {
                    Ok(response) => json!({"token": response.access_token.expose()}),
                    Err(error) => failed(&error),
                }
            }
            "jwks" => match self.issuer.jwks().await {
                Ok(jwks) => json!({"jwks": jwks.json}),
                Err(error) => failed(&error),
            },
            "check" => {
                let mut refused = Vec::new();
                for token in order["tokens"].as_array().unwrap() {
                    let jwt = TokenSecret::new(token.as_str().unwrap());
                    match self.issuer.introspect(&jwt, Caller::Internal).await {
                        Ok(answer) if answer.is_active() => {}
                        Ok(_) => refused.push(token.clone()),
                        Err(error) => return failed(&error),
                    }
                }
                json!({"refused": refused})
            }
            "rotate" => match self.issuer.rotate_keys().await {
                Ok(_) => json!({"rotated": true}),
                Err(error) => failed(&error),
            },
            "reseal" => match self.issuer.reseal_keys().await {
                Ok(done) => serde_json::to_value(done).unwrap(),
                Err(error) => failed(&error),
            },
            "compromise" => {
                let kid = Kid::new(order["kid"].as_str().unwrap()).unwrap();
                match self.issuer.compromise_key(&kid).await {
                    Ok(_) => json!({}),
                    Err(error) => failed(&error),
                }
            }
            what @ ("down" | "up") => {
                self.keys.is_down.store(what == "down", Ordering::SeqCst);
                json!({"down": what == "down"})
            }
            other => panic!("{other}"),
        }
    }

    async fn maintain(&mut self, hold: Option<&str>) -> Value {
        let issuer = self.issuer.clone();
        let maintaining = async move {
            match issuer.maintain().await {
                Ok(_) => json!({}),
                Err(error) => failed(&error),
            }
        };
        let Some(write) = hold else { return maintaining.await };
        let (reached, mut is_reached) = oneshot::channel();
        let (go, may_go) = oneshot::channel();
        *self.keys.hold.lock().unwrap() = Some((write.to_owned(), reached, may_go));
        let mut maintaining = tokio::spawn(maintaining);
        tokio::select! {
            done = &mut maintaining => {
                self.keys.hold.lock().unwrap().take();
                done.unwrap()
            }
            _ = &mut is_reached => {
                self.held = Some((maintaining, go));
                json!({"held": true})
            }
        }
    }
}

/// An error with its causes.
fn failed(error: &dyn std::error::Error) -> Value {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    json!({"error": text})
}

/// The name of a write, the channel that learns when it is about to be sent, and the channel that it then waits
/// for.
type Hold = (String, oneshot::Sender<()>, oneshot::Receiver<()>);

/// The shared store, which can be cut off, and can hold up a write.
struct Faulty {
    store: Arc<dyn KeyStore>,
    is_down: AtomicBool,
    hold: Mutex<Option<Hold>>,
}

impl Faulty {
    fn new(store: Arc<dyn KeyStore>) -> Self {
        Self { store, is_down: AtomicBool::new(false), hold: Mutex::default() }
    }

    async fn pass(&self, call: &str) -> Result<(), StoreError> {
        let hold = self.hold.lock().unwrap().take_if(|(write, ..)| write == call);
        if let Some((_, reached, may_go)) = hold {
            reached.send(()).unwrap();
            may_go.await.unwrap();
        }
        if self.is_down.load(Ordering::SeqCst) {
            return Err(StoreError::unavailable("a test", "the store is cut off"));
        }
        Ok(())
    }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait]
impl CheckValues for Faulty {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.pass("check_values").await?;
        self.store.check_values().await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        self.pass("set_check_value").await?;
        self.store.set_check_value(name, expected, value).await
    }
}

#[async_trait]
impl KeyStore for Faulty {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.pass("load").await?;
        self.store.load().await
    }

    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        self.pass("insert").await?;
        self.store.insert(record).await
    }

    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.pass("update").await?;
        self.store.update(record, expected).await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.pass("delete").await?;
        self.store.delete(generation, expected).await
    }
}
