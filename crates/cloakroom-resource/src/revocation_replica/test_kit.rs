//! Tokens, entries and pages for unit tests.

use std::cell::RefCell;
use std::fmt::{Debug, Write as _};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Once};
use std::time::Duration;

use async_trait::async_trait;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, RevocationBatch, RevocationPage,
    Target,
};
use cloakroom_core::time::{Clock as _, ManualClock, UnixTime};
use cloakroom_core::{ClientId, GrantId, Jti, Subject};
use tokio::sync::{mpsc, oneshot};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use super::log::RevocationLog;
use super::rules::RevocationStatus;
use super::token_facts::TokenFacts;
use super::{ReplicaBuilder, RevocationReplica};
use crate::error::UnavailableError;

pub(super) const START: UnixTime = UnixTime::from_secs(1_700_000_000);
pub(super) const HOUR: Duration = Duration::from_secs(3600);

pub(super) const fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(super) fn client(name: &str) -> ClientId {
    ClientId::new(name).unwrap()
}

pub(super) fn alice() -> Subject {
    Subject::user("alice").unwrap()
}

pub(super) fn grant(number: u64) -> GrantId {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    GrantId::from_bytes(bytes)
}

/// A token of Alice's at the client `app`, of this grant.
pub(super) fn token(number: u64) -> TokenFacts {
    TokenFacts {
        grant: Some(grant(number)),
        epoch: Some(Epoch::new(START.as_millis())),
        issued_at: Some(START),
        subject: Some(alice()),
        client: Some(client("app")),
        jti: Some(Jti::new(format!("jti-{number}")).unwrap()),
        kid: None,
        handle_hash: None,
        cleared: Default::default(),
    }
}

/// Entries are numbered through: no two have the same id.
fn id() -> EntryId {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    EntryId::from_bytes(bytes)
}

pub(super) fn entry(target: Target, until: UnixTime) -> LogEntry {
    let event = LogEvent::Revoked { target, bound: None, client: None, grant: None };
    LogEntry { id: id(), event, at: START, until }
}

pub(super) fn with_bound(target: Target, bound: u64) -> LogEntry {
    let event =
        LogEvent::Revoked { target, bound: Some(Epoch::new(bound)), client: None, grant: None };
    LogEntry { id: id(), event, at: START, until: START + HOUR }
}

pub(super) fn of_client(target: Target, of: &str, until: UnixTime) -> LogEntry {
    let event = LogEvent::Revoked { target, bound: None, client: Some(client(of)), grant: None };
    LogEntry { id: id(), event, at: START, until }
}

pub(super) fn revoked(number: u64) -> LogEntry {
    entry(Target::Grant(grant(number)), START + HOUR)
}

pub(super) fn heartbeat(at: UnixTime) -> LogEntry {
    LogEntry { id: id(), event: LogEvent::Heartbeat {}, at, until: at + HOUR }
}

pub(super) fn cursor(position: u64) -> Cursor {
    let (incarnation, entry) = ([7; 16], EntryId::from_bytes([9; 16]));
    Cursor::after(&CursorPlace { incarnation, position, entry, revocation: None })
}

pub(super) fn page_of(batch: RevocationBatch) -> RevocationPage {
    RevocationPage { batch, heartbeat: secs(1), clock_skew: Duration::ZERO }
}

/// The last page, so far, and the place after it.
pub(super) fn page(entries: Vec<LogEntry>, next: u64) -> RevocationPage {
    let newest_bound = Epoch::default();
    page_of(RevocationBatch::Entries { entries, next: cursor(next), more: false, newest_bound })
}

/// A page that is not the last.
pub(super) fn more(entries: Vec<LogEntry>, next: u64) -> RevocationPage {
    let newest_bound = Epoch::default();
    page_of(RevocationBatch::Entries { entries, next: cursor(next), more: true, newest_bound })
}

/// A log that answers as the test says, question by question. Whoever sees the next question knows
/// that the answer before it has been taken in.
#[derive(Debug)]
pub(super) struct Scripted(mpsc::UnboundedSender<Question>);

#[derive(Debug)]
pub(super) struct Question {
    pub(super) after: Cursor,
    pub(super) wait: Duration,
    answer: oneshot::Sender<Result<RevocationPage, UnavailableError>>,
}

pub(super) type Questions = mpsc::UnboundedReceiver<Question>;

impl Scripted {
    pub(super) fn new() -> (Self, Questions) {
        let (sender, questions) = mpsc::unbounded_channel();
        (Self(sender), questions)
    }
}

#[async_trait]
impl RevocationLog for Scripted {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let (answer, answered) = oneshot::channel();
        self.0.send(Question { after, wait, answer }).map_err(UnavailableError::other)?;
        answered.await.map_err(UnavailableError::other)?
    }
}

impl Question {
    pub(super) fn answer(self, page: RevocationPage) {
        let _ = self.answer.send(Ok(page));
    }

    pub(super) fn fail(self) {
        let _ = self.answer.send(Err(UnavailableError::other("as the test says")));
    }
}

pub(super) fn manual_clock() -> Arc<ManualClock> {
    Arc::new(ManualClock::at(START))
}

/// A replica whose log answers as the test says, and whose time the test moves. Tokio's own time
/// is paused: it jumps on whenever everybody waits for it.
pub(super) struct Lab {
    pub(super) replica: RevocationReplica,
    pub(super) clock: Arc<ManualClock>,
    pub(super) questions: Questions,
    /// A question that is still to be answered.
    pub(super) again: Option<Question>,
}

impl Lab {
    /// With a log that holds nothing but this page.
    pub(super) async fn start(page: RevocationPage) -> Self {
        Self::with(page, |builder| builder).await
    }

    pub(super) async fn with(
        page: RevocationPage,
        change: impl FnOnce(ReplicaBuilder) -> ReplicaBuilder,
    ) -> Self {
        let (clock, (log, mut questions)) = (manual_clock(), Scripted::new());
        let builder = change(RevocationReplica::builder(log).clock(clock.clone()));
        let following = tokio::spawn(builder.follow());
        questions.recv().await.unwrap().answer(page);
        let replica = following.await.unwrap().unwrap();
        Self { replica, clock, questions, again: None }
    }

    /// The next question: whatever was answered before has been taken in.
    pub(super) async fn question(&mut self) -> Question {
        if let Some(question) = self.again.take() {
            return question;
        }
        let question = tokio::time::timeout(secs(60), self.questions.recv()).await;
        question.expect("nobody asks").expect("nobody follows any more")
    }

    /// Answers the next question, and waits until the answer has been taken in.
    pub(super) async fn answer(&mut self, page: RevocationPage) {
        self.question().await.answer(page);
        self.taken_in().await;
    }

    /// A question that was sent at this very time of ours, whenever the one before it was.
    pub(super) async fn fresh_question(&mut self) -> Question {
        let before = self.question().await;
        let nothing = CursorPlace::of(&before.after).map_or(0, |place| place.position);
        before.answer(page(vec![], nothing));
        self.question().await
    }

    /// Lets the follower's task run until it waits, for the log or for its pause: on this runtime
    /// of one thread it has, when everybody has had some turns.
    pub(super) async fn taken_in(&mut self) {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) fn now(&self) -> UnixTime {
        self.clock.now()
    }

    pub(super) fn revocation_status(&self, number: u64) -> RevocationStatus {
        self.replica.revocation_status(&token(number))
    }

    pub(super) fn staleness(&self) -> Option<u64> {
        self.replica.staleness().map(|age| {
            assert_eq!(age.subsec_nanos(), 0);
            age.as_secs()
        })
    }
}

thread_local! {
    static TRACES: RefCell<String> = const { RefCell::new(String::new()) };
}

struct Traces;

impl Subscriber for Traces {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("cloakroom")
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line(String::new());
        event.record(&mut line);
        TRACES.with_borrow_mut(|traces| {
            traces.push_str(&line.0);
            traces.push('\n');
        });
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

struct Line(String);

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        write!(self.0, " {field}={value:?}").unwrap();
    }
}

/// What this test's thread has traced since its last call.
pub(super) fn traced() -> String {
    static ONCE: Once = Once::new();
    // For all threads, each of which has traces of its own.
    ONCE.call_once(|| tracing::subscriber::set_global_default(Traces).unwrap());
    TRACES.take()
}
