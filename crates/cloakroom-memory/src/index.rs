//! The indexes on subject and client.

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hash};
use std::ops::Bound;
use std::sync::RwLock;

use cloakroom_core::GrantId;

use crate::locks::{read, write};

const SHARDS: usize = 64;

/// The grants of each key, ordered by grant id. Keys are compared byte by byte.
pub(crate) struct Index<K> {
    // One flat set for each shard, and not for each key: most subjects have one or two grants, and a set
    // would cost each subject some 300 bytes.
    shards: [RwLock<BTreeSet<(K, GrantId)>>; SHARDS],
    // The hash is keyed, since strangers may choose the names.
    hasher: RandomState,
}

impl<K: Clone + Hash + Ord> Index<K> {
    pub(crate) fn new() -> Self {
        Self { shards: std::array::from_fn(|_| RwLock::default()), hasher: RandomState::new() }
    }

    pub(crate) fn insert(&self, key: &K, grant: GrantId) {
        write(self.shard(key)).insert((key.clone(), grant));
    }

    pub(crate) fn remove(&self, key: &K, grant: GrantId) {
        write(self.shard(key)).remove(&(key.clone(), grant));
    }

    /// At most `limit` grants of the key after `after`, and whether there are more.
    pub(crate) fn page(
        &self,
        key: &K,
        after: Option<GrantId>,
        limit: usize,
    ) -> (Vec<GrantId>, bool) {
        let first = match after {
            Some(after) => Bound::Excluded((key.clone(), after)),
            None => Bound::Included((key.clone(), GrantId::from_bytes([0; 16]))),
        };
        let last = Bound::Included((key.clone(), GrantId::from_bytes([0xff; 16])));
        let shard = read(self.shard(key));
        let mut rest = shard.range((first, last)).map(|(_, grant)| *grant);
        let page = rest.by_ref().take(limit).collect();
        (page, rest.next().is_some())
    }

    fn shard(&self, key: &K) -> &RwLock<BTreeSet<(K, GrantId)>> {
        let hash = self.hasher.hash_one(key);
        &self.shards[hash as usize % SHARDS]
    }
}
