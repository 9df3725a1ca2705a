//! Single-use items.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use cloakroom_core::store::{SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;

use crate::locks::lock;

/// The most items that a call forgets. It is more than one, so that the store shrinks.
const FORGOTTEN_A_CALL: usize = 16;

/// A [`SingleUseStore`] in memory. A clone shares the items.
///
/// An item takes about 150 bytes until a later call forgets it, some time after its end. When the process ends,
/// the items are lost, and each can be spent a second time until its end.
///
/// ```
/// use std::time::Duration;
/// use cloakroom_core::store::{SingleUse, SingleUseStore, Spend, Spent};
/// use cloakroom_core::time::UnixTime;
/// use cloakroom_memory::MemorySingleUse;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), cloakroom_core::store::StoreError> {
/// let store = MemorySingleUse::new();
/// let now = UnixTime::from_secs(1_700_000_000);
/// let proof = SingleUse { purpose: "dpop", owner: "a key's thumbprint", value: b"a jti" };
/// let spend = Spend { id: proof.id(), until: now + Duration::from_secs(60), now };
/// assert_eq!(store.spend(spend).await?, Spent::First);
/// assert_eq!(store.spend(spend).await?, Spent::Again);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemorySingleUse(Arc<State>);

struct State {
    most: usize,
    items: Mutex<Items>,
}

#[derive(Default)]
struct Items {
    ends: HashMap<[u8; 32], UnixTime>,
    by_end: BTreeSet<(UnixTime, [u8; 32])>,
    /// The latest end of all forgotten items.
    forgotten: UnixTime,
}

impl MemorySingleUse {
    /// The default for the largest number of items in a store: 1,000,000, which take about 150 MB.
    pub const MAX_ITEMS: usize = 1_000_000;

    /// An empty store for at most [`MemorySingleUse::MAX_ITEMS`] items.
    #[must_use]
    pub fn new() -> Self {
        Self::with_max_items(Self::MAX_ITEMS)
    }

    /// An empty store for at most this many items. Allow for all items that may be spent within the
    /// longest lifetime of an item: a full store refuses new items until others are over.
    #[must_use]
    pub fn with_max_items(most: usize) -> Self {
        Self(Arc::new(State { most, items: Mutex::default() }))
    }

    /// The number of stored items, some of which may be over.
    #[must_use]
    pub fn len(&self) -> usize {
        lock(&self.0.items).ends.len()
    }

    /// Whether it has no items.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Default for MemorySingleUse {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for MemorySingleUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemorySingleUse").field("most", &self.0.most).finish_non_exhaustive()
    }
}

#[async_trait]
impl SingleUseStore for MemorySingleUse {
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError> {
        lock(&self.0.items).spend(&spend, self.0.most)
    }
}

impl Items {
    fn spend(&mut self, spend: &Spend, most: usize) -> Result<Spent, StoreError> {
        let id = spend.id.as_bytes();
        let (answer, end) = spend.judge(self.ends.get(id).copied(), self.forgotten);
        if answer == Spent::First {
            self.forget(spend.now);
            if self.ends.len() >= most && !self.ends.contains_key(id) {
                let full = format!("it already holds {most} items that are not over");
                return Err(StoreError::unavailable("spending a single-use item", full));
            }
        }
        if let Some(end) = end {
            if let Some(before) = self.ends.insert(*id, end) {
                self.by_end.remove(&(before, *id));
            }
            self.by_end.insert((end, *id));
        }
        Ok(answer)
    }

    /// Forgets a few of the items that are over.
    fn forget(&mut self, now: UnixTime) {
        for _ in 0..FORGOTTEN_A_CALL {
            let Some(&(end, id)) = self.by_end.first().filter(|(end, _)| *end <= now) else {
                return;
            };
            self.by_end.pop_first();
            self.ends.remove(&id);
            self.forgotten = self.forgotten.max(end);
        }
    }
}
