//! A store of your own: tokens and keys in `redb`, an embedded key-value database. It keeps every
//! promise of the contract, and the conformance kit agrees:
//!
//! ```text
//! cargo run --release --example custom_store
//! ```
//!
//! The guide that walks through it is `docs/write-your-own-store.md`.
//!
//! One database transaction at a time writes, and none sees half of another: what the contract wants
//! done in one step is done in one transaction. Each method says what it owes.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom::core::{
    Advance, Advanced, Change, Clock, Created, Cursor, CursorPlace, EntryId, Epoch, Found, GrantId,
    GrantRecord, Housekeeping, KeyInserted, KeyRecord, KeyStore, KeyUpdated, Listing, LogEntry,
    LogEvent, Lookup, Maintained, Page, Random, Revocation, RevocationBatch, Revoked, Rule,
    RuleKey, Rules, Selector, StoreError, SystemClock, Target, TokenDigest, TokenRecord,
    TokenStore, UnixTime, Wakeups, fresh_tokens, tokens_of,
};
use cloakroom_conformance::{Factory, run_all};
use futures_util::stream::unfold;
use redb::{Database, ReadTransaction, ReadableTable, TableDefinition, WriteTransaction};
use tokio::sync::watch;

type Table<K, V> = TableDefinition<'static, K, V>;

const GRANTS: Table<[u8; 16], &[u8]> = Table::new("grants");
/// Keyed by grant, then digest: a digest that another grant holds is not found.
const TOKENS: Table<([u8; 16], [u8; 32]), &[u8]> = Table::new("tokens");
const TOMBSTONES: Table<[u8; 16], u64> = Table::new("tombstones");
/// The index by subject and by client, written in one transaction with the grants. The key of the
/// rule that would revoke them all names them, byte for byte.
const BY_OWNER: Table<(&[u8], [u8; 16]), ()> = Table::new("by owner");
/// What ends when: the time, the kind of row, its key.
const BY_END: Table<(u64, u8, &[u8]), ()> = Table::new("by end");
const RULES: Table<&[u8], (Option<u64>, u64)> = Table::new("rules");
const LOG: Table<u64, ([u8; 16], &[u8])> = Table::new("log");
const KEYS: Table<u64, (u64, &[u8])> = Table::new("keys");
const NUMBERS: Table<&str, u64> = Table::new("numbers");
const INCARNATION: Table<(), [u8; 16]> = Table::new("incarnation");

const NEWEST_BOUND: &str = "newest bound";
const HIGHEST_GENERATION: &str = "highest generation";

// The kinds of rows in the index on expiry: tokens before the grant that ends with them.
const ENTRY: u8 = 0;
const RULE: u8 = 1;
const TOMBSTONE: u8 = 2;
const TOKEN: u8 = 3;
const GRANT: u8 = 4;

/// Tokens and keys in a file of redb's. A clone is the same store.
#[derive(Debug, Clone)]
struct RedbStore {
    database: Arc<Database>,
    clock: Arc<dyn Clock>,
    random: Random,
    /// The position of the log's newest entry, for those who follow it.
    newest: Arc<watch::Sender<u64>>,
}

impl RedbStore {
    fn open(path: impl AsRef<Path>) -> Result<Self, Box<dyn std::error::Error + Send + Sync>> {
        let database = Database::create(path)?;
        let (clock, random) = (Arc::new(SystemClock::new()), Random::system());
        let write = database.begin_write()?;
        let position = write.open_table(LOG)?.last()?.map_or(0, |(position, _)| position.value());
        if write.open_table(INCARNATION)?.get(())?.is_none() {
            // A log that begins anew is another log, and none of its bounds is older than any that
            // an earlier one may have allotted.
            write.open_table(INCARNATION)?.insert((), *EntryId::random(&random)?.as_bytes())?;
            write.open_table(NUMBERS)?.insert(NEWEST_BOUND, clock.now().as_millis())?;
        }
        // A table that does not exist cannot be read: make them all, once.
        write.open_table(GRANTS)?;
        write.open_table(TOKENS)?;
        write.open_table(TOMBSTONES)?;
        write.open_table(BY_OWNER)?;
        write.open_table(BY_END)?;
        write.open_table(RULES)?;
        write.open_table(KEYS)?;
        write.commit()?;
        let newest = Arc::new(watch::Sender::new(position));
        Ok(Self { database: Arc::new(database), clock, random, newest })
    }

    /// One transaction, on a thread where it may block. Dropping the future does not stop it: the
    /// operation is certain to finish, as the contract allows.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&WriteTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (database, newest) = (Arc::clone(&self.database), Arc::clone(&self.newest));
        let task = move || {
            let write = database.begin_write().map_err(Failure::from)?;
            let done = work(&write)?; // an error drops the transaction, and with it all it wrote
            let log = write.open_table(LOG).map_err(Failure::from)?;
            let position = log.last().map_err(Failure::from)?.map_or(0, |(last, _)| last.value());
            drop(log);
            write.commit().map_err(Failure::from)?;
            newest.send_if_modified(|newest| std::mem::replace(newest, position) != position);
            Ok(done)
        };
        tokio::task::spawn_blocking(task)
            .await
            .map_err(|error| StoreError::unavailable("writing", error))?
            .map_err(|Failure(error)| error)
    }

    /// A snapshot: nothing that is written meanwhile shows.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&ReadTransaction) -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.database);
        let task = move || work(&database.begin_read().map_err(Failure::from)?);
        tokio::task::spawn_blocking(task)
            .await
            .map_err(|error| StoreError::unavailable("reading", error))?
            .map_err(|Failure(error)| error)
    }

    fn entry_id(&self) -> Result<EntryId, StoreError> {
        EntryId::random(&self.random)
            .map_err(|error| StoreError::unavailable("drawing the id of a log entry", error))
    }
}

/// So that `?` works on both kinds of errors.
struct Failure(StoreError);

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self(error)
    }
}

/// Every error of the driver is an outage, but for damage. None may look like "absent".
macro_rules! failures {
    ($($error:ty),*) => {$(
        impl From<$error> for Failure {
            fn from(error: $error) -> Self {
                match redb::Error::from(error) {
                    error @ redb::Error::Corrupted(_) => {
                        Self(StoreError::corrupt("a database", error))
                    }
                    error => Self(StoreError::unavailable("using the database", error)),
                }
            }
        }
    )*};
}
failures!(redb::StorageError, redb::TableError, redb::TransactionError, redb::CommitError);

#[async_trait]
impl TokenStore for RedbStore {
    /// Never overwrites; makes its writes visible, and looks for rules, in one transaction. No
    /// revocation can come between the two.
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<Created, StoreError> {
        tokens_of(grant.id, &tokens)?;
        let now = self.clock.now();
        self.write(move |write| {
            if write.open_table(TOMBSTONES)?.get(grant.id.as_bytes())?.is_some() {
                return Ok(Created::Barred);
            }
            let known = stored_grant(&write.open_table(GRANTS)?, grant.id)?;
            if let Some(known) = &known {
                let table = write.open_table(TOKENS)?;
                let own = |token: &TokenRecord| stored_token(&table, token.grant, &token.digest);
                let fresh = fresh_tokens(tokens.clone(), own);
                let same = grant.is_stored_as(known) && fresh.is_ok_and(|fresh| fresh.is_empty());
                if !same {
                    return Ok(Created::Exists);
                }
                if known.revoked_at.is_some() {
                    return Ok(Created::Barred);
                }
            }
            if denied(&write.open_table(RULES)?, &grant)? {
                if known.is_some() {
                    revoke_grant(write, grant.id, now)?;
                }
                return Ok(Created::Barred);
            }
            if known.is_none() {
                put_grant(write, None, &grant)?;
                put_tokens(write, &fresh_tokens(tokens, |_| Ok(None))?)?;
            }
            Ok(Created::Inserted)
        })
        .await
    }

    /// Shows what is there, live or not: judging is the engine's.
    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.read(move |read| {
            let Some(found) = stored_grant(&read.open_table(GRANTS)?, grant)? else {
                let buried = read.open_table(TOMBSTONES)?.get(grant.as_bytes())?.is_some();
                return Ok(if buried { Lookup::Tombstone } else { Lookup::Absent });
            };
            let token = match token {
                Some(digest) => stored_token(&read.open_table(TOKENS)?, grant, &digest)?,
                None => None,
            };
            Ok(Lookup::Found(Found { grant: Arc::new(found), token: token.map(Arc::new) }))
        })
        .await
    }

    /// The one atomic update that the engine needs: compare the chain's place, write the next.
    async fn advance(&self, step: Advance) -> Result<Advanced, StoreError> {
        tokens_of(step.grant, &step.tokens)?;
        self.write(move |write| {
            let Some(stored) = stored_grant(&write.open_table(GRANTS)?, step.grant)? else {
                let buried = write.open_table(TOMBSTONES)?.get(step.grant.as_bytes())?.is_some();
                return Ok(if buried { Advanced::Dead } else { Advanced::Unknown });
            };
            let stored = Arc::new(stored);
            if let Some(refused) = step.judge(&stored)? {
                return Ok(refused);
            }
            let fresh = {
                let table = write.open_table(TOKENS)?;
                fresh_tokens(step.tokens, |token| stored_token(&table, token.grant, &token.digest))?
            };
            if let Change::Move(next) = &step.change {
                put_grant(write, Some(&stored), next)?;
            }
            put_tokens(write, &fresh)?;
            Ok(Advanced::Advanced)
        })
        .await
    }

    /// Log entry, bound, rule and sweep in one transaction. Where a sweep may meet more grants than
    /// one transaction should hold, write down that it goes on, and finish it in batches.
    async fn revoke(&self, revocation: Revocation) -> Result<Revoked, StoreError> {
        let id = self.entry_id()?;
        self.write(move |write| {
            let Revocation { target, at, until, .. } = &revocation;
            let bound = match target.has_bound() {
                true => Some(allot(write, *at)?),
                false => None,
            };
            append(write, id, revocation.event(bound), *at, *until)?;
            if let Some(key) = target.rule_key() {
                put_rule(write, Rule { key, bound, until: *until })?;
            }
            match target {
                Target::Token { grant, digest } => revoke_token(write, *grant, digest, *at)?,
                Target::Grant(grant) if !revoke_grant(write, *grant, *at)? => {
                    bury(write, *grant, *until)?;
                }
                _ => {}
            }
            if let (Some(of), Some(bound)) = (target.selector(), bound) {
                sweep(write, &of, bound, *at)?;
            }
            Ok(Revoked::Done)
        })
        .await
    }

    /// The rules for tokens that have no row.
    async fn rules(&self, keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.read(move |read| {
            let table = read.open_table(RULES)?;
            let mut found = BTreeMap::new();
            for key in keys {
                if let Some(rule) = stored_rule(&table, &key)? {
                    found.insert(key, rule);
                }
            }
            let newest_bound = newest_bound(&read.open_table(NUMBERS)?)?;
            Ok(Rules { rules: found.into_values().collect(), newest_bound })
        })
        .await
    }

    /// A page over an index; what a rule denies is left out, even if no sweep has come by.
    async fn list(&self, of: Selector, page: Page, now: UnixTime) -> Result<Listing, StoreError> {
        self.read(move |read| {
            let ids = ids(&read.open_table(BY_OWNER)?, &of, page.after, page.limit)?;
            let next = ids.last().copied().filter(|_| ids.len() >= page.limit as usize);
            let (table, rules) = (read.open_table(GRANTS)?, read.open_table(RULES)?);
            let mut grants = Vec::new();
            for id in ids {
                if let Some(grant) = stored_grant(&table, id)?
                    && of.selects(&grant)
                    && grant.is_live(now)
                    && !denied(&rules, &grant)?
                {
                    grants.push(Arc::new(grant));
                }
            }
            Ok(Listing { grants, next })
        })
        .await
    }

    /// Transactions commit one after the other, so that positions do: no entry comes late.
    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.read(move |read| {
            let log = read.open_table(LOG)?;
            let incarnation = read.open_table(INCARNATION)?.get(())?.map(|value| value.value());
            let incarnation = incarnation.unwrap_or_default();
            let position = match after.place() {
                None => 0,
                Some(place) => {
                    let entry = log.get(place.position)?.map(|entry| entry.value().0);
                    if place.incarnation != incarnation || entry != Some(*place.entry.as_bytes()) {
                        return Ok(RevocationBatch::Gap);
                    }
                    place.position
                }
            };
            let mut rest = log.range(position + 1..)?;
            let (mut entries, mut next) = (Vec::new(), after);
            for entry in rest.by_ref().take(limit.max(1) as usize) {
                let (position, entry) = entry?;
                let entry = LogEntry::from_body(entry.value().1)?;
                next = Cursor::after(CursorPlace {
                    incarnation,
                    position: position.value(),
                    entry: entry.id,
                });
                entries.push(entry);
            }
            let newest_bound = newest_bound(&read.open_table(NUMBERS)?)?;
            Ok(RevocationBatch::Entries {
                entries,
                next,
                more: rest.next().is_some(),
                newest_bound,
            })
        })
        .await
    }

    /// An item at the start, and one whenever the log has grown. A store that others write, too,
    /// may answer with `Wakeups::Poll`.
    fn wakeups(&self) -> Wakeups {
        let mut newest = self.newest.subscribe();
        newest.mark_changed();
        Wakeups::Stream(Box::pin(unfold(newest, |mut newest| async move {
            newest.changed().await.ok()?;
            Some(((), newest))
        })))
    }

    /// By the path of a revocation: whoever sees it has seen all that came before.
    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        let id = self.entry_id()?;
        self.write(move |write| append(write, id, LogEvent::Heartbeat {}, now, until)).await
    }

    /// Deletes over the index on expiry, and looks again at each row before it goes.
    async fn maintain(&self, task: Housekeeping) -> Result<Maintained, StoreError> {
        self.write(move |write| {
            let mut done = Maintained::default();
            let before = task.before.as_millis();
            let due: Vec<(u64, u8, Vec<u8>)> = write
                .open_table(BY_END)?
                .range(..(before, 0, &[][..]))?
                .take(task.limit.max(1) as usize + 1) // the newest entry may be among them
                .map(|row| {
                    row.map(|(key, _)| {
                        let (end, kind, key) = key.value();
                        (end, kind, key.to_vec())
                    })
                })
                .collect::<Result<_, _>>()?;
            for (end, kind, key) in &due {
                delete(write, *end, *kind, key, before, &mut done)?;
            }
            let left = write.open_table(BY_END)?;
            // What stays although it has ended is the log's newest entry, and is not work.
            let newest = newest_position(&write.open_table(LOG)?)?.to_be_bytes();
            for row in left.range(..(before, 0, &[][..]))?.take(2) {
                let (key, _) = row?;
                let (_, kind, key) = key.value();
                done.more |= kind != ENTRY || key != newest;
            }
            Ok(done)
        })
        .await
    }
}

// ----- Grants and tokens -----

fn stored_grant(
    table: &impl ReadableTable<[u8; 16], &'static [u8]>,
    id: GrantId,
) -> Result<Option<GrantRecord>, Failure> {
    let Some(bytes) = table.get(id.as_bytes())? else { return Ok(None) };
    Ok(Some(GrantRecord::from_bytes(id, bytes.value())?))
}

fn stored_token(
    table: &impl ReadableTable<([u8; 16], [u8; 32]), &'static [u8]>,
    grant: GrantId,
    digest: &TokenDigest,
) -> Result<Option<TokenRecord>, StoreError> {
    let bytes = table.get((*grant.as_bytes(), *digest.as_bytes()));
    let Some(bytes) = bytes.map_err(|error| Failure::from(error).0)? else { return Ok(None) };
    TokenRecord::from_bytes(grant, digest, bytes.value()).map(Some)
}

/// Writes a grant in the place of the one that is there, and moves it in the index on expiry.
fn put_grant(
    write: &WriteTransaction,
    old: Option<&GrantRecord>,
    grant: &GrantRecord,
) -> Result<(), Failure> {
    let id = *grant.id.as_bytes();
    write.open_table(GRANTS)?.insert(id, &grant.to_bytes()[..])?;
    let (mut ends, mut owners) = (write.open_table(BY_END)?, write.open_table(BY_OWNER)?);
    if let Some(old) = old {
        ends.remove((old.row_expires_at.as_millis(), GRANT, &id[..]))?;
    }
    ends.insert((grant.row_expires_at.as_millis(), GRANT, &id[..]), ())?;
    for owner in owners_of(grant) {
        owners.insert((&owner[..], id), ())?; // they never change
    }
    Ok(())
}

fn owners_of(grant: &GrantRecord) -> [Vec<u8>; 2] {
    let (subject, client) = (grant.subject.clone(), grant.client.clone());
    [RuleKey::Subject(subject).to_bytes(), RuleKey::Client(client).to_bytes()]
}

fn put_tokens(write: &WriteTransaction, tokens: &[TokenRecord]) -> Result<(), Failure> {
    let (mut table, mut ends) = (write.open_table(TOKENS)?, write.open_table(BY_END)?);
    for token in tokens {
        let (grant, digest) = (*token.grant.as_bytes(), *token.digest.as_bytes());
        table.insert((grant, digest), &token.to_bytes()[..])?;
        let key = [&grant[..], &digest[..]].concat();
        ends.insert((token.expires_at.as_millis(), TOKEN, &key[..]), ())?;
    }
    Ok(())
}

/// Whether the grant is there. The first revocation counts.
fn revoke_grant(write: &WriteTransaction, id: GrantId, at: UnixTime) -> Result<bool, Failure> {
    let Some(stored) = stored_grant(&write.open_table(GRANTS)?, id)? else { return Ok(false) };
    if stored.revoked_at.is_none() {
        let revoked = GrantRecord { revoked_at: Some(at), ..stored.clone() };
        put_grant(write, Some(&stored), &revoked)?;
    }
    Ok(true)
}

fn revoke_token(
    write: &WriteTransaction,
    grant: GrantId,
    digest: &TokenDigest,
    at: UnixTime,
) -> Result<(), Failure> {
    let stored = stored_token(&write.open_table(TOKENS)?, grant, digest)?;
    match stored {
        Some(token) if token.revoked_at.is_none() => {
            put_tokens(write, &[TokenRecord { revoked_at: Some(at), ..token }])
        }
        _ => Ok(()),
    }
}

/// So that a `create` which comes late is barred.
fn bury(write: &WriteTransaction, id: GrantId, until: UnixTime) -> Result<(), Failure> {
    let mut table = write.open_table(TOMBSTONES)?;
    let known = table.get(id.as_bytes())?.map_or(0, |known| known.value());
    let until = until.as_millis().max(known);
    table.insert(id.as_bytes(), until)?;
    let mut ends = write.open_table(BY_END)?;
    ends.remove((known, TOMBSTONE, &id.as_bytes()[..]))?;
    ends.insert((until, TOMBSTONE, &id.as_bytes()[..]), ())?;
    Ok(())
}

/// Revokes the selected grants whose epoch the bound covers, and no other: the login right after
/// lives.
fn sweep(
    write: &WriteTransaction,
    of: &Selector,
    bound: Epoch,
    at: UnixTime,
) -> Result<(), Failure> {
    let ids = ids(&write.open_table(BY_OWNER)?, of, None, u32::MAX)?;
    for id in ids {
        let grant = stored_grant(&write.open_table(GRANTS)?, id)?;
        if grant.is_some_and(|grant| of.selects(&grant) && grant.epoch <= bound) {
            revoke_grant(write, id, at)?;
        }
    }
    Ok(())
}

/// The ids under one key of the index, in their order; of a pair, those of its subject.
fn ids(
    index: &impl ReadableTable<(&'static [u8], [u8; 16]), ()>,
    of: &Selector,
    after: Option<GrantId>,
    limit: u32,
) -> Result<Vec<GrantId>, Failure> {
    let key = match of {
        Selector::Client(client) => RuleKey::Client(client.clone()),
        Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
            RuleKey::Subject(subject.clone())
        }
    };
    let (key, first) = (key.to_bytes(), after.map_or([0; 16], |id| *id.as_bytes()));
    let mut found = Vec::new();
    for row in index.range((&key[..], first)..=(&key[..], [0xff; 16]))? {
        let id = GrantId::from_bytes(row?.0.value().1);
        if Some(id) != after {
            found.push(id);
        }
        if found.len() >= limit.max(1) as usize {
            break;
        }
    }
    Ok(found)
}

// ----- The log and its rules -----

/// Newer than every bound before it, whatever the clock says.
fn allot(write: &WriteTransaction, at: UnixTime) -> Result<Epoch, Failure> {
    let mut numbers = write.open_table(NUMBERS)?;
    let bound = newest_bound(&numbers)?.next_bound(at);
    numbers.insert(NEWEST_BOUND, bound.get())?;
    Ok(bound)
}

fn newest_bound(numbers: &impl ReadableTable<&'static str, u64>) -> Result<Epoch, Failure> {
    Ok(Epoch::new(numbers.get(NEWEST_BOUND)?.map_or(0, |bound| bound.value())))
}

fn newest_position(
    log: &impl ReadableTable<u64, ([u8; 16], &'static [u8])>,
) -> Result<u64, Failure> {
    Ok(log.last()?.map_or(0, |(position, _)| position.value()))
}

fn append(
    write: &WriteTransaction,
    id: EntryId,
    event: LogEvent,
    at: UnixTime,
    until: UnixTime,
) -> Result<(), Failure> {
    let mut log = write.open_table(LOG)?;
    // The newest entry is never deleted, so that no position is given twice.
    let position = newest_position(&log)? + 1;
    let body = LogEntry { id, event, at, until }.to_body();
    log.insert(position, (*id.as_bytes(), &body[..]))?;
    let key = (until.as_millis(), ENTRY, &position.to_be_bytes()[..]);
    write.open_table(BY_END)?.insert(key, ())?;
    Ok(())
}

fn stored_rule(
    table: &impl ReadableTable<&'static [u8], (Option<u64>, u64)>,
    key: &RuleKey,
) -> Result<Option<Rule>, Failure> {
    Ok(table.get(&key.to_bytes()[..])?.map(|row| {
        let (bound, until) = row.value();
        let (bound, until) = (bound.map(Epoch::new), UnixTime::from_millis(until));
        Rule { key: key.clone(), bound, until }
    }))
}

/// A second rule on one key keeps the later bound and the later end.
fn put_rule(write: &WriteTransaction, mut rule: Rule) -> Result<(), Failure> {
    let (mut table, key) = (write.open_table(RULES)?, rule.key.to_bytes());
    let mut ends = write.open_table(BY_END)?;
    if let Some(known) = stored_rule(&table, &rule.key)? {
        rule.merge(&known);
        ends.remove((known.until.as_millis(), RULE, &key[..]))?;
    }
    table.insert(&key[..], (rule.bound.map(Epoch::get), rule.until.as_millis()))?;
    ends.insert((rule.until.as_millis(), RULE, &key[..]), ())?;
    Ok(())
}

/// Whether a rule of its subject, its client or the pair denies the grant.
fn denied(
    table: &impl ReadableTable<&'static [u8], (Option<u64>, u64)>,
    grant: &GrantRecord,
) -> Result<bool, Failure> {
    for key in grant.rule_keys() {
        if stored_rule(table, &key)?.is_some_and(|rule| rule.denies(grant.epoch)) {
            return Ok(true);
        }
    }
    Ok(false)
}

// ----- Housekeeping -----

/// Deletes what the index said has ended, if it still has.
fn delete(
    write: &WriteTransaction,
    end: u64,
    kind: u8,
    key: &[u8],
    before: u64,
    done: &mut Maintained,
) -> Result<(), Failure> {
    write.open_table(BY_END)?.remove((end, kind, key))?;
    match kind {
        GRANT => delete_grant(write, array(key)?, before, done)?,
        TOKEN => {
            let (id, digest) = (array(&key[..16])?, array(&key[16..])?);
            write.open_table(TOKENS)?.remove((id, digest))?;
            let row = stored_grant(&write.open_table(GRANTS)?, GrantId::from_bytes(id))?;
            // Counted if its grant lives on.
            done.tokens +=
                u64::from(row.is_some_and(|row| row.row_expires_at.as_millis() >= before));
        }
        TOMBSTONE => {
            write.open_table(TOMBSTONES)?.remove(array(key)?)?;
            done.revocations += 1;
        }
        RULE => {
            write.open_table(RULES)?.remove(key)?;
            done.revocations += 1;
        }
        _ => {
            let position = u64::from_be_bytes(array(key)?);
            let mut log = write.open_table(LOG)?;
            if newest_position(&log)? == position {
                write.open_table(BY_END)?.insert((end, kind, key), ())?;
            } else {
                log.remove(position)?;
                done.revocations += 1;
            }
        }
    }
    Ok(())
}

/// A row outlives the tokens that hang off it.
fn delete_grant(
    write: &WriteTransaction,
    id: [u8; 16],
    before: u64,
    done: &mut Maintained,
) -> Result<(), Failure> {
    let Some(grant) = stored_grant(&write.open_table(GRANTS)?, GrantId::from_bytes(id))? else {
        return Ok(());
    };
    let (mut last, tokens) = (0, write.open_table(TOKENS)?);
    for row in tokens.range((id, [0; 32])..=(id, [0xff; 32]))? {
        let (key, bytes) = row?;
        let digest = TokenDigest::from_bytes(key.value().1);
        let token = TokenRecord::from_bytes(grant.id, &digest, bytes.value())?;
        last = last.max(token.expires_at.as_millis());
    }
    if last > 0 {
        // Looked at again with the last of them.
        write.open_table(BY_END)?.insert((last, GRANT, &id[..]), ())?;
        return Ok(());
    }
    if grant.row_expires_at.as_millis() < before {
        write.open_table(GRANTS)?.remove(id)?;
        for owner in owners_of(&grant) {
            write.open_table(BY_OWNER)?.remove((&owner[..], id))?;
        }
        done.grants += 1;
    }
    Ok(())
}

fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N], StoreError> {
    bytes.try_into().map_err(|error| StoreError::corrupt("an index", error))
}

// ----- Signing keys -----

#[async_trait]
impl KeyStore for RedbStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.read(|read| {
            let table = read.open_table(KEYS)?;
            table.iter()?.map(|row| Ok(KeyRecord::from_body(row?.1.value().1)?)).collect()
        })
        .await
    }

    /// Only above every generation that there ever was.
    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        self.write(move |write| {
            let mut numbers = write.open_table(NUMBERS)?;
            let highest = numbers.get(HIGHEST_GENERATION)?.map_or(0, |highest| highest.value());
            if record.generation <= highest {
                return Ok(KeyInserted::Taken);
            }
            numbers.insert(HIGHEST_GENERATION, record.generation)?;
            let body = record.to_body();
            write.open_table(KEYS)?.insert(record.generation, (record.version, &body[..]))?;
            Ok(KeyInserted::Inserted)
        })
        .await
    }

    /// Only over the version that the caller has seen.
    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        self.write(move |write| {
            let mut table = write.open_table(KEYS)?;
            let version = table.get(record.generation)?.map(|row| row.value().0);
            if version != Some(expected) {
                return Ok(KeyUpdated::Stale);
            }
            table.insert(record.generation, (record.version, &record.to_body()[..]))?;
            Ok(KeyUpdated::Updated)
        })
        .await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.write(move |write| {
            let mut table = write.open_table(KEYS)?;
            let version = table.get(generation)?.map(|row| row.value().0);
            if version != Some(expected) {
                return Ok(KeyUpdated::Stale);
            }
            table.remove(generation)?;
            Ok(KeyUpdated::Updated)
        })
        .await
    }
}

// ----- Is it right? -----

/// A fresh store for each check of the kit.
#[derive(Debug)]
struct Fresh(tempfile::TempDir);

impl Fresh {
    fn store(&self) -> RedbStore {
        let folder = tempfile::TempDir::new_in(self.0.path()).expect("a folder").keep();
        RedbStore::open(folder.join("tokens.redb")).expect("a store")
    }
}

#[async_trait]
impl Factory for Fresh {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        Arc::new(self.store())
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        Arc::new(self.store())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let report = run_all(Fresh(tempfile::tempdir()?)).await;
    println!("{report}");
    report.assert_ok();
    println!("custom store: ok");
    Ok(())
}
