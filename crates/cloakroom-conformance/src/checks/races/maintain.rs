//! `maintain` beside every other call, and beside itself.

use std::sync::Arc;
use std::time::Duration;

use cloakroom_core::record::{GrantRecord, TokenRecord};
use cloakroom_core::revocation::{Cursor, Epoch, LogEvent, Revocation, RevocationBatch, Target};
use cloakroom_core::store::{
    Advance, AdvanceOutcome, ChainUpdate, CreateOutcome, Housekeeping, Lookup, MaintenanceReport,
    Selector, StoreError, TokenStore, TokenStoreExt,
};
use cloakroom_core::time::UnixTime;

use crate::Context;
use crate::ask::{Ask, ensure, same, step_from};
use crate::fixtures::{DAY, MINUTE, NOW, client, grant, lone, moved, revocation, subject, token};
use crate::pace::{Interleavings, at_once};
use crate::reading::read_on;
use crate::report::Broken;

checks! { "races::maintain":
    a_row_that_moves_on_while_it_is_being_deleted_stays => MaintainRaces,
    a_rule_that_is_renewed_while_it_is_being_removed_stays => MaintainRaces,
    a_tombstone_that_is_renewed_while_it_is_being_removed_stays => MaintainRaces,
    a_grant_created_beside_housekeeping_stays => MaintainRaces,
    a_revocation_beside_housekeeping_is_whole => MaintainRaces,
    two_housekeepers_do_one_work => MaintainRaces,
    an_entry_written_beside_housekeeping_stays => MaintainRaces,
    the_living_lose_nothing_beside_many_housekeepers => MaintainRaces,
}

const MILLISECOND: Duration = Duration::from_millis(1);

/// `maintain`, again and again until nothing is left, as a housekeeper does; `before` is [`NOW`].
async fn housekeep(store: &dyn TokenStore, limit: u32) -> Result<MaintenanceReport, StoreError> {
    let mut sum = MaintenanceReport::default();
    loop {
        let task = Housekeeping { now: NOW + MINUTE, before: NOW, limit, sweep: None };
        let done = store.maintain(task).await?;
        sum.grants += done.grants;
        sum.tokens += done.tokens;
        sum.revocations += done.revocations;
        if !done.more {
            return Ok(sum);
        }
    }
}

/// A grant whose row ended just before [`NOW`], with a token that ended with it.
fn just_ended() -> Result<(GrantRecord, TokenRecord), Broken> {
    let end = NOW - MILLISECOND;
    let mut grant = lone(Epoch::new(u64::MAX / 2))?;
    grant.created_at = NOW - DAY;
    grant.expires_at = end;
    grant.row_expires_at = end;
    if let Some(chain) = &mut grant.chain {
        chain.expires_at = end;
    }
    let mut token = token(&grant)?;
    token.issued_at = NOW - DAY;
    token.expires_at = end;
    Ok((grant, token))
}

async fn a_row_that_moves_on_while_it_is_being_deleted_stays(
    context: Context,
) -> Result<(), Broken> {
    for housekeeping_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let store = context.tokens().await;
            let (mut grant, old) = just_ended()?;
            // The grant might live on; its row ends unless it is used.
            grant.expires_at = NOW + DAY;
            store.inserted(&grant, std::slice::from_ref(&old)).await?;
            // By the clock of another node it has a little time left, and uses it.
            let mut next = moved(&grant)?;
            next.row_expires_at = NOW + DAY;
            if let Some(chain) = &mut next.chain {
                chain.expires_at = NOW + DAY;
            }
            let new = token(&grant)?;
            let change = ChainUpdate::Move(Box::new(next.clone()));
            let step = step_from(&grant, change, std::slice::from_ref(&new))?;
            let step = store.advance(Advance { now: NOW - 2 * MILLISECOND, ..step });
            let keeping = housekeep(&*store, 10);
            let (step, keeping) = if housekeeping_first {
                let (keeping, step) = orders.play(keeping, step).await?;
                (step, keeping)
            } else {
                orders.play(step, keeping).await?
            };
            keeping?;
            match step? {
                AdvanceOutcome::Advanced => {
                    let found = store.found(grant.id, new.digest).await?;
                    same("the grant that moved on", &*found.grant, &next)?;
                    same("its new token", &found.token.as_deref(), &Some(&new))?;
                    let of = Selector::Subject(grant.subject.clone());
                    let listed = store.listed_ids(of, NOW).await?;
                    same("what is listed", &listed, &vec![grant.id])?;
                }
                AdvanceOutcome::Unknown => {
                    let lookup = store.find(grant.id, Some(new.digest)).await?;
                    same("a grant that was deleted", &lookup, &Lookup::Absent)?;
                }
                other => return Err(format!("the step answered {other:?}").into()),
            }
        }
    }
    Ok(())
}

async fn a_rule_that_is_renewed_while_it_is_being_removed_stays(
    context: Context,
) -> Result<(), Broken> {
    for housekeeping_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let store = context.tokens().await;
            let alice = Target::Subject(subject("alice")?);
            let (old, new) = (revocation(alice.clone()), revocation(alice.clone()));
            store
                .revoked_as(Revocation {
                    until: NOW - MILLISECOND,
                    rule_until: NOW - MILLISECOND,
                    ..old
                })
                .await?;
            let (renew, keeping) = (store.revoke(new), housekeep(&*store, 10));
            let (renewed, keeping) = if housekeeping_first {
                let (keeping, renewed) = orders.play(keeping, renew).await?;
                (renewed, keeping)
            } else {
                orders.play(renew, keeping).await?
            };
            keeping?;
            store.swept(renewed?).await?;
            let bound = store.bound_of(&alice).await?;
            let key = alice.rule_key().ok_or("a subject without a rule")?;
            let rule = store.rule(key).await?.ok_or("the renewed rule is gone")?;
            same("the renewed rule's bound", &rule.bound, &Some(bound))?;
            same("the renewed rule's end", &rule.until, &(NOW + 2 * DAY))?;
        }
    }
    Ok(())
}

async fn a_tombstone_that_is_renewed_while_it_is_being_removed_stays(
    context: Context,
) -> Result<(), Broken> {
    for housekeeping_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let store = context.tokens().await;
            let grant = lone(store.epoch().await?)?;
            let old = revocation(Target::Grant(grant.id));
            store
                .revoked_as(Revocation {
                    until: NOW - MILLISECOND,
                    rule_until: NOW - MILLISECOND,
                    ..old
                })
                .await?;
            let renew = store.revoke(revocation(Target::Grant(grant.id)));
            let keeping = housekeep(&*store, 10);
            let (renewed, keeping) = if housekeeping_first {
                let (keeping, renewed) = orders.play(keeping, renew).await?;
                (renewed, keeping)
            } else {
                orders.play(renew, keeping).await?
            };
            keeping?;
            renewed?;
            let late = store.create(grant.clone(), vec![]).await?;
            same("a late `create`", &late, &CreateOutcome::Barred)?;
        }
    }
    Ok(())
}

async fn a_grant_created_beside_housekeeping_stays(context: Context) -> Result<(), Broken> {
    for housekeeping_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let store = context.tokens().await;
            // One row of the same subject and client has ended: its index entries go.
            let (ended, _) = just_ended()?;
            store.inserted(&ended, &[]).await?;
            let mut new = lone(store.epoch().await?)?;
            new.subject = ended.subject.clone();
            new.client = ended.client.clone();
            let tokens = vec![token(&new)?, token(&new)?];
            let create = store.create(new.clone(), tokens.clone());
            let keeping = housekeep(&*store, 10);
            let (created, keeping) = if housekeeping_first {
                let (keeping, created) = orders.play(keeping, create).await?;
                (created, keeping)
            } else {
                orders.play(create, keeping).await?
            };
            keeping?;
            same("the answer to `create`", &created?, &CreateOutcome::Inserted)?;
            stays(&*store, &new, &tokens).await?;
        }
    }
    Ok(())
}

/// That the grant is there as it should be, with its tokens, and listed.
async fn stays(
    store: &dyn TokenStore,
    grant: &GrantRecord,
    tokens: &[TokenRecord],
) -> Result<(), Broken> {
    for token in tokens {
        let found = store.found(grant.id, token.digest).await?;
        same("a living grant", &*found.grant, grant)?;
        same("a living token", &found.token.as_deref(), &Some(token))?;
    }
    for of in [Selector::Subject(grant.subject.clone()), Selector::Client(grant.client.clone())] {
        let listed = store.listed_ids(of.clone(), NOW).await?;
        ensure!(listed.contains(&grant.id), "{of:?} does not list a living grant");
    }
    Ok(())
}

async fn a_revocation_beside_housekeeping_is_whole(context: Context) -> Result<(), Broken> {
    for housekeeping_first in [true, false] {
        let mut orders = Interleavings::new(&context);
        while orders.again() {
            let store = context.tokens().await;
            let (ended, _) = just_ended()?;
            store.inserted(&ended, &[]).await?;
            let mut covered = lone(store.epoch().await?)?;
            covered.subject = ended.subject.clone();
            covered.client = ended.client.clone();
            store.inserted(&covered, &[]).await?;
            let target = Target::Subject(ended.subject.clone());
            let revoke = store.revoke(revocation(target.clone()));
            let keeping = housekeep(&*store, 10);
            let (revoked, keeping) = if housekeeping_first {
                let (keeping, revoked) = orders.play(keeping, revoke).await?;
                (revoked, keeping)
            } else {
                orders.play(revoke, keeping).await?
            };
            keeping?;
            store.swept(revoked?).await?;
            let bound = store.bound_of(&target).await?;
            ensure!(covered.epoch <= bound, "bound {bound:?} was allotted twice");
            ensure!(!store.is_unrevoked(covered.id).await?, "a covered grant was not revoked");
            let key = target.rule_key().ok_or("a subject without a rule")?;
            let rule = store.rule(key).await?.ok_or("the revocation left no rule")?;
            same("the rule's bound", &rule.bound, &Some(bound))?;
        }
    }
    Ok(())
}

async fn two_housekeepers_do_one_work(context: Context) -> Result<(), Broken> {
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let store = context.tokens().await;
        let mut ended = Vec::new();
        for _ in 0..3 {
            let (grant, token) = just_ended()?;
            store.inserted(&grant, std::slice::from_ref(&token)).await?;
            ended.push(grant);
        }
        let living = lone(store.epoch().await?)?;
        let tokens = [token(&living)?];
        store.inserted(&living, &tokens).await?;
        let (one, two) = (housekeep(&*store, 1), housekeep(&*store, 10));
        let (one, two) = orders.play(one, two).await?;
        let count = one?.grants + two?.grants;
        ensure!(count <= 3, "two housekeepers say that they deleted {count} grants of 3");
        // What one of them left to the other, a third does.
        store.housekept(NOW).await?;
        for grant in &ended {
            let lookup = store.find(grant.id, None).await?;
            same("a grant that has ended", &lookup, &Lookup::Absent)?;
        }
        stays(&*store, &living, &tokens).await?;
    }
    Ok(())
}

async fn an_entry_written_beside_housekeeping_stays(context: Context) -> Result<(), Broken> {
    let mut orders = Interleavings::new(&context);
    while orders.again() {
        let store = context.tokens().await;
        for _ in 0..3 {
            let ended = revocation(Target::Grant(lone(Epoch::default())?.id));
            store
                .revoked_as(Revocation {
                    until: NOW - MILLISECOND,
                    rule_until: NOW - MILLISECOND,
                    ..ended
                })
                .await?;
        }
        let (_, cursor) = read_on(&*store, Cursor::start(), 7).await?;
        let target = Target::Grant(lone(Epoch::default())?.id);
        let revoke = store.revoke(revocation(target.clone()));
        let (keeping, revoked) = orders.play(housekeep(&*store, 10), revoke).await?;
        keeping?;
        revoked?;
        // It had read everything, and the newest entry stays until there is a newer one; that one
        // may be trimmed then, and the reader has to begin anew.
        let batch = store.revocations(cursor, 10).await?;
        let entries = match batch {
            RevocationBatch::Entries { entries, .. } => entries,
            RevocationBatch::Gap => store.log().await?,
        };
        let is_there = entries.iter().any(
            |entry| matches!(&entry.event, LogEvent::Revoked { target: own, .. } if *own == target),
        );
        ensure!(is_there, "the entry of {target:?} is gone, long before its end");
    }
    Ok(())
}

async fn the_living_lose_nothing_beside_many_housekeepers(context: Context) -> Result<(), Broken> {
    const ROUNDS: usize = 25;
    let store = context.tokens().await;
    let epoch = store.epoch().await?;
    for number in 0..100 {
        let (mut ended, token) = just_ended()?;
        ended.subject = subject(&format!("user-{}", number % 4))?;
        store.inserted(&ended, &[token]).await?;
        let old = revocation(Target::Grant(lone(Epoch::default())?.id));
        store
            .revoked_as(Revocation {
                until: NOW - MILLISECOND,
                rule_until: NOW - MILLISECOND,
                ..old
            })
            .await?;
    }
    let kept = at_once(12, |task| {
        let store = Arc::clone(&store);
        async move {
            let mut kept = Vec::new();
            for round in 0..ROUNDS {
                if task % 3 == 0 {
                    housekeep(&*store, 7).await?;
                    tokio::task::yield_now().await;
                    continue;
                }
                let user = format!("user-{}", (task + round) % 4);
                let first = grant(&user, &format!("app-{task}"), epoch)?;
                let one = token(&first)?;
                store.inserted(&first, std::slice::from_ref(&one)).await?;
                let (next, two) = (moved(&first)?, token(&first)?);
                let change = ChainUpdate::Move(Box::new(next.clone()));
                let step = store.step(&first, change, std::slice::from_ref(&two)).await?;
                same("a step beside housekeeping", &step, &AdvanceOutcome::Advanced)?;
                stays(&*store, &next, &[one.clone(), two.clone()]).await?;
                if task % 3 == 1 {
                    store.revoked(Target::Grant(next.id)).await?;
                    ensure!(!store.is_unrevoked(next.id).await?, "a revoked grant lives");
                } else {
                    kept.push((next, [one, two]));
                }
            }
            Ok(kept)
        }
    });
    for (grant, tokens) in kept.await?.iter().flatten() {
        stays(&*store, grant, tokens).await?;
    }
    let log = store.log().await?;
    let living = log.iter().filter(|entry| entry.until >= NOW).count();
    let should = ROUNDS * 4;
    ensure!(living >= should, "the log holds {living} entries that matter, of {should}");
    let of = Selector::Client(client("app")?);
    let listed = store.listed_ids(of, UnixTime::from_millis(0)).await?;
    ensure!(listed.is_empty(), "after housekeeping, {} ended grants are listed", listed.len());
    Ok(())
}
