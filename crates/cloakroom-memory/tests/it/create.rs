use cloakroom_core::revocation::Target;
use cloakroom_core::store::{AdvanceOutcome, CreateOutcome, Lookup, TokenStore, TokenStoreExt};
use cloakroom_core::{ClientId, Subject};

use crate::support::*;

#[test]
fn a_grant_is_found_with_the_token_asked_for() {
    let store = store();
    let (a, b) = (grant(1), grant(2));
    let tokens = [token(&a, 12), token(&a, 10), token(&a, 11)];
    insert(&store, &a, &tokens);
    insert(&store, &b, &[token(&b, 20)]);

    for token in &tokens {
        let found = found(&store, a.id, Some(token.digest));
        assert_eq!(*found.grant, a);
        assert_eq!(found.token.as_deref(), Some(token));
    }
    assert_eq!(found(&store, a.id, None).token, None);
    assert_eq!(found(&store, a.id, Some(digest(20))).token, None, "another grant's");
    assert_eq!(ready(store.find(id(3), Some(digest(20)))), Lookup::Absent);
}

#[test]
fn a_clone_shares_the_state() {
    let (store, grant) = (store(), grant(1));
    insert(&store.clone(), &grant, &[]);
    assert_eq!(*found(&store, grant.id, None).grant, grant);
}

#[test]
fn debug_shows_nothing_of_what_is_kept() {
    let store = store();
    insert(&store, &grant(1), &[]);
    assert_eq!(format!("{store:?}"), "MemoryStore { .. }");
}

#[test]
fn another_grant_is_never_overwritten() {
    let store = store();
    let first = grant(1);
    insert(&store, &first, &[]);
    let mut other = first.clone();
    other.subject = Subject::user("mallory").unwrap();
    assert_eq!(ready(store.create(other, vec![])), CreateOutcome::Exists);
    let with_token = store.create(first.clone(), vec![token(&first, 10)]);
    assert_eq!(ready(with_token), CreateOutcome::Exists);
    assert_eq!(*found(&store, first.id, Some(digest(10))).grant, first);
    assert_eq!(found(&store, first.id, Some(digest(10))).token, None);
}

#[test]
fn a_retry_is_inserted_as_long_as_nothing_happened() {
    let store = store();
    let grant = grant(1);
    let tokens = [token(&grant, 10)];
    insert(&store, &grant, &tokens);
    insert(&store, &grant, &tokens);

    let target = Target::Token { grant: grant.id, digest: digest(10) };
    revoke(&store, target);
    insert(&store, &grant, &tokens);
    let token = found(&store, grant.id, Some(digest(10))).token.unwrap();
    assert_eq!(token.revoked_at, Some(NOW), "a retry does not bring a token back");

    let mut other = tokens[0].clone();
    other.expires_at = secs(101);
    let retry = store.create(grant.clone(), vec![other]);
    assert_eq!(ready(retry), CreateOutcome::Exists, "not what was written");

    let next = moved(&grant, 2);
    assert_eq!(ready(store.advance(move_to(&grant, &next))), AdvanceOutcome::Advanced);
    let retry = store.create(grant.clone(), tokens.to_vec());
    assert_eq!(ready(retry), CreateOutcome::Exists, "it has moved on");
}

#[test]
fn a_retry_of_a_revoked_grant_is_barred() {
    let store = store();
    let grant = grant(1);
    insert(&store, &grant, &[]);
    revoke(&store, Target::Grant(grant.id));
    assert_eq!(ready(store.create(grant.clone(), vec![])), CreateOutcome::Barred);
    assert!(is_revoked(&store, grant.id));
}

#[test]
fn a_tombstone_bars_and_shows() {
    let store = store();
    revoke(&store, Target::Grant(id(1)));
    assert_eq!(ready(store.create(grant(1), vec![])), CreateOutcome::Barred);
    assert_eq!(ready(store.find(id(1), None)), Lookup::Tombstone);
}

#[test]
fn rules_bar_older_epochs_and_no_newer_ones() {
    for target in
        [Target::Subject(alice()), Target::Client(app()), Target::SubjectAtClient(alice(), app())]
    {
        let store = store();
        let old = grant(1);
        revoke(&store, target.clone());
        let tokens = vec![token(&old, 10)];
        let created = ready(store.create(old.clone(), tokens.clone()));
        assert_eq!(created, CreateOutcome::Barred, "{target:?}");
        assert!(is_revoked(&store, old.id), "nothing live is left behind");
        assert_eq!(ready(store.create(old, tokens)), CreateOutcome::Barred, "again");

        let mut at_bound = grant(2);
        at_bound.epoch = newest_bound(&store);
        assert_eq!(ready(store.create(at_bound, vec![])), CreateOutcome::Barred);

        let mut login = grant(3);
        login.epoch = ready(store.epoch());
        insert(&store, &login, &[]);
        assert!(!is_revoked(&store, login.id));
    }
}

#[test]
fn rules_reach_nobody_else() {
    let store = store();
    for target in [
        Target::Subject(Subject::client("alice").unwrap()),
        Target::Subject(Subject::user("Alice").unwrap()),
        Target::Subject(Subject::user("alice ").unwrap()),
        Target::Client(ClientId::new("App").unwrap()),
        Target::SubjectAtClient(alice(), ClientId::new("other").unwrap()),
        Target::SubjectAtClient(Subject::user("bob").unwrap(), app()),
    ] {
        revoke(&store, target);
    }
    insert(&store, &grant(1), &[]);
    assert!(!is_revoked(&store, id(1)));
}

#[test]
fn misuse_writes_nothing() {
    let store = store();
    let (own, other) = (grant(1), grant(2));
    assert!(is_misuse(store.create(own.clone(), vec![token(&other, 10)])));

    let mut longer = token(&own, 10);
    longer.expires_at = secs(200);
    let twice = vec![token(&own, 10), longer];
    let among_others = [vec![token(&own, 11)], twice.clone()].concat();
    for tokens in [twice, among_others] {
        assert!(is_misuse(store.create(own.clone(), tokens)));
    }
    assert_eq!(ready(store.find(own.id, None)), Lookup::Absent);
    insert(&store, &own, &[token(&own, 10), token(&own, 10)]);
}
