//! How the log is followed: what is read when, and how much is remembered.

use std::time::Duration;

use cloakroom_core::TokenDigest;
use cloakroom_core::revocation::{Cursor, CursorPlace, RevocationBatch, RevocationPage, Target};
use tokio::time::Instant;

use super::rules::RevocationStatus;
use super::test_kit::{
    HOUR, Lab, Question, START, Scripted, cursor, entry, grant, heartbeat, manual_clock, more,
    of_client, page, page_of, revoked, secs, token, traced,
};
use super::{ReplicaBuilder, RevocationReplica};
use crate::error::UnavailableError;

#[tokio::test(start_paused = true)]
async fn the_whole_log_is_read_before_anything_is_asked() {
    let (log, mut questions) = Scripted::new();
    let clock = manual_clock();
    let following = tokio::spawn(RevocationReplica::builder(log).clock(clock).follow());
    let mut place = Cursor::start();
    for number in 1..=3 {
        let question = questions.recv().await.unwrap();
        assert_eq!((&question.after, question.wait), (&place, Duration::ZERO));
        assert!(!following.is_finished());
        place = cursor(number);
        if number < 3 {
            question.answer(more(vec![revoked(number), heartbeat(START)], number));
        } else {
            question.answer(page(vec![revoked(number)], number));
        }
    }
    let replica = following.await.unwrap().unwrap();
    for number in 1..=3 {
        assert_eq!(replica.revocation_status(&token(number)), RevocationStatus::Revoked);
    }
    assert_eq!(replica.revocation_status(&token(4)), RevocationStatus::NotRevoked);
    assert_eq!((replica.rules(), replica.staleness()), (3, Some(Duration::ZERO)));
    let question = questions.recv().await.unwrap();
    assert_eq!((question.after, question.wait), (place, secs(3)));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_followed_that_cannot_be_read() {
    let follow = |answer: fn(Question)| async move {
        let (log, mut questions) = Scripted::new();
        let following = tokio::spawn(RevocationReplica::follow(log));
        for _ in 0..30_000 {
            let Some(question) = questions.recv().await else { break };
            answer(question);
        }
        following.await.unwrap().map(|_| ()).unwrap_err().to_string()
    };
    assert!(follow(Question::fail).await.contains("could not be looked up"));
    let gap = |question: Question| question.answer(page_of(RevocationBatch::Gap));
    assert!(follow(gap).await.contains("gap before its first entry"));
    // It has more, and more, and never moves on.
    let same = |question: Question| question.answer(more(vec![revoked(1)], 1));
    assert!(follow(same).await.contains("returns nothing new"));
    // It changes whenever one is half through.
    let changing = |question: Question| match question.after.is_start() {
        true => question.answer(more(vec![revoked(1)], 1)),
        false => question.answer(page_of(RevocationBatch::Gap)),
    };
    assert!(follow(changing).await.contains("changes while it is read"));
    // It moves on, and on.
    let endless = |question: Question| {
        let next = CursorPlace::of(&question.after).map_or(1, |place| place.position + 1);
        question.answer(more(vec![revoked(1)], next));
    };
    assert!(follow(endless).await.contains("no end"));
    // It never answers.
    let (log, mut questions) = Scripted::new();
    let following = tokio::spawn(RevocationReplica::follow(log));
    let _unanswered = questions.recv().await.unwrap();
    let followed = tokio::time::timeout(secs(60), following).await.expect("it is given up");
    assert!(matches!(followed.unwrap(), Err(UnavailableError::NoAnswer(_))));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_changes_while_it_is_read_is_begun_anew_three_times() {
    for (changes, is_read) in [(1, true), (3, true), (4, false)] {
        let (log, mut questions) = Scripted::new();
        let builder = RevocationReplica::builder(log).clock(manual_clock());
        let following = tokio::spawn(builder.follow());
        for _ in 0..changes {
            let question = questions.recv().await.unwrap();
            assert!(question.after.is_start());
            question.answer(more(vec![revoked(1)], 1));
            questions.recv().await.unwrap().answer(page_of(RevocationBatch::Gap));
        }
        if let Some(question) = questions.recv().await {
            assert!(question.after.is_start());
            question.answer(page(vec![heartbeat(START)], 1));
        }
        assert_eq!(following.await.unwrap().is_ok(), is_read, "{changes}");
    }
}

#[tokio::test(start_paused = true)]
async fn who_revokes_in_masses_is_named_once() {
    let limit = |builder: ReplicaBuilder| builder.rules(450);
    let mut lab = Lab::with(page(vec![heartbeat(START)], 1), limit).await;
    traced();
    let named = || {
        let lines = traced();
        let of = |what: &str| {
            lines.lines().filter(|it| it.contains("too many") && it.contains(what)).count()
        };
        (of("grant="), of("client=app"))
    };
    // A handle takes two rules, and a grant may have 200.
    let handle = |number| {
        let digest = TokenDigest::from_bytes([number; 32]);
        of_client(Target::Token { grant: grant(1), digest }, "app", START + HOUR)
    };
    lab.answer(page((0..100).map(handle).collect(), 2)).await;
    assert_eq!(named(), (0, 0));
    lab.answer(page((100..110).map(handle).collect(), 3)).await;
    assert_eq!(named(), (1, 0));
    let login = |number| of_client(Target::Grant(grant(number)), "app", START + HOUR);
    lab.answer(page((1_000..1_300).map(login).collect(), 4)).await;
    assert_eq!(named(), (0, 1));
    lab.answer(page((2_000..2_100).map(login).collect(), 5)).await;
    assert_eq!(named(), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_client_that_revokes_in_masses_fills_no_replica() {
    let limit = |builder: ReplicaBuilder| builder.rules(10);
    let mut lab = Lab::with(page(vec![heartbeat(START)], 1), limit).await;
    let end = START + HOUR;
    for round in 0..100 {
        let revoked = |n| {
            let number = round * 10 + n;
            of_client(Target::Grant(grant(number)), "app", end + secs(number))
        };
        lab.answer(page((0..10).map(revoked).collect(), 2 + round)).await;
        assert!(lab.replica.rules() <= 10);
    }
    assert_eq!(
        (lab.revocation_status(0), lab.revocation_status(5_000)),
        (RevocationStatus::Unknown, RevocationStatus::Unknown)
    );
    assert_eq!((lab.revocation_status(999), lab.staleness()), (RevocationStatus::Revoked, Some(0)));
    // A gap does not lift the mark.
    lab.answer(page_of(RevocationBatch::Gap)).await;
    lab.answer(page(vec![heartbeat(START)], 1)).await;
    assert_eq!((lab.revocation_status(0), lab.staleness()), (RevocationStatus::Unknown, Some(0)));
}

#[tokio::test(start_paused = true)]
async fn what_is_no_clients_makes_room_at_last_and_is_known_no_longer() {
    let limit = |builder: ReplicaBuilder| builder.rules(8);
    let mut lab = Lab::with(page(vec![heartbeat(START)], 1), limit).await;
    let short = |number| entry(Target::Grant(grant(number)), START + secs(10 + number));
    lab.answer(page((0..8).map(short).collect(), 2)).await;
    assert_eq!(
        (lab.replica.rules(), lab.revocation_status(100)),
        (8, RevocationStatus::NotRevoked)
    );
    lab.answer(page(vec![revoked(9), heartbeat(START)], 3)).await;
    assert_eq!((lab.replica.rules(), lab.staleness()), (8, Some(0)));
    for number in [0, 100] {
        assert_eq!(
            lab.revocation_status(number),
            RevocationStatus::Unknown,
            "it may be what made room"
        );
    }
    assert_eq!(
        (lab.revocation_status(1), lab.revocation_status(9)),
        (RevocationStatus::Revoked, RevocationStatus::Revoked)
    );
    // It ends, and nothing is as if it had ever been; nor is the log read again.
    lab.clock.advance(secs(10));
    lab.answer(page(vec![heartbeat(lab.now())], 4)).await;
    assert_eq!(
        (lab.revocation_status(0), lab.revocation_status(100)),
        (RevocationStatus::NotRevoked, RevocationStatus::NotRevoked)
    );
    assert_eq!(
        (lab.revocation_status(1), lab.revocation_status(9)),
        (RevocationStatus::Revoked, RevocationStatus::Revoked)
    );
    assert_eq!(lab.question().await.after, cursor(4));
}

#[tokio::test(start_paused = true)]
async fn failures_are_waited_out_longer_and_longer() {
    let mut lab = Lab::start(page(vec![heartbeat(START), revoked(1)], 1)).await;
    let mut longest = Vec::new();
    for _ in 0..3 {
        let mut whole = Duration::from_millis(100);
        for _ in 0..12 {
            lab.question().await.fail();
            let failed = Instant::now();
            let question = lab.question().await;
            let pause = failed.elapsed();
            // Tokio's timers count whole milliseconds.
            let bounds = whole / 2..=whole + Duration::from_millis(1);
            assert!(bounds.contains(&pause), "{pause:?} of {whole:?}");
            assert_eq!(question.after, cursor(1));
            if whole == secs(5) {
                longest.push(pause);
            }
            whole = (whole * 2).min(secs(5));
            lab.again = Some(question);
        }
        // A success ends the row.
        lab.answer(page(vec![], 1)).await;
    }
    longest.dedup();
    assert!(longest.len() > 1, "followers must not come all at once");
    assert_eq!(lab.revocation_status(1), RevocationStatus::Revoked);
}

#[tokio::test(start_paused = true)]
async fn the_first_success_ends_the_waiting() {
    let mut lab = Lab::start(page(vec![heartbeat(START)], 1)).await;
    for _ in 0..20 {
        lab.question().await.fail();
    }
    lab.clock.advance(secs(60));
    let question = lab.question().await;
    question.answer(page(vec![revoked(1), heartbeat(lab.now())], 2));
    let asked = Instant::now();
    lab.question().await.fail();
    assert_eq!(asked.elapsed(), Duration::ZERO);
    assert_eq!((lab.revocation_status(1), lab.staleness()), (RevocationStatus::Revoked, Some(0)));
    lab.question().await.answer(page(vec![], 2));
    assert!(asked.elapsed() <= Duration::from_millis(101), "{:?}", asked.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_wait_is_not_asked_in_a_loop() {
    let mut lab = Lab::start(page(vec![heartbeat(START)], 1)).await;
    // Nothing; the same for ever; more of nothing; nothing, each time from another place.
    let again = revoked(1);
    for answer in [
        &mut |_| page(vec![], 1),
        &mut |_| page(vec![again.clone()], 1),
        &mut |_| more(vec![], 1),
        &mut |n| page(vec![], 2 + n % 2),
    ] as [&mut dyn FnMut(u64) -> RevocationPage; 4]
    {
        let (start, mut asked) = (Instant::now(), 0);
        while start.elapsed() < secs(10) && asked < 1_000 {
            lab.question().await.answer(answer(asked));
            asked += 1;
        }
        assert!((90..=102).contains(&asked), "{asked} times in ten seconds");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_there_is_read_without_a_pause() {
    let mut lab = Lab::start(page(vec![heartbeat(START)], 1)).await;
    let start = Instant::now();
    for number in 2..100 {
        let question = lab.question().await;
        assert_eq!(question.after, cursor(number - 1));
        question.answer(if number % 2 == 0 {
            page(vec![revoked(number)], number)
        } else {
            more(vec![revoked(number)], number)
        });
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn with_the_last_clone_the_following_ends() {
    let mut lab = Lab::start(page(vec![heartbeat(START), revoked(1)], 1)).await;
    let clone = lab.replica.clone();
    let _unanswered = lab.question().await;
    drop(lab.replica);
    assert_eq!(clone.revocation_status(&token(1)), RevocationStatus::Revoked);
    assert!(!lab.questions.is_closed());
    drop(clone);
    assert!(lab.questions.recv().await.is_none(), "the log is dropped, while it is being asked");
}

#[tokio::test(start_paused = true)]
async fn who_gives_up_following_leaves_nothing_behind() {
    let (log, mut questions) = Scripted::new();
    let following = tokio::spawn(RevocationReplica::follow(log));
    let _unanswered = questions.recv().await.unwrap();
    following.abort();
    assert!(questions.recv().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn debug_shows_nobody() {
    let user = cloakroom_core::Subject::user("do-not-print").unwrap();
    let rule = entry(Target::Subject(user), START + HOUR);
    let lab = Lab::start(page(vec![heartbeat(START), rule], 1)).await;
    let debug = format!("{:?}", lab.replica);
    assert!(debug.contains("rules: 1") && !debug.contains("do-not-print"), "{debug}");
}

#[test]
fn outside_of_a_runtime_nothing_is_followed() {
    let (log, _questions) = Scripted::new();
    let mut following = std::pin::pin!(RevocationReplica::follow(log));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let polled = following.as_mut().poll(&mut context);
    assert!(matches!(polled, std::task::Poll::Ready(Err(UnavailableError::Other(_)))));
}
