//! A copy of the database that is put back.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Subject;
use cloakroom_core::revocation::{Epoch, Target};
use cloakroom_core::store::{TokenStore as _, TokenStoreExt as _};
use cloakroom_core::time::{Clock as _, ManualClock};
use cloakroom_sqlite::SqliteStore;
use rusqlite::Connection;
use tempfile::TempDir;

use crate::faults::{attentive, until_found};
use crate::support::{NOW, revocation};

const HOUR: Duration = Duration::from_secs(3600);

fn open(path: &Path, clock: &Arc<ManualClock>) -> SqliteStore {
    attentive(path).clock(clock.clone()).open().unwrap()
}

fn remove(folder: &Path) {
    for file in ["tokens.db", "tokens.db-wal", "tokens.db-shm"] {
        let _ = fs::remove_file(folder.join(file));
    }
}

/// Replicas know what was revoked since the copy was made. What is granted from now on is newer.
#[tokio::test]
async fn what_is_granted_next_is_newer_than_what_was_revoked_since() {
    for is_open in [false, true] {
        let (folder, clock) = (TempDir::new().unwrap(), Arc::new(ManualClock::at(NOW)));
        let (path, copy) = (folder.path().join("tokens.db"), folder.path().join("copy.db"));
        let mut store = open(&path, &clock);
        let connection = Connection::open(&path).unwrap();
        connection.execute("VACUUM INTO ?1", [copy.to_str().unwrap()]).unwrap();
        drop(connection);

        clock.advance(HOUR);
        let alice = Subject::user("alice").unwrap();
        let mut logout = revocation(Target::Subject(alice));
        logout.at = clock.now();
        store.revoke(logout).await.unwrap();
        let known = store.epoch().await.unwrap();
        assert_eq!(known, Epoch::new(clock.now().as_millis()).following());

        clock.advance(Duration::from_secs(1));
        if is_open {
            remove(folder.path());
            fs::rename(&copy, &path).unwrap();
            until_found(&store).await;
            while store.heartbeat(clock.now(), clock.now() + HOUR).await.is_err() {
                tokio::task::yield_now().await;
            }
        } else {
            drop(store);
            remove(folder.path());
            fs::rename(&copy, &path).unwrap();
            store = open(&path, &clock);
        }
        let rules = store.rules(Vec::new()).await.unwrap();
        assert_eq!(rules.newest_bound, Epoch::new(clock.now().as_millis()), "{is_open}");
        assert!(store.epoch().await.unwrap() > known);
    }
}
