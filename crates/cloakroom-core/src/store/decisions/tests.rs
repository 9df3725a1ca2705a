use std::time::Duration;

use super::*;
use crate::ids::{ClientId, Jti, Kid, Subject};
use crate::secret::{TokenDigest, TokenKind};
use crate::test_records;
use crate::time::UnixTime;

const MILLISECOND: Duration = Duration::from_millis(1);
const NOW: UnixTime = UnixTime::from_secs(1_700_000_001);

fn stored() -> GrantRecord {
    test_records::grant(1)
}

/// What the chain moves on to.
fn next(stored: &GrantRecord) -> GrantRecord {
    let mut next = stored.clone();
    let chain = next.chain.as_mut().unwrap();
    chain.generation += 1;
    chain.digest = TokenDigest::compute(TokenKind::Refresh, b"the next");
    next
}

fn step(stored: &GrantRecord, change: ChainUpdate) -> Advance {
    let expected = stored.chain.as_ref().unwrap().position();
    Advance { grant: stored.id, expected, now: NOW, change, tokens: vec![] }
}

#[test]
fn a_step_is_taken_while_grant_and_chain_live_and_stand_where_it_says() {
    let stored = stored();
    let chain = stored.chain.clone().unwrap();
    let judged = |stored: &GrantRecord, step: &Advance| step.judge(&Arc::new(stored.clone()));
    for change in [ChainUpdate::Attach, ChainUpdate::Move(Box::new(next(&stored)))] {
        let step = step(&stored, change);
        assert_eq!(judged(&stored, &step).unwrap(), None);

        let revoked = GrantRecord { revoked_at: Some(NOW), ..stored.clone() };
        assert_eq!(judged(&revoked, &step).unwrap(), Some(AdvanceOutcome::Dead));
        for (end, is_over) in [
            (stored.expires_at, true),
            (chain.expires_at, true),
            (chain.expires_at - MILLISECOND, false),
        ] {
            let late = Advance { now: end, ..step.clone() };
            let expected = is_over.then_some(AdvanceOutcome::Dead);
            assert_eq!(judged(&stored, &late).unwrap(), expected, "{end:?}");
        }

        // Somebody else was faster; or the chain is gone.
        let moved = next(&stored);
        let unchained = GrantRecord { chain: None, ..stored.clone() };
        let attach = Advance { change: ChainUpdate::Attach, ..step.clone() };
        for other in [moved, unchained] {
            let Some(AdvanceOutcome::Stale(found)) = judged(&other, &attach).unwrap() else {
                panic!("{other:?}");
            };
            assert_eq!(*found, other);
        }
    }
}

#[test]
fn a_step_that_breaks_the_contract_is_refused() {
    let stored = stored();
    let good = next(&stored);
    let other = GrantId::from_bytes([9; 16]);
    let with = |change: fn(&mut GrantRecord)| {
        let mut next = good.clone();
        change(&mut next);
        next
    };
    for (what, bad) in [
        ("no chain", with(|next| next.chain = None)),
        ("no move", GrantRecord { chain: stored.chain.clone(), ..good.clone() }),
        ("id", with(|next| next.id = GrantId::from_bytes([9; 16]))),
        ("client", with(|next| next.client = ClientId::new("other").unwrap())),
        ("subject", with(|next| next.subject = Subject::user("bob").unwrap())),
        ("epoch", with(|next| next.epoch = next.epoch.following())),
        ("later end", with(|next| next.expires_at = next.expires_at + MILLISECOND)),
    ] {
        let step = step(&stored, ChainUpdate::Move(Box::new(bad)));
        let judged = step.judge(&Arc::new(stored.clone()));
        assert!(matches!(judged, Err(StoreError::Misuse(_))), "{what}: {judged:?}");
    }
    let earlier = with(|next| next.expires_at = next.expires_at - MILLISECOND);
    let earlier = step(&stored, ChainUpdate::Move(Box::new(earlier)));
    assert_eq!(earlier.judge(&Arc::new(stored.clone())).unwrap(), None);
    // One foreign token among its own.
    let tokens = vec![test_records::token(stored.id, 1), test_records::token(other, 2)];
    let step = Advance { tokens, ..step(&stored, ChainUpdate::Attach) };
    assert!(matches!(step.judge(&Arc::new(stored.clone())), Err(StoreError::Misuse(_))));
    tokens_of(stored.id, &step.tokens[..1]).unwrap();
}

/// Two nodes whose clocks differ shorten a grant to different ends.
#[test]
fn a_step_that_lost_a_race_is_no_misuse_even_if_it_ends_later() {
    let stored = stored();
    let step = step(&stored, ChainUpdate::Move(Box::new(next(&stored))));
    let mut won = next(&stored);
    won.chain.as_mut().unwrap().digest = TokenDigest::compute(TokenKind::Refresh, b"the winner's");
    won.expires_at = stored.expires_at - MILLISECOND;
    let stale = AdvanceOutcome::Stale(Arc::new(won.clone()));
    assert_eq!(step.judge(&Arc::new(won.clone())).unwrap(), Some(stale));
    let revoked = GrantRecord { revoked_at: Some(NOW), ..won };
    assert_eq!(step.judge(&Arc::new(revoked)).unwrap(), Some(AdvanceOutcome::Dead));
    // Nor if its grant was revoked first.
    let shorter = stored.expires_at - MILLISECOND;
    let revoked = GrantRecord { revoked_at: Some(NOW), expires_at: shorter, ..stored };
    assert_eq!(step.judge(&Arc::new(revoked)).unwrap(), Some(AdvanceOutcome::Dead));
}

#[test]
fn a_token_is_inserted_once_and_its_digest_belongs_to_it() {
    let grant = stored().id;
    let (one, two) = (test_records::token(grant, 1), test_records::token(grant, 2));
    let fresh = |tokens: Vec<TokenRecord>, known: &[TokenRecord]| {
        fresh_tokens(tokens, |token| {
            Ok(known.iter().find(|known| known.digest == token.digest).cloned())
        })
    };
    let both = vec![one.clone(), two.clone()];
    assert_eq!(fresh(both.clone(), &[]).unwrap(), both);
    // A retry; also of what was revoked meanwhile; also within one step.
    let revoked = TokenRecord { revoked_at: Some(NOW), ..one.clone() };
    assert_eq!(fresh(both, &[revoked]).unwrap(), std::slice::from_ref(&two));
    let repeated = vec![one.clone(), one.clone()];
    assert_eq!(fresh(repeated, &[]).unwrap(), std::slice::from_ref(&one));
    // Another token under the same digest.
    let taken = TokenRecord { digest: one.digest, ..two };
    let taken = TokenRecord { expires_at: taken.expires_at + MILLISECOND, ..taken };
    for result in [
        fresh(vec![one.clone()], std::slice::from_ref(&taken)),
        fresh(vec![one.clone(), taken], &[]),
    ] {
        assert!(matches!(result, Err(StoreError::Misuse(_))), "{result:?}");
    }
    let failed = fresh_tokens(vec![one], |_| {
        Err::<Option<TokenRecord>, _>(StoreError::unavailable("test", "down"))
    });
    assert!(matches!(failed, Err(StoreError::Unavailable { .. })));
}

#[test]
fn a_record_is_stored_as_it_was_written_revocation_aside() {
    let grant = stored();
    let revoked = GrantRecord { revoked_at: Some(NOW), ..grant.clone() };
    assert!(grant.is_stored_as(&grant) && grant.is_stored_as(&revoked));
    let other = GrantRecord { expires_at: grant.expires_at + MILLISECOND, ..revoked };
    assert!(!grant.is_stored_as(&other));

    let token = test_records::token(grant.id, 1);
    let revoked = TokenRecord { revoked_at: Some(NOW), ..token.clone() };
    assert!(token.is_stored_as(&token) && token.is_stored_as(&revoked));
    let other = TokenRecord { expires_at: token.expires_at + MILLISECOND, ..revoked };
    assert!(!token.is_stored_as(&other));
}

#[test]
fn a_revocation_sweeps_whom_its_target_names_and_nobody_else() {
    let grant = stored();
    let (alice, bob) = (grant.subject.clone(), Subject::user("bob").unwrap());
    let (app, other) = (grant.client.clone(), ClientId::new("other").unwrap());
    for (target, selects) in [
        (Target::Subject(alice.clone()), Some(true)),
        (Target::Subject(bob.clone()), Some(false)),
        (Target::Client(app.clone()), Some(true)),
        (Target::Client(other.clone()), Some(false)),
        (Target::SubjectAtClient(alice.clone(), app.clone()), Some(true)),
        (Target::SubjectAtClient(bob.clone(), app), Some(false)),
        (Target::SubjectAtClient(alice, other.clone()), Some(false)),
        (Target::SubjectAtClient(bob, other), Some(false)),
        (Target::Grant(grant.id), None),
        (Target::Jti(Jti::new("j").unwrap()), None),
        (Target::Key(Kid::new("k").unwrap()), None),
    ] {
        let selected = target.selector().map(|selector| selector.selects(&grant));
        assert_eq!(selected, selects, "{target:?}");
    }
}
