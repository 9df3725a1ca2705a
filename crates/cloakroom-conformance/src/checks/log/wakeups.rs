//! A reader that waits for the log to grow is woken.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::revocation::{LogNotifications, Target};
use cloakroom_core::store::TokenStore;
use futures_util::{FutureExt, StreamExt};
use tokio::time::timeout;

use crate::Context;
use crate::ask::{Ask, ensure};
use crate::checks::log::readers::{EACH, READERS, WRITERS};
use crate::fixtures::{DAY, NOW, client};
use crate::pace::{HUNG, Interleavings, at_once};
use crate::reading::{Reader, bounded, single};
use crate::report::Broken;

checks! { "log::wakeups":
    a_reader_who_only_waits_gets_everything => LogWakeups,
    a_wakeup_does_not_come_before_its_entry => LogWakeups,
    every_waiting_reader_is_woken => LogWakeups,
    a_reader_who_listens_late_is_woken => LogWakeups,
}

/// Waits for the next wake-up; `false` if the store has none to give.
async fn woken(wakeups: &mut LogNotifications) -> Result<bool, Broken> {
    match wakeups {
        LogNotifications::Stream(stream) => match timeout(HUNG / 2, stream.next()).await {
            Ok(Some(())) => Ok(true),
            Ok(None) => Err("the stream of wake-ups has ended, and the store lives".into()),
            Err(_) => Err("the log has grown, and no wake-up came".into()),
        },
        LogNotifications::Poll(every) => {
            ensure!(
                !every.is_zero() && *every <= Duration::from_secs(3_600),
                "a reader cannot use an interval of {every:?}"
            );
            Ok(false)
        }
    }
}

/// Reads whenever it is woken, until it has seen the target.
pub(crate) async fn read_when_woken(
    store: &dyn TokenStore,
    wakeups: &mut LogNotifications,
    reader: &mut Reader,
    target: &Target,
) -> Result<(), Broken> {
    while !reader.has(target) {
        woken(wakeups).await?;
        reader.read(store, 100).await?;
        if matches!(wakeups, LogNotifications::Poll(_)) {
            ensure!(reader.has(target), "{target:?} was acknowledged, and is not read");
        }
    }
    Ok(())
}

async fn a_reader_who_only_waits_gets_everything(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let mut wakeups = store.wakeups();
    let mut reader = Reader::default();
    reader.read(&*store, 100).await?;
    for round in 0..30 {
        let revocation = if round % 2 == 0 { single()? } else { bounded()? };
        store.revoked_as(revocation.clone()).await?;
        read_when_woken(&*store, &mut wakeups, &mut reader, &revocation.target).await?;
    }
    // A heartbeat takes the same path.
    let at = NOW + DAY;
    store.heartbeat(at, at + DAY).await?;
    for _ in 0..10 {
        if reader.heartbeat(at).is_some() {
            return Ok(());
        }
        woken(&mut wakeups).await?;
        reader.read(&*store, 100).await?;
    }
    Err("the heartbeat was not read".into())
}

async fn a_wakeup_does_not_come_before_its_entry(context: Context) -> Result<(), Broken> {
    for slow in [single, bounded] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let store = context.tokens().await;
            let mut wakeups = store.wakeups();
            let mut reader = Reader::default();
            let slow = slow()?;
            // The reader takes every wake-up there is, and reads, while the writer is under way.
            let eager = async {
                for _ in 0..4 {
                    if let LogNotifications::Stream(stream) = &mut wakeups {
                        let _ = stream.next().now_or_never();
                    }
                    reader.read(&*store, 100).await?;
                    tokio::task::yield_now().await;
                }
                Ok::<_, Broken>(())
            };
            let (revoked, read) = orders.play(store.revoke(slow.clone()), eager).await?;
            revoked?;
            read?;
            read_when_woken(&*store, &mut wakeups, &mut reader, &slow.target).await?;
        }
    }
    Ok(())
}

async fn every_waiting_reader_is_woken(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    at_once(WRITERS + READERS, |task| {
        let store = Arc::clone(&store);
        async move {
            if task < WRITERS {
                for round in 0..EACH {
                    let target = Target::Client(client(&format!("app-{task}-{round}"))?);
                    store.revoked(target).await?;
                    tokio::task::yield_now().await;
                }
                return Ok(());
            }
            let mut wakeups = store.wakeups();
            let mut reader = Reader::default();
            let all = (0..WRITERS).flat_map(|task| (0..EACH).map(move |round| (task, round)));
            reader.read(&*store, 100).await?;
            for (task, round) in all {
                let target = Target::Client(client(&format!("app-{task}-{round}"))?);
                while !reader.has(&target) {
                    if !woken(&mut wakeups).await? {
                        tokio::task::yield_now().await;
                    }
                    reader.read(&*store, 100).await?;
                }
            }
            Ok(())
        }
    })
    .await?;
    Ok(())
}

async fn a_reader_who_listens_late_is_woken(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    for _ in 0..3 {
        let mut reader = Reader::default();
        reader.read(&*store, 100).await?;
        // The log grows after it has read, and before it listens.
        let late = single()?;
        store.revoked_as(late.clone()).await?;
        let mut wakeups = store.wakeups();
        read_when_woken(&*store, &mut wakeups, &mut reader, &late.target).await?;
    }
    Ok(())
}
