//! `status`: what a store says of itself. What it does not know, it leaves out.

use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{
    Housekeeping, RevokeOutcome, StoreStatus, TokenStore, TokenStoreExt as _,
};
use cloakroom_core::time::UnixTime;

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::checks::contract::maintain::MILLISECOND;
use crate::fixtures::{DAY, MINUTE, NOW, grant, lone, revocation};
use crate::report::{Broken, NotOffered};

checks! { "contract::status":
    only_what_has_ended_is_counted => StatusCounts,
    a_count_has_a_limit => StatusCounts,
    what_maintain_leaves_is_not_counted => StatusCounts,
    an_open_sweep_is_counted => StatusCounts,
    asking_changes_nothing => StatusCounts,
}

/// How many rows have ended, and when the first of them did.
async fn ended(
    store: &dyn TokenStore,
    before: UnixTime,
) -> Result<(u64, Option<UnixTime>), Broken> {
    let StoreStatus { ended_rows, oldest_ended, .. } = store.status(before).await?;
    let rows = ended_rows.ok_or(NotOffered("a count of ended rows"))?;
    ensure!(
        (rows == 0) == oldest_ended.is_none(),
        "{rows} rows have ended, and the first of them at {oldest_ended:?}"
    );
    Ok((rows, oldest_ended))
}

async fn only_what_has_ended_is_counted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    same("a new store", &ended(&*store, NOW + 9 * DAY).await?, &(0, None))?;
    let epoch = store.epoch().await?;
    let ends = [NOW + 3 * MINUTE, NOW + MINUTE, NOW + 2 * MINUTE];
    for end in ends {
        let mut grant = grant("alice", "app", epoch)?;
        grant.expires_at = end;
        grant.row_expires_at = end;
        store.inserted(&grant, &[]).await?;
    }
    // Grants that live, also beyond their own end, and one that is revoked and has not ended.
    let mut needed = grant("alice", "app", epoch)?;
    needed.expires_at = NOW + MINUTE;
    needed.row_expires_at = NOW + DAY;
    let revoked = grant("alice", "app", epoch)?;
    for grant in [&needed, &revoked] {
        store.inserted(grant, &[]).await?;
    }
    store.revoked(Target::Grant(revoked.id)).await?;
    let first = NOW + MINUTE;
    for (before, should) in [
        (NOW, (0, None)),
        (first, (0, None)),
        (first + MILLISECOND, (1, Some(first))),
        (NOW + 2 * MINUTE + MILLISECOND, (2, Some(first))),
        (NOW + DAY / 2, (3, Some(first))),
    ] {
        let found = ended(&*store, before).await?;
        same(&format!("what has ended before {before:?}"), &found, &should)?;
    }
    Ok(())
}

async fn a_count_has_a_limit(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    for _ in 0..40 {
        store.inserted(&lone(epoch)?, &[]).await?;
    }
    let (rows, _) = ended(&*store, NOW + 9 * DAY).await?;
    ensure!(
        (40..=StoreStatus::MAX_COUNTED).contains(&rows),
        "{rows} rows are counted; 40 grants have ended"
    );
    Ok(())
}

async fn what_maintain_leaves_is_not_counted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    store.inserted(&grant("alice", "app", epoch)?, &[]).await?;
    let (until, rule_until) = (NOW + MINUTE, NOW + MINUTE);
    for target in [Target::Grant(lone(epoch)?.id), Target::Client(lone(epoch)?.client)] {
        store.revoked_as(Revocation { until, rule_until, ..revocation(target) }).await?;
    }
    store.heartbeat(NOW, NOW + MINUTE).await?;
    let before = NOW + 9 * DAY;
    let (rows, _) = ended(&*store, before).await?;
    ensure!(rows > 0, "nothing has ended");
    store.housekept(before).await?;
    // The newest entry of the log stays.
    same("what has ended after housekeeping", &ended(&*store, before).await?, &(0, None))
}

async fn an_open_sweep_is_counted(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    let mut ids = Vec::new();
    for _ in 0..300 {
        let grant = grant("alice", "app", epoch)?;
        store.inserted(&grant, &[]).await?;
        ids.push(grant.id);
    }
    let open = async || -> Result<u64, Broken> {
        let open = store.status(NOW).await?.open_sweeps;
        Ok(open.ok_or(NotOffered("a count of open sweeps"))?)
    };
    same("the open sweeps of a new store", &open().await?, &0)?;
    let subject = grant("alice", "app", epoch)?.subject;
    if let RevokeOutcome::Sweeping(entry) =
        store.revoke(revocation(Target::Subject(subject))).await?
    {
        if open().await? == 0 {
            // Then it is done, and somebody else has done it.
            for id in &ids {
                ensure!(!store.is_unrevoked(*id).await?, "no sweep is open, and {id:?} is live");
            }
        }
        let task = Housekeeping { now: NOW, before: NOW, limit: 100, sweep: Some(entry) };
        while store.maintain(task).await?.sweeping {}
    }
    same("the open sweeps when all are done", &open().await?, &0)
}

async fn asking_changes_nothing(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let grant = grant("alice", "app", store.epoch().await?)?;
    store.inserted(&grant, &[]).await?;
    store.revoked(Target::Grant(lone(grant.epoch)?.id)).await?;
    let before = NOW + 9 * DAY;
    let first = ended(&*store, before).await?;
    same("the second answer", &ended(&*store, before).await?, &first)?;
    same("a grant that ended", &store.grant(grant.id).await?, &grant)?;
    same("the entries of the log", &store.log().await?.len(), &1)
}
