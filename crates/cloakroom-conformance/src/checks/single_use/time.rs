//! Single-use items: their ends, clocks that differ, and how a store forgets items.

use std::time::Duration;

use cloakroom_core::store::Spent;
use cloakroom_core::time::UnixTime;

use crate::ask::ensure;
use crate::checks::single_use::items::{answers, churn, id, single_use_checks, spend};
use crate::fixtures::{DAY, MINUTE, NOW};
use crate::report::Broken;
use crate::single_use::Trial;

single_use_checks! { "single_use::time":
    an_item_is_held_until_its_last_millisecond => SpendHeld,
    what_others_do_does_not_end_an_item => SpendHeld,
    far_ends_are_kept => SpendHeld,
    clocks_that_differ_spend_once => SpendHeld,
    an_id_is_free_at_its_end => SpendFirst,
    an_id_is_free_after_it_was_forgotten => SpendFirst,
    a_short_life_is_long_enough => SpendFirst,
    a_later_end_is_kept => SpendLater,
    an_earlier_end_shortens_nothing => SpendLater,
    what_is_over_is_refused => SpendOver,
    what_is_over_leaves_nothing => SpendOver,
    what_was_forgotten_stays_spent => SpendForgotten,
    a_broken_clock_frees_nothing => SpendForgotten,
    what_is_over_goes => SpendCleans,
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// An end in the middle of a second.
const END: UnixTime = UnixTime::from_millis(2_000_000_060_999);

async fn an_item_is_held_until_its_last_millisecond(trial: Trial) -> Result<(), Broken> {
    let (store, id) = (trial.store().await, id()?);
    answers(&*store, id, (END, NOW), Spent::First).await?;
    for before in [MINUTE, Duration::from_millis(998), MILLISECOND] {
        answers(&*store, id, (END, END - before), Spent::Again).await?;
    }
    answers(&*store, id, (END + MINUTE, END - MILLISECOND), Spent::Again).await
}

async fn what_others_do_does_not_end_an_item(trial: Trial) -> Result<(), Broken> {
    let store = trial.store().await;
    let mut held = Vec::new();
    for number in 0..60 {
        let (id, end) = (id()?, NOW + MINUTE + Duration::from_secs(number));
        answers(&*store, id, (end, NOW), Spent::First).await?;
        held.push((id, end));
    }
    for number in (0..60).step_by(6) {
        let now = NOW + MINUTE + Duration::from_secs(number);
        churn(&*store, 12, (now + MILLISECOND, now)).await?;
        for (id, end) in held.iter().filter(|(_, end)| now < *end) {
            // The same item; and the same id as long as no other could have it.
            answers(&*store, *id, (*end, now), Spent::Again).await?;
        }
    }
    let (last, end) = held[59];
    answers(&*store, last, (end + MINUTE, end - MILLISECOND), Spent::Again).await
}

async fn far_ends_are_kept(trial: Trial) -> Result<(), Broken> {
    // Beyond what 32 bits of seconds hold, and what 53 bits of milliseconds do.
    let far = [1 << 33, (1 << 53) + 1, UnixTime::MAX.as_millis()].map(UnixTime::from_millis);
    for end in far.map(|end| end.max(NOW + 9_999 * DAY)) {
        let (store, id) = (trial.store().await, id()?);
        answers(&*store, id, (end, NOW), Spent::First).await?;
        churn(&*store, 4, (NOW + 2 * DAY, NOW + DAY)).await?;
        answers(&*store, id, (end, end - MILLISECOND), Spent::Again).await?;
        answers(&*store, self::id()?, (end, end - MILLISECOND), Spent::First).await?;
    }
    Ok(())
}

async fn clocks_that_differ_spend_once(trial: Trial) -> Result<(), Broken> {
    let database = trial.database().await;
    let (fast, slow) = (database.open().await, database.open().await);
    let skew = Duration::from_secs(30);
    for (first, then) in
        [((&fast, NOW + skew), (&slow, NOW - skew)), ((&slow, NOW - skew), (&fast, NOW + skew))]
    {
        let id = id()?;
        answers(&**first.0, id, (END, first.1), Spent::First).await?;
        answers(&**then.0, id, (END, then.1), Spent::Again).await?;
    }
    Ok(())
}

async fn an_id_is_free_at_its_end(trial: Trial) -> Result<(), Broken> {
    let (store, id) = (trial.store().await, id()?);
    let mut now = NOW;
    for _ in 0..4 {
        answers(&*store, id, (now + MINUTE, now), Spent::First).await?;
        answers(&*store, id, (now + MINUTE, now), Spent::Again).await?;
        now = now + MINUTE;
    }
    Ok(())
}

async fn an_id_is_free_after_it_was_forgotten(trial: Trial) -> Result<(), Broken> {
    let (store, id) = (trial.store().await, id()?);
    answers(&*store, id, (END, NOW), Spent::First).await?;
    churn(&*store, 20, (END + 2 * MINUTE, END + MINUTE)).await?;
    let again = (END + 3 * MINUTE, END + MINUTE);
    answers(&*store, id, again, Spent::First).await?;
    answers(&*store, id, again, Spent::Again).await
}

async fn a_short_life_is_long_enough(trial: Trial) -> Result<(), Broken> {
    let store = trial.store().await;
    let mut now = NOW;
    for _ in 0..50 {
        answers(&*store, id()?, (now + MILLISECOND, now), Spent::First).await?;
        now = now + MILLISECOND;
    }
    Ok(())
}

async fn a_later_end_is_kept(trial: Trial) -> Result<(), Broken> {
    let (store, id) = (trial.store().await, id()?);
    answers(&*store, id, (END, NOW), Spent::First).await?;
    answers(&*store, id, (END + 2 * MINUTE, NOW), Spent::Again).await?;
    // Its first end has come, and the store forgets what it may.
    churn(&*store, 20, (END + MINUTE, END)).await?;
    answers(&*store, id, (END + MINUTE, END), Spent::Again).await?;
    let last = END + 2 * MINUTE - MILLISECOND;
    answers(&*store, id, (END + 2 * MINUTE, last), Spent::Again).await?;
    answers(&*store, id, (END + 3 * MINUTE, END + 2 * MINUTE), Spent::First).await
}

async fn an_earlier_end_shortens_nothing(trial: Trial) -> Result<(), Broken> {
    let (store, id) = (trial.store().await, id()?);
    answers(&*store, id, (END + MINUTE, NOW), Spent::First).await?;
    for earlier in [END, NOW + MILLISECOND, NOW, NOW - MINUTE] {
        answers(&*store, id, (earlier, NOW), Spent::Again).await?;
    }
    churn(&*store, 20, (END + MINUTE, END)).await?;
    answers(&*store, id, (END + 2 * MINUTE, END), Spent::Again).await
}

async fn what_is_over_is_refused(trial: Trial) -> Result<(), Broken> {
    let store = trial.store().await;
    for until in [NOW, NOW - MILLISECOND, NOW - DAY, UnixTime::from_millis(0)] {
        answers(&*store, id()?, (until, NOW), Spent::Again).await?;
    }
    answers(&*store, id()?, (UnixTime::MAX, UnixTime::MAX), Spent::Again).await
}

async fn what_is_over_leaves_nothing(trial: Trial) -> Result<(), Broken> {
    let (store, id) = (trial.store().await, id()?);
    for until in [NOW, NOW - MINUTE] {
        answers(&*store, id, (until, NOW), Spent::Again).await?;
    }
    answers(&*store, id, (END, NOW), Spent::First).await
}

async fn what_was_forgotten_stays_spent(trial: Trial) -> Result<(), Broken> {
    let database = trial.database().await;
    let (fast, slow) = (database.open().await, database.open().await);
    let mut spent = Vec::new();
    for number in 0..20 {
        let (id, end) = (id()?, END + Duration::from_secs(number));
        answers(&*slow, id, (end, NOW), Spent::First).await?;
        spent.push((id, end));
    }
    // A node whose clock is ahead, by more than it should be, has the store forget them.
    churn(&*fast, 40, (END + 9 * MINUTE, END + MINUTE)).await?;
    for (id, end) in &spent {
        // For this node they are good still; or their call has been under way since then.
        for until in [*end, *end - MILLISECOND, END - 2 * MILLISECOND] {
            answers(&*slow, *id, (until, NOW), Spent::Again).await?;
        }
    }
    Ok(())
}

async fn a_broken_clock_frees_nothing(trial: Trial) -> Result<(), Broken> {
    let database = trial.database().await;
    let (broken, right) = (database.open().await, database.open().await);
    let id = id()?;
    answers(&*right, id, (END, NOW), Spent::First).await?;
    let future = NOW + 9_999 * DAY;
    churn(&*broken, 3, (future + MINUTE, future)).await?;
    answers(&*right, id, (END, NOW), Spent::Again).await
}

async fn what_is_over_goes(trial: Trial) -> Result<(), Broken> {
    const OLD: usize = 300;
    let database = trial.database().await;
    let store = database.open().await;
    churn(&*store, OLD, (END, NOW)).await?;
    let Some(before) = database.count().await else { return Ok(()) };
    ensure!(before == OLD as u64, "{before} items are stored, of {OLD} that are held");
    // Each call adds one, and forgets at least two.
    let mut now = END;
    for _ in 0..OLD {
        answers(&*store, id()?, (now + MILLISECOND, now), Spent::First).await?;
        now = now + MILLISECOND;
    }
    let left = database.count().await.unwrap_or_default();
    ensure!(left <= 4, "{left} items are stored, though all but one are over");
    // What is refused leaves no row, either.
    for _ in 0..9 {
        let _ = spend(&*store, id()?, now, now).await?;
    }
    let after = database.count().await.unwrap_or_default();
    ensure!(after <= left, "{} items were stored that were refused", after - left);
    Ok(())
}
