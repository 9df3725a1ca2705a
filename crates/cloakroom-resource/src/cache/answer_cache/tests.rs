use cloakroom_core::time::ManualClock;

use super::*;

fn key(n: u64) -> TokenKey {
    TokenKey::of(&n.to_string())
}

#[derive(Debug, Clone)]
struct Number(u64);

impl CachedValue for Number {
    const IS_REPLACEMENT: bool = false;

    fn facts(&self) -> &TokenFacts {
        unreachable!("the cache does not look at it")
    }
}

fn answer(value: u64, expires_at: Option<UnixTime>) -> Answer<Number> {
    Answer {
        value: Number(value),
        complete: false,
        not_before: None,
        expires_at,
        confirmation: None,
        bytes: 100,
    }
}

fn refused() -> Result<Answer<Number>, Refused> {
    Err(Refused(InvalidToken::Inactive))
}

const START: UnixTime = UnixTime::from_secs(1000);
const FRESH: Freshness = Freshness::within(Duration::from_secs(60));

#[test]
fn what_was_asked_for_later_counts() {
    let now = ClockReading::now(&ManualClock::at(START));
    let good = |value| Ok(answer(value, None));
    for (first, second, value) in [
        ((1, good(1)), (2, good(2)), Some(2)),
        ((2, good(2)), (1, good(1)), Some(2)),
        ((1, good(1)), (2, refused()), None),
        ((2, refused()), (1, good(1)), None),
        ((1, refused()), (2, good(2)), Some(2)),
        ((2, good(2)), (1, refused()), Some(2)),
    ] {
        let answers = AnswerCache::new(10);
        for (number, result) in [first, second] {
            let was_good = result.is_ok();
            // Who waited for it gets it in any case.
            assert_eq!(answers.keep(key(1), now, number, result).is_ok(), was_good);
        }
        let kept = answers.get(&key(1), START).map(|entry| entry.answer.value.0);
        assert_eq!(kept, value);
        assert_eq!(answers.refusal(&key(1), FRESH, now).is_none(), value.is_some());
    }
}

#[test]
fn nothing_is_kept_past_its_end() {
    let now = ClockReading::now(&ManualClock::at(START));
    let answers = AnswerCache::new(10);
    let end = START + Duration::from_secs(5);
    let _ = answers.keep(key(1), now, 1, Ok(answer(1, Some(end))));
    assert!(answers.get(&key(1), end - Duration::from_millis(1)).is_some());
    assert!(answers.get(&key(1), end).is_none());
    assert!(answers.get(&key(1), START).is_none(), "a clock that goes back does not revive it");
}

#[test]
fn a_refusal_is_remembered_for_as_long_as_it_is_fresh_and_no_longer_than_10_s() {
    let clock = ManualClock::at(START);
    let answers = AnswerCache::new(10);
    let _ = answers.keep(key(1), ClockReading::now(&clock), 1, refused());
    for (advance, within, remembered) in [
        (0, 0, false),
        (0, 1, true),
        (2, 2, true),
        (0, 1, false),
        (8, 10, true),
        (0, 3600, true),
        (1, 3600, false),
    ] {
        clock.advance(Duration::from_secs(advance));
        let freshness = Freshness::within(Duration::from_secs(within));
        let refusal = answers.refusal(&key(1), freshness, ClockReading::now(&clock));
        assert_eq!(refusal.is_some(), remembered, "{advance} {within}");
    }
}

#[test]
fn one_is_forgotten_and_not_another_in_its_place() {
    let now = ClockReading::now(&ManualClock::at(START));
    let answers = AnswerCache::new(10);
    let first = answers.keep(key(1), now, 1, Ok(answer(1, None))).unwrap();
    let second = answers.keep(key(1), now, 2, Ok(answer(2, None))).unwrap();
    assert!(!answers.forget(&key(1), &first));
    assert!(answers.forget(&key(1), &second));
    assert!(!answers.forget(&key(1), &second));
    assert!(answers.get(&key(1), START).is_none());
}

#[test]
fn both_memories_are_bounded_and_apart() {
    let now = ClockReading::now(&ManualClock::at(START));
    let answers = AnswerCache::new(1000);
    for n in 0..1000 {
        let _ = answers.keep(key(n), now, n, Ok(answer(n, None)));
    }
    let kept = |answers: &AnswerCache<Number>| {
        (0..1000).filter(|n| answers.get(&key(*n), START).is_some()).count()
    };
    let before = kept(&answers);
    // Each shard has its share, and not every shard gets as many.
    assert!(before >= 900, "{before}");
    for n in 10_000..200_000 {
        let _ = answers.keep(key(n), now, n, refused());
    }
    assert_eq!(kept(&answers), before, "junk pushes out junk");
    let AnswerCache { memory: Some(Memory { entries, refusals }) } = &answers else {
        unreachable!()
    };
    assert!(refusals.len() <= REFUSALS + 100, "{}", refusals.len());
    assert!(entries.len() <= 1000, "{}", entries.len());

    // What is large counts for more.
    let answers = AnswerCache::new(1000);
    for n in 0..1000 {
        let large = Answer { bytes: 10 * 1024, ..answer(n, None) };
        let _ = answers.keep(key(n), now, n, Ok(large));
    }
    assert!(kept(&answers) <= 100, "{}", kept(&answers));
}

#[test]
fn who_wants_none_remembers_nothing() {
    let now = ClockReading::now(&ManualClock::at(START));
    let answers = AnswerCache::<Number>::new(0);
    assert!(answers.keep(key(1), now, 1, Ok(answer(1, None))).is_ok());
    assert!(answers.keep(key(2), now, 2, refused()).is_err());
    assert!(answers.get(&key(1), START).is_none());
    assert!(answers.refusal(&key(2), FRESH, now).is_none());
}
