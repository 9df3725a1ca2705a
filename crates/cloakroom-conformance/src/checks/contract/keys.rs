//! The key store.

use std::sync::Arc;

use cloakroom_core::Kid;
use cloakroom_core::keys::schedule::{KeyTimes, Signing};
use cloakroom_core::keys::{KeyInserted, KeyRecord, KeyStore, KeyUpdated};
use cloakroom_core::time::UnixTime;
use serde_json::json;

use crate::Context;
use crate::ask::{ensure, same};
use crate::fixtures::{DAY, NOW, unknown};
use crate::report::Broken;

checks! { "contract::keys":
    a_new_store_has_no_keys => KeysOrdered,
    every_field_of_a_key_survives => KeysOrdered,
    keys_are_loaded_by_generation => KeysOrdered,
    large_keys_and_numbers_survive => KeysOrdered,
    a_generation_is_taken_once => KeysNeverReused,
    a_lower_generation_is_refused => KeysNeverReused,
    a_deleted_generation_is_not_free => KeysNeverReused,
    of_racing_inserts_one_wins => KeysNeverReused,
    racing_inserts_leave_what_they_say => KeysNeverReused,
    an_update_needs_the_version_that_stands => KeysCompareAndSet,
    an_update_replaces_the_whole_record => KeysCompareAndSet,
    an_update_does_not_insert => KeysCompareAndSet,
    a_delete_needs_the_version_that_stands => KeysCompareAndSet,
    of_racing_updates_one_wins => KeysCompareAndSet,
    of_an_update_and_a_delete_one_wins => KeysCompareAndSet,
}

pub(crate) fn key(generation: u64, name: &str) -> Result<KeyRecord, Broken> {
    let public = json!({"kty": "EC", "crv": "P-256", "x": "eA", "y": "eQ"});
    let times = KeyTimes::published(NOW);
    Ok(KeyRecord::new(generation, Kid::new(name)?, "ES256", public, vec![1, 2, 3], times))
}

/// The record after this many more writes, with other contents in every field.
pub(crate) fn rewritten(key: &KeyRecord, writes: u64) -> Result<KeyRecord, Broken> {
    let mut key = key.clone();
    key.version += writes;
    key.kid = Kid::new(format!("clé {writes} '\"\\"))?;
    key.algorithm = "EdDSA".to_owned();
    key.ring = format!("ring {writes}");
    key.public_jwk = json!({"kty": "OKP", "n": [writes, null, "é\0"], "": {}});
    key.sealed = vec![0, 0xff, b'\n', 0];
    let mut signing = Signing::new(NOW + 2 * DAY, NOW + 3 * DAY, NOW + 4 * DAY);
    signing.unknown = unknown(9);
    key.times = KeyTimes::published(NOW + DAY);
    key.times.signing = Some(signing);
    key.times.unknown = unknown(8);
    key.compromised_at = Some(NOW + 5 * DAY);
    key.unknown = unknown(7);
    Ok(key)
}

pub(crate) async fn inserted(store: &dyn KeyStore, key: &KeyRecord) -> Result<(), Broken> {
    let answer = store.insert(key.clone()).await?;
    same("the answer to `insert`", &answer, &KeyInserted::Inserted)
}

pub(crate) async fn holds(store: &dyn KeyStore, keys: &[&KeyRecord]) -> Result<(), Broken> {
    let loaded = store.load().await?;
    let loaded: Vec<_> = loaded.iter().collect();
    same("what `load` returns", &loaded, &keys.to_vec())
}

async fn a_new_store_has_no_keys(context: Context) -> Result<(), Broken> {
    holds(&*context.keys().await, &[]).await
}

async fn every_field_of_a_key_survives(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let bare = key(1, "one")?;
    let mut full = rewritten(&bare, 4)?;
    full.generation = 2;
    inserted(&*store, &bare).await?;
    inserted(&*store, &full).await?;
    holds(&*store, &[&bare, &full]).await
}

async fn keys_are_loaded_by_generation(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut keys = Vec::new();
    // An order that texts do not have; and gaps, which nothing forbids.
    for generation in [1, 2, 9, 10, 99, 100, 256, 65_536] {
        // Names in the opposite order.
        let key = key(generation, &format!("{:06}", 100_000 - generation))?;
        inserted(&*store, &key).await?;
        keys.push(key);
    }
    holds(&*store, &keys.iter().collect::<Vec<_>>()).await?;
    // A rewritten record keeps its place.
    let next = rewritten(&keys[2], 1)?;
    let answer = store.update(next.clone(), 1).await?;
    same("the answer to `update`", &answer, &KeyUpdated::Updated)?;
    keys[2] = next;
    holds(&*store, &keys.iter().collect::<Vec<_>>()).await
}

async fn large_keys_and_numbers_survive(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut keys = Vec::new();
    for generation in [(1 << 53) + 1, i64::MAX as u64] {
        let mut key = key(generation, &"k".repeat(255))?;
        key.version = generation;
        key.sealed = (0..8_192_u32).map(|byte| byte as u8).collect();
        key.public_jwk = json!({"kty": "RSA", "n": "A".repeat(1_400), "e": "AQAB"});
        key.times.published = UnixTime::from_millis(generation);
        inserted(&*store, &key).await?;
        keys.push(key);
    }
    holds(&*store, &keys.iter().collect::<Vec<_>>()).await
}

async fn a_generation_is_taken_once(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let first = key(1, "first")?;
    inserted(&*store, &first).await?;
    // Another key, and the very same once more.
    for again in [key(1, "second")?, first.clone()] {
        let answer = store.insert(again).await?;
        same("the second answer", &answer, &KeyInserted::Taken)?;
        holds(&*store, &[&first]).await?;
    }
    Ok(())
}

async fn a_lower_generation_is_refused(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let high = key(5, "high")?;
    inserted(&*store, &high).await?;
    for generation in [1, 4] {
        let answer = store.insert(key(generation, "low")?).await?;
        same("the answer", &answer, &KeyInserted::Taken)?;
    }
    holds(&*store, &[&high]).await?;
    let higher = key(6, "higher")?;
    inserted(&*store, &higher).await?;
    holds(&*store, &[&high, &higher]).await
}

async fn a_deleted_generation_is_not_free(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    for generation in [3, 4] {
        inserted(&*store, &key(generation, "a")?).await?;
    }
    for generation in [4, 3] {
        let answer = store.delete(generation, 1).await?;
        same("the answer to `delete`", &answer, &KeyUpdated::Updated)?;
        for taken in [1, 3, 4] {
            let answer = store.insert(key(taken, "b")?).await?;
            same("the answer to `insert`", &answer, &KeyInserted::Taken)?;
        }
    }
    holds(&*store, &[]).await?;
    let next = key(5, "c")?;
    inserted(&*store, &next).await?;
    holds(&*store, &[&next]).await
}

/// How many tasks race, and how often.
const RACERS: u64 = 8;
const ROUNDS: u64 = 12;

/// Runs one task for each number, all at once, and returns their answers in order.
async fn race<T, F>(racer: impl Fn(u64) -> F) -> Result<Vec<T>, Broken>
where
    T: Send + 'static,
    F: Future<Output = Result<T, Broken>> + Send + 'static,
{
    let start = Arc::new(tokio::sync::Barrier::new(RACERS as usize));
    let tasks: Vec<_> = (0..RACERS)
        .map(|number| {
            let (start, run) = (Arc::clone(&start), racer(number));
            tokio::spawn(async move {
                start.wait().await;
                run.await
            })
        })
        .collect();
    let mut answers = Vec::new();
    for task in tasks {
        answers.push(task.await??);
    }
    Ok(answers)
}

async fn of_racing_inserts_one_wins(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut winners = Vec::new();
    for generation in 1..=ROUNDS {
        let answers = race(|number| {
            let store = Arc::clone(&store);
            async move {
                let key = key(generation, &number.to_string())?;
                let answer = store.insert(key.clone()).await?;
                Ok((answer == KeyInserted::Inserted).then_some(key))
            }
        })
        .await?;
        let won: Vec<KeyRecord> = answers.into_iter().flatten().collect();
        ensure!(won.len() == 1, "{RACERS} raced to insert one generation, and {} did", won.len());
        winners.extend(won);
        holds(&*store, &winners.iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

async fn racing_inserts_leave_what_they_say(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut winners = Vec::new();
    for round in 0..ROUNDS {
        let answers = race(|number| {
            let store = Arc::clone(&store);
            async move {
                let key = key(round * RACERS + number + 1, &number.to_string())?;
                let answer = store.insert(key.clone()).await?;
                Ok((answer == KeyInserted::Inserted).then_some(key))
            }
        })
        .await?;
        ensure!(
            answers.last().is_some_and(Option::is_some),
            "the highest generation of all was refused"
        );
        winners.extend(answers.into_iter().flatten());
        holds(&*store, &winners.iter().collect::<Vec<_>>()).await?;
    }
    Ok(())
}

async fn an_update_needs_the_version_that_stands(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let (mut stands, bystander) = (key(1, "one")?, key(2, "two")?);
    inserted(&*store, &stands).await?;
    inserted(&*store, &bystander).await?;
    for _ in 0..3 {
        for expected in [0, stands.version - 1, stands.version + 1, u64::MAX >> 1] {
            if expected == stands.version {
                continue;
            }
            // Newer or older than what stands, it makes no difference.
            for version in [expected + 1, stands.version + 2] {
                let mut late = rewritten(&stands, 0)?;
                late.version = version;
                let answer = store.update(late, expected).await?;
                same("the answer to `update`", &answer, &KeyUpdated::Stale)?;
                holds(&*store, &[&stands, &bystander]).await?;
            }
        }
        let mut next = stands.clone();
        next.version = stands.version + 1;
        let answer = store.update(next.clone(), stands.version).await?;
        same("the answer to `update`", &answer, &KeyUpdated::Updated)?;
        stands = next;
        holds(&*store, &[&stands, &bystander]).await?;
    }
    Ok(())
}

async fn an_update_replaces_the_whole_record(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let bare = key(1, "one")?;
    inserted(&*store, &bare).await?;
    let full = rewritten(&bare, 9)?;
    let mut bare_again = bare;
    bare_again.version = full.version + 1;
    for (next, expected) in [(&full, 1), (&bare_again, full.version)] {
        let answer = store.update(next.clone(), expected).await?;
        same("the answer to `update`", &answer, &KeyUpdated::Updated)?;
        holds(&*store, &[next]).await?;
    }
    Ok(())
}

async fn an_update_does_not_insert(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let key = key(1, "one")?;
    let next = rewritten(&key, 1)?;
    for expected in [0, 1] {
        let answer = store.update(next.clone(), expected).await?;
        same("the answer to `update`", &answer, &KeyUpdated::Stale)?;
        let answer = store.delete(1, expected).await?;
        same("the answer to `delete`", &answer, &KeyUpdated::Stale)?;
        holds(&*store, &[]).await?;
    }
    inserted(&*store, &key).await?;
    let answer = store.delete(1, 1).await?;
    same("the answer to `delete`", &answer, &KeyUpdated::Updated)?;
    let answer = store.update(next, 1).await?;
    same("the answer to `update`", &answer, &KeyUpdated::Stale)?;
    holds(&*store, &[]).await
}

async fn a_delete_needs_the_version_that_stands(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let (first, second) = (key(1, "one")?, key(2, "two")?);
    inserted(&*store, &first).await?;
    inserted(&*store, &second).await?;
    let next = rewritten(&first, 1)?;
    let answer = store.update(next.clone(), 1).await?;
    same("the answer to `update`", &answer, &KeyUpdated::Updated)?;
    for expected in [0, 1, 3] {
        let answer = store.delete(1, expected).await?;
        same("the answer to `delete`", &answer, &KeyUpdated::Stale)?;
        holds(&*store, &[&next, &second]).await?;
    }
    for should in [KeyUpdated::Updated, KeyUpdated::Stale] {
        let answer = store.delete(1, 2).await?;
        same("the answer to `delete`", &answer, &should)?;
        holds(&*store, &[&second]).await?;
    }
    Ok(())
}

async fn of_racing_updates_one_wins(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    let mut stands = key(1, "one")?;
    inserted(&*store, &stands).await?;
    for _ in 0..ROUNDS {
        let answers = race(|number| {
            let (store, stands) = (Arc::clone(&store), stands.clone());
            async move {
                let next = rewritten(&stands, number + 1)?;
                let answer = store.update(next.clone(), stands.version).await?;
                Ok((answer == KeyUpdated::Updated).then_some(next))
            }
        })
        .await?;
        let won: Vec<KeyRecord> = answers.into_iter().flatten().collect();
        let [winner] = &won[..] else {
            return Err(format!("{RACERS} raced to update, and {} did", won.len()).into());
        };
        holds(&*store, &[winner]).await?;
        stands = winner.clone();
    }
    Ok(())
}

async fn of_an_update_and_a_delete_one_wins(context: Context) -> Result<(), Broken> {
    let store = context.keys().await;
    for generation in 1..=ROUNDS {
        let first = key(generation, "one")?;
        inserted(&*store, &first).await?;
        let answers = race(|number| {
            let (store, first) = (Arc::clone(&store), first.clone());
            async move {
                if number % 2 == 0 {
                    let answer = store.delete(generation, 1).await?;
                    return Ok((answer == KeyUpdated::Updated).then_some(None));
                }
                let next = rewritten(&first, number)?;
                let answer = store.update(next.clone(), 1).await?;
                Ok((answer == KeyUpdated::Updated).then_some(Some(next)))
            }
        })
        .await?;
        let won: Vec<Option<KeyRecord>> = answers.into_iter().flatten().collect();
        let [winner] = &won[..] else {
            return Err(format!("{RACERS} raced, and {} did something", won.len()).into());
        };
        holds(&*store, &winner.iter().collect::<Vec<_>>()).await?;
        if let Some(winner) = winner {
            let answer = store.delete(generation, winner.version).await?;
            same("the answer to `delete`", &answer, &KeyUpdated::Updated)?;
        }
    }
    Ok(())
}
