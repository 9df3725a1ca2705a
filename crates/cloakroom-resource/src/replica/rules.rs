//! What is revoked, as far as it is known here: a data structure without clock, lock or I/O.

use std::collections::{BTreeSet, HashSet};

use cloakroom_core::{ClientId, Epoch, LogEntry, LogEvent, UnixTime};
use hashbrown::HashMap;

use super::facts::Facts;
use super::names::{Name, NameRef};

/// What the rules of a replica say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// No rule denies it.
    Clear,
    /// A rule denies it.
    Denied,
    /// The replica cannot tell: the token lacks what rules go by, or its client revoked more than
    /// is remembered one by one. Staleness does not count; introspection does.
    Unknown,
}

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rules about single tokens and grants of one client.
    pub(crate) per_client: usize,
    /// Rules of all kinds.
    pub(crate) total: usize,
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Rules {
    limits: Limits,
    held: HashMap<Name, Held>,
    /// When each of them ends.
    ends: BTreeSet<(UnixTime, Name)>,
    /// The rules about single tokens and grants, where their client is known.
    singles: HashMap<ClientId, HashSet<Name>>,
    /// Rules that the mark of their client has made needless, and that are still to be dropped.
    debris: Vec<(ClientId, Name)>,
    /// Whether a rule had to be left out.
    overflowed: bool,
}

/// A rule. Of a subject, a client or a pair, the newest epoch that it denies; all others deny
/// whatever they name.
#[derive(Debug)]
struct Held {
    bound: Option<Epoch>,
    until: UnixTime,
    /// Whose, if it is about a single token or grant.
    client: Option<ClientId>,
}

impl Rules {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            held: HashMap::new(),
            ends: BTreeSet::new(),
            singles: HashMap::new(),
            debris: Vec::new(),
            overflowed: false,
        }
    }

    /// What the rules say of a token. Denial comes first: what is missing from the facts of a token
    /// cannot make up for it.
    pub(crate) fn verdict(&self, facts: &Facts) -> Verdict {
        let Facts { grant, subject, client, jti, kid, .. } = facts;
        let singles = [
            grant.as_ref().map(NameRef::Grant),
            facts.handle_hash.as_ref().map(|hash| NameRef::Handle(hash.as_bytes())),
            jti.as_ref().map(NameRef::Jti),
            kid.as_ref().map(NameRef::Key),
        ];
        let pair = subject.as_ref().zip(client.as_ref());
        let bounds = [
            subject.as_ref().map(NameRef::Subject),
            client.as_ref().map(NameRef::Client),
            pair.map(|(subject, client)| NameRef::SubjectAtClient(subject, client)),
        ];
        let epoch = place(facts);
        let denied = singles.into_iter().flatten().any(|name| self.held.contains_key(&name))
            || bounds.into_iter().flatten().any(|name| {
                self.held.get(&name).is_some_and(|rule| rule.bound.is_none_or(|it| epoch <= it))
            });
        if denied {
            return Verdict::Denied;
        }
        match (grant, facts.epoch, client, subject, jti) {
            (Some(_), Some(_), Some(client), Some(_), Some(_))
                if !self.held.contains_key(&NameRef::Crowd(client)) =>
            {
                Verdict::Clear
            }
            _ => Verdict::Unknown,
        }
    }

    /// Takes over what an entry says; whether it says anything that counts here. One that is taken
    /// over again changes nothing.
    pub(crate) fn apply(&mut self, entry: &LogEntry) -> bool {
        let LogEvent::Revoked { target, bound, client } = &entry.event else { return false };
        let bound = bound.filter(|_| target.has_bound());
        let (name, second) = Name::of(target);
        for name in [Some(name), second].into_iter().flatten() {
            let client = client.clone().filter(|_| name.is_single());
            self.add(name, Held { bound, until: entry.until, client });
        }
        true
    }

    /// Drops what has ended by `now`, and what a mark has made needless: at most `most` rules.
    /// Whether more is left.
    pub(crate) fn sweep(&mut self, now: UnixTime, most: usize) -> bool {
        for _ in 0..most {
            if let Some((client, name)) = self.debris.pop() {
                self.drop_for(&client, &name);
            } else if let Some((_, name)) = self.ends.first().filter(|(end, _)| *end <= now) {
                let name = name.clone();
                self.remove(&name);
            } else {
                return false;
            }
        }
        true
    }

    /// How many rules are held.
    pub(crate) fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether a rule had to be left out since this was last asked.
    pub(crate) fn take_overflow(&mut self) -> bool {
        std::mem::take(&mut self.overflowed)
    }

    /// Whether there is room enough to read again what was left out.
    pub(crate) fn has_room(&self) -> bool {
        self.held.len() <= self.limits.total / 4 * 3
    }

    fn add(&mut self, name: Name, rule: Held) {
        if self.held.contains_key(&name) {
            return self.merge(name, rule);
        }
        if let Some(client) = &rule.client {
            let mark = Name::Crowd(client.clone());
            if self.held.contains_key(&mark) {
                return self.extend(&mark, rule.until);
            }
        }
        if self.held.len() >= self.limits.total {
            self.overflowed = true;
            return;
        }
        let client = rule.client.clone();
        self.ends.insert((rule.until, name.clone()));
        self.held.insert(name.clone(), rule);
        if let Some(client) = client {
            self.count(&client, name);
        }
    }

    /// A second rule under one name keeps the later bound and the later end.
    fn merge(&mut self, name: Name, rule: Held) {
        self.extend(&name, rule.until);
        let Some(held) = self.held.get_mut(&name) else { return };
        held.bound = held.bound.zip(rule.bound).map(|(one, other)| one.max(other));
        if let (None, Some(client)) = (&held.client, rule.client) {
            held.client = Some(client.clone());
            self.count(&client, name);
        }
    }

    fn extend(&mut self, name: &Name, until: UnixTime) {
        if let Some(held) = self.held.get_mut(name)
            && held.until < until
        {
            self.ends.remove(&(held.until, name.clone()));
            self.ends.insert((until, name.clone()));
            held.until = until;
        }
    }

    /// Puts it down to a client. One that has too many gets a mark instead of them: its tokens are
    /// to be introspected, as long as the last of its rules would have lived.
    fn count(&mut self, client: &ClientId, name: Name) {
        let names = self.singles.entry(client.clone()).or_default();
        names.insert(name);
        if names.len() <= self.limits.per_client {
            return;
        }
        tracing::warn!(%client, "a client revoked so much that its tokens are to be introspected");
        let names = self.singles.remove(client).unwrap_or_default();
        // Each of the rules prolongs it when it is dropped, and all of them are before it can be.
        self.mark(client, UnixTime::default());
        self.debris.extend(names.into_iter().map(|name| (client.clone(), name)));
    }

    /// Marks a client at least until then.
    fn mark(&mut self, client: &ClientId, until: UnixTime) {
        let mark = Name::Crowd(client.clone());
        if self.held.contains_key(&mark) {
            return self.extend(&mark, until);
        }
        self.ends.insert((until, mark.clone()));
        self.held.insert(mark, Held { bound: None, until, client: None });
    }

    /// Drops a rule that the mark of its client stands for.
    fn drop_for(&mut self, client: &ClientId, name: &Name) {
        let Some(rule) = self.held.get(name).filter(|rule| rule.client.as_ref() == Some(client))
        else {
            return;
        };
        // It may have got a later end since the mark was set.
        let until = rule.until;
        self.mark(client, until);
        self.remove(name);
    }

    fn remove(&mut self, name: &Name) {
        let Some(rule) = self.held.remove(name) else { return };
        self.ends.remove(&(rule.until, name.clone()));
        if let Some(client) = rule.client
            && let Some(names) = self.singles.get_mut(&client)
        {
            names.remove(name);
            if names.is_empty() {
                self.singles.remove(&client);
            }
        }
    }
}

/// Where a token stands among the bounds. One of a server without epochs stands where it was
/// issued, to the second below; one that does not say when stands before every bound.
fn place(facts: &Facts) -> Epoch {
    facts
        .epoch
        .or_else(|| facts.issued_at.map(|issued| Epoch::new(issued.as_millis())))
        .unwrap_or_default()
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
