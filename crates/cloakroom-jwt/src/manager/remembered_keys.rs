//! What one node remembers of every key that it has seen, whatever the store says later.
//!
//! A store can go back in time, when a copy is restored or a failover loses writes. A key that was
//! compromised or had ended in between would then sign again. So every loaded ring is compared with what
//! this node knows. What the store has lost is corrected in the ring, and written back.

use std::collections::HashMap;

use cloakroom_core::Kid;
use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::{KeyPolicy, KeyRecord};
use cloakroom_core::time::UnixTime;

/// Every key that this node has seen. There are few, and none is forgotten.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    keys: HashMap<Kid, Seen>,
    /// The highest generation that the ring ever had.
    highest: u64,
}

#[derive(Debug)]
struct Seen {
    /// The newest version of its record.
    version: u64,
    times: KeyTimes,
    compromised_at: Option<UnixTime>,
    /// Whether the store had the mark that it is compromised.
    mark_was_stored: bool,
    /// Whether its record was there when the ring was last loaded.
    is_there: bool,
    /// The version of the older record that was reported.
    reported: Option<u64>,
}

/// A loaded ring after correction.
#[derive(Debug, Default)]
pub(crate) struct Reconciled {
    /// The records, each with the version that the store has.
    pub(crate) records: Vec<KeyRecord>,
    /// The records to write back.
    pub(crate) repairs: Vec<Repair>,
    /// Keys of which the store has lost something.
    pub(crate) regressed: Vec<Kid>,
}

/// A record to write back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Repair {
    pub(crate) generation: u64,
    /// Higher than every version of it that this node has seen.
    pub(crate) version: u64,
}

impl Remembered {
    /// Compares a loaded ring with what is known, and learns from it.
    pub(crate) fn reconcile(
        &mut self,
        mut records: Vec<KeyRecord>,
        now: UnixTime,
        policy: &KeyPolicy,
    ) -> Reconciled {
        let (mut repairs, mut regressed) = (Vec::new(), Vec::new());
        for (kid, seen) in &mut self.keys {
            if seen.is_there && !records.iter().any(|record| record.kid == *kid) {
                seen.is_there = false;
                if !seen.may_be_deleted(now, policy) {
                    regressed.push(kid.clone());
                }
            }
        }
        for record in &mut records {
            let Some(seen) = self.keys.get_mut(&record.kid) else {
                self.keys.insert(record.kid.clone(), Seen::of(record));
                continue;
            };
            let (loaded, is_marked) = (record.version, record.compromised_at.is_some());
            let forgotten = seen.put_right(record, now - policy.clock_skew);
            if forgotten.changed {
                let version = seen.version.max(loaded).saturating_add(1);
                repairs.push(Repair { generation: record.generation, version });
            }
            if forgotten.regressed && seen.reported != Some(loaded) {
                seen.reported = Some(loaded);
                regressed.push(record.kid.clone());
            }
            seen.learn(record);
            // Whatever this node knows, the store has it only if it said so.
            seen.mark_was_stored |= is_marked;
        }
        Reconciled { records, repairs, regressed }
    }

    /// Notes a record that this node wrote.
    pub(crate) fn note(&mut self, record: &KeyRecord) {
        match self.keys.get_mut(&record.kid) {
            Some(seen) => {
                seen.learn(record);
                seen.mark_was_stored |= record.compromised_at.is_some();
            }
            None => {
                self.keys.insert(record.kid.clone(), Seen::of(record));
            }
        }
        self.raise(record.generation);
    }

    /// Notes that a key is compromised, before its record shows it.
    pub(crate) fn compromise(&mut self, kid: &Kid, at: UnixTime) {
        let seen = self.keys.entry(kid.clone()).or_insert_with(|| Seen {
            version: 0,
            times: KeyTimes::published(at),
            compromised_at: None,
            mark_was_stored: false,
            is_there: false,
            reported: None,
        });
        seen.compromised_at = Some(seen.compromised_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// When the key was declared compromised, if it was.
    pub(crate) fn compromised_at(&self, kid: &Kid) -> Option<UnixTime> {
        self.keys.get(kid)?.compromised_at
    }

    /// Notes a generation that is in use.
    pub(crate) fn raise(&mut self, generation: u64) {
        self.highest = self.highest.max(generation);
    }

    /// The highest generation that was ever seen, since a ring that lost records must not use theirs again.
    pub(crate) const fn highest(&self) -> u64 {
        self.highest
    }
}

/// How a loaded record differed from what is known of its key.
struct Forgotten {
    changed: bool,
    regressed: bool,
}

impl Seen {
    fn of(record: &KeyRecord) -> Self {
        Self {
            version: record.version,
            times: record.times.clone(),
            compromised_at: record.compromised_at,
            mark_was_stored: record.compromised_at.is_some(),
            is_there: true,
            reported: None,
        }
    }

    fn learn(&mut self, record: &KeyRecord) {
        self.version = self.version.max(record.version);
        self.times = record.times.clone();
        self.compromised_at = record.compromised_at;
        self.is_there = true;
    }

    /// Adds to the record what it lacks. A key that had ended before `ended_before` stays ended.
    fn put_right(&self, record: &mut KeyRecord, ended_before: UnixTime) -> Forgotten {
        let as_loaded = (record.times.clone(), record.compromised_at);
        // A record that is back after it was gone is as old as the copy that it comes from; it may
        // be one that this node has only heard of.
        let is_older = record.version < self.version || (!self.is_there && self.version > 0);
        if record.version < self.version {
            record.times = self.times.clone();
        } else if let Some(known) = &self.times.signing {
            // The schedule moves the end of a living key, never of one that has ended.
            if known.until <= ended_before {
                let signing = record.times.signing.get_or_insert_with(|| known.clone());
                signing.until = signing.until.min(known.until);
                signing.published_until = signing.published_until.min(known.published_until);
            }
        }
        let revived = record.times != as_loaded.0;
        let unmarked = record.compromised_at.is_none() && self.mark_was_stored;
        if let Some(at) = self.compromised_at {
            record.compromised_at = Some(record.compromised_at.map_or(at, |own| own.min(at)));
        }
        Forgotten {
            changed: revived || as_loaded.1 != record.compromised_at,
            regressed: is_older || revived || unmarked,
        }
    }

    /// Whether nobody needs the record any more, by the clock of the node that is furthest ahead.
    fn may_be_deleted(&self, now: UnixTime, policy: &KeyPolicy) -> bool {
        let end = match (&self.times.signing, self.compromised_at) {
            (Some(signing), _) => signing.published_until,
            (None, Some(at)) => at + policy.retention,
            (None, None) => return false,
        };
        now >= end + policy.jwks_max_age
    }
}

#[cfg(test)]
mod tests;
