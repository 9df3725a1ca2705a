use std::time::Duration;

use cloakroom_core::revocation::Target;
use cloakroom_core::{GrantId, Jti, Kid, Subject, TokenDigest, TokenKind};

use super::super::test_kit::{
    HOUR, START, alice, client, entry, grant, heartbeat, of_client, revoked, secs, token,
    with_bound,
};
use super::*;

const LIMITS: Limits = Limits { per_grant: 100, total: 100 };
const EPOCH: u64 = START.as_millis();

fn rules(entries: &[LogEntry]) -> Rules {
    let mut rules = Rules::new(LIMITS);
    apply(&mut rules, entries);
    rules
}

fn apply(rules: &mut Rules, entries: &[LogEntry]) {
    for entry in entries {
        rules.apply(entry);
    }
}

fn assert_empty(rules: &Rules) {
    assert_eq!((rules.len(), rules.ends.len(), rules.of_grants.len()), (0, 0, 0));
    assert!(rules.of_clients.is_empty() && rules.marks == 0 && rules.everyone.is_none());
}

fn sweep(rules: &mut Rules, now: UnixTime) {
    while rules.sweep(now, 1) {}
}

fn digest(of: &str) -> TokenDigest {
    TokenDigest::compute(TokenKind::Access, of.as_bytes())
}

/// What introspection shows of the handle with this digest.
fn introspected(digest: &TokenDigest) -> TokenFacts {
    let half = GrantId::from_digest(digest).to_string();
    TokenFacts { jti: Some(Jti::new(half).unwrap()), ..token(1) }
}

/// The phantom JWT of the handle with this digest.
fn swapped(digest: &TokenDigest) -> TokenFacts {
    TokenFacts { handle_hash: Some(cloakroom_jwt::handle_hash(digest)), ..token(1) }
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
            TokenFacts { kid: kid("a"), ..token(1) },
            TokenFacts { kid: kid("b"), ..token(1) },
        ),
        (Target::Key(Kid::new("a").unwrap()), TokenFacts { kid: kid("a"), ..token(1) }, token(1)),
        (Target::Subject(alice()), token(1), TokenFacts { subject: bob.clone(), ..token(1) }),
        (
            Target::Client(client("app")),
            token(1),
            TokenFacts { client: other_client.clone(), ..token(1) },
        ),
        (
            Target::SubjectAtClient(alice(), client("app")),
            token(1),
            TokenFacts { client: other_client, ..token(1) },
        ),
        (
            Target::SubjectAtClient(alice(), client("app")),
            token(1),
            TokenFacts { subject: bob, ..token(1) },
        ),
    ] {
        let bound = target.has_bound().then_some(EPOCH);
        let entry = bound.map_or_else(
            || entry(target.clone(), START + HOUR),
            |bound| with_bound(target.clone(), bound),
        );
        let rules = rules(&[entry]);
        assert_eq!(rules.revocation_status(&denied), RevocationStatus::Revoked, "{target:?}");
        assert_eq!(rules.revocation_status(&clear), RevocationStatus::NotRevoked, "{target:?}");
    }
}

#[test]
fn two_tokens_of_one_grant_end_together() {
    let rules = rules(&[revoked(1)]);
    let other = TokenFacts { jti: Some(Jti::new("another").unwrap()), ..token(1) };
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::Revoked);
    assert_eq!(rules.revocation_status(&other), RevocationStatus::Revoked);
}

#[test]
fn a_revoked_handle_leaves_the_others_of_its_grant() {
    let rules =
        rules(&[entry(Target::Token { grant: grant(1), digest: digest("a") }, START + HOUR)]);
    assert_eq!(rules.revocation_status(&swapped(&digest("a"))), RevocationStatus::Revoked);
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::NotRevoked);
}

#[test]
fn a_bound_denies_up_to_itself_and_not_the_login_right_after() {
    let login = |epoch| TokenFacts { epoch: Some(Epoch::new(epoch)), ..token(1) };
    for target in [
        Target::Subject(alice()),
        Target::Client(client("app")),
        Target::SubjectAtClient(alice(), client("app")),
    ] {
        let rules = rules(&[with_bound(target, EPOCH)]);
        assert_eq!(rules.revocation_status(&login(EPOCH - 1)), RevocationStatus::Revoked);
        assert_eq!(rules.revocation_status(&login(EPOCH)), RevocationStatus::Revoked);
        let next = Epoch::new(EPOCH).following().get();
        assert_eq!(rules.revocation_status(&login(next)), RevocationStatus::NotRevoked);
    }
}

#[test]
fn without_an_epoch_the_time_of_issue_counts() {
    let issued = |issued_at| TokenFacts { epoch: None, issued_at, ..token(1) };
    let rules = rules(&[with_bound(Target::Subject(alice()), EPOCH)]);
    assert_eq!(rules.revocation_status(&issued(Some(START))), RevocationStatus::Revoked);
    assert_eq!(
        rules.revocation_status(&issued(None)),
        RevocationStatus::Revoked,
        "it does not say when"
    );
    assert_eq!(rules.revocation_status(&issued(Some(START + secs(1)))), RevocationStatus::Unknown);
}

#[test]
fn what_lacks_the_facts_that_rules_go_by_is_never_clear() {
    let rules = rules(&[with_bound(Target::Subject(alice()), EPOCH - 1)]);
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::NotRevoked);
    for lacking in [
        TokenFacts { grant: None, ..token(1) },
        TokenFacts { epoch: None, ..token(1) },
        TokenFacts { subject: None, ..token(1) },
        TokenFacts { client: None, ..token(1) },
        TokenFacts { jti: None, ..token(1) },
    ] {
        assert_eq!(rules.revocation_status(&lacking), RevocationStatus::Unknown, "{lacking:?}");
    }
    let old = Epoch::new(EPOCH - 1);
    let denied = TokenFacts { grant: None, client: None, jti: None, epoch: Some(old), ..token(1) };
    assert_eq!(
        rules.revocation_status(&denied),
        RevocationStatus::Revoked,
        "what is missing does not help it"
    );
}

#[test]
fn a_user_is_not_the_client_of_the_same_name() {
    let rules = rules(&[with_bound(Target::Subject(Subject::client("alice").unwrap()), EPOCH)]);
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::NotRevoked);
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
        assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::Revoked);
        sweep(&mut rules, START + secs(20));
        assert_eq!(
            (rules.revocation_status(&token(1)), rules.len()),
            (RevocationStatus::NotRevoked, 0)
        );
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
    assert_eq!((rules.len(), rules.ends.len(), rules.of_grants.len()), (5, 5, 2));
    sweep(&mut rules, START + HOUR);
    assert_empty(&rules);
}

#[test]
fn a_rule_ends_when_its_entry_says() {
    let mut rules = rules(&[revoked(1)]);
    sweep(&mut rules, START + HOUR - Duration::from_millis(1));
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::Revoked);
    sweep(&mut rules, START + HOUR);
    assert_eq!(
        (rules.revocation_status(&token(1)), rules.len()),
        (RevocationStatus::NotRevoked, 0)
    );
}

/// Revocations of these grants of a client, each of which ends as many seconds after the start.
fn of(client: &str, numbers: std::ops::RangeInclusive<u64>) -> Vec<LogEntry> {
    let revoked = |number| of_client(Target::Grant(grant(number)), client, START + secs(number));
    numbers.map(revoked).collect()
}

/// Revocations of so many tokens of one grant of `app`, each of which ends a second after the one
/// before.
fn of_grant(number: u64, count: u64) -> Vec<LogEntry> {
    let revoked = |second| {
        let jti = Jti::new(format!("jti-of-{number}-{second}")).unwrap();
        let mut entry = of_client(Target::Jti(jti), "app", START + secs(second));
        let LogEvent::Revoked { grant: of, .. } = &mut entry.event else { unreachable!() };
        *of = Some(grant(number));
        entry
    };
    (1..=count).map(revoked).collect()
}

fn at_client(name: &str, number: u64) -> TokenFacts {
    TokenFacts { client: Some(client(name)), ..token(number) }
}

#[test]
fn what_ends_first_makes_room_and_is_not_clear_until_it_has_ended() {
    let mut rules = Rules::new(Limits { total: 4, ..LIMITS });
    apply(&mut rules, &of("app", 1..=4));
    assert_eq!(
        rules.revocation_status(&token(9)),
        RevocationStatus::NotRevoked,
        "there is room for four"
    );
    apply(&mut rules, &of("app", 5..=6));
    // The mark stands for the first three.
    let check = |rules: &Rules, gone, held: std::ops::RangeInclusive<u64>| {
        assert_eq!(rules.revocation_status(&at_client("other", 1)), RevocationStatus::NotRevoked);
        for number in 1..=9 {
            let expected = if held.contains(&number) { RevocationStatus::Revoked } else { gone };
            assert_eq!(rules.revocation_status(&token(number)), expected, "{number}");
        }
    };
    check(&rules, RevocationStatus::Unknown, 4..=6);
    assert_eq!(rules.len(), 4);
    sweep(&mut rules, START + secs(3) - Duration::from_millis(1));
    check(&rules, RevocationStatus::Unknown, 4..=6);
    sweep(&mut rules, START + secs(3));
    check(&rules, RevocationStatus::NotRevoked, 4..=6);
    // As soon as there is room again, there is no mark.
    apply(&mut rules, &of("app", 7..=7));
    check(&rules, RevocationStatus::NotRevoked, 4..=7);
    sweep(&mut rules, START + secs(7));
    assert_empty(&rules);
}

#[test]
fn later_revocations_do_not_prolong_a_mark() {
    let mut rules = Rules::new(Limits { total: 10, ..LIMITS });
    apply(&mut rules, &of("app", 1..=100));
    let mut marked_until = None;
    for second in 1..=1_000 {
        sweep(&mut rules, START + secs(second));
        // One every twenty seconds, which lives for a hundred.
        if second % 20 == 0 {
            apply(&mut rules, &of("app", 100 + second..=100 + second));
            assert_eq!(
                rules.revocation_status(&token(100 + second)),
                RevocationStatus::Revoked,
                "{second}"
            );
        }
        if rules.revocation_status(&token(9_999)) == RevocationStatus::Unknown {
            marked_until = Some(second);
        }
    }
    // When the mark ends, the last rules of the rush are still held.
    assert!(marked_until.is_some_and(|it| (90..100).contains(&it)), "{marked_until:?}");
}

#[test]
fn whoever_has_the_most_makes_room() {
    let mut rules = Rules::new(Limits { total: 200, ..LIMITS });
    apply(&mut rules, &of("modest", 1..=10));
    // Ten clients at once, each in a loop, and one that comes late.
    for round in 1..=50 {
        for attacker in 0..10_u64 {
            let number = 1_000 * (1 + attacker) + round;
            apply(&mut rules, &of(&format!("attacker-{attacker}"), number..=number));
            assert!(rules.len() <= 200);
        }
    }
    apply(&mut rules, &of("late", 11..=20));
    for (name, mut numbers) in [("modest", 1..=10), ("late", 11..=20)] {
        assert!(
            numbers.all(
                |it| rules.revocation_status(&at_client(name, it)) == RevocationStatus::Revoked
            )
        );
        assert_eq!(
            rules.revocation_status(&at_client(name, 99)),
            RevocationStatus::NotRevoked,
            "{name}"
        );
    }
    for attacker in 0..10 {
        let other = at_client(&format!("attacker-{attacker}"), 99);
        assert_eq!(
            rules.revocation_status(&other),
            RevocationStatus::Unknown,
            "never denied, never clear"
        );
    }
}

#[test]
fn a_client_may_use_what_nobody_else_needs() {
    let mut rules = Rules::new(LIMITS);
    apply(&mut rules, &of("app", 1..=100));
    assert!(
        (1..=100)
            .all(|number| rules.revocation_status(&token(number)) == RevocationStatus::Revoked)
    );
    assert_eq!(rules.revocation_status(&token(101)), RevocationStatus::NotRevoked);
}

#[test]
fn one_grant_that_revokes_in_masses_is_introspected_alone() {
    let mut rules = Rules::new(Limits { per_grant: 2, ..LIMITS });
    apply(&mut rules, &of_grant(1, 100));
    assert_eq!(rules.len(), 3, "its mark, and two rules");
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::Unknown);
    assert_eq!(
        rules.revocation_status(&token(2)),
        RevocationStatus::NotRevoked,
        "another login at the same client"
    );
    let last = TokenFacts { jti: Some(Jti::new("jti-of-1-100").unwrap()), ..token(1) };
    assert_eq!(rules.revocation_status(&last), RevocationStatus::Revoked);
    sweep(&mut rules, START + secs(97));
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::Unknown);
    sweep(&mut rules, START + secs(98));
    assert_eq!(
        (rules.revocation_status(&token(1)), rules.revocation_status(&last)),
        (RevocationStatus::NotRevoked, RevocationStatus::Revoked)
    );
    sweep(&mut rules, START + secs(100));
    assert_empty(&rules);
}

#[test]
fn a_mass_of_handles_knows_its_grant() {
    // A handle takes two.
    let mut rules = Rules::new(Limits { per_grant: 4, ..LIMITS });
    let handle = |number| {
        let digest = TokenDigest::from_bytes([number; 32]);
        of_client(Target::Token { grant: grant(1), digest }, "app", START + HOUR)
    };
    apply(&mut rules, &[handle(0), handle(1)]);
    assert_eq!(
        (rules.revocation_status(&token(1)), rules.len()),
        (RevocationStatus::NotRevoked, 4)
    );
    apply(&mut rules, &[handle(2)]);
    assert_eq!((rules.revocation_status(&token(1)), rules.len()), (RevocationStatus::Unknown, 5));
    assert_eq!(rules.revocation_status(&token(2)), RevocationStatus::NotRevoked);
}

#[test]
fn the_mark_of_a_grant_counts_for_its_client() {
    let mut rules = Rules::new(Limits { per_grant: 2, total: 4 });
    apply(&mut rules, &of_grant(1, 5));
    assert_eq!(
        (rules.len(), rules.revocation_status(&token(9))),
        (3, RevocationStatus::NotRevoked)
    );
    apply(&mut rules, &of("app", 7..=8));
    // The mark of the grant was the first to end: that of the client stands for it, and for a rule.
    assert_eq!(
        (rules.revocation_status(&token(1)), rules.revocation_status(&token(9))),
        (RevocationStatus::Unknown, RevocationStatus::Unknown)
    );
    assert!(rules.table.find(&RuleTargetRef::GrantOverflow(&grant(1))).is_none());
    sweep(&mut rules, START + secs(4));
    assert_eq!(rules.revocation_status(&token(9)), RevocationStatus::NotRevoked);
    sweep(&mut rules, START + secs(8));
    assert_empty(&rules);
}

#[test]
fn what_had_to_make_room_may_come_again() {
    let mut rules = Rules::new(Limits { total: 4, ..LIMITS });
    apply(&mut rules, &of("app", 1..=6));
    assert_eq!(rules.revocation_status(&token(1)), RevocationStatus::Unknown);
    // An administrator revokes one of them again, for longer.
    apply(&mut rules, &[entry(Target::Grant(grant(1)), START + HOUR)]);
    sweep(&mut rules, START + secs(100));
    assert_eq!(
        (rules.revocation_status(&token(1)), rules.revocation_status(&token(2))),
        (RevocationStatus::Revoked, RevocationStatus::NotRevoked)
    );
    sweep(&mut rules, START + HOUR);
    assert_empty(&rules);
}

#[test]
fn only_what_a_client_could_make_up_counts_for_it() {
    let mut rules = Rules::new(Limits { total: 31, ..LIMITS });
    let user = |number| Target::Subject(Subject::user(format!("user-{number}")).unwrap());
    for number in 0..10 {
        rules.apply(&entry(Target::Grant(grant(number)), START + HOUR));
        rules.apply(&of_client(user(number), "app", START + HOUR));
    }
    apply(&mut rules, &of("app", 101..=120));
    assert_eq!(rules.revocation_status(&token(50)), RevocationStatus::Unknown);
    assert!(
        (0..10).all(|number| rules.revocation_status(&token(number)) == RevocationStatus::Revoked)
    );
    let third =
        TokenFacts { subject: Some(Subject::user("user-3").unwrap()), ..at_client("x", 60) };
    assert_eq!(rules.revocation_status(&third), RevocationStatus::Revoked);
    assert_eq!(rules.revocation_status(&at_client("x", 60)), RevocationStatus::NotRevoked);
}

#[test]
fn where_no_client_has_several_all_tokens_are_introspected() {
    let mut rules = Rules::new(Limits { total: 8, ..LIMITS });
    let kid = Kid::new("stolen").unwrap();
    apply(&mut rules, &[entry(Target::Key(kid.clone()), START + secs(1))]);
    // Clients of one rule each, and rules of none.
    for number in 2..=5 {
        apply(&mut rules, &of(&format!("client-{number}"), number..=number));
        let other = 100 + number;
        apply(&mut rules, &[entry(Target::Grant(grant(other)), START + secs(other))]);
    }
    assert_eq!(rules.len(), 8);
    assert_eq!(
        rules.revocation_status(&token(2)),
        RevocationStatus::Unknown,
        "it was the first to end"
    );
    assert_eq!(rules.revocation_status(&at_client("anybody", 9)), RevocationStatus::Unknown);
    for number in [3, 4, 5, 102, 103, 104, 105] {
        assert_eq!(rules.revocation_status(&token(number)), RevocationStatus::Revoked, "{number}");
    }
    // A key's rule stays: a thief can make tokens that look younger than any mark.
    let stolen = TokenFacts { kid: Some(kid), ..token(9) };
    assert_eq!(rules.revocation_status(&stolen), RevocationStatus::Revoked);
    sweep(&mut rules, START + secs(2));
    assert_eq!(
        (rules.revocation_status(&token(2)), rules.revocation_status(&token(9))),
        (RevocationStatus::NotRevoked, RevocationStatus::NotRevoked)
    );
    assert_eq!(rules.revocation_status(&token(3)), RevocationStatus::Revoked);
    sweep(&mut rules, START + HOUR);
    assert_empty(&rules);
}

#[test]
fn rules_about_keys_are_held_even_where_there_is_no_room() {
    let mut rules = Rules::new(Limits { total: 0, per_grant: 0 });
    let (kid, kids) = (|number| Kid::new(format!("key-{number}")).unwrap(), 0..5);
    for number in kids.clone() {
        apply(&mut rules, &[entry(Target::Key(kid(number)), START + HOUR)]);
        apply(&mut rules, &of("app", 1..=9));
        apply(&mut rules, &of_grant(1, 9));
    }
    let signed = |number| TokenFacts { kid: Some(kid(number)), ..token(number) };
    assert!(
        kids.clone()
            .all(|number| rules.revocation_status(&signed(number)) == RevocationStatus::Revoked)
    );
    assert_eq!(rules.len(), 5);
    sweep(&mut rules, START + HOUR);
    assert_empty(&rules);
}
