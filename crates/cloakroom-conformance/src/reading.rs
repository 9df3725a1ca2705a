//! Reading the log from cursor to cursor.

use cloakroom_core::revocation::{
    Cursor, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Target,
};
use cloakroom_core::store::TokenStore;
use cloakroom_core::time::UnixTime;

use crate::ask::ensure;
use crate::fixtures::{lone, revocation};
use crate::report::Broken;

/// Reads on from a cursor until nothing more is waiting.
pub(crate) async fn read_on(
    store: &dyn TokenStore,
    mut cursor: Cursor,
    limit: u32,
) -> Result<(Vec<LogEntry>, Cursor), Broken> {
    let mut read = Vec::new();
    for _ in 0..10_000 {
        let batch = store.revocations(cursor.clone(), limit).await?;
        let RevocationBatch::Entries { entries, next, more, newest_bound } = batch else {
            return Err(format!("a reader met a gap after {cursor:?}; nothing was trimmed").into());
        };
        covers_its_entries(&entries, newest_bound)?;
        ensure!(
            entries.len() <= limit as usize,
            "a batch of at most {limit} holds {} entries",
            entries.len()
        );
        read.extend(entries);
        cursor = next;
        if !more {
            return Ok((read, cursor));
        }
    }
    Err("the log said \"more\" 10,000 times".into())
}

/// That a batch tells a newest bound that is no older than those of its entries: a reader takes
/// grants for revoked by the one, and believes the log to be known up to the other.
pub(crate) fn covers_its_entries(entries: &[LogEntry], newest: Epoch) -> Result<(), Broken> {
    for entry in entries {
        if let LogEvent::Revoked { bound: Some(bound), .. } = entry.event {
            ensure!(bound <= newest, "a batch tells {newest:?}, and holds an entry of {bound:?}");
        }
    }
    Ok(())
}

/// A reader that goes on from where it was.
#[derive(Default)]
pub(crate) struct Reader {
    cursor: Cursor,
    pub(crate) seen: Vec<LogEntry>,
}

impl Reader {
    /// A reader who has read everything there is, and forgotten it.
    pub(crate) async fn at_the_end(store: &dyn TokenStore) -> Result<Self, Broken> {
        let (_, cursor) = read_on(store, Cursor::start(), 1_000).await?;
        Ok(Self { cursor, seen: Vec::new() })
    }

    pub(crate) async fn read(&mut self, store: &dyn TokenStore, limit: u32) -> Result<(), Broken> {
        let (read, cursor) = read_on(store, self.cursor.clone(), limit).await?;
        self.seen.extend(read);
        self.cursor = cursor;
        Ok(())
    }

    pub(crate) fn has(&self, target: &Target) -> bool {
        self.place(target).is_some()
    }

    pub(crate) fn place(&self, target: &Target) -> Option<usize> {
        self.seen.iter().position(
            |entry| matches!(&entry.event, LogEvent::Revoked { target: own, .. } if own == target),
        )
    }

    pub(crate) fn heartbeat(&self, at: UnixTime) -> Option<usize> {
        self.seen
            .iter()
            .position(|entry| entry.at == at && matches!(entry.event, LogEvent::Heartbeat {}))
    }
}

/// The revocation of a grant that nobody else names.
pub(crate) fn single() -> Result<Revocation, Broken> {
    Ok(revocation(Target::Grant(lone(Epoch::default())?.id)))
}

/// A revocation that has a bound, of a subject that nobody else names.
pub(crate) fn bounded() -> Result<Revocation, Broken> {
    Ok(revocation(Target::Subject(lone(Epoch::default())?.subject)))
}
