//! The contract as a small machine: one thread, no races, no crashes.

use std::collections::BTreeMap;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    EntryId, Epoch, LogEntry, LogEvent, Revocation, Rule, RuleKey, Target,
};
use cloakroom_core::store::{Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Selector};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, TokenDigest};

/// What a store should hold.
#[derive(Debug, Default)]
pub(crate) struct Reference {
    pub(crate) slots: BTreeMap<GrantId, Slot>,
    pub(crate) rules: BTreeMap<RuleKey, Rule>,
    pub(crate) newest_bound: Epoch,
    /// Entries have no id until they are read.
    pub(crate) log: Vec<LogEntry>,
}

/// What stands under one id.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Slot {
    Grant { record: Box<GrantRecord>, tokens: Vec<TokenRecord> },
    Tombstone { until: UnixTime },
}

impl Reference {
    /// What `create` should answer. A barred grant of which nothing was there is not taken up: what
    /// the store keeps of it is its own affair.
    pub(crate) fn create(&mut self, grant: &GrantRecord, tokens: &[TokenRecord]) -> CreateOutcome {
        let is_denied = self.denies(grant);
        match self.slots.get_mut(&grant.id) {
            Some(Slot::Tombstone { .. }) => CreateOutcome::Barred,
            Some(Slot::Grant { record, tokens: held }) => {
                let mut written = (**record).clone();
                written.revoked_at = None;
                let holds = |token: &TokenRecord| held.iter().any(|own| own.digest == token.digest);
                if written != *grant || !tokens.iter().all(holds) {
                    CreateOutcome::Exists
                } else if record.revoked_at.is_some() {
                    CreateOutcome::Barred
                } else if is_denied {
                    record.revoked_at = Some(record.created_at);
                    CreateOutcome::Barred
                } else {
                    CreateOutcome::Inserted
                }
            }
            None if is_denied => CreateOutcome::Barred,
            None => {
                let record = Box::new(grant.clone());
                self.slots.insert(grant.id, Slot::Grant { record, tokens: tokens.to_vec() });
                CreateOutcome::Inserted
            }
        }
    }

    pub(crate) fn advance(&mut self, step: &Advance) -> AdvanceOutcome {
        let (record, tokens) = match self.slots.get_mut(&step.grant) {
            None => return AdvanceOutcome::Unknown,
            Some(Slot::Tombstone { .. }) => return AdvanceOutcome::Dead,
            Some(Slot::Grant { record, tokens }) => (record, tokens),
        };
        let Some(chain) = &record.chain else { return AdvanceOutcome::Dead };
        if !record.is_live(step.now) {
            return AdvanceOutcome::Dead;
        }
        if let ChainUpdate::Move(next) = &step.change
            && next.chain.as_ref().is_some_and(|next| next.position() == chain.position())
        {
            return AdvanceOutcome::Advanced;
        }
        if step.now >= chain.expires_at {
            return AdvanceOutcome::Dead;
        }
        if chain.position() != step.expected {
            return AdvanceOutcome::Stale((**record).clone().into());
        }
        if let ChainUpdate::Move(next) = &step.change {
            *record = next.clone();
        }
        tokens.extend(step.tokens.iter().cloned());
        AdvanceOutcome::Advanced
    }

    /// The bound is the one that the store allotted.
    pub(crate) fn revoke(&mut self, revocation: &Revocation, bound: Option<Epoch>) {
        let Revocation { target, at, until, .. } = revocation;
        self.newest_bound = self.newest_bound.max(bound.unwrap_or_default());
        if let Some(rule) = revocation.rule(bound) {
            self.rules.entry(rule.key.clone()).or_insert_with(|| rule.clone()).merge(&rule);
        }
        match target {
            Target::Grant(id) => match self.slots.get_mut(id) {
                Some(Slot::Grant { record, .. }) => revoked(record, *at),
                Some(Slot::Tombstone { until: own }) => *own = (*own).max(*until),
                None => {
                    self.slots.insert(*id, Slot::Tombstone { until: *until });
                }
            },
            Target::Token { grant, digest } => self.revoke_token(*grant, digest, *at),
            _ => {}
        }
        if let Some(bound) = bound {
            for record in self.records_mut() {
                if record.epoch <= bound && covers(target, record) {
                    revoked(record, *at);
                }
            }
        }
        self.write(revocation.event(bound), *at, *until);
    }

    pub(crate) fn write(&mut self, event: LogEvent, at: UnixTime, until: UnixTime) {
        self.log.push(LogEntry { id: EntryId::from_bytes([0; 16]), event, at, until });
    }

    fn revoke_token(&mut self, grant: GrantId, digest: &TokenDigest, at: UnixTime) {
        if let Some(Slot::Grant { tokens, .. }) = self.slots.get_mut(&grant) {
            for token in tokens.iter_mut().filter(|token| token.digest == *digest) {
                token.revoked_at = token.revoked_at.or(Some(at));
            }
        }
    }

    /// The ids that `list` should return, in order.
    pub(crate) fn list(&self, of: &Selector, now: UnixTime) -> Vec<GrantId> {
        let records = self.slots.values().filter_map(|slot| match slot {
            Slot::Grant { record, .. } => Some(record),
            Slot::Tombstone { .. } => None,
        });
        records
            .filter(|record| record.is_live(now) && selects(of, record) && !self.denies(record))
            .map(|record| record.id)
            .collect()
    }

    fn denies(&self, grant: &GrantRecord) -> bool {
        self.rules.values().any(|rule| {
            rule.bound.is_some() && rule.denies(grant.epoch) && is_about(&rule.key, grant)
        })
    }

    fn records_mut(&mut self) -> impl Iterator<Item = &mut GrantRecord> {
        self.slots.values_mut().filter_map(|slot| match slot {
            Slot::Grant { record, .. } => Some(&mut **record),
            Slot::Tombstone { .. } => None,
        })
    }
}

impl Slot {
    /// Whether it may be deleted, as a whole.
    pub(crate) fn is_over(&self, before: UnixTime) -> bool {
        match self {
            Self::Tombstone { until } => *until < before,
            Self::Grant { record, tokens } => {
                record.row_expires_at < before
                    && tokens.iter().all(|token| token.expires_at < before)
            }
        }
    }
}

fn revoked(record: &mut GrantRecord, at: UnixTime) {
    record.revoked_at = record.revoked_at.or(Some(at));
}

fn covers(target: &Target, grant: &GrantRecord) -> bool {
    target.rule_key().is_some_and(|key| is_about(&key, grant))
}

fn is_about(key: &RuleKey, grant: &GrantRecord) -> bool {
    match key {
        RuleKey::Subject(subject) => *subject == grant.subject,
        RuleKey::Client(client) => *client == grant.client,
        RuleKey::SubjectAtClient(subject, client) => {
            *subject == grant.subject && *client == grant.client
        }
        RuleKey::Jti(_) | RuleKey::Key(_) => false,
    }
}

fn selects(of: &Selector, grant: &GrantRecord) -> bool {
    match of {
        Selector::Subject(subject) => *subject == grant.subject,
        Selector::Client(client) => *client == grant.client,
        Selector::SubjectAtClient(subject, client) => {
            *subject == grant.subject && *client == grant.client
        }
    }
}
