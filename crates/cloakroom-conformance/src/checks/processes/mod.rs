//! Races between processes, for stores that several programs share.
//!
//! The other checks race tasks of one process. These tasks share a pool, a cache or a lock, which may hide
//! what happens between machines. Here each process runs [`contend`] on the same store with the same
//! [`Plan`], and prints its [`Outcome`] as one line of JSON. When all processes have ended, one process
//! calls [`judge`], which compares all outcomes with the content of the store.
//!
//! The test of a store starts its own program several times:
//!
//! ```no_run
//! # use std::error::Error;
//! # use cloakroom_core::store::TokenStore;
//! use std::process::{Command, Stdio};
//! use cloakroom_conformance::processes::{Outcome, Plan, contend, judge};
//!
//! # async fn connect() -> cloakroom_memory::MemoryStore { unimplemented!() }
//! # async fn run() -> Result<(), Box<dyn Error>> {
//! let store = connect().await; // the same database in every process
//! if let Ok(plan) = std::env::var("CONTEND") {
//!     println!("{}", contend(&store, &plan.parse::<Plan>()?).await);
//!     return Ok(());
//! }
//! let plan = Plan::new(42, 4);
//! let children = plan.all().map(|plan| {
//!     let program = std::env::current_exe()?;
//!     Command::new(program).env("CONTEND", plan.to_string()).stdout(Stdio::piped()).spawn()
//! });
//! let mut outcomes = Vec::new();
//! for child in children.collect::<Result<Vec<_>, _>>()? {
//!     let output = String::from_utf8(child.wait_with_output()?.stdout)?;
//!     outcomes.push(output.trim().parse::<Outcome>()?);
//! }
//! judge(&store, &plan, &outcomes).await.map_err(|failure| failure.to_string())?;
//! # Ok(())
//! # }
//! ```
//!
//! It also works inside one process:
//!
//! ```
//! use cloakroom_conformance::processes::{Plan, contend, judge};
//! use cloakroom_memory::MemoryStore;
//!
//! # #[tokio::main]
//! # async fn main() {
//! let store = MemoryStore::new();
//! let plan = Plan::new(42, 2);
//! let [one, two] = [plan.of(0), plan.of(1)];
//! let (one, two) = tokio::join!(contend(&store, &one), contend(&store, &two));
//! judge(&store, &plan, &[one, two]).await.unwrap();
//! # }
//! ```

mod judge;

use cloakroom_core::record::{ChainKey, GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, Epoch, LogEvent, Target};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, TokenStore, TokenStoreExt,
};
use cloakroom_core::{GrantId, Subject, TokenDigest};
use serde::{Deserialize, Serialize};

use crate::ask::Ask;
use crate::fixtures::{MINUTE, NOW, grant, moved, subject, token};
use crate::promises::Promise;
use crate::reading::read_on;
use crate::report::{Broken, with_sources};

pub use judge::judge;

/// How often each chain moves on.
const GENERATIONS: u32 = 8;

/// The settings of a race. They are the same for every process, except for its number. The text form is
/// one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Plan {
    /// The seed of the grant ids. A second run on the same store needs another seed.
    pub seed: u64,
    /// The number of processes.
    pub processes: u32,
    /// The number of this process, from 0.
    pub process: u32,
    /// The number of rounds.
    pub rounds: u32,
}

/// What one process did and observed. The text form is one line of JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    process: u32,
    /// The steps that it won: round, generation, and the digest that it put there.
    steps: Vec<(u32, u32, TokenDigest)>,
    /// The rounds in which its grant was the one inserted under a contested id.
    inserted: Vec<u32>,
    /// The logins that it was told are there, and those it was told are barred.
    logins: Vec<Login>,
    /// The users whom it revoked, once for each time that this was acknowledged.
    revoked: Vec<u32>,
    /// What was wrong at once: the name of the promise, and what happened.
    broken: Option<(String, String)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Login {
    grant: GrantId,
    user: u32,
    epoch: Epoch,
    is_inserted: bool,
}

impl Plan {
    /// A plan of 25 rounds for this many processes.
    #[must_use]
    pub const fn new(seed: u64, processes: u32) -> Self {
        Self { seed, processes, process: 0, rounds: 25 }
    }

    /// The same plan, for one of the processes.
    #[must_use]
    pub const fn of(&self, process: u32) -> Self {
        Self { process, ..*self }
    }

    /// The plan of each process.
    pub fn all(&self) -> impl Iterator<Item = Self> {
        (0..self.processes).map(|process| self.of(process))
    }

    /// Bytes for this round and purpose, the same in every process.
    pub(crate) fn bytes<const N: usize>(&self, round: u32, purpose: u64) -> [u8; N] {
        let mut state = self.seed ^ (u64::from(round) << 40) ^ (purpose << 8);
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = state;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes()[..chunk.len()]);
        }
        bytes
    }

    /// The grant whose chain is raced for in this round: the same in every process.
    fn shared(&self, round: u32) -> Result<GrantRecord, Broken> {
        let mut grant = grant("shared", "shared", Epoch::new(u64::MAX / 2))?;
        grant.id = GrantId::from_bytes(self.bytes(round, 1));
        if let Some(chain) = &mut grant.chain {
            chain.digest = TokenDigest::from_bytes(self.bytes(round, 2));
            chain.key = ChainKey::from_bytes([0; 16]);
        }
        Ok(grant)
    }

    fn contested(&self, round: u32) -> Result<GrantRecord, Broken> {
        let mut grant = grant("contested", "shared", Epoch::new(u64::MAX / 2))?;
        grant.id = GrantId::from_bytes(self.bytes(round, 3));
        grant.username = Some(self.process.to_string().into());
        Ok(grant)
    }

    /// The user of this number, apart from those of other seeds.
    fn user(&self, user: u32) -> Result<Subject, Broken> {
        Ok(subject(&format!("user-{}-{user}", self.seed))?)
    }
}

/// Runs the part of one process. Start all processes together. Each does the same.
pub async fn contend(store: &dyn TokenStore, plan: &Plan) -> Outcome {
    let mut outcome = Outcome {
        process: plan.process,
        steps: Vec::new(),
        inserted: Vec::new(),
        logins: Vec::new(),
        revoked: Vec::new(),
        broken: None,
    };
    let mut cursor = Cursor::start();
    for round in 0..plan.rounds {
        let mut promise = Promise::AdvanceOneWinner;
        let result = outcome.round(store, plan, round, &mut cursor, &mut promise).await;
        if let Err(what) = result {
            outcome.broken = Some((promise.name().to_owned(), with_sources(&*what)));
            break;
        }
    }
    outcome
}

impl Outcome {
    async fn round(
        &mut self,
        store: &dyn TokenStore,
        plan: &Plan,
        round: u32,
        cursor: &mut Cursor,
        promise: &mut Promise,
    ) -> Result<(), Broken> {
        self.race_for_the_chain(store, plan, round).await?;
        *promise = Promise::CreateNeverOverwrites;
        let contested = plan.contested(round)?;
        match store.create(contested, vec![]).await? {
            CreateOutcome::Inserted => self.inserted.push(round),
            CreateOutcome::Exists => {}
            CreateOutcome::Barred => return Err("a grant was barred by nothing".into()),
        }
        *promise = Promise::CreateLoginAfter;
        let user = round % 3;
        let mut login = grant("user", "shared", store.epoch().await?)?;
        login.subject = plan.user(user)?;
        let answer = store.create(login.clone(), vec![token(&login)?]).await?;
        let is_inserted = answer == CreateOutcome::Inserted;
        self.logins.push(Login { grant: login.id, user, epoch: login.epoch, is_inserted });
        if (round + plan.process).is_multiple_of(3) {
            *promise = Promise::LogComplete;
            let target = Target::Subject(plan.user((user + 1) % 3)?);
            store.revoked(target.clone()).await?;
            self.revoked.push((user + 1) % 3);
            let (read, next) = read_on(store, cursor.clone(), 50).await?;
            *cursor = next;
            let is_there = read.iter().any(
                |entry| matches!(&entry.event, LogEvent::Revoked { target: own, .. } if *own == target),
            );
            if !is_there {
                return Err(format!("{target:?} was acknowledged, and is not read").into());
            }
        }
        *promise = Promise::MaintainRaces;
        let end = NOW - MINUTE;
        let mut ended = grant("ended", "shared", Epoch::new(u64::MAX / 2))?;
        ended.expires_at = end;
        ended.row_expires_at = end;
        let _ = store.create(ended, vec![]).await?;
        housekeep(store).await
    }

    /// Moves the shared chain on as often as it gets to, until it has moved often enough.
    async fn race_for_the_chain(
        &mut self,
        store: &dyn TokenStore,
        plan: &Plan,
        round: u32,
    ) -> Result<(), Broken> {
        let mut stands = plan.shared(round)?;
        // Whoever comes late finds it moved on, and so another record than the first.
        if store.create(stands.clone(), vec![]).await? == CreateOutcome::Barred {
            return Err("a grant was barred by nothing".into());
        }
        loop {
            let chain = stands.chain.clone().ok_or("a grant without a chain")?;
            if chain.generation >= GENERATIONS {
                return Ok(());
            }
            let next = moved(&stands)?;
            let won = next.chain.as_ref().ok_or("a grant without a chain")?.position();
            let step = Advance {
                grant: stands.id,
                expected: chain.position(),
                now: NOW,
                change: ChainUpdate::Move(Box::new(next.clone())),
                tokens: Vec::<TokenRecord>::new(),
            };
            match store.advance(step).await? {
                AdvanceOutcome::Advanced => {
                    self.steps.push((round, won.generation, won.digest));
                    stands = next;
                }
                AdvanceOutcome::Stale(now) => stands = GrantRecord::clone(&now),
                other => return Err(format!("a racer got {other:?}").into()),
            }
        }
    }
}

async fn housekeep(store: &dyn TokenStore) -> Result<(), Broken> {
    for _ in 0..1_000 {
        let task = Housekeeping { now: NOW, before: NOW, limit: 50, sweep: None };
        if !store.maintain(task).await?.more {
            return Ok(());
        }
    }
    Err("`maintain` said \"more\" 1,000 times".into())
}

macro_rules! as_json {
    ($($name:ident)+) => {$(
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&serde_json::to_string(self).map_err(|_| std::fmt::Error)?)
            }
        }

        impl std::str::FromStr for $name {
            type Err = serde_json::Error;

            fn from_str(text: &str) -> Result<Self, serde_json::Error> {
                serde_json::from_str(text)
            }
        }
    )+};
}

pub(crate) use as_json;

as_json! { Plan Outcome }

#[cfg(test)]
mod tests;
