use std::time::Duration;

use cloakroom_core::{GrantId, Jti, Kid, Subject, Target, TokenDigest, TokenKind};

use super::super::test_kit::{
    HOUR, START, alice, client, entry, grant, heartbeat, of_client, revoked, secs, token,
    with_bound,
};
use super::*;

const LIMITS: Limits = Limits { per_client: 3, per_grant: 3, total: 100 };
const BY_GRANT: Limits = Limits { per_client: 5, per_grant: 2, total: 100 };
const EPOCH: u64 = START.as_millis();

fn rules(entries: &[LogEntry]) -> Rules {
    let mut rules = Rules::new(LIMITS);
    for entry in entries {
        rules.apply(entry);
    }
    rules
}

fn sweep(rules: &mut Rules, now: UnixTime) {
    while rules.sweep(now, 1) {}
}

fn digest(of: &str) -> TokenDigest {
    TokenDigest::compute(TokenKind::Access, of.as_bytes())
}

/// What introspection shows of the handle with this digest.
fn introspected(digest: &TokenDigest) -> Facts {
    let half = GrantId::from_digest(digest).to_string();
    Facts { jti: Some(Jti::new(half).unwrap()), ..token(1) }
}

/// The phantom JWT of the handle with this digest.
fn swapped(digest: &TokenDigest) -> Facts {
    Facts { handle_hash: Some(cloakroom_jwt::handle_hash(digest)), ..token(1) }
}

#[test]
fn every_target_denies_what_it_names_and_nothing_else() {
    let kid = |name| Some(Kid::new(name).unwrap());
    let handle = |of| Target::Token { grant: grant(1), digest: digest(of) };
    let bob = Some(Subject::user("bob").unwrap());
    let other_client = Some(client("other"));
    for (target, denied, clear) in [
        (handle("a"), introspected(&digest("a")), introspected(&digest("b"))),
        (handle("a"), swapped(&digest("a")), swapped(&digest("b"))),
        (Target::Jti(Jti::new("jti-1").unwrap()), token(1), token(2)),
        (Target::Grant(grant(1)), token(1), token(2)),
        (
            Target::Key(Kid::new("a").unwrap()),
            Facts { kid: kid("a"), ..token(1) },
            Facts { kid: kid("b"), ..token(1) },
        ),
        (Target::Key(Kid::new("a").unwrap()), Facts { kid: kid("a"), ..token(1) }, token(1)),
        (Target::Subject(alice()), token(1), Facts { subject: bob.clone(), ..token(1) }),
        (
            Target::Client(client("app")),
            token(1),
            Facts { client: other_client.clone(), ..token(1) },
        ),
        (
            Target::SubjectAtClient(alice(), client("app")),
            token(1),
            Facts { client: other_client, ..token(1) },
        ),
        (
            Target::SubjectAtClient(alice(), client("app")),
            token(1),
            Facts { subject: bob, ..token(1) },
        ),
    ] {
        let bound = target.has_bound().then_some(EPOCH);
        let entry = bound.map_or_else(
            || entry(target.clone(), START + HOUR),
            |bound| with_bound(target.clone(), bound),
        );
        let rules = rules(&[entry]);
        assert_eq!(rules.verdict(&denied), Verdict::Denied, "{target:?}");
        assert_eq!(rules.verdict(&clear), Verdict::Clear, "{target:?}");
    }
}

#[test]
fn two_tokens_of_one_grant_end_together() {
    let rules = rules(&[revoked(1)]);
    let other = Facts { jti: Some(Jti::new("another").unwrap()), ..token(1) };
    assert_eq!(rules.verdict(&token(1)), Verdict::Denied);
    assert_eq!(rules.verdict(&other), Verdict::Denied);
}

#[test]
fn a_revoked_handle_leaves_the_others_of_its_grant() {
    let rules =
        rules(&[entry(Target::Token { grant: grant(1), digest: digest("a") }, START + HOUR)]);
    assert_eq!(rules.verdict(&swapped(&digest("a"))), Verdict::Denied);
    assert_eq!(rules.verdict(&token(1)), Verdict::Clear);
}

#[test]
fn a_bound_denies_up_to_itself_and_not_the_login_right_after() {
    let login = |epoch| Facts { epoch: Some(Epoch::new(epoch)), ..token(1) };
    for target in [
        Target::Subject(alice()),
        Target::Client(client("app")),
        Target::SubjectAtClient(alice(), client("app")),
    ] {
        let rules = rules(&[with_bound(target, EPOCH)]);
        assert_eq!(rules.verdict(&login(EPOCH - 1)), Verdict::Denied);
        assert_eq!(rules.verdict(&login(EPOCH)), Verdict::Denied);
        let next = Epoch::new(EPOCH).following().get();
        assert_eq!(rules.verdict(&login(next)), Verdict::Clear);
    }
}

#[test]
fn without_an_epoch_the_time_of_issue_counts() {
    let issued = |issued_at| Facts { epoch: None, issued_at, ..token(1) };
    let rules = rules(&[with_bound(Target::Subject(alice()), EPOCH)]);
    assert_eq!(rules.verdict(&issued(Some(START))), Verdict::Denied);
    assert_eq!(rules.verdict(&issued(None)), Verdict::Denied, "it does not say when");
    assert_eq!(rules.verdict(&issued(Some(START + secs(1)))), Verdict::Unknown);
}

#[test]
fn what_lacks_the_facts_that_rules_go_by_is_never_clear() {
    let rules = rules(&[with_bound(Target::Subject(alice()), EPOCH - 1)]);
    assert_eq!(rules.verdict(&token(1)), Verdict::Clear);
    for lacking in [
        Facts { grant: None, ..token(1) },
        Facts { epoch: None, ..token(1) },
        Facts { subject: None, ..token(1) },
        Facts { client: None, ..token(1) },
        Facts { jti: None, ..token(1) },
    ] {
        assert_eq!(rules.verdict(&lacking), Verdict::Unknown, "{lacking:?}");
    }
    let old = Epoch::new(EPOCH - 1);
    let denied = Facts { grant: None, client: None, jti: None, epoch: Some(old), ..token(1) };
    assert_eq!(rules.verdict(&denied), Verdict::Denied, "what is missing does not help it");
}

#[test]
fn a_user_is_not_the_client_of_the_same_name() {
    let rules = rules(&[with_bound(Target::Subject(Subject::client("alice").unwrap()), EPOCH)]);
    assert_eq!(rules.verdict(&token(1)), Verdict::Clear);
}

#[test]
fn a_second_rule_keeps_the_later_bound_and_the_later_end() {
    let rule = |bound, until| LogEntry {
        until: START + secs(until),
        ..with_bound(Target::Subject(alice()), bound)
    };
    for order in [[0, 1], [1, 0]] {
        let both = [rule(EPOCH, 10), rule(EPOCH - 5, 20)];
        let mut rules = rules(&[both[order[0]].clone(), both[order[1]].clone()]);
        assert_eq!(rules.len(), 1);
        sweep(&mut rules, START + secs(19));
        assert_eq!(rules.verdict(&token(1)), Verdict::Denied);
        sweep(&mut rules, START + secs(20));
        assert_eq!((rules.verdict(&token(1)), rules.len()), (Verdict::Clear, 0));
    }
}

#[test]
fn an_entry_that_is_taken_over_again_changes_nothing() {
    let entries = [
        revoked(1),
        of_client(Target::Grant(grant(2)), "app", START + HOUR),
        entry(Target::Token { grant: grant(1), digest: digest("a") }, START + HOUR),
        with_bound(Target::Client(client("app")), EPOCH - 1),
        heartbeat(START),
    ];
    let mut rules = rules(&entries);
    assert_eq!(rules.len(), 5);
    for _ in 0..5 {
        for entry in &entries {
            rules.apply(entry);
        }
    }
    assert_eq!((rules.len(), rules.ends.len(), rules.debris.len()), (5, 5, 0));
    sweep(&mut rules, START + HOUR);
    assert_eq!((rules.len(), rules.ends.len(), rules.singles.len()), (0, 0, 0));
}

#[test]
fn a_rule_ends_when_its_entry_says() {
    let mut rules = rules(&[revoked(1)]);
    sweep(&mut rules, START + HOUR - Duration::from_millis(1));
    assert_eq!(rules.verdict(&token(1)), Verdict::Denied);
    sweep(&mut rules, START + HOUR);
    assert_eq!((rules.verdict(&token(1)), rules.len()), (Verdict::Clear, 0));
}

/// Revokes so many grants of `app`, from 1 on, each of which ends a second after the one before.
fn crowd(count: u64) -> Rules {
    let entries = (1..=count)
        .map(|number| of_client(Target::Grant(grant(number)), "app", START + secs(number)));
    rules(&entries.collect::<Vec<_>>())
}

#[test]
fn a_client_that_revokes_in_masses_is_introspected() {
    let mut rules = crowd(3);
    assert_eq!(rules.verdict(&token(1)), Verdict::Denied);
    assert_eq!(rules.verdict(&token(4)), Verdict::Clear);

    rules = crowd(4);
    sweep(&mut rules, START);
    assert_eq!(rules.len(), 1, "the mark alone");
    for number in 1..=5 {
        assert_eq!(rules.verdict(&token(number)), Verdict::Unknown, "never denied, never clear");
    }
    let others = Facts { client: Some(client("other")), ..token(5) };
    assert_eq!(rules.verdict(&others), Verdict::Clear);

    // What names many is not forgotten, nor is it counted.
    rules.apply(&with_bound(Target::Subject(alice()), EPOCH));
    assert_eq!(rules.verdict(&token(9)), Verdict::Denied);
}

/// Revokes so many tokens of the first grant, one by one; each entry ends a second after the last.
fn grant_crowd(count: u64) -> Rules {
    let entries = (1..=count).map(|number| {
        let jti = Jti::new(format!("jti-of-one-{number}")).unwrap();
        let mut entry = of_client(Target::Jti(jti), "app", START + secs(number));
        let LogEvent::Revoked { grant: of, .. } = &mut entry.event else { unreachable!() };
        *of = Some(grant(1));
        entry
    });
    let mut rules = Rules::new(BY_GRANT);
    for entry in entries {
        rules.apply(&entry);
    }
    rules
}

#[test]
fn one_grant_that_revokes_in_masses_is_introspected_alone() {
    let mut rules = grant_crowd(100);
    for _ in 0..300 {
        assert_eq!(rules.verdict(&token(1)), Verdict::Unknown);
        assert_eq!(rules.verdict(&token(2)), Verdict::Clear, "another login at the same client");
        rules.sweep(START, 1);
    }
    assert_eq!(rules.len(), 1, "its mark alone");
    sweep(&mut rules, START + secs(99));
    assert_eq!(rules.verdict(&token(1)), Verdict::Unknown);
    sweep(&mut rules, START + secs(100));
    assert_eq!((rules.verdict(&token(1)), rules.len()), (Verdict::Clear, 0));
}

#[test]
fn a_crowd_of_handles_knows_its_grant() {
    let mut rules = Rules::new(BY_GRANT);
    for number in 0..5 {
        let digest = TokenDigest::from_bytes([number; 32]);
        let target = Target::Token { grant: grant(1), digest };
        rules.apply(&of_client(target, "app", START + HOUR));
    }
    sweep(&mut rules, START);
    assert_eq!((rules.verdict(&token(1)), rules.len()), (Verdict::Unknown, 1));
    assert_eq!(rules.verdict(&token(2)), Verdict::Clear);
}

#[test]
fn the_mark_of_a_grant_counts_for_its_client() {
    let mut rules = grant_crowd(3);
    sweep(&mut rules, START);
    for number in 2..=6 {
        assert_eq!(rules.verdict(&token(9)), Verdict::Clear);
        rules.apply(&of_client(Target::Grant(grant(number)), "app", START + secs(number)));
    }
    // Six names of the client: five grants, and the mark of the first.
    while rules.sweep(START, 1) {
        assert_ne!(rules.verdict(&token(1)), Verdict::Clear);
    }
    assert_eq!(rules.len(), 1, "the mark of the client");
    assert_eq!(rules.verdict(&token(9)), Verdict::Unknown);
    sweep(&mut rules, START + secs(6));
    assert_eq!((rules.verdict(&token(1)), rules.len()), (Verdict::Clear, 0));
}

#[test]
fn the_mark_of_a_client_ends_with_the_last_of_its_rules() {
    let mut rules = crowd(4);
    sweep(&mut rules, START + secs(3));
    assert_eq!(rules.verdict(&token(4)), Verdict::Unknown);
    // While there is a mark, what the client revokes makes it last, and is not held.
    rules.apply(&of_client(Target::Grant(grant(5)), "app", START + secs(20)));
    rules.apply(&of_client(Target::Grant(grant(6)), "app", START + secs(5)));
    assert_eq!(rules.len(), 1);
    sweep(&mut rules, START + secs(19));
    assert_eq!(rules.verdict(&token(5)), Verdict::Unknown);
    sweep(&mut rules, START + secs(20));
    assert_eq!((rules.verdict(&token(5)), rules.len()), (Verdict::Clear, 0));
    // Then it is counted anew.
    rules.apply(&of_client(Target::Grant(grant(7)), "app", START + secs(30)));
    assert_eq!(rules.verdict(&token(7)), Verdict::Denied);
}

#[test]
fn what_is_revoked_is_not_clear_while_its_rule_is_dropped() {
    let mut rules = crowd(4);
    // An administrator revokes one of them again, for longer, before it is dropped.
    rules.apply(&entry(Target::Grant(grant(1)), START + HOUR));
    loop {
        for number in 1..=4 {
            assert_ne!(rules.verdict(&token(number)), Verdict::Clear);
        }
        if !rules.sweep(START + secs(100), 1) {
            break;
        }
    }
    assert_eq!((rules.verdict(&token(1)), rules.len()), (Verdict::Unknown, 1));
    sweep(&mut rules, START + HOUR);
    assert_eq!(rules.verdict(&token(1)), Verdict::Clear);
}

#[test]
fn only_what_a_client_could_make_up_counts_for_it() {
    let mut rules = Rules::new(LIMITS);
    for number in 0..10 {
        let user = Subject::user(format!("user-{number}")).unwrap();
        rules.apply(&entry(Target::Grant(grant(number)), START + HOUR));
        rules.apply(&of_client(Target::Subject(user), "app", START + HOUR));
        rules.apply(&of_client(Target::Grant(grant(100 + number)), &format!("c{number}"), START));
    }
    assert_eq!(rules.len(), 30);
    assert_eq!(rules.verdict(&token(50)), Verdict::Clear);
    // A handle counts twice, and whatever has ended no longer.
    for number in 0..4 {
        let target = Target::Token { grant: grant(1), digest: digest(&format!("{number}")) };
        rules.apply(&of_client(target, "app", START + secs(number)));
        sweep(&mut rules, START + secs(number));
    }
    assert_eq!(rules.verdict(&token(50)), Verdict::Clear);
    for of in ["a", "b"] {
        let target = Target::Token { grant: grant(1), digest: digest(of) };
        rules.apply(&of_client(target, "app", START + HOUR));
    }
    assert_eq!(rules.verdict(&token(50)), Verdict::Unknown);
}

#[test]
fn no_more_rules_are_held_than_allowed() {
    let mut rules = Rules::new(Limits { per_client: 3, per_grant: 3, total: 8 });
    for number in 0..8 {
        rules.apply(&revoked(number));
    }
    assert!(!rules.take_overflow() && !rules.has_room());
    rules.apply(&revoked(8));
    assert_eq!((rules.len(), rules.take_overflow(), rules.take_overflow()), (8, true, false));
    // What is held may be prolonged.
    rules.apply(&entry(Target::Grant(grant(0)), START + HOUR + HOUR));
    assert!(!rules.take_overflow());
    sweep(&mut rules, START + HOUR);
    assert_eq!((rules.len(), rules.has_room()), (1, true));
    assert_eq!(rules.verdict(&token(0)), Verdict::Denied);
}
