//! Files and folders that may not be used. Permissions bind everyone but root, so root runs these
//! tests as somebody else.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use cloakroom_core::GrantId;
use cloakroom_core::keys::KeyStore as _;
use cloakroom_core::revocation::{Cursor, RevocationBatch, Target};
use cloakroom_core::store::{Lookup, TokenStore as _};
use cloakroom_sqlite::rusqlite::Connection;
use cloakroom_sqlite::{OpenError, SqliteStore};
use tempfile::TempDir;

use crate::faults::{attentive, is_there, is_unavailable, put, until_found, until_lost};
use crate::support::{DAY, NOW, revocation};

/// `nobody`, whether the system has a name for it or not.
const NOBODY: u32 = 65_534;

/// Runs `body` as somebody whom permissions bind, with a folder of that user's own. Root does so in
/// a process of its own, which comes here again.
fn bound_by_permissions(test: &str, body: impl FnOnce(&Path)) {
    const FOLDER: &str = "CLOAKROOM_SQLITE_FOLDER";
    if let Some(folder) = std::env::var_os(FOLDER) {
        return body(Path::new(&folder));
    }
    let folder = TempDir::new().unwrap();
    if fs::metadata(folder.path()).unwrap().uid() != 0 {
        return body(folder.path());
    }
    // Whoever runs it must be able to reach the program, which may lie in a home folder.
    let program = folder.path().join("program");
    fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    let theirs = folder.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    chmod(&program, 0o755);
    chmod(folder.path(), 0o755);
    chown(&theirs, Some(NOBODY), Some(NOBODY)).unwrap();
    let output = Command::new(&program)
        .args([&format!("permissions::{test}"), "--exact", "--nocapture", "--test-threads=1"])
        .env(FOLDER, &theirs)
        .current_dir(&theirs)
        .uid(NOBODY)
        .gid(NOBODY)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "root cannot run a program as another user here, so run the tests as one: {error}"
            )
        });
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && out.contains("1 passed"), "{out}\n{err}");
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

/// What may not be used is said to be so, with its reason.
fn is_refused(path: &Path) {
    let error = attentive(path).open().unwrap_err();
    assert!(std::error::Error::source(&error).is_some(), "{error:?}");
    match error {
        OpenError::File { .. } => {}
        OpenError::Store(error) => is_unavailable::<()>(Err(error)),
        error => panic!("{error:?}"),
    }
}

/// A database with one grant, which nobody has ever had open: SQLite gives a file that this process
/// has open to whoever in it asks, permissions or not.
fn filled(folder: &Path, mode: u32) -> (PathBuf, GrantId) {
    let (made, path) =
        (folder.join(format!("made{mode:o}.db")), folder.join(format!("tokens{mode:o}.db")));
    let id = block_on(put(&attentive(&made).open().unwrap())).unwrap();
    copy(&made, &path);
    (path, id)
}

fn copy(from: &Path, to: &Path) {
    let (source, copy) = (Connection::open(from).unwrap(), to.to_str().unwrap());
    source.execute("VACUUM INTO ?1", [copy]).unwrap();
    let copy = Connection::open(copy).unwrap();
    copy.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(())).unwrap();
}

/// The database is as it was, and can be written.
fn works(path: &Path, id: GrantId) {
    let store = attentive(path).open().unwrap();
    block_on(async {
        assert!(is_there(&store, id).await);
        put(&store).await.unwrap();
    });
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

#[test]
fn a_file_that_cannot_be_written_or_read_is_refused() {
    bound_by_permissions("a_file_that_cannot_be_written_or_read_is_refused", |folder| {
        for mode in [0o400, 0o200, 0] {
            let (path, id) = filled(folder, mode);
            let before = fs::metadata(&path).unwrap().len();
            chmod(&path, mode);
            is_refused(&path);
            assert_eq!(fs::metadata(&path).unwrap().len(), before, "{mode:o}");
            chmod(&path, 0o600);
            works(&path, id);
        }
    });
}

#[test]
fn a_folder_that_cannot_be_used_is_refused() {
    bound_by_permissions("a_folder_that_cannot_be_used_is_refused", |folder| {
        for mode in [0o500, 0o600, 0] {
            let (path, id) = filled(folder, mode);
            chmod(folder, mode);
            is_refused(&folder.join("new.db"));
            // There is no place for the log of writes.
            is_refused(&path);
            chmod(folder, 0o700);
            assert!(!folder.join("new.db").exists());
            works(&path, id);
        }
    });
}

#[test]
fn a_folder_that_is_closed_is_an_outage_until_it_is_opened() {
    bound_by_permissions("a_folder_that_is_closed_is_an_outage_until_it_is_opened", |folder| {
        let (path, id) = filled(folder, 0);
        let store = attentive(&path).open().unwrap();
        block_on(async {
            chmod(folder, 0);
            is_unavailable(store.revoke(revocation(Target::Grant(id))).await);
            is_unavailable::<()>(Err(until_lost(&store, id).await));
            is_unavailable(store.heartbeat(NOW, NOW + DAY).await);
            is_unavailable(store.load().await);
            chmod(folder, 0o700);
            is_as_it_was(&store, id).await;
        });
    });
}

#[test]
fn a_database_in_its_place_that_may_not_be_used_is_an_outage() {
    bound_by_permissions("a_database_in_its_place_that_may_not_be_used_is_an_outage", |folder| {
        for mode in [0o400, 0o200, 0] {
            let (path, id) = filled(folder, mode);
            let store = attentive(&path).open().unwrap();
            let backup = folder.join(format!("backup{mode:o}.db"));
            copy(&path, &backup);
            chmod(&backup, mode);
            for end in ["", "-wal", "-shm"] {
                fs::remove_file(format!("{}{end}", path.display())).unwrap();
            }
            fs::rename(&backup, &path).unwrap();
            block_on(async {
                is_unavailable(store.revoke(revocation(Target::Grant(id))).await);
                is_unavailable::<()>(Err(until_lost(&store, id).await));
                is_unavailable(store.heartbeat(NOW, NOW + DAY).await);
                chmod(&path, 0o600);
                is_as_it_was(&store, id).await;
            });
        }
    });
}

/// The same store works again, and what failed has left no trace.
async fn is_as_it_was(store: &SqliteStore, id: GrantId) {
    until_found(store).await;
    let Lookup::Found(found) = store.find(id, None).await.unwrap() else { panic!("it is gone") };
    assert_eq!(found.grant.revoked_at, None, "half a revocation");
    let log = store.revocations(Cursor::start(), 10).await.unwrap();
    assert!(matches!(log, RevocationBatch::Entries { entries, .. } if entries.is_empty()));
    put(store).await.unwrap();
    store.revoke(revocation(Target::Grant(id))).await.unwrap();
    let Lookup::Found(found) = store.find(id, None).await.unwrap() else { panic!("it is gone") };
    assert!(found.grant.revoked_at.is_some());
}
