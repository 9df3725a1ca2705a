//! What happened, as those wrote it down to whom it happened, by one clock.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloakroom::core::time::Clock;
use tokio::sync::watch;

/// A point in time: monotonic, by the one clock of a test.
pub(crate) type Instant = Duration;

/// Where a token is presented.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    pub(crate) name: &'static str,
    /// How long after a revocation was acknowledged a request may begin that is let in.
    pub(crate) bound: Duration,
}

/// What an edge let in.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) place: Place,
    pub(crate) token: u32,
    /// When the request began, before the layer was called.
    pub(crate) begun: Instant,
    /// The key that the JWT names which went on, or came.
    pub(crate) kid: Option<Arc<str>>,
}

/// What an edge answered by itself.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) place: Place,
    pub(crate) token: u32,
    pub(crate) begun: Instant,
    pub(crate) ended: Instant,
    pub(crate) status: u16,
    /// The key that the JWT names which came.
    pub(crate) kid: Option<Arc<str>>,
}

/// What is revoked, as the oracle sees it: tokens, grants, users and clients by their numbers.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Of {
    Token(u32),
    Grant(u32),
    User(u32),
    Client(u32),
    UserAtClient(u32, u32),
    Key(Arc<str>),
}

impl Of {
    /// Whether it ends only what was granted before.
    pub(crate) const fn is_bounded(&self) -> bool {
        matches!(self, Self::User(_) | Self::Client(_) | Self::UserAtClient(..))
    }
}

/// A try to revoke something.
#[derive(Debug, Clone)]
pub(crate) struct Revoked {
    pub(crate) of: Of,
    pub(crate) begun: Instant,
    /// `None` if nobody heard whether it succeeded.
    pub(crate) acknowledged: Option<Instant>,
}

/// The tape.
#[derive(Debug)]
pub(crate) struct Tape {
    pub(crate) clock: Arc<dyn Clock>,
    entries: Mutex<Vec<Entry>>,
    answers: Mutex<Vec<Answer>>,
    /// How many visits, by place and status; 200 is for those that were let in.
    counts: Mutex<HashMap<(&'static str, u16), usize>>,
    revoked: Mutex<Vec<Revoked>>,
    visits: watch::Sender<usize>,
    /// How many requests have come to an edge.
    begun: watch::Sender<usize>,
    acknowledged: AtomicUsize,
}

impl Tape {
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self {
            clock,
            entries: Mutex::default(),
            answers: Mutex::default(),
            counts: Mutex::default(),
            revoked: Mutex::default(),
            visits: watch::Sender::new(0),
            begun: watch::Sender::new(0),
            acknowledged: AtomicUsize::default(),
        })
    }

    pub(crate) fn now(&self) -> Instant {
        self.clock.monotonic()
    }

    /// Says when a request begins: now.
    pub(crate) fn begin(&self) -> Instant {
        let now = self.now();
        self.begun.send_modify(|begun| *begun += 1);
        now
    }

    /// Waits until so many requests have begun.
    pub(crate) async fn until_begun(&self, requests: usize) {
        self.begun.subscribe().wait_for(|begun| *begun >= requests).await.unwrap();
    }

    pub(crate) fn enter(&self, entry: Entry) {
        self.count(entry.place, 200);
        self.entries.lock().unwrap().push(entry);
        self.visits.send_modify(|visits| *visits += 1);
    }

    pub(crate) fn answer(&self, answer: Answer) {
        self.count(answer.place, answer.status);
        self.answers.lock().unwrap().push(answer);
        self.visits.send_modify(|visits| *visits += 1);
    }

    fn count(&self, place: Place, status: u16) {
        *self.counts.lock().unwrap().entry((place.name, status)).or_default() += 1;
    }

    /// Notes a revocation that somebody has tried. Where it began must have been before it was
    /// sent, and where it was acknowledged after the answer came.
    pub(crate) fn revoke(&self, revoked: Revoked) {
        self.acknowledged.fetch_add(revoked.acknowledged.is_some().into(), Ordering::SeqCst);
        self.revoked.lock().unwrap().push(revoked);
    }

    /// How many revocations were acknowledged.
    pub(crate) fn acknowledged(&self) -> usize {
        self.acknowledged.load(Ordering::SeqCst)
    }

    /// How often a token was let in, or was not.
    pub(crate) fn visits(&self) -> usize {
        *self.visits.borrow()
    }

    /// Waits until there were so many visits.
    pub(crate) async fn until(&self, visits: usize) {
        let mut changes = self.visits.subscribe();
        changes.wait_for(|now| *now >= visits).await.unwrap();
    }

    /// Waits for something that visits bring about.
    pub(crate) async fn until_true(&self, mut holds: impl FnMut() -> bool) {
        let mut changes = self.visits.subscribe();
        while !holds() {
            changes.changed().await.unwrap();
        }
    }

    /// How often this place was visited.
    pub(crate) fn visits_at(&self, place: Place) -> usize {
        let counts = self.counts.lock().unwrap();
        counts.iter().filter(|((name, _), _)| *name == place.name).map(|(_, count)| count).sum()
    }

    /// How often this place gave this answer itself; how often it let a token in, for 200.
    pub(crate) fn answered(&self, place: Place, status: u16) -> usize {
        self.counts.lock().unwrap().get(&(place.name, status)).copied().unwrap_or_default()
    }

    pub(crate) fn entries(&self) -> Vec<Entry> {
        self.entries.lock().unwrap().clone()
    }

    pub(crate) fn answers(&self) -> Vec<Answer> {
        self.answers.lock().unwrap().clone()
    }

    pub(crate) fn revocations(&self) -> Vec<Revoked> {
        self.revoked.lock().unwrap().clone()
    }
}
