//! Sweeps that `revoke` leaves to `maintain`.

use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{EntryId, LogEvent, Target};
use cloakroom_core::store::{
    CreateOutcome, Housekeeping, Lookup, RevokeOutcome, Selector, TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;
use cloakroom_core::{GrantId, Random};

use crate::Context;
use crate::ask::{Ask, ensure, same};
use crate::checks::contract::maintain::ending;
use crate::fixtures::{DAY, MINUTE, NOW, client, grant, pair, revocation, subject};
use crate::report::Broken;

checks! { "contract::maintain_sweeps":
    a_sweep_is_named_by_its_entry => RevokeSweeps,
    a_sweep_that_goes_on_denies_already => RevokeSweeps,
    a_sweep_is_said_to_go_on_until_it_is_done => RevokeSweeps,
    a_sweep_that_nobody_waits_for_is_done => RevokeSweeps,
    no_other_sweep_goes_on => RevokeSweeps,
    a_sweep_that_is_waited_for_comes_first => MaintainFair,
    deletion_goes_on_beside_a_sweep => MaintainFair,
    a_sweep_goes_on_beside_deletion => MaintainFair,
}

/// Grants of this subject at "app".
async fn grants(
    store: &dyn TokenStore,
    user: &str,
    count: usize,
) -> Result<Vec<GrantRecord>, Broken> {
    let epoch = store.epoch().await?;
    let mut grants = Vec::new();
    for _ in 0..count {
        let grant = grant(user, "app", epoch)?;
        store.inserted(&grant, &[]).await?;
        grants.push(grant);
    }
    Ok(grants)
}

fn alice() -> Result<[Target; 3], Broken> {
    let (alice, app) = (subject("alice")?, client("app")?);
    Ok([Target::Subject(alice.clone()), Target::Client(app.clone()), pair(&alice, &app)])
}

/// Revokes the target. Returns the sweep if `revoke` leaves it to `maintain`.
async fn begun(store: &dyn TokenStore, target: &Target) -> Result<Option<EntryId>, Broken> {
    Ok(match store.revoke(revocation(target.clone())).await? {
        RevokeOutcome::Done => None,
        RevokeOutcome::Sweeping(sweep) => Some(sweep),
    })
}

/// One call of `maintain`, at a time at which nothing has ended.
fn task(limit: u32, sweep: Option<EntryId>) -> Housekeeping {
    Housekeeping { now: NOW, before: UnixTime::from_millis(0), limit, sweep }
}

async fn all_are_flagged(store: &dyn TokenStore, grants: &[GrantRecord]) -> Result<(), Broken> {
    same("how many covered grants are not flagged", &unflagged(store, grants).await?, &0)
}

async fn unflagged(store: &dyn TokenStore, grants: &[GrantRecord]) -> Result<usize, Broken> {
    let mut count = 0;
    for grant in grants {
        count += usize::from(store.is_unrevoked(grant.id).await?);
    }
    Ok(count)
}

async fn a_sweep_is_named_by_its_entry(context: Context) -> Result<(), Broken> {
    for target in alice()? {
        let store = context.tokens().await;
        grants(&*store, "alice", 3).await?;
        for _ in 0..2 {
            let Some(sweep) = begun(&*store, &target).await? else { return Ok(()) };
            let log = store.log().await?;
            let entry = log.iter().find(|entry| entry.id == sweep);
            let entry = entry.ok_or_else(|| format!("{sweep:?} is no entry of the log"))?;
            ensure!(
                matches!(&entry.event, LogEvent::Revoked { target: own, .. } if *own == target),
                "the sweep of {target:?} is named by {entry:?}"
            );
            same("the newest entry", &log.last().map(|entry| entry.id), &Some(sweep))?;
        }
    }
    Ok(())
}

async fn a_sweep_that_goes_on_denies_already(context: Context) -> Result<(), Broken> {
    for target in alice()? {
        let store = context.tokens().await;
        let covered = grants(&*store, "alice", 3).await?;
        begun(&*store, &target).await?;
        let key = target.rule_key().ok_or("the target leaves no rule")?;
        let rule = store.rule(key).await?.ok_or("the rule is not in force")?;
        ensure!(covered.iter().all(|grant| rule.denies(grant.epoch)), "{rule:?} denies too little");
        let listed = store.listed_ids(Selector::Subject(subject("alice")?), NOW).await?;
        ensure!(listed.is_empty(), "grants that the rule denies are listed: {listed:?}");
        let late = store.create(covered[0].clone(), vec![]).await?;
        same("a retry of `create`", &late, &CreateOutcome::Barred)?;
    }
    Ok(())
}

async fn a_sweep_is_said_to_go_on_until_it_is_done(context: Context) -> Result<(), Broken> {
    for target in alice()? {
        let store = context.tokens().await;
        let covered = grants(&*store, "alice", 60).await?;
        let Some(sweep) = begun(&*store, &target).await? else { return Ok(()) };
        let mut calls = 0;
        while store.maintain(task(5, Some(sweep))).await?.sweeping {
            calls += 1;
            ensure!(calls < 1_000, "a sweep of 60 grants goes on after {calls} calls");
        }
        all_are_flagged(&*store, &covered).await?;
        let again = store.maintain(task(5, Some(sweep))).await?;
        ensure!(!again.sweeping, "a sweep that was done is said to be open");
    }
    Ok(())
}

async fn a_sweep_that_nobody_waits_for_is_done(context: Context) -> Result<(), Broken> {
    for target in alice()? {
        let store = context.tokens().await;
        let covered = grants(&*store, "alice", 60).await?;
        begun(&*store, &target).await?;
        let mut calls = 0;
        while store.maintain(task(5, None)).await?.more {
            calls += 1;
            ensure!(calls < 1_000, "a sweep of 60 grants is not done after {calls} calls");
        }
        all_are_flagged(&*store, &covered).await?;
    }
    Ok(())
}

async fn no_other_sweep_goes_on(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let stranger = EntryId::random(&Random::system())?;
    store.heartbeat(NOW, NOW + DAY).await?;
    store.revoked(Target::Grant(GrantId::random(&Random::system())?)).await?;
    store.revoked(Target::Client(client("app")?)).await?;
    let log = store.log().await?;
    for id in log.iter().map(|entry| entry.id).chain([stranger]) {
        let done = store.maintain(task(10, Some(id))).await?;
        ensure!(!done.sweeping, "no sweep is open, but {id:?} is said to be");
    }
    // Nor while there is one.
    grants(&*store, "bob", 3).await?;
    let other = begun(&*store, &Target::Subject(subject("bob")?)).await?;
    let done = store.maintain(task(1, Some(stranger))).await?;
    ensure!(!done.sweeping, "a sweep that never existed is said to be open");
    store.swept(other.map_or(RevokeOutcome::Done, RevokeOutcome::Sweeping)).await
}

async fn a_sweep_that_is_waited_for_comes_first(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let many = grants(&*store, "alice", 600).await?;
    let few = grants(&*store, "bob", 5).await?;
    let first = begun(&*store, &Target::Subject(subject("alice")?)).await?;
    let second = begun(&*store, &Target::Subject(subject("bob")?)).await?;
    let (Some(_), Some(second)) = (first, second) else { return Ok(()) };
    let mut calls = 0;
    while store.maintain(task(10, Some(second))).await?.sweeping {
        calls += 1;
        ensure!(
            calls < 40,
            "a sweep of 5 grants that is waited for goes on after {calls} calls for 10 rows each"
        );
    }
    all_are_flagged(&*store, &few).await?;
    while store.maintain(task(1_000, None)).await?.more {}
    all_are_flagged(&*store, &many).await
}

async fn deletion_goes_on_beside_a_sweep(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let covered = grants(&*store, "alice", 600).await?;
    let target = Target::Subject(subject("alice")?);
    if begun(&*store, &target).await?.is_none() {
        return Ok(());
    }
    let mut ended = Vec::new();
    for _ in 0..20 {
        let (grant, _) = ending(&*store, NOW - MINUTE).await?;
        ended.push(grant.id);
    }
    let task = Housekeeping { before: NOW, ..task(10, None) };
    for _ in 0..40 {
        store.maintain(task).await?;
    }
    let mut left = 0;
    for id in ended {
        left += usize::from(store.find(id, None).await? != Lookup::Absent);
    }
    let unflagged = unflagged(&*store, &covered).await?;
    ensure!(
        left < 20 || unflagged == 0,
        "40 calls for 10 rows each swept all but {unflagged} of 600 grants, and deleted none of 20 \
         that had ended"
    );
    Ok(())
}

async fn a_sweep_goes_on_beside_deletion(context: Context) -> Result<(), Broken> {
    let store = context.tokens().await;
    let covered = grants(&*store, "bob", 20).await?;
    let Some(sweep) = begun(&*store, &Target::Subject(subject("bob")?)).await? else {
        return Ok(());
    };
    for _ in 0..600 {
        ending(&*store, NOW - MINUTE).await?;
    }
    let task = Housekeeping { before: NOW, ..task(10, Some(sweep)) };
    let mut calls = 0;
    while store.maintain(task).await?.sweeping {
        calls += 1;
        ensure!(
            calls < 40,
            "a sweep of 20 grants that is waited for goes on after {calls} calls for 10 rows each, \
             while ended rows are deleted"
        );
    }
    all_are_flagged(&*store, &covered).await
}
