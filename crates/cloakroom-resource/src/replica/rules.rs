//! What is revoked, as far as it is known here: a data structure without clock, lock or I/O.

use std::collections::{BTreeSet, HashSet};

use cloakroom_core::{ClientId, Epoch, GrantId, LogEntry, LogEvent, Target, UnixTime};
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
    /// The replica cannot tell: the token lacks what rules go by, or more is revoked of its grant
    /// or its client than is remembered one by one. Staleness does not count; introspection does.
    Unknown,
}

const TOO_MUCH: &str = "so much is revoked one by one that all tokens are to be introspected";

/// How much is remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rules about single tokens and grants of one client.
    pub(crate) per_client: usize,
    /// Rules about single tokens of one grant: of one login, which anyone may have at a public
    /// client.
    pub(crate) per_grant: usize,
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
    /// The rules about single tokens and grants, where their grant or their client is known.
    singles: HashMap<Owner, HashSet<Name>>,
    /// Rules that the mark of an owner has made needless, and that are still to be dropped.
    debris: Vec<(Owner, Name)>,
    /// Whether a rule had to be left out.
    overflowed: bool,
}

/// A rule. Of a subject, a client or a pair, the newest epoch that it denies; all others deny
/// whatever they name.
#[derive(Debug)]
struct Held {
    bound: Option<Epoch>,
    until: UnixTime,
    owners: Owners,
}

/// Whose a rule is, if it is about a single token or grant.
#[derive(Debug, Clone, Default)]
struct Owners {
    grant: Option<GrantId>,
    client: Option<ClientId>,
}

/// Who is told of by one mark instead of many rules.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Owner {
    Grant(GrantId),
    Client(ClientId),
}

impl Owners {
    /// The client last: its mark stands for those of its grants, too.
    fn iter(&self) -> impl DoubleEndedIterator<Item = Owner> + use<> {
        let grant = self.grant.map(Owner::Grant);
        grant.into_iter().chain(self.client.clone().map(Owner::Client))
    }
}

impl Owner {
    fn mark(&self) -> Name {
        match self {
            Self::Grant(grant) => Name::GrantCrowd(*grant),
            Self::Client(client) => Name::Crowd(client.clone()),
        }
    }
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
            (Some(grant), Some(_), Some(client), Some(_), Some(_))
                if !self.held.contains_key(&NameRef::Crowd(client))
                    && !self.held.contains_key(&NameRef::GrantCrowd(grant)) =>
            {
                Verdict::Clear
            }
            _ => Verdict::Unknown,
        }
    }

    /// Takes over what an entry says; whether it says anything that counts here. One that is taken
    /// over again changes nothing.
    pub(crate) fn apply(&mut self, entry: &LogEntry) -> bool {
        let LogEvent::Revoked { target, bound, client, grant } = &entry.event else {
            return false;
        };
        let bound = bound.filter(|_| target.has_bound());
        let (name, second) = Name::of(target);
        let owners = match target {
            Target::Token { grant, .. } => Owners { grant: Some(*grant), client: client.clone() },
            Target::Jti(_) => Owners { grant: *grant, client: client.clone() },
            Target::Grant(_) => Owners { grant: None, client: client.clone() },
            // A client cannot make up as many of these as it likes.
            _ => Owners::default(),
        };
        for name in [Some(name), second].into_iter().flatten() {
            self.add(&name, Held { bound, until: entry.until, owners: owners.clone() });
        }
        true
    }

    /// Drops what has ended by `now`, and what a mark has made needless: at most `most` rules.
    /// Whether more is left.
    pub(crate) fn sweep(&mut self, now: UnixTime, most: usize) -> bool {
        for _ in 0..most {
            if let Some((owner, name)) = self.debris.pop() {
                self.drop_for(&owner, &name);
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

    fn add(&mut self, name: &Name, rule: Held) {
        if self.held.contains_key(name) {
            return self.merge(name, rule);
        }
        if let Some(mark) = self.standing_in(&rule.owners) {
            return self.extend(&mark, rule.until);
        }
        if self.held.len() >= self.limits.total {
            self.overflowed = true;
            return;
        }
        let owners = rule.owners.clone();
        self.insert(name.clone(), rule);
        for owner in owners.iter() {
            self.count(&owner, &owners, name);
        }
    }

    /// A second rule under one name keeps the later bound and the later end.
    fn merge(&mut self, name: &Name, rule: Held) {
        self.extend(name, rule.until);
        let Some(held) = self.held.get_mut(name) else { return };
        held.bound = held.bound.zip(rule.bound).map(|(one, other)| one.max(other));
        let news = Owners {
            grant: rule.owners.grant.filter(|_| held.owners.grant.is_none()),
            client: rule.owners.client.filter(|_| held.owners.client.is_none()),
        };
        held.owners.grant = held.owners.grant.or(news.grant);
        held.owners.client = held.owners.client.take().or(news.client.clone());
        let owners = held.owners.clone();
        for owner in news.iter() {
            self.count(&owner, &owners, name);
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

    /// Puts a rule down to one of its owners. One that has too many gets a mark instead of them: its
    /// tokens are to be introspected, as long as the last of its rules would have lived.
    fn count(&mut self, owner: &Owner, owners: &Owners, name: &Name) {
        let names = self.singles.entry(owner.clone()).or_default();
        names.insert(name.clone());
        let most = match owner {
            Owner::Grant(_) => self.limits.per_grant,
            Owner::Client(_) => self.limits.per_client,
        };
        if names.len() <= most {
            return;
        }
        match owner {
            Owner::Grant(grant) => tracing::warn!(?grant, "{TOO_MUCH}"),
            Owner::Client(client) => tracing::warn!(%client, "{TOO_MUCH}"),
        }
        let names = self.singles.remove(owner).unwrap_or_default();
        // Each of the rules prolongs it when it is dropped, and all of them are before it can be.
        self.mark(owner, owners, UnixTime::default());
        self.debris.extend(names.into_iter().map(|name| (owner.clone(), name)));
    }

    /// Marks an owner at least until then, unless the mark of its client stands for it.
    fn mark(&mut self, owner: &Owner, owners: &Owners, until: UnixTime) {
        let client = owners.client.clone().filter(|_| matches!(owner, Owner::Grant(_)));
        let owners = Owners { grant: None, client };
        if let Some(mark) = self.standing_in(&owners) {
            return self.extend(&mark, until);
        }
        let mark = owner.mark();
        if self.held.contains_key(&mark) {
            return self.extend(&mark, until);
        }
        self.insert(mark.clone(), Held { bound: None, until, owners: owners.clone() });
        for owner in owners.iter() {
            self.count(&owner, &owners, &mark);
        }
    }

    /// The mark that stands for a rule of these owners.
    fn standing_in(&self, owners: &Owners) -> Option<Name> {
        owners.iter().rev().map(|owner| owner.mark()).find(|mark| self.held.contains_key(mark))
    }

    fn insert(&mut self, name: Name, rule: Held) {
        self.ends.insert((rule.until, name.clone()));
        self.held.insert(name, rule);
    }

    /// Drops a rule that the mark of an owner stands for.
    fn drop_for(&mut self, owner: &Owner, name: &Name) {
        let Some(rule) =
            self.held.get(name).filter(|rule| rule.owners.iter().any(|it| it == *owner))
        else {
            return;
        };
        // It may have got a later end since the mark was set.
        let (owners, until) = (rule.owners.clone(), rule.until);
        self.mark(owner, &owners, until);
        self.remove(name);
    }

    fn remove(&mut self, name: &Name) {
        let Some(rule) = self.held.remove(name) else { return };
        self.ends.remove(&(rule.until, name.clone()));
        for owner in rule.owners.iter() {
            if let Some(names) = self.singles.get_mut(&owner) {
                names.remove(name);
                if names.is_empty() {
                    self.singles.remove(&owner);
                }
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
