//! The revocations that this server knows, independent of what its store says later.
//!
//! A store can go back in time, through a restored backup or a failover that loses writes. Revoked
//! tokens would then be active again until somebody notices. So each server keeps the revocations
//! that it made itself and those that it read from the log, exactly, until they end.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Epoch, LogEntry, LogEvent, Revocation, Rule, RuleKey, Target};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, TokenDigest};

/// The most revocations that are remembered. Beyond that, those that end first are forgotten.
const MAX: usize = 1_000_000;

/// The known revocations, shared by all requests.
#[derive(Debug)]
pub(crate) struct KnownRevocations {
    /// How many there are. While it is zero, a request takes no lock.
    count: AtomicUsize,
    state: RwLock<State>,
    max: usize,
}

#[derive(Debug, Default)]
struct State {
    revocations: HashMap<Target, KnownRevocation>,
    /// Their targets by their end. The number tells apart those that end together.
    ends: BTreeMap<(UnixTime, u64), Target>,
    numbers: u64,
    /// How many have a bound. While it is zero, no subject or client is looked up.
    bounded: usize,
    /// The revocations that this server made and has not read in the log yet, oldest first.
    written: VecDeque<(UnixTime, Target)>,
    /// The latest end of the revocations that were forgotten for lack of space.
    forgotten_until: Option<UnixTime>,
}

#[derive(Debug, Clone)]
struct KnownRevocation {
    at: UnixTime,
    until: UnixTime,
    rule_until: Option<UnixTime>,
    bound: Option<Epoch>,
    client: Option<ClientId>,
    grant: Option<GrantId>,
    /// The last reading of the log that contained it, and its bound there.
    logged: Option<(u64, Option<Epoch>)>,
    /// The last reading in which it was repeated.
    repeated: Option<u64>,
    /// Its number in [`State::ends`].
    number: u64,
}

impl KnownRevocation {
    /// Whether this reading of the log contained it so far.
    fn is_logged(&self, reading: u64) -> bool {
        self.logged.is_some_and(|(in_reading, bound)| in_reading == reading && bound >= self.bound)
    }
}

impl KnownRevocations {
    pub(crate) fn new() -> Self {
        Self::with_max(MAX)
    }

    fn with_max(max: usize) -> Self {
        Self { count: AtomicUsize::new(0), state: RwLock::default(), max }
    }

    /// What is known now; `None` if there are no revocations.
    pub(crate) fn read(&self) -> Option<KnownGuard<'_>> {
        // A revocation is counted before it is acknowledged.
        if self.count.load(Ordering::Acquire) == 0 {
            return None;
        }
        Some(KnownGuard(self.state.read().unwrap_or_else(PoisonError::into_inner)))
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a revocation that this server made, before it is acknowledged. `bound` must not be
    /// greater than the exact bound, which the log contains.
    pub(crate) fn remember_own(
        &self,
        revocation: &Revocation,
        bound: Option<Epoch>,
        now: UnixTime,
    ) {
        let mut state = self.write();
        let Revocation { target, at, until, rule_until, client, grant } = revocation;
        let known = KnownRevocation {
            at: *at,
            until: *until,
            rule_until: Some(*rule_until),
            bound: bound.filter(|_| target.has_bound()),
            client: client.clone(),
            grant: *grant,
            logged: None,
            repeated: None,
            number: 0,
        };
        state.remember(target.clone(), known);
        state.written.push_back((now, target.clone()));
        self.bound_size(&mut state, now);
        // Only a server that writes heartbeats asks for these, and so drops what it has read.
        if state.written.len() > 2 * self.max {
            state.drop_repeated();
        }
    }

    /// Remembers the log entries of this reading.
    pub(crate) fn remember_logged(&self, entries: &[LogEntry], reading: u64, now: UnixTime) {
        let mut state = self.write();
        for LogEntry { event, at, until, .. } in entries {
            let LogEvent::Revoked { target, bound, client, grant } = event else { continue };
            if *until <= now {
                continue;
            }
            let known = KnownRevocation {
                at: *at,
                until: *until,
                rule_until: None,
                bound: *bound,
                client: client.clone(),
                grant: *grant,
                logged: Some((reading, *bound)),
                repeated: None,
                number: 0,
            };
            state.remember(target.clone(), known);
        }
        self.bound_size(&mut state, now);
    }

    /// Forgets what has ended, and beyond the maximum what ends first.
    fn bound_size(&self, state: &mut State, now: UnixTime) {
        while let Some(first) = state.ends.first_entry() {
            let until = first.key().0;
            if until > now && state.revocations.len() <= self.max {
                break;
            }
            let target = first.remove();
            state.forget(&target);
            if until > now {
                if state.forgotten_until.is_none_or(|last| last <= now) {
                    tracing::error!(
                        max = self.max,
                        "more revocations are in force than this server can remember: if its store \
                         goes back in time now, it answers no request until they have ended"
                    );
                }
                state.forgotten_until = state.forgotten_until.max(Some(until));
            }
        }
        self.count.store(state.revocations.len(), Ordering::Release);
    }

    /// The latest end of the forgotten revocations; `None` if all of them have ended.
    pub(crate) fn forgotten_until(&self, now: UnixTime) -> Option<UnixTime> {
        self.write().forgotten_until.filter(|until| *until > now)
    }

    /// Whether the log lacks a revocation that this server made before `before`. The log must have
    /// been read up to that time.
    pub(crate) fn lacks_own(&self, reading: u64, before: UnixTime, now: UnixTime) -> bool {
        let mut state = self.write();
        let State { written, revocations, .. } = &mut *state;
        // Drop what is in the log or has ended.
        while let Some((at, target)) = written.front() {
            match revocations
                .get(target)
                .filter(|known| known.until > now && !known.is_logged(reading))
            {
                None => {}
                Some(_) if *at < before => return true,
                Some(_) => return false,
            }
            written.pop_front();
        }
        false
    }

    /// Takes at most `most` revocations that are missing in this reading of the log and were not
    /// repeated in it, and marks them as repeated. The reading must have come to its end. A
    /// repeated revocation of a subject or client gets a new bound, so that it also ends the logins
    /// since the first one.
    pub(crate) fn take_missing(&self, reading: u64, most: usize, now: UnixTime) -> Vec<Revocation> {
        let mut state = self.write();
        let is_missing = |known: &KnownRevocation| {
            known.until > now && !known.is_logged(reading) && known.repeated != Some(reading)
        };
        let missing =
            state.revocations.iter_mut().filter(|(_, known)| is_missing(known)).take(most);
        missing
            .map(|(target, known)| {
                known.repeated = Some(reading);
                Revocation {
                    rule_until: known.rule_until.unwrap_or(known.until),
                    client: known.client.clone(),
                    grant: known.grant,
                    ..Revocation::new(target.clone(), known.at, known.until)
                }
            })
            .collect()
    }

    /// Whether a reading that has come to its end lacks any revocation.
    pub(crate) fn is_missing_any(&self, reading: u64, now: UnixTime) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.revocations.values().any(|known| known.until > now && !known.is_logged(reading))
    }
}

impl State {
    /// Adds to what is known of a target.
    fn remember(&mut self, target: Target, new: KnownRevocation) {
        self.numbers += 1;
        let number = self.numbers;
        let until = match self.revocations.get_mut(&target) {
            Some(known) => {
                self.ends.remove(&(known.until, known.number));
                known.at = known.at.min(new.at);
                known.until = known.until.max(new.until);
                known.rule_until = known.rule_until.max(new.rule_until);
                known.bound = known.bound.max(new.bound);
                known.client = known.client.take().or(new.client);
                known.grant = known.grant.or(new.grant);
                // The later reading; of one reading the greater bound.
                known.logged = known.logged.max(new.logged);
                known.number = number;
                known.until
            }
            None => {
                self.bounded += usize::from(target.has_bound());
                let until = new.until;
                self.revocations.insert(target.clone(), KnownRevocation { number, ..new });
                until
            }
        };
        self.ends.insert((until, number), target);
    }

    /// Keeps the oldest entry of [`State::written`] for each revocation that is still known.
    fn drop_repeated(&mut self) {
        let Self { written, revocations, .. } = self;
        let mut kept = HashSet::new();
        written
            .retain(|(_, target)| revocations.contains_key(target) && kept.insert(target.clone()));
    }

    fn forget(&mut self, target: &Target) {
        if self.revocations.remove(target).is_some() {
            self.bounded -= usize::from(target.has_bound());
        }
    }
}

/// The known revocations, locked while one request reads them.
pub(crate) struct KnownGuard<'a>(RwLockReadGuard<'a, State>);

impl KnownGuard<'_> {
    /// When the grant was revoked, alone or with its subject or client; `None` if that is not
    /// known.
    pub(crate) fn grant(&self, grant: &GrantRecord) -> Option<UnixTime> {
        let state = &*self.0;
        if let Some(known) = state.revocations.get(&Target::Grant(grant.id)) {
            return Some(known.at);
        }
        if state.bounded == 0 {
            return None;
        }
        let (subject, client) = (&grant.subject, &grant.client);
        let targets = [
            Target::Subject(subject.clone()),
            Target::Client(client.clone()),
            Target::SubjectAtClient(subject.clone(), client.clone()),
        ];
        let denies =
            |known: &&KnownRevocation| known.bound.is_none_or(|bound| grant.epoch <= bound);
        let denying =
            targets.iter().filter_map(|target| state.revocations.get(target)).find(denies);
        denying.map(|known| known.at)
    }

    /// Whether the grant with this identifier is known to be revoked alone.
    pub(crate) fn is_grant_revoked(&self, id: GrantId) -> bool {
        self.0.revocations.contains_key(&Target::Grant(id))
    }

    /// When the token was revoked alone; `None` if that is not known.
    pub(crate) fn token(&self, grant: GrantId, digest: TokenDigest) -> Option<UnixTime> {
        self.0.revocations.get(&Target::Token { grant, digest }).map(|known| known.at)
    }

    /// The known rule of this key.
    pub(crate) fn rule(&self, key: &RuleKey) -> Option<Rule> {
        let target = match key {
            RuleKey::Jti(jti) => Target::Jti(jti.clone()),
            RuleKey::Subject(subject) => Target::Subject(subject.clone()),
            RuleKey::Client(client) => Target::Client(client.clone()),
            RuleKey::SubjectAtClient(subject, client) => {
                Target::SubjectAtClient(subject.clone(), client.clone())
            }
            RuleKey::Key(kid) => Target::Key(kid.clone()),
        };
        let known = self.0.revocations.get(&target)?;
        let until = known.rule_until.unwrap_or(known.until).max(known.until);
        Some(Rule { key: key.clone(), bound: known.bound, until })
    }
}

#[cfg(test)]
mod tests;
