use cloakroom_core::store::{SingleUseId, SingleUseStore as _, Spend, Spent};
use cloakroom_memory::MemorySingleUse;

use crate::support::*;

#[test]
fn it_counts_its_items() {
    let store = MemorySingleUse::new();
    assert!(store.is_empty());
    for number in 1..=2 {
        let id = SingleUseId::from_bytes([number; 32]);
        assert_eq!(ready(store.spend(Spend { id, until: secs(10), now: NOW })), Spent::First);
        assert_eq!(store.len(), usize::from(number));
        assert!(!store.is_empty());
    }
}
