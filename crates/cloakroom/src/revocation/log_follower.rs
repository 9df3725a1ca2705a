//! Follows the revocation log, and repairs a store that went back in time.
//!
//! What this server knows to be revoked stays revoked (`remembering_store.rs`), so a regression has
//! no effect on its answers. This module notices and reports it, and writes back to the store what
//! it lost: missing revocations, marks of signing keys, the newest bound. Until that is done the
//! server answers no request about tokens. Several servers may do this at the same time: each reads
//! in the log what the others have written back.

use std::convert::Infallible;
use std::sync::Arc;

use cloakroom_core::revocation::{
    Cursor, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Target,
};
use cloakroom_core::store::StoreError;
use cloakroom_core::time::{ClockReading, UnixTime};

use crate::error::TokenError;
use crate::events::Event;
use crate::issuer::Inner;
use crate::metrics;
use crate::revocation::retention::TargetDetails;
use crate::revocation::store_regression::Regression;

/// The most entries of one read.
const BATCH: u32 = 1_000;

/// How many revocations are repeated before the log is read again, because other servers repeat the
/// same ones.
const REPEATS: usize = 100;

/// How often one call may start over at the beginning of the log.
const MAX_BEGINNINGS: usize = 3;

/// How far the log was read.
#[derive(Debug, Default)]
pub(crate) struct LogReader {
    cursor: Cursor,
    /// The number of this reading. Each reading begins at the start of the log.
    reading: u64,
    /// The suspicion for which this reading was begun.
    suspicion: Option<u64>,
    /// The newest entry that was read, with its end.
    last: Option<(EntryId, UnixTime)>,
    /// The newest entry of the previous reading, until this reading contains it.
    lost: Option<(EntryId, UnixTime)>,
    /// The newest bound in the log.
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
            // No correct clock is further ahead than `latest`.
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
    /// Whether this server may answer for tokens, and issue them. If its store may have gone back
    /// in time and no task repairs it yet, the store is repaired first.
    ///
    /// # Errors
    ///
    /// [`TokenError::Unavailable`] during a repair, or if the newest heartbeat is too old; another
    /// error if the store fails.
    pub(crate) async fn check_store_is_current(self: &Arc<Self>) -> Result<(), TokenError> {
        if self.store.memory().is_in_doubt() {
            self.resolve_doubt().await?;
        }
        self.log_watch.check(&*self.clock)
    }

    /// Repairs the store if it may have gone back in time, unless a task does that already.
    async fn resolve_doubt(self: &Arc<Self>) -> Result<(), TokenError> {
        const REGRESSED: TokenError = TokenError::Unavailable("the store went back in time");
        let memory = self.store.memory();
        if memory.open_suspicion().is_some() {
            let mut reader = self.reader.try_lock().map_err(|_| REGRESSED)?;
            Box::pin(self.catch_up(&mut reader)).await?;
        }
        if memory.may_lack_revocations(self.now()) {
            return Err(REGRESSED);
        }
        Ok(())
    }

    /// Follows the log for ever. Reads it when it grows, and at least once in each heartbeat
    /// interval.
    pub(crate) async fn follow_log(self: &Arc<Self>) -> Infallible {
        let mut changes = self.log_notifier.subscribe();
        loop {
            changes.borrow_and_update();
            let mut reader = self.reader.lock().await;
            if let Err(error) = self.catch_up(&mut reader).await {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, "the revocation log could not be read or repaired");
            }
            drop(reader);
            metrics::log_lag(self.log_watch.age(&*self.clock));
            // Many servers write many heartbeats: do not read for each of them.
            tokio::time::sleep(self.heartbeat / 10).await;
            let _ = tokio::time::timeout(self.heartbeat, changes.changed()).await;
        }
    }

    /// Reads what is new in the log and repairs the store if it lost something, unless another task
    /// does that now.
    pub(crate) async fn read_log_if_idle(self: &Arc<Self>) -> Result<(), StoreError> {
        match self.reader.try_lock() {
            Ok(mut reader) => Box::pin(self.catch_up(&mut reader)).await,
            Err(_) => Ok(()),
        }
    }

    /// Reads what is new in the log, and repairs the store if it lost something.
    async fn catch_up(self: &Arc<Self>, reader: &mut LogReader) -> Result<(), StoreError> {
        let suspicion = self.store.memory().open_suspicion();
        if suspicion.is_some() && reader.suspicion != suspicion {
            reader.begin(suspicion);
        }
        self.read_log(reader).await?;
        // A heartbeat that was written after a revocation was acknowledged, by any clock, follows
        // it in the log.
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
            self.repair_store(reader).await?;
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
        Err(StoreError::unavailable(
            "reading the log",
            "the position in the log was lost repeatedly",
        ))
    }

    /// Reads to the end; `false` if reading must start over.
    async fn read_on(&self, reader: &mut LogReader) -> Result<bool, StoreError> {
        loop {
            let sent = ClockReading::now(&*self.clock);
            let batch = self.store.revocations(reader.cursor.clone(), BATCH).await;
            match &batch {
                Ok(_) => self.log_damage.is_gone(),
                Err(StoreError::Corrupt { .. }) => self.log_damage.is_met(&self.events),
                Err(_) => {}
            }
            match batch? {
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

    /// Stops using keys that another server marked as compromised, before the ring is loaded again.
    fn note_compromised(&self, entries: &[LogEntry]) {
        for entry in entries {
            if let LogEvent::Revoked { target: Target::Key(kid), .. } = &entry.event
                && let Err(error) = self.keys.note_compromised(kid, entry.at)
            {
                tracing::error!(%kid, %error, "a compromised key could not be taken out of use");
            }
        }
    }

    /// Writes to the store what it has lost. The log was read from its start to its end.
    async fn repair_store(self: &Arc<Self>, reader: &mut LogReader) -> Result<(), StoreError> {
        // The ring may raise suspicions of its own, which are settled here as well.
        self.repair_keys().await;
        let Some(suspicion) = self.store.memory().open_suspicion() else { return Ok(()) };
        // An interrupted repair starts over.
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
        loop {
            let known = &self.store.memory().known;
            let missing = known.take_missing(reader.reading, REPEATS, now);
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

    /// Repeats a revocation, which then lasts at least as long as a new one: servers that know
    /// nothing of it may have issued tokens for what it revokes since the store lost it.
    async fn repeat(self: &Arc<Self>, mut revocation: Revocation) -> Result<(), StoreError> {
        let target = revocation.target.clone();
        tracing::warn!(?target, "repeating a revocation that the store lost");
        let new = self.retention().revocation(target, TargetDetails::default(), self.now());
        revocation.until = revocation.until.max(new.until);
        revocation.rule_until = revocation.rule_until.max(new.rule_until);
        self.revoke_and_report(revocation).await
    }

    /// Raises the newest bound to the one that this server has seen. Otherwise a grant could get an
    /// epoch above the bound of a later revocation.
    async fn raise_bound(
        self: &Arc<Self>,
        reader: &LogReader,
        now: UnixTime,
    ) -> Result<(), StoreError> {
        let seen = self.store.memory().newest();
        if reader.newest_bound >= seen {
            return Ok(());
        }
        let until = now + crate::issuer::maintenance::HEARTBEAT_LIFE + self.clock_skew();
        self.write(None, |write| async move { write.raise_bound(seen, until).await }).await
    }

    async fn repair_keys(self: &Arc<Self>) {
        let done = self.write(None, |mut write| async move { write.maintain_keys().await }).await;
        if let Err(error) = done {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, "the signing keys could not be repaired yet");
        }
    }

    /// Reports the regressions that were noticed.
    pub(crate) fn report_regressions(&self) {
        for noticed in self.store.memory().take_noticed() {
            self.events.record(&Event::StoreRegressed { noticed });
        }
    }
}
