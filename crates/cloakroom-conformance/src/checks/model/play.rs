//! One sequence, operation by operation, on the store and the model.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{
    Cursor, EntryId, Epoch, LogEntry, LogEvent, Revocation, RuleKey, Target,
};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, Lookup, Selector,
    TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Jti, Kid, Subject};

use super::reference::{Reference, Slot};
use super::{Operation, Stand};
use crate::ask::{Ask, ensure, grown, not_lowered, same};
use crate::fixtures::{DAY, MINUTE, NOW, grant, moved, stranger, token};
use crate::reading::read_on;
use crate::report::Broken;

/// A store and its model, side by side.
pub(crate) struct Play {
    store: Arc<dyn TokenStore>,
    model: Reference,
    /// What the first `create` of each slot carried; a retry carries the same.
    first: BTreeMap<u8, (GrantRecord, Vec<TokenRecord>)>,
    cursor: Cursor,
    seen: HashSet<EntryId>,
}

const HOUR: Duration = Duration::from_secs(3_600);

fn time(when: u8) -> UnixTime {
    match when {
        0 => NOW,
        1 => NOW + 5 * MINUTE,
        2 => NOW + 11 * MINUTE,
        3 => NOW + 90 * MINUTE,
        4 => NOW + 13 * HOUR,
        5 => NOW + 25 * HOUR,
        _ => NOW + 3 * DAY,
    }
}

fn lasting(at: UnixTime, lasting: u8) -> UnixTime {
    at + [2 * DAY, 10 * MINUTE, 12 * HOUR, 5 * DAY][usize::from(lasting) % 4]
}

fn id_of(slot: u8) -> GrantId {
    GrantId::from_bytes([slot + 1; 16])
}

/// Three subjects: two users whose ids differ only in case, and a client with the id of one of them.
fn subject_of(slot: u8) -> Result<Subject, Broken> {
    Ok(match slot % 3 {
        0 => Subject::user("app")?,
        1 => Subject::user("App")?,
        _ => Subject::client("app")?,
    })
}

fn client_of(slot: u8) -> Result<ClientId, Broken> {
    Ok(ClientId::new(["app", "App"][usize::from(slot) % 2])?)
}

impl Play {
    pub(crate) async fn new(store: Arc<dyn TokenStore>) -> Result<Self, Broken> {
        let model = Reference { newest_bound: store.newest_bound().await?, ..Reference::default() };
        let (cursor, seen) = (Cursor::start(), HashSet::new());
        Ok(Self { store, model, first: BTreeMap::new(), cursor, seen })
    }

    pub(crate) async fn play(&mut self, operation: Operation) -> Result<(), Broken> {
        match operation {
            Operation::Begin { slot } => {
                self.begin(slot, 1).await?;
            }
            Operation::Create { slot, tokens } => self.create(slot, tokens).await?,
            Operation::CreateOther { slot } => self.create_other(slot).await?,
            Operation::Advance { slot, when, moves, stand } => {
                self.advance(slot, time(when), moves, stand).await?;
            }
            Operation::RevokeGrant { slot, when, lasting } => {
                self.revoke(Target::Grant(id_of(slot)), when, lasting).await?;
            }
            Operation::RevokeToken { slot, when, token } => {
                let Some(Slot::Grant { tokens, .. }) = self.model.slots.get(&id_of(slot)) else {
                    return Ok(());
                };
                let held = tokens.iter().cycle().nth(token.into()).map(|token| token.digest);
                let digest = held.map_or_else(stranger, Ok)?;
                self.revoke(Target::Token { grant: id_of(slot), digest }, when, 0).await?;
            }
            Operation::RevokeSubject { slot, when, lasting } => {
                self.revoke(Target::Subject(subject_of(slot)?), when, lasting).await?;
            }
            Operation::RevokeClient { slot, when, lasting } => {
                self.revoke(Target::Client(client_of(slot)?), when, lasting).await?;
            }
            Operation::RevokePair { slot, when, lasting } => {
                let pair = Target::SubjectAtClient(subject_of(slot)?, client_of(slot)?);
                self.revoke(pair, when, lasting).await?;
            }
            Operation::RevokeJwtOrKey { slot, when, lasting } => {
                let target = match slot % 2 {
                    0 => Target::Jti(Jti::new("app")?),
                    _ => Target::Key(Kid::new("app")?),
                };
                self.revoke(target, when, lasting).await?;
            }
            Operation::List { slot, when, by } => self.list(slot, time(when), by).await?,
            Operation::Heartbeat { when } => {
                let (at, until) = (time(when), time(when) + MINUTE);
                self.store.heartbeat(at, until).await?;
                self.model.newest_bound = self.model.newest_bound.max(Epoch::new(at.as_millis()));
                self.model.write(LogEvent::Heartbeat {}, at, until);
                let fresh = self.read_on().await?;
                self.log_grew(&fresh, false)?;
            }
            Operation::Housekeep { when, limit } => self.housekeep(time(when), limit).await?,
        }
        let newest = self.store.newest_bound().await?;
        not_lowered(self.model.newest_bound, newest)?;
        self.model.newest_bound = newest;
        Ok(())
    }

    /// Everything, compared once more.
    pub(crate) async fn end(&mut self) -> Result<(), Broken> {
        self.compare_all().await?;
        for slot in 0..6 {
            self.list(slot, NOW, slot).await?;
        }
        Ok(())
    }

    async fn begin(
        &mut self,
        slot: u8,
        tokens: u8,
    ) -> Result<(GrantRecord, Vec<TokenRecord>), Broken> {
        if let Some(first) = self.first.get(&slot) {
            return Ok(first.clone());
        }
        let mut grant = grant("app", "app", self.store.epoch().await?)?;
        grant.id = id_of(slot);
        (grant.subject, grant.client) = (subject_of(slot)?, client_of(slot)?);
        if slot == 4 {
            // One of the grants is short.
            (grant.expires_at, grant.row_expires_at) = (NOW + HOUR, NOW + 2 * HOUR);
        }
        let tokens = (0..tokens).map(|_| token(&grant)).collect::<Result<Vec<_>, _>>()?;
        self.first.insert(slot, (grant.clone(), tokens.clone()));
        Ok((grant, tokens))
    }

    async fn create(&mut self, slot: u8, tokens: u8) -> Result<(), Broken> {
        let (grant, tokens) = self.begin(slot, tokens).await?;
        if let Some(Slot::Grant { tokens: held, .. }) = self.model.slots.get(&grant.id)
            && tokens.iter().any(|token| held.iter().all(|own| own.digest != token.digest))
        {
            // Its tokens have ended and are gone: such a late retry is nobody's.
            return Ok(());
        }
        self.create_as(&grant, &tokens).await
    }

    async fn create_other(&mut self, slot: u8) -> Result<(), Broken> {
        let (first, _) = self.begin(slot, 1).await?;
        if !self.model.slots.contains_key(&first.id) {
            return Ok(());
        }
        let mut other = first;
        other.username = Some("someone else".into());
        self.create_as(&other, &[]).await
    }

    async fn create_as(
        &mut self,
        grant: &GrantRecord,
        tokens: &[TokenRecord],
    ) -> Result<(), Broken> {
        let answer = self.store.create(grant.clone(), tokens.to_vec()).await?;
        same("the answer to `create`", &answer, &self.model.create(grant, tokens))?;
        if answer == CreateOutcome::Barred && !self.model.slots.contains_key(&grant.id) {
            // Nothing of it lives. What else there is of it, the model takes over.
            match self.store.find(grant.id, None).await? {
                Lookup::Absent => {}
                Lookup::Tombstone => {
                    let until = UnixTime::from_millis(0);
                    self.model.slots.insert(grant.id, Slot::Tombstone { until });
                }
                Lookup::Found(found) => {
                    ensure!(found.grant.revoked_at.is_some(), "a grant that was barred lives");
                    let record = Box::new(GrantRecord::clone(&found.grant));
                    let tokens = tokens.to_vec();
                    self.model.slots.insert(grant.id, Slot::Grant { record, tokens });
                    self.forget_tokens(grant.id).await?;
                }
            }
        }
        self.compare(grant.id).await
    }

    async fn advance(
        &mut self,
        slot: u8,
        now: UnixTime,
        moves: bool,
        stand: Stand,
    ) -> Result<(), Broken> {
        let id = id_of(slot);
        let stands = match self.model.slots.get(&id) {
            Some(Slot::Grant { record, .. }) => {
                let mut grant = (**record).clone();
                grant.revoked_at = None;
                grant
            }
            _ => self.begin(slot, 1).await?.0,
        };
        let mut next = moved(&stands)?;
        let mut expected = stands.chain.as_ref().ok_or("a grant without a chain")?.position();
        match stand {
            Stand::Right => {}
            Stand::WrongDigest => expected.digest = stranger()?,
            Stand::WrongGeneration => expected.generation += 7,
        }
        next.refreshed_at = Some(now);
        let mut token = token(&stands)?;
        token.issued_at = now;
        let tokens = vec![token];
        let change = if moves { ChainUpdate::Move(Box::new(next)) } else { ChainUpdate::Attach };
        let step = Advance { grant: id, expected, now, change, tokens: tokens.clone() };
        let should = self.model.advance(&step);
        same("the answer to `advance`", &self.store.advance(step.clone()).await?, &should)?;
        if moves && should == AdvanceOutcome::Advanced {
            // Sent again, it is what it was, and writes nothing.
            let should = self.model.advance(&step);
            let answer = self.store.advance(step).await?;
            same("the answer to a step that is sent again", &answer, &should)?;
        }
        if let Lookup::Found(found) = self.store.find(id, Some(tokens[0].digest)).await? {
            let is_held = match self.model.slots.get(&id) {
                Some(Slot::Grant { tokens: held, .. }) => held.contains(&tokens[0]),
                _ => false,
            };
            same("whether the step's token is there", &found.token.is_some(), &is_held)?;
        }
        self.compare(id).await
    }

    async fn revoke(&mut self, target: Target, when: u8, ends: u8) -> Result<(), Broken> {
        let at = time(when);
        let mut revocation = Revocation::new(target, at, lasting(at, ends));
        if ends.is_multiple_of(2) {
            revocation.rule_until = revocation.until + DAY;
        }
        // Told again, it may leave the entry that says as much already.
        let is_told = self.model.log.iter().any(|entry| {
            let LogEvent::Revoked { target, bound: None, .. } = &entry.event else { return false };
            *target == revocation.target && entry.until >= revocation.until
        });
        let revoked = self.store.revoke(revocation.clone()).await?;
        self.store.swept(revoked).await?;
        let fresh = self.read_on().await?;
        let mut bound = None;
        if revocation.target.has_bound() {
            let allotted = fresh.iter().find_map(|entry| match &entry.event {
                LogEvent::Revoked { bound, .. } => *bound,
                _ => None,
            });
            bound = Some(grown(self.model.newest_bound, at, allotted)?);
        }
        self.model.revoke(&revocation, bound);
        self.log_grew(&fresh, is_told)?;
        self.compare_all().await
    }

    async fn list(&self, slot: u8, now: UnixTime, by: u8) -> Result<(), Broken> {
        let (subject, client) = (subject_of(slot)?, client_of(slot)?);
        let of = match by % 3 {
            0 => Selector::Subject(subject),
            1 => Selector::Client(client),
            _ => Selector::SubjectAtClient(subject, client),
        };
        let limit = if by == 3 { 100 } else { 1 + u32::from(by) };
        let listed = self.store.listed(of.clone(), limit, now).await?;
        let ids: Vec<_> = listed.iter().map(|grant| grant.id).collect();
        same(&format!("the listing of {of:?}"), &ids, &self.model.list(&of, now))
    }

    async fn housekeep(&mut self, before: UnixTime, limit: u8) -> Result<(), Broken> {
        let limit = [1_000, 1, 3, 7][usize::from(limit) % 4];
        for _ in 0..1_000 {
            let task = Housekeeping { now: before + MINUTE, before, limit, sweep: None };
            if !self.store.maintain(task).await?.more {
                break;
            }
        }
        // What had ended may be gone: then it is gone here, too.
        for id in self.model.slots.keys().copied().collect::<Vec<_>>() {
            let is_over = self.model.slots.get(&id).is_some_and(|slot| slot.is_over(before));
            if is_over && self.store.find(id, None).await? == Lookup::Absent {
                self.model.slots.remove(&id);
            }
        }
        for id in self.model.slots.keys().copied().collect::<Vec<_>>() {
            self.forget_ended_tokens(id, before).await?;
        }
        for key in self.model.rules.keys().cloned().collect::<Vec<_>>() {
            let is_over = self.model.rules.get(&key).is_some_and(|rule| rule.until < before);
            if is_over && self.store.rule(key.clone()).await?.is_none() {
                self.model.rules.remove(&key);
            }
        }
        self.trimmed(before).await?;
        self.compare_all().await
    }

    /// The tokens that the store does not hold are gone here, too.
    async fn forget_tokens(&mut self, id: GrantId) -> Result<(), Broken> {
        self.forget_ended_tokens(id, UnixTime::MAX).await
    }

    async fn forget_ended_tokens(&mut self, id: GrantId, before: UnixTime) -> Result<(), Broken> {
        let Some(Slot::Grant { tokens, .. }) = self.model.slots.get_mut(&id) else { return Ok(()) };
        for token in std::mem::take(tokens) {
            let is_there = match self.store.find(id, Some(token.digest)).await? {
                Lookup::Found(found) => found.token.is_some(),
                _ => false,
            };
            if is_there || token.expires_at >= before {
                tokens.push(token);
            }
        }
        Ok(())
    }

    /// What is new in the log.
    async fn read_on(&mut self) -> Result<Vec<LogEntry>, Broken> {
        let (mut fresh, cursor) = read_on(&*self.store, self.cursor.clone(), 100).await?;
        self.cursor = cursor;
        fresh.retain(|entry| self.seen.insert(entry.id));
        Ok(fresh)
    }

    /// Compares what is new in the log with the last entry of the model.
    fn log_grew(&mut self, fresh: &[LogEntry], may_be_told: bool) -> Result<(), Broken> {
        let mut due = self.model.log.pop().into_iter().collect::<Vec<_>>();
        if fresh.is_empty() && may_be_told {
            return Ok(());
        }
        for (due, entry) in due.iter_mut().zip(fresh) {
            due.id = entry.id;
        }
        same("what is new in the log", &fresh, &&due[..])?;
        self.model.log.extend(due);
        Ok(())
    }

    /// That the log has lost only entries that had ended, and not its newest.
    async fn trimmed(&mut self, before: UnixTime) -> Result<(), Broken> {
        let left = self.store.log().await?;
        let newest = self.model.log.last().map(|entry| entry.id);
        self.model.log.retain(|entry| {
            entry.until >= before || Some(entry.id) == newest || left.contains(entry)
        });
        same("what is left of the log", &left, &self.model.log)
    }

    async fn compare_all(&self) -> Result<(), Broken> {
        for slot in 0..5 {
            self.compare(id_of(slot)).await?;
        }
        let mut keys: Vec<_> = self.model.rules.keys().cloned().collect();
        for slot in 0..6 {
            keys.push(RuleKey::Subject(subject_of(slot)?));
            keys.push(RuleKey::Client(client_of(slot)?));
            keys.push(RuleKey::SubjectAtClient(subject_of(slot)?, client_of(slot)?));
        }
        keys.sort();
        keys.dedup();
        let mut rules = self.store.rules(keys).await?.rules;
        rules.sort_by(|one, two| one.key.cmp(&two.key));
        same("the rules", &rules, &self.model.rules.values().cloned().collect())
    }

    /// That what `find` shows under this id is what should be there. When something was revoked is
    /// the store's to say.
    async fn compare(&self, id: GrantId) -> Result<(), Broken> {
        let lookup = self.store.find(id, None).await?;
        let (record, tokens) = match self.model.slots.get(&id) {
            None => return same(&format!("what is at {id:?}"), &lookup, &Lookup::Absent),
            Some(Slot::Tombstone { .. }) => {
                return same(&format!("what is at {id:?}"), &lookup, &Lookup::Tombstone);
            }
            Some(Slot::Grant { record, tokens }) => (record, tokens),
        };
        let Lookup::Found(found) = lookup else {
            return Err(format!("{id:?} should be there; `find` answered {lookup:?}").into());
        };
        let mut is = GrantRecord::clone(&found.grant);
        if is.revoked_at.is_some() && record.revoked_at.is_some() {
            is.revoked_at = record.revoked_at;
        }
        same("the grant", &is, &**record)?;
        for token in tokens {
            let found = self.store.found(id, token.digest).await?.token;
            let Some(found) = found else {
                return Err(format!("a token of {id:?} should be there, and is not").into());
            };
            let mut is = TokenRecord::clone(&found);
            if is.revoked_at.is_some() && token.revoked_at.is_some() {
                is.revoked_at = token.revoked_at;
            }
            same("a token", &is, token)?;
        }
        Ok(())
    }
}
