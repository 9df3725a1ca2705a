//! A few connections that are replaced when they break.

use std::ops::Deref;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use cloakroom_core::store::StoreError;
use tokio::sync::watch;
use tokio_postgres::Row;

use crate::error::{Failed, failed};
use crate::session::{Params, Session};
use crate::settings::Settings;
use crate::sql::Sql;

/// How long to wait before the second attempt to connect; each further attempt waits twice as long.
const FIRST_PAUSE: Duration = Duration::from_millis(10);

/// The longest wait between two attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// How often a statement is sent again that the server rolled back because of others.
const CONFLICTS: usize = 5;

/// Whether a statement may be sent again when its connection broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It changes nothing.
    Read,
    /// It may have taken effect.
    Write,
}

/// Connections of one kind of work.
#[derive(Clone)]
pub(crate) struct Pool {
    slots: Arc<[Arc<Slot>]>,
}

impl Pool {
    pub(crate) fn new(settings: &Arc<Settings>, connections: usize) -> Self {
        let slot = |_| Arc::new(Slot::new(Arc::clone(settings)));
        Self { slots: (0..connections.max(1)).map(slot).collect() }
    }

    /// A connection: an idle one, otherwise a new one, otherwise that on which the fewest callers wait.
    pub(crate) async fn session(&self, during: &'static str) -> Result<Lease, StoreError> {
        let best = self.slots.iter().min_by_key(|slot| (slot.users(), !slot.is_open()));
        let Some(best) = best else { return Err(failed(during, Failed::Ended)) };
        let used = InUse::new(best);
        match best.session().await {
            Ok(session) => Ok(Lease { session, _used: used }),
            // The server may have no room for one more, but those that are open still serve.
            Err(error) => match self.slots.iter().find_map(|slot| Some((slot, slot.open()?))) {
                Some((slot, session)) => Ok(Lease { session, _used: InUse::new(slot) }),
                None => Err(failed(during, Failed::NoConnection(error))),
            },
        }
    }

    /// Runs one statement.
    pub(crate) async fn query(
        &self,
        during: &'static str,
        kind: Kind,
        (sql, limit): (&'static Sql, u32),
        params: Params<'_>,
    ) -> Result<Vec<Row>, StoreError> {
        self.try_query(during, kind, (sql, limit), params)
            .await?
            .map_err(|error| failed(during, error))
    }

    /// Like [`query`](Self::query), for a caller that looks at the error of the statement.
    pub(crate) async fn try_query(
        &self,
        during: &'static str,
        kind: Kind,
        (sql, limit): (&'static Sql, u32),
        params: Params<'_>,
    ) -> Result<Result<Vec<Row>, Failed>, StoreError> {
        let (mut conflicts, mut broken) = (0, 0);
        loop {
            let session = self.session(during).await?;
            match session.query(sql, limit, params).await {
                Err(error) if error.lost_a_conflict() && conflicts < CONFLICTS => conflicts += 1,
                // The connection ended while nobody used it, or the server was stopped.
                Err(error)
                    if kind == Kind::Read
                        && error.is_final()
                        && !matches!(error, Failed::TimedOut)
                        && broken < 1 =>
                {
                    broken += 1;
                }
                answer => return Ok(answer),
            }
        }
    }
}

/// The use of a connection.
pub(crate) struct Lease {
    session: Arc<Session>,
    _used: InUse,
}

impl Deref for Lease {
    type Target = Session;

    fn deref(&self) -> &Session {
        &self.session
    }
}

struct InUse(Arc<Slot>);

impl InUse {
    fn new(slot: &Arc<Slot>) -> Self {
        slot.users.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(slot))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.0.users.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The place of one connection.
struct Slot {
    settings: Arc<Settings>,
    users: AtomicUsize,
    state: Mutex<State>,
}

type Attempt = watch::Receiver<Option<Result<Arc<Session>, Arc<Failed>>>>;

#[derive(Default)]
struct State {
    session: Option<Arc<Session>>,
    /// The attempt that is under way. It runs in a task, so that it does not depend on who waits for it.
    attempt: Option<Attempt>,
    pause: Duration,
}

impl Slot {
    fn new(settings: Arc<Settings>) -> Self {
        Self { settings, users: AtomicUsize::new(0), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn users(&self) -> usize {
        self.users.load(Ordering::Relaxed)
    }

    fn open(&self) -> Option<Arc<Session>> {
        self.state().session.clone().filter(|session| !session.is_closed())
    }

    fn is_open(&self) -> bool {
        self.state().session.as_ref().is_some_and(|session| !session.is_closed())
    }

    /// The connection, or a new one.
    async fn session(self: &Arc<Self>) -> Result<Arc<Session>, Arc<Failed>> {
        let mut attempt = {
            let mut state = self.state();
            match &state.session {
                Some(session) if !session.is_closed() => return Ok(Arc::clone(session)),
                _ => self.attempt(&mut state),
            }
        };
        let connected = attempt.wait_for(Option::is_some).await;
        match connected.ok().and_then(|result| result.clone()) {
            Some(result) => result,
            None => Err(Arc::new(Failed::Ended)),
        }
    }

    fn attempt(self: &Arc<Self>, state: &mut State) -> Attempt {
        if let Some(attempt) = &state.attempt {
            return attempt.clone();
        }
        let (sender, attempt) = watch::channel(None);
        state.attempt = Some(attempt.clone());
        let (slot, pause) = (Arc::clone(self), state.pause);
        self.settings.runtime.spawn(async move {
            tokio::time::sleep(pause).await;
            let result = Session::connect(Arc::clone(&slot.settings), None).await;
            let result = result.map(Arc::new).map_err(Arc::new);
            let mut state = slot.state();
            state.attempt = None;
            match &result {
                Ok(session) => {
                    state.session = Some(Arc::clone(session));
                    state.pause = Duration::ZERO;
                }
                Err(error) => {
                    tracing::debug!(error = &**error as &dyn std::error::Error, "cannot connect");
                    state.session = None;
                    state.pause = (state.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                }
            }
            sender.send_replace(Some(result));
        });
        attempt
    }
}
