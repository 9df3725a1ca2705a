//! What the threads of the store share: the connections for reading, and the wake-ups of the log.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::{io, thread};

use cloakroom_core::revocation::LogNotifications;
use cloakroom_core::store::{Migration, StoreError};
use event_listener::{Event, Listener as _};
use futures_channel::oneshot;
use futures_util::StreamExt as _;
use futures_util::stream::unfold;
use rusqlite::Connection;

use crate::error::{OpenError, failed, is_busy};
use crate::file::{self, Identity};
use crate::readers::Readers;
use crate::revocation_log;
use crate::schema;
use crate::store::Settings;
use crate::writer::{Keeper, Writer};

pub(crate) struct Shared {
    pub(crate) settings: Settings,
    lookups: Readers,
    /// The connection of the thread for long reads. It may wait for locks.
    long: Readers,
    elsewhere: Sender<Box<dyn FnOnce() + Send>>,
    identity: Mutex<Identity>,
    /// Whether the file is no longer at its path, so that reads may be outdated.
    lost: AtomicBool,
    /// The position of the newest entry of the log that this process knows.
    newest: AtomicU64,
    grown: Event,
    ended: AtomicBool,
    end: Event,
}

/// Creating the file closes a descriptor of it. This must not happen while another thread of this process
/// has the same file open.
static OPENING: Mutex<()> = Mutex::new(());

impl Shared {
    pub(crate) fn open(settings: Settings) -> Result<(Arc<Self>, Writer), OpenError> {
        let _guard = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        let path = settings.path.as_path();
        let connection = match settings.migrates {
            true => Self::migrated(&settings)?,
            false => {
                file::expect(path)?;
                let connection = writing(&settings)?;
                schema::open_migrated(&connection, &*settings.clock)?;
                connection
            }
        };
        let identity = identity(path)?;
        let newest = revocation_log::newest(&connection)?;
        let (elsewhere, tasks) = channel::<Box<dyn FnOnce() + Send>>();
        let shared = Arc::new(Self {
            lookups: Readers::new(reading(&settings, settings.readers, Waits::Never)?),
            long: Readers::new(reading(&settings, 1, Waits::ForLocks)?),
            elsewhere,
            identity: Mutex::new(identity),
            lost: AtomicBool::new(false),
            newest: AtomicU64::new(newest),
            grown: Event::new(),
            ended: AtomicBool::new(false),
            end: Event::new(),
            settings,
        });
        let refused = |source| OpenError::File { path: shared.settings.path.clone(), source };
        thread::Builder::new()
            .name("cloakroom-sqlite reads".into())
            .spawn(move || tasks.iter().for_each(|task| task()))
            .map_err(refused)?;
        let keeper = Tending(Arc::clone(&shared));
        let writer =
            Writer::start("cloakroom-sqlite writes", connection, keeper).map_err(refused)?;
        let (watched, watching_writer) = (Arc::clone(&shared), writer.clone());
        let watch = reading(&watched.settings, 1, Waits::ForLocks)?.pop();
        thread::Builder::new()
            .name("cloakroom-sqlite log".into())
            .spawn(move || watched.watch(watch, &watching_writer))
            .map_err(refused)?;
        Ok((shared, writer))
    }

    /// A connection to a file that is created and migrated as needed.
    fn migrated(settings: &Settings) -> Result<Connection, OpenError> {
        file::prepare(&settings.path)?;
        let mut connection = writing(settings)?;
        schema::migrate(&mut connection, &*settings.clock, &settings.random)?;
        Ok(connection)
    }

    /// Creates and migrates the file, and closes it again.
    pub(crate) fn migrate(settings: &Settings) -> Result<usize, OpenError> {
        let _guard = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(schema::version_of(&Self::migrated(settings)?)?)
    }

    /// The migrations that the file needs.
    pub(crate) fn pending(settings: &Settings) -> Result<Vec<Migration>, OpenError> {
        let _guard = OPENING.lock().unwrap_or_else(PoisonError::into_inner);
        if !settings.path.exists() {
            return schema::pending(None);
        }
        let connection = reading(settings, 1, Waits::ForLocks)?.pop();
        schema::pending(connection.as_ref())
    }

    /// A read that takes microseconds. It runs here, or on the other thread if a lock is held.
    pub(crate) async fn look_up<T, F>(self: &Arc<Self>, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: Fn(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        self.check()?;
        match self.lookups.read(&read) {
            Err(error) if is_busy(&error) => self.read_elsewhere(read).await,
            answer => answer,
        }
    }

    pub(crate) async fn read_elsewhere<T, F>(self: &Arc<Self>, read: F) -> Result<T, StoreError>
    where
        T: Send + 'static,
        F: FnOnce(&Connection) -> Result<T, StoreError> + Send + 'static,
    {
        let ended = || StoreError::unavailable("reading", "the reader's thread has ended");
        let (reply, answer) = oneshot::channel();
        let shared = Arc::clone(self);
        let task = move || {
            let _ = reply.send(shared.check().and_then(|()| shared.long.read(read)));
        };
        self.elsewhere.send(Box::new(task)).map_err(|_| ended())?;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }

    fn check(&self) -> Result<(), StoreError> {
        if self.lost.load(Ordering::Acquire) {
            return Err(StoreError::unavailable(
                "reading",
                "the database file is no longer at its path",
            ));
        }
        Ok(())
    }

    /// Whether the path names the open file. If it names another database of ours, that one is opened.
    fn find_file(&self, writer: Option<&mut Connection>) -> Result<(), StoreError> {
        let mut identity = self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        let unavailable = |error: io::Error| StoreError::unavailable("finding the file", error);
        let result = match (identity.is_in_place(), writer) {
            (Ok(true), _) => Ok(()),
            (Ok(false), Some(writer)) => self.reopen(&mut identity, writer),
            (Ok(false), None) => Err(unavailable(io::ErrorKind::NotFound.into())),
            (Err(error), _) => Err(unavailable(error)),
        };
        self.lost.store(result.is_err(), Ordering::Release);
        result
    }

    fn reopen(&self, identity: &mut Identity, writer: &mut Connection) -> Result<(), StoreError> {
        let reopened = || -> Result<_, OpenError> {
            let mut connection = writing(&self.settings)?;
            schema::check(&connection)?;
            schema::migrate(&mut connection, &*self.settings.clock, &self.settings.random)?;
            let lookups = reading(&self.settings, self.settings.readers, Waits::Never)?;
            let long = reading(&self.settings, 1, Waits::ForLocks)?;
            Ok((connection, lookups, long, self::identity(&self.settings.path)?))
        };
        let (connection, lookups, long, found) = reopened().map_err(|error| match error {
            OpenError::Store(error) => error,
            error => StoreError::unavailable("opening the file that replaces the database", error),
        })?;
        tracing::warn!(path = %self.settings.path.display(), "the database file was replaced");
        *writer = connection;
        self.lookups.replace(lookups);
        self.long.replace(long);
        *identity = found;
        Ok(())
    }

    /// Checks at intervals whether other processes wrote to the log, and whether the file is still there.
    fn watch(&self, mut connection: Option<Connection>, writer: &Writer) {
        while !self.ended.load(Ordering::Acquire) {
            let listener = self.end.listen();
            if self.ended.load(Ordering::Acquire) {
                return;
            }
            let _ = listener.wait_timeout(self.settings.poll);
            let in_place = self.find_file(None).is_ok();
            if !in_place && self.settings.path.exists() {
                // The writer opens the file that replaced it.
                writer.poke();
            }
            if !in_place || connection.is_none() {
                connection = match in_place {
                    true => {
                        reading(&self.settings, 1, Waits::ForLocks).ok().and_then(|mut c| c.pop())
                    }
                    false => None,
                };
            }
            match connection.as_ref().map(revocation_log::newest) {
                Some(Ok(newest)) => self.tell(newest),
                // Calls of the store will report it. Another connection is tried.
                Some(Err(_)) => connection = None,
                None => {}
            }
        }
    }

    /// Wakes the readers of the log if it grew.
    fn tell(&self, newest: u64) {
        if self.newest.swap(newest, Ordering::AcqRel) != newest {
            self.grown.notify(usize::MAX);
        }
    }

    /// An item whenever the log has grown since the last item, and one at the start if it is not
    /// empty. The stream does not keep the store alive, and ends with it.
    pub(crate) fn wakeups<S: Send + Sync + 'static>(
        self: &Arc<Self>,
        store: Weak<S>,
    ) -> LogNotifications {
        let start = (Arc::clone(self), store, 0);
        let next = |(shared, store, seen): (Arc<Self>, Weak<S>, u64)| async move {
            loop {
                // Listen before looking, so that an entry between the two is not missed.
                let listener = shared.grown.listen();
                store.upgrade()?;
                let newest = shared.newest.load(Ordering::Acquire);
                if newest != seen {
                    return Some(((), (shared, store, newest)));
                }
                listener.await;
            }
        };
        LogNotifications::Stream(Box::pin(unfold(start, next).fuse()))
    }

    /// Ends the threads and streams, when the store is dropped.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.end.notify(usize::MAX);
        self.grown.notify(usize::MAX);
    }
}

/// What the writer thread does besides writing.
struct Tending(Arc<Shared>);

impl Keeper for Tending {
    fn before(&mut self, connection: &mut Connection) -> Result<(), StoreError> {
        self.0.find_file(Some(connection))
    }

    fn after(&mut self, connection: &Connection) {
        match revocation_log::newest(connection) {
            Ok(newest) => self.0.tell(newest),
            // Readers of the log learn of it one poll later. Damaged pages must not stay cached after they
            // are gone from the file.
            Err(_) => drop(connection.release_memory()),
        }
    }
}

fn identity(path: &Path) -> Result<Identity, OpenError> {
    Identity::of(path).map_err(|source| OpenError::File { path: path.to_owned(), source })
}

fn writing(settings: &Settings) -> Result<Connection, StoreError> {
    let during = |error| failed("opening the database", error);
    let connection = file::open(&settings.path, true).map_err(during)?;
    schema::configure(&connection, settings.synchronous, settings.busy).map_err(during)?;
    if let Some(pages) = settings.max_pages {
        connection.pragma_update(None, "max_page_count", pages).map_err(during)?;
    }
    Ok(connection)
}

/// What a reader does when another connection holds a lock.
#[derive(Clone, Copy)]
enum Waits {
    Never,
    ForLocks,
}

fn reading(settings: &Settings, count: usize, waits: Waits) -> Result<Vec<Connection>, StoreError> {
    let busy = match waits {
        Waits::Never => std::time::Duration::ZERO,
        Waits::ForLocks => settings.busy,
    };
    let open = |_| {
        let connection = file::open(&settings.path, false)?;
        schema::configure(&connection, settings.synchronous, busy)?;
        Ok(connection)
    };
    (0..count)
        .map(open)
        .collect::<rusqlite::Result<_>>()
        .map_err(|error| failed("opening the database", error))
}
