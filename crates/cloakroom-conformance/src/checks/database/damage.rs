//! A row that cannot be read: it is an error when it is read, and does not affect other rows.

use cloakroom_core::GrantId;
use cloakroom_core::record::GrantRecord;
use cloakroom_core::revocation::{Revocation, Target};
use cloakroom_core::store::{
    AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, Lookup, PageRequest, Selector,
    StoreError, TokenStore, TokenStoreExt,
};

use crate::ask::{Ask, ensure, same, step_from};
use crate::checks::contract::scan::scanned;
use crate::context::Bench;
use crate::fixtures::{DAY, MINUTE, NOW, grant, moved, revocation, token};
use crate::report::Broken;
use crate::{Context, Instance};

checks! { "database::damage":
    a_damaged_grant_is_named_and_passed_by => ListUnreadable,
    a_damaged_grant_is_an_error => ListUnreadable,
    a_damaged_grant_is_revoked => ListUnreadable,
    a_damaged_grant_does_not_stop_a_sweep => ListUnreadable,
    a_damaged_grant_does_not_stop_deletion => ListUnreadable,
    a_damaged_grant_is_named_by_a_scan => ScanUnreadable,
}

/// Grants of "alice" at "app", in the order of their ids; the third is damaged.
async fn damaged(
    context: &Context,
) -> Result<(Bench, Instance, Vec<GrantRecord>, GrantRecord), Broken> {
    let (bench, instance) = context.database().await?;
    let store = &*instance.tokens;
    let epoch = store.epoch().await?;
    let mut grants = Vec::new();
    for _ in 0..7 {
        let grant = grant("alice", "app", epoch)?;
        store.inserted(&grant, &[token(&grant)?]).await?;
        grants.push(grant);
    }
    grants.sort_unstable_by_key(|grant| grant.id);
    let damaged = grants.remove(2);
    bench.damage(damaged.id).await?;
    Ok((bench, instance, grants, damaged))
}

fn all_selectors(grant: &GrantRecord) -> [Selector; 3] {
    let (subject, client) = (grant.subject.clone(), grant.client.clone());
    [
        Selector::Subject(subject.clone()),
        Selector::Client(client.clone()),
        Selector::SubjectAtClient(subject, client),
    ]
}

async fn a_damaged_grant_is_named_and_passed_by(context: Context) -> Result<(), Broken> {
    let (_bench, instance, grants, damaged) = damaged(&context).await?;
    let ids: Vec<GrantId> = grants.iter().map(|grant| grant.id).collect();
    for of in all_selectors(&damaged) {
        for limit in [1, 3, 100] {
            let (listed, unreadable) = listed(&*instance.tokens, &of, limit).await?;
            same("the grants that can be read", &listed, &ids)?;
            same("those that cannot", &unreadable, &vec![damaged.id])?;
        }
    }
    Ok(())
}

/// The ids of all that is listed, page by page, and of what cannot be read.
async fn listed(
    store: &dyn TokenStore,
    of: &Selector,
    limit: u32,
) -> Result<(Vec<GrantId>, Vec<GrantId>), Broken> {
    let (mut listed, mut unreadable, mut after) = (Vec::new(), Vec::new(), None);
    for _ in 0..100 {
        let listing = store.list(of.clone(), PageRequest { after, limit }, NOW).await?;
        listed.extend(listing.grants.iter().map(|grant| grant.id));
        unreadable.extend(listing.unreadable);
        after = listing.next;
        if after.is_none() {
            return Ok((listed, unreadable));
        }
    }
    Err(format!("the listing of {of:?} went on for 100 pages").into())
}

fn is_corrupt<T: std::fmt::Debug>(
    what: &str,
    answer: &Result<T, StoreError>,
) -> Result<(), Broken> {
    ensure!(
        matches!(answer, Err(StoreError::Corrupt { .. })),
        "a row that cannot be read is {answer:?} to `{what}`"
    );
    Ok(())
}

async fn a_damaged_grant_is_an_error(context: Context) -> Result<(), Broken> {
    let (_bench, instance, _, damaged) = damaged(&context).await?;
    let store = &*instance.tokens;
    is_corrupt("find", &store.find(damaged.id, None).await)?;
    let step = step_from(&damaged, ChainUpdate::Move(Box::new(moved(&damaged)?)), &[])?;
    match store.advance(step).await {
        // Who judges by columns alone may have to write a whole record in its place.
        Ok(AdvanceOutcome::Advanced) => {}
        answer => is_corrupt("advance", &answer)?,
    }
    let mut other = damaged.clone();
    other.username = Some("someone else".into());
    match store.create(other, vec![]).await {
        Ok(CreateOutcome::Exists) => {}
        answer => is_corrupt("create", &answer)?,
    }
    Ok(())
}

async fn a_damaged_grant_is_revoked(context: Context) -> Result<(), Broken> {
    let (_bench, instance, grants, damaged) = damaged(&context).await?;
    let store = &*instance.tokens;
    store.revoked(Target::Grant(damaged.id)).await?;
    // Nobody asks the engine to revoke it again.
    for of in all_selectors(&damaged) {
        let (listed, unreadable) = listed(store, &of, 100).await?;
        same("how many can be read", &listed.len(), &grants.len())?;
        same("those that cannot", &unreadable, &vec![])?;
    }
    match store.find(damaged.id, None).await {
        Ok(Lookup::Found(found)) if found.grant.revoked_at.is_some() => Ok(()),
        Ok(Lookup::Tombstone) => Ok(()),
        answer => is_corrupt("find", &answer),
    }
}

async fn a_damaged_grant_does_not_stop_a_sweep(context: Context) -> Result<(), Broken> {
    for target in
        [(|grant| Target::Subject(grant.subject.clone())) as fn(&GrantRecord) -> Target, |grant| {
            Target::Client(grant.client.clone())
        }]
    {
        let (_bench, instance, grants, damaged) = damaged(&context).await?;
        let store = &*instance.tokens;
        let (until, rule_until) = (NOW + MINUTE, NOW + MINUTE);
        let revocation = Revocation { until, rule_until, ..revocation(target(&damaged)) };
        store.revoked_as(revocation).await?;
        for grant in &grants {
            ensure!(!store.is_unrevoked(grant.id).await?, "the sweep left {:?} alive", grant.id);
        }
        // When the rule is gone, what was flagged stays revoked.
        store.heartbeat(NOW, NOW + DAY).await?;
        store.housekept(NOW + 2 * MINUTE).await?;
        let left = listed(store, &Selector::Subject(damaged.subject), 100).await?;
        same("what is listed after the sweep", &left, &(vec![], vec![]))?;
    }
    Ok(())
}

async fn a_damaged_grant_does_not_stop_deletion(context: Context) -> Result<(), Broken> {
    let (_bench, instance, grants, damaged) = damaged(&context).await?;
    let store = &*instance.tokens;
    let end = damaged.row_expires_at + MINUTE;
    let task = Housekeeping { now: end + DAY, before: end, limit: 10, sweep: None };
    let mut calls = 0;
    while store.maintain(task).await?.more {
        calls += 1;
        ensure!(calls < 100, "it never stops saying \"more\"");
    }
    for grant in &grants {
        let lookup = store.find(grant.id, None).await?;
        same("a grant that ended", &lookup, &Lookup::Absent)?;
    }
    Ok(())
}

async fn a_damaged_grant_is_named_by_a_scan(context: Context) -> Result<(), Broken> {
    let (_bench, instance, grants, damaged) = damaged(&context).await?;
    for limit in [1, 3, 100] {
        let (scanned, unreadable) = scanned(&*instance.tokens, limit).await?;
        same("the grants that can be read", &scanned, &grants)?;
        same("those that cannot", &unreadable, &vec![damaged.id])?;
    }
    Ok(())
}
