//! Single-use items: what is spent once, and how items are distinguished.

use std::sync::Arc;

use cloakroom_core::Random;
use cloakroom_core::store::{SingleUseId, SingleUseStore, Spend, Spent, StoreError};
use cloakroom_core::time::UnixTime;
use tokio::time::timeout;

use crate::ask::{ensure, same};
use crate::fixtures::{MINUTE, NOW};
use crate::pace::{HUNG, at_once};
use crate::report::Broken;
use crate::single_use::Trial;

/// Makes a module's table, as `checks!` does for token and key stores.
macro_rules! single_use_checks {
    ($module:literal: $($function:ident => $promise:ident),+ $(,)?) => {
        pub(crate) const CHECKS: &[crate::single_use::Check] = &[$(crate::single_use::Check {
            name: concat!($module, "::", stringify!($function)),
            promise: crate::Promise::$promise,
            run: |trial| Box::pin($function(trial)),
        }),+];
    };
}
pub(crate) use single_use_checks;

single_use_checks! { "single_use::items":
    an_item_is_first_once => SpendOnce,
    databases_are_apart => SpendFirst,
    nodes_share_what_is_spent => SpendOnce,
    many_items_are_spent_once_each => SpendOnce,
    an_id_that_differs_in_one_bit_is_another => SpendIds,
    ids_of_any_bytes_are_exact => SpendIds,
    a_full_store_refuses_and_drops_nothing => SpendBounded,
    a_full_store_takes_new_items_when_others_are_over => SpendBounded,
    what_is_spent_survives_a_restart => SpendDurable,
    what_is_forgotten_survives_a_restart => SpendDurable,
}

/// A random id.
pub(crate) fn id() -> Result<SingleUseId, Broken> {
    Ok(SingleUseId::from_bytes(Random::system().array()?))
}

/// Spends this id until then, now.
pub(crate) async fn spend(
    store: &dyn SingleUseStore,
    id: SingleUseId,
    until: UnixTime,
    now: UnixTime,
) -> Result<Spent, StoreError> {
    let answer = timeout(HUNG, store.spend(Spend { id, until, now })).await;
    answer.unwrap_or_else(|_| Err(StoreError::Misuse("`spend` hangs")))
}

/// That the answer is this one.
pub(crate) async fn answers(
    store: &dyn SingleUseStore,
    id: SingleUseId,
    (until, now): (UnixTime, UnixTime),
    should: Spent,
) -> Result<(), Broken> {
    let what = format!("the answer to `spend` of {id:?} until {until} at {now}");
    same(&what, &spend(store, id, until, now).await?, &should)
}

/// Spends this many others, so that the store forgets what it may.
pub(crate) async fn churn(
    store: &dyn SingleUseStore,
    count: usize,
    (until, now): (UnixTime, UnixTime),
) -> Result<(), Broken> {
    for _ in 0..count {
        answers(store, id()?, (until, now), Spent::First).await?;
    }
    Ok(())
}

const SOON: (UnixTime, UnixTime) = (UnixTime::from_secs(2_000_000_060), NOW);

async fn an_item_is_first_once(trial: Trial) -> Result<(), Broken> {
    let (store, id) = (trial.store().await, id()?);
    answers(&*store, id, SOON, Spent::First).await?;
    for _ in 0..3 {
        answers(&*store, id, SOON, Spent::Again).await?;
    }
    Ok(())
}

async fn databases_are_apart(trial: Trial) -> Result<(), Broken> {
    let (one, other, id) = (trial.store().await, trial.store().await, id()?);
    answers(&*one, id, SOON, Spent::First).await?;
    answers(&*other, id, SOON, Spent::First).await?;
    // What one forgets says nothing of the other.
    churn(&*one, 20, (NOW + 9 * MINUTE, NOW + 2 * MINUTE)).await?;
    answers(&*other, self::id()?, SOON, Spent::First).await
}

async fn nodes_share_what_is_spent(trial: Trial) -> Result<(), Broken> {
    let database = trial.database().await;
    let (one, other) = (database.open().await, database.open().await);
    for (first, second) in [(&one, &other), (&other, &one)] {
        let id = id()?;
        answers(&**first, id, SOON, Spent::First).await?;
        answers(&**second, id, SOON, Spent::Again).await?;
    }
    Ok(())
}

async fn many_items_are_spent_once_each(trial: Trial) -> Result<(), Broken> {
    const TASKS: usize = 64;
    const EACH: usize = 160;
    let store = trial.store().await;
    let spent = at_once(TASKS, |_| {
        let store = Arc::clone(&store);
        async move {
            let mut ids = Vec::new();
            for _ in 0..EACH {
                let id = id()?;
                answers(&*store, id, SOON, Spent::First).await?;
                ids.push(id);
            }
            Ok(ids)
        }
    })
    .await?;
    at_once(TASKS, |number| {
        // Another task's.
        let (store, ids) = (Arc::clone(&store), spent[(number + 1) % TASKS].clone());
        async move {
            for id in ids {
                answers(&*store, id, SOON, Spent::Again).await?;
            }
            Ok(())
        }
    })
    .await?;
    Ok(())
}

async fn an_id_that_differs_in_one_bit_is_another(trial: Trial) -> Result<(), Broken> {
    let (store, base) = (trial.store().await, id()?);
    let mut ids = vec![base];
    for bit in 0..256 {
        let mut bytes = *base.as_bytes();
        bytes[bit / 8] ^= 1 << (bit % 8);
        ids.push(SingleUseId::from_bytes(bytes));
    }
    all_are_first_then_again(&*store, &ids).await
}

async fn ids_of_any_bytes_are_exact(trial: Trial) -> Result<(), Broken> {
    let store = trial.store().await;
    let mut ids = Vec::new();
    for byte in [0, b' ', b'%', b'\'', b'A', b'a', b'\\', 0x7f, 0x80, 0xff] {
        ids.push(SingleUseId::from_bytes([byte; 32]));
        // It begins and ends like others, and holds NUL.
        for at in [0, 15, 31] {
            let mut bytes = [byte; 32];
            bytes[at] = 1;
            ids.push(SingleUseId::from_bytes(bytes));
        }
    }
    all_are_first_then_again(&*store, &ids).await
}

async fn all_are_first_then_again(
    store: &dyn SingleUseStore,
    ids: &[SingleUseId],
) -> Result<(), Broken> {
    for should in [Spent::First, Spent::Again] {
        for id in ids {
            answers(store, *id, SOON, should).await?;
        }
    }
    Ok(())
}

const MAX: usize = 16;

/// A full store, with the ids that it holds; `None` if it knows no such bound.
async fn full(trial: &Trial) -> Result<Option<Full>, Broken> {
    let Some(database) = trial.bounded(MAX).await else { return Ok(None) };
    let (store, mut ids) = (database.open().await, Vec::new());
    for _ in 0..MAX {
        let id = id()?;
        answers(&*store, id, SOON, Spent::First).await?;
        ids.push(id);
    }
    Ok(Some((store, ids)))
}

type Full = (Arc<dyn SingleUseStore>, Vec<SingleUseId>);

async fn a_full_store_refuses_and_drops_nothing(trial: Trial) -> Result<(), Broken> {
    let Some((store, ids)) = full(&trial).await? else { return Ok(()) };
    for _ in 0..2 {
        for later in 0..3 {
            let (until, now) = SOON;
            let answer = spend(&*store, id()?, until + later * MINUTE, now).await;
            let is_full = answer.as_ref().is_err_and(StoreError::is_retryable);
            ensure!(is_full, "a store that is full answered {answer:?}");
        }
        for id in &ids {
            answers(&*store, *id, SOON, Spent::Again).await?;
        }
    }
    Ok(())
}

async fn a_full_store_takes_new_items_when_others_are_over(trial: Trial) -> Result<(), Broken> {
    let Some((store, ids)) = full(&trial).await? else { return Ok(()) };
    let (refused, (end, _)) = (id()?, SOON);
    let answer = spend(&*store, refused, end + MINUTE, NOW).await;
    ensure!(answer.is_err(), "a store that is full answered {answer:?}");
    // It was not spent by the call that failed, and the others are over.
    answers(&*store, refused, (end + MINUTE, end), Spent::First).await?;
    churn(&*store, MAX - 1, (end + MINUTE, end)).await?;
    let answer = spend(&*store, ids[0], end + MINUTE, end).await;
    ensure!(answer.is_err(), "a store that is full again answered {answer:?}");
    Ok(())
}

async fn what_is_spent_survives_a_restart(trial: Trial) -> Result<(), Broken> {
    let (database, id) = (trial.database().await, id()?);
    let store = database.open().await;
    answers(&*store, id, SOON, Spent::First).await?;
    let (end, _) = SOON;
    answers(&*store, id, (end + MINUTE, NOW), Spent::Again).await?;
    drop(store);
    let store = database.open().await;
    answers(&*store, id, (end + 2 * MINUTE, end), Spent::Again).await
}

async fn what_is_forgotten_survives_a_restart(trial: Trial) -> Result<(), Broken> {
    let (database, id) = (trial.database().await, id()?);
    let (store, (end, _)) = (database.open().await, SOON);
    answers(&*store, id, SOON, Spent::First).await?;
    churn(&*store, 20, (end + 2 * MINUTE, end + MINUTE)).await?;
    drop(store);
    answers(&*database.open().await, id, SOON, Spent::Again).await
}
