//! How long a token is still accepted after its revocation was acknowledged.

use std::iter;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use cloakroom::core::{Audience, TokenSecret};
use cloakroom::memory::MemoryStore;
use cloakroom::resource::{
    BearerLayer, ClientCredentials, HttpLog, IntrospectionClient, RevocationReplica, StoreLog,
    TokenError,
};
use cloakroom::{Client, Format, Grant, Issuer, LocalIntrospector, Serves};
use cloakroom_benches::{Aim, Delays, Floor, Row, Suite, Unit, quantile};
use tokio::runtime::{Builder, Runtime};

use crate::Failure;
use crate::case::{API, APP, Case, RESOURCE, SCOPE};
use crate::followers::{Follower, Polls};
use crate::load::Connection;
use crate::process::{Followers, Server};
use crate::servers::Kind;

/// By a replica that follows the store itself, in one process with the authorization server.
pub(crate) fn in_process(suite: &Suite) -> Result<(), Failure> {
    let plan = Plan::new(suite, 200, Duration::from_millis(2));
    let blocks = (0..plan.blocks).map(|_| by_store(plan)).collect::<Result<Blocks, _>>()?;
    let name = "from revoke to refusal, by the store's log";
    suite.report(Delays::new(name, &blocks.concat()));
    suite.report(Row { aim: Some(Aim::AtMost(10e6)), ..row(name, 0.99, &blocks) });
    Ok(())
}

/// By replicas that follow over HTTP.
pub(crate) fn over_http(suite: &Suite) -> Result<(), Failure> {
    let (few, many) = if suite.is_quick() { (3, 5) } else { (100, 1_000) };
    let plan = Plan::new(suite, 100, Duration::from_millis(10));
    let blocks = (0..plan.blocks).map(|_| by_http(few, plan)).collect::<Result<Blocks, _>>()?;
    let name = format!("from revoke to refusal, over HTTP, {few} followers");
    suite.report(Delays::new(&name, &blocks.concat()));
    suite.report(Row { aim: Some(Aim::AtMost(25e6)), ..row(&name, 0.99, &blocks) });

    let plan = Plan::new(suite, 40, Duration::from_millis(80));
    let (mut ours, mut floors) = (Blocks::new(), Blocks::new());
    for _ in 0..plan.blocks {
        ours.push(by_http(many, plan)?);
        floors.push(by_long_poll(many, plan)?);
    }
    let name = format!("from revoke to refusal, over HTTP, {many} followers");
    let floor = format!("a bare long poll, {many} clients");
    suite.report(Delays::new(&name, &ours.concat()));
    suite.report(Delays::new(&floor, &floors.concat()));
    for part in [0.5, 0.99] {
        let ratios: Vec<f64> = iter::zip(&ours, &floors)
            .map(|(ours, floor)| quantile(ours, part) / quantile(floor, part))
            .collect();
        let value = row("", part, &floors).ours;
        suite.report(Row {
            floor: Some(Floor::new(&floor, value, &ratios)),
            aim: Some(Aim::AtMost(2.0)),
            ..row(&name, part, &ours)
        });
    }
    Ok(())
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// How often everything is repeated from the start.
    blocks: usize,
    /// How many revocations there are in each.
    revocations: usize,
    /// The pause before each, in which all followers start to wait again.
    quiet: Duration,
}

impl Plan {
    const fn new(suite: &Suite, revocations: usize, quiet: Duration) -> Self {
        if suite.is_quick() {
            return Self { blocks: 1, revocations: 3, quiet };
        }
        Self { blocks: 5, revocations, quiet }
    }
}

/// Nanoseconds, revocation by revocation, block by block.
type Blocks = Vec<Vec<f64>>;

/// The median of what the blocks say of this part of their delays.
fn row(name: &str, part: f64, blocks: &Blocks) -> Row {
    let quantiles: Vec<f64> = blocks.iter().map(|block| quantile(block, part)).collect();
    Row {
        name: format!("{name}, p{:.0}", part * 100.0),
        unit: Unit::Nanoseconds,
        ours: quantile(&quantiles, 0.5),
        floor: None,
        aim: None,
        beside: Vec::new(),
    }
}

fn by_store(plan: Plan) -> Result<Vec<f64>, Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let (issuer, edge, tokens) = runtime.block_on(async {
        let store = Arc::new(MemoryStore::new());
        let serves = Serves::Only(Audience::one(RESOURCE)?);
        let issuer = Issuer::dev()
            .store(Arc::clone(&store))
            .static_clients([
                Client::public(APP).scope(SCOPE).audience(RESOURCE, Format::Opaque),
                Client::resource_server(API.id, API.secret, serves),
            ])?
            .build()
            .await?;
        let maintained = issuer.clone();
        tokio::spawn(async move { maintained.run_maintenance().await });
        let mut tokens = Vec::new();
        for user in 0..plan.revocations {
            let grant = Grant::user(APP, format!("user-{user}"))?.scope(SCOPE)?;
            tokens.push(issuer.issue(grant).await?.access_token);
        }
        let local = LocalIntrospector::new(issuer.clone(), &API.id.parse()?).await?;
        let layer = BearerLayer::introspecting(local, issuer.url(), RESOURCE);
        let replica = RevocationReplica::follow(StoreLog::new(store)).await?;
        Ok::<_, Failure>((issuer, Edge::new(layer, replica), tokens))
    })?;
    runtime.block_on(edge.remember(&tokens))?;
    let app = APP.parse()?;
    let delay = |token| {
        thread::sleep(plan.quiet);
        runtime.block_on(issuer.revoke(token, &app))?;
        let acknowledged = Instant::now();
        edge.refuses(&runtime, token, thread::yield_now)?;
        Ok(nanoseconds(acknowledged.elapsed()))
    };
    tokens.iter().map(delay).collect()
}

fn by_http(followers: usize, plan: Plan) -> Result<Vec<f64>, Failure> {
    let server = Server::start(Kind::Surroundings, Case::Gateway, plan.revocations, "")?;
    let _others = Followers::start(Kind::Surroundings, server.address, followers - 1)?;
    let tokens: Vec<_> = server.tokens.iter().map(|it| TokenSecret::new(it.as_str())).collect();
    let runtime = one_worker()?;
    let edge = runtime.block_on(async {
        let (origin, credentials) = (server.origin(), ClientCredentials::new(API.id, API.secret));
        let client = IntrospectionClient::discover(&origin, credentials.clone()).await?;
        let log = HttpLog::discover(&origin, credentials).await?;
        let layer = BearerLayer::introspecting(client, &origin, RESOURCE);
        let edge = Edge::new(layer, RevocationReplica::follow(log).await?);
        edge.remember(&tokens).await?;
        Ok::<_, Failure>(edge)
    })?;
    let mut client = Connection::open(server.address)?;
    let delay = |token: &TokenSecret| {
        thread::sleep(plan.quiet);
        client.send(&form("/revoke", &format!("client_id={APP}&token={}", token.expose())))?;
        client.receive()?;
        let acknowledged = Instant::now();
        // Polling without a pause would take the core from the followers.
        edge.refuses(&runtime, token, || thread::sleep(Duration::from_micros(50)))?;
        Ok(nanoseconds(acknowledged.elapsed()))
    };
    tokens.iter().map(delay).collect()
}

/// From the answer to a change until one of the waiting clients has read it.
fn by_long_poll(clients: usize, plan: Plan) -> Result<Vec<f64>, Failure> {
    let server = Server::start(Kind::LongPoll, Case::Gateway, 0, "")?;
    let _others = Followers::start(Kind::LongPoll, server.address, clients - 1)?;
    let runtime = one_worker()?;
    let (read, changes) = channel();
    let mut one = runtime.block_on(Follower::connect(server.address, Polls::Bare))?;
    runtime.block_on(one.catch_up())?;
    runtime.spawn(
        async move { while one.poll().await.is_ok() && read.send(Instant::now()).is_ok() {} },
    );
    let mut client = Connection::open(server.address)?;
    let mut delay = || {
        thread::sleep(plan.quiet);
        client.send(&form("/change", ""))?;
        client.receive()?;
        let acknowledged = Instant::now();
        Ok(nanoseconds(changes.recv()?.saturating_duration_since(acknowledged)))
    };
    (0..plan.revocations).map(|_| delay()).collect()
}

/// An API that follows the log, and remembers its tokens.
struct Edge(BearerLayer);

impl Edge {
    fn new(layer: BearerLayer, replica: RevocationReplica) -> Self {
        Self(layer.cache(10_000).replica(replica))
    }

    async fn remember(&self, tokens: &[TokenSecret]) -> Result<(), Failure> {
        for token in tokens {
            self.0.verify(token, None).await?;
        }
        Ok(())
    }

    /// Presents the token again and again, until it is refused.
    fn refuses(
        &self,
        runtime: &Runtime,
        token: &TokenSecret,
        pause: impl Fn(),
    ) -> Result<(), Failure> {
        loop {
            match runtime.block_on(self.0.verify(token, None)) {
                Ok(_) => pause(),
                Err(TokenError::Invalid(_)) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// For a client: it has a core to share with the others.
fn one_worker() -> Result<Runtime, Failure> {
    Ok(Builder::new_multi_thread().worker_threads(1).enable_all().build()?)
}

fn nanoseconds(took: Duration) -> f64 {
    took.as_secs_f64() * 1e9
}

/// A request of a client without a secret.
fn form(path: &str, form: &str) -> Vec<u8> {
    let length = form.len();
    format!(
        "POST {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: \
         application/x-www-form-urlencoded\r\ncontent-length: {length}\r\n\r\n{form}"
    )
    .into_bytes()
}
