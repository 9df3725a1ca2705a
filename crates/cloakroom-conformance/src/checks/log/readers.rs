//! The log under concurrent writers: nothing skipped, nothing lost.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cloakroom_core::revocation::{Epoch, LogEntry, LogEvent, Revocation, Target};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::fixtures::{DAY, NOW, client, lone, revocation, subject};
use crate::pace::{Interleavings, at_once};
use crate::reading::{Reader, bounded, single};
use crate::report::Broken;

checks! { "log::readers":
    a_revocation_that_commits_late_is_delivered => LogComplete,
    a_revocation_that_a_heartbeat_overtakes_is_delivered => LogComplete,
    three_revocations_that_cross_are_delivered => LogComplete,
    every_reader_gets_everything_at_any_pace => LogComplete,
    what_was_acknowledged_is_read_at_once => LogComplete,
    a_heartbeat_comes_after_what_was_acknowledged_before_it => LogHeartbeat,
    a_heartbeat_among_many_writers_tells_the_truth => LogHeartbeat,
}

async fn a_revocation_that_commits_late_is_delivered(context: Context) -> Result<(), Broken> {
    for bounds in 0..4 {
        let store = context.tokens().await;
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let slow = if bounds / 2 == 0 { single()? } else { bounded()? };
            let quick = if bounds % 2 == 0 { single()? } else { bounded()? };
            let mut reader = Reader::at_the_end(&*store).await?;
            let revoke = store.revoke(slow.clone());
            // Another revocation is acknowledged, and read, while the first is under way.
            let meanwhile = async {
                let revoked = store.revoke(quick.clone()).await?;
                reader.read(&*store, 100).await?;
                ensure!(
                    reader.has(&quick.target),
                    "a revocation that was acknowledged is not read"
                );
                Ok::<_, Broken>(revoked)
            };
            let (late, early) = orders.play(revoke, meanwhile).await?;
            late?;
            early?;
            reader.read(&*store, 1).await?;
            ensure!(
                reader.has(&slow.target),
                "{:?} was acknowledged, and a reader that goes on reading never gets it",
                slow.target
            );
        }
    }
    Ok(())
}

async fn a_revocation_that_a_heartbeat_overtakes_is_delivered(
    context: Context,
) -> Result<(), Broken> {
    for slow in [single, bounded] {
        let store = context.tokens().await;
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let slow = slow()?;
            let mut reader = Reader::at_the_end(&*store).await?;
            let meanwhile = async {
                store.heartbeat(NOW, NOW + DAY).await?;
                reader.read(&*store, 100).await
            };
            let (late, early) = orders.play(store.revoke(slow.clone()), meanwhile).await?;
            late?;
            early?;
            reader.read(&*store, 1).await?;
            ensure!(
                reader.has(&slow.target),
                "{:?} was acknowledged, and a reader that saw the heartbeat never gets it",
                slow.target
            );
        }
    }
    Ok(())
}

async fn three_revocations_that_cross_are_delivered(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let [one, two, three] = [single()?, bounded()?, single()?];
        let mut reader = Reader::at_the_end(&*store).await?;
        let both = async {
            let first = store.revoke(two.clone()).await?;
            reader.read(&*store, 1).await?;
            store.revoke(three.clone()).await?;
            reader.read(&*store, 1).await?;
            Ok::<_, Broken>(first)
        };
        let (late, early) = orders.play(store.revoke(one.clone()), both).await?;
        late?;
        early?;
        reader.read(&*store, 1).await?;
        for revocation in [&one, &two, &three] {
            ensure!(
                reader.has(&revocation.target),
                "the reader never gets {:?}",
                revocation.target
            );
        }
    }
    Ok(())
}

/// What is known to be acknowledged, at any time.
type Acknowledged = Arc<Mutex<Vec<Target>>>;

fn note(acknowledged: &Acknowledged, target: Target) {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).push(target);
}

fn known(acknowledged: &Acknowledged) -> Vec<Target> {
    acknowledged.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(crate) const WRITERS: usize = 8;
pub(crate) const READERS: usize = 6;
pub(crate) const EACH: usize = 25;

/// The revocation of this round by this writer; no two have the same target.
fn one_of_many(writer: usize, round: usize) -> Result<Revocation, Broken> {
    Ok(revocation(match round % 3 {
        0 => Target::Grant(lone(Epoch::default())?.id),
        1 => Target::Subject(subject(&format!("user-{writer}-{round}"))?),
        _ => Target::Client(client(&format!("app-{writer}-{round}"))?),
    }))
}

async fn every_reader_gets_everything_at_any_pace(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let acknowledged = Acknowledged::default();
    at_once(WRITERS + READERS, |task| {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        async move {
            if task < WRITERS {
                for round in 0..EACH {
                    let revocation = one_of_many(task, round)?;
                    let target = revocation.target.clone();
                    let revoked = store.revoke(revocation).await?;
                    note(&acknowledged, target);
                    store.swept(revoked).await?;
                }
                return Ok(());
            }
            let limit = [1, 7, 1_000][task % 3];
            let mut reader = Reader::default();
            loop {
                // First what is acknowledged, then the log: it must hold all of that.
                let due = known(&acknowledged);
                reader.read(&*store, limit).await?;
                let seen: HashSet<_> = reader.seen.iter().filter_map(target_of).collect();
                let missed = due.iter().find(|target| !seen.contains(*target));
                ensure!(
                    missed.is_none(),
                    "{missed:?} was acknowledged, and a reader by {limit} read on without it"
                );
                if due.len() == WRITERS * EACH {
                    return Ok(());
                }
                tokio::task::yield_now().await;
            }
        }
    })
    .await?;
    let log = store.log().await?;
    let ids: HashSet<_> = log.iter().map(|entry| entry.id).collect();
    same("how many entries the log holds", &ids.len(), &(WRITERS * EACH))
}

fn target_of(entry: &LogEntry) -> Option<&Target> {
    match &entry.event {
        LogEvent::Revoked { target, .. } => Some(target),
        _ => None,
    }
}

async fn what_was_acknowledged_is_read_at_once(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    at_once(WRITERS, |task| {
        let store = Arc::clone(&store);
        async move {
            let mut reader = Reader::default();
            for round in 0..EACH {
                let revocation = one_of_many(task, round)?;
                let revoked = store.revoke(revocation.clone()).await?;
                reader.read(&*store, 5).await?;
                ensure!(
                    reader.has(&revocation.target),
                    "its own revocation of {:?} was acknowledged, and is not read",
                    revocation.target
                );
                store.swept(revoked).await?;
            }
            Ok(())
        }
    })
    .await?;
    Ok(())
}

async fn a_heartbeat_comes_after_what_was_acknowledged_before_it(
    context: Context,
) -> Result<(), Broken> {
    for slow in [single, bounded] {
        let store = context.tokens().await;
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            // A stranger's revocation is under way, and must hold nothing up, nor mix the order.
            let (stranger, mine) = (slow()?, single()?);
            let mut reader = Reader::at_the_end(&*store).await?;
            let at = NOW + Duration::from_millis(orders.round() as u64);
            let in_turn = async {
                store.revoke(mine.clone()).await?;
                Ok::<_, Broken>(store.heartbeat(at, NOW + DAY).await?)
            };
            let (one, two) = orders.play(store.revoke(stranger), in_turn).await?;
            one?;
            two?;
            reader.read(&*store, 3).await?;
            let heartbeat = reader.heartbeat(at).ok_or("the heartbeat is not in the log")?;
            ensure!(
                reader.place(&mine.target).is_some_and(|place| place < heartbeat),
                "the heartbeat comes before a revocation that was acknowledged before it"
            );
        }
    }
    Ok(())
}

async fn a_heartbeat_among_many_writers_tells_the_truth(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let acknowledged = Acknowledged::default();
    let beats = at_once(WRITERS + 2, |task| {
        let (store, acknowledged) = (Arc::clone(&store), Arc::clone(&acknowledged));
        async move {
            let mut beats = Vec::new();
            for round in 0..EACH {
                if task < WRITERS {
                    let revocation = one_of_many(task, round)?;
                    let target = revocation.target.clone();
                    store.revoked_as(revocation).await?;
                    note(&acknowledged, target);
                } else {
                    let at = NOW + Duration::from_millis((task * EACH + round) as u64);
                    let before = known(&acknowledged);
                    store.heartbeat(at, NOW + DAY).await?;
                    beats.push((at, before));
                    tokio::task::yield_now().await;
                }
            }
            Ok(beats)
        }
    });
    let beats = beats.await?;
    for limit in [1, 7, 1_000] {
        let mut reader = Reader::default();
        reader.read(&*store, limit).await?;
        for (at, before) in beats.iter().flatten() {
            let beat = reader.heartbeat(*at).ok_or("a heartbeat is not in the log")?;
            let late =
                before.iter().find(|target| reader.place(target).is_none_or(|place| place > beat));
            ensure!(
                late.is_none(),
                "a reader sees the heartbeat of {at:?} before {late:?}, which was acknowledged \
                 before it"
            );
        }
    }
    Ok(())
}
