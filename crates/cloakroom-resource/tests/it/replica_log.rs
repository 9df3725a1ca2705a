//! What the replica's own tests have in common: a store with a log, and a log that tells what it
//! is asked.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::GrantId;
use cloakroom_core::revocation::Revocation;
use cloakroom_core::store::{RevokeOutcome, StoreError};
use cloakroom_core::time::UnixTime;
use cloakroom_memory::MemoryStore;
use cloakroom_resource::{
    Cursor, LogEntry, LogEvent, RevocationBatch, RevocationLog, RevocationPage, Target, TokenStore,
    UnavailableError, async_trait,
};
use tokio::sync::mpsc;

use crate::support::START;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

pub(crate) fn grant(number: u8) -> Target {
    Target::Grant(GrantId::from_bytes([number; 16]))
}

pub(crate) async fn revoke(store: &MemoryStore, target: Target) {
    let revoked = store.revoke(Revocation::new(target, START, START + HOUR)).await.unwrap();
    assert_eq!(revoked, RevokeOutcome::Done);
}

pub(crate) async fn beat(store: &MemoryStore, at: UnixTime) -> Result<(), StoreError> {
    store.heartbeat(at, at + HOUR).await
}

/// The entries of a page, and where to go on.
pub(crate) fn entries(page: RevocationPage) -> (Vec<LogEntry>, Cursor) {
    match page.batch {
        RevocationBatch::Entries { entries, next, .. } => (entries, next),
        RevocationBatch::Gap => panic!("a gap"),
    }
}

/// What the entries of a page say: targets, and times of heartbeats.
pub(crate) fn said(entries: &[LogEntry]) -> Vec<Result<Target, UnixTime>> {
    let said = entries.iter().map(|entry| match &entry.event {
        LogEvent::Revoked { target, .. } => Ok(target.clone()),
        LogEvent::Heartbeat {} => Err(entry.at),
        other => panic!("{other:?}"),
    });
    said.collect()
}

/// A log that tells of every question: all that was answered before has been taken in.
#[derive(Debug)]
pub(crate) struct Told<L> {
    log: L,
    told: mpsc::UnboundedSender<Cursor>,
}

impl<L> Told<L> {
    pub(crate) fn new(log: L) -> (Self, Questions) {
        let (told, questions) = mpsc::unbounded_channel();
        (Self { log, told }, Questions(questions))
    }
}

#[async_trait]
impl<L: RevocationLog> RevocationLog for Told<L> {
    async fn read(
        &self,
        after: Cursor,
        wait: Duration,
    ) -> Result<RevocationPage, UnavailableError> {
        let _ = self.told.send(after.clone());
        self.log.read(after, wait).await
    }
}

pub(crate) struct Questions(mpsc::UnboundedReceiver<Cursor>);

impl Questions {
    /// Waits until what was answered has made this true.
    pub(crate) async fn until(&mut self, what: &str, is_true: impl Fn() -> bool) {
        let reached = async {
            while !is_true() {
                self.0.recv().await.expect("nobody follows any more");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), reached).await.expect(what);
    }

    pub(crate) async fn next(&mut self) -> Option<Cursor> {
        self.0.recv().await
    }
}

pub(crate) fn store() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::with_clock(crate::support::manual_clock()))
}
