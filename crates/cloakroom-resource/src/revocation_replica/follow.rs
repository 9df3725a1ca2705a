//! Follows the log: reads page after page, and publishes their rules and the resulting staleness.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::revocation::{
    Cursor, EntryId, LogEntry, LogEvent, RevocationBatch, RevocationPage,
};
use cloakroom_core::time::UnixTime;
use tokio::time::{Instant, sleep, timeout};

use super::log::RevocationLog;
use super::staleness::StalenessReading;
use super::state::ReplicaState;
use crate::error::UnavailableError;
use crate::metrics;
use cloakroom_core::time::ClockReading;

/// How much longer than it may wait a log may take to answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(10);

/// The least time between two questions that bring nothing: a server that does not wait is not
/// asked in a loop.
const MIN_PAUSE: Duration = Duration::from_millis(100);

/// How often the first reading may begin anew.
const MAX_RESTARTS: u32 = 3;

/// How many pages the first reading may take: more than rules that fit, by far.
const MAX_PAGES: u32 = 20_000;

/// How many heartbeats are recognised: more than a log that is ours has at once.
const MAX_SEEN: usize = 65_536;

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) clock_skew: Option<Duration>,
    pub(crate) wait: Duration,
    /// After the first failure in a row.
    pub(crate) first_back_off: Duration,
    pub(crate) max_back_off: Duration,
}

/// Reads the log.
pub(crate) struct Follower {
    log: Box<dyn RevocationLog>,
    shared: Arc<ReplicaState>,
    settings: Settings,
    cursor: Cursor,
    /// Whether the log was read to its end since it was last begun.
    is_complete: bool,
    /// The least stale reading.
    best: Option<StalenessReading>,
    seen: SeenHeartbeats,
    /// The time by the newest heartbeat.
    log_time: UnixTime,
}

/// What a page brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// New entries.
    Entries,
    /// Nothing that leads on.
    Nothing,
    /// That the log has to be read from its beginning.
    Restart,
}

impl Follower {
    pub(crate) fn new(
        log: Box<dyn RevocationLog>,
        shared: Arc<ReplicaState>,
        settings: Settings,
    ) -> Self {
        Self {
            log,
            shared,
            settings,
            cursor: Cursor::start(),
            is_complete: false,
            best: None,
            seen: SeenHeartbeats::default(),
            log_time: UnixTime::default(),
        }
    }

    /// Reads the log to its end, for the first time.
    pub(crate) async fn catch_up(&mut self) -> Result<(), UnavailableError> {
        let mut restarts = 0;
        for _ in 0..MAX_PAGES {
            if self.is_complete {
                self.report();
                return Ok(());
            }
            match self.step(Duration::ZERO).await? {
                Step::Entries => tokio::task::yield_now().await,
                Step::Restart if restarts < MAX_RESTARTS => {
                    restarts += 1;
                    sleep(self.back_off(restarts)).await;
                }
                Step::Restart => {
                    return Err(UnavailableError::Malformed("the log changes while it is read"));
                }
                Step::Nothing if self.is_complete => {}
                Step::Nothing => {
                    return Err(UnavailableError::Malformed(
                        "the log says that it has more, but returns nothing new",
                    ));
                }
            }
        }
        Err(UnavailableError::Malformed("the log has no end"))
    }

    /// Follows the log for ever.
    pub(crate) async fn run(mut self) {
        let mut failures = 0_u32;
        loop {
            let asked = Instant::now();
            let pause = match self.step(self.settings.wait).await {
                Ok(step) => {
                    if failures > 0 {
                        tracing::info!(failures, "the revocation log can be read again");
                        metrics::replica_reconnected();
                    }
                    failures = 0;
                    match step {
                        Step::Entries => Duration::ZERO,
                        Step::Nothing => MIN_PAUSE.saturating_sub(asked.elapsed()),
                        Step::Restart => self.back_off(1),
                    }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, failures, "the revocation log cannot be read");
                    self.back_off(failures)
                }
            };
            self.report();
            // At least once a turn the other tasks get theirs, however quick the log is.
            if pause.is_zero() {
                tokio::task::yield_now().await;
            } else {
                sleep(pause).await;
            }
        }
    }

    /// Reads a page, and takes in what it says in one go: a future that is dropped while it waits
    /// has changed nothing.
    async fn step(&mut self, wait: Duration) -> Result<Step, UnavailableError> {
        // What the answer proves, it proves of the time before it was asked for.
        let sent = ClockReading::now(&*self.shared.clock);
        let reading = self.log.read(self.cursor.clone(), wait);
        match timeout(wait.saturating_add(ANSWER_MARGIN), reading).await {
            Ok(page) => self.take(page?, sent),
            Err(elapsed) => Err(UnavailableError::NoAnswer(Arc::new(elapsed))),
        }
    }

    fn take(&mut self, page: RevocationPage, sent: ClockReading) -> Result<Step, UnavailableError> {
        let clock_skew = self.settings.clock_skew.unwrap_or(page.clock_skew);
        self.shared.set_steady(page.heartbeat, clock_skew);
        let (entries, next, more) = match page.batch {
            RevocationBatch::Entries { entries, next, more, .. } => (entries, next, more),
            RevocationBatch::Gap if self.cursor == Cursor::start() => {
                return Err(UnavailableError::Malformed(
                    "the log has a gap before its first entry",
                ));
            }
            RevocationBatch::Gap => {
                tracing::warn!("the revocation log has a gap; reading it from its beginning");
                metrics::replica_gap();
                self.restart();
                return Ok(Step::Restart);
            }
        };
        let is_known = |entry: &LogEntry| {
            matches!(entry.event, LogEvent::Revoked { .. } | LogEvent::Heartbeat {})
        };
        if !entries.iter().all(is_known) {
            return Err(UnavailableError::Malformed("an entry of the log is of an unknown kind"));
        }

        // The rules first, and then the reading that counts them in: who reads them the other way
        // round finds at least the rules that go with the reading.
        self.shared.apply(&entries);
        self.note(&entries, sent, clock_skew);
        self.is_complete |= !more;
        let led_on = next != self.cursor && !entries.is_empty();
        self.cursor = next;
        // By both clocks: one that runs ahead must not forget what the other still needs.
        self.shared.sweep(self.log_time.min(ClockReading::now(&*self.shared.clock).wall()));
        self.publish();
        Ok(if led_on { Step::Entries } else { Step::Nothing })
    }

    /// Notes what the page's heartbeats prove. One that was seen before proves nothing: a server
    /// may hand it out for ever. Nor does one from further ahead than clocks may differ: nobody can
    /// say how old it is. It counts as seen, so that it proves nothing later, either.
    fn note(&mut self, entries: &[LogEntry], sent: ClockReading, clock_skew: Duration) {
        let now = ClockReading::now(&*self.shared.clock);
        let latest = now.wall() + clock_skew;
        let heartbeats = entries.iter().filter(|it| matches!(it.event, LogEvent::Heartbeat {}));
        let new: Vec<_> = heartbeats.filter(|it| self.seen.insert(it.id)).map(|it| it.at).collect();
        if let Some(at) = new.iter().max().filter(|at| **at > latest) {
            let ahead = at.since(now.wall());
            tracing::warn!(
                ?ahead,
                "ignored a heartbeat that is ahead of the local clock by more than the skew"
            );
        }
        let Some(at) = new.into_iter().filter(|at| *at <= latest).max() else { return };
        self.log_time = self.log_time.max(at);
        let age = sent.wall().since(at);
        let reading = StalenessReading { sent, behind: age.saturating_add(clock_skew) };
        // Servers whose clocks differ take turns; the one that is slow takes nothing back.
        if self.best.is_none_or(|best| reading.staleness(now) <= best.staleness(now)) {
            self.best = Some(reading);
        }
    }

    /// Begins anew. The rules stay until they end; that all of them are known is not said again
    /// before the log was read to its end.
    fn restart(&mut self) {
        self.cursor = Cursor::start();
        self.is_complete = false;
        self.best = None;
        self.publish();
    }

    fn publish(&self) {
        self.shared.publish(self.best.filter(|_| self.is_complete));
    }

    /// How long to wait after so many failures in a row: twice as long with each, and a random part
    /// of that, so that the followers of a server that comes back do not all come at once.
    fn back_off(&self, failures: u32) -> Duration {
        let Settings { first_back_off: first, max_back_off: most, .. } = self.settings;
        let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
        let whole = first.saturating_mul(doubled).min(most);
        let random = Random::system().array().map_or(u16::MAX, u16::from_ne_bytes);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u16::MAX))
    }

    fn report(&self) {
        let staleness = self.shared.staleness(ClockReading::now(&*self.shared.clock));
        metrics::replica(staleness, self.shared.read().len());
    }
}

/// The heartbeats that were seen, the newest of them.
#[derive(Debug, Default)]
struct SeenHeartbeats {
    ids: HashSet<EntryId>,
    order: VecDeque<EntryId>,
}

impl SeenHeartbeats {
    /// Whether it is new.
    fn insert(&mut self, id: EntryId) -> bool {
        if !self.ids.insert(id) {
            return false;
        }
        self.order.push_back(id);
        if self.order.len() > MAX_SEEN
            && let Some(oldest) = self.order.pop_front()
        {
            self.ids.remove(&oldest);
        }
        true
    }
}

#[cfg(test)]
mod tests;
