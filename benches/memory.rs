//! The memory of one grant in the in-memory store, and of one revocation in a replica of the log: the
//! growth of the process, including the allocator's overhead.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom::{Client, Format, Grant, GrantType, Issuer};
use cloakroom_benches::{Aim, Row, Suite, Unit};
use cloakroom_core::revocation::{Cursor, Revocation, RevocationPage, Target};
use cloakroom_core::store::TokenStore;
use cloakroom_core::time::{Clock, SystemClock};
use cloakroom_core::{GrantId, Jti, Subject, TokenDigest, TokenKind};
use cloakroom_memory::MemoryStore;
use cloakroom_resource::{RevocationLog, RevocationReplica, StoreLog, UnavailableError};
use futures_util::FutureExt;
use tokio::runtime::Runtime;

fn main() {
    let suite = Suite::from_args();
    // Both are held to the end: freed memory would be reused, and not counted.
    let _issuer = grants(&suite);
    let _replicas = [
        replica(&suite, "a log-out", |number| of(1, Target::Grant(grant(number)))),
        replica(&suite, "a log-out, each at another client", |number| {
            of(number, Target::Grant(grant(number)))
        }),
        replica(&suite, "a revoked JWT", |number| {
            let jti = Jti::new(grant(number).to_string()).expect("valid");
            Revocation { grant: Some(grant(number)), ..of(1, Target::Jti(jti)) }
        }),
        replica(&suite, "a revoked handle, which takes two rules", |number| {
            let digest = TokenDigest::compute(TokenKind::Access, &number.to_be_bytes());
            of(1, Target::Token { grant: grant(number), digest })
        }),
        replica(&suite, "a user who has logged out everywhere", |number| {
            of(1, Target::Subject(Subject::user(format!("user-{number:07}")).expect("valid")))
        }),
    ];
}

fn grants(suite: &Suite) -> Issuer {
    let grants = if suite.is_quick() { 10_000 } else { 1_000_000 };
    let app = Client::public("app")
        .grant_types([GrantType::RefreshToken])
        .scope("orders:read orders:write")
        .audience("https://orders.example", Format::Opaque)
        .build()
        .expect("valid");
    let issuer = Issuer::dev().static_clients([app]).expect("valid").build();
    let issuer = issuer.now_or_never().expect("nothing waits").expect("an issuer");

    let before = resident();
    for number in 0..grants {
        let grant = Grant::user("app", format!("user-{number:07}")).expect("valid");
        let grant = grant.scope("orders:read").expect("valid");
        issuer.issue(grant).now_or_never().expect("nothing waits").expect("tokens");
    }
    suite.report(Row {
        name: "memory of a grant with its refresh token and its access token".into(),
        unit: Unit::Bytes,
        ours: (resident() - before) / f64::from(grants),
        floor: None,
        aim: Some(Aim::AtMost(800.0)),
        beside: Vec::new(),
    });
    issuer
}

/// Reports the memory that a replica needs for one revocation of many.
fn replica(
    suite: &Suite,
    what: &str,
    revocation: impl Fn(u32) -> Revocation,
) -> (Runtime, RevocationReplica) {
    let revocations = if suite.is_quick() { 1_000 } else { 200_000 };
    let store = Arc::new(MemoryStore::new());
    for number in 0..revocations {
        let revoked = store.revoke(revocation(number)).now_or_never().expect("nothing waits");
        revoked.expect("revoked");
    }
    let runtime = Runtime::new().expect("a runtime");
    let before = resident();
    let log = Copied(StoreLog::new(store));
    let replica = runtime.block_on(RevocationReplica::follow(log)).expect("a replica");
    assert!(replica.rules() >= revocations as usize, "nothing had to make room");
    suite.report(Row {
        name: format!("memory in a replica of {what}"),
        unit: Unit::Bytes,
        ours: (resident() - before) / f64::from(revocations),
        floor: None,
        aim: None,
        beside: Vec::new(),
    });
    (runtime, replica)
}

/// A log whose entries share nothing with those of the store, as if they came over the network.
#[derive(Debug)]
struct Copied(StoreLog);

#[async_trait]
impl RevocationLog for Copied {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let page = self.0.read(after, wait).await?;
        RevocationPage::from_json(&page.to_json()).map_err(UnavailableError::other)
    }
}

fn of(client: u32, target: Target) -> Revocation {
    let now = SystemClock::new().now();
    let client = format!("client-{client:07}").parse().ok();
    Revocation { client, ..Revocation::new(target, now, now + Duration::from_secs(3600)) }
}

fn grant(number: u32) -> GrantId {
    let mut id = [0; 16];
    id[..4].copy_from_slice(&number.to_be_bytes());
    GrantId::from_bytes(id)
}

/// The bytes of the process that are in memory (`VmRSS`); none where there is no `/proc`.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0.0) * 1024.0
}
