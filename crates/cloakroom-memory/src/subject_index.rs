//! The index on subjects.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::mem;
use std::ops::Bound;
use std::sync::RwLock;

use cloakroom_core::{GrantId, Subject};
use hashbrown::HashTable;

use crate::locks::{read, write};

const SHARDS: usize = 64;

/// The grants of each subject.
///
/// The index knows a subject by 64 bits of a keyed hash, and not by its name, which its grants hold. So it
/// may name a grant of another subject, and whoever reads it compares the subject of each grant. The hash is
/// keyed since strangers may choose names: nobody can make two of them meet.
pub(crate) struct SubjectIndex {
    shards: [Shard; SHARDS],
    hasher: RandomState,
}

/// A shard. It has its own cache lines, as those of the grants.
#[derive(Default)]
#[repr(align(128))]
struct Shard(RwLock<HashTable<Owner>>);

/// A subject, and its grants.
struct Owner {
    hash: u64,
    grants: Grants,
}

/// The grants of a subject. Most have one.
#[expect(clippy::box_collection, reason = "a set takes 24 bytes of each entry of the table")]
enum Grants {
    One(GrantId),
    Many(Box<BTreeSet<GrantId>>),
}

impl SubjectIndex {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| Shard::default()), hasher: RandomState::new() }
    }

    pub(crate) fn insert(&self, subject: &Subject, grant: GrantId) {
        let (hash, shard) = self.shard(subject);
        let mut shard = write(shard);
        match shard.find_mut(hash, |owner| owner.hash == hash) {
            Some(owner) => owner.grants.insert(grant),
            None => {
                let owner = Owner { hash, grants: Grants::One(grant) };
                shard.insert_unique(hash, owner, |owner| owner.hash);
            }
        }
    }

    pub(crate) fn remove(&self, subject: &Subject, grant: GrantId) {
        let (hash, shard) = self.shard(subject);
        let mut shard = write(shard);
        if let Ok(mut owner) = shard.find_entry(hash, |owner| owner.hash == hash)
            && owner.get_mut().grants.remove(grant)
        {
            owner.remove();
        }
    }

    /// At most `limit` grants after `after`, ordered by id, and whether there are more. All grants of the
    /// subject are among them.
    pub(crate) fn page(
        &self,
        subject: &Subject,
        after: Option<GrantId>,
        limit: usize,
    ) -> (Vec<GrantId>, bool) {
        let (hash, shard) = self.shard(subject);
        let shard = read(shard);
        match shard.find(hash, |owner| owner.hash == hash).map(|owner| &owner.grants) {
            None => (Vec::new(), false),
            Some(Grants::One(grant)) => {
                (Vec::from_iter((Some(*grant) > after).then_some(*grant)), false)
            }
            Some(Grants::Many(grants)) => {
                let first = after.map_or(Bound::Unbounded, Bound::Excluded);
                let mut rest = grants.range((first, Bound::Unbounded)).copied();
                let page = rest.by_ref().take(limit).collect();
                (page, rest.next().is_some())
            }
        }
    }

    fn shard(&self, subject: &Subject) -> (u64, &RwLock<HashTable<Owner>>) {
        let hash = self.hasher.hash_one(subject);
        // The table uses the lowest and the highest bits.
        (hash, &self.shards[(hash >> 40) as usize % SHARDS].0)
    }
}

impl Grants {
    fn insert(&mut self, grant: GrantId) {
        match self {
            Self::One(own) => *self = Self::Many(Box::new(BTreeSet::from([*own, grant]))),
            Self::Many(grants) => {
                grants.insert(grant);
            }
        }
    }

    /// Removes the grant, and tells whether it was the last one.
    fn remove(&mut self, grant: GrantId) -> bool {
        match self {
            Self::One(own) => *own == grant,
            Self::Many(grants) => {
                grants.remove(&grant);
                if grants.len() == 1
                    && let Some(last) = mem::take(&mut **grants).pop_first()
                {
                    *self = Self::One(last);
                }
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(index: &SubjectIndex, subject: &Subject) -> Vec<GrantId> {
        index.page(subject, None, 100).0
    }

    #[test]
    fn a_subject_is_forgotten_with_its_last_grant() {
        let index = SubjectIndex::new();
        let (alice, bob) = (Subject::user("alice").unwrap(), Subject::user("bob").unwrap());
        let ids = [9, 1, 5].map(|byte| GrantId::from_bytes([byte; 16]));
        for id in ids {
            index.insert(&alice, id);
        }
        index.insert(&bob, ids[0]);
        assert_eq!(all(&index, &alice), [ids[1], ids[2], ids[0]]);
        assert_eq!(index.page(&alice, Some(ids[1]), 1), (vec![ids[2]], true));
        assert_eq!(index.page(&alice, Some(ids[2]), 1), (vec![ids[0]], false));
        assert_eq!(index.page(&bob, Some(ids[0]), 1), (vec![], false));
        for (gone, rest) in [(0, vec![ids[1], ids[2]]), (1, vec![ids[2]]), (2, vec![])] {
            index.remove(&alice, ids[gone]);
            // A second time, as well as an id that is not there, changes nothing.
            index.remove(&alice, ids[gone]);
            assert_eq!(all(&index, &alice), rest);
        }
        assert_eq!(all(&index, &bob), [ids[0]]);
        index.remove(&bob, ids[0]);
        assert!(index.shards.iter().all(|shard| read(&shard.0).is_empty()));
    }
}
