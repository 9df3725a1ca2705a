//! The grants by id, with everything that must change together with a grant.

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, RwLock};

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, Lookup, PageRequest, Selector, StoreError, tokens_of,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Subject, TokenDigest};

use crate::grant_entry::{Grant, GrantEntry};
use crate::index::Index;
use crate::locks::{read, write};

/// One shard for each value of the byte that selects it.
const SHARDS: usize = 256;

/// The most grants in one page of a sweep.
const SWEEP_BATCH: usize = 1_000;

/// The most rows that are deleted before readers get the shard again.
const REAP_BATCH: u64 = 64;

/// Every grant, and the indexes over them.
pub(crate) struct Grants {
    shards: Box<[Shard]>,
    subjects: Index<Subject>,
    clients: Index<ClientId>,
}

/// What [`Grants::insert`] found or did.
pub(crate) enum Inserted {
    /// The grant is stored, now or since an earlier try.
    Present,
    /// Another grant has the id.
    Exists,
    /// The grant is revoked, or there is a tombstone.
    Revoked,
}

/// How many rows [`Grants::reap`] deleted.
#[derive(Default)]
pub(crate) struct Reaped {
    pub(crate) grants: u64,
    pub(crate) tokens: u64,
    pub(crate) tombstones: u64,
}

impl Reaped {
    fn rows(&self) -> u64 {
        self.grants + self.tokens + self.tombstones
    }
}

impl Grants {
    pub(crate) fn new() -> Self {
        Self {
            shards: (0..SHARDS).map(|_| Shard::default()).collect(),
            subjects: Index::new(),
            clients: Index::new(),
        }
    }

    /// Inserts the grant with its tokens, together with its index entries.
    pub(crate) fn insert(
        &self,
        record: &Arc<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<Inserted, StoreError> {
        tokens_of(record.id, &tokens)?;
        let mut shard = write(self.shard(record.id));
        match shard.slots.get(&record.id) {
            Some(GrantEntry::Tombstone { .. }) => return Ok(Inserted::Revoked),
            Some(GrantEntry::Grant(own)) => {
                return Ok(if !own.holds(record, tokens) {
                    Inserted::Exists
                } else if own.record.revoked_at.is_some() {
                    Inserted::Revoked
                } else {
                    Inserted::Present
                });
            }
            None => {}
        }
        let grant = Grant::new(Arc::clone(record), tokens)?;
        shard.put(record.id, GrantEntry::Grant(grant));
        // This is still under the lock of the shard, so that every index entry leads to its grant.
        self.subjects.insert(&record.subject, record.id);
        self.clients.insert(&record.client, record.id);
        Ok(Inserted::Present)
    }

    pub(crate) fn find(&self, id: GrantId, token: Option<TokenDigest>) -> Lookup {
        match read(self.shard(id)).slots.get(&id) {
            None => Lookup::Absent,
            Some(GrantEntry::Tombstone { .. }) => Lookup::Tombstone,
            Some(GrantEntry::Grant(grant)) => Lookup::Found(grant.found(token)),
        }
    }

    pub(crate) fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        tokens_of(step.grant, &step.tokens)?;
        let mut shard = write(self.shard(step.grant));
        let grant = match shard.slots.get(&step.grant) {
            None => return Ok(AdvanceOutcome::Unknown),
            Some(GrantEntry::Tombstone { .. }) => return Ok(AdvanceOutcome::Dead),
            Some(GrantEntry::Grant(grant)) => grant,
        };
        if let Some(refused) = step.judge(&grant.record)? {
            return Ok(refused);
        }
        let fresh = grant.fresh(step.tokens)?;
        // Nothing fails from here on.
        shard.change(step.grant, |grant| grant.apply(step.change, fresh));
        Ok(AdvanceOutcome::Advanced)
    }

    /// Revokes a grant, or leaves a tombstone if there is none. `log` runs under the same lock, so that
    /// nobody sees the revocation without its log entry or the entry without the revocation.
    pub(crate) fn revoke<T>(
        &self,
        id: GrantId,
        at: UnixTime,
        until: UnixTime,
        log: impl FnOnce() -> T,
    ) {
        let mut shard = write(self.shard(id));
        match shard.slots.get(&id) {
            Some(GrantEntry::Grant(_)) => shard.change(id, |grant| grant.revoke(at)),
            Some(GrantEntry::Tombstone { until: known }) if *known >= until => {}
            _ => shard.put(id, GrantEntry::Tombstone { until }),
        }
        log();
    }

    /// Revokes a token. `log` runs as in [`Grants::revoke`].
    pub(crate) fn revoke_token<T>(
        &self,
        id: GrantId,
        digest: &TokenDigest,
        at: UnixTime,
        log: impl FnOnce() -> T,
    ) {
        let mut shard = write(self.shard(id));
        shard.change(id, |grant| grant.revoke_token(digest, at));
        log();
    }

    /// Revokes a grant if it exists and is `covered`.
    pub(crate) fn flag(
        &self,
        id: GrantId,
        at: UnixTime,
        covered: impl FnOnce(&GrantRecord) -> bool,
    ) {
        write(self.shard(id)).change(id, |grant| {
            if covered(&grant.record) {
                grant.revoke(at);
            }
        });
    }

    /// Revokes the selected grants whose epoch ≤ `bound`. The rule is already in force, so that it bars
    /// grants which are created during the sweep.
    pub(crate) fn sweep(&self, of: &Selector, bound: Epoch, at: UnixTime) {
        let mut after = None;
        loop {
            let (ids, more) = self.ids(of, after, SWEEP_BATCH);
            for id in &ids {
                self.flag(*id, at, |record| record.epoch <= bound && of.selects(record));
            }
            after = ids.last().copied();
            if !more {
                return;
            }
        }
    }

    /// One page of the selected grants, ordered by id, live or not; and where the next page starts.
    pub(crate) fn page(
        &self,
        of: &Selector,
        page: PageRequest,
    ) -> (Vec<Arc<GrantRecord>>, Option<GrantId>) {
        let (ids, more) = self.ids(of, page.after, page.limit.max(1) as usize);
        let next = if more { ids.last().copied() } else { None };
        let grants = ids
            .iter()
            .filter_map(|id| match self.find(*id, None) {
                Lookup::Found(found) => Some(found.grant),
                _ => None,
            })
            .filter(|record| of.selects(record))
            .collect();
        (grants, next)
    }

    /// Deletes about `limit` rows that ended before `before`.
    pub(crate) fn reap(&self, before: UnixTime, limit: u64) -> Reaped {
        let mut reaped = Reaped::default();
        for shard in &self.shards {
            while reaped.rows() < limit && read(&shard.0).is_due(before) {
                let batch = limit.min(reaped.rows() + REAP_BATCH);
                self.reap_batch(&mut write(&shard.0), before, batch, &mut reaped);
            }
        }
        reaped
    }

    /// Whether [`Grants::reap`] would delete something.
    pub(crate) fn is_due(&self, before: UnixTime) -> bool {
        self.shards.iter().any(|shard| read(&shard.0).is_due(before))
    }

    fn reap_batch(&self, shard: &mut Slots, before: UnixTime, limit: u64, reaped: &mut Reaped) {
        while reaped.rows() < limit && shard.is_due(before) {
            let Some((_, id)) = shard.due.pop_first() else {
                return;
            };
            let Entry::Occupied(mut entry) = shard.slots.entry(id) else {
                continue;
            };
            match entry.get_mut() {
                GrantEntry::Tombstone { .. } => {
                    entry.remove();
                    reaped.tombstones += 1;
                }
                GrantEntry::Grant(grant) => {
                    let tokens = grant.reap_tokens(before);
                    if grant.is_over(before) {
                        self.subjects.remove(&grant.record.subject, id);
                        self.clients.remove(&grant.record.client, id);
                        entry.remove();
                        reaped.grants += 1;
                    } else {
                        reaped.tokens += tokens;
                        shard.due.insert((entry.get().due(), id));
                    }
                }
            }
        }
    }

    fn ids(&self, of: &Selector, after: Option<GrantId>, limit: usize) -> (Vec<GrantId>, bool) {
        match of {
            Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
                self.subjects.page(subject, after, limit)
            }
            Selector::Client(client) => self.clients.page(client, after, limit),
        }
    }

    fn shard(&self, id: GrantId) -> &RwLock<Slots> {
        // The last byte selects the shard, since the map inside hashes by the first eight.
        &self.shards[usize::from(id.as_bytes()[15])].0
    }
}

/// A shard. It has its own cache lines, so that threads in different shards do not slow each other down.
#[derive(Default)]
#[repr(align(128))]
struct Shard(RwLock<Slots>);

#[derive(Default)]
struct Slots {
    slots: HashMap<GrantId, GrantEntry, BuildHasherDefault<IdHasher>>,
    /// The index on expiry: one entry for each slot, at [`GrantEntry::due`].
    due: BTreeSet<(UnixTime, GrantId)>,
}

impl Slots {
    /// Inserts or replaces a slot.
    fn put(&mut self, id: GrantId, slot: GrantEntry) {
        let due = slot.due();
        if let Some(old) = self.slots.insert(id, slot) {
            self.due.remove(&(old.due(), id));
        }
        self.due.insert((due, id));
    }

    /// Changes the grant, if it exists, and moves it in the index on expiry.
    fn change(&mut self, id: GrantId, change: impl FnOnce(&mut Grant)) {
        let Some(slot) = self.slots.get_mut(&id) else {
            return;
        };
        let before = slot.due();
        if let GrantEntry::Grant(grant) = slot {
            change(grant);
        }
        let after = slot.due();
        if after != before {
            self.due.remove(&(before, id));
            self.due.insert((after, id));
        }
    }

    fn is_due(&self, before: UnixTime) -> bool {
        self.due.first().is_some_and(|(due, _)| *due < before)
    }
}

/// Uses the first eight bytes of a grant id as its hash. Ids are random or a prefix of a SHA-256 digest, and
/// only `create` and `revoke` insert them. So nobody can choose ids that collide.
#[derive(Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        // An array writes its length first. The id then replaces it.
        if let Some(head) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*head);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
