//! The grants by id, with everything that must change together with a grant.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::{Arc, RwLock};

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::Epoch;
use cloakroom_core::store::{
    Advance, AdvanceOutcome, Lookup, PageRequest, Selector, StoreError, tokens_of,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Subject, TokenDigest};

use crate::grant_entry::{Grant, GrantEntry};
use crate::locks::{read, write};
use crate::shard::{Reaped, Shard, is_own};
use crate::subject_index::SubjectIndex;

/// One shard for each value of the first byte of an id. So a walk over the shards is a walk in the order of
/// ids, and a page of a client reads no more than it needs.
const SHARDS: usize = 256;

/// The most grants in one page of a sweep.
const SWEEP_BATCH: usize = 1_000;

/// The most entries that are looked at before readers get the shard again.
const REAP_BATCH: u64 = 64;

/// Every grant, and the indexes over them.
pub(crate) struct Grants {
    shards: Box<[Locked]>,
    subjects: SubjectIndex,
}

/// A shard. It has its own cache lines, so that threads in different shards do not slow each other down.
#[repr(align(128))]
struct Locked(RwLock<Shard>);

/// What [`Grants::insert`] found or did.
pub(crate) enum Inserted {
    /// The grant is stored, now or since an earlier try.
    Present,
    /// Another grant has the id.
    Exists,
    /// The grant is revoked, or there is a tombstone.
    Revoked,
}

impl Grants {
    pub(crate) fn new() -> Self {
        let random = RandomState::new();
        let seed = [0, 1].map(|word| random.hash_one(word));
        let shard = |_| Locked(RwLock::new(Shard::new(seed)));
        Self { shards: (0..SHARDS).map(shard).collect(), subjects: SubjectIndex::new() }
    }

    /// Inserts the grant with its tokens, together with its index entries.
    pub(crate) fn insert(
        &self,
        record: &Arc<GrantRecord>,
        tokens: Vec<TokenRecord>,
    ) -> Result<Inserted, StoreError> {
        tokens_of(record.id, &tokens)?;
        let mut shard = write(self.shard(record.id));
        match shard.get(record.id) {
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
        shard.add(record.id, GrantEntry::Grant(grant));
        // This is still under the lock of the shard, so that every index entry leads to its grant.
        if !is_own(record) {
            self.subjects.insert(&record.subject, record.id);
        }
        Ok(Inserted::Present)
    }

    pub(crate) fn find(&self, id: GrantId, token: Option<TokenDigest>) -> Lookup {
        match read(self.shard(id)).get(id) {
            None => Lookup::Absent,
            Some(GrantEntry::Tombstone { .. }) => Lookup::Tombstone,
            Some(GrantEntry::Grant(grant)) => Lookup::Found(grant.found(token)),
        }
    }

    pub(crate) fn advance(&self, step: Advance) -> Result<AdvanceOutcome, StoreError> {
        tokens_of(step.grant, &step.tokens)?;
        let mut shard = write(self.shard(step.grant));
        let grant = match shard.get(step.grant) {
            None => return Ok(AdvanceOutcome::Unknown),
            Some(GrantEntry::Tombstone { .. }) => return Ok(AdvanceOutcome::Dead),
            Some(GrantEntry::Grant(grant)) => grant,
        };
        if let Some(refused) = step.judge(&grant.record)? {
            return Ok(refused);
        }
        let fresh = grant.fresh(step.tokens)?;
        // Nothing fails from here on.
        shard.change_grant(step.grant, |grant| grant.apply(step.change, fresh));
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
        match shard.get(id) {
            None => shard.add(id, GrantEntry::Tombstone { until }),
            Some(_) => shard.change(id, |entry| match entry {
                GrantEntry::Grant(grant) => grant.revoke(at),
                GrantEntry::Tombstone { until: known } => *known = until.max(*known),
            }),
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
        shard.change_grant(id, |grant| grant.revoke_token(digest, at));
        log();
    }

    /// Revokes a grant if it exists and is `covered`.
    pub(crate) fn flag(
        &self,
        id: GrantId,
        at: UnixTime,
        covered: impl FnOnce(&GrantRecord) -> bool,
    ) {
        write(self.shard(id)).change_grant(id, |grant| {
            if covered(&grant.record) {
                grant.revoke(at);
            }
        });
    }

    /// Revokes the selected grants whose epoch ≤ `bound`. The rule is already in force, so that it bars
    /// grants which are created during the sweep.
    pub(crate) fn sweep(&self, of: &Selector, bound: Epoch, at: UnixTime) {
        let flag = |id| self.flag(id, at, |record| record.epoch <= bound && of.selects(record));
        let Place { subject, client } = Place::of(of);
        if let Some(OfClient { client, only_own }) = client {
            for Locked(shard) in &self.shards {
                // A copy, since grants are changed meanwhile.
                let ids: Vec<GrantId> = read(shard).of_client(client, only_own).collect();
                ids.into_iter().for_each(flag);
            }
        }
        let (mut after, mut more) = (None, subject.is_some());
        while let Some(subject) = subject.filter(|_| more) {
            let ids;
            (ids, more) = self.subjects.page(subject, after, SWEEP_BATCH);
            after = ids.last().copied();
            ids.into_iter().for_each(flag);
        }
    }

    /// One page of the selected grants, ordered by id, live or not; and where the next page starts.
    pub(crate) fn page(
        &self,
        of: &Selector,
        page: PageRequest,
    ) -> (Vec<Arc<GrantRecord>>, Option<GrantId>) {
        let ids = self.ids(of, page.after, page.limit.max(1) as usize);
        let (mut grants, next) = self.page_of(&ids);
        grants.retain(|record| of.selects(record));
        (grants, next)
    }

    /// One page of all grants, ordered by id, live or not; and where the next page starts.
    pub(crate) fn scan(&self, page: PageRequest) -> (Vec<Arc<GrantRecord>>, Option<GrantId>) {
        self.page_of(&self.first_ids(page.after, page.limit.max(1) as usize, Shard::ids))
    }

    /// The grants of these ids; and where the next page starts, if there are more.
    fn page_of(
        &self,
        (ids, more): &(Vec<GrantId>, bool),
    ) -> (Vec<Arc<GrantRecord>>, Option<GrantId>) {
        let grant = |id: &GrantId| match self.find(*id, None) {
            Lookup::Found(found) => Some(found.grant),
            _ => None,
        };
        let next = if *more { ids.last().copied() } else { None };
        (ids.iter().filter_map(grant).collect(), next)
    }

    /// Deletes about `limit` rows that ended before `before`.
    pub(crate) fn reap(&self, before: UnixTime, limit: u64) -> Reaped {
        let mut reaped = Reaped::default();
        for Locked(shard) in &self.shards {
            while reaped.rows() < limit && read(shard).is_due(before) {
                let most = REAP_BATCH.min(limit - reaped.rows());
                write(shard).reap(before, most, &mut reaped, |record| {
                    if !is_own(record) {
                        self.subjects.remove(&record.subject, record.id);
                    }
                });
            }
        }
        reaped
    }

    /// Whether [`Grants::reap`] would delete something.
    pub(crate) fn is_due(&self, before: UnixTime) -> bool {
        self.shards.iter().any(|Locked(shard)| read(shard).is_due(before))
    }

    /// At most `limit` ids after `after` in their order, and whether there are more. All selected grants are
    /// among them, and perhaps others.
    fn ids(&self, of: &Selector, after: Option<GrantId>, limit: usize) -> (Vec<GrantId>, bool) {
        let Place { subject, client } = Place::of(of);
        let page = |subject| self.subjects.page(subject, after, limit);
        let (mut ids, mut more) = subject.map(page).unwrap_or_default();
        if let Some(client) = client {
            let (own, more_own) = self.ids_of_client(client, after, limit);
            ids.extend(own);
            ids.sort_unstable();
            more |= more_own || ids.len() > limit;
            ids.truncate(limit);
        }
        (ids, more)
    }

    fn ids_of_client(
        &self,
        OfClient { client, only_own }: OfClient<'_>,
        after: Option<GrantId>,
        limit: usize,
    ) -> (Vec<GrantId>, bool) {
        self.first_ids(after, limit, |shard| shard.of_client(client, only_own).collect())
    }

    /// At most `limit` ids after `after` in their order, of those that `ids_of` takes from each shard, and
    /// whether there are more.
    fn first_ids(
        &self,
        after: Option<GrantId>,
        limit: usize,
        ids_of: impl Fn(&Shard) -> Vec<GrantId>,
    ) -> (Vec<GrantId>, bool) {
        let mut ids = Vec::new();
        let first = after.map_or(0, shard_of);
        for Locked(shard) in &self.shards[first..] {
            let mut own = ids_of(&read(shard));
            own.retain(|id| Some(*id) > after);
            // One more than asked for tells whether this is the last page.
            let room = limit + 1 - ids.len();
            if own.len() > room {
                own.select_nth_unstable(room);
                own.truncate(room);
            }
            own.sort_unstable();
            ids.append(&mut own);
            if ids.len() > limit {
                ids.truncate(limit);
                return (ids, true);
            }
        }
        (ids, false)
    }

    fn shard(&self, id: GrantId) -> &RwLock<Shard> {
        &self.shards[shard_of(id)].0
    }
}

fn shard_of(id: GrantId) -> usize {
    usize::from(id.as_bytes()[0])
}

/// Where the selected grants stand. No grant stands in both.
#[derive(Clone, Copy)]
struct Place<'a> {
    subject: Option<&'a Subject>,
    client: Option<OfClient<'a>>,
}

/// The list of a client, or only the grants in which it acts for itself.
#[derive(Clone, Copy)]
struct OfClient<'a> {
    client: &'a ClientId,
    only_own: bool,
}

impl<'a> Place<'a> {
    fn of(selector: &'a Selector) -> Self {
        match selector {
            Selector::Client(client) => {
                Self { subject: None, client: Some(OfClient { client, only_own: false }) }
            }
            Selector::Subject(subject) | Selector::SubjectAtClient(subject, _) => {
                let client = match subject {
                    Subject::User(_) => None,
                    Subject::Client(client) => Some(OfClient { client, only_own: true }),
                };
                Self { subject: Some(subject), client }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The hash of the id with these bytes, in a store.
    fn hash(grants: &Grants, id: u128) -> u32 {
        read(&grants.shards[0].0).hash(GrantId::from_bytes(id.to_ne_bytes()))
    }

    #[test]
    fn nobody_knows_which_ids_collide_in_a_store() {
        let hash = || hash(&Grants::new(), u128::from_ne_bytes(*b"any other grant!"));
        assert_ne!(hash(), hash());
    }

    /// Changes to both halves of an id must not cancel each other out.
    #[test]
    fn no_two_ids_collide_in_all_stores() {
        let collide = |one: [u64; 2], other: [u64; 2]| {
            let id = |halves: [u64; 2]| u128::from(halves[0]) | u128::from(halves[1]) << 64;
            let grants = Grants::new();
            hash(&grants, id(one)) == hash(&grants, id(other))
        };
        let (low, high, change) = (0x1234_5678_9abc_def0, 0x0fed_cba9_8765_4321, 0xffff);
        for turn in (0..64).step_by(8) {
            let other = [low ^ u64::rotate_left(change, turn), high ^ change];
            let collided = (0..8).filter(|_| collide([low, high], other)).count();
            assert!(collided < 8, "{turn}");
        }
        assert!((0..8).any(|_| !collide([low, high], [high, low])));
    }

    #[test]
    fn ids_that_count_up_are_mixed_as_well() {
        const COUNT: u64 = 30_000;
        for half in [0, 64] {
            let distinct = || {
                let grants = Grants::new();
                let hashes = (0..COUNT).map(|number| hash(&grants, u128::from(number) << half));
                hashes.collect::<HashSet<u32>>().len()
            };
            // A seed may be a bad one.
            let best = (0..3).map(|_| distinct()).max().unwrap();
            assert!(best > COUNT as usize - 20, "{half}: {best}");
        }
    }
}
