use cloakroom_core::revocation::{Cursor, Epoch, LogEvent, Revocation, Rule, RuleKey, Target};
use cloakroom_core::store::{RevokeOutcome, TokenStore, TokenStoreExt};
use cloakroom_core::{ClientId, Jti, Kid, Subject};

use crate::support::*;

#[test]
fn revoking_a_grant_is_idempotent_and_logged_each_time() {
    let store = store();
    let grant = grant(1);
    insert(&store, &grant, &[token(&grant, 10)]);
    let target = Target::Grant(grant.id);
    assert_eq!(ready(store.revoke(revocation(target.clone()))), RevokeOutcome::Done);
    let later = Revocation { at: secs(5), ..revocation(target.clone()) };
    assert_eq!(ready(store.revoke(later)), RevokeOutcome::Done);

    let found = found(&store, grant.id, Some(digest(10)));
    assert_eq!(found.grant.revoked_at, Some(NOW), "the first one counts");
    assert_eq!(found.token.unwrap().revoked_at, None, "one write, one row");
    let (entries, ..) = read(&store, Cursor::start(), 10);
    let event = LogEvent::Revoked { target, bound: None, client: None, grant: None };
    assert_eq!(entries.len(), 2);
    assert!(entries.iter().all(|entry| entry.event == event));
    assert_ne!(entries[0].id, entries[1].id);
}

#[test]
fn revoking_a_token_leaves_the_others() {
    let store = store();
    let grant = grant(1);
    insert(&store, &grant, &[token(&grant, 10), token(&grant, 11)]);
    let target = |seed, grant| Target::Token { grant, digest: digest(seed) };
    revoke(&store, target(10, grant.id));
    revoke(&store, target(99, grant.id));
    revoke(&store, target(11, id(7)));
    let revoked_at = |seed| {
        let found = found(&store, grant.id, Some(digest(seed)));
        assert_eq!(found.grant.revoked_at, None);
        found.token.unwrap().revoked_at
    };
    assert_eq!((revoked_at(10), revoked_at(11)), (Some(NOW), None));
    assert_eq!(read(&store, Cursor::start(), 10).0.len(), 3, "absent ones, too");
}

#[test]
fn a_subject_or_client_is_revoked_up_to_the_bound() {
    let bob = Subject::user("bob").unwrap();
    let tv = ClientId::new("tv").unwrap();
    // Whether each of (alice, app), (alice, tv), (bob, app) is revoked.
    for (target, expected) in [
        (Target::Subject(alice()), [true, true, false]),
        (Target::Client(app()), [true, false, true]),
        (Target::SubjectAtClient(alice(), app()), [true, false, false]),
    ] {
        let store = store();
        let mut grants = [grant(1), grant(2), grant(3), grant(4)];
        grants[1].client = tv.clone();
        grants[2].subject = bob.clone();
        // A grant that took its epoch when this revocation had already been allotted its bound.
        grants[3].epoch = newest_bound(&store).next_bound(NOW).following();
        for grant in &grants {
            insert(&store, grant, &[]);
        }
        revoke(&store, target.clone());
        let revoked: Vec<bool> = (1..=4).map(|seed| is_revoked(&store, id(seed))).collect();
        assert_eq!(revoked[..3], expected, "{target:?}");
        assert!(!revoked[3], "{target:?} reached a newer grant");
    }
}

#[test]
fn a_sweep_reaches_every_page() {
    let store = store();
    for seed in 0..2_500 {
        insert(&store, &grant(seed), &[]);
    }
    revoke(&store, Target::Client(app()));
    assert!((0..2_500).all(|seed| is_revoked(&store, id(seed))));
}

#[test]
fn bounds_only_grow_and_stand_in_the_log() {
    let store = store();
    let start = Epoch::new(NOW.as_millis());
    assert_eq!(newest_bound(&store), start, "a new log starts at the current time");
    assert_eq!(ready(store.epoch()), start.following());

    let mut expected = Vec::new();
    // At the same time, later, and by a clock that went back.
    for at in [NOW, secs(60), NOW] {
        let bound = newest_bound(&store).next_bound(at);
        expected.push(Some(bound));
        let target = Target::Subject(alice());
        ready(store.revoke(Revocation { at, ..revocation(target) }));
        assert_eq!(newest_bound(&store), bound);
    }
    assert!(expected.is_sorted_by(|a, b| a < b));
    let bounds: Vec<Option<Epoch>> = read(&store, Cursor::start(), 10)
        .0
        .iter()
        .map(|entry| match &entry.event {
            LogEvent::Revoked { bound, .. } => *bound,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(bounds, expected);

    revoke(&store, Target::Grant(id(1)));
    assert_eq!(Some(newest_bound(&store)), expected[2], "a grant takes no bound");
}

#[test]
fn rules_are_found_by_their_keys() {
    let store = store();
    let (jti, kid) = (Jti::new("j").unwrap(), Kid::new("k").unwrap());
    let key = RuleKey::SubjectAtClient(alice(), app());
    revoke(&store, Target::Jti(jti.clone()));
    revoke(&store, Target::Key(kid.clone()));
    let sooner = Revocation {
        until: secs(1),
        rule_until: secs(1),
        ..revocation(Target::SubjectAtClient(alice(), app()))
    };
    revoke(&store, Target::SubjectAtClient(alice(), app()));
    ready(store.revoke(sooner));

    let asked = vec![
        key.clone(),
        RuleKey::Jti(jti.clone()),
        RuleKey::Key(kid.clone()),
        RuleKey::Subject(alice()),
        key.clone(),
    ];
    let rules = ready(store.rules(asked));
    let rule = |key, bound| Rule { key, bound, until: secs(2_000) };
    assert_eq!(rules.rules.len(), 3, "at most one for each key");
    for expected in [
        rule(key, Some(rules.newest_bound)),
        rule(RuleKey::Jti(jti), None),
        rule(RuleKey::Key(kid), None),
    ] {
        assert!(rules.rules.contains(&expected), "{expected:?}");
    }
}
