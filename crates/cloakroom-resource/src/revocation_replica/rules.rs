//! The revocations that a replica knows: a data structure without clock, lock or I/O.

use std::collections::BTreeSet;

use cloakroom_core::GrantId;
use cloakroom_core::revocation::{Epoch, LogEntry, LogEvent, Target};
use cloakroom_core::time::UnixTime;

use super::client_rules::ClientRules;
use super::rule_index::{Rule, RuleIndex, RuleSlot};
use super::rule_target::{RuleTarget, RuleTargetRef};
use super::token_facts::TokenFacts;

/// What the rules of a replica say of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RevocationStatus {
    /// No rule denies it.
    NotRevoked,
    /// A rule denies it.
    Revoked,
    /// The replica cannot tell: the token lacks the claims that rules match, or a rule of its grant
    /// or its client was dropped. Only introspection can tell, however fresh the replica is.
    Unknown,
}

const TOO_MUCH: &str = "too many single revocations: all tokens have to be introspected";

/// How many rules are held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Rules about single tokens of one grant: of one login, which anyone may have at a public
    /// client.
    pub(crate) per_grant: usize,
    /// Rules of all kinds. Rules of the client that has the most are dropped first.
    pub(crate) total: usize,
}

/// The rules in force.
///
/// A rule that is dropped leaves a *mark* until its end: while there is a mark, the replica cannot tell
/// that a token is not revoked which the rule may have denied. Those are the tokens of its grant if that
/// has too many rules, else those of its client, else all. The rules that end first are dropped first, so
/// that marks end as early as possible. New revocations are held despite a mark.
#[derive(Debug)]
pub(crate) struct Rules {
    limits: Limits,
    table: RuleIndex,
    /// When each of them ends.
    ends: BTreeSet<(UnixTime, RuleSlot)>,
    of_grants: BTreeSet<(GrantId, UnixTime, RuleSlot)>,
    of_clients: ClientRules,
    /// How many of the rules are marks: as a rule none, and then no lookup has to look for one.
    marks: usize,
    /// Until when all are marked.
    everyone: Option<UnixTime>,
}

impl Rules {
    pub(crate) fn new(limits: Limits) -> Self {
        Self {
            limits,
            table: RuleIndex::default(),
            ends: BTreeSet::new(),
            of_grants: BTreeSet::new(),
            of_clients: ClientRules::default(),
            marks: 0,
            everyone: None,
        }
    }

    /// What the rules say of a token. Denial comes first: what is missing from the facts of a token
    /// cannot make up for it.
    pub(crate) fn revocation_status(&self, facts: &TokenFacts) -> RevocationStatus {
        let TokenFacts { grant, subject, client, jti, kid, .. } = facts;
        let singles = [
            grant.as_ref().map(RuleTargetRef::Grant),
            facts.handle_hash.as_ref().map(|hash| RuleTargetRef::Handle(hash.as_bytes())),
            jti.as_ref().map(RuleTargetRef::Jti),
            kid.as_ref().map(RuleTargetRef::Key),
        ];
        let pair = subject.as_ref().zip(client.as_ref());
        let bounds = [
            subject.as_ref().map(RuleTargetRef::Subject),
            client.as_ref().map(RuleTargetRef::Client),
            pair.map(|(subject, client)| RuleTargetRef::SubjectAtClient(subject, client)),
        ];
        let epoch = epoch(facts);
        let is_held = |name: RuleTargetRef<'_>| self.table.find(&name).is_some();
        let denied = singles.into_iter().flatten().any(is_held)
            || bounds.into_iter().flatten().any(|name| {
                self.table.get(&name).is_some_and(|rule| rule.bound.is_none_or(|it| epoch <= it))
            });
        if denied {
            return RevocationStatus::Revoked;
        }
        match (grant, facts.epoch, client, subject, jti) {
            (Some(grant), Some(_), Some(client), Some(_), Some(_))
                if self.everyone.is_none()
                    && (self.marks == 0
                        || !is_held(RuleTargetRef::ClientOverflow(client))
                            && !is_held(RuleTargetRef::GrantOverflow(grant))) =>
            {
                RevocationStatus::NotRevoked
            }
            _ => RevocationStatus::Unknown,
        }
    }

    /// Takes over what an entry says; whether it says anything that counts here. One that is taken
    /// over again changes nothing.
    pub(crate) fn apply(&mut self, entry: &LogEntry) -> bool {
        let LogEvent::Revoked { target, bound, client, grant } = &entry.event else {
            return false;
        };
        let bound = bound.filter(|_| target.has_bound());
        let (grant, client) = match target {
            Target::Token { grant, .. } => (Some(*grant), client.clone()),
            Target::Jti(_) => (*grant, client.clone()),
            Target::Grant(_) => (None, client.clone()),
            // A client cannot make up as many of these as it likes.
            _ => (None, None),
        };
        let (name, second) = RuleTarget::of(target);
        for name in [Some(name), second].into_iter().flatten() {
            self.add(Rule { name, bound, until: entry.until, grant, client: client.clone() });
        }
        if let Some(grant) = grant {
            self.make_room_in(grant);
        }
        self.make_room();
        true
    }

    /// Drops what has ended by `now`, at most `most` rules. Whether more is left.
    pub(crate) fn sweep(&mut self, now: UnixTime, most: usize) -> bool {
        self.everyone = self.everyone.filter(|end| *end > now);
        for _ in 0..most {
            let Some((_, place)) = self.ends.first().filter(|(end, _)| *end <= now) else {
                return false;
            };
            self.remove(*place);
        }
        true
    }

    /// How many rules are held.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    fn add(&mut self, mut rule: Rule) {
        let held = self.table.find(&rule.name.borrowed());
        if let Some(mut held) = held.and_then(|place| self.remove(place)) {
            held.merge(rule);
            rule = held;
        }
        rule.client = rule.client.map(|client| self.of_clients.shared(client));
        let (until, grant, client) = (rule.until, rule.grant, rule.client.clone());
        self.marks += usize::from(rule.name.is_mark());
        let place = self.table.insert(rule);
        self.ends.insert((until, place));
        if let Some(grant) = grant {
            self.of_grants.insert((grant, until, place));
        }
        if let Some(client) = client {
            self.of_clients.insert(&client, until, place);
        }
    }

    fn remove(&mut self, place: RuleSlot) -> Option<Rule> {
        let rule = self.table.remove(place)?;
        self.marks -= usize::from(rule.name.is_mark());
        self.ends.remove(&(rule.until, place));
        if let Some(grant) = rule.grant {
            self.of_grants.remove(&(grant, rule.until, place));
        }
        if let Some(client) = &rule.client {
            self.of_clients.remove(client, rule.until, place);
        }
        Some(rule)
    }

    /// Holds a grant to its bound. Its mark counts for its client, like any other rule.
    fn make_room_in(&mut self, grant: GrantId) {
        let all = (grant, UnixTime::default(), 0)..=(grant, UnixTime::MAX, RuleSlot::MAX);
        let excess =
            self.of_grants.range(all.clone()).count().saturating_sub(self.limits.per_grant);
        for _ in 0..excess {
            let Some((.., place)) = self.of_grants.range(all.clone()).next() else { return };
            self.give_way(*place, RuleTarget::GrantOverflow(grant));
        }
    }

    /// Keeps the total within its bound. Rules of the client that has the most are dropped, so that a
    /// client cannot push out the rules of others. Rules without a client stay as long as any client has
    /// several.
    fn make_room(&mut self) {
        while self.table.len() > self.limits.total {
            if let Some((client, place)) = self.of_clients.longest() {
                self.give_way(place, RuleTarget::ClientOverflow(client));
            } else if let Some(rule) = self.first_to_end().and_then(|place| self.remove(place)) {
                if self.everyone.is_none() {
                    tracing::error!(
                        "{TOO_MUCH}: there are more revocations than this replica may hold"
                    );
                }
                self.everyone = self.everyone.max(Some(rule.until));
            } else {
                return;
            }
        }
    }

    /// The rule that ends first, except rules for keys, which are few: with a stolen key one can make a
    /// token that looks younger than any mark.
    fn first_to_end(&self) -> Option<RuleSlot> {
        let is_key =
            |place| self.table.at(place).is_some_and(|it| matches!(it.name, RuleTarget::Key(_)));
        self.ends.iter().map(|(_, place)| *place).find(|place| !is_key(*place))
    }

    /// Drops a rule, and lets a mark stand for it until its end.
    fn give_way(&mut self, place: RuleSlot, mark: RuleTarget) {
        let Some(rule) = self.remove(place) else { return };
        if self.table.find(&mark.borrowed()).is_none() {
            match &mark {
                RuleTarget::GrantOverflow(grant) => tracing::warn!(?grant, "{TOO_MUCH}"),
                RuleTarget::ClientOverflow(client) => tracing::warn!(%client, "{TOO_MUCH}"),
                _ => {}
            }
        }
        let client = rule.client.filter(|_| matches!(mark, RuleTarget::GrantOverflow(_)));
        self.add(Rule { name: mark, bound: None, until: rule.until, grant: None, client });
    }
}

/// Where a token stands among the bounds. One of a server without epochs stands where it was
/// issued, to the second below; one that does not say when stands before every bound.
fn epoch(facts: &TokenFacts) -> Epoch {
    facts
        .epoch
        .or_else(|| facts.issued_at.map(|issued| Epoch::new(issued.as_millis())))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
