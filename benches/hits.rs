//! The cost of a request whose token is remembered, introspected or verified: among 100,000 tokens,
//! with a replica that holds 10,000 rules.

use std::hint::black_box;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cloakroom::{Client, Format, Grant, Issuer, LocalIntrospector, Serves};
use cloakroom_benches::{Dice, Pair, Row, Suite, Team, Timed, now, per_call, timed};
use cloakroom_core::keys::KeyPolicy;
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use cloakroom_core::{ActiveToken, Audience, GrantId, Subject, TokenSecret};
use cloakroom_jwt::Algorithm;
use cloakroom_memory::MemoryStore;
use cloakroom_resource::{
    BearerLayer, HttpClient, HttpError, RevocationReplica, StoreLog, Verifier,
};
use http::{Request, Response};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use quick_cache::sync::Cache;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tokio::runtime::Runtime;

const URL: &str = "https://as.example";
const AUDIENCE: &str = "https://orders.example";
const SECRET: &str = "hB3xYtR8eKfC6vUwQ0iZsMqD1nGpL7oA";
const DAY: Duration = Duration::from_secs(24 * 3600);

fn main() {
    let suite = Suite::from_args();
    let (tokens, rules) = if suite.is_quick() { (1_000, 100) } else { (100_000, 10_000) };
    let runtime = Runtime::new().expect("a runtime");
    let server = runtime.block_on(Server::start(rules));

    let opaque = runtime.block_on(server.opaque(tokens));
    let pair = opaque.hit("an introspected token from memory").floor(FLOOR, opaque.floor());
    suite.report(pair.at_most(1.45).measure(&suite));
    suite.report(opaque.two_threads("introspected tokens from memory, on two threads", &suite));
    let pair = server.after_a_revocation(&opaque, &runtime).floor(FLOOR, opaque.floor());
    suite.report(pair.measure(&suite));
    drop(opaque);

    let jwts = runtime.block_on(server.jwts(tokens));
    let keys = runtime.block_on(server.issuer.jwks()).expect("keys");
    let pair = jwts.hit("verified JWTs from memory").floor(DECODE, jwts.decode(&keys.json));
    suite.report(pair.beside(FLOOR, jwts.floor()).per_second().at_least(30.0).measure(&suite));
    suite.report(jwts.two_threads("verified JWTs from memory, on two threads", &suite));
}

const FLOOR: &str = "SHA-256 of the token, one `get` of the same cache";
const DECODE: &str = "`jsonwebtoken::decode`, ES256";

/// An authorization server, and a replica of its revocation log.
struct Server {
    issuer: Issuer,
    replica: RevocationReplica,
}

impl Server {
    async fn start(rules: usize) -> Self {
        let store = MemoryStore::new();
        let client = |id, format| {
            let client = Client::public(id).scope("orders:read");
            client.audience(AUDIENCE, format).build().expect("valid")
        };
        let serves = Serves::Only(Audience::one(AUDIENCE).expect("valid"));
        let issuer = Issuer::dev()
            .url(URL)
            .store(Arc::new(store.clone()))
            .algorithm(Algorithm::Es256)
            .lifetimes(cloakroom::Lifetimes::default().access_token(DAY))
            .key_policy(KeyPolicy::default().max_token_life(DAY))
            .static_clients([
                client("opaque", Format::Opaque),
                client("jwt", Format::Jwt),
                Client::resource_server("api", SECRET, serves).build().expect("valid"),
            ])
            .expect("valid")
            .build()
            .await
            .expect("an issuer");
        for number in 0..rules {
            if number % 2 == 0 {
                issuer.revoke_grant(grant(number)).await.expect("revoked");
            } else {
                let user = Subject::user(format!("gone-{number}")).expect("valid");
                issuer.revoke_subject(&user).await.expect("revoked");
            }
        }
        // Heartbeats keep the replica fresh.
        let maintained = issuer.clone();
        tokio::spawn(async move { maintained.run_maintenance().await });
        let log = StoreLog::new(Arc::new(store));
        let replica = RevocationReplica::follow(log).await.expect("a replica");
        assert_eq!(replica.rules(), rules);
        Self { issuer, replica }
    }

    async fn opaque(&self, count: usize) -> Remembered {
        let api = "api".parse().expect("valid");
        let local = LocalIntrospector::new(self.issuer.clone(), &api).await.expect("it is known");
        let layer = BearerLayer::introspecting(local, URL, AUDIENCE)
            .cache(with_room(count))
            .replica(self.replica.clone());
        Remembered::fill(layer, self.tokens("opaque", count).await).await
    }

    async fn jwts(&self, count: usize) -> Remembered {
        let keys = self.issuer.jwks().await.expect("keys");
        let client = Jwks(keys.json.clone().into());
        let verifier = Verifier::fetching(URL, AUDIENCE, "https://as.example/jwks", client)
            .expect("valid")
            .cache(with_room(count))
            .replica(self.replica.clone());
        Remembered::fill(BearerLayer::new(verifier), self.tokens("jwt", count).await).await
    }

    async fn tokens(&self, client: &str, count: usize) -> Vec<TokenSecret> {
        let mut tokens = Vec::with_capacity(count);
        for number in 0..count {
            let grant = Grant::user(client, format!("user-{number}")).expect("valid");
            let grant = grant.scope("orders:read").expect("valid");
            tokens.push(self.issuer.issue(grant).await.expect("tokens").access_token);
        }
        tokens
    }

    /// Each turn begins when a new rule has arrived, so that every token is looked up among them.
    fn after_a_revocation<'a>(&'a self, tokens: &'a Remembered, runtime: &'a Runtime) -> Pair<'a> {
        let (mut dice, mut number) = (Dice::new(3), 1_000_000);
        Pair::new(
            "the same, the first time after another one was revoked",
            Box::new(move |calls| {
                let (presented, rules) = (tokens.presented(&mut dice, calls), self.replica.rules());
                number += 1;
                runtime.block_on(self.issuer.revoke_grant(grant(number))).expect("revoked");
                while self.replica.rules() == rules {
                    std::hint::spin_loop();
                }
                timed(|| tokens.verify_all(&presented))
            }),
        )
    }
}

/// The id of a grant that does not exist.
fn grant(number: usize) -> GrantId {
    let mut id = [0xff; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    GrantId::from_bytes(id)
}

/// Shards do not fill evenly.
const fn with_room(tokens: usize) -> usize {
    tokens + tokens / 4
}

/// Tokens that a layer remembers, and a cache of the same size.
struct Remembered {
    layer: BearerLayer,
    tokens: Vec<TokenSecret>,
    cache: Cache<[u8; 32], Arc<ActiveToken>>,
    start: UnixTime,
}

impl Remembered {
    async fn fill(layer: BearerLayer, tokens: Vec<TokenSecret>) -> Self {
        let cache = Cache::new(with_room(tokens.len()));
        for token in &tokens {
            let verified = layer.verify(token, None).await.expect("a good token");
            cache.insert(digest(token), Arc::new(verified.token().clone()));
        }
        Self { layer, tokens, cache, start: SystemClock::new().now() }
    }

    fn hit(&self, name: &str) -> Pair<'_> {
        let mut dice = Dice::new(1);
        let turn = move |calls| {
            let tokens = self.presented(&mut dice, calls);
            timed(|| self.verify_all(&tokens))
        };
        Pair::new(name, Box::new(turn))
    }

    fn floor(&self) -> Timed<'_> {
        let mut dice = Dice::new(2);
        Box::new(move |calls| {
            let tokens = self.presented(&mut dice, calls);
            timed(|| self.get_all(&tokens))
        })
    }

    fn two_threads(&self, name: &str, suite: &Suite) -> Row {
        thread::scope(|scope| {
            let ours = Team::of_two(scope, |tokens: &[_]| self.verify_all(tokens));
            let floor = Team::of_two(scope, |tokens: &[_]| self.get_all(tokens));
            let [both, one] = ours.turns(10, |dice, calls| self.presented(dice, calls));
            let [floor_both, floor_one] =
                floor.turns(20, |dice, calls| self.presented(dice, calls));
            Pair::new(name, both)
                .floor("the same on one", one)
                .beside("SHA-256 and one `get` on two", floor_both)
                .beside("that on one", floor_one)
                .per_second()
                .at_least(1.6)
                .measure(suite)
        })
    }

    fn decode(&self, keys: &str) -> Timed<'_> {
        let keys: JwkSet = serde_json::from_str(keys).expect("a JWK Set");
        let key = keys.keys.first().and_then(|key| DecodingKey::from_jwk(key).ok());
        let key = key.expect("a key of ours");
        let mut validation = Validation::new(jsonwebtoken::Algorithm::ES256);
        validation.set_audience(&[AUDIENCE]);
        validation.set_issuer(&[URL]);
        let mut dice = Dice::new(4);
        per_call(move || {
            let token = self.tokens[dice.below(self.tokens.len())].expose();
            jsonwebtoken::decode::<Value>(black_box(token), &key, &validation).expect("good")
        })
    }

    /// Tokens that have just come from the network are in the processor's caches; what is
    /// remembered of them is not.
    fn presented(&self, dice: &mut Dice, calls: u64) -> Vec<TokenSecret> {
        (0..calls).map(|_| self.tokens[dice.below(self.tokens.len())].clone()).collect()
    }

    fn verify_all(&self, tokens: &[TokenSecret]) {
        for token in tokens {
            // A token that is not remembered would be introspected; that waits, and panics here.
            black_box(now(self.layer.verify(token, None)).expect("a good token"));
        }
    }

    fn get_all(&self, tokens: &[TokenSecret]) {
        for token in tokens {
            let found = self.cache.get(&digest(token)).expect("it is there");
            // Reading the entry fetches it into the caches, as a real lookup does.
            assert!(found.expires_at > Some(self.start));
            black_box(found);
        }
    }
}

fn digest(token: &TokenSecret) -> [u8; 32] {
    Sha256::digest(token.expose()).into()
}

/// The keys, as a server publishes them.
#[derive(Debug)]
struct Jwks(Bytes);

#[async_trait]
impl HttpClient for Jwks {
    async fn send(&self, _: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        Ok(Response::new(self.0.clone()))
    }
}
