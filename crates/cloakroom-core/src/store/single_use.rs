//! Items that are valid once: a nonce, or the `jti` of a proof or of a client's assertion.

use std::fmt;

use async_trait::async_trait;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::store::error::StoreError;
use crate::time::UnixTime;

#[doc = include_str!("single_use.md")]
#[async_trait]
pub trait SingleUseStore: fmt::Debug + Send + Sync + 'static {
    /// Spends an item, in one atomic step.
    ///
    /// - It must answer [`Spent::First`] once for an id until the item is over, and
    ///   [`Spent::Again`] to all other calls.
    /// - It must answer `Again` if `spend.until` is not later than `spend.now`, or not later than
    ///   the latest end that the store has forgotten.
    /// - For a held item, it must keep the later of the two ends.
    ///
    /// # Errors
    ///
    /// [`StoreError::Unavailable`] if the store is full; another error if the store fails. The item may
    /// be spent after an error.
    async fn spend(&self, spend: Spend) -> Result<Spent, StoreError>;
}

/// A request to spend an item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_structs,
    reason = "part of the store contract: a new field is a new duty of every store"
)]
pub struct Spend {
    /// The item.
    pub id: SingleUseId,
    /// The time from which every node refuses the item without asking the store: its expiry plus
    /// the clock skew.
    pub until: UnixTime,
    /// The caller's time.
    pub now: UnixTime,
}

impl Spend {
    /// The decision of every store, for use inside its atomic step: the answer, and the end to write
    /// under the id, if there is one to write. `stored` is the end that is stored under the id, and
    /// `forgotten` is the latest end that the store has forgotten.
    pub fn judge(
        &self,
        stored: Option<UnixTime>,
        forgotten: UnixTime,
    ) -> (Spent, Option<UnixTime>) {
        let Self { until, now, .. } = *self;
        match stored {
            // The item is held.
            Some(end) if now < end => (Spent::Again, (end < until).then_some(until)),
            _ if until <= now || until <= forgotten => (Spent::Again, None),
            _ => (Spent::First, Some(until)),
        }
    }
}

/// What [`SingleUseStore::spend`] found.
#[must_use = "the item may have been spent before"]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(
    clippy::exhaustive_enums,
    reason = "part of the store contract: stores build it, and callers handle all of it"
)]
pub enum Spent {
    /// The item was not spent before, and is spent now.
    First,
    /// The item was spent before, or it is over, so that the store cannot tell.
    Again,
}

/// A value that is valid once, with its purpose and its owner.
///
/// ```
/// use cloakroom_core::store::SingleUse;
///
/// let proof = SingleUse { purpose: "dpop", owner: "a key's thumbprint", value: b"a jti" };
/// let assertion = SingleUse { purpose: "client-assertion", ..proof };
/// assert_ne!(proof.id(), assertion.id());
/// ```
#[derive(Clone, Copy)]
#[expect(clippy::exhaustive_structs, reason = "the id is a digest of exactly these parts")]
pub struct SingleUse<'a> {
    /// Its purpose, such as `dpop`, `client-assertion` or `nonce`. Values of two purposes never collide.
    pub purpose: &'a str,
    /// Who chose the value, such as the identifier of a client or the thumbprint of a key. Values of two
    /// owners never collide, so that nobody can spend the value of another. Empty if the server chose it.
    pub owner: &'a str,
    /// The value, which is unique for its owner.
    pub value: &'a [u8],
}

impl SingleUse<'_> {
    /// Its id. A store receives nothing else.
    #[must_use]
    pub fn id(&self) -> SingleUseId {
        let mut hash = Sha256::new_with_prefix(b"cloakroom single use\0");
        for part in [self.purpose.as_bytes(), self.owner.as_bytes(), self.value] {
            // The lengths keep two lists of parts from giving the same bytes.
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        SingleUseId(hash.finalize().into())
    }
}

impl fmt::Debug for SingleUse<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SingleUse").field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

/// SHA-256 over the purpose, the owner and the value of a [`SingleUse`].
#[derive(Clone, Copy)]
pub struct SingleUseId([u8; 32]);

impl SingleUseId {
    /// An id read back from a store.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes, as a store keeps them.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl PartialEq for SingleUseId {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for SingleUseId {}

impl std::hash::Hash for SingleUseId {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.0.hash(state);
    }
}

impl fmt::Debug for SingleUseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SingleUseId({:02x}{:02x}{:02x}..)", self.0[0], self.0[1], self.0[2])
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn purpose_owner_and_value_do_not_run_together() {
        let parts = [("a", "b", "c"), ("ab", "", "c"), ("", "ab", "c"), ("", "", "abc")];
        let more =
            [("a", "bc", ""), ("abc", "", ""), ("b", "a", "c"), ("a", "b", "C"), ("", "", "")];
        let all = parts.iter().chain(&more);
        let ids: HashSet<_> = all
            .map(|&(purpose, owner, value)| SingleUse { purpose, owner, value: value.as_bytes() })
            .map(|item| item.id())
            .collect();
        assert_eq!(ids.len(), parts.len() + more.len());
    }

    #[test]
    fn ids_are_equal_if_their_bytes_are_and_are_spread_over_a_table() {
        use std::hash::{BuildHasher as _, RandomState};
        let [one, other] = [[1; 32], [2; 32]].map(SingleUseId::from_bytes);
        assert_eq!(one, SingleUseId::from_bytes(*one.as_bytes()));
        assert_ne!(one, other);
        let state = RandomState::new();
        assert_ne!(state.hash_one(one), state.hash_one(other));
    }

    /// Nodes of two versions must agree on it.
    #[test]
    fn the_id_stays_what_it_is() {
        let item = SingleUse { purpose: "dpop", owner: "thumbprint", value: b"jti" };
        let hex: String = item.id().as_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "f56546192e579d53ebc99e45713acbdbbacc750bbd5259c5120a8b45549a08d4");
    }

    #[test]
    fn what_is_held_over_or_forgotten_is_not_first() {
        let at = UnixTime::from_millis;
        for (stored, forgotten, until, now, answer, written) in [
            (None, 0, 20, 10, Spent::First, Some(20)),
            (None, 0, 10, 10, Spent::Again, None),
            (None, 0, 11, 10, Spent::First, Some(11)),
            (None, 20, 20, 10, Spent::Again, None),
            (None, 20, 21, 10, Spent::First, Some(21)),
            (Some(20), 0, 20, 10, Spent::Again, None),
            (Some(20), 0, 15, 10, Spent::Again, None),
            (Some(20), 0, 25, 19, Spent::Again, Some(25)),
            (Some(20), 0, 25, 20, Spent::First, Some(25)),
            // Another node forgot what ended until 30: this end is kept all the same.
            (Some(20), 30, 25, 10, Spent::Again, Some(25)),
            (Some(20), 30, 25, 20, Spent::Again, None),
        ] {
            let id = SingleUseId::from_bytes([0; 32]);
            let spend = Spend { id, until: at(until), now: at(now) };
            let judged = spend.judge(stored.map(at), at(forgotten));
            assert_eq!(judged, (answer, written.map(at)), "{stored:?} {forgotten} {spend:?}");
        }
    }

    #[test]
    fn debug_shows_no_value_and_no_owner() {
        let item = SingleUse { purpose: "nonce", owner: "alice", value: b"do-not-print" };
        let text = format!("{item:?} {:?}", item.id());
        assert!(!text.contains("print") && !text.contains("alice"), "{text}");
    }
}
