//! One question at a time for one token: who shares an answer, and who must not.

use cloakroom_resource::{
    BearerLayer, Freshness, IntrospectionLimits, PhantomLayer, UnavailableError,
};

use crate::cache_support::{Authority, Guard, clock, secs, settle};
use crate::support::{AUDIENCE, ISSUER, manual_clock};

fn within(authority: &Authority, seconds: u64) -> [Guard; 2] {
    let freshness = Freshness::within(secs(seconds));
    [
        Guard::Phantom(
            PhantomLayer::new(authority.clone(), AUDIENCE)
                .clock(clock(&manual_clock()))
                .cache(100)
                .freshness(freshness)
                .unwrap(),
        ),
        Guard::Bearer(
            BearerLayer::introspecting(authority.clone(), ISSUER, AUDIENCE)
                .clock(clock(&manual_clock()))
                .cache(100)
                .freshness(freshness)
                .unwrap(),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_hundred_first_requests_are_one_question() {
    for at in 0..2 {
        let authority = Authority::new();
        let [phantom, bearer] = within(&authority, 10);
        let guard = if at == 0 { phantom } else { bearer };
        for round in 1..=20 {
            let token = format!("token-{round}");
            let requests: Vec<_> = (0..500).map(|_| guard.begin(&token)).collect();
            for request in requests {
                assert_eq!(request.await.unwrap(), 200);
            }
            assert_eq!(authority.count(), round, "{guard:?}");
        }
        assert_eq!(authority.most(), 1);
    }
}

#[tokio::test]
async fn every_request_joins_only_what_is_not_sent() {
    let authority = Authority::new();
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .limits(IntrospectionLimits::default().at_once(1));
    for freshness in [None, Some(Freshness::every_request())] {
        let layer = match freshness {
            Some(freshness) => layer.clone().freshness(freshness).unwrap(),
            None => layer.clone(),
        };
        let (guard, before) = (Guard::Phantom(layer), authority.count());
        authority.close();
        let first = guard.begin("token");
        authority.wait_for(before + 1).await;
        // The first question is on its way: these share one of their own, which waits for its turn.
        let others: Vec<_> = (0..50).map(|_| guard.begin("token")).collect();
        settle().await;
        assert_eq!(authority.count(), before + 1);
        authority.revoke_all();
        authority.open();
        assert_eq!(first.await.unwrap(), 200, "it was active when it was asked about");
        for other in others {
            assert_eq!(other.await.unwrap(), 401, "asked about after it was revoked");
        }
        assert_eq!(authority.count(), before + 2);
        // And nothing of it is remembered for the next one.
        authority.answer_with(|token| Ok(Some(crate::cache_support::facts(token))));
        assert_eq!(guard.ask("token").await, 200);
        assert_eq!(authority.count(), before + 3);
    }
}

#[tokio::test]
async fn a_question_is_joined_for_as_long_as_its_answer_would_be_fresh() {
    for (seconds, questions) in [(10, 1), (11, 2)] {
        let (authority, time) = (Authority::new(), manual_clock());
        let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
            .clock(clock(&time))
            .cache(100)
            .freshness(Freshness::within(secs(10)))
            .unwrap();
        let guard = Guard::Phantom(layer);
        authority.close();
        let first = guard.begin("token");
        authority.wait_for(1).await;
        time.advance(secs(seconds));
        let second = guard.begin("token");
        settle().await;
        assert_eq!(authority.count(), questions, "{seconds}");
        authority.open();
        assert_eq!((first.await.unwrap(), second.await.unwrap()), (200, 200));
        // Of two answers the one that was asked for later is kept.
        assert_eq!(guard.ask("token").await, 200);
        assert_eq!(authority.count(), questions);
    }
}

#[tokio::test]
async fn who_goes_away_takes_nothing_from_the_others() {
    let authority = Authority::new();
    for guard in within(&authority, 10) {
        let before = authority.count();
        authority.close();
        let leader = guard.begin("token");
        authority.wait_for(before + 1).await;
        let others: Vec<_> = (0..10).map(|_| guard.begin("token")).collect();
        settle().await;
        leader.abort();
        assert!(leader.await.unwrap_err().is_cancelled());
        authority.open();
        for other in others {
            assert_eq!(other.await.unwrap(), 200);
        }
        assert_eq!(authority.count(), before + 1);
        // Nor from those who come when all have gone.
        authority.close();
        let only = guard.begin("other");
        authority.wait_for(before + 2).await;
        only.abort();
        authority.open();
        settle().await;
        assert_eq!(guard.ask("other").await, 200);
        assert_eq!(authority.count(), before + 2, "its answer was kept");
    }
}

#[tokio::test]
async fn what_nobody_waits_for_is_not_sent() {
    let authority = Authority::new();
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .limits(IntrospectionLimits::default().at_once(1));
    let guard = Guard::Phantom(layer);
    authority.close();
    let first = guard.begin("first");
    authority.wait_for(1).await;
    let gone: Vec<_> = (0..10).map(|n| guard.begin(&format!("gone-{n}"))).collect();
    settle().await;
    gone.iter().for_each(tokio::task::JoinHandle::abort);
    settle().await;
    authority.open();
    assert_eq!(first.await.unwrap(), 200);
    settle().await;
    assert_eq!(authority.count(), 1);
    assert_eq!(guard.ask("gone-0").await, 200);
    assert_eq!(authority.count(), 2);
}

#[tokio::test]
async fn an_outage_reaches_all_and_is_not_remembered() {
    let authority = Authority::new();
    for guard in within(&authority, 10) {
        let before = authority.count();
        authority.answer_with(|_| Err(UnavailableError::other("down")));
        authority.close();
        let requests: Vec<_> = (0..20).map(|_| guard.begin("token")).collect();
        settle().await;
        authority.open();
        for request in requests {
            assert_eq!(request.await.unwrap(), 503);
        }
        assert_eq!(authority.count(), before + 1);
        authority.answer_with(|token| Ok(Some(crate::cache_support::facts(token))));
        assert_eq!(guard.ask("token").await, 200, "the very next request asks");
        assert_eq!(authority.count(), before + 2);
        // An outage takes nothing away that is still fresh, and adds nothing to what is not.
        authority.answer_with(|_| Err(UnavailableError::other("down")));
        assert_eq!(guard.ask("token").await, 200);
        assert_eq!(authority.count(), before + 2);
    }
}

#[tokio::test]
async fn an_introspector_that_panics_is_an_outage() {
    let authority = Authority::answering(|_| panic!("a mistake of the app's"));
    for guard in within(&authority, 10) {
        assert_eq!(guard.ask("token").await, 503);
        authority.answer_with(|token| Ok(Some(crate::cache_support::facts(token))));
        assert_eq!(guard.ask("token").await, 200);
        authority.answer_with(|_| panic!("again"));
        assert_eq!(guard.ask("another").await, 503);
    }
}

#[tokio::test]
async fn only_so_many_questions_are_with_the_server_and_wait() {
    let authority = Authority::new();
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .freshness(Freshness::within(secs(10)))
        .unwrap()
        .limits(IntrospectionLimits::default().at_once(3).waiting(5));
    let guard = Guard::Phantom(layer);
    assert_eq!(guard.ask("known").await, 200);
    authority.close();
    let sent: Vec<_> = (0..3).map(|n| guard.begin(&format!("sent-{n}"))).collect();
    authority.wait_for(4).await;
    let waiting: Vec<_> = (0..5).map(|n| guard.begin(&format!("waits-{n}"))).collect();
    settle().await;
    assert_eq!(authority.count(), 4, "the rest waits for its turn");
    for n in 0..100 {
        assert_eq!(guard.ask(&format!("junk-{n}")).await, 503);
    }
    assert_eq!(authority.count(), 4);
    assert_eq!(guard.ask("known").await, 200, "memory has no such limits");
    let joined = guard.begin("waits-0");
    settle().await;
    authority.open();
    for request in sent.into_iter().chain(waiting).chain([joined]) {
        assert_eq!(request.await.unwrap(), 200);
    }
    assert_eq!(authority.count(), 9);
    assert_eq!(guard.ask("junk-0").await, 200, "room again");
}

#[tokio::test]
async fn only_so_many_questions_are_sent_in_a_second() {
    let (authority, time) = (Authority::new(), manual_clock());
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&time))
        .cache(100)
        .freshness(Freshness::within(secs(60)))
        .unwrap()
        .limits(IntrospectionLimits::default().max_requests_per_second(10));
    let guard = Guard::Phantom(layer);
    assert_eq!(guard.ask("known").await, 200);
    authority.revoke_all();
    let mut answers = Vec::new();
    for n in 0..100 {
        answers.push(guard.ask(&format!("junk-{n}")).await);
        assert_eq!(guard.ask("known").await, 200);
    }
    assert!(answers[..9].iter().all(|status| *status == 401));
    assert!(answers[9..].iter().all(|status| *status == 503));
    assert_eq!(authority.count(), 10);
    assert_eq!(guard.ask("junk-0").await, 401, "remembered");
    time.advance(secs(1));
    for n in 200..300 {
        guard.ask(&format!("junk-{n}")).await;
    }
    assert_eq!(authority.count(), 20);
}

#[tokio::test]
async fn clones_and_routes_share_what_is_remembered() {
    let authority = Authority::new();
    let layer = PhantomLayer::new(authority.clone(), AUDIENCE)
        .clock(clock(&manual_clock()))
        .cache(100)
        .freshness(Freshness::within(secs(10)))
        .unwrap();
    let other = layer.clone().freshness(Freshness::within(secs(1))).unwrap().cookie("c");
    assert_eq!(Guard::Phantom(layer).ask("token").await, 200);
    assert_eq!(Guard::Phantom(other).ask("token").await, 200);
    assert_eq!(authority.count(), 1);
}
