//! The clauses of staleness, each by itself.

use cloakroom_core::revocation::Target;
use tokio::time::Instant;

use super::super::rules::{Limits, RevocationStatus};
use super::super::test_kit::{
    HOUR, Lab, START, Scripted, cursor, entry, grant, heartbeat, manual_clock, more, page, page_of,
    revoked, secs, token, traced,
};
use super::*;

#[tokio::test(start_paused = true)]
async fn staleness_counts_from_when_the_request_was_sent() {
    let mut lab = Lab::start(page(vec![], 1)).await;
    let question = lab.question().await;
    lab.clock.advance(secs(3));
    // Written just now, and a moment later it is here: who knows what was written in between.
    question.answer(page(vec![heartbeat(lab.now())], 2));
    lab.taken_in().await;
    assert_eq!(lab.staleness(), Some(3));
}

#[tokio::test(start_paused = true)]
async fn the_larger_of_wall_and_monotonic_time_counts() {
    let lab = Lab::start(page(vec![heartbeat(START)], 1)).await;
    // The machine slept: its monotonic time stood still.
    lab.clock.set(START + secs(100));
    assert_eq!(lab.staleness(), Some(100));
    // The clock was set back.
    lab.clock.set(START - secs(1_000));
    lab.clock.advance(secs(7));
    assert_eq!(lab.staleness(), Some(7));
}

#[tokio::test(start_paused = true)]
async fn the_age_of_the_heartbeat_counts() {
    let mut lab = Lab::start(page(vec![heartbeat(START - secs(40))], 1)).await;
    assert_eq!(lab.staleness(), Some(40));
    // A copy that lags behind hands out heartbeats that are new to us, and old all the same.
    for next in 2..7 {
        lab.clock.advance(secs(1));
        let question = lab.fresh_question().await;
        question.answer(page(vec![heartbeat(lab.now() - secs(30))], next));
        lab.taken_in().await;
        assert_eq!(lab.staleness(), Some(30));
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_skew_counts() {
    let skewed = |entries, next| RevocationPage { clock_skew: secs(5), ..page(entries, next) };
    let lab = Lab::start(skewed(vec![heartbeat(START)], 1)).await;
    assert_eq!((lab.staleness(), lab.replica.steady_staleness()), (Some(5), secs(7)));
    // A server whose clock is ahead does not make up for it.
    let lab = Lab::start(skewed(vec![heartbeat(START + secs(4))], 1)).await;
    assert_eq!(lab.staleness(), Some(5));
    let lab = Lab::with(skewed(vec![heartbeat(START)], 1), |it| it.clock_skew(secs(2))).await;
    assert_eq!((lab.staleness(), lab.replica.steady_staleness()), (Some(2), secs(4)));
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_that_was_seen_proves_nothing() {
    // Of a server whose clock is an hour ahead: by its age alone it would be fresh for an hour.
    let (ahead, before) = (heartbeat(START + HOUR), heartbeat(START + HOUR - secs(1)));
    let heard = page(vec![before.clone(), ahead.clone()], 1);
    let mut lab = Lab::with(heard, |it| it.clock_skew(HOUR)).await;
    for passed in 1..=5 {
        lab.clock.advance(secs(1));
        let question = lab.question().await;
        let again = [before.clone(), ahead.clone()][passed % 2].clone();
        question.answer(page(vec![again], 1 + passed as u64));
        lab.taken_in().await;
        assert_eq!(lab.staleness(), Some(HOUR.as_secs() + passed as u64));
    }
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_from_beyond_the_skew_proves_nothing() {
    let skewed = |entries, next| RevocationPage { clock_skew: secs(5), ..page(entries, next) };
    let mut lab = Lab::start(skewed(vec![heartbeat(START + secs(6))], 1)).await;
    assert_eq!(lab.staleness(), None);
    lab.answer(skewed(vec![heartbeat(START)], 2)).await;
    // The one before counts, whoever else is ahead, and by how much.
    let mut ahead = Vec::new();
    for passed in 1..=20 {
        lab.clock.advance(secs(1));
        ahead.push(heartbeat(lab.now() + secs(6) + secs(1) * (passed % 3)));
        let question = lab.fresh_question().await;
        question.answer(skewed(ahead.clone(), 2 + u64::from(passed)));
        lab.taken_in().await;
        assert_eq!(lab.staleness(), Some(5 + u64::from(passed)));
    }
    // Nor does it prove anything when its time has come.
    lab.clock.advance(secs(6));
    let question = lab.fresh_question().await;
    question.answer(skewed(ahead, 50));
    lab.taken_in().await;
    assert_eq!(lab.staleness(), Some(5 + 26));
    // One that is ahead by no more than clocks may differ is good.
    let question = lab.fresh_question().await;
    question.answer(skewed(vec![heartbeat(lab.now() + secs(5))], 51));
    lab.taken_in().await;
    assert_eq!(lab.staleness(), Some(5));
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_ahead_by_more_than_the_skew_is_reported() {
    let skewed = |entries, next| RevocationPage { clock_skew: secs(5), ..page(entries, next) };
    let mut lab = Lab::start(skewed(vec![heartbeat(START)], 1)).await;
    traced();
    for (next, (ahead, reported)) in (2..).zip([(0, None), (5, None), (6, Some("ahead=6s"))]) {
        lab.answer(skewed(vec![heartbeat(START + secs(ahead))], next)).await;
        let traces = traced();
        assert_eq!(traces.contains("ignored a heartbeat"), reported.is_some(), "{traces}");
        assert!(traces.contains(reported.unwrap_or_default()), "{traces}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_new_for_ever_goes_stale() {
    let mut lab = Lab::start(page(vec![heartbeat(START)], 1)).await;
    for passed in 1..=50 {
        lab.question().await.answer(page(vec![], 1));
        lab.clock.advance(secs(1));
        lab.taken_in().await;
        assert_eq!(lab.staleness(), Some(passed));
    }
    // Revocations are no heartbeats: others may be missing.
    let question = lab.fresh_question().await;
    question.answer(page(vec![LogEntry { at: lab.now(), ..revoked(1) }], 2));
    lab.taken_in().await;
    assert_eq!((lab.staleness(), lab.revocation_status(1)), (Some(50), RevocationStatus::Revoked));
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_answers_goes_stale_and_is_asked_again() {
    let mut lab = Lab::start(page(vec![heartbeat(START), revoked(1)], 1)).await;
    let unanswered = lab.question().await;
    lab.clock.advance(secs(20));
    assert_eq!((lab.staleness(), lab.revocation_status(1)), (Some(20), RevocationStatus::Revoked));
    let asked = Instant::now();
    let next = lab.question().await;
    assert!(asked.elapsed() >= secs(3) + ANSWER_MARGIN, "{:?}", asked.elapsed());
    assert_eq!(next.after, unanswered.after);
    next.answer(page(vec![heartbeat(lab.now())], 2));
    lab.taken_in().await;
    assert_eq!(lab.staleness(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_log_that_ends_earlier_says_nothing_new() {
    let mut lab = Lab::start(page(vec![heartbeat(START), revoked(1)], 9)).await;
    lab.clock.advance(secs(2));
    // Another node, some entries behind.
    lab.question().await.answer(page(vec![], 9));
    lab.taken_in().await;
    assert_eq!((lab.staleness(), lab.revocation_status(1)), (Some(2), RevocationStatus::Revoked));
    assert_eq!(lab.question().await.after, cursor(9));
}

#[tokio::test(start_paused = true)]
async fn servers_whose_clocks_differ_take_turns() {
    let mut lab = Lab::start(page(vec![heartbeat(START)], 1)).await;
    lab.clock.advance(secs(1));
    // The one is three seconds slow; what the other proved, it does not take back.
    let question = lab.fresh_question().await;
    question.answer(page(vec![heartbeat(lab.now() - secs(3))], 2));
    lab.taken_in().await;
    assert_eq!(lab.staleness(), Some(1));
    let question = lab.fresh_question().await;
    question.answer(page(vec![heartbeat(lab.now())], 3));
    lab.taken_in().await;
    assert_eq!(lab.staleness(), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_gap_keeps_the_rules_and_ends_freshness_until_all_is_read_again() {
    let seen = heartbeat(START);
    let mut lab = Lab::start(page(vec![revoked(1), seen.clone()], 5)).await;
    assert_eq!(lab.staleness(), Some(0));
    lab.answer(page_of(RevocationBatch::Gap)).await;
    assert_eq!((lab.staleness(), lab.revocation_status(1)), (None, RevocationStatus::Revoked));

    let question = lab.question().await;
    assert_eq!(question.after, Cursor::start());
    question.answer(more(vec![revoked(2), heartbeat(START)], 1));
    let question = lab.question().await;
    assert_eq!(question.after, cursor(1));
    assert_eq!(lab.staleness(), None, "there is more");
    question.answer(page(vec![revoked(3)], 2));
    lab.taken_in().await;
    assert_eq!(lab.staleness(), Some(0));
    for number in 1..=3 {
        assert_eq!(lab.revocation_status(number), RevocationStatus::Revoked);
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_gap_an_old_heartbeat_is_not_enough() {
    let seen = heartbeat(START);
    let mut lab = Lab::start(page(vec![seen.clone()], 5)).await;
    lab.answer(page_of(RevocationBatch::Gap)).await;
    lab.answer(page(vec![seen], 1)).await;
    lab.clock.advance(secs(2));
    assert_eq!(lab.staleness(), None);
    lab.answer(page(vec![heartbeat(lab.now() - secs(1))], 2)).await;
    // Asked two seconds ago.
    assert_eq!(lab.staleness(), Some(2));
}

#[tokio::test(start_paused = true)]
async fn rules_are_dropped_at_their_end_by_both_clocks() {
    let first = page(vec![revoked(1), heartbeat(START)], 1);
    let mut lab = Lab::with(first, |it| it.clock_skew(HOUR)).await;
    let end = START + HOUR;
    let step = async |lab: &mut Lab, next, at| {
        lab.question().await.answer(page(vec![heartbeat(at)], next));
        lab.taken_in().await;
        lab.replica.rules()
    };
    // Our clock runs ahead, is set back later, and the token lives on.
    lab.clock.set(end + HOUR);
    assert_eq!(step(&mut lab, 2, START + secs(1)).await, 1);
    // The server's clock does.
    lab.clock.set(START + secs(2));
    assert_eq!(step(&mut lab, 3, end).await, 1);
    assert_eq!(lab.revocation_status(1), RevocationStatus::Revoked);
    lab.clock.set(end - Duration::from_millis(1));
    assert_eq!(step(&mut lab, 4, end).await, 1);
    lab.clock.set(end);
    assert_eq!(step(&mut lab, 5, end).await, 0);
    assert_eq!(lab.revocation_status(1), RevocationStatus::NotRevoked);
}

#[test]
fn heartbeats_are_recognised_and_forgotten_in_turn() {
    let id = |number: u64| {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        EntryId::from_bytes(bytes)
    };
    let (mut seen, many) = (SeenHeartbeats::default(), MAX_SEEN as u64);
    assert!((0..many).all(|number| seen.insert(id(number))));
    assert!((0..many).all(|number| !seen.insert(id(number))));
    assert!(seen.insert(id(many)) && seen.insert(id(0)));
    assert!(!seen.insert(id(many)) && !seen.insert(id(2)));
    assert_eq!((seen.ids.len(), seen.order.len()), (MAX_SEEN, MAX_SEEN));
}

/// At the moment at which the staleness tells of a heartbeat, the revocations before it are known.
#[test]
fn rules_are_there_before_the_staleness_that_counts_them_in() {
    const ROUNDS: u64 = 500;
    const RULES: u64 = 150;
    let clock = manual_clock();
    let limits = Limits { per_grant: 1_000, total: 1_000_000 };
    let shared = Arc::new(ReplicaState::new(clock.clone(), limits));
    let (log, _questions) = Scripted::new();
    let settings = Settings {
        clock_skew: None,
        wait: Duration::ZERO,
        first_back_off: secs(1),
        max_back_off: secs(1),
    };
    let mut follower = Follower::new(Box::new(log), Arc::clone(&shared), settings);
    let now = ClockReading::now(&*clock);
    let heard = |round| START - secs(ROUNDS - round);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let end = START + secs(10);
            for round in 1..=ROUNDS {
                // The one that is looked for comes last.
                let numbers = (0..RULES).map(|n| round * 1_000 + n).chain([round]);
                let rule = |number| entry(Target::Grant(grant(number)), end);
                let mut entries: Vec<_> = numbers.map(rule).collect();
                entries.push(heartbeat(heard(round)));
                follower.take(page(entries, round), now).unwrap();
            }
        });
        let tokens: Vec<_> = (0..=ROUNDS + 1).map(token).collect();
        let mut known = 0;
        while known < ROUNDS {
            let Some(staleness) = shared.staleness(now) else { continue };
            known = ROUNDS - staleness.as_secs();
            let verdict =
                |number: u64| shared.revocation_status(&tokens[usize::try_from(number).unwrap()]);
            assert_eq!(verdict(known), RevocationStatus::Revoked, "round {known}");
            // That the next one is clear, as long as it is, is remembered.
            verdict(known + 1);
        }
    });
}
