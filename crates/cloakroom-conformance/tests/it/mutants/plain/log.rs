//! The log and the rules of a [`Plain`](super::Plain) store.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::time::Duration;

use cloakroom_core::Random;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, Revocation, RevocationBatch, Rule,
    RuleKey, Rules, Target,
};
use cloakroom_core::time::{Clock, SystemClock, UnixTime};
use tokio::sync::watch;

use super::Manners;
use super::names::filed_key;
use crate::mutants::fault::Fault;

#[derive(Clone)]
pub(crate) struct RevocationLog {
    pub(crate) fault: Option<Fault>,
    pub(crate) manners: Manners,
    /// By position; positions are ten apart.
    pub(crate) log: BTreeMap<u64, LogEntry>,
    pub(crate) newest: u64,
    pub(crate) incarnation: [u8; 16],
    pub(crate) first_bound: Epoch,
    pub(crate) newest_bound: Epoch,
    pub(crate) rules: BTreeMap<RuleKey, Rule>,
    /// Rules as they were before the last on their key.
    pub(crate) first_rules: BTreeMap<RuleKey, Rule>,
    /// The newest bound that a revocation was allotted.
    pub(crate) allotted: Epoch,
    pub(crate) grown: watch::Sender<u64>,
}

impl RevocationLog {
    pub(crate) fn new(fault: Option<Fault>, manners: Manners) -> Self {
        let first_bound = match fault {
            Some(Fault::BoundsBeginAtZero) => Epoch::default(),
            _ => Epoch::new(SystemClock::new().now().as_millis()),
        };
        let incarnation = match fault {
            Some(Fault::IncarnationIsFixed) => [1; 16],
            _ => random(),
        };
        Self {
            fault,
            manners,
            log: BTreeMap::new(),
            newest: 0,
            incarnation,
            first_bound,
            newest_bound: first_bound,
            rules: BTreeMap::new(),
            first_rules: BTreeMap::new(),
            allotted: first_bound,
            grown: watch::Sender::new(0),
        }
    }

    fn has(&self, fault: Fault) -> bool {
        self.fault == Some(fault)
    }

    /// Allots the bound, leaves the rule, appends the entry.
    pub(crate) fn record(&mut self, revocation: &Revocation) -> Option<Epoch> {
        let bound = revocation.target.has_bound().then(|| self.allot(revocation.at));
        self.leave_rule(revocation, bound);
        let position = self.next_position();
        self.write(position, revocation, bound);
        bound
    }

    pub(crate) fn allot(&mut self, at: UnixTime) -> Epoch {
        let newest = self.newest_bound();
        self.newest_bound = match self.fault {
            Some(Fault::BoundsGoBack) => Epoch::new(at.as_millis()),
            Some(Fault::BoundsRepeat) => newest.max(Epoch::new(at.as_millis())),
            _ if self.manners.gaps => Epoch::new(newest.next_bound(at).get() + 1_000),
            _ => newest.next_bound(at),
        };
        self.allotted = self.newest_bound;
        self.newest_bound
    }

    pub(crate) fn allot_this(&mut self, bound: Epoch) {
        self.newest_bound = bound;
    }

    pub(crate) fn newest_bound(&self) -> Epoch {
        if self.has(Fault::BoundsEndWithRules) {
            let bounds = self.rules.values().filter_map(|rule| rule.bound);
            return bounds.max().unwrap_or(self.first_bound);
        }
        self.newest_bound
    }

    /// Raises the newest bound, as a store may at any time.
    pub(crate) fn raise(&mut self) {
        if self.manners.raises {
            self.newest_bound = self.newest_bound.following();
        }
    }

    pub(crate) fn leave_rule(&mut self, revocation: &Revocation, bound: Option<Epoch>) {
        match &revocation.target {
            Target::Jti(_) if self.has(Fault::JtisLeaveNoRule) => return,
            Target::Key(_) if self.has(Fault::KeysLeaveNoRule) => return,
            Target::SubjectAtClient(..) if self.has(Fault::PairsLeaveNoRule) => return,
            _ => {}
        }
        let Some(key) = revocation.target.rule_key() else {
            return;
        };
        let key = filed_key(self.fault, &key);
        let until = match self.fault {
            Some(Fault::RulesEndWithEntries) => revocation.until,
            _ => revocation.rule_until.max(revocation.until),
        };
        let mut rule = Rule { key: key.clone(), bound, until };
        match self.rules.get(&key) {
            Some(_) if self.has(Fault::SecondRuleIsIgnored) => return,
            Some(known) if !self.has(Fault::SecondRuleShortens) => {
                self.first_rules.insert(key.clone(), known.clone());
                rule.merge(known);
                if self.has(Fault::SecondRuleKeepsBound) {
                    rule.bound = known.bound;
                }
            }
            _ => {}
        }
        self.rules.insert(key, rule);
    }

    pub(crate) fn next_position(&mut self) -> u64 {
        self.newest += 10;
        self.newest
    }

    /// The identifier of the newest entry.
    pub(crate) fn newest_entry(&self) -> EntryId {
        let newest = self.log.last_key_value();
        newest.map_or(EntryId::from_bytes([0; 16]), |(_, entry)| entry.id)
    }

    pub(crate) fn peek_position(&self) -> u64 {
        self.newest + 10
    }

    pub(crate) fn write(&mut self, position: u64, revocation: &Revocation, bound: Option<Epoch>) {
        let target = match &revocation.target {
            Target::SubjectAtClient(subject, _) if self.has(Fault::PairsAreLoggedAsSubjects) => {
                Target::Subject(subject.clone())
            }
            target => target.clone(),
        };
        let event = LogEvent::Revoked {
            target,
            bound: bound.filter(|_| !self.has(Fault::BoundsAreNotLogged)),
            client: revocation.client.clone().filter(|_| !self.has(Fault::ClientsAreNotLogged)),
            grant: revocation.grant.filter(|_| !self.has(Fault::ClientsAreNotLogged)),
        };
        let wakes = !(bound.is_some() && self.has(Fault::SubjectsDoNotWake));
        let until = match self.fault {
            Some(Fault::EntriesLoseTheirEnd) => revocation.at + Duration::from_secs(3_600),
            Some(Fault::EntriesEndWithRules) => revocation.rule_until,
            _ => revocation.until,
        };
        self.append(position, event, revocation.at, until, wakes);
    }

    pub(crate) fn heartbeat(&mut self, at: UnixTime, until: UnixTime) {
        if self.has(Fault::HeartbeatIsLost) {
            return;
        }
        let raised = Epoch::new(at.as_millis());
        self.newest_bound = match self.fault {
            Some(Fault::HeartbeatKeepsTheBound) => self.newest_bound,
            Some(Fault::HeartbeatSetsTheBound) => raised,
            _ => self.newest_bound.max(raised),
        };
        let before = (self.newest.saturating_sub(9)..self.newest)
            .rev()
            .find(|position| *position > 0 && !self.log.contains_key(position));
        let position = match before {
            Some(position) if self.has(Fault::HeartbeatOvertakes) => position,
            _ => self.next_position(),
        };
        let wakes = !self.has(Fault::HeartbeatsDoNotWake);
        self.append(position, LogEvent::Heartbeat {}, at, until, wakes);
    }

    fn append(&mut self, at: u64, event: LogEvent, when: UnixTime, until: UnixTime, wakes: bool) {
        self.newest = self.newest.max(at);
        let id = match self.fault {
            Some(Fault::IncarnationIsFixed) => u128::from(at).to_be_bytes(),
            _ => random(),
        };
        let entry = LogEntry { id: EntryId::from_bytes(id), event, at: when, until };
        self.log.insert(at, entry);
        if wakes {
            self.grown.send_modify(|count| *count += 1);
        }
    }

    pub(crate) fn rules(&mut self, keys: &[RuleKey], seen: UnixTime) -> Rules {
        self.raise();
        let mut rules: Vec<Rule> = Vec::new();
        for key in keys {
            if rules.iter().any(|rule| rule.key == *key) && !self.has(Fault::RulesRepeat) {
                continue;
            }
            if let Some(rule) = self.rules.get(&filed_key(self.fault, key)) {
                rules.push(Rule { key: key.clone(), ..rule.clone() });
            }
        }
        if self.has(Fault::RulesHideEnded) {
            rules.retain(|rule| seen < rule.until);
        }
        match self.fault {
            Some(Fault::RulesAnswerOneKey) => rules.truncate(1),
            Some(Fault::RulesAreCapped) => rules.truncate(1_000),
            _ => {}
        }
        let newest_bound = if keys.is_empty() && self.has(Fault::RulesForgetTheBound) {
            Epoch::default()
        } else {
            self.newest_bound()
        };
        Rules { rules, newest_bound }
    }

    /// Whether a rule of its subject, its client or the pair denies the grant.
    pub(crate) fn denies(&self, grant: &GrantRecord) -> bool {
        let (subject, client) = (&grant.subject, &grant.client);
        [
            RuleKey::Subject(subject.clone()),
            RuleKey::Client(client.clone()),
            RuleKey::SubjectAtClient(subject.clone(), client.clone()),
        ]
        .iter()
        .any(|key| self.denies_by(key, grant.epoch))
    }

    /// As `create` asks: with what it may do wrong.
    pub(crate) fn bars(&self, grant: &GrantRecord) -> bool {
        let subject = RuleKey::Subject(grant.subject.clone());
        let client = RuleKey::Client(grant.client.clone());
        let pair = RuleKey::SubjectAtClient(grant.subject.clone(), grant.client.clone());
        let keys = match self.fault {
            Some(Fault::CreateIgnoresRules) => vec![],
            Some(Fault::CreateIgnoresClientRules) => vec![subject],
            Some(Fault::CreateIgnoresPairRules) => vec![subject, client],
            _ => vec![subject, client, pair],
        };
        keys.iter().any(|key| self.denies_by(key, grant.epoch))
    }

    fn denies_by(&self, key: &RuleKey, epoch: Epoch) -> bool {
        let Some(rule) = self.rules.get(&filed_key(self.fault, key)) else {
            return false;
        };
        match self.fault {
            Some(Fault::RulesSpareTheirBound) => rule.bound.is_none_or(|bound| epoch < bound),
            Some(Fault::RulesDenyEveryEpoch) => true,
            _ => rule.denies(epoch),
        }
    }

    pub(crate) fn read(&self, after: &Cursor, limit: u32) -> RevocationBatch {
        let Some(mut place) = self.locate(after) else {
            return RevocationBatch::Gap;
        };
        let most = if self.has(Fault::BatchesAreCapped) { 1_024 } else { usize::MAX };
        let mut rest = self.log.range((Bound::Excluded(place.position), Bound::Unbounded));
        let entries: Vec<LogEntry> = rest
            .by_ref()
            .take((limit.max(1) as usize).min(most))
            .map(|(position, entry)| {
                place = place.advanced(*position, entry);
                entry.clone()
            })
            .collect();
        let mut next = if entries.is_empty() { after.clone() } else { self.cursor(&place) };
        if let Some((position, entry)) = self.log.last_key_value()
            && self.has(Fault::BatchPointsToTheEnd)
        {
            next = self.cursor(&place.advanced(*position, entry));
        }
        let newest_bound = match self.fault {
            Some(Fault::BatchForgetsTheBound) => Epoch::default(),
            _ => self.newest_bound(),
        };
        RevocationBatch::Entries {
            entries,
            next,
            more: rest.next().is_some()
                && !self.has(Fault::BatchHidesMore)
                && !self.has(Fault::BatchesAreCapped),
            newest_bound,
        }
    }

    /// The place that the cursor names, if its entry is still there.
    fn locate(&self, cursor: &Cursor) -> Option<CursorPlace> {
        if cursor.is_start() {
            return Some(CursorPlace {
                incarnation: self.incarnation,
                position: 0,
                entry: EntryId::from_bytes([0; 16]),
                revocation: None,
            });
        }
        let place = match self.place(cursor) {
            None if self.has(Fault::ForeignCursorIsTheStart) => {
                return self.locate(&Cursor::start());
            }
            place => place?,
        };
        let known = self.log.get(&place.position);
        let ours = match self.fault {
            Some(Fault::NoGaps) => true,
            Some(Fault::OtherIncarnationIsNoGap) => {
                known.is_some_and(|entry| entry.id == place.entry)
            }
            Some(Fault::OtherEntryIsNoGap) => {
                place.incarnation == self.incarnation && known.is_some()
            }
            Some(Fault::TrimmedIsNoGap) => {
                place.incarnation == self.incarnation
                    && known.is_none_or(|entry| entry.id == place.entry)
            }
            _ => {
                place.incarnation == self.incarnation
                    && known.is_some_and(|entry| entry.id == place.entry)
            }
        };
        ours.then_some(place)
    }

    fn cursor(&self, place: &CursorPlace) -> Cursor {
        if !self.manners.own_cursors {
            return Cursor::after(place);
        }
        let CursorPlace { incarnation, position, entry, .. } = place;
        let [incarnation, entry] =
            [incarnation, entry.as_bytes()].map(|bytes| u128::from_be_bytes(*bytes));
        let text = format!("a place of its own: {position} {incarnation} {entry}");
        Cursor::from_bytes(text.as_bytes()).expect("it is short")
    }

    fn place(&self, cursor: &Cursor) -> Option<CursorPlace> {
        if !self.manners.own_cursors {
            return CursorPlace::of(cursor);
        }
        let text = std::str::from_utf8(cursor.as_bytes()).ok()?;
        let mut numbers = text.strip_prefix("a place of its own: ")?.split(' ');
        let position = numbers.next()?.parse().ok()?;
        let mut bytes = || numbers.next()?.parse().map(u128::to_be_bytes).ok();
        let (incarnation, entry) = (bytes()?, EntryId::from_bytes(bytes()?));
        Some(CursorPlace { incarnation, position, entry, revocation: None })
    }

    /// Removes at most `limit` entries and rules that ended before `before`.
    /// When entries and rules end; the newest entry stays, and does not count.
    pub(crate) fn ends(&self, with_newest: bool) -> impl Iterator<Item = UnixTime> {
        let newest = self.log.keys().next_back().copied();
        let entries =
            self.log.iter().filter(move |(position, _)| with_newest || Some(**position) != newest);
        entries.map(|(_, entry)| entry.until).chain(self.rules.values().map(|rule| rule.until))
    }

    /// How many entries have a bound.
    pub(crate) fn bounds(&self) -> u64 {
        let has_bound =
            |entry: &&LogEntry| matches!(entry.event, LogEvent::Revoked { bound: Some(_), .. });
        self.log.values().filter(has_bound).count() as u64
    }

    pub(crate) fn trim(&mut self, before: UnixTime, now: UnixTime, limit: usize) -> usize {
        let (entries_before, before) = match self.fault {
            Some(Fault::TrimWithoutMargin) => (now, before),
            Some(Fault::PurgeRulesWithoutMargin) => (before, now),
            _ => (before, before),
        };
        let entries: Vec<u64> = self.ended_entries(entries_before).take(limit).collect();
        for position in &entries {
            self.log.remove(position);
        }
        if self.has(Fault::TrimmingLowersTheBound) {
            self.newest_bound = self.first_bound;
        }
        let left = limit - entries.len();
        let rules: Vec<RuleKey> = self.ended_rules(before).take(left).cloned().collect();
        for key in &rules {
            self.rules.remove(key);
        }
        entries.len() + rules.len()
    }

    pub(crate) fn is_due(&self, before: UnixTime) -> bool {
        self.ended_entries(before).next().is_some() || self.ended_rules(before).next().is_some()
    }

    fn ended_entries(&self, before: UnixTime) -> impl Iterator<Item = u64> {
        let last_ended = self.log.iter().rev().find(|(_, entry)| entry.until < before);
        let prefix = last_ended.map_or(0, |(position, _)| *position);
        self.log
            .iter()
            .filter(move |(position, entry)| match self.fault {
                Some(Fault::TrimByAge) => entry.at < before,
                Some(Fault::TrimByPrefix) => **position <= prefix,
                Some(Fault::EntriesStayWithTheirRules) => {
                    entry.until < before && self.rule_of(entry).is_none()
                }
                _ => entry.until < before,
            })
            .map(|(position, _)| *position)
            .filter(|position| *position != self.newest || self.has(Fault::TrimTakesTheNewest))
    }

    fn rule_of(&self, entry: &LogEntry) -> Option<&Rule> {
        let LogEvent::Revoked { target, .. } = &entry.event else { return None };
        self.rules.get(&target.rule_key()?)
    }

    fn ended_rules(&self, before: UnixTime) -> impl Iterator<Item = &RuleKey> {
        let ends_by = match self.fault {
            Some(Fault::PurgeRulesEarly) => before + Duration::from_secs(86_400),
            _ => before,
        };
        let swept = |rule: &Rule| rule.bound.is_some() && self.has(Fault::PurgeSweptRules);
        self.rules
            .values()
            .filter(move |rule| rule.until < ends_by || swept(rule))
            .map(|rule| &rule.key)
    }
}

pub(crate) fn random() -> [u8; 16] {
    Random::system().array().expect("the system has random bytes")
}
