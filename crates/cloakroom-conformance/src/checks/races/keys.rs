//! Many nodes that rotate one key ring at once.

use cloakroom_core::Kid;
use cloakroom_core::keys::schedule::KeyTimes;
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use serde_json::json;

use crate::Context;
use crate::ask::{ensure, same};
use crate::fixtures::NOW;
use crate::pace::Interleavings;
use crate::report::Broken;

checks! { "races::keys":
    of_two_inserts_one_wins => KeysNeverReused,
    an_insert_beside_a_delete_does_not_reuse => KeysNeverReused,
    of_two_updates_one_wins => KeysCompareAndSet,
    of_an_update_and_a_delete_one_wins => KeysCompareAndSet,
}

/// A record by this writer, who can be told by its `kid`.
fn key(generation: u64, version: u64, writer: usize) -> Result<KeyRecord, Broken> {
    let kid = Kid::new(format!("key-{generation}-{version}-{writer}"))?;
    let public = json!({"kty": "EC", "crv": "P-256"});
    let times = KeyTimes::published(NOW);
    let mut key = KeyRecord::new(generation, kid, "ES256", public, vec![1, 2, 3], times);
    key.version = version;
    Ok(key)
}

async fn inserted(store: &dyn KeyStore, record: &KeyRecord) -> Result<(), Broken> {
    let answer = store.insert(record.clone()).await?;
    same("the answer to the first `insert`", &answer, &KeyInserted::Inserted)
}

/// That one of the rivals won, and that its record is the one there.
async fn one_won<A: PartialEq + std::fmt::Debug>(
    store: &dyn KeyStore,
    rivals: &[KeyRecord],
    answers: &[A],
    won: &A,
) -> Result<(), Broken> {
    let winners: Vec<_> = rivals.iter().zip(answers).filter(|(_, answer)| *answer == won).collect();
    let [(winner, _)] = winners[..] else {
        return Err(
            format!("rivals for generation {} got {answers:?}", rivals[0].generation).into()
        );
    };
    let mut stands = store.load().await?;
    stands.retain(|key| key.generation == winner.generation);
    same("what stands at the generation", &stands, &vec![winner.clone()])
}

async fn of_two_inserts_one_wins(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let generation = orders.round() as u64;
        let rivals = [key(generation, 1, 1)?, key(generation, 1, 2)?];
        let [one, two] = [0, 1].map(|rival: usize| store.insert(rivals[rival].clone()));
        let (one, two) = orders.play(one, two).await?;
        one_won(&*store, &rivals, &[one?, two?], &KeyInserted::Inserted).await?;
    }
    Ok(())
}

async fn an_insert_beside_a_delete_does_not_reuse(context: Context) -> Result<(), Broken> {
    for insert_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let store = context.keys().await;
            inserted(&*store, &key(7, 1, 1)?).await?;
            let (insert, delete) = (store.insert(key(7, 1, 2)?), store.delete(7, 1));
            let (insert, delete) = if insert_first {
                orders.play(insert, delete).await?
            } else {
                let (delete, insert) = orders.play(delete, insert).await?;
                (insert, delete)
            };
            same("the answer to an insert of a used generation", &insert?, &KeyInserted::Taken)?;
            same("the answer to the delete", &delete?, &KeyUpdated::Updated)?;
            ensure!(store.load().await?.is_empty(), "the deleted key, or another, is there");
        }
    }
    Ok(())
}

async fn of_two_updates_one_wins(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let generation = orders.round() as u64;
        inserted(&*store, &key(generation, 1, 0)?).await?;
        // One has slept, and would write another version.
        let rivals = [key(generation, 2, 1)?, key(generation, 3, 2)?];
        let [one, two] = [0, 1].map(|rival: usize| store.update(rivals[rival].clone(), 1));
        let (one, two) = orders.play(one, two).await?;
        one_won(&*store, &rivals, &[one?, two?], &KeyUpdated::Updated).await?;
    }
    Ok(())
}

async fn of_an_update_and_a_delete_one_wins(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut generation = 0;
    for update_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            generation += 1;
            inserted(&*store, &key(generation, 1, 0)?).await?;
            let next = key(generation, 2, 1)?;
            let update = store.update(next.clone(), 1);
            let delete = store.delete(generation, 1);
            let (update, delete) = if update_first {
                orders.play(update, delete).await?
            } else {
                let (delete, update) = orders.play(delete, update).await?;
                (update, delete)
            };
            let answers = (update?, delete?);
            let mut stands = store.load().await?.into_iter();
            let stands = stands.find(|key| key.generation == generation);
            let should = match answers {
                (KeyUpdated::Updated, KeyUpdated::Stale) => Some(next),
                (KeyUpdated::Stale, KeyUpdated::Updated) => None,
                _ => return Err(format!("update and delete of one version: {answers:?}").into()),
            };
            same("what stands after the race", &stands, &should)?;
        }
    }
    Ok(())
}
