//! Several processes on one database, and processes that are killed.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, Command, Stdio};
use std::str::FromStr;

use cloakroom_conformance::processes::{Outcome, Plan, contend, judge};
use cloakroom_conformance::single_use;
use cloakroom_core::GrantId;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, LogEvent, LogNotifications, RevocationBatch, Target,
};
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, Lookup, TokenStore as _};
use cloakroom_mysql::MysqlStore;
use futures_util::StreamExt as _;

use crate::server::{Tables, store};
use crate::support::{DAY, NOW, grant, revocation, step, token};

/// This program again, doing what `test` does in a child.
fn child(test: &str, tables: &Tables) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env("CLOAKROOM_MYSQL_CHILD", &tables.prefix)
        .stdout(Stdio::piped());
    command
}

/// The store to work on, in a child.
async fn inherited() -> Option<MysqlStore> {
    let prefix = std::env::var("CLOAKROOM_MYSQL_CHILD").ok()?;
    Some(Tables::named(prefix).open().await)
}

/// The store and the plan of a race, in a child that [`race`] started.
async fn inherited_race() -> Option<(MysqlStore, Plan)> {
    let plan = std::env::var("CLOAKROOM_MYSQL_PLAN").ok()?;
    Some((inherited().await?, plan.parse().unwrap()))
}

/// Runs `test` in one child for each process of the plan. Each prints its outcome with [`report`].
fn race<O>(test: &str, tables: &Tables, plan: &Plan) -> Vec<O>
where
    O: FromStr<Err: Debug>,
{
    let start = |plan: Plan| {
        child(test, tables).env("CLOAKROOM_MYSQL_PLAN", plan.to_string()).spawn().unwrap()
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
fn report(outcome: impl Display) {
    println!("OUTCOME {outcome}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_race() {
    if let Some((store, plan)) = inherited_race().await {
        return report(contend(&store, &plan).await);
    }
    let (tables, store) = store().await;
    let plan = Plan::new(42, 8);
    let test = "with_mysql::processes::processes_race";
    let outcomes: Vec<Outcome> = race(test, &tables, &plan);
    judge(&store, &plan, &outcomes).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_spend_each_item_once() {
    if let Some((store, plan)) = inherited_race().await {
        return report(single_use::contend(&store, &plan).await);
    }
    let (tables, _store) = store().await;
    let plan = Plan::new(42, 8);
    let test = "with_mysql::processes::processes_spend_each_item_once";
    let outcomes: Vec<single_use::Outcome> = race(test, &tables, &plan);
    single_use::judge(&plan, &outcomes).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_process_hears_of_the_others_revocations() {
    const TEST: &str = "with_mysql::processes::one_process_hears_of_the_others_revocations";
    if let Some(store) = inherited().await {
        let gone = grant(&store, "alice", "app").await;
        store.revoke(revocation(Target::Grant(gone.id))).await.unwrap();
        return;
    }
    let (tables, store) = store().await;
    let LogNotifications::Stream(mut wakeups) = store.wakeups() else {
        panic!("there is a stream")
    };
    wakeups.next().await.unwrap(); // the first says nothing
    let mut child = child(TEST, &tables).spawn().unwrap();
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
    const TEST: &str = "with_mysql::processes::what_was_acknowledged_survives_a_kill";
    if let Some(store) = inherited().await {
        let tasks: Vec<_> = (0..8).map(|_| tokio::spawn(work(store.clone()))).collect();
        for task in tasks {
            task.await.unwrap();
        }
        return;
    }
    let (tables, store) = store().await;
    let mut known = Known::default();
    for round in 0..12 {
        let mut child = child(TEST, &tables).spawn().unwrap();
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
        known.check(&store).await;
    }
    assert!(known.revoked.len() > 60, "{}", known.revoked.len());
}

async fn work(store: MysqlStore) {
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
        let Some((id, what)) = said.strip_suffix(" .").and_then(|said| said.split_once(' ')) else {
            return;
        };
        let id: GrantId = id.parse().unwrap();
        match what {
            "revoked" => self.revoked.push(id),
            generation => drop(self.generations.insert(id, generation.parse().unwrap())),
        }
    }

    async fn check(&self, store: &MysqlStore) {
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
