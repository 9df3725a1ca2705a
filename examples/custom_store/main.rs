//! A store of your own: tokens and keys in `redb`, an embedded key-value database. It passes the
//! conformance kit. `docs/write-your-own-store.md` explains it.
//!
//! ```text
//! cargo run --release --example custom_store
//! ```
//!
//! Only one transaction can write at a time, and none sees half of another, so each step of the
//! contract is one transaction. The comment on each method says what it must guarantee. The table
//! and its indexes are in `rows`.

mod rows;

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use cloakroom::core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom::core::record::{GrantRecord, TokenRecord};
use cloakroom::core::revocation::{
    Cursor, CursorPlace, EntryId, Epoch, LogEntry, LogEvent, LogNotifications, Revocation,
    RevocationBatch, Rule, RuleKey, Rules, Target,
};
use cloakroom::core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CheckValue, CheckValues, CreateOutcome, Found,
    Housekeeping, Listing, Lookup, MaintenanceReport, PageRequest, RevokeOutcome, Selector,
    StoreError, TokenStore, fresh_tokens, tokens_of,
};
use cloakroom::core::time::{Clock as _, SystemClock, UnixTime};
use cloakroom::core::{GrantId, Random, TokenDigest};
use cloakroom_conformance::{Factory, run_all};
use redb::{Database, ReadOnlyTable};

use rows::*;

/// Tokens and keys in a redb file. A clone is the same store.
#[derive(Debug, Clone)]
struct RedbStore(Arc<Database>);

impl RedbStore {
    async fn open(path: impl AsRef<Path>) -> Result<Self> {
        let store = Self(Arc::new(Database::create(path)?));
        let begin = |rows: &mut Writing<'_>| {
            if rows.value(INCARNATION)? == [0; 16] {
                let incarnation = EntryId::random(&Random::system())?;
                rows.put(INCARNATION, &[], NEVER, incarnation.as_bytes())?;
            }
            // Newer than any bound of an earlier log, or of this one before it was restored.
            rows.raise_bound(SystemClock::new().now())
        };
        store.write(begin).await?;
        Ok(store)
    }

    /// One transaction, on a thread where it may block. Dropping the future does not stop it: the
    /// operation is certain to finish, as the contract allows.
    async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Writing<'_>) -> Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.0);
        blocking(move || {
            let write = database.begin_write()?;
            let done = work(&mut Rows(write.open_table(ROWS)?))?; // or it drops what it wrote
            write.commit()?;
            Ok(done)
        })
        .await
    }

    /// A snapshot: it does not see later writes.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Rows<ReadOnlyTable<Key, Value>>) -> Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let database = Arc::clone(&self.0);
        blocking(move || work(&Rows(database.begin_read()?.open_table(ROWS)?))).await
    }
}

async fn blocking<T: Send + 'static>(
    task: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T, StoreError> {
    let done = tokio::task::spawn_blocking(move || task().map_err(failure)).await;
    done.map_err(|error| StoreError::unavailable("waiting for the database", error))?
}

#[async_trait]
impl TokenStore for RedbStore {
    /// Never overwrites. It writes and looks for rules in one transaction, so that no revocation can
    /// come in between.
    async fn create(
        &self,
        grant: GrantRecord,
        tokens: Vec<TokenRecord>,
    ) -> Result<CreateOutcome, StoreError> {
        tokens_of(grant.id, &tokens)?;
        self.write(move |rows| {
            let is_buried = rows.get(TOMBSTONE, grant.id.as_bytes())?.is_some();
            let known = rows.grant(grant.id)?;
            let fresh = match fresh_tokens(tokens, rows.stored()) {
                Err(StoreError::Misuse(_)) if known.is_some() => return Ok(CreateOutcome::Exists),
                fresh => fresh?,
            };
            match known {
                _ if is_buried => return Ok(CreateOutcome::Barred),
                None => {
                    rows.put_grant(&grant)?;
                    rows.put_tokens(&fresh)?;
                }
                // A retry is the same record with the same tokens.
                Some(known) if !(fresh.is_empty() && grant.is_stored_as(&known)) => {
                    return Ok(CreateOutcome::Exists);
                }
                Some(known) if known.revoked_at.is_some() => return Ok(CreateOutcome::Barred),
                Some(_) => {}
            }
            if rows.denies(&grant)? {
                rows.revoke_grant(grant.id, SystemClock::new().now())?;
                return Ok(CreateOutcome::Barred);
            }
            Ok(CreateOutcome::Inserted)
        })
        .await
    }

    /// Returns what is there, live or not: the engine decides.
    async fn find(&self, grant: GrantId, token: Option<TokenDigest>) -> Result<Lookup, StoreError> {
        self.read(move |rows| {
            let Some(found) = rows.grant(grant)? else {
                let is_buried = rows.get(TOMBSTONE, grant.as_bytes())?.is_some();
                return Ok(if is_buried { Lookup::Tombstone } else { Lookup::Absent });
            };
            let token = token.map(|digest| rows.token(grant, &digest)).transpose()?.flatten();
            Ok(Lookup::Found(Found { grant: Arc::new(found), token: token.map(Arc::new) }))
        })
        .await
    }

    /// The one atomic update that the engine needs: compare the chain's place, and write the next.
    async fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        tokens_of(step.grant, &step.tokens)?;
        self.write(move |rows| {
            let Some(stored) = rows.grant(step.grant)? else {
                let is_buried = rows.get(TOMBSTONE, step.grant.as_bytes())?.is_some();
                return Ok(if is_buried { AdvanceOutcome::Dead } else { AdvanceOutcome::Unknown });
            };
            if let Some(refused) = step.judge(&Arc::new(stored))? {
                return Ok(refused);
            }
            let fresh = fresh_tokens(step.tokens, rows.stored())?;
            if let ChainUpdate::Move(next) = &step.change {
                rows.put_grant(next)?;
            }
            rows.put_tokens(&fresh)?;
            Ok(AdvanceOutcome::Advanced)
        })
        .await
    }

    /// Log entry, bound, rule and sweep in one transaction. If a sweep may meet more grants than one
    /// transaction should hold, record how far it is, and finish it in batches.
    async fn revoke(&self, revocation: Revocation) -> Result<RevokeOutcome, StoreError> {
        self.write(move |rows| {
            let Revocation { target, at, until, .. } = &revocation;
            let bound = target.has_bound().then(|| rows.allot(*at)).transpose()?;
            rows.append(revocation.event(bound), *at, *until)?;
            if let Some(rule) = revocation.rule(bound) {
                rows.put_rule(rule)?;
            }
            match target {
                Target::Grant(grant) if !rows.revoke_grant(*grant, *at)? => {
                    // This bars a late `create`.
                    let known = rows.get(TOMBSTONE, grant.as_bytes())?.map_or(0, |row| row.end);
                    rows.put(TOMBSTONE, grant.as_bytes(), known.max(until.as_millis()), &[])?;
                }
                Target::Token { grant, digest } => {
                    if let Some(mut token) = rows.token(*grant, digest)? {
                        token.revoked_at.get_or_insert(*at); // the first revocation counts
                        rows.put_tokens(&[token])?;
                    }
                }
                _ => {}
            }
            if let (Some(of), Some(bound)) = (target.selector(), bound) {
                // Spares the login right after.
                let covered = |grant: &GrantRecord| of.selects(grant) && grant.epoch <= bound;
                for grant in rows.owned(&of, None, u32::MAX)?.into_iter().filter(covered) {
                    rows.revoke_grant(grant.id, *at)?;
                }
            }
            Ok(RevokeOutcome::Done)
        })
        .await
    }

    /// The rules for tokens that have no row.
    async fn rules(&self, mut keys: Vec<RuleKey>) -> Result<Rules, StoreError> {
        self.read(move |rows| {
            keys.sort();
            keys.dedup();
            let rules: Result<_> =
                keys.iter().filter_map(|key| rows.rule(key).transpose()).collect();
            Ok(Rules { rules: rules?, newest_bound: rows.newest_bound()? })
        })
        .await
    }

    /// A page over an index, without grants that a rule denies, even if no sweep has reached them.
    async fn list(
        &self,
        of: Selector,
        page: PageRequest,
        now: UnixTime,
    ) -> Result<Listing, StoreError> {
        self.read(move |rows| {
            let found = rows.owned(&of, page.after, page.limit)?;
            let next =
                found.last().map(|last| last.id).filter(|_| found.len() >= page.limit as usize);
            let mut grants = Vec::new();
            for grant in found.into_iter().filter(|grant| of.selects(grant) && grant.is_live(now)) {
                if !rows.denies(&grant)? {
                    grants.push(Arc::new(grant));
                }
            }
            Ok(Listing { grants, unreadable: Vec::new(), next })
        })
        .await
    }

    /// Transactions commit one after the other, so positions become visible in order.
    async fn revocations(&self, after: Cursor, limit: u32) -> Result<RevocationBatch, StoreError> {
        self.read(move |rows| {
            let (limit, mut log) = (limit.max(1) as usize, Vec::new());
            let incarnation = rows.value(INCARNATION)?;
            let first = match CursorPlace::of(&after) {
                Some(place) => place.position.to_be_bytes(),
                None if after.is_start() => [0; 8],
                None => return Ok(RevocationBatch::Gap),
            };
            for (key, row) in rows.scan(ENTRY, &[], &first, limit + 2)? {
                let entry = LogEntry::from_body(&row.bytes)?;
                let position = u64::from_be_bytes(array(&key)?);
                let place =
                    CursorPlace { incarnation, position, entry: entry.id, revocation: None };
                log.push((Cursor::after(&place), entry));
            }
            // The entry that the cursor names comes first, if it is still there.
            if !after.is_start() && (log.is_empty() || log.remove(0).0 != after) {
                return Ok(RevocationBatch::Gap);
            }
            let more = log.len() > limit;
            log.truncate(limit);
            let next = log.last().map_or(after, |(cursor, _)| cursor.clone());
            let entries = log.into_iter().map(|(_, entry)| entry).collect();
            let newest_bound = rows.newest_bound()?;
            Ok(RevocationBatch::Entries { entries, next, more, newest_bound })
        })
        .await
    }

    /// A store that is notified when its log grows returns a stream; this one is polled.
    fn wakeups(&self) -> LogNotifications {
        LogNotifications::Poll(std::time::Duration::from_millis(50))
    }

    /// On the path of a revocation: a reader that sees it has seen everything before it.
    async fn heartbeat(&self, now: UnixTime, until: UnixTime) -> Result<(), StoreError> {
        self.write(move |rows| {
            rows.raise_bound(now)?;
            rows.append(LogEvent::Heartbeat {}, now, until)
        })
        .await
    }

    /// Deletes a bounded number of rows over the index on expiry, in the transaction that found them.
    async fn maintain(&self, task: Housekeeping) -> Result<MaintenanceReport, StoreError> {
        self.write(move |rows| {
            let (limit, mut done) = (task.limit.max(1) as usize, MaintenanceReport::default());
            // The log's newest entry stays even if it has ended, and does not count as work.
            let newest = [&[ENTRY][..], &rows.newest_position()?.to_be_bytes()].concat();
            let mut ended = rows.scan(ENDS, &[], &[], limit + 2)?;
            ended.retain(|(_, row)| row.end < task.before.as_millis() && row.bytes != newest);
            done.more = ended.len() > limit;
            for (_, row) in ended.into_iter().take(limit) {
                let [kind, key @ ..] = &row.bytes[..] else { continue };
                match *kind {
                    GRANT => done.grants += u64::from(rows.remove_grant(array(key)?)?),
                    TOKEN => {
                        rows.remove(TOKEN, key)?;
                        let grant = rows.grant(GrantId::from_bytes(array(&key[..16])?))?;
                        let lives = grant.is_some_and(|grant| grant.row_expires_at >= task.before);
                        done.tokens += u64::from(lives);
                    }
                    _ => done.revocations += u64::from(rows.remove(*kind, key)?),
                }
            }
            Ok(done)
        })
        .await
    }
}

/// By which an issuer recognizes the file as its store.
#[async_trait]
impl CheckValues for RedbStore {
    async fn check_values(&self) -> Result<Vec<CheckValue>, StoreError> {
        self.read(|rows| {
            let values = rows.scan(CHECK_VALUE, &[], &[], usize::MAX)?;
            let value = |(name, row): (Vec<u8>, Row)| {
                Ok(CheckValue { name: String::from_utf8(name)?, value: row.bytes })
            };
            values.into_iter().map(value).collect()
        })
        .await
    }

    async fn set_check_value(
        &self,
        name: &str,
        expected: Option<&[u8]>,
        value: Option<&[u8]>,
    ) -> Result<bool, StoreError> {
        let name = name.as_bytes().to_vec();
        let (expected, value) = (expected.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec));
        self.write(move |rows| {
            let stored = rows.get(CHECK_VALUE, &name)?.map(|row| row.bytes);
            if stored != value && stored != expected {
                return Ok(false);
            }
            match value {
                Some(value) => rows.put(CHECK_VALUE, &name, NEVER, &value)?,
                None => drop(rows.remove(CHECK_VALUE, &name)?),
            }
            Ok(true)
        })
        .await
    }
}

#[async_trait]
impl KeyStore for RedbStore {
    async fn load(&self) -> Result<Vec<KeyRecord>, StoreError> {
        self.read(|rows| {
            let keys = rows.scan(SIGNING_KEY, &[], &[], usize::MAX)?;
            keys.iter().map(|(_, row)| Ok(KeyRecord::from_body(&row.bytes)?)).collect()
        })
        .await
    }

    /// Accepts only a generation above every earlier one.
    async fn insert(&self, record: KeyRecord) -> Result<KeyInserted, StoreError> {
        self.write(move |rows| {
            if record.generation <= u64::from_be_bytes(rows.value(HIGHEST_GENERATION)?) {
                return Ok(KeyInserted::Taken);
            }
            let generation = record.generation.to_be_bytes();
            rows.put(HIGHEST_GENERATION, &[], NEVER, &generation)?;
            rows.put(SIGNING_KEY, &generation, NEVER, &record.to_body())?;
            Ok(KeyInserted::Inserted)
        })
        .await
    }

    /// Writes only over the version that the caller has seen.
    async fn update(&self, record: KeyRecord, expected: u64) -> Result<KeyUpdated, StoreError> {
        if record.version == expected {
            return Err(StoreError::Misuse("the new record keeps its version"));
        }
        let body = record.to_body();
        self.write(move |rows| rows.replace(record.generation, expected, Some(&body))).await
    }

    async fn delete(&self, generation: u64, expected: u64) -> Result<KeyUpdated, StoreError> {
        self.write(move |rows| rows.replace(generation, expected, None)).await
    }
}

/// The writes of the methods above.
impl Writing<'_> {
    /// For `fresh_tokens`: the token that has the digest of this one.
    fn stored(&self) -> impl FnMut(&TokenRecord) -> Result<Option<TokenRecord>, StoreError> {
        |token| self.token(token.grant, &token.digest).map_err(failure)
    }

    /// Whether the grant is there. The first revocation counts.
    fn revoke_grant(&mut self, id: GrantId, at: UnixTime) -> Result<bool> {
        let Some(mut grant) = self.grant(id)? else { return Ok(false) };
        grant.revoked_at.get_or_insert(at);
        self.put_grant(&grant)?;
        Ok(true)
    }

    /// Newer than every earlier bound, whatever the clock says.
    fn allot(&mut self, at: UnixTime) -> Result<Epoch> {
        let bound = self.newest_bound()?.next_bound(at);
        self.put(NEWEST_BOUND, &[], NEVER, &bound.get().to_be_bytes())?;
        Ok(bound)
    }

    /// Readers may know bounds that this file has forgotten.
    fn raise_bound(&mut self, now: UnixTime) -> Result<()> {
        let bound = self.newest_bound()?.max(Epoch::new(now.as_millis()));
        self.put(NEWEST_BOUND, &[], NEVER, &bound.get().to_be_bytes())
    }

    fn append(&mut self, event: LogEvent, at: UnixTime, until: UnixTime) -> Result<()> {
        let entry = LogEntry { id: EntryId::random(&Random::system())?, event, at, until };
        let position = self.newest_position()? + 1;
        self.put(ENTRY, &position.to_be_bytes(), until.as_millis(), &entry.to_body())
    }

    /// A second rule on one key keeps the later bound and the later end.
    fn put_rule(&mut self, mut rule: Rule) -> Result<()> {
        if let Some(known) = self.rule(&rule.key)? {
            rule.merge(&known);
        }
        let bound = rule.bound.map_or_else(Vec::new, |bound| bound.get().to_be_bytes().to_vec());
        self.put(RULE, &rule.key.to_bytes(), rule.until.as_millis(), &bound)
    }

    /// Replaces the version of a signing key that the caller has seen, or removes it.
    fn replace(&mut self, generation: u64, expected: u64, by: Option<&[u8]>) -> Result<KeyUpdated> {
        let key = generation.to_be_bytes();
        let known =
            self.get(SIGNING_KEY, &key)?.map(|row| KeyRecord::from_body(&row.bytes)).transpose()?;
        match by {
            _ if known.is_none_or(|known| known.version != expected) => {
                return Ok(KeyUpdated::Stale);
            }
            Some(body) => self.put(SIGNING_KEY, &key, NEVER, body)?,
            None => drop(self.remove(SIGNING_KEY, &key)?),
        }
        Ok(KeyUpdated::Updated)
    }
}

/// A fresh store for each check of the kit.
#[derive(Debug)]
struct Fresh(tempfile::TempDir);

impl Fresh {
    async fn store(&self) -> Arc<RedbStore> {
        let folder = tempfile::TempDir::new_in(self.0.path()).expect("a folder").keep();
        Arc::new(RedbStore::open(folder.join("tokens.redb")).await.expect("a store"))
    }
}

#[async_trait]
impl Factory for Fresh {
    async fn tokens(&self) -> Arc<dyn TokenStore> {
        self.store().await
    }

    async fn keys(&self) -> Arc<dyn KeyStore> {
        self.store().await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let report = run_all(Fresh(tempfile::tempdir()?)).await;
    println!("{report}");
    report.assert_ok();
    println!("custom store: ok");
    Ok(())
}
