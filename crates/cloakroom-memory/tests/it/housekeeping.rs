use cloakroom_core::Subject;
use cloakroom_core::revocation::{Revocation, RuleKey, Target};
use cloakroom_core::store::{
    AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, Lookup, MaintenanceReport,
    PageRequest, Selector, TokenStore,
};
use cloakroom_core::time::UnixTime;
use cloakroom_memory::MemoryStore;

use crate::support::*;

fn maintain(store: &MemoryStore, before: UnixTime, limit: u32) -> MaintenanceReport {
    ready(store.maintain(Housekeeping { now: before, before, limit, sweep: None }))
}

fn done(grants: u64, tokens: u64, revocations: u64) -> MaintenanceReport {
    let mut done = MaintenanceReport::default();
    done.grants = grants;
    done.tokens = tokens;
    done.revocations = revocations;
    done
}

#[test]
fn rows_go_when_they_ended_before_and_no_sooner() {
    let store = store();
    let grant = grant(1);
    insert(&store, &grant, &[token(&grant, 10)]);
    assert_eq!(maintain(&store, secs(100), 10), done(0, 0, 0));
    assert_eq!(maintain(&store, secs(101), 10), done(0, 1, 0));
    assert_eq!(found(&store, grant.id, Some(digest(10))).token, None);
    assert_eq!(*found(&store, grant.id, None).grant, grant);

    assert_eq!(maintain(&store, secs(1_000), 10), done(0, 0, 0));
    assert_eq!(maintain(&store, secs(1_001), 10), done(1, 0, 0));
    assert_eq!(ready(store.find(grant.id, None)), Lookup::Absent);
    insert(&store, &grant, &[]);
}

#[test]
fn a_call_deletes_no_more_than_it_is_told() {
    let store = store();
    for seed in 0..20 {
        insert(&store, &grant(seed), &[]);
        ready(store.heartbeat(secs(seed), secs(seed + 1)));
    }
    // The newest entry of the log stays.
    for revocations in [5, 5, 5, 4] {
        let report = maintain(&store, UnixTime::MAX, 10);
        assert_eq!((report.grants, report.revocations), (5, revocations));
    }
    assert_eq!(maintain(&store, UnixTime::MAX, 10), done(0, 0, 0));
}

/// An entry of the index on expiry is never lost, however often it was replaced by an earlier one.
#[test]
fn a_grant_whose_tokens_end_ever_earlier_is_deleted_in_the_end() {
    let store = store();
    let grant = grant(1);
    insert(&store, &grant, &[]);
    for seed in 0..100 {
        let mut token = token(&grant, seed);
        token.expires_at = secs(900 - seed);
        let attach = step(&grant, ChainUpdate::Attach, vec![token]);
        assert_eq!(ready(store.advance(attach)), AdvanceOutcome::Advanced);
    }
    assert_eq!(maintain(&store, secs(801), 1_000).tokens, 0);
    for second in 802..=901 {
        assert_eq!(maintain(&store, secs(second), 1_000).tokens, 1, "{second}");
    }
    assert_eq!(maintain(&store, secs(1_001), 1_000), done(1, 0, 0));
}

#[test]
fn index_entries_go_with_their_rows() {
    let store = store();
    for seed in 0..3 {
        insert(&store, &grant(seed), &[]);
    }
    assert_eq!(maintain(&store, UnixTime::MAX, 10), done(3, 0, 0));
    let page = PageRequest { after: None, limit: 1 };
    for of in [Selector::Subject(alice()), Selector::Client(app())] {
        // An entry left behind would show as a next page.
        let listing = ready(store.list(of, page, NOW));
        assert_eq!((listing.grants.len(), listing.next), (0, None));
    }
}

/// Lists have no holes, and places are used again.
#[test]
fn what_goes_from_the_middle_leaves_the_rest_listed() {
    let store = store();
    for round in 0..3 {
        for seed in 0..40 {
            let mut grant = grant(round * 100 + seed);
            grant.row_expires_at = secs(if seed.is_multiple_of(3) { 10 } else { 100 } + round);
            if seed.is_multiple_of(2) {
                grant.subject = Subject::Client(app());
            }
            insert(&store, &grant, &[]);
        }
        assert_eq!(maintain(&store, secs(11 + round), 1_000).grants, 14);
        let rest = |seed: &u64| !seed.is_multiple_of(3);
        for (of, parity) in [
            (Selector::Subject(alice()), Some(1)),
            (Selector::Subject(Subject::Client(app())), Some(0)),
            (Selector::Client(app()), None),
        ] {
            let is_of = |seed: &u64| parity.is_none_or(|parity| seed % 2 == parity);
            let expected: Vec<_> =
                (0..40).filter(rest).filter(is_of).map(|seed| id(round * 100 + seed)).collect();
            let page = PageRequest { after: None, limit: 100 };
            let listed: Vec<_> =
                ready(store.list(of, page, NOW)).grants.iter().map(|grant| grant.id).collect();
            assert_eq!(listed, expected);
        }
        assert_eq!(maintain(&store, secs(101 + round), 1_000).grants, 26);
    }
}

#[test]
fn a_row_outlives_its_tokens() {
    let store = store();
    let mut grant = grant(1);
    grant.row_expires_at = secs(50);
    let mut later = token(&grant, 11);
    later.expires_at = secs(101);
    insert(&store, &grant, &[token(&grant, 10), later]);
    assert_eq!(maintain(&store, secs(60), 10), done(0, 0, 0));
    assert!(found(&store, grant.id, Some(digest(10))).token.is_some());
    assert_eq!(maintain(&store, secs(101), 10), done(0, 1, 0));
    assert!(found(&store, grant.id, Some(digest(11))).token.is_some());
    assert_eq!(maintain(&store, secs(102), 10), done(1, 0, 0));
}

#[test]
fn a_move_moves_the_end_of_the_row() {
    let store = store();
    let grant = grant(1);
    insert(&store, &grant, &[]);
    let mut next = moved(&grant, 2);
    next.row_expires_at = secs(3_000);
    assert_eq!(ready(store.advance(move_to(&grant, &next))), AdvanceOutcome::Advanced);
    assert_eq!(maintain(&store, secs(2_000), 10), done(0, 0, 0));

    let mut sooner = moved(&next, 3);
    sooner.row_expires_at = secs(20);
    assert_eq!(ready(store.advance(move_to(&next, &sooner))), AdvanceOutcome::Advanced);
    let mut long = token(&grant, 10);
    long.expires_at = secs(30);
    let attach = step(&sooner, ChainUpdate::Attach, vec![long]);
    assert_eq!(ready(store.advance(attach)), AdvanceOutcome::Advanced);
    assert_eq!(maintain(&store, secs(25), 10), done(0, 0, 0));
    assert_eq!(maintain(&store, secs(31), 10), done(1, 0, 0));
}

#[test]
fn it_is_bounded_and_says_what_is_left() {
    let store = store();
    for seed in 0..300 {
        let grant = grant(seed);
        insert(&store, &grant, &[token(&grant, seed)]);
    }
    let mut deleted = 0;
    for round in 0..10 {
        let maintained = maintain(&store, secs(101), 30);
        assert_eq!((maintained.grants, maintained.tokens), (0, 30));
        assert_eq!(maintained.more, round < 9);
        deleted += maintained.tokens;
    }
    assert_eq!(deleted, 300);
    assert_eq!(maintain(&store, secs(1_001), 1_000), done(300, 0, 0));
}

#[test]
fn tombstones_stay_until_their_revocation_ends() {
    let store = store();
    let until = |seconds| Revocation {
        until: secs(seconds),
        rule_until: secs(seconds),
        ..revocation(Target::Grant(id(1)))
    };
    for seconds in [10, 20, 15] {
        ready(store.revoke(until(seconds)));
    }
    // The entries that end at 10 s; the newest, which ends at 15 s, stays to the last.
    assert_eq!(maintain(&store, secs(20), 10), done(0, 0, 1));
    assert_eq!(ready(store.create(grant(1), vec![])), CreateOutcome::Barred);
    assert_eq!(maintain(&store, secs(21), 10), done(0, 0, 2));
    insert(&store, &grant(1), &[]);
}

#[test]
fn rules_stay_until_their_later_end() {
    let store = store();
    let until = |seconds| Revocation {
        until: secs(seconds),
        rule_until: secs(seconds),
        ..revocation(Target::Client(app()))
    };
    for seconds in [10, 20, 15] {
        ready(store.revoke(until(seconds)));
    }
    ready(store.heartbeat(NOW, UnixTime::MAX));
    let rules = || ready(store.rules(vec![RuleKey::Client(app())])).rules.len();
    assert_eq!(maintain(&store, secs(20), 10), done(0, 0, 2));
    assert_eq!(rules(), 1);
    assert_eq!(maintain(&store, secs(21), 10), done(0, 0, 2));
    assert_eq!(rules(), 0);
}

#[test]
fn a_revoked_grant_stays_until_its_row_ends() {
    let store = store();
    insert(&store, &grant(1), &[]);
    revoke(&store, Target::Grant(id(1)));
    assert_eq!(maintain(&store, secs(999), 10), done(0, 0, 0));
    assert!(is_revoked(&store, id(1)));
}
