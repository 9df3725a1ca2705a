//! One shard of the grants: their entries, where each id is, and the indexes that need no other lock.

use std::collections::HashMap;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::time::UnixTime;
use cloakroom_core::{ClientId, GrantId, Subject};

use crate::due_queue::DueQueue;
use crate::grant_entry::{Grant, GrantEntry};
use crate::place_table::PlaceTable;

/// How many rows were deleted.
#[derive(Default)]
pub(crate) struct Reaped {
    pub(crate) grants: u64,
    pub(crate) tokens: u64,
    pub(crate) tombstones: u64,
}

impl Reaped {
    pub(crate) fn rows(&self) -> u64 {
        self.grants + self.tokens + self.tombstones
    }
}

/// The grants and tombstones of one shard.
///
/// Entries stand in one vector. Everything else refers to them by their place in it, in four bytes: the table
/// of ids, the lists of the clients, and the index on expiry.
#[derive(Default)]
pub(crate) struct Shard {
    slots: Vec<Slot>,
    /// The places that no entry has.
    free: Vec<u32>,
    table: PlaceTable,
    /// Mixes ids. Each store has another one.
    seed: [u64; 2],
    due: DueQueue,
    clients: HashMap<ClientId, OfClient>,
}

/// The grants of a client, in no order: they are sorted when they are read.
#[derive(Default)]
struct OfClient {
    /// Those in which the client acts for itself.
    own: Vec<u32>,
    others: Vec<u32>,
}

impl OfClient {
    fn list(&mut self, record: &GrantRecord) -> &mut Vec<u32> {
        if is_own(record) { &mut self.own } else { &mut self.others }
    }
}

/// Whether a client acts for itself, as with `client_credentials`. The list of its client is then the index
/// on the subject, too. One client may have most grants of a store.
pub(crate) fn is_own(record: &GrantRecord) -> bool {
    matches!(&record.subject, Subject::Client(subject) if *subject == record.client)
}

struct Slot {
    id: GrantId,
    /// `None` in a free place.
    entry: Option<GrantEntry>,
    /// The time of its one entry in the index on expiry: not later than [`GrantEntry::due`].
    filed: UnixTime,
    /// Where the grant stands in the list of its client.
    in_list: u32,
}

impl Shard {
    pub(crate) fn new(seed: [u64; 2]) -> Self {
        Self { seed, ..Self::default() }
    }

    pub(crate) fn get(&self, id: GrantId) -> Option<&GrantEntry> {
        self.slots[self.place(id)? as usize].entry.as_ref()
    }

    /// Adds an entry. There must be none with this id.
    pub(crate) fn add(&mut self, id: GrantId, entry: GrantEntry) {
        let (filed, place) = (entry.due(), self.free_place());
        self.due.file(filed, place);
        let mut in_list = 0;
        if let GrantEntry::Grant(grant) = &entry {
            let client = &grant.record.client;
            // `entry` would need a copy of the name each time.
            let grants = match self.clients.get_mut(client) {
                Some(grants) => grants,
                None => self.clients.entry(client.clone()).or_default(),
            };
            let list = grants.list(&grant.record);
            in_list = index(list.len());
            list.push(place);
        }
        let slot = Slot { id, entry: Some(entry), filed, in_list };
        match self.slots.get_mut(place as usize) {
            Some(free) => *free = slot,
            None => self.slots.push(slot),
        }
        self.table.insert(self.hash(id), place);
    }

    /// Changes the entry, if there is one.
    pub(crate) fn change(&mut self, id: GrantId, change: impl FnOnce(&mut GrantEntry)) {
        let Some(place) = self.place(id) else {
            return;
        };
        let slot = &mut self.slots[place as usize];
        let Some(entry) = &mut slot.entry else {
            return;
        };
        change(entry);
        // An entry that ends later than it is filed is filed again when its time comes.
        let due = entry.due();
        if due < slot.filed {
            slot.filed = due;
            self.due.file(due, place);
            let slots = &self.slots;
            self.due.outdate(|at, place| slots[place as usize].is_filed(at));
        }
    }

    /// Changes the grant, if there is one.
    pub(crate) fn change_grant(&mut self, id: GrantId, change: impl FnOnce(&mut Grant)) {
        self.change(id, |entry| {
            if let GrantEntry::Grant(grant) = entry {
                change(grant);
            }
        });
    }

    /// The ids of all grants, in no order.
    pub(crate) fn ids(&self) -> Vec<GrantId> {
        let grants =
            self.slots.iter().filter(|slot| matches!(slot.entry, Some(GrantEntry::Grant(_))));
        grants.map(|slot| slot.id).collect()
    }

    /// The ids of the client's grants, in no order: all, or only those in which it acts for itself.
    pub(crate) fn of_client(
        &self,
        client: &ClientId,
        only_own: bool,
    ) -> impl Iterator<Item = GrantId> {
        let lists = self.clients.get(client).map(|of| (&of.own[..], &of.others[..]));
        let (own, others) = lists.unwrap_or_default();
        let others = if only_own { &[] } else { others };
        own.iter().chain(others).map(|place| self.slots[*place as usize].id)
    }

    /// Whether [`Shard::reap`] has something to look at.
    pub(crate) fn is_due(&self, before: UnixTime) -> bool {
        self.due.first().is_some_and(|first| first < before)
    }

    /// Looks at no more than `most` entries, and deletes what ended before `before`. `forget` is told which
    /// grants go.
    pub(crate) fn reap(
        &mut self,
        before: UnixTime,
        most: u64,
        reaped: &mut Reaped,
        mut forget: impl FnMut(&GrantRecord),
    ) {
        for _ in 0..most {
            let Some((at, place)) = self.due.pop(before) else {
                return;
            };
            let slot = &mut self.slots[place as usize];
            let Some(entry) = slot.entry.as_mut().filter(|_| slot.filed == at) else {
                continue;
            };
            let is_over = match entry {
                GrantEntry::Tombstone { until } => *until < before,
                GrantEntry::Grant(grant) => {
                    let tokens = grant.reap_tokens(before);
                    let is_over = grant.is_over(before);
                    if !is_over {
                        reaped.tokens += tokens;
                    }
                    is_over
                }
            };
            if !is_over {
                slot.filed = entry.due();
                self.due.file(slot.filed, place);
                continue;
            }
            match self.remove(place) {
                Some(GrantEntry::Grant(grant)) => {
                    forget(&grant.record);
                    reaped.grants += 1;
                }
                Some(GrantEntry::Tombstone { .. }) => reaped.tombstones += 1,
                None => {}
            }
        }
    }

    /// Removes the entry at this place, whose entry in the index on expiry is gone.
    fn remove(&mut self, place: u32) -> Option<GrantEntry> {
        let slot = &mut self.slots[place as usize];
        let (id, in_list) = (slot.id, slot.in_list as usize);
        let entry = slot.entry.take()?;
        self.free.push(place);
        self.table.remove(self.hash(id), place);
        if let GrantEntry::Grant(grant) = &entry
            && let Some(grants) = self.clients.get_mut(&grant.record.client)
        {
            let list = grants.list(&grant.record);
            list.swap_remove(in_list);
            if let Some(moved) = list.get(in_list) {
                self.slots[*moved as usize].in_list = index(in_list);
            }
            if grants.own.is_empty() && grants.others.is_empty() {
                self.clients.remove(&grant.record.client);
            }
        }
        Some(entry)
    }

    fn place(&self, id: GrantId) -> Option<u32> {
        self.table.find(self.hash(id), |place| self.slots[place as usize].id == id)
    }

    /// Mixes the bytes of a grant id. Most ids are random. Others are a prefix of a SHA-256 digest, of which an
    /// attacker could compute many, and an import brings ids of its own. So a secret seed is mixed into both halves
    /// before they are combined: nobody can predict which ids collide.
    pub(crate) fn hash(&self, id: GrantId) -> u32 {
        let number = u128::from_ne_bytes(*id.as_bytes());
        let [low, high] = [number as u64 ^ self.seed[0], (number >> 64) as u64 ^ self.seed[1]];
        let product = u128::from(low) * u128::from(high);
        let mixed = product as u64 ^ (product >> 64) as u64;
        (mixed >> 32) as u32
    }

    fn free_place(&mut self) -> u32 {
        self.free.pop().unwrap_or_else(|| {
            let length = self.slots.len();
            if length == self.slots.capacity() {
                // Slots take most of the memory of the indexes: a vector that doubles would waste a third.
                self.slots.reserve_exact((length / 4).max(8));
            }
            index(length)
        })
    }
}

impl Slot {
    fn is_filed(&self, at: UnixTime) -> bool {
        self.filed == at && self.entry.is_some()
    }
}

/// A place, in four bytes. A shard cannot hold more: its grants would take three terabytes.
fn index(place: usize) -> u32 {
    u32::try_from(place).ok().filter(|place| *place < u32::MAX).expect("a shard is never so large")
}

const _: () = assert!(size_of::<Slot>() <= 56, "each grant has one");

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use cloakroom_core::Audience;
    use cloakroom_core::record::TokenRecord;
    use cloakroom_core::store::ChainUpdate;
    use cloakroom_core::{TokenDigest, TokenKind};

    use super::*;

    const SEED: [u64; 2] = [0x9e37_79b9_7f4a_7c15, 0x1234_5678_9abc_def1];

    #[test]
    fn outdated_entries_of_the_index_are_thrown_out_and_no_others() {
        let at = UnixTime::from_secs;
        let audience = Audience::one("https://orders.example").unwrap();
        let (client, user) = (ClientId::new("app").unwrap(), Subject::user("alice").unwrap());
        let mut shard = Shard::new(SEED);
        let ids = [1, 2].map(|byte| GrantId::from_bytes([byte; 16]));
        for id in ids {
            let (client, user) = (client.clone(), user.clone());
            let record = GrantRecord::new(id, client, user, audience.clone(), at(0), at(1_000));
            let grant = Grant::new(Arc::new(record), vec![]).unwrap();
            shard.add(id, GrantEntry::Grant(grant));
        }
        // Each token ends before those that are there.
        for number in 1..=32 {
            shard.change_grant(ids[0], |grant| {
                let digest = TokenDigest::compute(TokenKind::Access, &[number]);
                let token =
                    TokenRecord::new(digest, &grant.record, at(0), at(900 - u64::from(number)));
                grant.apply(ChainUpdate::Attach, vec![token]);
            });
        }
        assert_eq!(shard.due.len(), 2);
        assert_eq!(shard.due.first(), Some(at(868)));
    }
}
