//! The revocation log and its rules.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound;
use std::sync::{Arc, RwLock};

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Rule,
    RuleKey, Rules,
};
use cloakroom_core::time::UnixTime;
use event_listener::{Event, EventListener};

use crate::locks::{read, write};

/// The most entries and rules that are removed before readers get their turn.
const TRIM_BATCH: u64 = 64;

/// The revocation log and the rules. They have one lock, so that an entry, its bound and its rule are written
/// in one step.
pub(crate) struct RevocationLog {
    state: RwLock<State>,
    grown: Event,
}

struct State {
    log: BTreeMap<u64, LogEntry>,
    /// The index of the log on expiry, since entries do not end in the order in which they are written.
    log_ends: BTreeSet<(UnixTime, u64)>,
    /// The position of the newest entry. The first has position 1.
    newest: u64,
    /// The id of the first entry, which is random. No incarnation is needed before there is an entry.
    incarnation: Option<EntryId>,
    newest_bound: Epoch,
    rules: HashMap<RuleKey, Rule>,
    rule_ends: BTreeSet<(UnixTime, RuleKey)>,
}

impl RevocationLog {
    pub(crate) fn new(now: UnixTime) -> Self {
        Self {
            state: RwLock::new(State {
                log: BTreeMap::new(),
                log_ends: BTreeSet::new(),
                newest: 0,
                incarnation: None,
                // No grant of an earlier store can be newer than the bounds of this one.
                newest_bound: Epoch::new(now.as_millis()),
                rules: HashMap::new(),
                rule_ends: BTreeSet::new(),
            }),
            grown: Event::new(),
        }
    }

    /// Appends the entry of a revocation and writes its rule. Returns its bound, if the target has one.
    pub(crate) fn record(&self, id: EntryId, revocation: &Revocation) -> Option<Epoch> {
        let Revocation { target, at, until, .. } = revocation;
        let mut state = write(&self.state);
        let bound = target.has_bound().then(|| state.newest_bound.next_bound(*at));
        if let Some(bound) = bound {
            state.newest_bound = bound;
        }
        if let Some(rule) = revocation.rule(bound) {
            state.rule(rule);
        }
        state.append(LogEntry { id, event: revocation.event(bound), at: *at, until: *until });
        bound
    }

    pub(crate) fn heartbeat(&self, id: EntryId, at: UnixTime, until: UnixTime) {
        let mut state = write(&self.state);
        state.newest_bound = state.newest_bound.max(Epoch::new(at.as_millis()));
        state.append(LogEntry { id, event: LogEvent::Heartbeat {}, at, until });
    }

    pub(crate) fn read(&self, after: &Cursor, limit: u32) -> RevocationBatch {
        let state = read(&self.state);
        let Some(mut place) = state.locate(after) else {
            return RevocationBatch::Gap;
        };
        let mut rest = state.log.range((Bound::Excluded(place.position), Bound::Unbounded));
        let entries: Vec<_> = rest
            .by_ref()
            .take(limit.max(1) as usize)
            .map(|(position, entry)| {
                place = place.advanced(*position, entry);
                entry.clone()
            })
            .collect();
        RevocationBatch::Entries {
            next: if entries.is_empty() { after.clone() } else { Cursor::after(&place) },
            entries,
            more: rest.next().is_some(),
            newest_bound: state.newest_bound,
        }
    }

    pub(crate) fn rules(&self, mut keys: Vec<RuleKey>) -> Rules {
        keys.sort_unstable();
        keys.dedup();
        let state = read(&self.state);
        Rules {
            rules: keys.iter().filter_map(|key| state.rules.get(key).cloned()).collect(),
            newest_bound: state.newest_bound,
        }
    }

    /// Whether a rule of its subject, its client or the pair denies the grant.
    pub(crate) fn denies(&self, grant: &GrantRecord) -> bool {
        read(&self.state).denies(grant)
    }

    /// Removes the grants that a rule denies.
    pub(crate) fn retain_allowed(&self, grants: &mut Vec<Arc<GrantRecord>>) {
        let state = read(&self.state);
        grants.retain(|grant| !state.denies(grant));
    }

    /// Removes at most `limit` entries and rules that ended before `before`, and returns their number.
    pub(crate) fn trim(&self, before: UnixTime, limit: u64) -> u64 {
        let mut trimmed = 0;
        while trimmed < limit && self.is_due(before) {
            let batch = limit.min(trimmed + TRIM_BATCH);
            let mut state = write(&self.state);
            while trimmed < batch && state.trim_one(before) {
                trimmed += 1;
            }
        }
        trimmed
    }

    /// Whether [`RevocationLog::trim`] would remove something.
    pub(crate) fn is_due(&self, before: UnixTime) -> bool {
        let state = read(&self.state);
        state.ended_entry(before).is_some() || state.ended_rule(before).is_some()
    }

    /// The position of the newest entry; 0 if there was none yet.
    pub(crate) fn newest(&self) -> u64 {
        read(&self.state).newest
    }

    /// Is notified by the next [`RevocationLog::wake_readers`], or when the log is dropped.
    pub(crate) fn listen(&self) -> EventListener {
        self.grown.listen()
    }

    /// Notifies all listeners that the log grew. Call it without holding a lock, since it runs wakers of the
    /// executor.
    pub(crate) fn wake_readers(&self) {
        self.grown.notify(usize::MAX);
    }
}

impl Drop for RevocationLog {
    fn drop(&mut self) {
        self.wake_readers();
    }
}

impl State {
    fn append(&mut self, entry: LogEntry) {
        self.newest += 1;
        self.incarnation.get_or_insert(entry.id);
        self.log_ends.insert((entry.until, self.newest));
        self.log.insert(self.newest, entry);
    }

    fn rule(&mut self, mut rule: Rule) {
        if let Some(known) = self.rules.get(&rule.key) {
            self.rule_ends.remove(&(known.until, known.key.clone()));
            rule.merge(known);
        }
        self.rule_ends.insert((rule.until, rule.key.clone()));
        self.rules.insert(rule.key.clone(), rule);
    }

    fn denies(&self, grant: &GrantRecord) -> bool {
        // The usual case needs no keys.
        if self.rules.is_empty() {
            return false;
        }
        grant
            .rule_keys()
            .iter()
            .filter_map(|key| self.rules.get(key))
            .any(|rule| rule.denies(grant.epoch))
    }

    /// The place after which to read on; `None` is a gap.
    fn locate(&self, cursor: &Cursor) -> Option<CursorPlace> {
        // Only an empty log has no incarnation, and nothing is read from it.
        let entry = self.incarnation.unwrap_or(EntryId::from_bytes([0; 16]));
        let incarnation = *entry.as_bytes();
        let start = CursorPlace { incarnation, position: 0, entry, revocation: None };
        if cursor.is_start() {
            return Some(start);
        }
        let place = CursorPlace::of(cursor)?;
        if place.incarnation != incarnation || place.position > self.newest {
            return None;
        }
        if let Some(entry) = self.log.get(&place.position) {
            return (entry.id == place.entry).then_some(place);
        }
        // It was trimmed. If the newest revocation is still there, only heartbeats were trimmed.
        match place.revocation {
            None => Some(start),
            Some((position, id)) => (self.log.get(&position)?.id == id).then_some(place),
        }
    }

    fn trim_one(&mut self, before: UnixTime) -> bool {
        if let Some(end) = self.ended_entry(before) {
            self.log_ends.remove(&end);
            self.log.remove(&end.1);
            return true;
        }
        if let Some(end) = self.ended_rule(before).cloned() {
            self.rule_ends.remove(&end);
            self.rules.remove(&end.1);
            return true;
        }
        false
    }

    fn ended_entry(&self, before: UnixTime) -> Option<(UnixTime, u64)> {
        // The newest entry stays. Without it, a reader that has seen everything would get a gap.
        self.log_ends.range(..(before, 0)).find(|(_, position)| *position != self.newest).copied()
    }

    fn ended_rule(&self, before: UnixTime) -> Option<&(UnixTime, RuleKey)> {
        self.rule_ends.first().filter(|(until, _)| *until < before)
    }
}
