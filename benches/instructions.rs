//! One operation, many times: for a profiler that counts instructions, which other programs on the machine
//! do not disturb.
//!
//! ```sh
//! cargo bench --package cloakroom-benches --bench instructions --no-run
//! valgrind --tool=callgrind target/release/deps/instructions-… issue 1000 2000
//! ```
//!
//! The arguments are an operation, the number of grants in memory, and the number of calls. The instructions
//! of a call are the difference between two runs, divided by that of their calls. A call of the system is not
//! counted: it shows in `strace --summary-only`.

#[path = "sqlite/records.rs"]
#[expect(dead_code, reason = "stores need more of them")]
mod records;

use std::env;
use std::error::Error;
use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use cloakroom::http::{Endpoints, Request};
use cloakroom::{Caller, Client, Format, Grant, GrantType, Issuer, RefreshRequest, Serves};
use cloakroom_benches::{Dice, now};
use cloakroom_core::format::{MintContext, TokenFormat as _, TokenTerms};
use cloakroom_core::handle::{HandleKeys, HandleSecret};
use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::time::SystemClock;
use cloakroom_core::{ClientId, Random, TokenSecret};
use cloakroom_jwt::{
    ACCESS_TOKEN_TYP, AesGcmSealer, Algorithm, JwtFormat, KeyManager, SigningKey, sign_jwt,
};
use cloakroom_memory::MemoryStore;
use serde_json::json;

use crate::records::{HOUR, Records};

const SECRET: &str = "S5WkVqXo0bQyZ1uHc7NnTgE2rJdLmP9a";
const RESOURCE: &str = "https://orders.example";

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1).filter(|argument| argument != "--bench");
    let (Some(operation), Some(grants), Some(calls)) =
        (arguments.next(), arguments.next(), arguments.next())
    else {
        // As one of all benchmarks, it measures nothing.
        return Ok(());
    };
    let calls: usize = calls.parse()?;
    let mut world = World::new(grants.parse()?)?;
    let start = Instant::now();
    match operation.as_str() {
        "introspect" => world.introspect(calls)?,
        "issue" => world.issue(calls)?,
        "issue-client" => world.issue_client(calls)?,
        "sign" => world.sign(calls)?,
        "mint" => world.mint(calls)?,
        "read" => world.read(calls)?,
        "refresh" => world.refresh(calls)?,
        "http-introspect" => world.http_introspect(calls)?,
        "http-issue" => world.http_issue(calls)?,
        "http-refresh" => world.http_refresh(calls)?,
        _ => return Err(format!("there is no operation `{operation}`").into()),
    }
    let took = start.elapsed();
    eprintln!("{operation}: {} ns a call", took.as_nanos() / calls.max(1) as u128);
    Ok(())
}

struct World {
    issuer: Issuer,
    endpoints: Endpoints,
    access: Vec<TokenSecret>,
    refresh: Vec<TokenSecret>,
    dice: Dice,
}

impl World {
    fn new(grants: usize) -> Result<Self, Box<dyn Error>> {
        let random = Random::system();
        let clients = [
            Client::public("app")
                .grant_types([GrantType::RefreshToken])
                .scope("orders:read orders:write")
                .audience(RESOURCE, Format::Opaque),
            Client::confidential("batch", SECRET)
                .grant_types([GrantType::ClientCredentials])
                .scope("orders:read")
                .audience(RESOURCE, Format::Opaque),
            Client::resource_server("api", SECRET, Serves::Everything),
        ];
        let issuer = Issuer::builder("https://as.example")
            .store(Arc::new(MemoryStore::new()))
            .handle_keys(HandleKeys::new(&HandleSecret::random(1, &random)?))
            .sealer(Arc::new(AesGcmSealer::random()?))
            .lifetimes(cloakroom::Lifetimes::default().access_token(Duration::from_secs(600)))
            .static_clients(clients)?
            .build();
        let issuer = now(issuer)?;
        let endpoints = Endpoints::new(issuer.clone());
        let (access, refresh) = (Vec::new(), Vec::new());
        let mut world = Self { issuer, endpoints, access, refresh, dice: Dice::new(1) };
        for number in 0..grants {
            let grant = Grant::user("app", format!("user-{number}"))?.scope("orders:read")?;
            let tokens = now(world.issuer.issue(grant))?;
            world.access.push(tokens.access_token);
            world.refresh.extend(tokens.refresh_token);
        }
        Ok(world)
    }

    fn introspect(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..calls {
            let token = &self.access[self.dice.below(self.access.len())];
            assert!(now(self.issuer.introspect(token, Caller::Internal))?.is_active());
        }
        Ok(())
    }

    fn issue(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        for number in 0..calls {
            let grant = Grant::user("app", format!("new-{number}"))?.scope("orders:read")?;
            now(self.issuer.issue(grant))?;
        }
        Ok(())
    }

    fn issue_client(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..calls {
            now(self.issuer.issue(Grant::client("batch")?))?;
        }
        Ok(())
    }

    /// A JWT of the cheapest signature, beside which the rest weighs most.
    fn sign(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        let key = SigningKey::generate(Algorithm::EdDsa)?;
        let claims = json!({
            "iss": "https://as.example",
            "sub": "alice",
            "aud": RESOURCE,
            "client_id": "web-app",
            "scope": "orders:read orders:write",
            "iat": 1_700_000_000,
            "exp": 1_700_000_600,
            "jti": "AwMDAwMDAwMDAwMDAwMDAw",
            "grant_id": "CQkJCQkJCQkJCQkJCQkJCQ",
            "grant_epoch": 1_700_000_000_000_u64,
        });
        for _ in 0..calls {
            drop(now(sign_jwt(&key, ACCESS_TOKEN_TYP, &claims))?);
        }
        Ok(())
    }

    /// The same, with its claims made from records.
    fn mint(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        let (store, sealer) = (Arc::new(MemoryStore::new()), Arc::new(AesGcmSealer::random()?));
        let keys = now(KeyManager::builder(store, sealer).algorithm(Algorithm::EdDsa).build())?;
        let format = JwtFormat::new(keys, "https://as.example", Arc::new(SystemClock::new()));
        let (mut records, random) = (Records::new(1), Random::system());
        let end = records.now + HOUR / 6;
        let grant = records.grant(end);
        let terms = TokenTerms::new(records.now, end, grant.scope.clone(), grant.audience.clone());
        for _ in 0..calls {
            let context = MintContext::new("https://as.example", &grant, &terms, &random);
            drop(now(format.mint(context))?);
        }
        Ok(())
    }

    /// A grant and its access token, from the rows of a store.
    fn read(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        let mut records = Records::new(1);
        let end = records.now + HOUR;
        let grant = records.grant(end);
        let token = records.token(&grant, end);
        let (grant, token) = (grant.to_row(), token.to_row());
        for _ in 0..calls {
            black_box(GrantRecord::from_row(black_box(&grant))?);
            black_box(TokenRecord::from_row(black_box(&token))?);
        }
        Ok(())
    }

    fn refresh(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        let client = ClientId::new("app")?;
        for _ in 0..calls {
            let place = self.dice.below(self.refresh.len());
            let request = RefreshRequest::new(self.refresh[place].clone(), client.clone());
            let tokens = now(self.issuer.refresh(request))?;
            self.refresh[place] = tokens.refresh_token.ok_or("it rotates")?;
        }
        Ok(())
    }

    fn http_introspect(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..calls {
            let token = &self.access[self.dice.below(self.access.len())];
            let body = format!("token={}", token.expose());
            let request = post("/introspect", Some("api"), body)?;
            assert_eq!(now(self.endpoints.handle(request)).status(), 200);
        }
        Ok(())
    }

    fn http_issue(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        for _ in 0..calls {
            let body = "grant_type=client_credentials&scope=orders%3Aread".to_owned();
            let request = post("/token", Some("batch"), body)?;
            assert_eq!(now(self.endpoints.handle(request)).status(), 200);
        }
        Ok(())
    }

    /// Of a different grant each time, so that no answer has to be read.
    fn http_refresh(&mut self, calls: usize) -> Result<(), Box<dyn Error>> {
        for token in self.refresh.iter().take(calls) {
            let token = token.expose();
            let body = format!("grant_type=refresh_token&client_id=app&refresh_token={token}");
            assert_eq!(now(self.endpoints.handle(post("/token", None, body)?)).status(), 200);
        }
        Ok(())
    }
}

fn post(path: &str, client: Option<&str>, body: String) -> Result<Request<Bytes>, Box<dyn Error>> {
    let mut request = Request::post(path)
        .header("host", "127.0.0.1:9000")
        .header("accept", "application/json")
        .header("content-type", "application/x-www-form-urlencoded");
    if let Some(client) = client {
        let credentials = STANDARD.encode(format!("{client}:{SECRET}"));
        request = request.header("authorization", format!("Basic {credentials}"));
    }
    Ok(request.body(body.into())?)
}
