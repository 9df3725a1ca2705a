//! One table for everything: each row has a kind, a key, the time at which it ends, and its bytes.

use std::error::Error;

use cloakroom::core::record::{GrantRecord, TokenRecord};
use cloakroom::core::revocation::{Epoch, Rule, RuleKey};
use cloakroom::core::store::{Selector, StoreError};
use cloakroom::core::time::UnixTime;
use cloakroom::core::{GrantId, TokenDigest};
use redb::{ReadableTable, StorageError, Table, TableDefinition};

/// An error of the contract, or of the driver; [`failure`] converts them.
pub(crate) type Result<T, E = Box<dyn Error + Send + Sync>> = std::result::Result<T, E>;

pub(crate) type Key = (u8, &'static [u8]);
pub(crate) type Value = (u64, &'static [u8]);
pub(crate) const ROWS: TableDefinition<'static, Key, Value> = TableDefinition::new("rows");

// The kinds of rows. Tokens sort before the grant that ends with them.
pub(crate) const ENTRY: u8 = 0;
pub(crate) const RULE: u8 = 1;
pub(crate) const TOMBSTONE: u8 = 2;
/// Keyed by grant, then digest: a digest of another grant is not found.
pub(crate) const TOKEN: u8 = 3;
pub(crate) const GRANT: u8 = 4;
pub(crate) const SIGNING_KEY: u8 = 5;
// One row each, without a key.
pub(crate) const INCARNATION: u8 = 6;
pub(crate) const NEWEST_BOUND: u8 = 7;
pub(crate) const HIGHEST_GENERATION: u8 = 8;
/// The index by subject and by client: the owner, then the grant.
pub(crate) const OWNED: u8 = 9;
/// The index on expiry: the end, then the row's kind and key.
pub(crate) const ENDS: u8 = 10;
/// By name.
pub(crate) const CHECK_VALUE: u8 = 11;

/// The end of rows that do not end.
pub(crate) const NEVER: u64 = u64::MAX;

/// The table, in a transaction.
pub(crate) struct Rows<T>(pub(crate) T);

pub(crate) type Writing<'t> = Rows<Table<'t, Key, Value>>;

pub(crate) struct Row {
    pub(crate) end: u64,
    pub(crate) bytes: Vec<u8>,
}

impl<T: ReadableTable<Key, Value>> Rows<T> {
    pub(crate) fn get(&self, kind: u8, key: &[u8]) -> Result<Option<Row>> {
        let found = self.0.get((kind, key))?;
        Ok(found.map(|row| Row { end: row.value().0, bytes: row.value().1.into() }))
    }

    /// The rows whose keys begin with `prefix`, from `first` on, in their order.
    pub(crate) fn scan(
        &self,
        kind: u8,
        prefix: &[u8],
        first: &[u8],
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Row)>> {
        let (first, mut rows) = ([prefix, first].concat(), Vec::new());
        for row in self.0.range((kind, &first[..])..(kind + 1, &[]))?.take(limit) {
            let (key, value) = row?;
            let ((_, key), (end, bytes)) = (key.value(), value.value());
            if !key.starts_with(prefix) {
                break;
            }
            rows.push((key.into(), Row { end, bytes: bytes.into() }));
        }
        Ok(rows)
    }

    pub(crate) fn grant(&self, id: GrantId) -> Result<Option<GrantRecord>> {
        let row = self.get(GRANT, id.as_bytes())?;
        Ok(row.map(|row| GrantRecord::from_bytes(id, &row.bytes)).transpose()?)
    }

    pub(crate) fn token(&self, grant: GrantId, of: &TokenDigest) -> Result<Option<TokenRecord>> {
        let row = self.get(TOKEN, &[&grant.as_bytes()[..], of.as_bytes()].concat())?;
        Ok(row.map(|row| TokenRecord::from_bytes(grant, of, &row.bytes)).transpose()?)
    }

    pub(crate) fn rule(&self, key: &RuleKey) -> Result<Option<Rule>> {
        let Some(row) = self.get(RULE, &key.to_bytes())? else { return Ok(None) };
        let bound = (!row.bytes.is_empty()).then(|| array(&row.bytes).map(u64::from_be_bytes));
        let (bound, until) = (bound.transpose()?, UnixTime::from_millis(row.end));
        Ok(Some(Rule { key: key.clone(), bound: bound.map(Epoch::new), until }))
    }

    /// Whether a rule of its subject, its client or the pair denies the grant.
    pub(crate) fn denies(&self, grant: &GrantRecord) -> Result<bool> {
        let rules: Result<Vec<_>> = grant.rule_keys().iter().map(|key| self.rule(key)).collect();
        Ok(rules?.iter().flatten().any(|rule| rule.denies(grant.epoch)))
    }

    /// A page of an owner's grants, ordered by id; of a pair, those of its subject.
    pub(crate) fn owned(
        &self,
        of: &Selector,
        after: Option<GrantId>,
        limit: u32,
    ) -> Result<Vec<GrantRecord>> {
        let owner = match of {
            Selector::Client(client) => RuleKey::Client(client.clone()),
            Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
                RuleKey::Subject(subject.clone())
            }
        };
        // The next key after an id is that id followed by a zero.
        let first = after.map_or(Vec::new(), |id| [&id.as_bytes()[..], &[0]].concat());
        let rows = self.scan(OWNED, &owner.to_bytes(), &first, limit.max(1) as usize)?;
        let grants =
            rows.iter().map(|(_, row)| self.grant(GrantId::from_bytes(array(&row.bytes)?)));
        grants.filter_map(Result::transpose).collect()
    }

    /// The position of the log's newest entry. That one is never deleted, so that no position is
    /// given twice.
    pub(crate) fn newest_position(&self) -> Result<u64> {
        match self.0.range((ENTRY, &[][..])..(ENTRY + 1, &[]))?.next_back() {
            Some(row) => Ok(u64::from_be_bytes(array(row?.0.value().1)?)),
            None => Ok(0),
        }
    }

    /// The bytes of a row without a key; zeros if there is none.
    pub(crate) fn value<const N: usize>(&self, kind: u8) -> Result<[u8; N]> {
        self.get(kind, &[])?.map_or(Ok([0; N]), |row| array(&row.bytes))
    }

    pub(crate) fn newest_bound(&self) -> Result<Epoch> {
        Ok(Epoch::new(u64::from_be_bytes(self.value(NEWEST_BOUND)?)))
    }
}

impl Writing<'_> {
    /// Writes a row, in the place of one that is there, and its end into the index.
    pub(crate) fn put(&mut self, kind: u8, key: &[u8], end: u64, bytes: &[u8]) -> Result<()> {
        self.remove(kind, key)?;
        self.0.insert((kind, key), (end, bytes))?;
        let row = [&end.to_be_bytes()[..], &[kind], key].concat();
        self.0.insert((ENDS, &row[..]), (end, &row[8..]))?;
        Ok(())
    }

    /// Whether the row was there.
    pub(crate) fn remove(&mut self, kind: u8, key: &[u8]) -> Result<bool> {
        let end = self.0.remove((kind, key))?.map(|row| row.value().0);
        let Some(end) = end else { return Ok(false) };
        let row = [&end.to_be_bytes()[..], &[kind], key].concat();
        self.0.remove((ENDS, &row[..]))?;
        Ok(true)
    }

    pub(crate) fn put_grant(&mut self, grant: &GrantRecord) -> Result<()> {
        let id = grant.id.as_bytes();
        for owner in owners(grant) {
            self.put(OWNED, &owner, NEVER, id)?;
        }
        self.put(GRANT, id, grant.row_expires_at.as_millis(), &grant.to_bytes())
    }

    pub(crate) fn put_tokens(&mut self, tokens: &[TokenRecord]) -> Result<()> {
        for token in tokens {
            let key = [&token.grant.as_bytes()[..], token.digest.as_bytes()].concat();
            self.put(TOKEN, &key, token.expires_at.as_millis(), &token.to_bytes())?;
        }
        Ok(())
    }

    /// Removes a grant that has ended, and returns whether it is gone. If it still has tokens, it is
    /// looked at again when one of them ends.
    pub(crate) fn remove_grant(&mut self, id: [u8; 16]) -> Result<bool> {
        let id = GrantId::from_bytes(id);
        let Some(grant) = self.grant(id)? else { return Ok(false) };
        if let Some((_, token)) = self.scan(TOKEN, id.as_bytes(), &[], 1)?.first() {
            self.put(GRANT, id.as_bytes(), token.end, &grant.to_bytes())?;
            return Ok(false);
        }
        for owner in owners(&grant) {
            self.remove(OWNED, &owner)?;
        }
        self.remove(GRANT, id.as_bytes())
    }
}

/// The key of the rule that would revoke them all: it names the owner, and marks its end.
pub(crate) fn owners(grant: &GrantRecord) -> [Vec<u8>; 2] {
    [RuleKey::Subject(grant.subject.clone()), RuleKey::Client(grant.client.clone())]
        .map(|owner| [&owner.to_bytes()[..], grant.id.as_bytes()].concat())
}

pub(crate) fn array<const N: usize>(bytes: &[u8]) -> Result<[u8; N]> {
    Ok(bytes.try_into().map_err(|error| StoreError::corrupt("a row", error))?)
}

/// Every error of the driver is an outage, except damage. None may look like "absent".
pub(crate) fn failure(error: Box<dyn Error + Send + Sync>) -> StoreError {
    error.downcast::<StoreError>().map_or_else(
        |error| match (error.downcast_ref(), error.downcast_ref()) {
            (Some(StorageError::Corrupted(_)), _)
            | (_, Some(redb::TableError::Storage(StorageError::Corrupted(_)))) => {
                StoreError::corrupt("a database", error)
            }
            _ => StoreError::unavailable("using the database", error),
        },
        |own| *own,
    )
}
