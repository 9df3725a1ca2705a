//! Single-use items: many calls at once, and calls that are dropped.

use std::sync::Arc;

use cloakroom_core::store::{SingleUseId, SingleUseStore, Spent};
use cloakroom_core::time::UnixTime;

use crate::ask::ensure;
use crate::checks::single_use::items::{answers, churn, id, single_use_checks, spend};
use crate::fixtures::{MINUTE, NOW};
use crate::pace::{Drops, Interleavings, at_once};
use crate::report::Broken;
use crate::single_use::Trial;

single_use_checks! { "single_use::races":
    of_two_calls_one_is_first => SpendOnce,
    of_two_calls_at_the_end_one_is_first => SpendOnce,
    of_many_tasks_one_is_first => SpendOnce,
    of_many_tasks_at_the_end_one_is_first => SpendOnce,
    of_two_later_ends_the_latest_is_kept => SpendLater,
    a_later_end_and_forgetting_leave_it_held => SpendLater,
    a_dropped_call_spends_or_does_not => Cancellation,
    a_dropped_call_leaves_the_later_end_or_the_earlier => Cancellation,
    a_dropped_call_that_forgets_brings_nothing_back => Cancellation,
}

const END: UnixTime = UnixTime::from_secs(2_000_000_060);
const LATER: UnixTime = UnixTime::from_secs(2_000_000_120);

const RACERS: usize = 12;
const ROUNDS: usize = 12;

async fn of_two_calls_one_is_first(trial: Trial) -> Result<(), Broken> {
    two_calls(trial, NOW).await
}

/// The id was spent before, and its end has come.
async fn of_two_calls_at_the_end_one_is_first(trial: Trial) -> Result<(), Broken> {
    two_calls(trial, END).await
}

async fn two_calls(trial: Trial, now: UnixTime) -> Result<(), Broken> {
    let mut orders = Interleavings::new(&trial);
    while orders.again() {
        let database = trial.database().await;
        let (one, other, id) = (database.open().await, database.open().await, id()?);
        if now == END {
            answers(&*one, id, (END, NOW), Spent::First).await?;
        }
        let calls = (spend(&*one, id, LATER, now), spend(&*other, id, LATER, now));
        let (first, second) = orders.play(calls.0, calls.1).await?;
        one_is_first(&[first?, second?])?;
        answers(&*one, id, (LATER, now), Spent::Again).await?;
    }
    Ok(())
}

fn one_is_first(answers: &[Spent]) -> Result<(), Broken> {
    let firsts = answers.iter().filter(|answer| **answer == Spent::First).count();
    ensure!(firsts == 1, "of {} calls for one id, {firsts} were `First`", answers.len());
    Ok(())
}

async fn of_many_tasks_one_is_first(trial: Trial) -> Result<(), Broken> {
    many_tasks(trial, NOW).await
}

async fn of_many_tasks_at_the_end_one_is_first(trial: Trial) -> Result<(), Broken> {
    many_tasks(trial, END).await
}

async fn many_tasks(trial: Trial, now: UnixTime) -> Result<(), Broken> {
    for _ in 0..ROUNDS {
        let (database, id) = (trial.database().await, id()?);
        let nodes = [database.open().await, database.open().await];
        if now == END {
            answers(&*nodes[0], id, (END, NOW), Spent::First).await?;
        }
        let answers = at_once(RACERS, |number| {
            let store: Arc<dyn SingleUseStore> = Arc::clone(&nodes[number % 2]);
            async move {
                // What they spend beside it has the store forget what is over.
                if number % 3 == 0 {
                    churn(&*store, 1, (LATER, now)).await?;
                }
                Ok(spend(&*store, id, LATER, now).await?)
            }
        })
        .await?;
        one_is_first(&answers)?;
    }
    Ok(())
}

async fn of_two_later_ends_the_latest_is_kept(trial: Trial) -> Result<(), Broken> {
    let store = trial.store().await;
    for ends in [[LATER, LATER + MINUTE], [LATER + MINUTE, LATER]] {
        let mut orders = Interleavings::new(&trial);
        while orders.again() {
            let id = id()?;
            answers(&*store, id, (END, NOW), Spent::First).await?;
            let calls = (spend(&*store, id, ends[0], NOW), spend(&*store, id, ends[1], NOW));
            let (one, other) = orders.play(calls.0, calls.1).await?;
            ensure!([one?, other?] == [Spent::Again; 2], "an item that is held was spent");
            answers(&*store, id, (LATER + MINUTE, LATER), Spent::Again).await?;
        }
    }
    Ok(())
}

async fn a_later_end_and_forgetting_leave_it_held(trial: Trial) -> Result<(), Broken> {
    let mut orders = Interleavings::new(&trial);
    while orders.again() {
        let (store, id, other) = (trial.store().await, id()?, id()?);
        answers(&*store, id, (END, NOW), Spent::First).await?;
        // To one node the item is held, to the other it is over and may be forgotten: whichever
        // comes first, it is held to the later end.
        let calls = (spend(&*store, id, LATER, NOW), spend(&*store, other, LATER, END));
        let (_, other) = orders.play(calls.0, calls.1).await?;
        ensure!(other? == Spent::First, "another item was spent before");
        answers(&*store, id, (LATER, END), Spent::Again).await?;
    }
    Ok(())
}

async fn a_dropped_call_spends_or_does_not(trial: Trial) -> Result<(), Broken> {
    let mut drops = Drops::new(&trial);
    while drops.again() {
        let database = trial.database().await;
        let (store, other, id) = (database.open().await, database.open().await, id()?);
        drops.play(spend(&*store, id, END, NOW)).await?;
        // If it was spent, nobody knows who did it.
        let _ = spend(&*other, id, END, NOW).await?;
        answers(&*store, id, (END, NOW), Spent::Again).await?;
        // Its end is that of the call, and not another.
        answers(&*other, id, (LATER, END), Spent::First).await?;
        answers(&*store, self::id()?, (LATER, END), Spent::First).await?;
    }
    Ok(())
}

async fn a_dropped_call_leaves_the_later_end_or_the_earlier(trial: Trial) -> Result<(), Broken> {
    let mut drops = Drops::new(&trial);
    while drops.again() {
        let (store, id) = (trial.store().await, id()?);
        answers(&*store, id, (END, NOW), Spent::First).await?;
        drops.play(spend(&*store, id, LATER, NOW)).await?;
        is_held(&*store, id, NOW).await?;
        let _ = spend(&*store, id, LATER + MINUTE, END).await?;
        is_held(&*store, id, END).await?;
        is_held(&*store, id, LATER).await?;
    }
    Ok(())
}

/// That the id is held, which this does not change.
async fn is_held(store: &dyn SingleUseStore, id: SingleUseId, now: UnixTime) -> Result<(), Broken> {
    answers(store, id, (now + std::time::Duration::from_millis(1), now), Spent::Again).await
}

async fn a_dropped_call_that_forgets_brings_nothing_back(trial: Trial) -> Result<(), Broken> {
    let mut drops = Drops::new(&trial);
    while drops.again() {
        let store = trial.store().await;
        let mut spent = Vec::new();
        for _ in 0..4 {
            let id = id()?;
            answers(&*store, id, (END, NOW), Spent::First).await?;
            spent.push(id);
        }
        drops.play(spend(&*store, id()?, LATER, END)).await?;
        for id in spent {
            answers(&*store, id, (END, NOW), Spent::Again).await?;
        }
    }
    Ok(())
}
