//! Follows the revocation log, and puts right a store that went back in time.
//!
//! What this server knows is never taken for alive (`remembering.rs`), so nothing is lost at the
//! moment of a regression. It is noticed here, reported, and repeated to the store: revocations that
//! the log lacks, marks of signing keys, the newest bound. Until that is done the server vouches for
//! no token. Any number of servers may do so at once: each reads in the log what the others have
//! repeated.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::revocation::{
    Cursor, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Target,
};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::{ClockReading, UnixTime};

use crate::error::TokenError;
use crate::events::Event;
use crate::issuer::Inner;
use crate::revocation::regression::Regression;

/// The entries of one read.
const BATCH: u32 = 1_000;

/// How many revocations are repeated before the log is read on: others repeat the same.
const REPEATS: usize = 100;

/// How often reading may begin anew at a time.
const MAX_BEGINNINGS: usize = 3;

/// How far the newest bound may be ahead of this server's clock and still be written as a time.
const MAX_AHEAD: Duration = Duration::from_secs(60);

/// How far the log was read.
#[derive(Debug, Default)]
pub(crate) struct LogReader {
    cursor: Cursor,
    /// Counts the readings: each begins at the start of the log.
    reading: u64,
    /// The doubt for which this reading was begun.
    suspicion: Option<u64>,
    /// The newest entry that was read, with its end.
    last: Option<(EntryId, UnixTime)>,
    /// The newest entry of the reading before, if it has not come again.
    lost: Option<(EntryId, UnixTime)>,
    /// The newest bound that the log showed.
    newest_bound: Epoch,
    /// The time of the newest heartbeat.
    heartbeat: Option<UnixTime>,
}

impl LogReader {
    fn begin(&mut self, suspicion: Option<u64>) {
        self.cursor = Cursor::start();
        self.reading += 1;
        self.suspicion = suspicion;
        self.lost = self.lost.take().or(self.last.take());
        self.heartbeat = None;
    }

    fn read(&mut self, entries: &[LogEntry], latest: UnixTime) {
        for entry in entries {
            if self.lost.is_some_and(|(id, _)| id == entry.id) {
                self.lost = None;
            }
            // None can honestly be later than the clock that is furthest ahead.
            if matches!(entry.event, LogEvent::Heartbeat {}) && entry.at <= latest {
                self.heartbeat = self.heartbeat.max(Some(entry.at));
            }
        }
        if let Some(newest) = entries.last() {
            self.last = Some((newest.id, newest.until));
        }
    }
}

impl Inner {
    /// Whether this server may vouch for tokens, and issue any. If its store may have gone back in
    /// time, and nobody is at it yet, that is put right first.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unavailable`] while that goes on, or if the server has not heard of the log for
    /// too long; else if the store fails.
    pub(crate) async fn check_log_watch(self: &Arc<Self>) -> Result<(), TokenError> {
        const REGRESSED: TokenError = TokenError::Unavailable("the store went back in time");
        if self.store.memory().open_suspicion().is_some() {
            let mut reader = self.reader.try_lock().map_err(|_| REGRESSED)?;
            Box::pin(self.catch_up(&mut reader)).await?;
        }
        let now = self.now();
        if self.store.memory().open_suspicion().is_some() || self.store.memory().is_suspended(now) {
            return Err(REGRESSED);
        }
        self.log_watch.check(&*self.clock)
    }

    /// Follows the log for ever: whenever it grows, and once in each period of heartbeats.
    pub(crate) async fn follow_log(self: &Arc<Self>) -> Infallible {
        let mut changes = self.log_notifier.subscribe();
        loop {
            changes.borrow_and_update();
            let mut reader = self.reader.lock().await;
            if let Err(error) = self.catch_up(&mut reader).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the server's own revocation log cannot be followed");
            }
            drop(reader);
            // Many servers write many heartbeats: not each of them is a call.
            tokio::time::sleep(self.heartbeat / 10).await;
            let _ = tokio::time::timeout(self.heartbeat, changes.changed()).await;
        }
    }

    /// Reads what is new in the log, and puts right what it lacks.
    async fn catch_up(self: &Arc<Self>, reader: &mut LogReader) -> Result<(), StoreError> {
        let suspicion = self.store.memory().open_suspicion();
        if suspicion.is_some() && reader.suspicion != suspicion {
            reader.begin(suspicion);
        }
        self.read_log(reader).await?;
        // A heartbeat that was written after a revocation was acknowledged, by any clock, stands
        // behind it in the log.
        let before = reader.heartbeat.map(|at| at - self.clock_skew());
        let lacks =
            |before| self.store.memory().known.lacks_own(reader.reading, before, self.now());
        if self.store.memory().open_suspicion().is_none() && before.is_some_and(lacks) {
            self.store.memory().suspect_regression(Some(Regression::Written));
            self.report_regressions();
            reader.begin(self.store.memory().open_suspicion());
            self.read_log(reader).await?;
        }
        if self.store.memory().open_suspicion().is_some() {
            self.put_right(reader).await?;
        }
        Ok(())
    }

    async fn read_log(&self, reader: &mut LogReader) -> Result<(), StoreError> {
        for _ in 0..MAX_BEGINNINGS {
            if self.read_on(reader).await? {
                return Ok(());
            }
            self.report_regressions();
            reader.begin(self.store.memory().open_suspicion());
        }
        Err(StoreError::unavailable("reading the log", "its place is lost again and again"))
    }

    /// Reads to the end; `false` if reading must begin anew.
    async fn read_on(&self, reader: &mut LogReader) -> Result<bool, StoreError> {
        loop {
            let sent = ClockReading::now(&*self.clock);
            match self.store.revocations(reader.cursor.clone(), BATCH).await? {
                RevocationBatch::Entries { entries, next, more, newest_bound: found } => {
                    let seen = std::mem::replace(&mut reader.newest_bound, found);
                    if found < seen {
                        self.store
                            .memory()
                            .suspect_regression(Some(Regression::Bound { seen, found }));
                        return Ok(false);
                    }
                    self.log_watch.observe(&entries, sent, self.clock.now());
                    self.store.memory().raise(found);
                    self.store.memory().known.remember_logged(
                        &entries,
                        reader.reading,
                        sent.wall(),
                    );
                    self.note_compromised(&entries);
                    reader.read(&entries, sent.wall() + self.clock_skew());
                    reader.cursor = next;
                    if !more {
                        self.store.memory().followed(sent);
                        return Ok(true);
                    }
                }
                RevocationBatch::Gap => {
                    self.log_watch.reset();
                    self.store.memory().suspect_regression(None);
                    return Ok(false);
                }
            }
        }
    }

    /// Other servers' compromised keys are out of use here before the ring is loaded again.
    fn note_compromised(&self, entries: &[LogEntry]) {
        for entry in entries {
            if let LogEvent::Revoked { target: Target::Key(kid), .. } = &entry.event
                && let Err(error) = self.keys.note_compromised(kid, entry.at)
            {
                tracing::error!(%kid, %error, "a compromised key cannot be taken out of use");
            }
        }
    }

    /// Repeats to the store what it has forgotten. The log was read from its start to its end.
    async fn put_right(self: &Arc<Self>, reader: &mut LogReader) -> Result<(), StoreError> {
        // The ring may bring doubts of its own, which are settled here as well.
        self.put_keys_right().await;
        let Some(suspicion) = self.store.memory().open_suspicion() else { return Ok(()) };
        // Until all is done: whoever breaks off begins anew.
        reader.suspicion = None;
        let now = self.now();
        let lost = reader.lost.take().is_some_and(|(_, until)| until > now);
        if !self.store.memory().is_reported()
            && (lost || self.store.memory().known.is_missing_any(reader.reading, now))
        {
            self.store.memory().suspect_regression(Some(Regression::Log));
        }
        self.report_regressions();
        let suspicion = self.store.memory().open_suspicion().unwrap_or(suspicion);
        self.raise_bound(reader, now).await?;
        let rule_life = self.lifetimes.grant + self.clock_skew();
        loop {
            let known = &self.store.memory().known;
            let missing = known.take_missing(reader.reading, REPEATS, now, rule_life);
            if missing.is_empty() {
                break;
            }
            for revocation in missing {
                self.repeat(revocation).await?;
            }
            self.read_log(reader).await?;
        }
        self.store.memory().settle(suspicion, self.store.memory().known.forgotten_until(now));
        reader.suspicion = self.store.memory().open_suspicion();
        Ok(())
    }

    async fn repeat(self: &Arc<Self>, revocation: Revocation) -> Result<(), StoreError> {
        let target = revocation.target.clone();
        tracing::warn!(?target, "a revocation that the store lost is repeated");
        let done = Event::Revoked { target };
        self.write(None, |mut write| async move { write.revoke(revocation, &done).await }).await
    }

    /// Raises the newest bound to what this server has seen: a grant must not get an epoch that the
    /// bound of a later revocation does not reach.
    async fn raise_bound(
        self: &Arc<Self>,
        reader: &LogReader,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let seen = self.store.memory().newest();
        if reader.newest_bound >= seen {
            return Ok(());
        }
        let as_time = UnixTime::from_millis(seen.get()).max(now);
        if as_time.since(now) > MAX_AHEAD {
            tracing::error!(?seen, "the newest bound is lost, and far ahead of the clock");
            return Ok(());
        }
        let until = as_time + crate::issuer::maintenance::HEARTBEAT_LIFE + self.clock_skew();
        self.write(None, |write| async move { write.heartbeat(as_time, until).await }).await
    }

    async fn put_keys_right(self: &Arc<Self>) {
        let done = self.write(None, |mut write| async move { write.maintain_keys().await }).await;
        if let Err(error) = done {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the ring of keys cannot be put right yet");
        }
    }

    /// Reports what was noticed.
    pub(crate) fn report_regressions(&self) {
        for noticed in self.store.memory().take_noticed() {
            self.events.record(&Event::StoreRegressed { noticed });
        }
    }
}
