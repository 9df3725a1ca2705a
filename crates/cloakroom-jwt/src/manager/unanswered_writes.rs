//! Writes to the ring whose outcome is not known. A load shows whether they took effect.

use cloakroom_core::keys::KeyRecord;

use crate::manager::error::KeyEvent;

/// A write to the ring.
#[derive(Debug, Clone)]
pub(crate) enum Write {
    Insert(KeyRecord),
    Update { record: KeyRecord, expected: u64 },
    Delete { generation: u64, expected: u64 },
}

/// What the ring shows about a write.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Done,
    /// Another write came first, so this one will never be done.
    Never,
    /// It may still be done.
    NotYet,
}

impl Write {
    /// The generation of the key that is written.
    pub(crate) fn generation(&self) -> u64 {
        match self {
            Self::Insert(record) | Self::Update { record, .. } => record.generation,
            Self::Delete { generation, .. } => *generation,
        }
    }

    fn seen(&self, records: &[KeyRecord]) -> Seen {
        let stored = records.iter().find(|record| record.generation == self.generation());
        match (self, stored) {
            (Self::Insert(own), Some(stored)) if own.kid == stored.kid => Seen::Done,
            (Self::Insert(_), None) => Seen::NotYet,
            (Self::Update { record, .. }, Some(stored)) if is_in(record, stored) => Seen::Done,
            (Self::Delete { .. }, None) => Seen::Done,
            (Self::Update { expected, .. } | Self::Delete { expected, .. }, Some(stored))
                if stored.version == *expected =>
            {
                Seen::NotYet
            }
            _ => Seen::Never,
        }
    }
}

/// Whether a stored record is the one that was written, at most with a later use noted since.
fn is_in(written: &KeyRecord, stored: &KeyRecord) -> bool {
    let mut noted = written.clone();
    if stored.last_used != written.last_used {
        noted.last_used = stored.last_used;
        noted.version = stored.version.max(written.version);
    }
    noted == *stored
}

/// Writes that may have been done, each with the event that reports it.
#[derive(Debug, Default)]
pub(crate) struct Sent(Vec<(Write, KeyEvent)>);

impl Sent {
    /// More than a node sends before it learns the result of one. Only a store that can be read and not
    /// written leads to many.
    const MAX: usize = 64;

    pub(crate) fn push(&mut self, write: Write, event: KeyEvent) {
        if self.0.len() == Self::MAX {
            self.0.remove(0);
        }
        self.0.push((write, event));
    }

    /// Removes the writes of this generation, after one was done and reported: no earlier one can be done.
    pub(crate) fn forget(&mut self, generation: u64) {
        self.0.retain(|(write, _)| write.generation() != generation);
    }

    /// The events of the writes that these records show to be done. Writes that may still be done stay.
    pub(crate) fn settle(&mut self, records: &[KeyRecord]) -> Vec<KeyEvent> {
        let mut done = Vec::new();
        self.0.retain(|(write, event)| match write.seen(records) {
            Seen::Done => {
                done.push(event.clone());
                false
            }
            Seen::Never => false,
            Seen::NotYet => true,
        });
        done
    }
}
