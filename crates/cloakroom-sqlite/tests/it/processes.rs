//! Several processes on one file, and processes that are killed.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::str::FromStr;
use std::time::Duration;

use cloakroom_conformance::processes::{Outcome, Plan, contend, judge};
use cloakroom_core::GrantId;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, LogEvent, LogNotifications, RevocationBatch, Target,
};
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, Lookup, TokenStore};
use cloakroom_sqlite::SqliteStore;
use futures_util::StreamExt as _;
use tempfile::TempDir;

use crate::support::{DAY, NOW, grant, revocation, step, token};

/// This program again, doing what `test` does in a child.
pub(crate) fn child(test: &str, path: &Path) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("CLOAKROOM_SQLITE_CHILD", path)
        .stdout(Stdio::piped());
    command
}

/// The database to work on, in a child.
pub(crate) fn inherited() -> Option<SqliteStore> {
    let path = std::env::var_os("CLOAKROOM_SQLITE_CHILD")?;
    Some(SqliteStore::open(path).unwrap())
}

/// The database and the plan of a race, in a child that [`race`] started.
pub(crate) fn inherited_race() -> Option<(SqliteStore, Plan)> {
    let plan = std::env::var("CLOAKROOM_SQLITE_PLAN").ok()?;
    Some((inherited()?, plan.parse().unwrap()))
}

/// Runs `test` in one child for each process of the plan. Each prints its outcome with [`report`].
pub(crate) fn race<O>(test: &str, path: &Path, plan: &Plan) -> Vec<O>
where
    O: FromStr<Err: Debug>,
{
    let start = |plan: Plan| {
        child(test, path).env("CLOAKROOM_SQLITE_PLAN", plan.to_string()).spawn().unwrap()
    };
    // All of them start before the first is waited for.
    let children: Vec<_> = plan.all().map(start).collect();
    let outcome = |child: Child| {
        let text = String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap();
        let line = text.lines().find_map(|line| Some(line.split_once("OUTCOME ")?.1));
        line.unwrap_or_else(|| panic!("{text}")).parse().unwrap()
    };
    children.into_iter().map(outcome).collect()
}

/// Tells [`race`] how a child's race ended.
pub(crate) fn report(outcome: impl Display) {
    println!("OUTCOME {outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_race() {
    if let Some((store, plan)) = inherited_race() {
        return report(contend(&store, &plan).await);
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path).unwrap();
    let plan = Plan::new(42, 4);
    let outcomes: Vec<Outcome> = race("processes::processes_race", &path, &plan);
    judge(&store, &plan, &outcomes).await.unwrap();
}

#[tokio::test]
async fn one_process_hears_of_the_others_revocations() {
    if let Some(store) = inherited() {
        let gone = grant(&store, "alice", "app").await;
        store.revoke(revocation(Target::Grant(gone.id))).await.unwrap();
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    let store = SqliteStore::open(&path).unwrap();
    let LogNotifications::Stream(mut wakeups) = store.wakeups() else {
        panic!("there is a stream")
    };
    let mut child =
        child("processes::one_process_hears_of_the_others_revocations", &path).spawn().unwrap();
    // Without its news this waits for ever.
    wakeups.next().await.unwrap();
    let RevocationBatch::Entries { entries, .. } =
        store.revocations(Cursor::start(), 10).await.unwrap()
    else {
        panic!("a gap");
    };
    assert!(matches!(entries[..], [ref entry] if matches!(entry.event, LogEvent::Revoked { .. })));
    assert!(child.wait().unwrap().success());
}

/// What a killed process had acknowledged: each of its tasks says so in a line, once it knows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_kill() {
    if let Some(store) = inherited() {
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(work(store.clone()))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        return;
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    let mut known = Known::default();
    for round in 0..20 {
        let test = "processes::what_was_acknowledged_survives_a_kill";
        let mut child = child(test, &path).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // At another point each time, in the middle of eight streams of writes.
        for _ in 0..40 + 37 * round % 200 {
            known.note(&lines.next().unwrap().unwrap());
        }
        child.kill().unwrap(); // SIGKILL
        // What it said before it died counts; the last line may be cut off.
        for line in lines.map_while(Result::ok) {
            known.note(&line);
        }
        child.wait().unwrap();
        known.check(&SqliteStore::open(&path).unwrap()).await;
    }
    assert!(known.revoked.len() > 100, "{}", known.revoked.len());
}

async fn work(store: SqliteStore) {
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{line} .").unwrap();
        out.flush().unwrap();
    };
    loop {
        let mut current = grant(&store, "alice", "app").await;
        let (id, token) = (current.id, token(&current));
        assert_eq!(
            store.create(current.clone(), vec![token]).await.unwrap(),
            CreateOutcome::Inserted
        );
        say(format!("ACK {id} 0"));
        for generation in 1..4 {
            let (step, next) = step(&current);
            assert_eq!(store.advance(step).await.unwrap(), AdvanceOutcome::Advanced);
            say(format!("ACK {id} {generation}"));
            current = next;
        }
        store.revoke(revocation(Target::Grant(id))).await.unwrap();
        say(format!("ACK {id} revoked"));
    }
}

/// What was acknowledged, over all rounds.
#[derive(Default)]
struct Known {
    generations: BTreeMap<GrantId, u32>,
    revoked: Vec<GrantId>,
}

impl Known {
    fn note(&mut self, line: &str) {
        let Some(("", said)) = line.split_once("ACK ") else { return };
        // A whole line ends with a full stop.
        let [id, what, "."] = said.split(' ').collect::<Vec<_>>()[..] else { return };
        let id: GrantId = id.parse().unwrap();
        match what {
            "revoked" => self.revoked.push(id),
            generation => {
                self.generations.insert(id, generation.parse().unwrap());
            }
        }
    }

    async fn check(&self, store: &SqliteStore) {
        for (id, generation) in &self.generations {
            let Lookup::Found(found) = store.find(*id, None).await.unwrap() else {
                panic!("{id} was acknowledged, and is gone");
            };
            let chain = found.grant.chain.as_ref().unwrap();
            assert!(chain.generation >= *generation, "the chain of {id} went back");
        }
        let (mut cursor, mut logged, mut count) = (Cursor::start(), Vec::new(), 0);
        loop {
            let batch = store.revocations(cursor, 500).await.unwrap();
            let RevocationBatch::Entries { entries, next, more, .. } = batch else {
                panic!("a gap");
            };
            count += entries.len() as u64;
            logged.extend(entries.into_iter().filter_map(|entry| match entry.event {
                LogEvent::Revoked { target: Target::Grant(id), .. } => Some(id),
                _ => None,
            }));
            cursor = next;
            if !more {
                break;
            }
        }
        let last = CursorPlace::of(&cursor).map_or(0, |place| place.position);
        assert_eq!(last, count, "the log has holes");
        for id in &self.revoked {
            let Lookup::Found(found) = store.find(*id, None).await.unwrap() else {
                panic!("{id} was revoked, and is gone");
            };
            assert!(found.grant.revoked_at.is_some(), "the revocation of {id} was forgotten");
            assert!(logged.contains(id), "the log has lost the revocation of {id}");
        }
        // And it works.
        store.heartbeat(NOW, NOW + DAY).await.unwrap_or_else(|error| panic!("{error:?}"));
    }
}

/// A sweep that its process did not live to finish is finished by another.
#[tokio::test]
async fn a_dropped_sweep_is_finished_by_housekeeping() {
    let folder = TempDir::new().unwrap();
    let store = SqliteStore::open(folder.path().join("tokens.db")).unwrap();
    let mut ids = Vec::new();
    for _ in 0..1_000 {
        let grant = grant(&store, "alice", "app").await;
        ids.push(grant.id);
        assert_eq!(store.create(grant, Vec::new()).await.unwrap(), CreateOutcome::Inserted);
    }
    let of_app = Target::Client(cloakroom_core::ClientId::new("app").unwrap());
    let sweep = store.revoke(revocation(of_app));
    // The first transaction is asked for, and nobody waits for it.
    assert!(futures_util::poll!(Box::pin(sweep)).is_pending());
    let task = cloakroom_core::store::Housekeeping {
        now: NOW,
        before: NOW - DAY,
        limit: 1_000,
        sweep: None,
    };
    store.heartbeat(NOW, NOW + Duration::from_secs(1)).await.unwrap();
    while store.maintain(task).await.unwrap().more {}
    for id in ids {
        let Lookup::Found(found) = store.find(id, None).await.unwrap() else { panic!("gone") };
        assert!(found.grant.revoked_at.is_some());
    }
}
