//! What one grant takes in the memory store: what the process grows by, allocator and all.

use std::fs;

use cloakroom::{Client, Format, Grant, GrantType, Issuer};
use cloakroom_benches::{Row, Suite, Unit};
use futures_util::FutureExt;

fn main() {
    let suite = Suite::from_args();
    let grants = if suite.is_quick() { 10_000 } else { 1_000_000 };
    let app = Client::public("app")
        .expect("valid")
        .grant_types([GrantType::RefreshToken])
        .scope("orders:read orders:write")
        .expect("valid")
        .audience("https://orders.example", Format::Opaque)
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
        aim: None,
        beside: Vec::new(),
    });
}

/// The bytes of the process that are in memory (`VmRSS`); none where there is no `/proc`.
fn resident() -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse().ok());
    kilobytes.unwrap_or(0.0) * 1024.0
}
