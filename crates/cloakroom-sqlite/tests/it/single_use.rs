//! Single-use items: the kit, several processes, and files of an older version.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_conformance::processes::Plan;
use cloakroom_conformance::single_use::{
    Outcome, SingleUseDatabase, SingleUseFactory, contend, judge, run_all,
};
use cloakroom_core::Random;
use cloakroom_core::revocation::Target;
use cloakroom_core::store::{SingleUseId, SingleUseStore, Spend, Spent, TokenStore as _};
use cloakroom_core::time::UnixTime;
use cloakroom_sqlite::{SqliteStore, Synchronous};
use rusqlite::Connection;
use tempfile::TempDir;

use crate::faults::{attentive, until_found};
use crate::processes::{inherited_race, race, report};
use crate::support::{DAY, NOW, grant, revocation};

/// A file in a folder of its own, each time.
#[derive(Debug)]
struct Sqlite(TempDir);

#[derive(Debug)]
struct File(PathBuf);

#[async_trait]
impl SingleUseFactory for Sqlite {
    async fn database(&self) -> Arc<dyn SingleUseDatabase> {
        let folder = TempDir::new_in(self.0.path()).unwrap().keep();
        Arc::new(File(folder.join("items.db")))
    }
}

#[async_trait]
impl SingleUseDatabase for File {
    async fn open(&self) -> Arc<dyn SingleUseStore> {
        let store = SqliteStore::builder(&self.0).synchronous(Synchronous::Normal).open();
        Arc::new(store.unwrap())
    }

    async fn count(&self) -> Option<u64> {
        let count = "SELECT count(*) FROM single_use";
        let rows: i64 =
            Connection::open(&self.0).unwrap().query_row(count, [], |row| row.get(0)).unwrap();
        Some(rows.cast_unsigned())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn it_passes() {
    run_all(Sqlite(TempDir::new().unwrap())).await.assert_ok();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn processes_race() {
    if let Some((store, plan)) = inherited_race() {
        return report(contend(&store, &plan).await);
    }
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    drop(SqliteStore::open(&path).unwrap());
    let plan = Plan::new(42, 4);
    let outcomes: Vec<Outcome> = race("single_use::processes_race", &path, &plan);
    judge(&plan, &outcomes).unwrap();
}

fn spend(until: UnixTime) -> Spend {
    let id = SingleUseId::from_bytes(Random::system().array().unwrap());
    Spend { id, until, now: NOW }
}

/// Makes a file as the first version of the schema had it: without single-use items.
fn make_old(path: &Path) {
    drop(SqliteStore::open(path).unwrap());
    let drop = "DROP TABLE check_values; DROP TABLE single_use; DROP TABLE single_use_forgotten; \
                PRAGMA user_version = 1;";
    Connection::open(path).unwrap().execute_batch(drop).unwrap();
}

#[tokio::test]
async fn a_file_of_the_first_version_is_migrated_with_what_it_holds() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    make_old(&path);
    let (old, new) = (SqliteStore::open(&path).unwrap(), SqliteStore::open(&path).unwrap());
    let alice = grant(&old, "alice", "app").await;
    let _ = old.create(alice.clone(), Vec::new()).await.unwrap();
    new.revoke(revocation(Target::Grant(alice.id))).await.unwrap();
    let spend = spend(NOW + DAY);
    assert_eq!(old.spend(spend).await.unwrap(), Spent::First);
    assert_eq!(new.spend(spend).await.unwrap(), Spent::Again);
}

/// A copy from before the program was updated is put in the place of the file that is open.
#[cfg(unix)]
#[tokio::test]
async fn an_old_file_that_takes_the_place_of_a_new_one_is_migrated() {
    let folder = TempDir::new().unwrap();
    let (path, copy) = (folder.path().join("tokens.db"), folder.path().join("copy.db"));
    make_old(&copy);
    let store = attentive(&path).open().unwrap();
    for end in ["", "-wal", "-shm"] {
        let _ = fs::remove_file(folder.path().join(format!("tokens.db{end}")));
    }
    fs::rename(&copy, &path).unwrap();
    until_found(&store).await;
    while store.heartbeat(NOW, NOW + DAY).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert_eq!(store.spend(spend(NOW + DAY)).await.unwrap(), Spent::First);
}

/// Nobody's item is spent by a call that could not write.
#[tokio::test]
async fn an_outage_is_an_error() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("tokens.db");
    let store = attentive(&path).busy_timeout(Duration::from_millis(1)).open().unwrap();
    let spend = spend(NOW + DAY);
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    assert!(store.spend(spend).await.unwrap_err().is_retryable());
    other.execute_batch("ROLLBACK").unwrap();
    assert_eq!(store.spend(spend).await.unwrap(), Spent::First);
}
