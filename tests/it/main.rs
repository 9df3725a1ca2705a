//! The whole system over real HTTP: an authorization server, its revocation log, gateways and an API.
//!
//! | | |
//! |---|---|
//! | `nothing_revoked` | nothing that is revoked passes, whatever goes wrong, and an oracle says so |
//! | `convicted` | broken systems, which the oracle must reject |
//! | `crossed` | answers that are on their way when a token is revoked |
//! | `load` | how often the authorization server is asked |
//! | `flood` | junk, and a client that revokes its own tokens in a loop |
//! | `failover` | fail-overs of the database, which `cargo xtask failover` brings about |
//! | `fleet` | the signing keys of processes that share a key store |
//! | `full_disk` | the disk of the database is full |
//! | `sixteen` | sixteen processes of one client share one refresh token |
//! | `standby` | a standby takes over, with or without the last writes |
//! | `stuck` | followers of the log that read nothing |
//!
//! Nothing here is judged by how long it takes. If a promise is about time, every participant records when
//! something began, by one shared clock, and the oracle compares these times.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

mod authority;
mod clock;
mod convicted;
mod crossed;
mod dice;
mod edge;
mod failover;
mod faults;
mod fixture;
mod fleet;
mod flood;
mod free_port;
mod full_disk;
mod load;
mod nothing_revoked;
mod oracle;
mod people;
mod sixteen;
mod standby;
mod storm;
mod stuck;
mod tape;
mod web;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use cloakroom::core::time::Clock;
use tokio::sync::Mutex;

use crate::authority::Authority;
use crate::clock::OneClock;
use crate::fixture::Memory;
use crate::people::People;
use crate::tape::Tape;

/// One after the other: each of some tests keeps the machine busy.
static TURN: Mutex<()> = Mutex::const_new(());

/// No promise, but the end of a test that hangs.
const HANGS: Duration = Duration::from_secs(1800);

/// An authorization server over a store in memory, and people.
async fn people() -> People {
    people_at(Arc::new(OneClock::new())).await
}

async fn people_at(clock: Arc<dyn Clock>) -> People {
    let store = Arc::new(Memory::new(Arc::clone(&clock)));
    let authority = Authority::start(store, Arc::clone(&clock)).await;
    People::new(authority, Tape::new(clock))
}
