//! The rules by name.

use std::hash::BuildHasher as _;

use cloakroom_core::revocation::Epoch;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId};
use hashbrown::{DefaultHashBuilder, HashTable};

use super::rule_target::{RuleTarget, RuleTargetRef};

/// A rule. If it names a subject, a client or a pair, it denies all their tokens up to the epoch
/// in `bound`; every other rule denies whatever it names.
#[derive(Debug)]
pub(super) struct Rule {
    pub(super) name: RuleTarget,
    pub(super) bound: Option<Epoch>,
    pub(super) until: UnixTime,
    /// The grant whose token it is about.
    pub(super) grant: Option<GrantId>,
    /// The client that could make up as many of these as it likes.
    pub(super) client: Option<ClientId>,
}

impl Rule {
    /// A second rule of the same name keeps the later bound and the later end.
    pub(super) fn merge(&mut self, other: Self) {
        self.bound = self.bound.zip(other.bound).map(|(one, other)| one.max(other));
        self.until = self.until.max(other.until);
        self.grant = self.grant.or(other.grant);
        self.client = self.client.take().or(other.client);
    }
}

/// Where a rule is in the table, as long as it is held.
pub(super) type RuleSlot = usize;

/// The rules, in one list that others refer to by [`RuleSlot`]: a name is kept once, however many
/// orders the rule is in.
#[derive(Debug, Default)]
pub(super) struct RuleIndex {
    /// Each place, with the whole hash of its name. Most lookups find nothing, and the hash shows that
    /// without a look at any rule.
    places: HashTable<(u64, RuleSlot)>,
    rules: Vec<Option<Rule>>,
    free: Vec<RuleSlot>,
    hasher: DefaultHashBuilder,
}

impl RuleIndex {
    pub(super) fn len(&self) -> usize {
        self.places.len()
    }

    pub(super) fn get(&self, name: &RuleTargetRef<'_>) -> Option<&Rule> {
        self.find(name).and_then(|place| self.at(place))
    }

    #[inline]
    pub(super) fn find(&self, name: &RuleTargetRef<'_>) -> Option<RuleSlot> {
        if self.places.is_empty() {
            return None;
        }
        let hash = self.hasher.hash_one(name);
        let is_it = |&(of, place): &(u64, RuleSlot)| {
            of == hash && self.at(place).is_some_and(|it| it.name.borrowed() == *name)
        };
        self.places.find(hash, is_it).map(|(_, place)| *place)
    }

    pub(super) fn at(&self, place: RuleSlot) -> Option<&Rule> {
        self.rules.get(place)?.as_ref()
    }

    /// Adds a rule. The index must not hold another rule with the same name.
    pub(super) fn insert(&mut self, rule: Rule) -> RuleSlot {
        let hash = self.hasher.hash_one(rule.name.borrowed());
        let place = self.free.pop().unwrap_or(self.rules.len());
        if let Some(slot) = self.rules.get_mut(place) {
            *slot = Some(rule);
        } else {
            if self.rules.len() == self.rules.capacity() {
                // Not twice as much: it is most of what a replica takes.
                self.rules.reserve_exact(self.rules.len() / 4 + 16);
            }
            self.rules.push(Some(rule));
        }
        self.places.insert_unique(hash, (hash, place), |(hash, _)| *hash);
        place
    }

    pub(super) fn remove(&mut self, place: RuleSlot) -> Option<Rule> {
        let rule = self.rules.get_mut(place)?.take()?;
        let hash = self.hasher.hash_one(rule.name.borrowed());
        if let Ok(entry) = self.places.find_entry(hash, |it| it.1 == place) {
            entry.remove();
        }
        self.free.push(place);
        Some(rule)
    }
}

#[cfg(test)]
mod tests;
