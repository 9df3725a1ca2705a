use std::sync::Arc;

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Epoch, Target};
use cloakroom_core::store::{Advance, AdvanceOutcome, ChainUpdate, TokenStore};
use cloakroom_core::{ClientId, Subject};
use cloakroom_memory::MemoryStore;

use crate::support::*;

fn with_grant() -> (MemoryStore, GrantRecord) {
    let (store, grant) = (store(), grant(1));
    insert(&store, &grant, &[token(&grant, 10)]);
    (store, grant)
}

#[test]
fn a_move_writes_the_record_and_the_tokens() {
    let (store, grant) = with_grant();
    let mut next = moved(&grant, 2);
    next.refreshed_at = Some(NOW);
    let change = ChainUpdate::Move(Box::new(next.clone()));
    let taken = ready(store.advance(step(&grant, change, vec![token(&grant, 11)])));
    assert_eq!(taken, AdvanceOutcome::Advanced);
    for seed in [10, 11] {
        let found = found(&store, grant.id, Some(digest(seed)));
        assert_eq!(*found.grant, next);
        assert_eq!(*found.token.unwrap(), token(&grant, seed));
    }
}

#[test]
fn attaching_leaves_the_record() {
    let (store, grant) = with_grant();
    let attach = step(&grant, ChainUpdate::Attach, vec![token(&grant, 11)]);
    assert_eq!(ready(store.advance(attach.clone())), AdvanceOutcome::Advanced);
    assert_eq!(ready(store.advance(attach)), AdvanceOutcome::Advanced, "a retry");
    let found = found(&store, grant.id, Some(digest(11)));
    assert_eq!((&*found.grant, found.token.is_some()), (&grant, true));
}

#[test]
fn a_chain_that_stands_elsewhere_is_stale() {
    let (store, grant) = with_grant();
    let next = moved(&grant, 2);
    assert_eq!(ready(store.advance(move_to(&grant, &next))), AdvanceOutcome::Advanced);

    let mut wrong_digest = next.clone();
    wrong_digest.chain.as_mut().unwrap().digest = digest(3);
    let mut wrong_generation = next.clone();
    wrong_generation.chain.as_mut().unwrap().generation = 7;
    for from in [&grant, &wrong_digest, &wrong_generation] {
        let change = ChainUpdate::Move(Box::new(moved(from, 4)));
        for change in [change, ChainUpdate::Attach] {
            let late = step(from, change, vec![token(&grant, 11)]);
            let AdvanceOutcome::Stale(stands) = ready(store.advance(late)) else {
                panic!("taken");
            };
            assert_eq!(*stands, next);
        }
    }
    assert_eq!(*found(&store, grant.id, None).grant, next);
    assert_eq!(found(&store, grant.id, Some(digest(11))).token, None);
}

#[test]
fn a_grant_without_a_chain_is_always_stale() {
    let store = store();
    let chained = grant(1);
    let mut plain = chained.clone();
    plain.chain = None;
    insert(&store, &plain, &[]);
    let attach = step(&chained, ChainUpdate::Attach, vec![]);
    assert_eq!(ready(store.advance(attach)), AdvanceOutcome::Stale(Arc::new(plain)));
}

#[test]
fn what_has_ended_is_dead() {
    let ends: [fn(&mut GrantRecord); 4] = [
        |grant| grant.expires_at = NOW,
        |grant| grant.row_expires_at = NOW,
        |grant| grant.chain.as_mut().unwrap().expires_at = NOW,
        |grant| grant.revoked_at = Some(NOW),
    ];
    for end in ends {
        let (store, mut grant) = (store(), grant(1));
        end(&mut grant);
        insert(&store, &grant, &[]);
        let next = moved(&grant, 2);
        assert_eq!(ready(store.advance(move_to(&grant, &next))), AdvanceOutcome::Dead);
        let attach = step(&grant, ChainUpdate::Attach, vec![token(&grant, 11)]);
        assert_eq!(ready(store.advance(attach)), AdvanceOutcome::Dead);
        assert_eq!(*found(&store, grant.id, Some(digest(11))).grant, grant);
        assert_eq!(found(&store, grant.id, Some(digest(11))).token, None);
    }
}

#[test]
fn expiry_is_judged_at_the_callers_time() {
    let (store, grant) = with_grant();
    let at = |now| Advance { now, ..step(&grant, ChainUpdate::Attach, vec![]) };
    assert_eq!(ready(store.advance(at(secs(500)))), AdvanceOutcome::Dead);
    let just_before = secs(500) - std::time::Duration::from_millis(1);
    assert_eq!(ready(store.advance(at(just_before))), AdvanceOutcome::Advanced);
}

#[test]
fn a_revoked_grant_stays_dead() {
    let (store, revoked) = with_grant();
    let (tombstone, absent) = (grant(2), grant(3));
    revoke(&store, Target::Grant(revoked.id));
    revoke(&store, Target::Grant(tombstone.id));
    for (grant, expected) in [
        (&revoked, AdvanceOutcome::Dead),
        (&tombstone, AdvanceOutcome::Dead),
        (&absent, AdvanceOutcome::Unknown),
    ] {
        let next = moved(grant, 2);
        assert_eq!(ready(store.advance(move_to(grant, &next))), expected);
    }
    assert!(is_revoked(&store, revoked.id));
}

#[test]
fn misuse_changes_nothing() {
    let stranger = grant(2);
    let (store, grant) = with_grant();
    let changes: [fn(&mut GrantRecord); 5] = [
        |grant| grant.id = id(9),
        |grant| grant.client = ClientId::new("other").unwrap(),
        |grant| grant.subject = Subject::client("alice").unwrap(),
        |grant| grant.epoch = Epoch::new(7),
        |grant| grant.chain = None,
    ];
    for change in changes {
        let mut next = moved(&grant, 2);
        change(&mut next);
        assert!(is_misuse(store.advance(move_to(&grant, &next))));
    }
    let mut other = token(&grant, 10);
    other.expires_at = secs(200);
    for token in [other, token(&stranger, 11)] {
        let change = ChainUpdate::Move(Box::new(moved(&grant, 2)));
        assert!(is_misuse(store.advance(step(&grant, change, vec![token]))));
    }
    let found = found(&store, grant.id, Some(digest(11)));
    assert_eq!((&*found.grant, found.token), (&grant, None));
}

#[test]
fn attaching_again_does_not_bring_a_token_back() {
    let (store, grant) = with_grant();
    let target = Target::Token { grant: grant.id, digest: digest(10) };
    revoke(&store, target);
    let again = step(&grant, ChainUpdate::Attach, vec![token(&grant, 10)]);
    assert_eq!(ready(store.advance(again)), AdvanceOutcome::Advanced);
    let token = found(&store, grant.id, Some(digest(10))).token.unwrap();
    assert_eq!(token.revoked_at, Some(NOW));
}
