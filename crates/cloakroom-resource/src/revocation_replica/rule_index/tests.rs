use super::super::test_kit::{START, grant};
use super::*;

fn rule(number: u64) -> Rule {
    let name = RuleTarget::Grant(grant(number));
    Rule { name, bound: None, until: START, grant: None, client: None }
}

#[test]
fn names_with_the_same_hash_are_told_apart() {
    let mut index = RuleIndex::default();
    let place = index.insert(rule(1));
    let other = grant(2);
    let other = RuleTargetRef::Grant(&other);
    // As if the first name had the hash of the other one, too.
    let hash = index.hasher.hash_one(other);
    index.places.insert_unique(hash, (hash, place), |(hash, _)| *hash);
    assert_eq!(index.find(&other), None);
    assert_eq!(index.find(&RuleTargetRef::Grant(&grant(1))), Some(place));
}

#[test]
fn room_grows_by_a_quarter() {
    let mut index = RuleIndex::default();
    let (mut room, mut grown) = (0, 0);
    for held in 0..20_000 {
        index.insert(rule(held as u64));
        if index.rules.capacity() != room {
            (room, grown) = (index.rules.capacity(), grown + 1);
            assert!(room <= held + held / 4 + 16, "{room} for {held}");
        }
    }
    assert!(grown < 40, "it was moved {grown} times");
}
