//! The database file: its permissions, and whether it is still the file that was opened.
//!
//! This module never opens the file while SQLite has it open: closing any descriptor of a file drops all
//! locks that the process holds on it (POSIX), including those of SQLite.

use std::fs::{self, Metadata, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ffi::{Error, SQLITE_READONLY};
use rusqlite::{Connection, OpenFlags};

use crate::error::OpenError;

/// Creates the file if there is none, readable only by its owner. SQLite gives the files beside it the
/// same permissions.
pub(crate) fn prepare(path: &Path) -> Result<(), OpenError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let refused = |source| OpenError::File { path: path.to_owned(), source };
    match options.open(path) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            warn_if_others_may_read(path, &fs::metadata(path).map_err(refused)?);
            Ok(())
        }
        Err(error) => Err(refused(error)),
    }
}

/// Checks that there is a file.
pub(crate) fn expect(path: &Path) -> Result<(), OpenError> {
    let refused = |source| OpenError::File { path: path.to_owned(), source };
    warn_if_others_may_read(path, &fs::metadata(path).map_err(refused)?);
    Ok(())
}

#[cfg(unix)]
fn warn_if_others_may_read(path: &Path, metadata: &Metadata) {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(
            path = %path.display(),
            mode = %format_args!("{mode:o}"),
            "users other than the owner can access the database file; restrict it with `chmod 600`"
        );
    }
}

#[cfg(not(unix))]
fn warn_if_others_may_read(_: &Path, _: &Metadata) {}

/// Opens without creating: a missing database must not look like an empty one.
pub(crate) fn open(path: &Path, write: bool) -> rusqlite::Result<Connection> {
    let access = match write {
        true => OpenFlags::SQLITE_OPEN_READ_WRITE,
        false => OpenFlags::SQLITE_OPEN_READ_ONLY,
    };
    let connection = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    // SQLite opens a file that it may not write only for reading, and does not change that later.
    if write && connection.is_readonly("main")? {
        return Err(rusqlite::Error::SqliteFailure(Error::new(SQLITE_READONLY), None));
    }
    Ok(connection)
}

/// The identity of the file at a path. While a file is open, no other file gets its identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    path: PathBuf,
    device_and_node: (u64, u64),
}

impl Identity {
    pub(crate) fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device_and_node: device_and_node(&metadata) })
    }

    /// Whether the path still names this file.
    pub(crate) fn is_in_place(&self) -> io::Result<bool> {
        Ok(Self::of(&self.path)? == *self)
    }
}

#[cfg(unix)]
fn device_and_node(metadata: &Metadata) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt as _;
    (metadata.dev(), metadata.ino())
}

#[cfg(not(unix))]
fn device_and_node(_: &Metadata) -> (u64, u64) {
    // An open file cannot be replaced there.
    (0, 0)
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_file_that_others_can_access_is_traced() {
        // Without this, a thread that has no subscriber could disable the warning for the whole process.
        drop(tracing::subscriber::set_global_default(tracing_subscriber::registry()));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("tokens.db");
        assert!(matches!(expect(&path), Err(OpenError::File { .. })));
        prepare(&path).unwrap();
        for (mode, is_traced) in
            [(0o600, false), (0o700, false), (0o640, true), (0o604, true), (0o602, true)]
        {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            for look in [prepare, expect] {
                let lines = Lines::default();
                let writer = lines.clone();
                let subscriber =
                    tracing_subscriber::fmt().with_writer(move || writer.clone()).finish();
                tracing::subscriber::with_default(subscriber, || look(&path).unwrap());
                let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
                assert_eq!(text.contains("can access the database file"), is_traced, "{mode:o}");
                assert_eq!(text.contains(&format!("{mode:o}")), is_traced, "{text}");
            }
        }
    }
}
